"""Reads the game's state from quantized features, so that a dreamed state can be held against the real one.

Like the probes of ``cnn_encoder``, but kept after training, because a dream is read at every horizon.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from cnn_encoder import StateLabels
from torch import Tensor, nn

from wm.device import derive_seed, frozen
from wm.fit import FitConfig, fit
from wm.reporter import Reporter

CHUNK = 8192


class ReaderBatch(NamedTuple):
    """B rows of tokens with their labels."""

    tokens: Tensor  # int64 (B, L)
    values: Tensor  # float32 (B, V)
    in_play: Tensor  # bool (B, V)


class StateReader(nn.Module):
    """Two hidden layers from the code embeddings of all levels to V state variables.

    Args:
        tables: one (K, D) a level, the codebooks; not trained.
        state: training labels, from which means and deviations are taken.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tables: tuple[Tensor, ...], state: StateLabels, hidden_dim: int = 256) -> None:
        super().__init__()
        self.tables = tables
        width = sum(table.shape[1] for table in tables)
        count = state.in_play.sum(0).clamp(min=1)
        mean = (state.values * state.in_play).sum(0) / count
        variance = ((state.values - mean).square() * state.in_play).sum(0) / count
        self.register_buffer("mean", mean)
        self.register_buffer("std", variance.sqrt().clamp(min=1e-3))
        self.network = nn.Sequential(
            nn.Linear(width, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, len(state.names)),
        )
        # Code embeddings are small and share an offset; centred and scaled they train in few steps.
        self.center = torch.cat([table.mean(0) for table in tables])
        self.scale = torch.cat([(table - table.mean(0)).flatten() for table in tables]).std()

    def forward(self, batch: ReaderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over variables of the Huber error, in deviations, where the variable is in play."""
        error = F.smooth_l1_loss(
            self._standardised(batch.tokens), (batch.values - self.mean) / self.std, reduction="none"
        )
        count = batch.in_play.sum(0).clamp(min=1)
        loss = ((error * batch.in_play).sum(0) / count).mean()
        return loss, {}

    @torch.no_grad()
    def read(self, tokens: Tensor) -> Tensor:
        """State variables in their own units: int64 (..., L) -> float32 (..., V)."""
        parts = [self._standardised(part) for part in tokens.flatten(0, -2).split(CHUNK)]
        return (torch.cat(parts) * self.std + self.mean).unflatten(0, tokens.shape[:-1])

    def after_step(self) -> None:
        """Nothing follows a step."""

    def _standardised(self, tokens: Tensor) -> Tensor:
        features = torch.cat([table[tokens[:, level]] for level, table in enumerate(self.tables)], -1)
        predicted: Tensor = self.network((features - self.center) / self.scale)
        return predicted.float()


def train_reader(
    tables: tuple[Tensor, ...],
    tokens: Tensor,
    state: StateLabels,
    *,
    steps: int,
    seed: int,
    device: torch.device,
    reporter: Reporter,
) -> StateReader:
    """A reader that has learned from labelled rows: tokens int64 (N, L), row for row with ``state``."""
    torch.manual_seed(derive_seed(seed, "reader"))
    reader = StateReader(tables, state).to(device)
    config = FitConfig(
        steps=steps, batch_size=512, learning_rate=2e-3, weight_decay=1e-2, warmup=min(50, steps // 5)
    )

    def batch(index: int) -> ReaderBatch:
        draw = torch.Generator().manual_seed(derive_seed(seed, "reader", index))
        rows = torch.randint(len(tokens), (config.batch_size,), generator=draw).to(device)
        return ReaderBatch(tokens[rows], state.values[rows], state.in_play[rows])

    with tempfile.TemporaryDirectory() as directory:
        fit(
            reader,
            batch,
            config,
            stage="state reader",
            seed=seed,
            device=device,
            reporter=reporter,
            checkpoint=Path(directory) / "reader.pt",
        )
    return frozen(reader)

"""The supervised encoder: the same network trained on the labels, for comparison."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .encoder import Encoder
from .initialization import initialize
from .probes import label_moments
from .variables import StateLabels


class SupervisedBatch(NamedTuple):
    """B stacks of four frames with their labels."""

    frames: Tensor  # (B, 4, 84, 84) uint8
    labels: Tensor  # (B, V) float32
    in_play: Tensor  # (B, V) bool: where a variable counts
    background: Tensor  # (84, 84) or (B, 84, 84) float32


class SupervisedObjective(nn.Module):
    """Regression of every state variable from the embedding by one linear layer.

        loss = mean over variables of the mean over frames in play of ((s_hat - s) / std(s))^2

    It measures what the architecture can hold. No other objective uses labels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: Encoder, statistics: StateLabels, *, generator: torch.Generator | None = None
    ) -> None:
        """``statistics`` are the training labels, from which means and standard deviations are computed."""
        super().__init__()
        self.encoder = encoder
        values = statistics.values.masked_fill(~statistics.in_play, 0.0)
        mean, std = label_moments(values, statistics.in_play)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std.clamp(min=1e-3))
        self.head = nn.Linear(encoder.config.embedding_dim, len(statistics.names))
        initialize(self.head, generator)

    def forward(self, batch: SupervisedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of one batch.

        Raises:
            ValueError: labels or mask do not match the frames and the variables.
        """
        expected = (*batch.frames.shape[:1], len(self.mean))
        if batch.labels.shape != expected or batch.in_play.shape != expected:
            raise ValueError(
                f"labels are {tuple(batch.labels.shape)} and in_play {tuple(batch.in_play.shape)}; "
                f"expected {expected}, a row for each stack and a column for each variable"
            )
        predicted = self.head(self.encoder(batch.frames, batch.background)).float()
        labels = batch.labels.masked_fill(~batch.in_play, 0.0)  # NaN there would reach the gradient
        error = ((labels - self.mean) / self.std - predicted).square()
        error = error.masked_fill(~batch.in_play, 0.0)
        loss = (error.sum(0) / batch.in_play.sum(0).clamp(min=1)).mean()
        return loss, {"loss": loss.detach()}

    def after_step(self) -> None:
        """There is nothing to do after a step."""

"""The contrastive objective: what follows must be told from what else happened nearby."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Encoder, stack_frames
from .initialization import initialize

NUM_ACTIONS = 18


def info_nce(
    anchors: Tensor, positives: Tensor, temperature: float, *, ignore: Tensor | None = None
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4), in nats, averaged over all anchors.

        loss_i = -log( exp(a_i . p_i / temperature) / sum_j exp(a_i . p_j / temperature) )

    Args:
        anchors: (..., N, D).
        positives: (..., N, D); row i is the positive of anchor i, the other rows of the same N its negatives.
        temperature: divides the dot products.
        ignore: bool, broadcast to (..., N, N); true where row j must not count as a negative of anchor i.

    Returns:
        A float32 scalar; log N at chance.
    """
    if anchors.shape != positives.shape or anchors.ndim < 2:
        raise ValueError(
            f"anchors are {tuple(anchors.shape)}, positives {tuple(positives.shape)}; "
            "both must have one shape (..., N, D)"
        )
    logits = _similarities(anchors, positives, temperature, ignore)
    return (logits.logsumexp(-1) - logits.diagonal(dim1=-2, dim2=-1)).mean()


def _similarities(anchors: Tensor, positives: Tensor, temperature: float, ignore: Tensor | None) -> Tensor:
    with torch.autocast(anchors.device.type, enabled=False):
        logits = anchors.float() @ positives.float().mT / temperature
    return logits if ignore is None else logits.masked_fill(ignore, -torch.inf)


class ClipBatch(NamedTuple):
    """S stretches of T consecutive steps, each inside one episode; the stretches may be of several games."""

    frames: Tensor  # (S, 3+T, 84, 84) uint8: the last T are the stretch, the first 3 its history
    actions: Tensor  # (S, T) int64 ids of the 18 actions; actions[:, t] is chosen after frame 3+t
    background: Tensor  # (S, 84, 84) float32, each stretch's own game's mean frame


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastiveConfig:
    """What a `ContrastiveObjective` asks of the embedding."""

    temperature: float = 0.03
    inverse_dynamics: bool = True
    inverse_weight: float = 1.0
    inverse_start_step: int = 150
    inverse_hidden_dim: int = 256

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")
        if self.inverse_weight < 0:
            raise ValueError(f"inverse_weight is {self.inverse_weight}; it must not be negative")
        if self.inverse_start_step < 0:
            raise ValueError(f"inverse_start_step is {self.inverse_start_step}; it must not be negative")
        if self.inverse_hidden_dim < 1:
            raise ValueError(f"inverse_hidden_dim is {self.inverse_hidden_dim}; it must be at least 1")


class ContrastiveObjective(nn.Module):
    """Temporal InfoNCE within a stretch of play, and which action led from one moment to the next.

    The embedding of a moment must be nearer to that of the next moment than to any other of the same
    40 steps. Negatives from elsewhere would be told apart by the score or the scene; negatives from the same
    stretch differ only in what moves. The inverse-dynamics head starts late: from the first step on it
    keeps InfoNCE at chance.
    """

    step: Tensor

    def __init__(
        self, encoder: Encoder, config: ContrastiveConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.inverse = nn.Sequential(
            nn.Linear(2 * encoder.config.embedding_dim, config.inverse_hidden_dim),
            nn.ReLU(),
            nn.Linear(config.inverse_hidden_dim, NUM_ACTIONS),
        )
        initialize(self.inverse, generator)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of one batch; changes nothing."""
        z = self.encoder(stack_frames(batch.frames), batch.background.unsqueeze(1))  # (S, T, D)
        ignore = _not_negatives(z.shape[1] - 1, z.device)
        contrast = info_nce(z[:, :-1], z[:, 1:], self.config.temperature, ignore=ignore)
        metrics = {"info_nce": contrast.detach()}
        loss = contrast
        if self.config.inverse_dynamics:
            logits = self.inverse(torch.cat([z[:, :-1], z[:, 1:]], -1)).float().flatten(0, 1)
            actions = batch.actions[:, :-1].flatten()
            inverse = F.cross_entropy(logits, actions)
            # A tensor, not an `if`: asking a GPU for the step would wait for it.
            started = (self.step >= self.config.inverse_start_step).to(inverse.dtype)
            loss = loss + self.config.inverse_weight * started * inverse
            metrics["inverse_dynamics"] = inverse.detach()
            metrics["inverse_accuracy"] = (logits.argmax(-1) == actions).float().mean()
        metrics["loss"] = loss.detach()
        return loss, metrics

    def after_step(self) -> None:
        """Count the optimiser step just made."""
        self.step += 1


def _not_negatives(n: int, device: torch.device) -> Tensor:
    """Bool (n, n) for anchors z[:-1] and positives z[1:]: the anchor itself, and the moment before it.

    Column j is moment j + 1. The moment before an anchor has the anchor as its own positive, and
    similarity is symmetric, so as a negative it would be pushed and pulled at once.
    """
    moment = torch.arange(n, device=device)
    behind = moment[:, None] - (moment + 1)[None, :]
    return (behind == 0) | (behind == 1)

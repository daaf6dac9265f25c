"""A view-only decoder: what an embedding, or its quantized form, still shows."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._artifact import load_artifact, save_artifact
from ._weights import plain_weights, with_weights
from .encoder import FRAME_SIZE
from .initialization import initialize


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Sizes of a `Decoder`, and how much a foreground pixel counts in its loss."""

    embedding_dim: int = 384
    hidden_dim: int = 512
    foreground_weight: float = 10.0

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.foreground_weight < 0:
            raise ValueError(f"foreground_weight is {self.foreground_weight}; it must not be negative")


class Decoder(nn.Module):
    """The encoder's mirror image: 384 -> 512 -> 64x7x7 -> 64x9x9 -> 32x20x20 -> 84x84, plus the background.

    It draws the newest of the four frames. It never sends a gradient into the encoder.
    """

    def __init__(self, config: DecoderConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(config.embedding_dim, config.hidden_dim)
        self.grid = nn.Linear(config.hidden_dim, 64 * 7 * 7)
        self.deconv1 = nn.ConvTranspose2d(64, 64, 3, 1)
        self.deconv2 = nn.ConvTranspose2d(64, 32, 4, 2)
        self.deconv3 = nn.ConvTranspose2d(32, 1, 8, 4)
        initialize(self, generator)

    def forward(self, embedding: Tensor, background: Tensor | None = None) -> Tensor:
        """Draw frames.

        Args:
            embedding: (..., embedding_dim), from the encoder or a quantizer.
            background: float (84, 84) or (..., 84, 84), the game's mean frame; None is black.

        Returns:
            float32 (..., 84, 84) gray levels in [0, 255].
        """
        foreground = self.foreground(embedding)
        return (foreground if background is None else foreground + background.to(foreground)).clamp(0, 255)

    def foreground(self, embedding: Tensor) -> Tensor:
        """The frame minus the background, in gray levels, unclamped: (..., D) -> float32 (..., 84, 84)."""
        x = F.relu(self.hidden(embedding.reshape(-1, self.config.embedding_dim)))
        x = F.relu(self.grid(x)).unflatten(1, (64, 7, 7))
        x = F.relu(self.deconv1(x))
        x = F.relu(self.deconv2(x))
        drawn: Tensor = 255 * self.deconv3(x).float()
        return drawn.reshape(*embedding.shape[:-1], FRAME_SIZE, FRAME_SIZE)


class DecoderBatch(NamedTuple):
    """B embeddings and the newest frame each was made from."""

    embeddings: Tensor  # (B, D) float32
    frames: Tensor  # (B, 84, 84) uint8
    background: Tensor  # (B, 84, 84) or (84, 84) float32


class DecoderObjective(nn.Module):
    """Squared error of the drawn frame, foreground pixels weighted up.

        loss = mean( w * ((drawn - frame) / 255)^2 ),  w = 1 + foreground_weight * [|frame - background| > 10]

    Without the weight a ball of a few pixels is cheaper to leave out than to draw.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: DecoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics (`mse` is the plain mean squared error in units of 255) of one batch."""
        target = batch.frames.float() - batch.background
        error = ((self.decoder.foreground(batch.embeddings.detach()) - target) / 255).square()
        weight = 1 + self.decoder.config.foreground_weight * (target.abs() > 10)
        loss = (weight * error).mean()
        return loss, {"loss": loss.detach(), "mse": error.detach().mean()}

    def after_step(self) -> None:
        """Nothing follows a step."""


def save_decoder(path: str | Path, decoder: Decoder) -> None:
    """Write a decoder with its config, atomically."""
    save_artifact(path, plain_weights(decoder), kind="decoder", config=asdict(decoder.config))


def load_decoder(path: str | Path) -> Decoder:
    """Read a decoder (on CPU, in eval mode).

    Raises:
        ValueError: the file is missing, damaged or of another kind, or its weights do not fit its settings.
    """
    tensors, config = load_artifact(path, kind="decoder")
    return with_weights(path, lambda: Decoder(DecoderConfig(**config)), tensors)

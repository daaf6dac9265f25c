"""A view-only decoder: it shows what is left in an embedding, or in its quantized form."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._artifact import load_artifact, save_artifact
from ._checks import require_number, require_whole
from ._weights import plain_weights, with_weights
from .encoder import FRAME_SIZE
from .initialization import initialize


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """Sizes of a `Decoder`, and how much a foreground pixel counts in its loss."""

    embedding_dim: int = 384
    hidden_dim: int = 512
    foreground_weight: float = 4.0

    def __post_init__(self) -> None:
        require_whole(self, "embedding_dim", "hidden_dim")
        require_number(self, "foreground_weight")


class Decoder(nn.Module):
    """Draws an embedding: 384 -> 512 -> 512 -> 64x7x7 -> 32x21x21 -> 84x84, plus the background.

    Every dimension is first scaled to variance 1 by running statistics, because what distinguishes two
    positions of a ball is small compared with what all embeddings share. Grids grow by sub-pixel convolution
    (Shi et al. 2016), with a residual block before each step.

    It draws the newest of the four frames. It never sends a gradient into the encoder.
    """

    def __init__(self, config: DecoderConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.scale = nn.BatchNorm1d(config.embedding_dim, affine=False)
        self.hidden1 = nn.Linear(config.embedding_dim, config.hidden_dim)
        self.hidden2 = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.grid = nn.Linear(config.hidden_dim, 64 * 7 * 7)
        self.residual1 = _residual(64)
        self.grow1 = nn.Conv2d(64, 32 * 3**2, 3, padding=1)
        self.residual2 = _residual(32)
        self.grow2 = nn.Conv2d(32, 4**2, 3, padding=1)
        initialize(self, generator)
        for parameter in self.grow2.parameters():
            nn.init.zeros_(parameter)  # only the background, before training

    def forward(self, embedding: Tensor, background: Tensor | None = None) -> Tensor:
        """Draw frames.

        Args:
            embedding: (..., embedding_dim), from the encoder or a quantizer; in training mode two or more.
            background: float (84, 84) or (..., 84, 84), the game's mean frame; None means black.

        Returns:
            float32 (..., 84, 84) gray levels in [0, 255].

        Raises:
            ValueError: the embedding has another width, or the background does not fit its shape.
        """
        if background is None:
            return self.foreground(embedding).clamp(0, 255)
        leading, frames = background.shape[:-2], embedding.shape[:-1]
        alike = all(own in (1, many) for own, many in zip(leading[::-1], frames[::-1], strict=False))
        if background.shape[-2:] != (FRAME_SIZE, FRAME_SIZE) or len(leading) > len(frames) or not alike:
            raise ValueError(
                f"background is {tuple(background.shape)} for embeddings {tuple(embedding.shape)}; give one "
                f"of (84, 84), or {(*frames, 84, 84)}"
            )
        foreground = self.foreground(embedding)
        return (foreground + background.to(foreground)).clamp(0, 255)

    def foreground(self, embedding: Tensor) -> Tensor:
        """The frame minus the background, in gray levels, unclamped: (..., D) -> float32 (..., 84, 84)."""
        width = self.config.embedding_dim
        if embedding.shape[-1] != width:  # reshape could rearrange it into rows that fit
            raise ValueError(
                f"embedding has width {embedding.shape[-1]} and this decoder takes {width}; give "
                f"DecoderConfig(embedding_dim={embedding.shape[-1]}) or other embeddings"
            )
        x = self.scale(embedding.reshape(-1, width))
        x = F.silu(self.hidden2(F.silu(self.hidden1(x))))
        x = self.grid(x).unflatten(1, (64, 7, 7))
        x = F.pixel_shuffle(self.grow1(F.silu(x + self.residual1(x))), 3)
        x = F.pixel_shuffle(self.grow2(F.silu(x + self.residual2(x))), 4)
        drawn: Tensor = 255 * x.float()
        return drawn.reshape(*embedding.shape[:-1], FRAME_SIZE, FRAME_SIZE)


def _residual(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )


class DecoderBatch(NamedTuple):
    """B embeddings, each with the newest frame it was made from."""

    embeddings: Tensor  # (B, D) float32
    frames: Tensor  # (B, 84, 84) uint8
    background: Tensor  # (B, 84, 84) or (84, 84) float32


class DecoderObjective(nn.Module):
    """Squared error of the drawn frame, with a higher weight on foreground pixels.

        loss = mean( w * ((drawn - frame) / 255)^2 ),  w = 1 + foreground_weight * [|frame - background| > 10]

    Without the weight, leaving out a ball of a few pixels costs less than drawing it; with too high a weight,
    a ball whose position is uncertain is drawn large and bright.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: DecoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics (`mse` is the unweighted mean squared error in units of 255) of one batch.

        Raises:
            ValueError: embeddings, frames and background do not have the same rows, or frames are not uint8.
        """
        rows = batch.embeddings.shape[0] if batch.embeddings.ndim == 2 else 0
        one, each = (FRAME_SIZE, FRAME_SIZE), (rows, FRAME_SIZE, FRAME_SIZE)
        if not rows or batch.frames.shape != each or batch.background.shape not in (one, each):
            raise ValueError(
                f"embeddings are {tuple(batch.embeddings.shape)}, frames {tuple(batch.frames.shape)} and the "
                f"background {tuple(batch.background.shape)}; expected (B, D), (B, 84, 84) and one or B of "
                "(84, 84)"
            )
        if batch.frames.dtype != torch.uint8:
            raise ValueError(f"frames are {batch.frames.dtype}; give gray levels as uint8")
        target = batch.frames.float() - batch.background
        error = ((self.decoder.foreground(batch.embeddings.detach()) - target) / 255).square()
        weight = 1 + self.decoder.config.foreground_weight * (target.abs() > 10)
        loss = (weight * error).mean()
        return loss, {"loss": loss.detach(), "mse": error.detach().mean()}

    def after_step(self) -> None:
        """There is nothing to do after a step."""


def save_decoder(path: str | Path, decoder: Decoder) -> None:
    """Write a decoder with its config, atomically.

    Raises:
        ValueError: ``decoder`` is not a plain `Decoder`, so `load_decoder` could not rebuild it.
    """
    save_artifact(path, plain_weights(decoder, Decoder), kind="decoder", config=asdict(decoder.config))


def load_decoder(path: str | Path) -> Decoder:
    """Read a decoder (on CPU, in eval mode).

    Raises:
        ValueError: the file is missing, damaged or of another kind, or its weights do not fit its settings.
    """
    tensors, config = load_artifact(path, kind="decoder")
    return with_weights(path, lambda: Decoder(DecoderConfig(**config)), tensors)

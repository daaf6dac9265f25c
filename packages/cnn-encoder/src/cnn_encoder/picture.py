"""The whole picture of a moment, coarse, every place of it in units of how much it changes there."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import FRAME_SIZE

_POOL = 2
PICTURE_SIZE = (FRAME_SIZE // _POOL) ** 2


def picture(frames: Tensor, background: Tensor) -> Tensor:
    """Frames minus their background, averaged over squares of 2 x 2 pixels.

    Unlike `cnn_encoder.layout` it holds what stands still for a while too, such as a score.

    Args:
        frames: uint8 (S, T, 84, 84).
        background: float32, broadcast against ``frames``; the game's mean frame.

    Returns:
        float32 (S, T, 1764), in grey levels.
    """
    with torch.autocast(frames.device.type, enabled=False):
        difference = frames.float() - background
        return F.avg_pool2d(difference.flatten(0, 1), _POOL).flatten(1).unflatten(0, frames.shape[:2])


class RunningScale(nn.Module):
    """Centres every column and divides it by its standard deviation and ``floor``, by running statistics.

    As in batch normalisation, the statistics are updated by every call in training mode; before the first one
    the columns' own are used. A column that hardly varies stays near zero.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, dim: int, *, decay: float = 0.98, floor: float = 0.3) -> None:
        super().__init__()
        self.decay = decay
        self.floor = floor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("square", torch.zeros(dim))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 (..., dim) -> (..., dim); no gradient flows through it."""
        rows = x.flatten(0, -2)
        here_mean, here_square = rows.mean(0), rows.square().mean(0)
        if self.training:
            self.mean.lerp_(here_mean, 1 - self.decay)
            self.square.lerp_(here_square, 1 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        known = self.weight > 0
        mean = torch.where(known, self.mean / self.weight, here_mean)
        square = torch.where(known, self.square / self.weight, here_square)
        return (x - mean) / ((square - mean.square()).clamp(min=0).sqrt() + self.floor)

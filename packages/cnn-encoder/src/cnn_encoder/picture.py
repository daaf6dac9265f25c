"""The whole picture of a moment, coarse, every place of it in units of how much it changes there."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import FRAME_SIZE
from .running import RunningMean

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
    """Centres every column and divides it by its standard deviation and ``floor``, by running statistics
    (`RunningMean`).

    A column that hardly varies stays near zero.
    """

    def __init__(self, dim: int, *, decay: float = 0.98, floor: float = 0.3) -> None:
        super().__init__()
        self.floor = floor
        self.mean = RunningMean(dim, decay=decay)
        self.square = RunningMean(dim, decay=decay)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 (..., dim) -> (..., dim); no gradient flows through it."""
        rows = x.flatten(0, -2)
        mean, square = self.mean(rows.mean(0)), self.square(rows.square().mean(0))
        return (x - mean) / ((square - mean.square()).clamp(min=0).sqrt() + self.floor)

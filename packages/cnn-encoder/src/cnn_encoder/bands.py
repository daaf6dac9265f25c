"""Bands of brightness: objects in games have their own colours, which grey levels still distinguish."""

import torch
from torch import Tensor

_BRIGHTEST = 240


def membership(num_bands: int, device: torch.device) -> Tensor:
    """The degree to which each grey level belongs to each band: float32 (256, B); every row sums to 1.

        band_b(g) = max(1 - |min(g, 240) - 240 b / (B - 1)| / (240 / (B - 1)), 0)

    Args:
        num_bands: B, at least 2.
        device: of the table.
    """
    position = torch.arange(256, device=device).clamp(max=float(_BRIGHTEST)) * ((num_bands - 1) / _BRIGHTEST)
    return (1 - (position[:, None] - torch.arange(num_bands, device=device)).abs()).clamp(min=0)


def lower_band(levels: Tensor, num_bands: int) -> Tensor:
    """The lower of the two bands that a grey level belongs to: integers (...) -> int64 (...) in 0..B-2."""
    return (levels.long() * (num_bands - 1) // _BRIGHTEST).clamp_(max=num_bands - 2)

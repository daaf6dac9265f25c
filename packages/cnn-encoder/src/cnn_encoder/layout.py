"""The layout of a frame: where its moving things are, each with the same weight whatever its size."""

import math

import torch
from torch import Tensor

from .encoder import FRAME_SIZE

# In grey levels of 0..255. What differs less from the background than CONTRAST is not a thing; a thing whose
# contrasts within a window sum to SMALL counts half. A ball of one pixel at grey 44 sums to about 30, a
# paddle to thousands: without the division by the window the paddle would be all there is to see.
_CONTRAST = 12
_WINDOW = 5
_SMALL = 60


def still_background(frames: Tensor, *, stride: int = 4) -> Tensor:
    """What does not move in a stretch of play: the (lower) median over every ``stride``-th frame.

    Args:
        frames: uint8 (..., T, 84, 84), consecutive.

    Returns:
        uint8 (..., 84, 84).
    """
    looked_at = frames[..., ::stride, :, :]
    if frames.is_cuda:
        return looked_at.median(-3).values
    rows = list(looked_at.unbind(-3))
    # Sorted by exchanging neighbours, whole frames at a time: for so few frames a fraction of the time that
    # PyTorch takes on a CPU to sort every pixel's column by itself.
    for turn in range(len(rows)):
        for low in range(turn % 2, len(rows) - 1, 2):
            first, second = rows[low : low + 2]
            rows[low : low + 2] = torch.minimum(first, second), torch.maximum(first, second)
    return rows[(len(rows) - 1) // 2]


def moving_parts(frames: Tensor, background: Tensor) -> Tensor:
    """Two maps of what differs from the background, in which a ball weighs as much as a paddle.

        w = max(|frame - background| - 12, 0)
        share_yx = w_yx / (60 + sum of w over the 5 x 5 pixels around yx)

    A thing that fits the window sums to one over its pixels; a larger one counts by its area in windows.

    Args:
        frames: uint8 (..., 84, 84).
        background: uint8 (..., 84, 84), broadcast against ``frames``.

    Returns:
        float32 (..., 2, 84, 84): the share, which says where things are, and the share times
        (frame - background) / 100, which tells things of different brightness apart.
    """
    difference = frames.short() - background  # grey levels and their sums are exact in 16 bits
    contrast = (difference.abs() - _CONTRAST).clamp_(min=0)
    share = contrast / _window_sums(contrast).add_(_SMALL)
    return torch.stack([share, (share * difference).div_(100)], -3)


def _window_sums(maps: Tensor) -> Tensor:
    """The sum over the window around each pixel, (..., 84, 84) -> the same."""
    for axis in (-1, -2):
        sums = maps.clone()
        for shift in range(1, _WINDOW // 2 + 1):
            length = FRAME_SIZE - shift
            sums.narrow(axis, shift, length).add_(maps.narrow(axis, 0, length))
            sums.narrow(axis, 0, length).add_(maps.narrow(axis, shift, length))
        maps = sums
    return maps


def low_frequencies(maps: Tensor, num_frequencies: int) -> Tensor:
    """The lowest spatial frequencies of maps, by the two-dimensional DCT-II.

        c_kl = sum_yx cos(pi k (y + 1/2) / 84) cos(pi l (x + 1/2) / 84) map_yx

    Args:
        maps: float32 (..., 84, 84).
        num_frequencies: K, along each axis.

    Returns:
        float32 (..., K * K). Each moves smoothly with the position of every object, which raw pixels do not.
    """
    center = (torch.arange(FRAME_SIZE, device=maps.device) + 0.5) / FRAME_SIZE
    frequency = torch.arange(num_frequencies, device=maps.device)
    basis = torch.cos(math.pi * frequency[:, None] * center)  # (K, 84)
    return (basis @ maps @ basis.mT).flatten(-2)


def layout(frames: Tensor, num_frequencies: int) -> Tensor:
    """The low frequencies of the moving parts of a stretch of play, against its own still background.

    The background is the stretch's own, not the game's: it leaves out the score, the bricks that are
    gone, and the scene of a game with several.

    Args:
        frames: uint8 (S, T, 84, 84).
        num_frequencies: K.

    Returns:
        float32 (S, T, 2 * K * K).
    """
    with torch.autocast(frames.device.type, enabled=False):
        parts = moving_parts(frames, still_background(frames).unsqueeze(-3))
        return low_frequencies(parts, num_frequencies).flatten(-2)

"""The layout of a frame: where its moving objects are, each with the same weight whatever its size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .bands import lower_band, membership
from .encoder import FRAME_SIZE

# In grey levels of 0..255. Differences from the background below CONTRAST are ignored; an object whose
# contrasts within a window sum to SMALL counts half. A ball of one pixel at grey 44 sums to about 30, a
# paddle to thousands: without the division by the window's sum hardly anything but the paddle would count.
_CONTRAST = 12
_WINDOW = 5
_SMALL = 60
# In shares, of which an object has one for each window that it fills. Added to a band's sum, so that a band
# with next to nothing in it gives values near zero, not the position of some last pixel.
_SPARE = 0.2
_FEW = 8  # if fewer than an eighth of all pixels belong to objects, only those are processed


def still_background(frames: Tensor, *, stride: int = 4) -> Tensor:
    """The part of a stretch of play that does not move: the (lower) median over every ``stride``-th frame.

    Args:
        frames: uint8 (..., T, 84, 84), consecutive.

    Returns:
        uint8 (..., 84, 84).
    """
    looked_at = frames[..., ::stride, :, :]
    if frames.is_cuda:
        return looked_at.median(-3).values
    rows = list(looked_at.unbind(-3))
    # Sorted by exchanging neighbours, whole frames at a time: for so few frames this takes a fraction of the
    # time that PyTorch takes on a CPU to sort each pixel's column separately.
    for turn in range(len(rows)):
        for low in range(turn % 2, len(rows) - 1, 2):
            first, second = rows[low : low + 2]
            rows[low : low + 2] = torch.minimum(first, second), torch.maximum(first, second)
    return rows[(len(rows) - 1) // 2]


def moving_parts(frames: Tensor, background: Tensor) -> Tensor:
    """Two maps of what differs from the background, in which a ball counts as much as a paddle.

        w = max(|frame - background| - 12, 0)
        share_yx = w_yx / (60 + sum of w over the 5 x 5 pixels around yx)

    An object that fits the window sums to about one over its pixels, a larger one to its area in windows.

    Args:
        frames: uint8 (..., 84, 84).
        background: uint8 (..., 84, 84), broadcast against ``frames``.

    Returns:
        float32 (..., 2, 84, 84): the share, which shows where objects are, and the share times (frame -
        background) / 100, which distinguishes objects of different brightness.
    """
    share, difference = _shares(frames, background)
    return torch.stack([share, (share * difference).div_(100)], -3)


def _shares(frames: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """The share (float32) and the difference (int16) of every pixel, both (..., 84, 84)."""
    difference = frames.short() - background  # grey levels and their sums are exact in 16 bits
    contrast = (difference.abs() - _CONTRAST).clamp_(min=0)
    return contrast / _window_sums(contrast).add_(_SMALL), difference


def _window_sums(maps: Tensor) -> Tensor:
    """The sum over the window around each pixel, (..., 84, 84) -> the same shape."""
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
        float32 (..., K * K). Each changes smoothly with the position of every object, as raw pixels do not.
    """
    basis = _cosines(num_frequencies, maps.device)
    return (basis @ maps @ basis.mT).flatten(-2)


def _cosines(num_frequencies: int, device: torch.device) -> Tensor:
    """cos(pi k (x + 1/2) / 84), (K, 84)."""
    center = (torch.arange(FRAME_SIZE, device=device) + 0.5) / FRAME_SIZE
    return torch.cos(math.pi * torch.arange(num_frequencies, device=device)[:, None] * center)


def layout(frames: Tensor, num_frequencies: int) -> Tensor:
    """The low frequencies of the moving parts of a stretch of play, relative to its own still background.

    The background is the stretch's own, not the game's, so the layout leaves out the score, the bricks that
    are gone, and the scene in a game with several.

    Args:
        frames: uint8 (S, T, 84, 84).
        num_frequencies: K.

    Returns:
        float32 (S, T, 2 * K * K).
    """
    with torch.autocast(frames.device.type, enabled=False):
        parts = moving_parts(frames, still_background(frames).unsqueeze(-3))
        return low_frequencies(parts, num_frequencies).flatten(-2)


def banded_layout(frames: Tensor, num_frequencies: int, num_bands: int) -> Tensor:
    """The layout of a stretch of play, separately for what moves in each of several bands of brightness.

        m_b = share band_b(frame), the share as in `moving_parts`, the bands as in `cnn_encoder.bands`
        c_bkl = low_frequencies(m_b)_kl / (sum over yx of m_b + 0.2)

    An object whose brightness is unique is in bands of its own, where c gives its position, however much of
    it is visible. Sums over everything that moves, as in `layout`, do not keep five objects apart.

    Args:
        frames: uint8 (S, T, 84, 84).
        num_frequencies: K.
        num_bands: B, at least 2.

    Returns:
        float32 (S, T, B * K * K). The first of each K * K shows whether there is anything of that brightness.
    """
    with torch.autocast(frames.device.type, enabled=False):
        share, _ = _shares(frames, still_background(frames).unsqueeze(-3))
        share, levels = share.flatten(0, 1).flatten(1), frames.flatten(0, 1).flatten(1)  # (S * T, 84 * 84)
        basis = _cosines(num_frequencies, frames.device)
        waves = (basis[:, None, :, None] * basis[None, :, None, :]).flatten(2).flatten(0, 1).mT.contiguous()
        sums = _band_sums(share, levels, waves, num_bands)
        return (sums / (sums[..., :1] + _SPARE)).view(*frames.shape[:2], -1)


def _band_sums(share: Tensor, levels: Tensor, waves: Tensor, num_bands: int) -> Tensor:
    """sum over pixels p of share_p band_b(level_p) waves_p.

    Args:
        share: float32 (N, P).
        levels: uint8 (N, P).
        waves: float32 (P, W).
        num_bands: B.

    Returns:
        float32 (N, B, W).
    """
    bands = membership(num_bands, share.device)
    few = share.numel() // _FEW
    # Finding the pixels that count would wait for a GPU, and cannot be compiled.
    if share.device.type != "cpu" or torch.compiler.is_compiling() or share.count_nonzero() > few:
        return F.embedding(levels.int(), bands).mul_(share[..., None]).mT @ waves
    row, pixel = share.nonzero(as_tuple=True)
    level, seen = levels[row, pixel].int(), waves[pixel] * share[row, pixel, None]
    lower = lower_band(level, num_bands)
    sums = seen.new_zeros(len(share) * num_bands, waves.shape[1])
    for band in (lower, lower + 1):
        sums.index_add_(0, row * num_bands + band, seen * bands[level, band, None])
    return sums.unflatten(0, (-1, num_bands))


def loudness(num_frequencies: int) -> Tensor:
    """The weight of each frequency, (K * K): 1 / sqrt(1 + k^2 + l^2), scaled to mean square 1.

    The lowest give an object's rough position, to which a quantizer's few bits should go first.
    """
    square = torch.arange(num_frequencies, dtype=torch.float32).square()
    found = (1 + square[:, None] + square).rsqrt().flatten()
    return found / found.square().mean().sqrt()

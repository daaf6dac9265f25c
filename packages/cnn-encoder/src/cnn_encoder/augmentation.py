"""Random shifts of stretches of play."""

from typing import Any

import torch
from torch import Tensor


def random_shift(
    frames: Tensor, background: Tensor, pixels: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Shift every stretch by up to ``pixels`` vertically and horizontally, and its background with it.

    Pixels that enter at an edge repeat the edge's row or column. DrQ (Kostrikov et al. 2020) shifts each
    observation separately; here a whole stretch is shifted as one, because the changes within it are what a
    contrast over time distinguishes.

    Args:
        frames: (S, T, H, W), of any dtype.
        background: (S, H, W), or (1, H, W) for all.
        pixels: the largest shift, 0 or more; all offsets from -pixels to pixels are equally likely.
        generator: for drawing them, on the CPU; the global one by default.

    Returns:
        The shifted frames, of the given dtype, and a shifted background for each stretch, (S, H, W).
    """
    if pixels < 0:
        raise ValueError(f"pixels is {pixels}; give 0 or more")
    stretches, _, height, width = frames.shape
    if background.shape not in ((stretches, height, width), (1, height, width)):
        raise ValueError(
            f"background is {tuple(background.shape)}; give ({stretches}, {height}, {width}) or "
            f"(1, {height}, {width})"
        )
    # Not generator=None, for which a compiler takes no size that changes.
    given: dict[str, Any] = {} if generator is None else {"generator": generator}
    down, right = torch.randint(-pixels, pixels + 1, (2, stretches, 1), device="cpu", **given)
    # Without waiting for a GPU, as the rest of a training step.
    rows, columns = (
        (torch.arange(size, device="cpu") - shift).clamp(0, size - 1).to(frames.device, non_blocking=True)
        for size, shift in ((height, down), (width, right))
    )
    each = torch.arange(stretches, device=frames.device)[:, None, None]
    places = (each, rows[:, :, None], columns[:, None, :])
    moved = frames.movedim(1, -1)[places].movedim(-1, 1)
    return moved, background.expand(stretches, -1, -1)[places]

"""Arrays as pictures: PNG inside a page, differences in colour, small frames enlarged."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

GAP = 4
PAPER, INK, FAINT, LINE = (17, 20, 26), (232, 236, 242), (138, 148, 164), (44, 50, 61)
GOOD, BAD, REAL = (84, 200, 130), (240, 100, 90), (255, 176, 64)

FULL = 48.0
"""The difference that gets the strongest colour."""


def to_bytes(gray: NDArray[np.floating]) -> Pixels:
    """Gray levels in [0, 255] rounded to uint8."""
    rounded: Pixels = np.clip(np.rint(gray), 0, 255).astype(np.uint8)
    return rounded


def tint(difference: NDArray[np.floating]) -> Pixels:
    """A difference in colour, on near-black: what was added is warm, what was taken away is cold.

    Args:
        difference: gray levels (..., H, W).

    Returns:
        uint8 (..., H, W, 3).
    """
    strength = np.rint(24 * np.clip(np.abs(difference) / FULL, 0, 1)[..., None] ** 0.7) / 24
    dark = np.array(PAPER)
    colour = np.where(difference[..., None] > 0, np.array(REAL), np.array([84, 160, 255]))
    return to_bytes(dark + (colour - dark) * strength)


def row(frames: NDArray[np.uint8]) -> Pixels:
    """Frames (N, H, W) side by side, ``GAP`` black pixels between them."""
    joined: Pixels = np.concatenate(list(np.pad(frames, ((0, 0), (0, 0), (0, GAP)))), axis=1)
    return joined[:, :-GAP]


def enlarge(frame: NDArray[np.uint8], times: int) -> Pixels:
    """Every pixel as a square of ``times`` x ``times``."""
    return frame.repeat(times, axis=0).repeat(times, axis=1)


def coarse(gray: NDArray[np.floating]) -> Pixels:
    """Gray levels rounded to 32 steps, which the eye hardly sees and which halve a drawn frame's PNG."""
    return to_bytes(np.rint(gray * 31 / 255) * 255 / 31)


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """A PNG as a data URI, from uint8 (H, W) gray or (H, W, 3) with few colours."""
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if pixels.ndim == 2 else image.quantize(64)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def paste(
    canvas: Image.Image,
    pixels: Pixels,
    times: int,
    left: int,
    top: int,
    frame: tuple[int, int, int] | None = None,
) -> None:
    """Put a frame on the canvas, every pixel as a square, framed in a colour if asked."""
    canvas.paste(Image.fromarray(enlarge(pixels, times)), (left, top))
    if frame is not None:
        box = (left - 2, top - 2, left + 84 * times + 1, top + 84 * times + 1)
        ImageDraw.Draw(canvas).rectangle(box, outline=frame, width=2)


def reward_colour(reward: float) -> tuple[int, int, int]:
    """Green for a gain, red for a loss, plain for none; played or predicted."""
    return GOOD if reward > 0.05 else BAD if reward < -0.05 else INK


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)

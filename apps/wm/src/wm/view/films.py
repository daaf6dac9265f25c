"""Films: pictures of steps as a GIF, which plays anywhere, or as an mp4, which is sharper and smaller."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from atari_data import write_video
from PIL import Image

from wm.files import written_whole

MILLISECONDS = 100  # per step of a GIF; the game itself takes 67, and so does a video
SAMPLED = 8  # at least this many pictures, if there are, make a GIF's palette

Draw = Callable[[range], Iterator[Image.Image]]
"""Draws a picture of each of the steps."""


def videos() -> bool:
    """Whether videos can be written here: PyAV is installed."""
    return find_spec("av") is not None


def require_film(path: Path | None) -> None:
    """Raise ValueError if the file's name is not that of a film, or of one that cannot be written here."""
    if path is None or path.suffix.lower() == ".gif":
        return
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"--out is {path}; give a name that ends in .gif or .mp4")
    if not videos():
        raise ValueError(
            f"--out is {path}, which needs PyAV; pip install av, or give a name that ends in .gif"
        )


def write_film(path: Path, draw: Draw, steps: range, drawn: Callable[[], object] = lambda: None) -> None:
    """A GIF or an mp4, by the file's name. ``drawn`` is called after each of its pictures.

    Raises:
        ValueError: the film cannot be written.
    """

    def pictures() -> Iterator[Image.Image]:
        for picture in draw(steps):
            yield picture
            drawn()

    if path.suffix.lower() == ".mp4":
        write_video(path, map(np.asarray, pictures()))
    else:
        _write_gif(path, pictures(), draw(sampled(steps)))


def sampled(steps: range) -> range:
    """Eight to fifteen of the steps, evenly spaced; all if there are fewer."""
    return steps[:: max(1, len(steps) // SAMPLED)]


def _write_gif(path: Path, pictures: Iterator[Image.Image], sample: Iterator[Image.Image]) -> None:
    """A looping GIF with one palette for all pictures, made from the sample, so that nothing flickers.

    Only one byte per pixel of each picture is kept in memory.
    """
    colours = Image.fromarray(np.concatenate([np.asarray(picture) for picture in sample]))
    palette = colours.quantize(255, method=Image.Quantize.MEDIANCUT)
    frames = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    with written_whole(path) as partial:
        first = next(frames)
        first.save(partial, "GIF", save_all=True, append_images=frames, duration=MILLISECONDS, loop=0)

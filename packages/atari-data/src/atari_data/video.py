"""Reading and writing pictures: videos, folders of images, and frames of any size converted to grey 84 x 84.

Videos and image files need the ``video`` extra (PyAV); arrays do not.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tokenize import TokenError
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
_TEXT = {".txt", ".csv", ".tsv", ".json"}
_SLOWEST, _FASTEST = 0.01, 1000  # frames per second
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def read_frames(source: str | Path | NDArray[np.uint8]) -> tuple[int, Iterator[NDArray[np.uint8]]]:
    """The number of pictures in a source, and the pictures one by one, uint8 [H, W] or [H, W, 3].

    Args:
        source: an array uint8 [T, H, W], [T, H, W, 1] or [T, H, W, 3], a ``.npy`` file of one, a folder of
            images (sorted by name, with numbers in names compared as numbers), or a video file.

    Raises:
        ValueError: the source is none of these, holds no pictures, or cannot be decoded.
    """
    if not isinstance(source, str | Path):
        array = _checked_array(np.asarray(source), "frames")
        return len(array), iter(array)
    path = Path(source)
    if path.is_dir():
        images = sorted((each for each in path.iterdir() if each.suffix.lower() in _IMAGES), key=_in_order)
        if not images:
            raise ValueError(f"{path} holds no images; expected {', '.join(sorted(_IMAGES))}")
        return len(images), (picture for image in images for picture in _decode(image))
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give an array, a .npy file, a folder of images or a video")
    if path.suffix == ".npy":
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError, TokenError, OverflowError) as error:  # from a damaged header
            raise ValueError(f"{path} is not a whole .npy file of numbers ({error})") from error
        array = _checked_array(array, str(path))
        return len(array), iter(array)
    if path.suffix.lower() in _TEXT:  # which FFmpeg would turn into pictures
        raise ValueError(f"{path} is text; give an array, a .npy file, a folder of images or a video")
    return _count(path), _decode(path)


def _in_order(path: Path) -> tuple[list[str | int], str]:
    """Sorts 9.png before 10.png, and 01.png before 1.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)], path.name


def write_video(path: str | Path, frames: Iterable[NDArray[np.uint8]], *, fps: float = 15) -> None:
    """Write pictures, uint8 [H, W] or [H, W, 3] with even sides, as an H.264 video.

    The file appears complete or not at all; ``fps`` 15 is the speed of the game at four frames per action.

    Raises:
        ValueError: there are no pictures, their sizes are odd or differ, ``fps`` is out of range, or PyAV is
            not installed.
    """
    if not _SLOWEST <= fps <= _FASTEST:
        raise ValueError(f"fps is {fps}; give a number from {_SLOWEST} to {_FASTEST}")
    rate = Fraction(float(fps)).limit_denominator(1001)  # Fraction does not accept NumPy's float32
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    av = _av()
    stream = None
    try:
        with av.open(str(partial), "w") as container:
            for picture in frames:
                height, width = picture.shape[:2]
                if stream is None:
                    if height % 2 or width % 2:
                        raise ValueError(f"the pictures are {width} x {height}; H.264 takes even sides only")
                    stream = container.add_stream("libx264", rate=rate)
                    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                if (height, width) != (stream.height, stream.width):
                    raise ValueError(
                        f"a picture of {width} x {height} follows some of {stream.width} x {stream.height}; "
                        "give all one size"
                    )
                form = "gray" if picture.ndim == 2 else "rgb24"
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=form)
                container.mux(stream.encode(frame))
            if stream is None:
                raise ValueError(f"no frames for {path}; give at least one")
            container.mux(stream.encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def to_frame(picture: NDArray[np.uint8], size: tuple[int, int] = (84, 84)) -> NDArray[np.uint8]:
    """Convert a picture to the form of the emulator's frames: grey, resized by area averaging, [84, 84].

    The result is uint8; a picture that is [84, 84] already is returned unchanged. Each side is scaled
    independently, as in `AtariVectorEnv`.
    """
    if picture.shape == size:
        return picture
    grey = picture.astype(np.float64)
    if picture.ndim == 3:
        grey = grey[..., 0] * _LUMA[0] + grey[..., 1] * _LUMA[1] + grey[..., 2] * _LUMA[2]
    shrunk = _area_means(_area_means(grey, size[0]).T, size[1]).T
    return np.rint(shrunk).astype(np.uint8)


def _area_means(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Means over ``size`` equal, possibly fractional sections of the first axis, [size, ...]."""
    count = len(values)
    sums = np.zeros((count + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=sums[1:])
    edges = np.linspace(0, count, size + 1)
    below = np.minimum(edges.astype(np.int64), count - 1)
    at_edges = sums[below] + (edges - below)[:, None] * values[below]
    means: NDArray[np.float64] = np.diff(at_edges, axis=0) * (size / count)
    return means


def _checked_array(frames: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    if frames.ndim == 4 and frames.shape[-1] == 1:
        frames = frames[..., 0]
    grey = frames.ndim == 3
    colour = frames.ndim == 4 and frames.shape[-1] == 3
    if frames.dtype != np.uint8 or not (grey or colour) or 0 in frames.shape:
        raise ValueError(f"{name} is {frames.dtype} {frames.shape}; give uint8 (T, H, W) or (T, H, W, 3)")
    return frames


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no pictures; give a video or an image")
            yield container
    except av.FFmpegError as error:
        raise ValueError(
            f"{path} cannot be decoded ({error.strerror}); give a video, an image, a folder of images or a "
            ".npy file"
        ) from error


def _count(path: Path) -> int:
    with _opened(path) as container:
        packets = container.demux(video=0)  # a cut without re-encoding leaves some that are not shown
        return sum(1 for packet in packets if packet.size and not packet.is_discard)


def _decode(path: Path) -> Iterator[NDArray[np.uint8]]:
    with _opened(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ValueError("videos and images need PyAV; pip install av") from error
    return av

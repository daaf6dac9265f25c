"""Shard files: which columns they have, and how a stream of rows becomes files."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atari_data._artifact import HEADER_BYTES, check_open_files, encode_header, open_artifact
from atari_data.protocol import Protocol

KIND = "frames"
FRAMES = "frames"
# While this folder exists, shards of a round that has no end belong to an unfinished collection.
STAGING = ".collecting"
SHARD_ROWS = 16_384  # 116 MB of frames
FRAME_SHAPE = (84, 84)
_CONFIG = {"game", "protocol", "seed", "round", "end"}
RAM_SIZE = 128

COLUMNS: dict[str, tuple[type, tuple[int, ...]]] = {
    "rewards": (np.float32, ()),
    "episode_ids": (np.int32, ()),
    "actions": (np.uint8, ()),
    "lives": (np.uint8, ()),
    "terminated": (np.bool_, ()),
    "truncated": (np.bool_, ()),
    "ram": (np.uint8, (RAM_SIZE,)),
}
"""Type and row shape of each column besides the frames, in file order; `ram` is optional."""


def shard_path(directory: str | Path, index: int) -> Path:
    """The path of shard number ``index`` in a directory."""
    return Path(directory) / f"shard-{index:05d}.safetensors"


def shard_paths(directory: str | Path) -> list[Path]:
    """The shards in a directory, in order; files whose names only resemble a shard's are ignored."""
    found = Path(directory).glob("shard-*.safetensors")
    return sorted(path for path in found if re.fullmatch(r"shard-\d{5,}", path.stem))


class ShardWriter:
    """Writes a stream of rows to files of ``SHARD_ROWS``; until a file ends only its frames are on disk."""

    def __init__(self, folder: Path, name: str, *, ram: bool, config: dict[str, Any]) -> None:
        self.paths: list[Path] = []
        self._folder = folder
        self._name = name
        self._config = config
        self._names = [name for name in COLUMNS if ram or name != "ram"]
        self._start_file()

    def append(self, rows: dict[str, NDArray[Any]]) -> None:
        """Add rows: ``frames`` uint8 [n, 84, 84] and every column, [n, ...]."""
        total, done = len(rows[FRAMES]), 0
        while done < total:
            if self._rows == SHARD_ROWS:
                self.close(end=False)
                self._start_file()
            take = slice(done, done + min(total - done, SHARD_ROWS - self._rows))
            self._file.write(np.ascontiguousarray(rows[FRAMES][take]).data)
            for name in self._names:
                self._columns[name].append(rows[name][take].astype(COLUMNS[name][0]))
            self._rows += take.stop - take.start
            done = take.stop

    def close(self, *, end: bool) -> None:
        """End the current file; ``end`` marks it as the one that completes a round."""
        tensors: dict[str, tuple[type | np.dtype[Any], tuple[int, ...]]] = {
            FRAMES: (np.uint8, (self._rows, *FRAME_SHAPE))
        }
        for name in self._names:
            dtype, row = COLUMNS[name]
            tensors[name] = (dtype, (self._rows, *row))
            for block in self._columns[name]:
                self._file.write(np.ascontiguousarray(block).data)
        self._file.seek(0)
        self._file.write(encode_header(tensors, kind=KIND, config={**self._config, "end": end}))
        self._file.close()

    def discard(self) -> None:
        """Close the file after a failure; harmless after :meth:`close`."""
        self._file.close()

    def _start_file(self) -> None:
        self.paths.append(self._folder / f"{self._name}-{len(self.paths):05d}")
        try:
            self._file = self.paths[-1].open("wb")
        except OSError as error:
            check_open_files(error)
            raise
        self._file.write(bytes(HEADER_BYTES))
        self._rows = 0
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in self._names}


def read_shard(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Config and arrays of one shard, its frames memory-mapped.

    Raises:
        ValueError: the shard is damaged, or is not a `frames` artifact with the required columns.
    """
    config, frames, columns = open_artifact(path, kind=KIND, mapped=FRAMES)
    expected = {
        name: (np.dtype(dtype), (len(frames), *row))
        for name, (dtype, row) in COLUMNS.items()
        if name != "ram" or "ram" in columns
    }
    found = {name: (column.dtype, column.shape) for name, column in columns.items()}
    if found != expected or frames.dtype != np.uint8 or frames.shape[1:] != FRAME_SHAPE or not len(frames):
        raise ValueError(
            f"{path} holds frames {frames.dtype} {frames.shape} and {found}; expected {expected}"
        )
    if unknown := _CONFIG - config.keys():
        raise ValueError(
            f"{path} does not say its {', '.join(sorted(unknown))}; restore it, or collect again"
        )
    try:
        Protocol(**(config["protocol"] or {}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a protocol that this version does not know ({error})") from error
    return config, {FRAMES: frames, **columns}

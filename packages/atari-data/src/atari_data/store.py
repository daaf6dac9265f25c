"""Reading frames: all shards of a game as one long, memory-mapped trajectory."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from atari_data._checks import whole
from atari_data.protocol import Protocol
from atari_data.shards import COLUMNS, FRAMES, STAGING, read_shard, shard_path, shard_paths
from atari_data.windows import first_rows

HISTORY = 3  # frames before the newest in a stack


class ShardedFrames:
    """The frames of all shards as one array, uint8 [N, 84, 84], read from disk when accessed."""

    dtype = np.dtype(np.uint8)

    def __init__(self, parts: Sequence[NDArray[np.uint8]]) -> None:
        self._parts = [np.asarray(part) for part in parts]  # still mapped, without memmap's slow slicing
        self._ends = np.cumsum([len(part) for part in parts])
        self._begins = self._ends - [len(part) for part in parts]
        self.shape = (int(self._ends[-1]), *parts[0].shape[1:])
        self._sources = parts

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets copies and DataLoader workers map the files again instead of reading them completely."""
        files = [
            (part.filename, part.offset, part.shape) if isinstance(part, np.memmap) else part
            for part in self._sources
        ]
        return _map_again, (files,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | NDArray[Any]) -> NDArray[np.uint8]:
        """One frame, a slice (a view if it lies in one shard), or the given rows in their order."""
        if isinstance(rows, tuple):  # NumPy's indexing of several axes, which would be taken for several rows
            raise IndexError(f"frames are asked for by rows alone, not by {rows}; use frames[i][j]")
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._span(start, max(start, stop))
            return self._gather(np.arange(start, stop, step))
        if isinstance(rows, (int, np.integer)):
            return self._gather(np.array([rows]))[0]
        rows = np.asarray(rows)
        if rows.dtype == np.bool_:
            if rows.shape != (len(self),):
                raise IndexError(f"the mask of rows is {rows.shape}; there are {len(self)} rows")
            rows = np.flatnonzero(rows)
        return self._gather(rows if rows.size else rows.astype(np.int64))

    def copy_spans(
        self, begins: NDArray[np.int64], ends: NDArray[np.int64], out: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Copy rows ``begins[i]:ends[i]`` to the end of ``out[i]``; the part before them becomes zero."""
        shards = np.searchsorted(self._ends, begins, side="right")
        inside = (ends <= self._ends[shards]).tolist()
        offsets = self._begins[shards]
        lengths = (ends - begins).tolist()
        local = (begins - offsets).tolist()
        width = out.shape[1]
        for i, shard in enumerate(shards.tolist()):
            pad = width - lengths[i]
            if pad:
                out[i, :pad] = 0
            if inside[i]:
                out[i, pad:] = self._parts[shard][local[i] : local[i] + lengths[i]]
            else:
                out[i, pad:] = self._span(int(begins[i]), int(ends[i]))
        return out

    def _span(self, start: int, stop: int) -> NDArray[np.uint8]:
        first = int(np.searchsorted(self._ends, start, side="right"))
        if start >= stop:
            return self._parts[0][:0]
        pieces = []
        while start < stop:
            begin, end = int(self._begins[first]), int(self._ends[first])
            pieces.append(self._parts[first][start - begin : min(stop, end) - begin])
            start, first = end, first + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _gather(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        if rows.dtype.kind not in "iu" or rows.ndim != 1:
            raise ValueError(f"rows are {rows.dtype} {rows.shape}; give integers of shape (B,)")
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        if not len(rows):
            return out
        rows = rows.astype(np.int64)  # small integer types could not hold the sum
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"rows reach from {rows.min()} to {rows.max()}; there are {len(self)}")
        self.copy_spans(rows, rows + 1, out[:, None])
        return out


def _map_again(files: list[Any]) -> ShardedFrames:
    parts = [
        np.memmap(part[0], np.uint8, "r", part[1], part[2]) if isinstance(part, tuple) else part
        for part in files
    ]
    return ShardedFrames(parts)


def _versions(directory: Path) -> list[tuple[str, int, int]]:
    """Name, inode and time of each shard: others once one has been replaced."""
    found = []
    for path in shard_paths(directory):
        with contextlib.suppress(FileNotFoundError):  # moved away since
            stat = path.stat()
            found.append((path.name, stat.st_ino, stat.st_mtime_ns))
    return found


def _require_alike(
    paths: list[Path], configs: list[dict[str, Any]], shards: list[dict[str, NDArray[Any]]]
) -> None:
    """Raise ValueError unless all shards are of one game and protocol, have the same columns and follow each
    other: a shard copied from elsewhere would continue an episode that is not its own.
    """
    ended = 0
    for path, config, shard in zip(paths, configs, shards, strict=True):
        for key in ("game", "protocol"):
            if config[key] != configs[0][key]:
                raise ValueError(
                    f"{path} has {key} {config[key]} and the shards before it {configs[0][key]}; "
                    "keep them in different directories"
                )
        if shard.keys() != shards[0].keys():
            raise ValueError(f"{path} and the shards before it do not agree on having a RAM column")
        if config["round"] != ended:
            raise ValueError(
                f"{path} is of round {config['round']}, where one of round {ended} belongs; restore the file "
                "that was there, or take it out"
            )
        ended += bool(config["end"])


class FrameStore:
    """The collected frames of one game and the columns that go with them, row for row.

    Attributes:
        frames: uint8 [N, 84, 84], memory-mapped.
        actions: uint8 [N], ids of the 18 actions; 0 on an episode's final row.
        rewards: float32 [N], raw; ``terminated``, ``truncated``: bool [N]. All three are results of
            ``actions[t]``.
        episode_ids: int32 [N]; an episode's rows are contiguous, the last is its final observation.
        lives: uint8 [N].
        ram: uint8 [N, 128], or None if it was not collected.
        game, protocol, seed: of the collection; the protocol and the seed are None for a recording.
        rounds: the metadata that each round of collection wrote.
        round_ends: for each round, the row after its last.
    """

    def __init__(self, configs: list[dict[str, Any]], shards: list[dict[str, NDArray[Any]]]) -> None:
        self.frames = ShardedFrames([shard[FRAMES] for shard in shards])
        columns = {
            name: np.concatenate([shard[name] for shard in shards]) for name in COLUMNS if name in shards[0]
        }
        self.actions: NDArray[np.uint8] = columns["actions"]
        self.rewards: NDArray[np.float32] = columns["rewards"]
        self.terminated: NDArray[np.bool_] = columns["terminated"]
        self.truncated: NDArray[np.bool_] = columns["truncated"]
        self.episode_ids: NDArray[np.int32] = columns["episode_ids"]
        self.lives: NDArray[np.uint8] = columns["lives"]
        self.ram: NDArray[np.uint8] | None = columns.get("ram")
        self.rounds: tuple[dict[str, Any], ...] = tuple(config for config in configs if config["end"])
        self.num_shards = len(shards)
        ends = np.cumsum([len(shard[FRAMES]) for shard in shards])
        self.round_ends: tuple[int, ...] = tuple(
            int(end) for end, config in zip(ends, configs, strict=True) if config["end"]
        )
        self.game: str = configs[0]["game"]
        self.seed: int | None = configs[0]["seed"]
        protocol = configs[0]["protocol"]
        self.protocol = None if protocol is None else Protocol(**protocol)
        first = first_rows(self.episode_ids)
        self._episode_start = np.flatnonzero(first)[np.cumsum(first) - 1]

    @classmethod
    def open(cls, directory: str | Path, *, rounds: int | None = None) -> Self:
        """Open the shards of ``directory``. Frames stay on disk; the rest is 20 bytes per row, RAM 128 more.

        Shards that an interrupted collection left behind (its folder ``.collecting`` is there) are skipped.
        What another process replaces meanwhile is read again, so that no round is half of an old one.

        Args:
            directory: holds the shards of one game.
            rounds: open only this many rounds of collection from the first, whatever the state of the others;
                all by default.

        Raises:
            ValueError: there is no complete round or there are fewer than ``rounds``; a shard is missing,
                damaged or not a `frames` artifact; or the shards differ in game, protocol or whether they
                have RAM.
        """
        directory = Path(directory)
        rounds = None if rounds is None else whole("rounds", rounds)
        while True:
            before = _versions(directory)
            try:
                store = cls._open(directory, rounds)
            except (ValueError, OSError):
                if _versions(directory) == before:
                    raise
            else:
                if _versions(directory) == before:
                    return store

    @classmethod
    def _open(cls, directory: Path, rounds: int | None) -> Self:
        # Checked before the shards are listed: the folder disappears once a round is complete, and then so is
        # any listing made later.
        collecting = (directory / STAGING).exists()
        paths = shard_paths(directory)
        if not paths:
            raise ValueError(
                f"{directory} holds no shard-*.safetensors; collect or import frames into it first"
            )
        paths = [shard_path(directory, i) for i in range(len(paths))]
        configs, shards = [], []
        ends: list[int] = []  # shards up to the end of each round
        for path in paths:
            if ends and len(ends) == rounds:
                break  # what comes later may be damaged or gone
            if not path.exists():
                missing = ", ".join(path.name for path in paths if not path.exists())
                raise ValueError(f"{directory} lacks {missing}; restore the files, or collect again")
            config, shard = read_shard(path)
            configs.append(config)
            shards.append(shard)
            if config["end"]:
                ends.append(len(shards))
        complete = ends[-1] if ends else 0
        if complete < len(shards) and not collecting:
            gone, begun = (shard_path(directory, number).name for number in (len(shards), complete))
            raise ValueError(
                f"{directory} lacks the end of its last round, from {gone} on; restore the files, or delete "
                f"those from {begun} on"
            )
        if not ends:
            raise ValueError(f"{directory} holds only an interrupted collection; collect again")
        if rounds is not None and not 1 <= rounds <= len(ends):
            raise ValueError(
                f"{directory} holds {len(ends)} of the {rounds} rounds asked for; ask for 1 to {len(ends)}"
            )
        configs, shards = configs[:complete], shards[:complete]
        _require_alike(paths[:complete], configs, shards)
        return cls(configs, shards)

    def __len__(self) -> int:
        return len(self.frames)

    def stacks(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Observations at the given rows, uint8 [B, 4, 84, 84]: oldest frame first, zeros before an episode.

        Raises:
            ValueError: ``indices`` are not integers [B], or not rows of the store.
        """
        rows = np.asarray(indices)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise ValueError(
                f"indices are {rows.dtype} {rows.shape}; give integers of shape (B,), "
                "np.flatnonzero(mask) for a mask"
            )
        return self.clips(rows, 1)

    def clips(self, starts: NDArray[np.integer], length: int, history: int = HISTORY) -> NDArray[np.uint8]:
        """``length`` frames from each start and ``history`` before it, uint8 [B, history + length, 84, 84].

        Frames before the episode's first are zeros, so the stack of step i is ``clip[i : i + history + 1]``:
        all stacks of a clip are one sliding-window view of it.

        Raises:
            ValueError: a clip does not fit into its episode.
        """
        begins, length, history = np.asarray(starts), whole("length", length), whole("history", history)
        if begins.ndim != 1 or begins.dtype.kind not in "iu" or length < 1 or history < 0:
            raise ValueError(
                f"starts is {begins.dtype} {begins.shape}, length {length}, history {history}; "
                "give integers of shape (B,), length 1 or more and history 0 or more"
            )
        begins = begins.astype(np.int64)
        ends = begins + length
        if len(begins) and (begins.min() < 0 or ends.max() > len(self)):
            raise ValueError(
                f"clips reach from row {begins.min()} to {ends.max()}; the store has rows 0 to {len(self)}"
            )
        episode = self._episode_start[begins]
        if (crossing := episode != self._episode_start[ends - 1]).any():
            raise ValueError(
                f"the clip of {length} frames from row {begins[crossing][0]} leaves its episode; "
                "take starts from window_starts(episode_ids, length)"
            )
        out = np.empty((len(begins), history + length, *self.frames.shape[1:]), dtype=np.uint8)
        if not len(begins):
            return out
        return self.frames.copy_spans(np.maximum(begins - history, episode), ends, out)

    def mean_frame(self, max_frames: int = 10_000) -> NDArray[np.float32]:
        """Mean of at most ``max_frames`` frames spread evenly over the store, float32 [84, 84]."""
        rows = np.arange(0, len(self), -(-len(self) // whole("max_frames", max_frames, least=1)))
        total = np.zeros(self.frames.shape[1:], dtype=np.uint64)
        for block in np.array_split(rows, -(-len(rows) // 256)):
            total += self.frames[block].sum(axis=0, dtype=np.uint64)
        return (total / len(rows)).astype(np.float32)

"""Importing recordings: frames and actions from anywhere, into the same shards as collection writes."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice, pairwise
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atari_data.collect import CollectResult
from atari_data.games import NUM_ACTIONS, check_own_name
from atari_data.rounds import new_round
from atari_data.shards import FRAMES, ShardWriter
from atari_data.store import FrameStore
from atari_data.video import read_frames, to_frame
from atari_data.windows import final_rows, first_rows

_BLOCK = 256
_T = TypeVar("_T")


def import_recording(
    directory: str | Path,
    frames: str | Path | NDArray[np.uint8],
    actions: str | Path | ArrayLike,
    rewards: str | Path | ArrayLike | None = None,
    terminated: str | Path | ArrayLike | None = None,
    *,
    game: str,
    truncated: str | Path | ArrayLike | None = None,
    episode_ids: str | Path | ArrayLike | None = None,
    lives: str | Path | ArrayLike | None = None,
) -> CollectResult:
    """Add a recording to the shards of ``directory``, as one round, completely or not at all.

    Time is indexed as everywhere in this package: ``actions[t]`` is chosen after frame t, and ``rewards[t]``,
    ``terminated[t]`` and ``truncated[t]`` are its results. The last frame of an episode is its final
    observation, and its value in ``actions`` is ignored. A recording of one episode may omit that value and
    have one action fewer than frames. An episode that ends without a flag counts as truncated.

    Columns are arrays, [T] or [T, 1], or files: ``.npy``, or text with one number per line.

    Args:
        directory: created if missing.
        frames: uint8 array [T, H, W], [T, H, W, 1] or [T, H, W, 3], a ``.npy`` file of one, a folder of
            images in the order of their names, or a video. Converted to grey 84 x 84; frames already in that
            form stay unchanged.
        actions: ids of the 18 actions, [T] or [T - 1].
        rewards: [T] or [T - 1]; zeros when None.
        terminated: booleans, [T] or [T - 1]: the game ended here. None if it never did.
        game: any name of lower-case letters, digits and underscores; for an ALE game, ALE's name.
        truncated: booleans, [T] or [T - 1]: the recording of the episode was cut off here.
        episode_ids: [T], if the recording holds several episodes.
        lives: [T]; zeros when None.

    Raises:
        ValueError: lengths, shapes or values do not fit, or a round of ``directory`` already has the same
            frames; nothing has been written.
    """
    check_own_name(game)
    directory = Path(directory)
    num_frames, pictures = read_frames(frames)
    columns = _columns(
        num_frames,
        episode_ids=episode_ids,
        actions=actions,
        rewards=rewards,
        flags={"terminated": terminated, "truncated": truncated},
        lives=lives,
    )
    with new_round(directory, game=game, protocol=None, ram=False) as place, ExitStack() as stack:
        columns["episode_ids"] += place.first_episode
        config = {**place.config, "source": "recording", "seed": None, "env": 0}
        writer = ShardWriter(place.staging, "recording", ram=False, config=config)
        stack.callback(writer.discard)
        row, digest = 0, hashlib.blake2b()
        for block in _batched(map(to_frame, pictures), _BLOCK):
            end = row + len(block)
            if end <= num_frames:
                some = np.stack(block)
                digest.update(some.tobytes())
                writer.append({FRAMES: some} | {name: column[row:end] for name, column in columns.items()})
            row = end
        if row != num_frames:
            raise ValueError(f"{frames} announces {num_frames} pictures and holds {row}; convert it again")
        if place.round:
            _require_new(FrameStore.open(directory), num_frames, digest.digest(), directory)
        writer.close(end=True)
        place.staged.extend(writer.paths)
    final = final_rows(columns["episode_ids"])
    lengths = np.diff(np.flatnonzero(final), prepend=-1) - 1
    return CollectResult(
        num_steps=int(lengths.sum()),
        num_rows=num_frames,
        num_episodes=len(lengths),
        returns=np.add.reduceat(columns["rewards"], np.flatnonzero(final) - lengths, dtype=np.float64),
        lengths=lengths,
        round=place.round,
        paths=place.paths,
    )


def _require_new(store: FrameStore, num_frames: int, digest: bytes, directory: Path) -> None:
    """Raise ValueError if a round has these frames: some might serve for both training and validation."""
    for number, (begin, end) in enumerate(pairwise((0, *store.round_ends))):
        if end - begin != num_frames:
            continue
        found = hashlib.blake2b()
        for row in range(begin, end, _BLOCK):
            found.update(store.frames[row : min(row + _BLOCK, end)].tobytes())
        if found.digest() == digest:
            raise ValueError(
                f"{directory} has these {num_frames} frames already, as round {number}; give others, or "
                "delete it to import these otherwise"
            )


def _columns(
    num_frames: int, *, episode_ids: Any, actions: Any, rewards: Any, flags: dict[str, Any], lives: Any
) -> dict[str, NDArray[Any]]:
    """Every column of the shards, [num_frames], checked, with final rows as they must be."""
    if episode_ids is None:
        ids = np.zeros(num_frames, dtype=np.int32)
    else:
        ids = _episodes(_integers(episode_ids, "episode_ids", num_frames))
    final = final_rows(ids)
    frames = np.diff(np.flatnonzero(final), prepend=-1)
    if (frames < 2).any():
        row = int(np.flatnonzero(final)[np.argmin(frames)])
        raise ValueError(f"the episode at frame {row} has 1 frame; an episode has 2 or more, leave it out")
    lengths = (num_frames, num_frames - 1) if episode_ids is None else (num_frames,)
    ends = {name: _ends(values, name, final, lengths) for name, values in flags.items()}
    if np.logical_and(*ends.values()).any():
        raise ValueError("an episode is both terminated and truncated; set only one")
    ends["truncated"] |= _before(final) & ~ends["terminated"]
    return {
        "actions": _actions(actions, final, lengths),
        "rewards": _rewards(rewards, final, lengths),
        "lives": _lives(lives, num_frames),
        "episode_ids": ids,
    } | ends


def _actions(values: Any, final: NDArray[np.bool_], lengths: tuple[int, ...]) -> NDArray[np.int64]:
    """Ids of the full action set, with 0 in the final rows, where nothing is chosen."""
    found = np.where(final, 0, _integers(values, "actions", *lengths))
    if not 0 <= found.min() <= found.max() < NUM_ACTIONS:
        raise ValueError(
            f"actions go from {found.min()} to {found.max()}; give ids of the full action set, "
            f"0 to {NUM_ACTIONS - 1}"
        )
    return found


def _rewards(values: Any, final: NDArray[np.bool_], lengths: tuple[int, ...]) -> NDArray[Any]:
    found = _results(values, "rewards", final, lengths)
    with np.errstate(over="ignore"):
        stored = found.astype(np.float32)
    if not np.isfinite(stored).all():
        raise ValueError("rewards are too large for float32; give smaller numbers")
    return stored


def _ends(values: Any, name: str, final: NDArray[np.bool_], lengths: tuple[int, ...]) -> NDArray[np.bool_]:
    """Flags that may be set only by the last action of an episode."""
    found = _results(values, name, final, lengths)
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"{name} holds numbers other than 0 and 1; give a flag for each action")
    flags = found != 0
    if (inside := flags & ~_before(final)).any():
        raise ValueError(
            f"{name}[{int(np.argmax(inside))}] is set inside an episode; "
            "give episode_ids where a recording holds several episodes"
        )
    return flags


def _results(values: Any, name: str, final: NDArray[np.bool_], lengths: tuple[int, ...]) -> NDArray[Any]:
    """What each action brought: finite, and 0 in the final rows, where none is chosen."""
    found = np.zeros(len(final)) if values is None else _load(values, name, *lengths)
    if not np.isfinite(found).all():
        raise ValueError(f"{name} holds NaN or infinity; give finite numbers")
    if (found[final] != 0).any():
        row = int(np.flatnonzero(final & (found != 0))[0])
        raise ValueError(
            f"{name}[{row}] is {found[row]} on the last frame of its episode, a final observation that "
            "brings nothing; add the frame that followed, or leave the value out"
        )
    return found


def _lives(values: Any, num_frames: int) -> NDArray[Any]:
    found = np.zeros(num_frames) if values is None else _integers(values, "lives", num_frames)
    if not 0 <= found.min() <= found.max() <= 255:
        raise ValueError("lives go below 0 or above 255; give the number of lives left")
    return found


def _before(final: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rows before the final ones: those of the episodes' last actions."""
    return np.append(final[1:], False)


def _episodes(ids: NDArray[Any]) -> NDArray[np.int32]:
    """Episode ids as 0, 1, 2, ...; each must be one run of rows."""
    first = first_rows(ids)
    if len(np.unique(ids)) != first.sum():
        raise ValueError(
            "episode_ids returns to an earlier episode; put the frames of an episode side by side"
        )
    return (np.cumsum(first) - 1).astype(np.int32)


def _integers(values: Any, name: str, *lengths: int) -> NDArray[Any]:
    column = _load(values, name, *lengths)
    if not np.isfinite(column).all() or (column != np.floor(column)).any():
        raise ValueError(f"{name} holds numbers that are not whole; give integers")
    if column.dtype.kind == "f":
        largest = float(np.abs(column).max())
        if largest >= 2.0 ** (np.finfo(column.dtype).nmant + 1):  # from here on two integers may be one float
            raise ValueError(
                f"{name} holds {largest:g}, too large for a float to hold exactly; give smaller integers"
            )
    return column.astype(np.int64)


def _load(values: Any, name: str, *lengths: int) -> NDArray[Any]:
    """A column as numbers; if it is one shorter than the frames, a zero is added for the final row."""
    if isinstance(values, (str, Path)):
        path = Path(values)
        if not path.is_file():
            wrong = "is a directory; give a file" if path.is_dir() else "does not exist"
            raise ValueError(f"{name} file {path} {wrong}")
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # empty files: see below
                if path.suffix == ".npy":
                    with path.open("rb") as file:
                        values = np.lib.format.read_array(file)
                else:  # spreadsheets start a file with a byte-order mark
                    values = np.loadtxt(path, ndmin=1, delimiter=",", encoding="utf-8-sig")
        except (ValueError, EOFError, TokenError, OverflowError, MemoryError) as error:
            raise ValueError(f"{name} file {path} is not .npy and not one number a line ({error})") from error
    if np.ma.isMaskedArray(values):
        raise ValueError(f"{name} is a masked array; fill it, or leave the masked rows out")
    try:
        column = np.asarray(values)
    except (ValueError, RuntimeError) as error:  # lists of lists, or a tensor that NumPy does not take
        raise ValueError(
            f"{name} is not a row of numbers ({error}); give one number for each frame"
        ) from None
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1 or column.dtype.kind not in "biuf" or len(column) not in lengths:
        allowed = " or ".join(f"({length},)" for length in dict.fromkeys(lengths))
        raise ValueError(f"{name} is {column.dtype} {column.shape}; give numbers of shape {allowed}")
    short = max(lengths) - len(column)
    return np.append(column, np.zeros(short, dtype=column.dtype)) if short else column


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block

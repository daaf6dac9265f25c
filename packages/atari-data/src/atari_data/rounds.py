"""Rounds: a directory grows by whole rounds of collection, never by half of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atari_data.locks import only_writer
from atari_data.protocol import Protocol
from atari_data.shards import STAGING, shard_path, shard_paths
from atari_data.store import FrameStore, read_shard


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a new round goes.

    Attributes:
        round: its number.
        first_shard, first_episode: its first shard and first episode id.
        config: its metadata.
        staging: folder to write its shards into.
        staged: their paths, in their final order, to be filled in.
    """

    round: int
    first_shard: int
    first_episode: int
    config: dict[str, Any]
    staging: Path
    staged: list[Path] = field(default_factory=list)


@contextmanager
def new_round(directory: Path, *, game: str, protocol: Protocol | None, ram: bool) -> Iterator[Place]:
    """The place of a new round in ``directory``, which may be new, empty, or hold rounds, and is locked.

    When the block ends well the staged shards take their places in ``directory``; when it does not, they
    vanish. A process killed while they are being renamed leaves the folder, and a tail without the shard
    marked as the end of its round: readers pass it over, and the next round removes both.

    Raises:
        ValueError: it is being written by another, holds damaged shards, another game or protocol, or differs
            in having RAM.
    """
    with only_writer(directory):
        place = _next_place(directory, game, protocol, ram)
        _drop_shards(directory, place.first_shard)  # what a killed process left; its folder still marks it
        shutil.rmtree(place.staging, ignore_errors=True)
        place.staging.mkdir()
        try:
            yield place
            for index, path in enumerate(place.staged, place.first_shard):
                os.replace(path, shard_path(directory, index))
        except BaseException:
            _drop_shards(directory, place.first_shard)
            raise
        finally:
            shutil.rmtree(place.staging, ignore_errors=True)


def _next_place(directory: Path, game: str, protocol: Protocol | None, ram: bool) -> Place:
    staging = directory / STAGING
    config = {"game": game, "protocol": None if protocol is None else asdict(protocol)}
    if not _whole_rounds(directory):
        return Place(round=0, first_shard=0, first_episode=0, config={**config, "round": 0}, staging=staging)
    store = FrameStore.open(directory)
    for what, found, given in (
        ("game", store.game, game),
        ("protocol", store.protocol, protocol),
        ("RAM column", store.ram is not None, ram),
    ):
        if found != given:
            raise ValueError(f"{directory} has {what} {found}, not {given}; use another directory")
    return Place(
        round=len(store.rounds),
        first_shard=store.num_shards,
        first_episode=int(store.episode_ids.max()) + 1,
        config={**config, "round": len(store.rounds)},
        staging=staging,
    )


def _whole_rounds(directory: Path) -> bool:
    """Whether there are shards, and more than the first round's of a process killed while renaming them."""
    paths = shard_paths(directory)
    return bool(paths) and not (
        (directory / STAGING).exists() and not any(read_shard(path)[0]["end"] for path in paths)
    )


def drop_rounds(directory: str | Path, keep: int) -> None:
    """Delete every round of ``directory`` but the first ``keep``, so that others can take their place.

    The last goes first. A process killed in between leaves whole rounds, of which there may be more than
    ``keep``, and a tail that readers pass over.

    Raises:
        ValueError: it does not hold so many.
    """
    directory = Path(directory)
    store = FrameStore.open(directory, rounds=keep)
    with only_writer(directory):
        (directory / STAGING).mkdir(exist_ok=True)  # while it is there, half a round is passed over
        _drop_shards(directory, store.num_shards)
        shutil.rmtree(directory / STAGING)


def _drop_shards(directory: Path, first: int) -> None:
    """Delete the shards from number ``first`` on, from the end, so that there is never a gap."""
    for path in reversed(shard_paths(directory)):
        if path >= shard_path(directory, first):
            path.unlink()

"""Rounds: a directory grows by whole rounds of collection, never by part of one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atari_data.locks import only_writer
from atari_data.protocol import Protocol
from atari_data.shards import STAGING, read_shard, shard_path, shard_paths
from atari_data.store import FrameStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a new round goes.

    Attributes:
        round: its number.
        first_shard, first_episode: numbers of its first shard and first episode.
        config: its metadata.
        staging: folder to write its shards into.
        staged: paths of the shards in it, in their final order, to be filled in.
    """

    round: int
    first_shard: int
    first_episode: int
    config: dict[str, Any]
    staging: Path
    staged: list[Path] = field(default_factory=list)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The final paths of the staged shards."""
        numbers = range(self.first_shard, self.first_shard + len(self.staged))
        return tuple(shard_path(self.staging.parent, number) for number in numbers)


@contextmanager
def new_round(
    directory: Path, *, game: str, protocol: Protocol | None, ram: bool, keep: int | None = None
) -> Iterator[Place]:
    """The place of a new round in ``directory``, which may be missing, empty or hold rounds, and is locked.

    The round follows all existing ones, or replaces those after the first ``keep``. If the block succeeds,
    the staged shards are moved into ``directory``; if it fails, they are deleted and nothing else has
    changed. A process killed while shards are being moved leaves the staging folder behind, and trailing
    shards none of which is marked as the end of a round: readers skip them, and the next round removes both,
    along with the shards that were to be replaced.

    Raises:
        ValueError: ``directory`` is being written by another process, holds damaged shards, another game or
            protocol, or fewer rounds than ``keep``, or differs in whether it has RAM.
    """
    with only_writer(directory):
        place = _next_place(directory, game, protocol, ram, keep)
        if place.staging.exists():  # left by a killed process
            _drop_half_round(directory, place.first_shard)  # while the folder still marks it
            shutil.rmtree(place.staging)
        place.staging.mkdir()
        moved: list[tuple[Path, Path]] = []

        def move(source: Path, target: Path) -> None:
            moved.append((source, target))  # first: an interruption may follow the move at once
            os.replace(source, target)

        try:
            yield place
            for path in reversed(shard_paths(directory)):
                if path >= shard_path(directory, place.first_shard):
                    move(path, place.staging / f"old-{path.name}")
            for staged, path in zip(place.staged, place.paths, strict=True):
                move(staged, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:  # a write to a full disk names no file
                error.filename = str(directory)
            for source, target in reversed(moved):
                if target.exists() and not source.exists():
                    os.replace(target, source)
            shutil.rmtree(place.staging, ignore_errors=True)
            raise
        shutil.rmtree(place.staging, ignore_errors=True)


def _next_place(directory: Path, game: str, protocol: Protocol | None, ram: bool, keep: int | None) -> Place:
    number = first_shard = first_episode = 0
    if keep != 0 and (keep is not None or _whole_rounds(directory)):
        store = FrameStore.open(directory, rounds=keep)
        for what, found, given in (
            ("game", store.game, game),
            ("protocol", store.protocol, protocol),
            ("RAM column", store.ram is not None, ram),
        ):
            if found != given:
                raise ValueError(f"{directory} has {what} {found}, not {given}; use another directory")
        number, first_shard = len(store.rounds), store.num_shards
        first_episode = int(store.episode_ids.max()) + 1
    return Place(
        round=number,
        first_shard=first_shard,
        first_episode=first_episode,
        config={"game": game, "protocol": None if protocol is None else asdict(protocol), "round": number},
        staging=directory / STAGING,
    )


def _whole_rounds(directory: Path) -> bool:
    """Whether any round is complete: moving the shards of the first one may have been interrupted."""
    paths = shard_paths(directory)
    return bool(paths) and not (
        (directory / STAGING).exists() and not any(read_shard(path)[0]["end"] for path in paths)
    )


def _drop_half_round(directory: Path, first: int) -> None:
    """Delete the shards from number ``first`` on that follow the last complete round."""
    for path in reversed(shard_paths(directory)):
        if path < shard_path(directory, first) or _ends_round(path):
            break
        path.unlink()


def _ends_round(path: Path) -> bool:
    try:
        return bool(read_shard(path)[0]["end"])
    except ValueError:  # damaged
        return False

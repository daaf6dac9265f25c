"""Collection: a policy plays, and what it sees and does is written to disk meanwhile."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ale_py
import numpy as np
from numpy.typing import NDArray

from atari_data._checks import whole
from atari_data.games import check_game
from atari_data.playing import Tick, environment_seeds, play
from atari_data.policies import Policy
from atari_data.protocol import PROTOCOLS, Protocol, check_protocol
from atari_data.recorder import Recorder
from atari_data.rounds import new_round
from atari_data.shards import ShardWriter
from atari_data.twins import Twins


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CollectResult:
    """The result of one round of collection.

    Attributes:
        num_steps: actions taken.
        num_rows: rows written, one more per episode than actions.
        num_episodes: episodes that ended on their own (one that was cut off is written too, but has no
            return); for a recording, all episodes.
        returns: float64 [num_episodes], sums of raw rewards, in the order of the episode ids.
        lengths: int64 [num_episodes], in actions.
        round: number of this round in the directory, from 0.
        paths: of its shards.
    """

    num_steps: int
    num_rows: int
    num_episodes: int
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    round: int
    paths: tuple[Path, ...]


def collect(
    directory: str | Path,
    game: str,
    num_steps: int,
    policy: Policy,
    *,
    seed: int,
    protocol: Protocol = PROTOCOLS["atari100k"],
    num_envs: int = 16,
    ram: bool = False,
    keep: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> CollectResult:
    """Take exactly ``num_steps`` actions and add them, as one round, to the shards of ``directory``.

    Environments share the actions evenly; when an environment has taken its share, its episode is cut off
    (`truncated`). The same arguments, with the same contents of ``directory``, write the same bytes. A round
    appears completely or not at all: after an error or an interruption the directory is as it was.

    Args:
        directory: created if missing. If it already holds rounds, game and protocol must be the same.
        game: a name of :func:`atari_data.games`.
        num_steps: total number of actions, 1 or more; an action is ``protocol.frameskip`` emulated frames.
        policy: called with half of the environments at a time. The result is as deterministic as the policy.
        seed: for the emulators; mixed with the number of the round. Still give a random policy a new seed in
            each round: there are so few starts (at most 30 in `atari100k`, one if the protocol has no
            randomness) that with the same actions an environment may repeat an earlier round.
        protocol: how the emulator is driven.
        num_envs: copies of the game that play in parallel.
        ram: store the emulator's 128 bytes of RAM too. The pixels are the same; about half as fast.
        keep: number of rounds to keep; those after them are deleted once the new one is complete. By default
            all are kept; 0 replaces everything.
        progress: called from time to time with the number of actions taken so far.

    Raises:
        ValueError: a bad argument; the policy's answer is not actions; or ``directory`` holds another game or
            protocol, damaged shards or fewer rounds than ``keep``, differs in whether it has RAM, or is being
            written by another process.
    """
    num_steps = whole("num_steps", num_steps, least=1)
    seed = whole("seed", seed, least=0)
    num_envs = whole("num_envs", num_envs, least=1)
    keep = None if keep is None else whole("keep", keep, least=0)
    check_protocol(protocol)
    directory = Path(directory)
    num_envs = min(num_envs, num_steps)
    origin = {
        "source": "emulator",
        "seed": seed,
        "policy": type(policy).__name__,
        "ale_py": ale_py.__version__,
    }
    with (
        new_round(directory, game=check_game(game), protocol=protocol, ram=ram, keep=keep) as place,
        ExitStack() as stack,
    ):
        seeds = environment_seeds(seed, num_envs, stream=place.round)
        quotas = np.full(num_envs, num_steps // num_envs)
        quotas[: num_steps % num_envs] += 1
        twins = Twins(game, seeds, protocol) if ram else None
        writers = [
            ShardWriter(
                place.staging, f"env-{env:05d}", ram=ram, config={**place.config, **origin, "env": env}
            )
            for env in range(num_envs)
        ]
        for writer in writers:
            stack.callback(writer.discard)
        recorders = _record_all(
            play(game, policy, seeds=seeds, protocol=protocol),
            writers,
            quotas,
            twins,
            place.first_episode,
            progress,
        )
        for env, writer in enumerate(writers):
            writer.close(end=env == num_envs - 1)
            place.staged.extend(writer.paths)
    episodes = sorted(episode for recorder in recorders for episode in recorder.episodes)
    return CollectResult(
        num_steps=num_steps,
        num_rows=sum(int(recorder.num_rows.sum()) for recorder in recorders),
        num_episodes=len(episodes),
        returns=np.array([episode[1] for episode in episodes], dtype=np.float64),
        lengths=np.array([episode[2] for episode in episodes], dtype=np.int64),
        round=place.round,
        paths=place.paths,
    )


def _record_all(
    ticks: Iterable[Tick],
    writers: Sequence[ShardWriter],
    quotas: NDArray[np.int64],
    twins: Twins | None,
    first_episode: int,
    progress: Callable[[int], None] | None,
) -> list[Recorder]:
    """Record until every environment has met its quota, with one recorder per half."""
    recorders: dict[int, Recorder] = {}  # by the first environment of each half
    for tick in ticks:
        half = int(tick.env_ids[0])
        if half not in recorders:
            recorders[half] = Recorder(
                [writers[env] for env in tick.env_ids],
                quotas[tick.env_ids],
                first_ids=first_episode + tick.env_ids,
                id_stride=len(writers),
                ram=twins is not None,
            )
        recorder = recorders[half]
        if recorder.done:
            continue
        if twins is not None:
            twins.follow(tick)
        if recorder.record(tick, None if twins is None else twins.ram(tick.env_ids)):  # rows were written
            if progress is not None:
                progress(sum(one.num_steps for one in recorders.values()))
            # Both halves have a recorder by now: none is done at its first tick, and the halves take turns.
            if all(one.done for one in recorders.values()):
                break
    return list(recorders.values())

"""Evaluation over whole episodes, in which short ones are no more likely to be counted than long ones."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atari_data._checks import whole
from atari_data.playing import Tick, environment_seeds, play
from atari_data.policies import Policy
from atari_data.protocol import PROTOCOLS, Protocol, check_protocol
from atari_data.twins import Twins

_EVALUATION_STREAM = 2**31  # apart from those of collection, which are numbered from 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Episodes:
    """Results of episodes played to their end, in order.

    Attributes:
        returns: float64 [n], sums of raw rewards.
        lengths: int64 [n], in actions.
        terminated: bool [n]; False where the protocol's frame limit cut the episode off.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]


class Moment(NamedTuple):
    """One observation of a recorded episode."""

    episode: int
    screen: NDArray[np.uint8]  # in the emulator's colours, [210, 160, 3] in most games
    observation: NDArray[np.uint8]  # [4, 84, 84], what the policy saw
    reward: float  # raw, from the previous action
    action: int  # the policy's answer; meaningless at the last observation
    over: bool  # this is the episode's last observation


def play_episodes(
    game: str,
    policy: Policy,
    num_episodes: int,
    *,
    seed: int,
    protocol: Protocol = PROTOCOLS["atari100k"],
    num_envs: int = 16,
    record: Callable[[Moment], None] | None = None,
    record_episodes: Collection[int] = (0,),
    progress: Callable[[int], None] | None = None,
) -> Episodes:
    """Play ``num_episodes`` full episodes; their returns are unclipped.

    Which environment plays which episode is fixed in advance: environment e plays episodes e, e + num_envs,
    e + 2 num_envs and so on. Counting the first episodes to end would favour short ones.

    Args:
        game: a name of :func:`atari_data.games`.
        policy: called with half of the environments at a time, until all episodes have ended.
        num_episodes: 1 or more.
        seed: for the emulators.
        protocol: how the emulator is driven.
        num_envs: copies of the game that play in parallel; at most ``num_episodes`` are created.
        record: called with every :class:`Moment` of the episodes to record, in order within each episode,
            which is enough to write a video of one as it plays. Moments of parallel episodes are interleaved.
        record_episodes: numbers of the episodes to record, from 0.
        progress: called with the number of episodes that have ended, each time it grows.

    Raises:
        ValueError: a bad argument, or the policy's answer is not actions.
    """
    num_episodes = whole("num_episodes", num_episodes, least=1)
    seed = whole("seed", seed, least=0)
    num_envs = whole("num_envs", num_envs, least=1)
    check_protocol(protocol)
    num_envs = min(num_envs, num_episodes)
    seeds = environment_seeds(seed, num_envs, stream=_EVALUATION_STREAM)
    recorded = set(record_episodes) if record is not None else set()
    if wrong := sorted(recorded - set(range(num_episodes))):
        raise ValueError(f"record_episodes holds {wrong[0]}; there are episodes 0 to {num_episodes - 1}")
    last_recorded = {episode % num_envs: episode for episode in sorted(recorded)}
    twins = Twins(game, seeds, protocol, sorted(last_recorded))
    returns = np.zeros(num_episodes)
    lengths = np.zeros(num_episodes, dtype=np.int64)
    terminated = np.zeros(num_episodes, dtype=np.bool_)
    current = np.arange(num_envs)  # the episode each environment plays; num_episodes or more means none
    num_ended = 0
    for tick in play(game, policy, seeds=seeds, protocol=protocol):
        twins.follow(tick)
        if record is not None:
            _record_moments(record, recorded, twins, current, tick)
        playing = current[tick.env_ids] < num_episodes
        envs = tick.env_ids[playing]
        over = tick.over[playing]
        returns[current[envs]] += tick.rewards[playing]
        lengths[current[envs]] += ~over
        terminated[current[envs]] = tick.terminated[playing]
        current[envs[over]] += num_envs
        for env in envs[over].tolist():
            if current[env] > last_recorded.get(env, num_episodes):
                twins.release(env)
        if over.any():
            num_ended += int(over.sum())
            if progress is not None:
                progress(num_ended)
            if num_ended == num_episodes:
                break
    return Episodes(returns=returns, lengths=lengths, terminated=terminated)


def _record_moments(
    record: Callable[[Moment], None],
    recorded: set[int],
    twins: Twins,
    current: NDArray[np.int64],
    tick: Tick,
) -> None:
    for i, env in enumerate(tick.env_ids.tolist()):
        if int(current[env]) in recorded:
            record(
                Moment(
                    episode=int(current[env]),
                    screen=twins.screen(env),
                    observation=tick.observations[i],
                    reward=float(tick.rewards[i]),
                    action=int(tick.actions[i]),
                    over=bool(tick.over[i]),
                )
            )

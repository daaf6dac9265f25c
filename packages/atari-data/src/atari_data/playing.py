"""The one loop that plays: a policy on many copies of a game, one observation of each at a time.

Everything that plays (collection, evaluation, labelled collection) reads the same stream of :class:`Tick`.

Asynchronous environments return whichever copies are ready, so the batches a policy sees depend on timing,
and with them the last bits of a network's output. Here the copies form two halves that take turns: while the
policy processes one half, the emulator's threads run the other. This is as fast, and the batches are always
the same.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from atari_data._checks import whole
from atari_data.games import check_game, legal_actions, played_actions
from atari_data.policies import Policy, checked_actions
from atari_data.protocol import Protocol, check_protocol


class Tick(NamedTuple):
    """One observation of every environment in one half, with what led to it and the action taken next."""

    env_ids: NDArray[np.int64]  # [B], consecutive
    # [B, 4, 84, 84], oldest frame first, zeros before an episode's first; in a last observation the newest
    # frame repeats the one before it
    observations: NDArray[np.uint8]
    rewards: NDArray[np.int32]  # [B], raw, from the previous action
    terminated: NDArray[np.bool_]  # [B], by the previous action: this is the episode's last observation
    truncated: NDArray[np.bool_]  # [B], likewise, by the protocol's frame limit
    lives: NDArray[np.int32]  # [B]
    frame_numbers: NDArray[np.int32]  # [B], emulated frames since the environment was made
    actions: NDArray[np.int64]  # [B], the policy's answer; ignored at a last observation

    @property
    def over(self) -> NDArray[np.bool_]:
        """Bool [B]: the observation is its episode's last, and the next one starts another episode."""
        return self.terminated | self.truncated


def environment_seeds(seed: int, num_envs: int, *, stream: int = 0) -> NDArray[np.int64]:
    """Seeds for ``num_envs`` emulators, int64 [num_envs] in [0, 2**31): different for every stream."""
    seed, num_envs = whole("seed", seed, least=0), whole("num_envs", num_envs, least=1)
    states = np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(num_envs)
    return (states >> 1).astype(np.int64)


def play(game: str, policy: Policy, *, seeds: NDArray[np.int64], protocol: Protocol) -> Iterator[Tick]:
    """Play forever, with one environment per seed; leave the loop to stop.

    The first tick of each half holds the first observations. An environment whose observation was its
    episode's last resets on its next tick, which holds the next episode's first observation and reward 0.

    Raises:
        ValueError: ``game`` is unknown, ``protocol`` is not a :class:`Protocol`, there are no seeds or one is
            not in [0, 2**31), or the policy's answer is not B ids of the 18 actions.
    """
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or not len(seeds) or seeds.dtype.kind not in "iu":
        raise ValueError(
            f"seeds are {seeds.dtype} {seeds.shape}; give whole numbers, one for each environment"
        )
    if seeds.min() < 0 or seeds.max() >= 2**31:  # what is below 0 would be drawn at random
        raise ValueError(f"seeds go from {seeds.min()} to {seeds.max()}; give numbers from 0 to {2**31 - 1}")
    halves = [ids for ids in np.array_split(np.arange(len(seeds)), 2) if len(ids)]
    envs = [_make_env(game, len(ids), check_protocol(protocol)) for ids in halves]
    legal = legal_actions(game)
    places = np.array([legal.index(action) for action in played_actions(game)])  # position of each of the 18
    results = [_results(env, seeds[ids]) for env, ids in zip(envs, halves, strict=True)]
    while True:
        for env, ids, received in zip(envs, halves, results, strict=True):
            observations, rewards, terminated, truncated, info = next(received)
            # The emulator stops before it has drawn an episode's last picture, and returns the previous one,
            # or a mixture of frames that was never on the screen.
            over = terminated | truncated
            observations[over, -1] = observations[over, -2]
            actions = checked_actions(policy(observations.copy(), ids), len(ids))
            # The emulator keeps running while the other half and the reader have their turn.
            env.send(places[actions])
            yield Tick(
                env_ids=ids,
                observations=observations,
                rewards=rewards,
                terminated=terminated,
                truncated=truncated,
                lives=info["lives"],
                frame_numbers=info["frame_number"],
                actions=actions,
            )


def _results(env: AtariVectorEnv, seeds: NDArray[np.int64]) -> Iterator[tuple[Any, ...]]:
    """What the environment returns: of a reset first, then of each action sent to it."""
    observations, info = env.reset(seed=seeds)
    nothing = np.zeros(len(seeds), dtype=np.int32)
    yield observations, nothing, nothing.astype(bool), nothing.astype(bool), info
    while True:
        yield env.recv()


def _make_env(game: str, num_envs: int, protocol: Protocol) -> AtariVectorEnv:
    return AtariVectorEnv(
        check_game(game),
        num_envs,
        max_num_frames_per_episode=protocol.max_frames,
        repeat_action_probability=protocol.sticky,
        full_action_space=True,
        frameskip=protocol.frameskip,
        maxpool=protocol.max_pool,
        noop_max=protocol.noop_max,
        reward_clipping=False,
        use_fire_reset=protocol.fire_reset,
    )

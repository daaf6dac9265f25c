"""Policies that need no learning: random play in three flavours.

Each environment draws from its own random stream, so what environment 3 does depends neither on how many
others there are nor on which of them share a call.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from atari_data._checks import whole
from atari_data.games import NUM_ACTIONS, minimal_actions

Policy = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.int64]]
"""(observations uint8 [B, 4, 84, 84], environment ids int64 [B]) -> ids of the 18 actions, int64 [B].

The policy may change the observations in place."""

_BLOCK = 1024  # draws made at once per environment


class _Streams:
    """Uniform numbers in [0, 1), ``width`` per draw, from one generator per environment."""

    def __init__(self, seed: int, num_envs: int, width: int, *, purpose: tuple[int, ...] = ()) -> None:
        seed, num_envs = whole("seed", seed, least=0), whole("num_envs", num_envs, least=1)
        sequences = [np.random.SeedSequence(seed, spawn_key=(*purpose, env)) for env in range(num_envs)]
        self._generators = [np.random.default_rng(sequence) for sequence in sequences]
        self._numbers = np.empty((num_envs, _BLOCK, width))
        self._next = np.full(num_envs, _BLOCK)

    def draw(self, env_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The next draw of each environment, float64 [B, width]; no id may occur twice."""
        if env_ids.size and not 0 <= env_ids.min() <= env_ids.max() < len(self._generators):
            raise ValueError(
                f"environment ids reach {env_ids.max()}, and the policy was made for "
                f"{len(self._generators)} environments; make it with as many as you play"
            )
        for env in env_ids[self._next[env_ids] == _BLOCK]:
            self._numbers[env] = self._generators[env].random(self._numbers.shape[1:])
            self._next[env] = 0
        drawn: NDArray[np.float64] = self._numbers[env_ids, self._next[env_ids]]
        self._next[env_ids] += 1
        return drawn


class RandomPolicy:
    """Uniform over the game's minimal actions."""

    def __init__(self, game: str, seed: int, num_envs: int) -> None:
        self._actions = np.array(minimal_actions(game), dtype=np.int64)
        self._streams = _Streams(seed, num_envs, width=1)

    def __call__(self, observations: NDArray[np.uint8], env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Actions int64 [B]; the observations are ignored."""
        return _picked(self._actions, self._streams.draw(env_ids)[:, 0])


class StickyRandomPolicy:
    """Random play that repeats its last action with probability ``repeat``.

    A drawn action lasts 1 / (1 - repeat) steps on average, so play reaches places that uniform play, which
    mostly jitters on the spot, does not.
    """

    def __init__(self, game: str, seed: int, num_envs: int, repeat: float = 0.8) -> None:
        if not 0.0 <= repeat < 1.0:
            raise ValueError(f"repeat is {repeat}; give a probability in [0, 1)")
        self._actions = np.array(minimal_actions(game), dtype=np.int64)
        self._streams = _Streams(seed, num_envs, width=2)
        self._repeat = repeat
        self._last = np.full(num_envs, -1, dtype=np.int64)

    def __call__(self, observations: NDArray[np.uint8], env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Actions int64 [B]; the observations are ignored."""
        keep, pick = self._streams.draw(env_ids).T
        last = self._last[env_ids]
        actions = np.where((keep < self._repeat) & (last >= 0), last, _picked(self._actions, pick))
        self._last[env_ids] = actions
        return actions


class EpsilonPolicy:
    """Another policy, with its action replaced by a random minimal one with probability ``epsilon``.

    The other policy may have the same seed, unless it is an `EpsilonPolicy` too.
    """

    def __init__(self, policy: Policy, game: str, seed: int, num_envs: int, epsilon: float) -> None:
        if not 0.0 <= epsilon <= 1.0:
            raise ValueError(f"epsilon is {epsilon}; give a probability in [0, 1]")
        self._policy = policy
        self._actions = np.array(minimal_actions(game), dtype=np.int64)
        self._streams = _Streams(seed, num_envs, width=2, purpose=(1,))  # not the wrapped policy's numbers
        self._epsilon = epsilon

    def __call__(self, observations: NDArray[np.uint8], env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Actions int64 [B]."""
        explore, pick = self._streams.draw(env_ids).T
        random = _picked(self._actions, pick)
        chosen = checked_actions(self._policy(observations, env_ids), len(env_ids))
        return np.where(explore < self._epsilon, random, chosen)


def _picked(actions: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """An action for each number in [0, 1), all equally likely."""
    return actions[(uniform * len(actions)).astype(np.int64)]


def checked_actions(actions: object, batch_size: int) -> NDArray[np.int64]:
    """A policy's answer as int64 [B].

    Raises:
        ValueError: the answer is not one of the 18 actions for each observation.
    """
    found = np.asarray(actions)
    if found.shape != (batch_size,) or found.dtype.kind not in "iu":
        raise ValueError(
            f"the policy returned {found.dtype} {found.shape}; return one integer for each of the "
            f"{batch_size} observations"
        )
    if not 0 <= found.min() <= found.max() < NUM_ACTIONS:
        raise ValueError(
            f"the policy returned actions from {found.min()} to {found.max()}; "
            f"return ids of the full action set, 0 to {NUM_ACTIONS - 1}"
        )
    return found.astype(np.int64, copy=False)

"""A second emulator that mirrors an environment, for the data that the environment does not return.

`AtariVectorEnv` returns neither RAM nor colour. A twin is a plain emulator with the same seed that takes the
same actions; pixels still come from the fast environment, so labelled data cannot look different. Rewards,
lives and frame counts are compared at every step: a twin that diverges raises an error instead of giving
wrong labels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atari_data.games import legal_actions, load_emulator, played_actions
from atari_data.playing import Tick
from atari_data.protocol import Protocol
from atari_data.shards import RAM_SIZE

_NOOP, _FIRE = 0, 1


class Twin:
    """A plain emulator that follows one environment."""

    def __init__(self, game: str, seed: int, protocol: Protocol) -> None:
        self.emulator = load_emulator(game, seed=seed, sticky=protocol.sticky)
        self._protocol = protocol
        self._actions = played_actions(game)
        self._fires = protocol.fire_reset and _FIRE in legal_actions(game)
        self._elapsed_frames = 0

    def reset(self, frame_number: int) -> None:
        """Start an episode, with no-ops until the environment's own frame count is reached."""
        self.emulator.reset_game()
        self._elapsed_frames = 0
        if self._fires:
            self.emulator.act(_FIRE)
        while self.emulator.getFrameNumber() < frame_number:
            self.emulator.act(_NOOP)
            if self.emulator.game_over():
                self.emulator.reset_game()

    def step(self, action: int) -> int:
        """Take one action for the protocol's number of frames, or until the end; returns the raw reward."""
        reward, action = 0, self._actions[action]
        for _ in range(self._protocol.frameskip):
            reward += self.emulator.act(action)
            self._elapsed_frames += 1
            if self.emulator.game_over() or self._elapsed_frames >= self._protocol.max_frames:
                break
        return reward


class Twins:
    """Twins of some environments, kept in step with the ticks of :func:`atari_data.playing.play`."""

    def __init__(
        self, game: str, seeds: NDArray[np.int64], protocol: Protocol, env_ids: Sequence[int] | None = None
    ) -> None:
        chosen = range(len(seeds)) if env_ids is None else env_ids
        self._twins = {env: Twin(game, int(seeds[env]), protocol) for env in chosen}
        self._next: dict[int, int | None] = {}  # the action each twin takes next; None means reset

    def release(self, env: int) -> None:
        """Stop following this environment."""
        self._twins.pop(env, None)

    def follow(self, tick: Tick) -> None:
        """Advance the twins of this tick's environments to the moment of its observations.

        Raises:
            RuntimeError: a twin and its environment disagree.
        """
        for i, env in enumerate(tick.env_ids.tolist()):
            if (twin := self._twins.get(env)) is None:
                continue
            action = self._next.get(env)
            if action is None:
                twin.reset(int(tick.frame_numbers[i]))
                reward = 0
            else:
                reward = twin.step(action)
            emulator = twin.emulator
            found = (reward, emulator.lives(), emulator.getFrameNumber())
            expected = (int(tick.rewards[i]), int(tick.lives[i]), int(tick.frame_numbers[i]))
            if found != expected:
                raise RuntimeError(
                    f"emulator twin {env} has (reward, lives, frame) {found} where the environment has "
                    f"{expected}; this is a bug, or a version of ale-py this package does not know"
                )
            self._next[env] = None if tick.over[i] else int(tick.actions[i])

    def ram(self, env_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """RAM of the given environments, uint8 [B, 128]."""
        ram = np.empty((len(env_ids), RAM_SIZE), dtype=np.uint8)
        for i, env in enumerate(env_ids.tolist()):
            self._twins[env].emulator.getRAM(ram[i])
        return ram

    def screen(self, env: int) -> NDArray[np.uint8]:
        """Colour screen of one environment, uint8 [210, 160, 3] in most games."""
        screen: NDArray[np.uint8] = self._twins[env].emulator.getScreenRGB()
        return screen

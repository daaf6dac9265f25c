"""Batches of short clips of several games, each a function of (seed, step)."""

from collections.abc import Callable

import numpy as np
import torch
from atari_data import FrameStore, window_starts
from cnn_encoder import ClipBatch
from numpy.typing import NDArray
from torch import Tensor

from wm.device import send


class ClipSampler:
    """Draws stretches of consecutive steps from training episodes, equally many per game, give or take one.

    Args:
        stores: frames by game.
        backgrounds: float32 (84, 84) by game.
        length: steps per stretch, T.
        batch_size: stretches per batch, S.
        seed: of the batches.
        validates: episode ids (N,) -> bool (N,), which rows are held out for validation.
        newest: by game, the first row of the newest play.
        newest_share: share of the stretches drawn from the newest play, the others from all play; if the
            newest has no training stretch, all are drawn from all play.
        device: where batches go.

    Raises:
        ValueError: a game has no episode of ``length`` steps.
    """

    def __init__(
        self,
        stores: dict[str, FrameStore],
        backgrounds: dict[str, Tensor],
        *,
        length: int,
        batch_size: int,
        seed: int,
        validates: Callable[[NDArray[np.integer]], NDArray[np.bool_]],
        device: torch.device,
        newest: dict[str, int] | None = None,
        newest_share: float = 0.0,
    ) -> None:
        self._stores = list(stores.values())
        self._backgrounds = torch.stack([backgrounds[game] for game in stores])
        self._length, self._batch_size, self._seed, self._device = length, batch_size, seed, device
        self._starts: list[np.ndarray] = []
        self._newest: list[np.ndarray] = []
        self._newest_share = newest_share if newest else 0.0
        for game, store in stores.items():
            starts = window_starts(store.episode_ids, length)
            starts = starts[~validates(store.episode_ids)[starts]]
            if not len(starts):
                raise ValueError(
                    f"{game} has no training episode of {length} steps; "
                    "lower windows.clip, or collect or import longer episodes"
                )
            self._starts.append(starts)
            recent = starts[starts >= newest[game]] if newest else starts
            self._newest.append(recent if len(recent) else starts)

    @property
    def num_clips(self) -> int:
        """Number of stretches that cover every training row about once."""
        return max(1, sum(map(len, self._starts)) // self._length)

    def batch(self, step: int) -> ClipBatch:
        """The batch of a step: S stretches with the three frames before each."""
        rng = np.random.default_rng([self._seed, step])
        number = len(self._stores)
        games = np.sort((np.arange(self._batch_size) + rng.integers(number)) % number)
        frames, actions, rewards = [], [], []
        for game in np.unique(games):
            count = int((games == game).sum())
            starts = rng.choice(self._starts[game], size=count)
            if self._newest_share:
                recent = rng.random(count) < self._newest_share
                starts = np.where(recent, rng.choice(self._newest[game], size=count), starts)
            store = self._stores[game]
            frames.append(store.clips(starts, self._length))
            rows = starts[:, None] + np.arange(self._length)
            actions.append(store.actions[rows])
            rewards.append(store.rewards[rows])
        return ClipBatch(
            frames=send(torch.from_numpy(np.concatenate(frames)), self._device),
            actions=send(torch.from_numpy(np.concatenate(actions).astype(np.int64)), self._device),
            rewards=send(torch.from_numpy(np.concatenate(rewards)), self._device),
            background=send(self._backgrounds[torch.from_numpy(games)], self._device),
        )

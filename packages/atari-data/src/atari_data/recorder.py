"""Turns the ticks of some environments into rows on disk, keeping a few rows of each in memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atari_data.playing import Tick
from atari_data.shards import COLUMNS, FRAME_SHAPE, FRAMES, ShardWriter

BLOCK = 64  # rows gathered per environment before they are written
_NEVER = np.iinfo(np.int64).max


class Recorder:
    """Records environments that tick together until each has taken its quota of actions.

    Every tick gives one row for every environment. A row is complete, and may be written, once the next tick
    has shown the result of its action.

    Attributes:
        episodes: (id, return, length in actions) of each episode that ended on its own.
        num_rows: rows of each environment, int64 [n], once it is done.
    """

    def __init__(
        self,
        writers: Sequence[ShardWriter],
        quotas: NDArray[np.int64],
        *,
        first_ids: NDArray[np.int64],
        id_stride: int,
        ram: bool,
    ) -> None:
        n = len(writers)
        self._writers = writers
        self._quotas = quotas
        self._ids = first_ids.copy()
        self._id_stride = id_stride
        self._rows = {FRAMES: np.empty((n, BLOCK + 1, *FRAME_SHAPE), dtype=np.uint8)}
        for name, (dtype, row) in COLUMNS.items():
            if ram or name != "ram":
                self._rows[name] = np.zeros((n, BLOCK + 1, *row), dtype=dtype)
        self._written = 0  # number of rows before the buffer's first
        self._filled = 0  # number of rows in the buffer
        self._taken = np.zeros(n, dtype=np.int64)
        self._returns = np.zeros(n)
        self._lengths = np.zeros(n, dtype=np.int64)
        self.num_rows = np.full(n, _NEVER)
        self.episodes: list[tuple[int, float, int]] = []

    @property
    def num_steps(self) -> int:
        """Actions taken so far by all environments."""
        return int(self._taken.sum())

    @property
    def done(self) -> bool:
        """True when every environment has taken its quota."""
        return bool((self.num_rows < _NEVER).all())

    def record(self, tick: Tick, ram: NDArray[np.uint8] | None) -> bool:
        """Add one row for every environment; returns whether rows were written to disk."""
        rows, row = self._rows, self._filled
        over, running = tick.over, self.num_rows == _NEVER
        quota_met = running & (self._taken == self._quotas)
        acting = running & ~over & ~quota_met
        if row > 0:  # results of the previous row's action; a row that met its quota is final and has none
            rows["rewards"][running, row - 1] = tick.rewards[running]
            rows["terminated"][running, row - 1] = tick.terminated[running]
            rows["truncated"][running, row - 1] = (tick.truncated | (quota_met & ~tick.terminated))[running]
        rows[FRAMES][:, row] = tick.observations[:, -1]
        rows["actions"][:, row] = np.where(acting, tick.actions, 0)
        rows["episode_ids"][:, row] = self._ids
        rows["lives"][:, row] = tick.lives
        for name in ("rewards", "terminated", "truncated"):
            rows[name][:, row] = 0
        if ram is not None:
            # A last observation repeats the picture before it, and so does its RAM.
            rows["ram"][:, row] = np.where(over[:, None], rows["ram"][:, row - 1], ram)
        self._filled += 1
        self.num_rows[quota_met] = self._written + self._filled
        self._taken += acting
        self._returns += tick.rewards
        self._lengths += acting
        for env in np.flatnonzero(running & over):
            self.episodes.append((int(self._ids[env]), float(self._returns[env]), int(self._lengths[env])))
            self._returns[env] = self._lengths[env] = 0
            self._ids[env] += self._id_stride
        if self.done:
            self._write(self._filled)
            return True
        if self._filled == BLOCK + 1:
            self._write(BLOCK)
            for column in rows.values():
                column[:, 0] = column[:, BLOCK]
            self._written += BLOCK
            self._filled = 1
            return True
        return False

    def _write(self, complete: int) -> None:
        kept = np.clip(self.num_rows - self._written, 0, complete)
        for env, writer in enumerate(self._writers):
            writer.append({name: column[env, : kept[env]] for name, column in self._rows.items()})

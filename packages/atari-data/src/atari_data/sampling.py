"""Batches over several games: every batch contains every game, and batch s is a function of (seed, s)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from atari_data._checks import whole


class MultiGameSampler:
    """Draws the window starts of a batch: a fixed number from each game, with replacement.

    Args:
        starts: for each game the rows at which windows may start, from :func:`window_starts`, int64 [n].
        batch_size: windows per batch, at least one per game.
        seed: 0 or more.
        weights: share of each game in a batch, equal when None; they need not sum to one.
    """

    def __init__(
        self,
        starts: Mapping[str, NDArray[np.int64]],
        *,
        batch_size: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if not starts:
            raise ValueError("starts holds no game; give at least one")
        for game, rows in starts.items():
            if np.ndim(rows) != 1 or np.asarray(rows).dtype.kind not in "iu":
                raise ValueError(
                    f"starts of {game} are {np.asarray(rows).dtype} of shape {np.shape(rows)}; give row "
                    "numbers, integers of shape (n,), as window_starts does"
                )
        seed = whole("seed", seed, least=0)
        if empty := [game for game, rows in starts.items() if len(rows) == 0]:
            raise ValueError(f"no window fits into the episodes of {', '.join(empty)}; use shorter windows")
        batch_size = whole("batch_size", batch_size)
        if batch_size < len(starts):
            raise ValueError(
                f"batch_size is {batch_size} for {len(starts)} games; a batch holds a window of each at least"
            )
        weights = dict.fromkeys(starts, 1.0) if weights is None else weights
        if set(weights) != set(starts) or not all(0 < weight < np.inf for weight in weights.values()):
            raise ValueError(
                f"weights are {dict(weights)} for the games {', '.join(starts)}; give each a positive one"
            )
        games = sorted(starts)  # a batch must not depend on the order in which they were given
        self._starts = {game: np.asarray(starts[game]) for game in games}
        self._seed = seed
        counts = _apportion([weights[game] for game in games], batch_size, games)
        self.counts = {game: counts[game] for game in starts}

    def batch(self, step: int) -> dict[str, NDArray[np.int64]]:
        """Window starts of batch ``step``, by game: int64 [that game's count]."""
        rng = np.random.default_rng([self._seed, whole("step", step, least=0)])
        return {
            game: rows[rng.integers(len(rows), size=self.counts[game])] for game, rows in self._starts.items()
        }


def _apportion(weights: list[float], total: int, names: list[str]) -> dict[str, int]:
    """Whole counts closest to the weights (largest-remainder method), at least one for each name."""
    spare = total - len(names)
    relative = np.array(weights) / max(weights)  # so that the sum stays finite
    exact = relative / relative.sum() * total
    above = np.maximum(exact - 1, 0)
    shares = above / above.sum() * spare if spare else np.zeros(len(names))
    counts = np.floor(shares).astype(int)
    by_remainder = np.argsort(-(shares - counts), kind="stable")
    counts[by_remainder[: spare - counts.sum()]] += 1
    return {name: int(count) + 1 for name, count in zip(names, counts, strict=True)}

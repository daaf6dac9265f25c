"""One number for many games: mean, median and interquartile mean with stratified bootstrap intervals.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(https://arxiv.org/abs/2108.13264), with the formulas of its library, rliable.
"""

from collections.abc import Mapping, Sequence

import numpy as np

METRICS = ("mean", "median", "iqm")
RESAMPLES = 10_000
SEED = 0


def aggregate(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Point estimates of normalised scores, given as one list over seeds per game.

    ``mean`` and ``median`` are taken over games, of each game's mean over seeds; ``iqm`` is the mean of the
    middle half of all runs, with a quarter of them (rounded down) cut off at either end.
    """
    values, sizes = _joined(scores)
    return {name: float(value[0]) for name, value in _estimates(values[None], sizes).items()}


def bootstrap(
    scores: Mapping[str, Sequence[float]], *, confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of :func:`aggregate`: seeds are resampled within each game, games are fixed.

    With one seed per game nothing varies, and each interval is a point.
    """
    values, sizes = _joined(scores)
    rng = np.random.default_rng(SEED)
    offsets = np.cumsum([0, *sizes[:-1]])
    rows = [
        offset + rng.integers(size, size=(RESAMPLES, size))
        for offset, size in zip(offsets, sizes, strict=True)
    ]
    estimates = _estimates(values[np.concatenate(rows, 1)], sizes)
    tail = (1 - confidence) / 2
    intervals = {}
    for name, found in estimates.items():
        low, high = np.quantile(found, [tail, 1 - tail])
        intervals[name] = (float(low), float(high))
    return intervals


def _joined(scores: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, list[int]]:
    """All runs side by side, game by game, and how many each game has."""
    sizes = [len(of_game) for of_game in scores.values()]
    if not sizes or min(sizes) == 0:
        raise ValueError(
            "there are no scores to aggregate; give at least one game, each with at least one seed"
        )
    return np.concatenate([np.asarray(of_game, np.float64) for of_game in scores.values()]), sizes


def _estimates(values: np.ndarray, sizes: list[int]) -> dict[str, np.ndarray]:
    """Each metric, for each row of values (R, runs of all games)."""
    edges = np.cumsum(sizes)[:-1]
    means = np.stack([part.mean(1) for part in np.split(values, edges, axis=1)], 1)
    cut = values.shape[1] // 4
    middle = np.sort(values, 1)[:, cut : values.shape[1] - cut]
    return {"mean": means.mean(1), "median": np.median(means, 1), "iqm": middle.mean(1)}

"""Statistics of returns: bootstrap intervals."""

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979). values: float (N,).

    With few values it is too narrow: with 5 normal ones it contains the true mean in 8 of 10 cases, with 10
    in 9.
    """
    rng = np.random.default_rng(SEED)
    blocks = (rng.choice(values, size=(RESAMPLES // 100, len(values))).mean(1) for _ in range(100))
    means = np.concatenate(list(blocks))  # same as all at once, which takes 80 kB per value
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def summarize(returns: np.ndarray) -> dict[str, object]:
    """Mean, median, standard deviation, 95 % interval of the mean, and the returns themselves."""
    low, high = bootstrap_interval(returns)
    return {
        "mean": float(returns.mean()),
        "median": float(np.median(returns)),
        "std": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        "interval": [low, high],
        "returns": returns.tolist(),
    }

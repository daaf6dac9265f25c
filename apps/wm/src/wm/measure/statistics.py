"""Numbers about returns: bootstrap intervals."""

import numpy as np


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979). values: float (N,)."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, size=(resamples, len(values))).mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
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

"""Checks shared by the configurations; errors give the name, the value and what is allowed."""

import math
from numbers import Integral, Real
from typing import Any

LARGEST_LIMIT = 80.0  # of two-hot bins, in symlog units; e^80 is near the end of float32


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise a ValueError that names the setting, its value and what to give instead."""
    if not condition:
        raise ValueError(f"{name} is {value!r}; give {allowed}")


def number(value: Any) -> float:
    """The value as a float; NaN, which is in no range, if it is not a number."""
    return float(value) if isinstance(value, Real) else math.nan


def whole(value: Any, least: int) -> bool:
    """Whether this is a whole number of at least ``least``; True is not 1 here."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless ``value`` is one of ``choices``."""
    require(value in choices, name, value, "one of " + ", ".join(map(repr, choices)))


def require_counts(config: Any, *names: str) -> None:
    """Raise a ValueError unless these settings are whole numbers of at least 1; then keep them as ``int``.

    JSON does not accept NumPy's integers, such as gymnasium's ``env.action_space.n``.
    """
    for name in names:
        value = getattr(config, name)
        require(whole(value, 1), name, value, "a whole number of at least 1")
        object.__setattr__(config, name, int(value))


def require_bins(num_bins: int, limit: float) -> None:
    """Check the bins of a two-hot head."""
    odd = whole(num_bins, 3) and int(num_bins) % 2 == 1
    require(odd, "num_bins", num_bins, "an odd number >= 3")
    require(0 < number(limit) <= LARGEST_LIMIT, "limit", limit, f"a number above 0, at most {LARGEST_LIMIT}")


def require_network(config: Any) -> None:
    """Turn JSON's lists of widths back into tuples, then check the sizes that all networks here have."""
    for name in ("hidden", "feature_blocks"):
        widths = getattr(config, name)
        listed = isinstance(widths, tuple | list) and all(whole(width, 1) for width in widths)
        require(listed, name, widths, "a tuple of whole widths of at least 1")
        object.__setattr__(config, name, tuple(int(width) for width in widths))
    require_counts(config, "feature_dim")
    require(
        not config.feature_blocks or sum(config.feature_blocks) == config.feature_dim,
        "feature_blocks",
        config.feature_blocks,
        f"() or positive widths that sum to feature_dim={config.feature_dim}",
    )

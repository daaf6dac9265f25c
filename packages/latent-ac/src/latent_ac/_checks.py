"""Checks shared by the configurations: one sentence with the name, the value and what is allowed."""

from typing import Any

from latent_ac.two_hot import LARGEST_LIMIT


def require(condition: bool, name: str, value: Any, allowed: str) -> None:
    """Raise a ValueError that names the setting, its value and what to give instead."""
    if not condition:
        raise ValueError(f"{name}={value!r} is not allowed; give {allowed}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError unless ``value`` is one of ``choices``."""
    require(value in choices, name, value, "one of " + ", ".join(map(repr, choices)))


def require_count(name: str, value: int) -> None:
    """Raise a ValueError unless ``value`` is a whole number of at least 1."""
    require(isinstance(value, int) and value >= 1, name, value, "a whole number of at least 1")


def require_bins(num_bins: int, limit: float) -> None:
    """Check the bins of a two-hot head."""
    require(num_bins >= 3 and num_bins % 2 == 1, "num_bins", num_bins, "an odd number >= 3")
    require(0 < limit <= LARGEST_LIMIT, "limit", limit, f"a number above 0, at most {LARGEST_LIMIT}")


def require_network(feature_dim: int, hidden: tuple[int, ...], feature_blocks: tuple[int, ...]) -> None:
    """Check the sizes every network of the package has."""
    require_count("feature_dim", feature_dim)
    widths = all(isinstance(width, int) and width >= 1 for width in hidden)
    require(widths, "hidden", hidden, "a tuple of whole widths of at least 1")
    require(
        not feature_blocks or (sum(feature_blocks) == feature_dim and min(feature_blocks) >= 1),
        "feature_blocks",
        feature_blocks,
        f"() or positive widths that sum to feature_dim={feature_dim}",
    )

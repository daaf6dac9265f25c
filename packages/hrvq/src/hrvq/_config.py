"""The configuration that a quantizer is built from, checked once."""

from dataclasses import dataclass
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any, Literal, TypeGuard, get_args

import numpy as np

Gradient = Literal["straight_through", "rotation"]
Distance = Literal["euclidean", "cosine"]

MOST_LEVELS = 1000  # a number of levels that no quantizer has, low enough to hold settings for each


def plain(value: Any) -> Any:
    """NumPy integers, such as those of a shape read from a file, as ``int``, which JSON accepts."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def whole(value: object, least: int = 1) -> bool:
    """Whether it is a whole number of at least ``least``, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def finite(value: object) -> TypeGuard[float]:
    """Whether it is a number, not a bool, and neither NaN nor infinite."""
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def within(value: object, least: float, *, below: float = inf) -> bool:
    """Whether it is a finite number of at least ``least`` and less than ``below``."""
    return finite(value) and least <= value < below


@dataclass(frozen=True, kw_only=True, slots=True)
class HRVQConfig:
    """Shape and training of an :class:`HRVQ`; with one level it is a plain VQ.

    Attributes:
        dim: length of the vectors; the only setting without a default.
        levels: residual levels, coarse to fine.
        codes: number of codes of each level; a single number holds for all levels.
        decay: of the exponential moving averages that update the codes (0.95: about the last 20 updates).
            Larger batches allow a smaller one; with 0.99 the codes lose track of a fast-changing embedding.
        commitment_weights: weight of each level's commitment loss; a single number holds for all levels (0.25
            as in van den Oord et al. 2017). They affect whatever the input's gradient reaches, never the
            codes.
        smoothing: Laplace smoothing of the code counts, so that an unused code has a finite mean. Without
            revival that mean shrinks to zero, as in van den Oord et al. 2017; with smoothing 0 it stays as it
            is.
        revive_below: a code whose average count falls below this share of the mean count is moved onto a
            random vector of the current batch; 0 turns revival off, in ``fit`` too unless told otherwise. It
            must be below 0.5, the share with which a moved code starts, or that code would be moved again
            forever.
        kmeans_iterations: Lloyd iterations of the k-means start.
        gradient: how the gradient passes through it, "straight_through" or "rotation"
            (Fifty et al. 2024, https://arxiv.org/abs/2410.06424).
        distance: "euclidean", or "cosine": vectors are scaled to unit length first, level 0's codes lie
            on the unit sphere, and deeper levels quantize what remains.
        level_dropout: probability that, in training mode, a vector keeps only its first levels, their number
            drawn uniformly from 1 to ``levels`` - 1, independently for each vector.
        joint: ``update`` moves each level's codes towards what all *other* levels leave instead of what those
            before it leave (joint codebook design; Chan, Gupta & Gersho, IEEE Transactions on Communications
            40(11), 1992, here by moving averages). The sum of all levels then loses less, the first levels
            alone lose more. With "cosine" level 0 still follows the vectors themselves.
        seed: for the k-means start and for revival; both are functions of it, the step and the data.
    """

    dim: int
    levels: int = 3
    codes: int | tuple[int, ...] = 256
    decay: float = 0.95
    commitment_weights: float | tuple[float, ...] = 0.25
    smoothing: float = 1e-5
    revive_below: float = 0.1
    kmeans_iterations: int = 10
    gradient: Gradient = "straight_through"
    distance: Distance = "euclidean"
    level_dropout: float = 0.0
    joint: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "levels", "codes", "kmeans_iterations", "seed"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        for name in ("dim", "levels"):
            self._require(name, whole(getattr(self, name)), "a whole number of at least 1")
        self._require("levels", self.levels <= MOST_LEVELS, f"at most {MOST_LEVELS}")
        for name in ("codes", "commitment_weights"):
            self._settle_per_level(name)
        self._require("codes", all(map(whole, self.codes_per_level)), "whole numbers of at least 1")
        weighs = all(within(weight, 0) for weight in self.weight_per_level)
        self._require("commitment_weights", weighs, "finite numbers of at least 0")
        self._require("decay", within(self.decay, 0, below=1), "a number from 0 to below 1, such as 0.95")
        self._require("smoothing", within(self.smoothing, 0), "a small number such as 1e-5")
        revives = within(self.revive_below, 0, below=0.5)
        self._require("revive_below", revives, "a share from 0 (off) to below 0.5")
        self._require("kmeans_iterations", whole(self.kmeans_iterations, 0), "a whole number of at least 0")
        for name, allowed in (("gradient", get_args(Gradient)), ("distance", get_args(Distance))):
            self._require(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        drops = within(self.level_dropout, 0) and self.level_dropout <= 1
        self._require("level_dropout", drops, "a probability from 0 to 1")
        self._require("joint", isinstance(self.joint, bool), "true or false")
        self._require("seed", whole(self.seed, 0), "a whole number of at least 0")

    def _require(self, name: str, fits: bool, allowed: str) -> None:
        if not fits:
            raise ValueError(f"{name} is {getattr(self, name)!r}; give {allowed}")

    def _settle_per_level(self, name: str) -> None:
        """Turn several values, one for each level, into a tuple, whatever sequence they came in."""
        given = getattr(self, name)
        if isinstance(given, np.ndarray):
            given = given.tolist()
        if isinstance(given, list | tuple):  # a list is what JSON and TOML make of a tuple
            given = tuple(map(plain, given))
            if len(given) != self.levels:
                raise ValueError(
                    f"{name} has {len(given)} entries for {self.levels} levels; give one for each, or one "
                    "number for all"
                )
        object.__setattr__(self, name, given)

    @property
    def codes_per_level(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return self.codes if isinstance(self.codes, tuple) else (self.codes,) * self.levels

    @property
    def weight_per_level(self) -> tuple[float, ...]:
        """Commitment weight of each level."""
        weights = self.commitment_weights
        return weights if isinstance(weights, tuple) else (weights,) * self.levels

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HRVQConfig":
        """Build a config from plain values, as read from JSON or TOML; unknown keys are a ValueError."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown keys {unknown}; allowed are {sorted(cls.__dataclass_fields__)}")
        if "dim" not in values:
            raise ValueError("dim is missing; give the length of the vectors")
        return cls(**values)


def spherical(config: HRVQConfig, level: int) -> bool:
    """Whether the codes of a level are directions: those of level 0 with cosine distance."""
    return level == 0 and config.distance == "cosine"

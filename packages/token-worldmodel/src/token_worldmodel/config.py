"""The configuration of the world model."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

Mask = Literal["hierarchical", "causal"]
Detail = Literal["none", "last", "past"]
Position = Literal["token", "step"]

_WEIGHTS = {0: 1.0, 1: 0.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldModelConfig:
    """Configuration of a `WorldModel`; the defaults are the reference model of 11 million parameters.

    A step of play is ``num_levels + 1`` slots: its tokens from coarse (L0) to fine, then the action.
    """

    num_levels: int = 3
    """Tokens per step, L."""
    num_codes: int | tuple[int, ...] = 256
    """Codes per level: one number for all levels, or one for each."""
    code_dim: int = 0
    """Width of the vectors that the tokens stand for, if the model is to read these too, as a quantizer's sum
    of codes (`WorldModel.set_codebooks`); 0 if tokens are names to it and nothing more."""
    num_actions: int = 18
    """Actions to choose among; 18 is ALE's full set."""
    max_steps: int = 64
    """Longest window, in steps; a dream's context and horizon together must fit in it."""
    dim: int = 384
    """Width of the transformer."""
    num_layers: int = 6
    """Transformer blocks."""
    num_heads: int = 6
    """Attention heads per block; must divide ``dim``."""
    ffn_dim: int = 1536
    """Hidden width of each block's feed-forward network."""
    dropout: float = 0.0
    """Applied to the embedding and to each residual branch."""
    token_noise: float = 0.0
    """Mean share of the input tokens that are replaced at random in training; targets are not. In a dream the
    model reads its own mistakes, and should have seen some before (`model.add_noise`)."""
    position: Position = "token"
    """What the transformer has a position for. ``token``: each token and each action. ``step``: a whole step,
    whose tokens a chain of small networks predicts from coarse to fine (`ChainLink`); it trains and dreams
    several times as fast, and ``mask`` and ``detail`` have no effect."""
    mask: Mask = "hierarchical"
    """``causal``: every position sees all before it. ``hierarchical``: likewise, except that the finer tokens
    of a step never see the finer tokens of earlier steps."""
    detail: Detail = "last"
    """Under the hierarchical mask, which earlier steps' finer tokens L0 and the action see: all (``past``),
    those of the step just before (``last``), or none (``none``), in which case only the earlier actions pass
    them on. A dream need not keep what nothing sees: ``last`` and ``none`` halve its cache."""
    loss_weights: tuple[float, ...] = ()
    """Weight of each level's cross-entropy, coarse to fine. A single weight holds for all levels; none means
    1.0, 0.5, and 0.1 for all further levels."""

    def __post_init__(self) -> None:
        """Turn JSON's lists back into tuples and fill in the weights, then check every value."""
        if not isinstance(self.loss_weights, tuple | list):
            raise ValueError(f"loss_weights is {self.loss_weights!r}; give a tuple of one per level")
        object.__setattr__(self, "loss_weights", tuple(self.loss_weights))
        codes: Any = self.num_codes
        plain = tuple(map(_plain, codes)) if isinstance(codes, tuple | list) else _plain(codes)
        object.__setattr__(self, "num_codes", plain)
        for name in ("num_levels", "num_actions", "max_steps", "dim", "num_layers", "num_heads", "ffn_dim"):
            value = _plain(getattr(self, name))
            if not whole(value):
                raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
            object.__setattr__(self, name, value)
        if isinstance(self.code_dim, bool) or not whole(self.code_dim, least=0):
            raise ValueError(
                f"code_dim is {self.code_dim!r}; give the width of the codes' vectors, or 0 to read none"
            )
        object.__setattr__(self, "code_dim", int(self.code_dim))
        if not self.loss_weights:
            weights = tuple(_WEIGHTS.get(level, 0.1) for level in range(self.num_levels))
            object.__setattr__(self, "loss_weights", weights)
        if len(self.loss_weights) == 1:
            object.__setattr__(self, "loss_weights", self.loss_weights * self.num_levels)
        if len(self.codes) != self.num_levels or not all(whole(codes, least=2) for codes in self.codes):
            raise ValueError(
                f"num_codes is {self.num_codes!r}; give one whole number of at least 2, "
                f"or {self.num_levels} of them, one per level"
            )
        if self.dim % self.num_heads:
            raise ValueError(f"dim is {self.dim}; give a multiple of num_heads, {self.num_heads}")
        if not 0.0 <= _number(self.dropout) < 1.0:
            raise ValueError(f"dropout is {self.dropout!r}; give a rate from 0 to below 1")
        if not 0.0 <= _number(self.token_noise) <= 0.5:
            raise ValueError(f"token_noise is {self.token_noise!r}; give a share from 0 to 0.5")
        for name, choices in (("position", Position), ("mask", Mask), ("detail", Detail)):
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {allowed}")
        counted = all(0 <= _number(weight) < math.inf for weight in self.loss_weights)
        if len(self.loss_weights) != self.num_levels or not counted or not any(self.loss_weights):
            raise ValueError(
                f"loss_weights is {self.loss_weights}; give {self.num_levels} of at least 0, "
                "one per level, not all 0"
            )

    @property
    def codes(self) -> tuple[int, ...]:
        """Number of codes of each level, coarse to fine."""
        return self.num_codes if isinstance(self.num_codes, tuple) else (self.num_codes,) * self.num_levels

    @property
    def step_size(self) -> int:
        """Positions of one step: its tokens and its action, or one for all of them."""
        return 1 if self.position == "step" else self.num_levels + 1


def whole(value: Any, *, least: int = 1) -> bool:
    """Whether a value is a whole number, Python's or NumPy's, of at least ``least``."""
    return isinstance(value, Integral) and int(value) >= least


def _plain(value: Any) -> Any:
    """A NumPy integer, such as gymnasium's ``env.action_space.n``, as an ``int``, which JSON accepts."""
    return int(value) if isinstance(value, Integral) else value


def _number(value: Any) -> float:
    """The value as a float; NaN, which is in no range, if it is not a number."""
    return float(value) if isinstance(value, Real) else math.nan

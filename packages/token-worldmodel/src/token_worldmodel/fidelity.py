"""How long a dream stays true: the same actions in the dream and in the real game, compared step by step.

A recording holds what the game did under those actions, so real windows are the reference. Every number comes
with that of copying the last real step, a baseline that ignores the actions.

Shape legend: B windows, C context steps, H horizon, L levels, F values of a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .imagine import Dream, Policy, imagine
from .model import WorldModel


@dataclass(frozen=True, slots=True)
class TokenFidelity:
    """Agreement of dreamed tokens with real ones; row h - 1 is horizon h."""

    agreement: Tensor  # float32 (H, L): fraction of equal tokens
    copy_agreement: Tensor  # float32 (H, L): the same for copying the last real step
    changed_agreement: Tensor  # float32 (H, L): where the real token differs from that step; NaN if nowhere
    useful_horizon: tuple[int, ...]  # per level: horizons that beat copying, up to the first that does not


@dataclass(frozen=True, slots=True)
class ValueFidelity:
    """Mean absolute error of values read from a dream (rewards, probes); row h - 1 is horizon h."""

    error: Tensor  # float32 (H, F)
    copy_error: Tensor  # float32 (H, F): the same for copying the values of the last real step
    useful_horizon: tuple[int, ...]  # per value: horizons that beat copying, up to the first that does not


@dataclass(frozen=True, slots=True)
class EventFidelity:
    """Whether an event that happened at any step of the horizon happens in the dream as well."""

    happened: int  # windows in which it really happened
    recall: float  # share of those whose dream has it too; NaN if there are none
    dreamed: float  # share of all dreams that have it: the recall expected by chance
    precision: float  # share of the dreams with it in whose window it happened; NaN if there are none


def replay(
    model: WorldModel,
    tokens: Tensor,
    actions: Tensor,
    context: int,
    *,
    generator: torch.Generator | None,
    temperature: float | Sequence[float] = 1.0,
    dtype: torch.dtype | None = None,
) -> Dream:
    """Continue the first ``context`` steps of real windows as dreams, with the actions really played.

    Args:
        model: as in `imagine`, as are the keyword arguments.
        tokens: int64 (B, C + H, L), as `TokenBatch.tokens`.
        actions: int64 (B, C + H), as `TokenBatch.actions`; the last is not played.
        context: steps the dream begins with, C.

    Returns:
        A dream of H steps; its tokens compare with ``tokens[:, context - 1:]``.

    Raises:
        ValueError: a context that leaves nothing to dream, or whatever `imagine` rejects.
    """
    if tokens.ndim != 3 or actions.shape != tokens.shape[:2] or not 1 <= context < tokens.shape[1]:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}, actions {tuple(actions.shape)}, context is {context}; "
            "give (B, T, L) and (B, T), and a context of 1 to T - 1"
        )
    played = replay_policy(actions[:, context - 1 : -1])
    return imagine(
        model,
        tokens[:, :context],
        actions[:, : context - 1],
        played,
        tokens.shape[1] - context,
        generator=generator,
        temperature=temperature,
        dtype=dtype,
    )


def replay_policy(actions: Tensor) -> Policy:
    """A policy that plays the columns of actions (B, H) once, one after the other, whatever it sees.

    It raises ValueError when they are used up.
    """
    columns = iter(actions.unbind(1))

    def policy(tokens: Tensor, state: Tensor) -> Tensor:
        column = next(columns, None)
        if column is None:
            raise ValueError(
                f"all {actions.shape[1]} actions are played; dream no further, and make another policy"
            )
        return column

    return policy


def token_fidelity(dreamed: Tensor, real: Tensor) -> TokenFidelity:
    """Compare dreamed with real tokens, both int64 (B, H + 1, L); index 0 is the last real step of both.

    Raises:
        ValueError: different shapes, nothing dreamed, or different tokens at index 0.
    """
    if dreamed.shape != real.shape or real.ndim != 3 or real.shape[1] < 2 or not len(real):
        raise ValueError(
            f"dreamed has shape {tuple(dreamed.shape)}, real {tuple(real.shape)}; "
            "give both as (B, H + 1, L), B and H at least 1"
        )
    if not torch.equal(dreamed[:, 0], real[:, 0]):
        raise ValueError("dreamed and real differ at index 0; both must begin with the last real step")
    equal = dreamed[:, 1:] == real[:, 1:]
    stayed = real[:, :1] == real[:, 1:]
    agreement, copy_agreement = equal.float().mean(0), stayed.float().mean(0)
    return TokenFidelity(
        agreement=agreement,
        copy_agreement=copy_agreement,
        changed_agreement=(equal & ~stayed).sum(0) / (~stayed).sum(0),
        useful_horizon=useful_horizon(agreement > copy_agreement),
    )


def value_fidelity(dreamed: Tensor, real: Tensor, last: Tensor) -> ValueFidelity:
    """Compare values read from a dream with the real ones.

    Args:
        dreamed: (B, H, F), such as rewards, continuation, or a probe's reading of the dreamed state.
        real: (B, H, F), the same values as they really were.
        last: (B, F), the real values at the last step before the dream.

    Raises:
        ValueError: shapes that do not fit together, or nothing to compare.
    """
    fits = dreamed.ndim == 3 and dreamed.shape == real.shape and last.shape == (len(real), real.shape[-1])
    if not fits or not real.numel():
        raise ValueError(
            f"dreamed has shape {tuple(dreamed.shape)}, real {tuple(real.shape)}, last {tuple(last.shape)}; "
            "give (B, H, F) twice and (B, F), each at least 1"
        )
    error = (dreamed.float() - real.float()).abs().mean(0)
    copy_error = (last[:, None].float() - real.float()).abs().mean(0)
    return ValueFidelity(error, copy_error, useful_horizon(error < copy_error))


def event_fidelity(dreamed: Tensor, real: Tensor) -> EventFidelity:
    """Compare in which dreams, and in which windows they replay, an event such as a lost point happens.

    Args:
        dreamed: bool (B, H), whether it happens at each dreamed step.
        real: bool (B, H), whether it really did.

    Raises:
        ValueError: different shapes, another dtype, or nothing to compare.
    """
    if dreamed.shape != real.shape or real.ndim != 2 or not real.numel():
        raise ValueError(
            f"dreamed has shape {tuple(dreamed.shape)}, real {tuple(real.shape)}; "
            "give both as (B, H), each at least 1"
        )
    if dreamed.dtype != torch.bool or real.dtype != torch.bool:
        raise ValueError(f"dreamed is {dreamed.dtype}, real {real.dtype}; give both as bool")
    ours, theirs = dreamed.any(1), real.any(1)
    return EventFidelity(
        happened=int(theirs.sum()),
        recall=float(ours[theirs].float().mean()),
        dreamed=float(ours.float().mean()),
        precision=float(theirs[ours].float().mean()),
    )


def useful_horizon(better: Tensor) -> tuple[int, ...]:
    """How many horizons beat copying before the first that does not, for each column of bool (H, F)."""
    return tuple(better.long().cumprod(0).sum(0).tolist())

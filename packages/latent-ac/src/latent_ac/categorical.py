"""A categorical policy over masked logits: log-probability, entropy and sampling, safe where logits are -inf.

A disallowed action has logit -inf: its probability is exactly 0, and no value or gradient below is NaN.
"""

import math
import operator
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from latent_ac._checks import number, require


def action_mask(actions: Iterable[int], num_actions: int = 18) -> Tensor:
    """Mask of the allowed actions, bool (num_actions,), from their ids.

    Raises:
        ValueError: no action is allowed, an id is outside 0..num_actions-1, or a mask is given instead.
    """
    if not isinstance(actions, Iterable):
        raise ValueError(f"actions are {actions!r}; give a list of ids, one or more")
    given = list(actions)
    if any(map(_is_truth_value, given)):  # they would pass for the ids 0 and 1
        raise ValueError("actions are truth values, so a mask already; use it as a bool tensor, or give ids")
    try:
        ids = sorted({operator.index(action) for action in given})  # also elements of an array or tensor
    except TypeError as error:
        raise ValueError(f"actions are {given!r}; give whole numbers") from error
    require(
        bool(ids) and ids[0] >= 0 and ids[-1] < num_actions,
        "actions",
        ids,
        f"one or more ids from 0 to {num_actions - 1}",
    )
    mask = torch.zeros(num_actions, dtype=torch.bool)
    mask[ids] = True
    return mask


def _is_truth_value(action: object) -> bool:
    return action.dtype == torch.bool if isinstance(action, Tensor) else isinstance(action, bool | np.bool_)


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits (..., A) in float32 with -inf where ``mask``, bool (A,) or broadcastable to (..., A), is false.

    Raises:
        ValueError: the mask is not bool or does not fit the logits, or a row of it allows no action. The
            last is checked on a CPU only; on an accelerator it gives NaN.
    """
    states, actions = logits.shape[:-1], logits.shape[-1]
    # With one more dimension, the mask would make every state choose as many times as there are masks.
    fits = mask.ndim <= logits.ndim and all(
        rows in (1, of) for rows, of in zip(mask.shape[:-1][::-1], states[::-1], strict=False)
    )
    if mask.dtype != torch.bool or mask.shape[-1:] != (actions,) or not fits:
        raise ValueError(
            f"action_mask is {mask.dtype} of shape {tuple(mask.shape)} for {actions} actions in states "
            f"{tuple(states)}; give a bool tensor whose last dimension is {actions}, true where an action is "
            "allowed, for all states or one for each"
        )
    look = mask.device.type == "cpu" and not torch.compiler.is_compiling()
    if look and not bool(mask.any(-1).all()):
        raise ValueError(
            f"action_mask of shape {tuple(mask.shape)} has a row without any action; allow one in every row"
        )
    return logits.float().masked_fill(~mask, -torch.inf)


def log_prob(logits: Tensor, actions: Tensor) -> Tensor:
    """log pi(a|s) of ``actions``, int64 (...), under ``logits`` (..., A); -inf for a disallowed action.

    Raises:
        ValueError: there is not one action for each row of logits.
    """
    _check_actions(logits, actions)
    chosen = logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """H(pi) = -sum_a pi(a) log pi(a) in nats, (..., A) -> (...), with 0 log 0 = 0."""
    return _entropy(logits.log_softmax(-1))


def log_prob_and_entropy(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """``log_prob`` and ``entropy`` from one softmax; the two (...) tensors that a policy loss needs."""
    _check_actions(logits, actions)
    log_probs = logits.log_softmax(-1)
    chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    return chosen, _entropy(log_probs)


def _entropy(log_probs: Tensor) -> Tensor:
    # 0 * -inf is NaN, in the value and again in the gradient, so the -inf goes before the product.
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0.0)).sum(-1)


def sample(logits: Tensor, *, generator: torch.Generator | None, temperature: float = 1.0) -> Tensor:
    """Actions, int64 (...), drawn from softmax(logits / temperature) by the Gumbel-max rule.

    argmax_a (logits_a / temperature + g_a) with g_a ~ Gumbel(0, 1) is an exact draw (Gumbel, 1954; Maddison
    et al., 2014) and, unlike ``torch.multinomial``, needs no synchronisation with an accelerator. At
    temperature 0 nothing is drawn: the most probable action is taken, with ties going to the lowest id.

    Raises:
        ValueError: the temperature is neither 0 nor a finite number of at least 1e-6.
    """
    require(
        number(temperature) == 0 or 1e-6 <= number(temperature) < math.inf,
        "temperature",
        temperature,
        "0 for the greedy choice, or a finite number of at least 1e-6",
    )
    if temperature == 0:
        return logits.argmax(-1)
    noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=generator)
    gumbel = noise.clamp_min_(torch.finfo(torch.float32).tiny).log_().neg_()
    return (logits / temperature + gumbel).argmax(-1)


def _check_actions(logits: Tensor, actions: Tensor) -> None:
    """Raise ValueError unless there is one action per row: gather accepts fewer, and they would broadcast."""
    if actions.shape != logits.shape[:-1]:
        raise ValueError(
            f"actions {tuple(actions.shape)} do not fit logits {tuple(logits.shape)}; give (...) and (..., A)"
        )

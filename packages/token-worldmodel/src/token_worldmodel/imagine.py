"""Dreaming: continuing real contexts inside the world model.

Shape legend: B dreams, C context steps, H horizon, L levels, D width.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .cached import reader_for
from .model import WorldModel, check_range, check_window, for_inference

Policy = Callable[[Tensor, Tensor], Tensor]
"""(tokens int64 (B, L), state float32 (B, D)) -> actions int64 (B,)."""


@dataclass(frozen=True, slots=True)
class Dream:
    """Imagined trajectories; index 0 is the last real step, ``actions[:, h]`` leads from step h to h + 1.

    Attributes:
        tokens: int64 (B, H + 1, L).
        actions: int64 (B, H).
        states: float32 (B, H + 1, D), `WorldModelOutput.state`: known at each step before its action.
        log_probs: float32 (B, H, L), of ``tokens[:, 1:]`` under the model, at temperature 1; -inf where a
            high temperature drew a code whose probability is 0 in float32.
    """

    tokens: Tensor
    actions: Tensor
    states: Tensor
    log_probs: Tensor


@torch.no_grad()
def imagine(
    model: WorldModel,
    tokens: Tensor,
    actions: Tensor,
    policy: Policy,
    horizon: int,
    *,
    generator: torch.Generator | None,
    temperature: float | Sequence[float] = 1.0,
    dtype: torch.dtype | None = None,
) -> Dream:
    """Dream ``horizon`` steps from each context, with the policy choosing the actions.

    Every position is computed once, and what no later position reads is not kept. A step takes L passes:
    one for each level but the finest, and one for the finest token and the action together; where a step is
    one position, it takes one.

    Args:
        model: not changed; dropout is off in a dream.
        tokens: int64 (B, C, L), the contexts, oldest step first. Context and horizon together are at most
            ``max_steps``; dreams from a short context are faster.
        actions: int64 (B, C - 1), those between the context steps.
        policy: called once per step with tokens (B, L) and state (B, D); returns actions (B,).
        horizon: steps to dream, H.
        generator: source of the tokens' randomness, on the model's device. May be None if every level is at
            temperature 0.
        temperature: divides the logits before sampling; one number, or one per level. At 0 the likeliest
            token is taken.
        dtype: of the matrix products. By default autocast's where it is on, else that of the matrices.
            torch.bfloat16 is several times faster where the hardware has it.

    Raises:
        ValueError: a shape, token, action, horizon or temperature that is not allowed.
    """
    config = model.config
    temperatures = _checked(model, tokens, actions, horizon, generator, temperature)
    device, (batch_size, num_context, num_levels) = tokens.device, tokens.shape
    autocast, autocast_dtype = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
    if dtype is None and autocast:
        dtype = autocast_dtype
    with torch.autocast(device.type, enabled=False):  # The model has its types already.
        model = for_inference(model, dtype)
        reader = reader_for(model, batch_size, num_context + horizon)
        dream = Dream(
            tokens=torch.empty(batch_size, horizon + 1, num_levels, dtype=torch.int64, device=device),
            actions=torch.empty(batch_size, horizon, dtype=torch.int64, device=device),
            states=torch.zeros(batch_size, horizon + 1, config.dim, dtype=torch.float32, device=device),
            log_probs=torch.empty(batch_size, horizon, num_levels, dtype=torch.float32, device=device),
        )
        dream.tokens[:, 0] = tokens[:, -1]
        # All the randomness of the dream, drawn at once: one number per token, used or not.
        shape = (horizon if any(temperatures) else 0, num_levels, batch_size)
        draws = torch.rand(shape, generator=generator, dtype=torch.float32, device=device)
        if num_context > 1:
            dream.states[:, 0] = reader.read_steps(tokens[:, :-1], actions)
        for level in range(num_levels - 1):
            reader.read([tokens[:, -1, level]], level)
        for h in range(horizon):
            with torch.autocast(device.type, autocast_dtype, enabled=autocast):  # As the caller has it.
                # Copies: what a policy does to them must not change the dream.
                action = policy(dream.tokens[:, h].clone(), dream.states[:, h].clone())
            if not isinstance(action, Tensor):
                raise ValueError(f"the policy returned {type(action).__name__}; it must return a tensor")
            if action.shape != (batch_size,) or action.dtype != torch.int64:
                raise ValueError(
                    f"the policy returned {action.dtype} of shape {tuple(action.shape)}; "
                    f"it must return int64 of shape ({batch_size},)"
                )
            check_range(action, config.num_actions, "the policy's actions")
            dream.actions[:, h] = action
            output = reader.read([dream.tokens[:, h, -1], action], num_levels - 1)
            dream.states[:, h + 1] = output
            for level in range(num_levels):
                logits = model.predict(output, level).float()
                probs, t = torch.softmax(logits, -1), temperatures[level]
                if t == 0:
                    token = logits.argmax(-1)
                else:
                    token = choose(probs if t == 1 else torch.softmax(logits / t, -1), draws[h, level])
                dream.tokens[:, h + 1, level] = token
                dream.log_probs[:, h, level] = probs.gather(-1, token[:, None])[:, 0]
                if level < num_levels - 1:
                    output = reader.read([token], level)
        dream.log_probs.log_()  # once at the end: until here these are probabilities
    return dream


def choose(probs: Tensor, draws: Tensor) -> Tensor:
    """Sample from probabilities (B, K) by uniform draws (B,) from [0, 1); int64 (B,), without a GPU wait.

    The code is the first whose cumulative probability exceeds the draw.
    """
    cumulated = probs.cumsum(-1)
    # The last sum may differ from 1 by rounding; scaling the draw by it keeps every code's share.
    passed = cumulated <= draws[:, None] * cumulated[:, -1:]
    return passed.sum(-1).clamp_(max=probs.shape[-1] - 1)


def _checked(
    model: WorldModel,
    tokens: Tensor,
    actions: Tensor,
    horizon: int,
    generator: torch.Generator | None,
    temperature: float | Sequence[float],
) -> tuple[float, ...]:
    """Raise ValueError for what cannot be dreamed; return one temperature per level."""
    config = model.config
    if isinstance(horizon, bool) or not hasattr(horizon, "__index__"):
        raise ValueError(f"horizon is {horizon!r}; give a whole number of steps")
    if tokens.ndim != 3 or 0 in tokens.shape[:2] or actions.shape != (tokens.shape[0], tokens.shape[1] - 1):
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and actions {tuple(actions.shape)}; give (B, C, L) "
            "tokens, B and C at least 1, and the (B, C - 1) actions between them"
        )
    if horizon < 1 or tokens.shape[1] + horizon > config.max_steps:
        raise ValueError(
            f"a context of {tokens.shape[1]} steps and a horizon of {horizon} do not fit in max_steps = "
            f"{config.max_steps}; give a horizon of at least 1 and shorten the context"
        )
    check_window(config, tokens, torch.nn.functional.pad(actions, (0, 1)))
    given: Any = math.nan
    with suppress(TypeError, ValueError, RuntimeError):  # not numbers
        given = torch.as_tensor(temperature, dtype=torch.float64, device="cpu").tolist()
    levels = tuple(given) if isinstance(given, list) else (given,) * config.num_levels
    if len(levels) != config.num_levels or not all(t == 0 or 1e-6 <= t < math.inf for t in levels):
        raise ValueError(
            f"temperature is {temperature}; give one number or {config.num_levels}, one per level: 0 for the "
            "likeliest tokens, or finite and at least 1e-6"
        )
    if generator is None and any(levels):
        raise ValueError(f"generator is None at temperature {temperature}; give a torch.Generator, or 0")
    return levels

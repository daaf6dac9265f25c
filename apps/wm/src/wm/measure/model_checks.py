"""Is a trained world model sound? Shapes, dtypes, boundaries, gradients, NaN, and the mask by its effect.

How well the model predicts is another question; these checks say whether its numbers mean what they should.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from token_worldmodel import TokenBatch, WorldModel, WorldModelObjective
from torch import Tensor


class Check(NamedTuple):
    """One property, whether it holds, and what was found."""

    name: str
    holds: bool
    found: str


def check_worldmodel(model: WorldModel, batch: TokenBatch) -> list[Check]:
    """Every check, on a batch of real windows of at least two steps. The model is left as it was."""
    training = [module.training for module in model.modules()]
    gradients = [parameter.grad for parameter in model.parameters()]
    model.eval()
    model.zero_grad(set_to_none=True)  # so that only the check's own gradients are looked at
    try:
        found = (_outputs, _boundaries, _mask, _gradients)
        return [check for checks in found for check in checks(model, batch)]
    finally:
        for module, before in zip(model.modules(), training, strict=True):
            module.training = before
        for parameter, grad in zip(model.parameters(), gradients, strict=True):
            parameter.grad = grad


def _outputs(model: WorldModel, batch: TokenBatch) -> Iterator[Check]:
    with torch.no_grad():
        output = model(batch.tokens, batch.actions)
    windows, steps = batch.actions.shape
    shapes = [tuple(logits.shape) for logits in output.logits]
    expected = [(windows, steps, codes) for codes in model.config.codes]
    yield Check("shapes", shapes == expected, ", ".join(map(str, shapes)))
    kinds = {str(logits.dtype).removeprefix("torch.") for logits in output.logits}
    weights = next(model.parameters()).dtype
    same = all(logits.dtype == weights for logits in output.logits)
    yield Check("dtypes", same, ", ".join(sorted(kinds)))
    bad = sum(int((~logits.isfinite()).sum()) for logits in output.logits)
    yield Check("no NaN, no infinity", bad == 0, f"{bad} of {sum(x.numel() for x in output.logits)} logits")


def _boundaries(model: WorldModel, batch: TokenBatch) -> Iterator[Check]:
    crossing = int(batch.final[:, :-1].sum())
    yield Check("windows stay inside episodes", crossing == 0, f"{crossing} windows cross an end")


def _mask(model: WorldModel, batch: TokenBatch) -> Iterator[Check]:
    """Change one thing at one step, and see which predictions change."""
    steps, levels = batch.actions.shape[1], model.config.num_levels
    middle = steps // 2
    before = _predictions(model, batch.tokens, batch.actions)

    def moved(tokens: Tensor, actions: Tensor) -> list[Tensor]:
        after = _predictions(model, tokens, actions)
        return [(a - b).abs().amax((0, 2)) > 0 for a, b in zip(after, before, strict=True)]  # (T,) each

    for level in range(levels):
        tokens = batch.tokens.clone()
        tokens[:, middle, level] = (tokens[:, middle, level] + 1) % model.config.codes[level]
        effect = moved(tokens, batch.actions)
        # logits[0][t] predicts the next step; logits[l][t] level l of step t, from the coarser ones.
        early = sum(int(effect[n][: middle + (0 < n <= level)].sum()) for n in range(levels))
        yield Check(f"L{level} changes nothing before it", early == 0, f"{early} earlier predictions changed")
        if level < levels - 1:
            seen = bool(effect[level + 1][middle])
            yield Check(f"L{level} is seen by L{level + 1} of its step", seen, f"step {middle}")
    if model.config.num_actions == 1:
        return  # there is no other action to change to
    actions = batch.actions.clone()
    actions[:, middle] = (actions[:, middle] + 1) % model.config.num_actions
    effect = moved(batch.tokens, actions)
    early = int(effect[0][:middle].sum()) + sum(int(e[: middle + 1].sum()) for e in effect[1:])
    yield Check("an action changes nothing before it", early == 0, f"{early} earlier predictions changed")
    yield Check("an action is seen by the next step", bool(effect[0][middle]), f"step {middle}")


def _predictions(model: WorldModel, tokens: Tensor, actions: Tensor) -> list[Tensor]:
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        return [logits.float() for logits in model(tokens, actions).logits]


def _gradients(model: WorldModel, batch: TokenBatch) -> Iterator[Check]:
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(True)
    try:
        loss, _ = WorldModelObjective(model)(batch)
        loss.backward()
        named = [(name, p.grad) for name, p in model.named_parameters()]
    finally:
        for parameter, before in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(before)
    untaught = tuple(_untaught(model))
    missing = [
        name
        for name, grad in named
        if not name.startswith(untaught) and (grad is None or not bool(grad.any()))
    ]
    broken = [name for name, grad in named if grad is not None and not bool(grad.isfinite().all())]
    yield Check("every parameter learns", not missing, ", ".join(missing) or f"all {len(named)}")
    yield Check("gradients are finite", not broken, ", ".join(broken) or f"all {len(named)}")


def _untaught(model: WorldModel) -> Iterator[str]:
    """Beginnings of the names of parameters that only levels without weight in the loss would move.

    Among them are names of links that no chain has, which match nothing.
    """
    weights = model.config.loss_weights
    for level, weight in enumerate(weights):
        if not weight:
            yield f"heads.{level}."
            yield f"chain.{level - 1}.output_norm."
        if not any(weights[level + 1 :]):
            yield f"chain.{level}."

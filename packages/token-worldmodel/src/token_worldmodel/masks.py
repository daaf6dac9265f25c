"""Which positions see which: the attention mask, and a plan that spends no work on what nothing sees."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from .config import WorldModelConfig

T = TypeVar("T")

# A block costs a few small copies and saves products above the diagonal; the two balance at 16 steps of 4.
POSITIONS_OF_A_BLOCK = 64


def visibility(config: WorldModelConfig, num_steps: int, device: torch.device | None = None) -> Tensor:
    """Which positions each position may attend to, as bool (N, N) with N = num_steps * step_size.

    Row = query, column = key. Positions run step by step, within a step from L0 to the finest level
    and then the action. The finer levels (L1 and on) are called detail. Where a step is one position, each
    sees itself and those before it.
    """
    position = torch.arange(num_steps * config.step_size, device=device)
    step, slot = position // config.step_size, position % config.step_size
    visible = position[:, None] >= position[None, :]
    if config.mask == "causal":
        return visible
    is_detail = (slot > 0) & (slot < config.num_levels)
    reach = torch.where(is_detail, 0, detail_reach(config, num_steps))
    age = step[:, None] - step[None, :]
    return visible & ~(is_detail[None, :] & (age > reach[:, None]))


def detail_reach(config: WorldModelConfig, num_steps: int) -> int:
    """How many steps back, at most, a position sees detail."""
    if config.mask == "causal" or config.position == "step":
        return num_steps
    return {"none": 0, "last": 1, "past": num_steps}[config.detail]


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive queries, the keys that at least one of them sees, and what to add to their scores.

    Lasting keys, which every later step sees, are kept apart from passing ones, which only the next few steps
    see, so that a block sees one slice of each.
    """

    queries: slice
    lasting: slice
    passing: slice
    bias: Tensor  # (Q, K) float32, lasting keys first: 0 where visible, -inf elsewhere


@dataclass(frozen=True, slots=True)
class Plan:
    """How to compute a window's attention: the mask for fused kernels and, on a CPU, blocks for products."""

    num_steps: int
    visible: Tensor  # (N, N) bool
    lasting: slice  # the slots of a step whose keys every later step sees
    passing: slice  # its other slots
    blocks: tuple[Block, ...]


def remembered(make: Callable[..., T]) -> Callable[..., T]:
    """Cache a function whose last argument is a device.

    A CPU keeps the latest results only, since these grow with the square of a window, and windows may have
    many lengths. Elsewhere all are kept: a recorded dream keeps reading those of its recording.
    """
    latest, every = lru_cache(maxsize=32)(make), cache(make)

    @wraps(make)
    def found(*arguments: Any) -> T:
        return (latest if arguments[-1].type == "cpu" else every)(*arguments)

    return found


@remembered
def attention_plan(config: WorldModelConfig, num_steps: int, device: torch.device) -> Plan:
    """The plan for windows of ``num_steps`` steps on a device."""
    with torch.inference_mode(False):  # a gradient may need it later
        visible = visibility(config, num_steps, device)
    if detail_reach(config, num_steps) < num_steps:  # the detail lies between L0 and the action
        lasting, passing = slice(0, None, config.num_levels), slice(1, config.num_levels)
    else:
        lasting, passing = slice(0, None), slice(0, 0)
    made = _blocks(config, visible, lasting, passing) if device.type == "cpu" else ()
    return Plan(num_steps, visible, lasting, passing, made)


def _blocks(config: WorldModelConfig, visible: Tensor, lasting: slice, passing: slice) -> tuple[Block, ...]:
    """Cut a mask (N, N) into blocks of queries with only the keys they need."""
    size = config.step_size
    num_steps = len(visible) // size
    num_lasting, num_passing = (len(range(size)[slots]) for slots in (lasting, passing))
    steps_at_once = max(1, POSITIONS_OF_A_BLOCK // size)
    plan = []
    for start in range(0, num_steps, steps_at_once):
        stop = min(start + steps_at_once, num_steps)
        first = max(start - detail_reach(config, num_steps), 0)  # first step whose detail is seen
        queries = slice(start * size, stop * size)
        seen = visible[queries].unflatten(1, (num_steps, size))
        seen = torch.cat([seen[:, :stop, lasting].flatten(1), seen[:, first:stop, passing].flatten(1)], 1)
        plan.append(
            Block(
                queries=queries,
                lasting=slice(0, stop * num_lasting),
                passing=slice(first * num_passing, stop * num_passing),
                bias=torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf),
            )
        )
    return tuple(plan)

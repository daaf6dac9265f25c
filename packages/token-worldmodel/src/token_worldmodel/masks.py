"""Who sees whom: the attention mask, and the plan that spends no work on what nobody sees."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .config import WorldModelConfig


def visibility(config: WorldModelConfig, num_steps: int) -> Tensor:
    """Which positions each position may attend to, as bool (N, N) with N = num_steps * step_size.

    Row = query, column = key. Positions run step by step, inside a step from L0 to the finest level and
    then the action. The finer levels (L1 and on) are called detail.
    """
    position = torch.arange(num_steps * config.step_size)
    step, slot = position // config.step_size, position % config.step_size
    visible = position[:, None] >= position[None, :]
    if config.mask == "causal":
        return visible
    is_detail = (slot > 0) & (slot < config.num_levels)
    reach = torch.where(is_detail, 0, detail_reach(config, num_steps))
    age = step[:, None] - step[None, :]
    return visible & ~(is_detail[None, :] & (age > reach[:, None]))


def detail_reach(config: WorldModelConfig, num_steps: int) -> int:
    """How many steps back any position sees detail."""
    if config.mask == "causal":
        return num_steps
    return {"none": 0, "last": 1, "past": num_steps}[config.detail]


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive queries, the keys that at least one of them sees, and what to add to their scores."""

    queries: slice
    keys: Tensor  # (K,) int64
    bias: Tensor  # (Q, K) float32: 0 where visible, -inf elsewhere


def blocks(visible: Tensor, size: int) -> tuple[Block, ...]:
    """Cut a mask (Q, N) into blocks of ``size`` queries with only the keys they need."""
    plan = []
    for start in range(0, visible.shape[0], size):
        rows = visible[start : start + size]
        keys = rows.any(0).nonzero()[:, 0]
        bias = torch.zeros(rows.shape[0], keys.shape[0]).masked_fill_(~rows[:, keys], -torch.inf)
        plan.append(Block(slice(start, start + rows.shape[0]), keys, bias))
    return tuple(plan)


@dataclass(frozen=True, slots=True)
class Plan:
    """A window's attention: the whole mask for fused kernels, or its blocks for products on a CPU."""

    visible: Tensor  # (N, N) bool
    blocks: tuple[Block, ...]


@lru_cache(maxsize=64)
def attention_plan(config: WorldModelConfig, num_steps: int, device: torch.device) -> Plan:
    """The plan for windows of ``num_steps`` steps on a device."""
    visible = visibility(config, num_steps)
    # A block costs a few small copies and saves the products above the diagonal: they balance at 8 steps.
    made = blocks(visible, 8 * config.step_size) if device.type == "cpu" else ()
    return Plan(visible.to(device), made)

"""Who sees whom: the attention mask, and the plan that spends no work on what nobody sees."""

from collections.abc import Sequence
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
    past_detail = is_detail[None, :] & (step[None, :] < step[:, None])
    blind = is_detail[:, None] if config.detail == "past" else torch.ones_like(is_detail)[:, None]
    return visible & ~(past_detail & blind)


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
    """One layer's attention: the whole mask for fused kernels, its blocks for products on a CPU."""

    visible: Tensor  # (Q, N) bool
    blocks: tuple[Block, ...]


def readout_positions(config: WorldModelConfig, num_steps: int) -> Tensor:
    """Positions whose last-layer output is read, int64 (num_steps * num_levels,).

    Nothing is predicted from the finest token, so it has no output: the slots are L0 to the last but
    one level, and the action.
    """
    slot = torch.arange(num_steps * config.step_size) % config.step_size
    return (slot != config.num_levels - 1).nonzero()[:, 0]


@lru_cache(maxsize=64)
def attention_plans(
    config: WorldModelConfig, num_steps: int, device: torch.device
) -> tuple[Plan, Plan, Tensor]:
    """The plan of the inner layers, that of the last layer, and the positions the last layer reads out."""
    visible = visibility(config, num_steps)
    readout = readout_positions(config, num_steps)

    def plan(visible: Tensor, size: int) -> Plan:
        # Blocks cost a few small copies each and save the products above the diagonal: 8 steps is
        # where the two balance on the CPUs measured.
        made: Sequence[Block] = blocks(visible, size) if device.type == "cpu" else ()
        return Plan(visible.to(device), tuple(made))

    return (
        plan(visible, 8 * config.step_size),
        plan(visible[readout], 8 * config.num_levels),
        readout.to(device),
    )

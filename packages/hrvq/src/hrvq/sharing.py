"""Who uses which codes: tokens of several groups (games, speakers, sites) compared, level by level.

A level that means the same to every group is used by all alike; one that belongs to a group gives it away.
`mutual_information` says how much, in bits, with an interval.
"""

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hrvq.metrics import code_counts


def counts_by_group(tokens: Tensor, groups: Tensor, codes: int | Sequence[int]) -> list[Tensor]:
    """How often each group uses each code: for each level int64 (G, K).

    Args:
        tokens: integer (N, L); -1 stands for no code.
        groups: integer (N,), 0 to G - 1.
        codes: K, one number or one for each level.
    """
    if tokens.ndim != 2 or groups.shape != tokens.shape[:1]:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and groups {tuple(groups.shape)}; give (N, L) and (N,)"
        )
    if len(groups) == 0 or int(groups.min()) < 0:
        raise ValueError("groups must number the groups from 0, and at least one vector is needed")
    per_group = [code_counts(tokens[groups == g], codes) for g in range(int(groups.max()) + 1)]
    return [torch.stack(level) for level in zip(*per_group, strict=True)]


def _profiles(counts: Tensor) -> Tensor:
    """(..., G, K) counts -> each group's distribution over the codes."""
    return counts / counts.sum(-1, keepdim=True).clamp_min(1)


def usage_by_group(tokens: Tensor, groups: Tensor, codes: int | Sequence[int]) -> Tensor:
    """Share of each level's codes that each group uses at all: float32 (L, G)."""
    return torch.stack([(c > 0).float().mean(1) for c in counts_by_group(tokens, groups, codes)])


def shared_code_share(
    tokens: Tensor, groups: Tensor, codes: int | Sequence[int], at_least: float = 0.0
) -> Tensor:
    """Of the codes in use, the share that every group uses: float32 (L,).

    Args:
        tokens: integer (N, L).
        groups: integer (N,).
        codes: K, one number or one for each level.
        at_least: a group uses a code when more than this share of the group's vectors have it. Something
            like 1e-4 keeps single stray frames from counting.
    """
    shares = []
    for counts in counts_by_group(tokens, groups, codes):
        present = counts.sum(1) > 0  # a number that no group has is no group
        uses = _profiles(counts[present].double()) > at_least
        shares.append(uses.all(0).sum() / uses.any(0).sum().clamp_min(1))
    return torch.stack(shares).float()


def jensen_shannon(tokens: Tensor, groups: Tensor, codes: int | Sequence[int]) -> Tensor:
    """Jensen-Shannon divergence between each two groups' code distributions, in bits: float32 (L, G, G).

    H((p + q)/2) - (H(p) + H(q))/2: 0 where two groups use a level's codes alike, 1 where they share none. NaN
    where a group has no token of the level.
    """
    levels = []
    for counts in counts_by_group(tokens, groups, codes):
        p = _profiles(counts.double())
        mixed = _entropy((p[:, None] + p[None]) / 2)
        own = _entropy(p)
        divergence = (mixed - (own[:, None] + own[None]) / 2).clamp_min(0)
        absent = counts.sum(1) == 0
        levels.append(divergence.masked_fill(absent[:, None] | absent[None], torch.nan))
    return torch.stack(levels).float()


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1) / log(2)


class Interval(NamedTuple):
    """An estimate for each level with its bootstrap interval; float32 (L,) each."""

    estimate: Tensor
    low: Tensor
    high: Tensor


def _information(counts: Tensor) -> Tensor:
    """Mutual information in bits of joint counts (..., G, K), corrected for its bias.

    The plug-in estimate is too large by about (rows - 1)(columns - 1) / (2 N ln 2) bits, rows and columns
    being those that occur (Miller 1955).
    """
    n = counts.sum((-2, -1))
    joint = counts / n[..., None, None].clamp_min(1)
    rows, columns = joint.sum(-1), joint.sum(-2)
    plug_in = _entropy(rows) + _entropy(columns) - _entropy(joint.flatten(-2))
    cells, used_rows, used_columns = (counts > 0).sum((-2, -1)), (rows > 0).sum(-1), (columns > 0).sum(-1)
    excess = (cells - used_rows - used_columns + 1) / (2 * n.clamp_min(1) * log(2))
    return (plug_in - excess).clamp_min(0)


def mutual_information(
    tokens: Tensor,
    groups: Tensor,
    codes: int | Sequence[int],
    *,
    blocks: Tensor | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How many bits a level's token tells about the group; at most log2 G.

    The interval comes from a bootstrap over blocks, redrawn within each group: frames of one episode are
    alike, so drawing frames would make it far too narrow.

    Args:
        tokens: integer (N, L).
        groups: integer (N,).
        codes: K, one number or one for each level.
        blocks: integer (N,), episodes say, numbered across all groups or within each; every vector is its
            own block if left out.
        resamples: bootstrap draws.
        confidence: of the interval.
        seed: of the bootstrap.

    Returns:
        :class:`Interval` of (L,) in bits. The bias of the plug-in estimate is taken off (Miller 1955). Its
        bounds are NaN where a group has one block only: nothing tells how much another would differ.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"resamples is {resamples} and confidence {confidence}; give at least 1, and 0 to 1")
    if blocks is not None and blocks.shape != groups.shape:
        raise ValueError(f"blocks have shape {tuple(blocks.shape)}; give ({len(groups)},)")
    counts = counts_by_group(tokens, groups, codes)
    draws = [torch.zeros(resamples, *level.shape, dtype=torch.float64) for level in counts]
    random = np.random.default_rng(seed)
    known = True
    for group in range(len(counts[0])):
        members = groups == group
        if blocks is None:  # drawing vectors is drawing counts
            for level, drawn in zip(counts, draws, strict=True):
                shares = _profiles(level[group].double()).cpu().numpy()
                total = int(level[group].sum())
                drawn[:, group] = torch.from_numpy(random.multinomial(total, shares, resamples))
        else:
            if not bool(members.any()):  # a number that no group has
                continue
            _, block = blocks[members].cpu().unique(return_inverse=True)
            number = int(block.max()) + 1
            known = known and number > 1
            times = random.multinomial(number, np.full(number, 1 / number), resamples)
            for index, drawn in enumerate(draws):
                per_block = _block_counts(tokens[members, index].cpu(), block, drawn.shape[-1])
                drawn[:, group] = torch.from_numpy(times).double() @ per_block
    tail = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    estimates, bounds = [], []
    for level, drawn in zip(counts, draws, strict=True):
        estimate, replicates = _information(level.cpu().double()), _information(drawn)
        # Resampling adds a bias of its own, which a shift takes out.
        bounds.append((estimate + replicates.quantile(tail) - replicates.mean()).clamp_min(0))
        estimates.append(estimate)
    low, high = torch.stack(bounds).T.float()
    if not known:
        low, high = torch.full_like(low, torch.nan), torch.full_like(high, torch.nan)
    return Interval(torch.stack(estimates).float(), low, high)


def _block_counts(tokens: Tensor, block: Tensor, codes: int) -> Tensor:
    """Tokens (n,) and their blocks (n,) -> float64 (blocks, codes)."""
    counted = tokens >= 0
    cells = block[counted] * codes + tokens[counted].long()
    return torch.bincount(cells, minlength=(int(block.max()) + 1) * codes).reshape(-1, codes).double()

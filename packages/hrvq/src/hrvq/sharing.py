"""Which groups (games, speakers, sites) use which codes: their tokens compared, level by level.

A level that means the same to every group is used by all alike; one in which each group has its own codes
reveals the group. `mutual_information` measures how much, in bits, with an interval.
"""

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hrvq._checks import integers
from hrvq._config import finite, whole, within
from hrvq._precision import widest
from hrvq.metrics import code_counts, integer_tokens, level_sizes

# How often the groups are shuffled to measure chance; the mean settles within a few percent.
_SHUFFLES = 50
# Groups may be numbered up to this even if there are fewer vectors; a table has a row for each number.
_MOST_GROUPS = 4096
Integers = Tensor | np.ndarray


def _checked(tokens: Integers, groups: Integers) -> tuple[Tensor, Tensor]:
    """Int64 (N, L) and (N,) on one device."""
    tokens = integer_tokens(tokens)
    groups = integers("groups", groups).to(tokens.device)
    if tokens.ndim != 2 or groups.shape != tokens.shape[:1]:
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and groups {tuple(groups.shape)}; give (N, L) and (N,)"
        )
    if len(groups) == 0 or int(groups.min()) < 0:
        raise ValueError("groups must number the groups from 0, and at least one vector is needed")
    if (last := int(groups.max())) >= max(len(groups), _MOST_GROUPS):
        raise ValueError(
            f"groups go up to {last} for {len(groups)} vectors; number them from 0, as "
            "torch.unique(groups, return_inverse=True)[1] does"
        )
    return tokens, groups


def counts_by_group(tokens: Integers, groups: Integers, codes: int | Sequence[int]) -> list[Tensor]:
    """How often each group uses each code: for each level int64 (G, K).

    Args:
        tokens: integer (N, L); -1 means no code.
        groups: integer (N,), 0 to G - 1.
        codes: K, one number or one for each level.

    Raises:
        ValueError: tokens and groups do not fit each other, or one of them is out of its range.
    """
    tokens, groups = _checked(tokens, groups)
    count = int(groups.max()) + 1
    tables = []
    for level, total in enumerate(code_counts(tokens, codes)):
        known, size = tokens[:, level] >= 0, len(total)
        pairs = groups[known] * size + tokens[known, level]
        tables.append(torch.bincount(pairs, minlength=count * size).view(count, size))
    return tables


def _profiles(counts: Tensor) -> Tensor:
    """(..., G, K) counts -> each group's distribution over the codes."""
    return counts / counts.sum(-1, keepdim=True).clamp_min(1)


def usage_by_group(tokens: Integers, groups: Integers, codes: int | Sequence[int]) -> Tensor:
    """Share of each level's codes that each group uses at all: float32 (L, G); 0 for an unused group number.

    Arguments and errors are those of :func:`counts_by_group`.
    """
    return torch.stack([(c > 0).float().mean(1) for c in counts_by_group(tokens, groups, codes)])


def shared_code_share(
    tokens: Integers, groups: Integers, codes: int | Sequence[int], at_least: float = 0.0
) -> Tensor:
    """Of the codes in use, the share that every group uses: float32 (L,), NaN for a level without tokens.

    Args:
        tokens: integer (N, L).
        groups: integer (N,).
        codes: K, one number or one for each level.
        at_least: a group uses a code when more than this share of the group's tokens of the level are it. A
            value such as 1e-4 keeps single stray frames from counting.

    Raises:
        ValueError: as for :func:`counts_by_group`, or ``at_least`` is no share.
    """
    if not within(at_least, 0, below=1):
        raise ValueError(f"at_least is {at_least!r}; give a share from 0 to below 1")
    shares = []
    for counts in counts_by_group(tokens, groups, codes):
        present = counts.sum(1) > 0  # an unused number is not a group
        uses = _profiles(counts[present].to(widest(counts.device))) > at_least
        shared = uses.all(0).sum() / uses.any(0).sum().clamp_min(1)
        shares.append(torch.where(present.any(), shared, torch.nan))
    return torch.stack(shares).float()


def jensen_shannon(tokens: Integers, groups: Integers, codes: int | Sequence[int]) -> Tensor:
    """Jensen-Shannon divergence between any two groups' code distributions, in bits: float32 (L, G, G).

    H((p + q)/2) - (H(p) + H(q))/2: 0 if two groups use a level's codes alike, 1 if they share none. NaN if a
    group has no token of the level. Arguments and errors are those of :func:`counts_by_group`.
    """
    levels = []
    for counts in counts_by_group(tokens, groups, codes):
        p = _profiles(counts.to(widest(counts.device)))
        mixed = torch.stack([_entropy((row + p) / 2) for row in p])  # all at once would be G^2 K numbers
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
    """Plug-in mutual information in bits, from joint counts (..., G, K): H(g) + H(t) - H(g, t)."""
    joint = counts / counts.sum((-2, -1), keepdim=True).clamp_min(1)
    return _entropy(joint.sum(-1)) + _entropy(joint.sum(-2)) - _entropy(joint.flatten(-2))


def mutual_information(
    tokens: Integers,
    groups: Integers,
    codes: int | Sequence[int],
    *,
    blocks: Integers | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How many bits a level's token reveals about the group; at most log2 G.

    Counts of few vectors reveal something about the group by chance, and the more so the more codes there are
    and the more alike the vectors of a block. This chance level is measured by assigning the blocks (without
    ``blocks``, the vectors) to the groups at random, as many to each as before. With E the mean of 50 such
    shuffles and M = min(H(g), H(t)) the maximum,

        I = (H(g) + H(t) - H(g, t) - E) M / (M - E)

    which is the adjusted mutual information (Vinh, Epps and Bailey, 2010) in bits: 0 if tokens reveal
    nothing, M if they reveal everything, and in between up to a third too high if E is more than half of M.
    Without the last factor it would be too low, since chance adds less where tokens do reveal something.

    The interval reaches from the lower end without that factor to the upper end with it. It comes from a
    bootstrap over blocks, redrawn within each group: frames of one episode are alike, so drawing frames would
    make it far too narrow. The shuffles count N tokens 50 times for each level: a few seconds for a million
    vectors.

    Args:
        tokens: integer (N, L).
        groups: integer (N,).
        codes: K, one number or one for each level.
        blocks: integer (N,), such as episodes, numbered across all groups or within each; if omitted, every
            vector is its own block.
        resamples: bootstrap draws.
        confidence: of the interval.
        seed: for the bootstrap and the shuffles.

    Returns:
        :class:`Interval` of (L,) in bits, at least 0. The bounds of a level are NaN if a group has tokens of
        it in one block only, since nothing shows how much another would differ.

    Raises:
        ValueError: wrong types or shapes, tokens or groups out of range.
    """
    if not (whole(resamples) and finite(confidence) and 0 < confidence < 1):
        raise ValueError(
            f"resamples is {resamples!r} and confidence {confidence!r}; give a whole number of at least 1, "
            "and a share between 0 and 1"
        )
    tokens, groups = (given.cpu() for given in _checked(tokens, groups))
    sizes = level_sizes(codes, tokens.shape[1])
    counts = counts_by_group(tokens, groups, sizes)
    # Blocks with the same number in different groups are different blocks.
    block = torch.arange(len(groups), device="cpu") if blocks is None else _numbered(blocks, groups)
    if int(block.max()) + 1 == len(groups):
        blocks = None  # each is one vector
    groups_of_blocks = groups.new_zeros(int(block.max()) + 1).scatter_(0, block, groups)
    random = np.random.default_rng(seed)
    chance = _chance(tokens, block, groups_of_blocks, sizes, random)
    draws = [level.new_zeros((resamples, *level.shape), dtype=torch.float64) for level in counts]
    known = torch.ones(len(counts), dtype=torch.bool, device="cpu")
    for group in range(len(counts[0])):
        if blocks is None:  # redrawing vectors is redrawing counts
            for index, (level, drawn) in enumerate(zip(counts, draws, strict=True)):
                total = int(level[group].sum())
                known[index] &= total != 1
                shares = _profiles(level[group].double()).numpy()
                drawn[:, group] = torch.from_numpy(random.multinomial(total, shares, resamples))
        else:
            members = groups == group
            if not bool(members.any()):  # an unused number
                continue
            _, own = block[members].unique(return_inverse=True)
            number = int(own.max()) + 1
            times = random.multinomial(number, np.full(number, 1 / number), resamples)
            for index, drawn in enumerate(draws):
                per_block = _block_counts(tokens[members, index], own, drawn.shape[-1])
                known[index] &= int(per_block.any(1).sum()) != 1
                drawn[:, group] = torch.from_numpy(times).double() @ per_block
    tail = chance.new_tensor([(1 - confidence) / 2, (1 + confidence) / 2])
    estimates, bounds = [], []
    for level, drawn, excess in zip(counts, draws, chance, strict=True):
        told, replicates = (_information(level.double()) - excess).clamp_min(0), _information(drawn)
        # Resampling adds a bias of its own, which a shift removes.
        low, high = (told + replicates.quantile(tail) - replicates.mean()).clamp_min(0)
        most = torch.minimum(*(_entropy(_profiles(level.sum(axis).double())) for axis in (1, 0)))
        factor = most / (most - excess).clamp_min(1e-9)
        bounds.append(torch.stack((low, torch.minimum(high * factor, most))))
        estimates.append(torch.minimum(told * factor, most))
    low, high = torch.stack(bounds).T.float()
    low, high = (torch.where(known, bound, torch.nan) for bound in (low, high))
    return Interval(torch.stack(estimates).float(), low, high)


def _numbered(blocks: Integers, groups: Tensor) -> Tensor:
    """Number the blocks of all groups from 0: int64 (N,)."""
    blocks = integers("blocks", blocks).cpu()
    if blocks.shape != groups.shape:
        raise ValueError(f"blocks have shape {tuple(blocks.shape)}; give ({len(groups)},)")
    _, block = blocks.unique(return_inverse=True)
    numbered: Tensor = (groups * (int(block.max()) + 1) + block).unique(return_inverse=True)[1]
    return numbered


def _block_counts(tokens: Tensor, block: Tensor, codes: int) -> Tensor:
    """Tokens (n,) and their blocks (n,) -> float64 (blocks, codes)."""
    counted = tokens >= 0
    cells = block[counted] * codes + tokens[counted]
    return torch.bincount(cells, minlength=(int(block.max()) + 1) * codes).reshape(-1, codes).double()


def _chance(
    tokens: Tensor, block: Tensor, groups: Tensor, sizes: Sequence[int], random: np.random.Generator
) -> Tensor:
    """Mean information of each level, float64 (L,), when the blocks' groups are shuffled.

    Args:
        tokens: int64 (N, L).
        block: int64 (N,), 0 to B - 1.
        groups: int64 (B,), each block's.
        sizes: codes of each level.
        random: for the shuffles.
    """
    number = int(groups.max()) + 1
    counts: list[list[Tensor]] = [[] for _ in sizes]
    for _ in range(_SHUFFLES):
        shuffled = groups[torch.from_numpy(random.permutation(len(groups)))][block]
        for level, size in enumerate(sizes):
            cells = shuffled * (size + 1) + tokens[:, level] + 1  # -1 gets a column of its own, discarded
            found = torch.bincount(cells, minlength=number * (size + 1))
            counts[level].append(found.reshape(number, size + 1)[:, 1:])
    return torch.stack([_information(torch.stack(found).double()).mean() for found in counts])

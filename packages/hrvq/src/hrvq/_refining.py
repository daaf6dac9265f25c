"""Refines the codes of all levels together, after each was fitted to what the levels before it leave."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._gradients import normalize
from hrvq._nearest import search
from hrvq._precision import widest
from hrvq._sources import VectorSource
from hrvq._statistics import total_statistics

_PAIRS_AT_ONCE = 16_384


class Refined(NamedTuple):
    """Codes, and how well they represent the vectors when each level takes the nearest."""

    codes: list[Tensor]
    """(K, dim) per level."""
    counts: list[Tensor]
    """(K,) per level: how many vectors choose each code."""
    distortion: list[float]
    """Mean squared distance with the first l + 1 levels, one per level."""
    passes: int
    """The number of passes that moved these codes."""


class _Found(NamedTuple):
    tokens: Tensor  # (N, L) int32
    counts: list[Tensor]  # (K,) per level
    sums: list[Tensor]  # (K, dim) per level, of the vectors themselves
    distortion: list[float]


def refine(
    source: VectorSource,
    codes: Sequence[Tensor],
    *,
    passes: int,
    tolerance: float,
    batch_size: int,
    cosine: bool,
    progress: Callable[[int, float], object],
) -> Refined:
    """Lower the distortion of the sum of all levels, in passes over the data.

    A pass finds each vector's codes as `encode` does, then moves one level after another to where the sum of
    squares is smallest for these choices: the mean of what all *other* levels leave of a code's vectors,
    where `fit` takes the mean of what the levels *before* it leave (coordinate descent on the codebooks, as
    in generalized residual vector quantization; Liu, Shao & Lu 2016, https://arxiv.org/abs/1609.05345, which
    also searches several paths; here the search stays greedy). Since vectors may choose other codes once the
    codes have moved, nothing guarantees that the next pass finds less distortion, so the best codes found are
    kept.

    Args:
        codes: (K, dim) per level.
        passes: at most this many, and one more that counts.
        tolerance: stop when a pass lowers the distortion by less than this share.
        cosine: the vectors are normalised, and level 0 is not moved, because its codes are directions.
        progress: called after each pass with its number, from 0, and the distortion that it found.
    """
    codes = list(codes)
    found = _measure(source, codes, batch_size=batch_size, cosine=cosine)
    progress(0, found.distortion[-1])
    best = _refined(codes, found, 0)
    for done in range(1, passes + 1):
        codes = _moved(codes, found, first=int(cosine))
        found = _measure(source, codes, batch_size=batch_size, cosine=cosine)
        progress(done, found.distortion[-1])
        before, now = best.distortion[-1], found.distortion[-1]
        if now < before:
            best = _refined(codes, found, done)
        if not now < (1 - tolerance) * before:  # in this form infinite distances stop it too
            break
    return best


def _refined(codes: list[Tensor], found: _Found, passes: int) -> Refined:
    return Refined(codes, [counts.float() for counts in found.counts], found.distortion, passes)


def _measure(source: VectorSource, codes: list[Tensor], *, batch_size: int, cosine: bool) -> _Found:
    device, rows = codes[0].device, source.rows
    wide = widest(device)
    tokens = torch.empty(rows, len(codes), dtype=torch.int32, device=device)
    counts = [torch.zeros(len(level), dtype=wide, device=device) for level in codes]
    sums = [torch.zeros(level.shape, dtype=wide, device=device) for level in codes]
    totals = [torch.zeros((), dtype=wide, device=device) for _ in codes]
    for start, block in source.blocks(batch_size, device):
        vectors = normalize(block) if cosine else block
        chosen = search(vectors, codes)
        tokens[start : start + len(block)] = chosen
        residual = vectors
        for level, table in enumerate(codes):
            residual = residual - F.embedding(chosen[:, level], table)
            totals[level] += residual.square().sum(dtype=wide)
            more_counts, more_sums = total_statistics(vectors, chosen[:, level], len(table))
            counts[level] += more_counts
            sums[level] += more_sums
    return _Found(tokens, counts, sums, [float(total) / rows for total in totals])


def _moved(codes: list[Tensor], found: _Found, *, first: int) -> list[Tensor]:
    """The codes, from level ``first`` on moved in turn to the means of what the other levels leave."""
    moved = list(codes)
    for level in range(first, len(codes)):
        left = found.sums[level] - _of_others(found.tokens, moved, level)
        counts = found.counts[level][:, None]
        means = (left / counts.clamp_min(1)).to(codes[level].dtype)
        moved[level] = torch.where(counts > 0, means, moved[level])
    return moved


def _of_others(tokens: Tensor, codes: list[Tensor], level: int) -> Tensor:
    """For each code of a level, the sum of its vectors' codes at the other levels: (K, dim), wide."""
    total = torch.zeros(codes[level].shape, dtype=widest(tokens.device), device=tokens.device)
    for other, table in enumerate(codes):
        if other == level:
            continue
        # Many vectors share a pair of codes.
        pairs, counts = torch.unique(
            tokens[:, level].long() * len(table) + tokens[:, other], return_counts=True
        )
        for some, times in zip(pairs.split(_PAIRS_AT_ONCE), counts.split(_PAIRS_AT_ONCE), strict=True):
            rows = F.embedding(some % len(table), table).to(total.dtype)
            total.index_add_(0, some // len(table), rows * times[:, None])
    return total

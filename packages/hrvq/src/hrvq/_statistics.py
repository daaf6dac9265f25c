"""What the codes are computed from: counts, sums, smoothing and revival."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from hrvq._distributed import span, top_rows
from hrvq._precision import widest

_ROWS_PER_SUM = 16_384  # few enough for a good float32 sum


class Statistics:
    """How often each of K codes was chosen, and the sum of the vectors that chose it."""

    def __init__(self, codes: int, vectors: Tensor) -> None:
        """Start from zero, for vectors of this width, type and device."""
        # One extra bin, discarded, so that shapes stay fixed.
        self._counts = vectors.new_zeros(codes + 1)
        self._sums = vectors.new_zeros(codes + 1, vectors.shape[1])
        self.counts, self.sums = self._counts[:-1], self._sums[:-1]  # (K,), (K, D)

    def add(self, vectors: Tensor, tokens: Tensor) -> Self:
        """Add vectors (N, D) to the codes they have chosen, int64 (N,); -1 means no code."""
        bins = self.bins(tokens)
        self._counts.index_add_(0, bins, vectors.new_ones(len(bins)))
        self._sums.index_add_(0, bins, vectors)
        return self

    def bins(self, tokens: Tensor) -> Tensor:
        """Where each vector counts, int64 (N,): its code, or K where it has none."""
        return torch.where(tokens < 0, len(self._counts) - 1, tokens)


def total_statistics(vectors: Tensor, tokens: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """The same for any number of vectors, in float64 if available: float32 loses the fifth digit."""
    wide = widest(vectors.device)
    counts = torch.zeros(codes, dtype=wide, device=vectors.device)
    sums = torch.zeros(codes, vectors.shape[1], dtype=wide, device=vectors.device)
    for part, chosen in zip(vectors.split(_ROWS_PER_SUM), tokens.split(_ROWS_PER_SUM), strict=True):
        found = Statistics(codes, part).add(part, chosen)
        counts += found.counts
        sums += found.sums
    return counts, sums


def smoothed(counts: Tensor, smoothing: float) -> Tensor:
    """Laplace-smoothed counts (K,) with the same total: (n_k + s) / (n + K s) n."""
    total = counts.sum()
    return (counts + smoothing) / (total + len(counts) * smoothing) * total


class Level(NamedTuple):
    """One level's state; the fields are views, changed in place."""

    codes: Tensor  # (K, D)
    counts: Tensor  # (K,), average number of vectors per batch that chose each code
    sums: Tensor  # (K, D), average sum of those vectors

    def set(self, codes: Tensor, counts: Tensor, smoothing: float) -> None:
        """Set ``codes`` as the averages of ``counts`` vectors."""
        self.codes.copy_(codes)
        self.counts.copy_(counts)
        self.sums.copy_(self.codes * smoothed(self.counts, smoothing)[:, None])


class Draw(NamedTuple):
    """Vectors drawn at random, in the order drawn; a key of -inf marks a slot for which none was left."""

    rows: Tensor  # (count, D)
    keys: Tensor  # (count,)


def draw(
    vectors: Tensor, weights: Tensor, count: int, *, generator: torch.Generator, across_ranks: bool = False
) -> Draw:
    """Draw vectors without replacement, with probabilities proportional to their weights.

    The ``count`` largest of log(u)/w are such a draw (Efraimidis and Spirakis 2006); a weight of 0 is never
    drawn. The shapes do not depend on the data.

    Args:
        vectors: (N, D).
        weights: (N,), at least 0.
        count: how many.
        generator: on the vectors' device.
        across_ranks: draw from the joined batch of all ranks; their generators must be in the same state.
    """
    start, total = span(len(vectors), vectors.device) if across_ranks else (0, len(vectors))
    uniform = torch.rand(total, dtype=torch.float32, generator=generator, device=vectors.device)
    uniform = uniform[start : start + len(vectors)]
    # Noise below 1 keeps the logarithm negative: 0/0 would be a key of nan.
    keys = uniform.clamp(1e-12, 1 - 1e-7).log() / weights
    return Draw(*top_rows(vectors, keys, count, across_ranks=across_ranks))


def merge(one: Draw, other: Draw) -> Draw:
    """The draw from both populations together, as long as ``one``."""
    keys, index = torch.cat([one.keys, other.keys]).topk(len(one.keys))
    return Draw(torch.cat([one.rows, other.rows])[index], keys)


def dead_codes(counts: Tensor, below: float) -> Tensor:
    """Bool (K,): codes whose count is under ``below`` times the mean count, whatever the batch size."""
    return counts < below * counts.mean()


def replace(level: Level, dead: Tensor, drawn: Draw) -> None:
    """Move dead codes, bool (K,), onto drawn vectors, in place; if too few were drawn, the rest wait.

    A moved code starts with half the mean count: enough to survive until chosen, and to settle soon.
    """
    turn = (dead.cumsum(0) - 1).clamp_min(0)  # the i-th dead code takes the i-th drawn vector
    moved = dead & (drawn.keys[turn] > -torch.inf)
    rows, start = drawn.rows[turn], level.counts.mean() / 2
    level.codes.copy_(torch.where(moved[:, None], rows, level.codes))
    level.counts.copy_(torch.where(moved, start, level.counts))
    level.sums.copy_(torch.where(moved[:, None], start * rows, level.sums))

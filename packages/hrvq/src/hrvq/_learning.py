"""How codes start and how they move; see :meth:`hrvq.HRVQ.initialize` and :meth:`hrvq.HRVQ.update`."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._config import HRVQConfig
from hrvq._distributed import from_first_rank, join_rows, sum_over_ranks
from hrvq._kmeans import UNUSED, kmeans
from hrvq._nearest import nearest
from hrvq._residuals import residuals
from hrvq._statistics import Draw, Level, dead_codes, draw, replace, smoothed


def start(
    levels: Sequence[Level],
    vectors: Tensor,
    config: HRVQConfig,
    generator: torch.Generator,
    *,
    batch_size: int | None,
) -> None:
    """Start the codes by k-means, level by level, on the vectors (N, D) of all ranks.

    The counts left behind are those of a batch of ``batch_size`` vectors, by default all.
    """
    residual = join_rows(vectors)
    if len(residual) == 0:
        raise ValueError("there is no vector to start the codes from; give at least one")
    scale = 1.0 if batch_size is None else batch_size / len(residual)
    for index, level in enumerate(levels):
        codes, counts = kmeans(
            residual,
            len(level.codes),
            iterations=config.kmeans_iterations,
            unused=UNUSED if config.revive_below > 0 else 0.0,
            generator=generator,
            spherical=index == 0 and config.distance == "cosine",
        )
        from_first_rank(codes, counts)  # a GPU adds up in an order of its own, so each rank's would differ
        level.set(codes, counts * scale, config.smoothing)
        residual = residual - F.embedding(nearest(residual, codes), codes)


def move(
    levels: Sequence[Level],
    vectors: Tensor,
    tokens: Tensor,
    config: HRVQConfig,
    generator: torch.Generator,
    *,
    index: Tensor,
    table: Tensor,
) -> None:
    """Move the codes towards the vectors (N, D) that chose them, tokens (N, L), and revive dead ones.

    ``index`` (N, L) are the tokens' rows in the table of all levels' codes.

    Every rank gives its own vectors; the statistics are those of the joined batch, so all ranks' codes stay
    equal. Their generators must be in the same state.
    """
    batch = _batch_statistics(levels, vectors, tokens, index, table)
    sum_over_ranks(*(part for level in batch for part in level))
    dead: list[tuple[Tensor, Draw] | None] = []
    residual, taken_off = vectors, 0
    for number, (level, (counts, sums)) in enumerate(zip(levels, batch, strict=True)):
        # A batch with nothing to count leaves everything as it was. A tensor, not an `if`: see below.
        share = (1 - config.decay) * (counts.sum() > 0).to(counts.dtype)
        level.counts.lerp_(counts, share)
        level.sums.lerp_(sums, share)
        which = dead_codes(level.counts, config.revive_below)
        if not vectors.is_cuda and not bool(which.any()):  # on a GPU asking would stall the stream
            dead.append(None)
            continue
        for coarser in range(taken_off, number):  # no code has moved yet
            residual = residual - F.embedding(index[:, coarser], table)
        taken_off = number
        counted = (tokens[:, number] >= 0).float()
        drawn = draw(residual, counted, len(which), generator=generator, across_ranks=True)
        dead.append((which, drawn))
    for number, (level, (counts, _), revived) in enumerate(zip(levels, batch, dead, strict=True)):
        average = smoothed(level.counts, config.smoothing)[:, None]
        moves = (counts.sum() > 0) & (average > 0)
        level.codes.copy_(torch.where(moves, level.sums / average, level.codes))
        if revived is not None:
            replace(level, *revived)
        if number == 0 and config.distance == "cosine":
            level.codes.copy_(F.normalize(level.codes, dim=1))


def _batch_statistics(
    levels: Sequence[Level], vectors: Tensor, tokens: Tensor, index: Tensor, table: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """How often each code of each level was chosen, (K,), and the sum of the residuals, (K, D)."""
    bins = [  # one bin more, thrown away: shapes stay fixed
        torch.where(chosen < 0, len(level.codes), chosen)
        for level, chosen in zip(levels, tokens.unbind(1), strict=True)
    ]
    counts = [vectors.new_zeros(len(level.codes) + 1) for level in levels]
    sums = [vectors.new_zeros(len(level.codes) + 1, vectors.shape[1]) for level in levels]
    for rows, number, residual in residuals(vectors, index, table):
        if number < len(levels):
            counts[number].index_add_(0, bins[number][rows], residual.new_ones(len(residual)))
            sums[number].index_add_(0, bins[number][rows], residual)
    return [(count[:-1], total[:-1]) for count, total in zip(counts, sums, strict=True)]

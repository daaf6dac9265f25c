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
from hrvq._statistics import Draw, Level, Statistics, dead_codes, draw, replace, smoothed

_FORGOTTEN = 1e-30  # an average count so small that a ratio to it has lost its digits


def start(
    levels: Sequence[Level],
    vectors: Tensor,
    config: HRVQConfig,
    generator: torch.Generator,
    *,
    batch_size: int | None,
    across_ranks: bool,
) -> None:
    """Start the codes by k-means, level by level, on the vectors (N, D), of all ranks or of this process.

    The counts left behind are those of a batch of ``batch_size`` vectors, by default all.
    """
    residual = join_rows(vectors) if across_ranks else vectors
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
        if across_ranks:  # a GPU adds up in an order of its own, so each rank's would differ
            from_first_rank(codes, counts)
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
    across_ranks: bool,
) -> None:
    """Move the codes towards the vectors (N, D) that chose them, tokens (N, L), and revive dead ones.

    ``index`` (N, L) are the tokens' rows in the table of all levels' codes.

    With ``across_ranks`` every rank gives its own vectors; the statistics are those of the joined batch, so
    all ranks' codes stay equal. Their generators must be in the same state.
    """
    batch = [Statistics(len(level.codes), vectors) for level in levels]
    for rows, number, residual in residuals(vectors, index, table):
        if number < len(levels):
            batch[number].add(residual, tokens[rows, number])
    if across_ranks:
        sum_over_ranks(*(part for found in batch for part in (found.counts, found.sums)))
    revived: list[tuple[Tensor, Draw] | None] = []
    residual, taken_off = vectors, 0
    for number, (level, found) in enumerate(zip(levels, batch, strict=True)):
        # A batch with nothing to count leaves everything as it was. A tensor, not an `if`: see below.
        share = (1 - config.decay) * (found.counts.sum() > 0).to(found.counts.dtype)
        level.counts.lerp_(found.counts, share)
        level.sums.lerp_(found.sums, share)
        dead = dead_codes(level.counts, config.revive_below)
        if not vectors.is_cuda and not bool(dead.any()):  # on a GPU asking would stall the stream
            revived.append(None)
            continue
        for coarser in range(taken_off, number):  # no code has moved yet
            residual = residual - F.embedding(index[:, coarser], table)
        taken_off = number
        counted = (tokens[:, number] >= 0).float()
        drawn = draw(residual, counted, len(dead), generator=generator, across_ranks=across_ranks)
        revived.append((dead, drawn))
    for number, (level, found, back) in enumerate(zip(levels, batch, revived, strict=True)):
        average = smoothed(level.counts, config.smoothing)[:, None]
        moves = (found.counts.sum() > 0) & (average > _FORGOTTEN)
        level.codes.copy_(torch.where(moves, level.sums / average, level.codes))
        if back is not None:
            replace(level, *back)
        if number == 0 and config.distance == "cosine":
            level.codes.copy_(F.normalize(level.codes, dim=1))

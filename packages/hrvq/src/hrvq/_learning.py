"""How codes start and how they move; see :meth:`hrvq.HRVQ.initialize` and :meth:`hrvq.HRVQ.update`."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._blocks import blocks
from hrvq._config import HRVQConfig, spherical
from hrvq._distributed import from_first_rank, join_rows, sum_over_ranks
from hrvq._kmeans import UNUSED, kmeans
from hrvq._nearest import nearest
from hrvq._statistics import Draw, Level, Statistics, dead_codes, draw, replace, smoothed

_FORGOTTEN = 1e-30  # an average count so small that a ratio to it is inaccurate


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

    The counts are left as those of a batch of ``batch_size`` vectors, by default all.
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
            spherical=spherical(config, index),
        )
        if across_ranks:  # GPUs add up in varying order, so the ranks' codes would differ
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

    ``index`` (N, L) holds the tokens' rows in the table of all levels' codes.

    With ``across_ranks`` every rank gives its own vectors; the statistics are those of the joined batch, so
    all ranks' codes stay equal. Their generators must be in the same state.
    """
    chosen = _Chosen(vectors, tokens, index, table)
    step = _together if config.joint else _in_turn
    moved = step(levels, chosen, config, across_ranks=across_ranks)
    revived: list[tuple[Tensor, Draw] | None] = []
    residual, taken_off = vectors, 0
    for number, after in enumerate(moved):
        dead = dead_codes(after.counts, config.revive_below)
        if not vectors.is_cuda and not bool(dead.any()):  # on a GPU checking would stall the stream
            revived.append(None)
            continue
        for coarser in range(taken_off, number):  # the table's codes have not moved yet
            residual = residual - F.embedding(index[:, coarser], table)
        taken_off = number
        counted = (tokens[:, number] >= 0).float()
        drawn = draw(residual, counted, len(dead), generator=generator, across_ranks=across_ranks)
        revived.append((dead, drawn))
    for level, after, back in zip(levels, moved, revived, strict=True):
        for part, value in zip(level, after, strict=True):
            part.copy_(value)
        if back is not None:
            replace(level, *back)


class _Chosen(NamedTuple):
    vectors: Tensor  # (N, D)
    tokens: Tensor  # (N, L), -1 for no code
    table_rows: Tensor  # (N, L)
    table: Tensor


def _in_turn(
    levels: Sequence[Level], chosen: _Chosen, config: HRVQConfig, *, across_ranks: bool
) -> list[Level]:
    """Each level moved towards what the levels before it leave."""
    batch = [Statistics(len(level.codes), chosen.vectors) for level in levels]
    for rows in blocks(chosen.vectors):
        residual = chosen.vectors[rows]
        for number, found in enumerate(batch):
            if number > 0:
                residual = residual - F.embedding(chosen.table_rows[rows, number - 1], chosen.table)
            found.add(residual, chosen.tokens[rows, number])
    if across_ranks:
        sum_over_ranks(*(part for found in batch for part in (found.counts, found.sums)))
    return [
        _averaged(level, found, config, spherical=spherical(config, number))
        for number, (level, found) in enumerate(zip(levels, batch, strict=True))
    ]


def _together(
    levels: Sequence[Level], chosen: _Chosen, config: HRVQConfig, *, across_ranks: bool
) -> list[Level]:
    """Each level moved towards what all others leave, with those before it already moved.

    One after the other, because all at once would go L times as far as the error that they share requires.
    """
    left = torch.empty_like(chosen.vectors)
    for rows in blocks(left):
        said = F.embedding_bag(chosen.table_rows[rows], chosen.table, mode="sum")
        torch.sub(chosen.vectors[rows], said, out=left[rows])
    moved: list[Level] = []
    for number, level in enumerate(levels):
        directions = spherical(config, number)  # of the vectors themselves
        found = Statistics(len(level.codes), left)
        for rows in blocks(left):
            found.add((chosen.vectors if directions else left)[rows], chosen.tokens[rows, number])
        if across_ranks:
            sum_over_ranks(found.counts, found.sums)
        if not directions:
            found.sums.addcmul_(found.counts[:, None], level.codes)
        moved.append(_averaged(level, found, config, spherical=directions))
        if level is levels[-1]:
            break  # and what is left is not needed
        steps = F.pad(moved[-1].codes - level.codes, (0, 0, 0, 1))  # the last row for no code
        bins = found.bins(chosen.tokens[:, number])
        for rows in blocks(left):
            left[rows] -= F.embedding(bins[rows], steps)
    return moved


def _averaged(level: Level, found: Statistics, config: HRVQConfig, *, spherical: bool) -> Level:
    """The level's averages and codes after a batch; unchanged if nothing in it counts."""
    some = found.counts.sum() > 0  # a tensor, not an `if`, which would wait for a GPU
    share = (1 - config.decay) * some.to(found.counts.dtype)
    counts = level.counts.lerp(found.counts, share)
    sums = torch.lerp(level.sums, found.sums, share, out=found.sums)
    average = smoothed(counts, config.smoothing)[:, None]
    codes = torch.where(some & (average > _FORGOTTEN), sums / average, level.codes)
    return Level(F.normalize(codes, dim=1) if spherical else codes, counts, sums)

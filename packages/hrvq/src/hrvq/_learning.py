"""How codes start and how they move; see :meth:`hrvq.HRVQ.initialize` and :meth:`hrvq.HRVQ.update`."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._config import HRVQConfig
from hrvq._distributed import from_first_rank, join_rows, sum_over_ranks
from hrvq._kmeans import UNUSED, kmeans
from hrvq._nearest import nearest
from hrvq._statistics import Level, code_statistics, dead_codes, draw, replace, smoothed


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
    levels: Sequence[Level], vectors: Tensor, tokens: Tensor, config: HRVQConfig, generator: torch.Generator
) -> None:
    """Move the codes towards the vectors (N, D) that chose them, tokens (N, L), and revive dead ones.

    Every rank gives its own vectors; the statistics are those of the joined batch, so all ranks' codes stay
    equal. Their generators must be in the same state.
    """
    residual = vectors
    for index, (level, chosen) in enumerate(zip(levels, tokens.unbind(1), strict=True)):
        counted = chosen >= 0
        rest = residual - F.embedding(chosen.clamp_min(0), level.codes)
        counts, sums = code_statistics(residual, chosen, len(level.codes))
        sum_over_ranks(counts, sums)
        # A batch with nothing to count leaves everything as it was. A tensor, not an `if`: see below.
        share = (1 - config.decay) * (counts.sum() > 0).to(counts.dtype)
        level.counts.lerp_(counts, share)
        level.sums.lerp_(sums, share)
        average = smoothed(level.counts, config.smoothing)[:, None]
        level.codes.copy_(torch.where((share > 0) & (average > 0), level.sums / average, level.codes))
        dead = dead_codes(level.counts, config.revive_below)
        if residual.is_cuda or bool(dead.any()):  # on a GPU asking would stall the stream
            drawn = draw(residual, counted.float(), len(dead), generator=generator, across_ranks=True)
            replace(level, dead, drawn)
        if index == 0 and config.distance == "cosine":
            level.codes.copy_(F.normalize(level.codes, dim=1))
        residual = rest  # of a masked position: anything, it has no tokens at deeper levels either

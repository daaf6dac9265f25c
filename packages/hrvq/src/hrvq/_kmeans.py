"""The k-means start of one level."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._nearest import nearest
from hrvq._statistics import Level, code_statistics, dead_codes, draw, replace

_UNUSED = 0.02  # of the mean count: a cluster as small as this is better used elsewhere


def kmeans(
    vectors: Tensor, codes: int, *, iterations: int, generator: torch.Generator, spherical: bool = False
) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means from random vectors; empty clusters move onto badly served vectors.

    Args:
        vectors: float32 (N, D), N >= 1; fewer than ``codes`` are allowed, the spare codes are then copies.
        codes: K.
        iterations: Lloyd iterations; 0 leaves the random vectors.
        generator: on the vectors' device.
        spherical: keep the codes on the unit sphere.

    Returns:
        codes (K, D) and how many vectors chose each, (K,).
    """
    order = torch.randperm(len(vectors), generator=generator, device=vectors.device)
    start = vectors[order[torch.arange(codes, device=vectors.device) % len(vectors)]]
    means = F.normalize(start, dim=1) if spherical else start.clone()
    for iteration in range(iterations):
        tokens = nearest(vectors, means)
        counts, sums = code_statistics(vectors, tokens, codes)
        moved = sums / counts.clamp_min(1)[:, None]
        if spherical:
            moved = F.normalize(moved, dim=1)
        means = torch.where(counts[:, None] > 0, moved, means)
        if iteration < iterations - 1:  # the last codes are means, so the error cannot rise
            dead = dead_codes(counts, _UNUSED)
            if bool(dead.any()):
                errors = (vectors - means[tokens]).square().sum(1)
                replace(Level(means, counts, sums), dead, draw(vectors, errors, codes, generator=generator))
    counts, _ = code_statistics(vectors, nearest(vectors, means), codes)
    return means, counts

"""The k-means start of one level."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._nearest import nearest
from hrvq._statistics import Level, dead_codes, draw, replace, total_statistics

UNUSED = 0.3  # of the mean count: if all codes are to be used, one as rare as this should move
_START_PER_CODE = 16  # vectors from which the starting codes are drawn


def _squared_distances(vectors: Tensor, codes: Tensor) -> Tensor:
    """(N, D), (k, D) -> (N,), to the nearest code; not by a product, so equal vectors have distance 0."""
    return torch.cdist(vectors, codes, compute_mode="donot_use_mm_for_euclid_dist").amin(1).square()


def spread_out(vectors: Tensor, codes: int, *, generator: torch.Generator) -> Tensor:
    """Starting codes drawn far apart: in proportion to the squared distance from those already drawn.

    k-means++ (Arthur and Vassilvitskii 2007), but from the 64th code on several are drawn at once, so that
    1024 codes take 150 passes. If the vectors have fewer distinct values, copies make up the number.

    Args:
        vectors: float32 (N, D), N >= 1.
        codes: K.
        generator: on the vectors' device.

    Returns:
        (K, D).
    """
    first = torch.randint(len(vectors), (1,), generator=generator, device=vectors.device)
    found = vectors[first]
    errors = _squared_distances(vectors, found)
    while len(found) < codes:
        number = min(max(1, len(found) // 32), codes - len(found))
        rows, keys = draw(vectors, errors, number, generator=generator)
        new = rows[keys > -torch.inf]
        if len(new) == 0:
            return found[torch.arange(codes, device=found.device) % len(found)]
        found = torch.cat([found, new])
        errors = errors.minimum(_squared_distances(vectors, new))
    return found


def kmeans(
    vectors: Tensor,
    codes: int,
    *,
    iterations: int,
    unused: float,
    generator: torch.Generator,
    spherical: bool = False,
) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means; small clusters move to where many vectors are.

    Args:
        vectors: float32 (N, D), N >= 1; fewer than ``codes`` are allowed.
        codes: K.
        iterations: Lloyd iterations; 0 leaves the starting codes.
        unused: in their first half, codes rarer than this share of the mean count are moved; 0 for none.
        generator: on the vectors' device.
        spherical: keep the codes on the unit sphere.

    Returns:
        codes (K, D) and how many vectors chose each, (K,).
    """
    few = torch.randperm(len(vectors), generator=generator, device=vectors.device)[: _START_PER_CODE * codes]
    means = spread_out(vectors[few], codes, generator=generator)
    if spherical:
        means = F.normalize(means, dim=1)
    for iteration in range(iterations):
        tokens = nearest(vectors, means)
        counts, sums = (total.float() for total in total_statistics(vectors, tokens, codes))
        moved = sums / counts.clamp_min(1)[:, None]
        if spherical:
            moved = F.normalize(moved, dim=1)
        means = torch.where(counts[:, None] > 0, moved, means)
        if iteration < iterations // 2:  # the second half only settles
            dead = dead_codes(counts, unused)
            if bool(dead.any()):
                weights = vectors.new_ones(len(vectors))
                replace(Level(means, counts, sums), dead, draw(vectors, weights, codes, generator=generator))
    return means, torch.bincount(nearest(vectors, means), minlength=codes).float()

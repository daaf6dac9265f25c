"""What each code stands for: the vectors it represents best."""

from typing import NamedTuple

import torch

from hrvq._config import whole
from hrvq._gradients import normalize
from hrvq._quantizer import HRVQ
from hrvq._sources import Vectors, VectorSource


class LevelAtlas(NamedTuple):
    """One level's codes, and vectors that show what they stand for."""

    counts: torch.Tensor
    """int64 (K,): how many vectors chose each code."""
    examples: torch.Tensor
    """int64 (K, examples): rows of the vectors nearest to the code at this level, best first; -1 for none."""


@torch.no_grad()
def atlas(
    quantizer: HRVQ, vectors: Vectors, *, examples: int = 8, batch_size: int = 8192
) -> list[LevelAtlas]:
    """Each level's code counts and the vectors closest to each code among those that chose it.

    Args:
        quantizer: a trained quantizer.
        vectors: anything that ``HRVQ.fit`` accepts.
        examples: number of vectors to list for each code.
        batch_size: vectors in memory at once.

    Returns:
        One :class:`LevelAtlas` for each level. Equally near vectors come in row order, and a vector that
        repeats an earlier one is listed like any other.
    """
    if not (whole(examples) and whole(batch_size)):
        raise ValueError(
            f"examples is {examples!r} and batch_size {batch_size!r}; give whole numbers of at least 1"
        )
    device, sizes = quantizer.table.device, quantizer.config.codes_per_level
    counts = [torch.zeros(size, dtype=torch.int64, device=device) for size in sizes]
    nearest = [torch.full((size, examples), -1, device=device) for size in sizes]
    none = torch.empty(0, dtype=torch.int64, device=device)
    held = [(none, none.float(), none) for _ in sizes]  # codes, errors and rows of the examples found so far
    for start, block in VectorSource(vectors, quantizer.config.dim).blocks(batch_size, device):
        tokens = quantizer.encode(block)
        rest = normalize(block) if quantizer.config.distance == "cosine" else block
        rows = torch.arange(start, start + len(block), device=device)
        for level, size in enumerate(sizes):
            chosen = tokens[:, level]
            rest = rest - quantizer.codebooks[level][chosen]
            counts[level] += torch.bincount(chosen, minlength=size)
            code, error, row = map(
                torch.cat, zip(held[level], (chosen, rest.square().sum(1), rows), strict=True)
            )
            # By code, then by error; the first `examples` of each code are kept.
            order = error.argsort(stable=True)
            order = order[code[order].argsort(stable=True)]
            firsts = torch.searchsorted(code[order], torch.arange(size, device=device))
            place = torch.arange(len(order), device=device) - firsts[code[order]]
            kept = order[place < examples]
            held[level] = code[kept], error[kept], row[kept]
            nearest[level][code[kept], place[place < examples]] = row[kept]
    return [LevelAtlas(c.cpu(), n.cpu()) for c, n in zip(counts, nearest, strict=True)]

"""Processes vectors block by block, and yields what each level has to code of a block.

On a CPU a block stays in the cache through everything that is done to it, where whole batches would go to
memory and back each time.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS_PER_BLOCK = 1 << 10


def blocks(vectors: Tensor) -> list[slice]:
    """The rows of each block; a single block on a GPU, and where a graph must fit any number of rows."""
    if vectors.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(None)]
    return [slice(start, start + ROWS_PER_BLOCK) for start in range(0, max(1, len(vectors)), ROWS_PER_BLOCK)]


def residuals(vectors: Tensor, index: Tensor, table: Tensor) -> Iterator[tuple[slice, int, Tensor]]:
    """What each level has to code.

    Args:
        vectors: float32 (N, D).
        index: int64 (N, L), each level's row of the table.
        table: float32 (K, D).

    Yields:
        Rows (as a slice), the level, and what the levels before it leave of these rows, (n, D), read-only.
    """
    for block in blocks(vectors):
        residual = vectors[block]
        yield block, 0, residual
        for level in range(1, index.shape[1]):
            codes = F.embedding(index[block, level - 1], table)
            residual = torch.sub(residual, codes, out=codes)
            yield block, level, residual

"""Processes vectors block by block.

On a CPU a block stays in the cache through everything that is done to it, where whole batches would go to
memory and back each time.
"""

import torch
from torch import Tensor

ROWS_PER_BLOCK = 1 << 10


def blocks(vectors: Tensor) -> list[slice]:
    """The rows of each block; a single block on a GPU, and where a graph must fit any number of rows."""
    if vectors.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(None)]
    return [slice(start, start + ROWS_PER_BLOCK) for start in range(0, max(1, len(vectors)), ROWS_PER_BLOCK)]

"""The nearest code to each vector: found fast in float32, and exact all the same.

With s_k = r.c_k - |c_k|^2 / 2 the nearest code has the largest score. Scores come from one float32 matrix
product, whose rounding is bounded (Higham 2002, section 3.1), for any order of summation, by

    |s_k - fl(s_k)| <= (D + 2) u (|r| |c_k| + |c_k|^2 / 2),        u = 2^-24.

Where the best score leads the second by more than twice that bound the winner is certain. The few other
rows are decided in float64. So a vector's token depends on the vector and the codes alone: not on the
batch it came in, the number of threads, or the matrix library.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores held at once: rows are handled in blocks, so memory does not grow with the input.
_SCORES_PER_BLOCK = {"cpu": 1 << 18, "device": 1 << 24}
# Below this many rows a plain product is as fast as the convolution.
_ROWS_FOR_CONVOLUTION = 16
# Unit roundoff of a float32 product under torch.set_float32_matmul_precision.
_ROUNDOFF = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}


def _scores(vectors: Tensor, codes: Tensor, half_norms: Tensor) -> Tensor:
    """(N, D), (K, D), (K,) -> (N, K): r.c - |c|^2/2."""
    if vectors.device.type != "cpu" or torch.compiler.is_compiling() or len(vectors) < _ROWS_FOR_CONVOLUTION:
        return F.linear(vectors, codes, -half_norms)
    # The same product as a 1x1 convolution over a row of N channels-last pixels. PyTorch sends products to
    # MKL, which leaves half the vector width of AMD's CPUs unused, and convolutions to oneDNN, which does
    # not. (The stride of 2 over a height of 1 changes nothing but PyTorch's choice in a single thread.)
    pixels = vectors.view(1, 1, len(vectors), -1).permute(0, 3, 1, 2)
    scores = F.conv2d(pixels, codes[:, :, None, None], -half_norms, stride=(2, 1))
    return scores.permute(0, 2, 3, 1).reshape(len(vectors), -1)


class _Level(NamedTuple):
    codes: Tensor  # (K, D)
    half_norms: Tensor  # (K,), |c|^2 / 2
    radius: Tensor  # (), the largest |c|


def _prepare(codes: Tensor) -> _Level:
    squares = codes.square().sum(1)
    return _Level(codes, squares / 2, squares.max().sqrt())


def _error_bound(norms: Tensor, level: _Level, unit: float) -> Tensor:
    """Largest rounding error of a vector's scores, for vectors of these ``norms``."""
    return (level.codes.shape[1] + 2) * unit * level.radius * (norms + level.radius / 2)


def _nearest(vectors: Tensor, level: _Level) -> Tensor:
    if len(level.codes) == 1:
        return torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
    scores = _scores(vectors, level.codes, level.half_norms)
    best, tokens = scores.max(1)
    scores.scatter_(1, tokens[:, None], -torch.inf)
    if vectors.device.type != "cpu" or torch.compiler.is_compiling():
        return _compare_finalists(vectors, level.codes, tokens, scores.argmax(1))
    unit = _ROUNDOFF[torch.get_float32_matmul_precision()]
    bound = _error_bound(torch.linalg.vector_norm(vectors, dim=1), level, unit)
    certain = best - scores.amax(1) > 2 * bound  # false for NaN too, from squares beyond float32
    rows = (~certain).nonzero().squeeze(1)
    if len(rows):
        tokens[rows] = _decide_exactly(vectors[rows], level)
    return tokens


def _decide_exactly(vectors: Tensor, level: _Level) -> Tensor:
    """In float64; codes that even float64 cannot tell apart count as equal, and the lowest of them wins."""
    wide, codes = vectors.double(), level.codes.double()
    squares = codes.square().sum(1)
    level = _Level(codes, squares / 2, squares.max().sqrt())
    scores = wide @ codes.T - level.half_norms
    bound = _error_bound(torch.linalg.vector_norm(wide, dim=1), level, 2.0**-53)
    tied = scores >= (scores.amax(1) - 2 * bound)[:, None]
    index = torch.arange(len(codes), device=codes.device)
    return torch.where(tied, index, len(codes)).amin(1)


def _compare_finalists(vectors: Tensor, codes: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The exact decision at shapes that do not depend on the data: each row's two finalists, in float64."""
    wide = vectors.double()
    lead = (wide - codes[second]).square().sum(1) - (wide - codes[first]).square().sum(1)
    return torch.where((lead < 0) | ((lead == 0) & (second < first)), second, first)


def search(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Greedy residual search: at each level the code nearest to what the levels before left.

    Args:
        vectors: float32 (N, D).
        codebooks: float32 (K, D) for each level.

    Returns:
        int64 (N, levels); among equally near codes the lowest. Residuals are float32 differences, which
        every device rounds alike.
    """
    levels = [_prepare(codes) for codes in codebooks]
    # On a CPU a block's vectors and scores stay in the cache through all levels; elsewhere it only bounds
    # the memory.
    budget = _SCORES_PER_BLOCK["cpu" if vectors.device.type == "cpu" else "device"]
    rows = max(1, budget // max(len(codes) for codes in codebooks))
    blocks = []
    for block in vectors.split(rows):
        tokens = []
        for index, level in enumerate(levels):
            tokens.append(_nearest(block, level))
            if index < len(levels) - 1:
                block = block - F.embedding(tokens[-1], level.codes)
        blocks.append(torch.stack(tokens, 1))
    return torch.cat(blocks) if len(blocks) > 1 else blocks[0]


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index (N,) of the code (K, D) nearest to each vector (N, D): :func:`search` with one level."""
    return search(vectors, [codes]).squeeze(1)

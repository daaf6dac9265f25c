"""The nearest code to each vector: found fast in float32, and exact all the same.

With s_k = r.c_k - |c_k|^2 / 2 the nearest code has the largest score. Scores come from one float32 matrix
product, whose rounding is bounded (Higham 2002, section 3.1), for any order of summation, by

    |s_k - fl(s_k)| <= (D + 2) u (|r| |c_k| + |c_k|^2 / 2),        u = 2^-24.

Where the best score leads the second by more than twice that bound the winner is certain. The few other
rows are decided in float64. So a vector's token depends on the vector and the codes alone: not on the
batch it came in, the number of threads, or the matrix library.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows are handled in blocks whose score matrix stays in the cache and never grows with the input.
_SCORES_PER_BLOCK = 1 << 20
# Below this many rows a plain product is as fast as the convolution.
_ROWS_FOR_CONVOLUTION = 16
# Unit roundoff of a float32 product under torch.set_float32_matmul_precision.
_ROUNDOFF = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}


def _scores(vectors: Tensor, codes: Tensor, half_norms: Tensor) -> Tensor:
    """(N, D), (K, D), (K,) -> (N, K): r.c - |c|^2/2."""
    if vectors.device.type != "cpu" or torch.compiler.is_compiling() or len(vectors) < _ROWS_FOR_CONVOLUTION:
        return F.linear(vectors, codes, -half_norms)
    # The same product as a 1x1 convolution over N channels-last pixels: PyTorch sends convolutions to
    # oneDNN, which uses the full vector width of every x86 CPU, and products to MKL, which does not on AMD.
    pixels = vectors.view(1, len(vectors), 1, -1).permute(0, 3, 1, 2)
    return (
        F.conv2d(pixels, codes[:, :, None, None], -half_norms).permute(0, 2, 3, 1).reshape(len(vectors), -1)
    )


def _decide_exactly(vectors: Tensor, codes: Tensor) -> Tensor:
    wide = codes.double()
    return (vectors.double() @ wide.T - wide.square().sum(1) / 2).argmax(1)


def _nearest_block(vectors: Tensor, codes: Tensor, half_norms: Tensor, radius: Tensor, unit: float) -> Tensor:
    scores = _scores(vectors, codes, half_norms)
    best, tokens = scores.max(1)
    second = scores.scatter_(1, tokens[:, None], -torch.inf).amax(1)
    norms = torch.linalg.vector_norm(vectors, dim=1)
    bound = (vectors.shape[1] + 2) * unit * radius * (norms + radius / 2)
    # Not ">": a row of NaN stays undecided in the comparison and keeps whatever token it has.
    if vectors.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = (best - second <= 2 * bound).nonzero().squeeze(1)
        if len(rows):
            tokens[rows] = _decide_exactly(vectors[rows], codes)
        return tokens
    # Elsewhere the shapes must not depend on the data: compare the two finalists of every row in float64.
    rival = scores.argmax(1)
    wide = vectors.double()
    mine, theirs = codes[tokens].double(), codes[rival].double()
    lead = ((wide - theirs).square() - (wide - mine).square()).sum(1)
    loses = (lead < 0) | ((lead == 0) & (rival < tokens))
    return torch.where(loses, rival, tokens)


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index of the code nearest to each vector; among equals, the lowest.

    Args:
        vectors: float32 (N, D).
        codes: float32 (K, D).

    Returns:
        int64 (N,).
    """
    if len(codes) == 1:
        return torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
    squares = codes.square().sum(1)
    radius = squares.max().sqrt()
    unit = _ROUNDOFF[torch.get_float32_matmul_precision()]
    rows = max(1, _SCORES_PER_BLOCK // len(codes))
    if len(vectors) <= rows:
        return _nearest_block(vectors, codes, squares / 2, radius, unit)
    blocks = [_nearest_block(block, codes, squares / 2, radius, unit) for block in vectors.split(rows)]
    return torch.cat(blocks)

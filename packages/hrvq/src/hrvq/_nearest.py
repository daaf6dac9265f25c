"""The nearest code to each vector: found fast in float32, and exact all the same.

With s_k = r.c_k - |c_k|^2 / 2 the nearest code has the largest score. Scores come from one float32 matrix
product, whose rounding is bounded (Higham 2002, section 3.1), for any order of summation, by

    |s_k - fl(s_k)| <= (D + 2) u (|r| |c_k| + |c_k|^2 / 2),        u = 2^-24.

with |c_k| at most the longest code's. Where the best score leads the second by more than twice that bound
the winner is certain. The few vectors with a doubt at any level are searched again in float64. So a vector's
tokens depend on the vector and the codes alone: not on the batch it came in, the number of threads, or the
matrix library.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# On a CPU a block stays in the cache through all levels; elsewhere this only bounds the memory.
_ROWS_PER_BLOCK = {"cpu": 1 << 10, "device": 1 << 15}
# Below this many rows a plain product is as fast as the convolution.
_ROWS_FOR_CONVOLUTION = 16
# Unit roundoff of a float32 product in PyTorch's names, old and new; that of bfloat16 for any other name.
_EXACT = 2.0**-24
_ROUNDOFF = dict.fromkeys(("highest", "none", "ieee"), _EXACT) | dict.fromkeys(("high", "tf32"), 2.0**-11)
_COARSEST = 2.0**-8


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
    numbers: Tensor  # (K,), 0, 1, 2 ...

    @classmethod
    def of(cls, codes: Tensor) -> "_Level":
        squares = codes.square().sum(1)
        numbers = torch.arange(len(codes), device=codes.device, dtype=codes.dtype)
        return cls(codes, squares / 2, squares.max().sqrt(), numbers)

    def error_bound(self, vectors: Tensor, unit: float) -> Tensor:
        """Largest rounding error of any score of each vector, (N,)."""
        norms = torch.linalg.vector_norm(vectors, dim=1)
        return (self.codes.shape[1] + 2) * unit * self.radius * (norms + self.radius / 2)

    def error_bounds(self, vectors: Tensor, unit: float) -> Tensor:
        """Largest rounding error of each score, (N, K): one long code puts no other in doubt."""
        norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        lengths = torch.linalg.vector_norm(self.codes, dim=1)
        return (self.codes.shape[1] + 2) * unit * lengths * (norms + lengths / 2)


def _search_fast(vectors: Tensor, levels: Sequence[_Level], unit: float) -> tuple[Tensor, Tensor]:
    """Tokens (N, L) by float32 scores, and whether each vector's are certain, (N,).

    Which scores come within twice the bound of the best is a mask of zeros and ones; where it has a single
    one, mask . (0, 1, 2 ...) is the winner's index: half the time of an argmax and a second maximum.
    """
    tokens = torch.empty(len(vectors), len(levels), dtype=torch.int64)
    candidates = torch.ones(len(vectors))
    for index, level in enumerate(levels):
        scores = _scores(vectors, level.codes, level.half_norms)
        threshold = scores.amax(1) - 2 * level.error_bound(vectors, unit)
        near = torch.ge(scores, threshold[:, None], out=torch.empty_like(scores))
        candidates *= near.sum(1)
        # With several candidates any code will do: the vector is searched again.
        if unit > _EXACT:  # the product may round the winner's index as well
            chosen = scores.argmax(1)
        else:
            chosen = (near @ level.numbers).long().clamp_max_(len(level.codes) - 1)
        tokens[:, index] = chosen
        if index < len(levels) - 1:
            vectors = vectors - F.embedding(chosen, level.codes)
    return tokens, candidates == 1


def _search_exactly(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """In float64; codes that even float64 cannot tell apart count as equal, and the lowest of them wins."""
    tokens = []
    for codes in codebooks:
        level, wide = _Level.of(codes.double()), vectors.double()
        scores = wide @ level.codes.T - level.half_norms
        doubt = level.error_bounds(wide, 2.0**-53)
        tied = scores + doubt >= (scores - doubt).amax(1, keepdim=True)
        index = torch.arange(len(codes), device=codes.device)
        tokens.append(torch.where(tied, index, len(codes) - 1).amin(1))
        vectors = vectors - F.embedding(tokens[-1], codes)
    return torch.stack(tokens, 1)


def _search_in_fixed_shapes(vectors: Tensor, levels: Sequence[_Level]) -> Tensor:
    """Where shapes must not depend on data: the two best codes of every vector are compared in float64."""
    tokens = []
    for level in levels:
        scores = _scores(vectors, level.codes, level.half_norms)
        first = scores.argmax(1)
        second = scores.scatter_(1, first[:, None], -torch.inf).argmax(1)
        wide, codes = vectors.double(), level.codes
        lead = (wide - codes[second]).square().sum(1) - (wide - codes[first]).square().sum(1)
        tokens.append(torch.where((lead < 0) | ((lead == 0) & (second < first)), second, first))
        vectors = vectors - F.embedding(tokens[-1], codes)
    return torch.stack(tokens, 1)


def _unit_roundoff() -> float:
    """Of a float32 product on a CPU, as the program has set PyTorch: the coarsest of what may apply."""
    backend: Any = torch.backends.mkldnn
    if hasattr(backend, "matmul"):  # since PyTorch 2.9; the old getter may refuse to answer
        settings = {backend.matmul.fp32_precision, backend.conv.fp32_precision}
    else:
        settings = {torch.get_float32_matmul_precision()}
    return max(_ROUNDOFF.get(setting, _COARSEST) for setting in settings)


def search(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Greedy residual search: at each level the code nearest to what the levels before left.

    Args:
        vectors: float32 (N, D).
        codebooks: float32 (K, D) for each level.

    Returns:
        int64 (N, levels); among equally near codes the lowest. Residuals are float32 differences, which
        every device rounds alike.
    """
    levels = [_Level.of(codes) for codes in codebooks]
    on_cpu = vectors.device.type == "cpu" and not torch.compiler.is_compiling()
    blocks = vectors.split(_ROWS_PER_BLOCK["cpu" if on_cpu else "device"])
    if not on_cpu:
        return torch.cat([_search_in_fixed_shapes(block, levels) for block in blocks])
    unit = _unit_roundoff()
    found = [_search_fast(block, levels, unit) for block in blocks]
    tokens, certain = (torch.cat(parts) for parts in zip(*found, strict=True))
    rows = (~certain).nonzero().squeeze(1)
    for part in rows.split(len(blocks[0])) if len(rows) else ():
        tokens[part] = _search_exactly(vectors[part], codebooks)
    return tokens


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index (N,) of the code (K, D) nearest to each vector (N, D): :func:`search` with one level."""
    return search(vectors, [codes]).squeeze(1)

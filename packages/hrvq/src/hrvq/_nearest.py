"""The code nearest to each vector: found fast in float32, and yet exact.

With s_k = r.c_k - |c_k|^2 / 2 the nearest code has the largest score. Scores come from one float32 matrix
product, whose rounding is bounded (Higham 2002, section 3.1), for any order of summation, by

    |s_k - fl(s_k)| <= (D + 6) u (|r| |c_k| + |c_k|^2 / 2),        u = 2^-24.

with |c_k| at most the length of the longest code. Where all codes lie to one side, r and c_k are measured
from the codes' mean: distances stay the same, the lengths in the bound shrink, and 4 of the D + 6 are for
rounding the differences and the lengths. Where the best score leads the second by more than twice that bound,
the winner is certain; the few vectors in doubt at a level are searched there in float64. So a vector's tokens
depend only on the vector and the codes: not on the batch it came in, the number of threads, or the matrix
library.
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._blocks import ROWS_PER_BLOCK
from hrvq._precision import widest

# On a CPU a block of `ROWS_PER_BLOCK` stays in the cache through all levels; elsewhere this only bounds the
# memory.
_ROWS_PER_DEVICE_BLOCK = 1 << 15
# Below this many rows a plain product is as fast as the convolution.
_ROWS_FOR_CONVOLUTION = 16
# Unit roundoff of a float32 product by PyTorch's names, old and new; that of bfloat16 for any other name.
_EXACT = 2.0**-24
_ROUNDOFF = dict.fromkeys(("highest", "none", "ieee"), _EXACT) | dict.fromkeys(("high", "tf32"), 2.0**-11)
_COARSEST = 2.0**-8
_UNDERFLOW = 2.0**-126  # a product this small is rounded by absolute steps
# Codes lie to one side if the squared length of their mean exceeds this share of the longest code's.
_TO_ONE_SIDE = 0.5
_FAR = 2.0**-10  # size of the codes about their mean, relative to its length, below which float64 suffers too


def _scores(vectors: Tensor, codes: Tensor, half_norms: Tensor) -> Tensor:
    """(N, D), (K, D), (K,) -> (N, K): r.c - |c|^2/2."""
    if vectors.device.type != "cpu" or torch.compiler.is_compiling() or len(vectors) < _ROWS_FOR_CONVOLUTION:
        return F.linear(vectors, codes, -half_norms)
    # The same product as a 1x1 convolution over a row of N channels-last pixels. PyTorch sends products to
    # MKL, which leaves half the vector width of AMD CPUs unused, and convolutions to oneDNN, which does not.
    # (The stride of 2 over a height of 1 changes only which kernel PyTorch chooses with a single thread.)
    pixels = vectors.view(1, 1, len(vectors), -1).permute(0, 3, 1, 2)
    scores = F.conv2d(pixels, codes[:, :, None, None], -half_norms, stride=(2, 1))
    return scores.permute(0, 2, 3, 1).reshape(len(vectors), -1)


class _Level(NamedTuple):
    codes: Tensor  # (K, D)
    centre: Tensor | None  # (D,), subtracted from vectors and codes before they are multiplied
    shifted: Tensor  # (K, D), the codes minus the centre
    half_norms: Tensor  # (K,), |c|^2 / 2 of the shifted codes
    radius: Tensor  # (), the largest |c| of them
    numbers: Tensor  # (K,), K, K + 1, K + 2 ...: two of them add up to 2 K or more

    @classmethod
    def of(cls, codes: Tensor) -> "_Level":
        lengths, mean = torch.linalg.vector_norm(codes, dim=1), codes.mean(0)
        numbers = torch.arange(len(codes), 2 * len(codes), device=codes.device, dtype=codes.dtype)
        radius, centre, shifted = lengths.max(), None, codes
        if float(mean.dot(mean)) > _TO_ONE_SIDE * float(radius) ** 2:
            centre, shifted = mean, codes - mean
            lengths = torch.linalg.vector_norm(shifted, dim=1)
            radius = lengths.max()
        return cls(codes, centre, shifted, lengths.square() / 2, radius, numbers)

    def error_bound(self, lengths: Tensor, roundoff: float) -> Tensor:
        """Largest rounding error of any score of each vector, by its length from the centre, both (N,)."""
        relative = roundoff * self.radius * (lengths + self.radius / 2)
        return (self.codes.shape[1] + 6) * (relative + _UNDERFLOW)


class _FixedLevel(NamedTuple):
    """For scores that are right up to one common factor, whatever the codes' size and position."""

    codes: Tensor  # (K, D)
    centre: Tensor  # (D,)
    weights: Tensor  # (K, D), the codes minus the centre, divided by the square of their size
    half_norms: Tensor  # (K,), half their squared length, divided by the same

    @classmethod
    def of(cls, codes: Tensor) -> "_FixedLevel":
        centre = codes.to(widest(codes.device)).mean(0).to(codes.dtype)
        radius = torch.linalg.vector_norm(codes, dim=1).amax()
        # One long code among many would pull the mean away from all others, and spoil their products.
        centre = torch.where(centre.dot(centre) > _TO_ONE_SIDE * radius.square(), centre, 0)
        size = (codes - centre).abs().amax().clamp_min(1e-30)  # squares of large codes would overflow
        scaled = (codes - centre) / size
        return cls(codes, centre, scaled / size, scaled.square().sum(1) / 2)


class Measured(NamedTuple):
    """Tokens, and how far off they are.

    Attributes:
        tokens: int64 (N, L).
        errors: float32 (N, L), the squared length of what each level leaves.
    """

    tokens: Tensor
    errors: Tensor


def _search_block(vectors: Tensor, levels: Sequence[_Level], roundoff: float, *, measured: bool) -> Measured:
    """Search by float32 scores where they are certain, and in float64 where they are not.

    The scores within twice the bound of the best form a mask of zeros and ones. If it has a single one,
    mask . (K, K + 1, K + 2 ...) is K more than the winner's index; otherwise it is at least 2 K, or 0 if the
    scores are not numbers. This takes half the time of an argmax and a second maximum. The last level's error
    takes a pass of its own; the others' come with the bounds.
    """
    tokens = torch.empty(len(vectors), len(levels), dtype=torch.int64, device=vectors.device)
    errors = vectors.new_empty(len(vectors), len(levels) if measured else 0)
    for index, level in enumerate(levels):
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        if measured and index > 0:
            errors[:, index - 1] = lengths.square()
        shifted = vectors
        if level.centre is not None:
            shifted = vectors - level.centre
            lengths = torch.linalg.vector_norm(shifted, dim=1)
        scores = _scores(shifted, level.shifted, level.half_norms)
        threshold = scores.amax(1) - 2 * level.error_bound(lengths, roundoff)
        near, size = scores.ge_(threshold[:, None]), len(level.codes)
        if roundoff > _EXACT:  # the product may round the winner's index as well
            chosen = near.argmax(1)
            certain = near.sum(1) == 1
        else:
            chosen = (near @ level.numbers).long().sub_(size)
            certain = (chosen >= 0) & (chosen < size)
        in_doubt = certain.logical_not_().nonzero().squeeze(1)
        if len(in_doubt):
            chosen[in_doubt] = _nearest_exactly(vectors[in_doubt], level)
        tokens[:, index] = chosen
        if measured or index < len(levels) - 1:
            codes = F.embedding(chosen, level.codes)
            vectors = torch.sub(vectors, codes, out=codes)
    if measured:
        errors[:, -1] = torch.linalg.vector_norm(vectors, dim=1).square_()
    return Measured(tokens, errors)


def _nearest_exactly(vectors: Tensor, level: _Level) -> Tensor:
    """Search in float64; codes that even float64 cannot tell apart count as equal, and the lowest wins."""
    wide, codes = vectors.double(), level.codes.double()
    rounding = (codes.shape[1] + 6) * 2.0**-53
    if level.centre is None or level.radius >= _FAR * torch.linalg.vector_norm(level.centre):
        norms = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
        lengths = torch.linalg.vector_norm(codes, dim=1)
        scores = wide @ codes.T - lengths.square() / 2
        doubt = rounding * lengths * (norms + lengths / 2)  # one long code puts no other in doubt
        tied = scores + doubt >= (scores - doubt).amax(1, keepdim=True)
    else:  # differences, not a product, which even in float64 would be less certain than float32 was
        distances = torch.cdist(wide, codes, compute_mode="donot_use_mm_for_euclid_dist")
        tied = distances <= distances.amin(1, keepdim=True) * (1 + rounding)
    index = torch.arange(len(codes), device=codes.device)
    return torch.where(tied, index, len(codes) - 1).amin(1)


def _search_in_fixed_shapes(vectors: Tensor, levels: Sequence[_FixedLevel], *, measured: bool) -> Measured:
    """For when shapes must not depend on data: the two best codes of every vector are compared again."""
    tokens, errors = [], []
    for level in levels:
        scores = _scores(vectors - level.centre, level.weights, level.half_norms)
        first = scores.argmax(1)
        second = scores.scatter_(1, first[:, None], -torch.inf).argmax(1)
        wide, codes = vectors.to(widest(vectors.device)), level.codes
        lead = (wide - codes[second]).square().sum(1) - (wide - codes[first]).square().sum(1)
        tokens.append(torch.where((lead < 0) | ((lead == 0) & (second < first)), second, first))
        vectors = vectors - F.embedding(tokens[-1], codes)
        if measured:
            errors.append(vectors.square().sum(1))
    return Measured(torch.stack(tokens, 1), torch.stack(errors, 1) if measured else vectors[:, :0])


def _unit_roundoff() -> float:
    """Of a float32 product on a CPU, as program and environment set it: the coarsest that may apply."""
    # oneDNN reads these itself, without PyTorch knowing.
    names = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
    if any(os.environ.get(name, "STRICT").upper() != "STRICT" for name in names):
        return _COARSEST
    backend: Any = torch.backends.mkldnn
    if hasattr(backend, "matmul"):  # since PyTorch 2.9; the old getter may raise an error
        settings = {backend.matmul.fp32_precision, backend.conv.fp32_precision}
    else:
        settings = {torch.get_float32_matmul_precision()}
    return max(_ROUNDOFF.get(setting, _COARSEST) for setting in settings)


@torch.no_grad()
def _search(vectors: Tensor, codebooks: Sequence[Tensor], *, measured: bool) -> Measured:
    """Tokens, and the errors if ``measured``; otherwise those are (N, 0)."""
    if vectors.device.type != "cpu" or torch.compiler.is_compiling():
        fixed = [_FixedLevel.of(codes) for codes in codebooks]
        if torch.compiler.is_compiling():  # a graph of several blocks would fit no other number of rows
            return _search_in_fixed_shapes(vectors, fixed, measured=measured)
        blocks = vectors.split(_ROWS_PER_DEVICE_BLOCK)
        found = [_search_in_fixed_shapes(block, fixed, measured=measured) for block in blocks]
    else:
        levels, roundoff = [_Level.of(codes) for codes in codebooks], _unit_roundoff()
        blocks = vectors.split(ROWS_PER_BLOCK)
        found = [_search_block(block, levels, roundoff, measured=measured) for block in blocks]
    return Measured(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def search(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """Greedy residual search: at each level the code nearest to what the levels before leave.

    Args:
        vectors: float32 (N, D).
        codebooks: float32 (K, D) for each level.

    Returns:
        int64 (N, levels); the lowest of equally near codes. Residuals are float32 differences, which
        every device rounds alike.
    """
    return _search(vectors, codebooks, measured=False).tokens


def search_measured(vectors: Tensor, codebooks: Sequence[Tensor]) -> Measured:
    """:func:`search`, and the squared length of what each level leaves."""
    return _search(vectors, codebooks, measured=True)


def nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """Index (N,) of the code (K, D) nearest to each vector (N, D): :func:`search` with one level."""
    return search(vectors, [codes]).squeeze(1)

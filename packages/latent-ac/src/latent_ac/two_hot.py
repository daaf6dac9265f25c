"""Regression by classification: a scalar as weights on its two neighbouring bins, bins spaced by symexp.

DreamerV3 (Hafner et al., 2023, https://arxiv.org/abs/2301.04104, eq. 9-11). The bins and the interpolation
are in the scalar's own units, so the expectation of a two-hot target is the scalar itself.
"""

import torch
from torch import Tensor

from latent_ac._checks import require_bins


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(|x| + 1)."""
    return torch.where(x == 0, x, x.sign() * x.abs().log1p())  # the product alone has no gradient at 0


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp(|x|) - 1), the inverse of ``symlog``."""
    return torch.where(x == 0, x, x.sign() * x.abs().expm1())


def symexp_bins(num_bins: int, limit: float) -> Tensor:
    """Bins, float32 (num_bins,), spaced evenly between -limit and limit in symlog space.

    Exactly antisymmetric around a bin at exactly 0, so ``num_bins`` must be odd.

    Raises:
        ValueError: ``num_bins`` is even or below 3, or ``limit`` is not above 0 or above 80.
    """
    require_bins(num_bins, limit)
    upper = symexp(torch.linspace(0.0, limit, num_bins // 2 + 1, dtype=torch.float32))
    return torch.cat((-upper[1:].flip(0), upper))


def two_hot(values: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """The two bins around each value and their weights, int64 (..., 2) and float32 (..., 2).

    For b_i <= x <= b_(i+1) the weights are (b_(i+1) - x) / (b_(i+1) - b_i) and its complement, so that
    sum_j weight_j bins[index_j] = x. Values outside the bins count as the outermost bin.
    """
    values = values.float().clamp(bins[0], bins[-1]).contiguous()
    lower = torch.searchsorted(bins, values, right=True).sub_(1).clamp_(0, len(bins) - 2)
    below, above = bins[lower], bins[lower + 1]
    upper_weight = (values - below) / (above - below)
    return torch.stack((lower, lower + 1), -1), torch.stack((1 - upper_weight, upper_weight), -1)


def two_hot_cross_entropy(logits: Tensor, values: Tensor, bins: Tensor) -> Tensor:
    """-sum_j weight_j log softmax(logits)_j in float32: logits (..., N), values (...) -> (...).

    Raises:
        ValueError: there is not one value for each row of logits.
    """
    return two_hot_nll(logits.float().log_softmax(-1), values, bins)


def two_hot_nll(log_probs: Tensor, values: Tensor, bins: Tensor) -> Tensor:
    """-sum_j weight_j log_probs_j: (..., N), (...) -> (...); gathers two terms, builds no dense target."""
    if values.shape != log_probs.shape[:-1]:  # gather would accept fewer
        raise ValueError(
            f"values {tuple(values.shape)} do not fit logits {tuple(log_probs.shape)}; "
            "give (...) and (..., N)"
        )
    index, weight = two_hot(values, bins)
    return -(log_probs.gather(-1, index) * weight).sum(-1)


def expectation(probabilities: Tensor, bins: Tensor) -> Tensor:
    """sum_j probabilities_j bins_j, (..., N) -> (...), for antisymmetric ``bins``.

    Mirrored bins are subtracted before they are weighted: with bins up to tens of thousands a plain sum
    would not return 0 for a uniform distribution.
    """
    half = len(bins) // 2
    difference = probabilities[..., half + 1 :] - probabilities[..., :half].flip(-1)
    return (difference * bins[half + 1 :]).sum(-1)  # not a matmul: autocast would run that in bfloat16

"""How gradients pass through a quantizer, and how its levels pull on the input.

``straight_through`` and ``rotation`` return the quantized values bit for bit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._blocks import blocks

_NO_LENGTH = 1e-6  # a vector this short has no direction
_TOO_SHORT = 1e-3  # of its code's length: stretched that much, its gradient would grow as much


def normalize(x: Tensor) -> Tensor:
    """Vectors (..., D) at unit length; those shorter than 1e-6 are divided by that, without a gradient."""
    short = torch.linalg.vector_norm(x.detach(), dim=-1, keepdim=True) < _NO_LENGTH
    # Their gradient would be a million times that of the others, and silence, in audio, is often exactly 0.
    return F.normalize(torch.where(short, x.detach(), x), dim=-1, eps=_NO_LENGTH)


class _StraightThrough(torch.autograd.Function):
    """Because `x + (quantized - x).detach()` would read and write everything twice, and round."""

    @staticmethod
    def forward(x: Tensor, quantized: Tensor) -> Tensor:
        return quantized.detach()  # as a view it could not be changed in place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` (..., D) with the gradient of ``x`` (Bengio et al. 2013, https://arxiv.org/abs/1308.3432)."""
    straight: Tensor = _StraightThrough.apply(x, quantized)
    return straight


class _Rotation(torch.autograd.Function):
    """The value is known, so only the gradient needs arithmetic: it is rotated back."""

    @staticmethod
    def forward(x: Tensor, quantized: Tensor) -> Tensor:
        return quantized.detach()  # as a view it could not be changed in place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, quantized = (saved.detach() for saved in ctx.saved_tensors)
        parts = [_turned_back(gradient[rows], x[rows], quantized[rows]) for rows in blocks(gradient)]
        return torch.cat(parts) if len(parts) > 1 else parts[0], None


def _turned_back(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """|q|/|x| R^T g, all (n, D)."""
    lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    wanted = torch.linalg.vector_norm(quantized, dim=-1, keepdim=True)
    turns = lengths > _TOO_SHORT * wanted
    a, b = F.normalize(x, dim=-1), F.normalize(quantized, dim=-1)
    w = F.normalize(a + b, dim=-1)

    def dot(u: Tensor) -> Tensor:
        return (u * gradient).sum(-1, keepdim=True)

    turned = (gradient - 2 * w * dot(w) + 2 * a * dot(b)) * (wanted / torch.where(turns, lengths, 1.0))
    return torch.where(turns, turned, gradient)


def rotation(x: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` (N, D) as the rotated and rescaled ``x`` (N, D); the rotation is held constant.

    With a = x/|x|, b = q/|q| and w = (a + b)/|a + b|, the rotation that takes a to b is
    R = I - 2 w w^T + 2 b a^T, and q = |q|/|x| R x (Fifty et al. 2024, https://arxiv.org/abs/2410.06424, 4.2).
    Where |x| is less than a thousandth of |q|, in particular zero, the gradient passes straight through:
    otherwise it would be scaled by more than a thousand.
    """
    rotated: Tensor = _Rotation.apply(x, quantized)
    return rotated


class _Commitment(torch.autograd.Function):
    """The gradient of all levels in one pass; with autograd each level would keep three buffers."""

    @staticmethod
    def forward(x: Tensor, errors: Tensor, shares: Tensor, index: Tensor, table: Tensor) -> Tensor:
        return (errors * shares).sum(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x, _, *others = inputs
        ctx.save_for_backward(x, *others)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, shares, index, table = ctx.saved_tensors
        # sum_l f_l (x - c_0 - ... - c_l) = F_0 x - F_0 c_0 - F_1 c_1 - ...,  F_l = f_l + f_l+1 + ...
        factors = (2 * gradient * shares).flip(1).cumsum(1).flip(1)
        total = F.embedding_bag(index, table, per_sample_weights=-factors, mode="sum")
        return total.addcmul_(x, factors[:, :1]), None, None, None, None


def commitment(
    x: Tensor, errors: Tensor, weights: Tensor, counted: Tensor | None, *, index: Tensor, table: Tensor
) -> Tensor:
    """Each level's weighted loss w_l mean |r_l - sg(c_l)|^2 / D, float32 (L,).

    r_l - c_l = x - (c_0 + ... + c_l), in which only x carries a gradient, so every level pulls on the input:
    dloss_l/dx = 2 w_l (r_l - c_l) / (N D).

    Args:
        x: (N, D).
        errors: float32 (N, L), |r_l - c_l|^2, as :func:`hrvq._nearest.search_measured` returns them.
        weights: float32 (L,), already on the device: creating them at every step would wait for a GPU.
        counted: bool (N, L), which vectors each level's mean is over; None for all.
        index: int64 (N, L), each level's row of the table.
        table: (K, D), of which a gradient keeps a copy, because the codes may have moved by the time it is
            computed.
    """
    used = torch.ones_like(errors) if counted is None else counted.float()
    shares = used * (weights / x.shape[1] / used.sum(0).clamp_min(1))
    kept = table.clone() if x.requires_grad and torch.is_grad_enabled() else table
    losses: Tensor = _Commitment.apply(x, errors, shares, index, kept)
    return losses

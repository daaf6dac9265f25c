"""How gradients pass a quantizer, and how its levels pull on the input.

``straight_through`` and ``rotation`` return the quantized values bit for bit.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` (..., D) with the gradient of ``x`` (Bengio et al. 2013, https://arxiv.org/abs/1308.3432)."""
    return quantized.detach() + (x - x.detach())


def rotation(x: Tensor, quantized: Tensor) -> Tensor:
    """``quantized`` (..., D) as the rotated and rescaled ``x``; the rotation is held constant.

    With a = x/|x|, b = q/|q| and w = (a + b)/|a + b|, the rotation that takes a to b is
    R = I - 2 w w^T + 2 b a^T, and q = |q|/|x| R x (Fifty et al. 2024, https://arxiv.org/abs/2410.06424, 4.2).
    """
    source, target = x.detach(), quantized.detach()
    a, b = F.normalize(source, dim=-1), F.normalize(target, dim=-1)
    w = F.normalize(a + b, dim=-1)
    scale = target.norm(dim=-1, keepdim=True) / source.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def dot(u: Tensor) -> Tensor:
        return (u * x).sum(-1, keepdim=True)

    rotated = scale * (x - 2 * w * dot(w) + 2 * b * dot(a))
    return target + (rotated - rotated.detach())


def commitment(
    x: Tensor, level_embeddings: Tensor, weights: tuple[float, ...], counted: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The sum of the levels (N, D), and each level's weighted loss w_l mean |r_l - sg(c_l)|^2 / D: (L,).

    r_l - c_l = x - (c_0 + ... + c_l), of which only x carries a gradient, so every level pulls on the input:
    dloss_l/dx = 2 w_l (r_l - c_l) / (N D).

    Args:
        x: (N, D).
        level_embeddings: (N, L, D).
        weights: one for each level.
        counted: bool (N, L), which vectors each level's mean is over; None for all.
    """
    quantized, losses = level_embeddings[:, 0], []
    for level, weight in enumerate(weights):
        if level > 0:
            quantized = quantized + level_embeddings[:, level]
        if counted is None:
            loss = F.mse_loss(x, quantized)
        else:
            used = counted[:, level].float()
            loss = ((x - quantized).square().mean(1) * used).sum() / used.sum().clamp_min(1)
        losses.append(weight * loss)
    return quantized, torch.stack(losses)

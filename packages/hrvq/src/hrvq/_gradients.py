"""How a gradient passes a quantizer. Both return the quantized values bit for bit."""

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

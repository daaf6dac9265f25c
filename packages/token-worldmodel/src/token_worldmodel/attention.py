"""Masked attention over whole windows, in the form each device runs fastest.

Shape legend: B batch, H heads, Q queries, N keys, E head width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .masks import Block, Plan


def attend(q_BHQE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, plan: Plan) -> Tensor:
    """softmax(q k^T / sqrt(E) + mask) v, as (B, H, Q, E)."""
    if plan.blocks:
        return _BlockAttention.apply(q_BHQE, k_BHNE, v_BHNE, plan.blocks)
    return F.scaled_dot_product_attention(q_BHQE, k_BHNE, v_BHNE, attn_mask=plan.visible)


def attend_few(q_BHQE: Tensor, k_BHNE: Tensor, v_BHNE: Tensor, bias_QN: Tensor | None) -> Tensor:
    """The same for a few queries at the end of a play, without gradients; -inf in ``bias`` hides a key."""
    if q_BHQE.device.type != "cpu":
        return F.scaled_dot_product_attention(q_BHQE, k_BHNE, v_BHNE, attn_mask=bias_QN)
    scores = torch.matmul(q_BHQE * (1.0 / math.sqrt(q_BHQE.shape[-1])), k_BHNE.transpose(-1, -2))
    if bias_QN is not None:
        scores += bias_QN
    return torch.matmul(torch.softmax(scores, -1), v_BHNE)


class _BlockAttention(torch.autograd.Function):
    """Attention as batched products, block by block, over the keys each block can see.

    PyTorch's fused CPU kernel computes every score the mask then removes, and is slow in bfloat16. Here
    a block of queries meets only its visible keys; the block's scores stay in the cache of the CPU.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: tuple[Block, ...]) -> Tensor:
        scale = 1.0 / math.sqrt(q.shape[-1])
        out = torch.empty(q.shape, dtype=q.dtype)
        weights = []
        for block in plan:
            scores = torch.matmul(q[:, :, block.queries] * scale, k[:, :, block.keys].transpose(-1, -2))
            weight = torch.softmax(scores.add_(block.bias.to(scores.dtype)), -1)
            out[:, :, block.queries] = torch.matmul(weight, v[:, :, block.keys])
            weights.append(weight)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.plan = plan
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        (grad,) = grads
        scale = 1.0 / math.sqrt(q.shape[-1])
        dq = torch.empty(q.shape, dtype=q.dtype)
        # Many blocks add to the same key, so the sums are kept in float32.
        dk = torch.zeros(k.shape, dtype=torch.float32)
        dv = torch.zeros(v.shape, dtype=torch.float32)
        for block, weight in zip(ctx.plan, weights, strict=True):
            g = grad[:, :, block.queries]
            keys = k[:, :, block.keys]
            dv.index_add_(2, block.keys, torch.matmul(weight.transpose(-1, -2), g).float())
            dweight = torch.matmul(g, v[:, :, block.keys].transpose(-1, -2))
            # d softmax: w * (dw - sum(w * dw)), the sum being that over the block's keys.
            dscores = torch._softmax_backward_data(dweight, weight, -1, weight.dtype)
            dq[:, :, block.queries] = torch.matmul(dscores, keys) * scale
            dk.index_add_(
                2, block.keys, torch.matmul(dscores.transpose(-1, -2), q[:, :, block.queries] * scale).float()
            )
        return dq, dk.to(k.dtype), dv.to(v.dtype), None

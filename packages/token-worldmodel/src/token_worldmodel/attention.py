"""Masked attention, in the form each device runs fastest.

Shape legend: B batch, H heads, N positions, Q queries, K keys, E head width, X = B * H.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .masks import Block, Plan


def attend(qkv_BN3HE: Tensor, plan: Plan) -> Tensor:
    """softmax(q k^T / sqrt(E) + mask) v of a whole window, as (B, N, H * E)."""
    if plan.blocks:
        return _BlockAttention.apply(qkv_BN3HE, plan.blocks).flatten(2)
    q, k, v = qkv_BN3HE.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=plan.visible).transpose(1, 2).flatten(2)


def attend_few(q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, bias_QK: Tensor) -> Tensor:
    """The same for a few queries at a play's end, as (B, Q, H * E); -inf in ``bias`` hides a key."""
    if q_BHQE.device.type == "cpu":
        q, k, v = (x.flatten(0, 1) for x in (q_BHQE, k_BHKE, v_BHKE))  # (X, Q, E), (X, K, E) twice
        scores = torch.baddbmm(bias_QK, q, k.transpose(1, 2), alpha=1.0 / math.sqrt(q.shape[-1]))
        attended = torch.bmm(torch.softmax(scores, -1), v).view(q_BHQE.shape)
    else:
        attended = F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=bias_QK)
    return attended.transpose(1, 2).flatten(2)


class _BlockAttention(torch.autograd.Function):
    """Attention as batched products, block by block, over the keys each block can see.

    PyTorch's fused CPU kernel computes every score the mask then removes, and is slow in bfloat16. Here
    a block of queries meets only its visible keys, and its scores stay in the CPU's cache. Queries, keys
    and values come and go as the one tensor that the linear layers around attention make and take.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, plan: tuple[Block, ...]) -> Tensor:
        batch, length, _, heads, width = qkv.shape
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, width).unbind(0)  # (X, N, E)
        out = qkv.new_empty(batch, length, heads, width)
        weights = []
        for block in plan:
            bias = block.bias.to(q.dtype)
            keys = k.index_select(1, block.keys).transpose(1, 2)
            scores = torch.baddbmm(bias, q[:, block.queries], keys, alpha=1.0 / math.sqrt(width))
            weight = torch.softmax(scores, -1)
            attended = torch.bmm(weight, v.index_select(1, block.keys))
            out[:, block.queries] = attended.unflatten(0, (batch, heads)).transpose(1, 2)
            weights.append(weight)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.plan = plan
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        q, k, v, *weights = ctx.saved_tensors
        (grad,) = grads
        batch, length, heads, width = grad.shape
        grad = grad.transpose(1, 2).reshape(batch * heads, length, width)
        dqkv = grad.new_empty(batch, length, 3, heads, width)
        # Many blocks add to the same key, so those sums are kept in float32.
        dkeys, dvalues = torch.zeros(2, *k.shape).unbind(0)
        for block, weight in zip(ctx.plan, weights, strict=True):
            dout, query = grad[:, block.queries], q[:, block.queries]
            dvalues.index_add_(1, block.keys, torch.bmm(weight.transpose(1, 2), dout).float())
            dweight = torch.bmm(dout, v.index_select(1, block.keys).transpose(1, 2))
            # Softmax's gradient, w (dw - sum(w dw)), and that of the scale.
            dscores = torch._softmax_backward_data(dweight, weight, -1, weight.dtype)
            dscores *= 1.0 / math.sqrt(width)
            dquery = torch.bmm(dscores, k.index_select(1, block.keys))
            dqkv[:, block.queries, 0] = dquery.unflatten(0, (batch, heads)).transpose(1, 2)
            dkeys.index_add_(1, block.keys, torch.bmm(dscores.transpose(1, 2), query).float())
        dqkv[:, :, 1] = dkeys.unflatten(0, (batch, heads)).transpose(1, 2)
        dqkv[:, :, 2] = dvalues.unflatten(0, (batch, heads)).transpose(1, 2)
        return dqkv, None

"""Masked attention, in the form that is fastest on each device.

Shape legend: B batch, H heads, T steps, S slots of a step, N positions, Q queries, K keys, E head width,
X = B * H.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .masks import Block, Plan


def attend(qkv_BN3HE: Tensor, plan: Plan) -> Tensor:
    """softmax(q k^T / sqrt(E) + mask) v of a whole window, as (B, N, H * E)."""
    if plan.blocks:
        return _BlockAttention.apply(qkv_BN3HE, plan).flatten(2)
    q, k, v = qkv_BN3HE.permute(2, 0, 3, 1, 4).unbind(0)
    return _fused(q, k, v, plan.visible).transpose(1, 2).flatten(2)


def attend_few(q_BHQE: Tensor, k_BHKE: Tensor, v_BHKE: Tensor, bias_QK: Tensor) -> Tensor:
    """The same for the last few queries of a sequence, as (B, Q, H * E); -inf in ``bias_QK`` hides a key."""
    if q_BHQE.device.type == "cpu":
        q, k, v = (x.flatten(0, 1) for x in (q_BHQE, k_BHKE, v_BHKE))  # (X, Q, E), (X, K, E) twice
        scores = torch.baddbmm(bias_QK, q, k.transpose(1, 2), alpha=1.0 / math.sqrt(q.shape[-1]))
        attended = torch.bmm(torch.softmax(scores, -1), v).view(q_BHQE.shape)
    else:
        attended = _fused(q_BHQE, k_BHKE, v_BHKE, bias_QK)
    return attended.transpose(1, 2).flatten(2)


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """PyTorch's own attention under a mask.

    Not cuDNN's, which PyTorch prefers on Hopper: under a mask its gradients may be NaN at lengths such as 192
    (https://github.com/pytorch/pytorch/issues/196678), and it assumes that a mask's rows are aligned.
    """
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class _BlockAttention(torch.autograd.Function):
    """Attention as batched products, block by block, over the keys each block can see.

    PyTorch's fused CPU kernel also computes the scores that the mask then removes, and is slow in bfloat16.
    Here each block of queries is multiplied only with the keys visible to it, and its scores stay in the
    CPU's cache. Queries, keys and values come in, and their gradients go out, as the one tensor that the
    linear layer before attention produces.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, plan: Plan) -> Tensor:
        batch, _, _, heads, width = qkv.shape
        steps = qkv.unflatten(1, (plan.num_steps, -1))
        keys, values = (
            [_by_head(steps[:, :, slots, part]) for slots in (plan.lasting, plan.passing)] for part in (1, 2)
        )
        out = torch.empty_like(qkv[:, :, 0])
        queries, weights = [], []
        for block in plan.blocks:
            query = _by_head(qkv[:, block.queries, None, 0])
            k = _seen(keys, block).transpose(1, 2)
            scores = torch.baddbmm(block.bias.to(k.dtype), query, k, alpha=1.0 / math.sqrt(width))
            weight = torch.softmax(scores, -1)
            attended = torch.bmm(weight, _seen(values, block))
            out[:, block.queries] = attended.unflatten(0, (batch, heads)).transpose(1, 2)
            queries.append(query)
            weights.append(weight)
        ctx.save_for_backward(*keys, *values, *queries, *weights)
        ctx.plan = plan
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # with create_graph: what follows would be silently wrong
            raise RuntimeError("this attention has no second derivatives on a CPU; leave create_graph out")
        (grad,) = grads
        batch, length, heads, width = grad.shape
        blocks, saved = ctx.plan.blocks, ctx.saved_tensors
        keys, values, rest = saved[:2], saved[2:4], saved[4:]
        queries, weights = rest[: len(blocks)], rest[len(blocks) :]
        dqkv = grad.new_empty(batch, length, 3, heads, width)
        # Many blocks add to the same key, so those sums are kept in float32.
        wide = torch.promote_types(grad.dtype, torch.float32)
        dkeys, dvalues = ([torch.zeros(x.shape, dtype=wide) for x in keys] for _ in range(2))
        for block, query, weight in zip(blocks, queries, weights, strict=True):
            dout = _by_head(grad[:, block.queries, None])
            _add(dvalues, block, torch.bmm(weight.transpose(1, 2), dout))
            dweight = torch.bmm(dout, _seen(values, block).transpose(1, 2))
            # The gradient of softmax, w (dw - sum(w dw)), and of the scale.
            dscores = torch._softmax_backward_data(dweight, weight, -1, weight.dtype)
            dscores *= 1.0 / math.sqrt(width)
            dquery = torch.bmm(dscores, _seen(keys, block))
            dqkv[:, block.queries, 0] = dquery.unflatten(0, (batch, heads)).transpose(1, 2)
            _add(dkeys, block, torch.bmm(dscores.transpose(1, 2), query))
        dsteps = dqkv.unflatten(1, (ctx.plan.num_steps, -1))
        for part, gradients in ((1, dkeys), (2, dvalues)):
            for slots, gradient in zip((ctx.plan.lasting, ctx.plan.passing), gradients, strict=True):
                target = dsteps[:, :, slots, part].permute(0, 3, 1, 2, 4)
                target.copy_(gradient.view(target.shape))
        return dqkv, None


def _by_head(x_BTSHE: Tensor) -> Tensor:
    """Some slots of every step, as (X, T * S, E)."""
    return x_BTSHE.permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)


def _seen(keys: Sequence[Tensor], block: Block) -> Tensor:
    """The lasting and passing keys (or values), both (X, ., E), that a block sees, as (X, K, E)."""
    lasting, passing = keys
    return torch.cat([lasting[:, block.lasting], passing[:, block.passing]], 1)


def _add(gradients: Sequence[Tensor], block: Block, part: Tensor) -> None:
    """Add a block's share (X, K, E) to the gradients of lasting and passing keys (or values)."""
    lasting, passing = gradients
    count = block.lasting.stop
    lasting[:, block.lasting] += part[:, :count]
    passing[:, block.passing] += part[:, count:]

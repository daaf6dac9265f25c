"""Dropout that does not hold a CPU up."""

import torch
import torch.nn.functional as F
from torch import Tensor

_VALUES = 2**16  # of an int16, by which an element is dropped or kept


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Zero a share ``rate`` of x and scale up the rest, as `torch.nn.functional.dropout`; x out of training.

    On a CPU, PyTorch draws 64 random bits for each element, one element after another. Here four elements
    share them, so the rate is rounded to a multiple of 2^-16.
    """
    if not (training and rate):
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    dropped = min(round(rate * _VALUES), _VALUES - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
    noise = torch.empty(x.shape, dtype=x.dtype, device="cpu")
    # int16 starts at -2^15, so `dropped` of its 2^16 values are below this bound.
    torch.ge(draws.view(torch.int16)[: x.numel()].view(x.shape), dropped - _VALUES // 2, out=noise)
    return x * noise.mul_(_VALUES / (_VALUES - dropped))

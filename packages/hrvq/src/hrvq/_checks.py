"""What a user can get wrong about inputs, found before anything is computed.

Values are looked at on the CPU only: on a GPU the answer would stall the stream.
"""

import torch
from torch import Tensor


def values_can_be_checked(tensor: Tensor) -> bool:
    """Whether looking at values is cheap here, and allowed."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_vectors(x: Tensor, mask: Tensor | None, *, dim: int, device: torch.device) -> None:
    """Shape, dtype and device of ``x`` (..., dim) and ``mask`` (...)."""
    if x.ndim < 1 or x.shape[-1] != dim:
        raise ValueError(f"x has shape {tuple(x.shape)}; its last dimension must be dim = {dim}")
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}; give a floating-point tensor")
    if x.device != device:
        raise ValueError(f"x is on {x.device} and the quantizer on {device}; move one of them")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:-1]):
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}; give torch.bool of {tuple(x.shape[:-1])}"
        )


def check_finite(rows: Tensor) -> None:
    """No NaN or infinity among the vectors (N, D)."""
    # A sum of finite numbers is almost always finite, and costs a tenth of asking each.
    if not bool(rows.sum().isfinite()) and not bool((finite := rows.isfinite().all(1)).all()):
        bad = int((~finite).sum())
        raise ValueError(f"x has NaN or infinite values in {bad} of {len(rows)} vectors; remove them")


def check_tokens(tokens: Tensor, *, sizes: tuple[int, ...], device: torch.device) -> bool:
    """Dtype, shape, device and range of ``tokens`` (..., l); whether each of them is known to be a code."""
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(f"tokens are {tokens.dtype}; give an integer tensor")
    if not (tokens.ndim >= 1 and 1 <= tokens.shape[-1] <= len(sizes)):
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}; the last dimension is the number of levels, "
            f"1 to {len(sizes)}"
        )
    if tokens.device != device:
        raise ValueError(f"tokens are on {tokens.device} and the quantizer on {device}; move one of them")
    if not values_can_be_checked(tokens) or tokens.numel() == 0:
        return False
    lowest, highest = tokens.aminmax()
    if int(lowest) >= 0 and int(highest) < min(sizes):
        return True
    levels = tokens.reshape(-1, tokens.shape[-1]).unbind(1)
    for level, (chosen, size) in enumerate(zip(levels, sizes, strict=False)):
        low, high = (int(bound) for bound in chosen.aminmax())
        if low < -1 or high >= size:
            raise ValueError(
                f"tokens of level {level} run from {low} to {high}; allowed are 0 to {size - 1}, "
                "and -1 for no code"
            )
    return int(lowest) >= 0

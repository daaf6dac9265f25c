"""Checks of a user's inputs, made before anything is computed.

Values are checked on the CPU only: on a GPU the check would stall the stream.
"""

import numpy as np
import torch
from torch import Tensor

# Types in which tokens may be stored, but for which PyTorch has no minimum, maximum or sum.
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def values_can_be_checked(tensor: Tensor) -> bool:
    """Whether checking values is cheap here, and allowed."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def check_tensors(**values: object) -> None:
    """Raise ValueError unless each value is a tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is of type {type(value).__name__}; give a torch tensor")


def check_unmasked(name: str, value: object) -> None:
    """Raise ValueError for NumPy's masked arrays, whose masks all that follows would ignore."""
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} are a masked array; give only what counts, as a plain array or tensor")


def integers(name: str, value: object) -> Tensor:
    """An integer tensor or array of any width as int64; a tensor stays on its device."""
    check_unmasked(name, value)
    if not isinstance(value, Tensor | np.ndarray):
        raise ValueError(f"{name} are of type {type(value).__name__}; give an integer tensor or array")
    if isinstance(value, np.ndarray):
        fits = value.dtype.kind in "iu"
    else:
        fits = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    if not fits:
        raise ValueError(f"{name} are {value.dtype}; give an integer tensor or array")
    return torch.from_numpy(value.astype(np.int64)) if isinstance(value, np.ndarray) else value.long()


def check_vectors(x: Tensor, mask: Tensor | None, *, dim: int, device: torch.device) -> None:
    """Check type, shape, dtype and device of ``x`` (..., dim) and ``mask`` (...)."""
    check_tensors(x=x, mask=x if mask is None else mask)
    if x.ndim < 1 or x.shape[-1] != dim:
        raise ValueError(f"x has shape {tuple(x.shape)}; its last dimension must be dim = {dim}")
    if not x.is_floating_point():
        raise ValueError(f"x is {x.dtype}; give a floating-point tensor")
    if x.device != device:
        raise ValueError(f"x is on {x.device} and the quantizer on {device}; move one of them")
    if mask is not None and (mask.dtype, mask.shape, mask.device) != (torch.bool, x.shape[:-1], x.device):
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)} on {mask.device}; "
            f"give torch.bool of {tuple(x.shape[:-1])} on {x.device}"
        )


def check_finite(rows: Tensor) -> None:
    """Raise ValueError for NaN or infinity among the vectors (N, D)."""
    # A sum of finite numbers is almost always finite, and costs a tenth of checking each.
    if not bool(rows.sum().isfinite()) and not bool((finite := rows.isfinite().all(1)).all()):
        bad = int((~finite).sum())
        raise ValueError(f"x has NaN or infinite values in {bad} of {len(rows)} vectors; remove them")


def check_tokens(tokens: Tensor, *, sizes: tuple[int, ...], device: torch.device) -> bool:
    """Check dtype, shape, device and range of ``tokens`` (..., l); True if all are known to be codes."""
    check_tensors(tokens=tokens)
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        hint = "; a mask is given by name, mask=..." if tokens.dtype == torch.bool else ""
        raise ValueError(f"tokens are {tokens.dtype}; give an integer tensor{hint}")
    if not (tokens.ndim >= 1 and 1 <= tokens.shape[-1] <= len(sizes)):
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)}; the last dimension is the number of levels, "
            f"1 to {len(sizes)}"
        )
    if tokens.device != device:
        raise ValueError(f"tokens are on {tokens.device} and the quantizer on {device}; move one of them")
    if not values_can_be_checked(tokens) or tokens.numel() == 0:
        return False
    if tokens.dtype in UNSIGNED:
        tokens = tokens.long()
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

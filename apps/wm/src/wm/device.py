"""Devices, arithmetic precision and seeds."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def pick_device(name: str) -> torch.device:
    """The device of this name. ``'auto'``: a CUDA GPU if there is one, else the CPU.

    A GPU given by number becomes the current device: what torch is asked without a device, such as whether
    bfloat16 is supported, then refers to it, and this process holds no memory on the first GPU.

    Raises:
        ValueError: the device is unknown or not on this machine.
    """
    device = named_device(name)
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {name!r} is not on this machine, which has {torch.cuda.device_count()} CUDA devices"
        )
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def named_device(name: str) -> torch.device | None:
    """The device of this name, whether or not this machine has it; None for ``'auto'``.

    Raises:
        ValueError: the device is unknown.
    """
    if name == "auto":
        return None
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N") from error
    # torch stores the number in a byte, so that a large one would mean another device.
    if device.type not in ("cpu", "cuda") or (device.index is not None and str(device) != name):
        raise ValueError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware, not by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The dtype to autocast to, ``None`` for plain float32.

    ``auto`` is bfloat16 where the hardware supports it, else float16 on CUDA (with a scaler), else float32.
    """
    if precision == "auto":
        if has_bfloat16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else None
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision float16 needs a CUDA device; on CPU use auto, bfloat16 or float32")
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def autocast(dtype: torch.dtype | None, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast to ``dtype``, or nothing at all for ``None``."""
    return torch.autocast(device.type, dtype) if dtype is not None else contextlib.nullcontext()


@contextlib.contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, give torch one thread inside: small batches need no more, and emulators need the others."""
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and every name; the same on every machine and Python."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator on ``device``, seeded by :func:`derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *names))


def seed_defaults(seed: int, device: torch.device) -> None:
    """Seed PyTorch's own generators of the CPU and of ``device``, cheaply enough for every step.

    `torch.manual_seed` also makes a note, with a stack trace, for every kind of device that is not there:
    most of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; from the CPU to a GPU through pinned memory, without blocking."""
    if tensor.device.type == "cpu" and device.type != "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def frozen(module: M) -> M:
    """The module in evaluation mode with gradients off."""
    module.eval().requires_grad_(False)
    return module


@contextlib.contextmanager
def explaining_no_memory(explain: Callable[[], ValueError]) -> Iterator[None]:
    """Turn a device that has no memory for something into the error that ``explain`` makes."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU PyTorch's own allocator raises a plain RuntimeError, and NumPy's a MemoryError.
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise explain() from error


def forget_peak_memory(device: torch.device) -> None:
    """Reset the measurement where that is possible: a CPU process keeps its peak for its lifetime."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gib(device: torch.device) -> float:
    """Largest resident memory of this process (CPU) or largest allocation (CUDA), in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if os.name == "nt":
        return float("nan")
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)

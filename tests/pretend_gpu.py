"""Commands of `wm` on a GPU that is only pretended: `python pretend_gpu.py train --run RUN ';' dream RUN`.

A machine without a GPU cannot show that every tensor is where the next operation wants it. Here the device
is one whose tensors say that they are elsewhere, hold their values on the CPU, and refuse to meet a tensor of
the CPU, as CUDA's do. All that is done with them happens for real, so what depends on values works too.

PyTorch lets none but real devices have a name of their own, so this one takes the name "meta": the only one
whose gradients run on the CPU's thread. What would need the hardware (autocast, pinned memory, fused
optimisers, generators) is replaced by the CPU's. It is for a process of its own, as it changes torch.
"""

import contextlib
import sys
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")

# CUDA's tensors can be looked up, and written to, at places that are given on the CPU.
LOOK_UP = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Elsewhere(torch.Tensor):
    """A tensor on the pretended device."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(operation, args, kwargs or {})

    def tolist(self) -> Any:  # PyTorch has none for subclasses.
        return self.held.tolist()


class Pretended(TorchDispatchMode):
    """While it is on, tensors asked for on the device are made there."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(operation, args, kwargs or {})


def perform(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do an operation on what the tensors hold; its results are where CUDA would leave them.

    Raises:
        RuntimeError: tensors of both kinds meet. Single numbers may, as on CUDA.
    """
    name, meeting = operation._schema.name, (args, kwargs)
    if name in LOOK_UP and isinstance(args[0], Elsewhere):
        meeting = (args[:1] + args[2:], kwargs)
    tensors = [leaf for leaf in tree_leaves(meeting) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim]
    if there and here and name != "aten::copy_":
        raise RuntimeError(
            f"{operation} got tensors of shapes {[tuple(t.shape) for t in there]} on the GPU and "
            f"{[tuple(t.shape) for t in here]} on the CPU"
        )
    args, kwargs = tree_map(_held, (args, kwargs))
    goes_there = bool(there)
    if kwargs.get("device") is not None:
        goes_there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
        kwargs.pop("pin_memory", None)
    result = operation(*args, **kwargs)
    if not goes_there:
        return result
    known = {id(tensor.held): tensor for tensor in there}  # In place: the tensor that was given comes back.
    return tree_map(lambda x: known.get(id(x), Elsewhere(x)) if isinstance(x, torch.Tensor) else x, result)


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Elsewhere) else x


def install() -> None:
    """Replace in torch what the device cannot do; before anything that uses it is imported."""

    class Generator(torch.Generator):
        def __new__(cls, device: Any = None) -> "Generator":
            return super().__new__(cls)

    class AdamW(torch.optim.AdamW):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "fused": False})

    def made_here_first(make: Any) -> Any:
        return lambda *args, device=None, **kwargs: make(*args, **kwargs).to(device or "cpu")

    replaced: dict[str, Any] = {
        "Generator": Generator,
        "autocast": lambda *_, **__: contextlib.nullcontext(),
        "is_autocast_enabled": lambda *_: False,
        "get_autocast_dtype": lambda *_: torch.float32,
        # Wrapped tensors cannot be viewed in inference mode.
        "inference_mode": lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext(),
        "tensor": made_here_first(torch.tensor),
        "as_tensor": made_here_first(torch.as_tensor),
    }
    for name, value in replaced.items():
        setattr(torch, name, value)
    torch.optim.AdamW = AdamW  # type: ignore[misc]
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign, assignment]

    import wm.device

    wm.device.pick_device = lambda _: DEVICE


def main(arguments: list[str]) -> None:
    """Run commands separated by ``;``, one after the other, until one fails."""
    torch.set_num_threads(1)
    install()
    from wm.cli import app

    with Pretended():
        while arguments:
            end = arguments.index(";") if ";" in arguments else len(arguments)
            command, arguments = arguments[:end], arguments[end + 1 :]
            app(command, standalone_mode=False)


if __name__ == "__main__":
    main(sys.argv[1:])

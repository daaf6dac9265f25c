"""`wm` commands on a simulated GPU: `python pretend_gpu.py train --run RUN ';' dream RUN`.

A machine without a GPU cannot show that every tensor is where the next operation needs it. The device here
has tensors that report another device, hold their values on the CPU, and refuse to be combined with CPU
tensors, as CUDA's do. All operations on them are really carried out, so code that depends on values works.

PyTorch lets only real devices have a name of their own, so this one takes the name "meta": the only one
whose gradients run on the CPU's thread. What would need the hardware (autocast, pinned memory, fused
optimisers, generators) is replaced by the CPU's. Run it in a process of its own, as it changes torch.
"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")

# What waits for a value, or for the CPU, cannot be part of a recording.
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2"}
NO_KERNEL = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"}

# Apple's GPUs have no float64.
WITHOUT: set[torch.dtype] = set()

# Names of the operations so far that waited until the GPU had done all it was given.
WAITED: list[str] = []

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

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Of lists PyTorch would make tensors of the real meta device, without values."""
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.tensor(p) if isinstance(p, list) else p for p in parts))

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        """As CUDA's are copied: by an operation, that a recording has."""
        copied = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        return memo.setdefault(id(self), copied)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(operation, args, kwargs or {})

    def tolist(self) -> Any:  # PyTorch has none for subclasses.
        Graph.refuse_if_recording("tolist")
        return self.held.tolist()


class Pretended(TorchDispatchMode):
    """While it is on, tensors asked for on the device are made there."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return perform(operation, args, kwargs or {})


@dataclass(frozen=True)
class Stream:
    """A CUDA stream; the current device, of which one is if none is named, is another than the pretended."""

    device: torch.device | None = None


class Graph:
    """A CUDA graph: the operations between its beginning and its end, on the tensors that they had then."""

    recording: "Graph | None" = None
    stuck: ClassVar[set[int]] = set()  # generators of recordings that failed
    launches = 0

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = [torch.cuda.default_generators[None]]  # type: ignore[call-overload]
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    @classmethod
    @contextlib.contextmanager
    def record(
        cls, graph: "Graph", stream: Stream | None = None, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        if (stream or Stream()).device != DEVICE:
            yield  # what runs on another device than the stream's runs at once, and is not recorded
            return
        states = [generator.get_state() for generator in graph.generators]
        cls.recording = graph
        known = {generator._cdata for generator in graph.generators}
        cls.stuck |= known
        try:
            yield
            cls.stuck -= known
        finally:
            cls.recording = None
            for generator, state in zip(graph.generators, states, strict=True):
                generator.set_state(state)  # a recording draws nothing
        for _, *given, result in graph.operations:  # nor has it any results before it is launched
            known = {_begins(x) for x in tree_leaves(given) if isinstance(x, torch.Tensor)}
            for tensor in tree_leaves(result):
                if isinstance(tensor, torch.Tensor) and _begins(tensor) not in known:
                    tensor.fill_(1)

    @classmethod
    def refuse_if_recording(cls, name: str) -> None:
        if cls.recording is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")

    def add(self, operation: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        self.operations.append((operation, args, kwargs, result))

    def replay(self) -> None:
        Graph.launches += 1
        for operation, args, kwargs, result in self.operations:
            if operation._schema.name in NO_KERNEL:
                continue
            for old, new in zip(tree_leaves(result), tree_leaves(operation(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and _begins(old) != _begins(new):
                    old.copy_(new)


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
    if any(tensor.device == DEVICE for tensor in tensors if not isinstance(tensor, Elsewhere)):
        raise RuntimeError("a tensor of the real meta device, which has no values")
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim]
    if there and here and name != "aten::copy_":
        raise RuntimeError(
            f"{operation} got tensors of shapes {[tuple(t.shape) for t in there]} on the GPU and "
            f"{[tuple(t.shape) for t in here]} on the CPU"
        )
    if name in WAITS or (name in LOOK_UP and any(x is not None and x.dtype == torch.bool for x in args[1])):
        Graph.refuse_if_recording(name)
        WAITED.extend([name] if there else [])
    if _copies_and_waits(name, args, kwargs):
        WAITED.append(name)
    if (len({isinstance(x, Elsewhere) for x in tensors}) == 2 and name == "aten::copy_") or (
        name == "aten::_to_copy" and kwargs.get("device") is not None
    ):
        Graph.refuse_if_recording(f"{name} between GPU and CPU")
    draws = kwargs.get("generator")
    if draws is not None and (Graph.recording is None) == (draws._cdata in Graph.stuck):
        raise RuntimeError("a generator that the recording does not know, or one of a recording that failed")
    args, kwargs = tree_map(_held, (args, kwargs))
    goes_there = bool(there)
    if kwargs.get("device") is not None:
        goes_there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
        kwargs.pop("pin_memory", None)
    result = operation(*args, **kwargs)
    if not goes_there:
        return result
    if any(isinstance(x, torch.Tensor) and x.dtype in WITHOUT for x in tree_leaves(result)):
        raise TypeError(f"{operation} of a type that the device does not have")
    if Graph.recording is not None:
        Graph.recording.add(operation, args, kwargs, result)
    known = {id(tensor.held): tensor for tensor in there}  # In place: the tensor that was given comes back.
    return tree_map(lambda x: known.get(id(x), Elsewhere(x)) if isinstance(x, torch.Tensor) else x, result)


def _copies_and_waits(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether tensors go from the CPU to the GPU, or back, and not ``non_blocking``."""
    there = isinstance(args[0], Elsewhere) if args else False
    if name in LOOK_UP:  # by places on the CPU, which are brought over first
        return there and any(isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere) for x in args[1])
    if name == "aten::copy_":
        crosses, blocking = there != isinstance(args[1], Elsewhere), not (*args, False)[2]
        return crosses and args[1].ndim > 0 and blocking and not kwargs.get("non_blocking")
    device = kwargs.get("device")
    crosses = device is not None and there != (torch.device(device) == DEVICE)
    return name == "aten::_to_copy" and crosses and not kwargs.get("non_blocking")


def _begins(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Elsewhere) else x


@contextlib.contextmanager
def as_it_is() -> Iterator[None]:
    """Changes nothing, around a block or a function."""
    yield


def install() -> None:
    """Replace in torch what the device cannot do; before anything that uses it is imported."""

    class Generator(torch.Generator):
        def __new__(cls, device: Any = None) -> "Generator":
            return super().__new__(cls)

        def graphsafe_set_state(self, state: torch.Generator) -> None:
            self.set_state(state.get_state())
            Graph.stuck.discard(self._cdata)

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
        "inference_mode": lambda mode=True: torch.no_grad() if mode else as_it_is(),
        "tensor": made_here_first(torch.tensor),
        "as_tensor": made_here_first(torch.as_tensor),
    }
    for name, value in replaced.items():
        setattr(torch, name, value)
    torch.optim.AdamW = AdamW  # type: ignore[misc]
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign, assignment]

    torch.cuda.CUDAGraph, torch.cuda.graph = Graph, Graph.record  # type: ignore[misc, assignment]
    torch.cuda.Stream, torch.cuda.current_stream = Stream, Stream  # type: ignore[misc, assignment]
    torch.cuda.stream = contextlib.nullcontext  # type: ignore[assignment]
    torch.cuda.default_generators = {None: Generator()}  # type: ignore[assignment]

    import token_worldmodel.recorded
    import wm.device

    token_worldmodel.recorded.can_record = lambda device: device == DEVICE
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
            if code := app(command, standalone_mode=False):  # click returns what it would exit with
                sys.exit(code)
    print(f"{Graph.launches} launches of recordings")


if __name__ == "__main__":
    main(sys.argv[1:])

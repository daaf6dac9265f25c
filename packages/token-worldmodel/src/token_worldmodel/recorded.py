"""One launch instead of thousands: a dream recorded as a CUDA graph.

A dream of 15 steps is some thousand kernels of a few microseconds each, and a GPU waits for Python between
them. Their order never changes, only the numbers do, so it can be recorded once and launched whole (Nguyen et
al., 2021, https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs).
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]


class Recorded:
    """A function of tensors that a GPU runs from a recording.

    On a CPU, or without inputs, the function itself is called.

    The first call with inputs of some shapes (under the autocast of the call) runs the function, the second
    records it, and from then on a call copies its inputs into those of the recording and launches it. Results
    are the same: random numbers too, which are drawn as the generators are seeded at the call.

    What the function reads besides its inputs is read where it lay in memory: weights changed in place are
    seen, a tensor put in another's place is not. It may not look at values (``item``, ``nonzero``, a boolean
    mask as an index), nor move tensors to or from the CPU: what cannot be recorded is run as it is, with a
    warning.

    Args:
        function: tensors, all on one device, to a tuple of tensors, without gradients; such as one that calls
            `imagine` and gives the dream's tensors.
        generators: those that the function draws from.
    """

    def __init__(self, function: Function, *generators: torch.Generator) -> None:
        self.function, self.generators = function, generators
        self._recordings: dict[tuple[object, ...], _Recording | None] = {}
        self._recordable = True

    @torch.inference_mode(False)  # where no recording could be written to later
    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function returns, in tensors that no later call overwrites."""
        if not (inputs and self._recordable and all(can_record(x.device) for x in inputs)):
            return self.function(*inputs)
        # What autocast made of the products is in the recording, so under another it needs one of its own.
        device = inputs[0].device.type
        precision = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        kind = (precision, *((x.shape, x.dtype, x.device) for x in inputs))
        if kind not in self._recordings:  # libraries set themselves up in a first call: it cannot be recorded
            self._recordings[kind] = None
            return self.function(*inputs)
        recording = self._recordings[kind]
        if recording is None:
            # A recording that fails leaves the generators in it.
            generators = (*self.generators, torch.cuda.default_generators[inputs[0].device.index])
            before = [generator.clone_state() for generator in generators]
            try:
                recording = self._recordings[kind] = self._record(inputs)
            except RuntimeError as error:
                self._recordable = False
                for generator, state in zip(generators, before, strict=True):
                    _put_back(generator, state)
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(f"not recorded as a CUDA graph, so slower: {reason}", stacklevel=2)
                return self.function(*inputs)
        for held, given in zip(recording.inputs, inputs, strict=True):
            held.copy_(given)
        recording.graph.replay()
        return tuple(x.clone() for x in recording.outputs)

    def _record(self, inputs: tuple[Tensor, ...]) -> "_Recording":
        held = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of torch find the generators by themselves
            for generator in self.generators:
                graph.register_generator_state(generator)
        # A stream records its own device alone, and the inputs' need not be the current one. The outer stream
        # is the one to come back to: older versions of torch stay in that of a recording that failed.
        device = inputs[0].device
        with (
            torch.cuda.stream(torch.cuda.current_stream(device)),
            _no_cast_remembered(),
            # Another thread, such as one that pins memory, may do what a recording must not.
            torch.cuda.graph(graph, stream=_side_stream(device), capture_error_mode="thread_local"),
        ):
            outputs = self.function(*held)
        return _Recording(graph, held, outputs)


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]  # where a launch reads
    outputs: tuple[Tensor, ...]  # where it writes


def can_record(device: torch.device) -> bool:
    """Whether tensors of this device can be worked on by a recording."""
    return device.type == "cuda"


@cache  # one for all recordings of a device, because cuBLAS keeps a workspace for every stream
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _put_back(generator: torch.Generator, state: torch.Generator) -> None:
    """Give a generator a state that it had."""
    try:
        generator.graphsafe_set_state(state)
    except NotImplementedError:  # one of the CPU: no recording holds it, but it may have been drawn from
        generator.set_state(state.get_state())


@contextmanager
def _no_cast_remembered() -> Iterator[None]:
    """Autocast keeps what it has cast until it ends: a recording must cast anew, weights having changed."""
    remembered = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(remembered)

"""One launch instead of thousands: a dream recorded as a CUDA graph.

A dream of 15 steps is thousands of kernels of a few microseconds each, and the GPU waits for Python between
them. Their order never changes, only the numbers do, so a dream can be recorded once and launched whole
(Nguyen et al., 2021, https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs).
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

    The first call with inputs of given shapes and dtypes, under given autocast settings, runs the function;
    the second records it; from then on a call copies its inputs into those of the recording and launches it.
    Results are the same, including random numbers, which follow the generators' state at the call.

    Whatever else the function reads is read from where it was in memory: weights changed in place are seen, a
    tensor that replaces another is not. The function must not look at values (``item``, ``nonzero``, a
    boolean mask as an index), nor move tensors to or from the CPU: one that cannot be recorded is run as it
    is, with a warning.

    Args:
        function: from tensors, all on one device, to a tuple of tensors, without gradients; for instance one
            that calls `imagine` and returns the dream's tensors.
        generators: all those that the function draws from.
    """

    def __init__(self, function: Function, *generators: torch.Generator) -> None:
        self.function, self.generators = function, generators
        self._recordings: dict[tuple[object, ...], _Recording | None] = {}
        self._recordable = True

    @torch.inference_mode(False)  # in which later calls could not write to a recording
    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function returns, in tensors that no later call overwrites."""
        if not (inputs and self._recordable and all(can_record(x.device) for x in inputs)):
            return self.function(*inputs)
        # A recording fixes what autocast does to the products, so each autocast setting needs its own.
        device = inputs[0].device.type
        precision = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        kind = (precision, *((x.shape, x.dtype, x.device) for x in inputs))
        if kind not in self._recordings:  # libraries initialise in a first call, which cannot be recorded
            self._recordings[kind] = None
            return self.function(*inputs)
        recording = self._recordings[kind]
        if recording is None:
            # A recording that fails leaves the generators attached to it.
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
        # A stream records only its own device, and that of the inputs need not be the current one. The outer
        # context restores the stream: after a failed recording, older versions of torch stay in its stream.
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
    """Whether work on this device can be recorded."""
    return device.type == "cuda"


@cache  # one per device for all recordings, because cuBLAS keeps a workspace for every stream
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _put_back(generator: torch.Generator, state: torch.Generator) -> None:
    """Put a generator back into an earlier state."""
    try:
        generator.graphsafe_set_state(state)
    except NotImplementedError:  # a CPU generator: not part of a recording, but it may have been drawn from
        generator.set_state(state.get_state())


@contextmanager
def _no_cast_remembered() -> Iterator[None]:
    """Turn off autocast's cache of casts: a recording must cast anew each time, because weights change."""
    remembered = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(remembered)

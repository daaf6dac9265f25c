"""What the C library does with memory that is freed."""

import ctypes

# mallopt's options, from glibc's malloc.h, and the largest threshold it takes on a 64-bit machine.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 << 20


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for whoever asks next, instead of giving it back to the system.

    A training step on a CPU frees its activations and asks for as much again; given back in between, every
    page is cleared by the kernel and faulted in anew, up to a sixth of the step. The process's peak is
    hardly higher, but it stays there. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)  # below it, memory comes from the heap, which can keep it
    mallopt(_TRIM_THRESHOLD, -1)  # never

"""What this process asks of the system: to keep freed memory, and to open many files."""

import ctypes

# mallopt's options, from glibc's malloc.h, and the largest threshold it takes on a 64-bit machine.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 << 20
_OPEN_FILES = 10_240  # the most that macOS allows


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


def allow_many_open_files() -> None:
    """Raise this process's limit of open files to what the system allows it.

    Every shard that is read keeps one open, and some systems begin with 256.
    """
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

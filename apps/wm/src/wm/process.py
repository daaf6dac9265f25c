"""What this process asks of the operating system: to keep freed memory, and to open many files."""

import ctypes

# mallopt's options, from glibc's malloc.h, and the largest threshold it takes on a 64-bit machine.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD = 32 << 20
_OPEN_FILES = 10_240  # the most that macOS allows


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for reuse, instead of returning it to the system.

    A training step on a CPU frees its activations and the next one allocates as much again. If the memory is
    returned in between, the kernel clears every page and faults it in again, which takes up to a sixth of the
    step. The process's peak is hardly higher, but memory use stays there. Other C libraries are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)  # below it, blocks come from the heap, which can be kept
    mallopt(_TRIM_THRESHOLD, -1)  # never


def allow_many_open_files() -> None:
    """Raise this process's limit on open files to what the system allows.

    Every shard being read keeps a file open, and some systems start at 256.
    """
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

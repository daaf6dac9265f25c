"""One process at a time writes into a run's directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Hold the directory while the block runs. The lock is the system's: it goes with the process, however
    that ends, and where a file system knows no locks, none is held.

    Raises:
        ValueError: another process holds it.
    """
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"{directory} is being written by another `wm`; wait until that ends, stop it, or give another "
            "directory with --run"
        ) from None
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()

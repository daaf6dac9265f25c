"""Ensures that only one process at a time writes to a directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = ".lock"


@contextmanager
def only_writer(directory: str | Path) -> Iterator[None]:
    """Lock ``directory``, created if missing, against other writers while the block runs.

    The lock belongs to the operating system, so it is released when the process ends, however that happens.
    On a file system without locks, none is held.

    Raises:
        ValueError: another process, or another writer in this one, holds the lock, or the path is a file or
            lies below one.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{directory} is a file, or a link to nothing; give a directory") from None
    except NotADirectoryError:
        raise ValueError(f"{directory} lies below a file; give another directory") from None
    lock = FileLock(directory / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"{directory} is being written by another process; wait until that ends, stop it, or give "
            "another directory"
        ) from None
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()

"""Files that are written completely or not at all."""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def require_place(path: Path, advice: str = "choose another path") -> None:
    """Check before the work, not after it, that a file can be written.

    Args:
        advice: what to do if its directory cannot be written to.

    Raises:
        ValueError: the path holds something other than a file, or its directory cannot be made or written to.
    """
    try:
        _partial(path).lstat()  # the longer of the two names
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # for example too long a name
        raise ValueError(f"{path}: {error.strerror}; choose another path") from None
    if path.is_dir():
        raise ValueError(f"{path} is a directory; give a file")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is a device or a pipe, which a file cannot replace; give a file")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, so {path} cannot be written; choose another path")
    if not os.access(there, os.W_OK):
        raise ValueError(f"no permission to write in {there}; {advice}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file next to ``path``: it replaces ``path`` if the block succeeds and is deleted if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename in (None, partial, str(partial)):  # None after a write to a full disk
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """The temporary path that a file is written to first."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_text(path: Path, text: str) -> None:
    """Write a small file."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value; NaN and infinities, which JSON does not have, become null."""
    write_text(path, json.dumps(finite(value), indent=1) + "\n")


def finite(value: Any) -> Any:
    """A JSON value with None, JSON's null, for NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_line(path: Path, line: str) -> None:
    """Add a line, completely or not at all: to what a full disk leaves of it the next one would be glued."""
    data = f"{line}\n".encode()
    try:
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if file.write(data) < len(data):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        error.filename = str(path)
        raise


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

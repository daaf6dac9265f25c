"""Failures become a sentence and an exit code, here only: 2 for what a user can cause, 130 for Ctrl-C."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from safetensors import SafetensorError

INTERRUPTED = 130
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def friendly_errors(console: Console, *, resumes: bool = False) -> Iterator[None]:
    """Show errors of use as one sentence, without a traceback. Defects of ours keep theirs.

    With ``resumes``, a command that is interrupted says that it will go on.
    """
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if not (isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)):
            raise
        # Python 3.11 wraps what is raised while a class is made, as in the midst of an import.
        _say(console, "interrupted; the same command goes on from here" if resumes else "interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        _say(console, f"error: {' '.join(str(error).split())}")
        raise typer.Exit(2) from None
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) in _NOT_ALLOWED:
            _say(console, f"error: no permission to write {_place(error)}; choose another place")
            raise typer.Exit(2) from None
        full = getattr(error, "errno", None) in _NO_ROOM or "No space left on device" in str(error)
        if not full:
            raise
        remedy = "make room or choose another --run, and the same command goes on"
        _say(console, f"error: no room left on {_place(error)}; {remedy}")
        raise typer.Exit(2) from None


def _place(error: Exception) -> str:
    return getattr(error, "filename", None) or "the run's disk"


def _say(console: Console, text: str) -> None:
    console.print(text, style="red", soft_wrap=True)

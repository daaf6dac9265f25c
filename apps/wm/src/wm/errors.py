"""The one place where failures become a sentence and an exit code: 2 for user errors, 130 for Ctrl-C."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from wm.console import make_console

INTERRUPTED = 130
_REMEDY = "fix it or give another path, and run the command again"


@contextmanager
def friendly_errors(*, resumes: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Show user errors as one sentence on stderr, without a traceback. Bugs keep their traceback.

    An internal ValueError looks like a user's mistake too, so ``WM_TRACEBACK=1`` in the environment shows
    the traceback of any error.

    An interrupted command says that it can be resumed, if ``resumes`` then returns true.
    """
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which not every command imports
            _say("error: the GPU is out of memory; free some, or give --device cpu")
            raise typer.Exit(2) from None
        if not (isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)):
            raise
        # Python 3.11 wraps what is raised while a class is created, for example during an import.
        resume = "; the same command resumes from here, but unfinished collecting starts over"
        _say(f"interrupted{resume if resumes() else ''}")
        raise typer.Exit(INTERRUPTED) from None
    except MemoryError:
        _say("error: there is not enough memory; free some, or give smaller sizes")
        raise typer.Exit(2) from None
    except BrokenPipeError:
        raise  # the reader, such as `head`, has stopped reading; typer ends the command silently
    except (ValueError, OSError) as error:
        if os.environ.get("WM_TRACEBACK"):
            raise
        _say(f"error: {sentence(error)}")
        raise typer.Exit(2) from None


def sentence(error: Exception) -> str:
    """The error as one sentence; a system error gets its path and a remedy."""
    if isinstance(error, OSError) and error.strerror:
        paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
        return ": ".join((*([" to ".join(paths)] if paths else []), f"{error.strerror}; {_REMEDY}"))
    return " ".join(str(error).split())


def _say(text: str) -> None:
    make_console(stderr=True).print(text, style="red")

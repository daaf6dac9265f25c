"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer


def a_file(path: Path | None) -> Path | None:
    """A file to write, refused before the work is done and not after it.

    Raises:
        typer.BadParameter: nothing can be written there.
    """
    if path is None:
        return None
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # too long a name, say
        raise typer.BadParameter(f"{path}: {error.strerror}; choose another place") from None
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a directory; give a file")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise typer.BadParameter(f"{there} is a file, so {path} cannot be written; choose another place")
    if not os.access(there, os.W_OK):
        raise typer.BadParameter(f"no permission to write in {there}; choose another place")
    return path


def names_of_games(text: str) -> list[str]:
    """What `--games` names.

    Raises:
        ValueError: a name is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError(f"--games takes ALE names with commas between, such as pong,breakout; got {text!r}")
    return names


RunArgument = Annotated[
    Path, typer.Argument(help="Run directory, as made by `wm train`.", show_default=False)
]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N.")]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the result to this file.", show_default=False, callback=a_file),
]

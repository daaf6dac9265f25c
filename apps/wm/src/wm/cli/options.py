"""Options that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wm.files import require_place
from wm.run import Layout, Manifest


def a_file(path: Path | None) -> Path | None:
    """A file to write, checked before the work is done and not after it.

    Raises:
        typer.BadParameter: nothing can be written there.
    """
    if path is None:
        return None
    try:
        require_place(path)
        _require_no_artifact(path.resolve())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return path.resolve() if path.is_symlink() else path  # the link's target is written, the link stays


def _require_no_artifact(path: Path) -> None:
    """Raise ValueError if the path is that of a file a run keeps for itself."""
    for root in path.parents:
        if Layout(root).manifest.is_file():
            made = [key for record in Manifest(Layout(root)).stages.values() for key in record.artifacts]
            own = (Layout(root).config, Layout(root).manifest, Layout(root).metrics)
            if path in own or path.relative_to(root).as_posix() in made:
                raise ValueError(f"{path} is one of the run's own files; choose another path")


def names_of_games(texts: Sequence[str]) -> list[str]:
    """The names given with `--games`: comma-separated, the option given more than once, or both.

    Raises:
        ValueError: a name is empty.
    """
    names = _parts(texts)
    if not all(names):
        given = " ".join(texts)
        raise ValueError(f"--games takes ALE names separated by commas, such as pong,breakout; got {given!r}")
    return names


def numbers_of_seeds(texts: Sequence[str]) -> list[int]:
    """The numbers given with `--seeds`, written like the names of :func:`names_of_games`.

    Raises:
        ValueError: one is not a whole number.
    """
    numbers = _parts(texts)
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        given = " ".join(texts)
        raise ValueError(f"--seeds takes whole numbers separated by commas, such as 0,1,2; got {given!r}")
    return [int(number) for number in numbers]


def _parts(texts: Sequence[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",")]


RunArgument = Annotated[
    Path, typer.Argument(help="Run directory, as made by `wm train`.", show_default=False)
]
RoundOption = Annotated[
    int | None,
    typer.Option(
        "--round",
        min=0,
        help="Use the models of this round (the first is 0). Default: the run's final ones.",
        show_default=False,
    ),
]
RecordedOption = Annotated[
    bool,
    typer.Option(
        "--recorded",
        help="Draw each step as the mean of the recorded frames with the same tokens instead of with the "
        "decoder. --round always does this, since only the run's final parts have a decoder.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:N.")]
JsonOption = Annotated[
    Path | None,
    typer.Option("--json", help="Also write the result to this file.", show_default=False, callback=a_file),
]

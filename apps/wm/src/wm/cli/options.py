"""Options that several commands share, and the console."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RunArgument = Annotated[
    Path, typer.Argument(help="Run directory, as made by `wm train`.", show_default=False)
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Also write the result to this file.", show_default=False)
]


def make_console() -> Console:
    """The terminal, or plain lines of generous width where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=160)

"""`wm runs` and `wm show`: list runs, and show one."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import RunArgument
from wm.console import make_console


def runs(
    directory: Annotated[Path, typer.Argument(help="Where runs are kept.")] = Path("runs"),
) -> None:
    """List the runs in a directory, one per line."""
    from wm.listing import list_runs

    console = make_console()
    list_runs(directory, console)


def show(run: RunArgument) -> None:
    """Show what a run holds: its settings, finished stages, artifacts and report."""
    from wm.listing import show_run

    console = make_console()
    show_run(run, console)

"""Puts the commands together."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wm.cli.atlas import atlas
from wm.cli.bench import bench
from wm.cli.doctor import doctor
from wm.cli.dream import dream
from wm.cli.evaluate import evaluate
from wm.cli.fidelity import fidelity
from wm.cli.import_recording import import_recording
from wm.cli.play import play
from wm.cli.probe import probe
from wm.cli.runs import runs, show
from wm.cli.settings import settings
from wm.cli.train import train
from wm.errors import friendly_errors
from wm.interrupt import stop_on_ctrl_c
from wm.process import allow_many_open_files, keep_freed_memory
from wm.versions import package_version

RESUMES = ("train", "bench")
"""Commands that resume where they were stopped."""


class Commands(TyperGroup):
    """All commands; `friendly_errors` reports what goes wrong in any of them."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with friendly_errors(resumes=lambda: ctx.invoked_subcommand in RESUMES):
            return super().invoke(ctx)


app = typer.Typer(
    name="wm",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Token world models for Atari: train, evaluate and inspect them.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"wm {package_version('wm')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Token world models for Atari: train, evaluate and inspect them."""


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "eval": evaluate,
    "bench": bench,
    "probe": probe,
    "fidelity": fidelity,
    "import": import_recording,
    "atlas": atlas,
    "dream": dream,
    "play": play,
    "doctor": doctor,
    "runs": runs,
    "show": show,
    "settings": settings,
}


def _help(command: Callable[..., None]) -> str:
    """A command's docstring with one line per paragraph, so that the terminal wraps it."""
    return "\n\n".join(" ".join(text.split()) for text in (command.__doc__ or "").split("\n\n"))


for name, command in COMMANDS.items():
    app.command(name=name, help=_help(command))(command)


def main() -> None:
    """Entry point of the `wm` script."""
    keep_freed_memory()
    allow_many_open_files()
    with stop_on_ctrl_c():
        app()

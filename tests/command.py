"""Runs the `wm` command in this process; settings that make a whole run take seconds; a run at hand."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from typer.testing import CliRunner
from wm.cli import app
from wm.doctor import SMOKE
from wm.opened import RunAtHand
from wm.reporter import Reporter
from wm.rounds import open_run

SMALL = [
    f"{section}.{key}={value!r}".replace("'", '"')
    for section, table in SMOKE.items()
    if section != "train"
    for key, value in table.items()
] + [
    f"train.{stage}.{key}={value}" for stage, table in SMOKE["train"].items() for key, value in table.items()
]

STAGES = ("collect", "encoder", "hrvq", "worldmodel", "agent", "decoder", "evaluate")
"""Of a run of one round, in their order."""


def options(settings: Iterable[str]) -> list[str]:
    """The settings as the command takes them: `--set` before each."""
    return [part for setting in settings for part in ("--set", setting)]


class Result:
    """Exit code, everything printed, and what of it went to stderr."""

    def __init__(self, code: int, output: str, stderr: str) -> None:
        self.code, self.output, self.stderr = code, output, stderr


def wm(*arguments: object) -> Result:
    """Run the command in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.exit_code, done.output, done.stderr)


def train(directory: Path, *arguments: object) -> Result:
    """`wm train --run directory` with the small settings."""
    small = ("--preset", "tiny", "--device", "cpu", *options(SMALL))
    return wm("train", "--run", directory, *small, *arguments)


def artifacts(directory: Path) -> dict[str, bytes]:
    """What a run has made, by path."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*.safetensors")}


def stages(directory: Path) -> dict[str, Any]:
    """What a run's manifest has of each stage."""
    return json.loads((directory / "manifest.json").read_text())["stages"]


def at_hand(directory: Path) -> RunAtHand:
    """A run as a command has it, on the CPU and told to nobody."""
    return RunAtHand(*open_run(directory), torch.device("cpu"), Reporter(Console(file=io.StringIO())))

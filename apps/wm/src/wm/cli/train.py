"""`wm train`: from nothing to an agent with a score."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import DeviceOption, names_of_games
from wm.console import make_console


def train(
    stage: Annotated[
        str | None,
        typer.Argument(
            help="Run one stage only: collect, encoder, hrvq, worldmodel, agent, choose, decoder, evaluate; "
            "of an earlier round, collect-0 and so on; start, of a run that begins with another's parts.",
            show_default=False,
        ),
    ] = None,
    games: Annotated[
        list[str] | None,
        typer.Option(
            help="ALE names, comma-separated: pong,breakout,ms_pacman. Default: the preset's, which is pong "
            "in all but reference.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="tiny, hour, atari100k_cpu, reference, atari100k or a TOML file. Default: tiny; "
            "atari100k with a GPU.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run directory. Default: runs/<games>-<preset>-<seed>.", show_default=False),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Begin with the trained encoder of this run, or more of it (start.parts), and with its "
            "settings. Default: nothing.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of everything random in the run. Default: the preset's, 0.", show_default=False
        ),
    ] = None,
    device: DeviceOption = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="section.key=value over the preset, such as train.agent.steps=2400; may be repeated. "
            "config.toml in a run has all of them.",
            show_default=False,
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log", help="tensorboard or wandb, beside metrics.jsonl; may be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Train everything from nothing: collect, encoder, hrvq, worldmodel, agent, decoder, evaluation, report.

    On a run that exists it goes on where it stopped: its settings hold unless --preset is given, finished
    stages are skipped, and a changed setting re-runs just what depends on it.
    """
    from wm.training import train_run

    console = make_console()
    train_run(
        stage=stage,
        games=None if games is None else names_of_games(games),
        preset=preset,
        directory=run,
        start=start,
        seed=seed,
        device_name=device,
        overrides=settings or [],
        logs=log or [],
        console=console,
    )

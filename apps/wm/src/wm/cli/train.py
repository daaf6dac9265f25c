"""`wm train`: from scratch to an agent with a score."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import DeviceOption, names_of_games
from wm.console import make_console


def train(
    stage: Annotated[
        str | None,
        typer.Argument(
            help="Run only this stage: collect, encoder, hrvq, worldmodel, agent, choose, decoder, evaluate; "
            "collect-0 and so on for an earlier round; start for a run made with --from.",
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
        typer.Option(
            help="Run directory. Default: runs/<games>-<preset>-<seed>, or <games>-from-<run>-<seed>.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Start with the trained encoder of this run, or with more of it (start.parts), and with its "
            "settings. Default: start from scratch.",
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
            help="section.key=value, overrides the preset, such as train.agent.steps=2400; may be repeated. "
            "A run's config.toml lists all settings.",
            show_default=False,
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log", help="tensorboard or wandb, besides metrics.jsonl; may be repeated.", show_default=False
        ),
    ] = None,
) -> None:
    """Train everything from scratch: collect, encoder, hrvq, worldmodel, agent, decoder, evaluation, report.

    An existing run resumes where it stopped: it keeps its settings unless --preset is given, skips finished
    stages, and reruns only what depends on a changed setting.
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

"""`wm dream`: watch the agent play inside the world model."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import DeviceOption, RecordedOption, RoundOption, RunArgument, a_file
from wm.console import make_console


def dream(
    run: RunArgument,
    game: Annotated[
        str | None, typer.Option(help="One of the run's games. Default: its first.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the film, a GIF or an mp4. Default: RUN/dream-GAME-SEED.gif, or "
            "RUN/dream-GAME-SEED-round-K.gif with --round.",
            show_default=False,
            callback=a_file,
        ),
    ] = None,
    horizon: Annotated[int, typer.Option(min=1, help="Steps to dream; 15 make a second of play.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the opening frames and the dream.")] = 0,
    recorded: RecordedOption = False,
    index: RoundOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Film the agent playing in a dream, drawn level by level, with its actions and predicted rewards."""
    from wm.opening import open_to_read
    from wm.view.dream_film import film_run

    opened = open_to_read(run, make_console(), device_name=device, index=index)
    film_run(opened, game=game, out=out, horizon=horizon, recorded=recorded, seed=seed)

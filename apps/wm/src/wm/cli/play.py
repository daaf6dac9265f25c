"""`wm play`: play inside the world model."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import DeviceOption, RecordedOption, RoundOption, RunArgument, a_file
from wm.console import make_console


def play(
    run: RunArgument,
    game: Annotated[
        str | None, typer.Option(help="One of the run's games. Default: its first.", show_default=False)
    ] = None,
    agent: Annotated[bool, typer.Option("--agent", help="Let the agent start; move to take over.")] = False,
    speed: Annotated[
        float, typer.Option(min=0.1, max=60, help="Steps per second; the real game runs at 15.")
    ] = 15.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also save the last dream as a film, a GIF or an mp4.", show_default=False, callback=a_file
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the opening frames and the dream.")] = 0,
    recorded: RecordedOption = False,
    index: RoundOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Play inside the world model, in the terminal: arrows, space, tab for the agent, q to end."""
    from wm.opening import open_to_read
    from wm.view.playing import play_run

    opened = open_to_read(run, make_console(), device_name=device, index=index)
    play_run(opened, game=game, out=out, agent=agent, steps_per_second=speed, recorded=recorded, seed=seed)

"""`wm bench`: games and seeds, one table."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import DeviceOption, JsonOption, make_console
from wm.errors import friendly_errors


def bench(
    games: Annotated[str, typer.Option(help="ALE names, comma-separated.")] = "pong,breakout,ms_pacman",
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2",
    preset: Annotated[
        str | None,
        typer.Option(
            help="A preset or a TOML file. Default: tiny; atari100k with a GPU.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the runs and the result go.")] = Path("bench"),
    episodes: Annotated[int, typer.Option(help="Played by each finished run.")] = 100,
    submit_command: Annotated[
        str | None,
        typer.Option(
            help="Run nothing; print a command for each run, put into this text in the place of {command}, "
            "for SLURM, Ray or any other engine. {game}, {seed} and {name} are filled in as well.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value over the preset; may be repeated.", show_default=False),
    ] = None,
    json_file: JsonOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train and play every game with every seed, and put it in one table beside published systems.

    Finished runs are skipped and an interrupted one goes on, so the same command, after an engine has run the
    commands of --submit-command, gathers what they made.
    """
    console = make_console()
    with friendly_errors(console):
        from wm.bench import BenchOptions, submit_commands
        from wm.bench import bench as run_bench
        from wm.device import pick_device

        if not all(part.strip().isdecimal() for part in seeds.split(",")):
            raise ValueError(f"--seeds takes whole numbers with commas between, such as 0,1,2; got {seeds!r}")
        chosen = "atari100k" if pick_device(device).type == "cuda" else "tiny"
        options = BenchOptions(
            games=tuple(game.strip() for game in games.split(",")),
            seeds=tuple(int(part) for part in seeds.split(",")),
            preset=preset or chosen,
            out=out,
            episodes=episodes,
            overrides=tuple(settings or ()),
        )
        if submit_command is not None:
            for line in submit_commands(options, submit_command, device):
                typer.echo(line)
            return
        run_bench(options, json_file=json_file, device_name=device, console=console)

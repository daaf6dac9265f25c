"""`wm bench`: games and seeds, one table."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wm.cli.options import DeviceOption, JsonOption, names_of_games, numbers_of_seeds
from wm.console import make_console


def bench(
    games: Annotated[
        list[str] | None,
        typer.Option(
            help="ALE names, comma-separated. Default: pong,breakout,ms_pacman.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(help="Seeds to run for each game, comma-separated. Default: 0,1,2.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A preset or a TOML file. Default: tiny; atari100k with a GPU.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the runs and the result go.")] = Path("bench"),
    episodes: Annotated[
        int, typer.Option(min=1, help="Episodes played by each run's agent, and by a random one.")
    ] = 100,
    engine: Annotated[
        Literal["local", "submitit"],
        typer.Option(
            help="local: here, one run after another; submitit: a SLURM job for each run, or without SLURM "
            "a process for each on this machine, all at once."
        ),
    ] = "local",
    engine_settings: Annotated[
        list[str] | None,
        typer.Option(
            "--engine-set",
            help="key=value for submitit, such as gpus_per_node=1 (without it a job sees no GPU), "
            "timeout_min=600 or 'slurm_partition=\"gpu\"'; may be repeated.",
            show_default=False,
        ),
    ] = None,
    submit_command: Annotated[
        str | None,
        typer.Option(
            help="Run nothing; print this text once per run, for Ray or another engine, with {command} "
            "replaced by the run's command, or {quoted} by the same as one shell word "
            "(sbatch --wrap {quoted}). {game}, {seed} and {name} are filled in as well.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="section.key=value, overrides the preset; may be repeated.", show_default=False
        ),
    ] = None,
    json_file: JsonOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train and evaluate every game with every seed, and show the scores next to published ones in one table.

    Finished runs are skipped and interrupted ones resume. So once another engine has run the commands printed
    by --submit-command, the same command without that option gathers the results.
    """
    from wm.bench.protocol import RESULT, BenchOptions, bench_as_jobs, submit_commands
    from wm.bench.protocol import bench as run_bench
    from wm.device import named_device, pick_device
    from wm.preset import default_preset

    console = make_console()
    if engine == "submitit" and preset is None:
        raise ValueError(
            "--engine submitit needs --preset: the default depends on the machine, and the jobs may run on "
            "others"
        )
    if engine == "local" and engine_settings:
        raise ValueError("--engine-set is for --engine submitit; give both or neither")
    if engine == "submitit" and submit_command is not None:
        raise ValueError(
            "--engine submitit starts the runs and --submit-command only prints them; give one of them"
        )
    if json_file is not None and json_file.resolve() == (out / RESULT).resolve():
        raise ValueError(f"--json {json_file} is where the table of all runs is kept; give another file")
    if json_file is not None and submit_command is not None:
        raise ValueError("--json writes results and --submit-command produces none; give one of them")
    named_device(device)  # only its form is checked: the runs may be on another machine
    if preset is None:
        preset = default_preset(pick_device(device))
    options = BenchOptions(
        games=tuple(names_of_games(games or ["pong,breakout,ms_pacman"])),
        seeds=tuple(numbers_of_seeds(seeds or ["0,1,2"])),
        preset=preset,
        out=out,
        episodes=episodes,
        overrides=tuple(settings or ()),
    )
    if submit_command is not None:
        for line in submit_commands(options, submit_command, device):
            typer.echo(line)
        return
    if engine == "submitit":
        bench_as_jobs(options, device_name=device, settings=engine_settings or [], console=console)
    run_bench(options, json_file=json_file, device_name=device, console=console)

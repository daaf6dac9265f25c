"""`wm fidelity`: how long a dream stays true."""

from typing import Annotated

import typer

from wm.cli.options import DeviceOption, JsonOption, RoundOption, RunArgument
from wm.console import make_console


def fidelity(
    run: RunArgument,
    horizon: Annotated[
        int, typer.Option(min=1, help="Steps to dream, at most what fits in the model's window.")
    ] = 50,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Real steps before each dream. Default: the run's.", show_default=False),
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Dreams per game.")] = 256,
    frames: Annotated[
        int, typer.Option(min=200, help="Steps of fresh play, to train the state reader and to replay.")
    ] = 10_000,
    reader_steps: Annotated[int, typer.Option(min=1, help="Training steps of the state reader.")] = 1000,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the dreamed tokens, regardless of the run's; 0 is greedy.")
    ] = 1.0,
    by_agent: Annotated[
        bool, typer.Option("--by-agent", help="Replay the agent's own play instead of random play.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed for the fresh play and the dreams.")
    ] = 1000,
    index: RoundOption = None,
    json_file: JsonOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Replay real actions in dreams and measure how long tokens, rewards and state stay true.

    Every number is shown next to that of copying the last real step. The JSON holds every horizon.
    """
    from wm.measure.fidelity import FidelityOptions, fidelity_run
    from wm.opening import open_to_read

    opened = open_to_read(run, make_console(), device_name=device, index=index)
    options = FidelityOptions(
        horizon=horizon,
        context=opened.config.dream.context if context is None else context,
        windows=windows,
        frames=frames,
        reader_steps=reader_steps,
        temperature=temperature,
        by_agent=by_agent,
        seed=seed,
    )
    fidelity_run(opened, options, json_file=json_file)

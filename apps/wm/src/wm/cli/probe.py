"""`wm probe`: how much of the game's state each stage keeps."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import DeviceOption, JsonOption, RoundOption, RunArgument
from wm.console import make_console


def probe(
    run: RunArgument,
    frames: Annotated[
        int, typer.Option(min=200, help="Steps of fresh play to train on; half as many more for the test.")
    ] = 10_000,
    probe_steps: Annotated[int, typer.Option(min=20, help="Training steps of an MLP probe.")] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed for the fresh play and the probes.")
    ] = 1000,
    supervised: Annotated[
        bool, typer.Option("--supervised", help="Also train the same encoder on the labels, for comparison.")
    ] = False,
    f1: Annotated[
        bool, typer.Option("--f1", help="Also follow the AtariARI protocol: weighted F1 by category.")
    ] = False,
    by_agent: Annotated[
        bool,
        typer.Option("--by-agent", help="Probe on the agent's own play instead of random play."),
    ] = False,
    dinov2: Annotated[
        Path | None,
        typer.Option(help="Local DINOv2 ViT-S/14 weights to measure as well.", show_default=False),
    ] = None,
    dinov2_size: Annotated[
        int | None,
        typer.Option(
            help="Pixels of DINOv2's input, a multiple of 14 (224 by default); needs --dinov2.",
            show_default=False,
        ),
    ] = None,
    index: RoundOption = None,
    json_file: JsonOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure how much of the game's true state can be read at each stage, from pixels to tokens.

    Probes are trained on fresh play with the emulator's RAM and tested on episodes of another seed.
    """
    from wm.measure.probing import ProbeOptions, probe_run
    from wm.opening import open_to_read

    if dinov2_size is not None and dinov2 is None:
        raise ValueError("--dinov2-size is given without --dinov2; give the weights too, or leave it out")
    opened = open_to_read(run, make_console(), device_name=device, index=index)
    options = ProbeOptions(
        frames=frames,
        steps=probe_steps,
        seed=seed,
        supervised=supervised,
        f1=f1,
        by_agent=by_agent,
        dinov2=dinov2,
        dinov2_size=224 if dinov2_size is None else dinov2_size,
    )
    probe_run(opened, options, json_file=json_file)

"""`wm atlas`: a page about the codes."""

from pathlib import Path
from typing import Annotated

import typer

from wm.cli.options import DeviceOption, RunArgument, a_file
from wm.console import make_console


def atlas(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="The page. Default: RUN/atlas.html.", show_default=False, callback=a_file),
    ] = None,
    level: Annotated[
        list[int] | None,
        typer.Option(help="Only this level (0 is the coarsest); may be repeated.", show_default=False),
    ] = None,
    examples: Annotated[int, typer.Option(min=1, max=24, help="Real frames shown for each code.")] = 6,
    device: DeviceOption = "auto",
) -> None:
    """Write a page that shows what each code stands for, which games use it, and what they share."""
    from wm.opening import open_to_read
    from wm.view.atlas_page import write_atlas

    opened = open_to_read(run, make_console(), device_name=device)
    write_atlas(opened, out=out, levels=level or [], examples=examples)

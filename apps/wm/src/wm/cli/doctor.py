"""`wm doctor`: does everything work here?"""

import typer

from wm.cli.options import DeviceOption
from wm.console import make_console
from wm.errors import friendly_errors


def doctor(device: DeviceOption = "auto") -> None:
    """Check versions, ROMs, devices, bf16, disk, and run one step of every stage. Takes seconds."""
    console = make_console()
    with friendly_errors(console):
        from wm.doctor import examine

        if not examine(console, device):
            raise typer.Exit(1)

"""`wm doctor`: does everything work here?"""

import typer

from wm.cli.options import DeviceOption
from wm.console import make_console


def doctor(device: DeviceOption = "auto") -> None:
    """Check versions, ROMs, devices, bf16, disk, and run one step of every stage. Takes seconds."""
    from wm.doctor import examine

    console = make_console()
    if not examine(console, device):
        raise typer.Exit(1)

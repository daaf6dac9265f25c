"""What a command measured, as a file."""

from pathlib import Path
from typing import Any

from rich.console import Console

from wm.files import write_json


def write_result(path: Path | None, result: Any, console: Console) -> None:
    """Write JSON to ``path``, if one is given, and say so."""
    if path is not None:
        write_json(path, result)
        console.print(f"written to {path}")

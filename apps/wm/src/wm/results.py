"""What a command measured, as a file."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from wm.files import write_text
from wm.run import finite


def write_result(path: Path | None, result: Any, console: Console) -> None:
    """Write JSON to ``path``, if one is given, and say so."""
    if path is not None:
        write_text(path, json.dumps(finite(result), indent=1) + "\n")
        console.print(f"written to {path}", soft_wrap=True)

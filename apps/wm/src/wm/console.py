"""The terminal that commands speak to."""

import math
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 160  # tables are not folded there


class Terminal(Console):
    """Sentences are the terminal's to wrap, so that a command in them can be pasted; tables are fitted."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`."""
        if all(isinstance(each, str) for each in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)


def make_console(*, stderr: bool = False) -> Console:
    """Text comes out as it is: brackets and numbers in it, as in the name of a run, are no markup.

    With ``stderr`` it is for what went wrong, so that what a command prints can be piped on.
    """
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else WIDTH_WITHOUT_TERMINAL
    return Terminal(stderr=stderr, width=width, markup=False, highlight=False)


def numbers_table(title: str, *columns: str, words: int = 1) -> Table:
    """A table without rows yet: its first ``words`` columns on the left, the rest, numbers, on the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < words else "right")
    return table


def command(*words: str | Path) -> str:
    """A command between backquotes that a shell takes as it stands, whatever is in its paths."""
    return f"`{shlex.join(map(str, words))}`"


def shown(value: float | None, form: str) -> str:
    """A number in this format, such as ``.1%``; "?" if it is unknown: NaN, which a manifest keeps as null."""
    return "?" if value is None or not math.isfinite(value) else format(value, form)

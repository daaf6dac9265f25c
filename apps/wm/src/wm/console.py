"""The terminal that commands print to."""

import math
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

BETWEEN_COLUMNS = 3  # characters: a line, and a space on either side of it
WIDTH_WITHOUT_TERMINAL = 160  # tables are not folded there


class Terminal(Console):
    """Leaves sentences for the terminal to wrap, so that a command in them can be pasted; fits tables."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`."""
        if all(isinstance(each, str) for each in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: brackets, numbers and :x:, as in a run's name, are not markup.

    With ``stderr`` it is for errors and warnings, so that what a command prints can be piped on.
    """
    width = None if (sys.stderr if stderr else sys.stdout).isatty() else WIDTH_WITHOUT_TERMINAL
    return Terminal(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def text_table(*columns: str, title: str | None = None) -> Table:
    """A table of text, which is folded if the terminal is too narrow for it."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


class NumbersTable(Table):
    """A table whose first columns are text, left-aligned, and the rest numbers, right-aligned.

    If the terminal is too narrow for all of them, it is drawn as several tables that each repeat the text
    columns: no number is ever folded or truncated.

    Args:
        words: number of text columns.
    """

    def __init__(self, title: str, *columns: str, words: int = 1) -> None:
        super().__init__(title=title, title_justify="left", caption_justify="left")
        self._words = words
        for index, column in enumerate(columns):
            self.add_column(column, justify="left" if index < words else "right", overflow="fold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts that fit the width, under one title and above one caption."""
        parts = self._parts(console, options)
        if len(parts) == 1:
            yield from super().__rich_console__(console, options)
            return
        for number, part in enumerate(parts):
            table = NumbersTable("", *(str(column.header) for column in part), words=self._words)
            table.title = self.title if number == 0 else None
            table.caption = self.caption if number == len(parts) - 1 else None
            cells = zip(*(column.cells for column in part), strict=True)
            for row, of_row in zip(self.rows, cells, strict=True):
                table.add_row(*of_row, style=row.style, end_section=row.end_section)
            yield table

    def _parts(self, console: Console, options: ConsoleOptions) -> list[list[Column]]:
        """The columns of each table that is drawn: the text, and as many numbers as fit next to it."""

        def width(column: Column) -> int:
            name = Measurement.get(console, options, column.header).minimum  # folds between its words
            cells = (Measurement.get(console, options, cell).maximum for cell in column.cells)
            return max(name, *cells, 0) + BETWEEN_COLUMNS

        words, numbers = self.columns[: self._words], self.columns[self._words :]
        room = options.max_width - 1 - sum(map(width, words))
        parts, left = [list(words)], room
        for column in numbers:
            if width(column) > left and len(parts[-1]) > len(words):
                parts.append(list(words))
                left = room
            parts[-1].append(column)
            left -= width(column)
        return parts


def command(*words: str | Path) -> str:
    """A command in backquotes, quoted so that it can be pasted into a shell, whatever is in its paths."""
    return f"`{shlex.join(map(str, words))}`"


def train_command(run: str | Path) -> str:
    """The command that trains this run, or resumes it."""
    return command("wm", "train", "--run", run)


def depth_name(level: int) -> str:
    """The name of the levels up to this one: L0, L0-1 and so on."""
    return f"L0-{level}" if level else "L0"


def shown(value: float | None, form: str) -> str:
    """A number in this format, such as ``.1%``; "?" for None or NaN (which a manifest stores as null)."""
    return "?" if value is None or not math.isfinite(value) else format(value, form)


def counted(number: int, what: str) -> str:
    """A number and what is counted, in the plural unless it is one."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def spans(numbers: Iterable[int]) -> str:
    """Increasing whole numbers in short form: 1, 2, 3 and 8 as "1-3, 8"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in found)

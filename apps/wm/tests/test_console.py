"""What the terminal is told."""

import io

from rich.table import Table
from wm.console import Terminal


def test_sentences_are_left_to_the_terminal_to_wrap_and_tables_are_fitted():
    told = Terminal(file=io.StringIO(), width=30)
    told.print("error: `wm train --run runs/pong-tiny-0 --set seed=3` does it")
    assert told.file.getvalue().count("\n") == 1
    table = Table("a", "b")
    table.add_row("words " * 9, "more " * 9)
    told.print(table)
    assert max(map(len, told.file.getvalue().splitlines()[1:])) <= 30

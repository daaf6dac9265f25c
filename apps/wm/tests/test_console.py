"""What is printed to the terminal."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from wm.console import NumbersTable, Terminal, make_console, spans


def test_sentences_are_left_to_the_terminal_to_wrap_and_tables_are_fitted():
    told = Terminal(file=io.StringIO(), width=30)
    told.print("error: `wm train --run runs/pong-tiny-0 --set seed=3` does it")
    assert told.file.getvalue().count("\n") == 1
    table = Table("a", "b")
    table.add_row("words " * 9, "more " * 9)
    told.print(table)
    assert max(map(len, told.file.getvalue().splitlines()[1:])) <= 30


def drawn(width: int) -> list[str]:
    table = NumbersTable("scores", "game", "one two", "three", "four")
    table.caption = "all of them"
    table.add_row("pong", "1234567 (1)", "2", "3")
    table.add_section()
    table.add_row("breakout", "4", "5", "66666666")
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_numbers_stay_whole_where_a_table_has_to_be_several():
    wide, narrow = drawn(80), drawn(31)
    assert [line for line in wide if "pong" in line] == ["│ pong     │ 1234567 (1) │     2 │        3 │"]
    assert max(map(len, narrow)) <= 31
    assert [line for line in narrow if "pong" in line] == [
        "│ pong     │ 1234567 (1) │",
        "│ pong     │     2 │        3 │",
    ]
    for lines in (wide, narrow):
        assert (lines[0], lines[-1]) == ("scores", "all of them")
        assert lines.count("scores") == lines.count("all of them") == 1
    assert sum("├" in line for line in narrow) == 2  # its section in either


def test_a_number_that_fits_nowhere_has_a_table_of_its_own():
    assert len([line for line in drawn(14) if line.startswith("┏")]) == 3


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([4], "4"), ([1, 2, 3, 8], "1-3, 8"), ([0, 2, 3], "0, 2-3")]
)
def test_rising_numbers_in_short(numbers, text):
    assert spans(numbers) == text


def test_a_name_is_printed_as_it_is(capsys):
    table = Table("a")
    table.add_row("a:dog:b [x]")
    console = make_console()
    console.print("run `wm train --run a:dog:b [x]`")
    console.print(table)
    assert capsys.readouterr().out.count("a:dog:b [x]") == 2

"""What a user sees of an error: a sentence and an exit code; of a defect, all of it."""

import errno
import io

import pytest
import typer
from rich.console import Console
from wm.errors import INTERRUPTED, friendly_errors


class Stopped:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt


def make_a_class():
    type("Made", (), {"field": Stopped()})


def test_ctrl_c_in_the_midst_of_an_import_is_ctrl_c():
    console = Console(file=io.StringIO())
    with pytest.raises(typer.Exit) as left, friendly_errors(console, resumes=True):
        make_a_class()  # Python 3.11 makes a RuntimeError of it
    assert left.value.exit_code == INTERRUPTED
    assert "the same command goes on from here" in console.file.getvalue()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_where_nothing_may_be_written_is_said_in_a_sentence(number):
    console = Console(file=io.StringIO())
    with pytest.raises(typer.Exit) as left, friendly_errors(console):
        raise OSError(number, "no", "/somewhere/score.json")
    assert left.value.exit_code == 2
    assert "no permission to write /somewhere/score.json" in console.file.getvalue()


def test_a_command_that_begins_anew_does_not_say_that_it_goes_on():
    console = Console(file=io.StringIO())
    with pytest.raises(typer.Exit), friendly_errors(console):
        raise KeyboardInterrupt
    assert console.file.getvalue().strip() == "interrupted"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ours"), friendly_errors(Console(file=io.StringIO())):
        raise RuntimeError("ours")

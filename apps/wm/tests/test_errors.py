"""What a user sees of an error: a sentence and an exit code; of a defect, all of it."""

import errno
import io

import pytest
import typer
from rich.console import Console
from safetensors import SafetensorError
from wm.console import make_console
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


REMEDY = "put that right or give another path, and run the command again"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "Permission denied", "a/score.json"), "a/score.json: Permission denied"),
        (OSError(errno.EEXIST, "File exists", "run/videos"), "run/videos: File exists"),
        (OSError(errno.ENOTDIR, "Not a directory", "file/x"), "file/x: Not a directory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), f"{'x' * 300}: File name too long"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EXDEV, "Invalid link", "a", None, "b"), "a to b: Invalid link"),
        (SafetensorError("I/O error: No space (os error 28)"), "I/O error: No space (os error 28)"),
    ],
)
def test_what_the_system_refuses_is_one_sentence_with_a_path_and_a_remedy(error, said):
    console = Console(file=io.StringIO())
    with pytest.raises(typer.Exit) as left, friendly_errors(console):
        raise error
    assert left.value.exit_code == 2
    assert console.file.getvalue() == f"error: {said}; {REMEDY}\n"


def test_an_error_that_says_itself_what_to_do_is_left_so(capsys):
    with pytest.raises(typer.Exit), friendly_errors(make_console()):
        raise FileNotFoundError("there is no such run;\n give another")
    assert capsys.readouterr() == ("", "error: there is no such run; give another\n")


def test_a_reader_that_has_had_enough_is_no_error():
    with pytest.raises(BrokenPipeError), friendly_errors(Console(file=io.StringIO())):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_command_that_begins_anew_does_not_say_that_it_goes_on():
    console = Console(file=io.StringIO())
    with pytest.raises(typer.Exit), friendly_errors(console):
        raise KeyboardInterrupt
    assert console.file.getvalue().strip() == "interrupted"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ours"), friendly_errors(Console(file=io.StringIO())):
        raise RuntimeError("ours")

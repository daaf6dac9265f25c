"""What a user sees of an error: a sentence and an exit code; of a bug, the whole traceback."""

import errno

import pytest
import typer
from typer.main import get_command
from wm.cli import app
from wm.errors import INTERRUPTED, friendly_errors


class Stopped:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt


def make_a_class():
    type("Made", (), {"field": Stopped()})


def test_ctrl_c_in_the_midst_of_an_import_is_ctrl_c(capsys):
    with pytest.raises(typer.Exit) as left, friendly_errors(resumes=lambda: True):
        make_a_class()  # Python 3.11 makes a RuntimeError of it
    assert left.value.exit_code == INTERRUPTED
    assert "the same command resumes from here" in capsys.readouterr().err


REMEDY = "fix it or give another path, and run the command again"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "Permission denied", "a/score.json"), "a/score.json: Permission denied"),
        (OSError(errno.EEXIST, "File exists", "run/videos"), "run/videos: File exists"),
        (OSError(errno.ENOTDIR, "Not a directory", "file/x"), "file/x: Not a directory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), f"{'x' * 300}: File name too long"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EXDEV, "Invalid link", "a", None, "b"), "a to b: Invalid link"),
    ],
)
def test_what_the_system_refuses_is_one_sentence_with_a_path_and_a_remedy(error, said, capsys):
    with pytest.raises(typer.Exit) as left, friendly_errors():
        raise error
    assert left.value.exit_code == 2
    assert capsys.readouterr() == ("", f"error: {said}; {REMEDY}\n")


def test_a_machine_without_memory_is_told_in_a_sentence(capsys):
    with pytest.raises(typer.Exit) as left, friendly_errors():
        raise MemoryError
    assert left.value.exit_code == 2
    assert capsys.readouterr() == (
        "",
        "error: there is not enough memory; free some, or give smaller sizes\n",
    )


def test_an_error_that_says_itself_what_to_do_is_left_so(capsys):
    with pytest.raises(typer.Exit), friendly_errors():
        raise FileNotFoundError("there is no such run;\n give another")
    assert capsys.readouterr() == ("", "error: there is no such run; give another\n")


def test_a_reader_that_has_had_enough_is_no_error():
    with pytest.raises(BrokenPipeError), friendly_errors():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_command_that_begins_anew_does_not_say_that_it_goes_on(capsys):
    with pytest.raises(typer.Exit), friendly_errors():
        raise KeyboardInterrupt
    assert capsys.readouterr().err.strip() == "interrupted"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ours"), friendly_errors():
        raise RuntimeError("ours")


def test_a_traceback_of_any_error_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("WM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="x is 1"), friendly_errors():
        raise ValueError("x is 1")


@pytest.mark.parametrize("name", get_command(app).commands)
@pytest.mark.parametrize(("raised", "code"), [(ValueError("x is 1"), 2), (KeyboardInterrupt(), INTERRUPTED)])
def test_every_command_ends_with_a_sentence(name, raised, code, monkeypatch, capsys):
    commands = get_command(app)

    def broken(_):
        raise raised

    monkeypatch.setattr(commands.commands[name], "params", [])
    monkeypatch.setattr(commands.commands[name], "invoke", broken)
    with pytest.raises(SystemExit) as left:
        commands.main([name])
    assert left.value.code == code
    goes_on = "; the same command resumes from here, but unfinished collecting starts over"
    interrupted = f"interrupted{goes_on if name in ('train', 'bench') else ''}"
    assert capsys.readouterr() == ("", f"{'error: x is 1' if code == 2 else interrupted}\n")


def test_help_and_what_is_no_command_end_as_ever(capsys):
    for arguments, code in ((["--help"], 0), (["train", "--help"], 0), (["trian"], 2), (["dream"], 2)):
        with pytest.raises(SystemExit) as left:
            get_command(app).main(arguments)
        assert left.value.code == code
        assert ("Usage" in capsys.readouterr().out) == (code == 0)

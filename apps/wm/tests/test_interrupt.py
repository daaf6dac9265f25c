"""Ctrl-C, sent to this process as the system sends it."""

import os
import signal
import subprocess
import sys

import pytest
from wm import interrupt
from wm.interrupt import deferred_interrupt, stop_on_ctrl_c

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture
def command():
    """As in a command, whose first Ctrl-C raises; what was heard before is heard again afterwards."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with stop_on_ctrl_c():
        yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_and_the_second_does_not(command, number):
    with deferred_interrupt() as arrived:
        assert not arrived()
        os.kill(os.getpid(), number)
        assert arrived()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_after_a_ctrl_c_that_waited_the_next_one_ends_the_process(command):
    with deferred_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is interrupt._leave


def test_what_was_heard_before_is_heard_again_if_nothing_came(command):
    terminate = signal.getsignal(signal.SIGTERM)
    with deferred_interrupt():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is interrupt._leave  # this was the first one
    assert signal.getsignal(signal.SIGTERM) == terminate


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "wm.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
signal.signal(signal.SIGINT, signal.default_int_handler)
from wm.__main__ import main
main()
"""


def test_ctrl_c_before_there_is_a_command_shows_no_traceback():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

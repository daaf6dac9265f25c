"""Ctrl-C: the first one stops a command in an orderly way, the second one ends it at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from wm.errors import INTERRUPTED


@contextmanager
def stop_on_ctrl_c() -> Iterator[None]:
    """Around a command: the first Ctrl-C raises `KeyboardInterrupt`, later ones end the process at once.

    A second `KeyboardInterrupt` could be raised inside the code that handles the first. Files are renamed
    into place, so exiting at any line loses nothing that was written. Where the signal is ignored, as in a
    shell's background jobs, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        # Python takes a moment to exit; nothing is left to stop by then, and Ctrl-C would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait for the end of a step, so that the state that is saved is that of a whole step.

    Yields a function that tells whether a signal has arrived; a second one takes effect immediately. Outside
    the main thread, where Python delivers no signals, it always returns False; ignored signals do not count.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    arrived = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal arrived
        if arrived:
            raise KeyboardInterrupt
        arrived = True

    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in heard}
    try:
        yield lambda: arrived
    finally:
        if arrived and previous.get(signal.SIGINT) is _stop:
            previous[signal.SIGINT] = _leave  # this was the first one
        for number, old in previous.items():
            signal.signal(number, old)

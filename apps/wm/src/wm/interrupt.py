"""Ctrl-C: the first one stops a command in order, a second one ends it on the spot."""

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
    """Around a command: Ctrl-C raises `KeyboardInterrupt` once, from then on it ends the process at once.

    Raised a second time, `KeyboardInterrupt` would fall between the lines that handle the first. Files are
    renamed into place, so leaving at any line loses nothing that was written. Where the signal is ignored,
    as in a shell's background jobs, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        # Python takes a moment to end; nothing is left to stop then, and Ctrl-C would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM wait for the end of a step, so that what is saved is a whole step's state.

    Yields a function that tells whether one has arrived; a second Ctrl-C is immediate. Off the main thread,
    where Python delivers no signals, it never tells of one; of a signal that is ignored neither.
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

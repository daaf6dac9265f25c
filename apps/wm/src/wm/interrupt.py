"""Ctrl-C and SIGTERM that wait for the end of a step, so that what is saved is a whole step's state."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether an interrupt has arrived; a second Ctrl-C is immediate.

    Off the main thread, where Python delivers no signals, it never tells of one.
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

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: arrived
    finally:
        for number, old in previous.items():
            signal.signal(number, old)

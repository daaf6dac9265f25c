"""A terminal as a screen of gray pixels and as a keyboard."""

import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from wm.view.images import Pixels

_ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}
_SAME = {"\x03": "q"}  # Ctrl-C
_PRESSED = re.compile(rb"\x1b[\[O]([ABCD])|\x1b(?:\[\[?[0-9;]*|O)[~A-Z]|([\x00-\x7f])")


class HalfBlocks:
    """A frame as text: each character shows two pixels, the upper as its colour, the lower as its background.

    Args:
        frame: uint8 (H, W), H even.
    """

    def __init__(self, frame: Pixels) -> None:
        self.frame = frame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The rows, with equal neighbours joined."""
        for upper, lower in zip(self.frame[::2].tolist(), self.frame[1::2].tolist(), strict=True):
            for pair, run in groupby(zip(upper, lower, strict=True)):
                yield Segment("▀" * len(list(run)), _style(*pair))
            yield Segment.line()


@lru_cache(maxsize=4096)
def _style(upper: int, lower: int) -> Style:
    return Style(color=f"rgb({upper},{upper},{upper})", bgcolor=f"rgb({lower},{lower},{lower})")


def require_terminal() -> None:
    """Check that keys can be read.

    Raises:
        ValueError: there is no terminal, or keys cannot be read from it.
    """
    if find_spec("termios") is None:
        raise ValueError(
            "keys cannot be read on this system; use Linux, macOS or WSL, or film a dream with `wm dream`"
        )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ValueError("there is no terminal to play in; run it in one, or film a dream with `wm dream`")


@contextmanager
def keyboard() -> Iterator[Callable[[float], list[str]]]:
    """Reads keys one by one, without echo or Enter; restores the terminal afterwards.

    Yields a function that waits until a time (``time.monotonic``) and returns what was pressed by then:
    up, down, right, left, or the character in lower case. Ctrl-C is the key "q", and so is a terminal that
    is gone: as a signal, Ctrl-C could come between any two lines, even those that take or restore the screen.

    Raises:
        ValueError: as for `require_terminal`.
    """
    require_terminal()
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read(until: float) -> list[str]:
        received = b""
        # At least once, so that a dream that is too slow still reads keys.
        while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
            data = os.read(descriptor, 1024)
            if not data:
                return ["q"]
            received += data
        return pressed(received)

    tty.setcbreak(descriptor)
    mode = termios.tcgetattr(descriptor)
    mode[-1][termios.VINTR] = os.fpathconf(descriptor, "PC_VDISABLE").to_bytes()
    termios.tcsetattr(descriptor, termios.TCSANOW, mode)
    try:
        yield read
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def pressed(received: bytes) -> list[str]:
    """The keys that these bytes from a terminal stand for; unknown sequences are ignored."""
    keys = (
        _ARROWS.get(arrow) or character.decode().lower() for arrow, character in _PRESSED.findall(received)
    )
    return [_SAME.get(key, key) for key in keys if key]

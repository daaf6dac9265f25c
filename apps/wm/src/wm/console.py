"""The terminal that commands speak to."""

import sys

from rich.console import Console

WIDTH_OF_NO_TERMINAL = 160  # tables are not folded there


def make_console() -> Console:
    """Text comes out as it is: brackets and numbers in it, as in the name of a run, are no markup."""
    width = None if sys.stdout.isatty() else WIDTH_OF_NO_TERMINAL
    return Console(width=width, markup=False, highlight=False)

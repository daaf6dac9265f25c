"""Argument checks that several modules share."""

import operator
from typing import SupportsIndex


def whole(name: str, value: SupportsIndex, *, least: int | None = None) -> int:
    """The value as a Python int, which JSON and the emulator need; NumPy integers are accepted.

    Raises:
        ValueError: it is not a whole number, or is below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; give an integer") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; give {least} or more")
    return number

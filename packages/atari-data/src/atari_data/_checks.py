"""What several modules ask of what they are given."""

import operator
from typing import SupportsIndex


def whole(name: str, value: SupportsIndex, *, least: int | None = None) -> int:
    """The value as Python's own integer, which JSON and the emulator take; NumPy's are welcome.

    Raises:
        ValueError: it is not a whole number, or below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; give an integer") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; give {least} or more")
    return number

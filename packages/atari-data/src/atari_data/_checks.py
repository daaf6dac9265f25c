"""What several modules ask of what they are given."""

import operator
from typing import SupportsIndex


def whole(name: str, value: SupportsIndex) -> int:
    """The value as Python's own integer, which JSON and the emulator take; NumPy's are welcome.

    Raises:
        ValueError: it is not a whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; give an integer") from None

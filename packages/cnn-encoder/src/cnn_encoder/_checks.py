"""Checks shared by the configurations."""

import math
from numbers import Integral, Real
from typing import Any


def require_whole(config: Any, *names: str, least: int = 1) -> None:
    """Raise a ValueError unless these settings are whole numbers, ``least`` or more; store them as ``int``.

    JSON does not accept NumPy integers, such as those of a shape read from a file.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, Integral) or int(value) < least:
            raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
        object.__setattr__(config, name, int(value))


def require_number(config: Any, *names: str, zero: bool = True) -> None:
    """Raise a ValueError unless these settings are finite numbers above 0, or 0 if ``zero`` allows it."""
    for name in names:
        value = getattr(config, name)
        if not (isinstance(value, Real) and 0 <= float(value) < math.inf and (zero or value)):
            allowed = "of at least 0" if zero else "above 0"
            raise ValueError(f"{name} is {value!r}; give a finite number {allowed}")

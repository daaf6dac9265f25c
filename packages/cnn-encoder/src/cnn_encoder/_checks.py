"""Checks shared by the configurations."""

from numbers import Integral
from typing import Any


def require_whole(config: Any, *names: str, least: int = 1) -> None:
    """Raise a ValueError unless these settings are whole numbers, ``least`` or more; keep them as ``int``.

    JSON does not take NumPy's integers, such as those of a shape read from a file.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, Integral) or int(value) < least:
            raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
        object.__setattr__(config, name, int(value))

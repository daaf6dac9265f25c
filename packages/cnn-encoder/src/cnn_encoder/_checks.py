"""Checks shared by the configurations."""

from numbers import Integral
from typing import Any


def require_whole(config: Any, *names: str) -> None:
    """Raise a ValueError unless these settings are whole numbers of at least 1; then keep them as ``int``.

    JSON does not take NumPy's integers, such as those of a shape read from a file.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, Integral) or int(value) < 1:
            raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
        object.__setattr__(config, name, int(value))

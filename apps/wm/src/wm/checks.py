"""Checks shared by the configurations; each error names the setting, its value and what is allowed."""

import math
from typing import Any


def require(holds: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless it holds."""
    if not holds:
        raise ValueError(message)


def require_value(holds: bool, name: str, value: object, allowed: str) -> None:
    """Raise ValueError unless it holds, with the name of the setting, its value and what to give instead."""
    require(holds, f"{name} is {value}; give {allowed}")


def require_within(config: Any, least: float, *names: str, most: float = math.inf) -> None:
    """Raise ValueError unless these settings of ``config`` lie between ``least`` and ``most``, inclusive."""
    allowed = f"at least {least}" if most == math.inf else f"{least} to {most}"
    for name in names:
        value = getattr(config, name)
        require_value(least <= value <= most, name, value, allowed)


def require_temperature(value: float) -> None:
    """Raise ValueError unless the temperature is 0 or a finite number of at least 1e-6."""
    holds = value == 0 or 1e-6 <= value < math.inf  # below, logits divided by it overflow
    require_value(holds, "temperature", value, "0 (greedy) or a finite number of at least 1e-6")

"""Keys to actions of a game."""

from collections.abc import Sequence

import numpy as np
from atari_data import ACTION_NAMES
from numpy.typing import NDArray

VERTICAL, HORIZONTAL = ("UP", "DOWN"), ("LEFT", "RIGHT")
_TURNED = {"UP": "RIGHT", "DOWN": "LEFT", "RIGHT": "UP", "LEFT": "DOWN"}


class Controls:
    """Which action the keys pressed so far mean, step by step.

    A terminal reports when a key goes down, repeatedly while it is held, and never when it is released. So a
    key press counts for a few steps, and keys pressed within these count as held together.

    Args:
        allowed: bool (18,), the game's own actions.
        hold: steps for which a key counts.
    """

    def __init__(self, allowed: NDArray[np.bool_], hold: int) -> None:
        self._allowed = {name for name, there in zip(ACTION_NAMES, allowed, strict=True) if there}
        self._hold = hold
        self._left: dict[str, int] = {}  # what is held -> steps left, the newest last

    def press(self, name: str) -> None:
        """Hold UP, DOWN, LEFT, RIGHT or FIRE; a direction ends its opposite."""
        for axis in (VERTICAL, HORIZONTAL):
            for other in axis if name in axis else ():
                self._left.pop(other, None)
        self._left.pop(name, None)
        self._left[name] = self._hold

    def next_action(self) -> int:
        """The action of the next step, an id of the 18; each call counts as one step."""
        action = action_for(list(self._left), self._allowed)
        self._left = {name: left - 1 for name, left in self._left.items() if left > 1}
        return ACTION_NAMES.index(action)


def action_for(held: Sequence[str], allowed: set[str]) -> str:
    """The allowed action that covers most of what is held, NOOP if none covers any.

    Of several those with more directions come first, then the one with the newest.

    If a game's actions have only one axis, the keys of the other move along it too: up is right, which in
    Pong is up on the screen.

    Args:
        held: of UP, DOWN, LEFT, RIGHT and FIRE, the newest last, no two opposite.
        allowed: action names.
    """
    axes = [axis for axis in (VERTICAL, HORIZONTAL) if any(way in name for name in allowed for way in axis)]
    ways = [name for name in held if name != "FIRE"]
    if len(axes) == 1:
        ways = [name if name in axes[0] else _TURNED[name] for name in ways][-1:]
    wanted = [*(["FIRE"] if "FIRE" in held else []), *ways]
    parts = {name: [key for key in (*VERTICAL, *HORIZONTAL, "FIRE") if key in name] for name in allowed}
    fits = {name: keys for name, keys in parts.items() if keys and set(keys) <= set(wanted)}

    def covered(name: str) -> tuple[int, int, int]:
        """How much of what is held it covers, how many directions of it, and how new the newest is."""
        keys = fits[name]
        return len(keys), len(keys) - ("FIRE" in keys), max(map(wanted.index, keys))

    return max(fits, key=covered, default="NOOP")

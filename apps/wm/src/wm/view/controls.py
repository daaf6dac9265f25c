"""Keys to actions of a game."""

from collections.abc import Sequence

import numpy as np
from atari_data import ACTION_NAMES
from numpy.typing import NDArray

VERTICAL, HORIZONTAL = ("UP", "DOWN"), ("LEFT", "RIGHT")
_TURNED = {"UP": "RIGHT", "DOWN": "LEFT", "RIGHT": "UP", "LEFT": "DOWN"}


class Controls:
    """Which action the keys pressed so far mean, step by step.

    A terminal tells when a key goes down, again and again while it stays there, and never when it comes up.
    So a key counts for a few steps, and keys that come within these are held together.

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
        """The action of the next step, an id of the 18; a step then has passed."""
        action = action_for(list(self._left), self._allowed)
        self._left = {name: left - 1 for name, left in self._left.items() if left > 1}
        return ACTION_NAMES.index(action)


def action_for(held: Sequence[str], allowed: set[str]) -> str:
    """The allowed action that says most of what is held, in doubt the newest of it; NOOP if none does.

    Where a game's actions have one axis only, the keys of the other move along it too: up is right, which in
    Pong is up on the screen.

    Args:
        held: of UP, DOWN, LEFT, RIGHT and FIRE, the newest last, no two opposite.
        allowed: action names.
    """
    axes = [axis for axis in (VERTICAL, HORIZONTAL) if any(way in name for name in allowed for way in axis)]
    ways = [name for name in held if name != "FIRE"]
    if len(axes) == 1:
        ways = [name if name in axes[0] else _TURNED[name] for name in ways][-1:]
    both, newest = "".join(sorted(ways, key=HORIZONTAL.__contains__)), "".join(ways[-1:])
    fires = ("FIRE", "") if "FIRE" in held else ("",)
    names = (way + fire for way in (both, newest, "") for fire in fires)
    return next((name for name in names if name in allowed), "NOOP")

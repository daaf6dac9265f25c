"""ALE's games by name: which there are, their actions, and an emulator for one."""

import difflib
import functools
import re

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from numpy.typing import NDArray

ACTION_NAMES: tuple[str, ...] = (
    "NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT", "UPFIRE",
    "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE",
)  # fmt: skip
"""ALE's full action set; an action's id is its place here, the same in every game."""

NUM_ACTIONS = len(ACTION_NAMES)

# ROMs that ale-py ships without a single-player mode: loading one ends the process.
_TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})
# Some of its actions never return from `AtariVectorEnv` (ale-py 0.12.1).
_STUCK = frozenset({"lost_luggage"})


@functools.cache
def games() -> tuple[str, ...]:
    """Names of all single-player games that ale-py ships and its vector environment plays, sorted."""
    return tuple(sorted(set(roms.get_all_rom_ids()) - _TWO_PLAYERS - _STUCK))


def check_game(name: str) -> str:
    """Return ``name`` if it is a game of ALE.

    Raises:
        ValueError: it is not; the message names the nearest games.
    """
    if name in games():
        return name
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).replace(" ", "_").replace("-", "_").lower()
    near = [snake] if snake in games() else difflib.get_close_matches(snake, games(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"games() lists the {len(games())} names"
    raise ValueError(f"{name!r} is not a game of ALE; names are in snake_case, {hint}")


def title(game: str) -> str:
    """The spelling papers use: ``ms_pacman`` is ``MsPacman``."""
    return game.title().replace("_", "")


def load_emulator(game: str, *, seed: int = 0, sticky: float = 0.0) -> ALEInterface:
    """A plain emulator with ``game`` loaded, its random numbers seeded as the vector environment's are."""
    ALEInterface.setLoggerMode(LoggerMode.Error)  # the library prints a banner otherwise
    emulator = ALEInterface()
    emulator.setFloat("repeat_action_probability", sticky)
    emulator.setInt("random_seed", seed)
    rom = roms.get_rom_path(check_game(game))
    assert rom is not None, game
    emulator.loadROM(rom)
    return emulator


@functools.cache
def minimal_actions(game: str) -> tuple[int, ...]:
    """Ids, in the full set of 18, of the actions that do something in ``game``."""
    return tuple(sorted(action.value for action in load_emulator(game).getMinimalActionSet()))


def action_mask(game: str) -> NDArray[np.bool_]:
    """Bool [18]: True where the action belongs to the game's minimal set."""
    mask = np.zeros(NUM_ACTIONS, dtype=np.bool_)
    mask[list(minimal_actions(game))] = True
    return mask

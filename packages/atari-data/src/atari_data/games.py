"""ALE's games by name: which games there are, their actions, and an emulator for one."""

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
"""ALE's full action set; an action's id is its index here, the same in every game."""

NUM_ACTIONS = len(ACTION_NAMES)

# ROMs shipped with ale-py that have no single-player mode: loading one ends the process.
_TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})


@functools.cache
def games() -> tuple[str, ...]:
    """Names of all single-player games that ale-py ships, sorted."""
    return tuple(sorted(set(roms.get_all_rom_ids()) - _TWO_PLAYERS))


def check_game(name: str) -> str:
    """Return ``name`` if it is a game of ALE.

    Raises:
        ValueError: it is not; the message suggests the closest names.
    """
    if name in games():
        return name
    meant = _meant(str(name))
    if meant in _TWO_PLAYERS:
        raise ValueError(f"{name!r} is a game for two players; give one for one player, such as pong")
    near = [meant] if meant in games() else difflib.get_close_matches(meant, games(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"games() lists the {len(games())} names"
    raise ValueError(f"{name!r} is not a game of ALE; names are in snake_case, {hint}")


def check_own_name(name: str) -> str:
    """Return ``name`` if a recording's game may have it: ALE's name for a game of ALE, any other otherwise.

    Raises:
        ValueError: it has characters that are not allowed, or is a game of ALE in another spelling.
    """
    if not isinstance(name, str):
        raise ValueError(f"game is {name!r}; give a name")
    if name not in games() and _meant(name) in games():
        raise ValueError(
            f"game is {name!r}, which ALE calls {_meant(name)}; give that, or another name for another game"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise ValueError(f"game is {name!r}; use lower-case letters, digits and underscores")
    return name


def _meant(name: str) -> str:
    """A name in ALE's spelling, which is snake_case: MsPacman, "Ms Pacman" and mspacman become ms_pacman."""
    bare = re.sub(r"^ALE/|(NoFrameskip|Deterministic)?-v\d+$", "", name)  # as Gymnasium registers it
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).replace(" ", "_").replace("-", "_").lower()
    joined = {game.replace("_", ""): game for game in games()}
    return joined.get(snake.replace("_", ""), snake)


def title(game: str) -> str:
    """The spelling used in papers: ``ms_pacman`` becomes ``MsPacman``."""
    return game.title().replace("_", "")


def load_emulator(game: str, *, seed: int = 0, sticky: float = 0.0) -> ALEInterface:
    """A plain emulator with ``game`` loaded, seeded as the vector environment's are."""
    ALEInterface.setLoggerMode(LoggerMode.Error)  # the library prints a banner otherwise
    emulator = ALEInterface()
    emulator.setFloat("repeat_action_probability", sticky)
    emulator.setInt("random_seed", seed)
    rom = roms.get_rom_path(check_game(game))
    assert rom is not None, game
    emulator.loadROM(rom)
    return emulator


@functools.cache
def _action_sets(game: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the actions that the emulator has for a game, and of those that have an effect in it."""
    emulator = load_emulator(game)
    legal, minimal = emulator.getLegalActionSet(), emulator.getMinimalActionSet()
    return tuple(action.value for action in legal), tuple(action.value for action in minimal)


def legal_actions(game: str) -> tuple[int, ...]:
    """Ids of the actions that the emulator has for ``game``, in its order: all 18, except in two games.

    `AtariVectorEnv` takes positions in this list, which equal the ids only where the list is complete. Given
    a position beyond its end, it never returns (ale-py 0.12.1).
    """
    return _action_sets(game)[0]


@functools.cache
def played_actions(game: str) -> tuple[int, ...]:
    """For each of the 18 actions, the one sent to ``game``: the action itself where the emulator has it.

    Skiing and Lost Luggage have no button; there, an action keeps its direction and loses its FIRE.
    """
    legal = legal_actions(game)
    released = [ACTION_NAMES.index(name.removesuffix("FIRE") or "NOOP") for name in ACTION_NAMES]
    return tuple(action if action in legal else released[action] for action in range(NUM_ACTIONS))


@functools.cache
def minimal_actions(game: str) -> tuple[int, ...]:
    """Ids, in the full set of 18, of the actions that have an effect in ``game``."""
    return tuple(sorted(_action_sets(game)[1]))


def action_mask(game: str) -> NDArray[np.bool_]:
    """Bool [18]: True where the action belongs to the game's minimal set."""
    mask = np.zeros(NUM_ACTIONS, dtype=np.bool_)
    mask[list(minimal_actions(game))] = True
    return mask

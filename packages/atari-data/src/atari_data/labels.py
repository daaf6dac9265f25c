"""Named state variables of a game, read from the emulator's RAM."""

import functools
import json
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from atari_data.games import check_game
from atari_data.shards import RAM_SIZE


@functools.cache
def _variables() -> dict[str, dict[str, int]]:
    games: dict[str, dict[str, int]] = json.loads(
        files("atari_data").joinpath("ram_labels.json").read_text("utf-8")
    )["games"]
    return games


def labelled_games() -> tuple[str, ...]:
    """Games whose RAM is annotated, sorted."""
    return tuple(sorted(_variables()))


def state_variables(game: str) -> dict[str, int]:
    """RAM byte index of each named state variable of ``game``; empty where the game is not annotated.

    Source: the AtariARI annotations, Anand et al. 2019, https://arxiv.org/abs/1906.08226.
    """
    return dict(_variables().get(check_game(game), {}))


def labels(game: str, ram: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Value of each state variable, as the emulator stores it (a byte, usually in screen pixels).

    Args:
        game: a game of :func:`labelled_games`.
        ram: uint8 [N, 128].

    Returns:
        Name to uint8 [N].

    Raises:
        ValueError: the game is not annotated, or ``ram`` has another shape or type.
    """
    variables = state_variables(game)
    if not variables:
        raise ValueError(
            f"{game} has no annotated RAM; labelled_games() lists the {len(labelled_games())} games that do"
        )
    if ram is None:  # as `FrameStore.ram` may be
        raise ValueError(f"ram is None, as of play collected without it; collect {game} with ram=True")
    ram = np.asarray(ram)
    if ram.ndim != 2 or ram.shape[1] != RAM_SIZE or ram.dtype != np.uint8:
        raise ValueError(f"ram is {ram.dtype} {ram.shape}; give uint8 (N, {RAM_SIZE})")
    return {name: np.ascontiguousarray(ram[:, byte]) for name, byte in variables.items()}

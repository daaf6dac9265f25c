"""Which round's agent is the run's: the last one's, or the one that played best of the last few."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm.config import RunConfig, load_config
from wm.run import Layout


def candidate_rounds(config: RunConfig) -> list[int]:
    """Numbers of the rounds whose agents a run chooses among, in order; one if there is nothing to choose."""
    count = config.rounds.count
    return list(range(count))[-min(config.choose.rounds, count) :]


def chooses(config: RunConfig) -> bool:
    """Whether a run chooses among its agents at all."""
    return len(candidate_rounds(config)) > 1


def open_run(root: Path) -> tuple[RunConfig, Layout]:
    """The settings of a run, and the places of what its commands read.

    Raises:
        ValueError: it is no run, or its configuration or its choice is damaged.
    """
    config = load_config(Layout(root).config)
    return config, final_layout(root, config)


def layout_of_round(root: Path, config: RunConfig, index: int) -> Layout:
    """The places of what a round made."""
    return Layout(root, index if index < config.rounds.count - 1 else None)


def final_layout(root: Path, config: RunConfig) -> Layout:
    """The places of the run's agent and all it was made from: of the chosen round, else of the last."""
    choice = read_choice(root, config)
    return Layout(root) if choice is None else layout_of_round(root, config, choice["round"])


def read_choice(root: Path, config: RunConfig) -> dict[str, Any] | None:
    """What the stage `choose` wrote; None if the run does not choose, or has not yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = Layout(root).choice
    if not chooses(config) or not path.exists():
        return None
    try:
        choice: dict[str, Any] = json.loads(path.read_text())
        index, _ = choice["round"], choice["agent_steps"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and `wm train` chooses again") from error
    # Of no candidate, it is of the same run with other rounds.
    return choice if index in candidate_rounds(config) else None


def steps_choosing(choice: dict[str, Any] | None, game: str) -> int:
    """Real steps of a game that were played to choose by; an older choice has one number for all games."""
    steps: dict[str, int] | int = 0 if choice is None else choice["agent_steps"]
    return steps if isinstance(steps, int) else steps.get(game, 0)


def standings(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """How good each candidate is over all games, in standard deviations of a game's returns: float64 (C,).

    Games have scores of their own size, so each game's are standardised over all its episodes; then every
    game counts alike. With one game the order is that of the mean returns.

    Args:
        returns: float64 (C, G, E): of C candidates, in G games, E episodes each.
    """
    centre = returns.mean((0, 2), keepdims=True)
    spread = returns.std((0, 2), keepdims=True)
    standard = np.divide(returns - centre, spread, out=np.zeros_like(returns), where=spread > 0)
    mean: NDArray[np.float64] = standard.mean((1, 2))
    return mean


def best(standing: NDArray[np.float64]) -> int:
    """Index of the highest, of equals the last: it has seen most."""
    return int(len(standing) - 1 - np.argmax(standing[::-1]))

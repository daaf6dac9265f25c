"""A run's rounds: where each is stored, and which one's agent is the run's."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from wm.config import RunConfig, load_config
from wm.run import Layout, Manifest


def candidate_rounds(config: RunConfig) -> list[int]:
    """Numbers of the rounds whose agents a run chooses among, in order; the last if there is no choice."""
    count = config.rounds.count
    return list(range(count))[-min(config.choose.rounds, count) :]


def chooses(config: RunConfig) -> bool:
    """Whether a run chooses among its agents at all."""
    return len(candidate_rounds(config)) > 1


def round_suffix(index: int, count: int) -> str:
    """The suffix that a round adds to its stages' names: empty in the last of ``count`` rounds."""
    return "" if index == count - 1 else f"-{index}"


def split_name(stage: str) -> tuple[str, str]:
    """A stage's plain name and its round's suffix: ``("agent", "-0")``, in the last ``("agent", "")``."""
    base, dash, index = stage.partition("-")
    return base, dash + index


def open_run(root: Path) -> tuple[RunConfig, Layout]:
    """The settings of a run, and the layout of what its commands read.

    Raises:
        ValueError: it is not a run, or its configuration or its choice is damaged.
    """
    config = load_config(Layout(root).config)
    return config, final_layout(root, config)


def layout_of_round(root: Path, config: RunConfig, index: int) -> Layout:
    """The layout of a round's artifacts."""
    return Layout(root, index if index < config.rounds.count - 1 else None)


def round_of(layout: Layout, config: RunConfig) -> int:
    """The number of the round that a layout belongs to."""
    return config.rounds.count - 1 if layout.earlier_round is None else layout.earlier_round


def final_layout(root: Path, config: RunConfig) -> Layout:
    """The layout of the run's agent and all it was made from: the chosen round's, or else the last one's."""
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
        choice: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        index, _ = choice["round"], choice["agent_steps"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and `wm train` chooses again") from error
    # A round that is no candidate was chosen when the run had other rounds.
    return choice if index in candidate_rounds(config) else None


def steps_behind(config: RunConfig, layout: Layout) -> tuple[dict[str, int], dict[str, int]]:
    """Real steps by game that the run played itself for the agent of a round: collected, and for choosing it.

    The play of later rounds has a part in an agent only if it was chosen among theirs.
    """
    index, choice = round_of(layout, config), read_choice(layout.root, config)
    if choice is None or choice["round"] != index:
        return steps_collected(config, layout, index), {}
    choosing: dict[str, int] | int = choice["agent_steps"]
    if isinstance(choosing, int):  # an older file's, for all games
        choosing = dict.fromkeys(config.games, choosing)
    return steps_collected(config, layout, config.rounds.count - 1), choosing


def steps_collected(config: RunConfig, layout: Layout, last: int) -> dict[str, int]:
    """Real agent steps by game, up to and including round ``last``: those that the run has played itself.

    The manifest may have stages of more rounds, if their number has been reduced since.
    """
    manifest, steps = Manifest(layout), Counter[str]()
    count = config.rounds.count
    collecting = {"collect" + round_suffix(index, count) for index in range(last + 1)}
    for stage, record in (manifest.set_aside | manifest.stages).items():
        if stage in collecting:
            for game, found in record.metrics.items():
                if isinstance(found, dict) and "steps" in found:
                    steps[game] += found["steps"]
    return steps

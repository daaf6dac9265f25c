"""The table of a game's scores, next to published ones."""

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from atari_data import game_info, human_normalized, published_scores, score_sources
from rich.console import Console
from rich.table import Table

from wm.console import NumbersTable, counted

REFERENCES = ("Random", "Human")  # published scores that belong to no system and no number of steps


def print_scores(game: str, result: dict[str, Any], console: Console) -> None:
    """A game's scores: ours and the random agent's as measured, then what was published."""
    console.print(measured_table(game, result))
    published, info = published_scores(game), game_info(game)
    if published:
        console.print(_published_table(game, published, "published, systems after 100k agent steps"))
    elif info.random_score is not None and info.human_score is not None:
        reference = {"Random": [info.random_score], "Human": [info.human_score]}
        console.print(_published_table(game, reference, f"published ({info.source})"))


def measured_table(game: str, result: dict[str, Any]) -> Table:
    """Scores of the agent and of the random agent; an older version's evaluation may lack some fields."""
    protocol, scores = result["protocol"], result["games"][game]
    collected, choosing = (
        scores.get(name, protocol.get(name)) for name in ("agent_steps_collected", "agent_steps_choosing")
    )
    index = protocol.get("agent_of_round", 0)
    last = protocol.get("rounds", index + 1) - 1
    who = f"agent of round {index}, " if choosing or index < last else ""
    episodes = protocol["episodes"]
    steps = "" if collected is None else f", {collected} real steps"
    if choosing:
        steps += f" and {choosing} for choosing the round"
    title = (
        f"{game}{steps}: {who}{counted(episodes, 'episode')} of at most "
        f"{protocol['max_frames']} frames, {protocol['name']} (sticky {protocol['sticky']}, "
        f"no-ops up to {max(0, protocol['noop_max'] - 1)}), temperature {protocol['temperature']}, "
        f"epsilon {protocol.get('epsilon', 0.0)}, "
        f"seed {protocol['seed']}"
    )
    table = NumbersTable(title, "measured", "mean", "95 % interval", "median", "std", "human-normalised")
    notes = _notes(scores["agent"], episodes)
    table.caption = "\n".join((*_beginning(protocol.get("began_with")), *notes))
    for name in ("agent", "random"):
        score = scores[name]
        low, high = score["interval"]
        table.add_row(
            name,
            f"{score['mean']:.2f}",
            f"{low:.2f} to {high:.2f}" if episodes > 1 else "",  # one episode has none
            f"{score['median']:.1f}",
            f"{score['std']:.1f}" if episodes > 1 else "",
            _normalized(game, score["mean"]),
        )
    return table


def _published_table(game: str, published: dict[str, list[float]], title: str) -> Table:
    table = NumbersTable(f"{game}: {title}", "", "mean", "seeds", "lowest to highest", "human-normalised")
    for system, values in published.items():
        mean, several = fmean(values), len(values) > 1
        table.add_row(
            system,
            f"{mean:.2f}",
            "" if system in REFERENCES else str(len(values)),
            f"{min(values):.1f} to {max(values):.1f}" if several else "",
            _normalized(game, mean),
            end_section=system == REFERENCES[-1],
        )
    return table


def print_sources(systems: Iterable[str], console: Console) -> None:
    """Where the published scores of these systems were read, with what to know before quoting them."""
    sources = score_sources()
    for system in systems:
        console.print(f"{system}: {sources[system]}", style="dim")


def _beginning(began_with: dict[str, Any] | None) -> Iterator[str]:
    """The other run whose play the agent has also learned from, if any."""
    if began_with is not None:
        steps = began_with["steps"]
        played = (
            "unknown" if steps is None else ", ".join(f"{count} of {game}" for game, count in steps.items())
        )
        yield f"it started from parts of {began_with['run']}; real steps of that run: {played}"


def _notes(score: dict[str, Any], episodes: int) -> Iterator[str]:
    """What to know about the agent's numbers; an older version's evaluation may lack some fields."""
    cut, distinct = score.get("cut", 0), score.get("distinct", episodes)
    if cut:
        yield (
            f"the frame limit cut off {cut} of the agent's {counted(episodes, 'episode')}; whole ones may "
            "score differently, and lower where points are lost"
        )
    if distinct < episodes / 2:
        yield (
            f"of the agent's {episodes} episodes only {distinct} are distinct by return and length; the "
            "interval treats all as independent, so it is too narrow"
        )


def _normalized(game: str, score: float) -> str:
    value = human_normalized(game, score)
    return "" if value is None else f"{value:.2f}"

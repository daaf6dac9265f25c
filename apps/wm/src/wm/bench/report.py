"""What `wm bench` prints."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from wm.console import numbers_table
from wm.measure.evaluation_report import print_sources

WIDEST_SCORE = len("100000.0")
BETWEEN_COLUMNS = 3
TITLES = {"mean": "mean", "median": "median", "iqm": "IQM"}


def print_bench(result: dict[str, Any], console: Console) -> None:
    """Mean scores by game, ours and published, then the aggregates of human-normalised scores."""
    console.print(_ours(result))
    for systems in _side_by_side(result["published"], console.width - max(map(len, result["scores"])) - 4):
        console.print(_published(result, systems))
    if result["aggregates"]:
        console.print(_aggregates(result))
    if result["without_reference"]:
        names = ", ".join(result["without_reference"])
        console.print(f"no reference scores, so not in the aggregates: {names}")
    print_sources(result["published"], console)


def _ours(result: dict[str, Any]) -> Table:
    protocol = result["protocol"]
    title = (
        f"mean over {len(protocol['seeds'])} seeds of {protocol['episodes']} episodes of at most "
        f"{protocol['max_frames']} frames; "
        f"{protocol['preset']}, {protocol['name']}, temperature {protocol['temperature']}, "
        f"epsilon {protocol['epsilon']}; {_steps(result)} real agent steps"
    )
    table = numbers_table(title, "game", "ours", "seeds", "random (measured)", "human")
    for game, scores in result["scores"].items():
        human = result["reference"][game]["human"]
        table.add_row(
            game,
            f"{fmean(scores):.1f}",
            f"{min(scores):.1f} to {max(scores):.1f}" if len(scores) > 1 else "1",
            f"{fmean(result['random'][game]):.1f}",
            "" if human is None else f"{human:.1f}",
        )
    cut = [f"{sum(of_game)} of {game}" for game, of_game in result["cut"].items() if sum(of_game)]
    if cut:
        table.caption_justify = "left"
        table.caption = (
            f"episodes that the limit of frames cut: {', '.join(cut)}; whole ones may score otherwise"
        )
    return table


def _published(result: dict[str, Any], systems: Sequence[str]) -> Table:
    table = numbers_table("published, at 100k steps", "game", *systems)
    for game in result["scores"]:
        known = (result["published"][system].get(game) for system in systems)
        table.add_row(game, *("" if values is None else f"{fmean(values):.1f}" for values in known))
    return table


def _side_by_side(systems: Iterable[str], width: int) -> list[list[str]]:
    """The systems in groups whose columns fit into so many characters, each at least one."""
    groups: list[list[str]] = []
    left = 0
    for system in systems:
        needs = max(WIDEST_SCORE, *map(len, system.split())) + BETWEEN_COLUMNS
        if not groups or needs > left:
            groups.append([])
            left = width
        groups[-1].append(system)
        left -= needs
    return groups


def _steps(result: dict[str, Any]) -> str:
    steps = [count for of_game in result["real_steps"].values() for count in of_game]
    return str(min(steps)) if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"


def _aggregates(result: dict[str, Any]) -> Table:
    games = [game for game in result["scores"] if game not in result["without_reference"]]
    title = f"human-normalised over {len(games)} games, with 95 % stratified bootstrap intervals"
    table = numbers_table(title, "", "seeds", *TITLES.values())
    for system, found in result["aggregates"].items():
        cells = []
        for name in TITLES:
            low, high = found[name]["interval"]
            spread = f" ({low:.3f} to {high:.3f})" if found["seeds"] != [1] else ""
            cells.append(f"{found[name]['value']:.3f}{spread}")
        ours = system == "ours"
        table.add_row(
            system,
            "/".join(map(str, found["seeds"])),
            *cells,
            style=None if ours else "dim",
            end_section=ours,
        )
    return table

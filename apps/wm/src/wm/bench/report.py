"""What `wm bench` prints."""

from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from wm.bench.aggregate import METRICS
from wm.console import NumbersTable, counted
from wm.measure.evaluation_report import print_sources


def print_bench(result: dict[str, Any], console: Console) -> None:
    """Mean scores by game, ours and published, then the aggregates of human-normalised scores."""
    console.print(_ours(result))
    if result["published"]:
        console.print(_published(result))
    if result["aggregates"]:
        console.print(_aggregates(result))
    if result["without_reference"]:
        names = ", ".join(result["without_reference"])
        console.print(f"no reference scores, so not in the aggregates: {names}")
    print_sources(result["published"], console)


def _ours(result: dict[str, Any]) -> Table:
    protocol = result["protocol"]
    title = (
        f"mean over {counted(len(protocol['seeds']), 'seed')} of {protocol['episodes']} episodes of at most "
        f"{protocol['max_frames']} frames; "
        f"{protocol['preset']}, {protocol['name']}, temperature {protocol['temperature']}, "
        f"epsilon {protocol['epsilon']}; {_steps(result)} real agent steps"
    )
    table = NumbersTable(title, "game", "ours", "seeds", "random (measured)", "human")
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
    remarks = []
    if cut:
        remarks.append(
            f"episodes cut off by the frame limit: {', '.join(cut)}; whole ones may score differently"
        )
    if begun := protocol.get("began_with"):
        remarks.append(f"runs started from parts of {begun['run']}, whose real steps are not counted here")
    table.caption = "\n".join(remarks)
    return table


def _published(result: dict[str, Any]) -> Table:
    systems = list(result["published"])
    table = NumbersTable("published, at 100k steps", "game", *systems)
    for game in result["scores"]:
        known = (result["published"][system].get(game) for system in systems)
        table.add_row(game, *("" if values is None else f"{fmean(values):.1f}" for values in known))
    return table


def _steps(result: dict[str, Any]) -> str:
    steps = [count for of_game in result["real_steps"].values() for count in of_game]
    return str(min(steps)) if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"


def _aggregates(result: dict[str, Any]) -> Table:
    games = [game for game in result["scores"] if game not in result["without_reference"]]
    title = f"human-normalised over {counted(len(games), 'game')}, with 95 % stratified bootstrap intervals"
    table = NumbersTable(title, "", "seeds", *("IQM" if name == "iqm" else name for name in METRICS))
    for system, found in result["aggregates"].items():
        cells = []
        for name in METRICS:
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

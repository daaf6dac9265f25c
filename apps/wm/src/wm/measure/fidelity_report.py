"""What `wm fidelity` prints of a game."""

import math
from typing import Any

from rich.console import Console

from wm.console import numbers_table, shown

SELECTED = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50)


def print_fidelity(game: str, result: dict[str, Any], console: Console) -> None:
    """A line a quantity, a column a horizon; each cell is the dream beside copying the last real step."""
    protocol, found = result["protocol"], result["games"][game]
    horizons = [h for h in SELECTED if h <= protocol["horizon"]]
    if horizons[-1] != protocol["horizon"]:
        horizons.append(protocol["horizon"])
    title = (
        f"{game}: {found['windows']} dreams of {protocol['horizon']} steps after {protocol['context']} "
        "real ones, with the actions really played; dream | copy of the last real step"
    )
    table = numbers_table(title, "", *(f"step {horizon}" for horizon in horizons), "beats copy to")

    def line(name: str, ours: list[float], copied: list[float], digits: int, useful: int) -> None:
        form = f".{digits}f"
        cells = (f"{shown(ours[h - 1], form)} | {shown(copied[h - 1], form)}" for h in horizons)
        beats = "not at all" if useful == 0 else f"step {useful}"
        if useful < len(ours) and math.isnan(ours[useful]):  # nothing was in play there
            beats = f"step {useful}, then unknown" if useful else "?"
        table.add_row(name, *cells, beats)

    tokens = found["tokens"]
    for level, useful in enumerate(tokens["useful_horizon"]):
        ours = [row[level] for row in tokens["agreement"]]
        line(f"L{level} agreement", ours, [row[level] for row in tokens["copy_agreement"]], 2, useful)
    table.add_section()
    for name in ("reward", "continue"):
        if name in found:
            values = found[name]
            line(f"{name} error", values["error"], values["copy_error"], 3, values["useful_horizon"])
    table.add_section()
    state = {
        name: values
        for name, values in found.get("state", {}).items()
        if not all(map(math.isnan, values["error"]))  # never in play
    }
    for name, values in state.items():
        line(f"{name} error", values["error"], values["copy_error"], 1, values["useful_horizon"])
    console.print(table)
    for name, event in found.get("foreseen", {}).items():
        if event["happened"]:
            print_foreseen(name, event, protocol["horizon"], console)
    if "reward" not in found:
        console.print("no rewards: the run has no agent and so no predictors yet")
    if "state" not in found:
        console.print(f"no state: {game} has no annotated RAM")
    else:
        read = ", ".join(f"{name} {values['read_error'][0]:.1f}" for name, values in state.items())
        console.print(f"read from the real tokens, the state's error is: {read}")


def print_foreseen(name: str, event: dict[str, Any], horizon: int, console: Console) -> None:
    """A sentence on rewards of one sign: how many came within the horizon, and what the dreams said."""
    sentence = (
        f"a reward {name} within {horizon} steps: came in {event['happened']} windows, and in the dreams of "
        f"{event['recall']:.0%} of these (of all dreams {event['dreamed']:.0%} have one"
    )
    precision = f", {event['precision']:.0%} of them rightly" if event["dreamed"] else ""
    console.print(f"{sentence}{precision})")

"""What `wm fidelity` prints about a game."""

import math
from typing import Any

from rich.console import Console

from wm.console import NumbersTable, shown, spans

SELECTED = (1, 2, 3, 5, 10, 15, 20, 30, 40, 50)


def print_fidelity(game: str, result: dict[str, Any], console: Console) -> None:
    """A row per quantity, a column per horizon; each cell: the dream next to a copy of the last real step."""
    protocol, found = result["protocol"], result["games"][game]
    horizons = [h for h in SELECTED if h <= protocol["horizon"]]
    if horizons[-1] != protocol["horizon"]:
        horizons.append(protocol["horizon"])
    title = (
        f"{game}: {found['windows']} dreams of {protocol['horizon']} steps after {protocol['context']} "
        "real ones, with the actions of real play; dream | copy of the last real step"
    )
    table = NumbersTable(title, "", *(f"step {horizon}" for horizon in horizons), "dream better at")

    def line(name: str, ours: list[float], copied: list[float], digits: int, sign: int = -1) -> None:
        form = f".{digits}f"
        cells = (f"{shown(ours[h - 1], form)} | {shown(copied[h - 1], form)}" for h in horizons)
        better = [sign * (our - copy) > 0 for our, copy in zip(ours, copied, strict=True)]
        table.add_row(name, *cells, stretches(better))

    tokens = found["tokens"]
    for level in range(len(tokens["useful_horizon"])):
        ours, copied = ([row[level] for row in tokens[name]] for name in ("agreement", "copy_agreement"))
        line(f"L{level} agreement", ours, copied, 2, +1)
    table.add_section()
    for name, constant in (("reward", "no reward"), ("continue", "no end")):
        if name in found:
            values = found[name]
            line(f"{name} error", values["error"], values["copy_error"], 3)
            # For rare events, a copy is wrong twice as often as never expecting one.
            line(f"{name} error | predicting {constant}", values["error"], values["constant_error"], 3)
    table.add_section()
    state = {
        name: values
        for name, values in found.get("state", {}).items()
        if not all(map(math.isnan, values["error"]))  # never in play
    }
    for name, values in state.items():
        line(f"{name} error", values["error"], values["copy_error"], 1)
    console.print(table)
    for name, event in found.get("foreseen", {}).items():
        if event["happened"]:
            print_foreseen(name, event, protocol["horizon"], console)
    if "reward" not in found:
        console.print("no rewards: the run has no agent and so no predictors yet")
    if "state" not in found:
        console.print(f"no state: {game} has no annotated RAM")
    elif not state:
        console.print("no state: no annotated variable changes in these windows; give more with --windows")
    else:
        read = ", ".join(f"{name} {values['read_error'][0]:.1f}" for name, values in state.items())
        console.print(f"read from the real tokens, the state's error is: {read}")


def stretches(better: list[bool]) -> str:
    """The steps, counted from 1, at which something holds: ``1-5, 8``; "no step" for none."""
    return spans(step for step, holds in enumerate(better, 1) if holds) or "no step"


def print_foreseen(name: str, event: dict[str, Any], horizon: int, console: Console) -> None:
    """A sentence on rewards of one sign: how many came within the horizon, and what the dreams said."""
    sentence = (
        f"a reward {name} within {horizon} steps: occurred in {event['happened']} windows, and in the dreams "
        f"of {event['recall']:.0%} of these ({event['dreamed']:.0%} of all dreams have one"
    )
    precision = f", {event['precision']:.0%} of them correctly" if event["dreamed"] else ""
    console.print(f"{sentence}{precision})")

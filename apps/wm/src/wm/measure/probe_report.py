"""What `wm probe` prints about a game."""

from typing import Any

from rich.console import Console
from rich.table import Table

from wm.console import NumbersTable, shown


def print_probe(game: str, found: dict[str, Any], console: Console) -> None:
    """Retention by variable and stage, then the geometry of each representation, then AtariARI scores."""
    console.print(_retention(game, found))
    console.print(_geometry(game, found["geometry"]))
    if "atariari" in found:
        console.print(_atariari(game, found["atariari"]))


def _retention(game: str, found: dict[str, Any]) -> Table:
    """A row per variable, a column per stage: R2 of the MLP probe, and its mean error in RAM units."""
    rows = found["retention"]
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    cells = {(row["variable"], row["stage"]): row for row in rows}
    title = (
        f"{game}: what an MLP probe reads, R2 (mean error in the RAM's units, pixels for positions), on "
        "frames of other episodes with the object in play"
    )
    table = NumbersTable(title, "variable", "frames", *stages)
    for variable in dict.fromkeys(row["variable"] for row in rows):
        of_stages = [cells[variable, stage] for stage in stages]
        if all(row["mlp_r2"] is None for row in of_stages):
            continue  # constant in this play
        table.add_row(variable, str(of_stages[0]["num_frames"]), *map(_cell, of_stages))
    return table


def _cell(row: dict[str, Any]) -> str:
    return "" if row["mlp_r2"] is None else f"{row['mlp_r2']:.3f} ({row['mlp_error']:.1f})"


def _geometry(game: str, geometry: dict[str, dict[str, float]]) -> Table:
    measures = ("temporal consistency", "diversity", "norm", "state correlation")
    table = NumbersTable(f"{game}: geometry of the features", "", *measures)
    for stage, values in geometry.items():
        table.add_row(stage, *(shown(value, ".3f") for value in values.values()))
    return table


def _atariari(game: str, found: dict[str, Any]) -> Table:
    categories = list(dict.fromkeys(name for s in found["stages"].values() for name in s["categories"]))
    title = f"{game}: AtariARI linear probes, weighted F1, on {found['unseen_test_frames']} unseen frames"
    table = NumbersTable(title, "", *categories, "mean")
    for stage, score in found["stages"].items():
        cells = (score["categories"].get(name) for name in categories)
        texts = ("" if value is None else f"{value:.3f}" for value in cells)
        table.add_row(stage, *texts, f"{score['mean']:.3f}")
    return table

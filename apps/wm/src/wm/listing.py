"""`wm runs` and `wm show`."""

import re
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wm.config import load_config
from wm.report import print_report
from wm.run import Layout, Manifest, StageRecord
from wm.stages import stages_of


def list_runs(directory: Path, console: Console) -> None:
    """A line per run: games, seed, stages done, last finished, mean returns.

    Raises:
        ValueError: the directory does not exist.
    """
    if not directory.is_dir():
        raise ValueError(
            f"{directory} does not exist; `wm train` makes it, or give the directory of your runs"
        )
    table = Table()
    for column in ("run", "games", "seed", "done", "last finished", "mean return (random)"):
        table.add_column(column)
    for path in sorted(directory.glob("*/config.toml")):
        layout = Layout(path.parent)
        try:
            config, manifest = load_config(layout.config), Manifest(layout)
        except ValueError as error:
            table.add_row(path.parent.name, f"[red]damaged: {error}")
            continue
        names = [stage.name for stage in stages_of(config)]
        done = [name for name in names if name in manifest.stages]
        last = max((record.finished for record in manifest.stages.values()), default="")
        scores = manifest.stages["evaluate"].metrics["games"] if "evaluate" in manifest.stages else {}
        returns = ", ".join(
            f"{game} {s['agent']['mean']:.1f} ({s['random']['mean']:.1f})" for game, s in scores.items()
        )
        finished = "all" if len(done) == len(names) else f"{len(done)} of {len(names)}"
        table.add_row(path.parent.name, ", ".join(config.games), str(config.seed), finished, last, returns)
    if table.row_count:
        console.print(table)
    else:
        console.print(f"no runs in {directory}; `wm train` makes one", highlight=False)


def show_run(directory: Path, console: Console) -> None:
    """Settings, stages with their artifacts, and the report."""
    layout = Layout(directory)
    config, manifest = load_config(layout.config), Manifest(layout)
    console.print(f"{directory}: games {', '.join(config.games)}, seed {config.seed}", highlight=False)
    table = Table()
    for column in ("stage", "finished", "took", "device", "artifact", "size", "sha256"):
        table.add_column(column)
    for stage in (stage.name for stage in stages_of(config)):
        record = manifest.stages.get(stage)
        if record is None:
            table.add_row(stage, "not yet", end_section=True)
            continue
        manifest.check(stage)
        first = (stage, record.finished, f"{record.seconds:.0f} s", record.device)
        lines = _artifact_lines(record)
        for i, line in enumerate(lines):
            left = first if i == 0 else ("", "", "", "")
            table.add_row(*left, *line, end_section=i == len(lines) - 1)
    console.print(table)
    print_report(config, manifest, console)
    console.print(f"settings: {layout.config}; metrics: {layout.metrics}", highlight=False)


def _artifact_lines(record: StageRecord) -> list[tuple[str, str, str]]:
    """Name, size and sha256 of each artifact; the many shards of a directory on one line."""
    lines = []
    for name, group in groupby(sorted(record.artifacts), lambda path: re.sub(r"shard-\d+", "shard-*", path)):
        paths = list(group)
        size = sum(record.artifacts[path]["size"] for path in paths) / 2**20
        alone = len(paths) == 1
        digest = record.artifacts[paths[0]]["sha256"][:12] if alone else f"({len(paths)} files)"
        lines.append((paths[0] if alone else name, f"{size:.1f} MiB", digest))
    return lines

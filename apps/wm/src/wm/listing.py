"""`wm runs` and `wm show`."""

import json
import re
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from wm.config import load_config, nearest_preset
from wm.console import command, shown, text_table
from wm.errors import sentence
from wm.freshness import inputs_of, stale
from wm.report import print_report
from wm.run import Layout, Manifest, StageRecord
from wm.stages import stages_of

FEW = 3  # so many changed settings are named in a list of runs


def list_runs(directory: Path, console: Console) -> None:
    """A line per run: games, seed, settings, stages up to date, last finished, mean returns.

    Raises:
        ValueError: there is no such directory.
    """
    if not directory.is_dir():
        wrong = "is a file" if directory.exists() else "does not exist"
        raise ValueError(f"{directory} {wrong}; `wm train` makes it, or give the directory of your runs")
    table = text_table("run", "games", "seed", "settings", "done", "last finished", "mean return (random)")
    for path in sorted(directory.glob("*/config.toml")):
        name = path.parent.name
        try:
            table.add_row(name, *_summary(Layout(path.parent)))
        except (ValueError, OSError) as error:
            table.add_row(name, Text(f"cannot be read: {sentence(error)}", style="red"))
    if table.row_count:
        console.print(table)
    else:
        itself = f"it is a run itself, see {command('wm', 'show', directory)}"
        remark = itself if Layout(directory).config.exists() else "`wm train` makes one"
        console.print(f"no runs in {directory}; {remark}")


def _summary(layout: Layout) -> tuple[str, ...]:
    """What `wm runs` says of a run, after its name."""
    config, manifest = load_config(layout.config), Manifest(layout)
    stages = stages_of(config)
    old = stale(stages, config, manifest)
    left = len(old)
    last = max((record.finished for record in manifest.stages.values()), default="")
    scores = manifest.stages["evaluate"].metrics.get("games", {}) if "evaluate" in manifest.stages else {}
    scores = {game: scores[game] for game in config.games if game in scores}  # not of games it had before
    returns = ", ".join(
        f"{game} {shown(s['agent']['mean'], '.1f')} ({shown(s['random']['mean'], '.1f')})"
        for game, s in scores.items()
    )
    if returns and ({"evaluate"} | inputs_of("evaluate", stages)).intersection(old):
        returns += ", out of date"
    preset, changed = nearest_preset(config)
    known = [preset, *_changes(changed)] if len(changed) <= FEW else [preset, f"{len(changed)} changed"]
    return (
        ", ".join(config.games),
        str(config.seed),
        ", ".join(known),
        f"{len(stages) - left} of {len(stages)}" if left else "all",
        _when(last) if last else "",
        returns,
    )


def _when(finished: str) -> str:
    """A time of the manifest, to the minute."""
    return f"{datetime.fromisoformat(finished):%Y-%m-%d %H:%M} UTC"


def show_run(directory: Path, console: Console) -> None:
    """Settings, stages with their artifacts, and the report."""
    layout = Layout(directory)
    config, manifest = load_config(layout.config), Manifest(layout)
    console.print(f"{directory}: games {', '.join(config.games)}, seed {config.seed}")
    preset, changed = nearest_preset(config)
    console.print(f"settings: {preset}" + "".join(f"\n  {change}" for change in _changes(changed)))
    table = text_table("stage, and what it made", "size", "sha256")
    stages = stages_of(config)
    old = stale(stages, config, manifest)
    for stage in (stage.name for stage in stages):
        record = manifest.stages.get(stage)
        if record is None:
            table.add_row(f"{stage}: not yet", end_section=True)
            continue
        outdated = ", out of date" if stage in old else ""
        table.add_row(
            f"{stage}: {record.seconds:.0f} s on {record.device}, {_when(record.finished)}{outdated}"
        )
        for line in _artifact_lines(record):
            table.add_row(*line)
        table.add_section()
    console.print(table)
    print_report(config, manifest, console)
    if made := [name for name in old if name in manifest.stages]:
        console.print(f"out of date, so not of these settings: {', '.join(made)}")
    console.print(f"all settings: {layout.config}; metrics: {layout.metrics}")


def _changes(changed: dict[str, Any]) -> list[str]:
    """Changed settings as `wm train --set` takes them."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items()
    ]


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

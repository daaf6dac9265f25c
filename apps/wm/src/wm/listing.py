"""`wm runs` and `wm show`."""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from wm.config import RunConfig, load_config
from wm.console import command, shown, text_table, train_command
from wm.errors import sentence
from wm.freshness import inputs_of, outdated
from wm.preset import nearest_preset
from wm.report import print_report
from wm.run import Layout, Manifest, StageRecord
from wm.stage import Stage
from wm.stages import stages_of

FEW = 3  # up to this many changed settings are named in a list of runs
NOT_YET, OUT_OF_DATE, MISSING, ALTERED = "not yet", "out of date", "files missing", "altered"


def list_runs(directory: Path, console: Console) -> None:
    """A line per run: games, seed, settings, stages up to date, last finished, mean returns.

    Raises:
        ValueError: there is no such directory.
    """
    if not directory.is_dir():
        wrong = "is a file" if directory.exists() else "does not exist; `wm train` makes it"
        raise ValueError(f"{directory} {wrong}; give the directory of your runs")
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
    """What `wm runs` says about a run, after its name."""
    config, manifest = load_config(layout.config), Manifest(layout)
    stages = stages_of(config)
    wrong = _faults(stages, config, manifest)
    left = len(wrong)
    last = max((record.finished for record in manifest.stages.values()), default="")
    scores = manifest.stages["evaluate"].metrics.get("games", {}) if "evaluate" in manifest.stages else {}
    scores = {game: scores[game] for game in config.games if game in scores}  # not of former games
    returns = ", ".join(
        f"{game} {shown(s['agent']['mean'], '.1f')} ({shown(s['random']['mean'], '.1f')})"
        for game, s in scores.items()
    )
    made_from = {"evaluate"} | inputs_of("evaluate", stages)
    if returns and any(wrong.get(name) in (NOT_YET, OUT_OF_DATE) for name in made_from):
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


def _faults(stages: Sequence[Stage], config: RunConfig, manifest: Manifest) -> dict[str, str]:
    """What is wrong with stages, by name; stages that are up to date are left out."""
    old, faults = set(outdated(stages, config, manifest)), {}
    for name in (stage.name for stage in stages):
        if name not in manifest.stages:
            faults[name] = NOT_YET
        elif name in old:
            faults[name] = OUT_OF_DATE
        else:
            try:
                if manifest.check(name):
                    faults[name] = MISSING
            except ValueError:
                faults[name] = ALTERED
    return faults


def _when(finished: str) -> str:
    """A time from the manifest, to the minute."""
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
    wrong = _faults(stages, config, manifest)
    for stage in (stage.name for stage in stages):
        record = manifest.stages.get(stage)
        if record is None:
            table.add_row(f"{stage}: {NOT_YET}", end_section=True)
            continue
        fault = f", {wrong[stage]}" if stage in wrong else ""
        table.add_row(f"{stage}: {record.seconds:.0f} s on {record.device}, {_when(record.finished)}{fault}")
        for line in _artifact_lines(record, directory):
            table.add_row(*line)
        table.add_section()
    console.print(table)
    print_report(config, manifest, console)
    does_it = train_command(directory)
    again = f"which {does_it} makes again"
    if config.collect.policy == "imported" and wrong.get("collect") == MISSING:
        again = "of which only `wm import` can restore a recording"
    for fault, remark in (
        (OUT_OF_DATE, "out of date, as settings or inputs have changed"),
        (MISSING, f"files missing, {again}"),
        (ALTERED, f"altered since; put the originals back, or delete them and {does_it} makes them again"),
    ):
        if names := [name for name, known in wrong.items() if known == fault]:
            console.print(f"{remark}: {', '.join(names)}")
    console.print(f"all settings: {layout.config}; metrics: {layout.metrics}")


def _changes(changed: dict[str, Any]) -> list[str]:
    """Changed settings as `wm train --set` takes them."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in changed.items()
    ]


def _artifact_lines(record: StageRecord, root: Path) -> list[tuple[str, str, str]]:
    """Name, size and sha256 of each artifact, if it exists; the many shards of a directory on one line."""
    lines = []
    for name, group in groupby(sorted(record.artifacts), lambda path: re.sub(r"shard-\d+", "shard-*", path)):
        paths = list(group)
        size = sum(record.artifacts[path]["size"] for path in paths) / 2**20
        alone = len(paths) == 1
        digest = record.artifacts[paths[0]]["sha256"][:12] if alone else f"({len(paths)} files)"
        there = all((root / path).exists() for path in paths)
        about = (f"{size:.1f} MiB", digest) if there else ("missing", "")
        lines.append((paths[0] if alone else name, *about))
    return lines

"""What is said before a run is read whose parts may not belong together, or before parts are made anew."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from wm.config import RunConfig
from wm.console import command
from wm.freshness import outdated
from wm.rounds import open_run
from wm.run import Layout, Manifest
from wm.settings import flatten, unstructure
from wm.stage import Stage
from wm.stages import stages_of

NAMED = 4
"""Stages that are named of those that run again."""


def open_to_read(root: Path, console: Console) -> tuple[RunConfig, Layout]:
    """The settings of a run, and the places of what its commands read; what is outdated of it is told.

    These are the stages that ran before settings or inputs changed, as `wm train STAGE` may leave them.

    Raises:
        ValueError: it is no run, or its configuration, manifest or choice is damaged.
    """
    config, layout = open_run(root)
    stages = [stage for stage in stages_of(config) if stage.name != "evaluate"]  # nothing is made from it
    if old := outdated(stages, config, Manifest(layout)):
        console.print(
            f"{', '.join(old)}: made before settings or inputs changed, so not all parts belong together; "
            f"{command('wm', 'train', '--run', root)} brings them up to date"
        )
    return config, layout


def what_changes(
    before: dict[str, Any], config: RunConfig, stages: Sequence[Stage], manifest: Manifest
) -> Iterator[str]:
    """What a run is given instead of its own settings, and which finished stages run again for that.

    Nothing if nothing is changed: a preset given to a run replaces even what was set with care.

    Args:
        before: the run's settings as its file has them; those that it lacks are at their defaults.
        config: those it is given.
        stages: those that are to run.
    """
    defaults, new = (flatten(unstructure(each)) for each in (RunConfig(), config))
    old = defaults | flatten(before)
    changed = [key for key in new if old[key] != new[key]]
    if not changed:
        return
    pairs = (f"{key} {json.dumps(old[key])} to {json.dumps(new[key])}" for key in changed)
    yield f"changed: {', '.join(pairs)}"
    again = set(outdated(stages, config, manifest))
    for stage in stages:
        if again.intersection(stage.needs):
            again.add(stage.name)
    lost = [stage.name for stage in stages if stage.name in again and stage.name in manifest.stages]
    if lost:
        minutes = sum(manifest.stages[name].seconds for name in lost) / 60
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        yield (
            f"to be run again: {', '.join(lost[:NAMED])}{more} ({minutes:.0f} minutes of work); to keep what "
            "they made, stop now and set back what changed"
        )

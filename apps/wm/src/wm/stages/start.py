"""Takes over trained parts of another run, as copies, so that the run stays self-contained."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wm.config import RunConfig
from wm.files import written_whole
from wm.rounds import open_run, steps_behind
from wm.run import Layout, Manifest
from wm.stage import Context, Made, Stage


def run(context: Context) -> Made:
    """Copy the parts once: later changes to the other run do not affect this one."""
    start, target = context.config.start, context.layout.start
    theirs, source = open_run(Path(start.run).absolute())
    made = [_copy(source.config, target.config)]
    made += [_copy(getattr(source, part), getattr(target, part)) for part in start.taken]
    context.console.print(f"start: {', '.join(start.taken)} of {start.run} ({', '.join(theirs.games)})")
    steps = _steps_behind(theirs, source)
    record = {"run": start.run, "parts": list(start.taken), "games": list(theirs.games), "steps": steps}
    return Made(made, record)


def _steps_behind(theirs: RunConfig, source: Layout) -> dict[str, int] | None:
    """Real steps by game of the other run, of choosing its agent, and of the runs that it started from.

    None if one of those was made by a version that did not count them.
    """
    collected, choosing = steps_behind(theirs, source)
    steps = Counter(collected)
    steps.update(choosing)
    begun = Manifest(source).stages.get(STAGE.name) if theirs.start.taken else None
    if begun is not None:
        before = begun.metrics.get("steps")
        if before is None:
            return None
        steps.update(before)
    return dict(steps)


def _copy(source: Path, target: Path) -> Path:
    with written_whole(target) as partial:
        shutil.copyfile(source, partial)
    return target


def with_start(stages: Sequence[Stage], config: RunConfig) -> tuple[Stage, ...]:
    """The stages of a run, with this one first if the run starts from another run's parts."""
    taken = config.start.taken
    if not taken:
        return tuple(stages)
    begun = [
        replace(stage, needs=(*stage.needs, STAGE.name)) if not stage.round and stage.base in taken else stage
        for stage in stages
    ]
    return (STAGE, *begun)


STAGE = Stage("start", (), lambda config: [config.start.run, config.start.parts], run)

"""Takes over trained parts of another run, as copies, so that the run stays self-contained."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wm.config import RunConfig
from wm.files import written_whole
from wm.measure.evaluation import steps_collected
from wm.rounds import open_run, round_of
from wm.stage import Context, Made, Stage


def run(context: Context) -> Made:
    """Copy the parts once: later changes to the other run do not affect this one."""
    start, target = context.config.start, context.layout.start
    theirs, source = open_run(Path(start.run).absolute())
    made = [_copy(source.config, target.config)]
    made += [_copy(getattr(source, part), getattr(target, part)) for part in start.taken]
    context.reporter.say(f"start: {', '.join(start.taken)} of {start.run} ({', '.join(theirs.games)})")
    steps = steps_collected(theirs, source, round_of(source, theirs))
    record = {"run": start.run, "parts": list(start.taken), "games": list(theirs.games), "steps": steps}
    return Made(made, record)


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

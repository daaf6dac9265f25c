"""Whether a run can start from the parts of another one; asked before anything is written."""

import json
from collections.abc import Sequence
from pathlib import Path

from wm.config import RunConfig, load_config
from wm.console import command, train_command
from wm.freshness import inputs_of, outdated
from wm.rounds import open_run, round_of, round_suffix
from wm.run import Layout, Manifest
from wm.settings import unstructure
from wm.stages import stages_of

# The settings that a part depends on, as whole sections or single settings: a part taken over keeps its own.
SETTINGS = {
    "encoder": ("encoder",),
    "hrvq": ("hrvq",),
    "worldmodel": ("worldmodel",),
    "agent": ("dream.hidden_state", "actor", "critic", "predictor"),
}


def check_start(config: RunConfig, layout: Layout) -> None:
    """Check that the run can start from the parts that it is to start from, or has started from.

    Raises:
        ValueError: the other run is not a run, is this run itself, lacks a part, made it with other settings,
            or made it before its own settings changed.
    """
    start = config.start
    if not start.taken:
        return
    manifest = Manifest(layout)
    begun = manifest.stages.get("start")
    same = begun is not None and (begun.metrics["run"], begun.metrics["parts"]) == (start.run, [*start.taken])
    if same and not manifest.check("start"):
        theirs = load_config(layout.start.config)
    else:
        if Path(start.run).resolve() == layout.root.resolve():
            raise ValueError(f"start.run is {start.run}, this run itself; give another run's directory")
        # Absolute, so that errors show the full path: a relative one depends on where `wm` is started.
        try:
            theirs, source = open_run(Path(start.run).absolute())
        except ValueError as error:
            if not layout.config.exists():
                raise
            raise ValueError(
                f"{layout.root} starts from another run: {error}; if that has moved, give --from its place"
            ) from error
        for part in start.taken:
            path = getattr(source, part)
            if not path.is_file():
                less = "" if part == "encoder" else ", or set start.parts to what it has"
                raise ValueError(
                    f"{start.run} has no {path.name}; run {train_command(start.run)} first{less}"
                )
        _require_current(theirs, source, start.taken, start.run)
    for part in start.taken:
        for name in SETTINGS[part]:
            _require_equal(config, theirs, name, part, goes_on=layout.config.exists())


def _require_current(theirs: RunConfig, source: Layout, parts: Sequence[str], run: str) -> None:
    """Raise ValueError if a part, or any of its inputs, was made with other settings than its run has now:
    the new run would list the latter as if the part had been made with them.
    """
    stages = stages_of(theirs)
    suffix = round_suffix(round_of(source, theirs), theirs.rounds.count)
    last = parts[-1] + suffix  # the other parts are among its inputs
    names = inputs_of(last, stages) | {last}
    taken = [stage for stage in stages if stage.name in names]
    if old := outdated(taken, theirs, Manifest(source)):
        raise ValueError(
            f"{', '.join(old)} of {run}: made before its settings or inputs changed; {train_command(run)} "
            "brings it up to date, or restore its old settings"
        )


def _require_equal(ours: RunConfig, theirs: RunConfig, name: str, part: str, *, goes_on: bool) -> None:
    section, _, only = name.partition(".")
    mine, other = (unstructure(getattr(config, section)) for config in (ours, theirs))
    for key in [only] if only else sorted(mine.keys() | other.keys()):
        if mine.get(key) != other.get(key):
            # An existing run, such as one of a recording, has its own settings even without --preset.
            as_it_has = command("--set", f"{section}.{key}={json.dumps(other.get(key))}")
            way = f"give {as_it_has}" if goes_on else "leave out --preset and this setting"
            less = "" if part == "encoder" else ", or set start.parts to take less"
            raise ValueError(
                f"{section}.{key} is {mine.get(key)!r}, but the {part} to start from has {other.get(key)!r}; "
                f"{way} to use that value{less}"
            )

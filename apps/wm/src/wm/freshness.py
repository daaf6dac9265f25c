"""Which stages are up to date: made from the current settings and inputs.

``config`` is always the whole run's. ``run.Manifest`` knows what each stage was made from.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from wm.config import YOUNGER, RunConfig
from wm.run import Manifest, fingerprint
from wm.settings import flatten, unstructure
from wm.stage import Stage

NAMED = 4
"""How many of the stages that run again are named."""


def stale_inputs(name: str, stages: Sequence[Stage], config: RunConfig, manifest: Manifest) -> list[str]:
    """The direct and indirect inputs of a stage that are not up to date, in order."""
    made_from = inputs_of(name, stages)
    return stale([stage for stage in stages if stage.name in made_from], config, manifest)


def inputs_of(name: str, stages: Sequence[Stage]) -> set[str]:
    """The direct and indirect inputs of a stage, as names of stages."""
    by_name = {stage.name: stage for stage in stages}
    needed, found = list(by_name[name].needs), set[str]()
    while needed:
        need = needed.pop()
        if need not in found:
            found.add(need)
            needed.extend(by_name[need].needs)
    return found


def stale(stages: Iterable[Stage], config: RunConfig, manifest: Manifest) -> list[str]:
    """Those of the stages that are not up to date: their artifacts are not all there, or were not made from
    the current inputs and settings.
    """
    return [
        stage.name for stage in stages if not _fits(stage, config, manifest) or manifest.check(stage.name)
    ]


def outdated(stages: Iterable[Stage], config: RunConfig, manifest: Manifest) -> list[str]:
    """Those of the stages that have run, but with other settings or inputs than the current ones.

    Includes stages that were restarted and then stopped, or whose inputs were. Asks the manifest, not files.
    """
    ran = manifest.stages.keys() | manifest.set_aside.keys()
    return [stage.name for stage in stages if stage.name in ran and not _fits(stage, config, manifest)]


def what_changes(
    before: dict[str, Any], config: RunConfig, stages: Sequence[Stage], manifest: Manifest
) -> Iterator[str]:
    """Which of a run's settings change, and which finished stages run again as a result; collecting a round
    anew deletes the play of all later rounds.

    Nothing if nothing changes. Said because a preset replaces even settings that were chosen with care.

    Args:
        before: the run's settings as in its file; those that it lacks have their defaults.
        config: the new settings.
        stages: the stages that are to run, in order.
    """
    defaults, new = (flatten(unstructure(each)) for each in (RunConfig(), config))
    old = defaults | flatten(before)
    changed = [key for key in new if old[key] != new[key]]
    if not changed:
        return
    pairs = (f"{key} {json.dumps(old[key])} to {json.dumps(new[key])}" for key in changed)
    yield f"changed: {', '.join(pairs)}"
    again = set(outdated(stages, config, manifest))
    plays_anew = False
    for stage in stages:
        if again.intersection(stage.needs) or (plays_anew and stage.base == "collect"):
            again.add(stage.name)
        plays_anew |= stage.base == "collect" and stage.name in again
    lost = [stage.name for stage in stages if stage.name in again and stage.name in manifest.stages]
    if lost:
        minutes = sum(manifest.stages[name].seconds for name in lost) / 60
        named = ", ".join(lost[:NAMED]) + (f" and {len(lost) - NAMED} more" if len(lost) > NAMED else "")
        same = "those after start only if it copies other parts; " if lost[0] == "start" else ""
        yield (
            f"to be run again: {named} ({minutes:.0f} minutes of work); {same}to keep what they made, stop "
            "now and restore the old settings"
        )


def _fits(stage: Stage, config: RunConfig, manifest: Manifest) -> bool:
    """Whether the manifest has the stage, made from these settings and its current inputs."""
    record = manifest.stages.get(stage.name)
    if record is None or not manifest.stages.keys() >= set(stage.needs):
        return False
    return record.fingerprint == stage_fingerprint(stage, config, manifest)


def stage_fingerprint(stage: Stage, config: RunConfig, manifest: Manifest) -> str:
    """Hash of the settings that a stage depends on and of the artifacts it reads."""
    own = stage.config(config)
    return fingerprint(
        {
            "stage": stage.name,
            "games": list(own.games),
            "seed": own.seed,
            "settings": unstructure(stage.settings(own), YOUNGER),
            "parents": manifest.hashes(stage.needs),
        }
    )

"""Which stages are up to date: made from the settings and the inputs that there are now.

``config`` is the whole run's everywhere. ``run.Manifest`` knows what each stage was made from.
"""

from collections.abc import Iterable, Sequence

from wm.config import YOUNGER, RunConfig
from wm.run import Manifest, fingerprint
from wm.settings import unstructure
from wm.stage import Stage


def stale_inputs(name: str, stages: Sequence[Stage], config: RunConfig, manifest: Manifest) -> list[str]:
    """The stages that this one is made from, however indirectly, that are not up to date, in order."""
    by_name = {stage.name: stage for stage in stages}
    needed, found = list(by_name[name].needs), set()
    while needed:
        need = needed.pop()
        if need not in found:
            found.add(need)
            needed.extend(by_name[need].needs)
    return stale([stage for stage in stages if stage.name in found], config, manifest)


def stale(stages: Iterable[Stage], config: RunConfig, manifest: Manifest) -> list[str]:
    """Those of the stages that are not up to date: whose artifacts are not all there, or not made from the
    inputs and settings that there are now.
    """
    return [
        stage.name for stage in stages if not _fits(stage, config, manifest) or manifest.check(stage.name)
    ]


def outdated(stages: Iterable[Stage], config: RunConfig, manifest: Manifest) -> list[str]:
    """Those of the stages that have run, but with other settings or inputs than there are now.

    Those, too, that were begun anew and stopped, or whose inputs were. Asks the manifest, not the files.
    """
    ran = manifest.stages.keys() | manifest.set_aside.keys()
    return [stage.name for stage in stages if stage.name in ran and not _fits(stage, config, manifest)]


def _fits(stage: Stage, config: RunConfig, manifest: Manifest) -> bool:
    """Whether the manifest has the stage, made from these settings and the inputs it has now."""
    record = manifest.stages.get(stage.name)
    if record is None or not manifest.stages.keys() >= set(stage.needs):
        return False
    return record.fingerprint == stage_fingerprint(stage, config, manifest)


def stage_fingerprint(stage: Stage, config: RunConfig, manifest: Manifest) -> str:
    """Of the settings that the stage's artifacts depend on, and of the artifacts that it reads."""
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

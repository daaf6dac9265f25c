"""Runs stages in order, skips those whose inputs and settings are unchanged, and records what each made."""

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from wm.config import RunConfig
from wm.console import command, train_command
from wm.device import explaining_no_memory, forget_peak_memory, peak_memory_gib
from wm.distributed import ALONE
from wm.files import write_text
from wm.freshness import stage_fingerprint, stale, stale_inputs
from wm.interrupt import deferred_interrupt
from wm.rounds import final_layout, layout_of_round, split_name
from wm.run import Manifest, StageRecord
from wm.stage import BY_GAME, Context, Made, Stage


def run_stages(
    stages: Sequence[Stage],
    context: Context,
    only: str | None = None,
    remarks: Callable[[Stage, RunConfig, Manifest], Iterable[str]] = lambda *_: (),
) -> Manifest:
    """Run every stage that is not up to date, or only the one named.

    Args:
        stages: those of a whole run, in order.
        context: the settings and the layout of the whole run.
        only: name of the one stage to run.
        remarks: what to say once a stage is done.

    Raises:
        ValueError: a stage that ``only`` needs has not run, or an artifact is not what its stage wrote.
    """
    manifest = Manifest(context.layout)
    old = stale_inputs(only, stages, context.config, manifest) if only and context.team.leads else []
    if old:
        context.console.print(
            f"{only}: reads what {', '.join(old)} made before settings or inputs changed; "
            f"{train_command(context.layout.root)} brings all up to date"
        )
    for stage in stages:
        if only is None or stage.name == only:
            ran = _run_stage(stage, context, manifest)
            for remark in remarks(stage, context.config, manifest) if ran else ():
                context.console.print(f"{stage.name}: {remark}")
    if context.team.leads:
        manifest.keep_notes()
    return manifest


def require_inputs(stage: Stage, manifest: Manifest, root: Path, games: Sequence[str]) -> None:
    """Raise ValueError unless the artifacts of all stages that it needs are there, for all these games and
    from the same play, whatever their settings.
    """
    for need in stage.needs:
        if need not in manifest.stages or manifest.check(need):
            raise ValueError(
                f"stage {stage.name} needs the artifacts of {need}, which are not in {root}; "
                f"run {command('wm', 'train', need, '--run', root)} first, or leave the stage out to run all"
            )
        if split_name(need)[0] in BY_GAME and (unseen := manifest.stages[need].unseen(games)):
            raise ValueError(
                f"stage {stage.name} needs {', '.join(unseen)} too, which {need} has not seen yet; "
                f"{command('wm', 'train', '--run', root, '--games', ','.join(games))} brings all up to date"
            )
    for need in _of_other_play(stage, manifest):
        raise ValueError(
            f"stage {stage.name} needs {need}, which was not made from the play that the run holds now; "
            f"{train_command(root)} brings all up to date"
        )


def _of_other_play(stage: Stage, manifest: Manifest) -> list[str]:
    """Those of its round's inputs that were made from other frames than it reads, so that no row matches."""
    _, suffix = split_name(stage.name)
    if f"collect{suffix}" not in stage.needs:
        return []
    play = manifest.hashes([f"collect{suffix}"])
    known = manifest.hashes(name for name in manifest.stages if split_name(name)[0] == "collect")
    found = []
    for need in stage.needs:
        base, of_round = split_name(need)
        if base == "collect" or of_round != suffix:
            continue
        parents = manifest.stages[need].parents
        read = {key: digest for key, digest in parents.items() if key.startswith("data/")}
        if read and not play.items() <= read.items() <= known.items():
            found.append(need)
    return found


def take_back(stages: Iterable[Stage], config: RunConfig, manifest: Manifest) -> None:
    """Restore what stages had made before they were restarted and then stopped, where it fits again."""
    for stage in stages:
        if stage.name in manifest.set_aside and manifest.stages.keys() >= set(stage.needs):
            manifest.reinstate(stage.name, stage_fingerprint(stage, config, manifest))


def _context(stage: Stage, whole: Context, manifest: Manifest) -> Context:
    """The context, in its round, of a stage whose inputs are there."""
    root, config = whole.layout.root, whole.config
    return replace(
        whole,
        config=stage.config(config),
        layout=layout_of_round(root, config, stage.round) if stage.continues else final_layout(root, config),
        team=whole.team if stage.parallel else ALONE,
        round=stage.round,
        stage=stage.name,
        fingerprint=stage_fingerprint(stage, config, manifest),
    )


def _run_stage(stage: Stage, whole: Context, manifest: Manifest) -> bool:
    """Run a stage unless it is up to date; returns whether it ran."""
    if not whole.team.leads:
        return _follow(stage, whole, manifest)
    require_inputs(stage, manifest, whole.layout.root, whole.config.games)
    context = _context(stage, whole, manifest)
    current = not stale([stage], whole.config, manifest)
    if current or manifest.reinstate(stage.name, context.fingerprint):
        context.console.print(f"{stage.name}: up to date, skipped")
        whole.team.as_leader_says(False)
        return False
    whole.team.as_leader_says(True)
    manifest.begin(stage.name)
    forget_peak_memory(context.device)
    made, seconds = _timed(stage, context)
    record = StageRecord(
        fingerprint=context.fingerprint,
        artifacts=manifest.describe(made.artifacts),
        parents=manifest.hashes(_read(stage, context, manifest)),
        metrics=made.metrics,
        seconds=round(seconds, 2),
        device=str(context.device),
        seed=context.config.seed,
    )
    record.metrics["peak_memory_gib"] = round(peak_memory_gib(context.device), 3)
    manifest.record(stage.name, record)
    for leftover in context.layout.checkpoint(stage.name).parent.glob(f"{stage.name}-*"):
        of_earlier_round = stage.continues and re.match(r"\d+-", leftover.name.removeprefix(f"{stage.name}-"))
        if not of_earlier_round:
            leftover.unlink()
    context.console.print(f"{stage.name}: done in {record.seconds:.0f} s")
    whole.team.wait()
    return True


def _timed(stage: Stage, context: Context) -> tuple[Made, float]:
    """What the stage made, and the seconds it took, including those before an interruption."""
    spent = context.checkpoint("seconds").with_suffix(".json")
    before = float(json.loads(spent.read_text(encoding="utf-8"))) if spent.exists() else 0.0
    began = time.monotonic()
    try:
        _import_compiler()
        with explaining_no_memory(lambda: context.out_of_memory(stage.size)):
            made = stage.run(context)
    except KeyboardInterrupt:
        write_text(spent, json.dumps(before + time.monotonic() - began))
        raise
    return made, before + time.monotonic() - began


def _import_compiler() -> None:
    """PyTorch imports it with the first optimizer, and a Ctrl-C during that import would end the process."""
    with deferred_interrupt() as interrupted:
        import_module("torch._dynamo")
        if interrupted():
            raise KeyboardInterrupt


def _read(stage: Stage, context: Context, manifest: Manifest) -> list[str]:
    """The stages whose artifacts it reads: those of an earlier round if that round's agent was chosen."""
    chosen = None if stage.continues else context.layout.earlier_round
    of_round = {need: f"{need}-{chosen}" for need in stage.needs}
    # What reads an earlier round's artifacts by their name, as `choose` does, reads those of the last beside.
    known = manifest.stages.keys() - set(stage.needs)
    return [of_round[need] if of_round[need] in known else need for need in stage.needs]


def _follow(stage: Stage, whole: Context, manifest: Manifest) -> bool:
    """What a process that does not lead does: its part of a parallel stage, or wait."""
    runs = whole.team.as_leader_says(False)
    manifest.read()  # the leader may have restored what was set aside
    if not runs:
        return False
    if stage.parallel:
        stage.run(_context(stage, whole, manifest))
    whole.team.wait()
    manifest.read()
    return True

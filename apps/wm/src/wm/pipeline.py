"""Runs stages in order, skips those whose inputs and settings are unchanged, and records what each made."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from wm.choice import final_layout
from wm.config import YOUNGER, RunConfig
from wm.console import command
from wm.device import derive_seed, forget_peak_memory, peak_memory_gib
from wm.distributed import ALONE, Team
from wm.files import write_text
from wm.fit import FitConfig, fit
from wm.reporter import Reporter
from wm.run import Layout, Manifest, StageRecord, fingerprint
from wm.settings import unstructure


@dataclass(frozen=True)
class Context:
    """What a stage gets: settings, places, the device and someone to report to.

    Args:
        config: the settings of the stage's round.
        layout: the places of its round.
        team: the processes that train together.
        previous: the places of the round before, None in round 0.
        round: number of the round.
        stage: the stage's name in the run, such as ``agent``, or ``agent-0`` in an earlier round.
        fingerprint: of the stage's settings and inputs.
    """

    config: RunConfig
    layout: Layout
    device: torch.device
    reporter: Reporter
    team: Team = ALONE
    previous: Layout | None = None
    round: int = 0
    stage: str = ""
    fingerprint: str = ""

    def seed(self, *names: str | int) -> int:
        """A seed of this run for the purpose named."""
        return derive_seed(self.config.seed, *names)

    @property
    def first_batch(self) -> int:
        """Index of the round's first batch: each round draws from its own part of every stream."""
        return self.round << 32

    def known(self, part: str) -> Path | None:
        """The weights of a part (``encoder``, ``hrvq`` ...) that the stage goes on from, None for new ones.

        They are those of the round before, or in round 0 of the run that this one starts from.
        """
        layout = self.previous
        if layout is None and part in self.config.start.taken:
            layout = self.layout.start
        return None if layout is None else Path(getattr(layout, part))

    def name(self, part: str) -> str:
        """What a training loop of this stage is called in metrics and messages."""
        base, *suffix = self.stage.split("-")
        return "-".join([part or base, *suffix])

    def checkpoint(self, part: str = "") -> Path:
        """Where the stage (or a part of it) keeps its state while under way; other settings, another file."""
        name = f"{self.stage}-{part}" if part else self.stage
        return self.layout.checkpoint(f"{name}-{self.fingerprint[:12]}")

    def fit(
        self,
        objective: Any,
        batches: Callable[[int], Any],
        config: FitConfig,
        *,
        epoch: int,
        name: str = "",
        part: str = "",
        **more: Any,
    ) -> dict[str, float]:
        """Train as :func:`wm.fit.fit` does, as this stage or a part of it.

        Args:
            name: of the training loop in metrics and messages, if it is not the stage's.
            part: of the stage, in the name of the checkpoint.
        """
        return fit(
            objective,
            batches,
            config,
            stage=self.name(name),
            seed=self.config.seed,
            device=self.device,
            reporter=self.reporter,
            checkpoint=self.checkpoint(part),
            epoch=epoch,
            **more,
        )

    def remembered(self, part: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` gives, as JSON keeps it; a stage that was stopped finds the parts it had made."""
        path = self.checkpoint(part).with_suffix(".json")
        if not path.exists():
            write_text(path, json.dumps(make()))
        value: dict[str, Any] = json.loads(path.read_text())
        return value


@dataclass
class Made:
    """What a stage made: files in the run, and its final numbers."""

    artifacts: list[Path]
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Args:
        needs: the stages whose artifacts it reads.
        settings: the part of the configuration that its artifacts depend on.
        run: does the work.
        continues: the stages of the round before whose artifacts it reads; empty if the stage comes once,
            after the last round, for what is made of the run's final agent.
        parallel: whether all processes of a team run it; those that do not lead make nothing.
        round: its round; ``earlier_round`` the same, but None in the last.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[RunConfig], Any]
    run: Callable[[Context], Made]
    continues: tuple[str, ...] = ()
    parallel: bool = False
    round: int = 0
    earlier_round: int | None = None

    @property
    def base(self) -> str:
        """Its name without the number of an earlier round."""
        return self.name.split("-")[0]


def in_rounds(stages: Sequence[Stage], count: int) -> tuple[Stage, ...]:
    """The stages of a run of ``count`` rounds, in order.

    Stages that continue come in every round. In the last they keep their names, so that ``agent`` is the
    trained agent of any run; in an earlier one the number of the round is added: ``agent-0``.
    """
    return tuple(
        _in_round(stage, index, count)
        for index in range(count)
        for stage in stages
        if index == count - 1 or stage.continues
    )


def round_suffix(index: int, count: int) -> str:
    """What the stages of a round add to their names: nothing in the last of ``count`` rounds."""
    return "" if index == count - 1 else f"-{index}"


def _in_round(stage: Stage, index: int, count: int) -> Stage:
    suffix = round_suffix(index, count)
    before = tuple(f"{name}-{index - 1}" for name in stage.continues) if index else ()
    return replace(
        stage,
        name=stage.name + suffix,
        needs=tuple(need + suffix for need in stage.needs) + before,
        round=index,
        earlier_round=index if suffix else None,
    )


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
        remarks: what is worth saying once a stage is done.

    Raises:
        ValueError: a stage that ``only`` needs has not run, or an artifact is not what its stage wrote.
    """
    manifest = Manifest(context.layout)
    old = stale_inputs(only, stages, context.config, manifest) if only and context.team.leads else []
    if old:
        context.reporter.say(
            f"{only}: reads what {', '.join(old)} made before settings or inputs changed; "
            f"{command('wm', 'train', '--run', context.layout.root)} brings all up to date"
        )
    for stage in stages:
        if only is None or stage.name == only:
            ran = _run_stage(stage, context, manifest)
            for remark in remarks(stage, context.config, manifest) if ran else ():
                context.reporter.say(f"{stage.name}: {remark}")
    return manifest


def _context(stage: Stage, whole: Context, manifest: Manifest) -> Context:
    """The context of a stage whose inputs are there, in its round."""
    root = whole.layout.root
    return replace(
        whole,
        config=_config(stage, whole.config),
        layout=Layout(root, stage.earlier_round) if stage.continues else final_layout(root, whole.config),
        previous=Layout(root, stage.round - 1) if stage.round else None,
        round=stage.round,
        stage=stage.name,
        fingerprint=_fingerprint(stage, whole.config, manifest),
    )


def _config(stage: Stage, whole: RunConfig) -> RunConfig:
    """The settings of a stage, in its round."""
    return whole.in_round(stage.round) if stage.continues else whole


def require_inputs(stage: Stage, manifest: Manifest, root: Path) -> None:
    """Raise ValueError unless the artifacts of all stages that it needs are there, of whatever settings."""
    for need in stage.needs:
        if need not in manifest.stages or manifest.check(need):
            raise ValueError(
                f"stage {stage.name} needs the artifacts of {need}, which are not in {root}; "
                f"run {command('wm', 'train', need, '--run', root)} first, or leave the stage out to run all"
            )


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
    inputs and settings that there are now. ``config`` is the whole run's, here and below.
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
    return record.fingerprint == _fingerprint(stage, config, manifest)


def _run_stage(stage: Stage, whole: Context, manifest: Manifest) -> bool:
    """Whether there was anything to do."""
    if not whole.team.leads:
        return _follow(stage, whole, manifest)
    require_inputs(stage, manifest, whole.layout.root)
    context = _context(stage, whole, manifest)
    current = not stale([stage], whole.config, manifest)
    if current or manifest.reinstate(stage.name, context.fingerprint):
        context.reporter.say(f"{stage.name}: up to date, skipped")
        context.team.as_leader_says(False)
        return False
    context.team.as_leader_says(True)
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
        leftover.unlink()
    context.reporter.say(f"{stage.name}: done in {record.seconds:.0f} s")
    context.team.wait()
    return True


def _timed(stage: Stage, context: Context) -> tuple[Made, float]:
    """What the stage made, and its seconds, those before an interruption counted."""
    spent = context.checkpoint("seconds").with_suffix(".json")
    before = float(json.loads(spent.read_text())) if spent.exists() else 0.0
    began = time.monotonic()
    try:
        made = stage.run(context)
    except KeyboardInterrupt:
        write_text(spent, json.dumps(before + time.monotonic() - began))
        raise
    return made, before + time.monotonic() - began


def _read(stage: Stage, context: Context, manifest: Manifest) -> list[str]:
    """The stages whose artifacts it reads: where an earlier round's agent was chosen, that round's."""
    chosen = None if stage.continues else context.layout.earlier_round
    of_round = {need: f"{need}-{chosen}" for need in stage.needs if f"{need}-{chosen}" in manifest.stages}
    return [of_round.get(need, need) for need in stage.needs]


def _follow(stage: Stage, whole: Context, manifest: Manifest) -> bool:
    """What a process that does not lead has to do: its part of a parallel stage, or to wait."""
    runs = whole.team.as_leader_says(False)
    manifest.read()  # the leader may have taken back what was set aside
    if not runs:
        return False
    if stage.parallel:
        stage.run(_context(stage, whole, manifest))
    whole.team.wait()
    manifest.read()
    return True


def _fingerprint(stage: Stage, whole: RunConfig, manifest: Manifest) -> str:
    config = _config(stage, whole)
    return fingerprint(
        {
            "stage": stage.name,
            "games": list(config.games),
            "seed": config.seed,
            "settings": unstructure(stage.settings(config), YOUNGER),
            "parents": manifest.hashes(stage.needs),
        }
    )

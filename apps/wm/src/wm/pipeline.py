"""Runs stages in order, skips those whose inputs and settings are unchanged, and records what each made."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wm.config import RunConfig
from wm.device import derive_seed, peak_memory_gib
from wm.reporter import Reporter
from wm.run import Layout, Manifest, StageRecord, fingerprint
from wm.settings import unstructure


@dataclass
class Context:
    """What a stage gets: settings, places, the device and someone to report to."""

    config: RunConfig
    layout: Layout
    device: torch.device
    reporter: Reporter
    stage: str = ""
    fingerprint: str = ""

    def seed(self, *names: str | int) -> int:
        """A seed of this run for the purpose named."""
        return derive_seed(self.config.seed, *names)

    def checkpoint(self, part: str = "") -> Path:
        """Where the stage (or a part of it) keeps its state while under way; other settings, another file."""
        name = f"{self.stage}-{part}" if part else self.stage
        return self.layout.checkpoint(f"{name}-{self.fingerprint[:12]}")


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
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[RunConfig], Any]
    run: Callable[[Context], Made]


def run_stages(stages: Sequence[Stage], context: Context, only: str | None = None) -> Manifest:
    """Run every stage that is not up to date, or only the one named.

    Raises:
        ValueError: a stage that ``only`` needs has not run, or an artifact is not what its stage wrote.
    """
    manifest = Manifest(context.layout)
    for stage in stages:
        if only is not None and stage.name != only:
            continue
        _run_stage(stage, context, manifest)
    return manifest


def up_to_date(stage: Stage, context: Context, manifest: Manifest) -> bool:
    """Whether the stage's recorded artifacts are all there and were made from these inputs and settings."""
    record = manifest.stages.get(stage.name)
    if record is None or any(need not in manifest.stages for need in stage.needs):
        return False
    return record.fingerprint == _fingerprint(stage, context, manifest) and not manifest.check(stage.name)


def _run_stage(stage: Stage, context: Context, manifest: Manifest) -> None:
    for need in stage.needs:
        if need not in manifest.stages or manifest.check(need):
            raise ValueError(
                f"stage {stage.name} needs the artifacts of {need}, which are not in {context.layout.root}; "
                f"run `wm train {need} --run {context.layout.root}` first, or leave the stage out to run all"
            )
    if up_to_date(stage, context, manifest):
        context.reporter.say(f"{stage.name}: up to date, skipped")
        return
    context.stage, context.fingerprint = stage.name, _fingerprint(stage, context, manifest)
    manifest.forget([stage.name])
    began = time.monotonic()
    made = stage.run(context)
    record = StageRecord(
        fingerprint=context.fingerprint,
        artifacts=manifest.describe(made.artifacts),
        parents=manifest.hashes(stage.needs),
        metrics=made.metrics,
        seconds=round(time.monotonic() - began, 2),
        device=str(context.device),
        seed=context.config.seed,
    )
    record.metrics["peak_memory_gib"] = round(peak_memory_gib(context.device), 3)
    manifest.record(stage.name, record)
    for leftover in context.layout.checkpoint(stage.name).parent.glob(f"{stage.name}-*.pt"):
        leftover.unlink()
    context.reporter.say(f"{stage.name}: done in {record.seconds:.0f} s")


def _fingerprint(stage: Stage, context: Context, manifest: Manifest) -> str:
    return fingerprint(
        {
            "stage": stage.name,
            "games": list(context.config.games),
            "seed": context.config.seed,
            "settings": unstructure(stage.settings(context.config)),
            "parents": manifest.hashes(stage.needs),
        }
    )

"""What a stage of a run is, what it is given, and the stages of a run of several rounds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from wm.config import RunConfig
from wm.device import derive_seed, explaining_no_memory, generator
from wm.distributed import ALONE, Team
from wm.files import write_text
from wm.fit import fit
from wm.opened import RunAtHand
from wm.rounds import round_suffix, split_name
from wm.run import Layout
from wm.sections import FitConfig

BY_GAME = ("collect", "encoder", "hrvq", "worldmodel", "decoder")
"""Stages whose metrics name every game they have seen (`StageRecord.unseen`), by their plain names."""


@dataclass(frozen=True)
class Context(RunAtHand):
    """What a stage is given: the run, with the settings and the layout of the stage's round.

    Args:
        team: the processes that run the stage together.
        round: number of the round.
        stage: the stage's name in the run, such as ``agent``, or ``agent-0`` in an earlier round.
        fingerprint: of the stage's settings and inputs.
    """

    team: Team = ALONE
    round: int = 0
    stage: str = ""
    fingerprint: str = ""

    def seed(self, *names: str | int) -> int:
        """A seed of this run for the purpose named."""
        return derive_seed(self.config.seed, *names)

    def generator(self, *names: str | int) -> torch.Generator:
        """A generator on the CPU, with that seed."""
        return generator(self.config.seed, *names)

    @property
    def first_batch(self) -> int:
        """Index of the round's first batch: each round draws from its own part of every random stream."""
        return self.round << 32

    @property
    def previous(self) -> Layout | None:
        """The layout of the round before, None in round 0."""
        return Layout(self.layout.root, self.round - 1) if self.round else None

    @property
    def keeps_codes(self) -> bool:
        """Whether encoder and codes are those of the round before, so that its tokens still hold."""
        return self.previous is not None and not self.config.rounds.encoder_steps

    def known(self, part: str) -> Path | None:
        """The weights of a part (``encoder``, ``hrvq`` ...) to continue from, None to start from scratch.

        They are those of the round before or, in round 0, those of the run that this one starts from.
        """
        layout = self.previous
        if layout is None and part in self.config.start.taken:
            layout = self.layout.start
        return None if layout is None else Path(getattr(layout, part))

    def checkpoint(self, part: str = "") -> Path:
        """Where the unfinished stage (or a part of it) keeps its state; other settings use another file."""
        name = f"{self.stage}-{part}" if part else self.stage
        return self.layout.checkpoint(f"{name}-{self.fingerprint[:12]}")

    def fit(
        self,
        objective: Any,
        batches: Callable[[int], Any],
        config: FitConfig,
        *,
        epoch_size: int,
        name: str = "",
        optimizer: torch.optim.Optimizer | None = None,
        group: int = 1,
    ) -> dict[str, float]:
        """Train as :func:`wm.fit.fit` does, as this stage or a part of it.

        Args:
            name: of the training loop in metrics, messages and the checkpoint's name, if it is not the
                stage's. Its settings are ``train.NAME``.

        Raises:
            ValueError: as for :func:`wm.fit.fit`, or the device has no memory for a batch.
        """
        base, suffix = split_name(self.stage)
        section = name or base
        with explaining_no_memory(lambda: self.out_of_memory(f"train.{section}.batch_size")):
            return fit(
                objective,
                batches,
                config,
                stage=section + suffix,
                seed=self.config.seed,
                device=self.device,
                reporter=self.reporter,
                checkpoint=self.checkpoint(name),
                epoch_size=epoch_size,
                optimizer=optimizer,
                group=group,
                team=self.team,
                setting=f"train.{section}",
            )

    def out_of_memory(self, setting: str | None) -> ValueError:
        """The error for a device out of memory; lowering ``setting`` would reduce the memory needed."""
        lower = f"lower {setting}, or free some" if setting else "free some"
        return ValueError(f"stage {self.stage} ran out of memory on {self.device}; {lower}")

    def remembered(self, part: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``make`` returns, as stored in JSON; a stage that was stopped reuses the parts it had made."""
        path = self.checkpoint(part).with_suffix(".json")
        if not path.exists():
            write_text(path, json.dumps(make()))
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
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
        continues: the stages of the round before whose artifacts it reads; empty if the stage runs only once,
            after the last round, with the run's final agent.
        parallel: whether all processes of a team run it; only the leader writes anything.
        size: the setting that determines how much is on the device at once, for a stage that does not train
            with `Context.fit`.
        round: number of its round.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[RunConfig], Any]
    run: Callable[[Context], Made]
    continues: tuple[str, ...] = ()
    parallel: bool = False
    size: str | None = None
    round: int = 0

    @property
    def base(self) -> str:
        """Its name without the number of an earlier round."""
        return split_name(self.name)[0]

    def config(self, whole: RunConfig) -> RunConfig:
        """The settings of its round, from those of the whole run."""
        return whole.in_round(self.round) if self.continues else whole


def in_rounds(stages: Sequence[Stage], count: int) -> tuple[Stage, ...]:
    """The stages of a run of ``count`` rounds, in order.

    Stages that continue run in every round. In the last round they keep their names, so that ``agent`` is the
    trained agent of any run; in an earlier one the round's number is appended: ``agent-0``.
    """
    return tuple(
        _in_round(stage, index, count)
        for index in range(count)
        for stage in stages
        if index == count - 1 or stage.continues
    )


def _in_round(stage: Stage, index: int, count: int) -> Stage:
    suffix = round_suffix(index, count)
    before = tuple(f"{name}-{index - 1}" for name in stage.continues) if index else ()
    return replace(
        stage,
        name=stage.name + suffix,
        needs=tuple(need + suffix for need in stage.needs) + before,
        round=index,
    )

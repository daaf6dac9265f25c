"""The one training loop, used by every stage that takes gradient steps.

A batch is a function of its index, and the random state is reset from (seed, stage, step) at every step, so
a checkpoint needs the weights, the optimiser and one integer, and a resumed run equals an uninterrupted one.
"""

import io
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm.device import autocast, autocast_dtype, derive_seed, seed_defaults
from wm.distributed import ALONE, Team
from wm.files import written_whole
from wm.interrupt import deferred_interrupt
from wm.reporter import Reporter
from wm.sections import FitConfig

SECONDS_BETWEEN_CHECKPOINTS = 60.0


def fit(
    objective: Any,
    batches: Callable[[int], Any],
    config: FitConfig,
    *,
    stage: str,
    seed: int,
    device: torch.device,
    reporter: Reporter,
    checkpoint: Path,
    epoch_size: int,
    optimizer: torch.optim.Optimizer | None = None,
    group: int = 1,
    team: Team = ALONE,
    setting: str = "",
) -> dict[str, float]:
    """Train ``objective`` on ``batches(index)``.

    ``objective`` is an ``nn.Module`` that maps a batch to its loss (0-d) and metrics, with a method
    ``after_step()`` for whatever follows an optimiser step, such as a moving average.

    Resumes from ``checkpoint`` if it exists, and writes it from time to time and on interruption. The caller
    deletes it once the stage's artifact is written. Steps come in groups of ``group`` that belong together
    (the minibatches of one dream); a checkpoint, and therefore a stop, waits for the end of a group. Each
    process of a ``team`` takes its slice of every batch; the first writes and logs. ``epoch_size`` is the
    argument of ``FitConfig.resolve_steps``; ``optimizer`` is AdamW over all parameters by default.
    ``setting`` names the section that ``config`` comes from, such as ``train.agent``, if a user can set it.

    Returns:
        The logged metrics, averaged over the last tenth of the steps.

    Raises:
        ValueError: the loss or its gradient is no longer finite; the last good checkpoint is kept, and only
            the same settings can use it.
    """
    total = config.resolve_steps(epoch_size)
    dtype = autocast_dtype(config.precision, device)
    if optimizer is None:
        optimizer = torch.optim.AdamW(
            [p for p in objective.parameters() if p.requires_grad],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    state = _Checkpoint(checkpoint, objective, optimizer, scaler)
    start, tail = state.restore()
    if start:
        reporter.console.print(f"{stage}: resumes at step {start} of {total}")

    objective.train()
    trained: Callable[[Any], Any] = team.wrap(objective, device)
    if config.compile:
        trained = compiled(trained)

    def measure(index: int) -> dict[str, Tensor]:
        """Add the gradients of a batch; returns its loss and metrics."""
        with autocast(dtype, device):
            loss, metrics = trained(team.share(batches(index)))
        scaler.scale(loss / config.accumulation).backward()
        return {"loss": loss.detach()} | metrics

    last_saved = time.monotonic()
    step = start
    with reporter.task(stage, total, start) as task, deferred_interrupt() as interrupted:
        while step < total:
            seed_defaults(derive_seed(seed, stage, step, *([team.rank] if team.rank else [])), device)
            first = step * config.accumulation
            measured = [measure(index) for index in range(first, first + config.accumulation)]
            rate = config.rate(step, total)
            norm = _take_step(optimizer, scaler, rate, config.clip)
            # A scaler skips steps with infinite gradients by design.
            gradient = [] if scaler.is_enabled() else [norm]
            if step % config.log_every == 0 or step == total - 1:
                _require_finite([*(part["loss"] for part in measured), *gradient], stage, step, setting)
                values = {name: _mean([float(part[name]) for part in measured]) for name in measured[0]}
                values |= {"grad_norm": float(norm), "learning_rate": rate}
                reporter.log(stage, step, values, task)
                if step >= min(0.9 * total, total - 1):
                    for name, value in values.items():
                        tail.setdefault(name, []).append(value)
            objective.after_step()
            step += 1
            task.update(step)
            if step % group and step < total:
                continue
            stop = team.any(interrupted())
            if stop or time.monotonic() - last_saved > SECONDS_BETWEEN_CHECKPOINTS:
                _require_finite(gradient, stage, step, setting)
                if team.leads:
                    state.save(step, tail)
                last_saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
    if team.leads and step > start:
        state.save(step, tail)
    if team.any(interrupted()):  # it came during the final save: no later step checks
        raise KeyboardInterrupt
    return {name: _mean(values) for name, values in tail.items() if name != "learning_rate"}


def _take_step(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, rate: float, clip: float
) -> Tensor:
    """Step along the clipped gradient and clear it; returns its norm before clipping, 0-d."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    scaler.unscale_(optimizer)
    trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(trainable, clip or math.inf)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm


def _require_finite(values: Iterable[Tensor], stage: str, step: int, setting: str) -> None:
    """Raise ValueError at the first value that is NaN or infinite, with what may help."""
    for value in values:
        if not torch.isfinite(value):
            advice = "give another --seed"
            if setting:
                advice = (
                    f"lower {setting}.learning_rate or set {setting}.precision=float32, either of which "
                    "restarts the stage"
                )
            raise ValueError(f"{stage}: the loss or its gradient is {float(value)} by step {step}; {advice}")


def _mean(values: list[float]) -> float:
    """Mean of the values that are not NaN; recall, for example, is NaN in a batch without a lost point."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def compiled(module: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The module under torch.compile.

    Raises:
        ValueError: when called, if there is no compiler for the device.
    """
    fast = torch.compile(module)

    def forward(batch: Any) -> Any:
        try:
            return fast(batch)
        except RuntimeError as error:
            # By name, because importing these modules takes seconds.
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"torch.compile does not work here ({reason}); install a C++ compiler, or leave "
                "compile=true out"
            ) from error

    return forward


@dataclass(frozen=True)
class _Checkpoint:
    """What a training loop needs to resume, and the file that stores it."""

    path: Path
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def save(self, step: int, tail: dict[str, list[float]]) -> None:
        """Write the state before ``step``, and the metrics that are averaged at the end."""
        state = {
            "step": step,
            "tail": tail,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        # Through memory: torch's own file writer turns a full disk into an error that does not say so.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with written_whole(self.path) as partial:
            partial.write_bytes(buffer.getbuffer())

    def restore(self) -> tuple[int, dict[str, list[float]]]:
        """Restore the state; returns the step to resume at (0 without a file) and the metrics so far.

        Raises:
            ValueError: the file is damaged, or belongs to another objective.
        """
        if not self.path.exists():
            return 0, {}
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)  # not on a GPU twice
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:  # empty if started in bfloat16, on a GPU that supports it
                self.scaler.load_state_dict(state["scaler"])
            return int(state["step"]), state.get("tail", {})
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{self.path} cannot be read as this stage's checkpoint ({reason}); delete it to start the "
                "stage again"
            ) from error

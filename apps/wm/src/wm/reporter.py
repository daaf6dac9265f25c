"""Progress of long work: a bar or occasional lines, ``metrics.jsonl``, TensorBoard, Weights & Biases."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from wm.files import append_line, finite

SECONDS_BETWEEN_LINES = 15.0


class Sink(Protocol):
    """Where metrics go besides ``metrics.jsonl``."""

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step."""

    def close(self) -> None:
        """Flush and close."""


class TensorBoardSink:
    """Scalars under ``<stage>/<metric>``, in ``tensorboard/`` of the run."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"))

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step."""
        for name, value in metrics.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


class WandbSink:
    """Weights & Biases; offline unless an API key is configured."""

    def __init__(self, directory: Path, config: dict[str, Any]) -> None:
        import wandb

        online = bool(wandb.api.api_key)
        self.run = wandb.init(
            project="token-worldmodels",
            name=directory.name,
            dir=str(directory),
            config=config,
            mode="online" if online else "offline",
        )

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step; each stage has its own step axis."""
        self.run.log({f"{stage}/{name}": value for name, value in metrics.items()} | {f"{stage}/step": step})

    def close(self) -> None:
        """Flush and close."""
        self.run.finish()


def require_sinks(names: Iterable[str]) -> None:
    """Raise ValueError for an unknown ``--log``, or one whose extra is not installed; nothing is written."""
    for name in names:
        if name not in ("tensorboard", "wandb"):
            raise ValueError(f"unknown --log {name!r}; allowed: tensorboard, wandb")
        try:
            import_module(name)
        except ImportError as error:
            raise ValueError(f"--log {name} needs the package {name}; pip install {name}") from error


def make_sinks(names: Sequence[str], directory: Path, config: dict[str, Any]) -> list[Sink]:
    """The sinks asked for by ``--log``, checked by :func:`require_sinks`; they write to a run's directory."""
    sinks: list[Sink] = []
    if "tensorboard" in names:
        sinks.append(TensorBoardSink(directory))
    if "wandb" in names:
        sinks.append(WandbSink(directory, config))
    return sinks


class Task:
    """One piece of long work: a bar on a terminal, otherwise a line every few seconds.

    ``text`` is shown after the numbers.
    """

    def __init__(self, console: Console, name: str, total: int, done: int, bar: Progress | None) -> None:
        self.console, self.name, self.total, self.done = console, name, total, done
        self.text = ""
        self._first, self._started = done, time.monotonic()
        self._last_line = self._started
        self._bar = bar
        if bar is not None:
            bar.add_task(name, total=total, completed=done, rate="", metrics="")

    def advance(self, count: int = 1) -> None:
        """``count`` more units are done."""
        self.update(self.done + count)

    def update(self, done: int) -> None:
        """``done`` units in all are done."""
        self.done = done
        if self._bar is not None:
            [only] = self._bar.task_ids
            self._bar.update(only, completed=done, rate=f"{_short(self._rate())}/s", metrics=self.text)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._line()

    def finish(self) -> None:
        """To be called when the work is done: without a bar, it prints a last line."""
        if self._bar is None:
            self._line()

    def _rate(self) -> float:
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def _line(self) -> None:
        left = (self.total - self.done) / max(self._rate(), 1e-9)
        self.console.print(
            f"{self.name}: {self.done}/{self.total}  {_short(self._rate())}/s  "
            f"{left:.0f} s left  {self.text}",
        )


class Reporter:
    """Shows progress on ``console`` and writes metrics to ``metrics.jsonl`` and the sinks."""

    def __init__(
        self, console: Console, metrics_path: Path | None = None, sinks: list[Sink] | None = None
    ) -> None:
        self.console = console
        self._path = metrics_path
        self._sinks = sinks or []

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """Show progress of ``total`` units of work while the body runs."""
        with self._bar() as bar:
            task = Task(self.console, name, total, done, bar)
            yield task
        task.finish()

    def _bar(self) -> AbstractContextManager[Progress | None]:
        """A progress bar, if the terminal can show one."""
        if not self.console.is_terminal:
            return nullcontext()
        # In a narrow terminal the metrics are truncated, but never the progress.
        whole = [Column(no_wrap=True) for _ in range(5)]
        return Progress(
            TextColumn("{task.description:<12}", table_column=whole[0]),
            BarColumn(bar_width=min(24, self.console.width // 8), table_column=whole[1]),
            MofNCompleteColumn(table_column=whole[2]),
            TextColumn("{task.fields[rate]}", table_column=whole[3]),
            TimeRemainingColumn(table_column=whole[4]),
            TextColumn("[dim]{task.fields[metrics]}", table_column=Column(ratio=1, no_wrap=True)),
            console=self.console,
            expand=True,
        )

    def log(self, stage: str, step: int, metrics: Mapping[str, float], task: Task | None = None) -> None:
        """Write the metrics of a step; NaN and infinities, which JSON does not have, are written as null."""
        if task is not None:
            task.text = "  ".join(f"{name} {_short(value)}" for name, value in list(metrics.items())[:4])
        if self._path is not None:
            line = {"stage": stage, "step": step, "time": round(time.time(), 2)} | finite(dict(metrics))
            append_line(self._path, json.dumps(line))
        for sink in self._sinks:
            sink.write(stage, step, metrics)

    def close(self) -> None:
        """Flush and close the sinks."""
        for sink in self._sinks:
            sink.close()


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value / 1000:.1f}k" if abs(value) < 1e6 else f"{value / 1e6:.1f}M"
    return f"{value:.3g}"

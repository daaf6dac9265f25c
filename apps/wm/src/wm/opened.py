"""An open run: what every stage is given, and every command that reads a run."""

from dataclasses import dataclass

import torch
from rich.console import Console

from wm.config import RunConfig
from wm.reporter import Reporter
from wm.run import Layout


@dataclass(frozen=True)
class RunAtHand:
    """A run's settings, the layout of one of its rounds, the device to compute on, and the reporter."""

    config: RunConfig
    layout: Layout
    device: torch.device
    reporter: Reporter

    @property
    def console(self) -> Console:
        """The reporter's console."""
        return self.reporter.console


@dataclass(frozen=True)
class OpenedRun(RunAtHand):
    """A run opened for reading (`opening.open_to_read`).

    Args:
        index: number of the round, if one was asked for; None for the run's final parts.
    """

    index: int | None = None

    @property
    def suffix(self) -> str:
        """Suffix of the names of files made from a round asked for, so that they replace no others."""
        return "" if self.index is None else f"-round-{self.index}"

"""A run at hand: what every stage gets, and every command that reads one."""

from dataclasses import dataclass

import torch
from rich.console import Console

from wm.config import RunConfig
from wm.reporter import Reporter
from wm.run import Layout


@dataclass(frozen=True)
class RunAtHand:
    """A run's settings and the places of one of its rounds, where to compute, and whom to tell."""

    config: RunConfig
    layout: Layout
    device: torch.device
    reporter: Reporter

    @property
    def console(self) -> Console:
        """Of the one who watches."""
        return self.reporter.console


@dataclass(frozen=True)
class OpenedRun(RunAtHand):
    """A run opened to be read (`opening.open_to_read`).

    Args:
        index: of the round, if one was asked for; None for the run's final parts.
    """

    index: int | None = None

    @property
    def suffix(self) -> str:
        """Of the names of what is made from a round that was asked for, so that no other takes its place."""
        return "" if self.index is None else f"-round-{self.index}"

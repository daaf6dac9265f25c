"""A run at hand: what every command gets that reads one."""

from dataclasses import dataclass

import torch
from rich.console import Console

from wm.config import RunConfig
from wm.reporter import Reporter
from wm.run import Layout


@dataclass(frozen=True)
class OpenedRun:
    """A run opened to be read (`opening.open_to_read`).

    Args:
        config: its settings.
        layout: the places of the round that is read.
        device: where to compute.
        console: whom to tell.
        index: of the round, if one was asked for; None for the run's final parts.
    """

    config: RunConfig
    layout: Layout
    device: torch.device
    console: Console
    index: int | None = None

    @property
    def reporter(self) -> Reporter:
        """Tells the console how far the work is."""
        return Reporter(self.console)

    @property
    def suffix(self) -> str:
        """Of the names of what is made from a round that was asked for, so that no other takes its place."""
        return "" if self.index is None else f"-round-{self.index}"

"""Tokens drawn from recorded frames, which needs no decoder and shows exactly what a code stands for."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from atari_data import FrameStore
from numpy.typing import NDArray
from torch import Tensor

from wm.artifacts import frames_of, frozen_quantizer, known_backgrounds, tokens_of
from wm.opened import OpenedRun
from wm.run import Layout
from wm.view.viewer import Drawer, Viewer

_MOST = 16  # frames in a mean; more would not show more


@dataclass(frozen=True)
class Album:
    """Draws tokens as the mean of the recorded frames that have them, or are nearest to having them.

    Args:
        codebooks: of each level float32 (K, D).
        tokens: integer (N, L), row for row of the frames.
        store: the frames of the one game it draws.
        background: float32 (84, 84), drawn for no level.
    """

    codebooks: tuple[Tensor, ...]
    tokens: NDArray[np.integer]
    store: FrameStore
    background: Tensor

    @classmethod
    def load(cls, layout: Layout, game: str) -> Self:
        """The album of a run's game.

        Raises:
            ValueError: an artifact is missing or damaged.
        """
        known = tokens_of(layout, game)
        return cls(
            codebooks=frozen_quantizer(layout, torch.device("cpu")).codebooks,
            tokens=known.tokens,
            store=frames_of(layout, game, known),
            background=known_backgrounds(layout)[game],
        )

    def draw(self, tokens: Tensor, game: str) -> Tensor:
        """As `Drawer.draw`, from recorded frames."""
        if game != self.store.game:
            raise ValueError(f"these are frames of {self.store.game}; give its name, not {game}")
        return torch.stack([self._levels(row) for row in tokens.tolist()])

    def _levels(self, codes: list[int]) -> Tensor:
        """One row of tokens after no level and after each, (L + 1, 84, 84)."""
        drawn, rows = [self.background.cpu()], np.arange(len(self.tokens))
        for level, (table, code) in enumerate(zip(self.codebooks, codes, strict=True)):
            # Of the frames that share the codes of the coarser levels, those with the code asked for; if none
            # has it, those with the nearest code.
            away = (table - table[code]).square().sum(1).cpu().numpy()[self.tokens[rows, level]]
            rows = rows[away == away.min()]
            some = rows[:: -(-len(rows) // _MOST)]
            drawn.append(torch.from_numpy(self.store.frames[some].mean(0, dtype=np.float32)))
        return torch.stack(drawn)


def drawer_of(opened: OpenedRun, game: str, *, recorded: bool) -> Drawer:
    """An album if recorded frames are asked for, else the decoder, which only the run's final parts have.

    Raises:
        ValueError: an artifact is missing or damaged.
    """
    if recorded or opened.index is not None:
        return Album.load(opened.layout, game)
    return Viewer.load(opened.layout, opened.device)

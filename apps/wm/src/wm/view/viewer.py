"""Tokens drawn as frames, coarse to fine. Only for viewing: nothing is trained on these pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from cnn_encoder import Decoder
from hrvq import HRVQ
from numpy.typing import NDArray
from torch import Tensor

from wm.artifacts import frozen_decoder, frozen_quantizer, known_backgrounds
from wm.run import Layout

DRAW_BATCH = 256


class Drawer(Protocol):
    """Something that draws tokens as frames."""

    def draw(self, tokens: Tensor, game: str) -> Tensor:
        """Frames of ``game`` after no level, which is its background, and after each.

        Integer tokens (N, L) -> float32 (N, L + 1, 84, 84) on the CPU, gray levels in [0, 255].
        """
        ...


def draw_steps(
    drawer: Drawer, tokens: Tensor, game: str, steps: range
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each of the steps of tokens (T, L) with its frames (L + 1, 84, 84); few are in memory at once."""
    for first in range(0, len(steps), DRAW_BATCH):
        some = steps[first : first + DRAW_BATCH]
        yield from zip(some, drawer.draw(tokens[list(some)], game).numpy(), strict=True)


@dataclass(frozen=True)
class Viewer:
    """Draws the tokens of a run.

    Args:
        backgrounds: float32 (84, 84) by game, the mean frame that the encoder never sees.
    """

    quantizer: HRVQ
    decoder: Decoder
    backgrounds: Mapping[str, Tensor]

    @classmethod
    def load(cls, layout: Layout, device: torch.device) -> Self:
        """Load the viewer from a run's artifacts.

        Raises:
            ValueError: the run has no decoder yet, or an artifact is missing or damaged.
        """
        backgrounds = known_backgrounds(layout)
        return cls(
            quantizer=frozen_quantizer(layout, device),
            decoder=frozen_decoder(layout, device),
            backgrounds={game: background.to(device) for game, background in backgrounds.items()},
        )

    @torch.inference_mode()
    def draw(self, tokens: Tensor, game: str) -> Tensor:
        """As `Drawer.draw`, by the decoder."""
        background = self.backgrounds[game]
        levels = self.quantizer.level_embeddings(tokens.long().to(background.device))
        frames = self.decoder(levels.cumsum(-2), background).cpu()
        return torch.cat([background.cpu().expand(len(frames), 1, -1, -1), frames], 1)

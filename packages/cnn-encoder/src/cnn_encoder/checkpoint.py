"""The `encoder` artifact: weights, config and one background per game in one file."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ._artifact import load_artifact, save_artifact
from ._weights import plain_weights, with_weights
from .encoder import FRAME_SIZE, Encoder, EncoderConfig

_BACKGROUND = "background."


def save_encoder(path: str | Path, encoder: Encoder, backgrounds: Mapping[str, Tensor | np.ndarray]) -> None:
    """Write an encoder and the backgrounds (float32 (84, 84)) of the games it has seen, atomically.

    Raises:
        ValueError: a background is not a frame of finite numbers.
    """
    tensors = plain_weights(encoder)
    for game, background in backgrounds.items():
        # A copy: two games may share one tensor, which the file cannot.
        frame = torch.as_tensor(background).float().clone()
        if frame.shape != (FRAME_SIZE, FRAME_SIZE) or not frame.isfinite().all():
            raise ValueError(
                f"the background of {game} is {tuple(frame.shape)}, or not finite; give a mean frame (84, 84)"
            )
        tensors[_BACKGROUND + game] = frame
    save_artifact(path, tensors, kind="encoder", config=asdict(encoder.config))


def load_encoder(path: str | Path) -> tuple[Encoder, dict[str, Tensor]]:
    """Read an encoder (on CPU, in eval mode) and its backgrounds by game.

    Raises:
        ValueError: the file is missing, damaged or of another kind, or its weights do not fit its settings.
    """
    tensors, config = load_artifact(path, kind="encoder")
    backgrounds = {
        name.removeprefix(_BACKGROUND): tensors.pop(name)
        for name in sorted(tensors)
        if name.startswith(_BACKGROUND)
    }
    return with_weights(path, lambda: Encoder(EncoderConfig(**config)), tensors), backgrounds

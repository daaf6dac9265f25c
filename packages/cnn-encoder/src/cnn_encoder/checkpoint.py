"""The `encoder` artifact: weights, config and one background per game in one file."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ._artifact import load_artifact, save_artifact
from .encoder import Encoder, EncoderConfig

_BACKGROUND = "background."


def save_encoder(path: str | Path, encoder: Encoder, backgrounds: dict[str, Tensor]) -> None:
    """Write an encoder and the backgrounds (float32 (84, 84)) of the games it has seen, atomically."""
    tensors = {name: tensor.float() for name, tensor in encoder.state_dict().items()}
    tensors |= {_BACKGROUND + game: background.float() for game, background in backgrounds.items()}
    save_artifact(path, tensors, kind="encoder", config=asdict(encoder.config))


def load_encoder(path: str | Path) -> tuple[Encoder, dict[str, Tensor]]:
    """Read an encoder (on CPU, in eval mode) and its backgrounds by game.

    Raises:
        ValueError: the file is missing, damaged or of another kind.
    """
    tensors, config = load_artifact(path, kind="encoder")
    backgrounds = {
        name.removeprefix(_BACKGROUND): tensors.pop(name)
        for name in sorted(tensors)
        if name.startswith(_BACKGROUND)
    }
    with torch.device("meta"):  # draws nothing: the weights come from the file
        encoder = Encoder(EncoderConfig(**config))
    encoder.load_state_dict(tensors, assign=True)
    return encoder.eval(), backgrounds

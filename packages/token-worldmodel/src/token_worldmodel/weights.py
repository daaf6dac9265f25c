"""The trained model as one file that needs nothing else to be loaded."""

from dataclasses import asdict
from pathlib import Path

from ._artifact import load_artifact, save_artifact
from ._weights import plain_weights, with_weights
from .config import WorldModelConfig
from .model import WorldModel


def save_worldmodel(path: str | Path, model: WorldModel) -> None:
    """Write the weights, float32, with the configuration that rebuilds the model."""
    weights = {name: t for name, t in plain_weights(model).items() if ".parametrizations." not in name}
    for level, head in enumerate(model.heads):
        weights[f"heads.{level}.weight"] = head.weight.float()  # a sum while alike codes learn together
    save_artifact(path, weights, kind="worldmodel", config=asdict(model.config))


def load_worldmodel(path: str | Path) -> WorldModel:
    """The model a `save_worldmodel` file holds, on the CPU, in evaluation mode.

    Raises:
        ValueError: not a readable file of a world model, or weights that do not fit its configuration.
    """
    tensors, config = load_artifact(path, kind="worldmodel")
    return with_weights(path, lambda: WorldModel(WorldModelConfig(**config)), tensors)

"""The trained model as one file that needs nothing else to be loaded."""

from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import Tensor

from ._artifact import load_artifact, save_artifact
from .config import WorldModelConfig
from .model import WorldModel


def save_worldmodel(path: str | Path, model: WorldModel) -> None:
    """Write the weights, float32, with the configuration that rebuilds the model."""
    weights = {name: tensor.float() for name, tensor in _plain_weights(model).items()}
    save_artifact(path, weights, kind="worldmodel", config=asdict(model.config))


def _plain_weights(model: WorldModel) -> dict[str, Tensor]:
    """The weights by the names of a model that is neither compiled nor being trained in other coordinates."""
    model = getattr(model, "_orig_mod", model)
    weights = {name: t for name, t in model.state_dict().items() if ".parametrizations." not in name}
    for level, head in enumerate(model.heads):
        weights[f"heads.{level}.weight"] = head.weight  # a sum while alike codes learn together
    return weights


def load_worldmodel(path: str | Path) -> WorldModel:
    """The model a `save_worldmodel` file holds, on the CPU, in evaluation mode.

    Raises:
        ValueError: not a readable file of a world model, or weights that do not fit its configuration.
    """
    weights, entries = load_artifact(path, kind="worldmodel")
    unknown = sorted(entries.keys() - {field.name for field in fields(WorldModelConfig)})
    if unknown:
        raise ValueError(f"{path} configures {', '.join(unknown)}, unknown to this version; train it again")
    try:
        config = WorldModelConfig(**entries)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a configuration that cannot be ({error}); train it again") from error
    with torch.device("meta"):
        model = WorldModel(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if expected != found:
        wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{path} does not hold the weights its configuration describes "
            f"({', '.join(wrong[:3])}{more}); train it again"
        )
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(True).eval()

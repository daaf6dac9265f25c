"""A quantizer as one safetensors file that needs nothing else."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from hrvq._artifact import load_artifact, save_artifact
from hrvq._config import HRVQConfig

if TYPE_CHECKING:
    from hrvq._state import Codes

Q = TypeVar("Q", bound="Codes")

_LEVEL_TENSORS = ("codebooks", "counts", "sums")  # the fields of a Level, as files name them


def save(quantizer: "Codes", path: str | Path) -> None:
    """Codes, counts and sums of each level, the number of steps, and the config."""
    save_artifact(path, _tensors(quantizer), kind="hrvq", config=asdict(quantizer.config))


def load(cls: type[Q], path: str | Path) -> Q:
    """A quantizer of class ``cls`` from what :func:`save` wrote.

    Raises:
        ValueError: the file is missing, damaged, of another kind, or its parts do not fit together.
    """
    tensors, config = load_artifact(path, kind="hrvq")
    try:
        quantizer = cls(HRVQConfig.from_dict(config))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a quantizer's config: {error}") from error
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    expected = {name: tensor.shape for name, tensor in _tensors(quantizer).items()}
    wrong = sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n))
    if wrong:
        raise ValueError(f"{path} is damaged: its tensors {wrong} do not fit its config; write it again")
    damaged = sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
    if damaged:
        raise ValueError(f"{path} is damaged: {damaged} have NaN or infinite values; write it again")
    for index, level in enumerate(quantizer._levels()):
        for name, part in zip(_LEVEL_TENSORS, level, strict=True):
            part.copy_(tensors[f"{name}.{index}"])
    quantizer.set_extra_state(tensors["steps"])
    return quantizer


def _tensors(quantizer: "Codes") -> dict[str, Tensor]:
    tensors = {"steps": quantizer.get_extra_state()}
    for index, level in enumerate(quantizer._levels()):
        for name, part in zip(_LEVEL_TENSORS, level, strict=True):
            tensors[f"{name}.{index}"] = part.clone()  # safetensors refuses views of one storage
    return tensors

"""Conversion between the weights of a module and those of a file."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def plain_weights(module: nn.Module, kind: type[nn.Module]) -> dict[str, Tensor]:
    """The weights in float32, under the names they have in a module that is not compiled.

    Raises:
        ValueError: the module is not of this kind, but for example an objective that contains one, or its
            weights are not finite, so that they could not be read again.
    """
    if not isinstance(getattr(module, "_orig_mod", module), kind):
        raise ValueError(f"a {type(module).__name__} was given to be saved; give its {kind.__name__}")
    weights = {name.replace("_orig_mod.", ""): t.float() for name, t in module.state_dict().items()}
    if infinite := sorted(name for name, tensor in weights.items() if not tensor.isfinite().all()):
        raise ValueError(f"{infinite[0]} of the {kind.__name__} holds NaN or infinity; nothing was written")
    return weights


def with_weights(path: str | Path, make: Callable[[], M], tensors: dict[str, Tensor]) -> M:
    """The module that ``make`` builds, with a file's weights, in float32, on the CPU and in eval mode.

    Raises:
        ValueError: no module can be made from the settings, or the weights do not match that module or are
            not finite.
    """
    try:
        # The weights come from the file, so making the module must not advance the program's random numbers
        # or depend on its default device. Parameters made in inference mode could not be trained later.
        with torch.inference_mode(False), torch.device("cpu"), torch.random.fork_rng(devices=[]):
            module = make().float()  # whatever the program's default dtype is
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} has settings that this version does not understand ({error}); write it again"
        ) from error
    expected = {name: t.shape for name, t in module.state_dict().items()}
    found = {name: t.shape for name, t in tensors.items()}
    wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{path} does not hold the weights its settings describe "
            f"({', '.join(wrong[:3])}{more}); write it again"
        )
    if infinite := sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all()):
        raise ValueError(f"{path} holds NaN or infinite weights ({infinite[0]}); write it again")
    module.load_state_dict(tensors)
    return module.eval()

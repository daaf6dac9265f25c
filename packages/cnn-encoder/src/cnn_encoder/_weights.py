"""Between the weights of a module and those of a file."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def plain_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights in float32, by the names they have in a module that is not compiled."""
    return {name.removeprefix("_orig_mod."): t.float() for name, t in module.state_dict().items()}


def with_weights(path: str | Path, make: Callable[[], M], tensors: dict[str, Tensor]) -> M:
    """What ``make`` makes, with the weights of a file, on the CPU and in eval mode.

    Raises:
        ValueError: they do not fit each other.
    """
    try:
        with torch.device("meta"):  # draws nothing: the weights come from the file
            module = make()
        module.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} holds weights or settings that do not fit ({reason}); write it again"
        ) from error
    return module.eval()

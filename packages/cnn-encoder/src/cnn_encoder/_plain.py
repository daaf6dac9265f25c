"""For functions that train a model of their own, which must not depend on the modes they are called in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_training(device: torch.device) -> Iterator[None]:
    """Gradients in the tensors' own precision, whatever no_grad, inference mode or autocast surrounds them.

    Under a caller's autocast a network would never learn: as long as it lasts, autocast keeps using the
    weights as it first cast them.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield

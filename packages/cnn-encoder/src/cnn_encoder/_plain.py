"""A function that trains something of its own must not depend on the modes it is called under."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_training(device: torch.device) -> Iterator[None]:
    """Gradients, in the tensors' own precision, whatever no_grad, inference mode or autocast is around.

    Under a caller's autocast a network would never learn: autocast keeps using the weights as it first cast
    them, for as long as it lasts.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield

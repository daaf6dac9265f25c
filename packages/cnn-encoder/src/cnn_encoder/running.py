"""A running mean, for what scales a target by statistics of the batches so far."""

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """The exponentially weighted mean of the tensors seen so far.

    As in batch normalisation, it is updated by every call in training mode; before the first one the mean is
    whatever is given.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, *shape: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("total", torch.zeros(shape))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def forward(self, here: Tensor) -> Tensor:
        """float32 of the mean's shape -> the mean, this one counted if training."""
        if self.training:
            self.total.lerp_(here, 1 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        # torch.where, not an `if`: asking a GPU for the weight would wait for it.
        return torch.where(self.weight > 0, self.total / self.weight, here)

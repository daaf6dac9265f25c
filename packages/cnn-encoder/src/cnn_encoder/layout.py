"""The layout of a frame: its blurred foreground, in equal parts for large and small things."""

import math

import torch
from torch import Tensor, nn

from .encoder import FRAME_SIZE, center_frames


def low_frequencies(frames: Tensor, background: Tensor, num_frequencies: int) -> Tensor:
    """The lowest spatial frequencies of the foreground, by the two-dimensional DCT-II.

        c_kl = sum_yx cos(pi k (y + 1/2) / 84) cos(pi l (x + 1/2) / 84) (frame - background)_yx / 255

    Args:
        frames: uint8 or float (..., 84, 84).
        background: float (84, 84) or (..., 84, 84).
        num_frequencies: K, along each axis.

    Returns:
        float32 (..., K * K). Each moves smoothly with the position of every object, which raw pixels do not.
    """
    with torch.autocast(frames.device.type, enabled=False):
        center = (torch.arange(FRAME_SIZE, device=frames.device) + 0.5) / FRAME_SIZE
        frequency = torch.arange(num_frequencies, device=frames.device)
        basis = torch.cos(math.pi * frequency[:, None] * center)  # (K, 84)
        foreground = center_frames(frames.unsqueeze(-3), background, torch.float32).squeeze(-3)
        return (basis @ foreground @ basis.mT).flatten(-2)


class RunningWhitening(nn.Module):
    """Scales vectors so that every direction has the same mean square, by a running second moment.

    The vectors are taken to have mean zero. As in batch normalisation, the moment is updated by every call
    in training mode; before the first one the vectors' own is used. Directions weaker than ``floor``
    times the average are not raised to full size.
    """

    moment: Tensor
    weight: Tensor

    def __init__(self, dim: int, *, decay: float = 0.99, floor: float = 0.01) -> None:
        super().__init__()
        self.decay = decay
        self.floor = floor
        self.register_buffer("moment", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 (..., dim) -> (..., dim); no gradient flows through it."""
        with torch.autocast(x.device.type, enabled=False):
            rows = x.flatten(0, -2).float()
            here = rows.mT @ rows / len(rows)
            if self.training:
                self.moment.lerp_(here, 1 - self.decay)
                self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
            moment = torch.where(self.weight > 0, self.moment / self.weight, here)
            ridge = self.floor * moment.diagonal().mean() + 1e-12
            # cholesky_ex, because cholesky would make a GPU wait to report an error that the ridge rules out.
            factor = torch.linalg.cholesky_ex(moment + ridge * torch.eye(len(moment), device=x.device)).L
            return torch.linalg.solve_triangular(factor, rows.mT, upper=False).mT.unflatten(0, x.shape[:-1])

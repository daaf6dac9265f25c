"""Modules that scale targets by running statistics of the batches so far."""

import torch
from torch import Tensor, nn


class RunningMean(nn.Module):
    """The exponentially weighted mean of the tensors seen so far.

    As in batch normalisation, every call in training mode updates it; before the first update the mean is
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
        """float32 of the mean's shape -> the mean, which in training mode includes ``here``."""
        if self.training:
            self.total.lerp_(here, 1 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        # torch.where, not an `if`: reading the weight would wait for a GPU.
        return torch.where(self.weight > 0, self.total / self.weight, here)


class RunningWhitening(nn.Module):
    """Centres vectors and scales them so that every direction has the same variance, by running statistics
    (`RunningMean`).

    Directions with less than ``floor`` times the average variance are not scaled up fully.
    """

    def __init__(self, dim: int, *, decay: float = 0.99, floor: float = 0.01) -> None:
        super().__init__()
        self.floor = floor
        self.mean = RunningMean(dim, decay=decay)
        self.moment = RunningMean(dim, dim, decay=decay)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 (..., dim) -> (..., dim); no gradient flows through it."""
        with torch.autocast(x.device.type, enabled=False):
            rows = x.flatten(0, -2).float()
            mean = self.mean(rows.mean(0))
            covariance = self.moment(rows.mT @ rows / len(rows)) - mean.outer(mean)
            ridge = self.floor * covariance.diagonal().mean() + 1e-12
            # cholesky_ex, because cholesky would wait for a GPU to report an error, which the ridge rules out
            # unless the mean is hundreds of times the spread.
            factor = torch.linalg.cholesky_ex(
                covariance + ridge * torch.eye(len(covariance), device=x.device)
            ).L
            centered = (rows - mean).mT
            return torch.linalg.solve_triangular(factor, centered, upper=False).mT.unflatten(0, x.shape[:-1])


class RunningScale(nn.Module):
    """Centres every column and divides it by its standard deviation plus ``floor``, by running statistics
    (`RunningMean`).

    A column that hardly varies stays near zero, and none exceeds +-``limit``, so that what is seen for the
    first time does not dominate the rest.
    """

    def __init__(self, dim: int, *, decay: float = 0.98, floor: float = 0.1, limit: float = 10.0) -> None:
        super().__init__()
        self.floor = floor
        self.limit = limit
        self.mean = RunningMean(dim, decay=decay)
        self.square = RunningMean(dim, decay=decay)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 (..., dim) -> (..., dim); no gradient flows through it."""
        rows = x.flatten(0, -2)
        mean, square = self.mean(rows.mean(0)), self.square(rows.square().mean(0))
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        return ((x - mean) / (deviation + self.floor)).clamp_(-self.limit, self.limit)

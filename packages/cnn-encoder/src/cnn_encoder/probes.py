"""Probes: how much of the state can be read from a representation, on episodes not trained on."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._checks import require_number, require_whole
from ._plain import plain_training
from .encoder import as_tensor
from .initialization import initialize

_CHUNK = 8192  # rows held in float64 at a time
_WARMUP = 0.1 + 1e-9  # share of all steps; with exactly 0.1 of 10 steps OneCycleLR divides by zero


class ProbeData(NamedTuple):
    """Features and labels, row for row, as tensors or arrays."""

    features: Tensor  # (N, F): any representation, float or uint8
    labels: Tensor  # (N, V) state variables, in their own units
    mask: Tensor | None = None  # (N, V) bool: where the variable's object is in play; None: everywhere


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeScore:
    """How well V variables are read, in order; nan where a variable is never in play."""

    r2: tuple[float, ...]  # 1 - squared error / variance, on the test rows in play; nan if it is constant
    mean_error: tuple[float, ...]  # mean absolute error, in the label's own units


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPProbeConfig:
    """Training settings of `mlp_probe`."""

    hidden_dim: int = 256
    num_steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole(self, "hidden_dim", "num_steps", "batch_size")
        require_whole(self, "seed", least=0)
        require_number(self, "learning_rate", zero=False)
        require_number(self, "weight_decay")


def linear_probe(train: ProbeData, test: ProbeData, *, ridge: float = 1e-3) -> ProbeScore:
    """Ridge regression in closed form, on the rows where a variable is in play.

    ``ridge`` is relative to the mean variance of the features, so that their scale does not matter.

    Raises:
        ValueError: ``ridge`` is below 0 or not finite, or the data do not match each other.
    """
    if not 0 <= ridge < math.inf:
        raise ValueError(f"ridge is {ridge}; give a finite number of at least 0")
    train, test = _checked(train, test)
    moments = _moments(train.features)
    mask = _mask(train)
    patterns, group = mask.unique(dim=1, return_inverse=True)  # variables in play together share one solve
    labels = train.labels.double()
    cross = _products(train.features, moments, labels.masked_fill(~mask, 0.0))
    whole = _products(train.features, moments)
    weight = torch.empty_like(cross)
    for i, rows in enumerate(patterns.unbind(1)):
        columns = (group == i).nonzero().squeeze(1)
        weight[:, columns] = _ridge(train.features, moments, rows, whole, cross[:, columns], ridge)
    parts = [_affine(part, moments) @ weight for part in test.features.split(_CHUNK)]
    return score(torch.cat(parts), test)


def _ridge(
    features: Tensor,
    moments: tuple[Tensor, Tensor],
    rows: Tensor,
    whole: Tensor,
    cross: Tensor,
    ridge: float,
) -> Tensor:
    """Weights (F + 1, C) for the chosen rows, from the normal equations; the intercept is not penalised."""
    count = int(rows.sum())
    if count == 0:
        return torch.full_like(cross, torch.nan)
    if 2 * count > len(rows):  # all rows minus the few others
        gram = whole - _products(features[~rows], moments)
    else:
        gram = _products(features[rows], moments)
    penalty = torch.full((len(gram),), ridge * count + 1e-9, dtype=torch.float64, device=gram.device)
    penalty[-1] = 1e-9
    return torch.linalg.solve(gram + penalty.diag(), cross)


def _products(features: Tensor, moments: tuple[Tensor, Tensor], labels: Tensor | None = None) -> Tensor:
    """Sum over the rows of x y^T, float64 (F + 1, V), for labels y (N, V); without labels, of x x^T."""
    width = features.shape[1] + 1
    columns = width if labels is None else labels.shape[1]
    total = torch.zeros(width, columns, dtype=torch.float64, device=features.device)
    for start in range(0, len(features), _CHUNK):
        rows = slice(start, start + _CHUNK)
        x = _affine(features[rows], moments)
        total.addmm_(x.mT, x if labels is None else labels[rows])
    return total


def _affine(features: Tensor, moments: tuple[Tensor, Tensor]) -> Tensor:
    """Standardised features with a column of ones: (B, F) -> float64 (B, F + 1)."""
    mean, scale = moments
    return F.pad((features.float() - mean) / scale, (0, 1), value=1.0).double()


@dataclass(frozen=True, slots=True, eq=False)
class MLPProbe:
    """A trained probe, made by `train_mlp_probe`."""

    network: nn.Module  # standardised features (B, F) -> standardised variables (B, V)
    features: tuple[Tensor, Tensor]  # mean (F,) and scale () of the features it was trained on
    labels: tuple[Tensor, Tensor]  # mean and standard deviation, (V,) each; mean nan where never in play

    @torch.no_grad()
    def read(self, features: Tensor) -> Tensor:
        """Variables in their own units: (..., F) -> float32 (..., V), nan for one that was never in play.

        Raises:
            ValueError: the features have another width than those it was trained on.
        """
        (mean, scale), (label_mean, label_std) = self.features, self.labels
        if features.shape[-1:] != mean.shape:
            raise ValueError(f"features are {tuple(features.shape)}; the probe reads (..., {len(mean)})")
        parts = features.reshape(-1, features.shape[-1]).split(_CHUNK)
        with torch.autocast(features.device.type, enabled=False):
            found = torch.cat([self.network((part.float() - mean) / scale) for part in parts])
        return (found * label_std + label_mean).reshape(*features.shape[:-1], len(label_mean))


def mlp_probe(train: ProbeData, test: ProbeData, config: MLPProbeConfig | None = None) -> ProbeScore:
    """How well `train_mlp_probe` reads rows that it was not trained on."""
    train, test = _checked(train, test)
    return score(train_mlp_probe(train, config).read(test.features), test)


def train_mlp_probe(train: ProbeData, config: MLPProbeConfig | None = None) -> MLPProbe:
    """Train one network with two hidden layers for all variables, on standardised labels where in play.

    Raises:
        ValueError: features, labels and mask do not have the same rows, there are none, or a value that
            counts is not finite.
    """
    train = _rows_checked(train, "train")
    with plain_training(train.features.device):
        return _fit(train, config or MLPProbeConfig())


def _fit(train: ProbeData, config: MLPProbeConfig) -> MLPProbe:
    device = train.features.device
    generator = torch.Generator().manual_seed(config.seed)
    mean, scale = _moments(train.features)
    mask = _mask(train)
    labels = train.labels.float().masked_fill(~mask, 0.0)  # what does not count may be anything, even NaN
    label_mean, label_std = label_moments(labels, mask)
    label_std = label_std.clamp(min=1e-6)
    target = (labels - label_mean) / label_std

    f, h, v = train.features.shape[1], config.hidden_dim, labels.shape[1]
    # On the CPU, where the generator draws. The layers first draw weights from PyTorch's global generator,
    # whose state must not change.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        first, second, third = (nn.Linear(*size, dtype=torch.float32) for size in ((f, h), (h, h), (h, v)))
        net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        initialize(net, generator)
    net.to(device)
    optimizer = torch.optim.AdamW(
        net.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps, pct_start=_WARMUP
    )
    for _ in range(config.num_steps):
        rows = torch.randint(len(labels), (config.batch_size,), generator=generator, device="cpu").to(device)
        predicted = net((train.features[rows].float() - mean) / scale)
        error = (F.smooth_l1_loss(predicted, target[rows], reduction="none") * mask[rows]).sum(0)
        loss = (error / mask[rows].sum(0).clamp(min=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    never = torch.where(mask.any(0), 0.0, torch.nan)
    return MLPProbe(net, (mean, scale), (label_mean + never, label_std))


def label_moments(labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each variable where it is in play, (V,) each.

    Args:
        labels: float32 (N, V), 0 where they do not count.
        mask: bool (N, V).

    Returns:
        float32, computed in float64: with the rounding of a float32 mean a constant would seem to vary.
    """
    count, exact = mask.sum(0).clamp(min=1), labels.double()
    mean = exact.sum(0) / count
    return mean.float(), (((exact - mean).square() * mask).sum(0) / count).sqrt().float()


def score(predicted: Tensor, data: ProbeData) -> ProbeScore:
    """R2 and mean absolute error of predictions (N, V) on the rows where each variable is in play."""
    r2, mean_error = [], []
    predicted, mask = predicted.to(data.labels.device), _mask(data)
    for v, rows in enumerate(mask.unbind(1)):
        y, y_hat = data.labels[rows, v].double(), predicted[rows, v].double()
        total = (y - y.mean()).square().sum()
        error = y - y_hat
        varies = bool((y != y[:1]).any())  # not total > 0, which a rounded mean can cause
        r2.append((1 - error.square().sum() / total).item() if varies else float("nan"))
        mean_error.append(error.abs().mean().item() if len(y) else float("nan"))
    return ProbeScore(r2=tuple(r2), mean_error=tuple(mean_error))


def _checked(train: ProbeData, test: ProbeData) -> tuple[ProbeData, ProbeData]:
    """Return both, checked to match each other.

    Raises:
        ValueError: features, labels and mask do not have the same rows, there are none, a value that counts
            is not finite, or the two differ in the width of their features or labels.
    """
    train, test = _rows_checked(train, "train"), _rows_checked(test, "test")
    for part in ("features", "labels"):
        widths = getattr(train, part).shape[1], getattr(test, part).shape[1]
        if widths[0] != widths[1]:
            raise ValueError(
                f"the train {part} have {widths[0]} columns and the test {part} {widths[1]}; give as many"
            )
    return train, test


def _rows_checked(data: ProbeData, name: str) -> ProbeData:
    features, labels = as_tensor(data.features), as_tensor(data.labels)
    mask = None if data.mask is None else as_tensor(data.mask)
    shapes = [tuple(part.shape) for part in (features, labels)]
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels) or not len(features):
        raise ValueError(
            f"the {name} features are {shapes[0]} and the labels {shapes[1]}; give (N, F) and (N, V), row "
            "for row, N at least 1"
        )
    if not bool(features.float().isfinite().all()):
        raise ValueError(f"the {name} features hold NaN or infinity in float32; leave such rows out")
    if mask is not None and (mask.shape != labels.shape or mask.dtype != torch.bool):
        raise ValueError(
            f"the {name} mask is {mask.dtype} {tuple(mask.shape)}; give a torch.bool tensor {shapes[1]}"
        )
    # Detached: a probe sends no gradient into what it probes.
    data = ProbeData(
        features.detach(),
        labels.detach().to(features.device),
        None if mask is None else mask.to(features.device),
    )
    unknown = (_mask(data) & ~data.labels.isfinite()).any(0)
    if bool(unknown.any()):
        column = int(unknown.int().argmax())
        raise ValueError(
            f"the {name} labels hold NaN or infinity in column {column}; leave such rows out, or give a mask "
            "that is false there"
        )
    return data


def _mask(data: ProbeData) -> Tensor:
    return torch.ones_like(data.labels, dtype=torch.bool) if data.mask is None else data.mask


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and one scale for all features: relative variances are part of the representation."""
    sample = features[:: max(1, len(features) // 20_000)].double()  # the squares of float32 may not fit
    variance = sample.var(0, correction=min(1, len(sample) - 1))  # one row: 0, not nan
    scale = variance.mean().sqrt()
    return sample.mean(0).float(), torch.where(scale > 0, scale, 1.0).float()

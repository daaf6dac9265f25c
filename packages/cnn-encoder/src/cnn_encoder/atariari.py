"""The AtariARI probe protocol (Anand et al. 2019, section 5): a linear softmax per variable, weighted F1."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ._checks import require_number, require_whole
from ._plain import plain_training
from .encoder import as_tensor
from .variables import category

NUM_CLASSES = 256
_CHUNK = 8192  # rows of logits held at a time


class LabelledFeatures(NamedTuple):
    """Features and raw RAM values of the same frames, as tensors or arrays."""

    features: Tensor  # (N, F) float
    labels: Tensor  # (N, V) integers 0..255


@dataclass(frozen=True, kw_only=True, slots=True)
class AtariARIConfig:
    """The protocol's thresholds, and how its probes are trained."""

    min_entropy: float = 0.6  # nats; variables below it are dropped
    learning_rate: float = 3e-3
    batch_size: int = 512
    max_epochs: int = 30
    patience: int = 5  # epochs without a better validation loss
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole(self, "batch_size", "max_epochs", "patience")
        require_whole(self, "seed", least=0)
        require_number(self, "learning_rate", zero=False)
        require_number(self, "min_entropy")


@dataclass(frozen=True, kw_only=True, slots=True)
class AtariARIScore:
    """Weighted F1 of each variable that was kept, the means by category, and the mean of those."""

    variables: dict[str, float]
    categories: dict[str, float]
    mean: float
    dropped: tuple[str, ...]  # variables below the entropy threshold


def atariari_probe(
    train: LabelledFeatures,
    validation: LabelledFeatures,
    test: LabelledFeatures,
    names: Sequence[str],
    config: AtariARIConfig | None = None,
) -> AtariARIScore:
    """Train a 256-way linear softmax for every variable and score it by weighted F1 on ``test``.

    Split frames by episode (the paper: 70/10/20), and pass test frames through `unseen_frames` first.
    The features are whitened, which keeps the probe linear. The layers of all variables are trained in
    parallel with Adam, each stopped at its own best validation loss; they share only the batches.

    Raises:
        ValueError: names, features and labels do not match, a name occurs twice, a part is empty, or no
            variable reaches the minimum entropy.
    """
    config = config or AtariARIConfig()
    if len(set(names)) != len(names):
        raise ValueError(f"names are {', '.join(names)}; give each name once")
    train, validation, test = (
        LabelledFeatures(as_tensor(data.features), as_tensor(data.labels))
        for data in (train, validation, test)
    )
    width = train.features.shape[-1]
    for part, data in (("train", train), ("validation", validation), ("test", test)):
        if data.labels.shape[1:] != (len(names),) or data.features.shape[1:] != (width,):
            raise ValueError(
                f"{part} features are {tuple(data.features.shape)} and labels {tuple(data.labels.shape)}; "
                f"expected (N, {width}) and, with {len(names)} names, (N, {len(names)})"
            )
        if len(data.features) != len(data.labels) or not len(data.labels):
            raise ValueError(
                f"{len(data.features)} {part} features for {len(data.labels)} labels; "
                "give equally many, at least one"
            )
        if not bool(data.features.isfinite().all()):
            raise ValueError(f"{part} features hold NaN or infinity; leave such rows out")
        if data.labels.is_floating_point() or data.labels.is_complex():
            raise ValueError(f"{part} labels are {data.labels.dtype}; give bytes of the RAM, as integers")
        lowest, highest = int(data.labels.min()), int(data.labels.max())
        if not 0 <= lowest <= highest < NUM_CLASSES:
            raise ValueError(
                f"{part} labels go from {lowest} to {highest}; give bytes of the RAM, 0 to {NUM_CLASSES - 1}"
            )
    kept = [v for v in range(len(names)) if entropy(train.labels[:, v]) >= config.min_entropy]
    if not kept:
        raise ValueError(f"no variable has an entropy of {config.min_entropy} nats; lower min_entropy")
    train, validation, test = (
        LabelledFeatures(data.features.detach().float(), data.labels[:, kept].to(data.features.device).long())
        for data in (train, validation, test)
    )
    with plain_training(train.features.device):
        white = _Whitening(train.features)
        weight, bias = _fit(
            white(train.features), train.labels, white(validation.features), validation.labels, config
        )
        parts = (white(part) @ weight + bias for part in test.features.split(_CHUNK))
        predicted = torch.cat([part.unflatten(1, (len(kept), -1)).argmax(-1) for part in parts])
    scores = {names[v]: weighted_f1(predicted[:, i], test.labels[:, i]) for i, v in enumerate(kept)}
    groups: dict[str, list[float]] = {}
    for name, f1 in scores.items():
        groups.setdefault(category(name), []).append(f1)
    categories = {group: sum(values) / len(values) for group, values in groups.items()}
    return AtariARIScore(
        variables=scores,
        categories=categories,
        mean=sum(categories.values()) / len(categories),
        dropped=tuple(name for v, name in enumerate(names) if v not in kept),
    )


def entropy(labels: Tensor) -> float:
    """Entropy in nats of integer labels (N,) of at least 0: -sum_k p_k log p_k. NaN without labels."""
    p = torch.bincount(labels.long(), minlength=NUM_CLASSES).double() / len(labels)
    return -(p * p.clamp(min=1e-300).log()).sum().item()


def weighted_f1(predicted: Tensor, labels: Tensor) -> float:
    """F1 of each class, averaged with each class weighted by its share of the labels.

    sum_k  n_k / N  *  2 TP_k / (n_k + m_k),   n_k true and m_k predicted members of class k

    Both are integers (N,) of at least 0. NaN without labels.

    Raises:
        ValueError: there is not one prediction for each label.
    """
    if predicted.shape != labels.shape or labels.ndim != 1:
        raise ValueError(
            f"predicted have shape {tuple(predicted.shape)} and labels {tuple(labels.shape)}; give (N,) each"
        )
    if not len(labels):
        return math.nan
    classes = int(torch.maximum(predicted, labels).max()) + 1
    true = torch.bincount(labels.long(), minlength=classes).double()
    claimed = torch.bincount(predicted.long(), minlength=classes).double()
    hits = torch.bincount(labels.long()[predicted == labels], minlength=classes).double()
    return (true * 2 * hits / (true + claimed).clamp(min=1)).sum().item() / len(labels)


def unseen_frames(train: NDArray[np.uint8], test: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which test frames equal no training frame: uint8 (N, ...) and (M, ...) -> bool (M,).

    Raises:
        ValueError: the frames of the two differ in type or shape.
    """
    if train.dtype != test.dtype or train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"train frames are {train.dtype} {train.shape[1:]} and test frames {test.dtype} "
            f"{test.shape[1:]}; give both alike, or none can be equal"
        )

    def digest(frame: NDArray[np.uint8]) -> bytes:  # a copy of all training frames would not fit
        return hashlib.blake2b(frame.tobytes(), digest_size=16).digest()

    seen = {digest(frame) for frame in train}
    return np.array([digest(frame) not in seen for frame in test], dtype=bool)


class _Whitening:
    """A linear map that gives features mean 0 and every direction a variance of about 1.

    A linear probe of the result is a linear probe of the features; only its training differs: where a few
    directions hold nearly all the variance, gradient descent would take thousands of epochs to use the
    others. Directions with less than ``floor`` times the largest variance are not scaled up to 1, because
    they are noise.
    """

    def __init__(self, features: Tensor, *, floor: float = 1e-4) -> None:
        # In parts: all at once in float64, the features of all play would take several times the memory.
        parts, width = features.split(_CHUNK), features.shape[1]
        self.mean = torch.stack([part.sum(0, dtype=torch.float64) for part in parts]).sum(0) / len(features)
        gram = torch.zeros(width, width, dtype=torch.float64, device=features.device)
        for part in parts:
            centred = part.double() - self.mean
            gram.addmm_(centred.mT, centred)
        variances, directions = torch.linalg.eigh(gram / len(features))
        smallest = floor * variances.max().clamp(min=1e-12)
        self.matrix = directions * (variances + smallest).rsqrt()

    def __call__(self, features: Tensor) -> Tensor:
        """float (N, F) -> float32 (N, F)."""
        white = torch.empty(features.shape, device=features.device)
        for into, part in zip(white.split(_CHUNK), features.split(_CHUNK), strict=True):
            into.copy_((part.double() - self.mean) @ self.matrix)
        return white


def _fit(
    x: Tensor, labels: Tensor, x_validation: Tensor, labels_validation: Tensor, config: AtariARIConfig
) -> tuple[Tensor, Tensor]:
    """Weight (F, V*256) and bias (V*256) of V linear layers, each at its best epoch."""
    generator = torch.Generator().manual_seed(config.seed)
    num_variables, device = labels.shape[1], x.device
    weight = torch.zeros(x.shape[1], num_variables, NUM_CLASSES, device=device, requires_grad=True)
    bias = torch.zeros(num_variables, NUM_CLASSES, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], config.learning_rate, fused=True)
    best = torch.full((num_variables,), torch.inf, device=device)
    waited = torch.zeros(num_variables, device=device)
    best_weight, best_bias = weight.detach().clone(), bias.detach().clone()

    def losses(rows: Tensor, true: Tensor) -> Tensor:  # (B, V)
        logits = (rows @ weight.flatten(1)).unflatten(1, (num_variables, NUM_CLASSES)) + bias
        return F.cross_entropy(logits.movedim(1, -1), true, reduction="none")

    for _ in range(config.max_epochs):
        order = torch.randperm(len(x), generator=generator, device="cpu").to(device)
        for rows in order.split(config.batch_size):
            optimizer.zero_grad()
            losses(x[rows], labels[rows]).mean(0).sum().backward()
            optimizer.step()
        with torch.no_grad():
            parts = zip(x_validation.split(_CHUNK), labels_validation.split(_CHUNK), strict=True)
            now = torch.stack([losses(*part).sum(0) for part in parts]).sum(0) / len(x_validation)
            better = (now < best) & (waited < config.patience)
            best_weight = torch.where(better[:, None], weight, best_weight)
            best_bias = torch.where(better[:, None], bias, best_bias)
            best = torch.where(better, now, best)
            waited = torch.where(better, torch.zeros_like(waited), waited + 1)
        if bool((waited >= config.patience).all()):
            break
    return best_weight.flatten(1), best_bias.flatten()

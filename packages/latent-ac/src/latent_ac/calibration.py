"""Do predicted probabilities mean what they say? Recall, precision and calibration error, class by class."""

from typing import NamedTuple

import torch
from torch import Tensor


class Calibration(NamedTuple):
    """Quality of a classifier's probabilities on N examples of C classes; NaN where undefined."""

    recall: Tensor  # (C,) share of the examples of class c whose most probable class is c
    precision: Tensor  # (C,) share of the examples called c that are of class c
    class_ece: Tensor  # (C,) expected calibration error of each class's probability
    ece: Tensor  # 0-d, expected calibration error of the most probable class
    confusion: Tensor  # (C, C) counts, true class by called class


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Int64 (N,) as float64 (N, C)."""
    return (labels.unsqueeze(-1) == torch.arange(num_classes, device=labels.device)).double()


def confusion_matrix(called: Tensor, shares: Tensor) -> Tensor:
    """Counts, float32 (C, C), by true and by called (predicted) class.

    Args:
        called: int64 (N,).
        shares: of each example in the true classes, (N, C): one-hot unless it lies between two.
    """
    # A product of one-hots: unlike bincount, deterministic on CUDA and without synchronisation.
    return (shares.double().T @ one_hot(called, shares.shape[-1])).float()


def recall_and_precision(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Recall and precision of each class, (C, C) -> (C,) twice; 0/0 is NaN."""
    hits = confusion.diagonal()
    return hits / confusion.sum(1), hits / confusion.sum(0)


def expected_calibration_error(confidence: Tensor, correct: Tensor, num_bins: int = 15) -> Tensor:
    """sum_b (n_b / N) |mean confidence in b - share correct in b| over equal bins of [0, 1], 0-d.

    Naeini et al., 2015; Guo et al., 2017 (https://arxiv.org/abs/1706.04599, eq. 3). Both inputs are (N,);
    without examples it is NaN.

    Raises:
        ValueError: the shapes do not fit, or there is no bin.
    """
    if confidence.ndim != 1 or correct.shape != confidence.shape or num_bins < 1:
        raise ValueError(
            f"confidence {tuple(confidence.shape)}, correct {tuple(correct.shape)} and num_bins={num_bins} "
            "do not fit; give (N,) twice and 1 bin or more"
        )
    bins = torch.arange(num_bins, device=confidence.device)
    index = (confidence * num_bins).long().clamp_(0, num_bins - 1)
    member = (index.unsqueeze(-1) == bins).double()
    gap = (confidence.double() - correct.double()) @ member
    return (gap.abs().sum() / len(confidence)).float()


def calibration(probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> Calibration:
    """Measure probabilities (N, C) against the true classes, int64 (N,).

    With classes as rare as a point in Pong the error of the most probable class says little: it reflects the
    common class alone. ``class_ece`` looks at each class's own probability (Nixon et al., 2019,
    https://arxiv.org/abs/1904.01685).

    Raises:
        ValueError: the shapes do not fit, or a label is not a class.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"probabilities {tuple(probabilities.shape)} and labels {tuple(labels.shape)} do not fit; "
            "give (N, C) and (N,)"
        )
    num_classes = probabilities.shape[1]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels range from {int(labels.min())} to {int(labels.max())}; give 0 to {num_classes - 1}"
        )
    confidence, called = probabilities.max(-1)
    confusion = confusion_matrix(called, one_hot(labels, num_classes))
    recall, precision = recall_and_precision(confusion)
    class_ece = torch.stack(
        [expected_calibration_error(probabilities[:, c], labels == c, num_bins) for c in range(num_classes)]
    )
    ece = expected_calibration_error(confidence, called == labels, num_bins)
    return Calibration(recall, precision, class_ece, ece, confusion)

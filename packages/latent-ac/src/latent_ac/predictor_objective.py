"""Training and measuring the reward and continue predictors on real transitions."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor, nn

from latent_ac._checks import number, require
from latent_ac.calibration import calibration, confusion_matrix, recall_and_precision
from latent_ac.features import Features
from latent_ac.predictors import ContinuePredictor, RewardPredictor, TransitionPredictor


@dataclass(frozen=True, slots=True)
class TransitionBatch:
    """Real transitions; leading dimensions (...) are free, for instance (N,) or (T, B)."""

    features: Features  # (..., F), the state in which the action was chosen
    next_features: Features  # (..., F), the state it led to
    actions: Tensor  # int64 (...)
    rewards: Tensor  # float32 (...), raw
    continues: Tensor  # float32 or bool (...), 0 where the episode ended by its own rules, else 1

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class PredictorObjective(nn.Module):
    """objective(batch) -> (loss, metrics): reward and continue cross-entropy, with rare classes weighted up.

    Class frequencies, and the confusion behind the metrics ``*_recall_*`` and ``*_precision_*``, are moving
    averages over recent batches, committed by ``after_step``. A target between the points of two classes
    counts in both by its shares, as in the loss. Recall of a class not yet seen, or
    precision of one never predicted, is NaN.

    Args:
        reward: the reward predictor to train.
        continue_: the continue predictor to train.
        decay: share of the moving averages kept at each step.
    """

    def __init__(
        self, reward: RewardPredictor, continue_: ContinuePredictor, *, decay: float = 0.995
    ) -> None:
        super().__init__()
        require(0 <= number(decay) < 1, "decay", decay, "a number from 0 to below 1")
        self.reward = reward
        self.continue_ = continue_
        self.decay = decay
        self.register_buffer("reward_confusion", torch.zeros(3, 3))
        self.register_buffer("continue_confusion", torch.zeros(2, 2))
        self._pending: dict[str, Tensor] = {}

    def forward(self, batch: TransitionBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, 0-d, and metrics, 0-d each, on one batch.

        Raises:
            ValueError: the parts of the batch do not fit, or (checked on a CPU only) its actions, rewards
                or continues are not valid.
        """
        _check(batch)
        loss = torch.zeros((), device=batch.actions.device)
        metrics: dict[str, Tensor] = {}
        for name, predictor, targets in (
            ("reward", self.reward, batch.rewards),
            ("continue", self.continue_, batch.continues.float()),
        ):
            logits = predictor.logits(batch.features, batch.actions, batch.next_features)
            part = predictor.loss(logits, targets).mean()
            loss = loss + part
            metrics[f"{name}_loss"] = part.detach()
            metrics |= self._watch(name, predictor, logits.detach(), targets)
        return loss, metrics

    @torch.no_grad()
    def _watch(
        self, name: str, predictor: TransitionPredictor, logits: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        called = predictor.class_probabilities(logits).argmax(-1)
        counts = confusion_matrix(called.flatten(), predictor.class_shares(targets).flatten(0, -2))
        confusion = self.decay * self.get_buffer(f"{name}_confusion") + counts
        if self.training:  # in eval mode a batch is only looked at, and must not be committed
            self._pending[name] = confusion
        recall, precision = recall_and_precision(confusion)
        metrics = {f"{name}_accuracy": counts.diagonal().sum() / counts.sum()}
        for index, label in enumerate(predictor.class_names):
            metrics[f"{name}_recall_{label}"] = recall[index]
            metrics[f"{name}_precision_{label}"] = precision[index]
        return metrics

    @torch.no_grad()
    def after_step(self) -> None:
        """Commit the moving averages of the last batch and set the class weights from them."""
        for name, predictor in (("reward", self.reward), ("continue", self.continue_)):
            if name in self._pending:
                confusion = self._pending.pop(name)
                self.get_buffer(f"{name}_confusion").copy_(confusion)
                # Plus one example of every class, so that a class not yet seen has a finite weight.
                predictor.set_class_frequencies(confusion.sum(1) + 1)


@torch.no_grad()
def evaluate_predictors(
    reward: RewardPredictor, continue_: ContinuePredictor, batches: Iterable[TransitionBatch]
) -> dict[str, float]:
    """Calibration of both predictors over all transitions of ``batches``.

    For each: recall, precision, expected calibration error and count of every class, the overall calibration
    error, and the bias, the mean prediction minus the mean truth (of signs for a sign head): with a positive
    reward bias dreams are too optimistic. A recall or precision of 0/0 is NaN. To a two-hot head a reward
    is zero if it is nearer to 0 than to the first bin next to it.

    Raises:
        ValueError: there are no batches, or one that ``PredictorObjective`` would reject.
    """
    seen: dict[str, list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {"reward": [], "continue": []}
    for batch in batches:
        _check(batch)
        for name, predictor, targets in (
            ("reward", reward, batch.rewards.float()),
            ("continue", continue_, batch.continues.float()),
        ):
            truth = predictor.targets(targets)
            logits = predictor.logits(batch.features, batch.actions, batch.next_features)
            expected = predictor.expected(logits)
            probabilities = predictor.class_probabilities(logits).reshape(-1, predictor.num_classes)
            seen[name].append(
                (probabilities, predictor.classes(targets).flatten(), expected.flatten(), truth.flatten())
            )
    if not seen["reward"]:
        raise ValueError("batches is empty; give at least one batch of transitions")
    report: dict[str, float] = {}
    for name, names in (("reward", reward.class_names), ("continue", continue_.class_names)):
        probabilities, labels, expected, truth = (torch.cat(parts) for parts in zip(*seen[name], strict=True))
        measured = calibration(probabilities, labels)
        report[f"{name}_ece"] = float(measured.ece)
        report[f"{name}_bias"] = float(expected.mean() - truth.mean())
        for index, label in enumerate(names):
            report[f"{name}_recall_{label}"] = float(measured.recall[index])
            report[f"{name}_precision_{label}"] = float(measured.precision[index])
            report[f"{name}_ece_{label}"] = float(measured.class_ece[index])
            report[f"{name}_count_{label}"] = float(measured.confusion[index].sum())
    return report


def _check(batch: TransitionBatch) -> None:
    """Raise ValueError for transitions that are not valid."""
    shape = batch.actions.shape
    leading = [batch.features.shape[:-1], batch.next_features.shape[:-1]]
    if any(other != shape for other in (*leading, batch.rewards.shape, batch.continues.shape)):
        raise ValueError(
            f"the transitions differ: actions {tuple(shape)}, features {tuple(batch.features.shape)}, "
            f"next_features {tuple(batch.next_features.shape)}, rewards {tuple(batch.rewards.shape)}, "
            f"continues {tuple(batch.continues.shape)}; give features (..., F) and the rest (...)"
        )
    if not shape.numel():
        raise ValueError("the batch holds no transitions; give one or more")
    if batch.actions.device.type != "cpu" or torch.compiler.is_compiling():
        return  # on a GPU the check would wait for the device
    if not batch.rewards.isfinite().all():  # the sign of NaN is 0: it would be learned as no reward
        raise ValueError("rewards of the transitions hold NaN or infinity; give finite numbers")
    if not ((batch.continues >= 0) & (batch.continues <= 1)).all():
        raise ValueError("continues of the transitions are not all in [0, 1]; give 0 at an end, else 1")

"""The loss that the world model is trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import WorldModel, after_first
from .sampler import TokenBatch


class WorldModelObjective(nn.Module):
    """The weighted sum of the levels' cross-entropies, with metrics that put it into perspective."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of a batch of windows.

        L0 of a window's first step cannot be predicted from anything, so it has no loss. The action of an
        episode's final row is a filler; it can only be a window's last, from which nothing is predicted.

        Returns:
            The loss, float32 scalar, and 0-d metrics: ``loss`` and, for each level l, ``cross_entropy_l`` in
            nats and, over all steps but the window's first, ``accuracy_l``, ``copy_accuracy_l`` (of repeating
            the step before) and ``changed_accuracy_l`` (on tokens that differ from the step before; NaN if
            there are none).

        Raises:
            ValueError: windows of one step, from which no L0 is predicted, or no windows.
        """
        if len(batch.tokens) < 1 or batch.tokens.shape[1] < 2:
            raise ValueError(
                f"the batch has tokens of shape {tuple(batch.tokens.shape)}; give one window or more of at "
                "least 2 steps"
            )
        output = self.model(batch.tokens, batch.actions)
        loss = torch.zeros((), dtype=torch.float32, device=batch.tokens.device)
        metrics: dict[str, Tensor] = {}
        for level, (weight, logits) in enumerate(
            zip(self.model.config.loss_weights, output.logits, strict=True)
        ):
            predicted, target = align(logits, batch.tokens, level)
            # From a bfloat16 model's logits it would be bfloat16; the loss must be float32.
            cross_entropy = F.cross_entropy(predicted.float().flatten(0, 1), target.flatten())
            loss = loss + weight * cross_entropy
            metrics |= _accuracies(logits.detach(), batch.tokens[..., level], level)
            metrics[f"cross_entropy_{level}"] = cross_entropy.detach()
        metrics["loss"] = loss.detach()
        return loss, metrics

    def after_step(self) -> None:
        """Do nothing: there is nothing to update after an optimiser step."""


def align(logits: Tensor, tokens: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Predictions of a level and their targets: L0 is predicted from the step before.

    Args:
        logits: (B, T, K), `WorldModelOutput.logits` of the level.
        tokens: int64 (B, T, L), the window they were computed from.

    Returns:
        (B, T', K) and (B, T'), T' = T - 1 for level 0 and T for the others.
    """
    return (logits[:, :-1], tokens[:, 1:, 0]) if level == 0 else (logits, tokens[..., level])


def _accuracies(logits: Tensor, tokens: Tensor, level: int) -> dict[str, Tensor]:
    """Accuracy next to that of copying the last step, from logits (B, T, K) and tokens (B, T) of a level."""
    target, previous = tokens[:, 1:], tokens[:, :-1]
    right = after_first(logits, level).argmax(-1) == target
    changed = target != previous
    return {
        f"accuracy_{level}": right.float().mean(),
        f"copy_accuracy_{level}": 1.0 - changed.float().mean(),
        f"changed_accuracy_{level}": (right & changed).sum() / changed.sum(),
    }

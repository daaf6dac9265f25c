"""Imagined trajectories to learn from, and the check that they fit an actor."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from latent_ac.actor import ActorConfig
from latent_ac.features import Features
from latent_ac.returns import survival


@dataclass(frozen=True, slots=True)
class ImaginedBatch:
    """B trajectories of H steps, time first: a dream, or real play in the same form.

    Attributes:
        features: (H+1, B, F), the states, the last one reached but not acted in.
        actions: int64 (H, B).
        rewards: float32 (H, B), what each action brought, before reward_transform.
        continues: float32 (H, B) in [0, 1], the probability that the episode continues after it.
        action_mask: bool (A,) or (B, A), true where allowed.
        log_probs: (H, B), of the actions under the policy that chose them; PPO needs it.
        returns: (H, B), fixed targets of the critic.
        advantages: (H, B), fixed and scaled.
        percentiles: (2,), of the returns, by which the advantages were scaled. A batch with them counts
            as checked. ``ActorCriticObjective.minibatches`` fills these last three.
    """

    features: Features
    actions: Tensor
    rewards: Tensor
    continues: Tensor
    action_mask: Tensor
    log_probs: Tensor | None = None
    returns: Tensor | None = None
    advantages: Tensor | None = None
    percentiles: Tensor | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        return self._map(lambda name, tensor: tensor.to(device))

    def trajectories(self, index: Tensor) -> Self:
        """The trajectories selected by ``index``, int64 (b,)."""

        def pick(name: str, tensor: Any) -> Any:
            if len(tensor.shape) == 1:  # the same for all trajectories
                return tensor
            return tensor[index] if name == "action_mask" else tensor[:, index]

        return self._map(pick)

    def _map(self, change: Callable[[str, Any], Any]) -> Self:
        present = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(self, **{name: change(name, tensor) for name, tensor in present.items()})


def require_fit(batch: ImaginedBatch, config: ActorConfig, *, needs_log_probs: bool) -> None:
    """Raise ValueError unless the batch fits an actor of this config.

    Its values are checked on a CPU only, and only once: minibatches have been checked as a whole batch.
    """
    steps, size = batch.actions.shape if batch.actions.ndim == 2 else (0, 0)
    if not steps or not size or batch.actions.dtype != torch.int64:
        raise ValueError(
            f"the imagined batch does not fit: actions {batch.actions.dtype} "
            f"{tuple(batch.actions.shape)} instead of int64 (H, B), both at least 1"
        )
    steps_of_each = ("rewards", "continues", "log_probs", "returns", "advantages")
    allowed: dict[str, list[tuple[int, ...]]] = {name: [(steps, size)] for name in steps_of_each}
    allowed["features"] = [(steps + 1, size, config.feature_dim)]
    allowed["action_mask"] = [(config.num_actions,), (size, config.num_actions)]
    given = {name: getattr(batch, name) for name in allowed if getattr(batch, name) is not None}
    wrong = [
        f"{name} {tuple(value.shape)} instead of {' or '.join(map(str, allowed[name]))}"
        for name, value in given.items()
        if tuple(value.shape) not in allowed[name]
    ]
    if wrong:
        raise ValueError("the imagined batch does not fit: " + "; ".join(wrong))
    if (batch.returns is None) != (batch.advantages is None):
        raise ValueError("the imagined batch has one of returns and advantages; give both, or none")
    if needs_log_probs and batch.log_probs is None:
        raise ValueError(
            "algorithm='ppo' needs log_probs of the behaviour policy in the batch; "
            "take them from Actor.act_with_log_prob"
        )
    looked_at = batch.percentiles is not None or batch.actions.device.type != "cpu"
    if not looked_at and not torch.compiler.is_compiling():
        _require_values(batch)


def _require_values(batch: ImaginedBatch) -> None:
    mask = batch.action_mask.expand(*batch.actions.shape, -1)
    if not (0 <= int(batch.actions.min()) <= int(batch.actions.max()) < mask.shape[-1]):
        raise ValueError(
            f"actions range from {int(batch.actions.min())} to {int(batch.actions.max())}; "
            f"the actor knows 0 to {mask.shape[-1] - 1}"
        )
    if not mask.gather(-1, batch.actions[..., None]).all():
        raise ValueError("an action of the imagined batch is not allowed by its action_mask")
    if not batch.rewards.isfinite().all():
        raise ValueError("rewards of the imagined batch hold NaN or infinity")
    if not ((batch.continues >= 0) & (batch.continues <= 1)).all():
        raise ValueError("continues of the imagined batch are not all in [0, 1]; give probabilities")
    if batch.log_probs is not None:
        counted = batch.log_probs.masked_fill(batch.log_probs.isinf() & (survival(batch.continues) == 0), 0.0)
        if not counted.isfinite().all():
            raise ValueError("log_probs of the imagined batch hold NaN or infinity")

"""Policy losses: pure functions of log-probabilities and advantages, averaged over steps still played."""

from typing import NamedTuple

import torch
from torch import Tensor

from latent_ac._checks import require

# The exponential of this is finite; where it is infinite the gradient is NaN, even if the clip is in effect.
_LARGEST_LOG_RATIO = 80.0


def weighted_mean(x: Tensor, weights: Tensor | None) -> Tensor:
    """sum(w x) / sum(w), 0-d; the plain mean without weights, and 0 if every weight is 0."""
    if weights is None:
        return x.mean()
    return (weights * x).sum() / weights.sum().clamp_min(1e-8)


def reinforce_loss(log_probs: Tensor, advantages: Tensor, weights: Tensor | None = None) -> Tensor:
    """-mean[ A_t log pi(a_t|s_t) ], 0-d (Williams, 1992); no gradient flows into the advantages.

    Args:
        log_probs: of the chosen actions under the policy being trained, (...).
        advantages: (...), for instance (G_t - v_t) / S.
        weights: (...), how much each step counts; None for equally.

    Raises:
        ValueError: the shapes differ.
    """
    _check(log_probs=log_probs, advantages=advantages, weights=weights)
    return -weighted_mean(log_probs * advantages.detach(), weights)


class PPOLoss(NamedTuple):
    """Loss of PPO and two measures of how far the policy has moved, all 0-d."""

    loss: Tensor
    approx_kl: Tensor  # mean of (ratio - 1) - log ratio, http://joschu.net/blog/kl-approx.html
    clip_fraction: Tensor  # share of steps whose ratio lies outside 1 +- clip


def ppo_loss(
    log_probs: Tensor,
    behaviour_log_probs: Tensor,
    advantages: Tensor,
    clip: float = 0.2,
    weights: Tensor | None = None,
) -> PPOLoss:
    """-mean[ min(rho A, clamp(rho, 1 - clip, 1 + clip) A) ], rho = pi(a|s) / pi_behaviour(a|s).

    Schulman et al., 2017 (https://arxiv.org/abs/1707.06347, eq. 7). At rho = 1 its gradient is that of
    ``reinforce_loss``.

    Args:
        log_probs: of the chosen actions under the policy being trained, (...).
        behaviour_log_probs: under the policy that chose them, (...).
        advantages: (...); no gradient flows into them.
        clip: width of the trust region, above 0.
        weights: (...), how much each step counts; None for equally.

    Raises:
        ValueError: the shapes differ, or the clip is not above 0.
    """
    _check(
        log_probs=log_probs, behaviour_log_probs=behaviour_log_probs, advantages=advantages, weights=weights
    )
    require(clip > 0, "clip", clip, "a number above 0")
    advantages = advantages.detach()
    log_ratio = log_probs - behaviour_log_probs.detach()
    if weights is not None:  # steps of weight 0 may hold anything, even what has an infinite exponential
        log_ratio = log_ratio.masked_fill(weights == 0, 0.0)
    log_ratio = log_ratio.clamp(max=_LARGEST_LOG_RATIO)
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    with torch.no_grad():
        approx_kl = weighted_mean(ratio - 1 - log_ratio, weights)
        clip_fraction = weighted_mean(((ratio - 1).abs() > clip).float(), weights)
    return PPOLoss(-weighted_mean(surrogate, weights), approx_kl, clip_fraction)


def _check(**given: Tensor | None) -> None:
    """Raise ValueError for shapes that differ: broadcasting would count steps several times."""
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items() if tensor is not None}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"the shapes differ: {listed}; give all of one shape (...)")

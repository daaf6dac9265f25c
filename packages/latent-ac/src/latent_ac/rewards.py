"""How rewards reach the learner: stored raw, they are clipped, reduced to a sign or squashed on the way."""

import torch
from torch import Tensor

from latent_ac._checks import require_choice
from latent_ac.two_hot import symlog

TRANSFORMS = ("clip", "sign", "symlog", "raw")


def transform_rewards(rewards: Tensor, transform: str) -> Tensor:
    """Rewards as the learner sees them, float32, same shape.

    "clip" limits them to [-1, 1] (Mnih et al., 2015), "sign" keeps -1, 0 or 1, "symlog" is
    sign(r) ln(|r| + 1), "raw" leaves them unchanged.

    The sign of an expected reward is not the expected sign: 0.01 would become 1. Use "sign" on observed
    rewards; on a predictor's expectation use "clip", which leaves the sign head's output unchanged, or ask
    the predictor itself for the transformed expectation.

    Raises:
        ValueError: the transform is unknown.
    """
    require_choice("reward_transform", transform, TRANSFORMS)
    rewards = rewards.float()
    if transform == "clip":
        return rewards.clamp(-1.0, 1.0)
    if transform == "sign":
        return torch.sign(rewards)
    return symlog(rewards) if transform == "symlog" else rewards

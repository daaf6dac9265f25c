"""The policy: from features to logits over actions (ALE's 18 by default), limited to those a game allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latent_ac import categorical
from latent_ac._checks import number, require, require_counts, require_network
from latent_ac.features import Features
from latent_ac.mlp import MLP, MLPOnCodes


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorConfig:
    """Sizes of the actor.

    Attributes:
        feature_dim: width F of the features (3 levels of 384 by default).
        num_actions: number of actions A; 18 is ALE's full set.
        hidden: widths of the hidden layers.
        feature_blocks: widths of feature blocks to scale to unit root mean square, for instance
            (384, 384, 384), one per level; empty to use the features as they are.
        output_gain: initial scale of the output layer; small, so that the policy starts near uniform.
    """

    feature_dim: int = 1152
    num_actions: int = 18
    hidden: tuple[int, ...] = (512, 512)
    feature_blocks: tuple[int, ...] = ()
    output_gain: float = 0.01

    def __post_init__(self) -> None:
        require_network(self)
        require_counts(self, "num_actions")
        gain = self.output_gain
        require(0 <= number(gain) < math.inf, "output_gain", gain, "a finite number, 0 or more")


class Actor(nn.Module):
    """pi(a | features), a categorical policy; ``generator`` draws the initial weights."""

    def __init__(self, config: ActorConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.mlp = MLP(
            config.feature_dim,
            config.hidden,
            config.num_actions,
            feature_blocks=config.feature_blocks,
            output_gain=config.output_gain,
            generator=generator,
        )

    def forward(self, features: Features, action_mask: Tensor) -> Tensor:
        """Logits float32 (..., A), -inf where disallowed.

        Args:
            features: (..., F).
            action_mask: bool (A,) or broadcastable to (..., A), true where an action is allowed.
        """
        return categorical.mask_logits(self.mlp(features), action_mask)

    @torch.no_grad()
    def act(
        self,
        features: Features,
        action_mask: Tensor,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Actions, int64 (...), for features (..., F).

        Args:
            features: (..., F).
            action_mask: bool (A,) or broadcastable to (..., A).
            generator: source of randomness, on the features' device.
            temperature: divides the logits before the draw; below 1 is greedier. At 0 nothing is drawn: the
                most probable action is taken, with ties going to the lowest id.

        Raises:
            ValueError: the mask does not fit, or the temperature is neither 0 nor a finite number of at
                least 1e-6.
        """
        logits = self(features, action_mask)
        return categorical.sample(logits, generator=generator, temperature=temperature)

    @torch.no_grad()
    def act_with_log_prob(
        self,
        features: Features,
        action_mask: Tensor,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Actions as by ``act``, and the log-probability of each choice, both (...): what PPO needs.

        Raises:
            ValueError: as for ``act``, or the temperature is 0.
        """
        # The log-probability is that of the actual draw, from logits divided by the temperature.
        require(temperature != 0, "temperature", temperature, "a finite number of at least 1e-6, or use act")
        logits = self(features, action_mask)
        actions = categorical.sample(logits, generator=generator, temperature=temperature)
        return actions, categorical.log_prob(logits / temperature, actions)

    def on_codes(self, tables: Sequence[Tensor]) -> "CodePolicy":
        """The policy with its present weights, for states given as tokens; make one for each dream.

        It chooses what ``act`` would choose from ``CodeFeatures(tokens, tables)``, several times faster: the
        wide first layer is multiplied out once, here (see ``latent_ac.features``).

        Args:
            tables: L tensors (K_l, D_l) whose chosen rows, side by side, are the features or their beginning.
        """
        return CodePolicy(MLPOnCodes(self.mlp, tables))


@dataclass(frozen=True, slots=True)
class CodePolicy:
    """A policy over tokens, with an actor's weights at the time ``Actor.on_codes`` made it."""

    outputs: MLPOnCodes  # tokens (..., L), state -> unmasked logits (..., A)

    @torch.no_grad()
    def act(
        self,
        tokens: Tensor,
        action_mask: Tensor,
        *,
        state: Tensor | None = None,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Actions, int64 (...), for tokens int64 (..., L) and, if the features have one, the state (..., S).

        The rest is as in ``Actor.act``.
        """
        logits = categorical.mask_logits(self.outputs(tokens, state), action_mask)
        return categorical.sample(logits, generator=generator, temperature=temperature)

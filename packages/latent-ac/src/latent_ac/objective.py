"""One objective for REINFORCE and PPO: actor and critic learn from a batch of imagined trajectories."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from latent_ac import categorical
from latent_ac._checks import number, require, require_choice, require_counts
from latent_ac.actor import Actor
from latent_ac.batch import ImaginedBatch, require_fit
from latent_ac.critic import Critic, SlowTarget
from latent_ac.losses import ppo_loss, reinforce_loss, weighted_mean
from latent_ac.returns import ReturnNormalizer, lambda_returns, survival
from latent_ac.rewards import transform_rewards

ALGORITHMS = ("reinforce", "ppo")
REWARD_TRANSFORMS = ("clip", "symlog", "raw")  # not "sign": that of an expected reward is meaningless
SLOW_TARGETS = ("returns", "regularizer")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentConfig:
    """How actor and critic learn. The defaults are DreamerV3's unless a reason is given.

    Attributes:
        algorithm: "reinforce", one step on each dream; "ppo", several on each.
        gamma: discount.
        lambda_: lambda of the lambda-return.
        entropy_coef: weight of the entropy bonus; advantages are scaled to a return range of at most 1.
        critic_coef: weight of the critic's loss, which shares no parameters with the actor's.
        reward_transform: "clip", "symlog" or "raw", applied to the rewards of the batch (see
            ``transform_rewards``); "clip" by default, so that one entropy_coef serves every game.
        slow_decay: share of the slow critic kept at each step.
        slow_target: "returns", the slow critic bootstraps the returns (steadier; the default); "regularizer",
            the critic itself does, and is pulled towards its slow copy (DreamerV3).
        slow_coef: weight of that pull; only for "regularizer".
        return_decay: share of the return percentiles kept per dream.
        ppo_epochs: passes over one dream; only for "ppo", as are the next two.
        ppo_minibatches: parts a dream is cut into, by trajectory, in each pass.
        ppo_clip: width of the trust region.
    """

    algorithm: str = "reinforce"
    gamma: float = 0.997
    lambda_: float = 0.95
    entropy_coef: float = 3e-4
    critic_coef: float = 1.0
    reward_transform: str = "clip"
    slow_decay: float = 0.98
    slow_target: str = "returns"
    slow_coef: float = 1.0
    return_decay: float = 0.99
    ppo_epochs: int = 4
    ppo_minibatches: int = 1
    ppo_clip: float = 0.2

    def __post_init__(self) -> None:
        require_choice("algorithm", self.algorithm, ALGORITHMS)
        require_choice("reward_transform", self.reward_transform, REWARD_TRANSFORMS)
        require_choice("slow_target", self.slow_target, SLOW_TARGETS)
        for name in ("gamma", "lambda_"):
            value = getattr(self, name)
            require(0 <= number(value) <= 1, name, value, "a number from 0 to 1")
        for name in ("slow_decay", "return_decay"):
            value = getattr(self, name)
            require(0 <= number(value) < 1, name, value, "a number from 0 to below 1")
        for name in ("entropy_coef", "critic_coef", "slow_coef"):
            value = getattr(self, name)
            require(0 <= number(value) < math.inf, name, value, "a finite number, 0 or more")
        require_counts(self, "ppo_epochs", "ppo_minibatches")
        require(number(self.ppo_clip) > 0, "ppo_clip", self.ppo_clip, "a number above 0")


class ActorCriticObjective(nn.Module):
    """objective(batch) -> (loss, metrics); ``after_step()`` moves the slow critic and the return scale.

    The loss is policy loss - entropy_coef H(pi) + critic_coef critic loss, each a mean over the steps of the
    batch weighted by the probability that they are still played. Actor and critic take the features as
    given: no gradient flows into them (DreamerV3), so several steps can be taken on one batch.

    REINFORCE takes one optimiser step on each dream. PPO takes ``steps_per_batch``: loop over
    ``minibatches(batch, generator=...)``, which fixes returns and advantages once, unless the batch has its
    own, and yields every minibatch of every epoch (for REINFORCE just the batch, so one loop serves both).
    Calling the objective several times on a whole dream works as well; returns are then computed anew each
    time.

    Args:
        actor: the policy to train.
        critic: the value function to train.
        config: how to train them.
    """

    def __init__(self, actor: Actor, critic: Critic, config: AgentConfig) -> None:
        super().__init__()
        self.actor = actor
        self.critic = critic
        self.config = config
        self.slow_critic = SlowTarget(critic, config.slow_decay)
        self.normalizer = ReturnNormalizer(config.return_decay)
        self._observed: Tensor | None = None  # percentiles of a dream, until they are committed

    @property
    def steps_per_batch(self) -> int:
        """Optimiser steps taken on one dream."""
        return self.config.ppo_epochs * self.config.ppo_minibatches if self.config.algorithm == "ppo" else 1

    def minibatches(
        self, batch: ImaginedBatch, *, generator: torch.Generator | None = None
    ) -> Iterator[ImaginedBatch]:
        """The batches to step on, ``steps_per_batch`` of them; PPO's with returns and advantages fixed.

        Args:
            batch: one dream. Returns and advantages that it already has are kept.
            generator: a CPU generator that shuffles the trajectories anew for each epoch.

        Raises:
            ValueError: for PPO: fewer trajectories than minibatches, or a batch that ``forward`` rejects.
        """
        if self.config.algorithm == "reinforce":
            yield batch  # `forward` checks it
            return
        require_fit(batch, self.actor.config, needs_log_probs=True)
        size, parts = batch.actions.shape[1], self.config.ppo_minibatches
        require(size >= parts, "ppo_minibatches", parts, f"at most the {size} trajectories of a batch")
        if batch.returns is None:
            with torch.no_grad():
                batch = self._with_targets(batch, self.critic(batch.features[:-1]))
        for _ in range(self.config.ppo_epochs):
            if parts == 1:
                yield batch
                continue
            order = torch.randperm(size, generator=generator, device="cpu")
            order = order.to(batch.actions.device, non_blocking=True)
            for index in order.tensor_split(parts):
                yield batch.trajectories(index)

    def forward(self, batch: ImaginedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, 0-d, and metrics, 0-d each, on one batch.

        Raises:
            ValueError: the shapes of the batch do not fit, or PPO was given no ``log_probs``; or (checked on
                a CPU only: on a GPU it would wait for the device) an action is out of range or not allowed,
                rewards or ``log_probs`` are not finite, or ``continues`` are not probabilities.
        """
        require_fit(batch, self.actor.config, needs_log_probs=self.config.algorithm == "ppo")
        config, states = self.config, batch.features[:-1].detach()
        outputs = self.critic.outputs(states)
        values = self.critic.value(outputs).detach()
        if batch.returns is None:
            batch = self._with_targets(batch, values)
        returns, advantages, percentiles = batch.returns, batch.advantages, batch.percentiles
        assert returns is not None
        assert advantages is not None
        if percentiles is None:  # the targets were made elsewhere
            percentiles = self.normalizer.percentiles
        weights = survival(batch.continues.detach())

        logits = self.actor(states, batch.action_mask)
        log_probs, entropies = categorical.log_prob_and_entropy(logits, batch.actions)
        entropy = weighted_mean(entropies, weights)
        metrics: dict[str, Tensor] = {}
        if config.algorithm == "ppo":
            assert batch.log_probs is not None
            policy_loss, approx_kl, clip_fraction = ppo_loss(
                log_probs, batch.log_probs, advantages, config.ppo_clip, weights
            )
            metrics |= {"approx_kl": approx_kl, "clip_fraction": clip_fraction}
        else:
            policy_loss = reinforce_loss(log_probs, advantages, weights)

        critic_loss = weighted_mean(self.critic.loss(outputs, returns), weights)
        if config.slow_target == "regularizer":
            pull = self.critic.loss(outputs, self.slow_critic(states))
            critic_loss = critic_loss + config.slow_coef * weighted_mean(pull, weights)
        loss = policy_loss - config.entropy_coef * entropy + config.critic_coef * critic_loss

        with torch.no_grad():
            largest_entropy = batch.action_mask.sum(-1).float().log().expand_as(weights)
            spread = weighted_mean((advantages - weighted_mean(advantages, weights)).square(), weights)
            metrics |= {
                "actor_loss": policy_loss.detach(),
                "critic_loss": critic_loss.detach(),
                "entropy": entropy.detach(),
                "entropy_fraction": entropy.detach()
                / weighted_mean(largest_entropy, weights).clamp_min(1e-8),
                "imagined_return": returns[0].mean(),
                "value": values[0].mean(),
                "value_error": weighted_mean((returns - values).abs(), weights),
                "advantage_std": spread.sqrt(),
                "reward": weighted_mean(batch.rewards.float(), weights),
                "survival": weights[-1].mean(),
                "return_spread": percentiles[1] - percentiles[0],
                "return_scale": self.normalizer.scale(percentiles),
            }
        return loss, metrics

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the slow critic, and commit the return percentiles of the last dream."""
        self.slow_critic.update(self.critic)
        if self._observed is not None:
            self.normalizer.update(self._observed)
            self._observed = None

    @torch.no_grad()
    def _with_targets(self, batch: ImaginedBatch, values: Tensor) -> ImaginedBatch:
        """The batch with returns and advantages; ``values`` (H, B): the critic's, for the states acted in."""
        config = self.config
        if config.slow_target == "returns":
            bootstrap = torch.cat((values[:1], self.slow_critic(batch.features[1:])))
        else:
            bootstrap = torch.cat((values, self.critic(batch.features[-1:])))
        rewards = transform_rewards(batch.rewards, config.reward_transform)
        returns = lambda_returns(rewards, batch.continues, bootstrap, config.gamma, config.lambda_)
        weights = survival(batch.continues)
        # Steps after an end do not count, whatever they are filled with.
        observed = self.normalizer.observe(returns.masked_fill(weights == 0, torch.nan))
        if self.training:  # in eval mode a batch is only looked at, and must not be committed
            self._observed = observed
        advantages = (returns - values) / self.normalizer.scale(observed)
        return replace(batch, returns=returns, advantages=advantages, percentiles=observed)

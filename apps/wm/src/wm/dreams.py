"""Batches of imagined play for actor and critic, each a function of (seed, step) and the current policy."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from hrvq import HRVQ
from latent_ac import Actor, ActorCriticObjective, Agent, AgentConfig, CodeFeatures, ImaginedBatch, log_prob
from token_worldmodel import Recorded, TokenSampler, WorldModel, for_inference, imagine
from torch import Tensor

from wm.device import Precision, autocast, autocast_dtype, derive_seed, generator
from wm.sections import DreamConfig


def agent_state(state: Tensor, config: DreamConfig) -> Tensor | None:
    """The world model's state (..., D) as actor and critic see it, scaled to a norm of about 1, or None."""
    return state / math.sqrt(state.shape[-1]) if config.hidden_state else None


class Dreamer:
    """Continues real contexts as dreams with the current policy, for the learner that it creates.

    ``reward_transform`` is applied inside the predictor's expectation (`Agent.predict`); ``learner`` applies
    none.

    Args:
        model: the world model, frozen.
        quantizer: turns tokens into features.
        agent: its actor chooses, its predictors judge; only ``learner`` changes it.
        masks: bool (games, 18), the actions each game allows.
        contexts: draws real windows of ``config.context`` + 1 steps.
        learning: how actor and critic learn.
        first_batch: index of the batch of contexts at step 0.

    Attributes:
        learner: the objective that `batch` serves.
    """

    learner: ActorCriticObjective

    def __init__(
        self,
        *,
        model: WorldModel,
        quantizer: HRVQ,
        agent: Agent,
        masks: Tensor,
        contexts: TokenSampler,
        config: DreamConfig,
        learning: AgentConfig,
        seed: int,
        first_batch: int,
        precision: Precision,
    ) -> None:
        self.quantizer, self.agent = quantizer, agent
        self.masks, self.contexts, self.config = masks, contexts, config
        self.reward_transform = learning.reward_transform
        self.seed, self.first_batch, self.device = seed, first_batch, masks.device
        learning = replace(learning, reward_transform="raw")
        self.learner = ActorCriticObjective(agent.actor, agent.critic, learning).to(self.device)
        dtype = autocast_dtype(precision, self.device)
        self.model = for_inference(model, dtype or torch.float32)  # cast once, not for each dream
        self.rng = torch.Generator(self.device)
        # Not a bound method, which would be a reference cycle: the recording's memory goes with this object.
        play = partial(_play, self.model, agent.actor, quantizer, config, dtype, self.rng)
        self._imagine = Recorded(play, self.rng)
        self._parts: Iterator[ImaginedBatch] = iter(())

    def batch(self, step: int) -> ImaginedBatch:
        """The batch of an optimiser step: a fresh dream, or for PPO the next part of the current dream."""
        if step % self.learner.steps_per_batch == 0:
            index = self.first_batch + step
            shuffle = generator(self.seed, "minibatches", index)
            self._parts = self.learner.minibatches(self.dream(index), generator=shuffle)
        return next(self._parts)

    @torch.no_grad()
    def dream(self, index: int) -> ImaginedBatch:
        """Imagine one trajectory from each context of a batch: the actor acts, the predictors judge."""
        context = self.contexts.batch(index)
        mask = self.masks[context.game_index]
        self.rng.manual_seed(derive_seed(self.seed, "dream", index))
        tokens, chosen, states = self._imagine(
            context.tokens[:, : self.config.context], context.actions[:, : self.config.context - 1], mask
        )
        seen = agent_state(states.transpose(0, 1), self.config)
        features = CodeFeatures(tokens.transpose(0, 1), self.quantizer.codebooks, seen)
        actions = chosen.T.contiguous()
        rewards, continues = self.agent.predict(features, actions, transform=self.reward_transform)
        log_probs = None
        if self.learner.config.algorithm == "ppo":
            log_probs = log_prob(self.agent.actor(features[:-1], mask), actions)
        return ImaginedBatch(features, actions, rewards, continues, mask, log_probs)


def _play(
    model: WorldModel,
    actor: Actor,
    quantizer: HRVQ,
    config: DreamConfig,
    dtype: torch.dtype | None,
    rng: torch.Generator,
    tokens: Tensor,
    actions: Tensor,
    mask: Tensor,
) -> tuple[Tensor, ...]:
    """Tokens, actions and states of dreams that continue the contexts, with the current actor."""
    on_codes = actor.on_codes(quantizer.codebooks)

    def policy(tokens: Tensor, state: Tensor) -> Tensor:
        return on_codes.act(tokens, mask, state=agent_state(state, config), generator=rng)

    with autocast(dtype, tokens.device):
        dream = imagine(
            model,
            tokens,
            actions,
            policy,
            config.horizon,
            generator=rng,
            temperature=config.temperature,
        )
    return dream.tokens, dream.actions, dream.states

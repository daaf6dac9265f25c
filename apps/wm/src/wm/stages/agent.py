"""Trains reward and continue predictors on real play, then actor and critic in the world model's dreams."""

from collections.abc import Iterable
from typing import Any

import torch
from hrvq import HRVQ
from latent_ac import (
    Agent,
    CodeFeatures,
    PredictorObjective,
    TransitionBatch,
    evaluate_predictors,
    load_agent,
    save_agent,
)
from token_worldmodel import TokenBatch, TokenTrajectories

from wm.actions import allowed_actions
from wm.artifacts import frozen_quantizer, frozen_worldmodel
from wm.dreams import Dreamer
from wm.stage import Context, Made, Stage
from wm.windows import SPLITS, load_all_tokens, newest_windows, token_sampler

# Rows in a transition. With longer windows the transition at an episode's end, and with it the end itself,
# would be drawn less often than the others, by a factor of the window's length.
TRANSITION = 2
VALIDATION_BATCHES = 20


def run(context: Context) -> Made:
    """Train predictors, then actor and critic; save all of them in one file.

    In a later round that keeps the codes of the round before, the predictors are also measured before
    training, on the play that is new to them: do they predict the rewards that their dreams have led to?
    """
    tokens = load_all_tokens(context)
    quantizer = frozen_quantizer(context.layout, context.device)
    agent = _agent(context)
    made: dict[str, Any] = {}
    new = newest_windows(
        context,
        tokens,
        length=TRANSITION,
        stride=1,
        batch_size=context.config.train.predictors.batch_size,
        limit=VALIDATION_BATCHES,
    )
    if found := _measure(context, agent, quantizer, new):
        made["new_play"] = found
    made["predictors"] = _learn_to_predict(context, agent, quantizer, tokens)
    made["train"] = learn_to_play(context, agent, quantizer, tokens)
    save_agent(context.layout.agent, agent.eval())
    return Made([context.layout.agent], made)


def _learn_to_predict(
    context: Context, agent: Agent, quantizer: HRVQ, tokens: dict[str, TokenTrajectories]
) -> dict[str, Any]:
    """Train the predictors on real transitions; returns how well they do on held-out ones."""
    dream, fit_config = context.config.dream, context.config.train.predictors

    real, held_out = (
        token_sampler(context, tokens, length=TRANSITION, batch_size=fit_config.batch_size, split=split)
        for split in SPLITS
    )
    context.fit(
        PredictorObjective(agent.reward, agent.continue_).to(context.device),
        lambda step: transitions(real.batch(context.first_batch + step), quantizer, dream.life_loss_ends),
        fit_config,
        epoch_size=sum(real.num_windows.values()),
        name="predictors",
    )
    return _measure(context, agent, quantizer, held_out.sweep(stride=1, limit=VALIDATION_BATCHES))


def _measure(
    context: Context, agent: Agent, quantizer: HRVQ, batches: Iterable[TokenBatch]
) -> dict[str, Any]:
    """How well the predictors do on windows of play; empty if there are none."""
    ends = context.config.dream.life_loss_ends
    real = [transitions(batch, quantizer, ends) for batch in batches]
    return evaluate_predictors(agent.reward, agent.continue_, real) if real else {}


def learn_to_play(
    context: Context, agent: Agent, quantizer: HRVQ, tokens: dict[str, TokenTrajectories]
) -> dict[str, float]:
    """Train actor and critic in dreams that begin in real play."""
    config, device, fit_config = context.config, context.device, context.config.train.agent
    # One step more than the context, so that no dream starts from an episode's final observation.
    contexts = token_sampler(
        context, tokens, length=config.dream.context + 1, batch_size=fit_config.batch_size
    )
    masks = torch.stack(
        [
            torch.from_numpy(allowed_actions(game, columns.actions, columns.final))
            for game, columns in tokens.items()
        ]
    ).to(device)
    dreamer = Dreamer(
        model=frozen_worldmodel(context.layout, device),
        quantizer=quantizer,
        agent=agent,
        masks=masks,
        contexts=contexts,
        config=config.dream,
        learning=config.agent,
        seed=config.seed,
        first_batch=context.first_batch,
        precision=fit_config.precision,
    )
    return context.fit(
        dreamer.learner,
        dreamer.batch,
        fit_config,
        epoch_size=sum(contexts.num_windows.values()),
        group=dreamer.learner.steps_per_batch,
    )


def _agent(context: Context) -> Agent:
    """A new agent, or the known one to continue from."""
    known = context.known("agent")
    if known is not None:
        return load_agent(known).to(context.device).train()
    config = context.config
    agent = Agent(config.actor, config.critic, config.predictor, generator=context.generator("agent"))
    return agent.to(context.device)


def transitions(batch: TokenBatch, quantizer: HRVQ, life_loss_ends: bool) -> TransitionBatch:
    """The real transitions of a batch of windows, as one batch; a window never crosses an episode's end."""
    tokens, tables = batch.tokens, quantizer.codebooks
    ended = batch.terminated[:, :-1]
    if life_loss_ends:
        ended = ended | (batch.lives[:, 1:] < batch.lives[:, :-1])
    return TransitionBatch(
        features=CodeFeatures(tokens[:, :-1].flatten(0, 1), tables),
        next_features=CodeFeatures(tokens[:, 1:].flatten(0, 1), tables),
        actions=batch.actions[:, :-1].flatten(),
        rewards=batch.rewards[:, :-1].flatten(),
        continues=(~ended).float().flatten(),
    )


STAGE = Stage(
    "agent",
    ("hrvq", "worldmodel"),
    lambda config: [
        config.actor,
        config.critic,
        config.predictor,
        config.agent,
        config.dream,
        config.train.predictors,
        config.train.agent,
        *config.windows.game_weights,
        config.collect.validation_fraction,
        config.rounds.newest_share,
        # Older versions applied the reward transform elsewhere; this makes their agents out of date.
        *([] if config.predictor.knows_signs_only else ["transform inside"]),
    ],
    run,
    continues=("agent",),
)

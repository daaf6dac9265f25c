"""The world model as a gym: reward and continue predictors from play, then actor and critic from dreams."""

from typing import Any

import torch
from hrvq import HRVQ
from latent_ac import (
    ActorCriticObjective,
    Agent,
    CodeFeatures,
    PredictorObjective,
    TransitionBatch,
    evaluate_predictors,
    save_agent,
)
from token_worldmodel import TokenBatch, TokenSampler, load_tokens, load_worldmodel

from wm.actions import allowed_actions
from wm.device import frozen, generator
from wm.dreams import Dreamer
from wm.fit import fit
from wm.pipeline import Context, Made, Stage
from wm.stages.worldmodel import first_of_each_game

PREDICTOR_WINDOW = 16
VALIDATION_BATCHES = 20


def run(context: Context) -> Made:
    """Train predictors, then actor and critic; save all of them in one file."""
    config, layout, device = context.config, context.layout, context.device
    tokens = {game: load_tokens(layout.tokens(game)) for game in config.games}
    quantizer = frozen(HRVQ.load(layout.hrvq)).to(device)
    agent = Agent(
        config.actor,
        config.critic,
        config.predictor,
        generator=generator(torch.device("cpu"), config.seed, "agent"),
    ).to(device)

    def sampler(split: Any, length: int, batch_size: int) -> TokenSampler:
        return TokenSampler(
            tokens,
            length=length,
            batch_size=batch_size,
            seed=config.seed,
            split=split,
            validation_fraction=config.collect.validation_fraction,
            device=device,
        )

    fit_config = config.train.predictors
    real = sampler("train", PREDICTOR_WINDOW, fit_config.batch_size)
    objective = PredictorObjective(agent.reward, agent.continue_).to(device)
    fit(
        objective,
        lambda step: transitions(real.batch(step), quantizer, config.dream.life_loss_ends),
        fit_config,
        stage="predictors",
        seed=config.seed,
        device=device,
        reporter=context.reporter,
        checkpoint=context.checkpoint("predictors"),
        total_steps=fit_config.resolve_steps(sum(real.num_windows.values()) // PREDICTOR_WINDOW),
    )
    agent.eval()
    held_out = sampler("validation", PREDICTOR_WINDOW, fit_config.batch_size)
    measured = evaluate_predictors(
        agent.reward,
        agent.continue_,
        (
            transitions(batch, quantizer, config.dream.life_loss_ends)
            for batch in first_of_each_game(held_out, VALIDATION_BATCHES)
        ),
    )

    fit_config = config.train.agent
    # One step more than the context, so that no dream starts from an episode's final observation.
    contexts = sampler("train", config.dream.context + 1, fit_config.batch_size)
    masks = torch.stack(
        [
            torch.from_numpy(allowed_actions(game, columns.actions, columns.final))
            for game, columns in tokens.items()
        ]
    ).to(device)
    learner = ActorCriticObjective(agent.actor, agent.critic, config.agent).to(device)
    dreamer = Dreamer(
        model=frozen(load_worldmodel(layout.worldmodel)).to(device),
        quantizer=quantizer,
        agent=agent,
        masks=masks,
        contexts=contexts,
        config=config.dream,
        learner=learner,
        seed=config.seed,
        precision=fit_config.precision,
    )
    fitted = fit(
        learner,
        dreamer.batch,
        fit_config,
        stage="agent",
        seed=config.seed,
        device=device,
        reporter=context.reporter,
        checkpoint=context.checkpoint("actor-critic"),
        total_steps=fit_config.resolve_steps(sum(contexts.num_windows.values())),
        unit=learner.steps_per_batch,
    )
    save_agent(layout.agent, agent.eval())
    return Made([layout.agent], {"predictors": measured, "train": fitted.metrics})


def transitions(batch: TokenBatch, quantizer: HRVQ, life_loss_ends: bool) -> TransitionBatch:
    """The real transitions of a batch of windows, side by side; a window never crosses an episode."""
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
        config.collect.validation_fraction,
    ],
    run,
)

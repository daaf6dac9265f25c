"""The world model as a gym: reward and continue predictors from play, then actor and critic from dreams."""

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
from token_worldmodel import TokenBatch

from wm.actions import allowed_actions
from wm.artifacts import frozen_quantizer, frozen_worldmodel
from wm.device import generator
from wm.dreams import Dreamer
from wm.fit import fit
from wm.pipeline import Context, Made, Stage
from wm.windows import load_all_tokens, some_of_each_game, token_sampler

# Rows of a transition. Longer windows would draw the one at an episode's end, and with it the end itself,
# more rarely than the others by their length.
TRANSITION = 2
VALIDATION_BATCHES = 20


def run(context: Context) -> Made:
    """Train predictors, then actor and critic; save all of them in one file."""
    config, layout, device = context.config, context.layout, context.device
    tokens = load_all_tokens(context)
    quantizer = frozen_quantizer(layout, device)
    agent = _agent(context)

    fit_config = config.train.predictors
    real = token_sampler(context, tokens, length=TRANSITION, batch_size=fit_config.batch_size)
    objective = PredictorObjective(agent.reward, agent.continue_).to(device)
    fit(
        objective,
        lambda step: transitions(
            real.batch(context.first_batch + step), quantizer, config.dream.life_loss_ends
        ),
        fit_config,
        stage=context.name("predictors"),
        seed=config.seed,
        device=device,
        reporter=context.reporter,
        checkpoint=context.checkpoint("predictors"),
        total_steps=fit_config.resolve_steps(sum(real.num_windows.values())),
    )
    agent.eval()
    held_out = token_sampler(
        context, tokens, length=TRANSITION, batch_size=fit_config.batch_size, split="validation"
    )
    measured = evaluate_predictors(
        agent.reward,
        agent.continue_,
        (
            transitions(batch, quantizer, config.dream.life_loss_ends)
            for batch in some_of_each_game(held_out, VALIDATION_BATCHES, stride=1)
        ),
    )

    fit_config = config.train.agent
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
        model=frozen_worldmodel(layout, device),
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
    fitted = fit(
        dreamer.learner,
        dreamer.batch,
        fit_config,
        stage=context.name("agent"),
        seed=config.seed,
        device=device,
        reporter=context.reporter,
        checkpoint=context.checkpoint("actor-critic"),
        total_steps=fit_config.resolve_steps(sum(contexts.num_windows.values())),
        unit=dreamer.learner.steps_per_batch,
    )
    save_agent(layout.agent, agent.eval())
    return Made([layout.agent], {"predictors": measured, "train": fitted.metrics})


def _agent(context: Context) -> Agent:
    """A new agent, or a known one."""
    known = context.known("agent")
    if known is not None:
        return load_agent(known, device=context.device).train()
    config = context.config
    draw = generator(torch.device("cpu"), config.seed, "agent")
    return Agent(config.actor, config.critic, config.predictor, generator=draw).to(context.device)


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
        config.rounds.newest_share,
        # What such an agent learns from is not what it was in older versions.
        *(["transform inside"] if config.predictor.reward_head == "two_hot" else []),
    ],
    run,
    continues=("agent",),
)

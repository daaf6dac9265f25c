"""Tokens to a model of the game."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from token_worldmodel import (
    TokenBatch,
    TokenSampler,
    WorldModel,
    WorldModelObjective,
    evaluate,
    load_tokens,
    parameter_groups,
    save_worldmodel,
)

from wm.device import autocast, autocast_dtype, derive_seed
from wm.fit import fit
from wm.pipeline import Context, Made, Stage

VALIDATION_BATCHES = 40


def run(context: Context) -> Made:
    """Train the world model on windows of the training episodes; measure it on the others."""
    config, layout, device = context.config, context.layout, context.device
    tokens = {game: load_tokens(layout.tokens(game)) for game in config.games}

    def sampler(split: Any, length: int) -> TokenSampler:
        return TokenSampler(
            tokens,
            length=length,
            batch_size=config.train.worldmodel.batch_size,
            seed=config.seed,
            split=split,
            validation_fraction=config.collect.validation_fraction,
            device=device,
        )

    train = sampler("train", config.windows.length)
    torch.manual_seed(derive_seed(config.seed, "worldmodel"))
    model = WorldModel(config.worldmodel).to(device)
    fit_config = config.train.worldmodel
    fitted = fit(
        WorldModelObjective(model),
        train.batch,
        fit_config,
        stage="worldmodel",
        seed=config.seed,
        device=device,
        reporter=context.reporter,
        checkpoint=context.checkpoint(),
        total_steps=fit_config.resolve_steps(sum(train.num_windows.values()) // config.windows.length),
        parameter_groups=parameter_groups(model, fit_config.weight_decay),
    )
    model.eval()
    save_worldmodel(layout.worldmodel, model)
    validation = first_of_each_game(sampler("validation", config.windows.length), VALIDATION_BATCHES)
    with autocast(autocast_dtype(fit_config.precision, device), device):
        measured = evaluate(model, validation, config.games)
    levels = {name: [asdict(level) for level in found] for name, found in measured.items()}
    return Made([layout.worldmodel], {"train": fitted.metrics, "validation": levels})


def first_of_each_game(sampler: TokenSampler, limit: int) -> Iterator[TokenBatch]:
    """At most ``limit`` batches of every game of a sweep, which goes game by game."""
    seen: Counter[int] = Counter()
    for batch in sampler.sweep():
        game = int(batch.game_index[0])
        seen[game] += 1
        if seen[game] <= limit:
            yield batch


STAGE = Stage(
    "worldmodel",
    ("hrvq",),
    lambda config: [
        config.worldmodel,
        config.train.worldmodel,
        config.windows.length,
        config.collect.validation_fraction,
    ],
    run,
)

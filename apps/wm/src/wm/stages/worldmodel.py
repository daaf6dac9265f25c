"""Tokens to a world model of the game."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from token_worldmodel import (
    TokenBatch,
    WorldModel,
    WorldModelObjective,
    evaluate,
    load_worldmodel,
    make_optimizer,
    save_worldmodel,
)

from wm.artifacts import frozen_quantizer
from wm.config import YOUNGER
from wm.device import autocast, autocast_dtype
from wm.settings import unstructure
from wm.stage import Context, Made, Stage
from wm.windows import SPLITS, load_all_tokens, newest_windows, token_sampler

VALIDATION_BATCHES = 40


def run(context: Context) -> Made:
    """Train the world model on windows of the training episodes; measure it on the validation episodes.

    In a later round that keeps the codes of the round before, it is also measured before training, on the
    play that is new to it: how well does it predict the play that its own dreams have led to?
    """
    config, layout, device = context.config, context.layout, context.device
    fit_config, length = config.train.worldmodel, config.windows.length
    tokens = load_all_tokens(context)
    train, held_out = (
        token_sampler(context, tokens, length=length, batch_size=fit_config.batch_size, split=split)
        for split in SPLITS
    )
    known = context.known("worldmodel")
    if known is None:
        torch.manual_seed(context.seed("worldmodel"))
        model = WorldModel(config.worldmodel).to(device)
    else:
        model = load_worldmodel(known).to(device)
    if config.worldmodel.code_dim:
        model.set_codebooks(frozen_quantizer(layout, device).codebooks)
    made: dict[str, Any] = {}
    if context.team.leads:
        new = newest_windows(
            context, tokens, length=length, batch_size=fit_config.batch_size, limit=VALIDATION_BATCHES
        )
        if found := _measure(context, model, new):
            made["new_play"] = found
    made["train"] = context.fit(
        WorldModelObjective(model),
        lambda step: train.batch(context.first_batch + step),
        fit_config,
        epoch_size=sum(train.num_windows.values()) // length,
        optimizer=make_optimizer(
            model,
            fit_config.optimizer,
            lr=fit_config.learning_rate,
            weight_decay=fit_config.weight_decay,
            betas=fit_config.betas,
        ),
    )
    if not context.team.leads:
        return Made([])
    model.eval()
    save_worldmodel(layout.worldmodel, model)
    made["validation"] = _measure(context, model, held_out.sweep(limit=VALIDATION_BATCHES))
    return Made([layout.worldmodel], made)


def _measure(context: Context, model: WorldModel, batches: Iterable[TokenBatch]) -> dict[str, Any]:
    """Metrics of every level's predictions, by game and over all games; empty without a batch."""
    config, device = context.config, context.device
    batches = list(batches)
    if not batches:
        return {}
    with autocast(autocast_dtype(config.train.worldmodel.precision, device), device):
        measured = evaluate(model, batches, config.games)
    return {name: [asdict(level) for level in found] for name, found in measured.items()}


STAGE = Stage(
    "worldmodel",
    ("hrvq",),
    lambda config: [
        config.worldmodel,
        # The fingerprints of older versions include a setting that is gone.
        {"alike_codes": False} | unstructure(config.train.worldmodel, YOUNGER),
        config.windows.length,
        *config.windows.game_weights,
        config.collect.validation_fraction,
        config.rounds.newest_share,
    ],
    run,
    continues=("worldmodel",),
    parallel=True,
)

"""Windows of tokens, as every stage that learns from them draws them."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from token_worldmodel import TokenBatch, TokenSampler, TokenTrajectories, load_tokens

from wm.pipeline import Context

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")  # made together: what one lacks is told before training


def load_all_tokens(context: Context) -> dict[str, TokenTrajectories]:
    """The tokens of every game up to the stage's round."""
    return {game: load_tokens(context.layout.tokens(game)) for game in context.config.games}


def newest_rows(context: Context) -> dict[str, int] | None:
    """By game, the first row of the round's own play; None in round 0."""
    if context.previous is None:
        return None
    return {game: context.layout.frames(game).round_ends[-2] for game in context.config.games}


def token_sampler(
    context: Context,
    tokens: dict[str, TokenTrajectories],
    *,
    length: int,
    batch_size: int,
    split: Split = "train",
) -> TokenSampler:
    """Windows of ``length`` steps from the run's split; in later rounds the newest play has its share."""
    config = context.config
    return TokenSampler(
        tokens,
        length=length,
        batch_size=batch_size,
        seed=config.seed,
        split=split,
        validation_fraction=config.collect.validation_fraction,
        newest=newest_rows(context) if split == "train" else None,
        newest_share=config.rounds.newest_share,
        device=context.device,
    )


def some_of_each_game(
    sampler: TokenSampler, limit: int, *, stride: int | None = None
) -> Iterator[TokenBatch]:
    """At most ``limit`` batches of every game of a sweep, spread evenly from oldest to newest play."""
    size = sampler.batch_size
    for game, starts in enumerate(sampler.swept(stride)):
        count = -(-len(starts) // size)
        for index in np.linspace(0, count - 1, min(limit, count)).round().astype(int):
            rows = starts[index * size : (index + 1) * size]
            yield sampler.gather(np.full(len(rows), game), rows).to(sampler.device)

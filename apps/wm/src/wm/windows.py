"""Windows of tokens, as every stage that trains on tokens samples them."""

from collections.abc import Iterator

from token_worldmodel import Split, TokenBatch, TokenSampler, TokenTrajectories

from wm.artifacts import tokens_of
from wm.console import train_command
from wm.stage import Context

# Samplers of both are built before training, so that a split without any window is reported at once.
SPLITS: tuple[Split, Split] = ("train", "validation")


def load_all_tokens(context: Context) -> dict[str, TokenTrajectories]:
    """The tokens of every game up to and including the stage's round."""
    return {game: tokens_of(context.layout, game) for game in context.config.games}


def newest_rows(context: Context) -> dict[str, int] | None:
    """By game, the first row of the round's own play; None in round 0.

    Raises:
        ValueError: the play of the round, or of one before it, is not there.
    """
    if context.previous is None:
        return None
    ends = {game: context.layout.frames(game).round_ends for game in context.config.games}
    for game, found in ends.items():
        if len(found) != context.round + 1:
            raise ValueError(
                f"{context.layout.data(game)} holds {len(found)} of the {context.round + 1} rounds that "
                f"stage {context.stage} reads; {train_command(context.layout.root)} collects the rest"
            )
    return {game: found[-2] for game, found in ends.items()}


def token_sampler(
    context: Context,
    tokens: dict[str, TokenTrajectories],
    *,
    length: int,
    batch_size: int,
    split: Split = "train",
) -> TokenSampler:
    """A sampler of windows of ``length`` steps; in later rounds the newest play gets its share of the
    training windows.
    """
    config = context.config
    weights = config.windows.game_weights
    return TokenSampler(
        tokens,
        length=length,
        batch_size=batch_size,
        weights=dict(zip(config.games, weights, strict=True)) if weights else None,
        seed=config.seed,
        split=split,
        validation_fraction=config.collect.validation_fraction,
        newest=None if split == "validation" else newest_rows(context),
        newest_share=config.rounds.newest_share,
        device=context.device,
    )


def newest_windows(
    context: Context,
    tokens: dict[str, TokenTrajectories],
    *,
    length: int,
    stride: int | None = None,
    batch_size: int,
    limit: int,
) -> Iterator[TokenBatch]:
    """The round's own play, in windows and batches like those of ``TokenSampler.sweep``.

    Empty in round 0, and if the codes differ from the previous round's: that round's parts do not know them.
    """
    if not context.keeps_codes:
        return iter(())
    sampler = token_sampler(context, tokens, length=length, batch_size=batch_size, split="all")
    return sampler.sweep(stride, limit=limit, newest_only=True)

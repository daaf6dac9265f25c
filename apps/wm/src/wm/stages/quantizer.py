"""Embeddings to tokens: fits codebooks to frozen embeddings, then tokenises every frame."""

import time
from typing import Any

import numpy as np
import torch
from atari_data import FrameStore
from hrvq import HRVQ, FitProgress, alternative_tokens, distortion, perplexity, persistence, usage
from token_worldmodel import TokenTrajectories, save_tokens
from torch import Tensor

from wm.artifacts import embeddings_of, tokens_of
from wm.stage import Context, Made, Stage
from wm.windows import newest_rows

ENCODE_BATCH = 8192


def run(context: Context) -> Made:
    """Fit one quantizer to the training rows of all games, save it, tokenise every row."""
    config, layout, device = context.config, context.layout, context.device
    stores = {game: layout.frames(game) for game in config.games}
    embeddings = {game: embeddings_of(layout, game) for game in config.games}
    held_out = {game: config.validates(store.episode_ids) for game, store in stores.items()}

    def training_rows() -> Tensor:  # a copy of almost all embeddings
        return torch.cat([embeddings[game][torch.from_numpy(~held_out[game])] for game in config.games])

    known = context.known("hrvq")
    if known is None:
        quantizer = _fit(context, training_rows())
    else:
        quantizer = HRVQ.load(known, device)
        if config.rounds.encoder_steps:
            first = newest_rows(context) or dict.fromkeys(config.games, 0)
            recent = [np.arange(len(stores[game]))[~held_out[game]] >= first[game] for game in config.games]
            _follow(context, quantizer, training_rows(), torch.from_numpy(np.concatenate(recent)))
    quantizer.eval()
    quantizer.save(layout.hrvq)
    metrics: dict[str, Any] = {}
    for game, store in stores.items():
        tokens, alternatives = _tokenise(context, quantizer, embeddings[game], game)
        save_tokens(layout.tokens(game), trajectories(store, tokens, alternatives), {"game": game})
        rows = torch.from_numpy(np.flatnonzero(held_out[game]))
        metrics[game] = _health(
            quantizer, embeddings[game][rows], tokens[rows], store.episode_ids[rows.numpy()]
        )
    return Made([layout.hrvq, *(layout.tokens(game) for game in config.games)], metrics)


def _fit(context: Context, train: Tensor) -> HRVQ:
    """New codes, by k-means on the embeddings of the training rows."""
    config = context.config
    quantizer = HRVQ(config.hrvq).to(context.device)
    epochs, levels = config.quantize.epochs, config.hrvq.levels
    with context.reporter.task("hrvq", epochs * levels + config.quantize.refine) as task:

        def progress(done: FitProgress) -> None:
            together = done.level == levels  # the first such pass only measures the starting point
            which = "all levels" if together else f"level {done.level}"
            task.text = f"{which}  distortion {done.distortion:.4f}"
            task.update(done.level * epochs + done.epoch + (0 if together else 1))

        quantizer.fit(
            train,
            epochs=epochs,
            refine=config.quantize.refine,
            batch_size=config.quantize.batch_size,
            seed=context.seed("hrvq"),
            progress=progress,
        )
    return quantizer


def _follow(context: Context, quantizer: HRVQ, train: Tensor, recent: Tensor) -> None:
    """Let the codes follow an encoder that was trained further, by moving averages: a code keeps its meaning.

    A fit from scratch would give better codes, but the world model would have to start again. As everywhere,
    ``rounds.newest_share`` of the rows are from the newest play: codes fitted to random play are far from
    what the agent sees.

    Args:
        train: float32 (N, D), the training rows of all games.
        recent: bool (N,), which of them are from the newest play.
    """
    config = context.config
    size, share = min(config.quantize.batch_size, len(train)), config.rounds.newest_share
    rng = context.generator(context.stage)
    fresh = recent.nonzero()[:, 0] if recent.any() else torch.arange(len(train))
    updates = -(-len(train) // size)  # per epoch
    quantizer.train()
    with context.reporter.task(context.stage, config.quantize.epochs) as task:
        for epoch in range(config.quantize.epochs):
            for _ in range(updates):
                rows = torch.randint(len(train), (size,), generator=rng)
                newer = fresh[torch.randint(len(fresh), (size,), generator=rng)]
                rows = torch.where(torch.rand(size, generator=rng) < share, newer, rows)
                # With several processes, only the first runs this.
                quantizer.update(train[rows].to(context.device), across_ranks=False)
            task.update(epoch + 1)
    followed = 1 - config.hrvq.decay ** (updates * config.quantize.epochs)
    context.console.print(
        f"{context.stage}: codes followed the embeddings {followed:.0%} of the way; a lower hrvq.decay or "
        "more quantize.epochs would bring them closer"
    )


def _tokenise(context: Context, quantizer: HRVQ, embeddings: Tensor, game: str) -> tuple[Tensor, Tensor]:
    """Tokens int16 (N, L) of every row and alternatives (N, A, L) to them, on the CPU.

    Those of earlier rounds are reused if encoder and codes were kept, and so was the number of alternatives:
    in a stage run by itself it may be new.
    """
    levels, count = quantizer.config.levels, context.config.quantize.alternatives
    known = torch.empty(0, 1 + count, levels, dtype=torch.int16)
    if context.previous is not None and context.keeps_codes:
        before = tokens_of(context.previous, game)
        if before.alternatives.shape[1] == count:
            known = torch.from_numpy(np.concatenate([before.tokens[:, None], before.alternatives], 1))
    began = time.monotonic()
    rng = context.generator(context.stage, "alternatives", game)
    new = embeddings[len(known) :]
    parts = [_read(quantizer, part.to(context.device), count, rng) for part in new.split(ENCODE_BATCH)]
    if context.previous is not None:
        seconds = time.monotonic() - began
        context.console.print(f"{context.stage}: {game}, {len(new)} rows tokenised in {seconds:.1f} s")
    tokens, alternatives = torch.cat([known, *parts]).split([1, count], 1)
    return tokens[:, 0], alternatives


@torch.inference_mode()
def _read(quantizer: HRVQ, embeddings: Tensor, alternatives: int, rng: torch.Generator) -> Tensor:
    """Tokens int16 (N, 1 + alternatives, L) on the CPU, each row's own first."""
    tokens = quantizer.encode(embeddings)[:, None]
    if alternatives:
        others = alternative_tokens(quantizer, embeddings, alternatives, generator=rng)
        tokens = torch.cat([tokens, others], 1)
    return tokens.short().cpu()


def trajectories(store: FrameStore, tokens: Tensor, alternatives: Tensor) -> TokenTrajectories:
    """The tokens of a game, and alternatives to them, with the columns of its play."""
    return TokenTrajectories(
        tokens=tokens.numpy(),
        alternatives=alternatives.numpy(),
        actions=store.actions,
        rewards=store.rewards,
        terminated=store.terminated,
        truncated=store.truncated,
        episode_ids=store.episode_ids,
        lives=store.lives,
    )


def _health(
    quantizer: HRVQ, embeddings: Tensor, tokens: Tensor, episode_ids: np.ndarray
) -> dict[str, list[float]]:
    """Per level, on validation rows: share of codes used, perplexity, how often a token stays the same,
    explained variance.
    """
    tokens, codes = tokens.long(), quantizer.config.codes_per_level
    device = quantizer.codebooks[0].device
    left = distortion(embeddings, quantizer.level_embeddings(tokens.to(device)).cpu())
    variance = (embeddings - embeddings.mean(0)).square().sum(1).mean()
    return {
        "usage": usage(tokens, codes).tolist(),
        "perplexity": perplexity(tokens, codes).tolist(),
        "persistence": persistence(tokens, torch.from_numpy(episode_ids)).tolist(),
        "explained_variance": (1 - left / variance).tolist(),
    }


STAGE = Stage(
    "hrvq",
    ("collect", "encoder"),
    lambda config: [
        config.hrvq,
        config.quantize,
        config.collect.validation_fraction,
        config.rounds.encoder_steps,
        config.rounds.newest_share,
    ],
    run,
    continues=("hrvq",),
    size="quantize.batch_size",
)

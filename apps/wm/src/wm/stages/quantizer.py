"""Embeddings to tokens: codebooks fitted to frozen embeddings, and every frame's tokens."""

from typing import Any

import numpy as np
import torch
from atari_data import FrameStore, split_episodes
from cnn_encoder import load_embeddings
from hrvq import HRVQ, FitProgress, distortion, perplexity, persistence, usage
from token_worldmodel import TokenTrajectories, save_tokens
from torch import Tensor

from wm.device import derive_seed
from wm.pipeline import Context, Made, Stage

ENCODE_BATCH = 8192


def run(context: Context) -> Made:
    """Fit one quantizer to the training rows of all games, save it, tokenise every row."""
    config, layout, device = context.config, context.layout, context.device
    stores = {game: FrameStore.open(layout.data(game)) for game in config.games}
    embeddings = {game: load_embeddings(layout.embeddings(game))[0] for game in config.games}
    held_out = {
        game: split_episodes(store.episode_ids, config.collect.validation_fraction, config.seed)
        for game, store in stores.items()
    }
    train = torch.cat([embeddings[game][torch.from_numpy(~held_out[game])] for game in config.games])
    quantizer = HRVQ(config.hrvq).to(device)
    with context.reporter.task("hrvq", config.quantize.epochs * config.hrvq.levels) as task:

        def progress(done: FitProgress) -> None:
            task.text = f"level {done.level}  distortion {done.distortion:.4f}"
            task.update(done.level * done.epochs + done.epoch)

        quantizer.fit(
            train,
            epochs=config.quantize.epochs,
            batch_size=config.quantize.batch_size,
            seed=derive_seed(config.seed, "hrvq"),
            progress=progress,
        )
    quantizer.eval()
    quantizer.save(layout.hrvq)
    metrics: dict[str, Any] = {}
    for game, store in stores.items():
        tokens = encode(quantizer, embeddings[game], device)
        save_tokens(layout.tokens(game), trajectories(store, tokens), {"game": game})
        rows = torch.from_numpy(np.flatnonzero(held_out[game]))
        metrics[game] = _health(
            quantizer, embeddings[game][rows], tokens[rows], store.episode_ids[rows.numpy()]
        )
    return Made([layout.hrvq, *(layout.tokens(game) for game in config.games)], metrics)


@torch.inference_mode()
def encode(quantizer: HRVQ, embeddings: Tensor, device: torch.device) -> Tensor:
    """Tokens int16 (N, L) on the CPU."""
    parts = [quantizer.encode(part.to(device)).short().cpu() for part in embeddings.split(ENCODE_BATCH)]
    return torch.cat(parts)


def trajectories(store: FrameStore, tokens: Tensor) -> TokenTrajectories:
    """The tokens of a game with the columns of its play."""
    return TokenTrajectories(
        tokens=tokens.numpy(),
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
    """Per level, on validation rows: codes used, perplexity, how often a token stays, explained variance."""
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
    lambda config: [config.hrvq, config.quantize, config.collect.validation_fraction],
    run,
)

"""Trains a decoder that shows what the codes retain; it is only for viewing, and no other stage reads it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from atari_data import FrameStore
from cnn_encoder import (
    Decoder,
    DecoderBatch,
    DecoderConfig,
    DecoderObjective,
    save_decoder,
)
from hrvq import HRVQ
from numpy.typing import NDArray
from torch import Tensor

from wm.artifacts import embeddings_of, frozen_quantizer, known_backgrounds, tokens_of
from wm.config import RunConfig
from wm.device import send
from wm.stage import Context, Made, Stage

METRIC_ROWS = 500
METRIC_BATCH = 128
FOREGROUND = 10.0  # gray levels away from the background


def run(context: Context) -> Made:
    """Train one decoder to draw the newest frame from the first levels or the embedding; measure each."""
    config, layout, device = context.config, context.layout, context.device
    quantizer = frozen_quantizer(layout, device)
    backgrounds = known_backgrounds(layout)
    sources = {
        game: Source(
            store=layout.frames(game),
            embeddings=embeddings_of(layout, game),
            tokens=torch.from_numpy(tokens_of(layout, game).tokens),
            background=backgrounds[game].to(device),
            quantizer=quantizer,
        )
        for game in config.games
    }
    held_out = {game: config.validates(source.store.episode_ids) for game, source in sources.items()}
    train = [(source, np.flatnonzero(~held_out[game])) for game, source in sources.items()]
    fit_config = config.train.decoder

    def batch(step: int) -> DecoderBatch:
        """Games, their training rows and the depths of the code, each drawn uniformly at random."""
        rng = np.random.default_rng([context.seed("decoder"), step])
        counts = rng.multinomial(fit_config.batch_size, np.full(len(train), 1 / len(train)))
        parts = []
        for (source, rows), count in zip(train, counts, strict=True):
            depths = rng.integers(config.hrvq.levels + 1, size=count)
            parts.append(source.batch(rng.choice(rows, size=count), depths))
        return DecoderBatch(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    decoder = Decoder(decoder_config(config), generator=context.generator("decoder")).to(device)
    trained = context.fit(
        DecoderObjective(decoder), batch, fit_config, epoch_size=sum(len(rows) for _, rows in train)
    )
    decoder.eval()
    save_decoder(layout.decoder, decoder)
    metrics: dict[str, Any] = {"train": trained}
    for game, source in sources.items():
        rows = np.flatnonzero(held_out[game])
        metrics[game] = errors(decoder, source, rows[:: -(-len(rows) // METRIC_ROWS)])
    return Made([layout.decoder], metrics)


def decoder_config(config: RunConfig) -> DecoderConfig:
    """The decoder that fits a run's encoder; a run has no other settings for it."""
    return DecoderConfig(embedding_dim=config.encoder.embedding_dim)


@dataclass(frozen=True)
class Source:
    """One game's store of frames with their embeddings (N, D) and tokens (N, L), row for row."""

    store: FrameStore
    embeddings: Tensor
    tokens: Tensor
    background: Tensor
    quantizer: HRVQ

    def batch(self, rows: NDArray[np.integer], depths: NDArray[np.integer]) -> DecoderBatch:
        """The frames at ``rows``, each with ``depths`` + 1 levels; depth L is the unquantized embedding."""
        device = self.background.device
        each = torch.arange(len(rows), device=device)
        vectors = self.vectors(rows)[each, send(torch.from_numpy(depths), device)]
        frames = send(torch.from_numpy(self.store.frames[rows]), device)
        return DecoderBatch(vectors, frames, self.background.expand(len(rows), -1, -1))

    def vectors(self, rows: NDArray[np.integer]) -> Tensor:
        """Vectors after each level, then unquantized: float32 (N, L + 1, D) on the quantizer's device."""
        index, device = torch.from_numpy(rows), self.background.device
        levels = self.quantizer.level_embeddings(send(self.tokens[index].long(), device))
        return torch.cat([levels.cumsum(-2), send(self.embeddings[index, None], device)], 1)


@torch.inference_mode()
def errors(decoder: Decoder, source: Source, rows: NDArray[np.integer]) -> dict[str, Any]:
    """Root mean squared errors in gray levels, over all pixels and over those off the background.

    ``rmse`` and ``foreground_rmse`` have an entry per level and one for the embedding; prefixed with
    ``background_``, they are the errors of drawing only the background.
    """
    # Sums over all pixels and over the foreground's: (2, L + 2), with the background as one more picture; and
    # the numbers of these pixels: (2,).
    sums, pixels = torch.zeros((), dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    for start in range(0, len(rows), METRIC_BATCH):
        part = rows[start : start + METRIC_BATCH]
        frames = torch.from_numpy(source.store.frames[part]).to(source.background.device).float()[:, None]
        foreground = (frames - source.background).abs() > FOREGROUND
        drawn = decoder(source.vectors(part), source.background)
        pictures = torch.cat([drawn, source.background.expand(len(part), 1, -1, -1)], 1)
        squared = (pictures - frames).square()
        both = torch.stack([squared, squared * foreground])
        sums = sums + both.sum((1, 3, 4), dtype=torch.float64).cpu()
        pixels += torch.tensor([foreground.numel(), int(foreground.sum())])
    everywhere, off_background = (sums / pixels.clamp(min=1)[:, None]).sqrt().tolist()
    return {
        "rmse": everywhere[:-1],
        "foreground_rmse": off_background[:-1],
        "background_rmse": everywhere[-1],
        "background_foreground_rmse": off_background[-1],
    }


STAGE = Stage(
    "decoder",
    ("collect", "encoder", "hrvq"),
    lambda config: [decoder_config(config), config.train.decoder, config.collect.validation_fraction],
    run,
)

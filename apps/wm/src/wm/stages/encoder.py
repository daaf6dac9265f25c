"""Frames to embeddings: trains the encoder by temporal InfoNCE on clips, then embeds every frame."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from atari_data import FrameStore
from cnn_encoder import (
    ContrastiveObjective,
    Encoder,
    diversity,
    embed,
    embed_batches,
    load_encoder,
    save_encoder,
    temporal_consistency,
    write_embeddings,
)
from torch import Tensor

from wm.artifacts import embeddings_of
from wm.clips import ClipSampler
from wm.run import Layout
from wm.stacks import batches_of_stacks
from wm.stage import Context, Made, Stage
from wm.windows import newest_rows

METRIC_ROWS = 4000
METRIC_PAIRS = 20_000
HEAD_START_STEPS = 100  # in which only the new heads learn, if a known encoder is trained further


def run(context: Context) -> Made:
    """Train one encoder on all games, save it with their backgrounds, embed every frame.

    A known encoder is trained further, or kept.
    """
    config, layout, device = context.config, context.layout, context.device
    stores = {game: layout.frames(game) for game in config.games}
    known = context.known("encoder")
    if known is not None and not config.rounds.encoder_steps:
        return _keep(context, known, stores)
    backgrounds = {game: _background(store) for game, store in stores.items()}
    sampler = ClipSampler(
        stores,
        backgrounds,
        length=config.windows.clip,
        batch_size=config.train.encoder.batch_size,
        seed=context.seed("clips"),
        validates=config.validates,
        device=device,
        newest=newest_rows(context),
        newest_share=config.rounds.newest_share,
    )
    contrastive = config.contrastive
    if known is None:
        encoder = Encoder(config.encoder, generator=context.generator("encoder"))
    else:
        encoder, _ = load_encoder(known)
        steps = min(HEAD_START_STEPS, config.train.encoder.steps // 2) if contrastive.has_heads else 0
        contrastive = replace(contrastive, inverse_start_step=0, head_start_steps=steps)
    encoder = encoder.to(device)
    objective = ContrastiveObjective(encoder, contrastive, generator=context.generator("contrastive"))
    trained = context.fit(
        objective.to(device),
        lambda step: sampler.batch(context.first_batch + step),
        config.train.encoder,
        epoch_size=sampler.num_clips,
    )
    return _made(context, encoder, backgrounds, stores, trained)


def _keep(context: Context, known: Path, stores: dict[str, FrameStore]) -> Made:
    """Keep a known encoder and the embeddings of the round before, if any; embed only the frames since."""
    encoder, seen = load_encoder(known)
    backgrounds = {game: seen[game] if game in seen else _background(store) for game, store in stores.items()}
    return _made(context, encoder.to(context.device), backgrounds, stores, {}, before=context.previous)


def _background(store: FrameStore) -> Tensor:
    return torch.from_numpy(store.mean_frame())


def _made(
    context: Context,
    encoder: Encoder,
    backgrounds: dict[str, Tensor],
    stores: dict[str, FrameStore],
    train: dict[str, float],
    before: Layout | None = None,
) -> Made:
    """Save the encoder and the embeddings of all rows; those of a round ``before`` are taken from it."""
    config, layout, device = context.config, context.layout, context.device
    encoder.eval()
    save_encoder(layout.encoder, encoder, backgrounds)
    for game, store in stores.items():
        known = None if before is None else embeddings_of(before, game)
        _embed(context, encoder, store, backgrounds[game], game, known)
    untrained = Encoder(config.encoder, generator=context.generator("random")).to(device)
    metrics: dict[str, object] = {"train": train}
    for game, store in stores.items():
        metrics[game] = {
            "trained": _health(context, encoder, store, backgrounds[game]),
            "random encoder": _health(context, untrained, store, backgrounds[game]),
        }
    return Made([layout.encoder, *(layout.embeddings(game) for game in config.games)], metrics)


def _embed(
    context: Context,
    encoder: Encoder,
    store: FrameStore,
    background: Tensor,
    game: str,
    known: Tensor | None,
) -> None:
    """Write the embeddings of all rows; those of the first rows may already be known."""
    done, began = 0 if known is None else len(known), time.monotonic()
    with context.reporter.task(f"embed {game}", len(store), done) as task:

        def stacks() -> Iterator[np.ndarray]:
            embedded = done
            for batch in batches_of_stacks(store, np.arange(done, len(store))):
                yield batch
                embedded += len(batch)
                task.update(embedded)

        write_embeddings(
            context.layout.embeddings(game),
            chain([] if known is None else [known], embed_batches(encoder, stacks(), background)),
            num_frames=len(store),
            config={"game": game},
        )
    if context.previous is not None:  # by far the largest cost of changing the tokens
        seconds = time.monotonic() - began
        context.console.print(
            f"{context.stage}: {game}, {len(store) - done} rows embedded in {seconds:.1f} s"
        )


def _health(context: Context, encoder: Encoder, store: FrameStore, background: Tensor) -> dict[str, float]:
    """Temporal consistency and diversity on consecutive rows of validation episodes."""
    rows = np.flatnonzero(context.config.validates(store.episode_ids))[:METRIC_ROWS]
    embeddings = embed(encoder, batches_of_stacks(store, rows), background).cpu()
    ids = torch.from_numpy(np.ascontiguousarray(store.episode_ids[rows]))
    rng = context.generator("metrics")
    return {
        "temporal_consistency": temporal_consistency(embeddings, ids, num_pairs=METRIC_PAIRS, generator=rng),
        "diversity": diversity(embeddings, num_pairs=METRIC_PAIRS, generator=rng),
    }


STAGE = Stage(
    "encoder",
    ("collect",),
    lambda config: [
        config.encoder,
        config.contrastive,
        config.train.encoder,
        config.windows.clip,
        config.collect.validation_fraction,
        config.rounds.encoder_steps,
        config.rounds.newest_share,
    ],
    run,
    continues=("encoder",),
)

"""Train an encoder on recorded play and print what is left of the state after a residual quantizer.

    uv run python packages/cnn-encoder/benchmarks/retention.py TRAIN_DIR TEST_DIR --game pong \\
        --variables ball_x=49 ball_y=54 player_y=51 enemy_y=50 --steps 1000 --set temperature=0.03

TRAIN_DIR and TEST_DIR hold `frames` artifacts (shard-*.safetensors with a ram column) of different seeds; a
variable is given by the index of its RAM byte. The quantizer is plain k-means on residuals, level by level:
three levels of 256 codes, or `--levels` levels of each of the sizes in `--codes`. `--save` saves the encoder
and `--encoder` measures a saved one instead of training, so that a curve over levels and codes needs one
training.
"""

import argparse
import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cnn_encoder import (
    ClipBatch,
    ContrastiveConfig,
    ContrastiveObjective,
    Encoder,
    EncoderConfig,
    MLPProbeConfig,
    Stage,
    StateLabels,
    diversity,
    embed,
    load_encoder,
    mean_frame,
    retention,
    retention_table,
    save_encoder,
    state_labels,
    temporal_consistency,
)
from safetensors import safe_open
from torch import Tensor


class Play(NamedTuple):
    frames: Tensor  # (N, 84, 84) uint8
    actions: Tensor  # (N,) int64
    starts: Tensor  # (N,) int64: first row of each row's episode
    ids: Tensor  # (N,) int64
    ram: np.ndarray  # (N, 128) uint8


def read(directory: Path, limit: int) -> Play:
    columns: dict[str, list[Tensor]] = {"frames": [], "actions": [], "episode_ids": [], "ram": []}
    for path in sorted(directory.glob("shard-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name, parts in columns.items():
                parts.append(file.get_tensor(name))
    frames, actions, ids, ram = (torch.cat(parts)[:limit] for parts in columns.values())
    ids = ids.long()
    first = torch.ones(len(ids), dtype=torch.bool)
    first[1:] = ids[1:] != ids[:-1]
    starts = torch.where(first, torch.arange(len(ids)), 0).cummax(0).values
    return Play(frames, actions.long(), starts, ids, ram.numpy())


def rows_with_history(play: Play, rows: Tensor, length: int) -> Tensor:
    """Frames rows-3 .. rows+length-1, zero before the episode: (B,) -> uint8 (B, 3+length, 84, 84)."""
    index = rows[:, None] + torch.arange(-3, length)
    clip = play.frames[index.clamp(min=0)]
    clip[index < play.starts[rows][:, None]] = 0
    return clip


def train(play: Play, background: Tensor, config: ContrastiveConfig, options: argparse.Namespace) -> Encoder:
    generator = torch.Generator().manual_seed(options.seed)
    encoder = Encoder(EncoderConfig(), generator=generator)
    objective = ContrastiveObjective(encoder, config, generator=generator)
    optimizer = torch.optim.AdamW(objective.parameters(), options.lr, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(1, (s + 1) / 50) * (0.05 + 0.475 * (1 + math.cos(math.pi * s / options.steps))),
    )
    length = options.length
    whole = play.ids[: len(play.ids) - length + 1] == play.ids[length - 1 :]
    valid = whole.nonzero().squeeze(1)
    start = time.perf_counter()
    for step in range(options.steps):
        first = valid[torch.randint(len(valid), (options.stretches,), generator=generator)]
        actions = play.actions[first[:, None] + torch.arange(length)]
        batch = ClipBatch(
            rows_with_history(play, first, length), actions, background.expand(len(first), 84, 84)
        )
        with torch.autocast("cpu", torch.bfloat16):
            loss, metrics = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        objective.after_step()
        if step % 100 == 0 or step == options.steps - 1:
            values = " ".join(f"{name} {value.item():.3f}" for name, value in metrics.items())
            print(f"{step:5d} {time.perf_counter() - start:5.0f} s  {values}", flush=True)
    return encoder.eval()


def residual_codes(
    train: Tensor, test: Tensor, levels: int, size: int, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Quantized train and test rows after each level."""
    stages, sums = [train.clone(), test.clone()], [torch.zeros_like(train), torch.zeros_like(test)]
    found = []
    for _ in range(levels):
        residual = stages[0]
        codes = residual[torch.randperm(len(residual), generator=generator)[:size]].clone()
        for _ in range(12):
            nearest = torch.cdist(residual, codes).argmin(1)
            count = torch.bincount(nearest, minlength=size)[:, None]
            mean = torch.zeros_like(codes).index_add_(0, nearest, residual) / count.clamp(min=1)
            spare = residual[torch.randint(len(residual), (size,), generator=generator)]
            codes = torch.where(count > 0, mean, spare)
        for i in range(2):
            chosen = codes[torch.cdist(stages[i], codes).argmin(1)]
            stages[i] = stages[i] - chosen
            sums[i] = sums[i] + chosen
        found.append((sums[0], sums[1]))
    return found


def overrides(pairs: list[str]) -> dict[str, Any]:
    types = {field.name: field.type for field in fields(ContrastiveConfig)}
    parse = {bool: lambda text: text == "true", int: int, float: float}
    return {name: parse[types[name]](value) for name, value in (pair.split("=") for pair in pairs)}


def pick(labels: StateLabels, rows: Tensor) -> StateLabels:
    return StateLabels(labels.names, labels.values[rows], labels.in_play[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--game")
    parser.add_argument("--variables", nargs="+", required=True)
    parser.add_argument("--set", nargs="*", default=[], help="fields of ContrastiveConfig, name=value")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--stretches", type=int, default=8)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--limit", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--codes", type=int, nargs="+", default=[256], help="codes per level")
    parser.add_argument("--save", type=Path, help="where to save the trained encoder")
    parser.add_argument("--encoder", type=Path, help="an encoder to measure, instead of training one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)

    play, held_out = read(options.train, options.limit), read(options.test, 20_000)
    if options.encoder:
        encoder, backgrounds = load_encoder(options.encoder)
        background = backgrounds[options.game]
    else:
        background = mean_frame(play.frames)
        encoder = train(play, background, ContrastiveConfig(**overrides(options.set)), options)
    if options.save:
        save_encoder(options.save, encoder, {options.game: background})

    rows = torch.randperm(len(play.ids), generator=generator)[:30_000].sort().values
    features, labels = [], []
    for part, chosen in ((play, rows), (held_out, torch.arange(len(held_out.ids)))):
        batches = (rows_with_history(part, some, 1) for some in chosen.split(256))
        features.append(embed(encoder, batches, background))
        ram = {name: part.ram[:, int(i)] for name, i in (pair.split("=") for pair in options.variables)}
        labels.append(pick(state_labels(ram, game=options.game, episode_ids=part.ids.numpy()), chosen))
    consistency = temporal_consistency(features[1], held_out.ids, generator=generator)
    print(f"temporal {consistency:.3f}  diversity {diversity(features[1], generator=generator):.3f}")
    stages = [Stage("embedding", features[0], features[1])]
    variance = (features[1] - features[1].mean(0)).square().sum()
    for size in options.codes:
        quantized = residual_codes(features[0], features[1], options.levels, size, generator)
        for number, (learned, tested) in enumerate(quantized, start=1):
            explained = 1 - (features[1] - tested).square().sum() / variance
            stages.append(Stage(f"{number} x {size} ({explained:.3f})", learned, tested))
    print("R2 (mean error); levels x codes (explained variance)")
    print(retention_table(retention(stages, labels[0], labels[1], MLPProbeConfig(num_steps=1200))))


if __name__ == "__main__":
    main()

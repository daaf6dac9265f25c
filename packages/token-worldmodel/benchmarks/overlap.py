"""What overlapping windows do to a validation score, and how few passes it takes to reach it.

    uv run python packages/token-worldmodel/benchmarks/overlap.py \\
        pong.safetensors breakout.safetensors --rows 10000 --passes 50

A tenth of each game's episodes is held out. Of the windows of the other episodes, one beginning at every row,
a tenth is held out too, but all of their rows are in windows that are trained on. The same model is scored on
both, next to copying the step before, and at the end also by how many steps it has read before the one it
predicts: what a short context leaves open is not memorised in any number of passes. A pass reads as many rows
as there are rows to train on.
"""

import argparse
import math
import time

import numpy as np
import torch
from masks import add_options, build, part, take_step
from token_worldmodel import (
    TokenSampler,
    TokenTrajectories,
    WorldModel,
    WorldModelObjective,
    evaluate,
    load_tokens,
    make_optimizer,
)
from token_worldmodel.model import after_first
from token_worldmodel.sampler import split_episodes, window_starts


def windows_of(sampler: TokenSampler, games: list[TokenTrajectories]) -> list[np.ndarray]:
    """Windows to train on, held out among these, and of held-out episodes: (N, 2), game and first row."""
    kinds: list[list[np.ndarray]] = [[], [], []]
    for game, trajectories in enumerate(games):
        starts = window_starts(trajectories.episode_ids, sampler.length)
        apart = split_episodes(trajectories.episode_ids, 0.1, seed=0)[starts]
        chosen = np.random.default_rng([1, game]).random(len(starts)) < 0.1
        for kind, mask in zip(kinds, (~apart & ~chosen, ~apart & chosen, apart), strict=True):
            kind.append(np.stack([np.full(mask.sum(), game), starts[mask]], 1))
    return [np.concatenate(kind) for kind in kinds]


def score(model: WorldModel, sampler: TokenSampler, windows: np.ndarray) -> str:
    """Accuracy of each level next to copying, on up to 256 windows, the same at every call."""
    picked = windows[np.random.default_rng(2).permutation(len(windows))[:256]]
    parts = np.array_split(picked, math.ceil(len(picked) / 32))
    return "  ".join(
        f"L{level} {e.accuracy:.4f} (copying {e.copy_accuracy:.4f}), changed {e.changed_accuracy:.4f}, "
        f"cross-entropy {e.cross_entropy:.4f}"
        for level, e in enumerate(evaluate(model, (sampler.gather(*part.T) for part in parts))["all"])
    )


@torch.no_grad()
def by_context(model: WorldModel, sampler: TokenSampler, windows: np.ndarray) -> str:
    """Accuracy of each level by the number of steps read before, on up to 1024 windows, always the same."""
    picked = windows[np.random.default_rng(2).permutation(len(windows))[:1024]]
    right = torch.zeros(model.config.num_levels, sampler.length - 1)
    for some in np.array_split(picked, math.ceil(len(picked) / 32)):
        batch = sampler.gather(*some.T)
        for level, logits in enumerate(model.eval()(batch.tokens, batch.actions).logits):
            hit = after_first(logits, level).argmax(-1) == batch.tokens[:, 1:, level]
            right[level] += hit.sum(0) / len(picked)
    spans = [(low, min(2 * low, sampler.length)) for low in (1, 2, 4, 8, 16, 32) if low < sampler.length]
    return "\n".join(
        f"  {f'{low} to {high - 1}' if high - low > 1 else low} steps read: "
        + "  ".join(f"L{level} {right[level, low - 1 : high - 1].mean():.4f}" for level in range(len(right)))
        for low, high in spans
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, steps=None, windows=8, length=64)
    parser.add_argument("--rows", type=int, default=10_000, help="rows of each game")
    parser.add_argument("--passes", type=int, default=50)
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(dim=384, layers=6, heads=6)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    loaded = {f"{path.parent.name}/{path.stem}": load_tokens(path) for path in args.files}
    games = {name: part(t, slice(args.rows)) for name, t in loaded.items()}
    model = build(games, args)
    sampler = TokenSampler(games, length=args.length, batch_size=args.windows, seed=args.seed, split="all")
    train, overlapping, apart = windows_of(sampler, list(games.values()))
    rows = len({(game, start + t) for game, start in train.tolist() for t in range(args.length)})
    steps = math.ceil(args.passes * rows / (args.windows * args.length))
    print(
        f"{rows} rows to train on, {len(train)} windows; {steps} steps of {args.windows} windows; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters",
        flush=True,
    )
    shown = {round(steps * part / 8) for part in range(1, 9)}
    objective = WorldModelObjective(model)
    optimizer = make_optimizer(model, args.optimizer, lr=args.rate, weight_decay=0.01, betas=(0.9, 0.95))
    random = np.random.default_rng([3, args.seed])
    began = time.monotonic()
    for step in range(steps):
        rate = args.rate * min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
        drawn = train[random.choice(len(train), args.windows, replace=False)]
        loss = take_step(objective, optimizer, sampler.gather(*drawn.T), rate)
        if step + 1 in shown:
            passes = (step + 1) * args.windows * args.length / rows
            print(f"after {passes:.1f} passes, {time.monotonic() - began:.0f} s, loss {loss:.3f}")
            print(f"  overlapping windows  {score(model, sampler, overlapping)}")
            print(f"  held-out episodes    {score(model, sampler, apart)}", flush=True)
            model.train()
    print(f"overlapping windows\n{by_context(model, sampler, overlapping)}")
    print(f"held-out episodes\n{by_context(model, sampler, apart)}")


if __name__ == "__main__":
    main()

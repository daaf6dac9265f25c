"""What overlapping windows do to a validation score, and how few passes it takes to get there.

    python benchmarks/overlap.py pong.safetensors breakout.safetensors --rows 10000 --passes 50

A tenth of each game's episodes is held out. Of the windows of the other episodes, one at every row, a tenth
is held out too: its rows are all in windows that are trained on. The same model is scored on both, beside
copying the step before. A pass is as many rows read as there are rows to train on.
"""

import argparse
import math
import time

import numpy as np
import torch
from masks import add_options, build
from token_worldmodel import (
    TokenBatch,
    TokenTrajectories,
    WorldModel,
    WorldModelObjective,
    evaluate,
    load_tokens,
    parameter_groups,
)
from token_worldmodel.sampler import split_episodes, window_starts

Windows = list[tuple[int, int]]  # (game, first row)


def windows_of(games: list[TokenTrajectories], length: int) -> tuple[Windows, Windows, Windows]:
    """Those to train on, those held out among them, and those of held-out episodes."""
    train: Windows = []
    overlapping: Windows = []
    apart: Windows = []
    for game, trajectories in enumerate(games):
        starts = window_starts(trajectories.episode_ids, length)
        held_out = split_episodes(trajectories.episode_ids, 0.1, seed=0)[starts]
        chosen = np.random.default_rng([1, game]).random(len(starts)) < 0.1
        apart += [(game, start) for start in starts[held_out]]
        overlapping += [(game, start) for start in starts[~held_out & chosen]]
        train += [(game, start) for start in starts[~held_out & ~chosen]]
    return train, overlapping, apart


def gather(games: list[TokenTrajectories], windows: Windows, length: int) -> TokenBatch:
    def column(name: str, dtype: torch.dtype) -> torch.Tensor:
        rows = [getattr(games[game], name)[start : start + length] for game, start in windows]
        return torch.from_numpy(np.stack(rows)).to(dtype)

    return TokenBatch(
        tokens=column("tokens", torch.int64),
        actions=column("actions", torch.int64),
        rewards=column("rewards", torch.float32),
        terminated=column("terminated", torch.bool),
        truncated=column("truncated", torch.bool),
        final=column("final", torch.bool),
        lives=column("lives", torch.int64),
        game_index=torch.tensor([game for game, _ in windows]),
    )


def score(model: WorldModel, games: list[TokenTrajectories], windows: Windows, length: int) -> str:
    """Accuracy of each level beside copying, on up to 256 windows drawn once for all."""
    picked = np.random.default_rng(2).permutation(len(windows))[:256]
    batches = [
        gather(games, [windows[i] for i in part], length)
        for part in np.array_split(picked, math.ceil(len(picked) / 32))
    ]
    return "  ".join(
        f"L{level} {e.accuracy:.4f} (copying {e.copy_accuracy:.4f}), changed {e.changed_accuracy:.4f}, "
        f"cross-entropy {e.cross_entropy:.4f}"
        for level, e in enumerate(evaluate(model, batches)["all"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_options(parser, steps=0, windows=8, length=64)
    parser.add_argument("--rows", type=int, default=10_000, help="of each game")
    parser.add_argument("--passes", type=int, default=50, help="in place of --steps")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(dim=384, layers=6, heads=6)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    loaded = {path.parent.name + "/" + path.stem: load_tokens(path) for path in args.files}
    games = {
        name: TokenTrajectories(**{field: getattr(t, field)[: args.rows] for field in t.__slots__})
        for name, t in loaded.items()
    }
    model = build(games, args)
    everything = list(games.values())
    train, overlapping, apart = windows_of(everything, args.length)
    rows = len({(game, start + t) for game, start in train for t in range(args.length)})
    steps = math.ceil(args.passes * rows / (args.windows * args.length))
    print(
        f"{rows} rows to train on, {len(train)} windows; {steps} steps of {args.windows} windows; "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters",
        flush=True,
    )
    shown = {round(steps * part / 8) for part in range(1, 9)}
    objective = WorldModelObjective(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=args.rate, betas=(0.9, 0.95), fused=True)
    random = np.random.default_rng([3, args.seed])
    began = time.monotonic()
    for step in range(steps):
        rate = args.rate * min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 0.01)
        for group in optimizer.param_groups:
            group["lr"] = rate
        drawn = random.choice(len(train), args.windows, replace=False)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = objective(gather(everything, [train[i] for i in drawn], args.length))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step + 1 in shown:
            passes = (step + 1) * args.windows * args.length / rows
            print(f"after {passes:.1f} passes, {time.monotonic() - began:.0f} s, loss {loss.item():.3f}")
            print(f"  overlapping windows  {score(model, everything, overlapping, args.length)}")
            print(f"  held-out episodes    {score(model, everything, apart, args.length)}", flush=True)
            model.train()


if __name__ == "__main__":
    main()

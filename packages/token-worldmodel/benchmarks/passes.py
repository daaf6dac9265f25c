"""How many passes over little play a model can make before it memorises it: scores on held-out episodes.

    uv run python packages/token-worldmodel/benchmarks/passes.py \\
        pong.safetensors --rows 10000 --passes 5 10 20 40 --dropout 0.1

The first `--rows` rows are for training, whole episodes of the `--held-out` rows after them for testing. For
each number of passes a model is trained from scratch, with its own cosine schedule. A pass reads as many rows
as there are rows to train on. Where the file holds alternatives to the tokens, training reads them as well,
unless `--own-tokens` is given.
"""

import argparse
import math
from dataclasses import replace

import numpy as np
import torch
from masks import add_options, build, part, take_step
from token_worldmodel import (
    TokenSampler,
    WorldModelObjective,
    evaluate,
    load_tokens,
    make_optimizer,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, steps=None, windows=32, length=20)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--held-out", type=int, default=20_000)
    parser.add_argument("--passes", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--decay", type=float, default=0.1, help="weight decay")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--token-noise", type=float, default=0.0)
    parser.add_argument("--own-tokens", action="store_true", help="leave out alternatives to the tokens")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    (path,) = args.files
    known = load_tokens(path)
    if args.own_tokens:
        known = replace(known, alternatives=np.zeros(0))
    play, apart = part(known, slice(args.rows)), part(known, slice(args.rows, args.rows + args.held_out))
    train, test = (
        TokenSampler({"all": t}, length=args.length, batch_size=args.windows, seed=args.seed, split="all")
        for t in (play, part(apart, slice((apart.episode_ids == play.episode_ids[-1]).sum(), None)))
    )
    for passes in args.passes:
        torch.manual_seed(args.seed)
        model = build({"all": known}, args, dropout=args.dropout, token_noise=args.token_noise)
        objective = WorldModelObjective(model)
        optimizer = make_optimizer(
            model, args.optimizer, lr=args.rate, weight_decay=args.decay, betas=(0.9, 0.95)
        )
        steps = math.ceil(passes * args.rows / (args.windows * args.length))
        last = 0.0
        for step in range(steps):
            shape = min((step + 1) / min(100, steps / 10), 0.55 + 0.45 * math.cos(math.pi * step / steps))
            loss = take_step(objective, optimizer, train.batch(step), args.rate * shape)
            last += loss / min(20, steps) if steps - step <= 20 else 0.0
        levels = evaluate(model.eval(), test.sweep())["all"]
        print(
            f"{passes:4d} passes, {steps} steps, training loss {last:.3f}; held out: cross-entropy "
            + " ".join(f"{e.cross_entropy:.3f}" for e in levels)
            + ", accuracy "
            + " ".join(f"{e.accuracy:.3f} ({e.copy_accuracy:.3f})" for e in levels),
            flush=True,
        )


if __name__ == "__main__":
    main()

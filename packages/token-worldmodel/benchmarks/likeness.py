"""What a world model gains on held-out episodes if similar codes learn together, and how its dreams do.

    uv run python packages/token-worldmodel/benchmarks/likeness.py RUN/tokens/pong.safetensors \
        --codes RUN/hrvq.safetensors --rows 20000

Two models are trained with the same settings and seed, one of them within `alike_codes_learn_together`; with
``--rows`` only on the first rows, which are split as they are in the whole file. Both are scored on all
held-out episodes.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

import torch
from masks import add_options, build, fit, part
from noise import DREAMS, print_dream
from safetensors.torch import load_file
from token_worldmodel import TokenSampler, alike_codes_learn_together, evaluate, load_tokens


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, steps=2000, windows=32, length=20)
    parser.add_argument("--codes", type=Path, required=True, help="the quantizer's file")
    parser.add_argument("--rows", type=int, help="rows of each file to train on; all by default")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    games = {path.stem: load_tokens(path) for path in args.files}
    known = {game: part(play, slice(args.rows)) for game, play in games.items()}
    tensors = load_file(args.codes)
    levels = next(iter(games.values())).num_levels
    codebooks = [tensors[f"codebooks.{level}"] for level in range(levels)]
    codes = tuple(len(codebook) for codebook in codebooks)  # including codes that never occur in these tokens
    draws = {"length": args.length, "seed": args.seed}
    held_out = TokenSampler(games, batch_size=DREAMS, split="validation", **draws)
    for together in (False, True):
        torch.manual_seed(args.seed)
        model = build(games, args, num_codes=codes, token_noise=args.noise)
        train = TokenSampler(known, batch_size=args.windows, **draws)
        with alike_codes_learn_together(model, codebooks) if together else nullcontext():
            fit(model, train, args.steps)
        scores = evaluate(model.eval(), held_out.sweep())["all"]
        changed = " ".join(f"{level.changed_accuracy:.3f}" for level in scores)
        entropy = " ".join(f"{level.cross_entropy:.3f}" for level in scores)
        print(f"{'together' if together else 'each code by itself'}: cross-entropy {entropy}")
        print(f"  accuracy where the token changed {changed}", flush=True)
        print_dream(model, held_out.batch(0), temperature=0.5, seed=args.seed)


if __name__ == "__main__":
    main()

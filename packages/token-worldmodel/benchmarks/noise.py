"""What noise on the input tokens in training does to predictions and dreams of held-out episodes.

    uv run python packages/token-worldmodel/benchmarks/noise.py TOKENS.safetensors --shares 0 0.05 0.1 0.2

For each share a model is trained with otherwise equal settings. Its predictions are scored given the true
past, and its dreams, under the actions really played after four real steps, are compared with what happened:
agreement of L0 by horizon. Run it with one share and different `--loss-weights` to compare those.
"""

import argparse

import torch
from masks import add_options, build, fit
from token_worldmodel import (
    TokenBatch,
    TokenSampler,
    WorldModel,
    evaluate,
    load_tokens,
    replay,
    token_fidelity,
)

CONTEXT = 4
DREAMS = 512


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, steps=2000, windows=32, length=20)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.5])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    games = {path.stem: load_tokens(path) for path in args.files}
    for share in args.shares:
        torch.manual_seed(args.seed)
        model = build(games, args, token_noise=share)
        draws = {"length": args.length, "seed": args.seed}
        fit(model, TokenSampler(games, batch_size=args.windows, **draws), args.steps)
        held_out = TokenSampler(games, batch_size=DREAMS, split="validation", **draws)
        scores = evaluate(model.eval(), held_out.sweep())["all"]
        accuracy = " ".join(f"{level.accuracy:.3f}" for level in scores)
        entropy = " ".join(f"{level.cross_entropy:.3f}" for level in scores)
        print(f"noise {share:.2f}  accuracy {accuracy}  cross-entropy {entropy}", flush=True)
        batch = held_out.batch(0)
        for temperature in args.temperatures:
            print_dream(model, batch, temperature=temperature, seed=args.seed)


def print_dream(model: WorldModel, batch: TokenBatch, *, temperature: float, seed: int) -> None:
    """Print how often L0 is right in dreams of the windows under the actions really played, by horizon."""
    random = torch.Generator().manual_seed(seed)
    dream = replay(model, batch.tokens, batch.actions, CONTEXT, generator=random, temperature=temperature)
    found = token_fidelity(dream.tokens, batch.tokens[:, CONTEXT - 1 :])
    horizons = [h for h in (1, 2, 3, 5, 8, 12, 15, 16) if h <= len(found.agreement)]
    agreement = "  ".join(f"{h}: {found.agreement[h - 1, 0]:.2f}" for h in horizons)
    print(f"  dream at temperature {temperature}: L0 agrees at step {agreement}", flush=True)


if __name__ == "__main__":
    main()

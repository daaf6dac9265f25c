"""What noise on the tokens read in training does to predictions, and to dreams, of held-out episodes.

    uv run python packages/token-worldmodel/benchmarks/noise.py TOKENS.safetensors --shares 0 0.05 0.1 0.2

For each share a model is trained alike; then its predictions are scored with the true past, and dreams of the
actions really played, after four real steps, are compared with what happened: agreement of L0 by horizon.
"""

import argparse
from pathlib import Path

import torch
from masks import fit
from token_worldmodel import (
    TokenSampler,
    WorldModel,
    WorldModelConfig,
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
    parser.add_argument("files", type=Path, nargs="+", help="token artifacts, one per game")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.5])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    games = {path.stem: load_tokens(path) for path in args.files}
    num_codes = 1 + max(int(trajectories.tokens.max()) for trajectories in games.values())
    for share in args.shares:
        torch.manual_seed(args.seed)
        config = WorldModelConfig(
            num_codes=num_codes,
            max_steps=args.length,
            dim=args.dim,
            ffn_dim=4 * args.dim,
            num_layers=args.layers,
            num_heads=args.heads,
            token_noise=share,
        )
        model = WorldModel(config)
        draws = {"length": args.length, "seed": args.seed}
        fit(model, TokenSampler(games, batch_size=args.windows, **draws), args.steps)
        held_out = TokenSampler(games, batch_size=DREAMS, split="validation", **draws)
        scores = evaluate(model.eval(), held_out.sweep())["all"]
        accuracy = " ".join(f"{level.accuracy:.3f}" for level in scores)
        entropy = " ".join(f"{level.cross_entropy:.3f}" for level in scores)
        print(f"noise {share:.2f}  accuracy {accuracy}  cross-entropy {entropy}", flush=True)
        batch = held_out.batch(0)
        for temperature in args.temperatures:
            random = torch.Generator().manual_seed(args.seed)
            dream = replay(
                model, batch.tokens, batch.actions, CONTEXT, generator=random, temperature=temperature
            )
            found = token_fidelity(dream.tokens, batch.tokens[:, CONTEXT - 1 :])
            horizons = [h for h in (1, 2, 3, 5, 8, 12, 16) if h <= len(found.agreement)]
            agreement = "  ".join(f"{h}: {found.agreement[h - 1, 0]:.2f}" for h in horizons)
            print(f"  dream at temperature {temperature}: L0 agrees at step {agreement}", flush=True)


if __name__ == "__main__":
    main()

"""How well each mask predicts held-out episodes after the same short training, on token files of your own."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from token_worldmodel import (
    TokenBatch,
    TokenSampler,
    TokenTrajectories,
    WorldModel,
    WorldModelConfig,
    WorldModelObjective,
    evaluate,
    load_tokens,
    parameter_groups,
)

VARIANTS = {
    "none": {"detail": "none"},
    "last": {"detail": "last"},
    "past": {"detail": "past"},
    "causal": {"mask": "causal"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, steps=700, windows=16, length=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    games = {path.stem: load_tokens(path) for path in args.files}
    for seed in args.seeds:
        for name, variant in VARIANTS.items():
            torch.manual_seed(seed)
            model = build(games, args, **variant)
            train, validation = (
                TokenSampler(games, length=args.length, batch_size=args.windows, seed=seed, split=split)
                for split in ("train", "validation")
            )
            fit(model, train, args.steps)
            for level, e in enumerate(evaluate(model.eval(), validation.sweep())["all"]):
                print(
                    f"seed {seed}  {name:6s}  L{level}  cross-entropy {e.cross_entropy:.3f}  "
                    f"accuracy {e.accuracy:.3f} (copying {e.copy_accuracy:.3f})  "
                    f"changed {e.changed_accuracy:.3f}  calibration {e.calibration_error:.3f}",
                    flush=True,
                )


def add_options(parser: argparse.ArgumentParser, *, steps: int | None, windows: int, length: int) -> None:
    """Options shared by the comparisons of small models."""
    parser.add_argument("files", type=Path, nargs="+", help="token artifacts, one per game")
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--windows", type=int, default=windows)
    parser.add_argument("--length", type=int, default=length)
    parser.add_argument("--loss-weights", type=float, nargs="+", default=(), help="one per level")
    parser.add_argument(
        "--codes", type=Path, help="file of the quantizer that made the tokens: its codes are read too"
    )
    parser.add_argument("--position", choices=["token", "step"], default="token")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def build(games: dict[str, TokenTrajectories], args: argparse.Namespace, **changes: Any) -> WorldModel:
    """An untrained model for the games' tokens, with the codes that occur in them unless told of more."""
    num_levels = next(iter(games.values())).num_levels
    tensors = load_file(args.codes) if args.codes else {}
    codebooks = [tensors[f"codebooks.{level}"] for level in range(num_levels if tensors else 0)]
    values = {
        "num_levels": num_levels,
        "num_codes": 1
        + max(int(t.max(initial=0)) for g in games.values() for t in (g.tokens, g.alternatives)),
        "max_steps": args.length,
        "dim": args.dim,
        "ffn_dim": 4 * args.dim,
        "num_layers": args.layers,
        "num_heads": args.heads,
        "loss_weights": tuple(args.loss_weights),
        "position": args.position,
    }
    if codebooks:
        values |= {"num_codes": tuple(map(len, codebooks)), "code_dim": codebooks[0].shape[1]}
    model = WorldModel(WorldModelConfig(**(values | changes)))
    if codebooks:
        model.set_codebooks(codebooks)
    return model


def part(trajectories: TokenTrajectories, rows: slice) -> TokenTrajectories:
    """A slice of the rows."""
    columns = {f.name: getattr(trajectories, f.name)[rows].copy() for f in fields(trajectories)}
    for name in ("rewards", "terminated", "truncated"):
        columns[name][-1:] = 0  # the final observation that follows may be cut off
    return TokenTrajectories(**columns)


def fit(model: WorldModel, train: TokenSampler, steps: int) -> None:
    objective = WorldModelObjective(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-3, fused=True)
    for step in range(steps):
        rate = min(1.0, (step + 1) / 50, 2 * (steps - step) / steps)
        take_step(objective, optimizer, train.batch(step), 1e-3 * rate)


def take_step(
    objective: WorldModelObjective, optimizer: torch.optim.Optimizer, batch: TokenBatch, rate: float
) -> float:
    """One optimiser step at a learning rate; returns the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = objective(batch)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    return loss.item()


if __name__ == "__main__":
    main()

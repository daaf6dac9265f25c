"""Dreaming with this package and with the plain forms, in turn: imagined steps per second and their ratio.

Only the dreamed steps are timed, not the reading of the context: with a cache that is a single pass, and the
plain cache skips it by holding noise.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from plain import PlainWorldModel, add_size, sized
from token_worldmodel import WorldModel, imagine

CLOCK = time.process_time if "--cpu-time" in sys.argv else time.perf_counter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--context", type=int, default=63)
    parser.add_argument("--horizon", type=int, default=8)
    add_size(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--forms", nargs="+", default=["plain cache", "ours fp32", "ours bf16", "by step bf16"]
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time: for a busy machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = WorldModel(sized(args, args.context + args.horizon))
    by_step = WorldModel(replace(model.config, position="step"))
    plain = PlainWorldModel(model)
    for batch in args.batches:
        tokens = torch.randint(0, 256, (batch, args.context, 3))
        actions = torch.randint(0, 18, (batch, args.context - 1))
        every: dict[str, Callable[[], float]] = {
            "plain re-run": lambda t=tokens, a=actions: rerun_seconds(plain, t, a),
            "plain cache": lambda t=tokens: plain_seconds(plain, t, args.horizon),
            "ours fp32": lambda t=tokens, a=actions: our_seconds(model, t, a, args.horizon, torch.float32),
            "ours bf16": lambda t=tokens, a=actions: our_seconds(model, t, a, args.horizon, torch.bfloat16),
            "by step bf16": lambda t=tokens, a=actions: our_seconds(
                by_step, t, a, args.horizon, torch.bfloat16
            ),
        }
        forms = {name: every[name] for name in args.forms}
        best = dict.fromkeys(forms, float("inf"))
        for _ in range(args.rounds):
            for name, seconds in forms.items():
                best[name] = min(best[name], seconds())
        for name, seconds in best.items():
            ratio = best[args.forms[0]] / seconds
            print(f"batch {batch:4d}  {name:12s} {batch / seconds:7.1f} steps/s  x{ratio:.2f}", flush=True)


def our_seconds(
    model: WorldModel, tokens: torch.Tensor, actions: torch.Tensor, horizon: int, dtype: torch.dtype
) -> float:
    """Seconds per imagined step, from the first call of the policy to the last."""
    calls = []

    def policy(tokens: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        calls.append(CLOCK())
        return torch.zeros(len(tokens), dtype=torch.int64)

    imagine(model, tokens, actions, policy, horizon, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return (calls[-1] - calls[0]) / (horizon - 1)


def plain_seconds(plain: PlainWorldModel, tokens: torch.Tensor, horizon: int) -> float:
    steps = plain.dream_cached(tokens, horizon, torch.Generator().manual_seed(0))
    next(steps)
    start = CLOCK()
    for _ in range(horizon - 1):
        next(steps)
    return (CLOCK() - start) / (horizon - 1)


def rerun_seconds(plain: PlainWorldModel, tokens: torch.Tensor, actions: torch.Tensor) -> float:
    padded = torch.nn.functional.pad(actions, (0, 1))
    start = CLOCK()
    plain.dream_rerun(tokens, padded, torch.Generator().manual_seed(0))
    return CLOCK() - start


if __name__ == "__main__":
    main()

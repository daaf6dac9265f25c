"""Whole dreams on a GPU, in turn: the plain cache, this package, and this package recorded as a CUDA graph.

Prints imagined steps per second and their ratio to the first form's. Reading the context counts for this
package but not for the plain form, whose cache holds noise.
"""

import argparse
import time
from collections.abc import Callable

import torch
from plain import PlainWorldModel, add_size, sized
from token_worldmodel import Recorded, WorldModel, imagine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="on a CPU nothing is recorded")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 512, 1024, 4096])
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--horizon", type=int, default=15)
    add_size(parser)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(args.device)
    model = WorldModel(sized(args, args.context + args.horizon)).to(device)
    plain = PlainWorldModel(model).to(device)
    draw = torch.Generator(device).manual_seed(0)

    def dream(tokens: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        played = imagine(model, tokens, actions, act, args.horizon, generator=draw, dtype=torch.bfloat16)
        return played.tokens, played.states

    for batch in args.batches:
        tokens = torch.randint(0, 256, (batch, args.context, 3), device=device)
        actions = torch.randint(0, 18, (batch, args.context - 1), device=device)

        def dream_plainly(tokens: torch.Tensor, _: torch.Tensor) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                steps = plain.dream_cached(tokens, args.horizon, draw)
                for _step in range(args.horizon):
                    next(steps)

        forms: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
            "plain cache": dream_plainly,
            "this": dream,
            "this, recorded": Recorded(dream, draw),
        }
        best = dict.fromkeys(forms, float("inf"))
        for round_ in range(args.rounds + 3):
            for name, form in forms.items():
                seconds = timed(lambda form=form, t=tokens, a=actions: form(t, a), device)
                if round_ >= 3:  # by then it is warm, and recorded
                    best[name] = min(best[name], seconds)
        for name, seconds in best.items():
            steps = batch * args.horizon / seconds
            ratio = best["plain cache"] / seconds
            print(f"batch {batch:4d}  {name:15s} {steps:10.0f} steps/s  x{ratio:.2f}", flush=True)


def act(tokens: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    return tokens[:, 0] % 18


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has finished."""
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    finish()
    began = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

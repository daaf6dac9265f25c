"""Training steps of this package and of the plain network, in turn: windows per second and their ratio."""

import argparse
import time
from dataclasses import replace

import torch
from plain import PlainWorldModel, add_size, sized
from token_worldmodel import TokenBatch, WorldModel, WorldModelObjective, parameter_groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    add_size(parser)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="add ours under torch.compile")
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time: for a busy machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = replace(sized(args, args.steps), dropout=args.dropout)
    model = WorldModel(config)
    tokens = torch.randint(0, 256, (args.windows, args.steps, 3))
    actions = torch.randint(0, 18, (args.windows, args.steps))
    unused = torch.zeros(args.windows, args.steps)
    batch = TokenBatch(
        tokens=tokens,
        actions=actions,
        rewards=unused,
        terminated=unused.bool(),
        truncated=unused.bool(),
        final=unused.bool(),
        lives=unused.long(),
        game_index=torch.zeros(args.windows, dtype=torch.int64),
    )

    def stepper(module, loss, bf16):
        optimizer = torch.optim.AdamW(parameter_groups(module, 0.01), lr=1e-4, fused=True)

        def step() -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = loss()
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            return value.item()

        return step

    steps = {}
    for precision, bf16 in (("bf16", True), ("fp32", False)):
        plain = PlainWorldModel(model)
        steps[f"plain {precision}"] = stepper(plain, lambda plain=plain: plain.loss(tokens, actions), bf16)
        ours = WorldModel(config)
        ours.load_state_dict(model.state_dict())
        objective = WorldModelObjective(ours)
        steps[f"ours {precision}"] = stepper(ours, lambda objective=objective: objective(batch)[0], bf16)
        by_step = WorldModel(replace(config, position="step"))  # another model: its losses differ
        objective = WorldModelObjective(by_step)
        steps[f"by step {precision}"] = stepper(
            by_step, lambda objective=objective: objective(batch)[0], bf16
        )
        if args.compile:
            twin = WorldModel(config)
            twin.load_state_dict(model.state_dict())
            compiled = torch.compile(WorldModelObjective(twin))
            steps[f"compiled {precision}"] = stepper(twin, lambda compiled=compiled: compiled(batch)[0], bf16)
    for name, step in steps.items():
        start = time.perf_counter()
        print(f"{name:13s} first loss {step():.5f} in {time.perf_counter() - start:.1f} s")
    seconds = {name: [] for name in steps}
    clock = time.process_time if args.cpu_time else time.perf_counter
    for _ in range(args.rounds):
        for name, step in steps.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    best = {name: min(values) for name, values in seconds.items()}
    for name, value in best.items():
        print(f"{name:13s} {args.windows / value:7.2f} windows/s")
    for peer in ("plain bf16", "plain fp32"):
        print(f"ours bf16 / {peer}: {best[peer] / best['ours bf16']:.2f}")
        print(f"by step bf16 / {peer}: {best[peer] / best['by step bf16']:.2f}")
        if args.compile:
            print(f"compiled bf16 / {peer}: {best[peer] / best['compiled bf16']:.2f}")
    print(f"ours fp32 / plain fp32: {best['plain fp32'] / best['ours fp32']:.2f}")


if __name__ == "__main__":
    main()

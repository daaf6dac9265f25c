"""Policy updates per second, dreams included, and the agent's share of their time.

    uv run python apps/wm/benchmarks/agent_share.py [--preset atari100k] [--batch 64] [--device cuda]

The world model, the codes and the agent have a preset's sizes and random weights, which cost as much as
trained ones. "world model" is the same dream with random actions and nothing predicted from it; what a whole
update takes beyond that is the agent's share: choosing actions, predicting rewards and ends, the losses, and
the optimiser steps. The two take turns in one process; the share is that of the medians.
"""

import argparse
import statistics
import time

import torch
from hrvq import HRVQ
from latent_ac import Agent
from token_worldmodel import TokenBatch, WorldModel, imagine
from wm.config import build_config
from wm.device import autocast, autocast_dtype, frozen, pick_device
from wm.dreams import Dreamer
from wm.preset import read_preset


class Contexts:
    """Contexts of random tokens, drawn once."""

    def __init__(self, size: int, steps: int, levels: int, codes: int, device: torch.device) -> None:
        unused = torch.zeros(size, steps, device=device)
        self.drawn = TokenBatch(
            tokens=torch.randint(codes, (size, steps, levels), device=device),
            actions=torch.randint(18, (size, steps), device=device),
            rewards=unused,
            terminated=unused.bool(),
            truncated=unused.bool(),
            final=unused.bool(),
            lives=unused.long(),
            game_index=torch.zeros(size, dtype=torch.int64, device=device),
        )

    def batch(self, index: int) -> TokenBatch:
        """The same contexts for every index."""
        return self.drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="atari100k")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = pick_device(args.device)
    config = build_config(read_preset(args.preset))
    model = frozen(WorldModel(config.worldmodel)).to(device)
    quantizer = HRVQ(config.hrvq)
    quantizer.set_codebooks([torch.randn(256, config.hrvq.dim) for _ in range(config.hrvq.levels)])
    quantizer = frozen(quantizer).to(device)
    agent = Agent(config.actor, config.critic, config.predictor).to(device)
    dreamer = Dreamer(
        model=model,
        quantizer=quantizer,
        agent=agent,
        masks=torch.ones(1, 18, dtype=torch.bool, device=device),
        contexts=Contexts(args.batch, config.dream.context + 1, config.hrvq.levels, 256, device),
        config=config.dream,
        learning=config.agent,
        seed=0,
        first_batch=0,
        precision="auto",
    )
    learner = dreamer.learner
    optimizer = torch.optim.AdamW(learner.parameters(), 1e-4, fused=True)
    dtype = autocast_dtype("auto", device)
    steps = learner.steps_per_batch

    def update(index: int) -> None:
        for part in range(steps):
            batch = dreamer.batch(index * steps + part)
            with autocast(dtype, device):
                loss, _ = learner(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 100.0)
            optimizer.step()
            optimizer.zero_grad()
            learner.after_step()

    blind = torch.randint(18, (args.batch,), device=device)

    @torch.no_grad()
    def world_model(index: int) -> None:
        drawn = dreamer.contexts.batch(index)
        with autocast(dtype, device):
            imagine(
                model,
                drawn.tokens[:, : config.dream.context],
                drawn.actions[:, : config.dream.context - 1],
                lambda tokens, state: blind,
                config.dream.horizon,
                generator=torch.Generator(device).manual_seed(index),
                temperature=config.dream.temperature,
            )

    seconds: dict[str, list[float]] = {"whole update": [], "world model": []}
    for index in range(args.rounds + 1):  # the first warms up
        for name, work in (("whole update", update), ("world model", world_model)):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            work(index)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if index:
                seconds[name].append(time.perf_counter() - start)
    whole, dream = (statistics.median(values) for values in seconds.values())
    imagined = args.batch * config.dream.horizon
    size = f"{args.batch} dreams of {config.dream.horizon} steps"
    print(f"{args.preset}, {size}, {config.agent.algorithm}, {device}")
    print(f"{steps / whole:.2f} policy updates/s, {imagined / whole:.0f} imagined steps/s, all included")
    print(f"the agent's share of an update: {1 - dream / whole:.1%}")


if __name__ == "__main__":
    main()

"""What the agent adds to a world model's dream, in milliseconds, compared with a plain implementation.

    uv run python packages/latent-ac/benchmarks/updates.py [--batch 64 256] [--width 512] [--device cuda]

Update: forward, backward, AdamW and slow critic on one dream. The plain form calls actor, critic and slow
critic step by step, builds dense two-hot targets, and averages its slow critic one tensor at a time. Ours is
timed on the same vectors and on the codes they are made of. All start from one agent, and their first losses
are compared to show that they compute the same thing.

Dream: choosing the actions of one dream step by step, and predicting rewards and continuations: the plain
form step by step, on vectors; ours in one pass at the end, on vectors and on codes.

Contestants alternate in one process, so noise affects all of them; ratios are medians over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from latent_ac import (
    ActorConfig,
    ActorCriticObjective,
    Agent,
    AgentConfig,
    CodeFeatures,
    CriticConfig,
    ImaginedBatch,
    PredictorConfig,
    action_mask,
)
from torch import Tensor


def plain_loss(objective: ActorCriticObjective, batch: ImaginedBatch) -> Tensor:
    """REINFORCE with a two-hot critic, one time step after the other."""
    config, critic = objective.config, objective.critic
    horizon = len(batch.actions)
    with torch.no_grad():
        slow_values = [objective.slow_critic(batch.features[t]) for t in range(horizon + 1)]
        running = slow_values[-1]
        returns = [running] * horizon
        for t in reversed(range(horizon)):
            mixed = (1 - config.lambda_) * slow_values[t + 1] + config.lambda_ * running
            reward = batch.rewards[t].clamp(-1, 1)
            running = returns[t] = reward + config.gamma * batch.continues[t] * mixed
        spread = torch.quantile(torch.stack(returns), torch.tensor([0.05, 0.95], device=running.device))
        scale = (spread[1] - spread[0]).clamp_min(1.0)
    total = torch.zeros((), device=running.device)
    weight = torch.ones_like(running)
    weights = torch.zeros_like(running)
    for t in range(horizon):
        outputs = critic.outputs(batch.features[t])
        value = critic.value(outputs).detach()
        below = (critic.bins <= returns[t].unsqueeze(-1)).sum(-1).sub(1).clamp(0, len(critic.bins) - 2)
        upper = (returns[t] - critic.bins[below]) / (critic.bins[below + 1] - critic.bins[below])
        target = F.one_hot(below, len(critic.bins)) * (1 - upper).unsqueeze(-1)
        target = target + F.one_hot(below + 1, len(critic.bins)) * upper.unsqueeze(-1)
        critic_loss = -(target * outputs).sum(-1)
        policy = torch.distributions.Categorical(
            logits=objective.actor.mlp(batch.features[t]).masked_fill(~batch.action_mask, -1e9)
        )
        actor_loss = -policy.log_prob(batch.actions[t]) * (returns[t] - value) / scale
        total = total + (weight * (actor_loss - config.entropy_coef * policy.entropy() + critic_loss)).sum()
        weights = weights + weight
        weight = weight * batch.continues[t]
    return total / weights.sum()


def plain_slow_update(objective: ActorCriticObjective) -> None:
    with torch.no_grad():
        for slow, fast in zip(
            objective.slow_critic.module.parameters(), objective.critic.parameters(), strict=True
        ):
            slow.copy_(objective.config.slow_decay * slow + (1 - objective.config.slow_decay) * fast)


class Contestant:
    """One way to learn from and to act in the same dream."""

    def __init__(self, batch: ImaginedBatch, width: int, *, plain: bool) -> None:
        device = batch.actions.device
        sizes = {"feature_dim": batch.features.shape[-1], "hidden": (width, width)}
        generator = torch.Generator().manual_seed(0)
        self.agent = Agent(
            ActorConfig(**sizes), CriticConfig(**sizes), PredictorConfig(**sizes), generator=generator
        ).to(device)
        self.objective = ActorCriticObjective(self.agent.actor, self.agent.critic, AgentConfig()).to(device)
        self.plain, self.batch = plain, batch
        self.draw = torch.Generator(device).manual_seed(0)
        learned = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=1e-4)

    def update(self) -> Tensor:
        loss = plain_loss(self.objective, self.batch) if self.plain else self.objective(self.batch)[0]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.plain:
            plain_slow_update(self.objective)
        else:
            self.objective.after_step()
        return loss.detach()

    @torch.no_grad()
    def dream(self) -> None:
        features, actions, mask = self.batch.features, self.batch.actions, self.batch.action_mask
        if isinstance(features, CodeFeatures):
            policy = self.agent.actor.on_codes(features.tables)
            for tokens in features.tokens[:-1]:
                policy.act(tokens, mask, generator=self.draw)
            self.agent.predict(features, actions)
            return
        for t in range(len(actions)):
            self.agent.actor.act(features[t], mask, generator=self.draw)
            if self.plain:
                self.agent.reward(features[t], actions[t], features[t + 1])
                self.agent.continue_(features[t], actions[t], features[t + 1])
        if not self.plain:
            self.agent.predict(features, actions)


def milliseconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--code-dim", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print(
        f"torch {torch.__version__}, {device}, {args.threads} threads, H={args.horizon}, width {args.width}"
    )
    print("batch  work    plain ms  vectors ms  codes ms  plain/vectors  plain/codes  loss difference")
    for size in args.batch:
        g = torch.Generator().manual_seed(1)
        shape = (args.horizon, size)
        codes = CodeFeatures(
            torch.randint(0, args.codes, (args.horizon + 1, size, args.levels), generator=g),
            [torch.randn(args.codes, args.code_dim, generator=g) for _ in range(args.levels)],
        )
        on_codes = ImaginedBatch(
            features=codes,
            actions=torch.randint(0, 6, shape, generator=g),
            rewards=torch.randint(-2, 3, shape, generator=g).float(),
            continues=(torch.rand(shape, generator=g) > 0.05).float(),
            action_mask=action_mask(range(6)),
        ).to(device)
        on_vectors = replace(on_codes, features=codes.to(device).dense())
        contestants = [
            Contestant(on_vectors, args.width, plain=True),
            Contestant(on_vectors, args.width, plain=False),
            Contestant(on_codes, args.width, plain=False),
        ]
        losses = torch.stack([c.update() for c in contestants])
        for work in ("update", "dream"):
            rounds = [
                [milliseconds(getattr(c, work), args.times, device) for c in contestants]
                for _ in range(args.rounds)
            ]
            plain, vectors, coded = (statistics.median(column) for column in zip(*rounds, strict=True))
            over_vectors = statistics.median(p / v for p, v, _ in rounds)
            over_codes = statistics.median(p / c for p, _, c in rounds)
            gap = f"{float(losses.max() - losses.min()):.0e}" if work == "update" else ""
            print(
                f"{size:5d}  {work:6s}  {plain:8.1f}  {vectors:10.1f}  {coded:8.1f}  "
                f"{over_vectors:13.2f}  {over_codes:11.2f}  {gap:>15s}"
            )


if __name__ == "__main__":
    main()

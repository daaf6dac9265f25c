"""Updates per second of the actor-critic objective against a plain per-step loop; one process, alternating.

    uv run python packages/latent-ac/benchmarks/updates.py [--batch 256] [--horizon 15] [--device cuda]

The peer is the textbook form: it calls actor, critic and slow critic step by step, builds dense two-hot
targets, and averages its slow critic one tensor at a time. Both start from one agent, and their first losses
are compared, so they compute the same thing. An update is forward, backward, AdamW and the slow critic.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from latent_ac import (
    ActorConfig,
    ActorCriticObjective,
    Agent,
    AgentConfig,
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
        log_values = outputs.log_softmax(-1)
        value = critic.value(outputs).detach()
        below = (critic.bins <= returns[t].unsqueeze(-1)).sum(-1).sub(1).clamp(0, len(critic.bins) - 2)
        upper = (returns[t] - critic.bins[below]) / (critic.bins[below + 1] - critic.bins[below])
        target = F.one_hot(below, len(critic.bins)) * (1 - upper).unsqueeze(-1)
        target = target + F.one_hot(below + 1, len(critic.bins)) * upper.unsqueeze(-1)
        critic_loss = -(target * log_values).sum(-1)
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
    def __init__(self, batch: ImaginedBatch, width: int, *, plain: bool) -> None:
        sizes = {"feature_dim": batch.features.shape[-1], "hidden": (width, width)}
        generator = torch.Generator().manual_seed(0)
        agent = Agent(
            ActorConfig(**sizes), CriticConfig(**sizes), PredictorConfig(**sizes), generator=generator
        )
        self.objective = ActorCriticObjective(agent.actor, agent.critic, AgentConfig()).to(
            batch.features.device
        )
        self.plain = plain
        self.batch = batch
        learned = [p for p in self.objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=1e-4, foreach=None if not plain else False)

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


def seconds(contestant: Contestant, updates: int, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(updates):
        contestant.update()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / updates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--feature-dim", type=int, default=1152)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print(
        f"torch {torch.__version__}, {device}, {args.threads} threads, H={args.horizon}, width {args.width}"
    )
    print("batch  ours updates/s  plain updates/s  ratio (median of rounds)  loss difference at the start")
    for size in args.batch:
        g = torch.Generator().manual_seed(1)
        shape = (args.horizon, size)
        mask = action_mask([0, 1, 2, 3, 4, 5])
        batch = ImaginedBatch(
            features=torch.randn(args.horizon + 1, size, args.feature_dim, generator=g),
            actions=torch.randint(0, 6, shape, generator=g),
            rewards=torch.randint(-2, 3, shape, generator=g).float(),
            continues=(torch.rand(shape, generator=g) > 0.05).float(),
            action_mask=mask,
        ).to(device)
        ours, plain = Contestant(batch, args.width, plain=False), Contestant(batch, args.width, plain=True)
        difference = float((ours.update() - plain.update()).abs())
        pairs = [
            (seconds(ours, args.updates, device), seconds(plain, args.updates, device))
            for _ in range(args.rounds)
        ]
        own, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(p / o for o, p in pairs)
        print(f"{size:5d}  {1 / own:14.1f}  {1 / peer:15.1f}  {ratio:5.2f}  {difference:38.1e}")


if __name__ == "__main__":
    main()

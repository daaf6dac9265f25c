"""What a dream's steps learn from: returns and advantages, fixed once, and the scale that they commit."""

import math
from dataclasses import replace

import pytest
import torch
from latent_ac import (
    Actor,
    ActorConfig,
    ActorCriticObjective,
    AgentConfig,
    Critic,
    CriticConfig,
    ImaginedBatch,
    action_mask,
    lambda_returns,
    transform_rewards,
)

H, B, F = 4, 6, 5


def objective(**changes: object) -> ActorCriticObjective:
    """With a slow critic that is another than the critic."""
    generator = torch.Generator().manual_seed(0)
    actor = Actor(ActorConfig(feature_dim=F, hidden=(8,), output_gain=1.0), generator=generator)
    critic = Critic(CriticConfig(feature_dim=F, hidden=(8,), head="mse"), generator=generator)
    made = ActorCriticObjective(actor, critic, AgentConfig(**changes))
    for each in (critic, made.slow_critic.module):
        torch.nn.init.normal_(each.mlp.output.weight, generator=generator)
    return made


def dream(made_by: ActorCriticObjective) -> ImaginedBatch:
    generator = torch.Generator().manual_seed(1)
    features, mask = torch.randn(H + 1, B, F, generator=generator), action_mask([0, 3, 7])
    actions, log_probs = made_by.actor.act_with_log_prob(features[:-1], mask, generator=generator)
    rewards = 3 * torch.randn(H, B, generator=generator)
    return ImaginedBatch(features, actions, rewards, torch.rand(H, B, generator=generator), mask, log_probs)


@pytest.mark.parametrize("transform", ["clip", "symlog", "raw"])
def test_returns_are_of_rewards_as_the_learner_sees_them(transform: str) -> None:
    module = objective(reward_transform=transform)
    batch = dream(module)
    seen = transform_rewards(batch.rewards, transform)
    assert (transform == "raw") == torch.equal(seen, batch.rewards)
    returns = lambda_returns(seen, batch.continues, module.slow_critic(batch.features), 0.997, 0.95)
    torch.testing.assert_close(module(batch)[1]["imagined_return"], returns[0].mean())


@pytest.mark.parametrize("slow_target", ["returns", "regularizer"])
def test_the_steps_on_one_dream_have_the_targets_of_its_beginning(slow_target: str) -> None:
    module = objective(algorithm="ppo", ppo_epochs=3, slow_target=slow_target)
    batch = dream(module)
    values = module.critic(batch.features).detach()
    bootstrap = module.slow_critic(batch.features) if slow_target == "returns" else values
    returns = lambda_returns(batch.rewards.clamp(-1, 1), batch.continues, bootstrap, 0.997, 0.95)
    seen = torch.quantile(returns, torch.tensor([0.05, 0.95]))
    scale = max(1.0, float(seen[1] - seen[0]))
    assert scale > 1
    steps = 0
    for part in module.minibatches(batch):
        torch.testing.assert_close(part.returns, returns)
        torch.testing.assert_close(part.advantages, (returns - values[:-1]) / scale)
        metrics = module(part)[1]  # it tells the scale that the advantages have,
        assert float(metrics["return_scale"]) == pytest.approx(scale)
        assert float(metrics["return_spread"]) == pytest.approx(scale)
        with torch.no_grad():
            module.critic.mlp.output.weight.add_(1.0)
        module.after_step()
        torch.testing.assert_close(module.normalizer.percentiles, seen)
        steps += 1
    assert steps == module.steps_per_batch == 3


def test_a_dream_counts_once_in_the_return_scale_however_many_steps_are_taken_on_it() -> None:
    module = objective(algorithm="ppo", ppo_epochs=2, ppo_minibatches=3, return_decay=0.5)
    module.normalizer.percentiles.copy_(torch.tensor([-100.0, 100.0]))
    batch = dream(module)
    returns = lambda_returns(
        batch.rewards.clamp(-1, 1), batch.continues, module.slow_critic(batch.features), 0.997, 0.95
    )
    expected = (torch.tensor([-100.0, 100.0]) + torch.quantile(returns, torch.tensor([0.05, 0.95]))) / 2
    for part in module.minibatches(batch, generator=torch.Generator().manual_seed(0)):
        module(part)
        module.after_step()
        torch.testing.assert_close(module.normalizer.percentiles, expected)
    other = ImaginedBatch(
        batch.features, batch.actions, torch.zeros(H, B), torch.zeros(H, B), batch.action_mask
    )
    module = objective(return_decay=0.5)
    module.normalizer.percentiles.copy_(torch.tensor([-8.0, 8.0]))
    module(other)  # every return is zero
    for _ in range(3):  # nothing is dreamt in between
        module.after_step()
    assert module.normalizer.percentiles.tolist() == [-4.0, 4.0]


def test_the_entropy_a_policy_could_have_is_that_of_the_steps_still_played() -> None:
    """Of six actions at once over, of two played on: the mean over all steps would be of neither."""
    module = objective()
    torch.nn.init.zeros_(module.actor.mlp.output.weight)
    batch = dream(module)
    masks = torch.stack([action_mask(range(6))] * 3 + [action_mask([0, 3])] * 3)
    continues = torch.ones(H, B)
    continues[:, :3] = 0.0
    actions = torch.zeros(H, B, dtype=torch.int64)
    metrics = module(ImaginedBatch(batch.features, actions, batch.rewards, continues, masks))[1]
    assert float(metrics["entropy_fraction"]) == pytest.approx(1.0)
    by_hand = (3 * math.log(6) + 3 * H * math.log(2)) / (3 + 3 * H)
    assert float(metrics["entropy"]) == pytest.approx(by_hand)


def test_advantages_are_in_units_of_a_scale_that_has_their_own_dream_in_it() -> None:
    module = objective(algorithm="ppo", ppo_epochs=1, return_decay=0.5)
    module.normalizer.percentiles.copy_(torch.tensor([-8.0, 8.0]))
    batch = replace(dream(module), rewards=torch.zeros(H, B), continues=torch.zeros(H, B))  # returns of 0
    values = module.critic(batch.features[:-1]).detach()
    (part,) = module.minibatches(batch)
    torch.testing.assert_close(part.advantages, -values / 8)  # half way from 16 to 0

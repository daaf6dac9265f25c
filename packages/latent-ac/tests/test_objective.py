import copy
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
    ReturnNormalizer,
    action_mask,
    entropy,
    lambda_returns,
    log_prob,
    survival,
)

H, B, F = 5, 6, 8


def objective(**changes: object) -> ActorCriticObjective:
    generator = torch.Generator().manual_seed(0)
    actor = Actor(ActorConfig(feature_dim=F, hidden=(16,), output_gain=1.0), generator=generator)
    critic = Critic(CriticConfig(feature_dim=F, hidden=(16,), head="mse"), generator=generator)
    torch.nn.init.normal_(critic.mlp.output.weight, generator=generator)
    return ActorCriticObjective(actor, critic, AgentConfig(**changes))


def dream(made_by: ActorCriticObjective, seed: int = 1) -> ImaginedBatch:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(H + 1, B, F, generator=generator)
    mask = torch.stack([action_mask([0, 3, 7])] * 3 + [action_mask([1, 2])] * 3)
    actions, log_probs = made_by.actor.act_with_log_prob(features[:-1], mask, generator=generator)
    rewards = 3 * torch.randn(H, B, generator=generator)
    continues = (torch.rand(H, B, generator=generator) > 0.2).float()
    return ImaginedBatch(features, actions, rewards, continues, mask, log_probs)


def gradient(module: ActorCriticObjective, batch: ImaginedBatch) -> torch.Tensor:
    module.zero_grad()
    module(batch)[0].backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


@pytest.mark.parametrize("slow_target", ["returns", "regularizer"])
def test_loss_is_what_its_parts_say(slow_target: str) -> None:
    """The loss rebuilt from the public functions, one trajectory and step after the other."""
    module = objective(slow_target=slow_target, entropy_coef=0.1, critic_coef=0.7, slow_coef=0.4)
    torch.nn.init.normal_(module.slow_critic.module.mlp.output.weight)
    batch = dream(module)
    loss, metrics = module(batch)

    value = module.critic(batch.features).detach()
    slow = module.slow_critic(batch.features)
    bootstrap = slow if slow_target == "returns" else value
    returns = lambda_returns(batch.rewards.clamp(-1, 1), batch.continues, bootstrap, 0.997, 0.95)
    weights = survival(batch.continues)
    low, high = torch.quantile(returns[weights > 0], torch.tensor([0.05, 0.95]))
    scale = max(1.0, float(high - low))
    total = 0.0
    for t in range(H):
        for b in range(B):
            logits = module.actor(batch.features[t, b], batch.action_mask[b])
            advantage = (returns[t, b] - value[t, b]) / scale
            policy = -log_prob(logits, batch.actions[t, b]) * advantage
            error = 0.5 * (value[t, b] - returns[t, b]) ** 2
            if slow_target == "regularizer":
                error = error + 0.4 * 0.5 * (value[t, b] - slow[t, b]) ** 2
            total = total + weights[t, b] * (policy - 0.1 * entropy(logits) + 0.7 * error)
    torch.testing.assert_close(loss, total / weights.sum())
    torch.testing.assert_close(metrics["return_scale"].item(), scale)
    torch.testing.assert_close(metrics["imagined_return"], returns[0].mean())
    assert all(m.ndim == 0 and not m.requires_grad for m in metrics.values())


def test_metrics_are_what_they_are_called() -> None:
    module = objective()
    torch.nn.init.normal_(module.slow_critic.module.mlp.output.weight)
    batch = dream(module)
    _, metrics = module(batch)
    values, slow = module.critic(batch.features[:-1]).detach(), module.slow_critic(batch.features)
    returns = lambda_returns(batch.rewards.clamp(-1, 1), batch.continues, slow, 0.997, 0.95)
    advantages = (returns - values) / metrics["return_scale"]
    logits = module.actor(batch.features[:-1], batch.action_mask).detach()
    weights = survival(batch.continues)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return (weights * x).sum() / weights.sum()

    expected = {
        "actor_loss": -mean(log_prob(logits, batch.actions) * advantages),
        "critic_loss": mean(0.5 * (values - returns) ** 2),
        "entropy": mean(entropy(logits)),
        "value": values[0].mean(),
        "value_error": mean((returns - values).abs()),
        "advantage_std": mean((advantages - mean(advantages)) ** 2).sqrt(),
        "reward": mean(batch.rewards),
        "survival": weights[-1].mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, msg=name)


def test_ppo_clips_where_it_is_told_and_counts_only_what_is_played() -> None:
    module = objective(algorithm="ppo", ppo_clip=0.05)
    batch = dream(module)
    with torch.no_grad():
        module.actor.mlp.output.weight.mul_(1.1)
    advantages = torch.linspace(-1, 1, H * B).view(H, B)
    _, metrics = module(replace(batch, returns=torch.zeros(H, B), advantages=advantages))
    logits = module.actor(batch.features[:-1], batch.action_mask).detach()
    log_ratio = log_prob(logits, batch.actions) - batch.log_probs
    ratio, weights = log_ratio.exp(), survival(batch.continues)
    gain = torch.minimum(ratio * advantages, ratio.clamp(0.95, 1.05) * advantages)
    outside = ((ratio - 1).abs() > 0.05).float()
    assert 0 < outside.mean() < 1
    for name, each in (
        ("actor_loss", -gain),
        ("approx_kl", ratio - 1 - log_ratio),
        ("clip_fraction", outside),
    ):
        mean = (weights * each).sum() / weights.sum()
        torch.testing.assert_close(metrics[name], mean, atol=1e-6, rtol=1e-4)


def test_a_batch_goes_where_it_is_sent() -> None:
    batch = dream(objective())
    there = batch.to("meta")
    assert there.features.device.type == there.action_mask.device.type == "meta"
    assert there.returns is None


def test_first_ppo_step_is_the_reinforce_step() -> None:
    """At ratio one the two objectives have the same gradient."""
    reinforce, ppo = objective(), objective(algorithm="ppo")
    batch = dream(reinforce)
    torch.testing.assert_close(gradient(reinforce, batch), gradient(ppo, batch))
    metrics = ppo(batch)[1]
    assert abs(metrics["approx_kl"]) < 1e-6
    assert metrics["clip_fraction"] == 0


def test_steps_after_the_end_do_not_count() -> None:
    module = objective()
    batch = dream(module)
    batch.continues[2] = 0.0
    changed = replace(
        batch,
        rewards=torch.cat((batch.rewards[:3], batch.rewards[3:] + 7)),
        features=torch.cat((batch.features[:3], batch.features[3:] + 1)),
    )
    torch.testing.assert_close(gradient(module, batch), gradient(module, changed))
    found, other = (module(each)[1] for each in (batch, changed))
    for name in ("return_scale", "return_spread", "advantage_std", "value_error", "reward", "entropy"):
        torch.testing.assert_close(found[name], other[name], msg=name)


def test_evaluating_changes_nothing_until_after_step() -> None:
    module = objective()
    before = copy.deepcopy(module.state_dict())
    first, metrics = module(dream(module))
    second, _ = module(dream(module))
    assert torch.equal(first, second)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], equal_nan=True, atol=0, rtol=0)
    with torch.no_grad():
        for parameter in module.critic.parameters():
            parameter.add_(1.0)
    module.after_step()
    slow = module.slow_critic.module.mlp.output.weight
    torch.testing.assert_close(slow, before["slow_critic.module.mlp.output.weight"] + 0.02)
    assert module.normalizer.scale(module.normalizer.percentiles) == metrics["return_scale"]


def test_averages_move_as_fast_as_they_are_told() -> None:
    module = objective(slow_decay=0.5, return_decay=0.25)
    module(dream(module))
    module.after_step()
    percentiles, slow = module.normalizer.percentiles.clone(), copy.deepcopy(module.slow_critic)
    batch = replace(dream(module), rewards=torch.zeros(H, B))
    module(batch)
    with torch.no_grad():
        for parameter in module.critic.parameters():
            parameter.add_(1.0)
    module.after_step()
    for now, before in zip(module.slow_critic.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(now, before + 0.5)
    returns = lambda_returns(batch.rewards, batch.continues, slow(batch.features), 0.997, 0.95)
    returns = returns[survival(batch.continues) > 0]
    seen = torch.quantile(returns, torch.tensor([0.05, 0.95]))
    torch.testing.assert_close(module.normalizer.percentiles, 0.25 * percentiles + 0.75 * seen)


def test_minibatches_of_ppo() -> None:
    module = objective(algorithm="ppo", ppo_epochs=3, ppo_minibatches=2)
    batch = dream(module)
    parts = list(module.minibatches(batch, generator=torch.Generator().manual_seed(0)))
    assert len(parts) == module.steps_per_batch == 6
    whole = next(iter(objective(algorithm="ppo").minibatches(batch)))
    assert [part.actions.shape for part in parts] == [(H, B // 2)] * 6
    halves = [frozenset(map(tuple, part.features[0].tolist())) for part in parts[::2]]
    assert len(set(halves)) > 1  # each epoch cuts them anew,
    other = module.minibatches(batch, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(next(other).features, parts[0].features)  # as the generator says
    for epoch in range(3):  # every trajectory once an epoch, with its own targets and mask
        pair = parts[2 * epoch : 2 * epoch + 2]
        seen = torch.cat([p.features[0] for p in pair])
        position = (seen[:, None] == batch.features[0][None]).all(-1).float().argmax(1)
        assert sorted(position.tolist()) == list(range(B))
        assert torch.equal(torch.cat([p.action_mask for p in pair]), batch.action_mask[position])
        for name in ("rewards", "actions", "log_probs", "returns", "advantages"):
            found = torch.cat([getattr(p, name) for p in pair], 1)
            assert torch.equal(found, getattr(whole, name)[:, position]), name
    torch.testing.assert_close(gradient(module, whole), gradient(module, batch))


def test_minibatches_of_reinforce_are_the_batch() -> None:
    module = objective()
    batch = dream(module)
    assert [part is batch for part in module.minibatches(batch)] == [True]
    assert module.steps_per_batch == 1


def test_losses_stay_float32_under_autocast() -> None:
    module = objective()
    batch = dream(module)
    exact, _ = module(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, metrics = module(batch)
    assert loss.dtype == torch.float32
    assert all(m.dtype == torch.float32 for m in metrics.values())
    torch.testing.assert_close(loss, exact, atol=0.05, rtol=0.05)


def test_the_default_device_is_no_matter_for_what_is_there() -> None:
    """ "meta" holds nothing: whatever went there could not be stepped on."""
    shuffled = []
    for device in ("cpu", "meta"):
        module = objective(algorithm="ppo", ppo_epochs=1, ppo_minibatches=2)
        batch, generator = dream(module), torch.Generator().manual_seed(0)
        with torch.device(device):
            parts = list(module.minibatches(batch, generator=generator))
            module(parts[0])[0].backward()
            module.after_step()
        shuffled.append(parts[0].features)
    assert torch.equal(*shuffled)


def test_same_seed_same_weights_bit_for_bit() -> None:
    def trained() -> torch.Tensor:
        module = objective(algorithm="ppo", ppo_minibatches=2)
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 1e-2)
        generator = torch.Generator().manual_seed(5)
        for seed in range(3):
            for part in module.minibatches(dream(module, seed), generator=generator):
                module(part)[0].backward()
                optimizer.step()
                optimizer.zero_grad()
                module.after_step()
        return torch.cat([p.flatten() for p in module.parameters()])

    assert torch.equal(trained(), trained())


def test_user_errors() -> None:
    module = objective()
    batch = dream(module)
    with pytest.raises(ValueError, match=r"rewards \(4, 6\) instead of \(5, 6\); continues"):
        module(replace(batch, rewards=batch.rewards[1:], continues=batch.continues[1:]))
    with pytest.raises(ValueError, match=r"instead of \(6, 6, 8\)"):
        module(replace(batch, features=batch.features[1:]))
    with pytest.raises(ValueError, match=r"torch.int32 \(5, 6\) instead of int64"):
        module(replace(batch, actions=batch.actions.int()))
    with pytest.raises(ValueError, match="needs log_probs"):
        objective(algorithm="ppo")(replace(batch, log_probs=None))
    with pytest.raises(ValueError, match="at most the 6 trajectories"):
        list(objective(algorithm="ppo", ppo_minibatches=7).minibatches(batch))
    for wrong in (
        {"algorithm": "a2c"},
        {"gamma": 1.1},
        {"reward_transform": "log"},
        {"ppo_epochs": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AgentConfig(**wrong)


def test_a_batch_that_is_only_looked_at_is_not_committed() -> None:
    module = objective()
    module(dream(module))
    expected = copy.deepcopy(module)
    expected.after_step()
    module.eval()
    module(replace(dream(module, seed=5), rewards=torch.full((H, B), 9.0)))
    module.train()
    module.after_step()
    assert torch.equal(module.normalizer.percentiles, expected.normalizer.percentiles)


def test_the_scale_that_is_told_is_the_one_that_was_used() -> None:
    module = objective()
    batch = replace(dream(module), rewards=torch.linspace(-1, 1, H * B).view(H, B))
    told = [module.train(mode)(batch)[1] for mode in (True, False)]
    fresh = objective().eval()(batch)[1]
    for name in ("return_scale", "return_spread"):
        assert told[0][name].isfinite()
        assert told[0][name] == told[1][name] == fresh[name]


def test_a_refused_batch_leaves_nothing_behind() -> None:
    module = objective(algorithm="ppo")
    with pytest.raises(ValueError, match="needs log_probs"):
        next(module.minibatches(replace(dream(module), log_probs=None)))
    module.after_step()
    assert module.normalizer.percentiles.isnan().all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("actions", torch.full((H, B), 18), "actions range from 18 to 18; the actor knows 0 to 17"),
        ("actions", torch.full((H, B), 4), "not allowed by its action_mask"),
        ("rewards", torch.full((H, B), torch.nan), "NaN or infinity"),
        ("continues", torch.full((H, B), 7.0), r"not all in \[0, 1\]"),
        ("returns", torch.zeros(H, B), "one of returns and advantages"),
        ("action_mask", torch.ones(1, 18, dtype=torch.bool), r"action_mask \(1, 18\)"),
    ],
)
def test_a_batch_of_wrong_values_is_refused(name: str, value: torch.Tensor, message: str) -> None:
    module = objective()
    with pytest.raises(ValueError, match=message):
        module(replace(dream(module), **{name: value}))


def test_a_batch_with_targets_of_its_own_is_looked_at_too() -> None:
    module = objective()
    batch = replace(dream(module), returns=torch.zeros(H, B), advantages=torch.ones(H, B))
    module(batch)
    for name, value in (("actions", torch.full((H, B), 18)), ("continues", torch.full((H, B), 7.0))):
        with pytest.raises(ValueError, match=f"{name} .*(knows 0 to 17|not all in)"):
            module(replace(batch, **{name: value}))


def test_infinite_log_probs_are_refused_where_they_count() -> None:
    module = objective(algorithm="ppo")
    batch = replace(dream(module), continues=torch.cat((torch.ones(2, B), torch.zeros(H - 2, B))))
    assert batch.log_probs is not None
    after_the_end = torch.arange(H)[:, None] > 2
    loss = module(replace(batch, log_probs=batch.log_probs.masked_fill(after_the_end, -torch.inf)))[0]
    torch.testing.assert_close(loss, module(batch)[0])
    for value in (torch.inf, -torch.inf, torch.nan):
        with pytest.raises(ValueError, match="log_probs of the imagined batch hold NaN or infinity"):
            module(replace(batch, log_probs=batch.log_probs.masked_fill(~after_the_end, value)))


def test_the_sign_of_an_expected_reward_is_no_choice() -> None:
    with pytest.raises(ValueError, match="'clip', 'symlog', 'raw'"):
        AgentConfig(reward_transform="sign")


def test_entropy_is_a_share_of_what_each_games_actions_allow() -> None:
    module = objective()
    torch.nn.init.zeros_(module.actor.mlp.output.weight)
    assert float(module(dream(module))[1]["entropy_fraction"]) == pytest.approx(1.0)


def test_no_gradient_enters_what_was_dreamed() -> None:
    module = objective()
    batch = dream(module)
    features = batch.features.clone().requires_grad_()
    module(replace(batch, features=features))[0].backward()
    assert features.grad is None


def test_no_gradient_enters_what_is_expected_to_go_on() -> None:
    """Continuations straight from a predictor, whose graph a second step would ask for again."""
    module = objective()
    batch = dream(module)
    chances = torch.full((H, B), 0.9, requires_grad=True)
    tied, free = replace(batch, continues=chances * 1.0), replace(batch, continues=chances.detach() * 1.0)
    assert torch.equal(gradient(module, tied), gradient(module, free))
    assert torch.equal(gradient(module, tied), gradient(module, free))
    assert chances.grad is None


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_targets_made_elsewhere_are_the_ones_stepped_on(algorithm: str) -> None:
    module = objective(algorithm=algorithm, ppo_epochs=1, ppo_minibatches=2)
    batch = replace(dream(module), returns=torch.full((H, B), 7.0), advantages=torch.full((H, B), 3.0))
    for part in module.minibatches(batch):
        assert part.returns is not None
        assert part.advantages is not None
        assert bool((part.returns == 7).all())
        assert bool((part.advantages == 3).all())


def test_a_learner_goes_on_with_the_scale_of_returns_it_had() -> None:
    first, second = objective(), objective()
    first(dream(first))
    first.after_step()
    second.load_state_dict(first.state_dict())
    assert not first.normalizer.percentiles.isnan().any()
    assert torch.equal(second.normalizer.percentiles, first.normalizer.percentiles)


def test_a_continuation_below_0_is_refused() -> None:
    module = objective()
    with pytest.raises(ValueError, match=r"not all in \[0, 1\]"):
        module(replace(dream(module), continues=torch.full((H, B), -0.1)))


def test_minibatches_that_are_only_looked_at_show_the_scale_they_were_scaled_by() -> None:
    batch = dream(objective())
    whole = objective().eval()(batch)[1]
    module = objective(algorithm="ppo", ppo_epochs=1, ppo_minibatches=2).eval()
    for part in module.minibatches(batch):
        metrics = module(part)[1]
        torch.testing.assert_close(metrics["return_spread"], whole["return_spread"])
        torch.testing.assert_close(metrics["return_scale"], whole["return_scale"])


def test_what_is_no_number_is_refused() -> None:
    batch = dream(objective())
    log_probs = batch.log_probs.clone()
    log_probs[0, 0] = torch.nan
    with pytest.raises(ValueError, match="log_probs of the imagined batch hold NaN"):
        objective(algorithm="ppo")(replace(batch, log_probs=log_probs))
    for name in ("entropy_coef", "critic_coef", "slow_coef"):
        with pytest.raises(ValueError, match=f"{name} is inf; give a finite number, 0 or more"):
            AgentConfig(**{name: float("inf")})
    with pytest.raises(ValueError, match="output_gain is inf; give a finite number"):
        ActorConfig(output_gain=float("inf"))
    with pytest.raises(ValueError, match="minimum is inf; give a finite number"):
        ReturnNormalizer(minimum=float("inf"))
    for name in ("gamma", "slow_decay", "entropy_coef", "ppo_clip"):
        with pytest.raises(ValueError, match=f"{name} is '0.5'; give a"):
            AgentConfig(**{name: "0.5"})

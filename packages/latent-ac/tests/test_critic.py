import math

import pytest
import torch
from latent_ac import Critic, CriticConfig, SlowTarget


def critic(head: str) -> Critic:
    return Critic(CriticConfig(feature_dim=4, hidden=(16,), head=head, num_bins=41, limit=4.0))


@pytest.mark.parametrize("head", ["two_hot", "normal", "mse"])
def test_value_starts_at_zero(head: str) -> None:
    assert (critic(head)(torch.randn(3, 5, 4)) == torch.zeros(3, 5)).all()


@pytest.mark.parametrize("head", ["two_hot", "normal", "mse"])
def test_learns_the_conditional_mean(head: str) -> None:
    """Returns are 8 +- 4 with x = 1 and -2 +- 1 with x = 0: the value is the mean, not the mode."""
    generator = torch.Generator().manual_seed(0)
    model = Critic(
        CriticConfig(feature_dim=2, hidden=(32,), head=head, num_bins=41, limit=4.0), generator=generator
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        which = torch.randint(0, 2, (256,), generator=generator)
        noise = torch.randint(0, 2, (256,), generator=generator) * 2 - 1
        returns = torch.where(which == 1, 8 + 4 * noise, -2 + noise).float()
        loss = model.loss(model.outputs(torch.eye(2)[which]), returns).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(model(torch.eye(2)), torch.tensor([-2.0, 8.0]), atol=0.4, rtol=0)
    if head == "normal":
        deviation = (5 * torch.tanh(model.outputs(torch.eye(2))[:, 1] / 5)).exp()
        torch.testing.assert_close(deviation, torch.tensor([1.0, 4.0]), atol=0.3, rtol=0.1)


def test_gaussian_losses_are_log_likelihoods() -> None:
    returns = torch.tensor([1.5, -2.0])
    outputs = torch.tensor([[1.0, 0.7], [3.0, -0.4]])
    deviation = (5 * torch.tanh(outputs[:, 1] / 5)).exp()
    oracle = -torch.distributions.Normal(outputs[:, 0], deviation).log_prob(returns)
    constant = 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(critic("normal").loss(outputs, returns), oracle - constant)
    unit = -torch.distributions.Normal(outputs[:, 0], 1.0).log_prob(returns)
    torch.testing.assert_close(critic("mse").loss(outputs[:, :1], returns), unit - constant)


def test_no_gradient_enters_the_returns() -> None:
    returns = torch.ones(3, requires_grad=True)
    for head in ("two_hot", "normal", "mse"):
        model = critic(head)
        model.loss(model.outputs(torch.randn(3, 4)), returns).sum().backward()
    assert returns.grad is None


def test_slow_target_is_an_exponential_average() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    slow = SlowTarget(module, decay=0.9)
    torch.nn.init.ones_(module.weight)
    for _ in range(3):
        slow.update(module)
    # 1 - 0.9^3 of the way from 0 to 1; the module itself is not touched and the copy takes no gradient.
    assert slow(torch.ones(1, 1)).item() == pytest.approx(1 - 0.9**3)
    assert module.weight.item() == 1.0
    assert not any(p.requires_grad for p in slow.parameters())
    with pytest.raises(ValueError, match=r"decay is 1\.0"):
        SlowTarget(module, decay=1.0)


def test_user_errors() -> None:
    with pytest.raises(ValueError, match="'two_hot', 'normal', 'mse'"):
        CriticConfig(head="categorical")
    with pytest.raises(ValueError, match="num_bins is 8"):
        CriticConfig(num_bins=8)


def test_a_slow_copy_has_the_buffers_of_what_it_follows() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    slow = SlowTarget(module, decay=0.9)
    module(torch.randn(16, 3) + 7)
    slow.update(module)
    assert torch.equal(slow.module[1].running_mean, module[1].running_mean)
    assert slow.module[1].num_batches_tracked == 1

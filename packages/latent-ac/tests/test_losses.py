import math
from collections.abc import Callable

import pytest
import torch
from latent_ac import (
    Critic,
    CriticConfig,
    log_prob,
    ppo_loss,
    reinforce_loss,
    symexp_bins,
    two_hot_cross_entropy,
)
from latent_ac.categorical import log_prob_and_entropy


def test_reinforce_hand_computed() -> None:
    log_probs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    advantages = torch.tensor([2.0, -1.0, 4.0], requires_grad=True)
    assert reinforce_loss(log_probs, advantages).item() == pytest.approx((2 - 2 + 12) / 3)
    loss = reinforce_loss(log_probs, advantages, torch.tensor([1.0, 1.0, 0.0]))
    assert loss.item() == pytest.approx(0.0)
    loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [-1.0, 0.5, 0.0]
    assert advantages.grad is None


def test_ppo_hand_computed() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    loss, approx_kl, clip_fraction = ppo_loss(ratio.log(), torch.zeros(5), advantages, clip=0.2)
    # min(rho A, clamp(rho) A): 1.2, -1.5, 0.5, -0.8, 2.2
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 2.2) / 5)
    assert clip_fraction.item() == pytest.approx(0.8)
    expected = sum(r - 1 - math.log(r) for r in ratio.tolist()) / 5
    assert approx_kl.item() == pytest.approx(expected, rel=1e-4)


def test_what_ppo_reports_counts_as_its_loss_does() -> None:
    ratio, weights = torch.tensor([1.5, 1.0]), torch.tensor([0.0, 1.0])
    _, approx_kl, clip_fraction = ppo_loss(ratio.log(), torch.zeros(2), torch.ones(2), weights=weights)
    assert (approx_kl.item(), clip_fraction.item()) == (0.0, 0.0)


def test_what_ppo_does_not_count_may_be_filled_with_anything() -> None:
    behaviour = torch.tensor([-1.0, -1e9, 3e38])
    log_probs = torch.full((3,), -1.0, requires_grad=True)
    found = ppo_loss(log_probs, behaviour, torch.ones(3), weights=torch.tensor([1.0, 0.0, 0.0]))
    assert [number.item() for number in found] == [-1.0, 0.0, 0.0]
    assert torch.autograd.grad(found.loss, log_probs)[0].tolist() == [-1.0, 0.0, 0.0]


def test_ppo_teaches_neither_the_critic_nor_the_policy_that_chose() -> None:
    log_probs, behaviour, advantages = (torch.full((3,), 0.1, requires_grad=True) for _ in range(3))
    ppo_loss(log_probs, behaviour, advantages).loss.backward()
    assert log_probs.grad is not None
    assert behaviour.grad is None
    assert advantages.grad is None


def test_ppo_has_no_gradient_beyond_the_clip_in_the_good_direction() -> None:
    log_ratio = torch.tensor([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    ppo_loss(log_ratio, torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0])).loss.backward()
    assert log_ratio.grad is not None
    assert (log_ratio.grad != 0).tolist() == [False, True, True, False]


def test_at_ratio_one_ppo_has_the_gradient_of_reinforce() -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(7, 5, generator=generator)
    advantages, weights = torch.randn(7, generator=generator), torch.rand(7, generator=generator)
    gradients = []
    for loss in (
        lambda lp: reinforce_loss(lp, advantages, weights),
        lambda lp: ppo_loss(lp, lp.detach(), advantages, 0.2, weights).loss,
    ):
        logits = raw.clone().requires_grad_()
        loss(logits.log_softmax(-1)[:, 0]).backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients)


def test_only_the_ratio_of_weights_counts() -> None:
    log_probs, advantages = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    whole = reinforce_loss(log_probs, advantages)
    torch.testing.assert_close(reinforce_loss(log_probs, advantages, torch.full((5, 3), 1e-4)), whole)
    assert reinforce_loss(log_probs, advantages, torch.zeros(5, 3)) == 0


@pytest.mark.parametrize("shape", [(3,), (5, 1), (1, 3), (5, 3, 1), ()])
def test_what_is_not_of_one_shape_is_not_broadcast(shape: tuple[int, ...]) -> None:
    """Weights of the batch alone, for instance, would be summed once and applied five times."""
    steps, other = torch.zeros(5, 3), torch.zeros(shape)
    uses: list[Callable[[], object]] = [
        lambda: reinforce_loss(steps, other),
        lambda: reinforce_loss(steps, steps, other),
        lambda: ppo_loss(steps, other, steps),
        lambda: ppo_loss(steps, steps, other),
        lambda: ppo_loss(steps, steps, steps, weights=other),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"the shapes differ: log_probs .*; give all of one shape"):
            use()
    rows = torch.zeros(5, 3, 7)
    for use in (lambda: log_prob(rows, other.long()), lambda: log_prob_and_entropy(rows, other.long())):
        with pytest.raises(ValueError, match=r"actions .* do not fit logits \(5, 3, 7\)"):
            use()
    with pytest.raises(ValueError, match=r"values .* do not fit logits \(5, 3, 7\)"):
        two_hot_cross_entropy(rows, other, symexp_bins(7, 1.0))
    for head in ("two_hot", "normal", "mse"):
        critic = Critic(CriticConfig(feature_dim=7, hidden=(), head=head))
        with pytest.raises(ValueError, match=r"returns .* do not fit outputs \(5, 3, "):
            critic.loss(critic.outputs(rows), other)


@pytest.mark.parametrize("clip", [0.0, -0.2, math.nan])
def test_a_trust_region_has_a_width(clip: float) -> None:
    with pytest.raises(ValueError, match=f"clip is {clip}; give a number above 0"):
        ppo_loss(*torch.zeros(3, 4), clip=clip)


def test_an_action_that_was_all_but_impossible_leaves_the_gradient_finite() -> None:
    log_probs = torch.full((2,), -0.7, requires_grad=True)
    ppo_loss(log_probs, torch.tensor([-0.7, -95.0]), torch.ones(2)).loss.backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad, torch.tensor([-0.5, 0.0]))  # the second is clipped


def test_a_policy_far_from_the_one_that_chose_is_told_how_far() -> None:
    found = ppo_loss(torch.tensor([10.0]), torch.zeros(1), torch.tensor([-1.0]))
    assert found.loss.item() == pytest.approx(math.exp(10))
    assert found.approx_kl.item() == pytest.approx(math.exp(10) - 11)

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latent_ac import symexp, symexp_bins, symlog, transform_rewards, two_hot, two_hot_cross_entropy
from latent_ac.two_hot import expectation


def test_bins_are_antisymmetric_around_an_exact_zero() -> None:
    bins = symexp_bins(5, 2.0)
    expected = [-(math.e**2) + 1, -math.e + 1, 0.0, math.e - 1, math.e**2 - 1]
    torch.testing.assert_close(bins, torch.tensor(expected))
    bins = symexp_bins(255, 10.0)
    assert bins[127] == 0
    assert torch.equal(bins, -bins.flip(0))
    assert (bins.diff() > 0).all()


def test_two_hot_hand_computed() -> None:
    bins = torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0])
    index, weight = two_hot(torch.tensor([2.0, -1.0, 4.0, 9.0, -9.0, 0.25]), bins)
    assert index.tolist() == [[3, 4], [1, 2], [3, 4], [3, 4], [0, 1], [2, 3]]
    expected = [[2 / 3, 1 / 3], [1, 0], [0, 1], [0, 1], [1, 0], [0.75, 0.25]]
    torch.testing.assert_close(weight, torch.tensor(expected))


@given(st.floats(-22_000, 22_000, width=32))
def test_expectation_of_the_two_hot_is_the_value(value: float) -> None:
    bins = symexp_bins(255, 10.0)
    index, weight = two_hot(torch.tensor(value), bins)
    probabilities = torch.zeros(255).scatter(0, index, weight)
    assert expectation(probabilities, bins).item() == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_expectation_of_a_uniform_is_exactly_zero() -> None:
    assert (expectation(torch.full((3, 255), 1 / 255), symexp_bins(255, 10.0)) == 0).all()


def test_cross_entropy_equals_the_dense_form() -> None:
    generator = torch.Generator().manual_seed(0)
    bins = symexp_bins(31, 3.0)
    logits = torch.randn(4, 6, 31, generator=generator)
    values = 20 * torch.randn(4, 6, generator=generator)
    index, weight = two_hot(values, bins)
    dense = torch.zeros_like(logits).scatter(-1, index, weight)
    torch.testing.assert_close(
        two_hot_cross_entropy(logits, values, bins), -(dense * logits.log_softmax(-1)).sum(-1)
    )


@given(st.floats(-1e6, 1e6, width=32))
def test_symexp_inverts_symlog(value: float) -> None:
    assert symexp(symlog(torch.tensor(value))).item() == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_reward_transforms() -> None:
    rewards = torch.tensor([-10.0, -0.5, 0.0, 200.0])
    assert transform_rewards(rewards, "clip").tolist() == [-1.0, -0.5, 0.0, 1.0]
    assert transform_rewards(rewards, "sign").tolist() == [-1.0, -1.0, 0.0, 1.0]
    assert transform_rewards(rewards, "raw").tolist() == rewards.tolist()
    expected = torch.tensor([-math.log(11), -math.log(1.5), 0.0, math.log(201)])
    torch.testing.assert_close(transform_rewards(rewards, "symlog"), expected)


def test_user_errors() -> None:
    with pytest.raises(ValueError, match="odd number"):
        symexp_bins(4, 1.0)
    with pytest.raises(ValueError, match="'clip', 'sign', 'symlog', 'raw'"):
        transform_rewards(torch.zeros(1), "log")


@pytest.mark.parametrize("function", [symlog, symexp])
def test_a_head_that_starts_at_zero_learns_through_them(function) -> None:
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0], requires_grad=True)
    y = function(x)
    y.sum().backward()
    slope = 1 / (1 + x.abs()) if function is symlog else x.abs().exp()
    torch.testing.assert_close(x.grad, slope.detach())
    assert y[1:3].tolist() == [0, 0]

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latent_ac import ReturnNormalizer, lambda_returns, survival


def trajectory(steps: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(steps, size, generator=generator),
        torch.rand(steps, size, generator=generator),
        torch.randn(steps + 1, size, generator=generator),
    )


def test_hand_computed() -> None:
    rewards = torch.tensor([[1.0], [2.0], [3.0]])
    continues = torch.tensor([[1.0], [1.0], [1.0]])
    values = torch.tensor([[99.0], [10.0], [20.0], [30.0]])
    # gamma = lambda = 0.5.  G2 = 3 + .5 * 30 = 18;  G1 = 2 + .5 (.5 * 20 + .5 * 18) = 11.5
    # G0 = 1 + .5 (.5 * 10 + .5 * 11.5) = 6.375
    got = lambda_returns(rewards, continues, values, 0.5, 0.5)
    assert got.squeeze(1).tolist() == [6.375, 11.5, 18.0]
    continues[1] = 0.0  # the episode ends with the second action: nothing after it counts
    got = lambda_returns(rewards, continues, values, 0.5, 0.5)
    assert got.squeeze(1).tolist() == [1 + 0.5 * (0.5 * 10 + 0.5 * 2), 2.0, 18.0]


@given(st.integers(1, 12), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_is_the_weighted_mean_of_n_step_returns(steps: int, gamma: float, lam: float, seed: int) -> None:
    """G^lambda = (1 - lambda) sum_n lambda^(n-1) G^(n) + lambda^(N-1) G^(N), the definition (12.2)."""
    rewards, continues, values = (x.double() for x in trajectory(steps, 3, seed))
    expected = torch.zeros(steps, 3, dtype=torch.float64)
    for t in range(steps):
        discount = torch.ones(3, dtype=torch.float64)
        total = torch.zeros(3, dtype=torch.float64)
        for n in range(1, steps - t + 1):
            total = total + discount * rewards[t + n - 1]
            discount = discount * gamma * continues[t + n - 1]
            share = lam ** (n - 1) * (1 if n == steps - t else 1 - lam)
            expected[t] += share * (total + discount * values[t + n])
    got = lambda_returns(rewards, continues, values, gamma, lam)
    torch.testing.assert_close(got, expected.float(), atol=1e-4, rtol=1e-4)


def test_lambda_zero_is_the_one_step_target_and_one_the_discounted_sum() -> None:
    rewards, continues, values = trajectory(6, 4, 0)
    one_step = lambda_returns(rewards, continues, values, 0.9, 0.0)
    torch.testing.assert_close(one_step, rewards + 0.9 * continues * values[1:])
    ones = torch.ones_like(continues)
    whole = lambda_returns(rewards, ones, values, 0.9, 1.0)[0]
    expected = sum(0.9**t * rewards[t] for t in range(6)) + 0.9**6 * values[6]
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
def test_true_values_of_a_chain_are_a_fixed_point(lam: float) -> None:
    """A chain 0 -> 1 -> ... -> 5 -> end with reward k for leaving k: v_k = k + gamma v_(k+1)."""
    gamma = 0.9
    v = [0.0] * 7
    for k in reversed(range(6)):
        v[k] = k + gamma * v[k + 1]
    rewards = torch.arange(6.0)[:, None]
    continues = torch.tensor([1.0, 1, 1, 1, 1, 0])[:, None]
    values = torch.tensor(v)[:, None]
    torch.testing.assert_close(lambda_returns(rewards, continues, values, gamma, lam), values[:-1])


def test_is_differentiable() -> None:
    inputs = [x.double().requires_grad_() for x in trajectory(4, 2, 0)]
    lambda_returns(*inputs, 0.9, 0.8).square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
    assert (inputs[2].grad[0] == 0).all()  # the first value is not used


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"give \(T, B\), \(T, B\) and \(T\+1, B\)"):
        lambda_returns(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2), 0.9, 0.9)
    with pytest.raises(ValueError, match="rewards hold no step"):
        lambda_returns(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(1, 2), 0.9, 0.9)


def test_survival() -> None:
    continues = torch.tensor([[1.0], [0.5], [0.5], [0.0]])
    assert survival(continues).squeeze(1).tolist() == [1.0, 1.0, 0.5, 0.25]


def test_normalizer_takes_the_first_batch_whole_then_averages() -> None:
    normalizer = ReturnNormalizer(decay=0.75)
    first = torch.arange(0.0, 101.0)  # percentiles 5 and 95
    observed = normalizer.observe(first)
    assert observed.tolist() == pytest.approx([5.0, 95.0])
    assert normalizer.percentiles.isnan().all()  # observing changes nothing
    normalizer.update(observed)
    observed = normalizer.observe(first + 100)
    assert observed.tolist() == pytest.approx([30.0, 120.0])
    assert normalizer.scale(observed).item() == pytest.approx(90.0)


def test_normalizer_never_blows_small_returns_up() -> None:
    normalizer = ReturnNormalizer()
    assert normalizer.scale(normalizer.observe(0.01 * torch.randn(100))).item() == 1.0
    with pytest.raises(ValueError, match="decay"):
        ReturnNormalizer(decay=1.0)


def test_normalizer_takes_other_percentiles_and_another_floor() -> None:
    normalizer = ReturnNormalizer(low=0.25, high=0.75, minimum=0.1)
    assert normalizer.observe(torch.arange(0.0, 101.0)).tolist() == pytest.approx([25.0, 75.0])
    for spread, scale in ((0.5, 0.5), (0.05, 0.1)):
        assert normalizer.scale(torch.tensor([1.0, 1.0 + spread])).item() == pytest.approx(scale)

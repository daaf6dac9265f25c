"""Dropout by shared random bits: the law of PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from token_worldmodel.dropout import dropout


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_as_many_are_dropped_as_by_pytorch_and_the_rest_scaled_alike(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(500, 1000)
    ours, peer = dropout(x, rate, True), F.dropout(x, rate)
    deviation = (rate * (1 - rate) / x.numel()) ** 0.5
    for dropped in (ours, peer):
        assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=4 * deviation)
    assert ours.unique().tolist() == pytest.approx(peer.unique().tolist(), rel=1e-4)
    assert ours.unique().tolist() == pytest.approx([0, 1 / (1 - rate)], rel=1e-4)


def test_elements_that_share_random_bits_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(250_000, 4), 0.5, True) > 0).double()
    together = kept.T.corrcoef()
    assert together.fill_diagonal_(0).abs().max() < 0.01  # five deviations of 1 / sqrt(250,000)


def test_the_gradient_passes_where_and_as_the_value_does() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 33, requires_grad=True)
    dropped = dropout(x, 0.3, True)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.allclose(dropped, x * gradient)
    assert (gradient == 0).any()
    assert (gradient > 1).any()


def test_a_seed_gives_the_same_again_and_the_next_call_other_elements() -> None:
    x = torch.ones(64, 64)
    torch.manual_seed(3)
    first, second = dropout(x, 0.2, True), dropout(x, 0.2, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.2, True), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("rate", "training"), [(0.4, False), (0.0, True)])
def test_nothing_is_drawn_where_nothing_is_dropped(rate: float, training: bool) -> None:
    x, state = torch.randn(5), torch.get_rng_state()
    assert dropout(x, rate, training) is x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (3, 5), (2, 3, 7)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_any_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    dropped = dropout(torch.ones(shape, dtype=dtype), 0.5, True)
    assert dropped.shape == shape
    assert dropped.dtype == dtype
    assert set(dropped.flatten().tolist()) <= {0.0, 2.0}


def test_a_rate_next_to_one_stays_finite() -> None:
    assert dropout(torch.ones(1000), 1 - 1e-9, True).isfinite().all()

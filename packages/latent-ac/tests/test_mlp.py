"""How networks begin."""

import pytest
import torch
from latent_ac.mlp import MLP, linear


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_weights_begin_as_a_truncated_normal_of_the_width_before(gain: float) -> None:
    """N(0, gain^2 / 400) without what lies beyond two deviations, which leaves .8796 of the deviation."""
    layer = linear(400, 500, gain=gain, generator=torch.Generator().manual_seed(0))
    deviation = gain / 20
    assert float(layer.weight.detach().abs().max()) <= 2 * deviation
    assert float(layer.weight.detach().abs().max()) > 1.99 * deviation
    assert float(layer.weight.detach().std()) == pytest.approx(0.8796 * deviation, rel=0.01)
    assert not layer.bias.any()


def test_a_network_without_gain_says_nothing_at_first() -> None:
    made = MLP(7, (16,), 3, output_gain=0.0)
    assert not made(torch.randn(4, 7)).any()
    assert made.hidden(torch.randn(4, 7)).any()

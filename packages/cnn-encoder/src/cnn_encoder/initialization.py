"""Initial weights drawn from a generator that is passed in, so that a seed determines a network."""

import math

import torch
from torch import nn


def initialize(module: nn.Module, generator: torch.Generator | None) -> None:
    """Redraw the weights of every convolution and linear layer as PyTorch does by default.

    Weights and biases are uniform in +-1/sqrt(fan_in). ``generator=None`` uses PyTorch's global one.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        if layer.bias is not None:
            fan_in, _ = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            nn.init.uniform_(layer.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)

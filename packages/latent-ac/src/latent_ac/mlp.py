"""The one network shape of this package: linear, layer norm, SiLU, repeated, and a linear output."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(
    in_features: int,
    out_features: int,
    *,
    bias: bool = True,
    gain: float = 1.0,
    generator: torch.Generator | None = None,
) -> nn.Linear:
    """A linear layer with weights N(0, gain^2 / in_features), truncated at two deviations, and zero bias."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, in_features, out_features, bias=bias)
    with torch.no_grad():
        std = gain / math.sqrt(in_features)
        if gain:
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        else:
            layer.weight.zero_()
        if bias:
            layer.bias.zero_()
    return layer


class FeatureNorm(nn.Module):
    """Scale each block of the features to unit root mean square; without blocks, pass them on unchanged.

    The levels of a residual quantizer shrink from coarse to fine, and what decides an action (a ball, a
    paddle) is often in the fine ones; scaled alike, a network hears every level equally from its first step.

    Args:
        blocks: the widths of consecutive blocks, summing to the feature width; empty for no scaling.
    """

    def __init__(self, blocks: Sequence[int] = ()) -> None:
        super().__init__()
        self.blocks = tuple(blocks)

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) -> (..., F)."""
        if not self.blocks:
            return features
        if len(set(self.blocks)) == 1:
            split = features.unflatten(-1, (len(self.blocks), self.blocks[0]))
            return F.rms_norm(split, self.blocks[:1], eps=1e-12).flatten(-2)
        parts = features.split(self.blocks, dim=-1)
        return torch.cat([F.rms_norm(part, part.shape[-1:], eps=1e-12) for part in parts], dim=-1)


def hidden_stack(sizes: Sequence[int], generator: torch.Generator | None = None) -> nn.Sequential:
    """Layers sizes[0] -> sizes[1] -> ...: each linear (its bias is the norm's), layer norm, SiLU."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [linear(before, after, bias=False, generator=generator), nn.LayerNorm(after), nn.SiLU()]
    return nn.Sequential(*layers)


class MLP(nn.Module):
    """(..., in_features) -> (..., out_features), hidden layers with layer norm and SiLU.

    Args:
        output_gain: scale of the output layer at the start; 0 gives outputs of exactly zero.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        feature_blocks: Sequence[int] = (),
        output_gain: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.norm = FeatureNorm(feature_blocks)
        self.hidden = hidden_stack([in_features, *hidden], generator)
        width = [in_features, *hidden][-1]
        self.output = linear(width, out_features, gain=output_gain, generator=generator)

    def forward(self, features: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        output: Tensor = self.output(self.hidden(self.norm(features)))
        return output

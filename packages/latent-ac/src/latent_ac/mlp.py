"""The kind of network this package uses: linear, layer norm and SiLU, repeated, then a linear output."""

import copy
import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latent_ac.features import CodeFeatures, FeatureLinear, Features


def linear(
    in_features: int,
    out_features: int,
    *,
    bias: bool = True,
    gain: float = 1.0,
    generator: torch.Generator | None = None,
) -> FeatureLinear:
    """A linear layer with weights N(0, gain^2 / in_features), truncated at two deviations, and zero bias.

    Drawn on the CPU, so that a generator gives the same weights whatever the default device is.
    """
    layer: FeatureLinear = nn.utils.skip_init(FeatureLinear, in_features, out_features, bias=bias)
    with torch.no_grad():
        std = gain / math.sqrt(in_features)
        if gain:
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
        else:
            layer.weight.zero_()
        if bias:
            layer.bias.zero_()
    return layer.to(torch.get_default_device())


class FeatureNorm(nn.Module):
    """Scale each block of the features to unit root mean square; without blocks, pass them on unchanged.

    The levels of a residual quantizer shrink from coarse to fine, and what decides an action (a ball, a
    paddle) is often in the fine ones; scaled alike, all levels weigh the same from the first training step.

    Args:
        blocks: the widths of consecutive blocks, summing to the feature width; empty for no scaling.
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__()
        self.blocks = tuple(blocks)

    def forward(self, features: Features) -> Features:
        """(..., F) -> (..., F).

        Raises:
            ValueError: the features are not as wide as the blocks together.
        """
        if not self.blocks:
            return features
        if isinstance(features, CodeFeatures):
            tables, state = self.normalize_tables(features.tables), self.normalize_state(features.state)
            return CodeFeatures(features.tokens, tables, state)
        if features.shape[-1] != sum(self.blocks):
            raise ValueError(
                f"the features are {features.shape[-1]} wide; give {sum(self.blocks)}, the sum of "
                f"feature_blocks={self.blocks}"
            )
        return torch.cat([_unit_rms(part) for part in features.split(self.blocks, dim=-1)], dim=-1)

    def normalize_tables(self, tables: Sequence[Tensor]) -> Sequence[Tensor]:
        """The same for features that are codes: each level's table, row by row.

        Raises:
            ValueError: the blocks do not match the levels.
        """
        if not self.blocks:
            return tables
        widths = tuple(table.shape[1] for table in tables)
        if widths != self.blocks[: len(tables)]:
            raise ValueError(
                f"feature_blocks={self.blocks} are not the widths {widths} of the code tables; "
                "give one block for each level, or none"
            )
        return [_unit_rms(table) for table in tables]

    def normalize_state(self, state: Tensor | None) -> Tensor | None:
        """The same for the state that follows the codes, (..., S): the last block.

        Raises:
            ValueError: the last block does not match the state.
        """
        if not self.blocks or state is None:
            return state
        if state.shape[-1] != self.blocks[-1]:
            raise ValueError(
                f"feature_blocks={self.blocks} do not end in the width {state.shape[-1]} of the state; "
                "give one block for each level and one for the state, or none"
            )
        return _unit_rms(state)


def _unit_rms(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-12)


def hidden_stack(sizes: Sequence[int], generator: torch.Generator | None) -> nn.Sequential:
    """Layers sizes[0] -> sizes[1] -> ...: each linear (the norm has the bias), layer norm, SiLU."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [linear(before, after, bias=False, generator=generator), nn.LayerNorm(after), nn.SiLU()]
    return nn.Sequential(*layers)


class MLP(nn.Module):
    """(..., in_features) -> (..., out_features), hidden layers with layer norm and SiLU.

    Args:
        output_gain: initial scale of the output layer; 0 gives outputs of exactly zero.
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

    def forward(self, features: Features) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        output: Tensor = self.output(self.hidden(self.norm(features)))
        return output


class MLPOnCodes:
    """An MLP as a function of tokens, with its weights at the time this was made.

    The tables pass through the first layer once, here; a call then gathers rows and runs the later layers.
    """

    @torch.no_grad()
    def __init__(self, mlp: MLP, tables: Sequence[Tensor]) -> None:
        first, *self._rest = copy.deepcopy([*mlp.hidden, mlp.output])
        assert isinstance(first, FeatureLinear)
        self._first, self._norm = first, mlp.norm
        self._tables = mlp.norm.normalize_tables(tables)
        self._projected = first.project(self._tables)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, state: Tensor | None = None) -> Tensor:
        """Tokens int64 (..., L) and, if the features have one, the state (..., S) -> (..., out_features)."""
        state = self._norm.normalize_state(state)
        x = self._first.gather(self._projected, tokens, self._tables, state)
        for layer in self._rest:
            x = layer(x)
        return x

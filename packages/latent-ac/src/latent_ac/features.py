"""Features that are codes: rows chosen from small tables, one table a level, instead of wide vectors.

Where a state is L tokens and its features are their codes side by side, the first layer of a network needs
no wide product at all. With W = [W_1 ... W_L],

    W [C_1[k_1], ..., C_L[k_L]] = sum_l (C_l W_l^T)[k_l],

so each table is multiplied by its part of the weights once a batch, and every state only gathers and adds L
rows. The result is the same, and so is the gradient; at 3 levels of 256 codes of width 384 the layer costs
what 256 states would cost, however many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class CodeFeatures:
    """Features given by their tokens; usable wherever features (..., sum of widths) are.

    Attributes:
        tokens: int64 (..., L), the row of each level's table.
        tables: L tensors (K_l, D_l), for instance the codebooks of a residual quantizer.

    Raises:
        ValueError: there is not one table for each level of the tokens.
    """

    tokens: Tensor
    tables: Sequence[Tensor]

    def __post_init__(self) -> None:
        """Check the number of levels."""
        if self.tokens.shape[-1:] != (len(self.tables),):
            raise ValueError(
                f"tokens {tuple(self.tokens.shape)} do not fit {len(self.tables)} tables; "
                "give int64 (..., L) and one table (K, D) for each of the L levels"
            )

    @property
    def shape(self) -> torch.Size:
        """Shape of the features as vectors, (..., sum of the tables' widths)."""
        return torch.Size((*self.tokens.shape[:-1], sum(table.shape[1] for table in self.tables)))

    def __getitem__(self, index: Any) -> Self:
        """Index the leading dimensions."""
        return replace(self, tokens=self.tokens[index])

    def to(self, device: torch.device | str) -> Self:
        """The same features on another device."""
        return replace(
            self, tokens=self.tokens.to(device), tables=[table.to(device) for table in self.tables]
        )

    def dense(self) -> Tensor:
        """The features as vectors, (..., F)."""
        rows = [table[self.tokens[..., level]] for level, table in enumerate(self.tables)]
        return torch.cat(rows, dim=-1)


Features: TypeAlias = Tensor | CodeFeatures


class FeatureLinear(nn.Linear):
    """``nn.Linear`` that also takes ``CodeFeatures``, and then multiplies tables instead of states."""

    def forward(self, features: Features) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if isinstance(features, Tensor):
            return super().forward(features)
        return self.gather(self.project(features.tables), features.tokens, features.tables)

    def project(self, tables: Sequence[Tensor]) -> Tensor:
        """C_l W_l^T of every level, one below the other: float32 (sum of K_l, out_features)."""
        parts = self.weight.split([table.shape[1] for table in tables], dim=1)
        return torch.cat([F.linear(table, part) for table, part in zip(tables, parts, strict=True)]).float()

    def gather(self, projected: Tensor, tokens: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """Sum of each state's projected rows, plus the bias: tokens (..., L) -> (..., out_features)."""
        starts, levels = 0, []
        for level, table in enumerate(tables):
            levels.append(tokens[..., level] + starts)
            starts += table.shape[0]
        index = torch.stack(levels, -1)
        summed = F.embedding_bag(index.flatten(0, -2), projected, mode="sum").unflatten(0, tokens.shape[:-1])
        return summed if self.bias is None else summed + self.bias

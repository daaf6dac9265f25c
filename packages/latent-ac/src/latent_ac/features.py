"""Features that are codes: rows chosen from small tables, one table per level, instead of wide vectors.

Where a state is L tokens and its features are their codes side by side, the first layer of a network needs
no wide product at all. With W = [W_1 ... W_L],

    W [C_1[k_1], ..., C_L[k_L]] = sum_l (C_l W_l^T)[k_l],

so each table is multiplied by its part of the weights once per batch, and every state only gathers and adds
L rows. Result and gradient are the same; with 3 levels of 256 codes of width 384 the layer costs what 256
states would cost, however many there are. Whatever else is known about a state, such as a world model's
hidden state, follows its codes as a vector and is multiplied as usual.
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
        state: (..., S), more features that follow the codes, for instance a world model's state; or None.

    Raises:
        ValueError: there is not one table for each level of the tokens, or not one state for each token.
    """

    tokens: Tensor
    tables: Sequence[Tensor]
    state: Tensor | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        if self.tokens.shape[-1:] != (len(self.tables),):
            raise ValueError(
                f"tokens {tuple(self.tokens.shape)} do not fit {len(self.tables)} tables; "
                "give int64 (..., L) and one table (K, D) for each of the L levels"
            )
        if self.state is not None and self.state.shape[:-1] != self.tokens.shape[:-1]:
            raise ValueError(
                f"state {tuple(self.state.shape)} does not fit tokens {tuple(self.tokens.shape)}; "
                "give (..., S) beside int64 (..., L)"
            )

    @property
    def shape(self) -> torch.Size:
        """Shape of the features as vectors, (..., sum of the tables' widths + S)."""
        width = sum(table.shape[1] for table in self.tables)
        if self.state is not None:
            width += self.state.shape[-1]
        return torch.Size((*self.tokens.shape[:-1], width))

    @property
    def codes(self) -> Self:
        """The same features without the state."""
        return replace(self, state=None)

    def __getitem__(self, index: Any) -> Self:
        """Index the leading dimensions."""
        state = None if self.state is None else self.state[index]
        return replace(self, tokens=self.tokens[index], state=state)

    def to(self, device: torch.device | str) -> Self:
        """The same features on another device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            tables=[table.to(device) for table in self.tables],
            state=None if self.state is None else self.state.to(device),
        )

    def detach(self) -> Self:
        """The same features, with no gradient to tables and state."""
        return replace(
            self,
            tables=[table.detach() for table in self.tables],
            state=None if self.state is None else self.state.detach(),
        )

    def dense(self) -> Tensor:
        """The features as vectors, (..., F).

        Raises:
            ValueError: the tokens are not int64 rows of their tables, as in ``FeatureLinear.gather``.
        """
        _check_tokens(self.tokens, self.tables)
        parts = [table[self.tokens[..., level]] for level, table in enumerate(self.tables)]
        if self.state is not None:
            parts.append(self.state)
        return torch.cat(parts, dim=-1)


Features: TypeAlias = Tensor | CodeFeatures


class FeatureLinear(nn.Linear):
    """``nn.Linear`` that also takes ``CodeFeatures``, and then multiplies tables instead of states."""

    def forward(self, features: Features) -> Tensor:
        """(..., in_features) -> (..., out_features).

        Features of another dtype are cast to the weights' dtype. So are tables and state, so that few states,
        which are made dense, give the same result as many.

        Raises:
            ValueError: the features have another width, or ``project`` or ``gather`` rejects them.
        """
        if isinstance(features, Tensor):
            if features.shape[-1] != self.in_features:
                raise ValueError(
                    f"the features are {features.shape[-1]} wide; give feature_dim = {self.in_features}"
                )
            return super().forward(features.to(self.weight.dtype))
        if features.tokens[..., 0].numel() < sum(table.shape[0] for table in features.tables):
            # Fewer states than codes: the tables gain nothing.
            return self.forward(features.dense())
        projected = self.project(features.tables)
        return self.gather(projected, features.tokens, features.tables, features.state)

    def project(self, tables: Sequence[Tensor]) -> Tensor:
        """C_l W_l^T of every level, stacked: (sum of K_l, out_features).

        Raises:
            ValueError: together the tables are wider than ``in_features``.
        """
        widths = [table.shape[1] for table in tables]
        if sum(widths) > self.in_features:
            raise ValueError(
                f"the tables are {sum(widths)} wide together; give at most feature_dim = {self.in_features}"
            )
        parts = self.weight[:, : sum(widths)].split(widths, dim=1)
        projected = [F.linear(table.to(part.dtype), part) for table, part in zip(tables, parts, strict=True)]
        return torch.cat(projected).to(self.weight.dtype)  # autocast's would be narrower

    def gather(
        self, projected: Tensor, tokens: Tensor, tables: Sequence[Tensor], state: Tensor | None = None
    ) -> Tensor:
        """Sum of each state's projected rows, plus the bias: tokens (..., L) -> (..., out_features).

        Raises:
            ValueError: the tables' widths and the state's do not sum to ``in_features``, the tokens are not
                int64 with one for each table, or one is not a row of its table (checked on a CPU only: on a
                GPU the check would wait for the device).
        """
        _check_tokens(tokens, tables)
        codes, rest = sum(table.shape[1] for table in tables), 0 if state is None else state.shape[-1]
        if codes + rest != self.in_features:
            raise ValueError(
                f"the features are {codes} wide in codes and {rest} in state; "
                f"they must sum to feature_dim = {self.in_features}"
            )
        start, levels = 0, []  # the row of `projected` where a level's table begins
        for level, table in enumerate(tables):
            levels.append(tokens[..., level] + start)
            start += table.shape[0]
        rows = torch.stack(levels, -1).reshape(-1, len(tables))
        summed = F.embedding_bag(rows, projected, mode="sum").view(*tokens.shape[:-1], projected.shape[1])
        if state is not None:
            summed = summed + F.linear(state.to(self.weight.dtype), self.weight[:, codes:])
        return summed if self.bias is None else summed + self.bias


def _check_tokens(tokens: Tensor, tables: Sequence[Tensor]) -> None:
    """Raise ValueError for a token that is not a row of its level's table: it would pick some other row."""
    if tokens.dtype != torch.int64 or tokens.shape[-1:] != (len(tables),):
        raise ValueError(
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}; "
            f"give int64 (..., {len(tables)}), a row of each table"
        )
    if tokens.device.type != "cpu" or not tokens.numel() or torch.compiler.is_compiling():
        return
    lowest, highest = (bound.tolist() for bound in tokens.reshape(-1, len(tables)).aminmax(dim=0))
    for level, table in enumerate(tables):
        if lowest[level] < 0 or highest[level] >= table.shape[0]:
            raise ValueError(
                f"tokens of level {level} range from {lowest[level]} to {highest[level]}; "
                f"its table has rows 0 to {table.shape[0] - 1}"
            )

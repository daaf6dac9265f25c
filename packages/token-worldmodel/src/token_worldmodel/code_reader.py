"""What tokens stand for: the vectors of a quantizer, read beside the tokens' names.

Shape legend: as in `model`, with V the width of a code's vector.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import WorldModelConfig


class CodeReader(nn.Module):
    """Reads the sum of a step's codes so far, which is what a residual quantizer decodes the tokens to.

    An embedding table knows a token by its name alone: two tokens that stand for nearly the same are as
    unrelated as any, and what a finer token means after a coarser one has to be learned pair by pair. Their
    sum is a point near what was quantized, so that what is learned of it holds for its neighbourhood, in
    combinations of tokens never seen too.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        for level, codes in enumerate(config.codes):
            # Random until `set_codebooks`: they tell tokens apart, and nothing more.
            self.register_buffer(f"codes_{level}", torch.randn(codes, config.code_dim))
        self.num_levels = config.num_levels
        self.expand = nn.Linear(config.code_dim, 2 * config.dim)
        self.reduce = nn.Linear(2 * config.dim, config.dim)

    @property
    def codes(self) -> list[Tensor]:
        """Each level's vectors, (K_l, V): float32, standardised by `set_codebooks`."""
        return [self.get_buffer(f"codes_{level}") for level in range(self.num_levels)]

    @torch.no_grad()
    def set_codebooks(self, codebooks: Sequence[Tensor]) -> None:
        """Read tokens as these codes from now on.

        The sum of a step's codes is shifted and scaled as it takes to give L0's codes a mean of 0 and a
        variance of 1 per dimension on average.

        Args:
            codebooks: (K_l, V) for each level, coarse to fine, as `hrvq.HRVQ.codebooks`; copied,
                whatever their dtype and device.

        Raises:
            ValueError: wrong shapes, or values that are not finite.
        """
        wanted = [tuple(held.shape) for held in self.codes]
        given = [tuple(codes.shape) for codes in codebooks]
        if given != wanted:
            raise ValueError(f"the codebooks have shapes {given}; this model reads {wanted}")
        read = [codes.to(held) for held, codes in zip(self.codes, codebooks, strict=True)]
        if not all(bool(codes.isfinite().all()) for codes in read):
            raise ValueError("the codebooks hold NaN or infinity; give finite vectors")
        centre = read[0].mean(0)
        spread = (read[0] - centre).square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
        for level, (held, codes) in enumerate(zip(self.codes, read, strict=True)):
            held.copy_((codes - centre if level == 0 else codes) / spread)

    def extend(self, coarser: Tensor | None, tokens: Tensor, level: int) -> Tensor:
        """The sum of codes (..., V) up to this level, from that up to the level before; None before L0."""
        vectors = F.embedding(tokens, self.get_buffer(f"codes_{level}"))
        return vectors if coarser is None else coarser + vectors

    def forward(self, vectors: Tensor) -> Tensor:
        """What the model adds to the embedding of the last token of a sum: (..., V) to (..., D)."""
        hidden = self.expand(vectors.to(self.expand.weight.dtype))
        return self.reduce(F.gelu(hidden))

    def read(self, tokens: Tensor) -> list[Tensor]:
        """The same for whole steps (..., L): one (..., D) per level."""
        sums: list[Tensor] = []
        for level in range(self.num_levels):
            sums.append(self.extend(sums[-1] if sums else None, tokens[..., level], level))
        return list(self(torch.stack(sums, -2)).unbind(-2))

"""Other tokens that a vector might as well have had."""

import torch
from torch import Tensor

from hrvq._config import whole
from hrvq._gradients import normalize
from hrvq._quantizer import HRVQ


@torch.no_grad()
def alternative_tokens(
    quantizer: HRVQ, x: Tensor, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Tokens of ``x`` with noise of the kind and size that the codes ignore anyway.

    What the codes leave of a vector, r(x) = x - decode(encode(x)), makes no difference to its tokens. So each
    alternative is ``encode(x + r(y))``, y another of the vectors, drawn at random. Where x lies near a border
    between codes it gets the tokens of either side, and a model that reads now the one, now the other learns
    that they mean the same: what subword regularization does for text (Kudo 2018,
    https://arxiv.org/abs/1804.10959).

    Args:
        quantizer: with codes.
        x: floating (..., dim), many vectors of the same kind, as the noise is taken from them.
        count: alternatives for each vector.
        generator: draws the vectors that the noise is from; on any device.

    Returns:
        int64 (..., count, levels).

    Raises:
        ValueError: ``count`` is not a whole number of at least 1, or ``x`` as for :meth:`HRVQ.encode`.
    """
    if not whole(count):
        raise ValueError(f"count is {count!r}; give how many alternatives each vector gets, 1 or more")
    tokens = quantizer.encode(x)
    rows = x.float().reshape(-1, quantizer.config.dim)
    if quantizer.config.distance == "cosine":
        rows = normalize(rows)
    left = rows - quantizer.decode(tokens).reshape(rows.shape)
    device = x.device if generator is None else generator.device
    found = []
    for _ in range(count):
        drawn = torch.randint(max(1, len(rows)), (len(rows),), generator=generator, device=device)
        found.append(quantizer.encode(rows + left[drawn.to(x.device)]))
    return torch.stack(found, 1).reshape(*x.shape[:-1], count, tokens.shape[-1])

"""Codes that stand for nearly the same thing are nearly equally likely: a world model need not learn that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .model import WorldModel


class _Likeness(nn.Module):
    """W + C P: for each code a row of its own, plus one computed from the code's vector."""

    vectors: Tensor

    def __init__(self, codebook: Tensor, own: Tensor) -> None:
        super().__init__()
        codebook = codebook.to(own.device)
        if not bool(codebook.isfinite().all()):
            raise ValueError(
                "codebooks hold NaN or infinite values; give those of a quantizer that was fitted"
            )
        centred = codebook.detach().float() - codebook.detach().float().mean(0)
        length = centred.square().sum(1).mean().sqrt().clamp_min(1e-12)
        self.register_buffer("vectors", centred / length, persistent=False)  # (K, E), of length about 1
        self.shared = nn.Parameter(own.new_zeros(codebook.shape[1], own.shape[1]))

    def forward(self, own: Tensor) -> Tensor:
        return own + self.vectors.to(self.shared.dtype) @ self.shared


@contextmanager
def alike_codes_learn_together(model: WorldModel, codebooks: Sequence[Tensor]) -> Iterator[None]:
    """Within this context, what the model learns about one code also updates similar codes.

    Cross-entropy treats the codes of a level as names: that one occurred says nothing about its neighbours.
    But they are vectors, and many stand for moments that differ by a pixel. Within the context the weights of
    a level's head are W + C P, with C the codes (K, E), centred and of length 1 on average, and P (E, D)
    learned, starting from zero: a step along P moves the rows of all codes by what they have in common. When
    the context ends, the sum takes W's place: the model keeps its function, at its original size and speed. A
    copy made within the context keeps both parts, and can be used and saved afterwards.

    Create optimiser and objective within the context, because the model has other parameters there.

    Args:
        model: its heads are changed in place.
        codebooks: (K, E) for each level, K as in the model. Copied: later changes have no effect.

    Raises:
        ValueError: the codebooks do not fit the model's levels or are not finite, or the model is already in
            such a context.
    """
    if any(parametrize.is_parametrized(head) for head in model.heads):
        raise ValueError("the model's heads are parametrized already; leave that context before this one")
    sizes = [tuple(codebook.shape[:1]) for codebook in codebooks if codebook.ndim == 2]
    if sizes != [(codes,) for codes in model.config.codes]:
        raise ValueError(
            f"codebooks have shapes {[tuple(codebook.shape) for codebook in codebooks]}; "
            f"give one (codes, dim) for each level of {model.config.codes} codes"
        )
    try:
        for head, codebook in zip(model.heads, codebooks, strict=True):
            parametrize.register_parametrization(head, "weight", _Likeness(codebook, head.weight))
        yield
    finally:
        for head in model.heads:
            if parametrize.is_parametrized(head):  # some are not if a codebook was rejected
                shared, weight = type(head), type(head).weight
                parametrize.remove_parametrizations(head, "weight", leave_parametrized=True)
                # That removed it from the class, which is also that of copies made in the context.
                shared.weight = weight

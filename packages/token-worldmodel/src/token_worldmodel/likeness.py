"""Codes that stand for nearly the same are nearly equally likely: a world model need not learn that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .model import WorldModel


class _Likeness(nn.Module):
    """W + C P: a row of its own for each code, and one that follows from what the code stands for."""

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
    """Train the model within this context, and what is learned of a code is learned of those like it.

    To a cross-entropy the codes of a level are names: that one of them came says nothing of its neighbours.
    But they are vectors, and many stand for moments that differ by a pixel. Within the context the weights of
    a level's head are W + C P, with C the codes (K, E), centred and of length 1 on average, and P (E, D)
    learned, from zero: a step along P moves the rows of all codes by what they have in common. At its end the
    sum takes W's place, so that the model is what it was in function, size and speed. A copy made within the
    context keeps both parts, and can be used and saved after it.

    Make optimiser and objective within the context, because the model has other parameters there.

    Args:
        model: its heads are changed in place.
        codebooks: (K, E) of each level, K as the model has it. Copied: later changes do not count.

    Raises:
        ValueError: codebooks of other sizes than the model's or not finite, or the model is in such a context
            already.
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
            if parametrize.is_parametrized(head):  # some are not where a codebook was refused
                shared, weight = type(head), type(head).weight
                parametrize.remove_parametrizations(head, "weight", leave_parametrized=True)
                # That took it from the class, which copies made in the context have as well.
                shared.weight = weight

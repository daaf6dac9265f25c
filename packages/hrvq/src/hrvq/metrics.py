"""How well codes are used, and how much tokens keep. Tokens are integer (..., L); -1 means no code."""

from collections.abc import Iterable, Sequence
from math import log
from operator import index

import numpy as np
import torch
from torch import Tensor

from hrvq._checks import check_tensors, integers


def level_sizes(codes: int | Sequence[int], levels: int) -> tuple[int, ...]:
    """The number of codes of each level; NumPy integers and arrays are accepted too."""
    try:
        sizes = tuple(map(index, codes)) if isinstance(codes, Iterable) else (index(codes),) * levels
    except TypeError as error:
        raise ValueError(f"codes is {codes!r}; give an integer, or one for each level") from error
    if min(sizes, default=1) < 1:
        raise ValueError(f"codes is {codes!r}; give whole numbers of at least 1")
    if len(sizes) != levels:
        raise ValueError(f"codes has {len(sizes)} entries and tokens {levels} levels; give one for each")
    return sizes


def integer_tokens(tokens: Tensor | np.ndarray) -> Tensor:
    """An integer tensor or array (..., L) of any width as int64; its values must be -1 or more."""
    whole = integers("tokens", tokens)
    if whole.ndim < 1 or not whole.shape[-1]:
        raise ValueError(f"tokens have shape {tuple(whole.shape)}; give (..., L), one for each level")
    if whole.numel() and int(whole.min()) < -1:
        raise ValueError(f"tokens run from {int(whole.min())}; allowed are -1 for no code, and 0 on")
    return whole


def code_counts(tokens: Tensor | np.ndarray, codes: int | Sequence[int]) -> list[Tensor]:
    """How often each code occurs: for each level int64 (K,).

    Args:
        tokens: integer (..., L).
        codes: K, one number or one for each level.
    """
    whole = integer_tokens(tokens)
    rows = whole.reshape(-1, whole.shape[-1])
    counts = []
    for level, size in enumerate(level_sizes(codes, rows.shape[1])):
        chosen = rows[:, level]
        chosen = chosen[chosen >= 0]
        if len(chosen) and int(chosen.max()) >= size:
            raise ValueError(f"level {level} has token {int(chosen.max())}; allowed are 0 to {size - 1}")
        counts.append(torch.bincount(chosen, minlength=size))
    return counts


def usage(tokens: Tensor | np.ndarray, codes: int | Sequence[int]) -> Tensor:
    """Share of the codes that occur at all: float32 (L,)."""
    return torch.stack([(counts > 0).float().mean() for counts in code_counts(tokens, codes)])


def bits(tokens: Tensor | np.ndarray, codes: int | Sequence[int]) -> Tensor:
    """Entropy of each level's tokens in bits, -sum p log2 p: float32 (L,); at most log2 K."""
    shares = (counts.float() / counts.sum().clamp_min(1) for counts in code_counts(tokens, codes))
    return torch.stack([torch.special.entr(share).sum() for share in shares]) / log(2)


def perplexity(tokens: Tensor | np.ndarray, codes: int | Sequence[int]) -> Tensor:
    """Number of equally used codes that would have the same entropy, 2^bits: float32 (L,); at most K."""
    return torch.exp2(bits(tokens, codes))


def persistence(tokens: Tensor | np.ndarray, episode_ids: Tensor | np.ndarray | None = None) -> Tensor:
    """Share of steps at which a level's token stays the same: float32 (L,).

    Steps from or to -1 are left out; NaN for a level that has no others.

    Args:
        tokens: integer (T, L), in order of time.
        episode_ids: integer (T,); steps from one episode to the next are left out.

    Raises:
        ValueError: another shape or dtype, or no level has a step to count.
    """
    tokens = integer_tokens(tokens)
    if tokens.ndim != 2:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give (T, L), in order of time")
    stays = tokens[1:] == tokens[:-1]
    counts = (tokens[1:] >= 0) & (tokens[:-1] >= 0)
    if episode_ids is not None:
        episode_ids = integers("episode_ids", episode_ids).to(tokens.device)
        if episode_ids.shape != tokens.shape[:1]:
            raise ValueError(f"episode_ids have shape {tuple(episode_ids.shape)}; give ({len(tokens)},)")
        counts &= (episode_ids[1:] == episode_ids[:-1])[:, None]
    if not bool(counts.any()):
        raise ValueError(
            "no two steps with codes follow each other in one episode; give a longer stretch, or tokens that "
            "are not all -1"
        )
    return (stays & counts).sum(0).float() / counts.sum(0)


def distortion(x: Tensor, level_embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared distance |x - (c_0 + ... + c_l)|^2 with the first l + 1 levels: float32 (L,).

    NaN if there is no vector to count.

    Args:
        x: (..., dim); for a quantizer with cosine distance, scaled to unit length as it does itself.
        level_embeddings: (..., L, dim), from :class:`hrvq.HRVQOutput` or ``HRVQ.level_embeddings``.
        mask: bool (...), True where a position counts; otherwise padding, for which an output holds zeros,
            would count as badly coded vectors.
    """
    check_tensors(x=x, level_embeddings=level_embeddings, mask=x if mask is None else mask)
    if level_embeddings.shape[:-2] != x.shape[:-1] or level_embeddings.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"level_embeddings have shape {tuple(level_embeddings.shape)}; for x of shape {tuple(x.shape)} "
            f"give {(*x.shape[:-1], 'L', x.shape[-1])}"
        )
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != x.shape[:-1]:
            raise ValueError(
                f"mask is {mask.dtype} of shape {tuple(mask.shape)}; give torch.bool of {tuple(x.shape[:-1])}"
            )
        x, level_embeddings = x[mask], level_embeddings[mask]
    rest, means = x.float(), []
    for level in range(level_embeddings.shape[-2]):
        rest = rest - level_embeddings[..., level, :].float()
        means.append(rest.square().sum(-1).mean())
    return torch.stack(means)

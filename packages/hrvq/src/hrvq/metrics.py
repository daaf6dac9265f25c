"""How well tokens are used, and how much they keep. Tokens are integer (..., L); -1 stands for no code."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor


def _sizes(codes: int | Sequence[int], levels: int) -> tuple[int, ...]:
    sizes = tuple(codes) if isinstance(codes, Sequence) else (int(codes),) * levels
    if len(sizes) != levels:
        raise ValueError(f"codes has {len(sizes)} entries and tokens {levels} levels; give one for each")
    return sizes


def code_counts(tokens: Tensor, codes: int | Sequence[int]) -> list[Tensor]:
    """How often each code occurs: for each level int64 (K,).

    Args:
        tokens: integer (..., L).
        codes: K, one number or one for each level.
    """
    if tokens.is_floating_point():
        raise ValueError(f"tokens are {tokens.dtype}; give an integer tensor")
    rows = tokens.reshape(-1, tokens.shape[-1]).long()
    counts = []
    for level, size in enumerate(_sizes(codes, rows.shape[1])):
        chosen = rows[:, level]
        chosen = chosen[chosen >= 0]
        if len(chosen) and int(chosen.max()) >= size:
            raise ValueError(f"level {level} has token {int(chosen.max())}; allowed are 0 to {size - 1}")
        counts.append(torch.bincount(chosen, minlength=size))
    return counts


def _shares(tokens: Tensor, codes: int | Sequence[int]) -> list[Tensor]:
    return [counts / counts.sum().clamp_min(1) for counts in code_counts(tokens, codes)]


def usage(tokens: Tensor, codes: int | Sequence[int]) -> Tensor:
    """Share of the codes that occur at all: float32 (L,)."""
    return torch.stack([(counts > 0).float().mean() for counts in code_counts(tokens, codes)])


def bits(tokens: Tensor, codes: int | Sequence[int]) -> Tensor:
    """Entropy of each level's tokens in bits, -sum p log2 p: float32 (L,); at most log2 K."""
    nats = [torch.special.entr(share).sum() for share in _shares(tokens, codes)]
    return torch.stack(nats) / log(2)


def perplexity(tokens: Tensor, codes: int | Sequence[int]) -> Tensor:
    """Number of equally used codes that would have the same entropy, 2^bits: float32 (L,); at most K."""
    return torch.exp2(bits(tokens, codes))


def persistence(tokens: Tensor, episode_ids: Tensor | None = None) -> Tensor:
    """Share of steps at which a level's token stays what it was: float32 (L,).

    Steps from or to -1 are left out; NaN for a level that has no others.

    Args:
        tokens: integer (T, L), in order of time.
        episode_ids: (T,); steps from one episode to the next are left out.
    """
    if tokens.ndim != 2:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give (T, L), in order of time")
    stays = tokens[1:] == tokens[:-1]
    counts = (tokens[1:] >= 0) & (tokens[:-1] >= 0)
    if episode_ids is not None:
        if episode_ids.shape != tokens.shape[:1]:
            raise ValueError(f"episode_ids have shape {tuple(episode_ids.shape)}; give ({len(tokens)},)")
        counts &= (episode_ids[1:] == episode_ids[:-1])[:, None]
    if not bool(counts.any()):
        raise ValueError(
            "no two steps with codes follow each other in one episode; give a longer stretch, or tokens that "
            "are not all -1"
        )
    return (stays & counts).sum(0) / counts.sum(0)


def distortion(x: Tensor, level_embeddings: Tensor) -> Tensor:
    """Mean squared distance |x - (c_0 + ... + c_l)|^2 with the first l + 1 levels: float32 (L,).

    Args:
        x: (..., dim); for a quantizer of cosine distance scaled to unit length, as it does itself.
        level_embeddings: (..., L, dim), as :class:`hrvq.HRVQOutput` and ``HRVQ.level_embeddings`` give them.
    """
    if level_embeddings.shape[:-2] != x.shape[:-1] or level_embeddings.shape[-1] != x.shape[-1]:
        raise ValueError(
            f"level_embeddings have shape {tuple(level_embeddings.shape)}; for x of shape {tuple(x.shape)} "
            f"give {(*x.shape[:-1], 'L', x.shape[-1])}"
        )
    rest, means = x.float(), []
    for level in range(level_embeddings.shape[-2]):
        rest = rest - level_embeddings[..., level, :].float()
        means.append(rest.square().sum(-1).mean())
    return torch.stack(means)

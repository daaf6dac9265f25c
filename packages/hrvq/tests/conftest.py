from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig
from torch import Tensor


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def vectors() -> Callable[..., Tensor]:
    """vectors(rows, dim, seed): unit vectors near an eight-dimensional subspace, as embeddings are."""

    def make(rows: int, dim: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        basis = torch.randn(8, dim, generator=torch.Generator().manual_seed(1234))
        x = (
            torch.randn(rows, 8, generator=generator) @ basis
            + torch.randn(rows, dim, generator=generator) / 4
        )
        return torch.nn.functional.normalize(x, dim=1)

    return make


@pytest.fixture
def quantizer() -> Callable[..., HRVQ]:
    """quantizer(codebooks, **config): in training mode, with the given codes."""

    def make(codebooks: list[Tensor], **config: object) -> HRVQ:
        sizes = tuple(len(codes) for codes in codebooks)
        made = HRVQ(HRVQConfig(dim=codebooks[0].shape[1], levels=len(sizes), codes=sizes, **config))
        made.set_codebooks(codebooks)
        return made

    return make


@pytest.fixture
def random_codebooks() -> Callable[..., list[Tensor]]:
    """random_codebooks(dim, sizes, seed): codes that shrink from level to level."""

    def make(dim: int, sizes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn(k, dim, generator=generator) / (dim**0.5 * 2**level) for level, k in enumerate(sizes)
        ]

    return make


@pytest.fixture
def correlated() -> Callable[..., Tensor]:
    """correlated(rows): vectors near a subspace, so that what one level leaves still tells of the others."""

    def make(rows: int, dim: int = 16, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        basis = torch.randn(4, dim, generator=generator)
        near = torch.randn(rows, 4, generator=generator) @ basis
        return near + 0.1 * torch.randn(rows, dim, generator=generator)

    return make


@pytest.fixture
def coordinate_descent() -> Callable[..., list[np.ndarray]]:
    """coordinate_descent(x, tokens, codebooks): each level in turn at the means of what the others leave."""

    def descend(x: Tensor, tokens: Tensor, codebooks: Sequence[Tensor]) -> list[np.ndarray]:
        vectors, chosen = x.double().numpy(), tokens.numpy()
        codes = [codebook.double().numpy() for codebook in codebooks]
        for level, own in enumerate(codes):
            said = [each[chosen[:, other]] for other, each in enumerate(codes) if other != level]
            left = vectors - sum(said)
            for code in np.unique(chosen[:, level]):
                own[code] = left[chosen[:, level] == code].mean(0)
        return codes

    return descend

import pytest
import torch
from hrvq import HRVQ, HRVQConfig, alternative_tokens


def on_a_line(*levels: list[float], distance: str = "euclidean") -> HRVQ:
    """Codes at these places, level by level."""
    codes = tuple(len(level) for level in levels)
    quantizer = HRVQ(HRVQConfig(dim=1, levels=len(levels), codes=codes, distance=distance))
    quantizer.set_codebooks([torch.tensor(level)[:, None] for level in levels])
    return quantizer


def test_noise_is_what_the_codes_leave_of_other_vectors() -> None:
    # Codes at 0 and 10 leave 4 of the first vector, -1 of the second and nothing of the third.
    quantizer, x = on_a_line([0.0, 10.0]), torch.tensor([[4.0], [9.0], [0.0]])
    found = alternative_tokens(quantizer, x, 400, generator=torch.Generator().manual_seed(0))
    assert found.shape == (3, 400, 1)
    # 4 + 4 is nearer to 10; 9 - 1, 9 + 0 and 9 + 4 are; of 0 - 1, 0 + 0 and 0 + 4 none is.
    assert found[0].float().mean().item() == pytest.approx(1 / 3, abs=0.08)
    assert found[1].eq(1).all()
    assert found[2].eq(0).all()


def test_vectors_that_are_codes_have_no_other_tokens() -> None:
    quantizer = on_a_line([0.0, 10.0], [-1.0, 1.0])
    x = quantizer.decode(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]))
    found = alternative_tokens(quantizer, x, 5)
    assert found.eq(quantizer.encode(x)[:, None]).all()


def test_seeded_and_of_any_shape() -> None:
    quantizer = HRVQ(HRVQConfig(dim=8, levels=3, codes=16))
    x = torch.randn(50, 4, 8, generator=torch.Generator().manual_seed(1))
    quantizer.fit(x.reshape(-1, 8))
    one, again, other = (
        alternative_tokens(quantizer, x, 3, generator=torch.Generator().manual_seed(seed))
        for seed in (2, 2, 3)
    )
    assert one.shape == (50, 4, 3, 3)
    assert one.dtype == torch.int64
    assert one.equal(again)
    assert not one.equal(other)
    changed = one.ne(quantizer.encode(x)[..., None, :]).float().mean((0, 1, 2))
    assert 0 < changed[0] < changed[1] < changed[2] < 1  # finer levels hold finer detail


def test_directions_get_the_noise_of_directions() -> None:
    quantizer = HRVQ(HRVQConfig(dim=4, levels=2, codes=8, distance="cosine"))
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    quantizer.fit(x)
    one, long = (
        alternative_tokens(quantizer, v, 2, generator=torch.Generator().manual_seed(1)) for v in (x, 9 * x)
    )
    assert one.equal(long)


def test_no_vectors_have_no_alternatives() -> None:
    assert alternative_tokens(on_a_line([0.0, 1.0]), torch.zeros(0, 1), 2).shape == (0, 2, 1)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_refuses_counts(count) -> None:
    with pytest.raises(ValueError, match=r"count is .*; give how many alternatives each vector gets"):
        alternative_tokens(on_a_line([0.0, 1.0]), torch.zeros(3, 1), count)

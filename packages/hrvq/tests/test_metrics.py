import numpy as np
import pytest
import torch
from hrvq import bits, code_counts, distortion, perplexity, persistence, usage

TOKENS = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3]])


def test_by_hand():
    assert [counts.tolist() for counts in code_counts(TOKENS, 4)] == [[2, 2, 0, 0], [1, 1, 1, 1]]
    assert usage(TOKENS, 4).tolist() == [0.5, 1.0]
    assert bits(TOKENS, 4).tolist() == pytest.approx([1.0, 2.0])
    assert perplexity(TOKENS, 4).tolist() == pytest.approx([2.0, 4.0])
    assert persistence(TOKENS).tolist() == pytest.approx([2 / 3, 0.0])
    assert persistence(TOKENS, torch.tensor([0, 0, 1, 1])).tolist() == [1.0, 0.0]


def test_uneven_shares():
    tokens = torch.tensor([[0], [0], [0], [1]], dtype=torch.int16)
    entropy = -(0.75 * torch.tensor(0.75).log2() + 0.25 * torch.tensor(0.25).log2())
    assert bits(tokens, 2) == pytest.approx(float(entropy))


def test_levels_of_different_size_and_shape():
    assert usage(TOKENS.reshape(2, 2, 2), (2, 8)).tolist() == [1.0, 0.5]


def test_codes_may_be_a_list():
    assert usage(TOKENS, [4, 8]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_arrays_and_small_integers_do_as_well(dtype):
    array, episodes = TOKENS.numpy().astype(dtype), np.array([0, 0, 1, 1], dtype=dtype)
    array.flags.writeable = False  # as of a memory map
    for tokens, ids in ((array, episodes), (torch.from_numpy(array.copy()), torch.from_numpy(episodes))):
        assert usage(tokens, np.array([4, 8])).tolist() == [0.5, 0.5]
        assert persistence(tokens, ids).tolist() == [1.0, 0.0]


def test_steps_from_or_to_no_code_do_not_count():
    tokens = torch.tensor([[0, -1], [0, -1], [2, -1], [-1, -1], [-1, 1], [1, -1]])
    first, second = persistence(tokens).tolist()
    assert first == 0.5
    assert second != second  # NaN: no step is left
    with pytest.raises(ValueError, match="no two steps"):
        persistence(torch.full((5, 2), -1))


def test_no_code_is_left_out():
    tokens = torch.tensor([[0, -1], [-1, -1], [1, 3]])
    assert [counts.tolist() for counts in code_counts(tokens, 4)] == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert perplexity(tokens, 4).tolist() == pytest.approx([2.0, 1.0])


def test_distortion_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    embeddings = torch.tensor([[[3.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [0.0, 1.0]]])
    assert distortion(x, embeddings).tolist() == [(16 + 1) / 2, (1 + 0) / 2]
    padded = torch.cat([torch.full((3, 2), torch.nan), x]), torch.cat([torch.zeros(3, 2, 2), embeddings])
    assert distortion(*padded, torch.arange(5) > 2).tolist() == [(16 + 1) / 2, (1 + 0) / 2]
    assert distortion(*padded, torch.arange(5) > 9).isnan().all()


def test_errors():
    with pytest.raises(ValueError, match="x is of type ndarray; give a torch tensor"):
        distortion(np.zeros((3, 4)), torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match="token 3"):
        usage(TOKENS, 3)
    with pytest.raises(ValueError, match="2 levels"):
        usage(TOKENS, (4, 4, 4))
    for codes in (16.9, "16", (4, 1.5), 0, None):
        with pytest.raises(ValueError, match="codes is"):
            usage(TOKENS, codes)
    for tokens in (
        TOKENS.float(),
        TOKENS.numpy() / 2,
        TOKENS > 0,
        TOKENS.tolist(),
        TOKENS - 2,
        TOKENS[0, 0],
        TOKENS[:, :0],
    ):
        with pytest.raises(ValueError, match="tokens"):
            usage(tokens, 4)
        with pytest.raises(ValueError, match="tokens"):
            persistence(tokens)
    with pytest.raises(ValueError, match=r"\(T, L\)"):
        persistence(TOKENS[None])
    with pytest.raises(ValueError, match="episode_ids"):
        persistence(TOKENS, torch.zeros(3))
    with pytest.raises(ValueError, match="longer stretch"):
        persistence(TOKENS, torch.arange(4))
    with pytest.raises(ValueError, match="level_embeddings"):
        distortion(torch.zeros(3, 2), torch.zeros(2, 3, 2))
    for mask in (torch.ones(3), torch.ones(2, dtype=torch.bool)):
        with pytest.raises(ValueError, match="mask is"):
            distortion(torch.zeros(3, 2), torch.zeros(3, 1, 2), mask)


def test_a_mask_that_is_no_tensor_is_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="mask is of type list; give a torch tensor"):
        distortion(x, x[:, None], mask=[True, False])

import math

import pytest
import torch
from cnn_encoder import diversity, embedding_norm, state_correlation, temporal_consistency


def generator():
    return torch.Generator().manual_seed(0)


def test_temporal_consistency_by_hand():
    # On the line 0, 1, 2, 3 a step is 1; the twelve ordered pairs are (3*1 + 2*2 + 1*3) / 6 = 5/3 apart.
    line = torch.arange(4.0)[:, None]
    assert temporal_consistency(line, generator=generator()) == pytest.approx(3 / 5, rel=0.02)


def test_the_step_between_episodes_does_not_count():
    z = torch.tensor([[0.0], [1.0], [101.0], [102.0]])
    ids = torch.tensor([0, 0, 1, 1])
    inside = temporal_consistency(z, ids, generator=generator())
    assert inside == pytest.approx(1 / diversity(z, generator=generator()))
    assert temporal_consistency(z, generator=generator()) > 10 * inside
    with pytest.raises(ValueError, match=r"episode_ids have shape \(2,\); give \(3,\)"):
        temporal_consistency(torch.randn(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="no two consecutive"):
        temporal_consistency(z, torch.arange(4))


def test_random_directions_are_sqrt_2_apart():
    z = torch.randn(500, 384, generator=generator())
    z = z / z.norm(dim=1, keepdim=True)
    assert diversity(z, num_pairs=5000, generator=generator()) == pytest.approx(math.sqrt(2), rel=0.01)
    assert embedding_norm(3 * z) == pytest.approx(3)


def test_state_correlation_is_one_for_the_state_itself_and_none_for_noise():
    state = torch.randn(1000, 3, generator=generator())
    rotation = torch.linalg.qr(torch.randn(8, 3, generator=generator()))[0]
    standard = state / state.std(0)
    assert state_correlation(5 * standard @ rotation.T, state, generator=generator()) == pytest.approx(
        1, abs=1e-4
    )
    noise = torch.randn(1000, 8, generator=torch.Generator().manual_seed(9))
    assert abs(state_correlation(noise, state, generator=generator())) < 0.05


def test_the_unit_of_a_state_does_not_matter_to_its_correlation() -> None:
    state = torch.randn(200, 3, generator=generator())
    z = state @ torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 0.5]])
    found, scaled = (
        state_correlation(z, s, num_pairs=2000, generator=generator())
        for s in (state, state * torch.tensor([100.0, 1.0, 0.01]))
    )
    assert scaled == pytest.approx(found, abs=1e-4)


def test_state_correlation_leaves_constants_out():
    state = torch.randn(100, 2, generator=generator())
    padded = torch.cat([state, torch.full((100, 1), 7.0)], 1)
    z = torch.randn(100, 4, generator=generator())
    assert state_correlation(z, state, generator=generator()) == state_correlation(
        z, padded, generator=generator()
    )
    assert math.isnan(state_correlation(z, torch.ones(100, 2)))
    with pytest.raises(ValueError, match="100 embeddings but 99 states"):
        state_correlation(z, state[:99])
    for rows in (0, 1):
        with pytest.raises(ValueError, match=f"{rows} rows; pairs need at least two"):
            state_correlation(z[:rows], state[:rows])


def test_states_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="states hold NaN"):
        state_correlation(torch.randn(5, 3), torch.tensor([[0.0, 1], [1, torch.nan], [2, 2], [3, 1], [4, 0]]))


def test_the_programs_device_changes_nothing():
    embeddings = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    draw = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    expected = diversity(embeddings, generator=draw())
    with torch.device("meta"):
        assert diversity(embeddings, generator=draw()) == expected


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="num_pairs is 0; give 1 or more"):
        diversity(torch.randn(4, 2), num_pairs=0)

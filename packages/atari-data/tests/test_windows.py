import numpy as np
import pytest
from atari_data import final_rows, first_rows, lost_lives, split_episodes, window_starts
from hypothesis import given
from hypothesis import strategies as st

lengths_of_episodes = st.lists(st.integers(1, 12), min_size=1, max_size=15)


def ids_of(lengths: list[int]) -> np.ndarray:
    ids = np.random.default_rng(len(lengths)).permutation(len(lengths)).astype(np.int32)
    return np.repeat(ids, lengths)


def test_by_hand():
    ids = np.array([7, 7, 7, 2, 2, 9])
    assert final_rows(ids).tolist() == [False, False, True, False, True, True]
    assert first_rows(ids).tolist() == [True, False, False, True, False, True]
    assert window_starts(ids, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert window_starts(ids, 2).tolist() == [0, 1, 3]
    assert window_starts(ids, 3).tolist() == [0]
    assert window_starts(ids, 4).tolist() == []
    assert window_starts(ids, 100).tolist() == []


@given(lengths_of_episodes, st.integers(1, 14))
def test_window_starts_are_all_windows_inside_an_episode(lengths: list[int], length: int):
    ids = ids_of(lengths)
    naive = [i for i in range(len(ids) - length + 1) if len(set(ids[i : i + length])) == 1]
    found = window_starts(ids, length)
    assert found.tolist() == naive
    assert len(found) == sum(max(0, n - length + 1) for n in lengths)


def test_an_id_that_comes_back_is_another_episode():
    assert window_starts(np.array([1, 1, 2, 1, 1]), 4).tolist() == []


@given(lengths_of_episodes)
def test_every_episode_has_one_first_and_one_final_row(lengths: list[int]):
    ids = ids_of(lengths)
    assert np.flatnonzero(final_rows(ids)).tolist() == (np.cumsum(lengths) - 1).tolist()
    assert np.flatnonzero(first_rows(ids)).tolist() == (np.cumsum(lengths) - lengths).tolist()


@given(lengths_of_episodes, st.floats(0, 0.99), st.integers(0, 5))
def test_split_keeps_episodes_whole(lengths: list[int], fraction: float, seed: int):
    ids = ids_of(lengths)
    validates = split_episodes(ids, fraction, seed)
    assert validates.tolist() == split_episodes(ids, fraction, seed).tolist()
    assert not set(ids[validates]) & set(ids[~validates])
    if len(lengths) > 1 and fraction > 0:
        assert validates.any()
        assert not validates.all()
        assert validates.sum() <= fraction * len(ids) + 2 * max(lengths)
    else:
        assert not validates.any()


@given(lengths_of_episodes, lengths_of_episodes, st.floats(0.01, 0.99), st.integers(0, 5))
def test_added_play_turns_no_training_episode_into_a_validation_one(
    first: list[int], more: list[int], fraction: float, seed: int
):
    before = split_episodes(ids_of(first), fraction, seed)
    after = split_episodes(ids_of(first + more), fraction, seed)[: len(before)]
    if len(first) > 1:
        assert not (after & ~before).any()


def test_split_takes_the_asked_share():
    ids = ids_of([10] * 100)
    shares = [split_episodes(ids, 0.2, seed).mean() for seed in range(50)]
    assert all(0.16 <= share <= 0.24 for share in shares)
    assert len({split_episodes(ids, 0.2, seed).tobytes() for seed in range(50)}) == 50


def test_split_does_not_prefer_short_episodes():
    lengths = [10, 30] * 200
    taken = np.zeros(2)
    for seed in range(20):
        validates = split_episodes(ids_of(lengths), 0.1, seed)
        firsts = np.cumsum([0, *lengths])[:-1]
        taken += validates[firsts].reshape(-1, 2).sum(0)
    assert 0.8 < taken[0] / taken[1] < 1.25


def test_split_by_hand():
    # Chances .086, .237, .801: the second episode below .5 * (1 + 5 / 10), the third above .5 * (1 - 5 / 15).
    assert split_episodes(ids_of([10, 20, 10]), 0.5, 3).tolist() == [False] * 10 + [True] * 20 + [False] * 10


@pytest.mark.parametrize(
    ("seed", "chances", "validate"),
    [
        (152, (0.2606, 0.0495), (True, False)),
        (0, (0.2698, 0.0410), (True, True)),
        (6, (0.3433, 0.3691), (False, True)),
    ],
)
def test_the_chances_of_a_split_by_hand(
    seed: int, chances: tuple[float, float], validate: tuple[bool, bool]
) -> None:
    """A quarter of 10, 20 and 10 rows: after the first episode 2.5 rows are lacking at 10 an episode.

    So the second's chance is .25 * (1 + 2.5 / 10) = .3125. The third's is .25 * (1 - 12.5 / 15) = .0417 where
    the second validates, and .25 * (1 + 7.5 / 15) = .375 where it trains.
    """
    assert np.random.default_rng(seed).random(3)[1:] == pytest.approx(chances, abs=1e-4)
    validates = split_episodes(ids_of([10, 20, 10]), 0.25, seed)
    assert validates.tolist() == np.repeat([False, *validate], [10, 20, 10]).tolist()


def test_lost_lives_stay_inside_an_episode():
    ids = np.array([0, 0, 0, 0, 1, 1])
    assert np.flatnonzero(lost_lives(ids, np.array([5, 5, 4, 4, 3, 3], dtype=np.uint8))).tolist() == [1]


def test_bad_arguments():
    with pytest.raises(ValueError, match="length is 0"):
        window_starts(np.zeros(3, dtype=int), 0)
    with pytest.raises(ValueError, match=r"length is 2\.5; give an integer"):
        window_starts(np.zeros(3, dtype=int), 2.5)
    with pytest.raises(ValueError, match=r"validation_fraction is 1.5"):
        split_episodes(np.zeros(3, dtype=int), 1.5, 0)
    with pytest.raises(ValueError, match="seed is None; give an integer"):
        split_episodes(np.zeros(3, dtype=int), 0.5, None)
    with pytest.raises(ValueError, match=r"episode_ids is float64 \(3,\)"):
        final_rows(np.zeros(3))


def test_lost_lives_are_of_any_kind_of_list_and_of_every_row():
    assert lost_lives([0, 0, 0, 0], [3, 2, 2, 2]).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="one for each of the 4 rows"):
        lost_lives([0, 0, 0, 0], [3, 2])


def test_a_life_won_is_none_lost():
    assert lost_lives([0, 0, 0, 0], [3, 4, 4, 3]).tolist() == [False, False, True, False]


def test_where_chance_spares_all_the_second_episode_validates():
    ids = ids_of([5, 5, 5, 5])
    assert np.unique(ids[split_episodes(ids, 1e-9, 0)]).tolist() == [ids[5]]

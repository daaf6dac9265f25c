import numpy as np
import pytest
from atari_data import MultiGameSampler
from hypothesis import given
from hypothesis import strategies as st

STARTS = {"pong": np.arange(100), "breakout": np.arange(1000, 1010), "ms_pacman": np.array([7])}


def test_a_batch_is_a_function_of_seed_and_step():
    one, two = (MultiGameSampler(STARTS, batch_size=12, seed=4) for _ in range(2))
    later = one.batch(9)
    for step in range(9):
        two.batch(step)
    for game, rows in two.batch(9).items():
        assert rows.tolist() == later[game].tolist()
        assert set(rows) <= set(STARTS[game])
    assert one.batch(10)["pong"].tolist() != later["pong"].tolist()
    assert MultiGameSampler(STARTS, batch_size=12, seed=5).batch(9)["pong"].tolist() != later["pong"].tolist()


def test_runs_of_neighbouring_seeds_share_no_batch() -> None:
    starts = {"pong": np.arange(10**6)}
    runs = [MultiGameSampler(starts, batch_size=4, seed=seed) for seed in range(4)]
    batches = {tuple(run.batch(step)["pong"].tolist()) for run in runs for step in range(8)}
    assert len(batches) == 4 * 8


def test_weights_are_shares_of_the_batch():
    weights = {"pong": 1, "breakout": 2, "ms_pacman": 1}
    sampler = MultiGameSampler(STARTS, batch_size=40, seed=0, weights=weights)
    assert sampler.counts == {"pong": 10, "breakout": 20, "ms_pacman": 10}
    assert {game: len(rows) for game, rows in sampler.batch(0).items()} == sampler.counts


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((8, 1, 1), [8, 1, 1]),
        ((7, 2, 1), [7, 2, 1]),  # whole shares stay as they are
        ((18, 1, 1), [8, 1, 1]),  # 9, .5 and .5: one of the first's makes place for a whole one of each
    ],
)
def test_the_one_window_a_game_has_at_least_is_part_of_its_share(
    weights: tuple[int, int, int], counts: list[int]
) -> None:
    shares = dict(zip(STARTS, weights, strict=True))
    sampler = MultiGameSampler(STARTS, batch_size=10, seed=0, weights=shares)
    assert list(sampler.counts.values()) == counts


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(0, 40))
def test_every_game_is_in_every_batch(weights: list[float], more: int):
    names = [f"game_{i}" for i in range(len(weights))]
    sampler = MultiGameSampler(
        {name: np.arange(5) for name in names},
        batch_size=len(names) + more,
        seed=0,
        weights=dict(zip(names, weights, strict=True)),
    )
    assert sum(sampler.counts.values()) == len(names) + more
    assert min(sampler.counts.values()) >= 1


def test_all_starts_are_drawn_evenly():
    sampler = MultiGameSampler({"pong": np.arange(10)}, batch_size=100, seed=0)
    counts = np.bincount(np.concatenate([sampler.batch(step)["pong"] for step in range(100)]))
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_bad_arguments():
    with pytest.raises(ValueError, match="batch_size is 2 for 3 games"):
        MultiGameSampler(STARTS, batch_size=2, seed=0)
    with pytest.raises(ValueError, match=r"batch_size is 4\.0; give an integer"):
        MultiGameSampler(STARTS, batch_size=4.0, seed=0)
    with pytest.raises(ValueError, match="no window fits into the episodes of pong"):
        MultiGameSampler({"pong": np.arange(0)}, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="give each a positive one"):
        MultiGameSampler(STARTS, batch_size=9, seed=0, weights={"pong": 1.0})
    with pytest.raises(ValueError, match="holds no game"):
        MultiGameSampler({}, batch_size=9, seed=0)


def test_a_weight_without_end_is_refused():
    with pytest.raises(ValueError, match="give each a positive"):
        MultiGameSampler(
            {"a": np.arange(5), "b": np.arange(5)}, batch_size=4, seed=0, weights={"a": np.inf, "b": 1.0}
        )


def test_weights_whose_sum_overflows_are_shares_as_well():
    starts = {"a": np.arange(5), "b": np.arange(5)}
    sampler = MultiGameSampler(starts, batch_size=4, seed=0, weights={"a": 1.5e308, "b": 1.5e308})
    assert sampler.counts == {"a": 2, "b": 2}


@pytest.mark.parametrize("rows", [np.arange(5) > 2, np.arange(3.0), np.zeros((5, 2), np.int64)])
def test_starts_are_row_numbers(rows):
    with pytest.raises(ValueError, match=r"starts of pong are .*; give row numbers"):
        MultiGameSampler({"pong": rows}, batch_size=2, seed=0)


def test_a_list_of_starts_and_a_bad_seed():
    batch = MultiGameSampler({"pong": [3, 4]}, batch_size=8, seed=0).batch(0)["pong"]
    assert set(batch.tolist()) <= {3, 4}
    with pytest.raises(ValueError, match="seed is -1; give 0 or more"):
        MultiGameSampler({"pong": [3, 4]}, batch_size=2, seed=-1)


def test_the_largest_remainder_gets_what_is_left_and_the_last_start_is_drawn():
    """Of five windows weights of 1 and 1.9 ask for .72 and 2.28 beyond the one that each game has."""
    starts = {"pong": np.arange(3), "breakout": np.arange(3)}
    sampler = MultiGameSampler(starts, batch_size=5, seed=0, weights={"pong": 1.0, "breakout": 1.9})
    assert sampler.counts == {"pong": 2, "breakout": 3}
    drawn = np.concatenate([sampler.batch(step)["pong"] for step in range(30)])
    assert set(drawn.tolist()) == {0, 1, 2}


def test_the_order_of_the_games_changes_nothing() -> None:
    starts = {game: np.arange(100) for game in ("pong", "breakout", "asterix")}
    one = MultiGameSampler(starts, batch_size=8, seed=0)  # a share of 2 2/3 each
    other = MultiGameSampler(dict(reversed(starts.items())), batch_size=8, seed=0)
    assert one.counts == other.counts
    for game, rows in one.batch(3).items():
        assert rows.tolist() == other.batch(3)[game].tolist()


@pytest.mark.parametrize("step", [1.5, -1, "0"])
def test_a_step_is_a_whole_number(step) -> None:
    with pytest.raises(ValueError, match="step is"):
        MultiGameSampler(STARTS, batch_size=8, seed=0).batch(step)

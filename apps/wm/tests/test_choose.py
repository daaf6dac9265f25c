import numpy as np
from wm.stages.choose import best, standings


def test_standings_by_hand():
    # One game: mean 3, standard deviation 2 of (1, 1, 5, 5).
    one = np.array([[[1.0, 1.0]], [[5.0, 5.0]]])
    np.testing.assert_allclose(standings(one), [-1.0, 1.0])
    # A second game of a thousand times the size, in which they are the other way round, evens them out.
    other = 1000 * one[::-1]
    np.testing.assert_allclose(standings(np.concatenate([one, other], axis=1)), [0.0, 0.0])


def test_a_games_spread_is_that_of_all_its_episodes():
    """Mean 1.5, squared distances 2.25, .25, .25, 2.25; the candidates' means are half a point from it."""
    half = 0.5 / np.sqrt(1.25)
    np.testing.assert_allclose(standings(np.array([[[0.0, 2.0]], [[1.0, 3.0]]])), [-half, half])


def test_standings_do_not_depend_on_a_games_unit_or_origin():
    returns = np.random.default_rng(0).normal(size=(3, 2, 8))
    moved = returns * np.array([[[1.0], [250.0]]]) + np.array([[[-21.0], [600.0]]])
    np.testing.assert_allclose(standings(moved), standings(returns), atol=1e-12)


def test_one_games_order_is_that_of_its_means():
    returns = np.random.default_rng(1).normal(size=(5, 1, 16))
    assert np.argsort(standings(returns)).tolist() == np.argsort(returns.mean((1, 2))).tolist()


def test_of_equals_the_last_is_the_best():
    assert best(standings(np.full((3, 2, 4), -21.0))) == 2
    assert best(np.array([0.5, 0.5, 0.1])) == 1

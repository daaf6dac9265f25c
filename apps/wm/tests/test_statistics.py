import numpy as np
import pytest
from wm.measure.statistics import bootstrap_interval, summarize


def test_interval_of_equal_values_is_the_value():
    assert bootstrap_interval(np.full(10, 3.0)) == (3.0, 3.0)


def test_interval_agrees_with_the_normal_one_on_many_draws():
    values = np.random.default_rng(1).normal(5, 2, size=2000)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_summary_by_hand():
    summary = summarize(np.array([1.0, 2.0, 6.0]))
    assert (summary["mean"], summary["median"]) == (3.0, 2.0)
    assert summary["std"] == pytest.approx(np.sqrt(7.0))
    assert summary["returns"] == [1.0, 2.0, 6.0]


def test_an_interval_takes_the_same_draws_in_parts():
    values = np.random.default_rng(0).normal(size=77)
    at_once = np.random.default_rng(0).choice(values, size=(10_000, 77)).mean(1)
    assert bootstrap_interval(values) == pytest.approx(np.quantile(at_once, [0.025, 0.975]), abs=1e-12)

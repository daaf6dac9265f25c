import numpy as np
import pytest
from atari_data import EpsilonPolicy, RandomPolicy, StickyRandomPolicy, minimal_actions

NO_PIXELS = np.empty(0, dtype=np.uint8)


def ask(policy, *env_ids: int) -> list[int]:
    return policy(NO_PIXELS, np.array(env_ids)).tolist()


@pytest.mark.parametrize("make", [RandomPolicy, StickyRandomPolicy])
def test_an_environment_does_the_same_in_any_company(make):
    together, apart = make("pong", 3, 3), make("pong", 3, 7)
    steps = 1500  # more than one block of random numbers
    rows = np.array([ask(together, 0, 1, 2) for _ in range(steps)])
    assert [ask(apart, 2)[0] for _ in range(steps)] == rows[:, 2].tolist()
    crossed = np.array([ask(apart, 1, 0) for _ in range(steps)])
    assert crossed.tolist() == rows[:, [1, 0]].tolist()
    assert rows[:, 0].tolist() != rows[:, 1].tolist()
    other = make("pong", 4, 3)
    assert [ask(other, 0)[0] for _ in range(steps)] != rows[:, 0].tolist()


def test_random_play_is_uniform_over_the_minimal_actions():
    policy = RandomPolicy("pong", 0, 1)
    counts = np.bincount([ask(policy, 0)[0] for _ in range(6000)], minlength=18)
    assert set(np.flatnonzero(counts)) == set(minimal_actions("pong"))
    assert np.abs(counts[list(minimal_actions("pong"))] - 1000).max() < 5 * np.sqrt(1000)


def test_sticky_play_repeats():
    policy = StickyRandomPolicy("pong", 0, 1, repeat=0.9)
    actions = np.array([ask(policy, 0)[0] for _ in range(4000)])
    # A repeat is kept with .9, or drawn again by chance: .9 + .1 / 6
    assert (actions[1:] == actions[:-1]).mean() == pytest.approx(0.9 + 0.1 / 6, abs=0.02)


def test_sticky_play_starts_with_an_action_of_the_game() -> None:
    first = ask(StickyRandomPolicy("pong", 0, 60, repeat=0.9), *range(60))  # nothing to repeat yet
    assert set(first) == set(minimal_actions("pong"))


def test_epsilon_mixes_a_policy_with_random_play():
    def up(observations, env_ids):
        return np.full(len(env_ids), 2)

    never, always = (EpsilonPolicy(up, "pong", 0, 1, epsilon) for epsilon in (0.0, 1.0))
    assert {ask(never, 0)[0] for _ in range(200)} == {2}
    assert {ask(always, 0)[0] for _ in range(200)} == set(minimal_actions("pong"))
    half = EpsilonPolicy(up, "pong", 0, 1, 0.5)
    assert np.mean([ask(half, 0)[0] == 2 for _ in range(2000)]) == pytest.approx(0.5, abs=0.05)


def test_epsilon_draws_other_numbers_than_the_policy_it_wraps():
    draws = 4000
    alone, mixed = RandomPolicy("pong", 0, 1), EpsilonPolicy(RandomPolicy("pong", 0, 1), "pong", 0, 1, 0.5)
    kept = np.mean([ask(alone, 0)[0] == ask(mixed, 0)[0] for _ in range(draws)])
    # Half of the actions are the policy's own, and of the others one in six by chance.
    assert kept == pytest.approx(0.5 + 0.5 / 6, abs=0.03)


def test_whether_to_explore_is_not_decided_by_the_numbers_of_the_wrapped_policy():
    sticky = StickyRandomPolicy("pong", 0, 1, repeat=0.5)
    policy = EpsilonPolicy(sticky, "pong", seed=0, num_envs=1, epsilon=0.5)
    played = np.array([ask(policy, 0)[0] for _ in range(4000)])
    # Half of the half that is sticky play repeats, and a sixth of the rest: .22 and more, .17 by one stream.
    assert (played[1:] == played[:-1]).mean() > 0.22


def test_bad_arguments():
    with pytest.raises(ValueError, match="seed is -1"):
        RandomPolicy("pong", -1, 1)
    with pytest.raises(ValueError, match="repeat is 1"):
        StickyRandomPolicy("pong", 0, 1, repeat=1.0)
    with pytest.raises(ValueError, match="epsilon is 2"):
        EpsilonPolicy(RandomPolicy("pong", 0, 1), "pong", 0, 1, epsilon=2)
    with pytest.raises(ValueError, match="num_envs is 0"):
        RandomPolicy("pong", 0, 0)
    with pytest.raises(ValueError, match="ids reach 4, and the policy was made for 2"):
        ask(RandomPolicy("pong", 0, 2), 4)


@pytest.mark.parametrize("answer", [np.full(2, 3.9), 5, np.full(2, np.nan), np.array([0, 18])])
def test_what_a_policy_answers_is_checked_behind_epsilon_too(answer: object):
    policy = EpsilonPolicy(lambda observations, env_ids: answer, "pong", 0, 2, 0.1)
    with pytest.raises(ValueError, match="the policy returned"):
        policy(np.zeros((2, 4, 84, 84), np.uint8), np.arange(2))

import numpy as np
import pytest
from atari_data import Moment, Protocol, RandomPolicy, play_episodes
from atari_data.playing import environment_seeds, play
from atari_data.twins import Twin

SHORT = Protocol(max_frames=603)


def evaluate(num_episodes: int, num_envs: int, **more):
    policy = RandomPolicy("breakout", 3, num_envs)
    return play_episodes(
        "breakout", policy, num_episodes, num_envs=num_envs, **{"seed": 1, "protocol": SHORT, **more}
    )


def test_every_environment_plays_its_own_episodes_to_the_end():
    """Counted by hand from the ticks: environment e plays episodes e, e + 3, ..."""
    result = evaluate(7, 3)
    returns: list[list[float]] = [[0.0] for _ in range(3)]
    lengths: list[list[int]] = [[0] for _ in range(3)]
    seeds = environment_seeds(1, 3, stream=2**31)
    for tick in play("breakout", RandomPolicy("breakout", 3, 3), seeds=seeds, protocol=SHORT):
        for i, env in enumerate(tick.env_ids.tolist()):
            returns[env][-1] += float(tick.rewards[i])
            lengths[env][-1] += 0 if tick.over[i] else 1
            if tick.over[i]:
                returns[env].append(0.0)
                lengths[env].append(0)
        if min(map(len, returns)) > 3:
            break
    expected = [(returns[i % 3][i // 3], lengths[i % 3][i // 3]) for i in range(7)]
    assert list(zip(result.returns, result.lengths, strict=True)) == expected
    assert result.returns.dtype == np.float64
    assert (result.lengths <= 151).all()
    assert np.array_equal(result.terminated, result.lengths < 151)


def test_a_seed_gives_the_same_episodes_and_progress_counts_them():
    seen: list[int] = []
    one, two = evaluate(5, 2, progress=seen.append), evaluate(5, 2)
    assert one.returns.tolist() == two.returns.tolist()
    assert one.lengths.tolist() == two.lengths.tolist()
    assert seen[-1] == 5
    assert seen == sorted(seen)
    assert evaluate(5, 2, seed=2).lengths.tolist() != one.lengths.tolist()


def test_recorded_episodes_have_a_screen_for_every_observation(monkeypatch):
    taken, step = [], Twin.step
    monkeypatch.setattr(Twin, "step", lambda twin, action: taken.append(action) or step(twin, action))
    screens: dict[int, list[np.ndarray]] = {}
    rewards: dict[int, float] = {}
    ends: list[int] = []

    def record(moment: Moment) -> None:
        screens.setdefault(moment.episode, []).append(moment.screen)
        rewards[moment.episode] = rewards.get(moment.episode, 0.0) + moment.reward
        assert moment.observation.shape == (4, 84, 84)
        assert 0 <= moment.action < 18
        if moment.over:
            ends.append(moment.episode)

    result = evaluate(
        4, 2, record=record, record_episodes={1, 2}, protocol=Protocol(max_frames=403, noop_max=0)
    )
    assert {episode: len(each) for episode, each in screens.items()} == {
        1: result.lengths[1] + 1,
        2: result.lengths[2] + 1,
    }
    assert rewards == {1: result.returns[1], 2: result.returns[2]}
    assert len(taken) == result.lengths[:3].sum()  # nobody follows an environment past its last recorded one
    assert sorted(ends) == [1, 2]
    assert screens[1][0].shape == (210, 160, 3)
    fresh = Twin("breakout", 0, SHORT).emulator
    fresh.reset_game()
    assert np.array_equal(screens[1][0], fresh.getScreenRGB())
    assert not np.array_equal(screens[1][5], screens[1][50])


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_episodes is 0"):
        evaluate(0, 1)
    with pytest.raises(ValueError, match=r"num_episodes is 1\.0; give an integer"):
        evaluate(1.0, 1)
    with pytest.raises(ValueError, match=r"protocol is 'ale_v5'; give .*PROTOCOLS\['ale_v5'\] or a"):
        evaluate(1, 1, protocol="ale_v5")
    with pytest.raises(ValueError, match="protocol is 'ale_v5'; give"):
        next(play("breakout", RandomPolicy("breakout", 3, 3), seeds=np.arange(3), protocol="ale_v5"))
    with pytest.raises(ValueError, match=r"seed is 1\.0; give an integer"):
        play_episodes("pong", RandomPolicy("pong", 0, 1), 1, seed=1.0)
    with pytest.raises(ValueError, match="num_envs is 0"):
        play_episodes("pong", RandomPolicy("pong", 0, 1), 1, seed=0, num_envs=0)


@pytest.mark.parametrize("episode", [-1, 4])
def test_an_episode_that_is_not_played_cannot_be_recorded(episode: int):
    with pytest.raises(ValueError, match=f"record_episodes holds {episode}; there are episodes 0 to 3"):
        play_episodes(
            "pong",
            RandomPolicy("pong", 0, 2),
            4,
            seed=0,
            record=lambda moment: None,
            record_episodes=[episode],
        )


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seeds_are_what_the_emulator_takes(seed: int):
    """It would draw one at random for those below 0."""
    play_on = play("breakout", RandomPolicy("breakout", 3, 1), seeds=np.array([seed]), protocol=SHORT)
    with pytest.raises(
        ValueError, match=f"seeds go from {seed} to {seed}; give numbers from 0 to 2147483647"
    ):
        next(play_on)

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from atari_data import (
    FrameStore,
    Protocol,
    RandomPolicy,
    collect,
    final_rows,
    labelled_games,
    labels,
    state_variables,
)
from atari_data.games import load_emulator
from atari_data.playing import environment_seeds, play
from atari_data.twins import Twins
from atari_data.video import to_frame

PROTOCOLS = {
    "atari100k": Protocol(),
    "sticky, short": Protocol(sticky=0.25, noop_max=0, max_frames=41),
    "fire, frame skip 3": Protocol(fire_reset=True, frameskip=3, max_frames=50),
    "no pooling": Protocol(max_pool=False),
}


def test_labelled_and_fast_collection_have_the_same_pixels(tmp_path: Path):
    protocol = Protocol(sticky=0.25, max_frames=301)
    for name, ram in (("fast", False), ("labelled", True)):
        policy = RandomPolicy("seaquest", 2, 3)
        collect(tmp_path / name, "seaquest", 300, policy, seed=2, num_envs=3, protocol=protocol, ram=ram)
    fast, labelled = FrameStore.open(tmp_path / "fast"), FrameStore.open(tmp_path / "labelled")
    assert np.array_equal(fast.frames[:], labelled.frames[:])
    for column in ("actions", "rewards", "terminated", "truncated", "episode_ids", "lives"):
        assert np.array_equal(getattr(fast, column), getattr(labelled, column))
    assert fast.ram is None
    assert labelled.ram is not None
    assert labelled.ram.shape == (len(labelled), 128)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_a_twin_shows_the_pixels_of_its_environment(protocol: Protocol):
    """The twin's own screen, made grey and small here, is the environment's frame up to rounding.

    Without pooling. With it, the environment's frame is the brighter of two, and no pixel is darker.
    """
    seeds = environment_seeds(0, 2)
    twins = Twins("breakout", seeds, protocol)
    compared = 0
    for tick in islice(play("breakout", RandomPolicy("breakout", 1, 2), seeds=seeds, protocol=protocol), 60):
        twins.follow(tick)
        for i, env in enumerate(tick.env_ids.tolist()):
            if tick.over[i]:  # the environment gives no picture of an end
                continue
            compared += 1
            own = to_frame(twins.screen(env)).astype(int)
            if protocol.max_pool:
                assert (tick.observations[i, -1] - own).min() >= -1
                assert (np.abs(own - tick.observations[i, -1]) <= 1).mean() > 0.98
            else:
                assert np.abs(own - tick.observations[i, -1]).max() <= 1
    assert compared > 50


@pytest.mark.parametrize("seeds", [[], [0.5], [[1, 2]]])
def test_play_without_seeds_is_refused(seeds: list):
    with pytest.raises(ValueError, match="give whole numbers, one for each environment"):
        next(play("pong", RandomPolicy("pong", 1, 1), seeds=seeds, protocol=Protocol()))


@pytest.mark.parametrize("game", ["skiing", "lost_luggage"])
def test_an_action_is_the_same_one_where_the_emulator_has_only_nine(game: str):
    """RIGHT and LEFT, with and without the button, lead where they lead a plain emulator that takes ids."""
    protocol, seeds = Protocol(noop_max=0, max_pool=False), environment_seeds(0, 1)
    for action, played in ((3, 3), (11, 3), (4, 4), (12, 4)):
        ticks = play(game, lambda *_, a=action: np.array([a]), seeds=seeds, protocol=protocol)
        last = next(islice(ticks, 30, None))
        emulator = load_emulator(game, seed=int(seeds[0]))
        emulator.reset_game()
        for _ in range(30 * protocol.frameskip):
            emulator.act(played)
        own = to_frame(emulator.getScreenRGB()).astype(int)
        assert np.abs(own - last.observations[0, -1]).max() <= 1


@pytest.mark.parametrize("game", ["skiing", "lost_luggage", "asterix"])
def test_a_twin_follows_where_there_is_no_button(game: str):
    protocol, actions = Protocol(fire_reset=True, max_frames=200, max_pool=False), np.random.default_rng(0)
    seeds = environment_seeds(0, 2)
    twins = Twins(game, seeds, protocol)

    def any_action(observations: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        return actions.integers(0, 18, len(env_ids))

    for tick in islice(play(game, any_action, seeds=seeds, protocol=protocol), 160):
        twins.follow(tick)
        for i, env in enumerate(tick.env_ids.tolist()):
            if not tick.over[i]:
                own = to_frame(twins.screen(env)).astype(int)
                assert np.abs(own - tick.observations[i, -1]).max() <= 1


def test_a_twin_that_parts_from_its_environment_is_an_error():
    protocol = Protocol(noop_max=0)
    seeds = environment_seeds(0, 1)
    twins = Twins("breakout", seeds, protocol)
    ticks = play("breakout", RandomPolicy("breakout", 1, 1), seeds=seeds, protocol=protocol)
    twins.follow(next(ticks))
    tick = next(ticks)
    with pytest.raises(RuntimeError, match="emulator twin 0 has"):
        twins.follow(tick._replace(rewards=tick.rewards + 1))


def test_labels_say_where_things_are(breakout: FrameStore):
    """The paddle's label follows the paddle's pixels: its bright columns at the bottom of the frame."""
    assert breakout.ram is not None
    values = labels("breakout", breakout.ram)
    assert set(values) == set(state_variables("breakout"))
    paddle = breakout.frames[:][:, 75:77, 6:78].max(axis=1).astype(float) > 60
    seen = paddle.any(axis=1)
    centre = (paddle * np.arange(72)).sum(axis=1)[seen] / paddle.sum(axis=1)[seen]
    assert seen.mean() > 0.9
    assert np.corrcoef(centre, values["player_x"][seen])[0, 1] > 0.9


def test_labelled_games():
    assert {"pong", "breakout", "ms_pacman", "montezuma_revenge"} <= set(labelled_games())
    assert state_variables("pong")["ball_x"] == 49
    assert state_variables("tetris") == {}
    assert labels("pong", np.arange(256, dtype=np.uint8).reshape(2, 128))["ball_x"].tolist() == [49, 177]


def test_bad_labels():
    with pytest.raises(ValueError, match=r"ram is int64 \(1, 128\); give uint8"):
        labels("pong", [[0] * 128])
    with pytest.raises(ValueError, match="tetris has no annotated RAM"):
        labels("tetris", np.zeros((1, 128), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"ram is None, .* collect pong with ram=True"):
        labels("pong", None)
    with pytest.raises(ValueError, match=r"ram is uint8 \(1, 64\)"):
        labels("pong", np.zeros((1, 64), dtype=np.uint8))


@pytest.mark.parametrize(
    ("flag", "protocol"),
    [
        ("terminated", Protocol()),
        ("truncated", Protocol(max_frames=403)),
        ("truncated", Protocol(max_frames=400)),  # the action runs to its end
        ("truncated", Protocol(max_frames=400, max_pool=False)),
    ],
)
def test_a_final_row_is_the_picture_before_it_and_its_ram(flag: str, protocol: Protocol, tmp_path: Path):
    """The environment gives no picture of an end: the one before, or one that was never drawn."""
    policy = RandomPolicy("breakout", 0, 4)
    collect(tmp_path, "breakout", 3000, policy, seed=0, num_envs=4, ram=True, protocol=protocol)
    store = FrameStore.open(tmp_path)
    final = np.flatnonzero(final_rows(store.episode_ids))
    # Each environment's last episode is cut by the end of the collection, and its last picture is its own.
    followed = np.isin(store.episode_ids[final] + 4, store.episode_ids)
    final = final[followed & getattr(store, flag)[final - 1]]
    assert len(final) > 5
    for row in final.tolist():
        np.testing.assert_array_equal(store.frames[row], store.frames[row - 1])
    np.testing.assert_array_equal(store.ram[final], store.ram[final - 1])

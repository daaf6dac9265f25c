import numpy as np
import pytest
import torch
from cnn_encoder import category, state_labels


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("player_x", "agent"),
        ("player_column", "agent"),
        ("ball_y", "small object"),
        ("player_missile_x", "small object"),
        ("enemy_blinky_y", "other localisation"),
        ("enemy_asteroids_x_12", "other localisation"),
        ("missile_y", "small object"),
        ("dove_x", "other localisation"),  # small objects are balls and missiles, in the authors' code too
        ("enemy_score", "score/clock/lives"),
        ("clock_sec", "score/clock/lives"),
        ("oxygen_meter_value", "score/clock/lives"),
        ("block_bit_map_7", "misc"),
        ("player_direction", "misc"),
        ("blue_tank_size_y", "misc"),
        ("dots_eaten_count", "misc"),
    ],
)
def test_category_by_name(name, expected):
    assert category(name) == expected


def test_positions_count_where_the_ball_is_in_play():
    labels = {
        "ball_x": np.array([0, 130, 60, 205], np.uint8),
        "ball_y": np.array([10, 20, 30, 0], np.uint8),
        "player_y": np.array([5, 50, 7, 8], np.uint8),
        "enemy_score": np.array([0, 0, 1, 1], np.uint8),
    }
    table = state_labels(labels, game="pong")
    assert table.names == ("ball_x", "ball_y", "player_y", "enemy_score", "ball_y - player_y")
    assert table.values[:, 4].tolist() == [5, -30, 23, -8]
    assert table.in_play.T.tolist() == [
        [True, True, True, False],
        [True, True, True, False],
        [True, True, True, False],
        [True, True, True, True],
        [False, True, False, False],
    ]
    assert "ball_y - player_y" not in state_labels(labels).names


def test_an_object_at_the_origin_is_not_on_the_screen():
    labels = {
        "enemy_x_0": np.array([0, 0, 9], np.uint8),
        "enemy_y_0": np.array([0, 4, 0], np.uint8),
        "player_y": np.array([0, 1, 2], np.uint8),
    }
    table = state_labels(labels)
    assert table.in_play.T.tolist() == [[False, True, True]] * 2 + [[True] * 3]
    assert table.values.dtype == torch.float32


def test_a_place_on_one_axis_is_a_place_at_0_too():
    names = ("player_column", "left_tread_position", "enemy_x")
    assert state_labels(dict.fromkeys(names, np.array([0, 1, 2], np.uint8))).in_play.all()


def test_labels_of_different_lengths_are_named():
    with pytest.raises(ValueError, match="'a': 2, 'b': 3"):
        state_labels({"a": np.zeros(2, np.uint8), "b": np.zeros(3, np.uint8)})
    with pytest.raises(ValueError, match="at least one"):
        state_labels({})


def test_breakout_does_not_draw_a_ball_that_has_passed_the_paddle():
    labels = {"ball_y": np.array([0, 1, 186, 187, 208], np.uint8), "ball_x": np.full(5, 99, np.uint8)}
    assert state_labels(labels, game="breakout").in_play[:, 1].tolist() == [False, True, True, False, False]
    assert state_labels(labels).in_play[:, 1].tolist() == [False, True, True, True, True]


def test_motion_counts_within_an_episode_and_not_where_something_jumps():
    labels = {
        "ball_x": np.array([10, 14, 20, 0, 60, 64, 200, 196], np.uint8),
        "ball_y": np.array([50, 42, 34, 0, 90, 98, 106, 114], np.uint8),
        "enemy_score": np.array([0, 0, 1, 1, 1, 2, 2, 2], np.uint8),
    }
    table = state_labels(labels, episode_ids=np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    assert table.names == ("ball_x", "ball_y", "enemy_score", "ball_x motion", "ball_y motion")
    # Row 3 has no ball, row 4 had none before, row 5 begins an episode; in row 6 the ball jumps.
    assert table.in_play[:, 3].tolist() == [False, True, True, False, False, False, False, True]
    assert table.in_play[:, 4].tolist() == [False, True, True, False, False, False, True, True]
    assert table.values[table.in_play[:, 3], 3].tolist() == [4, 6, -4]
    assert table.values[table.in_play[:, 4], 4].tolist() == [-8, -8, 8, 8]
    assert category("ball_x motion") == category("ball_x")
    assert table.columns(motion=True) == [3, 4]
    assert table.columns(motion=False) == [0, 1, 2]
    with pytest.raises(ValueError, match="7 episode_ids for 8 rows"):
        state_labels(labels, episode_ids=np.zeros(7, np.int64))


def test_a_step_of_31_is_motion_and_one_of_32_a_jump() -> None:
    labels = {"player_y": np.array([50, 81, 113, 82, 50], np.uint8)}  # 31 on, 32 on, 31 back, 32 back
    table = state_labels(labels, episode_ids=np.zeros(5, np.int64))
    assert table.in_play[:, 1].tolist() == [False, True, False, True, False]


def test_pongs_ball_is_near_from_column_121_on() -> None:
    labels = {
        "ball_x": np.array([119, 120, 121], np.uint8),
        "ball_y": np.array([40, 40, 40], np.uint8),
        "player_y": np.array([30, 30, 30], np.uint8),
    }
    assert state_labels(labels, game="pong").in_play[:, 3].tolist() == [False, False, True]


def test_what_is_not_known_does_not_count():
    labels = {
        "ball_x": np.array([20, 30, np.nan, 50, 60]),
        "ball_y": np.array([20, np.inf, 20, 20, np.nan]),
        "clock": np.array([1, 2, 3, np.nan, 5]),
    }
    table = state_labels(labels, episode_ids=np.zeros(5, int))
    assert table.names == ("ball_x", "ball_y", "clock", "ball_x motion", "ball_y motion")
    assert table.in_play.int().T.tolist() == [
        [1, 0, 0, 1, 0],
        [1, 0, 1, 1, 0],
        [1, 1, 1, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0],
    ]


def test_columns_may_be_reversed_or_read_only(recwarn):
    column = np.arange(4, dtype=np.float32)
    column.flags.writeable = False
    found = state_labels({"score": column, "level": column[::-1]})
    assert found.values.T.tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert not list(recwarn)


def test_a_label_is_one_value_a_frame():
    with pytest.raises(ValueError, match=r"player_x has shape \(3, 2\); give one value a frame"):
        state_labels({"player_x": np.zeros((3, 2))})


def test_what_has_just_appeared_has_not_moved():
    x, y = np.array([60, 61, 62], np.uint8), np.array([0, 50, 52], np.uint8)
    found = state_labels({"ball_x": x, "ball_y": y}, episode_ids=np.zeros(3, np.int64))
    counts = found.in_play[:, found.names.index("ball_x motion")]
    assert counts.tolist() == [False, False, True]


def test_what_is_masked_does_not_count() -> None:
    labels = {"player_x": np.ma.masked_array([5, 6, 7], mask=[False, True, False])}
    assert state_labels(labels).in_play[:, 0].tolist() == [True, False, True]


def test_no_rows_have_no_motion() -> None:
    table = state_labels({"player_x": np.zeros(0, np.uint8)}, episode_ids=np.zeros(0, np.int32))
    assert table.names == ("player_x", "player_x motion")
    assert table.values.shape == table.in_play.shape == (0, 2)


def test_a_game_and_its_episodes_are_named_as_they_are() -> None:
    labels = {"ball_y": np.array([190, 100], np.uint8)}
    with pytest.raises(ValueError, match="game is 'Breakout'; give its name in snake_case"):
        state_labels(labels, game="Breakout")
    for ids in (np.array([0.1, 0.9]), np.zeros((2, 1), int)):
        with pytest.raises(ValueError, match=r"episode_ids are .*; give whole numbers of shape \(N,\)"):
            state_labels(labels, episode_ids=ids)

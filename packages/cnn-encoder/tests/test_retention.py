import json
import math
from dataclasses import replace

import pytest
import torch
from cnn_encoder import MLPProbeConfig, Stage, StateLabels, pixel_features, retention, retention_table

CONFIG = MLPProbeConfig(num_steps=200, hidden_dim=64, batch_size=256)


def labels_and_state(n, seed):
    generator = torch.Generator().manual_seed(seed)
    values = 80 + 40 * torch.randn(n, 2, generator=generator)
    values = torch.cat([values, torch.zeros(n, 1)], 1)
    in_play = torch.ones(n, 3, dtype=torch.bool)
    in_play[: n // 2, 1] = False
    return StateLabels(("ball_x", "player_y", "enemy_score"), values, in_play)


def test_shows_what_each_stage_has_lost():
    train, test = labels_and_state(1500, 0), labels_and_state(400, 1)
    stages = (
        Stage(name, train.values * keep, test.values * keep)
        for name, keep in (("all", torch.ones(3)), ("no ball", torch.tensor([0.0, 1.0, 1.0])))
    )
    rows = {(row.stage, row.variable): row for row in retention(stages, train, test, CONFIG)}
    assert list(rows)[:3] == [("all", "ball_x"), ("all", "player_y"), ("all", "enemy_score")]
    assert rows["all", "ball_x"].mlp_r2 > 0.95
    assert rows["all", "ball_x"].linear_r2 > 0.999
    assert rows["no ball", "ball_x"].mlp_r2 < 0.1
    assert rows["no ball", "player_y"].mlp_r2 > 0.95
    assert rows["all", "player_y"].num_frames == 200
    assert rows["all", "player_y"].category == "agent"
    assert math.isnan(rows["all", "enemy_score"].mlp_r2)

    text = retention_table(list(rows.values()))
    assert text.splitlines()[0] == "| variable | frames | all | no ball |"
    assert len(text.splitlines()) == 4  # the constant variable is left out
    written = json.loads(json.dumps([row.as_dict() for row in rows.values()], allow_nan=False))
    assert written[2]["mlp_r2"] is None


def test_motions_do_not_disturb_what_stands_beside_them():
    train, test = labels_and_state(1500, 0), labels_and_state(400, 1)
    noise = torch.randn(1500, 1, generator=torch.Generator().manual_seed(2))
    more = StateLabels(
        ("ball_x motion", *train.names),
        torch.cat([noise, train.values], 1),
        torch.cat([train.in_play[:, :1], train.in_play], 1),
    )
    also = StateLabels(more.names, test.values[:, [0, 0, 1, 2]], test.in_play[:, [0, 0, 1, 2]])
    stages = [Stage("all", train.values, test.values)]
    rows = retention(stages, more, also, CONFIG)
    assert [row.variable for row in rows] == ["ball_x", "player_y", "enemy_score", "ball_x motion"]
    assert rows[:2] == retention(stages, train, test, CONFIG)[:2]
    assert rows[3].mlp_r2 < 0.1


def test_labels_of_different_variables_are_refused():
    train = labels_and_state(10, 0)
    with pytest.raises(ValueError, match="must be the same"):
        retention([], train, train._replace(names=("a", "b", "c")))


def test_stages_of_one_name_are_refused():
    train, test = labels_and_state(50, 0), labels_and_state(20, 1)
    stage = Stage("all", train.values, test.values)
    with pytest.raises(ValueError, match="two stages are named 'all'"):
        retention([stage, stage], train, test, MLPProbeConfig(num_steps=2))


def test_a_cell_is_empty_where_a_stage_was_not_probed():
    train, test = labels_and_state(50, 0), labels_and_state(20, 1)
    rows = retention([Stage("all", train.values, test.values)], train, test, MLPProbeConfig(num_steps=2))
    table = retention_table([*rows[:2], replace(rows[0], stage="other")]).splitlines()
    assert table[0] == "| variable | frames | all | other |"
    assert table[2].count("(") == 2
    assert table[3].endswith(") |  |")


def test_pixel_features_are_the_averaged_foreground():
    frames = torch.zeros(2, 84, 84, dtype=torch.uint8)
    frames[0, 0, 0] = 255
    features = pixel_features(frames, torch.zeros(84, 84))
    assert features.shape == (2, 1764)
    assert features[0, 0] == pytest.approx(0.25)
    assert features.count_nonzero() == 1
    assert torch.equal(pixel_features(frames, torch.zeros(84, 84, dtype=torch.uint8)), features)
    assert pixel_features(frames[:0], torch.zeros(84, 84)).shape == (0, 1764)


def test_pixel_features_of_many_frames_are_those_of_each():
    draw = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (600, 84, 84), dtype=torch.uint8, generator=draw)
    backgrounds = torch.rand(600, 84, 84, generator=draw)
    several = pixel_features(frames, backgrounds)
    for i in (0, 255, 256, 599):
        torch.testing.assert_close(several[i], pixel_features(frames[i : i + 1], backgrounds[i])[0])

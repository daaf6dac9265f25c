"""Predictions next to baselines, on validation episodes."""

import json
import math

from command import wm


def test_the_world_model_is_measured_by_level_beside_its_baselines(run, tmp_path):
    done = wm("eval", run, "--stage", "worldmodel", "--json", tmp_path / "m.json", "--device", "cpu")
    assert done.code == 0, done.output
    result = json.loads((tmp_path / "m.json").read_text())
    games = result["games"]
    assert result["protocol"]["round"] == 0
    episodes, steps = (result["protocol"][name]["pong"] for name in ("episodes", "steps"))
    count = games["pong"][0]["count"]
    assert 0 < count < steps
    said = " ".join(done.output.split())
    assert f"on {count} of the {steps} steps of {episodes} validation episode" in said
    assert games["pong"] == games["all"]
    assert len(games["pong"]) == 3
    for level in games["pong"]:
        assert 0 <= level["accuracy"] <= 1
        assert math.isclose(level["copy_accuracy"], 1 - level["changed_fraction"])
        assert level["unigram_cross_entropy"] <= math.log(16) + 1e-9  # 16 codes a level
        assert level["changed_copy_cross_entropy"] >= math.log(15)  # where it changed, copying has to guess
        assert 0 <= level["calibration_error"] <= 1
    assert "copy last" in done.output


def test_an_unknown_stage_is_refused(run):
    assert wm("eval", run, "--stage", "encoder").code == 2

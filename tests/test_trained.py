"""A trained run's policy, as loaded from Python."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import wm
from atari_data import PROTOCOLS, play_episodes
from command import wm as command


def test_the_policy_plays_the_games_that_the_command_plays(run, tmp_path):
    table = tmp_path / "found.json"
    asked = ("--episodes", 2, "--temperature", 0.5, "--seed", 3, "--max-frames", 400, "--json", table)
    assert command("eval", run, "--device", "cpu", *asked).code == 0
    policy = wm.load_policy(run, temperature=0.5, seed=3, device="cpu")
    protocol = replace(PROTOCOLS["atari100k"], max_frames=400)
    played = play_episodes("pong", policy, 2, seed=3, protocol=protocol)
    expected = json.loads(table.read_text())["games"]["pong"]["agent"]
    assert played.lengths.tolist() == expected["lengths"]
    assert played.returns.mean() == expected["mean"]


def test_environments_need_no_numbers(run):
    rng = np.random.default_rng(0)
    observations = rng.integers(0, 256, (32, 4, 84, 84), dtype=np.uint8)
    first, second = (wm.load_policy(str(run), "pong", seed=1, device="cpu") for _ in range(2))
    np.testing.assert_array_equal(first(observations), second(observations, np.arange(32)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"game": "breakout"}, "the run has not seen 'breakout'; it knows pong"),
        ({"index": 1}, "has no round 1; its only round is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"epsilon": 2.0}, "epsilon is 2.0"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_what_a_run_does_not_have_is_told(run, asked, said):
    with pytest.raises(ValueError, match=said):
        wm.load_policy(run, **asked)


def test_it_is_a_run_that_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        wm.load_policy(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'load_polcy'"):
        wm.load_polcy  # noqa: B018


def test_the_command_does_not_wait_for_pytorch():
    asked = "import sys, wm, wm.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0

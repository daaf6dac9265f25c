"""A synthetic recording, of a game that no emulator has, becomes a trained run."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from atari_data import FrameStore
from command import SMALL, at_hand, options, stages, wm
from PIL import Image
from wm import importing
from wm.config import load_config
from wm.trained import load_policy
from wm.view.watching import DreamedGame, one_more

SETTINGS = options(setting for setting in SMALL if not setting.startswith("collect."))


def recording(episodes=3, length=40, seed=0):
    """A square that actions 3 and 4 push right and left; touching a wall brings a point."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((episodes * length, 84, 84), np.uint8)
    actions = rng.choice([0, 3, 4], size=len(frames)).astype(np.uint8)
    rewards = np.zeros(len(frames), np.float32)
    for start in range(0, len(frames), length):
        x = 40
        for t in range(start, start + length):
            frames[t, 40:48, x : x + 8] = 200
            x += {0: 0, 3: 6, 4: -6}[int(actions[t])]
            if not 0 <= x <= 76:
                x = int(np.clip(x, 0, 76))
                rewards[t] = float(t % length != length - 1)
    return frames, actions, rewards, np.repeat(np.arange(episodes), length)


@pytest.fixture
def files(tmp_path):
    frames, actions, rewards, ids = recording()
    for name, column in (("frames", frames), ("actions", actions), ("rewards", rewards), ("ids", ids)):
        np.save(tmp_path / f"{name}.npy", column)
    return tmp_path


def bring(files, run, *more):
    return wm(
        "import", run, files / "frames.npy", files / "actions.npy", "--game", "push", "--rewards",
        files / "rewards.npy", "--episode-ids", files / "ids.npy", *more,
    )  # fmt: skip


def test_an_array_of_frames_trains_to_an_agent_that_is_not_played(files, tmp_path):
    run = tmp_path / "run"
    brought = bring(files, run)
    assert brought.code == 0, brought.output
    assert "120 frames, 117 actions, 3 episodes" in brought.output
    trained = wm("train", "--run", run, "--device", "cpu", *SETTINGS)
    assert trained.code == 0, trained.output
    assert "not in ALE, so not played: push" in trained.output
    assert "wm eval" not in trained.output  # which would refuse it, below
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["stages"]["collect"]["metrics"]["push"]["steps"] == 117
    assert manifest["stages"]["evaluate"]["metrics"]["games"] == {}
    assert (run / "agent.safetensors").exists()
    dreamed = DreamedGame.load(at_hand(run), "push", seed=0)
    played = one_more(dreamed, next(dreamed.beginnings()), action=3)  # as `wm play` does
    for _ in range(8):
        played = one_more(dreamed, played)
    assert set(played.actions.tolist()) <= {0, 3, 4}
    policy = load_policy(run, epsilon=0.5, device="cpu")
    assert set(policy(np.zeros((200, 4, 84, 84), np.uint8)).tolist()) == {0, 3, 4}
    again = wm("train", "--run", run, "--device", "cpu")
    assert "collect: up to date, skipped" in again.output
    assert "agent: up to date, skipped" in again.output
    assert wm("show", run).code == 0
    afresh = wm("fidelity", run, "--device", "cpu")
    assert afresh.code == 2
    assert f"`wm eval {run} --stage worldmodel` measures its world model" in afresh.output
    refused = wm("eval", run, "--device", "cpu", "--json", tmp_path / "score.json")
    assert refused.code == 2
    assert "has no ALE game that could be played (its games: push); `wm eval" in refused.stderr
    assert not (tmp_path / "score.json").exists()
    before = ((run / "config.toml").read_bytes(), json.loads((run / "manifest.json").read_text()))
    (files / "frames.npy").rename(files / "elsewhere.npy")
    assert bring(files, run).code == 2
    (files / "elsewhere.npy").rename(files / "frames.npy")
    assert ((run / "config.toml").read_bytes(), json.loads((run / "manifest.json").read_text())) == before
    twice = bring(files, run)  # of the same frames some would train and validate as well
    assert twice.code == 2
    assert "has these 120 frames already, as round 0" in " ".join(twice.output.split())
    assert ((run / "config.toml").read_bytes(), json.loads((run / "manifest.json").read_text())) == before
    np.save(files / "frames.npy", recording(seed=1)[0])
    assert bring(files, run).code == 0  # more episodes; the next training sees them
    assert "collect" not in json.loads((run / "manifest.json").read_text())["stages"]


def test_a_recording_is_not_played_over(files, tmp_path):
    run = tmp_path / "run"
    assert wm("import", run, files / "frames.npy", files / "actions.npy", "--game", "pong").code == 0
    before = (run / "config.toml").read_bytes()
    refused = wm("train", "--run", run, "--device", "cpu", "--set", "collect.policy=random")
    assert refused.code == 2
    assert "holds an imported recording" in " ".join(refused.stderr.split())
    assert (run / "config.toml").read_bytes() == before
    np.save(files / "frames.npy", recording(seed=1)[0])
    assert wm("import", run, files / "frames.npy", files / "actions.npy", "--game", "pong").code == 0
    shutil.rmtree(run / "data" / "pong")
    lost = wm("train", "--run", run, "--device", "cpu")
    assert lost.code == 2
    assert "`wm import`, or have the game played with --set collect.policy=random" in lost.stderr


def test_a_folder_of_pictures_with_actions_as_text(tmp_path):
    pytest.importorskip("av")
    frames, actions, _, _ = recording(episodes=1, length=12)
    (tmp_path / "pictures").mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(np.repeat(np.repeat(frame, 2, 0), 2, 1)).save(tmp_path / "pictures" / f"{t:04d}.png")
    (tmp_path / "actions.txt").write_text("\n".join(map(str, actions)))
    done = wm("import", tmp_path / "run", tmp_path / "pictures", tmp_path / "actions.txt", "--game", "push")
    assert done.code == 0, done.output
    assert "a run needs at least 2 episodes, one of them for validation" in " ".join(done.output.split())
    refused = wm("train", "--run", tmp_path / "run", "--device", "cpu")
    assert refused.code == 2
    assert "a run needs at least 2, one of them for validation" in " ".join(refused.output.split())


def test_actions_are_limited_to_those_of_the_recording():
    from wm.actions import allowed_actions

    actions, final = np.array([3, 4, 3, 0], np.uint8), np.array([False, False, False, True])
    assert np.flatnonzero(allowed_actions("push", actions, final)).tolist() == [3, 4]
    assert np.flatnonzero(allowed_actions("pong", actions, final)).tolist() == [0, 1, 3, 4, 11, 12]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda f: np.save(f / "actions.npy", np.arange(120) % 19), "actions go from 0 to 18"),
        (lambda f: np.save(f / "actions.npy", np.zeros(7, int)), "(7,)"),
        (lambda f: np.save(f / "frames.npy", np.zeros((120, 84, 84))), "uint8"),
        (lambda f: (f / "frames.npy").unlink(), "does not exist"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(files, tmp_path, change, part):
    change(files)
    refused = bring(files, tmp_path / "run")
    assert refused.code == 2, refused.output
    assert part in " ".join(refused.output.split())
    assert not any((tmp_path / "run").rglob("*.safetensors"))
    np.save(files / "frames.npy", recording()[0])
    np.save(files / "actions.npy", recording()[1])
    assert bring(files, tmp_path / "run").code == 0


def test_validation_episodes_too_short_for_a_window_are_told_before_training(files, tmp_path):
    np.save(files / "ids.npy", np.repeat([0, 1], [100, 20]))  # the second validates
    run = tmp_path / "run"
    assert bring(files, run).code == 0
    longer = ("--set", "windows.length=30", "--set", "worldmodel.max_steps=30")
    refused = wm("train", "--run", run, "--device", "cpu", *SETTINGS, *longer)
    assert refused.code == 2
    assert "no window of 30 steps in its validation episodes" in " ".join(refused.output.split())
    logged = (run / "metrics.jsonl").read_text()
    assert '"stage": "encoder"' in logged
    assert '"stage": "worldmodel"' not in logged


@pytest.mark.parametrize("preset", ["hour", "atari100k", "atari100k_cpu", "reference"])
def test_every_preset_takes_a_recording(files, tmp_path, preset):
    brought = bring(files, tmp_path / "run", "--preset", preset)
    assert brought.code == 0, brought.output
    assert load_config(tmp_path / "run" / "config.toml").rounds.count == 1
    assert "keeps its settings" not in brought.output
    np.save(files / "frames.npy", recording(seed=1)[0])
    again = bring(files, tmp_path / "run", "--preset", preset)
    assert again.code == 0, again.output
    assert "keeps its settings; --preset is only for a new run" in " ".join(again.output.split())
    assert bring(files, tmp_path / "run", "--preset", "nosuch").code == 2


def test_no_preset_plays_over_a_recording(files, tmp_path):
    run = tmp_path / "run"
    bring(files, run)
    data = {path: path.read_bytes() for path in (run / "data").rglob("*.safetensors")}
    kept = wm("train", "collect", "--run", run, "--preset", "tiny", "--device", "cpu")
    assert kept.code == 0, kept.output
    assert load_config(run / "config.toml").games == ("push",)
    other = wm("train", "--run", run, "--games", "pong", "--device", "cpu")
    assert other.code == 2
    assert "holds no recording" in " ".join(other.output.split())
    assert load_config(run / "config.toml").games == ("push",)
    (run / "data" / "push").rename(run / "data" / "pong")  # as a recording of a game that can be played
    asked = ("--games", "pong", "--set", "collect.policy=random")
    refused = wm("train", "collect", "--run", run, "--device", "cpu", *asked)
    assert refused.code == 2
    assert "holds an imported recording" in " ".join(refused.output.split())
    assert {path.read_bytes() for path in (run / "data").rglob("*.safetensors")} == set(data.values())


def test_a_preset_file_that_plays_leaves_a_recording_the_play(files, tmp_path):
    run, own = tmp_path / "run", tmp_path / "own.toml"
    bring(files, run)
    own.write_text('[collect]\npolicy = "sticky_random"\nnum_steps = 500\n[rounds]\ncount = 2\n')
    kept = wm("train", "collect", "--run", run, "--preset", own, "--device", "cpu")
    assert kept.code == 0, kept.output
    config = load_config(run / "config.toml")
    assert (config.games, config.collect.policy, config.rounds.count) == (("push",), "imported", 1)
    own.write_text('games = ["pong"]\n' + own.read_text())  # as a copy of tiny.toml has it
    refused = wm("train", "collect", "--run", run, "--preset", own, "--device", "cpu")
    assert refused.code == 2
    assert "holds no recording" in " ".join(refused.output.split())
    assert load_config(run / "config.toml") == config


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_import_goes_on_with_the_same_command(files, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-c", _KILLED, "import", run, files / "frames.npy", files / "actions.npy"]
    killed = subprocess.run([*command, "--game", "push"], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert bring(files, run).code == 0
    assert len(FrameStore.open(run / "data" / "push")) == 120


_KILLED = """
import os, signal
from atari_data import shards
shards.ShardWriter.close = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from wm.cli import main
main()
"""


def test_a_refused_import_leaves_what_another_began_meanwhile(files, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def slowly(directory):
        monkeypatch.undo()
        assert bring(files, directory).code == 0

    monkeypatch.setattr("wm.importing.require_writable", slowly)
    np.save(files / "short.npy", np.zeros(7, int))
    refused = wm("import", run, files / "frames.npy", files / "short.npy", "--game", "push")
    assert refused.code == 2
    assert "(7,)" in refused.output
    assert load_config(run / "config.toml").games == ("push",)
    assert len(FrameStore.open(run / "data" / "push")) == 120


def test_a_run_that_plays_by_itself_takes_no_recording(files, run):
    refused = bring(files, run)
    assert refused.code == 2
    assert "plays the game itself" in " ".join(refused.output.split())


@pytest.mark.parametrize("game", ["push", "pull"])
def test_an_import_stopped_when_all_is_in_place_is_part_of_the_run(files, tmp_path, monkeypatch, game):
    run, more = tmp_path / "run", tmp_path / "more.npy"
    assert bring(files, run).code == 0
    assert wm("train", "collect", "--run", run, "--device", "cpu").code == 0
    np.save(more, recording(seed=1)[0])
    command = ("import", run, more, files / "actions.npy", "--episode-ids", files / "ids.npy", "--game", game)
    with monkeypatch.context() as patch:
        patch.setattr(importing, "final_rows", interrupted)
        assert wm(*command).code == 130
    config = load_config(run / "config.toml")
    assert config.games == tuple(dict.fromkeys(["push", game]))
    done = wm("train", "collect", "--run", run, "--device", "cpu")
    assert done.code == 0, done.output
    collected = stages(run)["collect"]
    assert sum(collected["metrics"][each]["steps"] for each in config.games) == 2 * 117
    assert set(collected["artifacts"]) == {
        path.relative_to(run).as_posix() for path in (run / "data").rglob("shard-*.safetensors")
    }


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_run_of_a_recording_is_found_by_its_settings(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bring(files, tmp_path / "runs" / "push-tiny-0").code == 0
    found = wm("train", "collect", "--games", "push", "--preset", "tiny", "--device", "cpu")
    assert found.code == 0, found.output
    assert "push-tiny-0" in found.output
    mistaken = wm("train", "collect", "--games", "pnog", "--preset", "tiny", "--device", "cpu")
    assert mistaken.code == 2
    assert "did you mean" in mistaken.output

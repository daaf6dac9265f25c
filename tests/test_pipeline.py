"""The real command on the real emulator, at a tiny size."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import SMALL, train, wm

STAGES = ("collect", "encoder", "hrvq", "worldmodel", "agent", "evaluate")


def artifacts(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*.safetensors")}


def test_one_command_makes_everything(run):
    made = artifacts(run)
    assert {"encoder.safetensors", "hrvq.safetensors", "worldmodel.safetensors", "agent.safetensors"} < set(
        made
    )
    manifest = json.loads((run / "manifest.json").read_text())
    assert tuple(manifest["stages"]) == STAGES
    hrvq = manifest["stages"]["hrvq"]
    assert (
        hrvq["parents"]["encoder.safetensors"]
        == manifest["stages"]["encoder"]["artifacts"]["encoder.safetensors"]["sha256"]
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines} >= {"encoder", "worldmodel", "predictors", "agent"}
    assert not list(run.rglob("*.tmp"))
    assert not list((run / "checkpoints").iterdir())


def test_the_same_command_again_skips_every_stage(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    again = train(run)
    assert again.code == 0
    for stage in STAGES:
        assert f"{stage}: up to date, skipped" in again.output
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


def test_a_changed_setting_reruns_just_what_depends_on_it(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    changed = wm("train", "--run", copy, "--device", "cpu", "--set", "agent.gamma=0.9")
    assert changed.code == 0, changed.output
    for stage in ("collect", "encoder", "hrvq", "worldmodel"):
        assert f"{stage}: up to date, skipped" in changed.output
    assert "agent: done" in changed.output
    assert "gamma = 0.9" in (copy / "config.toml").read_text()


def test_one_seed_gives_the_same_bytes_and_another_other_ones(run, tmp_path):
    first = artifacts(run)
    assert train(tmp_path / "again").code == 0
    second = artifacts(tmp_path / "again")
    assert second.keys() == first.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert train(tmp_path / "other", "--seed", 1).code == 0
    other = artifacts(tmp_path / "other")
    same = [name for name in first if other.get(name) == first[name]]
    assert same == []


def test_several_games_share_one_model(tmp_path):
    result = train(tmp_path / "run", "--games", "breakout,ms_pacman")
    assert result.code == 0, result.output
    for game in ("breakout", "ms_pacman"):
        assert (tmp_path / "run" / "tokens" / f"{game}.safetensors").exists()
        assert f"{game}:" in result.output


def test_stages_run_one_by_one_and_say_what_they_need(tmp_path):
    early = train(tmp_path, "--set", "seed=3", "hrvq")
    assert early.code == 2
    assert "needs the artifacts of collect" in early.output
    for stage in STAGES[:3]:
        assert train(tmp_path, stage).code == 0
    assert not (tmp_path / "worldmodel.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_at_any_moment_then_the_same_command_ends_like_an_uninterrupted_run(tmp_path):
    longer = ["train.encoder.steps=60", "train.worldmodel.steps=60", "train.agent.steps=60"]
    settings = [part for s in SMALL + longer for part in ("--set", s)]
    command = [
        sys.executable,
        "-c",
        "from wm.cli import main; main()",
        "train",
        "--preset",
        "tiny",
        "--device",
        "cpu",
    ]

    def start(directory: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--run", str(directory), *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    whole = start(tmp_path / "whole")
    assert whole.wait(timeout=300) == 0, whole.stdout.read()
    for moment in range(12):
        process = start(tmp_path / "stopped")
        # Wait for the command to be under way, a little longer each time.
        time.sleep(4 + 0.7 * moment)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=300)[0]
        assert "Traceback" not in output, output
        assert process.returncode in (0, 130), output
        if process.returncode == 0:
            break
    assert start(tmp_path / "stopped").wait(timeout=300) == 0
    assert artifacts(tmp_path / "stopped") == artifacts(tmp_path / "whole")


def test_eval_plays_and_writes_json(run, tmp_path):
    done = wm("eval", run, "--episodes", 2, "--json", tmp_path / "score.json", "--device", "cpu")
    assert done.code == 0, done.output
    result = json.loads((tmp_path / "score.json").read_text())
    pong = result["games"]["pong"]
    assert len(pong["agent"]["returns"]) == len(pong["random"]["returns"]) == 2
    assert all(-21 <= score <= 21 for score in pong["agent"]["returns"])
    assert "IRIS (published)" in done.output


def test_looking_at_runs(run):
    assert "pong" in wm("runs", run.parent).output
    shown = wm("show", run)
    assert shown.code == 0
    assert "worldmodel.safetensors" in shown.output
    assert "temporal consistency" in shown.output


def test_version_and_help():
    assert wm("--version").output.startswith("wm ")
    assert wm("--help").code == 0


def test_doctor_finds_a_working_machine():
    done = wm("doctor", "--device", "cpu")
    assert done.code == 0, done.output
    for stage in STAGES:
        assert f"stage {stage}: works" in done.output


@pytest.mark.skipif(os.environ.get("WANDB_MODE") == "disabled", reason="wandb is disabled")
def test_metrics_go_to_tensorboard_and_offline_wandb(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    done = wm(
        "train",
        "--run",
        copy,
        "--device",
        "cpu",
        "--set",
        "agent.gamma=0.9",
        "--log",
        "tensorboard",
        "--log",
        "wandb",
    )
    assert done.code == 0, done.output
    assert list((copy / "tensorboard").glob("events*"))
    assert list((copy / "wandb").glob("offline-run*"))

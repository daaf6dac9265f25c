"""Commands that read runs, on a complete one and on incomplete ones."""

import json
import os
import re
import shutil

import pytest
from command import STAGES, train, wm
from wm.config import build_config, save_config
from wm.preset import read_preset


def test_eval_plays_and_writes_json(run, tmp_path):
    done = wm("eval", run, "--episodes", 2, "--json", tmp_path / "score.json", "--device", "cpu")
    assert done.code == 0, done.output
    result = json.loads((tmp_path / "score.json").read_text())
    pong = result["games"]["pong"]
    assert len(pong["agent"]["returns"]) == len(pong["random"]["returns"]) == 2
    assert all(-21 <= score <= 21 for score in pong["agent"]["returns"])
    assert "published, systems after 100k agent steps" in done.output
    assert pong["agent"]["cut"] == 0
    assert "frame limit" not in done.output
    short = wm("eval", run, "--episodes", 2, "--max-frames", 400, "--device", "cpu")
    assert "the frame limit cut off 2 of the agent's 2 episodes" in short.output


def test_looking_at_runs(run):
    assert "pong" in wm("runs", run.parent).output
    assert "it is a run itself" in wm("runs", run).output
    shown = wm("show", run)
    assert shown.code == 0
    assert "worldmodel.safetensors" in shown.output
    shards = list((run / "data" / "pong").glob("shard-*"))
    assert "data/pong/shard-*.safetensors" in shown.output
    assert f"({len(shards)} files)" in shown.output
    assert "temporal consistency" in shown.output
    assert "settings: tiny" in shown.output
    assert "worldmodel.dim=" in shown.output
    assert "out of date" not in shown.output


def unknown(value):
    """Metrics whose measured numbers are all null, as a manifest keeps NaN."""
    if isinstance(value, dict):
        return {key: unknown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unknown(item) for item in value]
    return None if isinstance(value, float) else value


def test_a_run_whose_numbers_are_unknown_is_shown_and_goes_on(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in STAGES:
        metrics = manifest["stages"][name]["metrics"]
        manifest["stages"][name]["metrics"] = metrics | (
            {"peak_memory_gib": None} if name == "evaluate" else unknown(metrics)
        )
    (copy / "manifest.json").write_text(json.dumps(manifest))
    shown = wm("show", copy)
    assert shown.code == 0, shown.output
    assert "peak ? GiB" in shown.output
    assert "copy last ?, commonest code ?" in shown.output
    again = train(copy)
    assert again.code == 0, again.output
    assert again.output.count("up to date, skipped") == len(STAGES)


def test_a_list_of_runs_tells_them_apart(run, tmp_path):
    for name, changes in {"same": {}, "deeper": {"worldmodel": {"num_layers": 3}}, "[red]": {}}.items():
        (tmp_path / name).mkdir()
        save_config(tmp_path / name / "config.toml", build_config(read_preset("reference"), changes))
    copy = shutil.copytree(run, tmp_path / "done", copy_function=shutil.copy2)
    lines = {name: line for line in wm("runs", tmp_path).output.splitlines() for name in [line[2:9].strip()]}
    assert "│ reference " in lines["same"]
    assert "0 of 7" in lines["same"]
    assert "reference, worldmodel.num_layers=3" in lines["deeper"]
    assert "reference" in lines["[red]"]
    assert re.search(r"tiny, \d+ changed +│ all", lines["done"])

    assert wm("train", "collect", "--run", copy, "--device", "cpu", "--seed", "9").code == 0
    listed = wm("runs", tmp_path).output
    assert re.search(r"changed +│ 1 of 7", listed)
    assert re.search(r"done .*out of date", listed)
    assert wm("show", copy).output.count("out of date") == 7
    for view, name in (("dream", "film.gif"), ("atlas", "page.html")):  # as many frames, of other play
        done = wm(view, copy, "--device", "cpu", "--out", tmp_path / name)
        assert done.code == 2, done.output
        assert "the tokens of pong were not made from the frames" in " ".join(done.output.split())
    (tmp_path / "same" / "config.toml").write_text("[worldmodel]\nwidth = 3\n")
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").mkdir()
    listed = wm("runs", tmp_path).output
    assert "cannot be read: unknown setting" in listed
    assert re.search(r"done +│ cannot be read: ", listed)
    assert "[red]" in listed


def test_a_file_that_is_gone_or_altered_hides_nothing_of_a_run(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / "embeddings" / "pong.safetensors").unlink()
    shown, listed = wm("show", copy), wm("runs", tmp_path)
    assert shown.code == listed.code == 0
    assert "out of date" not in shown.output + listed.output
    assert re.search(r"copy .* 6 of 7", listed.output)
    assert "makes again: encoder" in " ".join(shown.output.split())
    assert re.search(r"embeddings/pong\.safetensors +│ +missing", shown.output)
    refused = wm("atlas", copy, "--device", "cpu")
    assert refused.code == 2
    assert "there are no embeddings of pong yet; run `wm train" in " ".join(refused.output.split())

    whole = bytearray((copy / "agent.safetensors").read_bytes())
    whole[-1] ^= 1
    (copy / "agent.safetensors").write_bytes(whole)
    shown, listed = wm("show", copy), wm("runs", tmp_path)
    assert shown.code == listed.code == 0
    assert re.search(r"copy .* 5 of 7", listed.output)
    assert "makes them again: agent" in " ".join(shown.output.split())
    assert "human-normalised" in shown.output
    assert wm("train", "--run", copy, "--device", "cpu").code == 2


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

"""The real command on the real emulator, at a tiny size."""

import json
import shutil
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from cnn_encoder import ContrastiveObjective, load_embeddings
from command import STAGES, artifacts, train, wm
from hrvq import HRVQ
from token_worldmodel import WorldModelObjective
from wm import training
from wm.config import build_config, load_config
from wm.freshness import what_changes
from wm.run import Layout, Manifest
from wm.sections import StartConfig
from wm.settings import unstructure
from wm.stages import stages_of
from wm.trained import load_policy


def stop(_) -> None:
    """What Ctrl-C does, in the place of a method without arguments."""
    raise KeyboardInterrupt


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
    assert (
        "changed: agent.gamma 0.98 to 0.9\nto be run again: agent, evaluate (0 minutes of work)"
        in changed.output
    )
    assert "changed:" not in wm("train", "--run", copy, "--device", "cpu").output


def test_what_a_preset_replaces_is_told_before_it_runs_again(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    tomls = [copy / "config.toml", tmp_path / "older.toml"]
    settings = tomls[0].read_text()
    tomls[1].write_text(settings.replace("num_envs = 2", "num_envs = 3", 1))
    assert tomls[0].read_text() != tomls[1].read_text()
    # A setting younger than the run is not in its file, and at its default.
    tomls[0].write_text("".join(line for line in settings.splitlines(True) if "anneal" not in line))

    monkeypatch.setattr(ContrastiveObjective, "after_step", stop)
    stopped = wm("train", "--run", copy, "--device", "cpu", "--preset", tomls[1])
    assert stopped.code == 130
    assert "changed: collect.num_envs 2 to 3\n" in stopped.output
    assert "to be run again: collect, encoder, hrvq, worldmodel and 3 more (" in stopped.output
    # Of some stages alone, these.
    config, manifest = load_config(run / "config.toml"), Manifest(Layout(run))
    begun = replace(config, start=StartConfig(run="other"), seed=3)
    told, again = what_changes(unstructure(config), begun, stages_of(begun)[-2:], manifest)
    assert told == 'changed: seed 0 to 3, start.run "" to "other"'
    assert again.startswith("to be run again: decoder, evaluate (")
    assert not list(what_changes(unstructure(config), config, stages_of(config), manifest))


def test_settings_mistaken_and_taken_back_cost_nothing(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)

    with monkeypatch.context() as patch:
        patch.setattr(WorldModelObjective, "after_step", stop)
        stopped = wm("train", "--run", copy, "--device", "cpu", "--set", "train.worldmodel.steps=100000")
    assert stopped.code == 130
    steps = load_config(run / "config.toml").train.worldmodel.steps
    back = wm("train", "--run", copy, "--device", "cpu", "--set", f"train.worldmodel.steps={steps}")
    assert back.code == 0, back.output
    assert "changed: " in back.output
    assert "to be run again" not in back.output
    for stage in STAGES:
        assert f"{stage}: up to date, skipped" in back.output


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
    assert "at most 100%; other games may use the rest" in result.output
    with pytest.raises(ValueError, match="the run has several games; give one of breakout, ms_pacman"):
        load_policy(tmp_path / "run")
    policy = load_policy(tmp_path / "run", "breakout", epsilon=1.0, device="cpu")
    assert set(policy(np.zeros((200, 4, 84, 84), np.uint8)).tolist()) == {0, 1, 3, 4}


def test_stages_run_one_by_one_and_say_what_they_need(tmp_path):
    early = train(tmp_path, "--set", "seed=3", "hrvq")
    assert early.code == 2
    assert "needs the artifacts of collect" in early.output
    for stage in STAGES[:3]:
        assert train(tmp_path, stage).code == 0
    assert not (tmp_path / "worldmodel.safetensors").exists()


def test_a_stage_of_old_inputs_says_so_and_a_refused_one_changes_nothing(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    fresh = wm("train", "agent", "--run", copy, "--device", "cpu")
    assert "inputs changed" not in fresh.output
    late = wm("train", "agent", "--run", copy, "--device", "cpu", "--set", "quantize.epochs=2")
    assert late.code == 0, late.output
    assert "agent: reads what hrvq made before settings or inputs changed" in late.output
    before = (copy / "config.toml").read_bytes()
    refused = wm("train", "agent", "--run", copy, "--device", "cpu", "--preset", "hour")
    assert refused.code == 2
    assert "needs the artifacts of" in refused.output
    assert (copy / "config.toml").read_bytes() == before
    more = wm("train", "worldmodel", "--run", copy, "--device", "cpu", "--games", "pong,breakout")
    assert more.code == 2
    assert "needs breakout too, which hrvq has not seen yet" in more.output
    assert (copy / "config.toml").read_bytes() == before
    other = wm("train", "collect", "--run", copy, "--device", "cpu", "--games", "breakout")
    assert other.code == 0, other.output
    shown = wm("show", copy)
    assert shown.code == 0, shown.output
    assert shown.output.count("for games other than the run's") == 4  # encoder, hrvq, worldmodel, decoder
    assert "pong:" not in shown.output
    assert "pong" not in wm("runs", tmp_path).output
    encoded = wm("train", "hrvq", "--run", copy, "--device", "cpu")
    assert encoded.code == 2
    assert "stage hrvq needs breakout too, which encoder has not seen yet" in encoded.output
    for stage in ("encoder", "hrvq"):
        assert wm("train", stage, "--run", copy, "--device", "cpu").code == 0
    learned = wm("train", "agent", "--run", copy, "--device", "cpu")
    assert learned.code == 2
    assert "stage agent needs breakout too, which worldmodel has not seen yet" in learned.output


def test_what_reads_a_run_says_which_parts_do_not_belong_together(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    whole = wm("eval", copy, "--stage", "worldmodel", "--device", "cpu")
    assert "belong together" not in whole.output
    assert wm("train", "hrvq", "--run", copy, "--device", "cpu", "--set", "hrvq.seed=5").code == 0
    mixed = wm("eval", copy, "--stage", "worldmodel", "--device", "cpu")
    assert "worldmodel, agent, decoder: made before settings or inputs changed" in " ".join(
        mixed.output.split()
    )
    assert wm("train", "--run", copy, "--device", "cpu").code == 0
    Manifest(Layout(copy)).begin("encoder")  # as a training does that is stopped before its end
    stopped = wm("eval", copy, "--stage", "worldmodel", "--device", "cpu")
    assert "encoder, hrvq, decoder: made before settings or inputs changed" in " ".join(
        stopped.output.split()
    )


def test_refined_codes_lose_less(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    assert wm("train", "hrvq", "--run", copy, "--device", "cpu", "--set", "quantize.refine=4").code == 0
    learned = ~load_config(copy / "config.toml").validates(Layout(run).frames("pong").episode_ids)
    x = load_embeddings(Layout(run).embeddings("pong"))[0][torch.from_numpy(learned)]
    plain, refined = (HRVQ.load(Layout(root).hrvq) for root in (run, copy))
    lost = [(x - q.decode(q.encode(x))).square().sum(1).mean() for q in (plain, refined)]
    assert lost[1] < lost[0]


def test_a_run_that_is_not_named_keeps_its_settings_too(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "runs" / "pong-tiny-0", copy_function=shutil.copy2)
    config = tmp_path / "runs" / "pong-tiny-0" / "config.toml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "pick_device", lambda _: torch.device("cpu"))
    before = config.read_bytes()
    again = wm("train")
    assert again.code == 0, again.output
    for stage in STAGES:
        assert f"{stage}: up to date, skipped" in again.output
    assert config.read_bytes() == before
    assert wm("train", "worldmodel", "--set", "worldmodel.num_layers=2").code == 0
    assert wm("train", "agent").code == 0
    assert load_config(config) == build_config(
        tomllib.loads(before.decode()), {"worldmodel": {"num_layers": 2}}
    )

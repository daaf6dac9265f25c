"""The real command on the real emulator, at a tiny size."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cnn_encoder import ContrastiveObjective, load_embeddings
from command import SMALL, artifacts, options, train, wm
from hrvq import HRVQ
from latent_ac import ActorCriticObjective, PredictorObjective
from token_worldmodel import WorldModelObjective, load_worldmodel
from wm import pipeline, training
from wm.config import build_config, load_config, read_preset, save_config
from wm.freshness import what_changes
from wm.measure import evaluation
from wm.run import Layout, Manifest
from wm.sections import StartConfig
from wm.settings import unstructure
from wm.stage import Context, Made, Stage
from wm.stages import stages_of
from wm.trained import load_policy

STAGES = ("collect", "encoder", "hrvq", "worldmodel", "agent", "decoder", "evaluate")


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


def test_ctrl_c_waits_until_pytorchs_compiler_is_there(tmp_path, monkeypatch):
    """It is imported with the first optimizer; in the middle of that PyTorch aborts."""
    imported = []

    def interrupted_import(name):
        signal.raise_signal(signal.SIGINT)
        imported.append(name)

    monkeypatch.setattr(pipeline, "import_module", interrupted_import)
    stopped = train(tmp_path / "run")
    assert (stopped.code, imported) == (130, ["torch._dynamo"])
    assert "collect" not in Manifest(Layout(tmp_path / "run")).stages


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
    assert "at most 100%; others may use the rest" in result.output
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
    assert shown.output.count("of other games than the run's") == 4  # encoder, hrvq, worldmodel, decoder
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


def test_the_seconds_of_a_stage_are_those_of_all_its_parts(tmp_path, monkeypatch):
    clock = iter((0.0, 7.0, 100.0, 102.0))
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def stopped(context):
        raise KeyboardInterrupt

    context = Context(build_config({}), Layout(tmp_path), None, None, stage="toy", fingerprint="f")
    with pytest.raises(KeyboardInterrupt):
        pipeline._timed(Stage("toy", (), None, stopped), context)
    made = Made([])
    assert pipeline._timed(Stage("toy", (), None, lambda _: made), context) == (made, 9.0)


def test_alike_codes_may_learn_together(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    together = wm(
        "train", "worldmodel", "--run", copy, "--device", "cpu", "--set", "train.worldmodel.alike_codes=true"
    )
    assert together.code == 0, together.output
    before, after = (load_worldmodel(path / "worldmodel.safetensors").state_dict() for path in (run, copy))
    assert before.keys() == after.keys()
    assert not torch.equal(before["heads.0.weight"], after["heads.0.weight"])


def test_muon_learns_otherwise_and_goes_on_where_it_was_stopped(run, tmp_path, monkeypatch):
    def learned(name, optimizer, stop=None):
        copy = shutil.copytree(run, tmp_path / name, copy_function=shutil.copy2, dirs_exist_ok=True)
        steps, after_step = 0, WorldModelObjective.after_step

        def count(self):
            nonlocal steps
            after_step(self)
            steps += 1
            if steps == stop:
                os.kill(os.getpid(), signal.SIGINT)

        settings = options(["train.worldmodel.steps=6", f"train.worldmodel.optimizer={optimizer}"])
        with monkeypatch.context() as patch:
            patch.setattr(WorldModelObjective, "after_step", count)
            result = wm("train", "worldmodel", "--run", copy, "--device", "cpu", *settings)
        if stop:
            assert result.code == 130, result.output
            result = wm("train", "worldmodel", "--run", copy, "--device", "cpu", *settings)
            assert f"worldmodel: goes on at step {stop} of 6" in result.output
        assert result.code == 0, result.output
        return (copy / "worldmodel.safetensors").read_bytes()

    whole = learned("whole", "muon")
    assert learned("stopped", "muon", stop=3) == whole
    assert learned("usual", "adamw") != whole


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


LONGER = options(f"train.{stage}.steps=12" for stage in ("encoder", "worldmodel", "predictors", "agent"))


@pytest.fixture(scope="module")
def longer_run(tmp_path_factory):
    """A run whose training stages take twelve steps each, so that there is something to interrupt."""
    directory = tmp_path_factory.mktemp("longer") / "run"
    result = train(directory, *LONGER)
    assert result.code == 0, result.output
    return directory


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("objective", "stage", "part", "step"),
    [
        (ContrastiveObjective, "encoder", "encoder", 5),
        (WorldModelObjective, "worldmodel", "worldmodel", 5),
        (PredictorObjective, "agent", "predictors", 5),
        (ActorCriticObjective, "agent", "agent", 6),  # two steps a dream: it is finished first
    ],
)
def test_a_run_stopped_in_any_stage_ends_like_one_that_was_not(
    longer_run, tmp_path, monkeypatch, objective, stage, part, step
):
    copy = shutil.copytree(longer_run, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / f"{stage}.safetensors").unlink()
    steps = 0
    after_step = objective.after_step

    def interrupt(self):
        nonlocal steps
        after_step(self)
        steps += 1
        if steps == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "after_step", interrupt)
        stopped = train(copy, *LONGER)
    assert stopped.code == 130
    assert "the same command goes on from here" in stopped.output
    assert not (copy / f"{stage}.safetensors").exists()
    resumed = train(copy, *LONGER)
    assert resumed.code == 0, resumed.output
    assert f"{part}: goes on at step {step} of 12" in resumed.output
    assert artifacts(copy) == artifacts(longer_run)


def test_an_evaluation_that_is_stopped_does_not_play_the_same_games_again(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / "evaluation.json").unlink()
    played, play = [], evaluation.play_whole_games

    def stop_once(*arguments, task, **options):
        if played == ["play pong (agent)"]:
            played.append("stopped")
            raise KeyboardInterrupt
        played.append(task)
        return play(*arguments, task=task, **options)

    monkeypatch.setattr(evaluation, "play_whole_games", stop_once)
    assert train(copy).code == 130
    assert train(copy).code == 0
    assert played == ["play pong (agent)", "stopped", "play pong (random)"]
    assert (copy / "evaluation.json").read_bytes() == (run / "evaluation.json").read_bytes()
    assert not list((copy / "checkpoints").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_from_outside_at_several_moments(longer_run, tmp_path):
    settings = options(SMALL) + LONGER
    command = [sys.executable, "-c", "from wm.cli import main; main()", "train", "--preset", "tiny"]
    command += ["--device", "cpu", "--run", str(tmp_path / "run"), *settings]
    for wait in (0.5, 2.0, 3.0, None):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            first_lines = process.stdout.readline() if wait != 0.5 else ""
            if wait is not None:
                time.sleep(wait)  # from the first line on: the command is under way
                for _ in range(5 if wait == 3.0 else 1):  # once by an impatient hand
                    process.send_signal(signal.SIGINT)
                    time.sleep(0.003)
            if wait == 2.0:  # and once more while it ends
                for line in process.stdout:
                    first_lines += line
                    if "interrupted" in line:
                        process.send_signal(signal.SIGINT)
                        break
            output = first_lines + process.communicate(timeout=300)[0]
        if wait == 0.5:  # while Python is still importing there is nobody to say it nicely
            continue
        assert "Traceback" not in output, output
        assert process.returncode in (0, 130), output
    assert process.returncode == 0, output
    assert artifacts(tmp_path / "run") == artifacts(longer_run)


def test_eval_plays_and_writes_json(run, tmp_path):
    done = wm("eval", run, "--episodes", 2, "--json", tmp_path / "score.json", "--device", "cpu")
    assert done.code == 0, done.output
    result = json.loads((tmp_path / "score.json").read_text())
    pong = result["games"]["pong"]
    assert len(pong["agent"]["returns"]) == len(pong["random"]["returns"]) == 2
    assert all(-21 <= score <= 21 for score in pong["agent"]["returns"])
    assert "published, systems after 100k agent steps" in done.output
    assert pong["agent"]["cut"] == 0
    assert "that limit cut" not in done.output
    short = wm("eval", run, "--episodes", 2, "--max-frames", 400, "--device", "cpu")
    assert "of the agent's 2 episodes that limit cut 2" in short.output


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
        assert "the tokens of pong are not of the frames" in " ".join(done.output.split())
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
    assert "pong: there are no embeddings of it yet; `wm train" in " ".join(refused.output.split())

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

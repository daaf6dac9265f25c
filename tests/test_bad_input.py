"""User errors: exit code 2, one helpful sentence, no traceback, nothing lost."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from atari_data import only_writer
from command import options, train, wm
from safetensors.torch import save_file
from token_worldmodel import TokenTrajectories, WorldModel, load_tokens, load_worldmodel, save_tokens
from token_worldmodel import save_worldmodel as save_model


def refused(result, *parts):
    assert result.code == 2, result.output
    text = " ".join(result.stderr.split())
    assert "Traceback" not in text
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--games", "pnog"], ["pnog", "pong"]),
        (["--games", "MsPacman"], ["ms_pacman"]),
        (["--games", "pong,pong"], ["games repeats a name: pong, pong; give each once"]),
        (["--games", ""], ["--games takes ALE names separated by commas", "got ''"]),
        (["--games", "pong", "--games", "pong"], ["games repeats a name: pong, pong; give each once"]),
        (["--games", "pong,"], ["--games takes ALE names separated by commas", "got 'pong,'"]),
        (["wroldmodel"], ["unknown stage 'wroldmodel'", "worldmodel"]),
        (["seed=1"], ["unknown stage 'seed=1'", "did you mean `--set seed=1`?"]),
        (["--set", "hrvq.codes=[256,40000,256]"], ["hrvq.codes is 40000; give at most 32768"]),
        (["--preset", "huge"], ["unknown preset 'huge'", "tiny, hour, reference, atari100k"]),
        (["--set", "worldmodel.layers=3"], ["worldmodel.layers", "num_layers"]),
        (["--set", "worldmodel.num_layers=many"], ["worldmodel.num_layers must be an integer", "'many'"]),
        (["--set", "worldmodel.num_layers=0"], ["num_layers", "0"]),
        (["--set", "worldmodel.num_levels=5"], ["worldmodel.num_levels follows from hrvq.levels"]),
        (["--set", "dream.horizon=100"], ["dream.context + dream.horizon is 104", "windows.length = 20"]),
        (["--set", "train.agent.precision=float16", "--device", "cpu"], ["precision", "CUDA"]),
        (["--set", "train.agent.learning_rate=nan"], ["train.agent.learning_rate must be a finite number"]),
        (["--set", "nonsense"], ["--set takes section.key=value"]),
        (["--device", "tpu"], ["unknown device 'tpu'"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--log", "paper"], ["unknown --log 'paper'"]),
        (["--seed", "-1"], ["seed is -1; give at least 0"]),
        (["--seed", "1", "--set", "seed=2"], ["seed is given by --seed and by --set seed; give one"]),
        (["--preset", ""], ["unknown preset ''"]),
    ],
)
def test_arguments(tmp_path, arguments, parts):
    refused(wm("train", "--run", tmp_path / "run", *arguments), *parts)
    assert not (tmp_path / "run" / "config.toml").exists()


def test_a_log_that_cannot_be_kept_is_told_before_another_is_begun(tmp_path, monkeypatch):
    """What it wrote would make the directory that of something else."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    arguments = ("train", "--run", tmp_path / "run", "--log", "tensorboard", "--log", "wandb")
    for _ in range(2):
        refused(wm(*arguments), "--log wandb needs the package wandb; pip install wandb")
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_directory_that_is_no_run(tmp_path):
    for command in (["eval"], ["show"]):
        refused(wm(*command, tmp_path / "nowhere"), "holds no run")
    refused(wm("runs", tmp_path / "nowhere"), "does not exist")
    (tmp_path / "file").touch()
    refused(wm("runs", tmp_path / "file"), "is a file")
    (tmp_path / "thesis.txt").write_text("precious")
    refused(wm("train", "--run", tmp_path, "--preset", "tiny"), "is not empty and holds no run")
    refused(wm("train", "--run", tmp_path / "thesis.txt", "--preset", "tiny"), "is a file")
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_what_went_wrong_is_no_part_of_what_is_printed(tmp_path):
    refused = wm("show", tmp_path / "nowhere")
    assert refused.stderr == refused.output
    refused = wm("bench", "--submit-command", "sbatch", "--device", "cpu", "--out", tmp_path)
    assert refused.stderr == refused.output


def test_a_path_that_no_system_takes(tmp_path):
    for command in (["show"], ["eval"], ["runs"], ["train", "--preset", "tiny", "--run"]):
        refused(wm(*command, tmp_path / ("x" * 300)), "x" * 300)


def test_a_run_that_another_process_writes(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    before = (copy / "config.toml").read_bytes()
    with only_writer(copy):
        refused(wm("train", "--run", copy, "--seed", "5"), "is being written by another process")
    assert (copy / "config.toml").read_bytes() == before
    assert "up to date, skipped" in wm("train", "--run", copy, "--device", "cpu").output


def test_a_lock_goes_with_its_process(tmp_path):
    hold = (
        "import sys, time; from pathlib import Path; from atari_data import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process"), only_writer(tmp_path):
            pass
        holder.kill()
    with only_writer(tmp_path):
        pass


def test_what_cannot_be_written_is_refused_before_the_work(run, tmp_path):
    (tmp_path / "file").write_text("precious")
    for command, option in (
        ("eval", "--json"),
        ("fidelity", "--json"),
        ("probe", "--json"),
        ("atlas", "--out"),
    ):
        refused(wm(command, run, option, tmp_path), "is a directory; give a file")
        refused(wm(command, run, option, tmp_path / "file" / "x"), "is a file, so")
        for length in (250, 300):  # of the first the file is too long that is written beforehand
            path = tmp_path / ("x" * length)
            refused(wm(command, run, option, path), "File name too long; choose another path")
    os.mkfifo(tmp_path / "pipe")
    refused(wm("probe", run, "--json", tmp_path / "pipe"), "is a device or a pipe")
    assert (tmp_path / "pipe").is_fifo()
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    for command, name in (("atlas", "atlas.html"), ("dream", "dream-pong-0.gif")):
        (copy / name).mkdir(exist_ok=True)
        refused(done := wm(command, copy, "--device", "cpu"), f"{name} is a directory")
        assert "draw" not in done.output
    for option in ("--episodes", "--temperature", "--seed", "--max-frames"):
        asked = wm("eval", run, "--stage", "worldmodel", option, "100")
        refused(asked, f"{option} is for play", "leave it out")


def test_what_a_link_points_to_is_written_and_the_link_stays(run, tmp_path):
    (tmp_path / "link.json").symlink_to("real.json")
    done = wm("eval", run, "--stage", "worldmodel", "--device", "cpu", "--json", tmp_path / "link.json")
    assert done.code == 0, done.output
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["games"]


def test_commands_that_are_advised_can_be_pasted(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "my run", copy_function=shutil.copy2)
    (copy / "agent.safetensors").unlink()
    refused(wm("dream", copy), f"run `wm train --run '{copy}'` first")


def test_a_setting_that_a_file_has_wrong_is_told_with_the_file(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    config = copy / "config.toml"
    config.write_text(re.sub(r"num_envs = \d+", "num_envs = 0", config.read_text(), count=1))
    refused(wm("eval", copy), f"[collect] num_envs is 0; give 1 to 512 (in {config})")


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_foreign(path):
    save_file({"x": torch.zeros(3)}, path)


def damage_text(path):
    path.write_text("hello")


def damage_other_kind(path):
    other = "encoder" if path.name != "encoder.safetensors" else "hrvq"
    shutil.copyfile(path.with_name(f"{other}.safetensors"), path)


@pytest.mark.parametrize("damage", [damage_truncate, damage_foreign, damage_text, damage_other_kind])
@pytest.mark.parametrize("name", ["encoder", "hrvq", "worldmodel", "agent"])
def test_damaged_artifacts_are_named_and_deleting_them_mends_the_run(run, tmp_path, name, damage):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    path = copy / f"{name}.safetensors"
    original = path.read_bytes()
    damage(path)
    refused(train(copy), f"{name}.safetensors is not the file that stage {name} wrote", "delete the file")
    if name != "worldmodel":  # not needed to play
        played = wm("eval", copy, "--episodes", 1, "--device", "cpu")
        refused(played, f"{name}.safetensors", f"delete it and `wm train --run {copy}` makes it again")
    if damage is damage_truncate and name == "agent":
        path.unlink()
        assert train(copy).code == 0
        assert path.read_bytes() == original


def other_codes(tokens):
    changed = tokens.tokens.copy()
    changed[-1, 1] = 300
    return replace(tokens, tokens=changed)


def other_levels(tokens):
    return replace(tokens, tokens=tokens.tokens[:, :2].copy())


def first_rows(count):
    def cut(tokens):
        return TokenTrajectories(**{f.name: getattr(tokens, f.name)[:count] for f in fields(tokens)})

    return cut


@pytest.mark.parametrize(
    ("change", "parts", "dream"),
    [
        (other_codes, ["pong.safetensors has tokens of 16, 301, 16 codes", "knows 16, 16, 16"], None),
        (other_levels, ["pong.safetensors has tokens of 16, 16 codes", "knows 16, 16, 16"], None),
        (
            first_rows(0),
            ["pong has no", "validation episode"],
            ["tokens of pong were not made from the frames"],
        ),
        (
            first_rows(2),
            ["pong has", "no validation episode"],
            ["tokens of pong were not made from the frames"],
        ),
    ],
)
def test_tokens_that_are_not_the_models_are_named(run, tmp_path, change, parts, dream):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    path = copy / "tokens" / "pong.safetensors"
    save_tokens(path, change(load_tokens(path)))
    refused(wm("eval", copy, "--stage", "worldmodel", "--device", "cpu"), *parts)
    refused(wm("dream", copy, "--device", "cpu"), *(dream or parts))
    refused(train(copy), "pong.safetensors is not the file that stage hrvq wrote")


def test_a_world_model_of_another_run_is_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    path = copy / "worldmodel.safetensors"
    save_model(path, WorldModel(replace(load_worldmodel(path).config, num_codes=8)))
    for command in (["eval", "--stage", "worldmodel"], ["dream"]):
        refused(wm(command[0], copy, *command[1:], "--device", "cpu"), "pong.safetensors", "knows 8, 8, 8")
    refused(wm("fidelity", copy, "--device", "cpu"), "hrvq.safetensors", "knows 8, 8, 8")


def test_a_loss_that_is_not_finite_keeps_what_was_learned(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    before = (copy / "worldmodel.safetensors").read_bytes()
    wild = ("learning_rate=1e30", "clip=0", "steps=9", "log_every=1")
    settings = options(f"train.worldmodel.{setting}" for setting in wild)
    refused(train(copy, *settings), "worldmodel: the loss or its gradient is", "lower train.worldmodel.learn")
    assert (copy / "worldmodel.safetensors").read_bytes() == before
    assert train(copy).code == 0
    assert (copy / "worldmodel.safetensors").read_bytes() == before


def test_a_damaged_shard_is_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    shard = next((copy / "data" / "pong").glob("*.safetensors"))
    damage_truncate(shard)
    refused(train(copy), shard.name, "delete the file")


@pytest.mark.parametrize(("name", "text"), [("config.toml", "games = ["), ("manifest.json", "{")])
def test_damaged_text_files_are_named(run, tmp_path, name, text):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / name).write_text(text)
    refused(wm("train", "--run", copy, "--device", "cpu"), name)
    refused(wm("show", copy), name)


def test_a_section_that_is_a_value_is_named_with_a_preset_too(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / "config.toml").write_text("collect = 3")
    refused(wm("train", "--run", copy, "--device", "cpu"), "collect is a section with keys of its own")
    refused(
        wm("train", "--run", copy, "--preset", "tiny", "--device", "cpu"), "collect is 3; it is a section"
    )


def test_play_of_one_episode_is_refused_before_anything_learns_from_it(tmp_path):
    alone = options(("collect.num_envs=1", "collect.num_steps=100"))
    refused(
        train(tmp_path / "run", *alone), "one episode of pong was played in 100 steps", "collect.num_envs"
    )


def test_no_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root, who may write anywhere
    refused(train(tmp_path / "run"), "run: no permission; fix it or give another path")
    assert not list((tmp_path / "run").iterdir())


def test_a_full_disk_is_told_and_the_run_goes_on_afterwards(tmp_path, monkeypatch):
    """The system call says so at one of the renames; what was whole before it stays."""
    real, renames = os.replace, 0

    def replace(source, target):
        nonlocal renames
        renames += 1
        if renames == 12:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        refused(train(tmp_path / "run"), ": No space left on device; fix it")
    assert not list((tmp_path / "run").rglob("*.tmp"))
    again = train(tmp_path / "run")
    assert again.code == 0, again.output


def test_a_run_named_where_a_stage_would_be_is_understood(run):
    refused(wm("train", run), f"unknown stage '{run}'; did you mean `--run {run}`?")


def test_a_preset_of_ones_own_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tiny.toml").write_text("seed = 3\n")
    refused(wm("train", "--preset", "mine/tiny.toml"), "has the name of a preset that ships with wm")
    assert not (tmp_path / "runs").exists()


def test_a_setting_that_no_run_has_is_named_with_its_file(tmp_path):
    (tmp_path / "run").mkdir()
    for file, arguments in (
        (tmp_path / "run" / "config.toml", ("--run", tmp_path / "run")),
        (tmp_path / "own.toml", ("--run", tmp_path / "other", "--preset", tmp_path / "own.toml")),
    ):
        for text, wrong in (
            ("zzz = 3", "unknown setting 'zzz'"),
            ("encoder = 3", "encoder is 3; it is a section"),
            ("hrvq = 3", "hrvq is 3; it is a section"),
            ("[hrvq]\nlevels = 0", "levels is 0"),
            ("[worldmodel]\nnum_layers = 0", "num_layers is 0"),
            ("[collect]\nnum_envs = 0", "num_envs is 0"),
        ):
            file.write_text(f"{text}\n")
            refused(wm("train", *arguments, "--device", "cpu"), wrong, f"(in {file})")
        file.write_text("seed = 3\n")
        typed = wm("train", *arguments, "--device", "cpu", "--set", "yyy=3")
        refused(typed, "unknown setting 'yyy'")
        assert "(in " not in typed.stderr


def test_a_link_to_nowhere_is_no_place_for_a_run(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    refused(train(link, "collect"), f"{link} is a link to {tmp_path / 'gone'}, which does not exist")

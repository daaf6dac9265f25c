"""A run that starts from another's trained parts, with the real command and emulator at a tiny size."""

import json
import shutil

import numpy as np
import pytest
from cnn_encoder import load_encoder
from command import STAGES, options, stages, train, wm
from hrvq import HRVQ
from safetensors.numpy import load_file
from wm.config import load_config

ON = ("--device", "cpu")
PARTS = ("encoder", "hrvq", "worldmodel", "agent")


KEPT = options(("start.parts=worldmodel", "start.encoder_steps=0"))


def start(source, directory, *arguments):
    """`wm train --from source` in another game, with the source's own settings, encoder and codes kept."""
    return wm("train", "--from", source, "--run", directory, "--games", "breakout", *ON, *KEPT, *arguments)


@pytest.fixture(scope="module")
def begun(run, tmp_path_factory):
    """Breakout, from the encoder, codes and world model of pong: read, never write."""
    directory = tmp_path_factory.mktemp("begun") / "run"
    result = start(run, directory)
    assert result.code == 0, result.output
    assert "encoder, hrvq, worldmodel" in result.output
    return directory


def test_encoder_and_codes_are_kept_and_the_world_model_is_trained_on(run, begun):
    theirs, ours = load_file(run / "encoder.safetensors"), load_file(begun / "encoder.safetensors")
    weights = {name for name in theirs if not name.startswith("background")}
    assert all(np.array_equal(theirs[name], ours[name]) for name in weights)
    assert set(ours) - weights == {"background.breakout"}
    assert (run / "hrvq.safetensors").read_bytes() == (begun / "hrvq.safetensors").read_bytes()
    theirs, ours = (load_file(where / "worldmodel.safetensors") for where in (run, begun))
    distance = sum(float(np.abs(ours[name] - theirs[name]).sum()) for name in theirs)
    assert 0 < distance < 0.2 * sum(float(np.abs(value).sum()) for value in theirs.values())


def test_the_run_says_what_it_began_with(run, begun):
    done = stages(begun)
    assert next(iter(done)) == "start"
    assert done["start"]["metrics"]["games"] == ["pong"]
    played = stages(run)["collect"]["metrics"]["pong"]["steps"]
    assert done["start"]["metrics"]["steps"] == {"pong": played}
    assert done["evaluate"]["metrics"]["protocol"]["began_with"] == {
        "run": str(run),
        "steps": {"pong": played},
    }
    told = f"it started from parts of {run}; real steps of that run: {played} of pong"
    assert told in " ".join(wm("show", begun).output.split())
    for part in PARTS[:3]:
        theirs = stages(run)[part]["artifacts"][f"{part}.safetensors"]["sha256"]
        assert done["start"]["artifacts"][f"start/{part}.safetensors"]["sha256"] == theirs
        assert done[part]["parents"][f"start/{part}.safetensors"] == theirs
    assert not (begun / "start" / "agent.safetensors").exists()
    assert "start/hrvq.safetensors" in wm("show", begun).output
    assert load_config(begun / "config.toml").windows == load_config(run / "config.toml").windows


def test_the_copy_is_all_it_needs(run, begun, tmp_path):
    source = shutil.copytree(run, tmp_path / "source", copy_function=shutil.copy2)
    directory = tmp_path / "run"
    assert start(source, directory, "encoder").code == 2  # its play is not there yet
    for stage in ("start", "collect", "encoder"):
        assert start(source, directory, stage).code == 0
    shutil.rmtree(source)
    again = wm("train", "--run", directory, *ON)
    assert again.code == 0, again.output
    assert "start: up to date, skipped" in again.output
    for part in PARTS:
        assert (directory / f"{part}.safetensors").read_bytes() == (
            begun / f"{part}.safetensors"
        ).read_bytes()


def test_parts_that_are_gone_are_taken_again(begun, tmp_path):
    copy = shutil.copytree(begun, tmp_path / "copy", copy_function=shutil.copy2)
    shutil.rmtree(copy / "start")
    again = wm("train", "--run", copy, *ON)
    assert again.code == 0, again.output
    assert "start: done" in again.output
    assert "encoder: up to date, skipped" in again.output


def test_what_was_begun_with_keeps_its_settings(begun, tmp_path):
    copy = shutil.copytree(begun, tmp_path / "copy", copy_function=shutil.copy2)
    refused = wm("train", "--run", copy, *ON, "--set", "worldmodel.dim=64")
    assert refused.code == 2
    assert "worldmodel.dim is 64, but the worldmodel to start from has" in " ".join(refused.output.split())
    alone = wm("train", "hrvq", "--run", copy, *ON, "--set", "start.parts=hrvq", "--set", "worldmodel.dim=64")
    assert alone.code == 0, alone.output


def test_an_encoder_trained_on_moves_the_codes(run, begun, tmp_path):
    copy = shutil.copytree(begun, tmp_path / "copy", copy_function=shutil.copy2)
    moved = wm("train", "hrvq", "--run", copy, *ON)
    assert "hrvq: up to date, skipped" in moved.output
    for stage in ("encoder", "hrvq"):
        moved = wm("train", stage, "--run", copy, *ON, "--set", "start.encoder_steps=3")
        assert moved.code == 0, moved.output
    theirs, ours = (load_encoder(where / "encoder.safetensors")[0].state_dict() for where in (run, copy))
    assert 0 < max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 0.1
    theirs, ours = (HRVQ.load(where / "hrvq.safetensors").table for where in (run, copy))
    assert 0 < float((ours - theirs).abs().mean()) < float(theirs.abs().mean())


@pytest.mark.parametrize("parts", ["encoder", "agent"])
def test_less_and_more_is_taken(run, tmp_path, parts):
    directory = tmp_path / "run"
    done = start(run, directory, "--set", f"start.parts={parts}")
    assert done.code == 0, done.output
    taken = PARTS[: PARTS.index(parts) + 1]
    assert stages(directory)["start"]["metrics"]["parts"] == list(taken)
    codes = [(where / "hrvq.safetensors").read_bytes() for where in (run, directory)]
    assert (codes[0] == codes[1]) == ("hrvq" in taken)
    assert ("start/agent.safetensors" in stages(directory)["agent"]["parents"]) == ("agent" in taken)


def test_parts_that_are_not_of_the_settings_their_run_has_now_are_refused(run, tmp_path):
    source = shutil.copytree(run, tmp_path / "source", copy_function=shutil.copy2)
    assert wm("train", "encoder", "--run", source, *ON, "--set", "hrvq.codes=32").code == 0
    assert load_config(source / "config.toml").hrvq.codes == 32
    assert HRVQ.load(source / "hrvq.safetensors").config.codes == 16
    refused = start(source, tmp_path / "run", "start")
    assert refused.code == 2, refused.output
    told = " ".join(refused.output.split())
    assert f"hrvq, worldmodel of {source}: made before its settings or inputs changed" in told
    assert not (tmp_path / "run").exists()
    # What was made before these, and not from them, is as the settings say.
    assert start(source, tmp_path / "run", "start", "--set", "start.parts=encoder").code == 0


def test_a_run_that_is_there_is_told_how_to_take_what_a_part_has(run, tmp_path):
    own = tmp_path / "run"
    assert train(own, "collect", "--set", "hrvq.codes=32").code == 0
    begin = ("train", "start", "--run", own, "--from", run, *ON, "--set", "start.parts=hrvq")
    refused = wm(*begin)
    assert refused.code == 2
    assert "give `--set hrvq.codes=16` to use that value" in " ".join(refused.output.split())
    assert wm(*begin, "--set", "hrvq.codes=16").code == 0


def test_the_run_it_began_with_is_known_by_its_place_and_not_by_its_name(run, tmp_path, monkeypatch):
    own, here, there = tmp_path / "own", tmp_path / "here", tmp_path / "there"
    for directory, source in ((here, run), (there, tmp_path / "other")):
        directory.mkdir()
        (directory / "source").symlink_to(source)
    begin = ("train", "start", "--run", own, *ON)
    monkeypatch.chdir(here)
    assert wm(*begin, "--from", "source").code == 0
    again = wm(*begin, "--from", run)
    assert again.code == 0
    assert "changed" not in again.output
    monkeypatch.chdir(there)
    refused = wm(*begin, "--from", "source")
    assert refused.code == 2
    told = " ".join(refused.output.split())
    assert "other holds no run" in told
    assert "if that has moved, give --from its place" in told


def test_real_steps_of_the_runs_before_the_other_one_count_too(run, begun, tmp_path):
    done = wm("train", "start", "--from", begun, "--run", tmp_path / "run", "--games", "breakout", *ON)
    assert done.code == 0, done.output
    played = {"pong": stages(run)["collect"]["metrics"]["pong"]["steps"]}
    played["breakout"] = stages(begun)["collect"]["metrics"]["breakout"]["steps"]
    assert stages(tmp_path / "run")["start"]["metrics"]["steps"] == played


def test_a_run_begun_with_that_has_moved_costs_nothing(run, begun, tmp_path):
    copy, moved = (tmp_path / name for name in ("copy", "moved"))
    shutil.copytree(begun, copy, copy_function=shutil.copy2)
    shutil.copytree(run, moved, copy_function=shutil.copy2)
    again = wm("train", "--run", copy, *ON, "--from", moved)
    assert again.code == 0, again.output
    assert "those after start only if it copies other parts" in " ".join(again.output.split())
    assert again.output.count("up to date, skipped") == len(STAGES)


def test_an_agent_that_sees_something_else_names_the_setting(run, tmp_path):
    seen = ("--set", "start.parts=agent", "--set", "dream.hidden_state=true")
    told = " ".join(start(run, tmp_path / "run", *seen).output.split())
    assert "dream.hidden_state is True, but the agent to start from has False; leave out" in told


def test_a_run_of_rounds_begins_with_them_too(run, tmp_path):
    rounds = options(
        (
            "rounds.count=2",
            "rounds.first_steps=300",
            "rounds.worldmodel_steps=2",
            "rounds.predictor_steps=2",
            "rounds.agent_steps=8",
        )
    )
    done = start(run, tmp_path / "run", *rounds)
    assert done.code == 0, done.output
    found = stages(tmp_path / "run")
    assert "start/worldmodel.safetensors" in found["worldmodel-0"]["parents"]
    assert "start/worldmodel.safetensors" not in found["worldmodel"]["parents"]
    codes = [tmp_path / "run" / place / "hrvq.safetensors" for place in ("start", "rounds/00", ".")]
    assert len({path.read_bytes() for path in codes}) == 1


def test_what_cannot_be_begun_with(run, tmp_path):
    for arguments, message in (
        ((tmp_path / "none", tmp_path / "run"), "holds no run"),
        ((run, tmp_path / "run", "--set", "start.parts=actor"), "start.parts must be one of 'encoder'"),
        ((run, tmp_path / "run", "--set", "start.encoder_steps=-1"), "encoder_steps is -1; give at least 0"),
        ((run, tmp_path / "run", "--preset", "tiny"), "leave out --preset and this setting"),
        (
            (run, tmp_path / "run", "--set", "worldmodel.dim=64"),
            "worldmodel.dim is 64, but the worldmodel to start from has",
        ),
    ):
        refused = start(*arguments)
        assert refused.code == 2, refused.output
        assert message in " ".join(refused.output.split())
        assert not (tmp_path / "run").exists()  # so that the same command, mended, does not find a run there
    told = " ".join(start(run, tmp_path / "run", "--set", "encoder.hidden_dim=48").output.split())
    assert told.endswith("leave out --preset and this setting to use that value")
    early = tmp_path / "early"
    assert train(early, "collect").code == 0
    refused = start(early, tmp_path / "run")
    assert refused.code == 2
    assert "has no encoder.safetensors" in " ".join(refused.output.split())
    assert "start.parts" not in refused.output  # less than the encoder there is not
    own = wm("train", "--run", early, *ON, "--set", f"start.run={str(early)!r}")
    assert own.code == 2
    assert "this run itself" in " ".join(own.output.split())


def test_real_steps_that_an_older_version_did_not_count_are_unknown(begun, tmp_path):
    copy = shutil.copytree(begun, tmp_path / "copy", copy_function=shutil.copy2)
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["stages"]["start"]["metrics"]["steps"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = wm("train", "start", "--from", copy, "--run", tmp_path / "run", "--games", "breakout", *ON)
    assert done.code == 0, done.output
    assert stages(tmp_path / "run")["start"]["metrics"]["steps"] is None

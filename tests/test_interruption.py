"""A run that was stopped resumes with the same command and ends like one that was not stopped."""

import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from cnn_encoder import ContrastiveObjective
from command import SMALL, artifacts, options, train, wm
from latent_ac import ActorCriticObjective, PredictorObjective
from token_worldmodel import WorldModelObjective
from wm import pipeline
from wm.config import build_config
from wm.measure import evaluation
from wm.run import Layout, Manifest
from wm.stage import Context, Made, Stage


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
            assert f"worldmodel: resumes at step {stop} of 6" in result.output
        assert result.code == 0, result.output
        return (copy / "worldmodel.safetensors").read_bytes()

    whole = learned("whole", "muon")
    assert learned("stopped", "muon", stop=3) == whole
    assert learned("usual", "adamw") != whole


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
    assert "the same command resumes from here" in stopped.output
    assert not (copy / f"{stage}.safetensors").exists()
    resumed = train(copy, *LONGER)
    assert resumed.code == 0, resumed.output
    assert f"{part}: resumes at step {step} of 12" in resumed.output
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

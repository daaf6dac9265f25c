"""Dreams compared with the real game, on the real emulator."""

import io
import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from command import wm
from listening import listen
from rich.console import Console
from wm.config import load_config, save_config
from wm.console import make_console
from wm.measure.fidelity import masked_error
from wm.measure.fidelity_report import print_fidelity, print_foreseen, stretches
from wm.policy import RunPolicy

QUICK = ("--frames", 240, "--reader-steps", 20, "--windows", 32, "--device", "cpu")


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("fidelity") / "fidelity.json"
    done = wm("fidelity", run, *QUICK, "--json", path)
    assert done.code == 0, done.output
    return done.output, json.loads(path.read_text())


def test_every_horizon_stands_beside_copying_the_last_step(compared):
    output, result = compared
    assert "horizon 6, not 50" in output  # the test run's model reads 8 steps, of which 2 are real
    pong = result["games"]["pong"]
    assert result["protocol"]["horizon"] == 6
    assert result["protocol"]["round"] == 0
    assert pong["windows"] == 32
    tokens = pong["tokens"]
    assert len(tokens["agreement"]) == len(tokens["copy_agreement"]) == 6
    assert all(0 <= value <= 1 for row in tokens["agreement"] for value in row)
    for name, constant in (("reward", "no reward"), ("continue", "no end")):
        assert len(pong[name]["error"]) == len(pong[name]["copy_error"]) == 6
        row = next(line for line in output.splitlines() if f"{name} error | predicting {constant}" in line)
        assert f"| {pong[name]['constant_error'][0]:.3f}" in row
    assert pong["foreseen"].keys() == {"above zero", "below zero"}
    assert {"ball_y", "player_y"} <= pong["state"].keys()
    assert len(pong["state"]["player_y"]["error"]) == 6


def test_the_same_seed_dreams_the_same(compared, run, tmp_path):
    assert wm("fidelity", run, *QUICK, "--json", tmp_path / "again.json").code == 0
    assert json.loads((tmp_path / "again.json").read_text()) == compared[1]


def test_at_temperature_0_the_dream_is_greedy(compared, run, tmp_path):
    done = wm("fidelity", run, *QUICK, "--temperature", 0, "--json", tmp_path / "greedy.json")
    assert done.code == 0, done.output
    greedy = json.loads((tmp_path / "greedy.json").read_text())
    assert greedy["protocol"] == compared[1]["protocol"] | {"temperature": 0.0}
    assert greedy["games"]["pong"]["tokens"] != compared[1]["games"]["pong"]["tokens"]


def test_the_agents_own_play_is_another_play(compared, run, tmp_path, monkeypatch):
    plays = listen(monkeypatch, RunPolicy, "__call__", lambda policy, *seen: policy)
    done = wm("fidelity", run, *QUICK, "--by-agent", "--json", tmp_path / "agent.json")
    assert done.code == 0, done.output
    judged = load_config(run / "config.toml").evaluate
    assert {(policy.temperature, policy.epsilon) for policy in plays} == {
        (judged.temperature, judged.epsilon)
    }
    own = json.loads((tmp_path / "agent.json").read_text())
    assert own["protocol"] == compared[1]["protocol"] | {"by_agent": True}
    assert own["games"]["pong"]["tokens"] != compared[1]["games"]["pong"]["tokens"]


def test_dreams_are_as_long_as_the_model_that_was_trained(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    config = copy / "config.toml"
    steps = load_config(config).worldmodel.max_steps
    config.write_text(config.read_text().replace(f"max_steps = {steps}", "max_steps = 200"))
    done = wm("fidelity", copy, *QUICK, "--horizon", 150)
    assert done.code == 0, done.output
    assert f"must fit in the model's {steps} steps" in " ".join(done.output.split())


def test_games_that_cannot_be_played_afresh_are_named(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    config = load_config(copy / "config.toml")
    collect = replace(config.collect, policy="imported")
    save_config(copy / "config.toml", replace(config, games=("pong", "mygame"), collect=collect))
    done = wm("fidelity", copy, *QUICK)
    assert done.code == 0, done.output
    assert "not in ALE, so skipped: mygame" in done.output


def test_the_agents_own_play_needs_an_agent(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / "agent.safetensors").unlink()
    refused = wm("fidelity", copy, *QUICK, "--by-agent")
    assert refused.code == 2
    assert "has no agent yet; run `wm train --run" in " ".join(refused.output.split())


def test_what_could_not_be_measured_is_not_judged(compared, capsys):
    result = json.loads(json.dumps(compared[1]))
    found = result["games"]["pong"]["state"]
    for values in found.values():  # a file has null where a number is unknown
        for name in ("error", "copy_error"):
            values[name] = [math.nan if error is None else error for error in values[name]]
    state = found["player_y"]
    for horizon in range(2, 6):
        state["error"][horizon] = state["copy_error"][horizon] = math.nan
    state["error"][:2], state["copy_error"][:2] = [1.0, 1.0], [2.0, 2.0]
    print_fidelity("pong", result, make_console())
    line = next(line for line in capsys.readouterr().out.splitlines() if "player_y error" in line)
    assert "nan" not in line
    assert "? | ?" in line
    assert "1-2" in line


def test_a_state_that_never_changes_is_said(compared, capsys):
    result = json.loads(json.dumps(compared[1]))
    for values in result["games"]["pong"]["state"].values():
        values["error"] = [math.nan] * len(values["error"])
    print_fidelity("pong", result, make_console())
    told = "no state: no annotated variable changes in these windows; give more with --windows"
    assert told in capsys.readouterr().out


def test_where_a_dream_beats_a_copy_is_told_in_stretches():
    assert stretches([False, True, True, False, True]) == "2-3, 5"
    assert stretches([True]) == "1"
    assert stretches([False, False]) == "no step"


def test_what_is_foreseen_is_told_in_a_sentence():
    console = Console(width=200, record=True, file=io.StringIO())
    event = {"happened": 8, "recall": 0.25, "dreamed": 0.1, "precision": 0.5}
    print_foreseen("below zero", event, 15, console)
    print_foreseen("above zero", event | {"recall": 0.0, "dreamed": 0.0, "precision": None}, 15, console)
    told = console.export_text().splitlines()
    assert told == [
        "a reward below zero within 15 steps: occurred in 8 windows, and in the dreams of 25% of these "
        "(10% of all dreams have one, 50% of them correctly)",
        "a reward above zero within 15 steps: occurred in 8 windows, and in the dreams of 0% of these "
        "(0% of all dreams have one)",
    ]


def test_errors_count_only_where_the_object_is_in_play():
    real = torch.tensor([[[10.0], [20.0]], [[30.0], [40.0]]])  # (B, H, V) = (2, 2, 1)
    read = torch.tensor([[[11.0], [25.0]], [[33.0], [0.0]]])
    counts = torch.tensor([[[True], [True]], [[True], [False]]])
    assert masked_error(read, real, counts).tolist() == [[2.0], [5.0]]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--context", 8], "a context of 8 steps leaves no step to dream within worldmodel.max_steps = 8"),
        (["--temperature", -1], "temperature is -1.0; give 0 (greedy) or a finite number of at least 1e-6"),
        (["--temperature", "nan"], "temperature is nan; give 0 (greedy) or a finite number of at least 1e-6"),
        (["--windows", 0], "'--windows'"),
    ],
)
def test_bad_options_are_one_sentence(run, arguments, part):
    refused = wm("fidelity", run, *arguments, "--device", "cpu")
    assert refused.code == 2
    assert part in " ".join(refused.output.split())

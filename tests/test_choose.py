"""A run that lets its last rounds' agents play and keeps the best, with the real command at a tiny size."""

import json
import shutil
from dataclasses import replace

import pytest
from atari_data import PROTOCOLS, play_episodes
from command import options, stages, train, wm
from torch import device
from wm.config import load_config
from wm.measure.evaluation import play_whole_games
from wm.policy import policy_of
from wm.run import Layout
from wm.sections import EvaluateConfig
from wm.stages import choose

SETTINGS = options(
    (
        "collect.num_steps=900",
        "rounds.count=2",
        "rounds.first_steps=600",
        "rounds.encoder_steps=2",  # so that the rounds differ in their codes too
        "rounds.worldmodel_steps=2",
        "rounds.predictor_steps=2",
        "rounds.agent_steps=8",
        "choose.rounds=2",
        "choose.episodes=3",
        "choose.max_frames=400",
    )
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run whose choice fell on round 0 of 2, whoever played best: read, never write."""
    directory = tmp_path_factory.mktemp("chosen") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "best", lambda standing: 0)
        result = train(directory, *SETTINGS)
    assert result.code == 0, result.output
    assert "the agent of round 0, among rounds 0 to 1" in result.output
    assert "round 0 chosen" in result.output
    return directory


def test_candidates_play_the_same_games_and_their_steps_are_counted(first):
    config = load_config(first / "config.toml")
    choice = json.loads((first / "choice.json").read_text())
    assert [candidate["round"] for candidate in choice["candidates"]] == [0, 1]
    steps = 0
    for candidate, layout in zip(choice["candidates"], (Layout(first, 0), Layout(first)), strict=True):
        policy = policy_of(
            layout,
            "pong",
            config.dream,
            EvaluateConfig(temperature=1.0, epsilon=0.0),
            seed=choice["seed"],
            device=device("cpu"),
        )
        played = play_episodes(
            "pong",
            policy,
            3,
            seed=choice["seed"],
            protocol=replace(PROTOCOLS["atari100k"], max_frames=400),
            num_envs=2,
        )
        assert candidate["games"]["pong"]["returns"] == played.returns.tolist()
        steps += int(played.lengths.sum())
    assert choice["agent_steps"] == {"pong": steps}
    evaluation = json.loads((first / "evaluation.json").read_text())
    assert evaluation["games"]["pong"]["agent_steps_choosing"] == steps
    assert evaluation["protocol"]["agent_of_round"] == 0
    assert evaluation["protocol"]["seed"] != choice["seed"]


def test_what_is_made_from_the_chosen_round_says_so(first):
    stages = json.loads((first / "manifest.json").read_text())["stages"]
    for name in ("evaluate", "decoder"):
        assert "rounds/00/encoder.safetensors" in stages[name]["parents"]
        assert "encoder.safetensors" not in stages[name]["parents"]


def test_a_choice_made_again_is_of_what_all_candidates_are_made_of(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy2)
    again = wm("train", "choose", "--run", copy, "--device", "cpu", "--set", "choose.episodes=4")
    assert again.code == 0, again.output
    before, after = (
        json.loads((run / "manifest.json").read_text())["stages"]["choose"]["parents"]
        for run in (first, copy)
    )
    assert after == before
    assert {"agent.safetensors", "rounds/00/agent.safetensors"} <= set(after)


def test_a_run_that_starts_from_a_chosen_agent_counts_all_that_led_to_it(first, tmp_path):
    done = wm("train", "start", "--from", first, "--run", tmp_path / "run", "--device", "cpu")
    assert done.code == 0, done.output
    there, here = (
        json.loads((run / "manifest.json").read_text())["stages"] for run in (first, tmp_path / "run")
    )
    choosing = json.loads((first / "choice.json").read_text())["agent_steps"]["pong"]
    collected = sum(there[name]["metrics"]["pong"]["steps"] for name in ("collect-0", "collect"))
    assert here["start"]["metrics"]["steps"] == {"pong": collected + choosing}


def test_no_command_reads_the_round_that_was_not_chosen(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy2)
    for name in ("encoder", "hrvq", "worldmodel", "agent"):
        (copy / f"{name}.safetensors").unlink()
    for folder in ("tokens", "embeddings"):
        shutil.rmtree(copy / folder)
    on = ("--device", "cpu")
    commands = (
        ("eval", copy, "--episodes", 2, "--max-frames", 400, *on),
        ("eval", copy, "--stage", "worldmodel", *on),
        ("dream", copy, "--horizon", 4, *on),
        ("atlas", copy, *on),
        ("fidelity", copy, "--frames", 240, "--reader-steps", 5, "--windows", 8, *on),
        ("probe", copy, "--frames", 240, "--probe-steps", 20, *on),
    )
    for command in commands:
        done = wm(*command)
        assert done.code == 0, done.output


def test_the_same_command_again_skips_all_and_shows_the_choice(first):
    again = train(first, *SETTINGS)
    assert again.code == 0
    assert again.output.count("up to date, skipped") == 5 * 2 + 3
    shown = wm("show", first)
    assert "choice.json" in shown.output
    assert "agent of round 0 / 1" in shown.output
    assert " for choosing the round: agent of round 0, " in " ".join(shown.output.split())


def test_who_chooses_no_more_has_the_last_rounds_agent(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy2)
    last = wm("train", "--run", copy, "--device", "cpu", "--set", "choose.rounds=1")
    assert last.code == 0, last.output
    assert "agent: up to date, skipped" in last.output
    assert "choose:" not in last.output
    evaluation = json.loads((copy / "evaluation.json").read_text())
    assert evaluation["protocol"]["agent_of_round"] == 1
    assert evaluation["games"]["pong"]["agent_steps_choosing"] == 0


def test_other_games_to_choose_by_leave_the_rounds_alone(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy2)
    more = wm("train", "--run", copy, "--device", "cpu", "--set", "choose.episodes=4")
    assert more.code == 0, more.output
    assert more.output.count("up to date, skipped") == 5 * 2
    assert "choose: done" in more.output
    assert "evaluate: done" in more.output


def test_a_choice_that_is_stopped_goes_on_with_the_next_agent(first, tmp_path, monkeypatch):
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / "choice.json").unlink()
    played = []

    def play(*args, **options):
        if len(played) == 1:
            played.append("stopped")
            raise KeyboardInterrupt
        played.append(options["task"])
        return play_whole_games(*args, **options)

    monkeypatch.setattr(choose, "play_whole_games", play)
    stopped = wm("train", "choose", "--run", copy, "--device", "cpu")
    assert stopped.code == 130
    assert not (copy / "choice.json").exists()
    done = wm("train", "choose", "--run", copy, "--device", "cpu")
    assert done.code == 0, done.output
    assert played == ["choose pong (round 0)", "stopped", "choose pong (round 1)"]
    assert not list((copy / "checkpoints").glob("choose*"))
    before, after = (json.loads((where / "choice.json").read_text()) for where in (first, copy))
    assert after["candidates"] == before["candidates"]


def test_a_run_that_has_not_chosen_says_whose_parts_are_read(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy2)
    dream = ("dream", copy, "--horizon", 2, "--device", "cpu", "--recorded")
    said = "no round is chosen yet, so the last one's parts are used; `wm train"
    assert said not in " ".join(wm(*dream).output.split())
    (copy / "choice.json").write_text("{")
    assert wm(*dream).code == 2
    of_a_round = wm(*dream, "--round", 0)  # which no choice has a say in
    assert of_a_round.code == 0, of_a_round.output
    (copy / "choice.json").unlink()
    of_the_last = wm(*dream)
    assert of_the_last.code == 0, of_the_last.output
    assert said in " ".join(of_the_last.output.split())


def test_an_older_choice_counts_for_a_run_that_starts_from_it(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copy2)
    choice = json.loads((copy / "choice.json").read_text())
    choice["agent_steps"] = 800  # one number for all games
    (copy / "choice.json").write_text(json.dumps(choice))
    done = wm("train", "start", "--from", copy, "--run", tmp_path / "run", "--device", "cpu")
    assert done.code == 0, done.output
    collected = sum(stages(copy)[name]["metrics"]["pong"]["steps"] for name in ("collect-0", "collect"))
    assert stages(tmp_path / "run")["start"]["metrics"]["steps"] == {"pong": collected + 800}

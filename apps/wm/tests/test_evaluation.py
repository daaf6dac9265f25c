"""What is reported about scores, with made-up episodes."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from atari_data import game_info
from cnn_encoder import Encoder, EncoderConfig, save_encoder
from rich.console import Console
from wm.artifacts import encoded_games
from wm.config import build_config
from wm.measure import evaluation
from wm.measure.evaluation_report import measured_table, print_scores
from wm.opened import RunAtHand
from wm.preset import read_preset
from wm.reporter import Reporter
from wm.rounds import steps_collected
from wm.run import Layout, Manifest, StageRecord


def scored(monkeypatch, returns, lengths, ended=None):
    """The summary of episodes of these returns and lengths, which all ended unless told otherwise."""
    ended = np.ones(len(returns), bool) if ended is None else ended
    episodes = SimpleNamespace(returns=np.array(returns), lengths=np.array(lengths), terminated=ended)
    monkeypatch.setattr(evaluation, "play_episodes", lambda *_, **__: episodes)
    run = RunAtHand(
        build_config({}), Layout(Path()), torch.device("cpu"), Reporter(Console(file=io.StringIO()))
    )
    return evaluation.play_whole_games(run, "pong", None, len(returns), task="play", seed=0, max_frames=100)


@pytest.mark.parametrize(
    ("returns", "lengths", "distinct"),
    [
        ([1.0, 1.0, 1.0, 2.0, 2.0], [7, 7, 7, 7, 7], 2),
        ([1.0, 1.0, 1.0, 2.0, 2.0], [7, 8, 7, 7, 7], 3),
    ],
)
def test_the_same_episodes_over_and_over_are_noted(monkeypatch, returns, lengths, distinct):
    score = scored(monkeypatch, returns, lengths)
    assert score["distinct"] == distinct
    protocol = {
        "name": "atari100k", "sticky": 0.0, "noop_max": 30, "max_frames": 400, "episodes": len(returns),
        "temperature": 0.0, "epsilon": 0.001, "seed": 0, "agent_of_round": 3,
        "agent_steps_choosing": 70,
    }  # fmt: skip
    games = {"pong": {"agent": score, "random": score, "agent_steps_collected": 900}}
    table = measured_table("pong", {"protocol": protocol, "games": games})
    note = "of the agent's 5 episodes only 2 are distinct by return and length; the interval treats all"
    assert (note in table.caption) == (distinct == 2)
    told = (
        "pong, 900 real steps and 70 for choosing the round: agent of round 3, "
        "5 episodes of at most 400 frames"
    )
    assert str(table.title).startswith(told)
    assert "temperature 0.0, epsilon 0.001, seed 0" in str(table.title)
    file = io.StringIO()
    print_scores("pong", {"protocol": protocol, "games": games}, Console(file=file, width=80))
    assert "│ IRIS             │  14.60 │     5 │       6.2 to 19.3 │             1.00 │" in file.getvalue()
    print_scores(
        "skiing", {"protocol": protocol, "games": {"skiing": games["pong"]}}, Console(file=file, width=80)
    )
    info = game_info("skiing")  # outside Atari-100k, but with the scores that normalise
    for name, value in (("Random", info.random_score), ("Human", info.human_score)):
        assert re.search(rf"{name} +│ +{value:.2f} │", file.getvalue())
    old = {name: value for name, value in protocol.items() if name[:5] != "agent" and name != "epsilon"}
    games["pong"].pop("agent_steps_collected")
    title = str(measured_table("pong", {"protocol": old, "games": games}).title)
    assert title.startswith("pong: 5 episodes")
    alone = {"agent": scored(monkeypatch, [3.0], [7]), "random": scored(monkeypatch, [1.0], [7])}
    table = measured_table("pong", {"protocol": old | {"episodes": 1}, "games": {"pong": alone}})
    assert str(table.title).startswith("pong: 1 episode of at most")
    # of one number there is neither interval nor deviation
    assert [list(column.cells) for column in table.columns[2:5]] == [["", ""], ["3.0", "1.0"], ["", ""]]


def test_episodes_that_the_limit_cut_are_counted(monkeypatch):
    ended = np.array([True, False, True])
    score = scored(monkeypatch, [1.0, 2.0, 6.0], [7, 8, 9], ended)
    assert (score["cut"], score["lengths"], score["mean"]) == (1, [7, 8, 9], 3.0)


def test_steps_are_those_that_were_played_in_each_game(tmp_path):
    manifest = Manifest(Layout(tmp_path))
    config = build_config(
        read_preset("tiny"), {"collect": {"num_steps": 900}, "rounds": {"count": 2, "first_steps": 600}}
    )
    played = {"collect-0": {"pong": 600, "qbert": 60}, "collect": {"pong": 300}}
    # Left by a run that had more rounds; what it played is no longer there.
    for stage, steps in (played | {"collect-2": {"pong": 5000}}).items():
        metrics = {game: {"steps": count} for game, count in steps.items()} | {"peak_memory_gib": 0.1}
        manifest.record(stage, StageRecord("f", {}, {}, metrics))
    manifest.record("encoder", StageRecord("f", {}, {}, {"pong": {"steps": 5}}))
    manifest.begin("collect")  # what a stopped stage had played, the agent has learned from
    assert steps_collected(config, Layout(tmp_path, 0), 1) == {"pong": 900, "qbert": 60}
    assert steps_collected(config, Layout(tmp_path, 0), 0) == {"pong": 600, "qbert": 60}


def test_games_the_encoder_has_not_seen_are_left_out_and_named(tmp_path):
    layout, said = Layout(tmp_path), []
    save_encoder(layout.encoder, Encoder(EncoderConfig()), {"pong": torch.zeros(84, 84)})
    assert encoded_games(layout, ["pong"], said.append) == ["pong"]
    assert encoded_games(layout, [], said.append) == []
    assert said == []
    assert encoded_games(layout, ["qbert", "pong"], said.append) == ["pong"]
    assert said == [f"skipped, not trained on yet: qbert; run `wm train --run {tmp_path}` first"]
    with pytest.raises(ValueError, match="not trained on yet: qbert"):
        encoded_games(layout, ["qbert"], said.append)


def test_temperature_and_epsilon_reach_the_policy(monkeypatch, tmp_path):
    asked = {}

    def policy_of(layout, game, dream, play, *, seed, device):
        asked.update(temperature=play.temperature, epsilon=play.epsilon, seed=seed)
        return lambda obs, env_ids: np.zeros(len(obs), np.int64)

    monkeypatch.setattr(evaluation, "policy_of", policy_of)
    monkeypatch.setattr(evaluation, "encoded_games", lambda layout, games, say: games)
    play = {"episodes": 1, "temperature": 0.25, "epsilon": 0.125, "num_envs": 1, "max_frames": 100}
    config = build_config(read_preset("tiny"), {"evaluate": play})
    reporter = Reporter(Console(file=io.StringIO()))
    result = evaluation.evaluate_games(
        RunAtHand(config, Layout(tmp_path), torch.device("cpu"), reporter), seed=3
    )
    assert (asked["temperature"], asked["epsilon"], asked["seed"]) == (0.25, 0.125, 3)
    assert (result["protocol"]["temperature"], result["protocol"]["epsilon"]) == (0.25, 0.125)


def test_the_agent_plays_and_a_random_one_and_the_agents_mean_is_normalised(monkeypatch, tmp_path):
    played = {}

    def play(run, game, policy, episodes, *, task, **_):
        played[task] = type(policy).__name__
        return {"mean": 14.6, "median": -20.7} if "agent" in task else {"mean": -20.7, "median": 14.6}

    monkeypatch.setattr(evaluation, "play_whole_games", play)
    monkeypatch.setattr(evaluation, "policy_of", lambda *_, **__: None)
    monkeypatch.setattr(evaluation, "encoded_games", lambda layout, games, say: games)
    config, reporter = build_config(read_preset("tiny")), Reporter(Console(file=io.StringIO()))
    run = RunAtHand(config, Layout(tmp_path), torch.device("cpu"), reporter)
    found = evaluation.evaluate_games(run, seed=3)["games"]["pong"]
    assert played == {"play pong (agent)": "RecordedPolicy", "play pong (random)": "RandomPolicy"}
    assert found["human_normalized"] == 1.0  # 14.6 is a human's score

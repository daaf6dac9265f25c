"""What is said of scores, by episodes made up."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from atari_data import Protocol
from rich.console import Console
from wm import evaluation
from wm.config import build_config, read_preset
from wm.reporter import Reporter
from wm.run import Layout


def scored(monkeypatch, returns, lengths):
    """The summary of episodes of these returns and lengths."""
    ended = np.ones(len(returns), bool)
    episodes = SimpleNamespace(returns=np.array(returns), lengths=np.array(lengths), terminated=ended)
    monkeypatch.setattr(evaluation, "play_episodes", lambda *_, **__: episodes)
    return evaluation.play_whole_games(
        "pong", None, len(returns), task="play", seed=0, protocol=Protocol(), num_envs=1,
        device=torch.device("cpu"), reporter=Reporter(Console(file=io.StringIO())),
    )  # fmt: skip


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
        "agent_steps_collected": 900, "agent_steps_choosing": 70,
    }  # fmt: skip
    games = {"pong": {"agent": score, "random": score}}
    table = evaluation.score_table("pong", {"protocol": protocol, "games": games})
    note = "of the agent's 5 episodes only 2 are distinct by return and length; the interval takes all"
    assert (note in table.caption) == (distinct == 2)
    told = "pong, 900 real steps and 70 to choose by: agent of round 3, 5 episodes of at most 400 frames"
    assert str(table.title).startswith(told)
    assert "temperature 0.0, epsilon 0.001, seed 0" in str(table.title)
    names = list(table.columns[0].cells)
    assert {"Human (published)", "IRIS (published, 100k)"} <= set(names)
    old = {name: value for name, value in protocol.items() if name[:5] != "agent" and name != "epsilon"}
    title = str(evaluation.score_table("pong", {"protocol": old, "games": games}).title)
    assert title.startswith("pong: 5 episodes")


def test_temperature_and_epsilon_reach_the_policy(monkeypatch, tmp_path):
    asked = {}

    def load_policy(layout, game, dream, **how):
        asked.update(how)
        return lambda obs, env_ids: np.zeros(len(obs), np.int64)

    monkeypatch.setattr(evaluation, "load_policy", load_policy)
    config = build_config(read_preset("tiny"), {"evaluate": {"num_envs": 1}})
    result = evaluation.evaluate_games(
        Layout(tmp_path), config, episodes=1, temperature=0.25, epsilon=0.125, seed=3, max_frames=100,
        device=torch.device("cpu"), reporter=Reporter(Console(file=io.StringIO())),
    )  # fmt: skip
    assert (asked["temperature"], asked["epsilon"], asked["seed"]) == (0.25, 0.125, 3)
    assert (result["protocol"]["temperature"], result["protocol"]["epsilon"]) == (0.25, 0.125)

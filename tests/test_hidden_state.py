"""An agent that sees the world model's state besides the tokens: in dreams, and in the real game."""

import numpy as np
import pytest
import torch
from atari_data import PROTOCOLS, environment_seeds, play
from cnn_encoder import embed
from command import options, train, wm
from latent_ac import load_agent
from wm.artifacts import frozen_worldmodel
from wm.config import load_config
from wm.policy import policy_of
from wm.run import Layout
from wm.sections import EvaluateConfig

CPU = torch.device("cpu")
STEPS = 40


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A run of two rounds: its agent dreams, collects, dreams on and is evaluated. Read, never write."""
    directory = tmp_path_factory.mktemp("seeing") / "run"
    settings = (
        "dream.hidden_state=true",
        "collect.num_steps=900",
        "rounds.count=2",
        "rounds.first_steps=600",
        "rounds.worldmodel_steps=3",
        "rounds.predictor_steps=3",
        "rounds.agent_steps=4",
    )
    result = train(directory, *options(settings))
    assert result.code == 0, result.output
    return directory


def test_actor_and_critic_see_it_and_the_predictors_do_not(seeing):
    config = load_config(seeing / "config.toml")
    agent = load_agent(seeing / "agent.safetensors")
    codes = config.hrvq.levels * config.encoder.embedding_dim
    assert agent.actor.config.feature_dim == agent.critic.config.feature_dim == codes + config.worldmodel.dim
    assert agent.reward.config.feature_dim == codes


def test_it_is_evaluated_and_watched(seeing, tmp_path):
    for name, *arguments in (
        ("eval", "--episodes", 2, "--max-frames", 400, "--video"),
        ("dream", "--out", tmp_path / "dream.gif", "--horizon", 30),
        ("fidelity", "--horizon", 3, "--frames", 240, "--reader-steps", 5, "--windows", 8),
    ):
        result = wm(name, seeing, *arguments, "--device", "cpu")
        assert result.code == 0, result.output


class Noted:
    """A memory that keeps what went through it, by group of plays."""

    def __init__(self, memory):
        self.memory, self.states, self.actions = memory, {0: [], 2: []}, {0: [], 2: []}

    def observe(self, env_ids, observations, tokens):
        state = self.memory.observe(env_ids, observations, tokens)
        self.states[int(env_ids[0])].append(state)
        return state

    def act(self, env_ids, actions):
        self.memory.act(env_ids, actions)
        self.actions[int(env_ids[0])].append(actions)


@torch.no_grad()
def test_in_the_real_game_the_state_is_that_of_the_last_steps_as_played(seeing):
    layout, config = Layout(seeing), load_config(seeing / "config.toml")
    policy = policy_of(
        layout, "pong", config.dream, EvaluateConfig(temperature=1.0, epsilon=0.5), seed=0, device=CPU
    )
    policy.memory = noted = Noted(policy.memory)
    tokens = {0: [], 2: []}
    ticks = play("pong", policy, seeds=environment_seeds(0, 4), protocol=PROTOCOLS["atari100k"])
    for _, tick in zip(range(2 * STEPS), ticks, strict=False):
        group = int(tick.env_ids[0])
        embeddings = embed(policy.encoder, tick.observations, policy.background)
        tokens[group].append(policy.quantizer.encode(embeddings))
        # Exploring is part of what was played: the world model hears of the action really taken.
        np.testing.assert_array_equal(tick.actions, noted.actions[group][-1].numpy())
    model, memory = frozen_worldmodel(layout, CPU), config.dream.memory
    for group, observed in tokens.items():
        seen, taken = torch.stack(observed, 1), torch.stack(noted.actions[group], 1)
        for step in (0, 1, memory - 1, memory, STEPS - 1):
            window = slice(max(0, step - memory + 1), step + 1)
            expected = model(seen[:, window], taken[:, window]).state[:, -1] / config.worldmodel.dim**0.5
            torch.testing.assert_close(noted.states[group][step], expected, rtol=0, atol=1e-5)

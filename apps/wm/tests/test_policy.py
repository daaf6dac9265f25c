"""How the run's policy chooses, worked out by hand: its preferences among actions are made up."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from latent_ac import CodePolicy, action_mask
from token_worldmodel import WorldModel, WorldModelConfig
from wm import policy
from wm.policy import Memory, RunPolicy
from wm.sections import DreamConfig

PLAYS = 20_000


@pytest.fixture
def frequencies(monkeypatch):
    """How often each of the 18 actions is chosen; 0 and 3 are the game's, with odds of 1 to 4."""
    monkeypatch.setattr(policy, "embed", lambda encoder, obs, background: torch.zeros(len(obs), 4))
    logits = torch.full((18,), 99.0)
    logits[0], logits[3] = 0.0, np.log(4.0)

    def measure(*, temperature, epsilon):
        chooses = RunPolicy(
            encoder=None,
            quantizer=SimpleNamespace(encode=lambda embeddings: torch.zeros(len(embeddings), 2).long()),
            actor=CodePolicy(lambda tokens, state: logits.expand(len(tokens), -1)),
            memory=None,
            background=torch.zeros(84, 84),
            mask=action_mask([0, 3]),
            temperature=temperature,
            epsilon=epsilon,
            rng=torch.Generator().manual_seed(0),
        )
        actions = chooses(np.zeros((PLAYS, 4, 1, 1), np.uint8), np.arange(PLAYS))
        return np.bincount(actions, minlength=18) / PLAYS

    return measure


@pytest.mark.parametrize(
    ("temperature", "epsilon", "best"),
    [
        (1.0, 0.0, 4 / 5),
        (0.5, 0.0, 16 / 17),
        (2.0, 0.0, 2 / 3),
        (0.0, 0.0, 1.0),
        (0.0, 0.2, 0.9),  # half of what is drawn evenly is the best all the same
        (1.0, 1.0, 0.5),
    ],
)
def test_actions_come_as_often_as_temperature_and_epsilon_say(frequencies, temperature, epsilon, best):
    found = frequencies(temperature=temperature, epsilon=epsilon)
    assert found[3] == pytest.approx(best, abs=0.015)
    assert found[0] + found[3] == pytest.approx(1)  # never one that the game does not have


def test_who_is_greedy_leaves_nothing_to_chance(frequencies):
    assert frequencies(temperature=0.0, epsilon=0.0)[3] == 1


def test_a_new_episode_remembers_nothing_of_the_one_before():
    torch.manual_seed(0)
    sizes = {"num_levels": 2, "num_codes": 5, "dim": 16, "num_layers": 1, "num_heads": 2, "max_steps": 8}
    model = WorldModel(WorldModelConfig(**sizes)).eval()
    memory = Memory(model, DreamConfig(context=2, horizon=2, hidden_state=True))

    def state(first, *begins):
        """Of two plays, numbered from ``first``; a frame is before none where an episode begins."""
        observations = np.ones((2, 4, 3, 3), np.uint8)
        observations[np.array(begins), :3] = 0
        env_ids = np.arange(first, first + 2)
        seen = memory.observe(env_ids, observations, torch.tensor([[1, 2], [3, 4]]))
        memory.act(env_ids, torch.tensor([3, 4]))
        return seen

    assert not state(0, True, True).any()
    on = state(0, False, False)
    assert on.any(1).tolist() == [True, True]
    assert torch.linalg.vector_norm(on, dim=1).max() < 2  # about as long as an embedding
    assert not state(2, True, True).any()  # others, who are followed apart
    assert state(0, True, False).any(1).tolist() == [False, True]
    torch.testing.assert_close(state(0, False, False)[0], on[0])  # it is like the first episode


def test_a_memory_asked_of_other_plays_says_what_observations_it_needs():
    sizes = {"num_levels": 2, "num_codes": 5, "dim": 16, "num_layers": 1, "num_heads": 2, "max_steps": 8}
    memory = Memory(
        WorldModel(WorldModelConfig(**sizes)).eval(), DreamConfig(context=2, horizon=2, hidden_state=True)
    )

    def observe(plays, frame_before):
        observations = np.full((plays, 4, 3, 3), frame_before, np.uint8)
        return memory.observe(np.arange(plays), observations, torch.zeros(plays, 2, dtype=torch.int64))

    with pytest.raises(ValueError, match="begin with those of a reset"):
        observe(2, frame_before=1)
    assert not observe(2, frame_before=0).any()  # nothing is left of what was refused
    memory.act(np.arange(2), torch.tensor([3, 4]))
    with pytest.raises(ValueError, match="of 1 games, but this agent has a memory of 2"):
        observe(1, frame_before=1)
    assert observe(2, frame_before=1).any()

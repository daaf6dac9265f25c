"""Batches of imagined play, as the learner receives them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hrvq import HRVQ, HRVQConfig
from latent_ac import (
    ActorConfig,
    Agent,
    AgentConfig,
    CriticConfig,
    PredictorConfig,
    action_mask,
)
from token_worldmodel import TokenBatch, WorldModel, WorldModelConfig
from wm.dreams import Dreamer
from wm.sections import DreamConfig

CPU = torch.device("cpu")
CONTEXT, HORIZON, DREAMS = 3, 4, 6
PPO = AgentConfig(algorithm="ppo", reward_transform="symlog", ppo_minibatches=3)


@pytest.fixture
def dreamer():
    return make(PPO)


def make(learning: AgentConfig, **dream: Any) -> Dreamer:
    """Of a small world and an agent that expects rewards of all sizes."""
    rng = torch.Generator().manual_seed(0)
    quantizer = HRVQ(HRVQConfig(dim=5, levels=2, codes=7))
    quantizer.set_codebooks([torch.randn(7, 5, generator=rng) for _ in range(2)])
    sizes = {"feature_dim": 10 + 16 * dream.get("hidden_state", False), "hidden": (16,)}
    agent = Agent(
        ActorConfig(**sizes, output_gain=2.0),
        CriticConfig(**sizes),
        PredictorConfig(feature_dim=10, hidden=(16,), reward_head="two_hot"),
        generator=rng,
    )
    torch.nn.init.normal_(agent.reward.output.weight, std=3.0, generator=rng)
    torch.manual_seed(0)
    model = WorldModel(
        WorldModelConfig(num_levels=2, num_codes=7, dim=16, num_layers=1, num_heads=2, max_steps=8)
    )
    unused = torch.zeros(DREAMS, CONTEXT + 1)
    window = TokenBatch(
        tokens=torch.randint(7, (DREAMS, CONTEXT + 1, 2), generator=rng),
        actions=torch.randint(18, (DREAMS, CONTEXT + 1), generator=rng),
        rewards=unused,
        terminated=unused.bool(),
        truncated=unused.bool(),
        final=unused.bool(),
        lives=unused.long(),
        game_index=torch.tensor([0, 1, 0, 1, 1, 0]),
    )
    return Dreamer(
        model=model.eval(),
        quantizer=quantizer,
        agent=agent,
        masks=torch.stack([action_mask([0, 3]), action_mask([1, 4, 5])]),
        contexts=SimpleNamespace(batch=lambda index: window),
        config=DreamConfig(context=CONTEXT, horizon=HORIZON, **dream),
        learning=learning,
        seed=0,
        first_batch=0,
        precision="float32",
    )


def test_rewards_are_transformed_once_inside_the_expectation(dreamer):
    dream = dreamer.dream(0)
    now, after = dream.features[:-1], dream.features[1:]
    inside = dreamer.agent.reward(now, dream.actions, after, transform="symlog")
    torch.testing.assert_close(dream.rewards, inside)
    assert not torch.allclose(inside, dreamer.agent.reward(now, dream.actions, after))
    assert dreamer.learner.config.reward_transform == "raw"  # it leaves them as they are


@pytest.mark.parametrize("hidden_state", [False, True])
def test_the_learner_is_shown_what_the_policy_saw_when_it_chose(hidden_state: bool):
    dreamer, seen = make(AgentConfig(), hidden_state=hidden_state), []
    on_codes = dreamer.agent.actor.on_codes

    def watched(tables):
        policy = on_codes(tables)

        def act(tokens, mask, *, state, generator):
            actions = policy.act(tokens, mask, state=state, generator=generator)
            seen.append((tokens, state, actions))
            return actions

        return SimpleNamespace(act=act)

    dreamer.agent.actor.on_codes = watched
    dream = dreamer.dream(0)
    assert len(seen) == HORIZON
    for step, (tokens, state, actions) in enumerate(seen):
        assert torch.equal(dream.features.tokens[step], tokens)
        assert torch.equal(dream.actions[step], actions)
        if hidden_state:
            assert torch.equal(dream.features.state[step], state)
        else:
            assert dream.features.state is state is None


def test_the_first_state_is_what_the_world_model_made_of_the_context_as_it_was_played():
    dreamer = make(AgentConfig(), hidden_state=True)
    window = dreamer.contexts.batch(0)
    known = dreamer.model(window.tokens[:, :CONTEXT], window.actions[:, :CONTEXT]).state[:, -1]
    torch.testing.assert_close(dreamer.dream(0).features.state[0], known / 4)  # 4 is the root of its width


def test_a_dream_begins_where_its_context_ends_and_plays_each_games_actions(dreamer):
    dream = dreamer.dream(0)
    window = dreamer.contexts.batch(0)
    assert dream.actions.shape == (HORIZON, DREAMS)
    assert torch.equal(dream.features[0].tokens, window.tokens[:, CONTEXT - 1])
    allowed = dreamer.masks[window.game_index]
    assert torch.equal(dream.action_mask, allowed)
    assert allowed.expand(HORIZON, -1, -1).gather(-1, dream.actions[..., None]).all()


def test_practice_begins_at_the_policy_that_dreamed(dreamer):
    """The probability kept with each action is the one the learner's first step finds: a ratio of 1."""
    metrics = dreamer.learner(dreamer.batch(0))[1]
    assert abs(float(metrics["approx_kl"])) < 1e-6
    assert metrics["clip_fraction"] == 0


def test_a_dream_is_a_function_of_its_index(dreamer):
    first, again, other = (dreamer.dream(index) for index in (0, 0, 1))
    assert torch.equal(first.actions, again.actions)
    assert torch.equal(first.features.tokens, again.features.tokens)
    assert not torch.equal(first.features.tokens, other.features.tokens)


@pytest.mark.parametrize(("temperature", "same"), [(1.0, False), (1e-6, True), (0.0, True)])
def test_dreams_follow_the_temperature(temperature, same):
    """At 0 and near it a dream whose policy is sure of itself is the same, whatever is drawn."""
    dreamer = make(PPO, temperature=temperature)
    sure = dreamer.agent.actor.mlp.output
    torch.nn.init.zeros_(sure.weight)
    with torch.no_grad():
        sure.bias.copy_(torch.arange(18.0) * 100)
    assert torch.equal(*(dreamer.dream(index).features.tokens for index in range(2))) == same


def test_a_dream_is_learned_from_until_its_parts_are_used_up(dreamer):
    """Then comes the next one, from contexts and with numbers of the round's own."""
    asked, window = [], dreamer.contexts.batch(0)
    dreamer.contexts = SimpleNamespace(batch=lambda index: asked.append(index) or window)
    dreamer.first_batch = 7 << 32
    parts = dreamer.learner.steps_per_batch
    assert parts > 1
    for step in range(parts + 1):
        dreamer.batch(step)
    assert asked == [7 << 32, (7 << 32) + parts]


def test_every_dream_is_cut_in_its_own_way(dreamer, monkeypatch):
    dream, parts = dreamer.dream(0), dreamer.learner.steps_per_batch
    monkeypatch.setattr(dreamer, "dream", lambda index: dream)
    cuts = [[dreamer.batch(first + part).actions for part in range(parts)] for first in (0, parts, 0)]
    same = [all(map(torch.equal, cuts[0], other)) for other in cuts[1:]]
    assert same == [False, True]

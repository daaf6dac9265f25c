import pickle
from dataclasses import replace

import pytest
import torch
from latent_ac import (
    ActorConfig,
    ActorCriticObjective,
    Agent,
    AgentConfig,
    CodeFeatures,
    CriticConfig,
    ImaginedBatch,
    PredictorConfig,
    PredictorObjective,
    TransitionBatch,
    action_mask,
)

H, B = 5, 7
WIDTHS = (4, 4, 4)
MASK = action_mask([0, 1, 5])


def agent(blocks: tuple[int, ...] = (), hidden: tuple[int, ...] = (16, 8), state: int = 0) -> Agent:
    """Actor and critic over codes and, after them, a state of that width; predictors over the codes."""
    seen = {"feature_dim": 12 + state, "feature_blocks": (*blocks, state) if blocks and state else blocks}
    made = Agent(
        ActorConfig(**seen, hidden=hidden, output_gain=1.0),
        CriticConfig(**seen, hidden=hidden, num_bins=11, limit=2.0),
        PredictorConfig(feature_dim=12, feature_blocks=blocks, hidden=(16,)),
        generator=torch.Generator().manual_seed(0),
    )
    for layer in (made.critic.mlp.output, made.reward.output, made.continue_.output):
        torch.nn.init.normal_(layer.weight)  # they begin at zero, where all features are the same,
    for parameter in made.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter)  # as biases do, where leaving them out is
    return made


def code_features(seed: int = 0, state: int = 0) -> CodeFeatures:
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.randn(size, 4, generator=generator) for size in (9, 5, 7)]
    tokens = [torch.randint(0, len(table), (H + 1, B), generator=generator) for table in tables]
    follows = torch.randn(H + 1, B, state, generator=generator) if state else None
    return CodeFeatures(torch.stack(tokens, -1), tables, follows)


def test_dense_sets_the_chosen_rows_side_by_side() -> None:
    tables = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0], [6.0], [7.0]])]
    features = CodeFeatures(torch.tensor([[1, 2], [0, 0]]), tables)
    assert features.shape == (2, 3)
    assert features.dense().tolist() == [[3.0, 4.0, 7.0], [1.0, 2.0, 5.0]]
    assert features[:1].dense().tolist() == [[3.0, 4.0, 7.0]]
    features = CodeFeatures(features.tokens, tables, torch.tensor([[8.0], [9.0]]))
    assert features.shape == (2, 4)
    assert features.to("cpu")[1:].dense().tolist() == [[1.0, 2.0, 5.0, 9.0]]
    assert features.codes.shape == (2, 3)


@pytest.mark.parametrize("hidden", [(), (16, 8)])
@pytest.mark.parametrize("blocks", [(), WIDTHS])
@pytest.mark.parametrize("state", [0, 5])
def test_codes_and_vectors_give_the_same_outputs(
    blocks: tuple[int, ...], hidden: tuple[int, ...], state: int
) -> None:
    made, features = agent(blocks, hidden, state), code_features(state=state)
    dense = features.dense()
    torch.testing.assert_close(made.actor(features, MASK), made.actor(dense, MASK))
    torch.testing.assert_close(made.critic(features), made.critic(dense))
    actions = torch.randint(0, 18, (H, B))
    for ours, theirs in zip(made.predict(features, actions), made.predict(dense, actions), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
@pytest.mark.parametrize("state", [0, 5])
def test_codes_and_vectors_give_the_same_training(algorithm: str, state: int) -> None:
    made, features = agent(WIDTHS, state=state), code_features(state=state)
    actions, log_probs = made.actor.act_with_log_prob(features[:-1], MASK)
    config = AgentConfig(algorithm=algorithm, ppo_minibatches=2)
    results = []
    for form in (features, features.dense()):
        module = ActorCriticObjective(made.actor, made.critic, config)
        dream = ImaginedBatch(form, actions, torch.ones(H, B), torch.ones(H, B), MASK, log_probs)
        module.zero_grad()
        parts = module.minibatches(dream, generator=torch.Generator().manual_seed(0))
        loss = torch.stack([module(part)[0] for part in parts]).sum()
        loss.backward()
        results.append((loss, *(p.grad.clone() for p in made.actor.parameters())))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_predictors_train_on_codes() -> None:
    made, features = agent(), code_features()
    actions, ones = torch.zeros(H, B, dtype=torch.int64), torch.ones(H, B)
    objective = PredictorObjective(made.reward, made.continue_)
    losses = [
        objective(TransitionBatch(form[:-1], form[1:], actions, ones, ones))[0]
        for form in (features, features.dense())
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("blocks", [(), WIDTHS])
@pytest.mark.parametrize("state", [0, 5])
def test_policy_on_codes_acts_as_the_actor_does(blocks: tuple[int, ...], state: int) -> None:
    made, features = agent(blocks, state=state), code_features(state=state)
    policy = made.actor.on_codes(features.tables)
    for temperature in (0.0, 0.7):
        draw, again = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
        ours = policy.act(
            features.tokens, MASK, state=features.state, generator=draw, temperature=temperature
        )
        theirs = made.actor.act(features, MASK, generator=again, temperature=temperature)
        assert torch.equal(ours, theirs)


def test_autocast() -> None:
    made, features = agent(), code_features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made.critic.loss(made.critic.outputs(features), torch.ones(H + 1, B)).mean()
        loss.backward()
        chosen = made.actor.on_codes(features.tables).act(features.tokens, MASK, temperature=0)
    assert loss.dtype == torch.float32
    assert MASK[chosen].all()


def test_user_errors() -> None:
    with pytest.raises(ValueError, match="do not fit 3 tables"):
        CodeFeatures(torch.zeros(4, 2, dtype=torch.int64), code_features().tables)
    with pytest.raises(ValueError, match=r"not the widths \(4, 4, 4\)"):
        agent((8, 4)).actor(code_features(), MASK)
    with pytest.raises(ValueError, match=r"state \(4, 5\) does not fit tokens \(3, 3\)"):
        CodeFeatures(torch.zeros(3, 3, dtype=torch.int64), code_features().tables, torch.zeros(4, 5))
    made, features = agent(state=5), code_features(state=4)
    with pytest.raises(ValueError, match=r"12 wide in codes and 4 in state; .* feature_dim = 17"):
        made.actor(features, MASK)
    with pytest.raises(ValueError, match="12 wide in codes and 0 in state"):
        made.actor.on_codes(features.tables).act(features.tokens, MASK)
    with pytest.raises(ValueError, match=r"\(4, 4, 4, 5\) do not end in the width 4 of the state"):
        agent(WIDTHS, state=5).actor(features, MASK)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32])
def test_tokens_are_int64_of_every_level(dtype: torch.dtype) -> None:
    made, features = agent(), code_features()
    policy = made.actor.on_codes(features.tables)
    few = replace(features[0], tokens=features.tokens[0].to(dtype))
    for seen in (few, replace(features, tokens=features.tokens.to(dtype))):
        with pytest.raises(ValueError, match=f"tokens are {dtype} .*; give int64"):
            made.critic(seen)
    with pytest.raises(ValueError, match=f"tokens are {dtype} .*; give int64"):
        policy.act(few.tokens, MASK)
    with pytest.raises(ValueError, match=r"of shape \(3, 4\); give int64 \(..., 3\)"):
        policy.act(torch.zeros(3, 4, dtype=torch.int64), MASK)  # a level too many


@pytest.mark.parametrize("blocks", [(), WIDTHS, (4, 8)])
def test_features_of_another_width(blocks: tuple[int, ...]) -> None:
    made = agent(blocks)
    vectors, actions = torch.zeros(H + 1, B, 11), torch.zeros(H, B, dtype=torch.int64)
    for use in (lambda: made.actor(vectors, MASK), lambda: made.predict(vectors, actions)):
        with pytest.raises(ValueError, match=r"the features are 11 wide; give .*12"):
            use()


def test_tables_of_another_width() -> None:
    made, tokens = agent(), torch.zeros(30, 3, dtype=torch.int64)
    wide = [torch.zeros(4, 5)] * 3
    for seen in (CodeFeatures(tokens, wide), CodeFeatures(tokens[:5], wide)):
        with pytest.raises(ValueError, match=r"15 wide.*feature_dim = 12"):
            made.critic(seen)
    with pytest.raises(ValueError, match=r"15 wide.*feature_dim = 12"):
        made.actor.on_codes(wide)


@pytest.mark.parametrize("state", [0, 5])
def test_a_policy_on_codes_is_that_of_the_moment_it_was_made(state: int) -> None:
    made, features = agent(state=state), code_features(state=state)
    policy = pickle.loads(pickle.dumps(made.actor.on_codes(features.tables)))
    before = made.actor(features, MASK)
    with torch.no_grad():
        for parameter in made.actor.parameters():
            parameter.add_(torch.randn_like(parameter))
    kept = policy.outputs(features.tokens, features.state)[..., MASK]
    torch.testing.assert_close(kept, before[..., MASK])
    assert not torch.allclose(kept, made.actor(features, MASK)[..., MASK])


def test_few_states_and_many_take_other_ways_to_the_same_outputs() -> None:
    made, features = agent(), code_features()
    assert features.tokens[..., 0].numel() > 21  # as many as there are codes
    whole = made.critic(features)
    torch.testing.assert_close(torch.stack([made.critic(features[0, b]) for b in range(B)]), whole[0])
    torch.testing.assert_close(made.critic(features.to("cpu")[:1]), whole[:1])


@pytest.mark.parametrize("state", [0, 5])
def test_of_no_states_a_policy_on_codes_chooses_no_actions_as_the_actor_does(state: int) -> None:
    made, features = agent(state=state), code_features(state=state)[:, :0]
    chosen = made.actor.on_codes(features.tables).act(features.tokens, MASK, state=features.state)
    assert chosen.shape == made.actor.act(features, MASK).shape == (H + 1, 0)
    assert chosen.dtype == torch.int64


@pytest.mark.parametrize("token", [-1, 9])
def test_a_token_beyond_its_table_is_not_a_row_of_the_next_one(token: int) -> None:
    made, features = agent(), code_features()
    features.tokens[3, 2, 0] = token
    low, high = min(token, 0), max(token, 8)
    message = f"tokens of level 0 range from {low} to {high}; its table has rows 0 to 8"
    with pytest.raises(ValueError, match=message):
        made.critic(features)
    for few in (features[3], features[3, 2]):  # other tokens are least and largest here
        with pytest.raises(ValueError, match=rf"tokens of level 0 range from .*{token}.*; its table"):
            made.critic(few)
    with pytest.raises(ValueError, match=message):
        made.actor.on_codes(features.tables).act(features.tokens, MASK, temperature=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_agent_of_another_dtype_works(dtype: torch.dtype) -> None:
    made, features = agent().to(dtype), code_features()
    actions = torch.zeros(H, B, dtype=torch.int64)
    rewards, continues = made.predict(features, actions)
    assert rewards.isfinite().all()
    assert continues.isfinite().all()
    objective = ActorCriticObjective(made.actor, made.critic, AgentConfig()).to(dtype)
    loss, _ = objective(ImaginedBatch(features, actions, rewards, continues, MASK))
    loss.backward()
    objective.after_step()
    assert objective.normalizer.percentiles.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("blocks", [(), WIDTHS])
@pytest.mark.parametrize("state", [0, 5])
def test_codes_and_state_of_another_dtype_are_taken_to_the_weights(
    dtype: torch.dtype, blocks: tuple[int, ...], state: int
) -> None:
    """By few states as by many: either takes another way through the first layer."""
    made, features = agent(blocks, state=state), code_features(state=state)
    follows = None if features.state is None else features.state.to(dtype)
    cast = CodeFeatures(features.tokens, [table.to(dtype) for table in features.tables], follows)
    whole = made.critic.outputs(cast)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(made.critic.outputs(cast[2, :3]), whole[2, :3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole, made.critic.outputs(features), atol=0.1, rtol=0)
    policy = made.actor.on_codes(cast.tables)
    seen = made.actor(cast, MASK)[..., MASK]
    torch.testing.assert_close(policy.outputs(cast.tokens, cast.state)[..., MASK], seen)
    torch.testing.assert_close(seen, made.actor(features, MASK)[..., MASK], atol=0.1, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("blocks", [(), WIDTHS, (4, 8)])
def test_vectors_of_another_dtype_are_taken_to_the_weights(
    dtype: torch.dtype, blocks: tuple[int, ...]
) -> None:
    made, vectors = agent(blocks), code_features().dense()
    actions, ones = torch.zeros(H, B, dtype=torch.int64), torch.ones(H, B)
    objective = ActorCriticObjective(made.actor, made.critic, AgentConfig())
    predicting = PredictorObjective(made.reward, made.continue_)

    def said(features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            made.actor(features, MASK)[..., MASK],
            made.critic(features),
            *made.predict(features, actions),
            objective(ImaginedBatch(features, actions, ones, ones, MASK))[0],
            predicting(TransitionBatch(features[:-1], features[1:], actions, ones, ones))[0],
        )

    for ours, exact in zip(said(vectors.to(dtype)), said(vectors), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, exact, atol=0.1, rtol=0.01)


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
@pytest.mark.parametrize("codes", [True, False])
def test_no_gradient_reaches_the_features(algorithm: str, codes: bool) -> None:
    """Every minibatch is stepped on, though all of them come from features made once."""
    made, features = agent(state=5), code_features(state=5)
    weight = torch.ones((), requires_grad=True)
    features = replace(
        features, tables=[table * weight for table in features.tables], state=features.state * weight
    )
    seen = features if codes else features.dense()
    actions, log_probs = made.actor.act_with_log_prob(seen[:-1], MASK)
    module = ActorCriticObjective(made.actor, made.critic, AgentConfig(algorithm=algorithm))
    dream = ImaginedBatch(seen, actions, torch.ones(H, B), torch.ones(H, B), MASK, log_probs)
    for part in module.minibatches(dream):
        module(part)[0].backward()
    assert weight.grad is None
    assert all(p.grad is not None for p in (*made.actor.parameters(), *made.critic.parameters()))


@pytest.mark.parametrize("shape", [(B,), (1, B), (H, 1), ()])
def test_predictions_are_of_whole_trajectories(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"give \(H\+1, B, F\) and \(H, B\)"):
        agent().predict(code_features(), torch.zeros(shape, dtype=torch.int64))


def test_a_policy_on_codes_needs_no_copying_to_stay_as_it_was() -> None:
    made, features = agent(), code_features()
    policy = made.actor.on_codes(features.tables)
    before = policy.outputs(features.tokens)
    with torch.no_grad():
        for parameter in made.actor.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(policy.outputs(features.tokens), before)


def test_levels_are_added_up_in_the_weights_precision() -> None:
    made, features = agent(), code_features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.critic.mlp.hidden[0].project(features.tables).dtype == torch.float32

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_ac import (
    Actor,
    ActorConfig,
    Agent,
    AgentConfig,
    Critic,
    CriticConfig,
    PredictorConfig,
    ReturnNormalizer,
    action_mask,
    load_agent,
    save_agent,
)

SIZES = {"feature_dim": 6, "hidden": (8, 4), "feature_blocks": (4, 2)}


def agent(seed: int = 0) -> Agent:
    return Agent(
        ActorConfig(**SIZES, num_actions=5),
        CriticConfig(**SIZES, head="normal"),
        PredictorConfig(**SIZES, num_actions=5, reward_head="two_hot", num_bins=11, limit=3.0),
        generator=torch.Generator().manual_seed(seed),
    )


def test_round_trip_keeps_every_weight_and_setting(tmp_path: Path) -> None:
    made = agent()
    made.reward.set_class_frequencies(torch.tensor([1.0, 90.0, 9.0]))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1)
    path = tmp_path / "deep" / "agent.safetensors"
    save_agent(path, made)
    read = load_agent(path)
    assert made.training
    assert not any(module.training for module in read.modules())
    for part in ("actor", "critic", "reward", "continue_"):
        assert getattr(read, part).config == getattr(made, part).config
    features, actions = torch.randn(4, 3, 6), torch.randint(0, 5, (3, 3))
    for ours, theirs in zip(made.predict(features, actions), read.predict(features, actions), strict=True):
        assert torch.equal(ours, theirs)
    mask = action_mask([0, 4], 5)
    assert torch.equal(made.actor(features, mask), read.actor(features, mask))
    assert torch.equal(made.critic(features), read.critic(features))


def test_the_programs_default_dtype_rounds_nothing(tmp_path: Path) -> None:
    made, path = agent(), tmp_path / "agent.safetensors"
    save_agent(path, made)
    torch.set_default_dtype(torch.bfloat16)
    try:
        read, normalizer = load_agent(path), ReturnNormalizer()
    finally:
        torch.set_default_dtype(torch.float32)
    expected = made.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.state_dict().items())
    assert all(tensor.dtype == torch.float32 for tensor in normalizer.buffers())


def test_new_networks_are_where_the_program_makes_its_tensors() -> None:
    with torch.device("meta"):
        made = Actor(ActorConfig(**SIZES)), Critic(CriticConfig(**SIZES))
    assert {t.device.type for network in made for t in network.state_dict().values()} == {"meta"}


def test_same_seed_same_file_and_the_global_generator_is_not_touched(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_agent(tmp_path / name, agent(seed))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_predict_takes_whole_trajectories() -> None:
    made = agent()
    torch.nn.init.normal_(made.reward.output.weight)
    features, actions = torch.randn(4, 3, 6), torch.randint(0, 5, (3, 3))
    rewards, continues = made.predict(features, actions)
    for t in range(3):
        step = made.reward(features[t], actions[t], features[t + 1])
        torch.testing.assert_close(rewards[t], step, atol=1e-4, rtol=1e-4)
    clipped, same = made.predict(features, actions, transform="clip")
    inside = made.reward(features[:-1], actions, features[1:], transform="clip")
    torch.testing.assert_close(clipped, inside, atol=1e-4, rtol=1e-4)
    assert torch.equal(same, continues)
    assert ((continues >= 0) & (continues <= 1)).all()


def test_files_that_make_no_agent(tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    with pytest.raises(ValueError, match="does not exist"):
        load_agent(path)
    save_agent(path, agent())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_agent(path)
    path.write_bytes(whole.replace(b'num_bins\\":11', b'num_bins\\":13'))
    with pytest.raises(ValueError, match="does not hold the weights its settings describe"):
        load_agent(path)
    path.write_bytes(whole.replace(b'num_bins\\":11', b'num_binz\\":11'))
    with pytest.raises(ValueError, match=r"does not understand .*num_binz"):
        load_agent(path)


def test_configurations_that_disagree() -> None:
    with pytest.raises(ValueError, match=r"\(6, 7, 6\); give actor and critic the same"):
        Agent(ActorConfig(feature_dim=6), CriticConfig(feature_dim=7), PredictorConfig(feature_dim=6))
    with pytest.raises(ValueError, match=r"\(6, 6, 8\); .* the predictor that or less"):
        Agent(ActorConfig(feature_dim=6), CriticConfig(feature_dim=6), PredictorConfig(feature_dim=8))
    with pytest.raises(ValueError, match="num_actions of actor and predictor are 18 and 4"):
        Agent(ActorConfig(), CriticConfig(), PredictorConfig(num_actions=4))


def test_a_compiled_part_is_kept_as_what_it_is_and_reading_draws_nothing(tmp_path: Path) -> None:
    made = agent()
    save_agent(tmp_path / "a", made)
    made.actor = torch.compile(made.actor)
    save_agent(tmp_path / "b", made)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    state = torch.random.get_rng_state()
    load_agent(tmp_path / "b")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActorConfig(feature_dim=48.5), "feature_dim is 48.5; give a whole number"),
        (lambda: ActorConfig(hidden=(8, 0.5)), "hidden is .*; give a tuple of whole widths"),
        (lambda: PredictorConfig(num_actions=0), "num_actions is 0; give"),
        (lambda: PredictorConfig(num_actions=True), "num_actions is True; give"),
        (lambda: AgentConfig(ppo_epochs=1.5), "ppo_epochs is 1.5; give a whole number"),
        (lambda: CriticConfig(limit=float("nan")), "limit is nan; give"),
        (lambda: ActorConfig(hidden=64), "hidden is 64; give a tuple of whole widths"),
        (lambda: ActorConfig(feature_dim=8, feature_blocks=(4.0, 4.0)), "feature_blocks is .*; give a tuple"),
        (lambda: CriticConfig(num_bins=63.0), "num_bins is 63.0; give an odd number"),
        (lambda: CriticConfig(num_bins=np.int64(64)), "num_bins is .*64.*; give an odd number"),
    ],
)
def test_sizes_are_whole_numbers(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_whole_numbers_of_numpy_are_taken_and_go_into_a_file(tmp_path: Path) -> None:
    count = np.int64(6)  # as gymnasium's Discrete.n is
    config = ActorConfig(feature_dim=count, num_actions=count, hidden=(count,))
    assert json.loads(json.dumps(asdict(config))) == asdict(config) | {"hidden": [6], "feature_blocks": []}
    assert ActorConfig(feature_dim=6, num_actions=6, hidden=(6,)) == config
    for kind in (CriticConfig, PredictorConfig):
        assert json.loads(json.dumps(asdict(kind(num_bins=np.int64(63)))))["num_bins"] == 63


@pytest.mark.parametrize("kind", [ActorConfig, CriticConfig, PredictorConfig])
def test_lists_of_widths_become_tuples(kind: type) -> None:
    read = kind(feature_dim=6, hidden=[8, 4], feature_blocks=[4, 2])
    assert read == kind(**SIZES)
    assert hash(read) == hash(kind(**SIZES))

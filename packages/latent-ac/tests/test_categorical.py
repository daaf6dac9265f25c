import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from latent_ac import Actor, ActorConfig, action_mask, entropy, log_prob, mask_logits
from latent_ac.categorical import log_prob_and_entropy, sample

ALLOWED = [0, 2, 5]


def masked(logits: torch.Tensor) -> torch.Tensor:
    return mask_logits(logits, action_mask(ALLOWED, logits.shape[-1]))


def test_hand_computed() -> None:
    # softmax over the allowed (ln 1, ln 2, ln 5) is (1/8, 2/8, 5/8).
    logits = masked(torch.tensor([0.0, 9.0, math.log(2), 9.0, 9.0, math.log(5)]))
    assert log_prob(logits, torch.tensor(5)).item() == pytest.approx(math.log(5 / 8))
    expected = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    assert entropy(logits).item() == pytest.approx(expected)
    assert log_prob(logits, torch.tensor(1)).item() == -math.inf


def test_agrees_with_torch_distributions_on_the_allowed_actions() -> None:
    raw = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    oracle = torch.distributions.Categorical(logits=raw[..., ALLOWED])
    choice = oracle.sample()
    actions = torch.tensor(ALLOWED)[choice]
    log_probs, entropies = log_prob_and_entropy(masked(raw), actions)
    torch.testing.assert_close(log_probs, oracle.log_prob(choice))
    torch.testing.assert_close(entropies, oracle.entropy())
    torch.testing.assert_close(log_prob(masked(raw), actions), log_probs)
    torch.testing.assert_close(entropy(masked(raw)), entropies)


def test_gradients_are_finite_and_zero_where_disallowed() -> None:
    raw = torch.randn(5, 18, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logits = masked(raw)
    log_probs, entropies = log_prob_and_entropy(logits, torch.full((5,), 2))
    (
        log_probs.sum()
        + entropies.sum()
        + entropy(logits).sum()
        + log_prob(logits, torch.full((5,), 5)).sum()
    ).backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert raw.grad[:, ALLOWED].abs().min() > 0
    assert (raw.grad[:, ~action_mask(ALLOWED)] == 0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_sample_follows_the_softmax_at_its_temperature(temperature: float) -> None:
    logits = masked(torch.tensor([0.0, 5.0, 1.0, 5.0, 5.0, 2.0]))
    draws = sample(
        logits.expand(40_000, 6), generator=torch.Generator().manual_seed(0), temperature=temperature
    )
    shares = torch.bincount(draws, minlength=6) / len(draws)
    torch.testing.assert_close(shares, (logits / temperature).softmax(-1), atol=0.01, rtol=0)
    assert shares[[1, 3, 4]].sum() == 0


def test_what_is_rare_is_drawn_as_rarely_as_its_probability_says() -> None:
    """One draw in 404 and one in 22,027: the tail of the noise is as long as it must be."""
    for odds in (6.0, 10.0):
        logits = torch.tensor([odds, 0.0]).expand(1_000_000, 2)
        rare = int(sample(logits, generator=torch.Generator().manual_seed(0)).sum())
        expected = 1_000_000 / (1 + math.exp(odds))
        assert abs(rare - expected) < 4 * math.sqrt(expected)


def test_actor_acts_within_the_mask_of_each_row() -> None:
    actor = Actor(ActorConfig(feature_dim=6, hidden=(8,), output_gain=3.0))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, 6, generator=generator)
    masks = torch.stack([action_mask([1, 4]), action_mask([17])]).repeat(300, 1)
    drawn = actor.act(features, masks, generator=generator)
    greedy = actor.act(features, masks, temperature=0)
    assert drawn.dtype == torch.int64
    assert set(drawn[0::2].tolist()) == {1, 4}
    assert set(drawn[1::2].tolist()) == {17}
    assert masks.gather(1, greedy[:, None]).all()
    torch.testing.assert_close(greedy, actor(features, masks).argmax(-1))
    cold = actor.act(features, masks, generator=generator, temperature=1e-4)
    assert (cold == greedy).float().mean() > 0.99


def test_a_greedy_choice_draws_nothing_and_takes_the_lowest_of_equals() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert sample(torch.tensor([0.0, 2.0, 2.0]), generator=generator, temperature=0).item() == 1
    assert torch.equal(generator.get_state(), before)


def test_act_with_log_prob_draws_what_act_draws() -> None:
    actor = Actor(ActorConfig(feature_dim=6, hidden=(8,), output_gain=3.0))
    features, mask = torch.randn(7, 3, 6), action_mask(ALLOWED)
    actions, log_probs = actor.act_with_log_prob(features, mask, generator=torch.Generator().manual_seed(3))
    again = actor.act(features, mask, generator=torch.Generator().manual_seed(3))
    assert torch.equal(actions, again)
    torch.testing.assert_close(log_probs, log_prob(actor(features, mask), actions))


def test_policy_starts_near_uniform() -> None:
    actor = Actor(ActorConfig(feature_dim=32, hidden=(16,)))
    logits = actor(torch.randn(50, 32), action_mask(range(6)))
    assert entropy(logits).min() > 0.999 * math.log(6)


def test_feature_blocks_hear_every_level_equally() -> None:
    actor = Actor(ActorConfig(feature_dim=12, hidden=(8,), feature_blocks=(6, 6), output_gain=1.0))
    uneven = Actor(ActorConfig(feature_dim=12, hidden=(8,), feature_blocks=(8, 4), output_gain=1.0))
    features, mask = torch.randn(5, 12), action_mask(range(18))
    smaller_tail = torch.cat((features[:, :8], 0.01 * features[:, 8:]), 1)
    halves = features * torch.tensor([1.0] * 6 + [0.01] * 6)
    torch.testing.assert_close(actor(features, mask), actor(halves, mask), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(uneven(features, mask), uneven(smaller_tail, mask), atol=1e-4, rtol=1e-4)


def test_user_errors() -> None:
    for actions in ([], [18], [-1]):
        with pytest.raises(ValueError, match="one or more ids from 0 to 17"):
            action_mask(actions)
    with pytest.raises(ValueError, match="give a bool tensor"):
        mask_logits(torch.zeros(2, 18), torch.ones(18))
    with pytest.raises(ValueError, match="last dimension is 18"):
        mask_logits(torch.zeros(2, 18), torch.ones(6, dtype=torch.bool))
    actor = Actor(ActorConfig(feature_dim=2))
    with pytest.raises(ValueError, match=r"temperature is 0; give .* at least 1e-6, or use act"):
        actor.act_with_log_prob(torch.zeros(2), action_mask(ALLOWED), temperature=0)
    for wrong in (None, "warm", -1.0):
        with pytest.raises(ValueError, match=rf"temperature is {wrong!r}; give 0 for the greedy choice"):
            sample(torch.zeros(2, 3), generator=None, temperature=wrong)
    with pytest.raises(ValueError, match="feature_blocks"):
        ActorConfig(feature_dim=10, feature_blocks=(4, 4))


@pytest.mark.parametrize(
    ("states", "masks"),
    [
        ((), (3,)),  # three masks for one state would be three states
        ((5,), (3, 1)),
        ((5,), (1, 1)),
        ((5,), (3,)),
        ((5, 3), (5,)),  # one for each step, where the last dimension is the batch's
    ],
)
def test_a_mask_makes_no_more_states_than_there_are(states: tuple[int, ...], masks: tuple[int, ...]) -> None:
    actor = Actor(ActorConfig(feature_dim=6, hidden=(8,), num_actions=4))
    features, mask = torch.zeros(*states, 6), torch.ones(*masks, 4, dtype=torch.bool)
    policy = actor.on_codes([torch.zeros(2, 6)])
    for use in (
        lambda: actor(features, mask),
        lambda: actor.act(features, mask),
        lambda: policy.act(torch.zeros(*states, 1, dtype=torch.int64), mask),
    ):
        with pytest.raises(ValueError, match=r"for 4 actions in states .* for all states or one for each"):
            use()


@pytest.mark.parametrize("masks", [(), (1,), (3,), (1, 3), (5, 1), (5, 3), (1, 1)])
def test_a_mask_is_for_all_states_or_one_for_each(masks: tuple[int, ...]) -> None:
    mask = torch.rand(*masks, 4) < 0.5
    mask[..., 2] = True
    logits = mask_logits(torch.zeros(5, 3, 4), mask)
    assert torch.equal(logits == 0, mask.expand(5, 3, 4))


@pytest.mark.parametrize("kind", [np.array, torch.tensor, iter])
def test_a_mask_is_made_of_any_kind_of_ids(kind: Callable[[list[int]], Iterable[int]]) -> None:
    assert action_mask(kind([5, 2, 2]), 6).tolist() == [False, False, True, False, False, True]


def test_log_probs_are_those_of_the_choice_at_its_temperature() -> None:
    actor = Actor(ActorConfig(feature_dim=4, hidden=(8,), output_gain=1.0))
    features, mask = torch.randn(1, 4).expand(40_000, 4), action_mask([0, 3, 7])
    draw = torch.Generator().manual_seed(0)
    actions, log_probs = actor.act_with_log_prob(features, mask, generator=draw, temperature=0.3)
    for action in (0, 3, 7):
        chosen = actions == action
        assert float(chosen.float().mean()) == pytest.approx(float(log_probs[chosen].exp().mean()), abs=0.01)


@pytest.mark.parametrize("temperature", [math.inf, math.nan, 1e-39, -1.0])
def test_a_temperature_that_would_choose_what_is_forbidden_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="give 0 for the greedy choice, or a finite number of at least 1e-6"):
        sample(mask_logits(torch.zeros(18), action_mask([0])), generator=None, temperature=temperature)


@pytest.mark.parametrize(
    "mask", [torch.tensor([True, False, True]), np.array([True, False, True]), [True, False, True]]
)
def test_a_mask_is_not_taken_for_ids(mask: Iterable[int]) -> None:
    with pytest.raises(ValueError, match="truth values, so a mask already"):
        action_mask(mask, 3)
    with pytest.raises(ValueError, match="actions are 5; give a list of ids, one or more"):
        action_mask(5)
    with pytest.raises(ValueError, match=r"actions are \[1\.0\]; give whole numbers"):
        action_mask([1.0], 3)


def test_a_row_that_allows_nothing_is_refused() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match=r"action_mask of shape \(2, 2\) has a row without any action"):
        mask_logits(torch.zeros(2, 2), mask)


def test_an_actor_is_one_graph() -> None:
    actor = Actor(ActorConfig(feature_dim=4, hidden=(8,)))
    features, mask = torch.randn(3, 4), action_mask([2, 5])
    compiled = torch.compile(actor, backend="eager", fullgraph=True)
    assert torch.equal(compiled(features, mask), actor(features, mask))

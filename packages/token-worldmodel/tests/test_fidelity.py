import math

import pytest
import torch
from token_worldmodel import (
    event_fidelity,
    replay,
    replay_policy,
    token_fidelity,
    useful_horizon,
    value_fidelity,
)


def test_token_agreement_by_hand() -> None:
    # One level; two windows of a last real step and three more.
    real = torch.tensor([[5, 5, 6, 7], [1, 1, 1, 2]])[..., None]
    dreamed = torch.tensor([[5, 5, 6, 0], [1, 1, 1, 1]])[..., None]
    result = token_fidelity(dreamed, real)
    assert result.agreement[:, 0].tolist() == [1.0, 1.0, 0.0]
    assert result.copy_agreement[:, 0].tolist() == [1.0, 0.5, 0.0]
    assert result.changed_agreement[:, 0].isnan().tolist() == [True, False, False]
    assert result.changed_agreement[1:, 0].tolist() == [1.0, 0.0]
    assert result.useful_horizon == (0,)  # at horizon 1 nothing moved and copying is as good


def test_copying_repeats_the_last_real_step_not_the_one_before() -> None:
    real, dreamed = torch.tensor([[3, 4, 3, 3]])[..., None], torch.tensor([[3, 4, 4, 3]])[..., None]
    result = token_fidelity(dreamed, real)
    assert result.agreement[:, 0].tolist() == [1.0, 0.0, 1.0]
    assert result.copy_agreement[:, 0].tolist() == [0.0, 1.0, 1.0]
    assert result.changed_agreement[:, 0].isnan().tolist() == [False, True, True]
    assert result.useful_horizon == (1,)


def test_useful_horizon_ends_at_the_first_that_copying_equals() -> None:
    real = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])[..., None]
    dreamed = torch.tensor([[0, 1, 9, 9, 4], [0, 9, 2, 9, 4]])[..., None]
    assert token_fidelity(dreamed, real).useful_horizon == (2,)
    assert useful_horizon(torch.tensor([[1, 0], [1, 1], [0, 1], [1, 1]]).bool()) == (2, 0)


def test_value_errors_by_hand() -> None:
    real = torch.tensor([[[1.0, 0.0], [2.0, 0.0]], [[3.0, 0.0], [4.0, 0.0]]])
    dreamed = real + torch.tensor([0.5, 1.0])
    last = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    result = value_fidelity(dreamed, real, last)
    assert result.error.tolist() == [[0.5, 1.0], [0.5, 1.0]]
    assert result.copy_error.tolist() == [[1.0, 0.0], [2.0, 0.0]]
    assert result.useful_horizon == (2, 0)
    assert value_fidelity(last[:, None].expand(-1, 2, -1), real, last).useful_horizon == (0, 0)  # a draw


def test_events_by_hand() -> None:
    # Five windows of three steps: it happens in the first three, and in the dreams of 0, 1 (later) and 4.
    real = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]]).bool()
    dreamed = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]]).bool()
    result = event_fidelity(dreamed, real)
    assert result.happened == 3
    assert (result.recall, result.dreamed, result.precision) == pytest.approx((2 / 3, 3 / 5, 2 / 3))


def test_events_that_never_come_have_no_share() -> None:
    never, always = torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    nothing = event_fidelity(always, never)
    assert (nothing.happened, nothing.dreamed, nothing.precision) == (0, 1.0, 0.0)
    assert math.isnan(nothing.recall)
    assert math.isnan(event_fidelity(never, always).precision)


def test_replay_plays_what_was_played(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 9)
    dream = replay(model, tokens, actions, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(dream.actions, actions[:, 3:-1])
    assert dream.tokens.shape == tokens[:, 3:].shape
    torch.testing.assert_close(dream.states[:, 0], model(tokens[:, :4], actions[:, :4]).state[:, 3])
    assert token_fidelity(dream.tokens, tokens[:, 3:]).agreement.shape == (5, 3)


def test_a_replay_that_is_used_up_says_so() -> None:
    policy = replay_policy(torch.arange(4).reshape(2, 2))
    state = torch.zeros(2, 1)
    assert [policy(state, state).tolist() for _ in range(2)] == [[0, 2], [1, 3]]
    with pytest.raises(ValueError, match="all 2 actions are played"):
        policy(state, state)


def test_refuses(make_model, make_window) -> None:
    tokens, actions = make_window(make_model(), 3, 9)
    with pytest.raises(ValueError, match=r"context is 9; give .* a context of 1 to T - 1"):
        replay(make_model(), tokens, actions, 9, generator=None, temperature=0)
    with pytest.raises(ValueError, match=r"tokens have shape \(9,\), actions \(9,\)"):
        replay(make_model(), tokens[0, :, 0], actions[0], 4, generator=None, temperature=0)
    with pytest.raises(ValueError, match="dreamed and real differ at index 0"):
        token_fidelity(tokens + 1, tokens)
    with pytest.raises(ValueError, match=r"dreamed has shape \(3, 8, 3\), real \(3, 9, 3\)"):
        token_fidelity(tokens[:, 1:], tokens)
    with pytest.raises(ValueError, match=r"dreamed has shape \(3, 9, 3\), .* give both as \(B, H\)"):
        event_fidelity(tokens > 0, tokens > 0)
    with pytest.raises(ValueError, match=r"dreamed is torch.int64, real torch.bool; give both as bool"):
        event_fidelity(actions, actions > 0)
    with pytest.raises(ValueError, match=r"last \(3, 9, 3\); give \(B, H, F\) twice and \(B, F\)"):
        value_fidelity(tokens, tokens, tokens)
    with pytest.raises(ValueError, match=r"real \(0, 9, 3\); .* B and H at least 1"):
        token_fidelity(tokens[:0], tokens[:0])
    with pytest.raises(ValueError, match=r"real \(3, 0, 3\), .* each at least 1"):
        value_fidelity(tokens[:, :0], tokens[:, :0], tokens[:, 0])

import pytest
import torch
from token_worldmodel import StateTracker, for_inference, imagine


@pytest.mark.parametrize("context", [1, 2, 4])
@pytest.mark.parametrize("position", ["token", "step"])
def test_states_are_those_of_windows_of_the_last_steps(make_model, make_window, position, context) -> None:
    model = make_model(position=position)
    tokens, actions = make_window(model, 3, 10)
    begins = torch.zeros(10, 3, dtype=torch.bool)
    begins[0] = True
    begins[5, 1] = True  # the second play begins anew at step 5
    tracker = StateTracker(model, 3, context)
    for step in range(10):
        state = tracker.observe(tokens[:, step], begins[step])
        for play in range(3):
            start = max(int(begins[: step + 1, play].nonzero()[-1]), step - context + 1)
            window = slice(start, step + 1)
            expected = model(tokens[play : play + 1, window], actions[play : play + 1, window]).state[0, -1]
            torch.testing.assert_close(state[play], expected, rtol=0, atol=1e-5)
        tracker.act(actions[:, step])


def test_a_dream_begins_with_the_trackers_state(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 5)
    tracker = StateTracker(model, 3, 5)
    for step in range(5):
        state = tracker.observe(tokens[:, step], torch.full((3,), step == 0))
        tracker.act(actions[:, step])
    dream = imagine(model, tokens, actions[:, :-1], lambda t, s: t[:, 0], 1, generator=None, temperature=0)
    torch.testing.assert_close(dream.states[:, 0], state, rtol=0, atol=1e-5)


def test_inference_mode_may_come_and_go(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 6)
    plain = StateTracker(model, 2, 3)
    with torch.inference_mode():
        mixed = StateTracker(model, 2, 3)
    for step in range(6):
        begins = torch.full((2,), step == 0)
        expected = plain.observe(tokens[:, step], begins)
        with torch.inference_mode(step % 2 == 0):
            assert torch.equal(mixed.observe(tokens[:, step], begins), expected)
        plain.act(actions[:, step])
        with torch.inference_mode(step % 3 == 0):
            mixed.act(actions[:, step])


def test_refuses(make_model) -> None:
    with pytest.raises(ValueError, match="context is 13; give 1 to max_steps = 12"):
        StateTracker(make_model(), 3, 13)
    with pytest.raises(ValueError, match=r"context is 4\.0; give 1 to max_steps = 12"):
        StateTracker(make_model(), 3, 4.0)
    with pytest.raises(ValueError, match="batch_size is -1; give 1 or more plays to follow"):
        StateTracker(make_model(), -1, 4)
    tracker = StateTracker(make_model(), 1, 3)
    tokens, begins = torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"tokens are of type ndarray; give a torch tensor, int64 \(1, 3\)"):
        tracker.observe(tokens.numpy(), begins)
    with pytest.raises(ValueError, match=r"begins is of type ndarray; give a torch tensor, bool \(1,\)"):
        tracker.observe(tokens, begins.numpy())
    tracker.observe(tokens, begins)
    with pytest.raises(ValueError, match=r"actions are of type list; give a torch tensor, int64 \(1,\)"):
        tracker.act([3])
    with pytest.raises(ValueError, match="actions range from 18 to 18"):
        tracker.act(torch.tensor([18]))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_training_does_not_reach_a_tracker(make_model, make_window, dtype) -> None:
    model, untouched = make_model(), make_model()
    tokens, actions = make_window(model, 3, 6)
    tracker, other = StateTracker(model, 3, 4, dtype), StateTracker(untouched, 3, 4, dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    for step in range(6):
        begins = torch.full((3,), step == 0)
        assert torch.equal(tracker.observe(tokens[:, step], begins), other.observe(tokens[:, step], begins))
        tracker.act(actions[:, step])
        other.act(actions[:, step])


def test_its_products_are_as_narrow_as_asked(make_model) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for tracker in (
            StateTracker(make_model(), 1, 3, dtype),
            StateTracker(for_inference(make_model(), dtype), 1, 3),
        ):
            assert tracker._model.blocks[0].qkv.weight.dtype == dtype


def test_autocast_changes_no_state(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    plain, within = StateTracker(model, 3, 4), StateTracker(model, 3, 4)
    for step in range(4):
        begins = torch.full((3,), step == 0)
        expected = plain.observe(tokens[:, step], begins)
        with torch.autocast("cpu", torch.bfloat16):
            state = within.observe(tokens[:, step], begins)
        assert torch.equal(state, expected)
        plain.act(actions[:, step])
        within.act(actions[:, step])


def test_an_action_left_out_is_told(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 3)
    tracker, first = StateTracker(model, 2, 3), torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="begins is true at a play's first step"):
        tracker.observe(tokens[:, 0], ~first)
    tracker.observe(tokens[:, 0], first)
    tracker.observe(tokens[:, 0], first)  # both begin anew: no action is missed
    with pytest.raises(ValueError, match="call act between two observes"):
        tracker.observe(tokens[:, 1], torch.tensor([True, False]))
    tracker.act(actions[:, 0])
    state = tracker.observe(tokens[:, 1], ~first)
    with pytest.raises(ValueError, match="call act between two observes"):
        tracker.observe(tokens[:, 2], ~first)  # an action told before is not this one
    torch.testing.assert_close(state, model(tokens[:, :2], actions[:, :2]).state[:, -1], rtol=0, atol=1e-5)


def test_what_is_refused_changes_nothing(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 6)
    tracker, other = StateTracker(model, 3, 3), StateTracker(model, 3, 3)
    with pytest.raises(ValueError, match="call observe before act"):
        tracker.act(actions[:, 0])
    for step in range(6):
        begins = torch.full((3,), step == 0)
        for wrong in (torch.full((3, 3), 99), tokens[0, step], tokens[:, step].int()):
            with pytest.raises(ValueError, match=r"tokens (of level|are)"):
                tracker.observe(wrong, begins)
        with pytest.raises(ValueError, match="begins is"):
            tracker.observe(tokens[:, step], begins[:2])
        assert torch.equal(tracker.observe(tokens[:, step], begins), other.observe(tokens[:, step], begins))
        for wrong in (actions[:2, step], actions[:, step].int(), actions[:, step].float()):
            with pytest.raises(ValueError, match=r"actions are .*; give int64 \(3,\)"):
                tracker.act(wrong)
        tracker.act(actions[:, step])
        other.act(actions[:, step])


def test_states_are_float32_whatever_the_default(make_model, make_window) -> None:
    model, fresh = make_model(), torch.ones(2, dtype=torch.bool)
    tokens, _ = make_window(model, 2, 1)
    torch.set_default_dtype(torch.float64)
    try:
        assert StateTracker(model, 2, 1).observe(tokens[:, 0], fresh).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cnn_encoder import (
    ClipBatch,
    ContrastiveConfig,
    ContrastiveObjective,
    Encoder,
    EncoderConfig,
    banded_layout,
    info_nce,
    layout,
)
from cnn_encoder.contrastive import _not_negatives, balanced_cross_entropy
from torch._dynamo.testing import CompileCounter


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


OFF = {
    "contrastive_weight": 0.0,
    "inverse_weight": 0.0,
    "layout_weight": 0.0,
    "picture_weight": 0.0,
    "reward_weight": 0.0,
}


def objective(**changes):
    rng = generator()
    return ContrastiveObjective(
        Encoder(EncoderConfig(), generator=rng), ContrastiveConfig(**changes), generator=rng
    )


def play(stretches=2, steps=8, seed=0):
    """A square that wanders over a background: frames, the actions that moved it, and the background."""
    rng = generator(seed)
    actions = torch.randint(0, 2, (stretches, steps + 3), generator=rng)
    x = (40 + 5 * (2 * actions - 1).cumsum(1)).clamp(0, 75)
    frames = torch.full((stretches, steps + 3, 84, 84), 50, dtype=torch.uint8)
    for s in range(stretches):
        for t in range(steps + 3):
            frames[s, t, 30:38, x[s, t] : x[s, t] + 8] = 200
    return ClipBatch(frames, actions[:, 3:], torch.full((stretches, 84, 84), 50.0))


def test_info_nce_by_hand():
    eye = torch.eye(2)
    expected = math.log(math.e**2 + 1) - 2  # the positive at 1 / 0.5, one negative at 0
    assert info_nce(eye, eye, 0.5).item() == pytest.approx(expected, abs=1e-5)


def test_info_nce_is_log_n_at_chance_and_ignores_what_it_is_told_to():
    same = torch.ones(3, 5, 4)
    assert info_nce(same, same, 0.1).item() == pytest.approx(math.log(5), abs=1e-5)
    ignore = torch.zeros(5, 5, dtype=torch.bool)
    ignore[:, 0] = True
    ignore[0] = torch.tensor([False, True, True, True, False])
    expected = (math.log(2) + 4 * math.log(4)) / 5
    assert info_nce(same, same, 0.1, ignore=ignore).item() == pytest.approx(expected, abs=1e-5)


def test_negatives_come_from_the_same_stretch_only():
    a, p = torch.randn(2, 2, 6, 8, generator=generator())
    together = info_nce(a, p, 0.2)
    apart = (info_nce(a[0], p[0], 0.2) + info_nce(a[1], p[1], 0.2)) / 2
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("temperature", [0, -0.1, float("nan")])
def test_info_nce_refuses_a_temperature_that_is_none(temperature):
    with pytest.raises(ValueError, match=r"temperature is .*; give a number above 0"):
        info_nce(torch.eye(2), torch.eye(2), temperature)


def test_info_nce_stays_float32_under_autocast():
    a, p = torch.randn(2, 40, 384, generator=generator())
    expected = info_nce(a, p, 0.03)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(a, p, 0.03)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_neither_the_anchor_nor_the_moment_before_it_is_a_negative():
    ignore = _not_negatives(4, torch.device("cpu"))
    moments = [[j + 1 for j in range(4) if ignore[i, j]] for i in range(4)]
    assert moments == [[], [1], [1, 2], [2, 3]]


def test_the_inverse_head_starts_at_its_step():
    model, batch = objective(inverse_start_step=2), play()
    for step in range(3):
        loss, metrics = model(batch)
        config = model.config
        expected = config.contrastive_weight * metrics["info_nce"] + config.layout_weight * metrics["layout"]
        expected = expected + config.picture_weight * metrics["picture"]
        expected = expected + (metrics["inverse_dynamics"] if step == 2 else 0)
        torch.testing.assert_close(loss.detach(), expected)
        model.after_step()
    assert model.state_dict()["step"] == 3  # so that a resumed run knows


def test_switched_off_parts_leave_only_the_contrast():
    model = objective(**OFF | {"contrastive_weight": 1.0})
    loss, metrics = model(play())
    assert metrics.keys() == {"info_nce", "loss"}
    assert loss.item() == metrics["info_nce"].item()


def test_balanced_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3), 0.0], [0.0, math.log(3), 0.0], [0.0, 0.0, math.log(2)]])
    common, rare = math.log(5 / 3), math.log(4 / 2)  # three fifths, and a half, for the true class
    found = balanced_cross_entropy(logits, torch.tensor([1, 1, 2]))
    assert found.item() == pytest.approx((common + rare) / 2, abs=1e-6)
    assert balanced_cross_entropy(logits[:2], torch.tensor([1, 1])).item() == pytest.approx(common, abs=1e-6)


def test_rewards_reach_the_encoder_and_are_left_out_where_unknown():
    model = objective(**OFF | {"reward_weight": 2.0})
    batch = play()._replace(rewards=torch.tensor([[0.0] * 7 + [9.0], [5.0, 0.0, -3.0] + [0.0] * 5]))
    loss, metrics = model(batch)
    assert loss.item() == pytest.approx(2 * metrics["reward"].item())
    loss.backward()
    assert all(bool(parameter.grad.any()) for parameter in model.encoder.parameters())
    # What the last action brought is not to be seen in the stretch, and only signs count.
    other = model(batch._replace(rewards=torch.tensor([[0.0] * 8, [1.0, 0.0, -1.0] + [0.0] * 5])))
    assert other[0].item() == loss.item()
    assert "reward" not in model(play())[1]


def test_the_picture_reaches_the_encoder_once_its_head_has_begun():
    model, batch = objective(**OFF | {"picture_weight": 2.0}), play()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for step in range(2):  # the head starts at zero, so that it does not pull before it knows where to
        optimizer.zero_grad()
        loss, metrics = model(batch)
        assert loss.item() == pytest.approx(2 * metrics["picture"].item())
        loss.backward()
        moved = any(bool(parameter.grad.any()) for parameter in model.encoder.parameters())
        assert moved == (step == 1)
        optimizer.step()


def test_the_picture_is_linear_in_a_hundred_times_the_embedding_by_hand() -> None:
    # Of plain frames there is nothing to draw, and `Where` says (1, 0, 0, 0, 0, 0): drawn is 100 * 0.02 = 2.
    model = ContrastiveObjective(Where(), ContrastiveConfig(**OFF | {"picture_weight": 1.0}))
    torch.nn.init.constant_(model.picture.weight, 0.02)
    batch = play(1)
    loss, _ = model(batch._replace(frames=torch.full_like(batch.frames, 50)))
    assert loss.item() == pytest.approx(2**2)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_the_layout_is_of_the_newest_frame_and_of_one_before_it(lag):
    model, frames = objective(layout_lag=lag, layout_bands=0), play().frames
    found = model._layouts(frames)
    of_each = layout(frames[:, 3 - lag :], 4)
    assert torch.equal(found[..., :32], of_each[:, lag:])
    if lag:
        assert torch.equal(found[..., 32:], of_each[:, :-lag])
    assert found.shape[-1] == model.layout.out_features == (64 if lag else 32)


@pytest.mark.parametrize("lag", [0, 3])
def test_a_layout_may_be_of_bands(lag):
    model, frames = objective(layout_bands=5, layout_lag=lag), play().frames
    found, of_each = model._layouts(frames), banded_layout(frames[:, 3 - lag :], 4, 5)
    assert torch.equal(found[..., :80], of_each[:, lag:])
    if lag:
        assert torch.equal(found[..., 80:], of_each[:, :-lag])
    assert found.shape[-1] == model.layout.out_features == len(model.loudness) == (160 if lag else 80)
    torch.testing.assert_close(model.loudness[:16], model.loudness[-16:])  # every band is as loud


@pytest.mark.parametrize("lag", [0, 3])
def test_the_low_frequencies_of_bands_are_asked_for_more_loudly_by_hand(lag):
    """A head that says nothing is wrong by what is asked: by half its square, where that is small.

    Of two moments by their sum and their difference, each by its own deviation.
    """
    model, batch = objective(**OFF | {"layout_weight": 2.0}, layout_bands=5, layout_lag=lag), play()
    torch.nn.init.zeros_(model.layout.weight)
    torch.nn.init.zeros_(model.layout.bias)
    model.whiten.floor = 1e3
    loss, _ = model(batch)
    layouts = banded_layout(batch.frames[:, 3 - lag :], 4, 5)
    if lag:
        now, before = layouts[:, lag:], layouts[:, :-lag]
        layouts = torch.cat([now + before, now - before], -1)
    layouts = layouts.flatten(0, 1)
    scaled = (layouts - layouts.mean(0)) / (layouts.std(0, correction=0) + 1e3)
    weights = 1 / (1 + torch.tensor([k * k + m * m for k in range(4) for m in range(4)]).float())
    weights = (weights / weights.mean()).repeat(10 if lag else 5)
    assert loss.item() == pytest.approx((weights * scaled.square() / 2).mean().item() * 2, rel=1e-3)


@pytest.mark.parametrize("known", [0, 1, 2])
def test_before_an_episodes_first_frame_things_stood_where_they_are_in_it(known):
    """Black history is no scene: as one it would be a single moving thing as large as the screen."""
    model, frames = objective(layout_lag=3), play().frames
    begun, first = frames.clone(), 3 - known
    begun[0, :first] = 0
    stood = frames.clone()
    stood[0, :first] = frames[0, first]
    assert torch.equal(model._layouts(begun), model._layouts(stood))
    assert not begun[0, :first].any()  # the batch is as it was


class Where(torch.nn.Module):
    """An embedding that tells where the square of `wander` is in a moment's newest frame, and no more."""

    config = EncoderConfig(embedding_dim=6)

    def embed_clips(self, clips, background):
        return F.one_hot(clips[:, 3:, 40].float().argmax(-1) // 14, 6).float()


def wander(seed, stretches=1, steps=48):
    """A square that an action moves so many places on, round six of them; a reward wherever it is first."""
    actions = torch.randint(0, 6, (stretches, steps + 3), generator=generator(seed))
    place = F.pad(actions.cumsum(1) % 6, (1, 0))
    frames = torch.full((stretches, steps + 3, 84, 84), 50, dtype=torch.uint8)
    for s in range(stretches):
        for t in range(steps + 3):
            frames[s, t, 38:46, 14 * place[s, t] : 14 * place[s, t] + 8] = 200
    rewards = (place[:, 4:] == 0).float()  # what actions[:, t] brings is seen at t + 1
    return ClipBatch(frames, actions[:, 3:], torch.full((stretches, 84, 84), 50.0), rewards)


def test_every_demand_is_of_its_own_moment():
    """Where the square is tells nothing of other moments: a head that is asked for those learns nothing."""
    config = ContrastiveConfig(contrastive_weight=0.0, inverse_start_step=0)
    model = ContrastiveObjective(Where(), config, generator=generator())
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for step in range(60):
        optimizer.zero_grad()
        model(wander(step))[0].backward()
        optimizer.step()
        model.after_step()
    found = model.eval()(wander(1000))[1]
    assert found["inverse_accuracy"] > 0.95  # one in six by chance
    assert found["reward"] < 0.3  # log 2
    assert found["layout"] < 0.02  # 0.1
    assert found["picture"] < 0.02  # 0.06


def test_each_stretch_has_its_own_background():
    one, other = play(seed=1), play(seed=2)
    model = objective(layout_bands=0, picture_weight=0.0)  # bands are of absolute brightness
    model(one)
    model.eval()
    shifted = ClipBatch(other.frames + 20, other.actions, other.background + 20)
    plain, moved = (
        ClipBatch(*(torch.cat(pair) for pair in zip(one[:3], second[:3], strict=True)))
        for second in (other, shifted)
    )
    torch.testing.assert_close(model(plain)[0], model(moved)[0], rtol=1e-3, atol=1e-4)


def test_only_the_heads_learn_during_their_head_start():
    """Nor does weight decay move the encoder, and its optimiser state begins when it does."""
    model, batch = objective(head_start_steps=2, inverse_start_step=0), wander(0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        model(batch)[0].backward()
        optimizer.step()
        model.after_step()
        same = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
        of_encoder = {name for name in before if name.startswith("encoder.")}
        assert same == (of_encoder if step < 2 else set())
    assert {int(optimizer.state[parameter]["step"]) for parameter in model.encoder.parameters()} == {1}


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_head_start_goes_on_where_it_was(steps):
    first, resumed = objective(head_start_steps=2), objective(head_start_steps=2)
    for _ in range(steps):
        first.after_step()
    resumed.load_state_dict(first.state_dict())
    for model in (first, resumed):
        model(play())[0].backward()
        assert (model.encoder.conv1.weight.grad is None) == (steps < 2)


def test_learns_to_tell_moments_apart():
    model, batch = objective(inverse_start_step=0, picture_weight=5.0), play(4, 12)
    columns = batch.frames[:, 4:, 34].float().argmax(-1)  # where the square is after each action but the last
    batch = batch._replace(rewards=torch.nn.functional.pad((columns > 40).float(), (0, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    history = []
    for _ in range(50):
        loss, metrics = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step()
        history.append(metrics)
    for name in ("info_nce", "inverse_dynamics", "layout", "picture", "reward"):
        assert history[-1][name] < 0.8 * history[0][name], name


def test_the_same_seed_gives_the_same_numbers():
    first, second = (objective()(play())[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ContrastiveConfig(temperature=0.0), r"temperature is 0\.0"),
        (lambda: ContrastiveConfig(layout_weight=-1.0), r"layout_weight is -1\.0"),
        (lambda: ContrastiveConfig(layout_bands=1), "layout_bands is 1; give 2 or more, or 0"),
        (lambda: ContrastiveConfig(layout_lag=4), "layout_lag is 4; it must be 0 to 3"),
        (lambda: ContrastiveConfig(layout_lag=2.0), r"layout_lag is 2\.0; it must be 0 to 3"),
        (
            lambda: ContrastiveConfig(layout_frequencies=85),
            "layout_frequencies is 85; frames of 84 x 84 allow 84",
        ),
        (lambda: ContrastiveConfig(shift=43), "shift is 43; frames of 84 x 84 allow 42"),
        (lambda: ContrastiveConfig(layout_bands=257), "layout_bands is 257; frames of 84 x 84 allow 256"),
        (lambda: ContrastiveConfig(picture_weight=-1.0), r"picture_weight is -1\.0"),
        (lambda: ContrastiveConfig(reward_weight=-1.0), r"reward_weight is -1\.0"),
        (lambda: info_nce(torch.zeros(3, 4), torch.zeros(2, 4), 0.1), r"\(3, 4\).*\(2, 4\)"),
        (lambda: objective()(play()._replace(actions=torch.zeros(2, 11))), r"\(2, 11\).*\(S, T\)"),
        (lambda: objective()(play(steps=3)), "T >= 4"),
        (lambda: objective()(play()._replace(frames=play().frames / 255)), "torch.float32.*expected uint8"),
    ],
)
def test_wrong_input_is_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": torch.zeros(1, 16)}, r"rewards are \(1, 16\); expected \(2, 8\)"),
        ({"rewards": torch.full((2, 8), torch.nan)}, "rewards hold NaN"),
        ({"actions": torch.full((2, 8), -100)}, "actions are not all ids"),
        ({"actions": torch.full((2, 8), 18)}, "actions are not all ids"),
        ({"actions": torch.zeros(2, 8)}, r"actions torch\.float32 \(2, 8\); expected .* integers"),
        ({"background": torch.zeros(84, 84)}, r"background is \(84, 84\); expected .* \(2, 84, 84\)"),
        ({"background": torch.zeros(3, 84, 84)}, r"background is \(3, 84, 84\)"),
        ({"frames": torch.zeros(2, 11, 84, dtype=torch.uint8)}, r"frames are .*; expected uint8"),
        (
            {"frames": torch.zeros(0, 11, 84, 84, dtype=torch.uint8), "actions": torch.zeros(0, 8).long()},
            "S >= 1",
        ),
    ],
)
def test_a_batch_that_means_nothing_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        objective()(play()._replace(**change))


def test_one_background_for_all_and_small_integers_mean_the_same():
    batch = play()._replace(background=torch.full((2, 84, 84), 7.0))
    same = batch._replace(background=batch.background[:1], actions=batch.actions.to(torch.uint8))
    assert torch.equal(objective()(same)[0], objective()(batch)[0])


@pytest.mark.parametrize("name", ["temperature", "layout_weight", "reward_weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, "1", None])
def test_a_weight_is_a_finite_number(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        ContrastiveConfig(**{name: value})


@pytest.mark.parametrize("name", ["head_start_steps", "inverse_start_step", "shift"])
def test_steps_and_pixels_are_whole_numbers(name):
    assert getattr(ContrastiveConfig(**{name: np.int64(2)}), name) == 2
    for wrong in (1.5, -1):
        with pytest.raises(ValueError, match=f"{name} is {wrong}; give a whole number of at least 0"):
            ContrastiveConfig(**{name: wrong})


def test_a_head_start_needs_a_head():
    heads = ("inverse_weight", "layout_weight", "picture_weight", "reward_weight")
    none = dict.fromkeys(heads, 0.0)
    for name in heads:
        ContrastiveConfig(**(none | {name: 1.0}), head_start_steps=2)
        assert ContrastiveConfig(**(none | {name: 1.0})).has_heads
    assert not ContrastiveConfig(**none).has_heads
    with pytest.raises(ValueError, match="head_start_steps is 2 and every head's weight is 0"):
        ContrastiveConfig(**none, head_start_steps=2)
    with pytest.raises(ValueError, match="every weight is 0, so nothing would be learned"):
        ContrastiveConfig(**none, contrastive_weight=0.0)


def test_frequencies_that_hardly_vary_are_not_blown_up() -> None:
    assert objective(layout_bands=12).whiten.floor == 0.05


def test_a_lag_is_kept_as_json_takes_it() -> None:
    assert json.dumps(asdict(ContrastiveConfig(layout_lag=np.int64(2))))


def test_a_compiled_head_start_takes_one_graph_whatever_its_length():
    model, batch = objective(head_start_steps=12), play()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    for _ in range(14):
        model.zero_grad()
        compiled(batch)[0].backward()
        model.after_step()
    assert counter.frame_count == 2
    assert model.encoder.conv1.weight.grad is not None

import math

import numpy as np
import pytest
import torch
from token_worldmodel import for_inference, imagine
from token_worldmodel.cached import CachedReader, reader_for
from token_worldmodel.imagine import choose

VARIANTS = [
    {"detail": "none"},
    {"detail": "past"},
    {"detail": "last"},
    {"detail": "last", "num_levels": 4},
    {"mask": "causal"},
    *({"detail": "none", "num_levels": levels} for levels in (1, 2, 4)),
    *({"position": "step", "num_levels": levels} for levels in (1, 2, 3, 4)),
]


def by_first_token(tokens: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    return tokens[:, 0] % 18


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_default_device_is_no_matter(make_model, make_window) -> None:
    """What is worked out once is where it is used, whichever device new tensors go to: "meta" holds none."""
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    expected = imagine(model, tokens, actions[:, :-1], by_first_token, 3, generator=seeded())
    logits = model(tokens, actions).logits
    model = make_model(token_noise=0.125)  # not in use, but what is worked out is kept by configuration
    with torch.device("meta"):
        found = imagine(model, tokens, actions[:, :-1], by_first_token, 3, generator=seeded())
        again = model(tokens, actions).logits
    assert torch.equal(found.tokens, expected.tokens)
    assert all(torch.equal(one, other) for one, other in zip(again, logits, strict=True))


@pytest.mark.parametrize("context", [1, 2, 5])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("code_dim", [0, 3])
def test_a_dream_has_the_probabilities_and_states_of_the_full_forward_pass(
    make_model, make_window, context, variant, dtype, code_dim
) -> None:
    model = make_model(**variant, code_dim=code_dim)
    tokens, actions = make_window(model, 4, context)
    dream = imagine(model, tokens, actions[:, :-1], by_first_token, 6, generator=seeded(), dtype=dtype)
    all_tokens = torch.cat([tokens, dream.tokens[:, 1:]], 1)
    all_actions = torch.cat([actions[:, :-1], dream.actions, torch.zeros(4, 1, dtype=torch.int64)], 1)
    output = model(all_tokens, all_actions)
    tolerance = {"rtol": 0, "atol": 2e-5 if dtype == torch.float32 else 0.25}
    torch.testing.assert_close(dream.states, output.state[:, context - 1 :], **tolerance)
    torch.testing.assert_close(dream.states[:, 1:], output.hidden[:, context - 1 : -1], **tolerance)
    for level, logits in enumerate(output.logits):
        predicted = logits[:, context - 1 : -1] if level == 0 else logits[:, context:]
        expected = predicted.log_softmax(-1).gather(-1, dream.tokens[:, 1:, level, None])[..., 0]
        torch.testing.assert_close(dream.log_probs[..., level], expected, **tolerance)


@pytest.mark.parametrize("context", [1, 11])
def test_context_and_horizon_may_fill_the_whole_window(make_model, make_window, context) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, context)
    dream = imagine(model, tokens, actions[:, :-1], by_first_token, 12 - context, generator=seeded())
    all_tokens = torch.cat([tokens, dream.tokens[:, 1:]], 1)
    all_actions = torch.cat([actions[:, :-1], dream.actions, torch.zeros(2, 1, dtype=torch.int64)], 1)
    expected = model(all_tokens, all_actions).state[:, context - 1 :].detach()
    torch.testing.assert_close(dream.states, expected, rtol=0, atol=2e-5)


def test_contexts_that_are_read_in_parts_are_each_its_own(make_model, make_window) -> None:
    model = make_model(num_layers=1)
    tokens, actions = make_window(model, 2100, 3)  # two steps are read at once, of 2048 plays at a time
    dream = imagine(model, tokens, actions[:, :-1], lambda t, s: actions[:, -1], 1, generator=seeded())
    hidden = model(tokens, actions).hidden.detach()
    torch.testing.assert_close(dream.states, hidden[:, 1:], rtol=0, atol=2e-5)


def test_the_policy_sees_each_step_before_it_acts(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    seen = []

    def policy(tokens: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        seen.append((tokens.clone(), state.clone()))
        return torch.full((3,), len(seen))

    dream = imagine(model, tokens, actions[:, :-1], policy, 5, generator=seeded())
    assert torch.equal(torch.stack([t for t, _ in seen], 1), dream.tokens[:, :-1])
    assert torch.equal(torch.stack([s for _, s in seen], 1), dream.states[:, :-1])
    assert torch.equal(dream.actions, torch.arange(1, 6).expand(3, 5))
    assert torch.equal(dream.tokens[:, 0], tokens[:, -1])
    assert not dream.states.requires_grad


def test_actions_matter(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    still, moved = (
        imagine(model, tokens, actions[:, :-1], lambda t, s, a=a: torch.full((3,), a), 4, generator=seeded())
        for a in (0, 5)
    )
    assert not torch.equal(still.tokens, moved.tokens)


def test_randomness_is_the_generators_alone(make_model, make_window) -> None:
    model = make_model(dropout=0.5).train()
    tokens, actions = make_window(model, 3, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (
        imagine(model, tokens, actions[:, :-1], by_first_token, 6, generator=seeded(seed))
        for seed in (3, 3, 4)
    )
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.log_probs, again.log_probs)
    assert not torch.equal(first.tokens, other.tokens)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_cold_dreams_are_greedy_ones_and_levels_have_their_own_temperature(make_model, make_window) -> None:
    model = make_model()
    window = make_window(model, 8, 4)
    tokens, actions = window[0], window[1][:, :-1]
    greedy = imagine(model, tokens, actions, by_first_token, 3, generator=None, temperature=0)
    cold = imagine(model, tokens, actions, by_first_token, 3, generator=seeded(), temperature=1e-4)
    assert torch.equal(greedy.tokens, cold.tokens)
    cold_1 = imagine(
        model, tokens, actions, by_first_token, 1, generator=seeded(), temperature=(99, 1e-4, 99)
    )
    pairs = torch.cat([tokens, cold_1.tokens[:, 1:]], 1)
    likeliest = model(pairs, torch.nn.functional.pad(actions, (0, 2))).logits[1][:, -1].argmax(-1)
    assert torch.equal(cold_1.tokens[:, 1, 1], likeliest)
    assert not torch.equal(cold_1.tokens[:, 1, 0], greedy.tokens[:, 1, 0])


def test_a_level_that_draws_nothing_leaves_the_draws_of_the_others_as_they_were(
    make_model, make_window
) -> None:
    model = make_model()
    tokens, actions = make_window(model, 8, 4)
    cold, frozen = (
        imagine(
            model, tokens, actions[:, :-1], by_first_token, 3, generator=seeded(), temperature=(1.0, t, 1.0)
        )
        for t in (1e-4, 0)
    )
    assert torch.equal(cold.tokens, frozen.tokens)


def test_choices_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    drawn = choose(probabilities.expand(40_000, 4), torch.rand(40_000, generator=seeded()))
    frequencies = torch.bincount(drawn, minlength=4) / 40_000
    torch.testing.assert_close(frequencies, probabilities, rtol=0, atol=0.01)


def test_every_token_of_a_dream_has_a_draw_of_its_own(make_model) -> None:
    """Of 4 codes, all but evenly likely: two tokens agree in a quarter of dreams, unless by one draw."""
    model = make_model(num_codes=(4, 4, 4))
    with torch.no_grad():
        for head in model.heads:
            head.weight.mul_(1e-3)
            head.bias.zero_()
    start = torch.zeros(4096, 1, 3, dtype=torch.int64)
    dream = imagine(model, start, start[:, :0, 0], by_first_token, 3, generator=seeded())
    drawn = dream.tokens[:, 1:].flatten(1)  # (B, H * L)
    for one in range(9):
        for other in range(one):
            assert abs(float((drawn[:, one] == drawn[:, other]).float().mean()) - 0.25) < 0.03


def test_log_probs_are_those_at_temperature_1(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 4, 3)
    dream = imagine(model, tokens, actions[:, :-1], by_first_token, 1, generator=seeded(), temperature=0.5)
    window = torch.cat([tokens, dream.tokens[:, 1:]], 1)
    played = torch.cat([actions[:, :-1], dream.actions, torch.zeros(4, 1, dtype=torch.int64)], 1)
    logits = model(window, played).logits[0][:, -2]
    expected = logits.log_softmax(-1).gather(-1, dream.tokens[:, 1, :1])[:, 0]
    torch.testing.assert_close(dream.log_probs[:, 0, 0], expected, rtol=0, atol=2e-5)


def test_choices_by_hand_and_at_the_edges() -> None:
    probs = torch.tensor([0.0, 0.5, 0.5, 0.0]).expand(5, 4)
    draws = torch.tensor([0.0, 0.49, 0.5, 0.51, 1.0 - 2**-24])
    assert choose(probs, draws).tolist() == [1, 1, 2, 2, 2]


def test_the_largest_draw_chooses_the_last_code_that_has_a_chance() -> None:
    """However the sum of all chances is rounded: it is not always 1."""
    for count in range(1, 300):
        logits = torch.cat([torch.zeros(count), torch.full((2,), -torch.inf)])[None]
        assert choose(logits.softmax(-1), torch.tensor([1.0 - 2**-24])).tolist() == [count - 1]


def test_autocast_sets_the_precision(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    dream = imagine(
        model, tokens, actions[:, :-1], by_first_token, 4, generator=seeded(), dtype=torch.bfloat16
    )
    in_policy = []

    def policy(tokens: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        in_policy.append(torch.is_autocast_enabled("cpu"))
        return by_first_token(tokens, state)

    with torch.autocast("cpu", torch.bfloat16):
        same = imagine(model, tokens, actions[:, :-1], policy, 4, generator=seeded())
    assert torch.equal(dream.states, same.states)
    assert in_policy == [True] * 4
    # The step after the context, from the same tokens: narrow products move it.
    exact = imagine(model, tokens, actions[:, :-1], by_first_token, 4, generator=seeded())
    assert not torch.equal(dream.states[:, 1], exact.states[:, 1])


def test_a_model_frozen_narrow_dreams_with_its_own_matrices(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    asked = imagine(
        model, tokens, actions[:, :-1], by_first_token, 4, generator=seeded(), dtype=torch.bfloat16
    )
    held = imagine(
        for_inference(model, torch.bfloat16), tokens, actions[:, :-1], by_first_token, 4, generator=seeded()
    )
    assert torch.equal(asked.states, held.states)


def test_a_compiled_model_dreams_as_the_plain_one_does(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    dreams = [
        imagine(m, tokens, actions[:, :-1], by_first_token, 2, generator=seeded(), dtype=torch.bfloat16)
        for m in (model, torch.compile(model))
    ]
    assert torch.equal(dreams[0].states, dreams[1].states)


def test_a_dream_in_float64(make_model, make_window) -> None:
    model = make_model().double()
    tokens, actions = make_window(model, 3, 4)
    dream = imagine(model, tokens, actions[:, :-1], by_first_token, 1, generator=seeded())
    window = torch.cat([tokens, dream.tokens[:, 1:]], 1)
    played = torch.cat([actions[:, :-1], dream.actions, torch.zeros(3, 1, dtype=torch.int64)], 1)
    expected = model(window, played).hidden[:, -2]
    torch.testing.assert_close(dream.states[:, 1], expected.float(), rtol=0, atol=1e-6)


def test_the_cache_holds_only_what_later_steps_read(make_model) -> None:
    """12 steps: 2 entries for each, and 2 more for the finer tokens of one step, of two, or of all; or 1."""
    entry = 2 * 2 * 16 * 4  # key and value, layers, width, bytes
    models = [(make_model(detail=d), n) for d, n in (("none", 26), ("last", 28), ("past", 48))]
    for model, entries in [*models, (make_model(position="step"), 12)]:
        reader = reader_for(for_inference(model, torch.float32), 5, 12)
        reader.read_steps(torch.zeros(5, 12, 3, dtype=torch.int64), torch.zeros(5, 12, dtype=torch.int64))
        assert sum(held.nbytes for held in reader._keys + reader._values) == 5 * entries * entry


@pytest.mark.parametrize(
    "variant", [{"detail": "none"}, {"detail": "last"}, {"detail": "past"}, {"position": "step"}]
)
def test_a_cache_that_grows_in_a_dream_holds_the_same(make_model, make_window, monkeypatch, variant) -> None:
    model = make_model(**variant)
    tokens, actions = make_window(model, 3, 2)
    sizes, make_room = [], CachedReader._make_room

    def dream(growth: int):
        def spy(reader: CachedReader, num_steps: int) -> None:
            make_room(reader, num_steps)
            sizes.append(reader._keys[0].shape[2])

        monkeypatch.setattr("token_worldmodel.cached.GROWTH", growth)
        monkeypatch.setattr(CachedReader, "_make_room", spy)
        return imagine(model, tokens, actions[:, :-1], by_first_token, 10, generator=seeded())

    whole = dream(100)
    assert len(set(sizes)) == 1
    growing = dream(3)
    assert len(set(sizes)) >= 4
    assert torch.equal(growing.tokens, whole.tokens)
    torch.testing.assert_close(growing.states, whole.states)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 9}, "a context of 4 steps and a horizon of 9 do not fit in max_steps = 12"),
        ({"horizon": 0}, "horizon of 0 do not fit"),
        ({"horizon": 5.0}, "horizon is 5.0; give a whole number"),
        ({"actions": torch.zeros(3, 4, dtype=torch.int64)}, r"actions \(3, 4\); give \(B, C, L\)"),
        ({"tokens": torch.full((3, 4, 3), 30)}, "tokens of level 0 range from 30 to 30"),
        ({"generator": None}, "generator is None at temperature 1.0; give a torch.Generator, or 0"),
        ({"generator": None, "temperature": (0, 0, 1)}, r"generator is None at temperature \(0, 0, 1\)"),
        ({"temperature": None}, "temperature is None; give one number or 3"),
        ({"temperature": "warm"}, "temperature is warm; give one number or 3"),
        ({"temperature": 1e-9}, "temperature is 1e-09; give one number or 3, .* finite and at least 1e-6"),
        ({"temperature": (1.0, 1.0)}, "temperature is .*; give one number or 3, one per level: 0 for"),
        ({"policy": lambda t, s: t[:, :1]}, r"returned torch.int64 of shape \(3, 1\); it must return"),
        ({"policy": lambda t, s: t[:, 0].float()}, "returned torch.float32 of shape"),
        ({"policy": lambda t, s: t[:, 0].numpy()}, "the policy returned ndarray; it must return a tensor"),
        ({"policy": lambda t, s: None}, "the policy returned NoneType"),
        ({"policy": lambda t, s: t[:, 0] * 0 + 18}, "the policy's actions range from 18 to 18"),
    ],
)
def test_refuses(make_model, make_window, changes, message) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)
    arguments = {
        "tokens": tokens,
        "actions": actions[:, :-1],
        "policy": by_first_token,
        "horizon": 5,
        "generator": seeded(),
    }
    with pytest.raises(ValueError, match=message):
        imagine(model, **(arguments | changes))


def test_a_policy_cannot_change_the_dream(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 3, 4)

    def gentle(seen, state):
        return seen[:, 0].clone()

    def rough(seen, state):
        action = seen[:, 0].clone()
        seen.zero_()
        state.zero_()
        return action

    one, other = (
        imagine(model, tokens, actions[:, :-1], policy, 4, generator=None, temperature=0)
        for policy in (gentle, rough)
    )
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.states, other.states)


@pytest.mark.parametrize("temperature", [math.nan, math.inf, 1e-39, -1.0, (1.0, 1.0, math.nan), (1.0, 1.0)])
def test_a_temperature_that_means_nothing_is_refused(make_model, make_window, temperature) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 3)
    with pytest.raises(ValueError, match="at least 1e-6"):
        imagine(
            model, tokens, actions[:, :-1], lambda t, s: t[:, 0], 2,
            generator=torch.Generator(), temperature=temperature,
        )  # fmt: skip


@pytest.mark.parametrize("temperature", [np.float32(0.5), torch.tensor(0.5), [0.5] * 3, np.full(3, 0.5)])
def test_a_temperature_may_be_any_kind_of_number(make_model, make_window, temperature) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 3)

    def dream(given):
        draw = torch.Generator().manual_seed(0)
        policy = lambda t, s: t[:, 0]  # noqa: E731
        return imagine(model, tokens, actions[:, :-1], policy, 2, generator=draw, temperature=given).tokens

    assert torch.equal(dream(temperature), dream(0.5))


def test_no_dreams_are_refused(make_model) -> None:
    tokens, actions = torch.zeros(0, 3, 3, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="B and C at least 1"):
        imagine(make_model(), tokens, actions, lambda t, s: t[:, 0], 2, generator=None, temperature=0)


def test_a_greedy_dream_draws_nothing(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 2)
    state = torch.get_rng_state()
    imagine(model, tokens, actions[:, :-1], by_first_token, 3, generator=None, temperature=0)
    assert torch.equal(torch.get_rng_state(), state)

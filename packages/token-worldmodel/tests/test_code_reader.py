"""A world model that reads what tokens stand for beside their names."""

import pytest
import torch
from token_worldmodel import (
    StateTracker,
    WorldModel,
    WorldModelConfig,
    imagine,
    load_worldmodel,
    save_worldmodel,
)

BOOKS = [
    torch.tensor([[2.0, 1.0], [4.0, 1.0], [3.0, 3.0], [3.0, 3.0]]),
    torch.tensor([[0.5, 0.0], [-0.5, 1.0]]),
    torch.tensor([[0.25, -1.0], [0.0, 0.5], [0.0, 0.0]]),
]


def small(**changes: object) -> WorldModel:
    values = {"num_codes": (4, 2, 3), "code_dim": 2, "num_actions": 3, "max_steps": 6}
    values |= {"dim": 8, "num_layers": 2, "num_heads": 2, "ffn_dim": 16}
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(**(values | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def test_reads_standardised_sums_of_codes() -> None:
    model = small()
    model.set_codebooks(BOOKS)
    reader = model.code_reader
    # L0's codes: mean (3, 2); squared deviations 1 + 1, 1 + 1, 0 + 1 and 0 + 1 over 8 numbers: .75 each.
    spread = 0.75**0.5
    first = reader.extend(None, torch.tensor([0, 1]), 0)
    torch.testing.assert_close(first, torch.tensor([[-1.0, -1.0], [1.0, -1.0]]) / spread)
    second = reader.extend(first, torch.tensor([1, 0]), 1)
    torch.testing.assert_close(second, torch.tensor([[-1.5, 0.0], [1.5, -1.0]]) / spread)
    read = reader.read(torch.tensor([[0, 1, 2], [1, 0, 1]]))
    torch.testing.assert_close(read[0], reader(first))
    torch.testing.assert_close(read[1], reader(second))
    torch.testing.assert_close(read[2][0], reader(second[0]))  # its L2 stands for nothing
    torch.testing.assert_close(read[2][1], reader(torch.tensor([1.5, -0.5]) / spread))


def test_tokens_of_one_vector_differ_by_name_only() -> None:
    model = small()
    model.set_codebooks(BOOKS)
    twins = torch.tensor([[[2, 0, 1]], [[3, 0, 1]]])
    actions = torch.zeros(2, 1, dtype=torch.int64)
    one, other = model(twins, actions).hidden
    assert not torch.allclose(one, other)
    with torch.no_grad():
        model.token_embeddings[0].weight[3] = model.token_embeddings[0].weight[2]
    one, other = model(twins, actions).hidden
    torch.testing.assert_close(one, other)


def test_units_and_origin_of_the_codes_do_not_matter() -> None:
    model, tokens = small(), torch.tensor([[[0, 1, 2], [1, 1, 0], [3, 0, 1]]])
    actions = torch.tensor([[0, 2, 1]])
    model.set_codebooks(BOOKS)
    expected = model(tokens, actions).hidden
    model.set_codebooks([BOOKS[0] * 100 + 7, BOOKS[1] * 100, BOOKS[2] * 100])
    torch.testing.assert_close(model(tokens, actions).hidden, expected)


def test_codes_may_be_of_any_dtype() -> None:
    model, other = small(), small()
    books = [(codes * 4).long() for codes in BOOKS]
    model.set_codebooks(books)
    other.set_codebooks([codes.double() for codes in books])
    assert all(map(torch.equal, model.code_reader.codes, other.code_reader.codes))


def test_codes_are_saved_with_the_model(tmp_path) -> None:
    model, tokens = small(), torch.tensor([[[0, 1, 2], [1, 1, 0]]])
    model.set_codebooks(BOOKS)
    save_worldmodel(tmp_path / "model.safetensors", model)
    again = load_worldmodel(tmp_path / "model.safetensors")
    actions = torch.tensor([[0, 2]])
    assert torch.equal(again(tokens, actions).hidden, model(tokens, actions).hidden)


def test_codes_that_move_are_followed_by_what_was_made_from_the_model_only_if_it_is_made_again() -> None:
    """A dream reads the codes of the moment; a tracker is a copy, as of its weights."""
    model, tokens = small(), torch.tensor([[[0, 1, 2], [1, 1, 0]]])
    model.set_codebooks(BOOKS)
    begins, actions = torch.ones(1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.int64)

    def dreamed() -> torch.Tensor:
        return imagine(
            model, tokens, actions, lambda seen, _: seen[:, 0] % 3, 2, generator=None, temperature=0
        ).states

    def tracked(tracker: StateTracker) -> torch.Tensor:
        tracker.observe(tokens[:, 0], begins)
        tracker.act(actions[:, 0])
        return tracker.observe(tokens[:, 1], ~begins)

    tracker = StateTracker(model, 1, 4)
    before, state = dreamed(), tracked(tracker)
    model.set_codebooks([BOOKS[0].flip(0), *BOOKS[1:]])
    assert not torch.allclose(dreamed(), before)
    assert torch.equal(tracked(tracker), state)
    assert not torch.allclose(tracked(StateTracker(model, 1, 4)), state)


def test_one_code_or_equal_codes_are_read_as_zero_not_nan() -> None:
    model = small()
    model.set_codebooks([torch.ones(4, 2), torch.zeros(2, 2), torch.zeros(3, 2)])
    assert (
        model(torch.zeros(1, 2, 3, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64))
        .hidden.isfinite()
        .all()
    )


def test_refuses_codes_it_cannot_read() -> None:
    with pytest.raises(ValueError, match="reads tokens as names only; set code_dim to the width"):
        small(code_dim=0).set_codebooks(BOOKS)
    model = small()
    model.set_codebooks(BOOKS)
    held = [codes.clone() for codes in model.code_reader.codes]
    with pytest.raises(
        ValueError, match=r"shapes \[\(4, 2\), \(2, 2\)\]; this model reads \[\(4, 2\), \(2, 2\), \(3"
    ):
        model.set_codebooks(BOOKS[:2])
    with pytest.raises(ValueError, match="hold NaN or infinity; give finite vectors"):
        model.set_codebooks([*BOOKS[:2], BOOKS[2] * torch.inf])
    assert all(torch.equal(a, b) for a, b in zip(model.code_reader.codes, held, strict=True))

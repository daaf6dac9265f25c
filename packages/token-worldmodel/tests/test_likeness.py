"""Heads whose weights are learned as W + C P: the same model, another way to it."""

import copy

import pytest
import torch
from token_worldmodel import (
    TokenBatch,
    WorldModelObjective,
    alike_codes_learn_together,
    imagine,
    load_worldmodel,
    parameter_groups,
    save_worldmodel,
)


def codebooks(model, dim=6, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [3 + 2 * torch.randn(codes, dim, generator=generator) for codes in model.config.codes]


@pytest.fixture
def make_batch(make_window):
    def make(model):
        tokens, actions = make_window(model, 4, 8)
        flags = torch.zeros(actions.shape, dtype=torch.bool)
        return TokenBatch(
            tokens=tokens,
            actions=actions,
            rewards=torch.zeros(actions.shape),
            terminated=flags,
            truncated=flags,
            final=flags,
            lives=torch.zeros_like(actions),
            game_index=torch.zeros(len(actions), dtype=torch.int64),
        )

    return make


def test_untrained_the_model_stays_as_it_was(make_model, make_window, tmp_path) -> None:
    model = make_model()
    window = make_window(model, 2, 6)
    before, names = model(*window).logits, model.state_dict().keys()
    with alike_codes_learn_together(model, codebooks(model)):
        within = model(*window).logits
    after = model(*window).logits
    for levels in zip(before, within, after, strict=True):
        assert torch.equal(levels[0], levels[1])
        assert torch.equal(levels[0], levels[2])
    assert set(model.state_dict()) == set(names)
    assert all(type(head) is torch.nn.Linear for head in model.heads)
    save_worldmodel(tmp_path / "w.safetensors", model)
    assert torch.equal(load_worldmodel(tmp_path / "w.safetensors")(*window).logits[0], before[0])


def test_a_step_moves_a_codes_row_by_its_own_gradient_and_by_those_of_the_codes_like_it(
    make_model, make_batch
) -> None:
    model, codes, rate = make_model(), codebooks(make_model()), 0.1
    objective, batch = WorldModelObjective(model), make_batch(model)
    objective(batch)[0].backward()
    before = [(head.weight.detach().clone(), head.weight.grad.clone()) for head in model.heads]
    model.zero_grad()
    with alike_codes_learn_together(model, codes):
        optimizer = torch.optim.SGD(model.parameters(), rate)
        objective(batch)[0].backward()
        optimizer.step()
    for (weight, gradient), head, vectors in zip(before, model.heads, codes, strict=True):
        centred = vectors - vectors.mean(0)
        centred = centred / centred.square().sum(1).mean().sqrt()
        likeness = torch.eye(len(centred)) + centred @ centred.T  # of each code to each
        assert torch.allclose(head.weight, weight - rate * likeness @ gradient, atol=1e-6)
        assert not torch.allclose(head.weight, weight - rate * gradient, atol=1e-4)


def test_every_part_of_a_sum_decays(make_model) -> None:
    model = make_model()
    usual = [sum(p.numel() for p in group["params"]) for group in parameter_groups(model, 0.1)]
    with alike_codes_learn_together(model, codebooks(model)):
        decaying, others = parameter_groups(model, 0.1)
        assert sum(p.numel() for p in decaying["params"]) == usual[0] + 3 * 6 * model.config.dim
        assert sum(p.numel() for p in others["params"]) == usual[1]
        learned = {id(p) for p in model.parameters()}
        assert {id(p) for group in (decaying, others) for p in group["params"]} == learned


def test_it_trains_under_autocast_and_ends_with_an_error_too(make_model, make_batch, make_window) -> None:
    model, batch = make_model().train(), make_batch(make_model())
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="stop"),
        alike_codes_learn_together(model, codebooks(model)),
    ):
        objective = WorldModelObjective(model)
        optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), 1e-2)
        losses = []
        for _ in range(30):
            with torch.autocast("cpu", torch.bfloat16):
                loss, _ = objective(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        raise RuntimeError("stop")
    assert losses[-1] < 0.7 * losses[0]
    assert all(type(head) is torch.nn.Linear for head in model.heads)
    assert objective(batch)[0].item() == pytest.approx(losses[-1], abs=0.2)


@pytest.mark.parametrize(
    "change",
    [lambda books: books[:2], lambda books: [books[0].T, *books[1:]], lambda books: [b[0] for b in books]],
)
def test_refuses_codes_that_are_not_the_models(make_model, change) -> None:
    model = make_model()
    with (
        pytest.raises(ValueError, match=r"give one .* for each level of"),
        alike_codes_learn_together(model, change(codebooks(model))),
    ):
        pass
    assert all(type(head) is torch.nn.Linear for head in model.heads)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_within_it_a_model_dreams_and_is_kept_like_any(make_model, make_window, tmp_path, dtype) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 4)
    path = tmp_path / "w.safetensors"

    def dream():
        policy, cold = (lambda t, s: t[:, 0]), {"generator": None, "temperature": 0}
        return imagine(model, tokens, actions[:, :-1], policy, 3, **cold, dtype=dtype).log_probs

    with alike_codes_learn_together(model, codebooks(model)):
        # By a seed of its own: greedy dreams part where two tokens are nearly as likely.
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for head in model.heads:
                head.parametrizations.weight[0].shared.normal_(generator=draw)
        within = dream()
        save_worldmodel(path, model)
        with pytest.raises(ValueError, match="parametrized already"):
            alike_codes_learn_together(model, codebooks(model)).__enter__()
    torch.testing.assert_close(within, dream(), rtol=0, atol=1e-5 if dtype is None else 0.2)
    kept = load_worldmodel(path)
    for name, weight in model.state_dict().items():
        assert torch.equal(kept.state_dict()[name], weight), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_is_learned_together_is_of_the_models_type(make_model, make_window, dtype) -> None:
    model = make_model().to(dtype)
    with alike_codes_learn_together(model, codebooks(model)):
        assert model(*make_window(model, 2, 4)).logits[0].dtype == dtype
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_codes_that_learn_elsewhere_are_taken_as_they_are(make_model, make_batch) -> None:
    model, books = make_model(), [book.requires_grad_() for book in codebooks(make_model())]
    with alike_codes_learn_together(model, books):
        for _ in range(2):
            WorldModelObjective(model)(make_batch(model))[0].backward()
    assert all(book.grad is None for book in books)


def test_codes_that_are_all_the_same_teach_nothing(make_model, make_window) -> None:
    model = make_model()
    window = make_window(model, 2, 4)
    before = model(*window).logits
    with alike_codes_learn_together(model, [torch.ones(codes, 6) for codes in model.config.codes]):
        assert all(torch.equal(a, b) for a, b in zip(model(*window).logits, before, strict=True))


def test_a_codebook_that_fails_leaves_the_model_as_it_was(make_model) -> None:
    model = make_model()
    before = model.state_dict()
    books = codebooks(model)
    books[-1] = books[-1].to("meta")  # such as one for which there is no memory
    with pytest.raises(NotImplementedError), alike_codes_learn_together(model, books):
        pass
    assert all(type(head) is torch.nn.Linear for head in model.heads)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_codes_that_are_no_numbers_are_refused_before_the_model_is_changed(make_model):
    model = make_model()
    before = model.heads[0].weight.clone()
    wrong = [torch.full((codes, 3), torch.nan) for codes in model.config.codes]
    with pytest.raises(ValueError, match="codebooks hold NaN"), alike_codes_learn_together(model, wrong):
        pass
    assert torch.equal(model.heads[0].weight, before)


def test_a_copy_made_within_can_be_used_and_kept_after_it(make_model, make_window, tmp_path) -> None:
    model = make_model().eval()
    window, path = make_window(model, 2, 4), tmp_path / "best.safetensors"
    with alike_codes_learn_together(model, codebooks(model)), torch.no_grad():
        for head in model.heads:
            head.parametrizations.weight[0].shared.normal_()
        best = copy.deepcopy(model)
        before = best(*window).logits[0]
    assert torch.equal(best(*window).logits[0], before)
    save_worldmodel(path, best)
    torch.testing.assert_close(load_worldmodel(path)(*window).logits[0], before)

import math

import pytest
import torch
from token_worldmodel import WorldModel, WorldModelConfig, for_inference, visibility
from token_worldmodel.model import add_noise
from torch import nn

MASKS = [("hierarchical", "none"), ("hierarchical", "last"), ("hierarchical", "past"), ("causal", "none")]


def test_shapes_and_types(make_model, make_window) -> None:
    model = make_model(num_levels=4)
    output = model(*make_window(model, 2, 5))
    assert [tuple(x.shape) for x in output.logits] == [(2, 5, k) for k in (11, 12, 13, 14)]
    assert output.hidden.shape == output.state.shape == (2, 5, 16)
    assert all(x.isfinite().all() for x in output.logits)


def test_state_is_the_hidden_of_the_step_before(make_model, make_window) -> None:
    model = make_model()
    output = model(*make_window(model, 2, 5))
    assert torch.equal(output.state[:, 1:], output.hidden[:, :-1])
    assert not output.state[:, 0].any()


def pytorch_outputs(model: WorldModel, tokens: torch.Tensor, actions: torch.Tensor) -> list[torch.Tensor]:
    """Logits of the same weights in PyTorch's own encoder layers."""
    config = model.config
    x = pytorch_layers(model, model.embed(tokens, actions))
    x = model.norm(x).unflatten(1, (tokens.shape[1], config.step_size))
    slots = [config.num_levels, *range(config.num_levels - 1)]
    return [head(x[:, :, slot]) for head, slot in zip(model.heads, slots, strict=True)]


def pytorch_layers(model: WorldModel, x: torch.Tensor) -> torch.Tensor:
    """The blocks' output for x (B, N, D), by PyTorch's own encoder layers."""
    config = model.config
    hidden = ~visibility(config, x.shape[1] // config.step_size)
    names = {
        "norm1": "attention_norm",
        "norm2": "ffn_norm",
        "linear1": "expand",
        "linear2": "contract",
        "self_attn.out_proj": "projection",
    }
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            config.dim, config.num_heads, config.ffn_dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        weights = block.state_dict()
        state = {f"{a}.{w}": weights[f"{b}.{w}"] for a, b in names.items() for w in ("weight", "bias")}
        state |= {f"self_attn.in_proj_{w}": weights[f"qkv.{w}"] for w in ("weight", "bias")}
        layer.load_state_dict(state)
        x = layer.train()(x, src_mask=hidden)
    return x


@pytest.mark.parametrize(("mask", "detail"), MASKS)
@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_logits_are_those_of_pytorchs_own_layers(make_model, make_window, mask, detail, num_levels) -> None:
    model = make_model(num_levels=num_levels, mask=mask, detail=detail)
    window = make_window(model, 2, 12)
    for ours, expected in zip(model(*window).logits, pytorch_outputs(model, *window), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def effects(model: WorldModel, tokens: torch.Tensor, actions: torch.Tensor):
    """Change each token and action of a window in turn: step, slot and, by level, which logits move (T,)."""
    before = model(tokens, actions).logits
    for step in range(tokens.shape[1]):
        for slot in range(model.config.num_levels + 1):
            tokens_after, actions_after = tokens.clone(), actions.clone()
            if slot < model.config.num_levels:
                tokens_after[0, step, slot] = (tokens[0, step, slot] + 1) % 11
            else:
                actions_after[0, step] = (actions[0, step] + 1) % 18
            after = model(tokens_after, actions_after).logits
            yield step, slot, [(a - b)[0].abs().amax(-1) > 1e-4 for a, b in zip(after, before, strict=True)]


@pytest.mark.parametrize(("mask", "detail"), MASKS)
def test_an_output_moves_only_with_what_its_position_sees(make_model, make_window, mask, detail) -> None:
    """One layer, so that an input reaches an output exactly if the output's position sees it."""
    model = make_model(num_layers=1, mask=mask, detail=detail)
    steps, levels = 3, 3
    tokens, actions = make_window(model, 1, steps)
    visible = visibility(model.config, steps)
    slots = [levels, 0, 1]  # the slot each level is predicted from
    for step, slot, moved in effects(model, tokens, actions):
        for level in range(levels):
            rows = torch.arange(steps) * 4 + slots[level]
            assert torch.equal(moved[level], visible[rows, step * 4 + slot]), (step, slot, level)


@pytest.mark.parametrize("code_dim", [0, 3])
def test_where_a_step_is_one_position_predictions_see_the_past_and_the_coarser_tokens(
    make_model, make_window, code_dim
) -> None:
    model = make_model(position="step", code_dim=code_dim)
    steps, levels = 4, 3
    tokens, actions = make_window(model, 1, steps)
    for step, slot, moved in effects(model, tokens, actions):
        for level in range(levels):
            # logits[0][t] predicts step t + 1, logits[l][t] step t, from all steps before the predicted.
            predicts = torch.arange(steps) + (level == 0)
            sees = (predicts > step) | ((predicts == step) & (slot < level))
            assert torch.equal(moved[level], sees), (step, slot, level)


def test_logits_of_a_step_that_is_one_position_by_hand(make_model, make_window) -> None:
    """PyTorch's own layers over the sums of a step's embeddings, then the chain, link by link."""
    model = make_model(position="step")
    tokens, actions = make_window(model, 2, 6)
    tables = [*model.token_embeddings, model.action_embedding]
    x = sum(table(ids) for table, ids in zip(tables, [*tokens.unbind(-1), actions], strict=True))
    hidden = model.norm(pytorch_layers(model, x + model.step_embedding[:6]))
    known, expected = torch.cat([torch.zeros(2, 1, 16), hidden[:, :-1]], 1), [model.heads[0](hidden)]
    for level, link in enumerate(model.chain):
        known = known + link.embedding(tokens[..., level])
        known = known + link.contract(nn.functional.gelu(link.expand(link.norm(known))))
        expected.append(model.heads[level + 1](link.output_norm(known)))
    output = model(tokens, actions)
    torch.testing.assert_close(output.hidden, hidden, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(output.logits, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_deep_models_do_not_see_the_future(make_model, make_window) -> None:
    model = make_model(num_layers=3)
    tokens, actions = make_window(model, 2, 8)
    before = model(tokens, actions).hidden
    tokens[:, 5:] = (tokens[:, 5:] + 1) % 11
    actions[:, 5:] = (actions[:, 5:] + 1) % 18
    after = model(tokens, actions).hidden
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert not torch.isclose(after[:, 5:], before[:, 5:], atol=1e-3).all()


def test_a_window_is_read_alike_alone_and_in_a_longer_one(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 12)
    longer, alone = model(tokens, actions), model(tokens[:, :7], actions[:, :7])
    torch.testing.assert_close(longer.hidden[:, :7], alone.hidden)


@pytest.mark.parametrize("code_dim", [0, 3])
@pytest.mark.parametrize("variant", [{}, {"position": "step"}, {"position": "step", "num_levels": 1}])
def test_every_parameter_learns(make_model, make_window, variant, code_dim) -> None:
    model = make_model(code_dim=code_dim, **variant).train()
    tokens, actions = make_window(model, 2, 12)
    torch.cat([x.flatten() for x in model(tokens, actions).logits]).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_autocast_stays_close(make_window) -> None:
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(dim=64, num_heads=4, ffn_dim=128, num_layers=2, max_steps=16))
    window = make_window(model, 2, 16)
    exact = model(*window).logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(*window).logits
    for a, b in zip(exact, rounded, strict=True):
        torch.testing.assert_close(b.float(), a, rtol=0, atol=0.02)
        assert b.dtype == torch.bfloat16


@pytest.mark.parametrize("position", ["token", "step"])
def test_untrained_predictions_are_near_uniform(make_window, position) -> None:
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(dim=64, num_heads=4, ffn_dim=128, max_steps=16, position=position))
    for logits in model(*make_window(model, 2, 16)).logits:
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        assert (entropy > 0.99 * math.log(256)).all()


@pytest.mark.parametrize("position", ["token", "step"])
def test_residual_branches_begin_smaller_the_more_layers_there_are(position) -> None:
    torch.manual_seed(0)
    sizes = {"dim": 64, "num_heads": 4, "ffn_dim": 128, "num_layers": 8, "code_dim": 24}
    model = WorldModel(WorldModelConfig(**sizes, position=position))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" not in name:
            branch = name.endswith(("projection.weight", "contract.weight"))
            link = name.startswith("chain.") and "embedding" in name
            deviation = 0.02 / 4 if branch else 1.0 if link else 0.02
            assert parameter.std().item() == pytest.approx(deviation, rel=0.15), name


def test_dropout_only_in_training(make_model, make_window) -> None:
    model = make_model(dropout=0.5)
    window = make_window(model, 2, 6)
    assert torch.equal(model(*window).hidden, model(*window).hidden)
    model.train()
    assert not torch.equal(model(*window).hidden, model(*window).hidden)


def test_dropout_reaches_the_branches_of_every_layer(make_model, make_window, monkeypatch) -> None:
    model = make_model(dropout=0.5)
    window = make_window(model, 2, 5)
    kept: list[tuple[int, ...]] = []

    def drop(x: torch.Tensor, share: float, training: bool) -> torch.Tensor:
        assert share == 0.5
        if training:
            kept.append(tuple(x.shape))
        return x

    monkeypatch.setattr("token_worldmodel.model.dropout", drop)
    model.train()(*window)
    assert len(kept) == 1 + 2 * len(model.blocks)  # embedding, and both branches of each layer
    model.eval()(*window)
    assert len(kept) == 1 + 2 * len(model.blocks)


def test_token_noise_only_in_training(make_model, make_window) -> None:
    model = make_model(token_noise=0.5)
    window = make_window(model, 2, 6)
    assert torch.equal(model(*window).hidden, model(*window).hidden)
    model.train()
    assert not torch.equal(model(*window).hidden, model(*window).hidden)


def test_noise_replaces_its_share_of_each_level_by_codes_of_that_level() -> None:
    torch.manual_seed(0)
    tokens = torch.full((4000, 5, 2), 100)
    tokens[..., 1] = 3
    noisy = add_noise(tokens, (200, 4), 0.2)
    assert noisy[..., 0].min() == 0
    assert noisy[..., 0].max() == 199
    assert noisy[..., 1].unique().tolist() == [0, 1, 2, 3]
    # A replaced token is the same by chance once in 200 and once in 4.
    replaced = (noisy != tokens).float()
    assert replaced.mean((0, 1)).tolist() == pytest.approx([0.2 * 199 / 200, 0.2 * 3 / 4], abs=0.01)
    # Rates are even over 0 to 0.4; ten tokens stay whole with probability (1 - 199/200 r)^5 (1 - 3/4 r)^5.
    rate = torch.linspace(0, 0.4, 10_001)
    whole = ((1 - rate * 199 / 200) ** 5 * (1 - rate * 3 / 4) ** 5).mean().item()
    assert (replaced.sum((1, 2)) == 0).float().mean().item() == pytest.approx(whole, abs=0.02)
    assert torch.equal(add_noise(tokens, (200, 4), 0.0), tokens)


def test_frozen_shares_what_it_need_not_cast(make_model, make_window) -> None:
    model = make_model(dropout=0.5, code_dim=3).train()
    window = make_window(model, 2, 6)
    same, narrow = for_inference(model, torch.float32), for_inference(model, torch.bfloat16)
    assert all(
        a.data_ptr() == b.data_ptr() for a, b in zip(same.parameters(), model.parameters(), strict=True)
    )
    assert narrow.blocks[0].qkv.weight.dtype == torch.bfloat16
    assert narrow.slot_embedding.data_ptr() == model.slot_embedding.data_ptr()
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(narrow.buffers(), model.buffers(), strict=True))
    assert for_inference(narrow, torch.bfloat16) is narrow
    assert for_inference(narrow, torch.float32) is not narrow
    assert torch.equal(same(*window).hidden, model.eval()(*window).hidden)
    assert not any(p.requires_grad for p in same.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("tokens", "actions", "message"),
    [
        (torch.zeros(2, 4, 2), torch.zeros(2, 4), r"tokens have shape \(2, 4, 2\); this model takes"),
        (torch.zeros(2, 4, 3), torch.zeros(2, 3), r"actions have shape \(2, 3\); give one action"),
        (torch.zeros(2, 13, 3), torch.zeros(2, 13), "has 13 steps; this model takes 1 to max_steps = 12"),
        (torch.zeros(2, 0, 3), torch.zeros(2, 0), "has 0 steps; this model takes 1 to"),
        (
            torch.full((2, 4, 3), 11),
            torch.zeros(2, 4),
            "level 0 range from 11 to 11; this model knows 0 to 10",
        ),
        (torch.full((2, 4, 3), -1), torch.zeros(2, 4), "level 0 range from -1 to -1"),
        (
            torch.zeros(2, 4, 3),
            torch.full((2, 4), 18),
            "actions range from 18 to 18; this model knows 0 to 17",
        ),
    ],
)
def test_refuses(make_model, tokens, actions, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_model()(tokens.long(), actions.long())


def test_refuses_other_types(make_model, make_window) -> None:
    model = make_model()
    tokens, actions = make_window(model, 2, 4)
    for window in ((tokens.short(), actions), (tokens, actions.byte())):
        with pytest.raises(ValueError, match=r"give both as torch\.int64"):
            model(*window)


def test_a_frozen_model_in_training_mode_reads_without_dropout(make_model) -> None:
    model = make_model(dropout=0.5).requires_grad_(False).train()
    assert not for_inference(model, torch.float32).training
    assert model.training

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from token_worldmodel import WorldModelConfig, visibility
from token_worldmodel.attention import attend, attend_few
from token_worldmodel.masks import attention_plan

MASKS = [("hierarchical", "none"), ("hierarchical", "last"), ("hierarchical", "past"), ("causal", "none")]


@pytest.mark.parametrize(("mask", "detail"), MASKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_blocks_give_the_attention_and_gradient_of_pytorch(
    mask: str, detail: str, dtype: torch.dtype
) -> None:
    config = WorldModelConfig(mask=mask, detail=detail)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, 140, 3, 2, 8, dtype=torch.float64, generator=generator)
    upstream = torch.randn(2, 140, 16, dtype=torch.float64, generator=generator)
    expected_from = qkv.clone().requires_grad_()
    q, k, v = expected_from.permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=visibility(config, 35))
    expected = expected.transpose(1, 2).flatten(2)
    expected.backward(upstream)
    ours_from = qkv.to(dtype, copy=True).requires_grad_()
    ours = attend(ours_from, attention_plan(config, 35, torch.device("cpu")))
    ours.backward(upstream.to(dtype))
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype == torch.float64 else 0.06}
    torch.testing.assert_close(ours.double(), expected, **tolerance)
    torch.testing.assert_close(ours_from.grad.double(), expected_from.grad, **tolerance)


@pytest.mark.parametrize(("mask", "detail"), MASKS)
def test_the_fused_form_of_other_devices_agrees(mask: str, detail: str) -> None:
    plan = attention_plan(WorldModelConfig(mask=mask, detail=detail), 35, torch.device("cpu"))
    qkv = torch.randn(2, 140, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attend(qkv, replace(plan, blocks=())), attend(qkv, plan))


def test_the_fused_form_learns_after_inference_and_never_by_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    config = WorldModelConfig(num_layers=7)  # of no other test: the plan is made here
    with torch.inference_mode():
        plan = replace(attention_plan(config, 5, torch.device("cpu")), blocks=())
    asked = []

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        asked.append(torch.backends.cuda.cudnn_sdp_enabled())
        return fused(*args, **kwargs)

    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    qkv = torch.randn(2, 20, 3, 2, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    attend(qkv, plan).sum().backward()
    assert asked == [False]
    assert torch.backends.cuda.cudnn_sdp_enabled()
    assert qkv.grad is not None


def test_a_few_queries_are_the_last_rows_of_many() -> None:
    config = WorldModelConfig()
    visible = visibility(config, 5)
    q, k, v = torch.randn(3, 2, 4, 20, 8, generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(3, 20).masked_fill_(~visible[-3:], -torch.inf)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)[:, :, -3:]
    ours = attend_few(q[:, :, -3:], k, v, bias)
    torch.testing.assert_close(ours, expected.transpose(1, 2).flatten(2))


def test_a_gradient_of_the_gradient_is_refused(make_model, make_window) -> None:
    model = make_model()
    loss = model(*make_window(model, 2, 6)).logits[0].square().mean()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(loss, model.slot_embedding, create_graph=True)


def test_in_float64_gradients_are_float64s(make_model, make_window) -> None:
    model = make_model().double()
    tokens, actions = make_window(model, 1, 4)

    def loss(slots: torch.Tensor) -> torch.Tensor:
        weights = dict(model.named_parameters()) | {"slot_embedding": slots}
        return torch.func.functional_call(model, weights, (tokens, actions)).logits[0].square().mean()

    assert torch.autograd.gradcheck(loss, model.slot_embedding.detach().requires_grad_())

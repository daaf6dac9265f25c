import math

import pytest
import torch
from token_worldmodel import (
    TokenBatch,
    WorldModel,
    WorldModelConfig,
    WorldModelObjective,
    WorldModelOutput,
    parameter_groups,
)
from torch import nn


def batch_of(tokens: torch.Tensor, actions: torch.Tensor | None = None) -> TokenBatch:
    rows = tokens.shape[:2]
    return TokenBatch(
        tokens=tokens,
        actions=torch.zeros(rows, dtype=torch.int64) if actions is None else actions,
        rewards=torch.zeros(rows),
        terminated=torch.zeros(rows, dtype=torch.bool),
        truncated=torch.zeros(rows, dtype=torch.bool),
        final=torch.zeros(rows, dtype=torch.bool),
        lives=torch.zeros(rows, dtype=torch.int64),
        game_index=torch.zeros(rows[0], dtype=torch.int64),
    )


class Sayer(nn.Module):
    """Says the same logits whatever it reads."""

    def __init__(self, config: WorldModelConfig, *logits: torch.Tensor) -> None:
        super().__init__()
        self.config = config
        self.logits = logits

    def forward(self, tokens: torch.Tensor, actions: torch.Tensor) -> WorldModelOutput:
        return WorldModelOutput(logits=self.logits, hidden=torch.zeros(*actions.shape, 1))


def test_loss_and_metrics_by_hand() -> None:
    config = WorldModelConfig(num_levels=2, num_codes=2, loss_weights=(1.0, 0.5))
    tokens = torch.tensor([[[0, 1], [1, 1], [1, 0]]])
    sure = math.log(3.0)  # logits (log 3, 0) are probabilities (3/4, 1/4)
    # Level 0 says 0 with 3/4 after steps 0 and 1; the truth is 1, 1. What it says after step 2 is not judged.
    level_0 = torch.tensor([[[sure, 0.0], [sure, 0.0], [0.0, 99.0]]])
    # Level 1 says 1 with 3/4 at every step; the truth is 1, 1, 0.
    level_1 = torch.tensor([[[0.0, sure]] * 3])
    loss, metrics = WorldModelObjective(Sayer(config, level_0, level_1))(batch_of(tokens))
    nll_0 = math.log(4)
    nll_1 = (2 * math.log(4 / 3) + math.log(4)) / 3
    assert loss.item() == pytest.approx(nll_0 + 0.5 * nll_1, abs=1e-6)
    expected = {
        "loss": nll_0 + 0.5 * nll_1,
        "cross_entropy_0": nll_0,
        "cross_entropy_1": nll_1,
        "accuracy_0": 0.0,
        "copy_accuracy_0": 0.5,
        "changed_accuracy_0": 0.0,
        "accuracy_1": 0.5,
        "copy_accuracy_1": 0.5,
        "changed_accuracy_1": 0.0,
    }
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(expected, abs=1e-6)


def test_where_nothing_changed_there_is_no_accuracy_of_changes(make_model) -> None:
    _, metrics = WorldModelObjective(make_model())(batch_of(torch.zeros(2, 4, 3, dtype=torch.int64)))
    for level in range(3):
        assert metrics[f"copy_accuracy_{level}"] == 1.0
        assert metrics[f"changed_accuracy_{level}"].isnan()


def test_loss_is_float32_and_metrics_carry_no_graph(make_model, make_window) -> None:
    model = make_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss, metrics = WorldModelObjective(model)(batch_of(*make_window(model, 2, 6)))
    assert loss.dtype == torch.float32
    assert loss.requires_grad
    _, narrow = WorldModelObjective(make_model().bfloat16())(batch_of(*make_window(model, 2, 6)))
    assert all(value.dtype == torch.float32 for value in (*metrics.values(), *narrow.values()))
    assert not any(value.requires_grad or value.ndim for value in metrics.values())


@pytest.mark.parametrize("position", ["token", "step"])
def test_learns_a_rule_that_copying_cannot_follow(position) -> None:
    """L0 moves on by the action, L1 is its double, L2 adds the action before: all are to be foretold."""
    torch.manual_seed(0)
    actions = torch.randint(1, 4, (24, 8))
    level_0 = (actions.cumsum(1) - actions) % 8
    previous = torch.nn.functional.pad(actions[:, :-1], (1, 0))
    tokens = torch.stack([level_0, 2 * level_0 % 8, (level_0 + previous) % 8], -1)
    sizes = {"num_codes": 8, "dim": 48, "num_heads": 4, "ffn_dim": 96, "num_layers": 2, "max_steps": 8}
    config = WorldModelConfig(**sizes, position=position)
    objective = WorldModelObjective(WorldModel(config))
    optimizer = torch.optim.AdamW(parameter_groups(objective.model, 0.01), lr=3e-3)
    for _ in range(120):
        loss, metrics = objective(batch_of(tokens, actions))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step()
    assert metrics["copy_accuracy_0"] == 0.0
    assert all(metrics[f"changed_accuracy_{level}"] > 0.95 for level in range(3)), metrics


@pytest.mark.parametrize("rows", [slice(0, 0), slice(None)])
def test_windows_that_predict_nothing_are_refused(make_model, rows) -> None:
    model = make_model()
    zeros = torch.zeros(4, 1, dtype=torch.int64)[rows]
    batch = TokenBatch(
        tokens=torch.zeros(4, 1, 3, dtype=torch.int64)[rows], actions=zeros, rewards=zeros.float(),
        terminated=zeros.bool(), truncated=zeros.bool(), final=zeros.bool(), lives=zeros,
        game_index=zeros[:, 0],
    )  # fmt: skip
    with pytest.raises(ValueError, match="at least 2 steps"):
        WorldModelObjective(model)(batch)

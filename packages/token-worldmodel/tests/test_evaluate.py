import math
from dataclasses import asdict, replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from token_worldmodel import (
    TokenBatch,
    WorldModel,
    WorldModelConfig,
    WorldModelObjective,
    evaluate,
    for_inference,
)
from token_worldmodel.objective import align
from torch.nn.functional import cross_entropy


def batch_of(tokens: torch.Tensor, game_index: torch.Tensor) -> TokenBatch:
    zeros = torch.zeros(tokens.shape[:2])
    return TokenBatch(
        tokens=tokens,
        actions=zeros.long(),
        rewards=zeros,
        terminated=zeros.bool(),
        truncated=zeros.bool(),
        final=zeros.bool(),
        lives=zeros.long(),
        game_index=game_index,
    )


@pytest.fixture
def constant_model() -> WorldModel:
    """Says (3/4, 1/8, 1/8) at level 0 and (1/2, 1/4, 1/4) at level 1, whatever it reads."""
    model = WorldModel(
        WorldModelConfig(num_levels=2, num_codes=3, dim=8, num_layers=1, num_heads=1, loss_weights=(1.0, 1.0))
    )
    with torch.no_grad():
        for head, probabilities in zip(model.heads, ([0.75, 0.125, 0.125], [0.5, 0.25, 0.25]), strict=True):
            head.weight.zero_()
            head.bias.copy_(torch.tensor(probabilities).log())
    return model


def test_numbers_by_hand(constant_model) -> None:
    # Level 0 of the two windows: 0 0 1, of which 0 and 1 are judged, and 2 2 2, of which 2 and 2 are.
    tokens = torch.tensor([[[0, 0], [0, 0], [1, 0]], [[2, 0], [2, 0], [2, 0]]])
    result = evaluate(constant_model, [batch_of(tokens, torch.tensor([0, 0]))], ["Pong"])
    level_0, level_1 = result["Pong"]
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    copy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25 / 2))
    assert asdict(level_0) == pytest.approx(
        {
            "count": 4,
            "cross_entropy": (math.log(4 / 3) + 3 * math.log(8)) / 4,
            "accuracy": 0.25,
            "copy_accuracy": 0.75,
            "copy_cross_entropy": copy,
            "unigram_accuracy": 0.5,
            "unigram_cross_entropy": entropy,
            "changed_fraction": 0.25,
            "changed_accuracy": 0.0,
            "changed_cross_entropy": math.log(8),
            "changed_unigram_accuracy": 0.0,
            "changed_copy_cross_entropy": math.log(2 / 0.25),
            "changed_unigram_cross_entropy": math.log(4),
            "calibration_error": 0.5,  # always 3/4 sure, a quarter right
        }
    )
    assert level_1.accuracy == level_1.copy_accuracy == level_1.unigram_accuracy == 1.0
    assert level_1.copy_cross_entropy == level_1.unigram_cross_entropy == 0.0
    assert math.isnan(level_1.changed_accuracy)
    assert result["all"][0] == level_0


@pytest.mark.parametrize(
    ("wrong", "right", "error"),
    [
        (0.75, 0.6, (0.75 + 0.4) / 2),  # together, .675 sure and .5 right
        (0.65, 0.68, (0.65 + 0.32) / 2),  # of 15 bins the edge at 2/3 parts them
        (0.62, 0.66, (0.62 + 0.66 - 1) / 2),  # both between 9/15 and 10/15, so together
    ],
)
def test_calibration_errors_cancel_within_a_bin_only(wrong: float, right: float, error: float) -> None:
    """Told 0 it is so sure and always wrong, told 1 it is so sure and always right."""
    model = WorldModel(WorldModelConfig(num_levels=1, num_codes=7, dim=8, num_layers=1, num_heads=1)).eval()
    told = torch.tensor([[sure, *[(1 - sure) / 6] * 6] for sure in (wrong, right)]).log()

    def heads(x: torch.Tensor, level: int) -> torch.Tensor:
        return told[batch.actions]

    tokens = torch.tensor([[[0], [1]], [[0], [0]]])
    batch = replace(batch_of(tokens, torch.tensor([0, 0])), actions=torch.tensor([[0, 0], [1, 1]]))
    with patch.object(WorldModel, "predict", lambda self, x, level: heads(x, level)):
        (level,) = evaluate(model, [batch])["all"]
    assert level.accuracy == 0.5
    assert level.calibration_error == pytest.approx(error)


def test_dropout_is_off_and_the_model_stays_in_training(make_model, make_window) -> None:
    model = make_model(dropout=0.5)
    tokens, _ = make_window(model, 4, 6)
    batches = [batch_of(tokens, torch.zeros(4, dtype=torch.int64))]
    calm = evaluate(model, batches)
    assert evaluate(model.train(), batches) == calm
    assert model.training


def test_a_model_frozen_narrow_is_judged_as_it_is(make_model, make_window) -> None:
    model = for_inference(make_model(), torch.bfloat16)
    tokens, _ = make_window(model, 4, 6)
    batch = batch_of(tokens, torch.zeros(4, dtype=torch.int64))
    logits = model(tokens, batch.actions).logits[1][:, 1:].float().flatten(0, 1)
    expected = cross_entropy(logits, tokens[:, 1:, 1].flatten()).item()
    assert evaluate(model, [batch])["all"][1].cross_entropy == pytest.approx(expected, rel=1e-6)


def test_names_must_tell_the_games_apart(constant_model) -> None:
    batches = [batch_of(torch.zeros(2, 3, 2, dtype=torch.int64), torch.tensor([0, 1]))]
    with pytest.raises(ValueError, match="Pong, Pong; give each a name of its own"):
        evaluate(constant_model, batches, ["Pong", "Pong"])
    with pytest.raises(ValueError, match="a window is of game 1, and games names 1"):
        evaluate(constant_model, batches, ["Pong"])


def test_games_apart_and_together(constant_model) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, (6, 5, 2), generator=generator)
    games = torch.tensor([0, 1, 1, 0, 1, 0])
    mixed = evaluate(constant_model, [batch_of(tokens, games)])
    halves = [batch_of(tokens[games == g], games[games == g]) for g in (0, 1)]
    apart = evaluate(constant_model, halves)
    assert mixed == apart
    assert set(mixed) == {"0", "1", "all"}
    assert mixed["all"][0].count == 24
    as_one = evaluate(constant_model, [batch_of(tokens, torch.zeros_like(games))])["all"]
    own = ("count", "cross_entropy", "accuracy", "copy_accuracy", "changed_fraction", "changed_accuracy",
           "changed_cross_entropy")  # fmt: skip
    for level, (together, alone) in enumerate(zip(mixed["all"], as_one, strict=True)):
        for name in own:
            assert getattr(together, name) == pytest.approx(getattr(alone, name))
        for name in asdict(together).keys() - set(own):
            of_games = [getattr(mixed[game][level], name) for game in ("0", "1")]
            changed = [mixed[game][level].changed_fraction for game in ("0", "1")]
            weights = changed if name.startswith("changed_") else None  # both games have as many tokens
            assert getattr(together, name) == pytest.approx(np.average(of_games, weights=weights))
    assert mixed["all"][0].accuracy == pytest.approx((mixed["0"][0].accuracy + mixed["1"][0].accuracy) / 2)


def test_games_without_a_code_in_common_each_have_their_own_unigram(constant_model) -> None:
    """Codes 0 and 1 in one game, 2 alone in the other: of both together no code would be sure."""
    tokens = torch.tensor([[0, 1, 0, 1, 0], [2, 2, 2, 2, 2]])[..., None].repeat(1, 1, 2)
    level = evaluate(constant_model, [batch_of(tokens, torch.tensor([0, 1]))])["all"][0]
    assert level.unigram_accuracy == pytest.approx((0.5 + 1) / 2)
    assert level.unigram_cross_entropy == pytest.approx(math.log(2) / 2)
    assert level.changed_unigram_cross_entropy == pytest.approx(math.log(2))  # in the second nothing changes


def test_agrees_with_the_training_metrics(make_model, make_window) -> None:
    model = make_model()
    tokens, _ = make_window(model, 8, 12)
    tokens[:, 6:] = tokens[:, 5:6]
    batch = batch_of(tokens, torch.zeros(8, dtype=torch.int64))
    _, metrics = WorldModelObjective(model)(batch)
    for level, result in enumerate(evaluate(model, [batch])["all"]):
        for name in ("accuracy", "copy_accuracy", "changed_accuracy"):
            assert getattr(result, name) == pytest.approx(metrics[f"{name}_{level}"].item())
        stayed, others = result.copy_accuracy, model.config.codes[level] - 1
        copying = -stayed * math.log(stayed) - (1 - stayed) * math.log((1 - stayed) / others)
        assert result.copy_cross_entropy == pytest.approx(copying)
        logits, target = align(model(tokens, batch.actions).logits[level], tokens, level)
        later = logits[:, -11:].flatten(0, 1), target[:, -11:].flatten()  # steps with one before them
        assert result.cross_entropy == pytest.approx(cross_entropy(*later).item(), rel=1e-5)


def test_a_model_that_has_diverged_has_no_numbers(constant_model) -> None:
    with torch.no_grad():
        constant_model.norm.weight.fill_(float("nan"))
    level = evaluate(constant_model, [batch_of(torch.zeros(1, 4, 2).long(), torch.zeros(1).long())])["all"][0]
    assert math.isnan(level.cross_entropy)
    assert math.isnan(level.calibration_error)


def test_refuses(constant_model) -> None:
    with pytest.raises(ValueError, match="no batches to evaluate"):
        evaluate(constant_model, [])
    with pytest.raises(ValueError, match="give at least 2 steps"):
        evaluate(constant_model, [batch_of(torch.zeros(2, 1, 2).long(), torch.zeros(2).long())])


def test_a_game_counts_by_its_tokens(constant_model) -> None:
    tokens = torch.tensor([[0, 1, 0, 1, 0], *[[2, 2, 2, 2, 2]] * 3])[..., None].repeat(1, 1, 2)
    level = evaluate(constant_model, [batch_of(tokens, torch.tensor([0, 1, 1, 1]))])["all"][0]
    assert level.unigram_accuracy == pytest.approx((0.5 + 3 * 1) / 4)
    assert level.unigram_cross_entropy == pytest.approx(math.log(2) / 4)

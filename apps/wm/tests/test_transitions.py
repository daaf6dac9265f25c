"""What the reward and continue predictors train on: all transitions, equally often."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig
from token_worldmodel import TokenBatch, TokenSampler, TokenTrajectories
from wm.config import build_config
from wm.preset import read_preset
from wm.stages.agent import TRANSITION, transitions
from wm.windows import token_sampler

EPISODES, STEPS = 40, 24  # rows are STEPS + 1: the final observation too


def play():
    """Episodes that end in a point lost, after a life gained and, half-way, two lost at once."""
    rows = STEPS + 1
    at = np.arange(EPISODES * rows) % rows
    last = at == STEPS - 1
    return TokenTrajectories(
        tokens=np.zeros((EPISODES * rows, 1), np.int16),
        actions=np.zeros(EPISODES * rows, np.uint8),
        rewards=np.where(last, -1.0, 0.0).astype(np.float32),
        terminated=last,
        truncated=np.zeros_like(last),
        episode_ids=np.repeat(np.arange(EPISODES, dtype=np.int32), rows),
        lives=np.select([at <= STEPS // 4, at <= STEPS // 2], [2, 3], 1).astype(np.uint8),
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_end_is_drawn_as_often_as_any_other_transition(split):
    quantizer = HRVQ(HRVQConfig(dim=2, levels=1, codes=2))
    sampler = TokenSampler(
        {"pong": play()},
        length=TRANSITION,
        batch_size=960,
        seed=0,
        split=split,
        validation_fraction=0.5,
    )
    if split == "train":
        batches = [sampler.batch(step) for step in range(20)]
    else:
        batches = list(sampler.sweep(stride=1))
    found = [transitions(batch, quantizer, life_loss_ends=False) for batch in batches]
    ends = 1 - np.concatenate([batch.continues.numpy() for batch in found])
    lost = np.concatenate([batch.rewards.numpy() for batch in found]) < 0
    assert np.array_equal(ends > 0, lost)
    assert ends.mean() == pytest.approx(1 / STEPS, rel=0.1)
    with_lives = [transitions(batch, quantizer, life_loss_ends=True) for batch in batches]
    ends = 1 - np.concatenate([batch.continues.numpy() for batch in with_lives])
    assert ends.mean() == pytest.approx(2 / STEPS, rel=0.1)


def test_games_are_drawn_in_the_proportions_that_are_set():
    config = build_config(
        read_preset("tiny"), {"games": ["pong", "breakout"], "windows": {"game_weights": [3.0, 1.0]}}
    )
    asked = SimpleNamespace(config=config, device=torch.device("cpu"), previous=None)
    sampler = token_sampler(asked, {"pong": play(), "breakout": play()}, length=2, batch_size=4000)
    assert sampler.batch(0).game_index.float().mean().item() == pytest.approx(0.25, abs=0.03)


def test_an_action_leads_from_its_own_state_to_the_next_and_brings_what_is_recorded_with_it():
    quantizer = HRVQ(HRVQConfig(dim=2, levels=1, codes=7))
    quantizer.set_codebooks([torch.arange(14.0).view(7, 2)])
    none = torch.zeros(2, 3, dtype=torch.bool)
    windows = TokenBatch(
        tokens=torch.tensor([[[0], [1], [2]], [[3], [4], [5]]]),
        actions=torch.tensor([[10, 11, 12], [13, 14, 15]]),
        rewards=torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
        terminated=torch.tensor([[False, False, False], [False, True, False]]),
        truncated=none,
        final=none,
        lives=torch.tensor([[3, 2, 2], [2, 3, 3]]),
        game_index=torch.zeros(2, dtype=torch.int64),
    )
    made = transitions(windows, quantizer, life_loss_ends=True)
    assert made.features.tokens.flatten().tolist() == [0, 1, 3, 4]
    assert made.next_features.tokens.flatten().tolist() == [1, 2, 4, 5]
    assert made.features.dense()[2].tolist() == [6.0, 7.0]
    assert made.actions.tolist() == [10, 11, 13, 14]
    assert made.rewards.tolist() == [0.0, 1.0, 3.0, 4.0]
    assert made.continues.tolist() == [0.0, 1.0, 1.0, 0.0]  # a life lost, and the end; one gained is none
    assert transitions(windows, quantizer, life_loss_ends=False).continues.tolist() == [1.0, 1.0, 1.0, 0.0]

"""Codes that move towards what the other levels leave: `HRVQConfig(joint=True)`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig


def error(q, x, tokens):
    return (x - q.decode(tokens)).square().sum(1).mean().item()


def test_update_by_hand(quantizer):
    codes = [torch.tensor([[0.0], [10.0]]), torch.tensor([[-1.0], [1.0]])]
    q = quantizer(codes, decay=0.5, revive_below=0.0, smoothing=0.0, joint=True)
    # Tokens (0, 1), (0, 1), (1, 0). The other level leaves level 0: 2 - 1, 3 - 1, 9 + 1.
    q.update(torch.tensor([[2.0], [3.0], [9.0]]))
    assert q.counts.tolist() == [1.5, 1.0, 1.0, 1.5]
    # Level 0: (0 + 1 + 2) / 2 / 1.5 = 1, and 10 stays. Level 1 sees 2 - 1, 3 - 1 and 9 - 10.
    assert q.sums.flatten().tolist() == pytest.approx([1.5, 10.0, -1.0, 2.0])
    assert q.table[:-1].flatten().tolist() == pytest.approx([1.0, 10.0, -1.0, 4 / 3])


def test_without_decay_it_is_coordinate_descent(quantizer, random_codebooks, correlated, coordinate_descent):
    x, codebooks = correlated(500), random_codebooks(16, (8, 8, 8))
    q = quantizer(codebooks, decay=0.0, revive_below=0.0, smoothing=0.0, joint=True)
    codes = coordinate_descent(x, q.encode(x), codebooks)
    q.update(x)
    for found, expected in zip(q.codebooks, codes, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
def test_levels_do_not_overshoot_an_error_that_they_share(decay, quantizer, random_codebooks):
    """Eight levels that each went the whole way at once would go eight times as far as they should."""
    q = quantizer(random_codebooks(16, (4,) * 8), decay=decay, revive_below=0.0, smoothing=0.0, joint=True)
    tokens = torch.randint(4, (200, 8))
    x = q.decode(tokens) + 1.0
    before = error(q, x, tokens)
    q.update(x, tokens)
    assert error(q, x, tokens) < (1e-8 if decay == 0 else 0.95 * before)


def test_refined_codes_rest_and_plain_updates_draw_them_back(correlated):
    x, risen = correlated(2000), {}
    for joint in (True, False):
        q = HRVQ(HRVQConfig(dim=16, levels=3, codes=8, revive_below=0.0, joint=joint))
        q.fit(x, refine=50, seed=0)
        refined = error(q, x, q.encode(x))
        for _ in range(50):
            q.update(x)
        risen[joint] = error(q, x, q.encode(x)) / refined
    assert risen[True] < 1.001
    assert risen[False] > 1.02


def test_training_loses_less(correlated):
    x, unseen = correlated(9000).split((8000, 1000))
    errors = {}
    for joint in (False, True):
        q = HRVQ(HRVQConfig(dim=16, levels=3, codes=16, decay=0.8, joint=joint))
        for step in range(60):
            q.update(x[torch.randperm(8000, generator=torch.Generator().manual_seed(step))[:1000]])
        errors[joint] = error(q, unseen, q.encode(unseen))
    assert errors[True] < 0.97 * errors[False]


def test_a_single_level_is_as_without(quantizer, random_codebooks, vectors):
    one, other = (quantizer(random_codebooks(8, (16,)), joint=joint) for joint in (False, True))
    for q in (one, other):
        q.update(vectors(200, 8))
    torch.testing.assert_close(one.table, other.table)
    torch.testing.assert_close(one.sums, other.sums)


def test_positions_and_levels_that_do_not_count(quantizer, random_codebooks, vectors):
    """A masked row is as if it were not there; a row cut after level 0 asks all of its vector of it."""
    x, codebooks = vectors(50, 8), random_codebooks(8, (4, 4))
    masked, without = (quantizer(codebooks, revive_below=0.0, joint=True) for _ in range(2))
    mask = torch.rand(50) < 0.7
    masked.update(torch.where(mask[:, None], x, torch.nan), mask=mask)
    without.update(x[mask])
    torch.testing.assert_close(masked.table, without.table)
    cut = quantizer(codebooks, decay=0.0, revive_below=0.0, smoothing=0.0, joint=True)
    tokens = cut.encode(x)
    tokens[:, 1] = -1
    cut.update(x, tokens)
    for code in tokens[:, 0].unique().tolist():
        torch.testing.assert_close(cut.codebooks[0][code], x[tokens[:, 0] == code].mean(0))
    assert torch.equal(cut.codebooks[1], codebooks[1])


def test_cosine_keeps_level_0_on_the_sphere(vectors):
    x = vectors(500, 8)
    config = HRVQConfig(dim=8, levels=3, codes=16, distance="cosine")
    joint, plain = HRVQ(replace(config, joint=True)), HRVQ(config)
    for _ in range(6):
        joint.update(x)
        plain.update(x)
        assert torch.allclose(joint.codebooks[0].norm(dim=1), torch.ones(16))
    assert error(joint, x, joint.encode(x)) < error(plain, x, plain.encode(x))


def test_a_batch_that_counts_nothing_changes_nothing(quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (4, 4)), joint=True)
    before = [part.clone() for part in (q.table, q.counts, q.sums)]
    q.update(torch.zeros(0, 8))
    q.update(torch.full((3, 8), torch.nan), mask=torch.zeros(3, dtype=torch.bool))
    assert all(torch.equal(a, b) for a, b in zip(before, (q.table, q.counts, q.sums), strict=True))

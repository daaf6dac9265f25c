"""Levels moved together at the end of a fit."""

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig, distortion, perplexity


def fitted(x, **options):
    q = HRVQ(HRVQConfig(dim=16, levels=3, codes=16, commitment_weights=1.0))
    return q, q.fit(x, seed=0, **options)


def test_one_pass_is_coordinate_descent_on_the_codebooks(correlated, coordinate_descent):
    x = correlated(2000)
    before, _ = fitted(x)
    codes = coordinate_descent(x, before.encode(x), before.codebooks)
    after, result = fitted(x, refine=1)
    assert result.refined == 1
    for found, expected in zip(after.codebooks, codes, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_sum_errs_less_and_the_first_level_more(correlated):
    x, unseen = correlated(4000).split((3000, 1000))
    plain, before = fitted(x)
    refined, after = fitted(x, refine=20)
    assert after.distortion[-1] < 0.95 * before.distortion[-1]
    assert after.distortion[0] > before.distortion[0]
    errors = [(unseen - q.decode(q.encode(unseen))).square().sum(1).mean() for q in (plain, refined)]
    assert errors[1] < 0.97 * errors[0]


def test_result_is_what_the_metrics_say(correlated):
    x = correlated(3000)
    q, result = fitted(x, refine=5, batch_size=700)
    tokens = q.encode(x)
    assert result.distortion == pytest.approx(distortion(x, q.level_embeddings(tokens)).tolist(), rel=1e-5)
    assert result.perplexity == pytest.approx(perplexity(tokens, (16, 16, 16)).tolist(), rel=1e-4)
    counts = torch.cat([torch.bincount(tokens[:, level], minlength=16) for level in range(3)])
    torch.testing.assert_close(q.counts, counts * 700 / 3000)  # of an average batch


@pytest.mark.parametrize("rows", [1, 5, 40, 3000])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_it_never_costs_anything(rows, distance, correlated):
    x = correlated(rows)
    config = HRVQConfig(dim=16, levels=4, codes=16, commitment_weights=1.0, distance=distance)
    plain, refined = HRVQ(config), HRVQ(config)
    before, after = plain.fit(x, seed=0), refined.fit(x, seed=0, refine=6)
    assert after.distortion[-1] <= before.distortion[-1] * (1 + 1e-6)
    for coarse, fine in zip(after.distortion, after.distortion[1:], strict=False):
        assert fine <= coarse * (1 + 1e-6)


def test_directions_stay_directions(correlated):
    x = correlated(2000)
    config = HRVQConfig(dim=16, levels=3, codes=16, commitment_weights=1.0, distance="cosine")
    plain, refined = HRVQ(config), HRVQ(config)
    plain.fit(x, seed=0)
    assert refined.fit(x, seed=0, refine=5).refined > 0
    torch.testing.assert_close(plain.codebooks[0], refined.codebooks[0], rtol=0, atol=0)
    assert not torch.equal(plain.codebooks[1], refined.codebooks[1])


def test_a_single_level_is_k_means_for_longer(correlated):
    x = correlated(2000)
    q = HRVQ(HRVQConfig(dim=16, levels=1, codes=32, commitment_weights=1.0))
    short = q.fit(x, epochs=2, seed=0, revive_below=0.0)
    longer = q.fit(x, epochs=2, seed=0, revive_below=0.0, refine=10, tolerance=0.0)
    means = torch.stack([x[q.encode(x)[:, 0] == code].mean(0) for code in range(32)])
    assert longer.distortion[0] < short.distortion[0]
    assert (q.codebooks[0] - means).abs().max() < 0.1 * x.std()


def test_where_the_vectors_come_from_changes_nothing(tmp_path, correlated):
    x = correlated(1000)
    np.save(tmp_path / "x.npy", x.numpy())
    ways = (x, [x[:300], x[300:]], tmp_path / "x.npy")
    whole, parts, from_file = (fitted(way, refine=3)[0] for way in ways)
    for a, b, c in zip(whole.codebooks, parts.codebooks, from_file.codebooks, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
        assert torch.equal(a, c)


def test_progress_tells_of_all_levels_after_the_last(correlated):
    told = []
    _, result = fitted(correlated(500), epochs=2, refine=4, tolerance=0.0, progress=told.append)
    of_all = [each for each in told if each.level == 3]
    assert told[-len(of_all) :] == of_all
    assert [each.epoch for each in of_all] == list(range(len(of_all)))
    assert all(each.epochs == 5 for each in of_all)
    assert min(each.distortion for each in of_all) == result.distortion[-1]
    assert of_all[0].distortion == fitted(correlated(500), epochs=2, tolerance=0.0)[1].distortion[-1]


@pytest.mark.parametrize("refine", [-1, 1.5, True])
def test_a_number_of_passes_is_a_whole_one(refine, correlated):
    q = HRVQ(HRVQConfig(dim=16, levels=1, codes=4))
    with pytest.raises(ValueError, match="refine is"):
        q.fit(correlated(10), refine=refine)
    assert not q.initialized


def test_distances_beyond_float32_end_it(correlated):
    x = correlated(100) * 1e30
    plain, before = fitted(x)
    refined, after = fitted(x, refine=5)
    assert before.distortion == after.distortion == (float("inf"),) * 3
    assert all(torch.equal(a, b) for a, b in zip(plain.codebooks, refined.codebooks, strict=True))

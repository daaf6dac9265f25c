"""How codes start, move, die and come back."""

import copy

import pytest
import torch
from hrvq import HRVQ, HRVQConfig, _blocks, perplexity, usage
from torch.nn.functional import normalize


def test_update_by_hand(quantizer):
    q = quantizer([torch.tensor([[0.0], [10.0]]), torch.tensor([[-1.0], [1.0]])], decay=0.5, revive_below=0.0)
    # Level 0: 2 and 3 choose 0; 9 chooses 10. Level 1 sees 2, 3, -1: tokens 1, 1, 0.
    q.update(torch.tensor([[2.0], [3.0], [9.0]]))
    assert q.counts.tolist() == [1.5, 1.0, 1.0, 1.5]
    assert q.sums.flatten().tolist() == pytest.approx([2.5, 9.5, -1.0, 3.0])
    codes = torch.cat(q.codebooks).flatten().tolist()
    assert codes == pytest.approx([2.5 / 1.5, 9.5, -1.0, 2.0], rel=1e-4)  # smoothing moves the fifth digit


def test_forward_changes_nothing_and_eval_never_learns(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (16, 16)))
    before = copy.deepcopy(q.state_dict())
    q(vectors(100, 8))
    q.eval().update(vectors(100, 8))
    q.train().freeze().update(vectors(100, 8))
    assert all(torch.equal(before[name], value) for name, value in q.state_dict().items())
    with pytest.raises(ValueError, match="frozen"):
        q.initialize(vectors(100, 8))
    with pytest.raises(ValueError, match="frozen"):
        q.fit(vectors(100, 8))


def test_update_searches_when_given_no_tokens(quantizer, random_codebooks, vectors):
    x = vectors(64, 8)
    one, other = (quantizer(random_codebooks(8, (16, 16))) for _ in range(2))
    one.update(x, one(x).tokens)
    other.update(x)
    assert torch.equal(one.table, other.table)


def test_kmeans_start_finds_separate_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    offsets = torch.tensor([[0.1, 0.0], [-0.1, 0.0], [0.0, 0.1], [0.0, -0.1]])
    x = (centres[:, None] + offsets).reshape(-1, 2).repeat(5, 1)
    q = HRVQ(HRVQConfig(dim=2, levels=2, codes=4, commitment_weights=1.0))
    assert not q.initialized
    q.update(x)  # the first update is the start
    assert q.initialized
    found = q.codebooks[0][q.codebooks[0].mul(torch.tensor([1.0, 2.0])).sum(1).argsort()]
    assert torch.allclose(found, centres, atol=1e-5)
    assert torch.allclose(q(x).quantized, x, atol=1e-5)
    assert q.counts.tolist() == [20.0] * 8


def test_a_start_far_from_the_origin_from_many_vectors():
    """The mean of a code is that of its vectors to float32's last digits, however many they are."""
    x = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)) + 100
    q = HRVQ(HRVQConfig(dim=2, levels=1, codes=1, kmeans_iterations=1))
    q.initialize(x)
    assert torch.allclose(q.codebooks[0][0], x.double().mean(0).float(), rtol=0, atol=1e-4)
    assert q.counts.tolist() == [200_000]


def test_the_seed_decides_where_codes_start(vectors):
    tables = []
    for seed in (1, 1, 2, 2**70):
        q = HRVQ(HRVQConfig(dim=8, levels=1, codes=16, kmeans_iterations=0, seed=seed))
        q.update(vectors(100, 8))
        tables.append(q.table)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


@pytest.mark.parametrize("x", [torch.ones(1, 6), torch.ones(50, 6), torch.zeros(3, 6), torch.randn(5, 6)])
def test_few_or_equal_vectors_never_crash(x):
    q = HRVQ(HRVQConfig(dim=6, levels=3, codes=16))
    for _ in range(5):
        q.update(x)
    assert q.table.isfinite().all()
    assert torch.allclose(q.decode(q.encode(x)), x, atol=1e-5)


def test_where_a_batch_is_cut_does_not_matter_to_the_codes(monkeypatch, random_codebooks, vectors):
    """With positions that do not count, levels that are dropped, and codes that are revived."""
    tables = []
    for rows in (300, 64, 1):
        monkeypatch.setattr(_blocks, "ROWS_PER_BLOCK", rows)
        q = HRVQ(HRVQConfig(dim=12, levels=3, codes=32, decay=0.5, revive_below=0.4))
        q.set_codebooks(random_codebooks(12, (32, 32, 32)))
        for step in range(4):
            x = vectors(300, 12, seed=step)
            tokens = torch.where(torch.arange(3) < 1 + torch.arange(300)[:, None] % 3, q.encode(x), -1)
            q.update(x, tokens, torch.arange(300) % 7 > 0)
        tables.append(q.table.clone())
    for table in tables[1:]:
        assert torch.allclose(table, tables[0], atol=1e-5)


def test_a_revived_code_stands_where_the_levels_before_left_a_vector(random_codebooks, vectors):
    codebooks = random_codebooks(12, (8, 8))
    q = HRVQ(HRVQConfig(dim=12, levels=2, codes=8, decay=0.0, revive_below=1e-3))
    q.set_codebooks([codebooks[0], torch.full((8, 12), 100.0)])
    x = vectors(200, 12)
    tokens = q.encode(x)
    q.update(x, tokens)
    left = x - codebooks[0][tokens[:, 0]]
    revived = q.codebooks[1][1:]  # all but the first, which every vector has chosen
    nearest = (revived[:, None] - left).norm(dim=2).amin(1)
    assert nearest.max() < 1e-6


@pytest.mark.parametrize("rows", [1, 4, 200])
def test_dead_codes_come_back_where_vectors_are(rows, vectors):
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=32, commitment_weights=1.0, decay=0.9))
    q.set_codebooks([torch.full((32, 8), 100.0) + torch.arange(32)[:, None], torch.randn(32, 8)])
    x = vectors(2000, 8)
    for step in range(300):
        start = step * rows % 1000
        q.update(x[start : start + rows])
    assert q.table.isfinite().all()
    if rows == 200:
        assert usage(q.encode(x), 32).min() == 1.0
    fitted = HRVQ(q.config).fit(x).distortion[-1]
    error = (q.decode(q.encode(x)) - x).square().sum(1).mean()
    assert error < fitted * {1: 10, 4: 2, 200: 1.3}[rows]


def test_fewer_vectors_than_dead_codes_revive_one_each(quantizer, vectors):
    q = quantizer([torch.zeros(8, 4)], decay=0.5, revive_below=0.49)
    before = torch.full((8, 4), 50.0) + torch.arange(8)[:, None]
    q.set_codebooks([before], [torch.tensor([100.0, 1, 1, 1, 1, 1, 1, 1])])
    x = vectors(3, 4)
    q.update(x)
    moved = (q.codebooks[0] - before).abs().sum(1) > 1
    matches = (torch.cdist(q.codebooks[0], x) < 1e-6).any(0)
    assert moved[1:].sum() == 3
    assert matches.all()


def test_codes_follow_a_drifting_embedding():
    # All vectors start in one narrow cone, as an encoder's do, and end spread out around another direction.
    generator = torch.Generator().manual_seed(0)
    early, late = normalize(torch.randn(2, 32, generator=generator), dim=1)
    q = HRVQ(HRVQConfig(dim=32, levels=3, codes=64))

    def batch(progress):
        centre = (1 - progress) * early + progress * late
        spread = 0.02 + progress * 0.3
        return normalize(centre + spread * torch.randn(256, 32, generator=generator), dim=1)

    for step in range(600):
        q.update(batch(min(1.0, step / 300)))
        if step in (50, 100, 150, 200, 250, 300):  # while it drifts, too
            assert perplexity(q.encode(torch.cat([batch(step / 300) for _ in range(20)])), 64).min() > 32
    tokens = q.encode(torch.cat([batch(1.0) for _ in range(20)]))
    assert usage(tokens, 64).min() > 0.95  # a code just revived may not have found its place yet
    assert perplexity(tokens, 64).min() > 48


def test_without_revival_the_same_drift_collapses():
    generator = torch.Generator().manual_seed(0)
    early, late = normalize(torch.randn(2, 32, generator=generator), dim=1)
    q = HRVQ(HRVQConfig(dim=32, levels=1, codes=64, commitment_weights=1.0, revive_below=0.0))
    q.update(normalize(early + 0.02 * torch.randn(256, 32, generator=generator), dim=1))
    x = normalize(late + 0.3 * torch.randn(256, 32, generator=generator), dim=1)
    for _ in range(300):
        q.update(x)
    assert perplexity(q.encode(x), 64).min() < 32


def test_masked_positions_do_not_count(quantizer, random_codebooks, vectors):
    x = vectors(40, 8).reshape(4, 10, 8)
    mask = torch.arange(10) < torch.tensor([[10], [3], [0], [7]])
    padded = torch.where(mask[..., None], x, torch.nan)
    one, other = (quantizer(random_codebooks(8, (16, 16))) for _ in range(2))
    out, dense = one(padded, mask), other(x[mask])
    assert (out.tokens[~mask] == -1).all()
    assert torch.equal(one.encode(padded, mask), out.tokens)
    assert (out.quantized[~mask] == 0).all()
    assert torch.equal(out.tokens[mask], dense.tokens)
    assert torch.allclose(out.commitment_loss, dense.commitment_loss)
    one.update(padded, out.tokens, mask)
    other.update(x[mask], dense.tokens)
    assert torch.allclose(one.table, other.table, atol=1e-6)
    third = quantizer(random_codebooks(8, (16, 16)))
    third.update(padded, out.tokens)  # they tell what is padding
    assert torch.equal(one.table, third.table)
    fresh = [HRVQ(HRVQConfig(dim=8, levels=1, codes=4, commitment_weights=1.0)) for _ in range(2)]
    fresh[0].initialize(padded, mask)
    fresh[1].initialize(x[mask])
    assert torch.equal(fresh[0].table, fresh[1].table)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("empty", ["no vectors", "all masked"])
def test_a_batch_that_counts_nothing_changes_nothing(empty, decay, quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (16, 16)), decay=decay)
    q.update(vectors(100, 8))
    before = [buffer.clone() for buffer in (q.table, q.counts, q.sums)]
    for _ in range(3):
        if empty == "no vectors":
            q.update(torch.zeros(0, 8))
        else:
            q.update(vectors(5, 8), mask=torch.zeros(5, dtype=torch.bool))
    assert all(map(torch.equal, before, (q.table, q.counts, q.sums)))


def test_codes_stay_finite_without_smoothing_and_decay(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (64,)), decay=0.0, smoothing=0.0, revive_below=0.0)
    unused = torch.bincount(q.encode(vectors(10, 8))[:, 0], minlength=64) == 0
    before = q.codebooks[0].clone()
    q.update(vectors(10, 8))
    assert torch.equal(q.codebooks[0][unused], before[unused])


def test_an_unused_code_rests_without_smoothing_however_long():
    """Its average falls through the smallest floats, whose ratio is any number."""
    q = HRVQ(HRVQConfig(dim=2, levels=1, codes=2, smoothing=0.0, revive_below=0.0))
    q.set_codebooks([torch.tensor([[0.0, 0.0], [20.0, 0.7]])])
    for _ in range(2100):
        q.update(torch.zeros(1, 2))
    assert torch.allclose(q.codebooks[0][1], torch.tensor([20.0, 0.7]), rtol=1e-4)


def test_a_start_from_many_vectors_may_weigh_as_much_as_a_batch(vectors):
    x = vectors(4000, 8)
    whole, scaled = (HRVQ(HRVQConfig(dim=8, levels=2, codes=16)) for _ in range(2))
    whole.initialize(x)
    scaled.initialize(x, batch_size=100)
    assert torch.equal(whole.table, scaled.table)
    assert torch.allclose(scaled.counts, whole.counts / 40)
    assert scaled.counts[:16].sum() == pytest.approx(100)
    moved = [(q, q.table.clone()) for q in (whole, scaled)]
    for q, _ in moved:
        q.update(x[:100] + 1)
    slow, fast = ((q.table - before).norm() for q, before in moved)
    assert fast > 10 * slow
    for bad in (0, 1.5, float("nan"), float("inf"), "a"):
        before = whole.counts.clone()
        with pytest.raises(ValueError, match=f"batch_size is {bad!r}"):
            whole.initialize(x, batch_size=bad)
        assert torch.equal(whole.counts, before)


def test_level_dropout(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (16, 16, 16)), level_dropout=0.5)
    x = vectors(4000, 8)
    full = q.encode(x)
    out = q(x, generator=torch.Generator().manual_seed(1))
    depth = (out.tokens >= 0).sum(1)
    assert torch.equal(out.tokens[depth == 3], full[depth == 3])
    assert torch.equal(out.quantized, q.decode(out.tokens))
    shares = torch.bincount(depth, minlength=4) / 4000
    assert shares[0] == 0
    assert torch.allclose(shares[1:], torch.tensor([0.25, 0.25, 0.5]), atol=0.03)
    again = q(x, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.tokens, out.tokens)
    assert torch.equal(q.eval()(x).tokens, full)
    kept = depth == 3
    expected = 0.25 * (x[kept] - q.decode(full[kept])).square().mean()
    assert torch.allclose(out.commitment_loss[2], expected)


def test_cosine_keeps_level_0_on_the_sphere(vectors):
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=16, commitment_weights=1.0, distance="cosine"))
    x = vectors(500, 8) * torch.rand(500, 1) * 10
    for _ in range(5):
        q.update(x)
        assert torch.allclose(q.codebooks[0].norm(dim=1), torch.ones(16))
    assert torch.equal(q.encode(x), q.encode(x * 7))
    first = q.level_embeddings(q.encode(x))[:, 0]
    best = (normalize(x, dim=1) @ q.codebooks[0].T).amax(1)
    assert torch.allclose((normalize(x, dim=1) * first).sum(1), best, atol=1e-6)


def test_given_codes_of_a_cosine_quantizer_go_onto_the_sphere(quantizer):
    q = quantizer([torch.tensor([[3.0, 0.0], [0.6, 0.8]])], distance="cosine")
    assert torch.allclose(q.codebooks[0], torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    assert q.encode(torch.tensor([[1.0, 0.1]])).tolist() == [[0]]


def test_resuming_from_a_state_dict_repeats_every_bit(vectors):
    config = HRVQConfig(dim=8, levels=2, codes=32, commitment_weights=1.0, decay=0.8)
    x = vectors(640, 8)
    whole, first, second = HRVQ(config), HRVQ(config), HRVQ(config)
    for step in range(10):
        whole.update(x[step * 64 : step * 64 + 64])
    for step in range(5):
        first.update(x[step * 64 : step * 64 + 64])
    second.load_state_dict(first.state_dict())
    for step in range(5, 10):
        second.update(x[step * 64 : step * 64 + 64])
    assert torch.equal(second.table, whole.table)
    assert torch.equal(second.counts, whole.counts)


def test_a_code_does_not_come_back_where_nothing_counts(quantizer):
    q = quantizer([torch.tensor([[5.0], [100.0], [200.0], [300.0]])], decay=0.0, revive_below=0.1)
    x = torch.cat([torch.tensor([[5.0], [5.5], [6.0]]), torch.full((30, 1), 9.0)])
    q.update(x, mask=torch.arange(33) < 3)
    assert set(q.codebooks[0][1:].flatten().tolist()) <= {5.0, 5.5, 6.0}


def test_a_code_revived_two_levels_down_stands_where_both_left_a_vector(random_codebooks, vectors):
    first, far = random_codebooks(12, (8,))[0], torch.full((8, 12), 3.0)
    q = HRVQ(HRVQConfig(dim=12, levels=3, codes=8, decay=0.0, revive_below=1e-3))
    q.set_codebooks([first, far, far])
    x = vectors(200, 12)
    tokens = q.encode(x)
    q.update(x, tokens)
    left = x - first[tokens[:, 0]] - 3.0
    assert (q.codebooks[2][1:][:, None] - left).norm(dim=2).amin(1).max() < 1e-5


def test_smoothing_by_hand(quantizer):
    q = quantizer([torch.tensor([[0.0], [10.0]])], decay=0.5, smoothing=1.0, revive_below=0.0)
    q.update(torch.tensor([[2.0], [3.0], [9.0]]))
    # N = 1.5, 1 and S = 2.5, 9.5; smoothed, N is 2.5 (N + 1) / 4.5 = 1.3889, 1.1111
    assert q.codebooks[0].flatten().tolist() == pytest.approx([1.8, 8.55])


def test_a_revived_code_starts_with_half_the_mean_count(quantizer):
    q = quantizer([torch.tensor([[0.0], [100.0]])], decay=0.5, revive_below=0.4)
    q.update(torch.ones(4, 1))  # N = 2.5 and 0.5, whose mean is 1.5
    assert q.counts.tolist() == pytest.approx([2.5, 0.75])
    assert q.sums.flatten().tolist() == pytest.approx([2.0, 0.75])
    assert q.codebooks[0][1].item() == 1.0


def test_every_update_draws_anew(quantizer):
    given, revived = [torch.tensor([[0.0], [1000.0]])], set()
    q = quantizer(given, decay=0.0, revive_below=0.4)
    for _ in range(5):
        q.set_codebooks(given)
        q.update(torch.arange(1.0, 40.0)[:, None])
        revived.add(q.codebooks[0][1].item())
    assert len(revived) > 1

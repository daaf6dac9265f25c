"""Tokens are the exact greedy nearest codes, whatever path found them."""

import pytest
import torch
from hrvq import HRVQ, _nearest


def exact_tokens(x, codebooks):
    """Brute force in float64 on float32 residuals."""
    tokens, residual = [], x
    for codes in codebooks:
        distance = (residual.double()[:, None] - codes.double()).square().sum(2)
        tokens.append(distance.argmin(1))
        residual = residual - codes[tokens[-1]]
    return torch.stack(tokens, 1)


def test_by_hand(quantizer):
    q = quantizer([torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])])
    x = torch.tensor(
        [[4.0, 2.0], [1.5, 0.0]]
    )  # nearest to (4, 0), then (0, 1); nearest to (0, 0), then (1, 0)
    assert q.encode(x).tolist() == [[1, 1], [0, 0]]
    assert q.decode(q.encode(x)).tolist() == [[4.0, 1.0], [1.0, 0.0]]
    assert q.decode(q.encode(x)[:, :1]).tolist() == [[4.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("dim", "sizes", "rows"), [(1, (2, 2), 50), (3, (7, 1, 5), 33), (64, (100, 17), 300), (48, (1030,), 600)]
)
def test_equals_brute_force(dim, sizes, rows, quantizer, random_codebooks, vectors):
    codebooks = random_codebooks(dim, sizes, seed=dim)
    x = vectors(rows, dim, seed=rows)
    assert torch.equal(quantizer(codebooks).encode(x), exact_tokens(x, codebooks))


@pytest.mark.parametrize("offset", [0.0, 100.0])  # where lengths are taken from the codes' mean as well
def test_what_each_level_leaves(offset, random_codebooks, vectors):
    coarse, *finer = random_codebooks(32, (16, 16, 16))
    codebooks, x = [coarse + offset, *finer], vectors(1100, 32) + offset
    found = _nearest.search_measured(x, codebooks)
    assert torch.equal(found.tokens, _nearest.search(x, codebooks))
    residual = x.double()
    for level, codes in enumerate(codebooks):
        residual = residual - codes.double()[found.tokens[:, level]]
        assert torch.allclose(found.errors[:, level].double(), residual.square().sum(1), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-22, 1e-12, 1e-3, 1e4, 1e20])
def test_equals_brute_force_at_any_scale(scale, quantizer, random_codebooks, vectors):
    codebooks = [codes * scale for codes in random_codebooks(32, (64, 64))]
    x = vectors(200, 32) * scale
    assert torch.equal(quantizer(codebooks).encode(x), exact_tokens(x, codebooks))


def test_near_ties_are_decided_exactly(quantizer, random_codebooks):
    # Pairs of codes far from the origin, different in their last bits: float32 scores see no difference.
    base = random_codebooks(64, (40,))[0] + 30
    codes = torch.cat([base, base.nextafter(base + 1)])
    x = base + torch.randn(40, 64, generator=torch.Generator().manual_seed(3)) * 1e-6
    scores = x @ codes.T - codes.square().sum(1) / 2
    expected = exact_tokens(x, [codes])
    assert not torch.equal(scores.argmax(1), expected[:, 0])
    assert torch.equal(quantizer([codes]).encode(x), expected)


@pytest.mark.parametrize("offset", [3.0, 100.0, 3e4, 1e6])
def test_vectors_far_from_the_origin(offset, monkeypatch, quantizer, random_codebooks, vectors):
    """Scores about the codes' mean are as good there as anywhere, on every path."""
    coarse, fine = random_codebooks(32, (64, 64))
    codebooks, x = [coarse + offset, fine], vectors(1000, 32) + offset
    # float32 leaves few distinct numbers that far away, so two codes may be equally near; the lowest wins.
    expected = exact_tokens(x, codebooks)
    q = quantizer(codebooks)
    assert torch.equal(q.encode(x), expected)
    if offset < 1e6:
        in_doubt = []
        exactly = _nearest._nearest_exactly
        monkeypatch.setattr(
            _nearest,
            "_nearest_exactly",
            lambda rows, level: in_doubt.append(len(rows)) or exactly(rows, level),
        )
        q.encode(x)
        assert sum(in_doubt) < 0.02 * len(x)  # a search in float64 is slow
    parts = [q.encode(part) for part in x.split(3)]
    assert torch.equal(torch.cat(parts), expected)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(q.encode(x), expected)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_fixed_shapes_at_any_scale(scale, monkeypatch, quantizer, random_codebooks, vectors):
    codebooks = [codes * scale for codes in random_codebooks(32, (64, 64))]
    x = vectors(200, 32) * scale
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(quantizer(codebooks).encode(x), exact_tokens(x, codebooks))


def test_one_long_code_puts_no_other_in_doubt(quantizer, random_codebooks, vectors):
    """Its scores are rounded more coarsely than the others differ, but the others' are not."""
    codes = torch.cat([random_codebooks(64, (64,))[0], torch.full((1, 64), 1e8)])
    x = vectors(200, 64)
    assert torch.equal(quantizer([codes]).encode(x), exact_tokens(x, [codes]))


@pytest.mark.parametrize("length", [1e4, 1e6, 1e8])
def test_one_long_code_does_not_move_the_others_out_of_sight(
    length, monkeypatch, quantizer, random_codebooks, vectors
):
    """Nor where shapes are fixed, though a mean of the codes goes where the long one is."""
    codes = torch.cat([random_codebooks(64, (64,))[0], torch.full((1, 64), length)])
    x = vectors(200, 64)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(quantizer([codes]).encode(x), exact_tokens(x, [codes]))


def test_equal_codes_give_the_lowest_index(quantizer, random_codebooks):
    codes = random_codebooks(16, (5,))[0].repeat(3, 1)
    tokens = quantizer([codes]).encode(codes)
    assert tokens[:, 0].tolist() == [0, 1, 2, 3, 4] * 3


def test_a_vector_keeps_its_tokens_in_any_company(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(48, (128, 128, 128)))
    x = vectors(5000, 48)
    whole = q.encode(x)
    torch.set_num_threads(2)
    assert torch.equal(q.encode(x), whole)
    torch.set_num_threads(1)
    for size in (1, 7, 300):
        parts = [q.encode(part) for part in x[: 40 * size].split(size)]
        assert torch.equal(torch.cat(parts), whole[: 40 * size])


def test_lower_matmul_precision_changes_no_token(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(48, (128, 128)))
    x = vectors(1000, 48)
    expected = q.encode(x)
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(q.encode(x), expected)
        assert torch.equal(q.encode(x[:5]), expected[:5])
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("precision", "rounded"), [("high", 11), ("medium", 8)])
def test_products_rounded_as_coarsely_as_the_setting_allows(
    precision, rounded, monkeypatch, quantizer, random_codebooks, vectors
):
    """This CPU may compute in full precision whatever is set; another does not."""

    def coarse(vectors, codes, half_norms):
        scores = plain(vectors, codes, half_norms)
        norms = vectors.norm(dim=1)[:, None] * codes.norm(dim=1) + half_norms
        return scores + norms * 2.0**-rounded * (2 * torch.rand(scores.shape, generator=random) - 1)

    q = quantizer(random_codebooks(16, (3000, 40)))
    x = vectors(1000, 16)
    expected = q.encode(x)
    random, plain = torch.Generator().manual_seed(0), _nearest._scores
    monkeypatch.setattr(_nearest, "_scores", coarse)
    assert not torch.equal(q.encode(x), expected)
    torch.set_float32_matmul_precision(precision)
    try:
        assert torch.equal(q.encode(x), expected)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_products_rounded_as_the_environment_allows(name, monkeypatch):
    """oneDNN reads it by itself; PyTorch's settings still say full precision."""
    assert _nearest._unit_roundoff() == 2.0**-24
    monkeypatch.setenv(name, "strict")
    assert _nearest._unit_roundoff() == 2.0**-24
    monkeypatch.setenv(name, "BF16")
    assert _nearest._unit_roundoff() == 2.0**-8


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="settings of PyTorch 2.9 on")
@pytest.mark.parametrize(
    ("place", "precision"),
    [("cuda.matmul", "tf32"), ("mkldnn.matmul", "bf16"), ("mkldnn.conv", "bf16"), ("mkldnn.conv", "tf32")],
)
def test_tokens_do_not_depend_on_pytorchs_newer_settings(
    place, precision, quantizer, random_codebooks, vectors
):
    """Once one of them is set, PyTorch no longer answers to the older one."""
    q = quantizer(random_codebooks(48, (128, 128)))
    x = vectors(500, 48)
    expected = q.encode(x)
    backend, operation = (getattr(torch.backends, place.split(".")[0]), place.split(".")[1])
    setting = getattr(backend, operation)
    before = setting.fp32_precision
    setting.fp32_precision = precision
    try:
        assert torch.equal(q.encode(x), expected)
        assert torch.equal(q.encode(x[:5]), expected[:5])
    finally:
        setting.fp32_precision = before


def test_the_path_of_fixed_shapes_finds_the_same(monkeypatch, quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(48, (128, 128, 1)))
    x = vectors(1000, 48)
    expected = q.encode(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(q.encode(x), expected)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (0, 5), (2, 3, 4, 5)])
def test_leading_dimensions_are_kept(shape, quantizer, random_codebooks):
    q = quantizer(random_codebooks(5, (8, 8)))
    x = torch.randn(shape)
    out = q(x)
    assert out.tokens.shape == (*shape[:-1], 2)
    assert out.tokens.dtype == torch.int64
    assert out.quantized.shape == shape
    assert out.level_embeddings.shape == (*shape[:-1], 2, 5)
    assert q.decode(out.tokens).shape == shape


def test_forward_encode_and_decode_agree_bit_for_bit(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(48, (128, 64, 32)))
    x = vectors(500, 48)
    out = q(x)
    assert torch.equal(out.tokens, q.encode(x))
    assert torch.equal(out.quantized, q.decode(out.tokens))
    assert torch.equal(out.level_embeddings, q.level_embeddings(out.tokens))
    assert torch.allclose(out.level_embeddings.sum(-2), out.quantized, atol=1e-6)
    assert torch.equal(q.level_embeddings(out.tokens[..., :2]), out.level_embeddings[..., :2, :])


def test_a_prefix_of_the_levels_is_found_alone(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(48, (128, 64, 32)))
    x, mask = vectors(60, 48).reshape(3, 20, 48), torch.arange(20).expand(3, 20) < 15
    for levels in (1, 2, 3):
        assert torch.equal(q.encode(x, mask, levels=levels), q.encode(x, mask)[..., :levels])
    for levels in (0, 4, True):
        with pytest.raises(ValueError, match=f"levels is {levels}; give a whole number from 1 to 3"):
            q.encode(x, levels=levels)


def test_minus_one_decodes_to_nothing(quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (4, 4)))
    tokens = torch.tensor([[2, -1], [-1, -1], [-1, 3]], dtype=torch.int16)
    zero = torch.zeros(8)
    expected = torch.stack([q.codebooks[0][2], zero, q.codebooks[1][3]])
    assert torch.equal(q.decode(tokens), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.int16, torch.int64])
def test_tokens_of_any_integer_type_decode(dtype, quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (4, 4)))
    tokens = torch.tensor([[2, 3], [0, 1]])
    assert torch.equal(q.decode(tokens.to(dtype)), q.decode(tokens))
    assert torch.equal(q.level_embeddings(tokens.to(dtype)), q.level_embeddings(tokens))


def test_one_level_is_a_plain_vq(quantizer, random_codebooks, vectors):
    codes = random_codebooks(6, (10,))
    q = quantizer(codes)
    assert isinstance(q, HRVQ)
    x = vectors(20, 6)
    assert torch.equal(q.encode(x)[:, 0], torch.cdist(x.double(), codes[0].double()).argmin(1))


def test_codes_equally_far_but_for_rounding_give_the_lowest_index(quantizer):
    """Permutations of one code: even in float64 their scores differ in the last digits."""
    draw = torch.Generator().manual_seed(0)
    code = torch.randn(64, generator=draw)
    codes = torch.stack([code[torch.randperm(64, generator=draw)] for _ in range(40)])
    assert quantizer([codes]).encode(torch.full((3, 64), 0.1)).tolist() == [[0]] * 3

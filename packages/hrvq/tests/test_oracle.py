"""The same codes do the same as in vector-quantize-pytorch."""

import re
from pathlib import Path

import hrvq
import pytest
import torch
from vector_quantize_pytorch import ResidualVQ, VectorQuantize


def residual_vq(codebooks, **options):
    theirs = ResidualVQ(
        dim=codebooks[0].shape[1],
        codebook_size=tuple(len(codes) for codes in codebooks),
        num_quantizers=len(codebooks),
        threshold_ema_dead_code=0,
        **options,
    )
    for layer, codes in zip(theirs.layers, codebooks, strict=True):
        layer._codebook.embed.copy_(codes[None])
        layer._codebook.embed_avg.copy_(codes[None])
        layer._codebook.cluster_size.fill_(1)
    return theirs


@pytest.mark.parametrize("seed", range(12))
def test_tokens_and_vectors(seed, quantizer, random_codebooks, vectors):
    random = torch.Generator().manual_seed(seed)
    dim, levels, size, rows = (
        int(torch.randint(1, high, (), generator=random)) for high in (96, 6, 200, 400)
    )
    codebooks = random_codebooks(dim, (size,) * levels, seed)
    x = vectors(rows, dim, seed)
    theirs = residual_vq(codebooks).eval()
    with torch.no_grad():
        quantized, tokens, _ = theirs(x[None])
    ours = quantizer(codebooks)
    same = (ours.encode(x) == tokens[0]).all(1)
    # They may differ where two codes are equally near in float32; ours is then no farther.
    first = ours.codebooks[0].double()
    ours_error, theirs_error = ((x - first[found[:, 0]]).norm(dim=1) for found in (ours.encode(x), tokens[0]))
    assert (ours_error <= theirs_error).all()
    assert same.float().mean() > 0.99
    assert torch.allclose(ours.decode(tokens[0])[same], quantized[0][same], atol=1e-6)


@pytest.mark.parametrize("decay", [0.8, 0.99])
def test_ema_update(decay, quantizer, random_codebooks, vectors):
    codebooks = random_codebooks(24, (16, 12))
    x = vectors(256, 24)
    theirs = residual_vq(codebooks, decay=decay).train()
    theirs(x[None])
    ours = quantizer(codebooks, decay=decay, revive_below=0.0)
    ours.counts.fill_(1)
    ours.sums.copy_(torch.cat(codebooks))
    ours.update(x, ours(x).tokens)
    for layer, codes in zip(theirs.layers, ours.codebooks, strict=True):
        assert torch.allclose(layer._codebook.embed[0], codes, atol=1e-6)
    assert torch.allclose(
        torch.cat([layer._codebook.cluster_size[0] for layer in theirs.layers]), ours.counts
    )


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_gradient_through_one_level(gradient, quantizer, random_codebooks, vectors):
    codes = random_codebooks(16, (32,))
    theirs = VectorQuantize(
        dim=16,
        codebook_size=32,
        commitment_weight=0.0,
        rotation_trick=gradient == "rotation",
        threshold_ema_dead_code=0,
    )
    theirs._codebook.embed.copy_(codes[0][None])
    theirs.train()
    ours = quantizer(codes, gradient=gradient)
    x = vectors(64, 16)
    towards = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(ours_x).quantized * towards).sum().backward()
    (theirs(theirs_x[None])[0][0] * towards).sum().backward()
    assert torch.allclose(ours_x.grad, theirs_x.grad, atol=1e-5)


def test_cosine_with_one_level(quantizer, random_codebooks, vectors):
    codes = [torch.nn.functional.normalize(random_codebooks(16, (32,))[0], dim=1)]
    theirs = VectorQuantize(dim=16, codebook_size=32, use_cosine_sim=True).eval()
    theirs._codebook.embed.copy_(codes[0][None])
    x = vectors(200, 16) * 3
    with torch.no_grad():
        quantized, tokens, _ = theirs(x[None])
    ours = quantizer(codes, distance="cosine")
    assert torch.equal(ours.encode(x)[:, 0], tokens[0])
    assert torch.allclose(ours(x).quantized, quantized[0], atol=1e-6)


def test_the_readmes_way_in_for_trained_codes(vectors):
    """Same tokens, and the next update is theirs too."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (block,) = re.findall(r"^```python\n(def from_residual_vq.*?)^```", readme, re.DOTALL | re.MULTILINE)
    namespace = dict(vars(hrvq))
    exec(block, namespace)
    torch.manual_seed(0)
    theirs = ResidualVQ(dim=24, num_quantizers=2, codebook_size=16, kmeans_init=True, decay=0.9).train()
    for seed in range(5):
        theirs(vectors(256, 24, seed)[None])
    ours = namespace["from_residual_vq"](theirs, decay=0.9, revive_below=0.0)
    x = vectors(256, 24, seed=9)
    with torch.no_grad():
        quantized, tokens, _ = theirs.eval()(x[None])
    assert (ours.encode(x) == tokens[0]).float().mean() > 0.99
    assert torch.allclose(ours.decode(tokens[0]), quantized[0], atol=1e-6)
    theirs.train()(x[None])
    ours.update(x, tokens[0])
    for layer, codes in zip(theirs.layers, ours.codebooks, strict=True):
        assert torch.allclose(layer._codebook.embed[0], codes, atol=1e-4)

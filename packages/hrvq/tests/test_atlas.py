import torch
from hrvq import atlas


def test_examples_are_the_nearest_of_those_that_chose_the_code(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (6, 40)))
    x = vectors(300, 8)
    tokens = q.encode(x)
    pages = atlas(q, x, examples=5, batch_size=64)
    residual = x
    for level, page in enumerate(pages):
        error = (residual - q.codebooks[level][tokens[:, level]]).square().sum(1)
        for code in range(len(page.counts)):
            members = (tokens[:, level] == code).nonzero().squeeze(1)
            assert page.counts[code] == len(members)
            expected = members[error[members].argsort()][:5].tolist()
            assert page.examples[code].tolist() == expected + [-1] * (5 - len(expected))
        residual = residual - q.codebooks[level][tokens[:, level]]
    assert torch.equal(atlas(q, [x[:100], x[100:]], examples=5)[1].examples, pages[1].examples)


def test_of_cosine_distance_only_directions_count(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (6, 40)), distance="cosine")
    x = vectors(300, 8)
    scaled = x * 2.0 ** (torch.arange(300)[:, None] % 5)  # by powers of two, so that nothing is rounded
    for page, other in zip(atlas(q, x), atlas(q, scaled), strict=True):
        assert torch.equal(page.counts, other.counts)
        assert torch.equal(page.examples, other.examples)

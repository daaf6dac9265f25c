"""What reaches the input, and under which machinery."""

import pytest
import torch
from hrvq import _blocks, _nearest
from hrvq._gradients import rotation


@pytest.mark.parametrize("level", [0, 1, 2])
def test_commitment_gradient_of_each_level(level, quantizer, random_codebooks, vectors):
    weights = (0.05, 0.25, 0.6)
    q = quantizer(random_codebooks(12, (8, 8, 8)), commitment_weights=weights)
    x = vectors(30, 12).requires_grad_()
    out = q(x)
    out.commitment_loss[level].backward()
    # d/dx w |x - (c_0 + ... + c_l)|^2 / (N D), the codes held constant
    rest = x.detach() - out.level_embeddings[:, : level + 1].sum(1)
    assert torch.allclose(x.grad, 2 * weights[level] * rest / x.numel(), atol=1e-8)
    assert x.grad.abs().max() > 0
    assert torch.allclose(out.commitment_loss[level], weights[level] * rest.square().mean())


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
@pytest.mark.parametrize("silence", [0.0, 1e-9])
def test_silence_has_no_louder_gradient_than_sound(
    silence, gradient, distance, quantizer, random_codebooks, vectors
):
    q = quantizer(random_codebooks(12, (16, 8)), gradient=gradient, distance=distance)
    x = vectors(30, 12)
    x[7] *= silence
    x.requires_grad_()
    out = q(x)
    (out.quantized.square().sum() + out.commitment_loss.sum()).backward()
    lengths = x.grad.norm(dim=1)
    assert x.grad.isfinite().all()
    assert lengths[7] <= 10 * lengths.median()
    assert (lengths[:7] > 0).all()
    assert torch.equal(out.quantized, q.decode(out.tokens))


@pytest.mark.parametrize("shape", [(30, 12), (5, 6, 12)])
def test_what_is_quantized_may_be_changed_in_place(shape, quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(12, (8, 8)), gradient="straight_through")
    x = vectors(30, 12).reshape(shape).requires_grad_()
    out = q(x)
    out.quantized.mul_(2).add_(1)
    (out.quantized.sum() + out.commitment_loss.sum()).backward()
    (pull,) = torch.autograd.grad(q(x).commitment_loss.sum(), x)
    assert torch.allclose(x.grad, 2 + pull)
    assert torch.equal(out.quantized, 2 * q.decode(out.tokens) + 1)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_gradients_of_gradients(gradient, quantizer, random_codebooks, vectors):
    """As a gradient penalty takes them: of the commitment, 2 w / (N D) for each level."""
    q = quantizer(random_codebooks(12, (8, 8)), gradient=gradient, commitment_weights=(0.5, 0.25))
    x = vectors(30, 12).requires_grad_()
    out = q(x)
    loss = out.commitment_loss.sum() + (out.quantized * x).sum()
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    assert first.requires_grad
    (pull,) = torch.autograd.grad(q(x).commitment_loss.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(pull.sum(), x)
    assert torch.allclose(second, torch.full_like(x, 2 * 0.75 / x.numel()))


def test_masked_positions_get_no_gradient(quantizer, random_codebooks, vectors):
    for gradient in ("straight_through", "rotation"):
        q = quantizer(random_codebooks(12, (8, 8)), gradient=gradient)
        x = vectors(30, 12).requires_grad_()
        mask = torch.arange(30) < 20
        out = q(x, mask)
        (out.quantized.sum() + out.commitment_loss.sum()).backward()
        assert (x.grad[20:] == 0).all()
        assert (x.grad[:20] != 0).any(1).all()


def test_straight_through_is_the_identity(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(12, (8, 8)))
    x = vectors(30, 12).requires_grad_()
    towards = torch.randn(30, 12)
    (q(x).quantized * towards).sum().backward()
    assert torch.equal(x.grad, towards)


def test_rotation_turns_the_gradient_with_the_vector(quantizer, vectors):
    """J^T q/|q| = |q|/|x| x/|x|: along the code maps back to along the input; lengths scale by |q|/|x|."""
    q = quantizer([vectors(8, 12, seed=1) * 2], gradient="rotation")
    x = (vectors(30, 12) * 3).requires_grad_()
    out = q(x)
    assert torch.equal(out.quantized, q.decode(out.tokens))
    values = out.quantized.detach()
    scale = values.norm(dim=1, keepdim=True) / x.detach().norm(dim=1, keepdim=True)
    (out.quantized * values / values.norm(dim=1, keepdim=True)).sum().backward()
    expected = scale * x.detach() / x.detach().norm(dim=1, keepdim=True)
    assert torch.allclose(x.grad, expected, atol=1e-5)
    x.grad = None
    towards = torch.randn(30, 12)
    (q(x).quantized * towards).sum().backward()
    assert torch.allclose(x.grad.norm(dim=1), scale[:, 0] * towards.norm(dim=1), atol=1e-4)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_where_a_batch_is_cut_changes_no_loss_and_no_gradient(
    gradient, monkeypatch, quantizer, random_codebooks, vectors
):
    q = quantizer(random_codebooks(12, (8, 8, 8)), gradient=gradient)
    mask, towards = torch.arange(50) % 5 > 0, torch.randn(50, 12)
    results = []
    for rows in (50, 7, 1):
        monkeypatch.setattr(_blocks, "ROWS_PER_BLOCK", rows)
        x = vectors(50, 12).requires_grad_()
        out = q(x, mask)
        ((out.quantized * towards).sum() + out.commitment_loss.sum()).backward()
        results.append((out.commitment_loss.detach(), x.grad))
    for losses, slopes in results[1:]:
        assert torch.allclose(losses, results[0][0], rtol=1e-5)
        assert torch.equal(slopes, results[0][1])


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_no_vectors_have_a_gradient_too(gradient, quantizer, random_codebooks):
    q = quantizer(random_codebooks(12, (8, 8)), gradient=gradient)
    x = torch.zeros(0, 12, requires_grad=True)
    out = q(x)
    (out.quantized.sum() + out.commitment_loss.sum()).backward()
    assert x.grad.shape == (0, 12)
    assert out.commitment_loss.tolist() == [0, 0]


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_codes_may_move_before_the_gradient_is_asked_for(gradient, quantizer, random_codebooks, vectors):
    slopes = []
    for early in (False, True):
        q = quantizer(random_codebooks(12, (8, 8)), gradient=gradient)
        x = vectors(30, 12).requires_grad_()
        out = q(x)
        if early:
            q.update(x.detach(), out.tokens)
        (out.quantized.square().sum() + out.commitment_loss.sum()).backward()
        slopes.append(x.grad)
    assert torch.equal(*slopes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_in_and_out(dtype, quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(12, (8, 8)))
    x = vectors(30, 12).to(dtype)
    out = q(x)
    assert out.quantized.dtype == out.level_embeddings.dtype == dtype
    assert out.commitment_loss.dtype == torch.float32
    assert torch.equal(out.tokens, q.encode(x.float()))


def test_autocast_changes_nothing(quantizer, random_codebooks, vectors):
    one, other = (quantizer(random_codebooks(48, (64, 64))) for _ in range(2))
    x = vectors(300, 48)
    expected = one(x)
    one.update(x, expected.tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = other(x)
        assert torch.equal(other.encode(x), expected.tokens)
        other.update(x)
    assert torch.equal(out.quantized, expected.quantized)
    assert torch.equal(out.commitment_loss, expected.commitment_loss)
    assert torch.equal(one.table, other.table)


@pytest.mark.filterwarnings("ignore:Guards may run slower")  # torch about Python 3.13.0
@pytest.mark.parametrize(
    "options", [{}, {"gradient": "rotation", "distance": "cosine", "level_dropout": 0.5}]
)
def test_compiles_whole_and_once(options, quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(12, (8, 8)), **options)
    frames = 0

    def backend(graph, _):
        nonlocal frames
        frames += 1
        return graph.forward

    compiled = torch.compile(q, backend=backend, fullgraph=True)
    for seed in range(3):
        x = vectors(40, 12, seed).requires_grad_()
        y = x.detach().clone().requires_grad_()
        torch.manual_seed(seed)
        expected = q(y)
        torch.manual_seed(seed)
        out = compiled(x)
        assert torch.equal(out.tokens, expected.tokens)
        assert torch.allclose(out.quantized, expected.quantized)
        assert torch.allclose(out.commitment_loss, expected.commitment_loss)
        (out.quantized.sum() + out.commitment_loss.sum()).backward()
        (expected.quantized.sum() + expected.commitment_loss.sum()).backward()
        assert torch.allclose(x.grad, y.grad, atol=1e-6)
        q.update(x.detach(), out.tokens)
    assert frames == 1


@pytest.mark.filterwarnings("ignore:Guards may run slower")
def test_one_graph_for_any_number_of_rows(monkeypatch, quantizer, random_codebooks, vectors):
    """Blocks, which bound the memory otherwise, would fix their number."""
    monkeypatch.setattr(_nearest, "_ROWS_PER_DEVICE_BLOCK", 16)
    q = quantizer(random_codebooks(12, (8, 8)))
    frames = 0

    def backend(graph, _):
        nonlocal frames
        frames += 1
        return graph.forward

    compiled = torch.compile(q, backend=backend, fullgraph=True, dynamic=True)
    for rows in (40, 100, 150, 20):
        x = vectors(rows, 12)
        assert torch.equal(compiled(x).tokens, q(x).tokens)
    assert frames == 1


@pytest.mark.filterwarnings("ignore:Guards may run slower")
def test_levels_drop_in_a_compiled_batch_of_another_size(quantizer, random_codebooks, vectors):
    """The last batch of an epoch is shorter."""
    q = quantizer(random_codebooks(12, (8, 8, 8)), level_dropout=0.5)
    compiled = torch.compile(q, backend="aot_eager")
    for rows in (40, 100, 30):
        x = vectors(rows, 12)
        torch.manual_seed(rows)
        expected = q(x)
        torch.manual_seed(rows)
        assert torch.equal(compiled(x).quantized, expected.quantized)


@pytest.mark.parametrize(("length", "gradient"), [(2e-3, [500.0, 0.0]), (5e-4, [0.0, 1.0])])
def test_rotation_by_hand_about_the_length_at_which_it_begins(length, gradient):
    x = torch.tensor([[length, 0.0]], requires_grad=True)
    rotation(x, torch.tensor([[0.0, 1.0]]))[0, 1].backward()
    assert x.grad[0].tolist() == pytest.approx(gradient, rel=1e-5, abs=1e-3)

"""The codes stay what they are: converted, averaged, copied to other ranks, built on no device."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig, atlas, usage
from torch import nn


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_converted_model_keeps_its_codes(dtype, quantizer, random_codebooks, vectors):
    codes = random_codebooks(12, (16, 16))
    model = nn.Sequential(nn.Identity(), quantizer(codes)).to(dtype)
    x = vectors(64, 12).to(dtype)
    out = model(x)
    assert out.quantized.dtype == dtype
    assert all(torch.equal(kept, given) for kept, given in zip(model[1].codebooks, codes, strict=True))
    assert torch.equal(out.tokens, quantizer(codes).encode(x))
    assert model[1].decode(out.tokens).dtype == torch.float32
    model[1].update(x, out.tokens)
    assert model[1].counts.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_programs_defaults_change_nothing(dtype, vectors):
    x = vectors(200, 12)

    def work():
        q = HRVQ(HRVQConfig(dim=12, levels=2, codes=16, level_dropout=0.5, revive_below=0.4))
        q.fit(x, epochs=2)
        q.initialize(x)
        out = q(x, generator=torch.Generator().manual_seed(0))
        q.update(x)
        page = atlas(q, x)[1]
        q.set_codebooks(q.codebooks)
        return [*out, page.examples, *q.state_dict().values(), usage(out.tokens, 16), q.encode(x)]

    expected = work()
    try:
        torch.set_default_dtype(dtype)
        found = work()
    finally:
        torch.set_default_dtype(torch.float32)
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in expected]
    assert all(map(torch.equal, found, expected))


def test_the_programs_default_device_changes_nothing(quantizer, random_codebooks, vectors):
    q, x = quantizer(random_codebooks(12, (16, 16))), vectors(20, 12)
    expected = q(x)
    with torch.device("meta"):
        assert torch.equal(q.encode(x), expected.tokens)
        assert torch.equal(q(x).quantized, expected.quantized)


def test_whoever_copies_the_buffers_copies_the_quantizer(vectors):
    """As `torch.optim.swa_utils.AveragedModel` and the constructor of `DistributedDataParallel` do."""
    q, other = (HRVQ(HRVQConfig(dim=8, levels=2, codes=16)) for _ in range(2))
    q.update(vectors(100, 8))
    q.update(vectors(100, 8, seed=1))
    assert not other.initialized
    for mine, yours in zip(other.buffers(), q.buffers(), strict=True):
        mine.copy_(yours)
    resumed = HRVQ(q.config)
    resumed.load_state_dict(other.state_dict())  # before anything has asked the copy
    assert resumed.initialized
    assert other.initialized
    for each in (q, other, resumed):
        each.update(vectors(100, 8, seed=2))
    assert torch.equal(q.table, other.table)
    assert torch.equal(q.table, resumed.table)
    assert torch.equal(q.get_extra_state(), other.get_extra_state())


def test_buffers_copied_onto_a_used_quantizer_bring_their_step(vectors):
    """The step decides where dead codes move, so copies of one quantizer must agree about it."""
    q = HRVQ(HRVQConfig(dim=8, levels=1, codes=32, decay=0.5, revive_below=0.4))
    q.update(vectors(100, 8))
    other = copy.deepcopy(q)
    for seed in range(5):
        q.update(vectors(40, 8, seed))
    for mine, yours in zip(other.buffers(), q.buffers(), strict=True):
        mine.copy_(yours)
    for each in (q, other):
        each.update(vectors(40, 8, seed=9) + 1)
        assert int(each.get_extra_state()[0]) == 7
    assert torch.equal(q.table, other.table)


def test_an_averaged_model_can_be_used(vectors):
    model = nn.Sequential(nn.Linear(8, 8), HRVQ(HRVQConfig(dim=8, levels=2, codes=16)))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    model[1].initialize(model[0](vectors(100, 8)).detach())
    averaged.update_parameters(model)
    assert torch.equal(averaged(vectors(5, 8)).tokens, model(vectors(5, 8)).tokens)


def test_an_average_of_the_floating_point_buffers_alone_can_be_used(vectors, tmp_path):
    """As several libraries of moving averages make it, which leaves out the number of steps."""
    q, x = HRVQ(HRVQConfig(dim=8, levels=2, codes=16)), vectors(100, 8)
    average = copy.deepcopy(q)
    q.update(x)
    floating = {name for name, buffer in q.named_buffers() if buffer.is_floating_point()}
    for name in floating:
        average.get_buffer(name).copy_(q.get_buffer(name))
    average.save(tmp_path / "average")
    for each in (average, HRVQ.load(tmp_path / "average")):
        assert torch.equal(each.encode(x), q.encode(x))


@pytest.mark.parametrize("decay", [0.9, 0.9995, 0.9999])
def test_an_average_of_all_buffers_decodes_by_the_right_codes(decay, vectors):
    """Whole numbers are averaged too, and rounded down."""
    swa = torch.optim.swa_utils
    q = HRVQ(HRVQConfig(dim=4, levels=4, codes=(300, 700, 24, 3)))
    q.update(vectors(1500, 4))
    averaged = swa.AveragedModel(q, multi_avg_fn=swa.get_ema_multi_avg_fn(decay), use_buffers=True)
    for _ in range(3):
        averaged.update_parameters(q)
    tokens = q.encode(vectors(50, 4))
    expected = sum(codes[tokens[:, level]] for level, codes in enumerate(averaged.module.codebooks))
    torch.testing.assert_close(averaged.module.decode(tokens), expected)


def test_a_table_that_is_moved_alone_is_found(vectors):
    """As `DataParallel` and `fully_shard` do, which move buffers one by one."""
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=16))
    q.update(vectors(100, 8))
    with torch.device("cpu"):
        q.table = q.table.to("meta")
        assert q.decode(torch.zeros(3, 2, dtype=torch.int64, device="meta")).shape == (3, 8)


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_fills_a_quantizer_built_on_no_device(assign, vectors):
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=(16, 8)))
    q.update(vectors(100, 8))
    with torch.device("meta"):
        other = HRVQ(q.config)
    if not assign:
        other = other.to_empty(device="cpu")
    other.load_state_dict(q.state_dict(), assign=assign)
    x = vectors(20, 8)
    assert torch.equal(other.encode(x), q.encode(x))
    assert torch.equal(other.decode(q.encode(x)), q.decode(q.encode(x)))


def test_one_given_its_memory_later_is_new(vectors, monkeypatch):
    x, config = vectors(100, 8), HRVQConfig(dim=8, levels=2, codes=16, commitment_weights=(0.25, 0.5))
    with torch.device("meta"):
        later = HRVQ(config)
    with monkeypatch.context() as patch:  # the memory may hold anything
        patch.setattr(torch, "empty_like", lambda x, device: torch.full_like(x, 3, device=device))
        later.to_empty(device="cpu")
    assert not later.initialized
    new = HRVQ(config)
    for q in (later, new):
        q.initialize(x)
    assert torch.equal(later.table, new.table)
    assert torch.equal(later(x).commitment_loss, new(x).commitment_loss)


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_of_another_precision_is_taken_as_float32(assign, vectors):
    """As of a checkpoint that was halved to save space."""
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=16))
    q.update(vectors(100, 8))
    halved = {name: t.bfloat16() if t.is_floating_point() else t for name, t in q.state_dict().items()}
    other = HRVQ(q.config)
    other.load_state_dict(halved, assign=assign)
    assert {t.dtype for t in (other.table, other.counts, other.sums)} == {torch.float32}
    assert torch.equal(other.table, q.table.bfloat16().float())
    other.update(vectors(100, 8, seed=1), other(vectors(100, 8, seed=1)).tokens)


def test_copies_stay_frozen(quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (4,))).freeze()
    assert copy.deepcopy(q).frozen
    assert pickle.loads(pickle.dumps(q)).frozen


def test_it_prints_its_shape(quantizer, random_codebooks):
    assert repr(quantizer(random_codebooks(8, (16, 4)))) == "HRVQ(dim=8, codes=16 + 4)"


def test_the_state_of_other_codes_is_refused_and_changes_nothing(vectors):
    """80 codes in all of them: cut at other places they would be other levels."""
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=(64, 16)))
    q.update(vectors(200, 8))
    for config in (
        HRVQConfig(dim=8, levels=2, codes=(16, 64)),
        HRVQConfig(dim=8, levels=4, codes=20),
        HRVQConfig(dim=8, levels=2, codes=(32, 16)),
        HRVQConfig(dim=4, levels=2, codes=(64, 16)),
    ):
        other = nn.Sequential(HRVQ(config))
        with pytest.raises(RuntimeError, match="this quantizer has codes"):
            other.load_state_dict({f"0.{name}": part for name, part in q.state_dict().items()})
        assert not other[0].initialized
        with pytest.raises(ValueError, match="the codes are still empty"):
            other[0].encode(vectors(3, config.dim))


@pytest.mark.parametrize("name", ["table", "counts", "sums"])
def test_a_state_of_which_one_part_does_not_fit_changes_nothing(name, vectors):
    q, other = (HRVQ(HRVQConfig(dim=8, levels=2, codes=16)) for _ in range(2))
    q.update(vectors(100, 8))
    other.update(vectors(100, 8, seed=1))
    before = {key: part.clone() for key, part in other.state_dict().items()}
    with pytest.raises(RuntimeError, match=f"holds {name} of \\(3,"):
        other.load_state_dict(q.state_dict() | {name: q.state_dict()[name][:3]})
    for key, part in other.state_dict().items():
        assert torch.equal(part, before[key]), key


def test_a_state_that_does_not_say_its_sizes_is_taken(vectors):
    """As state dicts of an older version are."""
    q, other = (HRVQ(HRVQConfig(dim=8, levels=2, codes=16)) for _ in range(2))
    q.update(vectors(100, 8))
    other.load_state_dict(q.state_dict() | {"_extra_state": torch.tensor([1])})
    assert torch.equal(other.encode(vectors(9, 8)), q.encode(vectors(9, 8)))
    assert int(other.get_extra_state()[0]) == 1


def test_what_inference_mode_has_read_learns_on(vectors):
    q, other = (HRVQ(HRVQConfig(dim=8, levels=2, codes=16)) for _ in range(2))
    q.update(vectors(100, 8))
    with torch.inference_mode():
        other.load_state_dict(q.state_dict())
    for each in (q, other):
        each.update(vectors(100, 8, seed=1))
    assert torch.equal(q.table, other.table)


def test_its_own_codes_in_another_order_are_put_in_place(vectors):
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=16))
    q.update(vectors(100, 8))
    first, second = (codes.clone() for codes in q.codebooks)
    q.set_codebooks(q.codebooks[::-1])
    assert torch.equal(q.codebooks[0], second)
    assert torch.equal(q.codebooks[1], first)


def test_a_file_is_read_whatever_the_programs_device_is(tmp_path, vectors):
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=16))
    q.update(vectors(100, 8))
    q.save(tmp_path / "q.safetensors")
    with torch.device("meta"):
        again = HRVQ.load(tmp_path / "q.safetensors")
    assert torch.equal(again.encode(vectors(9, 8)), q.encode(vectors(9, 8)))


def test_sizes_may_be_numpys_and_go_into_a_file(tmp_path, vectors):
    eight, two = np.int64(8), np.int32(2)
    q = HRVQ(HRVQConfig(dim=eight, levels=two, codes=[np.int64(4), np.uint8(3)], seed=np.int64(1)))
    assert q.config == HRVQConfig(dim=8, levels=2, codes=(4, 3), seed=1)
    q.update(vectors(100, 8))
    q.save(tmp_path / "q.safetensors")
    assert HRVQ.load(tmp_path / "q.safetensors").config == q.config


def test_one_made_in_inference_mode_can_learn_outside_it() -> None:
    with torch.inference_mode():
        quantizer = HRVQ(HRVQConfig(dim=4, codes=8))
    x = torch.randn(64, 4)
    quantizer.initialize(x)
    quantizer.update(x)
    assert quantizer.initialized

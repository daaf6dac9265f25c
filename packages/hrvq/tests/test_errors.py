"""What a user can get wrong is one clear ValueError, and changes nothing."""

import copy

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig, atlas, usage
from safetensors.torch import save_file


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"dim": 1.5}, "dim is 1.5"),
        ({"levels": True}, "levels is True"),
        ({"levels": 10**12}, "levels is 1000000000000; give at most 1000"),
        ({"codes": 0}, "codes is 0"),
        ({"codes": (4, 4)}, "2 entries for 3 levels"),
        ({"codes": "256"}, "codes is '256'"),
        ({"commitment_weights": (1.0,)}, "1 entries for 3 levels"),
        ({"commitment_weights": -1.0}, "commitment_weights is -1.0"),
        ({"commitment_weights": (1.0, float("nan"), 1.0)}, "finite"),
        ({"decay": 1.0}, "decay is 1.0"),
        ({"decay": None}, "decay is None"),
        ({"revive_below": "0.1"}, "revive_below is '0.1'"),
        ({"commitment_weights": None}, "commitment_weights is None"),
        ({"smoothing": -1.0}, "smoothing is -1.0"),
        ({"revive_below": 0.5}, "revive_below is 0.5"),
        ({"kmeans_iterations": -1}, "kmeans_iterations is -1"),
        ({"gradient": "none"}, "straight_through, rotation"),
        ({"distance": "manhattan"}, "euclidean, cosine"),
        ({"level_dropout": 2.0}, "level_dropout is 2.0"),
        ({"level_dropout": True}, "level_dropout is True; give a probability"),
        ({"commitment_weights": (True, 1.0, 1.0)}, "finite numbers"),
        ({"joint": 1}, "joint is 1; give true or false"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.0}, "seed is 0.0"),
        ({"seed": False}, "seed is False"),
        ({"kmeans_iterations": 0.0}, "kmeans_iterations is 0.0"),
    ],
)
def test_config(bad, message):
    with pytest.raises(ValueError, match=message):
        HRVQConfig(**{"dim": 8} | bad)


def test_config_from_json():
    assert HRVQConfig.from_dict({"dim": 8, "codes": [8, 4, 2]}).codes == (8, 4, 2)
    with pytest.raises(ValueError, match="colour"):
        HRVQConfig.from_dict({"colour": 1})
    with pytest.raises(ValueError, match="dim is missing"):
        HRVQConfig.from_dict({"levels": 2})


def nan_at(value):
    x = torch.randn(6, 8, dtype=torch.float64)
    x[3, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.randn(6, 7), r"\(6, 7\).*dim = 8"),
        (torch.tensor(1.0), "dim = 8"),
        (torch.zeros(6, 8, dtype=torch.int64), "int64"),
        (nan_at(torch.nan).float(), "in 1 of 6 vectors"),
        (nan_at(torch.inf).half(), "in 1 of 6 vectors"),
        (nan_at(1e300), "in 1 of 6 vectors"),
        (torch.randn(6, 8, device="meta"), "meta"),
        ([[0.0] * 8], "list; give a torch tensor"),
        (torch.randn(6, 8).numpy(), "ndarray; give a torch tensor"),
    ],
)
def test_vectors(x, message, quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (16, 16)))
    before = copy.deepcopy(q.state_dict())
    for use in (q, q.encode, q.update, q.initialize):
        with pytest.raises(ValueError, match=message):
            use(x)
    assert all(torch.equal(before[name], value) for name, value in q.state_dict().items())


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([[0, 16]]), "level 1 run from 16 to 16; allowed are 0 to 15"),
        (torch.tensor([[-2, 0]]), "level 0 run from -2"),
        (torch.zeros(2, 2), "float32"),
        (torch.zeros(2, 2, dtype=torch.bool), "bool; give an integer tensor; a mask is given by name"),
        (torch.zeros(2, 3, dtype=torch.int64), "1 to 2"),
        (torch.tensor(3), "1 to 2"),
        ([[0, 0]], "list; give a torch tensor"),
    ],
)
def test_tokens(tokens, message, quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (16, 16)))
    for use in (q.decode, q.level_embeddings):
        with pytest.raises(ValueError, match=message):
            use(tokens)


def test_tokens_and_masks_that_do_not_fit(quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (16, 16)))
    before = q.table.clone()
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        q.update(vectors(6, 8), torch.zeros(5, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="16"):
        q.update(vectors(6, 8), torch.full((6, 2), 16))
    with pytest.raises(ValueError, match="mask"):
        q(vectors(6, 8), torch.ones(6))
    with pytest.raises(ValueError, match="mask"):
        q(vectors(6, 8), torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match="on meta"):
        q(vectors(6, 8), torch.ones(6, dtype=torch.bool, device="meta"))
    assert torch.equal(q.table, before)


def test_empty_codes(vectors):
    q = HRVQ(HRVQConfig(dim=8, levels=2, codes=4, commitment_weights=1.0))
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    for use, given in ((q, vectors(3, 8)), (q.encode, vectors(3, 8)), (q.decode, tokens)):
        with pytest.raises(ValueError, match="initialize"):
            use(given)
    with pytest.raises(ValueError, match="at least one"):
        q.update(vectors(0, 8))
    with pytest.raises(ValueError, match="at least one"):
        q.initialize(vectors(3, 8), torch.zeros(3, dtype=torch.bool))
    assert not q.initialized


def test_codebooks(quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (16, 16)))
    good = [torch.zeros(16, 8)] * 2
    for bad in ([torch.zeros(16, 8)], [torch.zeros(16, 8), torch.zeros(16, 9)], [torch.zeros(16, 8)] * 3):
        with pytest.raises(ValueError, match="codebooks have shapes"):
            q.set_codebooks(bad)
    with pytest.raises(ValueError, match="counts have shapes"):
        q.set_codebooks(good, [torch.ones(16)])
    with pytest.raises(ValueError, match=r"codebooks\[1\] is of type ndarray"):
        q.set_codebooks([good[0], good[1].numpy()])
    with pytest.raises(ValueError, match=r"codebooks\[1\] is torch.int64; give a floating-point tensor"):
        q.set_codebooks([good[0], good[1].long()])
    for counts in (torch.zeros(16), torch.linspace(-1, 1, 16)):
        with pytest.raises(ValueError, match="negative or all zero"):
            q.set_codebooks(good, [torch.ones(16), counts])
    with pytest.raises(ValueError, match="NaN"):
        q.set_codebooks([torch.zeros(16, 8), torch.full((16, 8), torch.nan)])
    before = copy.deepcopy(q.state_dict())
    with pytest.raises(ValueError, match="codebooks have NaN or infinite values in float32"):
        q.set_codebooks([torch.full((16, 8), 1e300, dtype=torch.float64)] * 2)
    with pytest.raises(ValueError, match="counts have NaN or infinite values in float32"):
        q.set_codebooks(good, [torch.full((16,), 1e300, dtype=torch.float64)] * 2)
    assert all(torch.equal(before[name], value) for name, value in q.state_dict().items())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(0, 8), "no vectors"),
        (torch.zeros(4, 7), r"\(4, 7\)"),
        (torch.zeros(4, 8, dtype=torch.int32), "int32"),
        (np.ma.masked_array(np.zeros((4, 8)), mask=False), "vectors are a masked array"),
        ([[0.0] * 8], "list; give a tensor"),
        (None, "NoneType; give a tensor"),
        ({"embeddings": torch.zeros(4, 8)}, "dict; give a tensor"),
        ("nowhere.safetensors", "does not exist"),
        ("nowhere.npy", "nowhere.npy does not exist; give a .npy file"),
    ],
)
def test_sources(source, message, quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (16, 16)))
    for use in (q.fit, lambda vectors: atlas(q, vectors)):
        with pytest.raises(ValueError, match=message):
            use(source)


def test_a_directory_is_no_file(tmp_path, quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (16, 16)))
    with pytest.raises(ValueError, match="is a directory; give the name of a file"):
        q.save(tmp_path)
    with pytest.raises(ValueError, match="is a directory; expected a safetensors file of kind hrvq"):
        HRVQ.load(tmp_path)


def test_files_without_embeddings(tmp_path, quantizer, random_codebooks):
    q = quantizer(random_codebooks(8, (16, 16)))
    q.save(tmp_path / "q.safetensors")
    (tmp_path / "text").write_text("hello")
    for name in ("q.safetensors", "text"):
        with pytest.raises(ValueError, match="embeddings"):
            q.fit(tmp_path / name)
    save_file({"embeddings": torch.zeros(4, 8, dtype=torch.uint8)}, tmp_path / "bytes")
    with pytest.raises(ValueError, match="are U8"):
        q.fit(tmp_path / "bytes")
    huge = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**22}, 8)}}\n"
    for content in (
        "hello",
        "",
        "\x93NUMPY\x01\x00\x0a\x00{'descr': (".ljust(30),
        f"\x93NUMPY\x01\x00{chr(len(huge))}\x00{huge}",
    ):
        (tmp_path / "text.npy").write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match="no readable NumPy file"):
            q.fit(tmp_path / "text.npy")


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"epochs": True},
        {"batch_size": 1.0},
        {"tolerance": float("nan")},
        {"revive_below": 5},
        {"revive_below": "a"},
        {"seed": 1.5},
    ],
)
def test_fit_options(bad, quantizer, random_codebooks, vectors):
    q = quantizer(random_codebooks(8, (16, 16)))
    before = q.table.clone()
    with pytest.raises(ValueError, match=f"{next(iter(bad))} is"):
        q.fit(vectors(40, 8), **bad)
    assert torch.equal(q.table, before)


def test_any_whole_number_is_a_seed(quantizer, random_codebooks, vectors):
    quantizer(random_codebooks(8, (16,))).fit(vectors(40, 8), epochs=1, seed=2**64)


@pytest.mark.parametrize("bad", [{"examples": 2.5}, {"examples": True}, {"batch_size": 1.5}])
def test_atlas_options(bad, quantizer, random_codebooks, vectors):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} .*{next(iter(bad.values()))}"):
        atlas(quantizer(random_codebooks(8, (16,))), vectors(40, 8), **bad)


def test_what_is_no_config():
    with pytest.raises(ValueError, match="config is 64; give an HRVQConfig"):
        HRVQ(64)
    with pytest.raises(TypeError, match=r"^HRVQ.__init__\(\) got an unexpected keyword argument 'dim'"):
        HRVQ(dim=64)


def test_metrics():
    with pytest.raises(ValueError, match="masked array; give only what counts"):
        usage(np.ma.masked_array([[0], [1]], mask=[[0], [1]]), 4)
    with pytest.raises(ValueError, match="float32"):
        usage(torch.zeros(4, 2), 4)
    assert usage(torch.zeros(4, 2, dtype=torch.int64), np.int64(4)).tolist() == [0.25, 0.25]

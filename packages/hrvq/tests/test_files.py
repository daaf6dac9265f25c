"""Indices and one file give the vectors back, years later."""

import json

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import safe_open, save_file


@pytest.fixture
def fitted(vectors):
    config = HRVQConfig(dim=8, levels=3, codes=(16, 8, 4), decay=0.9, gradient="rotation", level_dropout=0.25)
    q = HRVQ(config)
    for step in range(4):
        q.update(vectors(300, 8, step))
    return q


def test_saving_and_loading_changes_nothing(fitted, vectors, tmp_path):
    x = vectors(200, 8, seed=9)
    fitted.save(tmp_path / "q.safetensors")
    loaded = HRVQ.load(tmp_path / "q.safetensors")
    assert not loaded.training
    assert loaded.config == fitted.config
    assert torch.equal(loaded.encode(x), fitted.encode(x))
    fitted.train().update(x)
    loaded.train().update(x)
    for name, value in fitted.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_equal_quantizers_give_equal_bytes(fitted, tmp_path):
    fitted.save(tmp_path / "a")
    HRVQ.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_alone_can_decode_the_file(fitted, vectors, tmp_path):
    fitted.save(tmp_path / "q.safetensors")
    tokens = fitted.encode(vectors(50, 8))
    tensors = load_file(tmp_path / "q.safetensors")
    decoded = sum(tensors[f"codebooks.{level}"][tokens[:, level].numpy()] for level in range(3))
    assert np.array_equal(decoded, fitted.decode(tokens).numpy())


def test_metadata_is_one_entry_with_kind_and_config(fitted, tmp_path):
    fitted.save(tmp_path / "q.safetensors")
    with safe_open(tmp_path / "q.safetensors", "pt") as file:
        metadata = file.metadata()
    entry = json.loads(metadata["artifact"])
    assert list(metadata) == ["artifact"]
    assert entry["kind"] == "hrvq"
    assert HRVQConfig.from_dict(entry["config"]) == fitted.config


def test_wrong_and_damaged_files(fitted, tmp_path):
    path = tmp_path / "q.safetensors"
    fitted.save(path)
    whole = path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_torch(path)
    with pytest.raises(ValueError, match="does not exist"):
        HRVQ.load(tmp_path / "none")
    path.write_bytes(whole[:-50])
    with pytest.raises(ValueError, match="not a readable"):
        HRVQ.load(path)
    save_file({k: v for k, v in tensors.items() if k != "codebooks.1"}, path, metadata)
    with pytest.raises(ValueError, match=r"codebooks\.1"):
        HRVQ.load(path)
    save_file({**tensors, "counts.0": torch.zeros(3)}, path, metadata)
    with pytest.raises(ValueError, match=r"counts\.0"):
        HRVQ.load(path)
    save_file({**tensors, "codebooks.2": tensors["codebooks.2"] * torch.nan}, path, metadata)
    with pytest.raises(ValueError, match=r"codebooks\.2"):
        HRVQ.load(path)
    for name, change in (
        ("codebooks.2", lambda codes: codes.double() * 1e200),  # infinite in float32
        ("codebooks.2", lambda codes: codes.to(torch.complex64)),
        ("codebooks.2", lambda codes: codes.long()),
        ("counts.1", lambda counts: -counts),
        ("steps", lambda steps: steps - 10**6),
    ):
        save_file({**tensors, name: change(tensors[name])}, path, metadata)
        with pytest.raises(ValueError, match=rf"is damaged.*{name}"):
            HRVQ.load(path)
    entry = json.loads(metadata["artifact"])
    for change in ({"kind": "encoder"}, {"schema": 7}, {"config": {"dim": 8, "colour": 1}}):
        save_file(tensors, path, {"artifact": json.dumps({**entry, **change})})
        with pytest.raises(ValueError, match=r"q\.safetensors"):
            HRVQ.load(path)


def test_a_quantizer_loaded_in_inference_mode_can_be_trained(tmp_path):
    HRVQ(HRVQConfig(dim=4, levels=2, codes=4)).save(tmp_path / "q.safetensors")
    with torch.inference_mode():
        loaded = HRVQ.load(tmp_path / "q.safetensors")
    before = loaded.codebooks[0].clone()
    loaded.train().update(torch.randn(32, 4, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(loaded.codebooks[0], before)

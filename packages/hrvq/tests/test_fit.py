"""Codes for vectors that do not change."""

import os
import sys

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig, _fitting, distortion, perplexity, usage
from safetensors.torch import save_file


def test_result_is_what_the_metrics_say(vectors):
    q = HRVQ(HRVQConfig(dim=16, levels=3, codes=(32, 16, 8)))
    x = vectors(3000, 16)
    result = q.fit(x, batch_size=700)
    tokens = q.encode(x)
    assert result.distortion == pytest.approx(distortion(x, q.level_embeddings(tokens)).tolist(), rel=1e-5)
    variance = (x - x.mean(0)).square().sum(1).mean()
    assert result.explained == pytest.approx([1 - float(d / variance) for d in result.distortion], abs=1e-5)
    assert result.usage == pytest.approx(usage(tokens, (32, 16, 8)).tolist())
    assert result.perplexity == pytest.approx(perplexity(tokens, (32, 16, 8)).tolist(), rel=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1e3, 3e4])
def test_what_is_explained_does_not_depend_on_where_the_vectors_lie(offset):
    """Two of 16 numbers vary; float32 squares of the others would hide it."""
    x = torch.full((3000, 16), offset)
    x[:, :2] += torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    result = HRVQ(HRVQConfig(dim=16, levels=1, codes=16)).fit(x, epochs=2)
    centred = x.double() - x.double().mean(0)
    variance = float(centred.square().sum(1).mean())
    assert result.explained[0] == pytest.approx(1 - result.distortion[0] / variance, abs=1e-6)
    assert 0.5 < result.explained[0] < 0.95


def test_equal_vectors_are_explained_whole():
    assert HRVQ(HRVQConfig(dim=3, levels=1, codes=2)).fit(torch.full((10, 3), 0.1)).explained == (1.0,)


@pytest.mark.parametrize("rows", [1, 5, 40, 3000])
def test_distortion_never_rises_with_a_level(rows, vectors):
    q = HRVQ(HRVQConfig(dim=16, levels=5, codes=32, commitment_weights=1.0))
    x = vectors(rows, 16)
    result = q.fit(x)
    total = float(x.square().sum(1).mean())
    for coarse, fine in zip((total, *result.distortion), result.distortion, strict=False):
        assert fine <= coarse * (1 + 1e-6)


def test_separate_clusters_are_all_found():
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(50, 16, generator=random) * 10
    x = (centres[:, None] + torch.randn(50, 40, 16, generator=random) * 0.01).reshape(-1, 16)
    q = HRVQ(HRVQConfig(dim=16, levels=1, codes=50, commitment_weights=1.0))
    result = q.fit(x)
    assert result.distortion[0] < 16 * 0.01**2 * 1.1
    assert result.perplexity[0] == pytest.approx(50, rel=1e-4)


def test_without_revival_it_is_plain_k_means_however_rare_a_cluster():
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(32, 16, generator=random) * 10
    sizes = (2000 / torch.arange(1, 33)).int().tolist()  # 2000, 1000, 666 ... 62
    x = torch.cat(
        [c + torch.randn(n, 16, generator=random) * 0.01 for c, n in zip(centres, sizes, strict=True)]
    )
    config = HRVQConfig(dim=16, levels=1, codes=32, revive_below=0.0)
    reviving = HRVQConfig(dim=16, levels=1, codes=32)
    assert HRVQ(reviving).fit(x, revive_below=0.0).distortion[0] < 16 * 0.01**2 * 1.1
    assert HRVQ(config).fit(x).distortion[0] < 16 * 0.01**2 * 1.1  # the config's 0 is fit's
    started = HRVQ(config)
    started.initialize(x)
    assert distortion(x, started.level_embeddings(started.encode(x))) < 16 * 0.01**2 * 1.1
    for fitted in (HRVQ(reviving).fit(x), HRVQ(config).fit(x, revive_below=0.42)):
        assert fitted.distortion[0] > 1  # the default prefers to use all codes alike


def test_codes_that_move_to_where_codes_are_crowded_even_out_their_use(monkeypatch):
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)) ** 3  # dense within, thin without
    perplexity = []
    for crowding in (_fitting._CROWDING, 0):
        monkeypatch.setattr(_fitting, "_CROWDING", crowding)
        result = HRVQ(HRVQConfig(dim=4, levels=1, codes=64)).fit(x, epochs=4, seed=1)
        perplexity += result.perplexity
    assert perplexity[0] > perplexity[1] + 1


def test_a_level_ends_where_its_codes_rest_and_not_after_some_were_moved():
    """Moved codes cost at first, which is not the end of getting better."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 2, generator=random) * 5
    which = torch.multinomial(torch.rand(4, generator=random) ** 3, 1000, True, generator=random)
    found = []
    q = HRVQ(HRVQConfig(dim=2, levels=1, codes=8))
    q.fit(
        centres[which] + torch.randn(1000, 2, generator=random),
        epochs=30,
        progress=lambda p: found.append(p.distortion),
    )
    assert found != sorted(found, reverse=True)  # codes were moved
    assert len(found) < 30
    assert 0 <= found[-2] - found[-1] < 1e-3 * found[-2]


def test_the_second_half_of_the_passes_only_settles(vectors):
    """Lloyd's passes never make it worse; revivals do, at first."""
    found = []
    q = HRVQ(HRVQConfig(dim=16, levels=1, codes=64))
    q.fit(
        vectors(3000, 16),
        epochs=8,
        tolerance=0.0,
        revive_below=0.9,
        seed=1,
        progress=lambda p: found.append(p.distortion),
    )
    assert len(found) == 8
    assert found[:4] != sorted(found[:4], reverse=True)
    assert found[4:] == sorted(found[4:], reverse=True)


def test_every_kind_of_source_gives_the_same_codes(vectors, tmp_path):
    x = vectors(1000, 16)
    parts = [x[:300], x[300:]]
    np.save(tmp_path / "x.npy", x.numpy())
    for index, part in enumerate(parts):
        save_file({"embeddings": part.contiguous()}, tmp_path / f"{index}.safetensors")
    save_file({"embeddings": x}, tmp_path / "x.safetensors")
    memory_map = np.load(tmp_path / "x.npy", mmap_mode="r")
    files = [tmp_path / "x.npy", tmp_path / "x.safetensors"]
    sources = [x, x.numpy(), memory_map, *files, *map(str, files), x.double(), [x], x.split(7)]
    sources += [parts, [tmp_path / "0.safetensors", parts[1].numpy()]]
    tables = []
    for source in sources:
        q = HRVQ(HRVQConfig(dim=16, levels=2, codes=16, commitment_weights=1.0))
        q.fit(source, batch_size=128)
        tables.append(q.table)
    assert all(torch.equal(table, tables[0]) for table in tables)
    several = HRVQ(HRVQConfig(dim=16, levels=2, codes=16, commitment_weights=1.0))
    result = several.fit([tmp_path / "0.safetensors", parts[1].numpy()], batch_size=128)
    tokens = several.encode(x)
    assert result.distortion[-1] == pytest.approx(float(distortion(x, several.level_embeddings(tokens))[-1]))


@pytest.mark.skipif(sys.platform != "linux", reason="counts its open files")
def test_there_may_be_more_files_than_a_process_may_open(vectors, tmp_path):
    resource = pytest.importorskip("resource")  # not on every system
    x = vectors(120, 8)
    paths = [tmp_path / f"{index}.npy" for index in range(40)]
    for path, part in zip(paths, x.split(3), strict=True):
        np.save(path, part.numpy())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    q, whole = (HRVQ(HRVQConfig(dim=8, levels=2, codes=4)) for _ in range(2))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, hard))
        q.fit(paths)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    whole.fit(x)
    assert torch.equal(q.table, whole.table)


def test_a_file_that_changes_under_a_fit_is_told(vectors, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, vectors(120, 8).numpy())
    q = HRVQ(HRVQConfig(dim=8, levels=1, codes=4))
    with pytest.raises(ValueError, match=r"x\.npy changed while it was read; fit again"):
        q.fit(path, progress=lambda _: np.save(path, vectors(60, 8).numpy()))
    assert not q.initialized


def test_seed_decides_and_progress_is_told(vectors):
    x = vectors(2000, 16)
    seen, tables = [], []
    for seed in (1, 1, 2):
        q = HRVQ(HRVQConfig(dim=16, levels=2, codes=16, commitment_weights=1.0))
        result = q.fit(x, epochs=3, tolerance=0.0, seed=seed, progress=seen.append)
        tables.append(q.table)
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert [(p.level, p.epoch) for p in seen[-6:]] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert seen[-1].distortion >= result.distortion[-1]
    assert result.passes == (5, 5)


def test_update_goes_on_from_a_fit(vectors):
    q = HRVQ(HRVQConfig(dim=16, levels=2, codes=32, commitment_weights=1.0))
    x = vectors(4000, 16)
    fitted = q.fit(x, batch_size=500).distortion[-1]
    assert q.counts[:32].sum() == pytest.approx(500)
    for step in range(40):
        q.update(x[step % 8 * 500 : step % 8 * 500 + 500])
    assert distortion(x, q.level_embeddings(q.encode(x)))[-1] < fitted * 1.05


def test_cosine(vectors):
    q = HRVQ(HRVQConfig(dim=16, levels=2, codes=32, commitment_weights=1.0, distance="cosine"))
    x = vectors(2000, 16) * (torch.arange(2000)[:, None] + 1)
    result = q.fit(x)
    assert torch.allclose(q.codebooks[0].norm(dim=1), torch.ones(32))
    error = torch.nn.functional.normalize(x, dim=1) - q.decode(q.encode(x))
    assert result.distortion[-1] == pytest.approx(float(error.square().sum(1).mean()), rel=1e-4)


def test_nothing_changes_when_the_vectors_are_bad(vectors):
    q = HRVQ(HRVQConfig(dim=16, levels=2, codes=16, commitment_weights=1.0))
    x = vectors(500, 16)
    q.fit(x)
    before = q.table.clone()
    x[400, 3] = torch.nan
    with pytest.raises(ValueError, match="400 to 499 contain NaN"):
        q.fit(x, batch_size=100)
    assert torch.equal(q.table, before)


def test_autocast_and_gradients_change_nothing(vectors):
    x = vectors(2000, 16)
    plain, cast = (HRVQ(HRVQConfig(dim=16, levels=2, codes=300, kmeans_iterations=2)) for _ in range(2))
    expected = plain.fit(x, epochs=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = cast.fit(x.clone().requires_grad_(), epochs=2)
    assert found == expected
    assert torch.equal(cast.table, plain.table)


def test_numbers_of_numpy_are_numbers(vectors):
    """A seed of a generator's, sizes of an array's: uint8 holds no 300."""
    x = vectors(600, 8)
    fits = []
    for kind in (int, np.uint8, np.int64):
        q = HRVQ(HRVQConfig(dim=8, levels=2, codes=(5, 3)))
        q.fit(x, epochs=kind(2), batch_size=kind(100), refine=kind(1), seed=kind(3))
        fits.append(q.table)
    assert torch.equal(fits[0], fits[1])
    assert torch.equal(fits[0], fits[2])
    config = HRVQConfig(dim=8, levels=2, codes=np.array([5, 3]), commitment_weights=np.array([0.5, 0.25]))
    assert config == HRVQConfig(dim=8, levels=2, codes=(5, 3), commitment_weights=(0.5, 0.25))

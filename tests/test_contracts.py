"""Contracts across packages: copies that must agree, boundaries that nothing crosses."""

import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import atari_data
import numpy as np
import pytest
import token_worldmodel
import torch

ROOT = Path(__file__).parents[1]
TORCH = ("cnn_encoder", "hrvq", "latent_ac", "token_worldmodel")


@pytest.mark.parametrize(
    ("name", "packages"),
    [("_artifact.py", TORCH), ("_weights.py", ("cnn_encoder", "latent_ac", "token_worldmodel"))],
)
def test_copies_of_a_file_are_equal(name, packages):
    found = {path.parent.name: path.read_text() for path in (ROOT / "packages").glob(f"*/src/*/{name}")}
    assert len({found[package] for package in packages}) == 1


@pytest.mark.parametrize("package", TORCH)
def test_weights_may_be_read_by_whom_the_umask_lets(package, tmp_path):
    """Beside files of the same run that may; safetensors' own are for their owner alone."""
    save = importlib.import_module(f"{package}._artifact").save_artifact
    for name, umask in (("shared", 0o022), ("mine", 0o077)):
        before = os.umask(umask)
        try:
            save(tmp_path / name, {"x": torch.zeros(2)}, kind="test", config={})
        finally:
            os.umask(before)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("package", TORCH)
def test_weights_that_do_not_fit_on_the_disk_are_named_and_what_was_there_stays(package, tmp_path):
    module = importlib.import_module(f"{package}._artifact")
    path = tmp_path / "x.safetensors"
    module.save_artifact(path, {"x": torch.ones(2)}, kind="test", config={})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(
            OSError, match=r"x\.safetensors cannot be written \(.*os error.*\); free some space"
        ):
            module.save_artifact(path, {"x": torch.zeros(2000)}, kind="test", config={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert module.load_artifact(path, kind="test")[0]["x"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_no_package_imports_another():
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("seed", range(20))
def test_both_packages_split_episodes_alike(seed):
    rng = np.random.default_rng(seed)
    episodes = rng.integers(1, 30)
    ids = np.repeat(np.arange(episodes), rng.integers(1, 50, episodes))
    for fraction in (0.05, 0.1, 0.5):
        ours = atari_data.split_episodes(ids, fraction, seed)
        theirs = token_worldmodel.split_episodes(ids, fraction, seed)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_both_packages_find_the_same_windows(length):
    from token_worldmodel.sampler import window_starts

    ids = np.repeat(np.arange(12), np.random.default_rng(0).integers(1, 60, 12)).astype(np.int32)
    np.testing.assert_array_equal(atari_data.window_starts(ids, length), window_starts(ids, length))


def test_nothing_names_a_package_registry_or_a_machine():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    forbidden = ("pypi" + ".org/simple", "files.python" + "hosted", "/ro" + "ot/", "/wo" + "rk/")
    for name in listed:
        path = ROOT / name
        if (
            path.name == "uv.lock"
            or not path.is_file()
            or path.suffix in (".png", ".gif", ".mp4", ".safetensors")
        ):
            continue
        text = path.read_text(encoding="utf-8")
        assert not [word for word in forbidden if word in text], name

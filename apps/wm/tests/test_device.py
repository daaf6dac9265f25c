"""Choosing devices by name."""

import pytest
import torch
from wm.device import pick_device, seed_defaults


@pytest.fixture
def current(monkeypatch):
    """The devices made current, on a machine that seems to have two GPUs."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_a_gpu_named_by_its_number_becomes_the_current_one(current):
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 1)]


@pytest.mark.parametrize("name", ["auto", "cuda", "cpu"])
def test_without_a_number_the_current_one_stays(current, name):
    assert pick_device(name) == torch.device("cpu" if name == "cpu" else "cuda")
    assert current == []


def test_a_gpu_that_is_not_there_is_refused_and_not_made_current(current):
    with pytest.raises(ValueError, match=r"device 'cuda:2' is not on this machine, which has 2 CUDA devices"):
        pick_device("cuda:2")
    assert current == []


@pytest.mark.parametrize("name", ["cuda:128", "cuda:256", "cuda:257", "cpu:300"])
def test_a_number_that_torch_takes_for_another_is_refused(current, name):
    with pytest.raises(ValueError, match=f"unknown device '{name}'; allowed: auto, cpu, cuda, cuda:N"):
        pick_device(name)
    assert current == []


def test_a_cheap_seed_is_the_seed_of_torch(monkeypatch):
    torch.manual_seed(7)
    expected = torch.rand(3)
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    seed_defaults(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
    assert not seeded
    seed_defaults(7, torch.device("cuda"))
    assert torch.equal(torch.rand(3), expected)
    assert seeded == [7]

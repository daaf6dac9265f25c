"""A whole run on the real emulator, as small as it can be, shared by the tests that only look at one."""

import os

# Runs this small are quickest on one thread, and a busy machine does not slow them further.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from command import train

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run of pong. Look, do not touch."""
    directory = tmp_path_factory.mktemp("runs") / "pong"
    result = train(directory)
    assert result.code == 0, result.output
    return directory

"""A whole run on the real emulator, as small as possible, shared by the tests that only read one."""

import pytest
from command import train


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run of pong. Look, do not touch."""
    directory = tmp_path_factory.mktemp("runs") / "pong"
    result = train(directory)
    assert result.code == 0, result.output
    return directory

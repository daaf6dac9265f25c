from pathlib import Path

import pytest
from atari_data import FrameStore, Protocol, RandomPolicy, collect
from hypothesis import settings

# Short episodes, so that a few hundred steps hold every kind of ending.
SHORT = Protocol(sticky=0.25, max_frames=603)


# The same examples every time, however busy the machine is.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def breakout_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of Breakout with RAM: read, never write."""
    directory = tmp_path_factory.mktemp("breakout")
    policy = RandomPolicy("breakout", seed=1, num_envs=3)
    for num_steps in (900, 500):
        collect(directory, "breakout", num_steps, policy, seed=5, protocol=SHORT, num_envs=3, ram=True)
    return directory


@pytest.fixture(scope="session")
def breakout(breakout_dir: Path) -> FrameStore:
    return FrameStore.open(breakout_dir)

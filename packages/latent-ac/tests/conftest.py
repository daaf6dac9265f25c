from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# The same examples every time, however busy the machine is.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def one_thread_one_seed() -> Iterator[None]:
    """Every test draws the same numbers each time.

    Networks this small only lose by sharing their work among threads, most of all on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)

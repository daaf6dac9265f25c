import pytest
import torch


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    """Every test draws the same numbers each time, whatever ran before it."""
    torch.manual_seed(0)

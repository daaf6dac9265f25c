"""Small models and plays that the tests share."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings
from token_worldmodel import TokenTrajectories, WorldModel, WorldModelConfig

# The same examples every time, however busy the machine is.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_model() -> Callable[..., WorldModel]:
    """A small model with weights large enough that every input matters to every output that sees it."""

    def make(seed: int = 0, **changes: object) -> WorldModel:
        num_levels = changes.get("num_levels", 3)
        values = {
            "num_codes": tuple(range(11, 11 + num_levels)),
            "max_steps": 12,
            "dim": 16,
            "num_layers": 2,
            "num_heads": 2,
            "ffn_dim": 32,
            "loss_weights": (1.0, 0.5, 0.1, 0.1)[:num_levels],
        }
        model = WorldModel(WorldModelConfig(**(values | changes)))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.4, generator=generator)
        return model.eval()

    return make


@pytest.fixture
def make_window() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Random tokens (B, T, L) and actions (B, T) within a model's codes."""

    def make(model: WorldModel, batch: int, steps: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        columns = [torch.randint(k, (batch, steps), generator=generator) for k in model.config.codes]
        return torch.stack(columns, -1), torch.randint(18, (batch, steps), generator=generator)

    return make


@pytest.fixture
def make_trajectories() -> Callable[..., TokenTrajectories]:
    """Episodes of the given numbers of rows; L0 is the row's number, L1 its episode, L2 a code of both."""

    def make(*lengths: int) -> TokenTrajectories:
        episode_ids = np.repeat(np.arange(len(lengths)) + 5, lengths)
        rows = np.arange(len(episode_ids))
        final = np.append(np.diff(episode_ids) != 0, True)
        return TokenTrajectories(
            tokens=np.stack([rows, episode_ids, (rows + episode_ids) % 7], 1),
            actions=np.where(final, 0, rows % 18),
            rewards=np.where(final, 0, 2.5 * (rows % 3 - 1)),
            terminated=np.append(final[1:], False) & ~final,
            truncated=np.zeros(len(rows)),
            episode_ids=episode_ids,
            lives=3 - rows % 3,
        )

    return make

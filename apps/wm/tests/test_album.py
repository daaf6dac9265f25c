"""Tokens drawn from recorded frames, with made-up codes and frames."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from wm.view.album import Album


@pytest.fixture
def album():
    """Five frames of one gray level each; codes 0 to 3 lie at 0, 1, 10 and 20."""
    table = torch.tensor([[0.0], [1.0], [10.0], [20.0]])
    frames = np.broadcast_to(np.array([10, 20, 30, 40, 50], np.uint8)[:, None, None], (5, 84, 84))
    return Album(
        codebooks=(table, table),
        tokens=np.array([[0, 0], [0, 2], [0, 2], [2, 1], [2, 2]], np.int16),
        store=SimpleNamespace(game="pong", frames=frames),
        background=torch.full((84, 84), 7.0),
    )


@pytest.mark.parametrize(
    ("codes", "levels"),
    [
        ((0, 2), [7, 20, 25]),  # three frames have the first code, the middle two the second as well
        ((2, 1), [7, 45, 40]),
        ((0, 3), [7, 20, 25]),  # 20 is nearest to 10 among the codes that follow the first
        ((3, 0), [7, 45, 40]),  # and 10 to 20, then 1 to 0
        ((1, 0), [7, 20, 10]),
    ],
)
def test_what_has_the_codes_so_far_or_is_nearest_to_it(album, codes, levels):
    drawn = album.draw(torch.tensor([codes, (0, 0)]), "pong")
    assert drawn.shape == (2, 3, 84, 84)
    assert drawn.dtype == torch.float32
    assert drawn[0, :, 0, 0].tolist() == levels
    assert (drawn == drawn[..., :1, :1]).all()
    assert drawn[1, :, 0, 0].tolist() == [7, 20, 10]


def test_of_many_frames_some_are_enough(album):
    many = Album(
        codebooks=album.codebooks,
        tokens=np.zeros((1000, 2), np.int16),
        store=SimpleNamespace(
            game="pong",
            frames=np.broadcast_to((np.arange(1000) % 200).astype(np.uint8)[:, None, None], (1000, 84, 84)),
        ),
        background=album.background,
    )
    mean = float(many.draw(torch.zeros(1, 2, dtype=torch.int64), "pong")[0, 2].mean())
    assert mean == np.mean(np.arange(0, 1000, 63) % 200)


def test_it_has_one_game(album):
    with pytest.raises(ValueError, match="these are frames of pong; give its name, not breakout"):
        album.draw(torch.zeros(1, 2, dtype=torch.int64), "breakout")

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig
from wm.stages.decoder import Source, errors


def test_errors_are_of_all_pixels_and_of_those_off_the_background():
    """Two frames of background 100: one with a square of 10 x 10 at 160, one empty."""
    frames = np.full((2, 84, 84), 100, np.uint8)
    frames[0, :10, :10] = 160
    quantizer = HRVQ(HRVQConfig(dim=4, levels=2, codes=3))
    quantizer.set_codebooks([torch.randn(3, 4), torch.randn(3, 4)])
    source = Source(
        store=SimpleNamespace(frames=frames),
        embeddings=torch.randn(2, 4),
        tokens=torch.tensor([[0, 1], [2, 0]]).short(),
        background=torch.full((84, 84), 100.0),
        quantizer=quantizer,
    )

    def decoder(vectors, background):
        """After the first level 3 too bright, after the second right, of the embedding 6 too dark."""
        right = torch.from_numpy(frames).float()[:, None]
        return right + torch.tensor([3.0, 0.0, -6.0]).view(1, 3, 1, 1)

    found = errors(decoder, source, np.arange(2))
    assert found["rmse"] == pytest.approx([3, 0, 6])
    assert found["foreground_rmse"] == pytest.approx([3, 0, 6])
    assert found["background_rmse"] == pytest.approx((60**2 * 100 / (2 * 84 * 84)) ** 0.5)
    assert found["background_foreground_rmse"] == pytest.approx(60)

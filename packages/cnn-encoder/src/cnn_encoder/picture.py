"""The picture of a moment by its profiles: how much of each brightness every row and column of it holds."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .bands import membership
from .encoder import FRAME_SIZE

# In grey levels. Below FAINT a difference from the background is none, from CLEAR on it counts in full.
_FAINT, _CLEAR = 6.0, 18.0
_BANDS = 8
_POOL = 2
PICTURE_SIZE = 2 * (FRAME_SIZE // _POOL) * _BANDS


def picture(frames: Tensor, background: Tensor) -> Tensor:
    """Profiles of what differs from the background, one for each of eight bands of brightness.

        shown_yx = clamp((|frame_yx - background_yx| - 6) / 12, 0, 1)
        band_b(g): how far g belongs to the band around 240 b / 7 (`cnn_encoder.bands`)
        row_yb = sum over x of shown_yx band_b(frame_yx), column_xb = sum over y of the same

    Rows and columns are taken in pairs. This little is enough for a linear probe to locate anything whose
    brightness nothing else has. Unlike `cnn_encoder.layout` it also holds what stands still, such as a
    score.

    Args:
        frames: uint8 (S, T, 84, 84).
        background: float32, broadcast against ``frames``; the game's mean frame.

    Returns:
        float32 (S, T, 672), in pixels: 42 rows of 8 bands, then 42 columns of 8 bands.
    """
    with torch.autocast(frames.device.type, enabled=False):
        shown = ((frames - background.float()).abs_() - _FAINT).div_(_CLEAR - _FAINT).clamp_(0, 1)
        bands = membership(_BANDS, frames.device)
        # A bag is a row's pixels looked up among the bands: one pass, where a map per band would take eight.
        profiles = [
            F.embedding_bag(
                pixels.reshape(-1, _POOL * FRAME_SIZE).int(),
                bands,
                mode="sum",
                per_sample_weights=weights.reshape(-1, _POOL * FRAME_SIZE),
            )
            for pixels, weights in ((frames, shown), (frames.mT, shown.mT))
        ]
        return torch.cat([profile.reshape(*frames.shape[:2], -1) for profile in profiles], -1)

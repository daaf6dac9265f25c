"""The picture of a moment as profiles: how much of each brightness each of its rows and columns holds."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .bands import membership
from .encoder import FRAME_SIZE

# In grey levels. Below FAINT a difference from the background is ignored; from CLEAR on it counts in full.
_FAINT, _CLEAR = 6.0, 18.0
_BANDS = 8
_POOL = 2
PICTURE_SIZE = 2 * (FRAME_SIZE // _POOL) * _BANDS


def picture(frames: Tensor, background: Tensor) -> Tensor:
    """Profiles of what differs from the background, one for each of eight bands of brightness.

        shown_yx = clamp((|frame_yx - background_yx| - 6) / 12, 0, 1)
        band_b(g): the degree to which g belongs to the band around 240 b / 7 (`cnn_encoder.bands`)
        row_yb = sum over x of shown_yx band_b(frame_yx), column_xb = sum over y of the same

    Rows and columns are taken in pairs. Even so few numbers let a linear probe locate anything whose
    brightness is unique. Unlike `cnn_encoder.layout` they also include what stands still, such as a score.

    Args:
        frames: uint8 (S, T, 84, 84).
        background: float32, broadcast against ``frames``; the game's mean frame.

    Returns:
        float32 (S, T, 672), in pixels: 42 rows of 8 bands, then 42 columns of 8 bands.
    """
    with torch.autocast(frames.device.type, enabled=False):
        shown = ((frames - background.float()).abs_() - _FAINT).div_(_CLEAR - _FAINT).clamp_(0, 1)
        bands = membership(_BANDS, frames.device)
        # A bag looks up a row's pixels in the bands' table: one pass, where a map per band would take eight.
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

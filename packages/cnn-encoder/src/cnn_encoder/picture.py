"""The picture of a moment by its profiles: how much of each brightness every row and column of it holds."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import FRAME_SIZE
from .running import RunningMean

# In grey levels. Below FAINT a difference from the background is none, from CLEAR on it counts in full.
_FAINT, _CLEAR = 6.0, 18.0
_BANDS, _BRIGHTEST = 8, 240.0
_POOL = 2
PICTURE_SIZE = 2 * (FRAME_SIZE // _POOL) * _BANDS


def picture(frames: Tensor, background: Tensor) -> Tensor:
    """Profiles of what differs from the background, one for each of eight bands of brightness.

        shown_yx = clamp((|frame_yx - background_yx| - 6) / 12, 0, 1)
        band_b(g) = max(1 - |g - 240 b / 7| / (240 / 7), 0)
        row_yb = sum over x of shown_yx band_b(frame_yx), column_xb = sum over y of the same

    Rows and columns are taken in pairs. A linear probe finds where a thing of its own brightness is from so
    little, and what stands where it stood, such as a score; unlike `cnn_encoder.layout` this holds what
    stands still for a while too.

    Args:
        frames: uint8 (S, T, 84, 84).
        background: float32, broadcast against ``frames``; the game's mean frame.

    Returns:
        float32 (S, T, 672), in pixels: 42 rows of 8 bands, then 42 columns of 8 bands.
    """
    with torch.autocast(frames.device.type, enabled=False):
        shown = ((frames - background.float()).abs_() - _FAINT).div_(_CLEAR - _FAINT).clamp_(0, 1)
        bands = _bands(frames.device)
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


def _bands(device: torch.device) -> Tensor:
    """How far each grey level belongs to each band: float32 (256, 8), every row of sum 1."""
    position = torch.arange(256, device=device).clamp(max=_BRIGHTEST) * ((_BANDS - 1) / _BRIGHTEST)
    return (1 - (position[:, None] - torch.arange(_BANDS, device=device)).abs()).clamp(min=0)


class RunningScale(nn.Module):
    """Centres every column and divides it by its standard deviation and ``floor``, by running statistics
    (`RunningMean`).

    A column that hardly varies stays near zero; none leaves +-``limit``, so that what is seen for the first
    time does not drown the rest.
    """

    def __init__(self, dim: int, *, decay: float = 0.98, floor: float = 0.1, limit: float = 10.0) -> None:
        super().__init__()
        self.floor = floor
        self.limit = limit
        self.mean = RunningMean(dim, decay=decay)
        self.square = RunningMean(dim, decay=decay)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """float32 (..., dim) -> (..., dim); no gradient flows through it."""
        rows = x.flatten(0, -2)
        mean, square = self.mean(rows.mean(0)), self.square(rows.square().mean(0))
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        return ((x - mean) / (deviation + self.floor)).clamp_(-self.limit, self.limit)

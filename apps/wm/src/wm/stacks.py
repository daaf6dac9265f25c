"""Observations in batches, as an encoder reads them."""

from collections.abc import Iterator

import numpy as np
from atari_data import FrameStore
from numpy.typing import NDArray

BATCH = 512


def batches_of_stacks(store: FrameStore, rows: NDArray[np.integer]) -> Iterator[NDArray[np.uint8]]:
    """The observations at ``rows``, in batches uint8 (B, 4, 84, 84)."""
    for start in range(0, len(rows), BATCH):
        yield store.stacks(rows[start : start + BATCH])

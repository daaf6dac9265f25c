import numpy as np
import torch
from atari_data import FrameStore
from wm.clips import ClipSampler
from wm.run import Layout


def test_a_stretch_has_its_own_frames_actions_and_rewards(run):
    store = FrameStore.open(Layout(run).data("pong"))
    length = 12
    sampler = ClipSampler(
        {"pong": store},
        {"pong": torch.from_numpy(store.mean_frame())},
        length=length,
        batch_size=64,
        seed=0,
        split_seed=0,
        validation_fraction=0.1,
        device=torch.device("cpu"),
    )
    batch = sampler.batch(3)
    assert batch.rewards.any()  # else nothing is compared
    columns = [np.lib.stride_tricks.sliding_window_view(c, length) for c in (store.actions, store.rewards)]
    for frames, *given in zip(batch.frames, batch.actions, batch.rewards, strict=True):
        first = (store.frames[: len(columns[0])] == frames[3].numpy()).all((1, 2))
        starts = np.flatnonzero(first & (columns[0] == given[0].numpy()).all(1))
        last = [start for start in starts if (store.frames[start + length - 1] == frames[-1].numpy()).all()]
        assert any((columns[1][start] == given[1].numpy()).all() for start in last)

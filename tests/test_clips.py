import numpy as np
import torch
from atari_data import FrameStore, split_episodes
from cnn_encoder import ClipBatch
from wm.clips import ClipSampler
from wm.run import Layout

LENGTH = 12


def sampler_of(store, **changes):
    return ClipSampler(
        {"pong": store},
        {"pong": torch.from_numpy(store.mean_frame())},
        length=LENGTH,
        batch_size=64,
        seed=0,
        validates=lambda ids: split_episodes(ids, 0.1, 0),
        device=torch.device("cpu"),
        **changes,
    )


def places(batch: ClipBatch, store: FrameStore) -> list[list[int]]:
    """Where in the store each stretch may have come from, by its frames and actions."""
    actions = np.lib.stride_tricks.sliding_window_view(store.actions, LENGTH)
    found = []
    for frames, given in zip(batch.frames, batch.actions, strict=True):
        first = (store.frames[: len(actions)] == frames[3].numpy()).all((1, 2))
        starts = np.flatnonzero(first & (actions == given.numpy()).all(1))
        last = frames[-1].numpy()
        found.append([start for start in starts if (store.frames[start + LENGTH - 1] == last).all()])
    return found


def test_a_stretch_has_its_own_frames_actions_and_rewards(run):
    store = FrameStore.open(Layout(run).data("pong"))
    batch = sampler_of(store).batch(3)
    assert batch.rewards.any()  # else nothing is compared
    rewards = np.lib.stride_tricks.sliding_window_view(store.rewards, LENGTH)
    for starts, given in zip(places(batch, store), batch.rewards, strict=True):
        assert any((rewards[start] == given.numpy()).all() for start in starts)


def test_the_newest_play_has_its_share(run):
    store = FrameStore.open(Layout(run).data("pong"))
    newest = len(store) // 3  # the second half validates

    def share_of_new(share):
        sampler = sampler_of(store, newest={"pong": newest}, newest_share=share)
        return np.mean(
            [max(starts) >= newest for step in range(4) for starts in places(sampler.batch(step), store)]
        )

    assert share_of_new(1.0) == 1
    assert share_of_new(0.0) < 0.5 < share_of_new(0.6)
    every = sampler_of(store, newest={"pong": len(store)}, newest_share=1.0)  # no stretch is that new
    assert all(places(every.batch(0), store))

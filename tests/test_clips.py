from types import SimpleNamespace

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


def two_games(**changes):
    """Two games of an episode of 16 rows each, whose frames and actions are its number."""

    def store(game):
        def clips(starts, length):
            return np.full((len(starts), length + 3, 84, 84), game, np.uint8)

        actions, rewards = np.full(16, game, np.uint8), np.arange(16, dtype=np.float32)
        return SimpleNamespace(episode_ids=np.zeros(16, int), actions=actions, rewards=rewards, clips=clips)

    return ClipSampler(
        {"pong": store(0), "qbert": store(1)},
        {"pong": torch.zeros(84, 84), "qbert": torch.ones(84, 84)},
        length=4,
        seed=0,
        validates=lambda ids: np.zeros(len(ids), bool),
        device=torch.device("cpu"),
        **({"batch_size": 64} | changes),
    )


def test_every_stretch_has_the_background_of_its_game():
    batch = two_games().batch(0)
    game = batch.actions[:, 0]
    assert game.sum() == 32
    assert torch.equal(batch.background, game[:, None, None].expand(-1, 84, 84).float())
    assert torch.equal(batch.frames[:, 0, 0, 0].long(), game)


def test_newest_play_begins_with_its_first_row():
    """Stretches of four begin at rows 0 to 12: with row 12 the newest play, that one alone is left."""
    first = two_games(newest={"pong": 12, "qbert": 11}, newest_share=1.0).batch(0)
    begins = [set(first.rewards[first.actions[:, 0] == game, 0].tolist()) for game in (0, 1)]
    assert begins == [{12.0}, {11.0, 12.0}]
    assert two_games().num_clips == 2 * 13 // 4


def test_every_batch_has_every_game_and_no_game_is_preferred():
    sampler = two_games(batch_size=3)
    second = [int(sampler.batch(step).actions[:, 0].sum()) for step in range(60)]
    assert set(second) == {1, 2}
    assert 20 < second.count(1) < 40

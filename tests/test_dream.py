import shutil

import numpy as np
import pytest
import torch
from atari_data import FrameStore, minimal_actions
from command import at_hand, wm
from latent_ac import CodeFeatures, load_agent
from PIL import Image
from token_worldmodel import load_tokens
from wm.config import load_config
from wm.run import Layout
from wm.view.album import Album
from wm.view.dream_film import draw
from wm.view.films import sampled
from wm.view.images import GOOD
from wm.view.viewer import Viewer
from wm.view.watching import DreamedGame, WatchedDream, watch

CPU = torch.device("cpu")


def dreamt(run, horizon, seed=0):
    return watch(DreamedGame.load(at_hand(run), "pong", seed=seed), horizon)


def film(run, path, *arguments):
    done = wm("dream", run, "--out", path, "--device", "cpu", *arguments)
    assert done.code == 0, done.output
    return path.read_bytes()


def test_a_film_has_a_picture_of_every_step_and_follows_the_seed(run, tmp_path):
    first = film(run, tmp_path / "a.gif", "--horizon", 9)
    assert first == film(run, tmp_path / "b.gif", "--horizon", 9)
    assert first != film(run, tmp_path / "c.gif", "--horizon", 9, "--seed", 1)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == load_config(Layout(run).config).dream.context + 9
        assert picture.info["loop"] == 0
    assert not list(tmp_path.glob(".*"))


def test_a_picture_is_the_same_whichever_are_drawn(run):
    dream, viewer = dreamt(run, 9), Viewer.load(Layout(run), CPU)
    steps = range(len(dream.tokens))
    all_of_them = [np.asarray(picture) for picture in draw(dream, viewer, "pong", steps)]
    some = [np.asarray(picture) for picture in draw(dream, viewer, "pong", sampled(steps)[1:])]
    assert len(all_of_them) == len(steps)
    for step, picture in zip(sampled(steps)[1:], some, strict=True):
        assert np.abs(picture.astype(int) - all_of_them[step]).max() <= 24  # other batches, other roundings


def test_recorded_frames_draw_the_same_dream(run, tmp_path):
    by_decoder = film(run, tmp_path / "a.gif", "--horizon", 3)
    recorded = film(run, tmp_path / "b.gif", "--horizon", 3, "--recorded")
    assert recorded != by_decoder
    assert recorded == film(run, tmp_path / "c.gif", "--horizon", 3, "--round", 0)
    dreamed = DreamedGame.load(at_hand(run), "pong", seed=0)
    known, frames = dreamed.trajectories.tokens, dreamed.store.frames
    row = len(known) // 2
    tokens = torch.from_numpy(known[[row]])
    same = frames[np.flatnonzero((known == known[row]).all(1))]
    assert len(same) <= 16
    picture = Album.load(Layout(run), "pong").draw(tokens, "pong")[0, -1]
    np.testing.assert_allclose(picture, same.mean(0), atol=1e-3)


def test_a_dream_longer_than_the_model_starts_in_real_validation_play(run):
    layout = Layout(run)
    config = load_config(layout.config)
    context, horizon = config.dream.context, 3 * config.worldmodel.max_steps
    dream = dreamt(run, horizon, seed=2)
    assert dream.tokens.shape == (context + horizon, 3)
    assert dream.actions.shape == (context + horizon - 1,)
    assert set(dream.actions.tolist()) <= {int(action) for action in minimal_actions("pong")}

    store, known = FrameStore.open(layout.data("pong")), load_tokens(layout.tokens("pong"))
    windows = np.lib.stride_tricks.sliding_window_view(known.tokens, context, axis=0).transpose(0, 2, 1)
    starts = np.flatnonzero((windows == dream.tokens[:context].numpy()).all((1, 2)))
    assert any((store.frames[start : start + context] == dream.real).all() for start in starts)

    agent = load_agent(layout.agent)
    tables = Viewer.load(layout, CPU).quantizer.codebooks
    now, after = dream.tokens[context - 1 : -1], dream.tokens[context:]
    rewards = agent.reward(
        CodeFeatures(now, tables), dream.actions[context - 1 :], CodeFeatures(after, tables)
    )
    torch.testing.assert_close(dream.rewards, rewards.detach(), atol=1e-5, rtol=1e-4)
    assert ((dream.continues >= 0) & (dream.continues <= 1)).all()


def test_a_longer_dream_begins_like_a_shorter_one(run):
    short, long = dreamt(run, 3), dreamt(run, 30)
    assert torch.equal(short.tokens, long.tokens[: len(short.tokens)])


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        (None, ("--game", "breakout"), "the run has not seen 'breakout'; it knows pong"),
        ("agent", (), "has no agent yet; run `wm train --run"),
        ("worldmodel", (), "has no world model yet; run `wm train --run"),
        ("decoder", (), "has no decoder yet; run `wm train --run"),
    ],
)
def test_what_cannot_be_dreamed_is_said_in_a_sentence(run, tmp_path, missing, arguments, message):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "rounds" / "00.bak").mkdir(parents=True)  # no round
    if missing:
        getattr(Layout(copy), missing).unlink()
    done = wm("dream", copy, "--device", "cpu", *arguments)
    assert done.code == 2
    assert message in done.output


def test_a_film_of_one_level_has_room_for_its_rewards():
    """A hundred gains, drawn in green over the right half of the foot."""
    dream = WatchedDream(
        real=np.zeros((2, 84, 84), np.uint8),
        tokens=torch.zeros(102, 1, dtype=torch.int64),
        actions=torch.zeros(101, dtype=torch.int64),
        rewards=torch.ones(100),
        continues=torch.ones(100),
    )

    class Black:
        def draw(self, tokens, game):
            return torch.zeros(len(tokens), 2, 84, 84)

    (picture,) = draw(dream, Black(), "pong", range(101, 102))
    green = (np.asarray(picture) == GOOD).all(-1).any(0).nonzero()[0]
    assert picture.width == 726
    assert (green >= 596).sum() >= 100


def test_a_film_is_a_gif_or_a_video_and_nothing_else(run, tmp_path, monkeypatch):
    for command in (("dream", run), ("play", run)):
        done = wm(*command, "--out", tmp_path / "film.webm", "--device", "cpu")
        assert done.code == 2
        assert "give a name that ends in .gif or .mp4" in done.output
        with monkeypatch.context() as patch:
            patch.setattr("wm.view.films.find_spec", lambda name: None)
            done = wm(*command, "--out", tmp_path / "film.mp4", "--device", "cpu")
        assert done.code == 2
        assert ".mp4, which needs PyAV; pip install av" in done.output
    assert not list(tmp_path.iterdir())


def test_a_video_shows_what_a_gif_shows(run, tmp_path):
    av = pytest.importorskip("av")
    film(run, tmp_path / "film.gif", "--horizon", 3)
    film(run, tmp_path / "film.mp4", "--horizon", 3)
    with av.open(tmp_path / "film.mp4") as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(tmp_path / "film.gif") as gif:
        assert len(pictures) == gif.n_frames
        for step, picture in enumerate(pictures):
            gif.seek(step)
            shown = np.asarray(gif.convert("RGB"))
            assert shown.shape == picture.shape
            assert np.abs(shown.astype(int) - picture).mean() < 6

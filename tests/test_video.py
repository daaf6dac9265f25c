import errno
import json
import os
import shutil

import numpy as np
import pytest
import torch
from atari_data import Protocol, RandomPolicy, play_episodes
from cnn_encoder import embed
from command import at_hand, wm
from latent_ac import CodeFeatures
from wm.artifacts import frozen_encoder
from wm.policy import RecordedPolicy
from wm.run import Layout
from wm.view import episode_film
from wm.view.replay import (
    DreamedEpisode,
    EpisodeFilm,
    best_and_median,
    dream_again,
    see_again,
)
from wm.view.watching import Imagination

CPU = torch.device("cpu")


def test_best_and_median_by_hand():
    assert best_and_median([3, 9, 1, 9, 5]) == {"best": 1, "median": 4}
    assert best_and_median([2, 1]) == {"best": 0, "median": 1}
    assert best_and_median([0, 1, 1, 1, 2]) == {"best": 4, "median": 1}  # of equals the first
    assert best_and_median([7]) == {"best": 0, "median": 0}


@pytest.fixture(scope="module")
def films(run):
    """Two episodes of a random policy, seen again."""
    protocol = Protocol(max_frames=403)
    policy = RecordedPolicy(RandomPolicy("pong", 3, 2))
    arguments = {"seed": 5, "protocol": protocol, "num_envs": 2}
    played = play_episodes("pong", policy, 3, **arguments)
    seen = see_again("pong", policy, {"best": 0, "median": 2}, num_episodes=3, **arguments)
    return played, seen


def test_episodes_seen_again_are_those_that_were_played(films):
    played, seen = films
    for name, episode in (("best", 0), ("median", 2)):
        assert len(seen[name].frames) == played.lengths[episode] + 1
        assert sum(seen[name].rewards) == played.returns[episode]
    assert not np.array_equal(seen["best"].frames[20], seen["median"].frames[20])


def test_the_dream_of_an_episode_starts_in_it_and_takes_its_actions(run, films):
    imagination = Imagination.load(at_hand(run))
    encoder, backgrounds = frozen_encoder(Layout(run), CPU)
    background, quantizer = backgrounds["pong"], imagination.quantizer

    def dreamed(film):
        return dream_again(imagination, encoder, background, film, torch.Generator().manual_seed(0))

    film = films[1]["best"]
    dream = dreamed(film)
    context = imagination.config.dream.context
    assert dream.tokens.shape == (len(film.frames), 3)
    assert dream.rewards.shape == (len(film.frames) - context,)
    black = np.zeros((84, 84), np.uint8)  # before the first frame there is none, as for the policy
    stacks = np.stack([[black] * (3 - i) + film.frames[max(0, i - 3) : i + 1] for i in range(context)])
    assert torch.equal(dream.tokens[:context], quantizer.encode(embed(encoder, stacks, background)))
    # The first action that it foresees is the one chosen at the last real moment.
    features = CodeFeatures(dream.tokens[context - 1 :, None], quantizer.codebooks)
    chosen = torch.tensor(film.actions[context - 1 : len(film.frames) - 1])[:, None]
    expected, _ = imagination.agent.predict(features, chosen)
    assert torch.allclose(dream.rewards, expected[:, 0], atol=1e-5)
    film.actions[40:] = [(a + 3) % 6 for a in film.actions[40:]]
    other = dreamed(film)
    assert torch.equal(other.tokens[:41], dream.tokens[:41])
    film.frames = film.frames[:context]
    with pytest.raises(ValueError, match=f"a dream needs {context + 1}"):
        dreamed(film)


@pytest.mark.parametrize(
    ("signs", "was", "expects"),
    [(True, [1, 1, 2, 2], [1, 1, 2, 1.5]), (False, [10, 10, 20, 20], [10, 10, 11, 10.5])],
)
def test_what_was_won_and_what_it_expects_are_of_one_unit(signs, was, expects):
    film = EpisodeFilm(rewards=[10.0, 0.0, 10.0, 0.0])
    dream = DreamedEpisode(torch.zeros(4, 3), torch.tensor([1.0, -0.5]), 2, signs)
    known, expected = episode_film.running_scores(film, dream)
    assert known.tolist() == was
    assert expected.tolist() == expects


def test_eval_films_the_best_and_the_median_episode(run, tmp_path):
    av = pytest.importorskip("av")
    run = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    done = wm("eval", run, "--episodes", 2, "--max-frames", 400, "--video", "--device", "cpu")
    assert done.code == 0, done.output
    for name in ("best", "median"):
        path = run / "videos" / f"pong-{name}.mp4"
        assert str(path) in done.output.replace("\n", "")
        with av.open(str(path)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert pictures[0].shape == (432, 720, 3)
        assert len(pictures) > 20
        assert np.abs(pictures[5].astype(int) - pictures[-1]).max() > 50


def test_films_that_cannot_be_written_are_told_before_a_game_is_played(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    # Whoever runs the tests may write anywhere.
    monkeypatch.setattr("wm.files.os.access", lambda path, mode, **_: mode != os.W_OK)
    refused = wm("eval", copy, "--episodes", 2, "--max-frames", 400, "--video", "--device", "cpu")
    assert refused.code == 2
    said = " ".join(refused.output.split())
    assert "leave --video out, or copy the run to where films can be written" in said


def test_scores_are_there_before_the_film_and_whatever_comes_of_it(run, tmp_path, monkeypatch):
    run = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    (run / "videos").write_text("in the way")
    command = ("eval", run, "--episodes", 1, "--max-frames", 100, "--video", "--device", "cpu")
    refused = wm(*command)
    assert refused.code == 2
    assert "videos is a file" in refused.output
    assert "play pong" not in refused.output
    (run / "videos").unlink()

    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path.with_suffix("")))

    monkeypatch.setattr(episode_film, "write_film", full)
    filmed = wm(*command, "--json", tmp_path / "score.json")
    assert filmed.code == 2
    assert "pong-best: No space left on device" in filmed.stderr
    assert "│ agent    │" in filmed.output
    assert json.loads((tmp_path / "score.json").read_text())["games"]["pong"]["agent"]["distinct"] == 1


def test_without_pyav_the_film_is_a_gif(run, tmp_path, monkeypatch):
    run = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    for unread in ("data", "tokens"):  # an agent that plays needs neither
        shutil.rmtree(run / unread)
    monkeypatch.setattr("wm.view.films.find_spec", lambda name: None)
    done = wm("eval", run, "--episodes", 1, "--max-frames", 100, "--video", "--device", "cpu")
    assert done.code == 0, done.output
    assert (run / "videos" / "pong-best.gif").read_bytes()[:4] == b"GIF8"

"""Validation episodes are held out: no stage trains on them, and validation metrics are computed on them."""

import json

import numpy as np
import pytest
import torch
from atari_data import FrameStore
from cnn_encoder import load_embeddings
from command import options, train, wm
from hrvq import HRVQ, perplexity
from listening import listen
from token_worldmodel import TokenSampler, evaluate, load_tokens, load_worldmodel
from wm.clips import ClipSampler
from wm.config import load_config
from wm.run import Layout
from wm.stages import decoder


@pytest.fixture
def split(run):
    """Settings and places of a finished run, and which of its rows are held out."""
    layout = Layout(run)
    config = load_config(layout.config)
    return config, layout, config.validates(layout.frames("pong").episode_ids)


def test_no_stage_learns_from_them(tmp_path, monkeypatch):
    rows = {
        "encoder": listen(monkeypatch, ClipSampler, "batch", lambda sampler, step: sampler._starts[0]),
        "worldmodel, agent": listen(
            monkeypatch, TokenSampler, "batch", lambda sampler, step: sampler._starts[0]
        ),
        "decoder": listen(monkeypatch, decoder.Source, "batch", lambda source, rows, depths: rows),
    }
    fitted = listen(monkeypatch, HRVQ, "fit", lambda quantizer, vectors, **_: vectors)
    lengths = listen(monkeypatch, TokenSampler, "__init__", lambda sampler, *_, **given: given)
    done = train(tmp_path / "run")
    assert done.code == 0, done.output
    layout = Layout(tmp_path / "run")
    config, store = load_config(layout.config), layout.frames("pong")
    held_out = config.validates(store.episode_ids)
    assert 0 < held_out.sum() < len(held_out)
    for stage, begins in rows.items():
        assert len(begins), stage
        assert not held_out[np.concatenate(begins)].any(), stage
    assert torch.equal(fitted[0], load_embeddings(layout.embeddings("pong"))[0][torch.from_numpy(~held_out)])
    # A dream begins where its context ends, and one row more keeps that from being an episode's last.
    training = {given["length"] for given in lengths if given.get("split", "train") == "train"}
    assert training == {config.windows.length, 2, config.dream.context + 1}


def test_the_numbers_of_the_codes_are_theirs(split):
    config, layout, held_out = split
    told = json.loads(layout.manifest.read_text())["stages"]["hrvq"]["metrics"]["pong"]
    vectors = load_embeddings(layout.embeddings("pong"))[0][torch.from_numpy(held_out)]
    tokens = torch.from_numpy(load_tokens(layout.tokens("pong")).tokens[held_out]).long()
    codes = config.hrvq.codes_per_level
    assert told["perplexity"] == pytest.approx(perplexity(tokens, codes).tolist(), rel=1e-5)
    spread = (vectors - vectors.mean(0)).square().sum()
    quantizer = HRVQ.load(layout.hrvq)
    for level, explained in enumerate(told["explained_variance"]):
        left = (vectors - quantizer.decode(tokens[:, : level + 1])).square().sum()
        assert explained == pytest.approx(float(1 - left / spread), abs=1e-5)


def test_the_world_model_is_measured_on_them(run, split, tmp_path):
    config, layout, held_out = split
    done = wm("eval", run, "--stage", "worldmodel", "--json", tmp_path / "m.json", "--device", "cpu")
    assert done.code == 0, done.output
    told = json.loads((tmp_path / "m.json").read_text())["games"]["pong"]
    length = config.windows.length
    sampler = TokenSampler(
        {"pong": load_tokens(layout.tokens("pong"))},
        length=length,
        batch_size=config.train.worldmodel.batch_size,
        seed=config.seed,
        split="validation",
        validation_fraction=config.collect.validation_fraction,
    )
    [starts] = sampler.swept()
    assert held_out[starts].all()
    found = evaluate(load_worldmodel(layout.worldmodel), sampler.sweep(), ["pong"])["pong"]
    for level, expected in zip(told, found, strict=True):
        assert level["count"] == len(starts) * (length - 1)
        assert level["accuracy"] == pytest.approx(expected.accuracy, abs=2 / expected.count)
        assert level["cross_entropy"] == pytest.approx(expected.cross_entropy, rel=0.01)  # autocast


def test_later_rounds_learn_from_the_newest_play_as_often_as_set(tmp_path, monkeypatch):
    settings = (
        "collect.num_steps=900",
        "rounds.count=2",
        "rounds.first_steps=600",
        "rounds.worldmodel_steps=3",
        "rounds.predictor_steps=3",
        "rounds.agent_steps=12",
        "rounds.encoder_steps=1",
        "rounds.newest_share=1",
        "train.agent.steps=12",
    )
    clips = listen(monkeypatch, ClipSampler, "__init__", lambda sampler, *_, **given: given)
    windows = listen(monkeypatch, TokenSampler, "__init__", lambda sampler, *_, **given: given)
    moved = listen(monkeypatch, HRVQ, "update", lambda quantizer, vectors, **_: vectors)
    drawn = listen(monkeypatch, TokenSampler, "batch", lambda sampler, step: (sampler.length, step >> 32))
    stretches = listen(monkeypatch, ClipSampler, "batch", lambda sampler, step: step >> 32)
    done = train(tmp_path / "run", "--seed", 1, *options(settings))  # 0 holds the whole second round out
    assert done.code == 0, done.output
    layout = Layout(tmp_path / "run")
    store = FrameStore.open(layout.data("pong"))
    newest = {"pong": store.round_ends[0]}
    trained = [given for given in windows if given.get("split", "train") == "train"]
    assert [given["newest"] for given in clips] == [None, newest]
    assert [given["newest"] for given in trained] == [None] * 3 + [newest] * 3
    assert {given["newest_share"] for given in clips[1:] + trained[3:]} == {1.0}
    config = load_config(layout.config)
    lengths = (config.windows.length, 2, config.dream.context + 1)  # of the model, predictors and dreams
    assert set(drawn) == {(length, index) for length in lengths for index in (0, 1)}  # each round its own
    assert set(stretches) == {0, 1}
    vectors = load_embeddings(layout.embeddings("pong"))[0]
    late = {row.tobytes() for row in vectors[newest["pong"] :].numpy()}
    follows = torch.cat(moved[-config.quantize.epochs :])
    assert late.issuperset(row.tobytes() for row in follows.numpy())

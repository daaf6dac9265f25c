import json
import shutil

import numpy as np
import pytest
from atari_data import FrameStore, split_episodes
from cnn_encoder import load_encoder
from command import options, wm
from wm.config import load_config
from wm.run import Layout


def test_errors_stand_beside_the_background_alone(run):
    layout = Layout(run)
    config = load_config(layout.config)
    metrics = json.loads(layout.manifest.read_text())["stages"]["decoder"]["metrics"]["pong"]
    assert len(metrics["rmse"]) == len(metrics["foreground_rmse"]) == config.hrvq.levels + 1
    store = FrameStore.open(layout.data("pong"))
    held_out = split_episodes(store.episode_ids, config.collect.validation_fraction, config.seed)
    frames = store.frames[np.flatnonzero(held_out)].astype(np.float64)
    away = frames - load_encoder(layout.encoder)[1]["pong"].numpy()
    assert metrics["background_rmse"] == pytest.approx(np.sqrt((away**2).mean()), rel=1e-4)
    seen = away[np.abs(away) > 10]
    assert metrics["background_foreground_rmse"] == pytest.approx(np.sqrt((seen**2).mean()), rel=1e-4)


def test_a_trained_decoder_draws_more_than_the_background(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    settings = ("steps=120", "batch_size=16", "learning_rate=2e-3")
    changed = options(f"train.decoder.{setting}" for setting in settings)
    done = wm("train", "decoder", "--run", copy, "--device", "cpu", *changed)
    assert done.code == 0, done.output
    assert "error off the background" in done.output
    metrics = json.loads(Layout(copy).manifest.read_text())["stages"]["decoder"]["metrics"]["pong"]
    assert metrics["foreground_rmse"][-1] < metrics["background_foreground_rmse"]

"""State retention on the real emulator, at a tiny size: the values mean little, but shapes and laws hold."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cnn_encoder import Stage
from command import wm
from hrvq import HRVQ
from listening import listen
from wm.config import load_config, save_config
from wm.measure import probing
from wm.measure.probe_report import print_probe
from wm.measure.probing import atariari_scores
from wm.policy import RunPolicy
from wm.sections import QuantizeConfig

QUICK = ("--frames", 240, "--probe-steps", 20, "--device", "cpu")
STAGES = ["pixels", "random encoder", "embedding", "after L0", "after L0-1", "after L0-2"]


@pytest.fixture(scope="module")
def probed(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "probe.json"
    written = []

    def show(game, *rest):
        written.append(game in json.loads(path.read_text())["games"])
        print_probe(game, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "print_probe", show)
        done = wm("probe", run, *QUICK, "--supervised", "--f1", "--json", path)
    assert done.code == 0, done.output
    assert written == [True]  # by the time the table is printed, which its reader may stop
    assert f"written to {path}" in " ".join(done.output.split())
    return done.output, json.loads(path.read_text())


def test_every_variable_is_probed_at_every_stage(probed):
    output, result = probed
    pong = result["games"]["pong"]
    rows = pong["retention"]
    assert list(dict.fromkeys(row["stage"] for row in rows)) == [
        *STAGES,
        "supervised",
        "supervised after L0-2",
    ]
    variables = {row["variable"] for row in rows if row["stage"] == "embedding"}
    assert {"ball_x", "ball_y", "player_y", "enemy_y", "ball_y - player_y"} <= variables
    assert {"ball_x motion", "ball_y motion", "player_y motion", "enemy_y motion"} <= variables
    assert all(row["mlp_r2"] is None or row["mlp_r2"] <= 1 for row in rows)
    assert "enemy_y" in output
    assert (
        set(pong["atariari"]["stages"])
        == set(pong["geometry"])
        == {row["stage"] for row in rows} - {"pixels"}
    )


def test_a_paddle_is_read_better_from_pixels_than_from_one_level_of_codes(probed):
    """Quantizing an untrained embedding of a paddle's height cannot add to what the pixels say."""
    rows = probed[1]["games"]["pong"]["retention"]
    error = {row["stage"]: row["mlp_error"] for row in rows if row["variable"] == "enemy_y"}
    assert error["pixels"] < error["after L0"]


def test_test_frames_are_those_that_neither_trained_nor_validated():
    """A test that shows all frames once more, where nothing can be read, and two others, where all can."""
    shown = np.arange(100, dtype=np.uint8)

    def play(frames):
        return SimpleNamespace(
            frames=lambda: frames[:, None, None],
            store=SimpleNamespace(episode_ids=np.repeat(np.arange(10), 10)),
            raw=torch.from_numpy(frames % 4)[:, None].long(),
            state=SimpleNamespace(names=("ball_x",)),
        )

    train, test = play(shown), play(np.append(shown, np.array([200, 201], np.uint8)))
    readable, later = (torch.nn.functional.one_hot(found.raw[:, 0]).float() for found in (train, test))
    later[:100] = 0
    scores = atariari_scores([Stage("embedding", readable, later)], train, test, seed=0)
    assert scores["unseen_test_frames"] == 2
    assert scores["stages"]["embedding"]["mean"] == 1


def test_dinov2_runs_through_the_same_measurements_and_the_same_seed_measures_the_same(probed, run, tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", img_size=28, num_classes=0)
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    options = (
        "--dinov2",
        tmp_path / "vit.safetensors",
        "--dinov2-size",
        28,
        "--json",
        tmp_path / "probe.json",
    )
    done = wm("probe", run, *QUICK, *options)
    assert done.code == 0, done.output
    found = json.loads((tmp_path / "probe.json").read_text())["games"]["pong"]
    rows, before = found["retention"], probed[1]["games"]["pong"]["retention"]
    shared = [row for row in rows if row["stage"] in STAGES]
    assert shared == before[: len(shared)]
    assert {row["stage"] for row in rows} == {*STAGES, "DINOv2"}
    assert found["geometry"]["DINOv2"]["norm"] > 0


def test_by_agent_the_play_is_the_agents(probed, run, tmp_path, monkeypatch):
    plays = listen(monkeypatch, RunPolicy, "__call__", lambda policy, *seen: policy)
    done = wm("probe", run, *QUICK, "--by-agent", "--json", tmp_path / "probe.json")
    assert done.code == 0, done.output
    rounds = load_config(run / "config.toml").rounds  # as it collects
    assert {(policy.temperature, policy.epsilon) for policy in plays} == {
        (rounds.temperature, rounds.epsilon)
    }
    result = json.loads((tmp_path / "probe.json").read_text())
    assert probed[1]["protocol"]["round"] == 0
    assert (probed[1]["protocol"]["policy"], result["protocol"]["policy"]) == ("random", "agent")
    rows, before = (found["games"]["pong"]["retention"] for found in (result, probed[1]))
    assert list(dict.fromkeys(row["stage"] for row in rows)) == STAGES
    assert rows != before[: len(rows)]


def test_what_is_measured_is_kept_where_there_is_too_little_play_for_a_score(run, tmp_path, monkeypatch):
    def too_little(*_):
        raise ValueError("no variable has an entropy of 0.6 nats")

    monkeypatch.setattr("wm.measure.probing.atariari_scores", too_little)
    done = wm("probe", run, *QUICK, "--f1", "--json", tmp_path / "probe.json")
    assert done.code == 0, done.output
    said = " ".join(done.output.split())
    assert "probe pong: no F1 scores: no variable has an entropy" in said
    assert "state correlation" in said
    assert "atariari" not in json.loads((tmp_path / "probe.json").read_text())["games"]["pong"]


def test_by_agent_it_needs_one(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    (copy / "agent.safetensors").unlink()
    refused = wm("probe", copy, *QUICK, "--by-agent")
    assert refused.code == 2
    assert "has no agent yet" in refused.output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--frames", 10], "'--frames'"),
        (["--dinov2", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--dinov2-size", 28], "--dinov2-size is given without --dinov2"),
    ],
)
def test_bad_options_are_one_sentence(run, arguments, part):
    refused = wm("probe", run, *arguments, "--device", "cpu")
    assert refused.code == 2
    assert part in " ".join(refused.output.split())


def test_codes_of_the_supervised_encoder_are_fitted_as_the_runs_are(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "copy")
    config = load_config(copy / "config.toml")
    save_config(copy / "config.toml", replace(config, quantize=QuantizeConfig(epochs=2, refine=3)))
    asked, fit = [], HRVQ.fit

    def noted(self, vectors, **options):
        asked.append(options)
        return fit(self, vectors, **options)

    monkeypatch.setattr(HRVQ, "fit", noted)
    assert wm("probe", copy, *QUICK, "--supervised").code == 0
    assert [(options["epochs"], options["refine"]) for options in asked] == [(2, 3)]

"""The benchmarks run, at a size too small to be meaningful, so that published numbers can be remade."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cnn_encoder import ClipBatch, ContrastiveObjective, Encoder, EncoderConfig
from hrvq import HRVQ, HRVQConfig
from token_worldmodel import TokenTrajectories, save_tokens
from wm.run import Layout

ROOT = Path(__file__).parents[1]
SMALL_MODEL = ["--dim", 16, "--layers", 1, "--heads", 2]
WITHOUT_A_RUN = {
    "apps/wm/benchmarks/agent_share.py": ["--preset", "tiny", "--batch", 4, "--rounds", 1, "--device", "cpu"],
    "apps/wm/benchmarks/layout_targets.py": ["--games", "pong", "--frames", 400, "--probe-steps", 2],
    "apps/wm/benchmarks/picture_targets.py": ["--games", "pong", "--frames", 200],
    "packages/atari-data/benchmarks/collection.py": ["--steps", 400, "--num-envs", 4, "--repeats", 1],
    "packages/atari-data/benchmarks/reading.py": ["--steps", 2000],
    "packages/hrvq/benchmarks/distortion.py": ["--rows", 1000, "--dim", 16, "--codes", 8, "--passes", 2],
    "packages/hrvq/benchmarks/fit.py": ["--rows", 2000, "--dim", 16],
    "packages/latent-ac/benchmarks/updates.py": [
        "--batch", 4, "--horizon", 3, "--width", 16, "--codes", 8, "--code-dim", 8, "--rounds", 1,
        "--times", 1,
    ],
    "packages/token-worldmodel/benchmarks/imagination.py": [
        "--batches", 2, "--context", 4, "--horizon", 2, "--rounds", 1, *SMALL_MODEL
    ],
    "packages/token-worldmodel/benchmarks/launches.py": [
        "--device", "cpu", "--batches", 2, "--context", 4, "--horizon", 2, "--rounds", 1, *SMALL_MODEL
    ],
    "packages/token-worldmodel/benchmarks/training_step.py": [
        "--windows", 2, "--steps", 4, "--rounds", 1, *SMALL_MODEL
    ],
}  # fmt: skip
OF_TOKENS = {
    "masks.py": ["--seeds", 0, "--steps", 2, "--windows", 2, "--length", 4],
    "noise.py": ["--steps", 2, "--windows", 2, "--length", 8],
    "overlap.py": ["--rows", 400, "--passes", 1, "--optimizer", "muon"],
    "passes.py": [
        "--rows",
        250,
        "--held-out",
        350,
        "--passes",
        1,
        "--windows",
        2,
        "--length",
        8,
        "--own-tokens",
    ],
}


@pytest.fixture
def ran(monkeypatch, capsys, tmp_path):
    """Runs a benchmark in this process and gives what it printed."""
    threads = torch.get_num_threads()

    def run_it(script, *arguments):
        path = ROOT / script
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        monkeypatch.syspath_prepend(str(path.parent))
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    yield run_it
    torch.set_num_threads(threads)


@pytest.mark.parametrize("script", WITHOUT_A_RUN)
def test_it_runs(ran, script):
    assert ran(script, *WITHOUT_A_RUN[script])


@pytest.mark.parametrize("name", OF_TOKENS)
def test_it_runs_on_tokens(run, ran, name):
    layout = Layout(run)
    script = f"packages/token-worldmodel/benchmarks/{name}"
    assert ran(script, layout.tokens("pong"), *OF_TOKENS[name], *SMALL_MODEL)


def test_it_reads_the_codes_too(run, ran):
    arguments = [*OF_TOKENS["masks.py"], *SMALL_MODEL]
    tokens, codes = Layout(run).tokens("pong"), Layout(run).hrvq
    named, read = (
        ran("packages/token-worldmodel/benchmarks/masks.py", tokens, *arguments, *more)
        for more in ((), ("--codes", codes))
    )
    assert read != named


@pytest.mark.parametrize("name", ["masks.py", "noise.py"])
def test_tokens_may_be_of_any_levels_and_leave_codes_out(ran, tmp_path, name):
    """Two levels of 8 codes, of which the last never came."""
    draw = np.random.default_rng(0)
    unused, ids = np.zeros(300), np.repeat(np.arange(6), 50)
    play = TokenTrajectories(
        tokens=draw.integers(0, 7, (300, 2)), actions=unused, rewards=unused, terminated=unused,
        truncated=unused, episode_ids=ids, lives=unused,
    )  # fmt: skip
    save_tokens(tmp_path / "tokens.safetensors", play)
    script = f"packages/token-worldmodel/benchmarks/{name}"
    assert ran(script, "tokens.safetensors", *OF_TOKENS[name], *SMALL_MODEL)


def test_substitution_runs(run, ran):
    assert ran("apps/wm/benchmarks/substitution.py", run, "--batches", 1, "--sources", "ram", "tokens")


def test_commitment_asks_the_quantized_embedding():
    """The whole of it takes minutes at any size, so one step of what is its own."""
    names = runpy.run_path(str(ROOT / "apps/wm/benchmarks/commitment.py"))
    draw = torch.Generator().manual_seed(0)
    encoder = Encoder(EncoderConfig(), generator=draw)
    quantizer = HRVQ(HRVQConfig(dim=384, levels=2, codes=4))
    quantizer.initialize(torch.randn(64, 384, generator=draw))
    through = names["ThroughQuantizer"](
        ContrastiveObjective(encoder, names["OBJECTIVE"], generator=draw), quantizer
    )
    batch = ClipBatch(
        frames=torch.randint(0, 256, (2, 9, 84, 84), dtype=torch.uint8, generator=draw),
        actions=torch.zeros(2, 6, dtype=torch.int64),
        background=torch.zeros(2, 84, 84),
        rewards=torch.zeros(2, 6),
    )
    before = [table.clone() for table in quantizer.codebooks]
    loss, _ = through(batch)
    loss.backward()
    assert encoder.conv1.weight.grad.abs().max() > 0
    through.after_step()
    assert not all(torch.equal(old, new) for old, new in zip(before, quantizer.codebooks, strict=True))

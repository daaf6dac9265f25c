"""`wm train` in two processes, as torchrun starts them, on the CPU."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from command import SMALL, options, train
from safetensors.numpy import load_file
from torch import Tensor
from wm import training
from wm.distributed import Team

EXACT = options(
    (
        "worldmodel.dropout=0.0",
        "worldmodel.token_noise=0.0",  # each process draws its own
        'train.worldmodel.precision="float32"',
        "train.worldmodel.steps=6",
        "collect.num_steps=900",
        "rounds.count=2",
        "rounds.first_steps=600",
        "rounds.encoder_steps=2",
    )
)


@dataclass
class Batch:
    x: Tensor
    y: Tensor


def test_shares_join_to_the_whole_batch():
    batch = Batch(torch.arange(12).view(6, 2), torch.arange(6))
    parts = [Team(rank, 3).share(batch) for rank in range(3)]
    assert torch.equal(torch.cat([part.x for part in parts]), batch.x)
    assert torch.equal(torch.cat([part.y for part in parts]), batch.y)
    assert Team().share(batch) is batch
    with pytest.raises(ValueError, match="a batch of 6 cannot be shared evenly by 4 processes"):
        Team(0, 4).share(batch)
    with pytest.raises(ValueError, match=r"the columns of a batch have \[3, 6\] rows"):
        Team(0, 3).share(Batch(batch.x, batch.y[:3]))


def test_a_batch_that_cannot_be_shared_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "join", lambda device: (Team(0, 3), device))
    refused = train(tmp_path / "run", "--set", "train.worldmodel.batch_size=8")
    assert refused.code == 2
    assert "which 3 processes cannot share evenly; give a multiple of 3" in " ".join(refused.output.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_two_processes_train_the_world_model_of_one(tmp_path):
    alone = train(tmp_path / "alone", *EXACT)
    assert alone.code == 0, alone.output
    settings = options(SMALL) + EXACT
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "--", "wm", "train", "--preset", "tiny", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "team"), *settings],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("worldmodel-0", "worldmodel"):
        assert done.stdout.count(f"{stage}: done") == 1
    rounds = {name: tmp_path / name / "rounds" / "00" for name in ("team", "alone")}
    ours, theirs = (load_file(path / "worldmodel.safetensors") for path in rounds.values())
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, atol=2e-4, rtol=0, err_msg=name)
    for name in ("encoder", "hrvq"):  # what is made by one process is the same, byte for byte
        paths = [path / f"{name}.safetensors" for path in rounds.values()]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert (tmp_path / "team" / "evaluation.json").exists()

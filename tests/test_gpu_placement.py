"""Every tensor is where the next operation needs it: the commands on a simulated GPU."""

import os
import subprocess
import sys
from pathlib import Path

from command import SMALL, options

HERE = Path(__file__).parent
ROUNDS = [
    "collect.num_steps=900",
    "quantize.refine=2",
    "rounds.count=2",
    "rounds.first_steps=600",
    "rounds.encoder_steps=2",
    "worldmodel.code_dim=384",
    "worldmodel.position=step",
    "rounds.worldmodel_steps=2",
    "rounds.predictor_steps=2",
    "rounds.agent_steps=36",
    "dream.hidden_state=true",
]
CONTROL = """
import pytest, torch
from pretend_gpu import *

with Pretended():
    there, here = torch.ones(2, device=DEVICE), torch.ones(2)
    with pytest.raises(RuntimeError, match=r"shapes \\[\\(2,\\)\\] on the GPU and \\[\\(2,\\)\\] on the CPU"):
        there + here
    with pytest.raises(RuntimeError, match="on the GPU"):
        torch.nn.functional.linear(there, torch.ones(2, 2))
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    places = torch.tensor([1])
    assert there[places].device == DEVICE
    for misplaced in ("here[places.to(DEVICE)]", "there.index_put_((places,), here[:1])"):
        with pytest.raises(RuntimeError, match="on the GPU"):
            eval(misplaced)
    assert (there + torch.tensor(1)).device == DEVICE
    assert (there + here.to(DEVICE)).cpu().tolist() == [2.0, 2.0]
    layer = torch.nn.Linear(2, 2).to(DEVICE)
    layer(there).sum().backward()
    assert layer.weight.grad.device == DEVICE and layer.weight.grad.cpu().tolist() == [[1, 1], [1, 1]]
"""


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own: the pretended GPU changes torch."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


def test_the_pretended_gpu_refuses_what_a_real_one_does():
    done = python("-c", CONTROL)
    assert done.returncode == 0, done.stderr


def test_a_dream_from_a_recording_is_the_dream_itself():
    done = python("recorded_dreams.py")
    assert done.returncode == 0, done.stderr


def test_batches_do_not_wait_for_the_gpu():
    done = python("unwaited_batches.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_hrvq_needs_no_float64_where_there_is_none():
    done = python("quantizing_without_float64.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_rounds_and_all_that_reads_them(tmp_path):
    run = tmp_path / "pong"
    settings = options([*SMALL, *ROUNDS])
    commands = [
        ["train", "--preset", "tiny", "--run", run, *settings],
        ["eval", run, "--stage", "worldmodel"],
        ["fidelity", run, "--frames", "1500", "--windows", "16", "--reader-steps", "20"],
        ["probe", run, "--frames", "1500", "--probe-steps", "20"],
        ["dream", run],
        ["atlas", run],
    ]
    done = python("pretend_gpu.py", *[part for command in commands for part in (*command, ";")])
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "not recorded" not in done.stderr
    assert "\n0 launches of recordings" not in done.stdout
    for name in ("evaluation.json", "dream-pong-0.gif", "atlas.html"):
        assert (run / name).exists(), name

"""`wm doctor`: is everything installed, and does one step of every stage work?"""

import platform
import shutil
import tempfile
import time
from pathlib import Path

import torch
from ale_py import roms
from atari_data import games
from rich.console import Console

from wm.config import build_config
from wm.device import autocast_dtype, has_bfloat16, pick_device
from wm.pipeline import run_stages
from wm.preset import read_preset
from wm.reporter import Reporter
from wm.run import Layout
from wm.stage import Context
from wm.stages import STAGES
from wm.versions import package_versions

SMOKE = {
    "collect": {"num_steps": 600, "num_envs": 2, "policy": "random"},
    "windows": {"clip": 8, "length": 8},
    "dream": {"context": 2, "horizon": 2},
    "hrvq": {"codes": 16, "kmeans_iterations": 2},
    "quantize": {"epochs": 1},
    "worldmodel": {"dim": 32, "num_layers": 1, "num_heads": 2, "ffn_dim": 64, "max_steps": 8},
    "agent": {"ppo_epochs": 2, "ppo_minibatches": 1},
    "train": {
        stage: {"steps": 1, "batch_size": 2}
        for stage in ("encoder", "decoder", "worldmodel", "predictors", "agent")
    },
    "evaluate": {"episodes": 2, "num_envs": 2, "max_frames": 400},
}


def examine(console: Console, device_name: str) -> bool:
    """Print what is found; False if something does not work."""
    device = pick_device(device_name)
    versions = "  ".join(f"{name} {found}" for name, found in package_versions().items())
    console.print(f"python {platform.python_version()}  {versions}")
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    console.print(
        f"device {device}; CUDA devices: {', '.join(cuda) or 'none'}; {torch.get_num_threads()} CPU threads; "
        f"bfloat16 in hardware: {'yes' if has_bfloat16(device) else 'no'}; "
        f"training precision: {str(autocast_dtype('auto', device) or torch.float32).removeprefix('torch.')}",
    )
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    console.print(f"disk: {free:.0f} GiB free here; a run of 100k frames takes 1 to 2 GiB")
    passed = free > 2
    if not passed:
        console.print("less than 2 GiB of disk space is free", style="red")
    return _roms(console) and _smoke(console, device) and passed


def _roms(console: Console) -> bool:
    missing = [game for game in games() if roms.get_rom_path(game) is None]
    console.print(f"ROMs: {len(games()) - len(missing)} of {len(games())} games")
    return not missing


def _smoke(console: Console, device: torch.device) -> bool:
    quiet = Reporter(Console(quiet=True))
    works = True
    with tempfile.TemporaryDirectory() as directory:
        context = Context(build_config(read_preset("tiny"), SMOKE), Layout(Path(directory)), device, quiet)
        for stage in STAGES:
            began = time.monotonic()
            try:
                run_stages(STAGES, context, only=stage.name)
            except Exception as error:
                console.print(f"stage {stage.name}: {type(error).__name__}: {error}", style="red")
                works = False
                break
            console.print(f"stage {stage.name}: works ({time.monotonic() - began:.1f} s)")
    return works

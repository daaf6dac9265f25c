"""What a linear probe reads from hand-made pictures of a frame: the AtariARI F1 an embedding could reach.

    uv run python apps/wm/benchmarks/picture_targets.py [--games ms_pacman breakout] [--frames 24000]

An embedding trained to hold a target linearly holds, at best, its 384 principal directions. Targets:

    pixels      the frame
    coarse      the frame, averaged over squares of 2 x 2 pixels
    profiles    `cnn_encoder.picture`: how much of each brightness every row and column holds

Every column is in units of its standard deviation. Plain sticky-random play; tested on episodes of another
seed, without the frames that were seen before, as in `wm probe --f1`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from cnn_encoder import Stage, mean_frame
from cnn_encoder.picture import picture
from rich.console import Console
from torch import Tensor
from wm.config import build_config
from wm.measure.fresh import fresh_play
from wm.measure.probing import atariari_scores
from wm.opened import RunAtHand
from wm.reporter import Reporter
from wm.run import Layout

EMBEDDING_DIM = 384
CHUNK = 500

TARGETS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pixels": lambda frames, background: frames.float().flatten(1),
    "coarse": lambda frames, background: F.avg_pool2d(frames.float(), 2).flatten(1),
    "profiles": lambda frames, background: picture(frames[None], background)[0],
}


def principal(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both projected onto the 384 directions of largest variance in the first."""
    mean, deviation = train.mean(0), train.std(0)
    unit = deviation + 0.3 * deviation[deviation > 0].median()
    train, test = (train - mean) / unit, (test - mean) / unit
    _, _, directions = torch.svd_lowrank(train[::3], EMBEDDING_DIM)
    return train @ directions, test @ directions


def target(name: str, frames: Tensor, background: Tensor) -> Tensor:
    """A target for frames, uint8 (N, 84, 84) -> float32 (N, F)."""
    return torch.cat([TARGETS[name](part, background) for part in frames.split(CHUNK)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", nargs="+", default=["pong", "breakout", "ms_pacman"])
    parser.add_argument("--frames", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=1000)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    config = build_config({"collect": {"policy": "sticky_random"}})
    run = RunAtHand(config, Layout(Path()), torch.device("cpu"), Reporter(Console(stderr=True)))
    for game in args.games:
        with (
            fresh_play(run, game, args.frames, seed=args.seed, name="learn") as train,
            fresh_play(run, game, args.frames // 2, seed=args.seed, name="test") as test,
        ):
            frames = [torch.from_numpy(play.frames()) for play in (train, test)]
            background = mean_frame(frames[0])
            targets = [
                Stage(name, *principal(*(target(name, of_play, background) for of_play in frames)))
                for name in TARGETS
            ]
            for name, score in atariari_scores(targets, train, test, args.seed)["stages"].items():
                categories = "  ".join(f"{key} {value:.2f}" for key, value in score["categories"].items())
                print(f"{game:10s} {name:9s} F1 {score['mean']:.3f}   {categories}", flush=True)


if __name__ == "__main__":
    main()

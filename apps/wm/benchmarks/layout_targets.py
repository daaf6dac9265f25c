"""How much of the state is in the layouts that an encoder is trained to hold, and in 3 x 256 codes of them.

    uv run python apps/wm/benchmarks/layout_targets.py [--games ms_pacman] [--frames 50000]

    together    `cnn_encoder.layout`: all that moves, and its brightness; whitened to equal variances
    bands       `cnn_encoder.banded_layout`, whitened likewise
    louder      the same as `ContrastiveObjective` uses it: every column in units of its standard deviation,
                lower frequencies weighted higher

MLP probes on sticky-random play, tested on other episodes: R2 of every position, and the mean of the ghosts'.
"""

import argparse
import statistics
from pathlib import Path

import torch
from cnn_encoder import MLPProbeConfig, Stage, StateLabels, banded_layout, layout, retention
from cnn_encoder.layout import loudness
from cnn_encoder.running import RunningScale, RunningWhitening
from hrvq import HRVQ, HRVQConfig
from rich.console import Console
from torch import Tensor
from wm.config import build_config
from wm.measure.fresh import FreshPlay, fresh_play
from wm.opened import RunAtHand
from wm.reporter import Reporter
from wm.run import Layout

STRETCH, FREQUENCIES, BANDS = 40, 4, 12
TARGETS = ("together", "bands", "louder")


def target(name: str, play: FreshPlay) -> Tensor:
    """The target for all complete stretches of the play, one after the other: float32 (N, F)."""
    frames = torch.from_numpy(play.frames())
    stretches = frames[: len(frames) // STRETCH * STRETCH].unflatten(0, (-1, STRETCH))
    banded = [
        layout(part, FREQUENCIES) if name == "together" else banded_layout(part, FREQUENCIES, BANDS)
        for part in stretches.split(8)
    ]
    return torch.cat(banded).flatten(0, 1)


def to_scale(name: str, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both scaled by the statistics of the first."""
    if name == "louder":
        scale = RunningScale(train.shape[1], floor=0.05)
        weights = loudness(FREQUENCIES).repeat(BANDS)
        return scale(train) * weights, scale.eval()(test) * weights
    whiten = RunningWhitening(train.shape[1])
    return whiten(train), whiten.eval()(test)


def positions(play: FreshPlay, count: int) -> StateLabels:
    """The positions of what moves, except fruit, which is hardly ever visible."""
    assert play.state is not None
    names, values, in_play = play.state
    kept = [i for i, name in enumerate(names) if name.endswith(("_x", "_y")) and "fruit" not in name]
    return StateLabels(tuple(names[i] for i in kept), values[:count, kept], in_play[:count, kept])


def scores(stage: Stage, train: StateLabels, test: StateLabels, config: MLPProbeConfig) -> str:
    """R2 by variable; that of several enemies as one mean."""
    found = {row.variable: row.mlp_r2 for row in retention([stage], train, test, config)}
    ghosts = [found.pop(name) for name in list(found) if name.count("_") > 1]
    texts = [f"{name} {r2:.3f}" for name, r2 in found.items()]
    return "  ".join([*texts, f"ghosts {statistics.mean(ghosts):.2f}"] if ghosts else texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", nargs="+", default=["pong", "breakout", "ms_pacman"])
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--probe-steps", type=int, default=1200)
    args = parser.parse_args()
    probes = MLPProbeConfig(num_steps=args.probe_steps)
    config = build_config({"collect": {"policy": "sticky_random"}})
    run = RunAtHand(config, Layout(Path()), torch.device("cpu"), Reporter(Console(stderr=True)))
    for game in args.games:
        with (
            fresh_play(run, game, args.frames, seed=args.seed, name="learn") as train,
            fresh_play(run, game, args.frames // 2, seed=args.seed, name="test") as test,
        ):
            for name in TARGETS:
                learned, tested = to_scale(name, target(name, train), target(name, test))
                labels = positions(train, len(learned)), positions(test, len(tested))
                codes = HRVQ(HRVQConfig(dim=learned.shape[1], levels=3, codes=256))
                codes.fit(learned, epochs=5, refine=10)
                coded = [codes.decode(codes.encode(rows)) for rows in (learned, tested)]
                for stage in (Stage("itself", learned, tested), Stage("3 x 256", *coded)):
                    print(
                        f"{game:10s} {name:9s} {stage.name:8s} {scores(stage, *labels, probes)}", flush=True
                    )


if __name__ == "__main__":
    main()

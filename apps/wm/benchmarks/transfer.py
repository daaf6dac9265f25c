"""What carries over between games: a run of each game started from what a run of the others has learned.

    uv run python apps/wm/benchmarks/transfer.py [--games pong breakout ms_pacman] [--steps 120000]

For each game, a run of the other games goes as far as its world model. Then the game itself is trained on,
with each number of steps in `--steps`, in runs that differ only in what they start from:

    scratch     nothing
    encoder     the encoder of the other games, kept as it is, and new codes
    hrvq        encoder and codes of the other games, kept as they are
    worldmodel  the same, and their world model, trained on
    trained     the encoder of the other games, trained further for half of the steps, and new codes
    short       nothing, and a quarter of the encoder's steps; only to the codes
    tuned       the encoder of the other games, trained further as long as `short`, and new codes; to these

All use the preset `tiny` with one training seed. Prints a table for each game and number of steps: how much
of the state survives (`wm probe`: R2 and mean error in RAM pixels of an MLP probe, on episodes of another
seed), how well the world model predicts validation episodes, and what the agent scores. Finished runs are
only read, so the same command continues after a stop, and single runs may be made in parallel beforehand:

    OMP_NUM_THREADS=1 uv run python apps/wm/benchmarks/transfer.py --only pong-120000-scratch-0
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from wm.measure.probing import ProbeOptions, probe_run
from wm.opening import open_to_read
from wm.training import train_run

VARIANTS = {
    "scratch": (),
    "encoder": ("start.parts=encoder", "start.encoder_steps=0"),
    "hrvq": ("start.parts=hrvq", "start.encoder_steps=0"),
    "worldmodel": ("start.parts=worldmodel", "start.encoder_steps=0"),
    "trained": ("start.parts=encoder", "start.encoder_steps=500"),
    "short": ("train.encoder.steps=250",),
    "tuned": ("start.parts=encoder", "start.encoder_steps=250"),
}
FROM_NOTHING = ("scratch", "short")
TO_THE_CODES = ("short", "tuned")
SHOWN = {
    "pong": ("ball_x", "ball_y", "player_y", "enemy_y", "ball_y - player_y"),
    "breakout": ("ball_x", "ball_y", "player_x"),
    "ms_pacman": ("player_x", "player_y", "enemy_blinky_x", "enemy_blinky_y", "dots_eaten_count"),
}
PROBE = ProbeOptions(
    frames=10_000,
    steps=1000,
    seed=1000,
    supervised=False,
    f1=False,
    by_agent=False,
    dinov2=None,
    dinov2_size=224,
)
EARLY = (200, 600, 2400)  # steps of the world model at which its training loss is shown


def train(
    directory: Path,
    games: list[str],
    seed: int,
    *,
    stage: str | None,
    start: Path | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """`wm train` in a directory of this benchmark; a finished run is left as it is."""
    train_run(
        stage=stage,
        games=games,
        preset="tiny",
        directory=directory,
        start=start,
        seed=seed,
        overrides=overrides,
        console=Console(),
    )


def learn(out: Path, game: str, steps: int, variant: str, seed: int, others: list[str]) -> Path:
    """Train and probe the run of a game started in one way; returns its directory."""
    directory, source = out / f"{game}-{steps}-{variant}-{seed}", None
    stages: list[str | None] = [None]
    if variant in TO_THE_CODES:
        stages = ["collect", "encoder", "hrvq"]
    if variant not in FROM_NOTHING:
        source = out / f"src-{game}"
        for needed in ("collect", "encoder", "hrvq", "worldmodel"):
            train(source, others, 0, stage=needed)
        stages = ["start", *stages] if variant in TO_THE_CODES else stages
    # The decoder only draws pictures, and none are looked at here.
    overrides = [f"collect.num_steps={steps}", "train.decoder.steps=10", *VARIANTS[variant]]
    for stage in stages:
        train(directory, [game], seed, stage=stage, start=source, overrides=overrides)
    found = directory / "probe.json"
    if not found.exists():
        probe_run(open_to_read(directory, Console()), PROBE, json_file=found)
    return directory


def rows(directory: Path, game: str) -> Iterator[tuple[str, str]]:
    """Name and value of everything shown about a run."""
    stages = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["stages"]
    probed = json.loads((directory / "probe.json").read_text(encoding="utf-8"))["games"][game]["retention"]
    retained = {(row["stage"], row["variable"]): row for row in probed}
    for stage in ("random encoder", "embedding", "after L0-2"):
        for name in SHOWN.get(game, ()):
            if (row := retained.get((stage, name))) and row["mlp_r2"] is not None:
                yield f"{name}, {stage}", f"{row['mlp_r2']:.3f} ({row['mlp_error']:.1f})"
    yield "explained variance", numbers(stages["hrvq"]["metrics"][game]["explained_variance"], 2)
    yield "perplexity", numbers(stages["hrvq"]["metrics"][game]["perplexity"], 0)
    if "evaluate" not in stages:
        return
    levels = stages["worldmodel"]["metrics"]["validation"][game]
    early = f"loss of the world model in training, steps {' / '.join(map(str, EARLY))}"
    yield early, numbers(early_losses(directory), 2)
    yield "cross-entropy, nats", numbers([level["cross_entropy"] for level in levels], 2)
    yield "cross-entropy of unigrams, nats", numbers([level["unigram_cross_entropy"] for level in levels], 2)
    yield (
        "accuracy on tokens that changed, %",
        numbers([100 * level["changed_accuracy"] for level in levels], 1),
    )
    predictors = stages["agent"]["metrics"]["predictors"]
    recalls = (predictors[f"reward_recall_{sign}"] for sign in ("negative", "positive"))
    predicted = ["-" if recall is None else f"{100 * recall:.0f}" for recall in recalls]
    yield "lost / won points predicted, %", " / ".join(predicted)
    for name in ("random", "agent"):
        score = stages["evaluate"]["metrics"]["games"][game][name]
        low, high = score["interval"]
        yield f"score, {name}", f"{score['mean']:.2f} ({low:.2f} to {high:.2f})"


def early_losses(directory: Path) -> list[float]:
    """Mean training loss of the world model over the hundred steps before each of `EARLY`."""
    lines = [
        json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    logged = {line["step"]: line["loss"] for line in lines if line["stage"] == "worldmodel"}
    return [float(np.mean([logged[s] for s in logged if end - 100 <= s < end])) for end in EARLY]


def numbers(values: list[float], digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)


def print_table(title: str, columns: dict[str, dict[str, str]]) -> None:
    """Markdown, a column per variant."""
    print(f"\n### {title}\n\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(column.get(name, '') for column in columns.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", nargs="+", default=["pong", "breakout", "ms_pacman"])
    parser.add_argument("--steps", nargs="+", type=int, default=[120_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--only", default=None, help="make only this run, and print no table")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for steps in options.steps:
        for game in options.games:
            others = [other for other in options.games if other != game]
            made = {}
            for variant in VARIANTS:
                if options.only in (None, f"{game}-{steps}-{variant}-{options.seed}"):
                    made[variant] = learn(options.out, game, steps, variant, options.seed, others)
            if options.only is None:
                shown = {variant: dict(rows(directory, game)) for variant, directory in made.items()}
                print_table(f"{game}, {steps:,} steps of it", shown)


if __name__ == "__main__":
    main()

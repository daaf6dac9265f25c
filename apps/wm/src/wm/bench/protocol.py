"""What `wm bench` does: the whole protocol for every game and seed, and one table of all of it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atari_data import check_game, game_info, human_normalized, published_scores, score_sources
from rich.console import Console

from wm.bench.aggregate import METRICS, aggregate, bootstrap
from wm.bench.report import print_bench
from wm.config import RunConfig, build_config, load_config, read_preset
from wm.device import derive_seed, pick_device
from wm.errors import sentence
from wm.files import sha256, write_json
from wm.measure.evaluation import evaluate_games
from wm.measure.evaluation_report import REFERENCES
from wm.measure.results import write_result
from wm.reporter import Reporter
from wm.rounds import final_layout, open_run
from wm.run import Layout
from wm.settings import parse_override
from wm.training import train_run

RESULT = "bench.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """What to run.

    Args:
        games, seeds: every pair of them is a run.
        preset: of all runs.
        out: where the runs and the result go.
        episodes: played by each finished run, and as many at random.
        overrides: settings over the preset, as for `wm train`.
    """

    games: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    out: Path
    episodes: int = 100
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for game in self.games:
            check_game(game)
        for name, values in (("games", self.games), ("seeds", self.seeds)):
            if not values or len(set(values)) != len(values):
                raise ValueError(
                    f"{name} are {', '.join(map(str, values))}; give each once, and at least one"
                )
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must not be negative; got {min(self.seeds)}")
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1; got {self.episodes}")
        for key in ("games", "seed"):
            if any(key in parse_override(text) for text in self.overrides):
                raise ValueError(f"--set {key} is not for `wm bench`; give --games and --seeds")
        for game in self.games:
            self.config(game, self.seeds[0])  # what no run could be made from is refused before the first

    def directory(self, game: str, seed: int) -> Path:
        """Where the run of a pair lies."""
        return self.out / f"{game}-{Path(self.preset).stem}-{seed}"

    def config(self, game: str, seed: int) -> RunConfig:
        """The settings of the run of a pair."""
        changes = [parse_override(text) for text in self.overrides]
        return build_config(read_preset(self.preset), *changes, {"games": [game], "seed": seed})


def submit_commands(options: BenchOptions, template: str, device: str) -> list[str]:
    """One command a run for an engine of the user's, such as ``sbatch --wrap "{command}"``.

    Args:
        template: text with ``{command}``, and ``{game}``, ``{seed}`` and ``{name}`` if wanted.

    Raises:
        ValueError: the template has no ``{command}``, or something else in braces.
    """
    if "{command}" not in template:
        raise ValueError(
            "--submit-command needs {command} where the run's command goes, "
            'such as: sbatch --gres=gpu:1 --wrap "{command}"'
        )
    lines = []
    for game in options.games:
        for seed in options.seeds:
            command = ["wm", "bench", "--games", game, "--seeds", str(seed), "--preset", options.preset]
            command += ["--out", str(options.out), "--episodes", str(options.episodes), "--device", device]
            command += [part for text in options.overrides for part in ("--set", text)]
            values = {"game": game, "seed": seed, "name": options.directory(game, seed).name}
            try:
                lines.append(template.format(command=shlex.join(command), **values))
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                raise ValueError(
                    f"--submit-command cannot be filled in ({error}); "
                    "it may hold {command}, {game}, {seed} and {name}"
                ) from error
    return lines


def bench_as_jobs(
    options: BenchOptions, *, device_name: str, settings: Sequence[str], console: Console
) -> None:
    """Run every pair that has not finished as a job of submitit; :func:`bench` then finds them finished.

    Raises:
        ValueError: submitit is not installed, does not take a setting, or a run failed.
    """
    try:
        from wm.bench.jobs import run_jobs
    except ImportError as error:
        raise ValueError("--engine submitit needs the package submitit; install wm[cluster]") from error
    pairs = [(game, seed) for seed in options.seeds for game in options.games]
    if left := [pair for pair in pairs if _finished(options, *pair) is None]:
        run_jobs(options, left, device=device_name, settings=settings, console=console)


def bench(options: BenchOptions, *, json_file: Path | None, device_name: str, console: Console) -> None:
    """Run every pair that has not finished, then aggregate, print and write ``bench.json``.

    Raises:
        ValueError: a run failed; the others have finished.
    """
    runs: dict[str, dict[int, Any]] = {game: {} for game in options.games}
    failed: list[str] = []
    total = len(options.games) * len(options.seeds)
    for seed in options.seeds:
        for game in options.games:
            done = sum(map(len, runs.values())) + len(failed)
            console.print(f"run {done + 1} of {total}: {game}, seed {seed}", style="bold")
            try:
                runs[game][seed] = run_one(options, game, seed, device_name, console)
            except (ValueError, OSError) as error:
                if total == 1:
                    raise
                failed.append(f"{options.directory(game, seed).name} ({sentence(error)})")
                console.print(f"failed: {sentence(error)}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {total} runs failed, the same command goes on with them: {', '.join(failed)}"
        )
    result = summarise(options, runs)
    print_bench(result, console)
    # One command of many, each with a part of the pairs, must not overwrite the whole.
    for path in (options.out / RESULT if total > 1 else None, json_file):
        write_result(path, result, console)


def run_one(
    options: BenchOptions, game: str, seed: int, device_name: str, console: Console
) -> dict[str, Any]:
    """Train and play one pair, or read what it scored if it has."""
    directory = options.directory(game, seed)
    scored = _finished(options, game, seed)
    if scored is not None:
        console.print(f"{directory.name}: finished before, skipped")
        return scored
    train_run(
        stage=None,
        games=[game],
        preset=options.preset,
        directory=directory,
        start=None,
        seed=seed,
        device_name=device_name,
        overrides=list(options.overrides),
        logs=[],
        console=console,
    )
    config, layout = open_run(directory)
    found = evaluate_games(
        replace(config, evaluate=replace(config.evaluate, episodes=options.episodes)),
        layout,
        seed=derive_seed(seed, "bench") % 2**31,
        device=pick_device(device_name),
        reporter=Reporter(console),
    )
    scored = {"agent_sha256": sha256(layout.agent), "protocol": found["protocol"]} | found["games"][game]
    write_json(directory / RESULT, scored)
    return scored


def _finished(options: BenchOptions, game: str, seed: int) -> dict[str, Any] | None:
    """The scores of the run, if it has these settings, and its agent has played by them as often as asked."""
    directory = options.directory(game, seed)
    config = options.config(game, seed)
    try:
        if load_config(Layout(directory).config) != config:
            return None
        scored: dict[str, Any] = json.loads((directory / RESULT).read_text())
        agent = sha256(final_layout(directory, config).agent)
        # What a file of an older version leaves out, or has elsewhere.
        protocol = {"epsilon": 0.0} | scored["protocol"]
        steps = {"agent_steps_collected": config.collect.num_steps, "agent_steps_choosing": 0}
        steps = {name: protocol.pop(name, default) for name, default in steps.items()}
        scored = steps | scored | {"protocol": protocol}
        asked = {name: getattr(config.evaluate, name) for name in ("temperature", "epsilon", "max_frames")}
        asked["episodes"] = options.episodes
        same = scored["agent_sha256"] == agent and all(protocol[name] == asked[name] for name in asked)
        return scored if same else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # damaged, or its agent is gone: play again


OF_EACH_RUN = ("seed", "agent_of_round")  # the rest of a protocol is shared


def summarise(options: BenchOptions, runs: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    """Scores by game and seed, aggregates of ours and of every published system that has all the games."""
    scores = {
        game: [scored["agent"]["mean"] for scored in of_game.values()] for game, of_game in runs.items()
    }
    referenced = [game for game in scores if human_normalized(game, 0.0) is not None]
    published: dict[str, dict[str, list[float]]] = {}
    for game in scores:
        for system, values in published_scores(game).items():
            if system not in REFERENCES:
                published.setdefault(system, {})[game] = values
    aggregates = {}
    if referenced:
        aggregates["ours"] = _aggregated({game: scores[game] for game in referenced})
        for system, of_games in published.items():
            if set(referenced) <= set(of_games):
                aggregates[system] = _aggregated({game: of_games[game] for game in referenced})
    sources = score_sources()
    return {
        "protocol": {
            "preset": options.preset,
            "seeds": list(options.seeds),
            "overrides": list(options.overrides),
            **{key: value for key, value in _first(runs)["protocol"].items() if key not in OF_EACH_RUN},
        },
        "real_steps": {
            game: [
                scored["agent_steps_collected"] + scored["agent_steps_choosing"]
                for scored in of_game.values()
            ]
            for game, of_game in runs.items()
        },
        "scores": scores,
        "random": {game: [s["random"]["mean"] for s in of_game.values()] for game, of_game in runs.items()},
        "reference": {
            game: {"random": game_info(game).random_score, "human": game_info(game).human_score}
            for game in scores
        },
        "without_reference": [game for game in scores if game not in referenced],
        "published": published,
        "aggregates": aggregates,
        "sources": {system: sources[system] for system in published},
    }


def _first(runs: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(next(iter(runs.values())).values()))
    return found


def _aggregated(scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    normalised = {
        game: [value for score in of_game if (value := human_normalized(game, score)) is not None]
        for game, of_game in scores.items()
    }
    points, intervals = aggregate(normalised), bootstrap(normalised)
    return {name: {"value": points[name], "interval": list(intervals[name])} for name in METRICS} | {
        "seeds": sorted({len(of_game) for of_game in scores.values()})
    }

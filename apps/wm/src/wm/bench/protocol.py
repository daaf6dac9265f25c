"""What `wm bench` does: the whole protocol for every game and seed, and one table of the results."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from atari_data import check_game, game_info, human_normalized, published_scores, score_sources
from rich.console import Console

from wm.bench.aggregate import METRICS, aggregate, bootstrap
from wm.bench.report import print_bench
from wm.config import RunConfig, build_config, load_config
from wm.errors import sentence
from wm.files import require_place
from wm.freshness import outdated
from wm.measure.evaluation_report import REFERENCES
from wm.measure.results import write_result
from wm.preset import preset_file, read_preset, require_own_name, run_name
from wm.run import Layout, Manifest
from wm.settings import flatten, parse_override
from wm.stages import stages_of
from wm.training import train_run

RESULT = "bench.json"
OPTIONS = {"games": "--games", "seed": "--seeds", "evaluate.episodes": "--episodes"}
"""Settings that the command has an option for, for all runs or for each of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """What to run.

    Args:
        games, seeds: every pair of a game and a seed is a run.
        preset: of all runs.
        out: where the runs and the result go.
        episodes: episodes played by each trained agent, and as many by the random agent:
            ``evaluate.episodes`` of all runs.
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
        require_own_name(self.preset)
        if min(self.seeds) < 0:
            raise ValueError(f"seeds include {min(self.seeds)}; give numbers of at least 0")
        for key, option in OPTIONS.items():
            if any(key in flatten(parse_override(text)) for text in self.overrides):
                raise ValueError(f"--set {key} is not for `wm bench`; give {option}")
        for game in self.games:
            self.config(game, self.seeds[0])  # invalid settings are refused before the first run

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Game and seed of each run, in the order of running: one seed in every game, then the next seed."""
        return [(game, seed) for seed, game in product(self.seeds, self.games)]

    def directory(self, game: str, seed: int) -> Path:
        """The run directory of a pair."""
        return self.out / run_name([game], self.preset, seed)

    def config(self, game: str, seed: int) -> RunConfig:
        """The settings of the run of a pair."""
        changes = [parse_override(text) for text in self.settings]
        preset, file = read_preset(self.preset), preset_file(self.preset)
        return build_config(preset, {"games": [game], "seed": seed}, *changes, file=file)

    @property
    def settings(self) -> list[str]:
        """The settings over the preset in every run."""
        return [f"evaluate.episodes={self.episodes}", *self.overrides]


def submit_commands(options: BenchOptions, template: str, device: str) -> list[str]:
    """One command per run for an engine of the user's own, such as ``sbatch --wrap {quoted}``.

    Args:
        template: text with ``{command}``, or with ``{quoted}``, the command as one shell word; ``{game}``,
            ``{seed}`` and ``{name}`` if wanted.

    Raises:
        ValueError: the template has no field for the command, or an unknown one.
    """
    if "{command}" not in template and "{quoted}" not in template:
        raise ValueError(
            "--submit-command needs {command} where the run's command goes, or {quoted}, the command as one "
            "word, such as: sbatch --gres=gpu:1 --wrap {quoted}"
        )
    lines = []
    for game, seed in product(options.games, options.seeds):
        command = ["wm", "bench", "--games", game, "--seeds", str(seed), "--preset", options.preset]
        command += ["--out", str(options.out), "--episodes", str(options.episodes), "--device", device]
        command += [part for text in options.overrides for part in ("--set", text)]
        values = {"game": game, "seed": seed, "name": options.directory(game, seed).name}
        try:
            line = shlex.join(command)
            lines.append(template.format(command=line, quoted=shlex.quote(line), **values))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"--submit-command cannot be filled in ({error}); "
                "it may hold {command}, {quoted}, {game}, {seed} and {name}"
            ) from error
    return lines


def bench_as_jobs(
    options: BenchOptions, *, device_name: str, settings: Sequence[str], console: Console
) -> None:
    """Run every pair that has not finished as a submitit job; :func:`bench` then finds them finished.

    Raises:
        ValueError: submitit is not installed, rejects a setting, or a run failed; or the result could
            not be written.
    """
    _require_place(options)
    try:
        from wm.bench.jobs import run_jobs
    except ImportError as error:
        raise ValueError("--engine submitit needs the package submitit; pip install submitit") from error
    if left := [pair for pair in options.pairs if not _finished(options, *pair)]:
        run_jobs(options, left, device=device_name, settings=settings, console=console)


def bench(options: BenchOptions, *, json_file: Path | None, device_name: str, console: Console) -> None:
    """Run every pair that has not finished, then aggregate, print and write ``bench.json``.

    Raises:
        ValueError: a run failed; the others have finished. Or the result could not be written.
    """
    _require_place(options)
    runs: dict[str, dict[int, Any]] = {game: {} for game in options.games}
    failed: list[str] = []
    total = len(options.pairs)
    for number, (game, seed) in enumerate(options.pairs, start=1):
        console.print(f"run {number} of {total}: {game}, seed {seed}", style="bold")
        try:
            runs[game][seed] = run_one(options, game, seed, device_name, console)
        except (ValueError, OSError) as error:
            if total == 1:
                raise
            failed.append(f"{options.directory(game, seed).name} ({sentence(error)})")
            console.print(f"failed: {sentence(error)}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {total} runs failed; the same command resumes them: {', '.join(failed)}"
        )
    result = summarise(options, runs)
    # Results are written before the table is printed, of which a reader such as `head` may not take all.
    # One of several commands that each run a part of the pairs must not overwrite the whole result.
    if total > 1:
        if others := runs_beside(options, options.out / RESULT):
            console.print(f"{options.out / RESULT} also holds {', '.join(others)}, so it is kept")
        else:
            write_result(options.out / RESULT, result, console)
    write_result(json_file, result, console)
    print_bench(result, console)


def _require_place(options: BenchOptions) -> None:
    """Check before the first run that the table of several runs can be written."""
    if len(options.pairs) > 1:
        require_place(options.out / RESULT)


def runs_beside(options: BenchOptions, path: Path) -> list[str]:
    """Names of the runs in an earlier result that this command does not have; none without such a result."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        preset, seeds = found["protocol"]["preset"], found["protocol"]["seeds"]
        earlier = [run_name([game], preset, seed) for game in found["scores"] for seed in seeds]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []  # missing or damaged: the new result replaces it
    ours = {options.directory(*pair).name for pair in options.pairs}
    return [name for name in earlier if name not in ours]


def run_one(
    options: BenchOptions, game: str, seed: int, device_name: str, console: Console
) -> dict[str, Any]:
    """The scores of one pair, which is trained and evaluated first unless that has been done."""
    directory = options.directory(game, seed)
    if _finished(options, game, seed):
        console.print(f"{directory.name}: finished before, skipped")
    else:
        train_run(
            games=[game],
            preset=options.preset,
            directory=directory,
            seed=seed,
            device_name=device_name,
            overrides=options.settings,
            console=console,
        )
    return _scores(options, game, seed)


def _finished(options: BenchOptions, game: str, seed: int) -> bool:
    """Whether the run has these settings, has been evaluated, and made everything with these settings."""
    layout, config = Layout(options.directory(game, seed)), options.config(game, seed)
    try:
        if load_config(layout.config) != config:
            return False
        manifest = Manifest(layout)
    except ValueError:
        return False  # there is no run yet, or it is damaged, as training then reports
    return "evaluate" in manifest.stages and not outdated(stages_of(config), config, manifest)


def _scores(options: BenchOptions, game: str, seed: int) -> dict[str, Any]:
    """The scores from the run's stage `evaluate` in its game, with the protocol."""
    found = Manifest(Layout(options.directory(game, seed))).stages["evaluate"].metrics
    # Fields that older versions leave out, or store elsewhere.
    protocol = {"epsilon": 0.0} | found["protocol"]
    played = options.config(game, seed).collect.num_steps
    steps = {"agent_steps_collected": played, "agent_steps_choosing": 0}
    steps = {name: protocol.pop(name, default) for name, default in steps.items()}
    return steps | found["games"][game] | {"protocol": protocol}


OF_EACH_RUN = ("seed", "agent_of_round")  # the rest of a protocol is shared


def summarise(options: BenchOptions, runs: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    """Scores by game and seed, aggregates of ours and of every published system that has all the games."""

    def of_each(number: Callable[[Any], float]) -> dict[str, list[float]]:
        return {game: [number(scored) for scored in of_game.values()] for game, of_game in runs.items()}

    scores = of_each(lambda s: s["agent"]["mean"])
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
        "real_steps": of_each(lambda s: s["agent_steps_collected"] + s["agent_steps_choosing"]),
        "scores": scores,
        "random": of_each(lambda s: s["random"]["mean"]),
        "cut": of_each(lambda s: s["agent"].get("cut", 0)),
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

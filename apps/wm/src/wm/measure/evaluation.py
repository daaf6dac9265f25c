"""Scores in the real game: the protocol, the run's agent and the random agent."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from atari_data import (
    PROTOCOLS,
    Policy,
    RandomPolicy,
    human_normalized,
    play_episodes,
    published_scores,
)
from atari_data import games as ale_games

from wm.artifacts import encoded_games, require_parts
from wm.config import RunConfig
from wm.device import derive_seed, one_thread
from wm.files import require_place
from wm.measure.evaluation_report import print_scores, print_sources
from wm.measure.fresh import require_ale_game
from wm.measure.results import write_result
from wm.measure.statistics import summarize
from wm.opened import OpenedRun, RunAtHand
from wm.policy import RecordedPolicy, policy_of
from wm.rounds import round_of, steps_behind
from wm.run import Layout, Manifest
from wm.sections import EvaluateConfig
from wm.view.episode_film import film_games


def evaluate_games(
    run: RunAtHand,
    *,
    seed: int,
    recorded: dict[str, RecordedPolicy] | None = None,
    remembered: Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]] = lambda _, play: play(),
) -> dict[str, Any]:
    """Play whole episodes of each of the run's games, as its ``evaluate`` says, by the agent and at random.

    Both play from the same seeds. The agent's play is stored in ``recorded``, by game, for `film_games`. What
    is ``remembered`` under a name is not played again (`Context.remembered`).

    Returns:
        The protocol, and per game the summaries (``statistics.summarize``) of ``agent`` and ``random``, with
        the human-normalised score of the agent's mean.
    """
    config, layout, evaluate = run.config, run.layout, run.config.evaluate
    protocol = PROTOCOLS[config.collect.protocol]
    games: dict[str, Any] = {}
    absent = [game for game in config.games if game not in ale_games()]
    if absent:
        run.console.print(f"not in ALE, so not played: {', '.join(absent)}")
    playable = [game for game in config.games if game not in absent]
    collected, choosing = steps_behind(config, layout)
    for game in encoded_games(layout, playable, run.console.print):
        agent = RecordedPolicy(policy_of(layout, game, config.dream, evaluate, seed=seed, device=run.device))
        policies: dict[str, Policy] = {
            "agent": agent,
            "random": RandomPolicy(game, derive_seed(seed, "random", game), evaluate.num_envs),
        }
        games[game] = {}
        for name, policy in policies.items():
            play = partial(
                play_whole_games,
                run,
                game,
                policy,
                evaluate.episodes,
                task=f"play {game} ({name})",
                seed=seed,
                max_frames=evaluate.max_frames,
            )
            games[game][name] = remembered(f"{game}-{name}", play)
        if recorded is not None:
            recorded[game] = agent
        games[game]["agent_steps_collected"] = collected.get(game)
        games[game]["agent_steps_choosing"] = choosing.get(game, 0)
        games[game]["human_normalized"] = human_normalized(game, games[game]["agent"]["mean"])
    return {
        "protocol": {
            "name": config.collect.protocol,
            "sticky": protocol.sticky,
            "noop_max": protocol.noop_max,
            "max_frames": evaluate.max_frames,
            "episodes": evaluate.episodes,
            "temperature": evaluate.temperature,
            "epsilon": evaluate.epsilon,
            "seed": seed,
            "agent_of_round": round_of(layout, config),
            "rounds": config.rounds.count,
            "began_with": _began_with(config, layout),
        },
        "games": games,
    }


def _began_with(config: RunConfig, layout: Layout) -> dict[str, Any] | None:
    """The run whose parts this one started from, and the real steps that it had played, by game."""
    record = Manifest(layout).stages.get("start") if config.start.taken else None
    if record is None:
        return None
    known = record.metrics.get("steps")  # not in the record of an older version
    return {"run": record.metrics["run"], "steps": known}


def play_whole_games(
    run: RunAtHand, game: str, policy: Policy, episodes: int, *, task: str, seed: int, max_frames: int
) -> dict[str, Any]:
    """Summary (``statistics.summarize``) of the episodes, their ``lengths``, and how many the limit ``cut``.

    ``distinct`` counts those that differ in return or length: a greedy policy repeats the same game if
    nothing in the protocol is random. ``task`` is the name that the progress shows.
    """
    with run.reporter.task(task, episodes) as progress, one_thread(run.device):
        played = play_episodes(
            game,
            policy,
            episodes,
            seed=seed,
            protocol=replace(PROTOCOLS[run.config.collect.protocol], max_frames=max_frames),
            num_envs=run.config.evaluate.num_envs,
            progress=progress.update,
        )
    cut = int((~played.terminated).sum())
    lengths = played.lengths.tolist()
    distinct = len(set(zip(played.returns.tolist(), lengths, strict=True)))
    return summarize(played.returns) | {"lengths": lengths, "cut": cut, "distinct": distinct}


def evaluate_run(
    opened: OpenedRun, play: EvaluateConfig, *, seed: int, json_file: Path | None, video: bool
) -> None:
    """What `wm eval` does: play as ``play`` says, print next to published scores, write and film if asked.

    Raises:
        ValueError: the run has no agent, no game of ALE, or, if films are asked for, no decoder or no place
            for them.
    """
    config, layout, console = opened.config, opened.layout, opened.console
    directory = layout.root
    require_parts(layout, "agent", *(["decoder"] if video and opened.index is None else []))
    require_ale_game(config, directory)
    films = directory / "videos"
    if video:
        advice = "leave --video out, or copy the run to where films can be written"
        require_place(films / f"{config.games[0]}-best.mp4", advice)
    recorded: dict[str, RecordedPolicy] = {}
    asked = replace(opened, config=replace(config, evaluate=play))
    result = evaluate_games(asked, seed=seed, recorded=recorded)
    result["published"] = {game: published_scores(game) for game in result["games"]}
    write_result(json_file, result, console)  # before the tables: a reader such as `head` may leave early
    for game in result["games"]:
        print_scores(game, result, console)
    print_sources(dict.fromkeys(chain.from_iterable(result["published"].values())), console)
    if video:  # last: even if the films fail, the scores are there
        film_games(opened, result, recorded, films)

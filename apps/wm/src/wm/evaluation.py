"""Scores in the real game: the protocol, the run's agent, the random agent, and what others published."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from atari_data import (
    PROTOCOLS,
    Policy,
    Protocol,
    RandomPolicy,
    human_normalized,
    play_episodes,
    published_scores,
)
from atari_data import games as ale_games
from rich.console import Console
from rich.table import Table

from wm.choice import open_run, read_choice
from wm.config import RunConfig
from wm.device import derive_seed, one_thread, pick_device
from wm.episode_film import write_film
from wm.files import write_text
from wm.policy import load_policy
from wm.replay import RecordedPolicy, best_and_median, dream_again, see_again
from wm.reporter import Reporter
from wm.run import Layout
from wm.statistics import summarize
from wm.viewer import Viewer


def evaluate_games(
    layout: Layout,
    config: RunConfig,
    *,
    episodes: int,
    temperature: float,
    seed: int,
    device: torch.device,
    reporter: Reporter,
    max_frames: int | None = None,
    films: Path | None = None,
    remembered: Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]] = lambda _, play: play(),
) -> dict[str, Any]:
    """Play ``episodes`` whole episodes of each game, by the agent and at random, from the same seeds.

    An episode ends by the game's rules or after ``max_frames`` emulated frames (the run's, if left out). With
    ``films``, the agent's best and median episodes are filmed into that directory, each beside its dream.
    What is ``remembered`` under a name is not played again (`Context.remembered`).

    Returns:
        The protocol, and per game the summaries (``statistics.summarize``) of ``agent`` and ``random``, with
        the human-normalised score of the agent's mean.
    """
    num_envs = min(config.evaluate.num_envs, episodes)
    limit = config.evaluate.max_frames if max_frames is None else max_frames
    protocol = replace(PROTOCOLS[config.collect.protocol], max_frames=limit)
    choice = read_choice(layout.root, config)
    games: dict[str, Any] = {}
    absent = [game for game in config.games if game not in ale_games()]
    if absent:
        reporter.say(f"not played, no games of ALE: {', '.join(absent)}")
    for game in (game for game in config.games if game not in absent):
        agent = RecordedPolicy(
            load_policy(layout, game, config.dream, temperature=temperature, seed=seed, device=device)
        )
        policies: dict[str, Policy] = {
            "agent": agent,
            "random": RandomPolicy(game, derive_seed(seed, "random", game), num_envs),
        }
        games[game] = {}
        for name, policy in policies.items():
            play = partial(
                play_whole_games,
                game,
                policy,
                episodes,
                task=f"play {game} ({name})",
                seed=seed,
                protocol=protocol,
                num_envs=num_envs,
                device=device,
                reporter=reporter,
            )
            games[game][name] = remembered(f"{game}-{name}", play)
        if films is not None:
            wanted = best_and_median(games[game]["agent"]["returns"])
            with reporter.task(f"film {game}", len(wanted)) as task, one_thread(device):
                seen = see_again(
                    game,
                    agent,
                    wanted,
                    num_episodes=episodes,
                    seed=seed,
                    protocol=protocol,
                    num_envs=num_envs,
                )
                viewer = Viewer.load(layout, device)
                for name, film in seen.items():
                    dream = dream_again(layout, config, game, film, seed=seed, device=device)
                    title = f"{name} of {episodes} episodes"
                    path = write_film(films / f"{game}-{name}", film, dream, viewer, game, title)
                    reporter.say(f"{name} episode, return {sum(film.rewards):g}: {path}")
                    task.advance()
        games[game]["human_normalized"] = human_normalized(game, games[game]["agent"]["mean"])
    return {
        "protocol": {
            "name": config.collect.protocol,
            "sticky": protocol.sticky,
            "noop_max": protocol.noop_max,
            "max_frames": protocol.max_frames,
            "episodes": episodes,
            "temperature": temperature,
            "seed": seed,
            "agent_steps_collected": config.collect.num_steps,
            "agent_steps_choosing": 0 if choice is None else choice["agent_steps"],
            "agent_of_round": config.rounds.count - 1 if choice is None else choice["round"],
        },
        "games": games,
    }


def play_whole_games(
    game: str,
    policy: Policy,
    episodes: int,
    *,
    task: str,
    seed: int,
    protocol: Protocol,
    num_envs: int,
    device: torch.device,
    reporter: Reporter,
) -> dict[str, Any]:
    """Summary (``statistics.summarize``) of the episodes, their ``lengths``, and how many the limit ``cut``.

    ``task`` is what progress says.
    """
    with reporter.task(task, episodes) as progress, one_thread(device):
        played = play_episodes(
            game,
            policy,
            episodes,
            seed=seed,
            protocol=protocol,
            num_envs=num_envs,
            progress=progress.update,
        )
    cut = int((~played.terminated).sum())
    return summarize(played.returns) | {"lengths": played.lengths.tolist(), "cut": cut}


def evaluate_run(
    directory: Path,
    *,
    episodes: int,
    temperature: float | None,
    seed: int,
    max_frames: int,
    json_file: Path | None,
    video: bool,
    device_name: str,
    console: Console,
) -> None:
    """What `wm eval` does: play, print beside published scores, write JSON if asked."""
    config, layout = open_run(directory)
    if not layout.agent.exists():
        raise ValueError(f"{directory} has no trained agent yet; run `wm train --run {directory}` first")
    if video and not layout.decoder.exists():
        raise ValueError(
            f"{directory} has no decoder to draw with; run `wm train decoder --run {directory}` first"
        )
    result = evaluate_games(
        layout,
        config,
        episodes=episodes,
        temperature=config.evaluate.temperature if temperature is None else temperature,
        seed=seed,
        device=pick_device(device_name),
        reporter=Reporter(console),
        max_frames=max_frames,
        films=directory / "videos" if video else None,
    )
    for game in result["games"]:
        console.print(score_table(game, result))
    if json_file is not None:
        write_text(json_file, json.dumps(result, indent=1) + "\n")
        console.print(f"written to {json_file}")


def score_table(game: str, result: dict[str, Any]) -> Table:
    """A game's scores: ours and the random agent's as measured, then published means of 100k agent steps."""
    protocol, scores = result["protocol"], result["games"][game]
    table = Table(
        title=f"{game}: {protocol['episodes']} episodes of at most {protocol['max_frames']} frames, "
        f"{protocol['name']} (sticky {protocol['sticky']}, "
        f"no-ops up to {protocol['noop_max']}), temperature {protocol['temperature']}, "
        f"seed {protocol['seed']}",
        title_justify="left",
    )
    cut = scores["agent"].get("cut", 0)
    if cut:
        table.caption = f"{cut} of the agent's episodes were cut by that limit; whole ones may score more"
        table.caption_justify = "left"
    for column in ("", "mean", "95 % interval", "median", "std", "human-normalised"):
        table.add_column(column, justify="left" if not column else "right")
    for name in ("agent", "random"):
        score = scores[name]
        low, high = score["interval"]
        table.add_row(
            f"{name} (measured)",
            f"{score['mean']:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{score['median']:.1f}",
            f"{score['std']:.1f}",
            _normalized(game, score["mean"]),
            end_section=name == "random",
        )
    for system, values in published_scores(game).items():
        mean = sum(values) / len(values)
        spread = f"{min(values):.1f} to {max(values):.1f} ({len(values)} seeds)" if len(values) > 1 else ""
        table.add_row(
            f"{system} (published)", f"{mean:.2f}", spread, "", "", _normalized(game, mean), style="dim"
        )
    return table


def _normalized(game: str, score: float) -> str:
    value = human_normalized(game, score)
    return "" if value is None else f"{value:.2f}"

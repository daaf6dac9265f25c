"""The run's agent: the best of the last rounds' in games that are played for nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from atari_data import PROTOCOLS

from wm.choice import best, candidate_rounds, chooses, layout_of_round, standings
from wm.config import RunConfig
from wm.files import sha256, write_json
from wm.measure.evaluation import play_whole_games
from wm.policy import load_policy
from wm.run import Layout
from wm.stage import Context, Made, Stage

READ = ("encoder", "hrvq", "worldmodel", "agent")


def run(context: Context) -> Made:
    """Let each candidate play the same games, and write down whose round it is."""
    config, root = context.config, context.layout.root
    seed = context.seed("choose") % 2**31
    rounds = candidate_rounds(config)
    candidates: list[dict[str, Any]] = []
    for index in rounds:
        layout = layout_of_round(root, config, index)
        games = {
            game: context.remembered(f"{index}-{game}", partial(_play, context, layout, index, game, seed))
            for game in config.games
        }
        candidates.append({"round": index, "agent_sha256": sha256(layout.agent), "games": games})
    returns = np.array([[scores["returns"] for scores in c["games"].values()] for c in candidates])
    standing = standings(returns)
    for candidate, value in zip(candidates, standing, strict=True):
        candidate["standing"] = float(value)
    chosen = rounds[best(standing)]
    result = {
        "round": chosen,
        "seed": seed,
        "agent_steps": {
            game: sum(sum(candidate["games"][game]["lengths"]) for candidate in candidates)
            for game in config.games
        },
        "candidates": candidates,
    }
    write_json(context.layout.choice, result)
    context.reporter.say(f"choose: the agent of round {chosen} of {rounds[0]} to {rounds[-1]}")
    return Made([context.layout.choice], result)


def _play(context: Context, layout: Layout, index: int, game: str, seed: int) -> dict[str, Any]:
    """Returns and lengths of whole games by one round's agent, who plays as in the evaluation."""
    config, device = context.config, context.device
    choose, evaluate = config.choose, config.evaluate
    policy = load_policy(
        layout,
        game,
        config.dream,
        temperature=evaluate.temperature,
        epsilon=evaluate.epsilon,
        seed=seed,
        device=device,
    )
    return play_whole_games(
        game,
        policy,
        choose.episodes,
        task=f"choose {game} (round {index})",
        seed=seed,
        protocol=replace(PROTOCOLS[config.collect.protocol], max_frames=choose.max_frames),
        num_envs=evaluate.num_envs,
        device=device,
        reporter=context.reporter,
    )


def with_choice(stages: Sequence[Stage], config: RunConfig) -> tuple[Stage, ...]:
    """The stages of a run, with the choice before what is made from the chosen agent."""
    if not chooses(config):
        return tuple(stages)
    rounds = candidate_rounds(config)
    needs = tuple(stage.name for stage in stages if stage.round in rounds and stage.base in READ)
    choose = replace(STAGE, needs=needs, round=rounds[-1])
    every_round = [stage for stage in stages if stage.continues]
    once = [replace(stage, needs=(*stage.needs, STAGE.name)) for stage in stages if not stage.continues]
    return (*every_round, choose, *once)


STAGE = Stage(
    "choose",
    READ,
    lambda config: [
        config.choose,
        config.evaluate.temperature,
        config.evaluate.num_envs,
        config.collect.protocol,
        *([config.evaluate.epsilon] if config.evaluate.epsilon else []),  # younger than the others
    ],
    run,
)

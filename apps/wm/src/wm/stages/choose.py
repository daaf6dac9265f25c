"""Chooses the run's agent: the best of the last rounds' agents, in games played only for this purpose."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wm.config import RunConfig
from wm.files import sha256, write_json
from wm.measure.evaluation import play_whole_games
from wm.policy import policy_of
from wm.rounds import candidate_rounds, chooses, layout_of_round
from wm.run import Layout
from wm.sections import PARTS
from wm.stage import Context, Made, Stage


def run(context: Context) -> Made:
    """Let each candidate play the same games, and record the round of the best."""
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
    context.console.print(f"choose: the agent of round {chosen}, among rounds {rounds[0]} to {rounds[-1]}")
    return Made([context.layout.choice], result)


def _play(context: Context, layout: Layout, index: int, game: str, seed: int) -> dict[str, Any]:
    """Returns and lengths of whole games by one round's agent, playing as in the evaluation."""
    config = context.config
    return play_whole_games(
        context,
        game,
        policy_of(layout, game, config.dream, config.evaluate, seed=seed, device=context.device),
        config.choose.episodes,
        task=f"choose {game} (round {index})",
        seed=seed,
        max_frames=config.choose.max_frames,
    )


def standings(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """How good each candidate is over all games, in standard deviations of a game's returns: float64 (C,).

    Games differ in the scale of their scores, so each game's returns are standardised over all its episodes;
    every game then has the same weight. With one game the order is that of the mean returns.

    Args:
        returns: float64 (C, G, E), of C candidates in G games with E episodes each.
    """
    centre = returns.mean((0, 2), keepdims=True)
    spread = returns.std((0, 2), keepdims=True)
    standard = np.divide(returns - centre, spread, out=np.zeros_like(returns), where=spread > 0)
    mean: NDArray[np.float64] = standard.mean((1, 2))
    return mean


def best(standing: NDArray[np.float64]) -> int:
    """Index of the highest; among equals the last, which has seen the most play."""
    return int(len(standing) - 1 - np.argmax(standing[::-1]))


def with_choice(stages: Sequence[Stage], config: RunConfig) -> tuple[Stage, ...]:
    """The stages of a run, with `choose` before the stages that use the chosen agent."""
    if not chooses(config):
        return tuple(stages)
    rounds = candidate_rounds(config)
    needs = tuple(stage.name for stage in stages if stage.round in rounds and stage.base in PARTS)
    choose = replace(STAGE, needs=needs, round=rounds[-1])
    every_round = [stage for stage in stages if stage.continues]
    once = [replace(stage, needs=(*stage.needs, STAGE.name)) for stage in stages if not stage.continues]
    return (*every_round, choose, *once)


STAGE = Stage(
    "choose",
    PARTS,
    lambda config: [
        config.choose,
        config.evaluate.temperature,
        config.evaluate.num_envs,
        config.collect.protocol,
        *([config.evaluate.epsilon] if config.evaluate.epsilon else []),  # added later than the others
    ],
    run,
    size="evaluate.num_envs",
)

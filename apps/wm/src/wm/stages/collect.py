"""Collects real play to train on."""

from pathlib import Path

import numpy as np
from atari_data import PROTOCOLS, FrameStore, Policy, collect, final_rows, games, shard_paths

from wm.config import RunConfig
from wm.device import one_thread
from wm.policy import policy_of, random_policy
from wm.run import Layout
from wm.stage import Context, Made, Stage


def run(context: Context) -> Made:
    """Collect an exact number of steps of every game, the same ones for the same seed.

    Round 0 starts with no play. A later round adds to the play before it, with the previous round's agent. If
    a round had been played before, its old play stays until the new play is complete.
    """
    config, metrics = context.config.collect, {}
    made: list[Path] = []
    if config.policy == "imported":
        return _imported(context)
    for game in context.config.games:
        directory = context.layout.data(game)
        task_name = f"{context.stage} {game}"
        with (
            context.reporter.task(task_name, config.num_steps) as task,
            one_thread(context.device),
        ):
            result = collect(
                directory,
                game,
                config.num_steps,
                _policy(context, game),
                seed=context.seed("collect", game) % 2**31,
                protocol=PROTOCOLS[config.protocol],
                num_envs=config.num_envs,
                keep=context.round,
                progress=task.update,
            )
        made += result.paths
        store = context.layout.frames(game)
        if final_rows(store.episode_ids).sum() < 2:
            raise ValueError(
                f"only one episode of {game} was played in {config.num_steps} steps, but a run needs at "
                "least 2, one of them for validation; raise collect.num_envs, or play more steps"
            )
        rewards = store.rewards[len(store) - result.num_rows :]
        metrics[game] = {
            "steps": result.num_steps,
            "steps_in_all": int((~final_rows(store.episode_ids)).sum()),
            "episodes": result.num_episodes,
            "mean_return": float(result.returns.mean()) if result.num_episodes else None,
            "mean_reward": float(rewards.sum(dtype=np.float64)) / result.num_steps,
            "mean_reward_sign": float(np.sign(rewards).sum(dtype=np.float64)) / result.num_steps,
            "unit_rewards": bool(np.isin(rewards, (-1, 0, 1)).all()),
        }
    return Made(made, metrics)


def require_sources(config: RunConfig, layout: Layout) -> None:
    """Raise ValueError if a run that plays nothing itself lacks a game's recording, or if there is one
    of a game that is to be played.
    """
    for directory in map(layout.data, config.games):
        if config.collect.policy != "imported":
            _spare_recording(directory)
        elif not directory.is_dir():
            played = ", or have the game played with --set collect.policy=random"
            raise ValueError(
                f"{directory} holds no recording, but collect.policy is imported; add one with "
                f"`wm import`{played if directory.name in games() else ''}"
            )


def _imported(context: Context) -> Made:
    """Use the recordings that `wm import` has put there, as they are."""
    made, metrics = [], {}
    for game in context.config.games:
        directory = context.layout.data(game)
        store = context.layout.frames(game)
        final = final_rows(store.episode_ids)
        if final.sum() < 2:
            raise ValueError(
                f"{directory} holds 1 episode, but a run needs at least 2, one of them for validation; "
                "import another recording, or delete it and import this one again with --episode-ids"
            )
        lengths = np.diff(np.flatnonzero(final), prepend=-1)
        returns = np.add.reduceat(store.rewards, np.flatnonzero(final) + 1 - lengths, dtype=np.float64)
        metrics[game] = {
            "steps": int((~final).sum()),
            "episodes": int(final.sum()),
            "mean_return": float(returns.mean()),
        }
        made += shard_paths(directory)
    return Made(made, metrics)


def _spare_recording(directory: Path) -> None:
    """Raise ValueError if a recording, which cannot be remade, is where play is to be collected."""
    try:
        recorded = FrameStore.open(directory, rounds=1).protocol is None
    except ValueError:  # nothing is there, or nothing readable
        return
    if recorded:
        raise ValueError(
            f"{directory} holds an imported recording, which collecting would replace; train on it with "
            "--set collect.policy=imported, or collect into another run"
        )


def _policy(context: Context, game: str) -> Policy:
    config = context.config
    seed = context.seed("collect-policy", game, *([context.round] if context.round else []))
    if context.previous is not None:
        return policy_of(
            context.previous, game, config.dream, config.rounds, seed=seed, device=context.device
        )
    return random_policy(config.collect, game, seed, config.collect.num_envs)


STAGE = Stage(
    "collect",
    (),
    lambda config: [config.collect, config.rounds.temperature, config.rounds.epsilon],
    run,
    continues=("collect", "encoder", "hrvq", "worldmodel", "agent"),
    size="collect.num_envs",
)

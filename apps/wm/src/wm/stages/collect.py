"""Real play to learn from."""

import shutil

import numpy as np
from atari_data import (
    PROTOCOLS,
    FrameStore,
    Policy,
    RandomPolicy,
    StickyRandomPolicy,
    collect,
    final_rows,
)

from wm.pipeline import Context, Made, Stage


def run(context: Context) -> Made:
    """Collect every game anew; rows are exact in number and the same for the same seed."""
    config, metrics = context.config.collect, {}
    if config.policy == "imported":
        return _imported(context)
    for game in context.config.games:
        directory = context.layout.data(game)
        # Beside the old data until it is whole: a stop half way loses neither.
        fresh = directory.with_name(f".{game}.partial")
        shutil.rmtree(fresh, ignore_errors=True)
        with context.reporter.task(f"collect {game}", config.num_steps) as task:
            result = collect(
                fresh,
                game,
                config.num_steps,
                _policy(context, game),
                seed=context.seed("collect", game) % 2**31,
                protocol=PROTOCOLS[config.protocol],
                num_envs=config.num_envs,
                progress=task.update,
            )
        shutil.rmtree(directory, ignore_errors=True)
        fresh.rename(directory)
        metrics[game] = {
            "steps": result.num_steps,
            "episodes": result.num_episodes,
            "mean_return": float(result.returns.mean()) if result.num_episodes else None,
        }
    made = [path for game in context.config.games for path in context.layout.data(game).iterdir()]
    return Made(made, metrics)


def _imported(context: Context) -> Made:
    """Take the recordings that `wm import` has put there as they are."""
    made, metrics = [], {}
    for game in context.config.games:
        directory = context.layout.data(game)
        if not directory.is_dir():
            raise ValueError(f"{directory} holds no recording; bring one in with `wm import`")
        store = FrameStore.open(directory)
        final = final_rows(store.episode_ids)
        if final.sum() < 2:
            raise ValueError(
                f"{directory} holds 1 episode, and one must validate; import another recording, or give "
                "--episode-ids"
            )
        lengths = np.diff(np.flatnonzero(final), prepend=-1)
        returns = np.add.reduceat(store.rewards, np.flatnonzero(final) + 1 - lengths, dtype=np.float64)
        metrics[game] = {
            "steps": int((~final).sum()),
            "episodes": int(final.sum()),
            "mean_return": float(returns.mean()),
        }
        made += sorted(directory.glob("shard-*.safetensors"))
    return Made(made, metrics)


def _policy(context: Context, game: str) -> Policy:
    config = context.config.collect
    seed = context.seed("collect-policy", game)
    if config.policy == "sticky_random":
        return StickyRandomPolicy(game, seed, config.num_envs, repeat=config.repeat)
    return RandomPolicy(game, seed, config.num_envs)


STAGE = Stage("collect", (), lambda config: config.collect, run)

"""Agent steps a second: `collect`, a bare send/recv loop that throws its frames away, and Gymnasium.

The contestants take turns, several times, so that what else the machine does falls on all of them; the ratios
of the medians are what counts, and on a busy machine the CPU time of a step says more than the rate.
Gymnasium's `AtariPreprocessing` resizes with OpenCV, which is no dependency of ours:
`uv run --with opencv-python-headless python packages/atari-data/benchmarks/collection.py`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

import ale_py
import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from atari_data import RandomPolicy, collect, minimal_actions


def time_collect(game: str, steps: int, num_envs: int, ram: bool = False) -> float:
    policy = RandomPolicy(game, 0, num_envs)
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        collect(directory, game, steps, policy, seed=0, num_envs=num_envs, ram=ram)
        return steps / (time.perf_counter() - start)


def time_bare(game: str, steps: int, num_envs: int) -> float:
    half = num_envs // 2
    start = time.perf_counter()
    env = AtariVectorEnv(
        game, num_envs, batch_size=half, full_action_space=True, reward_clipping=False, use_fire_reset=False
    )
    actions = np.random.default_rng(0).choice(minimal_actions(game), size=(steps // half, half))
    env.reset(seed=0)
    for batch in actions:
        env.send(batch)
        env.recv()
    return steps / (time.perf_counter() - start)


def time_gymnasium(game: str, steps: int, num_envs: int) -> float:
    gym.register_envs(ale_py)
    name = f"ALE/{game.title().replace('_', '')}-v5"

    def make() -> gym.Env:
        env = gym.make(name, frameskip=1, repeat_action_probability=0.0, full_action_space=True)
        env = gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84)
        return gym.wrappers.FrameStackObservation(env, 4)

    env = gym.vector.AsyncVectorEnv([make] * num_envs)
    actions = np.random.default_rng(0).choice(minimal_actions(game), size=(steps // num_envs, num_envs))
    env.reset(seed=0)
    start = time.perf_counter()
    for batch in actions:
        env.step(batch)
    rate = steps / (time.perf_counter() - start)
    env.close()
    return rate


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", default="pong")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    contestants: dict[str, Callable[[str, int, int], float]] = {
        "collect": time_collect,
        "bare send/recv": time_bare,
        "collect, RAM": lambda *given: time_collect(*given, ram=True),
    }
    try:
        import cv2  # noqa: F401

        contestants["gymnasium async"] = time_gymnasium
    except ImportError:
        print("no OpenCV: Gymnasium's AtariPreprocessing is left out")
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    cpu: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.repeats):
        for name, contestant in contestants.items():
            before = cpu_seconds()
            rates[name].append(contestant(args.game, args.steps, args.num_envs))
            cpu[name].append((cpu_seconds() - before) / args.steps * 1e6)
    ours = statistics.median(rates["collect"])
    print(f"{args.game}, {args.steps} steps, {args.num_envs} environments, median of {args.repeats}")
    for name, values in rates.items():
        rate = statistics.median(values)
        print(
            f"{name:16} {rate:7.0f} steps/s, collect is {ours / rate:.2f} of it; "
            f"{statistics.median(cpu[name]):5.0f} us of CPU a step; {np.round(values)}"
        )


if __name__ == "__main__":
    main()

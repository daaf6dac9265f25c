"""Agent steps per second: `collect`, a bare send/recv loop that discards its frames, and Gymnasium.

The contestants take turns, several times, so that other load on the machine affects all of them; the ratios
of the medians are what counts, and on a busy machine the CPU time per step says more than the rate. Starting
the emulators is not timed; writing the last frames is. Gymnasium's `AtariPreprocessing` resizes with OpenCV,
which is not a dependency of ours; without it that contestant is left out.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ale_py
import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from atari_data import RandomPolicy, collect, minimal_actions


class Watch:
    """Wall-clock time, and CPU time of this process and the given ones, since `start`."""

    def __init__(self, processes: Sequence[int] = ()) -> None:
        self.steps_before = -1
        self.processes = [os.getpid(), *processes]

    def start(self, steps_before: int = 0) -> None:
        self.steps_before = steps_before
        self.time, self.cpu = time.perf_counter(), cpu_seconds(self.processes)

    def stop(self, steps: int) -> tuple[float, float]:
        """Steps per second, and microseconds of CPU per step."""
        steps -= self.steps_before
        return steps / (time.perf_counter() - self.time), (
            cpu_seconds(self.processes) - self.cpu
        ) / steps * 1e6


def cpu_seconds(processes: Sequence[int]) -> float:
    ticks = 0
    for process in processes:  # user and system time, see proc(5)
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def time_collect(game: str, steps: int, num_envs: int, ram: bool = False) -> tuple[float, float]:
    watch = Watch()

    def progress(taken: int) -> None:
        if watch.steps_before < 0:
            watch.start(taken)

    policy = RandomPolicy(game, 0, num_envs)
    with tempfile.TemporaryDirectory() as directory:
        collect(directory, game, steps, policy, seed=0, num_envs=num_envs, ram=ram, progress=progress)
        return watch.stop(steps)


def time_bare(game: str, steps: int, num_envs: int) -> tuple[float, float]:
    half = num_envs // 2
    env = AtariVectorEnv(
        game, num_envs, batch_size=half, full_action_space=True, reward_clipping=False, use_fire_reset=False
    )
    actions = np.random.default_rng(0).choice(minimal_actions(game), size=(steps // half, half))
    env.reset(seed=0)
    watch = Watch()
    watch.start()
    for batch in actions:
        env.send(batch)
        env.recv()
    return watch.stop(len(actions) * half)


def time_gymnasium(game: str, steps: int, num_envs: int) -> tuple[float, float]:
    gym.register_envs(ale_py)
    name = f"ALE/{game.title().replace('_', '')}-v5"

    def make() -> gym.Env:
        env = gym.make(name, frameskip=1, repeat_action_probability=0.0, full_action_space=True)
        env = gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84)
        return gym.wrappers.FrameStackObservation(env, 4)

    env = gym.vector.AsyncVectorEnv([make] * num_envs)
    actions = np.random.default_rng(0).choice(minimal_actions(game), size=(steps // num_envs, num_envs))
    env.reset(seed=0)
    watch = Watch([process.pid for process in env.processes])
    watch.start()
    for batch in actions:
        env.step(batch)
    result = watch.stop(len(actions) * num_envs)
    env.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", default="pong")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    contestants: dict[str, Callable[[str, int, int], tuple[float, float]]] = {
        "collect": time_collect,
        "bare send/recv": time_bare,
        "collect, RAM": lambda *given: time_collect(*given, ram=True),
    }
    if importlib.util.find_spec("cv2"):
        contestants["gymnasium async"] = time_gymnasium
    else:
        print("no OpenCV: Gymnasium's AtariPreprocessing is left out")
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(args.repeats):
        for name, contestant in contestants.items():
            results[name].append(contestant(args.game, args.steps, args.num_envs))
    print(f"{args.game}, {args.steps} steps, {args.num_envs} environments, median of {args.repeats}")
    medians = {
        name: [statistics.median(each) for each in zip(*r, strict=True)] for name, r in results.items()
    }
    ours = medians["collect"]
    for name, (rate, cpu) in medians.items():
        rates = " ".join(f"{each:.0f}" for each, _ in results[name])
        print(
            f"{name:16} {rate:6.0f} steps/s ({rates}), {cpu:4.0f} us CPU per step; "
            f"collect runs at {ours[0] / rate:.2f} of its rate, {cpu / ours[1]:.2f} by CPU time"
        )


if __name__ == "__main__":
    main()

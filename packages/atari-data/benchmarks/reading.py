"""Reading: opening a store, finding windows, gathering stacks and clips, and the memory collection uses."""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
from atari_data import FrameStore, RandomPolicy, collect, window_starts


def seconds(function: Callable[[], object], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", default="pong")
    parser.add_argument("--steps", type=int, default=20_000)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    episode_ids = np.repeat(np.arange(400, dtype=np.int32), 750)
    spent = seconds(lambda: window_starts(episode_ids, 20))
    print(f"window_starts, {len(episode_ids)} rows, length 20: {spent * 1e3:.2f} ms")

    with tempfile.TemporaryDirectory() as directory:
        for steps in (args.steps // 4, args.steps - args.steps // 4):
            collect(directory, args.game, steps, RandomPolicy(args.game, 0, 16), seed=0)
            print(f"collect, {steps} more steps: peak memory of the process {peak_mib():.0f} MiB")
        print(f"open: {seconds(lambda: FrameStore.open(directory)) * 1e3:.1f} ms")
        store = FrameStore.open(directory)
        for batch, length in ((256, 1), (64, 20), (32, 40)):
            starts = rng.choice(window_starts(store.episode_ids, length), size=batch)
            spent = seconds(lambda starts=starts, length=length: store.clips(starts, length))
            print(
                f"clips of {length} frames and 3 before, batch of {batch}: "
                f"{batch / spent:.0f} clips/s, {batch * (length + 3) / spent:.0f} frames/s"
            )


if __name__ == "__main__":
    main()

"""A sweep on processes: how near to as many times as fast as there are processes?

    python benchmarks/sweep.py [PERCENT] [WORKERS]

Wall-clock time of one sweep here and on its own processes, in this one run. "ideal" is the time
here divided by the number of processes; starting the processes is a part of what is measured, so
PERCENT of the points, if fewer, come off worse. The target is 0.8 of ideal for points that take
5 ms and more.
"""

import sys
import time

from popcorn_edu import sweeps

SIZES = {1_500: 1_600, 5_000: 600, 20_000: 160}  # messages of each sender: how many points
TARGET = 0.8


def seconds(points: int, messages: int, workers: int) -> float:
    start = time.perf_counter()
    sweeps.sweep(
        "fan_in", kernels=5, messages=messages, gap_ns=3_000, seed=range(points), workers=workers,
        keep=False, progress=False,
    )  # fmt: skip
    return time.perf_counter() - start


def main(percent: int = 100, workers: int = 2) -> int:
    print(f"{workers} processes")
    for messages, points in SIZES.items():
        count = max(points * percent // 100, 2 * workers)
        here = seconds(count, messages, 1)
        there = seconds(count, messages, workers)
        ratio = here / workers / there
        print(
            f"{count} points of {1000 * here / count:.1f} ms: {ratio:.2f} of ideal "
            f"(target {TARGET})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

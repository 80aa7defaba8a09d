"""A sweep on processes: how near to as many times as fast as there are processes?

    python benchmarks/sweep.py [POINTS] [WORKERS]

Wall-clock time of one sweep here and on its own processes, in this one run. "ideal" is the time
here divided by the number of processes; starting the processes is a part of what is measured. The
target is 0.8 of ideal for points that take 5 ms and more.
"""

import sys
import time

from popcorn_edu import sweeps

SIZES = {"about 5 ms a point": 12, "about 20 ms a point": 60, "about 100 ms a point": 300}
TARGET = 0.8


def seconds(points: int, messages: int, workers: int) -> float:
    start = time.perf_counter()
    sweeps.sweep(
        "fan_in", kernels=9, messages=messages, seed=range(points), workers=workers, keep=False,
        progress=False,
    )  # fmt: skip
    return time.perf_counter() - start


def main(points: int = 400, workers: int = 2) -> int:
    print(f"{points} points, {workers} processes")
    for name, messages in SIZES.items():
        count = max(points * 12 // messages, 4 * workers)
        here = seconds(count, messages, 1)
        there = seconds(count, messages, workers)
        ratio = here / workers / there
        print(
            f"{name}: {1000 * here / count:.1f} ms each, {count} points; "
            f"{ratio:.2f} of ideal (target {TARGET})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

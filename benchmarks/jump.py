"""How long ``run.at(n)`` takes: the world at any record of a long run.

    python benchmarks/jump.py [RECORDS]

The first jump to the far end walks there once and leaves check points behind; every later jump
starts from the nearest. The baseline is one walk through the whole run, which is what a jump
without check points would cost on average twice over.
"""

import random
import statistics
import sys
import time

from popcorn_edu import scenarios

RECORDS = 100_000
JUMPS = 300
TARGET_MS = 5


def milliseconds(work, *arguments) -> float:
    start = time.process_time()
    work(*arguments)
    return (time.process_time() - start) * 1000


def walk(run) -> None:
    for _ in run.worlds():
        pass


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    kernels = 24
    messages = max(1, records // (kernels - 1) // 5)
    run = scenarios.fan_in(kernels=kernels, messages=messages, gap_ns=8_000)
    length = len(run)
    walked = milliseconds(walk, run)
    first = milliseconds(run.at, length)
    draw = random.Random("jumps").randrange
    middle = length // 2
    jumps = [milliseconds(run.at, draw(length + 1)) for _ in range(JUMPS)]
    steps = [milliseconds(run.at, n) for n in range(middle, min(middle + JUMPS, length))]
    print(f"{length:,} records")
    print(f"  {'':<38}{'ms':>10}{'ratio':>10}")
    for name, value in (
        ("one walk through all records", walked),
        ("first jump, to the end", first),
        ("jump to a random record, median", statistics.median(jumps)),
        ("jump to a random record, worst", max(jumps)),
        ("next record, median", statistics.median(steps)),
    ):
        print(f"  {name:<38}{value:>10.2f}{value / walked:>10.4f} x")
    median = statistics.median(jumps)
    verdict = "met" if median <= TARGET_MS else "MISSED"
    print(f"target: jump, median <= {TARGET_MS} ms: {median:.2f} ms, {verdict}")


if __name__ == "__main__":
    main()

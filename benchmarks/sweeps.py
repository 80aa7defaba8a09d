"""1,000 configurations of 20,000 messages, measured on two processes; and 100,000 messages at once.

    python benchmarks/sweeps.py [CONFIGURATIONS] [--workers 2]

Baseline: the same numbers of the same runs, measured of the trace that the usual engine keeps
(scenarios.fan_in and figures.summary), of a few of the configurations, in this same run. Wall time;
the processes have imported and compiled before the clock starts.
"""

import argparse
import itertools
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from popcorn_edu import scenarios
from popcorn_edu.model import flat
from popcorn_edu.readers import figures

MACHINE = "epyc-96"
SENDERS = 20
MESSAGES = 20_000
GAPS_NS = (0, 2_000, 5_000, 10_000, 20_000)
BUDGETS = (1, 8, 128, 512)
SLOTS = (16, 64)
TARGET_S, ONE_TARGET_MS = 10.0, 100.0
SAMPLE = 5  # of the configurations, measured by the baseline as well


def grid(count: int) -> list[dict]:
    """Loads, budgets, rings and seeds."""
    of_one_seed = len(GAPS_NS) * len(BUDGETS) * len(SLOTS)
    points = itertools.product(range(-(-count // of_one_seed)), GAPS_NS, BUDGETS, SLOTS)
    return [
        {
            "machine": MACHINE, "kernels": SENDERS + 1, "messages": MESSAGES // SENDERS,
            "gap_ns": gap_ns, "budget": budget, "slots": slots, "seed": seed,
        }
        for seed, gap_ns, budget, slots in itertools.islice(points, count)
    ]  # fmt: skip


def measured(point: dict) -> dict:
    with flat.played_by("numba"):
        return scenarios.measure("fan_in", **point)


def of_a_trace(point: dict) -> dict:
    return figures.summary(scenarios.fan_in(**point))


def timed(work, *arguments) -> tuple[float, object]:
    start = time.perf_counter()
    found = work(*arguments)
    return time.perf_counter() - start, found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configurations", type=int, nargs="?", default=1_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    points = grid(options.configurations)
    measured(points[0])  # compiles, and keeps what it compiled for the other processes
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(measured, points[:1] * 4 * options.workers))
        spent, found = timed(lambda: list(pool.map(measured, points, chunksize=10)))
    sample = points[:: max(1, len(points) // SAMPLE)][:SAMPLE]
    slow = []
    for point in sample:
        seconds, expected = timed(of_a_trace, point)
        slow.append(seconds)
        assert found[points.index(point)] == expected, point
    each = spent * options.workers / len(points)
    print(f"{len(points):,} configurations of {MESSAGES:,} messages, {options.workers} processes")
    print(f"  measured, no trace      {spent:8.2f} s   {each * 1e3:8.1f} ms each, in its process")
    usual = statistics.mean(slow)
    print(f"  the usual engine's trace {usual * len(points) / options.workers:7.0f} s   "
          f"{usual * 1e3:8.1f} ms each ({len(sample)} of them): {usual / each:.0f} x as long, the "
          "same numbers")  # fmt: skip
    allowed = TARGET_S * len(points) / 1_000
    print(f"  target: <= {allowed:g} s: {'met' if spent <= allowed else 'MISSED'}")

    large = points[0] | {"gap_ns": 20_000, "messages": 5 * MESSAGES // SENDERS}
    one = min(timed(measured, large)[0] for _ in range(5)) * 1e3
    usual = timed(of_a_trace, large)[0] * 1e3
    print(f"one run of {5 * MESSAGES:,} messages, simulated and measured")
    print(f"  no trace {one:.0f} ms; of a trace {usual:,.0f} ms: {usual / one:.0f} x as long")
    print(f"  target: <= {ONE_TARGET_MS:g} ms: {'met' if one <= ONE_TARGET_MS else 'MISSED'}")


if __name__ == "__main__":
    main()

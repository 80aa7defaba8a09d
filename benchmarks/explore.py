"""How fast the explorer goes through every order of small configurations of the fan-in.

    python benchmarks/explore.py               # a minute or so
    python benchmarks/explore.py --small       # seconds

Prints states a second and two ratios: how many states the reduction leaves, and how often a
generator was resumed for each step taken (the rest were answered by the trees).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from popcorn_edu import scenarios
from popcorn_edu.engine.explore import Explorer, Search, Seeker

PROMISED_SECONDS = 10  # for each complete search of 2 senders with 2 messages

SIZES = [(2, 2, "sc"), (3, 1, "sc"), (2, 3, "sc"), (2, 2, "tso"), (3, 1, "tso"), (2, 3, "tso")]
LARGE = [(3, 2, "sc"), (4, 1, "sc"), (4, 1, "tso"), (3, 2, "tso")]
ALL_ORDERS_AT_MOST = 1_000_000  # states of the search without the reduction


def explorer_of(kernels: int, messages: int, memory: str) -> Explorer:
    staged = scenarios.staging("fan_in", kernels=kernels, messages=messages)
    return Explorer(lambda: staged.world(staged.setup), staged.cast, memory=memory)


def measure(kernels: int, messages: int, memory: str, all_orders: bool) -> str:
    rules = scenarios.everybody_is_done, None, (), None
    explorer = explorer_of(kernels, messages, memory)
    began = time.perf_counter()
    verdict = Seeker(explorer, rules, ALL_ORDERS_AT_MOST).verdict(reduced=True)
    seconds = time.perf_counter() - began
    told = (
        f"{kernels - 1} x {messages} {memory:<4}{verdict.states:>9,} states{seconds:>7.1f} s"
        f"{verdict.states / seconds:>9,.0f}/s   resumed "
        f"{explorer.resumed / explorer.steps_taken:.4f} a step"
    )
    if all_orders:
        plain = explorer_of(kernels, messages, memory)
        began = time.perf_counter()
        whole = Search(plain, *rules).run(ALL_ORDERS_AT_MOST)
        seconds = time.perf_counter() - began
        more = "" if whole.complete else "more than "
        told += (
            f"   all orders: {more}{whole.states:,} states, {whole.states / seconds:,.0f}/s, "
            f"{more}{whole.states / verdict.states:.1f} times as many"
        )
    return told if verdict.complete else f"{told}   NOT COMPLETE"


def main(argv: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--small", action="store_true", help="only what takes seconds")
    options.add_argument("--all-orders", action="store_true", help="also without the reduction")
    given = options.parse_args(argv)
    for size in SIZES if given.small else SIZES + LARGE:
        print(measure(*size, all_orders=given.all_orders), flush=True)


if __name__ == "__main__":
    main()

"""The deck of faults at random places of random runs: only what the card names may break.

Draws a message scenario, its options and its schedule, and injects each fault of the deck at a few
of its places. After each: no story meets a state its author never thought of, the world is the fold
of the trace, and every finding of every check is one that the sound run had, or the card expects.

    python tests/fuzz/fuzz_faults.py                    # 1,000,000 records, about half a minute
    python tests/fuzz/fuzz_faults.py --records 100000 --seed 3

A finding prints the line of Python that makes its run again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from popcorn_edu import faults, scenarios
from popcorn_edu.engine.trace import StoryStopped
from popcorn_edu.readers import checks

PLACES_OF_EACH = 3
FOUND_AT_MOST = 20  # then it stops: the first ones tell the story
SCENARIOS = ("fan_in", "fan_in", "ping", "registration", "two_full_rings")
TIMES_NS = (1, 50, 3_000, 100_000)


def drawn(draw: random.Random) -> tuple[str, dict]:
    """A scenario and its options."""
    name = draw.choice(SCENARIOS)
    options = {
        "fan_in": {
            "kernels": draw.randint(2, 6), "messages": draw.randint(1, 8),
            "gap_ns": draw.choice([0, 100, 1_000, 5_000]), "slots": draw.choice([1, 2, 4, 8, 64]),
            "budget": draw.choice([1, 2, 128]), "high_every": draw.choice([0, 2, 3]),
        },
        "ping": {"rounds": draw.randint(1, 5)},
        "registration": {"kernels": draw.randint(2, 5)},
        "two_full_rings": {"messages": draw.randint(1, 4), "slots": draw.choice([4, 64])},
    }[name]  # fmt: skip
    seeds = {
        "seed": draw.randrange(1_000),
        "schedule_seed": draw.choice([None, draw.randrange(1_000)]),
    }
    return name, options | seeds


def how(draw: random.Random, card: faults.Fault) -> dict:
    """Options for a fault."""
    if "ns" in card.options:
        return {"ns": draw.choice(TIMES_NS)}
    return {"field": draw.choice(faults.HEADER)} if "field" in card.options else {}


def problems(fork, expected: set[str]) -> list[str]:
    """What is wrong with a faulty run beyond what was to be expected."""
    found = [finding for finding in checks.all(fork) if finding.check not in expected]
    said = [f"{finding.check}: {finding}" for finding in found]
    said += [str(record) for record in fork.trace.records(StoryStopped)]
    if fork.world != fork.at(len(fork)):
        said.append("the world is not the fold of the trace")
    if min(fork.world.messaging.on_the_wire.values(), default=0) < 0:
        said.append("fewer than no IPIs are on the wire")
    faults.noticed(fork)
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw, forks, records, found = random.Random(args.seed), Counter(), 0, 0
    began = time.perf_counter()
    while records < args.records and found < FOUND_AT_MOST:
        name, options = drawn(draw)
        run = scenarios.run(name, **options)
        sound = {finding.check for finding in checks.all(run)}
        for card in faults.DECK.values():
            places = list(faults.places(run, card.name))
            for place in draw.sample(places, min(PLACES_OF_EACH, len(places))):
                chosen = how(draw, card)
                if faults.not_here(run, card.name, place, **chosen):
                    continue  # another field of the header is as it would be garbled to
                fork = run.inject(card.name, at=place, **chosen)
                forks[card.name] += 1
                records += len(fork)
                for problem in problems(fork, sound | set(card.fails)):
                    found += 1
                    print(
                        f"scenarios.run({name!r}, **{options}).inject({card.name!r}, at={place}, "
                        f"**{chosen})\n    {problem}"
                    )
    print(", ".join(f"{name}: {count:,}" for name, count in forks.items()))
    took = time.perf_counter() - began
    print(f"{forks.total():,} faults, {records:,} records, {found} findings, {took:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

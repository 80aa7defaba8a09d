"""Runs that have always been the same: a digest of the trace, and one of the world at its end.

A digest says only that something changed. What, the transcripts and the checks say. When a change
is meant, ``python tests/test_digests.py`` writes the table anew; its diff shows how far it goes.
"""

import hashlib
import sys
from pathlib import Path

import pytest

from popcorn_edu import scenarios
from popcorn_edu.model.messaging import GENERATIONS, send_noblock
from popcorn_edu.model.mitigation import SIDE_BY_SIDE, batches_of

TABLE = Path(__file__).with_name("data") / "digests.tsv"
SHAPES = {
    "crowded": {"kernels": 5, "messages": 6, "slots": 2, "gap_ns": 300},
    "calm": {"kernels": 4, "messages": 6, "gap_ns": 4_000, "high_every": 2},
    "burst": {"kernels": 7, "messages": 9, "gap_ns": 0, "slots": 8, "budget": 3},
}


def runs() -> dict[str, tuple[str, dict]]:
    """By a name: the scenario and its arguments."""
    found = {}
    for label, choices in SIDE_BY_SIDE.items():
        for shape, options in SHAPES.items():
            found[f"{label}, {shape}"] = "fan_in", options | choices
            found[f"{label}, {shape}, shuffled"] = (
                "fan_in", options | choices | {"seed": 5, "schedule_seed": 7},
            )  # fmt: skip
    for generation in GENERATIONS:
        found[f"generation {generation}"] = (
            "fan_in", SHAPES["crowded"] | {"slots": 4, "generation": generation},
        )  # fmt: skip
    for name in scenarios.names():
        if name != "boot_64":  # its transcript is enough, and it is long
            found[f"{name}, as usual"] = name, {}
            found[f"{name}, shuffled"] = name, {"schedule_seed": 3}
    found["long messages, mixed"] = "long_message", {"at_once": 3, "long_rule": "per sender"}
    crowded = SHAPES["crowded"]
    found["in batches of three"] = "fan_in", crowded | {"receive": batches_of(3)}
    found["without waiting"] = "fan_in", SHAPES["burst"] | {"send": send_noblock, "slots": 2}
    found["the whole ring"] = "fan_in", crowded | {"slots": 6, "full_rule": "whole ring"}
    found["to a slow sleeper"] = "fan_in", crowded | {"slots": 1, "generation": "G2", "messages": 9}
    found["a long message waits"] = "long_message", {"slots": 4, "at_once": 2}
    found["the longest message"] = "long_message", {"size_bytes": 7_620, "slots": 32}
    found["multicast, a member removed"] = "multicast", {"victim": 2, "messages": 6}
    found["multicast, two channels"] = "multicast", {"openers": 2, "messages": 6, "slots": 2}
    for fault in ("allocation failure", "duplicated IPI", "lost IPI", "corrupted header",
                  "sender dies", "ring full"):  # fmt: skip
        found[f"fault: {fault}"] = "fan_in", SHAPES["crowded"] | {"fault": fault}
    found["multicast, a dead member"] = "multicast", {"victim": 2, "messages": 70, "removed": False}
    found["multicast, two openers"] = "multicast", {"openers": 2, "lock": "as coded"}
    found["a ring of two machines' ends"] = "ping", {"rounds": 9, "machine": "westmere-24"}
    return found


def digest(name: str) -> str:
    """Of the trace, and of every table of the world after it."""
    scenario, arguments = runs()[name]
    run = scenarios.run(scenario, **arguments)
    told = {
        f"{part}.{table}[{key!r}]": f"{value!r}"
        for part, tables in run.world.snapshot().items()
        for table, rows in tables.items()
        for key, value in rows.items()
    }
    world = "\n".join(f"{row} = {told[row]}" for row in sorted(told))
    return f"{run.trace.digest()[:32]} {hashlib.sha256(world.encode()).hexdigest()[:16]}"


def table() -> dict[str, str]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


@pytest.mark.parametrize("name", runs())
def test_a_run_is_what_it_was(name):
    """The same arguments, the same trace, byte for byte, on every machine."""
    assert digest(name) == table().get(name)


def test_the_table_has_no_other_run():
    """Whoever takes a run away takes its line away."""
    assert list(table()) == list(runs())


if __name__ == "__main__":
    rows = [f"{name}\t{digest(name)}\n" for name in runs()]
    TABLE.write_text("".join(rows), encoding="utf-8", newline="\n")
    sys.exit(0)

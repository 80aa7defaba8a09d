"""What must have happened somewhere, or the rules that hold are worth little.

Each sight is looked for in a fixed set of runs. If one never comes up, this file fails and names
it: then a case that matters is not tried any more. (tests/readers/test_checks.py does the same for
the 300 runs in which no rule may break.)
"""

from collections.abc import Callable

import pytest

from popcorn_edu import faults, scenarios
from popcorn_edu.engine.world import Run
from popcorn_edu.model.boot import KernelPanicked
from popcorn_edu.model.messaging import (
    BudgetSpent,
    InterruptTaken,
    IpiArrived,
    LookedAgain,
    MessageDelivered,
)
from popcorn_edu.model.mitigation import LINGER_LEAST_NS, LINGER_MOST_NS, LingerChosen
from popcorn_edu.model.rings import (
    HeadOfLineWait,
    PayloadCopied,
    SenderBlocked,
    SenderSlept,
    SendRefused,
    SlotReady,
)

RUNS: dict[str, Callable[[], Run]] = {
    "crowded": lambda: scenarios.fan_in(kernels=6, messages=12, slots=2, gap_ns=200),
    "burst": lambda: scenarios.fan_in(kernels=9, messages=40, gap_ns=0),
    "mixed": lambda: scenarios.fan_in(kernels=5, messages=20, gap_ns=500, high_every=3, seed=1),
    "calm": lambda: scenarios.fan_in(kernels=4, messages=30, gap_ns=3_000, seed=4),
    "adaptive": lambda: scenarios.fan_in(
        kernels=4, messages=60, gap_ns=3_000, mitigation="adaptive"
    ),
    "asleep": lambda: scenarios.fan_in(kernels=5, messages=9, slots=2, gap_ns=0, generation="G2"),
    "refused": lambda: scenarios.fan_in(
        kernels=5, messages=9, slots=2, gap_ns=0, generation="MK25"
    ),
    "page": lambda: scenarios.long_message(slots=4),
    "mixed up": lambda: scenarios.long_message(at_once=2, long_rule="per sender", size_bytes=400),
    "channel": lambda: scenarios.multicast(messages=70, slots=4),
    "dead member": lambda: scenarios.multicast(victim=2, messages=5),
    "dead kernel": lambda: scenarios.run("fan_in", slots=2, fault="sender dies"),
    "nothing to do": lambda: scenarios.fan_in(kernels=2, messages=0),
}


def some(kind, holds=lambda event: True):
    return lambda run: any(holds(record.event) for record in run.trace.records(kind))


def coalesced(run: Run) -> bool:
    """Two IPIs came before the first was served."""
    waiting = set()
    for record in run.trace.records(IpiArrived, InterruptTaken):
        kernel = record.event.kernel
        if type(record.event) is InterruptTaken:
            waiting.discard(kernel)
        elif kernel in waiting:
            return True
        else:
            waiting.add(kernel)
    return False


def overtook(run: Run) -> bool:
    last: dict[int, int] = {}
    for record in run.trace.records(MessageDelivered):
        event = record.event
        if event.number < last.get(event.sender, -1):
            return True
        last[event.sender] = event.number
    return False


def named(name: str):
    return lambda run: name in run.trace.kinds()


SOMETIMES: dict[str, Callable[[Run], bool]] = {
    "the ring filled": some(SenderBlocked),
    "two IPIs became one interrupt": coalesced,
    "the second look found a message": some(LookedAgain, lambda event: event.found > 0),
    "the second look found nothing": some(LookedAgain, lambda event: event.found == 0),
    "a receiver waited for the head of the line": some(HeadOfLineWait),
    "a budget was spent": some(BudgetSpent),
    "HIGH overtook NORMAL": overtook,
    "a message came without an interrupt": lambda run: (
        0 < run.trace.kinds().get("IpiSent", 0) < run.trace.kinds().get("SlotReady", 0)
    ),
    "a later ticket was ready first": lambda run: (
        (order := [r.event.ticket for r in run.trace.records(SlotReady, ring=0)]) != sorted(order)
    ),
    "a slot was used again": some(PayloadCopied, lambda event: event.slot != event.ticket),
    "a sender slept": some(SenderSlept),
    "a sender was refused": some(SendRefused),
    "the adaptive while grew to its most": some(LingerChosen, lambda e: e.ns == LINGER_MOST_NS),
    "the adaptive while shrank to its least": some(LingerChosen, lambda e: e.ns == LINGER_LEAST_NS),
    "a long message waited in its middle": lambda run: (
        some(SenderBlocked)(run) and named("LongSendBegun")(run)
    ),
    "chunks of two messages were mixed": named("LongMessageCorrupted"),
    "a multicast channel was full": named("McastRefused"),
    "a dead member was removed": named("MemberRemoved"),
    "a kernel died": some(KernelPanicked),
    "somebody noticed a death": lambda run: some(KernelPanicked)(run) and bool(faults.noticed(run)),
}


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return {name: make() for name, make in RUNS.items()}


@pytest.mark.parametrize("sight", SOMETIMES)
def test_it_happens_somewhere(sight, runs):
    """In one of the runs at least."""
    assert any(SOMETIMES[sight](run) for run in runs.values()), f"never seen: {sight}"


@pytest.mark.parametrize("sight", SOMETIMES)
def test_it_does_not_happen_everywhere(sight, runs):
    """A sight that every run shows would see nothing."""
    assert not all(SOMETIMES[sight](run) for run in runs.values())

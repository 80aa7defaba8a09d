"""A million random steps through orders and faults: nothing may break, and every planted bug must.

Walks at random through the explorer's transition system of small configurations, under both
memories, and after every step judges the world by the ring's invariants. Some walks lose an IPI,
double one, or stop a kernel; then nothing wrong may be delivered (safety). Walks without a fault
must also end well (liveness). The same must catch each of the planted bugs.

    python tests/fuzz/fuzz_orders.py                   # 1,000,000 steps, about a minute
    python tests/fuzz/fuzz_orders.py --steps 100000

A walk is found again by its configuration and number: they give the same walk everywhere.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from popcorn_edu import scenarios
from popcorn_edu.engine.explore import DEMOTED, Broken, Explorer, State
from popcorn_edu.engine.steps import Delay
from popcorn_edu.engine.world import Lens
from popcorn_edu.model import messaging
from popcorn_edu.model.rings import InterruptsEnabled, MessageRead, PayloadCopied, SlotReady

STEPS_AT_MOST = 2_000  # of one walk
FAULT_RATE = 0.02  # of the steps of a walk with faults
FAULTS = ("IPI lost", "IPI twice", "kernel stops")


class Found(NamedTuple):
    walk: int
    steps: int
    sentence: str

    def __str__(self) -> str:
        return f"walk {self.walk}, after {self.steps} steps: {self.sentence}"


# -- what must hold in every state ----------------------------------------------------------------


def ring_is_sound(world) -> str:
    rings, mine, slots = world.rings, world.messaging, world.setup.slots
    for ring in rings.head:
        head, tail = rings.head[ring], rings.tail[ring]
        if tail > head:
            return f"ring {ring}: {tail} messages were read and {head} written"
        read = sum(mine.queued[kernel, p] for kernel, p in mine.queued if kernel == ring)
        if read < tail:
            return f"ring {ring}: {tail} slots were freed for {read} messages"
    for (ring, slot), message in rings.slots.items():
        if message.ticket % slots != slot:
            return f"slot {slot} of ring {ring} holds ticket {message.ticket}"
        if message.ticket < rings.tail[ring]:
            return f"ticket {message.ticket} of ring {ring} was overwritten or read twice"
    for (ring, slot), ticket in rings.ready.items():
        message = rings.slots.get((ring, slot))
        if message is None or message.ticket != ticket:
            return f"slot {slot} of ring {ring} is ready for ticket {ticket}, which is not in it"
    for kernel, priority in mine.queued:
        if mine.served[kernel, priority] > mine.queued[kernel, priority]:
            return f"kernel {kernel} handled more messages than it read"
    seen: dict[tuple, int] = {}
    for (kernel, priority, place), message in sorted(mine.queue.items()):
        key = kernel, priority, message.sender
        if seen.get(key, -1) >= message.number:
            return f"kernel {kernel} has message {message.number} at place {place} out of order"
        seen[key] = message.number
    return ""


# -- walking ---------------------------------------------------------------------------------------


class Walker:
    """Random walks through one configuration."""

    def __init__(self, memory: str = "sc", **arguments) -> None:
        staged = scenarios.staging("fan_in", **arguments)
        self.explorer = Explorer(
            lambda: staged.world(staged.setup), staged.cast, memory=memory, careful=staged.careful
        )
        self.sound: dict[bytes, str] = {}  # what was said of each world
        self.steps = self.walks = self.faults = 0

    def walk(self, with_faults: bool) -> Found | None:
        """One walk, with the order of the actors' priorities and its faults from its number."""
        draw, explorer, number = random.Random(self.walks), self.explorer, self.walks
        self.walks += 1
        state, rank, faulty, places = explorer.first, {}, False, explorer.places
        for step in range(STEPS_AT_MOST):
            if problem := self.judge(state):
                return Found(number, step, problem)
            choices = explorer.choices(state)
            if not choices:
                return self.ended(state, number, step) if not faulty else None
            if with_faults and draw.random() < FAULT_RATE:
                state, happened = self.fault(state, draw)
                faulty = faulty or happened
                continue
            names = [choice if choice < 0 else places[choice].who for choice in choices]
            for name in names:
                rank.setdefault(name, draw.random())
            first = max(names, key=rank.__getitem__)
            try:
                state = explorer.take(state, choices[names.index(first)])
            except Broken as broken:
                return Found(number, step, f"{broken.who}: {broken.sentence}")
            self.steps += 1
            if draw.random() < DEMOTED:
                rank[first] = min(rank.values()) - 1
        return Found(number, STEPS_AT_MOST, "it does not end")

    def judge(self, state: State) -> str:
        problem = self.sound.get(state.vector)
        if problem is None:
            world = Lens(self.explorer.world_of(state), None)
            problem = self.sound[state.vector] = ring_is_sound(world)
        return problem

    def ended(self, state: State, number: int, step: int) -> Found | None:
        world = Lens(self.explorer.world_of(state), None)
        problem = scenarios.everybody_is_done(world, self.explorer.waiting(state))
        return Found(number, step, problem) if problem else None

    def fault(self, state: State, draw: random.Random) -> tuple[State, bool]:
        explorer, kind = self.explorer, draw.choice(FAULTS)
        wires = [n for n in state.actors if explorer.places[n].who.startswith("IPI")]
        if kind == "kernel stops":
            self.faults += 1
            return explorer.stopped(state, draw.choice((0, 1))), True
        if not wires:
            return state, False
        self.faults += 1
        hit = draw.choice(wires)
        return (explorer.lost if kind == "IPI lost" else explorer.doubled)(state, hit), True


# -- the correct model, and planted bugs -----------------------------------------------------------

CORRECT = [
    {"memory": memory, "kernels": kernels, "messages": messages, "slots": slots, "budget": budget}
    for memory in ("sc", "tso")
    for kernels, messages, slots, budget in [
        (3, 2, 64, 128), (3, 3, 2, 1), (4, 3, 3, 2), (5, 4, 4, 128), (2, 6, 1, 3),
    ]
]  # fmt: skip


def ready_too_early(world, me, to, type, priority, payload):
    yield Delay(1)
    ticket, number = world.rings.head[to], world.messaging.sent[me]
    yield messaging.TicketTaken(to, ticket, me, number)
    yield from messaging.wait_for_space(world, to, ticket)
    slot = ticket % world.setup.slots
    yield SlotReady(to, slot, ticket, me)
    yield Delay(1)
    yield PayloadCopied(to, slot, ticket, me, number, type, priority, payload)
    if world.rings.int_enabled[to]:
        yield from messaging.send_ipi(world, me, to)


def ticket_not_atomic(world, me, to, type, priority, payload):
    ticket, number = world.rings.head[to], world.messaging.sent[me]
    yield Delay(1)
    yield messaging.TicketTaken(to, ticket, me, number)
    slot = ticket % world.setup.slots
    yield Delay(1)
    yield PayloadCopied(to, slot, ticket, me, number, type, priority, payload)
    yield SlotReady(to, slot, ticket, me)
    if world.rings.int_enabled[to]:
        yield from messaging.send_ipi(world, me, to)


def no_look_whether_full(world, me, to, type, priority, payload):
    yield Delay(1)
    ticket, number = world.rings.head[to], world.messaging.sent[me]
    yield messaging.TicketTaken(to, ticket, me, number)
    yield Delay(1)
    slot = ticket % world.setup.slots
    yield PayloadCopied(to, slot, ticket, me, number, type, priority, payload)
    yield SlotReady(to, slot, ticket, me)
    if world.rings.int_enabled[to]:
        yield from messaging.send_ipi(world, me, to)


def looks_before_it_writes(world, me, to, type, priority, payload):
    wanted = world.rings.int_enabled[to]
    yield Delay(1)
    ticket, number = world.rings.head[to], world.messaging.sent[me]
    yield messaging.TicketTaken(to, ticket, me, number)
    yield from messaging.wait_for_space(world, to, ticket)
    slot = ticket % world.setup.slots
    yield Delay(1)
    yield PayloadCopied(to, slot, ticket, me, number, type, priority, payload)
    yield SlotReady(to, slot, ticket, me)
    if wanted:
        yield from messaging.send_ipi(world, me, to)


def reads_without_ready(world, me):
    rings = world.rings
    while rings.head[me] > rings.tail[me]:
        yield Delay(1)
        message = rings.slots.get((me, rings.tail[me] % world.setup.slots))
        if message:
            yield MessageRead._make(message)
    yield InterruptsEnabled(me)
    yield from messaging.deliver(world, me)


def forgets_to_enable(world, me):
    yield from messaging.poll(world, me, 128)
    yield from messaging.deliver(world, me)


def looks_again_too_early(world, me):
    while True:
        yield from messaging.poll(world, me, 128)
        yield Delay(1)
        if not (yield from messaging.look_again(world, me)):
            break
    yield Delay(1)
    yield InterruptsEnabled(me)
    yield from messaging.deliver(world, me)


def forgets_to_deliver(world, me):
    yield from messaging.poll(world, me, 128)
    yield Delay(1)
    yield InterruptsEnabled(me)
    yield from messaging.look_again(world, me)


PLANTED: dict[str, dict] = {
    "no second look (G1)": {"look_again": False},
    "wmb instead of a full barrier": {"barrier": "store", "memory": "tso"},
    "whole ring full (G1)": {"full_rule": "whole ring", "slots": 2},
    "ready before the payload": {"send": ready_too_early},
    "a ticket in two steps": {"send": ticket_not_atomic},
    "no look whether the ring is full": {"send": no_look_whether_full, "slots": 1},
    "int_enabled read before the message is in": {"send": looks_before_it_writes},
    "reading without the ready flag": {"receive": reads_without_ready, "slots": 2},
    "int_enabled never set again": {"receive": forgets_to_enable},
    "second look before int_enabled = 1": {"receive": looks_again_too_early},
    "messages read and not delivered": {"receive": forgets_to_deliver},
}


def planted(choice: dict) -> Walker:
    return Walker(**({"kernels": 3, "messages": 3} | choice))


def catch(choice: dict, walks: int = 20_000) -> Found | None:
    """The first walk that finds a planted bug."""
    walker = planted(choice)
    return next((found for _ in range(walks) if (found := walker.walk(False))), None)


def walk_correct(steps: int, tell: Callable = lambda *_: None) -> list[tuple[dict, Found]]:
    """That many steps through the correct model; what was found (nothing, that is)."""
    found = []
    for choice in CORRECT:
        walker = Walker(**choice)
        while walker.steps < steps // len(CORRECT):
            if problem := walker.walk(with_faults=walker.walks % 2 == 1):
                found.append((choice, problem))
                break
        tell(choice, walker)
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=1_000_000)
    steps = options.parse_args().steps
    began = time.perf_counter()

    def tell(choice, walker):
        print(
            f"{choice}: {walker.steps:,} steps, {walker.walks:,} walks, {walker.faults:,} faults, "
            f"{len(walker.sound):,} worlds"
        )

    found = walk_correct(steps, tell)
    for choice, problem in found:
        print(f"BROKEN {choice}: {problem}")
    missed = 0
    for name, choice in PLANTED.items():
        caught = catch(choice)
        missed += caught is None
        print(f"{'caught' if caught else 'MISSED'}  {name}: {caught}")
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if found or missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Fan-in as one would write it with SimPy for one's own use: the baseline of fan_in.py.

The same work as the scenario ``fan_in``: 64 senders think, take a ticket, copy a message into a
ring of 64 slots and interrupt the receiver when it asks for that; the receiver takes the
interrupt, polls with a budget, asks for interrupts again, looks once more, and calls back.
The same delays, from the same machine, and the same random thinking times.

It is idiomatic and reasonably quick SimPy: one process for each actor, a Store for the ring, a
Store for the interrupt line, plain variables for the rest. It leaves out what nobody would write
without a trace to fill: what is in which slot, who waits for whom, a state that can be shown or
rewound. A message is visible when ``put`` is done, so there is no head-of-line wait either.
"""

import random
from typing import NamedTuple

import simpy


class Costs(NamedTuple):
    """All delays in ns; those of a pair of kernels by the number of the sender."""

    ticket: dict[int, int]
    copy: dict[int, int]
    read: dict[int, int]
    icr: int
    wire: int
    isr: int
    softirq: int
    poll_exit: int
    look: int
    dispatch: int


class Message(NamedTuple):
    sender: int
    number: int
    type: int
    priority: int
    payload: int


class Outcome(NamedTuple):
    delivered: int
    end_ns: int
    ipis: int


HIGH, NORMAL = 0, 1
TEST = 0


def fan_in(costs: Costs, messages: int, gap_ns: int, slots=64, budget=128, seed=0) -> Outcome:
    env = simpy.Environment()
    ring = simpy.Store(env, capacity=slots)
    interrupts = simpy.Store(env)
    enabled, ipis, delivered = True, 0, 0

    def sender(me):
        nonlocal ipis
        draw = random.Random(f"fan_in {seed} kernel {me}").randrange
        for number in range(messages):
            yield env.timeout(draw(2 * gap_ns + 1))
            yield env.timeout(costs.ticket[me])
            yield env.timeout(costs.copy[me])
            yield ring.put(Message(me, number, TEST, NORMAL, number))
            if enabled:
                yield env.timeout(costs.icr)
                ipis += 1
                env.process(wire(me))

    def wire(src):
        yield env.timeout(costs.wire)
        yield interrupts.put(src)

    def count(message):
        nonlocal delivered
        delivered += 1

    callbacks = {TEST: count}

    def receiver():
        nonlocal enabled
        lists = {HIGH: [], NORMAL: []}
        while True:
            yield interrupts.get()
            yield env.timeout(costs.isr)
            enabled = False
            yield env.timeout(costs.softirq)
            while True:
                read = 0
                while read < budget and ring.items:
                    message = yield ring.get()
                    yield env.timeout(costs.read[message.sender])
                    lists[message.priority].append(message)
                    read += 1
                if read == budget:
                    continue
                yield env.timeout(costs.poll_exit + costs.look)
                enabled = True
                yield env.timeout(costs.look)
                if not ring.items:
                    break
                enabled = False
            for waiting in lists.values():
                for message in waiting:
                    yield env.timeout(costs.dispatch)
                    callbacks[message.type](message)
                waiting.clear()

    for me in costs.ticket:
        env.process(sender(me))
    env.process(receiver())
    env.run()
    return Outcome(delivered, env.now, ipis)

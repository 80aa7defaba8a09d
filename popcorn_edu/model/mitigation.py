"""How a kernel learns of its messages: five policies, told as stories, side by side.

An interrupt costs a few microseconds of the receiver and says nothing that the ring does not say.
Polling costs nothing per message and everything while there is none. What lies between is called
mitigation: be interrupted by the first message, and look for the next ones.

    Interrupt only   int_enabled stays 1: every message interrupts
    Poll only        int_enabled stays 0: look every so often, whether there is something or not
    Popcorn          interrupt, then poll until the ring is empty; no second look (G1 as coded)
    NAPI             the same with the second look: the kit's default
    Adaptive         NAPI, but before it asks for interrupts again it waits for a while; the while
                     doubles if a message came in it, and halves if none came

A policy is two settings (``SIDE_BY_SIDE``), so that any scenario takes it. A policy of your own is
a story, ``fan_in(receive=mine)``: it is called each time the softirq runs.

The adaptive policy is the model's own, after the adaptive interrupt coalescing of network cards
(Linux, ``ethtool -C``, adaptive-rx); Popcorn has none. Its two limits are model defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from popcorn_edu.engine.steps import Delay, Fence, Until
from popcorn_edu.engine.trace import Event
from popcorn_edu.engine.world import Part
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import BudgetSpent, Setup, deliver, look_again, poll
from popcorn_edu.model.rings import InterruptsDisabled, InterruptsEnabled, SlotReady, is_empty

LINGER_LEAST_NS = 500  # model default: about one line transfer and a look
LINGER_MOST_NS = 16_000  # model default: 32 times as much, about five cold messages

SIDE_BY_SIDE: dict[str, dict] = {
    "Interrupt only": {"mitigation": "interrupt only"},
    "Poll only": {"mitigation": "poll only"},
    "Popcorn": {"mitigation": "poll until empty", "look_again": False},
    "NAPI": {"mitigation": "poll until empty", "look_again": True},
    "Adaptive": {"mitigation": "adaptive"},
}


class PollingStarted(Event):
    """This kernel asks for no interrupts, ever. One of its CPUs does nothing but look into the
    ring: no message waits for an interrupt, and no other work gets that CPU."""

    says = "kernel {kernel} looks into its ring every {every_ns} ns from now on"
    popcorn = "not in Popcorn (G1 polls only after an interrupt); DPDK's poll-mode drivers"
    kernel: int
    every_ns: int


class LingerChosen(Event):
    """How long this kernel will look at its empty ring before it asks for interrupts again:
    longer if that was worth it the last time, shorter if it was not."""

    says = "kernel {kernel} will linger for {ns} ns at an empty ring"
    popcorn = "not in Popcorn; like adaptive interrupt coalescing of network cards"
    kernel: int
    ns: int


class Mitigation(Part):
    """linger   [kernel] -> ns, of the adaptive policy"""

    tables = ("linger",)
    private = ("linger",)

    def linger_chosen(self, event: LingerChosen) -> None:
        self.linger[event.kernel] = event.ns

    applies = {LingerChosen: linger_chosen}


def receive_and_stay_enabled(world, me: int) -> Generator:
    """Interrupt only: read what is there and hand it over. Whoever comes later interrupts."""
    while (yield from poll(world, me, world.setup.budget)) == world.setup.budget:
        yield BudgetSpent(me, world.setup.budget)
    yield from deliver(world, me)


def receive_and_linger(world, me: int) -> Generator:
    """Adaptive: as NAPI does, but wait for a while before asking for interrupts again."""
    while True:
        setup = world.setup
        if (yield from poll(world, me, setup.budget)) == setup.budget:
            yield BudgetSpent(me, setup.budget)
            continue
        yield from deliver(world, me)  # nothing to be handed over shall wait as well
        linger_ns = world.mitigation.linger.get(me, LINGER_LEAST_NS)
        if not is_empty(world, me):
            continue
        if (yield Until(SlotReady, ring=me, within=linger_ns)):
            yield LingerChosen(me, min(2 * linger_ns, LINGER_MOST_NS))
            continue
        yield LingerChosen(me, max(linger_ns // 2, LINGER_LEAST_NS))
        yield setup.costs.poll_exit[me]
        yield setup.costs.look(me)
        yield InterruptsEnabled(me)
        yield Fence()
        if not (yield from look_again(world, me)):
            return
        yield InterruptsDisabled(me)


def poller(world, me: int) -> Generator:
    """Poll only: a process that looks every ``poll_every_ns``, in the softirq's place.

    The looks that find nothing are left out: they change nothing and would never end. What they
    cost is the whole CPU, and the measures count it so. After a message came the next look is
    half a period away on average (model default), which is when the model looks.
    """
    yield PollingStarted(me, world.setup.poll_every_ns)
    yield InterruptsDisabled(me)
    while True:
        if is_empty(world, me):
            yield Until(SlotReady, ring=me)
            yield Delay(world.setup.poll_every_ns // 2)
        if (yield from poll(world, me, world.setup.budget)) == world.setup.budget:
            yield BudgetSpent(me, world.setup.budget)
        yield from deliver(world, me)


def batches_of(budget: int) -> Callable:
    """A receiver that hands over after ``budget`` messages; its softirq is then raised anew, as
    Linux's network stack does it, so that others may run in between."""

    def receive(world, me):
        while True:
            read = yield from poll(world, me, budget)
            yield from deliver(world, me)
            if read == budget:
                yield BudgetSpent(me, read)
                yield world.setup.costs.softirq[me]
                continue
            yield world.setup.costs.poll_exit[me]
            yield world.setup.costs.look(me)
            yield InterruptsEnabled(me)
            yield Fence()
            if not (yield from look_again(world, me)):
                return
            yield InterruptsDisabled(me)

    return receive


RECEIVE: dict[str, Callable] = {
    "poll until empty": messaging.receive,
    "interrupt only": receive_and_stay_enabled,
    "adaptive": receive_and_linger,
}


def halves(
    setup: Setup, me: int, receive: Callable | None = None
) -> list[tuple[str, Callable[..., Generator]]]:
    """Who receives in kernel ``me``: the names of the actors, and their stories."""
    if receive is None and setup.mitigation == "poll only":
        return [(f"kernel {me} poller", lambda world: poller(world, me))]
    policy = receive or RECEIVE.get(setup.mitigation, messaging.receive)
    return [
        (f"kernel {me} isr", lambda world: messaging.isr(world, me)),
        (f"kernel {me} softirq", lambda world: messaging.softirq(world, me, policy)),
    ]

"""In which order messages are handed over: what can happen, and a rule that says what must not.

Two tasks of Lab 05. In the first, runs with every pause that matters say which orders exist. In
the second the student writes the rule as a function of plain deliveries, and it is let loose on
lists with and without a planted bug; the check that judges runs says where each one breaks.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.sim import Sim
from popcorn_edu.engine.steps import Delay, Until
from popcorn_edu.engine.trace import Trace
from popcorn_edu.grading.answers import OPEN, unfit
from popcorn_edu.grading.guard import StudentCodeError, call
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import MessageDelivered
from popcorn_edu.model.rings import MessageType, Priority, SlotReady
from popcorn_edu.readers import checks

# -- which orders are possible ---------------------------------------------------------------------

PAUSES_NS = (0, 400, 9_000, 18_000)  # none; enough to be overtaken; one batch long; two


@cache
def possible_orders() -> frozenset[tuple[str, ...]]:
    """Every order in which the four messages are handed over, over all pauses that matter."""
    setup = scenarios.make_setup(
        "magny-cours-48", 3, handlers={MessageType.TEST: lambda world, me, message: iter(())}
    )
    found = set()
    for second in PAUSES_NS:
        for third in PAUSES_NS:
            for other in PAUSES_NS:
                found.add(order_of(setup, second, third, other))
    return frozenset(found)


def order_of(setup, second: int, third: int, other: int) -> tuple[str, ...]:
    """Kernel 1 sends A1, A2 and A3; kernel 2 calls send for B1 once A2 is in the ring."""

    def kernel_1(world, me):
        for pause, priority in ((0, "NORMAL"), (second, "NORMAL"), (third, "HIGH")):
            yield Delay(pause)
            yield from messaging.send(world, me, 0, priority=Priority[priority])

    def kernel_2(world, me):
        yield Until(SlotReady, sender=1, ticket=1)
        yield Delay(other)
        yield from messaging.send(world, me, 0, priority=Priority.HIGH)

    sim = Sim(scenarios.new_world(setup))
    sim.begin("machine", scenarios.everybody_registered, 3)
    sim.begin("kernel 0 isr", messaging.isr, 0)
    sim.begin("kernel 0 softirq", messaging.softirq, 0, messaging.receive)
    sim.begin("kernel 1", kernel_1, 1)
    sim.begin("kernel 2", kernel_2, 2)
    handed_over = sim.run().records(MessageDelivered)
    return tuple(f"{' AB'[r.event.sender]}{r.event.number + 1}" for r in handed_over)


# What each order is about. Which six are shown is drawn; whether one is possible, the runs say.
IN_ORDER = ("A1 A2 A3 B1", "A1 A2 B1 A3")
ONE_SENDER = ("A2 A1 A3 B1", "A3 A2 A1 B1", "B1 A2 A1 A3", "A2 B1 A1 A3")
OVERTAKING = ("A3 A1 A2 B1", "A1 A3 A2 B1", "A3 B1 A1 A2")
SPLIT_BATCH = ("A3 A1 B1 A2", "B1 A1 A3 A2")
TWO_SENDERS = ("B1 A1 A2 A3", "A1 B1 A2 A3", "B1 A3 A1 A2", "A1 B1 A3 A2")


@cache
def six_orders(variant: Variant) -> dict[str, tuple[str, str]]:
    """Letter: (what this order is about, the order)."""
    rng = variant.rng("a4")
    drawn = [
        ("one sender", rng.choice(IN_ORDER)),
        *(("one sender", order) for order in rng.sample(ONE_SENDER, 2)),
        ("priority", rng.choice(OVERTAKING)),
        ("priority", rng.choice(SPLIT_BATCH)),
        ("two senders", rng.choice(TWO_SENDERS)),
    ]
    rng.shuffle(drawn)
    return dict(zip("abcdef", drawn, strict=True))


def orders_table(variant: Variant) -> Table:
    rows = [(letter, order) for letter, (_, order) in six_orders(variant).items()]
    return Table("Can they be handed over in this order?", ["", "first ... last"], rows)


def orders_about(what: str, why: str, tag: str = ""):
    def holds(answer, variant):
        mine = {letter: o for letter, (about, o) in six_orders(variant).items() if about == what}
        given = {letter: answer.get(letter) for letter in mine}
        slips = unfit(answer, mine)
        if not slips and all(value is None for value in given.values()):
            return OPEN
        truth = {letter: tuple(o.split()) in possible_orders() for letter, o in mine.items()}
        wrong = [letter for letter in mine if given[letter] is not truth[letter]]
        if wrong:
            share = 1 - 2 * len(wrong) / len(mine)  # wrong ones cost what right ones earn
            said, again = list(slips.values()), [letter for letter in wrong if letter not in slips]
            if again:
                said.append(f"Think again about {', '.join(again)}. {why}")
            return Miss(" ".join(said), tag if again else "", share)

    return holds


# -- the order as an invariant ---------------------------------------------------------------------


class Hunted(NamedTuple):
    """One list of deliveries, where it breaks the rule, and what the student's function says."""

    delivered: list[dict]
    broken: int | None
    said: object


def deliveries(rng) -> list[dict]:
    run = scenarios.fan_in(
        kernels=4, messages=6, gap_ns=300, high_every=3, seed=rng.randrange(10_000)
    )
    return [
        {"sender": e.sender, "number": e.number, "priority": e.priority.name}
        for e in (record.event for record in run.trace.records(MessageDelivered))
    ]


def swapped(rng, delivered):
    """Two neighbours of one sender and priority change places."""
    first, second = rng.choice(neighbours(delivered))
    delivered[first], delivered[second] = delivered[second], delivered[first]


def repeated(rng, delivered):
    """A message is handed over once more, later."""
    place = rng.randrange(len(delivered) // 2)
    delivered.insert(rng.randrange(place + 1, len(delivered)), delivered[place])


def belated(rng, delivered):
    """A message comes after the next one of its sender and priority, and after all others."""
    first, _ = rng.choice(neighbours(delivered))
    delivered.append(delivered.pop(first))


def missing(rng, delivered):
    """A message is left out. That is a loss, but no wrong order."""
    del delivered[rng.randrange(len(delivered))]


def untouched(rng, delivered):
    """As the run had it."""


def neighbours(delivered: list[dict]) -> list[tuple[int, int]]:
    """The places of each two messages in a row of one sender and priority."""
    last, pairs = {}, []
    for here, message in enumerate(delivered):
        kind = message["sender"], message["priority"]
        if kind in last:
            pairs.append((last[kind], here))
        last[kind] = here
    return pairs


PLANTS = (swapped, repeated, belated, untouched, missing)


def first_break(delivered: list[dict]) -> int | None:
    """Where the rule breaks, by the check that judges runs."""
    trace = Trace()
    for m in delivered:
        event = MessageDelivered(
            0, m["sender"], m["number"], MessageType.TEST, Priority[m["priority"]], 0
        )
        trace.append(0, "kernel 0 softirq", None, event)
    finding = checks.fifo_per_sender(trace)
    return finding and finding.seq


class Hunt:
    """A student's invariant, let loose on lists of deliveries with and without a planted bug."""

    ROUNDS = {"public": 2, "fresh": 4}

    def __init__(self, function, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[str, list[Hunted]] = {}
        self.of("public")  # what is wrong with the function itself is told at once

    def of(self, name: str) -> list[Hunted]:
        if name not in self._done:
            rng = self.variant.rng(f"hunt {name}")
            self._done[name] = [
                self._hunted(plant, rng) for _ in range(self.ROUNDS[name]) for plant in PLANTS
            ]
        return self._done[name]

    def _hunted(self, plant, rng) -> Hunted:
        delivered = deliveries(rng)
        plant(rng, delivered)
        said = call(self.function, delivered)
        if said is not None and type(said) is not int:
            raise StudentCodeError(
                f"{self.function.__name__} returned {said!r:.40}; expected None, or the place of "
                "the first delivery that breaks the order: a whole number"
            )
        return Hunted(delivered, first_break(delivered), said)


def catches(which: str, exactly: bool):
    """Share of bugs caught minus share of false alarms; ``exactly``: at the right place."""

    def holds(hunt, variant):
        hunted = hunt.of(which)
        bugs = [h for h in hunted if h.broken is not None]
        alarms = [h for h in hunted if h.broken is None and h.said is not None]
        caught = [h for h in bugs if h.said is not None and (not exactly or h.said == h.broken)]
        if len(caught) == len(bugs) and not alarms:
            return None
        share = len(caught) / len(bugs) - len(alarms) / (len(hunted) - len(bugs))
        how = "named exactly" if exactly else "caught"
        said = f"{len(caught)} of {len(bugs)} {how}, {len(alarms)} false alarms"
        if which == "fresh":
            return Miss(f"{said}.", share=share)
        return false_alarm(alarms[0], said, share) if alarms else let_through(bugs, said, share)

    return holds


def false_alarm(hunted: Hunted, said: str, share: float) -> Miss:
    place = min(max(hunted.said, 0), len(hunted.delivered) - 1)
    here = hunted.delivered[place]
    earlier = [m for m in hunted.delivered[:place] if m["sender"] == here["sender"]]
    overtaken = any(m["number"] > here["number"] for m in earlier)
    why = (
        "it was overtaken by a HIGH message, which is allowed"
        if overtaken
        else "its sender's messages keep their order; the others are other senders', or are missing"
    )
    return Miss(
        f"{said}. A false alarm at place {hunted.said}, {here}: {why}.",
        "" if overtaken else "M7",
        share,
    )


def let_through(bugs: list[Hunted], said: str, share: float) -> Miss:
    hunted = next(h for h in bugs if h.said != h.broken)
    here = hunted.delivered[hunted.broken]
    kind = here["sender"], here["priority"]
    before = [
        m["number"]
        for m in hunted.delivered[: hunted.broken]
        if (m["sender"], m["priority"]) == kind
    ]
    found = "let through" if hunted.said is None else f"placed at {hunted.said}"
    return Miss(
        f"{said}. One was {found}: kernel {kind[0]}'s {kind[1]} messages come as {before} and "
        f"then, at place {hunted.broken}, {here['number']}.",
        share=share,
    )

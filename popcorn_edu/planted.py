"""Runs with a textbook mistake in them, and a score for whoever writes a rule to find it.

    >>> def nothing_is_lost(run):                                            # doctest: +SKIP
    ...     sent, read = run.trace.kinds()["SlotReady"], run.trace.kinds()["MessageRead"]
    ...     return None if sent == read else "something is lost"
    >>> score(nothing_is_lost, rule="every_message_is_read")                 # doctest: +SKIP

A rule is worth what it catches, less what it accuses wrongly. So it is let loose on runs of
stories that each carry one mistake, and on sound runs of many sizes; the kit's own checks say which
is which. (A mistake that needs an unlucky order is shown in the first seed in which it bites.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import Delay, Until
from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.engine.world import Run
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import IpiSent, MessageDelivered, poll, send_ipi, wait_for_space
from popcorn_edu.model.rings import (
    HeadOfLineWait,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    MessageType,
    PayloadCopied,
    Priority,
    SenderBlocked,
    SlotReady,
    TicketTaken,
    must_wait,
)
from popcorn_edu.readers import checks, figures

TEST, NORMAL = MessageType.TEST, Priority.NORMAL
SEEDS = range(300)
SOUND_RUNS = 60
INSTRUCTION = Delay(40)  # long enough for somebody else to come between
PREPARATION = Delay(400)


# -- stories with the textbook mistake in them, one each ------------------------------------------


def send_with(
    *,
    atomic=True,
    waits=True,
    ready_last=True,
    marks_ready=True,
    looks_early=False,
    interrupts=None,
):
    """The kit's own send, or one that makes a mistake."""

    def send(world, me, to, type=TEST, priority=NORMAL, payload=0):
        rings, setup = world.rings, world.setup
        take_ticket, copy, _ = setup.costs.pair(me, to)
        wanted = rings.int_enabled[to]
        if looks_early:
            yield PREPARATION
        if atomic:
            yield take_ticket
        ticket, number = rings.head[to], world.messaging.sent[me]
        if not atomic:
            yield take_ticket
        yield TicketTaken(to, ticket, me, number)
        if waits and must_wait(world, to, ticket):
            yield SenderBlocked(to, ticket, me, rings.tail[to])
            yield from wait_for_space(world, to, ticket)
        slot = ticket % setup.slots
        message = PayloadCopied(to, slot, ticket, me, number, type, priority, payload)
        if ready_last:
            yield copy
            yield message
            yield INSTRUCTION
        if marks_ready:
            yield SlotReady(to, slot, ticket, me)
        if not ready_last:
            yield copy
            yield message
        if not looks_early:
            wanted = rings.int_enabled[to]
        if wanted if interrupts is None else interrupts:
            yield from send_ipi(world, me, to)

    return send


def look(world, me):
    """Ask for interrupts again, and whether that was too early."""
    yield world.setup.costs.poll_exit[me]
    yield world.setup.costs.look(me)
    yield InterruptsEnabled(me)
    yield world.setup.costs.look(me)
    return world.rings.head[me] != world.rings.tail[me]


def receive_with(*, read=poll, enables=True, looks=True, delivers=messaging.deliver):
    """The kit's own receive, or one that makes a mistake."""

    def receive(world, me):
        while True:
            count = yield from read(world, me, world.setup.budget)
            if count == world.setup.budget:
                continue
            if not enables or not (yield from look(world, me)) or not looks:
                break
            yield InterruptsDisabled(me)
        yield from delivers(world, me)

    return receive


def read_before_ready(world, me, budget):
    """Takes what is in the slot, whatever its flag says."""
    rings, read = world.rings, 0
    while rings.head[me] != rings.tail[me] and read < budget:
        slot = rings.tail[me] % world.setup.slots
        if (me, slot) not in rings.slots:
            yield Until(PayloadCopied, ring=me, slot=slot)
        yield MessageRead(*rings.slots[me, slot])
        read += 1
    return read


def read_only_one(world, me, budget):
    """Thinks that one interrupt is one message."""
    return (yield from poll(world, me, 1)) - 1


def read_without_tail(world, me, budget):
    """Forgets that a ticket tells who is next, and takes any slot that is ready."""
    rings, read = world.rings, 0
    for ring, slot in sorted(rings.ready, reverse=True):
        if ring == me and read < budget:
            yield MessageRead(*rings.slots[me, slot])
            read += 1
    return read


def waiting(world, me, priorities=Priority):
    mine = world.messaging
    return [
        mine.queue[me, priority, place]
        for priority in priorities
        for place in range(mine.served[me, priority], mine.queued[me, priority])
    ]


def hand_over(me, message, **changes):
    _, _, _, sender, number, type, priority, payload = message
    payload = changes.get("payload", payload)
    return MessageDelivered(me, sender, number, type, priority, payload)


def deliver_nothing(world, me):
    """The messages are read; is that not enough?"""
    return
    yield


def deliver_last_first(world, me):
    """A list used as a stack."""
    for priority in Priority:
        for message in reversed(waiting(world, me, [priority])):
            yield hand_over(me, message)


def deliver_as_read(world, me):
    """One queue for all: priorities are ignored."""
    for message in sorted(waiting(world, me), key=lambda message: message.ticket):
        yield hand_over(me, message)


def deliver_changed(world, me):
    """Hands over a pointer into a slot that was used again."""
    for message in waiting(world, me):
        yield hand_over(me, message, payload=message.payload + 1)


def deliver_one(world, me):
    """Forgets the others."""
    for message in waiting(world, me)[:1]:
        yield hand_over(me, message)


CROWDED = {"kernels": 5, "messages": 6, "gap_ns": 300, "slots": 2}
CALM = {"kernels": 4, "messages": 6, "gap_ns": 4000}
RACY = {"kernels": 3, "messages": 3, "gap_ns": 1000}
MIXED = CALM | {"high_every": 2}


class Mistake(NamedTuple):
    """What is planted: the stories that carry it, the scenario that gives it a chance, the check
    that finds it, and the kind of record that the finding names (None: it depends)."""

    stories: dict[str, Callable]
    options: dict
    check: str
    kind: type | None


MISTAKES: dict[str, Mistake] = {
    what: Mistake(*planted)
    for what, planted in {
    "reads head, then adds to it": (
        {"send": send_with(atomic=False)}, CROWDED, "tickets_are_unique", TicketTaken),
    "does not wait when the ring is full": (
        {"send": send_with(waits=False)}, CROWDED, "no_slot_is_used_twice", PayloadCopied),
    "marks ready before the payload is there": (
        {"send": send_with(ready_last=False)}, CALM, "ready_comes_last", SlotReady),
    "forgets the ready flag": (
        {"send": send_with(marks_ready=False)}, CALM, "no_deadlock", HeadOfLineWait),
    "sends an interrupt for each message": (
        {"send": send_with(interrupts=True)}, CALM, "no_needless_interrupts", IpiSent),
    "never sends an interrupt": (
        {"send": send_with(interrupts=False)}, CALM, "every_message_is_read", SlotReady),
    "never sends an interrupt, so nobody wakes": (
        {"send": send_with(interrupts=False)}, CALM, "no_lost_wakeup", SlotReady),
    "looks at int_enabled before it sends": (
        {"send": send_with(looks_early=True)}, RACY, "no_lost_wakeup", None),
    "reads a slot that is not ready": (
        {"receive": receive_with(read=read_before_ready), "send": send_with()}, CALM,
        "ready_comes_last", MessageRead),
    "reads one message for each interrupt": (
        {"receive": receive_with(read=read_only_one, looks=False)}, CALM,
        "every_message_is_read", SlotReady),
    "reads any slot that is ready": (
        {"receive": receive_with(read=read_without_tail)}, CROWDED | {"slots": 64, "gap_ns": 50},
        "fifo_per_sender", MessageDelivered),
    "never asks for interrupts again": (
        {"receive": receive_with(enables=False)}, CALM, "every_message_is_read", SlotReady),
    "never asks for interrupts again, so it sleeps on": (
        {"receive": receive_with(enables=False)}, CALM, "no_lost_wakeup", None),
    "does not look again": (
        {"receive": receive_with(looks=False)}, RACY, "no_lost_wakeup", None),
    "does not look again, so a message is left": (
        {"receive": receive_with(looks=False)}, CALM, "every_message_is_read", SlotReady),
    "forgets to hand the messages over": (
        {"receive": receive_with(delivers=deliver_nothing)}, CALM,
        "every_read_message_is_handled", MessageRead),
    "hands only one message over": (
        {"receive": receive_with(delivers=deliver_one)}, CALM,
        "every_read_message_is_handled", MessageRead),
    "hands over something else": (
        {"receive": receive_with(delivers=deliver_changed)}, CALM,
        "every_read_message_is_handled", MessageDelivered),
    "hands over the last message first": (
        {"receive": receive_with(delivers=deliver_last_first)}, CALM, "fifo_per_sender",
        MessageDelivered),
    "ignores priorities": (
        {"receive": receive_with(delivers=deliver_as_read)}, MIXED, "high_before_normal",
        MessageDelivered),
    "waits for the whole ring": (
        {}, CROWDED | {"full_rule": "whole ring"}, "no_deadlock", None),
    }.items()
}  # fmt: skip


def found_by(what: str) -> Run:
    """The run of the first seed in which the mistake's own check finds it."""
    mistake = MISTAKES[what]
    for seed in SEEDS:
        run = scenarios.fan_in(seed=seed, **mistake.options, **mistake.stories)
        if checks.ALL[mistake.check](run):
            return run
    raise PopcornError(f"{mistake.check} finds {what!r} in none of {len(SEEDS)} runs")


@cache
def planted_runs() -> dict[str, Run]:
    """One run for each mistake."""
    return {what: found_by(what) for what in MISTAKES}


def cases(count: int) -> list[dict]:
    """Parameters of fan-in runs, drawn once and for all: small rings, small budgets, bursts."""
    draw = random.Random("the right stories")
    return [
        {
            "kernels": draw.randint(2, 7),
            "messages": draw.randint(0, 12),
            "slots": draw.choice([1, 2, 3, 8, 64]),
            "budget": draw.choice([1, 2, 5, 128]),
            "gap_ns": draw.choice([0, 60, 400, 2000, 9000]),
            "high_every": draw.choice([0, 1, 2, 3]),
            "seed": n,
            "schedule_seed": draw.choice([None, n]),
        }
        for n in range(count)
    ]


@cache
def sound_runs() -> dict[str, Run]:
    """Runs in which nothing is wrong, by what they are."""
    runs = {}
    for case in cases(SOUND_RUNS):
        told = ", ".join(f"{name}={value}" for name, value in case.items() if value is not None)
        runs[f"fan_in({told})"] = scenarios.fan_in(**case)
    return runs


class Verdict(NamedTuple):
    """What a rule says of one run, and what is so."""

    what: str  # the mistake, or the sound run's call
    run: Run
    broken: bool
    said: object

    @property
    def right(self) -> bool:
        return self.broken == (self.said is not None and self.said is not False)


class Score(tuple[Verdict, ...]):
    """What a rule is worth: bugs caught minus false alarms, each as a share."""

    @property
    def bugs(self) -> list[Verdict]:
        return [v for v in self if v.broken]

    @property
    def missed(self) -> list[Verdict]:
        """The broken runs that the rule let through; ``missed[0].run.play()`` shows the first."""
        return [v for v in self.bugs if not v.right]

    @property
    def false_alarms(self) -> list[Verdict]:
        """The sound runs that the rule accused."""
        return [v for v in self if not v.broken and not v.right]

    @property
    def points(self) -> float:
        """From 0 to 1."""
        sound = len(self) - len(self.bugs)
        caught = 1 - len(self.missed) / max(len(self.bugs), 1)
        return round(max(0.0, caught - len(self.false_alarms) / max(sound, 1)), 3)

    def __str__(self) -> str:
        bugs, sound = len(self.bugs), len(self) - len(self.bugs)
        lines = [
            f"{bugs - len(self.missed)} of {bugs} bugs caught, {len(self.false_alarms)} false "
            f"alarms in {sound} sound runs: {self.points:.2f} of 1"
        ]
        if self.false_alarms:
            first = self.false_alarms[0]
            lines.append(f"first false alarm: {first.what}: it says {first.said!r:.80}")
        if self.missed:
            lines.append(f"first bug let through: one that {self.missed[0].what}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (v.what, "broken" if v.broken else "sound", "says so" if v.said else "says nothing",
             "right" if v.right else "WRONG")
            for v in self
        ]  # fmt: skip
        return figures.table_html(("run", "it is", "the rule", "so it is"), rows)


def score(check: Callable[[Run], object], rule: str | None = None) -> Score:
    """Let a rule of your own loose on runs with and without a planted mistake.

    check   a function of a run: None (or False) if nothing is wrong, anything else if something is
    rule    which of checks.ALL it is meant to be: only runs that break that one are bugs then, and
            all others are sound. None: any rule at all
    """
    if not callable(check):
        raise PopcornError(f"score() wants a function of a run, not {check!r:.60}")
    if rule is not None and rule not in checks.ALL:
        raise PopcornError(f"rule={rule!r}: {near_names(str(rule), checks.ALL)}")
    judge = checks.ALL[rule] if rule else checks.all
    verdicts = []
    for what, run in (planted_runs() | sound_runs()).items():
        try:
            said = check(run)
        except Exception as error:
            raise PopcornError(
                f"your rule breaks down over the run {what!r}: {type(error).__name__}: {error}"
            ) from error
        verdicts.append(Verdict(what, run, bool(judge(run)), said))
    return Score(verdicts)

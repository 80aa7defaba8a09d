"""A learner's own story, tried in many runs and judged by the checks on runs.

One run proves little about a protocol: most mistakes need an unlucky schedule. So a story is put
into the same scenario again and again, with other seeds, small rings, other machines and shuffled
schedules. A rule holds if it holds in all of them. If not, the learner reads the call that makes
the first run that breaks it, and the record that does. If the story makes a step and forgets to
yield it, that comes first (see forgotten.py).

    tried = Trials("receive", receive, variant)       # tells the learner's story in public runs
    tried.first_broken("public", checks.every_message_is_read)    # None, or a Miss

Words
    seam     the argument of the scenario that takes the story: "send" or "receive"
    public   the runs a student sees while working
    fresh    those made when the lab is graded: the same shapes, other seeds and machines
    held     public runs in which one sender is held up between its message and its ready flag
    between  runs in which a message comes between the receiver's last look into its ring and
             its int_enabled = 1: where a wake-up is lost if nobody looks again
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import StoryError
from popcorn_edu.engine.trace import PopcornError, StoryStopped
from popcorn_edu.grading.forgotten import forgotten_yield
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model.messaging import IpiSent, MessageDelivered, MessageDropped
from popcorn_edu.model.rings import (
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    PayloadCopied,
    RingSeenEmpty,
    SlotReady,
    TicketTaken,
)
from popcorn_edu.readers import checks
from popcorn_edu.readers.checks import Finding

SHAPES = (  # what each run is to bring about
    {"kernels": 3, "messages": 3},  # little to do: the receiver sleeps between messages
    {"kernels": 4, "messages": 5, "slots": 2, "gap_ns": 200},  # the ring is full most of the time
    {"kernels": 3, "messages": 6, "gap_ns": 300, "high_every": 3},  # HIGH and NORMAL together
    {"kernels": 4, "messages": 3, "slots": 3, "gap_ns": 0},  # many things at one time
)
PUBLIC_RUNS = 20
FRESH_RUNS = 32
FRESH_MACHINES = ("westmere-24", "opteron-6272-64")  # besides the 48-core default

LEAVE_POLL_NS = 300  # model default, rounded: leaving the poll loop and writing int_enabled
BETWEEN_RUNS = 3
BETWEEN_SHAPE = {"kernels": 2, "cpus": (0, 1)}  # two neighbours: a short way, so a quick sender
SEEDS_TRIED = 5_000
HELD_UP_NS = 3_000  # longer than a receiver takes to come to the slot: our choice


class Trial(NamedTuple):
    call: str  # what the learner types to see this run
    run: object
    options: dict

    @property
    def trace(self):
        return self.run.trace


class Trials:
    """The runs of one story, made when they are asked for."""

    def __init__(self, seam: str, story: Callable, variant: Variant) -> None:
        self.seam, self.story, self.variant = seam, story, variant
        self._made: dict[str, list[Trial]] = {}
        self._slip = forgotten_yield(story)
        marked = MessageRead if seam == "receive" else SlotReady
        if not any(next(t.run.trace.records(marked, ring=0), None) for t in self.runs("public")):
            nothing = "reads a message" if seam == "receive" else "marks a message ready"
            said = f"{self.runs('public')[0].call}: nobody ever {nothing}."
            raise PopcornError(self._slip_first(said))

    def runs(self, name: str) -> list[Trial]:
        if name not in self._made:
            options = {"public": self._public, "fresh": self._fresh, "between": self._between}
            self._made[name] = (
                [held(trial) for trial in self.runs("public")[: len(SHAPES)]]
                if name == "held"
                else [self.trial(**choice) for choice in options[name]()]
            )
        return self._made[name]

    def trial(self, **options) -> Trial:
        """The story in one run; what is wrong with the story itself comes with the call."""
        said = [f"{self.seam}={self.story.__name__}", *(f"{k}={v!r}" for k, v in options.items())]
        call = f"pk.scenarios.fan_in({', '.join(said)})"
        try:
            run = scenarios.fan_in(**{self.seam: self.story}, **options)
        except PopcornError as problem:
            raise StoryError(self._slip_first(f"{call}: {problem}")) from None
        return Trial(call, run, options)

    def _slip_first(self, sentence: str) -> str:
        """Before the first thing that went wrong, the forgotten yield that may be behind it."""
        slip, self._slip = self._slip, ""
        return f"{slip[0].upper()}{slip[1:]} {sentence}" if slip else sentence

    def first_broken(self, name: str, *checks: Callable) -> Miss | None:
        """The first of these runs that breaks one of the rules, as the learner reads it."""
        for trial in self.runs(name):
            for check in checks:
                if finding := check(trial):
                    miss = told(trial, finding)
                    return miss._replace(sentence=self._slip_first(miss.sentence))

    def _public(self) -> Iterator[dict]:
        return self._drawn(self.variant.rng("trials"), PUBLIC_RUNS)

    def _fresh(self) -> Iterator[dict]:
        rng = self.variant.rng("fresh trials")
        for n, options in enumerate(self._drawn(rng, FRESH_RUNS)):
            machines = (None, *FRESH_MACHINES)
            machine = machines[n // len(SHAPES) % len(machines)]
            yield options | ({"machine": machine} if machine else {})

    @staticmethod
    def _drawn(rng, runs: int) -> Iterator[dict]:
        for n in range(runs):
            shape = SHAPES[n % len(SHAPES)]
            seeds = {"seed": rng.randrange(1_000)}
            if shape.get("gap_ns") == 0 or n % 3 == 2:
                seeds["schedule_seed"] = rng.randrange(1_000)
            yield shape | seeds

    def _between(self) -> Iterator[dict]:
        """Aim the second message at the gap: one run shows when the gap is, the seed is chosen."""
        trace = self.trial(**BETWEEN_SHAPE, messages=1).run.trace
        empty = trace.next(RingSeenEmpty)
        enabled = empty and trace.next(InterruptsEnabled, after=empty.seq)
        sent = trace.next(IpiSent)
        if not enabled or not sent:
            return
        taken, copied = trace.next(TicketTaken).time, trace.next(PayloadCopied).time
        first_gap = scenarios.think_times("fan_in", 0, 1, 1, 2_000)[0]
        take_ns, copy_ns = taken - first_gap, copied - taken
        earliest = empty.time - sent.time - take_ns
        latest = enabled.time - copy_ns - sent.time - take_ns
        gap_ns, found = max((earliest + latest) // 2, 0), 0
        for seed in range(SEEDS_TRIED):
            if earliest < scenarios.think_times("fan_in", seed, 1, 2, gap_ns)[1] < latest:
                yield {**BETWEEN_SHAPE, "messages": 2, "gap_ns": gap_ns, "seed": seed}
                found += 1
                if found == BETWEEN_RUNS:
                    return


def held(trial: Trial) -> Trial:
    """The same run, but the sender of ticket 1 is held up just before it sets the ready flag."""
    ready = trial.trace.next(SlotReady, ring=0, ticket=1)
    if not ready:
        return trial
    call = f"{trial.call}.fork({ready.seq}, delay={HELD_UP_NS})"
    return Trial(call, trial.run.fork(ready.seq, delay=HELD_UP_NS), trial.options)


def told(trial: Trial, finding: Finding) -> Miss:
    return Miss(f"run = {trial.call}: {finding}", finding.tag, 0.0, finding.seq, trial.run)


def as_it_was_asked(trial: Trial) -> Finding | None:
    """Every message that send was called with gets into the ring, unchanged."""
    asked = {
        record.event[3:5]: record.event[5:]
        for record in scenarios.fan_in(**trial.options).trace.records(PayloadCopied)
    }
    holds, ready = {}, set()
    for record in trial.trace.records(TicketTaken, PayloadCopied, SlotReady, ring=0):
        event = record.event
        if type(event) is TicketTaken:
            holds[event.sender, event.ticket] = event.sender, event.number
        elif type(event) is SlotReady:
            ready.add(holds.get((event.sender, event.ticket)))
        elif asked.get(event[3:5]) != event[5:]:
            return Finding(
                "as_it_was_asked", record.seq, record.time,
                f"message {event.number} of kernel {event.sender} goes into the ring as "
                f"({event.type}, {event.priority}, {event.payload}), which is not what send was "
                "called with.",
            )  # fmt: skip
    for sender, number in sorted(asked.keys() - ready):
        return never_ready(trial, sender, number)


def never_ready(trial: Trial, sender: int, number: int) -> Finding:
    taken = trial.trace.next(TicketTaken, sender=sender, number=number)
    seq = taken.seq if taken else len(trial.trace) - 1
    waits = dict(trial.run.waiting).get(f"kernel {sender}")
    why, tag = "A full ring is no reason to give a message up.", "M8"
    if waits:
        why, tag = f"When all is over, its sender still waits for {waits}.", ""
    said = f"message {number} of kernel {sender} never gets ready in the ring. {why}"
    return Finding("as_it_was_asked", seq, trial.trace.time(seq), said, tag)


def interrupt_comes_last(run) -> Finding | None:
    """A sender interrupts only when its message is ready: the interrupt does not bring it."""
    open_tickets: dict[int, int] = {}
    for record in run.trace.records(TicketTaken, SlotReady, IpiSent):
        event = record.event
        if type(event) is TicketTaken:
            open_tickets[event.sender] = event.ticket
        elif type(event) is SlotReady:
            open_tickets.pop(event.sender, None)
        elif event.src in open_tickets:
            return Finding(
                "interrupt_comes_last", record.seq, record.time,
                f"kernel {event.src} interrupts kernel {event.dst} before its message with ticket "
                f"{open_tickets[event.src]} is ready: the receiver may look too early.", "M3",
            )  # fmt: skip


def goes_on(run) -> Finding | None:
    """No story breaks off in the middle (a fork lets the others go on without it)."""
    for record in run.trace.records(StoryStopped):
        return Finding("goes_on", record.seq, record.time, f"{record.event}")


def empty_means_empty(run) -> Finding | None:
    """Who says that the ring is empty has read every ticket that it could see when it looked."""
    unread: dict[int, int] = {}  # ticket: the record that took it
    looked = 0  # the softirq's last record before this one, but for callbacks: there it looked
    for record in run.trace:
        event = record.event
        if type(event) is TicketTaken and event.ring == 0:
            unread[event.ticket] = record.seq
        if record.who != "kernel 0 softirq" or type(event) in (MessageDelivered, MessageDropped):
            continue
        if type(event) is MessageRead:
            unread.pop(event.ticket, None)
        seen = [ticket for ticket, seq in unread.items() if seq < looked]
        if type(event) is RingSeenEmpty and seen:
            return Finding(
                "empty_means_empty", record.seq, record.time,
                f"kernel 0 says that its ring is empty, but ticket {seen[0]} was taken at record "
                f"{unread[seen[0]]} and is not read. Not ready is not empty: wait for the flag.",
            )  # fmt: skip
        looked = record.seq
    return None


def reads_what_it_could_see(run) -> Finding | None:
    """Every message is read; but one that came after the last look is a lost wake-up, and that is
    another rule's business."""
    finding = checks.every_message_is_read(run)
    ready = finding and run.trace[finding.seq].event
    if type(ready) is not SlotReady:
        return finding
    taken = run.trace.next(TicketTaken, ring=ready.ring, ticket=ready.ticket)
    looks = [record.seq for record in run.trace.records(RingSeenEmpty, ring=ready.ring)]
    before = [seq for seq in looks if taken and seq < taken.seq]
    if before:
        enabled = run.trace.next(InterruptsEnabled, after=before[-1], ring=ready.ring)
        if enabled and enabled.seq > taken.seq:
            return None
    return finding


def leaving_takes_time(run) -> Finding | None:
    """Between the look that finds the ring empty and int_enabled = 1, time passes. A story in
    which it does not would be safe by a trick that no processor knows."""
    empty, kinds = None, (RingSeenEmpty, InterruptsEnabled, InterruptsDisabled, MessageRead)
    for record in run.trace.records(*kinds, who="kernel 0 softirq"):
        kind = type(record.event)
        if kind is RingSeenEmpty:
            empty = record
        elif kind is not InterruptsEnabled:
            empty = None
        elif empty is None:
            return Finding(
                "leaving_takes_time", record.seq, record.time,
                "kernel 0 asks for interrupts again, but it has not said that it finds its ring "
                "empty. Say RingSeenEmpty(me, read) first.",
            )  # fmt: skip
        elif record.time - empty.time < LEAVE_POLL_NS:
            return Finding(
                "leaving_takes_time", record.seq, record.time,
                f"kernel 0 asks for interrupts {record.time - empty.time} ns after it found its "
                f"ring empty (record {empty.seq}). Leaving the poll takes {LEAVE_POLL_NS} ns: "
                f"yield Delay({LEAVE_POLL_NS}) between the two, and see what can happen meanwhile.",
            )  # fmt: skip
    return None

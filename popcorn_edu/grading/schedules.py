"""Two kernels that do nothing but what a schedule says: for building a deadlock by hand.

Each line of a schedule is one thing that one kernel does, with the model's own stories:

    "0 sends"        a process in kernel 0 sends kernel 1 a PING
    "0 polls"        kernel 0's softirq reads all that is in its ring
    "0 calls back"   it hands what it has read to the callbacks, and each answers with a PONG

``stage`` tells them in order, and far enough apart that each is over, or spins, before the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from popcorn_edu import scenarios
from popcorn_edu.engine.sim import Sim, finish
from popcorn_edu.engine.steps import Delay, Until
from popcorn_edu.engine.trace import Event
from popcorn_edu.engine.world import Run
from popcorn_edu.model import messaging
from popcorn_edu.model.rings import MessageType, PayloadCopied, SenderBlocked, is_empty

SENDS, POLLS, CALLS_BACK = "sends", "polls", "calls back"
LINES = tuple(f"{kernel} {verb}" for verb in (SENDS, POLLS, CALLS_BACK) for kernel in (0, 1))
APART_NS = 20_000  # of the schedule, not of any machine: longer than each line takes


class LineRead(Event):
    """The schedule says what is to happen next. It is the teacher's hand, not part of Popcorn."""

    says = "line {line} of the schedule: kernel {kernel} {verb}"
    line: int
    kernel: int
    verb: str


class NothingToDo(Event):
    """A line of the schedule asks for what is not possible in this state."""

    says = "kernel {kernel} cannot: {why}"
    kernel: int
    why: str


def stage(lines: Sequence[str], slots: int) -> Run:
    """Play the schedule with two rings of so many slots."""
    setup = scenarios.make_setup(
        "magny-cours-48", 2, slots=slots,
        handlers={MessageType.PING: answer, MessageType.PONG: noted},
    )  # fmt: skip

    def play(edits=()) -> Run:
        sim = Sim(scenarios.new_world(setup), {"scenario": "schedule"}, edits=edits)
        sim.begin("machine", scenarios.everybody_registered, 2)
        for me in (0, 1):
            sim.begin(f"kernel {me}", process, me)
            sim.begin(f"kernel {me} softirq", bottom_half, me)
        sim.begin("schedule", conductor, lines)
        return finish(sim, lambda: scenarios.new_world(setup), play)

    return play()


def conductor(world, lines):
    for number, line in enumerate(lines, 1):
        yield Delay(APART_NS)
        kernel, _, verb = line.partition(" ")
        yield LineRead(number, int(kernel), verb)


def process(world, me):
    while True:
        yield Until(LineRead, kernel=me, verb=SENDS)
        yield from messaging.send(world, me, 1 - me, MessageType.PING)


def bottom_half(world, me):
    """The softirq, cut in two: what it reads, and the callbacks of what it has read."""
    while True:
        line = yield Until(LineRead, kernel=me)
        if line.event.verb == POLLS:
            if is_empty(world, me):
                yield NothingToDo(me, "its ring is empty")
            else:
                yield from messaging.poll(world, me, world.setup.budget)
        elif line.event.verb == CALLS_BACK:
            if not any(row[0] == me for row in world.messaging.queue):
                yield NothingToDo(me, "it has read nothing that still waits for its callback")
            yield from messaging.deliver(world, me)


def answer(world, me, message):
    yield from messaging.send(world, me, message.sender, MessageType.PONG)


def noted(world, me, message):
    return iter(())


# -- what came of it ----------------------------------------------------------------------------


def impossible_line(run: Run) -> tuple[int, str, int] | None:
    """The first line that could not be done: its number, why, and its record."""
    lines = list(run.trace.records(LineRead))
    for line, after in zip(lines, [*lines[1:], None], strict=True):
        doer = f"kernel {line.event.kernel}" + (" softirq" if line.event.verb != SENDS else "")
        told = [r for r in run.trace[line.seq : after.seq if after else None] if r.who == doer]
        if not told:
            return line.event.line, f"{doer} still spins on a full ring", line.seq
        if type(told[0].event) is NothingToDo:
            return line.event.line, str(told[0].event), line.seq


def spinning(run: Run) -> dict[str, object]:
    """Who spins on a full ring when the schedule is over: the actor, and its record."""
    stuck = {}
    for record in run.trace.records(SenderBlocked, PayloadCopied):
        key = record.event.ring, record.event.ticket
        if type(record.event) is SenderBlocked:
            stuck[key] = record
        else:
            stuck.pop(key, None)
    return {record.who: record for record in stuck.values()}


def deadlocked(run: Run) -> bool:
    """Both softirqs spin: neither will ever empty the ring that the other waits for."""
    return {"kernel 0 softirq", "kernel 1 softirq"} <= set(spinning(run))

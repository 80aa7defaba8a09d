"""What happens when a ring is full: a deadlock by hand, four designs, and a choice between them.

Three tasks of Lab 05. A student's schedule is played (see schedules.py) and looked at when it is
over. What each design does with a full ring is read off a run of it; whether a design suits a
service follows from that and from what the service needs.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import Event, PopcornError
from popcorn_edu.grading.answers import OPEN
from popcorn_edu.grading.schedules import deadlocked, impossible_line, spinning, stage
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import messaging
from popcorn_edu.model.rings import is_full

# -- a deadlock by hand ----------------------------------------------------------------------------

DEADLOCK_SLOTS = 2
LINES_AT_MOST = 60


class Staged(NamedTuple):
    lines: list[str]
    run: object


def play_schedule(lines, variant) -> Staged:
    if None in lines:
        raise PopcornError(f"line {lines.index(None) + 1} of your schedule is still open")
    if not 0 < len(lines) <= LINES_AT_MOST:
        raise PopcornError(f"a schedule has 1 to {LINES_AT_MOST} lines, not {len(lines)}")
    return Staged(lines, stage(lines, DEADLOCK_SLOTS))


def every_line_is_possible(staged, variant):
    if problem := impossible_line(staged.run):
        line, why, seq = problem
        return Miss(f"Line {line}, {staged.lines[line - 1]!r}: {why}.", "", 0, seq, staged.run)


def ends_in_deadlock(staged, variant):
    if deadlocked(staged.run):
        return None
    who = spinning(staged.run)
    last = len(staged.run) - 1
    softirqs = [name for name in who if name.endswith("softirq")]
    if softirqs:
        said = f"{softirqs[0]} spins, but the other kernel's is free: its next poll makes room."
    elif who:
        said = f"{' and '.join(who)} spin, but both softirqs are free: the next poll makes room."
    else:
        said = "Nobody spins when your schedule is over."
    return Miss(said, "", 0.5 if softirqs else 0, last, staged.run)


def nothing_to_leave_out(staged, variant):
    lines = staged.lines
    if not deadlocked(staged.run):
        return "Without a deadlock there is no shortest one."
    for n, line in enumerate(lines):
        if deadlocked(stage(lines[:n] + lines[n + 1 :], DEADLOCK_SLOTS)):
            return f"Without line {n + 1}, {line!r}, it is a deadlock all the same."


# -- four designs for a full ring ------------------------------------------------------------------


class PacketDropped(Event):
    """The virtual network's answer to a full ring: the packet is freed and counted. Nobody is
    told, as with any network card; whoever needs it must ask again."""

    says = "kernel {sender} finds ring {ring} full, drops the packet and counts it"
    popcorn = "shmtun: tx_dropped++ (G1)"
    ring: int
    sender: int


def shmtun(world, me, to, type, priority, payload):
    if is_full(world, to):
        yield PacketDropped(to, me)
        return True
    return (yield from messaging.send(world, me, to, type, priority, payload))


DESIGNS = {
    "kmsg G1": {},
    "shmtun": {"send": shmtun},
    "kmsg G2": {"full_rule": "sleep"},
    "multikernel 2025": {"full_rule": "refuse"},
}
MESSAGE_WORDS = ("waits", "lost", "handed back")
SENDER_WORDS = ("spins", "sleeps", "goes on")
BURST = 6  # messages of one sender into a ring of two slots


def design(name: str):
    """One sender, a burst, a ring of two slots: what does this design do?"""
    return scenarios.fan_in(kernels=2, messages=BURST, slots=2, gap_ns=50, **DESIGNS[name])


@cache
def outcome(name: str) -> tuple[str, str]:
    """(what becomes of the message, what the sender does), read off the run."""
    kinds = design(name).trace.kinds()
    lost = kinds["MessageDelivered"] < BURST
    told = "SendRefused" in kinds
    message = "handed back" if told else "lost" if lost else "waits"
    sender = (
        "spins" if "SenderBlocked" in kinds else "sleeps" if "SenderSlept" in kinds else "goes on"
    )
    return message, sender


def behaves(name: str):
    def holds(answer, variant):
        given = answer[name] or [None, None]
        if given == [None, None]:
            return OPEN
        right = [mine == true for mine, true in zip(given, outcome(name), strict=True)]
        if not all(right):
            half = ("the message", "the sender")[right.index(False)]
            tag = "M8" if given[0] == "lost" and outcome(name)[0] != "lost" else ""
            return Miss(f'Look at {half} once more: lab.play("{name}").', tag, sum(right) / 2)

    return holds


# -- a policy for each service ---------------------------------------------------------------------

POLICIES = {
    "spin": "kmsg G1",
    "drop": "shmtun",
    "sleep": "kmsg G2",
    "refuse": "multikernel 2025",
}


class Service(NamedTuple):
    text: str
    may_be_lost: bool
    may_wait: bool


SERVICES = (
    (
        Service(
            "A process asks another kernel for a page of its memory. It cannot go on without "
            "the page, and its CPU has other processes to run.",
            False, True,
        ),
        Service(
            "A process copies each line of the kernel's log to a log server, at night. No line "
            "may be missing, nobody is in a hurry, and the CPU has other work.",
            False, True,
        ),
    ),
    (
        Service(
            "A timer interrupt reports the CPU's load ten times a second. A newer report makes "
            "the older one worthless, and the interrupt must be over at once.",
            True, False,
        ),
        Service(
            "An interrupt handler passes on the mouse's position. The next position comes in "
            "8 ms anyway, and the handler must not wait.",
            True, False,
        ),
    ),
    (
        Service(
            "A callback, in the softirq, answers a request. The answer must arrive, and the "
            "kernel has a thread that can send it later.",
            False, False,
        ),
        Service(
            "A callback, in the softirq, confirms that a page was invalidated. Without the "
            "confirmation the other kernel hangs; a kernel thread can send it later.",
            False, False,
        ),
    ),
)  # fmt: skip
REASON_CHARACTERS = 40


@cache
def my_services(variant: Variant) -> dict[str, Service]:
    rng = variant.rng("s8")
    drawn = [rng.choice(pair) for pair in SERVICES]
    rng.shuffle(drawn)
    return dict(zip(("one", "two", "three"), drawn, strict=True))


def services_table(variant: Variant) -> Table:
    rows = [(name, service.text) for name, service in my_services(variant).items()]
    return Table("Three services", ["", "what it does"], rows)


def suits(policy: str, service: Service) -> bool:
    """Neither is a message lost that must arrive, nor does anybody wait who must not."""
    message, sender = outcome(POLICIES[policy])
    waits = sender in ("spins", "sleeps")
    return (message != "lost" or service.may_be_lost) and (not waits or service.may_wait)


def burden(policy: str) -> int:
    """Of policies that suit, the one that asks least of CPU and caller is best."""
    message, sender = outcome(POLICIES[policy])
    return (sender == "spins") + (message == "handed back")


def has_its_policy(name: str):
    def holds(answer, variant):
        policy, service = answer[name], my_services(variant)[name]
        if policy is None:
            return OPEN
        if not suits(policy, service):
            message, _ = outcome(POLICIES[policy])
            why = "its message would be lost" if message == "lost" else "it would have to wait"
            return Miss(f"With {policy!r} {why}, and it must not.")
        best = min(burden(other) for other in POLICIES if suits(other, service))
        if burden(policy) > best:
            return Miss("That works. Which policy costs the CPU or the caller less?", share=0.5)

    return holds


def gives_a_reason(answer, variant):
    reason = answer["because"] or ""
    if not reason:
        return OPEN
    if len(reason.split()) < 6 or len(reason) < REASON_CHARACTERS:
        return "Say in a whole sentence what decides it for one of the three."

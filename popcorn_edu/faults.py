"""What can go wrong between kernels, as data: a deck of faults, each one edit of a finished run.

    run.inject("lost IPI", at=41)             # what if this interrupt had been lost?
    faults.at(run, 41)                        # which faults are possible at record 41
    faults.noticed(fork)                      # who noticed, when, and how; often: nobody

Words
    fault      one thing that goes wrong at one record. It becomes one edit of a fork (engine/world:
               Edit), so the run before that record is the same, and what follows follows from it
    place      a record at which a fault can be injected: the deck says of which kinds
    to notice  a kernel learns of a fault only from its own memory, the rings, and its interrupts.
               In Popcorn G1 there is no acknowledgement and no timeout, so most are never noticed

The loop over the n-th fault, as SQLite's tests do it for memory: ``every(name, make_run)`` injects
the fault at the 1st, 2nd, 3rd ... place until there is no more, so that no place is forgotten.

Real counterparts are from popcorn-facts sections 5.3 to 5.8 and verification, "what the real source
says". The default lengths of time are the model's own choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from popcorn_edu.engine.trace import Event, PopcornError, Record, StoryStopped, near_names
from popcorn_edu.engine.world import Run
from popcorn_edu.model.boot import KernelPanicked
from popcorn_edu.model.devices import DeviceInterrupted
from popcorn_edu.model.messaging import (
    AllocationFailed,
    InterruptTaken,
    IpiArrived,
    IpiLost,
    MessageDelivered,
    MessageDropped,
    SendFailed,
    SoftirqEntered,
)
from popcorn_edu.model.rings import (
    AllRegistered,
    HeadOfLineWait,
    MessageRead,
    MessageType,
    PayloadCopied,
    Priority,
    RingSeenEmpty,
    SenderBlocked,
    SenderSlept,
    SlotReady,
    TicketTaken,
    WindowPublished,
)

LATE_NS = 20_000  # model default: some ten times an ordinary delivery
STALL_NS = 200_000  # model default: a few hundred messages long
AGAIN_NS = 3_000  # model default: the second copy comes when the first has been served
AFTER_FULL_NS = 10_000  # model default: how long a ring stays full before its reader wakes up
BELONGS = re.compile(r"^kernel (\d+)\b")  # an actor of a kernel, by its name
HEADER = ("type", "sender", "priority", "payload")  # what a flipped bit can change


class Fault(NamedTuple):
    """One card of the deck.

    ``kinds``: the kinds of record at which it can be injected; () is any record.
    ``edit(run, record, **options)``: the fork's record and its edit, or None: not here after all.
    ``fails``: the checks that may fail after it, in the correct model; no other may.
    """

    name: str
    models: str
    real: str
    kinds: tuple[type[Event], ...]
    edit: Callable[..., tuple[int, dict] | None]
    options: dict[str, object] = {}
    fails: tuple[str, ...] = ()

    def where(self) -> str:
        """At which records, in words."""
        return " or ".join(kind.__name__ for kind in self.kinds) or "any record"


class Noticed(NamedTuple):
    """Somebody, or nobody (kernel None), noticed at a record that something is wrong."""

    record: Record
    kernel: int | None
    how: str

    def __str__(self) -> str:
        who = "nobody" if self.kernel is None else f"kernel {self.kernel}"
        return f"record {self.record.seq} ({self.record.time:,} ns): {who}: {self.how}"


# -- each fault as one edit ----------------------------------------------------------------------


def _kernel_of(who: str) -> int | None:
    found = BELONGS.match(who)
    return int(found[1]) if found else None


def _ns(value: object, name: str = "ns") -> int:
    if type(value) is not int or value < 1:
        raise PopcornError(f"{name}={value!r}: expected a whole number of nanoseconds, 1 or more")
    return value


def _kernel(run: Run, value: object) -> int:
    kernels = len(run.setup.cpus)
    if type(value) is not int or not 0 <= value < kernels:
        raise PopcornError(f"kernel={value!r}: expected a kernel's number, 0 to {kernels - 1}")
    return value


def _lost(run: Run, record: Record):
    return record.seq, {"instead": IpiLost(*record.event)}


def _never(run: Run, record: Record):
    return record.seq, {"drop": True}


def _later(run: Run, record: Record, ns: int):
    return record.seq, {"delay": _ns(ns)}


def _twice(run: Run, record: Record, ns: int):
    """The copy arrives just before the first record from then on, or with the last one."""
    then, last = record.time + _ns(ns), len(run.trace) - 1
    if record.seq == last:
        return None
    n = next((r.seq for r in run.trace[record.seq + 1 :] if r.time >= then), last)
    return n, {"say": record.event}


def _spurious(run: Run, record: Record, kernel: int | None = None):
    """An interrupt that nobody sent; the model notes the kernel itself as its sender."""
    if not _registered(run, record.seq):
        return None
    owner = _kernel_of(record.who)
    kernel = _kernel(run, (owner or 0) if kernel is None else kernel)
    if kernel not in run.at(record.seq).messaging.ipi_pending:
        return None
    return record.seq, {"say": IpiArrived(kernel, kernel)}


def _registered(run: Run, n: int) -> bool:
    """Had anybody joined the others by then?"""
    first = next(iter(run.trace.records(AllRegistered, WindowPublished)), None)
    return first is not None and first.seq < n


def _slow_handler(run: Run, record: Record, ns: int):
    """A handler's time passes between the call and whatever its softirq says next."""
    after = (r.seq for r in run.trace[record.seq + 1 :] if r.who == record.who)
    n = next(after, None)
    return None if n is None else (n, {"delay": _ns(ns)})


def _ring_full(run: Run, record: Record):
    """The reader sleeps until one more ticket is taken than there are slots, and a while longer."""
    ring, slots = _kernel_of(record.who), run.setup.slots
    tail = sum(1 for r in run.trace.records(MessageRead, ring=ring) if r.seq < record.seq)
    for taken in run.trace.records(TicketTaken, ring=ring):
        if taken.event.ticket == tail + slots:
            return record.seq, {"delay": max(1, taken.time - record.time) + AFTER_FULL_NS}
    return None


def _sender_dies(run: Run, record: Record):
    sender = record.event.sender
    return record.seq, {"say": KernelPanicked(sender, "a fault, with a ticket in its hand")}


def _panic(run: Run, record: Record, kernel: int | None = None):
    """The kernel that acts, if it is a secondary; else the last one."""
    if kernel is None:
        kernel = _kernel_of(record.who) or len(run.setup.cpus) - 1
    if not _registered(run, record.seq):
        return None
    return record.seq, {"say": KernelPanicked(_kernel(run, kernel), "a fault")}


def _garbled(run: Run, record: Record, field: str = "type", value: int | None = None):
    """One field of the header, or the payload, is not what the sender wrote."""
    if field not in HEADER:
        raise PopcornError(f"there is no header field {field!r}; {near_names(field, HEADER)}")
    old, kernels = getattr(record.event, field), len(run.setup.cpus)
    if value is None:
        value = {
            "type": next((t for t in MessageType if t not in run.setup.handlers), old),
            "sender": (old + 1) % kernels,
            "priority": 1 - old,
            "payload": old ^ 1 << 7,
        }[field]
    if field == "sender":
        _kernel(run, value)
    kinds = {"type": MessageType, "priority": Priority}
    if field in kinds:
        value = next((word for word in kinds[field] if value in (word, word.name)), value)
    garbled = PayloadCopied(**record.event._asdict() | {field: value})
    return None if garbled == record.event else (record.seq, {"instead": garbled})


def _no_memory(run: Run, record: Record):
    """Read, and gone before anybody else acts."""
    event = record.event
    if record.seq + 1 >= len(run.trace):
        return None
    return record.seq + 1, {"say": AllocationFailed(event.ring, event.sender, event.number)}


STRANDED = ("every_message_is_read", "no_lost_wakeup")  # a message lies in the ring
STUCK = ("every_message_is_read", "every_read_message_is_handled", "no_deadlock")  # it waits
JOINING = ("everybody_checks_in_once",)

DECK: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "lost IPI",
            "an interrupt between kernels is sent and never arrives",
            "facts 5.5, 5.8: no acknowledgement, no timeout. Linux drivers had such losses: "
            "stmmac a976ca79, vhost 159793ac",
            (IpiArrived,), _lost, {}, (*STRANDED, "no_deadlock"),
        ),
        Fault(
            "late IPI",
            "an interrupt arrives ns nanoseconds late: nothing is lost, but it takes longer",
            "what ethtool -C does on purpose for network cards",
            (IpiArrived,), _later, {"ns": LATE_NS},
        ),
        Fault(
            "duplicated IPI",
            "a second copy of an interrupt arrives ns nanoseconds later and finds no work",
            "facts 5.6: the ISR cannot know for what it was called; it looks, and that is enough",
            (IpiArrived,), _twice, {"ns": AGAIN_NS},
        ),
        Fault(
            "spurious interrupt",
            "a kernel is interrupted, and nobody sent anything",
            "every local APIC knows them (vector 0xff); the same answer: look, find nothing, leave",
            (), _spurious, {"kernel": None},
        ),
        Fault(
            "stalled receiver",
            "a receiver does nothing for ns nanoseconds, between two steps",
            "facts 5.8: a receiver in an SMI or a long interrupt; the ring is the buffer",
            (InterruptTaken, SoftirqEntered, MessageRead), _later, {"ns": STALL_NS},
        ),
        Fault(
            "slow handler",
            "a callback takes ns nanoseconds; the softirq reads nothing meanwhile",
            "facts 5.6: all callbacks run in the one softirq, HIGH ones first",
            (MessageDelivered,), _slow_handler, {"ns": STALL_NS},
        ),
        Fault(
            "ring full",
            "a reader sleeps until every slot is taken and a sender must wait",
            "facts 5.5: a G1 sender spins, without sleep and without timeout, while head - tail "
            ">= 64",
            (InterruptTaken, SoftirqEntered, MessageRead), _ring_full,
        ),
        Fault(
            "sender dies",
            "a kernel panics between its ticket and its ready flag",
            "facts 5.8: head-of-line blocking. The receiver spins on that slot in its softirq, and "
            "gets past it never",
            (PayloadCopied, SlotReady), _sender_dies, {}, (*STUCK, *JOINING),
        ),
        Fault(
            "kernel panic",
            "a kernel stops in the middle of its work; the others run on",
            "no common part could fall with it. Its window stays, its ring fills, and its senders "
            "spin for ever (verification: \"receiver dead\")",
            (), _panic, {"kernel": None}, (*STUCK, "no_lost_wakeup", *JOINING),
        ),
        Fault(
            "corrupted header",
            "one field of a message (type, sender, priority or payload) is not what was sent",
            "\"Invalid type; continuing\": facts 5.4. The receiver checks the type and nothing "
            "else; there is no checksum",
            (PayloadCopied,), _garbled, {"field": "type", "value": None},
            ("every_read_message_is_handled", "fifo_per_sender", *JOINING),
        ),
        Fault(
            "allocation failure",
            "the receiver has no memory for its copy of a message: tail advances, the message is "
            "gone",
            "verification: \"allocation failure for a small message: returns 0, the tail still "
            "advances\"",
            (MessageRead,), _no_memory, {}, ("every_read_message_is_handled",),
        ),
        Fault(
            "lost device interrupt",
            "a device is done and its interrupt never comes: the process waits for ever",
            "libata has a timeout for it; here nobody has",
            (DeviceInterrupted,), _never,
        ),
    )
}  # fmt: skip


# -- finding places, and making the fork ---------------------------------------------------------


def fault(name: str) -> Fault:
    """The card of that name."""
    if name not in DECK:
        raise PopcornError(f"there is no fault {name!r}; {near_names(str(name), DECK)}")
    return DECK[name]


def edit(run: Run, name: str, n: int, options: dict) -> tuple[int, dict] | None:
    """The fork's record and edit, if the fault is possible at record ``n``."""
    card = fault(name)
    for option in options:
        if option not in card.options:
            near = near_names(option, card.options)
            raise PopcornError(f"the fault {name!r} has no option {option!r}; {near}")
    if type(n) is not int or not 0 <= n < len(run.trace):
        last = len(run.trace) - 1
        raise PopcornError(f"at={n!r}: expected a record number from 0 to {last}")
    if card.kinds and type(run.trace.event(n)) not in card.kinds:
        return None
    return card.edit(run, run.trace[n], **card.options | options)


def at(run: Run, n: int) -> list[str]:
    """The names of the faults that are possible at record ``n``."""
    return [name for name in DECK if edit(run, name, n, {})]


def of(run: Run) -> list[str]:
    """The names of the faults for which this run has records."""
    if "cpus" not in getattr(run.setup, "__dataclass_fields__", {}):
        return []  # a cast of one's own, without kernels
    there, talk = run.trace.kinds().keys(), "messaging" in run.start().parts
    return [
        card.name
        for card in DECK.values()
        if (there & {kind.__name__ for kind in card.kinds} if card.kinds else talk)
    ]


def places(run: Run, name: str, /, **options) -> Iterator[int]:
    """The records at which the fault can be injected, first to last."""
    card = fault(name)
    found = run.trace.records(*card.kinds) if card.kinds else run.trace
    return (record.seq for record in found if edit(run, name, record.seq, options))


def inject(run: Run, name: str, /, at: int | None = None, **options) -> Run:
    """The fork with this fault at record ``at``; without it, at the first place there is."""
    if at is None:
        at = next(places(run, name, **options), None)
        if at is None:
            raise PopcornError(
                f"there is no place for the fault {name!r} in this run: {DECK[name].models}; "
                f"it is possible at {DECK[name].where()}"
            )
    if problem := not_here(run, name, at, **options):
        raise PopcornError(problem)
    n, change = edit(run, name, at, options)
    return run.fork(n, **change)


def not_here(run: Run, name: str, n: int, /, **options) -> str:
    """Why the fault is not possible at record ``n``, and where it is; empty if it is possible."""
    if edit(run, name, n, options):
        return ""
    record = run.trace[n]
    sentence = (
        f"the fault {name!r} is not possible at record {n} ({type(record.event).__name__}); it "
        f"wants {DECK[name].where()}"
    )
    near = min(places(run, name, **options), key=lambda place: abs(place - n), default=None)
    if near is None:
        return f"{sentence}, and this run has no place for it"
    return f"{sentence}, and the nearest place is record {near}"


def every(name: str, make_run: Callable[[], Run] | Run, /, **options) -> Iterator[tuple[int, Run]]:
    """(n, the run with the fault at its n-th place), for n = 1, 2, 3 ... until no more is reached.

    ``make_run`` may be a finished run, too.
    """
    run = make_run() if callable(make_run) else make_run
    for n, place in enumerate(places(run, name, **options), 1):
        yield n, inject(run, name, place, **options)


# -- who noticed ---------------------------------------------------------------------------------

SAID_SO = ("SendFailed", "SendRefused", "MessageDropped", "PeerDeclaredDead")  # a line, an error


def noticed(run: Run) -> list[Noticed]:
    """Who noticed that something is wrong, in order of time, whether or not a line says so."""
    found = [*_said(run), *_waiting_for_ever(run), *_for_nothing(run), *_never_delivered(run)]
    return sorted(found, key=lambda one: one.record.seq)


def _said(run: Run) -> Iterator[Noticed]:
    for record in run.trace:
        event = record.event
        if isinstance(event, SendFailed | MessageDropped) or type(event).__name__ in SAID_SO:
            yield Noticed(record, _kernel_of(record.who), str(event))
        elif type(event) is StoryStopped:
            yield Noticed(record, _kernel_of(event.who), "a state that its code never thought of")


def _dead(run: Run) -> set[int]:
    return {record.event.kernel for record in run.trace.records(KernelPanicked)}


def _waiting_for_ever(run: Run) -> Iterator[Noticed]:
    """Senders before a full ring and receivers before a slot, at the end of the run."""
    dead, waits = _dead(run), {}
    kinds = SenderBlocked, SenderSlept, PayloadCopied, HeadOfLineWait, MessageRead
    for record in run.trace.records(*kinds):
        event = record.event
        kind = type(event)
        if kind in (SenderBlocked, SenderSlept):
            waits["sender", event.ring, event.ticket] = record, event.sender
        elif kind is HeadOfLineWait:
            waits["reader", event.ring, event.ticket] = record, event.ring
        else:
            side = "sender" if kind is PayloadCopied else "reader"
            waits.pop((side, event.ring, event.ticket), None)
    for (side, ring, ticket), (record, kernel) in waits.items():
        if kernel in dead:
            continue
        of = f"ring {ring}, whose kernel is dead," if ring in dead else f"ring {ring}"
        if side == "sender":
            does = "spins" if type(record.event) is SenderBlocked else "sleeps"
            yield Noticed(record, kernel, f"{does} before {of} to the end of the run")
        else:
            yield Noticed(
                record, kernel,
                f"waits for ticket {ticket} of kernel {record.event.sender} to the end of the run, "
                "in its softirq",
            )  # fmt: skip


def _for_nothing(run: Run) -> Iterator[Noticed]:
    """Interrupts that nobody sent, where the kernel looked and found nothing."""
    for record in run.trace.records(IpiArrived):
        kernel, sender = record.event
        if kernel != sender:
            continue
        looked = run.trace.next(RingSeenEmpty, after=record.seq, ring=kernel)
        if looked is not None and looked.event.read == 0:
            yield Noticed(looked, kernel, "was interrupted and finds nothing to read")


def _never_delivered(run: Run) -> Iterator[Noticed]:
    """Messages whose callback is never called: their senders believe that all is well."""
    arrived = {
        (r.event.kernel, r.event.sender, r.event.number)
        for r in run.trace.records(MessageDelivered, MessageDropped)
    }
    copied = {
        (r.event.ring, r.event.ticket): r.event.number for r in run.trace.records(PayloadCopied)
    }
    read = {
        (r.event.ring, r.event.ticket): (r.event.sender, r.event.number)
        for r in run.trace.records(MessageRead)
    }
    for record in run.trace.records(SlotReady):
        ring, _, ticket, sender = record.event
        number = copied.get((ring, ticket))
        as_read = read.get((ring, ticket), (sender, number))
        if (ring, *as_read) not in arrived:
            yield Noticed(
                record, None,
                f"message {number} of kernel {sender} to kernel {ring} is sent, and its callback "
                "is never called",
            )  # fmt: skip

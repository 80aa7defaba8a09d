"""What must be true of every run, of messages and of boots, and the first record that breaks it.

A check is a pure function of a run. It returns None when its rule holds, or a Finding: the
number and time of the first record that breaks the rule, and a sentence that says how. The
same functions grade the labs, drive the property tests, and are there for a student to call:

    >>> checks.every_message_is_read(run)                                   # doctest: +SKIP
    record 412 (18,210 ns): kernel 3 marked slot 7 of ring 0 ready, and nobody ever read it ...

Each check reads nothing but the trace, so it judges any story that speaks the model's events,
ours or a learner's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from popcorn_edu.engine.trace import Event, Record, StoryStopped, Trace
from popcorn_edu.model.boot import (
    ApicIdFound,
    BootArgsWritten,
    BootParamsCopied,
    BootReturned,
    CheckedIn,
    CommandLineRefused,
    CommandLineWritten,
    CpuRefused,
    ForeignCpusTaken,
    ForeignMemoryTaken,
    KernelPanicked,
    OwnCpuStarted,
    PrimaryBooted,
    RamdiskNoted,
    RamdiskRefused,
    SegmentRefused,
    TimerHangs,
    WrongLineTaken,
)
from popcorn_edu.model.keepalive import PERIOD_NS, PeerMissed
from popcorn_edu.model.long_messages import (
    ChunkLost,
    ChunkStored,
    LongMessageComplete,
    LongMessageCorrupted,
    LongSendEnded,
)
from popcorn_edu.model.messaging import (
    AllocationFailed,
    InterruptTaken,
    IpiArrived,
    IpiLost,
    IpiSent,
    MessageDelivered,
    MessageDropped,
    PeerDeclaredDead,
    SendFailed,
    SoftirqEntered,
    SoftirqExited,
)
from popcorn_edu.model.mitigation import PollingStarted
from popcorn_edu.model.multicast import (
    ChannelClosed,
    ChannelTaken,
    McastGaveUp,
    McastRead,
    McastSlotFreed,
    McastWritten,
    MemberRemoved,
    members_of,
)
from popcorn_edu.model.rings import (
    AllRegistered,
    HeadOfLineWait,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    MessageType,
    PayloadCopied,
    Priority,
    SenderBlocked,
    SenderSlept,
    SlotReady,
    TicketTaken,
    WindowPublished,
)
from popcorn_edu.model.services import (
    FIRST_SERVICE,
    ServiceGone,
    ServiceNotified,
    ServiceRegistered,
    Subscribed,
    SubscriberDropped,
    Unsubscribed,
)
from popcorn_edu.model.trampoline import (
    InitAsserted,
    KernelJumped,
    MarkerMissing,
    MarkerSeen,
    MarkerWritten,
    TripleFault,
    WrongKernelEntered,
)


class Finding(NamedTuple):
    """The first record that breaks a rule. ``tag`` names the misconception behind it, if one is."""

    check: str
    seq: int
    time: int
    sentence: str
    tag: str = ""

    def __str__(self) -> str:
        return f"record {self.seq} ({self.time:,} ns): {self.sentence}"

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return f"**{self.check.replace('_', ' ')}** does not hold: {self}"


def trace_of(run) -> Trace:
    return getattr(run, "trace", run)


def around(seq: int) -> str:
    """Where to look, for the end of a sentence."""
    return f"Look at records {max(0, seq - 5)} to {seq + 5}."


# -- the ring -----------------------------------------------------------------------------------


def tickets_are_unique(run) -> Finding | None:
    """No two senders ever hold the same ticket of a ring."""
    holder: dict[tuple[int, int], int] = {}
    for record in trace_of(run).records(TicketTaken):
        ring, ticket, sender, _ = record.event
        if (ring, ticket) in holder:
            return Finding(
                "tickets_are_unique", record.seq, record.time,
                f"kernel {sender} takes ticket {ticket} of ring {ring}, which kernel "
                f"{holder[ring, ticket]} already has. Taking a ticket must be one atomic step: "
                "no time may pass between reading head and adding to it.",
            )  # fmt: skip
        holder[ring, ticket] = sender


def no_slot_is_used_twice(run) -> Finding | None:
    """Nobody writes into a slot whose last message has not been read yet."""
    busy: dict[tuple[int, int], tuple[int, int]] = {}
    for record in trace_of(run).records(PayloadCopied, MessageRead):
        ring, slot, ticket, sender = record.event[:4]
        if type(record.event) is MessageRead:
            busy.pop((ring, slot), None)
        elif (ring, slot) in busy:
            other, seq = busy[ring, slot]
            return Finding(
                "no_slot_is_used_twice", record.seq, record.time,
                f"kernel {sender} writes into slot {slot} of ring {ring} (ticket {ticket}), where "
                f"the message that kernel {other} wrote at record {seq} is still unread: it is "
                "lost. A full ring means wait, not overwrite.", "M8",
            )  # fmt: skip
        else:
            busy[ring, slot] = sender, record.seq


def ready_comes_last(run) -> Finding | None:
    """A slot is marked ready only when the message of that ticket is in it, and read after that."""
    copied: dict[tuple[int, int], int] = {}
    ready: dict[tuple[int, int], int] = {}
    for record in trace_of(run).records(PayloadCopied, SlotReady, MessageRead):
        ring, slot, ticket, sender = record.event[:4]
        kind = type(record.event)
        if kind is PayloadCopied:
            copied[ring, slot] = ticket
        elif kind is SlotReady:
            ready[ring, slot] = ticket
            if copied.get((ring, slot)) != ticket:
                return Finding(
                    "ready_comes_last", record.seq, record.time,
                    f"kernel {sender} marks slot {slot} of ring {ring} ready before its message "
                    f"with ticket {ticket} is in it: the receiver may read what was there before. "
                    "The ready flag is written last.",
                )  # fmt: skip
        elif ready.get((ring, slot)) != ticket:
            return Finding(
                "ready_comes_last", record.seq, record.time,
                f"kernel {ring} reads slot {slot} although the message with ticket {ticket} is "
                "not ready there: it may read half a message. Wait for the ready flag.",
            )  # fmt: skip


def every_message_is_read(run) -> Finding | None:
    """Every message that was marked ready is read, once, by the kernel whose ring it is in."""
    trace = trace_of(run)
    unread: dict[tuple[int, int], tuple] = {}
    read: dict[tuple[int, int], int] = {}
    enabled: dict[int, int] = {}
    for record in trace.records(SlotReady, MessageRead, InterruptsEnabled):
        event = record.event
        if type(event) is InterruptsEnabled:
            enabled[event.ring] = record.seq
            continue
        key = event.ring, event.ticket
        if type(event) is SlotReady:
            unread[key] = record, enabled.get(event.ring)
        elif key in read:
            return Finding(
                "every_message_is_read", record.seq, record.time,
                f"kernel {event.ring} reads ticket {event.ticket} a second time (first at record "
                f"{read[key]}): one message became two. {around(record.seq)}",
            )  # fmt: skip
        else:
            read[key] = record.seq
            unread.pop(key, None)
    for record, before in unread.values():
        ring, slot, _, sender = record.event
        hint = _why_unread(trace, record, before)
        return Finding(
            "every_message_is_read", record.seq, record.time,
            f"kernel {sender} marked slot {slot} of ring {ring} ready, and nobody ever read it. "
            + hint, "M6",
        )  # fmt: skip


def _why_unread(trace: Trace, ready, before: int | None) -> str:
    """Where to look for the reason: the receiver still polls, or how it went to sleep."""
    kernel = ready.event.ring
    softirq = [r.event for r in trace.records(SoftirqEntered, SoftirqExited, kernel=kernel)]
    if softirq and type(softirq[-1]) is SoftirqEntered:
        return (
            f"Kernel {kernel} is in its softirq to the end and gets no further. {around(ready.seq)}"
        )
    after = trace.next(InterruptsEnabled, after=ready.seq, ring=kernel)
    rearmed = after.seq if after else before
    if rearmed is None:
        return f"Kernel {kernel} never asked for interrupts again. {around(ready.seq)}"
    return f"Kernel {kernel} asked for interrupts again at record {rearmed}. {around(rearmed)}"


def every_read_message_is_handled(run) -> Finding | None:
    """What was read is handed to a callback (or reported as dropped), once and unchanged."""
    waiting: dict[tuple[int, int, int], object] = {}
    for record in trace_of(run).records(MessageRead, MessageDelivered, MessageDropped):
        event = record.event
        if type(event) is MessageRead:
            waiting[event.ring, event.sender, event.number] = record
            continue
        was = waiting.pop((event.kernel, event.sender, event.number), None)
        if was is None:
            return Finding(
                "every_read_message_is_handled", record.seq, record.time,
                f"kernel {event.kernel} hands over message {event.number} of kernel "
                f"{event.sender}, which it has not read (or has handed over before).",
            )  # fmt: skip
        if type(event) is MessageDelivered and was.event.payload != event.payload:
            return Finding(
                "every_read_message_is_handled", record.seq, record.time,
                f"message {event.number} of kernel {event.sender} arrives changed: "
                f"{event.payload} was {was.event.payload} when it was read.",
            )  # fmt: skip
    for record in waiting.values():
        event = record.event
        return Finding(
            "every_read_message_is_handled", record.seq, record.time,
            f"kernel {event.ring} read message {event.number} of kernel {event.sender} and never "
            "handed it to a callback.",
        )  # fmt: skip


# -- order --------------------------------------------------------------------------------------


def fifo_per_sender(run) -> Finding | None:
    """Messages of one sender and one priority are handed over in the order they were sent."""
    last: dict[tuple, tuple[int, int]] = {}
    for record in trace_of(run).records(MessageDelivered):
        kernel, sender, number, _, priority, _ = record.event
        before, seq = last.get((kernel, sender, priority), (-1, -1))
        if number <= before:
            return Finding(
                "fifo_per_sender", record.seq, record.time,
                f"kernel {kernel} hands over message {number} of kernel {sender} after message "
                f"{before} (record {seq}), though both are {priority}: one sender's messages of "
                "one priority must keep their order.",
            )  # fmt: skip
        last[kernel, sender, priority] = number, record.seq


def high_before_normal(run) -> Finding | None:
    """While a HIGH message is on the receiver's list, it hands over no NORMAL one."""
    high: dict[int, list] = defaultdict(list)
    gone = MessageDelivered, MessageDropped, AllocationFailed
    for record in trace_of(run).records(MessageRead, *gone):
        event = record.event
        if type(event) is MessageRead:
            if event.priority == Priority.HIGH:
                high[event.ring].append((event.sender, event.number, record.seq))
            continue
        mine = high[event.kernel]
        mine[:] = [m for m in mine if m[:2] != (event.sender, event.number)]
        if type(event) is MessageDelivered and event.priority == Priority.NORMAL and mine:
            sender, number, seq = mine[0]
            return Finding(
                "high_before_normal", record.seq, record.time,
                f"kernel {event.kernel} hands over a NORMAL message while the HIGH message "
                f"{number} of kernel {sender}, read at record {seq}, still waits.",
            )  # fmt: skip


# -- interrupts ---------------------------------------------------------------------------------


def no_needless_interrupts(run) -> Finding | None:
    """No IPI is sent to a kernel that had asked for none when its sender marked the slot ready.

    Unless the run's interrupt_rule is "always": then int_enabled asks in vain. Of a multicast
    message every member is told, as Popcorn does it.
    """
    if trace_of(run).meta.get("setup", {}).get("interrupt_rule") == "always":
        return None
    enabled: dict[int, bool] = defaultdict(bool)
    allowed: dict[tuple[int, int], int] = defaultdict(int)
    members: dict[int, int] = {}
    for record in trace_of(run).records(
        AllRegistered, WindowPublished, InterruptsEnabled, InterruptsDisabled, SlotReady, IpiSent,
        ChannelTaken, McastWritten,
    ):  # fmt: skip
        event = record.event
        kind = type(event)
        if kind is ChannelTaken:
            members[event.channel] = event.members
        elif kind is McastWritten:  # each member is interrupted, whether it asks or not
            for member in members_of(members[event.channel]):
                allowed[event.sender, member] += 1
        elif kind is AllRegistered:
            enabled.update(dict.fromkeys(range(event.kernels), True))
        elif kind is WindowPublished:
            enabled[event.kernel] = True
        elif kind is InterruptsEnabled:
            enabled[event.ring] = True
        elif kind is InterruptsDisabled:
            enabled[event.ring] = False
        elif kind is SlotReady:
            allowed[event.sender, event.ring] += enabled[event.ring]
        elif allowed[event.src, event.dst]:
            allowed[event.src, event.dst] -= 1
        else:
            return Finding(
                "no_needless_interrupts", record.seq, record.time,
                f"kernel {event.src} interrupts kernel {event.dst}, which had set "
                "int_enabled = 0: it was polling and would have found the message. Not every "
                "message needs an interrupt.", "M4",
            )  # fmt: skip


def no_lost_wakeup(run) -> Finding | None:
    """No kernel sleeps on a message: ready in its ring, and no interrupt on its way.

    After every record: a ring with a ready, unread message at its tail whose kernel is in no
    interrupt handler and no softirq, with no IPI pending, on the wire, or about to be sent.
    """
    watch = _Sleepers()
    for record in trace_of(run).records(*_Sleepers.KINDS):
        kernel = watch.see(record)
        if kernel is None:
            continue
        ready, interrupts = watch.unread[kernel][0]
        _, slot, _, sender = ready.event
        enabled = watch.enabled_at.get(kernel, -1)
        why = "and no interrupt is on its way"
        if not interrupts and enabled > ready.seq:
            why = (
                "the sender saw int_enabled = 0 and sent no interrupt, and the kernel set "
                f"int_enabled = 1 at record {enabled} without looking into its ring once more"
            )
        elif type(record.event) is IpiLost:
            why = "the interrupt that should have told it is lost, and nobody sends it again"
        elif not interrupts:
            why = "the sender saw int_enabled = 0, which the kernel never set to 1 again"
        return Finding(
            "no_lost_wakeup", record.seq, record.time,
            f"kernel {kernel} goes to sleep although slot {slot} of its ring has held a message "
            f"of kernel {sender} since record {ready.seq}; {why}. {around(ready.seq)}",
        )  # fmt: skip
    for kernel, ready in watch.never_woken():
        _, slot, _, sender = ready.event
        return Finding(
            "no_lost_wakeup", ready.seq, ready.time,
            f"kernel {sender} marks slot {slot} of ring {kernel} ready while int_enabled is 1 and "
            f"then sends no interrupt: kernel {kernel} sleeps on the message for ever. "
            f"{around(ready.seq)}",
        )  # fmt: skip


class _Sleepers:
    """Follows who is awake, and what lies unread, one record at a time."""

    KINDS = (
        AllRegistered, WindowPublished, InterruptsEnabled, InterruptsDisabled, SlotReady,
        MessageRead, IpiSent, IpiArrived, IpiLost, InterruptTaken, SoftirqEntered, SoftirqExited,
        KernelPanicked, PollingStarted,
    )  # fmt: skip

    def __init__(self) -> None:
        self.enabled: dict[int, bool] = {}
        self.unread: dict[int, list] = defaultdict(
            list
        )  # (SlotReady record, did it see interrupts enabled)
        self.coming: dict[int, int] = defaultdict(int)  # IPIs about to be sent or on the wire
        self.pending: dict[int, bool] = defaultdict(bool)
        self.raised: dict[int, bool] = defaultdict(bool)
        self.running: dict[int, bool] = defaultdict(bool)
        self.enabled_at: dict[int, int] = {}
        self.owed: dict[tuple[int, int], int] = defaultdict(int)
        self.on_the_wire: dict[tuple[int, int], int] = defaultdict(int)
        self.dead: set[int] = set()  # who panicked: they sleep on nothing

    def see(self, record) -> int | None:
        """Take in one record; return the kernel that now sleeps on a message, if one does."""
        event = record.event
        kind = type(event)
        if kind is AllRegistered:
            self.enabled = dict.fromkeys(range(event.kernels), True)
            return None
        if kind is SlotReady:
            kernel = event.ring
            self.unread[kernel].append((record, self.enabled.get(kernel)))
            if self.enabled.get(kernel):
                self.coming[kernel] += 1
                self.owed[event.sender, kernel] += 1
        elif kind is IpiSent:
            kernel = event.dst
            self.on_the_wire[event.src, kernel] += 1
            if self.owed[event.src, kernel]:
                self.owed[event.src, kernel] -= 1
            else:
                self.coming[kernel] += 1
        elif kind in (IpiArrived, IpiLost):
            kernel = event.kernel
            if self.on_the_wire[event.src, kernel]:  # else a spurious one, or a second copy
                self.on_the_wire[event.src, kernel] -= 1
                self.coming[kernel] -= 1
            self.pending[kernel] |= kind is IpiArrived
        elif kind is KernelPanicked:
            self.dead.add(event.kernel)
            return None
        elif kind is PollingStarted:
            self.running[event.kernel] = True  # and never ends
            return None
        elif kind is InterruptTaken:
            kernel = event.kernel
            self.pending[kernel], self.raised[kernel] = False, True
        elif kind is SoftirqEntered:
            kernel = event.kernel
            self.raised[kernel], self.running[kernel] = False, True
        elif kind is SoftirqExited:
            kernel = event.kernel
            self.running[kernel] = False
        elif kind is MessageRead:
            kernel = event.ring
            self.unread[kernel] = [
                (r, told) for r, told in self.unread[kernel] if r.event.ticket != event.ticket
            ]
        elif kind is WindowPublished:
            kernel = event.kernel
            self.enabled[kernel] = True
        else:
            kernel = event.ring
            self.enabled[kernel] = kind is InterruptsEnabled
            if kind is InterruptsEnabled:
                self.enabled_at[kernel] = record.seq
        asleep = self.idle(kernel) and self.coming[kernel] <= 0
        return kernel if asleep and self.unread[kernel] else None

    def idle(self, kernel: int) -> bool:
        awake = self.running[kernel] or self.raised[kernel] or self.pending[kernel]
        return not awake and kernel not in self.dead

    def never_woken(self) -> Iterator[tuple[int, Record]]:
        """At the end: who sleeps on a message whose sender still owes the interrupt."""
        for kernel, unread in self.unread.items():
            owed = sum(count for (_, to), count in self.owed.items() if to == kernel)
            if unread and self.idle(kernel) and self.coming[kernel] <= owed:
                yield kernel, unread[0][0]


# -- long messages and multicast -------------------------------------------------------------------


def long_messages_arrive_whole(run) -> Finding | None:
    """A long message is handed over with all its own chunks and no other's, once its sender has
    sent the last."""
    sent: dict[tuple[int, int, int], Record] = {}
    done: set[tuple[int, int, int]] = set()
    for record in trace_of(run).records(
        LongSendEnded, ChunkStored, ChunkLost, LongMessageComplete, LongMessageCorrupted
    ):
        event, kind = record.event, type(record.event)
        if kind is LongSendEnded:
            sent[event.to, event.sender, event.number] = record
        elif kind is LongMessageComplete:
            done.add((event.kernel, event.sender, event.number))
        elif kind is LongMessageCorrupted or kind is ChunkLost or event.into != event.number:
            return Finding(
                "long_messages_arrive_whole", record.seq, record.time,
                f"{event}: two long messages of kernel {event.sender} are under way at once, and "
                "the receiver tells their chunks apart by nothing but their sender. A number in "
                "each chunk would do.",
            )  # fmt: skip
    for key, record in sent.items():
        if key not in done:
            return Finding(
                "long_messages_arrive_whole", record.seq, record.time,
                f"kernel {key[1]} has sent its long message {key[2]}, and kernel {key[0]} never "
                "had all of its chunks.",
            )  # fmt: skip


def multicast_reaches_each_member_once(run) -> Finding | None:
    """Every live member reads every message of its channel once, in order, and not its own; and a
    slot is freed by its last reader, not before."""
    members: dict[int, set[int]] = {}
    unread: dict[tuple[int, int], set[int]] = {}
    written: dict[tuple[int, int], Record] = {}
    dead: set[int] = set()

    def broken(record, sentence: str) -> Finding:
        return Finding("multicast_reaches_each_member_once", record.seq, record.time, sentence)

    for record in trace_of(run).records(
        ChannelTaken, McastWritten, McastRead, McastSlotFreed, MemberRemoved, ChannelClosed,
        McastGaveUp, KernelPanicked,
    ):  # fmt: skip
        event, kind = record.event, type(record.event)
        if kind is KernelPanicked:
            dead.add(event.kernel)
            continue
        if kind is ChannelTaken:
            if event.channel in members:
                return broken(
                    record, f"kernel {event.owner} takes channel {event.channel}, which is taken: "
                    "looking for a free channel and taking it must be one step, under a lock.",
                )  # fmt: skip
            members[event.channel] = set(members_of(event.members))
            continue
        channel = event.channel
        if kind is ChannelClosed:
            members.pop(channel, None)
            continue
        if kind is MemberRemoved:
            members[channel].discard(event.member)
            for (other, _), left in unread.items():
                if other == channel:
                    left.discard(event.member)
            continue
        key = channel, event.ticket
        if kind is McastGaveUp:
            return broken(
                record, f"kernel {event.sender} goes with ticket {event.ticket} of channel "
                f"{channel} taken and nothing written: no member gets past it.",
            )  # fmt: skip
        if kind is McastWritten:
            unread[key], written[key] = members[channel] - {event.sender}, record
        elif kind is McastRead:
            if event.kernel not in unread.get(key, ()):
                return broken(
                    record, f"kernel {event.kernel} reads ticket {event.ticket} of channel "
                    f"{channel}, which is its own, or which it has read before.",
                )  # fmt: skip
            unread[key].discard(event.kernel)
        elif left := unread.get(key):
            return broken(
                record, f"kernel {event.kernel} frees slot {event.slot} of channel {channel}, and "
                f"kernel {min(left)} has not read it: only the last reader may.",
            )  # fmt: skip
    for (channel, ticket), left in unread.items():
        if left - dead:
            record = written[channel, ticket]
            return broken(
                record, f"kernel {min(left - dead)} never reads ticket {ticket} of channel "
                f"{channel}, which kernel {record.event.sender} wrote for all members.",
            )  # fmt: skip


def only_the_interested_are_notified(run) -> Finding | None:
    """A service has one owner. Of each change every live kernel that is interested hears once, and
    no other kernel does."""
    owner: dict[int, int] = {}
    interested: dict[int, set[int]] = defaultdict(set)
    owed: dict[tuple[int, int, int, bool], list[Record]] = defaultdict(list)
    dead: set[int] = set()

    def broken(record, sentence: str) -> Finding:
        return Finding("only_the_interested_are_notified", record.seq, record.time, sentence)

    for record in trace_of(run).records(
        ServiceRegistered, ServiceGone, Subscribed, Unsubscribed, SubscriberDropped,
        ServiceNotified, KernelPanicked,
    ):  # fmt: skip
        event, kind = record.event, type(record.event)
        if kind is KernelPanicked:
            dead.add(event.kernel)
        elif kind is ServiceRegistered:
            if event.service in owner:
                return broken(
                    record, f"service {event.service} is given to kernel {event.owner}, and kernel "
                    f"{owner[event.service]} has it: each would get half of the requests.",
                )  # fmt: skip
            owner[event.service] = event.owner
        elif kind is ServiceGone:
            owner.pop(event.service, None)
        elif kind is Subscribed:
            new = event.kernel not in interested[event.service]
            interested[event.service].add(event.kernel)
            if new and event.service in owner:
                owed[event.kernel, event.service, owner[event.service], True].append(record)
        elif kind is not ServiceNotified:
            interested[event.service].discard(event.kernel)
        elif event.service >= FIRST_SERVICE:
            waiting = owed[event.kernel, event.service, event.owner, event.there]
            if not waiting:
                return broken(
                    record, f"kernel {event.kernel} hears of service {event.service}, and is not "
                    "interested in it, or has heard so before: it costs it a message for nothing.",
                )  # fmt: skip
            waiting.pop(0)
        if kind in (ServiceRegistered, ServiceGone):
            for kernel in interested[event.service] - {event.owner}:
                there = kind is ServiceRegistered
                owed[kernel, event.service, event.owner, there].append(record)
    for (kernel, service, _, _), waiting in owed.items():
        if waiting and kernel not in dead:
            return broken(
                waiting[0], f"kernel {kernel} is interested in service {service}, and never hears "
                "of this change.",
            )  # fmt: skip


# -- crashes ------------------------------------------------------------------------------------

OWNER = {  # what changes a receiver's own rows, and the field that says whose
    **dict.fromkeys((MessageRead, InterruptsEnabled, InterruptsDisabled), "ring"),
    **dict.fromkeys((MessageDelivered, MessageDropped, InterruptTaken), "kernel"),
    **dict.fromkeys((SoftirqEntered, SoftirqExited), "kernel"),
}
KERNELS_ACTOR = re.compile(r"^kernel (\d+)\b")


def crash_stays_in_its_kernel(run) -> Finding | None:
    """After a panic the dead kernel does nothing more, and nobody touches another kernel's own
    memory: what the others learn of it arrives as a message, or not at all."""
    dead: dict[int, int] = {}
    for record in trace_of(run):
        event = record.event
        kind = type(event)
        if kind is KernelPanicked:
            dead[event.kernel] = record.seq
            continue
        if kind is KernelJumped:  # the operator booted it again
            dead.pop(event.kernel, None)
        found = KERNELS_ACTOR.match(record.who)
        if not dead or found is None:
            continue
        me = int(found[1])
        if me in dead:
            return Finding(
                "crash_stays_in_its_kernel", record.seq, record.time,
                f"{record.who} acts although kernel {me} panicked at record {dead[me]}: with a "
                "kernel, all that runs on it ends.",
            )  # fmt: skip
        whose = getattr(event, OWNER[kind]) if kind in OWNER else me
        if whose != me:
            return Finding(
                "crash_stays_in_its_kernel", record.seq, record.time,
                f"{record.who} changes what belongs to kernel {whose} alone ({kind.__name__}), "
                "after a panic. Kernels share nothing but their rings, so that none can take "
                "another with it.",
            )  # fmt: skip


def the_dead_are_noticed(run) -> Finding | None:
    """Where kernels send keepalives, each live one declares a dead peer dead within three periods
    of its panic; and none declares a live one dead."""
    panicked: dict[int, Record] = {}
    declared: dict[tuple[int, int], int] = {}
    talking: set[int] = set()
    last = 0
    for record in trace_of(run).records(
        KernelPanicked, PeerDeclaredDead, MessageDelivered, MessageDropped, PeerMissed
    ):
        event, kind = record.event, type(record.event)
        last = record.time
        if kind is KernelPanicked:
            panicked[event.kernel] = record
        elif kind is PeerDeclaredDead:
            if event.peer not in panicked:
                return Finding(
                    "the_dead_are_noticed", record.seq, record.time,
                    f"kernel {event.kernel} declares kernel {event.peer} dead, and it lives. Not "
                    "to be heard for one period may be bad luck.",
                )  # fmt: skip
            declared[event.kernel, event.peer] = record.time
        elif kind is not PeerMissed and event.type == MessageType.KEEPALIVE:
            talking |= {event.kernel, event.sender}
    for dead, record in panicked.items():
        until = record.time + 3 * PERIOD_NS + PERIOD_NS // 10  # a period's messages take time
        for kernel in sorted(talking - set(panicked)):
            if declared.get((kernel, dead), last + 1 if last >= until else 0) > until:
                return Finding(
                    "the_dead_are_noticed", record.seq, record.time,
                    f"kernel {dead} panics, and kernel {kernel} has not noticed after three "
                    "periods of keepalives: it will send to it, and wait, for ever.",
                )  # fmt: skip


# -- progress -----------------------------------------------------------------------------------


def no_deadlock(run) -> Finding | None:
    """At the end nobody is stuck; if somebody is, say who waits for whom."""
    trace = trace_of(run)
    blocked: dict[tuple, object] = {}
    for record in trace.records(
        SenderBlocked, SenderSlept, HeadOfLineWait, PayloadCopied, MessageRead, SendFailed
    ):
        event = record.event
        kind = type(event)
        if kind in (SenderBlocked, SenderSlept):
            blocked["send", event.ring, event.ticket] = record
        elif kind is SendFailed:  # it has given up
            for key, wait in list(blocked.items()):
                if key[:2] == ("send", event.to) and wait.who == record.who:
                    del blocked[key]
        elif kind is HeadOfLineWait:
            blocked["read", event.ring, event.ticket] = record
        elif kind is MessageRead:
            blocked.pop(("read", event.ring, event.ticket), None)
        else:
            blocked.pop(("send", event.ring, event.ticket), None)
    if not blocked:
        return None
    edges: dict[int, tuple[int, str]] = {}
    for (what, ring, ticket), record in blocked.items():
        event = record.event
        if what == "send" and _is_softirq(record.who) or event.sender not in edges:
            if what == "send":
                edges[event.sender] = ring, f"kernel {event.sender} waits for space in ring {ring}"
        if what == "read":
            edges[ring] = (
                event.sender,
                f"kernel {ring} waits for ticket {ticket} of kernel {event.sender}",
            )
    last = max(blocked.values(), key=lambda record: record.seq)
    cycle = _cycle(edges)
    if cycle:
        story = ", ".join(edges[kernel][1] for kernel in cycle)
        sentence = f"deadlock: {story}. Each waits for the other, so none of them will ever go on."
    else:
        waits = sorted({edges[kernel][1] for kernel in edges})
        sentence = (
            f"{', '.join(waits[:4])}{' and more' if len(waits) > 4 else ''}, and nobody will make "
            "it happen: the run ended there."
        )
    return Finding("no_deadlock", last.seq, last.time, sentence)


def _is_softirq(who: str) -> bool:
    return who.endswith("softirq")


def _cycle(edges: dict[int, tuple[int, str]]) -> list[int]:
    """A closed chain of waits, starting at its smallest kernel; empty if there is none."""
    for start in sorted(edges):
        path, kernel = [], start
        while kernel in edges and kernel not in path:
            path.append(kernel)
            kernel = edges[kernel][0]
        if kernel == start and path:
            return path
    return []


# -- booting ------------------------------------------------------------------------------------


ENDS_OF_A_BOOT = (  # kinds of event that say why a kernel does not come up
    RamdiskRefused, CommandLineRefused, SegmentRefused, CpuRefused, MarkerMissing, TripleFault,
    WrongKernelEntered, WrongLineTaken, ForeignMemoryTaken, ForeignCpusTaken, KernelPanicked,
    TimerHangs,
)  # fmt: skip


def every_secondary_comes_up(run) -> Finding | None:
    """Every kernel that was planned checks in; of the first that does not, the trace says why."""
    planned: dict[int, Record] = {}
    why: dict[int, Record] = {}
    target_of: dict[int, int] = {}
    stopped = None
    for record in trace_of(run).records(
        BootArgsWritten, ApicIdFound, CheckedIn, *ENDS_OF_A_BOOT, StoryStopped
    ):
        event = record.event
        kind = type(event)
        if kind is BootArgsWritten:
            planned[event.kernel] = record
        elif kind is ApicIdFound:
            target_of[event.cpu] = event.kernel
        elif kind is CheckedIn:
            planned.pop(event.kernel, None)
        elif kind is StoryStopped:
            stopped = record
        else:
            kernel = event.kernel if "kernel" in event.fields else target_of.get(event.cpu)
            why.setdefault(kernel, record)
    for kernel, record in planned.items():
        reason, ended = "no record says why", why.get(kernel, stopped)
        if ended:
            record, reason = ended, str(ended.event)
        return Finding(
            "every_secondary_comes_up", record.seq, record.time,
            f"kernel {kernel} was planned and never checks in: {reason}. {around(record.seq)}",
        )  # fmt: skip


def no_cpu_has_two_kernels(run) -> Finding | None:
    """A CPU that runs a kernel is not reset for another, and no CPU starts a kernel twice."""
    owner: dict[int, Record] = {}
    for record in trace_of(run).records(PrimaryBooted, OwnCpuStarted, KernelJumped, InitAsserted):
        event = record.event
        runs = owner.get(event.cpu)
        if runs is None:
            if type(event) is not InitAsserted:
                owner[event.cpu] = record
            continue
        kernel, seq = runs.event.kernel, runs.seq
        what = (
            f"CPU {event.cpu} is reset, although kernel {kernel} runs on it since record {seq}"
            if type(event) is InitAsserted
            else f"kernel {event.kernel} starts on CPU {event.cpu}, which kernel {kernel} has had "
            f"since record {seq}"
        )
        return Finding(
            "no_cpu_has_two_kernels", record.seq, record.time,
            f"{what}. A CPU belongs to one kernel, and INIT asks nobody.",
        )  # fmt: skip


def marker_proves_the_trampoline(run) -> Finding | None:
    """The primary believes a marker only if this CPU wrote it since its INIT; and it reports
    success if, and only if, it saw one."""
    reset: dict[int, int] = {}
    written: dict[int, int] = {}
    seen: dict[int, int] = {}
    last = -1
    for record in trace_of(run).records(InitAsserted, MarkerWritten, MarkerSeen, BootReturned):
        event = record.event
        kind, cpu, seq = type(event), event.cpu, record.seq
        sentence = ""
        if kind is InitAsserted:
            reset[cpu] = seq
            seen.pop(cpu, None)
        elif kind is MarkerWritten:
            written[cpu] = last = seq
        elif kind is MarkerSeen:
            seen[cpu] = seq
            if written.get(cpu, -1) < reset.get(cpu, -1) or cpu not in written:
                sentence = (
                    f"the primary takes a marker for CPU {cpu}'s, which has written none since "
                    f"its INIT: what it sees is left over from record {last}. The marker must be "
                    "set back to 0 after each boot."
                )
        elif event.result == 0 and cpu not in seen:
            sentence = f"multikernel_boot reports success, and CPU {cpu}'s marker was never seen."
        elif event.result and cpu in seen:
            sentence = (
                f"multikernel_boot reports a failure, although it saw CPU {cpu}'s marker at record "
                f"{seen[cpu]}: the trampoline runs, and the kernel may well come up."
            )
        if sentence:
            return Finding("marker_proves_the_trampoline", seq, record.time, sentence)


def boot_params_are_read_in_time(run) -> Finding | None:
    """Nobody rewrites the one boot_params page before the kernel it was written for has read it."""
    latest: dict[type[Event], Record] = {}
    mine: dict[tuple[type[Event], int], Record] = {}
    names = {CommandLineWritten: "command line", RamdiskNoted: "ramdisk"}
    for record in trace_of(run).records(CommandLineWritten, RamdiskNoted, BootParamsCopied):
        event = record.event
        if type(event) is not BootParamsCopied:
            latest[type(event)] = mine[type(event), event.kernel] = record
            continue
        for kind, what in names.items():
            there = latest.get(kind)
            if there is None or there.event.kernel == event.kernel:
                continue
            own = mine.get((kind, event.kernel))
            before = f" (its own was written at record {own.seq})" if own else ""
            return Finding(
                "boot_params_are_read_in_time", record.seq, record.time,
                f"kernel {event.kernel} reads the {what} of kernel {there.event.kernel}, written "
                f"at record {there.seq}{before}. All kernels boot from one boot_params page: boot "
                "them one after the other.",
            )  # fmt: skip


def everybody_checks_in_once(run) -> Finding | None:
    """Each kernel that joins sends one check-in to each that was there before: n (n - 1) / 2."""
    joined: list[Record] = []
    sent: dict[tuple[int, int], int] = {}
    for record in trace_of(run).records(WindowPublished, PayloadCopied):
        event = record.event
        if type(event) is WindowPublished:
            joined.append(record)
        elif event.type == MessageType.CHECKIN:
            pair = event.sender, event.ring
            if pair in sent:
                return Finding(
                    "everybody_checks_in_once", record.seq, record.time,
                    f"kernel {pair[0]} checks in with kernel {pair[1]} a second time (first at "
                    f"record {sent[pair]}).",
                )  # fmt: skip
            sent[pair] = record.seq
    for place, record in enumerate(joined):
        for earlier in joined[:place]:
            pair = record.event.kernel, earlier.event.kernel
            if pair not in sent:
                return Finding(
                    "everybody_checks_in_once", record.seq, record.time,
                    f"kernel {pair[0]} joins and never checks in with kernel {pair[1]}, which was "
                    f"there before it: {len(joined)} kernels need "
                    f"{len(joined) * (len(joined) - 1) // 2:,} check-ins, and there are "
                    f"{len(sent):,}.",
                )  # fmt: skip


ALL: dict[str, Callable] = {
    check.__name__: check
    for check in (
        tickets_are_unique,
        no_slot_is_used_twice,
        ready_comes_last,
        every_message_is_read,
        every_read_message_is_handled,
        fifo_per_sender,
        high_before_normal,
        no_needless_interrupts,
        no_lost_wakeup,
        long_messages_arrive_whole,
        multicast_reaches_each_member_once,
        only_the_interested_are_notified,
        the_dead_are_noticed,
        no_deadlock,
        crash_stays_in_its_kernel,
        every_secondary_comes_up,
        no_cpu_has_two_kernels,
        marker_proves_the_trampoline,
        boot_params_are_read_in_time,
        everybody_checks_in_once,
    )
}
ONLY_OF = {  # which kinds a check reads: without them it need not look
    "long_messages_arrive_whole": {"LongSendBegun"},
    "multicast_reaches_each_member_once": {"ChannelTaken"},
    "only_the_interested_are_notified": {"Subscribed", "ServiceRegistered"},
    "the_dead_are_noticed": {"PeerMissed"},
    "crash_stays_in_its_kernel": {"KernelPanicked"},
    "every_secondary_comes_up": {"BootArgsWritten"},
    "no_cpu_has_two_kernels": {"PrimaryBooted", "KernelJumped"},
    "marker_proves_the_trampoline": {"MarkerSeen", "BootReturned"},
    "boot_params_are_read_in_time": {"BootParamsCopied"},
    "everybody_checks_in_once": {"WindowPublished"},
}


def all(run) -> list[Finding]:  # noqa: A001  (reads well as checks.all(run))
    """Every rule that the run breaks, each with its first record; empty when all hold."""
    happened = trace_of(run).kinds().keys()
    findings = [
        check(run)
        for name, check in ALL.items()
        if name not in ONLY_OF or not ONLY_OF[name].isdisjoint(happened)
    ]
    return [finding for finding in findings if finding]

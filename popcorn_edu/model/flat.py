"""The same protocol, flat: the stories of messaging.py as one state machine over whole numbers.

Read messaging.py to learn what happens and why. This file says nothing new: it plays the very
same stories, record for record and byte for byte, three times as fast, for long runs and for
sweeps over many. messaging.py stays the reference; tests/model/test_flat.py holds this file
against it.

What makes it fast: no generator is resumed and no event is built. Where an actor stands in its
story is a number, what it knows is in lists, and what it says goes straight into the columns of
the trace. The price: the protocol is in pieces, and they fit the kit's own stories only. Whatever
else there is (a learner's story, a fork's edit, a kernel that boots) is the readable engine's, and
so is every error: then ``play`` answers None.

Words
    turn     what one actor does at one time. Actors are numbered as sim.py numbers them
    state    what an actor does when its turn comes: the line of its story after a Delay or Until
    message  its number among all messages of the run: by ring, and within a ring by ticket
    row      the fields that PayloadCopied and MessageRead have in common
"""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from heapq import heappop, heappush, heappushpop
from itertools import accumulate, chain
from pathlib import Path
from types import FunctionType
from typing import NamedTuple
from zlib import crc32

from popcorn_edu.engine.steps import Until
from popcorn_edu.engine.trace import (
    CHUNK_RECORDS,
    LAST_TIME,
    PopcornError,
    Trace,
    _mixed,
    near_names,
    place_in_line,
    shuffle,
)
from popcorn_edu.model.messaging import (
    KMSG_VECTOR,
    BudgetSpent,
    InterruptTaken,
    IpiArrived,
    IpiSent,
    LookedAgain,
    MessageDelivered,
    Setup,
    SoftirqEntered,
    SoftirqExited,
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
    RingSeenEmpty,
    SenderBlocked,
    SlotReady,
    TicketTaken,
)

# The readable engine has limits on time and on stories, and an error for each. Long before them:
END_NS_AT_MOST = 2**62
ACTING_AT_MOST = 5_000
TURN_RECORDS = 4  # at most, in one turn: a message read, the budget spent, the ring seen empty
ROW_FIELDS = 8  # and no record has more

KINDS = (
    AllRegistered, TicketTaken, SenderBlocked, PayloadCopied, SlotReady, IpiSent, IpiArrived,
    InterruptTaken, InterruptsDisabled, SoftirqEntered, HeadOfLineWait, MessageRead, BudgetSpent,
    RingSeenEmpty, InterruptsEnabled, LookedAgain, MessageDelivered, SoftirqExited,
)  # fmt: skip
(
    ALL_REGISTERED, TICKET_TAKEN, SENDER_BLOCKED, PAYLOAD_COPIED, SLOT_READY, IPI_SENT, IPI_ARRIVED,
    INTERRUPT_TAKEN, INTERRUPTS_DISABLED, SOFTIRQ_ENTERED, HEAD_OF_LINE_WAIT, MESSAGE_READ,
    BUDGET_SPENT, RING_SEEN_EMPTY, INTERRUPTS_ENABLED, LOOKED_AGAIN, MESSAGE_DELIVERED,
    SOFTIRQ_EXITED,
) = range(len(KINDS))  # fmt: skip
FIELD_COUNTS = tuple(len(kind.fields) for kind in KINDS)
SUMMARY_NUMBERS = 13  # so many of what ``measure`` finds are in figures.summary, and first

# The states, those first that are asked for most.
(
    READ, TICKET, COPIED, DISPATCHED, THOUGHT, SPACE,
    IPI_WRITTEN, IPI_COMES, ISR_WAITS, ISR_WOKEN, ISR_DONE,
    RAISED, ENTERED, NEXT_READY, POLL_LEFT, ENABLED, LOOKED, BEGUN, OVER, END,
) = range(20)  # fmt: skip
NOTHING_MORE, POLL, SENT, DELIVER = range(4)  # what follows in the same turn

IS_RAISED, RUNS = 1, 2  # messaging.Softirq as two bits
HIGH, NORMAL = int(Priority.HIGH), int(Priority.NORMAL)
NO_ROW = (0,) * ROW_FIELDS
ACTORS, NAMES = 0, 1  # what ``begun`` counts
IPI_COLUMNS = 5


PLAYED = {  # what is told here of each choice of a Setup
    "full_rule": ("own slot", "whole ring"),
    "interrupt_rule": ("when asked",),
    "mitigation": ("poll until empty",),
    "bottom_half": ("softirq",),
    "keepalive": (False,),
}


class Columns(NamedTuple):
    """What is said and not in the trace yet."""

    kinds: list[int]  # places in KINDS
    fields: list[int]
    turns: list[int]  # four numbers for each, as Trace.write wants them


class Sender(NamedTuple):
    """A process that thinks, sends, thinks, sends, as scenarios.send_some tells it."""

    to: int
    gaps: Sequence[int]
    priorities: Sequence[Priority]
    type: MessageType


class Choices(NamedTuple):
    """What does not change in a run."""

    slots: int
    budget: int
    look_again: int
    whole_ring: int
    kernels: int
    actors: int  # those that are there from the start: all but the IPIs on the wire
    shuffle: int  # the schedule seed's bits; -1 if nobody shuffles
    wire_ns: int


class Delays(NamedTuple):
    """In ns. The first three are of pairs: [me * kernels + other]."""

    take: list[int]
    copy: list[int]
    read: list[int]
    icr: list[int]
    isr: list[int]
    softirq: list[int]
    poll_exit: list[int]
    look: list[int]
    dispatch: list[int]


class Actors(NamedTuple):
    """By an actor's number. The first IPI_COLUMNS have room for IPIs, which begin in the run."""

    state: list[int]
    kernel: list[int]  # whose it is; of an IPI, whom it interrupts
    to: list[int]  # whom it sends to; of an IPI, who sent it
    stamp: list[int]  # its name, as the trace numbers names
    cause: list[int]  # the record that woke it, until it has written one of its own
    type: list[int]  # of the message that it sends now
    number: list[int]
    ticket: list[int]
    priority: list[int]
    payload: list[int]
    next: list[int]  # its next message's place in ``gaps`` and ``priorities``, and where they end
    end: list[int]


class Kernels(NamedTuple):
    """By a kernel's number, which is its ring's too."""

    head: list[int]
    tail: list[int]
    enabled: list[int]  # int_enabled
    sent: list[int]
    free: list[int]  # when its CPU will be
    softirq: list[int]  # IS_RAISED, RUNS
    polled: list[int]  # messages read since the poll began
    awaited: list[int]  # the ticket for whose ready flag it spins, or -1
    crowded: list[int]  # how many wait for any message to be read (full_rule "whole ring")
    crowd: list[int]  # and who: [ring * actors + n]
    high: list[int]  # HIGH messages read and not delivered
    next_high: list[int]  # the messages that may be delivered next
    next_normal: list[int]
    delivering: list[int]
    first: list[int]  # its ring's first message
    isr_of: list[int]  # actors
    softirq_of: list[int]
    ipi_stamp: list[int]  # the name of the IPIs to it, -1 before the first


class Messages(NamedTuple):
    """By a message's number."""

    rows: list[tuple[int, ...]]
    ready: list[int]  # 1 from its ready flag until it is delivered
    holder: list[int]  # the kernel that has its ticket
    waiter: list[int]  # the actor that waits for it to be read, or 0


class Script(NamedTuple):
    """What is sent: by the senders, one after the other, and by the callbacks."""

    gaps: list[int]
    priorities: Sequence[int]
    replies: list[int]  # by the type that is answered; -1 is no answer


def advance(
    choices, delays, script, actors, kernels, messages, queue, begun, columns, base, enough
):  # fmt: skip
    """Play on until all is over, or ``enough`` records are written. Answers how many records,
    fields, and numbers about turns there are in ``columns`` now.

    queue   who acts when: (time, place among those of that time, actor)
    begun   how many actors, and how many names, there have been
    base    the number of the first record
    """
    slots, budget, look_again, whole_ring, width, static, shuffle, wire_ns = choices
    take_ns, copy_ns, read_ns, icr_ns, isr_ns, enter_ns, leave_ns, look_ns, dispatch_ns = delays
    (
        states, kernel_of, to_of, stamps, causes, type_of, number_of, ticket_of, priority_of,
        payload_of, next_of, end_of,
    ) = actors  # fmt: skip
    (
        head, tail, enabled, sent, free, mode, polled, awaited, crowded, crowd, high, next_high,
        next_normal, delivering, first, isr_of, softirq_of, ipi_stamp,
    ) = kernels  # fmt: skip
    gaps, priorities, replies = script
    rows, ready, holder, waiter = messages
    kinds, fields, turns = columns
    r = f = t = me = 0
    due = -1  # when the actor whose turn it was acts again; -1 if it waits, or is over
    while r < enough:
        if due >= 0:
            place = me if shuffle < 0 else place_in_line(shuffle, due, me)
            now, place, me = heappushpop(queue, (due, place, me))
        else:
            now, place, me = heappop(queue)
        state, kernel, start = states[me], kernel_of[me], r
        turns[t : t + 4] = r, now, stamps[me], causes[me]  # it counts if the turn says something
        due, busy, woken, then = -1, 0, 0, NOTHING_MORE

        if state == READ:
            message = first[kernel] + tail[kernel]
            row = rows[message]
            kinds[r] = MESSAGE_READ
            fields[f : f + 8] = row
            tail[kernel] += 1
            polled[kernel] += 1
            if row[6] == HIGH:
                high[kernel] += 1
            woken = waiter[message]
            if woken:
                causes[woken] = base + r
            if crowded[kernel]:
                for n in range(kernel * static, kernel * static + crowded[kernel]):
                    other = crowd[n]
                    causes[other] = base + r
                    place = other if shuffle < 0 else place_in_line(shuffle, now, other)
                    heappush(queue, (now, place, other))
                crowded[kernel] = 0
            r += 1
            f += 8
            then = POLL

        elif state == TICKET:
            to, number = to_of[me], sent[kernel]
            ticket = head[to]
            ticket_of[me], number_of[me] = ticket, number
            head[to], sent[kernel] = ticket + 1, number + 1
            holder[first[to] + ticket] = kernel
            kinds[r] = TICKET_TAKEN
            fields[f : f + 4] = to, ticket, kernel, number
            r += 1
            f += 4
            if (ticket + 1 if whole_ring else ticket) - tail[to] < slots:
                busy, states[me] = copy_ns[kernel * width + to], COPIED
            else:
                kinds[r] = SENDER_BLOCKED
                fields[f : f + 4] = to, ticket, kernel, tail[to]
                r += 1
                f += 4
                states[me] = SPACE
                if whole_ring:
                    crowd[to * static + crowded[to]] = me
                    crowded[to] += 1
                else:
                    waiter[first[to] + ticket - slots] = me

        elif state == COPIED:
            to, ticket = to_of[me], ticket_of[me]
            slot, message = ticket % slots, first[to] + ticket
            row = (
                to, slot, ticket, kernel, number_of[me], type_of[me], priority_of[me],
                payload_of[me],
            )  # fmt: skip
            rows[message] = row
            ready[message] = 1
            kinds[r] = PAYLOAD_COPIED
            kinds[r + 1] = SLOT_READY
            fields[f : f + 8] = row
            fields[f + 8 : f + 12] = to, slot, ticket, kernel
            r += 2
            f += 12
            if awaited[to] == ticket:
                awaited[to] = -1
                woken = softirq_of[to]
                causes[woken] = base + r - 1
            if enabled[to]:
                busy, states[me] = icr_ns[kernel], IPI_WRITTEN
            else:
                then = SENT

        elif state == DISPATCHED:
            message = delivering[kernel]
            row = rows[message]
            kinds[r] = MESSAGE_DELIVERED
            fields[f : f + 6] = kernel, row[3], row[4], row[5], row[6], row[7]
            r += 1
            f += 6
            then = DELIVER
            reply = replies[row[5]]
            if reply >= 0:
                to_of[me], type_of[me], priority_of[me], payload_of[me] = (
                    row[3], reply, NORMAL, row[7],
                )  # fmt: skip
                busy, states[me] = take_ns[kernel * width + row[3]], TICKET
                then = NOTHING_MORE
            rows[message] = NO_ROW  # its memory can be used again

        elif state == THOUGHT:
            busy, states[me] = take_ns[kernel * width + to_of[me]], TICKET

        elif state == SPACE:
            to = to_of[me]
            if whole_ring and head[to] - tail[to] >= slots:
                crowd[to * static + crowded[to]] = me
                crowded[to] += 1
            else:
                busy, states[me] = copy_ns[kernel * width + to], COPIED

        elif state == IPI_WRITTEN:
            to = to_of[me]
            kinds[r] = IPI_SENT
            fields[f : f + 3] = kernel, to, KMSG_VECTOR
            ipi, begun[ACTORS] = begun[ACTORS], begun[ACTORS] + 1
            if ipi_stamp[to] < 0:
                ipi_stamp[to], begun[NAMES] = begun[NAMES], begun[NAMES] + 1
            states[ipi], kernel_of[ipi], to_of[ipi] = IPI_COMES, to, kernel
            stamps[ipi], causes[ipi] = ipi_stamp[to], base + r
            comes = now + wire_ns
            place = ipi if shuffle < 0 else place_in_line(shuffle, comes, ipi)
            heappush(queue, (comes, place, ipi))
            r += 1
            f += 3
            then = SENT

        elif state == IPI_COMES:
            kinds[r] = IPI_ARRIVED
            fields[f : f + 2] = kernel, to_of[me]
            if states[isr_of[kernel]] == ISR_WAITS:
                woken = isr_of[kernel]
                states[woken], causes[woken] = ISR_WOKEN, base + r
            r += 1
            f += 2
            states[me] = OVER

        elif state == ISR_WOKEN:
            busy, states[me] = isr_ns[kernel], ISR_DONE

        elif state == ISR_DONE:
            kinds[r] = INTERRUPT_TAKEN
            kinds[r + 1] = INTERRUPTS_DISABLED
            fields[f : f + 2] = kernel, kernel
            if mode[kernel] == 0:
                woken = softirq_of[kernel]
                causes[woken] = base + r
            mode[kernel] |= IS_RAISED
            enabled[kernel] = 0
            r += 2
            f += 2
            states[me] = ISR_WAITS  # whatever came meanwhile is served

        elif state == RAISED:
            busy, states[me] = enter_ns[kernel], ENTERED

        elif state == ENTERED:
            mode[kernel] = RUNS
            polled[kernel] = 0
            kinds[r] = SOFTIRQ_ENTERED
            fields[f] = kernel
            r += 1
            f += 1
            then = POLL

        elif state == NEXT_READY:
            message = first[kernel] + tail[kernel]
            busy, states[me] = read_ns[kernel * width + holder[message]], READ

        elif state == POLL_LEFT:
            busy, states[me] = look_ns[kernel], ENABLED

        elif state == ENABLED:
            enabled[kernel] = 1
            kinds[r] = INTERRUPTS_ENABLED
            fields[f] = kernel
            r += 1
            f += 1
            if look_again:
                busy, states[me] = look_ns[kernel], LOOKED
            else:
                then = DELIVER

        elif state == LOOKED:
            found = head[kernel] - tail[kernel]
            kinds[r] = LOOKED_AGAIN
            fields[f : f + 2] = kernel, found
            r += 1
            f += 2
            then = DELIVER
            if found:
                enabled[kernel] = polled[kernel] = 0
                kinds[r] = INTERRUPTS_DISABLED
                fields[f] = kernel
                r += 1
                f += 1
                then = POLL

        elif state == BEGUN:
            then = SENT

        elif state == END:
            break

        if then == POLL:
            if polled[kernel] == budget:
                kinds[r] = BUDGET_SPENT
                fields[f : f + 2] = kernel, budget
                polled[kernel] = 0
                r += 1
                f += 2
            ticket = tail[kernel]
            message = first[kernel] + ticket
            if head[kernel] == ticket:
                kinds[r] = RING_SEEN_EMPTY
                fields[f : f + 2] = kernel, polled[kernel]
                r += 1
                f += 2
                busy, states[me] = leave_ns[kernel], POLL_LEFT
            elif ready[message]:
                busy, states[me] = read_ns[kernel * width + holder[message]], READ
            else:
                kinds[r] = HEAD_OF_LINE_WAIT
                fields[f : f + 4] = kernel, ticket % slots, ticket, holder[message]
                r += 1
                f += 4
                awaited[kernel], states[me] = ticket, NEXT_READY

        elif then == SENT:
            if me == softirq_of[kernel]:
                then = DELIVER  # it was a callback that sent
            elif next_of[me] < end_of[me]:
                n = next_of[me]
                next_of[me] = n + 1
                priority_of[me] = priorities[n]
                payload_of[me] += 1
                due, states[me] = now + gaps[n], THOUGHT
            else:
                states[me] = OVER

        if then == DELIVER:
            end = first[kernel] + tail[kernel]
            if high[kernel]:
                message = next_high[kernel]
                while rows[message][6] != HIGH:
                    message += 1
                high[kernel] -= 1
                next_high[kernel] = message + 1
            else:
                message = next_normal[kernel]
                while message < end and not ready[message]:  # a HIGH one, delivered before
                    message += 1
                next_normal[kernel] = message + 1
            if message < end:
                ready[message], delivering[kernel] = 0, message
                busy, states[me] = dispatch_ns[kernel], DISPATCHED
            else:
                next_high[kernel] = next_normal[kernel] = end
                kinds[r] = SOFTIRQ_EXITED
                fields[f] = kernel
                r += 1
                f += 1
                mode[kernel] -= RUNS
                states[me] = RAISED
                if mode[kernel]:
                    busy, states[me] = enter_ns[kernel], ENTERED

        if woken:
            place = woken if shuffle < 0 else place_in_line(shuffle, now, woken)
            heappush(queue, (now, place, woken))
        if busy:
            due = free[kernel]
            due = (due if due > now else now) + busy
            free[kernel] = due
        if r > start:
            t += 4
            causes[me] = -1
    if due >= 0:
        place = me if shuffle < 0 else place_in_line(shuffle, due, me)
        heappush(queue, (due, place, me))
    return r, f, t


# -- what it works on: plain Python, or what numba compiles ---------------------------------------


class Lists:
    """Lists, the queue of heapq, and the function as it stands above."""

    advance = staticmethod(advance)
    acting = staticmethod(len)
    chunk = CHUNK_RECORDS

    @staticmethod
    def numbers(values: Iterable[int], more: int = 0) -> list[int]:
        return [*values, *([0] * more)]

    @staticmethod
    def tables(group: NamedTuple) -> NamedTuple:
        return group

    @staticmethod
    def rows(count: int) -> list[tuple[int, ...]]:
        return [NO_ROW] * count

    @staticmethod
    def queue(entries: list[tuple[int, int, int]], room: int) -> list[tuple[int, int, int]]:
        return entries

    def columns(self) -> Columns:
        room = self.chunk + TURN_RECORDS
        return Columns(*(self.numbers([], each * room) for each in (1, ROW_FIELDS, 4)))

    @staticmethod
    def write(trace: Trace, columns: Columns, records: int, fields: int, turns: int) -> None:
        kinds, turns = columns.kinds[:records], columns.turns[:turns]
        codes = {kind: trace.code(KINDS[kind]) for kind in dict.fromkeys(kinds)}
        trace.write(
            array("H", map(codes.__getitem__, kinds)),
            array("I", columns.fields[:fields]),
            array("I", map(len(trace).__add__, turns[0::4])),
            array("Q", turns[1::4]),
            array("I", turns[2::4]),
            array("i", turns[3::4]),
        )


class Arrays:
    """Arrays, a queue in one of them, and the same function, compiled by numba."""

    chunk = 4 * CHUNK_RECORDS  # to begin and to stop costs as much as some hundred records

    def __init__(self) -> None:
        try:
            import numba
            import numpy
        except ImportError:
            raise PopcornError("numba is not installed: pip install 'popcorn_edu[fast]'") from None
        self.np = numpy
        # numba keeps what it compiled, and compiles anew when the function's own file has changed.
        # The name tells it of the other files from which it takes constants and functions.
        files = (sys.modules[kind.__module__].__file__ for kind in (Trace, Setup, SlotReady))
        version = f"_{crc32(b''.join(Path(file).read_bytes() for file in files)):x}"

        def compiled(function: Callable, **parts: Callable) -> Callable:
            """The function with others in the place of those it calls, as machine code."""
            scope = vars(sys.modules[function.__module__]) | parts
            twin = FunctionType(function.__code__, scope)
            twin.__qualname__ += version
            return numba.njit(twin, cache=True)

        sink = compiled(_sink)
        self.advance = compiled(
            advance,
            heappush=compiled(_push),
            heappop=compiled(_pop, _sink=sink),
            heappushpop=compiled(_pushpop, _sink=sink),
            place_in_line=compiled(place_in_line, _mixed=compiled(_mixed)),
        )

        self.gather = compiled(_gather)
        self.twister = numpy.random.MT19937(0)

    def draws(self, text: str, below: int, count: int) -> list[int]:
        """As Random.randrange: the upper bits of each word; what is too large is left out."""
        _, (*key, position), _ = random.Random(text).getstate()
        inner = {"key": self.np.array(key, self.np.uint32), "pos": position}
        self.twister.state = {"bit_generator": "MT19937", "state": inner}
        bits, found = below.bit_length(), []
        while len(found) < count:
            more = (count - len(found)) * 2**bits // below + 16
            words = self.twister.random_raw(more) >> (32 - bits)
            found += words[words < below].tolist()
        return found[:count]

    def numbers(self, values: Iterable[int], more: int = 0):
        values = memoryview(values) if isinstance(values, bytes) else array("q", values)
        column = self.np.zeros(len(values) + more, self.np.int64)
        column[: len(values)] = values
        return column

    def tables(self, group: NamedTuple) -> NamedTuple:
        return type(group)(*map(self.numbers, group))

    def columns(self) -> Columns:
        room, zeros = self.chunk + TURN_RECORDS, self.np.zeros
        return Columns(zeros(room, "B"), zeros(ROW_FIELDS * room, "I"), zeros(4 * room, "q"))

    def rows(self, count: int):
        return self.np.zeros((count, ROW_FIELDS), self.np.int64)

    def queue(self, entries: list[tuple[int, int, int]], room: int):
        queue = self.np.zeros((1 + room, 3), self.np.int64)
        queue[0, 0] = len(entries)
        queue[1 : 1 + len(entries)] = entries  # they are in order already
        return queue

    @staticmethod
    def acting(queue) -> int:
        return queue[0, 0]

    def write(self, trace: Trace, columns: Columns, records: int, fields: int, turns: int) -> None:
        kinds, turns = columns.kinds[:records], columns.turns[:turns].reshape(-1, 4)
        firsts = {n: (kinds == n).argmax() for n in range(len(KINDS)) if n in kinds}
        codes = self.np.zeros(len(KINDS), "H")
        for kind in sorted(firsts, key=firsts.__getitem__):
            codes[kind] = trace.code(KINDS[kind])
        trace.write(
            codes[kinds],
            columns.fields[:fields],
            (turns[:, 0] + len(trace)).astype("I"),
            turns[:, 1].astype("Q"),
            turns[:, 2].astype("I"),
            turns[:, 3].astype("i"),
        )


def _gather(columns, records, turns, places, latency_ns, seen, levels):
    """Count what is in the columns: kinds, how full each ring is, and for each message when its
    ticket was taken (as -2 - ns) until its latency is known."""
    kinds, fields, turn = columns
    sizes = FIELD_COUNTS
    t = f = now = 0
    for r in range(records):
        while t < turns and turn[t] <= r:
            now = turn[t + 1]
            t += 4
        kind = kinds[r]
        seen[kind] += 1
        if kind == TICKET_TAKEN:
            ring = fields[f]
            latency_ns[places[fields[f + 2]] + fields[f + 3]] = -2 - now
            levels[ring, 0] += 1
            if levels[ring, 0] > levels[ring, 2]:
                levels[ring, 2] = levels[ring, 0]
        elif kind == PAYLOAD_COPIED:
            ring = fields[f]
            levels[ring, 1] += 1
            if levels[ring, 1] > levels[ring, 3]:
                levels[ring, 3] = levels[ring, 1]
        elif kind == MESSAGE_READ:
            ring = fields[f]
            levels[ring, 0] -= 1
            levels[ring, 1] -= 1
        elif kind == MESSAGE_DELIVERED:
            place = places[fields[f + 1]] + fields[f + 2]
            latency_ns[place] = now + 2 + latency_ns[place]
        f += sizes[kind]


# heapq's three functions on an array: row 0 holds how many entries there are, row 1 the first.


def _push(queue, item):
    due, place, actor = item
    n = queue[0, 0] + 1
    queue[0, 0] = n
    while n > 1:
        up = n // 2
        if queue[up, 0] < due or (queue[up, 0] == due and queue[up, 1] < place):
            break
        queue[n] = queue[up]
        n = up
    queue[n] = due, place, actor


def _sink(queue, due, place, actor):
    """Take the first entry's room for this one."""
    count, n, down = queue[0, 0], 1, 2
    while down <= count:
        other = down + 1
        if other <= count and (
            queue[other, 0] < queue[down, 0]
            or (queue[other, 0] == queue[down, 0] and queue[other, 1] < queue[down, 1])
        ):
            down = other
        if due < queue[down, 0] or (due == queue[down, 0] and place < queue[down, 1]):
            break
        queue[n] = queue[down]
        n, down = down, 2 * down
    queue[n] = due, place, actor


def _pop(queue):
    first = queue[1, 0], queue[1, 1], queue[1, 2]
    last = queue[0, 0]
    queue[0, 0] = last - 1
    _sink(queue, queue[last, 0], queue[last, 1], queue[last, 2])
    return first


def _pushpop(queue, item):
    due, place, actor = item
    if queue[0, 0] == 0 or due < queue[1, 0] or (due == queue[1, 0] and place < queue[1, 1]):
        return item
    first = queue[1, 0], queue[1, 1], queue[1, 2]
    _sink(queue, due, place, actor)
    return first


# -- putting the cast on the stage ----------------------------------------------------------------

ENGINES = {"stories": lambda: None, "lists": Lists, "numba": cache(Arrays)}
_kit = Lists()


@contextmanager
def played_by(engine: str) -> Iterator[None]:
    """Meanwhile runs are played by the "stories" (the readable engine), by "lists" (as always
    where it can be), or by "numba": worth its seconds of compiling where there are many runs."""
    global _kit
    if engine not in ENGINES:
        raise PopcornError(f"there is no engine {engine!r}; {near_names(engine, ENGINES)}")
    before, _kit = _kit, ENGINES[engine]()
    try:
        yield
    finally:
        _kit = before


def play(
    setup: Setup,
    senders: Mapping[int, Sender],
    replies: Mapping[MessageType, MessageType | None],
    meta: dict,
    schedule_seed: int | None,
    record_limit: int,
) -> tuple[Trace, tuple[tuple[str, str], ...]] | None:
    """The trace, and who still waits for what; None if the readable engine must play this.

    replies   for each type that has a callback: the type of its answer, or None
    """
    if _kit is None:
        return None
    stage = _staged(_kit, setup, senders, replies, schedule_seed, meta)
    if stage is None:
        return None
    kit, trace, kernels = stage.kit, stage.trace, stage.kernels
    columns, records = kit.columns(), kit.chunk
    while records >= kit.chunk:
        records, fields, turns = stage.advance(columns, len(trace))
        kit.write(trace, columns, records, fields, turns)
        if len(trace) > record_limit or kit.acting(stage.queue) > ACTING_AT_MOST:
            return None
    for _, kernel in sorted((stamp, kernel) for kernel, stamp in enumerate(kernels.ipi_stamp)):
        if kernels.ipi_stamp[kernel] >= 0:
            trace.actor(f"IPI to kernel {kernel}")
    return trace, tuple(_waiting(trace, stage.choices, stage.actors, kernels))


def measure(
    setup: Setup,
    senders: Mapping[int, Sender],
    replies: Mapping[MessageType, MessageType | None],
    schedule_seed: int | None,
    record_limit: int,
) -> dict | None:
    """The numbers of a run of which no trace is kept: those of figures.summary, in its order, and
    some more. None if it is not "numba" that plays, or not this file: then measure a trace."""
    if not isinstance(_kit, Arrays):
        return None
    stage = _staged(_kit, setup, senders, replies, schedule_seed, {})
    if stage is None:
        return None
    kit, sends = stage.kit, [0] * len(setup.cpus)
    for me, sender in senders.items():
        sends[me] += len(sender.gaps)
        if replies[sender.type] is not None:
            sends[sender.to] += len(sender.gaps)
    places = kit.numbers(accumulate(sends, initial=0))
    latency_ns, seen = kit.numbers([-1] * sum(sends)), kit.numbers([0] * len(KINDS))
    levels = kit.rows(len(sends))  # of each ring: held and in use, now and at most
    columns, records, total, end_ns = kit.columns(), kit.chunk, 1, 0
    while records >= kit.chunk:
        records, _, turns = stage.advance(columns, total)
        total += records
        if total > record_limit or kit.acting(stage.queue) > ACTING_AT_MOST:
            return None
        kit.gather(columns, records, turns, places, latency_ns, seen, levels)
        if turns:
            end_ns = int(columns.turns[turns - 3])
    latency_ns.sort()
    values = latency_ns[latency_ns.searchsorted(0) :]
    sent, delivered, read, blocked, ipis, interrupts = (
        int(seen[kind])
        for kind in (
            TICKET_TAKEN, MESSAGE_DELIVERED, MESSAGE_READ, SENDER_BLOCKED, IPI_SENT, INTERRUPT_TAKEN
        )
    )  # fmt: skip
    heads = [int(head) for head in stage.kernels.head]
    ring = heads.index(max(heads))

    def nearest_rank(percent: int) -> int | None:
        return int(values[max(0, -(-percent * delivered // 100) - 1)]) if delivered else None

    return {
        "records": total,
        "end_ns": end_ns,
        "sent": sent,
        "delivered": delivered,
        "ipis": ipis,
        "interrupts": interrupts,
        "ipis_per_message": ipis / read if read else None,
        "p50_ns": nearest_rank(50),
        "p99_ns": nearest_rank(99),
        "ring": ring,
        "slots": setup.slots,
        "in_use_at_most": int(levels[ring, 3]),
        "held_at_most": int(levels[ring, 2]),
        "p90_ns": nearest_rank(90),
        "max_ns": nearest_rank(100),
        "messages": read,
        "blocked": blocked,
    }


def draws(text: str, below: int, count: int) -> list[int] | None:
    """``count`` times random.Random(text).randrange(below), all at once; None if it is not
    "numba" that plays, since the usual engines do not load numpy."""
    if not isinstance(_kit, Arrays) or below.bit_length() > 32:
        return None
    return _kit.draws(text, below, count)


class Stage(NamedTuple):
    """All that a run needs to begin and go on."""

    kit: Lists | Arrays
    trace: Trace  # with its first record
    choices: Choices
    delays: Delays
    script: Script
    actors: Actors
    kernels: Kernels
    messages: Messages
    queue: Sequence
    begun: Sequence[int]

    def advance(self, columns: Columns, base: int) -> tuple[int, int, int]:
        kit, _, *parts = self
        return kit.advance(*parts, columns, base, kit.chunk)


def _staged(
    kit: Lists | Arrays,
    setup: Setup,
    senders: Mapping[int, Sender],
    replies: Mapping[MessageType, MessageType | None],
    schedule_seed: int | None,
    meta: dict,
) -> Stage | None:
    """Everything in its first state; None if the readable engine must play this."""
    if not _known(setup, senders, replies):
        return None
    counts = _message_counts(setup, senders, replies)
    delays = _delays(setup, senders, counts)
    script = Script(
        list(chain.from_iterable(sender.gaps for sender in senders.values())),
        b"".join(bytes(sender.priorities) for sender in senders.values()),
        [-1 if replies.get(type) is None else int(replies[type]) for type in MessageType],
    )
    wire_ns = setup.costs.ipi_delivery.ns
    longest_ns = max(wire_ns, *map(max, delays))
    if sum(script.gaps) + (sum(counts) + 1) * len(delays) * longest_ns > END_NS_AT_MOST:
        return None

    trace, total = Trace(meta), sum(counts)
    trace.append(0, "machine", None, AllRegistered(len(setup.cpus)))
    trace.pack()
    actors, kernels = _cast(trace, setup, senders, counts)
    static = len(trace.actors)
    choices = Choices(
        min(setup.slots, total + 1), min(setup.budget, total + 1), int(setup.look_again),
        int(setup.full_rule == "whole ring"), len(setup.cpus), static,
        -1 if schedule_seed is None else shuffle(schedule_seed), wire_ns,
    )  # fmt: skip
    ipis = [total] * IPI_COLUMNS + [0] * (len(actors) - IPI_COLUMNS)  # at most one for each message
    starting = [(0, actor, actor) for actor in range(static) if actors.state[actor] == BEGUN]
    delays, script = kit.tables(delays), kit.tables(script)
    actors = Actors(*map(kit.numbers, actors, ipis))
    kernels = kit.tables(kernels)
    messages = Messages(kit.rows(total), *(kit.numbers([], total) for _ in range(3)))
    # The machine's second turn is the end of the run.
    queue = kit.queue([*starting, (LAST_TIME, 0, 0)], static + total)
    begun = kit.numbers([static, static])
    return Stage(
        kit, trace, choices, delays, script, actors, kernels, messages, queue, begun
    )  # fmt: skip


def _known(setup: Setup, senders: Mapping, replies: Mapping) -> bool:
    """Does everybody do what is told here: send to others, who have a callback for it, answer
    at most once; each on a CPU of its own, in steps that take time?"""
    if any(getattr(setup, name) not in known for name, known in PLAYED.items()):
        return False
    costs, width = setup.costs, len(setup.cpus)
    steps = [costs.ipi_delivery]
    for each in (costs.icr, costs.isr, costs.softirq, costs.poll_exit, costs.dispatch):
        steps += each
    for me, sender in senders.items():
        if sender.to == me or not 0 <= sender.to < width or sender.type not in replies:
            return False
        steps += *costs.pair(me, sender.to), *costs.pair(sender.to, me)
    answers = [answer for answer in replies.values() if answer is not None]
    return (
        all(step.ns for step in steps)
        and all(replies.get(answer, answer) is None for answer in answers)
        and len(set(setup.cpus)) == width
    )


def _message_counts(setup: Setup, senders: Mapping, replies: Mapping) -> list[int]:
    """How many messages each ring will carry, if nothing gets stuck."""
    counts = [0] * len(setup.cpus)
    for me, sender in senders.items():
        counts[sender.to] += len(sender.gaps)
        if replies[sender.type] is not None:
            counts[me] += len(sender.gaps)
    return counts


def _delays(setup: Setup, senders: Mapping, counts: Sequence[int]) -> Delays:
    costs, width = setup.costs, len(setup.cpus)
    pairs = [[0] * width**2 for _ in range(3)]
    for me, sender in senders.items():
        for a, b in ((me, sender.to), (sender.to, me)):
            for table, delay in zip(pairs, costs.pair(a, b), strict=True):
                table[a * width + b] = delay.ns
    own = costs.icr, costs.isr, costs.softirq, costs.poll_exit
    look_ns = [costs.look(me).ns if count else 0 for me, count in enumerate(counts)]
    ns = [[delay.ns for delay in each] for each in (*own, costs.dispatch)]
    return Delays(*pairs, *ns[:-1], look_ns, ns[-1])


def _cast(
    trace: Trace, setup: Setup, senders: Mapping, counts: Sequence[int]
) -> tuple[Actors, Kernels]:
    """Everybody in their first state, named and numbered in the order of scenarios._play."""
    cast = [("machine", 0, END)]
    for me in setup.kernels:
        cast += [(f"kernel {me} isr", me, ISR_WAITS), (f"kernel {me} softirq", me, RAISED)]
        if me in senders:
            cast.append((f"kernel {me}", me, BEGUN))
    names, kernel_of, states = map(list, zip(*cast, strict=True))
    for name in names:
        trace.actor(name)
    columns = {field: [0] * len(cast) for field in Actors._fields} | {
        "state": states,
        "kernel": kernel_of,
        "stamp": list(range(len(cast))),
        "cause": [-1] * len(cast),
    }
    actors = Actors(**columns)
    place = 0
    for me, sender in senders.items():
        actor = trace.actor(f"kernel {me}")
        actors.to[actor], actors.type[actor] = sender.to, int(sender.type)
        actors.payload[actor] = -1
        actors.next[actor], place = place, place + len(sender.gaps)
        actors.end[actor] = place
    width, first = len(counts), list(accumulate(counts, initial=0))[:-1]
    kernels = {field: [0] * width for field in Kernels._fields} | {
        "enabled": [1] * width,
        "awaited": [-1] * width,
        "ipi_stamp": [-1] * width,
        "crowd": [0] * width * len(cast),
        "next_high": first.copy(),
        "next_normal": first.copy(),
        "first": first,
        "isr_of": [n for n, state in enumerate(states) if state == ISR_WAITS],
        "softirq_of": [n for n, state in enumerate(states) if state == RAISED],
    }
    return actors, Kernels(**kernels)


def _waiting(
    trace: Trace, choices: Choices, actors: Actors, kernels: Kernels
) -> Iterator[tuple[str, str]]:
    """Whoever is not over waits: all others have had their turn."""
    for actor in range(1, choices.actors):
        state, kernel, ring = actors.state[actor], actors.kernel[actor], actors.to[actor]
        if state == ISR_WAITS:
            until = Until(IpiArrived, kernel=kernel)
        elif state == RAISED:
            until = Until(InterruptTaken, kernel=kernel)
        elif state == NEXT_READY:
            until = Until(SlotReady, ring=kernel, ticket=kernels.awaited[kernel])
        elif state == SPACE and choices.whole_ring:
            until = Until(MessageRead, ring=ring)
        elif state == SPACE:
            until = Until(MessageRead, ring=ring, ticket=actors.ticket[actor] - choices.slots)
        else:
            continue
        yield trace.actors[actor], until.text()

"""What of the model is checked against the real Popcorn, how, and what is not.

Each claim says what is expected, from where that is known, and what the model shows when it is
asked, now: most answers come out of a run. There are four kinds, and only the first three can fail:

    exact          a size, a count, a limit of Popcorn's source: equal, or wrong
    derived        arithmetic over such numbers, or over the model's own constants
    published      somebody measured it and published it: within a stated range
    model default  an assumption of the model; nothing here to compare it with

``claims()`` asks all of them; labs/validation.ipynb shows the table, with what is not modelled.
"""

from __future__ import annotations

import csv
import ctypes
from collections.abc import Callable, Iterator
from html import escape
from typing import NamedTuple

from popcorn_edu import datasets, scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.engine.world import Run
from popcorn_edu.model import devices, long_messages, multicast, rings, trampoline
from popcorn_edu.model.costs import COSTS
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.messaging import (
    GENERATIONS,
    KERNELS_AT_MOST,
    KMSG_VECTOR,
    POLL_BUDGET_MESSAGES,
    BudgetSpent,
    InterruptsEnabled,
    InterruptTaken,
    IpiArrived,
    IpiSent,
    MessageDelivered,
    SoftirqEntered,
)
from popcorn_edu.model.rings import MessageRead, MessageType, SenderBlocked, TicketTaken
from popcorn_edu.readers import checks, figures

KINDS = ("exact", "derived", "published", "model default")
CACHE_LINE_BYTES = 64


class Claim(NamedTuple):
    """One line of the table. ``low`` and ``high`` are equal where the claim is exact."""

    about: str
    kind: str
    low: int | None
    high: int | None
    found: int
    unit: str
    source: str

    @property
    def holds(self) -> bool | None:
        """None where there is nothing to compare with."""
        if self.kind == "model default":
            return None
        return self.low <= self.found <= self.high

    @property
    def expected(self) -> str:
        if self.low is None:
            return "unknown"
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "FAILS", None: "assumed"}[self.holds]


class Claims(tuple[Claim, ...]):
    """All claims; prints as text, shows as a table in a notebook."""

    HEADINGS = ("claim", "kind", "expected", "the model", "unit", "verdict", "source")

    def cells(self) -> list[tuple[str, ...]]:
        return [
            (c.about, c.kind, c.expected, f"{c.found:,}", c.unit, c.verdict, c.source) for c in self
        ]

    def of(self, kind: str) -> Claims:
        if kind not in KINDS:
            raise PopcornError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
        return Claims(claim for claim in self if claim.kind == kind)

    @property
    def failing(self) -> Claims:
        return Claims(claim for claim in self if claim.holds is False)

    def summary(self) -> str:
        """How many of each kind, and how many hold."""
        told = []
        for kind in KINDS:
            mine = self.of(kind)
            held = sum(claim.holds is True for claim in mine)
            judged = f", {held} hold" if kind != "model default" else ": labelled, not validated"
            told.append(f"{kind}: {len(mine)}{judged}")
        return "; ".join(told)

    def __str__(self) -> str:
        rows = [self.HEADINGS, *self.cells()]
        widths = [max(len(row[n]) for row in rows) for n in range(len(self.HEADINGS))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        return figures.table_html(self.HEADINGS, self.cells())


# -- what Popcorn's source fixes -------------------------------------------------------------------


class _Window(ctypes.LittleEndianStructure):
    """pcn_kmsg_window of G1, packed, from the model's own numbers."""

    _pack_ = 1
    _fields_ = [
        ("head", ctypes.c_uint64),
        ("tail", ctypes.c_uint64),
        ("int_enabled", ctypes.c_uint8),
        ("buffer", ctypes.c_uint8 * rings.SLOT_BYTES * rings.RING_SLOTS),
    ]


def _sizes() -> Iterator[Claim]:
    def size(about: str, expected: int, found: int, unit: str = "bytes", where: str = "5.2"):
        return Claim(about, "exact", expected, expected, found, unit, f"facts {where}")

    yield size("a slot of a ring (G1)", 64, rings.SLOT_BYTES)
    yield size("payload of a message (G1)", 60, rings.PAYLOAD_BYTES)
    yield size("slots of a ring (G1)", 64, rings.RING_SLOTS, "slots")
    yield size("slots of a ring (G2)", 8192, GENERATIONS["G2"]["slots"], "slots")
    yield size("a window: head, tail, int_enabled, slots", 4113, ctypes.sizeof(_Window))
    yield size("the same, as the model says", 4113, rings.WINDOW_BYTES)
    yield size("where the first slot begins", 17, _Window.buffer.offset)
    straddling = sum(
        (start % CACHE_LINE_BYTES) + rings.SLOT_BYTES > CACHE_LINE_BYTES
        for start in range(
            rings.BUFFER_OFFSET_BYTES, rings.WINDOW_BYTES, rings.SLOT_BYTES
        )
    )  # fmt: skip
    yield size("slots that straddle two cache lines", 64, straddling, "slots")
    yield size("a multicast window", 4368, multicast.WINDOW_BYTES)
    yield size("multicast channels", 32, multicast.CHANNELS, "channels")
    yield size("kernels at most (G1)", 64, KERNELS_AT_MOST, "kernels", "1.1")
    yield size("the message interrupt's vector", 0xCD, KMSG_VECTOR, "vector", "5.1")
    yield size("messages of one poll", 128, POLL_BUDGET_MESSAGES, "messages", "5.6")
    yield size("chunks of the longest message (G1)", 127, long_messages.chunks_at_most("G1"),
               "chunks", "5.5")  # fmt: skip
    yield size("bytes of the longest message (G1)", 7620, long_messages.bytes_at_most("G1"),
               where="5.5")  # fmt: skip
    yield size("chunks of a page (G1)", 69, long_messages.chunks(4096, 60), "chunks", "5.8")
    yield size("chunks of a page (G2)", 36, long_messages.chunks(4096, 115), "chunks", "5.8")
    kept = devices.read_flags(",".join(f"0x8086:{n:#x}:b" for n in range(1, 18)))
    yield size("blacklist entries kept of 17", 16, len(kept.entries), "entries", "4")


def _boots() -> Iterator[Claim]:
    run = scenarios.boot()
    trace, source = run.trace, "facts 1.4 and 9, smpboot.c"
    asserted = trace.next(trampoline.InitAsserted)
    awaited = trace.next(trampoline.MarkerAwaited, after=asserted.seq)
    took_us = (awaited.time - asserted.time) // 1000
    yield Claim(
        "INIT, then two STARTUP IPIs: the waits alone are 11 ms", "derived", 11_000, 11_010,
        took_us, "us", source,
    )  # fmt: skip
    filled = len(list(trace.records(trampoline.DirectoryFilled)))
    entries = filled * trampoline.ENTRIES_PER_TABLE
    yield Claim("entries that map the first 4 GiB", "exact", 2048, 2048, entries, "entries",
                "facts 1.4, trampoline_64_bsp.S")  # fmt: skip
    timeout_ns = run.machine.cost_ns("trampoline_timeout_ns")
    polls = timeout_ns // run.machine.cost_ns("trampoline_poll_ns")
    yield Claim("looks at the marker before it gives up", "exact", 50_000, 50_000, polls, "looks",
                source)  # fmt: skip
    joined = scenarios.registration(kernels=12)
    checkins = sum(
        record.event.type == MessageType.CHECKIN
        for record in joined.trace.records(MessageDelivered)
    )
    yield Claim("check-ins of 12 kernels: n (n - 1) / 2", "derived", 66, 66, checkins, "messages",
                "facts 5.3")  # fmt: skip
    everybody = scenarios.boot_64()
    checkins = sum(
        record.event.type == MessageType.CHECKIN
        for record in everybody.trace.records(MessageDelivered)
    )
    yield Claim("check-ins of 64 kernels", "derived", 2016, 2016, checkins, "messages",
                "facts 5.3")  # fmt: skip


# -- what runs show -------------------------------------------------------------------------------


def _behaviour() -> Iterator[Claim]:
    def shown(about: str, yes: bool, source: str) -> Claim:
        return Claim(about, "exact", 1, 1, int(yes), "1: shown", source)

    lost = scenarios.lost_wakeup()
    yield shown("no second look after int_enabled = 1 can strand a message (G1 as coded)",
                checks.no_lost_wakeup(lost) is not None, "facts 5.6")  # fmt: skip
    found = sum(
        checks.no_lost_wakeup(scenarios.lost_wakeup(look_again=True, seed=seed)) is not None
        for seed in range(3)
    )
    yield Claim("the same seeds, with the second look", "exact", 0, 0, found, "stranded",
                "NAPI's re-check")  # fmt: skip
    rings_full = scenarios.two_full_rings()
    yield shown("two full rings, each answering from its callback, deadlock (G1)",
                checks.no_deadlock(rings_full) is not None, "facts 5.8")  # fmt: skip
    burst = scenarios.fan_in(kernels=9, messages=40, gap_ns=0)
    blocked = len(list(burst.trace.records(SenderBlocked)))
    delivered = len(list(burst.trace.records(MessageDelivered)))
    yield shown("a full ring makes senders wait", blocked > 0, "facts 5.5")
    yield Claim("and loses nothing: messages of a burst of 320", "exact", 320, 320, delivered,
                "messages", "facts 5.5")  # fmt: skip
    unread, most = 0, 0
    for record in burst.trace.records(TicketTaken, MessageRead):
        unread += 1 if type(record.event) is TicketTaken else -1
        most = max(most, unread)
    yield shown("head - tail exceeds the slots: tickets come before space", most > 64, "facts 5.8")
    budgets = [record.event.budget for record in burst.trace.records(BudgetSpent)]
    yield shown("a poll that has read its budget polls again at once", budgets[:1] == [128],
                "facts 5.6")  # fmt: skip
    ordered = scenarios.fan_in(kernels=5, messages=30, high_every=3, gap_ns=300, seed=1)
    yield shown("one sender's messages of one priority keep their order",
                checks.fifo_per_sender(ordered) is None, "facts 5.8")  # fmt: skip
    numbers: dict[int, list[int]] = {}
    for record in ordered.trace.records(MessageDelivered):
        numbers.setdefault(record.event.sender, []).append(record.event.number)
    yield shown("HIGH may overtake NORMAL", any(sorted(n) != n for n in numbers.values()),
                "facts 5.8")  # fmt: skip


# -- times ----------------------------------------------------------------------------------------


def one_hop() -> tuple[Machine, tuple[int, int]]:
    """A machine whose measured pairs are left out, and two CPUs one hop apart on it."""
    machine = Machine.load("magny-cours-48")
    for other in machine.cpus[1:]:
        if machine.place(other).node != machine.place(0).node and machine.transfer_ns(
            0, other
        ) == machine.cost_ns("line_transfer_1_hop_cycles"):
            return machine, (0, other)
    raise PopcornError(f"{machine.name} has no two CPUs one hop apart")


def _times() -> Iterator[Claim]:
    machine, cpus = one_hop()
    run = scenarios.ping(machine=machine, cpus=cpus, rounds=1)
    rows = latency_test(run)
    take_ns = run.setup.costs.pair(1, 0)[0].ns
    cold = round((rows[0]["handler_ns"] + take_ns) * machine.ghz)
    constants = "the constants of model/costs.py, added up by hand"
    # Facts 9 adds up 3,520. Before the callbacks the model also leaves the poll (300), sets
    # int_enabled and looks again (172 each): 4,164. Each step is rounded to whole ns.
    yield Claim("a message to a sleeping kernel, one hop away", "derived", 4150, 4178, cold,
                "cycles", f"{constants} (facts 9: 3,520, and 644 to leave the poll)")  # fmt: skip
    costs, pair = run.setup.costs, run.setup.costs.pair(1, 0)
    hot = round((pair[0].ns + pair[1].ns + costs.pair(0, 1)[2].ns + costs.dispatch[0].ns)
                * machine.ghz)  # fmt: skip
    yield Claim("the same to a kernel that polls", "derived", 1300, 1340, hot, "cycles",
                f"{constants} (facts 9: 1,320)")  # fmt: skip
    for row in _ipi_measurements():
        sent = run.trace.next(IpiSent)
        taken = run.trace.next(InterruptTaken, after=sent.seq)
        icr_ns = costs.icr[1].ns
        yield row._replace(found=taken.time - sent.time + icr_ns)
    for name, cost in COSTS.items():
        if cost.label == "model default":
            low, high = cost.low, cost.high
            yield Claim(name, "model default", low, high, cost.value, cost.unit, cost.source)


IPI_RANGE = 3  # another processor, and a virtual machine: the size is compared, not the number


def _ipi_measurements() -> Iterator[Claim]:
    """datasets/ipi: what one IPI took where somebody measured it, in guests of KVM."""
    text = datasets.read_text("ipi-benchmark-summary")
    for row in csv.DictReader(text.splitlines()):
        if row["mode"] == "normal_ipi" and row["source"].startswith("kvm_ipiv_on"):
            ns = int(row["ipi_time_sum_ns"]) // int(row["n"])
            yield Claim(
                f"an IPI, from its writing to its handler, within a factor of {IPI_RANGE} of "
                f"{ns:,} ns ({row['source']})",
                "published", ns // IPI_RANGE, ns * IPI_RANGE, 0, "ns",
                "LKML, kvm list, 20220304080725.18135-1; datasets/ipi",
            )  # fmt: skip


# -- Popcorn's own latency test -------------------------------------------------------------------

PINGPONG_COLUMNS = ("send", "IPI", "isr1", "isr2", "bh", "bh2", "handler", "roundtrip")  # [C]
BATCH_COLUMNS = ("send", "sendreturn", "bh", "bh2", "lasthandler", "roundtrip")  # [C]


def latency_test(run: Run) -> list[dict]:
    """What Popcorn's test_kmsg measures, one row per PING, in ns since it was sent.

    The columns are those of its CSV file (facts 5.9); which record is which column is our reading:
    ``send`` the ticket, ``IPI`` IpiSent, ``isr1`` IpiArrived, ``isr2`` InterruptTaken, ``bh``
    SoftirqEntered, ``bh2`` the end of the poll (int_enabled = 1), ``handler`` MessageDelivered,
    ``roundtrip`` the answer's. A column is None where there was no such step: a kernel that
    polls takes no interrupt.
    """
    trace, rows = run.trace, []
    for record in trace.records(TicketTaken):
        ring, _, sender, number = record.event
        done = trace.next(MessageDelivered, after=record.seq, kernel=ring, sender=sender,
                          number=number)  # fmt: skip
        if done is None or done.event.type != MessageType.PING:
            continue
        answer = trace.next(MessageDelivered, after=done.seq, kernel=sender, sender=ring,
                            payload=done.event.payload)  # fmt: skip
        found = {"send": record, "handler": done, "roundtrip": answer}
        for column, kind, field in (
            ("IPI", IpiSent, "dst"), ("isr1", IpiArrived, "kernel"),
            ("isr2", InterruptTaken, "kernel"), ("bh", SoftirqEntered, "kernel"),
            ("bh2", InterruptsEnabled, "ring"),
        ):  # fmt: skip
            step = trace.next(kind, after=record.seq, **{field: ring})
            found[column] = step if step and step.seq < done.seq else None
        rows.append(
            {
                f"{column}_ns": found[column] and found[column].time - record.time
                for column in PINGPONG_COLUMNS
            }
        )
    return rows


def latency_csv(run: Run) -> str:
    """The same as test_kmsg writes it: TSC ticks since power-on, one line per ping-pong."""
    ghz, lines = run.machine.ghz, [",".join(PINGPONG_COLUMNS)]
    starts = [r.time for r in run.trace.records(TicketTaken) if r.event.ring == 0]
    for start, row in zip(starts, latency_test(run), strict=True):
        ticks = (
            "" if ns is None else str(round((start + ns) * ghz)) for ns in row.values()
        )  # fmt: skip
        lines.append(",".join(ticks))
    return "\n".join(lines) + "\n"


NOT_MODELLED = (
    ("caches", "a line transfer has one price per distance; no capacity, no contention on a link"),
    ("the processor", "no pipelines, no frequency changes, no SMT: steps cost whole cycles"),
    ("preemption", "an interrupt waits for the current step of its CPU, not within it"),
    ("memory order", "runs are sequentially consistent; only explore() has x86's store buffers"),
    ("Linux", "no scheduler, no memory pressure, no other interrupts"),
    ("Popcorn's papers", "their latencies and bandwidths are not in our data: nothing is compared "
     "with them (facts 8.3)"),
    ("errors of hardware", "only those of the fault deck"),
)  # fmt: skip


def not_modelled_html() -> str:
    items = "".join(f"<li><b>{escape(a)}</b>: {escape(b)}</li>" for a, b in NOT_MODELLED)
    return f"<ul>{items}</ul>"


SECTIONS: tuple[Callable[[], Iterator[Claim]], ...] = (_sizes, _boots, _behaviour, _times)


def claims() -> Claims:
    """Ask the model about every claim, now: it takes some seconds."""
    return Claims(claim for section in SECTIONS for claim in section())

"""What each step costs, and how we know.

The protocol's timing is not written down anywhere in the model: it comes out of these constants
and the machine's own distances. Nearly all of them are assumptions of a plausible size. They are
called "model default", and a class that measures its own hardware replaces them with
``machine.with_costs(ipi_delivery_cycles=1400)``.

Words
    transfer  one cache line (64 bytes) moves from the CPU that wrote it to the CPU that reads it
    tag       how we know a number:
              C  read in Popcorn's source
              D  follows from numbers in Popcorn's source
              M  its size was checked on one virtual machine
              R  recalled from a paper, not checked against it
              A  assumption

Counted in cycles where a processor executes it, in ns where a clock or a device decides.
"""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError

LABELS = {
    "C": "from Popcorn's source",
    "D": "derived from Popcorn's source",
    "M": "model default",
    "R": "model default",
    "A": "model default",
    "you": "set by you",
}
UNITS = ("cycles", "ns", "transfers", "percent", "bytes_per_ns")


class Cost(NamedTuple):
    value: int
    unit: str  # one of UNITS; also the end of the cost's name
    low: int | None  # the plausible range: the value itself where it is exact, None if unknown
    high: int | None
    tag: str
    source: str

    @property
    def label(self) -> str:
        return LABELS[self.tag]

    @property
    def range(self) -> str:
        if self.low is None:
            return ""
        return "exact" if self.low == self.high else f"{self.low:,} to {self.high:,}"


def _cycles(value, low, high, tag, source):
    return Cost(value, "cycles", low, high, tag, source)


def _ns(value, low, high, tag, source):
    return Cost(value, "ns", low, high, tag, source)


_MS = 1_000_000
_OPTERON = "modified-line load, 48-core Opteron, David et al., SOSP'13, as recalled"

COSTS: dict[str, Cost] = {
    # one cache line, by how far apart the two CPUs are
    "line_transfer_same_die_cycles": _cycles(81, 41, 162, "R", _OPTERON),
    "line_transfer_same_package_cycles": _cycles(161, 81, 322, "R", _OPTERON),
    "line_transfer_1_hop_cycles": _cycles(172, 86, 344, "R", _OPTERON),
    "line_transfer_2_hops_cycles": _cycles(252, 126, 504, "R", _OPTERON),
    # rings: which lines move follows from struct pcn_kmsg_window and its 64-byte slots
    "ring_put_transfers": Cost(
        3, "transfers", 3, 3, "D", "ticket and int_enabled share a line; a slot straddles two"
    ),
    "ring_put_cycles": _cycles(60, None, None, "A", "the sender's own instructions"),
    "ring_get_transfers": Cost(2, "transfers", 2, 2, "D", "a slot straddles two lines"),
    "message_copy_cycles": _cycles(300, 150, 600, "A", "kmalloc and copying 64 bytes"),
    "callback_dispatch_cycles": _cycles(100, None, None, "A", "look up the type, call"),
    # interrupts
    "icr_write_cycles": _cycles(
        300, 100, 600, "A", "one register; a whole IPI send path: 1,600-2,000, LKML 1202.0/02819"
    ),
    "ipi_delivery_cycles": _cycles(1000, 600, 2500, "A", "send to the first handler instruction"),
    "isr_top_half_cycles": _cycles(500, 300, 1000, "A", "acknowledge, mask, raise the softirq"),
    "softirq_entry_cycles": _cycles(400, 200, 1000, "A", "leave the interrupt, enter the softirq"),
    "workqueue_hop_cycles": _cycles(5000, 2000, 20000, "A", "wake a kernel thread (G2)"),
    # starting a kernel
    "init_assert_ns": _ns(10 * _MS, 10 * _MS, 10 * _MS, "C", "smpboot.c, mdelay(10)"),
    "startup_ipi_accept_ns": _ns(300_000, 300_000, 300_000, "C", "smpboot.c, udelay(300)"),
    "startup_ipi_settle_ns": _ns(200_000, 200_000, 200_000, "C", "smpboot.c, udelay(200)"),
    "trampoline_poll_ns": _ns(100_000, 100_000, 100_000, "C", "smpboot.c, udelay(100)"),
    "trampoline_timeout_ns": _ns(5000 * _MS, 5000 * _MS, 5000 * _MS, "C", "50,000 polls"),
    "wbinvd_ns": _ns(1 * _MS, 200_000, 5 * _MS, "A", "write back and empty all caches"),
    "trampoline_step_cycles": _cycles(200, 50, 1000, "A", "a few instructions of the trampoline"),
    "page_tables_cycles": _cycles(
        10_000, 4000, 40_000, "A", "zero 6 pages, write 2,048 entries and their 5 parents"
    ),
    "kernel_init_ns": _ns(
        8000 * _MS, 2000 * _MS, 11000 * _MS, "A", "below the launch script's wait of 11 s"
    ),
    "kernel_head_ns": _ns(
        1 * _MS, 100_000, 10 * _MS, "A", "from the kernel's first instruction to its boot_params"
    ),
    "program_start_ns": _ns(2 * _MS, 500_000, 10 * _MS, "A", "the shell starts one program"),
    "boot_call_ns": _ns(20_000, 1000, 100_000, "A", "multikernel_boot() up to the trampoline"),
    "devmem_copy_bytes_per_ns": Cost(
        1, "bytes_per_ns", None, None, "A", "copying through /dev/mem, 1 GB/s"
    ),
    "operator_wait_ns": _ns(
        20_000 * _MS, 11_000 * _MS, 40_000 * _MS, "C", "the launch script's wait for a secondary"
    ),
    # devices
    "vty_poll_ns": _ns(125 * _MS, 125 * _MS, 125 * _MS, "C", "virtual terminal driver's timer"),
    "shmtun_packet_ns": _ns(1500, None, None, "A", "a packet through the virtual network"),
    "shmtun_bytes_per_ns": Cost(4, "bytes_per_ns", None, None, "A", "copying speed, 4 GB/s"),
    # memory and migration
    "page_copy_ns": _ns(300, 200, 1000, "M", "4 KB, warm"),
    "minor_fault_ns": _ns(1000, 500, 2000, "A", "a page fault served locally"),
    "first_migration_percent": Cost(
        340, "percent", None, None, "R", "first over later migrations, DeX, ICDCS'20, recalled"
    ),
    "stack_transform_frame_ns": _ns(20_000, None, None, "A", "one frame to another ISA"),
    "stack_transform_value_ns": _ns(1_000, None, None, "A", "one live value in a frame"),
}

TRANSFER_COSTS = {  # which constant a distance costs; farther than the table knows costs the last
    "same core": "line_transfer_same_die_cycles",
    "same die": "line_transfer_same_die_cycles",
    "same package": "line_transfer_same_package_cycles",
    "1 hop": "line_transfer_1_hop_cycles",
    "2 hops": "line_transfer_2_hops_cycles",
}


# -- latencies that somebody measured --------------------------------------------------------------

LATENCY_NS_AT_MOST = 1_000_000_000
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,20})?([eE]-?[0-9]{1,2})?")


def read_latencies(text: str, file: str, cpus: tuple[int, ...]) -> dict[tuple[int, int], int]:
    """{(higher CPU, lower CPU): whole ns} from a square CSV table whose lower triangle is filled.

    An empty cell means nobody measured that pair.
    """
    rows = [line.split(",") for line in text.split("\n") if line.strip()]
    table = {}
    for cpu, row in enumerate(rows):
        if len(row) != len(rows):
            raise PopcornError(
                f"{file}, line {cpu + 1}: {len(row)} columns; {len(rows)} were expected, "
                "as many as there are rows."
            )
        for other, cell in enumerate(map(str.strip, row[:cpu])):
            if not cell:
                continue
            if not _NUMBER.fullmatch(cell) or float(cell) > LATENCY_NS_AT_MOST:
                raise PopcornError(
                    f"{file}, line {cpu + 1}, column {other + 1}: {cell[:40]!r}; a latency in ns "
                    "was expected."
                )
            table[cpu, other] = int(float(cell) + 0.5)
    named = {cpu for pair in table for cpu in pair}
    if named - set(cpus):
        raise PopcornError(
            f"{file} has latencies of CPU {max(named - set(cpus))}, which the machine does not "
            f"have; a table of {max(cpus) + 1} rows at most was expected."
        )
    if not table:
        raise PopcornError(f"{file} holds no latency; a square table of ns was expected.")
    return table


# -- the table to look at --------------------------------------------------------------------------


class CostRow(NamedTuple):
    name: str
    cost: Cost
    ns: int | None  # None for what is not a time


class CostTable(tuple[CostRow, ...]):
    """The cost table of one machine: prints as text, shows as a table in a notebook."""

    HEADINGS = ("cost", "value", "ns", "range", "how we know", "source")

    def cells(self) -> list[tuple[str, ...]]:
        return [
            (
                row.name,
                f"{row.cost.value:,}",
                "" if row.ns is None else f"{row.ns:,}",
                row.cost.range,
                row.cost.label,
                row.cost.source,
            )
            for row in self
        ]

    def __str__(self) -> str:
        rows = [self.HEADINGS, *self.cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.HEADINGS))]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table(self.HEADINGS, self.cells(), "What each step costs")


def html_table(headings, rows, caption: str) -> str:
    """A plain, labelled table: also what a screen reader reads."""
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )

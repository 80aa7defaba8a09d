"""What the firmware tells a booting kernel: where the RAM is, and which CPUs and nodes there are.

Two texts carry it. A boot log holds the memory map (E820) and what Linux made of the tables; an
acpidump holds the tables themselves, byte by byte. Both are read line by line; a line that looks
like one of ours and is garbled is refused with its number, and every other line is passed over.

    log = read_boot_log(Path("my.dmesg").read_text())
    log.memory_map[0]          # MemoryRange(start=0, end=630784, kind='usable')
    tables = read_acpi(Path("my.acpidump").read_text())
    tables.distances[0]        # (10, 16, 16, 22, ...)

Words
    range    physical addresses from ``start`` up to, not including, ``end``
    kind     what the firmware says a range is, as Linux prints it: "usable", "reserved", ...
    E820     the BIOS call that lists the ranges; the list is named after it
    SRAT     the table that says which CPU and which addresses belong to which proximity domain
    domain   PXM, the firmware's number for a node; Linux numbers nodes by itself, in the order in
             which it meets the domains
    SLIT     the table of distances between the domains; MADT: the table of APICs; MCFG: where
             PCI configuration space is mapped
    APIC id  the number of a CPU's interrupt controller: interrupts are addressed to it
    GSI      the machine-wide number of an interrupt line; each I/O APIC has a row of them

Left out: the other tables, and code inside tables (AML).
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, near_names

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
ADDRESS_AT_MOST = (1 << 64) - 1
TEXT_AT_MOST = 16 << 20  # characters; a longer text is no boot log and no acpidump
LINE_AT_MOST = 2048  # characters; the kernel's own lines have 1,024 at most
AFFINITIES_AT_MOST = 2048  # memory lines of a SRAT: Linux reads two for each of 1,024 nodes
CPUS_AT_MOST = 1 << 16  # as in topology.py: a number above this is damage, not a computer
HERE = 10  # what a distance table calls the distance to oneself
KINDS = (  # as Linux prints them; "type 9" and its like are kinds it has no word for
    "usable", "reserved", "ACPI data", "ACPI NVS", "unusable", "soft reserved",
    "persistent (type 7)", "persistent (type 12)",
)  # fmt: skip


class MemoryRange(NamedTuple):
    """Physical addresses of one kind; ``end`` is the first address after them."""

    start: int
    end: int
    kind: str = "usable"


class NodeMemory(NamedTuple):
    """RAM that belongs to a NUMA node, as the SRAT says; it may span holes of the memory map."""

    node: int
    start: int
    end: int


class IoApic(NamedTuple):
    """A chip that turns device pins into interrupts: its pins are the GSIs from ``gsi_base``."""

    id: int
    address: int
    gsi_base: int
    pins: int  # 0 where nobody says: the MADT gives no count


class MapEdit(NamedTuple):
    """What Linux itself changes in the map: the first page, the BIOS area, what MTRRs hide."""

    action: str  # "update" or "remove"
    start: int
    end: int
    old: str
    new: str  # "" for a removal


class CpuAffinity(NamedTuple):
    """A CPU's line of the SRAT. ``node`` is Linux's number, which only a boot log knows."""

    domain: int
    apic_id: int
    node: int | None = None
    enabled: bool = True


class MemoryAffinity(NamedTuple):
    """A memory line of the SRAT."""

    domain: int
    start: int
    end: int
    node: int | None = None
    enabled: bool = True
    hotplug: bool = False
    nonvolatile: bool = False


class LocalApic(NamedTuple):
    """A CPU's line of the MADT, or an empty slot."""

    acpi_id: int
    apic_id: int
    enabled: bool


class Override(NamedTuple):
    """An ISA interrupt that reaches the I/O APIC on another line."""

    bus: int
    irq: int
    gsi: int
    flags: int = 0


class ConfigSpace(NamedTuple):
    """Where a segment's PCI configuration space is mapped."""

    base: int
    segment: int
    first_bus: int
    last_bus: int


class TableHead(NamedTuple):
    """The first bytes of a table."""

    signature: str
    length: int
    revision: int
    oem_id: str
    oem_table_id: str


@dataclass(frozen=True)
class BootLog:
    """What one boot said of its machine. What the log does not say is empty or None."""

    memory_map: tuple[MemoryRange, ...]  # ascending
    edits: tuple[MapEdit, ...] = ()  # in the order of the log
    user_map: tuple[MemoryRange, ...] = ()  # the map after memmap= and mem=
    cpu_affinity: tuple[CpuAffinity, ...] = ()
    memory_affinity: tuple[MemoryAffinity, ...] = ()
    early_ranges: tuple[NodeMemory, ...] = ()  # RAM by node after all edits
    io_apics: tuple[IoApic, ...] = ()
    overrides: tuple[Override, ...] = ()
    brought_up: dict[int, int] = field(default_factory=dict)  # CPU -> node, without the boot CPU
    cpus_allowed: int | None = None
    cpus_hotplug: int | None = None
    packages_at_most: int | None = None
    tom2: int | None = None  # AMD's "top of memory 2": the end of RAM above 4 GiB
    total_kib: int | None = None  # as in "Memory: .../...K available"
    tsc_khz: int | None = None
    cpu_model: str = ""
    board: str = ""


@dataclass(frozen=True)
class AcpiTables:
    """The tables of a dump. A table the dump does not have is empty."""

    heads: dict[str, TableHead]
    cpu_affinity: tuple[CpuAffinity, ...] = ()
    memory_affinity: tuple[MemoryAffinity, ...] = ()
    distances: tuple[tuple[int, ...], ...] = ()  # row and column are domains
    local_apics: tuple[LocalApic, ...] = ()  # in table order, empty slots included
    local_apic_address: int | None = None
    has_8259: bool | None = None  # also the old pair of interrupt controllers
    io_apics: tuple[IoApic, ...] = ()
    overrides: tuple[Override, ...] = ()
    nmi_lines: int = 0
    config_spaces: tuple[ConfigSpace, ...] = ()
    other_entries: dict[str, tuple[int, ...]] = field(default_factory=dict)  # types passed over

    def nodes(self) -> dict[int, int]:
        """Linux's node number for each domain: in the order of the enabled entries."""
        enabled = (e.domain for e in (*self.cpu_affinity, *self.memory_affinity) if e.enabled)
        return {domain: node for node, domain in enumerate(dict.fromkeys(enabled))}


def in_words(count: int) -> str:
    """Bytes for people: "64 KiB", "1,856 MiB", "16 GiB", and "630,785 bytes" if nothing fits."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count and count % unit == 0:
            return f"{count // unit:,} {name}"
    return f"{count:,} bytes"


def hex_range(start: int, end: int) -> str:
    """A range as Linux prints it, with its last address: "[0x100000000-0x1ffffffff]"."""
    return f"[{start:#x}-{end - 1:#x}]"


def merged(ranges: Iterable[MemoryRange]) -> tuple[MemoryRange, ...]:
    """Ascending; neighbours of one kind are one range."""
    whole: list[MemoryRange] = []
    for piece in sorted(ranges):
        last = whole[-1] if whole else None
        if last and last.kind == piece.kind and piece.start <= last.end:
            whole[-1] = last._replace(end=max(last.end, piece.end))
        else:
            whole.append(piece)
    return tuple(whole)


# -- boot logs -------------------------------------------------------------------------------------

_STAMP = re.compile(
    r"(?:<\d{1,3}>)?(?:\S.{0,80}? kernel: )?(?:\[ *\d+\.\d+\]\s?(?:\[ *[TC]\d+\] ?)?)?"
)
_SPAN = r"\[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]"
_MAP_LINE = re.compile(rf"(BIOS-e820|user): {_SPAN} (\S.*?)\s*")
_OLD_MAP_LINE = re.compile(r"(BIOS-e820|user): ([0-9a-f]{1,16}) - ([0-9a-f]{1,16}) \((.+)\)\s*")
_EDIT = re.compile(rf"(?:e820: )?(update|remove) {_SPAN} (.+?)(?: ==> (.+?))?\s*")
_CPU_LINE = re.compile(
    r"(?:ACPI: )?SRAT: PXM (\d+) -> (?:X2)?APIC (0x[0-9a-f]{1,8}|\d{1,8}) -> Node (\d+)\s*"
)
_MEMORY_LINE = re.compile(rf"(?:ACPI: )?SRAT: Node (\d+) PXM (\d+) {_SPAN}((?: [a-z-]+)*)\s*")
_OLD_MEMORY_LINE = re.compile(
    r"(?:ACPI: )?SRAT: Node (\d+) PXM (\d+) (?:0x)?([0-9a-f]{1,16})-(?:0x)?([0-9a-f]{1,16})(.*)"
)
_EARLY = re.compile(rf"node +(\d+): {_SPAN}\s*")
_IO_APIC = re.compile(
    r"(?:ACPI: )?IOAPIC\[\d+\]: apic_id (\d+), version \d+, address (0x[0-9a-f]{1,16}), "
    r"GSI (\d+)-(\d+)\s*"
)
_OVERRIDE = re.compile(
    r"ACPI: INT_SRC_OVR \(bus (\d+) bus_irq (\d+) global_irq (\d+) (\w+) (\w+)\)\s*"
)
_BRING_UP = re.compile(r"\.\.\.\. node +#(\d+), CPUs:((?:\s+#\d+)*)\s*")
_PLAIN = {  # field: the line it is read from
    "allowed": re.compile(r"(?:smpboot: |SMP: )?Allowing (\d{1,6}) CPUs, (\d{1,6}) hotplug CPUs"),
    "packages_at_most": re.compile(r"(?:smpboot: )?Max logical packages: (\d{1,6})"),
    "tom2": re.compile(r"TOM2: ([0-9a-f]{1,16}) aka \d+M"),
    "total_kib": re.compile(r"Memory: \d+[kK]/(\d{1,16})[kK] available"),
    "tsc": re.compile(r"tsc: Detected (\d{1,6})\.(\d{3}) MHz processor"),
    "cpu_model": re.compile(r"(?:smpboot: )?CPU0: (.+?) \((?:fam|family):"),
    "board": re.compile(r"DMI: (.+)"),
}
_FORMS = {  # what our lines look like, for the sentence when one is garbled
    "map": "BIOS-e820: [mem 0x0000000000100000-0x00000000bfffffff] usable",
    "edit": "e820: update [mem 0x00000000-0x00000fff] usable ==> reserved",
    "cpu": "SRAT: PXM 0 -> APIC 0x20 -> Node 0",
    "memory": "ACPI: SRAT: Node 0 PXM 0 [mem 0x00100000-0xd7ffffff]",
    "early": "node   0: [mem 0x0000000000100000-0x00000000d7e5ffff]",
    "ioapic": "IOAPIC[0]: apic_id 0, version 33, address 0xfec00000, GSI 0-23",
    "override": "ACPI: INT_SRC_OVR (bus 0 bus_irq 0 global_irq 2 dfl dfl)",
    "bring up": ".... node  #1, CPUs:    #8  #9 #10",
}
_FLAGS = {"dfl": 0, "high": 1, "low": 3, "edge": 1, "level": 3}


def read_boot_log(text: str, file: str = "the boot log") -> BootLog:
    """What ``dmesg`` printed, from its first line on; ``file`` is its name in complaints."""
    return _LogReader(_checked_text(text, file, "a boot log"), file).log()


class _LogReader:
    """Reads one log; every complaint names the file and the line."""

    def __init__(self, text: str, file: str) -> None:
        self.file, self.line = file, 0
        self.maps: dict[str, list[tuple[MemoryRange, int]]] = {"BIOS-e820": [], "user": []}
        self.edits: list[MapEdit] = []
        self.cpus: list[CpuAffinity] = []
        self.node_of: dict[int, int] = {}  # by APIC id
        self.memory: list[MemoryAffinity] = []
        self.early: list[NodeMemory] = []
        self.io_apics: list[IoApic] = []
        self.overrides: list[Override] = []
        self.brought_up: dict[int, int] = {}
        self.plain: dict[str, tuple[str, ...]] = {}
        for self.line, raw in enumerate(text.splitlines(), start=1):
            raw = raw[:LINE_AT_MOST]
            self._read(raw[_STAMP.match(raw).end() :].strip())

    def log(self) -> BootLog:
        self._complete()
        allowed = self.plain.get("allowed", (None, None))
        tsc = self.plain.get("tsc")
        return BootLog(
            memory_map=tuple(sorted(piece for piece, _ in self.maps["BIOS-e820"])),
            edits=tuple(self.edits),
            user_map=tuple(sorted(piece for piece, _ in self.maps["user"])),
            cpu_affinity=tuple(self.cpus),
            memory_affinity=tuple(self.memory),
            early_ranges=tuple(self.early),
            io_apics=tuple(self.io_apics),
            overrides=tuple(self.overrides),
            brought_up=self.brought_up,
            cpus_allowed=_number(allowed[0]),
            cpus_hotplug=_number(allowed[1]),
            packages_at_most=_number(self.plain.get("packages_at_most", (None,))[0]),
            tom2=_number(self.plain.get("tom2", (None,))[0], 16),
            total_kib=_number(self.plain.get("total_kib", (None,))[0]),
            tsc_khz=int(tsc[0]) * 1000 + int(tsc[1]) if tsc else None,
            cpu_model=self.plain.get("cpu_model", ("",))[0],
            board=" ".join(self.plain.get("board", ("",))[0].split()),
        )

    def _read(self, text: str) -> None:
        if text.startswith(("BIOS-e820: ", "user: [mem", "user: 0")):
            self._map_line(text)
        elif text.startswith(("e820: update", "e820: remove")):
            self._edit(text)
        elif "SRAT: PXM " in text:
            self._cpu_line(text)
        elif "SRAT: Node " in text:
            self._memory_line(text)
        elif text.startswith("node ") and ": [mem " in text:
            found = self._match("early", text, _EARLY)
            self.early.append(NodeMemory(self._small(found[1]), *self._span(found[2], found[3])))
        elif text.startswith(("IOAPIC[", "ACPI: IOAPIC[")):
            self._io_apic(text)
        elif text.startswith("ACPI: INT_SRC_OVR"):
            self._override(text)
        elif text.startswith(".... node"):
            self._bring_up(text)
        else:
            self._plain_line(text)

    def _map_line(self, text: str) -> None:
        found = _MAP_LINE.fullmatch(text)
        if found:
            start, end = self._span(found[2], found[3])
        else:  # before Linux 3.6, with the first address after the range
            found = self._match("map", text, _OLD_MAP_LINE)
            start, end = self._span(found[2], found[3], last=0)
        kind = found[4]
        if kind not in KINDS and not re.fullmatch(r"type \d{1,10}", kind):
            raise self._wrong(f"{kind[:40]!r} is no kind of memory; {near_names(kind, KINDS)}")
        ranges = self.maps[found[1]]  # ascending
        at = bisect(ranges, start, key=lambda known: known[0].start)
        for other, line in ranges[max(at - 1, 0) : at + 1]:
            if start < other.end and other.start < end:
                raise self._wrong(
                    f"the range {hex_range(start, end)} overlaps {hex_range(*other[:2])} of line "
                    f"{line}; Linux prints the map of one boot without overlaps, so a range of "
                    "its own was expected."
                )
        ranges.insert(at, (MemoryRange(start, end, kind), self.line))

    def _edit(self, text: str) -> None:
        found = self._match("edit", text, _EDIT)
        if (found[1] == "update") != bool(found[5]):
            raise self._wrong(
                f"{text[:80]!r} is garbled; a line such as {_FORMS['edit']!r} was expected."
            )
        self.edits.append(
            MapEdit(found[1], *self._span(found[2], found[3]), found[4], found[5] or "")
        )

    def _cpu_line(self, text: str) -> None:
        found = self._match("cpu", text, _CPU_LINE)
        apic = int(found[2], 16 if found[2].startswith("0x") else 10)
        made = CpuAffinity(self._small(found[1]), apic, self._small(found[3]))
        node = self.node_of.setdefault(apic, made.node)
        if node != made.node:
            raise self._wrong(
                f"APIC {apic:#x} is put on node {made.node}, and on node {node} by an earlier "
                "line; one node was expected."
            )
        self.cpus.append(made)

    def _memory_line(self, text: str) -> None:
        found = _MEMORY_LINE.fullmatch(text)
        if found:
            start, end = self._span(found[3], found[4])
        else:  # before Linux 3.6, with the first address after the range
            found = self._match("memory", text, _OLD_MEMORY_LINE)
            start, end = self._span(found[3], found[4], last=0)
        node, domain = self._small(found[1]), self._small(found[2])
        if len(self.memory) == AFFINITIES_AT_MOST:
            raise self._wrong(f"more than {AFFINITIES_AT_MOST} such lines; one boot was expected.")
        for other in self.memory:
            if start < other.end and other.start < end and other.node != node:
                raise self._wrong(
                    f"node {node} and node {other.node} both claim "
                    f"{hex_range(max(start, other.start), min(end, other.end))}; one was expected."
                )
        self.memory.append(MemoryAffinity(domain, start, end, node, hotplug="hotplug" in found[5]))

    def _io_apic(self, text: str) -> None:
        found = self._match("ioapic", text, _IO_APIC)
        first, last = self._small(found[3]), self._small(found[4])
        if last < first:
            raise self._wrong(
                f"the GSIs end at {last}, before {first}; a first and a last one were expected."
            )
        for other in self.io_apics:
            if first < other.gsi_base + other.pins and other.gsi_base <= last:
                raise self._wrong(
                    f"GSI {max(first, other.gsi_base)} already belongs to I/O APIC {other.id}; "
                    "GSIs of its own were expected."
                )
        chip = IoApic(self._small(found[1]), int(found[2], 16), first, last - first + 1)
        self.io_apics.append(chip)

    def _override(self, text: str) -> None:
        found = self._match("override", text, _OVERRIDE)
        if found[4] not in ("dfl", "high", "low") or found[5] not in ("dfl", "edge", "level"):
            raise self._wrong(
                f"{found[4]!r} {found[5]!r} are no polarity and trigger; dfl, high or low and then "
                "dfl, edge or level were expected."
            )
        flags = _FLAGS[found[4]] | _FLAGS[found[5]] << 2
        self.overrides.append(Override(*(self._small(found[n]) for n in (1, 2, 3)), flags))

    def _bring_up(self, text: str) -> None:
        found = self._match("bring up", text, _BRING_UP)
        node = self._small(found[1])
        for number in found[2].replace("#", " ").split():
            cpu = self._small(number)
            if cpu in self.brought_up:
                raise self._wrong(
                    f"CPU {cpu} is brought up a second time; the log of one boot was expected."
                )
            self.brought_up[cpu] = node

    def _plain_line(self, text: str) -> None:
        for name, pattern in _PLAIN.items():
            found = pattern.match(text)
            if found:
                self.plain.setdefault(name, found.groups())
                return

    def _complete(self) -> None:
        if self.maps["BIOS-e820"]:
            if any(piece.kind == "usable" for piece, _ in self.maps["BIOS-e820"]):
                return
            raise PopcornError(
                f"{self.file}: the memory map has no usable range; at least one was expected."
            )
        found = (
            "is empty"
            if not self.line
            else f"has {self.line} lines and none of them starts with BIOS-e820"
        )
        raise PopcornError(
            f"{self.file} {found}; the log was expected from its first line on, with the memory "
            "map (a long-running machine overwrites it: `journalctl -k -b` still has it)."
        )

    # lines and numbers

    def _wrong(self, sentence: str) -> PopcornError:
        return PopcornError(f"{self.file}, line {self.line}: {sentence}")

    def _match(self, form: str, text: str, pattern: re.Pattern) -> re.Match:
        found = pattern.fullmatch(text)
        if not found:
            raise self._wrong(
                f"{text[:80]!r} is garbled; a line such as {_FORMS[form]!r} was expected."
            )
        return found

    def _span(self, first: str, last_word: str, last: int = 1) -> tuple[int, int]:
        start, end = int(first, 16), int(last_word, 16) + last
        if end <= start:
            raise self._wrong(
                f"the range ends at {int(last_word, 16):#x}, not after its start {start:#x}; "
                "start and end were expected in this order."
            )
        return start, end

    def _small(self, digits: str) -> int:
        if len(digits) > 6 or int(digits) >= CPUS_AT_MOST:
            raise self._wrong(
                f"the number {digits[:20]} is too large; one below {CPUS_AT_MOST} was expected."
            )
        return int(digits)


def _number(digits: str | None, base: int = 10) -> int | None:
    return None if digits is None else int(digits, base)


def _checked_text(text: str, file: str, what: str) -> str:
    if not isinstance(text, str):
        raise PopcornError(f"{file}: {what} is read from its text, not from {type(text).__name__}.")
    if len(text) > TEXT_AT_MOST:
        raise PopcornError(
            f"{file} has {len(text):,} characters; {what} of at most {TEXT_AT_MOST:,} was expected."
        )
    return text


# -- ACPI tables -----------------------------------------------------------------------------------

_TABLE_LINE = re.compile(r"(\S{4}) @ (?:0x)?[0-9A-Fa-f]{1,16}\s*")
_BYTES_LINE = re.compile(r"\s+([0-9A-Fa-f]{4,8}): ((?:[0-9A-Fa-f]{2} )*[0-9A-Fa-f]{2})(?=\s|$)")
_HEAD_BYTES = 36
_READ = ("SRAT", "SLIT", "APIC", "MCFG")
_ENTRIES_FROM = {"SRAT": 48, "APIC": 44, "MCFG": 44, "SLIT": 44}
_LEAST_BYTES = {  # (table, entry type): the bytes an entry of this type has
    ("SRAT", 0): 16, ("SRAT", 1): 40, ("SRAT", 2): 24,
    ("APIC", 0): 8, ("APIC", 1): 12, ("APIC", 2): 10, ("APIC", 3): 8, ("APIC", 4): 6,
    ("APIC", 5): 12, ("APIC", 9): 16, ("APIC", 10): 12,
}  # fmt: skip


def read_acpi(text: str, file: str = "the acpidump") -> AcpiTables:
    """The SRAT, SLIT, MADT and MCFG of what ``acpidump`` printed. Checksums are checked."""
    tables = _dumped_tables(_checked_text(text, file, "an acpidump"), file)
    if not tables:
        raise PopcornError(
            f"{file} holds none of the tables SRAT, SLIT, APIC and MCFG; the text that `acpidump` "
            'prints was expected ("APIC @ 0x0000000000000000", then lines of bytes).'
        )
    made = {"heads": {name: table.head for name, table in tables.items()}, "other_entries": {}}
    for name, read in (("SRAT", _srat), ("SLIT", _slit), ("APIC", _madt), ("MCFG", _mcfg)):
        if name in tables:
            fields = read(tables[name])
            others = fields.pop("others", ())
            made |= fields
            made["other_entries"][name] = others
    return AcpiTables(**made)


class _Table:
    """The bytes of one table, whose head and checksum are right."""

    def __init__(self, name: str, data: bytes, file: str, line: int) -> None:
        self.name, self.data, self.file, self.line = name, data, file, line
        if len(data) < _HEAD_BYTES:
            raise self.wrong(
                f"it ends after {len(data)} bytes; a head of {_HEAD_BYTES} was expected."
            )
        if data[:4] != name.encode("latin-1"):
            raise self.wrong(
                f"its first bytes say {data[:4].decode('latin-1')!r}; {name!r} was expected."
            )
        length = self.u32(4)
        if length != len(data):
            more = "it is cut off" if length > len(data) else "there are bytes after its end"
            raise self.wrong(
                f"{len(data)} bytes follow, and its head says {length}: {more}; the whole table "
                "was expected."
            )
        if sum(data) & 0xFF:
            raise self.wrong(
                f"its bytes add up to {sum(data) & 0xFF:#x} instead of 0 (the checksum): a byte "
                "was changed; an untouched table was expected."
            )
        if length < _ENTRIES_FROM[name]:
            raise self.wrong(
                f"it has {length} bytes; at least {_ENTRIES_FROM[name]} were expected."
            )

    def wrong(self, sentence: str) -> PopcornError:
        return PopcornError(f"{self.file}, table {self.name} of line {self.line}: {sentence}")

    @property
    def head(self) -> TableHead:
        words = (self.data[10:16], self.data[16:24])
        oem = (word.decode("latin-1").strip("\0 ") for word in words)
        return TableHead(self.name, len(self.data), self.data[8], *oem)

    def u16(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 2], "little")

    def u32(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 4], "little")

    def u64(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 8], "little")

    def entries(self) -> Iterator[tuple[int, int]]:
        """Type and place of each entry; entries say their own length."""
        at = _ENTRIES_FROM[self.name]
        while at < len(self.data):
            kind, size = self.data[at], self.data[at + 1] if at + 1 < len(self.data) else 0
            least = _LEAST_BYTES.get((self.name, kind), 2)
            if size < least or at + size > len(self.data):
                raise self.wrong(
                    f"the entry at byte {at:#x} (type {kind}) says it has {size} bytes; at least "
                    f"{least}, and at most the {len(self.data) - at} that are left, were expected."
                )
            yield kind, at
            at += size


def _dumped_tables(text: str, file: str) -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    name, started, data = "", 0, bytearray()

    def close():
        if name in _READ:
            if name in tables:
                raise PopcornError(
                    f"{file}, line {started}: a second table {name} begins, the first is on line "
                    f"{tables[name].line}; one was expected."
                )
            tables[name] = _Table(name, bytes(data), file, started)

    for number, line in enumerate(text.splitlines(), start=1):
        found = _TABLE_LINE.fullmatch(line)
        if found:
            close()
            name, started, data = found[1], number, bytearray()
        elif name in _READ and line.strip():
            found = _BYTES_LINE.match(line)
            if not found:
                raise PopcornError(
                    f"{file}, line {number}: {line.strip()[:60]!r} is no line of table {name}; "
                    'one such as "0010: 41 50 49 43" was expected.'
                )
            if int(found[1], 16) != len(data):
                raise PopcornError(
                    f"{file}, line {number}: the line begins at byte {int(found[1], 16):#x} of "
                    f"table {name}, and {len(data):#x} bytes came before; a line is missing or "
                    "twice."
                )
            data += bytes.fromhex(found[2][: 16 * 3 - 1])
    close()
    return tables


def _srat(table: _Table) -> dict:
    cpus, memory, others = [], [], []
    whole_domains = table.data[8] >= 2  # the first revision had one byte for the domain
    for kind, at in table.entries():
        if kind == 0:
            high = int.from_bytes(table.data[at + 9 : at + 12], "little") if whole_domains else 0
            domain = table.data[at + 2] | high << 8
            enabled = bool(table.u32(at + 4) & 1)
            cpus.append(CpuAffinity(domain, table.data[at + 3], None, enabled))
        elif kind == 1:
            start, size, flags = table.u64(at + 8), table.u64(at + 16), table.u32(at + 28)
            domain = table.u32(at + 2) if whole_domains else table.data[at + 2]
            bits = (bool(flags & bit) for bit in (1, 2, 4))
            memory.append(MemoryAffinity(domain, start, start + size, None, *bits))
        elif kind == 2:
            enabled = bool(table.u32(at + 12) & 1)
            cpus.append(CpuAffinity(table.u32(at + 4), table.u32(at + 8), None, enabled))
        else:
            others.append(kind)
    _check_srat(table, cpus, memory)
    return {"cpu_affinity": tuple(cpus), "memory_affinity": tuple(memory), "others": tuple(others)}


def _check_srat(table: _Table, cpus: list[CpuAffinity], memory: list[MemoryAffinity]) -> None:
    domains: dict[int, int] = {}
    for cpu in cpus:
        if cpu.enabled and domains.setdefault(cpu.apic_id, cpu.domain) != cpu.domain:
            raise table.wrong(
                f"APIC {cpu.apic_id:#x} is in domain {domains[cpu.apic_id]} and in domain "
                f"{cpu.domain}; one was expected."
            )
    claims = sorted((m for m in memory if m.enabled and m.end > m.start), key=lambda m: m.start)
    for claim in claims:
        if claim.end > ADDRESS_AT_MOST:
            raise table.wrong(
                f"the memory of domain {claim.domain} from {claim.start:#x} ends beyond the "
                "64-bit addresses; a range inside them was expected."
            )
    for one, other in pairwise(claims):
        if other.start < one.end and other.domain != one.domain:
            raise table.wrong(
                f"domains {one.domain} and {other.domain} both claim "
                f"{hex_range(other.start, min(one.end, other.end))} (Linux then uses no node at "
                "all); one was expected."
            )


def _slit(table: _Table) -> dict:
    side = table.u64(36)
    if side * side != len(table.data) - 44:
        raise table.wrong(
            f"it is for {side} domains and holds {len(table.data) - 44} distances; "
            f"{side} x {side} were expected."
        )
    cells = table.data[44:]
    rows = tuple(tuple(cells[row * side : (row + 1) * side]) for row in range(side))
    for one, row in enumerate(rows):
        for other, distance in enumerate(row):
            if (distance == HERE) != (one == other) or distance < HERE:
                expected = "10" if one == other else "more than 10"
                raise table.wrong(
                    f"the distance from domain {one} to {other} is {distance}; {expected} was "
                    "expected (Linux ignores the whole table then)."
                )
    return {"distances": rows}


def _madt(table: _Table) -> dict:
    local, chips, overrides, others, nmi_lines = [], [], [], [], 0
    address = table.u32(36)
    for kind, at in table.entries():
        if kind == 0:
            bytes_ = table.data
            enabled = bool(table.u32(at + 4) & 1)
            local.append(LocalApic(bytes_[at + 2], bytes_[at + 3], enabled))
        elif kind == 1:
            chips.append(IoApic(table.data[at + 2], table.u32(at + 4), table.u32(at + 8), 0))
        elif kind == 2:
            irq = table.data[at + 2], table.data[at + 3]
            overrides.append(Override(*irq, table.u32(at + 4), table.u16(at + 8)))
        elif kind in (4, 10):
            nmi_lines += 1
        elif kind == 5:
            address = table.u64(at + 4)
        elif kind == 9:
            enabled = bool(table.u32(at + 8) & 1)
            local.append(LocalApic(table.u32(at + 12), table.u32(at + 4), enabled))
        else:
            others.append(kind)
    seen: set[int] = set()
    for cpu in local:
        if cpu.enabled and cpu.apic_id in seen:
            raise table.wrong(
                f"two enabled CPUs have the APIC id {cpu.apic_id:#x}; one was expected."
            )
        seen |= {cpu.apic_id} if cpu.enabled else set()
    return {
        "local_apics": tuple(local),
        "local_apic_address": address,
        "has_8259": bool(table.u32(40) & 1),
        "io_apics": tuple(sorted(chips, key=lambda chip: chip.gsi_base)),
        "overrides": tuple(overrides),
        "nmi_lines": nmi_lines,
        "others": tuple(others),
    }


def _mcfg(table: _Table) -> dict:
    rest = len(table.data) - 44
    if rest % 16:
        raise table.wrong(
            f"{rest} bytes of entries follow its head; a multiple of 16 was expected."
        )
    spaces = [
        ConfigSpace(table.u64(at), table.u16(at + 8), table.data[at + 10], table.data[at + 11])
        for at in range(44, len(table.data), 16)
    ]
    for space in spaces:
        if space.last_bus < space.first_bus:
            raise table.wrong(
                f"segment {space.segment} has the buses {space.first_bus} to {space.last_bus}; "
                "a first and a last one were expected."
            )
    return {"config_spaces": tuple(spaces)}

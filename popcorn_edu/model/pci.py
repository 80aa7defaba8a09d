"""The devices of a machine: its PCI functions, the bridges they hang on, and their interrupts.

Three texts tell of them: what ``lspci -nn -D -vv`` prints (or plain ``lspci -nn``), a table of
facts in CSV, and /proc/interrupts. A device is one or more *functions*, and each function has an
owner of its own, so this file knows functions only.

    functions = read_lspci(Path("my.lspci.txt").read_text())
    print(tree(functions))

Words
    slot      where a function is: "0000:02:00.1" is domain 0, bus 2, device 0, function 1. Domains
              go beyond ffff: "10000:00:04.0"
    class     what a function is: "0200" Ethernet controller, "0604" PCI bridge
    bridge    a function behind which there are more buses: from ``secondary`` to ``subordinate``
    root      a bus that no bridge leads to; the machine itself does
    pin       INTA to INTD, the wire that an old-style interrupt uses
    MSI       an interrupt sent as a write to memory, with no wire and no I/O APIC

Left out: what a device can do beyond that (capabilities), and who else could drive it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.firmware import CPUS_AT_MOST, GIB, KIB, LINE_AT_MOST, MIB, TEXT_AT_MOST

BRIDGE_CLASSES = ("0604", "0607", "0609")  # PCI, CardBus, and semi-transparent bridges
CLASS_NAMES = {  # the classes a reader meets; from the PCI code and id assignment specification
    "0100": "SCSI controller", "0101": "IDE controller", "0106": "SATA controller",
    "0107": "SAS controller", "0108": "NVMe controller", "0200": "Ethernet controller",
    "0207": "InfiniBand controller", "0280": "network controller", "0300": "VGA controller",
    "0302": "3D controller", "0380": "display controller", "0403": "audio device",
    "0500": "memory", "0600": "host bridge", "0601": "ISA bridge", "0604": "PCI bridge",
    "0607": "CardBus bridge", "0680": "bridge", "0700": "serial port", "0805": "SD controller",
    "0880": "system peripheral", "0b40": "co-processor", "0c00": "FireWire controller",
    "0c03": "USB controller", "0c05": "SMBus", "1101": "performance counters",
}  # fmt: skip
IRQ_AT_MOST = 1 << 16  # a number above this is damage
SIZES = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}
_SLOT = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")


class PciFunction(NamedTuple):
    """One function of a PCI device, as a listing shows it."""

    slot: str  # "0000:02:00.0"
    vendor_device: str  # "8086:10c9"
    device_class: str  # "0200"
    name: str = ""
    bridge_to: tuple[int, int] | None = None  # buses behind a PCI bridge, else None
    pin: str = ""  # "A" to "D"
    irq: int | None = None  # the GSI or IRQ the listing gives
    msi: str = ""  # "", "MSI" or "MSI-X"
    driver: str = ""
    node: int | None = None
    regions: tuple[tuple[int, str, int, int], ...] = ()  # (BAR, "mem" or "io", address, bytes)

    @property
    def bus(self) -> int:
        return int(self.slot.split(":")[-2], 16)

    @property
    def domain(self) -> int:
        return int(self.slot.split(":")[0], 16)

    @property
    def kind(self) -> str:
        """What it is, in words: "Ethernet controller"."""
        return CLASS_NAMES.get(self.device_class, f"class {self.device_class}")


def slot_of(text: str) -> str:
    """A slot in full: "02:00.0" is "0000:02:00.0". ValueError if it is none."""
    found = _SLOT.fullmatch(text.strip().lower())
    if not found:
        raise ValueError(text)
    return f"{found[1] or '0000'}:{found[2]}:{found[3]}.{found[4]}"


def in_order(slot: str) -> tuple[int, str]:
    """For sorting: by domain as a number, then bus, device and function."""
    domain, _, rest = slot.partition(":")
    return int(domain, 16), rest


# -- lspci -----------------------------------------------------------------------------------------

_HEAD = re.compile(
    r"(\S+) (.+?) \[([0-9a-f]{4})\]: (.*?) ?\[([0-9a-f]{4}:[0-9a-f]{4})\]"
    r"(?: \(rev [0-9a-f]{2}\))?(?: \(prog-if [0-9a-f]{2}.*\))?\s*"
)
_INTERRUPT = re.compile(r"Interrupt: (?:pin ([A-D?]) )?(?:routed to )?(?:IRQ )?(\d+)?")
_REGION = re.compile(
    r"Region (\d): (Memory|I/O ports) at (?:<unassigned>|<ignored>|([0-9a-f]{1,16}))"
    r"([^\[\n]*(?:\[[^\]\n]*\] ?)*)"
)
_SIZE = re.compile(r"\[size=(\d{1,6})([KMGT]?)\]")
_BUSES = re.compile(
    r"Bus: primary=([0-9a-f]{2}), secondary=([0-9a-f]{2}), subordinate=([0-9a-f]{2})"
)


def read_lspci(text: str, file: str = "the listing") -> tuple[PciFunction, ...]:
    """What ``lspci -nn`` printed; with ``-D`` slots have domains, with ``-vv`` all the rest."""
    found: dict[str, dict] = {}
    lines: dict[str, int] = {}
    facts: dict = {}
    for number, line in enumerate(_checked(text, file).splitlines(), start=1):
        where, line = f"{file}, line {number}", line[:LINE_AT_MOST]
        if line[:1].isspace() or not line:
            if facts:
                _read_fact(line.strip(), facts, where)
            elif line.strip():
                raise PopcornError(
                    f"{where}: {line.strip()[:60]!r} stands before the first function; a line such "
                    "as '0000:02:00.0 Ethernet controller [0200]: Intel 82576 [8086:10c9]' was "
                    "expected."
                )
            continue
        facts = _read_head(line, where)
        slot = facts["slot"]
        if slot in found:
            raise PopcornError(
                f"{where}: {slot} is listed a second time, after line {lines[slot]}; each function "
                "was expected once."
            )
        found[slot], lines[slot] = facts, number
    if not found:
        raise PopcornError(
            f"{file} lists no PCI function; what `lspci -nn -D -vv` prints was expected."
        )
    return _made(found, lines, file)


def _read_head(line: str, where: str) -> dict:
    found = _HEAD.fullmatch(line)
    if not found:
        hint = ""
        if (
            re.match(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] ", line)
            and "[" not in line
        ):
            hint = " (was lspci called without -nn?)"
        raise PopcornError(
            f"{where}: {line[:60]!r} is no function{hint}; a line such as '0000:02:00.0 Ethernet "
            "controller [0200]: Intel 82576 [8086:10c9]' was expected."
        )
    try:
        slot = slot_of(found[1])
    except ValueError:
        raise PopcornError(
            f"{where}: {found[1][:40]!r} is no slot; one such as '0000:02:00.0' was expected."
        ) from None
    return {"slot": slot, "device_class": found[3], "name": found[4], "vendor_device": found[5]}


def _read_fact(text: str, facts: dict, where: str) -> None:
    if text.startswith("Interrupt:"):
        found = _INTERRUPT.match(text)
        if not found:
            raise PopcornError(
                f"{where}: {text[:60]!r} is garbled; 'Interrupt: pin A routed to IRQ 28' was "
                "expected."
            )
        if found[1]:
            facts["pin"] = found[1].strip("?")
        if found[2]:
            facts["irq"] = _irq(found[2], where)
    elif text.startswith("NUMA node:"):
        facts["node"] = _node(text.split(":")[1].strip(), where)
    elif text.startswith("Bus: "):
        found = _BUSES.match(text)
        if not found:
            raise PopcornError(
                f"{where}: {text[:60]!r} is garbled; 'Bus: primary=00, secondary=01, "
                "subordinate=01' was expected."
            )
        facts["buses"] = tuple(int(found[n], 16) for n in (1, 2, 3))
    elif text.startswith("Region "):
        region = _REGION.match(text)
        if not region:
            raise PopcornError(
                f"{where}: {text[:60]!r} is garbled; 'Region 0: Memory at f0600000 (32-bit, "
                "non-prefetchable) [size=128K]' was expected."
            )
        size = _SIZE.search(region[4])
        if region[3] and "regions of virtual functions" not in facts:
            count = int(size[1]) * SIZES[size[2]] if size else 0
            kind = "mem" if region[2] == "Memory" else "io"
            facts.setdefault("regions", []).append(
                (int(region[1]), kind, int(region[3], 16), count)
            )
    elif text.startswith("Capabilities:"):
        if "(SR-IOV)" in text:  # its regions are those of functions that are not there yet
            facts["regions of virtual functions"] = True
        for kind in ("MSI-X", "MSI"):
            if f" {kind}: Enable+" in text:
                facts["msi"] = kind
    elif text.startswith("Kernel driver in use: "):
        facts["driver"] = text.split(": ")[1].strip()


def _made(found: dict[str, dict], lines: dict[str, int], file: str) -> tuple[PciFunction, ...]:
    functions = []
    for slot, facts in found.items():
        buses = facts.pop("buses", None)
        facts.pop("regions of virtual functions", None)
        where = f"{file}, line {lines[slot]}"
        if buses:
            facts["bridge_to"] = _behind(slot, *buses, where)
        facts["regions"] = tuple(facts.get("regions", ()))
        functions.append(PciFunction(**facts))
    _check_bridges(functions, lines, file)
    return tuple(sorted(functions, key=lambda function: in_order(function.slot)))


def _behind(slot: str, primary: int, secondary: int, subordinate: int, where: str):
    """The buses behind a bridge; None for one that the firmware left unnumbered."""
    if secondary == subordinate == 0:
        return None
    bus = int(slot.split(":")[-2], 16)
    if primary != bus:
        raise PopcornError(
            f"{where}: bridge {slot} says it is on bus {primary:#04x}; bus {bus:#04x} was expected."
        )
    if not bus < secondary <= subordinate <= 0xFF:
        raise PopcornError(
            f"{where}: bridge {slot} leads to the buses {secondary:#04x} to {subordinate:#04x}; a "
            f"first and a last one above its own ({bus:#04x}) were expected."
        )
    return secondary, subordinate


def _check_bridges(functions: list[PciFunction], lines: dict[str, int], file: str) -> None:
    ways: dict[tuple[int, int], PciFunction] = {}
    for function in functions:
        if function.bridge_to:
            way = function.domain, function.bridge_to[0]
            if way in ways:
                raise PopcornError(
                    f"{file}, line {lines[function.slot]}: the bridges {ways[way].slot} and "
                    f"{function.slot} both lead to bus {way[1]:#04x}; one was expected."
                )
            ways[way] = function


# -- tables of facts -------------------------------------------------------------------------------

_COLUMNS = {
    "bdf", "id", "vendor", "device", "class", "class_name", "name", "subsystem", "header_type",
    "pin", "irq", "msi", "driver", "numa_node", "primary", "secondary", "subordinate", "regions",
}  # fmt: skip


def read_pci_csv(text: str, file: str = "the table") -> tuple[PciFunction, ...]:
    """A CSV of facts: columns bdf, class and id (or vendor and device), and any of
    name, pin, irq, msi, driver, numa_node, secondary, subordinate, regions."""
    try:
        rows = list(csv.reader(_checked(text, file).splitlines(), strict=True))
    except csv.Error as error:
        raise PopcornError(f"{file}: {error}; a CSV table was expected.") from None
    if not rows or "bdf" not in rows[0]:
        raise PopcornError(
            f"{file}, line 1: there is no column bdf; a heading such as "
            "'bdf,id,class,pin,irq,driver,numa_node,regions' was expected."
        )
    head = rows[0]
    for name in head:
        if name not in _COLUMNS:
            raise PopcornError(
                f"{file}, line 1: there is no column {name[:30]!r}; {near_names(name, _COLUMNS)}"
            )
    if len(set(head)) < len(head):
        raise PopcornError(f"{file}, line 1: a column is named twice; each was expected once.")
    if "class" not in head or not ({"id"} <= set(head) or {"vendor", "device"} <= set(head)):
        raise PopcornError(
            f"{file}, line 1: the columns class and id (or vendor and device) are missing; both "
            "were expected."
        )
    found: dict[str, dict] = {}
    lines: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        where = f"{file}, line {number}"
        if not any(row):
            continue
        if len(row) != len(head):
            raise PopcornError(f"{where}: {len(row)} columns; {len(head)} were expected.")
        facts = _row(dict(zip(head, row, strict=True)), where)
        if facts["slot"] in found:
            raise PopcornError(
                f"{where}: {facts['slot']} is listed a second time, after line "
                f"{lines[facts['slot']]}; each function was expected once."
            )
        found[facts["slot"]], lines[facts["slot"]] = facts, number
    if not found:
        raise PopcornError(f"{file} lists no PCI function; one a line was expected.")
    return _made(found, lines, file)


def _row(row: dict[str, str], where: str) -> dict:
    try:
        slot = slot_of(row["bdf"])
    except ValueError:
        raise PopcornError(
            f"{where}: {row['bdf'][:40]!r} is no slot; one such as '0000:02:00.0' was expected."
        ) from None
    ids = row["id"] if "id" in row else f"{row['vendor']}:{row['device']}"
    if not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", ids):
        raise PopcornError(
            f"{where}: the id of {slot} is {ids[:40]!r}; vendor and device such as '8086:10c9' "
            "were expected."
        )
    if not re.fullmatch(r"[0-9a-f]{4}([0-9a-f]{2})?", row["class"]):
        raise PopcornError(
            f"{where}: the class of {slot} is {row['class'][:40]!r}; 4 or 6 hexadecimal digits "
            "such as '0200' were expected."
        )
    pin, msi = row.get("pin", ""), row.get("msi", "")
    if pin not in ("", "A", "B", "C", "D"):
        raise PopcornError(f"{where}: the pin of {slot} is {pin[:20]!r}; A to D was expected.")
    if msi not in ("", "MSI", "MSI-X"):
        raise PopcornError(
            f"{where}: msi of {slot} is {msi[:20]!r}; MSI, MSI-X or nothing was expected."
        )
    facts = {
        "slot": slot,
        "vendor_device": ids,
        "device_class": row["class"][:4],
        "name": row.get("name") or row.get("class_name", ""),
        "pin": pin,
        "msi": msi,
        "driver": row.get("driver", ""),
    }
    if row.get("irq"):
        facts["irq"] = _irq(row["irq"], where)
    if row.get("numa_node"):
        facts["node"] = _node(row["numa_node"], where)
    buses = row.get("secondary", ""), row.get("subordinate", "")
    if any(buses):
        numbers = [_count(bus, where, "a bus number", 255) for bus in buses]
        primary = row.get("primary") or str(int(slot.split(":")[-2], 16))
        facts["buses"] = (_count(primary, where, "a bus number", 255), *numbers)
    facts["regions"] = [_region(word, slot, where) for word in row.get("regions", "").split()]
    return facts


def _region(word: str, slot: str, where: str) -> tuple[int, str, int, int]:
    found = re.fullmatch(r"([0-9]):(mem|io):0x([0-9a-f]{1,16})(?::0x([0-9a-f]{1,16}))?", word)
    if not found:
        raise PopcornError(
            f"{where}: the region {word[:40]!r} of {slot} is garbled; one such as "
            "'0:mem:0xf0600000:0x20000' was expected."
        )
    return int(found[1]), found[2], int(found[3], 16), int(found[4] or "0", 16)


def _node(digits: str, where: str) -> int | None:
    """A node's number; -1 is Linux's word for "unknown"."""
    return None if digits == "-1" else _count(digits, where, "a NUMA node")


def _irq(digits: str, where: str) -> int:
    return _count(digits, where, "an interrupt number", IRQ_AT_MOST)


def _count(digits: str, where: str, what: str, at_most: int = CPUS_AT_MOST) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", digits) or int(digits) > at_most:
        raise PopcornError(
            f"{where}: {digits[:40]!r} is not {what}; a whole number from 0 to {at_most} was "
            "expected."
        )
    return int(digits)


def _checked(text: str, file: str) -> str:
    if not isinstance(text, str):
        raise PopcornError(f"{file}: a text was expected, not {type(text).__name__}.")
    if len(text) > TEXT_AT_MOST:
        raise PopcornError(
            f"{file} has {len(text):,} characters; at most {TEXT_AT_MOST:,} were expected."
        )
    return text


# -- the tree --------------------------------------------------------------------------------------


class Branch(NamedTuple):
    """A function, and what hangs behind it if it is a bridge."""

    function: PciFunction
    below: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class Tree:
    """All functions, each below the bridge that leads to it; ``notes`` say what was derived."""

    roots: tuple[Branch, ...]
    parent: dict[str, str | None] = field(repr=False)  # slot -> the bridge's slot
    notes: tuple[str, ...] = ()

    def above(self, slot: str) -> tuple[str, ...]:
        """The bridges on the way from the root to a function."""
        way: list[str] = []
        while (slot := self.parent.get(slot)) is not None:
            way.insert(0, slot)
        return tuple(way)

    def below(self, slot: str) -> tuple[str, ...]:
        """Every function behind a bridge, near ones first."""
        return tuple(s for s in self.parent if slot in self.above(s))

    def __str__(self) -> str:
        lines: list[str] = []

        def draw(branches: Iterable[Branch], depth: int) -> None:
            for function, below in branches:
                name = f"  {function.name}" if function.name else ""
                lines.append(f"{'  ' * depth}{function.slot} {function.kind}{name}")
                draw(below, depth + 1)

        draw(self.roots, 0)
        return "\n".join([*lines, *(f"({note})" for note in self.notes)])


def tree(functions: Iterable[PciFunction]) -> Tree:
    """Who hangs where. A bridge without bus numbers gets its bus only where there is no choice."""
    functions = sorted(functions, key=lambda function: in_order(function.slot))
    ways: dict[tuple[int, int], str] = {}
    for bridge in sorted(functions, key=_width, reverse=True):  # the narrowest bridge wins
        if bridge.bridge_to and bridge.bus < bridge.bridge_to[0]:
            first, last = bridge.bridge_to
            ways |= {(bridge.domain, bus): bridge.slot for bus in range(first, last + 1)}
    notes = _derived_ways(functions, ways)
    parent = {f.slot: ways.get((f.domain, f.bus)) for f in functions}
    children: dict[str | None, list[PciFunction]] = {}
    for function in functions:
        children.setdefault(parent[function.slot], []).append(function)

    def branches(above: str | None) -> tuple[Branch, ...]:
        return tuple(Branch(f, branches(f.slot)) for f in children.get(above, ()))

    return Tree(branches(None), parent, tuple(notes))


def _width(function: PciFunction) -> int:
    return function.bridge_to[1] - function.bridge_to[0] if function.bridge_to else 0


def _derived_ways(functions: list[PciFunction], ways: dict[tuple[int, int], str]) -> list[str]:
    """Adds to ``ways`` what follows from the list itself, and says so, or why it cannot."""
    notes = []
    hosts = {(f.domain, f.bus) for f in functions if f.device_class == "0600"}
    homeless: dict[int, list[int]] = {}
    for domain, bus in sorted({(f.domain, f.bus) for f in functions}):
        if bus and (domain, bus) not in ways and (domain, bus) not in hosts:
            homeless.setdefault(domain, []).append(bus)
    for domain, buses in homeless.items():
        blank = [
            f.slot
            for f in functions
            if f.domain == domain and f.device_class in BRIDGE_CLASSES and f.bridge_to is None
        ]
        where = ", ".join(f"{bus:02x}" for bus in buses)
        if len(buses) == len(blank) == 1 and int(blank[0].split(":")[-2], 16) < buses[0]:
            ways[domain, buses[0]] = blank[0]
            notes.append(
                f"derived: bus {where} is behind {blank[0]}, the only bridge without bus numbers"
            )
        elif blank:
            notes.append(
                f"not derivable: no bridge is said to lead to bus {where}, and the list gives no "
                f"bus numbers for {', '.join(blank)}; shown as roots"
            )
        else:
            notes.append(f"no bridge of the list leads to bus {where}; shown as roots")
    return notes


# -- /proc/interrupts ------------------------------------------------------------------------------


class InterruptRow(NamedTuple):
    """One line of /proc/interrupts."""

    name: str  # "16", "LOC", "IPI0"
    counts: tuple[int, ...]  # one for each online CPU; rows such as ERR have one in all
    says: str

    @property
    def irq(self) -> int | None:
        return int(self.name) if self.name.isdigit() else None


@dataclass(frozen=True)
class Interrupts:
    """How often each interrupt came, CPU by CPU."""

    cpus: tuple[int, ...]
    rows: tuple[InterruptRow, ...]

    def row(self, name: str | int) -> InterruptRow:
        for row in self.rows:
            if row.name == str(name):
                return row
        raise PopcornError(
            f"There is no interrupt {name!r}; {near_names(str(name), [r.name for r in self.rows])}"
        )

    def count(self, name: str | int, cpu: int) -> int:
        """How often the interrupt came to the CPU."""
        row = self.row(name)
        if cpu not in self.cpus or len(row.counts) < len(self.cpus):
            raise PopcornError(
                f"Interrupt {name} is not counted for CPU {cpu!r}; its row is {row}."
            )
        return row.counts[self.cpus.index(cpu)]


def read_interrupts(text: str, file: str = "/proc/interrupts") -> Interrupts:
    """What ``cat /proc/interrupts`` printed, on x86 or arm."""
    lines = _checked(text, file).splitlines()
    start = next((at for at, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise PopcornError(f"{file} is empty; what `cat /proc/interrupts` prints was expected.")
    heads = lines[start].split()
    if not all(re.fullmatch(r"CPU[0-9]{1,5}", head) for head in heads):
        raise PopcornError(
            f"{file}, line {start + 1}: {lines[start].strip()[:60]!r} is no heading; "
            "'CPU0 CPU1 ...' was expected."
        )
    cpus = tuple(int(head[3:]) for head in heads)
    if len(set(cpus)) < len(cpus):
        raise PopcornError(f"{file}, line {start + 1}: a CPU is named twice; once was expected.")
    rows: dict[str, InterruptRow] = {}
    for number, line in enumerate(lines[start + 1 :], start=start + 2):
        if not line.strip():
            continue
        row = _interrupt_row(line, len(cpus), f"{file}, line {number}")
        if row.name in rows:
            raise PopcornError(
                f"{file}, line {number}: interrupt {row.name} is listed a second time; once was "
                "expected."
            )
        rows[row.name] = row
    if not rows:
        raise PopcornError(f"{file} lists no interrupt; at least one was expected.")
    return Interrupts(cpus, tuple(rows.values()))


def _interrupt_row(line: str, cpus: int, where: str) -> InterruptRow:
    name, colon, rest = line.partition(":")
    name = name.strip()
    if not colon or not re.fullmatch(r"[A-Za-z0-9_-]{1,16}", name):
        raise PopcornError(
            f"{where}: {line.strip()[:60]!r} is no row; one such as '16: 5 0 IO-APIC-fasteoi "
            "eth0' was expected."
        )
    words = rest.split(maxsplit=cpus)
    counts = []
    for word in words[:cpus]:
        if not re.fullmatch(r"[0-9]{1,20}", word):
            break
        counts.append(int(word))
    whole = len(counts) == len(words) == 1  # such as ERR, which counts for the whole machine
    if len(counts) != cpus and not whole:
        raise PopcornError(
            f"{where}: interrupt {name} has {len(counts)} counts; {cpus} were expected, one for "
            "each CPU."
        )
    return InterruptRow(name, tuple(counts), " ".join(" ".join(words[len(counts) :]).split()))

"""The memory map as one kernel sees it: the firmware's, edited by ``mem=`` and ``memmap=``.

The firmware hands every kernel the same map (E820: what is RAM, what is not). ``mem=`` and
``memmap=`` do not carve a piece out of it, they edit a list of entries that may overlap; only at
the end does Linux settle what an address is, and then the highest type wins wherever entries
overlap. So "reserved" wins over "usable" in whatever order they were written, while ``mem=`` cuts
only the usable entries that are already there.

    ram = RamMap(machine.memory_map)
    ram.add(4 * GIB, 1 * GIB, USABLE)     # memmap=1G@4G
    ram.add(16 * MIB, 4080 * MIB, RESERVED)  # memmap=4080M$16M
    ram.cut_above(5 * GIB)                # mem=5G
    ram.settled()                         # tuple of MemoryRange, ascending, without overlaps

Words
    type     a number the firmware gives: 1 usable, 2 reserved, 3 ACPI data, 4 ACPI NVS, ...
    settled  one type for each address: the highest of all entries that cover it
    edit     what one range of a ``memmap=`` does: a method of RamMap and its arguments

Left out: RAM that Linux trims later because the MTRRs call it a hole, and the kernel's own image,
which it counts as RAM wherever it was loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.cpulist import (
    IGNORED,
    MALFORMED,
    MISREAD,
    PANICS,
    REMARK,
    SILENTLY,
    U32,
    Complaint,
    Read,
    memparse,
    number,
    octal,
    wide,
)
from popcorn_edu.model.firmware import KIB, MIB, MemoryRange, hex_range, in_words

USABLE, RESERVED, ACPI_DATA, ACPI_NVS, UNUSABLE = 1, 2, 3, 4, 5
PERSISTENT = 12  # what memmap=nn!ss makes
SOFT_RESERVED = 0xEFFF_FFFF
NAMES = {
    USABLE: "usable",
    RESERVED: "reserved",
    ACPI_DATA: "ACPI data",
    ACPI_NVS: "ACPI NVS",
    UNUSABLE: "unusable",
    7: "persistent (type 7)",
    PERSISTENT: "persistent (type 12)",
    128: "usable",  # the kernel's own data, which counts as RAM
    SOFT_RESERVED: "soft reserved",
}
NEVER_MERGED = (PERSISTENT, SOFT_RESERVED)  # two such entries side by side stay two
TOP = 1 << 64  # addresses are 64 bits; an entry that reaches beyond starts again at 0

LOW_BYTES = 16 * MIB  # where a kernel's image starts; less RAM than this boots nothing
PAGE_BYTES = 4 * KIB
BIOS_START, BIOS_END = 640 * KIB, 1 * MIB  # never RAM on a PC, whatever the map says


class BadMap(PopcornError):
    """A map that makes Linux panic before it prints a line on the console."""


def type_of(kind: str) -> int:
    """The number of a kind as Linux prints it: "usable" is 1, "type 9" is 9."""
    for known, name in NAMES.items():
        if name == kind:
            return known
    digits = kind.removeprefix("type ")
    if not digits.isdecimal():
        raise PopcornError(f"{kind!r} is no kind of memory; expected one such as usable, reserved")
    return int(digits)


def kind_of(number: int) -> str:
    return NAMES.get(number, f"type {number}")


class RamMap:
    """Entries in the order they were written: [start, size, type], overlaps and all."""

    def __init__(self, ranges: Iterable[MemoryRange] = ()) -> None:
        self.entries = [[r.start, r.end - r.start, type_of(r.kind)] for r in ranges]

    def add(self, start: int, size: int, type: int) -> None:
        self.entries.append([start, size, type])

    def forget(self) -> None:
        """``memmap=exactmap``: what was there before counts no more."""
        self.entries = []

    def cut_above(self, limit: int) -> None:
        """``mem=``: the usable entries that are there now end at the limit."""
        self.change(limit, TOP - 1 - limit, USABLE, None)

    def change(self, start: int, size: int, old: int | None, new: int | None) -> None:
        """Give the range another type, or None: out of all entries, or of those of one type."""
        end = min(start + size, TOP - 1)
        for entry in self.entries:  # grows on the way: what is split off is looked at as well
            first, length, type = entry
            last = (first + length) % TOP
            if old is not None and type != old:
                continue
            if start <= first and last <= end:
                entry[:] = (first, length, new) if new else (0, 0, 0)
                continue
            low, high = max(start, first), min(end, last)
            if low >= high:
                continue
            if new:
                self.add(low, high - low, new)
            if first < low:
                entry[1] = low - first
                if high < last:
                    self.add(high, last - high, type)
            else:
                entry[:] = high, last - high, type

    def settled(self, fewest: int = 2) -> tuple[MemoryRange, ...]:
        """The map without overlaps; BadMap where Linux would panic over it."""
        if len(self.entries) < fewest:
            raise BadMap("a memory map of fewer than two entries is taken for a mistake")
        if any((start + size) % TOP < start for start, size, _ in self.entries):
            raise BadMap("an entry of the memory map reaches beyond the last 64-bit address")
        return tuple(_settle([entry for entry in self.entries if entry[1]]))


def _settle(entries: list[list[int]]) -> Iterable[MemoryRange]:
    """Walk over all places where an entry starts or ends, and keep the highest type in between."""
    places = [(start, True, type) for start, _, type in entries]
    places += [(start + size, False, type) for start, size, type in entries]
    covering: list[int] = []
    since, type = 0, 0
    for place, starts, kind in sorted(places, key=lambda p: (p[0], not p[1])):
        if starts:
            covering.append(kind)
        else:
            covering.remove(kind)
        highest = max(covering, default=0)
        if highest == type and type not in NEVER_MERGED:
            continue
        if type and place > since:
            yield MemoryRange(since, place, kind_of(type))
        since, type = place, highest


def trimmed(ranges: Iterable[MemoryRange]) -> tuple[MemoryRange, ...]:
    """The RAM that Linux goes on with: whole pages, without page 0 and the BIOS area, merged."""
    pieces: list[MemoryRange] = []
    for start, end, kind in ranges:
        if kind != "usable":
            continue
        below = max(start, PAGE_BYTES), min(end, BIOS_START)
        for low, high in (below, (max(start, BIOS_END), end)):
            low, high = -(-low // PAGE_BYTES) * PAGE_BYTES, high // PAGE_BYTES * PAGE_BYTES
            if low >= high:
                continue
            if pieces and pieces[-1].end == low:
                low = pieces.pop().start
            pieces.append(MemoryRange(low, high))
    return tuple(pieces)


# the words that edit it: each reader returns (reading, complaints)


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else in_words(count)


def _meant(value: str) -> str:
    """The size somebody meant by "1.5G" or "1GB", as the kernel reads it; "" if we cannot tell."""
    found = re.fullmatch(r"(\d+)(?:\.(\d+))? ?([KMGTPE])?i?B?", value, re.IGNORECASE)
    if not found:
        return ""
    whole, part, unit = found[1].lstrip("0") or "0", (found[2] or "").strip("0"), found[3] or ""
    if not part:
        return whole + unit
    count, left = divmod(int(whole + part) * 1024, 10 ** len(part))
    smaller = dict(zip("MGTPE", "KMGTP", strict=True)).get(unit.upper())
    return f"{count}{smaller}" if smaller and not left else ""


def _no_size(value: str) -> str:
    meant = _meant(value) if _meant(value).strip("0KMGTPEkmgtpe") else ""
    return f"{value!r} is no size; {meant or 'one such as 1536M'} was expected"


LEAST = f"{in_words(LOW_BYTES)} or more"


def _too_small(size: int, word: str = "") -> list[Complaint]:
    if size >= LOW_BYTES:
        return []
    linux = "finds no RAM to run in, and stops before it can say so"
    says = f"{_bytes(size)} of RAM is too little to boot; {LEAST} was expected"
    if word.isdecimal():
        says = f"a number alone counts bytes; {word}M was expected"
    return [(PANICS, linux, says)]


def read_mem(value: str | None) -> Read:
    if not value:
        return None, [(IGNORED, MALFORMED, "mem needs a size, such as mem=5G")]
    if value == "nopentium":
        return None, [(IGNORED, MALFORMED, "mem=nopentium is for 32-bit kernels only")]
    size, end = memparse(value)
    complaints = octal(value) + wide(value)
    if size == 0:
        says = complaints[-1][2] if complaints else _no_size(value)
        return None, [(IGNORED, MALFORMED, says)]
    if end < len(value):
        linux = f"takes {_bytes(size)} and drops {value[end:]!r}, {SILENTLY}"
        complaints.append((MISREAD, linux, _no_size(value)))
    return size, complaints + _too_small(size, value)


def read_memmap(value: str | None) -> Read:
    """A list of edits, each the arguments of a method of e820.RamMap."""
    if value is None or value == "":
        return None, [(IGNORED, f"ignores it, {SILENTLY}", "memmap needs a range, such as 1G@4G")]
    edits: list[tuple] = []
    complaints: list[Complaint] = []
    for item in value.split(","):
        edit = _read_range(item, complaints)
        if edit:
            edits.append(edit)
    return tuple(edits) or None, complaints


MARKS = {"@": USABLE, "#": ACPI_DATA, "$": RESERVED, "!": PERSISTENT}


def _read_range(item: str, complaints: list[Complaint]) -> tuple | None:
    if item.startswith("exactmap"):
        if item != "exactmap":
            linux = f"reads exactmap and drops the rest, {SILENTLY}"
            complaints.append((MISREAD, linux, f"{item!r} is read as exactmap"))
        return ("forget",)
    size, end = memparse(item)
    if end == 0:
        says = f"{item!r} is no range; one such as 1G@4G was expected"
        complaints.append((IGNORED, f"ignores it, {SILENTLY}", says))
        return None
    mark = item[end : end + 1]
    complaints += octal(item) + wide(item)
    if mark == "%":
        return _read_change(item, size, end + 1, complaints)
    if mark not in MARKS or not mark:
        return _read_limit(item, size, end, complaints)
    start, stop = memparse(item, end + 1)
    complaints += octal(item[end + 1 :]) + wide(item[end + 1 :])
    if stop == end + 1:
        linux = f"reads the missing address as 0, {SILENTLY}"
        complaints.append((MISREAD, linux, f"{item!r} has no address after {mark!r}"))
    elif stop < len(item):
        linux = f"takes {item[:stop]} and drops {item[stop:]!r}, {SILENTLY}"
        says = f"{item!r} is no range; {_mended(item)} was expected"
        complaints.append((MISREAD, linux, says))
    if size == 0:
        linux = "adds an entry of no bytes, which changes nothing"
        complaints.append((IGNORED, linux, f"{item!r} is a range of 0 bytes"))
    elif start + size >= TOP:
        linux = 'panics with "Invalid user supplied memory map"'
        complaints.append((PANICS, linux, f"{item!r} reaches beyond the last 64-bit address"))
    return ("add", start, size, MARKS[mark])


def _read_limit(item: str, size: int, end: int, complaints: list[Complaint]) -> tuple:
    """A size alone: what comes above it is no RAM, as with mem=."""
    rest = item[end:]
    linux = f"ends all RAM at {_bytes(size)}"
    if not rest:
        linux += f", as mem={item} does"
        says = f'{item} alone is no range; if a "$" followed, the shell or GRUB took it: write \\$'
        complaints.append((REMARK, linux, says))
    else:
        says = f"{item!r} is no range; {_mended(item)} was expected"
        if re.fullmatch(r"\w?[0-9]*[KMGTPE]?", rest):
            says = f'{item!r} is no range; if a "$" was there, the shell or GRUB took it: write \\$'
        complaints.append((MISREAD, f"stops at {rest!r} and {linux}", says))
    complaints += _too_small(size, item)
    return ("cut_above", size)


def _mended(item: str) -> str:
    """The range that was meant, if we can tell."""
    found = re.fullmatch(r"([^@#$!]+)([@#$!])+([^@#$!]+)", item)
    if not found or not _meant(found[1]) or not _meant(found[3]):
        return "one such as 1G@4G"
    return _meant(found[1]) + found[2] + _meant(found[3])


def _read_change(item: str, size: int, place: int, complaints: list[Complaint]) -> tuple | None:
    """``size%start-old+new``: another type for what is there."""
    start, place = memparse(item, place)
    old = new = 0
    if item[place : place + 1] == "-":
        old, place = number(item, place + 1)
    if item[place : place + 1] == "+":
        new, place = number(item, place + 1)
    old, new = old & U32, new & U32
    if place < len(item):
        says = f"{item!r} has {item[place:]!r} left over; size%start-old+new was expected"
        complaints.append((IGNORED, f"ignores it, {SILENTLY}", says))
        return None
    if old and old == new:
        linux = "stops at a BUG before the console works"
        complaints.append((PANICS, linux, f"{item!r} changes type {old} into itself"))
        return ("same", start, size, old, new)
    if new and not old:
        return ("add", start, size, new)
    return ("change", start, size, old or None, new or None)


def explain_memmap(edits: tuple[tuple, ...]) -> str:
    return "; ".join(map(_explain_edit, edits))


def _explain_edit(edit: tuple) -> str:
    what, *rest = edit
    if what == "forget":
        return "the firmware's map, and every entry written so far, is forgotten"
    if what == "cut_above":
        return f"RAM known so far ends at {in_words(rest[0])}"
    start, size, *types = rest
    where = f"{hex_range(start, start + size)} ({in_words(size)} at {in_words(start)})"
    if what == "add":
        return f"{where} is {kind_of(types[0])}"
    old = "whatever it is" if types[0] is None else kind_of(types[0])
    if types[1] is None:
        return f"{where} is taken out of the map, if it is {old}"
    return f"{where} becomes {kind_of(types[1])} if it is {old}"

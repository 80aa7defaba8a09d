"""How people write what a kernel gets: CPUs, ranges of RAM, devices; in a call or in a saved plan.

    read_cpus("8, 0-3")                      # (0, 1, 2, 3, 8)
    read_ranges("0x100000-0x1fffff, 1G@4G")  # as Linux prints them, or as memmap= takes them
    read_slot("02:00.0", machine)            # "0000:02:00.0", if the machine has it

A kernel reads its command line with other, laxer rules (cpulist.py): it never says what it did
not understand. What a student writes is read strictly, and answered in a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.firmware import GIB, KIB, MIB, MemoryRange, in_words
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.pci import slot_of
from popcorn_edu.model.topology import CPUS_AT_MOST

RANGES_AT_MOST = 256  # each is a word of at least 8 letters on a line of 2,047
ADDRESS_AT_MOST = 1 << 52  # x86's physical addresses end here

_CPUS = re.compile(r"([0-9]{1,8})(?:-([0-9]{1,8}))?")
_BETWEEN = re.compile(r"(?:[^,\n(]|\([^)]*\)?)+")  # commas separate, but "(1,024 MiB)" is whole
_BY_ENDS = re.compile(r"\[?(0x[0-9a-fA-F]{1,16})-(0x[0-9a-fA-F]{1,16})\]?(?: ?\(([^)]*)\))?")
_AMOUNT = r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,16})([KMGT]?)"
_BY_SIZE = re.compile(f"{_AMOUNT}@{_AMOUNT}")
_SUFFIX = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": GIB << 10}


def read_cpus(cpus: str | Iterable[int]) -> tuple[int, ...]:
    """CPU numbers, ascending.

    >>> read_cpus("8, 0-3")
    (0, 1, 2, 3, 8)
    """
    if isinstance(cpus, str):
        numbers: list[int] = []
        for part in filter(None, (part.strip() for part in cpus.split(","))):
            found = _CPUS.fullmatch(part)
            first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
            if first > last or last >= CPUS_AT_MOST:
                raise PopcornError(
                    f"{part!r:.60} in the list of CPUs {cpus!r:.60}: a number or a range such as "
                    "0-7 was expected"
                )
            numbers += range(first, last + 1)
    else:
        numbers = list(cpus) if isinstance(cpus, Iterable) else [cpus]
        for cpu in numbers:
            if isinstance(cpu, bool) or not isinstance(cpu, int) or not 0 <= cpu < CPUS_AT_MOST:
                raise PopcornError(
                    f"{cpu!r:.60} is no CPU number; a list such as [0, 1, 2] or '0-2' was expected"
                )
    return tuple(sorted(set(numbers)))


def read_ranges(ranges: str | Iterable) -> tuple[MemoryRange, ...]:
    """Ranges of addresses, ascending, as Linux prints them or as ``memmap=`` takes them.

    >>> read_ranges("0x100000-0x1fffff, 1G@4G")[1]
    MemoryRange(start=4294967296, end=5368709120, kind='usable')
    """
    if isinstance(ranges, str):
        ranges = [part.strip() for part in _BETWEEN.findall(ranges) if part.strip()]
    elif not isinstance(ranges, Iterable) or isinstance(ranges, MemoryRange):
        ranges = [ranges]
    ranges = list(ranges)
    if len(ranges) > RANGES_AT_MOST:
        raise PopcornError(
            f"{len(ranges):,} ranges are more than a command line can hold; at most "
            f"{RANGES_AT_MOST} were expected"
        )
    return tuple(sorted(map(read_range, ranges)))


def read_range(part) -> MemoryRange:
    if isinstance(part, str):
        ends, sized = _BY_ENDS.fullmatch(part.strip()), _BY_SIZE.fullmatch(part.strip())
        if ends:
            start, end = int(ends[1], 16), int(ends[2], 16) + 1
            if start < end and ends[3] and ends[3] != in_words(end - start):
                raise PopcornError(
                    f"the range {part!r} holds {in_words(end - start)}, not {ends[3]}; its size in "
                    "words may be left out"
                )
        elif sized:
            start = _bytes(sized[3], sized[4])
            end = start + _bytes(sized[1], sized[2])
        else:
            raise PopcornError(
                f"{part!r:.80} is no range of addresses; one such as '0x100000000-0x1ffffffff' or "
                "'4G@4G' was expected"
            )
        part = MemoryRange(start, end)
    if (
        not isinstance(part, tuple)
        or len(part) not in (2, 3)
        or not all(type(address) is int for address in part[:2])
    ):
        raise PopcornError(
            f"{part!r:.80} is no range of addresses; a MemoryRange(start, end) was expected"
        )
    if not 0 <= part[0] < part[1] <= ADDRESS_AT_MOST:
        raise PopcornError(
            f"the range from {part[0]:#x} up to {part[1]:#x} is empty or no address at all; a "
            f"start below its end and an end of at most {ADDRESS_AT_MOST:#x} were expected"
        )
    return MemoryRange(*part)


def _bytes(number: str, suffix: str) -> int:
    return int(number, 16 if number.startswith("0x") else 10) * _SUFFIX[suffix]


def read_slot(part, machine: Machine) -> str:
    try:
        slot = slot_of(part)
    except (ValueError, AttributeError):
        raise PopcornError(
            f"{part!r:.60} is no slot; one such as '0000:02:00.0' was expected"
        ) from None
    known = [function.slot for function in machine.pci_functions]
    if slot not in known:
        if not known:
            raise PopcornError(
                f"there is no device {slot} in {machine.name}, of which no PCI listing is known"
            )
        near = near_names(slot, known)
        near = near if near.startswith("did") else f"its first is {known[0]}"
        raise PopcornError(f"there is no device {slot} in {machine.name}; {near}")
    return slot


def one_line(text, what: str) -> str:
    if not isinstance(text, str) or not text.isprintable():
        raise PopcornError(f"the {what} {text!r:.80}: one line of text was expected")
    return text.strip()


def range_text(part) -> str:
    """What ``read_ranges`` reads, with the size in words: "0x100000-0x1fffff (1 MiB)"."""
    return f"{part.start:#x}-{part.end - 1:#x} ({in_words(part.end - part.start)})"

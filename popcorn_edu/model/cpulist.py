"""Numbers, sizes and CPU lists as the kernel reads them: to the letter, and no further.

Linux has a small reader for each. None of them says what it did not understand: it stops there,
and the caller takes what came before. So each reader here returns what it understood and the
place where it stopped, and the caller decides, as in the kernel, whether that matters.

    memparse("4080M$16M")             # (4278190080, 5): stopped at the "$"
    memparse("1.5G")                  # (1, 1): one byte, and ".5G" left over
    parse_cpulist("0-7:2/4", 64)      # 0b110011
    parse_cpulist("3-1", 64)          # raises CpuListError, code "EINVAL"

Words
    number   0x.. is hexadecimal, a leading 0 is octal, the rest is decimal; nothing is a 0
    suffix   K M G T P E, each 1024 times the one before; one letter, and no "B" after it
    list     "0-3,8": always decimal. "0-7:2/4" takes the first 2 of every 4; "N" is the last CPU;
             "all" is every CPU. Groups, "N" and "all" are younger than Popcorn's 3.2.14
    mask     one bit a CPU, in hexadecimal, in groups of 32 bits: "ff", "1,00000000"
    bits     how many CPUs the kernel has room for; a list may not name a higher one
    effect   what the kernel does with a word it could not take as written: ignored, partly
             ignored, clamped, misread, panics, passed to init; or a remark, where nothing fails
"""

from __future__ import annotations

import re
from typing import Any

from popcorn_edu.engine.trace import PopcornError

U64, U32, U16 = (1 << 64) - 1, (1 << 32) - 1, (1 << 16) - 1  # sizes and addresses have 64 bits
SUFFIXES = "kmgtpe"

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_DECIMAL = re.compile(r"[0-9]+")
_APART = re.compile(r"[,\s\xa0]*")  # what may stand between the items of a list


IGNORED, PARTLY, CLAMPED = "ignored", "partly ignored", "clamped"
MISREAD, PANICS, TO_INIT, REMARK = "misread", "panics", "passed to init", "remark"
MALFORMED = "reports a malformed early option and goes on without it"
SILENTLY = "without a word"

Complaint = tuple[str, str, str]  # effect, what Linux does, what we say
Read = tuple[Any, list[Complaint]]


class CpuListError(PopcornError):
    """A list the kernel refuses. ``before`` is what it had understood until then."""

    def __init__(self, says: str, code: str, before: int = 0) -> None:
        super().__init__(says)
        self.code = code  # the kernel's error: EINVAL, ERANGE, EOVERFLOW
        self.before = before


# numbers


def number(text: str, place: int = 0) -> tuple[int, int]:
    """The number at ``place`` in the base its own prefix tells, and where it ends.

    >>> number("0x10$"), number("010"), number("08"), number("G")
    ((16, 4), (8, 3), (0, 1), (0, 0))
    """
    found = _NUMBER.match(text, place)
    if not found:
        return 0, place
    digits = found[0]
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16) & U64, found.end()
    base = 8 if digits[0] == "0" else 10
    if len(digits) <= 30:
        return int(digits, base) & U64, found.end()
    return _long_number(digits, base), found.end()


def _long_number(digits: str, base: int) -> int:
    value = 0  # digit by digit: Python refuses to convert very long texts
    for digit in digits:
        value = (value * base + int(digit)) & U64
    return value


def signed(text: str) -> int:
    """As ``number``, with an optional minus."""
    return -number(text, 1)[0] if text[:1] == "-" else number(text)[0]


def as_int(value: int) -> int:
    """What is left of a number in the 32 bits of a C int."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def memparse(text: str, place: int = 0) -> tuple[int, int]:
    """A size or an address, and where it ends.

    >>> memparse("64K"), memparse("0x10000"), memparse("1GB"), memparse("G")
    ((65536, 3), (65536, 7), (1073741824, 2), (0, 1))
    """
    value, end = number(text, place)
    power = SUFFIXES.find(text[end : end + 1].lower()) + 1 if end < len(text) else 0
    if power:
        return (value << 10 * power) & U64, end + 1
    return value, end


def octal(text: str) -> list[Complaint]:
    """A number whose leading 0 makes it another one."""
    found = re.match(r"0+([0-9]+)", text)
    if not found:
        return []
    linux = f"reads {found[0]} as octal, {SILENTLY}"
    return [(MISREAD, linux, f"a leading 0 makes {found[0]} octal; {found[1]} was expected")]


def wide(text: str) -> list[Complaint]:
    """A size that 64 bits cannot hold."""
    found = re.match(r"(0[xX][0-9a-fA-F]+|[0-9]+)([KMGTPEkmgtpe]?)", text)
    if not found:
        return []
    digits = found[1].lower().removeprefix("0x").lstrip("0")
    base_bits = 4 if found[1][:2].lower() == "0x" else 3.3
    bits = len(digits) * base_bits + 10 * (SUFFIXES.find(found[2].lower()) + 1 if found[2] else 0)
    if bits < 60:
        return []
    value = int(digits or "0", 16 if base_bits == 4 else 10) if len(digits) < 40 else 1 << 64
    power = SUFFIXES.find(found[2].lower()) + 1 if found[2] else 0
    if value << 10 * power < 1 << 64:
        return []
    linux = f"keeps the low 64 bits, {memparse(text)[0]:#x}, {SILENTLY}"
    return [(MISREAD, linux, f"{found[0][:24]} does not fit in 64 bits")]


def get_option(text: str, place: int = 0) -> tuple[int, int | None, int]:
    """One integer of a list: (0 none, 1 alone, 2 a comma follows, 3 a minus follows), it, its end.

    The integer is None only where nothing was there to read: then the kernel's variable keeps its
    value. From "abc" the kernel reads no integer either, and yet sets the variable to 0.
    """
    if place >= len(text):
        return 0, None, place
    minus = text[place] == "-"
    value, end = number(text, place + minus)
    value = as_int(-value if minus else value)
    if end == place + minus:
        return 0, value, end
    follows = text[end : end + 1]
    if follows == ",":
        return 2, value, end + 1
    return (3 if follows == "-" else 1), value, end


def get_options(text: str, room: int = 1 << 16) -> tuple[int, list[int]]:
    """Integers and ranges, "1-3,7": how many were collected, and what was written on the way.

    A range that runs backwards ends the reading: its first number is written, but the kernel
    reports nothing collected from it.
    """
    values: list[int] = []
    place = 0
    while len(values) < room:
        kind, value, place = get_option(text, place)
        if kind == 0:
            break
        if kind != 3:
            values.append(value)
            if kind == 1:
                break
            continue
        place += 1
        last = signed(text[place:])
        if last < value:
            return len(values), [*values, value]
        values += range(value, min(last, value + room - len(values)))
        # the upper end is read next, as a number of its own
    return len(values), values


# lists of CPUs


def parse_cpulist(text: str, bits: int) -> int:
    """The CPUs of a list as an integer with their bits set."""
    text = text.split("\n", 1)[0]
    cpus = 0
    place = _APART.match(text).end()
    while place < len(text):
        try:
            first, last, used, group, place = _region(text, place, bits - 1)
            cpus |= _bits(first, last, used, group, bits)
        except CpuListError as error:
            error.before = cpus
            raise
        place = _APART.match(text, place).end()
    return cpus


def _region(text: str, place: int, last_bit: int) -> tuple[int, int, int, int, int]:
    """One item of a list: first and last CPU, how many of each group, and where it ends."""
    if text[place : place + 3].lower() == "all":
        first, last, place = 0, last_bit, place + 3
    else:
        first, place = _cpu(text, place, last_bit)
        if _ends(text, place):
            return first, first, first + 1, first + 1, place
        if text[place] != "-":
            raise _stray(text, place, '"-", ":" or ","')
        last, place = _cpu(text, place + 1, last_bit)
    if _ends(text, place):
        return first, last, last + 1, last + 1, place
    if text[place] != ":":
        raise _stray(text, place, '":" or ","')
    used, place = _cpu(text, place + 1, last_bit)
    if text[place : place + 1] != "/":
        raise _stray(text, place, 'a "/" and the size of a group')
    group, place = _cpu(text, place + 1, last_bit)
    return first, last, used, group, place


def _cpu(text: str, place: int, last_bit: int) -> tuple[int, int]:
    if text[place : place + 1] == "N":
        return last_bit, place + 1
    found = _DECIMAL.match(text, place)
    if not found:
        raise _stray(text, place, "a CPU number")
    digits = found[0].lstrip("0") or "0"
    if len(digits) > 10 or int(digits) > U32:
        raise CpuListError(f"{digits} is too large for a CPU number", "EOVERFLOW")
    return int(digits), found.end()


def _bits(first: int, last: int, used: int, group: int, bits: int) -> int:
    if first > last:
        raise CpuListError(
            f"the range {first}-{last} runs backwards; {last}-{first} was expected", "EINVAL"
        )
    if group == 0:
        raise CpuListError("a group of 0 CPUs is none; 1 or more was expected", "EINVAL")
    if used > group:
        raise CpuListError(f"{used} CPUs of every {group}; at most {group} were expected", "EINVAL")
    if last >= bits:
        raise CpuListError(f"CPU {last} is beyond the last one, CPU {bits - 1}", "ERANGE")
    count = last - first + 1
    group = min(group, count)
    used = min(used, group)
    groups = ("0" * (group - used) + "1" * used) * -(-count // group)
    return (int(groups, 2) & (1 << count) - 1) << first


def _ends(text: str, place: int) -> bool:
    return place >= len(text) or text[place] in ", \t\v\f\r\xa0"


def _stray(text: str, place: int, expected: str) -> CpuListError:
    found = f"{text[place]!r}" if place < len(text) else "the list ends"
    return CpuListError(f"{found} where {expected} was expected", "EINVAL")


def parse_cpumask(text: str, bits: int) -> int:
    """The CPUs of a hexadecimal mask, in groups of 32 bits, the highest group first.

    >>> parse_cpumask("3", 8), parse_cpumask("1,00000000", 64) == 1 << 32
    (3, True)
    """
    mask = 0
    text = text.split("\n", 1)[0]
    chunks = [chunk for chunk in re.split(r"[,\s\xa0]+", text) if chunk]
    for chunk in chunks:
        if re.search(r"[^0-9a-fA-F]", chunk):
            raise CpuListError(f"{chunk!r} is no hexadecimal number", "EINVAL")
        if len(chunk) > 8:
            raise CpuListError(f"{chunk} is more than 32 bits, eight digits", "EOVERFLOW")
        mask = mask << 32 | int(chunk, 16)
    if len(chunks) > -(-bits // 32) or mask >> bits:
        raise CpuListError(f"the mask names a CPU beyond the last one, CPU {bits - 1}", "EOVERFLOW")
    return mask


def cpus_in(mask: int) -> tuple[int, ...]:
    """The CPU numbers whose bits are set, ascending."""
    return tuple([cpu for cpu, bit in enumerate(bin(mask)[:1:-1]) if bit == "1"])

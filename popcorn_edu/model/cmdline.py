"""The line a kernel boots with: the only thing that tells it which part of the machine is its own.

The same line is told three times: as the kernel reads it (``parse``) and in words
(``explain``), both in bootline.py; and here, as the machine it leaves (``apply``).

    line = parse("present_mask=5 memmap=1G@6G memmap=6128M$16M mem=7G mklinux")
    print(line.explain())
    seen = apply(line, Machine.load("h8qg6-64"))
    seen.online, seen.ram       # (5,), the low 16 MiB and [6 GiB, 7 GiB)
    write([5], [MemoryRange(6 * GIB, 7 * GIB)])    # the way back

What Linux does was taken from Debian's 6.1 and checked by booting it: tests/real_linux. What
Popcorn adds was taken from its own kernel of 2013, except where the text says "model default":
the reader of ``present_mask`` was not found.

Words
    first pass    what is read before memory is set up: mem, memmap, maxcpus, present_mask, ...
    second pass   what is read after: isolcpus, nohz_full, irqaffinity; by then it is known how
                  many CPUs there are
    possible      CPUs the kernel has room for; "present": those that are there and its own;
                  "online": those it started
    hidden        a device that pci_dev_flags told the kernel to leave alone
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import e820
from popcorn_edu.model.bootline import (
    LINE_BYTES_AT_MOST,
    CommandLine,
    Parameter,
    Problem,
    parse,
)
from popcorn_edu.model.cpulist import (
    IGNORED,
    MISREAD,
    PANICS,
    PARTLY,
    REMARK,
    CpuListError,
    cpus_in,
    parse_cpulist,
)
from popcorn_edu.model.e820 import LOW_BYTES
from popcorn_edu.model.firmware import KIB, MIB, MemoryRange, hex_range, in_words
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.parameters import AFFINITY, BAD_LIST, LAPIC_TIMER, LIST_BITS, RULES
from popcorn_edu.model.topology import cpu_list

__all__ = [
    "LAPIC_TIMER",
    "LINE_BYTES_AT_MOST",
    "CommandLine",
    "Parameter",
    "Problem",
    "Seen",
    "apply",
    "parse",
    "write",
]

NR_CPUS = 8192  # room for CPUs in Debian's kernel, as long as nothing makes it less
INIT_WORDS_AT_MOST = 32  # CONFIG_INIT_ENV_ARG_LIMIT; of the variables, two are taken at the start
GUEST_WORDS = (  # what create_bootargs.sh starts every line with
    "earlyprintk=ttyS0,115200",
    "console=ttyS0,115200",
    "acpi_irq_nobalance",
    "no_ipi_broadcast",
    f"lapic_timer={LAPIC_TIMER}",
)


# from words to the machine that is left


@dataclass(frozen=True)
class Seen:
    """The machine as a kernel with this line sees it.

    ``memory_map`` is the map its log would show ("user:"); ``ram`` is what is left of it to work
    with: without page 0, the BIOS area and parts of pages. Where ``panic`` says something, the
    kernel never gets that far.
    """

    line: CommandLine
    possible: tuple[int, ...] = ()
    present: tuple[int, ...] = ()
    online: tuple[int, ...] = ()
    isolated: tuple[int, ...] = ()
    nohz_full: tuple[int, ...] = ()
    irq_affinity: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    memory_map: tuple[MemoryRange, ...] = ()
    ram: tuple[MemoryRange, ...] = ()
    io_apic: bool = True
    hidden_ids: tuple[str, ...] = ()  # the blacklist: "8086:10c9"
    hidden: tuple[str, ...] = ()  # the slots of this machine that match it
    arguments: tuple[str, ...] = ()  # what init gets
    environment: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()  # of the line, and of the line on this machine
    notes: tuple[str, ...] = ()
    panic: str = ""

    @property
    def boot_cpu(self) -> int | None:
        return self.online[0] if self.online else None

    @property
    def vty_offset(self) -> int | None:
        given = [p.reading for p in self.line.all("vty_offset") if p.reading]
        return given[-1] if given else None

    def describe(self) -> str:
        """What this kernel has, in a few lines."""
        lines = [
            f"CPUs online: {cpu_list(self.online) or 'none'}; present: {cpu_list(self.present)}; "
            f"possible: {cpu_list(self.possible)}",
            "RAM: " + (", ".join(_in_words(r) for r in self.ram) or "none"),
        ]
        if self.hidden_ids:
            lines.append(f"devices left alone: {', '.join(self.hidden) or 'none matches'}")
        for name in ("isolated", "nohz_full"):
            if cpus := getattr(self, name):
                lines.append(f"{name}: CPUs {cpu_list(cpus)}")
        lines += [f"panic: {self.panic}"] if self.panic else []
        return "\n".join([*lines, *self.notes, *map(str, self.problems)])


def _in_words(piece: MemoryRange) -> str:
    return f"{in_words(piece.end - piece.start)} at {hex_range(piece.start, piece.end)}"


def apply(line: str | CommandLine, machine: Machine, popcorn: bool = True) -> Seen:
    """The machine as a kernel with this line sees it.

    ``popcorn=False`` asks for an ordinary Linux, to which Popcorn's own parameters are words for
    init.
    """
    line = parse(line) if isinstance(line, str) else line
    boot = _Boot(line, machine, popcorn)
    boot.count_cpus()
    boot.cut_memory()
    boot.isolate()
    boot.hide_devices()
    boot.hand_to_init()
    boot.remember_the_year()
    problems = (*line.problems, *boot.problems)
    return Seen(line, problems=problems, notes=tuple(boot.notes), **boot.seen)


ABOUT_CPUS = ("maxcpus", "nr_cpus", "possible_cpus", "nosmp", "noapic", "nolapic")


@dataclass
class _Boot:
    """One reading of the line against a machine, in the order of the kernel's two passes."""

    line: CommandLine
    machine: Machine
    popcorn: bool
    possible: tuple[int, ...] = ()
    at_most: int = NR_CPUS  # CPUs to start
    masks: dict[str, frozenset[int]] = field(default_factory=dict)  # work -> CPUs that do it
    seen: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)  # places of words that go to init after all

    def complain(self, word: Parameter, effect: str, linux: str, says: str) -> None:
        self.problems.append(Problem(word.text, word.place, effect, linux, says))

    def panic(self, says: str) -> None:
        self.seen["panic"] = self.seen.get("panic") or says

    def obeyed(self, *names: str) -> list[Parameter]:
        return [
            p
            for p in self.line.parameters
            if p.name in names and p.reading is not None and (self.popcorn or p.owner == "Linux")
        ]

    # first pass: how many CPUs, and which

    def count_cpus(self) -> None:
        known = self.machine.cpus
        room, at_most, possible = NR_CPUS, NR_CPUS, -1
        io_apic = local_apic = True
        for word in self.obeyed(*ABOUT_CPUS):
            count = word.reading
            if word.name == "nr_cpus":
                room = count if 0 < count < room else room
            elif word.name == "possible_cpus":
                possible = count
            elif word.name == "maxcpus":
                at_most = count % (1 << 32)
            elif word.name == "nosmp":
                at_most = 0
            io_apic = io_apic and word.name != "noapic" and at_most > 0
            local_apic = local_apic and word.name != "nolapic"
        if possible == -1:
            possible = len(known)
        possible = min(possible, room)
        if not at_most or not local_apic:
            possible, at_most = min(possible, 1), 1
        if possible < 1:
            self.panic("no CPU is possible")
            possible = 0
        more = range(known[-1] + 1, known[-1] + 1 + possible - len(known))
        self.possible = (*known[:possible], *more)
        self.at_most = at_most
        present = self._present_of_popcorn(list(known[: min(room, possible)]))
        self.seen |= {
            "possible": self.possible,
            "present": tuple(present),
            "online": tuple(present[: max(at_most, 1)]),
            "io_apic": io_apic and local_apic,
        }

    def _present_of_popcorn(self, present: list[int]) -> list[int]:
        """``present_mask``: the others stay known, but are somebody else's."""
        words = self.obeyed("present_mask")
        if not words:
            if self.popcorn and self.line.secondary:
                self.notes.append(
                    "mklinux without present_mask: this kernel takes the CPUs of all others"
                )
            return present
        word = words[-1]  # model default: the last one counts
        asked, known = parse_cpulist(word.reading, LIST_BITS), sum(1 << c for c in self.possible)
        if re.search("N|all", word.reading, re.IGNORECASE):  # as many as there are
            asked &= known
        if missing := cpus_in(asked & ~known):
            linux = "marks them present and cannot start them (model default)"
            says = f"{self.machine.name} has no CPU {cpu_list(missing)}; it has {cpu_list(present)}"
            self.complain(word, PARTLY, linux, says)
        mine = [cpu for cpu in present if asked >> cpu & 1]
        if not mine:
            self.panic("no CPU of this machine is in present_mask")
        return mine

    # memory: early as well, and settled at the end of the first pass

    def cut_memory(self) -> None:
        firmware = tuple(self.machine.memory_map)
        ram = e820.RamMap(firmware)
        edited = False
        for word in self.obeyed("mem", "memmap"):
            edited = True
            edits = word.reading if word.name == "memmap" else [("cut_above", word.reading)]
            for method, *arguments in edits:
                if method == "same":
                    self.panic("to change a type into itself is a BUG in the eyes of Linux")
                else:
                    getattr(ram, method)(*arguments)
        settled = firmware
        if edited:
            try:
                settled = ram.settled(fewest=2 if firmware else 0)
            except e820.BadMap as error:
                self.panic(f"Invalid user supplied memory map: {error}")
                settled = ()
        self.seen["memory_map"] = settled
        self.seen["ram"] = e820.trimmed(settled)
        if edited and not self.seen.get("panic"):
            self._look_at_memory(firmware)

    def _look_at_memory(self, firmware: tuple[MemoryRange, ...]) -> None:
        ram = self.seen["ram"]
        if not firmware:
            self.notes.append(f"{self.machine.name} has no memory map; only the line's is shown")
            return
        if sum(r.end - r.start for r in ram) < LOW_BYTES:
            self.panic("too little RAM to run in")
            return
        if ram[0].start >= e820.BIOS_START:
            self.panic("no RAM below 1 MiB, so no place for the trampoline that starts CPUs")
        known = e820.RamMap(r._replace(kind="reserved") for r in firmware)
        known.entries += [[r.start, r.end - r.start, e820.USABLE] for r in ram]
        for piece in known.settled():
            if piece.kind == "usable" and piece.end > MIB:
                self._nothing_there(piece)
        below = [r for r in ram if r.start < LOW_BYTES]
        if self.line.secondary and self.popcorn and below:
            self.notes.append(
                f"the low {in_words(LOW_BYTES)} are RAM to this kernel too: nothing but convention "
                "keeps it out of what the primary has there"
            )

    def _nothing_there(self, piece: MemoryRange) -> None:
        for word in self.obeyed("memmap"):
            for edit in word.reading:
                if edit[0] == "add" and edit[3] == e820.USABLE and edit[1] < piece.end:
                    if edit[1] + edit[2] <= piece.start:
                        continue
                    linux = "takes it for RAM, and crashes when it uses it"
                    where = hex_range(piece.start, piece.end)
                    says = f"{self.machine.name} has nothing at {where}; RAM was expected there"
                    self.complain(word, PANICS, linux, says)
                    return

    # second pass

    def isolate(self) -> None:
        self.seen["nodes"] = self._nodes()
        affinity = self.possible
        for word in self.obeyed("isolcpus", "nohz_full", "irqaffinity"):
            if word.name == "irqaffinity":
                affinity = self._affinity(word)
            elif word.name == "isolcpus":
                flags, cpus = self._isolcpus(word)
                self._house(word, flags or ("domain",), cpus)
            else:
                self._house(word, ("nohz", "wq", "timer", "rcu", "misc", "kthread"), word.reading)
        self.seen["irq_affinity"] = affinity
        for name, work in (("isolated", "domain"), ("nohz_full", "nohz")):
            busy = self.masks.get(work)
            spared = () if busy is None else (cpu for cpu in self.possible if cpu not in busy)
            self.seen[name] = tuple(spared)
        for cpu in self.seen["online"][:1]:
            if cpu in self.seen["nohz_full"]:
                self.notes.append(f"CPU {cpu} keeps its timer tick: the boot CPU keeps the time")
                self.seen["nohz_full"] = tuple(c for c in self.seen["nohz_full"] if c != cpu)

    def _isolcpus(self, word: Parameter) -> tuple[tuple[str, ...], str]:
        """The flags and the list: if the word ended with a flag, the line goes on as the list."""
        flags, cpus = word.reading
        if cpus is not None:
            return flags, cpus
        rest = self.line.line[word.place + len(word.text) + 1 :]
        read, _ = RULES["isolcpus"].read(rest)
        if not rest or read is None:
            return flags, ""
        linux = f"steps over the end of the word, and reads its list in {rest[:20]!r}"
        self.complain(word, MISREAD, linux, "a flag needs a comma and a list of CPUs after it")
        return (*flags, *read[0]), read[1] or ""

    def _nodes(self) -> tuple[int, ...]:
        """Those that have a CPU this kernel knows, or RAM that is left."""
        if any(word.reading in ("off", "noacpi") for word in self.obeyed("numa")):
            return (0,)
        ram = self.seen["ram"]
        with_ram = {
            piece.node
            for piece in self.machine.node_memory
            if any(r.start < piece.end and piece.start < r.end for r in ram)
        }
        return tuple(
            node.id
            for node in self.machine.nodes
            if node.id in with_ram or not set(node.cpus).isdisjoint(self.possible)
        )

    def _cpus(self, word: Parameter, text: str, linux: str) -> tuple[tuple[int, ...], bool]:
        """The CPUs of a list, now that it is known how many there are; and whether it was read."""
        bits = self.possible[-1] + 1 if self.possible else 1
        try:
            return cpus_in(parse_cpulist(text, bits)), True
        except CpuListError as error:
            if not word.problems:  # else it was said when the line was parsed
                effect = MISREAD if word.name == "irqaffinity" else IGNORED
                self.complain(word, effect, linux, f"{error} of {self.machine.name}")
            return cpus_in(error.before), False

    def _affinity(self, word: Parameter) -> tuple[int, ...]:
        cpus, _ = self._cpus(word, word.reading, AFFINITY)
        boot = self.seen["online"][:1]
        return tuple(sorted({*cpus, *boot}))

    def _house(self, word: Parameter, work: tuple[str, ...], text: str) -> None:
        """``isolcpus`` and ``nohz_full``: who is left to do the work that the others are spared."""
        spared, read = self._cpus(word, text, BAD_LIST)
        spared = set(spared)
        keepers = [cpu for cpu in self.possible if cpu not in spared]
        present = self.seen["present"]
        boot = self.seen["online"][:1]
        first = next((place for place, cpu in enumerate(present) if cpu in keepers), None)
        if read and boot and (first is None or first >= self.at_most):
            keepers = sorted({*keepers, *boot})
            spared -= set(boot)
            if not self.masks:
                linux = f"keeps CPU {boot[0]}, and says so in its log"
                self.complain(word, PARTLY, linux, "one CPU at least has to do the common work")
        if not read or not spared:
            self.refused.add(word.place)
            return
        keepers = frozenset(keepers)
        if any(self.masks.get(kind, keepers) != keepers for kind in work):
            linux = "reports a mismatch and goes by the first"
            says = "isolcpus and nohz_full for the same work have to name the same CPUs"
            self.complain(word, IGNORED, linux, says)
            self.refused.add(word.place)
            return
        self.masks |= dict.fromkeys(work, keepers)

    # devices, and what is left over for init

    def hide_devices(self) -> None:
        ids: list[str] = []
        for word in self.obeyed("pci_dev_flags"):
            ids += word.reading
        functions = self.machine.pci_functions
        hidden = tuple(f.slot for f in functions if f.vendor_device in ids)
        self.seen["hidden_ids"], self.seen["hidden"] = tuple(dict.fromkeys(ids)), hidden
        for word in self.obeyed("pci_dev_flags"):
            absent = [i for i in word.reading if all(i != f.vendor_device for f in functions)]
            if functions and absent:
                says = f"{self.machine.name} has no device {', '.join(absent)}"
                self.complain(word, REMARK, "keeps the entries, which match nothing", says)

    def hand_to_init(self) -> None:
        arguments: list[str] = []
        variables = {"HOME": "HOME=/", "TERM": "TERM=linux"}
        for word in self.line.parameters:
            if word.name in ("init", "rdinit") and word.value is not None:
                arguments.clear()
            if not self._goes_to_init(word):
                continue
            name = _as_written(word)
            if word.value is None:
                arguments.append(name)
            else:
                variables[name] = f"{name}={word.value}"
            if len(arguments) > INIT_WORDS_AT_MOST or len(variables) > INIT_WORDS_AT_MOST + 1:
                self.panic(f"too many words for init, at {word.text}")
                break
        for argument in self.line.arguments:
            if argument == "--":
                break  # and what follows is lost
            arguments.append(argument)
        self.seen["arguments"] = tuple(arguments)
        self.seen["environment"] = tuple(
            text for text in variables.values() if text not in ("HOME=/", "TERM=linux")
        )

    def remember_the_year(self) -> None:
        """Popcorn's kernel is of 2013: some of what today's Linux reads is younger."""
        if not self.popcorn or all(word.owner != "Popcorn" for word in self.line.parameters):
            return
        for word in self.obeyed("memmap", "present_mask", "isolcpus", "nohz_full", "irqaffinity"):
            if word.name == "memmap" and re.search("[!%]", word.value):
                linux = "of 2013 knows neither ! nor %, and ends all RAM at the size before it"
            elif word.name != "memmap" and re.search("[N:]|all|nohz|domain", word.value):
                linux = "of 2013 knows no groups, no N, no all and no flags"
            else:
                continue
            says = "it is younger than Popcorn's kernel; a form of 2013 was expected"
            self.complain(word, REMARK, linux, says)

    def _goes_to_init(self, word: Parameter) -> bool:
        if word.place in self.refused or word.owner == "init":
            return True
        rule = RULES.get(word.name)
        if rule is None:
            return False
        if rule.owner == "Popcorn" and not self.popcorn:
            return word.name not in IN_LINUX_TOO or (word.value is None) != IN_LINUX_TOO[word.name]
        return not rule.early and word.reading is None


IN_LINUX_TOO = {"acpi_irq_nobalance": True, "no_ipi_broadcast": False}  # with no "=", only with


def _as_written(word: Parameter) -> str:
    """The name with its own dashes, without quotes."""
    name = word.text.removeprefix('"')[: len(word.name)]
    return name if word.name == name.replace("-", "_") else word.name


# the way back


def write(
    cpus: Iterable[int] | str,
    memory: Iterable[MemoryRange],
    blacklist: Iterable[str] = (),
    *,
    primary: bool = False,
    vty_offset: int | None = None,
    parameters: str = "",
    machine: Machine | None = None,
) -> str:
    """The exact line for a kernel with these CPUs, this RAM and without these devices.

    As Popcorn's create_bootargs.sh and mpart write it; the primary gets mpart's part alone.
    ``cpus`` are numbers or a list such as "0-3,8"; ``blacklist`` holds ids such as "8086:10c9".
    Between two ranges of RAM everything is reserved; with ``machine``, only what is
    RAM there, so that a hole with devices in it stays one.

    >>> write([5], [MemoryRange(6 << 30, 7 << 30)]).partition("mklinux debug ")[2]
    'present_mask=5 memmap=1024M@6144M memmap=6128M$16M mem=7168M'
    """
    if isinstance(cpus, str):
        cpus = cpus_in(parse_cpulist(cpus, LIST_BITS))
    cpus, blacklist = cpu_list(cpus), tuple(blacklist)
    ranges = sorted(memory)
    if not cpus:
        raise PopcornError("A kernel without a CPU cannot boot; one CPU at least was expected.")
    if not ranges:
        raise PopcornError("A kernel without RAM cannot boot; one range at least was expected.")
    for piece in ranges:
        if not 0 <= piece[0] < piece[1]:
            raise PopcornError(
                f"The range from {piece[0]:#x} to {piece[1]:#x} is empty; its end was expected "
                "above its start."
            )
    words = [_blacklist_word(blacklist)] if blacklist else []
    if not primary:
        words = [*GUEST_WORDS, *words, "mklinux", "debug"]
    words += parameters.split()
    if vty_offset is not None:
        words.append(f"vty_offset={vty_offset:#x}")
    words.append(f"present_mask={cpus}")
    words += [f"memmap={size(r[1] - r[0])}@{size(r[0])}" for r in ranges]
    words += [
        f"memmap={size(end - start)}${size(start)}" for start, end in _kept_out(ranges, machine)
    ]
    words.append(f"mem={size(max(r[1] for r in ranges))}")
    return " ".join(words)


def size(count: int) -> str:
    """Bytes as mpart writes them, in M; in K or bytes where that does not come out even."""
    for unit, letter in ((MIB, "M"), (KIB, "K")):
        if count % unit == 0:
            return f"{count // unit}{letter}"
    return str(count)


def _blacklist_word(ids: Iterable[str]) -> str:
    entries = []
    for text in ids:
        if not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", str(text)):
            raise PopcornError(f"{text!r} is no PCI id; one such as 8086:10c9 was expected.")
        vendor, device = text.split(":")
        entries.append(f"0x{vendor}:0x{device}:b")
    return "pci_dev_flags=" + ",".join(entries)


def _kept_out(ranges: list, machine: Machine | None) -> list[tuple[int, int]]:
    """What lies below and between the ranges; ``mem=`` cuts off what lies above."""
    gaps = []
    free = LOW_BYTES
    for start, end, *_ in ranges:
        if start > free:
            gaps.append((free, start))
        free = max(free, end)
    if machine is None or not machine.ram:
        return gaps
    below = gaps[:1] if ranges[0][0] > LOW_BYTES else []  # mpart's own: in one piece
    return below + [
        (max(start, r.start), min(end, r.end))
        for start, end in gaps[len(below) :]
        for r in machine.ram
        if max(start, r.start) < min(end, r.end)
    ]

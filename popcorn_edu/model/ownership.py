"""Who owns the device: PCI functions, the blacklists that divide them, and their interrupts.

No kernel hands a device to another. Each kernel scans the whole PCI tree when it boots and drives
whatever it finds, unless its command line says ``pci_dev_flags=...``: a list of devices that it
must not see. So ownership is negative: a kernel owns what every other kernel is told to skip, and
nobody checks. What is on no list has as many drivers as there are kernels.

    claims(machine.pci_functions, "0x8086:0x10c9:b")   # the slots this kernel would drive
    blacklist_for(machine.pci_functions, owned)        # the list that leaves it these, if any can
    problems(machine.pci_functions, owners)            # who has two drivers, who has none

Words
    function   what a driver drives: one of up to eight in a device, "0000:02:00.1"
    slot       where it is, as lspci writes it: domain, bus, device, function
    id         what it is: "8086:10c9", vendor and device; identical cards have the same id
    device     all functions at one place, "0000:02:00": usually one card
    bridge     leads to another bus; host and PCI bridges belong to every kernel
    entry      one item of a blacklist: ``vendor:device:flags``
    claim      a kernel's driver takes a function; the owner is the only kernel that claims it

How the list is read and used [C mklinux drivers/pci/probe.c, facts 1.1 and 4]: the numbers go
through strtoul with base 0, so hexadecimal needs its 0x; the flags are not looked at; the table
has 16 entries and a 17th is dropped without a word; a match is by id, never by slot; and when
function 0 is skipped, pci_scan_slot returns, so functions 1 to 7 are never looked at.

By slot is our extension, not Popcorn's: an entry ``@0000:02:00.1:b`` skips that function alone.

Not read, so model default here: which CPU an interrupt goes to (facts 4, a gap).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, Word, near_names
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.parameters import BLACKLIST_ENTRIES
from popcorn_edu.model.pci import PciFunction, in_order, slot_of, tree

LIST_CHARACTERS_AT_MOST = 4_096  # twice x86's whole command line
HOST_BRIDGE, PCI_BRIDGE, CARDBUS_BRIDGE = "0600", "0604", "0607"
BRIDGES = (HOST_BRIDGE, PCI_BRIDGE)  # [C] create_lspci.sh leaves these classes on no list


# -- the tree --------------------------------------------------------------------------------------


def device_of(slot: str) -> str:
    """The place that a function shares with its neighbours: "0000:02:00"."""
    return slot.rpartition(".")[0]


def is_exempt(function: PciFunction) -> bool:
    """Host and PCI bridges need no owner: every kernel looks through them."""
    return function.device_class in BRIDGES


def ownable(functions: Iterable[PciFunction]) -> tuple[PciFunction, ...]:
    """The functions that need exactly one owner, in the order of their slots."""
    return tuple(f for f in _sorted(functions) if not is_exempt(f))


def _sorted(functions: Iterable[PciFunction]) -> list[PciFunction]:
    return sorted(functions, key=lambda function: in_order(function.slot))


class Bus(NamedTuple):
    domain: int
    number: int

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.number:02x}"


class Buses:
    """The functions by bus and device, and the bridge through which each bus is reached.

    A listing does not always say where a bridge leads. A bus that no bridge is known to lead to
    is scanned as the bus of a host bridge is.
    """

    def __init__(self, functions: Iterable[PciFunction]) -> None:
        self.functions = {f.slot: f for f in _sorted(functions)}
        parent = tree(self.functions.values()).parent
        self.on: dict[Bus, dict[str, list[PciFunction]]] = {}
        self.bridge_to: dict[Bus, str | None] = {}
        for slot, function in self.functions.items():
            bus = Bus(function.domain, function.bus)
            self.on.setdefault(bus, {}).setdefault(device_of(slot), []).append(function)
            self.bridge_to.setdefault(bus, parent[slot])
        self._behind: dict[str | None, list[Bus]] = {}
        for bus, bridge in self.bridge_to.items():
            self._behind.setdefault(bridge, []).append(bus)

    def behind(self, bridge: str | None) -> list[Bus]:
        """The buses that this bridge leads to first; of None, those that no bridge leads to."""
        return self._behind.get(bridge, [])

    def all_behind(self, bridge: str) -> Iterator[PciFunction]:
        """Every function that is reached through this bridge, however far behind it."""
        for bus in self.behind(bridge):
            for group in self.on[bus].values():
                for function in group:
                    yield function
                    yield from self.all_behind(function.slot)


# -- the list as the kernel reads it ---------------------------------------------------------------


class Entry(NamedTuple):
    text: str  # as it was written
    id: str  # what the kernel took it for: "8086:10c9"
    slot: str = ""  # in our extension the place it names, and then it has no id


class Blacklist(NamedTuple):
    """A ``pci_dev_flags`` list after the kernel has read it."""

    entries: tuple[Entry, ...] = ()  # in the table
    ignored: tuple[Entry, ...] = ()  # read, but the table was full; nobody is told
    refused: str = ""  # where the kernel gave up: what is from here on is not read

    def match(self, function: PciFunction) -> int:
        """The number (from 1) of the first entry that names this function; 0 if none does."""
        for number, entry in enumerate(self.entries, 1):
            if entry.slot == function.slot if entry.slot else entry.id == function.vendor_device:
                return number
        return 0

    def by_slot(self, number: int) -> bool:
        return bool(self.entries[number - 1].slot)


def read_flags(text: str, room: int = BLACKLIST_ENTRIES) -> Blacklist:
    """The list as the kernel reads it, with all its quirks; ``@SLOT:b`` is our extension."""
    if not isinstance(text, str):
        raise PopcornError(f"{text!r} is no list; a text such as '0x8086:0x10c9:b' was expected.")
    if len(text) > LIST_CHARACTERS_AT_MOST:
        raise PopcornError(
            f"the list has {len(text):,} characters; at most {LIST_CHARACTERS_AT_MOST:,} were "
            "expected."
        )
    entries, refused = [], ""
    quoted = text.startswith('"')
    rest = text[quoted:]
    while rest:
        start = rest
        if start.startswith("@"):
            item, rest = _cut(start, ",")
            entries.append(Entry(item, "", _named_slot(item)))
            continue
        vendor, rest = _cut(rest, ":")
        if not vendor:
            break
        device, rest = _cut(rest, ":")
        flags, rest = _cut(rest, ',"' if quoted else ",")
        if device is None or flags is None:
            refused = start
            break
        item = start if rest is None else start[: -len(rest) - 1]
        entries.append(Entry(item, f"{strtoul(vendor):04x}:{strtoul(device):04x}"))
    return Blacklist(tuple(entries[:room]), tuple(entries[room:]), refused)


def _named_slot(item: str) -> str:
    slot, _, _ = item[1:].partition(":b")
    try:
        return slot_of(slot)
    except ValueError:
        raise PopcornError(
            f"{item!r} names no slot; an entry such as '@0000:02:00.1:b' was expected."
        ) from None


def _cut(text: str | None, stops: str) -> tuple[str | None, str | None]:
    """C's strsep: what is before the first of these characters, and what is after it."""
    if text is None:
        return None, None
    for place, letter in enumerate(text):
        if letter in stops:
            return text[:place], text[place + 1 :]
    return text, None


_NUMBER = re.compile(r"0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([0-9]+)", re.ASCII)


def strtoul(text: str) -> int:
    """C's strtoul with base 0, cut to the 16 bits of an id: "0x8086", but "8086" is decimal."""
    found = _NUMBER.match(text)
    if not found:
        return 0
    hexadecimal, octal, decimal = found.groups()
    number = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    return number & 0xFFFF


def as_blacklist(blacklist: Blacklist | str | Iterable[str]) -> Blacklist:
    """A list in any form: read already, a text, or names ("8086:10c9", "0000:02:00.1")."""
    if isinstance(blacklist, Blacklist):
        return blacklist
    return read_flags(blacklist if isinstance(blacklist, str) else write_flags(blacklist))


_NAME = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}|[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


def write_flags(names: Iterable[str]) -> str:
    """Ids ("8086:10c9") as Popcorn writes them: "0x8086:0x10c9:b,...". Slots: our extension."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise PopcornError(f"{names!r:.60} is no list; one such as ['8086:10c9'] was expected.")
    return ",".join(map(_written, names))


def _written(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PopcornError(
            f"{name!r:.60} is neither id nor slot; '8086:10c9' or '0000:02:00.1' was expected."
        )
    if "." in name:
        return f"@{name}:b"
    vendor, _, device = name.partition(":")
    return f"0x{vendor}:0x{device}:b"


# -- the scan --------------------------------------------------------------------------------------


class Verdict(Word):
    """What one kernel makes of one function."""

    CLAIMED = 0
    BRIDGE = 1  # seen, and looked through; it needs no owner
    SKIPPED = 2  # an entry of the blacklist matches
    NOT_LOOKED_AT = 3  # function 0 of its device was skipped
    UNREACHED = 4  # it is behind a bridge that was not found


class Seen(NamedTuple):
    function: PciFunction
    verdict: Verdict
    entry: int = 0  # the number of the entry that matched
    because: str = ""  # of a function that is never seen: the function that stands before it

    @property
    def slot(self) -> str:
        return self.function.slot


def look(
    functions: Iterable[PciFunction] | Buses,
    match: Callable[[PciFunction], int],
    by_slot: Callable[[int], bool] = lambda number: False,
) -> Iterator[Seen]:
    """Every function in the order in which a kernel comes to it, and what becomes of it.

    A bus is scanned from device 0 to 31, and only then what is behind its bridges.
    """
    buses = functions if isinstance(functions, Buses) else Buses(functions)

    def lost(bridge: PciFunction, because: str) -> Iterator[Seen]:
        for function in buses.all_behind(bridge.slot):
            yield Seen(function, Verdict.UNREACHED, because=because)

    def scan_bus(bus: Bus) -> Iterator[Seen]:
        found_bridges = []
        for group in buses.on[bus].values():
            given_up = ""
            for function in group:
                if given_up:
                    yield Seen(function, Verdict.NOT_LOOKED_AT, because=given_up)
                    yield from lost(function, function.slot)
                elif number := match(function):
                    yield Seen(function, Verdict.SKIPPED, number)
                    yield from lost(function, function.slot)
                    if function.slot.endswith(".0") and not by_slot(number):
                        given_up = function.slot
                else:
                    exempt = is_exempt(function)
                    yield Seen(function, Verdict.BRIDGE if exempt else Verdict.CLAIMED)
                    found_bridges.append(function.slot)
        for bridge in found_bridges:
            for inner in buses.behind(bridge):
                yield from scan_bus(inner)

    for root in buses.behind(None):
        yield from scan_bus(root)


def seen(functions: Iterable[PciFunction] | Buses, blacklist) -> dict[str, Seen]:
    """What a kernel with this blacklist makes of each function, by slot."""
    read = as_blacklist(blacklist)
    return {s.slot: s for s in look(functions, read.match, read.by_slot)}


def claims(functions: Iterable[PciFunction] | Buses, blacklist="") -> tuple[str, ...]:
    """The slots that a kernel with this blacklist would drive."""
    return tuple(
        slot for slot, s in seen(functions, blacklist).items() if s.verdict is Verdict.CLAIMED
    )


def claimants(
    functions: Iterable[PciFunction], blacklists: Mapping[int, object]
) -> dict[str, tuple[int, ...]]:
    """Which kernels would drive each function, from every kernel's blacklist."""
    functions = tuple(functions)
    buses, found = Buses(functions), {f.slot: () for f in ownable(functions)}
    for kernel in sorted(blacklists):
        for slot in claims(buses, blacklists[kernel]):
            found[slot] += (kernel,)
    return found


# -- writing a list --------------------------------------------------------------------------------


class Written(NamedTuple):
    """A list that is to leave a kernel these functions, and what it cannot do."""

    text: str  # for pci_dev_flags=
    names: tuple[str, ...]  # the ids (in our extension slots) on it
    cannot: tuple[str, ...]  # a sentence for each function that goes wrong all the same
    notes: tuple[str, ...] = ()


def create_lspci(functions: Iterable[PciFunction]) -> tuple[str, ...]:
    """The ids that Popcorn's own script writes for every secondary: all but host and PCI bridges,
    each once, sorted by class. It does not count them."""
    lines = sorted({(f.device_class, f.vendor_device) for f in functions if not is_exempt(f)})
    return tuple(name for _, name in lines)


def blacklist_for(
    functions: Iterable[PciFunction],
    owned: Iterable[str],
    *,
    room: int = BLACKLIST_ENTRIES,
    slots: bool = False,
) -> Written:
    """The list for a kernel that is to own exactly these slots, and why it may be impossible.

    An id that an owned function has is left off: the kernel shall not lose what it owns. If the
    ids do not fit the table, those are left out whose functions are not looked at anyway.
    ``slots=True``: with our extension, a slot is named wherever an id would hide too much.
    """
    buses = Buses(functions)
    owned = _known_slots(buses, owned)
    names, notes = _to_hide(buses, owned, slots), []
    if len(names) > room:
        short = _without_idle(buses, names)
        if len(short) < len(names):
            notes.append(
                f"{len(names)} entries would be needed, but {len(names) - len(short)} of them are "
                "idle: function 0 of their device is skipped, so they are not looked at"
            )
        names = short
    text = write_flags(names)
    return Written(
        text, names, tuple(differences(buses, owned, read_flags(text, room))), tuple(notes)
    )


def _to_hide(buses: Buses, owned: set[str], slots: bool) -> tuple[str, ...]:
    """The ids to be listed, and with our extension the slots where an id would not do."""
    others = [f for f in ownable(buses.functions.values()) if f.slot not in owned]
    spared = {buses.functions[slot].vendor_device for slot in owned}
    if not slots:
        return tuple(name for name in create_lspci(others) if name not in spared)
    # Skipping a function 0 by its id would hide what this kernel owns on the same device.
    busy = {device_of(slot) for slot in owned}
    for slot in buses.functions:
        if any(f.slot in owned for f in buses.all_behind(slot)):
            busy.add(device_of(slot))
    spared |= {
        f.vendor_device for f in others if f.slot.endswith(".0") and device_of(f.slot) in busy
    }
    ids = [name for name in create_lspci(others) if name not in spared]
    return (*ids, *(f.slot for f in others if f.vendor_device in spared))


def _without_idle(buses: Buses, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names without those that hide nothing: what they name is not looked at anyway."""
    whole = read_flags(write_flags(names), len(names))
    used = {s.entry for s in look(buses, whole.match, whole.by_slot)}
    return tuple(name for number, name in enumerate(names, 1) if number in used)


def _known_slots(buses: Buses, slots: Iterable[str]) -> set[str]:
    if isinstance(slots, str):
        raise PopcornError(f"{slots!r} is one slot; a list of slots was expected.")
    known = set()
    for slot in slots:
        if slot not in buses.functions:
            raise PopcornError(
                f"there is no function at {slot!r}; {near_names(str(slot), buses.functions)}"
            )
        known.add(slot)
    return known


def differences(functions, owned: Iterable[str], blacklist) -> Iterator[str]:
    """Where a kernel with this blacklist would drive other functions than these, and why."""
    buses = functions if isinstance(functions, Buses) else Buses(functions)
    owned, read = set(owned), as_blacklist(blacklist)
    verdicts, wrong = seen(buses, read), {}  # wrong: why -> the slots
    for slot, s in verdicts.items():
        if is_exempt(s.function) or (s.verdict is Verdict.CLAIMED) == (slot in owned):
            continue
        wrong.setdefault(_why(verdicts, s, owned, read), []).append(slot)
    for why, slots in wrong.items():
        yield why.format(_some(slots))


def _why(verdicts: dict[str, Seen], s: Seen, owned: set[str], read: Blacklist) -> str:
    name = s.function.vendor_device
    if s.verdict is Verdict.SKIPPED:
        return f"it would not drive {{}} ({name}): entry {s.entry} of its blacklist matches"
    if s.verdict is Verdict.NOT_LOOKED_AT:
        return (
            f"it would not drive {{}}: function 0 of the same device, {s.because}, is skipped, and "
            "the kernel then looks at no other function there"
        )
    if s.verdict is Verdict.UNREACHED:
        first = verdicts[s.because].because
        since = f", since function 0 of that device, {first}, is skipped" if first else ""
        return f"it would not drive {{}}: the bridge {s.because} in front of it is not found{since}"
    why = "no entry of its blacklist names it"
    twins = [t for t in sorted(owned & verdicts.keys()) if verdicts[t].function[1] == name]
    if twins:
        why = f"{twins[0]} has the same id, and a list of ids can hide both or neither"
    for number, entry in enumerate(read.ignored, len(read.entries) + 1):
        if entry.id == name:
            why = (
                f"entry {number} names it, but the table has {len(read.entries)} places and the "
                "rest is dropped without a word"
            )
            break
    return f"it would drive {{}} ({name}) too: {why}"


def _some(slots: list[str]) -> str:
    shown = ", ".join(slots[:SLOTS_NAMED])
    more = len(slots) - SLOTS_NAMED
    return shown if more <= 0 else f"{shown} and {more} more"


SLOTS_NAMED = 4  # in one sentence


# -- what goes wrong -------------------------------------------------------------------------------


def problems(
    functions: Iterable[PciFunction],
    owners: Mapping[str, object],
    *,
    blacklists: Mapping[int, object] | None = None,
    kernels: int | None = None,
) -> list[str]:
    """Every sentence about what would go wrong: each function wants exactly one owner.

    ``owners``: slot -> kernel number, or a tuple of numbers as ``claimants`` gives it, or None.
    ``blacklists``: kernel -> its list; what they do is compared with what is planned.
    """
    buses, plan = Buses(functions), _as_plan(owners)
    said = [*_owner_problems(buses, plan, kernels), *_shared_lines(buses, plan)]
    for kernel in sorted(blacklists or {}):
        said += _list_problems(buses, plan, kernel, blacklists[kernel])
    return said


def _as_plan(owners: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    if not isinstance(owners, Mapping):
        raise PopcornError(f"{owners!r:.60}: a table from slots to kernel numbers was expected.")
    return {slot: _as_kernels(slot, who) for slot, who in owners.items()}


def _as_kernels(slot: str, who: object) -> tuple[int, ...]:
    numbers = () if who is None else (who,) if type(who) is int else who
    if not isinstance(numbers, tuple | list) or any(type(n) is not int for n in numbers):
        raise PopcornError(f"owners[{slot!r}] is {who!r}; the number of a kernel was expected.")
    return tuple(sorted(set(numbers)))


def _owner_problems(buses: Buses, plan: dict, kernels: int | None) -> Iterator[str]:
    for slot in plan:
        if slot not in buses.functions:
            yield f"there is no function at {slot}; {near_names(slot, buses.functions)}"
    for function in ownable(buses.functions.values()):
        who, named = plan.get(function.slot, ()), in_words(function)
        for kernel in who:
            if kernels is not None and not 0 <= kernel < kernels:
                yield (
                    f"{named} is to belong to kernel {kernel}; a kernel from 0 to {kernels - 1} "
                    "was expected"
                )
        if not who:
            yield f"{named} has no owner, so no kernel drives it; exactly one was expected"
        elif len(who) > 1:
            yield (
                f"{named} is claimed by kernels {_and(who)}: each programs it and neither knows "
                "of the other; exactly one owner was expected"
            )


def _shared_lines(buses: Buses, plan: dict) -> Iterator[str]:
    """Functions of different owners that pull the same wire."""
    lines: dict[int, list[PciFunction]] = {}
    for function in ownable(buses.functions.values()):
        if function.irq is not None and function.pin and not function.msi:
            lines.setdefault(function.irq, []).append(function)
    for irq, sharing in sorted(lines.items()):
        owners = sorted({kernel for f in sharing for kernel in plan.get(f.slot, ())[:1]})
        if len(owners) < 2:
            continue
        by = "; ".join(
            f"kernel {kernel}: {', '.join(f.slot for f in sharing if kernel in _of(plan, f))}"
            for kernel in owners
        )
        yield (
            f"interrupt line {irq} is shared by functions of kernels {_and(owners)} ({by}): an "
            "interrupt goes to one kernel, which does not know the other's device; one owner for "
            "the whole line was expected"
        )


def _of(plan: dict, function: PciFunction) -> tuple[int, ...]:
    return plan.get(function.slot, ())


def _list_problems(buses: Buses, plan: dict, kernel: int, blacklist) -> Iterator[str]:
    """What is wrong with one kernel's list, and what it does that the plan does not say."""
    read, ids = as_blacklist(blacklist), {f.vendor_device for f in buses.functions.values()}
    if read.refused:
        yield (
            f"kernel {kernel}: its blacklist is not read from {read.refused!r} on; "
            "vendor:device:flags was expected"
        )
    for number, entry in enumerate(read.entries, 1):
        if entry.slot:
            if entry.slot not in buses.functions:
                yield f"kernel {kernel}: entry {number}, {entry.text}, matches no function"
        elif entry.id not in ids:
            yield (
                f"kernel {kernel}: entry {number}, {entry.text}, is read as {entry.id} and "
                f"matches no function{_meant(entry, ids)}"
            )
    for number, entry in enumerate(read.ignored, len(read.entries) + 1):
        yield (
            f"kernel {kernel}: entry {number}, {entry.text}, is dropped without a word: the table "
            f"has {len(read.entries)} places"
        )
    owned = {slot for slot, who in plan.items() if kernel in who}
    for sentence in differences(buses, owned, read):
        yield f"kernel {kernel}: {sentence}"


def _meant(entry: Entry, ids: set[str]) -> str:
    """An id that was written in hexadecimal without its 0x is read as decimal."""
    vendor, _, rest = entry.text.partition(":")
    meant = f"{vendor}:{rest.partition(':')[0]}".lower()
    if meant not in ids:
        return ""
    return f"; without 0x a number is decimal: {_written(meant)} was expected"


def remarks(functions: Iterable[PciFunction], owners: Mapping[str, object]) -> list[str]:
    """What goes wrong for nobody, but is worth knowing: devices and bridges that are split."""
    buses, plan = Buses(functions), _as_plan(owners)
    return [*_split_devices(buses, plan), *_split_bridges(buses, plan)]


def _split_devices(buses: Buses, plan: dict) -> Iterator[str]:
    devices: dict[str, list[PciFunction]] = {}
    for function in ownable(buses.functions.values()):
        devices.setdefault(device_of(function.slot), []).append(function)
    for device, group in devices.items():
        owners = sorted({kernel for f in group for kernel in _of(plan, f)})
        if len(owners) > 1:
            yield (
                f"the functions of device {device} are split between kernels {_and(owners)}: one "
                "reset or power-down of the device hits all of them"
            )


def _split_bridges(buses: Buses, plan: dict) -> Iterator[str]:
    for slot, function in buses.functions.items():
        if function.device_class not in (PCI_BRIDGE, CARDBUS_BRIDGE):
            continue
        owners = sorted(
            {kernel for f in buses.all_behind(slot) if not is_exempt(f) for kernel in _of(plan, f)}
        )
        if len(owners) > 1:
            yield (
                f"what is behind bridge {slot} belongs to kernels {_and(owners)}: they share its "
                "path to memory, and a reset of the bridge hits all of them"
            )


def in_words(function: PciFunction) -> str:
    """A function for a sentence: "0000:02:00.0 (8086:10c9, 82576 Gigabit)"."""
    what = ", ".join(filter(None, (function.vendor_device, function.name)))
    return f"{function.slot} ({what})"


def _and(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


# -- interrupts ------------------------------------------------------------------------------------

ROUTE_SOURCE = "model default: the owner's first CPU on the device's node, else its first CPU"


class Route(NamedTuple):
    """Where a function's interrupt goes."""

    slot: str
    kernel: int  # the owner
    cpu: int
    how: str  # "INTx" (a wire to an IO-APIC), "MSI" or "MSI-X" (a write to the CPU's APIC)
    irq: int | None
    io_apic: int | None  # of a wire: the chip's id and its pin
    pin: int | None
    source: str


def routes(
    machine: Machine,
    owners: Mapping[str, int],
    cpus: Mapping[int, Sequence[int]] | Sequence[Sequence[int]],
    to: Mapping[str, int] | None = None,
) -> tuple[Route, ...]:
    """The route of every owned function that interrupts. ``to`` sends some to another CPU."""
    groups = cpus if isinstance(cpus, Mapping) else dict(enumerate(cpus))
    made = []
    for function in ownable(machine.pci_functions):
        owner = owners.get(function.slot)
        how = function.msi or ("INTx" if function.pin else "")
        if owner is None or not how:
            continue
        if not groups.get(owner):
            raise PopcornError(
                f"{function.slot} belongs to kernel {owner}, which has no CPU; "
                f"expected one of the kernels {', '.join(map(str, groups))}."
            )
        cpu, source = _own_cpu(machine, function, groups[owner]), ROUTE_SOURCE
        if to and function.slot in to:
            cpu, source = to[function.slot], "set by you"
            machine.node_of(cpu)  # refuses a CPU that is not there
        chip, pin = (None, None) if function.msi else io_apic_pin(machine, function.irq)
        made.append(Route(function.slot, owner, cpu, how, function.irq, chip, pin, source))
    return tuple(made)


def _own_cpu(machine: Machine, function: PciFunction, cpus: Sequence[int]) -> int:
    near = [cpu for cpu in cpus if machine.node_of(cpu) == function.node]
    return min(near or cpus)


def io_apic_pin(machine: Machine, gsi: int | None) -> tuple[int | None, int | None]:
    """(the IO-APIC's id, its pin) of a global interrupt number; (None, None) if no chip has it."""
    for chip in machine.io_apics:
        if gsi is not None and chip.gsi_base <= gsi < chip.gsi_base + chip.pins:
            return chip.id, gsi - chip.gsi_base
    return None, None


def misrouted(
    routes: Iterable[Route], cpus: Mapping[int, Sequence[int]] | Sequence[Sequence[int]]
) -> list[str]:
    """Interrupts that arrive where no driver listens, a sentence each."""
    groups = cpus if isinstance(cpus, Mapping) else dict(enumerate(cpus))
    whose = {cpu: kernel for kernel, group in groups.items() for cpu in group}
    said = []
    for route in routes:
        kernel = whose.get(route.cpu)
        if kernel != route.kernel:
            there = "nobody" if kernel is None else f"kernel {kernel}"
            said.append(
                f"the interrupt of {route.slot} goes to CPU {route.cpu} of {there}, where no "
                f"driver listens: spurious there, missed by its owner; a CPU of kernel "
                f"{route.kernel} was expected"
            )
    return said

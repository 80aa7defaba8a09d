"""The devices as a story: each kernel's scan of the PCI tree, and the use of a device by others.

What a scan finds and skips, and why, is the business of ownership.py; here it happens, step by
step, so that it can be watched, and an entry that is lost on the way is missed. Then a device is
used: by its owner, whose driver it interrupts; or by another kernel, which asks the owner through
messages and pays for two of them.

    yield from scan(world, 1, "0x8086:0x10c9:b")     # in kernel 1's boot
    proxy_cost(machine, cpu_user=8, cpu_owner=0)     # what not owning costs

Words: those of ownership.py, and
    proxy      the owner's driver, used by another kernel through messages
    spurious   an interrupt that arrives where no driver listens

Left out: a second driver's damage (nothing happens when two kernels claim one function, because
nothing in the machine would notice), hot plugging, and queues of requests within a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

from popcorn_edu.engine.steps import Begin, Delay, Until
from popcorn_edu.engine.trace import Event
from popcorn_edu.engine.world import Part
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.ownership import (
    BLACKLIST_ENTRIES,
    BRIDGES,
    Blacklist,
    Bus,
    Buses,
    Route,
    Seen,
    Verdict,
    Written,
    as_blacklist,
    blacklist_for,
    claimants,
    claims,
    create_lspci,
    device_of,
    differences,
    in_words,
    io_apic_pin,
    is_exempt,
    look,
    misrouted,
    ownable,
    problems,
    read_flags,
    remarks,
    routes,
    seen,
    strtoul,
    write_flags,
)
from popcorn_edu.model.pci import PciFunction

__all__ = [  # what ownership.py offers is offered here too: ``devices`` is where one looks for it
    "BLACKLIST_ENTRIES", "BRIDGES", "Blacklist", "Buses", "Route", "Seen", "Verdict", "Written",
    "as_blacklist", "blacklist_for", "claimants", "claims", "create_lspci", "device_of",
    "differences", "in_words", "io_apic_pin", "is_exempt", "misrouted", "ownable", "problems",
    "read_flags", "remarks", "routes", "seen", "strtoul", "write_flags",
    "Devices", "scan", "read_list", "submit", "interrupts", "ProxyCost", "proxy_cost",
    "local_io_ns", "message_ns",
]  # fmt: skip

SLOTS_OF_A_BUS = 32

# Model defaults, all of them, with the range that seems plausible.
CONFIG_READ_NS = 1_000  # 500 to 2,000: one read of a function's configuration space
PROBE_NS = 1_000_000  # 100,000 to 1 s: a driver takes a device into its service
SUBMIT_CYCLES = 2_000  # 500 to 5,000: a driver gives its device one request
COMPLETE_CYCLES = 2_000  # 500 to 5,000: it looks what the device has done
BLOCK_READ_NS = 100_000  # 20,000 to 10,000,000: the device reads 4 KiB into memory
POLL_EXIT_CYCLES = 300  # 50 to 2,000: as messaging.Costs.POLL_EXIT_CYCLES
PUT_CYCLES = 60  # as messaging.Costs.PUT_CYCLES


# -- events: reading the list ----------------------------------------------------------------------


class EntryKept(Event):
    """The list is read very early, before the kernel can allocate memory: it goes into a table
    of fixed size. Whatever the flags say, only the presence of the entry will matter."""

    says = "kernel {kernel} notes entry {number} of its blacklist: id {id}"
    popcorn = "pci_dev_list_add(), drivers/pci/probe.c; early_param pci_dev_flags"
    kernel: int
    number: int
    id: str


class SlotEntryKept(Event):
    """An entry that names a place and not an id. Popcorn has no such entries: this is the
    extension that makes two identical cards tell-apart-able."""

    says = "kernel {kernel} notes entry {number} of its blacklist: slot {slot}"
    popcorn = ""
    kernel: int
    number: int
    slot: str


class EntryDropped(Event):
    """The table is full. The function that adds entries returns -ENOMEM, and its caller sets the
    error back to 0: nobody is told, and the device will be driven as if it had not been listed."""

    says = "kernel {kernel} has no room for entry {number}, {text}: dropped without a word"
    popcorn = "pci_dev_list_add(): -ENOMEM, then res = 0 in pci_dev_add_str()"
    kernel: int
    number: int
    text: str


class ListRefused(Event):
    """An item without its three parts ends the reading: what comes after it is not on the list."""

    says = "kernel {kernel} cannot read its blacklist from {text} on, and stops there"
    popcorn = 'pci_dev_add_str(): "bad dev info string", -EINVAL'
    kernel: int
    text: str


# -- events: the scan ------------------------------------------------------------------------------


class BusScanned(Event):
    """A bus has 32 places. The kernel reads the id at each; an empty place answers with ones. It
    finds every device of the machine this way, whoever is meant to own it."""

    says = "kernel {kernel} scans bus {bus}"
    popcorn = "pci_scan_child_bus(), drivers/pci/probe.c"
    kernel: int
    bus: str


class BridgeCrossed(Event):
    """Only when a bus is done does the kernel go through the bridges it has found there."""

    says = "kernel {kernel} goes through bridge {bridge} and scans bus {bus}"
    popcorn = "pci_scan_bridge(), drivers/pci/probe.c"
    kernel: int
    bus: str
    bridge: str


class BridgeFound(Event):
    """A bridge is looked through by every kernel, and owned by none: no driver programs it for
    one kernel alone. That is why a blacklist leaves bridges out."""

    says = "kernel {kernel} finds {id} at {slot}: a bridge, left as it is"
    popcorn = "create_lspci.sh: NOT_BLACKLIST_CLASS 0600 0604"
    kernel: int
    slot: str
    id: str


class FunctionSkipped(Event):
    """The kernel has read vendor and device, and an entry has both. It forgets the function: no
    driver will ever be asked. The place played no part, so every other card with this id is
    skipped as well."""

    says = "kernel {kernel} finds {id} at {slot}: entry {entry} matches, it is skipped"
    popcorn = "pci_device_blacklisted() in pci_scan_single_device()"
    kernel: int
    slot: str
    id: str
    entry: int


class FunctionsPassedOver(Event):
    """Function 0 was skipped, so for the kernel nothing is there, and it goes on to the next
    place: it never reads the ids of the functions behind it, listed or not."""

    says = "kernel {kernel} takes {device} for empty and never looks at {functions}"
    popcorn = "pci_scan_slot() returns 0 if function 0 is not there"
    kernel: int
    device: str
    functions: str


class BusUnreached(Event):
    """Behind a bridge that was not found there may be anything: this kernel will not see it."""

    says = "kernel {kernel} never comes to {functions}, behind {bridge}"
    popcorn = "pci_scan_child_bus(): only bridges on the bus's list are looked through"
    kernel: int
    bridge: str
    functions: str


class DeviceClaimed(Event):
    """Nothing on the list matches, so a driver takes the function: it resets it, gives it memory
    and an interrupt. If another kernel does the same, neither notices, and two drivers program
    one device; taking turns does not help, since each believes in its own state (M11)."""

    says = "kernel {kernel} finds {id} at {slot} and claims it (driver: {driver})"
    popcorn = "pci_device_add(), then the driver's probe()"
    kernel: int
    slot: str
    id: str
    driver: str


class ScanEnded(Event):
    """The scan is over, once and for all: ownership is static, nobody hands anything over."""

    says = "kernel {kernel} has finished its scan: {claimed} claimed, {skipped} skipped"
    popcorn = "pci_scan_bus_parented() returns"
    kernel: int
    claimed: int
    skipped: int


# -- events: using a device ------------------------------------------------------------------------


class IoAsked(Event):
    """A process wants a block. Whether its own kernel has the driver decides the way it takes."""

    says = "kernel {kernel}: a process asks for block {request} of {slot}"
    popcorn = "read() in user space"
    kernel: int
    slot: str
    request: int


class IoSubmitted(Event):
    """Only the owner's driver may talk to the device: it alone knows what it has asked before."""

    says = "kernel {kernel}'s driver gives {slot} request {request}"
    popcorn = ""
    kernel: int
    slot: str
    request: int


class DeviceInterrupted(Event):
    """The device has written the block into memory by itself (DMA) and signals a CPU: the one
    that its interrupt is routed to. The device knows nothing of kernels."""

    says = "{slot} is done with request {request} and interrupts CPU {cpu}"
    popcorn = ""
    slot: str
    request: int
    cpu: int


class InterruptServed(Event):
    """The CPU belongs to the owner, so a driver listens: it sees which request is done."""

    says = (
        "kernel {kernel}'s driver of {slot} is interrupted on CPU {cpu}: request {request} is done"
    )
    popcorn = ""
    kernel: int
    slot: str
    request: int
    cpu: int


class InterruptSpurious(Event):
    """The CPU belongs to a kernel that has no driver for the device. It acknowledges the
    interrupt and forgets it; the owner waits for ever."""

    says = (
        "kernel {kernel} is interrupted by {slot} on CPU {cpu}, but has no driver of it: spurious"
    )
    popcorn = ""
    kernel: int
    slot: str
    request: int
    cpu: int


class IoDone(Event):
    """The process has its block."""

    says = "kernel {kernel}: the process has block {request} of {slot}"
    popcorn = ""
    kernel: int
    slot: str
    request: int


# -- tables ----------------------------------------------------------------------------------------


class Devices(Part):
    """What each kernel's scan has found, and who drives what.

    bus         [kernel] -> the bus it has come to
    claimed, skipped, unseen   [kernel] -> how many functions so far
    blacklist   [kernel, number] -> the id, or in our extension the slot, of that entry
    verdict     [kernel, slot] -> Verdict
    driver      [kernel, slot] -> the driver that has claimed it
    claimed_by  [slot] -> the kernels that drive it; no kernel can see this
    requests    [kernel, slot, request] -> "asked", "submitted", "served" or "done"
    signalled   [cpu, slot, request] -> 1 while an interrupt waits for that CPU (hardware)
    """

    tables = (
        "bus", "claimed", "skipped", "unseen", "blacklist", "verdict", "driver", "claimed_by",
        "requests", "signalled",
    )  # fmt: skip
    private = (
        "bus", "claimed", "skipped", "unseen", "blacklist", "verdict", "driver", "requests",
    )  # fmt: skip

    def entry_kept(self, event: EntryKept | SlotEntryKept) -> None:
        kernel, number, name = event
        self.blacklist[kernel, number] = name

    def bus_scanned(self, event: BusScanned | BridgeCrossed) -> None:
        if event.kernel not in self.bus:
            self.claimed[event.kernel] = self.skipped[event.kernel] = self.unseen[event.kernel] = 0
        self.bus[event.kernel] = event.bus

    def bridge_found(self, event: BridgeFound) -> None:
        self.verdict[event.kernel, event.slot] = Verdict.BRIDGE

    def function_skipped(self, event: FunctionSkipped) -> None:
        self.verdict[event.kernel, event.slot] = Verdict.SKIPPED
        self.skipped[event.kernel] += 1

    def never_seen(self, event: FunctionsPassedOver | BusUnreached) -> None:
        passed_over = type(event) is FunctionsPassedOver
        slots = event.functions.split(", ")
        for slot in slots:
            self.verdict[event.kernel, slot] = (
                Verdict.NOT_LOOKED_AT if passed_over else Verdict.UNREACHED
            )
        self.unseen[event.kernel] += len(slots)

    def device_claimed(self, event: DeviceClaimed) -> None:
        kernel, slot, _, driver = event
        self.verdict[kernel, slot] = Verdict.CLAIMED
        self.driver[kernel, slot] = driver
        self.claimed[kernel] = self.claimed.get(kernel, 0) + 1
        self.claimed_by[slot] = (*self.claimed_by.get(slot, ()), kernel)

    def scan_ended(self, event: ScanEnded) -> None:
        self.bus[event.kernel] = "done"

    def io_asked(self, event: IoAsked) -> None:
        self.requests[tuple(event)] = "asked"

    def io_submitted(self, event: IoSubmitted) -> None:
        self.requests[tuple(event)] = "submitted"

    def device_interrupted(self, event: DeviceInterrupted) -> None:
        slot, request, cpu = event
        self.signalled[cpu, slot, request] = 1

    def interrupt_served(self, event: InterruptServed) -> None:
        kernel, slot, request, cpu = event
        self.requests[kernel, slot, request] = "served"
        self.signalled.pop((cpu, slot, request), None)

    def interrupt_spurious(self, event: InterruptSpurious) -> None:
        _, slot, request, cpu = event
        self.signalled.pop((cpu, slot, request), None)

    def io_done(self, event: IoDone) -> None:
        self.requests[tuple(event)] = "done"

    applies = {
        EntryKept: entry_kept,
        SlotEntryKept: entry_kept,
        BusScanned: bus_scanned,
        BridgeCrossed: bus_scanned,
        BridgeFound: bridge_found,
        FunctionSkipped: function_skipped,
        FunctionsPassedOver: never_seen,
        BusUnreached: never_seen,
        DeviceClaimed: device_claimed,
        ScanEnded: scan_ended,
        IoAsked: io_asked,
        IoSubmitted: io_submitted,
        DeviceInterrupted: device_interrupted,
        InterruptServed: interrupt_served,
        InterruptSpurious: interrupt_spurious,
        IoDone: io_done,
    }


# -- stories: a kernel boots and looks for devices -------------------------------------------------


def read_list(world, me: int, flags: str) -> Generator:
    """Kernel ``me`` reads ``pci_dev_flags``, long before it scans."""
    read = read_flags(flags)
    for number, entry in enumerate(read.entries, 1):
        if entry.slot:
            yield SlotEntryKept(me, number, entry.slot)
        else:
            yield EntryKept(me, number, entry.id)
    for number, entry in enumerate(read.ignored, len(read.entries) + 1):
        yield EntryDropped(me, number, entry.text)
    if read.refused:
        yield ListRefused(me, read.refused)


def scan(
    world,
    me: int,
    flags: str | None = "",
    *,
    functions: Iterable[PciFunction] | None = None,
    cpu: int | None = None,
) -> Generator:
    """Kernel ``me`` reads its blacklist (``None``: has read it before) and scans the PCI tree of
    ``world.setup.machine``, or these functions. Each function is looked up in the kernel's own
    table, so an entry that is lost (in a fork) is really lost."""
    if flags is not None:
        yield from read_list(world, me, flags)
    buses = Buses(world.setup.machine.pci_functions if functions is None else functions)
    table = world.devices.blacklist

    def match(function: PciFunction) -> int:
        names = function.slot, function.vendor_device
        for number in range(1, BLACKLIST_ENTRIES + 1):
            if table.get((me, number)) in names:
                return number
        return 0

    def by_slot(number: int) -> bool:
        return "." in table[me, number]

    read = Delay(CONFIG_READ_NS, cpu)
    bus, unseen = None, []
    counts = {Verdict.CLAIMED: 0, Verdict.SKIPPED: 0, Verdict.BRIDGE: 0}
    for found in look(buses, match, by_slot):
        if unseen and (found.verdict, found.because) != (unseen[0].verdict, unseen[0].because):
            yield _never_seen(me, unseen)
            unseen = []
        if found.because:
            unseen.append(found)
            continue
        here = Bus(found.function.domain, found.function.bus)
        if here != bus:
            bus, bridge = here, buses.bridge_to[here]
            yield Delay(CONFIG_READ_NS * (SLOTS_OF_A_BUS - len(buses.on[bus])), cpu)
            yield BridgeCrossed(me, str(bus), bridge) if bridge else BusScanned(me, str(bus))
        yield read
        counts[found.verdict] += 1
        if found.verdict is Verdict.CLAIMED:
            yield Delay(PROBE_NS, cpu)
        yield _what_is_found(me, found)
    if unseen:
        yield _never_seen(me, unseen)
    yield ScanEnded(me, counts[Verdict.CLAIMED], counts[Verdict.SKIPPED])


def _what_is_found(me: int, found: Seen) -> Event:
    what = me, found.slot, found.function.vendor_device
    if found.verdict is Verdict.SKIPPED:
        return FunctionSkipped(*what, found.entry)
    if found.verdict is Verdict.BRIDGE:
        return BridgeFound(*what)
    return DeviceClaimed(*what, found.function.driver or "none listed")


def _never_seen(me: int, unseen: list[Seen]) -> Event:
    slots = ", ".join(found.slot for found in unseen)
    if unseen[0].verdict is Verdict.UNREACHED:
        return BusUnreached(me, unseen[0].because, slots)
    return FunctionsPassedOver(me, device_of(unseen[0].slot), slots)


# -- stories: a device is used ---------------------------------------------------------------------


def submit(world, me: int, slot: str, request: int, cpu: int, to: int) -> Generator:
    """The owner's driver, on its CPU, gives the device one request; the device will interrupt
    the CPU ``to``."""
    yield Delay(world.setup.machine.ns(SUBMIT_CYCLES), cpu)
    yield IoSubmitted(me, slot, request)
    yield Begin(f"device {slot}", work(world, slot, request, to), kernel=None)


def work(world, slot: str, request: int, cpu: int) -> Generator:
    """The device's part: it needs no CPU until it is done."""
    yield Delay(BLOCK_READ_NS)
    yield DeviceInterrupted(slot, request, cpu)


def interrupts(world, me: int, cpu: int, then: Callable | None = None) -> Generator:
    """What kernel ``me`` does with device interrupts on its CPU: serve those of the devices it
    drives, ignore the others. ``then(world, me, slot, request)`` is told after each it serves."""
    machine = world.setup.machine
    delivery = Delay(machine.cost_ns("ipi_delivery_cycles"))
    handle = Delay(machine.cost_ns("isr_top_half_cycles") + machine.ns(COMPLETE_CYCLES), cpu)
    while True:
        waiting = [key for key in world.devices.signalled if key[0] == cpu]
        if not waiting:
            yield Until(DeviceInterrupted, cpu=cpu)
            continue
        _, slot, request = waiting[0]
        yield delivery
        yield handle
        if (me, slot) not in world.devices.driver:
            yield InterruptSpurious(me, slot, request, cpu)
            continue
        yield InterruptServed(me, slot, request, cpu)
        if then is not None:
            yield from then(world, me, slot, request)


# -- what it costs ---------------------------------------------------------------------------------


class ProxyCost(NamedTuple):
    """One block, read through the owner's driver, against the owner's own use of it."""

    local_ns: int  # the owner reads for itself
    request_ns: int  # the message to the owner, from send to callback
    reply_ns: int  # and back
    hops: str  # how far apart the two CPUs are
    source: str

    @property
    def extra_ns(self) -> int:
        return self.request_ns + self.reply_ns

    @property
    def proxied_ns(self) -> int:
        return self.local_ns + self.extra_ns


def proxy_cost(machine: Machine, cpu_user: int, cpu_owner: int) -> ProxyCost:
    """What a kernel pays for a device that it does not own: two messages, both of which find
    their receiver asleep. The block itself is not copied: the device writes it into the memory
    of the kernel that asked, which all kernels share (model default)."""
    line = machine.transfer_source(cpu_user, cpu_owner)
    return ProxyCost(
        local_io_ns(machine),
        message_ns(machine, cpu_user, cpu_owner),
        message_ns(machine, cpu_owner, cpu_user),
        machine.relation(cpu_user, cpu_owner),
        f"cache line: {line}; all other constants: model default",
    )


def local_io_ns(machine: Machine) -> int:
    """Submit, the device's own time, and its interrupt."""
    return (
        machine.ns(SUBMIT_CYCLES)
        + BLOCK_READ_NS
        + machine.cost_ns("ipi_delivery_cycles")
        + machine.cost_ns("isr_top_half_cycles")
        + machine.ns(COMPLETE_CYCLES)
    )


def message_ns(machine: Machine, cpu_from: int, cpu_to: int) -> int:
    """One message between two kernels alone, its receiver asleep: from send to callback.

    The same steps with the same costs as in messaging.py: ticket, slot, IPI, top half, softirq,
    read, leave the poll, ask for interrupts, look again, dispatch.
    """
    line, cost = machine.transfer_ns(cpu_from, cpu_to), machine.cost_ns
    put = line + 2 * line + machine.ns(PUT_CYCLES)
    interrupt = cost("icr_write_cycles") + cost("ipi_delivery_cycles")
    wake = cost("isr_top_half_cycles") + cost("softirq_entry_cycles")
    get = 2 * line + cost("message_copy_cycles")
    leave = machine.ns(POLL_EXIT_CYCLES) + 2 * line
    return put + interrupt + wake + get + leave + cost("callback_dispatch_cycles")

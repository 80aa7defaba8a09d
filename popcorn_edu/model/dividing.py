"""How a machine's RAM is divided, told step by step: what ``mpart`` does, one fact at a time.

carving.py divides; here the plan that it made is told as events, so that it can be stepped through
like everything else, and asked at every step what is given away and what is left.

    run = told(plan)
    run.trace.next(HoleMet)        # kernel 1 has 512 MiB to go, and the RAM ends
    run.at(20).memory.given        # after twenty steps: {0: "[0x0-0x77ffffff]", ...}

``stray_write(plan, ...)`` tells another short story: what happens when a kernel writes to an
address that is not its own.

Words
    cut      a RAM range cut inwards to whole granules
    to go    what a kernel's share still lacks when the RAM ends before a hole
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from popcorn_edu.engine.trace import Event, NeverHappened, PopcornError, Trace
from popcorn_edu.engine.world import Edit, Part, Run, World
from popcorn_edu.model.carving import common, down, size_of, spans_of, up
from popcorn_edu.model.firmware import hex_range, in_words
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import LOSSES, MemoryPlan, memmap_lines, whose

TOOL = "mpart"


class RamListed(Event):
    """The tool reads where RAM is from the running kernel, which has it from the firmware. What
    lies between two ranges is a hole: addresses of devices, or of nothing."""

    says = "RAM from {start:#x} up to {end:#x}"
    popcorn = "System RAM in /proc/iomem, read by mpart.c"
    start: int
    end: int


class ReserveSetAside(Event):
    """The virtual terminals, the tunnel and shared windows must lie where no kernel allocates, so
    the top of RAM is taken away before anything is divided."""

    says = "the top of RAM, from {start:#x} up to {end:#x}, is set aside for what kernels share"
    popcorn = "reserved_com, printed as vty_offset, mpart.c"
    start: int
    end: int


class RangeCut(Event):
    """Regions begin and end at whole granules, so a range counts from its first whole granule to
    its last. The lowest range counts from address 0: the low part goes with the primary."""

    says = "whole granules from {start:#x} up to {end:#x}: {granules} of them"
    popcorn = "BEN_ALIGN_CHUNK, mpart.c"
    start: int
    end: int
    granules: int


class ShareRoundedDown(Event):
    """All shares are alike and in whole granules, so what the division leaves over is lost."""

    says = "{granules} granules for {kernels} kernels: {share} each, {over} are left over"
    popcorn = "chunky_per_cpu, mpart.c"
    granules: int
    kernels: int
    share: int
    over: int


class ShareBegun(Event):
    """A kernel's share begins where the one before it ended: the map is handed out in order."""

    says = "kernel {kernel} begins at {start:#x}"
    kernel: int
    start: int


class HoleMet(Event):
    """The share does not fit before the hole. It goes on in the next RAM range, and the region on
    the command line is widened by the hole; the firmware's own map keeps the hole from being used
    where it says that something is there."""

    says = "the RAM ends at {start:#x}: kernel {kernel} has {to_go:,} bytes to go, from {end:#x} on"
    popcorn = "the hole handling of mpart.c"
    kernel: int
    start: int
    end: int
    to_go: int


class RegionGiven(Event):
    """From its first to its last address a region is the kernel's, and stands on its line."""

    says = "kernel {kernel} has the region from {start:#x} up to {end:#x}"
    kernel: int
    start: int
    end: int


class LineWritten(Event):
    """The line is all there is of the division: a kernel that is booted with it sees only this
    RAM. It gives the region, hides what lies below, and says where RAM ends."""

    says = "kernel {kernel} will boot with {words}"
    popcorn = "boot_args_N.args, written by generate_all.sh"
    kernel: int
    words: str


class RamLost(Event):
    """Nobody's line mentions this RAM, so nobody will ever use it."""

    says = "RAM from {start:#x} up to {end:#x} is nobody's: {why}"
    start: int
    end: int
    why: str


class PageMapped(Event):
    """A kernel writes its own page tables, and may put any physical address into them."""

    says = "kernel {kernel} maps the page at {page:#x} into its own address space"
    kernel: int
    page: int


class ByteWritten(Event):
    """The processor translates the address by the page tables of the kernel that runs on it, and
    the write goes out to memory. No second table is asked, for there is no hypervisor to have one;
    the memory controller does not know what a kernel is."""

    says = "kernel {kernel} writes {value} to {address:#x}, which is {owner}"
    kernel: int
    address: int
    value: int
    owner: str


class Memory(Part):
    """What is given away so far, and the few bytes that a story writes."""

    tables = ("ram", "cut", "given", "lines", "lost", "reserved", "mapped", "bytes")

    def listed(self, event: RamListed) -> None:
        self.ram[event.start, event.end] = in_words(event.end - event.start)

    def counted(self, event: RangeCut) -> None:
        self.cut[event.start, event.end] = event.granules

    def set_aside(self, event: ReserveSetAside) -> None:
        self.reserved[event.start, event.end] = in_words(event.end - event.start)

    def region(self, event: RegionGiven) -> None:
        before = self.given.get(event.kernel)
        here = hex_range(event.start, event.end)
        self.given[event.kernel] = f"{before}, {here}" if before else here

    def line(self, event: LineWritten) -> None:
        self.lines[event.kernel] = event.words

    def lose(self, event: RamLost) -> None:
        self.lost[event.start, event.end] = in_words(event.end - event.start)

    def map_page(self, event: PageMapped) -> None:
        self.mapped[event.kernel, event.page] = True

    def write(self, event: ByteWritten) -> None:
        self.bytes[(event.address,)] = event.value

    applies = {
        RamListed: listed,
        RangeCut: counted,
        ReserveSetAside: set_aside,
        RegionGiven: region,
        LineWritten: line,
        RamLost: lose,
        PageMapped: map_page,
        ByteWritten: write,
    }


@dataclass(frozen=True)
class Division:
    """What such a run is about."""

    FIXED = ("machine", "cpus")

    machine: Machine
    cpus: tuple[int, ...]  # of each kernel the first: its place in a picture of the machine


def told(plan: MemoryPlan) -> Run:
    """The division as a run to step through."""
    return _run("division", plan, ((_actor(event), event) for event in steps(plan)))


def _actor(event: Event) -> str:
    """The tool, and whom it works for just now: that kernel's lane in the player."""
    return f"{TOOL} for kernel {event.kernel}" if "kernel" in event.fields else TOOL


def steps(plan: MemoryPlan) -> Iterator[Event]:
    """What happened, in the order in which the tool does it."""
    for start, end in spans_of(plan.machine.ram):
        yield RamListed(start, end)
    if plan.reserve:
        yield ReserveSetAside(*plan.reserved[:2])
    cut = _cut(plan)
    if plan.policy == "popcorn":
        yield from _shares(plan, cut)
    for kernel, mine in enumerate(plan.regions):
        for start, end, _ in mine:
            yield ShareBegun(kernel, start)
            yield from _holes(plan, kernel, cut, start, end)
            yield RegionGiven(kernel, start, end)
        if mine:
            yield LineWritten(kernel, memmap_lines(plan, kernel))
    for loss in plan.losses:
        yield RamLost(loss.start, loss.end, LOSSES[loss.reason])


def _cut(plan: MemoryPlan) -> list[tuple[int, int]]:
    """The RAM ranges below the reserve, cut inwards to granules."""
    granule, low = plan.granule_bytes, plan.low.end
    below = common(spans_of(plan.machine.ram), [(0, plan.reserved.start)])
    inwards = [
        (0 if start <= low else up(start, granule), down(end, granule))
        for start, end in below
        if end > low
    ]
    return [span for span in inwards if span[0] < span[1]]


def _shares(plan: MemoryPlan, cut: list[tuple[int, int]]) -> Iterator[Event]:
    granule, kernels = plan.granule_bytes, len(plan.regions)
    for start, end in cut:
        yield RangeCut(start, end, (end - start) // granule)
    granules = size_of(cut) // granule
    yield ShareRoundedDown(granules, kernels, granules // kernels, granules % kernels)


def _holes(plan: MemoryPlan, kernel: int, cut, start: int, end: int) -> Iterator[Event]:
    for one, other in pairwise(cut):
        if start < one[1] and other[0] < end:
            to_go = size_of(common(cut, [(other[0], end)]))
            yield HoleMet(kernel, one[1], other[0], to_go)


def stray_write(plan: MemoryPlan, kernel: int, address: int, value: int = 42) -> Run:
    """A kernel writes one byte to an address, whoever it belongs to."""
    plan.bytes_of(kernel)  # refuses a kernel that is not there
    if not 0 <= value <= 255:
        raise PopcornError(f"{value!r} is no byte; a number from 0 to 255 was expected.")
    owner = whose(plan, address)
    who = f"kernel {kernel}"
    story = [
        *((_actor(event), event) for event in steps(plan) if isinstance(event, LineWritten)),
        (who, PageMapped(kernel, down(address, 4096))),
        (who, ByteWritten(kernel, address, value, owner.what)),
    ]
    return _run("stray_write", plan, story)


def _run(name: str, plan: MemoryPlan, story: Iterable, edits: tuple[Edit, ...] = ()) -> Run:
    """The story as a run. A fork tells it again with edits: what is dropped never happens, and
    the tables miss it from there on."""
    story = list(story)
    setup = Division(plan.machine, tuple(group[0] for group in plan.groups if group))
    trace = Trace({"scenario": name, "machine": plan.machine.name})
    now, to_come = 0, list(edits)
    for who, event in story:
        told = event
        while to_come and to_come[0].at == len(trace):
            edit = to_come.pop(0)
            now += edit.delay
            if edit.say is not None:
                trace.append(now, who, None, edit.say)
            if edit.drop:
                told = NeverHappened(type(event).__name__, str(event))
        trace.append(now, who, None, told)
    return Run(
        trace,
        lambda: World(setup, memory=Memory),
        lambda more: _run(name, plan, story, more),
        edits=edits,
    )

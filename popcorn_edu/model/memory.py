"""Whose RAM is whose: one machine's memory, divided among its kernels, and what is lost by it.

Before any kernel but the first has booted, somebody decides which RAM is whose, and writes it on
each kernel's command line. Popcorn's tool for that is ``mpart``; this file does what it does, and a
few other things one may want, with whole numbers only. Then it counts every byte of RAM: owned,
reserved, or lost for a stated reason. How the cutting goes is carving.py.

    plan = carve(machine, groups)            # Popcorn's own policy
    plan.kernels[1]                          # the ranges of RAM that kernel 1 may use
    memmap_lines(plan, 1)                    # "memmap=2688M@1920M memmap=1904M$16M mem=4608M"
    whose(plan, 0x1_0000_0000)               # whose it is, what it is, and what made it so
    plan.accounts()                          # adds up to all RAM

Words
    hole      addresses without RAM between two RAM ranges: below 4 GiB, devices are there
    region    from the first to the last address of a kernel's share, holes included: what stands
              on its command line
    range     a stretch of RAM. A kernel's ranges are the RAM in its regions
    low       the first 16 MiB. The primary owns it, no secondary's share begins in it, and yet all
              of them see it: the BIOS, the trampoline, boot_params and the command line are there
    reserve   the top of RAM, for its tenants: the virtual terminals, the tunnel, applications
    granule   sizes are multiples of it
    loss      RAM that is nobody's: rounded away, cut off at a hole, or skipped by an alignment

Left out: nothing here is enforced, and that is no simplification. A kernel reaches every byte of
the machine; it leaves the others' alone because its own map does not mention them (see ``whose``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.carving import (
    PAGE_BYTES,
    POLICIES,
    Job,
    Regions,
    Span,
    Tenant,
    checked_multiple,
    common,
    down,
    merged,
    reserve_at_top,
    size_of,
    spans_of,
    up,
    without,
)
from popcorn_edu.model.costs import html_table
from popcorn_edu.model.firmware import GIB, MIB, MemoryRange, hex_range, in_words
from popcorn_edu.model.machine import Machine, as_machine

LOW_BYTES = 16 * MIB  # [C] reserved_cap, mpart.c; later versions say 1 MiB
IMAGE_BYTES = 0x1400000  # [C] kexec maps 20 MiB for the kernel's segments
RAMDISK_OFFSET_BYTES = 512 * MIB  # [C] RAMDISK_ADDR = BOOT_ADDR + 512 MB, generate_all.sh
RAMDISK_BYTES = 64 * MIB  # model default
PRIMARY_IMAGE_ADDRESS = 16 * MIB  # [C] where a kernel is linked to run: p_paddr - 16 MB, kexec
WINDOW_OFFSET_BYTES = 0x2000000  # model default: real ones are wherever kmalloc finds room
WINDOW_BYTES = 8192  # [D] pcn_kmsg_window has 4,113 bytes, so it takes two pages
RKINFO_BYTES = 4096  # [D] 1,536 bytes for 64 CPUs: one page
EXTRA_MAP_LIMIT = 512 * GIB  # [D] the trampoline's one extra 1 GiB map is in the first PML4 entry


LOW_TENANTS = (  # below 1 MiB
    Tenant("boot_params", 0x90000, 0x90000 + PAGE_BYTES, "model default: anywhere below 1 MiB"),
    Tenant("command line", 0x91000, 0x91000 + PAGE_BYTES, "model default: anywhere below 1 MiB"),
    Tenant("trampoline", 0x92000, 0x92000 + PAGE_BYTES, "TRAMPOLINE_BSP, usually here"),
)


class Loss(NamedTuple):
    """RAM that no kernel can use, and why."""

    start: int
    end: int
    reason: str  # a key of LOSSES


LOSSES = {
    "rounding": "left over when the shares were rounded down",
    "alignment": "skipped so that the next region begins at a multiple of the alignment",
    "hole": "cut off at a hole, when the RAM range was cut to whole granules",
    "no node": "in no NUMA node that the firmware knows",
    "by hand": "given to no kernel",
}


class Account(NamedTuple):
    """One line of the count of all RAM."""

    what: str
    bytes: int
    why: str


class Answer(NamedTuple):
    """Whose an address is."""

    address: int
    kernel: int | None
    what: str
    node: int | None
    because: str

    def __str__(self) -> str:
        node = "in no node's RAM" if self.node is None else f"in the RAM of node {self.node}"
        return f"{self.address:#x} is {self.what}, {node}. {self.because} {NOT_ENFORCED}"


NOT_ENFORCED = (
    "Nothing enforces it: the page tables of any kernel can map this address, and no hardware "
    "and no hypervisor looks."
)


# -- carving ---------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class MemoryPlan:
    """Whose each byte of a machine's RAM is."""

    machine: Machine
    groups: tuple[tuple[int, ...], ...]
    policy: str
    regions: tuple[tuple[MemoryRange, ...], ...]  # of each kernel; ascending, nearly always one
    low: MemoryRange
    reserve: tuple[Tenant, ...]
    granule_bytes: int
    align_bytes: int

    @cached_property
    def kernels(self) -> Regions:
        """The RAM in each kernel's regions."""
        ram = spans_of(self.machine.ram)
        return tuple(
            tuple(MemoryRange(*span) for span in common(merged(spans_of(mine)), ram))
            for mine in self.regions
        )

    @property
    def reserved(self) -> MemoryRange:
        """The whole reserve; empty at the top of RAM if there is none."""
        if not self.reserve:
            return MemoryRange(self.machine.ram[-1].end, self.machine.ram[-1].end, "reserve")
        return MemoryRange(self.reserve[0].start, self.reserve[-1].end, "reserve")

    @property
    def vty_offset(self) -> int | None:
        """Where the virtual terminals are, for the parameter of that name."""
        return next((tenant.start for tenant in self.reserve if tenant.name == "vty"), None)

    @cached_property
    def losses(self) -> tuple[Loss, ...]:
        """The RAM that is neither a kernel's nor reserved, from low to high addresses."""
        taken = [span for mine in self.regions for span in spans_of(mine)]
        taken += [self.low[:2], self.reserved[:2]]
        left = without(spans_of(self.machine.ram), merged(taken))
        return tuple(Loss(*span, self._reason(span)) for span in left)

    def _reason(self, span: Span) -> str:
        if self.policy == "by hand":
            return "by hand"
        machine, (start, end) = self.machine, span
        if self.policy == "per node" and machine.node_memory and machine.node_at(start) is None:
            return "no node"
        starts, ends = zip(*spans_of(machine.ram), strict=True)
        if end in ends[:-1] or start in starts[1:]:
            return "hole"
        begins = {piece.start for mine in self.regions for piece in mine}
        if end in begins and end % self.align_bytes == 0 and self.align_bytes > self.granule_bytes:
            return "alignment"
        return "rounding"

    def lost_bytes(self, reason: str | None = None) -> int:
        """All that is lost, or what is lost for one reason."""
        if reason is not None and reason not in LOSSES:
            raise PopcornError(f"{reason!r} is no reason for a loss; {near_names(reason, LOSSES)}")
        return sum(loss.end - loss.start for loss in self.losses if reason in (None, loss.reason))

    def bytes_of(self, kernel: int) -> int:
        """The RAM in a kernel's regions; of the primary's, the low part included."""
        return sum(end - start for start, end, _ in self.kernels[self._checked(kernel)])

    def local_share(self, kernel: int) -> Fraction:
        """How much of a kernel's RAM is in the nodes of its own CPUs."""
        kernel = self._checked(kernel)
        return local_share(self.machine, self.groups[kernel], self.kernels[kernel])

    def places(self, kernel: int) -> tuple[Tenant, ...]:
        """Where a kernel's own things lie: its image, its ramdisk, its messaging window."""
        return places(self._checked(kernel), self.kernels[kernel])

    def accounts(self) -> tuple[Account, ...]:
        """Every byte of RAM once: low, each kernel's, the reserve, and what is lost and why."""
        ram = spans_of(self.machine.ram)
        above = [(self.low.end, max(self.low.end, ram[-1][1]))]
        rows = [Account("low", size_of(common(ram, [self.low[:2]])), "the primary's, seen by all")]
        owners = _owners([common(merged(spans_of(mine)), above) for mine in self.kernels])
        for owner in sorted(owners, key=lambda who: (len(who), who)):
            what = f"kernel {owner[0]}" if len(owner) == 1 else f"kernels {_and(owner)}"
            why = f"{self.policy} policy" if len(owner) == 1 else "claimed more than once"
            rows.append(Account(what, size_of(owners[owner]), why))
        free = without(common(ram, [self.reserved[:2]]), merged(sum(owners.values(), [])))
        rows.append(Account("reserve", size_of(free), "shared by all kernels"))
        rows += [
            Account(f"lost: {reason}", self.lost_bytes(reason), why)
            for reason, why in LOSSES.items()
            if self.lost_bytes(reason)
        ]
        return tuple(rows)

    def problems(self, **options) -> list[str]:
        """What is wrong with it; see the function of that name."""
        judged = self.regions if self.policy == "by hand" else self.kernels
        return problems(
            self.machine, judged, reserve=self.reserve, low_bytes=self.low.end, **options
        )

    def remarks(self) -> list[str]:
        """What is not wrong, but worth knowing: lost RAM, RAM far from its CPUs, false RAM."""
        return remarks(self)

    def __repr__(self) -> str:
        lost = in_words(self.lost_bytes())
        return f"<MemoryPlan {self.machine.name}: {len(self.regions)} kernels, {lost} lost>"

    def __str__(self) -> str:
        rows = [f"{self.machine.name}, {self.policy} policy: {len(self.regions)} kernels"]
        rows += [f"  kernel {k}: {memmap_lines(self, k)}" for k in range(len(self.regions))]
        rows += [f"  {row.what}: {in_words(row.bytes)} ({row.why})" for row in self.accounts()]
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        return table(self)

    def _checked(self, kernel: int) -> int:
        if isinstance(kernel, bool) or not isinstance(kernel, int):
            raise PopcornError(f"{kernel!r} is no kernel number; a whole number was expected.")
        if not 0 <= kernel < len(self.regions):
            raise PopcornError(
                f"There is no kernel {kernel} in this plan; its kernels are 0 to "
                f"{len(self.regions) - 1}."
            )
        return kernel


def carve(
    machine: Machine | str,
    groups: Iterable[Iterable[int]],
    policy: str = "popcorn",
    *,
    granule_bytes: int | None = None,
    align_bytes: int | None = None,
    low_bytes: int = LOW_BYTES,
    reserve_bytes: int | None = None,
    weights: Sequence[int] | None = None,
    ranges: Sequence | None = None,
) -> MemoryPlan:
    """Divide a machine's RAM among the kernels that these groups of CPUs make.

    granule_bytes, align_bytes: sizes, and first addresses, are multiples of these (None: as the
        policy has it). reserve_bytes: at the top of RAM (None: as on Popcorn's box, less on smaller
        machines). weights: for "by weight", a whole number for each kernel (None: its CPUs).
        ranges: for "by hand", of each kernel the (start, end) pairs it gets.
    """
    if not isinstance(policy, str) or policy not in POLICIES:
        raise PopcornError(f"There is no memory policy {policy!r}; {near_names(policy, POLICIES)}")
    if not isinstance(groups, Iterable) or isinstance(groups, str):
        raise PopcornError(
            f"{groups!r:.60} are no groups of CPUs; a list such as [(0, 1), (2, 3)] was expected, "
            "with one group for each kernel."
        )
    machine = as_machine(machine)
    groups = tuple(machine.check_cpus(group) for group in groups)
    if not groups:
        raise PopcornError("There is no kernel to give memory to; one group of CPUs was expected.")
    if not machine.ram:
        raise PopcornError(
            f"{machine.name} has no memory map, so its RAM cannot be divided; a machine with one "
            "was expected, such as h8qg6-64."
        )
    how = POLICIES[policy]
    granule = checked_multiple("granule_bytes", granule_bytes, how.granule, least=PAGE_BYTES)
    align = checked_multiple("align_bytes", align_bytes, max(how.align, granule), least=PAGE_BYTES)
    low = checked_multiple("low_bytes", low_bytes, LOW_BYTES, least=MIB)
    reserve = reserve_at_top(machine, reserve_bytes, low)
    top = reserve[0].start if reserve else machine.ram[-1].end
    ram = common(spans_of(machine.ram), [(0, top)])
    job = Job(machine, groups, ram, low, granule, align, weights, ranges)
    regions = how.divide(job)
    return MemoryPlan(
        machine, groups, policy, regions, MemoryRange(0, low, "low"), reserve, granule, align
    )


def _owners(kernels: Sequence[list[Span]]) -> dict[tuple[int, ...], list[Span]]:
    """Which spans are claimed by exactly these kernels: {(0,): [...], (1, 2): [...]}."""
    marks: dict[int, list[int]] = {}
    for kernel, mine in enumerate(kernels):
        for start, end in merged(mine):
            marks.setdefault(start, []).append(kernel)
            marks.setdefault(end, []).append(~kernel)
    owners: dict[tuple[int, ...], list[Span]] = {}
    now: set[int] = set()
    for here, there in pairwise(sorted(marks)):
        for mark in sorted(marks[here]):  # the ends come first: they are negative
            now.discard(~mark) if mark < 0 else now.add(mark)
        if now:
            owners.setdefault(tuple(sorted(now)), []).append((here, there))
    return owners


def _and(kernels: Sequence[int]) -> str:
    return ", ".join(map(str, kernels[:-1])) + f" and {kernels[-1]}"


# -- is it any good? -------------------------------------------------------------------------------


def problems(
    machine: Machine,
    ranges_by_kernel: Sequence[Sequence[MemoryRange]],
    *,
    reserve: Iterable[Tenant] = (),
    low_bytes: int = LOW_BYTES,
    ramdisk_bytes: int = RAMDISK_BYTES,
    gaps: bool = False,
) -> list[str]:
    """Everything that is wrong with these ranges, a sentence each.

    ``gaps``: also each stretch of RAM that nobody has. Rounding leaves some in nearly every plan.
    """
    kernels = [spans_of(mine) for mine in ranges_by_kernel]
    said = []
    for kernel, spans in enumerate(kernels):
        upside_down = [span for span in spans if not 0 <= span[0] < span[1]]
        if not spans:
            said.append(f"Kernel {kernel} has no memory; at least one range of RAM was expected.")
        for start, end in upside_down:
            said.append(
                f"Kernel {kernel} has a range from {start:#x} to {end:#x}; an end after its start "
                "was expected."
            )
        kernels[kernel] = [span for span in spans if span not in upside_down]
    said += _overlaps(kernels)
    said += _trespassing(kernels, list(reserve), low_bytes)
    said += _outside_ram(machine, kernels)
    for kernel, spans in enumerate(kernels):
        if spans:
            said += _too_small_or_too_high(machine, kernel, merged(spans), ramdisk_bytes)
    if gaps:
        said += _gaps(machine, kernels, list(reserve), low_bytes)
    return said


def _overlaps(kernels: list[list[Span]]) -> list[str]:
    """All bytes that several have, or one has twice, in the order of their owners."""
    said = [
        f"Kernels {_and(owners)} {'both' if len(owners) == 2 else 'all'} have "
        f"{hex_range(start, end)}, {in_words(end - start)}; each byte was expected to be one "
        "kernel's."
        for owners, spans in sorted(_owners(kernels).items())
        for start, end in (spans if len(owners) > 1 else ())
    ]
    for kernel, spans in enumerate(kernels):
        for one, other in pairwise(sorted(spans)):
            if other[0] < one[1]:
                twice = hex_range(other[0], min(one[1], other[1]))
                said.append(f"Kernel {kernel} has {twice} twice; once was expected.")
    return said


def _trespassing(kernels: list[list[Span]], reserve: list[Tenant], low: int) -> list[str]:
    said = []
    for kernel, spans in enumerate(kernels):
        for start, end in common(merged(spans), [(0, low)] if low and kernel else []):
            said.append(
                f"Kernel {kernel} has {hex_range(start, end)}, in the low {in_words(low)}, where "
                "the trampoline and boot_params are; only the primary was expected there."
            )
        for tenant in reserve:
            for start, end in common(merged(spans), [(tenant.start, tenant.end)]):
                said.append(
                    f"Kernel {kernel} has {hex_range(start, end)}, in the reserve, where the "
                    f"{tenant.name} area is; no kernel was expected there."
                )
    return said


def _outside_ram(machine: Machine, kernels: list[list[Span]]) -> list[str]:
    said, ram = [], spans_of(machine.ram)
    for kernel, spans in enumerate(kernels):
        for start, end in without(merged(spans), ram):
            said.append(
                f"Kernel {kernel} has {hex_range(start, end)}, where there is no RAM "
                f"({_firmware_says(machine, start)}); RAM was expected."
            )
    return said


def _firmware_says(machine: Machine, address: int) -> str:
    for piece in machine.memory_map:
        if piece.start <= address < piece.end:
            return f"the firmware says: {piece.kind}"
    above = machine.ram and address >= machine.ram[-1].end
    return "above all RAM" if above else "the firmware says nothing of it: a hole"


def _too_small_or_too_high(machine, kernel: int, spans: list[Span], ramdisk: int) -> list[str]:
    said = []
    for thing in places(kernel, spans, ramdisk):
        if size_of(common(spans, [(thing.start, thing.end)])) < thing.end - thing.start:
            said.append(
                f"Kernel {kernel}'s {thing.name} would be at {hex_range(thing.start, thing.end)}, "
                f"which is not all in its memory; room for {in_words(thing.end - thing.start)} "
                f"there was expected ({thing.source})."
            )
        elif thing.name == "kernel image" and thing.end > EXTRA_MAP_LIMIT:
            said.append(
                f"Kernel {kernel} would be loaded at {thing.start:#x}; an address below 512 GiB "
                "was expected, where the trampoline can map 1 GiB more for it."
            )
        elif thing.name == "kernel image" and 4 * GIB <= down(thing.end - 1, GIB) > thing.start:
            said.append(
                f"Kernel {kernel}'s image would lie on both sides of {down(thing.end, GIB):#x}; "
                "above 4 GiB the trampoline maps only the 1 GiB that its first byte is in, so all "
                "of it was expected there."
            )
    return said


def _gaps(machine: Machine, kernels: list[list[Span]], reserve, low: int) -> list[str]:
    taken = [span for spans in kernels for span in spans] + [(0, low)]
    taken += [(tenant.start, tenant.end) for tenant in reserve]
    return [
        f"{hex_range(start, end)}, {in_words(end - start)} of RAM, is nobody's; a kernel {where} "
        "was expected to have it."
        for start, end in without(spans_of(machine.ram), merged(taken))
        for where in [_neighbours(kernels, start, end)]
    ]


def _neighbours(kernels: list[list[Span]], start: int, end: int) -> str:
    before = [(span[1], k) for k, spans in enumerate(kernels) for span in spans if span[1] <= start]
    after = [(span[0], k) for k, spans in enumerate(kernels) for span in spans if span[0] >= end]
    said = [f"after kernel {max(before)[1]}'s" if before else ""]
    said.append(f"before kernel {min(after)[1]}'s" if after else "")
    return " and ".join(filter(None, said)) or "of the plan"


def places(kernel: int, ranges: Sequence, ramdisk_bytes: int = RAMDISK_BYTES) -> tuple[Tenant, ...]:
    """Where a kernel's own things lie, in or out of its memory."""
    if not ranges:
        return ()
    first = ranges[0][0]
    if kernel == 0:
        boot, how = PRIMARY_IMAGE_ADDRESS, "where it is linked to run"
        window, ramdisk = WINDOW_OFFSET_BYTES + RKINFO_BYTES, ()
        rkinfo = Tenant(
            "rkinfo", window - RKINFO_BYTES, window, "kmalloc by the primary; place: model default"
        )
        more = (rkinfo,)
    else:
        boot, how = first, "BOOT_ADDR"
        window, more = first + WINDOW_OFFSET_BYTES, ()
        at = first + RAMDISK_OFFSET_BYTES
        ramdisk = (Tenant("ramdisk", at, at + ramdisk_bytes, "RAMDISK_ADDR = BOOT_ADDR + 512 MiB"),)
    says = "kmalloc in its own RAM, published by rkinfo; place: model default"
    return (
        Tenant("kernel image", boot, boot + IMAGE_BYTES, how),
        *more,
        Tenant("messaging window", window, window + WINDOW_BYTES, says),
        *ramdisk,
    )


def local_share(machine: Machine, cpus: Iterable[int], ranges: Sequence[MemoryRange]) -> Fraction:
    """How much of these ranges is in the nodes of these CPUs: 0 to 1."""
    near = {machine.node_of(cpu) for cpu in cpus}
    here = merged((m.start, m.end) for m in machine.node_memory if m.node in near)
    spans = merged(spans_of(ranges))
    if not machine.node_memory and len(machine.nodes) == 1:
        return Fraction(1)
    return Fraction(size_of(common(spans, here)), size_of(spans) or 1)


def remarks(plan: MemoryPlan) -> list[str]:
    """What is not wrong, but costs something."""
    said = [
        f"{hex_range(loss.start, loss.end)}, {in_words(loss.end - loss.start)}, is lost: "
        f"{LOSSES[loss.reason]}."
        for loss in plan.losses
    ]
    for kernel, group in enumerate(plan.groups):
        share = plan.local_share(kernel)
        if plan.kernels[kernel] and share < 1:  # of no memory, none is far
            nodes = sorted({plan.machine.node_of(cpu) for cpu in group})
            said.append(
                f"Kernel {kernel} has {float(1 - share):.0%} of its memory outside the RAM of its "
                f"own node {', '.join(map(str, nodes))}."
            )
        for start, end in false_ram(plan, kernel):
            said.append(
                f"Kernel {kernel}'s line is widened over {hex_range(start, end)}, of which the "
                "firmware says nothing: the kernel takes it for RAM."
            )
    return said


def false_ram(plan: MemoryPlan, kernel: int) -> list[Span]:
    """Addresses that a widened ``memmap=`` turns into RAM though the firmware lists nothing there.

    Where the firmware says "reserved", that wins over the line; where it says nothing, the line
    does. Below 1 MiB, where the display's memory is, every Linux knows better.
    """
    listed = merged([(0, MIB), *spans_of(plan.machine.memory_map)])
    return without(merged(spans_of(plan.regions[kernel])), listed)


# -- on the command line, and back -----------------------------------------------------------------


class MemoryWords(NamedTuple):
    """What a kernel's line says of memory, in bytes: (size, start) pairs, and the end."""

    give: tuple[tuple[int, int], ...]  # memmap=size@start
    hide: tuple[tuple[int, int], ...]  # memmap=size$start
    end: int  # mem=end

    def __str__(self) -> str:
        words = [f"memmap={mib(size)}@{mib(start)}" for size, start in self.give]
        words += [f"memmap={mib(size)}${mib(start)}" for size, start in self.hide]
        return " ".join([*words, f"mem={mib(self.end)}"])


def memory_words(plan: MemoryPlan, kernel: int, widened: bool = True) -> MemoryWords:
    """The numbers of a kernel's line: its regions given, what lies below and between hidden.

    ``widened``: a region over a hole is one word, as mpart writes it; otherwise each RAM range of
    it is a word of its own, in whole MiB, and no hole can be taken for RAM.
    """
    regions = spans_of(plan.regions[plan._checked(kernel)])
    if not regions:
        raise PopcornError(f"Kernel {kernel} has no memory; its line would say nothing.")
    given = regions
    if not widened:
        cut = [(up(start, MIB), down(end, MIB)) for start, end, _ in plan.kernels[kernel]]
        given = [span for span in cut if span[0] < span[1]] if len(cut) > 1 else regions
    give = tuple((end - start, start) for start, end in given)
    ends = [(min(plan.low.end, regions[0][0]), regions[0][0])]
    ends += [(one[1], other[0]) for one, other in pairwise(regions)]
    hide = tuple((end - start, start) for start, end in ends if start < end)
    return MemoryWords(give, hide, regions[-1][1])


def memmap_lines(plan: MemoryPlan, kernel: int, widened: bool = True) -> str:
    """The ``memmap=`` and ``mem=`` words of a kernel's command line."""
    return str(memory_words(plan, kernel, widened))


def mib(count: int) -> str:
    """Bytes as the command line writes them: 1920M, or 3537280K where MiB do not do."""
    for unit, letter in ((MIB, "M"), (1024, "K")):
        if count % unit == 0:
            return f"{count // unit}{letter}"
    return str(count)


def whose(plan: MemoryPlan, address: int) -> Answer:
    """Whose this address is, what is there, and what made it so."""
    if isinstance(address, bool) or not isinstance(address, int) or not 0 <= address < 1 << 52:
        raise PopcornError(
            f"{address!r} is no physical address; a whole number below 2**52 was expected."
        )
    node = plan.machine.node_at(address)
    owners = [
        kernel
        for kernel, mine in enumerate(plan.kernels)
        if any(start <= address < end for start, end, _ in mine)
    ]
    if not any(start <= address < end for start, end, _ in plan.machine.ram):
        return Answer(address, None, "nobody's: no RAM is there", None, _no_ram(plan, address))
    tenant = next((t for t in plan.reserve if t.start <= address < t.end), None)
    if len(owners) > 1 or (tenant and owners) or (address < plan.low.end and any(owners)):
        return Answer(
            address, None, _contested(plan, address, owners, tenant), node, _lines(plan, owners)
        )
    if tenant:
        how = "they find it by vty_offset" if tenant.name == "vty" else "it is theirs by agreement"
        because = f"No kernel's mem= reaches it; {how} ({tenant.source})."
        return Answer(
            address, None, f"the {tenant.name} area's, in the shared reserve", node, because
        )
    if address < plan.low.end:
        because = (
            f"The secondaries' memmap=...$ begins at {in_words(plan.low.end)}: they see it too."
        )
        what = _inside(LOW_TENANTS, address) or "low memory"
        return Answer(address, 0, f"kernel 0's: {what}", node, because)
    if not owners:
        loss = next(loss for loss in plan.losses if loss.start <= address < loss.end)
        return Answer(address, None, "nobody's RAM", node, f"It is lost: {LOSSES[loss.reason]}.")
    (kernel,) = owners
    there = _inside(plan.places(kernel), address)
    what = f"kernel {kernel}'s" + (f": its {there}" if there else ", RAM to allocate from")
    return Answer(address, kernel, what, node, _lines(plan, owners))


def _contested(plan: MemoryPlan, address: int, owners: list[int], tenant: Tenant | None) -> str:
    claims = [f"kernel {kernel}" for kernel in owners]
    claims += [f"the {tenant.name} area"] if tenant else []
    claims += ["the low part"] if address < plan.low.end else []
    return f"claimed by {', '.join(claims[:-1])} and {claims[-1]}, who will overwrite each other"


def _lines(plan: MemoryPlan, kernels: Iterable[int]) -> str:
    return " ".join(f"Kernel {k} boots with {memmap_lines(plan, k)}." for k in kernels)


def _no_ram(plan: MemoryPlan, address: int) -> str:
    says = _firmware_says(plan.machine, address)
    for kernel in range(len(plan.regions)):
        if any(start <= address < end for start, end in false_ram(plan, kernel)):
            says += f"; kernel {kernel}'s line is widened over it and makes it look like RAM"
    return f"{says[:1].upper()}{says[1:]}."


def _inside(tenants: Iterable[Tenant], address: int) -> str:
    return next((t.name for t in tenants if t.start <= address < t.end), "")


def table(plan: MemoryPlan) -> str:
    """Whose, where, how much, and how much of it is near."""
    rows = []
    for kernel, mine in enumerate(plan.kernels):
        where = ", ".join(hex_range(start, end) for start, end, _ in mine) or "nowhere"
        near = f"{float(plan.local_share(kernel)):.0%}" if mine else ""
        line = memmap_lines(plan, kernel) if mine else ""
        rows.append((f"kernel {kernel}", where, in_words(plan.bytes_of(kernel)), near, line))
    rows += [
        (tenant.name, hex_range(tenant.start, tenant.end), in_words(tenant.end - tenant.start),
         "", f"reserve: {tenant.source}")
        for tenant in plan.reserve
    ]  # fmt: skip
    rows += [
        ("lost", hex_range(loss.start, loss.end), in_words(loss.end - loss.start), "",
         LOSSES[loss.reason])
        for loss in plan.losses
    ]  # fmt: skip
    caption = f"{plan.machine.name}: RAM by the {plan.policy} policy"
    heads = ("whose", "addresses", "size", "in its own nodes", "command line, or why")
    return html_table(heads, rows, caption)

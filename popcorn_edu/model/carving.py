"""How RAM is cut: the steps of each policy, from a machine's RAM to a region for each kernel.

What a plan then is, and what one can ask it, is memory.py; its words are used here too. All
numbers are whole bytes.

How the "popcorn" policy goes [C mpart.c]
    1. Every RAM range is cut inwards to granules of 128 MiB. The lowest counts from address 0.
    2. The top of RAM is the reserve, for what all kernels share. What is left, in granules and
       divided by the number of kernels, rounded down, is the share of each.
    3. Kernel 0 takes its share from address 0 up, kernel 1 goes on from there, and so on. A share
       that does not fit before a hole goes on behind it: its region is *widened* by the hole.
mpart divides first and takes the reserve from what the division leaves over, which may be too
little; here the reserve comes first. On the 64-core box both give the same.

The other policies
    per node    each node's RAM to the kernels that have CPUs there, in proportion to those CPUs;
                regions begin at multiples of 512 MiB, sizes are multiples of 2 MiB [C mpart.c].
                A CPU whose node has no RAM counts for the nearest node that has some
    by weight   in proportion to weights, in granules of 128 MiB
    by hand     as given

Words
    slot      a RAM range after it was cut inwards to granules
    span      a pair (start, end); the end is the first address after it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.firmware import GIB, MIB, MemoryRange, hex_range, in_words
from popcorn_edu.model.machine import Machine

Span = tuple[int, int]
Regions = tuple[tuple[MemoryRange, ...], ...]

PAGE_BYTES = 4096
END = 1 << 64  # above any address
GRANULE_BYTES = 128 * MIB  # [C] BEN_ALIGN_CHUNK 0x8000000, mpart.c
NODE_ALIGN_BYTES = 512 * MIB  # [C] BEN_ALIGNMENT 0x20000000, the per-node policies of mpart.c
RESOLUTION_BYTES = 2 * MIB  # [C] RESOLUTION_MASK, mpart.c

RESERVE_BYTES = 0x70000000 + 64 * MIB  # [C] 1,856 MiB on the 64-core box, mpart.c
RESERVE_OF_BYTES = 128 * GIB  # its RAM; smaller machines reserve in proportion: model default
VTY_BYTES = 64 * 2 * MIB  # [C] 64 rows of 2 MiB, the virtual terminal's driver
TUNNEL_BYTES = 2 * MIB  # model default: 64 slots of 4 KiB and a little [C tunnel.c], rounded up


class Tenant(NamedTuple):
    """What lives in a stretch of memory, and how we know."""

    name: str
    start: int
    end: int
    source: str


class Job(NamedTuple):
    """What a policy works with."""

    machine: Machine
    groups: tuple[tuple[int, ...], ...]
    ram: list[Span]  # without the reserve
    low: int
    granule: int
    align: int
    weights: Sequence[int] | None
    ranges: Sequence | None


# -- the policies ----------------------------------------------------------------------------------


def _popcorn(job: Job) -> Regions:
    """The same for each kernel, in the order of their numbers, wherever their CPUs are."""
    slots = _slots(job.ram, job, from_zero=True)
    count = len(job.groups)
    times = _largest(lambda n: _fill(slots, [n * job.granule] * count, job), slots, job)
    if not times:
        raise _too_small(slots, job, "every kernel")
    return _regions(_fill(slots, [times * job.granule] * count, job), job)


def _by_weight(job: Job) -> Regions:
    """To each its part of the granules, rounded down."""
    weights = job.weights
    if weights is None:
        weights = [len(group) for group in job.groups]
    good = isinstance(weights, (list, tuple)) and len(weights) == len(job.groups)
    if not good or not all(type(weight) is int and weight > 0 for weight in weights):
        raise PopcornError(
            f"The weights are {weights!r:.80}; a list of {len(job.groups)} whole numbers above 0 "
            "was expected, one for each kernel."
        )
    slots = _slots(job.ram, job, from_zero=True)
    granules = size_of(slots) // job.granule
    sizes = [granules * weight // sum(weights) * job.granule for weight in weights]
    if 0 in sizes:
        raise _too_small(slots, job, f"kernel {sizes.index(0)}")
    filled = _fill(slots, sizes, job)
    if filled is None and job.align <= job.granule:
        raise _too_small(slots, job, "every kernel above the low part")
    if filled is None:
        raise PopcornError(
            f"Regions that begin at multiples of {in_words(job.align)} do not fit; an alignment "
            f"of at most the granule, {in_words(job.granule)}, was expected with weights."
        )
    return _regions(filled, job)


def _per_node(job: Job) -> Regions:
    """Each node's RAM to the kernels that have CPUs there, in proportion to those CPUs."""
    slots = _node_slots(job)
    if not slots:
        raise _too_small([], job, "every kernel")
    pieces: list[list[Span]] = [[] for _ in job.groups]
    for node, guests in _guests(job, slots).items():
        cpus = list(guests.values())
        times = _largest(
            lambda n, at=node, cpus=cpus: _fill(
                slots[at], [n * job.granule * c for c in cpus], job
            ),
            slots[node],
            job,
        )
        if not times:
            raise _too_small(slots[node], job, f"every kernel with CPUs on node {node}", len(cpus))
        filled = _fill(slots[node], [times * job.granule * c for c in cpus], job)
        for kernel, mine in zip(guests, filled, strict=True):
            pieces[kernel] += mine
    return _regions(pieces, job)


def _by_hand(job: Job) -> Regions:
    """As they are given; ``problems`` says what is wrong with them."""
    ranges = job.ranges
    if not isinstance(ranges, (list, tuple)) or len(ranges) != len(job.groups):
        given = "no ranges" if ranges is None else f"{ranges!r:.60}"
        if isinstance(ranges, (list, tuple)):
            given = f"ranges for {len(ranges)} kernels"
        raise PopcornError(
            f"{given} were given; with the policy 'by hand', ranges=[[(start, end), ...], ...] "
            f"was expected, with one list for each of the {len(job.groups)} kernels."
        )
    return tuple(_hand_ranges(kernel, mine) for kernel, mine in enumerate(ranges))


def _hand_ranges(kernel: int, given) -> tuple[MemoryRange, ...]:
    try:
        pairs = [(pair[0], pair[1]) for pair in given]
        good = all(type(n) is int for pair in pairs for n in pair)
    except (TypeError, IndexError, KeyError):
        pairs, good = [], False
    if not good or any(not 0 <= start < end for start, end in pairs):
        raise PopcornError(
            f"{given!r:.60} are no ranges for kernel {kernel}; a list of pairs (start, end) was "
            "expected, addresses in bytes, the end after the start."
        )
    return tuple(MemoryRange(*span) for span in sorted(pairs))


class Policy(NamedTuple):
    """How to divide; and, if nobody says otherwise, the granule, and to what multiples regions
    begin (at least the granule)."""

    divide: Callable
    granule: int
    align: int


POLICIES = {
    "popcorn": Policy(_popcorn, GRANULE_BYTES, PAGE_BYTES),
    "per node": Policy(_per_node, RESOLUTION_BYTES, NODE_ALIGN_BYTES),
    "by weight": Policy(_by_weight, GRANULE_BYTES, PAGE_BYTES),
    "by hand": Policy(_by_hand, PAGE_BYTES, PAGE_BYTES),
}


# -- the steps of carving --------------------------------------------------------------------------


def _slots(ram: Iterable[Span], job: Job, from_zero: bool) -> list[Span]:
    """The RAM ranges above the low part, cut inwards to granules. The one that low ends in counts
    from address 0 if the primary is to begin in it: the low part is the primary's."""
    slots = []
    for start, end in ram:
        if end <= job.low:
            continue
        if start <= job.low:
            start = 0 if from_zero else job.low
        start, end = up(start, job.granule), down(end, job.granule)
        if start < end and end > job.low:
            slots.append((start, end))
    return slots


def _fill(slots: list[Span], sizes: Iterable[int], job: Job) -> list[list[Span]] | None:
    """To each its size out of the slots, one after the other and over holes; None: too much.
    Only the first, the primary, may have some of the low part."""
    filled, at, free = [], 0, 0
    for size in sizes:
        mine: list[Span] = []
        while size:
            if at == len(slots):
                return None
            start = max(free, slots[at][0])
            if not mine:
                start = up(start, job.align)
            taken = min(size, slots[at][1] - start)
            if taken <= 0:
                at += 1
                continue
            mine.append((start, start + taken))
            free, size = start + taken, size - taken
        filled.append(mine)
        free = max(free, job.low)
    return filled


def _largest(fits: Callable[[int], object], slots: list[Span], job: Job) -> int:
    """The largest number of granules that fits."""
    good, bad = 0, size_of(slots) // job.granule + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if fits(middle) is None else (middle, bad)
    return good


def _regions(pieces: list[list[Span]], job: Job) -> Regions:
    """What lies one behind the other and is one kernel's is one region, over holes too."""
    regions: list[list[Span]] = [[] for _ in pieces]
    low = [(0, job.low, 0)] if job.low else []
    last = None
    for start, end, kernel in sorted(
        low + [(*span, kernel) for kernel, mine in enumerate(pieces) for span in mine]
    ):
        mine = regions[kernel]
        if kernel == last:
            mine[-1] = mine[-1][0], max(end, mine[-1][1])
        else:
            mine.append((start, end))
        last = kernel
    return tuple(tuple(MemoryRange(*span) for span in mine) for mine in regions)


def _node_slots(job: Job) -> dict[int, list[Span]]:
    """Of each node that has RAM, its slots."""
    machine = job.machine
    if not machine.node_memory and len(machine.nodes) > 1:
        raise PopcornError(
            f"Which RAM of {machine.name} is in which node is not known; a machine with an SRAT "
            "was expected for the policy 'per node'."
        )
    of_node: dict[int, list[Span]] = {}
    for piece in machine.node_memory:
        of_node.setdefault(piece.node, []).append((piece.start, piece.end))
    if not of_node:
        of_node[machine.nodes[0].id] = [(0, job.ram[-1][1])]
    primary = {_home(machine, cpu, of_node) for cpu in job.groups[0]}
    made = {
        node: _slots(common(job.ram, merged(spans)), job, from_zero=node in primary)
        for node, spans in of_node.items()
    }
    return {node: slots for node, slots in sorted(made.items()) if slots}


def _guests(job: Job, slots: dict[int, list[Span]]) -> dict[int, dict[int, int]]:
    """Of each node, which kernels have how many CPUs there, or nearest to there."""
    guests: dict[int, dict[int, int]] = {}
    for kernel, group in enumerate(job.groups):
        for cpu in group:
            here = guests.setdefault(_home(job.machine, cpu, slots), {})
            here[kernel] = here.get(kernel, 0) + 1
    return guests


def _home(machine: Machine, cpu: int, with_ram: Iterable[int]) -> int:
    """The CPU's node, or the nearest one that has RAM."""
    node = machine.node_of(cpu)
    if node in with_ram:
        return node
    return min(with_ram, key=lambda other: (machine.distances.get((node, other), 255), other))


def _too_small(slots: list[Span], job: Job, who: str, count: int = 0) -> PopcornError:
    granules = size_of(slots) // job.granule
    return PopcornError(
        f"{job.machine.name} has {granules:,} free granules of {in_words(job.granule)} for "
        f"{count or len(job.groups)} kernels, which begin at multiples of {in_words(job.align)}; "
        f"at least one for {who} was expected."
    )


def checked_multiple(name: str, value: int | None, default: int, least: int) -> int:
    if value is None:
        return default
    if type(value) is not int or value < least or value % PAGE_BYTES:
        raise PopcornError(
            f"{name} is {value!r}; a whole number of pages in bytes, from {least:,} up, was "
            "expected, such as 128 * 2**20."
        )
    return value


# -- the reserve -----------------------------------------------------------------------------------


def reserve_at_top(machine: Machine, wanted: int | None, low: int) -> tuple[Tenant, ...]:
    """The tenants of the top of RAM, one behind the other."""
    bottom, top = machine.ram[-1][:2]
    room = max(top - max(bottom, low), 0)
    if wanted is None:
        size, source = min(default_reserve(machine), down(room // 2, RESOLUTION_BYTES)), ""
    else:
        size, source = checked_multiple("reserve_bytes", wanted, 0, least=0), "reserve_bytes"
    if size > room:
        raise PopcornError(
            f"A reserve of {in_words(size)} does not fit into the highest RAM range, "
            f"{hex_range(bottom, top)}; at most {in_words(room)} was expected."
        )
    if not size:
        return ()
    start = down(top - size, RESOLUTION_BYTES)
    if start < bottom:
        start = bottom
    known = size == RESERVE_BYTES
    rest = "64 MiB for applications and the box's 0x70000000" if known else "model default"
    tenants, at = [], start
    for name, size_bytes, says in (
        ("vty", VTY_BYTES, "64 rows of 2 MiB, at vty_offset"),
        ("tunnel", TUNNEL_BYTES, "model default: where the 2012 tunnel's array would go"),
    ):
        if at + size_bytes <= top:
            tenants.append(Tenant(name, at, at + size_bytes, says))
            at += size_bytes
    if at < top:
        tenants.append(Tenant("applications", at, top, source or rest))
    return tuple(tenants)


def default_reserve(machine: Machine) -> int:
    """How much is reserved if nobody says: as on the 64-core box, and on smaller machines in
    proportion, in granules, and at least room for the vty matrix (model default)."""
    ram = size_of(spans_of(machine.ram))
    part = up(RESERVE_BYTES * ram // RESERVE_OF_BYTES, GRANULE_BYTES)
    return min(RESERVE_BYTES, max(part, VTY_BYTES + GRANULE_BYTES))


# -- spans: ascending, disjoint (start, end) pairs -------------------------------------------------


def up(address: int, multiple: int) -> int:
    return -(-address // multiple) * multiple


def down(address: int, multiple: int) -> int:
    return address // multiple * multiple


def spans_of(ranges: Iterable[MemoryRange]) -> list[Span]:
    return [(piece.start, piece.end) for piece in ranges]


def size_of(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Any spans, as ascending ones that do not touch."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def common(some: list[Span], others: list[Span]) -> list[Span]:
    """What is in both."""
    common, a, b = [], 0, 0
    while a < len(some) and b < len(others):
        start, end = max(some[a][0], others[b][0]), min(some[a][1], others[b][1])
        if start < end:
            common.append((start, end))
        if some[a][1] < others[b][1]:
            a += 1
        else:
            b += 1
    return common


def without(some: list[Span], others: list[Span]) -> list[Span]:
    """What is in ``some`` and not in ``others``."""
    ends = [0, *(address for span in others for address in span), END]
    gaps = [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if a < b]
    return common(some, gaps)

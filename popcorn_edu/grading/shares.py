"""Lab 03, tasks a1, a3 and a5: the numbers of a division, and what is half right about others.

The variant is a real machine and a number of kernels; what is right is what the model makes of
them, and of the same machine after its hole has moved.

Words
    straddler  the kernel whose region lies on both sides of the hole
    share      the RAM of each kernel's region as the tool counts it: whole granules
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from popcorn_edu.grading.answers import OPEN
from popcorn_edu.grading.divisions import MACHINES, Case, Span
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import memory
from popcorn_edu.model.carving import GRANULE_BYTES, common, merged, size_of
from popcorn_edu.model.firmware import MIB, MemoryRange
from popcorn_edu.model.machine import Machine

# -- the variant ----------------------------------------------------------------------------------


class Numbers(NamedTuple):
    """What differs between variants, all of it equally hard."""

    machine: str
    kernels: int
    moved_to_mib: int  # where the hole begins in a5
    writer: int  # in s7
    victim: int


@cache
def numbers(variant: Variant) -> Numbers:
    rng = variant.rng("numbers")
    machine = rng.choice(tuple(MACHINES))
    kernels = rng.choice(MACHINES[machine])
    plan = carved(machine, kernels)
    ends = down_to_mib(hole(plan)[0])
    places = list(range(1_024, ends - 128, 64))  # at a granule, or half-way between two
    rng.shuffle(places)
    before = straddler(plan), width(plan)
    moved = next(
        place
        for place in places
        if straddler(after := moved_plan(machine, kernels, place)) is not None
        and straddler(after) != before[0]
        and width(after) != before[1]
    )
    others = [kernel for kernel in range(2, kernels) if kernel != before[0]]
    writer, victim = rng.sample(others, 2)
    return Numbers(machine, kernels, moved, writer, victim)


@cache
def carved(machine: str, kernels: int, granule: int = GRANULE_BYTES) -> memory.MemoryPlan:
    """Popcorn's own policy, one kernel for each of the first CPUs."""
    made = Machine.load(machine)
    return memory.carve(made, [(cpu,) for cpu in made.cpus[:kernels]], granule_bytes=granule)


def my_plan(variant: Variant) -> memory.MemoryPlan:
    mine = numbers(variant)
    return carved(mine.machine, mine.kernels)


def down_to_mib(address: int) -> int:
    return address // MIB


def hole(plan: memory.MemoryPlan) -> Span:
    """The hole below 4 GiB."""
    ranges = [(start, end) for start, end, _ in plan.machine.ram if end > plan.low.end]
    return ranges[0][1], ranges[1][0]


def straddler(plan: memory.MemoryPlan) -> int | None:
    """The kernel whose region lies on both sides of the hole."""
    begins, ends = hole(plan)
    for kernel, mine in enumerate(plan.regions):
        if mine[0].start < begins and mine[0].end > ends:
            return kernel
    return None


def width(plan: memory.MemoryPlan) -> int:
    """How long the straddling region is, hole included; 0 if there is none."""
    kernel = straddler(plan)
    return 0 if kernel is None else plan.regions[kernel][0].end - plan.regions[kernel][0].start


def share(plan: memory.MemoryPlan) -> int:
    """The share of each kernel: as the tool counts it, in whole granules."""
    return Case(tuple(ram_of(plan)), len(plan.regions), plan.granule_bytes).share


def ram_of(plan: memory.MemoryPlan) -> list[Span]:
    """The RAM below the reserve, the lowest range counted from address 0, as the tool does."""
    below = common([(s, e) for s, e, _ in plan.machine.ram], [(0, plan.reserved.start)])
    above_low = [(start, end) for start, end in below if end > plan.low.end]
    return [(0, above_low[0][1]), *above_low[1:]]


@cache
def moved_plan(machine: str, kernels: int, begins_mib: int) -> memory.MemoryPlan:
    """The same machine after a firmware update that begins the hole there: the RAM that was in
    its place is at the top now."""
    plan = carved(machine, kernels)
    begins, ends = hole(plan)
    more = begins - begins_mib * MIB
    ram = [
        MemoryRange(start, begins_mib * MIB if end == begins else end, kind)
        for start, end, kind in plan.machine.memory_map
        if start < begins and kind == "usable"
    ]
    top = plan.machine.ram[-1].end + more
    made = replace(
        plan.machine, memory_map=(*ram, MemoryRange(ends, top)), node_memory=(),
        name=f"{machine}, its hole moved",
    )  # fmt: skip
    reserve = plan.reserved.end - plan.reserved.start
    return memory.carve(made, plan.groups, reserve_bytes=reserve)


def my_moved_plan(variant: Variant) -> memory.MemoryPlan:
    mine = numbers(variant)
    return moved_plan(mine.machine, mine.kernels, mine.moved_to_mib)


def bytes_in(ram: Iterable[Span], regions: Iterable[Span]) -> int:
    """How many bytes of RAM lie in these regions."""
    return size_of(common(merged(map(tuple, ram)), merged(map(tuple, regions))))


# -- a1, a5: the numbers of a division -------------------------------------------------------------


def counted(name: str, truth, ask: str, also=None):
    """A whole number that the plan settles. ``also(given, plan)``: what is half right, and why."""

    def holds(answer, variant):
        given, plan = answer[name], my_plan(variant)
        if given is None:
            return OPEN
        if given != truth(plan):
            return (also and also(given, plan)) or f"{given:,} is not it. {ask}"

    return holds


def granules_below(plan: memory.MemoryPlan) -> int:
    return size_of(Case(tuple(ram_of(plan)), 1, plan.granule_bytes).slots) // plan.granule_bytes


def reserve_begins(plan) -> int:
    return plan.reserved.start // MIB


def nearly_granules(given: int, plan) -> Miss | None:
    whole = size_of(ram_of(plan)) // plan.granule_bytes
    with_reserve = granules_below(replace(plan, reserve=()))
    if given == whole and whole != granules_below(plan):
        return Miss("That is all bytes together. Each range is cut on its own.", share=0.5)
    if given == with_reserve != granules_below(plan):
        return Miss("The reserve is not to be divided. Take it away first.", share=0.5)


def nearly_share(given: int, plan) -> Miss | None:
    even = size_of(ram_of(plan)) // len(plan.regions) // MIB
    if given == even != share(plan) // MIB or given == even // 2 * 2:
        return Miss("That is an even share. Popcorn's is in whole granules.", share=0.5)
    if given == share(plan) // plan.granule_bytes:
        return Miss("So many granules, yes. How many MiB are they?", share=0.5)


def nearly_width(given: int, plan) -> Miss | None:
    begins, ends = hole(plan)
    if given == share(plan) // MIB:
        return Miss(
            "So much RAM, yes. How far is it from the region's start to its end?", share=0.5
        )
    if given == (share(plan) + ends - begins) // MIB:
        return Miss(
            "Nearly. The tool cuts the RAM before the hole to whole granules, so the hole that it "
            "sees is longer than the firmware's.",
            share=0.5,
        )


A1 = {
    "reserve_start_mib": (
        reserve_begins, "The reserve ends where RAM ends. Subtract its size.", None,
    ),
    "granules": (
        granules_below,
        "Cut each range inwards to multiples of 128 MiB; the lowest counts from 0.",
        nearly_granules,
    ),
    "share_mib": (
        lambda plan: share(plan) // MIB, "Divide the granules, round down.", nearly_share,
    ),
    "straddler": (
        straddler, "Whose share begins before the hole and does not fit there?", None,
    ),
    "region_mib": (
        lambda plan: width(plan) // MIB, "From its first address to its last.", nearly_width,
    ),
}  # fmt: skip


def after(name: str, truth):
    """The same, after the hole has moved."""

    def holds(answer, variant):
        given, plan, before = answer[name], my_moved_plan(variant), my_plan(variant)
        if given is None:
            return OPEN
        if given == truth(plan):
            return None
        if type(given) is int and given == truth(before):
            return "That is what it was before. Draw the ranges as they are now, and divide again."
        return f"{given} is not it. {A1[name][1]}"

    return holds


# -- a3: what rounding costs -----------------------------------------------------------------------


def is_lost(name: str, plan_of):
    """The bytes that the plan loses, or what is half right about another number."""

    def holds(answer, variant):
        given, plan = answer[name], plan_of(variant)
        if given is None:
            return OPEN
        if given == plan.lost_bytes():
            return None
        if given == size_of(ram_of(plan)) - len(plan.regions) * share(plan):
            return Miss(
                f"That is all RAM less {len(plan.regions)} shares. But the region over the hole "
                "also has what was cut off there: it is inside.",
                share=0.5,
            )
        if given * MIB == plan.lost_bytes():
            return Miss("Right, in MiB. Bytes were asked for.", share=0.5)
        return f"{given:,} bytes are not it. Take bytes_in(ram, regions) from all bytes of ram."

    return holds


def with_granules(mib_each: int):
    def plan_of(variant: Variant) -> memory.MemoryPlan:
        mine = numbers(variant)
        return carved(mine.machine, mine.kernels, mib_each * MIB)

    return plan_of


def left_over_at_most(answer, variant):
    given, kernels = answer["granules_left_at_most"], numbers(variant).kernels
    if given is None:
        return OPEN
    most = max(granules % kernels for granules in range(3 * kernels))
    if given == most + 1:
        return "With so many left over, everybody could have one more."
    if given != most:
        return "Divide 1, 2, 3, ... granules among your kernels, and look at the remainders."

"""Lab 03, task f2: a student's own division of RAM, tried on many maps.

It is tried on the variant's own machine and on small maps made for one difficulty each: no hole,
one hole, several, a range too short for a granule, more kernels than granules. What is right is
what popcorn_edu.model.memory makes of the same map.

Words
    slot    a RAM range cut inwards to whole granules
    case    a map, a number of kernels and a granule: one division to make
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.guard import StudentCodeError, call
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import memory
from popcorn_edu.model.carving import common, down, size_of, up, without
from popcorn_edu.model.firmware import MIB, MemoryRange, in_words
from popcorn_edu.model.machine import Machine

Span = tuple[int, int]
# Numbers of kernels for which a secondary's region lies on both sides of the hole, and its ramdisk,
# 512 MiB above its start, does not lie in it.
MACHINES = {
    "h8qg6-64": (44, 45, 47, 49, 51, 52, 54, 57, 58, 60, 61),
    "h8dgu-24": (24,),
    "dl165g7-16": (7, 11, 13, 16),
}
LINE_BUDGET = 100_000  # of the student's own code, for one division: a thousand times enough
SHOWN = 8  # ranges of a map that a sentence shows in full


def hexed(spans: Sequence[Span]) -> str:
    """Spans as a student would type them."""
    shown = ", ".join(f"({start:#x}, {end:#x})" for start, end in spans[:SHOWN])
    return f"[{shown}{', ...' if len(spans) > SHOWN else ''}]"


def mib(count: int) -> str:
    """Bytes in MiB, which may have a fraction; what is no whole page in bytes."""
    return f"{count:,} bytes" if count % 4096 else f"{count / MIB:,.9g} MiB"


# -- f2: partition(ram, n, granule) ----------------------------------------------------------------


class Case(NamedTuple):
    ram: tuple[Span, ...]  # ascending, the lowest from address 0, the reserve taken away
    kernels: int
    granule: int

    @property
    def slots(self) -> list[Span]:
        cut = [(up(start, self.granule), down(end, self.granule)) for start, end in self.ram]
        return [span for span in cut if span[0] < span[1]]

    @property
    def share(self) -> int:
        return size_of(self.slots) // self.granule // self.kernels * self.granule

    @property
    def truth(self) -> list[Span] | None:
        """The regions, as the model carves them; None if there is too little."""
        machine = replace(
            Machine.synthetic(1, 1, self.kernels),
            memory_map=tuple(MemoryRange(*span) for span in self.ram),
        )
        cut = [(kernel,) for kernel in range(self.kernels)]
        try:
            plan = memory.carve(machine, cut, granule_bytes=self.granule, reserve_bytes=0)
        except PopcornError:
            return None
        return [mine[0][:2] for mine in plan.regions]

    def __str__(self) -> str:
        return f"partition({hexed(self.ram)}, {self.kernels}, {self.granule // MIB} * MIB)"


def spans_in_mib(*pairs) -> tuple[Span, ...]:
    return tuple((int(start * MIB), int(end * MIB)) for start, end in pairs)


def fixed_cases() -> list[Case]:
    """One difficulty after the other."""
    no_hole = spans_in_mib((0, 4096))
    one_hole = spans_in_mib((0, 3072), (4096, 9216))
    ragged = spans_in_mib((0, 3000.5), (4096, 9300))
    short = spans_in_mib((0, 1100), (1200, 1300), (1500, 6000))
    long_way = spans_in_mib((0, 1024), (2048, 3072), (4096, 5120))
    return [
        Case(no_hole, 4, 128 * MIB),
        Case(no_hole, 5, 128 * MIB),
        Case(one_hole, 4, 128 * MIB),
        Case(one_hole, 3, 512 * MIB),
        Case(ragged, 5, 128 * MIB),
        Case(short, 4, 128 * MIB),
        Case(long_way, 2, 128 * MIB),
        Case(no_hole, 9, 512 * MIB),
    ]


def fresh_case(rng) -> Case:
    """Any map of one to four ranges; the lowest is not too short for a granule."""
    at, ram = 0, []
    for _ in range(rng.randrange(1, 5)):
        size = rng.randrange(200 if at else 600, 5_000) * MIB + rng.randrange(256) * 4096
        ram.append((at, at + size))
        at += size + rng.randrange(16, 1_500) * MIB
    return Case(tuple(ram), rng.randrange(1, 12), rng.choice((2, 128, 256, 512)) * MIB)


class Cut(NamedTuple):
    case: Case
    said: list[Span] | None
    stopped: str = ""  # no answer: why


class Cuts:
    """A student's partition(), asked for many divisions."""

    FRESH = 24

    def __init__(self, function: Callable, variant: Variant, ram: Sequence[Span], kernels: int):
        self.function, self.variant = function, variant
        self.mine = Case(tuple(ram), kernels, 128 * MIB)
        self._done: dict[str, list[Cut]] = {}
        self.of("public")  # what is wrong with the function itself is told at once

    def of(self, name: str) -> list[Cut]:
        if name not in self._done:
            if name == "public":
                cases = [*fixed_cases(), self.mine]
            else:
                rng = self.variant.rng("fresh maps")
                cases = [fresh_case(rng) for _ in range(self.FRESH)]
            self._done[name] = [self._asked(case) for case in cases]
        return self._done[name]

    def _asked(self, case: Case) -> Cut:
        """What it answers. A function that answers nowhere is told so; one that stops at some
        difficulty later on has not mastered that one."""
        try:
            return Cut(case, self._regions(case))
        except StudentCodeError as problem:
            if case == fixed_cases()[0]:
                raise
            return Cut(case, None, f"{problem}.")

    def _regions(self, case: Case) -> list[Span] | None:
        said = call(self.function, list(case.ram), case.kernels, case.granule, lines=LINE_BUDGET)
        if said is None:
            return None
        regions = pairs(said)
        if regions is None:
            raise StudentCodeError(
                f"{case} returned {said!r:.60}; expected a list of {case.kernels} pairs "
                "(start, end), or None"
            )
        return regions


def pairs(said: object) -> list[Span] | None:
    """A list of pairs of whole numbers; None if it is anything else."""
    if type(said) is not list:
        return None
    for pair in said:
        if type(pair) is not list or len(pair) != 2 or any(type(n) is not int for n in pair):
            return None
    return [(start, end) for start, end in said]


def shares_are_alike(cut: Cut) -> str:
    """Each region has one share of whole granules in it."""
    case, regions = cut.case, cut.said
    for kernel, (start, end) in enumerate(regions):
        has = size_of(common(case.slots, [(start, end)]))
        if has != case.share:
            hole = end - start - has
            if end - start == case.share and hole:
                return (
                    f"kernel {kernel}'s region is one share long, but {mib(hole)} of it are hole "
                    "or cut off: it has less than the others."
                )
            if kernel == case.kernels - 1 and has > case.share:
                return (
                    f"kernel {kernel}, the last, has {mib(has)}; all the others {mib(case.share)}. "
                    "What is left over is nobody's."
                )
            return (
                f"kernel {kernel} has {mib(has)} in whole granules; {in_words(size_of(case.slots))}"
                f" in granules of {in_words(case.granule)}, for {case.kernels} kernels, rounded "
                f"down, are {mib(case.share)} each."
            )
    return ""


def one_behind_the_other(cut: Cut) -> str:
    """Regions begin at 0 and where the one before ended, at whole granules, in RAM."""
    case, regions = cut.case, cut.said
    expected, slots = 0, case.slots
    for kernel, (start, end) in enumerate(regions):
        if start >= end:
            return f"kernel {kernel}'s region begins at {start:#x} and ends at {end:#x}."
        expected = next((max(expected, s) for s, e in slots if e > expected), expected)
        if start < expected:
            other = f"kernel {kernel - 1}'s region" if kernel else "all RAM"
            return f"kernel {kernel} begins at {start:#x}, before the end of {other}."
        if start != expected:
            return (
                f"kernel {kernel} begins at {start:#x}; the next free granule is at {expected:#x}."
            )
        expected = end
    return ""


def exactly(cut: Cut) -> str:
    """The regions are those that the model carves."""
    case, regions = cut.case, cut.said
    truth = case.truth
    for kernel, (mine, its) in enumerate(zip(regions, truth, strict=True)):
        if mine != its:
            crosses = mine[0] == its[0] and without([its], case.slots)
            behind = " It has to go on behind the hole." if crosses else ""
            return (
                f"kernel {kernel}'s region is {mine[0]:#x} up to {mine[1]:#x}, expected "
                f"{its[0]:#x} up to {its[1]:#x}.{behind}"
            )
    return ""


def crosses_a_hole(case: Case) -> bool:
    return case.truth is not None and any(without([span], case.slots) for span in case.truth)


def holds_in(which: str, rule: Callable, wanted: Callable = lambda case: True):
    """A check: the rule holds in all such divisions; else the share of those in which it does."""

    def check(cuts: Cuts, variant: Variant):
        judged = [cut for cut in cuts.of(which) if cut.case.truth is not None and wanted(cut.case)]
        said = [(cut, _verdict(cut, rule)) for cut in judged]
        wrong = [(cut, verdict) for cut, verdict in said if verdict]
        if not wrong:
            return None
        cut, verdict = wrong[0]
        right = len(judged) - len(wrong)
        share = right / len(judged) if 2 * right >= len(judged) else 0.0
        return Miss(f"{right} of {len(judged)} are right. {cut.case}: {verdict}", share=share / 2)

    return check


def _verdict(cut: Cut, rule: Callable) -> str:
    if cut.stopped:
        return cut.stopped
    if cut.said is None:
        return f"None; there are {mib(cut.case.share)} for each kernel."
    if len(cut.said) != cut.case.kernels:
        return f"{len(cut.said)} regions for {cut.case.kernels} kernels."
    return rule(cut)


def too_little(cuts: Cuts, variant: Variant):
    """None, if not every kernel can have a granule."""
    for cut in cuts.of("public"):
        if cut.case.truth is None and cut.stopped:
            return f"{cut.case}: {cut.stopped}"
        if cut.case.truth is None and cut.said is not None:
            return (
                f"{cut.case}: {size_of(cut.case.slots) // cut.case.granule} granules for "
                f"{cut.case.kernels} kernels; None was expected."
            )
        if cut.case.truth is not None and cut.said is None and not cut.stopped:
            return f"{cut.case}: None, though there is a share for each."

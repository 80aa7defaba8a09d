"""Lab 03, task f6: a student's placement of kernels' memory near their CPUs.

It is asked for real machines, one with a node on both sides of the hole and one with nodes that
have no RAM, and at grading for machines made up. It must be sound, fair, and local: the fraction
of memory that is in the nearest node with RAM is the fraction of the points.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from popcorn_edu.grading.divisions import Span, mib, pairs
from popcorn_edu.grading.guard import StudentCodeError, call
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import memory
from popcorn_edu.model.carving import common, merged, size_of, without
from popcorn_edu.model.firmware import MIB, in_words
from popcorn_edu.model.machine import Machine


class Houses(NamedTuple):
    """Where RAM is, and which node each kernel's CPUs are on."""

    name: str
    nodes: dict[int, list[Span]]  # only those with RAM
    homes: list[int]
    nearest: dict[int, list[int]]

    def near(self, kernel: int) -> int:
        """The nearest node of a kernel that has RAM."""
        return next(node for node in self.nearest[self.homes[kernel]] if node in self.nodes)

    def least(self, kernel: int) -> int:
        """Half of what an equal division of that node's RAM would give the kernel."""
        node = self.near(kernel)
        guests = sum(self.near(other) == node for other in range(len(self.homes)))
        return size_of(self.nodes[node]) // guests // 2


def real_houses(name: str, per_node: int, step: int = 1) -> Houses:
    """A real machine, with so many kernels on each node's CPUs. ``step=-1``: kernel 0's CPUs are
    on the last node."""
    machine = Machine.load(name)
    plan = memory.carve(machine, [(cpu,) for cpu in machine.cpus[:1]])
    ram = common([(s, e) for s, e, _ in machine.ram], [(plan.low.end, plan.reserved.start)])
    nodes: dict[int, list[Span]] = {}
    for piece in machine.node_memory:
        nodes.setdefault(piece.node, []).extend(common(ram, [(piece.start, piece.end)]))
    ids = [node.id for node in machine.nodes]
    return Houses(
        name,
        {node: merged(spans) for node, spans in sorted(nodes.items()) if spans},
        [node for node in ids[::step] for _ in range(per_node)],
        {
            here: sorted(ids, key=lambda there: (machine.distances.get((here, there), 20), there))
            for here in ids
        },
    )


def fresh_houses(rng) -> Houses:
    """Nodes of different sizes, a hole in one of them, and one without RAM."""
    count, at, nodes = rng.randrange(3, 6), 16 * MIB, {}
    holed, empty = rng.sample(range(count), 2)
    for node in range(count):
        if node == empty:
            continue
        parts = 2 if node == holed else 1
        nodes[node] = []
        for _ in range(parts):
            size = rng.randrange(1_000, 9_000) * MIB
            nodes[node].append((at, at + size))
            at += size + (rng.randrange(100, 900) * MIB if parts == 2 else 0)
    homes = [rng.randrange(count) for _ in range(rng.randrange(count, 3 * count))]
    nearest = {}
    for here in range(count):
        others = [node for node in range(count) if node != here]
        rng.shuffle(others)
        nearest[here] = [here, *others]
    return Houses("a machine made up for this", nodes, homes, nearest)


class Placed(NamedTuple):
    houses: Houses
    ranges: list[list[Span]]


class Placements:
    """A student's place(), asked for several machines."""

    FRESH = 6

    def __init__(self, function: Callable, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[str, list[Placed]] = {}
        self.of("public")

    def of(self, name: str) -> list[Placed]:
        if name not in self._done:
            if name == "public":
                all_houses = [
                    real_houses("h8qg6-64", 1, step=-1),
                    real_houses("dl165g7-16", 3),
                    real_houses("h8dgu-24", 2),
                ]
            else:
                rng = self.variant.rng("fresh nodes")
                all_houses = [fresh_houses(rng) for _ in range(self.FRESH)]
            self._done[name] = [Placed(h, self._asked(h)) for h in all_houses]
        return self._done[name]

    def _asked(self, houses: Houses) -> list[list[Span]]:
        said = call(self.function, houses.nodes, houses.homes, houses.nearest)
        ranges = [pairs(mine) for mine in said] if type(said) is list else [None]
        if None in ranges or len(ranges) != len(houses.homes):
            raise StudentCodeError(
                f"{self.function.__name__} returned {said!r:.60} for {houses.name}; expected a "
                f"list of {len(houses.homes)} lists, one for each kernel, of pairs (start, end)"
            )
        return ranges


def first_placed(which: str, wrong: Callable):
    """A check: what is wrong with the first placement that has something wrong, and the share of
    those that have not."""

    def check(placements: Placements, variant: Variant):
        said = [(placed, wrong(placed)) for placed in placements.of(which)]
        bad = [(placed.houses.name, sentence) for placed, sentence in said if sentence]
        if bad:
            name, sentence = bad[0]
            return Miss(f"{name}: {sentence}", share=1 - len(bad) / len(said))

    return check


def is_sound(placed: Placed) -> str:
    """Ranges are in RAM, and no two share a byte."""
    if not any(placed.ranges):
        return "no kernel has any memory."
    ram = merged(span for spans in placed.houses.nodes.values() for span in spans)
    seen: list[tuple[int, int, int]] = []
    for kernel, mine in enumerate(placed.ranges):
        for start, end in mine:
            if start >= end:
                return f"kernel {kernel} has a range from {start:#x} up to {end:#x}."
            if size_of(common(ram, [(start, end)])) < end - start:
                return f"kernel {kernel} has {start:#x} up to {end:#x}, not all of it free RAM."
            seen.append((start, end, kernel))
    seen.sort()
    for one, other in zip(seen, seen[1:], strict=False):
        if other[0] < one[1]:
            return f"kernels {one[2]} and {other[2]} both have {other[0]:#x}."
    return ""


def is_fair(placed: Placed) -> str:
    """Everybody has at least half of what an equal division of its nearest node would give."""
    ram = merged(span for spans in placed.houses.nodes.values() for span in spans)
    for kernel, mine in enumerate(placed.ranges):
        has, least = size_of(common(merged(mine), ram)), placed.houses.least(kernel)
        if has < least:
            return (
                f"kernel {kernel} has {mib(has) if has >= MIB else in_words(has)}; "
                "half an equal part of node "
                f"{placed.houses.near(kernel)}'s RAM is {mib(least)}."
            )
    return ""


def local_fraction(placed: Placed) -> Fraction:
    """How much of what was given is in the nearest node with RAM of the kernel that has it."""
    near = given = 0
    for kernel, mine in enumerate(placed.ranges):
        here = merged(placed.houses.nodes[placed.houses.near(kernel)])
        near += size_of(common(merged(mine), here))
        given += size_of(merged(mine))
    return Fraction(near, given or 1)


def is_near(placements: Placements, variant: Variant):
    """The fraction of local memory, over the public machines, is the share of the points."""
    fractions = [
        (Fraction(0) if is_sound(placed) else local_fraction(placed), placed)
        for placed in placements.of("public")
    ]
    mean = sum(fraction for fraction, _ in fractions) / len(fractions)
    if mean == 1:
        return None
    least, placed = min(fractions, key=lambda pair: pair[0])
    houses = placed.houses
    if wrong := is_sound(placed):
        return Miss(f"{houses.name}: counted as not local, for {wrong}", share=float(mean))
    kernel, far = next(
        (kernel, far[0])
        for kernel, mine in enumerate(placed.ranges)
        if (far := without(merged(mine), merged(houses.nodes[houses.near(kernel)])))
    )
    return Miss(
        f"{float(mean):.0%} of all memory is local. On {houses.name} it is {float(least):.0%}: "
        f"kernel {kernel}, whose CPUs are on node {houses.homes[kernel]}, has {far[0]:#x} up to "
        f"{far[1]:#x}, which is not in node {houses.near(kernel)}, the nearest with RAM.",
        share=float(mean),
    )


def all_of_it(placed: Placed) -> str:
    """Sound, fair and local."""
    if local_fraction(placed) < 1:
        return is_sound(placed) or is_fair(placed) or "not all memory is in the nearest node."
    return is_sound(placed) or is_fair(placed)

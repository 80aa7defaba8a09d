"""The balanced minimum cut of a machine: kernels of one size, and the close cores together.

Of all pairs of CPUs, those that end up in different kernels shall have as little closeness as
possible, in total. For kernels of one size that is the same as the least mean transfer inside a
kernel. The problem is hard (NP-hard), so this is a heuristic: it starts from several divisions,
exchanges units between two kernels as long as that helps, and takes the best. So it is never
worse than what it started from, and it need not be the best there is.

Words
    spot       CPUs between which a cache line takes equally long: a die or, where somebody
               measured, the CPU itself. A machine of 384 CPUs is a table of 24 rows
    closeness  of two CPUs: by how many ns a cache line is faster between them than between the
               machine's farthest
    unit       what goes to a kernel as a whole, such as a core with its threads
    class      units that are alike: same spot, as many threads. A division is then a table: how
               many units of each class each kernel has

Everything is deterministic: ties go to what comes first in the order of the hardware.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, islice, pairwise
from random import Random

from popcorn_edu.model.machine import Machine

KL_PASSES_AT_MOST = 4  # ours: networkx' bisection hardly ever needs more
SHUFFLES, SHUFFLES_AT_MOST = 1_000, 60  # ours: divided by the square of the number of kernels
LOT = 1  # ours

Unit = tuple[int, ...]
Groups = tuple[tuple[int, ...], ...]


class Spots:
    """Where the CPUs are, and how far apart, as a small table."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        first: dict[object, list[int]] = {}
        for cpu in machine.cpus:
            at = machine.place(cpu)
            key = cpu if machine.latencies_ns else (at.package, at.die, at.node)
            first.setdefault(key, []).append(cpu)
        self.of = {cpu: at for at, cpus in enumerate(first.values()) for cpu in cpus}
        samples = [cpus[:2] for cpus in first.values()]
        ns = machine.transfer_ns
        self.ns = [[ns(a[0], b[-1] if a is b else b[0]) for b in samples] for a in samples]
        self.farthest = max(map(max, self.ns))


def in_runs(items: list, number: int) -> list[list]:
    """The items cut into so many runs, whose lengths differ by one at most."""
    size, more = divmod(len(items), number)
    ends = [n * size + min(n, more) for n in range(number + 1)]
    return [items[a:b] for a, b in pairwise(ends)]


def balanced_cut(
    machine: Machine, units: list[Unit], kernels: int, starts: Iterable[Groups] = ()
) -> list[list[int]]:
    """The CPUs of each kernel. ``starts`` are divisions to improve on; those that are not
    balanced or tear a unit apart are left out."""
    if kernels == len(units):
        return [list(unit) for unit in units]
    cut = _Cut(machine, units, kernels)
    at = {cpu: n for n, unit in enumerate(units) for cpu in unit}
    divisions = [in_runs(list(range(len(units))), kernels), cut.grown()]
    divisions += [[sorted({at[cpu] for cpu in part}) for part in start] for start in starts]
    divisions.append(cut.bisected(list(range(len(units))), kernels))
    divisions += cut.shuffled()
    different: dict[tuple, list[list[int]]] = {}
    for parts in filter(cut.is_balanced, divisions):
        table = cut.table(parts)
        different.setdefault(tuple(sorted(map(tuple, table))), table)
    return cut.dealt(max(map(cut.refined, different.values()), key=cut.kept))


class _Cut:
    def __init__(self, machine: Machine, units: list[Unit], kernels: int) -> None:
        self.units, self.kernels = units, kernels
        self.spots = Spots(machine)
        alike: dict[object, list[int]] = {}
        for n, unit in enumerate(units):
            alike.setdefault((self.spots.of[unit[0]], len(unit)), []).append(n)
        self.classes = list(alike.values())
        self.class_of = {n: kind for kind, members in enumerate(self.classes) for n in members}
        self.near = [[self._closeness(a, b) for b in self.classes] for a in self.classes]

    def _closeness(self, a: list[int], b: list[int]) -> int:
        """Of two units, one of each class. It does not matter for a class of a single unit."""
        one, other = self.units[a[0]], self.units[b[-1]]
        ns, of = self.spots.ns, self.spots.of
        return sum(self.spots.farthest - ns[of[x]][of[y]] for x in one for y in other if x != y)

    def is_balanced(self, parts: list[list[int]]) -> bool:
        sizes = [len(part) for part in parts]
        each_once = sorted(n for part in parts for n in part) == list(range(len(self.units)))
        return each_once and len(parts) == self.kernels and max(sizes) - min(sizes) <= 1

    # where to start

    def grown(self) -> list[list[int]]:
        """Kernel after kernel: start with the first unit that is left, add the closest."""
        left, parts = list(range(len(self.units))), []
        for size in map(len, in_runs(left, self.kernels)):
            closeness = [0] * len(self.classes)
            part: list[int] = []
            while len(part) < size:
                unit = max(left, key=lambda n: closeness[self.class_of[n]]) if part else left[0]
                left.remove(unit)
                part.append(unit)
                row = self.near[self.class_of[unit]]
                closeness = [a + b for a, b in zip(closeness, row, strict=True)]
            parts.append(part)
        return parts

    def bisected(self, units: list[int], kernels: int) -> list[list[int]]:
        """Halved again and again; each halving by the method of Kernighan and Lin."""
        if kernels == 1:
            return [units]
        from networkx import Graph
        from networkx.algorithms.community import kernighan_lin_bisection

        few = kernels // 2
        size = sum(map(len, in_runs(units, kernels)[:few]))
        graph = Graph()
        graph.add_nodes_from(units)
        for a, b in combinations(units, 2):
            if weight := self.near[self.class_of[a]][self.class_of[b]]:
                graph.add_edge(a, b, weight=weight)
        halves = set(units[:size]), set(units[size:])
        if graph.size():
            halves = kernighan_lin_bisection(graph, halves, max_iter=KL_PASSES_AT_MOST)
        low, high = sorted(halves, key=lambda half: (len(half) != size, min(half)))
        return self.bisected(sorted(low), few) + self.bisected(sorted(high), kernels - few)

    def shuffled(self) -> list[list[list[int]]]:
        """Whole classes one after the other, in some orders by lot; the lot is always the same."""
        rng, divisions = Random(LOT), []
        for _ in range(min(SHUFFLES_AT_MOST, SHUFFLES // self.kernels**2)):
            order = list(self.classes)
            rng.shuffle(order)
            divisions.append(in_runs([n for members in order for n in members], self.kernels))
        return divisions

    # how to improve

    def table(self, parts: list[list[int]]) -> list[list[int]]:
        table = [[0] * len(self.classes) for _ in parts]
        for row, part in zip(table, parts, strict=True):
            for unit in part:
                row[self.class_of[unit]] += 1
        return table

    def refined(self, table: list[list[int]]) -> list[list[int]]:
        """Exchange units between two kernels, one for one or as many as both have, and move one
        to a smaller kernel, as long as more closeness is kept inside."""
        pull = [self._pull(row) for row in table]
        better = True
        while better:
            better = False
            sizes = list(map(sum, table))
            for k, other in combinations(range(len(table)), 2):
                if sizes[k] + sizes[other] > 2:  # two single units can only change places
                    while self._improve(table, pull, k, other):
                        better = True
        return table

    def _improve(self, table, pull, k: int, other: int) -> bool:
        """The first exchange between the two that helps, done; False if there is none."""
        for a in _held(table[k]):
            for b in _held(table[other]):
                gain = pull[k][b] - pull[k][a] - pull[other][b] + pull[other][a]
                bend = self.near[a][a] + self.near[b][b] - 2 * self.near[a][b]
                for n in (1, min(table[k][a], table[other][b])):
                    if a != b and n * gain + n * n * bend > 0:
                        self._move(table, pull, k, other, a, n)
                        self._move(table, pull, other, k, b, n)
                        return True
        small, large = sorted((k, other), key=lambda kernel: sum(table[kernel]))
        if sum(table[small]) < sum(table[large]):
            for a in _held(table[large]):
                if pull[small][a] - pull[large][a] + self.near[a][a] > 0:
                    self._move(table, pull, large, small, a, 1)
                    return True
        return False

    def _move(self, table, pull, source: int, target: int, kind: int, n: int) -> None:
        for kernel, change in ((source, -n), (target, n)):
            table[kernel][kind] += change
            for c, near in enumerate(self.near[kind]):
                pull[kernel][c] += change * near

    def _pull(self, row: list[int]) -> list[int]:
        """How close a unit of each class is to all units of a kernel together."""
        held = _held(row)
        return [sum(row[c] * near[c] for c in held) for near in self.near]

    def kept(self, table: list[list[int]]) -> int:
        """The closeness inside kernels: each pair twice, and each unit with its like, which is
        the same in all tables."""
        return sum(
            row[c] * pull[c] for row in table for pull in [self._pull(row)] for c in _held(row)
        )

    def dealt(self, table: list[list[int]]) -> list[list[int]]:
        """The table as CPUs; units that are alike go out in the order of the hardware."""
        stocks = [iter(members) for members in self.classes]
        return [
            [cpu for stock, n in zip(stocks, row, strict=True) for unit in islice(stock, n)
             for cpu in self.units[unit]]
            for row in table
        ]  # fmt: skip


def _held(row: list[int]) -> list[int]:
    """The classes that a kernel has units of."""
    return [kind for kind, n in enumerate(row) if n]

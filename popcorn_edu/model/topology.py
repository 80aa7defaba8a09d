"""What a computer consists of: packages, NUMA nodes, cores, caches, CPUs, devices.

Plain tables, as a topology file or a student states them. How such a file is read is hwloc.py;
what the tables mean for kernels that talk to each other is machine.py.

Words
    CPU       what the operating system numbers: a core, or one thread of a core
    number    given by the operating system, to CPUs and NUMA nodes alike. It may have gaps, so it
              names a thing and never indexes a list
    offline   a CPU that the machine has and the operating system does not use
    allowed   the CPUs that the process which took the snapshot might use (a cgroup)
    die       one piece of silicon: what the file calls a Die; else, in a package that has several
              NUMA nodes, the node; else, if it has several last-level caches (L3), what shares one
    distance  from the firmware's table (SLIT): how far a NUMA node is from another; 10 is "here"
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError

CPUS_AT_MOST = 1 << 16  # a number above this is a damaged file, not a computer
MHZ_AT_MOST = 100_000
CACHE_KINDS = {"0": "unified", "1": "data", "2": "instruction"}  # hwloc's numbers


@dataclass(frozen=True)
class Package:
    """What one buys and plugs into a socket."""

    id: int
    cpus: tuple[int, ...]
    model: str = ""


@dataclass(frozen=True)
class Node:
    """A NUMA node: memory, and the CPUs it is near to. Either may be missing."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int  # 0 when the file does not say


@dataclass(frozen=True)
class Core:
    """What executes; with several threads it shows as several CPUs."""

    id: int  # unique within its package only
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Cache:
    """Fast memory, and the CPUs that share it."""

    level: int
    kind: str  # a value of CACHE_KINDS
    size_bytes: int
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class PciDevice:
    """A device on the PCI bus. Bridges are left out."""

    busid: str  # "0000:04:00.0"
    device_class: str  # "0200", an Ethernet controller
    vendor_device: str  # "8086:10c9"
    name: str
    cpus: tuple[int, ...]  # the CPUs it is near to


@dataclass(frozen=True)
class CpuKind:
    """CPUs of one sort, on a machine that mixes sorts."""

    cpus: tuple[int, ...]
    efficiency: int | None  # higher is faster
    info: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Topology:
    """The tables of one machine, in the order of its file where nothing else is said."""

    schema: str
    cpus: tuple[int, ...]  # online, ascending
    offline_cpus: tuple[int, ...]
    allowed_cpus: tuple[int, ...]
    packages: tuple[Package, ...]
    dies: tuple[tuple[int, ...], ...]  # empty where the file names none
    nodes: tuple[Node, ...]  # ascending
    cores: tuple[Core, ...]
    caches: tuple[Cache, ...]
    pci: tuple[PciDevice, ...]
    cpu_kinds: tuple[CpuKind, ...]
    distances: dict[tuple[int, int], int] = field(hash=False)  # by node ids; empty if unknown
    info: dict[str, str] = field(hash=False)


class Place(NamedTuple):
    """Where a CPU is. Sorting by it is the order of the hardware."""

    package: int  # place in the file; so are die and core
    die: int
    core: int
    cpu: int
    node: int  # id


def places(topology: Topology) -> dict[int, Place]:
    """Where each CPU is."""
    core_of = {cpu: at for at, core in enumerate(topology.cores) for cpu in core.cpus}
    node_of: dict[int, int] = {}
    for node in sorted(topology.nodes, key=lambda node: -len(node.cpus)):
        node_of |= dict.fromkeys(node.cpus, node.id)  # the narrowest node wins
    return {
        cpu: Place(package_at, die_at, core_of[cpu], cpu, node_of[cpu])
        for package_at, package in enumerate(topology.packages)
        for die_at, die in enumerate(_dies(topology, package))
        for cpu in die
    }


def _dies(topology: Topology, package: Package) -> list[set[int]]:
    levels = [cache.level for cache in topology.caches]
    last = max(levels, default=0)
    shared = [cache.cpus for cache in topology.caches if cache.level == last >= 3]
    for groups in (topology.dies, [node.cpus for node in topology.nodes], shared):
        inside = [part for part in (set(package.cpus).intersection(g) for g in groups) if part]
        if len(inside) > 1 and sum(map(len, inside)) == len(set().union(*inside)):
            if set().union(*inside) == set(package.cpus):
                return inside
    return [set(package.cpus)]


def cpu_list(cpus) -> str:
    """CPU numbers as Linux writes them.

    >>> cpu_list((0, 1, 2, 8))
    '0-2,8'
    """
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in ranges)


def clock(topology: Topology) -> tuple[int, str] | None:
    """The processors' speed in MHz and where the file says so, if it does."""
    model = topology.packages[0].model or topology.info.get("CPUModel", "")
    found = re.search(r"([0-9]{1,6})(?:\.([0-9]{1,3}))? ?([GM])Hz", model)
    if found:
        whole, part, unit = found.groups("")
        mhz = int(whole) * 1000 + int(part.ljust(3, "0")) if unit == "G" else int(whole)
        if 0 < mhz <= MHZ_AT_MOST:
            return mhz, f"from its name, {model}"
    for kind in sorted(topology.cpu_kinds, key=lambda kind: kind.cpus):
        for name in ("FrequencyBaseMHz", "FrequencyMaxMHz"):
            value = kind.info.get(name, "")
            if re.fullmatch(r"[0-9]{1,6}", value) and 0 < int(value) <= MHZ_AT_MOST:
                return int(value), f"{name} in its topology file"
    return None


def regular(
    packages: int, nodes: int, cores: int, threads: int = 1, threads_adjacent: bool = False
) -> Topology:
    """A machine whose parts are all alike: nodes a package, cores a node, threads a core.

    CPU numbers go through all cores before they come back for the second threads, as Linux
    counts, unless ``threads_adjacent``.
    """
    shape = (packages, nodes, cores, threads)
    for count in shape:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise PopcornError(
                f"{count!r} is no count of packages, nodes, cores or threads; a whole number from "
                "1 up was expected."
            )
    all_cores = packages * nodes * cores
    if all_cores * threads > CPUS_AT_MOST:
        raise PopcornError(
            f"That machine would have {all_cores * threads} CPUs; at most {CPUS_AT_MOST} were "
            "expected."
        )

    def cpus(part: int, parts: int) -> tuple[int, ...]:
        size = all_cores // parts
        core_range = range(part * size, (part + 1) * size)
        if threads_adjacent:
            return tuple(
                core * threads + thread for core in core_range for thread in range(threads)
            )
        return tuple(core + thread * all_cores for thread in range(threads) for core in core_range)

    everything = tuple(range(all_cores * threads))
    all_nodes = packages * nodes
    return Topology(
        schema="none",
        cpus=everything,
        offline_cpus=(),
        allowed_cpus=everything,
        packages=tuple(Package(n, cpus(n, packages)) for n in range(packages)),
        dies=(),
        nodes=tuple(Node(n, cpus(n, all_nodes), 0) for n in range(all_nodes)),
        cores=tuple(Core(n, cpus(n, all_cores)) for n in range(all_cores)),
        caches=(),
        pci=(),
        cpu_kinds=(),
        distances={},
        info={},
    )

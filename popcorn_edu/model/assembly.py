"""One machine out of several files: who says what, and whether they speak of the same machine.

A topology file knows cores and caches and no addresses; a boot log knows addresses and no
distances; ACPI tables know distances and no cores. Together they make a machine. Where two files
tell the same fact they must agree, and where none tells it, a guess is made and called "model
default".

Words
    order of CPUs   Linux numbers CPUs in the order of the MADT's enabled entries; the first is the
                    CPU that boots. Numbers of CPUs that were not brought up stay free
    layout          a memory map made from the nodes' sizes, for machines whose map nobody kept
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.firmware import (
    GIB,
    KIB,
    MIB,
    AcpiTables,
    BootLog,
    IoApic,
    MemoryAffinity,
    MemoryRange,
    NodeMemory,
    hex_range,
    merged,
)
from popcorn_edu.model.pci import Interrupts, PciFunction, read_lspci, read_pci_csv
from popcorn_edu.model.topology import Core, Node, Package, Topology, cpu_list

# The layout of a machine whose memory map nobody kept: model defaults.
LOW_RAM_END = 640 * KIB  # below the video memory and the BIOS of every PC
BIOS_END = MIB
HOLE_START, HOLE_END = 3 * GIB, 4 * GIB  # devices' addresses; real machines: 2.9 to 3.5 GiB
NODE_GRANULE_BYTES = 128 * MIB  # nodes begin at a multiple; so they do on the boards we have
IO_APIC_PINS = 24  # of the usual chip (82093AA and its heirs); the MADT gives no count
FILE_BYTES_AT_MOST = 64 << 20


@dataclass
class Facts:
    """What the files say, ready to become a Machine."""

    topology: Topology
    apic_ids: dict[int, int] = field(default_factory=dict)
    node_memory: tuple[NodeMemory, ...] = ()
    io_apics: tuple[IoApic, ...] = ()
    memory_map: tuple[MemoryRange, ...] = ()
    functions: tuple[PciFunction, ...] = ()
    interrupts: Interrupts | None = None
    mhz: int = 0
    sources: dict[str, str] = field(default_factory=dict)  # fact -> where it is from


# -- files -----------------------------------------------------------------------------------------


def text_and_name(source: str | Path, what: str) -> tuple[str, str]:
    """The text of a source, which is itself text (it has a line end) or a path."""
    if isinstance(source, str) and "\n" in source:
        return source, what
    if not isinstance(source, (str, Path)):
        raise PopcornError(
            f"{what} is read from its text or from a path, not from {type(source).__name__}."
        )
    path = Path(source)
    try:
        if path.stat().st_size > FILE_BYTES_AT_MOST:
            raise PopcornError(
                f"{path.name} has more than {FILE_BYTES_AT_MOST >> 20} MiB; {what} was expected."
            )
        return path.read_bytes().decode("utf-8", "replace"), path.name
    except FileNotFoundError:
        reason = "there is no such file"
    except ValueError:
        reason = "this is no path"
    except OSError as error:
        reason = "this is a folder" if path.is_dir() else str(error.strerror)
    raise PopcornError(f"{str(source)[:200]!r}: {reason}, where {what} was expected.")


def text_or_none(source: str | Path | None, what: str) -> tuple[str | None, str]:
    return (None, what) if source is None else text_and_name(source, what)


def read_functions(source: str | Path) -> tuple[tuple[PciFunction, ...], str]:
    """PCI functions from lspci's text or from a CSV of facts, and the file's name."""
    text, file = text_and_name(source, "the PCI listing")
    head = text.lstrip("\ufeff\n").split("\n", 1)[0]
    read = read_pci_csv if "," in head and "bdf" in head.split(",") else read_lspci
    return read(text, file), file


# -- from firmware alone ---------------------------------------------------------------------------


def from_firmware(
    log: BootLog | None, tables: AcpiTables | None, log_file: str, table_file: str
) -> Facts:
    """CPUs, nodes, packages and distances of a machine without a topology file."""
    if tables and tables.local_apics:
        apic_ids = {
            cpu: entry.apic_id
            for cpu, entry in enumerate(entry for entry in tables.local_apics if entry.enabled)
        }
        numbering = f"the order of the MADT in {table_file}"
    elif log and log.brought_up:
        apic_ids = dict.fromkeys((0, *sorted(log.brought_up)), -1)
        numbering = f"the CPUs that {log_file} brings up"
    else:
        raise PopcornError(
            "No file says which CPUs there are; a topology file (xml), ACPI tables with a MADT "
            "(acpi), or a boot log that brings CPUs up was expected."
        )
    if not apic_ids:
        raise PopcornError(f"{table_file}: the MADT has no enabled CPU; at least one was expected.")
    node_of, domains = _node_of(apic_ids, log, tables, table_file)
    if min(apic_ids.values()) < 0:
        apic_ids = {}
    online = _online(node_of, log, log_file, numbering)
    threads = _threads(apic_ids)
    packages, package_source = _packages(apic_ids, node_of, log, log_file)
    memory = _memory(log, tables, domains, log_file, table_file)
    node_ids = sorted({*node_of.values(), *(piece.node for piece in memory), *domains.values()})
    topology = Topology(
        schema="firmware tables",
        cpus=tuple(sorted(online)),
        offline_cpus=tuple(sorted(set(node_of) - online)),
        allowed_cpus=tuple(sorted(online)),
        packages=tuple(
            Package(number, kept, log.cpu_model if log else "")
            for number, cpus in enumerate(packages)
            if (kept := tuple(cpu for cpu in cpus if cpu in online))
        ),
        dies=(),
        nodes=tuple(
            Node(node, tuple(sorted(c for c in online if node_of[c] == node)), 0)
            for node in node_ids
        ),
        cores=tuple(
            Core(number, kept)
            for number, cpus in enumerate(threads or [(cpu,) for cpu in sorted(node_of)])
            if (kept := tuple(cpu for cpu in cpus if cpu in online))
        ),
        caches=(),
        pci=(),
        cpu_kinds=(),
        distances=_distances(tables, domains),
        info={},
    )
    sources = {"CPU numbers": numbering, "packages": package_source}
    if threads:
        sources["cores"] = (
            "model default: APIC ids n and n + 1 are two threads of a core, because the MADT "
            "lists all even ids first"
        )
    if topology.distances:
        sources["distances"] = f"the SLIT in {table_file}"
    return Facts(topology, apic_ids, memory, sources=sources)


def _node_of(apic_ids, log, tables, table_file) -> tuple[dict[int, int], dict[int, int]]:
    """The node of each CPU, and Linux's node number for each domain."""
    domains = tables.nodes() if tables else {}
    if log:  # Linux itself says how it numbered them
        domains |= {e.domain: e.node for e in (*log.cpu_affinity, *log.memory_affinity)}
    if min(apic_ids.values()) < 0:
        return {cpu: log.brought_up.get(cpu, 0) for cpu in apic_ids}, domains
    lines = [e for e in tables.cpu_affinity if e.enabled] or (log.cpu_affinity if log else ())
    by_apic = {entry.apic_id: domains[entry.domain] for entry in lines}
    if not by_apic:
        return dict.fromkeys(apic_ids, 0), domains or {0: 0}
    node_of = {}
    for cpu, apic in apic_ids.items():
        if apic not in by_apic:
            raise PopcornError(
                f"{table_file}: the MADT has a CPU with APIC id {apic:#x}, which the SRAT does not "
                "name; a domain for every CPU was expected."
            )
        node_of[cpu] = by_apic[apic]
    return node_of, domains


def _online(node_of, log: BootLog | None, log_file: str, numbering: str) -> set[int]:
    if not log or not log.brought_up:
        return set(node_of)
    for cpu, node in log.brought_up.items():
        if cpu not in node_of:
            raise PopcornError(
                f"{log_file} brings up CPU {cpu}, and by {numbering} there are only CPUs "
                f"{cpu_list(node_of)}; files of one machine were expected."
            )
        if node != node_of[cpu]:
            raise PopcornError(
                f"{log_file} puts CPU {cpu} on node {node}, and by {numbering} it is on node "
                f"{node_of[cpu]}; files of one machine were expected."
            )
    return {min(node_of), *log.brought_up}


def _threads(apic_ids: dict[int, int]) -> list[tuple[int, ...]]:
    """The CPUs of each core, where the firmware shows that cores have two threads.

    Firmware lists the first thread of every core before any second one, so with two threads all
    even ids come first and the same ids plus one follow.
    """
    cpus, ids = list(apic_ids), list(apic_ids.values())
    half = len(ids) // 2
    first, second = ids[:half], ids[half:]
    if not half or any(i % 2 for i in first) or second != [i + 1 for i in first]:
        return []
    return [(cpus[at], cpus[at + half]) for at in range(half)]


def _packages(apic_ids, node_of, log, log_file) -> tuple[list[tuple[int, ...]], str]:
    """The CPUs of each package, by their APIC ids: package number in front, then the core's."""
    everything = [tuple(sorted(node_of))]
    if not apic_ids:
        return everything, "model default: one package, since no file gives APIC ids"
    at_most = log.packages_at_most if log else None
    if at_most:
        for bits in range(1, 32):
            groups: dict[int, list[int]] = {}
            for cpu, apic in apic_ids.items():
                groups.setdefault(apic >> bits, []).append(cpu)
            homes = {(node_of[cpu], group) for group, cpus in groups.items() for cpu in cpus}
            one_home = len(homes) == len(set(node_of.values())) or len(set(node_of.values())) == 1
            if len(groups) <= at_most and one_home:
                found = [tuple(sorted(cpus)) for _, cpus in sorted(groups.items())]
                says = f"the APIC ids without their last {bits} bits; {log_file} says at most"
                return found, f"{says} {at_most} packages"
    spans: dict[int, list[int]] = {}
    for cpu, apic in apic_ids.items():
        spans.setdefault(node_of[cpu], []).append(apic)
    runs: list[list[int]] = []  # of nodes whose APIC ids follow each other
    last = None
    for node in sorted(spans, key=lambda node: min(spans[node])):
        if last is None or min(spans[node]) != last + 1:
            runs.append([])
        runs[-1].append(node)
        last = max(spans[node])
    found = [tuple(sorted(cpu for cpu in apic_ids if node_of[cpu] in run)) for run in runs]
    return found, "the APIC ids: nodes whose ids follow each other without a gap are one package"


def _distances(tables: AcpiTables | None, domains: dict[int, int]) -> dict[tuple[int, int], int]:
    if not tables or not tables.distances:
        return {}
    inside = {d: node for d, node in domains.items() if d < len(tables.distances)}
    if len(inside) < len(domains):
        missing = max(set(domains) - set(inside))
        raise PopcornError(
            f"The SLIT has {len(tables.distances)} domains and the SRAT names domain {missing}; "
            "a distance for every domain was expected."
        )
    return {
        (inside[one], inside[other]): tables.distances[one][other]
        for one in inside
        for other in inside
    }


# -- addresses -------------------------------------------------------------------------------------


def _memory(log, tables, domains, log_file, table_file) -> tuple[NodeMemory, ...]:
    """Which addresses belong to which node; both files must agree where both speak."""
    said = tuple(e for e in tables.memory_affinity if _counts(e)) if tables else ()
    printed = tuple(e for e in log.memory_affinity if _counts(e)) if log else ()
    if said and printed:
        one = {(e.domain, e.start, e.end) for e in said}
        other = {(e.domain, e.start, e.end) for e in printed}
        if one != other:
            domain, start, end = min(one ^ other)
            has, lacks = (
                (table_file, log_file) if (domain, start, end) in one else (log_file, table_file)
            )
            raise PopcornError(
                f"{has} gives {hex_range(start, end)} to domain {domain}, and {lacks} does not; "
                "files of one machine were expected."
            )
    return tuple(
        sorted(
            (NodeMemory(domains[e.domain], e.start, e.end) for e in said or printed),
            key=lambda piece: piece.start,
        )
    )


def _counts(entry: MemoryAffinity) -> bool:
    return entry.enabled and entry.end > entry.start


def with_firmware(
    topology: Topology,
    log: BootLog | None,
    tables: AcpiTables | None,
    log_file: str,
    table_file: str,
) -> Facts:
    """A topology file's machine with what the firmware adds: APIC ids and addresses."""
    facts = Facts(topology)
    known = {node.id for node in topology.nodes}
    if tables or log:
        domains = tables.nodes() if tables else {}
        if log:
            domains |= {e.domain: e.node for e in (*log.cpu_affinity, *log.memory_affinity)}
        facts.node_memory = _memory(log, tables, domains, log_file, table_file)
        for piece in facts.node_memory:
            if piece.node not in known:
                raise PopcornError(
                    f"{table_file if tables else log_file} gives memory to node {piece.node}, and "
                    f"the topology has the nodes {cpu_list(known)}; files of one machine were "
                    "expected."
                )
    if tables and tables.local_apics:
        enabled = [entry.apic_id for entry in tables.local_apics if entry.enabled]
        cpus = sorted({*topology.cpus, *topology.offline_cpus})
        if cpus != list(range(len(enabled))):
            raise PopcornError(
                f"{table_file} has {len(enabled)} enabled CPUs and the topology has the CPUs "
                f"{cpu_list(cpus)}; files of one machine were expected."
            )
        facts.apic_ids = dict(enumerate(enabled))
        facts.sources["CPU numbers"] = f"the topology file; APIC ids: the MADT in {table_file}"
    if log:
        for cpu in log.brought_up:
            if cpu not in topology.cpus:
                raise PopcornError(
                    f"{log_file} brings up CPU {cpu}, and the topology's online CPUs are "
                    f"{cpu_list(topology.cpus)}; files of one machine were expected."
                )
    return facts


def io_apics(log: BootLog | None, tables: AcpiTables | None) -> tuple[tuple[IoApic, ...], str]:
    """The I/O APICs, with the number of their pins from the log or by default."""
    if log and log.io_apics:
        return tuple(sorted(log.io_apics, key=lambda chip: chip.gsi_base)), "the boot log"
    if not tables or not tables.io_apics:
        return (), ""
    chips = tables.io_apics
    ends = [chip.gsi_base for chip in chips[1:]] + [chips[-1].gsi_base + IO_APIC_PINS]
    counted = tuple(
        chip._replace(pins=min(IO_APIC_PINS, end - chip.gsi_base))
        for chip, end in zip(chips, ends, strict=True)
    )
    return counted, f"the MADT; model default: {IO_APIC_PINS} pins each"


def whole_memory(memory_map, node_memory, nodes: tuple[Node, ...]) -> tuple[NodeMemory, ...]:
    """Without a SRAT all RAM is the one node's; with several nodes nobody knows."""
    if node_memory or not memory_map:
        return node_memory
    usable = [piece for piece in memory_map if piece.kind == "usable"]
    if len(nodes) == 1 and usable:
        return (NodeMemory(nodes[0].id, usable[0].start, usable[-1].end),)
    return ()


def usable_bytes(memory_map, node_memory, node: int) -> int:
    """How much usable RAM of the map lies in a node's addresses."""
    return sum(
        max(0, min(piece.end, part.end) - max(piece.start, part.start))
        for piece in memory_map
        if piece.kind == "usable"
        for part in node_memory
        if part.node == node
    )


def with_sizes(topology: Topology, memory_map, node_memory) -> Topology:
    """The same with each node's size taken from the map, where the topology has none."""
    if not memory_map or not node_memory or any(node.memory_bytes for node in topology.nodes):
        return topology
    nodes = tuple(
        replace(node, memory_bytes=usable_bytes(memory_map, node_memory, node.id))
        for node in topology.nodes
    )
    return replace(topology, nodes=nodes)


def with_affinity_sizes(topology: Topology, node_memory: tuple[NodeMemory, ...]) -> Topology:
    """The same with each node's size as the SRAT has it, holes included."""
    if not node_memory or any(node.memory_bytes for node in topology.nodes):
        return topology
    sizes = {node.id: 0 for node in topology.nodes}
    for piece in node_memory:
        sizes[piece.node] += piece.end - piece.start
    nodes = tuple(replace(node, memory_bytes=sizes[node.id]) for node in topology.nodes)
    return replace(topology, nodes=nodes)


def layout(nodes: tuple[Node, ...]) -> tuple[tuple[MemoryRange, ...], tuple[NodeMemory, ...]]:
    """A memory map from the nodes' sizes: one node after the other, around the devices' hole.

    The RAM below the BIOS (384 KiB) is there and cannot be used, as on every PC; what lies where
    the devices' addresses are is moved above 4 GiB.
    """
    pieces: list[NodeMemory] = []
    at = 0
    for node in nodes:
        if node.memory_bytes:
            at = -(-at // NODE_GRANULE_BYTES) * NODE_GRANULE_BYTES
        left = node.memory_bytes
        while left:
            at = HOLE_END if HOLE_START <= at < HOLE_END else at
            room = HOLE_START - at if at < HOLE_START else left
            piece = NodeMemory(node.id, at, at + min(left, room))
            pieces += _around_the_bios(piece)
            at, left = piece.end, left - (piece.end - piece.start)
    if not pieces:
        return (), ()
    ranges = [MemoryRange(piece.start, piece.end) for piece in pieces]
    bios = MemoryRange(LOW_RAM_END, BIOS_END, "reserved")
    return merged([*ranges, bios]), tuple(pieces)


def _around_the_bios(piece: NodeMemory) -> list[NodeMemory]:
    parts = [
        piece._replace(end=min(piece.end, LOW_RAM_END)),
        piece._replace(start=max(piece.start, BIOS_END)),
    ]
    return [part for part in parts if part.start < part.end]


# -- devices ---------------------------------------------------------------------------------------


def functions_of(topology: Topology) -> tuple[PciFunction, ...]:
    """A topology file's devices as functions: no bridges, pins or addresses there."""
    node_of = {node.cpus: node.id for node in topology.nodes if node.cpus}
    return tuple(
        PciFunction(
            slot=device.busid,
            vendor_device=device.vendor_device,
            device_class=device.device_class,
            name=device.name,
            node=node_of.get(device.cpus),
        )
        for device in topology.pci
    )


def joined_functions(
    listed: tuple[PciFunction, ...], topology: Topology, file: str
) -> tuple[PciFunction, ...]:
    """The listing's functions; a node that it leaves open is the topology file's."""
    known = {function.slot: function for function in functions_of(topology)}
    by_slot = {function.slot: function for function in listed}
    for slot, other in known.items():
        mine = by_slot.get(slot)
        if mine is None or mine.vendor_device != other.vendor_device:
            has = "no such function" if mine is None else f"a {mine.vendor_device} there"
            raise PopcornError(
                f"The topology has the device {other.vendor_device} at {slot}, and {file} has "
                f"{has}; files of one machine were expected."
            )
    nodes = {node.id for node in topology.nodes}
    joined = []
    for function in listed:
        node = function.node
        if node is not None and node not in nodes:
            raise PopcornError(
                f"{file} puts {function.slot} on NUMA node {node}, and the nodes are "
                f"{cpu_list(nodes)}; one of them was expected."
            )
        if node is None and function.slot in known:
            node = known[function.slot].node
        joined.append(function._replace(node=node))
    return tuple(joined)


def counted(interrupts: Interrupts, topology: Topology, file: str) -> Interrupts:
    """The counts, if they are of the machine's online CPUs."""
    if interrupts.cpus != topology.cpus:
        raise PopcornError(
            f"{file} counts for the CPUs {cpu_list(interrupts.cpus)}, and the online CPUs are "
            f"{cpu_list(topology.cpus)}; files of one machine were expected."
        )
    return interrupts

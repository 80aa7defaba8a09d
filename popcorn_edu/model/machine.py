"""The machine that kernels share out among themselves: its CPUs, and how far apart they are.

A kernel that sends a message pays for cache lines moving from one CPU to another, so the model
needs to know of any two CPUs whether they share a core, a die, a package, or must cross links
between packages. Real machines give the answer: their topology files (topology.py, hwloc.py)
and, where somebody measured them, their core-to-core latencies (costs.py).

    m = Machine.load("magny-cours-48")
    m.relation(0, 47)        # "2 hops"
    m.transfer_ns(0, 47)     # 148
    m.transfer_source(0, 47) # "model default: line_transfer_2_hops_cycles = 252 cycles at 1.7 GHz"

Words
    same die  CPUs on one piece of silicon, as far as the topology file tells (topology.py)
    1 hop     the nearest CPUs in another package; "2 hops", "3 hops" are the next larger values
              of the firmware's distance table (SLIT). Without a table every package is 1 hop away
    clock     one speed for the whole machine, in whole MHz, so that cycles become whole ns

A kernel that boots needs addresses besides: where the RAM is and whose node's, which interrupt
controllers there are, which devices. Those come from the firmware (firmware.py) and from PCI
listings (pci.py); how the files of one machine are joined is assembly.py.

    m = Machine.load("h8qg6-64")
    m.ram[-1]                # MemoryRange(start=0x100000000, end=0x2028000000, kind='usable')
    m.node_at(0x500000000)   # 1
    mine = Machine.from_files(boot_log="my.dmesg", acpi="my.acpidump", lspci="my.lspci.txt")

Left out: speeds that change, and links that get busy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain, zip_longest
from pathlib import Path

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model import assembly
from popcorn_edu.model.costs import (
    COSTS,
    TRANSFER_COSTS,
    Cost,
    CostRow,
    CostTable,
    html_table,
    read_latencies,
)
from popcorn_edu.model.firmware import (
    GIB,
    IoApic,
    MemoryRange,
    NodeMemory,
    hex_range,
    merged,
    read_acpi,
    read_boot_log,
)
from popcorn_edu.model.hwloc import is_text, read_topology
from popcorn_edu.model.pci import Interrupts, PciFunction, read_interrupts
from popcorn_edu.model.topology import (
    MHZ_AT_MOST,
    Node,
    Place,
    Topology,
    clock,
    cpu_list,
    places,
    regular,
)

DEFAULT_MHZ = 1700  # model default: the clock of an Opteron 6164 HE, the cost table's own machine
GIB_AT_MOST = 1 << 20  # a node; more is a slip
GRAPH_RADIUS = {"machine": 0.0, "package": 0.4, "node": 0.65, "core": 0.85, "cpu": 1.0}
FILE_PARTS = {  # in the manifest, and in from_files()
    "topology": "xml",
    "memmap": "boot_log",
    "acpi": "acpi",
    "pci": "lspci",
    "irq": "interrupts",
    "board": "board",
}
OWN_NUMBERS = " with own numbers"  # ends the name of a machine whose costs or latencies changed


@dataclass(frozen=True, repr=False)
class Machine(Topology):
    """A topology with a name, a clock, costs and, where measured, latencies."""

    name: str = "machine"
    title: str = ""
    mhz: int = DEFAULT_MHZ
    mhz_source: str = "model default"
    latencies_ns: dict[tuple[int, int], int] = field(default_factory=dict, hash=False)
    latencies_source: str = ""
    costs: Mapping[str, Cost] = field(default_factory=lambda: COSTS, hash=False)
    memory_map: tuple[MemoryRange, ...] = field(default=(), hash=False)  # firmware's, ascending
    memory_map_source: str = ""
    node_memory: tuple[NodeMemory, ...] = field(default=(), hash=False)  # ascending
    apic_ids: dict[int, int] = field(default_factory=dict, hash=False)  # of every CPU, or empty
    io_apics: tuple[IoApic, ...] = field(default=(), hash=False)
    pci_functions: tuple[PciFunction, ...] = field(default=(), hash=False)  # bridges too
    interrupts: Interrupts | None = field(default=None, hash=False)
    sources: dict[str, str] = field(default_factory=dict, hash=False)  # fact -> where from

    # where machines come from

    @classmethod
    def load(cls, name: str) -> Machine:
        """One of the machines that come with the kit, by its name or its file's name."""
        return _load(datasets.machine(name)["name"])

    @classmethod
    def default(cls) -> Machine:
        return _load(datasets.machine()["name"])

    @staticmethod
    def names() -> tuple[str, ...]:
        return datasets.machine_names()

    @classmethod
    def from_xml(cls, source: str | bytes | Path, name: str | None = None) -> Machine:
        """A machine of your own: the path of what ``lstopo machine.xml`` wrote, or its text."""
        facts = assembly.Facts(read_topology(source))
        return cls._of(facts, name or ("machine" if is_text(source) else Path(source).stem))

    @classmethod
    def from_files(
        cls,
        xml: str | bytes | Path | None = None,
        boot_log: str | Path | None = None,
        acpi: str | Path | None = None,
        lspci: str | Path | None = None,
        interrupts: str | Path | None = None,
        name: str | None = None,
    ) -> Machine:
        """A machine of your own from all that it tells of itself; each a path, or the text.

        ``lstopo machine.xml``, ``dmesg``, ``acpidump``, ``lspci -nn -D -vv`` and
        ``/proc/interrupts``. CPUs come from ``xml``, else from ``acpi``, else from ``boot_log``;
        a file that you leave out leaves its facts unknown or to a "model default".
        """
        log_text, log_file = assembly.text_or_none(boot_log, "the boot log")
        table_text, table_file = assembly.text_or_none(acpi, "the acpidump")
        log = None if log_text is None else read_boot_log(log_text, log_file)
        tables = None if table_text is None else read_acpi(table_text, table_file)
        if xml is not None:
            files = (log_file, table_file)
            facts = assembly.with_firmware(read_topology(xml), log, tables, *files)
        else:
            facts = assembly.from_firmware(log, tables, log_file, table_file)
        if log:
            facts.memory_map = log.memory_map
            facts.sources["memory map"] = log_file
        facts.io_apics, facts.sources["I/O APICs"] = assembly.io_apics(log, tables)
        if lspci is not None:
            listed, file = assembly.read_functions(lspci)
            facts.functions = assembly.joined_functions(listed, facts.topology, file)
            facts.sources["devices"] = file
        if interrupts is not None:
            text, file = assembly.text_and_name(interrupts, "/proc/interrupts")
            facts.interrupts = assembly.counted(read_interrupts(text, file), facts.topology, file)
        if log and log.tsc_khz:
            facts.mhz = (log.tsc_khz + 500) // 1000
            facts.sources["clock"] = f"the time-stamp counter's in {log_file}"
        first = next(f for f in (xml, boot_log, acpi) if f is not None)
        text = is_text(first) or (isinstance(first, str) and "\n" in first)
        board = log.board.split(", BIOS")[0].split("/")[0] if log else ""
        return cls._of(facts, name or ("machine" if text else Path(first).stem), board)

    @classmethod
    def _of(cls, facts: assembly.Facts, name: str, title: str = "") -> Machine:
        """A machine of what the files say; what none of them says is laid out or left open."""
        topology = facts.topology
        memory_map, node_memory = facts.memory_map, facts.node_memory
        if memory_map:
            node_memory = assembly.whole_memory(memory_map, node_memory, topology.nodes)
            topology = assembly.with_sizes(topology, memory_map, node_memory)
            source = facts.sources.pop("memory map")
        else:
            topology = assembly.with_affinity_sizes(topology, node_memory)
            memory_map, node_memory = assembly.layout(topology.nodes)
            source = "model default: laid out from the sizes of the nodes" if memory_map else ""
        made = (topology.info.get("DMISysVendor"), topology.info.get("DMIProductName"))
        mhz, mhz_source = clock(topology) or (DEFAULT_MHZ, "model default")
        if facts.mhz:
            mhz, mhz_source = facts.mhz, facts.sources.pop("clock")
        return cls(
            **vars(topology),
            name=name,
            title=title or " ".join(filter(None, made)) or topology.packages[0].model or name,
            mhz=mhz,
            mhz_source=mhz_source,
            memory_map=memory_map,
            memory_map_source=source,
            node_memory=node_memory,
            apic_ids=facts.apic_ids,
            io_apics=facts.io_apics,
            pci_functions=facts.functions or assembly.functions_of(topology),
            interrupts=facts.interrupts,
            sources={fact: says for fact, says in facts.sources.items() if says},
        )

    @classmethod
    def synthetic(
        cls,
        packages: int,
        nodes_per_package: int = 1,
        cores_per_node: int = 1,
        threads_per_core: int = 1,
        threads_adjacent: bool = False,
        gib_per_node: int = 0,
    ) -> Machine:
        """A regular machine that nobody owns; ``topology.regular`` says how CPUs are numbered."""
        shape = (packages, nodes_per_package, cores_per_node, threads_per_core)
        made = regular(*shape, threads_adjacent)
        if gib_per_node:
            if not isinstance(gib_per_node, int) or not 0 < gib_per_node <= GIB_AT_MOST:
                raise PopcornError(
                    f"gib_per_node is {gib_per_node!r}; a whole number of GiB from 0 to "
                    f"{GIB_AT_MOST} was expected."
                )
            nodes = tuple(replace(n, memory_bytes=gib_per_node * GIB) for n in made.nodes)
            made = replace(made, nodes=nodes)
        says = f"Synthetic machine, {packages} x {nodes_per_package} x {cores_per_node} cores"
        return replace(
            cls._of(assembly.Facts(made), "synthetic-" + "x".join(map(str, shape))), title=says
        )

    def with_costs(self, **values: int) -> Machine:
        """The same machine with constants you measured: ``with_costs(icr_write_cycles=450)``."""
        costs = dict(self.costs)
        for name, value in values.items():
            old = self._cost(name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise PopcornError(
                    f"{name} is {value!r}; a whole number of {old.unit} was expected."
                )
            costs[name] = Cost(value, old.unit, None, None, "you", "")
        return replace(self, costs=costs, name=self._own_name())

    def with_clock(self, mhz: int) -> Machine:
        """The same machine at another clock."""
        if not isinstance(mhz, int) or isinstance(mhz, bool) or not 1 <= mhz <= MHZ_AT_MOST:
            raise PopcornError(
                f"{mhz!r} is no clock; a whole number of MHz from 1 to {MHZ_AT_MOST} was expected."
            )
        return replace(self, mhz=mhz, mhz_source="set by you", name=self._own_name())

    def with_latencies(self, source: str | Path, says: str = "") -> Machine:
        """The same machine with core-to-core latencies you measured.

        ``source`` is the path or the text of a table of ns one way, row and column by CPU number,
        lower triangle, as the public core-to-core-latency programs write it.
        """
        text, file = str(source), "the table"
        if "\n" not in text:
            file = Path(text).name
            try:
                text = Path(text).read_text(encoding="utf-8-sig")
            except (OSError, ValueError):
                raise PopcornError(f"{file}: cannot be read; a CSV table was expected.") from None
        table = read_latencies(text, file, self.cpus)
        return replace(
            self, latencies_ns=table, latencies_source=says or file, name=self._own_name()
        )

    # what it consists of

    @property
    def memory_bytes(self) -> int:
        """All memory; 0 where the file does not say."""
        return sum(node.memory_bytes for node in self.nodes)

    @property
    def bsp(self) -> int:
        """The CPU that boots the machine: the lowest that is online."""
        return self.cpus[0]

    def apic_id(self, cpu: int) -> int:
        """The number interrupts are addressed to; the CPU's own number where no table says."""
        self.place(cpu)
        return self.apic_ids.get(cpu, cpu)

    @cached_property
    def ram(self) -> tuple[MemoryRange, ...]:
        """The usable ranges, ascending; neighbours are one."""
        return merged(piece for piece in self.memory_map if piece.kind == "usable")

    def node_at(self, address: int) -> int | None:
        """The NUMA node whose memory an address is in, if any."""
        for piece in self.node_memory:
            if piece.start <= address < piece.end:
                return piece.node
        return None

    @property
    def ghz(self) -> float:
        return self.mhz / 1000

    def node(self, node_id: int) -> Node:
        if node_id not in self._nodes:
            raise PopcornError(
                f"{self.name} has no NUMA node {node_id!r}; its nodes are {cpu_list(self._nodes)}."
            )
        return self._nodes[node_id]

    def place(self, cpu: int) -> Place:
        """Where a CPU is: package, die and core. Sorting by it is the order of the hardware."""
        try:
            return self._places[cpu]
        except (KeyError, TypeError):
            raise self._no_cpu(cpu) from None

    def node_of(self, cpu: int) -> int:
        """The id of the NUMA node whose memory is nearest to the CPU."""
        return self.place(cpu).node

    def package_of(self, cpu: int) -> int:
        """The id of the package the CPU is in."""
        return self.packages[self.place(cpu).package].id

    def check_cpus(self, cpus: Iterable[int]) -> tuple[int, ...]:
        """The CPUs as a tuple, if all exist, are online, and are named once."""
        if isinstance(cpus, str) or not isinstance(cpus, Iterable):
            raise PopcornError(
                f"{cpus!r} is no list of CPU numbers; one such as [0, 12, 24] was expected."
            )
        cpus = tuple(cpus)
        for n, cpu in enumerate(cpus):
            if isinstance(cpu, bool) or not hasattr(cpu, "__index__"):
                raise PopcornError(f"{cpu!r} is no CPU number; a whole number was expected.")
            self.place(cpu)
            if cpu in cpus[:n]:
                raise PopcornError(
                    f"CPU {cpu} is named twice; each CPU can belong to one kernel only."
                )
        return tuple(map(int, cpus))

    def first(self, count: int) -> tuple[int, ...]:
        """The ``count`` lowest CPU numbers."""
        return self.cpus[: self._checked_count(count)]

    def spread(self, count: int) -> tuple[int, ...]:
        """``count`` CPUs as far apart as they go: over packages, then dies, then cores,
        and second threads last."""
        return self._spread[: self._checked_count(count)]

    # how far apart, and what that costs

    def distance(self, node_a: int, node_b: int) -> int | None:
        """The firmware's relative distance between two NUMA nodes (10 is "here"), if known."""
        return self.distances.get((self.node(node_a).id, self.node(node_b).id))

    def relation(self, cpu_a: int, cpu_b: int) -> str:
        """One of: same cpu, same core, same die, same package, 1 hop, 2 hops, 3 hops, …"""
        a, b = self.place(cpu_a), self.place(cpu_b)
        if cpu_a == cpu_b:
            return "same cpu"
        if a.core == b.core:
            return "same core"
        if a.package == b.package:
            return "same die" if a.die == b.die else "same package"
        hops = self._hops.get(self._far(a.node, b.node), 1)
        return "1 hop" if hops == 1 else f"{hops} hops"

    def transfer_ns(self, cpu_a: int, cpu_b: int) -> int:
        """How long one cache line takes from one CPU to the other."""
        known = self._transfers.get((cpu_a, cpu_b))
        if known is None:
            relation = self.relation(cpu_a, cpu_b)
            known = self._measured(cpu_a, cpu_b) or self._default_transfer_ns(relation)
            self._transfers[cpu_a, cpu_b] = known
        return known

    def transfer_source(self, cpu_a: int, cpu_b: int) -> str:
        """How we know ``transfer_ns``: measured, or a default of the model."""
        relation = self.relation(cpu_a, cpu_b)
        if relation == "same cpu":
            return "nothing moves: it is the same CPU"
        if self._measured(cpu_a, cpu_b):
            return f"measured: {self.latencies_source}"
        name = _transfer_cost(relation)
        cost = self.costs[name]
        return f"{cost.label}: {name} = {cost.value} cycles at {self.ghz:g} GHz"

    def ns(self, cycles: int) -> int:
        """Cycles of this machine's clock as ns, rounded half up in whole numbers."""
        return (2000 * cycles + self.mhz) // (2 * self.mhz)

    def cost_ns(self, name: str) -> int:
        """A constant of the cost table as a time on this machine."""
        cost = self._cost(name)
        if cost.unit not in ("cycles", "ns"):
            raise PopcornError(
                f"{name} counts {cost.unit}; a cost in cycles or ns was expected here."
            )
        return self.ns(cost.value) if cost.unit == "cycles" else cost.value

    def costs_table(self) -> CostTable:
        """Every constant with its range, its source and what it comes to on this machine."""
        times = ("cycles", "ns")
        return CostTable(
            CostRow(name, cost, self.cost_ns(name) if cost.unit in times else None)
            for name, cost in self.costs.items()
        )

    # how it looks

    def describe(self) -> str:
        """The machine in a few lines."""
        memory = f"{self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else "memory unknown"
        offline = f", offline: {cpu_list(self.offline_cpus)}" if self.offline_cpus else ""
        lines = [
            f"{self.name}: {self.title}",
            f"  {_count(len(self.cpus), 'CPU')} ({cpu_list(self.cpus)}{offline}) in "
            f"{_count(len(self.cores), 'core')}, {_count(len(self.packages), 'package')}, "
            f"{_count(len(self.nodes), 'NUMA node')}; {memory}",
            f"  clock {self.ghz:g} GHz ({self.mhz_source})",
            f"  RAM: {self._ram_in_words()}",
            f"  interrupts: {self._interrupts_in_words()}",
            f"  devices: {self._devices_in_words()}",
        ]
        told = ("I/O APICs", "devices")  # said above
        lines += [f"  {fact}: {says}" for fact, says in self.sources.items() if fact not in told]
        for relation, (a, b) in self._examples.items():
            says = self.transfer_source(a, b)
            lines.append(f"  {relation}: {self.transfer_ns(a, b)} ns from CPU {a} to {b} ({says})")
        return "\n".join(lines)

    def _ram_in_words(self) -> str:
        if not self.ram:
            return "no file says where it is"
        usable = sum(piece.end - piece.start for piece in self.ram)
        return (
            f"{usable / GIB:.1f} GiB usable in {_count(len(self.ram), 'range')} up to "
            f"{self.ram[-1].end - 1:#x}, of {_count(len(self.memory_map), 'range')} in all "
            f"({self.memory_map_source})"
        )

    def _interrupts_in_words(self) -> str:
        ids = "APIC ids are the CPU numbers (model default)"
        if self.apic_ids:
            ids = f"APIC ids {min(self.apic_ids.values()):#x}-{max(self.apic_ids.values()):#x}"
        if not self.io_apics:
            return f"{ids}; no file tells of I/O APICs"
        last = self.io_apics[-1]
        says = f" ({self.sources['I/O APICs']})" if "I/O APICs" in self.sources else ""
        return (
            f"{ids}; {_count(len(self.io_apics), 'I/O APIC')} for the GSIs "
            f"{self.io_apics[0].gsi_base}-{last.gsi_base + last.pins - 1}{says}"
        )

    def _devices_in_words(self) -> str:
        functions = self.pci_functions
        if not functions:
            return "no file lists any"
        bridges = sum(function.device_class == "0604" for function in functions)
        wired = sum(function.irq is not None for function in functions)
        by_message = sum(bool(function.msi) for function in functions)
        says = self.sources.get("devices", "the topology file" if self.pci else "the board file")
        return (
            f"{_count(len(functions), 'PCI function')}, {bridges} of them PCI bridges, {wired} "
            f"with an interrupt, {by_message} that use MSI ({says})"
        )

    def _repr_html_(self) -> str:
        rows = [
            (
                f"node {node.id}",
                ", ".join(str(p) for p in dict.fromkeys(map(self.package_of, node.cpus))) or "none",
                cpu_list(node.cpus) or "none",
                self._size_in_words(node),
                ", ".join(
                    hex_range(piece.start, piece.end)
                    for piece in self.node_memory
                    if piece.node == node.id
                )
                or "unknown",
            )
            for node in self.nodes
        ]
        caption = (
            f"{self.name}: {self.title}; {self.ghz:g} GHz; RAM: {self._ram_in_words()}; "
            f"interrupts: {self._interrupts_in_words()}; devices: {self._devices_in_words()}"
        )
        return html_table(("NUMA node", "package", "CPUs", "memory", "addresses"), rows, caption)

    def _size_in_words(self, node: Node) -> str:
        if node.memory_bytes:
            return f"{node.memory_bytes / GIB:.1f} GiB"
        return "none" if self.memory_bytes else "unknown"

    def graph(self):
        """The machine as a networkx graph, each thing with its kind, label, CPUs and position.

        Edges of kind "contains" go from the machine inwards to the CPUs; edges of kind "link"
        join NUMA nodes and carry their distance. The CPUs stand on a circle in the order of the
        hardware, everything else further in, at the middle of its CPUs.
        """
        import networkx

        ring = sorted(self.cpus, key=self.place)
        around = networkx.circular_layout(ring)
        graph = networkx.Graph(name=self.name)
        groups = self._groups()
        for label, (kind, number, cpus) in groups.items():
            pos = _middle([around[cpu] for cpu in cpus], GRAPH_RADIUS[kind])
            graph.add_node(label, kind=kind, id=number, label=label, cpus=cpus, pos=pos)
        chains: dict[int, list[str]] = {cpu: [] for cpu in self.cpus}
        for label, (_, _, cpus) in sorted(groups.items(), key=lambda item: -len(item[1][2])):
            for cpu in cpus:
                chains[cpu].append(label)
            if not cpus:  # a node of memory only
                graph.add_edge("machine", label, kind="contains")
        for labels in chains.values():
            networkx.add_path(graph, labels, kind="contains")
        for (a, b), distance in self.distances.items():
            if a < b and not graph.has_edge(f"node {a}", f"node {b}"):
                graph.add_edge(f"node {a}", f"node {b}", kind="link", distance=distance)
        return graph

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        return f"<Machine {self.name}: {len(self.cpus)} CPUs>"

    # inside

    @cached_property
    def _nodes(self) -> dict[int, Node]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def _places(self) -> dict[int, Place]:
        return places(self)

    def _no_cpu(self, cpu) -> PopcornError:
        if cpu in self.offline_cpus:
            return PopcornError(
                f"CPU {cpu} of {self.name} is offline; its online CPUs are {cpu_list(self.cpus)}."
            )
        return PopcornError(f"{self.name} has no CPU {cpu!r}; its CPUs are {cpu_list(self.cpus)}.")

    def _checked_count(self, count: int) -> int:
        if not isinstance(count, int) or not 1 <= count <= len(self.cpus):
            raise PopcornError(
                f"{count!r} CPUs were asked for; {self.name} has {len(self.cpus)}, so a number "
                f"from 1 to {len(self.cpus)} was expected."
            )
        return count

    @cached_property
    def _spread(self) -> tuple[int, ...]:
        rounds: dict[int, dict[int, dict[int, list[int]]]] = {}  # thread, package, die: CPUs
        for at in sorted(self._places.values()):
            thread = self.cores[at.core].cpus.index(at.cpu)
            packages = rounds.setdefault(thread, {})
            packages.setdefault(at.package, {}).setdefault(at.die, []).append(at.cpu)
        order = (_turns(_turns(dies.values()) for dies in p.values()) for p in rounds.values())
        return tuple(chain.from_iterable(order))

    def _far(self, node_a: int, node_b: int) -> int | None:
        there, back = self.distances.get((node_a, node_b)), self.distances.get((node_b, node_a))
        return None if there is None or back is None else max(there, back)

    @cached_property
    def _hops(self) -> dict[int | None, int]:
        """Each distance that occurs between two packages, and its rank."""
        packages: dict[int, set[int]] = {}
        for at in self._places.values():
            packages.setdefault(at.node, set()).add(at.package)
        between = {
            self._far(a, b)
            for a in packages
            for b in packages
            if len(packages[a] | packages[b]) > 1
        }
        return {d: rank for rank, d in enumerate(sorted(between - {None}), start=1)}

    @cached_property
    def _transfers(self) -> dict[tuple[int, int], int]:
        return {}

    @cached_property
    def _examples(self) -> dict[str, tuple[int, int]]:
        """For each relation the first pair of CPUs that has it."""
        found: dict[str, tuple[int, int]] = {}
        first = self.cpus[0]
        for cpu in self.cpus[1:]:
            found.setdefault(self.relation(first, cpu), (first, cpu))
        return found

    def _measured(self, cpu_a: int, cpu_b: int) -> int:
        """0 where nobody measured, and where the clock that measured was too coarse."""
        return self.latencies_ns.get((max(cpu_a, cpu_b), min(cpu_a, cpu_b)), 0)

    def _default_transfer_ns(self, relation: str) -> int:
        return 0 if relation == "same cpu" else self.cost_ns(_transfer_cost(relation))

    def _cost(self, name: str) -> Cost:
        if name not in self.costs:
            raise PopcornError(f"There is no cost called {name!r}; {near_names(name, self.costs)}")
        return self.costs[name]

    def _own_name(self) -> str:
        return self.name.removesuffix(OWN_NUMBERS) + OWN_NUMBERS

    def _groups(self) -> dict[str, tuple[str, int, tuple[int, ...]]]:
        """Everything that holds CPUs, by label: kind, number, CPUs."""
        groups = {"machine": ("machine", 0, self.cpus)}
        groups |= {f"package {p.id}": ("package", p.id, p.cpus) for p in self.packages}
        groups |= {f"node {n.id}": ("node", n.id, n.cpus) for n in self.nodes}
        groups |= {f"core {at}": ("core", at, c.cpus) for at, c in enumerate(self.cores)}
        return groups | {f"cpu {cpu}": ("cpu", cpu, (cpu,)) for cpu in self.cpus}


def as_machine(machine: Machine | str) -> Machine:
    """A machine, or the one of that name."""
    if isinstance(machine, str):
        return Machine.load(machine)
    if not isinstance(machine, Machine):
        raise PopcornError(f"{machine!r:.60} is no machine; Machine.load(...) makes one.")
    return machine


@cache
def _load(name: str) -> Machine:
    made = datasets.machine(name)
    paths = {part: datasets.path(made[part]) for part in FILE_PARTS if part in made}
    if "board" in paths:
        from popcorn_edu.model.acrn import read_board  # late: it makes machines, as we do here

        machine = read_board(paths["board"])
    elif paths:
        arguments = {FILE_PARTS[part]: path for part, path in paths.items()}
        machine = Machine.from_files(**arguments)
    else:
        machine = Machine.synthetic(**made["shape"])
    if "mhz" in made:
        machine = replace(machine, mhz=made["mhz"], mhz_source=made["mhz_source"])
    if made["latencies"]:
        says = f"{made['latencies']} ({datasets.entry(made['latencies'])['origin']['repo']})"
        machine = machine.with_latencies(datasets.path(made["latencies"]), says)
    return replace(machine, name=made["name"], title=made["title"])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _transfer_cost(relation: str) -> str:
    return TRANSFER_COSTS.get(relation, TRANSFER_COSTS["2 hops"])


def _turns(lists: Iterable[Iterable[int]]) -> list[int]:
    """One from each list, then the next of each: [[0, 1], [2, 3]] becomes [0, 2, 1, 3]."""
    return [x for row in zip_longest(*lists) for x in row if x is not None]


def _middle(points, radius: float) -> tuple[float, float]:
    """The direction of the points' middle, at the radius; straight down if it is nowhere."""
    x, y = (float(sum(point[axis] for point in points)) for axis in (0, 1))
    length = (x * x + y * y) ** 0.5
    if length < 1e-6 * max(1, len(points)):
        x, y, length = 0.0, -1.0, 1.0
    return round(x / length * radius, 4) + 0.0, round(y / length * radius, 4) + 0.0

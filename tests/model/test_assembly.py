"""One machine out of several files: what Linux made of the same machine is the witness."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import machine as machine_module
from popcorn_edu.model.assembly import HOLE_END, HOLE_START, layout
from popcorn_edu.model.firmware import GIB, KIB, MIB, MemoryRange, read_acpi, read_boot_log
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.topology import Node

EXPECTED = Path(__file__).parents[1] / "data"
WITH_FIRMWARE = [n for n in Machine.names() if "acpi" in datasets.machine(n)]
LAID_OUT = [n for n in Machine.names() if Machine.load(n).memory_map_source.startswith("model")]
PAGE = 4 * KIB


def log_of(name):
    return read_boot_log(datasets.read_text(f"memmap-{name}"))


def tables_of(name):
    return read_acpi(datasets.read_text(f"acpi-{name}"))


# -- from firmware ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_FIRMWARE)
def test_cpus_are_numbered_as_linux_numbered_them(name):
    """The order of the MADT, and the node that the boot log prints for each number."""
    m, log, tables = Machine.load(name), log_of(name), tables_of(name)
    enabled = [entry.apic_id for entry in tables.local_apics if entry.enabled]
    assert [m.apic_id(cpu) for cpu in m.cpus] == enabled
    assert m.cpus == tuple(range(len(enabled)))
    for cpu, node in log.brought_up.items():
        assert m.node_of(cpu) == node
    domain = {e.apic_id: e.domain for e in tables.cpu_affinity if e.enabled}
    assert all(m.node_of(cpu) == tables.nodes()[domain[m.apic_id(cpu)]] for cpu in m.cpus)


@pytest.mark.parametrize("name", [n for n in WITH_FIRMWARE if log_of(n).early_ranges])
def test_the_ram_of_each_node_is_what_linux_found(name):
    """Map and SRAT together, in whole pages and without page 0: the log's "early ranges"."""
    m = Machine.load(name)
    found = []
    for part in m.node_memory:
        for piece in m.ram:
            start, end = max(part.start, piece.start, PAGE), min(part.end, piece.end)
            start, end = -(-start // PAGE) * PAGE, end // PAGE * PAGE
            if start < end:
                found.append((part.node, start, end))
    assert found == [tuple(piece) for piece in log_of(name).early_ranges]


@pytest.mark.parametrize("name", [n for n in WITH_FIRMWARE if log_of(n).total_kib])
def test_the_size_of_the_nodes_is_what_linux_found(name):
    """To a few pages: Linux leaves page 0 and parts of pages out."""
    m = Machine.load(name)
    assert 0 <= m.memory_bytes - log_of(name).total_kib * KIB < 16 * PAGE
    assert m.memory_bytes == sum(piece.end - piece.start for piece in m.ram)


@pytest.mark.parametrize("name", WITH_FIRMWARE)
def test_the_memory_map_is_the_firmwares(name):
    """All kinds, as the log has them; ``ram`` holds the usable ones."""
    m, log = Machine.load(name), log_of(name)
    assert m.memory_map == log.memory_map
    assert m.ram == tuple(piece for piece in log.memory_map if piece.kind == "usable")


def test_the_h8qg6_is_complete():
    """CPUs, nodes, packages, distances, RAM, interrupt chips and devices of one machine."""
    m = Machine.load("h8qg6-64")
    assert m.cpus == tuple(range(64)) and m.bsp == 0
    assert [node.cpus for node in m.nodes] == [tuple(range(n * 8, n * 8 + 8)) for n in range(8)]
    assert [p.cpus for p in m.packages] == [tuple(range(n * 16, n * 16 + 16)) for n in range(4)]
    assert m.packages[0].model == "AMD Opteron(tm) Processor 6380"
    assert m.mhz == 2500
    slit = json.loads(
        (EXPECTED / "acpi" / "supermicro-h8qg6-opteron6380-64c-128g.expected.json").read_text()
    )
    matrix = slit["SLIT"]["matrix"]
    assert [[m.distance(a, b) for b in range(8)] for a in range(8)] == matrix
    assert [(chip.gsi_base, chip.pins) for chip in m.io_apics] == [(0, 24), (24, 32), (56, 32)]
    assert (len(m.memory_map), len(m.ram), len(m.pci_functions)) == (12, 3, 68)
    assert m.relation(0, 8) == "same package" and m.relation(0, 16) == "1 hop"


def test_every_interrupt_of_the_h8qg6_is_a_pin_of_one_of_its_chips():
    """Listing and interrupt chips are of the same machine."""
    m = Machine.load("h8qg6-64")
    pins = {chip.gsi_base + pin for chip in m.io_apics for pin in range(chip.pins)}
    assert {f.irq for f in m.pci_functions if f.irq is not None} <= pins


def test_the_node_of_an_address():
    """Inclusive at the start, exclusive at the end; nobody's outside."""
    m = Machine.load("h8qg6-64")
    assert m.node_at(0) == 0
    assert (m.node_at(0x427FFFFFF), m.node_at(0x428000000)) == (0, 1)
    assert (m.node_at(0x2027FFFFFF), m.node_at(0x2028000000)) == (7, None)
    assert m.node_at(0xA0000) is None


def test_nodes_may_have_no_memory():
    """The H8DGU's nodes 1 and 2: CPUs, and no RAM; CPUs 12-17 are on node 3."""
    m = Machine.load("h8dgu-24")
    assert [bool(node.memory_bytes) for node in m.nodes] == [True, False, False, True]
    assert m.node(3).cpus == tuple(range(12, 18))
    assert [p.cpus for p in m.packages] == [tuple(range(12)), tuple(range(12, 24))]
    assert "none" in m._repr_html_()


def test_a_node_may_lie_on_both_sides_of_the_pci_hole():
    """The DL165's node 1: 1 GiB below, 3 GiB above."""
    m = Machine.load("dl165g7-16")
    assert [(p.start, p.end) for p in m.node_memory if p.node == 1] == [
        (2 * GIB, 3 * GIB), (4 * GIB, 7 * GIB),
    ]  # fmt: skip
    assert [len(p.cpus) for p in m.packages] == [8, 8]


def test_threads_of_a_core_are_seen_in_the_order_of_the_madt():
    """Firmware lists second threads last; on AMD neighbouring ids are neighbouring cores."""
    xeon, opteron = Machine.load("x8dtn-24"), Machine.load("h8dgu-24")
    assert [core.cpus for core in xeon.cores] == [(cpu, cpu + 12) for cpu in range(12)]
    assert "model default" in xeon.sources["cores"]
    assert all(len(core.cpus) == 1 for core in opteron.cores)


def test_domains_with_gaps_become_nodes_without():
    """The R820: domains 1 to 4 are nodes 0 to 3, with the distances of their own rows."""
    m = Machine.from_files(acpi=datasets.path("acpi-r820-80"))
    assert [node.id for node in m.nodes] == [0, 1, 2, 3]
    assert len(m.cpus) == 80 and len(m.cores) == 40 and len(m.packages) == 4
    slit = tables_of("r820-80").distances
    assert m.distance(0, 2) == slit[1][3]
    assert m.memory_map_source.startswith("model default")


def test_empty_slots_are_no_cpus():
    """The DL380e: 8 of 64 slots of the MADT are filled."""
    m = Machine.from_files(acpi=datasets.path("acpi-dl380e-8"))
    assert m.cpus == tuple(range(8))
    assert [node.cpus for node in m.nodes] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [chip.pins for chip in m.io_apics] == [24, 24, 24]
    assert "model default" in m.sources["I/O APICs"]


def test_cpus_that_were_not_brought_up_are_offline():
    """A boot with maxcpus=8: the numbers stay, the CPUs do not run."""
    text = datasets.read_text("memmap-h8qg6-64")
    lines = [x for x in text.splitlines() if "CPUs:" not in x or "node  #0" in x]
    m = Machine.from_files(boot_log="\n".join(lines), acpi=datasets.path("acpi-h8qg6-64"))
    assert m.cpus == tuple(range(8))
    assert m.offline_cpus == tuple(range(8, 64))
    assert m.apic_id(7) == 0x27


def test_a_boot_log_alone_tells_of_cpus_nodes_and_ram():
    """No APIC ids and no distances then, and it says so."""
    m = Machine.from_files(boot_log=datasets.path("memmap-h8qg6-64"))
    assert len(m.cpus) == 64 and len(m.nodes) == 8
    assert m.apic_ids == {} and m.distances == {}
    assert m.ram == Machine.load("h8qg6-64").ram
    assert m.name == "supermicro-h8qg6-opteron6380-64c-128g.dmesg"
    assert m.title == "Supermicro H8QG6"
    assert "model default" in m.describe()


def test_texts_and_paths_are_the_same():
    """Whoever has the text needs no file."""
    parts = {"boot_log": "memmap-h8qg6-64", "acpi": "acpi-h8qg6-64", "lspci": "pci-h8qg6-64"}
    by_path = Machine.from_files(**{k: str(datasets.path(v)) for k, v in parts.items()}, name="x")
    by_text = Machine.from_files(**{k: datasets.read_text(v) for k, v in parts.items()}, name="x")
    for fact in ("cpus", "nodes", "packages", "distances", "memory_map", "node_memory",
                 "apic_ids", "io_apics", "pci_functions"):  # fmt: skip
        assert getattr(by_path, fact) == getattr(by_text, fact)


def test_a_machine_without_numa_has_all_ram_in_its_node():
    """No SRAT: one node, whatever the map holds."""
    log = "\n".join([datasets.read_text("memmap-z690p"), ".... node  #0, CPUs:      #1  #2  #3"])
    m = Machine.from_files(boot_log=log)
    assert m.cpus == (0, 1, 2, 3)
    assert {m.node_at(piece.start) for piece in m.ram} == {0}
    assert m.memory_bytes == sum(piece.end - piece.start for piece in m.ram)


# -- a topology file and more ----------------------------------------------------------------------


def test_a_listing_joins_its_topology():
    """137 functions; where the listing gives no node, the topology's place gives it."""
    m = Machine.load("e5-2680-16")
    functions = {f.slot: f for f in m.pci_functions}
    assert len(functions) == 137
    nvme = functions["0000:00:02.0"]
    assert nvme.node == 0 and nvme.irq == 16
    for device in m.pci:
        assert functions[device.busid].vendor_device == device.vendor_device


def test_a_topologys_own_devices_are_functions():
    """Without bridges, pins and addresses, which the file does not have."""
    m = Machine.load("westmere-24")
    assert [f.slot for f in m.pci_functions] == [d.busid for d in m.pci]
    assert {f.node for f in m.pci_functions} == {0, 1}


def test_a_boot_log_gives_addresses_to_a_topology():
    """xml and boot_log: the layout is not needed any more."""
    one_node = Machine.synthetic(1, 1, 4)
    xml = datasets.path("cortex-a9-2")
    log = "BIOS-e820: [mem 0x0000000000000000-0x0000000013ffffff] usable\n"
    m = Machine.from_files(xml=xml, boot_log=log)
    assert m.ram == (MemoryRange(0, 0x14000000),)
    assert m.memory_map_source == "the boot log"
    assert m.node_at(5) == 0
    assert one_node.ram == ()


FOUR_CPUS = """<topology version="2.0">
 <object type="Machine" os_index="0" cpuset="0xf" complete_cpuset="0xf" nodeset="0x1">
  <object type="NUMANode" os_index="0" cpuset="0xf" nodeset="0x1" local_memory="8589934592"/>
  <object type="Package" os_index="0" cpuset="0xf">
   <object type="PU" os_index="0" cpuset="0x1"/><object type="PU" os_index="1" cpuset="0x2"/>
   <object type="PU" os_index="2" cpuset="0x4"/><object type="PU" os_index="3" cpuset="0x8"/>
  </object>
 </object>
</topology>
"""


def test_acpi_tables_give_apic_ids_and_pins_to_a_topology():
    """xml and acpi: cores from the one, interrupts from the other."""
    m = Machine.from_files(xml=FOUR_CPUS, acpi=datasets.path("acpi-m4a88td-4"))
    assert m.apic_ids == {0: 0, 1: 1, 2: 2, 3: 3}
    assert [(chip.id, chip.pins) for chip in m.io_apics] == [(4, 24)]
    assert m.memory_map_source.startswith("model default")


def test_interrupt_counts_are_of_the_online_cpus():
    """Kept with the machine when they fit it, refused when they do not."""
    board = Machine.load("whl-ipc-i5")
    log = "\n".join([
        "BIOS-e820: [mem 0x0000000000100000-0x00000000ffffffff] usable",
        ".... node  #0, CPUs:      #1  #2  #3",
    ])  # fmt: skip
    m = Machine.from_files(boot_log=log, interrupts=datasets.path("irq-x86-laptop-4"))
    assert m.interrupts.count("LOC", 3) == 130980079
    assert board.interrupts is None
    with pytest.raises(PopcornError, match="counts for the CPUs 0-7, and the online CPUs are 0-3"):
        Machine.from_files(boot_log=log, interrupts=datasets.path("irq-aarch64-ec2-8"))


@pytest.mark.parametrize("name", ["whl-ipc-i5", "cfl-k700-i7", "qemu"])
def test_boards_are_machines_too(name):
    """CPUs and usable RAM as an independent reading of the board has them."""
    m = Machine.load(name)
    stem = Path(datasets.entry(datasets.machine(name)["board"])["file"]).name.split(".")[0]
    oracle = json.loads((EXPECTED / "boards" / f"{stem}.expected.json").read_text())
    assert m.cpus == tuple(oracle["cpus"])
    assert [f.slot.removeprefix("0000:") for f in m.pci_functions] == oracle["pci"]
    for piece in oracle["iomem_system_ram"]:
        assert any(r.start <= piece["start"] <= piece["end"] < r.end for r in m.ram)


# -- laid out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAID_OUT)
def test_a_laid_out_map_says_so_and_is_whole(name):
    """Ascending, without overlaps, in the nodes' order, 384 KiB less than the nodes have."""
    m = Machine.load(name)
    assert m.memory_map_source == "model default: laid out from the sizes of the nodes"
    usable = sum(piece.end - piece.start for piece in m.ram)
    assert m.memory_bytes - usable == 384 * KIB
    assert [(p.start, p.end) for p in m.ram] == [(p.start, p.end) for p in _joined(m.node_memory)]


def _joined(pieces):
    joined = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if joined and joined[-1].end == piece.start:
            joined[-1] = joined[-1]._replace(end=piece.end)
        else:
            joined.append(piece)
    return joined


def test_the_default_machines_layout():
    """8 and 16 GiB by turns: low memory, up to the devices' hole, and on above 4 GiB.

    Node 0 is 2,148 KiB short of 8 GiB; the next node begins at the next multiple of 128 MiB.
    """
    m = Machine.default()
    low, below, above = (p for p in m.node_memory if p.node == 0)
    assert low[1:] == (0, 640 * KIB) and below[1:] == (MIB, 3 * GIB)
    assert above[1:] == (4 * GIB, 9 * GIB - 2148 * KIB)
    assert [(p.node, p.start // GIB, p.end // GIB) for p in m.node_memory[3:]] == [
        (1, 9, 25), (2, 25, 33), (33, 33, 49), (34, 49, 57), (45, 57, 73), (72, 73, 81),
        (73, 81, 97),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 40 << 20), min_size=1, max_size=9))
def test_any_sizes_can_be_laid_out(sizes_kib):
    """Nothing in the holes, nothing twice, each node its size, nodes in order."""
    nodes = tuple(Node(n, (n,), kib * KIB) for n, kib in enumerate(sizes_kib))
    memory_map, pieces = layout(nodes)
    for one, other in zip(memory_map, memory_map[1:], strict=False):
        assert one.end <= other.start
    assert not any(p.start < HOLE_END and HOLE_START < p.end for p in pieces)
    bios = (640 * KIB, MIB)
    assert not any(p.start < bios[1] and bios[0] < p.end for p in pieces)
    assert [p.node for p in pieces] == sorted(p.node for p in pieces)
    for node in nodes:
        size = sum(p.end - p.start for p in pieces if p.node == node.id)
        assert 0 <= node.memory_bytes - size <= 384 * KIB


def test_unknown_sizes_leave_the_map_unknown():
    """A topology seen through CPUID only: no RAM to divide, and it says so."""
    m = Machine.load("opteron-6164he-24")
    assert m.memory_map == m.ram == ()
    assert "RAM: no file says where it is" in m.describe()


def test_a_synthetic_machine_may_have_memory():
    """As many GiB a node as you like."""
    m = Machine.synthetic(2, 1, 4, gib_per_node=4)
    assert m.memory_bytes == 8 * GIB
    assert m.node_at(7 * GIB) == 1
    with pytest.raises(PopcornError, match="gib_per_node is 0.5; a whole number of GiB"):
        Machine.synthetic(2, gib_per_node=0.5)


# -- how it looks, and how long it takes -----------------------------------------------------------


def test_a_machine_tells_its_facts_and_their_sources():
    """RAM, interrupts and devices in words, and where each is from."""
    text = Machine.load("h8qg6-64").describe()
    for words in (
        "RAM: 128.0 GiB usable in 3 ranges up to 0x2027ffffff, of 12 ranges in all",
        "APIC ids 0x20-0x8f; 3 I/O APICs for the GSIs 0-87 (the boot log)",
        "68 PCI functions, 3 of them PCI bridges, 15 with an interrupt, 5 that use MSI",
        "packages: the APIC ids without their last 4 bits",
        "distances: the SLIT in",
    ):
        assert words in text
    html = Machine.load("h8qg6-64")._repr_html_()
    assert "[0x428000000-0x827ffffff]" in html


def test_machines_compare_and_hash():
    """Two loads of the same files are the same machine, whatever facts it has."""
    fresh = machine_module._load.__wrapped__("h8qg6-64")
    assert fresh == Machine.load("h8qg6-64")
    assert hash(fresh) == hash(Machine.load("h8qg6-64"))
    assert fresh.with_clock(1000).pci_functions == fresh.pci_functions


def test_a_complete_machine_loads_quickly():
    """Well under a tenth of a second, from the files."""
    started = time.perf_counter()
    machine_module._load.__wrapped__("h8qg6-64")
    assert time.perf_counter() - started < 0.1

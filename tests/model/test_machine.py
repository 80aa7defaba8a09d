"""What a Machine knows of itself, held against independent summaries of the same files."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.costs import COSTS, LABELS, UNITS
from popcorn_edu.model.hwloc import cpu_numbers, parse_cpuset
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.topology import CPUS_AT_MOST, cpu_list

EXPECTED = Path(__file__).parents[1] / "data" / "machines"
TOPOLOGIES = datasets.names("topology")
MEASURED = [name for name in Machine.names() if datasets.machine(name)["latencies"]]


@pytest.fixture
def drachma():
    return Machine.load("magny-cours-48")


def expected(name):
    stem = Path(datasets.entry(name)["file"]).stem
    return json.loads((EXPECTED / f"{stem}.expected.json").read_text(encoding="utf-8"))


# -- the files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_counts_cpus_and_memory_agree_with_an_independent_reading(name):
    """Packages, cores, CPUs, NUMA nodes with their numbers and bytes, by another parser."""
    m, oracle = Machine.load(name), expected(name)
    assert m.schema == oracle["xml_version"]
    assert (len(m.packages), len(m.cores), len(m.cpus)) == (
        oracle["packages"],
        oracle["cores"],
        oracle["pus"],
    )
    assert cpu_list(m.allowed_cpus) == oracle["allowed_cpus"]
    assert m.memory_bytes == oracle["total_memory"]
    nodes = sorted(oracle["numa_nodes"], key=lambda node: node["os_index"])
    assert [
        {"os_index": n.id, "cpus": cpu_list(n.cpus), "local_memory": n.memory_bytes}
        for n in m.nodes
    ] == nodes
    numbered = [
        {**package, "os_index": place if package["os_index"] == -1 else package["os_index"]}
        for place, package in enumerate(oracle["package_cpus"])
    ]
    assert [{"os_index": p.id, "cpus": cpu_list(p.cpus)} for p in m.packages] == numbered
    said = {name: m.info[name] for name in oracle["machine_info"]}
    assert said == oracle["machine_info"]
    model = oracle["cpu_model"]
    assert model is None or " ".join(model.split()) in (m.packages[0].model, m.info.get("CPUModel"))


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_caches_agree_with_an_independent_reading(name):
    """How many caches of which level, kind and size."""
    letter = {"data": "d", "instruction": "i", "unified": ""}
    counts = {}
    for cache in Machine.load(name).caches:
        sizes = counts.setdefault(f"L{cache.level}{letter[cache.kind]}", {})
        sizes[cache.size_bytes] = sizes.get(cache.size_bytes, 0) + 1
    assert {
        kind: sorted(({"size_bytes": s, "count": c} for s, c in sizes.items()), key=str)
        for kind, sizes in counts.items()
    } == {kind: sorted(rows, key=str) for kind, rows in expected(name)["caches"].items()}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_distances_agree_with_an_independent_reading(name):
    """The matrix follows the node numbers it names, not 0, 1, 2, …"""
    m, matrices = Machine.load(name), expected(name)["distances"]
    if not matrices:
        assert m.distances == {}
        return
    nodes = matrices[0].get("indexes") or [node.id for node in m.nodes]
    assert [[m.distance(a, b) for b in nodes] for a in nodes] == matrices[0]["matrix"]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_pci_devices_agree_with_an_independent_reading(name):
    """Bus address, class, ids and the CPUs each device is near to."""
    assert [
        {"busid": d.busid, "class": d.device_class, "id": d.vendor_device, "cpus": cpu_list(d.cpus)}
        for d in Machine.load(name).pci
    ] == [
        {"busid": d["busid"], "class": d["class"], "id": d["id"], "cpus": d["local_cpus"]}
        for d in expected(name)["pci"]
    ]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_cpu_kinds_agree_with_an_independent_reading(name):
    """Which CPUs are of which kind on a machine that mixes them."""
    told = []
    for kind in Machine.load(name).cpu_kinds:
        efficiency = None if kind.efficiency is None else str(kind.efficiency)
        told.append({"cpus": cpu_list(kind.cpus), "efficiency": efficiency} | kind.info)
    wanted = [
        {key: value for key, value in kind.items() if key != "forced_efficiency"}
        for kind in expected(name)["cpukinds"]
    ]
    assert told == wanted


@pytest.mark.parametrize("name", datasets.names("numa"))
def test_nodes_and_distances_are_those_that_numactl_prints(name):
    """The second witness: the text students meet on a real machine."""
    m = Machine.load(datasets.entry(name)["machine"])
    text = datasets.read_text(name)
    cpus = re.findall(r"^node (\d+) cpus: ?(.*)$", text, re.MULTILINE)
    assert {int(n): tuple(map(int, c.split())) for n, c in cpus} == {n.id: n.cpus for n in m.nodes}
    megabytes = {int(n): int(mb) for n, mb in re.findall(r"node (\d+) size: (\d+) MB", text)}
    assert megabytes == {n.id: n.memory_bytes >> 20 for n in m.nodes}
    head, *rows = text.split("node distances:\nnode ")[1].splitlines()
    for row in rows:
        node, distances = row.split(":")
        for other, distance in zip(head.split(), distances.split(), strict=True):
            assert m.distance(int(node), int(other)) == int(distance)


def test_both_file_formats_of_one_machine_say_the_same():
    """The 1.x file of the Drachma board and its 2.0 file differ in nothing the model uses."""
    new, old = Machine.load("magny-cours-48"), Machine.load("magny-cours-48-v1")
    assert (new.schema, old.schema) == ("2.0", "1.x")
    for table in ("cpus", "packages", "nodes", "cores", "distances"):
        assert getattr(new, table) == getattr(old, table)
    assert set(new.caches) == set(old.caches)


def test_offline_cpus_are_known_and_not_used():
    """Four of the sixteen CPUs of this machine were switched off."""
    m = Machine.load("netburst-12")
    assert m.cpus == (0, 1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 15)
    assert m.offline_cpus == (2, 5, 13, 14)


def test_a_node_may_have_memory_and_no_cpu():
    """Node 16 of the Superdome holds interleaved memory only."""
    node = Machine.load("superdome-128").node(16)
    assert node.cpus == () and node.memory_bytes > 0


def test_the_largest_machine_loads_quickly():
    """384 CPUs, 340 kB of XML: well below what a notebook cell would notice."""
    path = datasets.path("uv2000-384")
    times = []
    for _ in range(3):
        start = time.process_time()
        Machine.from_xml(path)
        times.append(time.process_time() - start)
    assert min(times) < 0.150


def test_a_machine_is_found_by_name_alias_and_path_alike():
    """The short name, the file's name and the file itself give one machine."""
    by_name = Machine.load("magny-cours-48")
    assert Machine.load("amd-magnycours-4s8n48c-drachma") is by_name
    assert Machine.default() is by_name
    from_path = Machine.from_xml(str(datasets.path("magny-cours-48")))
    assert from_path.name == "amd-magnycours-4s8n48c-drachma"
    assert (from_path.cpus, from_path.distances) == (by_name.cpus, by_name.distances)


def test_a_machine_of_your_own_takes_its_title_from_its_firmware():
    """lstopo writes vendor and product; a machine that says nothing is called by its name."""
    assert Machine.from_xml(datasets.path("opteron-6272-64")).title == "Dell Inc. PowerEdge R815"
    assert Machine.from_xml(TINY, name="tiny").title == "tiny"


def test_a_file_without_packages_cores_and_nodes_is_one_of_each():
    """Some virtual machines show nothing but CPUs."""
    m = Machine.from_xml(TINY)
    assert [p.cpus for p in m.packages] == [(0, 1)]
    assert [n.cpus for n in m.nodes] == [(0, 1)]
    assert [c.cpus for c in m.cores] == [(0,), (1,)]
    assert m.relation(0, 1) == "same die"


def test_packages_without_numbers_are_numbered_in_file_order():
    """Firmware may leave them out, or call every one 0."""
    package = '<object type="Package" {0} cpuset="{1}"><object type="PU" os_index="{2}"/></object>'
    for number in ("", 'os_index="0"'):
        inside = package.format(number, "0x1", 0) + package.format(number, "0x2", 1)
        m = Machine.from_xml(topology(inside))
        assert [p.id for p in m.packages] == [0, 1]


def test_a_die_in_the_file_is_a_die():
    """hwloc 2.1 and later name dies; then nothing has to be guessed."""
    die = '<object type="Die" cpuset="{0}"><object type="PU" os_index="{1}"/></object>'
    m = Machine.from_xml(topology(die.format("0x1", 0) + die.format("0x2", 1)))
    assert m.relation(0, 1) == "same package"


def test_a_machine_compares_by_what_it_is_and_prints_briefly(drachma):
    """Two readings of one file are equal; a traceback does not print 400 tables."""
    again = Machine.from_xml(datasets.path("magny-cours-48"), drachma.name)
    other = Machine.from_xml(datasets.path("magny-cours-48"), drachma.name)
    assert again == other and hash(again) == hash(other)
    assert repr(drachma) == "<Machine magny-cours-48: 48 CPUs>"


# -- cpusets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0x0", ()),
        ("0x0000ffff,0xffffffff", tuple(range(48))),
        ("0x1,,0x3", (0, 1, 64)),
        ("0x000000ff,,,,,,0x000000ff", (*range(8), *range(192, 200))),
        (",,0x1", (0,)),
        ("f", (0, 1, 2, 3)),
    ],
)
def test_a_cpuset_is_words_of_32_bits_highest_first(text, cpus):
    """A word left out between commas is zero."""
    assert cpu_numbers(parse_cpuset(text)) == cpus


@pytest.mark.parametrize("text", ["0xf...f", "0xf...f,0x0000ffff,0xffffffff"])
def test_an_endless_cpuset_holds_every_cpu_from_somewhere_up(text):
    """ "0xf...f" in front stands for all PUs above, as hwloc writes for "everything"."""
    bits = parse_cpuset(text)
    assert all(bits >> cpu & 1 for cpu in (0, 47, 64, 1000))


def test_an_endless_complete_cpuset_invents_no_offline_cpus():
    """It says "and all others", which is no list of CPUs that exist."""
    xml = topology(PUS).replace('cpuset="0x3"', 'cpuset="0x1" complete_cpuset="0xf...f"')
    assert Machine.from_xml(xml).offline_cpus == (1,)


@given(st.sets(st.integers(0, 300)))
@settings(max_examples=50, deadline=None)
def test_cpusets_and_cpu_lists_round_trip(cpus):
    """Any set of CPUs survives being written as hwloc and as Linux write it."""
    bits = sum(1 << cpu for cpu in cpus)
    words = [f"0x{bits >> shift & 0xFFFFFFFF:08x}" for shift in range(288, -1, -32)]
    assert cpu_numbers(parse_cpuset(",".join(words))) == tuple(sorted(cpus))
    ranges = (part.split("-") for part in cpu_list(cpus).split(",") if part)
    back = {cpu for r in ranges for cpu in range(int(r[0]), int(r[-1]) + 1)}
    assert back == cpus


# -- how far apart ---------------------------------------------------------------------------------


def test_relations_of_the_default_machine(drachma):
    """Two dies a package; packages one or two HyperTransport links apart."""
    assert [drachma.relation(0, cpu) for cpu in (0, 1, 6, 12, 18)] == [
        "same cpu",
        "same die",
        "same package",
        "1 hop",
        "2 hops",
    ]
    assert (drachma.node_of(18), drachma.package_of(18), drachma.distance(0, 33)) == (33, 1, 22)


def test_places_sort_as_the_hardware_does(drachma):
    """By package, die and core; and a CPU that is not there has no place."""
    at = drachma.place(18)
    assert (drachma.packages[at.package].id, at.cpu, at.node) == (1, 18, 33)
    assert sorted(drachma.cpus, key=drachma.place)[0] == 0
    with pytest.raises(PopcornError, match="has no CPU 48"):
        drachma.place(48)


def test_a_distance_of_16_is_no_hop_inside_a_package(drachma):
    """Nodes 0 and 1 are as far apart as nodes 0 and 2, yet on one piece of ceramic."""
    assert drachma.distance(0, 1) == drachma.distance(0, 2) == 16
    assert drachma.relation(0, 6) == "same package" and drachma.relation(0, 12) == "1 hop"


@pytest.mark.parametrize(
    ("name", "cpus", "relation"),
    [
        ("e5-2650-32", (0, 16), "same core"),
        ("opteron-6164he-24", (0, 6), "same package"),  # by L3: the file has one NUMA node
        ("netburst-12", (0, 4), "same die"),
        ("netburst-12", (0, 1), "1 hop"),  # no distances at all
        ("uv2000-384", (0, 8), "1 hop"),  # 50
        ("uv2000-384", (0, 16), "2 hops"),  # 65
        ("uv2000-384", (0, 80), "3 hops"),  # 79
        ("power7-256", (0, 255), "3 hops"),
        ("zhaoxin-8", (0, 7), "same die"),
    ],
)
def test_relations_on_other_machines(name, cpus, relation):
    """Threads, dies without NUMA, packages without distances, three levels of links."""
    assert Machine.load(name).relation(*cpus) == relation


@pytest.mark.parametrize("name", Machine.names())
def test_relations_and_transfers_are_the_same_both_ways(name):
    """The model has no one-way roads."""
    m = Machine.load(name)
    some = m.spread(min(12, len(m.cpus)))
    for a in some:
        assert m.transfer_ns(a, a) == 0
        for b in some:
            assert m.relation(a, b) == m.relation(b, a)
            assert m.transfer_ns(a, b) == m.transfer_ns(b, a)
            assert a == b or m.transfer_ns(a, b) > 0


def test_default_transfers_are_the_labelled_constants_at_the_machines_clock(drachma):
    """81, 161, 172 and 252 cycles at 1.7 GHz, rounded half up."""
    assert [drachma.transfer_ns(0, cpu) for cpu in (1, 6, 12, 18)] == [48, 95, 101, 148]
    assert drachma.transfer_source(0, 18) == (
        "model default: line_transfer_2_hops_cycles = 252 cycles at 1.7 GHz"
    )


def test_no_machine_calls_a_default_measured():
    """Only a machine with a latency file of its own says "measured"."""
    for name in Machine.names():
        m = Machine.load(name)
        source = m.transfer_source(*m.spread(2))
        assert source.startswith("measured: c2c-") == (name in MEASURED)
        assert source.startswith("model default: ") == (name not in MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_latencies_show_the_shape_the_manifest_gives(name):
    """Threads of a core, cores of a package, packages: each tier is slower than the one before."""
    m = Machine.load(name)
    tiers = {}
    for a in m.cpus:
        for b in m.cpus[: m.cpus.index(a)]:
            tiers.setdefault(m.relation(a, b), []).append(m.transfer_ns(a, b))
    order = [tiers[r] for r in ("same core", "same die", "1 hop") if r in tiers]
    assert len(order) == len(tiers)
    for near, far in zip(order, order[1:], strict=False):
        assert max(near) < min(far)


@pytest.mark.parametrize("name", MEASURED)
def test_measured_latencies_agree_with_an_independent_reading(name):
    """How many pairs, the shortest and the longest, to the ns."""
    m = Machine.load(name)
    oracle = json.loads(
        (EXPECTED / f"{datasets.machine(name)['latencies']}.expected.json").read_text()
    )
    assert len(m.latencies_ns) == oracle["filled"]
    assert min(m.latencies_ns.values()) == int(oracle["min"] + 0.5)
    assert max(m.latencies_ns.values()) == int(oracle["max"] + 0.5)


def test_a_latency_too_short_to_measure_falls_back_to_the_default():
    """A pair that reads 0 ns was below the clock's resolution; empty means not measured."""
    m = Machine.synthetic(1, 1, 3).with_latencies(",,\n0.2,,\n40,,", "my laptop")
    assert m.transfer_source(0, 1).startswith("model default")
    assert m.transfer_source(1, 2).startswith("model default")
    assert (m.transfer_ns(2, 0), m.transfer_source(2, 0)) == (40, "measured: my laptop")


def test_cycles_become_whole_ns_rounded_half_up(drachma):
    """Integer arithmetic only: 17 cycles at 1.7 GHz are 10 ns, 0.85 cycles would be half of one."""
    assert [drachma.ns(c) for c in (0, 17, 18, 1000, 10**15)] == [
        0,
        10,
        11,
        588,
        588235294117647,
    ]
    half = Machine.synthetic(1).with_clock(2000)
    assert [half.ns(c) for c in (1, 2, 3)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("name", "ghz", "source"),
    [
        ("magny-cours-48", 1.7, "FrequencyMaxMHz in its topology file"),
        ("e5-2650-32", 2.0, "from its name, Intel(R) Xeon(R) CPU E5-2650 0 @ 2.00GHz"),
        ("zhaoxin-8", 1.8, "from its name, ZXD D4600@1800MHz"),
        ("i7-1370p-20", 1.9, "FrequencyBaseMHz in its topology file"),
        ("x5650-24", 2.67, "the clock in the name of the measurement file"),
        ("opteron-6164he-24", 1.7, "model default"),
    ],
)
def test_the_clock_says_where_it_comes_from(name, ghz, source):
    """The processor's name, the file, the manifest, else the model's default."""
    m = Machine.load(name)
    assert (m.ghz, m.mhz_source) == (ghz, source)


# -- choosing CPUs ---------------------------------------------------------------------------------


def test_spread_goes_over_packages_then_dies_then_cores(drachma):
    """The first four kernels sit in four packages, the next four on the other dies."""
    assert drachma.spread(9) == (0, 12, 24, 36, 6, 18, 30, 42, 1)
    assert Machine.load("e5-2650-32").spread(3) == (0, 8, 1)
    assert drachma.first(3) == (0, 1, 2)


@pytest.mark.parametrize("name", Machine.names())
def test_spread_names_each_cpu_once_and_threads_last(name):
    """All CPUs in the end, and no second thread before every core has its first."""
    m = Machine.load(name)
    everyone = m.spread(len(m.cpus))
    assert sorted(everyone) == list(m.cpus)
    core = {cpu: at for at, c in enumerate(m.cores) for cpu in c.cpus}
    if len({len(c.cpus) for c in m.cores}) == 1:
        first = [core[cpu] for cpu in everyone[: len(m.cores)]]
        assert len(set(first)) == len(m.cores)
    assert m.check_cpus(everyone) == everyone


def test_a_synthetic_machine_is_regular_and_says_so():
    """Numbers run through all cores before they come back for the second threads."""
    m = Machine.synthetic(2, 2, 2, 2)
    assert m.name == "synthetic-2x2x2x2" and "Synthetic" in m.title
    assert [n.cpus for n in m.nodes] == [
        (0, 1, 8, 9),
        (2, 3, 10, 11),
        (4, 5, 12, 13),
        (6, 7, 14, 15),
    ]
    assert [m.relation(0, c) for c in (8, 1, 2, 4)] == [
        "same core",
        "same die",
        "same package",
        "1 hop",
    ]
    assert Machine.synthetic(1, 1, 2, 2, threads_adjacent=True).relation(0, 1) == "same core"


# -- costs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COSTS)
def test_every_cost_has_a_unit_a_range_a_tag_and_a_source(name):
    """The name ends in the unit; what Popcorn's source does not say is a model default."""
    cost = COSTS[name]
    assert cost.unit in UNITS and name.endswith("_" + cost.unit)
    assert cost.low is None or cost.low <= cost.value <= cost.high
    assert cost.tag in "CDMRA" and cost.source
    assert (cost.label == "model default") == (cost.tag in "MRA")
    assert not any("published" in label for label in LABELS.values())


def test_the_cold_and_hot_path_add_up_as_the_facts_say():
    """3,520 cycles with an interrupt, 1,320 for a receiver that is already polling, at one hop."""
    line = COSTS["line_transfer_1_hop_cycles"].value
    put = COSTS["ring_put_transfers"].value * line + COSTS["ring_put_cycles"].value
    get = COSTS["ring_get_transfers"].value * line
    handle = COSTS["message_copy_cycles"].value + COSTS["callback_dispatch_cycles"].value
    interrupt = ("icr_write", "ipi_delivery", "isr_top_half", "softirq_entry")
    assert put + get + handle == 1320
    assert put + get + handle + sum(COSTS[f"{n}_cycles"].value for n in interrupt) == 3520


def test_a_cost_is_a_time_on_a_machine(drachma):
    """Cycles go through the clock, ns stay what they are."""
    assert drachma.cost_ns("icr_write_cycles") == 176
    assert drachma.cost_ns("init_assert_ns") == 10_000_000


def test_your_own_constants_make_another_machine(drachma):
    """It is labelled, renamed, and leaves the original alone."""
    own = drachma.with_costs(icr_write_cycles=450, line_transfer_2_hops_cycles=500)
    assert own.cost_ns("icr_write_cycles") == 265
    assert own.transfer_source(0, 18).startswith("set by you: line_transfer_2_hops_cycles = 500")
    assert own.transfer_ns(0, 18) == 294
    assert own.name == "magny-cours-48 with own numbers"
    assert drachma.cost_ns("icr_write_cycles") == 176 and drachma.transfer_ns(0, 18) == 148


def test_the_cost_table_prints_and_shows(drachma):
    """One row a constant, as text and as a table with headings."""
    table = drachma.costs_table()
    assert len(table) == len(COSTS)
    assert len(str(table).splitlines()) == len(COSTS) + 1
    assert "icr_write_cycles" in str(table) and "exact" in str(table)
    html = table._repr_html_()
    assert html.count('<th scope="row">') == len(COSTS) and "<caption>" in html


# -- how it looks ----------------------------------------------------------------------------------


def test_describe_tells_size_clock_and_distances(drachma):
    """What a student prints first."""
    text = drachma.describe()
    assert text == str(drachma)
    assert "48 CPUs (0-47) in 48 cores, 4 packages, 8 NUMA nodes; 96.0 GiB" in text
    assert "2 hops: 148 ns from CPU 0 to 18 (model default" in text


def test_a_notebook_shows_a_table_of_nodes(drachma):
    """With a caption and headings, so that a screen reader reads it."""
    html = drachma._repr_html_()
    assert html.count("<tr>") == 9 and "<caption>magny-cours-48" in html
    assert "none" in Machine.load("superdome-128")._repr_html_()


def test_the_graph_holds_everything_once_and_places_it(drachma):
    """Machine, packages, nodes, cores and CPUs, nested; nodes joined by their distances."""
    graph = drachma.graph()
    kinds = [data["kind"] for _, data in graph.nodes(data=True)]
    assert {k: kinds.count(k) for k in kinds} == {
        "machine": 1,
        "package": 4,
        "node": 8,
        "core": 48,
        "cpu": 48,
    }
    links = [d for *_, d in graph.edges(data=True) if d["kind"] == "link"]
    assert len(links) == 28 and {d["distance"] for d in links} == {16, 22}
    assert graph.has_edge("package 1", "node 33") and graph.has_edge("machine", "package 1")
    places = {data["pos"] for _, data in graph.nodes(data=True)}
    assert len(places) == graph.number_of_nodes()
    assert graph.nodes["machine"]["pos"] == (0.0, 0.0)


@pytest.mark.parametrize("name", ["superdome-128", "netburst-12", "cortex-a9-2", "rpi4-4"])
def test_the_graph_is_in_one_piece(name):
    """Also with a node without CPUs, a node across packages, and a single package."""
    import networkx

    assert networkx.is_connected(Machine.load(name).graph())


def test_loading_a_machine_loads_nothing_heavy():
    """networkx and numpy come with graph(), not before."""
    ask = (
        "import sys; from popcorn_edu.model.machine import Machine; Machine.default().describe();"
        "print([m for m in ('networkx', 'numpy', 'bokeh', 'simpy', 'IPython') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# -- bad input -------------------------------------------------------------------------------------

PUS = '<object type="PU" os_index="0"/>\n<object type="PU" os_index="1"/>'


def topology(inside=PUS, after="", head='<topology version="2.0">'):
    return (
        f'{head}\n<object type="Machine" cpuset="0x3">\n{inside}\n</object>\n{after}\n</topology>'
    )


TINY = topology()
NODES = PUS + (
    '\n<object type="NUMANode" os_index="0" cpuset="0x1"/>'
    '\n<object type="NUMANode" os_index="7" cpuset="0x2"/>'
)


def matrix(nbobjs="2", indexes="0 7", values="10 20 20 10"):
    return (
        f'<distances2 type="NUMANode" nbobjs="{nbobjs}" kind="5" indexing="os">'
        f"<indexes>{indexes}</indexes><u64values>{values}</u64values></distances2>"
    )


BAD_XML = {
    "empty": "",
    "not XML": b"CPU list:\n0-47",
    "malformed": "<topology>\n <object></info>\n</topology>",
    "truncated": TINY[:90],
    "unknown encoding": b'<?xml version="1.0" encoding="klingon"?><topology/>',
    "entity bomb": '<!DOCTYPE t [\n<!ENTITY a "b"><!ENTITY c "&a;&a;">]><topology>&c;</topology>',
    "external entity": '<!DOCTYPE topology [<!ENTITY a SYSTEM "x.xml">]><topology>&a;</topology>',
    "nested too deep": "<topology>" + "<object>" * 200,
    "another root": "<html>\n<body/></html>",
    "future version": topology(head='<topology version="9.1">'),
    "nothing inside": "<topology/>",
    "no PU": topology(""),
    "no PU online": topology('<object type="PU" os_index="5"/>'),
    "PU without os_index": topology('<object type="PU"/>'),
    "two PUs with one os_index": topology(PUS + '\n<object type="PU" os_index="1"/>'),
    "PU number is no number": topology('<object type="PU" os_index="one"/>'),
    "absurd PU number": topology('<object type="PU" os_index="4000000000"/>'),
    "garbled cpuset": TINY.replace('"0x3"', '"0-1"'),
    "cpuset word too long": TINY.replace('"0x3"', '"0x123456789"'),
    "endless cpuset in the middle": TINY.replace('"0x3"', '"0x1,0xf...f"'),
    "absurdly long cpuset": TINY.replace('"0x3"', '"0x1' + "," * 3000 + '"'),
    "NUMA node without cpuset": topology(PUS + '\n<object type="NUMANode" os_index="4"/>'),
    "NUMA node without os_index": topology(PUS + '\n<object type="NUMANode" cpuset="0x3"/>'),
    "two NUMA nodes with one os_index": topology(NODES.replace('"7"', '"0"')),
    "CPU in no NUMA node": topology(NODES.replace('"0x2"', '"0x0"')),
    "negative memory": topology(NODES.replace('"0x2"', '"0x2" local_memory="-4096"')),
    "absurd memory": topology(NODES.replace('"0x2"', '"0x2" local_memory="99999999999999999999"')),
    "CPU in two packages": topology(
        PUS + '\n<object type="Package" cpuset="0x3"/><object type="Package" cpuset="0x2"/>'
    ),
    "CPU in no package": topology(PUS + '\n<object type="Package" cpuset="0x1"/>'),
    "CPU in no core": topology(PUS + '\n<object type="Core" cpuset="0x2"/>'),
    "distance matrix of wrong size": topology(NODES, matrix(values="10 20 20")),
    "distance matrix with missing indexes": topology(NODES, matrix(indexes="0")),
    "distances of an unknown node": topology(NODES, matrix(indexes="0 1")),
    "distances that are no numbers": topology(NODES, matrix(values="10 20 x 10")),
    "distances without a count": topology(NODES, matrix().replace('nbobjs="2"', "")),
    "old distances of wrong size": topology(
        NODES + '\n<distances nbobjs="2" latency_base="1.0"><latency value="1.0"/></distances>'
    ),
    "old distances that are no numbers": topology(
        NODES + '\n<distances nbobjs="2">\n<latency value="near"/></distances>'
    ),
    "cache size is no number": topology(
        PUS + '\n<object type="L2Cache" cpuset="0x3" cache_size="512K"/>'
    ),
    "cache of an unknown kind": topology(
        PUS + '\n<object type="Cache" depth="2" cpuset="0x3" cache_type="7"/>'
    ),
    "PCI device without address": topology(
        PUS + '\n<object type="PCIDev" pci_type="0200 [8086:10c9]"/>'
    ),
    "PCI device without ids": topology(
        PUS + '\n<object type="PCIDev" pci_busid="0000:04:00.0" pci_type="nic"/>'
    ),
    "a number instead of a file": 42,
    "no such file": "no-such-machine.xml",
    "a zero in the path": "a\0b.xml",
}
SENTENCES = dict(
    line.split(": ", 1)
    for line in (EXPECTED / "bad_topologies.txt").read_text(encoding="utf-8").splitlines()
)


@pytest.mark.parametrize("case", BAD_XML)
def test_a_bad_topology_file_gets_one_sentence(case):
    """Which file, which line, what is there, what was expected."""
    with pytest.raises(PopcornError) as caught:
        Machine.from_xml(BAD_XML[case])
    assert str(caught.value) == SENTENCES[case]


@pytest.mark.parametrize(
    "case", ["cache of an unknown kind", "PCI device without address", "PCI device without ids"]
)
def test_an_endless_value_is_quoted_by_its_beginning(case):
    """40 letters of it are enough to find it."""
    attribute = {"kind": "cache_type", "address": "pci_busid", "ids": "pci_type"}[case.split()[-1]]
    text = re.sub(rf' {attribute}="[^"]*"', "", BAD_XML[case])
    text = re.sub(r"<object type=\"(Cache|PCIDev)\"", rf'\g<0> {attribute}="{"7" * 5_000}"', text)
    with pytest.raises(PopcornError, match=rf"{attribute} is '7{{39}}; expected") as caught:
        Machine.from_xml(text)
    assert len(str(caught.value)) < 200


def test_a_folder_is_no_topology_file(tmp_path):
    """The path is named as it was given."""
    with pytest.raises(PopcornError, match="this is a folder, where an hwloc topology file"):
        Machine.from_xml(tmp_path)


def test_a_bad_file_is_called_by_its_name(tmp_path):
    """Line numbers are of use only with the file's name."""
    bad = tmp_path / "laptop.xml"
    bad.write_text(TINY[:90])
    with pytest.raises(PopcornError, match=r"^laptop\.xml, line 3, column 1: the file ends"):
        Machine.from_xml(bad)


SMALL = Machine.synthetic(1, 1, 3)
BAD_USE = {
    "unknown machine": (
        lambda m: Machine.load("magny-cours"),
        "There is no machine called 'magny-cours'; did you mean magny-cours-48 or "
        "magny-cours-48-v1?",
    ),
    "no name": (
        lambda m: Machine.load(48),
        "A machine is asked for by its name in quotes, not by int.",
    ),
    "CPU that does not exist": (
        lambda m: m.check_cpus([0, 48]),
        "magny-cours-48 has no CPU 48; its CPUs are 0-47.",
    ),
    "CPU that is offline": (
        lambda m: Machine.load("netburst-12").check_cpus([0, 5]),
        "CPU 5 of netburst-12 is offline; its online CPUs are 0-1,3-4,6-12,15.",
    ),
    "CPU named twice": (
        lambda m: m.check_cpus([3, 4, 3]),
        "CPU 3 is named twice; each CPU can belong to one kernel only.",
    ),
    "CPU that is a word": (
        lambda m: m.check_cpus(["0"]),
        "'0' is no CPU number; a whole number was expected.",
    ),
    "CPU that is a fraction": (
        lambda m: m.check_cpus([1.5]),
        "1.5 is no CPU number; a whole number was expected.",
    ),
    "one CPU instead of a list": (
        lambda m: m.check_cpus(3),
        "3 is no list of CPU numbers; one such as [0, 12, 24] was expected.",
    ),
    "too many CPUs": (
        lambda m: m.spread(49),
        "49 CPUs were asked for; magny-cours-48 has 48, so a number from 1 to 48 was expected.",
    ),
    "no CPUs": (
        lambda m: m.first(0),
        "0 CPUs were asked for; magny-cours-48 has 48, so a number from 1 to 48 was expected.",
    ),
    "transfer to nowhere": (
        lambda m: m.transfer_ns(0, 99),
        "magny-cours-48 has no CPU 99; its CPUs are 0-47.",
    ),
    "relation of a list": (
        lambda m: m.relation([0], 1),
        "magny-cours-48 has no CPU [0]; its CPUs are 0-47.",
    ),
    "distance to an unknown node": (
        lambda m: m.distance(0, 3),
        "magny-cours-48 has no NUMA node 3; its nodes are 0-2,33-34,45,72-73.",
    ),
    "unknown cost": (
        lambda m: m.cost_ns("icr_write"),
        "There is no cost called 'icr_write'; did you mean icr_write_cycles?",
    ),
    "a cost that is no time": (
        lambda m: m.cost_ns("ring_put_transfers"),
        "ring_put_transfers counts transfers; a cost in cycles or ns was expected here.",
    ),
    "own cost that is no number": (
        lambda m: m.with_costs(icr_write_cycles="fast"),
        "icr_write_cycles is 'fast'; a whole number of cycles was expected.",
    ),
    "own clock that is no number": (
        lambda m: m.with_clock(2.4),
        "2.4 is no clock; a whole number of MHz from 1 to 100000 was expected.",
    ),
    "synthetic machine of nothing": (
        lambda m: Machine.synthetic(0),
        "0 is no count of packages, nodes, cores or threads; a whole number from 1 up was "
        "expected.",
    ),
    "synthetic machine without end": (
        lambda m: Machine.synthetic(1000, 1000),
        f"That machine would have 1000000 CPUs; at most {CPUS_AT_MOST} were expected.",
    ),
    "latencies not square": (
        lambda m: SMALL.with_latencies(",,\n5,,\n5,5"),
        "the table, line 3: 2 columns; 3 were expected, as many as there are rows.",
    ),
    "latency that is no number": (
        lambda m: SMALL.with_latencies(",\nfast,"),
        "the table, line 2, column 1: 'fast'; a latency in ns was expected.",
    ),
    "negative latency": (
        lambda m: SMALL.with_latencies(",\n-5,"),
        "the table, line 2, column 1: '-5'; a latency in ns was expected.",
    ),
    "latencies of a larger machine": (
        lambda m: SMALL.with_latencies(",,,\n5,,,\n5,5,,\n5,5,5,"),
        "the table has latencies of CPU 3, which the machine does not have; a table of 3 rows at "
        "most was expected.",
    ),
    "no latencies": (
        lambda m: SMALL.with_latencies(",\n,"),
        "the table holds no latency; a square table of ns was expected.",
    ),
    "no latency file": (
        lambda m: SMALL.with_latencies("mine.csv"),
        "mine.csv: cannot be read; a CSV table was expected.",
    ),
}


@pytest.mark.parametrize("case", BAD_USE)
def test_a_wrong_question_gets_one_sentence(case, drachma):
    """What was asked, of which machine, and what there is."""
    ask, sentence = BAD_USE[case]
    with pytest.raises(PopcornError) as caught:
        ask(drachma)
    assert str(caught.value) == sentence


VICTIMS = ["cortex-a9-2", "netburst-12", "westmere-24", "magny-cours-48-v1", "magny-cours-48"]


@given(
    name=st.sampled_from(VICTIMS),
    cut=st.one_of(st.none(), st.floats(0, 1)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_gives_a_machine_or_a_sentence(name, cut, flips):
    """Cut anywhere, flip any bits: never another exception, and a machine that can be used."""
    data = bytearray(datasets.path(name).read_bytes())
    for where, bit in flips:
        data[int(where * len(data))] ^= 1 << bit
    if cut is not None:
        del data[int(cut * len(data)) :]
    try:
        m = Machine.from_xml(bytes(data))
    except PopcornError as error:
        assert str(error).count("\n") == 0 and str(error).endswith(".")
    else:
        m.describe()
        m.check_cpus(m.spread(len(m.cpus)))


ATTRIBUTE = re.compile(rb'(?<= )[a-z_]+="[^"]*"')


@given(
    name=st.sampled_from(VICTIMS),
    where=st.floats(0, 1, exclude_max=True),
    value=st.sampled_from([None, b"", b"-1", b"0", b"0x0", b"0xf...f", b"x", b"7", b"9" * 25]),
)
@settings(max_examples=150, deadline=None)
def test_a_wrong_attribute_gives_a_machine_or_a_sentence(name, where, value):
    """Well-formed XML with one attribute gone or nonsense: the damage people do by hand."""
    data = datasets.path(name).read_bytes()
    places = list(ATTRIBUTE.finditer(data))
    hit = places[int(where * len(places))]
    key = hit[0].split(b"=")[0]
    new = b"" if value is None else key + b'="' + value + b'"'
    try:
        m = Machine.from_xml(data[: hit.start()] + new + data[hit.end() :])
    except PopcornError as error:
        assert str(error).count("\n") == 0 and str(error).endswith(".")
    else:
        m.describe()
        m.check_cpus(m.spread(len(m.cpus)))

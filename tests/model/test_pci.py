"""Devices and interrupts, held against independent readings of the same files."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.pci import (
    PciFunction,
    in_order,
    read_interrupts,
    read_lspci,
    read_pci_csv,
    slot_of,
    tree,
)

EXPECTED = Path(__file__).parents[1] / "data"
LISTINGS = [n for n in datasets.names("pci") if datasets.entry(n)["file"].endswith(".txt")]
TABLES = [n for n in datasets.names("pci") if datasets.entry(n)["file"].endswith(".csv")]


def oracle(name):
    path = Path(datasets.entry(name)["file"])
    text = (EXPECTED / path.parent / f"{path.name.split('.')[0]}.expected.json").read_text("utf-8")
    return json.loads(text)


# -- lspci -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_agrees_with_an_independent_reading(name):
    """Class, ids, interrupt, node, buses, regions, driver and MSI of every function."""
    told = {f.slot: f for f in read_lspci(datasets.read_text(name))}
    expected = oracle(name)["functions"]
    assert list(told) == [row["bdf"] for row in expected]
    for row in expected:
        function = told[row["bdf"]]
        assert function.device_class == row["class"]
        assert function.vendor_device == f"{row['vendor']}:{row['device']}"
        assert (function.pin, function.irq) == (row["pin"] or "", row["irq"])
        assert (function.node, function.driver) == (row["numa_node"], row["driver"] or "")
        assert function.msi == (row["msi"] or "")
        assert function.regions == tuple(
            (r["index"], r["kind"], r["base"], r["size"] or 0) for r in row["regions"]
        )
        if row["bus"] and row["bus"][1:] != [0, 0]:
            assert (function.bus, *function.bridge_to) == tuple(row["bus"])
        else:
            assert function.bridge_to is None


def test_a_plain_listing_has_slots_classes_and_ids():
    """`lspci -nn` without -D and -vv: one line a function, domain 0."""
    told = read_lspci(
        "00:00.0 Host bridge [0600]: Intel Corporation Device [8086:3e34] (rev 0b)\n"
        "02:00.0 Ethernet controller [0200]: Intel Corporation I210 [8086:157b] (rev 03)\n"
    )
    assert told[1] == PciFunction(
        "0000:02:00.0", "8086:157b", "0200", "Intel Corporation I210"
    )  # fmt: skip
    assert told[1].kind == "Ethernet controller"


def test_what_a_driver_and_msi_look_like():
    """Enabled capabilities count; regions of functions that SR-IOV could make do not."""
    (told,) = read_lspci(
        "02:00.0 Ethernet controller [0200]: Intel 82576 [8086:10c9] (rev 01)\n"
        "\tInterrupt: pin A routed to IRQ 28\n"
        "\tNUMA node: 0\n"
        "\tRegion 0: Memory at f0600000 (32-bit, non-prefetchable) [size=128K]\n"
        "\tRegion 2: I/O ports at d400 [disabled] [size=32]\n"
        "\tRegion 3: Memory at <unassigned> (64-bit, prefetchable) [disabled]\n"
        "\tCapabilities: [50] MSI: Enable- Count=1/1 Maskable+ 64bit+\n"
        "\tCapabilities: [70] MSI-X: Enable+ Count=10 Masked-\n"
        "\tCapabilities: [160 v1] Single Root I/O Virtualization (SR-IOV)\n"
        "\t\tRegion 0: Memory at 00000000f06c4000 (64-bit, non-prefetchable)\n"
        "\tKernel driver in use: igb\n"
        "\tKernel modules: igb\n"
    )
    assert (told.pin, told.irq, told.msi, told.driver, told.node) == ("A", 28, "MSI-X", "igb", 0)
    assert told.regions == ((0, "mem", 0xF0600000, 0x20000), (2, "io", 0xD400, 32))


def test_domains_beyond_ffff_are_kept_and_sorted_as_numbers():
    """10000 comes after 0000 and after ffff."""
    told = read_lspci(datasets.read_text("pci-kvm-pcidomain32"))
    assert told[-1].slot == "10000:00:04.0"
    assert told[-1].domain == 0x10000
    slots = ["10000:00:00.0", "ffff:00:00.0", "0000:01:00.0"]
    assert sorted(slots, key=in_order) == slots[::-1]


@pytest.mark.parametrize(
    ("typed", "slot"),
    [("2:0.0", None), ("02:00.0", "0000:02:00.0"), ("0000:02:1F.7", "0000:02:1f.7"),
     ("02:20.0", None), ("02:00.8", None), ("10000:00:04.0", "10000:00:04.0")],
)  # fmt: skip
def test_a_slot_in_full(typed, slot):
    """Devices go to 1f and functions to 7."""
    if slot:
        assert slot_of(typed) == slot
    else:
        with pytest.raises(ValueError):
            slot_of(typed)


# -- tables of facts -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_facts_says_what_its_cells_say(name):
    """Row by row, read by another reader."""
    rows = list(csv.DictReader(io.StringIO(datasets.read_text(name))))
    told = {f.slot: f for f in read_pci_csv(datasets.read_text(name))}
    assert len(told) == len(rows)
    for row in rows:
        slot = row["bdf"] if row["bdf"].count(":") == 2 else "0000:" + row["bdf"]
        function = told[slot]
        assert function.vendor_device == row.get("id") or f"{row['vendor']}:{row['device']}"
        assert function.device_class == row["class"][:4]
        assert function.pin == row["pin"]
        assert function.irq == (int(row["irq"]) if row["irq"] else None)
        buses = (row["secondary"], row["subordinate"])
        assert function.bridge_to == (tuple(map(int, buses)) if any(buses) else None)
        assert len(function.regions) == len(row["regions"].split())


def test_the_h8qg6_is_complete():
    """68 functions; the network card, the disks and the console hang behind three bridges."""
    functions = read_pci_csv(datasets.read_text("pci-h8qg6-64"))
    assert len(functions) == 68
    drawn = tree(functions)
    assert drawn.notes == ()
    assert drawn.above("0000:02:00.1") == ("0000:00:0d.0",)
    assert drawn.above("0000:03:00.0") == ("0000:00:04.0",)
    assert drawn.above("0000:01:04.0") == ("0000:00:14.4",)
    assert drawn.parent["0000:40:00.0"] is None


# -- the tree --------------------------------------------------------------------------------------


def test_bridges_behind_bridges():
    """Laptop: root, PCI bridge, CardBus bridge, card."""
    drawn = tree(read_pci_csv(datasets.read_text("pci-p8010")))
    assert drawn.above("0000:1d:00.0") == ("0000:00:1e.0", "0000:1c:03.0")
    assert set(drawn.below("0000:00:1e.0")) == {
        "0000:1c:03.0", "0000:1c:03.2", "0000:1c:03.4", "0000:1d:00.0",
    }  # fmt: skip


@pytest.mark.parametrize("name", datasets.names("pci"))
def test_every_function_is_in_the_tree_once(name):
    """The drawing loses nothing and doubles nothing."""
    text = datasets.read_text(name)
    functions = (read_pci_csv if name in TABLES else read_lspci)(text)
    drawn, seen = tree(functions), []

    def walk(branches):
        for branch in branches:
            seen.append(branch.function)
            walk(branch.below)

    walk(drawn.roots)
    assert sorted(seen) == sorted(functions)
    assert all(function.slot in str(drawn) for function in functions)


def bridge(slot, buses=None):
    return PciFunction(slot, "1022:1234", "0604", bridge_to=buses)


def card(slot):
    return PciFunction(slot, "8086:10c9", "0200")


HOST = PciFunction("0000:00:00.0", "1022:0000", "0600")


def test_a_bus_is_derived_where_there_is_no_choice():
    """One bridge without numbers, one bus that nobody leads to: said to be derived."""
    drawn = tree([HOST, bridge("0000:00:04.0"), card("0000:02:00.0")])
    assert drawn.parent["0000:02:00.0"] == "0000:00:04.0"
    assert drawn.notes == (
        "derived: bus 02 is behind 0000:00:04.0, the only bridge without bus numbers",
    )


def test_a_bus_is_not_derived_where_there_is_a_choice():
    """Two bridges could lead there: shown as a root, and said."""
    drawn = tree([HOST, bridge("0000:00:04.0"), bridge("0000:00:0d.0"), card("0000:02:00.0")])
    assert drawn.parent["0000:02:00.0"] is None
    assert drawn.notes == (
        "not derivable: no bridge is said to lead to bus 02, and the list gives no bus numbers "
        "for 0000:00:04.0, 0000:00:0d.0; shown as roots",
    )


def test_the_narrowest_bridge_leads_to_a_bus():
    """A bridge that passes many buses on is not the one that a card hangs on."""
    functions = [HOST, bridge("0000:00:01.0", (1, 9)), bridge("0000:01:00.0", (2, 3)),
                 card("0000:03:00.0"), card("0000:05:00.0")]  # fmt: skip
    drawn = tree(functions)
    assert drawn.above("0000:03:00.0") == ("0000:00:01.0", "0000:01:00.0")
    assert drawn.above("0000:05:00.0") == ("0000:00:01.0",)


def test_a_domain_keeps_to_itself():
    """Bus 2 of one domain is not behind a bridge of another."""
    drawn = tree([HOST, bridge("0000:00:01.0", (2, 2)), card("10000:02:00.0")])
    assert drawn.parent["10000:02:00.0"] is None


# -- /proc/interrupts ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", datasets.names("irq"))
def test_interrupts_agree_with_an_independent_reading(name):
    """Every row with every count, on x86 and on arm; rows like ERR count once for all CPUs."""
    told, expected = read_interrupts(datasets.read_text(name)), oracle(name)
    assert len(told.cpus) == expected["cpus"]
    assert [
        {"irq": row.name, "counts": list(row.counts), "desc": row.says} for row in told.rows
    ] == expected["rows"]


def test_a_count_is_asked_for_by_name_and_cpu():
    """A number or a name; ERR belongs to no CPU."""
    told = read_interrupts(datasets.read_text("irq-x86-laptop-4"))
    assert told.count(16, 3) == 351412
    assert told.count("RES", 0) == 10847134
    assert told.row(16).irq == 16 and told.row("RES").irq is None
    with pytest.raises(PopcornError, match="Interrupt ERR is not counted for CPU 0"):
        told.count("ERR", 0)
    with pytest.raises(PopcornError, match="There is no interrupt 'RSE'; did you mean"):
        told.row("RSE")


def test_cpus_may_have_gaps():
    """Offline CPUs have no column."""
    told = read_interrupts("     CPU0  CPU2\n 16:  5  7  IO-APIC  eth0\n")
    assert told.cpus == (0, 2)
    assert told.count(16, 2) == 7


# -- damage ----------------------------------------------------------------------------------------

TEXTS = {n: datasets.read_text(n) for n in (*datasets.names("pci"), *datasets.names("irq"))}


def reader(name):
    if name in TABLES:
        return read_pci_csv
    return read_lspci if name in LISTINGS else read_interrupts


@given(
    name=st.sampled_from(sorted(TEXTS)),
    cut=st.floats(0, 1),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.characters(max_codepoint=0x2FF)), max_size=6
    ),
)
@settings(max_examples=150, deadline=None)
def test_a_damaged_text_gives_facts_or_a_sentence(name, cut, changes):
    """Cut anywhere, change any letters: never another exception, and a tree that can be drawn."""
    text = list(TEXTS[name])
    for where, letter in changes:
        text[int(where * len(text))] = letter
    try:
        told = reader(name)("".join(text[: int(cut * len(text))]), name)
    except PopcornError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(name)
    else:
        if name not in datasets.names("irq"):
            str(tree(told))

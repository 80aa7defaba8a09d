"""What the firmware says, held against independent readings of the same files."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.firmware import (
    GIB,
    KIB,
    MIB,
    IoApic,
    MapEdit,
    MemoryRange,
    Override,
    hex_range,
    in_words,
    merged,
    read_acpi,
    read_boot_log,
)

EXPECTED = Path(__file__).parents[1] / "data"
LOGS, DUMPS = datasets.names("memmap"), datasets.names("acpi")
KINDS = {"acpi_data": "ACPI data", "acpi_nvs": "ACPI NVS", "type_9": "type 9"}
PAGE = 4 * KIB


def oracle(name):
    path = Path(datasets.entry(name)["file"])
    stem = path.name.split(".")[0]
    text = (EXPECTED / path.parent / f"{stem}.expected.json").read_text(encoding="utf-8")
    return json.loads(text)


def log_of(name):
    return read_boot_log(datasets.read_text(name), name)


def tables_of(name):
    return read_acpi(datasets.read_text(name), name)


# -- boot logs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOGS)
def test_the_memory_map_agrees_with_an_independent_reading(name):
    """Every range with its kind, the holes between them, and the bytes that are usable."""
    log, expected = log_of(name), oracle(name)
    assert log.memory_map == tuple(
        MemoryRange(e["start"], e["end"] + 1, KINDS.get(e["type"], e["type"]))
        for e in expected["e820"]
    )
    assert len(log.memory_map) == expected["entry_count"]
    usable = [piece for piece in log.memory_map if piece.kind == "usable"]
    assert sum(piece.end - piece.start for piece in usable) == expected["usable_bytes_raw"]
    assert usable[-1].end - 1 == expected["highest_usable_address"]
    below = sum(min(p.end, 4 * GIB) - p.start for p in usable if p.start < 4 * GIB)
    assert below == expected["usable_bytes_below_4g"]
    holes = [
        {"start": one.end, "end": other.start - 1}
        for one, other in pairwise(log.memory_map)
        if other.start > one.end
    ]
    assert holes == expected["holes"]


@pytest.mark.parametrize("name", LOGS)
def test_whole_pages_after_linux_own_edits_are_what_linux_counted(name):
    """The first page is taken away, parts of pages do not count, and the rest is "Memory: /…K"."""
    log, expected = log_of(name), oracle(name)
    taken = [(edit.start, edit.end) for edit in log.edits[:2]]  # page 0 and the BIOS area
    pages = 0
    for piece in log.memory_map:
        if piece.kind == "usable":
            start, end = -(-piece.start // PAGE), piece.end // PAGE
            pages += sum(
                1
                for page in (range(start, end) if end <= 256 else ())
                if not any(a <= page * PAGE < b for a, b in taken)
            )
            pages += end - start if end > 256 else 0
    assert pages == expected["usable_pages_kernel_view"]
    assert log.total_kib == expected["kernel_total_kib"]


@pytest.mark.parametrize("name", LOGS)
def test_srat_and_io_apic_lines_agree_with_an_independent_reading(name):
    """CPUs and memory of each domain, the interrupt chips, and how many CPUs could be there."""
    log, expected = log_of(name), oracle(name)
    assert [
        {"pxm": e.domain, "apic_id": e.apic_id, "node": e.node} for e in log.cpu_affinity
    ] == expected["srat_cpu"]
    assert [
        {"node": e.node, "pxm": e.domain, "start": e.start, "end": e.end - 1}
        for e in log.memory_affinity
    ] == expected["srat_mem"]
    assert [
        {
            "index": index,
            "apic_id": chip.id,
            "address": chip.address,
            "gsi": [chip.gsi_base, chip.gsi_base + chip.pins - 1],
        }
        for index, chip in enumerate(log.io_apics)
    ] == expected["ioapics"]
    counts = [log.cpus_allowed, log.cpus_hotplug]
    assert counts == (expected["cpus_allowed_hotplug"] or [None, None])


def test_what_else_the_h8qg6_says_of_itself():
    """Clock, board, packages, the end of RAM, interrupt overrides, and who came up where."""
    log = log_of("memmap-h8qg6-64")
    assert log.tsc_khz == 2_499_879
    assert log.cpu_model == "AMD Opteron(tm) Processor 6380"
    assert log.board == "Supermicro H8QG6/H8QG6, BIOS 3.5b 03/25/2016"
    assert log.packages_at_most == 4
    assert log.tom2 == log.memory_map[-1].end == 0x2028000000
    assert log.io_apics[2] == IoApic(2, 0xDA000000, 56, 32)
    assert log.overrides == (Override(0, 0, 2, 0), Override(0, 9, 9, 15))
    assert log.brought_up == {cpu: cpu // 8 for cpu in range(1, 64)}
    assert log.edits == (
        MapEdit("update", 0, 0x1000, "usable", "reserved"),
        MapEdit("remove", 0xA0000, 0x100000, "usable", ""),
        MapEdit("update", 0xD8000000, 0x100000000, "usable", "reserved"),
    )


def test_early_ranges_are_the_usable_ram_of_each_node():
    """What Linux made of map and SRAT together, whole pages only, page 0 left out."""
    log = log_of("memmap-dl165g7-16")
    assert [(piece.node, piece.start) for piece in log.early_ranges] == [
        (0, 0x1000), (0, 0x100000), (1, 0x80000000), (1, 0x100000000), (2, 0x1C0000000),
        (3, 0x2C0000000),
    ]  # fmt: skip


PLAIN = "BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable"
FORMS = {
    "plain": PLAIN,
    "with a time stamp": f"[    0.000000] {PLAIN}",
    "with level and time stamp": f"<6>[    0.000000] {PLAIN}",
    "with a caller": f"[    0.000000][    T0] {PLAIN}",
    "from the journal": f"Nov 25 01:58:07 popcorn kernel: {PLAIN}",
    "before Linux 3.6": " BIOS-e820: 0000000000000000 - 00000000000a0000 (usable)".strip(),
    "before 3.6, with a stamp": "[    0.000000]  BIOS-e820: 0000000000000000 - 00000000000a0000"
    " (usable)",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_map_line_is_the_same_range(form):
    """The old form ends with the first address after the range, the new one with the last."""
    assert read_boot_log(FORMS[form]).memory_map == (MemoryRange(0, 0xA0000, "usable"),)


@pytest.mark.parametrize(
    "kind", ["usable", "reserved", "ACPI data", "ACPI NVS", "unusable", "persistent (type 12)",
             "soft reserved", "type 9", "type 20"]
)  # fmt: skip
def test_every_kind_keeps_the_name_linux_prints(kind):
    """Kinds Linux has no word for are "type N"."""
    line = f"BIOS-e820: [mem 0x0000000000100000-0x00000000001fffff] {kind}"
    assert read_boot_log(f"{PLAIN}\n{line}").memory_map[1].kind == kind


def test_the_map_after_memmap_is_kept_apart():
    """What a secondary kernel was told to use is not what the firmware says."""
    log = read_boot_log(
        f"{PLAIN}\nuser-defined physical RAM map:\n"
        "user: [mem 0x0000000000000000-0x000000000000ffff] usable"
    )
    assert log.memory_map == (MemoryRange(0, 0xA0000),)
    assert log.user_map == (MemoryRange(0, 0x10000),)


def test_lines_of_others_are_passed_over():
    """A log has a thousand lines of which we read a hundred."""
    noise = "usb 1-1: new device\n\n  node names and [mem] of nobody\nSRAT is a word\n"
    assert read_boot_log(noise + PLAIN + "\n" + noise).memory_map == (MemoryRange(0, 0xA0000),)


# -- ACPI tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DUMPS)
def test_heads_of_tables_agree_with_an_independent_reading(name):
    """Signature, length, revision and makers of every table of the dump."""
    expected = {k: v["header"] for k, v in oracle(name).items() if k != "source_file"}
    heads = tables_of(name).heads
    assert set(heads) == set(expected)
    for signature, head in heads.items():
        told = {
            "sig": head.signature,
            "length": head.length,
            "revision": head.revision,
            "oem_id": head.oem_id,
            "oem_table_id": head.oem_table_id,
        }
        assert told | {"checksum_ok": True, "complete": True} == expected[signature]


@pytest.mark.parametrize("name", DUMPS)
def test_the_madt_agrees_with_an_independent_reading(name):
    """Local APICs with empty slots, I/O APICs, overrides, and what was passed over."""
    tables, expected = tables_of(name), oracle(name)["APIC"]
    assert tables.local_apic_address == expected["lapic_base"]
    assert tables.has_8259 == expected["pcat_compat"]
    assert [entry._asdict() for entry in tables.local_apics] == expected["local_apics"]
    assert [
        {"id": chip.id, "address": chip.address, "gsi_base": chip.gsi_base}
        for chip in tables.io_apics
    ] == sorted(expected["io_apics"], key=lambda chip: chip["gsi_base"])
    assert [entry._asdict() for entry in tables.overrides] == expected["overrides"]
    assert tables.nmi_lines == expected["nmi"]
    assert list(tables.other_entries["APIC"]) == expected["other"]


@pytest.mark.parametrize("name", DUMPS)
def test_the_srat_agrees_with_an_independent_reading(name):
    """Domain of every CPU and every range, with the flags."""
    tables, expected = tables_of(name), oracle(name)["SRAT"]
    assert [
        {"apic_id": e.apic_id, "pxm": e.domain, "enabled": e.enabled} for e in tables.cpu_affinity
    ] == expected["cpu_affinity"]
    assert [
        {
            "pxm": e.domain,
            "base": e.start,
            "length": e.end - e.start,
            "enabled": e.enabled,
            "hotplug": e.hotplug,
            "nonvolatile": e.nonvolatile,
        }
        for e in tables.memory_affinity
    ] == expected["memory_affinity"]
    assert len(tables.other_entries["SRAT"]) == expected["other_entries"]


@pytest.mark.parametrize("name", DUMPS)
def test_slit_and_mcfg_agree_with_an_independent_reading(name):
    """All distances; where each segment's configuration space is mapped."""
    tables, expected = tables_of(name), oracle(name)
    assert [list(row) for row in tables.distances] == expected.get("SLIT", {}).get("matrix", [])
    assert [
        {"base": s.base, "segment": s.segment, "start_bus": s.first_bus, "end_bus": s.last_bus}
        for s in tables.config_spaces
    ] == expected["MCFG"]["allocations"]


@pytest.mark.parametrize("name", [n for n in LOGS if n.replace("memmap", "acpi") in DUMPS])
def test_the_tables_and_the_boot_log_of_a_machine_say_the_same(name):
    """Linux printed what the tables hold: CPUs, memory, interrupt chips."""
    log, tables = log_of(name), tables_of(name.replace("memmap", "acpi"))
    if log.cpu_affinity:
        domains = {e.domain: e.node for e in log.cpu_affinity}
        assert tables.nodes() == domains
        assert {(e.domain, e.apic_id) for e in tables.cpu_affinity if e.enabled} == {
            (e.domain, e.apic_id) for e in log.cpu_affinity
        }
        assert {e[:3] for e in log.memory_affinity} == {
            e[:3] for e in tables.memory_affinity if e.enabled and e.end > e.start
        }
        assert [chip[:3] for chip in log.io_apics] == [chip[:3] for chip in tables.io_apics]


def test_domains_with_gaps_are_numbered_in_order():
    """The R820 calls its domains 1 to 4, and its SLIT has a row for domain 0 too."""
    tables = tables_of("acpi-r820-80")
    assert tables.nodes() == {1: 0, 2: 1, 3: 2, 4: 3}
    assert len(tables.distances) == 5


def dump(signature, body, revision=1):
    """A table as acpidump prints it, with its checksum right."""
    data = bytearray(signature.encode())
    data += (36 + len(body)).to_bytes(4, "little") + bytes([revision, 0])
    data += b"POPEDUTABLE   " + bytes(36 - len(data) - 14) + body
    data[9] = -sum(data) & 0xFF
    lines = [f"{signature} @ 0x0000000000000000"]
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        letters = "".join(chr(b) if 32 < b < 127 else "." for b in row)
        lines.append(f"    {at:04X}: {row.hex(' ').upper() + ' ':<49} {letters}")
    return "\n".join(lines) + "\n"


def test_large_machines_have_entries_of_their_own():
    """Beyond 255 CPUs APIC ids and domains have 32 bits (x2APIC)."""
    madt = bytes(8) + bytes([9, 16, 0, 0]) + b"".join(
        n.to_bytes(4, "little") for n in (0x12345, 1, 700)
    )  # fmt: skip
    srat = bytes(12) + bytes([2, 24, 0, 0]) + b"".join(
        n.to_bytes(4, "little") for n in (0x101, 0x12345, 1, 0, 0)
    )  # fmt: skip
    tables = read_acpi(dump("APIC", madt) + "\n" + dump("SRAT", srat, revision=3))
    assert tables.local_apics == ((700, 0x12345, True),)
    assert tables.cpu_affinity[0][:2] == (0x101, 0x12345)


def test_the_first_srat_had_one_byte_for_the_domain():
    """What stands in the other three is not part of the number."""
    entry = bytes([0, 16, 7, 5, 1, 0, 0, 0, 0, 9, 9, 9, 0, 0, 0, 0])
    old = read_acpi(dump("SRAT", bytes(12) + entry, revision=1))
    new = read_acpi(dump("SRAT", bytes(12) + entry, revision=2))
    assert old.cpu_affinity[0].domain == 7
    assert new.cpu_affinity[0].domain == 0x09090907


def test_a_64_bit_address_of_the_local_apics_wins():
    """Entry type 5 replaces the address in the table's head."""
    body = (0xFEE00000).to_bytes(4, "little") + bytes(4)
    body += bytes([5, 12, 0, 0]) + (0x1_2345_0000).to_bytes(8, "little")
    assert read_acpi(dump("APIC", body)).local_apic_address == 0x1_2345_0000


def test_other_tables_are_passed_over():
    """A dump has thirty tables; of those we do not read, not even the checksum matters."""
    other = "FACS @ 0x0\n    0000: 46 41 43 53 40 00 00 00 00                     FACS@...\n\n"
    assert set(read_acpi(other + datasets.read_text("acpi-m4a88td-4")).heads) == {
        "APIC", "MCFG", "SRAT",
    }  # fmt: skip


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (643_072, "628 KiB"),
        (643_073, "643,073 bytes"),
        (64 * KIB, "64 KiB"),
        (1856 * MIB, "1,856 MiB"),
        (16 * GIB, "16 GiB"),
    ],
)
def test_bytes_in_words(count, words):
    """The largest unit that comes out even."""
    assert in_words(count) == words


def test_a_range_is_written_with_its_last_address():
    """As Linux prints it."""
    assert hex_range(4 * GIB, 8 * GIB) == "[0x100000000-0x1ffffffff]"


def test_neighbours_of_one_kind_become_one():
    """Neighbours of different kinds stay apart."""
    pieces = [
        MemoryRange(8, 9),
        MemoryRange(0, 4),
        MemoryRange(4, 8),
        MemoryRange(9, 12, "reserved"),
    ]
    assert merged(pieces) == (MemoryRange(0, 9), MemoryRange(9, 12, "reserved"))


# -- damage ----------------------------------------------------------------------------------------

TEXTS = {name: datasets.read_text(name) for name in (*LOGS, *DUMPS)}


@given(
    name=st.sampled_from(sorted(TEXTS)),
    cut=st.floats(0, 1),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.characters(max_codepoint=0x2FF)), max_size=6
    ),
)
@settings(max_examples=150, deadline=None)
def test_a_damaged_text_gives_facts_or_a_sentence(name, cut, changes):
    """Cut anywhere, change any letters: never another exception."""
    text = list(TEXTS[name])
    for where, letter in changes:
        text[int(where * len(text))] = letter
    damaged = "".join(text[: int(cut * len(text))])
    read = read_boot_log if name in LOGS else read_acpi
    try:
        read(damaged, name)
    except PopcornError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(name)

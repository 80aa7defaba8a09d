"""Boot parameters: our reader against the kernel's own test vectors and against a real Linux.

``tests/data/real_linux_cmdline.json`` says what Debian's kernel made of some 400 command lines; a
script wrote it by booting them (tests/real_linux/check_cmdline.py). The vectors are those of the
kernel's own tests. ``tests/data/bad_command_lines.tsv`` holds what we say of bad ones: golden
sentences, to be read as a student would.
"""

import csv
import doctest
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import Machine, datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import bootline, cmdline, cpulist, e820, parameters
from popcorn_edu.model.cmdline import apply, parse, write
from popcorn_edu.model.cpulist import PANICS
from popcorn_edu.model.e820 import trimmed
from popcorn_edu.model.firmware import GIB, MIB, MemoryRange, NodeMemory
from popcorn_edu.model.topology import cpu_list

DATA = Path(__file__).resolve().parent.parent / "data"
REAL = json.loads((DATA / "real_linux_cmdline.json").read_text(encoding="utf-8"))
FIRMWARE = tuple(MemoryRange(*entry) for entry in REAL["provenance"]["bios_map"])
ROWS = {row["line"]: row for row in REAL["rows"]}
BOOTED = {line: row for line, row in ROWS.items() if row["boots"]}


def real_machine() -> Machine:
    """The virtual machine that the table was made on."""
    made = Machine.synthetic(packages=2, cores_per_node=4)
    nodes = [(0, 0, 2 * GIB), (0, 4 * GIB, 5 * GIB), (1, 5 * GIB, 8 * GIB)]  # -m 6G, 3G each
    memory = tuple(NodeMemory(*node) for node in nodes)
    return replace(made, memory_map=FIRMWARE, node_memory=memory, name="the test machine")


MACHINE = real_machine()


def seen(line: str):
    """What an ordinary Linux sees that was started as those of the table were."""
    return apply(f"{REAL['provenance']['words_before_each_line']} {line}", MACHINE, popcorn=False)


def short(line: str) -> str:
    return line if len(line) < 60 else line[:25] + "..." + line[-25:]


def over_rows(rows):
    return pytest.mark.parametrize("line", rows, ids=short)


@over_rows(BOOTED)
def test_the_cpus_are_those_that_a_real_linux_has(line):
    """Possible, present, online, isolated, without a tick; and where interrupts go."""
    row, ours = BOOTED[line], seen(line)
    for name in ("possible", "present", "online", "isolated", "nohz_full", "nodes"):
        assert (name, cpu_list(getattr(ours, name))) == (name, row[name])
    assert sum(1 << cpu for cpu in ours.irq_affinity) == int(row["irq_affinity"], 16)
    assert ours.io_apic == row["io_apic"]


@over_rows(BOOTED)
def test_the_memory_map_is_the_one_that_a_real_linux_prints(line):
    """Every entry with its first and last byte and its kind."""
    row, ours = BOOTED[line], seen(line)
    expected = [MemoryRange(*entry) for entry in row["map"]] or list(FIRMWARE)
    assert list(ours.memory_map) == expected


@over_rows(BOOTED)
def test_the_ram_is_what_a_real_linux_goes_on_with(line):
    """Without page 0 and the BIOS area; the kernel's own image may lie outside the map."""
    row, ours = BOOTED[line], seen(line)
    usable = [entry for entry in (row["map"] or FIRMWARE) if entry[2] == "usable"]
    ram = [
        MemoryRange(max(start, low), min(last + 1, high))
        for start, last in row["system_ram"]
        for low, high, _ in usable
        if max(start, low) < min(last + 1, high)
    ]
    assert ours.ram == trimmed(ram)  # /proc/iomem still shows parts of pages


@over_rows(BOOTED)
def test_init_gets_what_a_real_linux_hands_it(line):
    """Arguments and variables, in order."""
    row, ours = BOOTED[line], seen(line)
    assert (list(ours.arguments), list(ours.environment)) == (row["arguments"], row["environment"])


@over_rows(ROWS)
def test_a_line_that_stops_a_real_linux_is_told_to_panic(line):
    """And no other."""
    ours = seen(line)
    dies = bool(ours.panic) or any(problem.effect == PANICS for problem in ours.problems)
    assert dies != ROWS[line]["boots"]


@over_rows([line for line, row in BOOTED.items() if row["malformed"] or row["remarks"]])
def test_what_a_real_linux_complains_of_is_a_problem_here(line):
    """We are never quieter than the kernel's log."""
    assert seen(line).problems


# the kernel's own vectors


def vectors(name: str) -> list[dict]:
    return json.loads(datasets.read_text(f"vectors-{name}"))["vectors"]


def outcome(read, *arguments) -> tuple[str | None, str | None]:
    """(error, bits) as the vectors write them."""
    try:
        return None, hex(read(*arguments))
    except cpulist.CpuListError as error:
        return error.code, None


def shown(vector: dict) -> str:
    return repr(vector.get("input", vector.get("suffix", vector.get("printed"))))


@pytest.mark.parametrize("vector", vectors("cpulist-parse"), ids=shown)
def test_cpu_lists_are_read_as_the_kernels_own_tests_demand(vector):
    """The bits, or the kernel's own error."""
    expected = vector["error"], vector["bits_hex"]
    assert outcome(cpulist.parse_cpulist, vector["input"], vector["nbits"]) == expected


@pytest.mark.parametrize("vector", vectors("cpumask-hex-parse"), ids=shown)
def test_cpu_masks_are_read_as_the_kernels_own_tests_demand(vector):
    """Groups of 32 bits, the highest first."""
    expected = vector["error"], vector["bits_hex"]
    assert outcome(cpulist.parse_cpumask, vector["input"], vector["nbits"]) == expected


@pytest.mark.parametrize("vector", vectors("cpulist-format"), ids=shown)
def test_cpu_lists_are_written_as_the_kernel_prints_them(vector):
    """And read back they are the same CPUs."""
    cpus = [cpu for first, last in vector["set_ranges"] for cpu in range(first, last + 1)]
    assert cpu_list(cpus) == vector["printed"]
    bits = cpulist.parse_cpulist(vector["printed"], vector["nbits"])
    assert list(cpulist.cpus_in(bits)) == cpus


@pytest.mark.parametrize("vector", vectors("get-options-ranges"), ids=shown)
def test_integers_are_collected_as_the_kernels_own_tests_demand(vector):
    """Ranges count one by one, and a bad end stops the reading."""
    assert cpulist.get_options(vector["input"]) == (vector["count"], vector["values"])


@pytest.mark.parametrize("vector", vectors("get-option-suffix"), ids=shown)
@pytest.mark.parametrize("integer", ["7", "-7", "0x1f", "017"])
def test_what_follows_an_integer_is_told_apart(vector, integer):
    """1 nothing, 2 a comma, 3 a minus."""
    assert cpulist.get_option(integer + vector["suffix"])[0] == vector["rc"]


KINDS = {
    "usable": e820.USABLE,
    "reserved": e820.RESERVED,
    "acpi_data": e820.ACPI_DATA,
    "pmem": e820.PERSISTENT,
}


@pytest.mark.parametrize(
    "example",
    json.loads(datasets.read_text("vectors-memmap-grammar"))["examples"],
    ids=lambda example: example["arg"],
)
def test_the_examples_of_the_kernels_manual_are_read_as_it_says(example):
    """Size, start and kind of each range."""
    (word,) = parse(example["arg"]).parameters
    assert word.problems == ()
    if "entries" in example:
        assert len(word.reading) == example["entries"]
    else:
        kind = KINDS[example["type"]]
        assert word.reading == (("add", example["start"], example["size"], kind),)


def test_the_example_list_of_the_kernels_manual():
    """Groups of 25, of which two each, up to the last."""
    example = json.loads(datasets.read_text("vectors-memmap-grammar"))["cpu_list_example"]
    (word,) = parse(example["text"]).parameters
    cpus = cpulist.cpus_in(cpulist.parse_cpulist(word.reading[1], 2001))
    assert [cpu for cpu in cpus if cpu >= 100][:6] == example["first_of_last_item"]
    assert word.problems == ()


def test_a_group_larger_than_the_range_costs_no_memory():
    """Four thousand million CPUs of every four thousand million are the four of the range."""
    assert cpulist.parse_cpulist("0-3:4294967295/4294967295", 8) == 0b1111
    assert cpulist.parse_cpulist("2-6:1/4000000000", 8) == 0b100
    assert cpulist.parse_cpulist("1-7:0/3", 8) == 0


def test_the_doc_examples_hold():
    """What the docstrings show is what happens."""
    for module in (bootline, cmdline, cpulist, e820, parameters):
        assert doctest.testmod(module).failed == 0


# golden sentences


def golden() -> dict[str, list[tuple[str, str, str]]]:
    rows: dict[str, list[tuple[str, str, str]]] = {}
    text = (DATA / "bad_command_lines.tsv").read_text(encoding="utf-8")
    for line, *told in csv.reader(text.splitlines()[1:], delimiter="\t", quoting=csv.QUOTE_NONE):
        rows.setdefault(line.encode().decode("unicode_escape"), []).append(tuple(told))
    return rows


GOLDEN = golden()


@pytest.mark.parametrize("line", GOLDEN, ids=short)
def test_a_bad_line_is_told_in_the_golden_words(line):
    """What Linux does with it, and what was expected; nothing is raised."""
    ours = apply(line, MACHINE)
    told = [(p.effect, p.linux, p.says) for p in ours.problems]
    assert told + [("panics", "", ours.panic)] * bool(ours.panic) == GOLDEN[line]


def test_there_are_enough_golden_sentences():
    """Our share of the two hundred bad inputs of the whole kit, and more."""
    assert len(GOLDEN) >= 200


@pytest.mark.parametrize("line", [line for line in GOLDEN if line in ROWS], ids=short)
def test_a_golden_sentence_says_panic_only_where_a_real_linux_did(line):
    """The words "panics" and "passed to init" are checked against the table."""
    effects = {effect for effect, _, _ in GOLDEN[line]}
    row = ROWS[line]
    assert ("panics" in effects) != row["boots"]
    if row["boots"] and "passed to init" in effects:
        assert row["arguments"] or row["environment"]


# Popcorn's own

BOX = "h8qg6-64"
LAUNCHED = (
    "console=ttyS0,115200 earlyprintk=ttyS0,115200 acpi_irq_nobalance no_ipi_broadcast debug "
    "memmap=1G@6G memmap=6128M$16M mem=7G mklinux pci_dev_flags=0x8086:0x10c9:b,0x102b:0x0532:b "
    "lapic_timer=1000000 present_mask=5 vty_offset=0xc0000000"
)


def test_a_line_of_popcorns_own_launch_scripts():
    """CPU 5, the GiB at 6 GiB, and neither network card nor display."""
    ours = apply(LAUNCHED, Machine.load(BOX))
    assert ours.line.secondary and not ours.panic
    assert (ours.present, ours.online, ours.boot_cpu) == ((5,), (5,), 5)
    assert ours.possible == tuple(range(64))
    assert [r for r in ours.ram if r.end > 16 * MIB] == [MemoryRange(6 * GIB, 7 * GIB)]
    assert {"0000:02:00.0", "0000:02:00.1"} <= set(ours.hidden)
    assert ours.vty_offset == 0xC000_0000


def test_present_mask_is_a_list_despite_its_name():
    """The misconception has its own sentence."""
    ours = apply("present_mask=0x30", Machine.load(BOX))
    assert ours.present == tuple(range(64))
    assert "not a bit mask: for mask 0x30 write 4-5" in str(ours.problems[0])


def test_a_secondary_sees_the_low_memory_as_well():
    """Its line keeps it out of 16 MiB to its own start, and of nothing below."""
    ours = apply(LAUNCHED, Machine.load(BOX))
    assert ours.ram[0].start == 4096
    assert any("low 16 MiB" in note for note in ours.notes)


def test_reserved_wins_whatever_the_order():
    """Two kernels that both "have" a page: Linux says nothing, and reserved wins."""
    words = ["memmap=1G@4G", "memmap=256M$4352M"]
    first, second = (apply(" ".join(w), MACHINE).ram for w in (words, words[::-1]))
    assert first == second
    assert all(not r.start <= 4352 * MIB < r.end for r in first)


def test_the_seventeenth_device_is_seen_again():
    """The table has sixteen entries; the rest is dropped without a word."""
    ids = [f"{0x1000 + n:04x}:0001" for n in range(17)]
    ours = apply(write([1], [MemoryRange(GIB, 2 * GIB)], ids), MACHINE)
    assert ours.hidden_ids == tuple(ids[:16])
    assert any(p.effect == "clamped" and ids[16] in p.says for p in ours.problems)


def test_an_id_without_its_0x_is_another_device():
    """8086 in decimal is 1f96; Popcorn's own comment makes this mistake."""
    assert apply("pci_dev_flags=8086:7010:b", MACHINE).hidden_ids == ("1f96:1b62",)


def test_a_machine_without_a_map_still_shows_what_the_line_asks_for():
    """Nothing is known of its RAM, so nothing is called a mistake."""
    bare = replace(MACHINE, memory_map=(), name="bare")
    ours = apply("mem=1G memmap=64M@1G", bare)
    assert (ours.ram, ours.panic) == ((MemoryRange(GIB, GIB + 64 * MIB),), "")
    assert ours.notes == ("bare has no memory map; only the line's is shown",)


def test_a_hole_between_two_ranges_stays_a_hole():
    """With the machine, only its RAM in between is kept out: devices have their addresses there."""
    pieces = [MemoryRange(GIB, 1536 * MIB), MemoryRange(5 * GIB, 6 * GIB)]
    line = write([1], pieces, machine=MACHINE)
    assert "memmap=524160K$1536M memmap=1024M$4096M" in line
    assert "$1536M memmap" not in write([1], pieces).replace("memmap=3584M$1536M", "")


def test_an_ordinary_linux_hands_popcorns_words_to_init():
    """It has never heard of them."""
    ours = seen("present_mask=3 mklinux")
    assert ours.present == tuple(range(8))
    assert (ours.arguments, ours.environment) == (("mklinux",), ("present_mask=3",))


def test_explain_says_each_word_in_words():
    """One line a word, in the order of the line."""
    assert parse("present_mask=5 memmap=1G@6G memmap=6128M$16M mem=7G foo -- bar").explain() == (
        "present_mask=5: CPUs 5 are present (a list, despite the name); the others stay known\n"
        "memmap=1G@6G: [0x180000000-0x1bfffffff] (1 GiB at 6 GiB) is usable\n"
        "memmap=6128M$16M: [0x1000000-0x17fffffff] (6,128 MiB at 16 MiB) is reserved\n"
        "mem=7G: RAM known so far ends at 7 GiB\n"
        "foo: not a parameter of this kernel; init gets it\n"
        "-- bar: arguments for init, unread"
    )


def test_every_parameter_can_explain_itself():
    """With a good value and with a bad one."""
    for name in parameters.RULES:
        for value in ("", "=1", "=0x10", "=junk", "=0-3", "=0x8086:0x10c9:b", "=1G@4G", "=off"):
            assert parse(name + value).explain().startswith(name + value + ": ")


# the way back


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (([0], [(0, 2 * GIB)], True), "present_mask=0 memmap=2048M@0M mem=2048M"),
        (("0-3,8", [(0, 2 * GIB)], True), "present_mask=0-3,8 memmap=2048M@0M mem=2048M"),
        (
            ([5], [(6 * GIB, 7 * GIB)], False),
            "present_mask=5 memmap=1024M@6144M memmap=6128M$16M mem=7168M",
        ),
        (
            ([2, 3, 4], [(GIB, GIB + 512 * MIB), (5 * GIB, 6 * GIB)], False),
            "present_mask=2-4 memmap=512M@1024M memmap=1024M@5120M memmap=1008M$16M "
            "memmap=3584M$1536M mem=6144M",
        ),
        (
            ([1], [(GIB, GIB + 4096)], False),
            "present_mask=1 memmap=4K@1024M memmap=1008M$16M mem=1048580K",
        ),
    ],
)
def test_lines_are_written_as_mpart_writes_them(arguments, line):
    """The part of the line that differs from kernel to kernel, to the letter."""
    cpus, memory, primary = arguments
    assert write(cpus, memory, primary=primary).endswith(line)


def test_a_secondarys_line_starts_as_create_bootargs_writes_it():
    """Console, interrupts, devices, and what it is."""
    assert write([1], [(GIB, 2 * GIB)], ["8086:10c9"], vty_offset=0x1FFC000000).startswith(
        "earlyprintk=ttyS0,115200 console=ttyS0,115200 acpi_irq_nobalance no_ipi_broadcast "
        "lapic_timer=1000000 pci_dev_flags=0x8086:0x10c9:b mklinux debug vty_offset=0x1ffc000000 "
        "present_mask=1 "
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([], [(0, GIB)]), "A kernel without a CPU cannot boot"),
        (([1], []), "A kernel without RAM cannot boot"),
        (([1], [(GIB, GIB)]), "The range from 0x40000000 to 0x40000000 is empty"),
        (([1], [(0, GIB)], ["02:00.0"]), "'02:00.0' is no PCI id; one such as 8086:10c9"),
    ],
)
def test_what_cannot_boot_is_not_written(arguments, says):
    """A line for nothing would be a line for everything."""
    with pytest.raises(PopcornError, match=says):
        write(*arguments)


def plans(ram):
    """A kernel's CPUs, and pieces of the RAM above 16 MiB, in whole pages."""
    pages = sorted({edge for r in ram for edge in (r.start // 4096, r.end // 4096)})
    first = max(16 * MIB // 4096, pages[0])
    edges = st.lists(st.integers(first, pages[-1]), min_size=2, max_size=8, unique=True).map(sorted)
    return st.tuples(st.sets(st.integers(0, 7), min_size=1).map(sorted), edges)


def kept(ranges) -> list[tuple[int, int]]:
    """What of the ranges is RAM of the machine."""
    pieces = [
        MemoryRange(max(start, r.start), min(end, r.end))
        for start, end in ranges
        for r in FIRMWARE
        if r.kind == "usable" and max(start, r.start) < min(end, r.end)
    ]
    return [(r.start, r.end) for r in trimmed(pieces)]


@settings(max_examples=200, deadline=None)
@given(plans(MACHINE.ram))
def test_what_is_written_is_what_the_kernel_sees(plan):
    """write, parse, apply: the same CPUs, and of the RAM above 16 MiB just its own."""
    cpus, edges = plan
    ranges = [(a * 4096, b * 4096) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    ranges = kept(ranges)
    if not ranges:
        return
    for machine in (None, MACHINE):
        ours = apply(write(cpus, [MemoryRange(*r) for r in ranges], machine=machine), MACHINE)
        assert ours.present == tuple(cpus)
        high = [(max(r.start, 16 * MIB), r.end) for r in ours.ram if r.end > 16 * MIB]
        assert high == ranges
        assert ours.panic in ("", "too little RAM to run in")


PIECES = "= - , : @ $ # ! % \" ' 0x 0 1 8 1G 64M 4095 all N exactmap -- , \0".split(" ")
WORDS = st.sampled_from(
    [*parameters.RULES, *PIECES] + ["\xa0", "\u2013", "\t", "\n", " ", " ", "=", "="]
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=30).map("".join)))
def test_no_text_is_an_error(text):
    """Whatever is typed, the kernel boots or panics, and we say which."""
    for popcorn in (True, False):
        ours = apply(text, MACHINE, popcorn)
        assert ours.describe() and ours.line.explain()
        assert set(ours.online) <= set(ours.present) <= set(ours.possible)


@pytest.mark.parametrize(("letters", "told"), [(2047, False), (2048, True)])
def test_a_line_longer_than_the_kernels_buffer_is_told(letters, told):
    """2,047 bytes fit; a real Linux that QEMU handed one more stopped at a BUG."""
    line = "maxcpus=2 x=" + "y" * (letters - 12)
    problems = [p for p in parse(line).problems if p.effect == PANICS]
    assert bool(problems) == told
    assert len(parse(line).parameters[1].text) == 2047 - len("maxcpus=2 ")


def test_a_line_has_to_be_a_text():
    """The one error there is."""
    with pytest.raises(PopcornError, match="3 is no command line; a text was expected"):
        parse(3)


@settings(max_examples=300, deadline=None)
@given(st.sets(st.integers(0, 63)))
def test_a_list_of_cpus_survives_being_written(cpus):
    """Printed as Linux prints it, read as Linux reads it."""
    assert set(cpulist.cpus_in(cpulist.parse_cpulist(cpu_list(cpus), 64))) == cpus

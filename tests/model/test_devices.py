"""Who owns the device: blacklists with all their quirks, claims, problems, interrupts, proxies."""

import random
from dataclasses import dataclass, replace

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.sim import Sim, finish
from popcorn_edu.engine.steps import Until
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.engine.world import World
from popcorn_edu.model import cmdline, devices, messaging
from popcorn_edu.model.devices import (
    BridgeCrossed,
    BridgeFound,
    BusScanned,
    BusUnreached,
    DeviceClaimed,
    DeviceInterrupted,
    Devices,
    EntryDropped,
    EntryKept,
    FunctionSkipped,
    FunctionsPassedOver,
    InterruptServed,
    InterruptSpurious,
    IoAsked,
    IoDone,
    ListRefused,
    ScanEnded,
    SlotEntryKept,
    blacklist_for,
    claimants,
    claims,
    create_lspci,
    problems,
    read_flags,
    remarks,
    scan,
    write_flags,
)
from popcorn_edu.model.firmware import IoApic
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.ownership import Verdict, seen, strtoul
from popcorn_edu.model.pci import PciFunction
from popcorn_edu.model.rings import MessageType, Priority, Rings

NIC, DISK, USB, SERIAL = "8086:10c9", "1000:0072", "1002:4397", "1002:4399"


def function(slot, name="8086:0001", kind="0200", **more):
    return PciFunction(f"0000:{slot}", name, kind, **more)


# A host bridge, a disk, a USB device of three functions, and behind a bridge two identical cards.
SMALL = (
    function("00:00.0", "1002:5a10", "0600"),
    function("00:04.0", "1002:5a18", "0604", bridge_to=(2, 3)),
    function("00:11.0", DISK, "0107", pin="A", irq=22, driver="mpt3sas", node=0),
    function("00:12.0", USB, "0c03", pin="A", irq=16, driver="ohci-pci"),
    function("00:12.1", "1002:4398", "0c03", pin="A", irq=16),
    function("00:12.2", "1002:4396", "0c03", pin="B", irq=17),
    function("02:00.0", NIC, "0200", pin="A", irq=28, msi="MSI-X", driver="igb", node=0),
    function("03:00.0", NIC, "0200", pin="A", irq=40, msi="MSI-X", driver="igb", node=0),
)
DEVICES = tuple(f.slot for f in devices.ownable(SMALL))


def full(slot):
    return f"0000:{slot}"


def owned_by(kernel, **others):
    """All devices in one kernel, but for some: owned_by(0, **{"02:00.0": 1})."""
    return dict.fromkeys(DEVICES, kernel) | {full(slot): k for slot, k in others.items()}


# -- the list as the kernel reads it ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("0x8086", 0x8086),
        ("0X8086", 0x8086),
        ("32902", 0x8086),  # the early decimal form
        ("8086", 8086),
        ("0532", 0o532),
        ("10c9", 10),
        ("0x", 0),
        ("b", 0),
        ("", 0),
        ("0x18086", 0x8086),
    ],
)
def test_numbers_are_read_as_c_reads_them(written, number):
    """strtoul with base 0: 0x is hexadecimal, a leading 0 octal, the rest decimal; 16 bits."""
    assert strtoul(written) == number


def test_the_flags_are_not_looked_at():
    """`b` is no number, so it is 0; only the presence of the entry matters."""
    with_b, with_7 = (read_flags(f"0x8086:0x10c9:{flags}") for flags in ("b", "7"))
    assert claims(SMALL, with_b) == claims(SMALL, with_7) == DEVICES[:4]


def test_the_early_decimal_form_names_the_same_id():
    """32902:4297 is 0x8086:0x10c9."""
    assert [e.id for e in read_flags("32902:4297:b").entries] == [NIC]


def test_an_id_without_0x_is_another_id():
    """8086:10c9 is read as decimal 8086, and as 10 followed by something that is no digit."""
    (entry,) = read_flags("8086:10c9:b").entries
    assert entry.id == "1f96:000a"
    assert claims(SMALL, "8086:10c9:b") == DEVICES


def test_the_seventeenth_entry_is_dropped_without_a_word():
    """The table has 16 places; an entry beyond is read, dropped, and nobody is told."""
    text = write_flags([f"1234:{n:04x}" for n in range(16)] + [NIC])
    read = read_flags(text)
    assert len(read.entries) == 16
    assert [e.id for e in read.ignored] == [NIC]
    assert read.refused == ""
    assert full("02:00.0") in claims(SMALL, text)


def test_an_item_without_its_parts_ends_the_list():
    """-EINVAL: what was read stays, what comes after is not read."""
    read = read_flags("0x8086:0x10c9:b,0x1000,0x1002:0x4397:b")
    assert [e.id for e in read.entries] == [NIC, "1000:4397"]  # `0x1000,0x1002` is a vendor
    read = read_flags("0x8086:0x10c9:b,0x1000:0x0072")
    assert [e.id for e in read.entries] == [NIC]
    assert read.refused == "0x1000:0x0072"


def test_an_entry_without_flags_swallows_the_next():
    """The device ends at the next colon, which is inside the next entry."""
    read = read_flags("0x8086:0x10c9,0x1000:0x0072:b")
    assert [e.id for e in read.entries] == [NIC]
    assert read.refused == ""


def test_quotes_around_the_list_are_skipped():
    """A list may be quoted, and may end with a comma."""
    assert [e.id for e in read_flags(f'"{write_flags([NIC, DISK])}"').entries] == [NIC, DISK]
    assert [e.id for e in read_flags(write_flags([NIC]) + ",").entries] == [NIC]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (None, "None is no list; a text such as '0x8086:0x10c9:b' was expected."),
        ("x" * 5000, "the list has 5,000 characters; at most 4,096 were expected."),
        ("@:b", "'@:b' names no slot; an entry such as '@0000:02:00.1:b' was expected."),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(bad, sentence):
    """What no kernel ever sees is the user's mistake, and is answered in words."""
    with pytest.raises(PopcornError) as refusal:
        read_flags(bad)
    assert str(refusal.value) == sentence


# -- what a kernel claims --------------------------------------------------------------------------


def test_without_a_list_a_kernel_claims_everything():
    """Ownership is negative: who is told nothing drives all but the bridges."""
    assert claims(SMALL) == DEVICES


def test_a_match_is_by_id_and_so_hides_every_card_of_its_kind():
    """Two identical cards cannot go to two kernels."""
    assert claims(SMALL, [NIC]) == DEVICES[:4]


def test_when_function_0_is_skipped_the_others_are_never_looked_at():
    """pci_scan_slot() returns when function 0 is not there."""
    found = seen(SMALL, [USB])
    assert found[full("00:12.0")].verdict is Verdict.SKIPPED
    assert found[full("00:12.1")].verdict is Verdict.NOT_LOOKED_AT
    assert found[full("00:12.2")].because == full("00:12.0")


def test_another_function_can_be_skipped_alone():
    """Only function 0 stands for the whole device."""
    assert full("00:12.2") in claims(SMALL, ["1002:4398"])


def test_what_is_behind_a_skipped_bridge_is_not_reached():
    """Nobody scans a bus whose bridge was not found."""
    found = seen(SMALL, ["1002:5a18"])
    assert found[full("02:00.0")].verdict is Verdict.UNREACHED
    assert found[full("02:00.0")].because == full("00:04.0")


def test_bridges_are_seen_and_never_claimed():
    """Host and PCI bridges need no owner."""
    assert seen(SMALL, "")[full("00:04.0")].verdict is Verdict.BRIDGE
    assert not set(claims(SMALL)) & {full("00:00.0"), full("00:04.0")}


def test_a_bus_is_finished_before_its_bridges_are_crossed():
    """The order of a scan: all devices of a bus, then what is behind its bridges."""
    crossed = (function("00:01.0", kind="0604", bridge_to=(1, 1)), function("01:00.0"))
    order = list(seen((*crossed, function("00:1f.0", "1:2")), ""))
    assert order == [full("00:01.0"), full("00:1f.0"), full("01:00.0")]


def test_a_slot_entry_skips_one_function_alone():
    """Our extension: the place decides, and the other functions there are still looked at."""
    assert claims(SMALL, "@0000:02:00.0:b") == (*DEVICES[:4], full("03:00.0"))
    assert full("00:12.1") in claims(SMALL, "@0000:00:12.0:b")


def test_claimants_say_who_drives_what():
    """What is on no list is driven by all, what is on all lists by none."""
    who = claimants(SMALL, {0: [NIC], 1: [NIC, DISK, USB], 2: [NIC, DISK, USB]})
    assert who[full("02:00.0")] == ()
    assert who[full("00:11.0")] == (0,)
    assert claimants(SMALL, {0: "", 1: ""})[full("00:11.0")] == (0, 1)


# -- writing a list --------------------------------------------------------------------------------


def test_popcorns_script_lists_everything_but_bridges_once():
    """create_lspci.sh: by class, each id once, without classes 0600 and 0604."""
    assert create_lspci(SMALL) == (DISK, NIC, "1002:4396", USB, "1002:4398")


def test_the_scripts_list_leaves_all_devices_to_the_primary():
    """On the 64-core Opteron it fits the table, and a secondary claims nothing."""
    functions = Machine.load("h8qg6-64").pci_functions
    ids = create_lspci(functions)
    assert len(ids) == 11
    assert claims(functions, ids) == ()


def test_the_scripts_list_is_too_long_for_the_machine_with_the_xeon_phi():
    """62 ids, 16 places: the secondary drives what the primary drives, the Xeon Phi too."""
    functions = Machine.load("e5-2680-16").pci_functions
    ids = create_lspci(functions)
    assert len(ids) == 62
    assert full("83:00.0") in claims(functions, ids)


def test_a_list_hides_what_others_own():
    """All ids that the kernel does not own, and no other."""
    written = blacklist_for(SMALL, [full("00:11.0")])
    assert written.text == write_flags([NIC, "1002:4396", USB, "1002:4398"])
    assert written.cannot == ()
    assert claims(SMALL, written.text) == (full("00:11.0"),)


def test_identical_cards_cannot_be_split():
    """The list says why: it would hide both or neither."""
    written = blacklist_for(SMALL, [full("02:00.0")])
    assert written.cannot == (
        "it would drive 0000:03:00.0 (8086:10c9) too: 0000:02:00.0 has the same id, and a list of "
        "ids can hide both or neither",
    )


def test_a_device_cannot_be_split_if_another_kernel_has_its_function_0():
    """Not because of ids: the kernel takes the whole device for absent."""
    written = blacklist_for(SMALL, [full("00:12.1")])
    assert written.cannot == (
        "it would not drive 0000:00:12.1: function 0 of the same device, 0000:00:12.0, is skipped, "
        "and the kernel then looks at no other function there",
    )


@pytest.mark.parametrize("slot", DEVICES)
def test_by_slot_any_one_device_can_be_left_to_a_kernel(slot):
    """The extension can express every division, with ids where an id will do."""
    written = blacklist_for(SMALL, [slot], slots=True)
    assert written.cannot == ()
    assert claims(SMALL, written.text) == (slot,)


def test_a_list_that_does_not_fit_leaves_out_what_is_not_looked_at():
    """The laptop has 18 ids; 8 are enough, since the rest are not function 0."""
    functions = tuple(
        function(f"00:1{device}.{n}", f"8086:{device}{n:03x}", "0c03")
        for device in range(5)
        for n in range(4)
    )
    written = blacklist_for(functions, [])
    assert len(create_lspci(functions)) == 20
    assert len(written.names) == 5
    assert written.cannot == ()
    assert "20 entries would be needed, but 15 of them are idle" in written.notes[0]


def test_a_slot_that_is_not_there_is_refused_by_name():
    """With the nearest ones."""
    with pytest.raises(PopcornError) as refusal:
        blacklist_for(SMALL, ["0000:02:00.1"])
    assert "there is no function at '0000:02:00.1'; did you mean 0000:0" in str(refusal.value)


# -- what goes wrong -------------------------------------------------------------------------------


def test_exactly_one_owner_is_no_problem():
    """Bridges are exempt: they are in nobody's list and need not be."""
    assert problems(SMALL, owned_by(0), kernels=1) == []


def test_a_function_without_an_owner_is_a_problem():
    """No kernel drives it."""
    owners = owned_by(0)
    del owners[full("00:11.0")]
    assert problems(SMALL, owners) == [
        "0000:00:11.0 (1000:0072) has no owner, so no kernel drives it; exactly one was expected"
    ]


def test_a_slot_that_nobody_has_is_a_problem_and_no_accident():
    """It is named once, and the rest is judged all the same."""
    owners, lists = owned_by(0, **{"09:00.0": 0}), {0: "", 1: create_lspci(SMALL)}
    (said,) = problems(SMALL, owners, blacklists=lists)
    assert said.startswith("there is no function at 0000:09:00.0; did you mean 0000:0")


def test_a_function_with_two_owners_is_a_problem():
    """Each programs it and neither knows."""
    owners = owned_by(0) | {full("00:11.0"): (0, 2)}
    assert problems(SMALL, owners) == [
        "0000:00:11.0 (1000:0072) is claimed by kernels 0 and 2: each programs it and neither "
        "knows of the other; exactly one owner was expected"
    ]


def test_an_owner_that_is_no_kernel_is_a_problem():
    """Its number is beyond the plan's kernels."""
    (said,) = problems(SMALL, owned_by(0, **{"00:11.0": 3}), kernels=2)
    assert "is to belong to kernel 3; a kernel from 0 to 1 was expected" in said


def test_a_shared_interrupt_line_of_two_owners_is_a_problem():
    """A wire goes to one kernel; MSI has no wire and is no problem."""
    (said,) = problems(SMALL, owned_by(0, **{"00:12.1": 1, "02:00.0": 1}))
    assert said.startswith("interrupt line 16 is shared by functions of kernels 0 and 1 (kernel 0:")
    assert "0000:00:12.1" in said


def test_an_entry_that_matches_nothing_is_a_problem_with_the_likely_cure():
    """Most often its 0x is missing."""
    owners, lists = owned_by(0), {0: "", 1: "8086:10c9:b," + write_flags([DISK, USB])}
    said = problems(SMALL, owners, blacklists=lists)
    assert said[0] == (
        "kernel 1: entry 1, 8086:10c9:b, is read as 1f96:000a and matches no function; without 0x "
        "a number is decimal: 0x8086:0x10c9:b was expected"
    )
    assert "it would drive 0000:02:00.0, 0000:03:00.0 (8086:10c9) too" in said[1]


def test_a_dropped_entry_is_a_problem_and_so_is_what_it_lets_through():
    """Entry 17 by number, and the device that nothing hides any more."""
    ids = [DISK, USB, "1002:5a10", *(f"1002:{n:04x}" for n in range(13)), NIC]
    said = problems(SMALL, owned_by(0), blacklists={0: "", 1: ids})
    assert any("entry 17, 0x8086:0x10c9:b, is dropped without a word" in s for s in said)
    assert any("entry 17 names it, but the table has 16 places" in s for s in said)


def test_a_list_that_is_not_read_to_its_end_is_a_problem():
    """With the place from which on it is not read."""
    said = problems(
        SMALL, owned_by(0), blacklists={0: "", 1: write_flags(create_lspci(SMALL)) + ",1"}
    )
    assert said == [
        "kernel 1: its blacklist is not read from '1' on; vendor:device:flags was expected"
    ]


def test_a_sound_plan_and_its_lists_have_no_problem():
    """The primary owns all, the others nothing: Popcorn's default."""
    lists = {0: "", 1: create_lspci(SMALL), 2: create_lspci(SMALL)}
    assert problems(SMALL, owned_by(0), blacklists=lists, kernels=3) == []


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: claims(SMALL, 5), "5 is no list; one such as ['8086:10c9'] was expected."),
        (
            lambda: claims(SMALL, ["igb"]),
            "'igb' is neither id nor slot; '8086:10c9' or '0000:02:00.1' was expected.",
        ),
        (
            lambda: blacklist_for(SMALL, "0000:02:00.0"),
            "'0000:02:00.0' is one slot; a list of slots was expected.",
        ),
        (
            lambda: problems(SMALL, ["0000:02:00.0"]),
            "['0000:02:00.0']: a table from slots to kernel numbers was expected.",
        ),
        (
            lambda: devices.routes(machine_with(), owned_by(5), GROUPS),
            "0000:00:11.0 belongs to kernel 5, which has no CPU; expected one of the kernels 0, 1.",
        ),
    ],
)
def test_bad_input_is_answered_in_one_sentence(call, sentence):
    """What, and what was expected; never a traceback from inside."""
    with pytest.raises(PopcornError) as refusal:
        call()
    assert str(refusal.value) == sentence


def test_any_text_is_read_as_some_list():
    """No text makes the reader or the scan stumble: a kernel has to live with it, too."""
    draw = random.Random(4)
    for _ in range(3_000):
        text = "".join(draw.choices('0x8086:10c9b,":7 -é', k=draw.randrange(40)))
        assert set(claims(SMALL, text)) <= set(DEVICES)


def test_a_plan_names_kernels_by_number():
    """Anything else is refused in a sentence."""
    with pytest.raises(PopcornError, match="the number of a kernel was expected"):
        problems(SMALL, {full("00:11.0"): "primary"})


def test_split_devices_and_bridges_are_worth_a_remark():
    """One reset hits all functions of a device, and all that is behind a bridge."""
    said = remarks(SMALL, owned_by(0, **{"00:12.1": 1, "02:00.0": 1}))
    assert [s.partition(":")[0] for s in said] == [
        "the functions of device 0000",
        "what is behind bridge 0000",
    ]
    assert "split between kernels 0 and 1" in said[0]
    assert "belongs to kernels 0 and 1" in said[1]


# -- interrupts ------------------------------------------------------------------------------------


def machine_with(functions=SMALL, **more):
    chips = (IoApic(0, 0xFEC00000, 0, 24), IoApic(1, 0xFEC20000, 24, 32))
    made = replace(Machine.load("magny-cours-48"), pci_functions=functions, io_apics=chips)
    return replace(made, **more)


GROUPS = ((0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11))


def test_a_wire_ends_at_a_pin_of_an_io_apic():
    """The chip whose numbers begin at or below the line's, and the pin within it."""
    table = {r.slot: r for r in devices.routes(machine_with(), owned_by(0), GROUPS)}
    disk = table[full("00:11.0")]
    assert (disk.how, disk.io_apic, disk.pin, disk.cpu) == ("INTx", 0, 22, 0)


def test_msi_needs_no_pin():
    """It is a write to the CPU's own APIC."""
    table = {r.slot: r for r in devices.routes(machine_with(), owned_by(1), GROUPS)}
    nic = table[full("02:00.0")]
    assert (nic.how, nic.io_apic, nic.pin) == ("MSI-X", None, None)
    assert nic.cpu in GROUPS[1]
    assert nic.source.startswith("model default")


def test_a_route_prefers_the_devices_own_node():
    """The owner's lowest CPU there, if it has one there."""
    machine = machine_with()
    node_1 = machine.node(1).cpus[0]
    near = tuple(f._replace(node=1) for f in SMALL)
    groups = ((0, node_1),)
    assert {r.cpu for r in devices.routes(machine_with(near), owned_by(0), groups)} == {node_1}


def test_an_interrupt_at_another_kernels_cpu_is_spurious():
    """No driver listens there, and the owner waits."""
    routes = devices.routes(machine_with(), owned_by(0), GROUPS, to={full("00:11.0"): 7})
    assert devices.misrouted(routes, GROUPS) == [
        "the interrupt of 0000:00:11.0 goes to CPU 7 of kernel 1, where no driver listens: "
        "spurious there, missed by its owner; a CPU of kernel 0 was expected"
    ]


def test_a_route_to_a_cpu_that_is_not_there_is_refused():
    """By the machine's own words."""
    with pytest.raises(PopcornError, match="has no CPU 99"):
        devices.routes(machine_with(), owned_by(0), GROUPS, to={full("00:11.0"): 99})


# -- the scan as a story ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    machine: Machine


def scanned(*lists, functions=SMALL):
    """Every kernel scans, each with its list."""

    def world():
        return World(Setup(machine_with(functions)), devices=Devices)

    def play(edits=()):
        sim = Sim(world(), {"scenario": "scan"}, edits=edits)
        for kernel, flags in enumerate(lists):
            sim.begin(f"kernel {kernel}", scan, kernel, flags, kernel=kernel)
        return finish(sim, world, play)

    return play()


def said_by(run):
    return [record.event for record in run.trace]


def test_a_scan_says_what_it_finds_in_order():
    """List, bus, functions; a skipped function 0 takes the others with it; then the bridges."""
    assert said_by(scanned(write_flags([USB, NIC]))) == [
        EntryKept(0, 1, USB),
        EntryKept(0, 2, NIC),
        BusScanned(0, "0000:00"),
        BridgeFound(0, full("00:00.0"), "1002:5a10"),
        BridgeFound(0, full("00:04.0"), "1002:5a18"),
        DeviceClaimed(0, full("00:11.0"), DISK, "mpt3sas"),
        FunctionSkipped(0, full("00:12.0"), USB, 1),
        FunctionsPassedOver(0, "0000:00:12", "0000:00:12.1, 0000:00:12.2"),
        BridgeCrossed(0, "0000:02", full("00:04.0")),
        FunctionSkipped(0, full("02:00.0"), NIC, 2),
        BridgeCrossed(0, "0000:03", full("00:04.0")),
        FunctionSkipped(0, full("03:00.0"), NIC, 2),
        ScanEnded(0, 1, 3),
    ]


def test_a_scan_says_what_it_never_reaches():
    """Behind a bridge that was skipped."""
    run = scanned(write_flags(["1002:5a18"]))
    (record,) = run.trace.records(BusUnreached)
    assert record.event == BusUnreached(0, full("00:04.0"), "0000:02:00.0, 0000:03:00.0")


def test_a_scan_says_what_becomes_of_its_list():
    """A full table, an unreadable item, a slot."""
    many = write_flags([f"1234:{n:04x}" for n in range(17)])
    run = scanned(many, "0x1:0x2:b,x", "@0000:02:00.0:b")
    assert [r.event for r in run.trace.records(EntryDropped)] == [
        EntryDropped(0, 17, "0x1234:0x0010:b")
    ]
    assert [r.event for r in run.trace.records(ListRefused)] == [ListRefused(1, "x")]
    assert [r.event for r in run.trace.records(SlotEntryKept)] == [
        SlotEntryKept(2, 1, full("02:00.0"))
    ]


@pytest.mark.parametrize(
    "flags", ["", write_flags([NIC]), write_flags([USB, DISK]), "@0000:00:12.0:b"]
)
def test_the_story_and_the_question_agree(flags):
    """claims() says beforehand what a scan will claim."""
    world = scanned(flags).world.devices
    assert {slot for _, slot in world.driver} == set(claims(SMALL, flags))
    assert {slot: v for (_, slot), v in world.verdict.items()} == {
        slot: s.verdict for slot, s in seen(SMALL, flags).items()
    }


def test_two_drivers_of_one_device_are_in_the_table_and_in_no_event():
    """Nothing in the machine notices; only the table, which no kernel can see, has both."""
    world = scanned("", write_flags([USB, NIC])).world.devices
    assert world.claimed_by[full("00:11.0")] == (0, 1)
    assert world.claimed_by[full("02:00.0")] == (0,)


def test_an_entry_that_is_lost_lets_its_device_through():
    """In a fork without the record of the entry, the kernel claims what it was not to see."""
    run = scanned(write_flags([DISK, USB, NIC]))
    assert run.world.devices.claimed_by == {}
    fork = run.fork(run.trace.next(EntryKept, id=DISK).seq, drop=True)
    assert fork.world.devices.claimed_by == {full("00:11.0"): (0,)}


def test_a_scan_can_be_played():
    """The player needs no more than events and tables."""
    assert "kernel 0 scans bus 0000:00" in str(scanned(write_flags([NIC, USB])).play())


# -- the use of a device ---------------------------------------------------------------------------

DISK_SLOT = full("00:11.0")


def reads(cpus=(0, 47), to=None):
    """Kernel 0 owns the disk and reads a block; then kernel 1 reads one through kernel 0."""
    owner, user = 0, 1

    def asked(world, me, message):
        yield from devices.submit(world, me, DISK_SLOT, message.payload, cpus[me], to or cpus[0])

    def answered(world, me, message):
        yield IoDone(me, DISK_SLOT, message.payload)

    setup = scenarios.make_setup(
        machine_with(), 2, cpus, handlers={MessageType.PING: asked, MessageType.PONG: answered}
    )

    def served(world, me, slot, request):
        if request == 1:
            yield from messaging.send(world, me, user, MessageType.PONG, Priority.NORMAL, request)

    def owner_reads(world, me):
        yield IoAsked(me, DISK_SLOT, 0)
        yield from devices.submit(world, me, DISK_SLOT, 0, cpus[me], to or cpus[me])
        yield Until(InterruptServed, kernel=me, slot=DISK_SLOT, request=0)
        yield IoDone(me, DISK_SLOT, 0)

    def user_reads(world, me):
        yield Until(IoDone, kernel=owner)
        yield IoAsked(me, DISK_SLOT, 1)
        yield from messaging.send(world, me, owner, MessageType.PING, Priority.NORMAL, 1)

    def claimed(world):
        yield DeviceClaimed(owner, DISK_SLOT, DISK, "mpt3sas")

    def world():
        return World(setup, rings=Rings, messaging=messaging.Messaging, devices=Devices)

    sim = Sim(world(), {"scenario": "proxy"})
    sim.begin("machine", scenarios.everybody_registered, 2)
    sim.begin("bus", claimed)
    for me in (0, 1):
        sim.begin(f"kernel {me} isr", messaging.isr, me, kernel=me)
        sim.begin(f"kernel {me} softirq", messaging.softirq, me, messaging.receive, kernel=me)
        sim.begin(f"kernel {me} irq", devices.interrupts, me, cpus[me], served, kernel=me)
    sim.begin("kernel 0", owner_reads, 0, kernel=0)
    sim.begin("kernel 1", user_reads, 1, kernel=1)
    return finish(sim, world)


def latency_ns(run, kernel):
    asked, done = (run.trace.next(kind, kernel=kernel) for kind in (IoAsked, IoDone))
    return done.time - asked.time


@pytest.mark.parametrize("cpus", [(0, 1), (0, 6), (0, 47), (47, 13)])
def test_the_price_of_a_proxy_is_what_a_run_takes(cpus):
    """The formula and the story agree to the nanosecond, wherever the two kernels are."""
    run, price = reads(cpus), devices.proxy_cost(machine_with(), cpus[1], cpus[0])
    assert latency_ns(run, 0) == price.local_ns == devices.local_io_ns(machine_with())
    assert latency_ns(run, 1) == price.proxied_ns
    assert price.extra_ns == price.request_ns + price.reply_ns


def test_a_proxy_far_away_costs_more_than_one_nearby():
    """What differs is the cache lines' way."""
    near, far = (devices.proxy_cost(machine_with(), 0, cpu) for cpu in (1, 47))
    assert near.proxied_ns < far.proxied_ns
    assert (near.hops, far.hops) == ("same die", "2 hops")


def test_the_messages_constants_are_those_of_messaging():
    """Two files may not drift apart."""
    costs = messaging.Costs
    assert devices.POLL_EXIT_CYCLES == costs.POLL_EXIT_CYCLES
    assert devices.PUT_CYCLES == costs.PUT_CYCLES


def test_an_interrupt_at_the_wrong_cpu_leaves_the_owner_waiting():
    """The device is done, the other kernel forgets its interrupt, the owner never hears of it."""
    run = reads(to=47)
    assert [r.event for r in run.trace.records(DeviceInterrupted)] == [
        DeviceInterrupted(DISK_SLOT, 0, 47)
    ]
    assert [r.event for r in run.trace.records(InterruptSpurious)] == [
        InterruptSpurious(1, DISK_SLOT, 0, 47)
    ]
    assert run.trace.next(IoDone) is None
    assert "kernel 0" in dict(run.waiting)


@pytest.mark.parametrize(
    "text",
    [
        "0x8086:0x10c9:b",
        "8086:10c9:b",
        "32902:4297:b",
        "0x8086:0x10c9,0x1000:0x0072:b",
        "0x8086:0x10c9:b,0x1000:0x0072",
        "0x8086:0x10c9:7,:,0x1:0x2:b",
        "0x18086:010:b,x:y:z",
        write_flags([f"0001:{n:04x}" for n in range(20)]),
    ],
)
def test_the_command_line_reads_a_list_as_the_scan_does(text):
    """cmdline.py explains a list, devices.py scans with it: one reading, told twice."""
    seen_on_the_line = cmdline.apply(cmdline.parse(f"pci_dev_flags={text}"), machine_with())
    assert list(seen_on_the_line.hidden_ids) == list(
        dict.fromkeys(entry.id for entry in read_flags(text).entries)
    )


# -- the named runs --------------------------------------------------------------------------------


def test_the_default_scan_leaves_every_device_to_the_primary():
    """Popcorn's script on the 64-core Opteron: 15 functions, one owner each."""
    world = scenarios.device_scan().world.devices
    assert set(world.claimed_by.values()) == {(0,)}
    assert (world.claimed, world.skipped[1], world.unseen[1]) == ({0: 15, 1: 0}, 6, 10)


def test_the_scan_of_the_machine_with_the_xeon_phi_gives_it_two_drivers():
    """46 of 62 entries are dropped without a word, the Phi's among them."""
    run = scenarios.device_scan(machine="e5-2680-16")
    assert len(list(run.trace.records(EntryDropped))) == 62 - 16
    assert run.world.devices.claimed_by[full("83:00.0")] == (0, 1)


def test_a_proxied_block_costs_what_the_formula_says():
    """On another machine, from another kernel, with another disk."""
    run = scenarios.proxied_io(machine="e5-2680-16", kernels=2, secondary=1, blocks=3)
    price = devices.proxy_cost(run.machine, run.setup.cpus[1], run.setup.cpus[0])
    asked, done = (
        [record.time for record in run.trace.records(kind, kernel=1)] for kind in (IoAsked, IoDone)
    )
    assert [end - start for start, end in zip(asked, done, strict=True)] == [price.proxied_ns] * 3


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: scenarios.device_scan(lists="b"), "lists='b': expected a list of texts, one for"),
        (lambda: scenarios.device_scan(lists=[""]), "one for each of two kernels or more"),
        (lambda: scenarios.device_scan(machine="magny-cours-48"), "comes without a list of PCI"),
        (lambda: scenarios.proxied_io(device="0000:03:00.1"), "h8qg6-64 has no device there; did"),
        (lambda: scenarios.proxied_io(secondary=0), "secondary=0: expected a whole number, from 1"),
        (lambda: scenarios.proxied_io(interrupt_to=99), "h8qg6-64 has no CPU 99"),
    ],
)
def test_a_scenario_refuses_what_it_cannot_play(call, sentence):
    """Before anything runs."""
    with pytest.raises(PopcornError) as refusal:
        call()
    assert sentence in str(refusal.value)

"""A plan is one object: built, edited, checked as a whole, written as lines, saved, imported."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import cmdline, memory
from popcorn_edu.model.firmware import GIB, MIB, MemoryRange
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.partition import DEVICE_POLICIES, KernelPlan, Partition
from popcorn_edu.model.plan_words import read_cpus, read_ranges, read_slot

DATA = Path(__file__).parents[1] / "data"
WITH_RAM = [name for name in Machine.names() if Machine.load(name).ram]
ACRN = [name for name in datasets.names("scenario") if "acrn" in name]
KERF = [name for name in datasets.names("scenario") if "kerf" in name]


@pytest.fixture(scope="module")
def plan():
    """Eight kernels on the 64-CPU machine, one for each node."""
    return Partition.build("h8qg6-64")


# -- built from policies ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_RAM)
@pytest.mark.parametrize("policy", ["per node", "per package"])
def test_policies_divide_every_machine(name, policy):
    """What a policy makes has every CPU once, and its lines give each kernel what is planned."""
    plan = Partition.build(name, grouping=policy)
    assert sorted(cpu for cpus in plan.groups for cpu in cpus) == list(plan.machine.cpus)
    if name == "e5-2680-16":  # has more kinds of devices than a blacklist has places
        assert any("the table has 16 places" in problem for problem in plan.problems())
        return
    allowed = ("512 GiB", "ramdisk")  # large machines; a board of 4 GiB
    assert [p for p in plan.problems() if not any(word in p for word in allowed)] == []


def test_a_kernel_for_each_core_of_the_64_cpu_machine():
    """The overview's own example: 64 kernels, no problem, and every line is short enough."""
    plan = Partition.build("h8qg6-64", grouping="per core")
    assert len(plan.kernels) == 64 and plan.problems() == []
    assert max(len(plan.command_line(k)) for k in range(64)) < 500


def test_the_primary_comes_first_and_names_may_be_given():
    """Kernel 0 has the boot CPU; names that are not given are made."""
    plan = Partition.build("h8qg6-64", 3, names=["host", "web"])
    assert plan.machine.bsp in plan.kernels[0].cpus
    assert [kernel.name for kernel in plan.kernels] == ["host", "web", "kernel 2"]


def test_groups_memory_and_devices_by_hand():
    """Each of the three may be what a student made."""
    machine = Machine.load("h8qg6-64")
    plan = Partition.build(
        machine,
        grouping=["0-31", "32-63"],
        memory=["0x0-0x9cfff, 0x100000-0xd7e5ffff", "32G@32G"],
        devices={"0000:03:00.0": 1, "01:04.0": 0},
    )
    assert plan.groups == (tuple(range(32)), tuple(range(32, 64)))
    assert plan.kernels[1].memory == (MemoryRange(32 * GIB, 64 * GIB),)
    assert plan.kernels[1].devices == ("0000:03:00.0",)
    assert plan.memory_policy == "by hand" and plan.reserve
    carved = memory.carve(machine, plan.groups, "per node")
    assert Partition.build(machine, grouping=plan.groups, memory=carved).kernels[1].bytes == (
        carved.bytes_of(1)
    )


def test_the_largest_machine_in_a_tenth_of_a_second():
    """The 384 CPUs of the SGI UV 2000, divided and checked."""
    machine, best = Machine.load("uv2000-384"), 9.0
    for _ in range(3):  # the first reads the machine's tables, too
        start = time.perf_counter()
        Partition.build(machine, grouping="per node").problems()
        best = min(best, time.perf_counter() - start)
    assert best < 0.1


def test_devices_near_their_cpus_leave_two_cards_apart():
    """The policy "near" gives each device to a kernel on its node, if the listing knows it."""
    machine = Machine.load("h8qg6-64")
    functions = tuple(
        f._replace(node=3) if f.slot == "0000:03:00.0" else f for f in machine.pci_functions
    )
    plan = Partition.build(replace(machine, pci_functions=functions), devices="near")
    assert plan.owners["0000:03:00.0"] == (3,) and plan.owners["0000:01:04.0"] == (0,)
    assert set(DEVICE_POLICIES) == {"primary", "near"}


# -- command lines ---------------------------------------------------------------------------------


def test_the_lines_of_a_plan(plan):
    """As mpart and create_bootargs.sh write them, but with a hole left a hole."""
    assert plan.command_line(0) == (
        "vty_offset=0x1fb4000000 present_mask=0-7 memmap=3537280K@0M memmap=12800M@4096M mem=16896M"
    )
    words = plan.command_line(1).split()
    assert words[:5] == [
        "earlyprintk=ttyS0,115200", "console=ttyS0,115200", "acpi_irq_nobalance",
        "no_ipi_broadcast", "lapic_timer=1000000",
    ]  # fmt: skip
    assert words[-5:] == [
        "vty_offset=0x1fb4000000", "present_mask=8-15", "memmap=16128M@16896M",
        "memmap=16880M$16M", "mem=33024M",
    ]  # fmt: skip
    assert "mklinux" in words and words[5].count(":b") == 11


def test_a_line_gives_its_kernel_what_is_planned(plan):
    """Read back with the kernel's own rules: the CPUs, the RAM, and the low 16 MiB of all."""
    for k, kernel in enumerate(plan.kernels):
        seen = cmdline.apply(plan.command_line(k), plan.machine)
        assert seen.present == seen.online == kernel.cpus
        above = [part for part in seen.ram if part.start >= memory.LOW_BYTES]
        if k:
            assert above == list(kernel.memory)
        assert (set(seen.hidden) & set(kernel.devices)) == set()
        assert seen.panic == ""


@pytest.mark.parametrize("name", [name for name in WITH_RAM if name != "cortex-a9-2"])
def test_no_line_takes_a_hole_for_ram(name):
    """Ranges are joined over a hole only where the firmware tells of all of it."""
    plan = Partition.build(name, grouping="per core", kernels=2)
    ram = plan.machine.ram
    for k in range(2):
        for part in cmdline.apply(plan.command_line(k), plan.machine).ram:
            assert any(r.start <= part.start and part.end <= r.end for r in ram)


def test_blacklists_by_slot_can_divide_identical_cards(plan):
    """Popcorn's ids cannot tell two cards apart; our extension can, and says that it is one."""
    split = plan.give(2, devices=["0000:02:00.1"])
    assert any("has the same id" in problem for problem in split.problems())
    by_slot = replace(split, by_slot=True)
    assert by_slot.problems() == []
    assert "@0000:02:00.0:b" in by_slot.command_line(2)
    assert "@0000:02:00.1:b" not in by_slot.command_line(2)


def test_a_kernel_with_nothing_has_no_line(plan):
    """A line that would say nothing is refused."""
    with pytest.raises(PopcornError, match="Kernel 3 has no command line. A kernel without a CPU"):
        plan.edit(3, cpus="").command_line(3)


# -- edits -----------------------------------------------------------------------------------------


def test_an_edit_makes_another_plan(plan):
    """The old plan stays what it was, and other kernels keep what they have."""
    edited = plan.edit(3, cpus="24-30", parameters="quiet", name="web")
    assert plan.kernels[3].cpus == tuple(range(24, 32))
    assert edited.kernels[3].cpus == tuple(range(24, 31)) and edited.kernels[3].name == "web"
    assert edited.kernels[4] == plan.kernels[4]
    assert edited.command_line(3).split()[-6] == "quiet"


def test_to_give_is_to_take_away(plan):
    """A CPU or a device that is given leaves who had it."""
    given = plan.give(5, cpus="16-17", devices="01:04.0, 0000:03:00.0")
    assert given.kernels[2].cpus == tuple(range(18, 24))
    assert given.kernels[5].cpus == (16, 17, *range(40, 48))
    assert given.kernels[5].devices == ("0000:01:04.0", "0000:03:00.0")
    assert set(given.owners.values()) == {(0,), (5,)}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", ()), ("8, 0-2", (0, 1, 2, 8)), ("3,3,2-3", (2, 3)), ((5, 1), (1, 5))],
)
def test_cpus_as_people_write_them(text, numbers):
    """A list in any order, or numbers."""
    assert read_cpus(text) == numbers


def test_ranges_as_people_write_them():
    """As Linux prints them, with or without brackets and size; or as memmap= takes them."""
    wanted = (MemoryRange(MIB, 2 * MIB), MemoryRange(4 * GIB, 5 * GIB))
    for text in (
        "0x100000-0x1fffff, 0x100000000-0x13fffffff",
        "[0x100000-0x1fffff] (1 MiB), 1G@4G",
        "1024M@0x100000000, 1M@1M",
    ):
        assert read_ranges(text) == wanted
    assert read_ranges([(MIB, 2 * MIB), "1G@4G"]) == wanted


# -- as a file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouping", ["per node", "per core"])
def test_a_saved_plan_is_the_same_plan(tmp_path, grouping):
    """What is loaded equals what was saved, problems and lines included."""
    plan = Partition.build("h8qg6-64", grouping=grouping).edit(1, parameters="quiet", name="ä")
    plan = replace(plan, by_slot=True, notes=("a note",))
    assert Partition.load(plan.save(tmp_path / "plan.json")) == plan


def test_a_saved_plan_is_small_and_readable(plan, tmp_path):
    """CPU lists, ranges with their sizes in words, devices by slot."""
    text = plan.save(tmp_path / "plan.json").read_text()
    kernel = json.loads(text)["kernels"][1]
    assert kernel == {
        "name": "kernel 1",
        "cpus": "8-15",
        "memory": ["0x420000000-0x80fffffff (16,128 MiB)"],
        "devices": [],
        "parameters": "",
    }
    assert len(text) < 4_000


def test_a_machine_of_ones_own_is_given_with_the_file(tmp_path):
    """A plan for a machine that is not in the kit names it; the caller brings it."""
    mine = replace(Machine.synthetic(2, 1, 4), memory_map=(MemoryRange(0, 8 * GIB),))
    plan = Partition.build(mine, grouping=["0-3", "4-7"], memory=["2G@0M", "2G@4G"])
    path = plan.save(tmp_path / "mine.json")
    assert Partition.load(path, mine) == plan
    with pytest.raises(PopcornError, match="mine.json divides a machine that does not come with"):
        Partition.load(path)
    with pytest.raises(PopcornError, match="mine.json divides the machine 'synthetic-2x1x4x1'; 'q"):
        Partition.load(path, Machine.load("qemu"))


# -- plans of others -------------------------------------------------------------------------------


def imported(name):
    """A scenario of the data, on its board."""
    path = datasets.path(name)
    if "kerf" in name:
        return Partition.from_kerf(path)
    board = next(b for b in datasets.names("board") if b.removeprefix("board-") in name)
    return Partition.from_acrn(path, datasets.path(board))


@pytest.mark.parametrize("name", ACRN)
def test_an_acrn_scenario_agrees_with_an_independent_reading(name):
    """CPUs, RAM and devices of every virtual machine are those of the sidecar."""
    stem = Path(datasets.entry(name)["file"]).stem
    sidecar = json.loads((DATA / "scenarios" / f"{stem}.expected.json").read_text())
    plan = imported(name)
    kernels = {kernel.name: kernel for kernel in plan.kernels}
    assert len(kernels) == len(sidecar["vms"])
    for vm in sidecar["vms"]:
        kernel = kernels[vm["name"]]
        if vm["load_order"] == "SERVICE_VM":
            others = {c for other in sidecar["vms"] for c in other["pcpus"]}
            assert set(kernel.cpus) == set(plan.machine.cpus) - others
            assert plan.kernels[0] is kernel
            continue
        assert list(kernel.cpus) == sorted(vm["pcpus"])
        assert [slot.removeprefix("0000:") for slot in kernel.devices] == sorted(vm["pci"])
        assert [(p.start, (p.end - p.start) // MIB) for p in kernel.memory] == [
            (int(m["start_hpa"], 16), int(m["size_mib"])) for m in vm["memory"]
        ]
        size = vm["memory_size_mib"]
        told = f"{kernel.name} has {int(size or 0):,} MiB"
        assert any(told in note for note in plan.notes) == bool(size)


@pytest.mark.parametrize("name", ["board-whl-ipc-i5", "board-cfl-k700-i7", "board-qemu"])
def test_a_board_agrees_with_an_independent_reading(name):
    """CPUs, RAM and devices of the board are those of the sidecar."""
    stem = Path(datasets.entry(name)["file"]).name.removesuffix(".board.xml")
    sidecar = json.loads((DATA / "boards" / f"{stem}.expected.json").read_text())
    machine = Machine.load(stem)
    assert list(machine.cpus) == sidecar["cpus"]
    slots = [function.slot.removeprefix("0000:") for function in machine.pci_functions]
    assert slots == sidecar["pci"]
    told = sidecar["iomem_system_ram"]
    if not told:  # its reading missed the indented rows; page 0 is reserved in those
        first, *rest = sidecar["memory_ranges"]
        told = [first | {"start": 4096}, *rest]
    ram = sum(row["end"] + 1 - row["start"] for row in told)
    assert sum(part.end - part.start for part in machine.ram) == ram


def test_what_a_foreign_plan_cannot_say_here_is_a_note():
    """Shared CPUs, RAM without an address, other systems, virtual wires: each is a sentence."""
    notes = "\n".join(imported("scenario-acrn-whl-ipc-i5-hybrid").notes)
    for said in (
        "POST_STD_VM1 and POST_STD_VM2 share CPU 2, and the hypervisor switches between them",
        "POST_STD_VM1 has 4,096 MiB out of the service VM's RAM",
        "SAFETY_VM0 boots Zephyr_ElfImage, which is no Linux",
        "POST_STD_VM1 runs Windows",
        "A virtual serial line joins SAFETY_VM0 and ACRN_Service_VM",
        'POST_STD_VM1 calls 0000:00:02.0 "Intel Corporation CoffeeLake-S GT2',
        "ACRN has no reserve at the top of the RAM and no blacklist",
    ):
        assert said in notes
    notes = "\n".join(imported("scenario-acrn-cfl-k700-i7-hybrid-rt").notes)
    assert "PRE_RT_VM0 is a real-time VM." in notes
    assert "PRE_RT_VM0 and POST_STD_VM1 share 2 MiB" in notes
    assert "PRE_RT_VM0: the CPU numbers in its boot line count the VM's own CPUs from 0" in notes


def test_a_foreign_plan_is_checked_as_ours_are():
    """Two identical network cards, one for each VM, is what a blacklist by id cannot do."""
    plan = imported("scenario-acrn-whl-ipc-i5-partitioned")
    assert [p for p in plan.problems() if "0000:03:00.0 (8086:157b)" in p] == [
        "Kernel 0: it would drive 0000:03:00.0 (8086:157b) too: 0000:04:00.0 has the same id, and "
        "a list of ids can hide both or neither."
    ]
    shared = imported("scenario-acrn-whl-ipc-i5-hybrid").problems()
    assert "CPU 2 is in kernels 2 and 3; one kernel was expected." in shared
    assert "Kernel 2 has no memory; at least one range of RAM was expected." in shared


@pytest.mark.parametrize(
    ("name", "host", "pool", "start", "size"),
    [
        ("baseline", "0-3", "4-31", 0x80000000, 14),
        ("edge-computing", "0-1", "2-15", 0x200000000, 24),
        ("numa-topology", "0-3", "4-63", 0x800000000, 96),
        ("simple-numa", "0-3", "4-31", 0x400000000, 48),
    ],
)
def test_a_kerf_pool_is_one_secondary_kernel(name, host, pool, start, size):
    """The pool's CPUs, RAM and devices; the host has what is left of the computer."""
    plan = imported(f"scenario-kerf-{name}")
    assert plan.groups == (read_cpus(host), read_cpus(pool))
    assert plan.kernels[1].memory == (MemoryRange(start, start + size * GIB),)
    assert plan.kernels[0].memory == (MemoryRange(0, start),)
    assert plan.kernels[1].devices and not plan.kernels[0].devices


def test_the_odd_numbers_of_kerf_are_told():
    """A distance of 0 to oneself, cells of more than 32 bits, a wrong comment, a fifth of four."""
    plan = imported("scenario-kerf-numa-topology")
    notes = "\n".join(plan.notes)
    assert "line 27: the distance matrix has 0 from a node to itself, where a firmware's" in notes
    assert plan.machine.distances[0, 0] == 10 and plan.machine.distances[0, 1] == 20
    assert "a cell holds 32 bits, and the numbers here are larger" in notes
    notes = "\n".join(imported("scenario-kerf-simple-numa").notes)
    assert "the comment says 16 GB, the number 0x800000000 is 32 GiB; the number counts" in notes
    assert "names virtual function 4, and with 4 of them they are numbered 0 to 3" in notes


@pytest.mark.parametrize("name", ACRN + KERF)
def test_an_imported_plan_can_be_saved(name, tmp_path):
    """With its notes, for its own machine."""
    plan = imported(name)
    assert Partition.load(plan.save(tmp_path / "plan.json"), plan.machine) == plan


# -- bad plans -------------------------------------------------------------------------------------

SLOT = "0000:01:04.0"
BAD = {
    "a CPU in two kernels": lambda p: p.edit(2, cpus="15-23"),
    "a CPU in none": lambda p: p.edit(2, cpus="17-23"),
    "a kernel without CPUs": lambda p: p.edit(2, cpus=""),
    "a CPU that is not there": lambda p: p.edit(7, cpus="56-64"),
    "the boot CPU in a secondary": lambda p: p.give(1, cpus="0"),
    "a kernel without memory": lambda p: p.edit(3, memory=""),
    "two kernels on the same bytes": lambda p: p.edit(2, memory="0x810000000-0xc0fffffff"),
    "the same bytes twice": lambda p: p.edit(2, memory="16128M@33024M, 256M@33024M"),
    "a hole for RAM": lambda p: p.edit(0, memory="0x0-0x41fffffff"),
    "above all RAM": lambda p: p.edit(7, memory="0x1bc0000000-0x1faffffffff"),
    "a secondary in the low 16 MiB": lambda p: p.edit(1, memory="8M@4M, 0x420000000-0x80fffffff"),
    "a kernel in the reserve": lambda p: p.edit(7, memory="0x1bc0000000-0x1fb4ffffff"),
    "too little for a ramdisk": lambda p: p.edit(5, memory="512M@0x17d0000000"),
    "a primary without low memory": lambda p: p.edit(0, memory="0x100000000-0x41fffffff"),
    "a device without owner": lambda p: p.edit(
        0, devices=[s for s in p.kernels[0].devices if s != SLOT]
    ),
    "a device with two owners": lambda p: p.edit(2, devices=[SLOT, "0000:03:00.0"]),
    "two cards with one id": lambda p: p.give(2, devices=["0000:02:00.1"]),
    "a shared interrupt line": lambda p: p.give(2, devices=["0000:00:12.2"]),
    "a device behind a bridge": lambda p: p.give(2, devices=[SLOT]),
    "a line that is too long": lambda p: p.edit(1, parameters="x=" + "y" * 2000),
    "a size with a point": lambda p: p.edit(1, parameters="memmap=1.5G@8G"),
    "one CPU started": lambda p: p.edit(1, parameters="maxcpus=1"),
    "no SMP": lambda p: p.edit(1, parameters="nosmp"),
    "no map at all": lambda p: p.edit(1, parameters="memmap=exactmap"),
    "less RAM than planned": lambda p: p.edit(1, parameters="memmap=1G$20G"),
    "a parameter garbled": lambda p: p.edit(1, parameters="pci_dev_flags=0x8086"),
    "no kernel": lambda p: replace(p, kernels=()),
    "too many kernels": lambda p: Partition.build("uv2000-384", grouping="per core"),
    "everything at once": lambda p: p.edit(0, cpus="1-7", memory="", devices="").edit(
        1, cpus="0,8-15", memory="16G@32G"
    ),
}


def golden(name):
    """{case: its sentences} of a file of golden sentences."""
    blocks = (DATA / name).read_text(encoding="utf-8").strip().split("\n\n")[1:]
    return {block.splitlines()[0]: block.splitlines()[1:] for block in blocks}


PROBLEMS, REFUSED = golden("bad_plans.txt"), golden("bad_plan_input.txt")


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plan_is_told_what_is_wrong(case, plan):
    """Every problem at once, each a golden sentence; a long list is kept to its first ten."""
    found = BAD[case](plan).problems()
    shown = found[:10] + [f"... {len(found) - 10} more"] * (len(found) > 10)
    assert [f"  {line}" for line in shown] == PROBLEMS[case]


def test_no_golden_sentence_without_its_plan():
    """The file and the table hold the same cases."""
    assert list(BAD) == list(PROBLEMS) and list(REFUSE) == list(REFUSED)


# -- what cannot be read is refused ----------------------------------------------------------------


def loaded(folder, **changes):
    """A saved plan, changed as a person with an editor would, and loaded."""
    path = Partition.build("qemu", grouping=["0-1", "2-3"]).save(folder / "plan.json")
    content = json.loads(path.read_text()) | changes
    path.write_text(changes.get("text") or json.dumps(content))
    return Partition.load(path)


def kernel(**changes):
    return [{"name": "primary", "cpus": "0-3", "memory": [], "devices": []} | changes]


REFUSE = {
    "no machine": lambda p, f: Partition.build("h8qg-64"),
    "no grouping policy": lambda p, f: Partition.build("h8qg6-64", grouping="per nodes"),
    "no memory policy": lambda p, f: Partition.build("h8qg6-64", memory="per nod"),
    "no device policy": lambda p, f: Partition.build("h8qg6-64", devices="primry"),
    "owners that are none": lambda p, f: Partition.build("h8qg6-64", devices=3),
    "an owner that is not there": lambda p, f: Partition.build("h8qg6-64", devices={SLOT: 9}),
    "memory for other kernels": lambda p, f: Partition.build("h8qg6-64", memory=["1G@1G"]),
    "too many names": lambda p, f: Partition.build("qemu", names=["a", "b"]),
    "no kernel of that number": lambda p, f: p.edit(8, cpus="0"),
    "a kernel that is no number": lambda p, f: p.edit("1", cpus="0"),
    "CPUs upside down": lambda p, f: p.edit(1, cpus="15-8"),
    "CPUs in words": lambda p, f: p.edit(1, cpus="all"),
    "CPUs beyond all": lambda p, f: p.edit(1, cpus="0-99999999"),
    "CPUs that are none": lambda p, f: p.edit(1, cpus=[1, "2"]),
    "a range without an end": lambda p, f: p.edit(1, memory="0x100000-"),
    "a range upside down": lambda p, f: p.edit(1, memory="0x200000-0x1fffff"),
    "a size that does not fit": lambda p, f: p.edit(1, memory="0x100000-0x1fffff (2 MiB)"),
    "ranges that are none": lambda p, f: p.edit(1, memory=[3]),
    "no slot": lambda p, f: p.edit(1, devices="02:00"),
    "no device there": lambda p, f: p.edit(1, devices="0000:02:00.2"),
    "a name with a line end": lambda p, f: p.edit(1, name="a\nb"),
    "a machine that is none": lambda p, f: Partition("h8qg6-64", ()),
    "a kernel that is none": lambda p, f: Partition(p.machine, (p.kernels[0], "kernel 1")),
    "no file": lambda p, f: Partition.load(f / "none.json"),
    "no JSON": lambda p, f: loaded(f, text='{"format": '),
    "no object": lambda p, f: loaded(f, text="[1, 2]"),
    "another file": lambda p, f: loaded(f, format="popcorn_edu run 1"),
    "an unknown key": lambda p, f: loaded(f, kernel=[]),
    "an unknown key of a kernel": lambda p, f: loaded(f, kernels=kernel(cpu="0-3")),
    "a key twice": lambda p, f: loaded(f, text='{"format": 1, "format": 2}'),
    "kernels that are no list": lambda p, f: loaded(f, kernels={}),
    "CPUs as a list": lambda p, f: loaded(f, kernels=kernel(cpus=[0, 1])),
    "a garbled range": lambda p, f: loaded(f, kernels=kernel(memory=["0x1000 to 0x2000"])),
    "a wrong size": lambda p, f: loaded(f, kernels=kernel(memory=["0x0-0xfff (1 MiB)"])),
    "a device of another machine": lambda p, f: loaded(f, kernels=kernel(devices=[SLOT])),
    "a policy nobody knows": lambda p, f: loaded(f, **{"memory policy": "popcorn2"}),
    "yes or no": lambda p, f: loaded(f, **{"by slot": "yes"}),
    "an unknown machine": lambda p, f: loaded(f, machine="h8qg6-65"),
    "a scenario without its board": lambda p, f: Partition.from_acrn(
        datasets.path(ACRN[0]), datasets.path(ACRN[0])
    ),
    "a board for a scenario": lambda p, f: Partition.from_acrn(datasets.path("board-qemu"), "qemu"),
    "a scenario of something else": lambda p, f: Partition.from_acrn("<a>\n</a>", "qemu"),
    "a scenario cut off": lambda p, f: Partition.from_acrn("<acrn-config>\n<vm>", "qemu"),
    "a CPU in words": lambda p, f: Partition.from_acrn(
        "<acrn-config>\n<vm><name>A</name><cpu_affinity><pcpu><pcpu_id>one</pcpu_id></pcpu>"
        "</cpu_affinity></vm></acrn-config>",
        "qemu",
    ),
    "a device in words": lambda p, f: Partition.from_acrn(
        "<acrn-config>\n<vm><name>A</name><pci_devs><pci_dev>the network card</pci_dev>"
        "</pci_devs></vm></acrn-config>",
        "qemu",
    ),
    "an entity": lambda p, f: Partition.from_acrn('<!DOCTYPE a [<!ENTITY b "c">]>\n<a/>', "qemu"),
    "a tree without resources": lambda p, f: Partition.from_kerf("/ {\n resource { };\n};"),
    "a tree never closed": lambda p, f: Partition.from_kerf("/ {\n resources {\n"),
    "a tree of garbage": lambda p, f: Partition.from_kerf("/ {\n §§§ };"),
    "cells in words": lambda p, f: Partition.from_kerf(
        "/ {\n resources {\n cpus = <four>;\n };\n};"
    ),
    "a device without a slot": lambda p, f: Partition.from_kerf(
        "/ {\n resources {\n cpus = <1>; memory-base = <0 0>; memory-bytes = <0 4096>;\n devices "
        '{ eth0: ethernet@0 {\n pci-id = "1:0"; }; };\n };\n};'
    ),
    "devices that are no list": lambda p, f: p.edit(1, devices=3),
    "devices to give that are no list": lambda p, f: p.give(1, devices=3),
    "memory that is no list": lambda p, f: Partition.build("h8qg6-64", memory=5),
    "names that are no list": lambda p, f: Partition.build("h8qg6-64", names="ab"),
    "a kernel of an empty plan": lambda p, f: Partition(p.machine, ()).command_line(0),
    "an empty plan shown": lambda p, f: Partition(p.machine, ()).show(),
    "a plan on another machine": lambda p, f: Partition.load(p.save(f / "a"), machine="qemu"),
    "a tree on no machine": lambda p, f: Partition.from_kerf(datasets.path(KERF[0]), 5),
}


@pytest.mark.parametrize("case", REFUSE)
def test_what_cannot_be_read_is_refused(case, plan, tmp_path):
    """One sentence: what, where, what was expected, the nearest spelling."""
    with pytest.raises(PopcornError) as caught:
        REFUSE[case](plan, tmp_path)
    said = str(caught.value).replace(str(tmp_path), "FOLDER")
    assert [f"  {said}"] == REFUSED[case]


def test_a_plan_of_a_machine_of_your_own_says_how_it_is_loaded(tmp_path):
    """In a sentence of its own, behind the one that says that the kit has no such machine."""
    tree = Partition.from_kerf(datasets.path(KERF[0]))
    path = tree.save(tmp_path / "kerf.plan")
    with pytest.raises(PopcornError, match=r"[.?] A machine of your own is given as"):
        Partition.load(path)
    assert Partition.load(path, machine=tree.machine) == tree


def test_problems_never_raise():
    """Whatever the kernels are given, problems() and remarks() answer with sentences."""
    plan = Partition.build("qemu", grouping=["0-1", "2-3"])
    odd = (
        KernelPlan("", (), (), ("9999:00:00.0",), '"'),
        KernelPlan("x", (70000,), (MemoryRange(5, 3),), (), "mem=0 memmap=,"),
        KernelPlan("y", (0, 0), (MemoryRange(0, 1 << 52),), ("0000:00:00.0",), "\x7f\xe4"),
    )
    for kernels in (odd, odd[:1], (*plan.kernels, *odd), odd[2:]):
        bad = replace(plan, kernels=kernels)
        for sentence in [*bad.problems(), *bad.remarks()]:
            assert re.search(r"[.?!]$", sentence)


def test_what_is_worth_knowing_of_the_groups_is_among_the_remarks():
    """Threads of one core in two kernels are no problem, and are remarked."""
    apart = Partition.build("westmere-24", grouping=["0-11", "12-23"])

    assert any(said.startswith("Kernels 0 and 1 share a core") for said in apart.remarks())
    assert not any("share a core" in said for said in apart.problems())


# -- how it looks ----------------------------------------------------------------------------------


def test_a_plan_is_a_table(plan):
    """A row for each kernel, in text and in HTML."""
    assert str(plan).splitlines()[2] == (
        "  kernel 1: CPUs 8-15 (nodes 1); 16,128 MiB in [0x420000000-0x80fffffff]; devices none"
    )
    assert plan._repr_html_().count("<tr>") == 9
    assert repr(plan) == "<Partition: h8qg6-64, divided among 8 kernels>"


def test_the_kits_slots_are_known(plan):
    """A short slot means domain 0."""
    assert read_slot("02:00.0", plan.machine) == "0000:02:00.0"

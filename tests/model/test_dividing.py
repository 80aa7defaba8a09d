"""The division told step by step says what the plan says, and the stray write arrives."""

import pytest

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import dividing
from popcorn_edu.model.carving import END, common, merged, spans_of
from popcorn_edu.model.cmdline import apply
from popcorn_edu.model.dividing import (
    ByteWritten,
    HoleMet,
    LineWritten,
    PageMapped,
    RamListed,
    RamLost,
    RangeCut,
    RegionGiven,
    ReserveSetAside,
    ShareRoundedDown,
)
from popcorn_edu.model.firmware import MIB
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import carve, false_ram, memmap_lines

REAL = ("h8qg6-64", "h8dgu-24", "dl165g7-16", "x8dtn-24")


@pytest.fixture(scope="module")
def demo():
    """Eight kernels on the HP: kernel 1's region goes over the hole."""
    return carve(Machine.load("dl165g7-16"), [(cpu,) for cpu in range(8)])


def test_the_steps_go_from_the_map_to_the_lost_ram(demo):
    """Map, reserve, granules, shares, then kernel after kernel, and what is left at the end."""
    run = dividing.told(demo)
    kinds = [type(record.event) for record in run.trace]

    assert kinds[:7] == [RamListed] * 3 + [ReserveSetAside, RangeCut, RangeCut, ShareRoundedDown]
    assert kinds.count(RegionGiven) == kinds.count(LineWritten) == 8
    assert kinds[-1] is RamLost


def test_the_share_is_told_in_granules(demo):
    """109 granules for 8 kernels are 13 each, and 5 are left over."""
    event = dividing.told(demo).trace.next(ShareRoundedDown).event

    assert tuple(event) == (109, 8, 13, 5)
    assert str(event) == "109 granules for 8 kernels: 13 each, 5 are left over"


def test_the_hole_is_met_by_the_kernel_whose_region_goes_over_it(demo):
    """With what its share still lacks there."""
    run = dividing.told(demo)
    met = run.trace.next(HoleMet)

    assert tuple(met.event) == (1, 2944 * MIB, 4096 * MIB, 384 * MIB)
    assert met.who == "mpart for kernel 1"
    assert run.trace.next(HoleMet, after=met.seq) is None


def test_the_world_at_the_end_is_the_plan(demo):
    """Every region, line and loss is in the tables."""
    world = dividing.told(demo).world.memory

    assert len(world.given) == len(world.lines) == 8
    assert world.lines[1] == memmap_lines(demo, 1)
    assert world.given[1] == "[0x68000000-0x117ffffff]"
    assert list(world.lost) == [(loss.start, loss.end) for loss in demo.losses]


def test_a_kernel_in_two_regions_is_told_twice():
    """By hand, and without shares and granules."""
    machine = Machine.load("dl165g7-16")
    gib = 1024 * MIB
    ranges = [[(0, gib), (4 * gib, 5 * gib)], [(gib, 2 * gib)]]
    plan = carve(machine, [(0,), (1,)], "by hand", ranges=ranges, reserve_bytes=0)
    run = dividing.told(plan)

    assert len(list(run.trace.records(RegionGiven, kernel=0))) == 2
    assert run.trace.next(RangeCut) is None
    assert run.world.memory.given[0] == "[0x0-0x3fffffff], [0x100000000-0x13fffffff]"


def test_a_stray_write_arrives_whoever_owns_the_address(demo):
    """The writer maps the page, writes, and the byte is there: no step in between."""
    address = demo.regions[5][0].start + 5
    run = dividing.stray_write(demo, 3, address, value=7)
    mapped, written = run.trace.next(PageMapped), run.trace.next(ByteWritten)

    assert written.seq == mapped.seq + 1 == len(run.trace) - 1
    assert mapped.event.page == address - 5
    assert written.event.owner.startswith("kernel 5's")
    assert run.world.memory.bytes == {(address,): 7}


@pytest.mark.parametrize(
    ("kernel", "address", "value", "sentence"),
    [
        (8, 0, 1, "There is no kernel 8 in this plan"),
        (1, -1, 1, "-1 is no physical address"),
        (1, 0, 256, "256 is no byte"),
    ],
)
def test_a_write_that_cannot_be_is_refused(demo, kernel, address, value, sentence):
    """One sentence: what, and what was expected."""
    with pytest.raises(PopcornError, match=sentence):
        dividing.stray_write(demo, kernel, address, value)


def test_a_fork_tells_the_division_again_with_one_difference(demo):
    """What is dropped never happens; what is said comes before; a delay moves what follows."""
    run = dividing.told(demo)
    given = run.trace.next(RegionGiven, kernel=2)
    dropped = run.fork(given.seq, drop=True)
    said = run.fork(given.seq, say=RegionGiven(7, 0, 4096))
    late = dropped.fork(given.seq + 1, delay=50)

    assert set(range(8)) - set(dropped.world.memory.given) == {2}
    assert "in this fork it never happens that kernel 2 has" in str(dropped.trace[given.seq].event)
    assert len(said) == len(run) + 1 and said.world.memory.given[7].startswith("[0x0-0xfff], ")
    assert late.trace[given.seq].time == 0 and late.trace[given.seq + 1].time == 50
    assert set(late.world.memory.given) == set(dropped.world.memory.given)
    with pytest.raises(PopcornError, match="cpus is laid out at the start"):
        run.fork(3, cpus=())


def test_the_player_steps_through_a_division(demo):
    """With every kernel's lane and the tables."""
    page = dividing.told(demo).play().html()

    assert "division: 8 kernels on dl165g7-16" in page


# -- the lines, read back as Linux reads them -----------------------------------------------------


@pytest.mark.parametrize("policy", ["popcorn", "per node"])
@pytest.mark.parametrize("name", REAL)
def test_a_kernel_that_boots_with_its_line_sees_its_own_ram_and_the_low_part(name, policy):
    """Exactly; and, with a widened line, also the addresses that false_ram names."""
    machine = Machine.load(name)
    plan = carve(machine, [(cpu,) for cpu in machine.cpus], policy)
    for kernel in range(0, len(plan.regions), 3):
        for widened in (True, False):
            words = memmap_lines(plan, kernel, widened)
            seen = apply(f"present_mask={machine.cpus[kernel]} {words}", machine)
            more = false_ram(plan, kernel) if widened else []

            sees = common(merged((r.start, r.end) for r in seen.ram), [(plan.low.end, END)])
            owns = merged(spans_of(plan.kernels[kernel]) + more)
            assert sees == common(owns, [(plan.low.end, END)]), (kernel, widened)

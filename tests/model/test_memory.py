"""Dividing RAM: every byte has one owner, a place in the reserve, or a reason why it is lost."""

import re
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import carving
from popcorn_edu.model.carving import GRANULE_BYTES, RESERVE_BYTES, Tenant
from popcorn_edu.model.firmware import GIB, MIB, MemoryRange, NodeMemory
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import (
    LOW_BYTES,
    NOT_ENFORCED,
    carve,
    false_ram,
    memmap_lines,
    memory_words,
    places,
    problems,
    whose,
)

REAL = ("h8qg6-64", "h8dgu-24", "dl165g7-16")
POLICIES = ("popcorn", "per node", "by weight")


def per_core(machine):
    return [(cpu,) for cpu in machine.cpus]


def per_node(machine):
    return [node.cpus for node in machine.nodes if node.cpus]


def with_map(ranges, nodes=(), cpus=4):
    """A machine with this memory map, in MiB, and these nodes: (number, start, end) in MiB."""
    machine = Machine.synthetic(1, max(len({n for n, *_ in nodes}), 1), cpus)
    return replace(
        machine,
        name="test",
        memory_map=tuple(MemoryRange(a * MIB, b * MIB, *kind) for a, b, *kind in ranges),
        node_memory=tuple(NodeMemory(n, a * MIB, b * MIB) for n, a, b in nodes),
    )


def small(**more):
    """8 GiB with a hole from 3 to 4 GiB."""
    return with_map([(1, 3072), (3200, 3300, "reserved"), (4096, 9216)], **more)


def groups(count):
    return [(kernel,) for kernel in range(count)]


def in_mib(ranges):
    return [(start / MIB, end / MIB) for start, end, *_ in ranges]


# -- the real tool's way ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box():
    """The 64-core box, one kernel for each CPU."""
    machine = Machine.load("h8qg6-64")
    return carve(machine, per_core(machine))


def test_the_64_core_boxs_kernels_get_fifteen_granules_each(box):
    """1,008 granules are left below the reserve; 64 kernels share them, rounded down."""
    regions = [sum(end - start for start, end, _ in mine) for mine in box.regions]

    assert GRANULE_BYTES == 128 * MIB
    assert regions[0] == regions[2] == regions[63] == 15 * GRANULE_BYTES
    assert box.lost_bytes() == box.lost_bytes("rounding") == 6_208 * MIB


def test_a_share_that_does_not_fit_before_the_hole_is_widened_by_it(box):
    """Kernel 1 goes on behind 4 GiB, and its region is longer by what lies between."""
    assert in_mib(box.regions[1]) == [(1920, 4608)]
    assert in_mib(box.kernels[1]) == [(1920, 0xD7E60000 / MIB), (4096, 4608)]
    assert memmap_lines(box, 1) == "memmap=2688M@1920M memmap=1904M$16M mem=4608M"


def test_the_lines_have_the_form_that_mpart_prints(box):
    """The primary's share begins at 0; a secondary's line hides all from 16 MiB to its start."""
    assert memmap_lines(box, 0) == "memmap=1920M@0M mem=1920M"
    assert memmap_lines(box, 5) == "memmap=1920M@10368M memmap=10352M$16M mem=12288M"


def test_the_reserve_of_the_64_core_box_is_1856_mib_with_the_vty_first(box):
    """64 MiB and 0x70000000 at the top of RAM; vty_offset is where they begin."""
    assert RESERVE_BYTES == 1_856 * MIB
    assert box.reserved == (0x2028000000 - RESERVE_BYTES, 0x2028000000, "reserve")
    assert box.vty_offset == 0x1FB4000000
    assert [tenant.name for tenant in box.reserve] == ["vty", "tunnel", "applications"]
    assert box.reserve[0].end - box.reserve[0].start == 128 * MIB


def test_tenants_fill_the_reserve_without_a_gap(box):
    """Each begins where the one before it ends."""
    for one, other in zip(box.reserve, box.reserve[1:], strict=False):
        assert one.end == other.start


def test_a_smaller_machine_reserves_less_and_says_that_the_model_chose_it():
    """In proportion to the box, but with room for the vty matrix."""
    machine = Machine.load("dl165g7-16")
    plan = carve(machine, per_core(machine))

    assert plan.reserved.end - plan.reserved.start == 256 * MIB
    assert "model default" in plan.reserve[-1].source
    assert carve(machine, groups(2), reserve_bytes=0).reserve == ()
    assert carve(machine, groups(2), reserve_bytes=0).vty_offset is None


def test_kernels_and_windows_lie_where_popcorn_puts_them(box):
    """The image at BOOT_ADDR, the ramdisk 512 MiB above, the window in the kernel's own RAM."""
    found = {place.name: place for place in box.places(2)}

    assert found["kernel image"].start == 4608 * MIB
    assert found["ramdisk"].start == (4608 + 512) * MIB
    assert box.kernels[2][0].start < found["messaging window"].start < box.kernels[2][0].end
    assert "model default" in found["messaging window"].source
    assert {place.name for place in box.places(0)} >= {"rkinfo", "messaging window"}


# -- per node --------------------------------------------------------------------------------------


def test_per_node_regions_begin_at_multiples_of_512_mib_in_their_own_node():
    """No byte of any kernel is on a node that it has no CPU on."""
    machine = Machine.load("h8qg6-64")
    plan = carve(machine, per_node(machine), "per node")

    assert [mine[0].start % (512 * MIB) for mine in plan.regions] == [0] * 8
    assert [plan.local_share(kernel) for kernel in range(8)] == [1] * 8
    assert plan.lost_bytes("alignment") > 0


def test_a_node_on_both_sides_of_the_hole_gives_one_region_over_it():
    """The HP's node 1 has RAM from 2 to 3 GiB and from 4 to 7 GiB."""
    machine = Machine.load("dl165g7-16")
    plan = carve(machine, per_node(machine), "per node")

    assert len(plan.regions[1]) == 1
    assert len(plan.kernels[1]) == 2
    assert plan.local_share(1) == 1


def test_cpus_of_a_node_without_memory_count_for_the_nearest_with_some():
    """The H8DGU has RAM on nodes 0 and 3 only, and 24 kernels all the same."""
    machine = Machine.load("h8dgu-24")
    plan = carve(machine, per_core(machine), "per node")
    of_node = {node: [] for node in range(4)}
    for kernel in range(24):
        of_node[machine.node_of(machine.cpus[kernel])].append(plan.local_share(kernel))

    assert all(plan.kernels)
    assert of_node[0] == of_node[3] == [1] * 6
    assert of_node[1] == of_node[2] == [0] * 6


def test_without_an_srat_there_is_no_per_node_policy():
    """Which RAM is near is then not known."""
    machine = small(nodes=[(0, 0, 3072), (1, 4096, 9216)], cpus=2)
    with pytest.raises(PopcornError, match="Which RAM of test is in which node is not known"):
        carve(replace(machine, node_memory=()), groups(2), "per node")


# -- by weight, by hand ----------------------------------------------------------------------------


def test_weights_share_the_granules_in_proportion():
    """Without weights each CPU counts 1."""
    machine = small()
    plan = carve(machine, groups(3), "by weight", weights=[1, 2, 1], reserve_bytes=0)
    by_cpus = carve(machine, [(0, 1, 2), (3,)], "by weight", reserve_bytes=0)
    sizes = [plan.bytes_of(kernel) // MIB for kernel in range(3)]

    assert sizes == [2_047, 4_096, 2_048]  # 64 granules; the first misses the MiB below 1 MiB
    assert by_cpus.bytes_of(1) == 16 * GRANULE_BYTES


def test_by_hand_is_taken_as_given_and_judged():
    """An overlap stays in the plan, in the count and in the answers."""
    mine = [[(0, 2 * GIB)], [(GIB, 3 * GIB)], [(4 * GIB, 8 * GIB)]]
    plan = carve(small(), groups(3), "by hand", ranges=mine, reserve_bytes=0)
    accounts = {row.what: row.bytes for row in plan.accounts()}

    assert accounts["kernels 0 and 1"] == GIB
    assert accounts["lost: by hand"] == GIB
    assert "claimed by kernel 0 and kernel 1" in str(whose(plan, GIB))
    assert plan.problems() == [
        "Kernels 0 and 1 both have [0x40000000-0x7fffffff], 1 GiB; each byte was expected to be "
        "one kernel's.",
        "Kernel 0 has [0x0-0xfffff], where there is no RAM (the firmware says nothing of it: a "
        "hole); RAM was expected.",
    ]


# -- every byte is accounted for -------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("grouped", [per_core, per_node])
def test_the_accounts_of_a_real_machine_add_up_to_its_ram(name, policy, grouped):
    """Low, owned, reserved and lost: no byte twice, none forgotten."""
    machine = Machine.load(name)
    plan = carve(machine, grouped(machine), policy)

    assert sum(row.bytes for row in plan.accounts()) == sum(e - s for s, e, _ in machine.ram)


@pytest.mark.parametrize("name", REAL)
def test_popcorns_own_policy_makes_plans_without_problems(name):
    """Disjoint, in RAM, out of the low part and the reserve, with room for image and ramdisk."""
    machine = Machine.load(name)

    assert carve(machine, per_core(machine)).problems() == []
    assert carve(machine, per_node(machine)).problems() == []


@st.composite
def machines(draw):
    """Any memory map of whole pages, with holes of any size, and nodes cut anywhere."""
    page, at, ranges = 4096, draw(st.sampled_from([0, MIB, 20 * MIB])), []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 3_000 * MIB // page)) * page
        ranges.append(MemoryRange(at, at + size))
        at += size + draw(st.integers(1, 1_000 * MIB // page)) * page
    cuts = draw(st.lists(st.integers(1, 1 + at // MIB), max_size=3, unique=True))
    edges = [0, *sorted(cut * MIB for cut in cuts), at]
    owner = draw(st.lists(st.integers(0, 2), min_size=len(edges), max_size=len(edges)))
    nodes = [NodeMemory(owner[n], *pair) for n, pair in enumerate(zip(edges, edges[1:]))]  # noqa: B905
    machine = Machine.synthetic(1, 3, 3)
    return replace(machine, memory_map=tuple(ranges), node_memory=tuple(nodes))


@settings(max_examples=300, deadline=None)
@given(
    machine=machines(),
    count=st.integers(1, 9),
    policy=st.sampled_from(POLICIES),
    granule=st.sampled_from([2 * MIB, 128 * MIB, 512 * MIB]),
    reserve=st.sampled_from([None, 0, 6 * MIB]),
    data=st.data(),
)
def test_any_division_is_disjoint_and_covers_all_ram(
    machine, count, policy, granule, reserve, data
):
    """Over random maps, counts and granules: each byte of RAM is somewhere, and once."""
    cpus = data.draw(st.permutations(range(9)))
    cut = [tuple(sorted(cpus[kernel::count])) for kernel in range(count)]
    try:
        plan = carve(machine, cut, policy, granule_bytes=granule, reserve_bytes=reserve)
    except PopcornError as refusal:
        assert re.search(r"at least one for .* was expected|at most .* was expected", str(refusal))
        return

    spans = sorted((s, e) for mine in plan.kernels for s, e, _ in mine)
    assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:], strict=False))
    assert sum(row.bytes for row in plan.accounts()) == sum(e - s for s, e, _ in machine.ram)
    assert not any("have" in said and "low" not in said for said in plan.problems(ramdisk_bytes=0)
                   if said.startswith("Kernels"))  # fmt: skip
    secondaries = [s for mine in plan.regions[1:] for s, _, _ in mine]
    assert all(start >= LOW_BYTES and start % granule == 0 for start in secondaries)
    assert plan.policy == "per node" or len({len(mine) for mine in plan.regions}) == 1


@pytest.mark.parametrize("policy", ["popcorn", "by weight"])
@pytest.mark.parametrize("top", [17, 20, 24, 30, 64])
def test_no_secondary_begins_in_the_low_part(policy, top):
    """On a machine whose RAM hardly goes beyond it there is no room, or less for the others."""
    ram = (MemoryRange(0x8000, top * MIB),)
    machine = replace(Machine.synthetic(1, 3, 3), memory_map=ram)
    try:
        plan = carve(machine, [(0,), (1,)], policy, granule_bytes=2 * MIB, reserve_bytes=0)
    except PopcornError as refusal:
        assert top < 30 and "at least one for" in str(refusal)
    else:
        assert top > 17 and plan.regions[1][0].start >= LOW_BYTES


@settings(max_examples=300, deadline=None)
@given(
    some=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6),
    others=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6),
)
def test_spans_agree_with_sets_of_numbers(some, others):
    """Joining, common parts and differences of spans are those of the addresses in them."""

    def numbers(spans):
        return {n for start, end in spans for n in range(start, end)}

    one, other = carving.merged(some), carving.merged(others)
    assert numbers(one) == numbers(some)
    assert numbers(carving.common(one, other)) == numbers(some) & numbers(others)
    assert numbers(carving.without(one, other)) == numbers(some) - numbers(others)


def test_what_is_lost_has_its_reason():
    """A hole cuts a granule, an alignment skips some, and rounding leaves the rest."""
    machine = with_map([(1, 1000), (1100, 3000)], cpus=4)
    plain = carve(machine, groups(2), reserve_bytes=0)
    at_hole = carve(machine, groups(2), reserve_bytes=0, granule_bytes=896 * MIB)
    aligned = carve(machine, groups(3), "per node", reserve_bytes=0)

    assert [(loss.reason, (loss.end - loss.start) // MIB) for loss in plain.losses] == [
        ("rounding", 184)
    ]
    assert {loss.reason for loss in at_hole.losses} >= {"hole", "rounding"}
    assert {loss.reason for loss in aligned.losses} == {"alignment", "rounding"}


# -- problems --------------------------------------------------------------------------------------

ELSEWHERE = [(4096 * MIB, 9216 * MIB)]  # room enough for whoever is not looked at


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ([], "Kernel 1 has no memory; at least one range of RAM was expected."),
        ([(5, 5)], "Kernel 1 has a range from 0x5 to 0x5; an end after its start was expected."),
        (
            [(8192 * MIB, 9216 * MIB)],
            "Kernels 1 and 2 both have [0x200000000-0x23fffffff], 1 GiB; each byte was expected "
            "to be one kernel's.",
        ),
        (
            [(8 * MIB, 2048 * MIB)],
            "Kernel 1 has [0x800000-0xffffff], in the low 16 MiB, where the trampoline and "
            "boot_params are; only the primary was expected there.",
        ),
        (
            [(2048 * MIB, 3250 * MIB)],
            "Kernel 1 has [0xc0000000-0xcb1fffff], where there is no RAM (the firmware says "
            "nothing of it: a hole); RAM was expected.",
        ),
        (
            [(9216 * MIB, 10240 * MIB)],
            "Kernel 1 has [0x240000000-0x27fffffff], where there is no RAM (above all RAM); RAM "
            "was expected.",
        ),
        (
            [(1024 * MIB, 1056 * MIB)],
            "Kernel 1's ramdisk would be at [0x60000000-0x63ffffff], which is not all in its "
            "memory; room for 64 MiB there was expected (RAMDISK_ADDR = BOOT_ADDR + 512 MiB).",
        ),
    ],
)
def test_each_mistake_is_named_with_its_kernels_and_bytes(second, sentence):
    """What, where, what was expected."""
    kernels = [[(0, 1024 * MIB)], second, ELSEWHERE]
    ranges = [[MemoryRange(*span) for span in mine] for mine in kernels]

    assert sentence in problems(small(), ranges)


def test_all_mistakes_are_told_at_once():
    """A plan with three of them has three sentences at least."""
    ranges = [[MemoryRange(0, GIB)], [MemoryRange(0, GIB)], []]

    said = " ".join(problems(small(), ranges))

    assert "Kernels 0 and 1 both" in said and "Kernel 2 has no memory" in said
    assert "in the low 16 MiB" in said


def test_gaps_are_told_on_request():
    """With the kernels they lie between."""
    ranges = [[MemoryRange(0, GIB)], [MemoryRange(2 * GIB, 3 * GIB)]]
    said = problems(small(), ranges, gaps=True)

    assert (
        "[0x40000000-0x7fffffff], 1 GiB of RAM, is nobody's; a kernel after kernel 0's and before "
        "kernel 1's was expected to have it." in said
    )
    assert not any("nobody's" in sentence for sentence in problems(small(), ranges))


def test_the_reserves_tenants_are_defended():
    """A kernel that reaches into the vty's memory is told whose it is."""
    vty = Tenant("vty", 8192 * MIB, 8320 * MIB, "")
    said = problems(small(), [[MemoryRange(0, GIB)], [MemoryRange(*ELSEWHERE[0])]], reserve=[vty])

    assert said[0].startswith("Kernel 1 has [0x200000000-0x207ffffff], in the reserve, where the")


def test_a_kernel_above_512_gib_cannot_be_loaded():
    """The trampoline maps 1 GiB more, with an entry that reaches so far and no further."""
    machine = with_map([(0, 2048), (4096, 600 * 1024)])
    low, high = MemoryRange(0, GIB), MemoryRange(512 * GIB, 520 * GIB)

    (said,) = problems(machine, [[low], [high]])

    assert said.startswith("Kernel 1 would be loaded at 0x8000000000; an address below 512 GiB")
    assert problems(machine, [[low], [MemoryRange(511 * GIB, 520 * GIB)]]) == []


def test_an_image_across_a_gib_is_not_mapped_above_four():
    """There the trampoline maps one GiB only; below 4 GiB everything is mapped."""
    machine = with_map([(0, 600 * 1024)])
    edge = MemoryRange(5 * GIB - 10 * MIB, 8 * GIB)

    (said,) = problems(machine, [[MemoryRange(0, GIB)], [edge]])

    assert "both sides of 0x140000000" in said
    early = MemoryRange(3 * GIB - 10 * MIB, 8 * GIB)
    assert problems(machine, [[MemoryRange(0, GIB)], [early]]) == []


def test_remarks_name_far_memory_and_false_ram(box):
    """Both are legal, and both are worth knowing."""
    said = box.remarks()

    assert any(
        re.match(r"Kernel 8 has 47% of its memory outside the RAM of its own", s) for s in said
    )
    assert any("widened over [0xd8000000-0xdfffffff], of which the firmware" in s for s in said)


def test_a_kernel_without_memory_has_none_far_away(box):
    """Nothing of nothing is outside its node; that the memory is missing, the problems say."""
    bare = replace(box, regions=(*box.regions[:8], (), *box.regions[9:]))

    assert not any(said.startswith("Kernel 8 has") for said in bare.remarks())
    assert any(said.startswith("Kernel 8 has") for said in box.remarks())


# -- the line, and whose it is ---------------------------------------------------------------------


def test_a_widened_line_covers_addresses_that_nobody_lists(box):
    """Where the firmware says nothing, the line makes RAM; pieces in place of it do not."""
    assert (0xD8000000, 0xE0000000) in false_ram(box, 1)
    assert false_ram(box, 2) == []
    assert memmap_lines(box, 1, widened=False) == (
        "memmap=1534M@1920M memmap=512M@4096M memmap=1904M$16M mem=4608M"
    )


def test_the_words_of_a_kernel_in_two_places_hide_what_lies_between():
    """By hand a kernel may have two regions, with another's between them."""
    mine = [[(0, GIB), (2 * GIB, 3 * GIB)], [(GIB, 2 * GIB)]]
    plan = carve(small(), groups(2), "by hand", ranges=mine, reserve_bytes=0)

    assert str(memory_words(plan, 0)) == (
        "memmap=1024M@0M memmap=1024M@2048M memmap=1024M$1024M mem=3072M"
    )


def test_whose_names_owner_thing_node_and_parameter(box):
    """A secondary's ramdisk: whose, what, where, and the words that made it so."""
    answer = whose(box, (4608 + 513) * MIB)

    assert answer.kernel == 2 and answer.node == 0
    assert str(answer) == (
        "0x140100000 is kernel 2's: its ramdisk, in the RAM of node 0. Kernel 2 boots with "
        f"memmap=1920M@4608M memmap=4592M$16M mem=6528M. {NOT_ENFORCED}"
    )


@pytest.mark.parametrize(
    ("address", "kernel", "words"),
    [
        (0x92000, 0, "trampoline"),
        (0x500000, 0, "low memory"),
        (0x1FB4000000, None, "the vty area's"),
        (0x2027FFFFFF, None, "the applications area's"),
        (0x1F00000000, None, "left over when the shares were rounded down"),
        (0xD7E6F000, None, "The firmware says: type 9"),
        (0xD8000000, None, "widened over it"),
        (1 << 45, None, "Above all RAM"),
    ],
)
def test_every_address_has_an_answer_that_says_nothing_enforces_it(box, address, kernel, words):
    """Low, reserved, lost, hole: whatever it is, no hardware looks."""
    answer = whose(box, address)

    assert answer.kernel == kernel
    assert words in str(answer)
    assert NOT_ENFORCED in str(answer)


@settings(max_examples=200, deadline=None)
@given(address=st.integers(0, 0x2028000000 - 1))
def test_whose_agrees_with_the_plan(box, address):
    """The owner of an address is the kernel that has it in a range."""
    owners = [k for k, mine in enumerate(box.kernels) if any(s <= address < e for s, e, _ in mine)]

    assert [whose(box, address).kernel] == (owners or [None])


def test_the_table_names_every_kernel_tenant_and_loss(box):
    """Who cannot see a picture reads the same."""
    page = box._repr_html_()

    assert page.count("<tr>") == 1 + 64 + len(box.reserve) + len(box.losses)
    assert "memmap=2688M@1920M" in page


def test_local_share_is_exact():
    """A third near is one third, not 0.33."""
    machine = with_map([(0, 3072)], nodes=[(0, 0, 1024), (1, 1024, 3072)], cpus=1)
    plan = carve(machine, [(0, 1)], reserve_bytes=0)
    alone = carve(machine, [(0,)], reserve_bytes=0)

    assert plan.local_share(0) == 1
    assert alone.local_share(0) == Fraction(1, 3)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"policy": "per nod"}, "There is no memory policy 'per nod'; did you mean per node?"),
        ({"granule_bytes": 0}, "granule_bytes is 0; a whole number of pages in bytes"),
        ({"granule_bytes": 2.5}, "granule_bytes is 2.5; a whole number of pages"),
        (
            {"low_bytes": 4096},
            "low_bytes is 4096; a whole number of pages in bytes, from 1,048,576",
        ),
        (
            {"reserve_bytes": 64 * GIB},
            "A reserve of 64 GiB does not fit into the highest RAM range",
        ),
        ({"granule_bytes": 4 * GIB}, "free granules of 4 GiB for 4 kernels"),
        ({"policy": "by weight", "weights": [1, 2]}, "The weights are [1, 2]; a list of 4 whole"),
        ({"policy": "by weight", "weights": [1, 0, 1, 1]}, "4 whole numbers above 0"),
        ({"policy": ["popcorn"]}, "There is no memory policy ['popcorn']; "),
        ({"policy": "by weight", "weights": 7}, "The weights are 7; a list of 4 whole numbers"),
        ({"policy": "by hand", "ranges": 7}, "7 were given; with the policy 'by hand'"),
        ({"policy": "by hand"}, "no ranges were given; with the policy 'by hand'"),
        ({"policy": "by hand", "ranges": [[]] * 3}, "ranges for 3 kernels were given"),
        ({"policy": "by hand", "ranges": ["1G"] * 4}, "'1G' are no ranges for kernel 0"),
        ({"policy": "by hand", "ranges": [[(5, 5)]] * 4}, "the end after the start"),
    ],
)
def test_a_bad_wish_gets_one_sentence(change, sentence):
    """What, where, what was expected; never a traceback from inside."""
    with pytest.raises(PopcornError, match=re.escape(sentence)):
        carve(small(), groups(4), **change)


@pytest.mark.parametrize("cut", [None, 4, "0-3", [0, 1], [("a",)], [(0, 0)], [(99,)], []])
def test_what_are_no_groups_of_cpus_is_refused(cut):
    """Each kernel's CPUs, by number, once."""
    with pytest.raises(PopcornError, match="expected|has no CPU|named twice"):
        carve(small(), cut)


def test_a_machine_without_a_map_is_refused():
    """With the name of one that has a map."""
    with pytest.raises(
        PopcornError, match="has no memory map, so its RAM cannot be divided; .*h8qg6"
    ):
        carve(Machine.synthetic(1, 1, 4), groups(2))


@pytest.mark.parametrize("kernel", [64, -1, "1", True, None])
def test_a_kernel_that_is_not_there_is_named(box, kernel):
    """By number only."""
    with pytest.raises(PopcornError, match="no kernel"):
        box.bytes_of(kernel)


@pytest.mark.parametrize("address", [-1, 1 << 52, 1.5, "0x1000", None, True])
def test_what_is_no_address_is_refused(box, address):
    """Physical addresses are whole numbers below 2**52."""
    with pytest.raises(PopcornError, match="is no physical address"):
        whose(box, address)


def test_places_of_nothing_are_none():
    """A kernel without memory has no image and no window."""
    assert places(3, ()) == ()


# -- performance -----------------------------------------------------------------------------------


def test_the_uv_2000_is_divided_and_judged_within_a_tenth_of_a_second():
    """384 kernels on 24 nodes."""
    machine = Machine.load("uv2000-384")
    cut, spent = per_core(machine), []
    for _ in range(3):
        begun = time.perf_counter()
        for policy in ("popcorn", "per node"):
            plan = carve(machine, cut, policy)
            plan.problems()
            assert sum(r.bytes for r in plan.accounts()) == sum(e - s for s, e, _ in machine.ram)
        spent.append(time.perf_counter() - begun)

    assert min(spent) < 0.2  # two policies, a tenth of a second each

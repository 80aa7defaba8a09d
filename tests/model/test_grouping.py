"""Groupings: what each policy makes of real machines, what is wrong with one, what it costs."""

import dataclasses
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import grouping
from popcorn_edu.model.cut import balanced_cut
from popcorn_edu.model.grouping import (
    POLICIES,
    SHORTHANDS,
    addressing,
    check_ins,
    cost,
    exchange_ns,
    group,
    identities,
    ipi_target,
    ipi_targets,
    message_ns,
    present_masks,
    problems,
    view,
    who_hears,
)
from popcorn_edu.model.machine import Machine

NAMES = Machine.names()
CONSTRUCTIVE = ("per core", "per node", "per package")
SMALL = Machine.synthetic(2, 2, 2)  # 8 CPUs: 0-1 2-3 | 4-5 6-7


@pytest.fixture
def drachma():
    return Machine.load("magny-cours-48")


def said(*arguments, **options) -> str:
    """The one sentence with which a call is refused."""
    with pytest.raises(PopcornError) as refusal:
        group(*arguments, **options)
    return str(refusal.value)


# -- the policies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "by hand"])
def test_every_policy_divides_every_machine_or_refuses_in_words(name, policy):
    """Each online CPU in exactly one kernel, the boot CPU in the primary; else a sentence."""
    m = Machine.load(name)
    for kernels in (None, 1, 2, 3, 5, len(m.cpus)):
        try:
            groups = group(m, policy, kernels)
        except PopcornError as refusal:
            assert str(refusal).endswith(".") and m.name in str(refusal)
            continue
        assert problems(m, groups) == []
        assert kernels in (None, len(groups))
        assert all(list(members) == sorted(members) for members in groups)


def test_per_node_names_the_nodes_by_their_cpus_not_by_their_place(drachma):
    """Node ids with gaps (0, 1, 2, 33, 34, 45, 72, 73) do no harm."""
    groups = group(drachma, "per node")
    assert groups == tuple(node.cpus for node in drachma.nodes)
    assert cost(drachma, groups).nodes == ((0,), (1,), (2,), (33,), (34,), (45,), (72,), (73,))


def test_a_node_of_memory_only_gets_no_kernel():
    """Superdome has a seventeenth node without CPUs: there is nothing to boot on."""
    m = Machine.load("superdome-128")
    assert len(m.nodes) == 17
    assert len(group(m, "per node")) == 16


def test_per_core_keeps_threads_together():
    """Two kernels on one core would share its first-level cache and its execution units."""
    m = Machine.load("westmere-24")
    groups = group(m, "per core")
    assert sorted(groups) == sorted(tuple(sorted(core.cpus)) for core in m.cores)
    for kernels in range(1, len(m.cores) + 1):
        for policy in ("per core", "per node", "least cost"):
            owner = {c: k for k, g in enumerate(group(m, policy, kernels)) for c in g}
            assert all(len({owner[cpu] for cpu in core.cpus}) == 1 for core in m.cores)


def test_more_kernels_than_cores_means_one_cpu_can_be_a_kernel():
    """Then, and only then, threads of one core part."""
    m = Machine.load("westmere-24")
    assert group(m, "per core", 24) == tuple((cpu,) for cpu in range(24))


def test_per_cache_takes_the_outermost_level_that_there_are_several_of():
    """Six Opteron cores share an L3; of the hybrid's only L3 the L2 clusters are left."""
    assert len(group(Machine.load("opteron-6164he-24"), "per cache")) == 4
    hybrid = Machine.load("i7-1370p-20")
    assert len(group(hybrid, "per cache")) == 8
    assert len(group(hybrid, "per cache", level=3)) == 1


def test_per_kind_makes_a_kernel_of_each_sort_of_core():
    """Big and little cores part; the boot CPU's kind is the primary."""
    m = Machine.load("gb10-20")
    groups = group(m, "per kind")
    kinds = {kind.cpus for kind in m.cpu_kinds}
    assert set(groups) == kinds and m.bsp in groups[0]


def test_a_cpu_of_no_known_kind_is_not_forgotten():
    """The Cortex file names the kind of one of its two CPUs."""
    m = Machine.load("cortex-a9-2")
    assert sum(len(kind.cpus) for kind in m.cpu_kinds) == 1
    assert group(m, "per kind") == ((0,), (1,))


def test_offline_cpus_get_no_kernel():
    """Four CPUs of the NetBurst machine are offline."""
    m = Machine.load("netburst-12")
    for policy in CONSTRUCTIVE:
        assert not set(sum(group(m, policy), ())) & set(m.offline_cpus)


def test_a_snapshots_cgroup_is_no_limit_unless_asked_for():
    """The process that wrote the file had 6 of 32 CPUs; a kernel on the bare machine has all."""
    m = Machine.load("opteron-6134-32")
    assert len(m.allowed_cpus) == 6
    assert sum(map(len, group(m, "per node"))) == 32
    few = group(m, "per node", cpus=m.allowed_cpus)
    assert sum(few, ()) == m.allowed_cpus
    assert problems(m, few, cpus=m.allowed_cpus) == []


def test_fewer_kernels_merge_neighbours_and_more_split_along_cores(drachma):
    """Four of eight nodes' kernels; two for each node; three of one die's six CPUs."""
    assert present_masks(group(drachma, "per node", 4)) == ("0-11", "12-23", "24-35", "36-47")
    assert present_masks(group(drachma, "per node", 16))[:3] == ("0-2", "3-5", "6-8")
    assert {len(members) for members in group(drachma, "per node", 9)} == {3, 6}


def test_groups_by_hand_may_be_text_or_numbers(drachma):
    """The order does not matter, and a number is a group of one."""
    lists = ["0-5,12", [13, 6, 7], 14]
    groups = group(drachma, "by hand", lists=lists)
    assert groups == ((0, 1, 2, 3, 4, 5, 12), (6, 7, 13), (14,))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"policy": "per nod"}, "There is no policy 'per nod'; did you mean per node"),
        ({"kernels": 0}, "0 is no number of kernels; a whole number from 1 up was expected."),
        ({"kernels": True}, "True is no number of kernels"),
        ({"kernels": "4"}, "'4' is no number of kernels"),
        ({"kernels": 49}, "magny-cours-48 has 48 CPUs to share out; 49 kernels would leave some"),
        ({"level": 3}, "The policy \"per node\" has no option 'level'"),
        ({"policy": "per cache", "level": 4}, "has no caches of level 4; it has 1, 2, 3."),
        ({"cpus": [6, 7]}, "The CPUs to share out lack CPU 0, the boot CPU"),
        ({"cpus": [0, 99]}, "magny-cours-48 has no CPU 99"),
        ({"policy": "by hand", "lists": "0-5"}, "'0-5' is no list of groups"),
        ({"policy": "by hand", "lists": ["0-5", "6-"]}, "Kernel 1: '6-' is no CPU list"),
        ({"policy": "by hand", "lists": ["5-0"]}, "Kernel 0: '5-0' is no range"),
        ({"policy": "by hand", "lists": ["0-999999"]}, "Kernel 0: '0-999999' is no range"),
        ({"policy": "by hand", "lists": [0.5]}, "Kernel 0 is 0.5; a CPU list"),
        ({"policy": "by hand", "lists": [[0, "1"]]}, "Kernel 0 lists '1'; a CPU number"),
        ({"policy": "by hand", "kernels": 3, "lists": ["0", "1"]}, "There are 2 groups by hand"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(drachma, options, sentence):
    """What, and what was expected."""
    assert sentence in said(drachma, **options)


def test_a_machine_may_be_given_by_its_name():
    """As everywhere in the kit; what is no machine is refused in a sentence."""
    groups = group("magny-cours-48", "per package")
    assert problems("magny-cours-48", groups) == []
    assert cost("magny-cours-48", groups).kernels == 4
    assert "4 kernels" in str(view("magny-cours-48", groups))
    assert said(48) == "48 is no machine; Machine.load(...) makes one."
    assert "magny-cours-48" in said("magny-cours")


def test_kinds_are_never_merged():
    """One kernel for two kinds would be a mixture again."""
    refusal = said(Machine.load("gb10-20"), "per kind", 1)
    assert "2 CPU kinds, which are never merged; at least 2 kernels" in refusal


# -- what is wrong with a grouping -----------------------------------------------------------------


def test_a_sound_grouping_has_no_problems():
    """Any order of groups behind the primary, any order within a group."""
    assert problems(SMALL, [[3, 0, 1, 2], [7], [6, 5, 4]]) == []


@pytest.mark.parametrize(
    ("groups", "sentences"),
    [
        ([range(4), range(3, 8)], ["CPU 3 is in kernels 0 and 1; one kernel was expected."]),
        ([[0, 1, 2, 3], [5, 6]], ["CPUs 4,7 are in no kernel; each was expected in one."]),
        ([[0, 1, 2, 3], [4, 5, 6]], ["CPU 7 is in no kernel; each was expected in one."]),
        ([range(8), []], ["Kernel 1 has no CPU; at least one was expected."]),
        ([range(8), [8]], ["Kernel 1: synthetic-2x2x2x1 has no CPU 8; its CPUs are 0-7."]),
        ([[*range(8), 0]], ["Kernel 0 lists CPU 0 2 times; once was expected."]),
        ([range(8), "4"], ["Kernel 1 is '4'; a list of CPU numbers was expected."]),
        ([[*range(8), True]], ["Kernel 0 lists True; a CPU number was expected."]),
        (
            [[4, 5, 6, 7], [0, 1, 2, 3]],
            ["CPU 0, the boot CPU, is in kernel 1; it was expected in kernel 0, the primary, "
             "which the firmware starts there."],
        ),
        ([], ["[] is no grouping; a list with at least one group was expected."]),
        (None, ["None is no grouping; a list with at least one group was expected."]),
    ],
)  # fmt: skip
def test_each_problem_has_its_sentence(groups, sentences):
    """Which kernels, which CPU, what was expected."""
    assert problems(SMALL, groups) == sentences


def test_all_problems_are_told_at_once():
    """Nobody mends one line to read the next complaint."""
    found = problems(SMALL, [[1, 2, 9], [], [2, 0], ["x"]])
    assert len(found) == 6
    for word in ("CPU 9", "has no CPU;", "'x'", "CPU 2 is in", "CPUs 3-7", "boot CPU"):
        assert sum(word in sentence for sentence in found) == 1, word


def test_an_offline_cpu_is_called_offline():
    """It exists, and is no place to boot a kernel."""
    m = Machine.load("netburst-12")
    groups = [m.cpus, m.offline_cpus[:1]]
    assert problems(m, groups) == [
        f"Kernel 1: CPU {m.offline_cpus[0]} is offline; online CPUs were expected."
    ]


@given(st.recursive(st.none() | st.integers(-2, 9) | st.text(max_size=3), st.lists, max_leaves=12))
@settings(max_examples=200, deadline=None)
def test_no_input_makes_problems_raise(groups):
    """Whatever stands there, the answer is a list of sentences."""
    found = problems(SMALL, groups)
    assert all(sentence.endswith(".") for sentence in found)


# -- what it costs ---------------------------------------------------------------------------------


def test_sixty_four_kernels_check_in_2016_times():
    """The overview's own number."""
    assert [check_ins(n) for n in (1, 2, 8, 64)] == [0, 1, 28, 2016]


def test_a_hot_message_over_one_hop_takes_1320_cycles():
    """Five line transfers of 172 cycles, and 60 + 300 + 100: the sum in the facts, in ns."""
    m = Machine.synthetic(2, 1, 1).with_clock(1000)  # 1 cycle = 1 ns
    assert message_ns(m, 0, 1) == 1320
    assert cost(m, ((0,), (1,))).mean_ns == 1320


def test_the_mean_is_over_all_pairs_and_all_senders(drachma):
    """Held against the long way: every CPU of one kernel to the first CPU of every other."""
    for policy, kernels in (("per node", None), ("per core", 5), ("least cost", 3)):
        groups = group(drachma, policy, kernels)
        pairs = {
            (a, b): sum(message_ns(drachma, cpu, groups[b][0]) for cpu in groups[a])
            / len(groups[a])
            for a, b in itertools.permutations(range(len(groups)), 2)
        }
        found = cost(drachma, groups)
        assert abs(found.mean_ns - sum(pairs.values()) / len(pairs)) <= 1
        assert abs(found.worst_ns - max(pairs.values())) <= 1
        assert pairs[found.worst_pair] == max(pairs.values())


def test_inside_is_the_mean_of_all_pairs_of_a_kernels_cpus(drachma):
    """Held against the long way; None when every kernel has one CPU."""
    groups = group(drachma, "per core", 5)
    pairs = sum(len(members) * (len(members) - 1) // 2 for members in groups)
    assert abs(cost(drachma, groups).inside_ns - inside(drachma, groups) / pairs) <= 1
    assert cost(drachma, group(drachma, "per core")).inside_ns is None


def test_measured_latencies_are_used_where_there_are_any():
    """On the graviton each message costs what somebody measured between those two CPUs."""
    m = Machine.load("graviton3-64")
    groups = tuple((cpu,) for cpu in m.cpus)
    lines = [m.latencies_ns[max(pair), min(pair)] for pair in itertools.permutations(m.cpus, 2)]
    overhead = message_ns(m, 0, 1) - 5 * m.transfer_ns(0, 1)
    assert abs(cost(m, groups).mean_ns - overhead - 5 * sum(lines) / len(lines)) <= 1
    assert cost(m, groups).worst_ns == overhead + 5 * max(lines)


def test_one_kernel_sends_no_messages(drachma):
    """There is no pair, so there is no mean."""
    found = cost(drachma, (drachma.cpus,))
    assert (found.mean_ns, found.worst_ns, found.worst_pair, found.check_ins) == (None,) * 3 + (0,)


def test_local_memory_falls_with_the_nodes_a_kernel_spans(drachma):
    """All of it with one node, half with two alike, a quarter with four."""
    local = [set(cost(drachma, group(drachma, "per node", n)).local_percent) for n in (8, 4, 2)]
    assert local == [{100}, {50}, {25}]


def test_memory_goes_by_cpus(drachma):
    """Together the kernels have what the nodes have."""
    whole = sum(node.memory_bytes for node in drachma.nodes if node.cpus)
    assert sum(cost(drachma, group(drachma, "per package")).memory_bytes) == whole


def test_an_exchange_weighs_lines_inside_and_messages_outside(drachma):
    """All inside is a cache line, none is a message."""
    groups = group(drachma, "per package")
    found = cost(drachma, groups)
    assert exchange_ns(drachma, groups, 100) == found.inside_ns
    assert exchange_ns(drachma, groups, 0) == found.mean_ns
    assert found.inside_ns < exchange_ns(drachma, groups, 90) < found.mean_ns


def test_an_unsound_grouping_has_no_cost():
    """Its first problem is said instead."""
    with pytest.raises(PopcornError, match="CPU 1 is in kernels 0 and 1"):
        cost(SMALL, ((0, 1), (1, 2)))


def test_the_formula_is_made_of_the_cost_tables_numbers(drachma):
    """Three lines and two, the cycles, and how each is known."""
    said = grouping.message_formula(drachma)
    assert said.startswith("A message is 3 cache lines to put it into the ring, 2 to get it out")
    assert "60 + 300 + 100 cycles" in said and "model defaults" in said and "derived from" in said
    dearer = drachma.with_costs(message_copy_cycles=400)
    assert "60 + 400 + 100 cycles" in grouping.message_formula(dearer)


def test_what_is_worth_knowing_is_remarked_and_no_problem():
    """Threads of one core apart, kinds together, CPU numbers that G1 has no row for."""
    m = Machine.load("westmere-24")
    apart = group(m, "by hand", lists=["0-11", "12-23"])
    assert problems(m, apart) == []
    assert grouping.remarks(m, apart)[0].startswith("Kernels 0 and 1 share a core: CPUs 0,12 are")
    little = Machine.load("gb10-20")
    assert grouping.remarks(little, (little.cpus,)) == ["Kernel 0 has CPUs of several kinds."]
    assert grouping.remarks(little, group(little, "per kind")) == []
    large = Machine.load("uv2000-384")
    (beyond,) = grouping.remarks(large, group(large, "per node"))
    assert beyond.startswith("CPU 383 is beyond G1, whose tables have 64 rows")


# -- the least cost --------------------------------------------------------------------------------


def inside(m, groups) -> int:
    lines = [m.transfer_ns(a, b) for g in groups for a, b in itertools.combinations(g, 2)]
    return sum(lines)


@pytest.mark.parametrize("name", NAMES)
def test_least_cost_is_balanced_and_never_worse_than_a_balanced_policy(name):
    """As many cores each, give or take one; no policy with that property keeps closer together."""
    m = Machine.load(name)
    for kernels in (2, 3, 4, 8):
        if kernels > len(m.cores):
            continue
        groups = group(m, "least cost", kernels)
        sizes = [sum(core.cpus[0] in members for core in m.cores) for members in groups]
        assert max(sizes) - min(sizes) <= 1
        for policy in CONSTRUCTIVE:
            other = group(m, policy, kernels)
            if sorted(map(len, other)) == sorted(map(len, groups)):
                assert inside(m, groups) <= inside(m, other)


def halves(items):
    first, *rest = items
    for more in itertools.combinations(rest, len(items) // 2 - 1):
        yield (first, *more), tuple(item for item in rest if item not in more)


@pytest.mark.parametrize("name", ["magny-cours-48", "opteron-6134-32", "opteron-6272-64"])
def test_least_cost_finds_the_best_halves_of_eight_nodes(name):
    """All 35 ways of dividing whole nodes are tried; on two machines merging packages is worse."""
    m = Machine.load(name)
    nodes = [node.cpus for node in m.nodes]
    best = min(
        inside(m, [sum((nodes[n] for n in half), ()) for half in both])
        for both in halves(range(8))
    )  # fmt: skip
    assert inside(m, group(m, "least cost", 2)) <= best


def test_least_cost_beats_merging_packages_on_the_opteron():
    """Two kernels of 16: nodes that are one hop from each other lie in four packages."""
    m = Machine.load("opteron-6134-32")
    ours, merged = (cost(m, group(m, policy, 2)) for policy in ("least cost", "per package"))
    assert ours.inside_ns < merged.inside_ns


def test_least_cost_without_a_number_makes_one_kernel_per_node(drachma):
    """Where nodes are what is close together, that is the per-node policy."""
    assert group(drachma, "least cost") == group(drachma, "per node")


def test_of_two_that_are_as_good_the_plain_one_is_taken():
    """Ties go to the order of the hardware."""
    m = Machine.load("opteron-865-16")
    assert present_masks(group(m, "least cost", 2)) == ("0-7", "8-15")


def test_least_cost_is_the_same_every_time(drachma):
    """Lots are drawn from a fixed seed."""
    assert group(drachma, "least cost", 7) == group(drachma, "least cost", 7)


def test_a_division_that_is_not_balanced_is_no_start():
    """balanced_cut leaves it out and starts from the order of the hardware."""
    units = [(cpu,) for cpu in SMALL.cpus]
    made = balanced_cut(SMALL, units, 2, starts=[((0,), tuple(range(1, 8))), ((0, 1), (2, 3))])
    assert sorted(map(sorted, made)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_largest_machine_is_divided_in_time():
    """384 CPUs: a policy with validation in 100 ms, the least cost in 2 s."""
    m = Machine.load("uv2000-384")
    m.transfer_ns(0, 1)  # the machine's own tables are made once
    for policy in CONSTRUCTIVE:
        begun = time.perf_counter()
        assert problems(m, group(m, policy)) == []
        assert time.perf_counter() - begun < 0.1
    begun = time.perf_counter()
    for kernels in (None, 5):
        assert problems(m, group(m, "least cost", kernels)) == []
    assert time.perf_counter() - begun < 2


# -- who is who, and who hears ---------------------------------------------------------------------


def test_both_generations_name_a_kernel_by_a_cpu():
    """G1 by the CPU the code happens to run on, G2 by the kernel's first CPU."""
    second = identities(((0, 1), (4, 5)))[1]
    assert (second.g1, second.g2, second.present_mask) == ((4, 5), 4, "4-5")


def test_more_than_eight_cpus_are_addressed_by_apic_id(drachma):
    """Physical flat: the destination is the firmware's number, or else the CPU's own."""
    assert addressing(drachma) == "physical flat"
    target = ipi_target(drachma, 40)
    assert (target.destination, target.how_we_know) == (40, "model default: the CPU number")


def test_up_to_eight_cpus_have_a_bit_each():
    """Logical flat: 1 << cpu, which is why CPU numbers must be those of the whole machine."""
    assert addressing(SMALL) == "logical flat"
    bits = [ipi_target(SMALL, cpu).destination for cpu in SMALL.cpus]
    assert bits == [1, 2, 4, 8, 16, 32, 64, 128]


def test_offline_cpus_count_as_possible():
    """The driver is chosen by what may be there, not by what is on."""
    m = Machine.load("netburst-12")
    assert len(m.cpus) + len(m.offline_cpus) > 8 and addressing(m) == "physical flat"


def test_apic_ids_of_the_firmware_are_used_where_they_are_known():
    """Where a table gives them, they need not be the CPU numbers."""
    m = dataclasses.replace(SMALL, cpus=SMALL.cpus, apic_ids={1: 0x21}, offline_cpus=(8,))
    assert ipi_target(m, 1).destination == 0x21
    assert ipi_target(m, 1).how_we_know == "the firmware's table"


def test_a_kernel_reaches_its_own_cpus_one_by_one():
    """Unicasts within its bounds, without the sender."""
    groups = ((0, 1, 2), (3, 4), (5, 6, 7))
    assert [t.cpu for t in ipi_targets(SMALL, groups, 2, sender=5)] == [6, 7]


def test_all_but_self_is_the_whole_machine():
    """The APICs know no kernels: every other kernel is hit."""
    groups = ((0, 1, 2), (3, 4), (5, 6, 7))
    heard = who_hears(SMALL, groups, 1, "all but self")
    assert heard.cpus == (0, 1, 2, 4, 5, 6, 7)
    assert (heard.own, heard.foreign, heard.kernels) == ((4,), (0, 1, 2, 5, 6, 7), (0, 2))
    assert "7 CPUs hear it, 6 of them of kernels 0,2" in str(heard)


def test_self_disturbs_nobody():
    """The one shorthand that stays inside."""
    heard = who_hears(SMALL, ((0, 1), (2, 3, 4, 5, 6, 7)), 1, "self", cpu=5)
    assert heard.cpus == (5,) and heard.foreign == () and "the kernel's own" in str(heard)


@pytest.mark.parametrize(
    ("kernel", "shorthand", "options", "sentence"),
    [
        (2, "all", {}, "There is no kernel 2; a number from 0 to 1 was expected."),
        (0, "all but me", {}, "There is no shorthand 'all but me'; did you mean"),
        (0, "all", {"cpu": 7}, "CPU 7 is not of kernel 0; one of 0-3 was expected."),
    ],
)
def test_a_question_about_nobody_is_refused(kernel, shorthand, options, sentence):
    """Kernel, shorthand and CPU must be there."""
    with pytest.raises(PopcornError, match=sentence.replace("(", r"\(")):
        who_hears(SMALL, ((0, 1, 2, 3), (4, 5, 6, 7)), kernel, shorthand, **options)


# -- how it looks ----------------------------------------------------------------------------------


def test_the_view_shows_each_kernel_and_what_it_costs(drachma):
    """As text and as a table that a screen reader reads."""
    shown = view(drachma, group(drachma, "per package"))
    assert "4 kernels, 6 check-ins" in str(shown) and "12-23" in str(shown)
    assert "a message 853 ns (dearest from kernel 0 to 1, 893 ns)" in str(shown)
    assert shown._repr_html_().startswith("<table><caption>magny-cours-48")


def test_the_view_of_an_unsound_grouping_shows_its_problems(drachma):
    """All of them, where the kernels would stand."""
    shown = view(drachma, ((0, 1), (1, 2)))
    assert "no sound grouping" in str(shown)
    assert "CPU 1 is in kernels 0 and 1" in shown._repr_html_()


def test_the_shorthands_and_policies_are_what_the_file_says():
    """So nobody writes them down a second time."""
    assert SHORTHANDS == ("self", "all", "all but self")
    assert set(grouping.POLICIES) == set(POLICIES) and len(POLICIES) == 7
    assert datasets.names("topology")

"""Lab 02, Processor grouping: what is asked, and how an answer is judged.

What is right comes out of popcorn_edu.model.grouping, on real machines: their CPUs, nodes and
distances. The parts: clusterings.py (f2, f4, i6: a student's own functions on several machines),
group_goals.py (a1, a3, e5, s7: lists and groups that a student writes down), shorthands.py (the
run in which an interrupt goes too far); here are the scenes, the gates and the list of all tasks.
"""

from __future__ import annotations

from popcorn_edu import scenarios
from popcorn_edu.grading.answers import OPEN, OneOf
from popcorn_edu.grading.clusterings import (
    Clusters,
    Owned,
    ask_targets,
    broken_plan,
    keeps_the_order,
    leaves_out_what_is_offline,
    named_in_fresh_plans,
    names_them,
    puts_together,
    reaches_its_own,
    same_on_fresh_machines,
    sends_right_afresh,
    stays_inside,
)
from popcorn_edu.grading.group_goals import (
    A3_WHY,
    asked_table,
    breaks_even,
    cpus_table,
    distances_table,
    gives_a_reason,
    goals_table,
    has_four_kernels,
    lists,
    loop_is_alone_and_near,
    meeting,
    meeting_table,
    meets,
    note,
    numbers,
    programs_are_close,
    programs_have_room,
    purpose,
    purpose_table,
    reaches,
)
from popcorn_edu.grading.guesses import before_and_after
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.shorthands import BroadcastSent, VectorTaken, one_by_one_and_all
from popcorn_edu.grading.tasks import Check, Miss, Task, Variant, Wrong
from popcorn_edu.model import grouping
from popcorn_edu.model.grouping import who_hears
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.messaging import MessageDelivered
from popcorn_edu.model.rings import MessageType, SlotReady

TITLE = "Processor grouping"

__all__ = ["PREDICTS", "SCENES", "TASKS", "TITLE", "note"]


# -- scenes ----------------------------------------------------------------------------------------


def check_in(variant: Variant):
    """Kernels join one after the other; each greets those that are there."""
    return scenarios.registration(kernels=numbers(variant).joining)


def near_and_far(variant: Variant):
    """Kernel 1 on kernel 0's own die, kernel 2 as far away as the machine goes; both send one."""
    machine = Machine.load(numbers(variant).box)
    home = machine.bsp
    near = next(cpu for cpu in machine.cpus if machine.relation(home, cpu) == "same die")
    far = max(machine.cpus, key=lambda cpu: (machine.transfer_ns(home, cpu), -cpu))
    return scenarios.fan_in(
        machine=machine.name, kernels=3, messages=1, gap_ns=0, cpus=(home, near, far)
    )


def shorthand(variant: Variant):
    """The first CPU of kernel 1 interrupts its kernel's CPUs one by one, then by shorthand."""
    machine = Machine.load(numbers(variant).box)
    return one_by_one_and_all(machine, grouping.group(machine, "per package"), 1)


# -- pre, post: before and after -------------------------------------------------------------------

# After the lab: which misconception each choice is; the sound one has none.
AFTER = {
    "idle": {"a": "", "b": "M2", "c": "M2"},
    "more": {"a": "M16", "b": "M16", "c": ""},
    "mask": {"a": "M10", "b": "", "c": "M10"},
    "all": {"a": "M1", "b": "", "c": "M2"},
}
QUESTIONS = tuple(AFTER)
PRE, POST = before_and_after(
    AFTER,
    "a1 for `present_mask`, the table of numbers of kernels for `more`, s7 for `idle`, and p3 and "
    "f4 for who hears an interrupt.",
)


# -- the gates -------------------------------------------------------------------------------------


def check_ins_of(run) -> list:
    return [
        record
        for record in run.trace.records(MessageDelivered)
        if record.event.type == MessageType.CHECKIN
    ]


def how_much_longer(run, seq: int) -> str:
    """From the start to the ready flag: the far sender against the near one."""
    near = run.trace.next(SlotReady, sender=1).time
    ratio = run.trace.next(SlotReady, sender=2).time / near
    return "a" if ratio < 1.2 else "b" if ratio < 4 else "c"


def strangers_hit(run, seq: int) -> int:
    """Interrupts that the broadcast causes in other kernels than the sender's."""
    sent = run.trace[seq].event
    taken = (r for r in run.trace.records(VectorTaken) if r.seq > seq)
    return sum(record.event.kernel != sent.kernel for record in taken)


PREDICTS = (
    Predict(
        "p1",
        "All kernels have joined. How many check-in messages has that taken altogether?",
        "check in",
        at=lambda run: check_ins_of(run)[-1].seq,
        truth=lambda run, seq: len(check_ins_of(run)),
        why="Each new kernel greets every kernel that is there already: 0 + 1 + 2 + ... So the "
        "number grows with the square of the kernels.",
    ),
    Predict(
        "p2",
        "How much longer does the far sender take until its message is marked ready?",
        "near and far",
        at=lambda run: run.trace.next(SlotReady, sender=2).seq,
        truth=how_much_longer,
        options={
            "a": "about as long: memory is memory",
            "b": "two to four times as long",
            "c": "ten times as long, or more",
        },
        why="To put a message into a ring three cache lines move from CPU to CPU, and how long a "
        "line takes depends on the way. The sender's own instructions are few.",
    ),
    Predict(
        "p3",
        'How many CPUs of other kernels take the interrupt that was sent to "all but self"?',
        "shorthand",
        at=lambda run: next(run.trace.records(BroadcastSent)).seq,
        truth=strangers_hit,
        why="An APIC knows numbers and shorthands, and no kernels. To it, all CPUs of the machine "
        "are one herd.",
    ),
)

SCENES = {
    "check in": check_in,
    "near and far": near_and_far,
    "shorthand": shorthand,
    "lists": asked_table,
    "box": lambda variant: cpus_table(numbers(variant).box),
    "threads": lambda variant: cpus_table(numbers(variant).threaded),
    "meeting": meeting_table,
    "goals": goals_table,
    "distances": distances_table,
    "jobs": purpose_table,
    "broken plan": broken_plan,
    "machine": lambda variant: Machine.load(numbers(variant).box),
    "halved": lambda variant: Machine.load(numbers(variant).halved),
    "shared": lambda variant: Machine.load(purpose(variant).machine),
}


# -- f4: the reason --------------------------------------------------------------------------------

BROADCAST_WORDS = {"a": "slower", "b": "everybody", "c": "refused", "d": "below"}


def what_a_broadcast_does(variant: Variant) -> str:
    """The model's own answer: does "all but self" of a kernel hit anybody else's CPUs?"""
    machine = Machine.load(numbers(variant).box)
    groups = grouping.group(machine, "per package")
    return "everybody" if who_hears(machine, groups, 1, "all but self").foreign else "refused"


def why_no_broadcast(work, variant):
    if work.why is None:
        return work.slip or OPEN
    if BROADCAST_WORDS[work.why] != what_a_broadcast_does(variant):
        tag = {"c": "M2", "d": "M1"}.get(work.why, "")
        return Miss("Play `shorthand` to its end: who takes the interrupt?", tag)


# -- the tasks -------------------------------------------------------------------------------------

ASKED = ("per core", "per node", "per package")
FIELDS = ("check_ins", "sent_by_it", "kernel_id", "g1_numbers")
A3_NAMES = {
    "check_ins": "check-ins of all",
    "sent_by_it": "check-ins that it sends",
    "kernel_id": "its id in G2",
    "g1_numbers": "its numbers in G1",
}
HALVES = {"messages": [object], "lines": [object], "break_even": int}


def merged_packages(variant: Variant) -> dict:
    """What the policy makes, for both goals: what a student tries first."""
    machine = Machine.load(numbers(variant).halved)
    both = list(grouping.present_masks(grouping.group(machine, "per package", 2)))
    return {"messages": both, "lines": both}


def in_order(variant: Variant, kernels: int = 4) -> dict:
    """Four kernels of as many cores each, as no role needs them."""
    machine = Machine.load(purpose(variant).machine)
    groups = grouping.group(machine, "per core", kernels)
    return {"kernels": list(grouping.present_masks(groups))}


TASKS = (
    PRE,
    Task(
        "a1",
        "Lists for three policies",
        dict.fromkeys(ASKED, str),
        tuple(Check(policy, 1, lists(policy)) for policy in ASKED),
        hints=(
            "Go through the CPUs from 0 upwards. Each time you come to one that is in no group "
            "yet, a new kernel begins, with all CPUs that belong to it.",
            "Kernel 0 has CPU 0. The numbers of kernels need not be those of nodes or packages: "
            "node ids may have gaps, and a package's CPUs may stand further down.",
            'With two threads a core, the kernel of core n has two CPUs, such as `"5,17"`. A range '
            'is written with a dash, and parts with commas: `"40-47,232-239"`.',
        ),
        wrong=(
            Wrong("a bit mask", lambda v: {"per node": "0xff00"}, 0, "M10"),
            Wrong("one thread of the core", lambda v: {"per core": str(numbers(v).core)}, 0),
            Wrong("the first kernel's", lambda v: {"per node": "0-5", "per package": "0"}, 0),
            Wrong("no list", lambda v: {"per node": "eight CPUs"}, 0),
            Wrong("numbers", lambda v: {"per node": 8, "per package": [0, 1]}, 0),
        ),
    ),
    Task(
        "f2",
        "A grouping of your own",
        callable,
        (
            Check(
                "nodes and packages",
                1,
                puts_together(
                    ("opteron-6134-32", "per node"),
                    ("opteron-6134-32", "per package"),
                    ("magny-cours-48", "per node"),
                    ("e5-2650-32", "per package"),
                ),
            ),
            Check(
                "cores and kinds",
                1,
                puts_together(
                    ("e5-2650-32", "per core"),
                    ("opteron-6134-32", "per core"),
                    ("gb10-20", "per kind"),
                ),
            ),
            Check("no kernel for what is offline", 0.5, leaves_out_what_is_offline),
            Check("the order of groups and CPUs", 0.5, keeps_the_order),
            Check("machines not seen before", 1, same_on_fresh_machines, hidden=True),
        ),
        ask=Clusters,
        hints=(
            "Which column of a row decides, for each policy? CPUs with the same value there belong "
            "together: collect them in a dictionary from that value to a list of CPUs.",
            "Cores count from 0 in *each* package, so a core's name is its package and its number. "
            "Offline CPUs are left out before anything else.",
            '`key = (row["package"], row["core"])` for "per core", `row["node"]` for "per node", '
            'and so on; `groups.setdefault(key, []).append(row["cpu"])`; in the end '
            "`sorted(sorted(g) for g in groups.values())`.",
        ),
    ),
    Task(
        "a3",
        "Names and greetings",
        dict.fromkeys(FIELDS, int),
        tuple(Check(A3_NAMES[field], 0.5, meets(field)) for field in A3_WHY),
        hints=(
            "Count what happens while the kernels boot one after the other, with three kernels "
            "first. Then look at the table for the two names.",
            "Kernel k greets the k kernels that are there. All together: 0 + 1 + ... + (N - 1).",
            "N(N-1)/2 check-ins. The id in G2 is the first number of its list. In G1 there is a "
            "number for each CPU it has: count the CPUs of its list, both parts of it.",
        ),
        wrong=(
            Wrong(
                "both ways",
                lambda v: {"check_ins": 2 * grouping.check_ins(len(meeting(v).groups))},
                0,
            ),
            Wrong("its place for its id", lambda v: {"kernel_id": meeting(v).kernel}, 0),
            Wrong("one number for a kernel", lambda v: {"g1_numbers": 1}, 0),
            Wrong("the last one's", lambda v: {"sent_by_it": len(meeting(v).groups) - 1}, 0),
            Wrong("half", lambda v: {"sent_by_it": meeting(v).kernel}, 0.5),
            Wrong("texts", lambda v: dict.fromkeys(FIELDS, "many"), 0),
        ),
    ),
    Task(
        "e5",
        "Two halves, two goals",
        HALVES,
        (
            Check("quick messages", 1.5, reaches("messages")),
            Check("quick cache lines", 1.5, reaches("lines")),
            Check("when each pays", 1, breaks_even),
        ),
        hints=(
            "Take whole nodes, four for each kernel, and look at the distance table: 10 is here, "
            "the next number is one hop, the largest two hops.",
            "For quick lines, as many pairs as can be of a kernel's four nodes should be one hop "
            "apart. For quick messages it is the other way round: few of them inside, many "
            "between. Messages go from any CPU of one kernel to the *first* CPU of the other.",
            "There are only 35 ways to put three more nodes to node 0: "
            "`itertools.combinations(range(1, 8), 3)`, and `pk.grouping.cost(half, groups)` for "
            "each, its `.mean_ns` and `.inside_ns`. For the break-even compare "
            "`pk.grouping.exchange_ns(half, groups, percent)` of both, percent by percent, where "
            '`groups = pk.grouping.group(half, "by hand", lists=halves["lines"])`.',
        ),
        wrong=(
            Wrong("packages merged", merged_packages, 0),
            Wrong("one kernel", lambda v: {"messages": ["0-63", ""], "lines": ["0", "1"]}, 0),
            Wrong("numbers", lambda v: {"messages": [0, 1], "break_even": 50}, 0),
            Wrong("no lists", lambda v: {"lines": ["some", "others"]}, 0),
        ),
    ),
    Task(
        "f4",
        "Whom to interrupt",
        {"ipi_targets": callable, "why": OneOf(*BROADCAST_WORDS)},
        (
            Check("reaches all its own", 0.5, reaches_its_own),
            Check("and nobody else", 0.5, stays_inside),
            Check("machines not seen before", 0.5, sends_right_afresh, hidden=True),
            Check("why no broadcast", 0.5, why_no_broadcast),
        ),
        ask=ask_targets,
        hints=(
            "First find the group that the sender is in. Who of it is to be interrupted?",
            "All of the group but the sender. What is written into the register is not the number "
            "of the CPU but its APIC id.",
            "`for group in groups: if sender in group:` and then a list of `apic_id[cpu]` for each "
            "cpu of the group that is not the sender.",
        ),
    ),
    Task(
        "i6",
        "Owned twice, or by none",
        callable,
        (
            Check("owned twice", 0.75, names_them(0, "public")),
            Check("owned by none", 0.75, names_them(1, "public")),
            Check("fresh plans", 0.5, named_in_fresh_plans, hidden=True),
        ),
        ask=Owned,
        hints=(
            "For each CPU of the machine, count the groups it is in. Which counts are wrong?",
            "Adding up the sizes of the groups is not enough: one CPU too many here and one too "
            "few there cancel each other. And a group that lists a CPU twice still is one owner.",
            "`sum(cpu in group for group in groups)` is the number of owners of a CPU. Return two "
            "lists: of the CPUs where it is above 1, and of those where it is 0.",
        ),
    ),
    Task(
        "s7",
        "A loop that must not wait",
        {"kernels": [object], "because": str},
        (
            Check("four kernels that divide the machine", 0.5, has_four_kernels),
            Check("the loop is alone and near", 0.75, loop_is_alone_and_near),
            Check("room for both programs", 0.5, programs_have_room),
            Check("close inside", 0.75, programs_are_close),
            Check("a reason in a sentence", 0.5, gives_a_reason),
        ),
        hints=(
            "Give away the small things first: the boot CPU to kernel 0, one core next to the "
            "device to kernel 1. Then divide the rest into two.",
            "What did quick cache lines need in e5? The same helps here, with two cores less.",
            'Write lists such as `"0"`, `"41"`, `"1-11,24-35"`. In a cell of your own, '
            '`pk.plans.groups(lab.run("shared"), design["kernels"])` shows what is missing or '
            "double, and what the whole costs.",
        ),
        wrong=(
            Wrong("four alike", in_order, 0.5),
            Wrong("one per core", lambda v: in_order(v, 32), 0.38, "M16"),
            Wrong("two kernels", lambda v: in_order(v, 2), 0, "M2"),
            Wrong("a reason in two words", lambda v: {"because": "less latency"}, 0),
            Wrong("a list of nothing", lambda v: {"kernels": []}, 0),
            Wrong("no lists", lambda v: {"kernels": ["a few", "the rest"]}, 0),
        ),
    ),
    POST,
)

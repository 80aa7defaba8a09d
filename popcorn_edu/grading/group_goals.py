"""Lab 02: lists, numbers and groups that a student writes down (a1, a3, e5, s7), and what is right.

Every answer is read as the model reads groups by hand, and priced with the machine's own
distances. The best that there is to find comes from a search over whole nodes or from the model's
own balanced minimum cut; nothing is written down here.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import OPEN
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import grouping
from popcorn_edu.model.cut import balanced_cut
from popcorn_edu.model.grouping import Groups, by_hand, check_ins, cost
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.topology import cpu_list

THREADED = ("westmere-24", "e5-2650-32", "uv2000-384")  # machines whose cores have two threads
BOXES = ("magny-cours-48", "opteron-6272-64", "h8qg6-64")  # two nodes in each of four packages
HALVED = ("magny-cours-48", "opteron-6134-32", "h8qg6-64")  # merging packages is not the best


class Numbers(NamedTuple):
    """What differs between variants, all of it equally hard."""

    threaded: str
    box: str
    halved: str
    shared: str  # the machine of s7, another one
    core: int  # number of the kernel that is asked for, for each policy
    node: int
    package: int
    many: int  # kernels in a3
    last: int  # and the one that is asked about
    joining: int  # kernels that check in, in the scene


@cache
def numbers(variant: Variant) -> Numbers:
    rng = variant.rng("numbers")
    threaded, box, halved = rng.choice(THREADED), rng.choice(BOXES), rng.choice(HALVED)
    return Numbers(
        threaded,
        box,
        halved,
        shared=rng.choice([name for name in HALVED if name != halved]),
        core=rng.randrange(2, len(Machine.load(threaded).cores) - 1),
        node=rng.randrange(2, 7),
        package=rng.randrange(1, 4),
        many=rng.choice((8, 12, 24)),
        last=rng.randrange(2, 7),
        joining=rng.choice((5, 6)),
    )


def note(variant: Variant) -> str:
    mine = numbers(variant)
    return f"machines {mine.box}, {mine.threaded} and {mine.halved}"


# -- a1: three policies ----------------------------------------------------------------------------


class Asked(NamedTuple):
    machine: str
    policy: str
    kernel: int


def asked(variant: Variant) -> dict[str, Asked]:
    mine = numbers(variant)
    return {
        "per core": Asked(mine.threaded, "per core", mine.core),
        "per node": Asked(mine.box, "per node", mine.node),
        "per package": Asked(mine.box, "per package", mine.package),
    }


def asked_table(variant: Variant) -> Table:
    return Table(
        "Which CPUs has this kernel?",
        ["policy", "machine", "kernel"],
        [(a.policy, a.machine, a.kernel) for a in asked(variant).values()],
        "Kernels are numbered by their first CPU; kernel 0 has the boot CPU, CPU 0.",
    )


SHOWN_CORES = 4


def cpus_table(name: str) -> Table:
    """A machine as the operating system lists it: nodes, packages, threads of some cores."""
    machine = Machine.load(name)
    rows = [
        (
            f"node {node.id}",
            ", ".join(str(p) for p in dict.fromkeys(map(machine.package_of, node.cpus))),
            cpu_list(node.cpus),
        )
        for node in machine.nodes
        if node.cpus
    ]
    threads = "one CPU each"
    if any(len(core.cpus) > 1 for core in machine.cores):
        cores = sorted(machine.cores, key=lambda core: core.cpus)
        shown = ["{" + ", ".join(map(str, core.cpus)) + "}" for core in cores[:SHOWN_CORES]]
        threads = f"two threads each, which are CPUs {', '.join(shown)}, and so on"
    return Table(
        f"{name}: {len(machine.cpus)} CPUs",
        ["NUMA node", "package", "CPUs"],
        rows,
        f"{len(machine.cores)} cores: {threads}.",
    )


def right_list(variant: Variant, which: str) -> tuple[int, ...]:
    one = asked(variant)[which]
    return grouping.group(Machine.load(one.machine), one.policy)[one.kernel]


def lists(which: str):
    def holds(answer, variant):
        text = answer[which]
        if text is None:
            return OPEN
        one, right = asked(variant)[which], set(right_list(variant, which))
        if is_a_mask(text, right):
            return Miss(f"{text.strip()[:20]!r} would be a bit mask.", "M10")
        given = set(_read(text))
        if given != right:
            return _slip(one, given, right, text)

    return holds


def is_a_mask(text: str, right: set[int]) -> bool:
    """Hexadecimal or binary, or the very number whose bits are these CPUs."""
    text = text.strip().lower()
    return text.startswith(("0x", "0b")) or text == str(sum(1 << cpu for cpu in right))


def _slip(one: Asked, given: set[int], right: set[int], text: str) -> str:
    machine = Machine.load(one.machine)
    groups = grouping.group(machine, one.policy)
    if given in map(set, groups):
        other = next(k for k, group in enumerate(groups) if set(group) == given)
        return (
            f"{text!r} is kernel {other}, whose first CPU is {min(given)}. Kernels are counted in "
            "the order of their first CPUs, whatever the nodes or packages are called."
        )
    if strange := sorted(given - set(machine.cpus)):
        return f"{one.machine} has no CPU {strange[0]}."
    first = min(given, default=0)
    mates = next(set(core.cpus) for core in machine.cores if first in core.cpus)
    if one.policy == "per core" and not mates <= given:
        return f"CPU {first} shares its core with CPU {min(mates - given)}: threads stay together."
    where = machine.node_of if one.policy == "per node" else machine.package_of
    what = "node" if one.policy == "per node" else "package"
    wrong = sorted(cpu for cpu in given if where(cpu) != where(first))
    if one.policy != "per core" and wrong:
        return f"CPU {first} is in {what} {where(first)}, CPU {wrong[0]} in {where(wrong[0])}."
    return f"{len(given)} CPUs; {len(right)} were expected."


def _read(text: str) -> tuple[int, ...]:
    """A CPU list; what is none is said without the kernel's number, which the student did not
    choose."""
    try:
        return by_hand(Machine.default(), lists=[text])[0]
    except PopcornError as problem:
        raise PopcornError(str(problem).removeprefix("Kernel 0: ")) from None


# -- a3: who greets whom, and by which name --------------------------------------------------------


class Meeting(NamedTuple):
    machine: str
    policy: str
    kernel: int
    groups: Groups


@cache
def meeting(variant: Variant) -> Meeting:
    """Many kernels on one machine: more than one counts on one's fingers."""
    mine, machine = numbers(variant), Machine.load("uv2000-384")
    groups = grouping.group(machine, "per node", mine.many)
    return Meeting(machine.name, f"per node, {mine.many} kernels", mine.last, groups)


def meeting_truth(variant: Variant) -> dict[str, int]:
    met = meeting(variant)
    who = grouping.identities(met.groups)[met.kernel]
    return {
        "check_ins": check_ins(len(met.groups)),
        "sent_by_it": met.kernel,  # one to each kernel that is there already
        "kernel_id": who.g2,
        "g1_numbers": len(who.g1),
    }


def meeting_table(variant: Variant) -> Table:
    met = meeting(variant)
    rows = [(k, cpu_list(group)) for k, group in enumerate(met.groups)]
    return Table(
        f"{met.machine}, {met.policy}, booted in this order",
        ["kernel", "CPUs"],
        rows,
        f"The questions are about kernel {met.kernel}.",
    )


A3_WHY = {
    "check_ins": "Each pair of kernels meets once: the later one greets the earlier one.",
    "sent_by_it": "A new kernel greets those that are there already, and later ones greet it.",
    "kernel_id": "In G2 a kernel takes the number of the first CPU that is present.",
    "g1_numbers": "In G1 code asks for the number of the CPU that it happens to run on.",
}


def meets(which: str):
    def holds(answer, variant):
        given, right = answer[which], meeting_truth(variant)[which]
        if given is None:
            return OPEN
        if given == right:
            return None
        count = len(meeting(variant).groups)
        slips = {
            ("check_ins", count * (count - 1)): "That counts each pair twice.",
            ("check_ins", count**2): "No kernel greets itself, and each pair meets once.",
            ("sent_by_it", count - 1): "It is not the last one: some are not there yet.",
            ("kernel_id", meeting(variant).kernel): "That is its place in the table.",
        }
        return slips.get((which, given), f"{given} it is not.") + " " + A3_WHY[which]

    return holds


# -- e5: two halves, for two goals -----------------------------------------------------------------

GOALS = ("messages", "lines")
MARGIN = 1.002  # ns are rounded: as good as the goal
STEP = 1  # percent that the break-even may be off


class Goal(NamedTuple):
    """What is to become small, where a policy stands, and what can be reached."""

    what: str
    policy_ns: int
    best_ns: int


def halves(machine: Machine) -> list[Groups]:
    """Every division into two kernels of as many whole nodes each."""
    nodes = [node.cpus for node in machine.nodes if machine.bsp not in node.cpus and node.cpus]
    first = next(node.cpus for node in machine.nodes if machine.bsp in node.cpus)
    made = []
    for chosen in combinations(range(len(nodes)), (len(nodes) + 1) // 2 - 1):
        own = [*first, *(cpu for n in chosen for cpu in nodes[n])]
        rest = [cpu for n, node in enumerate(nodes) if n not in chosen for cpu in node]
        made.append((tuple(sorted(own)), tuple(sorted(rest))))
    return made


def ns_of(what: str, machine: Machine, groups: Groups) -> int:
    found = cost(machine, groups)
    return found.mean_ns if what == "messages" else found.inside_ns


@cache
def goals(name: str) -> dict[str, Goal]:
    machine = Machine.load(name)
    merged = grouping.group(machine, "per package", 2)
    found = {}
    for what in GOALS:
        best = min(ns_of(what, machine, groups) for groups in halves(machine))
        if what == "lines":
            best = min(best, ns_of(what, machine, grouping.group(machine, "least cost", 2)))
        found[what] = Goal(what, ns_of(what, machine, merged), best)
    return found


def goals_table(variant: Variant) -> Table:
    name = numbers(variant).halved
    found = goals(name)
    rows = [
        ("messages", "a message from one kernel to the other", *found["messages"][1:]),
        ("lines", "a cache line between two CPUs of one kernel", *found["lines"][1:]),
    ]
    shown = [(goal, what, f"{policy} ns", f"{best} ns") for goal, what, policy, best in rows]
    return Table(
        f"{name}: two kernels of as many cores each",
        ["goal", "mean time of", "packages merged", "reach at most"],
        shown,
        "Results of the model.",
    )


def distances_table(variant: Variant) -> Table:
    """The firmware's distance table, with the CPUs of each node."""
    machine = Machine.load(numbers(variant).halved)
    ids = [node.id for node in machine.nodes if node.cpus]
    rows = [
        (
            f"node {node.id} ({cpu_list(node.cpus)})",
            *(str(machine.distance(node.id, other)) for other in ids),
        )
        for node in machine.nodes
        if node.cpus
    ]
    return Table(
        f"{machine.name}: distances from the firmware (SLIT); 10 is here",
        ["", *(f"to {n}" for n in ids)],
        rows,
        f"Nodes in one package: {'; '.join(_mates(machine))}.",
    )


def _mates(machine: Machine) -> list[str]:
    together: dict[int, list[int]] = {}
    for node in machine.nodes:
        if node.cpus:
            together.setdefault(machine.package_of(node.cpus[0]), []).append(node.id)
    return [" and ".join(map(str, ids)) for ids in together.values()]


def two_halves(answer, what: str, machine: Machine) -> Groups:
    """The student's two groups, if they divide the machine into halves; else the first problem."""
    given = answer[what]
    if given is None or any(part is None for part in given):
        raise PopcornError(OPEN)
    groups = by_hand(machine, lists=given)
    if found := grouping.problems(machine, groups):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise PopcornError(found[0] + more)
    sizes = [len(group) for group in groups]
    if len(sizes) != 2 or abs(sizes[0] - sizes[1]) > 1:
        raise PopcornError(f"The kernels have {sizes[:4]} CPUs; two halves were expected.")
    return groups


def reaches(what: str):
    def holds(answer, variant):
        if answer[what] is None:
            return OPEN
        machine = Machine.load(numbers(variant).halved)
        mine = ns_of(what, machine, two_halves(answer, what, machine))
        goal = goals(machine.name)[what]
        if mine <= goal.best_ns * MARGIN:
            return None
        share = 0.5 if mine < goal.policy_ns else 0.0
        hint = (
            "Which nodes should the senders be near to?"
            if what == "messages"
            else "Which nodes are near to *all* others of their kernel?"
        )
        than = "less" if mine < goal.policy_ns else "not less"
        return Miss(
            f"{mine} ns, {than} than with merged packages ({goal.policy_ns} ns); {goal.best_ns} ns "
            f"can be reached. {hint}",
            share=share,
        )

    return holds


def break_even(machine: Machine, messages: Groups, lines: Groups) -> int | None:
    """From how many exchanges in a hundred that stay inside on, the second grouping is cheaper."""
    one, other = cost(machine, messages), cost(machine, lines)
    for inside in range(101):
        outside = 100 - inside
        ours = other.inside_ns * inside + other.mean_ns * outside
        if ours < one.inside_ns * inside + one.mean_ns * outside:
            return inside


def breaks_even(answer, variant):
    given = answer["break_even"]
    if given is None:
        return OPEN
    machine = Machine.load(numbers(variant).halved)
    both = [two_halves(answer, what, machine) for what in GOALS]
    right = break_even(machine, *both)
    if right is None:
        return "Your second grouping is never cheaper than your first: improve it first."
    if abs(given - right) > STEP:
        at = min(max(given, 0), 100)
        found = [grouping.exchange_ns(machine, groups, at) for groups in both]
        return (
            f"If {at} of 100 stay inside, an exchange takes {found[0]} ns with your first grouping "
            f"and {found[1]} ns with your second."
        )


# -- s7: a grouping for a purpose ------------------------------------------------------------------

REASON_WORDS, REASON_CHARACTERS = 6, 30
BATCHES = 2


class Purpose(NamedTuple):
    """A latency-critical loop, and two programs with many threads that share memory."""

    machine: str
    node: int  # where the loop's device is
    threads: int  # of each program
    goal_ns: int  # a cache line inside the programs' kernels: what can be reached
    plain_ns: int  # and what dealing out the rest in order comes to


@cache
def purpose(variant: Variant) -> Purpose:
    mine = numbers(variant)
    machine = Machine.load(mine.shared)
    rng = variant.rng("purpose")
    node = rng.choice([node for node in machine.nodes[2:] if node.cpus])
    core = node.cpus[-1:]
    rest = [(cpu,) for cpu in machine.cpus if cpu not in (machine.bsp, *core)]
    dealt = balanced_cut(machine, rest, BATCHES)
    size = len(rest) // BATCHES
    ordered = [cpu for (cpu,) in rest]
    return Purpose(
        machine.name,
        node.id,
        size - 1,
        _line_ns(machine, dealt),
        _line_ns(machine, [ordered[:size], ordered[size:]]),
    )


def _line_ns(machine: Machine, groups) -> int:
    return cost(machine, _with_the_boot_cpu(machine, groups)).inside_ns


def _with_the_boot_cpu(machine: Machine, groups) -> Groups:
    """The programs' kernels behind a primary of one CPU, which has no pair inside."""
    return ((machine.bsp,), *(tuple(sorted(group)) for group in groups))


def purpose_table(variant: Variant) -> Table:
    mine = purpose(variant)
    return Table(
        f"{mine.machine}: four kernels for three jobs",
        ["kernel", "runs", "needs"],
        [
            ("0", "housekeeping, the boot CPU", "one core"),
            (
                "1",
                "a control loop that must answer its device within microseconds",
                f"one core, alone, in node {mine.node}, next to its device",
            ),
            *(
                (
                    str(2 + n),
                    f"batch program {'AB'[n]}, whose threads share all their memory",
                    f"{mine.threads} cores or more, close to each other",
                )
                for n in range(BATCHES)
            ),
        ],
        f"A cache line inside the batch kernels: {mine.goal_ns} ns can be reached; with CPUs dealt "
        f"out in order it is {mine.plain_ns} ns.",
    )


def _designed(answer, variant: Variant) -> tuple[Machine, Groups]:
    """The student's kernels, if they are a division of the machine."""
    machine = Machine.load(purpose(variant).machine)
    given = answer["kernels"]
    if given is None or all(part is None for part in given):
        raise PopcornError(OPEN)
    if any(part is None for part in given):
        raise PopcornError("A kernel has no list yet.")
    return machine, by_hand(machine, lists=given)


def _sound(answer, variant: Variant) -> tuple[Machine, Groups]:
    machine, groups = _designed(answer, variant)
    if found := grouping.problems(machine, groups):
        raise PopcornError(found[0] + (f" (And {len(found) - 1} more.)" if found[1:] else ""))
    return machine, groups


def has_four_kernels(answer, variant):
    _, groups = _sound(answer, variant)
    if len(groups) > 2 + BATCHES:
        return Miss(f"{len(groups)} kernels for four roles.", "M16")
    if len(groups) < 2 + BATCHES:
        return Miss(f"{len(groups)} kernels for four roles: who shares one is disturbed.", "M2")


def loop_is_alone_and_near(answer, variant):
    machine, groups = _sound(answer, variant)
    if len(groups) < 2:
        return "There is no kernel 1."
    loop, node = groups[1], purpose(variant).node
    near = all(machine.node_of(cpu) == node for cpu in loop)
    if len(loop) == 1 and near:
        return None
    if len(loop) == 1:
        return Miss(
            f"CPU {loop[0]} is in node {machine.node_of(loop[0])}; the device is at node {node}.",
            share=0.5,
        )
    said = f"Kernel 1 has {len(loop)} cores; the loop runs on one, the others would lie idle."
    return Miss(said, share=0.5 if near else 0)


def programs_have_room(answer, variant):
    machine, groups = _sound(answer, variant)
    least = purpose(variant).threads
    batch = groups[2:]
    enough = [len(group) >= least for group in batch]
    if enough == [True] * BATCHES:
        return None
    sizes = [len(group) for group in batch]
    said = (
        f"Kernels 2 and up have {sizes[:6]} cores; {BATCHES} of {least} or more were expected. A "
        "program's threads run on its own kernel's cores only."
    )
    return Miss(said, share=0.5 if any(enough) and len(batch) == BATCHES else 0.0)


def programs_are_close(answer, variant):
    machine, groups = _sound(answer, variant)
    mine = purpose(variant)
    batch = [group for group in groups[2:] if group]
    if len(batch) != BATCHES or min(map(len, batch)) < mine.threads:
        return "Judged once both programs have the cores they need."
    ns = cost(machine, _only(machine, batch)).inside_ns
    if ns <= mine.goal_ns + 1:
        return None
    share = 0.5 if ns < mine.plain_ns else 0.0
    return Miss(
        f"A cache line takes {ns} ns inside them; {mine.goal_ns} ns can be reached. Which nodes "
        "are near to all others of their kernel?",
        share=share,
    )


def _only(machine: Machine, batch) -> Groups:
    """Only the programs' kernels: they are priced without the others."""
    if any(machine.bsp in group for group in batch):
        raise PopcornError(f"CPU {machine.bsp}, the boot CPU, belongs to kernel 0.")
    return _with_the_boot_cpu(machine, batch)


def gives_a_reason(answer, variant):
    reason = answer["because"] or ""
    if not reason:
        return OPEN
    if len(reason.split()) < REASON_WORDS or len(reason) < REASON_CHARACTERS:
        return "Say in a whole sentence why a batch program has one kernel, and not one per core."

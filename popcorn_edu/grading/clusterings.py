"""Lab 02: a student's own functions about groups, tried on real machines and judged.

    Clusters  f2: group(cpus, policy)                      -> the groups
    Targets   f4: ipi_targets(groups, sender, apic_id)     -> APIC ids
    Owned     i6: wrongly_owned(groups, cpus)              -> [owned twice, owned by none]

What is right comes out of popcorn_edu.model.grouping. The functions get plain copies: lists,
dictionaries, numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import OPEN, unfit
from popcorn_edu.grading.guard import StudentCodeError, call
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import grouping
from popcorn_edu.model.grouping import Groups
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.topology import cpu_list

# -- f2: groups of a machine -----------------------------------------------------------------------

KEYS = {"per core": "core", "per node": "node", "per package": "package", "per kind": "kind"}
ALIKE = "alike"  # the kind of all CPUs of a machine that does not mix kinds


def kinds(machine: Machine) -> dict[int, str]:
    """The kind of each CPU, by how fast it is: "little", "big"; or all alike."""
    ranked = sorted(machine.cpu_kinds, key=lambda kind: (kind.efficiency or 0, kind.cpus))
    if len(ranked) < 2 or {cpu for kind in ranked for cpu in kind.cpus} != set(machine.cpus):
        return dict.fromkeys(machine.cpus, ALIKE)
    names = ["little", *("middle" for _ in ranked[2:]), "big"]
    return {cpu: name for kind, name in zip(ranked, names, strict=True) for cpu in kind.cpus}


def rows_of(machine: Machine) -> list[dict]:
    """A row for each CPU. Cores count from 0 within their package, as in /proc/cpuinfo."""
    core_of: dict[int, int] = {}
    for package in machine.packages:
        own = [core for core in machine.cores if core.cpus[0] in package.cpus]
        core_of |= {cpu: number for number, core in enumerate(own) for cpu in core.cpus}
    kind_of = kinds(machine)
    rows = [
        {
            "cpu": cpu, "core": core_of[cpu], "package": machine.package_of(cpu),
            "node": machine.node_of(cpu), "kind": kind_of[cpu], "online": True,
        }
        for cpu in machine.cpus
    ]  # fmt: skip
    unknown = dict.fromkeys(("core", "package", "node", "kind"))
    return rows + [{"cpu": cpu, **unknown, "online": False} for cpu in machine.offline_cpus]


PUBLIC = (
    ("opteron-6134-32", "per node"),
    ("opteron-6134-32", "per package"),
    ("magny-cours-48", "per node"),
    ("e5-2650-32", "per package"),
    ("e5-2650-32", "per core"),
    ("opteron-6134-32", "per core"),
    ("gb10-20", "per kind"),
    ("netburst-12", "per node"),
    ("netburst-12", "per package"),
)
FRESH = (
    ("power7-256", "per node"),
    ("power7-256", "per core"),
    ("uv2000-384", "per core"),
    ("westmere-24", "per node"),
    ("i7-1370p-20", "per kind"),
    ("h8qg6-64", "per package"),
    ("superdome-128", "per node"),
    ("netburst-12", "per core"),
)


class Grouped(NamedTuple):
    """One case: what was asked, what is right, what the student's function says."""

    where: str  # 'magny-cours-48, "per node"'
    machine: Machine
    policy: str
    right: Groups
    said: list[list[int]]

    @property
    def online(self) -> list[list[int]]:
        return [[cpu for cpu in group if cpu in self.machine.cpus] for group in self.said]


class Clusters:
    """A student's group(), on several machines; the rows come in no particular order."""

    def __init__(self, function: Callable, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[tuple[str, str], Grouped] = {}
        self.case(*PUBLIC[0])  # what is wrong with the function itself is told at once

    def case(self, name: str, policy: str) -> Grouped:
        if (name, policy) not in self._done:
            machine = Machine.load(name)
            rows = rows_of(machine)
            self.variant.rng(f"rows {name} {policy}").shuffle(rows)
            said = call(self.function, rows, policy, returns=object)
            where = f'{name}, "{policy}"'
            if not _is_groups(said):
                raise StudentCodeError(
                    f"{where}: {self.function.__name__} returned {said!r:.40}; expected a list of "
                    "groups, each a list of CPU numbers"
                )
            right = grouping.group(machine, policy)
            self._done[name, policy] = Grouped(where, machine, policy, right, said)
        return self._done[name, policy]

    def cases(self, which: Iterable[tuple[str, str]]) -> Iterable[Grouped]:
        return (self.case(*one) for one in which)


def _is_groups(said: object) -> bool:
    return type(said) is list and all(
        type(group) is list and all(type(cpu) is int for cpu in group) for group in said
    )


def who_is_together(case: Grouped) -> str | None:
    """The first thing wrong with who shares a kernel with whom; offline CPUs do not count here."""
    owners: dict[int, list[int]] = {}
    for kernel, group in enumerate(case.online):
        for cpu in group:
            owners.setdefault(cpu, []).append(kernel)
    missing = [cpu for cpu in case.machine.cpus if cpu not in owners]
    if missing:
        return f"{case.where}: CPU {missing[0]} is in no group."
    if twice := [cpu for cpu, kernels in owners.items() if len(kernels) > 1]:
        return f"{case.where}: CPU {min(twice)} is in your groups {owners[min(twice)][:2]}."
    right = {cpu: kernel for kernel, group in enumerate(case.right) for cpu in group}
    for group in case.online:
        for other in sorted(group):
            if right[other] != right[min(group)]:
                return _torn(case, min(group), other, "in one group")
    first = {}
    for cpu in case.machine.cpus:
        other = first.setdefault(right[cpu], cpu)
        if owners[cpu] != owners[other]:
            return _torn(case, other, cpu, "in two groups")


def _torn(case: Grouped, a: int, b: int, how: str) -> str:
    rows = {row["cpu"]: row for row in rows_of(case.machine)}
    key = KEYS[case.policy]
    keys = ["package", "core"] if key == "core" else [key]
    shown = " and ".join(
        f"CPU {cpu} ({', '.join(f'{k} {rows[cpu][k]}' for k in keys)})" for cpu in (a, b)
    )
    return f"{case.where}: {shown} are {how}."


def puts_together(*cases: tuple[str, str]):
    """The right CPUs share a kernel, in each of these cases; partial credit by case."""

    def holds(clusters, variant):
        wrong = [said for case in clusters.cases(cases) if (said := who_is_together(case))]
        if wrong:
            return Miss(
                f"{_share(len(cases), wrong)} {wrong[0]}", share=1 - len(wrong) / len(cases)
            )

    return holds


def leaves_out_what_is_offline(clusters, variant):
    for case in clusters.cases(case for case in PUBLIC if case[0] == "netburst-12"):
        off = sorted({cpu for group in case.said for cpu in group} - set(case.machine.cpus))
        if off:
            return f"{case.where}: CPU {off[0]} is offline; there is nothing to boot a kernel on."
        if not all(case.said):
            return f"{case.where}: a group is empty; a kernel needs a CPU."
        if said := who_is_together(case):
            return said


def keeps_the_order(clusters, variant):
    """Ascending groups, and the kernels by their first CPU: so the boot CPU's comes first."""
    cases = [case for case in PUBLIC if case[0] != "netburst-12"]
    for case in clusters.cases(cases):
        if said := who_is_together(case):
            return f"Judged once the right CPUs are together. {said}"
        for kernel, group in enumerate(case.said):
            if group != sorted(group):
                return f"{case.where}: group {kernel} is {group[:4]}...; ascending was expected."
        firsts = [group[0] for group in case.said]
        if firsts[0] != case.machine.bsp:
            return (
                f"{case.where}: kernel 0 begins with CPU {firsts[0]}; the primary has the boot "
                f"CPU, {case.machine.bsp}."
            )
        if firsts != sorted(firsts):
            return f"{case.where}: the kernels are not in the order of their first CPUs."


def same_on_fresh_machines(clusters, variant):
    """Groups and order together, on machines that a student has not seen."""
    wrong = []
    for case in clusters.cases(FRESH):
        if case.said != [list(group) for group in case.right]:
            said = who_is_together(case) or f"{case.where}: the order, or what is offline, differs."
            wrong.append(said)
    if wrong:
        return Miss(f"{_share(len(FRESH), wrong)} {wrong[0]}", share=1 - len(wrong) / len(FRESH))


def _share(count: int, wrong: list) -> str:
    return f"{count - len(wrong)} of {count} are right."


# -- f4: whom to interrupt -------------------------------------------------------------------------

TARGETS_PUBLIC = (("h8qg6-64", "per node"), ("dl165g7-16", "per package"), ("h8dgu-24", "per node"))
TARGETS_FRESH = (
    ("h8dgu-24", "per package"),
    ("h8qg6-64", "per package"),
    ("uv2000-384", "per core"),
    ("h8qg6-64", "per core"),
)


class Sent(NamedTuple):
    where: str
    groups: Groups
    sender: int
    apic_id: dict[int, int]
    said: list[int]

    @property
    def mine(self) -> tuple[int, ...]:
        return next(group for group in self.groups if self.sender in group)

    @property
    def right(self) -> set[int]:
        return {self.apic_id[cpu] for cpu in self.mine if cpu != self.sender}


class Targets:
    """A student's ipi_targets(): which APIC ids it sends to."""

    def __init__(self, function: Callable, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[tuple, Sent] = {}
        self.case(*TARGETS_PUBLIC[0])

    def case(self, name: str, policy: str) -> Sent:
        if (name, policy) not in self._done:
            machine = Machine.load(name)
            groups = grouping.group(machine, policy)
            rng = self.variant.rng(f"targets {name} {policy}")
            sender = rng.choice(rng.choice(groups[1:]))
            apic_id = {cpu: machine.apic_id(cpu) for cpu in machine.cpus}
            said = call(
                self.function, [list(group) for group in groups], sender, apic_id, returns=object
            )
            where = f'{name}, "{policy}", from CPU {sender}'
            if type(said) is not list or not all(type(number) is int for number in said):
                raise StudentCodeError(
                    f"{where}: {self.function.__name__} returned {said!r:.40}; expected a list of "
                    "APIC ids, whole numbers"
                )
            self._done[name, policy] = Sent(where, groups, sender, apic_id, said)
        return self._done[name, policy]


def reaches_its_own(work, variant):
    for case in map(lambda one: work.targets.case(*one), TARGETS_PUBLIC):
        missed = sorted(case.right - set(case.said))
        if missed:
            cpu = next(cpu for cpu, number in case.apic_id.items() if number == missed[0])
            return (
                f"{case.where}: CPU {cpu}, APIC id {missed[0]:#x}, is of the same kernel and "
                "hears nothing."
            )


def stays_inside(work, variant):
    for case in map(lambda one: work.targets.case(*one), TARGETS_PUBLIC):
        if not case.said:
            return f"{case.where}: the list is empty, so there is nothing to judge."
        if said := _outside(case):
            return said


def _outside(case: Sent) -> str | None:
    cpu_of = {number: cpu for cpu, number in case.apic_id.items()}
    for number in case.said:
        if number not in cpu_of:
            return f"{case.where}: {number} is no APIC id of this machine. Is it a CPU number?"
        cpu = cpu_of[number]
        if cpu == case.sender:
            return f"{case.where}: CPU {cpu} interrupts itself."
        if cpu not in case.mine:
            kernel = next(k for k, group in enumerate(case.groups) if cpu in group)
            return (
                f"{case.where}: APIC id {number:#x} is CPU {cpu}, of kernel {kernel}: that kernel "
                "never asked for this interrupt."
            )
    if len(set(case.said)) < len(case.said):
        return f"{case.where}: somebody is interrupted twice."


def sends_right_afresh(work, variant):
    for case in map(lambda one: work.targets.case(*one), TARGETS_FRESH):
        if said := _outside(case):
            return said
        if set(case.said) != case.right:
            return f"{case.where}: {len(case.said)} targets; {len(case.right)} were expected."


# -- i6: owned twice, owned by none ----------------------------------------------------------------


class Plan(NamedTuple):
    groups: list[list[int]]
    cpus: list[int]

    @property
    def owners(self) -> Counter:
        return Counter(cpu for group in self.groups for cpu in set(group))

    @property
    def twice(self) -> list[int]:
        return sorted(cpu for cpu in self.cpus if self.owners[cpu] > 1)

    @property
    def nobody(self) -> list[int]:
        return sorted(cpu for cpu in self.cpus if not self.owners[cpu])


PLAN_MACHINES = ("magny-cours-48", "opteron-6272-64", "westmere-24", "e5-2650-32", "h8qg6-64")
PLAN_POLICIES = ("per core", "per node", "per package")


def sound_plan(rng) -> Plan:
    machine = Machine.load(rng.choice(PLAN_MACHINES))
    policy, kernels = rng.choice(PLAN_POLICIES), rng.choice((None, 3, 5, 8))
    groups = [list(group) for group in grouping.group(machine, policy, kernels)]
    return Plan(groups, list(machine.cpus))


def two_groups(rng, plan: Plan) -> tuple[list[int], list[int]]:
    return tuple(rng.sample(plan.groups, 2))


def also_in_another(rng, plan):
    """A CPU is in two kernels."""
    one, other = two_groups(rng, plan)
    other.append(rng.choice(one))


def in_three(rng, plan):
    """A CPU is in three kernels: still one CPU that is owned more than once."""
    one, two, three = rng.sample(plan.groups, 3) if len(plan.groups) > 2 else [*plan.groups, []]
    cpu = rng.choice(one)
    two.append(cpu)
    three.append(cpu)


def forgotten(rng, plan):
    """A CPU is in no kernel."""
    group = rng.choice(plan.groups)
    group.remove(rng.choice(group))


def moved_and_copied(rng, plan):
    """One CPU too many here, one too few there: the numbers of CPUs add up."""
    also_in_another(rng, plan)
    free = [group for group in plan.groups if any(plan.owners[cpu] == 1 for cpu in group)]
    group = rng.choice(free)
    group.remove(rng.choice([cpu for cpu in group if plan.owners[cpu] == 1]))


def a_kernel_forgotten(rng, plan):
    """A whole kernel's line was lost."""
    del plan.groups[rng.randrange(1, len(plan.groups))]


def listed_twice(rng, plan):
    """One kernel lists a CPU twice: clumsy, and still owned once."""
    group = rng.choice(plan.groups)
    group.append(group[0])


def out_of_order(rng, plan):
    """The same groups in another order: still sound."""
    rng.shuffle(plan.groups)
    for group in plan.groups:
        rng.shuffle(group)


def untouched(rng, plan):
    """As the policy made it."""


PLANTS: tuple[Callable, ...] = (
    also_in_another, untouched, forgotten, moved_and_copied, listed_twice, in_three,
    a_kernel_forgotten, out_of_order,
)  # fmt: skip


def broken_plan(variant: Variant) -> Plan:
    """The plan that the student looks at: one CPU too many in one place, one too few in another."""
    rng = variant.rng("broken plan")
    plan = Plan(
        [list(g) for g in grouping.group(Machine.load("dl165g7-16"), "per node")], list(range(16))
    )
    moved_and_copied(rng, plan)
    return plan


class Looked(NamedTuple):
    plant: Callable
    plan: Plan
    said: list[list[int]]


class Owned:
    """A student's wrongly_owned(), let loose on sound and unsound plans."""

    ROUNDS = {"public": 2, "fresh": 4}

    def __init__(self, function: Callable, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[str, list[Looked]] = {}
        self.of("public")

    def of(self, name: str) -> list[Looked]:
        if name not in self._done:
            rng = self.variant.rng(f"owned {name}")
            self._done[name] = [
                self._looked(plant, rng) for _ in range(self.ROUNDS[name]) for plant in PLANTS
            ]
        return self._done[name]

    def _looked(self, plant: Callable, rng) -> Looked:
        plan = sound_plan(rng)
        plant(rng, plan)
        said = call(self.function, plan.groups, plan.cpus, returns=object)
        if not (_is_groups(said) and len(said) == 2):
            raise StudentCodeError(
                f"{self.function.__name__} returned {said!r:.40}; expected two lists of CPU "
                "numbers: those owned twice, and those owned by none"
            )
        return Looked(plant, plan, said)


def names_them(which: int, name: str):
    """``which`` 0: owned twice; 1: owned by none. Finds count for it, false alarms against it."""

    def holds(owned, variant):
        looked = owned.of(name)
        truth = [(one, (one.plan.twice, one.plan.nobody)[which]) for one in looked]
        bad, good = [t for t in truth if t[1]], [t for t in truth if not t[1]]
        found = sum(sorted(set(one.said[which])) == right for one, right in bad)
        alarms = [one for one, _ in good if one.said[which]]
        if found == len(bad) and not alarms:
            return None
        share = found / len(bad) - len(alarms) / len(good)
        said = f"{found} of {len(bad)} named exactly, {len(alarms)} false alarms."
        if name == "fresh":
            return Miss(said, share=share)
        return Miss(f"{said} {_example(truth, which)}", share=share)

    return holds


def _example(truth, which: int) -> str:
    one, right = next(t for t in truth if sorted(set(t[0].said[which])) != t[1])
    kind = ("owned twice", "owned by none")[which]
    mine = cpu_list(set(one.said[which])) or "none"
    return (
        f"In one plan of {len(one.plan.groups)} kernels, CPUs {kind}: {cpu_list(right) or 'none'}. "
        f"You said: {mine}. ({_why(one.plant)}.)"
    )


def _why(plant: Callable) -> str:
    return (plant.__doc__ or "").strip().rstrip(".")


def named_in_fresh_plans(owned, variant):
    for which in (0, 1):
        if miss := names_them(which, "fresh")(owned, variant):
            return miss


# -- f4's two halves -------------------------------------------------------------------------------


class TargetsAndWhy(NamedTuple):
    targets: Targets | Unusable
    why: str | None
    slip: str  # what is wrong with the reason, if it is none of the choices


class Unusable:
    """In place of a function that is open, or stopped: the reason is judged all the same."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence

    def case(self, name: str, policy: str):
        raise StudentCodeError(self.sentence)


def ask_targets(answer, variant: Variant) -> TargetsAndWhy:
    why, slip = answer.get("why"), unfit(answer, ["why"]).get("why", "")
    try:
        function = answer["ipi_targets"]
        targets = Targets(function, variant) if function else Unusable(OPEN)
    except PopcornError as problem:
        targets = Unusable(str(problem))
    return TargetsAndWhy(targets, why, slip)

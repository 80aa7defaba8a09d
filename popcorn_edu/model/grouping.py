"""Which CPUs form a kernel: policies that divide a machine, what a division costs, how CPUs are
named when one kernel interrupts another.

    m = Machine.load("magny-cours-48")
    groups = group(m, "per node", kernels=4)   # ((0, …, 11), (12, …, 23), …): kernel 0 first
    problems(m, groups)                        # []: or one sentence for each thing that is wrong
    cost(m, groups).mean_ns                    # 853: one message, between any two of the kernels
    view(m, groups)                            # all of it as a table

A grouping is a tuple of groups, a group an ascending tuple of CPU numbers. Group k is kernel k;
kernel 0 is the primary, which the firmware starts on the boot CPU. More kernels are not always
faster (misconception M16): what was a cache line between two CPUs becomes a message between two
kernels, and every kernel shakes hands with every other.

Words
    natural group  what a policy finds in the machine: its nodes, its packages, …
    unit           what goes to a kernel as a whole: a core with all its threads, as long as there
                   are no more kernels than cores
    first CPU      the lowest of a kernel's CPUs. There it reads its ring, and Popcorn's second
                   generation (G2) takes the number for the kernel's own
    shorthand      an interrupt without an address: "self", "all", "all but self"

Popcorn's mpart has three policies: one kernel per core (the default; NUMA ignored or, in a second
form, memory taken from the core's node), and one kernel per NUMA node. Facts: popcorn-facts 2,
check-ins 5.3. The other policies are ours.

Left out: offline CPUs get no kernel and hear no interrupt; a kernel with several rings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import combinations, groupby
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.costs import html_table
from popcorn_edu.model.cut import Spots, balanced_cut, in_runs
from popcorn_edu.model.machine import Machine, as_machine
from popcorn_edu.model.topology import CPUS_AT_MOST, cpu_list

Group = tuple[int, ...]
Groups = tuple[Group, ...]

LOGICAL_FLAT_CPUS_AT_MOST = 8  # [C] apic_flat_64.c: more possible CPUs take the physical driver
G1_CPUS_AT_MOST = 64  # [C] POPCORN_MAX_CPUS, include/linux/multikernel.h
REMARKS_SHOWN = 5  # in a notebook
SHORTHANDS = ("self", "all", "all but self")

MESSAGE_CYCLES = ("ring_put_cycles", "message_copy_cycles", "callback_dispatch_cycles")
MESSAGE_TRANSFERS = ("ring_put_transfers", "ring_get_transfers")


# -- the policies ----------------------------------------------------------------------------------


def per_core(machine: Machine, kernels: int | None = None, cpus=None) -> Groups:
    """A kernel for each core; a core's threads stay together."""
    return _fitted(machine, cpus, _place(machine, "core"), kernels, "core")


def per_node(machine: Machine, kernels: int | None = None, cpus=None) -> Groups:
    """A kernel for each NUMA node that has CPUs: all its memory is near."""
    return _fitted(machine, cpus, machine.node_of, kernels, "NUMA node")


def per_package(machine: Machine, kernels: int | None = None, cpus=None) -> Groups:
    """A kernel for each package."""
    return _fitted(machine, cpus, machine.package_of, kernels, "package")


def per_cache(
    machine: Machine, kernels: int | None = None, cpus=None, level: int | None = None
) -> Groups:
    """A kernel for each cache of a level: the outermost that there are several of, if none is
    named. A CPU without a cache of that level stays with its core."""
    levels: dict[int, dict[int, object]] = {}
    for at, cache in enumerate(machine.caches):
        if cache.kind != "instruction":
            levels.setdefault(cache.level, {}).update(dict.fromkeys(cache.cpus, at))
    if not levels:
        raise PopcornError(
            f'The topology of {machine.name} names no caches; another policy than "per cache" was '
            "expected."
        )
    if level is None:
        shared = [n for n, owner in levels.items() if len(set(owner.values())) > 1]
        level = max(shared or levels)
    if type(level) is not int or level not in levels:
        known = ", ".join(map(str, sorted(levels)))
        raise PopcornError(f"{machine.name} has no caches of level {level!r}; it has {known}.")
    owner, core = levels[level], _place(machine, "core")
    return _fitted(
        machine,
        cpus,
        lambda cpu: owner.get(cpu, ("no cache", core(cpu))),
        kernels,
        f"level {level} cache",
    )


def per_kind(machine: Machine, kernels: int | None = None, cpus=None) -> Groups:
    """A kernel for each kind of CPU, as on a machine with big and little cores or with two ISAs:
    no kernel has to cope with a mixture. Kinds are never merged."""
    if not machine.cpu_kinds:
        raise PopcornError(
            f"The topology of {machine.name} says of no CPU what kind it is; another policy than "
            '"per kind" was expected.'
        )
    kind_of = {cpu: at for at, kind in enumerate(machine.cpu_kinds) for cpu in kind.cpus}
    return _fitted(machine, cpus, lambda cpu: kind_of.get(cpu, -1), kernels, "CPU kind", False)


def by_hand(machine: Machine, kernels: int | None = None, cpus=None, lists=()) -> Groups:
    """Your own groups: CPU lists as Linux writes them ("0-5,12"), or numbers. ``problems`` says
    what is wrong with them; only what cannot be read is refused here."""
    if isinstance(lists, str) or not isinstance(lists, Iterable):
        raise PopcornError(
            f'{lists!r} is no list of groups; one such as ["0-5", "6-11"] was expected.'
        )
    groups = tuple(_read(group, k) for k, group in enumerate(lists))
    if kernels is not None and kernels != len(groups):
        raise PopcornError(f"There are {len(groups)} groups by hand; {kernels!r} were expected.")
    return groups


def least_cost(machine: Machine, kernels: int | None = None, cpus=None) -> Groups:
    """As many cores for each kernel, give or take one, and the close ones together: a balanced
    minimum cut (cut.py), found by a heuristic that is never worse than a balanced policy. Without
    a number it makes as many kernels as there are nodes with CPUs."""
    wanted = _cpus(machine, cpus)
    if kernels is None:
        kernels = len({machine.node_of(cpu) for cpu in wanted})
    number = _kernels(machine, kernels, wanted)
    starts = []
    for policy in (per_node, per_package, per_cache):
        try:
            starts.append(policy(machine, number, wanted))
        except PopcornError:  # no caches known
            continue
    units = _units(machine, wanted, number)
    return _in_order(machine, balanced_cut(machine, units, number, starts))


POLICIES: dict[str, Callable[..., Groups]] = {
    "per core": per_core,
    "per node": per_node,
    "per package": per_package,
    "per cache": per_cache,
    "per kind": per_kind,
    "by hand": by_hand,
    "least cost": least_cost,
}


def group(
    machine: Machine | str, policy: str = "per node", kernels: int | None = None, **options
) -> Groups:
    """The CPUs of a machine (or of the one that has this name) divided by a policy, by its name.

    kernels  so many, instead of as many as the policy finds: neighbours are merged, or groups
             split along their cores
    cpus     only these CPUs, such as machine.allowed_cpus; else all that are online
    level    of the caches, for "per cache"
    lists    the groups themselves, for "by hand"
    """
    if policy not in POLICIES:
        raise PopcornError(f"There is no policy {policy!r}; {near_names(policy, POLICIES)}")
    allowed = {"cpus", "level"} if policy == "per cache" else {"cpus"}
    allowed |= {"lists"} if policy == "by hand" else set()
    for name in options:
        if name not in allowed:
            raise PopcornError(
                f'The policy "{policy}" has no option {name!r}; {near_names(name, allowed)}'
            )
    return POLICIES[policy](as_machine(machine), kernels, **options)


# -- is it a division of the machine? --------------------------------------------------------------


def problems(machine: Machine | str, groups, cpus=None) -> list[str]:
    """All that is wrong with a grouping, a sentence each; an empty list if nothing is.

    ``cpus`` are those to share out, if not all that are online.
    """
    machine = as_machine(machine)
    wanted = _cpus(machine, cpus)
    if isinstance(groups, str) or not isinstance(groups, Sequence) or not groups:
        return [f"{groups!r:.60} is no grouping; a list with at least one group was expected."]
    found: list[str] = []
    owners: dict[int, list[int]] = {}
    for kernel, members in enumerate(groups):
        found += _group_problems(machine, kernel, members, wanted, owners)
    for cpu, kernels in sorted(owners.items()):
        if len(set(kernels)) > 1:
            found.append(
                f"CPU {cpu} is in kernels {_and(sorted(set(kernels)))}; one kernel was expected."
            )
    if missing := [cpu for cpu in wanted if cpu not in owners]:
        found.append(f"{_named(missing)} in no kernel; each was expected in one.")
    owner = owners.get(machine.bsp, [])
    if owner and 0 not in owner:
        found.append(
            f"CPU {machine.bsp}, the boot CPU, is in kernel {owner[0]}; it was expected in kernel "
            "0, the primary, which the firmware starts there."
        )
    return found


def _group_problems(machine, kernel, members, wanted, owners) -> list[str]:
    if isinstance(members, str) or not isinstance(members, Iterable):
        return [f"Kernel {kernel} is {members!r:.60}; a list of CPU numbers was expected."]
    members = list(members)
    numbers = [cpu for cpu in members if type(cpu) is int]
    found = [
        f"Kernel {kernel} lists {cpu!r:.40}; a CPU number was expected."
        for cpu in members
        if type(cpu) is not int
    ]
    if not members:
        found.append(f"Kernel {kernel} has no CPU; at least one was expected.")
    for cpu, times in sorted(Counter(numbers).items()):
        if times > 1:
            found.append(f"Kernel {kernel} lists CPU {cpu} {times} times; once was expected.")
    online, offline, known = set(machine.cpus), set(machine.offline_cpus), set(wanted)
    for cpu in numbers:
        owners.setdefault(cpu, []).append(kernel)
    numbers = sorted(set(numbers))
    if off := [cpu for cpu in numbers if cpu in offline]:
        found.append(f"Kernel {kernel}: {_named(off)} offline; online CPUs were expected.")
    if strange := [cpu for cpu in numbers if cpu not in online | offline]:
        shown = ", ".join(f"CPU {cpu}" for cpu in strange[:4]) + ", …" * (len(strange) > 4)
        found.append(
            f"Kernel {kernel}: {machine.name} has no {shown}; its CPUs are "
            f"{cpu_list(machine.cpus)}."
        )
    if others := [cpu for cpu in numbers if cpu in online and cpu not in known]:
        found.append(
            f"Kernel {kernel}: {_named(others)} not among those to share out, {cpu_list(wanted)}."
        )
    return found


def remarks(machine: Machine, groups: Groups) -> list[str]:
    """What is worth knowing of a grouping and wrong for nobody, a sentence each."""
    owner = {cpu: kernel for kernel, members in enumerate(groups) for cpu in members}
    kind_of = {cpu: at for at, kind in enumerate(machine.cpu_kinds) for cpu in kind.cpus}
    found = []
    for core in machine.cores:
        if len(sharing := sorted({owner[cpu] for cpu in core.cpus if cpu in owner})) > 1:
            found.append(
                f"Kernels {_and(sharing)} share a core: CPUs {cpu_list(core.cpus)} are its threads "
                "and slow each other down."
            )
    for kernel, members in enumerate(groups):
        if len({kind_of.get(cpu) for cpu in members}) > 1:
            found.append(f"Kernel {kernel} has CPUs of several kinds.")
    if (highest := max(owner, default=0)) >= G1_CPUS_AT_MOST:
        found.append(
            f"CPU {highest} is beyond G1, whose tables have {G1_CPUS_AT_MOST} rows, for CPUs 0 to "
            f"{G1_CPUS_AT_MOST - 1} (POPCORN_MAX_CPUS)."
        )
    return found


# -- what it costs ---------------------------------------------------------------------------------


def check_ins(kernels: int) -> int:
    """Messages until all know each other: each new kernel greets all that are there already."""
    return kernels * (kernels - 1) // 2


def message_ns(machine: Machine, sender: int, receiver: int) -> int:
    """One message on the hot path, from CPU to CPU, one way: see ``message_formula``."""
    return _overhead_ns(machine) + _transfers(machine) * machine.transfer_ns(sender, receiver)


def message_formula(machine: Machine) -> str:
    """How ``message_ns`` is made up, and how we know."""
    costs, (put, get) = machine.costs, MESSAGE_TRANSFERS
    cycles = " + ".join(str(costs[name].value) for name in MESSAGE_CYCLES)
    return (
        f"A message is {costs[put].value} cache lines to put it into the ring, {costs[get].value} "
        f"to get it out (derived from struct pcn_kmsg_window), and {cycles} cycles for the "
        "sender's instructions, copying and the callback (model defaults). The receiver polls "
        "already, so there is no interrupt."
    )


class GroupingCost(NamedTuple):
    """What a grouping costs; all times are results of the model.

    A message goes from any CPU of one kernel to the first CPU of another: each pair of kernels
    counts the mean over the sender's CPUs.
    """

    kernels: int
    check_ins: int
    mean_ns: int | None  # a message, over all pairs of kernels; None if there is only one
    worst_ns: int | None  # the dearest pair
    worst_pair: tuple[int, int] | None  # sender, receiver
    inside_ns: int | None  # a cache line between two CPUs of one kernel; None if all have one CPU
    nodes: tuple[tuple[int, ...], ...]  # the node ids that each kernel's CPUs are in
    local_percent: tuple[int, ...]  # of a kernel's accesses to its own memory, those to its node
    memory_bytes: tuple[int, ...]  # each kernel's share, if a node's memory goes by its CPUs


def cost(machine: Machine | str, groups: Groups) -> GroupingCost:
    """What this grouping costs. It must be sound: the first of its problems is refused."""
    machine = as_machine(machine)
    if found := problems(machine, groups, cpus=_all_named(machine, groups)):
        raise PopcornError(found[0])
    spots = Spots(machine)
    groups = tuple(tuple(sorted(members)) for members in groups)
    between = _between(spots, groups)
    spread = [Counter(map(machine.node_of, members)) for members in groups]
    return GroupingCost(
        len(groups),
        check_ins(len(groups)),
        between and _rounded(between.mean),
        between and _rounded(between.worst),
        between and between.worst_pair,
        _inside_ns(spots, groups),
        tuple(tuple(sorted(nodes)) for nodes in spread),
        tuple(_local_percent(nodes) for nodes in spread),
        tuple(_memory_bytes(machine, nodes) for nodes in spread),
    )


def exchange_ns(machine: Machine | str, groups: Groups, inside_percent: int) -> int:
    """What one exchange costs on average, if so many of a hundred stay inside a kernel and cost
    a cache line, and the others go to another kernel and cost a message."""
    if type(inside_percent) is not int or not 0 <= inside_percent <= 100:
        raise PopcornError(f"{inside_percent!r} is no percentage; 0 to 100 was expected.")
    found = cost(machine, groups)
    inside = found.inside_ns or 0
    outside = found.mean_ns if found.mean_ns is not None else inside
    return _rounded((inside * inside_percent + outside * (100 - inside_percent)) / 100)


class _Between(NamedTuple):
    mean: float
    worst: float
    worst_pair: tuple[int, int]


def _between(spots: Spots, groups: Groups) -> _Between | None:
    """Messages over all ordered pairs of kernels. Kernels whose CPUs are spread alike cost alike,
    so each sort of pair is looked at once."""
    if len(groups) < 2:
        return None
    alike: dict[tuple, list[int]] = {}
    for kernel, members in enumerate(groups):
        spread = tuple(Counter(spots.of[cpu] for cpu in members).items())
        alike.setdefault((spots.of[members[0]], spread), []).append(kernel)
    overhead, lines = _overhead_ns(spots.machine), _transfers(spots.machine)
    total, worst = 0.0, None
    for (home, _), receivers in alike.items():
        for (_, spread), senders in alike.items():
            same = senders is receivers
            pairs = len(senders) * (len(receivers) - same)
            if not pairs:
                continue
            size = sum(count for _, count in spread)
            line = sum(count * spots.ns[spot][home] for spot, count in spread) / size
            ns = overhead + lines * line
            total += pairs * ns
            pair = senders[0], receivers[same]
            worst = max(worst or (0.0, 0, 0), (ns, -pair[0], -pair[1]))
    ns, sender, receiver = worst
    return _Between(total / (len(groups) * (len(groups) - 1)), ns, (-sender, -receiver))


def _inside_ns(spots: Spots, groups: Groups) -> int | None:
    total, pairs = 0, 0
    for members in groups:
        count = Counter(spots.of[cpu] for cpu in members)
        for spot, n in count.items():
            total += n * (n - 1) // 2 * spots.ns[spot][spot]
        for a, b in combinations(count, 2):
            total += count[a] * count[b] * spots.ns[a][b]
        pairs += len(members) * (len(members) - 1) // 2
    return _rounded(total / pairs) if pairs else None


def _local_percent(nodes: Counter) -> int:
    """If the kernel has memory of each of its nodes by its CPUs there, and uses all of it alike."""
    size = nodes.total()
    return _rounded(100 * sum(n * n for n in nodes.values()) / size**2)


def _memory_bytes(machine: Machine, nodes: Counter) -> int:
    return sum(
        machine.node(node).memory_bytes * n // len(machine.node(node).cpus)
        for node, n in nodes.items()
    )


def _overhead_ns(machine: Machine) -> int:
    return sum(machine.cost_ns(name) for name in MESSAGE_CYCLES)


def _transfers(machine: Machine) -> int:
    return sum(machine.costs[name].value for name in MESSAGE_TRANSFERS)


# -- who is who ------------------------------------------------------------------------------------


class Identity(NamedTuple):
    """The number by which a kernel calls itself."""

    kernel: int
    g1: tuple[int, ...]  # my_cpu = raw_smp_processor_id(): the CPU the code runs on
    g2: int  # Kernel_Id = cpumask_first(cpu_present_mask)
    present_mask: str


def identities(groups: Groups) -> tuple[Identity, ...]:
    """Kernel ids in both generations. In G1 a kernel of several CPUs has several: its source
    calls that "not correct for clustering"."""
    return tuple(
        Identity(kernel, members, min(members), cpu_list(members))
        for kernel, members in enumerate(groups)
    )


def present_masks(groups: Groups) -> tuple[str, ...]:
    """What stands behind present_mask= on each kernel's command line: a list, not a bit mask."""
    return tuple(cpu_list(members) for members in groups)


# -- interrupts ------------------------------------------------------------------------------------


class IpiTarget(NamedTuple):
    """What a sender writes into the destination field of its interrupt command register."""

    cpu: int
    mode: str  # "physical flat" or "logical flat"
    destination: int  # the APIC id, or the bits of the logical destination registers
    how_we_know: str


def addressing(machine: Machine) -> str:
    """The mode: "logical flat" up to eight possible CPUs, else "physical flat"."""
    possible = len(machine.cpus) + len(machine.offline_cpus)
    return "logical flat" if possible <= LOGICAL_FLAT_CPUS_AT_MOST else "physical flat"


def ipi_target(machine: Machine, cpu: int) -> IpiTarget:
    """How one CPU is addressed, alone. In logical flat mode its bit is 1 << CPU number, so the
    numbers must be those of the whole machine: if each kernel counted from 0, two CPUs would have
    the same bit and both would hear."""
    machine.check_cpus([cpu])
    if addressing(machine) == "logical flat":
        return IpiTarget(cpu, "logical flat", 1 << cpu, "Popcorn's source: LDR = 1 << cpu")
    known = cpu in machine.apic_ids
    source = "the firmware's table" if known else "model default: the CPU number"
    return IpiTarget(cpu, "physical flat", machine.apic_id(cpu), source)


def ipi_targets(machine: Machine, groups: Groups, kernel: int, sender: int | None = None):
    """One unicast for each CPU of a kernel, without the sender: how a kernel reaches all its own
    CPUs and nobody else's."""
    _check_kernel(groups, kernel)
    return tuple(ipi_target(machine, cpu) for cpu in groups[kernel] if cpu != sender)


class Heard(NamedTuple):
    """Who hears an interrupt that was sent by shorthand."""

    cpus: tuple[int, ...]
    own: tuple[int, ...]  # of the sending kernel
    foreign: tuple[int, ...]  # of other kernels
    kernels: tuple[int, ...]  # the other kernels that are hit

    def __str__(self) -> str:
        if not self.foreign:
            return f"CPUs {cpu_list(self.cpus) or 'none'} hear it: the kernel's own."
        kernels = "kernel" if len(self.kernels) == 1 else "kernels"
        return (
            f"{len(self.cpus)} CPUs hear it, {len(self.foreign)} of them of {kernels} "
            f"{cpu_list(self.kernels)}, which never asked for it: the vector means something else "
            "there, and an INIT would reset them."
        )


def who_hears(
    machine: Machine, groups: Groups, kernel: int, shorthand: str, cpu: int | None = None
) -> Heard:
    """Which CPUs an interrupt by shorthand reaches when a CPU of this kernel (its first, if none
    is named) sends it. The APICs know no kernels: "all but self" is the whole machine. That must
    be why Popcorn's secondaries boot with no_ipi_broadcast (the reason is our reading)."""
    _check_kernel(groups, kernel)
    sender = groups[kernel][0] if cpu is None else cpu
    if sender not in groups[kernel]:
        raise PopcornError(
            f"CPU {sender!r} is not of kernel {kernel}; one of {cpu_list(groups[kernel])} was "
            "expected."
        )
    if shorthand not in SHORTHANDS:
        raise PopcornError(
            f"There is no shorthand {shorthand!r}; {near_names(shorthand, SHORTHANDS)}"
        )
    everybody = {"self": (sender,), "all": machine.cpus}.get(
        shorthand, tuple(other for other in machine.cpus if other != sender)
    )
    own = tuple(other for other in everybody if other in groups[kernel])
    foreign = tuple(other for other in everybody if other not in groups[kernel])
    hit = tuple(k for k, members in enumerate(groups) if set(members) & set(foreign))
    return Heard(tuple(everybody), own, foreign, hit)


# -- how it looks ----------------------------------------------------------------------------------


class View:
    """A grouping as a table: prints as text, shows as a table in a notebook."""

    HEADINGS = ("kernel", "CPUs", "present_mask=", "Kernel_Id", "nodes", "local memory")

    def __init__(self, machine: Machine, groups: Groups) -> None:
        self.machine, self.groups = machine, groups
        self.problems = problems(machine, groups)
        self.cost = None if self.problems else cost(machine, groups)

    def cells(self) -> list[tuple[str, ...]]:
        if self.cost is None:
            return [("problem", said) for said in self.problems]
        rows = zip(identities(self.groups), self.cost.nodes, self.cost.local_percent, strict=True)
        return [
            (
                f"{who.kernel}" + (" (primary)" if who.kernel == 0 else ""),
                str(len(who.g1)),
                who.present_mask,
                str(who.g2),
                cpu_list(nodes),
                f"{percent} %",
            )
            for who, nodes, percent in rows
        ]

    def headings(self) -> tuple[str, ...]:
        return self.HEADINGS if self.cost else ("", "what is wrong")

    def caption(self) -> str:
        if self.cost is None:
            return f"{self.machine.name}: no sound grouping"
        kernels, greetings = self.cost.kernels, self.cost.check_ins
        return (
            f"{self.machine.name}: {kernels} kernel{'s' * (kernels != 1)}, "
            f"{greetings:,} check-in{'s' * (greetings != 1)}"
        )

    def prices(self) -> str:
        """The times in words; nothing where there are none."""
        said, c = [], self.cost
        if c and c.worst_pair:
            sender, receiver = c.worst_pair
            dearest = f"dearest from kernel {sender} to {receiver}, {c.worst_ns} ns"
            said.append(f"a message {c.mean_ns} ns ({dearest})")
        if c and c.inside_ns is not None:
            said.append(f"a cache line inside a kernel {c.inside_ns} ns")
        return f"On average {', '.join(said)}: results of the model." if said else ""

    def __str__(self) -> str:
        rows = [self.headings(), *self.cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(filter(None, [self.caption(), *lines, self.prices()]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = html_table(self.headings(), self.cells(), self.caption())
        more = f"<p>{escape(self.prices())}</p>" if self.prices() else ""
        if self.cost and self.cost.worst_pair:
            more += f"<p>{escape(message_formula(self.machine))}</p>"
        notes = remarks(self.machine, self.groups) if self.cost else []
        return table + more + "".join(f"<p>{escape(note)}</p>" for note in notes[:REMARKS_SHOWN])


def view(machine: Machine | str, groups: Groups) -> View:
    """The grouping as a table, or the table of its problems."""
    return View(as_machine(machine), groups)


# -- inside: from a machine to its natural groups, and to a number of them -------------------------


def _fitted(machine, cpus, of: Callable, kernels, what: str, merge: bool = True) -> Groups:
    wanted = _cpus(machine, cpus)
    natural: dict[object, list[int]] = {}
    for cpu in _hardware_order(machine, wanted):
        natural.setdefault(of(cpu), []).append(cpu)
    groups = list(natural.values())
    number = len(groups) if kernels is None else _kernels(machine, kernels, wanted)
    if number < len(groups):
        if not merge:
            raise PopcornError(
                f"{machine.name} has {len(groups)} {what}s, which are never merged; at least "
                f"{len(groups)} kernels were expected, not {number}."
            )
        groups = [sum(run, []) for run in in_runs(groups, number)]
    elif number > len(groups):
        groups = _split(machine, groups, number)
    return _in_order(machine, groups)


def _split(machine, groups: list[list[int]], number: int) -> list[list[int]]:
    """Each group into parts along its units; the group with most units a part is split next."""
    units = _units(machine, [cpu for members in groups for cpu in members], number)
    inside = [[unit for unit in units if unit[0] in set(members)] for members in groups]
    parts = [1] * len(groups)
    for _ in range(number - len(groups)):
        at = max(range(len(groups)), key=lambda g: (len(inside[g]) / parts[g], -g))
        parts[at] += 1
    return [
        [cpu for unit in run for cpu in unit]
        for own, count in zip(inside, parts, strict=True)
        for run in in_runs(own, count)
    ]


def _units(machine, cpus: Iterable[int], number: int) -> list[Group]:
    """Cores with their threads; single CPUs once there are more kernels than cores."""
    ordered = _hardware_order(machine, cpus)
    cores = [tuple(run) for _, run in groupby(ordered, _place(machine, "core"))]
    return cores if number <= len(cores) else [(cpu,) for cpu in ordered]


def _hardware_order(machine, cpus: Iterable[int]) -> list[int]:
    return sorted(cpus, key=machine.place)


def _place(machine, what: str) -> Callable[[int], int]:
    """Where a CPU is, in one respect (topology.Place)."""
    return lambda cpu: getattr(machine.place(cpu), what)


def _in_order(machine, groups: Iterable[Iterable[int]]) -> Groups:
    """Ascending groups; the one with the boot CPU is kernel 0, the others go by their first CPU."""
    tidy = sorted(tuple(sorted(members)) for members in groups)
    return tuple(sorted(tidy, key=lambda members: machine.bsp not in members))


def _cpus(machine, cpus) -> Group:
    """The CPUs to share out. What the snapshot's process was allowed to use is no limit: a kernel
    that boots on the bare machine has them all."""
    if cpus is None:
        return machine.cpus
    chosen = tuple(sorted(machine.check_cpus(cpus)))
    if machine.bsp not in chosen:
        raise PopcornError(
            f"The CPUs to share out lack CPU {machine.bsp}, the boot CPU; the primary was expected "
            "to keep it."
        )
    return chosen


def _kernels(machine, kernels, cpus: Group) -> int:
    if type(kernels) is not int or kernels < 1:
        raise PopcornError(
            f"{kernels!r} is no number of kernels; a whole number from 1 up was expected."
        )
    if kernels > len(cpus):
        raise PopcornError(
            f"{machine.name} has {len(cpus)} CPUs to share out; {kernels} kernels would leave some "
            f"without a CPU, so at most {len(cpus)} were expected."
        )
    return kernels


def _read(group, kernel: int) -> Group:
    """One group by hand. "0-5,8" and [0, 1, 8] are both lists; order does not matter."""
    if isinstance(group, str):
        return tuple(sorted(cpu for part in group.split(",") for cpu in _read_part(part, kernel)))
    if type(group) is int:
        return (group,)
    if not isinstance(group, Iterable):
        raise PopcornError(
            f'Kernel {kernel} is {group!r:.40}; a CPU list such as "0-5" was expected.'
        )
    cpus = list(group)
    for cpu in cpus:
        if isinstance(cpu, bool) or not hasattr(cpu, "__index__"):
            raise PopcornError(f"Kernel {kernel} lists {cpu!r:.40}; a CPU number was expected.")
    return tuple(sorted(map(int, cpus)))


def _read_part(part: str, kernel: int) -> range:
    said = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*", part)
    if not said:
        raise PopcornError(
            f'Kernel {kernel}: {part.strip()[:40]!r} is no CPU list; one such as "0-5,8" was '
            "expected."
        )
    low, high = int(said[1]), int(said[2] or said[1])
    if high < low or high > CPUS_AT_MOST:
        raise PopcornError(
            f"Kernel {kernel}: {part.strip()!r} is no range; the lower number was expected first, "
            f"and none above {CPUS_AT_MOST}."
        )
    return range(low, high + 1)


def _check_kernel(groups: Groups, kernel: int) -> None:
    if type(kernel) is not int or not 0 <= kernel < len(groups):
        raise PopcornError(
            f"There is no kernel {kernel!r}; a number from 0 to {len(groups) - 1} was expected."
        )


def _all_named(machine, groups) -> Group | None:
    """All CPUs of a grouping that leaves some out on purpose; None where it is not even sound."""
    try:
        return _cpus(machine, {cpu for members in groups for cpu in members})
    except (PopcornError, TypeError):
        return None


def _named(cpus: list[int]) -> str:
    return f"CPU {cpus[0]} is" if len(cpus) == 1 else f"CPUs {cpu_list(cpus)} are"


def _and(numbers: list[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _rounded(ns: float) -> int:
    return int(ns + 0.5)

"""A plan: which CPUs, which RAM and which devices each kernel of one machine gets.

Popcorn divides a machine before anything boots, and by nothing but command lines: each kernel is
told which CPUs are present, which RAM it may use and which devices it must not touch. So one
object holds the whole division, and every kernel's exact line is written from it.

    plan = Partition.build("h8qg6-64", grouping="per node")
    plan.problems()          # [] or every problem at once, each a sentence
    plan.command_line(3)     # what kernel 3 boots with
    plan = plan.edit(3, cpus="24-30")

Words
    plan      a Partition; an edit makes a new one
    primary   kernel 0: it owns the CPU that booted the machine, and boots the others
    reserve   RAM at the top that no kernel uses by itself; its tenants are vty, tunnel, windows
    problem   what would go wrong when this plan boots; a remark is worth knowing and goes wrong
              for nobody
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model import carving, cmdline, devices, grouping, memory
from popcorn_edu.model.acrn import read_acrn
from popcorn_edu.model.carving import common, spans_of, without
from popcorn_edu.model.costs import html_table
from popcorn_edu.model.e820 import BIOS_END, trimmed
from popcorn_edu.model.firmware import MemoryRange, hex_range, in_words, merged
from popcorn_edu.model.foreign import Foreign
from popcorn_edu.model.kerf import read_kerf
from popcorn_edu.model.machine import Machine, as_machine
from popcorn_edu.model.memory import MemoryPlan, Tenant
from popcorn_edu.model.pci import in_order
from popcorn_edu.model.plan_file import KernelPart, Parts, PlanFile, write_plan
from popcorn_edu.model.plan_words import one_line, read_cpus, read_ranges, read_slot
from popcorn_edu.model.topology import cpu_list

COMMAND_LINE_BYTES = cmdline.LINE_BYTES_AT_MOST
KERNELS_AT_MOST = 64  # POPCORN_MAX_CPUS of the first version (include/linux/multikernel.h)
DIFFERENCES_NAMED = 4  # of a kernel, in one direction
WRONG = ("ignored", "partly ignored", "clamped", "misread", "panics")  # effects of cmdline.Problem
HEADINGS = ("kernel", "CPUs", "nodes", "RAM", "ranges", "devices")


@dataclass(frozen=True)
class KernelPlan:
    """What one kernel gets."""

    name: str
    cpus: tuple[int, ...]
    memory: tuple[MemoryRange, ...]
    devices: tuple[str, ...] = ()  # slots: "0000:02:00.0"
    parameters: str = ""  # more words for its command line

    @property
    def bytes(self) -> int:
        return sum(part.end - part.start for part in self.memory)


@dataclass(frozen=True)
class Partition:
    """One machine, divided. ``kernels[0]`` is the primary."""

    machine: Machine
    kernels: tuple[KernelPlan, ...]
    reserve: tuple[Tenant, ...] = ()
    memory_policy: str = "by hand"  # a key of memory.POLICIES; it says why RAM was lost
    by_slot: bool = False  # our extension: blacklists that name slots, where Popcorn's name ids
    notes: tuple[str, ...] = ()  # where the plan came from, and what an import could not express

    # how plans are made

    @classmethod
    def build(
        cls,
        machine: Machine | str,
        kernels: int | None = None,
        grouping: str | Iterable = "per node",
        memory: str | MemoryPlan | Iterable = "popcorn",
        devices: str | Mapping = "primary",
        names: Iterable[str] = (),
        by_slot: bool = False,
    ) -> Partition:
        """A plan from policies.

        grouping  a name in ``grouping.POLICIES``, or the CPUs of each kernel: ["0-7", "8-15"]
        memory    a name in ``memory.POLICIES``, what ``memory.carve`` made, or each kernel's ranges
        devices   a name in DEVICE_POLICIES, or {slot: kernel number}
        by_slot   blacklists name slots (our extension), so that identical cards can be divided
        """
        machine = as_machine(machine)
        groups = _groups(machine, grouping, kernels)
        carved = _carved(machine, groups, memory)
        owned = _owned(machine, groups, devices)
        names = _names(names, len(groups))
        return cls(
            machine,
            tuple(
                KernelPlan(names[k], cpus, carved.kernels[k], owned[k])
                for k, cpus in enumerate(groups)
            ),
            carved.reserve,
            carved.policy,
            by_slot,
        )

    @classmethod
    def from_acrn(cls, scenario: str | Path, board: str | Path | Machine) -> Partition:
        """An ACRN scenario on its board (a file, a Machine, or the name of one in the kit), as far
        as our words go; ``notes`` says what is lost."""
        if isinstance(board, str) and board in Machine.names():
            board = Machine.load(board)
        return cls._from(read_acrn(scenario, board))

    @classmethod
    def from_kerf(cls, tree: str | Path, machine: Machine | str | None = None) -> Partition:
        """The pool of a kerf device tree as one secondary kernel; ``notes`` says what is lost."""
        return cls._from(read_kerf(tree, None if machine is None else as_machine(machine)))

    @classmethod
    def _from(cls, foreign: Foreign) -> Partition:
        return cls(
            foreign.machine,
            tuple(KernelPlan(*share) for share in foreign.shares),
            notes=foreign.remarks,
        )

    # how they are changed

    def edit(
        self,
        k: int,
        *,
        cpus: str | Iterable[int] | None = None,
        memory: str | Iterable | None = None,
        devices: str | Iterable[str] | None = None,
        name: str | None = None,
        parameters: str | None = None,
    ) -> Partition:
        """The plan with kernel ``k`` changed, and nothing else: what it gets, nobody loses.

        cpus     "0-7,12" or numbers
        memory   "0x100000000-0x1ffffffff, 512M@6G" or MemoryRanges
        devices  "0000:02:00.0, 02:00.1" or slots
        """
        changes: dict = {}
        if cpus is not None:
            changes["cpus"] = read_cpus(cpus)
        if memory is not None:
            changes["memory"] = read_ranges(memory)
            self = replace(self, memory_policy="by hand")
        if devices is not None:
            changes["devices"] = self._slots(devices)
        for field, text in (("name", name), ("parameters", parameters)):
            if text is not None:
                changes[field] = one_line(text, field)
        return self._with(k, replace(self.kernel(k), **changes))

    def give(self, k: int, *, cpus: str | Iterable[int] = (), devices=()) -> Partition:
        """The plan with these CPUs and devices in kernel ``k``, and taken from who had them."""
        self.kernel(k)
        cpus, slots = read_cpus(cpus), self._slots(devices)
        return replace(
            self,
            kernels=tuple(
                replace(
                    kernel,
                    cpus=tuple(sorted({*kernel.cpus, *cpus}))
                    if at == k
                    else tuple(cpu for cpu in kernel.cpus if cpu not in cpus),
                    devices=tuple(sorted({*kernel.devices, *slots}, key=in_order))
                    if at == k
                    else tuple(slot for slot in kernel.devices if slot not in slots),
                )
                if {*cpus, *slots}
                else kernel
                for at, kernel in enumerate(self.kernels)
            ),
        )

    def kernel(self, k: int) -> KernelPlan:
        if not self.kernels:
            raise PopcornError("this plan has no kernel; at least a primary was expected")
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < len(self.kernels):
            raise PopcornError(
                f"there is no kernel {k!r} in this plan; a number from 0 to "
                f"{len(self.kernels) - 1} was expected"
            )
        return self.kernels[k]

    def _with(self, k: int, kernel: KernelPlan) -> Partition:
        return replace(self, kernels=(*self.kernels[:k], kernel, *self.kernels[k + 1 :]))

    def _slots(self, devices: str | Iterable[str]) -> tuple[str, ...]:
        parts = re.split(r"[,\s]+", devices.strip()) if isinstance(devices, str) else devices
        if not isinstance(parts, Iterable):
            raise PopcornError(
                f"{devices!r:.60} is no list of devices; slots such as '0000:02:00.0' were "
                "expected."
            )
        return tuple(
            sorted({read_slot(part, self.machine) for part in parts if part != ""}, key=in_order)
        )

    # what is asked of them

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return tuple(kernel.cpus for kernel in self.kernels)

    @property
    def owners(self) -> dict[str, tuple[int, ...]]:
        """The kernels that each device is given to. In a sound plan it is one each."""
        owners: dict[str, tuple[int, ...]] = {}
        for k, kernel in enumerate(self.kernels):
            for slot in kernel.devices:
                owners[slot] = (*owners.get(slot, ()), k)
        return owners

    @cached_property
    def memory_plan(self) -> MemoryPlan:
        """The memory half, with its own questions: ``losses``, ``accounts()``; ``memory.whose``
        asks it for an address."""
        how = memory.POLICIES[self.memory_policy]
        return MemoryPlan(
            self.machine,
            self.groups,
            self.memory_policy,
            _regions(self),
            MemoryRange(0, memory.LOW_BYTES, "low"),
            self.reserve,
            how.granule,
            max(how.granule, how.align),
        )

    @cached_property
    def blacklists(self) -> tuple[devices.Written, ...]:
        """What each kernel's ``pci_dev_flags=`` says, and what it cannot do."""
        functions = self.machine.pci_functions
        made: dict[tuple[str, ...], devices.Written] = {}
        for kernel in self.kernels:
            if kernel.devices not in made:
                known = [slot for slot in kernel.devices if slot in self._functions]
                made[kernel.devices] = devices.blacklist_for(functions, known, slots=self.by_slot)
        return tuple(made[kernel.devices] for kernel in self.kernels)

    def command_line(self, k: int) -> str:
        """The line that kernel ``k`` boots with."""
        kernel, written = self.kernel(k), self.blacklists[k]
        parameters, names = kernel.parameters, written.names
        if self.by_slot and names:
            parameters, names = f"pci_dev_flags={written.text} {parameters}".strip(), ()
        try:
            return cmdline.write(
                kernel.cpus,
                self.memory_plan.regions[k],
                names,
                primary=k == 0,
                vty_offset=self.memory_plan.vty_offset,
                parameters=parameters,
                machine=self.machine,
            )
        except PopcornError as problem:
            raise PopcornError(f"Kernel {k} has no command line. {problem}") from None

    def problems(self) -> list[str]:
        """Everything that would go wrong, at once: a sentence each, [] if nothing would."""
        if not self.kernels:
            return ["This plan has no kernel; at least a primary was expected."]
        found = [*self._whole_problems(), *grouping.problems(self.machine, self.groups)]
        found += memory.problems(
            self.machine, [kernel.memory for kernel in self.kernels], reserve=self.reserve
        )
        found += devices.problems(
            self.machine.pci_functions,
            self.owners,
            blacklists=dict(enumerate(written.text for written in self.blacklists)),
            kernels=len(self.kernels),
        )
        found += self._line_problems()
        return list(dict.fromkeys(map(_sentence, found)))

    def remarks(self) -> list[str]:
        """What is worth knowing and wrong for nobody."""
        found: list[str] = []
        online = set(self.machine.cpus)
        if self.machine.ram and all(set(cpus) <= online for cpus in self.groups):
            found += self.memory_plan.remarks()
        found += grouping.remarks(self.machine, self.groups)
        found += devices.remarks(self.machine.pci_functions, self.owners)
        return list(dict.fromkeys(map(_sentence, [*found, *self.notes])))

    def _whole_problems(self) -> Iterator[str]:
        count = len(self.kernels)
        if count > KERNELS_AT_MOST:
            yield (
                f"This plan has {count} kernels; Popcorn's first version has room for "
                f"{KERNELS_AT_MOST} (POPCORN_MAX_CPUS)."
            )

    def _line_problems(self) -> Iterator[str]:
        """Each line is read back: what its kernel would see must be what the plan says."""
        for k, kernel in enumerate(self.kernels):
            if not kernel.cpus or not kernel.memory:
                continue  # others say so
            try:
                line = self.command_line(k)
            except PopcornError as problem:
                yield str(problem)
            else:
                yield from self._one_line_problems(k, line)

    def _one_line_problems(self, k: int, line: str) -> Iterator[str]:
        size = len(line.encode())
        if size > COMMAND_LINE_BYTES:
            yield (
                f"Kernel {k}'s command line has {size:,} bytes; at most {COMMAND_LINE_BYTES:,} "
                "were expected, and what is beyond is cut off."
            )
            return
        seen = cmdline.apply(line, self.machine)
        told: set[tuple[str, str]] = set()  # one problem of a kind for each word
        for problem in seen.problems:
            kind = problem.word, problem.effect
            ours = self.by_slot and "@" in problem.word  # our extension, no mistake
            if problem.effect in WRONG and kind not in told and not ours:
                told.add(kind)
                yield f"Kernel {k}'s command line: {problem}."
        if seen.panic:
            yield f"Kernel {k} would not come up with its command line: {seen.panic}."
            return
        yield from self._differences(k, seen)

    def _differences(self, k: int, seen: cmdline.Seen) -> Iterator[str]:
        """Where a kernel would see other CPUs or other RAM than it is to have.

        Of RAM that is none and of CPUs that are not there, other sentences tell.
        """
        kernel, ram = self.kernels[k], spans_of(self.machine.ram)
        known = set(self.machine.cpus)
        cpus = tuple(cpu for cpu in kernel.cpus if cpu in known)
        for found, what in ((seen.present, "see"), (seen.online, "start")):
            if found != cpus:
                yield (
                    f"Kernel {k} would {what} CPUs {cpu_list(found) or 'none'}; CPUs "
                    f"{cpu_list(cpus)} were planned."
                )
                break
        low = self._low_ram if k else ()  # which every secondary sees as well
        mine = common(spans_of(trimmed(merged([*kernel.memory, *low]))), ram)
        theirs = common(spans_of(seen.ram), ram)
        for parts, says in (
            (without(theirs, mine), "would take what is not planned for RAM of its own"),
            (without(mine, theirs), "would not see what is planned to be its RAM"),
        ):
            for start, end in parts[:DIFFERENCES_NAMED]:
                yield f"Kernel {k} {says}: {hex_range(start, end)}, {in_words(end - start)}."

    @cached_property
    def _low_ram(self) -> tuple[MemoryRange, ...]:
        low = [(0, memory.LOW_BYTES)]
        return tuple(MemoryRange(*span) for span in common(spans_of(self.machine.ram), low))

    @cached_property
    def _functions(self) -> set[str]:
        return {function.slot for function in self.machine.pci_functions}

    def __post_init__(self) -> None:
        if not isinstance(self.machine, Machine):
            raise PopcornError(
                f"{self.machine!r:.60} is no machine; Machine.load(...) was expected to make one."
            )
        if isinstance(self.kernels, KernelPlan) or not isinstance(self.kernels, (tuple, list)):
            raise PopcornError(f"{self.kernels!r:.60} is no list of KernelPlans.")
        for k, kernel in enumerate(self.kernels):
            if not isinstance(kernel, KernelPlan):
                raise PopcornError(f"Kernel {k} is {kernel!r:.60}; a KernelPlan was expected.")
        object.__setattr__(self, "kernels", tuple(self.kernels))

    # as a file

    def save(self, path: str | Path) -> Path:
        """Write the plan as a small file that people can read and change."""
        kernels = tuple(
            KernelPart(k.name, k.cpus, k.memory, k.devices, k.parameters) for k in self.kernels
        )
        name, policy = self.machine.name, self.memory_policy
        parts = Parts(name, policy, self.by_slot, kernels, self.reserve, self.notes)
        return write_plan(path, parts)

    @classmethod
    def load(cls, path: str | Path, machine: Machine | str | None = None) -> Partition:
        """Read a saved plan. ``machine``: where it is for a machine that is not in the kit."""
        file = PlanFile(path)
        parts = file.parts()
        machine = _machine_of(file.file, parts.machine) if machine is None else as_machine(machine)
        if machine.name != parts.machine:
            raise PopcornError(
                f"{file.file} divides the machine {parts.machine!r}; {machine.name!r} was given."
            )
        kernels = tuple(
            KernelPlan(
                kernel.name,
                kernel.cpus,
                kernel.memory,
                tuple(file.said(f"kernel {k}", read_slot, s, machine) for s in kernel.devices),
                kernel.parameters,
            )
            for k, kernel in enumerate(parts.kernels)
        )
        rest = parts.reserve, parts.memory_policy, parts.by_slot, parts.notes
        return cls(machine, kernels, *rest)

    # how they look

    def own_name(self, k: int) -> str:
        """What a kernel is called, if it is called anything but its number."""
        name = self.kernel(k).name
        return "" if name == f"kernel {k}" else name

    def rows(self) -> list[tuple[str, ...]]:
        """One row for each kernel: name, CPUs, nodes, RAM, ranges, devices."""
        online = set(self.machine.cpus)
        return [
            (
                f"{k} {self.own_name(k)}".strip(),
                cpu_list(kernel.cpus) or "none",
                cpu_list({self.machine.node_of(cpu) for cpu in kernel.cpus if cpu in online})
                or "none",
                in_words(kernel.bytes),
                ", ".join(hex_range(part.start, part.end) for part in kernel.memory) or "none",
                ", ".join(kernel.devices) or "none",
            )
            for k, kernel in enumerate(self.kernels)
        ]

    def show(self):
        """The plan drawn, to be looked at and edited: see readers/plans.py."""
        from popcorn_edu.readers import plans

        return plans.view(self)

    def caption(self) -> str:
        count = len(self.kernels)
        return f"{self.machine.name}, divided among {count} kernel{'s' * (count != 1)}"

    def __str__(self) -> str:
        lines = [self.caption()]
        for name, cpus, nodes, size, ranges, slots in self.rows():
            lines += [f"  kernel {name}: CPUs {cpus} (nodes {nodes}); {size} in {ranges}; devices "
                      f"{slots}"]  # fmt: skip
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Partition: {self.caption()}>"

    def _repr_html_(self) -> str:
        return html_table(HEADINGS, self.rows(), self.caption())


# -- policies --------------------------------------------------------------------------------------


def _all_to_the_primary(machine: Machine, groups) -> dict[str, int]:
    """As create_lspci.sh does it: every secondary's list names all devices."""
    return {function.slot: 0 for function in devices.ownable(machine.pci_functions)}


def _near(machine: Machine, groups) -> dict[str, int]:
    """To the first kernel that has a CPU on the device's node, else to the primary."""
    home: dict[int, int] = {}
    for k, cpus in enumerate(groups):
        for cpu in cpus:
            home.setdefault(machine.node_of(cpu), k)
    return {
        function.slot: home.get(function.node, 0)
        for function in devices.ownable(machine.pci_functions)
    }


DEVICE_POLICIES = {"primary": _all_to_the_primary, "near": _near}


def _groups(machine: Machine, how, kernels: int | None) -> grouping.Groups:
    if isinstance(how, str):
        return grouping.group(machine, how, kernels)
    return grouping.by_hand(machine, kernels, lists=how)


def _carved(machine: Machine, groups, how) -> MemoryPlan:
    if isinstance(how, MemoryPlan):
        if len(how.kernels) != len(groups):
            raise PopcornError(
                f"The memory is carved for {len(how.kernels)} kernels; {len(groups)} were expected."
            )
        return how
    if isinstance(how, str):
        return memory.carve(machine, groups, how)
    if not isinstance(how, Iterable):
        raise PopcornError(
            f"{how!r:.60} says of no RAM whose it is; a policy's name or each kernel's ranges, "
            'such as ["4G@4G", ...], were expected.'
        )
    return memory.carve(machine, groups, "by hand", ranges=[read_ranges(part) for part in how])


def _owned(machine: Machine, groups, how) -> list[tuple[str, ...]]:
    """The slots of each kernel."""
    if isinstance(how, str):
        if how not in DEVICE_POLICIES:
            raise PopcornError(
                f"There is no device policy {how!r}; {near_names(how, DEVICE_POLICIES)}"
            )
        how = DEVICE_POLICIES[how](machine, groups)
    elif not isinstance(how, Mapping):
        raise PopcornError(
            f"{how!r:.60} says of no device whose it is; a policy's name or "
            "{slot: kernel number} was expected."
        )
    owned: list[list[str]] = [[] for _ in groups]
    for slot, k in how.items():
        slot = read_slot(slot, machine)
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < len(groups):
            raise PopcornError(
                f"{slot} is to belong to kernel {k!r}; a number from 0 to {len(groups) - 1} was "
                "expected."
            )
        owned[k].append(slot)
    return [tuple(sorted(slots, key=in_order)) for slots in owned]


def _names(names, count: int) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise PopcornError(f"{names!r:.60} is no list of names; one for each kernel was expected.")
    names = [one_line(name, "name") for name in names]
    if len(names) > count:
        raise PopcornError(f"{len(names)} names were given; at most {count} were expected.")
    return names + ["primary" if k == 0 else f"kernel {k}" for k in range(len(names), count)]


def _regions(plan: Partition) -> tuple[tuple[MemoryRange, ...], ...]:
    """Each kernel's ranges as its command line has them.

    mpart joins ranges with a hole between them. A kernel takes what it is given for RAM wherever
    the firmware says nothing else, so they are joined here only where the firmware tells of the
    whole hole; otherwise, and by hand, every range stands for itself.
    """
    if plan.memory_policy == "by hand":
        return tuple(kernel.memory for kernel in plan.kernels)
    told = carving.merged(spans_of(plan.machine.memory_map))
    ram, regions = plan.machine.ram, []
    for k, kernel in enumerate(plan.kernels):
        mine: list[MemoryRange] = []
        for part in kernel.memory:
            last = mine[-1] if mine else None
            if k == 0 and last is None and part.start < memory.LOW_BYTES:
                part = part._replace(start=0)  # the low part is the primary's, and begins at 0
            if last and _joined(last.end, part.start, ram, told):
                mine[-1] = last._replace(end=part.end)
            else:
                mine.append(part)
        regions.append(tuple(mine))
    return tuple(regions)


def _joined(end: int, start: int, ram: Iterable[MemoryRange], told: list) -> bool:
    """Whether two ranges, one ending and the next starting here, may be one on a command line."""
    if start <= BIOS_END:  # Linux leaves out what is below, whatever the map says
        return True
    return not any(piece.start < start and piece.end > end for piece in ram) and not without(
        [(max(end, BIOS_END), start)], told
    )


def _machine_of(file: str, name: str) -> Machine:
    try:
        return Machine.load(name)
    except PopcornError as problem:
        raise PopcornError(
            f"{file} divides a machine that does not come with the kit: {_sentence(str(problem))} "
            "A machine of your own is given as Partition.load(path, machine=...)."
        ) from None


def _sentence(text: str) -> str:
    """A capital in front, where a word is and no file or slot; a full stop behind."""
    if re.match(r"[a-z]+[ ,:]", text):
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."

"""A plan to look at and to edit: CPUs, memory, devices and boot lines, each with a table beside it.

    plans.groups(machine, groups)      # which CPUs form which kernel, and what messages cost
    plans.memory(plan)                 # whose RAM is whose; plans.memory(plan, whose=0x100000)
    plans.devices(plan)                # the PCI tree, owners, blacklists, interrupts
    plans.command_line(line, machine)  # what a line says, and what its kernel sees
    plans.lines(plan)                  # every kernel's line
    plans.view(plan)                   # all of it, linked, to be edited by keyboard or mouse

All but the last make a Drawn: a picture, and tables that say the same. It needs no Python behind
it, so it is as good in a saved page or in nbgrader's feedback. ``view`` makes such a picture too,
and below it, where a kernel runs, the widget (plan_widget.py) that takes its place.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import cmdline
from popcorn_edu.model import devices as device_model
from popcorn_edu.model import grouping as grouping_model
from popcorn_edu.model import memory as memory_model
from popcorn_edu.model.firmware import MIB, hex_range, in_words
from popcorn_edu.model.machine import Machine, as_machine
from popcorn_edu.model.memory import MemoryPlan
from popcorn_edu.model.partition import HEADINGS, WRONG, Partition
from popcorn_edu.model.topology import cpu_list
from popcorn_edu.readers import plan_pictures as pictures

TEXT_ROWS = 80  # of a table, in plain text


class Html(str):
    """A cell that is HTML already."""


class Table(NamedTuple):
    """A caption, headings, and rows of texts; the first cell of a row is its heading."""

    caption: str
    headings: tuple[str, ...]
    rows: list[tuple]

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(h)}</th>' for h in self.headings)
        body = "".join(
            f'<tr><th scope="row">{_cell(row[0])}</th>'
            + "".join(f"<td>{_cell(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<div class="pk-scroll" tabindex="0" role="region" '
            f'aria-label="{escape(self.caption)}"><table>'
            f"<caption>{escape(self.caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def text(self) -> str:
        lines = [self.caption, "  " + " | ".join(self.headings)]
        lines += ["  " + " | ".join(map(_plain, row)) for row in self.rows[:TEXT_ROWS]]
        if len(self.rows) > TEXT_ROWS:
            lines.append(f"  ({len(self.rows) - TEXT_ROWS:,} more rows)")
        return "\n".join(lines)


def _cell(cell) -> str:
    return cell if isinstance(cell, Html) else escape(str(cell))


def _plain(cell) -> str:
    return re.sub(r"<[^>]+>", "", cell) if isinstance(cell, Html) else str(cell)


class Drawn:
    """A picture with its tables; a notebook shows it, ``str()`` is the tables as text."""

    def __init__(
        self,
        title: str,
        pictures: Sequence[tuple[str, str]],
        tables: Sequence[Table],
        says: Sequence[str] = (),
        wrong: Sequence[str] = (),
    ) -> None:
        self.title, self.pictures, self.tables = title, tuple(pictures), tuple(tables)
        self.says, self.wrong = tuple(says), tuple(wrong)

    def fragment(self) -> str:
        """The block without its style, for a page that has it already."""
        return (
            "".join(map(picture_html, self.pictures))
            + "".join(f"<p>{_cell(line)}</p>" for line in self.says)
            + problems_html(self.wrong)
            + "".join(table.html() for table in self.tables)
        )

    def html(self, style: bool = True) -> str:
        """The whole block; without its style where the page has it already."""
        return (
            f'<section class="pk-plan" aria-label="{escape(self.title)}">'
            + f"<style>{css()}</style>" * style
            + f'<p class="pk-title"><b>{escape(self.title)}</b></p>{self.fragment()}'
            + INLINE * bool(self.pictures)
            + "</section>"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __str__(self) -> str:
        lines = [self.title, *map(_plain, self.says), *(f"! {line}" for line in self.wrong)]
        return "\n".join([*lines, *(table.text() for table in self.tables)])

    __repr__ = __str__


def picture_html(picture: tuple[str, str]) -> str:
    """A picture as an image, which even a notebook that is not trusted shows; INLINE makes the
    drawing itself of it, where scripts may run, so that its parts say what they are."""
    caption, drawn = picture
    above = f'<p class="pk-caption">{escape(caption)}</p>' if caption else ""
    label = re.search(r'aria-label="([^"]*)"', drawn)[1]
    data = base64.b64encode(drawn.encode()).decode()
    return (
        f'<div class="pk-picture">{above}<img class="pk-image" alt="{label}" '
        f'src="data:image/svg+xml;base64,{data}"></div>'
    )


INLINE = """<script>
for (const image of document.currentScript.parentElement.querySelectorAll("img.pk-image")) {
  const bytes = Uint8Array.from(atob(image.src.split(",")[1]), (letter) => letter.charCodeAt(0));
  image.outerHTML = new TextDecoder().decode(bytes);
}
</script>"""


def problems_html(problems: Iterable[str], none: str = "") -> str:
    problems = list(problems)
    if not problems:
        return f'<p class="pk-right">{escape(none)}</p>' if none else ""
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    items = "".join(f"<li>{escape(line)}</li>" for line in problems)
    return f'<div class="pk-wrong"><b>{count}</b><ul>{items}</ul></div>'


@cache
def css() -> str:
    return page_file("plans.css")


def page_file(name: str) -> str:
    return resources.files(__package__).joinpath("plans_page", name).read_text(encoding="utf-8")


# -- CPUs ------------------------------------------------------------------------------------------


def groups(plan: Partition | Machine, groups: Iterable | None = None) -> Drawn:
    """Which CPUs form which kernel, and what their messages cost.

    Of a Partition its own groups; of a Machine those that are given ("0-7" or CPU numbers), or
    else all its CPUs as one kernel.
    """
    machine, made = _machine_and_groups(plan, groups)
    wrong = grouping_model.problems(machine, made)
    tables = [groups_table(machine, made)]
    if not wrong:
        tables.insert(0, cost_table(machine, made))
    title = f"{machine.name}: {len(machine.cpus)} CPUs in {_kernels(len(made))}"
    return Drawn(title, [("", pictures.groups_picture(machine, made))], tables, wrong=wrong)


def _machine_and_groups(plan, given) -> tuple[Machine, tuple[tuple[int, ...], ...]]:
    if isinstance(plan, Partition):
        machine, made = plan.machine, plan.groups
    else:
        machine = as_machine(plan)
        made = (machine.cpus,)
    return machine, made if given is None else grouping_model.by_hand(machine, lists=given)


def _kernels(count: int) -> str:
    return f"{count} kernel{'s' * (count != 1)}"


def groups_table(machine: Machine, groups: Sequence[Sequence[int]]) -> Table:
    known = set(machine.cpus)
    rows = []
    for kernel, cpus in enumerate(groups):
        here = [cpu for cpu in cpus if cpu in known]
        rows.append(
            (
                Html(f"{pictures.chip(kernel)}{' primary' * (kernel == 0)}"),
                len(cpus),
                cpu_list(cpus) or "none",
                min(cpus) if cpus else "",
                cpu_list({machine.node_of(cpu) for cpu in here}) or "none",
                cpu_list({machine.package_of(cpu) for cpu in here}) or "none",
            )
        )
    alone = sorted(known - {cpu for cpus in groups for cpu in cpus})
    if alone:
        rows.append((Html(pictures.chip(None)), len(alone), cpu_list(alone), "", "", ""))
    headings = ("kernel", "CPUs", "which", "Kernel_Id", "nodes", "packages")
    return Table("Which CPUs form which kernel", headings, rows)


def cost_table(machine: Machine, groups) -> Table:
    """What the grouping costs, in the model's times."""
    cost = grouping_model.cost(machine, groups)
    rows = [("check-ins until all kernels know each other", f"{cost.check_ins:,}")]
    if cost.mean_ns is not None:
        sender, receiver = cost.worst_pair
        rows += [
            ("a message between two kernels, mean", f"{cost.mean_ns:,} ns"),
            ("the dearest", f"{cost.worst_ns:,} ns, from kernel {sender} to kernel {receiver}"),
        ]
    if cost.inside_ns is not None:
        rows.append(("a cache line between two CPUs of one kernel, mean", f"{cost.inside_ns} ns"))
    spread = [(len(nodes), k) for k, nodes in enumerate(cost.nodes)]
    most, kernel = max(spread, key=lambda pair: (pair[0], -pair[1]))
    wide = f"{most}, by kernel {kernel}" if most > 1 else "1"
    rows.append(("NUMA nodes that one kernel spans, at most", wide))
    return Table("What it costs (times are results of the model)", ("what", "how much"), rows)


# -- memory ----------------------------------------------------------------------------------------


def memory(
    plan: Partition | MemoryPlan,
    start: int | None = None,
    end: int | None = None,
    whose: int | None = None,
) -> Drawn:
    """Whose RAM is whose. ``start`` and ``end`` zoom in; ``whose`` asks for one address."""
    plan = _memory_plan(plan)
    top = pictures.top_of(plan)
    window = 0 if start is None else start, top if end is None else end
    if not all(type(at) is int for at in window) or not 0 <= window[0] < window[1]:
        raise PopcornError(
            f"the bar cannot show addresses from {start!r} to {end!r}; whole numbers, the lower "
            "one first, were expected"
        )
    drawn = memory_pictures(plan, *window)
    says = [] if whose is None else [str(memory_model.whose(plan, whose))]
    title = (
        f"{plan.machine.name}: {in_words(sum(r.end - r.start for r in plan.machine.ram))} of RAM "
        f"for {_kernels(len(plan.regions))}, {plan.policy} policy"
    )
    return Drawn(title, drawn, [accounts_table(plan), memory_table(plan)], says)


def memory_pictures(plan: MemoryPlan, start: int, end: int) -> list[tuple[str, str]]:
    """The window; under the whole bar also its ends, which are too small to be seen there."""
    drawn = [("", pictures.memory_picture(plan, start, end, uid="pk-bar"))]
    if (start, end) == (0, pictures.top_of(plan)):
        for caption, uid, part in (
            ("The low part, enlarged", "pk-low", plan.low),
            ("The first MiB, where the trampoline is", "pk-one", plan.low._replace(end=MIB)),
            ("The reserve, enlarged", "pk-top", plan.reserved),
        ):
            if part.start < part.end:
                drawn.append((caption, pictures.memory_picture(plan, *part[:2], uid=uid)))
    return drawn


def _memory_plan(plan) -> MemoryPlan:
    if isinstance(plan, Partition):
        return plan.memory_plan
    if not isinstance(plan, MemoryPlan):
        raise PopcornError(f"{plan!r:.60} is no plan; a Partition or a MemoryPlan was expected.")
    return plan


def memory_table(plan: MemoryPlan) -> Table:
    """The bar as a table, from low to high addresses."""
    low, rows = plan.low, []
    if low.end:
        things = ", ".join(f"{t.name} at {t.start:#x}" for t in memory_model.LOW_TENANTS)
        says = f"low memory, seen by all: {things}"
        rows.append((low.start, low.end, Html(pictures.chip(0)), says))
    for kernel, mine in enumerate(plan.kernels):
        for start, end, _ in mine:
            start = max(start, low.end) if kernel == 0 else start
            if start < end:
                what = "primary" if kernel == 0 else "secondary"
                rows.append((start, end, Html(pictures.chip(kernel)), what))
    for tenant in plan.reserve:
        rows.append((tenant.start, tenant.end, "reserve", f"{tenant.name}: {tenant.source}"))
    for loss in plan.losses:
        why = memory_model.LOSSES[loss.reason]
        rows.append((loss.start, loss.end, Html(pictures.chip(None)), f"lost: {why}"))
    for start, end in _holes(plan):
        rows.append((start, end, "hole", "no RAM"))
    rows.sort(key=lambda row: row[:2])
    nodes = plan.machine.node_at
    return Table(
        "Whose addresses are whose",
        ("addresses", "size", "whose", "what", "node"),
        [
            (hex_range(start, end), in_words(end - start), whose, what,
             "" if whose == "hole" else _node(nodes(start)))
            for start, end, whose, what in rows
        ],
    )  # fmt: skip


def _node(node: int | None) -> str:
    return "" if node is None else str(node)


def _holes(plan: MemoryPlan) -> list[tuple[int, int]]:
    ram = plan.machine.ram
    return [
        (one.end, other.start)
        for one, other in zip(ram, ram[1:], strict=False)
        if one.end >= plan.low.end
    ]


def accounts_table(plan: MemoryPlan) -> Table:
    rows = [(row.what, in_words(row.bytes), f"{row.bytes:,}", row.why) for row in plan.accounts()]
    return Table("Every byte of RAM, once", ("what", "size", "bytes", "why"), rows)


# -- devices ---------------------------------------------------------------------------------------


QUIRKS = (
    "Popcorn's blacklist knows ids and no slots, so of two cards with one id it hides both or "
    f"neither; it has {device_model.BLACKLIST_ENTRIES} places, and what is beyond is dropped "
    "without a word; and a card whose function 0 is hidden is hidden whole."
)


def devices(plan: Partition) -> Drawn:
    """The PCI tree with its owners, each kernel's blacklist, and where interrupts go."""
    if not isinstance(plan, Partition):
        raise PopcornError(f"{plan!r:.60} is no plan; a Partition was expected.")
    functions = plan.machine.pci_functions
    title = f"{plan.machine.name}: {len(functions)} PCI functions for {_kernels(len(plan.kernels))}"
    if not functions:
        return Drawn(title, [], [], [f"No PCI listing of {plan.machine.name} is known."])
    says = [f"The letters: {pictures.device_letters(functions)}.", QUIRKS]
    return Drawn(
        title,
        [("", pictures.device_picture(plan.machine, plan.owners, len(plan.kernels)))],
        [device_table(plan), blacklist_table(plan)],
        says,
        device_problems(plan),
    )


def device_problems(plan: Partition) -> list[str]:
    lists = dict(enumerate(written.text for written in plan.blacklists))
    functions = plan.machine.pci_functions
    return device_model.problems(
        functions, plan.owners, blacklists=lists, kernels=len(plan.kernels)
    )


def device_table(plan: Partition) -> Table:
    routes = routes_of(plan)
    rows = []
    for depth, function in pictures.tree_rows(plan.machine.pci_functions):
        who = plan.owners.get(function.slot, ())
        if device_model.is_exempt(function):
            owner = "every kernel looks through it"
        else:
            owner = Html(" ".join(map(pictures.chip, who)) or pictures.chip(None))
        rows.append(
            (
                Html("&nbsp;&nbsp;" * depth + ("└ " if depth else "") + escape(function.slot)),
                pictures.letter_of(function)[0],
                f"{function.kind}: {function.name}" if function.name else function.kind,
                function.vendor_device,
                function.driver,
                owner,
                routes.get(function.slot, ""),
            )
        )
    headings = ("slot", "kind", "what", "id", "driver", "owner", "interrupt")
    return Table("PCI functions, bridges with what is behind them", headings, rows)


def routes_of(plan: Partition) -> dict[str, str]:
    """In words, where each owned function's interrupt goes."""
    owners = {slot: who[0] for slot, who in plan.owners.items() if plan.kernels[who[0]].cpus}
    known = set(plan.machine.cpus)
    groups = {k: [c for c in cpus if c in known] for k, cpus in enumerate(plan.groups)}
    owners = {slot: k for slot, k in owners.items() if groups[k]}
    said = {}
    for route in device_model.routes(plan.machine, owners, groups):
        wire = f", IO-APIC {route.io_apic} pin {route.pin}" if route.io_apic is not None else ""
        line = f" {route.irq}" if route.irq is not None else ""
        said[route.slot] = f"{route.how}{line}{wire} to CPU {route.cpu}"
    return said


def blacklist_table(plan: Partition) -> Table:
    rows = []
    for kernel, written in enumerate(plan.blacklists):
        wrong = "; ".join([*written.cannot, *written.notes])
        count = f"{len(written.names)} of {device_model.BLACKLIST_ENTRIES} entries"
        rows.append(
            (
                Html(pictures.chip(kernel)),
                count,
                breakable(written.text or "empty: it drives all"),
                wrong,
            )
        )
    headings = ("kernel", "room", "pci_dev_flags=", "what it cannot do")
    return Table("What each kernel is told not to drive", headings, rows)


def breakable(text: str) -> Html:
    """A list that a line may break after any comma."""
    return Html(escape(text).replace(",", ",<wbr>"))


# -- command lines ---------------------------------------------------------------------------------


def command_line(line: str | Partition, machine: Machine | str | int | None = None) -> Drawn:
    """What a line says, word by word, and what its kernel sees of the machine.

    ``command_line("present_mask=5 mem=7G", machine)``, or ``command_line(plan, 3)`` for a plan's.
    """
    if isinstance(line, Partition):
        line, machine = line.command_line(0 if machine is None else machine), line.machine
    if not isinstance(line, str):
        raise PopcornError(f"{line!r:.60} is no command line; a text was expected.")
    machine = Machine.default() if machine is None else as_machine(machine)
    seen = cmdline.apply(line, machine)
    wrong = [f"It would not come up: {seen.panic}."] if seen.panic else []
    wrong += [f"{problem}." for problem in seen.problems if problem.effect in WRONG]
    title = f"A command line of {len(line.encode('utf-8', 'replace')):,} bytes, on {machine.name}"
    return Drawn(title, [], [words_table(seen), seen_table(seen)], wrong=wrong)


def lines(plan: Partition) -> Drawn:
    """What each kernel boots with."""
    rows = []
    for k, kernel in enumerate(plan.kernels):
        line = plan.command_line(k) if kernel.cpus and kernel.memory else "none"
        rows.append((Html(pictures.chip(k)), plan.own_name(k), breakable(line)))
    table = Table("What each kernel boots with", ("kernel", "name", "command line"), rows)
    return Drawn(f"{plan.machine.name}: command lines", [], [table])


def words_table(seen: cmdline.Seen) -> Table:
    """Each word of the line, whose parameter it is, and what the kernel does with it."""
    complaints: dict[int, list[str]] = {}
    for problem in seen.problems:
        says = f"{problem.says} (Linux {problem.linux})"
        complaints.setdefault(problem.place, []).append(f"{problem.effect}: {says}")
    rows = []
    for word in seen.line.parameters:
        explained = word.explain().removeprefix(f"{word.text}: ")
        rows.append(
            (breakable(word.text), word.owner, explained, "; ".join(complaints.get(word.place, [])))
        )
    if seen.line.arguments:
        rows.append((f"-- {' '.join(seen.line.arguments)}", "init", "arguments for init", ""))
    headings = ("word", "whose", "what the kernel does with it", "what is wrong")
    return Table("Word by word", headings, rows)


def seen_table(seen: cmdline.Seen) -> Table:
    ram = "; ".join(
        f"{hex_range(part.start, part.end)}, {in_words(part.end - part.start)}" for part in seen.ram
    )
    rows = [
        ("CPUs present", cpu_list(seen.present) or "none"),
        ("CPUs started", cpu_list(seen.online) or "none"),
        ("RAM", ram or "none"),
        ("all of it", in_words(sum(part.end - part.start for part in seen.ram))),
        ("devices left alone", ", ".join(seen.hidden) or "none"),
        ("I/O APICs", "used" if seen.io_apic else "left alone"),
    ]
    for name, cpus in (("isolated CPUs", seen.isolated), ("CPUs without a tick", seen.nohz_full)):
        if cpus:
            rows.append((name, cpu_list(cpus)))
    rows += [("note", note) for note in seen.notes]
    return Table("What its kernel sees", ("what", "which"), rows)


# -- all of it -------------------------------------------------------------------------------------


def picture(plan: Partition) -> Drawn:
    """The whole plan as one picture with its tables."""
    machine = plan.machine
    drawn = [("CPUs", pictures.groups_picture(machine, plan.groups))]
    if machine.ram:
        memory_plan = plan.memory_plan
        bar = pictures.memory_picture(memory_plan, uid="pk-all")
        drawn.append(("Memory", bar))
    if machine.pci_functions:
        letters = pictures.device_letters(machine.pci_functions)
        strip = pictures.device_picture(machine, plan.owners, len(plan.kernels))
        drawn.append((f"Devices ({letters})", strip))
    return Drawn(plan.caption(), drawn, [plan_table(plan)], wrong=plan.problems())


def plan_table(plan: Partition) -> Table:
    rows = [
        (Html(f"{pictures.chip(k)} {escape(plan.own_name(k))}"), *row[1:])
        for k, row in enumerate(plan.rows())
    ]
    return Table(plan.caption(), HEADINGS, rows)


def view(plan: Partition, only: str | Iterable[str] = ()):
    """The plan with its views, all linked: an edit in one is seen in the others.

    ``only``: some of "groups", "memory", "devices", "lines". ``view(plan).plan`` is the plan as it
    is now; what is graded should be that value, kept in a variable, and never the widget.
    """
    if not isinstance(plan, Partition):
        raise PopcornError(f"{plan!r:.60} is no plan; Partition.build(...) makes one.")
    if not plan.kernels:
        raise PopcornError("this plan has no kernel to show; at least a primary was expected")
    from popcorn_edu.readers.plan_widget import PlanView

    return PlanView(plan, only)

"""The blocks of a plan's page: HTML that Python writes anew whenever a plan looks different.

What can be acted on carries ``data-do``, the name of an action (plan_actions.py), and
``data-key``, by which the script gives the keyboard its place back after a block was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Any

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import grouping, memory
from popcorn_edu.model.devices import is_exempt
from popcorn_edu.model.firmware import hex_range, in_words
from popcorn_edu.model.partition import COMMAND_LINE_BYTES, DEVICE_POLICIES, Partition
from popcorn_edu.model.topology import cpu_list
from popcorn_edu.readers import plan_pictures as pictures
from popcorn_edu.readers import plans
from popcorn_edu.readers.plan_actions import OFFERED, called, read_address
from popcorn_edu.readers.plans import Html, Table

VIEWS = ("groups", "memory", "devices", "lines")
SELECT_AT_MOST = 16  # kernels in a list to choose an owner from; beyond that it is a number


def button(text: str, do: str, title: str = "", off: bool = False, **data) -> str:
    values = "".join(f' data-{name}="{escape(str(value))}"' for name, value in data.items())
    key = f"{do}:{':'.join(map(str, data.values()))}"
    return (
        f'<button type="button" data-do="{do}" data-key="{escape(key)}"{values}'
        f"{title and f' title={chr(34)}{escape(title)}{chr(34)}'}"
        f"{' aria-disabled=true' * off}>{escape(text)}</button>"
    )


def field(do: str, value: str, label: str, width: str = "16em", **data) -> str:
    values = "".join(f' data-{name}="{escape(str(v))}"' for name, v in data.items())
    key = f"{do}:{':'.join(map(str, data.values()))}"
    return (
        f'<input type="text" data-do="{do}" data-key="{escape(key)}"{values} '
        f'value="{escape(value)}" aria-label="{escape(label)}" style="width:{width}" '
        'autocomplete="off" spellcheck="false">'
    )


def select(do: str, options: Iterable, value, label: str, **data) -> str:
    values = "".join(f' data-{name}="{escape(str(v))}"' for name, v in data.items())
    key = f"{do}:{':'.join(map(str, data.values()))}"
    inside = "".join(
        f'<option value="{escape(str(v))}"{" selected" * (str(v) == str(value))}>'
        f"{escape(str(text))}</option>"
        for v, text in options
    )
    act = f'data-do="{do}" ' if do else ""
    return (
        f'<select {act}data-key="{escape(key)}"{values} aria-label="{escape(label)}">'
        f"{inside}</select>"
    )


def heading(text: str, ident: str, hint: str = "") -> str:
    says = f'<span class="pk-hint">{hint}</span>' if hint else ""
    return f'<h3 class="pk-{ident}">{escape(text)}</h3>{says}'


def head(view) -> str:
    plan = view.plan
    kernels = [(k, called(plan, k)) for k in range(len(plan.kernels))]
    chooser = select("choose", kernels, view.chosen, "Chosen kernel")
    policies = [("as it is", "as it is"), *((p, p) for p in grouping.POLICIES if p != "by hand")]
    memories = [(name, name) for name in memory.POLICIES if name != "by hand"]
    devices = [(name, name) for name in DEVICE_POLICIES]
    return (
        f"<h2>{escape(plan.caption())}</h2>"
        f'<div class="pk-bar"><label>Chosen kernel {pictures.chip(view.chosen)} '
        f"{chooser}</label>"
        + button("Undo", "undo", off=not view._past)
        + button("Redo", "redo", off=not view._future)
        + button("New kernel", "add kernel")
        + button("Remove the last kernel", "remove kernel")
        + "</div>"
        '<details class="pk-policies" data-key="policies"><summary>Build it anew from policies'
        '</summary><div class="pk-bar" data-form="rebuild">'
        f"<label>CPUs {select('', policies, 'per node', 'CPU policy', name='grouping')}</label>"
        '<label>kernels <input type="text" data-name="count" data-key="count" size="4" '
        'aria-label="How many kernels; empty: as the policy finds" placeholder="auto"></label>'
        f"<label>memory {select('', memories, 'popcorn', 'Memory policy', name='memory')}</label>"
        f"<label>devices {select('', devices, 'primary', 'Device policy', name='devices')}"
        "</label>" + button("Build", "rebuild") + "</div></details>"
    )


def problems(view) -> str:
    plan = view.plan
    remarks = "".join(f"<li>{escape(line)}</li>" for line in plan.remarks())
    more = (
        f'<details data-key="remarks"><summary>Worth knowing, and wrong for nobody</summary>'
        f"<ul>{remarks}</ul></details>"
        if remarks
        else ""
    )
    return plans.problems_html(plan.problems(), "No problems: this plan can boot.") + more


def groups_block(view) -> str:
    plan = view.plan
    hint = (
        "Enter or a click gives a CPU to the chosen kernel, Shift with it the whole node; arrow "
        "keys go from CPU to CPU, [ and ] choose another kernel; dragging gives all CPUs on the "
        "way."
    )
    drawn = pictures.groups_picture(plan.machine, plan.groups, live=True)
    return (
        heading("CPUs", "groups", hint)
        + f'<div class="pk-picture" data-roving="cpus">{drawn}</div>'
        + '<div class="pk-side">'
        + _cpu_lists(plan).html()
        + (_cost(plan))
        + "</div>"
    )


def _cpu_lists(plan: Partition) -> Table:
    table = plans.groups_table(plan.machine, plan.groups)
    rows = [
        (
            row[0],
            row[1],
            Html(field("cpu list", cpu_list(cpus), f"CPUs of kernel {k}", "12em", kernel=k)),
            *row[3:],
        )
        for k, (row, cpus) in enumerate(zip(table.rows, plan.groups, strict=False))
    ]
    return table._replace(rows=rows + table.rows[len(plan.kernels) :])


def _cost(plan: Partition) -> str:
    if grouping.problems(plan.machine, plan.groups):
        return "<p>What it costs is shown when every CPU is in one kernel.</p>"
    return plans.cost_table(plan.machine, plan.groups).html()


def memory_block(view) -> str:
    plan = view.plan
    if not plan.machine.ram:
        says = f"<p>{escape(plan.machine.name)} has no memory map.</p>"
        return heading("Memory", "memory") + says
    memory_plan, k = plan.memory_plan, view.chosen
    start, end = view.window
    kernel = plan.kernels[k]
    ranges = ", ".join(f"{part.start:#x}-{part.end - 1:#x}" for part in kernel.memory)
    says = ""
    if view.address:
        try:
            says = str(memory.whose(memory_plan, read_address(view.address)))
        except PopcornError as mistake:
            says = str(mistake)
    tools = [
        ("−", "out", "Zoom out"), ("+", "in", "Zoom in"), ("◀", "left", "To lower addresses"),
        ("▶", "right", "To higher addresses"), ("All", "all", "The whole bar"),
        ("First MiB", "first", "The first MiB"), ("Low 16 MiB", "low", "The low part"),
        ("Reserve", "reserve", "The reserve at the top"),
        (f"Kernel {k}", "kernel", "The chosen kernel's memory"),
    ]  # fmt: skip
    bar = "".join(
        button(text, "zoom", title, to=to).replace("<button ", f'<button aria-label="{title}" ', 1)
        for text, to, title in tools
    )
    hint = (
        "In the bar: arrow keys go from piece to piece, Enter chooses a piece's kernel, + and − "
        "zoom, 0 shows all, Shift with ← or → moves on."
    )
    drawn = pictures.memory_picture(memory_plan, start, end, uid="pk-live", live=True)
    size = in_words(end - start)
    return (
        heading("Memory", "memory", hint)
        + f'<div class="pk-bar">{bar}<span>{hex_range(start, end)}, {size}</span></div>'
        + f'<div class="pk-picture" data-roving="memory" data-zoom="yes">{drawn}</div>'
        + f'<div class="pk-bar"><label>Memory of kernel {k} {pictures.chip(k)} '
        + field("memory", ranges, f"Ranges of kernel {k}", "34em")
        + "</label><label>Whose is this address? "
        + field("ask", view.address, "Whose is this address?", "11em")
        + f'</label></div><p class="pk-answer">{escape(says)}</p>'
        + '<div class="pk-side">'
        + plans.memory_table(memory_plan).html()
        + plans.accounts_table(memory_plan).html()
        + "</div>"
    )


def devices_block(view) -> str:
    plan = view.plan
    functions = plan.machine.pci_functions
    if not functions:
        return (
            heading("Devices", "devices")
            + f"<p>No PCI listing of {escape(plan.machine.name)} is known.</p>"
        )
    checked = " checked" * plan.by_slot
    hint = f"The letters: {pictures.device_letters(functions)}. {escape(plans.QUIRKS)}"
    table = plans.device_table(plan)
    rows = []
    for row, (_, function) in zip(table.rows, pictures.tree_rows(functions), strict=True):
        if not is_exempt(function):
            row = (*row[:5], _owner(plan, function.slot), *row[6:])
        rows.append(row)
    return (
        heading("Devices", "devices", hint)
        + '<div class="pk-bar"><label><input type="checkbox" data-do="by slot" data-key="by slot"'
        + f"{checked}> blacklists name slots, not ids (our extension, not Popcorn's)</label></div>"
        + table._replace(rows=rows).html()
        + plans.blacklist_table(plan).html()
    )


def _owner(plan: Partition, slot: str) -> Html:
    who = plan.owners.get(slot, ())
    chips = " ".join(map(pictures.chip, who)) or pictures.chip(None)
    value = who[0] if who else ""
    label = f"Owner of {slot}"
    if len(plan.kernels) <= SELECT_AT_MOST:
        options = [("", "nobody"), *((k, f"kernel {k}") for k in range(len(plan.kernels)))]
        chooser = select("device", options, value, label, slot=slot)
    else:
        chooser = field("device", str(value), label, "4em", slot=slot)
    return Html(f'<span class="pk-owner">{chips} {chooser}</span>')


def line_block(view) -> str:
    """Where the chosen kernel's line is written; typing does not write this block anew."""
    plan, k = view.plan, view.chosen
    kernel = plan.kernels[k]
    try:
        line = plan.command_line(k)
    except PopcornError as mistake:
        line = f"# {mistake}"
    words = kernel.parameters.split()
    ticks = "".join(
        f'<label><input type="checkbox" data-do="tick" data-word="{word}" data-key="tick:{word}"'
        f"{' checked' * (word in words)}> <code>{word}</code></label>"
        for word in OFFERED
    )
    return (
        heading("Command line", "lines", "What the line says is shown below while you type.")
        + f'<label for="pk-line-{view.model_id}">Line of {escape(called(plan, k))} '
        + f"{pictures.chip(k)}</label>"
        + f'<textarea id="pk-line-{view.model_id}" rows="4" data-do="line" data-live="yes" '
        + f'data-key="line" data-shown="{view.lines_shown}" spellcheck="false">{escape(line)}'
        + '</textarea><div class="pk-bar">'
        + button(f"Give kernel {k} what this line says", "use line")
        + button("Back to the plan's line", "drop line")
        + f'</div><div class="pk-bar"><span>More words:</span>{ticks}<label>others '
        + field("parameters", kernel.parameters, f"More words for kernel {k}", "22em")
        + "</label></div>"
    )


def line_result(view) -> str:
    """What the line above says, and what its kernel sees."""
    line = view.line
    if line is None:
        try:
            line = view.plan.command_line(view.chosen)
        except PopcornError as mistake:
            return f"<p>{escape(str(mistake))}</p>"
    drawn = plans.command_line(line, view.plan.machine)
    return f"<p>{escape(drawn.title)}; at most {COMMAND_LINE_BYTES:,}.</p>{drawn.fragment()}"


BLOCKS: dict[str, Callable[[Any], str]] = {
    "head": head,
    "problems": problems,
    "groups": groups_block,
    "memory": memory_block,
    "devices": devices_block,
    "line": line_block,
    "line-result": line_result,
}
PARTS = {
    "groups": ("groups",),
    "memory": ("memory",),
    "devices": ("devices",),
    "lines": ("line", "line-result"),
}
STATIC: dict[str, Callable[[Partition], plans.Drawn]] = {
    "groups": plans.groups, "memory": plans.memory, "devices": plans.devices, "lines": plans.lines,
}  # fmt: skip

"""The pictures of a plan: CPUs with their kernels, a bar of memory, a strip of devices; as SVG.

Each function draws from plain facts and knows no widget. With ``live=True`` the same picture gets
what keyboard and mouse need: things to act on carry ``data-do`` (what), and can have the focus.

    groups_picture(machine, groups)        # a square for each CPU
    memory_picture(plan, 0, 16 * MIB)      # the bar, or a part of it
    device_picture(machine, owners)        # a square for each PCI function

Words
    chip     a kernel's number on its colour
    uid      begins the names of a picture's patterns: two pictures on one page share none
    window   the addresses that the bar shows
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from popcorn_edu.model import memory as memory_model
from popcorn_edu.model.devices import is_exempt
from popcorn_edu.model.firmware import GIB, hex_range, in_words
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import MemoryPlan
from popcorn_edu.model.pci import PciFunction, tree

# Okabe and Ito's colours, which colour-blind readers can tell apart, and what is legible on them.
# Kernel k has colour k modulo 8, and its number is always beside the colour (as in the player).
FILLS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#333333")
ON_FILL = ("#fff", "#000", "#000", "#000", "#000", "#000", "#000", "#fff")
ALERT = "#A32000"
INK = "#1b1f23"

WIDE = 1000  # of every picture, in units of the drawing
CELL, GAP, CORE_GAP = 30, 2, 5
LANE, LANE_GAP, MARGIN = 26, 8, 66
TICKS_AT_MOST = 8
# What is left out of the bar where it would be thinner than a unit.
THINGS = ("ramdisk", "image", "window", "rkinfo", "trampoline", "boot_params", "command line")

# The first half of a PCI class, as a letter and in words.
CLASS_LETTERS = {
    "01": ("S", "storage"), "02": ("N", "network"), "03": ("G", "graphics"),
    "04": ("A", "audio"), "05": ("M", "memory"), "06": ("B", "bridge"),
    "07": ("C", "communication"), "08": ("Y", "system"), "0b": ("P", "processor"),
    "0c": ("U", "USB or other serial bus"), "11": ("X", "signal processing"),
}  # fmt: skip


def fill_of(kernel: int) -> str:
    return FILLS[kernel % len(FILLS)]


def ink_on(kernel: int) -> str:
    return ON_FILL[kernel % len(FILLS)]


def chip(kernel: int | None) -> str:
    """A kernel's number on its colour, for a table; a dash for nobody."""
    if kernel is None:
        return '<span class="pk-chip pk-nobody">–</span>'
    style = f"background:{fill_of(kernel)};color:{ink_on(kernel)}"
    return f'<span class="pk-chip" style="{style}">{kernel}</span>'


def svg(width: float, height: float, title: str, inside: str, live: bool = False) -> str:
    role = "group" if live else "img"
    return (
        f'<svg class="pk-svg" role="{role}" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px;'
        'font-family:system-ui,Liberation Sans,sans-serif" '
        f'xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
    )


def _text(x: float, y: float, what, size: float = 11, more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="middle" {more}>'
        f"{escape(str(what))}</text>"
    )


def _acts(live: bool, do: str, key, label: str) -> str:
    """The attributes of a thing to act on; none where nothing can be done."""
    if not live:
        return ""
    return (
        f' data-do="{do}" data-{do}="{key[0]}" data-key="{do}:{":".join(map(str, key))}" '
        f'role="button" tabindex="-1" aria-label="{escape(label)}"'
    )


# -- CPUs and kernels ------------------------------------------------------------------------------


def owners_of(groups: Iterable[Sequence[int]]) -> dict[int, list[int]]:
    """The kernels of each CPU; in a sound grouping it is one."""
    owners: dict[int, list[int]] = {}
    for kernel, cpus in enumerate(groups):
        for cpu in cpus:
            owners.setdefault(cpu, []).append(kernel)
    return owners


def groups_picture(machine: Machine, groups: Sequence[Sequence[int]], live: bool = False) -> str:
    """A box for each NUMA node, in it a square for each CPU: its number, and its kernel's."""
    owners = owners_of(groups)
    boxes = [_node_box(machine, node, owners, live) for node in _nodes_with_cpus(machine)]
    placed, x, y, row = [], 0.0, 0.0, 0.0
    for width, height, inside in boxes:
        if x and x + width > WIDE:
            x, y, row = 0.0, y + row + 10, 0.0
        placed.append(f'<g transform="translate({x:g} {y:g})">{inside}</g>')
        x, row = x + width + 10, max(row, height)
    lone = [cpu for cpu in machine.offline_cpus]
    words = (
        f"{machine.name}: {len(machine.cpus)} CPUs in {len(boxes)} NUMA nodes, in "
        f"{len(groups)} kernels; the table says the same"
    )
    if lone:
        shown = ", ".join(map(str, lone[:12])) + (", …" if len(lone) > 12 else "")
        placed.append(
            f'<text x="0" y="{y + row + 16:g}" font-size="12" fill="{INK}">offline: {shown}</text>'
        )
        row += 20
    return svg(WIDE, y + row + 4, words, "".join(placed), live)


def _nodes_with_cpus(machine: Machine) -> list[int]:
    return sorted({machine.node_of(cpu) for cpu in machine.cpus})


def _node_box(machine: Machine, node: int, owners, live: bool) -> tuple[float, float, str]:
    cpus = sorted((cpu for cpu in machine.cpus if machine.node_of(cpu) == node), key=machine.place)
    columns = 8 if len(cpus) <= 32 else 16 if len(cpus) <= 128 else 30
    parts, x, y, widest, last, column = [], 6.0, 20.0, 0.0, None, 0
    for cpu in cpus:
        core = machine.place(cpu).core
        if column >= columns and core != last:
            x, y, column = 6.0, y + CELL + GAP, 0
        elif column:
            x += GAP if core == last else CORE_GAP
        parts.append(_cpu(machine, cpu, owners.get(cpu, []), x, y, live))
        x, last, column = x + CELL, core, column + 1
        widest = max(widest, x)
    packages = sorted({machine.package_of(cpu) for cpu in cpus})
    name = f"node {node} · package {', '.join(map(str, packages))}"
    width = max(widest + 6, 6.2 * len(name) + 12)
    height = y + CELL + 6
    box = (
        f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="4" fill="#fff" '
        f'stroke="#8c959f"/><text x="6" y="14" font-size="11" fill="{INK}">{escape(name)}</text>'
    )
    return width, height, box + "".join(parts)


def _cpu(machine: Machine, cpu: int, kernels: list[int], x: float, y: float, live: bool) -> str:
    whose = " and ".join(f"kernel {k}" for k in kernels) or "no kernel"
    label = f"CPU {cpu}, node {machine.node_of(cpu)}, {whose}"
    if not kernels:
        look, ink, below = f'fill="#fff" stroke="{ALERT}" stroke-dasharray="4 2"', ALERT, "–"
    elif len(kernels) > 1:
        below = "+".join(map(str, kernels[:2]))
        look, ink = f'fill="#fff" stroke="{ALERT}" stroke-width="3"', ALERT
    else:
        below, ink = f"k{kernels[0]}", ink_on(kernels[0])
        look = f'fill="{fill_of(kernels[0])}" stroke="{INK}" stroke-width="0.7"'
    return (
        f"<g{_acts(live, 'cpu', (cpu,), label)}><title>{escape(label)}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{CELL}" height="{CELL}" rx="3" {look}/>'
        + _text(x + CELL / 2, y + 13, cpu, 11, f'font-weight="700" fill="{ink}"')
        + _text(x + CELL / 2, y + 25, below, 9.5, f'fill="{ink}"')
        + "</g>"
    )


# -- memory ----------------------------------------------------------------------------------------


def memory_picture(
    plan: MemoryPlan,
    start: int = 0,
    end: int | None = None,
    uid: str = "m",
    live: bool = False,
    title: str = "",
) -> str:
    """The addresses of a window in lanes: what the firmware says, the nodes, whose they are."""
    end = top_of(plan) if end is None else end
    window = start, end
    lanes = [
        ("firmware", _firmware(plan, uid)),
        ("node", _nodes(plan)),
        ("whose", _whose(plan, uid)),
        ("in it", _places(plan, uid)),
    ]
    parts, y = [_patterns(uid)], 0.0
    for name, pieces in lanes:
        drawn = [d for d in (_piece(y, window, piece, live) for piece in pieces) if d]
        if not drawn and name in ("node", "in it"):
            continue
        parts.append(f'<text x="0" y="{y + LANE - 9:g}" font-size="11" fill="{INK}">{name}</text>')
        parts.append(
            f'<rect x="{MARGIN}" y="{y:g}" width="{WIDE}" height="{LANE}" '
            f'fill="url(#{uid}-none)" stroke="#8c959f" stroke-width="0.5"/>'
        )
        parts += drawn
        y += LANE + LANE_GAP
    words = title or (
        f"{plan.machine.name}: physical addresses {hex_range(start, end)}, divided among "
        f"{len(plan.regions)} kernels; the table says the same"
    )
    return svg(WIDE + MARGIN + 4, y + 18, words, "".join(parts) + _axis(window, y + 10), live)


def top_of(plan: MemoryPlan) -> int:
    """Where the bar ends: at the top of RAM, or where a kernel believes it is."""
    ends = [piece.end for piece in plan.machine.ram[-1:]]
    return max([*ends, *(piece.end for mine in plan.regions for piece in mine), 1 << 20])


def _firmware(plan: MemoryPlan, uid: str) -> Iterable[tuple]:
    for piece in plan.machine.memory_map:
        usable = piece.kind == "usable"
        fill = "#e4e8ec" if usable else f"url(#{uid}-other)"
        yield piece.start, piece.end, "RAM" if usable else piece.kind, fill, INK, piece.kind, None


def _nodes(plan: MemoryPlan) -> Iterable[tuple]:
    for piece in plan.machine.node_memory:
        fill = ("#ffffff", "#eef2f5")[piece.node % 2]
        yield piece.start, piece.end, f"{piece.node}", fill, INK, f"node {piece.node}", None


def _whose(plan: MemoryPlan, uid: str) -> Iterable[tuple]:
    low = plan.low
    for kernel, mine in enumerate(plan.kernels):
        for piece in mine:
            start = max(piece.start, low.end) if kernel == 0 else piece.start
            if start < piece.end:
                yield (start, piece.end, f"{kernel}", fill_of(kernel), ink_on(kernel),
                       f"kernel {kernel}", kernel)  # fmt: skip
    if low.end:
        yield low.start, low.end, "low", f"url(#{uid}-low)", INK, "low memory, kernel 0's", 0
    for tenant in plan.reserve:
        yield (tenant.start, tenant.end, tenant.name, f"url(#{uid}-reserve)", INK,
               f"reserve: {tenant.name}", None)  # fmt: skip
    for loss in plan.losses:
        words = f"lost: {memory_model.LOSSES[loss.reason]}"
        yield loss.start, loss.end, "lost", f"url(#{uid}-lost)", INK, words, None


def _places(plan: MemoryPlan, uid: str) -> Iterable[tuple]:
    for tenant in memory_model.LOW_TENANTS:
        if tenant.end <= plan.low.end:
            yield tenant.start, tenant.end, tenant.name, "#ffffff", INK, tenant.name, None
    for kernel in range(len(plan.regions)):
        for place in plan.places(kernel):
            words = f"kernel {kernel}'s {place.name}"
            yield (place.start, place.end, place.name, fill_of(kernel), ink_on(kernel), words,
                   kernel)  # fmt: skip


def _piece(y: float, window: tuple[int, int], piece: tuple, live: bool) -> str:
    """A stretch of a lane, as far as the window shows it; nothing if it would be invisible."""
    start, end, label, fill, ink, words, kernel = piece
    low, high = max(start, window[0]), min(end, window[1])
    if low >= high:
        return ""
    scale = WIDE / (window[1] - window[0])
    x, width = MARGIN + (low - window[0]) * scale, (high - low) * scale
    if width < 1 and words.endswith(THINGS):
        return ""
    width = max(width, 0.7)
    says = f"{words}: {hex_range(start, end)}, {in_words(end - start)}"
    acts = ""
    if kernel is not None:
        key = kernel, label, f"{start:x}"
        acts = _acts(live, "kernel", key, f"{says}; choose kernel {kernel}")
    drawn = (
        f"<g{acts}><title>{escape(says)}</title>"
        f'<rect x="{x:.2f}" y="{y:g}" width="{width:.2f}" height="{LANE}" fill="{fill}" '
        f'stroke="{INK}" stroke-width="0.5"/>'
    )
    if width > 6.5 * len(label) + 4:
        if fill.startswith("url"):
            half = 3.4 * len(label) + 3
            drawn += (
                f'<rect x="{x + width / 2 - half:.1f}" y="{y + 5:g}" width="{2 * half:.1f}" '
                f'height="{LANE - 10}" fill="#fff"/>'
            )
        drawn += _text(x + width / 2, y + LANE - 9, label, 11, f'fill="{ink}"')
    return drawn + "</g>"


def _patterns(uid: str) -> str:
    shapes = {
        "none": ("#f6f8fa", "M0 6L6 0"),  # no RAM
        "other": ("#ffffff", "M0 3H6"),  # the firmware's own
        "low": ("#ffffff", "M2 3H4"),
        "reserve": ("#ffffff", "M3 0V6"),
        "lost": ("#ffffff", "M0 0L6 6M6 0L0 6"),
    }
    drawn = "".join(
        f'<pattern id="{uid}-{name}" width="6" height="6" patternUnits="userSpaceOnUse">'
        f'<rect width="6" height="6" fill="{fill}"/>'
        f'<path d="{path}" stroke="{"#c4ccd4" if name == "none" else "#6b747d"}"/></pattern>'
        for name, (fill, path) in shapes.items()
    )
    return f"<defs>{drawn}</defs>"


def _axis(window: tuple[int, int], y: float) -> str:
    start, end = window
    step = 1 << max(0, ((end - start) // TICKS_AT_MOST).bit_length())
    scale = WIDE / (end - start)
    ticks = []
    for at in range(-(-start // step) * step, end + 1, step):
        x = MARGIN + (at - start) * scale
        name = in_words(at) if at % min(step, GIB) == 0 and at else f"{at:#x}" if at else "0"
        anchor = "end" if x > WIDE + MARGIN - 30 else "middle"
        ticks.append(
            f'<path d="M{x:.1f} {y - 10:.1f}v4" stroke="{INK}"/>'
            f'<text x="{x:.1f}" y="{y + 6:.1f}" font-size="10" text-anchor="{anchor}" '
            f'fill="{INK}">{name}</text>'
        )
    return "".join(ticks)


# -- devices ---------------------------------------------------------------------------------------


def letter_of(function: PciFunction) -> tuple[str, str]:
    return CLASS_LETTERS.get(function.device_class[:2], ("O", "other"))


def tree_rows(functions: Iterable[PciFunction]) -> list[tuple[int, PciFunction]]:
    """(depth, function), each bridge followed by what is behind it: the tree as a list."""
    rows: list[tuple[int, PciFunction]] = []

    def walk(branches, depth: int) -> None:
        for function, below in branches:
            rows.append((depth, function))
            walk(below, depth + 1)

    walk(tree(functions).roots, 0)
    return rows


def device_picture(machine: Machine, owners: Mapping[str, Sequence[int]], kernels: int) -> str:
    """A row for each owner, and in it a square for each function, with a letter for its kind."""
    by_owner: dict[tuple[int, ...], list[PciFunction]] = {}
    for _, function in tree_rows(machine.pci_functions):
        if not is_exempt(function):
            by_owner.setdefault(tuple(owners.get(function.slot, ())), []).append(function)
    parts, y, step = [], 0.0, CELL - 4
    for who in sorted(by_owner, key=lambda who: (not who, who)):
        name = " and ".join(f"kernel {k}" for k in who) or "no kernel"
        if len(who) == 1:
            look, ink = f'fill="{fill_of(who[0])}" stroke="{INK}"', ink_on(who[0])
        else:
            look, ink = f'fill="#fff" stroke="{ALERT}" stroke-width="2"', ALERT
        parts.append(f'<text x="0" y="{y + 17:g}" font-size="11" fill="{INK}">{name}</text>')
        for at, function in enumerate(by_owner[who]):
            if at and at % 30 == 0:
                y += step + 3
            x = 100 + (at % 30) * (step + 3)
            letter, kind = letter_of(function)
            says = f"{function.slot}, {kind}, {function.name or function.kind}: {name}"
            parts.append(
                f'<g><title>{escape(says)}</title><rect x="{x:g}" y="{y:g}" width="{step}" '
                f'height="{step}" rx="3" {look} stroke-width="0.7"/>'
                + _text(x + step / 2, y + 17, letter, 12, f'font-weight="700" fill="{ink}"')
                + "</g>"
            )
        y += step + 8
    words = (
        f"{machine.name}: {sum(map(len, by_owner.values()))} PCI functions that need an owner, by "
        f"owner of {kernels} kernels; the table says the same"
    )
    return svg(WIDE, max(y, 20), words, "".join(parts))


def device_letters(functions: Iterable[PciFunction]) -> str:
    """What the letters in the picture stand for, as far as they occur."""
    used = sorted({letter_of(f) for f in functions if not is_exempt(f)})
    return ", ".join(f"{letter} {kind}" for letter, kind in used)

"""What can be done on the page of a plan: each action changes the plan, or what is shown of it.

An action is a small dict that the page sends ({"do": "cpus", "cpus": "5", "kernel": "3"}); it is
done by the function of that name in ACTIONS, which returns the sentence to answer with. What
cannot be done is a PopcornError, whose sentence is the answer, and then nothing has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model import cmdline, memory
from popcorn_edu.model.devices import ownable
from popcorn_edu.model.firmware import MIB, hex_range, in_words
from popcorn_edu.model.partition import KERNELS_AT_MOST, WRONG, KernelPlan, Partition
from popcorn_edu.model.plan_words import read_cpus
from popcorn_edu.model.topology import cpu_list


def _kernel(view, action: dict) -> int:
    """The kernel that an action names, else the chosen one."""
    said = action.get("kernel")
    if said in (None, ""):
        return view.chosen
    if not re.fullmatch(r"\d{1,4}", str(said)):
        raise PopcornError(f"{said!r} is no kernel; its number was expected")
    view.plan.kernel(int(said))
    return int(said)


def called(plan: Partition, k: int) -> str:
    return f"kernel {k} ({name})" if (name := plan.own_name(k)) else f"kernel {k}"


def _text(action: dict, key: str) -> str:
    return str(action.get(key, "")).strip()


def choose(view, action: dict) -> str:
    """The kernel that is given things from now on."""
    action = {"kernel": action.get("value")} | action  # a list sends its value
    step = {"next": 1, "previous": -1}.get(_text(action, "kernel"))
    count = len(view.plan.kernels)
    view.chosen = (view.chosen + step) % count if step else _kernel(view, action)
    view.forget_line()
    kernel = view.plan.kernels[view.chosen]
    return (
        f"K{called(view.plan, view.chosen)[1:]} is chosen: CPUs "
        f"{cpu_list(kernel.cpus) or 'none'}, {in_words(kernel.bytes)}."
    )


def give_cpus(view, action: dict) -> str:
    """Some CPUs to a kernel, from whoever had them."""
    k, cpus = _kernel(view, action), read_cpus(_text(action, "cpus"))
    plan = view.plan.give(k, cpus=cpus)
    return view.change(plan, f"CPU{'s' * (len(cpus) != 1)} {cpu_list(cpus)} to kernel {k}.")


def give_node(view, action: dict) -> str:
    """All CPUs of a CPU's node to a kernel."""
    machine, k = view.plan.machine, _kernel(view, action)
    cpus = machine.check_cpus(read_cpus(_text(action, "cpus"))[:1])
    if not cpus:
        raise PopcornError("The page named no CPU; one whose node is meant was expected.")
    node = machine.node_of(cpus[0])
    cpus = [other for other in machine.cpus if machine.node_of(other) == node]
    said = f"CPUs {cpu_list(cpus)} of node {node} to kernel {k}."
    return view.change(view.plan.give(k, cpus=cpus), said)


def set_cpus(view, action: dict) -> str:
    """A kernel gets exactly this list; others lose what is on it."""
    k, cpus = _kernel(view, action), read_cpus(_text(action, "value"))
    plan = view.plan.give(k, cpus=cpus).edit(k, cpus=cpus)
    return view.change(plan, f"Kernel {k} has CPUs {cpu_list(cpus) or 'none'}.")


def set_memory(view, action: dict) -> str:
    k = _kernel(view, action)
    plan = view.plan.edit(k, memory=_text(action, "value"))
    return view.change(plan, f"Kernel {k} has {in_words(plan.kernels[k].bytes)}.")


def give_device(view, action: dict) -> str:
    """A device to a kernel, or to nobody; "+" and its neighbours of the same card go along."""
    slot, said = _text(action, "slot"), _text(action, "value")
    plan = view.plan
    if said in ("", "nobody", "none"):
        for k, kernel in enumerate(plan.kernels):
            if slot in kernel.devices:
                plan = plan.edit(k, devices=[s for s in kernel.devices if s != slot])
        return view.change(plan, f"{slot} to nobody.")
    k = _kernel(view, {"kernel": said})
    return view.change(plan.give(k, devices=[slot]), f"{slot} to kernel {k}.")


def set_name(view, action: dict) -> str:
    k, name = _kernel(view, action), _text(action, "value")
    return view.change(view.plan.edit(k, name=name), f"Kernel {k} is called {name}.")


def add_kernel(view, _action: dict) -> str:
    plan = view.plan
    if len(plan.kernels) >= KERNELS_AT_MOST:
        raise PopcornError(f"Popcorn has room for {KERNELS_AT_MOST} kernels, and all are there.")
    k = len(plan.kernels)
    plan = replace(plan, kernels=(*plan.kernels, KernelPlan(f"kernel {k}", (), ())))
    said = view.change(plan, f"Kernel {k} is new, and has nothing yet.")
    view.chosen = k
    return said


def remove_kernel(view, _action: dict) -> str:
    """The last kernel goes; what it had is nobody's."""
    plan = view.plan
    if len(plan.kernels) < 2:
        raise PopcornError("The primary is the only kernel, and stays.")
    k = len(plan.kernels) - 1
    return view.change(replace(plan, kernels=plan.kernels[:-1]), f"Kernel {k} is gone.")


def rebuild(view, action: dict) -> str:
    """The plan made anew from policies; what is not named stays."""
    plan, count = view.plan, _text(action, "count")
    if count and not re.fullmatch(r"\d{1,4}", count):
        raise PopcornError(f"{count!r} is no number of kernels; expected a number, or nothing")
    groups = _text(action, "grouping")
    made = Partition.build(
        plan.machine,
        kernels=int(count) if count and groups != "as it is" else None,
        grouping=plan.groups if groups in ("", "as it is") else groups,
        memory=_text(action, "memory") or "popcorn",
        devices=_text(action, "devices") or "primary",
        by_slot=plan.by_slot,
    )
    view.window = view._whole()
    count = len(made.kernels)
    return view.change(made, f"Built anew: {count} kernel{'s' * (count != 1)}.")


def by_slot(view, action: dict) -> str:
    """Blacklists by slot (our extension) or by id (Popcorn's)."""
    wanted = bool(action.get("checked"))
    says = "name slots (our extension)" if wanted else "name ids, as Popcorn's do"
    return view.change(replace(view.plan, by_slot=wanted), f"Blacklists {says}.")


def zoom(view, action: dict) -> str:
    """Another part of the memory bar."""
    (start, end), top = view.window, view._whole()[1]
    size, to = end - start, _text(action, "to")
    memory_plan = view.plan.memory_plan
    if to == "in":
        view.window = start + size // 4, end - size // 4
    elif to == "out":
        view.window = start - size // 2, end + size // 2
    elif to in ("left", "right"):
        step = size // 4 * (1 if to == "right" else -1)
        step = max(-start, min(step, top - end))
        view.window = start + step, end + step
    elif to == "first":
        view.window = 0, MIB
    elif to == "low":
        view.window = memory_plan.low[:2]
    elif to == "reserve" and memory_plan.reserve:
        view.window = memory_plan.reserved[:2]
    elif to == "kernel":
        mine = memory_plan.kernels[view.chosen]
        if not mine:
            raise PopcornError(f"Kernel {view.chosen} has no memory to look at.")
        size = mine[-1].end - mine[0].start
        view.window = mine[0].start - size // 16, mine[-1].end + size // 16
    else:
        view.window = 0, top
    start, end = max(0, view.window[0]), min(top, view.window[1])
    view.window = (start, end) if end - start >= 4096 else (start, min(top, start + 4096))
    return f"The bar shows {hex_range(*view.window)}, {in_words(view.window[1] - view.window[0])}."


def ask(view, action: dict) -> str:
    """Whose is this address?"""
    view.address = _text(action, "value")
    if not view.address:
        return "No address is asked for."
    return str(memory.whose(view.plan.memory_plan, read_address(view.address)))


def read_address(text: str) -> int:
    found = re.fullmatch(r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,16})([kKmMgGtT]?)", text)
    if not found:
        raise PopcornError(f"{text[:60]!r} is no address; one such as 0x92000 or 4G was expected")
    shift = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[found[2].lower()]
    return int(found[1], 16 if found[1].startswith("0x") else 10) << shift


def type_line(view, action: dict) -> str:
    """A line that somebody types: what it says is shown below it, the plan stays."""
    view.line = str(action.get("value", ""))
    seen = cmdline.apply(view.line, view.plan.machine)
    if seen.panic:
        return f"With this line the kernel would not come up: {seen.panic}."
    wrong = sum(problem.effect in WRONG for problem in seen.problems)
    return (
        f"This line: CPUs {cpu_list(seen.present)}, "
        f"{in_words(sum(part.end - part.start for part in seen.ram))} of RAM, "
        + (f"{wrong} problem{'s' * (wrong != 1)}." if wrong else "no problems.")
    )


def use_line(view, _action: dict) -> str:
    """The chosen kernel gets what the typed line gives it."""
    plan, k, line = view.plan, view.chosen, view.line
    if line is None:
        return "This is the plan's own line."
    seen = cmdline.apply(line, plan.machine)
    if seen.panic:
        raise PopcornError(f"With this line the kernel would not come up: {seen.panic}.")
    low = memory.LOW_BYTES if k else 0
    ram = [part._replace(start=max(part.start, low)) for part in seen.ram if part.end > low]
    hidden = set(seen.hidden)
    slots = [f.slot for f in ownable(plan.machine.pci_functions) if f.slot not in hidden]
    own = [word.text for word in seen.line.parameters if word.name not in WRITTEN]
    plan = plan.edit(k, cpus=seen.present, memory=ram, devices=slots, parameters=" ".join(own))
    return view.change(plan, f"Kernel {k} has what that line gives it.")


def drop_line(view, _action: dict) -> str:
    view.forget_line()
    return "The plan's own line is shown."


def set_parameters(view, action: dict) -> str:
    k, text = _kernel(view, action), " ".join(_text(action, "value").split())
    return view.change(view.plan.edit(k, parameters=text), f"More words for kernel {k}: {text}.")


def tick(view, action: dict) -> str:
    """One of the offered words, on or off the chosen kernel's line."""
    k, word = view.chosen, _text(action, "word")
    if word not in OFFERED:
        raise PopcornError(f"{word!r} is not offered; {near_names(word, OFFERED)}")
    words = [own for own in view.plan.kernels[k].parameters.split() if own != word]
    words += [word] * bool(action.get("checked"))
    said = f"{word} is {'on' if action.get('checked') else 'off'} kernel {k}'s line."
    return view.change(view.plan.edit(k, parameters=" ".join(words)), said)


def undo(view, _action: dict) -> str:
    return view.go("back", "Undone.", "There is nothing to undo.")


def redo(view, _action: dict) -> str:
    return view.go("forth", "Done again.", "There is nothing to do again.")


# Words of a line that the plan writes by itself, and some that can be ticked.
WRITTEN = {
    "present_mask", "memmap", "mem", "vty_offset", "pci_dev_flags", "mklinux", "lapic_timer",
    "no_ipi_broadcast", "acpi_irq_nobalance", "earlyprintk", "console", "debug",
}  # fmt: skip
OFFERED = ("noapic", "nosmp", "maxcpus=1", "numa=off", "nokaslr", "ignore_loglevel")

ACTIONS: dict[str, Callable[[Any, dict], str | None]] = {
    "choose": choose, "cpus": give_cpus, "node": give_node, "cpu list": set_cpus,
    "memory": set_memory, "device": give_device, "name": set_name, "add kernel": add_kernel,
    "remove kernel": remove_kernel, "rebuild": rebuild, "by slot": by_slot, "zoom": zoom,
    "ask": ask, "line": type_line, "use line": use_line, "drop line": drop_line,
    "parameters": set_parameters, "tick": tick, "undo": undo, "redo": redo,
}  # fmt: skip

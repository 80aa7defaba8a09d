"""Seventeen things that sound right about a replicated-kernel system and are not.

A check that recognises one of them names it by its tag. The student reads the correction alone;
the tag stays with the report's row (``data-tag`` in its HTML), to be counted over a class.
"""

from __future__ import annotations

from typing import NamedTuple


class Misconception(NamedTuple):
    belief: str
    correction: str


MISCONCEPTIONS = {
    "M1": Misconception(
        "a secondary kernel is a virtual machine",
        "no hypervisor runs below a kernel: each drives its own CPUs and memory directly",
    ),
    "M2": Misconception(
        "the kernels share one scheduler or one page allocator",
        "each kernel schedules and allocates only what it owns; anything else is a message",
    ),
    "M3": Misconception(
        "an IPI carries the message",
        "an IPI carries only a vector number; the message is in shared memory before it is sent",
    ),
    "M4": Misconception(
        "every message causes an interrupt",
        "a receiver that is already polling has interrupts off, so no IPI is sent to it",
    ),
    "M5": Misconception(
        "polling is always worse",
        "under load, polling saves an interrupt for each message; it costs only when idle",
    ),
    "M6": Misconception(
        "when send returns, the message was received",
        "send returns once the slot is marked ready; nobody may have read it yet",
    ),
    "M7": Misconception(
        "messages of different senders arrive in the order they were sent",
        "only one sender's messages of one priority keep their order; between senders the "
        "ring's tickets decide",
    ),
    "M8": Misconception(
        "a full ring loses messages",
        "it depends on the layer: this one makes the sender wait, the virtual network drops",
    ),
    "M9": Misconception(
        "the hardware enforces the memory partitions",
        "memory partitions are a convention: nothing stops a kernel from touching another's",
    ),
    "M10": Misconception(
        "present_mask is a bit mask",
        "despite its name, present_mask is a list of CPUs: present_mask=3 is CPU 3 alone",
    ),
    "M11": Misconception(
        "two kernels can both drive one network card if they take turns",
        "one kernel owns a device; the others reach it only through that kernel",
    ),
    "M12": Misconception(
        "migration copies all memory at once",
        "pages follow on demand, when the moved thread first touches them",
    ),
    "M13": Misconception(
        "after migration the old process is gone",
        "a placeholder stays asleep at home and serves its moved twin",
    ),
    "M14": Misconception(
        "the same bytes run on any ISA once addresses match",
        "symbols share addresses, but code, registers and stack frames differ per ISA",
    ),
    "M15": Misconception(
        "a single system image means shared data structures",
        "the image is made of messages: each kernel keeps its own tables",
    ),
    "M16": Misconception(
        "more kernels are always faster",
        "each kernel adds messages and memory of its own; beyond a point they dominate",
    ),
    "M17": Misconception(
        "simulated time is wall time",
        "the model counts the nanoseconds of the modelled machine, however long Python takes",
    ),
}

"""A short run for Lab 02: an interrupt to one's own CPUs one by one, then one to "all but self".

The APICs deliver by number, or to everybody; which kernel a CPU belongs to they do not know. So
what stays inside a kernel and what does not can be seen in the records: who takes an interrupt.
"""

from __future__ import annotations

from dataclasses import dataclass

from popcorn_edu.engine.trace import Event, Trace
from popcorn_edu.engine.world import Part, Run, World
from popcorn_edu.model.grouping import Groups, ipi_targets, who_hears
from popcorn_edu.model.machine import Machine

RESCHEDULE_VECTOR = 0xFD  # Linux: look at your run queue. Any vector would do here


class UnicastSent(Event):
    """The sender writes one APIC id into its interrupt command register: nobody else hears it."""

    says = "CPU {cpu} sends vector {vector:#x} to APIC id {destination:#x}"
    popcorn = "apic->send_IPI_single(), physical flat (G1)"
    kernel: int
    cpu: int
    destination: int
    vector: int


class BroadcastSent(Event):
    """The sender writes a shorthand instead of an address. It saves a loop, and it is the whole
    machine that is meant: an APIC has no list of a kernel's CPUs."""

    says = 'CPU {cpu} sends vector {vector:#x} to "{shorthand}"'
    popcorn = "what no_ipi_broadcast on the command line keeps a kernel from"
    kernel: int
    cpu: int
    shorthand: str
    vector: int


class VectorTaken(Event):
    """The CPU runs the handler that its own kernel has for this vector, whoever sent it. Here that
    is harmless; an INIT would reset the CPU in the middle of its kernel's work."""

    says = "CPU {cpu} of kernel {kernel} takes vector {vector:#x} and runs its kernel's handler"
    popcorn = "entry of the vector in that kernel's own interrupt table"
    kernel: int
    cpu: int
    vector: int


class Interrupts(Part):
    """How many interrupts the CPUs of each kernel have taken."""

    tables = ("taken",)

    def take(self, event: VectorTaken) -> None:
        self.taken[event.kernel] = self.taken.get(event.kernel, 0) + 1

    applies = {VectorTaken: take}


@dataclass(frozen=True)
class Stage:
    """What such a run is about."""

    machine: Machine
    cpus: tuple[int, ...]  # of each kernel the first: its place in a picture of the machine


def one_by_one_and_all(machine: Machine, groups: Groups, kernel: int) -> Run:
    """The first CPU of a kernel interrupts the kernel's other CPUs one by one, then by shorthand.

    Sending and delivery take the model's defaults, alike for every CPU.
    """
    cpu, vector, who = groups[kernel][0], RESCHEDULE_VECTOR, f"kernel {kernel}"
    owner = {number: k for k, members in enumerate(groups) for number in members}
    sending, way = machine.cost_ns("icr_write_cycles"), machine.cost_ns("ipi_delivery_cycles")
    trace = Trace({"scenario": "one_by_one_and_all", "machine": machine.name})
    time, arrivals = 0, []
    for target in ipi_targets(machine, groups, kernel, sender=cpu):
        time += sending
        sent = UnicastSent(kernel, cpu, target.destination, vector)
        arrivals.append((time + way, trace.append(time, who, None, sent), target.cpu))
    for at, cause, other in arrivals:
        time = max(time, at)
        trace.append(time, _isr(owner[other]), cause, VectorTaken(owner[other], other, vector))
    time += sending
    cause = trace.append(time, who, None, BroadcastSent(kernel, cpu, "all but self", vector))
    for other in who_hears(machine, groups, kernel, "all but self", cpu).cpus:
        event = VectorTaken(owner[other], other, vector)
        trace.append(time + way, _isr(owner[other]), cause, event)
    setup = Stage(machine, tuple(members[0] for members in groups))
    return Run(trace, lambda: World(setup, interrupts=Interrupts))


def _isr(kernel: int) -> str:
    return f"kernel {kernel} isr"

"""What is written down before a boot: the images, their addresses, and what may be wrong.

``mpart`` and its scripts turn a division of the machine into files: for each kernel a command
line, and where to load its image and its ramdisk. This is those files, as one value.

    plan = BootPlan.of(Partition.build("h8qg6-64", kernels=4))
    plan.images[1].line

Words: those of boot.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from popcorn_edu.engine.steps import Delay
from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.cmdline import LINE_BYTES_AT_MOST
from popcorn_edu.model.firmware import GIB, MIB
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import (
    IMAGE_BYTES,
    PRIMARY_IMAGE_ADDRESS,
    RAMDISK_BYTES,
    RAMDISK_OFFSET_BYTES,
)
from popcorn_edu.model.trampoline import LOW, PAGE_BYTES, LadderTimes

# what copy_ramdisk and wr_cmdline demand
RAMDISK_MAGIC = 0xDF  # [C] utils: ramdisk_magic, a new field of the setup header
RAMDISK_BYTES_BELOW = 4 * GIB  # [C] ramdisk_size has 32 bits
RAMDISK_ADDRESS_BELOW = 1 << 40  # [D] ramdisk_image has 32 bits, ramdisk_shift 8 more
HEADER_MAGIC = int.from_bytes(b"HdrS", "little")
PROTOCOL = 0x020A  # Linux 3.2's own
PROTOCOL_AT_LEAST = 0x0202  # [C] wr_cmdline: since then there is a pointer to the command line
COMMAND_LINE_BELOW = 1 * MIB  # [C] wr_cmdline's limit for the buffer

# what kexec loads
LINKED_AT = PRIMARY_IMAGE_ADDRESS  # [C] kexec: each segment goes to ADDR + (p_paddr - 16 MiB)
MAP_BYTES = IMAGE_BYTES  # [C] kexec maps 20 MiB of /dev/mem


class Image(NamedTuple):
    """One kernel, as its boot_args files describe it."""

    cpus: tuple[int, ...]  # the first is the one it starts on
    memory: tuple[tuple[int, int], ...]  # (start, end)
    address: int  # where its image is loaded: the beginning of its memory
    ramdisk: int
    line: str


# A vmlinux of Linux 3.2 for x86-64: (p_paddr, bytes) of text, data, per-CPU data, init. Model
# default: the sizes depend on the configuration.
SEGMENTS = (
    (0x1000000, 0x5E8000),
    (0x1600000, 0x0D6000),
    (0x16D6000, 0x015000),
    (0x16EB000, 0x3A5000),
)


@dataclass(frozen=True)
class BootPlan:
    """Every kernel's image, and what may be wrong with the machine or the files.

    reserve     (start, end, tenant) of RAM that is no kernel's
    line_bytes  how much of a command line the buffer holds
    buffer      where the boot loader put it
    deaf        CPUs that never answer
    """

    images: tuple[Image, ...]
    reserve: tuple[tuple[int, int, str], ...] = ()
    segments: tuple[tuple[int, int], ...] = SEGMENTS
    ramdisk_bytes: int = RAMDISK_BYTES
    line_bytes: int = LINE_BYTES_AT_MOST
    buffer: int = LOW["command line"]
    deaf: tuple[int, ...] = ()

    @classmethod
    def of(cls, partition) -> BootPlan:
        """The boot of a partition's kernels, each at the beginning of its memory."""
        return cls(
            tuple(
                _image(k, kernel, partition.command_line(k))
                for k, kernel in enumerate(partition.kernels)
            ),
            tuple((tenant.start, tenant.end, tenant.name) for tenant in partition.reserve),
        )

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPU that each kernel starts on."""
        return tuple(image.cpus[0] for image in self.images)

    @property
    def secondaries(self) -> range:
        return range(1, len(self.images))

    def with_image(self, kernel: int, **changes) -> BootPlan:
        image = self.images[kernel]._replace(**changes)
        return replace(self, images=(*self.images[:kernel], image, *self.images[kernel + 1 :]))

    def plain(self) -> dict:
        """As it is kept in a file."""
        fields = ("reserve", "segments", "ramdisk_bytes", "line_bytes", "buffer", "deaf")
        return {"images": [list(image) for image in self.images]} | {
            name: getattr(self, name) for name in fields
        }

    @classmethod
    def from_plain(cls, about: dict) -> BootPlan:
        images = tuple(
            Image(tuple(cpus), tuple(map(tuple, memory)), *rest)
            for cpus, memory, *rest in about["images"]
        )
        return cls(
            images,
            tuple(map(tuple, about["reserve"])),
            tuple(map(tuple, about["segments"])),
            about["ramdisk_bytes"],
            about["line_bytes"],
            about["buffer"],
            tuple(about["deaf"]),
        )


def _image(k: int, kernel, line: str) -> Image:
    memory = tuple((piece.start, piece.end) for piece in kernel.memory)
    if not kernel.cpus or not memory:
        what = "memory" if kernel.cpus else "CPU"
        raise PopcornError(f"kernel {k} of this plan has no {what}; it cannot boot")
    start, end = memory[0]
    offset = RAMDISK_OFFSET_BYTES
    if offset + RAMDISK_BYTES > end - start:  # a small share, for which the scripts were not made
        offset = (end - start) // 2 // PAGE_BYTES * PAGE_BYTES
    return Image(tuple(kernel.cpus), memory, start, start + offset, line)


FAILURES = {
    "": "nothing is wrong",
    "cpu owned": "the target CPU still belongs to the primary",
    "no answer": "the target CPU never wakes up",
    "no extra map": "the trampoline lacks the extra 1 GiB map: no kernel above 4 GiB comes up",
    "above 512 GiB": "the kernel is loaded above 512 GiB, beyond the one PDPT",
    "stuck": "the early commit's marker test, for every kernel: 'Stuck ??'",
    "line too long": "the command line is longer than its buffer",
    "buffer too high": "the boot loader put the command line above 1 MiB: no kernel gets one",
    "ramdisk not aligned": "the ramdisk's address is no multiple of a page",
}


def failing(plan: BootPlan, failure: str, kernel: int) -> dict:
    """What to change in the setup so that this goes wrong for that kernel."""
    image = plan.images[kernel]
    if failure == "cpu owned":
        return {"plan": plan.with_image(0, cpus=(*plan.images[0].cpus, image.cpus[0]))}
    if failure == "no answer":
        return {"plan": replace(plan, deaf=(image.cpus[0],))}
    if failure == "no extra map":
        if image.address < 4 * GIB:
            raise PopcornError(
                f"failure='no extra map' wants a kernel above 4 GiB, and kernel {kernel} is at "
                f"{image.address:#x}"
            )
        return {"extra_map": False}
    if failure == "above 512 GiB":
        moved = 512 * GIB
        ramdisk = image.ramdisk - image.address + moved
        return {"plan": plan.with_image(kernel, address=moved, ramdisk=ramdisk)}
    if failure == "stuck":
        return {"stuck_bug": True}
    if failure == "line too long":
        return {"plan": plan.with_image(kernel, line=_too_long(image.line, plan.line_bytes))}
    if failure == "buffer too high":
        return {"plan": replace(plan, buffer=2 * MIB)}
    if failure == "ramdisk not aligned":
        return {"plan": plan.with_image(kernel, ramdisk=image.ramdisk + 0x200)}
    if failure:
        near = near_names(failure, filter(None, FAILURES))
        raise PopcornError(f"there is no failure {failure!r}; {near}")
    return {"plan": plan}


def _too_long(line: str, room: int) -> str:
    """The line behind a parameter so long that its own last parameter falls off."""
    last = line.rfind(" ")
    return "note=" + "x" * (room - last - len("note= ")) + " " + line


@dataclass(frozen=True, kw_only=True)
class BootChoices:
    """The boot's share of a run's setup.

    parallel   the operator starts all boots at once
    extra_map  the trampoline maps 1 GiB more for a kernel above 4 GiB
    stuck_bug  the marker test as an early commit had it
    """

    FIXED = ("plan", "parallel")

    plan: BootPlan
    parallel: bool = False
    extra_map: bool = True
    stuck_bug: bool = False

    @cached_property
    def times(self) -> Times:
        return Times(self.machine)


class Times(LadderTimes):
    """How long each step of a boot takes, from the machine's cost table."""

    # Where a kernel's eight seconds go, in thousandths: model default.
    INIT_SHARES = {"early": 2, "timer": 98, "devices": 300, "rest": 600}

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        ns = machine.cost_ns
        self.program = Delay(ns("program_start_ns"))
        self.prepare = Delay(ns("boot_call_ns"))
        self.head = Delay(ns("kernel_head_ns"))
        self.wait_ns = ns("operator_wait_ns")
        self.own_cpu = Delay(self.init.ns + 2 * (self.accept.ns + self.settle.ns))
        self._bytes_per_ns = machine.costs["devmem_copy_bytes_per_ns"].value
        self._init_ns = ns("kernel_init_ns")

    def copy(self, count: int) -> Delay:
        return Delay(count // max(1, self._bytes_per_ns))

    def share(self, what: str) -> Delay:
        return Delay(self._init_ns * self.INIT_SHARES[what] // 1000)


class Below(NamedTuple):
    """Stories of a booting kernel that are told further down: ``(world, kernel)`` each."""

    join: Callable[..., Generator]  # the messaging layer's check-in
    blacklist: Callable[..., Generator] | None = None  # reads pci_dev_flags=, given as text
    scan: Callable[..., Generator] | None = None  # the filtered look for devices

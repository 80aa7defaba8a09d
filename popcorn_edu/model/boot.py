"""How a second kernel starts on a machine where one already runs.

No firmware and no hypervisor helps. The operator copies a kernel and its ramdisk into memory that
the running kernel was told to leave alone, and the running kernel, the primary, wakes a CPU that
it was told to leave alone. That CPU wakes as every x86 CPU does, in the 16-bit real mode of 1978
and below 1 MiB, and climbs from there to the 64-bit kernel by a small program, the trampoline.

Words
    operator     the person, or the script, at the primary's shell
    primary      kernel 0; it boots the others, one after the other
    target CPU   the CPU that the new kernel starts on; it belongs to nobody before
    trampoline   the program below 1 MiB that the target CPU runs first
    marker       a word in the trampoline; 0xA5A5A5A5 proves that the trampoline runs, no more
    boot_params  the page that tells a kernel its command line and its ramdisk. There is one: the
                 primary's own, rewritten for each boot. So boots must be serial
    stage        how far a kernel has come: see TRANSITIONS

Generation modelled: G1 (Shelton 2012-13). Facts: popcorn-facts sections 1.2 to 1.4, times 9.

Left out here: the console, a secondary's root file system, and what a kernel does for most of its
eight seconds. A spinning primary still serves interrupts (its waits take no CPU). A kernel whose
CPU is reset under it counts as failed, but here its messages are still answered.
"""

from __future__ import annotations

from collections.abc import Generator

from popcorn_edu.engine.steps import Begin, Until
from popcorn_edu.engine.trace import Event, Word
from popcorn_edu.engine.world import WorldError
from popcorn_edu.model.bootplan import (
    COMMAND_LINE_BELOW,
    FAILURES,
    HEADER_MAGIC,
    LINKED_AT,
    MAP_BYTES,
    PROTOCOL,
    PROTOCOL_AT_LEAST,
    RAMDISK_ADDRESS_BELOW,
    RAMDISK_BYTES_BELOW,
    RAMDISK_MAGIC,
    Below,
    BootChoices,
    BootPlan,
    Image,
    failing,
)
from popcorn_edu.model.cmdline import apply
from popcorn_edu.model.firmware import hex_range
from popcorn_edu.model.topology import cpu_list
from popcorn_edu.model.trampoline import (
    LOW,
    PAGE_BYTES,
    TRAMPOLINE_ADDRESS,
    InitAsserted,
    KernelJumped,
    Ladder,
    LongModeEntered,
    MarkerMissing,
    Mode,
    ProtectedModeEntered,
    RealModeEntered,
    TrampolinePatched,
    TrampolineReserved,
    TripleFault,
    WrongKernelEntered,
    wait_for_marker,
    wake,
)

__all__ = [  # what a boot is planned with is offered here too: ``boot`` is where one looks for it
    "FAILURES", "Below", "Boot", "BootChoices", "BootPlan", "Image", "failing",
]  # fmt: skip

BOOT_PARAMS_ADDRESS = LOW["boot_params"]


# -- how far a kernel has come -------------------------------------------------------------------


class Stage(Word):
    """How far a kernel has come."""

    OFF = 0
    LOADED = 1
    INIT = 2
    REAL = 3
    PROTECTED = 4
    LONG = 5
    KERNEL = 6
    CHECKED_IN = 7
    FAILED = 8


# -- events: the operator ------------------------------------------------------------------------


class PrimaryBooted(Event):
    """The primary is limited, too: it boots with boot_args_0.args, so that it leaves alone the
    CPUs and the memory of the kernels that will come."""

    says = "kernel {kernel}, the primary, runs on CPU {cpu}; the firmware booted it"
    popcorn = "boot_args_0.args, written by mpart (mklinux-utils)"
    kernel: int
    cpu: int


class OwnCpuStarted(Event):
    """A kernel with more than one CPU starts the others itself, in the ordinary way of an SMP
    kernel, but only those that its present_mask names."""

    says = "kernel {kernel} starts its own CPU {cpu}"
    popcorn = "smp_init(), do_boot_cpu(); 'breaks clustering' comment in trampoline.c (G1)"
    kernel: int
    cpu: int


class ElfStripped(Event):
    """kexec wants a plain ELF file. One image serves all secondaries: what makes them differ is
    the command line."""

    says = "the operator strips vmlinux to vmlinux.elf: {segments} segments, {bytes:,} bytes"
    popcorn = "create_elf.sh (mklinux-utils)"
    segments: int
    bytes: int


class BootArgsWritten(Event):
    """The plan as files: for each kernel its command line and the addresses to load it at."""

    says = "mpart plans kernel {kernel}: CPU {cpu}, kernel at {address:#x}, ramdisk at {ramdisk:#x}"
    popcorn = "mpart, generate_all.sh: boot_args_N.args, boot_args_N.param (mklinux-utils)"
    kernel: int
    cpu: int
    address: int
    ramdisk: int


class RamdiskCopied(Event):
    """The ramdisk goes straight into physical memory through /dev/mem. Nothing checks whose
    memory that is: the plan is the only protection."""

    says = "copy_ramdisk copies the ramdisk of kernel {kernel} to {address:#x} ({bytes:,} bytes)"
    popcorn = "copy_ramdisk: mmap of /dev/mem (mklinux-utils)"
    kernel: int
    address: int
    bytes: int


class RamdiskNoted(Event):
    """Where the ramdisk is goes into the setup header inside boot_params. The old field has 32
    bits; a second one, new in Popcorn, holds bits 32 to 39, and a magic number says so."""

    says = (
        "copy_ramdisk notes for kernel {kernel}: ramdisk_image {image:#x}, ramdisk_shift "
        "{shift}, ramdisk_size {bytes:,}, ramdisk_magic {magic:#x}"
    )
    popcorn = "ramdisk_image, ramdisk_shift, ramdisk_size, ramdisk_magic (mklinux-utils)"
    kernel: int
    image: int
    shift: int
    bytes: int
    magic: int


class RamdiskReadBack(Event):
    """copy_ramdisk reads the header again: a write through /dev/mem reports no error by itself."""

    says = "copy_ramdisk reads back: the ramdisk of kernel {kernel} is at {address:#x}"
    popcorn = "copy_ramdisk: read back and compare (mklinux-utils)"
    kernel: int
    address: int


class RamdiskRefused(Event):
    """Memory is mapped in pages, and the header's fields have few bits: what does not fit is
    refused before anything is written."""

    says = "copy_ramdisk refuses {address:#x} for kernel {kernel}: {why}; the operator sees it"
    popcorn = "copy_ramdisk: address and size checks (mklinux-utils)"
    kernel: int
    address: int
    why: str


class SetupHeaderChecked(Event):
    """Before it overwrites memory, wr_cmdline makes sure that this page is what it takes it for:
    the letters HdrS, a protocol that has a command-line pointer, a buffer below 1 MiB."""

    says = "wr_cmdline finds 'HdrS', protocol {protocol:#x}, and the buffer at {buffer:#x}"
    popcorn = "wr_cmdline; get_boot_params_addr(), system call 313 (mklinux-utils)"
    kernel: int
    protocol: int
    buffer: int


class CommandLineRefused(Event):
    """What does not look like boot_params is not written to, and a command line above 1 MiB is
    out of the program's reach."""

    says = "wr_cmdline writes nothing for kernel {kernel}: {why}; the operator sees it"
    popcorn = "wr_cmdline: HdrS, protocol >= 0x0202, limit 0x100000 (mklinux-utils)"
    kernel: int
    why: str


class CommandLineWritten(Event):
    """The buffer is the primary's own, and so is boot_params: what stood there for the kernel
    before is gone. That kernel must have read it by now."""

    says = "wr_cmdline writes the command line of kernel {kernel}, {bytes} bytes: {line}"
    popcorn = "wr_cmdline FILE (mklinux-utils)"
    kernel: int
    bytes: int
    line: str


class CommandLineTruncated(Event):
    """The header says how much the buffer holds, and wr_cmdline keeps to it. The end of the line
    is where the memory limits stand."""

    says = "wr_cmdline cuts the line of kernel {kernel} off after {kept} bytes; lost: {lost}"
    popcorn = "wr_cmdline: truncated to cmdline_size (mklinux-utils)"
    kernel: int
    kept: int
    lost: str


class ImageMapped(Event):
    """Physical memory becomes a piece of kexec's own address space, 20 MiB of it: the room that an
    image has."""

    says = "kexec maps {bytes:,} bytes of physical memory at {address:#x} for kernel {kernel}"
    popcorn = "kexec -d -a ADDR -l vmlinux.elf -t elf-x86_64 --args-none: 0x1400000 of /dev/mem"
    kernel: int
    address: int
    bytes: int


class SegmentLoaded(Event):
    """The kernel was linked for 16 MiB and can run anywhere: each segment keeps its distance from
    the beginning of the image."""

    says = "kexec copies segment {segment} of kernel {kernel} to {address:#x} ({bytes:,} bytes)"
    popcorn = "kexec -l: PT_LOAD to ADDR + (p_paddr - 16 MB) (mklinux-kexec)"
    kernel: int
    segment: int
    address: int
    bytes: int


class SegmentRefused(Event):
    """kexec maps 20 MiB of memory at the load address. What does not fit is not loaded."""

    says = (
        "kexec cannot load segment {segment} of kernel {kernel}: it ends {over:,} bytes behind "
        "the 20 MiB that are mapped; the operator sees it"
    )
    popcorn = "kexec: 0x1400000 bytes of /dev/mem (mklinux-kexec)"
    kernel: int
    segment: int
    over: int


class ImageLoaded(Event):
    """The kernel is in memory, and nobody runs it: it takes a CPU to be a kernel."""

    says = "the image of kernel {kernel} is in memory at {address:#x}"
    popcorn = "kexec -l (mklinux-kexec)"
    kernel: int
    address: int


class BootCalled(Event):
    """A program cannot send an INIT to a CPU; the primary can. So kexec asks it, by a system call
    that takes two arguments (the first attempt, reboot(), had room for one)."""

    says = "kexec -b {cpu} calls multikernel_boot({cpu}, {address:#x}) for kernel {kernel}"
    popcorn = "system call 312, multikernel_boot (G1)"
    kernel: int
    cpu: int
    address: int


class BootReturned(Event):
    """The primary's answer. 0 says that the marker was seen, and nothing about the new kernel."""

    says = "multikernel_boot returns {result} to the operator (CPU {cpu})"
    popcorn = "return value of multikernel_boot() (G1)"
    kernel: int
    cpu: int
    result: int


class OperatorGaveUp(Event):
    """Nothing reports a kernel that died after the trampoline. All that the script can do is wait
    as long as a boot takes at most, and then look."""

    says = "the operator has waited {seconds} s for kernel {kernel} and gives it up"
    popcorn = "mklinux_boot_all.sh: 20 s for each secondary (mklinux-utils)"
    kernel: int
    seconds: int


# -- events: the primary -------------------------------------------------------------------------


class CpuRefused(Event):
    """A CPU that this kernel knows as present runs this kernel's own work. Resetting it would
    pull the floor from under the primary."""

    says = (
        "kernel 0 refuses: CPU {cpu} (APIC id {apic}) is its own; take it offline first. "
        "Kernel {kernel} stays off, and the operator sees it"
    )
    popcorn = "multikernel_boot(): cpu_present_to_apicid(cpu) != BAD_APICID (G1)"
    kernel: int
    cpu: int
    apic: int


class ApicIdFound(Event):
    """The CPU is not present for the primary, but the firmware's table still knows how to
    address it."""

    says = "kernel 0 finds CPU {cpu} not present, and its APIC id {apic} in the firmware's table"
    popcorn = "multikernel_boot(): x86_bios_cpu_apicid[cpu] (G1)"
    kernel: int
    cpu: int
    apic: int


# -- events: the new kernel ----------------------------------------------------------------------


class BootParamsCopied(Event):
    """A kernel's first act in C: copy boot_params and the command line to memory of its own. From
    now on the page may be rewritten for the next kernel, and not before."""

    says = "kernel {kernel} copies boot_params and the command line that was written for {wanted}"
    popcorn = "copy_bootdata(), x86_64_start_kernel() (Linux)"
    kernel: int
    meant_for: int
    wanted: str


class WrongLineTaken(Event):
    """The page was rewritten too early. Nothing in it says whom it is for, so the kernel takes
    another one's CPUs and memory for its own. What follows is not defined: the model ends this
    kernel here (model default)."""

    says = (
        "kernel {kernel} believes the line of kernel {other}: it will run in the memory of "
        "kernel {other}, and nobody notices"
    )
    popcorn = "one boot_params page for all secondaries (derived: boots must be serial)"
    kernel: int
    other: int


class EarlyParametersParsed(Event):
    """The command line is all that makes this kernel a secondary: mklinux sets mklinux_boot."""

    says = "kernel {kernel} reads {parameters} parameters; a secondary (mklinux): {mklinux}"
    popcorn = 'early_param("mklinux"): mklinux_boot = 1, multikernel.c (G1)'
    kernel: int
    parameters: int
    mklinux: bool


class MemoryRangeKept(Event):
    """The firmware's map shows all RAM to every kernel. memmap= and mem= cut it down to this
    kernel's own; nothing but this stops it from using the rest."""

    says = "kernel {kernel} keeps the RAM from {start:#x} to {end:#x}"
    popcorn = "memmap=, mem=: parse_memmap_opt() (Linux)"
    kernel: int
    start: int
    end: int


class ForeignMemoryTaken(Event):
    """The command line did not say that this RAM is another's. Two kernels now hand out the same
    pages. What follows is not defined: the model ends this kernel here (model default)."""

    says = "kernel {kernel} takes {where} for its own, which is {whose}; nobody notices"
    popcorn = "nothing but memmap= and mem= keeps kernels apart (G1)"
    kernel: int
    where: str
    whose: str


class KernelPanicked(Event):
    """The kernel stops at once, with all that runs on it. Its CPU halts, its memory stays as it is,
    and the others run on: no common kernel or hypervisor below them could have fallen, too. Nor
    is there anybody to tell them. They notice a silence, or nothing."""

    says = "kernel {kernel} panics: {why}; nobody notices"
    popcorn = "panic() (Linux)"
    halts = "kernel"
    kernel: int
    why: str


class CpusPresent(Event):
    """All CPUs are in the firmware's table; present_mask (a list of CPUs, despite its name) says
    which of them this kernel may start."""

    says = "kernel {kernel} marks CPUs {cpus} present"
    popcorn = "present_mask=, cpu_present_mask (G1)"
    kernel: int
    cpus: str


class ForeignCpusTaken(Event):
    """This kernel will send an INIT to each CPU that it believes to be its own, and so stop the
    kernels that run there. The model ends it here (model default)."""

    says = "kernel {kernel} takes CPUs {cpus} for its own, which are {whose}"
    popcorn = "without present_mask= every CPU of the table is present (G1)"
    kernel: int
    cpus: str
    whose: str


class TimerPreset(Event):
    """A kernel measures its timer against the PC's clock chip, whose interrupt belongs to the
    primary. So a secondary is told the frequency."""

    says = "kernel {kernel} takes {ticks:,} timer ticks a jiffy from its line and measures nothing"
    popcorn = "calibrate_APIC_clock() returns early: lapic_timer_frequency (G1)"
    kernel: int
    ticks: int


class TimerHangs(Event):
    """Without lapic_timer= the kernel waits for clock interrupts that go to the primary."""

    says = "kernel {kernel} waits for a clock interrupt that never comes; nobody notices"
    popcorn = "calibrate_APIC_clock() without lapic_timer= (G1)"
    kernel: int


class RkinfoFound(Event):
    """A secondary does not make the table of windows; boot_params says where the primary's is."""

    says = "kernel {kernel} finds rkinfo at {address:#x} in its boot_params"
    popcorn = "boot_params.pcn_kmsg_master_window, pcn_kmsg_init() (G1)"
    kernel: int
    address: int


class CheckedIn(Event):
    """The end of a boot: the kernel is one of them. This says that it is up; the marker did not."""

    says = "kernel {kernel} is up: it has checked in (kernels up before it: {others})"
    popcorn = "do_checkin(), subsys_initcall(pcn_kmsg_init) (G1)"
    kernel: int
    others: int


# The life of a kernel. Drawn in the labs from this very table. A marker that is missed ends a
# boot only as long as the CPU is not awake: a late CPU climbs on, whatever was reported.
TRANSITIONS = {
    Stage.OFF: {
        PrimaryBooted: Stage.KERNEL,
        ImageLoaded: Stage.LOADED,
        RamdiskRefused: Stage.FAILED,
        CommandLineRefused: Stage.FAILED,
        SegmentRefused: Stage.FAILED,
    },
    Stage.LOADED: {CpuRefused: Stage.FAILED, InitAsserted: Stage.INIT},
    Stage.INIT: {RealModeEntered: Stage.REAL, MarkerMissing: Stage.FAILED},
    Stage.REAL: {ProtectedModeEntered: Stage.PROTECTED, MarkerMissing: Stage.REAL},
    Stage.PROTECTED: {
        LongModeEntered: Stage.LONG,
        TripleFault: Stage.FAILED,
        MarkerMissing: Stage.PROTECTED,
    },
    Stage.LONG: {
        KernelJumped: Stage.KERNEL,
        TripleFault: Stage.FAILED,
        WrongKernelEntered: Stage.FAILED,
        MarkerMissing: Stage.LONG,
    },
    Stage.KERNEL: {
        CheckedIn: Stage.CHECKED_IN,
        WrongLineTaken: Stage.FAILED,
        ForeignMemoryTaken: Stage.FAILED,
        ForeignCpusTaken: Stage.FAILED,
        KernelPanicked: Stage.FAILED,
        TimerHangs: Stage.FAILED,
        MarkerMissing: Stage.KERNEL,
    },
    Stage.CHECKED_IN: {MarkerMissing: Stage.CHECKED_IN, KernelPanicked: Stage.FAILED},
    Stage.FAILED: {RealModeEntered: Stage.REAL, MarkerMissing: Stage.FAILED},
}


# -- tables --------------------------------------------------------------------------------------


class Boot(Ladder):
    """The machine while kernels start on it. The CPUs that climb: see Ladder.

    stage        [kernel] -> Stage, see TRANSITIONS
    image_at     [kernel] -> where its image is in memory
    owner        [cpu] -> the kernel that runs on it
    target_of    [cpu] -> the kernel that it is woken for
    boot_params  [field] -> value, in the one page that all kernels are booted from
    meant_for    [what] -> for which kernel "ramdisk" and "command line" were written there
    calling      [0] -> the CPU that the primary is starting just now
    line         [kernel] -> the command line it has copied
    ram          [kernel, start] -> end of a range it uses
    present      [kernel] -> the CPUs it believes to be its own
    timer        [kernel] -> timer ticks a jiffy
    """

    tables = (
        "stage", "image_at", *Ladder.tables, "owner", "target_of", "boot_params", "meant_for",
        "calling", "line", "ram", "present", "timer",
    )  # fmt: skip
    private = ("line", "ram", "present", "timer")
    not_by_kernel = (*Ladder.not_by_kernel, "owner", "target_of", "calling")

    def moves(self, kernel: int, event: Event) -> None:
        stage = self.stage.get(kernel, Stage.OFF)
        after = TRANSITIONS[stage].get(type(event))
        if after is None:
            raise WorldError(
                f"{type(event).__name__} is not possible: kernel {kernel} is {stage} here"
            )
        self.stage[kernel] = after

    def kernel_moves(self, event: Event) -> None:
        self.moves(event.kernel, event)

    def cpu_moves(self, event: Event) -> None:
        if event.cpu not in self.target_of:
            raise WorldError(f"nobody has asked for CPU {event.cpu}: it cannot boot")
        self.moves(self.target_of[event.cpu], event)

    def climbs(self, event: Event) -> None:
        """The kernel's stage moves, and so does the CPU."""
        self.cpu_moves(event)
        Ladder.applies[type(event)](self, event)

    # the operator

    def primary_booted(self, event: PrimaryBooted) -> None:
        self.kernel_moves(event)
        self.owner[event.cpu], self.mode[event.cpu] = event.kernel, Mode.LONG
        image = self.setup.plan.images[event.kernel]
        self.low[self.setup.plan.buffer] = self.line[event.kernel] = image.line
        self.present[event.kernel] = cpu_list(image.cpus)
        self.ram.update(((event.kernel, start), end) for start, end in image.memory)
        self.meant_for.update({"command line": event.kernel, "ramdisk": event.kernel})
        self.boot_params.update(
            {
                "hdr.header": HEADER_MAGIC,
                "hdr.version": PROTOCOL,
                "hdr.cmd_line_ptr": self.setup.plan.buffer,
                "hdr.cmdline_size": self.setup.plan.line_bytes,
            }
        )

    def own_cpu_started(self, event: OwnCpuStarted) -> None:
        self.owner[event.cpu], self.mode[event.cpu] = event.kernel, Mode.LONG

    def ramdisk_noted(self, event: RamdiskNoted) -> None:
        kernel, image, shift, count, magic = event
        self.boot_params.update(
            {
                "hdr.ramdisk_image": image,
                "hdr.ramdisk_shift": shift,
                "hdr.ramdisk_size": count,
                "hdr.ramdisk_magic": magic,
            }
        )
        self.meant_for["ramdisk"] = kernel

    def command_line_written(self, event: CommandLineWritten) -> None:
        self.low[self.boot_params["hdr.cmd_line_ptr"]] = event.line
        self.meant_for["command line"] = event.kernel

    def image_loaded(self, event: ImageLoaded) -> None:
        self.kernel_moves(event)
        self.image_at[event.kernel] = event.address

    def boot_returned(self, event: BootReturned) -> None:
        self.calling.pop(0, None)

    # the primary and the target CPU

    def apic_id_found(self, event: ApicIdFound) -> None:
        self.calling[0] = event.cpu
        self.target_of[event.cpu] = event.kernel

    def init_asserted(self, event: InitAsserted) -> None:
        runs = self.owner.pop(event.cpu, None)
        if runs is not None:  # INIT asks nobody: the kernel that ran there is gone
            self.stage[runs] = Stage.FAILED
        self.climbs(event)

    def kernel_jumped(self, event: KernelJumped) -> None:
        self.climbs(event)
        self.owner[event.cpu] = event.kernel

    # the new kernel

    def boot_params_copied(self, event: BootParamsCopied) -> None:
        self.line[event.kernel] = self.low[self.boot_params["hdr.cmd_line_ptr"]]

    def memory_range_kept(self, event: MemoryRangeKept) -> None:
        self.ram[event.kernel, event.start] = event.end

    def cpus_present(self, event: CpusPresent) -> None:
        self.present[event.kernel] = event.cpus

    def timer_preset(self, event: TimerPreset) -> None:
        self.timer[event.kernel] = event.ticks

    applies = Ladder.applies | {
        PrimaryBooted: primary_booted,
        OwnCpuStarted: own_cpu_started,
        RamdiskNoted: ramdisk_noted,
        RamdiskRefused: kernel_moves,
        CommandLineRefused: kernel_moves,
        CommandLineWritten: command_line_written,
        SegmentRefused: kernel_moves,
        ImageLoaded: image_loaded,
        BootReturned: boot_returned,
        CpuRefused: kernel_moves,
        ApicIdFound: apic_id_found,
        InitAsserted: init_asserted,
        MarkerMissing: cpu_moves,
        RealModeEntered: climbs,
        ProtectedModeEntered: climbs,
        LongModeEntered: climbs,
        TripleFault: climbs,
        WrongKernelEntered: cpu_moves,
        KernelJumped: kernel_jumped,
        BootParamsCopied: boot_params_copied,
        WrongLineTaken: kernel_moves,
        ForeignMemoryTaken: kernel_moves,
        ForeignCpusTaken: kernel_moves,
        KernelPanicked: kernel_moves,
        MemoryRangeKept: memory_range_kept,
        CpusPresent: cpus_present,
        TimerPreset: timer_preset,
        TimerHangs: kernel_moves,
        CheckedIn: kernel_moves,
    }


# -- stories: the primary and its operator -------------------------------------------------------


def primary(world, below: Below) -> Generator:
    """The firmware has booted kernel 0, limited to its share; then the operator goes to work."""
    image = world.setup.plan.images[0]
    yield PrimaryBooted(0, image.cpus[0])
    for cpu in image.cpus[1:]:
        yield OwnCpuStarted(0, cpu)
    yield TrampolineReserved(0, TRAMPOLINE_ADDRESS)
    yield from below.join(world, 0)
    yield CheckedIn(0, 0)
    yield Begin("operator", operator(world, below))


def operator(world, below: Below) -> Generator:
    """Plan, then boot each secondary: one after the other, unless told otherwise."""
    plan, times = world.setup.plan, world.setup.times
    yield times.program
    yield ElfStripped(len(plan.segments), sum(count for _, count in plan.segments))
    for kernel in plan.secondaries:
        image = plan.images[kernel]
        yield BootArgsWritten(kernel, image.cpus[0], image.address, image.ramdisk)
    for kernel in plan.secondaries:
        if world.setup.parallel:
            yield Begin(f"operator {kernel}", boot_secondary(world, kernel, below))
        else:
            yield from boot_secondary(world, kernel, below)


def boot_secondary(world, kernel: int, below: Below) -> Generator:
    """mklinux_boot.sh N: ramdisk, command line, image, and then the CPU."""
    for prepare in (copy_ramdisk, write_command_line, load_image):
        if not (yield from prepare(world, kernel)):
            return
    yield from start_cpu(world, kernel, below)


def copy_ramdisk(world, kernel: int) -> Generator:
    """Copy it, note in boot_params where it is, and read that back. Returns whether it worked."""
    plan, times = world.setup.plan, world.setup.times
    address, count = plan.images[kernel].ramdisk, plan.ramdisk_bytes
    yield times.program
    if why := ramdisk_problem(address, count):
        yield RamdiskRefused(kernel, address, why)
        return False
    yield times.copy(count)
    yield RamdiskCopied(kernel, address, count)
    yield RamdiskNoted(kernel, address & 0xFFFF_FFFF, address >> 32, count, RAMDISK_MAGIC)
    noted = world.boot.boot_params
    yield RamdiskReadBack(kernel, noted["hdr.ramdisk_shift"] << 32 | noted["hdr.ramdisk_image"])
    return True


def ramdisk_problem(address: int, count: int) -> str:
    """Why copy_ramdisk refuses, or nothing."""
    if address % PAGE_BYTES:
        return "the address is no multiple of 4,096"
    if count >= RAMDISK_BYTES_BELOW:
        return "the ramdisk has 4 GB or more"
    if address >= RAMDISK_ADDRESS_BELOW:
        return "the address has more than 40 bits"
    return ""


def write_command_line(world, kernel: int) -> Generator:
    """Overwrite the primary's command-line buffer, as far as it goes. Returns whether it could."""
    plan, noted = world.setup.plan, world.boot.boot_params
    line, room = plan.images[kernel].line, noted["hdr.cmdline_size"]
    yield world.setup.times.program
    if why := header_problem(noted):
        yield CommandLineRefused(kernel, why)
        return False
    yield SetupHeaderChecked(kernel, noted["hdr.version"], noted["hdr.cmd_line_ptr"])
    if len(line) > room:
        yield CommandLineTruncated(kernel, room, line[room:])
    yield CommandLineWritten(kernel, len(line[:room]), line[:room])
    return True


def header_problem(noted: dict) -> str:
    """Why wr_cmdline refuses, or nothing."""
    if noted["hdr.header"] != HEADER_MAGIC:
        return "there is no 'HdrS'"
    if noted["hdr.version"] < PROTOCOL_AT_LEAST:
        return f"protocol {noted['hdr.version']:#x} has no pointer to a command line"
    if noted["hdr.cmd_line_ptr"] >= COMMAND_LINE_BELOW:
        return f"the buffer is at {noted['hdr.cmd_line_ptr']:#x}, not below 1 MiB"
    return ""


def load_image(world, kernel: int) -> Generator:
    """kexec -l: segment by segment. Returns whether it worked."""
    plan, times = world.setup.plan, world.setup.times
    address = plan.images[kernel].address
    yield times.program
    yield ImageMapped(kernel, address, MAP_BYTES)
    for number, (linked, count) in enumerate(plan.segments):
        over = linked - LINKED_AT + count - MAP_BYTES
        if over > 0:
            yield SegmentRefused(kernel, number, over)
            return False
        yield times.copy(count)
        yield SegmentLoaded(kernel, number, address + linked - LINKED_AT, count)
    yield ImageLoaded(kernel, address)
    return True


def start_cpu(world, kernel: int, below: Below) -> Generator:
    """kexec -b: ask the primary, and then wait for the new kernel, as long as the script does."""
    plan, times, boot = world.setup.plan, world.setup.times, world.boot
    cpu, address = plan.images[kernel].cpus[0], plan.images[kernel].address
    yield times.program
    yield BootCalled(kernel, cpu, address)
    yield Begin("kernel 0", multikernel_boot(world, kernel, cpu, address, below))
    returned = yield Until(BootReturned, kernel=kernel)
    if returned.event.result or boot.stage[kernel] == Stage.CHECKED_IN:
        return
    if not (yield Until(CheckedIn, kernel=kernel, within=times.wait_ns)):
        yield OperatorGaveUp(kernel, times.wait_ns // 1_000_000_000)


def multikernel_boot(world, kernel: int, cpu: int, address: int, below: Below) -> Generator:
    """System call 312, in the primary. One at a time: its waits spin (model default)."""
    boot = world.boot
    while 0 in boot.calling:
        yield Until(BootReturned)
    apic = world.setup.machine.apic_id(cpu)
    if boot.owner.get(cpu) == 0:
        yield CpuRefused(kernel, cpu, apic)
        yield BootReturned(kernel, cpu, -1)
        return
    yield ApicIdFound(kernel, cpu, apic)
    yield world.setup.times.prepare
    yield TrampolinePatched(cpu, address, BOOT_PARAMS_ADDRESS)
    yield from wake(world, cpu, apic, lambda world, kernel: start_kernel(world, kernel, below))
    alive = yield from wait_for_marker(world, cpu)
    yield BootReturned(kernel, cpu, 0 if alive else -1)


# -- stories: the new kernel ---------------------------------------------------------------------


def start_kernel(world, me: int, below: Below) -> Generator:
    """A Linux that begins, as far as it matters that it is not alone."""
    boot, plan, times = world.boot, world.setup.plan, world.setup.times
    yield times.head
    meant_for = boot.meant_for["command line"]
    yield BootParamsCopied(me, meant_for, "it" if meant_for == me else f"kernel {meant_for}")
    if meant_for != me:
        yield WrongLineTaken(me, meant_for)
        return
    yield times.share("early")
    if not (yield from read_early_parameters(world, me)):
        return
    yield from read_blacklist(world, me, below)
    # The timer before the devices: smp_prepare_cpus() runs before any initcall.
    yield times.share("timer")
    if not (yield from preset_timer(world, me)):
        return
    for cpu in plan.images[me].cpus[1:]:
        yield times.own_cpu
        yield OwnCpuStarted(me, cpu)
    yield times.share("devices")
    yield from look_for_devices(world, me, below)
    yield times.share("rest")
    yield RkinfoFound(me, boot.boot_params.get("pcn_kmsg_master_window", 0))
    yield from below.join(world, me)
    yield CheckedIn(me, others_up(world, me))


def others_up(world, me: int) -> int:
    return sum(
        stage == Stage.CHECKED_IN for kernel, stage in world.boot.stage.items() if kernel != me
    )


def read_early_parameters(world, me: int) -> Generator:
    """Cut the memory map and the CPUs to what the line allows. Returns whether that is its own."""
    plan, line = world.setup.plan, world.boot.line[me]
    seen = apply(line, world.setup.machine)
    words = {word.name for word in seen.line.parameters}
    yield EarlyParametersParsed(me, len(seen.line.parameters), "mklinux" in words)
    if seen.panic:
        yield KernelPanicked(me, seen.panic)
        return False
    for start, end, _ in seen.ram:
        yield MemoryRangeKept(me, start, end)
    if foreign := foreign_memory(plan, me, seen.ram):
        yield ForeignMemoryTaken(me, *foreign)
        return False
    yield CpusPresent(me, cpu_list(seen.present))
    if foreign := foreign_cpus(plan, me, seen.present):
        yield ForeignCpusTaken(me, *foreign)
        return False
    return True


def foreign_memory(plan: BootPlan, me: int, ranges) -> tuple[str, str] | None:
    """The first of these ranges' pieces that somebody else was given: where, and whose.

    The first 16 MiB are every kernel's to see, whatever its line says.
    """
    others = [
        (start, end, f"kernel {k}'s")
        for k, image in enumerate(plan.images)
        if k != me
        for start, end in image.memory
    ]
    others += [(start, end, f"the {tenant} area's") for start, end, tenant in plan.reserve]
    for start, end, _ in ranges:
        for low, high, whose in others:
            first, last = max(start, low, LINKED_AT), min(end, high)
            if first < last:
                return hex_range(first, last), whose
    return None


def foreign_cpus(plan: BootPlan, me: int, cpus) -> tuple[str, str] | None:
    """Those of these CPUs that are not this kernel's, and whose they are."""
    foreign = {*cpus} - {*plan.images[me].cpus}
    owners = [
        f"kernel {k}'s"
        for k, image in enumerate(plan.images)
        if k != me and not foreign.isdisjoint(image.cpus)
    ]
    if not foreign:
        return None
    whose = ", ".join(owners[:3]) + (" and others'" if len(owners) > 3 else "")
    return cpu_list(sorted(foreign)), whose or "no kernel's"


def preset_timer(world, me: int) -> Generator:
    """No clock chip to measure against: the line gives the frequency. Returns whether it did."""
    ticks = value_of(world.boot.line[me], "lapic_timer")
    if not ticks.isdigit():
        yield TimerHangs(me)
        return False
    yield TimerPreset(me, int(ticks))
    return True


def read_blacklist(world, me: int, below: Below) -> Generator:
    """pci_dev_flags= is read early, when there is no memory to allocate: sixteen entries."""
    if below.blacklist:
        yield from below.blacklist(world, me, value_of(world.boot.line[me], "pci_dev_flags"))


def look_for_devices(world, me: int, below: Below) -> Generator:
    if below.scan:
        yield from below.scan(world, me, None, cpu=world.setup.plan.images[me].cpus[0])


def value_of(line: str, name: str) -> str:
    """What stands behind ``name=`` on a command line, the last time it does; "" if nowhere."""
    values = [word.partition("=")[2] for word in line.split() if word.startswith(f"{name}=")]
    return values[-1] if values else ""

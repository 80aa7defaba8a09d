"""How a CPU wakes up, and climbs from 1978 to a 64-bit kernel.

Whoever wants to start another CPU sends it an INIT, which resets it, and a STARTUP IPI, which
names a page below 1 MiB to begin at. There the CPU runs in real mode, as an 8086 did. A small
program in that page, the trampoline, takes it through protected mode to long mode and jumps to a
kernel. Linux starts each CPU this way; Popcorn does so with a trampoline of its own, which jumps
to another kernel's beginning.

Words
    trampoline  the program below 1 MiB; ``trampoline_64_bsp.S`` in Popcorn
    marker      a word in it; 0xA5A5A5A5 proves that the trampoline runs, and no more
    STARTUP IPI an interrupt that carries the number of the page to begin at
    CR0.PE      protected mode;  CR4.PAE  wide page-table entries;  EFER.LME  long mode, please;
    CR0.PG      paging, and with LME long mode itself;  CR3  where the page tables are

Facts: popcorn-facts section 1.4, times 9. Left out: the caches and TLBs themselves, and what the
firmware did before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from popcorn_edu.engine.steps import Begin, Delay, Until
from popcorn_edu.engine.trace import Event, Word
from popcorn_edu.engine.world import Part
from popcorn_edu.model.firmware import KIB
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import LOW_TENANTS

PAGE_BYTES = 4 * KIB

LOW = {tenant.name: tenant.start for tenant in LOW_TENANTS}
TRAMPOLINE_ADDRESS = LOW["trampoline"]  # [C] 0x92000 "usually", says the comment in the source
# Where in its page the trampoline has its words: model default.
STATUS_ADDRESS = TRAMPOLINE_ADDRESS + 0x08  # trampoline_status_bsp
KERNEL_PHYS_ADDRESS = TRAMPOLINE_ADDRESS + 0x10  # kernel_phys_addr
BOOT_PARAMS_PHYS_ADDRESS = TRAMPOLINE_ADDRESS + 0x18  # boot_params_phys_addr
GDT_ADDRESS = TRAMPOLINE_ADDRESS + 0x20
STACK_TOP = TRAMPOLINE_ADDRESS + 2 * PAGE_BYTES  # [C] 4 KiB of stack at the trampoline's end
PML4_ADDRESS = STACK_TOP  # [C] 6 pages: 1 PML4, 1 PDPT, 4 page directories
TABLE_PAGES = 6
PDPT_ADDRESS = PML4_ADDRESS + PAGE_BYTES
EXTRA_ADDRESS = PML4_ADDRESS + TABLE_PAGES * PAGE_BYTES  # [C] pgtable_extra_bsp, one more page
WARM_RESET_OFFSET, WARM_RESET_SEGMENT = 0x467, 0x469  # the PC's warm-reset vector

MARKER = 0xA5A5A5A5  # [C] trampoline_64_bsp.S
POLLS_AT_MOST = 50_000  # [C] smpboot.c: every 100 us, so 5 s
ENTRIES_PER_TABLE = 512

# control register bits
CR0_RESET, CR0_PE, CR0_PG = 0x10, 1 << 0, 1 << 31
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10


class Mode(Word):
    """What a CPU is doing: the rungs of the ladder that every x86 CPU climbs."""

    WAITING = 0  # for a STARTUP IPI, after INIT
    REAL = 1
    PROTECTED = 2
    LONG = 3
    SHUT_DOWN = 4


# -- events: waking a CPU ----------------------------------------------------------------------


class TrampolineReserved(Event):
    """A CPU that wakes up can only address the first megabyte. So the primary keeps a piece of it
    at its own boot and copies the trampoline there, long before anybody wants to use it."""

    says = "kernel {kernel} copies the trampoline for new kernels to {address:#x}, below 1 MiB"
    popcorn = 'setup_trampolines_bsp(), "TRAMPOLINE_BSP" (G1)'
    kernel: int
    address: int


class TrampolinePatched(Event):
    """The trampoline is the same for every kernel; two words in the copy tell this one where to
    jump and where its boot_params are."""

    says = (
        "kernel 0 writes kernel_phys_addr {address:#x} and boot_params_phys_addr "
        "{boot_params:#x} into the trampoline"
    )
    popcorn = "mkbsp_boot_cpu(): kernel_phys_addr, boot_params_phys_addr (G1)"
    cpu: int
    address: int
    boot_params: int


class WarmResetSet(Event):
    """A leftover of the first multiprocessor PCs: where a CPU goes after a reset that is not a
    cold start. Modern CPUs take the address from the STARTUP IPI."""

    says = "kernel 0 sets the warm-reset vector to {segment:#x}:{offset:#x}"
    popcorn = "smpboot_setup_warm_reset_vector() (Linux)"
    cpu: int
    segment: int
    offset: int


class EsrCleared(Event):
    """Old errors of the local APIC would be taken for errors of this boot."""

    says = "kernel 0 clears its APIC's error status register"
    popcorn = "apic_write(APIC_ESR, 0) (Linux)"
    cpu: int


class InitAsserted(Event):
    """INIT resets the CPU, whatever it does: it forgets its mode and waits for a STARTUP IPI.
    That is why the check for the owner comes first."""

    says = "kernel 0 asserts INIT on CPU {cpu} (APIC id {apic}): it stops and waits"
    popcorn = "wakeup_secondary_cpu_via_init() (Linux); mdelay(10) follows"
    cpu: int
    apic: int


class InitDeasserted(Event):
    """Ten milliseconds later the reset line is let go. Only very old CPUs care."""

    says = "kernel 0 deasserts INIT on CPU {cpu}"
    popcorn = "wakeup_secondary_cpu_via_init() (Linux)"
    cpu: int
    apic: int


class StartupIpiSent(Event):
    """A STARTUP IPI names a page below 1 MiB, by its number: the CPU starts at its beginning. It
    is sent twice because the first may be lost; a CPU that runs ignores the second."""

    says = (
        "kernel 0 sends CPU {cpu} STARTUP IPI {number} with vector {vector:#x}: begin at "
        "page {vector:#x}"
    )
    popcorn = "APIC_DM_STARTUP | (start_ip >> 12); udelay(300), udelay(200) (Linux)"
    cpu: int
    apic: int
    vector: int
    number: int


class MarkerAwaited(Event):
    """The primary cannot see another CPU run. It can only look at a word in memory."""

    says = "kernel 0 looks for CPU {cpu}'s marker at {address:#x}, every 100 us, 50,000 times"
    popcorn = "mkbsp_boot_cpu(): trampoline_status_bsp (G1)"
    cpu: int
    address: int


class MarkerSeen(Event):
    """The trampoline runs. Whether the kernel behind it will come up, this does not say."""

    says = "kernel 0 sees the marker of CPU {cpu} at look {looks}: its trampoline runs"
    popcorn = "trampoline_status_bsp == 0xA5A5A5A5 (G1)"
    cpu: int
    looks: int


class MarkerMissing(Event):
    """Five seconds without the marker: the CPU is not there, or does not wake up."""

    says = (
        "kernel 0 has looked {looks:,} times, 5 s, and there is no marker of CPU {cpu}: it "
        "reports a failure"
    )
    popcorn = "mkbsp_boot_cpu(): the poll ends without trampoline_status_bsp (G1)"
    cpu: int
    looks: int


class BootErrorFlagged(Event):
    """The early commit's mistake, first half: one look that came too early counts as failure,
    and nothing takes it back."""

    says = "kernel 0 does not see the marker of CPU {cpu} at once and sets the error flag"
    popcorn = "an early commit of mkbsp_boot_cpu() (G1)"
    cpu: int


class StuckPrinted(Event):
    """The early commit's mistake, second half. In the code this was copied from, a marker after
    the time is over means a CPU that got stuck in the trampoline; here it is the good news."""

    says = "kernel 0 sees the marker of CPU {cpu} and prints 'Stuck ??'"
    popcorn = "an early commit of mkbsp_boot_cpu() (G1)"
    cpu: int


class MarkerZeroed(Event):
    """The next boot uses the same word. Left as it is, it would vouch for a CPU that never
    woke up."""

    says = "kernel 0 sets the marker at {address:#x} back to 0"
    popcorn = "trampoline_status_bsp = 0 (G1)"
    address: int


# -- events: the target CPU ----------------------------------------------------------------------


class RealModeEntered(Event):
    """A CPU begins its life as an 8086: 16 bits, segments, one megabyte. CS is the page of the
    STARTUP IPI."""

    says = "CPU {cpu} begins in real mode at {segment:#x}:0 and clears the interrupt flag"
    popcorn = "trampoline_64_bsp.S: .code16, cli (G1)"
    cpu: int
    segment: int


class CachesFlushed(Event):
    """wbinvd writes back and empties the caches. The other kernels share some of these caches and
    feel it, which is an argument against letting every kernel do it."""

    says = "CPU {cpu} writes back and empties its caches"
    popcorn = "trampoline_64_bsp.S: wbinvd (G1)"
    cpu: int


class SegmentsSet(Event):
    """In real mode an address is a segment times 16 and an offset. With the data and stack
    segments where the code is, the trampoline finds its own words."""

    says = "CPU {cpu} sets DS, ES and SS to CS, {segment:#x}"
    popcorn = "trampoline_64_bsp.S: DS = ES = SS = CS (G1)"
    cpu: int
    segment: int


class MarkerWritten(Event):
    """Written before nearly everything else, so that the primary learns early that the CPU is
    awake. The hard part is still to come."""

    says = "CPU {cpu} writes the marker {value:#x} to {address:#x}"
    popcorn = "trampoline_64_bsp.S: $0xA5A5A5A5, trampoline_status_bsp (G1)"
    cpu: int
    address: int
    value: int


class StackSet(Event):
    """The trampoline does not know where it was copied to. It takes that from CS, shifted left by
    4, and corrects the far pointers that it will jump through."""

    says = "CPU {cpu} sets its stack to {stack:#x} and its base to {base:#x}"
    popcorn = "trampoline_64_bsp.S: base = CS << 4, far pointers fixed up (G1)"
    cpu: int
    base: int
    stack: int


class DescriptorTablesLoaded(Event):
    """No interrupt can be served from here on (the interrupt table is empty), and the segments of
    the next mode are described."""

    says = "CPU {cpu} loads an empty interrupt table and the descriptor table at {address:#x}"
    popcorn = "trampoline_64_bsp.S: lidt, lgdt (G1)"
    cpu: int
    address: int


class ProtectedModeEntered(Event):
    """One bit, CR0.PE, and the CPU takes segments by descriptor: 32 bits, 4 GiB. The far jump
    makes it read the new code segment."""

    says = "CPU {cpu} sets CR0.PE and jumps: protected mode, 32 bits"
    popcorn = "trampoline_64_bsp.S: lmsw, ljmpl (G1)"
    cpu: int


class PaeEnabled(Event):
    """Long mode wants page-table entries of 8 bytes. Data selectors and the 64-bit descriptor
    table are loaded on the way."""

    says = "CPU {cpu} loads the 64-bit descriptor table and sets CR4.PAE"
    popcorn = "trampoline_64_bsp.S: CR4.PAE = 1 (G1; verify_cpu is skipped)"
    cpu: int


class PageTablesZeroed(Event):
    """The tables stand behind the trampoline, one set for all boots: what the boot before left is
    wiped out first."""

    says = "CPU {cpu} zeroes {pages} pages for page tables at {address:#x}"
    popcorn = "trampoline_64_bsp.S: 6 pages (G1)"
    cpu: int
    address: int
    pages: int


class TableLinked(Event):
    """Page tables are a tree: the one PML4 entry leads to the PDPT, and four PDPT entries, of
    1 GiB each, lead to the page directories."""

    says = "CPU {cpu} points slot {slot} of the level-{level} table to {address:#x}"
    popcorn = "trampoline_64_bsp.S: 1 PML4, 1 PDPT (G1)"
    cpu: int
    level: int
    slot: int
    address: int


class DirectoryFilled(Event):
    """512 entries of 2 MiB are 1 GiB. Four such directories map the first 4 GiB, each address to
    itself, so that the code goes on at the same address when paging begins."""

    says = "CPU {cpu} fills directory {slot}: {entries} x 2 MiB from {first:#x}, each to itself"
    popcorn = "trampoline_64_bsp.S: 4 PDs, 2,048 x 2 MB (G1)"
    cpu: int
    slot: int
    address: int
    first: int
    entries: int


class PageTablesLoaded(Event):
    """CR3 holds the address of the root. Nothing changes yet: paging is still off."""

    says = "CPU {cpu} loads CR3 with {address:#x}"
    popcorn = "trampoline_64_bsp.S: CR3 (G1)"
    cpu: int
    address: int


class LongModeAllowed(Event):
    """EFER.LME says: when paging begins, let it be long mode."""

    says = "CPU {cpu} sets EFER.LME"
    popcorn = "trampoline_64_bsp.S: EFER.LME = 1 (G1)"
    cpu: int


class PagingEnabled(Event):
    """CR0.PG switches paging on, and with LME the CPU itself sets EFER.LMA: long mode is active,
    though the code segment is still a 32-bit one."""

    says = "CPU {cpu} sets CR0.PG: paging is on"
    popcorn = "trampoline_64_bsp.S: CR0.PG | CR0.PE (G1)"
    cpu: int


class LongModeEntered(Event):
    """A far return into a 64-bit code segment: the last rung."""

    says = "CPU {cpu} returns far into 64-bit code: long mode"
    popcorn = "trampoline_64_bsp.S: lret (G1)"
    cpu: int


class AddressesRead(Event):
    """Only now can the CPU hold the 64-bit addresses that the primary patched in."""

    says = "CPU {cpu} reads its kernel's address {address:#x} and boot_params {boot_params:#x}"
    popcorn = "trampoline_64_bsp.S: kernel_phys_addr, boot_params_phys_addr (G1)"
    cpu: int
    address: int
    boot_params: int


class ExtraMapAdded(Event):
    """The kernel lies above 4 GiB, where nothing is mapped. One more page maps the 1 GiB around
    it: slot address >> 30 of the PDPT."""

    says = "CPU {cpu} maps 1 GiB more: slot {slot} of the PDPT, page {address:#x}"
    popcorn = "trampoline_64_bsp.S: pgtable_extra_bsp, 512 x 2 MB (G1)"
    cpu: int
    slot: int
    address: int


class ExtraMapMissed(Event):
    """There is one PDPT, and it has 512 slots of 1 GiB. A higher slot number is an address behind
    the page, in the first directory, and the kernel's own address stays unmapped."""

    says = (
        "CPU {cpu} wants slot {slot} of a PDPT that has 512: the entry lands in the page behind it"
    )
    popcorn = "trampoline_64_bsp.S: PDPT slot = address >> 30 (derived: usable below 512 GiB)"
    cpu: int
    slot: int


class TripleFault(Event):
    """A fault, and there is no table of handlers: the fault's own fault faults. The CPU shuts down
    without a word, and the primary has reported success already."""

    says = (
        "CPU {cpu} faults at {address:#x}: {why}. Without handlers that is a triple fault: it "
        "shuts down, and nobody notices but the operator, who waits"
    )
    popcorn = "no handler: lidt loaded an empty table (G1)"
    cpu: int
    address: int
    why: str


class WrongKernelEntered(Event):
    """kernel_phys_addr is one word for all boots, and the marker comes before the CPU reads it. A
    boot that begins at once can patch it too early. What follows is not defined: the model ends
    this kernel here (model default)."""

    says = (
        "CPU {cpu} jumps to {address:#x} and is in the image of kernel {other}, not its own; "
        "nobody notices"
    )
    popcorn = "one trampoline for all secondaries (derived: boots must be serial)"
    cpu: int
    address: int
    other: int


class KernelJumped(Event):
    """RSI holds the address of boot_params, as the boot protocol wants it. From here on the CPU
    runs Linux, as if a boot loader had started it."""

    says = "CPU {cpu} jumps to kernel {kernel} at {address:#x}"
    popcorn = "trampoline_64_bsp.S: RSI = boot_params; the first version jumped to 0x40000000"
    cpu: int
    kernel: int
    address: int


# -- tables --------------------------------------------------------------------------------------


class Ladder(Part):
    """The CPUs that climb, and the memory below 1 MiB that they climb by.

    mode       [cpu] -> Mode
    registers  [cpu, name] -> value, of CPUs that climb
    low        [address] -> what is in the memory below 1 MiB that the trampoline uses
    pages      [level, slot] -> where this entry of the trampoline's page tables leads
    """

    tables = ("mode", "registers", "low", "pages")
    not_by_kernel = ("mode", "low")  # one number for a key, but it is no kernel's

    def trampoline_reserved(self, event: TrampolineReserved) -> None:
        self.low[event.address] = "trampoline code"
        for address in (STATUS_ADDRESS, KERNEL_PHYS_ADDRESS, BOOT_PARAMS_PHYS_ADDRESS):
            self.low[address] = 0

    def trampoline_patched(self, event: TrampolinePatched) -> None:
        self.low[KERNEL_PHYS_ADDRESS] = event.address
        self.low[BOOT_PARAMS_PHYS_ADDRESS] = event.boot_params

    def warm_reset_set(self, event: WarmResetSet) -> None:
        self.low[WARM_RESET_OFFSET], self.low[WARM_RESET_SEGMENT] = event.offset, event.segment

    def init_asserted(self, event: InitAsserted) -> None:
        self.mode[event.cpu] = Mode.WAITING

    def set(self, cpu: int, **values: int) -> None:
        for name, value in values.items():
            self.registers[cpu, name] = value

    def real_mode_entered(self, event: RealModeEntered) -> None:
        self.mode[event.cpu] = Mode.REAL
        self.set(event.cpu, CS=event.segment, IP=0, CR0=CR0_RESET, CR4=0, EFER=0)

    def segments_set(self, event: SegmentsSet) -> None:
        self.set(event.cpu, DS=event.segment, ES=event.segment, SS=event.segment)

    def marker_written(self, event: MarkerWritten) -> None:
        self.low[event.address] = event.value

    def marker_zeroed(self, event: MarkerZeroed) -> None:
        self.low[event.address] = 0

    def stack_set(self, event: StackSet) -> None:
        self.set(event.cpu, SP=event.stack)

    def descriptor_tables_loaded(self, event: DescriptorTablesLoaded) -> None:
        self.set(event.cpu, IDTR=0, GDTR=event.address)

    def protected_mode_entered(self, event: ProtectedModeEntered) -> None:
        self.mode[event.cpu] = Mode.PROTECTED
        self.set(event.cpu, CR0=self.registers[event.cpu, "CR0"] | CR0_PE)

    def pae_enabled(self, event: PaeEnabled) -> None:
        self.set(event.cpu, CR4=CR4_PAE)

    def page_tables_zeroed(self, event: PageTablesZeroed) -> None:
        self.pages.clear()

    def table_linked(self, event: TableLinked) -> None:
        self.pages[event.level, event.slot] = event.address

    def directory_filled(self, event: DirectoryFilled) -> None:
        self.pages[2, event.slot] = event.first

    def page_tables_loaded(self, event: PageTablesLoaded) -> None:
        self.set(event.cpu, CR3=event.address)

    def long_mode_allowed(self, event: LongModeAllowed) -> None:
        self.set(event.cpu, EFER=EFER_LME)

    def paging_enabled(self, event: PagingEnabled) -> None:
        self.set(event.cpu, CR0=self.registers[event.cpu, "CR0"] | CR0_PG, EFER=EFER_LME | EFER_LMA)

    def long_mode_entered(self, event: LongModeEntered) -> None:
        self.mode[event.cpu] = Mode.LONG

    def extra_map_added(self, event: ExtraMapAdded) -> None:
        self.pages[3, event.slot] = event.address
        self.pages[2, event.slot] = event.slot << 30

    def triple_fault(self, event: TripleFault) -> None:
        self.mode[event.cpu] = Mode.SHUT_DOWN

    def kernel_jumped(self, event: KernelJumped) -> None:
        self.set(event.cpu, RSI=self.low[BOOT_PARAMS_PHYS_ADDRESS], RIP=event.address)

    applies = {
        TrampolineReserved: trampoline_reserved,
        TrampolinePatched: trampoline_patched,
        WarmResetSet: warm_reset_set,
        InitAsserted: init_asserted,
        RealModeEntered: real_mode_entered,
        SegmentsSet: segments_set,
        MarkerWritten: marker_written,
        MarkerZeroed: marker_zeroed,
        StackSet: stack_set,
        DescriptorTablesLoaded: descriptor_tables_loaded,
        ProtectedModeEntered: protected_mode_entered,
        PaeEnabled: pae_enabled,
        PageTablesZeroed: page_tables_zeroed,
        TableLinked: table_linked,
        DirectoryFilled: directory_filled,
        PageTablesLoaded: page_tables_loaded,
        LongModeAllowed: long_mode_allowed,
        PagingEnabled: paging_enabled,
        LongModeEntered: long_mode_entered,
        ExtraMapAdded: extra_map_added,
        TripleFault: triple_fault,
        KernelJumped: kernel_jumped,
    }


class LadderTimes:
    """How long each step takes, from the machine's cost table."""

    def __init__(self, machine: Machine) -> None:
        ns = machine.cost_ns
        self.init = Delay(ns("init_assert_ns"))
        self.accept = Delay(ns("startup_ipi_accept_ns"))
        self.settle = Delay(ns("startup_ipi_settle_ns"))
        self.poll = Delay(ns("trampoline_poll_ns"))
        self.icr = Delay(ns("icr_write_cycles"))
        self.delivery = Delay(ns("ipi_delivery_cycles"))
        self.wbinvd = Delay(ns("wbinvd_ns"))
        self.step = Delay(ns("trampoline_step_cycles"))
        self.tables = Delay(ns("page_tables_cycles"))


# -- stories -------------------------------------------------------------------------------------


def wake(world, cpu: int, apic: int, start: Callable) -> Generator:
    """INIT, and two STARTUP IPIs: how every x86 kernel starts a CPU."""
    times = world.setup.times
    yield WarmResetSet(cpu, TRAMPOLINE_ADDRESS >> 4, TRAMPOLINE_ADDRESS & 0xF)
    yield EsrCleared(cpu)
    yield times.icr
    yield InitAsserted(cpu, apic)
    if cpu not in world.setup.plan.deaf:
        yield Begin(f"cpu {cpu}", trampoline(world, cpu, start), kernel=None)
    yield times.init
    yield InitDeasserted(cpu, apic)
    for number in (1, 2):
        yield times.icr
        yield StartupIpiSent(cpu, apic, TRAMPOLINE_ADDRESS >> 12, number)
        yield times.accept
        yield times.settle


def wait_for_marker(world, cpu: int) -> Generator:
    """Look, wait, look again. Returns what the primary believes."""
    boot, times, error = world.boot, world.setup.times, False
    yield MarkerAwaited(cpu, STATUS_ADDRESS)
    looks = 1
    while boot.low[STATUS_ADDRESS] != MARKER:
        if looks == POLLS_AT_MOST:
            yield MarkerMissing(cpu, looks)
            return False
        if world.setup.stuck_bug and not error:
            error = True
            yield BootErrorFlagged(cpu)
        yield times.poll
        looks += 1
    if world.setup.stuck_bug:
        yield StuckPrinted(cpu)
    yield MarkerSeen(cpu, looks)
    yield MarkerZeroed(STATUS_ADDRESS)
    return not error


def trampoline(world, cpu: int, start: Callable) -> Generator:
    """From the STARTUP IPI to the first instruction of a kernel: trampoline_64_bsp.S."""
    boot, times = world.boot, world.setup.times
    vector = (yield Until(StartupIpiSent, cpu=cpu)).event.vector
    base = vector << 12
    yield times.delivery

    yield RealModeEntered(cpu, base >> 4)  # 16 bits
    yield times.wbinvd
    yield CachesFlushed(cpu)
    yield SegmentsSet(cpu, base >> 4)
    yield MarkerWritten(cpu, STATUS_ADDRESS, MARKER)
    yield times.step
    yield StackSet(cpu, base, STACK_TOP)
    yield DescriptorTablesLoaded(cpu, GDT_ADDRESS)

    yield ProtectedModeEntered(cpu)  # 32 bits
    yield times.step
    yield PaeEnabled(cpu)
    yield from map_four_gib(world, cpu)
    yield PageTablesLoaded(cpu, PML4_ADDRESS)
    yield LongModeAllowed(cpu)
    if why := cannot_page(world, cpu):
        yield TripleFault(cpu, base, why)
        return
    yield PagingEnabled(cpu)
    yield times.step
    if not boot.registers.get((cpu, "EFER"), 0) & EFER_LMA:
        yield TripleFault(cpu, base, "64-bit code, and long mode is not active")
        return

    yield LongModeEntered(cpu)  # 64 bits
    yield times.step
    address = boot.low[KERNEL_PHYS_ADDRESS]
    yield AddressesRead(cpu, address, boot.low[BOOT_PARAMS_PHYS_ADDRESS])
    if address >> 32 and world.setup.extra_map:
        yield from map_one_gib_more(cpu, address >> 30)
    kernel = kernel_at(world, address)
    if not is_mapped(world, address):
        yield TripleFault(cpu, address, "the address is not mapped")
        return
    if kernel is None:
        yield TripleFault(cpu, address, "no kernel was loaded there")
        return
    if kernel != boot.target_of[cpu]:
        yield WrongKernelEntered(cpu, address, kernel)
        return
    yield KernelJumped(cpu, kernel, address)
    yield Begin(f"kernel {kernel}", start(world.seen_by(kernel), kernel), kernel)


def map_four_gib(world, cpu: int) -> Generator:
    """6 pages: 1 PML4, 1 PDPT and 4 page directories of 512 entries; the first 4 GiB to itself."""
    yield PageTablesZeroed(cpu, PML4_ADDRESS, TABLE_PAGES)
    yield TableLinked(cpu, 4, 0, PDPT_ADDRESS)
    for slot in range(4):
        yield TableLinked(cpu, 3, slot, PDPT_ADDRESS + (slot + 1) * PAGE_BYTES)
    yield world.setup.times.tables
    for slot in range(4):
        where = PDPT_ADDRESS + (slot + 1) * PAGE_BYTES
        yield DirectoryFilled(cpu, slot, where, slot << 30, ENTRIES_PER_TABLE)


def map_one_gib_more(cpu: int, slot: int) -> Generator:
    """For a kernel above 4 GiB: the 1 GiB around it, if the one PDPT has a slot for it."""
    if slot < ENTRIES_PER_TABLE:
        yield ExtraMapAdded(cpu, slot, EXTRA_ADDRESS)
    else:
        yield ExtraMapMissed(cpu, slot)


def cannot_page(world, cpu: int) -> str:
    """Why paging cannot begin; "" where a step was not left out (in a fork)."""
    registers = world.boot.registers
    if registers.get((cpu, "CR3")) != PML4_ADDRESS or not is_mapped(world, TRAMPOLINE_ADDRESS):
        return "the code that runs is not mapped"
    if not registers.get((cpu, "CR4")):
        return "long mode without CR4.PAE"
    return ""


def is_mapped(world, address: int) -> bool:
    """Does the tree lead from the root to this address?"""
    pages, slot = world.boot.pages, address >> 30
    return slot < ENTRIES_PER_TABLE and {(4, 0), (3, slot), (2, slot)} <= pages.keys()


def kernel_at(world, address: int) -> int | None:
    """Whose image was loaded there; None if nobody's was."""
    return next((k for k, at in world.boot.image_at.items() if at == address), None)

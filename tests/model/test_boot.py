"""Booting as transcripts: what each story says, from the operator's shell to the check-in.

The hardware is the Supermicro H8QG6 unless a test needs another; one CPU for each kernel.
"""

import time
from dataclasses import replace
from itertools import islice, pairwise

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import Begin, Delay, Until, walk
from popcorn_edu.engine.trace import PopcornError, Record
from popcorn_edu.engine.world import WorldError
from popcorn_edu.model import boot, bootplan, trampoline
from popcorn_edu.model.boot import (
    TRANSITIONS,
    ApicIdFound,
    BootCalled,
    BootParamsCopied,
    BootReturned,
    CheckedIn,
    CommandLineRefused,
    CommandLineTruncated,
    CommandLineWritten,
    CpuRefused,
    CpusPresent,
    EarlyParametersParsed,
    ForeignCpusTaken,
    ForeignMemoryTaken,
    ImageLoaded,
    ImageMapped,
    KernelPanicked,
    MemoryRangeKept,
    OperatorGaveUp,
    OwnCpuStarted,
    PrimaryBooted,
    RamdiskCopied,
    RamdiskNoted,
    RamdiskReadBack,
    RamdiskRefused,
    SegmentLoaded,
    SegmentRefused,
    SetupHeaderChecked,
    Stage,
    TimerHangs,
    TimerPreset,
    WrongLineTaken,
)
from popcorn_edu.model.bootplan import Below, BootPlan
from popcorn_edu.model.firmware import GIB, MIB
from popcorn_edu.model.messaging import WindowMapped
from popcorn_edu.model.partition import Partition
from popcorn_edu.model.rings import MessageType, PayloadCopied
from popcorn_edu.model.trampoline import (
    KERNEL_PHYS_ADDRESS,
    MARKER,
    PML4_ADDRESS,
    STATUS_ADDRESS,
    AddressesRead,
    BootErrorFlagged,
    CachesFlushed,
    DescriptorTablesLoaded,
    DirectoryFilled,
    EsrCleared,
    ExtraMapAdded,
    ExtraMapMissed,
    InitAsserted,
    InitDeasserted,
    KernelJumped,
    LongModeAllowed,
    LongModeEntered,
    MarkerAwaited,
    MarkerMissing,
    MarkerSeen,
    MarkerWritten,
    MarkerZeroed,
    Mode,
    PaeEnabled,
    PageTablesLoaded,
    PageTablesZeroed,
    PagingEnabled,
    ProtectedModeEntered,
    RealModeEntered,
    SegmentsSet,
    StackSet,
    StartupIpiSent,
    StuckPrinted,
    TableLinked,
    TrampolinePatched,
    TrampolineReserved,
    TripleFault,
    WarmResetSet,
    WrongKernelEntered,
)
from popcorn_edu.readers import checks

CPU = 16  # the secondary's, in a plan of two kernels
MS = 1_000_000


@pytest.fixture(scope="module")
def partition():
    return Partition.build("h8qg6-64", grouping=[[0], [CPU]])


def nothing(world, me):
    yield from ()


def said(story, world) -> list:
    """What a story says when it is stepped by hand, applied to the world."""
    return [record.event for record in walk(story, world)]


def went_on(story, event):
    """The story after its first wait, answered with this event."""
    assert isinstance(next(story), Until)
    yield story.send(Record(0, 0, "somebody", None, event))
    yield from story


def kinds(events) -> list[type]:
    return [type(event) for event in events]


@pytest.fixture
def make(partition):
    """A world in which the primary is up: ``make(extra_map=False)``, ``make(line_bytes=40)``."""

    def made(**changes):
        plan = BootPlan.of(partition)
        for name in list(changes):
            if name in BootPlan.__dataclass_fields__:
                plan = replace(plan, **{name: changes.pop(name)})
            elif name in bootplan.Image._fields:
                plan = plan.with_image(1, **{name: changes.pop(name)})
        setup = scenarios.BootSetup(machine=partition.machine, cpus=plan.cpus, plan=plan, **changes)
        world = scenarios.boot_world(setup)
        world.apply(PrimaryBooted(0, 0))
        world.apply(TrampolineReserved(0, trampoline.TRAMPOLINE_ADDRESS))
        return world

    return made


def woken(world):
    """>> kernel 1 is loaded, and its CPU has got its INIT."""
    address = world.setup.plan.images[1].address
    world.apply(ImageLoaded(1, address))
    world.apply(ApicIdFound(1, CPU, 64))
    world.apply(TrampolinePatched(CPU, address, boot.BOOT_PARAMS_ADDRESS))
    world.apply(InitAsserted(CPU, 64))
    return world


def climb(world, start=nothing) -> list:
    """What the target CPU says after the STARTUP IPI."""
    story = trampoline.trampoline(world, CPU, start)
    return said(went_on(story, StartupIpiSent(CPU, 64, 0x92, 1)), world)


def awake(world):
    """>> kernel 1 runs; its own first words are still to come."""
    climb(woken(world))
    return world


# -- the operator ---------------------------------------------------------------------------------


class TestCopyRamdisk:
    def test_it_notes_where_the_ramdisk_is_and_reads_it_back(self, make):
        """32 bits in the old field, 8 more in ramdisk_shift, the size, and the magic number."""
        world = make(ramdisk=0x12_3456_7000)
        assert said(boot.copy_ramdisk(world, 1), world) == [
            RamdiskCopied(1, 0x12_3456_7000, 64 * MIB),
            RamdiskNoted(1, 0x3456_7000, 0x12, 64 * MIB, 0xDF),
            RamdiskReadBack(1, 0x12_3456_7000),
        ]
        noted = world.boot.boot_params
        assert (noted["hdr.ramdisk_shift"], noted["hdr.ramdisk_magic"]) == (0x12, 0xDF)

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"ramdisk": 0x1_0000_0200}, "no multiple of 4,096"),
            ({"ramdisk_bytes": 4 * GIB}, "4 GB or more"),
            ({"ramdisk": 1 << 40}, "more than 40 bits"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, make, changes, why):
        """Before anything is written; the kernel stays off."""
        world = make(**changes)
        (event,) = said(boot.copy_ramdisk(world, 1), world)
        assert type(event) is RamdiskRefused and why in event.why
        assert world.boot.stage[1] == Stage.FAILED
        assert "hdr.ramdisk_image" not in world.boot.boot_params

    def test_the_largest_that_fits_is_copied(self, make):
        """One page below each limit."""
        world = make(ramdisk=(1 << 40) - 4096, ramdisk_bytes=4 * GIB - 4096)
        assert len(said(boot.copy_ramdisk(world, 1), world)) == 3


class TestWriteCommandLine:
    def test_it_overwrites_the_primarys_own_buffer(self, make):
        """There is one boot_params page; it now says what kernel 1 shall read."""
        world = make(line="mklinux debug")
        assert said(boot.write_command_line(world, 1), world) == [
            SetupHeaderChecked(1, 0x20A, 0x91000),
            CommandLineWritten(1, 13, "mklinux debug"),
        ]
        assert world.boot.low[0x91000] == "mklinux debug"
        assert world.boot.meant_for["command line"] == 1

    def test_a_line_that_is_too_long_is_cut(self, make):
        """After cmdline_size bytes, and what is lost is named."""
        world = make(line="mklinux mem=5G", line_bytes=8)
        assert said(boot.write_command_line(world, 1), world)[1:] == [
            CommandLineTruncated(1, 8, "mem=5G"),
            CommandLineWritten(1, 8, "mklinux "),
        ]

    def test_a_line_that_just_fits_is_not_cut(self, make):
        """2,047 bytes are the most."""
        world = make(line="x" * 2047)
        assert kinds(said(boot.write_command_line(world, 1), world))[-1] is CommandLineWritten

    @pytest.mark.parametrize(
        ("field", "value", "why"),
        [
            ("hdr.header", 0, "no 'HdrS'"),
            ("hdr.version", 0x0201, "protocol 0x201 has no pointer"),
            ("hdr.cmd_line_ptr", 1 * MIB, "not below 1 MiB"),
        ],
    )
    def test_what_does_not_look_like_boot_params_is_left_alone(self, make, field, value, why):
        """Letters, protocol, and a buffer below 1 MiB."""
        world = make()
        world.boot.boot_params[field] = value
        (event,) = said(boot.write_command_line(world, 1), world)
        assert type(event) is CommandLineRefused and why in event.why


class TestLoadImage:
    def test_each_segment_keeps_its_distance(self, make):
        """To ADDR + (p_paddr - 16 MiB)."""
        world = make(address=0x1_8000_0000, segments=((0x1000000, 4096), (0x1600000, 8192)))
        assert said(boot.load_image(world, 1), world) == [
            ImageMapped(1, 0x1_8000_0000, 20 * MIB),
            SegmentLoaded(1, 0, 0x1_8000_0000, 4096),
            SegmentLoaded(1, 1, 0x1_8060_0000, 8192),
            ImageLoaded(1, 0x1_8000_0000),
        ]

    def test_kexec_maps_20_mib(self, make):
        """A segment that ends behind them is not loaded, and neither is the kernel."""
        fits, over = (0x1000000, 0x1400000), (0x2000000, 0x400001)
        world = make(segments=(fits, over))
        assert said(boot.load_image(world, 1), world)[2:] == [SegmentRefused(1, 1, 1)]
        assert world.boot.stage[1] == Stage.FAILED

    def test_the_kits_own_image_fits(self):
        """Four segments that do not overlap, in less than 20 MiB."""
        ends = [linked + count for linked, count in bootplan.SEGMENTS]
        starts = [linked for linked, _ in bootplan.SEGMENTS]
        assert all(end <= start for end, start in zip(ends[:-1], starts[1:], strict=True))
        assert ends[-1] - 16 * MIB <= bootplan.MAP_BYTES


# -- the primary ----------------------------------------------------------------------------------


class TestMultikernelBoot:
    def test_it_refuses_a_cpu_of_its_own(self, make):
        """cpu_present_to_apicid() is not BAD_APICID: nothing is touched, and -1 is returned."""
        world = make()
        story = boot.multikernel_boot(world, 1, 0, 0x1_0000_0000, Below(nothing))
        world.apply(ImageLoaded(1, 0x1_0000_0000))
        assert said(story, world) == [CpuRefused(1, 0, 32), BootReturned(1, 0, -1)]
        assert world.boot.mode[0] == Mode.LONG

    def test_the_apic_id_comes_from_the_firmwares_table(self, make):
        """Not from the CPU's number."""
        world = make()
        world.apply(ImageLoaded(1, 0x1_0000_0000))
        story = boot.multikernel_boot(world, 1, CPU, 0x1_0000_0000, Below(nothing))
        found, patched = (record.event for record in islice(walk(story, world), 2))
        assert found == ApicIdFound(1, CPU, world.setup.machine.apic_id(CPU))
        assert patched == TrampolinePatched(CPU, 0x1_0000_0000, boot.BOOT_PARAMS_ADDRESS)
        assert world.boot.low[KERNEL_PHYS_ADDRESS] == 0x1_0000_0000

    def test_init_and_two_startup_ipis_take_11_ms(self, make):
        """Assert, 10 ms, deassert, and two IPIs with 300 us + 200 us each."""
        world = make()
        world.apply(ImageLoaded(1, 0x1_0000_0000))
        world.apply(ApicIdFound(1, CPU, 64))
        told = list(walk(trampoline.wake(world, CPU, 64, nothing), world))
        assert [record.event for record in told] == [
            WarmResetSet(CPU, 0x9200, 0),
            EsrCleared(CPU),
            InitAsserted(CPU, 64),
            InitDeasserted(CPU, 64),
            StartupIpiSent(CPU, 64, 0x92, 1),
            StartupIpiSent(CPU, 64, 0x92, 2),
        ]
        icr = world.setup.times.icr.ns
        init, deassert, first, second = (record.time for record in told[2:])
        assert deassert - init == 10 * MS
        assert first - deassert == icr
        assert second - first == MS // 2 + icr

    def test_a_second_call_waits_for_the_first(self, make):
        """The primary's waits spin, so that nobody else is in this system call."""
        world = woken(make())
        story = boot.multikernel_boot(world, 1, CPU, 0x1_0000_0000, Below(nothing))
        assert next(story).kind is BootReturned


class TestMarker:
    def wait(self, world):
        return list(walk(trampoline.wait_for_marker(world, CPU), world, limit=100_000))

    def test_a_marker_that_is_there_is_seen_at_the_first_look(self, make):
        """And set back to 0 for the next boot."""
        world = woken(make())
        world.apply(MarkerWritten(CPU, STATUS_ADDRESS, MARKER))
        assert [record.event for record in self.wait(world)] == [
            MarkerAwaited(CPU, STATUS_ADDRESS),
            MarkerSeen(CPU, 1),
            MarkerZeroed(STATUS_ADDRESS),
        ]
        assert world.boot.low[STATUS_ADDRESS] == 0

    def test_50_000_looks_take_5_seconds(self, make):
        """One every 100 us; then the primary gives the CPU up."""
        awaited, missing = self.wait(woken(make()))
        assert missing.event == MarkerMissing(CPU, 50_000)
        assert missing.time - awaited.time == 5000 * MS - MS // 10

    def test_the_early_commit_calls_a_healthy_cpu_stuck(self, make):
        """One look too early is an error for ever, and a marker prints 'Stuck ??'."""
        world = woken(make(stuck_bug=True))
        story = trampoline.wait_for_marker(world, CPU)
        assert next(story) == MarkerAwaited(CPU, STATUS_ADDRESS)
        assert next(story) == BootErrorFlagged(CPU)
        assert next(story).ns == MS // 10
        world.apply(MarkerWritten(CPU, STATUS_ADDRESS, MARKER))
        assert next(story) == StuckPrinted(CPU)
        assert next(story) == MarkerSeen(CPU, 2)
        next(story)
        with pytest.raises(StopIteration) as end:
            next(story)
        assert end.value.value is False


# -- the target CPU -------------------------------------------------------------------------------


class TestTrampoline:
    def test_the_climb_from_real_mode_to_the_kernel(self, make):
        """Every step, in trampoline_64_bsp.S's order."""
        world = woken(make(address=0x4000_0000))
        assert climb(world) == [
            RealModeEntered(CPU, 0x9200),
            CachesFlushed(CPU),
            SegmentsSet(CPU, 0x9200),
            MarkerWritten(CPU, STATUS_ADDRESS, 0xA5A5A5A5),
            StackSet(CPU, 0x92000, 0x94000),
            DescriptorTablesLoaded(CPU, trampoline.GDT_ADDRESS),
            ProtectedModeEntered(CPU),
            PaeEnabled(CPU),
            PageTablesZeroed(CPU, PML4_ADDRESS, 6),
            TableLinked(CPU, 4, 0, PML4_ADDRESS + 0x1000),
            *(TableLinked(CPU, 3, n, PML4_ADDRESS + 0x1000 * (n + 2)) for n in range(4)),
            *(DirectoryFilled(CPU, n, PML4_ADDRESS + 0x1000 * (n + 2), n << 30, 512)
              for n in range(4)),
            PageTablesLoaded(CPU, PML4_ADDRESS),
            LongModeAllowed(CPU),
            PagingEnabled(CPU),
            LongModeEntered(CPU),
            AddressesRead(CPU, 0x4000_0000, boot.BOOT_PARAMS_ADDRESS),
            KernelJumped(CPU, 1, 0x4000_0000),
        ]  # fmt: skip

    def test_what_each_step_sets(self, make):
        """CR0.PE, CR4.PAE, CR3, EFER.LME, and with CR0.PG the CPU's own EFER.LMA."""
        world, seen = woken(make(address=0x4000_0000)), []
        story = trampoline.trampoline(world, CPU, nothing)
        for record in walk(went_on(story, StartupIpiSent(CPU, 64, 0x92, 1)), world):
            mine = {name: v for (_, name), v in world.boot.registers.items()}
            seen.append((type(record.event), mine))
        seen = dict(seen)
        assert seen[RealModeEntered]["CS"] == 0x9200 and seen[RealModeEntered]["CR0"] == 0x10
        assert seen[ProtectedModeEntered]["CR0"] == 0x11
        assert seen[PaeEnabled]["CR4"] == 0x20
        assert seen[PageTablesLoaded]["CR3"] == PML4_ADDRESS
        assert seen[LongModeAllowed]["EFER"] == 0x100
        assert seen[PagingEnabled]["CR0"] == 0x8000_0011
        assert seen[PagingEnabled]["EFER"] == 0x500
        assert seen[KernelJumped]["RSI"] == boot.BOOT_PARAMS_ADDRESS
        assert seen[KernelJumped]["RIP"] == 0x4000_0000

    def test_six_pages_map_four_gib(self, make):
        """2,048 entries of 2 MiB, each address to itself."""
        events = climb(woken(make(address=0x4000_0000)))
        filled = [event for event in events if type(event) is DirectoryFilled]
        assert sum(event.entries for event in filled) == 2048
        assert sum(event.entries * 2 * MIB for event in filled) == 4 * GIB
        assert [event.first for event in filled] == [n * GIB for n in range(4)]

    @pytest.mark.parametrize(
        ("address", "slot"),
        [(0xF800_0000, None), (1 << 32, 4), (0x1_8000_0000, 6), (512 * GIB - 2 * MIB, 511)],
    )
    def test_a_kernel_above_4_gib_gets_one_gib_more(self, make, address, slot):
        """Slot address >> 30 of the PDPT, if any bit above 31 is set."""
        events = climb(woken(make(address=address)))
        extra = [event for event in events if type(event) is ExtraMapAdded]
        assert [event.slot for event in extra] == ([] if slot is None else [slot])
        assert type(events[-1]) is KernelJumped

    def test_without_the_extra_map_the_cpu_shuts_down(self, make):
        """A triple fault, after the primary was told that all is well."""
        world = woken(make(address=1 << 32, extra_map=False))
        assert climb(world)[-1] == TripleFault(CPU, 1 << 32, "the address is not mapped")
        assert world.boot.mode[CPU] == Mode.SHUT_DOWN
        assert world.boot.stage[1] == Stage.FAILED

    def test_above_512_gib_there_is_no_slot(self, make):
        """The PDPT has 512, and there is one PDPT."""
        events = climb(woken(make(address=512 * GIB)))
        assert events[-2:] == [
            ExtraMapMissed(CPU, 512),
            TripleFault(CPU, 512 * GIB, "the address is not mapped"),
        ]

    def test_the_address_is_read_late(self, make):
        """What is patched in meanwhile is where the CPU goes: into another kernel's image."""
        world = woken(make())
        world.apply(ImageLoaded(2, 0x4000_0000))
        world.apply(TrampolinePatched(32, 0x4000_0000, 0))
        assert climb(world)[-1] == WrongKernelEntered(CPU, 0x4000_0000, 2)

    def test_an_address_where_nothing_is_loaded(self, make):
        """There is nothing to run."""
        world = woken(make())
        world.apply(TrampolinePatched(CPU, 0x4000_0000, 0))
        assert climb(world)[-1] == TripleFault(CPU, 0x4000_0000, "no kernel was loaded there")

    @pytest.mark.parametrize(
        ("left_out", "why"),
        [
            (PaeEnabled, "long mode without CR4.PAE"),
            (PageTablesLoaded, "the code that runs is not mapped"),
            (DirectoryFilled, "the code that runs is not mapped"),
            (PagingEnabled, "64-bit code, and long mode is not active"),
        ],
    )
    def test_a_step_left_out_is_a_triple_fault(self, left_out, why):
        """In a fork, each of these steps turns out to be needed."""
        run = scenarios.boot(scan=False)
        fork = run.fork(run.trace.next(left_out).seq, drop=True)
        assert fork.trace.next(TripleFault).event.why == why


# -- the new kernel -------------------------------------------------------------------------------


class TestStartKernel:
    def start(self, world, below=None) -> list:
        return said(boot.start_kernel(world, 1, below or Below(nothing)), world)

    def test_a_kernel_that_comes_up(self, make, partition):
        """Parameters, memory, CPUs, timer, check-in."""
        world = make()
        said(boot.write_command_line(world, 1), world)
        line, memory = partition.command_line(1), partition.kernels[1].memory
        copied, parsed, *rest = self.start(awake(world))
        assert copied == BootParamsCopied(1, 1, "it")
        assert parsed == EarlyParametersParsed(1, len(line.split()), True)
        assert [e for e in rest if type(e) is not boot.RkinfoFound] == [
            MemoryRangeKept(1, 0x1000, 0x9D000),  # the first 16 MiB are everybody's to see
            MemoryRangeKept(1, 0x100000, 16 * MIB),
            *(MemoryRangeKept(1, piece.start, piece.end) for piece in memory),
            CpusPresent(1, str(CPU)),
            TimerPreset(1, 1_000_000),
            CheckedIn(1, 0),
        ]
        assert world.boot.timer == {1: 1_000_000}

    def test_a_line_for_another_kernel_is_believed(self, make):
        """Nothing in boot_params says whom it is for."""
        copied, wrong = self.start(awake(make()))
        assert copied == BootParamsCopied(1, 0, "kernel 0")
        assert wrong == WrongLineTaken(1, 0)

    def line_gives(self, make, line) -> list:
        world = make(line=line)
        said(boot.write_command_line(world, 1), world)
        return self.start(awake(world))

    def test_without_lapic_timer_it_hangs(self, make, partition):
        """There is no clock chip that interrupts a secondary."""
        line = partition.command_line(1).replace("lapic_timer", "not_lapic_timer")
        assert self.line_gives(make, line)[-1] == TimerHangs(1)

    def test_without_mem_it_takes_what_is_the_reserves(self, make, partition):
        """The limit at the end of the line is lost, and nothing else stops it."""
        line = " ".join(w for w in partition.command_line(1).split() if not w.startswith("mem="))
        event = self.line_gives(make, line)[-1]
        assert type(event) is ForeignMemoryTaken and event.whose == "the vty area's"

    def test_without_memmap_it_takes_the_primarys_memory(self, make, partition):
        """All RAM of the firmware's map is everybody's who does not know better."""
        words = partition.command_line(1).split()
        line = " ".join(word for word in words if not word.startswith(("memmap=", "mem=")))
        event = self.line_gives(make, line)[-1]
        assert type(event) is ForeignMemoryTaken and event.whose == "kernel 0's"

    def test_without_present_mask_it_takes_all_cpus(self, make, partition):
        """And would reset every other kernel's."""
        words = partition.command_line(1).split()
        line = " ".join(word for word in words if not word.startswith("present_mask="))
        event = self.line_gives(make, line)[-1]
        assert type(event) is ForeignCpusTaken and event.whose == "kernel 0's"
        assert event.cpus == "0-15,17-63"

    def test_a_line_that_leaves_no_memory(self, make, partition):
        """mem= cut short: there is nothing to run in."""
        line = partition.command_line(1) + " mem=6"
        assert self.line_gives(make, line)[-1] == KernelPanicked(1, "too little RAM to run in")

    def test_its_other_cpus_are_its_own_to_start(self):
        """Each with an INIT of its own; the kernel's number of CPUs follows from its plan."""
        plan = Partition.build("h8qg6-64", grouping="per node")
        run = scenarios.boot(plan=plan, scan=False)
        for k, kernel in enumerate(plan.kernels):
            started = [r.event.cpu for r in run.trace.records(OwnCpuStarted, kernel=k)]
            assert tuple(started) == kernel.cpus[1:]
        assert len(run.world.boot.owner) == 64
        assert set(run.world.boot.mode.values()) == {Mode.LONG}


# -- the life of a kernel --------------------------------------------------------------------------


class TestLifecycle:
    def test_every_stage_is_reached(self):
        """The table has no stage that nothing leads to, and none is missing."""
        reached = {after for row in TRANSITIONS.values() for after in row.values()}
        assert reached | {Stage.OFF} == set(Stage) == set(TRANSITIONS)

    def test_the_stages_of_a_boot_in_order(self):
        """Off, loaded, INIT, real, protected, long, kernel, checked in."""
        run = scenarios.boot(scan=False)
        stages = [world.boot.stage.get(1, Stage.OFF) for _, world in run.worlds()]
        assert list(dict.fromkeys(stages)) == [
            Stage.OFF, Stage.LOADED, Stage.INIT, Stage.REAL, Stage.PROTECTED, Stage.LONG,
            Stage.KERNEL, Stage.CHECKED_IN,
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "event", [CheckedIn(1, 1), KernelJumped(CPU, 1, 0), TripleFault(CPU, 0, "why")]
    )
    def test_what_is_not_possible_is_refused_and_changes_nothing(self, make, event):
        """A kernel that is loaded cannot check in, run or fault."""
        world = make()
        world.apply(ImageLoaded(1, 0x1_0000_0000))
        world.apply(ApicIdFound(1, CPU, 64))
        before = world.snapshot()
        with pytest.raises(WorldError, match="is not possible: kernel 1 is LOADED here"):
            world.apply(event)
        assert world.snapshot() == before

    def test_a_cpu_that_nobody_asked_for_cannot_boot(self, make):
        """It would run for nobody."""
        with pytest.raises(WorldError, match="nobody has asked for CPU 5"):
            make().apply(RealModeEntered(5, 0x9200))

    def test_init_stops_whatever_runs_there(self, make):
        """The kernel on that CPU is gone; nobody asked it."""
        world = awake(make())
        world.apply(ImageLoaded(2, 0x5000_0000))
        world.apply(ApicIdFound(2, CPU, 64))
        world.apply(InitAsserted(CPU, 64))
        assert (world.boot.stage[1], world.boot.stage[2]) == (Stage.FAILED, Stage.INIT)
        assert CPU not in world.boot.owner

    def test_a_late_cpu_comes_up_whatever_was_reported(self):
        """The marker was never written, so the primary reports a failure; the kernel runs."""
        run = scenarios.boot(scan=False)
        fork = run.fork(run.trace.next(MarkerWritten).seq, drop=True)
        assert fork.trace.next(BootReturned).event.result == -1
        assert fork.world.boot.stage[1] == Stage.CHECKED_IN


# -- whole boots -----------------------------------------------------------------------------------


class TestFailures:
    END = {
        "cpu owned": (CpuRefused, "the operator sees it"),
        "no answer": (MarkerMissing, "reports a failure"),
        "no extra map": (TripleFault, "nobody notices but the operator"),
        "above 512 GiB": (TripleFault, "nobody notices but the operator"),
        "stuck": (StuckPrinted, "prints 'Stuck ??'"),
        "line too long": (ForeignMemoryTaken, "nobody notices"),
        "buffer too high": (CommandLineRefused, "the operator sees it"),
        "ramdisk not aligned": (RamdiskRefused, "the operator sees it"),
    }

    @pytest.mark.parametrize("failure", [name for name in bootplan.FAILURES if name])
    def test_each_ends_in_an_event_that_says_what_and_who(self, failure):
        """What happened, and who noticed."""
        kind, words = self.END[failure]
        run = scenarios.boot(failure=failure, scan=False)
        assert words in str(run.trace.next(kind).event)
        up = failure == "stuck"  # a false alarm
        assert run.world.boot.stage[1] == (Stage.CHECKED_IN if up else Stage.FAILED)

    @pytest.mark.parametrize("failure", ["no extra map", "above 512 GiB", "line too long"])
    def test_who_was_told_of_success_waits_20_s(self, failure):
        """And then gives the kernel up: the trampoline's marker said nothing about this."""
        run = scenarios.boot(failure=failure, scan=False)
        returned, gave_up = run.trace.next(BootReturned), run.trace.next(OperatorGaveUp)
        assert returned.event.result == 0
        assert gave_up.time - returned.time == 20_000 * MS

    def test_the_others_come_up(self):
        """A kernel that fails takes nobody with it."""
        run = scenarios.boot(kernels=4, failure="no answer", fails=2, scan=False)
        stages = run.world.boot.stage
        assert [stages[k] for k in range(4)] == [
            Stage.CHECKED_IN, Stage.CHECKED_IN, Stage.FAILED, Stage.CHECKED_IN,
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"failure": "no answers"}, "no failure 'no answers'; did you mean no answer"),
            ({"fails": 0}, "fails=0: expected a secondary kernel's number, 1 to 1"),
            ({"fails": 2}, "fails=2: expected"),
            ({"kernels": 65}, "kernels=65: expected a whole number, from 2 to 64"),
            ({"kernels": 1}, "kernels=1: expected"),
            ({"plan": 7}, "plan=7: expected a Partition"),
            ({"plan": "no such plan"}, "no such plan"),
            ({"machine": "h8qg6"}, "h8qg6"),
        ],
    )
    def test_a_wrong_option_is_one_sentence(self, options, sentence):
        """What, where, and what was expected."""
        with pytest.raises(PopcornError, match=sentence):
            scenarios.boot(**options)

    def test_a_plan_with_problems_does_not_boot(self, partition):
        """The first is told, and where to read the others."""
        broken = partition.edit(1, cpus=[0])
        with pytest.raises(PopcornError, match="this plan has .* problem.*CPU 0"):
            scenarios.boot(plan=broken)

    def test_a_plan_of_one_kernel_has_nothing_to_boot(self):
        """A primary alone is a sound plan, and boots nobody; no failure is called ''."""
        with pytest.raises(PopcornError, match="no secondary kernel to boot"):
            scenarios.boot(plan=Partition.build("h8qg6-64", grouping=["0-63"]))
        with pytest.raises(PopcornError, match="expected one of: above 512 GiB, "):
            scenarios.boot(failure=5)

    def test_a_plan_with_problems_can_be_booted_anyway(self):
        """Two secondaries on one CPU: the second boot resets the first one's kernel."""
        plan = Partition.build("h8qg6-64", grouping=[[0], [16], [32]]).edit(2, cpus=[16])
        run = scenarios.boot(plan=plan, anyway=True, scan=False)
        assert [run.world.boot.stage[k] for k in range(3)] == [
            Stage.CHECKED_IN, Stage.FAILED, Stage.CHECKED_IN,
        ]  # fmt: skip


class TestParallel:
    def test_the_page_is_rewritten_before_it_is_read(self):
        """Every kernel but the last reads the last one's line."""
        run = scenarios.boot(kernels=4, parallel=True, scan=False)
        read = {r.event.kernel: r.event.meant_for for r in run.trace.records(BootParamsCopied)}
        assert read == {1: 3, 2: 3, 3: 3}
        assert [r.event.other for r in run.trace.records(WrongLineTaken)] == [3, 3]
        assert run.world.boot.stage[3] == Stage.CHECKED_IN

    def test_one_secondary_alone_has_nobody_to_fear(self):
        """There is nobody else to rewrite the page."""
        run = scenarios.boot(parallel=True, scan=False)
        assert run.world.boot.stage[1] == Stage.CHECKED_IN

    def test_serial_boots_are_what_the_page_wants(self):
        """The same kernels, one after the other."""
        run = scenarios.boot(kernels=4, scan=False)
        read = {r.event.kernel: r.event.meant_for for r in run.trace.records(BootParamsCopied)}
        assert read == {1: 1, 2: 2, 3: 3}


@pytest.fixture(scope="module")
def run():
    """The 64-kernel boot."""
    return scenarios.boot_64()


class TestForks:
    def test_whatever_is_left_out_the_run_ends(self):
        """Each record of a boot can be dropped: something follows from it, and never an error."""
        run = scenarios.boot(scan=False)
        for n in range(len(run)):
            run.fork(n, drop=True)

    @pytest.mark.parametrize("delay", [1, 1_000, 30_000, 600_000, 30_000 * MS])
    def test_whoever_is_held_up_the_run_ends(self, delay):
        """From a nanosecond to longer than anybody waits."""
        run = scenarios.boot(kernels=3, scan=False)
        for n in range(0, len(run), 3):
            run.fork(n, delay=delay)

    @pytest.mark.parametrize("seed", range(6))
    def test_the_order_at_one_time_does_not_matter_to_serial_boots(self, seed):
        """Everybody comes up, and every check holds."""
        run = scenarios.boot(kernels=5, schedule_seed=seed, scan=False)
        assert set(run.world.boot.stage.values()) == {Stage.CHECKED_IN}
        assert checks.all(run) == []


class TestBooting64Cores:
    def test_63_secondaries_and_2016_check_ins(self, run):
        """The numbers of the overview's own tutorial."""
        assert len(list(run.trace.records(KernelJumped))) == 63
        assert len(list(run.trace.records(CheckedIn))) == 64
        sent = list(run.trace.records(PayloadCopied, type=MessageType.CHECKIN))
        assert len(sent) == 2016
        assert set(run.world.messaging.mapped.values()) == {2**64 - 1}
        assert len(list(run.trace.records(WindowMapped))) == 2 * 2016

    def test_each_kernel_runs_on_its_own_cpu(self, run):
        """64 kernels, 64 CPUs, in the order in which they were booted."""
        assert sorted(run.world.boot.owner.values()) == list(range(64))
        jumps = [r.event.kernel for r in run.trace.records(KernelJumped)]
        assert jumps == list(range(1, 64))

    def test_a_boot_takes_about_eight_seconds(self, run):
        """63 of them, one after the other: eight and a half minutes, and not the script's 21."""
        called = [r.time for r in run.trace.records(BootCalled)]
        assert all(8_000 * MS < b - a < 8_500 * MS for a, b in pairwise(called))
        assert 500 < run.trace[-1].time / 1e9 < 550

    def test_the_whole_trace_takes_less_than_two_seconds(self):
        """Of this process, on a machine that does other things."""
        start = time.process_time()
        scenarios.boot_64()
        assert time.process_time() - start <= 2

    def test_the_same_again(self, run):
        """The same trace, also after saving and loading."""
        assert scenarios.boot_64().trace.digest() == run.trace.digest()


class TestScenario:
    def test_a_plan_is_booted_as_it_is(self):
        """Its CPUs, its memory, its lines."""
        plan = Partition.build("h8qg6-64", grouping="per package")
        run = scenarios.boot(plan=plan, scan=False)
        for k in range(1, 4):
            line = run.trace.next(CommandLineWritten, kernel=k).event.line
            assert line == plan.command_line(k) == run.world.boot.line[k]
            assert (
                run.trace.next(ImageLoaded, kernel=k).event.address == plan.kernels[k].memory[0][0]
            )

    @pytest.mark.parametrize("machine", ["magny-cours-48", "opteron-6272-64", "dl165g7-16"])
    def test_other_machines_boot_too(self, machine):
        """As long as they have memory to divide."""
        run = scenarios.boot(machine=machine, kernels=3, scan=False)
        assert set(run.world.boot.stage.values()) == {Stage.CHECKED_IN}

    def test_devices_are_looked_for_behind_the_timer(self):
        """The list is read early, the devices are looked for late."""
        run = scenarios.boot()
        order = [type(r.event).__name__ for r in run.trace.records(who="kernel 1")]
        wanted = ["EntryKept", "TimerPreset", "BusScanned", "ScanEnded", "CheckedIn"]
        assert [order.index(name) for name in wanted] == sorted(map(order.index, wanted))

    def test_a_switch_can_be_thrown_in_a_fork(self):
        """The extra map is left out from the record on at which the fork is made."""
        run = scenarios.boot(scan=False)
        fork = run.fork(20, extra_map=False)
        assert fork.trace.next(TripleFault)
        with pytest.raises(PopcornError, match="laid out at the start"):
            run.fork(20, parallel=True)

    def test_a_run_with_a_plan_can_be_saved(self, tmp_path):
        """Read back, it has the same worlds; it cannot be forked, for the file has no plan."""
        from popcorn_edu import load

        plan = Partition.build("h8qg6-64", grouping="per package")
        run = scenarios.boot(plan=plan, scan=False)
        back = load(run.save(tmp_path / "run"))
        assert back.trace.digest() == run.trace.digest()
        assert back.world == run.world
        with pytest.raises(PopcornError, match="cannot be forked"):
            back.fork(3, drop=True)

    def test_stories_yield_nothing_but_steps(self, make):
        """Events, delays, waits and beginnings."""
        world = make()
        for step in boot.operator(world, Below(nothing)):
            if not isinstance(step, (Begin, Delay, Until)):
                world.apply(step)
            if isinstance(step, Until):
                break
        assert world.boot.stage[1] == Stage.LOADED

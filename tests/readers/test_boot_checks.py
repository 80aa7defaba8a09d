"""Each check of a boot catches the mistake it is there for, and never accuses a sound boot."""

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import Trace
from popcorn_edu.model.boot import BootParamsCopied, BootReturned, CommandLineWritten, RamdiskNoted
from popcorn_edu.model.bootplan import FAILURES
from popcorn_edu.model.partition import Partition
from popcorn_edu.model.rings import MessageType, PayloadCopied
from popcorn_edu.model.trampoline import KernelJumped, MarkerSeen, MarkerWritten, MarkerZeroed
from popcorn_edu.readers import checks


@pytest.fixture(scope="module")
def run():
    return scenarios.boot(kernels=4, scan=False)


def told(run, *, without=(), twice=()) -> Trace:
    """The run's trace with some records left out, or told twice."""
    trace = Trace(run.trace.meta)
    for record in run.trace:
        for _ in range(0 if record.seq in without else 2 if record.seq in twice else 1):
            trace.append(record.time, record.who, None, record.event)
    return trace


def seq(run, kind, **match) -> int:
    return run.trace.next(kind, **match).seq


class TestSoundBoots:
    @pytest.mark.parametrize("kernels", [2, 5, 16])
    def test_serial_boots_are_sound(self, kernels):
        """No check has anything to say."""
        assert checks.all(scenarios.boot(kernels=kernels, scan=False)) == []

    def test_64_kernels_boot_soundly(self):
        """The tutorial's own boot."""
        assert checks.all(scenarios.boot_64()) == []

    def test_kernels_of_many_cpus_boot_soundly(self):
        """Each CPU that a kernel starts itself is its own."""
        plan = Partition.build("h8qg6-64", grouping="per node")
        assert checks.all(scenarios.boot(plan=plan, anyway=True, scan=False)) == []

    def test_a_run_without_boots_is_not_judged(self):
        """Messages alone break no rule of booting, and cost no look at them."""
        run = scenarios.fan_in(kernels=3, messages=2)
        assert [checks.ALL[name](run) for name in checks.ONLY_OF] == [None] * len(checks.ONLY_OF)


class TestEverySecondaryComesUp:
    @pytest.mark.parametrize("failure", [name for name in FAILURES if name not in ("", "stuck")])
    def test_one_that_does_not_is_told_with_the_reason(self, failure):
        """The finding is at the record that says why."""
        run = scenarios.boot(failure=failure, scan=False)
        finding = checks.every_secondary_comes_up(run)
        assert "kernel 1 was planned and never checks in: " in finding.sentence
        assert str(run.trace.event(finding.seq)) in finding.sentence

    def test_where_nothing_says_why_that_is_said(self, run):
        """A trace that just ends."""
        whole = range(seq(run, KernelJumped, kernel=3), len(run))
        finding = checks.every_secondary_comes_up(told(run, without=whole))
        assert "kernel 3 was planned and never checks in: no record says why" in finding.sentence

    def test_a_story_that_a_fork_broke_is_the_reason(self, run):
        """What the author never thought of ends a boot, too."""
        fork = run.fork(seq(run, KernelJumped, kernel=1), drop=True)
        assert "cannot go on" in checks.every_secondary_comes_up(fork).sentence


class TestNoCpuHasTwoKernels:
    def test_a_cpu_that_runs_a_kernel_is_reset(self):
        """Two secondaries on one CPU: the second boot stops the first kernel."""
        plan = Partition.build("h8qg6-64", grouping=[[0], [16], [32]]).edit(2, cpus=[16])
        finding = checks.no_cpu_has_two_kernels(scenarios.boot(plan=plan, anyway=True, scan=False))
        assert finding.sentence.startswith("CPU 16 is reset, although kernel 1 runs on it since")

    def test_a_cpu_that_starts_two_kernels(self, run):
        """A jump that is told twice."""
        finding = checks.no_cpu_has_two_kernels(told(run, twice=[seq(run, KernelJumped)]))
        assert "kernel 1 starts on CPU 16, which kernel 1 has had" in finding.sentence


class TestMarker:
    def test_a_marker_that_was_not_zeroed_vouches_for_the_next_cpu(self, run):
        """The second boot sees the first one's marker, at its first look."""
        fork = run.fork(seq(run, MarkerZeroed), drop=True)
        finding = checks.marker_proves_the_trampoline(fork)
        assert "takes a marker for CPU 32's, which has written none" in finding.sentence

    def test_the_early_commit_reports_a_failure_that_is_none(self):
        """'Stuck ??' with a kernel that comes up."""
        run = scenarios.boot(failure="stuck", scan=False)
        finding = checks.marker_proves_the_trampoline(run)
        assert "reports a failure, although it saw CPU 16's marker" in finding.sentence
        assert checks.every_secondary_comes_up(run) is None

    def test_success_without_a_marker(self, run):
        """Nobody looked."""
        finding = checks.marker_proves_the_trampoline(told(run, without=[seq(run, MarkerSeen)]))
        assert "reports success, and CPU 16's marker was never seen" in finding.sentence

    def test_a_missed_marker_is_a_true_report(self, run):
        """The primary says what it saw, though the kernel comes up."""
        fork = run.fork(seq(run, MarkerWritten), drop=True)
        assert fork.trace.next(BootReturned).event.result == -1
        assert checks.all(fork) == []


class TestBootParams:
    def test_parallel_boots_rewrite_the_page(self):
        """The first reader of a line that is not its own."""
        run = scenarios.boot(kernels=3, parallel=True, scan=False)
        finding = checks.boot_params_are_read_in_time(run)
        assert "kernel 1 reads the command line of kernel 2" in finding.sentence
        assert type(run.trace.event(finding.seq)) is BootParamsCopied

    def test_one_line_too_early_is_enough(self, run):
        """Somebody writes the next kernel's line while this one is on its way."""
        line = run.trace.next(CommandLineWritten, kernel=2).event
        fork = run.fork(seq(run, BootParamsCopied, kernel=1), say=line)
        assert "kernel 1 reads the command line of" in (
            checks.boot_params_are_read_in_time(fork).sentence
        )

    def test_a_ramdisk_is_rewritten_too(self, run):
        """It stands in the same page."""
        noted = run.trace.next(RamdiskNoted, kernel=2).event
        fork = run.fork(seq(run, BootParamsCopied, kernel=1), say=noted)
        finding = checks.boot_params_are_read_in_time(fork)
        assert "kernel 1 reads the ramdisk of kernel 2" in finding.sentence


class TestCheckIns:
    @pytest.mark.parametrize("kernels", [2, 3, 8])
    def test_n_times_n_minus_1_half_are_right(self, kernels):
        """Whether they booted or were there at once."""
        assert checks.everybody_checks_in_once(scenarios.boot(kernels=kernels, scan=False)) is None
        assert checks.everybody_checks_in_once(scenarios.registration(kernels=kernels)) is None

    def test_one_too_few(self, run):
        """Who joined, whom it forgot, and how many there must be."""
        last = [r.seq for r in run.trace.records(PayloadCopied, type=MessageType.CHECKIN)][-1]
        finding = checks.everybody_checks_in_once(told(run, without=[last]))
        assert finding.sentence == (
            "kernel 3 joins and never checks in with kernel 2, which was there before it: 4 "
            "kernels need 6 check-ins, and there are 5."
        )

    def test_one_too_many(self, run):
        """A check-in that is sent again."""
        first = seq(run, PayloadCopied, type=MessageType.CHECKIN)
        finding = checks.everybody_checks_in_once(told(run, twice=[first]))
        assert "kernel 1 checks in with kernel 0 a second time" in finding.sentence

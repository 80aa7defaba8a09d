"""Your own machine: what a cache line costs, what a wake-up costs, and what the model makes of it.

Two processes, each kept on a CPU of its own, throw one number back and forth through shared
memory. Once each looks all the time (polling: one cache line moves each way), and once each sleeps
and is woken by the operating system. Between the two lies what interrupt mitigation is about.

    >>> mine = measure()                                                     # doctest: +SKIP
    >>> print(mine)                                                          # doctest: +SKIP
    >>> predict(mine)                                                        # doctest: +SKIP

With a C compiler on the machine the measuring loop is C (calibrate.c), else Python, whose own
steps then are a part of what is measured; the result says which it was. The numbers hold for this
machine, now, as busy as it is: they are percentiles, never means, and no test or grade asks for
them.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.costs import COSTS
from popcorn_edu.model.machine import Machine
from popcorn_edu.readers import figures

COPY_BYTES = 4 * 2**20  # calibrate.c's too
LINE_BYTES = 64
BATCH = 50  # round trips timed together: reading a clock costs as much as one of them
BATCHES_AT_MOST = 10_000
PATIENCE_S = 60  # then something else has the CPUs, and no number would mean anything
WAKE_PARTS = (  # what a wake-up is made of, in the model
    "icr_write_cycles", "ipi_delivery_cycles", "isr_top_half_cycles", "softirq_entry_cycles",
)  # fmt: skip
MHZ = 1000  # of the fitted machine: so that a cycle is a nanosecond


@dataclass(frozen=True)
class Measured:
    """What was measured, in ns: one way by polling, one way by waking, and a copy of 4 MiB."""

    method: str  # "C" or "Python"
    cpus: tuple[int, int] | None  # None: nobody could keep the processes on a CPU
    poll_ns: tuple[float, ...]
    wake_ns: tuple[float, ...]
    copy_ns: tuple[float, ...]

    @property
    def line_ns(self) -> int:
        """One cache line from the one CPU to the other: the median by polling."""
        return max(1, round(statistics.median(self.poll_ns)))

    @property
    def wakeup_ns(self) -> int:
        """What waking costs beyond the line: the two medians' difference."""
        return max(1, round(statistics.median(self.wake_ns)) - self.line_ns)

    @property
    def copy_ns_per_line(self) -> float:
        return statistics.median(self.copy_ns) / (COPY_BYTES // LINE_BYTES)

    def rows(self) -> list[tuple]:
        """For each of the three: least, median, p90, p99, most."""
        found = []
        for name in ("poll_ns", "wake_ns", "copy_ns"):
            values = sorted(getattr(self, name))
            points = [values[min(len(values) - 1, len(values) * p // 100)] for p in (0, 50, 90, 99)]
            found.append((name, *(round(v, 1) for v in points), round(values[-1], 1)))
        return found

    def __str__(self) -> str:
        where = "unpinned" if self.cpus is None else "CPUs {} and {}".format(*self.cpus)
        lines = [f"measured in {self.method} on {where}, ns:"]
        lines.append(f"{'':10}{'least':>12}{'median':>12}{'p90':>12}{'p99':>12}{'most':>12}")
        for name, *values in self.rows():
            lines.append(f"{name:10}" + "".join(f"{value:12,.1f}" for value in values))
        lines.append(
            f"so a line takes {self.line_ns} ns, a wake-up {self.wakeup_ns:,} ns more "
            f"({self.wakeup_ns / self.line_ns:.0f} lines), and copying {self.copy_ns_per_line:.2f} "
            "ns a line"
        )
        return "\n".join(lines)

    def machine(self) -> Machine:
        """A machine of two CPUs with these costs in the place of the model's defaults.

        Its clock is 1 GHz, so that its cycles are nanoseconds. The wake-up is shared out among
        the model's four parts of it as the defaults are. The sender's own instructions and the
        callback's dispatch stay at their defaults: nothing here measures them.
        """
        usual = sum(COSTS[name].value for name in WAKE_PARTS)
        wake = {name: self.wakeup_ns * COSTS[name].value // usual for name in WAKE_PARTS}
        near = ("line_transfer_same_die_cycles", "line_transfer_same_package_cycles")
        return (
            Machine.synthetic(packages=1, nodes_per_package=1, cores_per_node=2)
            .with_clock(MHZ)
            .with_costs(**wake, **dict.fromkeys(near, self.line_ns))
        )


def measure(
    cpus: Sequence[int] | None = None, batches: int = 200, method: str | None = None
) -> Measured:
    """Measure two CPUs of this machine (None: the first two that we may use).

    ``method``: "C", "Python", or None for C where there is a compiler.
    """
    if type(batches) is not int or not 1 <= batches <= BATCHES_AT_MOST:
        raise PopcornError(
            f"batches={batches!r}: expected a whole number from 1 to {BATCHES_AT_MOST:,}"
        )
    if method not in (None, "C", "Python"):
        raise PopcornError(f'method={method!r}: expected "C", "Python" or None')
    pair = _two_cpus(cpus)
    compiler = shutil.which("cc") or shutil.which("gcc")
    if method == "C" and not (compiler and pair):
        raise PopcornError("measuring in C needs a C compiler, and Linux; method='Python' does not")
    if method != "Python" and compiler and pair:
        return _measure_in_c(compiler, pair, batches)
    return _measure_in_python(pair, batches)


def _two_cpus(cpus: Sequence[int] | None) -> tuple[int, int] | None:
    """Two CPUs that this process may use; None where the system cannot keep us on one."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    ours = sorted(os.sched_getaffinity(0))
    wanted = ours[:2] if cpus is None else list(cpus)
    if len(set(wanted)) != 2:
        raise PopcornError(
            f"two CPUs are measured against each other, and we may use {ours}"
            if cpus is None
            else f"cpus={cpus!r}: expected two different CPUs"
        )
    for cpu in wanted:
        if cpu not in ours:
            raise PopcornError(f"CPU {cpu!r} is not ours to use; expected two of {ours}")
    return wanted[0], wanted[1]


def _measure_in_c(compiler: str, pair: tuple[int, int], batches: int) -> Measured:
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "calibrate"
        made = subprocess.run(
            [compiler, "-O2", str(source), "-o", str(program)], capture_output=True, text=True
        )
        if made.returncode:
            raise PopcornError(f"{compiler} cannot compile {source.name}: {made.stderr.strip()}")
        command = [str(program), *map(str, pair), str(batches)]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise _too_busy() from None
    if told.returncode:
        raise PopcornError(f"measuring failed: {told.stderr.strip() or told.returncode}")
    found: dict[str, list[float]] = {"poll": [], "wake": [], "copy": []}
    for line in told.stdout.splitlines():
        name, value = line.split()
        found[name].append(float(value))
    return Measured("C", pair, *(tuple(found[name]) for name in ("poll", "wake", "copy")))


def _too_busy() -> PopcornError:
    return PopcornError(f"nothing came back within {PATIENCE_S} s: the CPUs are busy with others")


def _pin(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def _measure_in_python(pair: tuple[int, int] | None, batches: int) -> Measured:
    context = get_context("spawn")  # the same on every system
    before = os.sched_getaffinity(0) if pair else None
    box = SharedMemory(create=True, size=4096 + COPY_BYTES)
    near, far = context.Pipe()
    other = context.Process(
        target=_answer, args=(box.name, far, pair and pair[1], batches), daemon=True
    )
    other.start()
    far.close()  # the other's end: if it dies we hear of it
    try:
        _pin(pair and pair[0])
        if not near.poll(PATIENCE_S):
            raise _too_busy()
        near.recv()
        poll = _timed(batches, _thrower(box.buf, time.monotonic() + PATIENCE_S))
        wake = _timed(batches, lambda n: (near.send_bytes(b"1"), near.recv_bytes()))
        copies = []
        for _ in range(20):
            start = time.perf_counter_ns()
            bytes(box.buf[4096 : 4096 + COPY_BYTES])
            copies.append(float(time.perf_counter_ns() - start))
        near.send_bytes(b"0")
    except EOFError:
        raise PopcornError("the other process ended before it was measured") from None
    finally:
        other.join(5)
        if other.is_alive():
            other.terminate()
        if before:
            os.sched_setaffinity(0, before)
        box.close()
        box.unlink()
    return Measured("Python", pair, tuple(poll), tuple(wake), tuple(copies))


def _timed(batches: int, round_trip: Callable[[int], object]) -> list[float]:
    """One way, in ns: the mean of each batch of round trips."""
    found, n = [], 0
    for _ in range(batches):
        start = time.perf_counter_ns()
        for _ in range(BATCH):
            n += 1
            round_trip(n)
        found.append((time.perf_counter_ns() - start) / BATCH / 2)
    return found


def _thrower(box, until: float) -> Callable[[int], None]:
    def throw(n: int) -> None:
        ball = n % 251 + 1  # one byte: written and read whole
        box[0] = ball
        spins = 0
        while box[LINE_BYTES] != ball:
            spins += 1
            if spins % 1_000_000 == 0 and time.monotonic() > until:
                raise _too_busy()

    return throw


def _answer(name: str, pipe, cpu: int | None, batches: int) -> None:
    """The other process: throws back whatever comes, first by polling, then when woken."""
    _pin(cpu)
    box = SharedMemory(name=name)
    try:
        seen, left, buffer = 0, batches * BATCH, box.buf
        pipe.send("ready")
        while left:
            ball = buffer[0]
            if ball != seen:
                buffer[LINE_BYTES] = seen = ball
                left -= 1
        while pipe.recv_bytes() == b"1":
            pipe.send_bytes(b"1")
    finally:
        del buffer
        box.close()


# -- what the model makes of it -------------------------------------------------------------------


def predict(measured: Measured) -> dict[str, int]:
    """One way, in ns, on a machine as measured: to a kernel that polls, and to one that sleeps."""
    machine = measured.machine()
    told = {}
    for name, choices in (
        ("to a kernel that polls", {"mitigation": "poll only", "poll_every_ns": 1}),
        ("to a kernel that sleeps", {}),
    ):
        run = scenarios.fan_in(machine=machine, kernels=2, messages=1, **choices)
        take_ns = run.setup.costs.pair(1, 0)[0].ns
        told[name] = figures.latencies(run)[0]["latency_ns"] + take_ns
    return told


MPI_PROGRAM = """
import sys, time
from mpi4py import MPI
comm, size, rounds = MPI.COMM_WORLD, int(sys.argv[1]), int(sys.argv[2])
buffer, other = bytearray(max(size, 1)), 1 - comm.rank
for batch in range(rounds):
    start = time.perf_counter_ns()
    for _ in range(50):
        if comm.rank == 0:
            comm.Send([buffer, size, MPI.BYTE], other); comm.Recv([buffer, size, MPI.BYTE], other)
        else:
            comm.Recv([buffer, size, MPI.BYTE], other); comm.Send([buffer, size, MPI.BYTE], other)
    if comm.rank == 0:
        print((time.perf_counter_ns() - start) / 100)
"""


def mpich(size_bytes: int = 0, batches: int = 100) -> float:
    """What a real MPI takes here for one message, one way: the median in ns.

    Needs the packages mpi4py and mpich (pip install mpi4py mpich); they need no compiler.
    """
    mpiexec = shutil.which("mpiexec") or shutil.which(
        "mpiexec", path=str(Path(sys.executable).parent)
    )
    if mpiexec is None:
        raise PopcornError("there is no mpiexec here: pip install mpi4py mpich")
    command = [mpiexec, "-n", "2", sys.executable, "-c", MPI_PROGRAM, str(size_bytes)]
    try:
        told = subprocess.run(
            [*command, str(batches)], capture_output=True, text=True, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        raise _too_busy() from None
    if told.returncode:
        last = (told.stderr.strip() or "no reason given").splitlines()[-1]
        raise PopcornError(f"mpiexec failed: {last}")
    return statistics.median(map(float, told.stdout.split()))

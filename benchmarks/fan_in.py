"""64 kernels send to one: how fast is the model, beside SimPy as one would write it by hand?

    python benchmarks/fan_in.py [MESSAGES_PER_SENDER] [ROUNDS]
    python benchmarks/fan_in.py --python /usr/bin/python3     # where to look for SimGrid and ns-3

Everything is CPU time, measured in this one run, turn by turn, and given as a ratio to the
hand-written SimPy model of fan_in_simpy.py, which keeps no trace: "1.2 x" is more messages in
the same time. The model is measured twice: as ``scenarios.fan_in`` plays it (model/flat.py), and
with the readable stories that flat.py must agree with. See README.md for how to read it.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fan_in_simpy
import simpy

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import flat

MACHINE = "epyc-96"  # 65 kernels need a machine with as many CPUs
SENDERS = 64
MESSAGES = 200
ROUNDS = 5
LOADS = {  # mean thinking time before each message
    "saturated: senders wait for space": 0,
    "80 % load: the receiver rests now and then": 34_000,
}
TARGET = 1.0
EVENTS_TARGET = 2.1
HERE = Path(__file__).resolve().parent
OTHERS = {
    "SimGrid": ("fan_in_simgrid.py", "import simgrid", "apt install python3-simgrid"),
    "ns-3": ("fan_in_ns3.py", "from ns import ns", "pip install ns3"),
}
# Where Debian's packages are: a virtual environment does not see them.
PYTHONS = (sys.executable, "/usr/bin/python3")


def costs_of(setup) -> fan_in_simpy.Costs:
    """The delays of the model, for those who do the same work without it."""
    costs, senders = setup.costs, range(1, len(setup.cpus))
    return fan_in_simpy.Costs(
        ticket={me: costs.pair(me, 0)[0].ns for me in senders},
        copy={me: costs.pair(me, 0)[1].ns for me in senders},
        read={me: costs.pair(0, me)[2].ns for me in senders},
        icr=costs.icr[0].ns,
        wire=costs.ipi_delivery.ns,
        isr=costs.isr[0].ns,
        softirq=costs.softirq[0].ns,
        poll_exit=costs.poll_exit[0].ns,
        look=costs.look(0).ns,
        dispatch=costs.dispatch[0].ns,
    )


def ours(messages: int, gap_ns: int, senders: int = SENDERS):
    return scenarios.fan_in(machine=MACHINE, kernels=senders + 1, messages=messages, gap_ns=gap_ns)


def readable(messages: int, gap_ns: int, senders: int = SENDERS):
    """The same run by the engine that resumes stories: a learner's and a fork's."""
    with flat.played_by("stories"):
        return ours(messages, gap_ns, senders)


def compiled(messages: int, gap_ns: int, senders: int = SENDERS):
    """The same run by the machine code that numba makes of flat.py."""
    with flat.played_by("numba"):
        return ours(messages, gap_ns, senders)


def seconds(work: Callable) -> float:
    """CPU time of one run. What is in memory already is nobody's garbage."""
    gc.collect()
    gc.freeze()
    start = time.process_time()
    work()
    spent = time.process_time() - start
    gc.unfreeze()
    return spent


def queue_events(work: Callable) -> int:
    """How many events go through SimPy's queue: an exact count, the same on every machine."""
    count, schedule = 0, simpy.Environment.schedule

    def counting(*arguments, **options):
        nonlocal count
        count += 1
        return schedule(*arguments, **options)

    simpy.Environment.schedule = counting
    try:
        work()
    finally:
        simpy.Environment.schedule = schedule
    return count


def python_with(statement: str, pythons: tuple[str, ...]) -> str | None:
    """The first Python that can do this import."""
    for python in pythons:
        try:
            done = subprocess.run([python, "-c", statement], capture_output=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return python
    return None


def other(python: str, program: str, work: dict) -> float:
    """CPU seconds of another simulator doing the same work, in its own process."""
    done = subprocess.run(
        [python, HERE / program], input=json.dumps(work), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["delivered"] == work["messages"] * len(work["ticket"]), answer
    return answer["seconds"]


def has_numba() -> bool:
    try:
        with flat.played_by("numba"):
            return True
    except PopcornError:
        return False


def row(name: str, rate: float, base: float, note: str = "") -> None:
    print(f"  {name:<42}{rate:>10,.0f}{rate / base:>8.2f} x  {note}".rstrip())


def compare(load: str, gap_ns: int, options: argparse.Namespace) -> float:
    """One table; returns the ratio of the model to the baseline."""
    messages, total = options.messages, options.messages * options.senders
    small = max(1, messages // 10)  # enough for the slow ones
    costs = costs_of(ours(1, 0, options.senders).setup)
    works = {
        "base": lambda: fan_in_simpy.fan_in(costs, messages, gap_ns),
        "ours": lambda: ours(messages, gap_ns, options.senders),
        "readable": lambda: readable(messages, gap_ns, options.senders),
        "compiled": lambda: compiled(messages, gap_ns, options.senders),
    }
    if not has_numba():
        del works["compiled"]
    spent: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()  # what is compiled or cached once is nobody's cost
    for _ in range(options.rounds):
        for name, work in works.items():
            spent[name].append(seconds(work))
    ratios = {
        name: [base / own for base, own in zip(spent["base"], spent[name], strict=True)]
        for name in works
    }
    ratio = statistics.median(ratios["ours"])
    base = total / statistics.median(spent["base"])
    run, outcome = works["ours"](), works["base"]()
    assert outcome.delivered == run.trace.kinds()["MessageDelivered"] == total
    assert all(work().trace.digest() == run.trace.digest() for work in list(works.values())[1:])
    told = {name: queue_events(work) / total for name, work in works.items()}
    print(f"{load} (thinking {gap_ns:,} ns, {total:,} messages)")
    print(f"  {'':<42}{'messages/s':>10}{'ratio':>8}")
    row("SimPy with Stores, by hand, no trace", base, base, f"{told['base']:.1f} queue events")
    note = f"{len(run.trace) / total:.1f} records a message"
    row("popcorn_edu, full trace", base * ratio, base, note)
    row(
        "popcorn_edu, readable stories, full trace",
        base * statistics.median(ratios["readable"]), base,
        f"{told['readable']:.1f} queue events, the same trace",
    )  # fmt: skip
    if "compiled" in works:
        rate = base * statistics.median(ratios["compiled"])
        row("popcorn_edu, compiled by numba, full trace", rate, base, "the same trace")
    else:
        print(f"  {'popcorn_edu, compiled':<42}not installed: pip install 'popcorn_edu[fast]'")
    work = costs._asdict() | {"messages": small, "gap_ns": gap_ns, "slots": 64, "budget": 128}
    for name, (program, statement, install) in OTHERS.items():
        python = python_with(statement, options.python)
        if python is None:
            print(f"  {name:<42}not installed: {install}")
            continue
        rate = small * options.senders / other(python, program, work)
        row(f"{name}, no trace", rate, base, f"popcorn_edu: {base * ratio / rate:.1f} x this")
    end_ns = run.trace.time(len(run.trace) - 1)
    print(
        f"  spread of the ratios: {min(ratios['ours']):.2f} to {max(ratios['ours']):.2f}, readable "
        f"{min(ratios['readable']):.2f} to {max(ratios['readable']):.2f}; the two models end at "
        f"{end_ns:,} and {outcome.end_ns:,} ns"
    )
    if gap_ns == 0:
        verdict = "met" if told["readable"] <= EVENTS_TARGET else "MISSED"
        print(f"  target: readable stories, <= {EVENTS_TARGET} queue events a message: {verdict}")
    return ratio


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("messages", type=int, nargs="?", default=MESSAGES)
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    parser.add_argument("--senders", type=int, default=SENDERS)
    parser.add_argument("--python", action="append", default=[], help="a Python with SimGrid, ns-3")
    options = parser.parse_args(arguments)
    options.python = (*options.python, *PYTHONS)
    ratios = [compare(load, gap_ns, options) for load, gap_ns in LOADS.items()]
    verdict = "met" if ratios[0] >= TARGET else "MISSED"
    print(f"target: saturated, >= {TARGET} x SimPy by hand: {ratios[0]:.2f} x, {verdict}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()

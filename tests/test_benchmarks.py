"""The benchmarks run and say what they promise, at tiny sizes. No test here judges a time."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def beside_the_benchmarks(monkeypatch):
    """As when one is started as a script: they import each other by their bare names."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def output(name: str, *arguments: object) -> str:
    """What a benchmark prints, started as a user would."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / name, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fan_in_compares_both_loads_with_simpy_by_hand():
    """Each row has a ratio to the baseline of its own table, or says what to install."""
    told = output("fan_in.py", 2, 1, "--senders", 3)
    tables = told.split("messages)\n")
    assert len(tables) == 3
    for table in tables[1:]:
        assert re.search(r"SimPy with Stores, by hand, no trace +[\d,]+ +1\.00 x", table)
        assert re.search(r"popcorn_edu, full trace +[\d,]+ +\d+\.\d\d x .* records a mess", table)
        assert re.search(r"readable stories, full trace +[\d,]+ +\d+\.\d\d x .* same trace", table)
        for other in ("SimGrid", "ns-3"):
            assert re.search(rf"{other}(, no trace +[\d,]+ +\d|  +not installed: \w+ ins)", table)
    assert re.search(r"target: saturated, >= 1.0 x SimPy by hand: \d+\.\d\d x, (met|MISSED)", told)


def test_the_baseline_does_the_same_work():
    """It delivers as many messages, and needs about as much simulated time for them."""
    fan_in = importlib.import_module("fan_in")
    for gap_ns in fan_in.LOADS.values():
        run = fan_in.ours(20, gap_ns)
        outcome = fan_in.fan_in_simpy.fan_in(fan_in.costs_of(run.setup), 20, gap_ns)
        assert outcome.delivered == run.trace.kinds()["MessageDelivered"] == 64 * 20
        end_ns = run.trace.time(len(run.trace) - 1)
        assert 0.85 < outcome.end_ns / end_ns < 1.15


def test_few_events_go_through_the_queue():
    """An exact count, so a gate that no busy machine can blur: at most 2.1 for each message."""
    fan_in = importlib.import_module("fan_in")
    messages = 40
    count = fan_in.queue_events(lambda: fan_in.readable(messages, 0))
    assert count / (fan_in.SENDERS * messages) <= fan_in.EVENTS_TARGET


def test_a_simulator_that_is_not_there_is_looked_for_politely():
    """No Python that can do the import: None, and no traceback."""
    fan_in = importlib.import_module("fan_in")
    assert fan_in.python_with("import no_such_module", (sys.executable, "no-such-python")) is None
    assert fan_in.python_with("import json", ("no-such-python", sys.executable)) == sys.executable


def test_trace_memory_reports_both_measurements():
    """The accounting of Python, and the growth of the process, beside plain tuples."""
    told = output("trace_memory.py", 3_000)
    for name in ("records as tuples", "trace, its columns", "with names", "growth of the process"):
        assert re.search(rf"{name}.* +\d+\.\d +\d+\.\d\d x", told), told
    assert re.search(r"target: <= 64 B a record, by both measurements: (met|MISSED)", told)


def test_the_memory_of_a_trace_by_pythons_own_accounting():
    """Exact enough to judge: a record costs less than 64 B, names and all."""
    found = json.loads(output("trace_memory.py", "trace", 30_000))
    assert found["bytes"] / found["records"] <= 64
    assert found["columns"] <= found["bytes"]


def test_jump_reports_first_and_later_jumps():
    """A walk through all records is the measure."""
    told = output("jump.py", 1_000)
    for name in ("one walk", "first jump", "random record, median", "next record, median"):
        assert re.search(rf"{name}.* +\d+\.\d\d +\d+\.\d{{4}} x", told), told
    assert re.search(r"target: jump, median <= 5 ms: \d+\.\d\d ms, (met|MISSED)", told)


def test_dividing_compares_each_step_with_reading_the_file():
    """Plans, groupings and a boot of 64 kernels, each in a process of its own."""
    told = output("dividing.py", 1)
    assert len(re.findall(r"\d+\.\d\dx  target <= [\d,]+ ms: (?:met|MISSED)", told)) == 4
    assert "(baseline)" in told


def test_command_lines_are_compared_with_cutting_them():
    """Reading, reading without a memory of words, and applying."""
    told = output("command_lines.py", 50)
    assert len(re.findall(r" \d+\.\d x", told)) == 4
    assert "target: parse <= 1 s" in told


def test_explore_says_how_many_states_a_second():
    """Each size is complete, with its rate and its ratio to the search of all orders."""
    told = output("explore.py", "--small", "--all-orders")
    assert len(re.findall(r"states +[\d.]+ s +[\d,]+/s .* times as many", told)) == 6
    assert "NOT COMPLETE" not in told


def test_sweep_says_how_near_to_ideal_it_is():
    """A ratio for each size of a point."""
    told = output("sweep.py", 0, 2)
    assert told.count("of ideal (target 0.8)") == 3

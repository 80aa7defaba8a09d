"""A run as a file of another program. What those programs make of it: see also
tests/browser/test_perfetto.py, where Perfetto's own trace processor answers."""

import json
import re
import shutil
import subprocess
from collections import defaultdict

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.messaging import IpiArrived, IpiSent, MessageDelivered, SoftirqEntered
from popcorn_edu.model.rings import MessageRead, SlotReady
from popcorn_edu.readers import export, figures

RUNS = {
    "fan_in": {"seed": 2},
    "lost_wakeup": {},
    "two_full_rings": {},
    "registration": {},
    "boot": {},
    "proxied_io": {},
    "device_scan": {},
}


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    return scenarios.run(request.param, **RUNS[request.param])


@pytest.fixture(scope="module")
def fan_in():
    return scenarios.fan_in(kernels=4, messages=6, high_every=3, seed=2)


# -- Perfetto -------------------------------------------------------------------------------------


def events(run, phase: str) -> list[dict]:
    return [e for e in json.loads(export.as_perfetto(run.trace))["traceEvents"] if e["ph"] == phase]


def test_slices_of_a_thread_are_nested(run):
    """Two slices of one thread lie one in the other or one after the other: none overlap."""
    lanes = defaultdict(list)
    for event in events(run, "X"):
        start = round(event["ts"] * 1000)
        lanes[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1000)))
    for slices in lanes.values():
        open_until: list[int] = []
        for start, end in slices:
            while open_until and open_until[-1] <= start:
                open_until.pop()
            assert not open_until or end <= open_until[-1]
            open_until.append(end)


def test_every_message_has_one_arrow(fan_in):
    """Each delivered message is one arrow, from its TicketTaken to its MessageDelivered."""
    begins = {e["bind_id"]: e["ts"] for e in events(fan_in, "X") if e.get("flow_out")}
    ends = {e["bind_id"]: e["ts"] for e in events(fan_in, "X") if e.get("flow_in")}
    lengths = sorted(round((ends[arrow] - begin) * 1000) for arrow, begin in begins.items())
    assert begins.keys() == ends.keys()
    assert lengths == sorted(row["latency_ns"] for row in figures.latencies(fan_in))
    assert len(lengths) == fan_in.trace.kinds()["MessageDelivered"] == 18


def test_every_record_is_there_with_its_time(run):
    """Each record is a moment of its actor's thread, at its time to the nanosecond."""
    moments = {e["args"]["record"]: e for e in events(run, "i")}
    names = {e["tid"]: e["args"]["name"] for e in events(run, "M") if e["name"] == "thread_name"}
    assert sorted(moments) == list(range(len(run)))
    for record in run.trace:
        moment = moments[record.seq]
        assert round(moment["ts"] * 1000) == record.time
        assert moment["args"]["says"] == str(record.event)
        assert names[moment["tid"]] == record.who


def test_a_process_is_a_kernel(fan_in):
    """Each kernel is a process; the machine, with the interrupts on the wire, is another."""
    names = [e["args"]["name"] for e in events(fan_in, "M") if e["name"] == "process_name"]
    assert names == ["the machine", "kernel 0", "kernel 1", "kernel 2", "kernel 3"]
    wires = [e for e in events(fan_in, "X") if e["name"].startswith("IPI from kernel")]
    assert len(wires) == fan_in.trace.kinds()["IpiSent"]
    assert {e["pid"] for e in wires} == {export.MACHINE_PID}


def test_what_never_ends_says_so():
    """A sender that spins for ever has a slice to the end of the run, and its name says it."""
    run = scenarios.two_full_rings()
    assert any(e["name"].endswith("(never over)") for e in events(run, "X"))


def test_a_fork_is_exported_too(fan_in):
    """A run with a lost interrupt has its own story: the arrow of what was lost is missing."""
    lost = fan_in.fork(fan_in.trace.next(IpiArrived).seq, drop=True)
    assert len(events(lost, "i")) == len(lost)


# -- ShiViz ---------------------------------------------------------------------------------------


def clocks(run) -> list[tuple[str, dict, str]]:
    """The log as ShiViz would split it: by its regular expression."""
    expression = export.SHIVIZ_EXPRESSION.replace("(?<", "(?P<")
    found = re.findall(expression, export.as_shiviz(run.trace))
    return [(host, json.loads(clock), event) for host, clock, event in found]


def test_a_hosts_own_clock_counts_its_events(run):
    """As ShiViz demands: a host's own entry grows by 1 with each of its events."""
    counts: dict[str, int] = defaultdict(int)
    for host, clock, _ in clocks(run):
        counts[host] += 1
        assert clock[host] == counts[host]
    assert sum(counts.values()) == len(run)


def test_a_clock_never_goes_back(run):
    """What a host has known of another it does not forget."""
    known: dict[str, dict[str, int]] = defaultdict(dict)
    for host, clock, _ in clocks(run):
        assert all(clock.get(other, 0) >= count for other, count in known[host].items())
        known[host] = clock


def test_who_reads_a_message_knows_its_sender(fan_in):
    """A message read, and an IPI that arrives, bring along what their sender knew."""
    sent, log = {}, clocks(fan_in)
    for record, (_, clock, _) in zip(fan_in.trace, log, strict=True):
        event = record.event
        if type(event) is SlotReady:
            sent["message", event.ticket] = clock
        elif type(event) is IpiSent:
            sent["interrupt", event.src] = clock
        elif type(event) in (MessageRead, IpiArrived):
            key = ("message", event.ticket) if type(event) is MessageRead else (
                "interrupt", event.src
            )  # fmt: skip
            assert all(clock[host] >= count for host, count in sent[key].items())


def test_kernels_that_do_not_talk_know_nothing_of_each_other(fan_in):
    """Senders never hear from one another: their clocks name only themselves."""
    for host, clock, _ in clocks(fan_in):
        if host in ("kernel-1", "kernel-2", "kernel-3"):
            assert set(clock) == {host}


# -- Common Trace Format --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def babeltrace() -> str:
    return shutil.which("babeltrace2") or pytest.fail(
        "babeltrace2 reads the exported traces; install it (Debian: apt-get install babeltrace2)"
    )


@pytest.mark.slow
def test_babeltrace_reads_every_record(run, tmp_path, babeltrace):
    """babeltrace2 lists each record once, in the order of time, with its fields."""
    export.write_ctf(run.trace, tmp_path / "ctf")
    told = subprocess.run([babeltrace, tmp_path / "ctf"], capture_output=True, text=True)
    lines = told.stdout.splitlines()
    assert told.returncode == 0 and told.stderr == ""
    numbers = [int(re.search(r"record = (\d+)", line)[1]) for line in lines]
    assert sorted(numbers) == list(range(len(run)))
    for number, line in zip(numbers, lines, strict=True):
        record = run.trace[number]
        assert f" {type(record.event).__name__}: " in line
        assert f'who = "{record.who}"' in line
        seconds, ns = divmod(record.time, 10**9)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ns:09}"
        assert line.startswith(f"[{clock}]")


def test_a_folder_that_is_there_is_left_alone(fan_in, tmp_path):
    """write_ctf refuses to write into a folder that exists, and leaves no half-written one."""
    (tmp_path / "mine").mkdir()
    with pytest.raises(PopcornError, match="already there"):
        export.write_ctf(fan_in.trace, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_force_replaces_a_trace_and_nothing_else(fan_in, tmp_path):
    """force=True replaces a CTF folder; a folder with other things in it stays."""
    export.write(fan_in.trace, "ctf", tmp_path / "ctf")
    export.write(fan_in.trace, "ctf", tmp_path / "ctf", force=True)
    assert (tmp_path / "ctf" / "metadata").read_text().startswith("/* CTF 1.8 */")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("years of work")
    with pytest.raises(PopcornError, match="already there"):
        export.write(fan_in.trace, "ctf", tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis").exists()


# -- the spans themselves -------------------------------------------------------------------------


def test_a_poll_lies_within_its_softirq(fan_in):
    """Whatever the softirq's thread shows is inside of a softirq slice."""
    softirqs = [e for e in events(fan_in, "X") if e["name"].startswith("softirq")]
    assert len(softirqs) == len(list(fan_in.trace.records(SoftirqEntered)))
    callbacks = [e for e in events(fan_in, "X") if e["name"] == "TEST callback"]
    assert len(callbacks) == len(list(fan_in.trace.records(MessageDelivered)))
    for inner in callbacks:
        assert any(
            outer["tid"] == inner["tid"]
            and outer["ts"] <= inner["ts"]
            and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1e-9
            for outer in softirqs
        )

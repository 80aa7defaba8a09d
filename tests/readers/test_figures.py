"""The measures against traces made by hand, and the charts without a browser."""

import csv
import io
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError, Trace
from popcorn_edu.model.messaging import (
    InterruptTaken,
    IpiArrived,
    IpiSent,
    MessageDelivered,
    SoftirqEntered,
    SoftirqExited,
)
from popcorn_edu.model.rings import (
    AllRegistered,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    MessageType,
    PayloadCopied,
    Priority,
    SenderBlocked,
    SlotReady,
    TicketTaken,
)
from popcorn_edu.readers import figures

TEST, HIGH, NORMAL = MessageType.TEST, Priority.HIGH, Priority.NORMAL


def trace_of(*timed, slots=2) -> Trace:
    """A trace from (time, event) pairs, of three kernels with small rings."""
    trace = Trace({"setup": {"slots": slots}})
    trace.append(0, "machine", None, AllRegistered(3))
    for time, event in timed:
        trace.append(time, "somebody", None, event)
    return trace


def message(ticket, sender, number, at, priority=NORMAL, ring=0, slots=2):
    """The five stations of one message, at the five times."""
    slot = ticket % slots
    facts = ring, slot, ticket, sender
    inside = number, TEST, priority, 0
    stations = (
        TicketTaken(ring, ticket, sender, number),
        PayloadCopied(*facts, *inside),
        SlotReady(*facts),
        MessageRead(*facts, *inside),
        MessageDelivered(ring, sender, *inside),
    )
    return list(zip(at, stations, strict=True))


@pytest.fixture(scope="module")
def run():
    return scenarios.fan_in(kernels=5, messages=8, seed=3, high_every=3)


@pytest.fixture(scope="module")
def crowded():
    return scenarios.fan_in(kernels=5, messages=20, seed=3, slots=4, gap_ns=100)


# -- latency --------------------------------------------------------------------------------------


def test_latency_runs_from_the_ticket_to_the_callback():
    """latency_ns is MessageDelivered minus TicketTaken, with the stations in between."""
    (row,) = figures.latencies(trace_of(*message(0, 1, 7, (100, 130, 140, 200, 250))))
    assert row == {
        "record": 5, "ring": 0, "ticket": 0, "sender": 1, "number": 7, "type": "TEST",
        "priority": "NORMAL", "ticket_ns": 100, "ready_ns": 140, "read_ns": 200,
        "delivered_ns": 250, "latency_ns": 150,
    }  # fmt: skip


def test_latencies_stand_in_the_order_of_delivery():
    """A message that overtakes another comes before it."""
    first = message(0, 1, 0, (10, 20, 30, 60, 90))
    second = message(1, 2, 0, (11, 21, 31, 61, 80), HIGH)
    trace = trace_of(*sorted(first + second, key=lambda pair: pair[0]))
    assert [(row["sender"], row["latency_ns"]) for row in figures.latencies(trace)] == [
        (2, 69),
        (1, 80),
    ]


def test_two_rings_do_not_mix():
    """Equal tickets and numbers of two rings are two messages."""
    to_0 = message(0, 1, 0, (10, 20, 30, 40, 50))
    to_2 = message(0, 1, 0, (10, 20, 30, 40, 75), ring=2)
    trace = trace_of(*sorted(to_0 + to_2, key=lambda pair: pair[0]))
    assert [(row["ring"], row["latency_ns"]) for row in figures.latencies(trace)] == [
        (0, 40),
        (2, 65),
    ]


def test_what_never_arrives_has_no_latency():
    """A message that was read and not delivered, or whose ticket is missing, is left out."""
    undelivered = message(0, 1, 0, (10, 20, 30, 40, 50))[:4]
    without_ticket = message(1, 2, 0, (10, 20, 30, 41, 51))[1:]
    assert figures.latencies(trace_of(*undelivered, *without_ticket)) == []


@pytest.mark.parametrize(
    ("percent", "expected"), [(1, 10), (50, 20), (75, 30), (76, 40), (99, 40), (100, 40)]
)
def test_a_percentile_is_one_of_the_values(percent, expected):
    """Nearest rank: the smallest value that so many per cent do not exceed."""
    assert figures.percentile([40, 10, 30, 20], percent) == expected


def test_nothing_has_no_percentile():
    """Of no values there is no percentile, and no error either."""
    assert figures.percentile([], 99) is None


def test_percentiles_agree_with_their_definition():
    """For many random lists: so many do not exceed it, and of anything smaller too few."""
    draw = random.Random(0)
    for _ in range(200):
        values = [draw.randrange(50) for _ in range(draw.randrange(1, 40))]
        percent = draw.randrange(1, 101)
        found = figures.percentile(values, percent)
        assert 100 * sum(value <= found for value in values) >= percent * len(values)
        assert 100 * sum(value < found for value in values) < percent * len(values)


def test_each_priority_has_its_own_percentiles(run):
    """HIGH and NORMAL stand in two rows, which together hold every message."""
    rows = figures.latency_percentiles(run)
    assert [row["priority"] for row in rows] == ["HIGH", "NORMAL"]
    assert sum(row["messages"] for row in rows) == len(figures.latencies(run)) == 32
    assert all(row["p50_ns"] <= row["p90_ns"] <= row["p99_ns"] <= row["max_ns"] for row in rows)


# -- interrupts -----------------------------------------------------------------------------------


def test_ipis_and_interrupts_are_counted_apart():
    """Two IPIs that become one interrupt are two and one, over the messages read."""
    trace = trace_of(
        *message(0, 1, 0, (10, 20, 30, 60, 90)),
        (91, IpiSent(1, 0, 0xCD)), (92, IpiSent(2, 0, 0xCD)), (93, IpiArrived(0, 1)),
        (94, IpiArrived(0, 2)), (95, InterruptTaken(0)), (96, IpiSent(0, 2, 0xCD)),
        *message(1, 2, 0, (100, 110, 120, 130, 140)),
    )  # fmt: skip
    assert figures.interrupts_per_message(trace, kernel=0) == {
        "messages": 2, "ipis": 2, "interrupts": 1,
        "ipis_per_message": 1.0, "interrupts_per_message": 0.5,
    }  # fmt: skip
    assert figures.interrupts_per_message(trace)["ipis"] == 3


def test_without_messages_there_is_no_ratio():
    """Nothing read: the ratios are None, not a division by zero."""
    assert figures.interrupts_per_message(trace_of())["ipis_per_message"] is None


# -- occupancy ------------------------------------------------------------------------------------


def test_occupancy_counts_slots_and_tickets():
    """In use from PayloadCopied to MessageRead, held from TicketTaken to MessageRead."""
    trace = trace_of(*message(0, 1, 0, (10, 20, 30, 60, 90)))
    assert figures.occupancy(trace, 0) == [
        {"record": None, "time_ns": 0, "in_use": 0, "held": 0},
        {"record": 1, "time_ns": 10, "in_use": 0, "held": 1},
        {"record": 2, "time_ns": 20, "in_use": 1, "held": 1},
        {"record": 4, "time_ns": 60, "in_use": 0, "held": 0},
    ]


def test_slots_in_use_never_exceed_the_slots(crowded):
    """In a ring of 4 with waiting senders 4 slots are in use at most, and more tickets are held."""
    levels = figures.occupancy(crowded)
    assert max(level["in_use"] for level in levels) == 4
    assert max(level["held"] for level in levels) > 4


def test_occupancy_agrees_with_the_world(run):
    """At every record that changes it, held is head - tail and in_use is the slots' table."""
    for level in figures.occupancy(run, 0)[1:]:
        rings = run.at(level["record"] + 1).rings
        assert level["held"] == rings.head[0] - rings.tail[0]
        assert level["in_use"] == sum(ring == 0 for ring, _ in rings.slots)


def test_the_busiest_ring_is_the_default(run):
    """In fan-in everybody writes into ring 0."""
    assert figures.busiest_ring(run) == 0
    assert figures.occupancy(run) == figures.occupancy(run, 0)
    assert figures.rings(run) == [0, 1, 2, 3, 4]


def test_a_ring_that_is_not_there_is_refused(run):
    """The sentence names the rings that there are."""
    with pytest.raises(PopcornError, match=r"ring=9: .*0, 1, 2, 3, 4"):
        figures.occupancy(run, 9)


# -- the rest -------------------------------------------------------------------------------------


def test_utilisation_adds_up_spans():
    """Polling, softirq and spinning per kernel; what is still open lasts to the end."""
    trace = trace_of(
        (10, InterruptsDisabled(0)), (15, SoftirqEntered(0)), (20, SenderBlocked(0, 2, 1, 0)),
        (30, InterruptsEnabled(0)), (32, SoftirqExited(0)),
        (50, PayloadCopied(0, 0, 2, 1, 0, TEST, NORMAL, 0)), (60, InterruptsDisabled(0)),
        (100, IpiSent(1, 0, 0xCD)),
    )  # fmt: skip
    assert figures.utilisation(trace) == [
        {"kernel": 0, "polling_ns": 60, "softirq_ns": 17, "spinning_ns": 0, "run_ns": 100},
        {"kernel": 1, "polling_ns": 0, "softirq_ns": 0, "spinning_ns": 30, "run_ns": 100},
        {"kernel": 2, "polling_ns": 0, "softirq_ns": 0, "spinning_ns": 0, "run_ns": 100},
    ]


@pytest.mark.parametrize("name", scenarios.names())
def test_every_scenario_can_be_measured(name):
    """No scenario, and no saved trace without its machine, makes a measure stumble."""
    run = scenarios.run(name, seed=1)
    assert figures.summary(run) == figures.summary(run.trace)
    assert len(figures.utilisation(run)) == len(figures.rings(run))


def test_rows_go_straight_into_a_csv_file(run):
    """A measure's rows are dicts with the same keys, of plain values."""
    rows, file = figures.latencies(run), io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    back = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["latency_ns"] for row in back] == [str(row["latency_ns"]) for row in rows]


def test_a_long_line_is_thinned_and_keeps_its_extremes():
    """Of 50,000 points at most 2,000 are drawn; the ends and the extremes stay."""
    draw = random.Random(1)
    rows = [
        {"record": n, "time_ns": n, "in_use": draw.randrange(1, 9), "held": draw.randrange(1, 20)}
        for n in range(50_000)
    ]
    rows[31_234]["in_use"], rows[31_235]["held"] = 60, 70
    kept = figures._thinned(rows)
    assert len(kept) <= figures.POINTS_AT_MOST
    assert rows[31_234] in kept and rows[31_235] in kept
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])


# -- charts ---------------------------------------------------------------------------------------


def items_of(html: str) -> list[dict]:
    """The Bokeh documents in a block."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])


class Tables(HTMLParser):
    """The text of every cell of every table, and the tags that occur."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows, self.tags, self.cell = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        self.cell = tag in ("td", "th")

    def handle_data(self, data):
        if self.cell:
            self.rows[-1].append(data)

    def handle_endtag(self, tag):
        self.cell = False


def test_three_charts_by_default(run):
    """Occupancy, latency, interrupts; each a figure with a caption and a table."""
    html = figures.show(run).html(library=False)
    assert len(items_of(html)) == 3
    for tag in ("figure", "figcaption", "details", "table"):
        assert Tables(html).tags.count(tag) == 3


def test_each_twin_holds_the_measures(run):
    """The table beside a chart says in numbers what the chart draws."""
    rows = Tables(figures.show(run, charts=["latency"]).html(library=False)).rows
    measured = figures.latency_percentiles(run)
    assert rows[0][:3] == ["run", "priority", "messages"]
    assert [row[1:] for row in rows[1:]] == [
        [figures.show_value(value) for value in row.values()] for row in measured
    ]


def test_axes_have_units(run):
    """Time and latency are in ns, shares in per cent."""
    html = figures.show(run).html(library=False)
    for label in ("time since power-on (ns)", "latency (ns)", "share of the messages (%)", "slots"):
        assert f'"axis_label":"{label}"' in html


def test_the_capacity_is_drawn(crowded):
    """A ring of 4 slots has its line at 4, with the word."""
    html = figures.show(crowded, charts=["occupancy"]).html(library=False)
    assert "capacity: 4 slots" in html
    assert re.search(r'"name":"Span","id":"p\d+","attributes":\{"location":4,', html)


def test_compared_runs_differ_by_more_than_colour(run, crowded):
    """Two runs differ in dash, in marker and in hatch as well."""
    html = figures.show(run, crowded, names=("calm", "crowded")).html(library=False)
    for look in ('"line_dash":[6]', '"square"', '"right_diagonal_line"'):
        assert look in html
    assert "calm: half within" in html and "crowded: half within" in html


def test_waiting_senders_are_told(crowded):
    """More tickets than slots: the sentence says that senders waited."""
    assert "senders had to wait" in repr(figures.show(crowded, charts=["occupancy"]))


@pytest.mark.parametrize("name", scenarios.names())
def test_every_scenario_can_be_drawn(name):
    """Charts of any scenario, and of two different ones beside each other."""
    run = scenarios.run(name, seed=1)
    assert len(items_of(figures.show(run, scenarios.ping()).html(library=False))) == 3


def test_a_run_without_messages_is_drawn_and_said():
    """Nothing sent: empty charts, and words instead of numbers."""
    charts = figures.show(scenarios.fan_in(messages=0))
    assert len(items_of(charts.html(library=False))) == 3
    assert "It stays empty" in repr(charts) and "no message was delivered" in repr(charts)


def test_the_block_asks_for_nothing_from_outside(run):
    """No address to load from, and the library is in it, compressed, once."""
    html = figures.show(run).html()
    outside = re.sub(r'<script type="text/plain".*?</script>', "", html)
    assert not re.search(r"https?://|src=|@import|jquery", outside, re.IGNORECASE)
    assert html.count('class="pk-bokeh"') == 1
    assert len(html) < 550_000
    assert len(figures.show(run).html(library=False)) < 60_000


def test_a_text_cannot_close_the_script():
    """A run's name with a script's end in it stays a name."""
    one = scenarios.ping()
    name = "</script><b>"
    html = figures.show(one, one, names=(name, "other")).html(library=False)
    assert html.count("</script>") == 2
    shown = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert "&lt;/script&gt;&lt;b&gt;: half within" in shown
    assert Tables(shown).tags.count("b") == 3


def test_charts_of_the_same_run_are_the_same(run):
    """Up to Bokeh's own numbering, the same run gives the same block."""

    def plain():
        html = figures.show(run).html(library=False)
        numbers = {}
        return re.sub(r'"p\d+"', lambda m: numbers.setdefault(m[0], str(len(numbers))), html)

    assert plain() == plain()


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (0, {}, "one to 4 runs at a time, not 0"),
        (5, {}, "one to 4 runs at a time, not 5"),
        (1, {"charts": ["latencies"]}, "no chart 'latencies'; did you mean latency"),
        (2, {"names": ["one"]}, "expected 2, one for each run"),
        (2, {"names": ["one", "one"]}, "expected different names"),
        (1, {"ring": 70}, "ring=70"),
    ],
)
def test_bad_input_is_a_sentence(run, arguments, options, sentence):
    """show() says what it expected."""
    with pytest.raises(PopcornError, match=sentence):
        figures.show(*[run] * arguments, **options)


def test_what_is_no_run_is_refused():
    """A scenario's name is not a run."""
    with pytest.raises(PopcornError, match="draws runs; str is none"):
        figures.show("fan_in")


def test_measures_load_no_bokeh():
    """Only showing a chart pays for Bokeh, and nothing is printed to stderr by it."""
    code = (
        "import sys; from popcorn_edu import scenarios; from popcorn_edu.readers import figures\n"
        "charts = figures.show(scenarios.ping()); figures.summary(scenarios.ping()); repr(charts)\n"
        "before = 'bokeh' in sys.modules or 'numpy' in sys.modules\n"
        "charts.html(); print(before, 'bokeh' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False True", "")


# -- the summary of a long run --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_counted_by_columns_it_is_the_same(seed):
    """Whatever the load, the ring, the policy and the engine: every number is equal."""
    draw = random.Random(seed)
    run = scenarios.fan_in(
        kernels=draw.randint(2, 7), messages=draw.randint(1, 60), seed=seed,
        gap_ns=draw.choice([0, 300, 3_000]), slots=draw.choice([1, 3, 64]),
        high_every=draw.choice([0, 2]), schedule_seed=draw.choice([None, seed]),
        mitigation=draw.choice(["poll until empty", "interrupt only", "poll only", "adaptive"]),
    )  # fmt: skip
    assert figures.by_columns(run) == figures.record_by_record(run)
    list(run.trace)  # unrolled: the times are each record's now
    assert figures.by_columns(run) == figures.record_by_record(run)


@pytest.mark.parametrize("name", ["ping", "two_full_rings", "registration", "long_message"])
def test_other_scenarios_are_counted_alike(name):
    """Two rings, check-ins, chunks; where columns cannot tell, they say so."""
    run = scenarios.run(name)
    assert figures.by_columns(run) in (None, figures.record_by_record(run))


def test_a_fork_that_doubles_a_message_is_not_counted_by_columns():
    """The slow way is right for it, and summary takes it."""
    run = scenarios.fan_in(kernels=3, messages=4)
    twice = run.trace.next(TicketTaken)
    odd = run.fork(twice.seq + 3, say=twice.event)
    assert figures.by_columns(odd) is None
    assert figures.summary(odd) == figures.record_by_record(odd)

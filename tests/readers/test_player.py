"""The player's Python half: what it sends to the browser, and what remains without one."""

import base64
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import Event, PopcornError, Trace, all_kinds
from popcorn_edu.engine.world import Part, Run, World
from popcorn_edu.model.messaging import IpiArrived, SoftirqEntered
from popcorn_edu.readers import player
from popcorn_edu.readers.player import ARROWS, GLYPHS, SPANS, plain_value, play, to_html


@pytest.fixture(scope="module")
def run():
    return scenarios.fan_in(kernels=4, messages=20, slots=8, gap_ns=300, high_every=3)


def payload_of(html: str) -> dict:
    packed = re.search(r'<script type="text/plain">(.*?)</script>', html)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def tables_of(payload: dict, applied: int) -> dict:
    """The tables after so many records, from the patches alone: what the browser does."""
    state = dict(enumerate(payload["initial"]))
    end = sum(payload["patches"][:applied])
    state |= dict(zip(payload["patchCell"][:end], payload["patchValue"][:end], strict=True))
    tables = {f"{table['part']}.{table['name']}": {} for table in payload["tables"]}
    for cell, value in state.items():
        if value >= 0:
            table = payload["tables"][payload["cellTable"][cell]]
            item = payload["values"][value]
            plain = item[1] if isinstance(item, list) else item
            key = json.dumps(payload["cellKey"][cell])
            tables[f"{table['part']}.{table['name']}"][key] = plain
    return tables


def tables_in(world: World) -> dict:
    return {
        f"{part}.{name}": {
            json.dumps(plain_value(key)): plain_value(value) for key, value in table.items()
        }
        for part, tables in world.snapshot().items()
        for name, table in tables.items()
    }


@pytest.mark.parametrize("name", scenarios.names())
def test_the_patches_add_up_to_the_world(name):
    """At any record of any scenario, the patches up to it give exactly run.at(n)."""
    run = scenarios.run(name, seed=1)
    payload = payload_of(play(run).html())
    for applied in {0, 1, len(run) // 3, len(run) // 2, len(run) - 1, len(run)}:
        assert tables_of(payload, applied) == tables_in(run.at(applied))


def test_a_window_begins_with_the_world_as_it_is_there(run, monkeypatch):
    """A run beyond the cap is shown in part: the part asked for, and the player says so."""
    monkeypatch.setattr(player, "RECORDS_AT_MOST", 50)
    payload = play(run, around=100).payload
    assert (payload["first"], len(payload["kind"]), payload["at"]) == (75, 50, 26)
    assert tables_of(payload, 10) == tables_in(run.at(85))
    assert "holds 75 to 124" in payload["notice"]


class Noted(Event):
    """Why not."""

    says = "{what} is noted"
    what: str


class Odd(Part):
    """A part that changes its tables in every way that a dict has."""

    tables = ("first", "second")

    def noted(self, event):
        what = event.what
        self.first.update({what: True, (1, what): 2**60})
        self.first.setdefault(what, 0)
        self.second |= {"last": frozenset({2, 1})}
        if len(self.first) > 4:
            self.first.popitem()
            del self.first[what]
            self.first.pop("absent", None)
        if what == "end":
            self.second.clear()

    applies = {Noted: noted}


def test_every_way_to_change_a_dict_is_noticed():
    """A part may use update, setdefault, pop, del, |= or clear: the patches miss none of it."""
    trace = Trace({"scenario": "odd"})
    for number, what in enumerate(["a", "b", "a", "c", "end"]):
        trace.append(number, "somebody", None, Noted(what))
    run = Run(trace, lambda: World(object(), odd=Odd))
    payload = payload_of(play(run).html())
    for applied in range(6):
        assert tables_of(payload, applied) == tables_in(run.at(applied))


def test_the_picture_knows_only_kinds_that_exist():
    """Every event kind that an arrow, a span or a glyph names is declared somewhere."""
    named = {kind for join in ARROWS + SPANS for kind in (join.start, *join.end.split())}
    named |= set(GLYPHS)
    assert named <= {kind.__name__ for kind in all_kinds()}


def test_an_arrow_joins_the_two_records_of_one_message(run):
    """A message arrow leads from SlotReady to the MessageRead of the same ring and ticket."""
    message = play(run).payload["arrows"][0]
    place, joined = 0, []
    for delta, span in zip(message["from"], message["span"], strict=True):
        place += delta
        joined.append((run.trace.event(place), run.trace.event(place + span)))
    assert len(joined) == run.trace.kinds()["SlotReady"]
    for ready, read in joined:
        assert (ready.ring, ready.ticket) == (read.ring, read.ticket)


def test_an_arrow_that_never_arrives_says_so(run):
    """A record that waits in vain for its partner has the length -1."""
    ipi = next(r for r in run.trace if type(r.event).__name__ == "IpiArrived")
    fork = run.fork(ipi.seq, drop=True)
    payload = play(fork).payload
    assert -1 in next(arrow for arrow in payload["arrows"] if arrow["name"] == "IPI")["span"]


def test_two_thousand_events_are_within_300_kB():
    """A saved run of 2,000 events, scripts and styles included, is at most 300 kB."""
    run = scenarios.fan_in(kernels=16, messages=24, slots=16)
    assert len(run) >= 2_000
    assert len(play(run).html().encode()) <= 300_000


def test_one_html_output_and_its_text(run, capfd):
    """A notebook gets text/html and a short text/plain, and nothing goes to stdout or stderr."""
    shown = play(run, at=40)
    text = repr(shown)
    assert shown._repr_html_().startswith("<section")
    assert "record" in text and text.count("\n") < 20
    assert capfd.readouterr() == ("", "")


def test_a_page_asks_for_nothing_from_outside(run):
    """The block names no address that a browser would load."""
    html = play(run).html()
    addresses = set(re.findall(r"https?://[^\"'\s`]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(link|iframe|img|script src)", html)


class Untrusted(HTMLParser):
    """What JupyterLab leaves of an untrusted output: no script, no style, no svg."""

    def __init__(self):
        super().__init__()
        self.skipping, self.text, self.rows = 0, [], 0

    def handle_starttag(self, tag, attrs):
        self.skipping += tag in ("script", "style", "svg")
        self.rows += tag == "tr" and not self.skipping

    def handle_endtag(self, tag):
        self.skipping -= tag in ("script", "style", "svg")

    def handle_data(self, data):
        if not self.skipping:
            self.text.append(data)


def test_without_scripts_a_table_of_the_steps_remains(run):
    """Stripped of script, style and svg, the output is a table with the sentences of the steps."""
    left = Untrusted()
    left.feed(play(run).html())
    text = " ".join(left.text)
    assert left.rows == min(len(run), player.FALLBACK_STEPS) + 1
    assert str(run.trace.event(5)) in text
    assert ("are left out" in text) == (len(run) > player.FALLBACK_STEPS)


def test_a_message_in_a_table_is_shown_in_words(run):
    """A slot that holds message 0 of kernel 2 says so, and not the name of an event class."""
    texts = [item[0] for item in play(run).payload["values"] if isinstance(item, list)]
    assert "message 0 of kernel 2" in texts and "PayloadCopied" not in texts


def test_what_a_learner_writes_is_text_not_markup():
    """A sentence with angle brackets cannot become markup, in the table or in the data."""
    trace = Trace({"scenario": "<img src=x onerror=alert(1)>"})
    trace.append(0, "somebody", None, Noted("</script><script>alert(1)</script>"))
    html = play(Run(trace, lambda: World(object(), odd=Odd))).html()
    assert "<img" not in html and "alert(1)</script>" not in html


def test_a_page_of_its_own(run, tmp_path):
    """to_html writes one whole page, and a folder that is not there is one sentence."""
    page = to_html(run, tmp_path / "run.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    with pytest.raises(PopcornError, match="cannot write .*: No such file"):
        to_html(run, tmp_path / "absent" / "run.html")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"at": -1}, r"play\(at=-1\): expected a record number from 0 to"),
        ({"at": True}, r"play\(at=True\)"),
        ({"around": 10**9}, r"play\(around=1000000000\)"),
        ({"ask": [{"att": 3}]}, r"ask\[0\] has no part 'att'; did you mean at"),
        ({"ask": [{"at": 3}]}, r"ask\[0\]: question=None: expected a text"),
        ({"ask": [{"at": "3", "question": "?"}]}, r"ask\[0\]: at='3': expected a record number"),
        ({"ask": ["no"]}, r"ask\[0\]: expected a dict"),
        (
            {"ask": [{"at": 3, "question": "?", "options": ["an IPI", "none"], "answer": "an IP"}]},
            r"answer='an IP' is none of its options; did you mean an IPI",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence(run, options, sentence):
    """A mistake in what play() is given names the option and what was expected."""
    with pytest.raises(PopcornError, match=sentence):
        play(run, **options)


def test_a_fork_for_the_page_is_the_same_as_in_python(run, monkeypatch):
    """The page's fork is run.fork(n, edit), opened at record n, and can itself be forked."""
    monkeypatch.setattr(player, "_kernel_id", lambda: "a-kernel")
    key = play(run).payload["live"]["run"]
    forked = player.fork_for_page(key, 60, "drop", True)
    assert forked.run.trace.digest() == run.fork(60, drop=True).trace.digest()
    assert forked.payload["at"] == 61
    assert forked.payload["title"].startswith("Fork at record 60: it never happens that")
    again = player.fork_for_page(forked.payload["live"]["run"], 70, "look_again", False)
    assert again.run.trace.digest() != forked.run.trace.digest()


def test_a_fork_keeps_the_name_that_its_origin_was_shown_by(run, monkeypatch):
    """The line of a fork, and of a fork of it, begins with what play(name=...) was given."""
    monkeypatch.setattr(player, "_kernel_id", lambda: "a-kernel")
    key = play(run, name='lab.run("demo")').payload["live"]["run"]
    forked = player.fork_for_page(key, 60, "drop", True).payload
    assert forked["forked"] == 'lab.run("demo").fork(60, drop=True).play()'
    assert forked["fork"]["name"] == 'lab.run("demo").fork(60, drop=True)'


def test_a_fault_for_the_page_is_the_same_as_in_python(run, monkeypatch):
    """The page's fault is run.inject(name, at=n), and a fork of it is a fork of that."""
    monkeypatch.setattr(player, "_kernel_id", lambda: "a-kernel")
    key = play(run, name="run").payload["live"]["run"]
    n = run.trace.next(IpiArrived).seq
    shown = player.fork_for_page(key, n, "fault", "lost IPI")
    assert shown.run.trace.digest() == run.inject("lost IPI", at=n).trace.digest()
    assert shown.payload["title"] == (
        f"Fork at record {n}: lost IPI: an interrupt between kernels is sent and never arrives"
    )
    assert shown.payload["forked"] == f'run.inject("lost IPI", at={n}).play()'
    again = player.fork_for_page(shown.payload["live"]["run"], n + 9, "fault", "kernel panic")
    assert len(again.run.edits) == 2
    with pytest.raises(PopcornError, match="is not possible at record 1 .*nearest place is record"):
        player.fork_for_page(key, 1, "fault", "lost IPI")


def test_a_dead_kernel_is_in_no_softirq(run):
    """Its stretches in the diagram end at the panic, and none begins after it."""
    n = run.trace.next(SoftirqEntered, kernel=0).seq + 2
    fork = run.inject("kernel panic", at=n, kernel=0)
    assert fork.trace.next(IpiArrived, after=n, kernel=0), "it is interrupted all the same"
    for span in play(fork).payload["spans"]:
        opened = 0
        for delta, length in zip(span["from"], span["span"], strict=True):
            opened += delta
            who = fork.trace[opened].who
            if re.search(r"kernel 0\b", who):
                assert 0 < length <= n - opened, (span["name"], opened)


def test_the_page_knows_which_faults_are_possible_where(run):
    """By the kind of the record; a run without kernels that talk has none."""
    deck = play(run).payload["fork"]["faults"]
    assert deck["lost IPI"]["kinds"] == ["IpiArrived"]
    assert deck["kernel panic"]["kinds"] == []
    assert "lost device interrupt" not in deck
    assert play(scenarios.device_scan()).payload["fork"]["faults"] == {}


def test_a_run_that_the_kernel_lost_is_one_sentence():
    """After a restart the page's run is unknown: the answer says to run the cell again."""
    with pytest.raises(PopcornError, match="no longer has that run. Run the cell again"):
        player.fork_for_page("unknown", 3, "drop", True)


def test_importing_the_player_loads_nothing_heavy():
    """The player needs no numpy, networkx, IPython or ipywidgets to be imported."""
    heavy = "{'numpy', 'networkx', 'IPython', 'ipywidgets', 'bokeh'}"
    code = f"import sys, popcorn_edu.readers.player; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -- boots ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def boot():
    return scenarios.boot(kernels=3, scan=False)


def test_the_views_of_a_boot_are_sent_only_with_a_boot(run, boot):
    """A run of messages pays nothing for them."""
    assert play(run).payload["boot"] is None and "class Gantt" not in play(run).html()
    assert play(boot).payload["boot"]["stages"][0] == "OFF" and "class Gantt" in play(boot).html()


def test_a_cpu_stands_in_the_lane_of_its_kernel(boot):
    """What CPU 16 does before its kernel runs is that kernel's boot."""
    payload, plan = play(boot).payload, boot.setup.plan
    for who, lane, row in zip(payload["actors"], payload["lane"], payload["row"], strict=True):
        if who.startswith("cpu "):
            kernel = plan.cpus.index(int(who[4:]))
            assert payload["lanes"][lane]["kernel"] == kernel
            assert payload["rows"][row] == "cpu"


def test_one_stranger_has_a_lane_with_its_name(boot):
    """The operator is nobody's kernel."""
    assert play(boot).payload["lanes"][-1] == {"name": "operator", "kernel": None}


def test_a_table_by_cpu_is_no_table_of_kernels(boot):
    """Its numbers look like kernels', and are not."""
    by_kernel = {f"{t['part']}.{t['name']}" for t in play(boot).payload["tables"] if t["perKernel"]}
    assert {"boot.stage", "boot.ram", "boot.timer"} <= by_kernel
    assert by_kernel.isdisjoint({"boot.mode", "boot.owner", "boot.low", "boot.target_of"})


def test_a_span_may_end_in_several_ways():
    """A climb ends with the jump to the kernel, or with a triple fault."""
    boots = scenarios.boot(kernels=3, failure="no extra map", scan=False)
    payload = play(boots).payload
    climbs = next(span for span in payload["spans"] if span["name"] == "a CPU climbs")
    assert len(climbs["span"]) == 2 and -1 not in climbs["span"]


def test_the_machine_shows_every_cpu_of_a_kernel():
    """A kernel of a plan may have more than one."""
    from popcorn_edu.model.partition import Partition

    plan = Partition.build("h8qg6-64", grouping="per package")
    payload = play(scenarios.boot(plan=plan, anyway=True, scan=False)).payload
    assert [cpus for _, cpus, _, _ in payload["machine"]["kernels"]] == [
        list(kernel.cpus) for kernel in plan.kernels
    ]


def test_a_fork_of_a_boot_offers_its_switches(boot):
    """What is laid out at the start, such as the order of the boots, is not offered."""
    settings = play(boot).payload["fork"]["settings"]
    assert {"extra_map", "stuck_bug", "look_again"} <= settings.keys()
    assert settings.keys().isdisjoint({"parallel", "slots"})

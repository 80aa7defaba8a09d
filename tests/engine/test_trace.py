"""A trace: what is written can be read back, now, after packing, and from a file."""

import copy
import json
import os
import pickle
import subprocess
import sys
import zipfile
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_edu import scenarios
from popcorn_edu.engine import trace as engine_trace
from popcorn_edu.engine.trace import (
    ACTORS_AT_MOST,
    Event,
    PopcornError,
    Trace,
    TraceFileError,
    Word,
    field_problem,
    near_names,
)
from popcorn_edu.model.rings import MessageRead, PayloadCopied, Priority, SlotReady

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES_A_RECORD = 50  # what trace.py promises is "about 45"


class Colour(Word):
    """A word of these tests."""

    RED = 0
    GREEN = 7


class Jotted(Event):
    """Every type of field."""

    says = "{who} jots {number} ({colour}, {sure}): {text}, {more}"
    number: int
    colour: Colour
    sure: bool
    who: str
    text: str | None
    more: tuple


class Counted(Event):
    """A plain one, for the fast path."""

    number: int


class Twin(Event):
    """Like Counted in everything but its name."""

    number: int


class Fieldless(Event):
    """Something that has nothing to add."""

    says = "it happens"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner),
    max_leaves=4,
)
INT64 = st.integers(-(2**63), 2**63 - 1)
EVENTS = st.one_of(
    st.builds(
        Jotted, INT64, st.sampled_from(Colour), st.booleans(), st.text(max_size=3),
        st.none() | st.text(max_size=3), st.tuples(PLAIN, PLAIN),
    ),
    st.builds(Counted, st.integers(-5, 5) | INT64),
    st.just(Fieldless()),
)  # fmt: skip
STAMPED = st.lists(
    st.tuples(
        st.integers(0, 2**63 - 1), st.sampled_from(["kernel 0", "nic"]), st.none() | st.just(0),
        EVENTS,
    ),
    max_size=12,
)  # fmt: skip


def written(stamped, packed_after=None) -> Trace:
    trace = Trace({"title": "tests"})
    for n, stamp in enumerate(stamped):
        trace.append(*stamp)
        if n == packed_after:
            trace.pack()
    return trace


@pytest.fixture(scope="module")
def run():
    return scenarios.fan_in(kernels=4, messages=6, seed=2)


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    return run.save(tmp_path_factory.mktemp("saved") / "run.popcorn").read_bytes()


class TestReading:
    @given(stamped=STAMPED, packed_after=st.integers(0, 12))
    def test_a_record_reads_the_same_before_and_after_packing(self, stamped, packed_after):
        """Packing changes where a record is kept, and nothing that can be seen of it."""
        waiting, packed = written(stamped), written(stamped, packed_after)
        as_given = list(waiting)
        packed.pack()
        assert as_given == list(packed)
        assert [(r.time, r.who, r.cause, r.event) for r in as_given] == stamped
        assert [str(r) for r in as_given] == [str(r) for r in packed]
        assert waiting.digest() == packed.digest()

    def test_every_type_of_field_comes_back_as_it_was(self):
        """A Word stays a Word, True stays True, None stays None, and 2**62 stays exact."""
        event = Jotted(2**62, Colour.GREEN, True, "nic", None, (1, ("a", None), False))
        trace = written([(5, "nic", None, event)])
        trace.pack()
        back = trace[0].event
        assert list(map(type, back)) == [int, Colour, bool, str, type(None), tuple]
        assert back == event
        assert str(back) == f"nic jots {2**62} (GREEN, True): None, (1, ('a', None), False)"

    def test_true_and_one_are_two_values(self):
        """In a tuple too: what was said is what is read."""
        events = [Jotted(0, Colour.RED, True, "", "", (flag,)) for flag in (True, 1, "1")]
        trace = written([(0, "x", None, event) for event in events])
        trace.pack()
        assert [r.event.more for r in trace] == [(True,), (1,), ("1",)]
        assert [type(r.event.more[0]) for r in trace] == [bool, int, str]

    @pytest.mark.parametrize("value", [0, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
    def test_values_of_more_than_32_bits(self, value):
        """The columns widen when a value needs it, and the values before it stay what they were."""
        trace = written([(0, "x", None, Counted(n)) for n in (7, value, -1)], packed_after=0)
        trace.pack()
        assert [r.event.number for r in trace] == [7, value, -1]

    def test_times_of_more_than_32_bits(self):
        """A boot takes seconds: billions of ns."""
        trace = written([(2**40, "x", None, Counted(1)), (2**62, "x", 0, Counted(2))])
        trace.pack()
        assert [r.time for r in trace] == [2**40, 2**62]

    def test_columns_written_at_once_read_like_records_appended(self):
        """An engine that makes no events writes the very same trace."""
        slow, quick = Trace(), Trace()
        slow.append(3, "a", None, Fieldless())
        slow.append(3, "a", None, Counted(7))
        slow.append(9, "b", 1, Counted(8))
        slow.append(9, "b", None, Fieldless())
        for who in ("a", "b"):
            quick.actor(who)
        codes = {kind: quick.code(kind) for kind in (Fieldless, Counted)}
        assert quick.code(Counted) == codes[Counted]
        for kinds, fields, turns in (
            ([Fieldless, Counted], [7], ([0], [3], [0], [-1])),
            ([Counted], [8], ([2], [9], [1], [1])),
            ([Fieldless], [], ([3], [9], [1], [-1])),
            ([], [], ([], [], [], [])),
        ):
            columns = (list(map(codes.get, kinds)), fields, *turns)
            quick.write(*map(array, "HIIQIi", columns))
        assert list(quick) == list(slow)
        assert quick.digest() == slow.digest()

    def test_it_reads_like_a_list(self, run):
        """Index, negative index, slice, length and iteration mean what they mean for a list."""
        trace, records = run.trace, list(run.trace)
        assert len(trace) == len(records)
        assert trace[-1] == records[-1]
        assert trace[3:-2:7] == records[3:-2:7]
        assert [r.seq for r in trace] == list(range(len(trace)))
        with pytest.raises(IndexError, match=rf"no record {len(trace)}: this run has {len(trace)}"):
            trace[len(trace)]

    def test_records_finds_by_kind_actor_and_field(self, run):
        """records() is a filter, next() its first answer after a record."""
        reads = [r for r in run.trace if type(r.event) is MessageRead and r.event.sender == 2]
        assert list(run.trace.records(MessageRead, sender=2)) == reads
        assert run.trace.next(MessageRead, sender=2, after=reads[0].seq) == reads[1]
        assert run.trace.next(MessageRead, after=len(run.trace)) is None
        both = list(run.trace.records(MessageRead, SlotReady, who="kernel 0 softirq"))
        assert both == list(run.trace.records(MessageRead))

    def test_a_misspelt_field_is_refused_with_the_near_name(self, run):
        """A typing error must not look like "no such record"."""
        with pytest.raises(PopcornError, match="SlotReady has no field 'rng'; did you mean ring?"):
            list(run.trace.records(SlotReady, rng=0))

    def test_a_kind_is_named_by_its_class(self, run):
        """A name in quotes would silently find nothing, so it is refused."""
        with pytest.raises(PopcornError, match="a kind of event, such as SlotReady, not 'SlotR"):
            list(run.trace.records("SlotReady"))

    def test_at_time_counts_the_records_up_to_a_time(self, run):
        """Records at that very time are included."""
        trace = run.trace
        for ns in (0, trace[5].time, trace[5].time - 1, trace[-1].time, 10**12):
            assert trace.at_time(ns) == sum(r.time <= ns for r in trace)

    def test_kinds_counts_by_name(self, run):
        """In the order in which they first appear."""
        kinds = run.trace.kinds()
        assert list(kinds)[:2] == ["AllRegistered", "TicketTaken"]
        assert sum(kinds.values()) == len(run.trace)


class TestEvents:
    @given(number=st.integers())
    def test_events_of_different_kinds_are_never_equal(self, number):
        """The same fields with the same values can still be two different facts."""
        assert Counted(number) == Counted(number)
        assert Counted(number) != Twin(number)
        assert Counted(number) != (number,)
        assert len({Counted(number), Twin(number), (number,)}) == 3

    def test_an_event_is_its_sentence(self):
        """The text of a step is the event itself, and a Word in it is its name."""
        copied = PayloadCopied(0, 7, 71, 3, 4, 0, Priority.HIGH, 5)
        assert "copies message 4 (0, HIGH) into slot 7 of ring 0" in str(copied)
        assert repr(Counted(3)) == "Counted(number=3)"
        assert str(Counted(3)) == "Counted number=3"

    def test_an_event_cannot_be_changed(self):
        """It is a fact."""
        with pytest.raises(AttributeError):
            Counted(3).number = 4

    def test_an_event_can_be_copied_and_sent(self):
        """To another process, and by whoever copies arguments before a call."""
        event = Jotted(1, Colour.GREEN, False, "x", None, (1,))
        assert copy.deepcopy(event) == event
        assert pickle.loads(pickle.dumps(event)) == event

    def test_a_missing_field_is_named(self):
        """Python's own sentence about arguments is clear enough."""
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"):
            Counted()

    @pytest.mark.parametrize(
        ("event", "problem"),
        [
            (Counted("3"), "Counted.number must be a whole number, not '3'"),
            (Counted(1.0), "Counted.number must be a whole number, not 1.0"),
            (Counted(2**63), "Counted.number must fit in 64 bits, not 9223372036854775808"),
            (
                Jotted(0, 5, True, "", "", ()),
                "Jotted.colour must be one of RED, GREEN, not 5",
            ),
            (Jotted(0, Colour.RED, 2, "", "", ()), "Jotted.sure must be True or False, not 2"),
            (
                Jotted(0, Colour.RED, True, "", [1], ()),
                "Jotted.text must be a plain value (number, text, tuple of them), not [1]",
            ),
            (Jotted(0, Colour.RED, True, "a", None, (1, ("b",))), ""),
        ],
    )
    def test_a_value_that_does_not_fit_is_named(self, event, problem):
        """Field, what was expected, and what came."""
        assert field_problem(event) == problem

    def test_packing_names_the_record_and_its_writer(self):
        """A wrong value is found when it is packed, if nobody looked before."""
        trace = written([(0, "nic", None, Counted(1)), (0, "nic", None, Counted(2.5))])
        with pytest.raises(PopcornError, match="record 1, written by nic: Counted.number must be"):
            trace.pack()

    @pytest.mark.parametrize("time", [2**63, 10**30, 1.5])
    def test_a_time_beyond_the_columns_is_refused(self, time):
        """292 years of simulated time are enough."""
        trace = written([(time, "nic", None, Counted(1))])
        with pytest.raises(PopcornError, match="nic acts at .* a whole number below 2"):
            trace.pack()

    def test_too_many_actors_are_refused(self):
        """An actor's number has two bytes."""
        trace = Trace()
        trace.actors = ["x"] * ACTORS_AT_MOST
        with pytest.raises(PopcornError, match="no room for more than 65,536 actors"):
            trace.actor("one more")

    def test_near_names(self):
        """The end of an error sentence: the likely spellings, else all there are."""
        assert near_names("fanin", ["fan_in", "ping"]) == "did you mean fan_in?"
        assert near_names("zzz", ["b", "a"]) == "expected one of: a, b"
        assert near_names("zzz", []) == "there are none"


class TestDigest:
    def test_the_same_run_has_the_same_digest(self, run):
        """Same arguments, same trace, byte for byte."""
        again = scenarios.fan_in(kernels=4, messages=6, seed=2)
        assert run.trace.digest() == again.trace.digest()

    @given(stamped=STAMPED, other=STAMPED)
    def test_digests_agree_only_if_the_records_do(self, stamped, other):
        """No two different histories share a fingerprint."""

        def exactly(stamps):
            return repr([(t, w, c, type(e).__name__, tuple(e)) for t, w, c, e in stamps])

        same = exactly(stamped) == exactly(other)
        assert (written(stamped).digest() == written(other).digest()) is same

    @pytest.mark.parametrize(
        "other",
        [
            (1, "a", None, Counted(1)),
            (0, "b", None, Counted(1)),
            (0, "a", 0, Counted(1)),
            (0, "a", None, Counted(2)),
            (0, "a", None, Twin(1)),
        ],
    )
    def test_every_part_of_a_record_counts(self, other):
        """Time, actor, cause, field and kind each make another digest."""
        first = (0, "a", None, Counted(1))
        assert written([first, first]).digest() != written([first, other]).digest()

    def test_it_depends_on_no_hash_seed(self):
        """Python shuffles its sets and dicts of text by PYTHONHASHSEED; a run must not care."""
        report = (
            "from popcorn_edu import scenarios as s\n"
            "print([s.run(name).trace.digest() for name in s.names()],"
            " s.fan_in(schedule_seed=5).trace.digest())"
        )
        answers = {
            subprocess.run(
                [sys.executable, "-c", report],
                env=os.environ | {"PYTHONHASHSEED": seed},
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("0", "1", "random")
        }
        assert len(answers) == 1


class TestFiles:
    @given(stamped=STAMPED)
    def test_a_saved_trace_comes_back(self, stamped, tmp_path_factory):
        """Records, meta and digest are the same after save and load."""
        trace = written(stamped)
        back = Trace.load(trace.save(tmp_path_factory.getbasetemp() / "round-trip"))
        assert list(back) == list(trace)
        assert [str(r) for r in back] == [str(r) for r in trace]
        assert (back.meta, back.digest()) == (trace.meta, trace.digest())

    def test_a_loaded_trace_can_be_written_on(self, run, tmp_path):
        """It is a trace like any other."""
        back = Trace.load(run.save(tmp_path / "run"))
        back.append(10**6, "kernel 9", None, SlotReady(0, 1, 1, 9))
        back.pack()
        assert back[-1].event == SlotReady(0, 1, 1, 9)
        assert list(back)[:-1] == list(run.trace)

    def test_the_same_run_makes_the_same_file(self, run, saved, tmp_path):
        """No clock and no random name goes into it."""
        assert run.save(tmp_path / "again").read_bytes() == saved

    def test_a_file_cut_short_anywhere_is_a_trace_file_error(self, saved, tmp_path):
        """Whatever is missing, there is one sentence and no other exception."""
        path = tmp_path / "cut"
        for length in range(0, len(saved), 97):
            path.write_bytes(saved[:length])
            with pytest.raises(TraceFileError, match="is not a whole saved run"):
                Trace.load(path)

    @given(at=st.integers(0, 10**6), value=st.integers(0, 255))
    def test_a_damaged_byte_is_found_or_harmless(self, saved, run, at, value, tmp_path_factory):
        """A changed byte gives the sentence, or (in a part nobody reads) the very same run."""
        path = tmp_path_factory.getbasetemp() / "damaged"
        at %= len(saved)
        path.write_bytes(saved[:at] + bytes([value]) + saved[at + 1 :])
        try:
            assert Trace.load(path).digest() == run.trace.digest()
        except TraceFileError as problem:
            assert str(path) in str(problem)

    @given(content=st.binary(max_size=200))
    def test_a_foreign_file_is_a_trace_file_error(self, content, tmp_path_factory):
        """Any bytes at all."""
        path = tmp_path_factory.getbasetemp() / "foreign"
        path.write_bytes(content)
        with pytest.raises(TraceFileError):
            Trace.load(path)

    @pytest.mark.parametrize(
        "change",
        [
            {"format": "something else"},
            {"version": 99},
            {"version": None},
            {"records": 7},
            {"kinds": [["NoSuchKind", []]]},
            {"kinds": [["SlotReady", ["ring"]]]},
            {"kinds": 5},
            {"kinds": []},
            {"actors": []},
            {"actors": None},
            {"values": {"a": 1}, "kinds": None},
            {"bits": "many", "records": None},
        ],
    )
    def test_a_header_that_does_not_fit_is_a_trace_file_error(self, saved, tmp_path, change):
        """A zip archive with the right names in it is not enough."""
        path = tmp_path / "edited"
        path.write_bytes(saved)
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        header = json.loads(files["header.json"]) | change
        with zipfile.ZipFile(path, "w") as archive:
            for name, body in files.items():
                archive.writestr(name, json.dumps(header) if name == "header.json" else body)
        with pytest.raises(TraceFileError):
            Trace.load(path)

    @pytest.mark.parametrize("header", ["[]", "5", "{", '"x"', "{}", "[" * 100_000])
    def test_a_header_that_is_no_header_is_a_trace_file_error(self, tmp_path, header):
        """Any zip archive."""
        path = tmp_path / "odd"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.json", header)
        with pytest.raises(TraceFileError, match="is not a saved run of popcorn_edu"):
            Trace.load(path)

    def test_another_version_is_named(self, saved, tmp_path, monkeypatch):
        """Who has an old file learns that it is old, not that it is broken."""
        path = tmp_path / "newer"
        path.write_bytes(saved)
        monkeypatch.setattr(engine_trace, "FILE_VERSION", 2)
        with pytest.raises(TraceFileError, match="a saved run of version 1; .* reads version 2"):
            Trace.load(path)

    @pytest.mark.parametrize("place", ["nowhere/run", "."])
    def test_a_place_that_cannot_be_read(self, tmp_path, place):
        """No file there, or a folder."""
        with pytest.raises(TraceFileError, match="there is no file|cannot read"):
            Trace.load(tmp_path / place)

    @pytest.mark.parametrize("place", ["nowhere/run", ".", "\0"])
    def test_a_place_that_cannot_be_written(self, run, tmp_path, place):
        """The sentence names the place, and nothing is left behind."""
        with pytest.raises(PopcornError, match="cannot write"):
            run.save(tmp_path / place)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("step", ["write", "replace"])
    def test_a_crash_while_saving_leaves_the_old_file(self, run, tmp_path, monkeypatch, step):
        """Never half a file, and no litter."""
        path = tmp_path / "run"
        path.write_bytes(b"the old one")

        def crash(*_):
            raise KeyboardInterrupt

        if step == "write":
            monkeypatch.setattr(Path, "write_bytes", crash)
        else:
            monkeypatch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            run.save(path)
        assert [file.name for file in tmp_path.iterdir()] == ["run"]
        assert path.read_bytes() == b"the old one"

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
    def test_a_saved_file_has_the_usual_permissions(self, run, tmp_path):
        """An instructor can read what a student saved, as with any other file."""
        (tmp_path / "plain").touch()
        assert (tmp_path / "plain").stat().st_mode == run.save(tmp_path / "run").stat().st_mode


def test_a_record_takes_little_memory():
    """A million records must fit in a laptop, so a record has a budget."""
    trace = scenarios.fan_in(kernels=16, messages=100, seed=1).trace
    assert trace.nbytes() / len(trace) <= MEMORY_BYTES_A_RECORD


def test_an_endless_value_does_not_make_an_endless_sentence():
    """Its beginning and its end say enough."""
    said = str(PopcornError(f"pcpu_id is {'9' * 5_000!r}; a CPU number was expected."))
    assert len(said) < 1_600
    assert said.startswith("pcpu_id is '999") and said.endswith("a CPU number was expected.")

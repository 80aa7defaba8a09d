"""Two runs side by side: where they part, and what becomes of each message."""

import json
import re

import pytest

from popcorn_edu import cli, scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.messaging import IpiArrived
from popcorn_edu.readers import figures
from popcorn_edu.readers.compare import RECORDS_AT_MOST, compare, first_difference


@pytest.fixture(scope="module")
def run():
    return scenarios.fan_in(kernels=3, messages=4, seed=2)


@pytest.fixture(scope="module")
def lost(run):
    """The same run, whose first interrupt is lost."""
    return run.fork(run.trace.next(IpiArrived).seq, drop=True)


def test_a_run_is_the_same_as_itself(run):
    """No difference, and every message the same."""
    found = compare(run, scenarios.fan_in(kernels=3, messages=4, seed=2))
    assert found.same and found.first is None
    assert found.counts() == dict(found.counts(), **{"the same": 8})
    assert "are the same, record for record" in found.sentence


def test_a_fork_parts_where_it_was_forked(run, lost):
    """The first difference is the edit; before it they are one story."""
    found = compare(run, lost)
    assert found.first == run.trace.next(IpiArrived).seq
    assert f"up to record {found.first - 1} they are one story" in found.sentence
    assert "forked" in found.sentence


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("look_again", [True, False])
def test_the_first_difference_is_the_first(seed, look_again):
    """All records before it are equal, and that one is not."""
    a = scenarios.fan_in(kernels=4, messages=6, seed=seed)
    b = scenarios.fan_in(kernels=4, messages=6, seed=seed, look_again=look_again)
    n = first_difference(a, b)
    if n is None:
        assert a.trace.digest() == b.trace.digest() or look_again
        return
    told = [[(r.time, r.who, r.event) for r in x.trace[:n]] for x in (a, b)]
    assert told[0] == told[1]
    assert (a.trace[n].time, a.trace[n].event) != (b.trace[n].time, b.trace[n].event)


def test_a_shorter_run_parts_at_its_end(run):
    """What the one has and the other has not is a difference."""
    shorter = scenarios.fan_in(kernels=3, messages=4, seed=2).fork(len(run) - 1, drop=True)
    assert compare(run, shorter).first == len(run) - 1


def test_another_setting_is_named():
    """Where two runs part because of a setting, the sentence says which."""
    a, b = (scenarios.lost_wakeup(look_again=choice) for choice in (False, True))
    assert "look_again: False and True" in compare(a, b).sentence


def test_each_message_has_both_latencies(run, lost):
    """By sender and number; what only one run delivered says so."""
    found = compare(run, lost)
    rows = {(row["sender"], row["number"]): row["latency_ns"] for row in figures.latencies(run)}
    for row in found.messages:
        assert row.a_ns == rows[row.sender, row.number]
        if row.b_ns is None:
            assert row.what == "only in A"
        elif row.b_ns > row.a_ns:
            assert row.what == f"{row.b_ns - row.a_ns:,} ns longer in B"
    assert sum(found.counts().values()) == len(found.messages) == 8


def test_the_page_holds_both_players_and_the_times(run, lost, tmp_path):
    """One file, two players, the times of all records and the first difference."""
    page = compare(run, lost).to_html(tmp_path / "both.html").read_text()
    assert page.count('class="pk-player"') == 2
    facts = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert facts["times"] == [[r.time for r in x.trace] for x in (run, lost)]
    assert facts["first"] == compare(run, lost).first
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("wrong", [None, "run.popcorn", 3])
def test_what_is_no_run_is_refused(run, wrong):
    """By which argument it is."""
    with pytest.raises(PopcornError, match="compare.. wants two runs; b is"):
        compare(run, wrong)


def test_a_run_too_long_for_a_page_is_told_in_text():
    """The page is refused with the limit; the text has none."""
    long = scenarios.fan_in(kernels=9, messages=1_500, gap_ns=0)
    assert len(long) > RECORDS_AT_MOST
    found = compare(long, long)
    assert found.same and "the same" in str(found)
    with pytest.raises(PopcornError, match="too long to compare in a page"):
        found.html()


def test_the_command_line_compares_files(run, lost, tmp_path, capsys):
    """Exit code 0 for the same, 1 for different; --html writes the page once."""
    a, b, page = tmp_path / "a", tmp_path / "b", tmp_path / "both.html"
    run.save(a)
    lost.save(b)
    assert cli.main(["compare", str(a), str(a)]) == 0
    assert cli.main(["compare", str(a), str(b), "--html", str(page)]) == 1
    assert "they are one story" in capsys.readouterr().out and page.exists()
    assert cli.main(["compare", str(a), str(b), "--html", str(page)]) == 2
    assert "is already there" in capsys.readouterr().err

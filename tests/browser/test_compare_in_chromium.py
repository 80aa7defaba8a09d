"""Two players under one clock, as a person sees them: in Chromium, without a network."""

import pytest

from popcorn_edu import scenarios
from popcorn_edu.model.messaging import IpiArrived
from popcorn_edu.readers.compare import compare

BOTH = "[...document.querySelectorAll('.pk-player')].map(host => host.popcorn.n)"


@pytest.fixture
def shown(page, tmp_path):
    run = scenarios.fan_in(kernels=3, messages=4, seed=2)
    found = compare(run, run.fork(run.trace.next(IpiArrived).seq, drop=True))
    page.goto(found.to_html(tmp_path / "both.html").as_uri())
    page.wait_for_function("document.querySelector('.pk-compare').compare")
    page.found = found
    return page


def at(run, time_ns: int) -> int:
    return sum(record.time <= time_ns for record in run.trace)


def test_later_moves_both_to_the_next_time(shown):
    """Each press shows both at one time: all records up to it, in either."""
    found, now = shown.found, []
    for _ in range(12):
        shown.get_by_role("button", name="later").click()
        now.append(shown.evaluate("document.querySelector('.pk-compare').compare.now"))
        assert shown.evaluate(BOTH) == [at(found.a, now[-1]), at(found.b, now[-1])]
    assert now == sorted(set(now))
    assert shown.requested == [] and shown.problems == []


def test_a_step_in_one_player_moves_the_other(shown):
    """The arrow key in player A takes player B to the same time."""
    found = shown.found
    players = shown.locator(".pk-player")
    players.nth(0).focus()
    for _ in range(9):
        shown.keyboard.press("ArrowRight")
    n, other = shown.evaluate(BOTH)
    assert n == 9 and other == at(found.b, found.a.trace[8].time)


def test_c_goes_to_the_first_difference(shown):
    """In both players the record that differs is the current one."""
    found = shown.found
    shown.locator(".pk-player").nth(1).focus()
    shown.keyboard.press("c")
    assert shown.evaluate(BOTH) == [found.first + 1, found.first + 1]
    assert f"record {found.first}" in shown.locator(".pk-compare output").text_content()


def test_the_messages_are_there_as_a_table(shown):
    """With a row for each message, in words."""
    shown.get_by_text("The messages of both, as a table").click()
    assert shown.locator(".pk-compare > details tr").count() == 1 + len(shown.found.messages)

"""Running a student's function."""

import logging
import sys
import warnings

import pytest

from popcorn_edu.grading.guard import StudentCodeError, call, quiet


def test_arguments_are_copies():
    """A function that changes its argument changes only its own copy."""
    ours = [1, 2]

    def greedy(items):
        items.clear()
        return 0

    assert call(greedy, ours, returns=int) == 0
    assert ours == [1, 2]


def test_a_loop_without_end_is_stopped_by_its_lines():
    """The budget is lines of the student's code, so the same loop stops at the same place."""

    def forever(n):
        while True:
            n += 1

    with pytest.raises(StudentCodeError, match="forever was still running after 500 lines"):
        call(forever, 1, lines=500)
    assert sys.gettrace() is None


def test_an_endless_loop_cannot_swallow_the_stop():
    """``except Exception`` inside the loop does not keep it alive."""

    def stubborn():
        while True:
            try:
                int("x")
            except Exception:
                pass

    with pytest.raises(StudentCodeError, match="still running"):
        call(stubborn, lines=500)


def test_an_exception_names_the_students_own_line():
    """Not the library's line where it surfaced."""

    def careless(names):
        import json

        return json.loads(names)

    with pytest.raises(StudentCodeError, match=r"stopped with JSONDecodeError: .*return json"):
        call(careless, "{")


def test_a_wrong_result_is_told_with_its_call():
    """The sentence says what was asked and what came back."""

    def shout(n):
        return "!" * n

    with pytest.raises(StudentCodeError, match=r"shout\(2\) returned wrong type: '!!', expected"):
        call(shout, 2, returns=int)


def test_nothing_reaches_the_page_meanwhile(capfd):
    """Prints, warnings and log lines of the judged code are swallowed, and only those."""
    with quiet():
        print("out")
        print("err", file=sys.stderr)
        warnings.warn("old", stacklevel=1)
        logging.warning("hm")
    print("after")

    assert capfd.readouterr() == ("after\n", "")

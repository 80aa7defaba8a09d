"""What counts as an answer."""

import numpy
import pytest

from popcorn_edu.engine.trace import Record
from popcorn_edu.grading.answers import NoAnswer, NotAnAnswer, OneOf, fit, same, unfit


class AlwaysEqual:
    def __eq__(self, other):
        return True

    __hash__ = object.__hash__


class MyInt(int):
    pass


@pytest.mark.parametrize(
    ("given", "pattern", "plain"),
    [
        (1.0, int, 1),
        (numpy.int64(7), int, 7),
        (numpy.float64(0.5), float, 0.5),
        (3, float, 3),
        (numpy.array([1, 2]), [int], [1, 2]),
        ((1, 2.0), [int], [1, 2]),
        ([3, "b"], (int, str), [3, "b"]),
        ([1, 1, 2], {int}, {1, 2}),
        ({1: "a"}, {int: str}, {1: "a"}),
        ({(0, 1): 5}, {(int, int): int}, {(0, 1): 5}),
        ({"a": 1}, {"a": int, "b": str}, {"a": 1, "b": None}),
        ([1, ...], [int], [1, None]),
        ("b", OneOf("a", "b"), "b"),
        ({"x": [True, None, (1,)]}, object, {"x": [True, None, [1]]}),
    ],
)
def test_spelling_is_taken_generously(given, pattern, plain):
    """A tuple is a list, 1.0 is 1, NumPy is unwrapped, and what is open counts as None."""
    assert same(fit(given, pattern), plain) or fit(given, pattern) == plain


@pytest.mark.parametrize(
    ("given", "pattern", "sentence"),
    [
        (True, int, "wrong type: True, expected a whole number"),
        ("42", int, "wrong type: '42', expected a whole number"),
        (1.5, int, "wrong type: 1.5"),
        (MyInt(3), int, "wrong type: a MyInt"),
        (AlwaysEqual(), int, "wrong type: a AlwaysEqual"),
        ([AlwaysEqual()], object, "wrong type: a AlwaysEqual"),
        (Record(1, 2, "k", None, None), int, "its number is record.seq"),
        (float("nan"), float, "wrong type: nan, expected a number"),
        (2**70, int, "far too large"),
        (print, callable, "a function"),
        (None, int, "wrong type: None"),
        ("c", OneOf("ring", "rings"), "did you mean|expected one of"),
        ({"aa": 1}, {"a": int}, "there is no entry 'aa'; "),
        ([1, 2, 3], (int, int), "a list of 2"),
        (range(3), [int], "wrong type: a range, expected a list"),
    ],
)
def test_meaning_is_taken_strictly(given, pattern, sentence):
    """What is not of the wanted kind is refused in one sentence, and never compared."""
    with pytest.raises(NotAnAnswer, match=sentence):
        fit(given, pattern)


def test_one_entry_that_does_not_fit_spoils_only_itself():
    """It is named when it is read; the others are there."""
    given = fit({"a": "1", "b": 2}, {"a": int, "b": int, "c": int})

    assert given["b"] == 2 and given["c"] is None and given.get("a") is None
    with pytest.raises(NotAnAnswer, match="'a': wrong type: '1', expected a whole number"):
        given["a"]
    assert list(unfit(given, "abc")) == ["a"] and unfit({"a": 1}, "a") == {}


def test_a_table_with_nothing_that_fits_is_no_answer():
    """Wrong entries and open ones alone: the first wrong one is named."""
    with pytest.raises(NotAnAnswer, match="'b': wrong type: None"):
        fit({"a": ..., "b": None}, {"a": int, "b": int})


def test_dots_are_no_answer():
    """``...`` is told apart from a wrong answer."""
    with pytest.raises(NoAnswer, match="not answered yet"):
        fit(..., int)


def test_a_list_inside_itself_is_refused():
    """An endless structure ends in a sentence."""
    endless = []
    endless.append(endless)

    with pytest.raises(NotAnAnswer, match="levels deep"):
        fit(endless)


def test_true_is_not_one_at_any_depth():
    """Equality of answers knows what Python's does not."""
    assert not same([1, {"a": True}], [1, {"a": 1}])
    assert same([1, {"a": [2]}], (1, {"a": (2,)}))

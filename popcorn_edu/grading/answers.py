"""What a student hands in, rebuilt as plain data before anyone judges it.

A check must be able to trust ``==``. So an answer is first *fitted* to what its task expects:
exact built-in types only, rebuilt from scratch, so that no object with a ready opinion of
itself (an ``__eq__`` that is always true) ever reaches a comparison. We are generous about
spelling (a tuple is a list, ``1.0`` is ``1``, NumPy values are unwrapped) and strict about
meaning (``True`` is not ``1`` and ``"42"`` is not ``42``).

What a task expects is written as a small pattern:

    int, float, str, bool      one value
    OneOf("a", "b")            one of these words
    [int]                      a list of any length
    (int, str)                 a list of exactly these
    {int}                      a set (a list will do)
    {str: int}                 a table with any keys
    {"a": int, "b": str}       a table with these keys; a key left out counts as not answered
    callable                   a function
    object                     any plain data

``...`` means "not answered yet"; inside a list or a table it becomes None. In a table with given
keys, one entry that does not fit spoils only itself (see Fields).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import FunctionType

from popcorn_edu.engine.trace import PopcornError, near_names

DEEPEST = 20  # levels of lists in lists
LONGEST = 100_000  # items in one list, characters in one text
OPEN = "not answered yet"
LARGEST = 2**63  # whole numbers beyond this are slips, and cannot even be printed cheaply


class NotAnAnswer(PopcornError):
    """What was handed in is not the kind of thing the task asks for."""


class NoAnswer(NotAnAnswer):
    """Nothing was handed in."""


class Fields(dict):
    """A table in which some entries are no answers. To read such an entry raises the sentence
    about it, so each check fails on its own; get() and items() show it as open."""

    def __init__(self, entries: dict, unfit: dict[object, str]) -> None:
        super().__init__(entries)
        self.unfit = unfit

    def __getitem__(self, key: object) -> object:
        if key in self.unfit:
            raise NotAnAnswer(self.unfit[key])
        return super().__getitem__(key)


def unfit(table: dict, keys: Iterable) -> dict[object, str]:
    """What is wrong with those of these entries that are no answers, by key."""
    sentences = getattr(table, "unfit", {})
    return {key: f"{sentences[key]}." for key in keys if key in sentences}


class OneOf(tuple):
    """A pattern: one of these words."""

    def __new__(cls, *words: str) -> OneOf:
        return super().__new__(cls, words)


def fit(value: object, pattern: object = object) -> object:
    """The answer as plain data of the wanted shape.

    Raises NoAnswer for ``...`` and NotAnAnswer, with a sentence, for anything that does not fit.
    """
    fitted = ... if value is ... else _fit(value, pattern, DEEPEST)
    parts = fitted.values() if type(fitted) is dict else fitted if type(fitted) is list else ()
    if fitted is ... or (parts and all(part is None for part in parts)):
        raise NoAnswer(OPEN)
    return fitted


def _fit(value: object, pattern: object, depth: int) -> object:
    value = _unwrapped(value)
    if depth == 0:
        raise NotAnAnswer(f"this is nested more than {DEEPEST} levels deep")
    if pattern is callable:
        if type(value) is FunctionType:
            return value
    elif pattern is object:
        return _plain(value, depth)
    elif isinstance(pattern, type):
        if type(value) is pattern or (pattern is float and type(value) is int):
            return _plain(value, depth)
    elif isinstance(pattern, OneOf):
        if type(value) is str:
            if value not in pattern:
                raise NotAnAnswer(f"{value[:40]!r} is not a choice; {near_names(value, pattern)}")
            return value
    elif type(pattern) is list:
        if type(value) in (list, tuple):
            return [_part(item, pattern[0], depth) for item in _few(value)]
    elif type(pattern) is tuple:
        if type(value) in (list, tuple) and len(value) == len(pattern):
            return [_part(*pair, depth) for pair in zip(value, pattern, strict=True)]
    elif type(pattern) is set:
        if type(value) in (set, frozenset, list, tuple):
            (inner,) = pattern
            return frozenset(_frozen(_fit(item, inner, depth - 1)) for item in _few(value))
    elif type(value) is dict:
        return _fit_table(value, pattern, depth)
    raise NotAnAnswer(f"wrong type: {named(value)}, expected {describe(pattern)}")


def _fit_table(table: dict, pattern: dict, depth: int) -> dict:
    (first, inner), *_ = pattern.items()
    if isinstance(first, (type, tuple)):  # {str: int}: any keys of that type
        return {
            _frozen(_fit(key, first, depth - 1)): _part(item, inner, depth)
            for key, item in _few(table).items()
        }
    for key in table:
        if _unwrapped(key) not in pattern:
            raise NotAnAnswer(f"there is no entry {key!r:.40}; {near_names(key, pattern)}")
    fitted, unfit = dict.fromkeys(pattern), {}
    for key, inner in pattern.items():
        try:
            fitted[key] = _part(table.get(key, ...), inner, depth)
        except NotAnAnswer as problem:
            unfit[key] = f"{key!r}: {problem}"
    if unfit and (depth < DEEPEST or all(part is None for part in fitted.values())):
        raise NotAnAnswer(next(iter(unfit.values())))
    return Fields(fitted, unfit) if unfit else fitted


def _part(value: object, pattern: object, depth: int) -> object:
    return None if value is ... else _fit(value, pattern, depth - 1)


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if type(value) is list else value


def _plain(value: object, depth: int = DEEPEST) -> object:
    value = _unwrapped(value)
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        if abs(value) < LARGEST:
            return value
        raise NotAnAnswer("this number is far too large")
    if kind is float:
        if math.isfinite(value):
            return value
        raise NotAnAnswer(f"wrong type: {value}, expected a number")
    if kind is str:
        return "".join(_few(value))
    if kind in (list, tuple):
        return _fit(value, [object], depth)
    if kind in (set, frozenset):
        return _fit(value, {object}, depth)
    if kind is dict:
        return _fit(value, {object: object}, depth)
    raise NotAnAnswer(f"wrong type: {named(value)}, expected plain data (numbers, text, lists)")


def _unwrapped(value: object) -> object:
    """A NumPy number or array as Python's own; 1.0 as 1; anything else as it is."""
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if type(value) is float and value.is_integer() and abs(value) < LARGEST:
        return int(value)
    return value


def _few(items):
    if len(items) > LONGEST:
        raise NotAnAnswer(f"this has {len(items):,} items; no answer needs more than {LONGEST:,}")
    return items


def same(one: object, other: object) -> bool:
    """Equal as answers: by value, except that True and 1 differ, at any depth."""
    if type(one) in (list, tuple) and type(other) in (list, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is dict and type(other) is dict:
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other and (type(one) is bool) == (type(other) is bool)


NAMES = {
    int: "a whole number, such as 12",
    float: "a number",
    str: 'a text in quotes, such as "ring"',
    bool: "True or False",
    object: "plain data",
    callable: "a function (the name of one you defined with def, without calling it)",
}


def describe(pattern: object) -> str:
    """The pattern in a student's words."""
    if isinstance(pattern, OneOf):
        return "one of " + ", ".join(map(repr, pattern))
    if type(pattern) is list:
        return f"a list, each item {describe(pattern[0])}"
    if type(pattern) is tuple:
        return f"a list of {len(pattern)}: " + ", ".join(map(describe, pattern))
    if type(pattern) is set:
        return "a set, each item " + "".join(map(describe, pattern))
    if type(pattern) is dict:
        keys = [f"{key!r}" for key in pattern if not isinstance(key, (type, tuple))]
        return "a table {" + (", ".join(f"{key}: ..." for key in keys) or "key: value, ...") + "}"
    return NAMES[pattern]


def named(value: object) -> str:
    """What was handed in, shortly: the value if it is small and plain, else its type."""
    kind = type(value)
    if kind in (bool, int, float, str) or value is None:
        text = repr(value) if kind is not int or abs(value) < LARGEST else "a huge number"
        return text if len(text) <= 40 else f"{kind.__name__} {text[:37]}..."
    if kind.__name__ == "Record":
        return "a Record (its number is record.seq)"
    return f"a {kind.__name__}"

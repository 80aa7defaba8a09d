"""Running a student's function without giving it the last word.

The function gets copies of fresh inputs, a budget of *lines* (not seconds, which would make a
grade depend on how busy the machine is) and no way to spoil the page: what it prints or warns
while it is being judged is swallowed, since nbgrader takes any text on stderr for a failure.
What goes wrong in it comes back as one sentence that names the student's own line.

A student's *story* needs no guard of ours: a careful Sim watches it (engine/sim.py).
"""

from __future__ import annotations

import copy
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from popcorn_edu.engine.steps import place
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import NotAnAnswer, fit

LINE_BUDGET = 1_000_000  # lines of the student's own code; about a second


class StudentCodeError(PopcornError):
    """The student's function raised, or did not end."""


@contextmanager
def guarded(function: Callable, lines: int = LINE_BUDGET) -> Iterator[None]:
    """Whatever the student's code does in here ends, quietly, well or with StudentCodeError."""
    from popcorn_edu.engine.sim import OutOfLines, jumps_onto_itself  # late: it brings SimPy

    name, left, theirs = function.__name__, lines, function.__globals__

    def count(frame, event, arg):
        nonlocal left
        left -= event in ("line", "opcode")
        if left < 0:
            raise OutOfLines(place(frame.f_code.co_filename, frame.f_lineno))
        return count

    def enter(frame, event, arg):  # cells share one namespace: theirs are those frames
        if frame.f_globals is not theirs:
            return None
        frame.f_trace_opcodes = jumps_onto_itself(frame.f_code)
        return count

    before = sys.gettrace()
    try:
        with quiet():
            sys.settrace(enter)
            yield
    except OutOfLines as stop:
        raise StudentCodeError(
            f"{name} was still running after {lines:,} lines (does a loop never end?){stop}"
        ) from None
    except PopcornError:
        raise
    except Exception as error:
        raise StudentCodeError(f"{name} stopped with {told(error, theirs)}") from None
    finally:
        sys.settrace(before)


def call(function: Callable, *args, returns: object = object, lines: int = LINE_BUDGET) -> object:
    """What the student's function answers, as plain data of the pattern ``returns``."""
    with guarded(function, lines):
        answer = function(*copy.deepcopy(args))
    try:
        return fit(answer, returns)
    except NotAnAnswer as problem:
        shown = ", ".join(map(repr, args))
        raise StudentCodeError(f"{function.__name__}({shown:.60}) returned {problem}") from None


def told(error: BaseException, theirs: dict | None = None) -> str:
    """An exception as the end of a sentence, with the deepest line of the student's own."""
    text, where, trace = " ".join(str(error).split())[:200], "", error.__traceback__
    while trace:
        if theirs is None or trace.tb_frame.f_globals is theirs:
            where = place(trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        trace = trace.tb_next
    return type(error).__name__ + (f": {text}" if text else "") + where


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing printed, warned or logged in here reaches the page."""
    silenced = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(silenced)

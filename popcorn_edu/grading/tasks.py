"""A task, its checks, and the report a student reads.

    Task    one graded question of a lab: what kind of answer it wants, and its checks
    Check   one claim about the answer, with points of its own; hidden ones run only at grading
    Miss    what a check says when its claim does not hold
    Row     a check's outcome
    Report  the rows of one answer: a table for the student, a score for nbgrader

A lab declares its tasks as data::

    Task(
        "t1", "The first IPI",
        answer=int,
        checks=(Check("names a record that is an IPI", 0.5, is_an_ipi),
                Check("names the first one", 0.5, is_the_first)),
        hints=("Look for ...", "In the player press ...", "run.trace.next(...)"),
        wrong=(Wrong("one too late", lambda variant: ..., 0.5),),
    )

A check is a function ``holds(answer, variant)``. It returns None when the claim holds, and
otherwise a sentence, a Finding of popcorn_edu.checks, or a Miss (a sentence with a misconception
tag, a share of the points, or the place in a run). It may raise a PopcornError: that too is a
sentence; reading an entry that is no answer raises one (see answers.Fields). Where the answer is
a function, ``ask(answer, variant)`` calls it (see guard.py) and returns what the checks judge: a
run, or plain data. It is called once for all the checks.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from popcorn_edu.engine.steps import StoryError
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import NoAnswer, fit
from popcorn_edu.grading.guard import quiet, told
from popcorn_edu.grading.misconceptions import MISCONCEPTIONS
from popcorn_edu.grading.tables import Note, Table, show

PRACTICE = "practice"  # the variant of everybody who names none


class Variant(NamedTuple):
    """Which of the many equally hard instances of a lab this is. Same seed, same instance."""

    lab: str
    seed: str = PRACTICE

    @property
    def code(self) -> str:
        """Four letters to compare with a neighbour's."""
        return self._hash("code").hex()[:4].upper()

    def rng(self, task: str) -> random.Random:
        """The task's own random numbers: asking for more in one task changes no other."""
        return random.Random(int.from_bytes(self._hash(task)))

    def _hash(self, what: str) -> bytes:
        return hashlib.sha256("\0".join([self.lab, self.seed, what]).encode()).digest()


class Miss(NamedTuple):
    """A claim that does not hold: why, which misconception, what is earned all the same."""

    sentence: str
    tag: str = ""
    share: float = 0.0
    seq: int | None = None
    run: object = None


class Check(NamedTuple):
    name: str
    points: float
    holds: Callable
    hidden: bool = False


class Wrong(NamedTuple):
    """A wrong answer whose score is known, for the tests: ``answer(variant)`` makes it."""

    name: str
    answer: Callable
    points: float
    tag: str = ""


@dataclass(frozen=True)
class Task:
    id: str
    title: str
    answer: object
    checks: tuple[Check, ...]
    ask: Callable | None = None
    hints: tuple[str, ...] = ()
    wrong: tuple[Wrong, ...] = ()

    @property
    def points(self) -> float:
        return sum(check.points for check in self.checks)

    def public_points(self) -> float:
        return sum(check.points for check in self.checks if not check.hidden)


class Row(NamedTuple):
    check: str
    points: float
    earned: float
    sentence: str
    tag: str = ""
    hidden: bool = False
    seq: int | None = None
    run: object = None
    stopped: bool = False  # no run, since a story stopped in it

    def mark(self) -> str:
        """The outcome in a word: colour would leave some readers out."""
        if self.hidden and not at_grading():
            return "at grading"
        return "yes" if self.earned >= self.points else "partly" if self.earned else "no"


def at_grading() -> bool:
    """Is nbgrader running this notebook to grade it?"""
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


class Report(Table):
    """What the checks said of one answer. The last line of a grading cell is its score()."""

    min_widths = {"check": "14em"}

    def __init__(self, task: Task, rows: Iterable[Row]) -> None:
        self.task, self.outcome = task, tuple(rows)
        note, hidden = "", task.points - task.public_points()
        if hidden and not at_grading():
            note = (
                f"{number(hidden)} more point{'s are' if hidden != 1 else ' is'} decided by hidden "
                "checks when the lab is graded: the same rules on other runs."
            )
        super().__init__(
            f"{task.id}: {task.title}: {number(self.points)} of {number(task.points)} points",
            ["ok", "points", "check", "what we saw"],
            [
                [row.mark(), f"{number(row.earned)}/{number(row.points)}", row.check, said(row)]
                for row in self.outcome
            ],
            note,
        )
        self.tags = [row.tag for row in self.outcome]

    @property
    def points(self) -> float:
        """Points earned: a plain float between 0 and the task's points."""
        earned = float(sum(row.earned for row in self.outcome))
        return round(min(max(earned, 0.0), float(self.task.points)), 2)

    def score(self) -> float:
        """Show the report, and return the points for nbgrader to read off."""
        show(self)
        return self.points

    def play(self) -> object:
        """The player at the step where the first failed check on a run parts from the rule."""
        for row in self.outcome:
            if row.run is not None:
                return row.run.play(at=row.seq)
            if row.stopped:
                return Note(
                    "There is nothing to play: the story stopped before the run was over. "
                    + row.sentence
                )
        return Note("No failed check of this report is about a run.")


def said(row: Row) -> str:
    if row.tag in MISCONCEPTIONS:  # its tag is for those who count, not for those who read
        return f"{row.sentence} Remember: {MISCONCEPTIONS[row.tag].correction}."
    return row.sentence


def number(points: float) -> str:
    return f"{points:.2f}".rstrip("0").rstrip(".")


def judge(task: Task, answer: object, variant: Variant, hidden: bool) -> list[Row]:
    """A row for each check of the task. Nothing a student hands in makes it raise."""
    with quiet():
        try:
            work = fit(answer, task.answer)
            if task.ask is not None:
                work = task.ask(work, variant)
        except Exception as problem:
            first, *others = (_failed(check, problem) for check in task.checks)
            if not isinstance(problem, NoAnswer):
                others = [row._replace(sentence="not judged, see above") for row in others]
            return [first, *others]
        return [_judged(check, work, variant, hidden) for check in task.checks]


def _judged(check: Check, work: object, variant: Variant, hidden: bool) -> Row:
    if check.hidden and not hidden:
        return Row(check.name, check.points, 0.0, "checked when the lab is graded", hidden=True)
    try:
        outcome = check.holds(work, variant)
    except Exception as problem:
        return _failed(check, problem)
    if outcome is None:
        return Row(check.name, check.points, check.points, "holds", hidden=check.hidden)
    if not isinstance(outcome, Miss):  # a sentence, or a Finding about the run
        finding = {"tag": getattr(outcome, "tag", ""), "seq": getattr(outcome, "seq", None)}
        outcome = Miss(str(outcome), **finding, run=work if hasattr(work, "trace") else None)
    earned = check.points * min(max(outcome.share, 0.0), 1.0)
    row = Row(check.name, check.points, earned, outcome.sentence, outcome.tag, check.hidden)
    return row._replace(seq=outcome.seq, run=outcome.run)


def _failed(check: Check, problem: Exception) -> Row:
    text = str(problem) if isinstance(problem, PopcornError) else f"not judged: {told(problem)}"
    return Row(check.name, check.points, 0.0, text, stopped=isinstance(problem, StoryError))

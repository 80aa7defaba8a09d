"""``pk.lab("05")``: a lab as the student holds it.

    lab.play("demo")        a scene of the lab in the player
    lab.predict("p1", p1)   commit a prediction, then see the step
    lab.hint("t1")          the next of three hints
    lab.grade("t1", x)      the report on an answer; its score() is what nbgrader reads
    lab.progress()          points so far, and what is still open
    lab.doctor()            will the grader see what you see?
    lab.bundle()            a zip to upload

A lab is a module ``popcorn_edu.grading.labNN`` with these names: TITLE; TASKS and, if it has
any, PREDICTS; SCENES, functions from a Variant to a Run, by name; and ``note(variant)``, the few
words that describe the student's variant.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
from pathlib import Path
from types import ModuleType

import popcorn_edu.grading
from popcorn_edu.engine.trace import PopcornError, near_names, write_zip
from popcorn_edu.grading.answers import NotAnAnswer, fit
from popcorn_edu.grading.doctor import Checkup, checkup, notebook_path
from popcorn_edu.grading.predict import Question, Reveal, form
from popcorn_edu.grading.tables import Note, Table, in_notebook, show
from popcorn_edu.grading.tasks import (
    PRACTICE,
    Report,
    Row,
    Task,
    Variant,
    at_grading,
    judge,
    number,
)


def lab(name: str | int, variant: str | None = None, student: str | None = None) -> Lab:
    """Open a lab: ``lab("05")``. Everybody gets the practice variant unless told otherwise.

    variant: any word; the same word gives the same lab (also: environment POPCORN_VARIANT).
    student: a course id, for a variant of one's own. While grading, the id under which the
        work was handed in takes its place.
    """
    module = lab_module(str(name))
    seed = variant or os.environ.get("POPCORN_VARIANT")
    if not seed and student:
        seed = (at_grading() and os.environ.get("POPCORN_STUDENT")) or student
    return Lab(module, (seed or PRACTICE).strip())


def lab_module(name: str) -> ModuleType:
    """The module that declares a lab: of this package, or any importable one by its name."""
    ours = [m.name for m in pkgutil.iter_modules(popcorn_edu.grading.__path__)]
    numbers = [m.removeprefix("lab") for m in ours if m.startswith("lab") and m[3:].isdigit()]
    number = name.removeprefix("lab").zfill(2)
    try:
        if number in numbers:
            return importlib.import_module(f"popcorn_edu.grading.lab{number}")
        return importlib.import_module(name)
    except ImportError as problem:
        if problem.name != name:
            raise
    raise PopcornError(f"there is no lab {name!r}; {near_names(number, numbers)}")


class Lab:
    """One lab, one variant, and what the student has done in it so far."""

    def __init__(self, module: ModuleType, seed: str = PRACTICE) -> None:
        self.number = module.__name__.rpartition(".")[2].removeprefix("lab")
        self.title: str = module.TITLE
        self.variant = Variant(self.number, seed)
        self.tasks: dict[str, Task] = {task.id: task for task in module.TASKS}
        self.gates = {gate.id: gate for gate in getattr(module, "PREDICTS", ())}
        self.predictions: dict[str, dict] = {}
        self.reports: dict[str, Report] = {}
        self.log: list[dict] = []  # plain JSON: what was asked, answered and seen, in order
        self._scenes = getattr(module, "SCENES", {})
        self._note = getattr(module, "note", lambda variant: "")
        self._runs: dict[str, object] = {}

    def __repr__(self) -> str:
        note = self._note(self.variant)
        variant = ", ".join(filter(None, [self.variant.code, note]))
        whose = "The practice variant" if self.variant.seed == PRACTICE else "Your variant"
        end = "" if self.title.endswith("?") else "."
        return f"Lab {self.number}: {self.title}{end} {whose}: {variant}"

    # -- looking -------------------------------------------------------------------------------

    def run(self, name: str):
        """A scene of this lab, in your variant. Asked twice, it is the same run."""
        if name not in self._scenes:
            raise PopcornError(
                f"lab {self.number} has no scene {name!r}; {near_names(name, self._scenes)}"
            )
        if name not in self._runs:
            self._runs[name] = self._scenes[name](self.variant)
        return self._runs[name]

    def play(self, name: str, **options):
        """The player on a scene of this lab; options as in ``run.play``."""
        return self.run(name).play(name=f'lab.run("{name}")', **options)

    def rng(self, task: str):
        """Random numbers of your variant, for one task."""
        return self.variant.rng(task)

    # -- predicting ----------------------------------------------------------------------------

    def predict(self, name: str, answer: object = ...):
        """Ask the prediction; once it is committed, show the step and why it happens."""
        gate = self.gates.get(name)
        if gate is None:
            raise PopcornError(
                f"lab {self.number} asks no prediction {name!r}; {near_names(name, self.gates)}"
            )
        if answer is ...:
            if not in_notebook() or at_grading():
                return Question(gate)
            show(Question(gate))
            return form(gate, lambda value: self.predict(name, value))
        try:
            answer = fit(answer, gate.wants())
        except NotAnAnswer as problem:
            return Question(gate, str(problem))
        reveal = Reveal(gate, self.run(gate.scene), answer)
        kept = self.predictions.setdefault(
            name, {"answer": answer, "right": reveal.right, "attempts": 0}
        )
        kept["attempts"] += 1
        self._log("predict", name, answer=answer, right=reveal.right)
        return reveal

    # -- grading -------------------------------------------------------------------------------

    def grade(self, name: str, answer: object = ...) -> Report:
        """The report on an answer. Never raises, whatever the answer is."""
        task = self.tasks.get(name) if isinstance(name, str) else None
        if task is None:
            sentence = f"there is no task {str(name)[:40]!r}; {near_names(name, self.tasks)}"
            nothing = Task(str(name)[:40], "unknown task", object, ())
            return Report(nothing, [Row("task", 0.0, 0.0, sentence)])
        report = Report(task, judge(task, answer, self.variant, hidden=at_grading()))
        self.reports[name] = report
        self._log("grade", name, points=report.points)
        return report

    def hint(self, name: str) -> Note:
        """The next hint of a task. Hints cost nothing; how many you took is logged."""
        task = self.tasks.get(name)
        if task is None:
            return Note(f"There is no task {name!r}; {near_names(name, self.tasks)}")
        if not task.hints:
            return Note(f"There is no hint for {name}.")
        taken = self._hints_taken(name)
        self._log("hint", name)
        level = min(taken, len(task.hints) - 1)
        return Note(f"Hint {level + 1} of {len(task.hints)} for {name}: {task.hints[level]}")

    def _hints_taken(self, name: str) -> int:
        return sum(entry["did"] == "hint" and entry["what"] == name for entry in self.log)

    def progress(self) -> Table:
        """Public points so far, task by task, and where to go on."""
        rows = []
        for task in self.tasks.values():
            report, public = self.reports.get(task.id), task.public_points()
            points = f"{number(report.points if report else 0)}/{number(public)}"
            hidden = number(task.points - public) if task.points > public else "-"
            rows.append([task.id, task.title, points, hidden, self._next_step(task, report)])
        got = sum(report.points for report in self.reports.values())
        public = sum(task.public_points() for task in self.tasks.values())
        return Table(
            f"Lab {self.number}: {number(got)} of {number(public)} public points so far",
            ["task", "title", "public points", "at grading", "next"],
            rows,
        )

    def _next_step(self, task: Task, report: Report | None) -> str:
        if report is None:
            return f"run the cell that grades {task.id}"
        if all(row.earned >= row.points or row.hidden for row in report.outcome):
            return "done"
        taken = self._hints_taken(task.id)
        more = f'; hint {taken + 1}: lab.hint("{task.id}")' if taken < len(task.hints) else ""
        if any(row.sentence == "not answered yet" for row in report.outcome):
            return "not answered yet" + more
        return "read the report" + more

    # -- handing in ----------------------------------------------------------------------------

    def doctor(self, path: str | os.PathLike | None = None) -> Checkup:
        """Look over the saved notebook as the grader will see it."""
        return checkup(self.number, list(self.tasks), path)

    def bundle(self, path: str | os.PathLike | None = None) -> Note:
        """Write a zip with the notebook and the log, to upload where your course wants it."""
        if at_grading():
            return Note("Nothing to bundle while grading.")
        try:
            notebook = Path(path) if path else notebook_path(self.number)
            target = notebook.with_suffix(".zip")
            log = json.dumps(self.log, indent=1)
            write_zip(target, {notebook.name: notebook.read_bytes(), "log.json": log})
        except PopcornError as problem:
            return Note(f"No bundle written: {problem}")
        except OSError as problem:
            return Note(f"No bundle written: {problem.filename}: {problem.strerror}")
        problems = len(self.doctor(notebook).problems)
        advice = f"; the doctor has {problems} remarks: lab.doctor()" if problems else ""
        return Note(f"Wrote {target.name}{advice}")

    def _log(self, did: str, what: str, **more) -> None:
        self.log.append({"did": did, "what": what, **more})

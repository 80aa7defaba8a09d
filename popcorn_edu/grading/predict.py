"""Predict, then look: the gate in front of a step.

A prediction is committed before the step is shown, so that being surprised is possible. In a
live notebook a small form asks; without one, ``lab.predict("p1", answer="b")`` does the same.
What counts is always the value typed in the cell, never the state of the form: the grader sees
what the student can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from popcorn_edu.grading.answers import OneOf, describe, same
from popcorn_edu.grading.misconceptions import MISCONCEPTIONS
from popcorn_edu.grading.tables import Table


@dataclass(frozen=True)
class Predict:
    """A question about the next step of a run, settled by the run itself.

    ``options`` are the choices, by letter; without them the answer fits ``pattern``.
    ``at(run)`` is the number of the record that settles it, ``truth(run, seq)`` the right
    answer, ``tags`` the misconception behind a wrong letter. ``why`` defaults to the event's
    own reason.
    """

    id: str
    question: str
    scene: str
    at: Callable
    truth: Callable
    options: Mapping[str, str] = field(default_factory=dict)
    pattern: object = int
    tags: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def wants(self) -> object:
        return OneOf(*self.options) if self.options else self.pattern


class Question(Table):
    """The gate, still closed."""

    def __init__(self, gate: Predict, problem: str = "") -> None:
        kind = describe(gate.pattern).partition(", such as")[0]  # an example could be the truth
        form = "your letter in quotes" if gate.options else f"your answer ({kind})"
        super().__init__(
            f"{gate.id}: {gate.question}",
            ["answer", "meaning"] if gate.options else ["answer"],
            list(gate.options.items()) or [[kind]],
            problem
            or f"Commit first: write {form} in place of the dots after {gate.id} =, "
            "then run the cell again.",
        )


class Reveal(Table):
    """The gate, open: what was predicted, what the run did, and why."""

    def __init__(self, gate: Predict, run: object, answer: object) -> None:
        seq = gate.at(run)
        record, truth = run.trace[seq], gate.truth(run, seq)
        self.right, self.seq = same(answer, truth), seq
        verdict = "as you predicted" if self.right else f"you predicted {self._shown(gate, answer)}"
        rows = [
            ["the run says", f"{self._shown(gate, truth)}: {verdict}"],
            [f"record {seq}", f"{record.time:,} ns, {record.who}: {record.event}"],
            ["why", " ".join((gate.why or type(record.event).__doc__ or "").split())],
        ]
        belief = MISCONCEPTIONS.get(gate.tags.get(answer, "") if gate.options else "")
        if belief and not self.right:
            rows.append(["not so", f'"{belief.belief}": {belief.correction}.'])
        super().__init__(f"{gate.id}: {gate.question}", ["", "what happens"], rows)

    @staticmethod
    def _shown(gate: Predict, answer: object) -> str:
        return f"{answer} ({gate.options[answer]})" if gate.options else repr(answer)


def form(gate: Predict, commit: Callable[[object], object]) -> object:
    """A form that asks and calls ``commit``. For a live notebook only."""
    import ipywidgets as widgets

    if gate.options:
        choices = [(f"{letter}: {text}", letter) for letter, text in gate.options.items()]
        box = widgets.RadioButtons(options=choices, value=None, layout={"width": "max-content"})
    else:
        box = widgets.Text(description="I expect", placeholder="a whole number")  # empty at first
    button = widgets.Button(description="Commit", tooltip="Commit this prediction")
    opened = widgets.Output()

    def clicked(_) -> None:
        answer = box.value if gate.options else whole_number(box.value)
        if answer is None:
            return
        button.disabled = box.disabled = True
        with opened:
            from IPython.display import display

            display(commit(answer))
            print(f"To hand it in, write {gate.id} = {answer!r} in the cell above.")

    button.on_click(clicked)
    return widgets.VBox([box, button, opened])


def whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None

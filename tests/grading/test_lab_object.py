"""The lab as a student holds it, without a notebook."""

import json
import re
import zipfile

import pytest

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.lab import lab as open_lab
from popcorn_edu.grading.predict import Question, form


@pytest.fixture
def lab(monkeypatch):
    for name in ("POPCORN_VARIANT", "POPCORN_STUDENT", "NBGRADER_EXECUTION"):
        monkeypatch.delenv(name, raising=False)
    return open_lab("tiny")


class AlwaysEqual:
    def __eq__(self, other):
        return True

    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("t1", AlwaysEqual()),
        ("t1", "86"),
        ("t1", True),
        ("t2", lambda: 1),
        ("t2", print),
        ("t2", lambda n: AlwaysEqual()),
        ("t3", lambda world, ticks: 5),
        ("t3", lambda world, ticks: (yield "tick")),
        ("nowhere", 1),
        (None, None),
        (["t1"], 1),
    ],
)
def test_grading_never_raises_and_never_pays_for_nonsense(lab, capfd, task, answer):
    """Whatever is handed in: a report, no points, nothing on stderr."""
    assert lab.grade(task, answer).score() == 0.0
    assert capfd.readouterr().err == ""


def test_an_unknown_task_is_answered_with_the_near_names(lab):
    """A slip in the task's name is told as such."""
    assert "there is no task 't11'; did you mean t1" in str(lab.grade("t11", 1))


def test_points_add_up_in_progress(lab):
    """The table counts public points only and says what to do next."""
    lab.grade("t1", 86)
    lab.grade("t2", lambda n: n + n)
    lab.grade("t4", ...)

    text = str(lab.progress())

    assert "3 of 8 public points so far" in text
    assert "not answered yet" in text and "run the cell that grades t3" in text


def test_hidden_checks_run_under_nbgrader_only(lab, monkeypatch):
    """The student sees public points; the grader counts all."""
    assert lab.grade("t2", lambda n: n + n).points == 1.0
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert lab.grade("t2", lambda n: n + n).points == 2.0


def test_hints_come_one_by_one_and_are_logged(lab):
    """Three levels, then the last one stays."""
    said = [lab.hint("t1") for _ in range(4)]

    assert said[0] == "Hint 1 of 3 for t1: Look at your variant."
    assert said[2] == said[3] == "Hint 3 of 3 for t1: Two times the number."
    assert [entry["did"] for entry in lab.log] == ["hint"] * 4
    assert "no task 'x'" in lab.hint("x")


def test_a_prediction_is_committed_before_the_step_is_shown(lab):
    """Without an answer the gate shows the question alone; with one, the run's own step."""
    closed, opened = str(lab.predict("p1")), str(lab.predict("p1", "b"))

    assert "Commit first" in closed and "record 2" not in closed
    assert "you predicted b (no other)" in opened and "tick 2" in opened
    assert "A clock says that it is alive." in opened
    assert '"when send returns, the message was received"' in opened


def test_the_first_prediction_is_kept(lab):
    """Trying again is allowed, and visible."""
    lab.predict("p1", answer="b")
    lab.predict("p1", answer="a")

    assert lab.predictions == {"p1": {"answer": "b", "right": False, "attempts": 2}}
    assert json.loads(json.dumps(lab.log))[1] == {
        "did": "predict", "what": "p1", "answer": "a", "right": True,
    }  # fmt: skip


def test_the_form_commits_like_a_call(lab, monkeypatch):
    """In a live notebook a form asks; its button is the call, and says what to type."""
    monkeypatch.setattr("popcorn_edu.grading.lab.in_notebook", lambda: True)
    monkeypatch.setattr("popcorn_edu.grading.lab.show", lambda thing: None)
    box, button, _ = lab.predict("p1").children
    button.click()
    assert lab.predictions == {}

    box.value = "a"
    button.click()

    assert lab.predictions["p1"]["answer"] == "a"
    assert button.disabled and box.disabled


def test_a_number_is_asked_without_one_in_the_box(monkeypatch):
    """Empty, or a text that is no number, commits nothing; no example could be the truth."""
    gate, committed = open_lab("05").gates["p2"], []
    box, button, _ = form(gate, committed.append).children
    assert box.value == ""
    for text in ("", "none"):
        box.value = text
        button.click()
    assert committed == []
    assert not re.search(r"\d", str(Question(gate)).replace(gate.question, "").replace("p2", ""))

    box.value = " 3 "
    button.click()

    assert committed == [3] and button.disabled


def test_the_banner_says_whose_variant_it_is(lab):
    """Who named nobody has the practice variant."""
    assert "The practice variant: 2344" in repr(lab)
    assert "Your variant: " in repr(open_lab("tiny", student="ada"))


def test_a_choice_that_is_none_is_refused(lab):
    """A wrong letter commits nothing."""
    assert "'c' is not a choice" in str(lab.predict("p1", "c"))
    assert lab.predictions == {}


def test_a_scene_is_run_once(lab):
    """Asked twice, it is the same run."""
    assert lab.run("clock") is lab.run("clock")
    with pytest.raises(PopcornError, match="no scene 'clok'; did you mean clock"):
        lab.play("clok")


def test_the_player_names_a_scene_as_the_lab_does(lab):
    """A fork's line of Python works in the notebook: it begins with lab.run(...)."""
    assert lab.play("clock").payload["fork"]["name"] == 'lab.run("clock")'


def test_everybody_has_the_practice_variant_unless_named(monkeypatch):
    """A student id makes a variant; while grading the submission's id takes its place."""
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.setenv("POPCORN_STUDENT", "ada")
    assert open_lab("tiny", student="bob").variant.seed == "bob"
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert open_lab("tiny").variant.seed == "practice"
    assert open_lab("tiny", student="bob").variant.seed == "ada"
    assert open_lab("tiny", variant="7").variant.seed == "7"
    monkeypatch.setenv("POPCORN_VARIANT", "w")
    assert open_lab("tiny").variant.seed == "w"


def test_an_unknown_lab_is_refused_in_a_sentence():
    """With the labs there are."""
    with pytest.raises(PopcornError, match="there is no lab '77'; "):
        open_lab("77")


def test_the_bundle_holds_the_notebook_and_the_log(lab, tmp_path):
    """The same work makes the same file, ready to upload."""
    notebook = tmp_path / "mine.ipynb"
    notebook.write_text('{"cells": []}')
    lab.hint("t1")

    said = lab.bundle(notebook)

    archive = zipfile.ZipFile(tmp_path / "mine.zip")
    assert archive.namelist() == ["mine.ipynb", "log.json"]
    assert json.loads(archive.read("log.json"))[0]["did"] == "hint"
    assert said.startswith("Wrote mine.zip; the doctor has")
    assert "No bundle written" in lab.bundle(tmp_path / "none.ipynb")

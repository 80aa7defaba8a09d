"""What the doctor sees in a notebook file."""

import json

import pytest
from grading.course import TINY, solutions

from popcorn_edu.grading.build import notebook
from popcorn_edu.grading.doctor import checkup
from popcorn_edu.grading.lab import lab_module

TASKS = {task.id: task for task in lab_module("tiny").TASKS}


@pytest.fixture
def cells():
    """The smallest lab, answered and run from top to bottom."""
    nb = notebook(TINY / "instructor" / "tiny.py", TASKS)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
    return nb.cells


def problems(cells, tmp_path):
    path = tmp_path / "labtiny.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    return " ".join(checkup("tiny", list(TASKS), path).problems)


def cell_of(cells, name):
    return next(c for c in cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)


def test_a_sound_notebook_passes(cells, tmp_path):
    """Answered, run in order, whole: nothing to say."""
    assert problems(cells, tmp_path) == ""


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("twice = ...", "t1 is not answered."),
        ("twice = int(input())", "calls input()"),
        ("twice = somewhere_else", "somewhere_else (code cell 2) is defined in no cell."),
    ],
)
def test_a_bad_answer_cell_is_named(cells, tmp_path, source, sentence):
    """Blank, waiting for a keyboard, or living in memory only."""
    cell_of(cells, "t1").source = source

    assert sentence in problems(cells, tmp_path)


@pytest.mark.parametrize("filled", ["twice |= {'a': 3}", "twice['a'] = 3"])
def test_an_answer_may_be_filled_in_below_its_dots(cells, tmp_path, filled):
    """The dots of the released cell may stay above."""
    cell_of(cells, "t1").source = f"twice = {{'a': ...}}\n{filled}"

    assert "t1 is not answered." not in problems(cells, tmp_path)


def test_cells_run_out_of_order_are_noticed(cells, tmp_path):
    """The run numbers of the saved file tell."""
    cell_of(cells, "t1").execution_count = 40
    cell_of(cells, "t2").execution_count = None

    said = problems(cells, tmp_path)

    assert "not run once each from top to bottom" in said and "was not run" in said


def test_missing_doubled_and_damaged_cells_are_noticed(cells, tmp_path):
    """Each with what to do about it."""
    cells.append(cell_of(cells, "t1-test"))
    cells.remove(cell_of(cells, "t2-test"))
    cell_of(cells, "t3").cell_type = "markdown"
    cell_of(cells, "t4-test").metadata["nbgrader"]["checksum"] = "of another source"

    said = problems(cells, tmp_path)

    assert "t1-test is there 2 times" in said
    assert "t2-test is missing" in said
    assert "t3 is a text cell now" in said
    assert "t4-test was changed" in said


def test_magics_and_broken_python_do_not_stop_the_doctor(cells, tmp_path):
    """What is no Python is passed over."""
    cell_of(cells, "t1").source = "%matplotlib inline\n!ls\ntwice = 86"
    cell_of(cells, "t5").source = "raw = = 2"

    assert problems(cells, tmp_path) == "raw (code cell 12) is defined in no cell."


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": [1]}', '{"cells": [{"source": 3}]}'])
def test_a_file_that_is_no_notebook_is_told_in_a_sentence(tmp_path, text):
    """Never an exception."""
    path = tmp_path / "x.ipynb"
    path.write_text(text)

    assert "is not a notebook file" in checkup("tiny", [], path).problems[0]


def test_the_file_of_the_session_is_found(tmp_path, monkeypatch):
    """JupyterLab tells the kernel its file; else it is the lab's own name in this folder."""
    monkeypatch.chdir(tmp_path)
    assert "there is no labtiny.ipynb" in checkup("tiny", []).problems[0]
    (tmp_path / "copy of it.ipynb").write_text('{"cells": []}')
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "copy of it.ipynb"))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    assert checkup("tiny", []).problems == []


def test_a_released_notebook_is_unanswered_and_undamaged(tmp_path):
    """Our reading of nbgrader's checksum is nbgrader's."""
    from nbgrader.preprocessors import ComputeChecksums

    nb = notebook(TINY / "instructor" / "tiny.py", TASKS)
    for cell in nb.cells:
        ComputeChecksums().preprocess_cell(cell, {}, 0)

    said = problems(nb.cells, tmp_path)

    assert "t2 is not answered." in said and "changed" not in said


def test_solutions_are_taken_from_the_source():
    """The helper of these tests sees the instructor's side."""
    assert "number + number" in solutions("tiny", TINY)["t2"]

"""Our small passes over a notebook, one by one."""

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from popcorn_edu.grading.nbgrader_support import (
    DropCopies,
    HideHiddenTests,
    LimitCharacters,
    PlainScores,
)


def graded(*outputs, name="t-test", points=2, source=""):
    data = {"grade": True, "solution": False, "grade_id": name, "points": points}
    return new_code_cell(source, outputs=list(outputs), metadata={"nbgrader": data})


def result(text):
    return new_output("execute_result", {"text/plain": text})


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("1.0", "1.0"),
        ("0.33", "0.33"),
        ("2.5", "2.0"),
        ("-1.0", "0.0"),
        ("nan", "0.0"),
        ("inf", "0.0"),
        ("True", "0.0"),
        ("None", "0.0"),
        ("'2.0'", "0.0"),
        ("np.float64(0.5)", "0.5"),
        ("<object>", "0.0"),
    ],
)
def test_only_a_number_within_bounds_is_a_score(text, score):
    """nbgrader would give full points for most of these, and fail the batch for 2.5."""
    cell, _ = PlainScores().preprocess_cell(graded(result(text)), {}, 0)

    assert cell.outputs[-1].data["text/plain"] == score


def test_no_result_is_no_points():
    """A cell that ends in ``1.0;``, or was skipped by a tag, shows nothing to count."""
    cell, _ = PlainScores().preprocess_cell(graded(), {}, 0)

    assert cell.outputs[-1].data["text/plain"] == "0.0"


def test_an_error_is_left_to_nbgrader():
    """It is worth nothing already."""
    error = new_output("error", ename="E", evalue="", traceback=[])
    cell, _ = PlainScores().preprocess_cell(graded(error), {}, 0)

    assert cell.outputs == [error]


def test_of_copies_the_last_keeps_its_grade_id():
    """The others become ordinary cells, with no trace of metadata to complain about."""
    nb = new_notebook(cells=[graded(name="a"), graded(name="b"), graded(name="a")])

    DropCopies().preprocess(nb, {})

    assert [c.metadata.get("nbgrader", {}).get("grade_id") for c in nb.cells] == [None, "b", "a"]


def test_one_endless_line_is_cut():
    """Lines are not the only way to fill a disk."""
    long = "x" * 100_000
    cell = new_code_cell(outputs=[new_output("stream", text=long), result(long)])

    LimitCharacters().preprocess_cell(cell, {}, 0)

    assert len(cell.outputs[0].text) < 21_000 and cell.outputs[0].text.endswith("(cut here)")
    assert len(cell.outputs[1].data["text/plain"]) < 21_000


def test_hidden_tests_leave_no_source_behind():
    """Neither in the cell nor in its traceback, even if the end mark is missing."""
    error = new_output("error", ename="E", evalue="", traceback=["assert secret"])
    for end in ("\n### END HIDDEN TESTS\nafter", ""):
        cell = graded(error, source="before\n### BEGIN HIDDEN TESTS\nassert secret" + end)

        HideHiddenTests().preprocess_cell(cell, {}, 0)

        assert "secret" not in str(cell) and cell.source.startswith("before")

"""Real nbgrader, from the instructor's source to the feedback page, on the smallest lab."""

import copy
import json
import re

import pytest
from grading.course import (
    TINY,
    cell_of,
    copy_course,
    feedback,
    grade,
    jupyter_server,
    nbgrader,
    solutions,
)

pytestmark = pytest.mark.slow

HALF = {
    "t1": "twice = 1000",
    "t2": "def double(number):\n    return abs(number) * 2",
    "t3": "from tiny import Ticked\n"
    "def count(world, ticks):\n    yield Ticked(0)\n    yield Ticked(7)",
    "t4": "word = 'sesame'",
    "t5": "raw = 0.5",
}
LOOPING = {
    "t1": "while True:\n    pass",
    "t2": "def double(number):\n    while True:\n        number += 1",
    "t3": "from tiny import Ticked\n"
    "from popcorn_edu.engine.steps import Delay\n"
    "def count(world, ticks):\n"
    "    n = 0\n    while True:\n        yield Ticked(n)\n        yield Delay(1)\n        n += 1",
    "t5": "raw = 'full points, please'",
}


def clumsy(nb):
    """All answers right, and every ordinary accident."""
    for name, source in solutions("tiny", TINY).items():
        cell_of(nb, name).source = source
    warn = "import warnings, sys\nwarnings.warn('old')\nprint('oops', file=sys.stderr)\n"
    cell_of(nb, "t1").source += "\nimport numpy\ntwice = numpy.float64(twice)"
    cell_of(nb, "t2").source = (
        "import warnings, logging\n"
        "def double(number):\n"
        "    warnings.warn('old')\n    logging.warning('hm')\n    return number * 2.0"
    )
    cell_of(nb, "t4").source = warn + "word = 'popcorn'"
    cell_of(nb, "t5").source = "import numpy\nraw = numpy.float64(2)"
    nb.cells.append(copy.deepcopy(cell_of(nb, "t1-test")))  # a copied grading cell
    nb.cells[-1].id = "copied"
    nb.cells.remove(cell_of(nb, "t3-test"))  # a deleted one
    cell_of(nb, "t4-test").cell_type = "markdown"  # and one turned into text
    del cell_of(nb, "t4-test")["outputs"], cell_of(nb, "t4-test")["execution_count"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    submissions = {
        "right": solutions("tiny", TINY) | {"t5": "raw = 99"},
        "half": HALF,
        "looping": LOOPING,
        "clumsy": clumsy,
        "blank": {},
    }
    return folder, grade(folder, "tiny", submissions, labs=TINY, seconds=10)


@pytest.mark.parametrize(
    ("student", "points"),
    [
        ("right", [2, 2, 2, 1, 2]),
        ("half", [1, 1, 1.5, 0, 0.5]),
        ("looping", [0, 0, 0, 0, 0]),
        ("clumsy", [2, 2, 2, 1, 2]),
        ("blank", [0, 0, 0, 0, 0]),
    ],
)
def test_each_submission_gets_the_points_it_deserves(graded, student, points):
    """Right is full, half is half, a loop is nothing, and an accident costs nothing."""
    _, scores = graded

    assert [scores[student][f"t{n}-test"] for n in range(1, 6)] == points


def test_feedback_names_the_step_and_hides_the_hidden_tests(graded):
    """The page holds the sentence about the student's run, and no hidden test or traceback."""
    folder, _ = graded

    page = feedback(folder, "tiny", "half", labs=TINY)

    assert "record 1: tick 7 is out of turn." in page
    assert "A number below zero is not doubled." in page
    assert "Remember: the model counts the nanoseconds" in page
    assert "(hidden tests ran here)" in page and "A hidden test did not hold." in page
    assert "no magic words" not in page and "sesame&quot;, " not in page


def test_feedback_is_readable_and_asks_no_server_for_anything(graded):
    """Tables have space, long lines wrap, and the page loads nothing from elsewhere."""
    folder, _ = graded

    page = feedback(folder, "tiny", "right", labs=TINY)

    assert "td,th{padding:4px 10px}" in page and "pre{white-space:pre-wrap}" in page
    assert not re.search(r"""(src|href)=["'](https?:)?//|<script[^>]+mathjax""", page, re.I)


def test_feedback_shows_the_page_when_a_widget_comes_with_one(graded):
    """An output with both a widget view and HTML is shown as HTML: no widget lives in a page."""
    folder, _ = graded

    assert "<b>seen without a kernel</b>" in feedback(folder, "tiny", "right", labs=TINY)


def test_a_story_that_never_ends_is_told_its_own_line(graded):
    """The student of an endless story or function reads where it loops."""
    folder, _ = graded

    page = re.sub("<[^>]+>", "", feedback(folder, "tiny", "looping", labs=TINY))

    assert "double was still running after 1,000,000 lines" in page
    assert "line 2 of your cell: while True:" in page
    assert "does not end" in page
    assert re.search(r"line [67] of your cell: yield (Ticked\(n\)|Delay\(1\))", page)


def test_the_formgrader_lists_every_submission_as_graded(graded):
    """What the formgrader shows: five submissions, none waiting for a manual grade."""
    folder, _ = graded
    with nbgrader(folder, TINY) as api:
        listed = api.get_assignment("tiny")
        rows = api.get_submissions("tiny")

    assert listed["num_submissions"] == 5 and listed["max_score"] == 9.0
    assert {row["student"] for row in rows if not row["needs_manual_grade"]} == {
        "right", "half", "looping", "clumsy", "blank",
    }  # fmt: skip


def test_the_formgrader_opens_on_the_course(graded):
    """A Jupyter server started in the course folder serves the formgrader and its list."""
    folder, _ = graded

    with jupyter_server(folder) as ask:
        page, listed = ask("formgrader/"), ask("formgrader/api/assignments")

    assert "nbgrader" in page.lower()
    assert [(a["name"], a["num_submissions"]) for a in json.loads(listed)] == [("tiny", 5)]


def test_our_build_and_generate_assignment_write_the_same_files(graded, tmp_path):
    """The command line of nbgrader and ours agree byte for byte."""
    from popcorn_edu.grading.build import build

    folder, _ = graded
    copy_course(TINY, tmp_path)

    (made,) = build(tmp_path)

    assert made.read_bytes() == (folder / "student" / "tiny" / "tiny.ipynb").read_bytes()

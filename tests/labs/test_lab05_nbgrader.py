"""Lab 05 from a student's notebook to the feedback page, with real nbgrader, and run as a whole."""

import html
import re

import nbformat
import pytest
from grading.course import LABS, feedback, grade
from labs.lab05_answers import INVARIANTS, READ_ONE, RECEIVES, SENDS, SOURCES, typed
from nbclient import NotebookClient

from popcorn_edu.grading import lab05
from popcorn_edu.grading.build import write_source
from popcorn_edu.grading.doctor import TEST
from popcorn_edu.grading.tasks import Variant, judge

pytestmark = pytest.mark.slow

HALF = {
    "pre": 'before = {"ipi": "a", "full": "b"}',
    "a1": SOURCES["a1"] + '\ndel table["tail"], table["int_enabled"]',
    "f2a": SENDS["half: never waits, never interrupts"][0],
    "f2b": READ_ONE,
    "a4": "possible = dict.fromkeys('abcdef', True)",
    "i5": INVARIANTS["one too late"][0],
    "a3": 'long_messages = {"page_chunks": 69, "longest_bytes": 7620}',
    "o6": SOURCES["o6"] + "\nschedule.pop()",
    "a7": SOURCES["a7"] + "\ndesigns = {name: (word, ...) for name, (word, _) in designs.items()}",
    "s8": "policy = dict.fromkeys(('one', 'two', 'three'), 'sleep')",
    "post": 'after = {"ipi": "a", "full": "c"}',
}
LOOPING = {
    "f2a": SENDS["loops with Delay(0)"][0],
    "f2b": RECEIVES["loops"][0],
    "i5": INVARIANTS["loops"][0],
    "o6": 'schedule = ["0 sends", "1 sends"]\nwhile True:\n    schedule += schedule[:2]\n'
    "    if len(schedule) > 10_000:\n        break",
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    submissions = {"right": SOURCES, "half": HALF, "looping": LOOPING}
    return folder, grade(folder, "lab05", submissions)


def words(page):
    """The page as a person reads it."""
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())


def points(*scores):
    return {task.id + TEST: score for task, score in zip(lab05.TASKS, scores, strict=True)}


@pytest.mark.parametrize(
    ("student", "scores"),
    [  # pre, a1, f2a, f2b, a4, i5, a3, o6, a7, s8, post
        ("right", (0.5, 3, 2.5, 2.5, 3, 3, 2, 2, 2, 1, 0.5)),
        ("half", (0.25, 1.5, 0.5, 1, 1, 1.5, 0.75, 1, 1, 0.25, 0.25)),
        ("looping", (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_each_submission_gets_the_points_it_deserves(graded, student, scores):
    """Right is 22, half right is 9, and loops that never end are graded like any other answer."""
    _, given = graded

    assert given[student] == points(*scores)


def test_feedback_names_the_step_where_the_run_and_the_rule_part(graded):
    """Each broken rule of send and receive: the call, the record, and the misconception."""
    folder, _ = graded

    page = words(feedback(folder, "lab05", "half"))

    for task in (task for task in lab05.TASKS if task.id in ("f2a", "f2b")):
        rows = judge(task, typed(task.id, HALF[task.id]), Variant("05"), hidden=True)
        broken = [row.sentence for row in rows if not row.earned]
        assert broken and all(": record " in said and said in page for said in broken)
    assert "Remember: it depends on the layer: this one makes the sender wait" in page
    assert "Remember: send returns once the slot is marked ready" in page
    assert not re.search(r"\bM\d+:", page)
    assert "Traceback (most recent" not in page


def test_feedback_tells_the_looping_line(graded):
    """A story and a function that never end: which line of the student's cell."""
    folder, _ = graded

    page = words(feedback(folder, "lab05", "looping"))

    assert "endless loop, at line 3 of your cell: yield Delay(0)" in page
    assert "ran 1,000,000 lines without a yield: an endless loop, at line" in page
    assert "out_of_order was still running after 1,000,000 lines" in page
    assert "a schedule has 1 to 60 lines" in page


def run(path, folder):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return [out for cell in notebook.cells for out in cell.get("outputs", ())]


@pytest.mark.parametrize("who", ["instructor", "student"])
def test_the_whole_notebook_runs_quietly(tmp_path, monkeypatch, who):
    """From top to bottom, solved and unsolved: no error, nothing on stderr."""
    monkeypatch.delenv("POPCORN_VARIANT", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(LABS.parent))
    write_source(LABS / "instructor" / "lab05.py", tmp_path)
    fresh = LABS / "student" / "lab05" / "lab05.ipynb"

    outputs = run(tmp_path / "lab05.ipynb" if who == "instructor" else fresh, tmp_path)

    assert [
        out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"
    ] == []
    assert sum("pk-player" in out.get("data", {}).get("text/html", "") for out in outputs) == 2

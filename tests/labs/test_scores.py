"""Every lab: each wrong answer scores what its author says, and real nbgrader agrees."""

import pytest
from grading.course import LABS, feedback, grade, solutions

from popcorn_edu.grading.doctor import TEST
from popcorn_edu.grading.lab import Lab, lab_module
from popcorn_edu.grading.tasks import Report, judge

NAMES = sorted(path.stem for path in (LABS / "instructor").glob("*.py"))
WRONG = [
    pytest.param(name, task, wrong, id=f"{name}-{task.id}-{wrong.name}")
    for name in NAMES
    for task in lab_module(name).TASKS
    for wrong in task.wrong
]


@pytest.mark.parametrize(("name", "task", "wrong"), WRONG)
def test_a_wrong_answer_gets_its_points_and_its_reason(name, task, wrong):
    """Partial credit as promised, the misconception recognised, and never 'not judged'."""
    variant = Lab(lab_module(name)).variant
    rows = judge(task, wrong.answer(variant), variant, hidden=True)

    assert Report(task, rows).points == pytest.approx(wrong.points, abs=0.005)
    assert not any("not judged:" in row.sentence for row in rows)
    assert not wrong.tag or wrong.tag in {row.tag for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_solutions_get_full_points_and_a_blank_notebook_none(name, tmp_path):
    """The instructor's own answers, through nbgrader, in the notebook a student opens."""
    scores = grade(tmp_path, name, {"right": solutions(name), "blank": {}})

    full = {task.id + TEST: task.points for task in lab_module(name).TASKS}
    assert scores["right"] == full
    assert scores["blank"] == dict.fromkeys(full, 0)
    page = feedback(tmp_path, name, "right")
    assert "Traceback (most recent" not in page

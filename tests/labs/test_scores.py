"""Every lab: each wrong answer scores what its author says, and real nbgrader agrees."""

import os
import shutil
import subprocess
import sys

import pytest
from grading.course import (
    LABS,
    REPOSITORY,
    feedback,
    grade,
    hand_in,
    right_answers,
    solutions,
)

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


ABOUT_ITSELF = ("lab00", "t4")  # that task judges the notebook file it stands in: test_pipeline.py
NONSENSE = (..., None, "a", 3.5, [], {}, object(), print, lambda *a: 1 / 0, type)


def tasks_of(lab, name):
    return [task for task in lab.tasks.values() if (name, task.id) != ABOUT_ITSELF]


@pytest.mark.parametrize("name", NAMES)
def test_nonsense_earns_nothing(name):
    """No kind of thing that was not asked for is worth a point."""
    lab = Lab(lab_module(name))
    for task in tasks_of(lab, name):
        for answer in NONSENSE:
            rows = judge(task, answer, lab.variant, hidden=True)
            assert Report(task, rows).points == 0, (task.id, answer)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", ["practice", "ada", "bob", "7"])
def test_every_variant_has_full_points_for_its_own_solution(name, seed):
    """The solutions compute what is right for whoever opens the lab."""
    lab, answers = Lab(lab_module(name), seed), right_answers(name, seed)
    assert answers.keys() == lab.tasks.keys()
    for task in tasks_of(lab, name):
        made = Report(task, judge(task, answers[task.id], lab.variant, hidden=True))
        assert made.points == task.points, f"{task.id}: {made}"


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


@pytest.mark.slow
def test_the_recipe_of_the_settings_works_on_a_fresh_clone(tmp_path):
    """The two commands that labs/nbgrader_config.py names, then autograde, all typed by hand."""
    folder = tmp_path / "labs"
    made = shutil.ignore_patterns("build", ".ipynb_checkpoints", "__pycache__", "gradebook.db*")
    shutil.copytree(LABS, folder, ignore=made)
    own = {
        "PYTHONPATH": str(REPOSITORY),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    own = {name: value for name, value in os.environ.items() if "POPCORN" not in name} | own

    def typed(program, *words):
        line = [sys.executable, "-m", program, *words]
        done = subprocess.run(line, cwd=folder, env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    typed("popcorn_edu", "labs", "build")
    typed("nbgrader", "generate_assignment", "lab00", "--force")
    released = folder / "student" / "lab00" / "lab00.ipynb"
    assert released.read_bytes() == (LABS / "student" / "lab00" / "lab00.ipynb").read_bytes()
    hand_in(released, folder / "build" / "submitted" / "ada" / "lab00", solutions("lab00"))
    typed("nbgrader", "autograde", "lab00")

    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder / 'build' / 'gradebook.db'}") as book:
        score = book.find_submission("lab00", "ada").score
    assert score == sum(task.points for task in lab_module("lab00").TASKS)

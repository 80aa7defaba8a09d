"""The students' notebooks: built from their sources, whole, and free of solutions."""

import ast
from pathlib import Path

import nbformat
import pytest
from grading.course import LABS, copy_course

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading import build as building
from popcorn_edu.grading.doctor import TEST
from popcorn_edu.grading.lab import lab_module

SOURCES = sorted((LABS / "instructor").glob("*.py"))
GRADING = Path(building.__file__).parent
LINES_AT_MOST = 15  # in one code cell of a student
TELLING = 12  # a solution's line shorter than this says nothing (`return`, `else:`)

each_lab = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def tasks_of(source):
    return {task.id: task for task in lab_module(source.stem).TASKS}


def student_cells(source):
    path = LABS / "student" / source.stem / f"{source.stem}.ipynb"
    return nbformat.read(path, as_version=4).cells


def solution_lines(source):
    """The lines between the SOLUTION marks, but for those that say nothing."""
    inside, lines = False, []
    for line in source.read_text(encoding="utf-8").splitlines():
        if "SOLUTION" in line:
            inside = "BEGIN" in line
        elif inside and len(line.strip()) >= TELLING and not line.strip().startswith("#"):
            lines.append(line.strip())
    return lines


def test_the_committed_notebooks_are_a_fresh_build(tmp_path):
    """Byte for byte, pictures included, and no notebook without a source."""
    copy_course(LABS, tmp_path)

    building.build(tmp_path)

    fresh, kept = tmp_path / "student", LABS / "student"
    made = {p.relative_to(fresh): p.read_bytes() for p in fresh.rglob("*") if p.is_file()}
    here = {
        p.relative_to(kept): p.read_bytes()
        for p in kept.rglob("*")
        if p.is_file() and ".ipynb_checkpoints" not in p.parts
    }
    assert made.keys() == here.keys()
    assert [str(name) for name in made if made[name] != here[name]] == []


@each_lab
def test_no_solution_reaches_a_student(source):
    """No line of a solution stands in what a student opens, nor in the checks they import."""
    lines = solution_lines(source)
    assert lines
    shown = [p for p in (LABS / "student").rglob("*") if p.suffix in (".ipynb", ".py")]
    text = "\n".join(p.read_text(encoding="utf-8") for p in shown).replace('\\"', '"')
    checks = "\n".join(p.read_text(encoding="utf-8") for p in GRADING.glob("*.py"))

    assert [line for line in lines if line in text] == []
    assert [line for line in lines if line in map(str.strip, checks.splitlines())] == []


@each_lab
def test_every_task_has_its_cells(source):
    """Each declared task is answered in one cell and graded in one, for its points."""
    found = {}
    for cell in student_cells(source):
        data = cell.metadata.get("nbgrader", {})
        if data.get("grade") or data.get("solution"):
            assert data["grade_id"] not in found, "a grade id appears twice"
            assert cell.id == data["grade_id"]
            found[data["grade_id"]] = data.get("points")
    tasks = tasks_of(source).values()

    wanted = {task.id: None for task in tasks} | {task.id + TEST: task.points for task in tasks}
    assert found == wanted


@each_lab
def test_cells_are_short_and_run_as_python(source):
    """No long cell, no output, and no syntax error before the student has typed anything."""
    for cell in student_cells(source):
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= LINES_AT_MOST, cell.source
            assert cell.outputs == [] and cell.execution_count is None
            ast.parse(cell.source)


@each_lab
def test_every_picture_has_words_and_a_file(source):
    """An image without alternative text says nothing to some readers."""
    import re

    for cell in student_cells(source):
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", cell.source):
            assert len(words) > 20, target
            assert (LABS / "student" / source.stem / target).is_file()


@each_lab
def test_three_hints_stand_folded_for_each_task(source):
    """The hints in the notebook are those of lab.hint(), and every task has three."""
    text = "\n".join(c.source for c in student_cells(source) if c.cell_type == "markdown")
    for task in tasks_of(source).values():
        assert len(task.hints) == 3, task.id
        assert all(hint in text for hint in task.hints), task.id


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        ('# %% answer="t11"\nx = 1', "cell 1: there is no task 't11'; did you mean t1"),
        ("# %% [markdown]\n# <!-- hints t11 -->", "there is no task 't11'"),
    ],
)
def test_a_slip_in_a_source_is_told_with_its_cell(tmp_path, mark, sentence):
    """An author reads which cell, and what was meant."""
    source = tmp_path / "lab00.py"
    source.write_text(mark)

    with pytest.raises(PopcornError, match=sentence):
        building.notebook(source, tasks_of(source))


def test_an_unknown_lab_is_not_built():
    """With the near names."""
    with pytest.raises(PopcornError, match="no source of a lab 'lab0'; did you mean lab0"):
        building.build(LABS, ["lab0"])

"""Build the notebooks of the labs from their reviewable sources.

    labs/instructor/lab05.py           the source, with solutions: plain Python with cell marks
    labs/build/source/lab05/           the instructor's notebook (not committed)
    labs/student/lab05/lab05.ipynb     the student's notebook: no solutions, no outputs (committed)

Run ``popcorn-edu labs build`` or ``python -m popcorn_edu.grading.build``. The student's notebook
is made by nbgrader's own generate_assignment with the settings of labs/nbgrader_config.py.

How to write a lab
------------------
1. Declare the tasks in ``popcorn_edu/grading/labNN.py``: TITLE, SCENES, PREDICTS, TASKS, note
   (see lab.py for the names, tasks.py for a Task, predict.py for a gate, lab00.py for a whole
   example). Let the check *compute* what is right; never write an answer down there.
2. Write ``labs/instructor/labNN.py`` in cells (jupytext's percent format)::

       # %% [markdown]                 text; a line <!-- hints t1 --> becomes t1's hints
       # %%                            code that the student may change and nobody grades
       # %% locked="setup"             code that nbgrader puts back if it was changed
       # %% answer="t1"                the student's answer to task t1
       first_ipi = ...  # a record number
       ### BEGIN SOLUTION
       first_ipi = 12
       ### END SOLUTION
       # %% grade="t1"                 the grading cell; its points come from the task
       lab.grade("t1", first_ipi).score()

   Only what stands between the SOLUTION marks is taken out; a comment takes its place. So give
   a value its ``...`` before the mark, as above (``...`` is how "not answered yet" is told from
   a wrong answer), a function a docstring, and an inner block a ``...`` of its own. Give each
   answer a name of its own. A grading cell is one line. No cell has more than 15 lines for the
   student. A task has three hints: where to look, what to think of, how to write it.
3. Files beside the notebook (pictures) go into ``labs/instructor/labNN/``.
4. Build, and commit the student's notebook. The tests compare it with a fresh build, run the
   solutions through nbgrader for full points, and each task's ``wrong`` answers for theirs.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.grading.doctor import TEST
from popcorn_edu.grading.lab import lab_module
from popcorn_edu.grading.tasks import Task

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
MARKS = ("answer", "grade", "locked")
HINTS = re.compile(r"^<!-- hints (\S+) -->$", re.M)


def labs_folder() -> Path:
    """The course folder: ``labs`` here, else that of the repository this package is in."""
    for folder in (Path("labs"), Path(), Path(__file__).parents[2] / "labs"):
        if (folder / "nbgrader_config.py").is_file():
            return folder.resolve()
    raise PopcornError("there is no folder labs with an nbgrader_config.py here; give its path")


def build(folder: str | Path | None = None, names: Iterable[str] = ()) -> list[Path]:
    """Build these labs (all, if none is named); return the students' notebooks."""
    folder = Path(folder).resolve() if folder else labs_folder()
    known = {path.stem: path for path in sorted((folder / "instructor").glob("*.py"))}
    for name in names:
        if name not in known:
            raise PopcornError(f"there is no source of a lab {name!r}; {near_names(name, known)}")
    chosen = list(names) or list(known)
    for name in chosen:
        write_source(known[name], folder / "build" / "source" / name)
    return generate(folder, chosen)


def write_source(source: Path, target: Path) -> None:
    """The instructor's notebook, with the files that lie beside it."""
    import nbformat

    tasks = {task.id: task for task in lab_module(source.stem).TASKS}
    shutil.rmtree(target, ignore_errors=True)
    beside = source.with_suffix("")
    if beside.is_dir():
        shutil.copytree(beside, target, ignore=shutil.ignore_patterns("__pycache__"))
    target.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(source, tasks), target / f"{source.stem}.ipynb")


def notebook(source: Path, tasks: dict[str, Task]):
    """A source as a notebook with nbgrader's metadata, the same bytes on each build."""
    import jupytext

    nb = jupytext.read(source, fmt="py:percent")
    nb.metadata = {"kernelspec": KERNEL}
    nb.nbformat_minor = 5
    for index, cell in enumerate(nb.cells, 1):
        marks = {mark: cell.metadata[mark] for mark in MARKS if mark in cell.metadata}
        cell.metadata = {key: cell.metadata[key] for key in ("tags",) if key in cell.metadata}
        cell.id = f"cell-{index:02}"
        try:
            if marks:
                ((mark, name),) = marks.items()
                cell.metadata["nbgrader"] = graded(mark, name, tasks)
                cell.id = cell.metadata["nbgrader"]["grade_id"]
            if cell.cell_type == "markdown":
                cell.source = HINTS.sub(lambda m: hints(m[1], task_of(m[1], tasks)), cell.source)
        except (PopcornError, ValueError) as problem:
            raise PopcornError(f"{source.name}, cell {index}: {problem}") from None
    return nb


def graded(mark: str, name: str, tasks: dict[str, Task]) -> dict:
    """nbgrader's metadata of a marked cell."""
    data = {"schema_version": 3, "grade": False, "solution": False, "locked": True, "task": False}
    if mark == "locked":
        return data | {"grade_id": name}
    if mark == "answer":
        return data | {"grade_id": task_of(name, tasks).id, "solution": True, "locked": False}
    points = task_of(name, tasks).points
    return data | {"grade_id": name + TEST, "grade": True, "points": points}


def task_of(name: str, tasks: dict[str, Task]) -> Task:
    if name not in tasks:
        raise PopcornError(f"there is no task {name!r}; {near_names(name, tasks)}")
    return tasks[name]


def hints(name: str, task: Task) -> str:
    """A task's hints, folded away one by one."""
    return "\n".join(
        f"<details><summary>Hint {level} for {name}</summary>\n\n{text}\n\n</details>"
        for level, text in enumerate(task.hints, 1)
    )


def generate(folder: Path, names: list[str]) -> list[Path]:
    """The students' notebooks, by nbgrader itself, without touching the gradebook."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    config.SaveCells.enabled = False
    made = []
    for name in names:
        course = CourseDirectory(config=config, assignment_id=name)
        maker = GenerateAssignment(coursedir=course, config=config, force=True, no_database=True)
        maker.log.setLevel("ERROR")
        maker.start()
        made.append(folder / course.release_directory / name / f"{name}.ipynb")
    return made


if __name__ == "__main__":
    try:
        for path in build(names=sys.argv[1:]):
            print(path)
    except PopcornError as problem:
        sys.exit(str(problem))

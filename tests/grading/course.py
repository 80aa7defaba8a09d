"""A whole course in a temporary folder: build, hand in, autograde, feedback, with real nbgrader.

    scores = grade(tmp_path, "lab05", {"ada": {"t1": "x = 4"}, "bob": {}})
    scores["ada"]["t1-test"]                      points of that grading cell
    feedback(tmp_path, "lab05", "ada")            the HTML page, as text
    solutions("lab05")                            the instructor's cells by grade id

A submission is the student's notebook with some cells replaced, by grade id; or a function that
changes the notebook as it likes. nbgrader is driven in this one process: starting it for each
command would cost seven seconds a time.
"""

import ast
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from unittest import mock

import nbformat

REPOSITORY = Path(__file__).parents[2]
LABS = REPOSITORY / "labs"
TINY = Path(__file__).parent / "tiny_course"  # a lab just large enough to try everything


def grade(tmp_path, lab, submissions, labs=LABS, seconds=60):
    """Hand in and autograde; return {student: {grade id: points}}."""
    with nbgrader(tmp_path, labs, seconds) as api:
        released = build_release(api, lab)
        for student, changes in submissions.items():
            hand_in(released, tmp_path / "build" / "submitted" / student / lab, changes)
            demand(api.autograde(lab, student))
        with api.gradebook as book:
            return {
                student: {
                    cell.name: cell.auto_score
                    for cell in book.find_submission_notebook(lab, lab, student).grades
                }
                for student in submissions
            }


def feedback(tmp_path, lab, student, labs=LABS):
    """The feedback page of a graded submission."""
    with nbgrader(tmp_path, labs) as api:
        demand(api.generate_feedback(lab, student))
    page = tmp_path / "build" / "feedback" / student / lab / f"{lab}.html"
    return page.read_text(encoding="utf-8")


GRADING = re.compile(r'lab\.grade\("(\w+)", (.+)\)\.score\(\)')


def right_answers(lab, seed="practice"):
    """What each grading cell of the solved notebook is given, by task: its cells run in order.

    Cells that name nothing only draw or ask; they are left out.
    """
    from popcorn_edu.grading.build import notebook
    from popcorn_edu.grading.lab import lab_module

    tasks = {task.id: task for task in lab_module(lab).TASKS}
    names, answers = {}, {}
    for cell in notebook(LABS / "instructor" / f"{lab}.py", tasks).cells:
        found = GRADING.fullmatch(cell.source.strip())
        if found:
            answers[found[1]] = eval(found[2], names)
        elif cell.cell_type == "code" and any(
            not isinstance(statement, ast.Expr) for statement in ast.parse(cell.source).body
        ):
            variant = mock.patch.dict(os.environ, POPCORN_VARIANT=seed)
            with variant, redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"<ipython-input-{len(answers)}>", "exec"), names)
    return answers


def solutions(lab, labs=LABS):
    """What the instructor answers, by grade id: {"t1": "x = 4"}."""
    from popcorn_edu.grading.build import notebook
    from popcorn_edu.grading.lab import lab_module

    tasks = {task.id: task for task in lab_module(lab).TASKS}
    source = notebook(Path(labs) / "instructor" / f"{lab}.py", tasks)
    marked = [(cell.metadata.get("nbgrader", {}), cell.source) for cell in source.cells]
    return {data["grade_id"]: text for data, text in marked if data.get("solution")}


def copy_course(labs, folder):
    """What an instructor starts from: the sources and the settings, nothing that was made."""
    shutil.copytree(Path(labs) / "instructor", folder / "instructor", dirs_exist_ok=True)
    shutil.copy(LABS / "nbgrader_config.py", folder)


@contextmanager
def nbgrader(folder, labs=LABS, seconds=60):
    """nbgrader's API on a course in ``folder``, apart from this machine's own settings."""
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    copy_course(labs, folder)
    own = {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
    }
    with mock.patch.dict(os.environ, own):
        os.environ.pop("POPCORN_VARIANT", None)
        config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
        config.Execute.timeout = seconds
        config.Exchange.root = str(folder / "exchange")
        yield NbGraderAPI(coursedir=CourseDirectory(config=config), config=config)


@contextmanager
def jupyter_server(folder):
    """A Jupyter server on loopback in a course folder; yields ``ask(path) -> text``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyter", "server", "--allow-root", "--no-browser",
        "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=here",
        "--ServerApp.jpserver_extensions={'nbgrader.server_extensions.formgrader': True}",
    ]  # fmt: skip
    own = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    own["PYTHONPATH"] = str(REPOSITORY)
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=os.environ | own, stderr=log)
    try:
        while not _listens(port):
            with suppress(subprocess.TimeoutExpired):
                server.wait(0.05)  # its end, or another look
                raise AssertionError((folder / "server.log").read_text())

        def ask(path):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/{path}", headers={"Authorization": "token here"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()

        yield ask
    finally:
        server.terminate()
        server.wait(30)


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def build_release(api, lab):
    """The student's notebook as ``nbgrader generate_assignment`` makes it."""
    from popcorn_edu.grading.build import write_source

    course = Path(api.coursedir.root)
    write_source(course / "instructor" / f"{lab}.py", course / "build" / "source" / lab)
    demand(api.generate_assignment(lab))
    return course / "student" / lab / f"{lab}.ipynb"


def hand_in(released, folder, changes):
    nb = nbformat.read(released, as_version=4)
    if callable(changes):
        changes(nb)
    else:
        for name, source in changes.items():
            cell_of(nb, name).source = source
    folder.mkdir(parents=True)
    nbformat.write(nb, folder / released.name)


def cell_of(nb, name):
    """The cell with this grade id."""
    return next(c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)


def demand(result):
    assert result["success"], f"{result.get('error')}\n{result.get('log')}"

"""The course, as nbgrader sees it. Run nbgrader's commands in this folder.

    popcorn-edu labs build                      sources -> build/source and student/
    nbgrader generate_assignment lab05 --force  student/lab05 again, and the gradebook's entry
    build/submitted/ada/lab05/                  put what students hand in here
    nbgrader autograde lab05                    runs it: build/autograded, build/gradebook.db
    nbgrader generate_feedback lab05            build/feedback/ada/lab05/lab05.html

A fresh clone needs the first two, in this order: build/ is not committed, and without --force
nbgrader leaves a student/lab05 that is there already as it is and writes no entry. Repeat both
after an edit of instructor/ or of the tasks.

Each setting below that differs from nbgrader's default is there because the default was seen
to cost a student points or to give some away; popcorn_edu/grading/nbgrader_support.py says how.
"""

import os
import sys
from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbgrader import preprocessors as stock

from popcorn_edu.grading import nbgrader_support as ours
from popcorn_edu.grading.doctor import STUB

c = get_config()  # noqa: F821  (given by the program that reads this file)
folder = Path(__file__).resolve().parent

# Where things are. Only instructor/ and student/ are committed; all else is made, in build/.
c.CourseDirectory.root = str(folder)
c.CourseDirectory.course_id = "popcorn"
c.CourseDirectory.source_directory = "build/source"
c.CourseDirectory.release_directory = "student"
for step in ("submitted", "autograded", "feedback", "solution", "source_with_tests"):
    setattr(c.CourseDirectory, f"{step}_directory", f"build/{step}")
c.CourseDirectory.db_url = f"sqlite:///{folder / 'build' / 'gradebook.db'}"

# nbgrader looks for its helper `alembic` on the PATH; it is beside this Python.
os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")

# What takes a solution's place. Nothing that runs: see "How to write a lab" in grading/build.py.
c.ClearSolutions.code_stub = {"python": STUB}

# Taking a notebook in: copies become ordinary cells, deleted grading cells come back.
c.Autograde.sanitize_preprocessors = [
    stock.ClearOutput,
    ours.DropCopies,
    stock.DeduplicateIds,
    stock.OverwriteKernelspec,
    stock.OverwriteCells,
    stock.CheckCellMetadata,
]
c.OverwriteCells.add_missing_cells = True

# Running it: a warning on stderr is no failure, and a score is a number within its bounds.
c.Autograde.autograde_preprocessors = [
    ours.NameStudent,
    stock.Execute,
    stock.IgnorePattern,
    ours.PlainScores,
    ours.LimitCharacters,
    ClearMetadataPreprocessor,
    stock.LimitOutput,
    stock.SaveAutoGrades,
    stock.AssignLatePenalties,
    stock.CheckCellMetadata,
]
c.Execute.timeout = 60  # seconds for one cell; a loop that never ends costs this once
c.Execute.iopub_timeout = 30  # seconds to wait for a busy machine to send a cell's output
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"[\s\S]"  # any text

# Feedback: hidden tests stay hidden, and a picture's HTML wins over a widget nobody can run.
c.GenerateFeedback.preprocessors = [
    stock.GetGrades,
    ours.HideHiddenTests,
    CSSHTMLHeaderPreprocessor,
    ours.ReadablePage,
]
c.GenerateFeedback.exporter_class = ours.QuietExporter
c.DataTypeFilter.display_data_priority = [
    "text/html",
    "image/svg+xml",
    "image/png",
    "text/markdown",
    "text/latex",
    "application/javascript",
    "text/plain",
]

"""A look at the notebook *file* before it is handed in.

What the student sees lives in the kernel's memory; what the grader runs is the saved file, from
top to bottom, in a fresh kernel. The doctor looks for the places where the two part: cells run
out of order, names that no cell defines any more, graded cells missing, doubled or damaged,
questions not answered, and ``input()``, which waits for ever when nobody is there.

``examine`` is a pure function of the notebook's JSON; it says each problem in a sentence.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.tables import Table

STUB = "# your code here"  # what stands in a student's notebook in place of a solution
TEST = "-test"  # the grading cell of task t1 has the id t1-test
GIVEN = frozenset(dir(builtins)) | {"get_ipython", "display", "In", "Out", "_", "__", "exit"}
MAGIC = re.compile(r"^\s*[%!?]|\?\s*$")


class Checkup(Table):
    """What the doctor found. ``problems`` is a list of sentences, empty if all is well."""

    def __init__(self, lab: str, found: Sequence[tuple[str, list[str]]]) -> None:
        self.problems = [sentence for _, sentences in found for sentence in sentences]
        count = len(self.problems)
        super().__init__(
            f"Doctor, lab {lab}: " + (f"{count} to look at" if count else "all is well"),
            ["ok", "looked for", "found"],
            [
                ["no" if sentences else "yes", name, " ".join(sentences) or "nothing wrong"]
                for name, sentences in found
            ],
            "This is the file as it was last saved. Save, then ask again." if count else "",
        )


def checkup(lab: str, tasks: Sequence[str], path: object = None) -> Checkup:
    """Find the lab's notebook file and examine it. Never raises for what is in the file."""
    try:
        cells = read_cells(Path(path) if path else notebook_path(lab))
        return Checkup(lab, examine(cells, tasks))
    except PopcornError as problem:
        return Checkup(lab, [("the notebook file", [str(problem)])])


def notebook_path(lab: str) -> Path:
    """The file of the notebook this kernel runs."""
    session = os.environ.get("JPY_SESSION_NAME", "")  # set by JupyterLab
    places = [Path(f"lab{lab}.ipynb"), Path(f"{lab}.ipynb")]
    if session.endswith(".ipynb") and "NBGRADER_EXECUTION" not in os.environ:
        places.insert(0, Path(session))
    for place in places:
        if place.is_file():
            return place
    raise PopcornError(
        f"there is no lab{lab}.ipynb in this folder; give its path: lab.doctor('my_copy.ipynb')"
    )


def read_cells(path: Path) -> list[dict]:
    """The cells of a notebook file, reduced to what the doctor looks at."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8-sig"))["cells"]
        return [
            {
                "kind": cell["cell_type"],
                "source": "".join(cell["source"]),
                "count": cell.get("execution_count"),
                **_marks(cell),
                "failed": any(o.get("output_type") == "error" for o in cell.get("outputs", ())),
            }
            for cell in cells
        ]
    except OSError as problem:
        raise PopcornError(f"cannot read {path.name}: {problem.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise PopcornError(f"{path.name} is not a notebook file (it may be cut short)") from None


def _marks(cell: dict) -> dict:
    """The cell's grade id, and whether it is still as it was released, by nbgrader's checksum."""
    data = cell.get("metadata", {}).get("nbgrader", {})
    grade, solution = bool(data.get("grade")), bool(data.get("solution"))
    locked = not solution and (grade or bool(data.get("locked")))
    said = [cell["cell_type"], grade, solution, locked, data.get("grade_id")]
    said += [float(data.get("points") or 0)] if grade else []
    text = "".join(cell["source"]) + "".join(map(str, said))
    seal = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    released = data.get("checksum", "")
    return {"id": data.get("grade_id"), "same": seal == released, "released": bool(released)}


def examine(cells: list[dict], tasks: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each thing looked for, with a sentence for each problem."""
    code = [cell for cell in cells if cell["kind"] == "code"]
    return [
        ("graded cells", list(damaged(cells, tasks))),
        ("answers", list(unanswered(cells, tasks))),
        ("run order", list(out_of_order(code))),
        ("names only in memory", list(undefined(code))),
        ("input()", list(asking(code))),
    ]


def damaged(cells: list[dict], tasks: Sequence[str]) -> Iterator[str]:
    for task in tasks:
        for wanted in (task, task + TEST):
            found = [cell for cell in cells if cell["id"] == wanted]
            if not found:
                yield f"The cell {wanted} is missing; copy it back from a fresh notebook."
            elif len(found) > 1:
                yield f"The cell {wanted} is there {len(found)} times; delete the copies."
            elif found[0]["kind"] != "code":
                yield f"The cell {wanted} is a text cell now; make it a code cell again."
            elif wanted != task and found[0]["released"] and not found[0]["same"]:
                yield f"The cell {wanted} was changed; its edits are undone when it is graded."


def unanswered(cells: list[dict], tasks: Sequence[str]) -> Iterator[str]:
    for cell in cells:
        if cell["id"] in tasks and (cell["same"] or _is_blank(cell["source"])):
            yield f"{cell['id']} is not answered."


def _is_blank(source: str) -> bool:
    """Does some name still end up as ``...``, or as a table with a ``...`` in it?"""
    last = {}
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Assign):
            last |= {ast.unparse(target): node.value for target in node.targets}
        changed = [node.target] if isinstance(node, ast.AugAssign) else getattr(node, "targets", [])
        for target in changed:  # answer |= {...} or answer["a"] = 3: filled in further down
            if isinstance(node, ast.AugAssign) or isinstance(target, ast.Subscript):
                last.pop(ast.unparse(getattr(target, "value", target)), None)
    parts = [part for value in last.values() for part in ast.walk(value)]
    return any(isinstance(part, ast.Constant) and part.value is ... for part in parts)


def out_of_order(code: list[dict]) -> Iterator[str]:
    """Only a file with run numbers can tell; the grader's copy has none. The cells from the one
    that asks the doctor on are left out: they are run again and again, which is as it should be."""
    asked = [n for n, cell in enumerate(code) if ".doctor(" in cell["source"]]
    code = code[: asked[0]] if asked else code
    counts = [(cell["count"], number) for number, cell in enumerate(code, 1) if cell["count"]]
    if not counts:
        return
    if [count for count, _ in counts] != list(range(1, len(counts) + 1)):
        yield "The cells were not run once each from top to bottom: Restart and Run All, then save."
    skipped = [
        str(n)
        for n, cell in enumerate(code, 1)
        if not cell["count"] and cell["source"].strip() and n < counts[-1][1]
    ]
    if skipped:
        yield f"Code cell {', '.join(skipped)} was not run."
    failed = [str(n) for n, cell in enumerate(code, 1) if cell["failed"]]
    if failed:
        yield f"Code cell {', '.join(failed)} ended in an error."


def undefined(code: list[dict]) -> Iterator[str]:
    used, known = {}, set(GIVEN)
    for number, cell in enumerate(code, 1):
        for node in ast.walk(parsed(cell["source"])):
            if isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Load):
                    used.setdefault(node.id, number)
                else:
                    known.add(node.id)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
                known.add(node.name)
            elif isinstance(node, ast.alias):
                known.add((node.asname or node.name).partition(".")[0])
                if node.name == "*":
                    return  # anything may have come in
    for name, number in used.items():
        if name not in known:
            yield f"{name} (code cell {number}) is defined in no cell."


def asking(code: list[dict]) -> Iterator[str]:
    for number, cell in enumerate(code, 1):
        for node in ast.walk(parsed(cell["source"])):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "input":
                yield f"Code cell {number} calls input(); nobody will answer the grader."


def parsed(source: str) -> ast.AST:
    """The cell as Python, without magics; empty if it is no Python."""
    try:
        return ast.parse("\n".join("" if MAGIC.search(s) else s for s in source.split("\n")))
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])

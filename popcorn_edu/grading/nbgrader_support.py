"""What labs/nbgrader_config.py adds to nbgrader: small passes over a notebook.

Each mends one measured trap of nbgrader 0.9.6, so that an unlucky student loses nothing and no
cell can earn more than its points:

    DropCopies       a copied cell keeps its grade id, and the notebook would be refused
    NameStudent      the kernel learns whose work it runs
    PlainScores      full points for any output that is not a number; a failed batch above the max
    LimitCharacters  one endless line of output would be kept whole
    HideHiddenTests  feedback would show hidden tests, and their tracebacks too
    ReadablePage     feedback's style sheet leaves tables no space and cuts long lines
    QuietExporter    feedback asks a server far away for MathJax, which no lab needs
"""

from __future__ import annotations

import math
import os
import re

from nbconvert.exporters import HTMLExporter
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Integer, List, Unicode


class DropCopies(NbGraderPreprocessor):
    """Keep a grade id on the last cell that has it: what ran last is what the student meant.

    nbgrader's own DeduplicateIds leaves an empty entry behind that it then calls too old.
    """

    def preprocess(self, nb, resources):
        seen = set()
        for cell in reversed(nb.cells):
            grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
            if grade_id in seen:
                self.log.warning("A copy of cell %s is treated as an ordinary cell", grade_id)
                del cell.metadata["nbgrader"]
            elif grade_id is not None:
                seen.add(grade_id)
        return nb, resources


class NameStudent(NbGraderPreprocessor):
    """Put the student's id, from the submission's folder, where the kernel will find it."""

    def preprocess(self, nb, resources):
        os.environ["POPCORN_STUDENT"] = resources["nbgrader"]["student"]
        return nb, resources


class PlainScores(NbGraderPreprocessor):
    """Make the result of each grading cell a number between 0 and its points, or 0."""

    NUMPY = re.compile(r"^np\.float\d+\((.*)\)$")

    def preprocess_cell(self, cell, resources, index):
        graded = cell.cell_type == "code" and is_grade(cell) and not is_solution(cell)
        if graded and not any(o.output_type == "error" for o in cell.outputs):
            results = [o for o in cell.outputs if o.output_type == "execute_result"]
            text = results[-1].data.get("text/plain", "") if results else ""
            score = self.plain(text, float(cell.metadata.nbgrader["points"]))
            if str(score) != text:
                self.log.warning("%s: %r counts %s", cell.metadata.nbgrader.grade_id, text, score)
            others = [o for o in cell.outputs if o.output_type != "execute_result"]
            plain = new_output("execute_result", {"text/plain": str(score)})
            cell.outputs = [*others, plain]
        return cell, resources

    def plain(self, text: str, most: float) -> float:
        try:
            score = float(self.NUMPY.sub(r"\1", text.strip()))
        except ValueError:
            return 0.0
        return min(max(score, 0.0), most) if math.isfinite(score) else 0.0


class LimitCharacters(NbGraderPreprocessor):
    """Cut printed text, and drop pages of HTML, that are longer than anybody would read."""

    max_characters = Integer(20_000, help="most characters of one printed output").tag(config=True)
    max_html = Integer(4_000_000, help="most characters of one HTML output").tag(config=True)

    def preprocess_cell(self, cell, resources, index):
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = self.cut(output.text, self.max_characters)
            elif output.output_type == "error":
                output.evalue = self.cut(output.evalue, self.max_characters)
                output.traceback = [self.cut(t, self.max_characters) for t in output.traceback]
            else:
                for kind, body in output.data.items():
                    rich = kind not in ("text/plain", "text/markdown")
                    most = self.max_html if rich else self.max_characters
                    if isinstance(body, str) and len(body) > most:
                        output.data[kind] = "(too long to keep)" if rich else self.cut(body, most)
        return cell, resources

    @staticmethod
    def cut(text: str, most: int) -> str:
        return text if len(text) <= most else text[:most] + "\n... (cut here)"


class HideHiddenTests(NbGraderPreprocessor):
    """In the feedback page, say that there were hidden tests, not what they were.

    The traceback of a failed one repeats its source, so the errors of such a cell go as well.
    """

    # nbconvert sets this for every preprocessor; a trait without config draws a warning
    display_data_priority = List(["text/html", "text/plain"]).tag(config=True)
    instead = Unicode("# (hidden tests ran here)").tag(config=True)
    failed = Unicode("A hidden test did not hold.").tag(config=True)
    region = re.compile(r"^[^\n]*BEGIN HIDDEN TESTS.*?(END HIDDEN TESTS[^\n]*|\Z)", re.S | re.M)

    def preprocess_cell(self, cell, resources, index):
        source, hidden = self.region.subn(self.instead, cell.source)
        if hidden:
            cell.source = source
            if cell.cell_type == "code":
                cell.outputs = [
                    new_output("stream", text=self.failed) if o.output_type == "error" else o
                    for o in cell.outputs
                ]
        return cell, resources


class ReadablePage(NbGraderPreprocessor):
    """Add a few lines of style to the feedback page. Comes after CSSHTMLHeaderPreprocessor."""

    display_data_priority = List(["text/html", "text/plain"]).tag(config=True)
    style = Unicode(
        "td,th{padding:4px 10px} summary{display:list-item;cursor:pointer} "
        "pre{white-space:pre-wrap}"
    ).tag(config=True)

    def preprocess(self, nb, resources):
        resources["inlining"]["css"].append(self.style)
        return nb, resources


class QuietExporter(HTMLExporter):
    """A feedback page that asks nobody for anything. nbgrader's template takes MathJax's default
    address, so the setting HTMLExporter.mathjax_url does not reach it."""

    mathjax = re.compile(r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", re.S)

    def from_notebook_node(self, nb, resources=None, **kw):
        page, resources = super().from_notebook_node(nb, resources, **kw)
        return self.mathjax.sub("", page), resources

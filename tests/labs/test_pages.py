"""The pages beside the labs: validation and calibration run from top to bottom, quietly."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PAGES = sorted((Path(__file__).resolve().parents[2] / "labs" / "pages").rglob("*.ipynb"))


def test_there_are_two_pages():
    """One says what is validated, the other measures."""
    assert [page.stem for page in PAGES] == ["calibration", "validation"]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_quietly(page, tmp_path):
    """Every cell runs, none writes to stderr, and the last says something."""
    notebook = nbformat.read(page, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", output
    assert code[-1].outputs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_kept_without_outputs(page):
    """What a run shows is made on the reader's machine."""
    notebook = nbformat.read(page, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)

"""The labs as a student sees them: opened in JupyterLab, run from top to bottom, by keyboard."""

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LABS = sorted(path.stem for path in (REPOSITORY / "labs" / "instructor").glob("*.py"))
ERRORS = '[data-mime-type="application/vnd.jupyter.error"]'
STDERR = '[data-mime-type="application/vnd.jupyter.stderr"]'


@pytest.fixture
def opened(lab, lab_page):
    def show(name: str, solved: bool):
        folder = lab.folder / ("solved" if solved else "student") / name
        shutil.rmtree(folder, ignore_errors=True)
        if solved:
            from popcorn_edu.grading.build import write_source

            write_source(REPOSITORY / "labs" / "instructor" / f"{name}.py", folder)
        else:
            shutil.copytree(REPOSITORY / "labs" / "student" / name, folder)
        lab.open(lab_page, f"{folder.relative_to(lab.folder).as_posix()}/{name}.ipynb")
        lab.run_all(lab_page)
        return lab_page

    return show


@pytest.mark.parametrize("solved", [False, True], ids=["blank", "solved"])
@pytest.mark.parametrize("name", LABS)
def test_a_lab_runs_from_top_to_bottom(opened, name, solved):
    """Blank or solved, no cell stops with an error, none complains, nothing asks the network."""
    page = opened(name, solved)
    assert page.locator(ERRORS).all_text_contents() == []
    assert page.locator(STDERR).all_text_contents() == []
    assert page.requested == [] and page.problems == []


@pytest.mark.parametrize("name", LABS)
def test_the_labs_first_player_steps_and_forks_by_keyboard(opened, name):
    """Right steps, Left steps back, f and Enter fork: without a mouse, in the lab itself."""
    page = opened(name, solved=False)
    page.wait_for_function("document.querySelector('.pk-player')?.popcorn")
    page.focus(".pk-player")
    before = page.evaluate("document.querySelector('.pk-player').popcorn.n")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.evaluate("document.querySelector('.pk-player').popcorn.n") == before + 2
    page.keyboard.press("f")
    page.get_by_role("dialog", name="Fork here").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.matches('.pk-fork .pk-player')")
    title = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert title.startswith("Fork at record")

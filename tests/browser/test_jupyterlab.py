"""The player in a real JupyterLab: forked by keyboard, reopened, untrusted, exported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CELLS = (
    "from popcorn_edu import scenarios\nrun = scenarios.fan_in(kernels=3, messages=5)",
    "run.play(at=12)",
)
FIRST, FORK = ".pk-player >> nth=0", ".pk-fork .pk-player"


def n_of(page, selector: str = ".pk-player") -> int:
    return page.evaluate("s => document.querySelector(s).popcorn.n", selector)


def ready(page, selector: str = ".pk-player") -> None:
    page.wait_for_function("s => document.querySelector(s)?.popcorn", arg=selector)


def focused_player(page) -> str:
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


@pytest.fixture(scope="module")
def opened(lab):
    return lab.notebook("player.ipynb", *CELLS)


@pytest.fixture
def notebook(lab, lab_page, opened):
    lab.open(lab_page, opened.name)
    lab.run_all(lab_page)
    ready(lab_page)
    return lab_page


def test_a_fork_by_keyboard_alone(notebook):
    """f, Enter: the kernel forks the run at this record and its player appears below, focused."""
    page = notebook
    page.focus(".pk-player")
    page.keyboard.press("f")
    page.get_by_role("dialog", name="Fork here").wait_for()
    page.keyboard.press("Enter")
    ready(page, FORK)
    page.wait_for_function("document.activeElement.matches('.pk-fork .pk-player')")
    assert focused_player(page).startswith("Fork at record 12: it never happens that")
    assert n_of(page, FORK) == 13
    page.keyboard.press("ArrowRight")
    assert (n_of(page, FORK), n_of(page)) == (14, 13)
    assert page.problems == []


def test_a_fork_can_be_forked_with_a_setting(notebook):
    """The fork's own player forks again; the line of Python tells the whole way."""
    page = notebook
    page.focus(".pk-player")
    page.keyboard.press("f")
    page.get_by_role("dialog", name="Fork here").wait_for()
    page.keyboard.press("Enter")
    ready(page, FORK)
    page.keyboard.press("f")
    dialog = page.locator(FORK).get_by_role("dialog", name="Fork here")
    dialog.wait_for()
    dialog.get_by_label("Setting", exact=True).select_option("look_again")
    assert "run.fork(12, drop=True).fork(12, look_again=False).play()" in dialog.text_content()
    dialog.get_by_role("button", name="Fork and show it below").press("Enter")
    ready(page, ".pk-fork + .pk-fork .pk-player, .pk-fork .pk-fork .pk-player")


def test_saving_stays_the_notebooks_own_key(notebook, opened):
    """Ctrl S in the player saves the notebook: no work is lost because a picture had the focus."""
    page = notebook
    page.focus(".pk-player")
    with page.expect_response(
        lambda answer: answer.request.method == "PUT" and opened.name in answer.url
    ) as saved:
        page.keyboard.press("Control+s")
    assert saved.value.ok


def test_the_notebooks_own_keys_stay_out(notebook):
    """Keys that JupyterLab would take (cut, add, delete, edit a cell) are the player's here."""
    page = notebook
    page.focus(".pk-player")
    for key in ["b", "a", "x", "c", "v", "d", "d", "m", "Enter", "ArrowDown", "Shift+ArrowDown"]:
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(CELLS)
    assert focused_player(page).startswith("fan_in")
    page.keyboard.press("ArrowRight")
    assert n_of(page) == 14


def test_a_run_that_is_gone_is_said_in_a_sentence(notebook):
    """After the run was deleted in Python, the fork says to run the cell again."""
    page = notebook
    page.evaluate("document.querySelector('.pk-player').player.data.live.run = 'gone'")
    page.focus(".pk-player")
    page.keyboard.press("f")
    dialog = page.get_by_role("dialog", name="Fork here")
    dialog.wait_for()
    page.keyboard.press("Enter")
    dialog.get_by_text("This kernel no longer has that run. Run the cell again").wait_for()


def test_a_kernel_that_is_gone_is_said_in_a_sentence(notebook):
    """Where the kernel itself is gone, the fork says so and changes nothing."""
    page = notebook
    page.evaluate("document.querySelector('.pk-player').player.data.live.kernel = 'no-such'")
    page.focus(".pk-player")
    page.keyboard.press("f")
    dialog = page.get_by_role("dialog", name="Fork here")
    dialog.wait_for()
    page.keyboard.press("Enter")
    dialog.get_by_text("The kernel that made this run is gone").wait_for()
    assert page.locator(".pk-fork").count() == 0


def test_the_page_asks_only_its_own_server(notebook):
    """Neither JupyterLab nor the player asks for anything from another address."""
    page = notebook
    page.focus(".pk-player")
    page.keyboard.press("End")
    assert page.requested == []


@pytest.fixture(scope="module")
def executed(lab, opened):
    """The same notebook, run without a browser, as a file somebody may be sent."""
    target = lab.folder / "executed.ipynb"
    subprocess.run(
        [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute",
         str(opened), "--output", target.name],
        check=True, capture_output=True, cwd=lab.folder, env=lab.environment,
    )  # fmt: skip
    return target


def test_an_untrusted_notebook_shows_the_table(lab, lab_page, executed):
    """Somebody else's notebook, not trusted: no script runs, and the table of steps is there."""
    lab.open(lab_page, executed.name)
    summary = lab_page.get_by_text("The run as a table")
    summary.click()
    lab_page.get_by_role("cell", name="kernel 0 leaves the softirq").first.wait_for()
    assert lab_page.evaluate("document.querySelector('.pk-player')?.shadowRoot ?? null") is None


def test_the_cell_has_one_html_output_and_no_stderr(executed):
    """run.play() leaves one output: text/html with its text/plain, and nothing on stderr."""
    cell = json.loads(executed.read_text(encoding="utf-8"))["cells"][1]
    (output,) = cell["outputs"]
    assert output["output_type"] == "execute_result"
    assert set(output["data"]) == {"text/html", "text/plain"}


@pytest.mark.parametrize("template", ["lab", "classic", "basic"])
def test_an_exported_page_plays_offline(lab, page, executed, template):
    """nbconvert's HTML, opened from the disk with no network, steps like the live one."""
    target = lab.folder / f"exported-{template}.html"
    subprocess.run(
        [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", "--template", template,
         str(executed), "--output", target.name],
        check=True, capture_output=True, cwd=lab.folder, env=lab.environment,
    )  # fmt: skip
    page.goto(target.as_uri(), wait_until="commit")
    ready(page)
    page.focus(".pk-player")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert n_of(page) == 23
    assert not any("popcorn" in url for url in page.requested)


def test_nbgraders_feedback_plays_offline(lab, page, executed):
    """In a feedback page of nbgrader's own template, the player steps with no network."""
    import nbformat
    import nbgrader
    from nbconvert.exporters import HTMLExporter
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor

    home = Path(nbgrader.__file__).parent / "server_extensions/formgrader"
    exporter = HTMLExporter(
        template_name="feedback",
        extra_template_basedirs=[str(home / "templates")],
        extra_template_paths=[str(home / "static/node_modules/bootstrap/dist/css")],
        preprocessors=[CSSHTMLHeaderPreprocessor],
    )
    scores = {"score": 1, "max_score": 2, "late_penalty": 0, "notebook": "player"}
    book = nbformat.read(executed, as_version=4)
    html, _ = exporter.from_notebook_node(book, resources={"nbgrader": scores})
    target = lab.folder / "feedback.html"
    target.write_text(html, encoding="utf-8")
    page.goto(target.as_uri(), wait_until="commit")
    ready(page)
    page.focus(".pk-player")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert n_of(page) == 23
    assert not any("popcorn" in url for url in page.requested)


def test_a_fault_of_the_deck_is_injected_twice(notebook):
    """The dialog offers what is possible at this record; the fork's own player offers it again."""
    page = notebook
    page.focus(".pk-player")
    page.keyboard.press("f")
    dialog = page.get_by_role("dialog", name="Fork here")
    dialog.wait_for()
    fault = dialog.get_by_label("Fault", exact=True)
    offered = fault.locator("option").all_text_contents()
    assert "kernel panic" in offered and "lost device interrupt" not in offered
    fault.select_option("kernel panic")
    assert 'run.inject("kernel panic", at=12).play()' in dialog.text_content()
    assert "the others run on" in dialog.text_content()
    dialog.get_by_role("button", name="Fork and show it below").press("Enter")
    ready(page, FORK)
    page.wait_for_function("document.activeElement.matches('.pk-fork .pk-player')")
    assert focused_player(page).startswith("Fork at record 12: kernel panic: a kernel stops")
    assert "panics: a fault" in page.locator(FORK).text_content()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("f")
    again = page.locator(FORK).get_by_role("dialog", name="Fork here")
    again.wait_for()
    again.get_by_label("Fault", exact=True).select_option("spurious interrupt")
    assert ').inject("spurious interrupt", at=13).play()' in again.text_content()
    again.get_by_role("button", name="Fork and show it below").press("Enter")
    ready(page, ".pk-fork + .pk-fork .pk-player, .pk-fork .pk-fork .pk-player")
    assert page.problems == []

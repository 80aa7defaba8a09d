"""The panel in a real JupyterLab, by keyboard; and the charts in every place a notebook goes."""

from pathlib import Path

import nbformat
import pytest

from popcorn_edu import scenarios
from popcorn_edu.readers import figures

CELLS = (
    "import popcorn_edu as pk\npk.panel(kernels=3, messages=3, gap_ns=1_000, seed=3)",
    "pk.figures.show(pk.scenarios.ping(), names=['alone'])",
)
DRAWN = "document.querySelectorAll('.pk-panel .pk-charts[data-drawn=\"3\"]').length === 1"
FOCUSED = "document.activeElement.textContent"


@pytest.fixture(scope="module")
def session(browser, lab):
    """One notebook with a panel, opened once: the tests below are one person's afternoon."""
    lab.notebook("panel.ipynb", *CELLS)
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.requested, page.problems, page.errors = [], [], []
    inside = (lab.url, lab.url.replace("http", "ws", 1), "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(inside) or page.requested.append(r.url))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
    lab.open(page, "panel.ipynb")
    lab.run_all(page)
    page.locator(".pk-panel").wait_for()
    yield page
    context.close()


def press_run(page) -> None:
    """Press Run with the keyboard, and wait until the new run's charts are drawn."""
    panel = page.locator(".pk-panel")
    before = panel.locator(".pk-message").text_content()
    page.evaluate("document.querySelector('.pk-panel .pk-charts[data-drawn=\"3\"]')?.remove()")
    panel.get_by_role("button", name="Run", exact=True).press("Enter")
    page.wait_for_function(
        "before => { const now = document.querySelector('.pk-message').textContent;"
        " return now !== before && now.includes('is kept'); }",
        arg=before,
    )
    page.wait_for_function(DRAWN)


def test_change_the_seed_and_run_twice_by_keyboard(session):
    """Run; type another seed; Tab to Run; run: the two runs are compared and the charts drawn."""
    page, panel = session, session.locator(".pk-panel")
    press_run(page)
    seed = panel.get_by_label("seed", exact=True)
    seed.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("18")
    for _ in range(4):  # schedule seed, look again, what the settings mean, Run
        page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "Run"
    panel.get_by_text("seed=18").wait_for()
    page.keyboard.press("Enter")
    panel.get_by_text("run 2 is kept").wait_for()
    page.wait_for_function(DRAWN)
    panel.get_by_text("B differs from A in seed (3 → 18).").wait_for()
    assert [text[:1] for text in panel.locator(".pk-compare thead th").all_text_contents()] == [
        "A",
        "B",
        "f",
    ]
    canvases = panel.locator(".pk-canvas canvas")
    assert canvases.count() >= 3
    painted = """canvases => canvases.filter(canvas => canvas.width > 100 && canvas.getContext("2d")
        .getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte)).length"""
    assert canvases.evaluate_all(painted) >= 3
    assert panel.locator(".pk-player").count() == 1


def test_letters_do_not_reach_the_notebook(session):
    """Keys pressed on a button or a list are not commands for the cells."""
    page, panel = session, session.locator(".pk-panel")
    for part in (
        panel.get_by_role("button", name="Run", exact=True),
        panel.get_by_label("B").first,
    ):
        part.focus()
        for key in ("b", "a", "x", "d", "d"):
            page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(CELLS)


def test_a_broken_rule_leads_into_the_player(session):
    """Without the second look a message is lost; its button opens the player there, focused."""
    page, panel = session, session.locator(".pk-panel")
    panel.get_by_label("look again").press("Space")
    panel.get_by_text("look_again=False)").wait_for()
    press_run(page)
    panel.get_by_role("button", name="B: show record").first.press("Enter")
    page.wait_for_function("document.activeElement.matches('.pk-panel .pk-player')")
    shown = page.evaluate("document.activeElement.popcorn.n")
    button = panel.get_by_role("button", name="B: show record").first
    assert button.text_content() == f"B: show record {shown - 1}"


def test_a_fork_is_compared_with_its_origin(session):
    """The fork row, by keyboard: the run without one record stands beside the run with it."""
    page, panel = session, session.locator(".pk-panel")
    record = panel.get_by_label("fork at record")
    record.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("10")
    page.keyboard.press("Enter")
    panel.get_by_text("Record 10 of run").wait_for()
    panel.get_by_role("button", name="Fork", exact=True).press("Enter")
    panel.get_by_text("B is A forked at record 10").wait_for()


def test_a_mistake_is_a_sentence(session):
    """A setting that cannot be is answered in the panel, and is a live region's text."""
    page, panel = session, session.locator(".pk-panel")
    schedule = panel.get_by_label("schedule seed")
    schedule.fill("soon")
    panel.get_by_role("button", name="Run", exact=True).press("Enter")
    panel.get_by_role("status").get_by_text("expected a whole number, or nothing").wait_for()
    schedule.fill("")
    press_run(page)


def test_many_runs_leave_no_charts_behind(session):
    """Run after run the page holds the charts that it shows: three of the panel, three below it."""
    for _ in range(3):
        press_run(session)
    session.wait_for_function("popcornCharts.drawn.filter(one => one.views.length).length === 2")
    assert session.evaluate("Bokeh.documents.length") == 6


def test_axe_finds_nothing_serious(session):
    """axe-core reports no serious or critical problem in the panel and its charts."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(session, context=".pk-panel").response["violations"]
    serious = [
        (item["id"], [node["html"][:90] for node in item["nodes"]])
        for item in found
        if item["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_nothing_was_asked_for_and_nothing_went_wrong(session):
    """No request to another address, no error on the page or its console."""
    assert (session.requested, session.problems, session.errors) == ([], [], [])


# -- charts where no kernel is --------------------------------------------------------------------


@pytest.fixture(scope="module")
def book():
    """A notebook with two saved charts."""
    runs = scenarios.fan_in(kernels=3, messages=5), scenarios.fan_in(kernels=4, messages=5)
    charts = figures.show(*runs)
    data = {"text/html": charts.html(), "text/plain": repr(charts)}
    output = nbformat.v4.new_output("execute_result", data, execution_count=1)
    cell = nbformat.v4.new_code_cell("figures.show(a, b)", outputs=[output], execution_count=1)
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.v4.new_notebook(cells=[cell], metadata=python)


def exported(book, **options) -> str:
    from nbconvert.exporters import HTMLExporter

    scores = {"score": 1, "max_score": 2, "late_penalty": 0, "notebook": "charts"}
    html, _ = HTMLExporter(**options).from_notebook_node(book, resources={"nbgrader": scores})
    return html


def feedback_options() -> dict:
    """nbgrader's own feedback page, which has no jQuery."""
    import nbgrader
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor

    home = Path(nbgrader.__file__).parent / "server_extensions/formgrader"
    return {
        "template_name": "feedback",
        "extra_template_basedirs": [str(home / "templates")],
        "extra_template_paths": [str(home / "static/node_modules/bootstrap/dist/css")],
        "preprocessors": [CSSHTMLHeaderPreprocessor],
    }


@pytest.mark.parametrize("place", ["lab", "classic", "feedback"])
def test_charts_are_drawn_offline(book, page, tmp_path, place):
    """In nbconvert's pages and in nbgrader's feedback, from the disk, with no network."""
    options = feedback_options() if place == "feedback" else {"template_name": place}
    target = tmp_path / "charts.html"
    target.write_text(exported(book, **options), encoding="utf-8")
    page.goto(target.as_uri(), wait_until="commit")
    page.wait_for_function("document.querySelector('.pk-charts[data-drawn=\"3\"]')")
    assert page.locator(".pk-canvas canvas").count() >= 3
    assert not any("bokeh" in url for url in page.requested)


def test_a_browser_that_cannot_draw_shows_the_tables(book, page, tmp_path):
    """Where the library cannot be unpacked, each chart says so and its table stays."""
    target = tmp_path / "charts.html"
    target.write_text(exported(book, template_name="basic"), encoding="utf-8")
    page.add_init_script("delete window.DecompressionStream")
    page.goto(target.as_uri(), wait_until="commit")
    page.get_by_text("The chart cannot be drawn in this browser").first.wait_for()
    page.get_by_text("Message latency, as a table").click()
    page.get_by_role("columnheader", name="p99 (ns)").wait_for()


def test_an_untrusted_notebook_shows_the_tables(book, lab, lab_page):
    """Somebody else's notebook: no script runs, and sentences and tables are there."""
    nbformat.write(book, lab.folder / "charts.ipynb")
    lab.open(lab_page, "charts.ipynb")
    lab_page.get_by_text("Interrupts per message, as a table").click()
    lab_page.get_by_role("columnheader", name="IPIs sent").wait_for()
    assert lab_page.evaluate("window.popcornCharts ?? null") is None

"""The plan view in a real JupyterLab, by keyboard; and the pictures where no Python is."""

import os
from pathlib import Path

import nbformat
import pytest

from popcorn_edu.model.partition import Partition
from popcorn_edu.readers import plans

CELLS = (
    "import popcorn_edu as pk\nview = pk.Partition.build('h8qg6-64').show()\nview",
    "print(view.plan.kernels[2].cpus)",
)
STATUS = ".pk-plans [role=status]"


def shot(page, name: str) -> None:
    """A picture for people, where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def session(browser, lab):
    """One notebook with a plan view, opened once: the tests below are one person's afternoon."""
    lab.notebook("plans.ipynb", *CELLS)
    context = browser.new_context(viewport={"width": 1300, "height": 4000})
    page = context.new_page()
    page.set_default_timeout(90_000)
    page.requested, page.problems, page.errors = [], [], []
    inside = (lab.url, lab.url.replace("http", "ws", 1), "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(inside) or page.requested.append(r.url))
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
    lab.open(page, "plans.ipynb")
    lab.run_all(page)
    page.wait_for_function("document.querySelector('.pk-plans')?.popcornPlan")
    yield page
    context.close()


def says(page, text: str) -> None:
    page.locator(STATUS).get_by_text(text).first.wait_for()


def focused(page) -> str:
    return page.evaluate(
        "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
    )


def test_the_picture_makes_room_for_the_widget(session):
    """While Python answers there is one plan on the page, not two."""
    shot(session, "plans")
    assert session.locator(".pk-plans").count() == 1
    assert session.locator(".pk-plan-static:visible").count() == 0


def test_a_cpu_is_given_by_keyboard(session):
    """Tab to the CPUs, arrow keys, Enter: the CPU changes its kernel, and the focus stays."""
    page = session
    page.get_by_label("Chosen kernel", exact=True).select_option("2")
    says(page, "Kernel 2 is chosen")
    page.locator(".pk-plans [data-roving=cpus] [tabindex='0']").focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    assert focused(page) == "CPU 9, node 1, kernel 1"
    page.keyboard.press("Enter")
    says(page, "CPU 9 to kernel 2. No problems.")
    page.wait_for_function(
        "document.activeElement.getAttribute('aria-label') === 'CPU 9, node 1, kernel 2'"
    )
    page.keyboard.press("]")
    says(page, "Kernel 3 is chosen")
    page.keyboard.press("[")
    says(page, "Kernel 2 is chosen")
    shot(page, "plans-cpu")


def test_a_cpu_list_is_typed(session):
    """A list replaces a kernel's CPUs; every view follows, and problems are counted."""
    page = session
    field = page.get_by_label("CPUs of kernel 3")
    field.fill("24-30")
    field.press("Enter")
    says(page, "Kernel 3 has CPUs 24-30. 1 problem.")
    page.locator(".pk-plans .pk-wrong").get_by_text("CPU 31 is in no kernel").wait_for()
    assert "present_mask" not in page.locator(STATUS).text_content()
    page.get_by_role("button", name="Undo").press("Enter")
    says(page, "Undone. No problems.")
    assert focused(page) == "Undo"


def test_a_mistake_is_a_sentence(session):
    """What cannot be read is answered, changes nothing, and the words stay in the field."""
    page = session
    field = page.get_by_label("CPUs of kernel 3")
    field.fill("24-")
    field.press("Enter")
    says(page, "'24-' in the list of CPUs '24-'")
    field.fill("24-31")
    field.press("Enter")
    says(page, "Nothing is different.")


def test_memory_by_keyboard(session):
    """The bar zooms with + and 0, ranges are typed, and an address is asked for."""
    page = session
    page.locator(".pk-plans [data-roving=memory] [tabindex='0']").focus()
    page.keyboard.press("+")
    says(page, "The bar shows")
    page.keyboard.press("0")
    says(page, "The bar shows [0x0-")
    page.get_by_role("button", name="The low part").press("Enter")
    says(page, "[0x0-0xffffff], 16 MiB")
    shot(page, "plans-low")
    ask = page.get_by_label("Whose is this address?").last
    ask.fill("0x92000")
    ask.press("Enter")
    says(page, "0x92000 is kernel 0's: trampoline")
    field = page.get_by_label("Ranges of kernel 2")
    field.fill("16G@40G")
    field.press("Enter")
    says(page, "Kernel 2 has 16 GiB.")
    page.locator(".pk-plans .pk-wrong").get_by_text("both have").first.wait_for()
    page.get_by_role("button", name="Undo").press("Enter")
    says(page, "Undone. No problems.")
    page.get_by_role("button", name="The whole bar").press("Enter")


def test_a_device_changes_its_owner(session):
    """A list beside each device names its owner; the blacklists and the problems follow."""
    page = session
    owner = page.get_by_label("Owner of 0000:02:00.0")
    owner.select_option("1")
    says(page, "0000:02:00.0 to kernel 1.")
    page.locator(".pk-plans .pk-wrong").get_by_text("has the same id").first.wait_for()
    page.get_by_label("blacklists name slots").press("Space")
    says(page, "Blacklists name slots")
    shot(page, "plans-devices")
    for _ in range(2):
        page.get_by_role("button", name="Undo").press("Enter")
        says(page, "Undone.")


def test_a_line_is_read_while_it_is_typed(session):
    """Every letter is answered below; the caret stays; a button gives the kernel what it says."""
    page = session
    page.get_by_label("Chosen kernel", exact=True).select_option("4")
    says(page, "Kernel 4 is chosen")
    field = page.get_by_label("Line of kernel 4")
    field.focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("mklinux present_mask=32-33 memmap=1G@70G memmap=71664M$16M mem=71")
    says(page, "With this line the kernel would not come up")
    page.keyboard.type("G")
    says(page, "This line: CPUs 32-33")
    page.locator(".pk-block-line-result").get_by_text("CPUs 32-33 are present").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    shot(page, "plans-line")
    page.get_by_role("button", name="Give kernel 4 what this line says").press("Enter")
    says(page, "Kernel 4 has what that line gives it.")
    assert page.get_by_label("CPUs of kernel 4").input_value() == "32-33"
    page.get_by_role("button", name="Undo").press("Enter")
    says(page, "Undone. No problems.")
    tick = page.get_by_label("noapic")
    tick.press("Space")
    says(page, "noapic is on kernel 4's line.")
    assert "noapic" in page.get_by_label("Line of kernel 4").input_value()
    page.get_by_role("button", name="Undo").press("Enter")
    says(page, "Undone. No problems.")


def test_a_plan_is_built_anew(session):
    """Policies in a fold-out, by keyboard; it stays open while Python writes."""
    page = session
    page.get_by_text("Build it anew from policies").press("Enter")
    page.get_by_label("CPU policy").select_option("per package")
    page.get_by_role("button", name="Build", exact=True).press("Enter")
    says(page, "Built anew: 4 kernels.")
    assert page.get_by_label("CPU policy").is_visible()
    page.get_by_role("button", name="Undo").press("Enter")
    says(page, "Undone. No problems.")


def test_dragging_gives_all_cpus_on_the_way(session):
    """A pull over CPUs 16 to 18 gives them to the chosen kernel in one step."""
    page = session
    page.get_by_label("Chosen kernel", exact=True).select_option("5")
    says(page, "Kernel 5 is chosen")
    boxes = [page.locator(f".pk-plans [data-cpu='{cpu}']").bounding_box() for cpu in (16, 17, 18)]
    for at, box in enumerate(boxes):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
        if at == 0:
            page.mouse.down()
    page.mouse.up()
    says(page, "CPUs 16-18 to kernel 5.")
    page.get_by_role("button", name="Undo").press("Enter")


def test_no_action_is_lost(session):
    """Keys that come faster than Python answers are done one after the other."""
    page = session
    page.get_by_label("Chosen kernel", exact=True).select_option("0")
    says(page, "Kernel 0 (primary) is chosen")
    page.locator(".pk-plans [data-cpu='24']").focus()
    for _ in range(5):
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
    says(page, "CPU 28 to kernel 0.")
    assert page.get_by_label("CPUs of kernel 0").input_value() == "0-7,24-28"
    for _ in range(5):
        page.get_by_role("button", name="Undo").press("Enter")
    page.wait_for_function(
        "document.querySelector('[aria-label=\"CPUs of kernel 0\"]').value === '0-7'"
    )


def test_letters_do_not_reach_the_notebook(session):
    """Keys pressed in the view are not commands for the cells."""
    page = session
    page.get_by_role("button", name="Undo").focus()
    for key in ("b", "a", "x", "d", "d"):
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == len(CELLS)


def test_a_cell_reads_the_plan(session, lab):
    """What was done on the page is a value in Python."""
    page = session
    page.locator(".jp-Cell").last.click()
    page.keyboard.press("Control+Enter")
    page.locator(".jp-Cell").last.get_by_text("(9, 16, 17, 18, 19, 20, 21, 22, 23)").wait_for()


def test_axe_finds_nothing_serious(session):
    """axe-core reports no serious or critical problem in the view."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(session, context=".pk-plans").response["violations"]
    serious = [
        (item["id"], [node["html"][:90] for node in item["nodes"]])
        for item in found
        if item["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_nothing_was_asked_for_and_nothing_went_wrong(session):
    """No request to another address, no error on the page or its console."""
    assert (session.requested, session.problems, session.errors) == ([], [], [])


# -- where no Python is ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def book():
    """A notebook with a saved plan view: the picture, and a widget that nobody can show."""
    shown = plans.view(Partition.build("h8qg6-64"))
    data = {"text/html": shown.static(), "text/plain": str(shown.plan)}
    outputs = [nbformat.v4.new_output("display_data", data)]
    cell = nbformat.v4.new_code_cell("plan.show()", outputs=outputs, execution_count=1)
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.v4.new_notebook(cells=[cell], metadata=python)


def feedback_options() -> dict:
    """nbgrader's own feedback page."""
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
def test_a_saved_page_has_pictures_and_tables(book, page, tmp_path, place):
    """In nbconvert's pages and in nbgrader's feedback, from the disk, with no network."""
    from nbconvert.exporters import HTMLExporter

    options = feedback_options() if place == "feedback" else {"template_name": place}
    scores = {"score": 1, "max_score": 2, "late_penalty": 0, "notebook": "plans"}
    html, _ = HTMLExporter(**options).from_notebook_node(book, resources={"nbgrader": scores})
    target = tmp_path / "plans.html"
    target.write_text(html, encoding="utf-8")
    page.goto(target.as_uri(), wait_until="commit")
    page.locator(".pk-plan-static svg").first.wait_for()
    shot(page, f"plans-{place}")
    assert page.locator(".pk-plan-static svg:visible").count() == 6
    assert page.locator(".pk-plan-static table:visible").count() == 8
    width = page.locator(".pk-plan-static svg").first.bounding_box()["width"]
    assert width > 500


def test_an_untrusted_notebook_keeps_pictures_and_tables(lab, lab_page):
    """JupyterLab takes scripts and styles from a notebook it does not know: the images stay."""
    shown = plans.view(Partition.build("h8qg6-64"))
    data = {"text/html": shown.static(), "text/plain": str(shown.plan)}
    output = nbformat.v4.new_output("display_data", data)
    cell = nbformat.v4.new_code_cell("plan.show()", outputs=[output], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), lab.folder / "untrusted.ipynb")
    lab.open(lab_page, "untrusted.ipynb")
    lab_page.get_by_text("Which CPUs form which kernel").wait_for()
    shot(lab_page, "plans-untrusted")
    assert lab_page.locator(".jp-OutputArea table").count() == 8
    images = lab_page.locator(".jp-OutputArea img.pk-image")
    wide = "all => all.filter((one) => one.complete && one.naturalWidth && one.width > 500).length"
    drawn = images.evaluate_all(wide)
    assert images.count() == drawn == 6

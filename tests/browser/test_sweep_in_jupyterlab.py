"""A sweep's chart in a real JupyterLab: a click on a point chooses it, and its run opens."""

import pytest

CELLS = (
    "import popcorn_edu as pk",
    "swept = pk.sweep('fan_in', gap_ns=[300, 3_000, 9_000], kernels=3, messages=4, keep=False)",
    "swept.plot(x='gap_ns', y='p99_ns')",
)


@pytest.fixture
def shown(lab, lab_page):
    lab.notebook("sweep.ipynb", *CELLS)
    lab.open(lab_page, "sweep.ipynb")
    lab.run_all(lab_page)
    lab_page.get_by_role("button", name="Open its run").wait_for()
    lab_page.locator(".pk-charts canvas").first.wait_for()
    return lab_page


def chosen(page) -> str:
    """The chosen point, as the list words it (with spaces that do not break)."""
    list_of_points = "document.querySelector('[class*=pk-sweep-] select')"
    return page.evaluate(f"{list_of_points}.selectedOptions[0].text").replace("\xa0", " ")


def test_a_point_opens_its_run(shown):
    """Choose the second point from the list and press the button: the player of that run."""
    page = shown
    page.locator("[class*=pk-sweep-] select").select_option(index=1)
    page.get_by_role("button", name="Open its run").click()
    page.wait_for_function("document.querySelector('.pk-player')?.popcorn")
    assert chosen(page).startswith("1: gap_ns=3000")
    assert page.problems == []


def test_a_click_on_the_chart_chooses_its_point(shown):
    """The last point lies to the right: a click there takes the list to it."""
    page = shown
    spot = page.evaluate("""() => {
        const view = Object.values(Bokeh.index)[0] ?? [...Bokeh.index][0];
        const plot = view.model ? view : view[1];
        const frame = plot.frame ?? plot.child_views?.[0]?.frame;
        const source = plot.model.renderers.find(r => r.glyph.type === 'Scatter').data_source;
        const x = frame.x_scale.compute(source.data.x[2]);
        const y = frame.y_scale.compute(source.data.y[2]);
        const box = plot.el.getBoundingClientRect();
        return [box.x + x, box.y + y];
    }""")
    page.mouse.click(*spot)
    page.wait_for_function(
        "document.querySelector('[class*=pk-sweep-] select').selectedIndex === 2"
    )
    assert chosen(page).startswith("2: gap_ns=9000")

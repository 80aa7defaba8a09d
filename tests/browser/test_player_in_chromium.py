"""The player in Chromium: by keyboard alone, forwards and backwards, with nobody to ask."""

import json
import random

import pytest

from popcorn_edu import scenarios
from popcorn_edu.readers.player import plain_value, play, to_html

STATE = "document.querySelector('.pk-player').popcorn.state()"
SENTENCE = ".pk-player .sentence >> nth=0"


@pytest.fixture(scope="module")
def run():
    return scenarios.fan_in(kernels=4, messages=20, slots=8, gap_ns=300)


def applied(page) -> int:
    return page.evaluate("document.querySelector('.pk-player').popcorn.n")


def press(page, *keys: str) -> int:
    for key in keys:
        page.keyboard.press(key)
    return applied(page)


def shown_tables(page) -> dict:
    return {
        name: {json.dumps(key): value for key, value in rows}
        for name, rows in page.evaluate(STATE).items()
    }


def tables_at(run, n: int) -> dict:
    return {
        f"{part}.{name}": {
            json.dumps(plain_value(key)): plain_value(value) for key, value in table.items()
        }
        for part, tables in run.at(n).snapshot().items()
        for name, table in tables.items()
    }


def sentence(run, record: int) -> str:
    text = str(run.trace.event(record))
    return text[0].upper() + text[1:] + "."


def test_the_arrow_keys_step(open_run, run):
    """Right applies the next record, Left takes it back, and the sentence is the event's own."""
    page = open_run(run)
    assert page.locator(SENTENCE).text_content().startswith("Nothing has happened yet")
    assert press(page, "ArrowRight", "ArrowRight", "ArrowRight") == 3
    assert page.locator(SENTENCE).text_content() == sentence(run, 2)
    assert press(page, "ArrowLeft") == 2
    assert page.locator(SENTENCE).text_content() == sentence(run, 1)


def test_home_and_end(open_run, run):
    """End shows the last record and Home the state before the first."""
    page = open_run(run)
    assert press(page, "End") == len(run)
    assert shown_tables(page) == tables_at(run, len(run))
    assert press(page, "Home") == 0


def test_every_sentence_is_the_events_own(open_run, run):
    """The browser makes the same sentence as Python for every record."""
    page = open_run(run)
    made = page.evaluate(
        "count => { const p = document.querySelector('.pk-player').popcorn;"
        " return Array.from({length: count}, (_, i) => p.sentenceOf(i)); }",
        len(run),
    )
    assert made == [str(run.trace.event(n)) for n in range(len(run))]


def test_back_equals_forward(open_run, run):
    """However a record is reached, the tables are those of run.at(n)."""
    page, jumps = open_run(run), random.Random(7)
    for n in [len(run), 0, *(jumps.randrange(len(run) + 1) for _ in range(12))]:
        page.evaluate("n => document.querySelector('.pk-player').popcorn.go(n)", n)
        assert shown_tables(page) == tables_at(run, n)


def test_shift_arrow_goes_to_the_same_kind(open_run, run):
    """Shift with an arrow goes to the next and the previous record of the same kind."""
    page = open_run(run, at=next(run.trace.records()).seq + 1)
    kind = run.trace.kind(1)
    second = run.trace.next(kind, after=1).seq
    assert press(page, "Shift+ArrowRight") == second + 1
    assert press(page, "Shift+ArrowLeft") == 2


def test_brackets_go_along_one_kernels_messages(open_run, run):
    """] and [ go to the next and previous message event of the marked kernel."""
    page = open_run(run)
    page.get_by_role("button", name="kernel 2").first.press("Enter")
    ends = {"SlotReady", "MessageRead", "IpiSent", "IpiArrived"}
    wanted = [r.seq for r in run.trace if r.who == "kernel 2" and type(r.event).__name__ in ends]
    page.focus(".pk-player")
    assert press(page, "]") == wanted[0] + 1
    assert press(page, "]") == wanted[1] + 1
    assert press(page, "[") == wanted[0] + 1


def test_a_breakpoint_stops_the_play(open_run, run):
    """b sets a breakpoint on this record; Space plays up to it and stops there."""
    page = open_run(run, at=9)
    press(page, "b", "Home", "+", "+", "+", "+", "Space")
    page.wait_for_function("document.querySelector('.pk-player').popcorn.n === 10")
    page.get_by_role("button", name="Play").wait_for()
    assert applied(page) == 10
    assert page.evaluate("document.querySelector('.pk-player').popcorn.breakpoints") == ["record 9"]


def test_explain_tells_why_and_where(open_run, run):
    """e shows why the step exists and the identifier in Popcorn."""
    page = open_run(run, at=run.trace.next(after=30).seq)
    kind = type(run.trace.event(31))
    why = page.locator(".pk-player .why")
    assert not why.is_visible()
    press(page, "e")
    assert why.is_visible()
    assert " ".join(kind.__doc__.split()) in why.text_content()
    assert kind.popcorn in why.text_content()


def test_reset_goes_back_to_where_it_opened(open_run, run):
    """r returns to the record at which the player was opened."""
    page = open_run(run, at=20)
    assert press(page, "End", "r") == 21


def test_the_keyboard_is_never_lost(open_run, run):
    """Whatever is pressed with a button, the next key still reaches the player."""
    page = open_run(run, at=9)
    for name in ["Last", "First", "Step back", "Zoom out", "Zoom in", "Breakpoint here"]:
        page.get_by_role("button", name=name, exact=True).press("Enter")
        press(page, "Home")
        assert press(page, "ArrowRight") == 1, name
    page.get_by_text("Diagram as a table").press("Enter")
    page.locator(".pk-player .records tr[aria-current] button").press("Enter")
    press(page, "ArrowRight")
    assert press(page, "ArrowRight") == 3
    page.get_by_role("button", name="Remove breakpoint").press("Enter")
    assert press(page, "ArrowRight") == 4
    page.locator(".pk-player summary", has_text="Views").press("Enter")
    page.get_by_label("Ring", exact=True).and_(page.get_by_role("checkbox")).press("Space")
    press(page, "Escape")
    assert press(page, "ArrowRight") == 5
    assert not page.get_by_role("region", name="Ring").is_visible()


def test_help_opens_keeps_the_focus_and_closes(open_run, run):
    """? opens the help, Tab stays inside it, Esc closes it and the player has the keyboard."""
    page = open_run(run)
    press(page, "ArrowRight", "?")
    page.get_by_role("dialog", name="Keys").wait_for()
    focused = "document.querySelector('.pk-player').shadowRoot.activeElement"
    for _ in range(3):
        page.keyboard.press("Tab")
        assert page.evaluate(f"{focused}.closest('dialog') !== null")
    page.keyboard.press("ArrowRight")
    assert applied(page) == 1, "a dialog keeps the player's keys to itself"
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    assert press(page, "ArrowRight") == 2


def test_a_prediction_locks_the_run_until_it_is_made(open_run, run):
    """Before a gate nothing passes; a committed choice is shown against what happened."""
    options = ["an IPI", "a read", "else"]
    gate = {"at": 12, "question": "What is next?", "options": options, "answer": "else"}
    page = open_run(run, ask=[gate])
    assert press(page, "End") == 12
    assert press(page, "ArrowRight") == 12
    assert press(page, "p", "ArrowDown", "ArrowUp", "Enter") == 13
    (choice,) = page.evaluate("document.querySelector('.pk-player').popcorn.choices")
    assert (choice["chosen"], choice["right"], choice["at"]) == ("an IPI", False, 12)
    kept = page.get_by_role("region", name="Your predictions").text_content()
    assert "You said: an IPI" in kept and "It was: else" in kept and sentence(run, 12) in kept
    assert press(page, "End") == len(run)


def test_fork_shows_the_line_of_python(open_run, run):
    """f names the edit in Python; in a saved page it says that no Python is behind it."""
    page = open_run(run, at=30)
    press(page, "f")
    dialog = page.get_by_role("dialog", name="Fork here")
    assert "run.fork(30, drop=True).play()" in dialog.text_content()
    press(page, "ArrowDown")
    assert "run.fork(30, delay=1000).play()" in dialog.text_content()
    assert "No Python is behind this page" in dialog.text_content()
    press(page, "Escape")
    assert not dialog.is_visible()


def test_the_same_event_is_marked_in_every_view(open_run, run):
    """A marked kernel is marked in the diagram, the table of kernels and the machine."""
    page = open_run(run, at=30)
    page.get_by_role("button", name="kernel 1").first.click()
    marked = "document.querySelector('.pk-player').shadowRoot.querySelectorAll('.selected').length"
    assert page.evaluate(marked) >= 1
    assert page.locator(".pk-player .kernels tr.selected").count() == 1
    assert page.locator(".pk-player .lane-label[aria-pressed=true]").count() == 1


def test_each_picture_has_its_table(open_run, run):
    """The diagram's table has the current record; the ring's has one row for each slot."""
    page = open_run(run, at=40)
    page.get_by_text("Diagram as a table").click()
    current = page.locator(".pk-player .records tr[aria-current=step]")
    assert str(run.trace.event(40)) in current.text_content()
    page.get_by_text("Ring as a table").click()
    slots = page.locator(".pk-player table:has(th:text-is('Slot')) tbody tr")
    slots.nth(7).wait_for()
    assert slots.count() == 8


def test_a_screen_reader_hears_the_step_but_not_the_film(open_run, run):
    """The sentence is a polite live region, and silent while the run plays."""
    page = open_run(run)
    live = page.locator(SENTENCE)
    assert live.get_attribute("aria-live") == "polite"
    press(page, "Space")
    page.get_by_role("button", name="Pause").wait_for()
    assert live.get_attribute("aria-live") == "off"
    press(page, "Space")
    page.get_by_role("button", name="Play").wait_for()
    assert live.get_attribute("aria-live") == "polite"


def test_nothing_is_asked_from_the_network(open_run, run):
    """Playing a whole run asks for nothing and raises nothing."""
    page = open_run(run, at=3)
    press(page, "ArrowRight", "End", "e", "f", "Escape", "Home", "?", "Escape")
    assert (page.requested, page.problems) == ([], [])


@pytest.mark.parametrize("opened", [(), ("?",), ("f",), ("e", "End")])
def test_axe_finds_nothing_serious(open_run, run, opened):
    """axe-core reports no serious or critical problem, also with a dialog open."""
    from axe_playwright_python.sync_playwright import Axe

    gate = {"at": 200, "question": "What is next?", "options": ["an IPI", "a read"]}
    page = open_run(run, at=60, ask=[gate])
    press(page, *opened)
    for closed in page.locator(".pk-player .twin > summary").all():
        if not opened:
            closed.click()
    found = Axe().run(page).response["violations"]
    serious = [
        (item["id"], [node["html"][:90] for node in item["nodes"]])
        for item in found
        if item["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_reduced_motion_moves_nothing(browser, tmp_path, run):
    """Whoever asks for reduced motion gets no transitions and no smooth scrolling."""
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(to_html(run, tmp_path / "run.html").as_uri())
    page.wait_for_function("document.querySelector('.pk-player').popcorn")
    moving = """() => [...document.querySelector('.pk-player').shadowRoot.querySelectorAll('*')]
        .filter(node => getComputedStyle(node).transitionDuration !== '0s').length"""
    assert page.evaluate(moving) == 0
    context.close()


def test_it_can_be_used_at_700_pixels(open_run, run):
    """In a narrow notebook nothing is cut off at the side."""
    page = open_run(run, at=60)
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")
    canvas = page.locator(".pk-player .stack canvas").first
    page.wait_for_function("canvas => canvas.clientWidth < 600", arg=canvas.element_handle())


@pytest.mark.parametrize("name", ["ping", "fan_in"])
def test_what_each_kernel_knows_fits_at_1100_pixels(open_run, name):
    """The columns that change fit beside each other; those that never do are one press away."""
    page = open_run(scenarios.run(name, **({"kernels": 5} if name == "fan_in" else {})))
    cut = """box => { const p = document.querySelector('.pk-player').popcorn;
        return Array.from({length: p.count + 1}, (_, n) => n)
            .filter(n => (p.go(n), box.scrollWidth > box.clientWidth)); }"""
    assert page.locator(".pk-player .kernels .scroll").evaluate(cut) == []
    assert "4 columns that never change are left out" in page.locator(".left-out").text_content()
    assert not page.get_by_role("columnheader", name="published").is_visible()
    page.get_by_role("button", name="show them").press("Enter")
    assert page.get_by_role("columnheader", name="published").is_visible()
    page.get_by_role("button", name="leave them out").press("Enter")
    assert not page.get_by_role("columnheader", name="published").is_visible()


def test_without_scripts_the_table_remains(browser, run):
    """With scripts off, a table of the steps is there to read."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(play(run).html())
    page.get_by_text("The run as a table").click()
    assert page.get_by_role("cell", name=str(run.trace.event(3)), exact=True).is_visible()
    context.close()


def test_a_browser_that_is_too_old_says_so(page, run, tmp_path):
    """Where the player cannot start, the plain table is shown with the reason."""
    page.add_init_script("delete window.DecompressionStream")
    page.goto(to_html(run, tmp_path / "run.html").as_uri())
    page.get_by_text("The player cannot start in this browser").wait_for()
    assert page.get_by_text("The run as a table").is_visible()


def test_a_step_of_a_long_run_fits_in_one_frame(open_run):
    """At 100,000 records a step takes at most 16 ms of the browser's time."""
    run = scenarios.fan_in(kernels=24, messages=850, slots=64, gap_ns=8_000)
    assert len(run) >= 100_000
    page = open_run(run, at=50_000)
    step = """() => { const start = performance.now(), host = document.querySelector('.pk-player');
        for (let i = 0; i < 60; i++) {
            host.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
            host.offsetHeight;
        }
        return (performance.now() - start) / 60; }"""
    assert page.evaluate(step) <= 16

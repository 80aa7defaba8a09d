"""A real Chromium, and a real JupyterLab, for the tests that look at what a person sees.

``browser``   Chromium, once for each test file
``page``      a fresh page that reaches no network; ``page.requested`` lists what it asked for
``open_run``  writes a run's player as a page and opens it
``lab``       a JupyterLab server of its own on a free port, with its own settings and folders
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 90_000  # a loaded machine is slow; a wait ends as soon as its condition holds
REPOSITORY = Path(__file__).resolve().parents[2]
KERNEL_IS_IDLE = """() => document.querySelector('.jp-Notebook-ExecutionIndicator')
    ?.getAttribute('data-status') === 'idle'"""
ASKS_WHICH_KERNEL = """[...document.querySelectorAll('.jp-Dialog')]
    .some(dialog => dialog.textContent.includes('Select Kernel'))"""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


def chromium() -> str:
    for name in CHROMIUM_NAMES:
        if path := shutil.which(name):
            return path
    pytest.fail(
        "the browser tests need Chromium and found none of " + ", ".join(CHROMIUM_NAMES)
        + "; install it (Debian: apt-get install chromium) or leave them out with -m 'not slow'"
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        shown = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"] if root else []
        )
        yield shown
        shown.close()


def watched(context, allow: str = ""):
    """A page of this context; what it asks for outside of ``allow`` is noted and refused."""
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.requested, page.problems = [], []

    def judge(route):
        url = route.request.url
        if urlsplit(url).scheme in ("file", "data", "blob") or (allow and url.startswith(allow)):
            route.continue_()
        else:
            page.requested.append(url)
            route.abort()

    page.route("**/*", judge)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    return page


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = watched(context)
    yield page
    context.close()


def ready(page, selector: str = ".pk-player") -> None:
    """Wait until the player has started, and give it the keyboard."""
    page.wait_for_function("s => document.querySelector(s)?.popcorn", arg=selector)
    page.focus(selector)


@pytest.fixture
def open_run(page, tmp_path):
    def show(run, **options):
        from popcorn_edu.readers.player import to_html

        page.goto(to_html(run, tmp_path / "run.html", **options).as_uri())
        ready(page)
        return page

    return show


class Lab:
    """A running JupyterLab: the folder of its notebooks, its address, its environment."""

    def __init__(self, folder: Path, url: str, environment: dict) -> None:
        self.folder, self.url, self.environment = folder, url, environment

    def notebook(self, name: str, *cells: str) -> Path:
        """Write a notebook of code cells."""
        import nbformat

        book = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(book, self.folder / name)
        return self.folder / name

    def open(self, page, name: str) -> None:
        page.goto(f"{self.url}/lab/tree/{name}?token={TOKEN}&reset")
        page.locator(".jp-NotebookPanel:visible .jp-Notebook").wait_for()
        self.wait_or_choose(page, KERNEL_IS_IDLE)

    def wait_or_choose(self, page, condition: str, timeout: float = WAIT_MS) -> None:
        """Wait for the condition; whenever JupyterLab asks which kernel, take the one it offers.

        It asks if its kernel is late. No locator handler sees that while a function is waited for.
        """
        from playwright.sync_api import TimeoutError as PlaywrightTimeout

        either = f"() => {ASKS_WHICH_KERNEL} ? 'asks' : ({condition})() ? 'holds' : false"
        asks = page.locator(".jp-Dialog", has_text="Select Kernel")
        while page.wait_for_function(either, timeout=timeout).json_value() == "asks":
            with suppress(PlaywrightTimeout):  # it goes away by itself when the kernel comes
                asks.get_by_role("button", name="Select", exact=True).click(timeout=5_000)
            asks.wait_for(state="hidden")

    def run_all(self, page) -> None:
        """Run every cell, and wait until each has its number."""
        done = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
            .every(prompt => /\\[\\d+\\]/.test(prompt.textContent))"""
        self.wait_or_choose(page, KERNEL_IS_IDLE)
        for _ in range(3):  # JupyterLab may say idle before its kernel hears: ask again then
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            try:
                return self.wait_or_choose(page, done, timeout=WAIT_MS / 3)
            except Exception as problem:
                if "Timeout" not in type(problem).__name__:
                    raise
        self.wait_or_choose(page, done)


TOKEN = "for-the-tests"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    home = tmp_path_factory.mktemp("jupyter")
    folder = home / "notebooks"
    folder.mkdir()
    settings = home / "config/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    # Every cell stays in the page, so that a test can look at the whole of a long notebook.
    settings = home / "config/lab/user-settings/@jupyterlab/notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(
        json.dumps({"windowingMode": "none", "autoStartDefaultKernel": True})
    )
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    server = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1",
            "--port=0", f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={folder}",
        ],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = []
    for line in server.stderr:
        said.append(line)
        if "http://127.0.0.1:" in line:
            url = "http://127.0.0.1:" + line.split("http://127.0.0.1:")[1].split("/")[0]
            break
    else:
        pytest.fail("JupyterLab did not start:\n" + "".join(said[-20:]))
    threading.Thread(target=server.stderr.read, daemon=True).start()  # keep its pipe empty
    yield Lab(folder, url, environment)
    server.terminate()
    server.wait(timeout=30)


@pytest.fixture
def lab_page(browser, lab):
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = watched(context, allow=lab.url)
    yield page
    context.close()

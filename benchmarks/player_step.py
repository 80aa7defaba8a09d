"""What one step of the player costs in the browser, at 100,000 records and at 2,000.

    python benchmarks/player_step.py [CHROMIUM]

A frame lasts 16 ms at 60 frames a second; a step must fit in one, or holding the arrow key
stutters. Measured in Chromium, without a graphics card, on the browser's own clock:

    step    one arrow key: patches, all views, style and layout, as a ratio to one frame
    page    the slowest one in fifty of them: a step that turns the diagram's page
    jump    to a random record, likewise
    load    from the page's text to the first picture (once for each page)
    size    of the page, for 2,000 records against the 300 kB it may have
"""

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from popcorn_edu import scenarios
from popcorn_edu.readers.player import play, to_html

FRAME_MS = 16
PAGE_BYTES_AT_MOST = 300_000
RUNS = {
    "100 k": lambda: scenarios.fan_in(kernels=24, messages=850, gap_ns=8_000),
    "2 k": lambda: scenarios.fan_in(kernels=16, messages=24, slots=16),
}

STEPS = """jumps => {
    const host = document.querySelector('.pk-player'), cost = [];
    let seed = 1;
    const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
    host.popcorn.go(Math.floor(host.popcorn.count / 3));
    for (let i = 0; i < 300; i++) {
        const start = performance.now();
        if (jumps) host.popcorn.go(Math.floor(random() * host.popcorn.count));
        else host.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
        host.getBoundingClientRect();
        cost.push(performance.now() - start);
    }
    return cost;
}"""


def chromium() -> str:
    names = [*sys.argv[1:], "chromium", "chromium-browser", "google-chrome"]
    return next(filter(None, map(shutil.which, names)), None) or sys.exit("no Chromium found")


def row(name: str, value: float, unit: str, limit: float) -> str:
    ratio = value / limit
    verdict = "ok" if ratio <= 1 else "TOO MUCH"
    return f"  {name:<22}{value:>10,.1f} {unit:<4}{ratio:>8.2f} x {limit:,} {unit}   {verdict}"


def main() -> None:
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"] if root else []
        )
        for name, make in RUNS.items():
            run = make()
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            page.goto(to_html(run, Path(folder) / "run.html").as_uri(), wait_until="commit")
            page.wait_for_function("document.querySelector('.pk-player')?.popcorn", timeout=120_000)
            load = page.evaluate("performance.now()")
            steps, jumps = page.evaluate(STEPS, False), page.evaluate(STEPS, True)
            print(f"{name}: {len(run):,} records")
            print(row("step, median", statistics.median(steps), "ms", FRAME_MS))
            print(row("step, 98 % (page)", statistics.quantiles(steps, n=50)[-1], "ms", FRAME_MS))
            print(row("jump, median", statistics.median(jumps), "ms", FRAME_MS))
            print(f"  {'load':<22}{load:>10,.1f} ms")
            size = len(play(run).html().encode())
            if name == "2 k":
                print(row("size", size / 1000, "kB", PAGE_BYTES_AT_MOST / 1000))
            else:
                print(f"  {'size':<22}{size / 1000:>10,.1f} kB   {size / len(run):.1f} B a record")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

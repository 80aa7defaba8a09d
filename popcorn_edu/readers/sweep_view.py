"""A sweep to look at: its points as a chart, a table beside it, and the run behind each point."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import count

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.readers import figures

NUMBERS = count(1)
LINES_AT_MOST = len(figures.LOOKS)


def bar() -> Callable[[int, int], None] | None:
    """A progress bar where there is a notebook to show it; None elsewhere."""
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    import ipywidgets

    shown = ipywidgets.IntProgress(description="points", min=0, max=1)
    begun = []

    def told(done: int, of: int) -> None:
        shown.max, shown.value = of, done
        shown.description = f"{done:,} of {of:,}"
        if not begun and done < of:
            begun.append(True)
            display(shown)
        if done == of and begun:
            shown.close()

    return told


def lines(swept, x: str, y: str, by: str | None) -> dict[str, list[tuple]]:
    """For each value of ``by`` its points as (x, y, row), by x. Rows without a number are left
    out; several rows at one x stay several points."""
    found: dict[str, list[tuple]] = {}
    names = swept.column(by) if by else [y] * len(swept)
    for n, (at, value, name) in enumerate(
        zip(swept.column(x), swept.column(y), names, strict=True)
    ):
        for what, number in ((x, at), (y, value)):
            if not isinstance(number, (int, float, type(None))):
                raise PopcornError(f"column {what!r} has {number!r}; numbers can be drawn")
        if value is not None and at is not None:
            found.setdefault(str(name), []).append((at, value, n))
    if len(found) > LINES_AT_MOST:
        raise PopcornError(
            f"by={by!r} has {len(found)} values; {LINES_AT_MOST} lines can be told apart"
        )
    return {name: sorted(points) for name, points in found.items()}


class View:
    """The chart, which stays when there is no Python behind the page, and below it a list of its
    points and the run of the one that was chosen."""

    def __init__(self, swept, x: str, y: str, by: str | None) -> None:
        import ipywidgets

        drawn = lines(swept, x, y, by)
        place = f"pk-sweep-{next(NUMBERS)}"
        self.chart = figures.sweep_chart(drawn, x, y, by, swept.call, place)
        rows = sorted(n for points in drawn.values() for *_, n in points)
        self.choose = ipywidgets.Dropdown(
            options=[(f"{n}: {_words(swept, n, y)}", n) for n in rows], description="point",
            tooltip="the run behind this point opens with the button",
        )  # fmt: skip
        self.choose.add_class(place)
        self.button = ipywidgets.Button(
            description="Open its run", tooltip="play the run of this point"
        )
        self.below = ipywidgets.Output()
        self.button.on_click(lambda _: self._open(swept.run(self.choose.value)))
        bar = ipywidgets.HBox([self.choose, self.button])
        self.controls = ipywidgets.VBox([bar, self.below])

    def _open(self, run) -> None:
        self.below.clear_output(wait=True)
        self.below.append_display_data(run.play())

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.chart)
        display(self.controls)

    def __repr__(self) -> str:
        return repr(self.chart)


def _words(swept, n: int, y: str) -> str:
    row = swept[n]
    told = ", ".join(f"{axis}={row[axis]}" for axis in swept.axes)
    return escape(f"{told}: {y} {figures.show_value(row[y])}", quote=False)

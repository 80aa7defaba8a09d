"""One table, two looks: HTML in a notebook, aligned text anywhere else.

It is written with words, never with colour, and as plain HTML without a script or a style sheet,
so that it also survives in a notebook the browser does not trust and in nbgrader's feedback page.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest

TEXT_WIDTH = 100  # characters

# nbgrader's page gives tables no space of their own, and JupyterLab sets them to the right.
CELL = "padding: 0.15em 0.7em; text-align: left; vertical-align: top"
CAPTION = (
    'style="caption-side: top; text-align: left; white-space: nowrap; font-weight: bold; '
    'color: inherit"'
)


class Table:
    """A title, a header, rows of text, and a closing line."""

    min_widths: Mapping[str, str] = {}  # of some columns, in CSS
    tags: Sequence[str] = ()  # of the rows: misconceptions, for whoever counts them

    def __init__(
        self, title: str, header: Sequence[str], rows: Sequence[Sequence], note: str = ""
    ) -> None:
        self.title, self.header, self.note = title, list(header), note
        self.rows = [[str(cell) for cell in row] for row in rows]

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in lines) for i in range(len(self.header) - 1)]
        left = sum(widths) + 2 * len(widths)
        text = [self.title]
        for row in lines:
            start = "".join(f"{cell:<{w}}  " for cell, w in zip(row, widths, strict=False))
            rest = textwrap.wrap(row[-1], max(TEXT_WIDTH - left, 30)) or [""]
            text += [start + rest[0], *(" " * left + more for more in rest[1:])]
        return "\n".join(line.rstrip() for line in [*text, *filter(None, [self.note])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        widths = [self.min_widths.get(name) for name in self.header]
        styles = [CELL + (f"; min-width: {width}" if width else "") for width in widths]
        head = "".join(
            f'<th scope="col" style="{style}">{escape(cell)}</th>'
            for style, cell in zip(styles, self.header, strict=True)
        )
        body = "".join(
            (f'<tr data-tag="{escape(tag)}">' if tag else "<tr>")
            + "".join(
                f'<td style="{style}">{escape(cell)}</td>'
                for style, cell in zip(styles, row, strict=True)
            )
            + "</tr>"
            for row, tag in zip_longest(self.rows, self.tags, fillvalue="")
        )
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return (
            f"<table><caption {CAPTION}>{escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"
        )


class Note(str):
    """A sentence that a notebook shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def in_notebook() -> bool:
    """Is there a page to display on?"""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def show(thing: object) -> None:
    """Display in a notebook, print anywhere else."""
    if in_notebook():
        from IPython.display import display

        display(thing)
    else:
        print(thing)

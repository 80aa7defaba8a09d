"""Two runs side by side: where they part, and what becomes of each message.

    >>> compare(run, run.fork(12, drop=True))                                # doctest: +SKIP

Up to the first record that differs two runs are one story; from there on the same messages, told
apart by their sender and number, have other times or are missing. In a notebook both players are
shown under one clock: a step in one moves the other to the same time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, write_whole
from popcorn_edu.engine.world import Run
from popcorn_edu.readers import figures
from popcorn_edu.readers.player import play

RECORDS_AT_MOST = 60_000  # of each run, in one page
ROWS_SHOWN = 200


class MessageRow(NamedTuple):
    """One message in both runs; None where it was not delivered."""

    sender: int
    number: int
    ring: int
    a_ns: int | None
    b_ns: int | None

    @property
    def what(self) -> str:
        if self.a_ns is None or self.b_ns is None:
            return "only in " + ("B" if self.a_ns is None else "A")
        late = self.b_ns - self.a_ns
        if late == 0:
            return "the same"
        return f"{abs(late):,} ns {'longer' if late > 0 else 'shorter'} in B"


class Comparison:
    """What ``compare`` returns: prints as text, shows in a notebook as two players.

    first     the number of the first record that differs; None if the runs are the same
    messages  one MessageRow for each message that either run delivered, by sender and number
    """

    def __init__(self, a: Run, b: Run) -> None:
        self.a, self.b = a, b
        self.first = first_difference(a, b)
        self.messages = list(_messages(a, b))

    @property
    def same(self) -> bool:
        return self.first is None

    @property
    def sentence(self) -> str:
        """Where the runs part, and what each does there."""
        if self.first is None:
            return f"the two runs are the same, record for record ({len(self.a):,} records)"
        n = self.first
        told = [_told(run, n) for run in (self.a, self.b)]
        before = f"up to record {n - 1} they are one story; " if n else ""
        why = _why(self.a, self.b, n)
        return f"{before}at record {n} A has: {told[0]}; B has: {told[1]}{why}"

    def counts(self) -> dict[str, int]:
        """How many messages are the same, longer or shorter in B, or only in one of them."""
        found = dict.fromkeys(
            ("the same", "longer in B", "shorter in B", "only in A", "only in B"), 0
        )
        for row in self.messages:
            what = row.what
            found[what if what in found else what.partition(" ns ")[2]] += 1
        return found

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in self.counts().items() if count)
        lines = [self.sentence[0].upper() + self.sentence[1:] + "."]
        lines.append(f"Messages: {counts or 'none'}.")
        changed = [row for row in self.messages if row.what != "the same"]
        for row in changed[:20]:
            lines.append(
                f"  message {row.number} of kernel {row.sender} to kernel {row.ring}: "
                f"A {_ns(row.a_ns)}, B {_ns(row.b_ns)} ({row.what})"
            )
        if len(changed) > 20:
            lines.append(f"  ... and {len(changed) - 20:,} more")
        return "\n".join(lines)

    __repr__ = __str__

    def html(self) -> str:
        """A self-contained block: both players, one clock, and the table of messages."""
        for run in (self.a, self.b):
            if len(run) > RECORDS_AT_MOST:
                raise PopcornError(
                    f"a run of {len(run):,} records is too long to compare in a page; "
                    f"{RECORDS_AT_MOST:,} are the most (str(comparison) has no limit)"
                )
        players = [
            f'<div class="pk-side"><h3>{side}: {escape(_name(run))}</h3>'
            f"{play(run, title=f'{side}: {_name(run)}', compact=True).html()}</div>"
            for side, run in (("A", self.a), ("B", self.b))
        ]
        facts = {
            "times": [[record.time for record in run.trace] for run in (self.a, self.b)],
            "first": self.first,
        }
        columns = ("message", "sender", "to", "A: latency (ns)", "B: latency (ns)", "B against A")
        rows = [
            (row.number, f"kernel {row.sender}", f"kernel {row.ring}", _ns(row.a_ns), _ns(row.b_ns),
             row.what)
            for row in self.messages[:ROWS_SHOWN]
        ]  # fmt: skip
        more = len(self.messages) - len(rows)
        left = f"<p>{more:,} more messages are left out here.</p>" if more > 0 else ""
        return (
            '<section class="pk-compare" role="region" aria-label="Two runs under one clock">'
            f"<style>{_text('compare.css')}</style>"
            f"<p>{escape(self.sentence[0].upper() + self.sentence[1:])}.</p>"
            '<div class="pk-clock" role="group" aria-label="One clock for both">'
            '<button type="button" data-do="back">◀ earlier</button>'
            '<button type="button" data-do="next">later ▶</button>'
            '<button type="button" data-do="first" title="c">to the first difference (c)</button>'
            '<output aria-live="polite"></output></div>'
            f'<div class="pk-sides">{"".join(players)}</div>'
            f"<details><summary>The messages of both, as a table</summary>"
            f"{figures.table_html(columns, rows)}{left}</details>"
            f'<script type="application/json">{json.dumps(facts, separators=(",", ":"))}</script>'
            f"<script>{_text('compare.js')}</script></section>"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def to_html(self, path: str | Path) -> Path:
        """Write the comparison as a page of its own, which needs no kernel; returns the path."""
        page = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            "<title>Two runs under one clock</title>"
            '<meta name="viewport" content="width=device-width, initial-scale=1"></head>\n'
            f'<body style="margin:1rem"><main>{self.html()}</main></body></html>\n'
        )
        return write_whole(path, page.encode())


def compare(a: Run, b: Run) -> Comparison:
    """Align two runs, of the same scenario or not, by their messages, and find where they part."""
    for name, run in (("a", a), ("b", b)):
        if not isinstance(run, Run):
            raise PopcornError(f"compare() wants two runs; {name} is {type(run).__name__}")
    return Comparison(a, b)


def first_difference(a: Run, b: Run) -> int | None:
    """The number of the first record that the runs do not share: its time, its actor or what it
    says; None if there is none."""
    for n, (one, other) in enumerate(zip(a.trace, b.trace, strict=False)):
        if (one.time, one.who, one.event) != (other.time, other.who, other.event):
            return n
    return None if len(a) == len(b) else min(len(a), len(b))


def _told(run: Run, n: int) -> str:
    if n >= len(run):
        return "nothing, it is over"
    record = run.trace[n]
    return f"{record.event} ({record.time:,} ns, {record.who})"


def _why(a: Run, b: Run, n: int) -> str:
    """What kind of difference it is: an edit of a fork, a time, an actor, or what is said."""
    edits = [edit for run in (a, b) for edit in run.edits if edit.at == n]
    if edits:
        return ". That is where one of them was forked"
    if n >= len(a) or n >= len(b):
        return ""
    one, other = a.trace[n], b.trace[n]
    if one.event == other.event:
        return ". The same happens, at another time" if one.time != other.time else ""
    for name, value in _settings(a).items():
        if _settings(b).get(name, value) != value:
            return f". The runs differ in {name}: {value!r} and {_settings(b)[name]!r}"
    return ""


def _settings(run: Run) -> dict:
    return dict(run.trace.meta.get("setup", {}))


def _messages(a: Run, b: Run) -> Iterator[MessageRow]:
    found: dict[tuple[int, int, int], list[int | None]] = {}
    for side, run in enumerate((a, b)):
        for row in figures.latencies(run):
            key = row["sender"], row["number"], row["ring"]
            found.setdefault(key, [None, None])[side] = row["latency_ns"]
    for (sender, number, ring), (a_ns, b_ns) in sorted(found.items()):
        yield MessageRow(sender, number, ring, a_ns, b_ns)


def _ns(value: int | None) -> str:
    return "not delivered" if value is None else f"{value:,}"


def _name(run: Run) -> str:
    return str(run.trace.meta.get("scenario", "run")) + (", forked" if run.edits else "")


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("player_page", name).read_text(encoding="utf-8")

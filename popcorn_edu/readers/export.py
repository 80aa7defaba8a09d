"""A run as a file that other programs open: sentences, or a table with one row per record."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from popcorn_edu.engine.trace import Trace


def as_text(trace: Trace) -> str:
    """The records as sentences, one a line."""
    return "".join(f"{record}\n" for record in trace)


def as_csv(trace: Trace) -> str:
    """One row per record: number, time in ns, actor, cause, kind, its fields as JSON, sentence."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["seq", "time_ns", "who", "cause", "event", "fields", "sentence"])
    writer.writerows(_rows(trace))
    return sheet.getvalue()


def _rows(trace: Trace) -> Iterator[list]:
    for seq, time, who, cause, event in trace:
        fields = {name: str(value) if hasattr(value, "name") else value
                  for name, value in event._asdict().items()}  # fmt: skip
        kind = type(event).__name__
        yield [seq, time, who, "" if cause is None else cause, kind, json.dumps(fields), str(event)]

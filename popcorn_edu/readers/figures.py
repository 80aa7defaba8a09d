"""Numbers and charts of a run: how often it interrupts, how long messages take, how full rings get.

The measures are plain functions of a run. Each returns dicts of whole numbers, one for each row,
ready for a table, ``csv.DictWriter`` or a question in a lab. The charts are drawn from them with
Bokeh, which is imported when a chart is shown and not before.

    >>> latencies(run)[0]["latency_ns"]                                      # doctest: +SKIP
    >>> show(run)                                                            # doctest: +SKIP
    >>> show(run, run.fork(0, look_again=False), names=("as it was", "fork"))  # doctest: +SKIP

Words
    latency       from TicketTaken to MessageDelivered: from the moment the message has its place
                  in the ring to the moment its callback is called. Time before the ticket is the
                  sender's own; time in the callback is the callback's
    in use        slots that hold a message: from PayloadCopied to MessageRead
    held          tickets that are not read yet. It may exceed the slots: then senders wait
    percentile    nearest rank: p99 is the smallest latency that 99 % of the messages do not
                  exceed. Always one of the measured values, never in between
    twin          the sentence and the table beside each chart, for who cannot see it and for
                  where no script runs

``show`` gives one block of HTML that asks for nothing from outside. BokehJS travels in it,
trimmed to its core and compressed (0.5 MB in the notebook instead of Bokeh's own 8), and a page
that has it already leaves it packed. It does not use Bokeh's own notebook code, which needs
jQuery, so charts work in nbconvert's pages and in nbgrader's feedback too.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.messaging import (
    InterruptTaken,
    IpiSent,
    MessageDelivered,
    SoftirqEntered,
    SoftirqExited,
)
from popcorn_edu.model.rings import (
    AllRegistered,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    PayloadCopied,
    Priority,
    SenderBlocked,
    SlotReady,
    TicketTaken,
    WindowPublished,
)
from popcorn_edu.readers.checks import trace_of

PERCENTILES = (50, 90, 99)
POINTS_AT_MOST = 2_000  # of one line; Bokeh stays quick up to about 10,000 marks a picture
TWIN_INTERVALS = 8  # rows for each run in the table twin of a line over time


# -- measures -------------------------------------------------------------------------------------


def interrupts_per_message(run, kernel: int | None = None) -> dict:
    """How many IPIs were sent and interrupts taken for the messages that were read.

    Several IPIs that arrive before the first is served are one interrupt, so there may be fewer
    interrupts than IPIs. The ratios are None where nothing was read. ``kernel``: one receiver's.
    """
    messages = ipis = interrupts = 0
    for record in trace_of(run).records(MessageRead, IpiSent, InterruptTaken):
        event = record.event
        if type(event) is MessageRead:
            messages += kernel in (None, event.ring)
        elif type(event) is IpiSent:
            ipis += kernel in (None, event.dst)
        else:
            interrupts += kernel in (None, event.kernel)
    return {
        "messages": messages,
        "ipis": ipis,
        "interrupts": interrupts,
        "ipis_per_message": ipis / messages if messages else None,
        "interrupts_per_message": interrupts / messages if messages else None,
    }


def latencies(run) -> list[dict]:
    """One row for each message that reached its callback, in that order, with every station.

    ``latency_ns`` is delivered_ns - ticket_ns. In between lie the wait for a slot and the copy
    (to ready_ns), the wait in the ring (to read_ns) and on the receiver's list. ``record`` is
    the MessageDelivered. A message whose ticket is not in the trace (a fork may lose it) is left
    out, and so is one that was never delivered.
    """
    tickets: dict[tuple[int, int], int] = {}
    ready: dict[tuple[int, int], int] = {}
    read: dict[tuple[int, int, int], tuple] = {}
    rows = []
    for record in trace_of(run).records(TicketTaken, SlotReady, MessageRead, MessageDelivered):
        event, kind = record.event, type(record.event)
        if kind is TicketTaken:
            tickets[event.ring, event.ticket] = record.time
        elif kind is SlotReady:
            ready[event.ring, event.ticket] = record.time
        elif kind is MessageRead:
            place = event.ring, event.ticket
            stations = tickets.get(place), ready.get(place), record.time
            read[event.ring, event.sender, event.number] = event.ticket, stations
        else:
            ticket, stations = read.pop((event.kernel, event.sender, event.number), (None, ()))
            if ticket is None or stations[0] is None:
                continue
            ticket_ns, ready_ns, read_ns = stations
            rows.append(
                {
                    "record": record.seq,
                    "ring": event.kernel,
                    "ticket": ticket,
                    "sender": event.sender,
                    "number": event.number,
                    "type": str(event.type),
                    "priority": str(event.priority),
                    "ticket_ns": ticket_ns,
                    "ready_ns": ready_ns,
                    "read_ns": read_ns,
                    "delivered_ns": record.time,
                    "latency_ns": record.time - ticket_ns,
                }
            )
    return rows


def percentile(values: Iterable[int], percent: int) -> int | None:
    """The smallest value that ``percent`` % of them do not exceed; None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


def latency_percentiles(run) -> list[dict]:
    """One row for each priority that occurs: how many messages, p50, p90, p99 and the longest."""
    by_priority = defaultdict(list)
    for row in latencies(run):
        by_priority[row["priority"]].append(row["latency_ns"])
    return [
        {"priority": str(priority), "messages": len(values)}
        | {f"p{percent}_ns": percentile(values, percent) for percent in PERCENTILES}
        | {"max_ns": max(values)}
        for priority in Priority
        if (values := by_priority[str(priority)])
    ]


def rings(run) -> list[int]:
    """The rings of a run: one for each kernel that has published its window."""
    found = set()
    for record in trace_of(run).records(AllRegistered, WindowPublished):
        event = record.event
        found |= set(range(event.kernels)) if type(event) is AllRegistered else {event.kernel}
    return sorted(found)


def busiest_ring(run) -> int:
    """The ring for which most tickets were taken; the lowest of several."""
    taken = dict.fromkeys(rings(run) or [0], 0)
    for record in trace_of(run).records(TicketTaken):
        taken[record.event.ring] = taken.get(record.event.ring, 0) + 1
    return max(taken, key=lambda ring: (taken[ring], -ring))


def occupancy(run, ring: int | None = None) -> list[dict]:
    """How full one ring is, after each record that changes it (default: the busiest ring).

    ``in_use`` counts the slots that hold a message, ``held`` the tickets that are not read yet.
    """
    known = rings(run)
    if ring is None:
        ring = busiest_ring(run)
    elif known and ring not in known:  # without rings, nothing is ever in one
        raise PopcornError(f"ring={ring!r}: {near_names(ring, known)}")
    slots, tickets = set(), set()
    rows = [{"record": None, "time_ns": 0, "in_use": 0, "held": 0}]
    for record in trace_of(run).records(TicketTaken, PayloadCopied, MessageRead, ring=ring):
        event, kind = record.event, type(record.event)
        if kind is TicketTaken:
            tickets.add(event.ticket)
        elif kind is PayloadCopied:
            slots.add(event.slot)
        else:
            slots.discard(event.slot)
            tickets.discard(event.ticket)
        rows.append(
            {
                "record": record.seq,
                "time_ns": record.time,
                "in_use": len(slots),
                "held": len(tickets),
            }
        )
    return rows


def capacity(run) -> int | None:
    """How many slots each ring has; None if the run does not say."""
    if hasattr(run, "setup"):
        return getattr(run.setup, "slots", None)
    return trace_of(run).meta.get("setup", {}).get("slots")


def end_ns(run) -> int:
    """The time of the last record."""
    trace = trace_of(run)
    return trace.time(len(trace) - 1) if len(trace) else 0


# what opens a span of whose time, and what closes it: (kind, key fields, owner field)
_SPANS = {
    "polling_ns": ((InterruptsDisabled, ("ring",)), (InterruptsEnabled, ("ring",))),
    "softirq_ns": ((SoftirqEntered, ("kernel",)), (SoftirqExited, ("kernel",))),
    "spinning_ns": ((SenderBlocked, ("sender", "ring", "ticket")),
                    (PayloadCopied, ("sender", "ring", "ticket"))),
}  # fmt: skip


def utilisation(run) -> list[dict]:
    """For each kernel, how much of the run it had its interrupts off (polling), was inside its
    softirq, and spun on full rings. These spans overlap; one that never ends lasts to the end."""
    trace, end = trace_of(run), end_ns(run)
    spent = {kernel: dict.fromkeys(_SPANS, 0) for kernel in rings(run)}
    opens = {kind: (name, fields) for name, ((kind, fields), _) in _SPANS.items()}
    closes = {kind: (name, fields) for name, (_, (kind, fields)) in _SPANS.items()}
    since: dict[tuple, int] = {}
    for record in trace.records(*opens, *closes):
        kind, event = type(record.event), record.event
        opening = kind in opens
        name, fields = (opens if opening else closes)[kind]
        key = (name, *(getattr(event, field) for field in fields))
        if opening:
            since.setdefault(key, record.time)
        elif key in since:
            spent[key[1]][name] += record.time - since.pop(key)
    for (name, kernel, *_), start in since.items():
        spent[kernel][name] += end - start
    return [{"kernel": kernel} | times | {"run_ns": end} for kernel, times in spent.items()]


QUICK_RECORDS = 5_000  # from here on numpy, which takes a while to load, is worth it


def summary(run) -> dict:
    """A run in one row: what the panel compares, and what a sweep tabulates."""
    if len(trace_of(run)) >= QUICK_RECORDS and (found := by_columns(run)):
        return found
    return record_by_record(run)


def by_columns(run) -> dict | None:
    """The summary of a long run, counted column by column; None where messages are not told apart
    by ring, sender and number (in a fork they may be lost, or come twice)."""
    import numpy

    trace = trace_of(run)
    happened = trace.kinds()
    kinds, fields, codes, times, firsts = trace.columns()
    if not {TicketTaken, MessageDelivered, MessageRead, PayloadCopied} <= codes.keys():
        return None
    # Copies: a view would keep the trace from growing, and from being unrolled for its readers.
    kinds, times = numpy.array(kinds), numpy.array(times).astype("q")
    fields = numpy.array(fields)
    if len(firsts):
        times = numpy.repeat(times, numpy.diff(firsts, append=len(kinds)))
    widths = numpy.zeros(len(codes), "q")
    for index, width in codes.values():
        widths[index] = width
    starts = numpy.cumsum(widths[kinds]) - widths[kinds]

    def of(kind: type, *names: str) -> tuple:
        """Where the records of that kind are, and those fields of theirs."""
        places = numpy.flatnonzero(kinds == codes[kind][0])
        where = starts[places]
        return places, *(fields[where + kind.fields.index(name)].astype("q") for name in names)

    taken, ring, sender, number = of(TicketTaken, "ring", "sender", "number")
    done, to, by, which = of(MessageDelivered, "kernel", "sender", "number")
    read, read_ring = of(MessageRead, "ring")
    copied, copied_ring = of(PayloadCopied, "ring")
    most = 1 + int(max(number.max(initial=0), which.max(initial=0)))
    many = 1 + int(max(sender.max(initial=0), by.max(initial=0)))
    sent, told = (ring * many + sender) * most + number, (to * many + by) * most + which
    order = numpy.argsort(sent)
    places = numpy.searchsorted(sent[order], told)
    if len(numpy.unique(sent)) < len(sent) or len(numpy.unique(told)) < len(told):
        return None
    if not len(told) or (places >= len(sent)).any() or (sent[order][places] != told).any():
        return None
    values = numpy.sort(times[done] - times[taken[order[places]]])
    busiest = int(numpy.bincount(ring).argmax())

    def highest(up, up_ring, down, down_ring) -> int:
        """The most that there ever were at once in the busiest ring."""
        up, down = up[up_ring == busiest], down[down_ring == busiest]
        steps = numpy.concatenate([numpy.ones(len(up), "q"), -numpy.ones(len(down), "q")])
        level = numpy.cumsum(steps[numpy.argsort(numpy.concatenate([up, down]), kind="stable")])
        return int(level.max(initial=0))

    def rank(percent: int) -> int:
        return int(values[max(0, -(-percent * len(values) // 100) - 1)])

    ipis = happened.get("IpiSent", 0)
    return {
        "records": len(trace),
        "end_ns": int(times[-1]),
        "sent": len(taken),
        "delivered": len(done),
        "ipis": ipis,
        "interrupts": happened.get("InterruptTaken", 0),
        "ipis_per_message": ipis / len(read) if len(read) else None,
        "p50_ns": rank(50),
        "p99_ns": rank(99),
        "ring": busiest,
        "slots": capacity(run),
        "in_use_at_most": highest(copied, copied_ring, read, read_ring),
        "held_at_most": highest(taken, ring, read, read_ring),
    }


def record_by_record(run) -> dict:
    """The same for any run, however odd."""
    trace, counts = trace_of(run), interrupts_per_message(run)
    values = [row["latency_ns"] for row in latencies(run)]
    ring = busiest_ring(run)
    levels = occupancy(run, ring) if rings(run) else []
    return {
        "records": len(trace),
        "end_ns": end_ns(run),
        "sent": trace.kinds().get("TicketTaken", 0),
        "delivered": trace.kinds().get("MessageDelivered", 0),
        "ipis": counts["ipis"],
        "interrupts": counts["interrupts"],
        "ipis_per_message": counts["ipis_per_message"],
        "p50_ns": percentile(values, 50),
        "p99_ns": percentile(values, 99),
        "ring": ring,
        "slots": capacity(run),
        "in_use_at_most": max((level["in_use"] for level in levels), default=0),
        "held_at_most": max((level["held"] for level in levels), default=0),
    }


# -- charts: what each says, in words and rows, and how it is drawn --------------------------------


class Look(NamedTuple):
    """How one of several runs is drawn: never by colour alone (the colours: Okabe and Ito's)."""

    colour: str
    dash: str
    hatch: str
    marker: str


LOOKS = (
    Look("#0072B2", "solid", "blank", "circle"),
    Look("#D55E00", "dashed", "right_diagonal_line", "square"),
    Look("#009E73", "dashdot", "dot", "triangle"),
    Look("#86365F", "dotted", "cross", "diamond"),
)


class Chart(NamedTuple):
    """One chart and its twin: ``says`` and the table hold what the picture shows."""

    title: str
    says: str
    columns: tuple[str, ...]
    rows: list[tuple]
    draw: Callable[[], object]  # makes the Bokeh figure


class Charts:
    """What ``show`` returns. A notebook shows it; ``html()`` is the block, ``str()`` the text."""

    def __init__(self, charts: Sequence[Chart]) -> None:
        self.charts = tuple(charts)

    def html(self, *, library: bool = True, place: str = "") -> str:
        """The block. ``library=False`` leaves out BokehJS, for a page that another block of this
        kind gives it to. Blocks with the same ``place`` replace each other: what an older one
        held in memory is freed."""
        pictures = []
        for chart in self.charts:
            shown = escape(chart.title)
            pictures.append(
                f'<figure class="pk-chart" aria-label="{shown}"><figcaption><b>{shown}</b>'
                f"<span>{escape(chart.says)}</span></figcaption>"
                '<div class="pk-canvas"></div>'
                f"<details><summary>{shown}, as a table</summary>"
                f"{table_html(chart.columns, chart.rows)}</details></figure>"
            )
        items = json.dumps([_item(chart.draw()) for chart in self.charts], separators=(",", ":"))
        return (
            f'<section class="pk-charts" data-place="{escape(place)}">'
            f"<style>{_text('charts.css')}</style>{''.join(pictures)}"
            f'<script type="application/json">{items.replace("</", "<" + chr(92) + "/")}</script>'
            f"{library_html() if library else ''}<script>{_script()}</script></section>"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        blocks = []
        for chart in self.charts:
            lines = [chart.title, chart.says, "  ".join(chart.columns)]
            lines += ["  ".join(map(show_value, row)) for row in chart.rows]
            blocks.append("\n".join(lines))
        return "\n\n".join(blocks)


def show(
    *runs,
    names: Sequence[str] | None = None,
    ring: int | None = None,
    charts: Sequence[str] | None = None,
) -> Charts:
    """The charts of a run, or of up to four runs to compare.

    names   what to call the runs (default: A, B, ...)
    ring    whose occupancy to draw (default: the busiest ring of the first run)
    charts  which of "occupancy", "latency" and "interrupts" (default: all three)
    """
    if not 1 <= len(runs) <= len(LOOKS):
        raise PopcornError(f"show() draws one to {len(LOOKS)} runs at a time, not {len(runs)}")
    for run in runs:
        if not hasattr(trace_of(run), "records"):
            raise PopcornError(f"show() draws runs; {type(run).__name__} is none")
    if names is None:
        names = ("run",) if len(runs) == 1 else tuple("ABCD"[: len(runs)])
    if isinstance(names, str) or len(names) != len(runs):
        raise PopcornError(f"names={names!r}: expected {len(runs)}, one for each run")
    for wanted in charts or ():
        if wanted not in CHARTS:
            raise PopcornError(f"there is no chart {wanted!r}; {near_names(wanted, CHARTS)}")
    named = dict(zip(map(str, names), runs, strict=True))
    if len(named) != len(runs):
        raise PopcornError(f"names={names!r}: expected different names")
    if ring is None:
        ring = busiest_ring(runs[0])
    return Charts([CHARTS[wanted](named, ring) for wanted in charts or CHARTS])


def occupancy_chart(named: dict, ring: int) -> Chart:
    """Slots in use over time, a step line, with the ring's capacity."""
    levels = {name: occupancy(run, ring) for name, run in named.items()}
    sizes = {name: capacity(run) for name, run in named.items()}
    says, rows = [f"Ring {ring} belongs to kernel {ring}."], []
    for name, run in named.items():
        top = max(levels[name], key=lambda level: level["in_use"])
        of = f" of {sizes[name]}" if sizes[name] else ""
        who = f"{name}: at" if len(named) > 1 else "At"
        says.append(
            f"{who} most {top['in_use']}{of} slots in use, first at {top['time_ns']:,} ns."
            if top["in_use"]
            else f"{who[:-2]}it stays empty."
            if len(named) > 1
            else "It stays empty."
        )
        held = max(level["held"] for level in levels[name])
        if sizes[name] and held > sizes[name]:
            says.append(f"Up to {held} tickets were held for them: senders had to wait.")
        rows += [(name, *row) for row in _intervals(levels[name], end_ns(run))]
    columns = ("run", "from (ns)", "to (ns)", "slots in use, at most", "tickets held, at most")
    return Chart(
        "Ring occupancy over time", " ".join(says), columns, rows,
        lambda: _draw_occupancy(named, levels, sizes),
    )  # fmt: skip


def _intervals(levels: list[dict], end: int) -> list[tuple]:
    """The highest levels within each of a few equal stretches of time."""
    rows = []
    for n in range(TWIN_INTERVALS if end else 0):
        start, stop = end * n // TWIN_INTERVALS, end * (n + 1) // TWIN_INTERVALS
        before = [level for level in levels if level["time_ns"] <= start][-1:]
        inside = [level for level in levels if start < level["time_ns"] <= stop]
        most = [max(level[what] for level in before + inside) for what in ("in_use", "held")]
        rows.append((start, stop, *most))
    return rows


def latency_chart(named: dict, ring: int) -> Chart:
    """The share of messages that arrived within a time: a curve for each run and priority."""
    rows, says = [], []
    for name, run in named.items():
        mine = latency_percentiles(run)
        rows += [(name, *row.values()) for row in mine]
        whose = f"{name}: " if len(named) > 1 else ""
        which = {row["priority"]: f" ({row['priority']})" if len(mine) > 1 else "" for row in mine}
        halves = [f"{row['p50_ns']:,} ns{which[row['priority']]}" for row in mine]
        longest = [f"{row['p99_ns']:,} ns{which[row['priority']]}" for row in mine]
        if mine:
            says.append(
                f"{whose}half within {' and '.join(halves)}, 99 % within {' and '.join(longest)}."
            )
    columns = ("run", "priority", "messages", "p50 (ns)", "p90 (ns)", "p99 (ns)", "longest (ns)")
    return Chart(
        "Message latency",
        "From ticket to callback: " + (" ".join(says) or "no message was delivered."),
        columns, rows, lambda: _draw_latency(named),
    )  # fmt: skip


def interrupts_chart(named: dict, ring: int) -> Chart:
    """IPIs sent and interrupts taken for each message: a bar for each run."""
    counts = {name: interrupts_per_message(run) for name, run in named.items()}
    says = []
    for name, count in counts.items():
        whose = f"{name}: " if len(named) > 1 else ""
        says.append(
            f"{whose}{count['ipis']:,} IPIs and {count['interrupts']:,} interrupts for "
            f"{count['messages']:,} messages."
        )
    columns = ("run", "messages read", "IPIs sent", "interrupts taken", "IPIs per message",
               "interrupts per message")  # fmt: skip
    rows = [(name, *count.values()) for name, count in counts.items()]
    return Chart(
        "Interrupts per message", " ".join(says), columns, rows, lambda: _draw_interrupts(counts)
    )


def sweep_chart(drawn: dict, x: str, y: str, by: str | None, call: Callable, choose: str = ""):
    """The points of a sweep: {name: [(x, y, row), ...]}, each name's joined by a line.

    ``call`` tells what makes a row's run; ``choose`` is the CSS class of the list in a notebook
    in which a point that is clicked shall be chosen.
    """
    says = []
    for name, points in drawn.items():
        values = [value for _, value, _ in points]
        whose = f"{by} {name}: " if by else f"{name}: " if name != y else ""
        says.append(f"{whose}{y} from {show_value(min(values))} to {show_value(max(values))}.")
    rows = [
        (name, *point[:2], call(point[2])) for name, points in drawn.items() for point in points
    ]
    return Charts(
        [
            Chart(
                f"{y} over {x}", " ".join(says) or "There is no point to draw.",
                (by or "", x, y, "what makes the run"), rows,
                lambda: _draw_sweep(drawn, x, y, by, call, choose),
            )
        ]
    )  # fmt: skip


CHARTS: dict[str, Callable[[dict, int], Chart]] = {
    "occupancy": occupancy_chart,
    "latency": latency_chart,
    "interrupts": interrupts_chart,
}


def show_value(value: object) -> str:
    """A cell of a table as text."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table_html(columns: Sequence[str], rows: Sequence[tuple]) -> str:
    """A plain table; numbers stand to the right."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{'' if isinstance(value, str) else ' class=pk-number'}>"
            f"{escape(show_value(value))}</td>"
            for value in row
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# -- drawing. Bokeh is imported in here only ------------------------------------------------------

INK = "#1b1f23"
QUIET = "#57606a"
GRID = "#e4e8ec"
FONT = "system-ui, 'Segoe UI', 'Liberation Sans', sans-serif"


def _figure(x_label: str, y_label: str, **options):
    """An empty picture in the house's look: wide, calm, with the tools a keyboard can reach."""
    from bokeh.models import BoxZoomTool, PanTool, ResetTool
    from bokeh.plotting import figure

    plot = figure(
        height=270, min_width=240, sizing_mode="stretch_width", toolbar_location="right",
        tools=[BoxZoomTool(dimensions="width"), PanTool(dimensions="width"), ResetTool()],
        x_axis_label=x_label, y_axis_label=y_label, outline_line_color="#8c959f",
        background_fill_color="#ffffff", border_fill_color="#ffffff", **options,
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.grid.grid_line_color = GRID
    for axis in plot.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = "#57606a"
        axis.minor_tick_line_color = None
    return plot


def _legend_below(plot) -> None:
    """Move the legend out of the data's way. A click on an entry hides its line."""
    for legend in list(plot.legend):
        plot.center.remove(legend)
        legend.update(
            location="left", ncols=2, padding=0, margin=0, spacing=8, glyph_width=32,
            glyph_height=12, label_height=12, label_text_font=FONT, label_text_font_size="12px",
            label_text_color=INK, border_line_color=None, click_policy="hide",
        )  # fmt: skip
        plot.add_layout(legend, "below")


def _note(plot, text, x, y, *, align="right", below=False, line=0, colour=INK) -> None:
    """A few words at the end of a line, legible over what is drawn there."""
    from bokeh.models import Label

    plot.add_layout(
        Label(
            x=x, y=y, text=text, text_align=align, text_baseline="top" if below else "bottom",
            y_offset=-3 - 15 * line if below else 2, text_font=FONT,
            text_font_size="12px", text_color=colour, background_fill_color="#ffffff",
            background_fill_alpha=0.85,
        )
    )  # fmt: skip


def _whole_numbers(axis) -> None:
    from bokeh.models import NumeralTickFormatter

    axis.formatter = NumeralTickFormatter(format="0,0")
    axis.ticker.min_interval = 1
    axis.ticker.desired_num_ticks = 4


def _hover(plot, renderers, *tooltips) -> None:
    from bokeh.models import HoverTool

    plot.add_tools(HoverTool(renderers=renderers, tooltips=list(tooltips), visible=False))


def _draw_occupancy(named: dict, levels: dict, sizes: dict):
    from bokeh.models import Range1d, Span

    end = max((end_ns(run) for run in named.values()), default=0) or 1
    top = max((level["in_use"] for rows in levels.values() for level in rows), default=0)
    held = {
        name: rows
        for name, rows in levels.items()
        if sizes[name] and max(level["held"] for level in rows) > sizes[name]
    }
    top = max([top, *(level["held"] for rows in held.values() for level in rows)])
    roof = max(4, top * 1.3)
    plot = _figure(
        "time since power-on (ns)",
        "slots",
        x_range=Range1d(0, end * 1.01),
        y_range=Range1d(0, roof),
    )
    points = []
    for (name, rows), look in zip(levels.items(), LOOKS, strict=False):
        rows = _thinned(rows)
        data = _columns(rows + [rows[-1] | {"time_ns": end_ns(named[name])}])
        data["run"] = [name] * len(data["time_ns"])
        label = f"{name}: in use" if len(named) > 1 else "slots in use"
        style = {"line_color": look.colour, "line_dash": look.dash}
        style["line_width"] = 2 if len(rows) < 400 else 1.2
        if len(named) == 1:
            shape = _outline(data["time_ns"], data["in_use"])
            plot.varea(*shape, fill_color=look.colour, fill_alpha=0.15)
        line = plot.step(
            "time_ns", "in_use", source=data, mode="after", legend_label=label, **style
        )
        if name in held:
            label = f"{name}: held" if len(named) > 1 else "tickets held"
            plot.step(
                "time_ns", "held", source=line.data_source, mode="after", legend_label=label,
                line_color=look.colour, line_width=1, line_dash=[2, 3],
            )  # fmt: skip
        points.append(plot.scatter("time_ns", "in_use", source=line.data_source, size=10, alpha=0))
    differ, above = len(set(sizes.values())) > 1, {}
    for (name, slots), look in zip(sizes.items(), LOOKS, strict=False):
        if slots is None or (slots in sizes.values() and not differ and name != next(iter(sizes))):
            continue
        text = f"capacity: {slots} slots" + (f" ({name})" if differ else "")
        colour = look.colour if differ else INK
        if slots > roof * 0.98:
            above[text] = colour
            continue
        line = {"line_color": colour, "line_width": 2, "line_dash": [1, 3]}
        plot.add_layout(Span(location=slots, dimension="width", **line))
        _note(plot, text, end, slots, colour=colour)
    for line, (text, colour) in enumerate(above.items()):
        _note(plot, f"▲ {text}", end, roof, below=True, line=line, colour=colour)
    _hover(plot, points, ("run", "@run"), ("record", "@record"), ("time", "@time_ns{0,0} ns"),
           ("slots in use", "@in_use"), ("tickets held", "@held"))  # fmt: skip
    _whole_numbers(plot.xaxis[0])
    _whole_numbers(plot.yaxis[0])
    _legend_below(plot)
    return plot


def _draw_latency(named: dict):
    from bokeh.models import Range1d, Span

    rows = {name: latencies(run) for name, run in named.items()}
    longest = max((row["latency_ns"] for all in rows.values() for row in all), default=0) or 1
    plot = _figure(
        "latency (ns)", "share of the messages (%)",
        x_range=Range1d(0, longest * 1.05), y_range=Range1d(0, 104),
    )  # fmt: skip
    for percent in (50, 99):
        plot.add_layout(
            Span(location=percent, dimension="width", line_color="#8c959f", line_dash=[1, 3])
        )
    marks = []
    priorities = {row["priority"] for all in rows.values() for row in all}
    for (name, measured), look in zip(rows.items(), LOOKS, strict=False):
        for priority in Priority:
            values = sorted(
                row["latency_ns"] for row in measured if row["priority"] == str(priority)
            )
            if not values:
                continue
            label = ", ".join(
                [name] * (len(named) > 1) + [str(priority)] * (len(priorities) > 1)
            ) or str(priority)
            high = priority == Priority.HIGH
            style = {"line_color": look.colour, "line_width": 1.5 if high else 2.5}
            steps = _curve(values)
            plot.step(
                [x for x, _ in steps], [y for _, y in steps], mode="after", legend_label=label,
                line_dash=look.dash, **style,
            )  # fmt: skip
            at = [percentile(values, percent) for percent in PERCENTILES]
            source = {
                "x": at, "y": list(PERCENTILES), "of": [label] * len(at),
                "which": [f"p{percent}" for percent in PERCENTILES],
            }  # fmt: skip
            marks.append(
                plot.scatter(
                    "x", "y", source=source, size=9, marker=look.marker, line_color=look.colour,
                    fill_color="#ffffff" if high else look.colour, legend_label=label,
                )
            )  # fmt: skip
    if marks:
        _hover(
            plot, marks, ("messages", "@of"), ("percentile", "@which"), ("latency", "@x{0,0} ns")
        )
    _whole_numbers(plot.xaxis[0])
    plot.yaxis[0].ticker = [0, 25, 50, 75, 99]
    _legend_below(plot)
    return plot


def _draw_sweep(drawn: dict, x: str, y: str, by: str | None, call: Callable, choose: str):
    from bokeh.models import CustomJS, DataRange1d, TapTool

    plot = _figure(x, y, x_range=DataRange1d(), y_range=DataRange1d(start=0))
    order = sorted(row for points in drawn.values() for *_, row in points)
    marks = []
    for (name, points), look in zip(drawn.items(), LOOKS, strict=False):
        label = f"{by} {name}" if by else name
        xs, ys, rows = map(list, zip(*points, strict=True))
        plot.line(xs, ys, line_color=look.colour, line_dash=look.dash, line_width=2,
                  legend_label=label)  # fmt: skip
        source = {
            "x": xs, "y": ys, "of": [label] * len(xs), "call": [call(row) for row in rows],
            "place": [order.index(row) for row in rows],
        }  # fmt: skip
        marks.append(
            plot.scatter("x", "y", source=source, size=10, marker=look.marker,
                         line_color=look.colour, fill_color=look.colour, legend_label=label)
        )  # fmt: skip
    if marks:
        _hover(plot, marks, ("points", "@of"), (x, "@x"), (y, "@y"), ("run", "@call"))
        chosen = CustomJS(args={"choose": choose}, code=CHOOSE_POINT)
        plot.add_tools(TapTool(renderers=marks, callback=chosen))
    _legend_below(plot)
    return plot


# A click on a point chooses it in the list below, as a hand would.
CHOOSE_POINT = """
const list = choose && document.querySelector('.' + choose + ' select');
const at = cb_data.source.selected.indices[0];
if (list && at !== undefined) {
    list.selectedIndex = cb_data.source.data.place[at];
    list.dispatchEvent(new Event('change', {bubbles: true}));
}
"""


def _draw_interrupts(counts: dict):
    from bokeh.core.properties import value
    from bokeh.models import FactorRange, LabelSet, Range1d, Span

    kinds = {"IPIs sent": "ipis_per_message", "interrupts taken": "interrupts_per_message"}
    ratios = [count[key] or 0 for count in counts.values() for key in kinds.values()]
    top = max(ratios, default=0)
    one_is_far = 0 < top < 0.2
    roof = top * 1.3 if one_is_far else max(1, top) * 1.18
    factors = [(kind, name) for kind in kinds for name in counts]
    plot = _figure(
        "", "for each message that was read",
        x_range=FactorRange(*factors, group_padding=0.6, range_padding=0.1),
        y_range=Range1d(0, roof),
    )  # fmt: skip
    for (name, count), look in zip(counts.items(), LOOKS, strict=False):
        values = [count[key] for key in kinds.values()]
        source = {
            "x": [(kind, name) for kind in kinds],
            "top": [ratio or 0 for ratio in values],
            "text": ["no messages" if ratio is None else f"{ratio:.2f}" for ratio in values],
            "number": [count["ipis"], count["interrupts"]],
            "messages": [count["messages"]] * 2,
        }
        bars = plot.vbar(
            "x", 0.8, "top", source=source, fill_color=look.colour, line_color=INK, line_width=1,
            fill_alpha=0.9, hatch_pattern=look.hatch, hatch_color="#ffffff", hatch_alpha=0.9,
            hatch_weight=2, hatch_scale=10,
        )  # fmt: skip
        plot.add_layout(
            LabelSet(
                x="x", y="top", text="text", source=bars.data_source, text_align="center",
                text_baseline="bottom", y_offset=2, text_font=value(FONT), text_font_size="12px",
                text_color=INK, text_font_style="bold",
            )
        )  # fmt: skip
        _hover(plot, [bars], ("run", name), ("number", "@number"), ("messages", "@messages"))
    rule = "one for each message"
    if one_is_far:
        _note(plot, f"▲ 1.00: {rule}", 0, roof, align="left", below=True, colour=QUIET)
    else:
        plot.add_layout(Span(location=1, dimension="width", line_color=QUIET, line_dash=[1, 3]))
        _note(plot, f"1.00: {rule}", 0, 1, align="left", colour=QUIET)
    plot.xgrid.grid_line_color = None
    axis = plot.xaxis[0]
    axis.group_text_font, axis.group_text_font_size, axis.group_text_color = FONT, "12px", INK
    axis.group_text_font_style, axis.separator_line_color = "normal", None
    if len(counts) == 1:
        axis.major_label_text_alpha = axis.major_tick_line_alpha = 0
        axis.major_label_text_font_size = "0px"
    return plot


def _columns(rows: list[dict]) -> dict[str, list]:
    """Rows as columns; a record that is none is shown as a dash."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["record"] = ["–" if record is None else record for record in columns["record"]]
    return columns


def _thinned(rows: list[dict]) -> list[dict]:
    """A line of many points with fewer: of each stretch the lowest and the highest stay."""
    if len(rows) <= POINTS_AT_MOST:
        return rows
    stretch = -(-len(rows) // (POINTS_AT_MOST // 4))
    kept = {0, len(rows) - 1}
    for start in range(0, len(rows), stretch):
        inside = range(start, min(start + stretch, len(rows)))
        for what in ("in_use", "held"):
            kept.add(min(inside, key=lambda n: rows[n][what]))
            kept.add(max(inside, key=lambda n: rows[n][what]))
    return [rows[n] for n in sorted(kept)]


def _outline(times: list[int], levels: list[int]) -> tuple[list, list, list]:
    """The filled area under a step line: its corners, and the ground."""
    x = list(itertools.chain.from_iterable(zip(times[1:], times[1:], strict=True)))
    y = list(itertools.chain.from_iterable(zip(levels, levels[1:], strict=False)))
    x, y = [times[0], *x], [levels[0], *y]
    return x, [0] * len(x), y


def _curve(values: list[int]) -> list[tuple[int, float]]:
    """(latency, per cent that do not exceed it) for sorted values, thinned evenly by rank."""
    count = len(values)
    step = max(1, -(-count // POINTS_AT_MOST))
    ranks = sorted({*range(0, count, step), count - 1})
    return [(values[0], 0.0), *((values[n], 100 * (n + 1) / count) for n in ranks)]


def _item(plot) -> dict:
    """A Bokeh figure as BokehJS reads it."""
    from bokeh.document import Document

    document = Document()
    document.add_root(plot)
    return {"doc": document.to_json(deferred=False), "root_id": plot.id}


# -- BokehJS, offline -----------------------------------------------------------------------------


@cache
def library_html() -> str:
    """BokehJS's core, compressed: the page unpacks it once, when the first chart asks for it."""
    code = resources.files("bokeh").joinpath("server/static/js/bokeh.min.js").read_bytes()
    packed = base64.b64encode(zlib.compress(code, 9)).decode()
    return f'<script type="text/plain" class="pk-bokeh">{packed}</script>'


def library_only() -> str:
    """A block without a chart: it brings BokehJS to a page whose other blocks leave it out."""
    return (
        f'<section class="pk-charts">{library_html()}<script type="application/json">[]</script>'
        f"<script>{_script()}</script></section>"
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("figures_page", name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    import bokeh

    lines = (line.strip() for line in _text("charts.js").splitlines())
    code = "\n".join(line for line in lines if line and not line.startswith("//"))
    return code.replace("BOKEH_VERSION", json.dumps(bokeh.__version__))

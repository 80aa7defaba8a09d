"""The step-through player: one block of HTML that needs no kernel, no network and no library.

``run.play()`` returns a Player, which a notebook shows. Python's share is to fold the run once
and note, for each record, which table cells change and to what (the *patches*); the scripts in
player_page/ apply and undo those patches in the browser and draw the tables. So the browser
knows no rule of the model, and a new component is playable once it has events and tables.

Words
    payload   everything the browser needs, as columns of small numbers, deflated
    cell      one key of one table; cells, values and actors are numbered and sent once
    lane      a row of the space-time diagram: one for each kernel, one for everybody else
    gate      a question in front of a record: the player stays before it until it is answered
    fallback  the steps as a plain table, for where scripts and styles are taken away
              (an untrusted notebook, a preview on the web)

What a component adds to be drawn well: a row in ARROWS, SPANS or GLYPHS below. Without one its
events are dots in their lane, and everything else works.
"""

from __future__ import annotations

import base64
import json
import re
import string
import sys
import weakref
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from popcorn_edu import faults
from popcorn_edu.engine.trace import (
    Event,
    NeverHappened,
    PopcornError,
    Record,
    Word,
    near_names,
    write_whole,
)

RECORDS_AT_MOST = 200_000  # in one player; a longer run is shown in part
FALLBACK_STEPS = 200  # rows of the plain table
TEXT_STEPS = 12  # lines of the plain text
JS_SAFE_INTEGER = 2**53 - 1
PICTURE_RADIUS = 150  # of the machine's circle of CPUs, in the units of its picture
FORKS_KEPT = 16  # runs that only a page refers to, so that a fork can be forked again


class Arrow(NamedTuple):
    """From one record to another, matched by the named fields, first come first served."""

    name: str
    start: str
    start_key: tuple[str, ...]
    end: str
    end_key: tuple[str, ...]
    head: str  # "full" or "open"
    glyph: str
    dash: tuple[int, ...] = ()
    ink: str = ""  # "": the colour of the lane it leaves


class Span(NamedTuple):
    """A stretch of a lane, from a record that opens it to the one that closes it.

    ``end`` may name several kinds, with spaces between.
    """

    name: str
    start: str
    start_key: tuple[str, ...]
    end: str
    end_key: tuple[str, ...]
    look: str  # solid, soft, band (the whole lane) or hatch


ARROWS = (
    Arrow("message", "SlotReady", ("ring", "ticket"), "MessageRead", ("ring", "ticket"),
          "full", "circle"),
    Arrow("IPI", "IpiSent", ("src", "dst"), "IpiArrived", ("src", "kernel"),
          "open", "triangle", (5, 4), "#222222"),
    Arrow("STARTUP IPI", "StartupIpiSent", ("cpu",), "RealModeEntered", ("cpu",),
          "open", "triangle", (5, 4), "#222222"),
    Arrow("marker", "MarkerWritten", ("cpu",), "MarkerSeen", ("cpu",), "full", "circle"),
    Arrow("command line", "CommandLineWritten", ("kernel",), "BootParamsCopied", ("meant_for",),
          "full", "circle", (2, 3)),
)  # fmt: skip

SPANS = (
    Span("interrupts off: it polls", "InterruptsDisabled", ("ring",),
         "InterruptsEnabled", ("ring",), "band"),
    Span("softirq", "SoftirqEntered", ("kernel",), "SoftirqExited", ("kernel",), "soft"),
    Span("ISR", "IpiArrived", ("kernel",), "InterruptTaken", ("kernel",), "solid"),
    Span("waits, spinning", "SenderBlocked", ("ring", "ticket"),
         "PayloadCopied", ("ring", "ticket"), "hatch"),
    Span("waits, asleep", "SenderSlept", ("ring", "ticket"),
         "PayloadCopied", ("ring", "ticket"), "hatch"),
    Span("waits, spinning", "HeadOfLineWait", ("ring", "ticket"),
         "MessageRead", ("ring", "ticket"), "hatch"),
    Span("a kernel starts", "KernelJumped", ("kernel",), "CheckedIn WrongLineTaken "
         "ForeignMemoryTaken ForeignCpusTaken KernelPanicked TimerHangs", ("kernel",), "band"),
    Span("a CPU climbs", "RealModeEntered", ("cpu",),
         "KernelJumped TripleFault WrongKernelEntered", ("cpu",), "soft"),
    Span("waits, spinning", "MarkerAwaited", ("cpu",), "MarkerSeen MarkerMissing", ("cpu",),
         "hatch"),
)  # fmt: skip

FAILED_BOOTS = """
    RamdiskRefused CommandLineRefused CommandLineTruncated SegmentRefused CpuRefused MarkerMissing
    BootErrorFlagged StuckPrinted ExtraMapMissed TripleFault WrongKernelEntered WrongLineTaken
    ForeignMemoryTaken ForeignCpusTaken KernelPanicked TimerHangs OperatorGaveUp
"""

# kind -> (shape, hollow?). An arrow's first and last record have its shape, full and hollow.
GLYPHS = {
    "InterruptTaken": ("diamond", False),
    "SoftirqEntered": ("diamond", False),
    "SoftirqExited": ("diamond", True),
    "InterruptsDisabled": ("diamond", False),
    "InterruptsEnabled": ("diamond", True),
    "MessageDelivered": ("square", False),
    "SenderBlocked": ("bar", False),
    "SenderSlept": ("bar", False),
    **dict.fromkeys(
        ("LongMessageComplete", "McastRead", "ChannelMapped", "ServiceNotified"), ("square", False)
    ),
    **dict.fromkeys(
        (
            "RegistrationRefused",
            "SubscriberDropped",
            "PeerMissed",
            "PeerDeclaredDead",
            "LongMessageCorrupted",
            "ChunkLost",
            "McastGaveUp",
            "McastRefused",
            "OpenRefused",
            "CloseRefused",
        ),
        ("cross", False),
    ),
    "SendRefused": ("cross", False),
    "PollingStarted": ("diamond", False),
    "LingerChosen": ("diamond", True),
    "StoreWaits": ("bar", False),
    "HeadOfLineWait": ("bar", False),
    "MessageDropped": ("cross", False),
    "SendFailed": ("cross", False),
    "IpiLost": ("cross", False),
    "AllocationFailed": ("cross", False),
    **dict.fromkeys(
        ("RealModeEntered", "ProtectedModeEntered", "LongModeEntered", "KernelJumped"),
        ("diamond", False),
    ),
    "CheckedIn": ("square", False),
    **dict.fromkeys(FAILED_BOOTS.split(), ("cross", False)),
    "NeverHappened": ("cross", False),
    "SettingChanged": ("cross", False),
}

GLYPH_WORDS = {  # the legend
    "diamond": "a receiver or a CPU changes its mode",
    "square": "a callback runs, or a kernel is up",
    "bar": "starts to wait",
    "cross": "lost, failed or forked",
    "dot": "another step",
}

# An actor's lane is its kernel's; its row within the lane is what it is there.
ACTOR = re.compile(r"^(?P<before>.*?)\bkernel (?P<kernel>\d+)\b *(?P<after>.*)$")
CPU_ACTOR = re.compile(r"^cpu (?P<cpu>\d+)$")  # in the lane of the kernel that it is woken for
ROWS = {"": "process", "IPI to": "isr"}  # other actors: "kernel 3 softirq" is in the row softirq


def _hex(value: object) -> str:
    return f"{value:#x}" if type(value) is int else str(value)


SHOWN_AS = {  # tables whose numbers read better otherwise
    **dict.fromkeys(
        (
            "boot.image_at",
            "boot.registers",
            "boot.low",
            "boot.pages",
            "boot.boot_params",
            "boot.ram",
        ),
        _hex,
    ),
    "messaging.published": "{:#x}".format,
    "messaging.mapped": lambda mask: ", ".join(
        str(kernel) for kernel in range(mask.bit_length()) if mask >> kernel & 1
    ),
}

# The browser's half, in reading order.
SCRIPTS = (
    "parts.js", "story.js", "drawing.js", "diagram.js", "ring.js", "machine.js", "kernels.js",
    "predict.js", "fork.js", "player.js", "start.js",
)  # fmt: skip
BOOT_SCRIPTS = ("gantt.js", "climb.js")  # only where kernels boot

FIXED = {"slots"}  # settings not offered for a fork half-way: memory that is laid out already

TEMPLATE_SPECS = ("", "#x", ",")  # what story.js can format by itself


class Player:
    """A run to step through. A notebook shows it; ``html()`` is the block, ``str()`` the text."""

    def __init__(self, run, payload: dict, window: range) -> None:
        self.run, self.payload, self.window = run, payload, window

    def html(self) -> str:
        """The self-contained block."""
        packed = zlib.compress(json.dumps(self.payload, separators=(",", ":")).encode(), 9)
        return (
            f'<section class="pk-player" tabindex="0" role="region" '
            f'data-lm-suppress-shortcuts="true" '
            f'aria-label="{escape(self.payload["title"])}">'
            f"{self._fallback()}"
            f'<script type="text/plain">{base64.b64encode(packed).decode()}</script>'
            f"<script>{_script(bool(self.payload['boot']))}</script></section>"
        )

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:
        shown = self._around(TEXT_STEPS)
        lines = [self.payload["title"], self.payload["subtitle"]]
        lines += [str(record) for record in self.run.trace[shown.start : shown.stop]]
        if len(shown) < len(self.run.trace):
            lines.append(f"({len(shown)} of {len(self.run.trace):,} records; run.show() has all)")
        return "\n".join(lines)

    def _around(self, most: int) -> range:
        """At most so many records of the window, about a third of them before the opening one."""
        window, at = self.window, self.window.start + self.payload["at"]
        start = max(window.start, min(at - most // 3, window.stop - most))
        return range(start, min(window.stop, start + most))

    def _fallback(self) -> str:
        shown, total = self._around(FALLBACK_STEPS), len(self.run.trace)
        rows = "".join(
            f"<tr><td>{record.seq}</td><td>{record.time:,}</td><td>{escape(record.who)}</td>"
            f"<td>{escape(str(record.event))}</td></tr>"
            for record in self.run.trace[shown.start : shown.stop]
        )
        which = "all steps"
        if len(shown) < total:
            last = shown.stop - 1
            which = f"steps {shown.start} to {last}; the other {total - len(shown):,} are left out"
        return (
            f"<p><b>{escape(self.payload['title'])}</b>. {escape(self.payload['subtitle'])} "
            "The player itself needs JavaScript: in JupyterLab, trust the notebook "
            "(View, Activate Command Palette, Trust Notebook) or run the cell.</p>"
            f"<details><summary>The run as a table: {which}</summary><table><thead><tr>"
            "<th>Record</th><th>Time (ns)</th><th>Who</th><th>What happens</th></tr></thead>"
            f"<tbody>{rows}</tbody></table></details>"
        )


def play(
    run,
    *,
    at: int | None = None,
    around: int | None = None,
    ask: Iterable[Mapping] = (),
    compact: bool = False,
    title: str = "",
    name: str = "",
) -> Player:
    """The player for a run.

    at       open at this record (otherwise before the first)
    around   a run of more than 200,000 records is shown in part: the part around this record
    ask      predictions to make, each ``{"at": 412, "question": ..., "options": [...],
             "answer": ...}``: the player stops before record ``at`` until an option is chosen.
             Without ``options`` the answer is typed; they may map an answer to its text.
             ``answer`` and ``why`` are optional
    compact  open with the space-time diagram only; the other views are under "Views"
    name     how the run is called in the line of Python that a fork shows
    """
    total = len(run.trace)
    for option, value in (("at", at), ("around", around)):
        if value is not None and (type(value) is not int or not 0 <= value < max(total, 1)):
            raise PopcornError(
                f"play({option}={value!r}): expected a record number from 0 to {total - 1}"
            )
    middle = around if around is not None else at
    start = 0
    if total > RECORDS_AT_MOST and middle is not None:
        start = max(0, min(middle - RECORDS_AT_MOST // 2, total - RECORDS_AT_MOST))
    window = range(start, min(total, start + RECORDS_AT_MOST))
    payload = fold(run, window)
    payload |= _heading(run, window, title)
    name = name or _name_of(run)
    payload |= {
        "at": 0 if middle is None else middle - window.start + 1,
        "ask": [_gate(gate, number, window) for number, gate in enumerate(ask)],
        "compact": bool(compact),
        "fork": {"name": name, "settings": _settings(run), "faults": _faults(run)},
        "forked": "",
        "live": _live(run, name),
        "css": _text("player.css"),
    }
    return Player(run, payload, window)


def to_html(run, path, **options) -> Path:
    """Write the player as a page of its own; returns the path."""
    player = play(run, **options)
    title = escape(player.payload["title"])
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>\n'
        f'<body style="margin:1rem"><main><h1 style="font:1.2rem sans-serif">{title}</h1>'
        f"{player.html()}</main></body></html>\n"
    )
    return write_whole(path, page.encode())


# -- the fold: what changes at each record --------------------------------------------------------

_GONE = object()


class Watched(dict):
    """A table that notes in ``log`` every key whose value really changes."""

    __slots__ = ("log", "table")

    def __setitem__(self, key, value) -> None:
        old = self.get(key, _GONE)
        if old is _GONE or type(old) is not type(value) or old != value:
            self.log.append((self.table, key, value))
        dict.__setitem__(self, key, value)

    def __delitem__(self, key) -> None:
        dict.__delitem__(self, key)
        self.log.append((self.table, key, _GONE))

    def pop(self, key, *default):
        if key in self:
            self.log.append((self.table, key, _GONE))
        return dict.pop(self, key, *default)

    def popitem(self):
        key, value = dict.popitem(self)
        self.log.append((self.table, key, _GONE))
        return key, value

    def setdefault(self, key, default=None):
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others, **more) -> None:
        for key, value in dict(*others, **more).items():
            self[key] = value

    def __ior__(self, other):
        self.update(other)
        return self

    def clear(self) -> None:
        for key in list(self):
            del self[key]


class Numbering:
    """Gives each different thing a number, and keeps what is to be sent for it."""

    def __init__(self) -> None:
        self.items: list = []
        self._numbers: dict = {}

    def number(self, key, item=None) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.items)
            self.items.append(key if item is None else item)
        return number


class Values(Numbering):
    """The values that occur in tables and fields. Sent as JSON, with a text where that differs."""

    def of(self, value, shown_as=None) -> int:
        if value.__class__ in (int, str) and shown_as is None:
            number = self._numbers.get((value.__class__, value))
            if number is not None:
                return number
        plain = plain_value(value)
        text = shown_as(value) if shown_as else show(value)
        if shown_as is None and value.__class__ in (int, str) and plain == value:
            return self.number((value.__class__, value), plain)
        if shown_as is None and (value is None or value.__class__ is bool):
            return self.number((value.__class__, value), [text, plain])
        return self.number(json.dumps([text, plain]), [text, plain])


def plain_value(value):
    """A table's value as JSON, the same for equal values."""
    if isinstance(value, Word):
        return value.name
    if isinstance(value, Event):
        fields = zip(value.fields, map(plain_value, value), strict=True)
        return {"kind": type(value).__name__, **dict(fields)}
    if isinstance(value, (tuple, list)):
        return [plain_value(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain_value(item) for item in value), key=json.dumps)
    if isinstance(value, dict):
        return [[plain_value(key), plain_value(item)] for key, item in value.items()]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) <= JS_SAFE_INTEGER else str(value)
    return str(value)


def show(value) -> str:
    """A value as a person reads it: a message in words, another event by its kind."""
    if not isinstance(value, Event):
        return str(value)
    if {"number", "sender"} <= set(value.fields):
        return f"message {value.number} of kernel {value.sender}"
    return type(value).__name__


def fold(run, window: range) -> dict:
    """The part of the payload that comes from the trace and the world: records and patches."""
    world, log = run.at(window.start), []
    tables, initial, cells, values = [], [], Numbering(), Values()
    for part_name, part in world.parts.items():
        for name in part.tables:
            number, rows = len(tables), getattr(part, name)
            shown_as = SHOWN_AS.get(f"{part_name}.{name}")
            tables.append((part_name, name, shown_as))
            for key, value in rows.items():
                cells.number((number, key))
                initial.append(values.of(value, shown_as))
            watched = Watched(rows)
            watched.log, watched.table = log, number
            setattr(part, name, watched)

    records = run.trace[window.start : window.stop]
    kinds = _Kinds(records, values)
    actors = Numbering()
    columns: dict[str, list] = {
        name: []
        for name in ("time", "who", "cause", "kind", "field", "patches", "patchCell", "patchValue")
    }
    time, who, cause, patches = (columns[c] for c in ("time", "who", "cause", "patches"))
    patch_cell, patch_value = columns["patchCell"], columns["patchValue"]
    written: list[set] = [set() for _ in tables]  # a table of nothing but ones is a set of keys
    before, apply = 0, world.apply
    for record in records:
        time.append(record.time - before)
        before = record.time
        who.append(actors.number(record.who))
        back = 0 if record.cause is None else record.seq - record.cause
        cause.append(back if back <= record.seq - window.start else 0)
        kinds.add(record.event, columns)
        apply(record.event)
        changes = {(table, key): value for table, key, value in log}  # the last word on each cell
        patches.append(len(changes))
        for (table, key), value in changes.items():
            patch_cell.append(cells.number((table, key)))
            patch_value.append(-1 if value is _GONE else values.of(value, tables[table][2]))
            if len(written[table]) < 3 and value is not _GONE:
                written[table].add(value if type(value) is int else None)
        log.clear()

    kernels = _kernels(run, actors.items)
    lanes, lane, rows, row = _lanes(actors.items, kernels, _cpus_of(run, kernels))
    per_kernel = _per_kernel(world, tables, cells.items)
    happened = {kind.__name__ for kind in kinds.numbers}
    return columns | {
        "first": window.start,
        "total": len(run.trace),
        "actors": actors.items,
        "lanes": lanes,
        "lane": lane,
        "rows": rows,
        "row": row,
        "kinds": kinds.described(),
        "sentence": kinds.sentences,
        "tables": [
            {
                "part": part,
                "name": name,
                "perKernel": per_kernel[number],
                "isSet": written[number] == {1},
            }
            for number, (part, name, _) in enumerate(tables)
        ],
        "cellTable": [table for table, _ in cells.items],
        "cellKey": [plain_value(key) for _, key in cells.items],
        "initial": initial,
        "values": values.items,
        "arrows": [
            _joined(arrow, records) | _look(arrow) for arrow in ARROWS if arrow.start in happened
        ],
        "spans": [
            _joined(span, records) | {"look": span.look} for span in SPANS if span.start in happened
        ],
        "glyphWords": GLYPH_WORDS,
        "kernels": kernels,
        "ring": _ring_view(run, world, kernels),
        "boot": _boot_view(run, world, kernels),
        "machine": _machine_view(run, kernels),
    }


class _Kinds:
    """The kinds of event in a window: each described once, its fields sent as numbers."""

    def __init__(self, records: list[Record], values: Values) -> None:
        self.values = values
        self.numbers: dict[type[Event], int] = {}
        self.coded: list[list[bool]] = []
        self.sentences: dict[int, int] = {}  # record -> value, where no template will do
        for record in records:
            event = record.event
            number = self.numbers.get(type(event))
            if number is None:
                number = self.numbers[type(event)] = len(self.coded)
                self.coded.append([False] * len(event))
            coded = self.coded[number]
            for place, value in enumerate(event):
                if value.__class__ is not int or not -JS_SAFE_INTEGER <= value <= JS_SAFE_INTEGER:
                    coded[place] = True
        self.told = [kind for kind in self.numbers if not _is_template(kind)]

    def add(self, event: Event, columns: dict[str, list]) -> None:
        number = self.numbers[type(event)]
        if type(event) in self.told:
            self.sentences[len(columns["kind"])] = self.values.of(str(event))
        columns["kind"].append(number)
        columns["field"].extend(
            self.values.of(value) if coded else value
            for value, coded in zip(event, self.coded[number], strict=True)
        )

    def described(self) -> list[dict]:
        ends = {arrow.start: (arrow.glyph, False) for arrow in ARROWS}
        ends |= {arrow.end: (arrow.glyph, True) for arrow in ARROWS}
        described = []
        for kind, number in self.numbers.items():
            glyph, hollow = (ends | GLYPHS).get(kind.__name__, ("dot", False))
            described.append(
                {
                    "name": kind.__name__,
                    "says": None if kind in self.told else kind.says,
                    "why": " ".join((kind.__doc__ or "").split()),
                    "popcorn": kind.popcorn,
                    "fields": list(kind.fields),
                    "coded": [int(coded) for coded in self.coded[number]],
                    "glyph": glyph,
                    "hollow": hollow,
                }
            )
        return described


def _is_template(kind: type[Event]) -> bool:
    """Can the browser make this kind's sentence from its template?"""
    if kind.__str__ is not Event.__str__:
        return False
    return all(
        field is None or (field in kind.fields and spec in TEMPLATE_SPECS and not conversion)
        for _, field, spec, conversion in string.Formatter().parse(kind.says)
    )


# -- what is drawn ---------------------------------------------------------------------------------


def _joined(join: Arrow | Span, records: list[Record]) -> dict:
    """The pairs of records that an arrow or a span joins: starts (as deltas) and lengths."""
    waiting: dict[tuple, deque[int]] = {}
    ends: dict[int, int] = {}
    starts, ends_with, dead = [], set(join.end.split()), set()
    for place, record in enumerate(records):
        kind, event = type(record.event).__name__, record.event
        if kind in ends_with:
            queue = waiting.get(tuple(getattr(event, field) for field in join.end_key))
            if queue:
                ends[queue.popleft()] = place
        if event.halts and isinstance(join, Span):  # a dead kernel's stretches end with it
            dead.add(getattr(event, event.halts))
            for queue in waiting.values():
                while queue and _kernel_of(records[queue[0]]) in dead:
                    ends[queue.popleft()] = place
        if kind == join.start and not (dead and _kernel_of(record) in dead):
            queue = waiting.setdefault(
                tuple(getattr(event, field) for field in join.start_key), deque()
            )
            if queue and isinstance(join, Span):
                continue  # it is open already: a second IPI before the first is served
            queue.append(place)
            starts.append(place)
    deltas = [b - a for a, b in zip([0, *starts], starts, strict=False)]
    lengths = [ends[place] - place if place in ends else -1 for place in starts]
    return {"name": join.name, "from": deltas, "span": lengths}


def _kernel_of(record: Record) -> int:
    """The kernel in whose lane the record is; -1 for nobody's."""
    found = ACTOR.match(record.who)
    return int(found["kernel"]) if found else -1


def _look(arrow: Arrow) -> dict:
    return {"head": arrow.head, "glyph": arrow.glyph, "dash": list(arrow.dash), "ink": arrow.ink}


def _kernels(run, actors: list[str]) -> list[int]:
    cpus = getattr(run.setup, "cpus", None)
    if cpus is not None:
        return list(range(len(cpus)))
    found = {int(match["kernel"]) for who in actors if (match := ACTOR.match(who))}
    return sorted(found)


def _cpus_of(run, kernels: list[int]) -> dict[int, tuple[int, ...]]:
    """The CPUs of each kernel, as planned: a booting kernel may have several."""
    plan, cpus = getattr(run.setup, "plan", None), getattr(run.setup, "cpus", ())
    if plan is not None:
        return {kernel: plan.images[kernel].cpus for kernel in kernels}
    return {kernel: (cpus[kernel],) for kernel in kernels} if cpus else {}


def _lanes(
    actors: list[str], kernels: list[int], cpus: dict[int, tuple[int, ...]]
) -> tuple[list[dict], list[int], list[str], list]:
    """The lanes; each actor's lane; the rows within a lane; each actor's row."""
    kernel_of = {cpu: kernel for kernel in reversed(kernels) for cpu in cpus.get(kernel, ())}
    lanes = [{"name": f"kernel {kernel}", "kernel": kernel} for kernel in kernels]
    place = {kernel: number for number, kernel in enumerate(kernels)}
    lane, names = [], []
    for who in actors:
        match, cpu = ACTOR.match(who), CPU_ACTOR.match(who)
        kernel = int(match["kernel"]) if match else None
        if cpu:
            kernel = kernel_of.get(int(cpu["cpu"]))
        lane.append(place.get(kernel, len(kernels)))
        role = (match["before"].strip() or match["after"].strip()) if match else ""
        names.append("cpu" if cpu else ROWS.get(role, role))
    if len(kernels) in lane:
        strangers = [who for who, at in zip(actors, lane, strict=True) if at == len(kernels)]
        lanes.append({"name": strangers[0] if len(strangers) == 1 else "others", "kernel": None})
    order = ["cpu", "process", "isr", "softirq"]
    rows = [name for name in order if name in names]
    rows += sorted(set(names) - set(order))
    return lanes, lane, rows, [rows.index(name) for name in names]


def _per_kernel(world, tables: list, cells: list) -> list[bool]:
    """Which tables have one row for each kernel: those a kernel owns, and those keyed by one id."""
    simple = [True] * len(tables)
    for table, key in cells:
        if type(key) is not int:
            simple[table] = False
    used = {table for table, _ in cells}
    return [
        number in used
        and (simple[number] or name in world.parts[part].private)
        and name not in getattr(world.parts[part], "not_by_kernel", ())
        for number, (part, name, _) in enumerate(tables)
    ]


def _ring_view(run, world, kernels: list[int]) -> dict | None:
    slots = getattr(run.setup, "slots", 0)
    if "rings" not in world.parts or not slots or not kernels:
        return None
    return {"slots": slots, "rings": kernels}


def _boot_view(run, world, kernels: list[int]) -> dict | None:
    """What the views of a boot must know beside the tables: whose CPU is whose, what is where."""
    if "boot" not in world.parts:
        return None
    from popcorn_edu.model import boot, trampoline  # late: most runs have no boot

    words = [
        (trampoline.WARM_RESET_OFFSET, 4, "warm-reset vector"),
        (boot.BOOT_PARAMS_ADDRESS, trampoline.PAGE_BYTES, "boot_params"),
        (run.setup.plan.buffer, trampoline.PAGE_BYTES, "command line"),
        (trampoline.TRAMPOLINE_ADDRESS, trampoline.PAGE_BYTES, "trampoline"),
        (trampoline.STATUS_ADDRESS, 4, "trampoline_status_bsp"),
        (trampoline.KERNEL_PHYS_ADDRESS, 8, "kernel_phys_addr"),
        (trampoline.BOOT_PARAMS_PHYS_ADDRESS, 8, "boot_params_phys_addr"),
        (trampoline.STACK_TOP - trampoline.PAGE_BYTES, trampoline.PAGE_BYTES, "stack"),
        (trampoline.PML4_ADDRESS, trampoline.PAGE_BYTES, "PML4"),
        (trampoline.PDPT_ADDRESS, trampoline.PAGE_BYTES, "PDPT"),
        (trampoline.PDPT_ADDRESS + trampoline.PAGE_BYTES, 4 * trampoline.PAGE_BYTES,
         "4 page directories"),
        (trampoline.EXTRA_ADDRESS, trampoline.PAGE_BYTES, "extra page directory"),
    ]  # fmt: skip
    return {
        "stages": [stage.name for stage in boot.Stage],
        "cpus": [[kernel, *cpus] for kernel, cpus in _cpus_of(run, kernels).items()],
        "low": words,
        "images": [[kernel, run.setup.plan.images[kernel].address] for kernel in kernels],
    }


def _machine_view(run, kernels: list[int]) -> dict | None:
    """The machine's graph with the places that networkx gave it: CPUs on a circle, the rest inside.

    None where networkx cannot lay it out (it needs numpy): the player then has no such picture.
    """
    machine, cpus = getattr(run.setup, "machine", None), _cpus_of(run, kernels)
    if machine is None:
        return None
    try:
        graph = machine.graph()
    except ImportError:
        return None
    place = {
        name: tuple(round(PICTURE_RADIUS * at, 1) for at in about["pos"])
        for name, about in graph.nodes(data=True)
    }
    inner = [
        [about["kind"], about["id"], *place[name]]
        for name, about in graph.nodes(data=True)
        if about["kind"] in ("package", "node") and about["cpus"]
    ]
    nearest = min((d for _, _, d in graph.edges(data="distance") if d), default=None)
    links = [(a, b) for a, b, d in graph.edges(data="distance") if d is not None and d == nearest]
    homes = [(machine.package_of(cpu), machine.node_of(cpu), cpu) for cpu in machine.cpus]
    spokes = [(f"node {node}", f"cpu {cpu}") for _, node, cpu in homes]
    spokes += sorted({(f"package {package}", f"node {node}") for package, node, _ in homes})
    owned = [list(cpus[kernel]) for kernel in kernels] if cpus else []
    return {
        "name": machine.name,
        "radius": PICTURE_RADIUS,
        "inner": inner,
        "cpus": [[cpu, *place[f"cpu {cpu}"]] for cpu in machine.cpus],
        "links": [[*place[a], *place[b]] for a, b in links],
        "spokes": [[*place[a], *place[b]] for a, b in spokes],
        "kernels": [
            [
                kernel,
                own,
                sorted({machine.node_of(cpu) for cpu in own}),
                sorted({machine.package_of(cpu) for cpu in own}),
            ]
            for kernel, own in zip(kernels, owned, strict=bool(owned))
        ],
    }


# -- around it -------------------------------------------------------------------------------------


def _heading(run, window: range, title: str) -> dict:
    meta, total = run.trace.meta, len(run.trace)
    scenario = meta.get("scenario", "a run")
    kernels = len(getattr(run.setup, "cpus", ()))
    if not title:
        title = f"{scenario}: {kernels} kernels" if kernels else str(scenario)
        if meta.get("machine"):
            title += f" on {meta['machine']}"
    end = run.trace.time(total - 1) if total else 0
    heading = {
        "title": title,
        "subtitle": f"{total:,} records, {end:,} ns of simulated time.",
        "notice": "",
    }
    if len(window) < total:
        heading["notice"] = (
            f"This run has {total:,} records; the player holds {window.start:,} to "
            f"{window.stop - 1:,}. run.play(around=N) shows the part around record N."
        )
    return heading


def _gate(gate: Mapping, number: int, window: range) -> dict:
    where, known = f"ask[{number}]", ("at", "question", "options", "answer", "why")
    if not isinstance(gate, Mapping):
        raise PopcornError(f"{where}: expected a dict with at, question and options, not {gate!r}")
    for key in gate:
        if key not in known:
            raise PopcornError(f"{where} has no part {key!r}; {near_names(key, known)}")
    at, question, options = gate.get("at"), gate.get("question"), gate.get("options") or []
    if type(at) is not int or at not in window:
        raise PopcornError(
            f"{where}: at={at!r}: expected a record number from {window.start} to {window.stop - 1}"
        )
    if not isinstance(question, str) or not question:
        raise PopcornError(f"{where}: question={question!r}: expected a text")
    if isinstance(options, Mapping):
        choices = [[str(value), f"{value}: {text}"] for value, text in options.items()]
    elif isinstance(options, (list, tuple)):
        choices = [[str(option), str(option)] for option in options]
    else:
        raise PopcornError(f"{where}: options={options!r}: expected a list or a dict")
    answer = gate.get("answer")
    if answer is not None and choices and str(answer) not in [value for value, _ in choices]:
        raise PopcornError(
            f"{where}: answer={answer!r} is none of its options; "
            f"{near_names(str(answer), [value for value, _ in choices])}"
        )
    return {
        "at": at - window.start,
        "question": question,
        "options": choices,
        "answer": None if answer is None else str(answer),
        "why": str(gate.get("why") or ""),
    }


def _settings(run) -> dict:
    """The settings that a fork may change from the page: yes-or-no choices, then numbers."""
    setup = run.setup
    fixed = FIXED.union(getattr(setup, "FIXED", ()))
    fields = [name for name in getattr(setup, "__dataclass_fields__", {}) if name not in fixed]
    return {
        name: getattr(setup, name)
        for wanted in (bool, int)
        for name in fields
        if type(getattr(setup, name)) is wanted
    }


def _faults(run) -> dict:
    """The deck's faults that this run has records for: name -> their kinds, what it models."""
    return {
        name: {
            "kinds": [kind.__name__ for kind in faults.DECK[name].kinds],
            "models": faults.DECK[name].models,
        }
        for name in faults.of(run)
    }


# -- forking from the page ------------------------------------------------------------------------

_shown: weakref.WeakValueDictionary = weakref.WeakValueDictionary()  # run key -> Run
_names: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # Run -> its name in Python
_forks: deque = deque(maxlen=FORKS_KEPT)


def _live(run, name: str) -> dict | None:
    """Which kernel and which run the page may ask for a fork; None outside Jupyter.

    The run is known by its digest, so a page that is reopened finds it again once its cell has
    been run again, and never finds another one in its place.
    """
    kernel = _kernel_id()
    if kernel is None:
        return None
    key = run.trace.digest()[:24]
    _shown[key], _names[run] = run, name
    return {"kernel": kernel, "run": key}


def _kernel_id() -> str | None:
    """The id under which the Jupyter server knows this process, from its connection file."""
    if "ipykernel" not in sys.modules:
        return None
    from ipykernel.connect import get_connection_file

    try:
        match = re.search(r"kernel-([\w-]+)\.json$", get_connection_file())
    except RuntimeError:
        return None
    return match[1] if match else None


def _name_of(run) -> str:
    """What the notebook calls this run, for the line of Python that a fork shows."""
    if "IPython" in sys.modules:
        from IPython import get_ipython

        for name, value in getattr(get_ipython(), "user_ns", {}).items():
            if value is run and not name.startswith("_"):
                return name
    return "run"


def fork_for_page(key: str, at: int, edit: str, value: object) -> Player:
    """What the button in the player runs: ``run.fork(at, edit=value)``, ready to be shown.

    The edit "fault" is none of fork's own: ``run.inject(value, at=at)``.
    """
    run = _shown.get(key)
    if run is None:
        raise PopcornError("This kernel no longer has that run. Run the cell again, then fork.")
    if edit == "fault":
        fork, call = run.inject(value, at=at), f"inject({json.dumps(value)}, at={at})"
    else:
        fork, call = run.fork(at, **{edit: value}), f"fork({at}, {edit}={value!r})"
    _forks.append(fork)
    line = f"{_names[run]}.{call}"
    title = f"Fork at record {at}: {_difference(run, fork, at, edit, value)}"
    opening = min(at, len(fork.trace) - 1)
    player = play(fork, at=max(0, opening), title=title, name=line)
    player.payload["forked"] = f"{line}.play()"
    return player


def _difference(run, fork, at: int, edit: str, value: object) -> str:
    if edit == "drop":
        event = fork.trace[at].event if at < len(fork.trace) else None
        sentence = event.sentence if isinstance(event, NeverHappened) else str(run.trace.event(at))
        return f"it never happens that {sentence}"
    if edit == "fault":
        return f"{value}: {faults.DECK[value].models}"
    if edit == "delay":
        return f"{run.trace[at].who} is held up for {value:,} ns"
    return f"{edit} is {value} from here on"


# -- files beside this one -------------------------------------------------------------------------


def _text(name: str) -> str:
    page = resources.files(__package__).joinpath("player_page")
    return page.joinpath(name).read_text(encoding="utf-8")


@cache
def _script(boots: bool) -> str:
    """The scripts as one closure, without indentation and comment lines: a fifth smaller."""
    parts = [part for part in SCRIPTS if part != "start.js"]
    parts += [*BOOT_SCRIPTS, "start.js"] if boots else ["start.js"]
    lines = [line.strip() for part in parts for line in _text(part).splitlines()]
    body = "\n".join(line for line in lines if line and not line.startswith("//"))
    return f'(() => {{\n"use strict";\n{body}\n}})();'

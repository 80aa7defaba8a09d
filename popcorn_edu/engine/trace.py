"""What happened, in order.

A run of the model is a Trace: one Record after another, each an Event with the time it
happened, who caused it to happen, and which earlier record woke that actor. Components write
the trace; figures, the player, the checks, the exports and the grader only read it.

Words
    Event    a fact in the past tense, with ids and plain values: ``SlotReady(ring=0, slot=7)``.
             Its text is the sentence of the step; its class docstring says why the step exists.
    Record   an event, stamped: number, time in ns since power-on, actor, cause.
    Trace    the records of one run. It keeps them in packed columns (about 45 bytes a record),
             so that a million of them fit in a laptop's memory, and builds a Record when asked.

An event kind is declared by its fields::

    class SlotReady(Event):
        '''Why: the flag is written last, so a receiver that sees it sees the whole message.'''
        says = "kernel {sender} marks slot {slot} of ring {ring} ready"
        popcorn = "win_put(), pcn_kmsg.c (G1)"
        ring: int
        slot: int
        sender: int

Fields are ``int``, ``bool`` or a ``Word`` (a named integer) where speed matters; anything else
that is plain (``str``, ``None``, tuples of plain values) is stored once in a table.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import sys
import zipfile
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import namedtuple
from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import cache
from itertools import accumulate, chain, islice, repeat
from operator import sub
from pathlib import Path
from typing import NamedTuple

FILE_FORMAT = "popcorn_edu trace"
FILE_VERSION = 1
ZIP_DATE = (2020, 1, 1, 0, 0, 0)  # of every member: a file does not say when it was made
CHUNK_RECORDS = 2048  # how many records wait as tuples before they are packed into columns
NARROW, WIDE = "I", "q"  # a field's type: array reads unsigned values three times as fast as signed
NO_CAUSE = array("i", [-1])
LAST_TIME = 2**63 - 1
BITS_32 = 0xFFFF_FFFF
MIX_FIRST, MIX_SECOND = 0x7FEB_352D, 0x5BD1_E995  # odd, below 2**31: a product fits in 63 bits
ACTORS_AT_MOST = 0x10000  # an actor's number has two bytes in a packed record


SENTENCE_AT_MOST = 1_500  # letters of an error's sentence
NAMES_AT_MOST, NAMES_SHOWN = 30, 8  # in an error's sentence: a longer list helps nobody


class PopcornError(Exception):
    """A mistake in what the user gave us, in one sentence: what, where, what was expected."""

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) <= SENTENCE_AT_MOST:
            return text
        end = SENTENCE_AT_MOST // 3  # somebody's endless value: its middle helps nobody
        return f"{text[: SENTENCE_AT_MOST - end]} [...] {text[-end:]}"

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: a student's mistake deserves a sentence, not our call stack.
        return [f"{type(self).__name__}: {self}"]


class TraceFileError(PopcornError):
    """A file that is not a saved run, or no longer a whole one."""


def near_names(wrong: str, names: Iterable[str]) -> str:
    """The tail of an error sentence: the nearest valid spellings, else all the names."""
    names = sorted(map(str, names))
    near = difflib.get_close_matches(str(wrong), names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    if len(names) > NAMES_AT_MOST:
        return f"expected one of {len(names)} names, such as {', '.join(names[:NAMES_SHOWN])}"
    return "expected one of: " + ", ".join(names) if names else "there are none"


class Word(IntEnum):
    """A named integer: stored as a number, read as its name."""

    def __str__(self) -> str:
        return self.name

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)


def shuffle(schedule_seed: int) -> int:
    """A schedule seed, however large, as the 32 bits that ``place_in_line`` wants."""
    return zlib.crc32(f"schedule {schedule_seed}".encode())


def place_in_line(shuffle: int, time: int, actor: int) -> int:
    """Where an actor stands among all who act at one time, in a shuffled schedule.

    A pure function, in whole numbers of less than 64 bits, so that any engine on any machine
    gets the same order. No two actors have the same place: each step can be undone.
    """
    if time == 0:
        return actor  # at power-on everybody starts in the order of the numbers
    return _mixed(actor ^ _mixed(time & BITS_32 ^ _mixed(time >> 32 ^ shuffle)))


def _mixed(x: int) -> int:
    """Each of the 32 bits of the answer depends on each of x: multiply up, fold down, twice."""
    x = (x ^ x >> 16) * MIX_FIRST & BITS_32
    x = (x ^ x >> 15) * MIX_SECOND & BITS_32
    return x ^ x >> 16


class Event(tuple):
    """A fact in the past tense. Subclasses declare fields, ``says`` and ``popcorn``."""

    __slots__ = ()
    says = ""
    popcorn = ""
    memory = ""  # to the memory system: "" no write, "store", "covered" (by the next), "locked"
    halts = ""  # the field that names a kernel: all that runs on it stops at this record
    fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        # The fields become a tuple's named places, as in a namedtuple: the cheapest immutable
        # value Python has, and the hot loop builds several of them for each message.
        cls.fields = tuple(cls.__annotations__)  # its own: a class does not inherit them
        plain = namedtuple(cls.__name__, cls.fields)
        cls.__new__, cls._make = plain.__new__, classmethod(tuple.__new__)
        for field in cls.fields:
            setattr(cls, field, plain.__dict__[field])
        if not cls.says:
            cls.says = cls.__name__ + "".join(f" {field}={{{field}}}" for field in cls.fields)

    def _asdict(self) -> dict:
        return dict(zip(self.fields, self, strict=True))

    def __getnewargs__(self) -> tuple:  # for copy and pickle
        return tuple(self)

    def __str__(self) -> str:
        return self.says.format_map(self._asdict())

    def __repr__(self) -> str:
        inside = ", ".join(f"{field}={value}" for field, value in self._asdict().items())
        return f"{type(self).__name__}({inside})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


class NeverHappened(Event):
    """Somebody forked the run here and asked: what if this one thing did not happen?"""

    says = "in this fork it never happens that {sentence}"
    kind: str
    sentence: str


class StoryStopped(Event):
    """After a fork's edit this story met a state that its author never thought of. In a real
    kernel this would be a crash; the others go on without it."""

    says = "{who} cannot go on: {problem}"
    who: str
    problem: str


class SettingChanged(Event):
    """Somebody forked the run here and changed a setting from this record on."""

    says = "in this fork {setting} is {value} from here on"
    setting: str
    value: str


class Record(NamedTuple):
    """An event, stamped. ``cause`` is the number of the record that woke ``who``, or None."""

    seq: int
    time: int
    who: str
    cause: int | None
    event: Event

    def __str__(self) -> str:
        return f"{self.seq:>6} {self.time:>10,} ns  {self.who:<17} {self.event}"


class Coding:
    """How the events of one kind become integers and come back. The work of a few lookups."""

    def __init__(self, kind: type[Event], index: int) -> None:
        self.kind, self.index, self.width = kind, index, len(kind.fields)
        self.back = _decoders(kind)
        self.tabled = [place for place, how in enumerate(self.back) if how is TABLED]
        self.plain = all(how is None for how in self.back)


TABLED = object()


@cache
def _decoders(kind: type[Event]) -> tuple:
    """How the stored number of each field becomes its value again."""
    return tuple(_decoder(kind, kind.__annotations__[field]) for field in kind.fields)


def _decoder(kind: type[Event], note: object):
    """None: stored as it is. A callable: rebuilds the value. TABLED: an index into the table."""
    if isinstance(note, str):  # from __future__ import annotations, or a cell's own names
        module = sys.modules.get(kind.__module__)
        note = getattr(module, note, {"int": int, "bool": bool}.get(note, str))
    if note is int:
        return None
    return note if isinstance(note, type) and issubclass(note, (bool, Word)) else TABLED


class Trace:
    """The records of one run. Reads like a list of Record; ``meta`` says which run it was."""

    def __init__(self, meta: dict | None = None) -> None:
        self.meta = dict(meta or {})
        self.actors: list[str] = []
        self._actor_number: dict[str, int] = {}
        self._values: list = []
        self._value_index: dict = {}
        self._codings: list[Coding] = []
        self._index_of: dict[type[Event], int] = {}
        self._kinds, self._fields = array("H"), array(NARROW)
        self._turn_first, self._turn_time = array("I"), array("Q")
        self._turn_who, self._turn_cause = array("I"), array("i")
        self._times, self._whos, self._causes = array("Q"), array("H"), array("i")  # of each record
        self._starts = array("I")  # where its fields begin
        # What is not packed yet: events, and the turns they belong to. A turn is what one actor
        # says at one time: (place of its first event here, time, actor number, cause or -1).
        self._events: list[Event] = []
        self._turns: list[tuple[int, int, int, int]] = []

    # -- writing -------------------------------------------------------------------------------

    def actor(self, who: str) -> int:
        """The number of an actor, given on first sight."""
        number = self._actor_number.get(who)
        if number is None:
            if len(self.actors) == ACTORS_AT_MOST:
                raise PopcornError(f"a run has no room for more than {ACTORS_AT_MOST:,} actors")
            number = self._actor_number[who] = len(self.actors)
            self.actors.append(who)
        return number

    def append(self, time: int, who: str, cause: int | None, event: Event) -> int:
        """Write one record; return its number. (Sim writes turns itself: this is its slow twin.)"""
        turn = len(self._events), time, self.actor(who), -1 if cause is None else cause
        self._turns.append(turn)
        self._events.append(event)
        return len(self) - 1

    def pack(self) -> None:
        """Move waiting events into the columns. What is done for each record runs in C."""
        events, codings = self._events, self._codings
        if not events:
            return
        try:
            kinds = list(map(self._index_of.__getitem__, map(type, events)))
        except KeyError:
            for kind in dict.fromkeys(map(type, events)):
                self.code(kind)
            kinds = list(map(self._index_of.__getitem__, map(type, events)))
        rows: Iterable = events
        if any(coding.tabled for coding in codings):
            rows = [
                self._encode(event, coding) if coding.tabled else event
                for event, coding in zip(events, map(codings.__getitem__, kinds), strict=True)
            ]
        fields = self._integers(rows)
        turns = list(chain.from_iterable(self._turns))
        try:
            times = array("Q", turns[1::4])
            if turns[-3] > LAST_TIME:
                raise OverflowError
        except (OverflowError, TypeError):
            raise self._no_time() from None
        firsts = array("I", map(len(self._kinds).__add__, turns[0::4]))
        whos, causes = array("I", turns[2::4]), array("i", turns[3::4])
        self.write(array("H", kinds), fields, firsts, times, whos, causes)
        self._events.clear()
        self._turns.clear()

    def write(self, kinds, fields, firsts, times, whos, causes) -> None:
        """Add to the columns; for an engine that makes no events. Takes arrays, or other buffers
        with items of the same sizes: a number from ``code`` for each record; its fields; and for
        each turn the number of its first record, its time, actor and cause."""
        turn = self._turn_first, self._turn_time, self._turn_who, self._turn_cause
        for column, new in zip(
            (self._kinds, self._fields, *turn),
            (kinds, fields, firsts, times, whos, causes),
            strict=True,
        ):
            if len(new):
                column.frombytes(memoryview(new).cast("B"))

    def code(self, kind: type[Event]) -> int:
        """The number of a kind of event, given on first sight."""
        index = self._index_of.get(kind)
        return self._code(kind).index if index is None else index

    def _integers(self, rows: Iterable) -> array:
        """The fields of many events as one column: 32 bits wide until a value needs 64."""
        try:
            return array(self._fields.typecode, chain.from_iterable(rows))
        except OverflowError:
            if self._fields.typecode == NARROW:
                self._fields = array(WIDE, self._fields)
                return self._integers(rows)
        except TypeError:
            pass
        raise self._misfit()

    def _no_time(self) -> PopcornError:
        _, time, who, _ = next(
            turn for turn in self._turns if type(turn[1]) is not int or turn[1] > LAST_TIME
        )
        return PopcornError(
            f"{self.actors[who]} acts at {time} ns; a time is a whole number below 2**63"
        )

    def _unroll(self) -> None:
        """From turns to records: readers ask for the time, actor and cause of each record.

        The first reader pays for this, once (about 0.2 us a record); a run nobody reads does not.
        """
        firsts, records = self._turn_first, len(self._kinds)
        if not firsts:
            return

        def each(column: array) -> Iterator[int]:
            ends = chain(islice(firsts, 1, None), (records,))
            return chain.from_iterable(map(repeat, column, map(sub, ends, firsts)))

        self._times.extend(each(self._turn_time))
        self._whos.extend(each(self._turn_who))
        self._causes.extend(NO_CAUSE * (records - len(self._causes)))
        for first, cause in zip(firsts, self._turn_cause, strict=True):
            if cause >= 0:
                self._causes[first] = cause
        for column in (firsts, self._turn_time, self._turn_who, self._turn_cause):
            del column[:]
        widths = [coding.width for coding in self._codings]
        done = len(self._starts)
        here = self._starts[-1] + widths[self._kinds[done - 1]] if done else 0
        new = map(widths.__getitem__, islice(self._kinds, done, None))
        self._starts.extend(islice(accumulate(new, initial=here), records - done))

    def _misfit(self) -> PopcornError:
        for offset, event in enumerate(self._events):
            problem = field_problem(event)
            if problem:
                record = self._waiting_record(offset)
                return PopcornError(f"record {record.seq}, written by {record.who}: {problem}")
        return PopcornError("a record holds a number that does not fit in 64 bits")

    def _waiting_record(self, offset: int) -> Record:
        turn = self._turns[bisect_right(self._turns, offset, key=lambda turn: turn[0]) - 1]
        first, time, who, cause = turn
        caused = cause if cause >= 0 and offset == first else None
        return Record(
            len(self._kinds) + offset, time, self.actors[who], caused, self._events[offset]
        )

    def _code(self, kind: type[Event]) -> Coding:
        coding = Coding(kind, len(self._codings))
        self._index_of[kind] = coding.index
        self._codings.append(coding)
        return coding

    def _encode(self, event: Event, coding: Coding) -> list[int]:
        row = list(event)
        for place in coding.tabled:
            row[place] = self._value(row[place])
        return row

    def _value(self, value: object) -> int:
        key = repr(value)  # True and 1, or (True,) and (1,), would be one key in a plain dict
        index = self._value_index.get(key)
        if index is None:
            if not _is_plain(value):
                raise self._misfit()
            index = self._value_index[key] = len(self._values)
            self._values.append(value)
        return index

    # -- reading -------------------------------------------------------------------------------

    def columns(self) -> tuple[array, array, dict[type[Event], tuple[int, int]], array, array]:
        """The packed records, for whoever counts by column: each record's kind; the fields, one
        record's after the other's; {kind: (its number, how many fields)}; and the times: of the
        turns, with the number of each turn's first record. Without turns they are each record's."""
        self.pack()
        kinds = {coding.kind: (coding.index, coding.width) for coding in self._codings}
        if self._turn_first and not self._times:
            return self._kinds, self._fields, kinds, self._turn_time, self._turn_first
        self._unroll()
        return self._kinds, self._fields, kinds, self._times, array("I")

    def __len__(self) -> int:
        return len(self._kinds) + len(self._events)

    def __getitem__(self, n: int | slice):
        if isinstance(n, slice):
            return [self._record(i) for i in range(*n.indices(len(self)))]
        if not -len(self) <= n < len(self):
            raise IndexError(f"there is no record {n}: this run has {len(self)} records")
        return self._record(n % len(self))

    def __iter__(self) -> Iterator[Record]:
        return (self._record(n) for n in range(len(self)))

    def __repr__(self) -> str:
        last = f", {self.time(len(self) - 1):,} ns" if len(self) else ""
        return f"<Trace of {len(self):,} records{last}>"

    def _record(self, n: int) -> Record:
        packed = len(self._kinds)
        if n >= packed:
            return self._waiting_record(n - packed)
        if n >= len(self._times):
            self._unroll()
        who, cause = self.actors[self._whos[n]], self._causes[n]
        return Record(n, self._times[n], who, None if cause < 0 else cause, self.event(n))

    def event(self, n: int) -> Event:
        """The event of record n, without its stamp."""
        packed = len(self._kinds)
        if n >= packed:
            return self._events[n - packed]
        coding = self._codings[self._kinds[n]]
        if n >= len(self._starts):
            self._unroll()
        start = self._starts[n]
        row = self._fields[start : start + coding.width]
        if coding.plain:
            return tuple.__new__(coding.kind, row)
        values = self._values
        return tuple.__new__(
            coding.kind,
            [
                value if how is None else values[value] if how is TABLED else how(value)
                for value, how in zip(row, coding.back, strict=True)
            ],
        )

    def time(self, n: int) -> int:
        """The time of record n, in ns since power-on."""
        packed = len(self._kinds)
        if n >= packed:
            return self._waiting_record(n - packed).time
        if n >= len(self._times):
            self._unroll()
        return self._times[n]

    def kind(self, n: int) -> type[Event]:
        """The event class of record n."""
        packed = len(self._kinds)
        if n < packed:
            return self._codings[self._kinds[n]].kind
        return type(self._events[n - packed])

    def kinds(self) -> dict[str, int]:
        """How many records of each kind there are, by name, in order of first appearance."""
        self.pack()
        counts = [0] * len(self._codings)
        for index in self._kinds:
            counts[index] += 1
        return {c.kind.__name__: n for c, n in zip(self._codings, counts, strict=True)}

    def records(self, *kinds: type[Event], who: str | None = None, **match) -> Iterator[Record]:
        """The records of these kinds (all, if none) whose fields equal ``match``, in order."""
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise PopcornError(f"expected a kind of event, such as SlotReady, not {kind!r}")
            check_fields(kind, match)
        for n in range(len(self)):
            if kinds and self.kind(n) not in kinds:
                continue
            record = self._record(n)
            if who is not None and record.who != who:
                continue
            if all(getattr(record.event, f, _ABSENT) == v for f, v in match.items()):
                yield record

    def next(self, *kinds: type[Event], after: int = -1, who: str | None = None, **match):
        """The first such record after record ``after``, or None."""
        for record in self.records(*kinds, who=who, **match):
            if record.seq > after:
                return record
        return None

    def at_time(self, ns: int) -> int:
        """How many records had been written by the time ``ns``, those at ``ns`` included."""
        self.pack()
        self._unroll()
        return bisect_left(self._times, ns + 1)

    def nbytes(self) -> int:
        """Bytes held by the packed columns (names and shared values are not counted)."""
        self.pack()
        self._unroll()
        return sum(len(column) * column.itemsize for column in self._columns().values())

    def digest(self) -> str:
        """A fingerprint of every record: two runs are the same run if and only if these agree."""
        header, columns = self._portable()
        seal = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for name in sorted(columns):
            seal.update(columns[name])
        return seal.hexdigest()

    # -- keeping -------------------------------------------------------------------------------

    def _columns(self) -> dict[str, array]:
        return {
            "times": self._times,
            "whos": self._whos,
            "causes": self._causes,
            "kinds": self._kinds,
            "starts": self._starts,
            "fields": self._fields,
        }

    def _portable(self) -> tuple[dict, dict[str, bytes]]:
        self.pack()
        self._unroll()
        header = {
            "actors": self.actors,
            "kinds": [[c.kind.__name__, list(c.kind.fields)] for c in self._codings],
            "values": self._values,
            "records": len(self),
            "bits": self._fields.itemsize * 8,
        }
        return header, {name: _bytes(column) for name, column in self._columns().items()}

    def save(self, path: str | os.PathLike) -> Path:
        """Write the run to a file; a crash half-way leaves the old file or none, never a half."""
        header, columns = self._portable()
        header |= {"format": FILE_FORMAT, "version": FILE_VERSION, "meta": self.meta}
        return write_zip(path, {"header.json": json.dumps(header, sort_keys=True)} | columns)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Trace:
        """Read a saved run back.

        Raises TraceFileError for a missing, foreign, truncated or damaged file, or one that
        holds event kinds which this session does not know.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                header = json.loads(archive.read("header.json"))
                if header.get("format") != FILE_FORMAT:
                    raise KeyError
                if header["version"] != FILE_VERSION:
                    raise TraceFileError(
                        f"{path} is a saved run of version {header['version']}; "
                        f"this popcorn_edu reads version {FILE_VERSION}"
                    )
                trace = cls(header["meta"])
                trace._fields = array(WIDE if header["bits"] == 64 else NARROW)
                for name, column in trace._columns().items():
                    column.frombytes(archive.read(name))
                    if sys.byteorder == "big":
                        column.byteswap()
            trace._restore(header, path)
        except FileNotFoundError:
            raise TraceFileError(f"there is no file {path}") from None
        except OSError as problem:
            raise TraceFileError(f"cannot read {path}: {problem.strerror or problem}") from None
        except (zipfile.BadZipFile, EOFError, zlib.error) as problem:
            raise TraceFileError(
                f"{path} is not a whole saved run ({problem}); it was cut short, damaged, "
                "or is another kind of file"
            ) from None
        except FOREIGN:
            raise TraceFileError(
                f"{path} is not a saved run of popcorn_edu; expected a file written by run.save()"
            ) from None
        return trace

    def _restore(self, header: dict, path: object) -> None:
        known = {kind.__name__: kind for kind in all_kinds()}
        for name, fields in header["kinds"]:
            kind = known.get(name)
            if kind is None:
                raise TraceFileError(
                    f"{path} holds events of the kind {name}, which is not known here"
                )
            if list(kind.fields) != fields:
                raise TraceFileError(
                    f"{path}: {name} has other fields in this version of popcorn_edu"
                )
            self._code(kind)
        for who in header["actors"]:
            self.actor(who)
        for value in header["values"]:
            self._values.append(_tuples(value))
        self._value_index = {repr(value): at for at, value in enumerate(self._values)}
        columns = self._columns()
        fields = columns.pop("fields")
        if {len(column) for column in columns.values()} != {header["records"]}:
            raise ValueError
        if header["records"]:
            widths = [coding.width for coding in self._codings]
            ends = map(int.__add__, self._starts, map(widths.__getitem__, self._kinds))
            if max(ends) > len(fields) or max(self._whos) >= len(self.actors):
                raise ValueError


_ABSENT = object()

# What reading a file that is a zip archive, but nobody's saved run, can end with.
FOREIGN = (
    KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError,
    NotImplementedError, RuntimeError,
)  # fmt: skip


def write_whole(path: str | os.PathLike, content: bytes) -> Path:
    """Write a file so that a crash half-way leaves the old one or none, never a half."""
    try:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError, TypeError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise PopcornError(f"cannot write {path}: {why}") from None
    return path


def write_zip(path: str | os.PathLike, members: dict[str, str | bytes]) -> Path:
    """Write a zip whole; the same members make the same file, whenever they are written."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), body, zipfile.ZIP_DEFLATED)
    return write_whole(path, packed.getvalue())


def _bytes(column: array) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def all_kinds(base: type[Event] = Event) -> Iterator[type[Event]]:
    """Every declared kind of event, the newest of a name last."""
    for kind in base.__subclasses__():
        yield kind
        yield from all_kinds(kind)


def field_problem(event: Event) -> str:
    """What is wrong with an event's values, in words; empty if nothing is."""
    for field, value, how in zip(event.fields, event, _decoders(type(event)), strict=True):
        name = f"{type(event).__name__}.{field}"
        if how is TABLED:
            if not _is_plain(value):
                return f"{name} must be a plain value (number, text, tuple of them), not {value!r}"
        elif not isinstance(value, int):
            return f"{name} must be a whole number, not {value!r}"
        elif how is bool and value not in (0, 1):
            return f"{name} must be True or False, not {value!r}"
        elif how not in (None, bool) and value not in how.__members__.values():
            return f"{name} must be one of {', '.join(how.__members__)}, not {value!r}"
        elif not -(2**63) <= value < 2**63:
            return f"{name} must fit in 64 bits, not {value}"
    return ""


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int))


def check_fields(kind: type[Event], match: dict) -> None:
    """Refuse a misspelt field of an event kind, with the near names."""
    for field in match:
        if field not in kind.fields:
            raise PopcornError(
                f"{kind.__name__} has no field {field!r}; {near_names(field, kind.fields)}"
            )

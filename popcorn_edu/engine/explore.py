"""All interleavings of a small configuration: is there any order in which this goes wrong?

The Sim plays one order, the one its delays make. Here the same stories are told in every order:
a Delay is only a place where others may act, and how long it is plays no part. What is found is
the shortest story that breaks a rule; if nothing is found and the search was complete, there is
none.

Words
    step       one actor goes on, up to its next Delay or Until or just past its next write to
               memory (an event whose ``memory`` is "store" or "locked"). What it reads on the way,
               and that write, are one atomic piece; what it only notes (``memory`` "") goes along.
               A "covered" write (the payload, before its ready flag) goes with the store after
               it, because nobody may look at it before; in a learner's stories it is a store
    place      where an actor stands between two steps: a suspended story
    state      every table of the world, every store buffer, and the place of every actor
    memory     "sc": a write is seen by all at once (sequential consistency). "tso": as on x86, a
               store waits in its CPU's own buffer, first in, first out; its own kernel sees it at
               once, the others when it drains, which may be any time later. A "locked" event and
               a Fence drain the buffer first
    end        a state that is never left again: nobody can act, or they go round in circles

How it works. Generators cannot be copied, so a story is compiled while it is told: the tables
note what a step looks at, and the step becomes a path in a small tree: looked here and found
this, looked there and found that, said so. When the same place meets the same findings again the
tree answers and no generator runs. What the events do to the tables is learned the same way. The
search itself is then breadth first over plain values, and its first finding is a shortest one.
A story is told again from its beginning only where its tree has no answer yet.

Two states are one if all that could make a difference is equal: the tables, the buffers, and of
each actor the code, the position and every value the story holds, those on Python's own stack
included (an iterator in a ``for``, half of a sum). A value that cannot be compared makes its
place unlike every other: more states, never a wrong answer.

The reduction (``reduced=False`` leaves it out). For each place is worked out, from the trees, what
its next step can touch and what its actor can touch ever after: table entries, kinds of record
said and waited for, store buffers. Where the next step of an actor touches nothing that anybody
else can still touch, it is taken at once, together with the step before: whatever the others do
first, they can do afterwards just as well, so no end and no story that breaks is lost (an ample
set of one step). The same for a store that nobody else can look at: it drains at once. What a
step looks at is left out if it does the same for every value that the entry ever takes. All this
is as the trees know it *so far*; random walks teach them first, and when a search learns
something that an early step had relied on not being so, it starts over. When it ends without
that, everything relied on holds in every state: the first step that broke it would have been met,
for up to there only orders that commute were left out. tests/engine/test_explore.py holds the
reduction against all orders in many configurations. A finding is searched for once more with all
orders, so that the story shown is a shortest one; if there are too many, the verdict says so.

Limits, all on the safe side or said in the verdict
    * Time. A record's time is the number of its step. An Until with ``within`` may give up at any
      moment, however long its time is: a finding may need timing that never happens.
    * A story keeps what it knows in its own variables and in the world. One that keeps it
      elsewhere (a global list) tells something else when told again, and is refused.
    * Stories that count for ever have no finite number of states: "not decided". Stories that go
      round (a poll loop, a timer) are fine: a circle that nothing leaves is an end too.
    * A check that needs the whole trace is run on one shortest story into each end.
    * The order in which a table got its entries is no part of the state; iterating over a table
      gives its keys in sorted order here.
"""

from __future__ import annotations

import gc
import random
import sys
import types
from array import array
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from popcorn_edu.engine.sim import LIMIT_STEPS, LineWatch, OutOfLines
from popcorn_edu.engine.steps import (
    SAME_KERNEL,
    Begin,
    Delay,
    Fence,
    StoryError,
    Until,
    as_story,
    in_words,
    nonsense,
    place_of,
    place_of_error,
    raised,
)
from popcorn_edu.engine.trace import (
    Event,
    PopcornError,
    Record,
    StoryStopped,
    Trace,
    all_kinds,
    field_problem,
    near_names,
)
from popcorn_edu.engine.world import NOTHING, Lens, OwnRows, Part, PartLens, Run, Stage, World

STATES_AT_MOST = 1_000_000  # about 300 bytes each
VALUES_AT_MOST = 255  # of one entry of a table: a state keeps a byte for each entry
RUSH_AT_MOST = 1_000  # local steps in a row: a story that goes round alone is not rushed for ever
MEMORIES = ("sc", "tso")
STORES = ("store", "covered")
DEMOTED = 0.15  # how often, in a random walk, whoever acts becomes the last to act
SHORTEST = 300_000  # states, in which a shortest story is looked for when there is a longer one
# For each place: random walks without news before the search starts. What they miss, the search
# meets, and starts over; which costs more where there are more states.
QUIET_WALKS = {"sc": 3, "tso": 2}
WALKS_AFTER = 500  # random walks for a shorter story, when one was found
FORESEE_STATES = 2_000  # how often a search asks whether what it has learned changes the rest
KNOWN_AT_MOST = 500_000
TRIES_AT_MOST = 64  # worlds in which a step is tried, to see whether what it finds matters

READ, WHOLE, SAY, BEGIN, FENCE, END, FAIL = range(7)
AT_DELAY, AT_UNTIL, AT_WRITE = range(3)  # why a step ended
NO, YES, RELIED = range(3)  # do two steps commute, and did a search rely on it?
ENDED = [END, None, AT_UNTIL]
# A mistake in the story's text, whatever the order of things: an error, not a finding.
MISTAKES = (NameError, TypeError, AttributeError, ImportError, SyntaxError)


# -- a store that waits, in the trace and in the world ---------------------------------------------


class StoreWaits(Event):
    """A CPU does not wait for memory: it puts a store into its own buffer and goes on. Its own
    reads look there first; everybody else still sees the old value, until the store drains."""

    says = "kernel {kernel}'s write waits in its CPU's store buffer: {what}"
    popcorn = "x86-TSO: a store may be seen after the reads that follow it"
    kernel: int
    what: str
    store: tuple

    @classmethod
    def of(cls, kernel: int, event: Event) -> StoreWaits:
        return cls(kernel, str(event), (type(event).__name__, *event))

    def event(self) -> Event:
        """The event that will happen when the store drains."""
        name, *values = self.store
        kind = {kind.__name__: kind for kind in all_kinds()}[name]
        return kind._make(values)


class StoreBuffers(Part):
    """waiting   [kernel, n] -> the event of its n-th store, while that is not seen by others"""

    tables = ("waiting", "issued")

    applies: Mapping = {}


class BufferedWorld(World):
    """The world of a TSO story: what a kernel writes changes its own memory at once, and what it
    shares with others when the store drains."""

    def __init__(self, setup: object = None, **parts: type[Part] | Part) -> None:
        parts.setdefault("store_buffers", StoreBuffers)
        super().__init__(setup, **parts)
        self._plain = dict(self.dispatch)
        for kind in self._plain:
            if kind.memory in STORES:
                self.dispatch[kind] = self._drains, None
        self.dispatch[StoreWaits] = self._waits, None

    def copy(self) -> BufferedWorld:
        parts = {name: part.copy() for name, part in self.parts.items()}
        return BufferedWorld(self.setup, **parts)

    def _waits(self, event: StoreWaits) -> None:
        buffers, kernel, store = self.store_buffers, event.kernel, event.event()
        number = buffers.issued.get(kernel, 0)
        buffers.issued[kernel] = number + 1
        buffers.waiting[kernel, number] = store
        self._partly(store, private=True)

    def _drains(self, event: Event) -> None:
        waiting = self.store_buffers.waiting
        for key, store in waiting.items():
            if store == event:
                del waiting[key]
                return self._partly(event, private=False)
        self._all_of(event)

    def _all_of(self, event: Event) -> None:
        apply, also = self._plain.get(type(event), NOTHING)
        apply(event)
        if also is not None:
            also(event)

    def _partly(self, event: Event, private: bool) -> None:
        """Only what it changes in private tables, or only what it changes in shared ones."""
        kept = [
            (getattr(part, name), dict(getattr(part, name)))
            for part in self.parts.values()
            if type(part) is not StoreBuffers
            for name in part.tables
            if (name in part.private) != private
        ]
        self._all_of(event)
        for table, before in kept:
            table.clear()
            table.update(before)


def buffered(world: World) -> BufferedWorld:
    """A fresh world, with store buffers."""
    return BufferedWorld(world.setup, **{name: type(part) for name, part in world.parts.items()})


# -- tables that note who looks --------------------------------------------------------------------


class TooManyValues(PopcornError):
    """One entry of one table takes more values than a state has room for."""


class Book:
    """The numbers of all table entries and of their values, and notes on who looks at them."""

    def __init__(self, world: World) -> None:
        self.tables: list[Watched] = []
        self.private: list[bool] = []
        self.names: list[str] = []
        for part_name, part in world.parts.items():
            for name in part.tables:
                table = Watched(getattr(part, name))
                table.book, table.index = self, len(self.tables)
                self.tables.append(table)
                self.private.append(name in part.private)
                self.names.append(f"{part_name}.{name}")
                setattr(part, name, table)
        self.cells: list[tuple[int, object]] = []  # cell -> its table and key
        self.cell_of: list[dict] = [{} for _ in self.tables]
        self.values: list[list] = []  # cell -> its values, by their number; 0: no entry
        self.value_of: list[dict] = []
        self.trail: list | None = None  # what is being noted
        self.seen: set[int] = set()
        self.wrote: dict[int, None] | None = None
        for table in self.tables:
            for key in table:
                self.cell(table.index, key)

    def cell(self, table: int, key: object) -> int:
        cells = self.cell_of[table]
        cell = cells.get(key)
        if cell is None:
            cell = cells[key] = len(self.cells)
            self.cells.append((table, key))
            self.values.append([None])
            self.value_of.append({})
        return cell

    def number(self, cell: int) -> int:
        """The number of the value that the entry has now."""
        table, key = self.cells[cell]
        entries = self.tables[table]
        if not dict.__contains__(entries, key):
            return 0
        value = dict.__getitem__(entries, key)
        numbers, known = self.value_of[cell], (type(value), value)
        number = numbers.get(known)
        if number is None:
            number = len(self.values[cell])
            if number > VALUES_AT_MOST:
                raise TooManyValues(
                    f"{self.names[table]}[{key}] takes more than {VALUES_AT_MOST} values"
                )
            numbers[known] = number
            self.values[cell].append(value)
        return number

    def look(self, table: int, key: object) -> None:
        if self.trail is not None:
            cell = self.cell(table, key)
            if cell not in self.seen:
                self.seen.add(cell)
                self.trail.append((READ, cell, self.number(cell)))

    def look_at_all(self, table: int) -> None:
        if self.trail is not None:
            self.trail.append((WHOLE, table, self.content(table)))

    def content(self, table: int) -> tuple:
        return tuple(sorted((self.cell(table, key), self.number(self.cell(table, key)))
                            for key in dict.keys(self.tables[table])))  # fmt: skip

    def change(self, table: int, key: object) -> None:
        if self.wrote is not None:
            self.wrote[self.cell(table, key)] = None
        elif self.trail is not None:
            raise TypeError("mappingproxy: a story never assigns to the world's tables")

    def vector(self) -> bytes:
        return bytes(map(self.number, range(len(self.cells)))).rstrip(b"\0")

    def load(self, vector: bytes) -> None:
        """Make the tables what this vector says."""
        tables, cells, values = self.tables, self.cells, self.values
        for table in tables:
            dict.clear(table)
        for cell, number in enumerate(vector):
            if number:
                table, key = cells[cell]
                dict.__setitem__(tables[table], key, values[cell][number])


class Watched(dict):
    """A table that notes in its book which entries are looked at, and which are changed."""

    __slots__ = ("book", "index")
    __hash__ = None

    def __getitem__(self, key):
        self.book.look(self.index, key)
        return dict.__getitem__(self, key)

    def get(self, key, default=None):
        self.book.look(self.index, key)
        return dict.get(self, key, default)

    def __contains__(self, key):
        self.book.look(self.index, key)
        return dict.__contains__(self, key)

    def _all(self) -> list:
        self.book.look_at_all(self.index)
        return sorted(dict.keys(self), key=repr)

    def __iter__(self):
        return iter(self._all())

    def __reversed__(self):
        return reversed(self._all())

    def __len__(self):
        self.book.look_at_all(self.index)
        return dict.__len__(self)

    def __bool__(self):
        return len(self) > 0

    def keys(self):
        return dict.fromkeys(self._all()).keys()

    def values(self):
        return {key: dict.__getitem__(self, key) for key in self._all()}.values()

    def items(self):
        return {key: dict.__getitem__(self, key) for key in self._all()}.items()

    def copy(self):
        return dict(self.items())

    def __eq__(self, other):
        return self.copy() == other

    def __ne__(self, other):
        return not self == other

    def __or__(self, other):
        return self.copy() | other

    def __ror__(self, other):
        return other | self.copy()

    def __setitem__(self, key, value):
        self.book.change(self.index, key)
        dict.__setitem__(self, key, value)

    def __delitem__(self, key):
        self.book.look(self.index, key)
        self.book.change(self.index, key)
        dict.__delitem__(self, key)

    def pop(self, key, *default):
        self.book.look(self.index, key)
        self.book.change(self.index, key)
        return dict.pop(self, key, *default)

    def setdefault(self, key, default=None):
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others, **more):
        for key, value in dict(*others, **more).items():
            self[key] = value

    __ior__ = None

    def popitem(self):
        keys = self._all()
        if not keys:
            raise KeyError("popitem(): dictionary is empty")
        return keys[-1], self.pop(keys[-1])

    def clear(self):
        for key in self._all():
            del self[key]


# -- what a story holds ----------------------------------------------------------------------------


class Incomparable(Exception):
    """A value of which nobody can say whether it equals another."""


PLAIN = (int, bool, str, float, bytes, type(None), complex)
ITERATORS = tuple(
    type(made)
    for made in (
        iter([]), iter(()), iter(range(0)), iter(range(1 << 70)), iter({}), iter({}.items()),
        iter({}.values()), iter(set()), iter(""), iter(b""), enumerate(()), zip(), reversed([]),
        reversed(()), map(int, ()), filter(None, ()), iter({1: 1}.keys()),
    )
)  # fmt: skip
DEEPEST = 20


class Describer:
    """Says of a suspended story all that its future can depend on, as one hashable value."""

    def __init__(self, world: World, stage: object) -> None:
        setup = world.setup
        same = [world, stage, setup, *world.parts.values(), getattr(setup, "machine", None)]
        if hasattr(setup, "costs"):
            same.append(setup.costs)
        self.same = {id(thing): thing for thing in same if thing is not None}

    def story(self, story: Generator, depth: int = 0) -> tuple:
        frame = story.gi_frame
        if frame is None:
            return ("ended",)
        values = frame.f_locals  # of Python's own, with the names of what is bound
        skip = {id(frame), id(values), id(frame.f_code), id(story.gi_yieldfrom)}
        things = gc.get_referents(story)  # the local variables, then the value stack
        while things and things[-1] is None:  # Python may add its "no exception", or may not;
            things.pop()  # names and position fix how many there are, so nothing is lost
        held = tuple(
            self.value(thing, depth + 1)
            for thing in things
            if id(thing) not in skip and type(thing) is not types.FrameType
        )
        inner = story.gi_yieldfrom
        if type(inner) is types.GeneratorType:
            below = self.story(inner, depth + 1)
        else:
            below = None if inner is None else self.value(inner, depth + 1)
        return id(frame.f_code), frame.f_lasti, tuple(values), held, below

    def value(self, thing: object, depth: int = 0) -> object:
        kind = type(thing)
        if kind in PLAIN:
            return kind, thing
        if id(thing) in self.same or kind in (Watched, types.CodeType, types.ModuleType):
            return id(thing)
        if depth > DEEPEST:
            raise Incomparable
        depth += 1
        if isinstance(thing, type) or kind is types.BuiltinFunctionType:
            return id(thing)
        if isinstance(thing, (tuple, list)):
            return kind, tuple([self.value(part, depth) for part in thing])
        if isinstance(thing, dict):
            pairs = dict.items(thing)
            return kind, tuple([(self.value(k, depth), self.value(v, depth)) for k, v in pairs])
        if isinstance(thing, (set, frozenset)):
            return kind, frozenset([self.value(part, depth) for part in thing])
        if isinstance(thing, int):  # a Word
            return kind, int(thing)
        if kind is types.GeneratorType:
            return self.story(thing, depth)
        if kind is types.CellType:
            try:
                return "cell", self.value(thing.cell_contents, depth)
            except ValueError:
                return ("cell",)
        if kind is types.FunctionType:
            more = thing.__closure__, thing.__defaults__, thing.__kwdefaults__
            return "function", id(thing.__code__), self.value(more, depth)
        if kind is types.MethodType:
            return "method", self.value(thing.__self__, depth), self.value(thing.__func__, depth)
        if kind in ITERATORS:
            _, *rest = thing.__reduce__()
            return kind, self.value(rest, depth)
        if kind is types.MappingProxyType:
            return kind, self.value(gc.get_referents(thing), depth)
        if kind is PartLens:
            return kind, self.value(thing._seen, depth)
        if kind in (Lens, OwnRows):
            return kind, self.value(vars(thing), depth)
        if kind is range:
            return kind, (thing.start, thing.stop, thing.step)
        if kind is Delay:
            return kind, thing.ns, thing.cpu
        if kind is Until:
            return kind, thing.kind, thing.fields, thing.values, thing.within
        if kind is Fence:
            return kind
        if isinstance(thing, BaseException):
            return kind, self.value((thing.args, vars(thing)), depth)
        if type(getattr(thing, "__dict__", None)) is dict and not hasattr(kind, "__slots__"):
            return kind, self.value(vars(thing), depth)
        raise Incomparable


# -- places and facts ------------------------------------------------------------------------------


class Fact:
    """An event that was said, with what is known of its effects."""

    def __init__(self, event: Event, covering: bool) -> None:
        self.event, self.kind = event, type(event)
        self.memory = type(event).memory
        if self.memory == "covered" and not covering:
            self.memory = "store"
        self.root: list = []
        self.reads = 0  # a bit for each entry that its effects have ever looked at
        self.wakes: dict[tuple[int, str], Place | None] = {}
        self.halts = getattr(event, type(event).halts) if getattr(self.kind, "halts", "") else None


class Cont:
    """A suspended story, and how to get there: the place before, and the world it went on in."""

    __slots__ = ("who", "kernel", "key", "before", "view", "child", "tell", "live", "from_root")

    def __init__(self, who, kernel, key, before=None, view=b"", child=-1, tell=None) -> None:
        self.who, self.kernel, self.key, self.tell = who, kernel, key, tell
        self.before, self.view, self.child = before, view, child
        self.live: Generator | None = None  # the generator itself, if it stands just here


class Place:
    """Where an actor stands between two steps."""

    __slots__ = (
        "number", "who", "kernel", "cont", "until", "answer", "root", "settled", "gives_up",
        "view",
        "after",
        "direct",
        "future",
    )  # fmt: skip

    def __init__(self, number: int, cont: Cont, until: Until | None, answer) -> None:
        self.number, self.cont, self.until, self.answer = number, cont, until, answer
        self.who, self.kernel = cont.who, cont.kernel
        self.root: list = []  # a node: [what, with what, next], see READ ... FAIL; []: not known
        self.settled: Place | None | bool = False
        self.gives_up: Place | None = None
        self.view = b""  # a world in which its step was compiled
        self.after: list[Place] = []  # where it stands when it was woken
        self.direct: Touches | None = None  # what its step touches, and all that may follow
        self.future: Touches | None = None

    def waits_for(self) -> str:
        return self.until.text() if self.until is not None else ""


class State(NamedTuple):
    vector: bytes  # the number of each table entry's value
    actors: tuple[int, ...]  # the numbers of their places, sorted
    buffers: tuple  # (kernel, (store, ...)) of each kernel with a store that waits


class Touches(NamedTuple):
    """What a step, or all steps from a place on, can touch: bits of entries, kinds and kernels."""

    reads: int = 0
    writes: int = 0  # in memory, or in private tables
    stores: int = 0  # through a store buffer
    says: int = 0
    drained: int = 0  # what is said when those stores drain
    waits: int = 0
    buffer: int = 0  # of which kernels it uses the store buffer
    drains: bool = False
    halts: bool = False

    def later(self) -> Touches:
        """The same, for those who look at it from before: every store has drained."""
        return self._replace(writes=self.writes | self.stores, says=self.says | self.drained)

    def and_then(self, other: Touches) -> Touches:
        return Touches(*map(int.__or__, self, other))


class Broken(Exception):
    """A step that cannot be taken: a story or the world refuses."""

    def __init__(self, who: str, sentence: str) -> None:
        super().__init__(sentence)
        self.who, self.sentence = who, sentence


class Told(NamedTuple):
    """One thing that happens in a step, for whoever tells it again."""

    what: str  # "says", "waits", "drains", "wakes", "begins", "goes" or "halts"
    who: str = ""
    event: Event | None = None
    old: int = -1
    new: int = -1


# -- the transition system -------------------------------------------------------------------------


class Explorer:
    """The transition system of some stories over a world: their states and steps.

    ``start()`` makes the world, ``cast(explorer)`` begins the actors, as it would with a Sim.
    """

    def __init__(
        self,
        start: Callable[[], World],
        cast: Callable[[Explorer], None],
        *,
        memory: str = "sc",
        careful: bool = False,
    ) -> None:
        if memory not in MEMORIES:
            raise PopcornError(f"memory={memory!r}: {near_names(str(memory), MEMORIES)}")
        self.start, self.tso, self.careful = start, memory == "tso", careful
        self.world = start()
        self.stage = Stage(self.world)
        self.book = Book(self.world)
        self.describe = Describer(self.world, self.stage)
        self.facts: dict[tuple, Fact] = {}
        self.conts: dict[object, Cont] = {}
        self.places: list[Place] = []
        self._place_of: dict[tuple, Place] = {}
        self.stores: list[tuple[Fact, tuple, str, int]] = []
        self._store_of: dict[tuple, int] = {}
        self._overlays: dict[tuple, dict] = {(): {}}
        self._known: dict[tuple, tuple] = {}  # what a step does, whoever else is there
        self._waited: set[type[Event]] = set()
        self._kind_bits: dict[type[Event], int] = {}
        self._pairs: dict[int, dict[int, int]] = defaultdict(dict)
        self._store_pairs: dict[int, dict[int, int]] = defaultdict(dict)
        self._drain_pairs: dict[int, dict[int, int]] = defaultdict(dict)
        self._same: dict = {}  # equal tuples shall be one: it saves room and time
        self._choices_of: dict[tuple, list[int]] = {}
        self._fronts: dict[tuple, tuple] = {}
        self._free_of: dict[tuple, list[int]] = {}
        self._drains_of: dict[tuple, bool] = {}
        self.grown = 0  # how often a tree has grown, or a place was found
        self.begun: list[Place] = []  # by the cast, in that order
        self.resumed = 0  # how often a generator was resumed
        self.steps_taken = 0
        cast(self)
        self.opening: list[tuple[int, int]] = []  # the schedule of power-on
        self.zero = State(self.book.vector(), tuple(sorted(p.number for p in self.begun)), ())
        self.first = self._power_on()

    def begin(self, who: str, tell: Callable, *args, kernel: int | None = None) -> None:
        """Put an actor on the stage, as Sim.begin does."""
        seen = self.world.seen_by(kernel) if self.careful else self.stage

        def again() -> Generator:
            try:
                made = tell(seen, *args)
            except Exception as error:
                raise raised(who, error) from error
            return as_story(made, who, tell)

        cont = self._cont(who, kernel, again(), None, b"", tell=again)
        self.begun.append(self._place(cont))

    def _power_on(self) -> State:
        """Everybody acts in the order they were begun, up to the first Delay or Until, as in the
        Sim: at power-on no order is left open."""
        telling = Telling(self, opening=False)
        for actor in range(len(self.begun)):
            going = True
            while going:
                told = telling.act(ACT, actor)
                if telling.broken:
                    broken = telling.broken
                    raise StoryError(f"{broken.who}: {broken.sentence}")
                going = any(thing.what == "goes" and thing.old == -2 for thing in told)
            while telling.state.buffers:
                telling.act(DRAIN, telling.state.buffers[0][0])
        self.opening = list(telling.schedule)
        return telling.state

    # -- one step ------------------------------------------------------------------------------

    def choices(self, state: State) -> list[int]:
        """Who can do something: the number of a place, or -1 - kernel for a store that drains."""
        found = self._choices_of.get(state.actors)
        if found is None:
            found, places = [], self.places
            for number in dict.fromkeys(state.actors):
                until = places[number].until
                if until is None or until.within is not None:
                    found.append(number)
            self._choices_of[state.actors] = found
        if state.buffers:
            return found + [-1 - kernel for kernel, _ in state.buffers]
        return found

    def take(self, state: State, choice: int, told: list | None = None) -> State:
        if choice < 0:
            return self.drain(state, -1 - choice, told)
        return self.step(state, self.places[choice], told)

    def drain(self, state: State, kernel: int, told: list | None = None) -> State:
        """The oldest store in a kernel's buffer reaches memory."""
        vector, actors, buffers = state
        w, actors = self._copy(vector), list(actors)
        left = []
        for owner, stores in buffers:
            if owner == kernel:
                front = self._front(stores)  # what the next store covers goes with it
                for store in front:
                    self._commit(self.stores[store], w, actors, told)
                stores = stores[len(front) :]
            if stores:
                left.append((owner, stores))
        actors.sort()
        now, kept, after = tuple(actors), tuple(left), bytes(w.rstrip(b"\0"))
        same = self._same.setdefault
        return State(same(after, after), same(now, now), same(kept, kept))

    def _copy(self, vector: bytes) -> bytearray:
        w = bytearray(len(self.book.cells))
        w[: len(vector)] = vector
        return w

    def _commit(self, store: tuple, w: bytearray, actors: list[int], told: list | None) -> None:
        fact, writes, who, kernel = store
        for cell, number in writes:
            w[cell] = number
        if told is not None:
            told.append(Told("drains", who, fact.event, old=kernel))
        self._wake(fact, who, actors, told)

    def _wake(self, fact: Fact, who: str, actors: list[int], told: list | None) -> None:
        if fact.kind in self._waited:
            wakes, places = fact.wakes, self.places
            for index, number in enumerate(actors):
                if places[number].until is not None:
                    key = number, who
                    if key not in wakes:
                        wakes[key] = self._woken(places[number], fact, who)
                    woken = wakes[key]
                    if woken is not None:
                        actors[index] = woken.number
                        if told is not None:
                            told.append(Told("wakes", who, old=number, new=woken.number))
        if fact.halts is not None:
            for number in [n for n in actors if self.places[n].kernel == fact.halts]:
                actors.remove(number)
                if told is not None:
                    told.append(Told("halts", old=number))

    def _woken(self, place: Place, fact: Fact, who: str) -> Place | None:
        until, event = place.until, fact.event
        if until.kind is not fact.kind:
            return None
        for field, value in zip(until.fields, until.values, strict=True):
            if getattr(event, field) != value:
                return None
        woken = self._place(place.cont, None, (fact, who))
        if woken not in place.after:
            place.after.append(woken)
            self.grown += 1
        return woken

    def step(self, state: State, place: Place, told: list | None = None) -> State:
        """One actor goes on, as its tree says; where the tree has no answer, its story is told."""
        self.steps_taken += 1
        if place.until is not None:  # within: it gives up
            if place.gives_up is None:
                place.gives_up = self._place(place.cont, None, None, gives_up=True)
                place.after.append(place.gives_up)
                self.grown += 1
            acts = place.gives_up
        else:
            acts = place
        vector, actors, buffers = state
        kernel, own = place.kernel, ()
        if buffers and kernel is not None:
            for owner, stores in buffers:
                if owner == kernel:
                    own = stores
        if told is None:
            known = self._known.get((acts.number, vector, own))
            if known is not None:
                after, end, begun, said, left = known
                others = list(actors)
                others.remove(place.number)
                for fact, who in said:
                    if fact.kind in self._waited or fact.halts is not None:
                        self._wake(fact, who, others, None)
                others += begun
                if end >= 0:
                    others.append(end)
                others.sort()
                if left is not own:
                    buffers = self._with(buffers, kernel, left)
                now = tuple(others)
                return State(after, self._same.setdefault(now, now), buffers)
        while True:
            done = self._walk(state, acts, place.number, own, told)
            if done is not None:
                return done
            if told is not None:
                told.clear()
            self._compile(acts, self._view(vector, own))

    def _overlay(self, own: tuple) -> dict:
        """What a kernel's own stores make it see."""
        seen = self._overlays.get(own)
        if seen is None:
            seen = {}
            for store in own:
                seen.update(self.stores[store][1])
            self._overlays[own] = seen
        return seen

    def _view(self, vector: bytes | bytearray, own: tuple) -> bytes:
        w = self._copy(vector)
        for cell, number in self._overlay(own).items():
            w[cell] = number
        return bytes(w)

    def _walk(self, state, acts, number, own, told) -> State | None:
        """Follow the tree; None if it ends where nobody has been."""
        vector, actors, buffers = state
        w = self._copy(vector)
        over = self._overlay(own) if own else None
        others: list[int] | None = None
        kernel, who = acts.kernel, acts.who
        buffering = self.tso and kernel is not None
        node, came, said, begun = acts.root, own, [], []
        while node:
            what, arg, then = node
            if what == READ:
                if over and arg in over:
                    node = then.get(over[arg])
                else:
                    node = then.get(w[arg] if arg < len(w) else 0)
            elif what == END:
                end = -1
                if others is None:
                    others = list(actors)
                    others.remove(number)
                if arg is not None:
                    settled = arg.settled
                    if settled is False:
                        settled = self._settle(arg, self._view(w, own))
                    if settled is not None:
                        end = settled.number
                        others.append(end)
                    if told is not None:
                        new = -1 if settled is None else settled.number
                        told.append(Told("goes", who, old=-2 if then == AT_WRITE else -1, new=new))
                elif told is not None:
                    told.append(Told("goes", who))
                others.sort()
                if own is not came:
                    buffers = self._with(buffers, kernel, own)
                after = bytes(w.rstrip(b"\0"))
                if len(self._known) < KNOWN_AT_MOST:
                    self._known[acts.number, vector, came] = after, end, begun, said, own
                return State(after, tuple(others), buffers)
            elif what == SAY:
                if others is None:
                    others = list(actors)
                    others.remove(number)
                fact = arg
                if own and fact.memory == "locked":
                    for store in own:
                        self._commit(self.stores[store], w, others, told)
                        said.append(self.stores[store][:3:2])
                    own, over = (), None
                try:
                    private, shared = self._effects(fact, w, own, who)
                except Broken:
                    if then and then[0] == FAIL:
                        raise Broken(who, then[1]) from None
                    raise
                if len(w) < len(self.book.cells):
                    w.extend(bytes(len(self.book.cells) - len(w)))
                for cell, value in private:
                    w[cell] = value
                if buffering and fact.memory in STORES:
                    own = (*own, self._store(fact, shared, who, kernel))
                    over = self._overlay(own)
                    if told is not None:
                        told.append(Told("waits", who, fact.event, old=kernel))
                else:
                    for cell, value in shared:
                        w[cell] = value
                    if told is not None:
                        told.append(Told("says", who, fact.event))
                    said.append((fact, who))
                    self._wake(fact, who, others, told)
                node = then
                if fact.halts is not None and fact.halts == kernel:
                    node = ENDED
            elif what == WHOLE:
                node = then.get(self._content(arg, w, over))
            elif what == BEGIN:
                if others is None:
                    others = list(actors)
                    others.remove(number)
                others.append(arg.number)
                begun.append(arg.number)
                if told is not None:
                    told.append(Told("begins", arg.who, new=arg.number))
                node = then
            elif what == FENCE:
                if others is None:
                    others = list(actors)
                    others.remove(number)
                for store in own:
                    self._commit(self.stores[store], w, others, told)
                    said.append(self.stores[store][:3:2])
                own, over = (), None
                node = then
            else:
                raise Broken(who, arg)
        return None

    def _content(self, table: int, w: bytearray, over: dict | None) -> tuple:
        found = []
        for cell in self.book.cell_of[table].values():
            number = over[cell] if over and cell in over else w[cell] if cell < len(w) else 0
            if number:
                found.append((cell, number))
        return tuple(sorted(found))

    def _with(self, buffers: tuple, kernel: int, own: tuple) -> tuple:
        left = [pair for pair in buffers if pair[0] != kernel]
        if own:
            left.append((kernel, own))
            left.sort()
        now = tuple(left)
        return self._same.setdefault(now, now)

    def _store(self, fact: Fact, writes: tuple, who: str, kernel: int) -> int:
        key = fact.event, fact.kind, writes, who, kernel
        number = self._store_of.get(key)
        if number is None:
            number = self._store_of[key] = len(self.stores)
            self.stores.append((fact, writes, who, kernel))
        return number

    def _effects(self, fact: Fact, w: bytearray, own: tuple, who: str) -> tuple:
        """What an event does to private tables and to shared ones, in this world."""
        over = self._overlay(own) if own else None
        while True:
            node = fact.root
            while node:
                what, arg, then = node
                if what == READ:
                    if over and arg in over:
                        node = then.get(over[arg])
                    else:
                        node = then.get(w[arg] if arg < len(w) else 0)
                elif what == END:
                    return arg
                elif what == WHOLE:
                    node = then.get(self._content(arg, w, over))
                else:
                    raise Broken(who, arg)
            self.book.load(self._view(w, own))
            self._apply(fact)

    # -- compiling -----------------------------------------------------------------------------

    def _apply(self, fact: Fact) -> str:
        """Let the event happen in the tables as they are, and note what it reads and writes.
        Returns what the world has against it."""
        book = self.book
        outer = book.trail, book.seen
        trail, book.seen, book.wrote = [], set(), {}
        book.trail = trail
        try:
            self.world.apply(fact.event)
            problem = ""
        except TooManyValues:
            raise
        except Exception as error:
            problem = in_words(error)
        finally:
            wrote = book.wrote
            (book.trail, book.seen), book.wrote = outer, None
        if problem:
            trail.append((FAIL, problem, None))
        else:
            private, shared = [], []
            for cell in wrote:
                where = private if book.private[book.cells[cell][0]] else shared
                where.append((cell, book.number(cell)))
            trail.append((END, (tuple(private), tuple(shared)), None))
        grow(fact.root, trail)
        for what, arg, _ in trail:
            if what == READ:
                fact.reads |= 1 << arg
            elif what == WHOLE:
                for cell in book.cell_of[arg].values():
                    fact.reads |= 1 << cell
        self.grown += 1
        return problem

    def _fact(self, event: Event) -> Fact:
        key = type(event), event
        fact = self.facts.get(key)
        if fact is None:
            fact = self.facts[key] = Fact(event, not self.careful)
        return fact

    def _cont(self, who, kernel, story, before, view, child=-1, tell=None, way=()) -> Cont:
        try:
            key = who, kernel, self.describe.story(story)
            hash(key)
        except (Incomparable, TypeError, RecursionError):
            key = who, kernel, None, before.number if before else -1, way, child
        cont = self.conts.get(key)
        if cont is None:
            cont = self.conts[key] = Cont(who, kernel, key, before, view, child, tell)
        cont.live = story
        return cont

    def _place(
        self, cont: Cont, until: Until | None = None, answer=None, gives_up: bool = False
    ) -> Place:
        waits = None
        if until is not None:
            waits = until.kind, until.fields, until.values, until.within
            self._waited.add(until.kind)
        key = cont.key, waits, answer, gives_up
        place = self._place_of.get(key)
        if place is None:
            place = self._place_of[key] = Place(len(self.places), cont, until, answer)
            self.places.append(place)
        return place

    def _settle(self, place: Place, view: bytes) -> Place | None:
        """Skip the steps that neither look at the world nor change it."""
        passed: list[Place] = []
        here: Place | None = place
        while here is not None and here.until is None and here not in passed:
            if not here.root:
                self._compile(here, view)
            what, arg, _ = here.root
            if what != END or (arg is not None and arg.until is not None):
                break
            passed.append(here)
            here = arg
        place.settled = here
        return here

    def _compile(self, place: Place, view: bytes) -> None:
        """Let the story tell its step in this world, and note it in the place's tree."""
        story = self._materialise(place.cont)
        book = self.book
        book.load(view)
        trail: list = []
        book.trail, book.seen = trail, set()
        view = bytes(view)
        try:
            self._tell(place, story, view, trail)
        finally:
            book.trail = None
        grow(place.root, trail)
        place.view = view
        self.grown += 1

    def _tell(self, place: Place, story: Generator, view: bytes, trail: list) -> None:
        book, who, kernel = self.book, place.who, place.kernel
        answer, began = self._answer(place), 0
        for _ in range(LIMIT_STEPS):
            try:
                step = self._send(story, answer, who)
            except StopIteration:
                trail.append((END, None, AT_UNTIL))
                return
            except (StoryError, TooManyValues):
                raise
            except PopcornError as error:
                raise raised(who, error, story) from error
            except MISTAKES as error:
                raise raised(who, error, story) from error
            except Exception as error:
                where = place_of_error(error)
                trail.append((FAIL, f"{in_words(error)}{where}", None))
                return
            answer, kind = None, type(step)
            reason, until = AT_DELAY, None
            if isinstance(step, Event):
                if self.careful and (problem := field_problem(step)):
                    raise StoryError(f"{who}: {problem}{place_of(story)}")
                fact = self._fact(step)
                trail.append((SAY, fact, None))
                book.seen = set()
                book.trail = None
                problem = self._apply(fact)
                book.trail = trail
                if problem:
                    trail.append((FAIL, f"{problem}{place_of(story)}", None))
                    return
                if fact.memory in ("", "covered"):
                    continue
                reason = AT_WRITE
            elif kind is Until:
                reason, until = AT_UNTIL, step
            elif kind is Fence:
                trail.append((FENCE, None, None))
                reason = AT_WRITE
            elif kind is Begin:
                new = as_story(step.story, step.who)
                where = kernel if step.kernel == SAME_KERNEL else step.kernel
                book.trail = None
                cont = self._cont(step.who, where, new, place, view, began, way=steps_of(trail))
                trail.append((BEGIN, self._place(cont), None))
                book.trail = trail
                began += 1
                continue
            elif kind is not Delay:
                raise nonsense(who, step, story)
            book.trail = None
            cont = self._cont(who, kernel, story, place, view, way=steps_of(trail))
            trail.append((END, self._place(cont, until), reason))
            return
        raise StoryError(
            f"{who} took {LIMIT_STEPS:,} steps without letting time pass: an endless loop"
            f"{place_of(story)}"
        )

    def _answer(self, place: Place) -> Record | None:
        if place.answer is None:
            return None
        fact, who = place.answer
        return Record(0, 0, who, None, fact.event)

    def _send(self, story: Generator, answer: Record | None, who: str) -> object:
        self.resumed += 1
        if not self.careful:
            return story.send(answer)
        tracing = sys.gettrace()
        if tracing is None:
            sys.settrace(LineWatch().call)
        try:
            return story.send(answer)
        except OutOfLines as stop:
            raise StoryError(f"{who} {stop}{place_of_error(stop)}") from None
        finally:
            sys.settrace(tracing)

    def _materialise(self, cont: Cont) -> Generator:
        """The story itself, suspended where ``cont`` says: told again from its beginning, or from
        the last place where it still stands."""
        chain: list[Cont] = []
        here = cont
        while here.live is None and here.before is not None:
            chain.append(here)
            here = here.before.cont
        story, here.live = here.live, None
        if story is None:
            story = here.tell()
        for here in reversed(chain):
            story = self._again(here, story)
            if here.key[2] is not None and self.describe.story(story) != here.key[2]:
                raise StoryError(
                    f"{here.who} does something else when it is told again; a story must keep "
                    "what it knows in its own variables and in the world, not in a global one"
                    f"{place_of(story)}"
                )
        return story

    def _again(self, cont: Cont, story: Generator) -> Generator:
        """Tell the one step that leads to ``cont``."""
        place, began = cont.before, 0
        self.book.load(cont.view)
        answer = self._answer(place)
        while True:
            try:
                step = self._send(story, answer, cont.who)
            except Exception:
                break
            answer = None
            if isinstance(step, Event):
                try:
                    self.world.apply(step)
                except Exception:
                    break
                if self._fact(step).memory not in ("", "covered"):
                    return story
            elif type(step) is Begin:
                if began == cont.child:
                    return step.story
                began += 1
            else:
                return story
        raise StoryError(
            f"{cont.who} does something else when it is told again; a story must keep what it "
            "knows in its own variables and in the world, not in a global one"
        )

    # -- faults, for whoever walks -------------------------------------------------------------

    def lost(self, state: State, number: int) -> State:
        """An actor vanishes: an IPI that never arrives, a process that is killed."""
        actors = list(state.actors)
        actors.remove(number)
        return state._replace(actors=tuple(actors))

    def doubled(self, state: State, number: int) -> State:
        """An actor is there twice: an IPI that arrives twice."""
        return state._replace(actors=tuple(sorted((*state.actors, number))))

    def stopped(self, state: State, kernel: int) -> State:
        """A kernel stops where it is: nobody in it acts again; what it stored still drains."""
        left = tuple(n for n in state.actors if self.places[n].kernel != kernel)
        return state._replace(actors=left)

    # -- the reduction -------------------------------------------------------------------------

    def local_choice(self, state: State) -> int | None:
        """An actor whose next step commutes with all that others can ever do before it."""
        actors, buffers = state.actors, state.buffers
        free = self._free_of.get(actors)
        if free is None:
            free = self._free_of[actors] = [n for n in actors if self._is_free(n, actors)]
        for number in free:
            if not buffers or self._commutes_with_stores(self.places[number], state):
                return number
        return None

    def _is_free(self, number: int, actors: tuple[int, ...]) -> bool:
        """Does the next step of this actor commute with all that the other actors can ever do?"""
        places, row = self.places, self._pairs[number]
        place = places[number]
        if place.direct is None or place.until is not None:
            return False
        others = list(actors)
        others.remove(number)
        for other in others:
            if other not in row:
                row[other] = self._commute(place, places[other])
            if not row[other]:
                return False
        for other in others:
            row[other] = RELIED
        return True

    def local_drain(self, state: State) -> int | None:
        """A kernel whose oldest store nobody else can ever tell from its having drained."""
        actors, buffers = state.actors, state.buffers
        for kernel, stores in buffers:
            front = self._fronts.get(stores)
            if front is None:
                front = self._fronts[stores] = self._front(stores)
            free = self._drains_of.get((actors, front))
            if free is None:
                free = self._drains_of[actors, front] = self._drains_free(front, actors)
            if free and not (
                len(buffers) > 1
                and any(
                    self._overlap(mine, store)
                    for other, theirs in buffers
                    if other != kernel
                    for mine in front
                    for store in theirs
                )
            ):
                return kernel
        return None

    def _front(self, stores: tuple[int, ...]) -> tuple[int, ...]:
        """What drains in one step: the oldest store, or those it covers and their cover."""
        length = 1
        while length < len(stores) and self.stores[stores[length - 1]][0].memory == "covered":
            length += 1
        return stores[:length]

    def _drains_free(self, front: tuple[int, ...], actors: tuple[int, ...]) -> bool:
        for mine in front:
            row = self._drain_pairs[mine]
            for other in actors:
                if other not in row:
                    row[other] = self._drain_commutes(mine, self.places[other])
                if not row[other]:
                    return False
        for mine in front:
            for other in actors:
                self._drain_pairs[mine][other] = RELIED
        return True

    def _overlap(self, mine: int, store: int) -> bool:
        cells = {cell for cell, _ in self.stores[mine][1]}
        return any(cell in cells for cell, _ in self.stores[store][1])

    def _drain_commutes(self, store: int, other: Place) -> int:
        fact, writes, _, kernel = self.stores[store]
        future = other.future
        if future is None or future.halts or fact.halts is not None:
            return NO
        if self._kind_bit(fact.kind) & future.waits:
            return NO
        if other.kernel != kernel:  # one's own kernel sees no difference
            touched = future.reads | future.writes
            if any(touched >> cell & 1 for cell, _ in writes):
                return NO
        return YES

    def _commute(self, place: Place, other: Place) -> int:
        direct, future = place.direct, other.future
        if future is None or future.halts or direct is None:
            return NO
        clash = (
            direct.writes & (future.reads | future.writes)
            or direct.reads & future.writes
            or direct.says & future.waits
            or direct.waits & future.says
            or direct.buffer & future.buffer
            or (other.kernel == place.kernel and direct.stores & (future.reads | future.writes))
        )
        return NO if clash else YES

    def _commutes_with_stores(self, place: Place, state: State) -> bool:
        """Does a step commute with the stores that wait, and may it empty its own buffer?"""
        row = self._store_pairs[place.number]
        for kernel, stores in state.buffers:
            for store in stores:
                answer = row.get(store)
                if answer is None:
                    answer = row[store] = self._commutes_with_store(place, store)
                if answer is NO:
                    return False
            if place.direct.drains and kernel == place.kernel:
                return False
        for _, stores in state.buffers:
            for store in stores:
                row[store] = RELIED
        return True

    def _commutes_with_store(self, place: Place, store: int) -> int:
        fact, writes, _, kernel = self.stores[store]
        direct, written = place.direct, 0
        if direct is None or direct.waits & self._kind_bit(fact.kind):
            return NO
        for cell, _ in writes:
            written |= 1 << cell
        if kernel != place.kernel and (direct.reads | direct.writes) & written:
            return NO
        return YES

    def _kind_bit(self, kind: type[Event]) -> int:
        bit = self._kind_bits.get(kind)
        if bit is None:
            bit = self._kind_bits[kind] = 1 << len(self._kind_bits)
        return bit

    def foresee(self) -> bool:
        """Work out what each place can touch, now and later, from the trees as they are. Returns
        whether something that a step was taken early for turns out to be wrong."""
        self._try_other_values()
        self.grown = 0
        direct = [self._touches(place) for place in self.places]
        after = []
        for place in self.places:
            next_ones = [other.number for other in place.after]
            work = [place.root]
            while work:
                node = work.pop()
                if node:
                    what, arg, then = node
                    if what in (READ, WHOLE):
                        work += then.values()
                    elif what == END:
                        if arg is not None:
                            next_ones.append(arg.number)
                            if arg.settled:
                                next_ones.append(arg.settled.number)
                    elif what != FAIL:
                        if what == BEGIN:
                            next_ones.append(arg.number)
                        work.append(then)
            after.append(set(next_ones))
        future = [touches.later() for touches in direct]
        changing = True
        while changing:
            changing = False
            for number in range(len(future) - 1, -1, -1):
                whole = future[number]
                for other in after[number]:
                    whole = whole.and_then(future[other])
                if whole != future[number]:
                    future[number], changing = whole, True
        for place, now, later in zip(self.places, direct, future, strict=True):
            place.direct, place.future = None if now.halts else now, later
        wrong = (
            any(
                answer is RELIED and not self._commute(self.places[number], self.places[other])
                for number, row in self._pairs.items()
                for other, answer in row.items()
                if other != number
            )
            or any(
                answer is RELIED and not self._commutes_with_store(self.places[number], store)
                for number, row in self._store_pairs.items()
                for store, answer in row.items()
            )
            or any(
                answer is RELIED and not self._drain_commutes(store, self.places[other])
                for store, row in self._drain_pairs.items()
                for other, answer in row.items()
            )
        )
        self._free_of.clear()
        self._drains_of.clear()
        for rows in (self._pairs, self._store_pairs, self._drain_pairs):
            for row in rows.values():
                for other in [other for other, answer in row.items() if answer is not RELIED]:
                    del row[other]
            if wrong:
                rows.clear()
        return wrong

    def forget(self) -> None:
        """A search begins, and has relied on nothing yet."""
        for rows in (self._pairs, self._store_pairs, self._drain_pairs):
            rows.clear()
        self._free_of.clear()
        self._drains_of.clear()

    def _touches(self, place: Place) -> Touches:
        """What this step can touch, over all paths of its tree."""
        if place.until is not None:
            return Touches(waits=self._kind_bit(place.until.kind))
        reads = writes = stores = says = drained = waits = buffer = 0
        drains = halts = False
        buffering = self.tso and place.kernel is not None
        own_buffer = 1 << place.kernel if buffering else 0
        same = self._same_end(place.root)
        work = [place.root]
        while work:
            node = work.pop()
            if not node:
                continue
            what, arg, then = node
            if what == READ:
                if not same:
                    reads |= 1 << arg
                work += then.values()
            elif what == WHOLE:
                for cell in self.book.cell_of[arg].values():
                    reads |= 1 << cell
                work += then.values()
            elif what == SAY:
                work.append(then)
                reads |= arg.reads
                halts = halts or arg.halts is not None
                stored = buffering and arg.memory in STORES
                if arg.memory and buffering:
                    buffer |= own_buffer
                drains = drains or arg.memory == "locked"
                if not stored:
                    says |= self._kind_bit(arg.kind)
                for private, shared in effects_in(arg.root):
                    for cell, _ in private:
                        writes |= 1 << cell
                    for cell, _ in shared:
                        if stored:
                            stores |= 1 << cell
                        else:
                            writes |= 1 << cell
                later = self._kind_bit(arg.kind)
                if stored:  # said when it drains: no concern of this step, but of what follows
                    drained |= later
            elif what == FENCE:
                work.append(then)
                buffer |= own_buffer
                drains = True
            elif what == BEGIN:
                work.append(then)
            elif what == END and then == AT_UNTIL and arg is not None:
                waits |= self._kind_bit(arg.until.kind)
        return Touches(reads, writes, stores, says, drained, waits, buffer, drains, halts)

    def _same_end(self, root: list) -> bool:
        """Does the step end the same, and say nothing, whatever it finds, as far as is known?"""
        if not root or root[0] != READ:
            return False
        ends = set()
        work = [root]
        while work:
            node = work.pop()
            if not node:
                return False
            what, arg, then = node
            if what == READ:
                if any(n not in then for n in range(1, len(self.book.values[arg]))):
                    return False
                work += then.values()
            elif what == END:
                ends.add((arg.number if arg else -1, then))
                if len(ends) > 1:
                    return False
            else:
                return False
        return True

    def _try_other_values(self) -> None:
        """Where a step has ended the same so far, ask the story about all the values that an entry
        ever took: only then may it be said that what it finds makes no difference."""
        for place in self.places:
            if place.until is not None or not place.root or place.root[0] != READ:
                continue
            tried = 0
            while tried < TRIES_AT_MOST and (missing := self._missing(place.root)):
                tried += 1
                view = bytearray(self._copy(place.view))
                for cell, number in missing:
                    view[cell] = number
                before = self.resumed
                try:
                    self._compile(place, bytes(view))
                except (PopcornError, Exception):  # a world that never is
                    break
                if self.resumed == before:
                    break

    def _missing(self, root: list) -> tuple | None:
        """A way through the tree that was not tried, if all that were tried end the same."""
        ends, missing = set(), None
        work = [(root, ())]
        while work:
            node, way = work.pop()
            if not node:
                continue
            what, arg, then = node
            if what == READ:
                for number in range(1, len(self.book.values[arg])):
                    if number not in then:
                        missing = missing or (*way, (arg, number))
                work += [(child, (*way, (arg, number))) for number, child in then.items()]
            elif what == END:
                ends.add((arg.number if arg else -1, then))
                if len(ends) > 1:
                    return None
            else:
                return None
        return missing

    def rushed(self, state: State) -> State:
        """The state after all steps that need not wait for anybody."""
        for _ in range(RUSH_AT_MOST):
            choice = self.free_choice(state)
            if choice is None:
                return state
            state = self.take(state, choice)
        return state

    def free_choice(self, state: State) -> int | None:
        """A step or a drain that need not wait for anybody."""
        if state.buffers:
            kernel = self.local_drain(state)
            if kernel is not None:
                return -1 - kernel
        return self.local_choice(state)

    # -- worlds and tellings -------------------------------------------------------------------

    def world_of(self, state: State) -> World:
        """The world in this state, as memory has it: to look at, until the next step."""
        self.book.load(state.vector)
        return self.world

    def waiting(self, state: State) -> tuple[tuple[str, str], ...]:
        places = map(self.places.__getitem__, state.actors)
        return tuple((place.who, place.waits_for()) for place in places if place.until is not None)


def effects_in(root: list) -> Iterator[tuple]:
    """All the effects that an event is known to have had."""
    work = [root]
    while work:
        node = work.pop()
        if node:
            what, arg, then = node
            if what == END:
                yield arg
            elif what != FAIL:
                work += then.values()


def grow(node: list, trail: list) -> None:
    """Add what was noted to a tree."""
    for what, arg, then in trail:
        if what in (READ, WHOLE):
            if not node:
                node += [what, arg, {}]
            node = node[2].setdefault(then, [])
        elif what in (END, FAIL):
            if not node:
                node += [what, arg, then]
        else:
            if not node:
                node += [what, arg, []]
            node = node[2]


def steps_of(trail: list) -> tuple:
    """A trail as the name of a way, for places that cannot be compared."""
    return tuple(
        (what, id(arg) if what in (SAY, BEGIN) else arg, then if what in (READ, WHOLE) else None)
        for what, arg, then in trail
    )


ACT, DRAIN = 0, 1


class Telling:
    """A schedule told with names, steps and causes: what becomes a Run.

    A schedule is a list of (ACT, n), the n-th actor that ever was goes on, and (DRAIN, kernel).
    """

    def __init__(self, explorer: Explorer, opening: bool = True) -> None:
        self.explorer, self.state = explorer, explorer.zero
        self.actors: list[list] = [[place.number, None] for place in explorer.begun]
        self.records: list[tuple[int, str, int | None, Event]] = []
        self.waiting: list[tuple] = []  # (kernel, record) of each store that waits
        self.schedule: list[tuple[int, int]] = []
        self.steps = 0
        self.broken: Broken | None = None
        if opening:
            for act in explorer.opening:
                self.act(*act)
            self.schedule.clear()
            self.steps = 0

    def find(self, choice: int) -> tuple[int, int]:
        """A choice in this state, as an act of a schedule."""
        if choice < 0:
            return DRAIN, -1 - choice
        return ACT, next(n for n, (place, _) in enumerate(self.actors) if place == choice)

    def act(self, what: int, which: int) -> list[Told]:
        """One step. Raises LookupError if it is not possible here."""
        explorer, told = self.explorer, []
        before, choice = self.steps, -1 - which
        if what == ACT:
            choice = self.actors[which][0]
        if choice not in explorer.choices(self.state):
            raise LookupError
        self.steps += 1
        self.schedule.append((what, which))
        try:
            self.state = explorer.take(self.state, choice, told)
        except Broken as broken:
            self.broken = broken
        if what == DRAIN:
            self._forget_waits(which, sum(thing.what == "drains" for thing in told), before)
        for thing in told:
            self._note(thing, which if what == ACT else -1)
        if self.broken:
            stopped = StoryStopped(self.broken.who, self.broken.sentence)
            self.records.append((self.steps, self.broken.who, None, stopped))
        return told

    def _forget_waits(self, kernel: int, drained: int, before: int) -> None:
        """Stores that drain at once, before anybody acts, are told as if there were no buffer."""
        mine = [n for n, (owner, _) in enumerate(self.waiting) if owner == kernel][:drained]
        places, first = [self.waiting[n][1] for n in mine], len(self.records) - drained
        if places == list(range(first, len(self.records))) and self.records[first][0] == before:
            causes = [cause for _, _, cause, _ in self.records[first:]]
            del self.records[first:]
            for n, cause in zip(mine, causes, strict=True):
                self.waiting[n] = kernel, cause

    def _note(self, thing: Told, acting: int) -> None:
        records = self.records
        if thing.what in ("says", "waits"):
            cause, self.actors[acting][1] = self.actors[acting][1], None
            event = thing.event
            if thing.what == "waits":
                self.waiting.append((thing.old, len(records)))
                event = StoreWaits.of(thing.old, event)
            records.append((self.steps, thing.who, cause, event))
        elif thing.what == "drains":
            at = next(n for n, (kernel, _) in enumerate(self.waiting) if kernel == thing.old)
            _, cause = self.waiting.pop(at)
            records.append((self.steps, thing.who, cause, thing.event))
        elif thing.what == "wakes":
            actor = next(actor for actor in self.actors if actor[0] == thing.old)
            actor[:] = thing.new, len(records) - 1
        elif thing.what == "begins":
            self.actors.append([thing.new, len(records) - 1 if records else None])
        elif thing.what == "goes":
            self.actors[acting][0] = thing.new
        else:
            actor = next((actor for actor in self.actors if actor[0] == thing.old), None)
            if actor:
                actor[0] = -1

    def run(self, meta: dict | None = None) -> Run:
        """The schedule so far as a Run, which the player and the checks take as any other."""
        explorer = self.explorer
        meta = dict(meta or {}) | {"arguments": None, "memory": "tso" if explorer.tso else "sc"}
        trace = Trace(meta)
        for step, who, cause, event in self.records:
            trace.append(step, who, cause, event)
        trace.pack()
        start = explorer.start
        make = (lambda: buffered(start())) if explorer.tso else start
        return Run(trace, make, None, explorer.waiting(self.state))


# -- the search ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a search has found. ``run`` is a shortest story that breaks a rule, or None."""

    memory: str
    states: int
    edges: int
    complete: bool  # every state was looked at, or something was found
    problem: str = ""
    steps: int = 0
    run: Run | None = None
    schedule: tuple = ()
    ends: int = 0
    shortest: bool = True  # no story with fewer steps goes wrong

    @property
    def sentence(self) -> str:
        looked = f"{self.states:,} state{'s' if self.states != 1 else ''}"
        if self.run is not None:
            how = f"after {looked}" if self.shortest else "on a walk, perhaps not the shortest"
            return f"found {how}, in {self.steps} steps: {self.problem}"
        if self.complete:
            return f"complete: {looked}, nothing found"
        why = f" ({self.problem})" if self.problem else ""
        return f"not decided: stopped at {looked}{why}"

    def __str__(self) -> str:
        return f"{self.sentence} [{MEMORY_NAMES[self.memory]}]"

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        first, colon, rest = self.sentence.partition(":")
        return f"**{first}**{colon}{rest} ({MEMORY_NAMES[self.memory]})"

    def play(self, **options):
        """The player for the counterexample."""
        if self.run is None:
            raise PopcornError(f"there is no counterexample to play: {self.sentence}")
        return self.run.play(**options)


MEMORY_NAMES = {"sc": "sequential consistency", "tso": "x86-TSO store buffers"}


def judged(rule: Callable, *given) -> str:
    """What a user's rule has against something: "" if it holds."""
    answer = rule(*given)
    if answer is None or answer is True or answer == "":
        return ""
    if answer is False:
        return f"{getattr(rule, '__name__', 'the rule')} does not hold"
    return str(answer)


class StartOver(Exception):
    """Somebody may touch what was thought to be out of reach."""


class Search:
    """One breadth-first search over an Explorer's states."""

    def __init__(
        self,
        explorer: Explorer,
        ends: Callable | None = None,
        always: Callable | None = None,
        checks: Iterable[Callable] = (),
        meta: dict | None = None,
        reduced: bool = False,
    ) -> None:
        self.explorer, self.ends, self.always = explorer, ends, always
        self.checks, self.meta, self.reduced = tuple(checks), meta, reduced
        self.states: list[State] = []
        self.index: dict[State, int] = {}
        self.parent, self.label = array("q"), array("q")
        self.edges, self.starts = array("I"), array("Q")
        self.ended: list[int] = []
        self._holds: dict[bytes, str] = {}

    def run(self, states: int = STATES_AT_MOST) -> Verdict:
        explorer, reduced, foreseen = self.explorer, self.reduced, 0
        best: tuple[int, int, str] | None = None  # (state, choice, sentence) one step further
        level_end, here = 1, 0
        try:
            self._add(explorer.rushed(explorer.first) if reduced else explorer.first, -1, 0)
            while here < len(self.states):
                if here == level_end:
                    if best is not None:
                        return self._found(best[0], best[2], best[1])
                    level_end = len(self.states)
                state = self.states[here]
                if reduced and explorer.grown and len(self.states) > foreseen + FORESEE_STATES:
                    foreseen = len(self.states)
                    if explorer.foresee():
                        raise StartOver
                if self.always is not None and (problem := self._always(state)):
                    return self._found(here, problem)
                self.starts.append(len(self.edges))
                stuck = True
                for choice in explorer.choices(state):
                    try:
                        new = explorer.take(state, choice)
                        number = self.index.get(new)
                        if number is None and reduced:
                            met, new = new, explorer.rushed(new)
                            number = self.index.get(new)
                            if number is not None:
                                self.index[met] = number
                    except Broken as broken:
                        stuck = False
                        best = best or (here, choice, f"{broken.who}: {broken.sentence}")
                        continue
                    if number == here:
                        continue
                    stuck = False
                    if number is None:
                        if len(self.states) == states:
                            return self._verdict(False)
                        number = self._add(new, here, choice)
                        if reduced:
                            self.index[met] = number
                    self.edges.append(number)
                if stuck:
                    self.ended.append(here)
                    if problem := self._end(here):
                        return self._found(here, problem)
                here += 1
        except TooManyValues as many:
            return self._verdict(False, str(many))
        if best is not None:
            return self._found(best[0], best[2], best[1])
        if reduced and explorer.grown and explorer.foresee():
            raise StartOver
        self.starts.append(len(self.edges))
        for circle in self._circles():
            problems = [self._end(number) for number in circle]
            if all(problems):
                first = min(circle)
                return self._found(first, f"it goes round for ever: {self._end(first)}")
        return self._verdict(True)

    def _add(self, state: State, parent: int, label: int) -> int:
        number = self.index[state] = len(self.states)
        self.states.append(state)
        self.parent.append(parent)
        self.label.append(label)
        return number

    def _always(self, state: State) -> str:
        problem = self._holds.get(state.vector)
        if problem is None:
            world = Lens(self.explorer.world_of(state), None)
            problem = self._holds[state.vector] = judged(self.always, world)
        return problem

    def _end(self, number: int) -> str:
        """What is wrong with an end."""
        explorer, state = self.explorer, self.states[number]
        if self.ends is not None:
            world = Lens(explorer.world_of(state), None)
            if problem := judged(self.ends, world, explorer.waiting(state)):
                return problem
        if self.checks:
            run = self.telling(number).run(self.meta)
            for check in self.checks:
                if problem := judged(check, run):
                    return problem
        return ""

    def path(self, number: int) -> list[int]:
        labels = []
        while self.parent[number] >= 0:
            labels.append(self.label[number])
            number = self.parent[number]
        return labels[::-1]

    def telling(self, number: int, more: Iterable[int] = ()) -> Telling:
        """A shortest story into a state."""
        telling = Telling(self.explorer)
        self._rush(telling)
        for choice in [*self.path(number), *more]:
            telling.act(*telling.find(choice))
            self._rush(telling)
        return telling

    def _rush(self, telling: Telling) -> None:
        for _ in range(RUSH_AT_MOST if self.reduced else 0):
            choice = self.explorer.free_choice(telling.state)
            if choice is None or telling.broken:
                return
            telling.act(*telling.find(choice))

    def _found(self, number: int, problem: str, choice: int | None = None) -> Verdict:
        telling = self.telling(number, () if choice is None else (choice,))
        if self.explorer.tso and choice is None and number in self.ended[-1:]:
            telling = self._tidy(telling, problem)
        return self._verdict(
            True, problem, telling.steps, telling.run(self.meta), tuple(telling.schedule)
        )

    def _tidy(self, telling: Telling, problem: str) -> Telling:
        """The same story, with each store draining as soon as the story allows."""
        best, drains = telling, sum(what == DRAIN for what, _ in telling.schedule)
        for nth in range(drains):
            schedule = best.schedule
            at = [n for n, (what, _) in enumerate(schedule) if what == DRAIN][nth]
            rest = schedule[:at] + schedule[at + 1 :]
            for earlier in range(at):
                other = self._ends_so([*rest[:earlier], schedule[at], *rest[earlier:]], problem)
                if other is not None:
                    best = other
                    break
        return best

    def _ends_so(self, schedule: list, problem: str) -> Telling | None:
        """The story of this schedule, if it is one and ends with the same problem."""
        telling = Telling(self.explorer)
        try:
            for act in schedule:
                telling.act(*act)
                if telling.broken:
                    return None
        except (LookupError, StopIteration):
            return None
        explorer, state = self.explorer, telling.state
        if any(explorer.take(state, c) != state for c in explorer.choices(state)):
            return None
        world = Lens(explorer.world_of(state), None)
        said = judged(self.ends, world, explorer.waiting(state)) if self.ends else ""
        return telling if said == problem else None

    def _verdict(
        self, complete: bool, problem: str = "", steps=0, run=None, schedule=()
    ) -> Verdict:
        return Verdict(
            "tso" if self.explorer.tso else "sc", len(self.states), len(self.edges), complete,
            problem, steps, run, schedule, len(self.ended),
        )  # fmt: skip

    # -- circles -------------------------------------------------------------------------------

    def _circles(self) -> Iterator[list[int]]:
        """The sets of two states or more that are never left again (Tarjan, without recursion)."""
        if self._acyclic():
            return
        edges, starts, count = self.edges, self.starts, len(self.states)
        order, low = array("q", [-1]) * count, array("q", [0]) * count
        part = array("q", [-1]) * count  # of which component, once that is known
        stack: list[int] = []
        found: list[list[int]] = []
        clock = 0
        for root in range(count):
            if order[root] >= 0:
                continue
            work = [(root, starts[root])]
            order[root] = low[root] = clock
            clock += 1
            stack.append(root)
            while work:
                state, edge = work.pop()
                if edge < starts[state + 1]:
                    work.append((state, edge + 1))
                    after = edges[edge]
                    if order[after] < 0:
                        order[after] = low[after] = clock
                        clock += 1
                        stack.append(after)
                        work.append((after, starts[after]))
                    elif part[after] < 0:
                        low[state] = min(low[state], order[after])
                    continue
                if work:
                    below = work[-1][0]
                    low[below] = min(low[below], low[state])
                if low[state] == order[state]:
                    members = []
                    while True:
                        member = stack.pop()
                        part[member] = len(found)
                        members.append(member)
                        if member == state:
                            break
                    found.append(members)
        for number, members in enumerate(found):
            if len(members) > 1 and all(
                part[edges[edge]] == number
                for member in members
                for edge in range(starts[member], starts[member + 1])
            ):
                yield members

    def _acyclic(self) -> bool:
        into = array("I", [0]) * len(self.states)
        for after in self.edges:
            into[after] += 1
        ready = [state for state, edges in enumerate(into) if edges == 0]
        done = 0
        while ready:
            state = ready.pop()
            done += 1
            for edge in range(self.starts[state], self.starts[state + 1]):
                after = self.edges[edge]
                into[after] -= 1
                if into[after] == 0:
                    ready.append(after)
        return done == len(self.states)


class Seeker:
    """The whole procedure: random walks, the reduced search, and the search for a shortest story.

    The walks come first: they teach the trees who touches what, and often find what goes wrong
    long before a search that goes through everything in order would come to it.
    """

    def __init__(self, explorer: Explorer, rules: tuple, states: int) -> None:
        self.explorer, self.rules, self.states = explorer, rules, states
        self.draw = random.Random(0)
        self.walked: Verdict | None = None  # the shortest bad walk, told
        self._judged: set[State | None] = set()  # ends that are good

    def verdict(self, reduced: bool) -> Verdict:
        explorer, found = self.explorer, None
        always = self.rules[1]
        if reduced and always is None:  # a rule for every state needs every state
            found = self._reduced()
            if found.run is None:
                return found
        shortest = Search(explorer, *self.rules).run(self.states if found is None else SHORTEST)
        if shortest.run is not None or found is None:
            return shortest
        return found

    def _reduced(self) -> Verdict:
        explorer = self.explorer
        while True:
            try:
                self._walk()
            except TooManyValues:
                pass  # the search will say so
            if self.walked is not None:
                return self.walked
            while explorer.grown:
                explorer.foresee()
            explorer.forget()
            try:
                found = Search(explorer, *self.rules, reduced=True).run(self.states)
            except StartOver:
                continue
            return found if found.run is None else replace(found, shortest=False)

    def _walk(self) -> None:
        """Random walks until nothing new was seen for a while, or something went wrong."""
        quiet, after = 0, 0
        enough = QUIET_WALKS["tso" if self.explorer.tso else "sc"]
        while quiet < enough * len(self.explorer.places) and after < WALKS_AFTER:
            before = self.explorer.resumed
            taken, state = wander(self.explorer, self.draw)
            quiet = quiet + 1 if self.explorer.resumed == before else 0
            known = state in self._judged or (state and self.explorer.choices(state))
            if not known and (self.walked is None or len(taken) < self.walked.steps):
                self._judge(taken, state)
            after += self.walked is not None

    def _judge(self, taken: list[int], state: State | None) -> None:
        """Is this end a bad one? ``state`` is None if the last step broke."""
        explorer = self.explorer
        ends, _, checks, meta = self.rules
        problem = ""
        if state is not None and ends is not None:
            world = Lens(explorer.world_of(state), None)
            problem = judged(ends, world, explorer.waiting(state))
        if state is not None and not problem and not checks:
            self._judged.add(state)
            return
        telling = Telling(explorer)
        for choice in taken:
            telling.act(*telling.find(choice))
        if telling.broken:
            problem = f"{telling.broken.who}: {telling.broken.sentence}"
        if not problem and checks:
            run = telling.run(meta)
            problem = next((p for check in checks if (p := judged(check, run))), "")
        if problem:
            self.walked = Verdict(
                "tso" if explorer.tso else "sc", 0, 0, True, problem, telling.steps,
                telling.run(meta), tuple(telling.schedule), shortest=False,
            )  # fmt: skip


def wander(
    explorer: Explorer, draw: random.Random, at_most: int = 1_000
) -> tuple[list[int], State | None]:
    """Take any steps, to see who touches what; returns the choices made and the last state (None:
    the last step breaks). The actors have random priorities, and whoever acts
    may lose the first place: so rare orders come up far more often than with a throw for each step
    (Burckhardt et al., "probabilistic concurrency testing", ASPLOS 2010)."""
    state, rank, places, taken = explorer.first, {}, explorer.places, []
    for _ in range(at_most):
        choices = explorer.choices(state)
        if not choices:
            break
        names = [choice if choice < 0 else places[choice].who for choice in choices]
        for name in names:
            if name not in rank:
                rank[name] = draw.random()
        first = max(names, key=rank.__getitem__)
        taken.append(choices[names.index(first)])
        try:
            state = explorer.take(state, taken[-1])
        except Broken:
            return taken, None
        if draw.random() < DEMOTED:
            rank[first] = min(rank.values()) - 1
    return taken, state


def explore(
    start: Callable[[], World],
    cast: Callable[[Explorer], None],
    *,
    memory: str = "sc",
    states: int = STATES_AT_MOST,
    ends: Callable | None = None,
    always: Callable | None = None,
    checks: Iterable[Callable] = (),
    careful: bool = False,
    meta: dict | None = None,
    reduced: bool = True,
) -> Verdict:
    """Search all interleavings of the stories that ``cast`` begins in the world ``start()``.

    memory    "sc" or "tso"
    states    give up after so many
    ends      ``ends(world, waiting)`` judges each end; waiting: (who, for what) of those who wait
    always    ``always(world)`` judges every state
    checks    ``check(run)``, as in readers.checks, judges one shortest run into each end
    careful   the stories are a learner's: see Sim

    A rule answers None, True or "" if all is well, else False or a sentence. A story that raises,
    or says what the world refuses, is a finding too.
    """
    if type(states) is not int or states < 1:
        raise PopcornError(f"states={states!r}: expected a whole number, 1 or more")
    collecting = gc.isenabled()
    gc.disable()
    try:
        explorer = Explorer(start, cast, memory=memory, careful=careful)
        return Seeker(explorer, (ends, always, tuple(checks), meta), states).verdict(reduced)
    finally:
        if collecting:
            gc.enable()

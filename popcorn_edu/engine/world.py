"""The state of the system, as a fold over the trace; and a run, which can show it at any record.

Words
    Part    one component's tables. A table is a plain dict from ids to plain or frozen values,
            and only the part's own ``applies`` functions change it, one event at a time.
    World   the parts together, and the setup they were built for (which never changes by itself).
    Run     a finished trace with the way to rebuild the world after any of its records.

Because the state is only ever the sum of the events, "the system at step 412" always exists,
stepping back is free, and whatever a view shows can be checked against the trace.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from popcorn_edu.engine.trace import (
    Event,
    PopcornError,
    SettingChanged,
    Trace,
    field_problem,
    near_names,
)

CHECKPOINT_RECORDS = 512  # a jump folds half of this on average: about 0.3 ms
CHECKPOINTS_AT_MOST = 400


class WorldError(PopcornError):
    """An event that is not possible in the state it meets, or a table misused."""


class NoSuchTable(WorldError, AttributeError):
    """A misspelt part or table; an AttributeError too, because Python itself asks for names."""


class Part:
    """One component's state. Subclasses name their tables and what each event does to them."""

    tables: tuple[str, ...] = ()
    private: tuple[str, ...] = ()  # tables keyed by kernel, of which a kernel may read its own rows
    applies: Mapping[type[Event], Callable] = {}

    def __init__(self, setup: object = None) -> None:
        self.setup = setup
        for name in self.tables:
            setattr(self, name, {})

    def copy(self) -> Part:
        twin = type(self)(self.setup)
        for name in self.tables:
            setattr(twin, name, dict(getattr(self, name)))
        return twin

    def snapshot(self) -> dict[str, dict]:
        return {name: dict(getattr(self, name)) for name in self.tables}


def _nothing(event: Event) -> None:
    """What an event does to a world whose parts do not listen to it."""


NOTHING = _nothing, None


def _in_turn(functions: list[Callable]) -> Callable | None:
    if len(functions) < 2:
        return functions[0] if functions else None

    def apply_to_each(event: Event) -> None:
        for function in functions:
            function(event)

    return apply_to_each


class World:
    """The parts by name, and ``apply(event)``, the only way to change them.

    >>> world = World(setup, rings=Rings, messaging=Messaging)     # doctest: +SKIP
    >>> world.rings.head[0]                                        # doctest: +SKIP
    """

    def __init__(self, setup: object = None, **parts: type[Part] | Part) -> None:
        self.setup = setup
        self.parts: dict[str, Part] = {
            name: part(setup) if isinstance(part, type) else part for name, part in parts.items()
        }
        self.__dict__.update(self.parts)
        # What an event of each kind goes through: two functions, so that the engine's loop can
        # call them without a loop of its own. (Most kinds concern one part, or two.)
        self.dispatch: dict[type[Event], tuple[Callable, Callable | None]] = {
            SettingChanged: (self._change_setting, None)
        }
        for kind in {kind for part in self.parts.values() for kind in part.applies}:
            first, *others = (
                part.applies[kind].__get__(part)
                for part in self.parts.values()
                if kind in part.applies
            )
            self.dispatch[kind] = first, _in_turn(others)

    def apply(self, event: Event) -> None:
        apply, also = self.dispatch.get(type(event), NOTHING)
        apply(event)
        if also is not None:
            also(event)

    def _change_setting(self, event: SettingChanged) -> None:
        self.configure(**{event.setting: ast.literal_eval(event.value)})

    def configure(self, **changes: object) -> None:
        """Change fields of the setup, for all parts."""
        self.setup = change_setup(self.setup, changes)
        for part in self.parts.values():
            part.setup = self.setup

    def copy(self) -> World:
        return World(self.setup, **{name: part.copy() for name, part in self.parts.items()})

    def snapshot(self) -> dict[str, dict[str, dict]]:
        """Every table of every part, as plain dicts: for comparing two worlds."""
        return {name: part.snapshot() for name, part in self.parts.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, World) and self.snapshot() == other.snapshot()

    __hash__ = None

    def __getattr__(self, name: str):
        raise NoSuchTable(
            f"the world has no part {name!r}; {near_names(name, self.__dict__.get('parts', ()))}"
        )

    def seen_by(self, kernel: int | None) -> Lens:
        """The world as one kernel may see it: read only, others' private rows refused."""
        return Lens(self, kernel)


class Stage:
    """A world as the kit's own stories see it: the same tables, read directly.

    World has a ``__getattr__`` (for misspelt names), which makes Python look up each of its
    attributes the slow way; a story looks at its world a dozen times for each message.
    """

    def __init__(self, world: World) -> None:
        self.__dict__ = world.__dict__  # the very same: what changes there changes here

    def seen_by(self, kernel: int | None) -> Stage:
        """The kit's own stories are trusted with all of it; a careful Sim shows them a Lens."""
        return self


def change_setup(setup: object, changes: dict) -> object:
    """The setup with some fields changed; a field it does not have is refused by name."""
    names = [field.name for field in dataclasses.fields(setup)]
    for name in changes:
        if name not in names:
            raise PopcornError(f"there is no setting {name!r}; {near_names(name, names)}")
    return dataclasses.replace(setup, **changes)


class Lens:
    """A world through one kernel's eyes: what is shared, and its own rows. Nothing to write."""

    def __init__(self, world: World, kernel: int | None) -> None:
        self._world, self._kernel = world, kernel

    @property
    def setup(self) -> object:
        return self._world.setup

    def seen_by(self, kernel: int | None) -> Lens:
        return Lens(self._world, kernel)

    def __getattr__(self, name: str) -> PartLens:
        parts = self.__dict__["_world"].parts
        if name not in parts:
            raise NoSuchTable(f"the world has no part {name!r}; {near_names(name, parts)}")
        return PartLens(name, parts[name], self._kernel)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in ("_world", "_kernel"):
            raise WorldError(f"a story never assigns (world.{name} = ...); it yields an event")
        object.__setattr__(self, name, value)


class PartLens:
    """One part through one kernel's eyes."""

    def __init__(self, name: str, part: Part, kernel: int | None) -> None:
        object.__setattr__(self, "_seen", (name, part, kernel))

    def __getattr__(self, name: str):
        part_name, part, kernel = self._seen
        if name == "setup":
            return part.setup
        if name not in part.tables:
            raise NoSuchTable(
                f"world.{part_name} has no table {name!r}; {near_names(name, part.tables)}"
            )
        table = getattr(part, name)
        if name in part.private and kernel is not None:
            return OwnRows(f"world.{part_name}.{name}", table, kernel)
        return MappingProxyType(table)

    def __setattr__(self, name: str, value: object) -> None:
        raise WorldError(
            f"a story never assigns (world.{self._seen[0]}.{name}); it yields an event"
        )


class OwnRows(Mapping):
    """A private table of which one kernel may read its own rows and nothing else."""

    def __init__(self, name: str, table: dict, kernel: int) -> None:
        self._name, self._table, self._kernel = name, table, kernel

    def _own(self, key: object) -> bool:
        return (key[0] if isinstance(key, tuple) and key else key) == self._kernel

    def _check(self, key: object) -> None:
        if not self._own(key):
            raise WorldError(
                f"kernel {self._kernel} may not read {self._name}[{key}]: it is another kernel's "
                "own memory; what others know arrives as a message or through a shared ring"
            )

    def __getitem__(self, key: object):
        self._check(key)
        return self._table[key]

    def get(self, key: object, default: object = None):
        self._check(key)
        return self._table.get(key, default)

    def __contains__(self, key: object) -> bool:
        self._check(key)
        return key in self._table

    def __iter__(self) -> Iterator:
        return (key for key in self._table if self._own(key))

    def __len__(self) -> int:
        return sum(map(self._own, self._table))

    def __setitem__(self, key: object, value: object) -> None:
        raise WorldError(f"a story never assigns ({self._name}[{key}] = ...); it yields an event")


class Run:
    """A finished run: its trace, and the world after any number of its records.

    ``start()`` makes the world before the first record. ``replay(edits)`` (given by whoever
    made the run) plays it again from the same seed with edits, which is how a fork is made.
    ``waiting`` lists the actors that still waited when nothing more could happen.
    """

    def __init__(
        self,
        trace: Trace,
        start: Callable[[], World],
        replay: Callable[[tuple[Edit, ...]], Run] | None = None,
        waiting: tuple = (),
        edits: tuple[Edit, ...] = (),
    ) -> None:
        self.trace, self.start, self._replay, self.waiting = trace, start, replay, waiting
        self.edits = edits  # what makes this run a fork of another, in order
        self._checkpoints: list[World] = []

    def __len__(self) -> int:
        return len(self.trace)

    def __repr__(self) -> str:
        name = self.trace.meta.get("scenario", "run")
        return f"<Run {name}: {self.trace!r}>"

    @property
    def setup(self) -> object:
        return self.start().setup

    @property
    def machine(self):
        return self.setup.machine

    @property
    def world(self) -> World:
        """The world at the end."""
        return self.at(len(self.trace))

    def at(self, n: int) -> World:
        """The world after the first ``n`` records; a copy of your own, in about 0.3 ms."""
        if not isinstance(n, int) or not 0 <= n <= len(self.trace):
            raise PopcornError(f"run.at({n!r}): expected a number from 0 to {len(self.trace)}")
        spacing = max(CHECKPOINT_RECORDS, len(self.trace) // CHECKPOINTS_AT_MOST)
        if not self._checkpoints:
            self._checkpoints.append(self.start())
        while len(self._checkpoints) <= n // spacing:
            last = len(self._checkpoints) * spacing
            self._checkpoints.append(self._fold(self._checkpoints[-1], last - spacing, last))
        nearest = min(n // spacing, len(self._checkpoints) - 1)
        return self._fold(self._checkpoints[nearest], nearest * spacing, n)

    def _fold(self, world: World, first: int, last: int) -> World:
        world, event = world.copy(), self.trace.event
        dispatch = world.dispatch.get
        for n in range(first, last):
            fact = event(n)
            apply, also = dispatch(type(fact), NOTHING)
            apply(fact)
            if also is not None:
                also(fact)
        return world

    def worlds(self) -> Iterator[tuple]:
        """Each record with the world just after it: one world, changing under you."""
        world = self.start()
        for record in self.trace:
            world.apply(record.event)
            yield record, world

    def fork(
        self,
        n: int,
        *,
        drop: bool = False,
        delay: int = 0,
        say: Event | None = None,
        instead: Event | None = None,
        **settings,
    ) -> Run:
        """What if? Replay to record ``n``, make one edit there, and go on from it.

        drop=True        record n never happens (an interrupt is lost, a write has no effect)
        delay=NS         its actor is held up for that long just before it
        say=EVENT        this event happens just before it
        instead=EVENT    record n happens as this event
        NAME=VALUE       a setting, such as look_again=True, has this value from here on
        """
        if self._replay is None:
            raise PopcornError("this run cannot be forked: it does not say how it was made")
        if not isinstance(n, int) or not 0 <= n < len(self.trace):
            raise PopcornError(f"fork({n!r}): expected a record number from 0 to {len(self) - 1}")
        _, time, who, _, _ = self.trace[n]
        edit = Edit(n, drop, delay, say, tuple(settings.items()), time, who, instead)
        if edit.count() != 1:
            raise PopcornError(
                "a fork makes exactly one edit: drop=True, delay=NS, say=EVENT, instead=EVENT, or "
                f"one setting (this one makes {edit.count()})"
            )
        change_setup(self.setup, settings)  # refuses a misspelt setting before anything runs
        for name in settings:
            if name in getattr(self.setup, "FIXED", ()):
                raise PopcornError(f"{name} is laid out at the start; it cannot change in a fork")
        return self._replay((*edits_before(self.edits, n), edit))

    def inject(self, fault: str, /, at: int | None = None, **options) -> Run:
        """A fork with a fault of faults.DECK, at record ``at`` or at the first place there is."""
        from popcorn_edu import faults  # late: the engine knows no rings and no interrupts

        return faults.inject(self, fault, at, **options)

    def save(self, path):
        """Write the run to a file; ``popcorn_edu.load(path)`` reads it back."""
        return self.trace.save(path)

    def play(self, **options):
        """The step-through player for this run (see popcorn_edu.readers.player)."""
        from popcorn_edu.readers.player import play  # late: the engine draws nothing itself

        return play(self, **options)

    def show(self, first: int = 0, last: int | None = None) -> None:
        """Print the records as sentences."""
        for record in self.trace[first:last]:
            print(record)


def edits_before(edits: tuple[Edit, ...], n: int) -> tuple[Edit, ...]:
    """Those that are in the past of a new edit at record ``n``."""
    return tuple(edit for edit in edits if edit.at < n or (edit.at == n and edit.delay))


@dataclasses.dataclass(frozen=True)
class Edit:
    """The one difference between a fork and its origin, made just before record ``at``."""

    at: int
    drop: bool = False
    delay: int = 0
    say: Event | None = None
    settings: tuple = ()
    time: int = 0  # of record ``at``, and its actor: whom a delay holds up
    who: str = ""
    instead: Event | None = None

    def __post_init__(self) -> None:
        if type(self.delay) is not int or self.delay < 0:
            raise PopcornError(f"delay={self.delay!r}: expected whole nanoseconds, 0 or more")
        for name, event in (("say", self.say), ("instead", self.instead)):
            if event is None:
                continue
            if not isinstance(event, Event):
                raise PopcornError(f"{name}={event!r}: expected an event, such as IpiArrived(...)")
            if problem := field_problem(event):
                raise PopcornError(f"{name}={event!r}: {problem}")

    def count(self) -> int:
        said = (self.say is not None) + (self.instead is not None)
        return bool(self.drop) + bool(self.delay) + said + len(self.settings)

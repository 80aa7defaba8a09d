"""When things happen. The only file that imports SimPy.

``Sim`` drives the stories of a run: it resumes one, writes what it says into the trace, applies
it to the world, wakes whoever waited for it, and hands the story's next delay to SimPy's event
queue. SimPy decides nothing but which delay is over first.

Simultaneous events have one written-down order, so that any engine can reproduce a run record
for record: **at equal times actors act in the order of their numbers** (an actor is numbered
when it is begun). An actor that is resumed acts until it yields a Delay that lets somebody else
be first, or an Until. With ``schedule_seed`` the order among simultaneous actors is drawn from
that seed instead; every scenario is then a fuzzer of its own schedules.

A Delay with a CPU takes its turn on that CPU, first come first served. That is how an interrupt
handler and the process it interrupts share one processor; preemption inside a Delay is not
modelled (model default: a Delay is well under a microsecond).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Generator, Iterator

import simpy

from popcorn_edu.engine.steps import (
    Begin,
    Delay,
    StoryError,
    Until,
    as_story,
    nonsense,
    place_of,
    raised,
)
from popcorn_edu.engine.trace import (
    CHUNK_RECORDS,
    Event,
    NeverHappened,
    PopcornError,
    Record,
    SettingChanged,
    Trace,
    field_problem,
)
from popcorn_edu.engine.world import Edit, Run, World

LIMIT_STEPS = 100_000  # steps at one time, or delays in which nothing is said: a runaway
RECORD_LIMIT = 20_000_000
LINES_LIMIT = 1_000_000  # lines a watched story may execute between two yields


class Actor:
    """One running story: its name and number, what it waits for, and why it was last woken."""

    __slots__ = ("who", "number", "stamp", "story", "send", "cause", "waits", "token", "wake", "held")

    def __init__(self, who: str, number: int, stamp: int, story: Generator, cause: int) -> None:
        self.who, self.number, self.stamp = who, number, stamp
        self.story, self.send, self.cause = story, story.send, cause
        self.waits: Until | None = None
        self.token = 0  # counts its waits, so that an old time-out can be told from a new one
        self.held: Event | None = None  # a record whose actor a fork delays
        self.wake: simpy.Event | None = None


class Sim:
    """Drive stories over a world until nothing more can happen.

    schedule_seed   shuffles the order of simultaneous actors, reproducibly
    careful         stories see the world through a lens (their own kernel's rows, read only),
                    every value is checked when it is said, and endless loops without a yield
                    are stopped. On for stories that a learner wrote.
    record_limit    more records than this stop the run with an error that names the actor
    edit            a fork's one edit
    """

    def __init__(
        self,
        world: World,
        meta: dict | None = None,
        *,
        schedule_seed: int | None = None,
        careful: bool = False,
        record_limit: int = RECORD_LIMIT,
        edit: Edit | None = None,
    ) -> None:
        self.world, self.trace, self.careful, self.edit = world, Trace(meta), careful, edit
        self.now = 0
        self.scheduled = 0  # how many events went through SimPy's queue
        self._env = simpy.Environment()
        self._shuffle = None if schedule_seed is None else random.Random(f"schedule {schedule_seed}")
        self._actors: list[Actor] = []
        self._alive: dict[int, Actor] = {}
        self._waiting: dict[type[Event], dict[tuple, dict[tuple, list[Actor]]]] = {}
        self._cpu_free: dict[int, int] = {}
        self._record_limit = record_limit
        self._last: Actor | None = None  # whose turn it was, for the error of a runaway run
        self._count = 0
        self._attention = record_limit if edit is None else min(edit.at, record_limit)

    def begin(self, who: str, tell: Callable[..., Generator], *args, kernel: int | None = None) -> None:
        """Start ``tell(world, *args)`` as an actor; a careful Sim shows it ``kernel``'s view."""
        world = self.world.seen_by(kernel) if self.careful else self.world
        try:
            made = tell(world, *args)
        except Exception as error:
            raise raised(who, error) from error
        self._start(who, as_story(made, who, tell), -1)

    def _start(self, who: str, story: Generator, cause: int) -> None:
        actor = Actor(who, len(self._actors), self.trace.actor(who), story, cause)
        actor.wake = simpy.Event(self._env)
        actor.wake._ok = True
        resume = self._resume_carefully if self.careful else self._resume
        actor.wake.callbacks = actor_callbacks = [lambda event: resume(actor, event._value)]
        actor.wake.again = actor_callbacks
        self._actors.append(actor)
        self._alive[actor.number] = actor
        self._schedule(actor, self.now, None)

    def _schedule(self, actor: Actor, due: int, value: object) -> None:
        wake = actor.wake
        wake.callbacks, wake._value = wake.again, value
        order = actor.number if self._shuffle is None else self._shuffle.getrandbits(30)
        self.scheduled += 1
        self._env.schedule(wake, order, due - self._env.now)

    # -- stepping ------------------------------------------------------------------------------

    def steps(self) -> Iterator[Record]:
        """The whole system, one Record at a time."""
        shown = 0
        for _ in self._advance():
            while shown < self._count:
                yield self.trace[shown]
                shown += 1

    def run(self) -> Trace:
        """The steps, exhausted."""
        for _ in self._advance():
            pass
        return self.trace

    def _advance(self) -> Iterator[None]:
        env, step = self._env, self._env.step
        rows, pack = self.trace._rows, self.trace.pack
        said, silent = 0, 0
        while True:
            try:
                step()
            except simpy.core.EmptySchedule:
                return
            yield
            if len(rows) >= CHUNK_RECORDS:
                pack()
            if self._count > said:
                said, silent = self._count, 0
            else:
                silent += 1
                if silent > LIMIT_STEPS:
                    self._runaway(self._last)

    def waiting(self) -> tuple[tuple[str, str], ...]:
        """Who still waits, and for what, in the order they were begun."""
        return tuple(
            (actor.who, actor.waits.text()) for actor in self._alive.values() if actor.waits
        )

    # -- one actor's turn ----------------------------------------------------------------------

    def _resume(self, actor: Actor, value: object) -> None:
        """Let one actor act until it waits. The hot loop of every run: kept flat on purpose."""
        env, append = self._env, self.trace._rows.append
        dispatch, waiting, free = self.world.dispatch, self._waiting, self._cpu_free
        send, stamp, cause = actor.send, actor.stamp, actor.cause
        if env.now > self.now:
            self.now = env.now
        now, acts, self._last = self.now, 0, actor
        said_at = -1
        actor.waits = None
        while True:
            try:
                step = actor.held if actor.held is not None else send(value)
            except StopIteration:
                del self._alive[actor.number]
                return
            except Exception as error:
                raise raised(actor.who, error, actor.story) from error
            kind = type(step)
            if kind is Delay:
                cpu, due = step.cpu, now
                if cpu is not None:
                    if free.get(cpu, 0) > due:
                        due = free[cpu]
                    due += step.ns
                    free[cpu] = due
                else:
                    due += step.ns
                # Nobody else can act before this delay is over: no need to queue it.
                if due < env.peek():
                    self.now = now = due
                    value = None
                    acts += 1
                    if acts > LIMIT_STEPS:
                        self._runaway(actor)
                    continue
                actor.cause = cause
                self._schedule(actor, due, None)
                return
            if kind in dispatch:
                seq = self._count
                if seq >= self._attention:
                    step = self._attend(actor, step, seq)
                    if step is None:
                        return
                    kind, seq = type(step), self._count
                append((now, stamp, cause, step))
                self._count = seq + 1
                cause = -1
                apply = dispatch[kind]
                if apply is not None:
                    try:
                        apply(step)
                    except Exception as error:
                        raise self._refused(actor, seq, error) from error
                if kind in waiting:
                    self._wake(kind, step, seq, stamp)
                if now > said_at:
                    said_at, acts = now, 0
                acts += 1
                if acts > LIMIT_STEPS:
                    self._runaway(actor)
                value = None if kind is NeverHappened else seq
            elif kind is Until:
                actor.cause = cause
                self._wait(actor, step)
                return
            elif kind is Begin:
                story = as_story(step.story, step.who)
                self._start(step.who, story, self._count - 1)
                value = None
                acts += 1
                if acts > LIMIT_STEPS:
                    self._runaway(actor)
            elif isinstance(step, Event):
                actor.held = step  # a kind no part listens to: remember it and take it up again
                dispatch[kind] = None
                if self.careful and (problem := field_problem(step)):
                    raise StoryError(f"{actor.who}: {problem}{place_of(actor.story)}")
                continue
            else:
                raise nonsense(actor.who, step, actor.story)
            actor.held = None

    def _resume_carefully(self, actor: Actor, value: object) -> None:
        """The same, with the learner's story under watch."""
        if sys.gettrace() is not None:  # a debugger or a coverage tool is at work: leave it alone
            return self._resume(actor, value)
        inner, watch = actor.story.send, LineWatch(actor.who)

        def send(value):
            sys.settrace(watch.call)
            watch.lines = 0
            try:
                step = inner(value)
            finally:
                sys.settrace(None)
            if isinstance(step, Event) and (problem := field_problem(step)):
                raise StoryError(f"{problem}")
            return step

        actor.send = send
        self._resume(actor, value)

    def _wait(self, actor: Actor, until: Until) -> None:
        actor.waits = until
        actor.token += 1
        groups = self._waiting.setdefault(until.kind, {})
        groups.setdefault(until.fields, {}).setdefault(until.values, []).append(actor)
        if until.within is not None:
            timer, token = simpy.Event(self._env), actor.token
            timer._ok, timer._value = True, None
            timer.callbacks = [lambda event: self._time_out(actor, token)]
            self.scheduled += 1
            self._env.schedule(timer, actor.number, self.now + until.within - self._env.now)

    def _time_out(self, actor: Actor, token: int) -> None:
        if actor.waits is not None and actor.token == token:
            self._forget(actor)
            resume = self._resume_carefully if self.careful else self._resume
            resume(actor, None)

    def _forget(self, actor: Actor) -> None:
        until, actor.waits = actor.waits, None
        self._waiting[until.kind][until.fields][until.values].remove(actor)

    def _wake(self, kind: type[Event], event: Event, seq: int, stamp: int) -> None:
        """Wake whoever waited for this event; each will act in its turn, at this same time."""
        for fields, groups in self._waiting[kind].items():
            if not groups:
                continue
            actors = groups.pop(tuple([getattr(event, field) for field in fields]), None)
            if not actors:
                continue
            row = self.trace._rows[-1]
            record = Record(seq, row[0], self.trace.actors[stamp], None if row[2] < 0 else row[2], event)
            for actor in actors:
                actor.waits, actor.cause = None, seq
                self._schedule(actor, self.now, record)

    # -- rare things ---------------------------------------------------------------------------

    def _attend(self, actor: Actor, step: Event, seq: int) -> Event | None:
        """The run reached a record where something must be done: a fork's edit, or the limit."""
        edit = self.edit
        if edit is None or seq < edit.at or self._attention > edit.at:
            self._runaway(actor)
        self._attention = self._record_limit
        if edit.delay:
            actor.held = step
            self._schedule(actor, self.now + edit.delay, None)
            return None
        if edit.drop:
            sentence = str(step)
            return self._known(NeverHappened(type(step).__name__, sentence))
        extra = edit.say
        if edit.settings:
            (name, value), = edit.settings
            extra = SettingChanged(name, repr(value))
        self.trace._rows.append((self.now, self.trace.actor("fork"), -1, self._known(extra)))
        self._count += 1
        self.world.apply(extra)
        if type(extra) in self._waiting:
            self._wake(type(extra), extra, self._count - 1, self.trace.actor("fork"))
        return step

    def _known(self, event: Event) -> Event:
        self.world.dispatch.setdefault(type(event), None)
        return event

    def _refused(self, actor: Actor, seq: int, error: Exception) -> StoryError:
        what = str(error) if isinstance(error, PopcornError) else f"{type(error).__name__}: {error}"
        return StoryError(f"record {seq}, {actor.who}: {what}{place_of(actor.story)}")

    def _runaway(self, actor: Actor) -> None:
        if self._count >= self._record_limit:
            raise StoryError(
                f"{actor.who} was still acting after {self._count:,} records; the run was stopped "
                f"there{place_of(actor.story)}"
            )
        raise StoryError(
            f"{actor.who} took {LIMIT_STEPS:,} steps up to {self.now:,} ns without saying anything "
            f"new or without letting time pass: an endless loop{place_of(actor.story)}"
        )


class LineWatch:
    """Counts the lines a learner's story runs between two yields, and stops an endless loop.

    It counts lines, not seconds, so that the same story is stopped at the same place on every
    machine. Lines of popcorn_edu itself are not counted.
    """

    def __init__(self, who: str) -> None:
        self.who, self.lines = who, 0

    def call(self, frame, event, argument):
        return None if "popcorn_edu" in frame.f_code.co_filename else self.line

    def line(self, frame, event, argument):
        self.lines += 1
        if self.lines > LINES_LIMIT:
            sys.settrace(None)
            raise StoryError(
                f"ran {LINES_LIMIT:,} lines without a yield: an endless loop"
            )
        return self.line


def finish(sim: Sim, start: Callable[[], World], replay: Callable[[Edit], Run] | None = None) -> Run:
    """Run a Sim to its end and hand over the Run."""
    trace = sim.run()
    trace.pack()
    return Run(trace, start, replay, sim.waiting())

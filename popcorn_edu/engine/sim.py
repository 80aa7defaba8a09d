"""When things happen. The only file that imports SimPy.

``Sim`` drives the stories of a run: it resumes one, writes what it says into the trace, applies
it to the world, wakes whoever waited for it, and hands the story's next delay to SimPy's event
queue. SimPy decides nothing but which delay is over first.

Simultaneous events have one written-down order, so that any engine can reproduce a run record
for record: **at equal times actors act in the order of their numbers** (an actor is numbered
when it is begun). An actor that is resumed acts until it yields a Delay that lets somebody else
be first, or an Until. With ``schedule_seed`` the order among simultaneous actors is drawn from
that seed instead (from the first nanosecond on); every scenario is then a fuzzer of its own schedules.

A Delay with a CPU takes its turn on that CPU, first come first served. That is how an interrupt
handler and the process it interrupts share one processor; preemption inside a Delay is not
modelled (model default: a Delay is well under a microsecond).
"""

from __future__ import annotations

import gc
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from heapq import heappop, heappush
from operator import itemgetter

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
    StoryStopped,
    Trace,
    field_problem,
)
from popcorn_edu.engine.world import Edit, Run, World

LIMIT_STEPS = 100_000  # steps at one time, or delays in which nothing is said: a runaway
RECORD_LIMIT = 20_000_000
LINES_LIMIT = 1_000_000  # lines a watched story may execute between two yields


class Actor:
    """One running story: its name and number, what it waits for, and why it was last woken."""

    __slots__ = ("who", "number", "stamp", "story", "turn", "cause", "waits", "value", "held", "wake")

    def __init__(self, who: str, number: int, stamp: int, story: Generator, cause: int) -> None:
        self.who, self.number, self.stamp, self.story = who, number, stamp, story
        self.cause = cause  # the record that woke it, until it has written one of its own
        self.waits: Until | None = None
        self.value: Record | None = None  # what its Until will be answered with
        self.held: Event | None = None  # a record that a fork holds up


class Wake(simpy.Event):
    """An actor's place in SimPy's queue, used again and again."""

    def __init__(self, env: simpy.Environment, act: Callable) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self.again = [act]


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
        self._forked = edit is not None
        self.now = 0
        self.scheduled = 0  # how many events went through SimPy's queue
        self._env = simpy.Environment()
        self._shuffle = None if schedule_seed is None else random.Random(f"schedule {schedule_seed}")
        self._actors: list[Actor] = []
        self._alive: dict[int, Actor] = {}
        self._ready: list[tuple[int, int, Actor]] = []  # woken at this very time: (order, number)
        self._waiting: dict[type[Event], dict[tuple, tuple]] = {}
        self._cpu_free: defaultdict[int, int] = defaultdict(int)
        self._record_limit = record_limit
        self._last: Actor | None = None  # whose turn it was, for the error of a runaway run

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
        actor.turn = self._turn_of(actor)
        actor.wake = Wake(self._env, lambda event: self._act(actor))
        self._actors.append(actor)
        self._alive[actor.number] = actor
        self._schedule(actor, self.now)

    def _order(self, actor: Actor) -> int:
        if self._shuffle is None or self.now == 0:  # at power-on everybody starts in order
            return actor.number
        return self._shuffle.getrandbits(30)

    def _schedule(self, actor: Actor, due: int) -> None:
        wake = actor.wake
        wake.callbacks = wake.again
        self.scheduled += 1
        env = self._env
        env.schedule(wake, self._order(actor), due - env.now)

    # -- stepping ------------------------------------------------------------------------------

    def steps(self) -> Iterator[Record]:
        """The whole system, one Record at a time."""
        shown = 0
        for _ in self._advance():
            while shown < len(self.trace):
                yield self.trace[shown]
                shown += 1

    def run(self) -> Trace:
        """The steps, exhausted."""
        collecting = gc.isenabled()
        gc.disable()  # a run makes many small tuples and no cycles: nothing to collect
        try:
            for _ in self._advance():
                pass
        finally:
            if collecting:
                gc.enable()
        return self.trace

    def _advance(self) -> Iterator[None]:
        """One event of SimPy's queue, and all that its actor wakes at the same time, per step."""
        env, step, ready, trace = self._env, self._env.step, self._ready, self.trace
        events = trace._events
        said = silent = 0
        while True:
            try:
                step()
            except simpy.core.EmptySchedule:
                return
            while ready:
                if env.peek() == env.now:  # somebody else is due now too: one queue decides
                    for order, _, actor in ready:
                        actor.wake.callbacks = actor.wake.again
                        self.scheduled += 1
                        env.schedule(actor.wake, order)
                    ready.clear()
                    break
                actor = heappop(ready)[2]
                self._last = actor
                actor.turn(self.now, actor.value)
            yield
            if len(events) >= CHUNK_RECORDS:
                trace.pack()
                said = -1
            if len(events) != said:
                said, silent = len(events), 0
            else:
                silent += 1
                if silent > LIMIT_STEPS:
                    self._runaway(self._last)

    def _act(self, actor: Actor) -> None:
        self.now, self._last = self._env.now, actor
        actor.turn(self.now, actor.value)

    def waiting(self) -> tuple[tuple[str, str], ...]:
        """Who still waits, and for what, in the order they were begun."""
        return tuple(
            (actor.who, actor.waits.text()) for actor in self._alive.values() if actor.waits
        )

    # -- one actor's turn ----------------------------------------------------------------------

    def _turn_of(self, actor: Actor) -> Callable[[int, Record | None], None]:
        """The function that lets one actor act until it must wait: the hot loop of every run.

        It is a closure, and flat, because everything a run does passes through it: one message
        of the fan-in scenario takes about ten of its rounds.
        """
        story, stamp, trace = actor.story, actor.stamp, self.trace
        send = self._watched(actor) if self.careful else story.send
        events, turns = trace._events, trace._turns
        say, begin_turn = events.append, turns.append
        known, waiting, free = self.world.dispatch.get, self._waiting, self._cpu_free
        ready, peek = self._ready, self._env.peek

        def turn(now: int, value: Record | None) -> None:
            fresh, cause, horizon = True, actor.cause, peek()
            actor.value, editing, rounds = None, self.edit is not None, 0
            try:
                step = send(value) if actor.held is None else actor.held
                while True:
                    kind = type(step)
                    apply = known(kind)
                    if apply is not None:
                        if fresh:
                            fresh = False
                            if rounds > LIMIT_STEPS:
                                rounds = 0
                            begin_turn((len(events), now, stamp, cause))
                        if editing and len(trace) == self.edit.at:
                            step = self._edited(actor, step, now)
                            if step is None:
                                return
                            kind, editing = type(step), False
                            apply = known(kind)
                        say(step)
                        apply(step)
                        if kind in waiting:
                            self._wake(step, now, actor.who, cause)
                            horizon = now
                        cause = -1
                    elif kind is Delay:
                        cpu = step.cpu
                        if cpu is None:
                            due = now + step.ns
                        else:
                            due = free[cpu]
                            due = (due if due > now else now) + step.ns
                            free[cpu] = due
                        if due >= horizon:
                            actor.cause = cause
                            self._schedule(actor, due)
                            return
                        # Nobody else can act before this delay is over: no need to queue it.
                        self.now = now = due
                        fresh = True
                    elif kind is Until:
                        actor.cause = cause
                        self._wait(actor, step, now)
                        return
                    elif kind is Begin:
                        began = as_story(step.story, step.who)
                        self.now = now
                        self._start(step.who, began, len(trace) - 1)
                        horizon = peek()
                    else:
                        self._learn(actor, step, kind)
                        continue
                    rounds += 1
                    if rounds > LIMIT_STEPS and not fresh:
                        self._runaway(actor)
                    step = send(None)
            except StopIteration:
                del self._alive[actor.number]
            except Exception as error:
                problem = self._problem(actor, error)
                if not self._forked:
                    raise problem from error
                self._stop(actor, problem, now)

        return turn

    def _watched(self, actor: Actor) -> Callable:
        """A learner's story under watch: its lines are counted, its values checked."""
        inner, watch = actor.story.send, LineWatch()

        def send(value: Record | None):
            tracing = sys.gettrace()
            if tracing is None:  # else a debugger or a coverage tool is at work: leave it alone
                watch.lines = 0
                sys.settrace(watch.call)
            try:
                step = inner(value)
            except StopIteration:
                raise
            except Exception as error:
                raise raised(actor.who, error, actor.story) from error
            finally:
                sys.settrace(tracing)
            if isinstance(step, Event) and (problem := field_problem(step)):
                raise StoryError(f"{actor.who}: {problem}{place_of(actor.story)}")
            return step

        return send

    def _wait(self, actor: Actor, until: Until, now: int) -> None:
        actor.waits = until
        groups = self._waiting.setdefault(until.kind, {})
        group = groups.get(until.fields)
        if group is None:
            places = [until.kind.fields.index(field) for field in until.fields]
            look = itemgetter(*places) if places else _anything
            group = groups[until.fields] = look, {}
        values = until.values
        key = values[0] if len(values) == 1 else values
        group[1].setdefault(key, []).append(actor)
        if until.within is not None:
            timer = Wake(self._env, lambda event: self._time_out(actor, until))
            timer.callbacks = timer.again
            self.scheduled += 1
            self._env.schedule(timer, self._order(actor), now + until.within - self._env.now)

    def _time_out(self, actor: Actor, until: Until) -> None:
        if actor.waits is until:
            values = until.values
            key = values[0] if len(values) == 1 else values
            self._waiting[until.kind][until.fields][1][key].remove(actor)
            actor.waits = None
            self._act(actor)

    def _wake(self, event: Event, now: int, who: str, cause: int = -1) -> None:
        """Wake whoever waited for this event; each will act in its turn, at this same time."""
        record = None
        for look, group in self._waiting[type(event)].values():
            actors = group.pop(look(event), None) if group else None
            if not actors:
                continue
            if record is None:
                record = Record(len(self.trace) - 1, now, who, None if cause < 0 else cause, event)
            for actor in actors:
                actor.waits, actor.cause, actor.value = None, record.seq, record
                heappush(self._ready, (self._order(actor), actor.number, actor))

    # -- rare things ---------------------------------------------------------------------------

    def _learn(self, actor: Actor, step: object, kind: type) -> None:
        """A step the loop does not know: an event that no part listens to, or nonsense."""
        if not isinstance(step, Event):
            raise nonsense(actor.who, step, actor.story)
        self.world.dispatch[kind] = _nothing

    def _edited(self, actor: Actor, step: Event, now: int) -> Event | None:
        """A fork's one edit, made just before the record ``edit.at``."""
        edit, self.edit = self.edit, None
        if edit.delay:
            first = self.trace._turns[-1][0]
            if first == len(self.trace._events):  # a turn that was begun and says nothing now
                self.trace._turns.pop()
            actor.held = step
            self._schedule(actor, now + edit.delay)
            return None
        if edit.drop:
            lost = NeverHappened(type(step).__name__, str(step))
            self.world.dispatch.setdefault(NeverHappened, _nothing)
            return lost
        extra = edit.say
        if edit.settings:
            ((name, value),) = edit.settings
            extra = SettingChanged(name, repr(value))
        self.trace._turns.insert(-1, (len(self.trace._events), now, self.trace.actor("fork"), -1))
        first, time, stamp, cause = self.trace._turns.pop()
        self.trace._events.append(extra)
        self.trace._turns.append((len(self.trace._events), time, stamp, cause))
        self.world.apply(extra)
        if type(extra) in self._waiting:
            self._wake(extra, now, "fork")
        return step

    def _problem(self, actor: Actor, error: Exception) -> StoryError:
        """Why this story cannot go on: it raised, or it said what the world refuses."""
        if isinstance(error, StoryError):
            return error
        if actor.story.gi_frame is None:
            return raised(actor.who, error, actor.story)
        what = str(error) if isinstance(error, PopcornError) else f"{type(error).__name__}: {error}"
        return StoryError(
            f"record {len(self.trace) - 1}, {actor.who}: {what}{place_of(actor.story)}"
        )

    def _stop(self, actor: Actor, problem: StoryError, now: int) -> None:
        """In a fork a story that breaks ends alone, and the trace says so."""
        del self._alive[actor.number]
        self.world.dispatch.setdefault(StoryStopped, _nothing)
        self.trace.append(now, actor.who, None, StoryStopped(actor.who, str(problem)))

    def _runaway(self, actor: Actor) -> None:
        raise StoryError(
            f"{actor.who} took {LIMIT_STEPS:,} steps up to {self.now:,} ns without letting time pass "
            f"or without saying anything: an endless loop{place_of(actor.story)}"
        )


def _nothing(event: Event) -> None:
    """What an event does to a world whose parts do not listen to it."""


def _anything(event: Event) -> tuple:
    """The key of an Until that names no field."""
    return ()


class LineWatch:
    """Counts the lines a learner's story runs between two yields, and stops an endless loop.

    It counts lines, not seconds, so that the same story is stopped at the same place on every
    machine. Lines of popcorn_edu itself are not counted.
    """

    def __init__(self) -> None:
        self.lines = 0

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

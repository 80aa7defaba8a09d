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

import dis
import gc
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from operator import itemgetter

import simpy

from popcorn_edu.engine.steps import (
    PACKAGE,
    Begin,
    Delay,
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
    CHUNK_RECORDS,
    Event,
    NeverHappened,
    Record,
    SettingChanged,
    StoryStopped,
    Trace,
    field_problem,
)
from popcorn_edu.engine.world import Edit, Run, World

LIMIT_STEPS = 100_000  # steps at one time, or steps in which nothing is said: a runaway
ALIVE_LIMIT = 10_000  # stories at work at the same time
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
    edits           what makes this run a fork of another, in order
    """

    def __init__(
        self,
        world: World,
        meta: dict | None = None,
        *,
        schedule_seed: int | None = None,
        careful: bool = False,
        record_limit: int = RECORD_LIMIT,
        edits: Sequence[Edit] = (),
    ) -> None:
        self.world, self.trace, self.careful = world, Trace(meta), careful
        self.edits, self._forked = tuple(edits), bool(edits)
        self._edits_left = list(edits)
        self.now = 0
        self.scheduled = 0  # how many events went through SimPy's queue
        self._env = simpy.Environment()
        self._shuffle = None if schedule_seed is None else random.Random(f"schedule {schedule_seed}")
        self._begun = 0
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
        if len(self._alive) == ALIVE_LIMIT:
            raise StoryError(
                f"{ALIVE_LIMIT:,} stories are at work at {self.now:,} ns, and {who} begins as one "
                "more: a story that begins others without end"
            )
        actor = Actor(who, self._begun, self.trace.actor(who), story, cause)
        self._begun += 1
        actor.turn = self._turn_of(actor)
        actor.wake = Wake(self._env, lambda event: self._act(actor))
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
        said = silent = still = moment = 0
        while True:
            if not ready:
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
                if self.now != moment:
                    moment, still = self.now, 0
                still += 1
                if still > LIMIT_STEPS or len(events) >= CHUNK_RECORDS:
                    break
            yield
            if self.now != moment:
                moment, still = self.now, 0
            still += 1
            if still > LIMIT_STEPS:
                self._runaway(self._last)
            if len(events) >= CHUNK_RECORDS:
                self._pack()
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
            actor.value, editing = None, bool(self._edits_left)
            step, rounds, began, length = None, 0, now, -1
            try:
                if actor.held is not None:
                    step, actor.held = actor.held, None
                elif editing and self._holds_up(actor, now):
                    actor.value = value
                    return
                else:
                    step = send(value)
                while True:
                    kind = type(step)
                    apply = known(kind)
                    if apply is not None:
                        if fresh:
                            fresh = False
                            begin_turn((len(events), now, stamp, cause))
                        while editing and len(trace) >= self._edits_left[0].at:
                            step = self._edited(actor, step, now)
                            if step is None:
                                actor.cause = cause
                                return
                            horizon = now
                            kind, editing = type(step), bool(self._edits_left)
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
                        if editing and self._holds_up(actor, now):
                            actor.cause = cause
                            return
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
                    if rounds == LIMIT_STEPS:  # a long turn: does it get anywhere?
                        if now == began or len(trace) == length:
                            self._runaway(actor)
                        self._pack()
                        rounds, began, length, fresh = 0, now, len(trace), True
                    step = send(None)
            except StopIteration:
                del self._alive[actor.number]
            except Exception as error:
                problem = self._problem(actor, error)
                if not self._forked or len(trace) > self._record_limit:
                    raise problem from error
                self._stop(actor, problem, now, step)

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
            except OutOfLines as stop:
                raise StoryError(f"{actor.who} {stop}{place_of_error(stop)}") from None
            finally:
                sys.settrace(tracing)
            if isinstance(step, Event) and (problem := field_problem(step)):
                where = place_of(actor.story)
                actor.story.close()
                raise StoryError(f"{actor.who}: {problem}{where}")
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
        edit = self._edits_left.pop(0)
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
        if problem := self._refusal(extra):
            extra = StoryStopped("fork", f"{extra!r} is not possible here: {problem}")
        turns, here = self.trace._turns, len(self.trace._events)
        first, _, stamp, cause = turns[-1]
        if first == here:  # the actor's own turn has no record yet: it comes after this one
            turns.pop()
        turns.append((here, now, self.trace.actor("fork"), -1))
        self.trace._events.append(extra)
        turns.append((here + 1, now, stamp, cause if first == here else -1))
        self.world.dispatch.setdefault(type(extra), _nothing)
        self.world.apply(extra)
        if type(extra) in self._waiting:
            self._wake(extra, now, "fork")
        return step

    def _holds_up(self, actor: Actor, now: int) -> bool:
        """Is this the turn in which a fork holds this actor up, before it looks at anything?"""
        edit = self._edits_left[0]
        if not edit.delay or (len(self.trace), now, actor.who) != (edit.at, edit.time, edit.who):
            return False
        self._edits_left.pop(0)
        self._schedule(actor, now + edit.delay)
        return True

    def _refusal(self, event: Event) -> str:
        """Why the world cannot take this event now, in words; empty if it can."""
        try:
            self.world.copy().apply(event)
        except Exception as error:
            return in_words(error)
        return ""

    def _problem(self, actor: Actor, error: Exception) -> StoryError:
        """Why this story cannot go on: it raised, or it said what the world refuses."""
        if isinstance(error, StoryError):
            return error
        if actor.story.gi_frame is None:
            return raised(actor.who, error, actor.story)
        return StoryError(
            f"record {len(self.trace) - 1}, {actor.who}: {in_words(error)}{place_of(actor.story)}"
        )

    def _stop(self, actor: Actor, problem: StoryError, now: int, step: object) -> None:
        """In a fork a story that breaks ends alone, and the trace says so."""
        del self._alive[actor.number]
        events, turns = self.trace._events, self.trace._turns
        if actor.story.gi_frame is not None and events and events[-1] is step:
            events.pop()  # the world refused it, so it did not happen
        while turns and turns[-1][0] == len(events):
            turns.pop()
        self.world.dispatch.setdefault(StoryStopped, _nothing)
        self.trace.append(now, actor.who, None, StoryStopped(actor.who, str(problem)))

    def _pack(self) -> None:
        self.trace.pack()
        if len(self.trace) > self._record_limit:
            raise StoryError(
                f"the run has more than {self._record_limit:,} records at {self.now:,} ns and does "
                f"not end; {self._last.who} acted last{place_of(self._last.story)}"
            )

    def _runaway(self, actor: Actor) -> None:
        where = place_of(actor.story)
        actor.story.close()
        raise StoryError(
            f"{actor.who} took {LIMIT_STEPS:,} steps up to {self.now:,} ns without letting time pass "
            f"or without saying anything: an endless loop{where}"
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
        if frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = jumps_onto_itself(frame.f_code)
        return self.line

    def line(self, frame, event, argument):
        self.lines += 1
        if self.lines > LINES_LIMIT:
            raise OutOfLines(f"ran {LINES_LIMIT:,} lines without a yield: an endless loop")
        return self.line


class OutOfLines(BaseException):
    """Not an Exception: a learner's ``except Exception`` must not swallow it."""


@cache
def jumps_onto_itself(code) -> bool:
    """Is there a ``while True: pass`` on one line? Python 3.11 counts no lines in it."""
    return sys.version_info < (3, 12) and any(
        step.opcode in dis.hasjrel and step.argval == step.offset
        for step in dis.get_instructions(code)
    )


def finish(
    sim: Sim, start: Callable[[], World], replay: Callable[[tuple[Edit, ...]], Run] | None = None
) -> Run:
    """Run a Sim to its end and hand over the Run."""
    trace = sim.run()
    trace.pack()
    return Run(trace, start, replay, sim.waiting(), sim.edits)

"""When things happen. The only file that imports SimPy.

``Sim`` drives the stories of a run: it resumes one, writes what it says into the trace, applies
it to the world, wakes whoever waited for it, and hands the story's next delay to SimPy's event
queue. SimPy decides nothing but which delay is over first.

Simultaneous events have one written-down order, so that any engine can reproduce a run record
for record: **at equal times actors act in the order of their numbers** (an actor is numbered
when it is begun). An actor that is resumed acts until it yields a Delay that lets somebody else
be first, or an Until. With ``schedule_seed`` they act in the order of ``trace.place_in_line``
instead, another one at each time; every scenario is then a fuzzer of its own schedules. Running
ahead of the queue and the list of the woken (below) are short cuts that change nothing:
tests/engine/test_total_order.py holds them against a scheduler that has neither.

A Delay with a CPU takes its turn on that CPU, first come first served. That is how an interrupt
handler and the process it interrupts share one processor; preemption inside a Delay is not
modelled (model default: a Delay is well under a microsecond).

An event kind with ``halts`` (KernelPanicked) is the end of every actor of the kernel that it
names, at that very record: none of them acts again, whatever it was doing or waiting for.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache
from heapq import heappop, heappush
from itertools import chain
from operator import itemgetter

import simpy

from popcorn_edu.engine.steps import (
    PACKAGE,
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
    CHUNK_RECORDS,
    Event,
    NeverHappened,
    Record,
    SettingChanged,
    StoryStopped,
    Trace,
    field_problem,
    place_in_line,
    shuffle,
)
from popcorn_edu.engine.world import NOTHING, Edit, Run, Stage, World

LIMIT_STEPS = 100_000  # steps at one time, or steps in which nothing is said: a runaway
ALIVE_LIMIT = 10_000  # stories at work at the same time
RECORD_LIMIT = 20_000_000
LINES_LIMIT = 1_000_000  # lines a watched story may execute between two yields


class Wake(simpy.Event):
    """A place in SimPy's queue, which can be taken again and again."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self.again: list[Callable] = []  # what SimPy calls when it is due


class Actor(Wake):
    """One running story: its name and number, its kernel (None: nobody's), what it waits for, and
    why it was last woken."""

    def __init__(
        self,
        env: simpy.Environment,
        who: str,
        number: int,
        stamp: int,
        story: Generator,
        cause: int,
        kernel: int | None,
    ) -> None:
        super().__init__(env)
        self.who, self.number, self.stamp, self.story = who, number, stamp, story
        self.kernel = kernel
        self.cause = cause  # the record that woke it, until it has written one of its own
        self.due = 0  # when its Delay is over
        self.waits: Until | None = None
        self.answer: Record | None = None  # what its Until will be answered with
        self.held: Event | None = None  # a record that a fork holds up


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
        self._shuffle = None if schedule_seed is None else shuffle(schedule_seed)
        self._begun = 0
        self._alive: dict[int, Actor] = {}
        self._ready: list[tuple[int, Actor]] = []  # woken at this very time, by their place in line
        # Who waits: by the kind and the fields that are compared, then by the values. A group is
        # (how to get the values out of an event, {values: actors}).
        self._groups: dict[tuple, tuple[Callable, dict]] = {}
        self._waiting: dict[type[Event], list[tuple[Callable, dict]]] = {}
        self._cpu_free: dict[int, int] = {}  # when each CPU will be free
        self._record_limit = record_limit
        self._last: Actor | None = None  # whose turn it was, for the error of a runaway run
        for kind in world.dispatch:
            self._expect(kind)

    def begin(
        self, who: str, tell: Callable[..., Generator], *args, kernel: int | None = None
    ) -> None:
        """Start ``tell(world, *args)`` as an actor of ``kernel`` (None: of nobody); a careful Sim
        shows it that kernel's view."""
        world = self.world.seen_by(kernel) if self.careful else Stage(self.world)
        try:
            made = tell(world, *args)
        except Exception as error:
            raise raised(who, error) from error
        self._start(who, as_story(made, who, tell), -1, kernel)

    def _start(self, who: str, story: Generator, cause: int, kernel: int | None) -> None:
        if len(self._alive) == ALIVE_LIMIT:
            raise StoryError(
                f"{ALIVE_LIMIT:,} stories are at work at {self.now:,} ns, and {who} begins as one "
                "more: a story that begins others without end"
            )
        actor = Actor(self._env, who, self._begun, self.trace.actor(who), story, cause, kernel)
        self._begun += 1
        actor.turn = self._turn_of(actor)
        actor.again.append(actor.turn)
        self._alive[actor.number] = actor
        self._schedule(actor, self.now)

    def _order(self, actor: Actor, due: int) -> int:
        """Where the actor stands among those who are due at the same time."""
        if self._shuffle is None:
            return actor.number
        return place_in_line(self._shuffle, due, actor.number)

    def _schedule(self, actor: Actor, due: int) -> None:
        actor.due = due
        self._queue(actor, self._order(actor, due), due)

    def _queue(self, wake: Wake, order: int, due: int) -> None:
        wake.callbacks = wake.again
        self.scheduled += 1
        self._env.schedule(wake, order, due - self._env.now)

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
        step, peek, ready = self._env.step, self._env.peek, self._ready
        events, taken, moment, length = self.trace._events, 0, -1, -1
        while True:
            if not ready:
                try:
                    step()
                except simpy.core.EmptySchedule:
                    return
            while ready:
                now, horizon = self.now, peek()
                if horizon == now:  # somebody else is due now too: one queue decides
                    for order, actor in ready:
                        actor.due = now
                        self._queue(actor, order, now)
                    ready.clear()
                    break
                actor = heappop(ready)[1]
                actor.turn(actor, now, now if ready else horizon)
                taken += 1
                if taken > LIMIT_STEPS or len(events) >= CHUNK_RECORDS:
                    break
            yield
            taken += 1
            if taken > LIMIT_STEPS:  # many turns: do they get anywhere?
                if self.now == moment or len(self.trace) == length:
                    self._runaway(self._last)
                taken, moment, length = 0, self.now, len(self.trace)
            if len(events) >= CHUNK_RECORDS:
                self._pack()

    def waiting(self) -> tuple[tuple[str, str], ...]:
        """Who still waits, and for what, in the order they were begun."""
        return tuple(
            (actor.who, actor.waits.text()) for actor in self._alive.values() if actor.waits
        )

    # -- one actor's turn ----------------------------------------------------------------------

    def _turn_of(self, actor: Actor) -> Callable:
        """The function that lets one actor act until it must wait: the hot loop of every run.

        It is a closure, and flat, because everything a run does passes through it: one message
        of the fan-in scenario takes twelve rounds of its loop. A ``for`` over the story is the
        cheapest way Python has to resume it; ``send`` is needed only to answer an Until.
        """
        story, who, stamp, number = actor.story, actor.who, actor.stamp, actor.number
        send, told, again = story.send, story, actor.again
        if self.careful:
            send = self._watched(actor)
            told = _each(send)
        events, turns = self.trace._events, self.trace._turns
        say, begin_turn = events.append, turns.append
        applies, waiting, free = self.world.dispatch, self._waiting, self._cpu_free
        env, peek, schedule = self._env, self._env.peek, self._env.schedule
        shuffled, order_at = self._shuffle is not None, self._order

        def turn(_: simpy.Event, now: int = -1, horizon: int = 0) -> None:
            """SimPy calls it when the actor is due, _advance with the time when it was woken.

            Until ``horizon`` nobody else can act.
            """
            if now < 0:
                now, horizon = actor.due, peek()
                clock = now
            else:
                clock = env.now  # behind, if somebody ran ahead of SimPy's queue
            self.now, self._last = now, actor
            fresh, cause, editing = True, actor.cause, self._edits_left
            step, rounds, since, length = None, 0, now, -1
            try:
                if actor.answer is None and not editing and actor.held is None:
                    steps = told
                else:
                    answer, actor.answer = actor.answer, None
                    if actor.held is not None:
                        first, actor.held = actor.held, None
                    elif editing and self._holds_up(actor, now):
                        actor.answer = answer
                        return
                    else:
                        first = send(answer)
                    steps = chain((first,), told)
                for step in steps:
                    kind = type(step)
                    if kind is Delay:
                        cpu = step.cpu
                        if cpu is None:
                            due = now + step.ns
                        else:
                            try:
                                due = free[cpu]
                            except KeyError:
                                due = now
                            due = (due if due > now else now) + step.ns
                            free[cpu] = due
                        if due >= horizon:
                            actor.cause, actor.due, actor.callbacks = cause, due, again
                            self.scheduled += 1
                            order = order_at(actor, due) if shuffled else number
                            schedule(actor, order, due - clock)
                            return
                        # Nobody else can act before this delay is over: no need to queue it.
                        self.now = now = due
                        fresh = True
                        rounds += 1
                        if rounds == LIMIT_STEPS:
                            self._long_turn(actor, since, length)
                            rounds, since, length = 0, now, len(self.trace)
                        if editing and self._holds_up(actor, now):
                            actor.cause = cause
                            return
                    elif kind is Until:
                        actor.cause = cause
                        self._wait(actor, step, now)
                        return
                    else:
                        try:
                            apply, also = applies[kind]
                        except KeyError:
                            if kind is Begin:
                                began, where = as_story(step.story, step.who), step.kernel
                                where = actor.kernel if where is SAME_KERNEL else where
                                self._start(step.who, began, len(self.trace) - 1, where)
                                horizon = now
                                continue
                            if kind is Fence:
                                continue
                            self._learn(actor, step, kind)
                            apply, also = NOTHING
                        if fresh:
                            fresh = False
                            begin_turn((len(events), now, stamp, cause))
                        else:
                            rounds += 1
                            if rounds == LIMIT_STEPS:
                                self._long_turn(actor, since, length)
                                rounds, since, length = 0, now, len(self.trace)
                                begin_turn((len(events), now, stamp, cause))
                        while editing and len(self.trace) >= editing[0].at:
                            step = self._edited(actor, step, now)
                            if step is None:
                                actor.cause = cause
                                return
                            horizon = now
                            kind = type(step)
                            apply, also = applies[kind]
                        say(step)
                        apply(step)
                        if also is not None:
                            also(step)
                        if kind in waiting:
                            self._wake(step, now, who, cause)
                            horizon = now
                        cause = -1
                self._alive.pop(number, None)
            except StopIteration:
                self._alive.pop(number, None)
            except Exception as error:
                problem = self._problem(actor, error)
                if not self._forked or len(self.trace) > self._record_limit:
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
        actor.waits, kind, fields, key = until, until.kind, until.fields, until.key
        try:
            group = self._groups[kind, fields]
        except KeyError:
            places = [kind.fields.index(field) for field in fields]
            look = itemgetter(*places) if places else _anything
            group = self._groups[kind, fields] = look, {}
            self._waiting.setdefault(kind, []).append(group)
        actors = group[1]
        if key in actors:
            actors[key].append(actor)
        else:
            actors[key] = [actor]
        if until.within is not None:
            timer = Wake(self._env)
            timer.again.append(lambda event: self._time_out(actor, until))
            due = now + until.within
            self._queue(timer, self._order(actor, due), due)

    def _time_out(self, actor: Actor, until: Until) -> None:
        if actor.waits is until:
            self._groups[until.kind, until.fields][1][until.key].remove(actor)
            actor.waits, actor.due = None, self._env.now
            actor.turn(actor)

    def _wake(self, event: Event, now: int, who: str, cause: int = -1) -> None:
        """Wake whoever waited for this event; each will act in its turn, at this same time."""
        record = None
        for look, group in self._waiting[type(event)]:
            if not group or not (actors := group.pop(look(event), None)):
                continue
            if record is None:
                record = Record(len(self.trace) - 1, now, who, None if cause < 0 else cause, event)
            for actor in actors:
                actor.waits, actor.cause, actor.answer = None, record[0], record
                heappush(self._ready, (self._order(actor, now), actor))

    # -- rare things ---------------------------------------------------------------------------

    def _learn(self, actor: Actor, step: object, kind: type) -> None:
        """A step the loop does not know: an event that no part listens to, or nonsense."""
        if not isinstance(step, Event):
            raise nonsense(actor.who, step, actor.story)
        self.world.dispatch[kind] = NOTHING
        self._expect(kind)

    def _expect(self, kind: type[Event]) -> None:
        """If events of this kind halt a kernel, then whoever waits for them is looked after by
        _wake, and so is the kernel: as a first group, which is never empty and has no actors."""
        if kind.halts:
            self._waiting.setdefault(kind, []).insert(0, (self._halt, {"its kernel": ()}))

    def _halt(self, event: Event) -> str:
        """The end of all actors of a kernel. Each stays where it is, but its story is over."""
        kernel = getattr(event, event.halts)
        for actor in [actor for actor in self._alive.values() if actor.kernel == kernel]:
            del self._alive[actor.number]
            if until := actor.waits:
                self._groups[until.kind, until.fields][1][until.key].remove(actor)
            actor.waits = actor.held = actor.answer = None
            close(actor.story)
        return "nobody"

    def _edited(self, actor: Actor, step: Event, now: int) -> Event | None:
        """The next edit of a fork, made just before the record ``edit.at``."""
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
            self.world.dispatch.setdefault(NeverHappened, NOTHING)
            return lost
        extra = edit.instead if edit.say is None else edit.say
        if edit.settings:
            ((name, value),) = edit.settings
            extra = SettingChanged(name, repr(value))
        if problem := self._refusal(extra):
            extra = StoryStopped("fork", f"{extra!r} is not possible here: {problem}")
        if type(extra) not in self.world.dispatch:
            self._learn(actor, extra, type(extra))
        if extra is edit.instead:
            return extra
        turns, here = self.trace._turns, len(self.trace._events)
        first, _, stamp, cause = turns[-1]
        if first == here:  # the actor's own turn has no record yet: it comes after this one
            turns.pop()
        turns.append((here, now, self.trace.actor("fork"), -1))
        self.trace._events.append(extra)
        turns.append((here + 1, now, stamp, cause if first == here else -1))
        self.world.apply(extra)
        if type(extra) in self._waiting:
            self._wake(extra, now, "fork")
        if actor.number not in self._alive:  # its kernel has just panicked: it says nothing more
            turns.pop()
            return None
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
        self.world.dispatch.setdefault(StoryStopped, NOTHING)
        self.trace.append(now, actor.who, None, StoryStopped(actor.who, str(problem)))

    def _pack(self) -> None:
        self.trace.pack()
        if len(self.trace) > self._record_limit:
            raise StoryError(
                f"the run has more than {self._record_limit:,} records at {self.now:,} ns and does "
                f"not end; {self._last.who} acted last{place_of(self._last.story)}"
            )

    def _long_turn(self, actor: Actor, since: int, length: int) -> None:
        """One actor acts alone for very many steps: does it get anywhere?"""
        if self.now == since or len(self.trace) == length:
            self._runaway(actor)
        self._pack()

    def _runaway(self, actor: Actor) -> None:
        where = place_of(actor.story)
        actor.story.close()
        raise StoryError(
            f"{actor.who} took {LIMIT_STEPS:,} steps up to {self.now:,} ns without letting time "
            f"pass or without saying anything: an endless loop{where}"
        )


def _each(send: Callable) -> Iterator:
    """The steps of a story that must be asked for one by one."""
    while True:
        try:
            step = send(None)
        except StopIteration:
            return
        yield step


def close(story: Generator) -> None:
    """End a story where it stands, even one that catches everything and yields again."""
    for _ in range(LIMIT_STEPS):
        try:
            return story.close()
        except Exception:  # "generator ignored GeneratorExit", or its own last words: it is over
            continue


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

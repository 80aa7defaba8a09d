"""The order of simultaneous events is the documented one; no short cut of the engine changes it.

Reference is the shortest scheduler that keeps the order of sim.py's docstring: one heap of
(time, the actor's place in line), and nothing else. It never runs ahead and has no list of the
woken. It knows the steps of stories, and neither Sim nor SimPy.
"""

import collections
import heapq
import itertools
import random
from functools import partial

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.sim import Sim
from popcorn_edu.engine.steps import Begin, Delay, Fence, Until
from popcorn_edu.engine.trace import (
    BITS_32,
    MIX_FIRST,
    MIX_SECOND,
    Event,
    Record,
    Trace,
    place_in_line,
    shuffle,
)
from popcorn_edu.engine.world import Part, World
from popcorn_edu.model import flat


class Reference:
    """Plays stories over a world, one heap entry after the other."""

    def __init__(self, world: World, schedule_seed=None) -> None:
        self.world, self.records, self.schedule_seed = world, [], schedule_seed
        self.queue, self.entries = [], itertools.count()
        self.actors, self.waiting, self.cpu_free = [], {}, {}

    def begin(self, who, tell, *args) -> None:
        self.start(who, tell(self.world, *args), 0, None)

    def start(self, who, story, now, cause) -> None:
        actor = {"who": who, "number": len(self.actors), "story": story, "cause": cause}
        self.actors.append(actor)
        self.put(now, actor, partial(self.turn, actor, now, None))

    def put(self, time, actor, act) -> None:
        order = actor["number"]
        if self.schedule_seed is not None:
            order = place_in_line(shuffle(self.schedule_seed), time, order)
        heapq.heappush(self.queue, (time, order, next(self.entries), act))

    def run(self) -> list[Record]:
        while self.queue:
            heapq.heappop(self.queue)[-1]()
        return self.records

    def turn(self, actor, now, answer) -> None:
        while True:
            try:
                step = actor["story"].send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Event):
                self.say(actor, now, step)
            elif isinstance(step, Begin):
                self.start(
                    step.who, step.story, now, len(self.records) - 1 if self.records else None
                )
            elif isinstance(step, Delay):
                start = max(now, self.cpu_free.get(step.cpu, 0))
                due = (now if step.cpu is None else start) + step.ns
                if step.cpu is not None:
                    self.cpu_free[step.cpu] = due
                self.put(due, actor, partial(self.turn, actor, due, None))
                return
            elif not isinstance(step, Fence):
                self.waiting[actor["number"]] = step
                if step.within is not None:
                    late = now + step.within
                    self.put(late, actor, partial(self.too_late, actor, late, step))
                return

    def say(self, actor, now, event) -> None:
        record = Record(len(self.records), now, actor["who"], actor["cause"], event)
        actor["cause"] = None
        self.records.append(record)
        self.world.apply(event)
        for number, until in sorted(self.waiting.items()):
            wanted = zip(until.fields, until.values, strict=True)
            if until.kind is type(event) and all(getattr(event, f) == v for f, v in wanted):
                del self.waiting[number]
                woken = self.actors[number]
                woken["cause"] = record.seq
                self.put(now, woken, partial(self.turn, woken, now, record))

    def too_late(self, actor, now, until) -> None:
        if self.waiting.get(actor["number"]) is until:
            del self.waiting[actor["number"]]
            self.turn(actor, now, None)


class Called(Event):
    """Something that others wait for."""

    what: int
    by: int


class Noted(Event):
    """Something that nobody waits for."""

    what: int


class Tally(Part):
    """So that what a story does next can depend on what was applied before."""

    tables = ("calls",)

    def called(self, event: Called) -> None:
        self.calls[event.what] = self.calls.get(event.what, 0) + 1

    applies = {Called: called}


def wanderer(world, me, seed, depth=0):
    """Says, sleeps, waits and begins at random, in steps so small that ties are the rule.

    Some casts are restless, some wait in crowds and sleep long.
    """
    pick = random.Random(seed).randrange
    longest, patience = ((4, 9), (4, 6), (40, 5))[pick(3)]
    for n in range(pick(3, 14)):
        choice = pick(10)
        if choice < 2:
            yield Delay(pick(longest), (None, None, 0, 1)[pick(4)])
        elif choice < 4:
            yield Called(pick(3), me)
        elif choice == 4:
            yield Noted(world.tally.calls.get(pick(3), 0))
        elif choice < patience:
            if depth < 2:
                story = wanderer(world, 10 * me + n, pick(10**6), depth + 1)
                yield Begin(f"child of {me}", story)
        else:
            match = ({}, {}, {"what": pick(3)}, {"what": pick(3), "by": pick(4)})[pick(4)]
            record = yield Until(Called, **match, within=(None, 0, 2, 50)[pick(4)])
            if pick(2):
                yield Noted(-1 if record is None else record.seq)


def both(begin_all, schedule_seed=None) -> tuple[list[Record], list[Record]]:
    """The records of the reference and of the engine, for the same cast."""
    reference, sim = (
        engine(World(None, tally=Tally), schedule_seed=schedule_seed) for engine in (Reference, Sim)
    )
    for engine in (reference, sim):
        begin_all(engine)
    return reference.run(), list(sim.run())


@pytest.mark.parametrize("schedule_seed", [None, 7])
@pytest.mark.parametrize("seed", range(100))
def test_the_engine_keeps_the_order_of_the_reference(seed, schedule_seed):
    """Record for record, on stories that tie, wake crowds, share CPUs and begin others."""

    def begin_all(engine):
        for me in range(random.Random(seed).randrange(2, 7)):
            engine.begin(f"story {me}", wanderer, me, f"{seed} {me}")

    expected, told = both(begin_all, schedule_seed)
    assert told == expected


def test_the_random_stories_do_tie():
    """Most of their records share a time with another actor's, or the test above shows little."""
    ties = total = 0
    for seed in range(30):
        sim = Sim(World(None, tally=Tally))
        for me in range(5):
            sim.begin(f"story {me}", wanderer, me, f"{seed} {me}")
        for _, group in itertools.groupby(sim.run(), lambda record: record.time):
            records = list(group)
            total += len(records)
            ties += len(records) if len({record.who for record in records}) > 1 else 0
    assert ties > total / 2 > 100


def test_a_crowd_that_is_woken_acts_at_once():
    """Nobody who is woken at a time may act later because another of the woken slept."""

    def sleeper(world, me):
        yield Until(Called)
        yield Delay(5)
        yield Noted(me)

    def quick(world, me):
        yield Until(Called)
        yield Noted(me)

    def caller(world):
        yield Delay(10)
        yield Called(1, 0)

    def begin_all(engine):
        engine.begin("sleeper", sleeper, 1)
        engine.begin("quick", quick, 2)
        engine.begin("caller", caller)

    expected, told = both(begin_all)
    assert told == expected
    assert [(r.time, r.who) for r in told] == [(10, "caller"), (10, "quick"), (15, "sleeper")]


class TestThePlaceInLine:
    """trace.place_in_line, which shuffles a schedule."""

    def test_no_two_actors_share_a_place(self):
        """At no time, under no seed: the order is total."""
        for schedule_seed in (0, 1, -5, 2**70):
            for time in (0, 1, 2**31, 2**33 + 1, 2**62):
                seed = shuffle(schedule_seed)
                assert len({place_in_line(seed, time, n) for n in range(5_000)}) == 5_000

    def test_every_order_of_four_comes_up_about_equally_often(self):
        """In seeds as in times: a fuzzer that never tries an order is none."""
        for places in (
            lambda n: [place_in_line(shuffle(n), 1_000, actor) for actor in range(4)],
            lambda n: [place_in_line(shuffle(3), n + 1, actor) for actor in range(4)],
        ):
            counts = collections.Counter(
                tuple(sorted(range(4), key=places(n).__getitem__)) for n in range(2_400)
            )
            assert len(counts) == 24 and 60 < min(counts.values()) <= max(counts.values()) < 140

    def test_it_is_the_same_on_every_machine(self):
        """These are kept: a saved schedule seed means the same schedule for ever."""
        places = [place_in_line(shuffle(0), 2**40, n) for n in range(3)]
        assert places == [0x80FA15D0, 0x14A0A14D, 0x323C90FB]

    def test_at_power_on_everybody_starts_in_order(self):
        """Nobody may speak before the machine has said who is registered."""
        assert [place_in_line(shuffle(9), 0, n) for n in range(3)] == [0, 1, 2]

    def test_its_products_fit_in_a_signed_64_bit_number(self):
        """So that a compiled engine needs no wider type."""
        assert max(MIX_FIRST, MIX_SECOND) * BITS_32 < 2**63


CASTS = {
    "fan_in": {"kernels": 9, "messages": 6, "gap_ns": 0, "slots": 4, "high_every": 3},
    "fan_in, whole ring": {"kernels": 5, "messages": 9, "gap_ns": 0, "full_rule": "whole ring"},
    "fan_in, at leisure": {"kernels": 9, "messages": 8, "gap_ns": 3_000, "budget": 2},
    "two_full_rings": {},
    "registration": {"kernels": 6},
    "ping": {"rounds": 5},
    "lost_wakeup": {},
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("schedule_seed", [None, 0])
def test_the_scenarios_are_what_the_reference_makes_of_them(cast, seed, schedule_seed, monkeypatch):
    """Not only stories made up for a test."""
    name, options = cast.split(",")[0], CASTS[cast] | {"schedule_seed": schedule_seed}
    with flat.played_by("stories"):
        run = scenarios.run(name, seed=seed, **options)

    class Played(Reference):
        def __init__(self, world, meta, schedule_seed, **options):
            super().__init__(world, schedule_seed)

        def begin(self, who, tell, *args, kernel=None):
            super().begin(who, tell, *args)

    monkeypatch.setattr(scenarios, "Sim", Played)
    monkeypatch.setattr(scenarios, "finish", lambda reference, start, replay: reference.run())
    with flat.played_by("stories"):
        assert list(run.trace) == scenarios.run(name, seed=seed, **options)
    assert isinstance(run.trace, Trace)

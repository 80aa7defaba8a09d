"""When things happen: one engine for stepping and running, one order, guards, and forks."""

import itertools
import sys

import pytest
from cell import cell

from popcorn_edu import scenarios
from popcorn_edu.engine import sim as engine_sim
from popcorn_edu.engine.sim import Sim, finish
from popcorn_edu.engine.steps import Begin, Delay, StoryError, Until
from popcorn_edu.engine.trace import (
    Event,
    NeverHappened,
    PopcornError,
    SettingChanged,
    StoryStopped,
)
from popcorn_edu.engine.world import Part, Run, World
from popcorn_edu.model import flat
from popcorn_edu.model.messaging import (
    InterruptTaken,
    IpiArrived,
    IpiSent,
    LookedAgain,
    MessageDelivered,
    SoftirqEntered,
    SoftirqExited,
)
from popcorn_edu.model.rings import (
    InterruptsEnabled,
    MessageRead,
    PayloadCopied,
    RingSeenEmpty,
    SlotReady,
    TicketTaken,
)
from popcorn_edu.readers import checks


class Uttered(Event):
    """Something to say in these tests."""

    what: int


class Replied(Event):
    """And something to answer."""

    what: int


class Numbered(Part):
    """Counts what was uttered."""

    tables = ("count",)

    def uttered(self, event: Uttered) -> None:
        self.count[event.what] = self.count.get(event.what, 0) + 1

    applies = {Uttered: uttered}


def play(*stories, **options) -> Sim:
    """A Sim that has run; each story is an actor a, b, c…"""
    sim = cast(*stories, **options)
    sim.run()
    return sim


def cast(*stories, **options) -> Sim:
    sim = Sim(World(None, numbered=Numbered), **options)
    for name, story in zip("abcdefgh", stories, strict=False):
        sim.begin(name, story)
    return sim


def told(sim: Sim) -> list[tuple]:
    """Time, actor and what was said: all that most tests look at."""
    return [(r.time, r.who, r.event.what) for r in sim.trace]


def uttering(*steps):
    """A story that waits for the numbers that are Delays and utters the others."""

    def story(world):
        for step in steps:
            yield step if isinstance(step, Delay) else Uttered(step)

    return story


# Scenarios in which nothing is drawn: who boots or asks when is the plan's business.
NO_CHANCE = (
    "registration", "boot", "boot_64", "device_scan", "proxied_io", "long_message", "multicast",
    "keepalive", "checkin_race", "services",
)  # fmt: skip


class TestOneEngine:
    @pytest.mark.parametrize("name", scenarios.names())
    @pytest.mark.parametrize("schedule_seed", [None, 3])
    def test_running_is_stepping_exhausted(self, name, schedule_seed, monkeypatch):
        """steps() gives, one by one, the records that run() leaves behind."""
        run = scenarios.run(name, seed=1, schedule_seed=schedule_seed)

        def stepped(sim, start, replay):
            records = list(sim.steps())
            assert records == list(sim.trace)
            return Run(sim.trace, start, replay, sim.waiting())

        monkeypatch.setattr(scenarios, "finish", stepped)
        with flat.played_by("stories"):
            again = scenarios.run(name, seed=1, schedule_seed=schedule_seed)
        assert again.trace.digest() == run.trace.digest()
        assert again.waiting == run.waiting

    def test_a_step_is_seen_before_the_next_one_happens(self):
        """Whoever steps can look at the world between two turns."""
        sim = cast(uttering(1, Delay(5), 2), uttering(Delay(2), 3))
        counts = [(r.event.what, dict(sim.world.numbered.count)) for r in sim.steps()]
        assert counts == [(1, {1: 1}), (3, {1: 1, 3: 1}), (2, {1: 1, 2: 1, 3: 1})]

    @pytest.mark.parametrize("name", scenarios.names())
    def test_the_same_seed_gives_the_same_trace(self, name):
        """And another seed another one, where the seed decides anything."""
        digests = [scenarios.run(name, seed=seed).trace.digest() for seed in (1, 1, 2)]
        assert digests[0] == digests[1]
        assert name in NO_CHANCE or digests[0] != digests[2]

    def test_a_schedule_seed_shuffles_reproducibly(self):
        """What happens at one time happens in an order drawn from it, the same each time."""

        def order(seed):
            many = [uttering(Delay(1), Delay(5), n) for n in range(6)]
            return [what for _, _, what in told(play(*many, schedule_seed=seed))]

        assert order(None) == [0, 1, 2, 3, 4, 5]
        assert order(1) == order(1)
        assert len({tuple(order(seed)) for seed in range(9)}) > 5
        assert all(sorted(order(seed)) == [0, 1, 2, 3, 4, 5] for seed in range(9))

    @pytest.mark.parametrize("name", scenarios.names())
    def test_time_never_goes_back_and_causes_come_before(self, name):
        """The order of records is the order of time and of cause and effect."""
        for schedule_seed in (None, *range(5)):
            trace = scenarios.run(name, schedule_seed=schedule_seed).trace
            assert all(a.time <= b.time for a, b in itertools.pairwise(trace))
            assert all(r.cause is None or 0 <= r.cause < r.seq for r in trace)


class TestWaiting:
    def test_until_answers_with_the_record_that_ended_it(self):
        """The one whose fields have these values."""
        answers = []

        def wait(world):
            answers.append((yield Until(Uttered, what=2)))

        sim = play(uttering(Delay(3), 1, Delay(3), 2, 3), wait)
        assert answers == [sim.trace[1]]
        assert sim.waiting() == ()

    def test_everybody_who_waits_is_woken(self):
        """In the order of their numbers, at the time of the record that woke them."""

        def answer(n):
            def story(world):
                yield Until(Uttered)
                yield Replied(n)

            return story

        sim = play(answer(0), answer(1), uttering(Delay(7), 5), answer(3))
        assert told(sim) == [(7, "c", 5), (7, "a", 0), (7, "b", 1), (7, "d", 3)]
        assert [r.cause for r in sim.trace] == [None, 0, 0, 0]

    def test_who_still_waits_at_the_end_is_known(self):
        """With what it waits for: half a deadlock report."""

        def wait(world):
            yield Until(Uttered, what=9)

        assert play(uttering(1), wait).waiting() == (("b", "Uttered, what=9"),)

    @pytest.mark.parametrize(("within", "answered"), [(4, False), (5, True), (6, True)])
    def test_a_wait_can_be_limited(self, within, answered):
        """None if nothing came in that time; the last nanosecond still counts."""
        answers = []

        def wait(world):
            answers.append((yield Until(Uttered, what=1, within=within)))
            yield Replied(0)

        sim = play(uttering(Delay(5), 1), wait)
        assert (answers != [None]) is answered
        at, _, _ = next(line for line in told(sim) if line[1] == "b")
        assert at == (5 if answered else within)

    def test_a_time_out_comes_once(self):
        """The clock of a wait that ended well disturbs no later one."""
        answers = []

        def wait(world):
            answers.append((yield Until(Uttered, what=1, within=50)))
            answers.append((yield Until(Uttered, what=2)))

        sim = play(uttering(Delay(5), 1, Delay(100), 2), wait)
        assert [record.event.what for record in answers] == [1, 2]
        assert told(sim)[-1][0] == 105

    def test_after_a_time_out_nothing_else_wakes_it(self):
        """It waits no more, so the record it had waited for is nobody's business."""
        turns = []

        def wait(world):
            turns.append((yield Until(Uttered, what=1, within=3)))
            yield Delay(100)
            turns.append("end")

        play(uttering(Delay(5), 1), wait)
        assert turns == [None, "end"]

    def test_a_cpu_serves_one_delay_after_the_other(self):
        """First come, first served; other CPUs go on meanwhile."""
        busy = [Delay(10, cpu=0), Delay(10, cpu=0), Delay(10, cpu=1), Delay(10)]
        sim = play(*(uttering(delay, n) for n, delay in enumerate(busy)))
        assert told(sim) == [(10, "a", 0), (10, "c", 2), (10, "d", 3), (20, "b", 1)]


class TestBegin:
    def test_what_begins_acts_at_once_and_knows_its_cause(self):
        """At the same time, after its beginner's turn, because of the record before."""

        def beginner(world):
            yield Uttered(1)
            yield Begin("handler", uttering(2)(world))
            yield Uttered(3)

        sim = play(beginner)
        assert told(sim) == [(0, "a", 1), (0, "a", 3), (0, "handler", 2)]
        assert [r.cause for r in sim.trace] == [None, None, 0]

    def test_only_the_first_record_has_the_cause(self):
        """What follows in the same story follows from itself."""

        def beginner(world):
            yield Uttered(1)
            yield Begin("handler", uttering(Delay(4), 2, 3, Delay(1), 4)(world))

        assert [r.cause for r in play(beginner).trace] == [None, 0, None, None]

    @pytest.mark.parametrize("story", [None, 5, uttering(1)])
    def test_only_a_story_can_begin(self, story):
        """A function that was not called is none."""

        def beginner(world):
            yield Begin("handler", story)

        with pytest.raises(
            StoryError, match="a: Begin wants a story that was called, .*, at test_"
        ):
            play(beginner)


def naps(world):
    """Somebody else, who is due much later."""
    yield Delay(10**9)
    yield Uttered(0)


class TestRunaways:
    """A story that does not get anywhere is stopped, and named."""

    @pytest.fixture(autouse=True)
    def small_limits(self, monkeypatch):
        monkeypatch.setattr(engine_sim, "LIMIT_STEPS", 1000)
        monkeypatch.setattr(engine_sim, "ALIVE_LIMIT", 50)
        monkeypatch.setattr(engine_sim, "CHUNK_RECORDS", 256)

    LOOPS = {
        "no time passes": "while True: yield Delay(0)",
        "nothing is said": "while True: yield Delay(5)",
        "all at one time": "while True: yield RingSeenEmpty(0, 0)",
        "said and waited for nothing": "while True: yield RingSeenEmpty(0, 0); yield Delay(0)",
        "waits for no time": "while True: yield Until(RingSeenEmpty, within=0)",
        "waits in vain": "while True: yield Until(RingSeenEmpty, within=3)",
        "on a cpu": "while True: yield Delay(2, cpu=0)",
    }

    @pytest.mark.parametrize("careful", [False, True])
    @pytest.mark.parametrize("others", [(), (naps,), (naps, naps)])
    @pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
    def test_an_endless_loop_is_named_by_its_line(self, loop, others, careful):
        """Alone or beside others, under watch or not."""
        story = cell(f"def story(world):\n    {loop}")["story"]
        with pytest.raises(StoryError) as caught:
            play(story, *others, careful=careful)
        assert "a took 1,000 steps up to " in str(caught.value)
        assert str(caught.value).endswith(f"an endless loop, at line 2 of your cell: {loop}")

    @pytest.mark.parametrize("careful", [False, True])
    @pytest.mark.parametrize("others", [(), (naps,)])
    def test_endless_events_meet_the_limit_of_records(self, others, careful):
        """Time passes and things are said, but a run has an end."""
        story = cell("def story(world):\n while True: yield RingSeenEmpty(0, 0); yield Delay(1)")
        with pytest.raises(StoryError, match="more than 3,000 records at .* does not end; a acted"):
            play(story["story"], *others, careful=careful, record_limit=3000)

    def test_two_who_keep_each_other_busy_meet_it_too(self):
        """Though neither does anything wrong by itself."""

        def caller(world):
            while True:
                yield Delay(1)
                yield Uttered(1)
                yield Until(Replied)

        def answerer(world):
            while True:
                yield Until(Uttered)
                yield Delay(1)
                yield Replied(1)

        with pytest.raises(StoryError, match="more than 3,000 records"):
            play(answerer, caller, record_limit=3000)

    def test_two_who_wake_each_other_at_one_time_are_stopped(self):
        """No clock would ever stop them."""

        def caller(world):
            while True:
                yield Uttered(1)
                yield Until(Replied)

        def answerer(world):
            while True:
                yield Until(Uttered)
                yield Replied(1)

        for schedule_seed in (None, 1):
            with pytest.raises(StoryError, match="took 1,000 steps up to 0 ns without letting"):
                play(answerer, caller, schedule_seed=schedule_seed)

    def test_a_chain_of_beginnings_is_stopped(self):
        """Each story begins the next and ends."""

        def storm(world):
            yield Begin("storm", storm(world))

        with pytest.raises(StoryError, match="storm took 1,000 steps up to 0 ns"):
            play(storm)

    def test_a_crowd_of_beginnings_is_stopped(self):
        """Before it eats the memory."""

        def crowd(world):
            while True:
                yield Begin("one more", naps(world))

        with pytest.raises(StoryError, match="50 stories are at work at 0 ns, and one more begins"):
            play(crowd)

    LINES = {
        "on one line": "while True: pass",
        "on two lines": "while True:\n        x = 1",
        "with a try in it": "while True:\n        try: x = 1\n        except Exception: pass",
        "in a helper": "spin()",
        "in a library": "import statistics\n    while True: statistics.mean([1, 2])",
    }

    @pytest.mark.parametrize("loop", LINES.values(), ids=LINES)
    def test_a_loop_without_a_yield_is_stopped_by_its_lines(self, loop, monkeypatch):
        """Lines, not seconds: it is stopped at the same place on every machine."""
        monkeypatch.setattr(engine_sim, "LINES_LIMIT", 5000)
        names = cell(
            "def spin():\n    while True: pass\n\n"
            f"def story(world):\n    yield RingSeenEmpty(0, 0)\n    {loop}"
        )
        with pytest.raises(StoryError, match="a ran 5,000 lines without a yield.* of your cell: "):
            play(names["story"], careful=True)

    def test_the_lines_are_counted_between_two_yields(self, monkeypatch):
        """A long story is no endless loop."""
        monkeypatch.setattr(engine_sim, "LINES_LIMIT", 500)
        source = """
            def story(world):
                for n in range(100):
                    for m in range(100):
                        pass
                    yield Delay(1)
            """
        play(cell(source)["story"], careful=True)

    def test_long_is_not_endless(self):
        """Who says something as time passes may go on, alone and in turns."""

        def long(world):
            for n in range(5000):
                yield Uttered(n)
                yield Delay(1)

        def quiet(world):
            for _ in range(800):
                yield Delay(1)

        assert len(play(long).trace) == 5000
        assert len(play(long, long, naps).trace) == 10_001
        assert len(play(quiet).trace) == 0

    def test_a_long_exchange_is_not_endless(self):
        """Nor is a conversation in which only one is awake at a time."""

        def caller(world):
            for n in range(3000):
                yield Delay(1)
                yield Uttered(n)
                yield Until(Replied, what=n)

        def answerer(world):
            for n in range(3000):
                yield Until(Uttered, what=n)
                yield Replied(n)

        sim = play(answerer, caller)
        assert told(sim)[-1] == (3000, "a", 2999)
        assert len(sim.trace) == 6000

    def test_packing_half_way_through_a_turn_changes_nothing(self, monkeypatch):
        """A long turn is packed in pieces, and reads as one."""
        story = uttering(1, 2, Delay(1), *([3, Delay(2)] * 1500), 4, 5)
        small = play(story).trace
        monkeypatch.setattr(engine_sim, "CHUNK_RECORDS", 10**6)
        monkeypatch.setattr(engine_sim, "LIMIT_STEPS", 10**6)
        assert small.digest() == play(story).trace.digest()


class TestLearners:
    def run_of(self, source, **options):
        return scenarios.fan_in(kernels=3, messages=2, receive=cell(source)["receive"], **options)

    @pytest.mark.parametrize(
        ("line", "sentence"),
        [
            ("yield 5", "kernel 0 softirq yielded 5; .* write Delay.5."),
            ("yield send(world, me, 1)", "kernel 0 softirq yielded the story send.. as a whole"),
            ("yield RingSeenEmpty", "kernel 0 softirq yielded RingSeenEmpty; "),
            ("1 / 0", "kernel 0 softirq: ZeroDivisionError: division by zero"),
            ("world.rings.tail[me] += 1", "a story never assigns to the world's tables; it yields"),
            ("world.messaging.sent[me] = 1", "a story never assigns .* it yields an event"),
            ("world.messaging.sent[1]", "kernel 0 may not read world.messaging.sent.1.: it is an"),
            ("yield MessageRead(me, 5, 5, 1, 0, 0, 0, 0)", "record 9, .*: slot 5 of ring 0 is emp"),
            ("yield SoftirqEntered(me)", "SoftirqEntered is not possible while the softirq is RUN"),
            (
                "yield PayloadCopied(0, 0, 0, 1, 0, 9, 0, 0)",
                "PayloadCopied.type must be one of TES",
            ),
            ("yield Until(SlotReady, rign=0)", "SlotReady has no field 'rign'; did you mean ring"),
            ("yield Until(SlotReady, ring=[0])", "TypeError: unhashable type: 'list'"),
            ("yield Begin('x', 5)", "Begin wants a story that was called, .* not 5"),
            ("while True: pass", "ran 1,000,000 lines without a yield: an endless loop"),
        ],
    )
    def test_a_mistake_is_one_sentence_with_the_line(self, line, sentence):
        """From inside a whole run, as from walk()."""
        with pytest.raises(StoryError, match=sentence) as caught:
            self.run_of(f"def receive(world, me):\n    yield Delay(1)\n    {line}")
        assert str(caught.value).endswith(f", at line 3 of your cell: {line}")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("source", "sentence"),
        [
            ("def receive(world, me): pass", "receive() returned None instead of telling a story"),
            ("def receive(world, me): return poll(world, me, 1), 2", "receive() returned (<gen"),
            ("def receive(world): yield Delay(1)", "takes 1 positional argument but 2 were given"),
            ("receive = lambda world, me: 5", "<lambda>() returned 5 instead of telling a story"),
        ],
    )
    def test_what_is_no_story_is_named_by_its_first_line(self, source, sentence):
        """A missing yield, or other arguments."""
        with pytest.raises(StoryError) as caught:
            self.run_of(source)
        assert str(caught.value).startswith("kernel 0: ")
        assert sentence in str(caught.value)
        assert str(caught.value).endswith(f", at line 1 of your cell: {source}")

    def test_a_story_of_ones_own_is_as_good_as_ours(self):
        """The kit's own receive, typed into a cell, gives the same trace, under watch."""
        source = """
            def receive(world, me):
                while True:
                    read = yield from poll(world, me, world.setup.budget)
                    if read == world.setup.budget:
                        yield BudgetSpent(me, read)
                        continue
                    yield world.setup.costs.poll_exit[me]
                    yield world.setup.costs.look(me)
                    yield InterruptsEnabled(me)
                    if not (yield from look_again(world, me)):
                        break
                    yield InterruptsDisabled(me)
                yield from deliver(world, me)
            """
        ours = scenarios.fan_in(kernels=3, messages=2)
        assert self.run_of(source).trace.digest() == ours.trace.digest()

    def test_a_learners_run_is_shorter_than_ours_may_be(self, monkeypatch):
        """A loop that says something is stopped too."""
        monkeypatch.setattr(scenarios, "RECORD_LIMIT_FOR_LEARNERS", 2000)
        source = (
            "def receive(world, me):\n    while True: yield RingSeenEmpty(me, 0); yield Delay(9)"
        )
        with pytest.raises(StoryError, match="more than 2,000 records .*; kernel 0 softirq acted"):
            self.run_of(source)

    def test_a_debugger_at_work_is_left_alone(self):
        """Then no lines are counted: two trace functions cannot share one thread."""
        seen = []
        sys.settrace(lambda *_: seen.append(1))
        try:
            self.run_of("def receive(world, me): yield from poll(world, me, 99)")
            assert sys.gettrace() is not None
        finally:
            sys.settrace(None)


SMALL = {
    "ping": {},
    "fan_in": {"kernels": 3, "messages": 3, "slots": 2, "gap_ns": 300, "high_every": 2},
    "lost_wakeup": {},
    "two_full_rings": {"messages": 3, "slots": 1},
    "registration": {"kernels": 3},
}
EDITS = [
    {"drop": True},
    {"delay": 1},
    {"delay": 5000},
    {"look_again": False},
    {"look_again": True},
    {"budget": 1},
    {"full_rule": "whole ring"},
    {"say": IpiArrived(0, 1)},
    {"say": InterruptTaken(0)},
    {"say": SlotReady(0, 0, 0, 1)},
    {"say": MessageRead(0, 0, 0, 1, 0, 0, 0, 0)},
    {"say": TicketTaken(0, 99, 55, 0)},
    {"say": Uttered(1)},
]


@pytest.fixture(scope="module")
def small():
    return {name: scenarios.run(name, **options) for name, options in SMALL.items()}


class TestForks:
    @pytest.mark.parametrize("name", SMALL)
    def test_every_edit_of_every_record(self, small, name):
        """A fork shares its past exactly, never raises, folds at every record, and time goes on."""
        run = small[name]
        records = list(run.trace)
        for n, edit in itertools.product(range(len(run)), EDITS):
            fork = run.fork(n, **edit)
            told = list(fork.trace)
            assert told[:n] == records[:n], (n, edit)
            assert all(a.time <= b.time for a, b in itertools.pairwise(told)), (n, edit)
            assert fork.world.parts.keys() == run.world.parts.keys()

    @pytest.mark.parametrize("schedule_seed", range(3))
    def test_the_past_is_shared_under_any_schedule(self, schedule_seed):
        """The shuffled order of the past is replayed too."""
        run = scenarios.fan_in(kernels=4, messages=3, gap_ns=50, schedule_seed=schedule_seed)
        for n in range(0, len(run), 3):
            for edit in EDITS[:4]:
                assert list(run.fork(n, **edit).trace)[:n] == list(run.trace)[:n]

    def test_a_dropped_record_is_in_the_trace_as_what_did_not_happen(self, small):
        """And the future knows nothing of it: an IPI that is lost interrupts nobody."""
        run = small["ping"]
        ipi = run.trace.next(IpiSent)
        fork = run.fork(ipi.seq, drop=True)
        assert fork.trace[ipi.seq].event == NeverHappened("IpiSent", str(ipi.event))
        assert fork.trace[ipi.seq].who == ipi.who
        assert len(fork) == ipi.seq + 1
        assert "in this fork it never happens that kernel 1 sends" in str(fork.trace[ipi.seq])

    def test_a_delay_holds_one_actor_up(self, small):
        """Its record comes that much later, and the others go on meanwhile."""
        run = small["fan_in"]
        copied = run.trace.next(PayloadCopied)
        fork = run.fork(copied.seq, delay=5000)
        late = fork.trace.next(PayloadCopied, sender=copied.event.sender)
        assert late.time == copied.time + 5000
        assert late.event == copied.event
        assert late.seq > copied.seq

    def test_who_is_held_up_says_it_once(self, small):
        """Late is not twice: every message is still told exactly once."""
        run = small["fan_in"]
        for record in run.trace.records(PayloadCopied, MessageRead, TicketTaken):
            fork = run.fork(record.seq, delay=700)
            for kind in (TicketTaken, PayloadCopied, SlotReady, MessageRead, MessageDelivered):
                count = len(list(run.trace.records(kind)))
                assert len(list(fork.trace.records(kind))) == count, (record, kind)

    def test_holding_up_does_not_split_what_is_atomic(self, small):
        """The actor is held before it looks, so a fetch-and-add stays one step."""
        run = small["fan_in"]
        for record in run.trace:
            fork = run.fork(record.seq, delay=3000)
            assert checks.tickets_are_unique(fork) is None, record
            assert checks.no_slot_is_used_twice(fork) is None, record

    def test_what_is_said_comes_just_before(self, small):
        """By an actor named fork; the record that was there follows."""
        run = small["fan_in"]
        for n in (3, 9, 20):
            fork = run.fork(n, say=Uttered(7))
            assert (fork.trace[n].who, fork.trace[n].event) == ("fork", Uttered(7))
            assert fork.trace[n + 1][1:] == run.trace[n][1:]
            assert [r.event for r in fork.trace][n + 1 :] == [r.event for r in run.trace][n:]

    def test_what_is_said_wakes_who_waits_for_it(self, small):
        """At that time, with that cause."""
        run = small["fan_in"]
        first = run.trace.next(TicketTaken)
        fork = run.fork(first.seq + 1, say=IpiArrived(1, 2))
        assert fork.trace.next(InterruptTaken, kernel=1).cause == first.seq + 1, "a spurious one"
        assert min(fork.world.messaging.on_the_wire.values()) == 0
        sent = run.trace.next(IpiSent)
        fork = run.fork(sent.seq + 1, say=IpiArrived(sent.event.dst, sent.event.src))
        taken = fork.trace.next(InterruptTaken)
        assert taken.cause == sent.seq + 1

    def test_what_the_world_cannot_take_is_told_instead(self, small):
        """The fork goes on without it."""
        run = small["ping"]
        fork = run.fork(5, say=MessageRead(0, 9, 9, 1, 0, 0, 0, 0))
        told = fork.trace[5].event
        assert type(told) is StoryStopped
        assert (
            "MessageRead(ring=0, " in told.problem and "slot 9 of ring 0 is empty" in told.problem
        )
        assert [r.event for r in fork.trace][6:] == [r.event for r in run.trace][5:]

    def test_a_setting_holds_from_that_record_on(self, small):
        """In the trace it is an event; in the world after it, a fact."""
        run = small["lost_wakeup"]
        n = run.trace.next(InterruptsEnabled).seq
        fork = run.fork(n, look_again=True)
        assert fork.trace[n].event == SettingChanged("look_again", "True")
        assert not fork.at(n).setup.look_again
        assert fork.at(n + 1).setup.look_again

    def test_a_setting_takes_effect_at_once(self, small):
        """Just before int_enabled = 1 is early enough to look again after it."""
        run = small["lost_wakeup"]
        assert checks.no_lost_wakeup(run)
        last = [r.seq for r in run.trace.records(InterruptsEnabled)][-1]
        fork = run.fork(last, look_again=True)
        assert fork.trace.next(LookedAgain).event.found == 1
        assert checks.all(fork) == []

    def test_a_story_that_meets_the_unthinkable_ends_alone(self, small):
        """The trace says so, each time at the same place, without what could not be done."""
        run = small["ping"]
        entered = run.trace.next(SoftirqEntered)
        fork = run.fork(entered.seq, drop=True)
        (stopped,) = fork.trace.records(StoryStopped)
        assert stopped.event.who == stopped.who == "kernel 0 softirq"
        assert "SoftirqExited is not possible while the softirq is RAISED" in stopped.event.problem
        assert not list(fork.trace.records(SoftirqExited, kernel=0))
        assert list(fork.trace.records(SoftirqExited, kernel=1)), "the others go on"
        assert fork.trace.digest() == run.fork(entered.seq, drop=True).trace.digest()
        assert fork.world == fork.at(len(fork))

    def test_a_fork_of_a_fork_keeps_the_first_edit(self, small):
        """Its past is the fork's past, edit and all."""
        run = small["fan_in"]
        for first, second in itertools.product(EDITS[:6], repeat=2):
            fork = run.fork(10, **first)
            for n in (10, 11, len(fork) - 1):
                again = fork.fork(n, **second)
                assert list(again.trace)[:n] == list(fork.trace)[:n], (first, second, n)
        third = run.fork(5, delay=300).fork(9, drop=True).fork(15, look_again=False)
        assert len(third.edits) == 3
        assert type(third.trace[9].event) is NeverHappened

    def test_a_fork_before_the_first_edit_forgets_it(self, small):
        """That edit is not in its past."""
        run = small["fan_in"]
        again = run.fork(20, drop=True).fork(10, drop=True)
        assert again.trace.digest() == run.fork(10, drop=True).trace.digest()

    @pytest.mark.parametrize(
        ("edit", "sentence"),
        [
            (
                {},
                "one edit: drop=True, delay=NS, say=EVENT, instead=EVENT, or one setting (this",
            ),
            ({"drop": True, "delay": 5}, "(this one makes 2)"),
            ({"budget": 5, "look_again": True}, "(this one makes 2)"),
            ({"delay": 0}, "(this one makes 0)"),
            ({"delay": -1}, "delay=-1: expected whole nanoseconds, 0 or more"),
            ({"delay": 1.5}, "delay=1.5: expected whole nanoseconds, 0 or more"),
            ({"delay": "5"}, "delay='5': expected whole nanoseconds, 0 or more"),
            ({"delay": 10**30}, "a time is a whole number below 2**63"),
            ({"lookagain": True}, "there is no setting 'lookagain'; did you mean look_again?"),
            ({"kernels": 3}, "there is no setting 'kernels'; "),
            ({"budget": 0}, "budget=0: expected a whole number, 1 or more"),
            ({"look_again": 1}, "look_again=1: expected True or False"),
            ({"full_rule": "none"}, "full_rule='none': "),
            ({"slots": 9}, "slots is laid out at the start; it cannot change in a fork"),
            ({"machine": "x"}, "machine is laid out at the start; it cannot change in a fork"),
            ({"cpus": (0, 1)}, "cpus is laid out at the start; it cannot change in a fork"),
            ({"say": 5}, "say=5: expected an event, such as IpiArrived(...)"),
            ({"say": IpiSent}, "expected an event, such as IpiArrived(...)"),
            ({"say": IpiSent("0", 1, 2)}, "IpiSent.src must be a whole number, not '0'"),
            (
                {"say": PayloadCopied(0, 0, 0, 1, 0, 9, 0, 0)},
                "PayloadCopied.type must be one of TEST",
            ),
        ],
    )
    def test_an_edit_that_is_none_is_refused_in_words(self, small, edit, sentence):
        """Before anything is replayed, if it can be seen by then."""
        with pytest.raises(PopcornError) as caught:
            small["fan_in"].fork(4, **edit)
        assert sentence in str(caught.value)

    @pytest.mark.parametrize("n", [-1, 10**6, "3", 1.0, None])
    def test_there_is_no_fork_at_a_bad_n(self, small, n):
        """The sentence says which numbers are possible."""
        last = len(small["ping"]) - 1
        with pytest.raises(PopcornError, match=rf"fork\({n!r}\): .* number from 0 to {last}$"):
            small["ping"].fork(n, drop=True)


def test_finish_hands_over_a_run():
    """For a cast of one's own, without a scenario."""
    sim = cast(uttering(1, Delay(3), 2))
    run = finish(sim, lambda: World(None, numbered=Numbered))
    assert run.at(1).numbered.count == {1: 1}
    assert len(run) == 2


def test_a_maker_that_raises_is_named():
    """Not every mistake waits for the first step."""
    sim = Sim(World())
    with pytest.raises(
        StoryError, match="kernel 5: ZeroDivisionError: division by zero, at test_s"
    ):
        sim.begin("kernel 5", lambda world: 1 / 0)
    with pytest.raises(StoryError, match=r"kernel 5: <lambda>\(\) returned 7 instead of telling"):
        sim.begin("kernel 5", lambda world: 7)


def test_ring_seen_empty_is_only_said(small):
    """An event that changes no table is still a record."""
    run = small["fan_in"]
    empty = run.trace.next(RingSeenEmpty)
    assert run.at(empty.seq) == run.at(empty.seq + 1)

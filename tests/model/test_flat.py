"""The flat engine plays what the readable one plays: record for record, byte for byte.

The stories of messaging.py are the reference. Both engines play the same random configurations:
tiny rings and budgets, both rules of fullness, HIGH and NORMAL, callbacks that answer, machines on
which nearly everything ties, shuffled schedules; many of them strand messages or deadlock.
"""

import collections
import functools
import heapq
import inspect
import itertools
import random
import re
import sys

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine import sim
from popcorn_edu.engine.steps import StoryError
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import flat, messaging
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.messaging import POLL_BUDGET_MESSAGES, Setup
from popcorn_edu.model.rings import RING_SLOTS, MessageType, Priority
from popcorn_edu.readers import figures

QUICK, SLOW = 320, 1_000
BATCH = 20

MACHINES = ("magny-cours-48", "opteron-6272-64", "westmere-24", "superdome-128", "ryzen-ai-24")
TIED_COSTS = (
    "line_transfer_same_die_cycles", "line_transfer_same_package_cycles",
    "line_transfer_1_hop_cycles", "line_transfer_2_hops_cycles", "message_copy_cycles",
    "callback_dispatch_cycles", "icr_write_cycles", "ipi_delivery_cycles", "isr_top_half_cycles",
    "softirq_entry_cycles",
)  # fmt: skip


@functools.cache
def loaded(name: str) -> Machine:
    return Machine.load(name)


@functools.cache
def tied(step_ns: int) -> Machine:
    """A machine on which every delay is a multiple of a few ns, or of 60."""
    machine = Machine.synthetic(packages=2, cores_per_node=12).with_clock(1_000)
    return machine.with_costs(**dict.fromkeys(TIED_COSTS, step_ns))


def configuration(seed: int, largest: int = 1) -> tuple[str, dict]:
    """A scenario and its options, drawn from the seed."""
    draw = random.Random(f"flat {seed}")
    name = draw.choice(["fan_in"] * 5 + ["two_full_rings", "ping", "lost_wakeup"])
    options = {
        "machine": draw.choice(
            [tied(draw.choice((1, 2, 60, 60)))] * 2 + [loaded(draw.choice(MACHINES))]
        ),
        "seed": draw.randrange(10_000),
        "schedule_seed": draw.choice((None, draw.randrange(100))),
        "look_again": draw.random() < 0.5,
    }
    if name == "ping":
        return name, options | {"rounds": draw.randrange(6 * largest)}
    options["messages"] = draw.choice((1, 2, 5, 10, 20)) * draw.randint(1, largest)
    options["slots"] = draw.choice((1, 2, 3, 4, 7, RING_SLOTS))
    if name == "two_full_rings":
        return name, options
    return name, options | {
        "kernels": draw.randint(2, 4 + 4 * largest),
        "gap_ns": draw.choice((0, 0, 0, 0, 1, 300, 2_000, 20_000)),
        "high_every": draw.choice((0, 0, 1, 2, 3)),
        "budget": draw.choice((1, 2, 3, 8, POLL_BUDGET_MESSAGES)),
        "full_rule": draw.choice(("own slot", "own slot", "whole ring")),
    }


def readable(name: str, **options):
    with flat.played_by("stories"):
        return scenarios.run(name, **options)


def difference(told, expected) -> str:
    """Where two runs part, in words; empty if they are the same."""
    for one, other in itertools.zip_longest(told.trace, expected.trace):
        if one != other:
            return f"flat:     {one}\nreadable: {other}"
    if told.trace.digest() != expected.trace.digest():
        return f"headers: {told.trace._portable()[0]} {expected.trace._portable()[0]}"
    if told.trace.meta != expected.trace.meta:
        return f"meta: {told.trace.meta} {expected.trace.meta}"
    if told.waiting != expected.waiting:
        return f"waiting: {told.waiting} {expected.waiting}"
    return ""


def first_difference(seeds, largest: int = 1) -> str:
    """Of all these configurations; empty if the engines agree on them."""
    for seed in seeds:
        name, options = configuration(seed, largest)
        problem = difference(scenarios.run(name, **options), readable(name, **options))
        if problem:
            return f"configuration({seed}, {largest}): {name} {options}\n{problem}"
    return ""


@pytest.fixture
def plays(monkeypatch) -> list[bool]:
    """For each run: did the flat engine play it?"""
    played, play = [], flat.play

    def noting(*arguments):
        told = play(*arguments)
        played.append(told is not None)
        return told

    monkeypatch.setattr(flat, "play", noting)
    return played


class TestSameTrace:
    @pytest.mark.parametrize("first", range(0, QUICK, BATCH))
    def test_random_configurations(self, first, plays):
        """Records, actors, meta, and who waits at the end; and it was the flat engine."""
        assert first_difference(range(first, first + BATCH)) == ""
        assert plays == [True, False] * BATCH

    @pytest.mark.slow
    @pytest.mark.parametrize("first", range(QUICK, QUICK + SLOW, 5 * BATCH))
    def test_a_thousand_larger_ones(self, first):
        """Up to 24 kernels and 100 messages from each."""
        assert first_difference(range(first, first + 5 * BATCH), largest=5) == ""

    def test_the_random_configurations_do_what_is_difficult(self):
        """They tie, block, wait at the head of the line, strand, deadlock, say every kind."""
        kinds, ties, records, waits = collections.Counter(), 0, 0, collections.Counter()
        for seed in range(QUICK):
            name, options = configuration(seed)
            run = scenarios.run(name, **options)
            kinds.update(run.trace.kinds())
            for _, group in itertools.groupby(run.trace, lambda record: record.time):
                group = list(group)
                records += len(group)
                ties += len(group) if len({record.who for record in group}) > 1 else 0
            left = [ring for ring, head in run.world.rings.head.items() if head]
            waits["stranded"] += any(
                run.world.rings.head[ring] > run.world.rings.tail[ring] for ring in left
            )
            waits.update({text.split("=")[0] for _, text in run.waiting})
        assert set(kinds) == {kind.__name__ for kind in flat.KINDS}
        assert min(kinds[k] for k in ("HeadOfLineWait", "BudgetSpent", "SenderBlocked")) > 100
        assert ties > records / 6
        assert waits["stranded"] > 20 and waits["MessageRead, ring"] > 10

    def test_a_saved_run_is_the_same_file(self, tmp_path):
        """Byte for byte."""
        options = {"kernels": 6, "messages": 5, "high_every": 2, "schedule_seed": 3}
        paths = (
            scenarios.fan_in(**options).save(tmp_path / "flat"),
            readable("fan_in", **options).save(tmp_path / "readable"),
        )
        assert paths[0].read_bytes() == paths[1].read_bytes()

    @pytest.mark.parametrize("chunk", [1, 2, 3, 50])
    def test_where_it_pauses_to_pack_makes_no_difference(self, chunk, monkeypatch):
        """It can stop after any turn and go on."""
        name, options = "two_full_rings", {"messages": 9, "schedule_seed": 5}
        expected = readable(name, **options)
        monkeypatch.setattr(flat.Lists, "chunk", chunk)
        assert difference(scenarios.run(name, **options), expected) == ""

    def test_a_long_run(self):
        """Of many chunks."""
        options = {"kernels": 20, "messages": 100, "gap_ns": 9_000, "high_every": 5}
        run = scenarios.fan_in(**options)
        assert len(run) > 5 * flat.Lists.chunk
        assert difference(run, readable("fan_in", **options)) == ""

    def test_time_beyond_32_bits(self):
        """A thinking time of hours; shuffled, since the place in line takes both halves."""
        options = {"gap_ns": 10**13, "messages": 4, "schedule_seed": 1}
        assert difference(scenarios.fan_in(**options), readable("fan_in", **options)) == ""


# One slip in each place that decides something: (what it says, what it might have said).
PLANTED = [
    ("row[6] == HIGH", "row[6] != HIGH"),
    ("- tail[to] < slots", "- tail[to] <= slots"),
    ("ticket + 1 if whole_ring else ticket", "ticket"),
    ("whole_ring and head[to] - tail[to] >= slots", "whole_ring and head[to] - tail[to] > slots"),
    ("waiter[first[to] + ticket - slots] = me", "waiter[first[to] + ticket - slots] = 0"),
    ("if awaited[to] == ticket:", "if awaited[to] >= 0:"),
    ("causes[woken] = base + r - 1", "causes[woken] = base + r"),
    ("if enabled[to]:", "if enabled[to] or slots == 1:"),
    ("comes = now + wire_ns", "comes = now + wire_ns + 1"),
    ("mode[kernel] == 0", "mode[kernel] != RUNS"),
    ("mode[kernel] |= IS_RAISED", "pass"),
    ("= ISR_WAITS  #", "= OVER  #"),
    ("enabled[kernel] = polled[kernel] = 0", "polled[kernel] = 0"),
    ("polled[kernel] == budget", "polled[kernel] > budget"),
    ("polled[kernel] = 0\n                r += 1", "r += 1"),
    ("next_high[kernel] = message + 1", "next_high[kernel] = message"),
    ("while message < end and not ready[message]", "while False"),
    ("next_high[kernel] = next_normal[kernel] = end", "next_normal[kernel] = end"),
    ("if mode[kernel]:", "if False:"),
    ("due if due > now else now", "now"),
    ("free[kernel] = due", "free[kernel] = due - 1"),
    ("causes[me] = -1", "causes[me] = causes[me]"),
    ("reply, NORMAL, row[7]", "reply, HIGH, row[7]"),
    ("place_in_line(shuffle, due, me)", "place_in_line(shuffle, now if r else 0, me)"),
    ("place_in_line(shuffle, now, woken)", "woken"),
    ("place_in_line(shuffle, comes, ipi)", "ipi"),
]  # fmt: skip


class TestTheComparisonSees:
    @pytest.mark.parametrize("slip", range(len(PLANTED)))
    def test_every_planted_slip(self, slip, monkeypatch):
        """And it says where the two runs part, or that the flat one broke."""
        right, wrong = PLANTED[slip]
        source = inspect.getsource(flat.advance)
        assert right in source
        planted = dict(vars(flat))
        exec(source.replace(right, wrong, 1), planted)
        monkeypatch.setattr(flat.Lists, "advance", staticmethod(planted["advance"]))
        try:
            problem = first_difference(range(QUICK))
        except (LookupError, TypeError) as error:
            problem = repr(error)
        assert re.search(r"flat: .*\nreadable: |waiting: |Error", problem)

    def test_what_is_compared_is_not_one_engine_twice(self, monkeypatch):
        """The flat engine is not asked when the stories play."""
        monkeypatch.setattr(flat.Lists, "advance", None)
        assert len(readable("ping")) == 29
        with pytest.raises(TypeError):
            scenarios.ping()


class TestWhoPlays:
    @pytest.mark.parametrize("name", ["fan_in", "lost_wakeup", "ping", "two_full_rings"])
    def test_the_kits_own_stories_are_played_flat(self, name, plays):
        """Without being asked to."""
        scenarios.run(name)
        assert plays == [True]

    def test_a_kernel_that_joins_is_not(self, plays):
        """Registration is told by other stories."""
        scenarios.registration()
        assert plays == []

    def test_a_learners_story_is_not(self, plays):
        """It is watched, step by step, by the readable engine."""

        def send(world, me, *rest):
            yield from messaging.send(world, me, *rest)

        run = scenarios.fan_in(send=send)
        assert plays == []
        assert run.trace.digest() == scenarios.fan_in().trace.digest()

    @pytest.mark.parametrize("schedule_seed", [None, 4])
    def test_a_fork_has_the_flat_runs_past(self, schedule_seed, plays):
        """It is replayed by the readable engine, up to the edit and on from there."""
        run = scenarios.fan_in(kernels=4, messages=4, schedule_seed=schedule_seed)
        fork = run.fork(40, delay=500)
        assert plays == [True]
        assert fork.trace[:40] == run.trace[:40]
        with flat.played_by("stories"):
            again = scenarios.fan_in(kernels=4, messages=4, schedule_seed=schedule_seed)
        assert fork.trace.digest() == again.fork(40, delay=500).trace.digest()

    @pytest.mark.parametrize("cost", TIED_COSTS[-5:])
    def test_a_step_that_takes_no_time_is_not(self, cost, plays):
        """The readable engine knows how to stop a run in which time stands still."""
        machine = tied(60).with_costs(**{cost: 0})
        told = scenarios.fan_in(machine=machine)
        assert plays == [False]
        assert difference(told, readable("fan_in", machine=machine)) == ""

    def test_more_interrupts_on_the_wire_than_stories_may_be_at_work(self, plays):
        """The readable engine's error."""
        options = {
            "machine": loaded("magny-cours-48").with_costs(ipi_delivery_cycles=10**10),
            "kernels": 2, "messages": 11_000, "gap_ns": 1, "slots": 11_000,
        }  # fmt: skip
        with pytest.raises(StoryError, match="10,000 stories are at work"):
            scenarios.fan_in(**options)
        assert plays == [False]

    def test_a_run_without_end_is_the_readable_engines_error(self, plays, monkeypatch):
        """It names the story and its line, which the flat engine does not know."""
        monkeypatch.setattr(scenarios, "RECORD_LIMIT", 5_000)
        with pytest.raises(StoryError, match=r"more than 5,000 records .* acted last, at \w+\.py"):
            scenarios.fan_in(kernels=20, messages=100)
        assert plays == [False]

    def test_a_time_that_does_not_fit_is_the_readable_engines_error(self, plays):
        """In one sentence."""
        with pytest.raises(PopcornError, match="a time is a whole number below"):
            scenarios.fan_in(gap_ns=2**66)
        assert plays == [False]

    @pytest.mark.parametrize(
        ("senders", "replies"),
        [
            ({1: (0, [5], [Priority.NORMAL], MessageType.PING)}, {MessageType.TEST: None}),
            ({1: (1, [5], [Priority.NORMAL], MessageType.TEST)}, {MessageType.TEST: None}),
            (
                {1: (0, [5], [Priority.NORMAL], MessageType.PING)},
                {MessageType.PING: MessageType.PING},
            ),
        ],
    )
    def test_what_it_does_not_know_it_leaves_alone(self, senders, replies):
        """A type without a callback, a message to oneself, an answer to an answer."""
        setup = scenarios.make_setup("magny-cours-48", 2, handlers=dict.fromkeys(replies))
        senders = {me: flat.Sender(*sender) for me, sender in senders.items()}
        assert flat.play(setup, senders, replies, {}, None, 1_000) is None

    def test_two_kernels_on_one_cpu_are_left_alone(self):
        """Its tables have one CPU for each kernel."""
        setup = Setup(machine=loaded("magny-cours-48"), cpus=(3, 3))
        assert flat.play(setup, {}, {}, {}, None, 1_000) is None

    def test_another_engine_plays_until_the_block_ends(self):
        """However it is left, and whatever it is nested in."""
        usual = flat._kit
        with pytest.raises(ZeroDivisionError), flat.played_by("stories"):
            with flat.played_by("lists"):
                assert isinstance(flat._kit, flat.Lists)
            assert flat._kit is None
            1 / 0  # noqa: B018
        assert flat._kit is usual

    def test_an_engine_that_there_is_not(self):
        """With the near names."""
        with pytest.raises(PopcornError, match="no engine 'number'; did you mean numba"):
            with flat.played_by("number"):
                pass


class TestCompiled:
    """The same function as machine code. numba is an extra: pip install 'popcorn_edu[fast]'."""

    @pytest.mark.slow
    @pytest.mark.parametrize("first", range(0, QUICK + SLOW, 10 * BATCH))
    def test_it_plays_the_same(self, first, plays):
        """On the configurations above."""
        with flat.played_by("numba"):
            assert first_difference(range(first, first + 10 * BATCH), largest=2) == ""
        assert plays == [True, False] * 10 * BATCH

    @pytest.mark.slow
    def test_it_pauses_as_well(self):
        """A run of many chunks, shuffled, in hours of simulated time."""
        options = {
            "kernels": 20, "messages": 400, "gap_ns": 10**12, "high_every": 3, "schedule_seed": 2,
        }  # fmt: skip
        with flat.played_by("numba"):
            run = scenarios.fan_in(**options)
        assert len(run) > 2 * flat.Arrays.chunk
        assert difference(run, readable("fan_in", **options)) == ""

    def test_without_numba_there_is_a_sentence(self, monkeypatch):
        """What is missing, and how to get it."""
        monkeypatch.setitem(sys.modules, "numba", None)
        monkeypatch.setitem(flat.ENGINES, "numba", flat.Arrays)
        with pytest.raises(PopcornError, match=r"^numba is not installed: pip install"):
            with flat.played_by("numba"):
                pass

    @pytest.mark.parametrize("seed", range(20))
    def test_its_queue_gives_what_heapq_gives(self, seed):
        """Entry for entry; these few functions are all that is not shared."""
        draw = random.Random(seed)
        ours, theirs = Table([0, 0, 0] for _ in range(60)), []
        for actor in range(200):
            entry = draw.randrange(20), actor * 7 % 200, actor
            if len(theirs) < 50 and draw.random() < 0.5:
                flat._push(ours, entry)
                heapq.heappush(theirs, entry)
            elif draw.random() < 0.5:
                assert flat._pushpop(ours, entry) == heapq.heappushpop(theirs, entry)
            elif theirs:
                assert flat._pop(ours) == heapq.heappop(theirs)
            assert flat.Arrays.acting(ours) == len(theirs)


def first_difference_in_numbers(seeds, largest: int) -> str:
    """Of what is measured with no trace, and what is measured of the readable run's."""
    for seed in seeds:
        name, options = configuration(seed, largest)
        with flat.played_by("numba"):
            told = scenarios.measure(name, **options)
        expected = figures.summary(readable(name, **options))
        if list(told.items()) != list(expected.items()):
            return f"configuration({seed}, {largest}): {name} {options}\n{told}\n{expected}"
    return ""


@pytest.fixture
def measures(monkeypatch) -> list[dict | None]:
    """What was measured with no trace; None where that could not be."""
    found, measure = [], flat.measure

    def noting(*arguments):
        found.append(measure(*arguments))
        return found[-1]

    monkeypatch.setattr(flat, "measure", noting)
    return found


class TestMeasured:
    """Numbers of a run of which no trace is kept."""

    def test_random_configurations(self, measures):
        """They are those of the readable run, in the same order; and no trace was kept."""
        assert first_difference_in_numbers(range(3 * BATCH), 1) == ""
        assert len(measures) == 3 * BATCH and None not in measures

    @pytest.mark.slow
    @pytest.mark.parametrize("first", range(QUICK, QUICK + SLOW, 10 * BATCH))
    def test_a_thousand_larger_ones(self, first, measures):
        """As above."""
        assert first_difference_in_numbers(range(first, first + 10 * BATCH), 3) == ""
        assert len(measures) == 10 * BATCH and None not in measures

    def test_of_several_chunks(self, monkeypatch):
        """What a chunk began, another may end."""
        options = {"kernels": 6, "messages": 40, "high_every": 3, "slots": 4}
        with flat.played_by("numba"):
            expected = scenarios.measure("fan_in", **options)
            monkeypatch.setattr(flat.Arrays, "chunk", 7)
            assert scenarios.measure("fan_in", **options) == expected

    def test_the_other_numbers(self, measures):
        """p90, the longest, messages read and blocked senders are counted from the trace too."""
        options = {"kernels": 6, "messages": 40, "gap_ns": 0, "slots": 4}
        with flat.played_by("numba"):
            scenarios.measure("fan_in", **options)
        run = readable("fan_in", **options)
        values = [row["latency_ns"] for row in figures.latencies(run)]
        assert [measures[0][name] for name in ("p90_ns", "max_ns", "messages", "blocked")] == [
            figures.percentile(values, 90), max(values),
            run.trace.kinds()["MessageRead"], run.trace.kinds()["SenderBlocked"],
        ]  # fmt: skip

    @pytest.mark.parametrize("engine", ["stories", "lists"])
    def test_every_engine_measures_the_same(self, engine):
        """The usual ones keep a trace for it."""
        with flat.played_by("numba"):
            expected = scenarios.measure("fan_in", seed=4)
        with flat.played_by(engine):
            assert scenarios.measure("fan_in", seed=4) == expected

    @pytest.mark.parametrize(
        ("name", "options"),
        [("registration", {}), ("fan_in", {"send": messaging.send}), ("fan_in", {"gap_ns": 10**12}),
         ("fan_in", {"mitigation": "poll only"})],
    )  # fmt: skip
    def test_what_it_does_not_know_is_measured_of_a_trace(self, name, options):
        """Another story, another policy; and a long thinking time is drawn in Python."""
        expected = figures.summary(scenarios.run(name, **options))
        with flat.played_by("numba"):
            assert scenarios.measure(name, **options) == expected

    @pytest.mark.parametrize("gap_ns", [1, 3, 1_000, 34_000, 2**20, 2**31 - 1, 2**31])
    def test_thinking_times_drawn_at_once(self, gap_ns):
        """Number for number what random.Random draws."""
        for count in (0, 1, 700, 5_000):
            expected = scenarios.think_times("any", 3, 4, count, gap_ns)
            with flat.played_by("numba"):
                assert scenarios.think_times("any", 3, 4, count, gap_ns) == expected


class Table(list):
    """Rows, indexed as numpy does it."""

    def __getitem__(self, at):
        return super().__getitem__(at[0])[at[1]] if type(at) is tuple else super().__getitem__(at)

    def __setitem__(self, at, value):
        if type(at) is tuple:
            super().__getitem__(at[0])[at[1]] = value
        else:
            super().__setitem__(at, list(value))


def test_it_makes_no_simpy_event(monkeypatch):
    """Which is why benchmarks/fan_in.py counts those of the readable engine."""
    monkeypatch.setattr(sim, "Sim", None)
    monkeypatch.setattr(scenarios, "Sim", None)
    assert len(scenarios.fan_in()) == 205

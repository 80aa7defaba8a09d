"""The explorer: every order of a small configuration, with and without store buffers."""

import importlib
import sys
from pathlib import Path

import pytest

import popcorn_edu as pk
from popcorn_edu import scenarios
from popcorn_edu.engine import explore as exploring
from popcorn_edu.engine.explore import Explorer, Search, StoreWaits, explore
from popcorn_edu.engine.steps import Begin, Delay, Fence, StoryError, Until
from popcorn_edu.engine.trace import Event, PopcornError, StoryStopped
from popcorn_edu.engine.world import Part, World, WorldError
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import IpiSent, LookedAgain
from popcorn_edu.model.rings import InterruptsEnabled, MessageRead, RingSeenEmpty, TicketTaken
from popcorn_edu.readers import checks

# -- a tiny memory to test the machinery with -----------------------------------------------------


class Wrote(Event):
    """A store of one's own word."""

    memory = "store"
    kernel: int
    value: int


class Added(Event):
    """One atomic addition to the shared sum."""

    memory = "locked"
    kernel: int
    total: int


class Noted(Event):
    """What a kernel found."""

    kernel: int
    found: int


class Words(Part):
    """word[kernel], which all read; total[0], which all add to; found[kernel], one's own."""

    tables = ("word", "total", "found")
    private = ("found",)

    def wrote(self, event):
        self.word[event.kernel] = event.value

    def added(self, event):
        self.total[0] = event.total

    def noted(self, event):
        self.found[event.kernel] = event.found

    applies = {Wrote: wrote, Added: added, Noted: noted}


def words():
    world = World(None, words=Words)
    world.words.word |= {0: 0, 1: 0}
    world.words.total[0] = 0
    return world


def cast_of(*stories):
    def cast(stage):
        for kernel, story in enumerate(stories):
            stage.begin(f"kernel {kernel}", story, kernel, kernel=kernel)

    return cast


def store_then_look(world, me):
    """Dekker's question: I write, then I look whether the other one has written."""
    yield Delay(1)
    yield Wrote(me, 1)
    yield Noted(me, world.words.word[1 - me])


def store_fence_look(world, me):
    yield Delay(1)
    yield Wrote(me, 1)
    yield Fence()
    yield Noted(me, world.words.word[1 - me])


def nobody_saw(world, waiting):
    return "nobody saw the other" if dict(world.words.found) == {0: 0, 1: 0} else ""


def test_sequential_consistency_lets_one_see_the_other():
    """Two stores and two looks: one of the looks comes last and finds a store."""
    verdict = explore(words, cast_of(store_then_look, store_then_look), ends=nobody_saw)
    assert (verdict.complete, verdict.run) == (True, None)


def test_a_store_buffer_lets_nobody_see_the_other():
    """Under TSO both stores may wait while both look: the one thing that x86 does not promise."""
    verdict = explore(
        words, cast_of(store_then_look, store_then_look), memory="tso", ends=nobody_saw
    )
    assert verdict.problem == "nobody saw the other"


def test_a_fence_empties_the_buffer():
    """With a full barrier between store and look, TSO is as good as SC here."""
    verdict = explore(
        words, cast_of(store_fence_look, store_fence_look), memory="tso", ends=nobody_saw
    )
    assert (verdict.complete, verdict.run) == (True, None)


def test_a_locked_event_empties_the_buffer():
    """x86: a locked instruction waits until all older stores are out."""

    def story(world, me):
        yield Delay(1)
        yield Wrote(me, 1)
        yield Added(me, world.words.total[0] + 1)
        yield Noted(me, world.words.word[1 - me])

    verdict = explore(words, cast_of(story, story), memory="tso", ends=nobody_saw)
    assert (verdict.complete, verdict.run) == (True, None)


def test_a_kernel_sees_its_own_store_at_once():
    """A CPU's loads look into its own store buffer first."""

    def story(world, me):
        yield Delay(1)
        yield Wrote(me, 5)
        yield Noted(me, world.words.word[me])

    verdict = explore(
        words, cast_of(story, story), memory="tso",
        ends=lambda world, waiting: dict(world.words.found) == {0: 5, 1: 5},
    )  # fmt: skip
    assert (verdict.complete, verdict.run) == (True, None)


def test_reading_and_writing_in_one_step_is_atomic():
    """What a step reads, and its write, are one piece: no addition is lost."""

    def story(world, me):
        yield Delay(1)
        yield Added(me, world.words.total[0] + 1)

    verdict = explore(
        words, cast_of(story, story, story), ends=lambda world, waiting: world.words.total[0] == 3
    )
    assert (verdict.complete, verdict.run) == (True, None)


def test_a_delay_between_reading_and_writing_is_where_others_act():
    """The lost update, in the five steps it needs."""

    def story(world, me):
        old = world.words.total[0]
        yield Delay(1)
        yield Added(me, old + 1)

    def late(world, me):
        yield Delay(1)
        yield from story(world, me)

    verdict = explore(
        words, cast_of(late, late),
        ends=lambda world, waiting: world.words.total[0] == 2 or "an addition is lost",
    )  # fmt: skip
    assert verdict.problem == "an addition is lost"
    assert verdict.steps == 4
    assert [record.event for record in verdict.run.trace] == [Added(0, 1), Added(1, 1)]


def test_always_judges_every_state():
    """A predicate is asked about every state, not only about the ends."""

    def story(world, me):
        yield Delay(1)
        yield Wrote(me, 1)
        yield Delay(1)
        yield Wrote(me, 0)

    verdict = explore(
        words, cast_of(story, story),
        always=lambda world: sum(world.words.word.values()) < 2 or "both at once",
    )  # fmt: skip
    assert verdict.problem == "both at once"
    assert verdict.steps == 2


def test_a_circle_that_nothing_leaves_is_an_end():
    """A story that polls for ever has no last state; what it goes round in is judged instead."""

    def polls(world, me):
        while not world.words.word[1]:
            yield Delay(1)
            yield Delay(1)
            yield Wrote(0, 1 - world.words.word[0])

    def silent(world, me):
        yield Delay(1)

    verdict = explore(words, cast_of(polls, silent), ends=lambda world, waiting: "never told")
    assert verdict.problem == "it goes round for ever: never told"


def test_a_poll_loop_that_is_answered_ends():
    """Going round is no fault as long as there is a way out."""

    def polls(world, me):
        while not world.words.word[1]:
            yield Delay(1)
        yield Noted(me, 1)

    def tells(world, me):
        yield Delay(1)
        yield Wrote(me, 1)

    verdict = explore(
        words, cast_of(polls, tells),
        ends=lambda world, waiting: world.words.found.get(0) == 1 or "not found",
    )  # fmt: skip
    assert (verdict.complete, verdict.run) == (True, None)


def test_until_with_within_may_give_up_at_any_moment():
    """Untimed: both the answer and the time-out are possible."""

    def waits(world, me):
        record = yield Until(Wrote, kernel=1, within=100)
        yield Noted(me, 0 if record is None else 1)

    def tells(world, me):
        yield Delay(1)
        yield Wrote(me, 1)

    for wanted in (0, 1):
        verdict = explore(
            words, cast_of(waits, tells),
            ends=lambda world, waiting, wanted=wanted: world.words.found[0] != wanted or "so",
        )  # fmt: skip
        assert verdict.problem == "so"


def test_an_iterator_on_the_value_stack_tells_places_apart():
    """Two rounds of a loop stand at the same line with the same variables, and are two places."""

    def story(world, me):
        for _ in [1, 1, 1]:
            yield Delay(1)
            yield Added(me, world.words.total[0] + 1)

    verdict = explore(
        words, cast_of(story, story), ends=lambda world, waiting: world.words.total[0] == 6
    )
    assert (verdict.complete, verdict.run) == (True, None)


def test_half_of_a_sum_tells_places_apart():
    """What only Python's value stack holds is part of a place."""

    def one(world, me):
        found = world.words.word[1]
        yield Delay(1)
        return found

    def story(world, me):
        yield Delay(1)
        total = (yield from one(world, me)) * 10 + (yield from one(world, me))
        yield Noted(me, total)

    def tells(world, me):
        yield Delay(1)
        yield Wrote(me, 1)

    seen = set()
    explore(
        words, cast_of(story, tells),
        ends=lambda world, waiting: seen.add(world.words.found[0]),
    )  # fmt: skip
    assert seen == {0, 1, 11}


def test_a_story_that_begins_another_is_followed():
    """A begun story takes its steps among all the others."""

    def child(world, me):
        yield Delay(1)
        yield Wrote(me, 1)

    def parent(world, me):
        yield Begin("child", child(world, me))
        yield Delay(1)
        yield Noted(me, world.words.word[me])

    seen = set()
    explore(words, cast_of(parent), ends=lambda world, waiting: seen.add(world.words.found[0]))
    assert seen == {0, 1}


def test_an_error_in_one_order_is_a_finding():
    """An exception that only some orders meet becomes the end of a story, with its line."""

    def fragile(world, me):
        yield Delay(1)
        assert world.words.word[1] == 0, "he was there first"
        yield Noted(me, 0)

    def tells(world, me):
        yield Delay(1)
        yield Wrote(me, 1)

    verdict = explore(words, cast_of(fragile, tells))
    last = verdict.run.trace[-1].event
    assert type(last) is StoryStopped
    assert "he was there first" in last.problem


def test_a_mistake_in_the_text_is_an_error():
    """A misspelt name is nobody's race."""

    def story(world, me):
        yield Delay(1)
        yield Noted(me, misspelt)  # noqa: F821

    with pytest.raises(StoryError, match="kernel 0: NameError.*misspelt.*line|kernel 0: NameError"):
        explore(words, cast_of(story))


def test_a_story_that_remembers_elsewhere_is_refused():
    """Told again from its beginning, a story must tell the same."""
    seen = []

    def story(world, me):
        seen.append(me)
        for _ in range(len(seen)):
            yield Delay(1)
            yield Added(me, world.words.total[0] + len(seen))

    with pytest.raises(StoryError, match="something else when it is told again"):
        explore(words, cast_of(story, story, story))


def test_too_many_states_are_not_decided():
    """A search that was stopped claims nothing."""

    def counts(world, me):
        while True:
            yield Delay(1)
            yield Added(me, world.words.total[0] + 1)

    verdict = explore(words, cast_of(counts, counts), states=100)
    assert not verdict.complete
    assert verdict.sentence == "not decided: stopped at 100 states"


def test_endless_counting_is_not_decided():
    """A table entry with more values than a state has room for ends the search, not the session."""

    def counts(world, me):
        while True:
            yield Delay(1)
            yield Added(me, world.words.total[0] + 1)

    verdict = explore(words, cast_of(counts), states=1_000)
    assert "takes more than 255 values" in verdict.sentence


# -- Popcorn's own bugs ----------------------------------------------------------------------------


def test_v1_loses_a_wake_up():
    """G1 as coded: one sender, two messages, no second look."""
    verdict = pk.explore("fan_in", look_again=False)
    assert "lost wake-up" in verdict.problem
    assert (verdict.states, verdict.steps) == (308, 25)
    kinds = [type(record.event) for record in verdict.run.trace]
    empty, enabled = kinds.index(RingSeenEmpty), kinds.index(InterruptsEnabled)
    assert kinds[empty:enabled].count(TicketTaken) == 1
    assert IpiSent not in kinds[empty:]


def test_v1_loses_a_wake_up_with_two_senders():
    """2 senders, 2 messages each: the shortest story is found among all orders."""
    verdict = pk.explore("fan_in", kernels=3, look_again=False)
    assert "lost wake-up" in verdict.problem
    assert verdict.shortest


def test_the_second_look_is_enough_under_sequential_consistency():
    """v2's receiver, one sender and two messages, every order."""
    verdict = pk.explore("fan_in", barrier="store")
    assert (verdict.complete, verdict.run) == (True, None)


def test_the_second_look_is_not_enough_under_tso():
    """v2: wmb does not keep the second look behind int_enabled = 1."""
    verdict = pk.explore("fan_in", barrier="store", memory="tso")
    assert "lost wake-up" in verdict.problem
    assert (verdict.states, verdict.steps) == (1_611, 28)


def test_the_tso_story_shows_the_store_that_waits():
    """int_enabled = 1 is written, the ring looked into, and only then does the store drain."""
    trace = pk.explore("fan_in", barrier="store", memory="tso").run.trace
    waits = next(r for r in trace.records(StoreWaits) if r.event.store[0] == "InterruptsEnabled")
    looked = trace.next(LookedAgain, after=waits.seq)
    drained = trace.next(InterruptsEnabled, after=waits.seq)
    assert waits.seq < looked.seq < drained.seq
    assert drained.cause == waits.seq
    assert "waits in its CPU's store buffer: kernel 0 sets int_enabled = 1" in str(waits.event)


def test_a_full_barrier_is_enough_under_tso():
    """v3: with smp_mb nothing is left behind, in any order of one sender and two messages."""
    verdict = pk.explore("fan_in", memory="tso")
    assert (verdict.complete, verdict.run) == (True, None)


def test_the_whole_ring_rule_deadlocks_with_two_tickets():
    """A ring of two slots: two tickets alone, and each sender waits for the other."""
    verdict = pk.explore("fan_in", kernels=3, messages=1, slots=2, full_rule="whole ring")
    assert "deadlock" in verdict.problem
    assert (verdict.states, verdict.steps) == (36, 6)


def test_the_whole_ring_rule_deadlocks_with_three_slots():
    """Two senders and three slots: a sender held up between its ticket and its look."""
    verdict = pk.explore("fan_in", kernels=3, slots=3, full_rule="whole ring")
    assert "deadlock" in verdict.problem
    assert verdict.steps == 20


@pytest.mark.parametrize("slots", [1, 2])
def test_the_own_slot_rule_does_not_deadlock(slots):
    """The fixed test looks at the ticket's own slot: every order of one sender ends well."""
    verdict = pk.explore("fan_in", slots=slots, messages=3)
    assert (verdict.complete, verdict.run) == (True, None)


def test_callbacks_that_answer_into_full_rings_deadlock():
    """Two kernels, each in a callback, each waiting for space in the other's ring."""
    verdict = pk.explore("two_full_rings")
    assert "kernel 0 softirq waits for MessageRead, ring=1" in verdict.problem
    assert "kernel 1 softirq waits for MessageRead, ring=0" in verdict.problem


SIZES = {  # kernels, messages, memory: states, edges and ends, with every order
    (2, 1, "sc"): (29, 36, 1),
    (2, 2, "sc"): (582, 1_206, 1),
    (3, 1, "sc"): (1_636, 3_442, 3),
    (2, 3, "sc"): (6_103, 15_930, 1),
    (2, 1, "tso"): (51, 90, 1),
    (2, 2, "tso"): (1_675, 4_544, 1),
    (3, 1, "tso"): (4_468, 12_220, 3),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: " ".join(map(str, size)))
def test_the_number_of_states_is_known(size):
    """A regression test of the semantics of a step: the state spaces have these sizes."""
    kernels, messages, memory = size
    verdict = pk.explore("fan_in", kernels=kernels, messages=messages, memory=memory, reduced=False)
    assert (verdict.complete, verdict.run) == (True, None)
    assert (verdict.states, verdict.edges, verdict.ends) == SIZES[size]


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_two_senders_with_two_messages_are_safe(memory):
    """The fixed protocol, 2 x 2, complete."""
    verdict = pk.explore("fan_in", kernels=3, messages=2, memory=memory)
    assert (verdict.complete, verdict.run) == (True, None)


# -- is it sound? ----------------------------------------------------------------------------------

SMALL = [
    {"kernels": kernels, "messages": messages, "memory": memory} | choice
    for kernels, messages in [(2, 1), (2, 2), (3, 1)]
    for memory in ("sc", "tso")
    for choice in [
        {},
        {"look_again": False},
        {"barrier": "store"},
        {"slots": 1},
        {"slots": 2, "full_rule": "whole ring"},
        {"budget": 1},
        {"budget": 1, "look_again": False, "high_every": 2},
    ]
]


@pytest.mark.parametrize("choice", SMALL, ids=lambda choice: " ".join(map(str, choice.values())))
def test_the_reduction_changes_no_verdict(choice):
    """With all orders and with those that can matter: the same verdict, the same number of ends."""
    all_orders = pk.explore("fan_in", reduced=False, **choice)
    reduced = pk.explore("fan_in", **choice)
    assert (reduced.complete, reduced.run is None) == (all_orders.complete, all_orders.run is None)
    if all_orders.run is None:
        assert reduced.ends == all_orders.ends
        assert reduced.states <= all_orders.states
    else:
        assert (reduced.steps, reduced.problem) == (all_orders.steps, all_orders.problem)


def explorer_of(memory="sc", **arguments):
    staged = scenarios.staging("fan_in", **arguments)
    return Explorer(lambda: staged.world(staged.setup), staged.cast, memory=memory)


def can_tell(explorer, trace):
    """Is there a schedule of the explorer that says exactly this trace?"""
    wanted = [(record.who, record.event) for record in trace]
    opening = exploring.Telling(explorer)
    said = [(who, event) for _, who, _, event in opening.records]
    if wanted[: len(said)] != said:
        return False
    work, seen = [(explorer.first, len(said))], set()
    while work:
        state, done = work.pop()
        if done == len(wanted):
            return True
        for choice in explorer.choices(state):
            told = []
            after = explorer.take(state, choice, told)
            said = [(thing.who, thing.event) for thing in told if thing.what == "says"]
            if wanted[done : done + len(said)] == said and (after, done + len(said)) not in seen:
                seen.add((after, done + len(said)))
                work.append((after, done + len(said)))
    return False


def test_every_run_of_the_sim_is_among_the_orders():
    """Whatever the delays, seed and schedule: the Sim plays one of the explorer's orders."""
    explorer = explorer_of(kernels=3, messages=2)
    for seed in range(40):
        run = pk.scenarios.fan_in(
            kernels=3, messages=2, gap_ns=[0, 100, 700, 3_000][seed % 4], seed=seed,
            schedule_seed=seed if seed % 2 else None,
        )  # fmt: skip
        assert can_tell(explorer, run.trace), seed


def test_a_trace_that_breaks_the_order_is_not_among_them():
    """The test above can fail: a run with its records turned round is no order of the stories."""
    explorer = explorer_of(kernels=3, messages=2)
    trace = list(pk.scenarios.fan_in(kernels=3, messages=2).trace)
    trace[3], trace[4] = trace[4], trace[3]
    assert not can_tell(explorer, [trace[0], *trace[2:]])


@pytest.mark.parametrize("memory", ["sc", "tso"])
def test_a_story_told_again_from_its_beginning_is_the_same_story(memory):
    """The world that the trees compute is the world that the told records fold to."""
    explorer = explorer_of(memory, kernels=3, messages=2, slots=2)
    draw = exploring.random.Random(1)
    for _ in range(30):
        taken, _ = exploring.wander(explorer, draw)
        telling = exploring.Telling(explorer)
        for choice in taken:
            telling.act(*telling.find(choice))
        told = telling.run().world.snapshot()
        told.pop("store_buffers", None)
        world = explorer.world_of(telling.state)
        assert told == {
            name: {table: dict(getattr(part, table)) for table in part.tables}
            for name, part in world.parts.items()
        }


def test_the_same_search_gives_the_same_verdict():
    """No clock, no hash seed: the same numbers every time."""
    first, second = (pk.explore("fan_in", look_again=False, memory="tso") for _ in range(2))
    assert (first.states, first.edges, first.schedule) == (
        second.states, second.edges, second.schedule,
    )  # fmt: skip
    assert first.run.trace.digest() == second.run.trace.digest()


# -- what one does with it -------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [{"look_again": False}, {"barrier": "store", "memory": "tso"}])
def test_a_counterexample_is_judged_by_the_checks(choice):
    """The same rule that judges any run finds the message that nobody reads."""
    run = pk.explore("fan_in", **choice).run
    assert checks.every_message_is_read(run) is not None
    assert checks.no_slot_is_used_twice(run) is None


@pytest.mark.parametrize("choice", [{"look_again": False}, {"barrier": "store", "memory": "tso"}])
def test_a_counterexample_can_be_kept(choice, tmp_path):
    """Saved and read back it is the same run, with a world at every record."""
    run = pk.explore("fan_in", **choice).run
    again = pk.load(run.save(tmp_path / "bug.popcorn"))
    assert again.trace.digest() == run.trace.digest()
    for n in range(len(run) + 1):
        assert again.at(n) == run.at(n)


@pytest.mark.parametrize("choice", [{"look_again": False}, {"barrier": "store", "memory": "tso"}])
def test_a_counterexample_opens_in_the_player(choice, tmp_path):
    """It is a run as any other."""
    from popcorn_edu.readers.player import to_html

    to_html(pk.explore("fan_in", **choice).run, tmp_path / "bug.html")
    assert (tmp_path / "bug.html").stat().st_size > 10_000


def test_a_readers_check_can_judge_the_ends():
    """checks= takes the functions of popcorn_edu.checks; the engine itself knows none."""
    verdict = pk.explore("fan_in", checks=[checks.no_needless_interrupts])
    assert verdict.run is not None
    assert "record" in verdict.problem


def test_a_learners_receive_is_explored():
    """My receiver looks again, and does not ask for interrupts before: it still loses one."""

    def receive(world, me):
        while True:
            read = yield from messaging.poll(world, me, 128)
            if world.rings.head[me] == world.rings.tail[me]:
                break
        yield Delay(100)
        yield InterruptsEnabled(me)
        yield from messaging.deliver(world, me)
        assert read >= 0

    verdict = pk.explore("fan_in", receive=receive)
    assert "lost wake-up" in verdict.problem


def test_a_learner_sees_only_her_own_kernel():
    """Under the lens, as in a run."""

    def receive(world, me):
        yield Delay(1)
        yield RingSeenEmpty(me, world.messaging.sent[me + 1])

    with pytest.raises(StoryError, match="kernel 0 may not read world.messaging.sent"):
        pk.explore("fan_in", receive=receive)


def test_what_the_world_refuses_is_a_finding():
    """A receiver that reads without looking whether the message is ready."""

    def receive(world, me):
        yield Delay(1)
        tail = world.rings.tail[me]
        message = world.rings.slots.get((me, tail))
        if message:
            yield MessageRead._make(message)
            yield Delay(1)
            yield MessageRead._make(message)
        yield InterruptsEnabled(me)

    verdict = pk.explore("fan_in", receive=receive)
    assert "there is no message to read" in verdict.problem
    assert type(verdict.run.trace[-1].event) is StoryStopped


def test_a_part_of_ones_own_can_watch_every_event():
    """What must hold of an event is a part that refuses it; what it knows is part of the state."""

    class Watch(Part):
        tables = ("last",)

        def wrote(self, event):
            if self.last.get(event.kernel, 0) >= event.value:
                raise WorldError(f"kernel {event.kernel} writes {event.value} again")
            self.last[event.kernel] = event.value

        applies = {Wrote: wrote}

    def start():
        world = World(None, words=Words, watch=Watch)
        world.words.word |= {0: 0, 1: 0}
        return world

    def story(world, me):
        yield Delay(1)
        yield Wrote(me, 1)
        yield Delay(1)
        yield Wrote(me, 1 if world.words.word[1 - me] else 2)

    verdict = explore(start, cast_of(story, story))
    assert "writes 1 again" in verdict.problem


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"memory": "tsu"}, "memory='tsu': did you mean tso?"),
        ({"states": 0}, "states=0: expected a whole number, 1 or more"),
        ({"look_agian": True}, "did you mean look_again?"),
        ({"barrier": "wmb"}, "barrier='wmb': expected one of: full, store"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(arguments, sentence):
    """What, where, and the nearest valid spelling."""
    with pytest.raises(PopcornError) as refused:
        pk.explore("fan_in", **arguments)
    assert sentence in str(refused.value)


def test_a_verdict_says_what_was_found():
    """One sentence in a terminal, the same in a notebook."""
    verdict = pk.explore("fan_in", look_again=False)
    assert str(verdict).startswith("found after 308 states, in 25 steps: lost wake-up")
    assert verdict._repr_markdown_().startswith("**found after 308 states, in 25 steps**: lost")


def test_there_is_nothing_to_play_without_a_counterexample():
    """play() of a clean verdict says so."""
    with pytest.raises(PopcornError, match="no counterexample to play: complete"):
        pk.explore("fan_in", messages=1).play()


# -- random walks ----------------------------------------------------------------------------------


def ring_is_sound(world):
    """What must be true in every state, whatever is lost, doubled or stopped."""
    rings, slots = world.rings, world.setup.slots
    for ring in rings.head:
        if rings.tail[ring] > rings.head[ring]:
            return f"ring {ring} was read further than it was written"
    used = {}
    for (ring, slot), message in rings.slots.items():
        used[ring] = used.get(ring, 0) + 1
        if message.ticket % slots != slot:
            return f"slot {slot} of ring {ring} holds ticket {message.ticket}"
    if any(count > slots for count in used.values()):
        return "more messages than slots"
    return ""


def test_every_state_of_the_fixed_protocol_is_sound():
    """The ring's invariants hold in all states of one sender, three messages, two slots."""
    verdict = pk.explore("fan_in", messages=3, slots=2, always=ring_is_sound)
    assert (verdict.complete, verdict.run) == (True, None)


def test_search_can_be_used_alone():
    """Search and Explorer are the pieces that a tool of one's own is built from."""
    explorer = explorer_of(kernels=2, messages=1)
    assert Search(explorer).run().complete


def fuzz():
    folder = str(Path(__file__).resolve().parents[1] / "fuzz")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("fuzz_orders")
    finally:
        sys.path.remove(folder)


def test_random_steps_and_faults_break_nothing():
    """A share of what tests/fuzz/fuzz_orders.py does: the correct model, with lost, doubled and
    stopped things."""
    assert fuzz().walk_correct(10_000) == []


@pytest.mark.slow
def test_many_random_steps_and_faults_break_nothing():
    """A larger share of the million."""
    assert fuzz().walk_correct(300_000) == []


@pytest.mark.parametrize("bug", fuzz().PLANTED)
def test_every_planted_bug_is_caught(bug):
    """The same walks find each of them."""
    assert fuzz().catch(fuzz().PLANTED[bug]) is not None

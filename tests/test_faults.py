"""The deck of faults: each at its every place, what it may break, who notices, where it stops."""

from collections import Counter

import pytest

import popcorn_edu as pk
from popcorn_edu import faults, scenarios
from popcorn_edu.engine.sim import Sim, finish
from popcorn_edu.engine.steps import Delay, Until
from popcorn_edu.engine.trace import PopcornError, StoryStopped
from popcorn_edu.model.boot import KernelPanicked, Stage
from popcorn_edu.model.messaging import (
    AllocationFailed,
    InterruptTaken,
    IpiArrived,
    IpiLost,
    MessageDelivered,
    MessageDropped,
)
from popcorn_edu.model.rings import (
    HeadOfLineWait,
    InterruptsEnabled,
    MessageRead,
    MessageType,
    PayloadCopied,
    SenderBlocked,
    SlotReady,
    TicketTaken,
)
from popcorn_edu.readers import checks

MAKERS = {
    "fan_in": lambda: scenarios.fan_in(kernels=4, messages=4, gap_ns=900, high_every=3),
    "small rings": lambda: scenarios.fan_in(kernels=3, messages=6, slots=2, gap_ns=100),
    "one slot": lambda: scenarios.fan_in(kernels=2, messages=4, slots=1, gap_ns=1_000, seed=306),
    "ping": lambda: scenarios.ping(rounds=2),
    "registration": lambda: scenarios.registration(kernels=3),
    "proxied_io": lambda: scenarios.proxied_io(blocks=1),
}
FOR = {"lost device interrupt": ["proxied_io"], "ring full": ["small rings"]}  # else every one

HOW = {"corrupted header": [{"field": field} for field in faults.HEADER]}
MESSAGES = ["ping", "fan_in", "lost_wakeup", "two_full_rings", "registration"]


@pytest.fixture(scope="module")
def runs():
    return {name: make() for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def forks(runs):
    """Every fault at its every place in every run: (fault, run's name) -> [fork, ...]."""
    return {
        (fault, name): [
            fork for how in HOW.get(fault, [{}]) for _, fork in faults.every(fault, run, **how)
        ]
        for fault in faults.DECK
        for name, run in runs.items()
    }


def own_story(who: str, kernel: int) -> bool:
    return who == f"kernel {kernel}" or who.startswith(f"kernel {kernel} ")


def delivered(run) -> list[tuple]:
    return [record.event for record in run.trace.records(MessageDelivered)]


# -- the loop over the n-th fault ----------------------------------------------------------------


@pytest.mark.parametrize("fault", faults.DECK)
def test_every_fault_has_places(forks, fault):
    """A card that no run can draw would be a test of nothing."""
    for name in FOR.get(fault, MAKERS if fault not in FOR else ()):
        if fault == "duplicated IPI" or forks[fault, name]:
            continue
        pytest.fail(f"{fault} has no place in {name}")


@pytest.mark.parametrize("fault", faults.DECK)
def test_only_what_is_expected_breaks(forks, fault):
    """A check that finds something is one that the card names; no story meets the unthinkable."""
    for (card, name), several in forks.items():
        for fork in several if card == fault else ():
            broken = {finding.check for finding in checks.all(fork)}
            assert broken <= set(faults.DECK[fault].fails), (name, fork.edits)
            assert not list(fork.trace.records(StoryStopped)), (name, fork.edits)


@pytest.mark.parametrize("fault", faults.DECK)
def test_what_the_card_says_may_break_does(forks, fault):
    """Each expected consequence is seen somewhere: the table has no row too many."""
    broken = {
        finding.check
        for (card, _), several in forks.items()
        for fork in several
        if card == fault
        for finding in checks.all(fork)
    }
    assert broken >= set(faults.DECK[fault].fails)


@pytest.mark.parametrize("fault", sorted(set(faults.DECK) - {"corrupted header"}))
def test_nothing_wrong_is_delivered(forks, runs, fault):
    """What arrives is what was sent, once; with an honest header."""
    for (card, name), several in forks.items():
        sent = {
            (e.ring, e.sender, e.number, e.type, e.priority, e.payload)
            for e in (r.event for r in runs[name].trace.records(PayloadCopied))
        }
        for fork in several if card == fault else ():
            copied = {
                (e.ring, e.sender, e.number, e.type, e.priority, e.payload)
                for e in (r.event for r in fork.trace.records(PayloadCopied))
            }
            arrived = [tuple(event) for event in delivered(fork)]
            assert set(arrived) <= copied
            assert max(Counter(arrived).values(), default=1) == 1
            if name in ("fan_in", "small rings"):
                assert copied <= sent, "and nobody sends anything else because of it"


@pytest.mark.parametrize("fault", faults.DECK)
def test_the_world_is_the_fold_of_such_a_trace(forks, fault):
    """And no count of IPIs is negative, however many arrive."""
    for (card, _), several in forks.items():
        for fork in several[::5] if card == fault else ():
            assert fork.world == fork.at(len(fork))
            for _, world in fork.worlds():
                assert min(world.messaging.on_the_wire.values(), default=0) >= 0


@pytest.mark.parametrize("fault", ["late IPI", "duplicated IPI", "spurious interrupt", "ring full",
                                   "stalled receiver", "slow handler"])  # fmt: skip
def test_a_fault_of_time_loses_nothing(forks, runs, fault):
    """Late or for nothing, but everything is delivered."""
    for (card, name), several in forks.items():
        for fork in several if card == fault else ():
            assert sorted(delivered(fork)) == sorted(delivered(runs[name])), (name, fork.edits)


def test_places_are_tried_one_after_the_other(runs):
    """1, 2, 3 ... until no more is reached; a maker is as good as a run."""
    arrivals = [record.seq for record in runs["ping"].trace.records(IpiArrived)]
    assert list(faults.places(runs["ping"], "lost IPI")) == arrivals
    tried = list(faults.every("lost IPI", MAKERS["ping"]))
    assert [n for n, _ in tried] == [1, 2, 3, 4]
    assert [fork.edits[0].at for _, fork in tried] == arrivals


# -- card by card --------------------------------------------------------------------------------


def test_a_lost_ipi_strands_the_last_message(runs):
    """Nobody comes after it, so nobody looks; and nobody notices."""
    run = runs["ping"]
    last = [record.seq for record in run.trace.records(IpiArrived, kernel=0)][-1]
    fork = run.inject("lost IPI", at=last)
    assert type(fork.trace[last].event) is IpiLost
    assert checks.every_message_is_read(fork)
    assert "is lost" in checks.no_lost_wakeup(fork).sentence
    assert [(n.kernel, "never called" in n.how) for n in faults.noticed(fork)] == [(None, True)]


def test_a_lost_ipi_before_another_is_only_late(runs):
    """The next message's interrupt brings it along."""
    run = runs["ping"]
    first = run.trace.next(IpiArrived, kernel=0).seq
    assert checks.every_message_is_read(run.inject("lost IPI", at=first)) is None


def test_a_late_ipi_comes_that_much_later(runs):
    """The option is in nanoseconds."""
    run = runs["ping"]
    arrived = run.trace.next(IpiArrived)
    fork = run.inject("late IPI", at=arrived.seq, ns=777)
    assert fork.trace.next(IpiArrived).time == arrived.time + 777


def test_a_second_copy_costs_an_interrupt(runs):
    """The kernel is interrupted once more and finds nothing."""
    run = runs["ping"]
    fork = run.inject("duplicated IPI", at=run.trace.next(IpiArrived).seq)
    interrupts = [len(list(one.trace.records(InterruptTaken))) for one in (run, fork)]
    assert interrupts[1] == interrupts[0] + 1
    assert checks.all(fork) == []


def test_a_spurious_interrupt_is_noticed_by_looking(runs):
    """Its kernel looks, finds nothing, leaves."""
    fork = runs["ping"].inject("spurious interrupt", at=len(runs["ping"]) - 1, kernel=0)
    (found,) = faults.noticed(fork)
    assert found.kernel == 0 and "finds nothing to read" in found.how


def test_ring_full_blocks_a_sender(runs):
    """In each of its places somebody spins, and goes on when the reader wakes up."""
    run = scenarios.fan_in(kernels=3, messages=6, slots=4, gap_ns=3_000)
    assert not list(run.trace.records(SenderBlocked))
    places = list(faults.places(run, "ring full"))
    assert places
    for n in places:
        fork = run.inject("ring full", at=n)
        assert list(fork.trace.records(SenderBlocked)), n
        assert len(delivered(fork)) == len(delivered(run))


def test_a_sender_that_dies_holds_up_the_reader_for_ever(runs):
    """Head-of-line blocking: the reader spins in its softirq, and the others' messages lie."""
    run = runs["fan_in"]
    ready = run.trace.next(SlotReady)
    fork = run.inject("sender dies", at=ready.seq)
    waiting = [n for n in faults.noticed(fork) if "waits for ticket" in n.how]
    assert [n.kernel for n in waiting] == [0]
    assert type(waiting[0].record.event) is HeadOfLineWait
    assert checks.no_deadlock(fork)


def test_a_dead_kernels_ring_fills_and_its_senders_spin(runs):
    """They are waiting at the end; the run ends all the same."""
    fork = runs["small rings"].inject("kernel panic", at=5, kernel=0)
    spinning = {n.kernel for n in faults.noticed(fork) if "whose kernel is dead" in n.how}
    assert spinning == {1, 2}
    assert {who for who, _ in fork.waiting} >= {"kernel 1", "kernel 2"}


@pytest.mark.parametrize(
    ("field", "seen"),
    [("type", MessageDropped), ("sender", MessageDelivered), ("priority", MessageDelivered),
     ("payload", MessageDelivered)],
)  # fmt: skip
def test_a_corrupted_field_is_believed(runs, field, seen):
    """Popcorn checks the type and nothing else: the rest is delivered as it is."""
    run = runs["fan_in"]
    copied = run.trace.next(PayloadCopied)
    fork = run.inject("corrupted header", at=copied.seq, field=field)
    garbled = fork.trace[copied.seq].event
    assert getattr(garbled, field) != getattr(copied.event, field)
    assert list(fork.trace.records(seen, sender=garbled.sender, number=garbled.number))
    noticed = [n.kernel for n in faults.noticed(fork)]
    assert noticed == ([0] if field == "type" else [])


def test_a_value_can_be_chosen_by_name(runs):
    """As a number or as the word."""
    n = runs["fan_in"].trace.next(PayloadCopied).seq
    for value in ("MCAST", 3, MessageType.MCAST):
        fork = runs["fan_in"].inject("corrupted header", at=n, value=value)
        assert fork.trace[n].event.type is MessageType.MCAST


def test_an_allocation_failure_takes_one_message_off_its_list(runs):
    """The others keep their order, whichever it was."""
    run = runs["fan_in"]
    for n, fork in faults.every("allocation failure", run):
        (gone,) = (r.event for r in fork.trace.records(AllocationFailed))
        missing = set(delivered(run)) - set(delivered(fork))
        assert {(e.sender, e.number) for e in missing} == {(gone.sender, gone.number)}, n
        assert checks.fifo_per_sender(fork) is None
        assert any("never called" in found.how for found in faults.noticed(fork))


def test_a_lost_device_interrupt_stops_its_reader():
    """Nobody has a timeout."""
    run = MAKERS["proxied_io"]()
    fork = run.inject("lost device interrupt")
    assert any("InterruptServed" in what for _, what in fork.waiting)


# -- a crash stays in its kernel -----------------------------------------------------------------


def test_a_panic_changes_no_table_of_messages(runs):
    """At the record itself nothing else moves: no row, no clock, no queue of anybody's."""
    for name in ("fan_in", "registration"):
        for n in faults.places(runs[name], "kernel panic"):
            fork = runs[name].inject("kernel panic", at=n)
            assert fork.at(n) == fork.at(n + 1)


def test_the_others_do_what_they_did_until_a_message_would_have_told_them(runs):
    """Two senders that never speak to each other: one's end is nothing to the other."""
    run = runs["fan_in"]
    alone = {"kernel 3": [(r.time, r.event) for r in run.trace if r.who == "kernel 3"][:3]}
    n = next(r.seq for r in run.trace if r.who == "kernel 2")
    fork = run.inject("kernel panic", at=n, kernel=2)
    assert [(r.time, r.event) for r in fork.trace if r.who == "kernel 3"][:3] == alone["kernel 3"]


def test_isolation_holds_in_every_fork(forks):
    """Whoever panics, wherever."""
    for several in forks.values():
        for fork in several:
            assert checks.crash_stays_in_its_kernel(fork) is None


def planted(*cast):
    """A run of two kernels, in which kernel 1 panics at 2,000 ns, and a bug's own stories."""
    setup = scenarios.make_setup("magny-cours-48", 3, handlers={MessageType.TEST: None})

    def crash(world):
        yield Delay(2_000)
        yield KernelPanicked(1, "planted")

    sim = Sim(scenarios.new_world(setup))
    sim.begin("machine", scenarios.everybody_registered, 3)
    sim.begin("crash", crash)
    for who, kernel, tell in cast:
        sim.begin(who, tell, kernel=kernel)
    return finish(sim, lambda: scenarios.new_world(setup))


def cleans_up(world):
    """Kernel 2 resets what kernel 1 left behind, as if it were its own."""
    yield Until(KernelPanicked)
    yield InterruptsEnabled(1)


def lives_on(world):
    """A story that nobody ends with its kernel."""
    yield Delay(5_000)
    yield TicketTaken(0, 0, 1, 0)


def test_the_check_of_isolation_catches_both_planted_bugs():
    """A kernel that touches a dead one's window, and a dead one that acts."""
    touched = checks.crash_stays_in_its_kernel(planted(("kernel 2", 2, cleans_up)))
    assert "changes what belongs to kernel 1 alone" in touched.sentence
    undead = checks.crash_stays_in_its_kernel(planted(("kernel 1", None, lives_on)))
    assert "acts although kernel 1 panicked at record 1" in undead.sentence
    assert checks.crash_stays_in_its_kernel(planted(("kernel 1", 1, lives_on))) is None


def test_a_kernel_that_has_checked_in_can_panic():
    """Its stage is FAILED then, and the operator boots the next one."""
    run = scenarios.boot(kernels=3)
    n = run.trace.next(MessageDelivered).seq + 2
    fork = run.inject("kernel panic", at=n, kernel=1)
    assert fork.world.boot.stage[1] == Stage.FAILED
    assert fork.world.boot.stage[2] == Stage.CHECKED_IN
    assert not [r for r in fork.trace[n + 1 :] if own_story(r.who, 1)]


# -- by hand -------------------------------------------------------------------------------------


def test_at_lists_what_is_possible(runs):
    """By the kind of the record, and by what the run still holds."""
    run = runs["fan_in"]
    n = run.trace.next(IpiArrived).seq
    assert faults.at(run, n) == [
        "lost IPI", "late IPI", "duplicated IPI", "spurious interrupt", "kernel panic",
    ]  # fmt: skip
    assert faults.at(run, 0) == [], "nobody is there yet"
    assert "allocation failure" in faults.at(run, run.trace.next(MessageRead).seq)


def test_all_that_at_lists_can_be_injected(runs):
    """At each record of each run."""
    for run in (runs["ping"], runs["registration"]):
        for record in run.trace:
            for name in faults.at(run, record.seq):
                assert run.inject(name, at=record.seq).edits


def test_the_deck_is_complete():
    """Each card says what it models, what is real about it, and which checks it may break."""
    for name, card in faults.DECK.items():
        assert name == card.name and card.models and card.real and card.where()
        assert set(card.fails) <= set(checks.ALL)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda run: run.inject("lost ipi"), "no fault 'lost ipi'; did you mean lost IPI?"),
        (
            lambda run: run.inject("lost IPI", at=3),
            "(SlotReady); it wants IpiArrived, and the n",
        ),
        (lambda run: run.inject("lost IPI", at=999), "at=999: expected a record number from 0 to "),
        (lambda run: run.inject("lost IPI", at="x"), "at='x': expected a record number"),
        (
            lambda run: run.inject("ring full"),
            "there is no place for the fault 'ring full' in",
        ),
        (lambda run: run.inject("ring full", at=9), "and this run has no place for it"),
        (lambda run: run.inject("late IPI", ns=0), "ns=0: expected a whole number of nanoseconds"),
        (lambda run: run.inject("late IPI", ms=1), "has no option 'ms'; did you mean ns?"),
        (lambda run: run.inject("lost IPI", ns=1), "has no option 'ns'; there are none"),
        (lambda run: run.inject("kernel panic", at=9, kernel=7), "kernel=7: expected a kernel's"),
        (lambda run: run.inject("corrupted header", field="length"), "header field 'length'"),
        (lambda run: run.inject("corrupted header", value=99), "type must be one of TEST"),
        (lambda run: scenarios.run("ping", at=3), "say fault="),
        (lambda run: scenarios.run("ping", fault="x"), "there is no fault 'x'"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence(runs, call, sentence):
    """What was asked, and what is possible instead."""
    with pytest.raises(PopcornError) as caught:
        call(runs["ping"])
    assert sentence in str(caught.value)


def test_a_saved_faulty_run_is_read_back_and_forked(tmp_path):
    """Its file says which fault it was, and a fork of it keeps the fault."""
    options = {"kernels": 3, "fault": "late IPI", "at": None, "fault_options": {"ns": 5_000}}
    run = scenarios.run("fan_in", **options)
    run.save(tmp_path / "faulty.popcorn")
    again = pk.load(tmp_path / "faulty.popcorn")
    assert again.trace.digest() == run.trace.digest()
    assert again.trace.meta["arguments"]["fault"] == "late IPI"
    n = len(run.trace) - 9
    assert again.fork(n, drop=True).trace.digest() == run.fork(n, drop=True).trace.digest()
    early = again.fork(3, drop=True)
    assert early.trace.digest() == scenarios.fan_in(kernels=3).fork(3, drop=True).trace.digest()


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_scenario_takes_a_fault(name):
    """By name, at its first place."""
    run = scenarios.run(name, fault="lost IPI")
    assert len(list(run.trace.records(IpiLost))) == 1


def test_a_fault_upon_a_fault(runs):
    """A fork can be injected into; both happened."""
    fork = runs["fan_in"].inject("lost IPI").inject("kernel panic", at=40, kernel=2)
    assert [*fork.trace.records(IpiLost)] and [*fork.trace.records(KernelPanicked)]


def test_a_kernel_thread_ends_with_its_kernel(runs):
    """What a kernel began ends with it, although its name is its own."""
    run = runs["registration"]
    n = next(r.seq for r in run.trace if r.who == "kernel 0 kthread")
    fork = run.inject("kernel panic", at=n, kernel=0)
    assert not [r for r in fork.trace[n + 1 :] if own_story(r.who, 0)]

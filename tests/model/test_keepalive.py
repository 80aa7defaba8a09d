"""Who is still there, who notices, and when."""

import pytest

from popcorn_edu import faults, scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.boot import KernelPanicked
from popcorn_edu.model.keepalive import MISSED_AT_MOST, PERIOD_NS, PeerMissed
from popcorn_edu.model.messaging import (
    MessageDelivered,
    PeerDeclaredDead,
    SendFailed,
    WindowMapped,
)
from popcorn_edu.model.rings import MessageType, SenderBlocked, TicketTaken
from popcorn_edu.readers import checks


def declared(run) -> dict[int, int]:
    """When each kernel declared a peer dead."""
    return {r.event.kernel: r.time for r in run.trace.records(PeerDeclaredDead)}


def test_the_numbers_are_popcorns():
    """100 ms, and two periods."""
    assert (PERIOD_NS, MISSED_AT_MOST) == (100_000_000, 2)


@pytest.mark.parametrize("dies_ns", [0, 1_000, 20_000, 99_000_000, 150_000_000, 210_000_000])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_every_live_kernel_notices_within_three_periods(dies_ns, seed):
    """Whenever the victim dies, and whatever the order of what is simultaneous."""
    run = scenarios.keepalive(periods=7, dies_ns=dies_ns, schedule_seed=seed)
    found = declared(run)
    assert sorted(found) == [0, 1, 3]
    died = run.trace.next(KernelPanicked).time
    assert all(PERIOD_NS < when - died <= 3.1 * PERIOD_NS for when in found.values())
    assert checks.the_dead_are_noticed(run) is None


def test_each_notices_by_itself():
    """Nobody tells anybody: each declares it at its own time, after two periods missed."""
    run = scenarios.keepalive()
    for record in run.trace.records(PeerDeclaredDead):
        missed = run.trace[record.seq - 1].event
        assert missed == PeerMissed(record.event.kernel, 2, MISSED_AT_MOST)
    assert len(set(declared(run).values())) == 3


def test_a_live_kernel_is_never_declared_dead():
    """Without a victim nobody is."""
    for seed in (None, 1, 2, 3):
        run = scenarios.keepalive(victim=None, schedule_seed=seed)
        assert declared(run) == {} and checks.all(run) == []


def test_a_sender_that_waits_for_the_dead_gives_up():
    """Kernel 0 is blocked on the dead kernel's full ring; when it knows, its send fails."""
    run = scenarios.keepalive()
    blocked = run.trace.next(SenderBlocked, sender=0, ring=2)
    failed = run.trace.next(SendFailed, after=blocked.seq, sender=0, to=2)
    assert failed.time >= declared(run)[0]
    assert checks.no_deadlock(run) is None
    assert not any("MessageRead" in what for _, what in run.waiting)


def test_nothing_is_sent_to_the_dead():
    """After the declaration no ticket of its ring is taken by that kernel."""
    run = scenarios.keepalive()
    for record in run.trace.records(TicketTaken, ring=2):
        assert record.time <= declared(run).get(record.event.sender, record.time)


def test_a_keepalive_does_not_wait_for_a_full_ring():
    """It is refused instead: else who notices would be stuck before it notices."""
    run = scenarios.keepalive(messages=0, periods=9, slots=1)
    kinds = run.trace.kinds()
    assert sorted(declared(run)) == [0, 1, 3] and "SenderBlocked" not in kinds


def test_the_reader_of_faults_tells_who_noticed():
    """faults.noticed names each declaration."""
    told = faults.noticed(scenarios.keepalive())
    assert {0, 1, 3} <= {kernel for _, kernel, _ in told}


def test_who_dies_between_ticket_and_ready_takes_its_reader_along():
    """A keepalive that is never marked ready holds up the reader's ring: it hears nobody any more,
    and takes the living for dead. Two periods of silence prove no death."""
    run = scenarios.run("keepalive", victim=None, periods=7, fault="sender dies")
    dead = run.trace.next(KernelPanicked).event.kernel
    finding = checks.the_dead_are_noticed(run)
    assert finding and run.trace[finding.seq].event.peer != dead


@pytest.mark.parametrize("what", ["deaf", "hasty"])
def test_the_planted_bugs_are_found(what):
    """A kernel that never declares, and one that declares a live peer."""
    run = scenarios.keepalive(periods=8)
    if what == "deaf":
        broken = run.fork(run.trace.next(PeerDeclaredDead, kernel=1).seq, drop=True)
    else:
        broken = run.fork(20, say=PeerDeclaredDead(0, 1))
    assert checks.the_dead_are_noticed(broken)


@pytest.mark.parametrize("wrong", [{"victim": 0}, {"periods": 0}, {"dies_ns": -1}])
def test_bad_input_is_named(wrong):
    """By its argument."""
    ((name, value),) = wrong.items()
    with pytest.raises(PopcornError, match=f"{name}={value!r}"):
        scenarios.keepalive(**wrong)


# -- the race of the check-in ---------------------------------------------------------------------


def test_an_answer_from_the_callback_comes_too_early():
    """The window is not mapped yet: the send fails, although both kernels are there."""
    run = scenarios.checkin_race()
    failed = run.trace.next(SendFailed, sender=0, to=1)
    mapped = run.trace.next(WindowMapped, kernel=0, window=1)
    assert failed.seq < mapped.seq


def test_who_waits_until_it_is_mapped_can_answer():
    """The thread that maps sends the answer."""
    run = scenarios.checkin_race(waits=True)
    assert run.trace.next(SendFailed) is None
    assert any(r.event.number == 0 for r in run.trace.records(TicketTaken, ring=1))
    delivered = [r.event.type for r in run.trace.records(MessageDelivered, kernel=1)]
    assert delivered == [MessageType.TEST]

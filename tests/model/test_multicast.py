"""Multicast channels: one write, many readers, and the last one frees the slot."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import walk
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import multicast
from popcorn_edu.model.messaging import IpiSent
from popcorn_edu.model.multicast import (
    CHANNELS,
    WINDOW_BYTES,
    ChannelMapped,
    ChannelTaken,
    CloseRefused,
    McastGaveUp,
    McastRead,
    McastRefused,
    McastSlotFreed,
    McastTicketTaken,
    McastWritten,
    OpenRefused,
    members_of,
)
from popcorn_edu.model.rings import MessageType, TicketTaken
from popcorn_edu.readers import checks


def test_the_window_is_as_large_as_in_popcorn():
    """head, tail, 64 counters and 64 slots: 4,368 bytes; 32 channels."""
    assert (WINDOW_BYTES, CHANNELS) == (4_368, 32)


def test_a_message_is_written_once_and_read_by_every_other_member():
    """3 messages, 4 members: 3 writes, 9 reads, 3 slots freed; checks hold."""
    kinds = scenarios.multicast().trace.kinds()
    assert (kinds["McastWritten"], kinds["McastRead"], kinds["McastSlotFreed"]) == (3, 9, 3)


def test_opening_tells_each_member_with_a_message_of_its_own():
    """One MCAST message per other member; each maps the window in its kernel thread."""
    run = scenarios.multicast(messages=0)
    opened = [
        r for r in run.trace.records(TicketTaken) if r.event.sender == 0 and r.event.number < 3
    ]
    assert sorted(r.event.ring for r in opened) == [1, 2, 3]
    mapped = [r.event.kernel for r in run.trace.records(ChannelMapped)]
    assert sorted(mapped) == [0, 1, 2, 3]
    assert all(
        r.who.endswith("kthread") for r in run.trace.records(ChannelMapped) if r.event.kernel
    )


def test_every_member_is_interrupted_for_every_message():
    """As coded: an IPI for each member and message, although it may be polling."""
    run = scenarios.multicast(messages=10)
    written = next(run.trace.records(McastWritten)).seq
    after = [r for r in run.trace.records(IpiSent) if r.seq > written and r.event.src == 0]
    assert len(after) >= 30 and checks.no_needless_interrupts(run) is None


def test_the_last_reader_frees_the_slot():
    """The tail moves with the last read of a ticket, in the same moment and by the same kernel."""
    run = scenarios.multicast(messages=5)
    for record in run.trace.records(McastSlotFreed):
        before = run.trace[record.seq - 1]
        assert type(before.event) is McastRead and before.event.kernel == record.event.kernel
        assert before.time == record.time


@pytest.mark.parametrize("messages", [0, 1, 7, 70])
@pytest.mark.parametrize("kernels", [2, 4, 7])
def test_all_is_read_whatever_the_order(kernels, messages):
    """No rule is broken on any schedule seed."""
    for seed in (None, 1, 2):
        run = scenarios.multicast(kernels=kernels, messages=messages, schedule_seed=seed)
        assert checks.all(run) == []


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 6), st.integers(0, 12), st.integers(1, 8), st.integers(0, 10**6), st.booleans()
)
def test_any_size_keeps_the_rules(kernels, messages, slots, seed, two):
    """Small rings, many readers, two channels: nothing is lost, doubled or freed early."""
    run = scenarios.multicast(
        kernels=kernels, messages=messages, slots=slots, schedule_seed=seed, openers=1 + two
    )
    assert checks.multicast_reaches_each_member_once(run) is None


def test_a_full_channel_refuses():
    """-EAGAIN, and no ticket is taken."""
    run = scenarios.multicast(messages=70, slots=4)
    kinds = run.trace.kinds()
    assert kinds["McastRefused"] + kinds["McastTicketTaken"] == 70
    assert checks.all(run) == []


def test_without_a_lock_two_kernels_get_one_channel():
    """lock_chan() is empty in G1: both look before either takes. With a lock they get two."""
    raced = scenarios.multicast(openers=2, lock="as coded")
    assert [r.event.channel for r in raced.trace.records(ChannelTaken)] == [0, 0]
    assert raced.trace.next(CloseRefused).event == CloseRefused(0, 0, 1)
    assert checks.multicast_reaches_each_member_once(raced)
    locked = scenarios.multicast(openers=2)
    assert [r.event.channel for r in locked.trace.records(ChannelTaken)] == [0, 1]


def test_a_dead_member_fills_the_channel_for_all():
    """As coded nobody reads for it: after 64 messages the channel is full for ever."""
    run = scenarios.multicast(victim=2, removed=False, messages=80)
    assert run.trace.kinds()["McastWritten"] == 64
    assert run.trace.next(McastSlotFreed) is None
    assert ("kernel 0", "McastSlotFreed, channel=0") in run.waiting


def test_removing_the_dead_member_frees_what_only_it_had_not_read():
    """The model's correction: the owner takes it out, and can close the channel."""
    run = scenarios.multicast(victim=2, messages=10)
    assert run.trace.kinds()["McastSlotFreed"] == 10
    assert run.trace.kinds()["ChannelClosed"] == 1
    assert checks.multicast_reaches_each_member_once(run) is None


def test_who_is_no_member_cannot_open():
    """The opener must be in its own mask."""
    world = scenarios.multicast().at(1)
    told = [r.event for r in walk(multicast.open_channel(world, 0, 0b110), world)]
    assert told == [OpenRefused(0, "it is not one of the members")]


def test_there_are_32_channels():
    """The 33rd open is refused."""
    world = scenarios.multicast().at(1)
    for channel in range(CHANNELS):
        world.apply(ChannelTaken(channel, 1, 0b10))
    told = [r.event for r in walk(multicast.open_channel(world, 0, 0b1), world)]
    assert told == [OpenRefused(0, "all 32 channels are taken")]


def test_only_the_owner_closes():
    """Somebody else's close is refused by name."""
    run = scenarios.multicast()
    world = run.at(run.trace.next(ChannelTaken).seq + 1)
    told = [r.event for r in walk(multicast.close_channel(world, 3, 0), world)]
    assert told == [CloseRefused(3, 0, 0)]


def test_a_sender_that_gives_up_leaves_a_hole():
    """It took its ticket after its look; the slot stays in use; two jiffies later it goes."""

    def second(world):
        yield from multicast.mcast_send(world, 1, 0, 7)

    run = scenarios.multicast(messages=2, slots=2, victim=2, removed=False)
    world = run.world
    world.apply(McastTicketTaken(0, 2, 3))
    told = [r.event for r in walk(second(world), world)]
    assert told == [McastRefused(0, 1)]
    hole = McastGaveUp(0, 2, 3)
    forked = run.fork(len(run) - 1, say=hole)
    finding = checks.multicast_reaches_each_member_once(forked)
    assert finding and "nothing written" in finding.sentence


@pytest.mark.parametrize("kind", [McastWritten, ChannelMapped])
def test_what_goes_missing_is_found(kind):
    """The planted bugs: a write that is lost, a member that never maps."""
    run = scenarios.multicast(messages=4)
    at = [r for r in run.trace.records(kind) if getattr(r.event, "kernel", 1)][0].seq
    broken = run.fork(at, drop=True)
    assert checks.all(broken) or broken.trace.kinds()["McastRead"] < 12


def test_members_of_a_mask():
    """Bit n is kernel n."""
    assert members_of(0b1011) == [0, 1, 3]


@pytest.mark.parametrize(
    "wrong", [{"lock": "spin"}, {"openers": 3}, {"victim": 0}, {"victim": 9}, {"messages": -1}]
)
def test_bad_input_is_named(wrong):
    """A clear error for each."""
    ((name, value),) = wrong.items()
    with pytest.raises(PopcornError, match=f"{name}={value!r}"):
        scenarios.multicast(**wrong)


def test_messages_of_opening_are_of_their_types():
    """MCAST opens, MCAST_CLOSE closes."""
    run = scenarios.multicast(messages=0)
    types = {r.event.type for r in run.trace.records() if hasattr(r.event, "type")}
    assert types == {MessageType.MCAST, MessageType.MCAST_CLOSE}

"""Messages longer than a slot: how many chunks, in which order, and what gets mixed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import walk
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import long_messages
from popcorn_edu.model.long_messages import (
    Chunk,
    ChunkLost,
    ChunkStored,
    LongMessageComplete,
    LongMessageCorrupted,
    LongSendBegun,
    TailOverread,
    bytes_at_most,
    chunks,
    chunks_at_most,
    pack,
    unpack,
)
from popcorn_edu.model.messaging import BudgetSpent
from popcorn_edu.model.rings import PayloadCopied, SenderBlocked
from popcorn_edu.readers import checks


@pytest.mark.parametrize(
    ("size", "payload", "count"),
    [(0, 60, 1), (1, 60, 1), (60, 60, 1), (61, 60, 2), (4_096, 60, 69), (4_096, 115, 36)],
)
def test_a_message_has_as_many_chunks_as_it_needs(size, payload, count):
    """Rounded up; a page is 69 chunks of G1 and 36 of G2."""
    assert chunks(size, payload) == count


def test_the_limits_are_those_of_the_header():
    """7 bits count to 127 chunks, 7,620 bytes (G1); 15 bits to 32,767 (G2)."""
    assert (chunks_at_most("G1"), bytes_at_most("G1")) == (127, 7_620)
    assert chunks_at_most("G2") == 32_767


@given(st.booleans(), st.booleans(), st.integers(0, 32_767), st.integers(0, 2**40))
def test_a_header_survives_its_packing(start, end, seqnum, number):
    """What is packed into the payload comes out again."""
    assert unpack(pack(Chunk(start, end, seqnum, number))) == (start, end, seqnum, number)


def test_the_longest_message_is_sent_and_a_longer_one_refused():
    """7,620 bytes are 127 chunks; one byte more is an error that names the limit."""
    run = scenarios.long_message(size_bytes=7_620)
    assert run.trace.next(LongSendBegun).event.chunks == 127
    assert run.trace.kinds()["LongMessageComplete"] == 1
    with pytest.raises(PopcornError, match="7,621 bytes has 128 chunks.* 7,620 bytes are the most"):
        scenarios.long_message(size_bytes=7_621)


def test_a_page_does_not_fit_an_empty_ring():
    """69 chunks, 64 slots: with a receiver at rest the sender must wait in the middle."""
    run = scenarios.long_message()
    world = run.start()
    world.apply(run.trace[0].event)
    told = [r.event for r in walk(long_messages.send_long(world, 1, 0, 4_096), world)]
    assert type(told[-1]) is SenderBlocked and told[-1].ticket == 64


def test_the_last_chunk_takes_along_what_lies_behind():
    """69 x 60 are 4,140 bytes: 44 more than the page has."""
    run = scenarios.long_message()
    assert run.trace.next(TailOverread).event.bytes == 44
    assert scenarios.long_message(size_bytes=120).trace.next(TailOverread) is None


def test_a_chunk_counts_for_nothing_until_the_last():
    """With a budget of 1 message the poll reads all 69 chunks before it has spent it."""
    run = scenarios.long_message()
    run = run.fork(1, budget=1)
    spent = run.trace.next(BudgetSpent)
    stored = [r for r in run.trace.records(PayloadCopied) if r.seq < spent.seq]
    assert len(stored) == 69


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 60, 61, 300, 4_096])
def test_numbered_chunks_find_together(size, at_once):
    """With a number in each chunk all messages arrive whole, in whatever order they come."""
    for seed in range(3):
        run = scenarios.long_message(size_bytes=size, at_once=at_once, schedule_seed=seed, slots=16)
        assert run.trace.kinds()["LongMessageComplete"] == at_once
        assert checks.all(run) == []


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_one_buffer_for_each_sender_mixes_two_messages(seed):
    """G1's buffer belongs to the sending kernel: two long sends at once spoil each other."""
    run = scenarios.long_message(
        at_once=2, long_rule="per sender", size_bytes=300, schedule_seed=seed
    )
    kinds = run.trace.kinds()
    assert kinds.get("LongMessageCorrupted", 0) + kinds.get("ChunkLost", 0) > 0
    finding = checks.long_messages_arrive_whole(run)
    assert finding and type(run.trace[finding.seq].event) in (
        ChunkStored, ChunkLost, LongMessageCorrupted,
    )  # fmt: skip


def test_one_long_message_at_a_time_is_safe_in_g1():
    """The negative control: alone, one buffer for each sender is enough."""
    run = scenarios.long_message(long_rule="per sender")
    assert checks.all(run) == [] and run.trace.next(LongMessageComplete).event.chunks == 69


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_any_interleaving_of_numbered_chunks_is_put_together(sizes, rnd):
    """Reassembly alone: chunks of several messages of one sender, in any merge of their orders."""
    run = scenarios.long_message(size_bytes=60)
    world, queues = run.start(), []
    for number, size in enumerate(sizes):
        queues.append(
            [Chunk(n == 0, n == size - 1, size if n == 0 else n, number) for n in range(size)]
        )
    whole = []
    while any(queues):
        queue = rnd.choice([q for q in queues if q])
        message = PayloadCopied(0, 0, 0, 1, 0, 1, 1, pack(queue.pop(0)))
        for record in walk(long_messages.reassemble(world, 0, message), world):
            if type(record.event) is LongMessageComplete:
                whole.append((record.event.number, record.event.chunks))
    assert sorted(whole) == list(enumerate(sizes))


def test_a_message_that_never_ends_is_found():
    """The planted bug: the sender ends, and one chunk was dropped on the way."""
    run = scenarios.long_message(size_bytes=180)
    lost = run.fork(run.trace.next(ChunkStored, place=1).seq, drop=True)
    assert checks.long_messages_arrive_whole(lost)

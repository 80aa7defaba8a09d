"""The ring: tickets, slots, the ready flag, and what full means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from popcorn_edu.engine.world import World, WorldError
from popcorn_edu.model import rings
from popcorn_edu.model.messaging import Setup
from popcorn_edu.model.rings import (
    AllRegistered,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    MessageType,
    PayloadCopied,
    Priority,
    Rings,
    SlotReady,
    TicketTaken,
    WindowPublished,
    is_empty,
    must_wait,
    next_is_ready,
)
from popcorn_edu.scenarios import make_setup

SLOTS = 4


@pytest.fixture
def setup() -> Setup:
    return make_setup("magny-cours-48", 3, slots=SLOTS)


@pytest.fixture
def world(setup) -> World:
    world = World(setup, rings=Rings)
    world.apply(AllRegistered(3))
    return world


def put(world, ticket, sender=1, ring=0):
    """A whole message, as its sender's three records."""
    slot = ticket % SLOTS
    world.apply(TicketTaken(ring, ticket, sender, ticket))
    world.apply(message(ticket, sender, ring))
    world.apply(SlotReady(ring, slot, ticket, sender))


def message(ticket, sender=1, ring=0) -> PayloadCopied:
    kind, priority = MessageType.TEST, Priority.NORMAL
    return PayloadCopied(ring, ticket % SLOTS, ticket, sender, ticket, kind, priority, 7)


def get(world, ticket, sender=1, ring=0):
    world.apply(MessageRead(*message(ticket, sender, ring)))


class TestSizes:
    """The structures of the first generation, to the byte."""

    def test_a_slot_holds_a_header_and_60_bytes(self):
        """Four bytes of header, which come last in the ring."""
        assert rings.SLOT_BYTES == rings.PAYLOAD_BYTES + 4 == 64

    def test_a_window_is_4113_bytes(self):
        """head and tail of 8 bytes, one byte int_enabled, 64 slots, packed."""
        assert rings.BUFFER_OFFSET_BYTES == 8 + 8 + 1
        assert rings.WINDOW_BYTES == 17 + rings.RING_SLOTS * rings.SLOT_BYTES == 4113

    def test_every_slot_straddles_two_cache_lines(self):
        """Because the buffer begins at byte 17: the reason why a copy costs two transfers."""
        for slot in range(rings.RING_SLOTS):
            first = rings.BUFFER_OFFSET_BYTES + slot * rings.SLOT_BYTES
            assert first // 64 != (first + rings.SLOT_BYTES - 1) // 64

    def test_a_page_does_not_fit_into_an_empty_ring(self):
        """4,096 bytes are 69 messages: the sender must wait for the receiver half-way."""
        assert -(-4096 // rings.PAYLOAD_BYTES) == 69 > rings.RING_SLOTS


class TestLife:
    def test_a_window_starts_empty_with_interrupts_enabled(self, setup):
        """head = tail = 0 and int_enabled = 1, from the moment it is published."""
        world = World(setup, rings=Rings)
        world.apply(WindowPublished(2, 0x2000000))
        assert world.rings.head == world.rings.tail == {2: 0}
        assert world.rings.int_enabled == {2: 1}
        assert is_empty(world, 2)

    def test_all_registered_publishes_every_window(self, world):
        """The model's shortcut, for labs about something else."""
        assert world.rings.head == world.rings.tail == {0: 0, 1: 0, 2: 0}

    def test_a_ticket_moves_head(self, world):
        """Before anything is in the slot: the ring is not empty, and nothing is ready."""
        world.apply(TicketTaken(0, 0, 1, 0))
        assert (world.rings.head[0], world.rings.tail[0]) == (1, 0)
        assert world.rings.taken == {(0, 0): 1}
        assert not is_empty(world, 0)
        assert not next_is_ready(world, 0)

    def test_a_copied_message_is_not_yet_ready(self, world):
        """The flag is a step of its own, and the last."""
        world.apply(TicketTaken(0, 0, 1, 0))
        world.apply(message(0))
        assert world.rings.slots == {(0, 0): message(0)}
        assert not next_is_ready(world, 0)
        world.apply(SlotReady(0, 0, 0, 1))
        assert next_is_ready(world, 0)

    def test_reading_frees_the_slot_and_moves_tail(self, world):
        """Nothing of the message stays behind in the ring."""
        put(world, 0)
        get(world, 0)
        assert world.rings.tail[0] == 1
        assert world.rings.slots == world.rings.ready == world.rings.taken == {}
        assert is_empty(world, 0)

    def test_only_the_one_at_the_tail_counts(self, world):
        """A later message that is ready does not help: head-of-line blocking."""
        world.apply(TicketTaken(0, 0, 2, 0))
        put(world, 1)
        assert not next_is_ready(world, 0)

    def test_a_ready_flag_of_the_last_round_does_not_count(self, world):
        """The flag carries the ticket, so an old one is told from a new one."""
        for ticket in range(SLOTS):
            put(world, ticket)
            get(world, ticket)
        world.rings.ready[0, 0] = 0  # as if nobody had cleared it
        world.apply(TicketTaken(0, SLOTS, 1, 9))
        assert not next_is_ready(world, 0)

    def test_rings_are_independent(self, world):
        """Each kernel has its own."""
        put(world, 0, sender=1, ring=0)
        put(world, 0, sender=2, ring=1)
        get(world, 0, sender=2, ring=1)
        assert is_empty(world, 1) and not is_empty(world, 0)

    def test_int_enabled_is_a_byte_in_the_window(self, world):
        """Everybody may read it."""
        world.apply(InterruptsDisabled(1))
        assert world.rings.int_enabled == {0: 1, 1: 0, 2: 1}
        world.apply(InterruptsEnabled(1))
        assert world.rings.int_enabled[1] == 1

    def test_an_empty_slot_cannot_be_read(self, world):
        """Nor can a message be read twice."""
        put(world, 0)
        get(world, 0)
        with pytest.raises(WorldError, match="slot 0 of ring 0 is empty: there is no message to"):
            get(world, 0)


class TestFull:
    @given(read=st.integers(0, 9), ahead=st.integers(0, 9))
    def test_own_slot_waits_for_ones_own_slot(self, read, ahead):
        """The holder of a ticket waits exactly while the ticket SLOTS before it is unread."""
        world = World(make_setup("magny-cours-48", 2, slots=SLOTS), rings=Rings)
        world.rings.tail[0], world.rings.head[0] = read, read + ahead + 1
        ticket = read + ahead
        assert must_wait(world, 0, ticket) is (ticket - SLOTS >= read)

    def test_head_minus_tail_may_exceed_the_slots(self, world):
        """Tickets are taken before there is space; what is bounded is the slots in use."""
        for ticket in range(SLOTS):
            put(world, ticket)
        for ticket in range(SLOTS, SLOTS + 3):
            world.apply(TicketTaken(0, ticket, 2, ticket))
        assert world.rings.head[0] - world.rings.tail[0] == SLOTS + 3
        assert len(world.rings.slots) == SLOTS
        assert [must_wait(world, 0, ticket) for ticket in (3, 4, 5, 6)] == [False, True, True, True]

    def test_whole_ring_counts_the_tickets_taken_after_ones_own(self, setup):
        """As G1 is coded: the holder of the ticket at the tail may wait for those behind it."""
        whole = make_setup("magny-cours-48", 3, slots=SLOTS, full_rule="whole ring")
        for chosen, waits in ((setup, False), (whole, True)):
            world = World(chosen, rings=Rings)
            world.apply(AllRegistered(3))
            for ticket in range(SLOTS):
                world.apply(TicketTaken(0, ticket, 1 + ticket % 2, ticket))
            assert must_wait(world, 0, 0) is waits


class TestWords:
    def test_each_event_says_what_happens_and_why(self):
        """A sentence, a reason, and the identifier in the real source."""
        kinds = [
            kind
            for kind in vars(rings).values()
            if isinstance(kind, type)
            and kind.__module__ == rings.__name__
            and hasattr(kind, "says")
        ]
        assert len(kinds) >= 11
        for kind in kinds:
            assert len(kind.__doc__) > 60, kind
            assert "G1" in kind.popcorn or "G2" in kind.popcorn, kind
            sentence = str(kind(*[1] * len(kind.fields)))
            assert "{" not in sentence and len(sentence) > 20, kind

    def test_the_words_of_a_message(self):
        """HIGH before NORMAL, by number too."""
        assert [str(priority) for priority in Priority] == ["HIGH", "NORMAL"]
        assert "message 3 (TEST, NORMAL) into slot 3 of ring 0" in str(message(3))

"""The shared-memory ring through which one kernel receives messages.

Each kernel owns one receive window in its own RAM and publishes its physical address; every
other kernel maps it and writes into it. So a ring has many senders and one receiver, and it
carries the number of the kernel that reads it.

Words
    window      the memory: head, tail, int_enabled and 64 slots of 64 bytes
    head        how many tickets were ever taken (a sender adds 1, atomically)
    tail        how many messages were ever read (only the receiver writes it)
    ticket      a sender's turn: the value of head before its own addition
    slot        ticket modulo the number of slots
    ready       the flag in the last byte of a slot, written after everything else
    full        the slot of a ticket still holds a message that nobody has read

Tickets are taken before there is space, so head - tail may exceed the number of slots; what
never exceeds it is the number of slots in use.

Facts: popcorn-facts section 5.2 and 5.5; the structures are G1's ``pcn_kmsg_window`` and
``pcn_kmsg_reverse_message``.
"""

from __future__ import annotations

from popcorn_edu.engine.trace import Event, Word
from popcorn_edu.engine.world import Part, WorldError

RING_SLOTS = 64  # [C] G1 include/linux/pcn_kmsg.h
SLOT_BYTES = 64  # [C] same; the header is last, so that `ready` is the last byte written
PAYLOAD_BYTES = 60  # [C] same
WINDOW_BYTES = 4_113  # [D] head 8 + tail 8 + int_enabled 1 + 64 slots of 64 bytes, packed
IS_LONG, LG_END = 1, 4  # [C] is_lg_msg, lg_end: bits in the payload of a chunk, long_messages.py
BUFFER_OFFSET_BYTES = 17  # [D] so every slot straddles two cache lines


class Priority(Word):
    """A message's priority. HIGH callbacks run before NORMAL ones."""

    HIGH = 0
    NORMAL = 1


class MessageType(Word):
    """What a message is about; one callback per type and kernel (prefix PCN_KMSG_TYPE_)."""

    TEST = 0
    TEST_LONG = 1
    CHECKIN = 2
    MCAST = 3
    PING = 4  # not Popcorn's: the model's own request and answer for the two-kernel labs
    PONG = 5
    KEEPALIVE = 6  # G2's
    SERVICE = 7  # not Popcorn's: registering for a service, and being told of one
    MCAST_CLOSE = 8


# -- events -------------------------------------------------------------------------------------


class WindowPublished(Event):
    """A kernel makes its own receive window, empty and with interrupts enabled, and writes its
    physical address into rkinfo: from now on others can find it."""

    says = "kernel {kernel} publishes its window at {address:#x} in rkinfo"
    popcorn = "rkinfo->phys_addr[my_cpu] = virt_to_phys(...) (G1)"
    memory = "store"
    kernel: int
    address: int


class AllRegistered(Event):
    """A shortcut of the model, where a lab is about something else: the kernels have booted,
    mapped each other's windows and registered their callbacks."""

    says = "{kernels} kernels have registered and mapped each other's windows"
    popcorn = "the state after pcn_kmsg_init() and all check-ins (G1)"
    kernels: int


class TicketTaken(Event):
    """A sender adds 1 to head with one atomic instruction. The old value is its ticket: nobody
    else can get the same one, so no lock is needed to decide whose slot it is."""

    says = "kernel {sender} takes ticket {ticket} of ring {ring} for its message {number}"
    popcorn = "win_put(): fetch_and_add(&win->head, 1), kernel/pcn_kmsg.c (G1)"
    memory = "locked"
    ring: int
    ticket: int
    sender: int
    number: int


class SenderBlocked(Event):
    """The ring is full. A G1 sender neither gives up nor sleeps: it spins until there is space.
    Full does not mean loss here, and it does not mean an error either (misconception M8)."""

    says = "kernel {sender} finds ring {ring} full and spins with ticket {ticket} (tail is {tail})"
    popcorn = "win_put(): spin while head - tail >= 64 (G1)"
    ring: int
    ticket: int
    sender: int
    tail: int


class SenderSlept(Event):
    """The later Popcorn (G2) has mercy with the processor: a sender that meets a full ring sleeps
    for a millisecond, looks, and sleeps again. It gives up the CPU, and hears late of the space."""

    says = (
        "kernel {sender} finds ring {ring} full, holds ticket {ticket} and sleeps (tail is {tail})"
    )
    popcorn = "msleep(1) while last_ticket or ready say the slot is in use (G2)"
    ring: int
    ticket: int
    sender: int
    tail: int


class SendRefused(Event):
    """The ring is full and this sender does not wait: it takes no ticket and gets an error. What
    it does with the error is its own affair; a message whose error nobody reads is lost (M8)."""

    says = "kernel {sender} finds ring {ring} full: the send returns {returns}"
    popcorn = "pcn_kmsg_send_noblock(): -EAGAIN (G1); -ENOSPC (the 2025 multikernel patches)"
    ring: int
    sender: int
    returns: str


class PayloadCopied(Event):
    """The message goes into the slot: the payload first, then the header. It is in memory now,
    but the receiver must not look at it yet."""

    says = (
        "kernel {sender} copies message {number} ({type}, {priority}) "
        "into slot {slot} of ring {ring}"
    )
    popcorn = "win_put(): copy of payload and header (G1)"
    memory = "covered"  # by the ready flag: nobody may look before that
    ring: int
    slot: int
    ticket: int
    sender: int
    number: int
    type: MessageType
    priority: Priority
    payload: int


class SlotReady(Event):
    """The ready flag is written last, after a compiler barrier. A receiver that sees the flag
    therefore sees the whole message."""

    says = "kernel {sender} marks slot {slot} of ring {ring} ready (ticket {ticket})"
    popcorn = "win_put(): barrier(), then ready = 1 (G1)"
    memory = "store"
    ring: int
    slot: int
    ticket: int
    sender: int


class HeadOfLineWait(Event):
    """The receiver takes messages strictly in ticket order. If the next one is not ready it
    spins for it, even if later ones are: head-of-line blocking."""

    says = (
        "kernel {ring} must wait for ticket {ticket} of kernel {sender}: slot {slot} is not ready"
    )
    popcorn = "win_get(): spin on ready (G1)"
    ring: int
    slot: int
    ticket: int
    sender: int


class MessageRead(Event):
    """The receiver copies the message out of the slot to its own heap, puts it on the list of
    its priority and adds 1 to tail. The slot is free for the ticket 64 further on."""

    says = (
        "kernel {ring} reads message {number} of kernel {sender} from slot {slot} (ticket {ticket})"
    )
    popcorn = "win_get(), then list_add_tail() to msglist_hiprio or msglist_normprio (G1)"
    memory = "store"
    ring: int
    slot: int
    ticket: int
    sender: int
    number: int
    type: MessageType
    priority: Priority
    payload: int


class RingSeenEmpty(Event):
    """Head equals tail, so there is nothing to read: at this moment. A message can arrive before
    the receiver has done anything about it."""

    says = "kernel {ring} finds its ring empty after {read} messages"
    popcorn = "win_get() returns -1 (G1)"
    ring: int
    read: int


class InterruptsEnabled(Event):
    """The receiver asks for interrupts again. A sender who looked at the flag before this moment
    saw 0 and sent no interrupt, whatever it put into the ring."""

    says = "kernel {ring} sets int_enabled = 1: senders shall interrupt it again"
    popcorn = "pcn_kmsg_action(): rkvirt[my_cpu]->int_enabled = 1 (G1)"
    memory = "store"
    ring: int


class InterruptsDisabled(Event):
    """While the receiver polls, an interrupt would only cost time: it will find the message
    anyway. So it tells the senders not to send any."""

    says = "kernel {ring} sets int_enabled = 0: it is polling, no interrupts please"
    popcorn = "int_enabled = 0 (G1)"
    memory = "store"
    ring: int


# -- tables -------------------------------------------------------------------------------------


class Rings(Part):
    """The windows, all in shared memory: any kernel may read any of it.

    head, tail, int_enabled   [ring] -> int
    taken                     [ring, ticket] -> the sender that holds it, until it is read
    slots                     [ring, slot] -> the PayloadCopied event: what is in the slot
    ready                     [ring, slot] -> the ticket whose message is ready there
    """

    tables = ("head", "tail", "int_enabled", "taken", "slots", "ready")

    def window_published(self, event: WindowPublished) -> None:
        self.head[event.kernel] = self.tail[event.kernel] = 0
        self.int_enabled[event.kernel] = 1

    def all_registered(self, event: AllRegistered) -> None:
        for kernel in range(event.kernels):
            self.window_published(WindowPublished(kernel, 0))

    def ticket_taken(self, event: TicketTaken) -> None:
        ring, ticket, sender, _ = event
        self.head[ring] = ticket + 1
        self.taken[ring, ticket] = sender

    def payload_copied(self, event: PayloadCopied) -> None:
        self.slots[event[0], event[1]] = event

    def slot_ready(self, event: SlotReady) -> None:
        ring, slot, ticket, _ = event
        self.ready[ring, slot] = ticket

    def message_read(self, event: MessageRead) -> None:
        ring, slot, ticket = event[:3]
        where = ring, slot
        try:
            del self.slots[where]
        except KeyError:
            raise WorldError(
                f"slot {slot} of ring {ring} is empty: there is no message to read"
            ) from None
        self.ready.pop(where, None)
        self.taken.pop((ring, ticket), None)
        self.tail[ring] += 1

    def interrupts_enabled(self, event: InterruptsEnabled) -> None:
        self.int_enabled[event[0]] = 1

    def interrupts_disabled(self, event: InterruptsDisabled) -> None:
        self.int_enabled[event[0]] = 0

    applies = {
        WindowPublished: window_published,
        AllRegistered: all_registered,
        TicketTaken: ticket_taken,
        PayloadCopied: payload_copied,
        SlotReady: slot_ready,
        MessageRead: message_read,
        InterruptsEnabled: interrupts_enabled,
        InterruptsDisabled: interrupts_disabled,
    }


# -- looks, which stories share -----------------------------------------------------------------


def is_empty(world, ring: int) -> bool:
    """Nobody has taken a ticket that is not read yet."""
    return world.rings.head[ring] == world.rings.tail[ring]


def next_is_ready(world, ring: int) -> bool:
    """The message at the tail is there and whole."""
    tail = world.rings.tail[ring]
    return world.rings.ready.get((ring, tail % world.setup.slots)) == tail


def must_wait(world, ring: int, ticket: int) -> bool:
    """May the holder of this ticket not write yet? Two rules, see ``Setup.full_rule``."""
    if world.setup.full_rule == "whole ring":
        return is_full(world, ring)
    return ticket - world.rings.tail[ring] >= world.setup.slots


def is_full(world, ring: int) -> bool:
    """As many tickets are out as there are slots, or more."""
    return world.rings.head[ring] - world.rings.tail[ring] >= world.setup.slots

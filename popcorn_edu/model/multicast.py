"""One message for many kernels: multicast channels.

A channel is a ring of its own, in its owner's memory, that all its members read. A sender writes
once and interrupts every member; each reader keeps its own place in the ring (local_tail), and the
last one to read a slot frees it. So a channel is as slow as its slowest member.

Words
    channel       one of 32; who opens it owns it, and only the owner may close it
    members       the kernels that read it, as a bit mask; the opener must be one of them
    local_tail    how far one member has read
    read counter  how many members have not read a slot yet. Popcorn keeps the number; the model
                  keeps which, so that one can see it (``unread``), and so that a member can be
                  taken out
    hole          a ticket whose sender gave up: nobody ever gets past it

Facts: popcorn-facts sections 5.2 and 5.7. As coded in G1: lock_chan() is an empty function, so two
kernels that open at the same time can get the same channel; a dead member never reads, so its
slots are never freed; adding and removing members is not implemented. ``lock="real"`` and
``remove_dead`` are the model's corrections.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Mapping
from typing import NamedTuple

from popcorn_edu.engine.steps import Begin, Delay, Until
from popcorn_edu.engine.trace import Event
from popcorn_edu.engine.world import Part
from popcorn_edu.model import messaging
from popcorn_edu.model.boot import KernelPanicked
from popcorn_edu.model.messaging import send_ipi
from popcorn_edu.model.rings import (
    RING_SLOTS,
    SLOT_BYTES,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageType,
    Priority,
)

CHANNELS = 32  # [C] include/linux/pcn_kmsg.h
KERNELS_AT_MOST = messaging.KERNELS_AT_MOST
JIFFY_NS = 10_000_000  # [I] HZ=100, as lapic_timer=1000000 suggests
GIVE_UP_NS = 2 * JIFFY_NS  # [C] a sender waits 2 jiffies for its slot
LOCKS = ("as coded", "real")


class _Window(ctypes.LittleEndianStructure):
    """pcn_kmsg_mcast_window: head, tail, a counter for each slot, the slots."""

    _pack_ = 1
    _fields_ = [
        ("head", ctypes.c_uint64),
        ("tail", ctypes.c_uint64),
        ("read_counter", ctypes.c_uint32 * RING_SLOTS),
        ("buffer", ctypes.c_uint8 * SLOT_BYTES * RING_SLOTS),
    ]


WINDOW_BYTES = ctypes.sizeof(_Window)  # [D] 4,368


def members_of(mask: int) -> list[int]:
    """The kernels of a mask, ascending."""
    return [kernel for kernel in range(mask.bit_length()) if mask >> kernel & 1]


# -- events -------------------------------------------------------------------------------------


class ChannelTaken(Event):
    """The first free channel is the opener's. Between looking for it and taking it somebody else
    may have looked too: there should be a lock, and in G1 it is an empty function."""

    says = "kernel {owner} opens channel {channel} for the members {members:#b}"
    popcorn = "pcn_kmsg_mcast_open(): first free of 32; lock_chan() is empty (G1)"
    channel: int
    owner: int
    members: int


class OpenRefused(Event):
    """A channel is for kernels that read it: whoever opens it must be one of them; and there are
    only 32."""

    says = "kernel {kernel} cannot open a channel: {why}"
    popcorn = "pcn_kmsg_mcast_open(): returns -1 (G1)"
    kernel: int
    why: str


class ChannelMapped(Event):
    """A member maps the channel's window; from here on it can read, beginning at local_tail."""

    says = "kernel {kernel} maps the window of channel {channel}"
    popcorn = "MCAST/OPEN callback, then kmsg_wq: ioremap_cache() (G1)"
    kernel: int
    channel: int


class McastTicketTaken(Event):
    """As in any ring: one atomic addition, and the place is the sender's."""

    says = "kernel {sender} takes ticket {ticket} of channel {channel}"
    popcorn = "mcastwin_put(): fetch_and_add(&head, 1) (G1)"
    memory = "locked"
    channel: int
    ticket: int
    sender: int


class McastRefused(Event):
    """The channel is full: its slowest member has not read what came 64 messages ago."""

    says = "kernel {sender} finds channel {channel} full: the send returns -EAGAIN"
    popcorn = "mcastwin_put(): -EAGAIN (G1)"
    channel: int
    sender: int


class McastGaveUp(Event):
    """It waited for two jiffies for its slot, and goes without having written. Its ticket is
    taken: the readers wait for a message that will never come."""

    says = "kernel {sender} gives up waiting with ticket {ticket} of channel {channel}: a hole"
    popcorn = "mcastwin_put(): returns -1 after 2 jiffies (G1)"
    channel: int
    ticket: int
    sender: int


class McastWritten(Event):
    """One write for all members: that is the point of it. The read counter says how many have not
    read it yet; the ready flag is written last."""

    says = "kernel {sender} writes message {payload} into slot {slot} of channel {channel}"
    popcorn = "mcastwin_put(): read_counter = members - 1, then ready = 1 (G1)"
    memory = "store"
    channel: int
    slot: int
    ticket: int
    sender: int
    payload: int


class McastRead(Event):
    """A member reads at its own pace. Its own messages it skips."""

    says = (
        "kernel {kernel} reads ticket {ticket} of channel {channel}: message {payload} of {sender}"
    )
    popcorn = "mcastwin_get(): atomic_dec(&read_counter) (G1)"
    memory = "locked"
    kernel: int
    channel: int
    ticket: int
    sender: int
    payload: int


class McastSkipped(Event):
    """What one sent oneself one need not read."""

    says = "kernel {kernel} skips ticket {ticket} of channel {channel}: its own"
    popcorn = "mcastwin_get(): from_cpu == my_cpu (G1)"
    kernel: int
    channel: int
    ticket: int


class McastSlotFreed(Event):
    """The last reader clears the ready flag and advances the tail that all share."""

    says = (
        "kernel {kernel} was the last to read ticket {ticket} of channel {channel}: slot "
        "{slot} is free"
    )
    popcorn = "mcastwin_get(): ready = 0, tail++ by the last reader (G1)"
    memory = "locked"
    kernel: int
    channel: int
    slot: int
    ticket: int


class MemberRemoved(Event):
    """The owner takes a dead member out, and its share of every slot with it. Not in Popcorn:
    there a dead member stops the channel for all, once it is full."""

    says = "kernel {owner} removes kernel {member} from channel {channel}"
    popcorn = "not in G1: pcn_kmsg_mcast_delete_members() is not implemented"
    channel: int
    owner: int
    member: int


class CloseRefused(Event):
    """Only who opened a channel may close it."""

    says = "kernel {kernel} may not close channel {channel}: kernel {owner} owns it"
    popcorn = "pcn_kmsg_mcast_close(): only the owner (G1)"
    kernel: int
    channel: int
    owner: int


class ChannelClosed(Event):
    """When all have read everything, the owner tells the members and frees the window."""

    says = "kernel {owner} closes channel {channel}"
    popcorn = "pcn_kmsg_mcast_close(): waits until tail == head (G1)"
    channel: int
    owner: int


class ChannelUnmapped(Event):
    """A member has heard that the channel is closed, and forgets its window."""

    says = "kernel {kernel} unmaps the window of channel {channel}"
    popcorn = "MCAST_CLOSE callback (G1)"
    kernel: int
    channel: int


# -- tables -------------------------------------------------------------------------------------


class Multicast(Part):
    """owner, members     [channel] -> kernel, bit mask (rkinfo's mcast_wininfo: shared)
    head, tail         [channel] -> tickets taken, slots freed
    slots              [channel, slot] -> the McastWritten event
    unread             [channel, slot] -> bit mask of the members that have not read it
    local_tail         [kernel, channel] -> how far the kernel has read; there if it has mapped it
    """

    tables = ("owner", "members", "head", "tail", "slots", "unread", "local_tail")
    private = ("local_tail",)

    def channel_taken(self, event: ChannelTaken) -> None:
        channel = event.channel
        self.owner[channel], self.members[channel] = event.owner, event.members
        self.head[channel] = self.tail[channel] = 0
        for where in [where for where in self.slots if where[0] == channel]:  # another's window
            del self.slots[where], self.unread[where]

    def channel_mapped(self, event: ChannelMapped) -> None:
        self.local_tail[event.kernel, event.channel] = 0

    def ticket_taken(self, event: McastTicketTaken) -> None:
        self.head[event.channel] = event.ticket + 1

    def written(self, event: McastWritten) -> None:
        where = event.channel, event.slot
        self.slots[where] = event
        self.unread[where] = self.members[event.channel] & ~(1 << event.sender)

    def read(self, event: McastRead) -> None:
        where = event.channel, event.ticket % self.setup.slots
        self.unread[where] &= ~(1 << event.kernel)
        self.local_tail[event.kernel, event.channel] = event.ticket + 1

    def skipped(self, event: McastSkipped) -> None:
        self.local_tail[event.kernel, event.channel] = event.ticket + 1

    def slot_freed(self, event: McastSlotFreed) -> None:
        where = event.channel, event.slot
        del self.slots[where], self.unread[where]
        self.tail[event.channel] += 1

    def member_removed(self, event: MemberRemoved) -> None:
        self.members[event.channel] &= ~(1 << event.member)
        for where in self.unread:
            if where[0] == event.channel:
                self.unread[where] &= ~(1 << event.member)

    def channel_closed(self, event: ChannelClosed) -> None:
        self.owner.pop(event.channel, None)
        self.members.pop(event.channel, None)

    def channel_unmapped(self, event: ChannelUnmapped) -> None:
        self.local_tail.pop((event.kernel, event.channel), None)

    applies: Mapping = {
        ChannelTaken: channel_taken,
        ChannelMapped: channel_mapped,
        McastTicketTaken: ticket_taken,
        McastWritten: written,
        McastRead: read,
        McastSkipped: skipped,
        McastSlotFreed: slot_freed,
        MemberRemoved: member_removed,
        ChannelClosed: channel_closed,
        ChannelUnmapped: channel_unmapped,
    }


# -- stories: the owner -------------------------------------------------------------------------


def open_channel(world, me: int, mask: int, locked: bool = True) -> Generator:
    """Open a channel for the kernels of ``mask``; returns its number, or None."""
    if not mask >> me & 1:
        yield OpenRefused(me, "it is not one of the members")
        return None
    costs, mine = world.setup.costs, world.multicast
    if locked:
        yield costs.look(me)  # the lock is one's own for the look and the taking
    channel = next((n for n in range(CHANNELS) if n not in mine.owner), None)
    if not locked:
        yield costs.look(me)  # and here another may look as well
    if channel is None:
        yield OpenRefused(me, f"all {CHANNELS} channels are taken")
        return None
    yield ChannelTaken(channel, me, mask)
    yield ChannelMapped(me, channel)
    for member in members_of(mask):
        if member != me:
            yield from messaging.send(
                world, me, member, MessageType.MCAST, Priority.HIGH, payload=channel
            )
    return channel


def close_channel(world, me: int, channel: int) -> Generator:
    """Wait until all is read, tell the members, and free the channel."""
    mine = world.multicast
    if mine.owner.get(channel) != me:
        yield CloseRefused(me, channel, mine.owner.get(channel, -1))
        return
    while mine.tail[channel] != mine.head[channel]:
        yield Until(McastSlotFreed, channel=channel)
    for member in members_of(mine.members[channel]):
        if member != me:
            yield from messaging.send(
                world, me, member, MessageType.MCAST_CLOSE, Priority.NORMAL, payload=channel
            )
    yield ChannelUnmapped(me, channel)
    yield ChannelClosed(channel, me)


def remove_member(world, me: int, channel: int, member: int) -> Generator:
    """Take a dead member out; what only it had not read is free then."""
    mine, slots = world.multicast, world.setup.slots
    yield MemberRemoved(channel, me, member)
    for ticket in range(mine.tail[channel], mine.head[channel]):
        if mine.unread.get((channel, ticket % slots)) == 0:
            yield McastSlotFreed(me, channel, ticket % slots, ticket)


# -- stories: sending and receiving ---------------------------------------------------------------


def mcast_send(world, me: int, channel: int, payload: int) -> Generator:
    """One write for all, then an IPI for each member, whether it asks for one or not."""
    mine, setup = world.multicast, world.setup
    owner = mine.owner[channel]
    take_ticket, copy, _ = setup.costs.pair(me, owner) if me != owner else (
        setup.costs.look(me), setup.costs.look(me), None
    )  # fmt: skip
    yield setup.costs.look(me)
    if mine.head[channel] - mine.tail[channel] >= setup.slots:
        yield McastRefused(channel, me)
        return False
    yield take_ticket  # as coded: others may have taken the last places since the look
    ticket = mine.head[channel]
    yield McastTicketTaken(channel, ticket, me)
    slot = ticket % setup.slots
    while (channel, slot) in mine.slots:
        if not (yield Until(McastSlotFreed, channel=channel, slot=slot, within=GIVE_UP_NS)):
            yield McastGaveUp(channel, ticket, me)
            return False
    yield copy
    yield McastWritten(channel, slot, ticket, me, payload)
    for member in members_of(mine.members[channel]):
        if member != me:
            yield from send_ipi(world, me, member)
    return True


def poll_channels(world, me: int) -> Generator:
    """Read what is new in every channel that is mapped; stop at what is not ready."""
    mine, setup = world.multicast, world.setup
    for channel in range(CHANNELS):
        while mine.local_tail.get((me, channel), mine.head.get(channel, 0)) < mine.head.get(
            channel, 0
        ):
            ticket = mine.local_tail[me, channel]
            slot = ticket % setup.slots
            where = channel, slot
            message = mine.slots.get(where)
            if message is None or message.ticket != ticket:
                break  # its sender is not done: the IPI that it sends then comes here again
            if message.sender == me:
                yield McastSkipped(me, channel, ticket)
                continue
            yield setup.costs.pair(me, message.sender)[2]
            yield setup.costs.dispatch[me]
            if mine.local_tail.get((me, channel)) != ticket or mine.slots.get(where) != message:
                continue  # another one here was quicker, or the channel is somebody else's now
            yield McastRead(me, channel, ticket, message.sender, message.payload)
            if mine.unread.get(where) == 0:  # in one atomic step with the read
                yield McastSlotFreed(me, channel, slot, ticket)


def receive(world, me: int) -> Generator:
    """As messaging.receive, and before the callbacks all multicast windows are polled. Messages
    to all come with an interrupt each, so none of them can be slept over."""
    while True:
        read = yield from messaging.poll(world, me, world.setup.budget)
        if read == world.setup.budget:
            continue
        yield world.setup.costs.poll_exit[me]
        yield InterruptsEnabled(me)
        if not (yield from messaging.look_again(world, me)):
            break
        yield InterruptsDisabled(me)
    yield from poll_channels(world, me)
    yield from messaging.deliver(world, me)


def opened(world, me: int, message: Event) -> Generator:
    """The MCAST callback: a kernel thread maps the window."""
    yield Begin(f"kernel {me} kthread", map_channel(world, me, message.payload))


def map_channel(world, me: int, channel: int) -> Generator:
    yield world.setup.costs.kthread[me]
    yield ChannelMapped(me, channel)
    yield from poll_channels(world, me)  # what was sent before it could be read


def closed(world, me: int, message: Event) -> Generator:
    """The MCAST_CLOSE callback."""
    yield ChannelUnmapped(me, message.payload)


HANDLERS = {MessageType.MCAST: opened, MessageType.MCAST_CLOSE: closed}


class Plan(NamedTuple):
    """What the scenario's owner does."""

    mask: int
    messages: int
    locked: bool
    dead: int | None
    remove_dead: bool


def session(world, me: int, plan: Plan) -> Generator:
    """Open, send, close."""
    channel = yield from open_channel(world, me, plan.mask, plan.locked)
    if channel is None:
        return
    for payload in range(plan.messages):
        yield from mcast_send(world, me, channel, payload)
    if plan.dead is not None and plan.remove_dead:
        yield Delay(GIVE_UP_NS)  # model default: that long until it is known to be dead
        yield from remove_member(world, me, channel, plan.dead)
    yield from close_channel(world, me, channel)


def panic(world, me: int) -> Generator:
    """The dead member: it has mapped the channel, and reads nothing."""
    yield Until(ChannelMapped, kernel=me)
    yield KernelPanicked(me, "the scenario wants it dead")

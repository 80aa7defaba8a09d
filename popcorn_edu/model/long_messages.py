"""Messages that do not fit into one slot: cut into chunks, and put together again.

A slot carries 60 bytes (G1; 115 in G2). Whatever is longer goes as a row of ordinary messages, its
chunks. They are read in ticket order like all others, and the receiver copies each into a buffer,
until the last has come. Two things can go wrong. A page of 4,096 bytes has 69 chunks, and the ring
64 slots: the sender must wait in the middle of its message. And where the buffer belongs to the
sending kernel alone, as in G1, two long messages that one kernel sends at the same time get mixed.

Words
    chunk       one slot's share of a long message
    lg_start    set in the first chunk, whose lg_seqnum is the number of all chunks
    lg_end      set in the last; the others' lg_seqnum is their place
    number      which long message of its sender a chunk is of (long_number, G2). G1 has no such
                field; here it is always in the record, so that one can see what got mixed
    lg_buf      the receiver's buffer: one for each sending kernel (G1), or one for each message

Facts: popcorn-facts sections 5.2, 5.5 and 5.8. Popcorn reassembles while it polls; this model in
the callback of the chunk, which is called in the same order. The chunk's header is the ordinary
message's payload here, as the model's messages have no other content.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import NamedTuple

from popcorn_edu.engine.trace import Event, PopcornError
from popcorn_edu.engine.world import Part
from popcorn_edu.model import messaging
from popcorn_edu.model.rings import IS_LONG, LG_END, PAYLOAD_BYTES, MessageType, Priority

G2_PAYLOAD_BYTES = 115  # [D] G2: a 128-byte line without its 13 bytes of header
SEQNUM_BITS = {"G1": 7, "G2": 15}  # [C] lg_seqnum
LG_START = 2
SEQNUM_SHIFT, NUMBER_SHIFT = 3, 18
LONG_BYTES_AT_MOST = 2**40  # no such message exists; it keeps a slip from filling the memory


class Chunk(NamedTuple):
    """A chunk's header."""

    start: bool
    end: bool
    seqnum: int  # of the first: how many there are; of the others: its place
    number: int

    @property
    def place(self) -> int:
        return 0 if self.start else self.seqnum


def pack(chunk: Chunk) -> int:
    """The header as one number, which a message carries as its payload."""
    flags = IS_LONG | LG_START * chunk.start | LG_END * chunk.end
    return flags | chunk.seqnum << SEQNUM_SHIFT | chunk.number << NUMBER_SHIFT


def unpack(payload: int) -> Chunk:
    seqnum = payload >> SEQNUM_SHIFT & (1 << SEQNUM_BITS["G2"]) - 1
    number = payload >> NUMBER_SHIFT
    return Chunk(bool(payload & LG_START), bool(payload & LG_END), seqnum, number)


def chunks(size_bytes: int, payload_bytes: int = PAYLOAD_BYTES) -> int:
    """How many chunks a message of that size has; one at least."""
    if type(size_bytes) is not int or not 0 <= size_bytes <= LONG_BYTES_AT_MOST:
        raise PopcornError(f"size_bytes={size_bytes!r}: expected a whole number of bytes")
    return max(1, -(-size_bytes // payload_bytes))


def chunks_at_most(generation: str) -> int:
    """The largest number that fits into lg_seqnum."""
    return (1 << SEQNUM_BITS[generation]) - 1


def bytes_at_most(generation: str) -> int:
    """The longest message: every chunk full."""
    payload = PAYLOAD_BYTES if generation == "G1" else G2_PAYLOAD_BYTES
    return chunks_at_most(generation) * payload


def generation_of(payload_bytes: int) -> str:
    """Whose header goes with such a payload."""
    return "G1" if payload_bytes <= PAYLOAD_BYTES else "G2"


def check_size(size_bytes: int, payload_bytes: int) -> int:
    """How many chunks; a message that is too long is refused."""
    count, generation = chunks(size_bytes, payload_bytes), generation_of(payload_bytes)
    if count > chunks_at_most(generation):
        raise PopcornError(
            f"a message of {size_bytes:,} bytes has {count:,} chunks of {payload_bytes}; lg_seqnum "
            f"counts to {chunks_at_most(generation):,}, so "
            f"{chunks_at_most(generation) * payload_bytes:,} bytes are the most ({generation})"
        )
    return count


# -- events -------------------------------------------------------------------------------------


class LongSendBegun(Event):
    """A long message is cut into chunks. Each is a message of its own: it takes a ticket, may
    have to wait for its slot, and other senders' messages come in between."""

    says = (
        "kernel {sender} sends {size} bytes to kernel {to} in {chunks} chunks (long message "
        "{number})"
    )
    popcorn = "pcn_kmsg_send_long() (G1)"
    sender: int
    to: int
    number: int
    size: int
    chunks: int


class TailOverread(Event):
    """The last chunk is not full, but a full payload is copied all the same: bytes that are
    behind the message in the sender's memory go along, whatever they are."""

    says = (
        "kernel {sender} copies {bytes} bytes too many: what lies behind its long message {number}"
    )
    popcorn = "pcn_kmsg_send_long(): memcpy of a whole payload for the last chunk (G1, G2)"
    sender: int
    number: int
    bytes: int


class LongSendEnded(Event):
    """The last chunk is in the ring. Sent is not received (misconception M6)."""

    says = "kernel {sender} has sent all chunks of its long message {number} to kernel {to}"
    popcorn = "pcn_kmsg_send_long() returns (G1)"
    sender: int
    to: int
    number: int


class ChunkStored(Event):
    """The chunk goes into the buffer at its place. Which buffer? G1 knows only who sent it: if
    that kernel has begun another long message meanwhile, the chunk lands in the wrong one."""

    says = (
        "kernel {kernel} stores chunk {place} of long message {number} of kernel {sender} in the "
        "buffer of long message {into}"
    )
    popcorn = "lg_buf[from_cpu] (G1); found by long_number (G2)"
    kernel: int
    sender: int
    number: int
    place: int
    total: int
    into: int


class ChunkLost(Event):
    """There is no buffer for this chunk: the last chunk of another long message of the same
    kernel has ended it. The bytes are gone."""

    says = (
        "kernel {kernel} has no buffer for chunk {place} of long message {number} of kernel "
        "{sender}"
    )
    popcorn = "lg_buf[from_cpu] is NULL (G1)"
    kernel: int
    sender: int
    number: int
    place: int


class LongMessageComplete(Event):
    """All chunks are in their places: from here on it is one message, and its own callback sees
    it whole. Only now does it count against the poll's budget."""

    says = "kernel {kernel} has all {chunks} chunks of long message {number} of kernel {sender}"
    popcorn = "lg_end: append to msglist (G1)"
    kernel: int
    sender: int
    number: int
    chunks: int


class LongMessageCorrupted(Event):
    """The last chunk has come, so the buffer is handed over as if it were whole: but chunks of
    another message lie in it, or some are missing. Nobody notices: there is no checksum."""

    says = (
        "kernel {kernel} hands over long message {number} of kernel {sender} with {foreign} chunks "
        "of another and {missing} missing"
    )
    popcorn = "two interleaved long sends of one kernel share lg_buf[from_cpu] (G1)"
    kernel: int
    sender: int
    number: int
    foreign: int
    missing: int


# -- tables -------------------------------------------------------------------------------------


class LongMessages(Part):
    """begun    [kernel] -> how many long messages it has begun to send
    buffer   [kernel, sender, key] -> (number, total), key: 0 in G1, else the number
    stored   [kernel, sender, key, place] -> the number of the message whose chunk lies there
    """

    tables = ("begun", "buffer", "stored")
    private = ("begun", "buffer", "stored")

    def key(self, number: int) -> int:
        return 0 if self.setup.long_rule == "per sender" else number + 1

    def long_send_begun(self, event: LongSendBegun) -> None:
        self.begun[event.sender] = event.number + 1

    def chunk_stored(self, event: ChunkStored) -> None:
        buffer = event.kernel, event.sender, self.key(event.number)
        if event.place == 0:
            self._free(buffer)
            self.buffer[buffer] = event.number, event.total
        self.stored[(*buffer, event.place)] = event.number

    def ended(self, event: LongMessageComplete | LongMessageCorrupted) -> None:
        self._free((event.kernel, event.sender, self.key(event.number)))

    def _free(self, buffer: tuple[int, int, int]) -> None:
        self.buffer.pop(buffer, None)
        for place in [key for key in self.stored if key[:3] == buffer]:
            del self.stored[place]

    applies: Mapping = {
        LongSendBegun: long_send_begun,
        ChunkStored: chunk_stored,
        LongMessageComplete: ended,
        LongMessageCorrupted: ended,
    }


# -- stories ------------------------------------------------------------------------------------


def send_long(
    world, me: int, to: int, size_bytes: int, priority: Priority = Priority.NORMAL
) -> Generator:
    """Send that many bytes to kernel ``to``, chunk by chunk. Returns False if a send fails."""
    payload_bytes = world.setup.payload_bytes
    count = check_size(size_bytes, payload_bytes)
    number = world.long.begun.get(me, 0)
    yield LongSendBegun(me, to, number, size_bytes, count)
    for place in range(count):
        start, end = place == 0, place == count - 1
        if end and (unused := count * payload_bytes - size_bytes):
            yield TailOverread(me, number, unused)
        header = pack(Chunk(start, end, count if start else place, number))
        sent = yield from messaging.send(world, me, to, MessageType.TEST_LONG, priority, header)
        if not sent:
            return False
    yield LongSendEnded(me, to, number)
    return True


def reassemble(world, me: int, message: Event) -> Generator:
    """The callback of a chunk: into the buffer, and hand it over if it was the last."""
    chunk, sender, long = unpack(message.payload), message.sender, world.long
    key = 0 if world.setup.long_rule == "per sender" else chunk.number + 1
    mine = me, sender, key
    if chunk.start:
        into, total = chunk.number, chunk.seqnum
    elif mine in long.buffer:
        into, total = long.buffer[mine]
    else:
        yield ChunkLost(me, sender, chunk.number, chunk.place)
        return
    yield ChunkStored(me, sender, chunk.number, chunk.place, total, into)
    if not chunk.end:
        return
    there = [long.stored.get((*mine, place)) for place in range(total)]
    foreign = sum(number not in (None, into) for number in there)
    foreign += sum(key[:3] == mine and key[3] >= total for key in long.stored)
    missing = there.count(None)
    if foreign or missing:
        yield LongMessageCorrupted(me, sender, into, foreign, missing)
    else:
        yield LongMessageComplete(me, sender, into, total)

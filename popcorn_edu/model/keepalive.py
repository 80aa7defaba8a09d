"""Who is still there: each kernel tells its peers so, and notices who has stopped.

A dead kernel says nothing, and in G1 nobody notices: whoever sends to it fills its ring and then
spins for ever. G2 has a keepalive: every 100 ms each kernel sends each peer a small message, and a
peer that was not heard for two periods is dead. From then on a send to it fails at once, and a
sender that was waiting for space in its ring gives up.

Words
    period    100 ms
    heard     a KEEPALIVE of a peer was handed over since the last time that this kernel looked
    missed    how many periods in a row a peer was not heard; at two it is declared dead

Facts: popcorn-facts section 5.6 (G2). What becomes of the sender that waits is the model's own
(Popcorn's ``finish_send`` counts senders on ``rkinfo->active``, and shutting down drains them).
Nobody tells another who is dead: each kernel notices by itself, and at its own time.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

from popcorn_edu.engine.steps import Delay
from popcorn_edu.engine.trace import Event
from popcorn_edu.engine.world import Part
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import MessageDelivered, PeerDeclaredDead
from popcorn_edu.model.rings import MessageType, Priority

PERIOD_NS = 100_000_000  # [C] G2: KEEPALIVE every 100 ms
MISSED_AT_MOST = 2  # [C] G2: dead after 2 periods


class PeerMissed(Event):
    """A period has passed and nothing was heard. One period may be bad luck: a long softirq, a
    full ring. Two are taken for death, which can be wrong, too."""

    says = "kernel {kernel} has not heard kernel {peer} for {missed} periods"
    popcorn = "keepalive: a counter for each peer (G2)"
    kernel: int
    peer: int
    missed: int


class Keepalive(Part):
    """heard     [kernel, peer] -> how many KEEPALIVEs of that peer were handed over
    missed    [kernel, peer] -> how many periods in a row it was not heard
    """

    tables = ("heard", "missed")
    private = ("heard", "missed")

    def delivered(self, event: MessageDelivered) -> None:
        if event.type == MessageType.KEEPALIVE:
            pair = event.kernel, event.sender
            self.heard[pair] = self.heard.get(pair, 0) + 1
            self.missed[pair] = 0

    def peer_missed(self, event: PeerMissed) -> None:
        self.missed[event.kernel, event.peer] = event.missed

    applies: Mapping = {MessageDelivered: delivered, PeerMissed: peer_missed}


def keepalive(world, me: int, periods: int) -> Generator:
    """Tell the peers, wait for a period, see who was not heard. (The real one never ends.)"""
    mine, messages = world.keepalive, world.messaging
    for period in range(periods):
        alive = [peer for peer in messages.cpu if peer != me and (me, peer) not in messages.dead]
        heard = {peer: mine.heard.get((me, peer), 0) for peer in alive}
        for peer in alive:
            # It must not wait for space: the peer whose ring is full may be the dead one.
            yield from messaging.send(
                world, me, peer, MessageType.KEEPALIVE, Priority.HIGH, period, refuse=True
            )
        yield Delay(PERIOD_NS)
        for peer in alive:
            if mine.heard.get((me, peer), 0) == heard[peer]:
                missed = mine.missed.get((me, peer), 0) + 1
                yield PeerMissed(me, peer, missed)
                if missed == MISSED_AT_MOST:
                    yield PeerDeclaredDead(me, peer)


def told(world, me: int, message: Event) -> Generator:
    """The KEEPALIVE callback: that it was called is all there is to it."""
    return
    yield

"""Who offers what: services, and telling those who want to know, and nobody else.

The overview of Popcorn says that services register for notification on each kernel, and that only
interested kernels are notified. In its code the closest things are one callback for each message
type, and multicast groups with a mask of members (facts 5.4). How they find together is the
model's own design here ("model default"): the primary keeps a directory, as it keeps rkinfo, and
everything else travels as messages.

Words
    service      a number; one kernel at most offers it
    directory    in kernel 0: who owns a service, and a bit mask of the kernels that are interested
    subscribe    ask to be told when a service comes or goes; if it is there, one is told at once
    ARRIVAL, DEPARTURE   two services that nobody owns: whoever subscribes is told of kernels

What it costs, in messages: one to register, subscribe or leave (none for kernel 0 itself), and one
for each interested kernel and change. A kernel that nobody tells anything pays nothing.

A dead subscriber is dropped, and a dead owner's services go, when the directory's kernel declares
it dead (keepalive.py). Until then its notifications lie in its ring.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

from popcorn_edu.engine.steps import Until
from popcorn_edu.engine.trace import Event, PopcornError, Word
from popcorn_edu.engine.world import Part
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import PeerDeclaredDead
from popcorn_edu.model.multicast import members_of
from popcorn_edu.model.rings import MessageType, Priority

DIRECTORY = 0  # the kernel that keeps it: the primary
ARRIVAL, DEPARTURE = 0, 1  # services that are about kernels
FIRST_SERVICE = 2
SERVICES_AT_MOST = 1 << 16


class Wish(Word):
    """What a SERVICE message asks for, or says."""

    REGISTER = 0
    UNREGISTER = 1
    SUBSCRIBE = 2
    UNSUBSCRIBE = 3
    ARRIVE = 4
    LEAVE = 5
    NOTIFY = 6
    REFUSE = 7


def pack(wish: Wish, service: int, kernel: int = 0, there: bool = True) -> int:
    """A SERVICE message's payload."""
    return int(wish) | service << 4 | kernel << 20 | there << 28


def unpack(payload: int) -> tuple[Wish, int, int, bool]:
    return (
        Wish(payload & 15), payload >> 4 & SERVICES_AT_MOST - 1, payload >> 20 & 255,
        bool(payload >> 28 & 1),
    )  # fmt: skip


# -- events -------------------------------------------------------------------------------------


class ServiceAsked(Event):
    """A kernel tells the directory what it offers or wants. It knows of no other kernel's wishes:
    those are in kernel 0's memory."""

    says = "kernel {kernel} asks the directory: {wish} service {service}"
    popcorn = "model default; in G1 pcn_kmsg_register_callback() is each kernel's own affair"
    kernel: int
    wish: Wish
    service: int


class ServiceRegistered(Event):
    """The service has an owner from now on, and whoever is interested is told, nobody else."""

    says = "the directory notes: service {service} is kernel {owner}'s"
    popcorn = "overview: services register on each kernel"
    service: int
    owner: int


class RegistrationRefused(Event):
    """Two owners would each get half of the requests. The second one is told who was first."""

    says = "the directory refuses kernel {kernel} service {service}: kernel {owner} offers it"
    popcorn = "model default; in G1 a second callback for a type replaces the first"
    service: int
    kernel: int
    owner: int


class ServiceGone(Event):
    """Its owner does not offer it any more, or is dead. The interest in it stays: it may come back,
    from another kernel."""

    says = "the directory notes: service {service} of kernel {owner} is gone"
    popcorn = "pcn_kmsg_unregister_callback(), for a type (G1)"
    service: int
    owner: int


class Subscribed(Event):
    """One bit in the service's mask. To subscribe twice changes nothing."""

    says = "the directory notes: kernel {kernel} is interested in service {service}"
    popcorn = "overview: only interested kernels are notified; a mask, as multicast's"
    service: int
    kernel: int


class Unsubscribed(Event):
    """The bit is 0 again: no more notifications."""

    says = "the directory notes: kernel {kernel} is not interested in service {service} any more"
    popcorn = "model default"
    service: int
    kernel: int


class SubscriberDropped(Event):
    """A dead kernel is interested in nothing. Were its bit left, each change would put one more
    message into a ring that nobody reads, until the directory's own sends wait for ever."""

    says = "the directory drops kernel {kernel} from service {service}: it is dead"
    popcorn = "model default"
    service: int
    kernel: int


class ServiceNotified(Event):
    """The notification has arrived, as a message like all others: kernels share no tables."""

    says = "kernel {kernel} hears that service {service} of kernel {owner} is there: {there}"
    popcorn = "a callback, called with the message (G1)"
    kernel: int
    service: int
    owner: int
    there: bool


# -- tables -------------------------------------------------------------------------------------


class Services(Part):
    """owner        [0, service] -> the kernel that offers it (the directory's own rows)
    interested   [0, service] -> bit mask of the kernels that want to know
    known        [kernel, service] -> what it was told last: the owner, or -1 for gone
    """

    tables = ("owner", "interested", "known")
    private = ("owner", "interested", "known")

    def registered(self, event: ServiceRegistered) -> None:
        self.owner[DIRECTORY, event.service] = event.owner

    def gone(self, event: ServiceGone) -> None:
        self.owner.pop((DIRECTORY, event.service), None)

    def subscribed(self, event: Subscribed) -> None:
        row = DIRECTORY, event.service
        self.interested[row] = self.interested.get(row, 0) | 1 << event.kernel

    def unsubscribed(self, event: Unsubscribed | SubscriberDropped) -> None:
        row = DIRECTORY, event.service
        self.interested[row] = self.interested.get(row, 0) & ~(1 << event.kernel)

    def notified(self, event: ServiceNotified) -> None:
        self.known[event.kernel, event.service] = event.owner if event.there else -1

    applies: Mapping = {
        ServiceRegistered: registered,
        ServiceGone: gone,
        Subscribed: subscribed,
        Unsubscribed: unsubscribed,
        SubscriberDropped: unsubscribed,
        ServiceNotified: notified,
    }


# -- stories: whoever offers or wants -------------------------------------------------------------


def ask(world, me: int, wish: Wish, service: int) -> Generator:
    """Tell the directory; kernel 0 is it, and needs no message."""
    if not 0 <= service < SERVICES_AT_MOST:
        raise PopcornError(f"service={service!r}: expected 0 to {SERVICES_AT_MOST - 1}")
    yield ServiceAsked(me, wish, service)
    if me == DIRECTORY:
        yield from note(world, me, me, wish, service)
    else:
        yield from messaging.send(
            world, me, DIRECTORY, MessageType.SERVICE, Priority.NORMAL, pack(wish, service, me)
        )


def register(world, me: int, service: int) -> Generator:
    yield from ask(world, me, Wish.REGISTER, service)


def unregister(world, me: int, service: int) -> Generator:
    yield from ask(world, me, Wish.UNREGISTER, service)


def subscribe(world, me: int, service: int) -> Generator:
    yield from ask(world, me, Wish.SUBSCRIBE, service)


def unsubscribe(world, me: int, service: int) -> Generator:
    yield from ask(world, me, Wish.UNSUBSCRIBE, service)


def arrive(world, me: int) -> Generator:
    """A kernel is up, and says so."""
    yield from ask(world, me, Wish.ARRIVE, ARRIVAL)


def leave(world, me: int) -> Generator:
    """A kernel goes in good order."""
    yield from ask(world, me, Wish.LEAVE, DEPARTURE)


# -- stories: the directory -----------------------------------------------------------------------


def note(world, me: int, kernel: int, wish: Wish, service: int) -> Generator:
    """What a wish changes in the directory, and who is told."""
    mine = world.services
    owner = mine.owner.get((me, service))
    if wish == Wish.REGISTER:
        if owner is not None and owner != kernel:
            yield RegistrationRefused(service, kernel, owner)
            yield from tell(world, me, kernel, Wish.REFUSE, service, owner, True)
        elif owner is None:
            yield ServiceRegistered(service, kernel)
            yield from tell_all(world, me, service, kernel, True)
    elif wish == Wish.UNREGISTER and owner == kernel:
        yield ServiceGone(service, kernel)
        yield from tell_all(world, me, service, kernel, False)
    elif wish == Wish.SUBSCRIBE:
        before = mine.interested.get((me, service), 0)
        yield Subscribed(service, kernel)
        if owner is not None and not before >> kernel & 1:
            yield from tell(world, me, kernel, Wish.NOTIFY, service, owner, True)
    elif wish == Wish.UNSUBSCRIBE:
        yield Unsubscribed(service, kernel)
    elif wish == Wish.ARRIVE:
        yield from tell_all(world, me, ARRIVAL, kernel, True)
    elif wish == Wish.LEAVE:
        yield from forget(world, me, kernel, dead=False)


def forget(world, me: int, kernel: int, dead: bool = True) -> Generator:
    """A kernel is gone: so are its interests and its services, and who wants to know is told."""
    mine = world.services
    for (_, service), mask in list(mine.interested.items()):
        if mask >> kernel & 1:
            yield SubscriberDropped(service, kernel) if dead else Unsubscribed(service, kernel)
    for (_, service), owner in list(mine.owner.items()):
        if owner == kernel:
            yield ServiceGone(service, kernel)
            yield from tell_all(world, me, service, kernel, False)
    yield from tell_all(world, me, DEPARTURE, kernel, False)


def tell_all(world, me: int, service: int, owner: int, there: bool) -> Generator:
    """Everybody who is interested, and nobody else; not the one whom it is about."""
    for kernel in members_of(world.services.interested.get((me, service), 0)):
        if kernel != owner:
            yield from tell(world, me, kernel, Wish.NOTIFY, service, owner, there)


def tell(world, me, kernel: int, wish: Wish, service: int, owner: int, there: bool) -> Generator:
    if kernel == me:
        if wish == Wish.NOTIFY:
            yield ServiceNotified(me, service, owner, there)
        return
    yield from messaging.send(
        world, me, kernel, MessageType.SERVICE, Priority.NORMAL, pack(wish, service, owner, there)
    )


def watch(world, me: int) -> Generator:
    """The directory's kernel forgets whomever it declares dead."""
    while True:
        record = yield Until(PeerDeclaredDead, kernel=me)
        yield from forget(world, me, record.event.peer)


def handler(notified: Callable | None = None) -> Callable:
    """The SERVICE callback: a wish for the directory, or news. ``notified(world, me, service,
    owner, there)`` is a story of one's own, told for each notification."""

    def handle(world, me, message):
        wish, service, kernel, there = unpack(message.payload)
        if wish == Wish.NOTIFY:
            yield ServiceNotified(me, service, kernel, there)
            if notified is not None:
                yield from notified(world, me, service, kernel, there)
        elif wish != Wish.REFUSE and me == DIRECTORY:
            yield from note(world, me, message.sender, wish, service)

    return handle

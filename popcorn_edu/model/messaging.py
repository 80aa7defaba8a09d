"""How kernels talk: shared-memory messages, interrupts between kernels, and their mitigation.

Kernels share no data structure but the rings (rings.py). To send, a kernel takes a ticket,
copies the message into the slot, marks it ready, and only then looks whether the receiver wants
to be interrupted. An inter-processor interrupt (IPI) carries no message: only a vector number
that says "look into your ring". A receiver that is already looking asks for no interrupts: that
is the mitigation, like the network stack's NAPI.

Words
    vector       0xcd, POPCORN_KMSG_VECTOR: all that an IPI carries
    isr          the interrupt service routine, the top half: acknowledge, mask, raise the softirq
    softirq      the bottom half: polls the ring, then runs the callbacks
    budget       how many messages a poll may read before it starts over: 128
    look again   the second look at the ring after int_enabled = 1. Popcorn G1 does not have it,
                 and can therefore leave a message behind (a lost wake-up); NAPI has it
    callback     one function per message type and kernel
    rkinfo       the table of all windows' physical addresses, in the primary's memory
    check-in     the message with which a new kernel tells the others where its window is

Generation modelled: G1 (Shelton 2012-13). Facts: popcorn-facts sections 5.1 to 5.8, costs 9.

Long messages, multicast, keepalive and other ways to receive have files of their own below. Left
out: a process and a softirq of one kernel take turns on its CPU delay by delay, where a real
softirq would run to its end first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping
from functools import cached_property

from popcorn_edu.engine.steps import Begin, Delay, Fence, Until
from popcorn_edu.engine.trace import Event, PopcornError, Word, near_names
from popcorn_edu.engine.world import Part, WorldError
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.rings import (
    IS_LONG,
    LG_END,
    PAYLOAD_BYTES,
    RING_SLOTS,
    AllRegistered,
    HeadOfLineWait,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    MessageType,
    PayloadCopied,
    Priority,
    RingSeenEmpty,
    SenderBlocked,
    SenderSlept,
    SendRefused,
    SlotReady,
    TicketTaken,
    WindowPublished,
    is_full,
    must_wait,
)

KMSG_VECTOR = 0xCD  # [C] irq_vectors.h, POPCORN_KMSG_VECTOR
POLL_BUDGET_MESSAGES = 128  # [C] PCN_KMSG_BUDGET
KERNELS_AT_MOST = 64  # [C] POPCORN_MAX_CPUS in G1
FULL_RULES = ("own slot", "whole ring", "sleep", "refuse")
INTERRUPT_RULES = ("when asked", "always")
MITIGATIONS = ("poll until empty", "interrupt only", "poll only", "adaptive")
BOTTOM_HALVES = ("softirq", "workqueue")
BARRIERS = ("full", "store")
LONG_RULES = ("numbered", "per sender")
CHOICES = {  # the settings of Setup that are one of some words
    "full_rule": FULL_RULES,
    "interrupt_rule": INTERRUPT_RULES,
    "mitigation": MITIGATIONS,
    "bottom_half": BOTTOM_HALVES,
    "barrier": BARRIERS,
    "long_rule": LONG_RULES,
}
GIVE_UP_NS = 100_000_000  # model default: how often a waiting sender asks whether its peer is dead
MSLEEP_NS = 1_000_000  # [C] G2: msleep(1) between two looks at a full ring

# Where the model puts a kernel's window and rkinfo: model default. The real ones are wherever
# kmalloc finds room in the kernel's own RAM; only the 128 MB granule is Popcorn's [C mpart.c].
GRANULE_BYTES = 0x8000000
RKINFO_ADDRESS = 0x2000000


# -- the lifecycle of a receiver's softirq, drawn in the labs from this very table ---------------


class Softirq(Word):
    """What the bottom half of a kernel is doing."""

    IDLE = 0
    RAISED = 1
    RUNNING = 2
    RUNNING_AND_RAISED = 3


# -- events -------------------------------------------------------------------------------------


class KernelStarted(Event):
    """A kernel runs on its own processor, with its own memory: there is no hypervisor below it
    and no kernel above it (misconception M1)."""

    says = "kernel {kernel} runs on cpu {cpu}"
    popcorn = "my_cpu = raw_smp_processor_id() (G1)"
    kernel: int
    cpu: int


class RkinfoAllocated(Event):
    """The primary makes the table of windows and leaves its address where each kernel that it
    boots will look: in boot_params."""

    says = "kernel {kernel} allocates rkinfo at {address:#x} and notes it in boot_params"
    popcorn = "boot_params.pcn_kmsg_master_window, pcn_kmsg_init() (G1)"
    kernel: int
    address: int


class WindowMapped(Event):
    """A kernel can only write into a window that it has mapped into its own address space."""

    says = "kernel {kernel} maps the window of kernel {window}"
    popcorn = "rkvirt[cpu] = ioremap_cache(phys_addr, ...) (G1)"
    kernel: int
    window: int


class MapQueued(Event):
    """Mapping can sleep and a softirq must not. So the check-in callback leaves the mapping to a
    kernel thread; until that has run, an answer would fail."""

    says = "kernel {kernel} leaves mapping the window of kernel {window} to its kernel thread"
    popcorn = "PCN_KMSG_WQ_OP_MAP_MSG_WIN on kmsg_wq (G1)"
    kernel: int
    window: int


class CallbackRegistered(Event):
    """A kernel says which function shall handle messages of a type. One per type and kernel."""

    says = "kernel {kernel} registers a callback for {type} messages"
    popcorn = "pcn_kmsg_register_callback() (G1)"
    kernel: int
    type: MessageType


class IpiSent(Event):
    """The sender found int_enabled = 1, so it writes the receiver's APIC id and the vector into
    its interrupt command register. The IPI says only "look": the message is in memory
    (misconception M3)."""

    says = "kernel {src} sends kernel {dst} an IPI, vector {vector:#x}"
    popcorn = "apic->send_IPI_single(cpu, POPCORN_KMSG_VECTOR) (G1)"
    memory = "locked"  # the command register is written after all older stores are out
    src: int
    dst: int
    vector: int


class IpiArrived(Event):
    """The receiver's local APIC notes the vector. It has one bit per vector, so a second IPI that
    comes before the first is served changes nothing: the two are one interrupt."""

    says = "the IPI of kernel {src} reaches the CPU of kernel {kernel}"
    popcorn = "local APIC, interrupt request register"
    kernel: int
    src: int


class IpiLost(Event):
    """A fault, told by faults.py: the interrupt was sent and never comes. Nothing in Popcorn
    notices: the message lies in the ring, and the sender believes that it has done its part."""

    says = "the IPI of kernel {src} to kernel {kernel} is lost on its way"
    popcorn = "not in G1: no acknowledgement, no timeout"
    kernel: int
    src: int


class InterruptTaken(Event):
    """The top half does as little as it can: acknowledge the interrupt, raise the softirq, and
    (next record) write int_enabled = 0 into its own window so that no more IPIs come."""

    says = "kernel {kernel} takes the interrupt and raises its softirq"
    popcorn = "smp_popcorn_kmsg_interrupt() (G1)"
    kernel: int


class SoftirqEntered(Event):
    """The bottom half starts. From here on messages are found by looking, not by interrupts."""

    says = "kernel {kernel} enters the softirq and starts to poll"
    popcorn = "pcn_kmsg_action(), PCN_KMSG_SOFTIRQ (G1)"
    kernel: int


class BudgetSpent(Event):
    """The poll has read its budget and there may be more: it starts over at once, without
    asking for interrupts in between."""

    says = "kernel {kernel} has read its budget of {budget} messages and polls again"
    popcorn = "work == PCN_KMSG_BUDGET (G1)"
    kernel: int
    budget: int


class LookedAgain(Event):
    """The second look, after int_enabled = 1. A sender that saw 0 has put its message in before
    this look; a sender that comes later sees 1. So no message can be left behind."""

    says = "kernel {kernel} looks into its ring once more: {found} waiting"
    popcorn = "not in G1; standard in NAPI (napi_complete and re-check)"
    kernel: int
    found: int


class MessageDelivered(Event):
    """The callback of the message's type is called with the receiver's own copy. First all HIGH
    messages that were read, then all NORMAL ones."""

    says = "kernel {kernel} hands message {number} of kernel {sender} to its {type} callback"
    popcorn = "callback_table[type](msg) (G1)"
    kernel: int
    sender: int
    number: int
    type: MessageType
    priority: Priority
    payload: int


class MessageDropped(Event):
    """Nobody registered for this type. Popcorn prints an error and forgets the message; its
    buffer is leaked."""

    says = "kernel {kernel} drops message {number} of kernel {sender}: no callback for {type}"
    popcorn = "no callback registered: message dropped, buffer leaked (G1)"
    kernel: int
    sender: int
    number: int
    type: MessageType


class AllocationFailed(Event):
    """A fault, told by faults.py: kmalloc finds no memory for the receiver's own copy. The slot is
    free and tail has advanced, so the message is gone, and no line says so."""

    says = "kernel {kernel} has no memory for message {number} of kernel {sender}: it is gone"
    popcorn = "pcn_kmsg_poll_handler(): kmalloc(GFP_ATOMIC) fails, returns 0 (G1)"
    kernel: int
    sender: int
    number: int


class SoftirqExited(Event):
    """The bottom half is done. Unless it was raised again meanwhile, the kernel now sleeps until
    an interrupt comes."""

    says = "kernel {kernel} leaves the softirq"
    popcorn = "return from pcn_kmsg_action() (G1)"
    kernel: int


class SendFailed(Event):
    """A kernel whose window is not mapped cannot be written to: the send returns an error."""

    says = "kernel {sender} cannot send to kernel {to}: its window is not mapped"
    popcorn = 'pcn_kmsg_send(): "Dest win not mapped" (G1)'
    sender: int
    to: int


class PeerDeclaredDead(Event):
    """Nothing was heard of this peer for two periods. Nobody sends to it any more, and whoever
    waits for space in its ring gives up; what it owned is nobody's business yet: Popcorn has no
    way to take a dead kernel's memory and devices back."""

    says = "kernel {kernel} declares kernel {peer} dead"
    popcorn = "keepalive: dead after 2 periods (G2); UNMAP_MSG_WIN is not implemented"
    kernel: int
    peer: int


SOFTIRQ_TRANSITIONS = {
    Softirq.IDLE: {InterruptTaken: Softirq.RAISED},
    Softirq.RAISED: {InterruptTaken: Softirq.RAISED, SoftirqEntered: Softirq.RUNNING},
    Softirq.RUNNING: {
        InterruptTaken: Softirq.RUNNING_AND_RAISED,
        SoftirqExited: Softirq.IDLE,
    },
    Softirq.RUNNING_AND_RAISED: {
        InterruptTaken: Softirq.RUNNING_AND_RAISED,
        SoftirqExited: Softirq.RAISED,
    },
}


# -- what a run of messaging is built from -------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setup:
    """The machine, which CPU each kernel has, and the choices of the protocol.

    look_again  the second look after re-enabling interrupts (False: as coded in G1)
    full_rule   "own slot": a sender waits until its own slot is free. "whole ring": as coded in
                G1, it waits while head - tail >= slots, which can deadlock: a ticket at the tail
                may wait for tickets that were taken after it. "sleep": as in G2, one's own slot,
                and msleep(1) between two looks. "refuse": no ticket, an error instead
    interrupt_rule  "when asked": if int_enabled is 1. "always": for every message
    mitigation  how a kernel receives, see mitigation.py: "poll until empty" is Popcorn's
    poll_every_ns   of "poll only": the time from one look at the ring to the next
    bottom_half     "softirq", or "workqueue": a kernel thread, which takes longer to start (G2)
    payload_bytes   what fits into one slot: 60 in G1, 115 in G2
    keepalive   whoever waits for a kernel gives up when it has declared that kernel dead
    long_rule   how chunks of long messages find together: "numbered" (G2), "per sender" (G1)
    barrier     after int_enabled = 1: "full" (smp_mb), or "store" (wmb, as coded), which lets the
                second look come before that store is seen; only the explorer's TSO can tell
    handlers    message type -> story, called as ``handler(world, me, message)`` in the softirq
    """

    FIXED = (  # laid out when the kernels start
        "machine", "cpus", "slots", "handlers", "mitigation", "bottom_half", "payload_bytes",
        "keepalive",
    )  # fmt: skip

    machine: Machine
    cpus: tuple[int, ...]
    slots: int = RING_SLOTS
    budget: int = POLL_BUDGET_MESSAGES
    look_again: bool = True
    full_rule: str = "own slot"
    barrier: str = "full"
    interrupt_rule: str = "when asked"
    mitigation: str = "poll until empty"
    poll_every_ns: int = 1_000
    bottom_half: str = "softirq"
    payload_bytes: int = PAYLOAD_BYTES
    long_rule: str = "numbered"
    keepalive: bool = False
    handlers: Mapping[MessageType, Callable] = dataclasses.field(
        default_factory=dict, compare=False
    )

    def __post_init__(self) -> None:
        for name, low in (("slots", 1), ("budget", 1), ("poll_every_ns", 1), ("payload_bytes", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise PopcornError(f"{name}={value!r}: expected a whole number, {low} or more")
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                near = near_names(value if isinstance(value, str) else "", known)
                raise PopcornError(f"{name}={value!r}: {near}")
        for name in ("look_again", "keepalive"):
            if type(getattr(self, name)) is not bool:
                raise PopcornError(f"{name}={getattr(self, name)!r}: expected True or False")

    @cached_property
    def costs(self) -> Costs:
        return Costs(self.machine, self.cpus)

    @property
    def kernels(self) -> range:
        return range(len(self.cpus))

    def window_address(self, kernel: int) -> int:
        """Where a kernel's window is, if nothing says where its memory is (model default)."""
        return RKINFO_ADDRESS + (kernel + 1) * GRANULE_BYTES


# One readable model, and what each generation of Popcorn chose: what to do when full, when to
# interrupt, what to re-check. "G1" is as coded; "G1 fixed", the kit's default, has the second look
# and waits for its own slot.
GENERATIONS: dict[str, dict] = {
    "G1": {"look_again": False, "full_rule": "whole ring", "long_rule": "per sender"},
    "G1 fixed": {},
    "G2": {
        "look_again": True, "full_rule": "sleep", "barrier": "store", "bottom_half": "workqueue",
        "slots": 8_192, "payload_bytes": 115, "long_rule": "numbered",
    },
    "MK25": {"interrupt_rule": "always", "full_rule": "refuse", "bottom_half": "workqueue"},
}  # fmt: skip
EAGAIN, ENOSPC = "-EAGAIN", "-ENOSPC"


class Costs:
    """The delays of each step, from the machine's labelled constants and its own distances.

    put = 3 line transfers + 60 cycles: one for head (fetch-and-add; int_enabled is in the same
    line), two for the slot, which straddles two lines. get = 2 line transfers. [D] facts 9.
    """

    PUT_CYCLES = 60  # model default, facts 9: the instructions of ring_put beside its transfers

    # Model default, 50 to 2,000: leaving the poll loop and comparing the work with the budget.
    # It lies between the last look at the ring and int_enabled = 1: the lost wake-up's window.
    POLL_EXIT_CYCLES = 300

    def __init__(self, machine: Machine, cpus: tuple[int, ...]) -> None:
        self._machine, self._cpus = machine, cpus
        self._pairs: dict[tuple[int, int], tuple[Delay, Delay, Delay]] = {}
        cost = machine.cost_ns

        def each(ns: int) -> list[Delay]:
            return [Delay(ns, cpu) for cpu in cpus]

        self.icr = each(cost("icr_write_cycles"))
        self.ipi_delivery = Delay(cost("ipi_delivery_cycles"))
        self.isr = each(cost("isr_top_half_cycles"))
        self.softirq = each(cost("softirq_entry_cycles"))
        self.dispatch = each(cost("callback_dispatch_cycles"))
        self.poll_exit = each(machine.ns(self.POLL_EXIT_CYCLES))
        self.kthread = each(cost("workqueue_hop_cycles"))
        self.bottom_half = {"softirq": self.softirq, "workqueue": self.kthread}

    def pair(self, me: int, other: int) -> tuple[Delay, Delay, Delay]:
        """(take a ticket, copy into the slot, read from the slot) between two kernels."""
        try:
            return self._pairs[me, other]
        except KeyError:
            cpu = self._cpus[me]
            line_ns = self._machine.transfer_ns(cpu, self._cpus[other])
            delays = self._pairs[me, other] = (
                Delay(line_ns, cpu),
                Delay(2 * line_ns + self._machine.ns(self.PUT_CYCLES), cpu),
                Delay(2 * line_ns + self._machine.cost_ns("message_copy_cycles"), cpu),
            )
            return delays

    def look(self, me: int) -> Delay:
        """Touching one's own int_enabled or head: the line may be in any peer's cache, and the
        model takes the farthest peer."""
        cpu = self._cpus[me]
        others = [c for c in self._cpus if c != cpu] or [cpu]
        return Delay(max(self._machine.transfer_ns(cpu, other) for other in others), cpu)


# -- tables -------------------------------------------------------------------------------------


class Messaging(Part):
    """What each kernel knows about messages, in its own memory; and rkinfo, which all share.

    published        [kernel] -> physical address of its window (rkinfo, shared)
    cpu              [kernel] -> its CPU (known to all: the APIC ids are)
    mapped           [kernel] -> bit mask of the kernels whose windows it has mapped
    callbacks        [kernel, type] -> 1 if registered
    softirq          [kernel] -> Softirq, see SOFTIRQ_TRANSITIONS
    on_the_wire      [kernel, sender] -> IPIs sent and not arrived yet (shared: it is hardware)
    ipi_pending      [kernel] -> 1 from IpiArrived to InterruptTaken
    sent             [kernel] -> how many messages it has sent
    queue            [kernel, priority, n] -> the MessageRead event: read, not delivered yet
    queued, served   [kernel, priority] -> how many were ever put on that list, and taken off
    blocked          [kernel, ring, ticket] -> 1 while it spins on a full ring
    dead             [kernel, peer] -> 1 once it has declared that peer dead (keepalive.py)
    """

    tables = (
        "published", "cpu", "mapped", "callbacks", "softirq", "on_the_wire", "ipi_pending", "sent",
        "queue", "queued", "served", "blocked", "dead",
    )  # fmt: skip
    private = (
        "mapped", "callbacks", "softirq", "ipi_pending", "sent",
        "queue", "queued", "served", "blocked", "dead",
    )  # fmt: skip

    def kernel_started(self, event: KernelStarted) -> None:
        kernel = event.kernel
        self.cpu[kernel] = event.cpu
        self.mapped[kernel] = 1 << kernel
        self.softirq[kernel] = Softirq.IDLE
        self.ipi_pending[kernel] = self.sent[kernel] = 0
        for priority in Priority:
            self.queued[kernel, priority] = self.served[kernel, priority] = 0

    def window_published(self, event: WindowPublished) -> None:
        self.published[event.kernel] = event.address

    def window_mapped(self, event: WindowMapped) -> None:
        self.mapped[event.kernel] |= 1 << event.window

    def callback_registered(self, event: CallbackRegistered) -> None:
        self.callbacks[event.kernel, event.type] = 1

    def all_registered(self, event: AllRegistered) -> None:
        for kernel, cpu in enumerate(self.setup.cpus):
            self.kernel_started(KernelStarted(kernel, cpu))
            self.published[kernel] = self.setup.window_address(kernel)
            self.mapped[kernel] = (1 << event.kernels) - 1
            for kind in self.setup.handlers:
                self.callbacks[kernel, kind] = 1

    def ticket_taken(self, event: TicketTaken) -> None:
        self.sent[event[2]] += 1

    def sender_blocked(self, event: SenderBlocked | SenderSlept) -> None:
        self.blocked[event.sender, event.ring, event.ticket] = 1

    def peer_dead(self, event: PeerDeclaredDead) -> None:
        """Its window is unmapped: whoever sends to it is told so."""
        self.dead[event.kernel, event.peer] = 1
        self.mapped[event.kernel] &= ~(1 << event.peer)

    def payload_copied(self, event: PayloadCopied) -> None:
        if self.blocked:
            self.blocked.pop((event[3], event[0], event[2]), None)

    def ipi_sent(self, event: IpiSent) -> None:
        where = event.dst, event.src
        self.on_the_wire[where] = self.on_the_wire.get(where, 0) + 1

    def ipi_left(self, event: IpiArrived | IpiLost) -> None:
        where = event.kernel, event.src
        if self.on_the_wire.get(where):  # else nobody sent it: a spurious one, or a second copy
            self.on_the_wire[where] -= 1

    def ipi_arrived(self, event: IpiArrived) -> None:
        self.ipi_left(event)
        self.ipi_pending[event.kernel] = 1

    def interrupt_taken(self, event: InterruptTaken) -> None:
        self.ipi_pending[event.kernel] = 0
        self.softirq_moves(event)

    def softirq_moves(self, event: Event) -> None:
        kernel = event.kernel
        state = self.softirq[kernel]
        after = SOFTIRQ_TRANSITIONS[state].get(type(event))
        if after is None:
            raise WorldError(f"{type(event).__name__} is not possible while the softirq is {state}")
        self.softirq[kernel] = after

    def message_read(self, event: MessageRead) -> None:
        kernel, priority = event[0], event[6]
        place = self.queued[kernel, priority]
        self.queue[kernel, priority, place] = event
        self.queued[kernel, priority] = place + 1

    def message_handled(self, event: MessageDelivered) -> None:
        kernel, priority = event[0], event[4]
        place = self.served[kernel, priority]
        try:
            del self.queue[kernel, priority, place]
        except KeyError:
            raise WorldError(f"kernel {kernel} has no {priority} message on its list") from None
        self.served[kernel, priority] = place + 1

    def message_dropped(self, event: MessageDropped) -> None:
        for priority in Priority:
            place = self.served[event.kernel, priority]
            first = self.queue.get((event.kernel, priority, place))
            if first and (first.sender, first.number) == (event.sender, event.number):
                del self.queue[event.kernel, priority, place]
                self.served[event.kernel, priority] = place + 1

    def allocation_failed(self, event: AllocationFailed) -> None:
        """Take the message off its list; those behind it move up."""
        kernel, queue = event.kernel, self.queue
        for priority in Priority:
            last = self.queued[kernel, priority] - 1
            for place in range(self.served[kernel, priority], last + 1):
                message = queue[kernel, priority, place]
                if (message.sender, message.number) == (event.sender, event.number):
                    for here in range(place, last):
                        queue[kernel, priority, here] = queue[kernel, priority, here + 1]
                    del queue[kernel, priority, last]
                    self.queued[kernel, priority] = last
                    return
        raise WorldError(f"kernel {kernel} has no such message on its lists")

    applies = {
        KernelStarted: kernel_started,
        WindowPublished: window_published,
        WindowMapped: window_mapped,
        CallbackRegistered: callback_registered,
        AllRegistered: all_registered,
        TicketTaken: ticket_taken,
        SenderBlocked: sender_blocked,
        SenderSlept: sender_blocked,
        PeerDeclaredDead: peer_dead,
        PayloadCopied: payload_copied,
        IpiSent: ipi_sent,
        IpiArrived: ipi_arrived,
        IpiLost: ipi_left,
        AllocationFailed: allocation_failed,
        InterruptTaken: interrupt_taken,
        SoftirqEntered: softirq_moves,
        SoftirqExited: softirq_moves,
        MessageRead: message_read,
        MessageDelivered: message_handled,
        MessageDropped: message_dropped,
    }


# -- stories: sending ---------------------------------------------------------------------------


def send(
    world,
    me: int,
    to: int,
    type: MessageType = MessageType.TEST,
    priority: Priority = Priority.NORMAL,
    payload: int = 0,
    refuse: bool = False,
) -> Generator:
    """Put one message into kernel ``to``'s ring. Returns True, or False if that is not mapped, or
    if the ring is full and ``Setup.full_rule`` is "refuse" (``refuse``: for this message)."""
    rings, setup = world.rings, world.setup
    if not world.messaging.mapped[me] >> to & 1:
        yield SendFailed(me, to)
        return False
    take_ticket, copy, _ = setup.costs.pair(me, to)

    yield take_ticket
    if (refuse or setup.full_rule == "refuse") and is_full(
        world, to
    ):  # with the ticket, in one cmpxchg
        yield SendRefused(to, me, ENOSPC)
        return False
    ticket, number = rings.head[to], world.messaging.sent[me]
    yield TicketTaken(to, ticket, me, number)

    if must_wait(world, to, ticket):
        if setup.full_rule == "sleep":
            yield from sleep_until_space(world, me, to, ticket)
        else:
            yield SenderBlocked(to, ticket, me, rings.tail[to])
            if not (yield from wait_for_space(world, to, ticket, me)):
                yield SendFailed(me, to)
                return False

    yield copy
    slot = ticket % setup.slots
    yield PayloadCopied(to, slot, ticket, me, number, type, priority, payload)
    yield SlotReady(to, slot, ticket, me)

    if rings.int_enabled[to] or setup.interrupt_rule == "always":
        yield from send_ipi(world, me, to)
    return True


def wait_for_space(world, ring: int, ticket: int, me: int | None = None) -> Generator:
    """Spin until this ticket may be used: look, wait for the receiver to read, look again.
    Returns False if kernel ``me`` declares the ring's kernel dead meanwhile (keepalive.py)."""
    within = GIVE_UP_NS if world.setup.keepalive and me is not None else None
    while must_wait(world, ring, ticket):
        if world.setup.full_rule == "whole ring":
            yield Until(MessageRead, ring=ring, within=within)
        else:
            read = ticket - world.setup.slots
            yield Until(MessageRead, ring=ring, ticket=read, within=within)
        if within and (me, ring) in world.messaging.dead:
            return False
    return True


def sleep_until_space(world, me: int, ring: int, ticket: int) -> Generator:
    """msleep(1), look, msleep(1), look. The looks that find nothing are left out: they change
    nothing, and a sender that waits for a dead kernel would look for ever. When space comes, half
    a sleep is left on average (model default)."""
    yield SenderSlept(ring, ticket, me, world.rings.tail[ring])
    yield Delay(MSLEEP_NS)
    while must_wait(world, ring, ticket):
        yield Until(MessageRead, ring=ring, ticket=ticket - world.setup.slots)
        yield Delay(MSLEEP_NS // 2)


def send_noblock(
    world,
    me: int,
    to: int,
    type: MessageType = MessageType.TEST,
    priority: Priority = Priority.NORMAL,
    payload: int = 0,
    *,
    sign_fixed: bool = False,
) -> Generator:
    """As ``send``, but a full ring is an error: answers 0, EAGAIN or "-1".

    In G1 win_put() returns -EAGAIN and its caller compares with EAGAIN, without the sign. So it
    takes the full ring for a failure, prints an error and returns -1: nobody learns that trying
    again would help. ``sign_fixed`` compares rightly.
    """
    if not world.messaging.mapped[me] >> to & 1:
        yield SendFailed(me, to)
        return "-1"
    if is_full(world, to):
        answer = EAGAIN if sign_fixed else "-1"
        yield SendRefused(to, me, answer)
        return answer
    yield from send(world, me, to, type, priority, payload)
    return 0


def send_ipi(world, me: int, to: int) -> Generator:
    """Interrupt kernel ``to``. Its arrival is a matter of the wire, not of the sender."""
    yield world.setup.costs.icr[me]
    yield IpiSent(me, to, KMSG_VECTOR)
    if world.messaging.on_the_wire.get((to, me)):  # it can be lost: in a fork, on bad hardware
        yield Begin(f"IPI to kernel {to}", ipi_on_the_wire(world, me, to), kernel=None)


def ipi_on_the_wire(world, src: int, dst: int) -> Generator:
    yield world.setup.costs.ipi_delivery
    yield IpiArrived(dst, src)


# -- stories: receiving -------------------------------------------------------------------------


def isr(world, me: int) -> Generator:
    """The top half of kernel ``me``, for as long as it runs."""
    while True:
        if not world.messaging.ipi_pending[me]:
            yield Until(IpiArrived, kernel=me)
        yield world.setup.costs.isr[me]
        yield InterruptTaken(me)
        if world.setup.mitigation != "interrupt only":
            yield InterruptsDisabled(me)


def softirq(world, me: int, receive: Callable) -> Generator:
    """The bottom half of kernel ``me``: whenever it is raised, it runs ``receive``."""
    while True:
        if world.messaging.softirq[me] != Softirq.RAISED:
            yield Until(InterruptTaken, kernel=me)
        yield world.setup.costs.bottom_half[world.setup.bottom_half][me]
        yield SoftirqEntered(me)
        yield from receive(world, me)
        yield SoftirqExited(me)


def receive(world, me: int) -> Generator:
    """Poll until the ring is empty, ask for interrupts again, look again, run the callbacks."""
    while True:
        setup = world.setup
        read = yield from poll(world, me, setup.budget)
        if read == setup.budget:
            yield BudgetSpent(me, read)
            continue
        yield setup.costs.poll_exit[me]
        yield setup.costs.look(me)
        yield InterruptsEnabled(me)
        if setup.barrier == "full":
            yield Fence()
        if not (world.setup.look_again and (yield from look_again(world, me))):
            break
        yield InterruptsDisabled(me)
    yield from deliver(world, me)


def poll(world, me: int, budget: int) -> Generator:
    """Read at most ``budget`` messages in ticket order; returns how many were read. A chunk of a
    long message that is not its last counts for nothing."""
    rings, costs, slots = world.rings, world.setup.costs, world.setup.slots
    read = 0
    while read < budget:
        ticket = rings.tail[me]
        if rings.head[me] == ticket:
            yield RingSeenEmpty(me, read)
            break
        slot = ticket % slots
        if rings.ready.get((me, slot)) != ticket:
            yield HeadOfLineWait(me, slot, ticket, rings.taken[me, ticket])
            yield Until(SlotReady, ring=me, ticket=ticket)
        message = rings.slots.get((me, slot))
        if message is None:  # marked ready too early: checks.ready_comes_last will say so
            yield HeadOfLineWait(me, slot, ticket, rings.taken[me, ticket])
            message = (yield Until(PayloadCopied, ring=me, slot=slot)).event
        yield costs.pair(me, message.sender)[2]
        yield MessageRead._make(message)
        chunk = message.type == MessageType.TEST_LONG and message.payload & IS_LONG
        read += not chunk or bool(message.payload & LG_END)
    return read


def look_again(world, me: int) -> Generator:
    """The second look; returns whether there is something to read."""
    yield world.setup.costs.look(me)
    waiting = world.rings.head[me] - world.rings.tail[me]
    yield LookedAgain(me, waiting)
    return waiting > 0


def deliver(world, me: int) -> Generator:
    """Run the callbacks of the messages that were read: all HIGH, then all NORMAL."""
    mine, setup = world.messaging, world.setup
    dispatch = setup.costs.dispatch[me]
    for priority in Priority:
        waiting = me, priority
        while (place := mine.served[waiting]) < mine.queued[waiting]:
            message = mine.queue[me, priority, place]
            yield dispatch
            _, _, _, sender, number, type, _, payload = message
            if not mine.callbacks.get((me, type)):
                yield MessageDropped(me, sender, number, type)
                continue
            yield MessageDelivered(me, sender, number, type, priority, payload)
            handler = setup.handlers.get(type)
            if handler is not None:
                yield from handler(world, me, message)


# -- stories: registration ----------------------------------------------------------------------


def join(world, me: int) -> Generator:
    """A kernel that has booted joins the others: publish, map, check in (facts 5.3)."""
    setup = world.setup
    yield KernelStarted(me, setup.cpus[me])
    yield Begin(f"kernel {me} isr", isr(world, me))
    yield Begin(f"kernel {me} softirq", softirq(world, me, receive))
    for type in setup.handlers:
        yield CallbackRegistered(me, type)
    if not world.messaging.published:
        yield RkinfoAllocated(me, RKINFO_ADDRESS)
    others, window = list(world.messaging.published), setup.window_address(me)
    yield WindowPublished(me, window)
    for other in others:
        yield setup.costs.kthread[me]
        yield WindowMapped(me, other)
        yield from send(world, me, other, MessageType.CHECKIN, Priority.HIGH, payload=window)


def checked_in(world, me: int, message: Event) -> Generator:
    """The CHECKIN callback: a softirq cannot map, so a kernel thread will."""
    yield MapQueued(me, message.sender)
    yield Begin(f"kernel {me} kthread", map_window(world, me, message.sender))


def map_window(world, me: int, window: int) -> Generator:
    yield world.setup.costs.kthread[me]
    yield WindowMapped(me, window)

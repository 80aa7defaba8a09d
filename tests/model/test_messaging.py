"""Sending and receiving as transcripts: the world so far, a story, and what it says.

>>  what the others did before, in the order in which it happened
<<  what the story then says, and nothing else
"""

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import Delay, Until, walk
from popcorn_edu.engine.world import World, WorldError
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import (
    KMSG_VECTOR,
    POLL_BUDGET_MESSAGES,
    SOFTIRQ_TRANSITIONS,
    BudgetSpent,
    CallbackRegistered,
    InterruptTaken,
    IpiArrived,
    IpiSent,
    KernelStarted,
    LookedAgain,
    MapQueued,
    MessageDelivered,
    MessageDropped,
    RkinfoAllocated,
    SendFailed,
    Softirq,
    SoftirqEntered,
    SoftirqExited,
    WindowMapped,
)
from popcorn_edu.model.rings import (
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
    SlotReady,
    TicketTaken,
    WindowPublished,
)

TEST, CHECKIN = MessageType.TEST, MessageType.CHECKIN
HIGH, NORMAL = Priority.HIGH, Priority.NORMAL


class Transcript:
    """A world with three kernels, to tell (>>) and to listen to (<<)."""

    def __init__(self, *, registered=True, handlers=None, **choices) -> None:
        handlers = {TEST: None} if handlers is None else handlers
        setup = scenarios.make_setup("magny-cours-48", 3, handlers=handlers, **choices)
        self.world, self.said = (
            World(setup, rings=scenarios.Rings, messaging=messaging.Messaging),
            [],
        )
        if registered:
            self.world.apply(AllRegistered(3))

    def __rshift__(self, event) -> "Transcript":
        assert self.said == [], "the story says more before that"
        self.world.apply(event)
        return self

    def tells(self, story, *arguments) -> "Transcript":
        """Kernel so-and-so tells this story, seen through its own lens."""
        lens = self.world.seen_by(arguments[0])
        self.said += [record.event for record in walk(story(lens, *arguments), self.world)]
        return self

    def __lshift__(self, event) -> "Transcript":
        assert self.said, f"the story ends or waits before {event!r}"
        assert self.said.pop(0) == event
        return self

    def message(self, ticket, sender=1, priority=NORMAL, ready=True, type=TEST) -> "Transcript":
        """>> a whole message from that sender in ring 0."""
        slot = ticket % self.world.setup.slots
        self >> TicketTaken(0, ticket, sender, ticket)
        if ready:
            self >> PayloadCopied(0, slot, ticket, sender, ticket, type, priority, 70 + ticket)
            self >> SlotReady(0, slot, ticket, sender)
        return self

    def reads(self, ticket, sender=1, priority=NORMAL, type=TEST) -> "Transcript":
        """<< kernel 0 reads that message."""
        slot = ticket % self.world.setup.slots
        return self << MessageRead(0, slot, ticket, sender, ticket, type, priority, 70 + ticket)

    def delivers(self, number, sender=1, priority=NORMAL) -> "Transcript":
        """<< kernel 0's callback gets that message."""
        return self << MessageDelivered(0, sender, number, TEST, priority, 70 + number)

    def in_softirq(self) -> "Transcript":
        """>> kernel 0 was interrupted and is in its softirq."""
        return self >> InterruptTaken(0) >> InterruptsDisabled(0) >> SoftirqEntered(0)

    def and_no_more(self) -> None:
        assert self.said == []


class TestSending:
    def test_a_message_to_a_kernel_that_sleeps(self):
        """Ticket, payload, ready flag, and only then the interrupt."""
        (
            Transcript().tells(messaging.send, 1, 0, TEST, HIGH, 5)
            << TicketTaken(0, 0, 1, 0)
            << PayloadCopied(0, 0, 0, 1, 0, TEST, HIGH, 5)
            << SlotReady(0, 0, 0, 1)
            << IpiSent(1, 0, KMSG_VECTOR)
        ).and_no_more()

    def test_a_message_to_a_kernel_that_polls(self):
        """It asked for no interrupts and will find the message, so none is sent."""
        (
            (Transcript() >> InterruptsDisabled(0)).tells(messaging.send, 1, 0)
            << TicketTaken(0, 0, 1, 0)
            << PayloadCopied(0, 0, 0, 1, 0, TEST, NORMAL, 0)
            << SlotReady(0, 0, 0, 1)
        ).and_no_more()

    def test_the_next_ticket_is_one_more(self):
        """Whoever took the last one."""
        (
            (Transcript() >> InterruptsDisabled(0)).message(0, sender=2).tells(messaging.send, 1, 0)
            << TicketTaken(0, 1, 1, 0)
            << PayloadCopied(0, 1, 1, 1, 0, TEST, NORMAL, 0)
            << SlotReady(0, 1, 1, 1)
        ).and_no_more()

    def test_a_full_ring_makes_the_sender_wait_with_its_ticket(self):
        """Neither an error nor a loss: it spins, and says nothing until there is space."""
        (
            Transcript(slots=2).message(0).message(1).tells(messaging.send, 2, 0)
            << TicketTaken(0, 2, 2, 0)
            << SenderBlocked(0, 2, 2, 0)
        ).and_no_more()

    def test_a_read_makes_room_for_the_ticket_of_the_same_slot(self):
        """The slot that was freed is used again, one round later."""
        told = Transcript(slots=2).message(0).message(1)
        told >> InterruptsDisabled(0)
        told >> MessageRead(0, 0, 0, 1, 0, TEST, NORMAL, 70)
        (
            told.tells(messaging.send, 2, 0)
            << TicketTaken(0, 2, 2, 0)
            << PayloadCopied(0, 0, 2, 2, 0, TEST, NORMAL, 0)
            << SlotReady(0, 0, 2, 2)
        ).and_no_more()

    @pytest.mark.parametrize(
        ("rule", "waits"),
        [
            ("own slot", Until(MessageRead, ring=0, ticket=0)),
            ("whole ring", Until(MessageRead, ring=0)),
        ],
    )
    def test_what_a_blocked_sender_waits_for(self, rule, waits):
        """Its own slot; or, as G1 is coded, any message that is read."""
        world = Transcript(slots=2, full_rule=rule).message(0).message(1).message(2, ready=False)
        step = next(messaging.wait_for_space(world.world, 0, 2))
        assert repr(step) == repr(waits)

    def test_nobody_can_write_into_a_window_that_is_not_mapped(self):
        """A send before the check-in was handled fails; it takes no ticket."""
        told = Transcript(registered=False)
        for kernel in (0, 1):
            told >> KernelStarted(kernel, kernel)
            told >> WindowPublished(kernel, told.world.setup.window_address(kernel))
        (told.tells(messaging.send, 1, 0) << SendFailed(1, 0)).and_no_more()

    def test_send_answers_whether_it_could(self):
        """For a caller who wants to try again later."""

        def ask(world, me, answers):
            answers.append((yield from messaging.send(world, me, 0)))

        answers = []
        told = Transcript()
        told >> InterruptsDisabled(0)
        told.tells(ask, 1, answers)
        told = Transcript(registered=False)
        told >> KernelStarted(1, 1)
        told.tells(ask, 1, answers)
        assert answers == [True, False]

    def test_a_lost_interrupt_never_arrives(self):
        """What begins on the wire is what the world knows to be there."""
        story = messaging.send_ipi(Transcript().world, 1, 0)
        assert type(next(story)) is Delay
        assert next(story) == IpiSent(1, 0, KMSG_VECTOR)
        assert next(story, "the end") == "the end"  # the event was never applied


class TestReceiving:
    def test_one_message(self):
        """Read, see the ring empty, ask for interrupts, look again, hand over."""
        (
            Transcript().message(0).in_softirq().tells(messaging.receive, 0).reads(0)
            << RingSeenEmpty(0, 1)
            << InterruptsEnabled(0)
            << LookedAgain(0, 0)
            << MessageDelivered(0, 1, 0, TEST, NORMAL, 70)
        ).and_no_more()

    def test_as_coded_in_g1_there_is_no_second_look(self):
        """The lost wake-up's window: nothing between the flag and the callbacks."""
        (
            Transcript(look_again=False)
            .message(0)
            .in_softirq()
            .tells(messaging.receive, 0)
            .reads(0)
            << RingSeenEmpty(0, 1)
            << InterruptsEnabled(0)
            << MessageDelivered(0, 1, 0, TEST, NORMAL, 70)
        ).and_no_more()

    def test_nothing_to_read_is_no_error(self):
        """Two interrupts can be served by one poll; the second finds nothing."""
        (
            Transcript().in_softirq().tells(messaging.receive, 0)
            << RingSeenEmpty(0, 0)
            << InterruptsEnabled(0)
            << LookedAgain(0, 0)
        ).and_no_more()

    def test_messages_are_read_in_the_order_of_their_tickets(self):
        """Whoever sent them."""
        told = Transcript().message(0, sender=2).message(1, sender=1).message(2, sender=2)
        told.in_softirq().tells(messaging.poll, 0, 128)
        (told.reads(0, 2).reads(1, 1).reads(2, 2) << RingSeenEmpty(0, 3)).and_no_more()

    def test_a_slot_that_is_not_ready_is_waited_for(self):
        """Though the message behind it is there: head-of-line blocking."""
        told = Transcript().message(0, sender=2, ready=False).message(1, sender=1)
        told.in_softirq().tells(messaging.receive, 0)
        (told << HeadOfLineWait(0, 0, 0, 2)).and_no_more()

    def test_a_spent_budget_means_polling_again(self):
        """Without asking for interrupts in between."""
        told = Transcript(budget=2).message(0).message(1).message(2)
        told.in_softirq().tells(messaging.receive, 0)
        (
            told.reads(0).reads(1)
            << BudgetSpent(0, 2)
            << MessageRead(0, 2, 2, 1, 2, TEST, NORMAL, 72)
            << RingSeenEmpty(0, 1)
            << InterruptsEnabled(0)
            << LookedAgain(0, 0)
        ).delivers(0).delivers(1).delivers(2).and_no_more()

    def test_a_budget_that_is_just_enough_is_spent_too(self):
        """The poll cannot know that there was nothing left."""
        told = Transcript(budget=1).message(0).in_softirq().tells(messaging.receive, 0)
        (told.reads(0) << BudgetSpent(0, 1) << RingSeenEmpty(0, 0)).said.clear()

    def test_high_is_handed_over_before_normal(self):
        """And each in the order in which it was read."""
        told = Transcript()
        for ticket, priority in enumerate((NORMAL, HIGH, NORMAL, HIGH)):
            told.message(ticket, priority=priority)
        told.in_softirq().tells(messaging.poll, 0, 128).said.clear()
        told.tells(messaging.deliver, 0)
        told.delivers(1, priority=HIGH).delivers(3, priority=HIGH).delivers(0).delivers(2)
        told.and_no_more()

    def test_without_a_callback_a_message_is_dropped(self):
        """Reported, and the ones behind it are handed over."""
        told = Transcript().message(0, type=CHECKIN).message(1)
        told.in_softirq().tells(messaging.poll, 0, 128).said.clear()
        told.tells(messaging.deliver, 0)
        (told << MessageDropped(0, 1, 0, CHECKIN)).delivers(1).and_no_more()

    def test_a_callback_is_a_story_too(self):
        """Told in the softirq of the kernel that received the message."""
        seen = []

        def callback(world, me, message):
            seen.append((me, message.sender, message.payload))
            yield RingSeenEmpty(me, 99)

        told = Transcript(handlers={TEST: callback}).message(0)
        told.in_softirq().tells(messaging.poll, 0, 128).said.clear()
        told.tells(messaging.deliver, 0)
        (told.delivers(0) << RingSeenEmpty(0, 99)).and_no_more()
        assert seen == [(0, 1, 70)]


class TestInterrupts:
    def test_the_top_half_does_three_things(self):
        """Acknowledge, raise the softirq, ask for no more interrupts."""
        (
            (Transcript() >> IpiSent(1, 0, KMSG_VECTOR) >> IpiArrived(0, 1)).tells(messaging.isr, 0)
            << InterruptTaken(0)
            << InterruptsDisabled(0)
        ).and_no_more()

    def test_two_ipis_before_the_interrupt_are_one(self):
        """The APIC has one bit per vector."""
        told = Transcript() >> IpiSent(1, 0, KMSG_VECTOR) >> IpiSent(2, 0, KMSG_VECTOR)
        told >> IpiArrived(0, 1) >> IpiArrived(0, 2)
        (told.tells(messaging.isr, 0) << InterruptTaken(0) << InterruptsDisabled(0)).and_no_more()

    def test_without_an_ipi_nothing_happens(self):
        """Both halves wait."""
        Transcript().tells(messaging.isr, 0).and_no_more()
        Transcript().tells(messaging.softirq, 0, messaging.receive).and_no_more()

    def test_the_softirq_runs_receive_between_enter_and_exit(self):
        """Whoever wrote it."""

        def receive(world, me):
            yield RingSeenEmpty(me, 0)

        (
            (Transcript() >> InterruptTaken(0)).tells(messaging.softirq, 0, receive)
            << SoftirqEntered(0)
            << RingSeenEmpty(0, 0)
            << SoftirqExited(0)
        ).and_no_more()

    def test_a_softirq_that_is_raised_while_it_runs_runs_again(self):
        """An interrupt that comes late is not lost."""
        told = Transcript().in_softirq() >> InterruptTaken(0)
        assert told.world.messaging.softirq[0] is Softirq.RUNNING_AND_RAISED
        told >> SoftirqExited(0)
        assert told.world.messaging.softirq[0] is Softirq.RAISED

    @pytest.mark.parametrize("state", Softirq)
    @pytest.mark.parametrize("kind", [InterruptTaken, SoftirqEntered, SoftirqExited])
    def test_the_table_of_transitions_is_what_the_world_does(self, state, kind):
        """What the table does not have is refused, and nothing changes."""
        world = Transcript().world
        world.messaging.softirq[0] = state
        after = SOFTIRQ_TRANSITIONS[state].get(kind)
        if after is None:
            with pytest.raises(WorldError, match=f"{kind.__name__} is not possible .* is {state}"):
                world.apply(kind(0))
            assert world.messaging.softirq[0] is state
        else:
            world.apply(kind(0))
            assert world.messaging.softirq[0] is after

    def test_an_ipi_that_was_not_sent_interrupts_all_the_same(self):
        """A spurious one: the hardware cannot tell, and there are never fewer than none on the
        wire."""
        world = Transcript().world
        world.apply(IpiArrived(0, 1))
        assert world.messaging.ipi_pending[0] == 1
        assert not any(world.messaging.on_the_wire.values())


class TestRegistration:
    def test_the_first_kernel_makes_rkinfo(self):
        """And finds nobody to check in with."""
        told = Transcript(registered=False, handlers={CHECKIN: None})
        (
            told.tells(messaging.join, 0)
            << KernelStarted(0, 0)
            << CallbackRegistered(0, CHECKIN)
            << RkinfoAllocated(0, messaging.RKINFO_ADDRESS)
            << WindowPublished(0, told.world.setup.window_address(0))
        ).and_no_more()

    def test_the_next_maps_whom_it_finds_and_checks_in(self):
        """With HIGH priority, and the address of its own window for payload."""
        told = Transcript(registered=False, handlers={CHECKIN: None}).tells(messaging.join, 0)
        told.said.clear()
        (
            told.tells(messaging.join, 1)
            << KernelStarted(1, told.world.setup.cpus[1])
            << CallbackRegistered(1, CHECKIN)
            << WindowPublished(1, told.world.setup.window_address(1))
            << WindowMapped(1, 0)
            << TicketTaken(0, 0, 1, 0)
            << PayloadCopied(0, 0, 0, 1, 0, CHECKIN, HIGH, told.world.setup.window_address(1))
            << SlotReady(0, 0, 0, 1)
            << IpiSent(1, 0, KMSG_VECTOR)
        ).and_no_more()

    def test_a_softirq_leaves_mapping_to_a_thread(self):
        """It may not sleep; until the thread has run, an answer would fail."""
        told = Transcript(registered=False)
        told >> KernelStarted(0, 0) >> WindowPublished(0, told.world.setup.window_address(0))
        message = MessageRead(0, 0, 0, 1, 0, CHECKIN, HIGH, told.world.setup.window_address(1))
        (told.tells(messaging.checked_in, 0, message) << MapQueued(0, 1)).and_no_more()
        (told.tells(messaging.send, 0, 1) << SendFailed(0, 1)).and_no_more()
        (told.tells(messaging.map_window, 0, 1) << WindowMapped(0, 1)).and_no_more()
        assert told.world.messaging.mapped[0] == 0b11

    def test_windows_do_not_overlap(self):
        """Each in its own kernel's granule."""
        setup = Transcript().world.setup
        places = [setup.window_address(kernel) for kernel in range(64)]
        assert min(b - a for a, b in zip(places, places[1:], strict=False)) >= 4113
        assert min(places) >= messaging.RKINFO_ADDRESS + 1536


class TestCosts:
    """Times come out of the machine's distances and the labelled constants, nowhere else."""

    @pytest.fixture
    def setup(self):
        return Transcript().world.setup

    def test_put_and_get_are_counted_in_line_transfers(self, setup):
        """One for the ticket, two and 60 cycles for the copy; two and a kmalloc to read."""
        machine, (here, there, _) = setup.machine, setup.cpus
        line = machine.transfer_ns(here, there)
        ticket, copy, read = setup.costs.pair(0, 1)
        assert ticket.ns == line
        assert copy.ns == 2 * line + machine.ns(60)
        assert read.ns == 2 * line + machine.cost_ns("message_copy_cycles")

    def test_each_delay_keeps_its_own_cpu_busy(self, setup):
        """The one that works, not the one that is written to."""
        assert {delay.cpu for delay in setup.costs.pair(1, 0)} == {setup.cpus[1]}
        assert setup.costs.icr[2].cpu == setup.costs.isr[2].cpu == setup.cpus[2]
        assert setup.costs.ipi_delivery.cpu is None

    def test_one_cold_message_takes_the_sum_of_its_steps(self):
        """From ticket to callback: the formula of the cost table, to the nanosecond."""
        run = scenarios.ping(machine="magny-cours-48")
        setup = run.setup
        costs, machine = setup.costs, setup.machine
        ticket, copy, _ = costs.pair(1, 0)
        _, _, read = costs.pair(0, 1)
        first, last = run.trace.next(TicketTaken), run.trace.next(MessageDelivered)
        steps = (
            copy, costs.icr[1], costs.ipi_delivery, costs.isr[0], costs.softirq[0], read,
            costs.poll_exit[0], costs.look(0), costs.look(0), costs.dispatch[0],
        )  # fmt: skip
        assert last.time - first.time == sum(step.ns for step in steps)
        assert machine.cost_ns("ipi_delivery_cycles") == costs.ipi_delivery.ns

    def test_numbers_of_the_first_generation(self):
        """Vector, budget and the most kernels, as in the source."""
        assert (KMSG_VECTOR, POLL_BUDGET_MESSAGES, messaging.KERNELS_AT_MOST) == (0xCD, 128, 64)


def test_each_event_says_what_happens_and_why():
    """A sentence, a reason, and where to find it in real Popcorn."""
    kinds = [
        kind
        for kind in vars(messaging).values()
        if isinstance(kind, type)
        and kind.__module__ == messaging.__name__
        and hasattr(kind, "says")
    ]
    assert len(kinds) >= 15
    for kind in kinds:
        assert len(kind.__doc__) > 60 and kind.popcorn, kind
        sentence = str(kind(*[1] * len(kind.fields)))
        assert "{" not in sentence and len(sentence) > 15, kind

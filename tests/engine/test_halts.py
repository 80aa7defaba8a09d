"""The end of a kernel in the middle of a run, and a record that happens as another."""

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.sim import Sim
from popcorn_edu.engine.steps import Begin, Delay, Until
from popcorn_edu.engine.trace import Event, PopcornError, StoryStopped
from popcorn_edu.engine.world import World
from popcorn_edu.model.boot import KernelPanicked
from popcorn_edu.model.messaging import IpiArrived, IpiSent
from popcorn_edu.model.rings import MessageRead, PayloadCopied


class Said(Event):
    what: int


class Died(Event):
    halts = "kernel"
    kernel: int


def saying(*steps):
    def tell(world):
        for step in steps:
            yield Said(step) if type(step) is int else step

    return tell


def played(*cast, **options):
    """Run (who, kernel, steps) and return what was said, with the Sim."""
    sim = Sim(World(), **options)
    for who, kernel, *steps in cast:
        sim.begin(who, saying(*steps), kernel=kernel)
    trace = sim.run()
    return [record.event for record in trace], sim


@pytest.fixture(scope="module")
def fan_in():
    return scenarios.fan_in(kernels=3, messages=3)


class TestHalts:
    @pytest.mark.parametrize("careful", [False, True])
    @pytest.mark.parametrize("schedule_seed", [None, 1, 2])
    def test_all_actors_of_the_kernel_stop_at_that_record(self, careful, schedule_seed):
        """Whether they have a delay, wait, are woken by the very record, or are not there yet."""
        events, sim = played(
            ("process", 1, Delay(50), 1),
            ("isr", 1, Until(Said, what=9), 2),
            ("late isr", 1, Until(Said, what=8, within=60), 3),
            ("witness", 1, Until(Died), 4),
            ("killer", 2, Delay(5), Died(1), 8, Delay(20), 9),
            careful=careful,
            schedule_seed=schedule_seed,
        )
        assert events == [Died(1), Said(8), Said(9)]
        assert sim.waiting() == ()

    def test_others_may_wait_for_the_end(self):
        """A witness in another kernel is woken by it as by any record."""
        events, _ = played(("2", 2, Until(Died, kernel=1), 5), ("1", 1, Delay(3), Died(1), 6))
        assert events == [Died(1), Said(5)]

    def test_one_who_ends_its_own_kernel_says_nothing_more(self):
        """Not even at the same time."""
        assert played(("1", 1, Died(1), 6), ("2", 2, 7))[0] == [Died(1), Said(7)]

    def test_who_is_due_at_the_same_time_does_not_act(self):
        """The ready list and the queue know the dead."""
        events, _ = played(
            ("2", 2, Delay(5), 1, Died(1), 2),
            ("1", 1, Until(Said, what=1), 3),
            ("1 b", 1, Delay(5), 4),
        )
        assert events == [Said(1), Died(1), Said(2)]

    def test_a_story_that_catches_everything_ends_too(self):
        """A bare except does not outlive its kernel."""

        def stubborn(world):
            for n in range(1, 5):
                try:
                    yield Delay(10)
                except:  # noqa: E722 (a learner's)
                    yield Said(n)
                yield Said(-n)

        sim = Sim(World(), careful=True)
        sim.begin("1", stubborn, kernel=1)
        sim.begin("2", saying(Delay(15), Died(1), Delay(100), 7), kernel=2)
        assert [r.event for r in sim.run()] == [Said(-1), Died(1), Said(7)]

    def test_what_is_begun_belongs_to_the_beginners_kernel(self):
        """Unless it says whose it is; None is nobody's."""
        inner = saying(Delay(20), 5)
        for whose, said in (((), []), ((2,), [Said(5)]), ((None,), [Said(5)])):
            sim = Sim(World())
            sim.begin("1", saying(Begin("inner", inner(None), *whose), Delay(99), 6), kernel=1)
            sim.begin("3", saying(Delay(9), Died(1)), kernel=3)
            assert [r.event for r in sim.run()] == [Died(1), *said]

    def test_a_kernel_that_was_not_named_has_no_end(self):
        """Kernel 0 is a kernel, None is none."""
        assert played(("0", 0, Delay(9), 1), ("?", None, Died(0), 2))[0] == [Died(0), Said(2)]
        assert played(("?", None, Died(0), 2), ("", None, 3))[0] == [Died(0), Said(2), Said(3)]

    def test_a_fork_can_say_it(self, fan_in):
        """The record that the dead kernel was about to write is not written."""
        for record in fan_in.trace[1:]:
            kernel = int(record.who.split()[-1] if "IPI" in record.who else record.who.split()[1])
            fork = fan_in.fork(record.seq, say=KernelPanicked(kernel, "a bug"))
            told = fork.trace[record.seq]
            assert (told.event, told.who) == (KernelPanicked(kernel, "a bug"), "fork")
            after = {r.who for r in fork.trace[record.seq + 1 :]}
            assert not {who for who in after if who.startswith(f"kernel {kernel}")}
            assert fork.world == fork.at(len(fork))
            assert not list(fork.trace.records(StoryStopped))

    def test_an_ipi_on_the_wire_outlives_its_sender(self, fan_in):
        """It is hardware by then."""
        sent = fan_in.trace.next(IpiSent)
        n = fan_in.trace.next(IpiArrived).seq
        assert sent.seq < n
        fork = fan_in.fork(sent.seq + 1, say=KernelPanicked(sent.event.src, "a bug"))
        assert fork.trace.next(IpiArrived).event == IpiArrived(0, sent.event.src)

    def test_a_fork_of_such_a_fork_keeps_the_end(self, fan_in):
        """Its past is the fork's past."""
        fork = fan_in.fork(12, say=KernelPanicked(2, "a bug"))
        for n in (13, 20, len(fork) - 1):
            again = fork.fork(n, delay=400)
            assert list(again.trace)[:n] == list(fork.trace)[:n]
            assert not [r for r in again.trace[13:] if r.who == "kernel 2"]


class TestInstead:
    def test_the_record_happens_as_another(self, fan_in):
        """Same time, same actor; what follows follows from the other event."""
        copied = fan_in.trace.next(PayloadCopied)
        event = PayloadCopied._make((*copied.event[:7], 77))
        fork = fan_in.fork(copied.seq, instead=event)
        assert fork.trace[copied.seq] == copied._replace(event=event)
        assert list(fork.trace)[: copied.seq] == list(fan_in.trace)[: copied.seq]
        assert fork.trace.next(MessageRead, ticket=copied.event.ticket).event.payload == 77
        assert fork.world == fork.at(len(fork))

    def test_it_can_be_the_end_of_its_kernel(self, fan_in):
        """Instead of its next step the kernel panics."""
        copied = fan_in.trace.next(PayloadCopied)
        me = copied.event.sender
        fork = fan_in.fork(copied.seq, instead=KernelPanicked(me, "a bug"))
        assert fork.trace[copied.seq].who == f"kernel {me}"
        assert not [r for r in fork.trace[copied.seq + 1 :] if r.who == f"kernel {me}"]

    def test_what_the_world_refuses_is_said_and_the_record_happens(self, fan_in):
        """The fork is told why, and goes on as if it had not asked."""
        read = fan_in.trace.next(MessageRead)
        fork = fan_in.fork(read.seq, instead=MessageRead(1, 5, 5, 2, 0, 0, 1, 0))
        assert "slot 5 of ring 1 is empty" in fork.trace[read.seq].event.problem
        assert [r.event for r in fork.trace[read.seq + 1 :]] == [
            r.event for r in fan_in.trace[read.seq :]
        ]

    @pytest.mark.parametrize("wrong", [5, IpiSent, IpiSent("0", 1, 2)])
    def test_it_wants_an_event(self, fan_in, wrong):
        """As say= does."""
        with pytest.raises(PopcornError, match="instead="):
            fan_in.fork(4, instead=wrong)

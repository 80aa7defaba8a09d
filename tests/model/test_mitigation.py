"""How a kernel learns of its messages: each policy, and what it costs beside the others."""

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import walk
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model import flat, mitigation
from popcorn_edu.model.messaging import (
    GENERATIONS,
    InterruptTaken,
    IpiSent,
    MessageDelivered,
)
from popcorn_edu.model.mitigation import (
    LINGER_LEAST_NS,
    LINGER_MOST_NS,
    SIDE_BY_SIDE,
    LingerChosen,
    PollingStarted,
)
from popcorn_edu.model.rings import (
    AllRegistered,
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    MessageType,
    Priority,
    SenderBlocked,
    SenderSlept,
    SendRefused,
    TicketTaken,
)
from popcorn_edu.readers import checks, figures

LOADS = {"saturated": 0, "busy": 700, "half idle": 4_000, "idle": 40_000}
SAFE = [label for label in SIDE_BY_SIDE if label != "Popcorn"]


def load(label: str = "NAPI", gap_ns: int = 4_000, **options):
    options = {"kernels": 5, "messages": 40, "seed": 1} | SIDE_BY_SIDE[label] | options
    return scenarios.fan_in(gap_ns=gap_ns, **options)


@pytest.mark.parametrize("gap_ns", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("label", SAFE)
def test_every_policy_breaks_no_rule(label, gap_ns):
    """Whatever the policy, the load and the order of what is simultaneous, all rules hold."""
    for seed in range(4):
        run = load(label, gap_ns, seed=seed, schedule_seed=seed or None)
        assert checks.all(run) == []
        assert run.trace.kinds()["MessageDelivered"] == 160


def test_popcorn_as_coded_strands_a_message_and_napi_does_not():
    """The one difference between the two is the second look, and it is what saves the message."""
    lost = {"kernels": 3, "messages": 3, "gap_ns": 1_000, "seed": scenarios.LOST_WAKEUP_SEEDS[0]}
    assert checks.no_lost_wakeup(load("Popcorn", **lost))
    assert checks.no_lost_wakeup(load("NAPI", **lost)) is None


def test_interrupt_only_interrupts_for_every_message():
    """int_enabled stays 1, so every sender sends an IPI; nobody ever writes the flag."""
    run = load("Interrupt only", gap_ns=700)
    kinds = run.trace.kinds()
    assert kinds["IpiSent"] == kinds["TicketTaken"] == 160
    assert "InterruptsDisabled" not in kinds and "InterruptsEnabled" not in kinds


def test_poll_only_is_never_interrupted():
    """int_enabled becomes 0 before the first message, and stays so."""
    run = load("Poll only")
    assert run.trace.next(PollingStarted, kernel=0).time == 0
    assert run.trace.next(IpiSent) is None and run.trace.next(InterruptTaken) is None
    assert run.world.rings.int_enabled[0] == 0


def test_a_poller_reads_within_a_period():
    """A message that finds the poller at rest waits for half a period (the model's mean)."""
    few = scenarios.fan_in(kernels=2, messages=1, mitigation="poll only", poll_every_ns=10_000)
    ready = next(iter(figures.latencies(few)))
    cost_ns = few.setup.costs.pair(0, 1)[2].ns
    assert ready["read_ns"] - ready["ready_ns"] == 5_000 + cost_ns


def test_mitigation_saves_interrupts_where_the_load_is_high():
    """Interrupts per message: interrupt only 1, poll only 0, the others in between, the less the
    higher the load."""

    def per_message(label, gap_ns):
        return figures.summary(load(label, gap_ns))["ipis_per_message"]

    assert per_message("Interrupt only", 700) == 1 and per_message("Poll only", 700) == 0
    assert 0 < per_message("NAPI", 700) < per_message("NAPI", 4_000) < per_message("NAPI", 40_000)
    assert per_message("Adaptive", 4_000) < per_message("NAPI", 4_000)


def test_the_adaptive_while_doubles_and_halves():
    """The while doubles when a message came in it, halves when none came, between two limits."""
    run = load("Adaptive", gap_ns=6_000)
    before = LINGER_LEAST_NS
    for record in run.trace.records(LingerChosen, kernel=0):
        now = record.event.ns
        assert now in (min(2 * before, LINGER_MOST_NS), max(before // 2, LINGER_LEAST_NS))
        before = now
    assert before != LINGER_LEAST_NS or run.trace.kinds()["LingerChosen"] > 2


def test_an_interrupt_only_receiver_reads_all_there_is():
    """Stepped by hand: two messages lie in the ring, one call reads both and hands them over."""
    run = load("Interrupt only", kernels=3, messages=1, gap_ns=0)
    world = run.at(run.trace.next(MessageRead).seq)
    told = [type(r.event) for r in walk(mitigation.receive_and_stay_enabled(world, 0), world)]
    assert told.count(MessageRead) == told.count(MessageDelivered) == 2
    assert InterruptsEnabled not in told and InterruptsDisabled not in told


def test_a_policy_of_ones_own_is_a_story():
    """A learner's receive takes the policy's place, and may keep what it likes in a closure."""
    rounds = []

    def mine(world, me):
        rounds.append(me)
        yield from mitigation.receive_and_stay_enabled(world, me)

    run = scenarios.fan_in(kernels=3, messages=5, receive=mine, mitigation="interrupt only")
    assert checks.all(run) == [] and len(rounds) > 0


@pytest.mark.parametrize("label", SIDE_BY_SIDE)
def test_a_policy_is_played_the_same_by_any_engine(label):
    """The engine that is fast plays what it knows; whatever it does not is told by the stories."""
    with flat.played_by("stories"):
        told = load(label, 1_500, messages=10)
    assert load(label, 1_500, messages=10).trace.digest() == told.trace.digest()


@pytest.mark.parametrize("label", SIDE_BY_SIDE)
def test_a_saved_run_keeps_its_policy(label, tmp_path):
    """A run's file says how its kernels received, and can be forked."""
    run = load(label, messages=3)
    again = scenarios.load(run.save(tmp_path / "run.popcorn"))
    assert again.setup.mitigation == run.setup.mitigation
    fork = again.fork(3, delay=500)
    assert fork.trace[3].time >= again.trace[3].time


# -- generations: what to do when the ring is full ------------------------------------------------


def burst(**options):
    return scenarios.fan_in(kernels=5, messages=20, gap_ns=50, slots=4, seed=2, **options)


def test_a_g2_sender_sleeps_at_a_full_ring():
    """It holds its ticket, sleeps whole milliseconds, and loses nothing."""
    run = burst(generation="G2")
    slept = run.trace.next(SenderSlept)
    assert run.trace.next(SenderBlocked) is None
    woken = run.trace.next(
        type(run.trace[slept.seq].event), after=slept.seq, sender=slept.event.sender
    )
    assert woken is None or woken.time - slept.time >= 1_000_000
    assert run.trace.kinds()["MessageDelivered"] == 80 and checks.all(run) == []


def test_a_refused_sender_takes_no_ticket():
    """-ENOSPC: no ticket, no slot, and what was refused is never delivered."""
    run = burst(generation="MK25")
    refused = list(run.trace.records(SendRefused))
    assert refused and all(record.event.returns == "-ENOSPC" for record in refused)
    kinds = run.trace.kinds()
    assert kinds["TicketTaken"] == kinds["MessageDelivered"] == 80 - len(refused)
    fill = 0
    for record in run.trace.records(TicketTaken, MessageRead):
        fill += 1 if type(record.event) is TicketTaken else -1
        assert fill <= 4


def test_the_2025_kernels_always_interrupt():
    """interrupt_rule "always": one IPI for every message, although the receiver polls."""
    run = burst(generation="MK25")
    assert run.trace.kinds()["IpiSent"] == run.trace.kinds()["TicketTaken"]
    assert checks.no_needless_interrupts(run) is None


def test_g1_as_coded_deadlocks_where_the_fixed_one_does_not():
    """The whole-ring rule: a ticket at the tail may wait for tickets behind it, for ever."""
    assert checks.no_deadlock(burst(generation="G1"))
    assert checks.all(burst(generation="G1 fixed")) == []


@pytest.mark.parametrize("name", GENERATIONS)
def test_what_is_said_wins_over_the_generation(name):
    """A setting that is given otherwise than usual wins."""
    assert burst(generation=name, budget=7).setup.budget == 7
    assert scenarios.fan_in(generation=name, slots=5, messages=1).setup.slots == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"generation": "G3"}, {"mitigation": "napi"}, {"interrupt_rule": "never"},
        {"bottom_half": "tasklet"}, {"full_rule": "drop"}, {"poll_every_ns": 0},
    ],
)  # fmt: skip
def test_a_choice_that_there_is_not_is_refused_by_name(wrong):
    """A misspelt policy names itself and what there is."""
    ((name, value),) = wrong.items()
    with pytest.raises(PopcornError, match=f"{name}={value!r}"):
        burst(**wrong)


# -- without waiting ------------------------------------------------------------------------------


def full_ring():
    """A world in which ring 0 is full and kernel 1 would send."""
    run = scenarios.fan_in(kernels=3, messages=3, gap_ns=0, slots=1)
    return run.at(run.trace.next(TicketTaken).seq + 1)


@pytest.mark.parametrize(("sign_fixed", "answer"), [(False, "-1"), (True, "-EAGAIN")])
def test_noblock_does_not_wait_and_g1_gets_the_sign_wrong(sign_fixed, answer):
    """A full ring: no ticket; as coded the caller learns -1, never that it may try again."""
    from popcorn_edu.model.messaging import send_noblock

    world, got = full_ring(), []

    def story():
        got.append(
            (
                yield from send_noblock(
                    world, 2, 0, MessageType.TEST, Priority.NORMAL, 0, sign_fixed=sign_fixed
                )
            )
        )

    told = [record.event for record in walk(story(), world)]
    assert told == [SendRefused(0, 2, answer)] and got == [answer]


def test_noblock_sends_where_there_is_room():
    """With a free slot it is an ordinary send, and answers 0."""
    from popcorn_edu.model.messaging import send_noblock

    run, got = scenarios.fan_in(kernels=3, messages=1), []
    world = run.at(run.trace.next(AllRegistered).seq + 1)

    def story():
        got.append((yield from send_noblock(world, 2, 0)))

    told = [type(record.event) for record in walk(story(), world)]
    assert told[0] is TicketTaken and got == [0]

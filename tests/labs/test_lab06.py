"""Lab 06: what its own answers are worth, right, half right and wrong."""

from collections import Counter

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import Delay
from popcorn_edu.grading import budgets, lab06
from popcorn_edu.grading.lab06 import TASKS
from popcorn_edu.grading.tasks import Report, Variant, judge
from popcorn_edu.model.messaging import deliver, poll
from popcorn_edu.model.rings import InterruptsDisabled, InterruptsEnabled
from popcorn_edu.readers import checks

TASK = {task.id: task for task in TASKS}
MINE = Variant("06")
SEEDS = ("practice", "ada", "bob", "7", "x", "another")


def report(task: str, answer, variant=MINE) -> Report:
    return Report(TASK[task], judge(TASK[task], answer, variant, hidden=True))


def earned(found: Report) -> dict[str, float]:
    return {row.check: row.earned for row in found.outcome}


# -- variants -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_variant_shows_what_it_is_to_show(seed):
    """An arrival list with both kinds of messages, one stranded message, a budget that fits."""
    variant = Variant("06", seed)
    told = lab06.asked(lab06.arriving(variant))
    assert True in told and False in told
    assert checks.no_lost_wakeup(lab06.lost(variant)) and len(lab06.culprits(variant)) == 3
    costs = [budgets.my_cost(variant, b) for b in budgets.BUDGETS]
    wanted = budgets.targets(variant)
    good = [c.p99_ns <= wanted.p99_ns and c.work_ns <= wanted.work_ns for c in costs]
    assert 1 <= sum(good) <= 3 and not good[0] and not good[-1]
    assert lab06.knee(variant) in lab06.GAPS_NS[1:-1]


def test_variants_differ():
    """Neighbours do not have the same numbers."""
    assert len({lab06.note(Variant("06", seed)) for seed in SEEDS}) >= 4


def test_the_steps_that_lose_a_message_are_one_order():
    """Of the six orders that are possible, one loses it; the others read it or interrupt."""
    orders = [order for order in lab06.permutations(lab06.STEPS) if lab06.possible(order)]
    assert Counter(map(lab06.outcome, orders)) == {"lost": 1, "read": 1, "interrupted": 4} or (
        Counter(map(lab06.outcome, orders))["lost"] == 1 and len(orders) == 6
    )


def test_the_searches_say_what_the_lab_says():
    """G1 loses one; the second look is safe under SC alone; the full barrier under TSO too."""
    assert {name: lab06.is_lost(name) for name in lab06.EXPLORED} == {
        "g1": True, "second_look": False, "second_look_tso": True, "full_barrier_tso": False,
    }  # fmt: skip


# -- f2: receivers with one slip ------------------------------------------------------------------


def receiver(budget=4, delivers=True, late=False, waits=True, looks=True, masks=True, goes_on=True):
    """The right receiver, or one with a slip."""

    def receive(world, me):
        ring = world.rings
        while True:
            read = yield from poll(world, me, budget)
            if delivers and not late:
                yield from deliver(world, me)
            if goes_on and read == budget:
                continue
            if waits:
                yield Delay(300)
            yield InterruptsEnabled(me)
            if not looks or ring.head[me] == ring.tail[me]:
                break
            if masks:
                yield InterruptsDisabled(me)
        if late:
            yield from deliver(world, me)

    return receive


def test_the_right_receiver_has_full_points():
    """Whatever the variant."""
    for seed in SEEDS[:3]:
        assert report("f2", receiver(), Variant("06", seed)).points == 4


READS, BATCHES, FEW, FRESH = (check.name for check in TASK["f2"].checks)
SLIPS = {
    "hands nothing over": ({"delivers": False}, {READS, FRESH}),
    "hands over at the end": ({"late": True}, {BATCHES, FRESH}),
    "reads all at once": ({"budget": 128}, {BATCHES, FRESH}),
    "does not take its time": ({"waits": False}, {READS, FRESH}),
    "does not look once more": ({"looks": False}, {READS, FRESH}),
    "does not mask": ({"masks": False}, {FEW, FRESH}),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_costs_its_own_check(slip):
    """And the hidden one; the others are still earned."""
    options, lost = SLIPS[slip]
    found = earned(report("f2", receiver(**options)))
    assert {name for name, points in found.items() if points == 0} >= lost
    assert found[BATCHES if BATCHES not in lost else FEW] in (0, 1)
    assert sum(found.values()) >= (1 if slip != "hands nothing over" else 0)


def test_a_receiver_that_never_ends_is_told_so():
    """An endless loop is one sentence with the line, and no points."""

    def receive(world, me):
        while True:
            pass
        yield

    found = report("f2", receive)
    assert found.points == 0 and "endless loop" in str(found)


# -- the small tasks ------------------------------------------------------------------------------


def test_every_message_an_interrupt_is_recognised():
    """Whoever says nine for nine messages believes M4."""
    right = lab06.ipis_of(MINE)
    found = report("a1", right | {"mitigated": right["interrupt_only"]})
    assert found.points < 3 and "M4" in found.tags
    close = right | {"mitigated": right["mitigated"] + 1}
    if close["mitigated"] != right["interrupt_only"]:
        assert report("a1", close).points == 2.5


def test_the_neighbour_of_the_knee_earns_half():
    """One gap off is half of the point and a half; two off nothing."""
    at = lab06.GAPS_NS.index(lab06.knee(MINE))
    answer = {"ipis_per_message": "b", "because": "c"}
    assert report("e3", answer | {"knee_gap_ns": lab06.GAPS_NS[at]}).points == 3
    assert report("e3", answer | {"knee_gap_ns": lab06.GAPS_NS[at - 1]}).points == 2.25
    assert report("e3", answer | {"knee_gap_ns": 5}).points == 1.5
    assert "none of the gaps" in str(report("e3", answer | {"knee_gap_ns": 5}))


def test_an_order_that_saves_the_message_is_told_how():
    """Which of the two saves it: the receiver's look, or the interrupt."""
    rest = lab06.culprits(MINE) | {name: lab06.is_lost(name) for name in lab06.EXPLORED}
    right = report("i4", rest | {"order": list(lab06.LOSING[0])})
    assert right.points == 4
    saved = report("i4", rest | {"order": ["ready", "sees empty", "looks", "enables"]})
    assert saved.points == 3.25 and "sees the message before it goes to sleep" in " ".join(
        str(saved).split()
    )
    turned = report("i4", rest | {"order": ["enables", "sees empty", "ready", "looks"]})
    assert turned.points == 3 and "turned round" in " ".join(str(turned).split())


def test_a_record_of_the_right_kind_earns_half():
    """The wrong ready flag is still a ready flag."""
    right = lab06.culprits(MINE) | {"order": list(lab06.LOSING[0])}
    right |= {name: lab06.is_lost(name) for name in lab06.EXPLORED}
    other = next(
        r.seq for r in lab06.lost(MINE).trace.records(lab06.SlotReady) if r.seq != right["ready"]
    )
    assert report("i4", right | {"ready": other}).points == 3.75
    assert report("i4", right | {"ready": 10**6}).points == 3.5


@pytest.mark.parametrize(("budget", "missing"), [(1, "work"), (128, "p99")])
def test_the_ends_of_the_budgets_meet_one_target_at_most(budget, missing):
    """And the feedback says which number is too large."""
    found = report("e5", {"budget": budget, "too_large": "b"})
    assert found.points < 3 and f"{missing}" in str(found)


def test_a_burst_spends_a_budget_of_one_for_each_message():
    """Computed from the runs, and equal to the number of messages."""
    mine = lab06.numbers(MINE)
    assert lab06.spent(MINE, 1) == 4 * (mine.kernels - 1)
    assert lab06.spent(MINE, lab06.ENDLESS) == 0


def test_the_policies_that_suit_are_told_apart():
    """Always interrupting suits neither of the two kernels."""
    found = report("s7", {"control": "interrupt only", "throughput": "interrupt only",
                          "because": "It is simple and robust enough."})  # fmt: skip
    assert found.points == 0.2 and "M5" in found.tags


def test_batches_are_what_the_lab_says_they_are():
    """The receiver of e5 breaks no rule, whatever its budget."""
    for budget in budgets.BUDGETS:
        run = scenarios.fan_in(
            kernels=4, messages=6, gap_ns=400, receive=budgets.batches_of(budget)
        )
        assert checks.all(run) == []

"""A receiver that hands over in batches: the student's own, and what its budget costs.

Two tasks of Lab 06. A student's ``receive`` is tried in many runs (trials.py) and judged by the
rules of messaging and three of its own: a batch has a limit, interrupts are off while there is
work, and under load there are few of them. Then a budget is chosen for a load: too small, and the
softirq is entered for every message; too large, and the first of a batch wait for the last.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import OPEN
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model.messaging import IpiSent, MessageDelivered, SoftirqEntered
from popcorn_edu.model.mitigation import batches_of
from popcorn_edu.model.rings import InterruptsDisabled, InterruptsEnabled, MessageRead
from popcorn_edu.readers import figures
from popcorn_edu.readers.checks import Finding

BATCH = 4  # messages a student's receiver may read before it hands them over

# -- f2: rules of a receiver in batches -----------------------------------------------------------


def batches_are_bounded(trial) -> Finding | None:
    """No more than BATCH messages are read before they are handed over."""
    waiting = 0
    for record in trial.trace.records(MessageRead, MessageDelivered):
        event = record.event
        if type(event) is MessageDelivered:
            waiting -= event.kernel == 0
        elif event.ring == 0:
            waiting += 1
            if waiting > BATCH:
                return Finding(
                    "batches_are_bounded", record.seq, record.time,
                    f"kernel 0 reads a message while {waiting - 1} that it has read wait for their "
                    f"callbacks: after {BATCH} the batch is handed over, and only then it polls "
                    "again.",
                )  # fmt: skip
    return None


def masks_while_it_works(trial) -> Finding | None:
    """From its first message until it finds nothing more, a receiver asks for no interrupts."""
    enabled = None
    for record in trial.trace.records(
        InterruptsEnabled, InterruptsDisabled, MessageRead, SoftirqEntered, who="kernel 0 softirq"
    ):
        if type(record.event) is InterruptsEnabled:
            enabled = record
        elif type(record.event) in (InterruptsDisabled, SoftirqEntered):
            enabled = None  # or a new interrupt has begun it
        elif enabled is not None:
            return Finding(
                "masks_while_it_works", record.seq, record.time,
                f"kernel 0 polls on although it has asked for interrupts at record {enabled.seq}: "
                "each sender interrupts it, and it would have found the message anyway. Say "
                "InterruptsDisabled(me) before you go on.", "M4",
            )  # fmt: skip
    return None


HEAVY = {"kernels": 6, "messages": 12, "gap_ns": 300}  # a load under which NAPI takes few
ENOUGH = 1.5  # times as many IPIs as the kit's own receiver takes there, and one more


def interrupts_are_few(trials) -> Miss | None:
    """Under a heavy load, about as few IPIs as the kit's own receiver takes."""
    trial = trials.trial(**HEAVY, seed=trials.variant.rng("heavy").randrange(1_000))
    ours = scenarios.fan_in(**trial.options)
    most = int(ENOUGH * ipis(ours)) + 1
    if ipis(trial.run) > most:
        return Miss(
            f"run = {trial.call}: {ipis(trial.run)} IPIs for {HEAVY['messages'] * 5} messages; "
            f"{most} would be few. Who polls needs no interrupt: go on polling while there is "
            "something, with int_enabled = 0.",
            "M4", 0.0, trial.trace.next(IpiSent).seq, trial.run,
        )  # fmt: skip
    return None


def ipis(run) -> int:
    return run.trace.kinds().get("IpiSent", 0)


# -- e5: what a budget costs ----------------------------------------------------------------------

BUDGETS = (1, 2, 4, 8, 16, 32, 64, 128)
LOAD = {"kernels": 6, "messages": 60}
P99_SLACK, WORK_SLACK = 1.1, 1.04  # a target is the best of all budgets, and that much more
SEEDS_TRIED = 200


class Cost(NamedTuple):
    p99_ns: int
    work_ns: int  # of the receiver's softirq, for each message


@cache
def cost(seed: int, gap_ns: int, budget: int) -> Cost:
    """Of that budget under the variant's load, from a run."""
    run = with_budget(seed, gap_ns, budget)
    spent = figures.utilisation(run)[0]["softirq_ns"]
    messages = run.trace.kinds()["MessageDelivered"]
    return Cost(figures.summary(run)["p99_ns"], spent // messages)


def with_budget(seed: int, gap_ns: int, budget: int):
    return scenarios.fan_in(**LOAD, gap_ns=gap_ns, seed=seed, receive=batches_of(budget))


class Targets(NamedTuple):
    seed: int
    gap_ns: int
    p99_ns: int
    work_ns: int


@cache
def targets(variant: Variant) -> Targets:
    """A load, and two targets that some budgets meet, not all, and neither of the ends."""
    rng = variant.rng("e5")
    for _ in range(SEEDS_TRIED):
        seed, gap_ns = rng.randrange(1_000), rng.choice((1_400, 1_500, 1_600))
        costs = [cost(seed, gap_ns, budget) for budget in BUDGETS]
        p99 = int(P99_SLACK * min(c.p99_ns for c in costs))
        work = int(WORK_SLACK * min(c.work_ns for c in costs))
        good = [c.p99_ns <= p99 and c.work_ns <= work for c in costs]
        if any(good) and sum(good) <= 3 and not good[0] and not good[-1]:
            return Targets(seed, gap_ns, p99, work)
    raise PopcornError("no load of this variant has a budget that meets both targets")


def my_cost(variant: Variant, budget: int) -> Cost:
    mine = targets(variant)
    return cost(mine.seed, mine.gap_ns, budget)


def meets(what: str):
    """The chosen budget, tried under the variant's load, meets that target."""

    def holds(answer, variant):
        budget = answer["budget"]
        if budget is None:
            return OPEN
        if not 1 <= budget <= 10_000:
            return f"A budget of {budget} messages; one from 1 to 128 was expected."
        mine, found = targets(variant), my_cost(variant, budget)
        wanted, got = getattr(mine, what), getattr(found, what)
        if got > wanted:
            hint = {
                "p99_ns": "Whose messages wait for whose? Look at the latencies of a smaller and "
                "of a larger budget.",
                "work_ns": "What does the receiver do once more for each batch? A larger batch "
                "shares that among more messages.",
            }[what]
            name = {"p99_ns": "p99", "work_ns": "work for each message"}[what]
            share = max(0.0, 1 - (got / wanted - 1) * 5) / 2
            return Miss(f"{name}: {got:,} ns, and {wanted:,} were to be met. {hint}", share=share)

    return holds


def predicted(answer, variant):
    """What the student expected to happen to p99 beyond the best budget, before trying."""
    given = answer["too_large"]
    if given is None:
        return OPEN
    best = min(BUDGETS, key=lambda budget: my_cost(variant, budget).p99_ns)
    rises = my_cost(variant, BUDGETS[-1]).p99_ns > my_cost(variant, best).p99_ns
    if given != ("b" if rises else "a"):
        return Miss("Compare p99 with your budget and with 128 once more.")

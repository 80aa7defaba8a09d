"""Lab 06, Interrupt mitigation: what is asked, and how an answer is judged.

What is right comes out of runs: how many IPIs a list of messages causes, where the knee of the
latency curve is, which order of four steps loses a wake-up, which budget meets two targets. A
student's own receiver is tried in many runs by the rules that everybody may call (trials.py,
budgets.py). The hunt is on Popcorn's own behaviour: G1 as coded, and its later version, which is
safe until stores may wait.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import OPEN, OneOf
from popcorn_edu.grading.budgets import (
    batches_are_bounded,
    interrupts_are_few,
    masks_while_it_works,
    meets,
    predicted,
    targets,
)
from popcorn_edu.grading.guesses import before_and_after
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Check, Miss, Task, Variant
from popcorn_edu.grading.trials import (
    Trials,
    empty_means_empty,
    goes_on,
    leaving_takes_time,
    reads_what_it_could_see,
)
from popcorn_edu.model.mitigation import SIDE_BY_SIDE
from popcorn_edu.model.rings import (
    InterruptsDisabled,
    InterruptsEnabled,
    RingSeenEmpty,
    SlotReady,
)
from popcorn_edu.readers import checks, figures

TITLE = "Interrupt mitigation"
SEEDS_TRIED = 1_000


# -- the variant ----------------------------------------------------------------------------------


class Numbers(NamedTuple):
    """What differs between variants, all of it equally hard."""

    kernels: int
    messages: int
    seed: int


def numbers(variant: Variant) -> Numbers:
    rng = variant.rng("numbers")
    return Numbers(rng.choice((4, 5)), rng.choice((60, 70)), rng.randrange(1_000))


def note(variant: Variant) -> str:
    mine, wanted = numbers(variant), targets(variant)
    return (
        f"{mine.kernels} kernels; targets of e5: p99 {wanted.p99_ns:,} ns, work "
        f"{wanted.work_ns:,} ns"
    )


def first_run(variant: Variant, made, good):
    """The first run made(seed), from this variant's seed on, that shows what it is to show."""
    first = numbers(variant).seed
    for seed in range(first, first + SEEDS_TRIED):
        if good(run := made(seed)):
            return run
    raise PopcornError("no seed of this variant shows it")


@cache
def demo(variant: Variant):
    """A few messages, of which some come with an interrupt and some without."""

    def good(run):
        kinds = run.trace.kinds()
        return kinds["IpiSent"] in (2, 3) and kinds["SlotReady"] > kinds["IpiSent"] + 2

    return first_run(
        variant, lambda seed: scenarios.fan_in(kernels=3, messages=4, gap_ns=2_000, seed=seed), good
    )


# -- a1: how many interrupts ----------------------------------------------------------------------


@cache
def arriving(variant: Variant):
    """Messages of which the first few interrupt, then some do not, then one does again."""

    def good(run):
        told = asked(run)
        return 0 < sum(told) < len(told) and False in told and True in told[told.index(False) :]

    made = lambda seed: scenarios.fan_in(kernels=4, messages=3, gap_ns=4_000, seed=seed)  # noqa: E731
    return first_run(variant, made, good)


def asked(run) -> list[bool]:
    """For each message, in the order of their ready flags: did it interrupt?"""
    return [bool(enabled) for _, enabled in flags(run)]


def flags(run) -> list[tuple[int, int]]:
    """(when a message was ready, int_enabled then), by time."""
    return [
        (record.time, world.rings.int_enabled[0])
        for record, world in run.worlds()
        if type(record.event) is SlotReady
    ]


def quiet_times(run) -> list[tuple[int, int | None]]:
    """From when to when int_enabled was 0."""
    spans, since = [], None
    for record in run.trace.records(InterruptsDisabled, InterruptsEnabled, ring=0):
        if type(record.event) is InterruptsDisabled:
            since = record.time if since is None else since
        elif since is not None:
            spans.append((since, record.time))
            since = None
    return spans + ([(since, None)] if since is not None else [])


def arrivals_table(variant: Variant) -> Table:
    run = arriving(variant)
    rows = [(n, f"{time:,}") for n, (time, _) in enumerate(flags(run))]
    spans = ", ".join(
        f"{start:,} to {end:,} ns" if end else f"{start:,} ns on" for start, end in quiet_times(run)
    )
    return Table(
        "When each message is marked ready in ring 0", ["message", "ready at (ns)"], rows,
        f"int_enabled is 0 from {spans}; at all other times it is 1.",
    )  # fmt: skip


def same_load(variant: Variant, label: str):
    options = {"kernels": 4, "messages": 3, "gap_ns": 4_000}
    seed = arriving(variant).trace.meta["arguments"]["seed"]
    return scenarios.fan_in(**options, seed=seed, **SIDE_BY_SIDE[label])


def ipis_of(variant: Variant) -> dict[str, int]:
    """What is right in a1, from the runs."""
    told = asked(arriving(variant))
    count = {
        name: same_load(variant, label).trace.kinds().get("IpiSent", 0)
        for name, label in (("interrupt_only", "Interrupt only"), ("poll_only", "Poll only"))
    }
    return {"mitigated": sum(told), "first_quiet": told.index(False)} | count


def counts(name: str, sentence: str):
    def holds(answer, variant):
        given, truth = answer[name], ipis_of(variant)[name]
        if given is None:
            return OPEN
        if given != truth:
            total = len(asked(arriving(variant)))
            tag = "M4" if name != "interrupt_only" and given == total else ""
            close = name == "mitigated" and abs(given - truth) == 1
            return Miss(sentence, tag, 0.5 if close else 0.0)

    return holds


# -- f2: a receiver of one's own ------------------------------------------------------------------


def try_receive(receive, variant):
    return Trials("receive", receive, variant)


READS = (
    reads_what_it_could_see, checks.every_read_message_is_handled, leaving_takes_time,
    empty_means_empty,
)  # fmt: skip


def reads_all(trials, variant):
    """Every message is read and handed over, and no wake-up is lost."""
    between = checks.no_lost_wakeup, checks.every_message_is_read
    return trials.first_broken("public", *READS) or trials.first_broken("between", *between)


def in_batches(trials, variant):
    return trials.first_broken("public", batches_are_bounded)


def seldom_interrupted(trials, variant):
    return trials.first_broken("public", masks_while_it_works) or interrupts_are_few(trials)


RULES = (
    goes_on, batches_are_bounded, masks_while_it_works, checks.ready_comes_last,
    checks.every_message_is_read, checks.every_read_message_is_handled, checks.fifo_per_sender,
    leaving_takes_time, empty_means_empty, checks.no_lost_wakeup, checks.no_deadlock,
)  # fmt: skip


def holds_afresh(trials, variant):
    for runs in ("fresh", "held", "between"):
        if broken := trials.first_broken(runs, *RULES):
            return broken


# -- e3: the knee ---------------------------------------------------------------------------------

GAPS_NS = (1_000, 1_500, 2_000, 3_000, 4_000, 6_000, 8_000, 16_000, 32_000)
KNEE = 2  # times the p99 of the lightest load


def load(variant: Variant) -> dict:
    """What the sweep's runs have in common."""
    mine = numbers(variant)
    return {"kernels": 5, "messages": mine.messages, "seed": mine.seed}


@cache
def curve(variant: Variant) -> dict[int, dict]:
    """figures.summary at every load of the sweep."""
    return {
        gap_ns: figures.summary(scenarios.fan_in(gap_ns=gap_ns, **load(variant)))
        for gap_ns in GAPS_NS
    }


def knee(variant: Variant) -> int:
    """The highest load (the smallest gap) from which on all lighter ones have a p99 of at most
    twice that of the lightest."""
    points, found = curve(variant), GAPS_NS[-1]
    limit = KNEE * points[found]["p99_ns"]
    for gap_ns in reversed(GAPS_NS):
        if points[gap_ns]["p99_ns"] > limit:
            break
        found = gap_ns
    return found


def at_the_knee(answer, variant):
    given = answer["knee_gap_ns"]
    if given is None:
        return OPEN
    if given not in GAPS_NS:
        return f"{given} is none of the gaps of the sweep: {', '.join(map(str, GAPS_NS))}."
    truth = knee(variant)
    if given != truth:
        limit = KNEE * curve(variant)[GAPS_NS[-1]]["p99_ns"]
        near = abs(GAPS_NS.index(given) - GAPS_NS.index(truth)) == 1
        return Miss(
            f"At a gap of {given:,} ns p99 is {curve(variant)[given]['p99_ns']:,} ns, and twice "
            f"that of the lightest load is {limit:,} ns. Which is the highest load that stays "
            "below?", share=0.5 if near else 0.0,
        )  # fmt: skip


def fewer_under_load(answer, variant):
    given = answer["ipis_per_message"]
    if given is None:
        return OPEN
    light, heavy = (curve(variant)[gap]["ipis_per_message"] for gap in (GAPS_NS[-1], GAPS_NS[0]))
    if given != ("b" if heavy < light else "a"):
        return Miss(
            f"At the lightest load there are {light:.2f} IPIs for a message, at the heaviest "
            f"{heavy:.2f}.", "M4",
        )  # fmt: skip


def because_it_polls(answer, variant):
    given = answer["because"]
    if given is None:
        return OPEN
    if given != "c":
        return Miss("Which of the three is about what the receiver is doing when it comes?", "M5")


# -- i4: the lost wake-up -------------------------------------------------------------------------

STEPS = {
    "sees empty": "the receiver sees its ring empty",
    "enables": "the receiver sets int_enabled = 1 and sleeps",
    "ready": "the sender marks its message ready",
    "looks": "the sender looks at int_enabled",
}


def outcome(order: tuple[str, ...]) -> str:
    """Play the four steps: "lost", "read" (the receiver saw the message) or "interrupted"."""
    ready, enabled, saw, interrupted = False, False, False, False
    for step in order:
        if step == "ready":
            ready = True
        elif step == "sees empty":
            saw = ready
        elif step == "enables":
            enabled = True
        elif step == "looks":
            interrupted = enabled
    return "read" if saw else "interrupted" if interrupted else "lost"


def possible(order: tuple[str, ...]) -> bool:
    """Each of the two does its steps in their order."""
    return order.index("sees empty") < order.index("enables") and (
        order.index("ready") < order.index("looks")
    )


LOSING = [order for order in permutations(STEPS) if possible(order) and outcome(order) == "lost"]


def loses_it(answer, variant):
    given = answer["order"]
    if not given or None in given:
        return OPEN
    order = tuple(given)
    if sorted(order) != sorted(STEPS):
        return "Each of the four steps once, in the order in which they happen."
    if not possible(order):
        return "Each of the two does its own steps in their order: which pair is turned round?"
    if order not in LOSING:
        what = {
            "read": "the receiver sees the message before it goes to sleep",
            "interrupted": "the sender sees int_enabled = 1 and interrupts",
        }[outcome(order)]
        return Miss(f"In this order {what}: nothing is lost.", share=0.25)


@cache
def lost(variant: Variant):
    """G1 as coded, in a run in which a message is stranded."""
    options = scenarios.LOST_WAKEUP_OPTIONS | {"look_again": False}
    made = lambda seed: scenarios.fan_in(seed=seed, **options)  # noqa: E731
    return first_run(variant, made, lambda run: len(stranded(run)) == 1)


def stranded(run) -> list:
    """The ready flags of the messages that nobody ever read."""
    unread = {}
    for record in run.trace.records():
        event = record.event
        if type(event) is SlotReady:
            unread[event.ring, event.ticket] = record
        elif type(event).__name__ == "MessageRead":
            unread.pop((event.ring, event.ticket), None)
    return list(unread.values())


def culprits(variant: Variant) -> dict[str, int]:
    """The three records of the hunt: the last look, the stranded message, and int_enabled = 1."""
    run = lost(variant)
    (ready,) = stranded(run)
    empty = [r for r in run.trace.records(RingSeenEmpty, ring=0) if r.seq < ready.seq][-1]
    enabled = run.trace.next(InterruptsEnabled, after=ready.seq, ring=0)
    return {"ready": ready.seq, "empty": empty.seq, "enabled": enabled.seq}


def names_the(what: str, wanted: type, sentence: str):
    def holds(answer, variant):
        given, truth, run = answer[what], culprits(variant)[what], lost(variant)
        if given is None:
            return OPEN
        if given == truth:
            return None
        if not 0 <= given < len(run):
            return f"The run has records 0 to {len(run) - 1}."
        right_kind = type(run.trace[given].event) is wanted
        said = f"Record {given}: {run.trace[given].event}. {sentence}"
        return Miss(said, share=0.5 if right_kind else 0.0, seq=given, run=run)

    return holds


EXPLORED = {  # what is explored: the barrier, the memory, and whether there is a second look
    "g1": {"look_again": False, "memory": "sc"},
    "second_look": {"look_again": True, "barrier": "store", "memory": "sc"},
    "second_look_tso": {"look_again": True, "barrier": "store", "memory": "tso"},
    "full_barrier_tso": {"look_again": True, "barrier": "full", "memory": "tso"},
}


@cache
def is_lost(name: str) -> bool:
    """Whether some order of one sender's two messages loses one, by searching them all."""
    found = scenarios.explore("fan_in", kernels=2, messages=2, **EXPLORED[name])
    return found.run is not None


def explored(answer, variant):
    given = {name: answer.get(name) for name in EXPLORED}
    if all(value is None for value in given.values()):
        return OPEN
    wrong = [name for name in EXPLORED if given[name] is not is_lost(name)]
    if wrong:
        return Miss(
            f"{', '.join(wrong)}: run the search once more, and read its sentence.",
            share=1 - len(wrong) / 2,
        )  # fmt: skip


# -- a6: budgets 1 and without end ----------------------------------------------------------------

ENDLESS = 1_000_000


@cache
def burst(variant: Variant, budget: int):
    mine = numbers(variant)
    return scenarios.fan_in(
        kernels=mine.kernels, messages=4, gap_ns=0, budget=budget, seed=mine.seed
    )


def spent(variant: Variant, budget: int) -> int:
    return burst(variant, budget).trace.kinds().get("BudgetSpent", 0)


def times_spent(name: str, budget: int):
    def holds(answer, variant):
        given = answer[name]
        if given is None:
            return OPEN
        if given != spent(variant, budget):
            return Miss(
                "A budget is spent when a poll has read as many messages as it allows. "
                f"How many polls of this run read {budget:,}?"
            )

    return holds


def interrupts_stay(answer, variant):
    given = answer["ipis"]
    if given is None:
        return OPEN
    one, endless = (burst(variant, n).trace.kinds()["IpiSent"] for n in (1, ENDLESS))
    truth = "same" if one == endless else "more" if one > endless else "fewer"
    if given != truth:
        return Miss("When a budget is spent the poll starts over at once. Is int_enabled set?")


# -- s7: two kernels, two policies ----------------------------------------------------------------

POLICIES = ("interrupt only", "poll only", "NAPI")
KERNELS = {
    "control": "one message every 10 ms; it must be handled within 5 us; nothing else may use "
    "this CPU anyway",
    "throughput": "bursts of thousands of messages, then nothing for seconds; the CPU has other "
    "work between the bursts",
}
SUITS = {"control": "poll only", "throughput": "NAPI"}


def suits(name: str, sentence: str):
    def holds(answer, variant):
        given = answer[name]
        if given is None:
            return OPEN
        if given != SUITS[name]:
            return Miss(sentence, "M5" if name == "control" else "")

    return holds


def gives_a_reason(answer, variant):
    given = answer["because"]
    if given is None:
        return OPEN
    if len(given.split()) < 5:
        return "A sentence, please: what decides it for one of the two?"


def kernels_table(variant: Variant) -> Table:
    return Table("Two kernels", ["kernel", "what it needs"], list(KERNELS.items()))


# -- pre, post and the gates ----------------------------------------------------------------------

AFTER = {
    "every": {"a": "M4", "b": "", "c": "M4"},
    "polling": {"a": "M5", "b": "", "c": "M5"},
    "carries": {"a": "M3", "b": "M3", "c": ""},
}
PRE, POST = before_and_after(
    AFTER, "a1 for every message, e3 and e5 for polling, p1 for what an IPI carries."
)


def first_without(run) -> int:
    """The first message that comes without an interrupt: its ready flag."""
    for record, world in run.worlds():
        if type(record.event) is SlotReady and not world.rings.int_enabled[0]:
            return record.seq
    raise PopcornError("every message of this run interrupts")


PREDICTS = (
    Predict(
        "p1",
        "Kernel 0 is polling, and a message gets ready in its ring. What does its sender do next?",
        "demo",
        at=first_without,
        truth=lambda run, seq: "b" if not run.at(seq + 1).rings.int_enabled[0] else "a",
        options={
            "a": "it sends an IPI, as for each message",
            "b": "it looks at int_enabled, finds 0, and sends none",
            "c": "it waits until kernel 0 has read the message",
        },
        tags={"a": "M4", "c": "M6"},
        why="Who polls finds the message anyway. int_enabled = 0 says so, and the sender looks at "
        "it after the message is ready.",
    ),
    Predict(
        "p2",
        "G1 as coded: how many messages are never read in this run?",
        "lost",
        at=lambda run: stranded(run)[0].seq,
        truth=lambda run, seq: len(stranded(run)),
    ),
)

SCENES = {
    "demo": demo,
    "arriving": arriving,
    "arrivals": arrivals_table,
    "lost": lost,
    "kernels": kernels_table,
    "load": load,
    "budget 1": lambda variant: burst(variant, 1),
    "budget without end": lambda variant: burst(variant, ENDLESS),
    **{label: lambda variant, label=label: same_load(variant, label) for label in SIDE_BY_SIDE},
}


# -- the tasks ------------------------------------------------------------------------------------

TASKS = (
    PRE,
    Task(
        "a1",
        "How many interrupts?",
        dict.fromkeys(("mitigated", "first_quiet", "interrupt_only", "poll_only"), int),
        (
            Check(
                "mitigated", 1,
                counts("mitigated", "For each message: was int_enabled 1 when it got ready?"),
            ),
            Check(
                "the first without an IPI", 1,
                counts("first_quiet", "Which is the first whose time lies in a quiet stretch?"),
            ),
            Check(
                "interrupt only", 0.5,
                counts("interrupt_only", "There int_enabled is never 0. How many messages are "
                       "there?"),
            ),
            Check(
                "poll only", 0.5,
                counts("poll_only", "There int_enabled is never 1."),
            ),
        ),
        hints=(
            "An IPI is sent for a message if and only if `int_enabled` is 1 when its ready flag "
            "is set.",
            "Go down the list, and put each time into one of the stretches that stand below it.",
            "`mitigated` and `first_quiet` come from the list; the other two need only the number "
            "of messages. `lab.play(\"arriving\")` shows it all.",
        ),
    ),
    Task(
        "f2",
        "A receiver in batches",
        callable,
        (
            Check("reads all, loses no wake-up", 1, reads_all),
            Check("batches of four at most", 1, in_batches),
            Check("few interrupts", 1, seldom_interrupted),
            Check("all of this in fresh runs", 1, holds_afresh, hidden=True),
        ),
        ask=try_receive,
        hints=(
            "Four subgoals, one to three lines each. `poll` has read `read` messages; four means "
            "that there may be more.",
            "Hand over what was read before anything else. Then either start over at once, or ask "
            "for interrupts, and look once more.",
            "`yield from deliver(world, me)`; `continue` if `read == 4`; then `Delay(300)`, "
            "`InterruptsEnabled(me)`; if `head` and `tail` of your ring are equal you are done, "
            "else `InterruptsDisabled(me)` and the loop goes round.",
        ),
    ),
    Task(
        "e3",
        "The knee",
        {"knee_gap_ns": int, "ipis_per_message": OneOf("a", "b", "c"),
         "because": OneOf("a", "b", "c")},
        (
            Check("the knee", 1.5, at_the_knee),
            Check("interrupts for each message", 0.75, fewer_under_load),
            Check("why", 0.75, because_it_polls),
        ),
        hints=(
            "Read down the column `p99_ns` from the lightest load (the largest gap).",
            "Twice the p99 of the lightest load is the limit. The knee is the last gap, on the "
            "way to higher loads, that stays within it.",
            "`swept.column(\"gap_ns\")` and `swept.column(\"p99_ns\")` give the two lists.",
        ),
    ),
    Task(
        "i4",
        "The lost wake-up",
        {"order": [OneOf(*STEPS)], "empty": int, "ready": int, "enabled": int}
        | dict.fromkeys(EXPLORED, bool),
        (
            Check("the order that loses it", 1, loses_it),
            Check("the last look", 0.5, names_the(
                "empty", RingSeenEmpty, "Which look at the ring is the last before the stranded "
                "message was ready?")),
            Check("the stranded message", 0.5, names_the(
                "ready", SlotReady, "Which message is marked ready and never read?")),
            Check("interrupts again", 0.5, names_the(
                "enabled", InterruptsEnabled, "When did kernel 0 ask for interrupts again, after "
                "that message was ready?")),
            Check("four searches", 1.5, explored),
        ),
        hints=(
            "The message comes after one thing the receiver does and before another. Which two?",
            "The sender looks at `int_enabled` once, right after its message is ready. When is "
            "that too early?",
            "`pk.checks.no_lost_wakeup(lab.run(\"lost\"))` names the message and where to look. "
            "A search is `True` (lost) if it found an order, `False` if it is complete.",
        ),
    ),
    Task(
        "a6",
        "A budget of one, and one without end",
        {"spent_with_1": int, "spent_without_end": int, "ipis": OneOf("more", "fewer", "same")},
        (
            Check("a budget of 1", 1, times_spent("spent_with_1", 1)),
            Check("without end", 0.5, times_spent("spent_without_end", ENDLESS)),
            Check("interrupts", 0.5, interrupts_stay),
        ),
        hints=(
            "In Popcorn a poll that has spent its budget starts over at once, without asking for "
            "interrupts in between.",
            "With a budget of 1 each message spends it. How many messages are there in all?",
            "`lab.run(\"budget 1\").trace.kinds()` counts the records of each kind.",
        ),
    ),
    Task(
        "e5",
        "A budget for a load",
        {"budget": int, "too_large": OneOf("a", "b")},
        (
            Check("p99 is met", 1.25, meets("p99_ns")),
            Check("work is met", 1.25, meets("work_ns")),
            Check("too large a budget", 0.5, predicted),
        ),
        hints=(
            "Fill in the loop's list of budgets, and look at both numbers for each.",
            "Work for each message falls with the budget. p99 falls first, and then rises.",
            "Try 1, 2, 4, 8, ... up to 128, and take one that meets both.",
        ),
    ),
    Task(
        "s7",
        "Two kernels",
        dict.fromkeys(KERNELS, OneOf(*POLICIES)) | {"because": str},
        (
            Check("the control kernel", 0.4, suits(
                "control", "An idle CPU costs nobody anything here. What costs time when the "
                "message comes?")),
            Check("the throughput kernel", 0.4, suits(
                "throughput", "In the bursts each interrupt is one too many; between them each "
                "look is.")),
            Check("a reason in a sentence", 0.2, gives_a_reason),
        ),
        hints=(
            "What is scarce in each of the two: the time until a message is seen, or the CPU?",
            "Who polls sees a message soonest, and does nothing else.",
            "One of the two polls always; the other should when there is much, and only then.",
        ),
    ),
    POST,
)  # fmt: skip

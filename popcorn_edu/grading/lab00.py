"""Lab 00, Meet the player: what is asked, and how an answer is judged.

One scene carries the whole lab: kernel 1 sends PING, kernel 0 answers PONG. Three tasks are about
its run (find a step, take it away, run it again), the fourth about the notebook itself.
"""

from __future__ import annotations

from popcorn_edu import scenarios
from popcorn_edu.grading.answers import OneOf
from popcorn_edu.grading.doctor import checkup
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.tasks import Check, Miss, Task, Variant, Wrong
from popcorn_edu.model.messaging import (
    InterruptTaken,
    IpiArrived,
    IpiSent,
    MessageDelivered,
    MessageRead,
    PayloadCopied,
    SlotReady,
    TicketTaken,
)

TITLE = "Meet the player"
KINDS = (TicketTaken, SlotReady, InterruptTaken, MessageRead, MessageDelivered)
NAMES = tuple(kind.__name__ for kind in KINDS)


def seed(variant: Variant) -> int:
    return variant.rng("ping").randrange(1, 1_000)


def note(variant: Variant) -> str:
    return f"seed {seed(variant)}"


def ping(variant: Variant):
    return scenarios.ping(seed=seed(variant))


def two_pings(variant: Variant):
    return scenarios.ping(seed=seed(variant), rounds=2)


SCENES = {"ping": ping, "two pings": two_pings}


# -- t1: the first IPI ----------------------------------------------------------------------------


def interrupts(run) -> list:
    return list(run.trace.records(IpiSent))


def names_the_record(answer, variant):
    run, number = ping(variant), answer["record"]
    if number is None or not 0 <= number < len(run):
        return f"{number} is no record of this run; it has records 0 to {len(run) - 1}."
    if number == interrupts(run)[0].seq:
        return None
    record = run.trace[number]
    tag = "M3" if isinstance(record.event, (PayloadCopied, SlotReady)) else ""
    later = " It is an IPI, but not the first." if record in interrupts(run) else ""
    early = " There it arrives; when was it sent?" if type(record.event) is IpiArrived else ""
    said = f"Record {number} says: {record.event}.{later}{early}"
    return Miss(said, tag, share=0.5 if later or early else 0, seq=number, run=run)


def gives_its_time(answer, variant):
    run, time = ping(variant), answer["time_ns"]
    if time == interrupts(run)[0].time:
        return None
    if time in [record.time for record in run.trace]:
        return f"At {time:,} ns another record was written."
    return Miss(f"Nothing happens at {time} ns of simulated time.", "M17")


def off_by(record=0, time=0):
    def answer(variant):
        first = interrupts(ping(variant))[0]
        return {"record": first.seq + record, "time_ns": first.time + time}

    return answer


# -- t2: the same run without it ------------------------------------------------------------------


def kinds_lost(variant: Variant) -> set[str]:
    """The kinds of events that the ping has, and has no more once its first IPI is dropped."""
    run = ping(variant)
    left = run.fork(interrupts(run)[0].seq, drop=True).trace.kinds()
    return {name for name in run.trace.kinds() if name not in left} & set(NAMES)


def finds_all_that_is_lost(answer, variant):
    lost = kinds_lost(variant)
    if missed := len(lost - answer):
        said = f"{missed} more of the five never happen once the IPI is gone."
        return Miss(said, share=len(lost & answer) / len(lost))


def keeps_what_still_happens(answer, variant):
    if not answer:
        return "An empty set says that the fork goes on as before."
    if still := sorted(answer - kinds_lost(variant)):
        told = {kind.__name__: next(ping(variant).trace.records(kind)) for kind in KINDS}
        said = f"{still[0]} still happens: record {told[still[0]].seq} comes before the IPI."
        return Miss(said, "M3")


# -- t3: the same run again -----------------------------------------------------------------------


def repeats(answer, variant):
    first, second, _ = answer
    if first != second:
        return "The same seed must give the same digest; were both runs made alike?"
    if first != ping(variant).trace.digest():
        return f"Twice the same, but not the digest of ping(seed={seed(variant)})."


def differs(answer, variant):
    first, _, other = answer
    if other == first:
        return "The third digest must come from the next seed, and so be another one."
    if other != scenarios.ping(seed=seed(variant) + 1).trace.digest():
        return f"The third is not the digest of ping(seed={seed(variant) + 1})."


def digests(*steps):
    def answer(variant):
        return [scenarios.ping(seed=seed(variant) + step).trace.digest() for step in steps]

    return answer


# -- t4: the notebook -----------------------------------------------------------------------------


def passes_the_doctor(answer, variant):
    found = checkup(variant.lab, [task.id for task in TASKS]).problems
    if found:
        others = f" And {len(found) - 1} more: lab.doctor()." if len(found) > 1 else ""
        return Miss(found[0] + others, share=0.5 if len(found) == 1 else 0)


TASKS = (
    Task(
        "t1",
        "The first IPI",
        {"record": int, "time_ns": int},
        (
            Check("names its record", 0.5, names_the_record),
            Check("gives its time", 0.5, gives_its_time),
        ),
        hints=(
            "Step forward slowly and read the sentence of each record. Which one speaks of an IPI?",
            "A filled triangle marks an IPI that is sent. Its number and its time stand beside "
            "the sentence. The clock is the model's, in nanoseconds.",
            "In Python: `run.trace.next(IpiSent)` is the first record of that kind; it has a "
            "`seq` and a `time`.",
        ),
        wrong=(
            Wrong("the message instead of the IPI", off_by(record=-1), 0.5, "M3"),
            Wrong("its arrival", off_by(record=1), 0.75),
            Wrong("seconds of one's own clock", off_by(time=3), 0.5, "M17"),
            Wrong("a record beyond the end", off_by(record=900), 0.5),
            Wrong("half a table", lambda v: {"record": off_by()(v)["record"]}, 0.5),
            Wrong("a text", lambda v: "4", 0),
            Wrong("left open", lambda v: {"record": ..., "time_ns": ...}, 0),
        ),
    ),
    Task(
        "t2",
        "What never happens without it",
        {OneOf(*NAMES)},
        (
            Check("finds all that is lost", 0.5, finds_all_that_is_lost),
            Check("keeps what still happens", 0.5, keeps_what_still_happens),
        ),
        hints=(
            "Step to the end of the fork. What was the last thing that happened?",
            "Is the message in the ring? Is anybody told to look there?",
            "In Python: `fork.trace.kinds()` counts the records of each kind. A kind that is "
            "missing there never happens.",
        ),
        wrong=(
            Wrong("nothing is lost", lambda v: set(), 0),
            Wrong("the message is lost with the IPI", lambda v: set(NAMES), 0.5, "M3"),
            Wrong("one of them only", lambda v: {"MessageRead"}, 0.67),
            Wrong("a word that is no kind", lambda v: {"Read"}, 0),
        ),
    ),
    Task(
        "t3",
        "The same run again",
        (str, str, str),
        (
            Check("the same seed repeats the run", 0.5, repeats),
            Check("the next seed makes another", 0.5, differs),
        ),
        hints=(
            "`pk.scenarios.ping(seed=...)` makes a run; `.trace.digest()` is its fingerprint.",
            "Your seed stands in the line that opens the lab. Make that run twice.",
            "The third run has your seed plus one. Put the three digests into one list.",
        ),
        wrong=(
            Wrong("three of the same", digests(0, 0, 0), 0.5),
            Wrong("three different ones", digests(0, 1, 2), 0),
            Wrong("two neighbours' runs", digests(1, 1, 2), 0),
            Wrong("numbers", lambda v: [1, 1, 2], 0),
        ),
    ),
    Task(
        "t4",
        "A notebook that the grader can run",
        [str],
        (Check("the doctor finds nothing", 1, passes_the_doctor),),
        hints=(
            "Read the doctor's table from the top: each line says what to do.",
            "Choose Run, Restart Kernel and Run All Cells. Then save, and ask the doctor again.",
            "The doctor reads the saved file: what you did after the last save, it cannot see.",
        ),
        wrong=(Wrong("a claim", lambda v: "healthy", 0),),
    ),
)

PREDICTS = (
    Predict(
        "p1",
        "Kernel 1 has just marked its message ready in kernel 0's ring. What comes next?",
        "ping",
        at=lambda run: run.trace.next(SlotReady).seq + 1,
        truth=lambda run, seq: {MessageRead: "a", IpiSent: "b", InterruptTaken: "c"}[
            run.trace.kind(seq)
        ],
        options={
            "a": "kernel 0 reads the message",
            "b": "kernel 1 sends kernel 0 an IPI",
            "c": "kernel 0 takes an interrupt",
        },
        tags={"a": "M6", "c": "M3"},
    ),
    Predict(
        "p2",
        "Two pings and their answers are four messages. How many IPIs do they cost here?",
        "two pings",
        at=lambda run: interrupts(run)[-1].seq,
        truth=lambda run, seq: len(interrupts(run)),
        why="Each receiver had gone back to sleep with interrupts enabled, unless a message came "
        "while it was still polling. Then it needed none.",
    ),
)

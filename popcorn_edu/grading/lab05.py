"""Lab 05, Messages through shared memory: what is asked, and how an answer is judged.

What is right comes out of runs wherever it can: the state table from the run's own worlds, a
page's fate from sending one, the possible orders from runs with every pause that matters. A
student's own ``send`` and ``receive`` are judged in many runs by the checks that everybody may
call. The parts: trials.py (stories in many runs), orders.py (a4, i5), schedules.py and
full_rings.py (o6, a7, s8); here are the scenes, the small tasks and the list of them all.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.steps import walk
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import OPEN, OneOf
from popcorn_edu.grading.full_rings import (
    DESIGNS,
    MESSAGE_WORDS,
    POLICIES,
    SENDER_WORDS,
    behaves,
    design,
    ends_in_deadlock,
    every_line_is_possible,
    gives_a_reason,
    has_its_policy,
    nothing_to_leave_out,
    play_schedule,
    services_table,
)
from popcorn_edu.grading.guesses import before_and_after
from popcorn_edu.grading.orders import Hunt, catches, orders_about, orders_table
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.schedules import LINES
from popcorn_edu.grading.tasks import Check, Miss, Task, Variant
from popcorn_edu.grading.trials import (
    Trials,
    as_it_was_asked,
    empty_means_empty,
    goes_on,
    interrupt_comes_last,
    leaving_takes_time,
    reads_what_it_could_see,
)
from popcorn_edu.model import messaging
from popcorn_edu.model.messaging import IpiArrived
from popcorn_edu.model.rings import (
    PAYLOAD_BYTES,
    RING_SLOTS,
    HeadOfLineWait,
    InterruptsDisabled,
    MessageRead,
    MessageType,
    PayloadCopied,
    SenderBlocked,
    SlotReady,
    TicketTaken,
)
from popcorn_edu.readers import checks

TITLE = "Messages through shared memory"

PAGE_BYTES = 4_096
CHUNKS_AT_MOST = 2**7 - 1  # [D] lg_seqnum of pcn_kmsg_hdr has 7 bits (G1)
LONG_MESSAGE_KEY = ("from_cpu",)  # [C] what tells G1's receiver which long message a chunk is of
HELD_UP_NS = 20_000  # of a stalled sender, in the head-of-line scene: our choice


# -- the variant ----------------------------------------------------------------------------------


class Numbers(NamedTuple):
    """What differs between variants, all of it equally hard."""

    kernels: int
    slots: int
    message_bytes: int
    seed: int


def numbers(variant: Variant) -> Numbers:
    rng = variant.rng("numbers")
    ragged = rng.randrange(11, 60) * PAYLOAD_BYTES + rng.randrange(1, PAYLOAD_BYTES)
    return Numbers(rng.choice((4, 5)), rng.choice((4, 5, 6)), ragged, rng.randrange(1_000))


def note(variant: Variant) -> str:
    mine = numbers(variant)
    return (
        f"{mine.kernels} kernels, rings of {mine.slots} slots, "
        f"a message of {mine.message_bytes:,} bytes"
    )


def demo(variant: Variant):
    """Two senders, two messages each: enough to see one message from ticket to callback."""
    mine = numbers(variant)
    return scenarios.fan_in(kernels=3, messages=2, slots=mine.slots, seed=mine.seed)


def full(variant: Variant):
    """More senders than slots, at nearly the same time."""
    mine = numbers(variant)
    return scenarios.fan_in(kernels=mine.kernels, messages=4, slots=2, gap_ns=200, seed=mine.seed)


def first_run(variant: Variant, made, good):
    """The first run made(seed), from this variant's seed on, that shows what it is to show."""
    first = numbers(variant).seed
    for seed in range(first, first + SEEDS_TRIED):
        if good(run := made(seed)):
            return run
    raise PopcornError("no seed of this variant shows it")


SEEDS_TRIED = 1_000
BEHIND = 3  # messages that are ready while their receiver waits for an earlier one


@cache
def stalled(variant: Variant):
    """One sender is held up between its ticket and its ready flag; the others are not."""
    kernels = numbers(variant).kernels

    def made(seed):
        run = scenarios.fan_in(kernels=kernels, messages=4, slots=16, gap_ns=600, seed=seed)
        return run.fork(run.trace.next(PayloadCopied, ticket=1).seq, delay=HELD_UP_NS)

    def good(run):
        wait = run.trace.next(HeadOfLineWait, ticket=1)
        flag = wait and run.trace.next(SlotReady, after=wait.seq, ring=0, ticket=1)
        behind = run.trace.records(SlotReady, ring=0)
        return flag and sum(wait.seq < record.seq < flag.seq for record in behind) >= BEHIND

    return first_run(variant, made, good)


@cache
def two_full_rings(variant: Variant):
    """Not every run of this scenario comes to a standstill; this one does."""
    return first_run(
        variant, lambda seed: scenarios.two_full_rings(slots=3, seed=seed), checks.no_deadlock
    )


# -- a1: eight steps of a ring --------------------------------------------------------------------

FIRST_STEP, STEPS = 6, 8
WANTED = {TicketTaken: 2, PayloadCopied: 1, SlotReady: 1, InterruptsDisabled: 1, MessageRead: 1}


@cache
def eight_steps(variant: Variant):
    """A run whose records 6 to 13 move everything that the state table asks for."""
    slots = numbers(variant).slots

    def made(seed):
        return scenarios.fan_in(kernels=4, messages=2, slots=slots, gap_ns=1_500, seed=seed)

    def good(run):
        kinds = Counter(run.trace.kind(n) for n in range(FIRST_STEP, FIRST_STEP + STEPS))
        return all(kinds[kind] >= most for kind, most in WANTED.items())

    return first_run(variant, made, good)


def ready_slots(world) -> int:
    return sum(ring == 0 for ring, _ in world.rings.ready)


COLUMNS = {
    "head": (lambda world: world.rings.head[0], "Who adds 1 to head, and when?"),
    "tail": (lambda world: world.rings.tail[0], "Who adds 1 to tail, and when?"),
    "ready": (ready_slots, "Which step marks a slot ready, and which one empties it?"),
    "int_enabled": (lambda world: world.rings.int_enabled[0], "Who writes this flag, and when?"),
}


def true_column(name: str, variant: Variant) -> list[int]:
    """The column as the run has it: the world after each of the eight steps."""
    run, (read, _) = eight_steps(variant), COLUMNS[name]
    return [read(run.at(FIRST_STEP + n)) for n in range(1, STEPS + 1)]


def believed(name: str, variant: Variant) -> dict[str, list[int]]:
    """The column as a misconception would have it."""
    run = eight_steps(variant)
    before = run.at(FIRST_STEP)
    if name == "int_enabled":
        return {"M4": [before.rings.int_enabled[0]] * STEPS}
    if name == "tail":
        kinds = [run.trace.kind(FIRST_STEP + n) for n in range(STEPS)]
        start = before.rings.tail[0] + ready_slots(before)
        return {"M6": [start + kinds[: n + 1].count(SlotReady) for n in range(STEPS)]}
    return {}


def column(name: str):
    def holds(answer, variant):
        given, truth = answer[name], true_column(name, variant)
        if not given or all(number is None for number in given):
            return OPEN
        if len(given) != STEPS:
            return f"There are {len(given)} numbers for {STEPS} steps."
        wrong = [n for n in range(STEPS) if given[n] != truth[n]]
        if wrong:
            seq, run = FIRST_STEP + wrong[0], eight_steps(variant)
            tags = [tag for tag, column in believed(name, variant).items() if column == given]
            said = (
                f"{STEPS - len(wrong)} of {STEPS} are right. You and the run part at step "
                f"{wrong[0] + 1}, record {seq}: {run.trace[seq].event}. {COLUMNS[name][1]}"
            )
            return Miss(said, "".join(tags), 1 - len(wrong) / 4, seq, run)

    return holds


# -- f2a, f2b: a send and a receive of one's own --------------------------------------------------


def try_send(send, variant):
    return Trials("send", send, variant)


def try_receive(receive, variant):
    return Trials("receive", receive, variant)


def in_all(runs: str, *rules):
    """A check on Trials: these rules hold in all runs of that name."""
    return lambda trials, variant: trials.first_broken(runs, *rules)


def never_half_a_message(trials, variant):
    """No slot is read before its flag, also when a sender is slow to set it."""
    return trials.first_broken("public", checks.ready_comes_last) or trials.first_broken(
        "held", checks.ready_comes_last, goes_on
    )


def looks_again(trials, variant):
    """No wake-up is lost, also when a message comes just before int_enabled = 1."""
    return trials.first_broken(
        "public", leaving_takes_time, empty_means_empty
    ) or trials.first_broken("between", checks.no_lost_wakeup, checks.every_message_is_read)


def holds_afresh(trials, variant):
    """All that a receiver promises, in runs that its author has not seen."""
    for runs in ("fresh", "held", "between"):
        if broken := trials.first_broken(runs, goes_on, *RECEIVE_RULES):
            return broken


SEND_ARRIVES = (as_it_was_asked, checks.every_message_is_read, checks.no_deadlock)
SEND_INTERRUPTS = (
    interrupt_comes_last,
    checks.no_needless_interrupts,
    checks.no_lost_wakeup,
)
SEND_RULES = (
    checks.tickets_are_unique,
    checks.no_slot_is_used_twice,
    checks.ready_comes_last,
    *SEND_ARRIVES,
    *SEND_INTERRUPTS,
)
HANDS_OVER = (
    checks.every_read_message_is_handled,
    checks.fifo_per_sender,
    checks.high_before_normal,
)
RECEIVE_RULES = (
    checks.ready_comes_last,
    checks.every_message_is_read,
    *HANDS_OVER,
    leaving_takes_time,
    empty_means_empty,
    checks.no_lost_wakeup,
    checks.no_deadlock,
)


# -- a3: chunks -----------------------------------------------------------------------------------


def chunks(size: int) -> int:
    """A long message goes as ordinary messages with one payload each."""
    return -(-size // PAYLOAD_BYTES)


def is_chunks(name: str, size):
    def holds(answer, variant):
        given, size_bytes = answer[name], size(variant)
        if given is None:
            return OPEN
        if given == chunks(size_bytes):
            return None
        if given == size_bytes // PAYLOAD_BYTES:
            return Miss("The last chunk need not be full, but it is a chunk.", share=0.5)
        if given == -(-size_bytes // (PAYLOAD_BYTES + 4)):
            return Miss("A slot of 64 bytes begins with a header. What is left?", share=0.5)
        return f"{given} chunks carry {given * PAYLOAD_BYTES:,} bytes of payload."

    return holds


def longest(answer, variant):
    given = answer["longest_bytes"]
    if given is None:
        return OPEN
    if given == (CHUNKS_AT_MOST + 1) * PAYLOAD_BYTES:
        return Miss("Seven bits count to one less than that.", share=0.5)
    if given == CHUNKS_AT_MOST:
        return Miss("So many chunks, yes. How many bytes do they carry?", share=0.5)
    if given != CHUNKS_AT_MOST * PAYLOAD_BYTES:
        return f"{given:,} bytes would be {chunks(given):,} chunks."


PAGE_WORDS = {"a": "fits", "b": "overwrites", "c": "waits", "d": "gives up"}
TWO_LONG_WORDS = {"a": "apart", "b": "one by one", "c": "refused", "d": "mixed"}


@cache
def page_into_an_empty_ring() -> str:
    """Send a page's chunks while the receiver does not read yet, and see how far that goes."""
    setup = scenarios.make_setup("magny-cours-48", 2, slots=RING_SLOTS)
    world = scenarios.new_world(setup)

    def page(world):
        yield from scenarios.everybody_registered(world, 2)
        for _ in range(chunks(PAGE_BYTES)):
            yield from messaging.send(world, 1, 0, MessageType.TEST_LONG)

    *_, last = walk(page(world), world)
    return "waits" if type(last.event) is SenderBlocked else "fits"


def why_a_page_does_not_fit(answer, variant):
    given = answer["page_in_an_empty_ring"]
    if given is None:
        return OPEN
    if PAGE_WORDS[given] != page_into_an_empty_ring():
        if PAGE_WORDS[given] == "fits":
            return "Compare your number of chunks with the number of slots."
        return Miss("Try it: in this layer, what does a sender do with a full ring?", "M8")


def two_long_ones_at_once(answer, variant):
    given = answer["two_long_at_once"]
    if given is None:
        return OPEN
    arriving = [{"from_cpu": 1, "message": n % 2} for n in range(6)]  # chunk by chunk, in turn
    buffers: dict[tuple, set] = {}
    for chunk in arriving:
        key = tuple(chunk[field] for field in LONG_MESSAGE_KEY)
        buffers.setdefault(key, set()).add(chunk["message"])
    truth = "mixed" if any(len(messages) > 1 for messages in buffers.values()) else "apart"
    if TWO_LONG_WORDS[given] != truth:
        return "The receiver gets six chunks from one kernel. By what does it tell them apart?"


# -- pre, post: before and after ------------------------------------------------------------------

# After the lab: which misconception each choice is; the sound one has none.
AFTER = {
    "ipi": {"a": "", "b": "M3", "c": "M4"},
    "returned": {"a": "M6", "b": "M3", "c": ""},
    "two_senders": {"a": "M7", "b": "", "c": "M7"},
    "full": {"a": "M8", "b": "M8", "c": ""},
}
PRE, POST = before_and_after(
    AFTER,
    "p1 for the IPI, a1 for what send knows, a4 for two senders, p3 and a7 for a full ring.",
)


# -- the gates ------------------------------------------------------------------------------------


def where_the_message_is(run, seq: int) -> str:
    """When the IPI has arrived: in the receiver's ring, or nowhere yet."""
    return "b" if run.at(seq).rings.slots else "c"


def reads_while_waiting(run, seq: int) -> int:
    """How many messages kernel 0 reads between this wait and the flag it waits for."""
    wait = run.trace[seq]
    until = run.trace.next(SlotReady, after=seq, ring=0, ticket=wait.event.ticket)
    return sum(seq < r.seq < until.seq for r in run.trace.records(MessageRead, ring=0))


def the_long_wait(run) -> int:
    """The wait for the sender that is held up."""
    return run.trace.next(HeadOfLineWait, ticket=1).seq


PREDICTS = (
    Predict(
        "p1",
        "The first IPI has just reached kernel 0's CPU. Where is the message now?",
        "demo",
        at=lambda run: run.trace.next(IpiArrived).seq,
        truth=where_the_message_is,
        options={
            "a": "in the IPI, which brings it to kernel 0",
            "b": "in a slot of kernel 0's ring, and was so before the IPI was sent",
            "c": "in the sender's memory, until kernel 0 asks for it",
        },
        tags={"a": "M3"},
        why="An IPI carries nothing but a vector number. The message is in shared memory, marked "
        "ready, before the sender even looks whether it should interrupt.",
    ),
    Predict(
        "p2",
        "How many messages does kernel 0 read while the sender of ticket 1 is held up?",
        "stalled",
        at=the_long_wait,
        truth=reads_while_waiting,
    ),
    Predict(
        "p3",
        "No slot is free, and a sender takes the next ticket. What becomes of its message?",
        "full",
        at=lambda run: run.trace.next(SenderBlocked).seq,
        truth=lambda run, seq: {PayloadCopied: "a", SenderBlocked: "c"}[run.trace.kind(seq)],
        options={
            "a": "it overwrites the oldest message",
            "b": "it is lost, and send() returns an error",
            "c": "its sender spins, and puts it into the ring later",
        },
        tags={"a": "M8", "b": "M8"},
    ),
)

SCENES = {
    "demo": demo,
    "eight steps": eight_steps,
    "stalled": stalled,
    "full": full,
    "two full rings": two_full_rings,
    "orders": orders_table,
    "services": services_table,
    **{name: lambda variant, name=name: design(name) for name in DESIGNS},
}


# -- the tasks ------------------------------------------------------------------------------------

ONE_SENDER_SAYS = "Messages of one sender and one priority keep the order of their tickets."
PRIORITY_SAYS = "Which messages were read in one batch? What comes first within a batch?"
TWO_SENDERS_SAYS = "Whose ticket comes first is decided at head, not when send() is called."

TASKS = (
    PRE,
    Task(
        "a1",
        "Eight steps of a ring",
        dict.fromkeys(COLUMNS, [int]),
        tuple(Check(name, 0.75, column(name)) for name in COLUMNS),
        hints=(
            "Go through the eight sentences one by one. Most of them change one of the four "
            "numbers, some change none.",
            "`head` counts tickets taken, `tail` counts messages read. A slot is ready from its "
            "flag until it is read. Only kernel 0 writes `int_enabled`.",
            'Each row starts from the line "before" and has eight numbers. Copy the number from '
            "the left wherever the step does not change it.",
        ),
    ),
    Task(
        "f2a",
        "A send of your own",
        callable,
        (
            Check("waits when the ring is full", 0.5, in_all("public", *SEND_RULES[:2])),
            Check("marks the slot ready last", 0.5, in_all("public", *SEND_RULES[2:3])),
            Check("every message arrives as asked", 0.5, in_all("public", *SEND_ARRIVES)),
            Check("interrupts when asked to, only then", 0.5, in_all("public", *SEND_INTERRUPTS)),
            Check("all of this in fresh runs", 0.5, in_all("fresh", *SEND_RULES), hidden=True),
        ),
        ask=try_send,
        hints=(
            "Three gaps, three subgoals: wait for the slot, fill it, interrupt. Each is two to "
            "four lines.",
            "Your slot is free once the message `slots` tickets before yours has been read, that "
            "is, once `ticket - ring.tail[to] < slots`. Look, wait, look again.",
            "To wait: `yield Until(MessageRead, ring=to)` inside a `while`. The fields of an event "
            "stand in the table above the cell. `int_enabled[to]` is 1 if kernel `to` wants an "
            "interrupt, and `send_ipi(world, me, to)` is told with `yield from`.",
        ),
    ),
    Task(
        "f2b",
        "A receive of your own",
        callable,
        (
            Check("reads every message", 0.5, in_all("public", reads_what_it_could_see)),
            Check("never reads half a message", 0.5, never_half_a_message),
            Check("hands over what it read", 0.5, in_all("public", *HANDS_OVER)),
            Check("loses no wake-up", 0.5, looks_again),
            Check("all of this in fresh runs", 0.5, holds_afresh, hidden=True),
        ),
        ask=try_receive,
        hints=(
            "Start from `read_one`. What must be repeated, and until when? The ring is empty when "
            "`head` equals `tail`.",
            "A message may come between your last look and `int_enabled = 1`. Its sender saw 0 and "
            "sends no interrupt. Who will find that message, and when?",
            "Two loops: the inner one reads while there is something; the outer one asks for "
            "interrupts, looks once more, and if something is there sets `int_enabled = 0` and "
            "starts over. Only then `yield from deliver(world, me)`.",
        ),
    ),
    Task(
        "a4",
        "Possible orders",
        dict.fromkeys("abcdef", bool),
        (
            Check("one sender, one priority", 1, orders_about("one sender", ONE_SENDER_SAYS)),
            Check("HIGH and NORMAL", 1, orders_about("priority", PRIORITY_SAYS)),
            Check("two senders", 1, orders_about("two senders", TWO_SENDERS_SAYS, "M7")),
        ),
        hints=(
            "Two rules decide: what the ring keeps in order, and what a callback run does with "
            "what was read together.",
            "Cut the four tickets into batches, as the receiver may do: what it reads in one go "
            "is handed over HIGH first, then NORMAL. Try each place for a cut.",
            "If A3 comes before A2, both were read in one batch. Then no HIGH message can come "
            "after a NORMAL one of that batch.",
        ),
    ),
    Task(
        "i5",
        "The order as an invariant",
        callable,
        (
            Check("bugs caught minus false alarms", 1.5, catches("public", exactly=False)),
            Check("the right place", 1, catches("public", exactly=True)),
            Check("fresh lists", 0.5, catches("fresh", exactly=True), hidden=True),
        ),
        ask=Hunt,
        hints=(
            "Which deliveries must keep their order among each other? For all others, any order "
            "is fine.",
            "Remember, for each sender *and* priority, the last number you have seen. Numbers may "
            "skip: a sender counts HIGH and NORMAL messages together.",
            'A dictionary with the key `(message["sender"], message["priority"])`, and '
            "`enumerate(delivered)` for the place. A number that is not larger than the last one "
            "of its key breaks the rule.",
        ),
    ),
    Task(
        "a3",
        "Long messages",
        {
            "page_chunks": int,
            "my_chunks": int,
            "longest_bytes": int,
            "page_in_an_empty_ring": OneOf(*PAGE_WORDS),
            "two_long_at_once": OneOf(*TWO_LONG_WORDS),
        },
        (
            Check("chunks of a page", 0.25, is_chunks("page_chunks", lambda v: PAGE_BYTES)),
            Check(
                "chunks of your message",
                0.25,
                is_chunks("my_chunks", lambda v: numbers(v).message_bytes),
            ),
            Check("the longest message", 0.5, longest),
            Check("a page in an empty ring", 0.5, why_a_page_does_not_fit),
            Check("two long ones at once", 0.5, two_long_ones_at_once),
        ),
        hints=(
            "How many bytes of a slot are payload? The rest of the arithmetic is division.",
            "Round up: a chunk that is not full is a chunk. Seven bits can count from 0 to 127.",
            "`-(-size // 60)` divides and rounds up. Then compare the page's chunks with the 64 "
            "slots of an empty ring.",
        ),
    ),
    Task(
        "o6",
        "The shortest deadlock",
        [OneOf(*LINES)],
        (
            Check("every line is possible", 0.5, every_line_is_possible),
            Check("it ends in a deadlock", 1, ends_in_deadlock),
            Check("no line can be left out", 0.5, nothing_to_leave_out),
        ),
        ask=play_schedule,
        hints=(
            "Work backwards. In the end both softirqs spin. What must be true of each ring just "
            "before, and what must each kernel have read?",
            "A callback spins only if the other's ring is full. It runs only if its kernel has "
            "read a PING. And what is polled is no longer in the ring: fill it after the poll.",
            "For each kernel: one PING for it, one poll, a full ring again behind that, and a "
            "callback. Both polls come before the rings are filled up.",
        ),
    ),
    Task(
        "a7",
        "Four designs for a full ring",
        dict.fromkeys(DESIGNS, (OneOf(*MESSAGE_WORDS), OneOf(*SENDER_WORDS))),
        tuple(Check(name, 0.5, behaves(name)) for name in DESIGNS),
        hints=(
            'Each of the four is a scene: `lab.play("shmtun")` and so on. One sender puts six '
            "messages into a ring of two slots.",
            "Count: were all six handed over in the end? If not, does somebody know which one is "
            "missing, who could send it again?",
            '`lab.run("shmtun").trace.kinds()` counts the records of each kind. Compare '
            "`MessageDelivered` with six, and look for the kind that only this design has.",
        ),
    ),
    Task(
        "s8",
        "A policy for each service",
        dict.fromkeys(("one", "two", "three"), OneOf(*POLICIES)) | {"because": str},
        (
            *(Check(f"service {n}", 0.25, has_its_policy(n)) for n in ("one", "two", "three")),
            Check("a reason in a sentence", 0.25, gives_a_reason),
        ),
        hints=(
            "Ask two questions of each service. May its message be lost? May its sender wait?",
            "An interrupt handler and a softirq must not sleep, and a softirq that spins is what "
            "your deadlock was made of.",
            "If two policies would do, take the one that leaves the CPU to others and the caller "
            "without extra work.",
        ),
    ),
    POST,
)

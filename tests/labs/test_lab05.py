"""Lab 05: every answer that was thought of, right or wrong, gets its points and its reason."""

import inspect
import itertools
import linecache
import random
import re

import pytest
from labs.lab05_answers import INVARIANTS, NAMES, PLAIN, RECEIVES, SENDS, SOURCES, right, typed

from popcorn_edu.grading import full_rings, lab05, orders, schedules, trials
from popcorn_edu.grading.full_rings import DEADLOCK_SLOTS, DESIGNS, outcome
from popcorn_edu.grading.lab import Lab, lab_module
from popcorn_edu.grading.schedules import LINES, deadlocked, impossible_line, stage
from popcorn_edu.grading.tasks import Report, Variant, judge
from popcorn_edu.grading.trials import Trials
from popcorn_edu.model.rings import HeadOfLineWait, SenderBlocked, SlotReady
from popcorn_edu.readers import checks

HERE = Variant("05")
TASKS = {task.id: task for task in lab05.TASKS}
SEEDS = ("ada", "bob", "eve", "7")
CASES = [
    pytest.param(task, lambda s=source, t=task: typed(t, s), points, tag, id=f"{task}-{name}")
    for task, table in (("f2a", SENDS), ("f2b", RECEIVES), ("i5", INVARIANTS))
    for name, (source, points, tag) in table.items()
] + [
    pytest.param(task, lambda t=task, c=change: c(right(t)), points, tag, id=f"{task}-{name}")
    for task, name, change, points, tag in PLAIN
]


def report(task, answer, variant=HERE, hidden=True):
    return Report(TASKS[task], judge(TASKS[task], answer, variant, hidden))


@pytest.mark.parametrize(("task", "answer", "points", "tag"), CASES)
def test_each_answer_gets_its_points_and_its_reason(task, answer, points, tag, capfd):
    """Partial credit as promised, the misconception by name, a sentence for the rest."""
    made = report(task, answer())

    assert made.points == pytest.approx(points, abs=0.005)
    assert tag == "" or tag in {row.tag for row in made.outcome}
    assert all(row.sentence == "holds" or len(row.sentence) > 10 for row in made.outcome)
    assert not any("not judged:" in row.sentence for row in made.outcome)
    assert capfd.readouterr() == ("", "")


def test_another_variant_is_another_answer():
    """What a neighbour has written down is of little use."""
    copied = [task for task in ("a1", "a3", "a4") if right(task, "ada") == right(task, "bob")]

    assert copied == []
    assert report("a1", right("a1", "ada"), Variant("05", "bob")).points < 3


def test_the_lab_has_twenty_two_points():
    """As its title card says."""
    assert sum(task.points for task in lab05.TASKS) == 22


# -- what a student reads --------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "name"), [("f2a", "overwrites"), ("f2b", "half: one message")])
def test_the_report_names_the_call_that_shows_the_first_broken_run(task, name):
    """Typed into a cell, the call makes the very run and the very record that the report names."""
    source, *_ = (SENDS if task == "f2a" else RECEIVES)[name]
    row = next(row for row in report(task, typed(task, source)).outcome if not row.earned)
    call = row.sentence.removeprefix("run = ").partition(": record ")[0]

    shown = typed(task, f"{source}\n{NAMES[task]} = {call}")

    assert shown.trace.digest() == row.run.trace.digest()
    assert f": record {row.seq} " in row.sentence


def test_a_lost_wakeup_is_found_in_a_run_made_for_it():
    """Without the second look some message comes just before int_enabled = 1, on every variant."""
    source, *_ = RECEIVES["no second look"]
    for seed in SEEDS:
        made = report("f2b", typed("f2b", source), Variant("05", seed))
        row = made.outcome[3]
        assert "goes to sleep although slot" in row.sentence and row.earned == 0
        assert [r.earned for r in made.outcome] == [0.5, 0.5, 0.5, 0, 0]


def test_an_endless_story_is_told_its_own_line():
    """The student reads which line loops, and in which call."""
    for name, line in (("loops", "pass"), ("loops with Delay(0)", "yield Delay(0)")):
        said = report("f2b", typed("f2b", RECEIVES[name][0])).outcome[0].sentence
        assert "endless loop, at line 3 of your cell" in said or "line 2 of your cell" in said, line
        assert said.startswith("pk.scenarios.fan_in(receive=receive, ")


@pytest.mark.parametrize("task", ["pre", "a1", "a3", "a4", "a7", "s8", "post"])
def test_an_entry_that_is_no_answer_is_named_and_costs_only_itself(task):
    """Of a table with one such entry the rest is judged as if it were left open."""
    answer = right(task)
    key = next(iter(answer))

    made, left_open = report(task, answer | {key: "nonsense"}), report(task, answer | {key: ...})

    assert made.points == left_open.points > 0
    said = " ".join(row.sentence for row in made.outcome)
    assert re.search(f"{key!r}: .*(expected|did you mean)", said)


FORGOTTEN = {  # the line with the slip, and what is said of it
    "f2a": ("    yield SlotReady(", "makes SlotReady(...) but does not yield it."),
    "f2b": ("    yield from deliver(", "calls deliver(...) without 'yield from'."),
}


@pytest.mark.parametrize("task", FORGOTTEN)
def test_a_forgotten_yield_comes_first_in_the_report(task, monkeypatch):
    """The student reads the line that makes a step and throws it away, before what came of it."""
    right_line, sentence = FORGOTTEN[task]
    forgets = right_line.replace("yield from ", "").replace("yield ", "")
    source = SOURCES[task].replace(right_line, forgets)
    line = next(n for n, text in enumerate(source.splitlines(), 1) if text.startswith(forgets))
    cell = None, None, source.splitlines(keepends=True), "<ipython-input-5>"
    monkeypatch.setitem(linecache.cache, "<ipython-input-5>", cell)

    rows = report(task, typed(task, source)).outcome

    broken = [row.sentence for row in rows if not row.earned]
    assert broken[0].startswith(f"Line {line} of your cell {sentence} ")
    assert not any(sentence in said for said in broken[1:])


def test_a_report_without_a_run_says_where_the_story_stopped():
    """play() has nothing to show then, and says why."""
    said = report("f2b", typed("f2b", RECEIVES["raises"][0])).play()

    assert said.startswith("There is nothing to play: the story stopped before the run was over.")
    assert "at line 3 of your cell" in said


def test_hidden_points_wait_for_the_grading():
    """Before grading the hidden points are announced, not given."""
    public = report("f2a", right("f2a"), hidden=False)

    assert public.points == 2.0
    assert public.outcome[-1].mark() == "at grading"


# -- is what we call right, right? -----------------------------------------------------------------


def test_the_runs_cover_what_they_are_for():
    """Some run fills the ring, some waits at the head of the line, some has HIGH messages."""
    runs = [trial.run for trial in Trials("send", right("f2a"), HERE).runs("public")]

    assert any(run.trace.kinds().get("SenderBlocked") for run in runs)
    assert any(next(run.trace.records(HeadOfLineWait), None) for run in runs)
    assert any("HIGH" in str(record.event) for run in runs for record in run.trace)
    assert all(checks.all(run) == [] for run in runs)


def test_possible_orders_are_those_of_all_tickets_and_all_batches():
    """An independent count: each order of the tickets, cut into batches, HIGH first in each."""
    counted = set()
    for tickets in (["A1", "A2", "A3", "B1"], ["A1", "A2", "B1", "A3"]):
        for cuts in itertools.product([False, True], repeat=3):
            batches, batch = [], [tickets[0]]
            for cut, message in zip(cuts, tickets[1:], strict=True):
                if cut:
                    batches.append(batch)
                    batch = []
                batch.append(message)
            batches.append(batch)
            high_first = [sorted(b, key=lambda m: m not in ("A3", "B1")) for b in batches]
            counted.add(tuple(itertools.chain.from_iterable(high_first)))

    assert orders.possible_orders() == counted


def test_the_orders_shown_are_what_their_names_say():
    """In order, overtaking and two senders are possible; the other two kinds are not."""
    for kind, possible in (
        (orders.IN_ORDER, True), (orders.OVERTAKING, True), (orders.TWO_SENDERS, True),
        (orders.ONE_SENDER, False), (orders.SPLIT_BATCH, False),
    ):  # fmt: skip
        assert {tuple(o.split()) in orders.possible_orders() for o in kind} == {possible}


def test_no_shorter_schedule_deadlocks():
    """Breadth first over all states: a deadlock with two slots takes as many lines as we say."""
    shortest, frontier, seen = len(right("o6")), [()], set()
    for _ in range(shortest - 1):
        longer = []
        for lines, line in itertools.product(frontier, LINES):
            run = stage((*lines, line), DEADLOCK_SLOTS)
            if impossible_line(run):
                continue
            assert not deadlocked(run), (*lines, line)
            state = _state(run)
            if state not in seen:
                seen.add(state)
                longer.append((*lines, line))
        frontier = longer


def _state(run):
    """What decides how a schedule can go on: what lies in the rings, what was read, who spins."""
    rings, queue = run.world.rings, run.world.messaging.queue
    waiting = [(who, what.partition(",")[0]) for who, what in run.waiting]
    in_rings = [
        [rings.slots[k, t % DEADLOCK_SLOTS].type if _ready(rings, k, t) else None
         for t in range(rings.tail[k], rings.head[k])]
        for k in (0, 1)
    ]  # fmt: skip
    return repr((in_rings, sorted((key[0], event.type) for key, event in queue.items()), waiting))


def _ready(rings, ring, ticket):
    return rings.ready.get((ring, ticket % DEADLOCK_SLOTS)) == ticket


def test_a_schedule_with_nothing_to_leave_out_is_a_shortest_one():
    """So the check may drop lines one by one instead of searching all schedules."""
    rng, shortest, found = random.Random(5), len(right("o6")), 0
    while found < 10:
        lines = []
        while len(lines) < 24 and not (lines and deadlocked(stage(lines, DEADLOCK_SLOTS))):
            line = rng.choice(LINES)
            if not impossible_line(stage([*lines, line], DEADLOCK_SLOTS)):
                lines.append(line)
        if not deadlocked(stage(lines, DEADLOCK_SLOTS)):
            continue
        found += 1
        n = 0
        while n < len(lines):
            fewer = lines[:n] + lines[n + 1 :]
            if deadlocked(stage(fewer, DEADLOCK_SLOTS)):
                lines, n = fewer, 0
            else:
                n += 1
        assert len(lines) == shortest, lines


def test_the_four_designs_do_what_their_sources_say():
    """Spin and sleep keep the message, drop loses it, refuse hands it back."""
    assert {name: outcome(name) for name in DESIGNS} == {
        "kmsg G1": ("waits", "spins"),
        "shmtun": ("lost", "goes on"),
        "kmsg G2": ("waits", "sleeps"),
        "multikernel 2025": ("handed back", "goes on"),
    }


def test_a_page_is_sixty_nine_chunks_and_the_longest_message_127():
    """The exact numbers of Popcorn's structures, and what follows from them."""
    assert lab05.chunks(4_096) == 69
    assert lab05.CHUNKS_AT_MOST * lab05.PAYLOAD_BYTES == 7_620
    assert lab05.page_into_an_empty_ring() == "waits"


def test_planted_bugs_break_the_rule_and_the_others_do_not():
    """A bug is one by the check that judges runs; and HIGH does overtake in the good lists."""
    rng, overtaken = random.Random(1), 0
    for plant in orders.PLANTS * 8:
        delivered = orders.deliveries(rng)
        numbers = [m["number"] for m in delivered if m["sender"] == 1]
        overtaken += numbers != sorted(numbers)
        plant(rng, delivered)
        broken = orders.first_break(delivered) is not None
        assert broken == (plant not in (orders.untouched, orders.missing)), plant.__name__
    assert overtaken


@pytest.mark.parametrize("seed", [f"variant {n}" for n in range(25)])
def test_every_variant_has_its_scenes(seed):
    """The eight steps, a full ring, a sender held up, a deadlock: each is there in each variant."""
    variant = Variant("05", seed)
    eight = lab05.eight_steps(variant)
    assert len(eight) >= lab05.FIRST_STEP + lab05.STEPS
    assert len({tuple(lab05.true_column(name, variant)) for name in lab05.COLUMNS}) == 4
    assert next(lab05.full(variant).trace.records(SenderBlocked))
    held = lab05.stalled(variant)
    wait = lab05.the_long_wait(held)
    until = held.trace.next(SlotReady, after=wait, ring=0, ticket=1)
    assert until.time - held.trace.time(wait) > lab05.HELD_UP_NS // 2
    assert sum(wait < r.seq < until.seq for r in held.trace.records(SlotReady, ring=0)) >= 3
    assert "deadlock" in str(checks.no_deadlock(lab05.two_full_rings(variant)))
    assert lab05.page_into_an_empty_ring() == "waits"


def test_the_gates_open_with_the_runs_own_answer():
    """p1 the ring, p2 nobody, p3 the sender spins; each wrong letter names its misconception."""
    lab = Lab(lab_module("05"))

    assert lab.predict("p1", "b").right and lab.predict("p2", 0).right
    assert lab.predict("p3", "c").right
    assert "an IPI carries the message" in str(lab.predict("p1", "a"))
    assert "a full ring loses messages" in str(lab.predict("p3", "a"))


def test_the_answers_are_not_in_the_package():
    """A student who reads the checks finds rules, no story that is the solution."""
    for module in (lab05, orders, full_rings, schedules, trials):
        lines = set(map(str.strip, inspect.getsource(module).splitlines()))
        for source in SOURCES.values():
            assert not {line for line in _solution(source) if line in lines}


def _solution(source):
    inside = source.split("### BEGIN SOLUTION")[1:]
    text = "\n".join(part.split("### END SOLUTION")[0] for part in inside)
    return [line.strip() for line in text.splitlines() if len(line.strip()) > 11]

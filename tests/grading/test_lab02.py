"""Lab 02: every answer that was thought of, right or wrong, gets its points and its reason."""

import contextlib
import html
import io
import itertools
import re

import nbformat
import pytest
from grading.course import LABS, feedback, grade, solutions
from nbclient import NotebookClient

from popcorn_edu.grading import clusterings, group_goals, lab02
from popcorn_edu.grading.build import write_source
from popcorn_edu.grading.clusterings import PLANTS, Clusters, rows_of, sound_plan
from popcorn_edu.grading.doctor import TEST
from popcorn_edu.grading.group_goals import (
    BOXES,
    HALVED,
    THREADED,
    break_even,
    goals,
    halves,
    meeting_truth,
    ns_of,
    numbers,
    purpose,
    right_list,
)
from popcorn_edu.grading.lab import Lab, lab_module
from popcorn_edu.grading.shorthands import VectorTaken, one_by_one_and_all
from popcorn_edu.grading.tasks import Report, Variant, judge
from popcorn_edu.model import grouping
from popcorn_edu.model.machine import Machine

HERE = Variant("02")
TASKS = {task.id: task for task in lab02.TASKS}
SEEDS = ("ada", "bob", "eve", "7")
SOURCES = solutions("lab02")
NAMES = {  # the name that each task's grading cell reads
    "pre": "before", "a1": "cpus", "f2": "group", "a3": "meeting", "e5": "halves",
    "i6": "wrongly_owned", "s7": "design", "post": "after",
}  # fmt: skip


def typed(task, source, seed="practice"):
    """What the grading cell of the task gets when this stands in the answer cell."""
    import popcorn_edu as pk

    lab = Lab(lab_module("02"), seed)
    cell = {"pk": pk, "lab": lab, "half": lab.run("halved")}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "<ipython-input-2>", "exec"), cell)
    if task == "f4":
        return {"ipi_targets": cell["ipi_targets"], "why": cell["why"]}
    return cell[NAMES[task]]


def right(task, seed="practice"):
    return typed(task, SOURCES[task], seed)


def slip(task, *changes):
    """The right cell with some text replaced."""
    source = SOURCES[task]
    for old, new in changes:
        assert old in source, f"the solution of {task} has no {old!r}"
        source = source.replace(old, new)
    return source


def report(task, answer, variant=HERE, hidden=True):
    return Report(TASKS[task], judge(TASKS[task], answer, variant, hidden))


# -- answers as a student would type them ----------------------------------------------------------

GROUP = "def group(cpus, policy):\n"
IF_CORE = '        if policy == "per core":\n            what = row["package"], row["core"]\n'
IN_ORDER = "    return sorted(sorted(members) for members in together.values())\n"
CLUSTERS = {  # name: (source, points)
    "right": (slip("f2"), 4),
    "cores by number alone": (slip("f2", (IF_CORE, "")), 2.46),
    "offline too": (
        slip("f2", ('if not row["online"]:\n            continue',
                    'if row["package"] is None:\n            row["package"] = row["node"] = 0')),
        3.38,
    ),
    "packages instead of nodes": (
        slip("f2", ("        together", '        if policy == "per node":\n'
                    '            what = row["package"]\n        together')),
        2.25,
    ),
    "one kernel for all": (GROUP + '    return [[r["cpu"] for r in cpus if r["online"]]]', 0),
    "no order": (slip("f2", (IN_ORDER, "    return list(together.values())\n")), 2.5),
    "groups in no order": (
        slip("f2", (IN_ORDER, "    return [sorted(m) for m in together.values()]\n")), 2.75,
    ),
    "a dictionary": (slip("f2", (IN_ORDER, "    return together\n")), 0),
    "texts": (GROUP + '    return [["0-5"], ["6-11"]]', 0),
    "blank": (GROUP + '    """The CPUs as a list of groups."""', 0),
    "empty": (GROUP + "    return []", 0),
    "raises": (GROUP + "    return cpus['core']", 0),
    "loops": (GROUP + "    while True:\n        pass", 0),
    "spoils its rows": (GROUP + "    cpus.clear()\n    return []", 0),
    "too few arguments": ("def group(cpus):\n    return []", 0),
    "a list": ("group = [[0, 1]]", 0),
    "left open": ("group = ...", 0),
}  # fmt: skip

IPI = "def ipi_targets(groups, sender, apic_id):\n"
MINE = "    mine = next(members for members in groups if sender in members)\n"
B = '\nwhy = "b"'
TARGETS = {  # name: (source, points, tag)
    "right": (slip("f4"), 2, ""),
    "CPU numbers": (slip("f4", ("apic_id[cpu] for", "cpu for")), 0.5, ""),
    "the sender too": (slip("f4", (" if cpu != sender", "")), 1, ""),
    "all kernels": (
        IPI + "    return [a for cpu, a in apic_id.items() if cpu != sender]" + B, 1, "",
    ),
    "the first of each kernel": (
        IPI + "    return [apic_id[members[0]] for members in groups]" + B, 0.5, "",
    ),
    "the last is left out": (slip("f4", ("if cpu != sender]", "if cpu != sender][:-1]")), 1, ""),
    "twice": (slip("f4", ("if cpu != sender]", "if cpu != sender] * 2")), 1, ""),
    "an empty list": (IPI + "    return []" + B, 0.5, ""),
    "blank": (IPI + '    """..."""' + "\nwhy = ...", 0, ""),
    "a dictionary": (IPI + "    return apic_id" + B, 0.5, ""),
    "raises": (IPI + "    return groups[sender][0]" + B, 0.5, ""),
    "loops": (IPI + "    while True:\n        pass" + B, 0.5, ""),
    "only the reason": ("ipi_targets = ..." + B, 0.5, ""),
    "refused by the primary": (slip("f4", ('why = "b"', 'why = "c"')), 1.5, "M2"),
    "a layer below": (slip("f4", ('why = "b"', 'why = "d"')), 1.5, "M1"),
    "slower": (slip("f4", ('why = "b"', 'why = "a"')), 1.5, ""),
    "no letter": (slip("f4", ('why = "b"', 'why = "broadcast"')), 1.5, ""),
}  # fmt: skip

OWNED = "def wrongly_owned(groups, cpus):\n"
OWNERS = {  # name: (source, points)
    "right": (slip("i6"), 2),
    "only twice": (slip("i6", ("            nobody.append(cpu)", "            pass")), 0.75),
    "only nobody": (slip("i6", ("            twice.append(cpu)", "            pass")), 0.75),
    "counts the entries": (
        slip("i6", ("sum(cpu in members for members in groups)",
                    "sum(members.count(cpu) for members in groups)")),
        1.75,
    ),
    "always alarms": (OWNED + "    return [[0], [1]]", 0),
    "never alarms": (OWNED + "    return [[], []]", 0),
    "the wrong way round": (slip("i6", ("return [twice, nobody]", "return [nobody, twice]")), 0),
    "one list": (slip("i6", ("return [twice, nobody]", "return twice")), 0),
    "raises": (OWNED + "    return groups[99]", 0),
    "loops": (OWNED + "    while True:\n        pass", 0),
    "blank": (OWNED + '    """..."""', 0),
    "left open": ("wrongly_owned = ...", 0),
}  # fmt: skip


def changed(text, *changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


PLAIN = [  # task, name, answer (a function of the right one), points, tag
    ("pre", "right", lambda a: a, 0.5, ""),
    ("pre", "any guess", lambda a: dict.fromkeys(a, "c"), 0.5, ""),
    ("pre", "half", lambda a: {"idle": "a", "all": "b"}, 0.25, ""),
    ("pre", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
    ("a1", "right", lambda a: a, 3, ""),
    ("a1", "with blanks", lambda a: {k: v.replace(",", ", ") for k, v in a.items()}, 3, ""),
    ("a1", "half: one missing", lambda a: a | {"per node": ...}, 2, ""),
    ("a1", "a mask in hexadecimal", lambda a: a | {"per node": "0xff0000"}, 2, "M10"),
    ("a1", "a mask in decimal",
     lambda a: a | {"per core": str(sum(1 << c for c in right_list(HERE, "per core")))}, 2,
     "M10"),
    ("a1", "a list as Python", lambda a: a | {"per node": [1, 2]}, 2, ""),
    ("a1", "no such CPU", lambda a: a | {"per node": "500-507"}, 2, ""),
    ("a1", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
    ("a3", "right", lambda a: a, 2, ""),
    ("a3", "half", lambda a: {k: a[k] for k in list(a)[:2]}, 1, ""),
    ("a3", "a text", lambda a: a | {"check_ins": str(a["check_ins"])}, 1.5, ""),
    ("a3", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
    ("e5", "right", lambda a: a, 4, ""),
    ("e5", "half: only lines", lambda a: {"lines": a["lines"]}, 1.5, ""),
    ("e5", "the other way round",
     lambda a: {"messages": a["lines"], "lines": a["messages"]}, 0, ""),
    ("e5", "off by one", lambda a: a | {"break_even": a["break_even"] + 1}, 4, ""),
    ("e5", "half and half", lambda a: a | {"break_even": 50}, 3, ""),
    ("e5", "far out", lambda a: a | {"break_even": -1_000}, 3, ""),
    ("e5", "numbers instead of texts",
     lambda a: a | {"lines": [list(grouping.by_hand(Machine.default(), lists=[t])[0])
                              for t in a["lines"]]}, 4, ""),
    ("e5", "a CPU in both",
     lambda a: a | {"lines": [a["lines"][0], a["lines"][1] + ",0"]}, 1.5, ""),
    ("e5", "three kernels", lambda a: a | {"messages": [*a["messages"], ""]}, 1.5, ""),
    ("e5", "not halves", lambda a: a | {"messages": ["0", "1-47"]}, 1.5, ""),
    ("e5", "left open", lambda a: {"messages": [...] * 2, "lines": [...] * 2, "break_even": ...},
     0, ""),
    ("s7", "right", lambda a: a, 3, ""),
    ("s7", "no reason", lambda a: a | {"because": ...}, 2.5, ""),
    ("s7", "a short reason", lambda a: a | {"because": "speed"}, 2.5, ""),
    ("s7", "a missing list", lambda a: a | {"kernels": [*a["kernels"][:3], ...]}, 0.5, ""),
    ("s7", "the programs share a kernel",
     lambda a: a | {"kernels": [*a["kernels"][:2], ",".join(a["kernels"][2:])]}, 1.25, "M2"),
    ("s7", "five kernels",
     lambda a: a | {"kernels": [*a["kernels"][:3], *split(a["kernels"][3])]}, 1.25, "M16"),
    ("s7", "left open", lambda a: {"kernels": [...] * 4, "because": ...}, 0, ""),
    ("post", "right", lambda a: a, 0.5, ""),
    ("post", "one scheduler for all", lambda a: a | {"idle": "b"}, 0.38, "M2"),
    ("post", "the more the faster", lambda a: a | {"more": "a"}, 0.38, "M16"),
    ("post", "a bit mask", lambda a: a | {"mask": "a"}, 0.38, "M10"),
    ("post", "half", lambda a: {"idle": "a", "all": "b"}, 0.25, ""),
    ("post", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
]  # fmt: skip


def split(text):
    """A CPU list as two."""
    cpus = grouping.by_hand(Machine.default(), lists=[text])[0]
    return [",".join(map(str, cpus[:1])), ",".join(map(str, cpus[1:]))]


CASES = (
    [
        pytest.param("f2", lambda s=source: typed("f2", s), points, "", id=f"f2-{name}")
        for name, (source, points) in CLUSTERS.items()
    ]
    + [
        pytest.param("f4", lambda s=source: typed("f4", s), points, tag, id=f"f4-{name}")
        for name, (source, points, tag) in TARGETS.items()
    ]
    + [
        pytest.param("i6", lambda s=source: typed("i6", s), points, "", id=f"i6-{name}")
        for name, (source, points) in OWNERS.items()
    ]
    + [
        pytest.param(task, lambda t=task, c=change: c(right(t)), points, tag, id=f"{task}-{name}")
        for task, name, change, points, tag in PLAIN
    ]
)


@pytest.mark.parametrize(("task", "answer", "points", "tag"), CASES)
def test_each_answer_gets_its_points_and_its_reason(task, answer, points, tag, capfd):
    """Partial credit as promised, the misconception by name, a sentence for the rest."""
    made = report(task, answer())

    assert made.points == pytest.approx(points, abs=0.005)
    assert tag == "" or tag in {row.tag for row in made.outcome}
    assert all(row.sentence == "holds" or len(row.sentence) > 10 for row in made.outcome)
    assert not any("not judged:" in row.sentence for row in made.outcome)
    assert capfd.readouterr() == ("", "")


def test_the_lab_has_twenty_one_points():
    """As its title card says."""
    assert sum(task.points for task in lab02.TASKS) == 21


def test_another_variant_is_another_answer():
    """What a neighbour has written down is of little use."""
    codes = [numbers(Variant("02", str(seed))) for seed in range(30)]

    assert len(set(codes)) == 30
    assert {mine.halved for mine in codes} == set(HALVED)
    assert {mine.box for mine in codes} == set(BOXES)
    assert {mine.threaded for mine in codes} == set(THREADED)


def test_hidden_points_wait_for_the_grading():
    """Before grading the hidden points are announced, not given."""
    assert [report(task, right(task), hidden=False).points for task in ("f2", "f4", "i6")] == [
        3, 1.5, 1.5,
    ]  # fmt: skip


# -- what a student reads --------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["pre", "a1", "a3", "post"])
def test_an_entry_that_is_no_answer_is_named_and_costs_only_itself(task):
    """Of a table with one such entry the rest is judged as if it were left open."""
    answer = right(task)
    key = next(iter(answer))

    made, left_open = report(task, answer | {key: 5.5}), report(task, answer | {key: ...})

    assert made.points == left_open.points > 0
    assert re.search(f"{key!r}: .*expected", " ".join(row.sentence for row in made.outcome))


@pytest.mark.parametrize(
    ("task", "name", "words"),
    [
        ("f2", "cores by number alone", r'"per core": CPU 0 \(package 0, core 0\) and CPU \d+'),
        ("f2", "offline too", r"CPU \d+ is offline"),
        ("f2", "no order", "ascending was expected"),
        ("f4", "CPU numbers", "is no APIC id of this machine. Is it a CPU number"),
        ("f4", "all kernels", "never asked for this interrupt"),
        ("f4", "the sender too", r"CPU \d+ interrupts itself"),
        ("i6", "counts the entries", "One kernel lists a CPU twice"),
    ],
)
def test_the_report_names_the_first_thing_wrong(task, name, words):
    """Machine, policy, and the CPU where the answer and the rule part."""
    source = {"f2": CLUSTERS, "f4": TARGETS, "i6": OWNERS}[task][name][0]
    assert re.search(words, " ".join(r.sentence for r in report(task, typed(task, source)).outcome))


def test_a_kernel_that_is_a_neighbours_is_called_by_its_number():
    """The student reads which kernel has that list, and how kernels are counted."""
    groups = grouping.group(Machine.load(numbers(HERE).box), "per node")
    other = grouping.present_masks(groups)[1]

    said = report("a1", right("a1") | {"per node": other}).outcome[1].sentence

    assert "is kernel 1, whose first CPU is" in said


def test_an_endless_function_is_told_its_own_line():
    """Which function, and which line of the student's cell."""
    said = report("i6", typed("i6", OWNERS["loops"][0])).outcome[0].sentence
    assert "wrongly_owned was still running after 1,000,000 lines" in said


# -- is what we call right, right? -----------------------------------------------------------------


@pytest.mark.parametrize("name", HALVED)
def test_the_goals_are_better_than_merged_packages_and_can_be_reached(name):
    """Both, for each machine that a variant may have; and no grouping of whole nodes beats them."""
    machine, found = Machine.load(name), goals(name)
    for what, goal in found.items():
        prices = [ns_of(what, machine, groups) for groups in halves(machine)]
        assert len(prices) == 35
        assert min(prices) >= goal.best_ns and goal.best_ns < 0.97 * goal.policy_ns
        assert goal.best_ns == min(prices)


@pytest.mark.parametrize("name", HALVED)
def test_the_two_goals_are_not_one(name):
    """No division is the best for both, and somewhere between they cost the same."""
    machine = Machine.load(name)
    best = [min(halves(machine), key=lambda g, w=w: ns_of(w, machine, g)) for w in goals(name)]
    even = break_even(machine, *best)

    assert best[0] != best[1] and 50 < even < 100
    for percent, dearer in ((even - 2, 1), (even + 2, 0)):
        prices = [grouping.exchange_ns(machine, groups, percent) for groups in best]
        assert max(prices) == prices[dearer]


def test_check_ins_are_counted_by_a_run_too():
    """The scene's own messages, the formula, and the gate say the same."""
    for seed in SEEDS:
        lab = Lab(lab_module("02"), seed)
        run, kernels = lab.run("check in"), numbers(lab.variant).joining
        assert len(lab02.check_ins_of(run)) == grouping.check_ins(kernels)
        assert len(run.setup.kernels) == kernels


def test_the_names_are_those_of_the_groups():
    """G2 by the first CPU, G1 by as many numbers as there are CPUs."""
    met, truth = group_goals.meeting(HERE), meeting_truth(HERE)
    mine = met.groups[met.kernel]
    assert (truth["kernel_id"], truth["g1_numbers"]) == (mine[0], len(mine))
    assert truth["check_ins"] == sum(range(len(met.groups)))


def test_the_broadcast_reaches_everybody_and_the_unicasts_nobody_else():
    """In the run of the gate: first the kernel's own, then all CPUs of the machine but one."""
    machine = Machine.load("magny-cours-48")
    groups = grouping.group(machine, "per package")
    run = one_by_one_and_all(machine, groups, 1)
    takers = [record.event.cpu for record in run.trace.records(VectorTaken)]

    assert takers[:11] == list(groups[1][1:])
    assert sorted(takers[11:]) == [cpu for cpu in machine.cpus if cpu != groups[1][0]]
    assert run.world.interrupts.taken == {0: 12, 1: 22, 2: 12, 3: 12}
    times = [record.time for record in run.trace]
    assert times == sorted(times)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_each_plant_does_what_it_says(plant):
    """Bad plants make a plan bad, the others leave it sound."""
    import random

    harmless = {clusterings.listed_twice, clusterings.out_of_order, clusterings.untouched}
    for seed in range(20):
        plan = sound_plan(random.Random(seed))
        assert not plan.twice and not plan.nobody
        plant(random.Random(seed), plan)
        assert bool(plan.twice or plan.nobody) is (plant not in harmless)


def test_the_broken_plan_has_one_cpu_too_many_and_one_too_few():
    """So the sizes add up, and only a look at each CPU finds it."""
    for seed in SEEDS:
        plan = clusterings.broken_plan(Variant("02", seed))
        assert len(plan.twice) == len(plan.nobody) == 1
        assert sum(map(len, plan.groups)) == len(plan.cpus)


@pytest.mark.parametrize(
    "name", sorted({name for name, _ in clusterings.PUBLIC + clusterings.FRESH})
)
def test_rows_tell_the_machine(name):
    """Package and core together name a core; offline CPUs have nothing but their number."""
    machine, rows = Machine.load(name), rows_of(Machine.load(name))
    on = [row for row in rows if row["online"]]
    assert [row["cpu"] for row in on] == list(machine.cpus)
    cores = {}
    for row in on:
        cores.setdefault((row["package"], row["core"]), set()).add(row["cpu"])
    assert sorted(map(sorted, cores.values())) == sorted(sorted(c.cpus) for c in machine.cores)
    assert all(row["node"] is None for row in rows if not row["online"])


def test_the_cases_hold_the_traps_they_are_for():
    """Core numbers that come again, CPUs offline, node ids with gaps, two kinds, threads."""
    rows = {name: rows_of(Machine.load(name)) for name, _ in clusterings.PUBLIC}
    assert len({row["core"] for row in rows["opteron-6134-32"]}) < 32
    assert any(not row["online"] for row in rows["netburst-12"])
    assert {row["node"] for row in rows["magny-cours-48"]} >= {33, 73}
    assert {row["kind"] for row in rows["gb10-20"]} == {"little", "big"}
    asked = {(name, policy) for name, policy in clusterings.PUBLIC + clusterings.FRESH}
    assert len(asked) == len(clusterings.PUBLIC) + len(clusterings.FRESH)


def test_rows_are_shuffled_by_the_variant():
    """Nobody can lean on the order."""
    seen = []

    def group(cpus, policy):
        seen.append([row["cpu"] for row in cpus])
        return []

    for seed in ("ada", "bob"):
        Clusters(group, Variant("02", seed))
    assert seen[0] != seen[1] and sorted(seen[0]) == sorted(seen[1]) != seen[0]


@pytest.mark.parametrize("seed", [*SEEDS, *map(str, range(8))])
def test_the_jobs_can_be_done_and_dealing_out_in_order_is_worse(seed):
    """The goal is reached by the solution, and is no gift."""
    mine = purpose(Variant("02", seed))
    machine = Machine.load(mine.machine)
    assert mine.goal_ns < mine.plain_ns
    assert 2 * mine.threads + 2 <= len(machine.cpus)
    assert mine.machine != numbers(Variant("02", seed)).halved


# -- through nbgrader ------------------------------------------------------------------------------

HALF = {
    "pre": 'before = {"idle": "a", "all": "b"}',
    "a1": SOURCES["a1"] + '\ncpus["per node"] = ...',
    "f2": CLUSTERS["cores by number alone"][0],
    "a3": SOURCES["a3"] + '\ndel meeting["check_ins"], meeting["kernel_id"]',
    "e5": SOURCES["e5"] + '\ndel halves["messages"]',
    "f4": TARGETS["CPU numbers"][0],
    "i6": OWNERS["only twice"][0],
    "s7": SOURCES["s7"] + '\ndesign["because"] = "speed"',
    "post": 'after = {"idle": "b", "all": "b"}',
}
LOOPING = {"f2": CLUSTERS["loops"][0], "f4": TARGETS["loops"][0], "i6": OWNERS["loops"][0]}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    return folder, grade(folder, "lab02", {"right": SOURCES, "half": HALF, "looping": LOOPING})


def points(*scores):
    return {task.id + TEST: score for task, score in zip(lab02.TASKS, scores, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "scores"),
    [  # pre, a1, f2, a3, e5, f4, i6, s7, post
        ("right", (0.5, 3, 4, 2, 4, 2, 2, 3, 0.5)),
        ("half", (0.25, 2, 2.46, 1, 1.5, 0.5, 0.75, 2.5, 0.12)),
        ("looping", (0, 0, 0, 0, 0, 0.5, 0, 0, 0)),
    ],
)
def test_each_submission_gets_the_points_it_deserves(graded, student, scores):
    """Right is 21; and loops that never end are graded like any other answer."""
    _, given = graded

    assert given[student] == points(*scores)


@pytest.mark.slow
def test_feedback_is_whole_and_names_no_tags(graded):
    """Sentences and corrections, no codes and no traceback."""
    folder, _ = graded

    page = " ".join(
        html.unescape(re.sub("<[^>]+>", " ", feedback(folder, "lab02", "half"))).split()
    )

    assert "Is it a CPU number?" in page
    assert "Remember: each kernel schedules and allocates only what it owns" in page
    assert not re.search(r"\bM\d+:", page)
    assert "Traceback (most recent" not in page


@pytest.mark.slow
@pytest.mark.parametrize("who", ["instructor", "student"])
def test_the_whole_notebook_runs_quietly(tmp_path, monkeypatch, who):
    """From top to bottom, solved and unsolved: no error, nothing on stderr."""
    monkeypatch.delenv("POPCORN_VARIANT", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(LABS.parent))
    write_source(LABS / "instructor" / "lab02.py", tmp_path)
    fresh = LABS / "student" / "lab02" / "lab02.ipynb"
    path = tmp_path / "lab02.ipynb" if who == "instructor" else fresh

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    outputs = list(itertools.chain.from_iterable(c.get("outputs", ()) for c in notebook.cells))
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []
    shown = [out.get("data", {}).get("text/html", "") for out in outputs]
    assert sum("pk-player" in page for page in shown) == 2
    assert sum("pk-plans" in page for page in shown) >= 3

"""Lab 03: every answer that was thought of, right or wrong, gets its points and its reason."""

import contextlib
import html
import io
import re

import nbformat
import pytest
from grading.course import LABS, feedback, grade, solutions
from nbclient import NotebookClient

from popcorn_edu.grading import divisions, lab03, map_hunt, placements, shares
from popcorn_edu.grading.build import write_source
from popcorn_edu.grading.doctor import TEST
from popcorn_edu.grading.lab import Lab, lab_module
from popcorn_edu.grading.tasks import Report, Variant, judge
from popcorn_edu.model.firmware import MIB

HERE = Variant("03")
TASKS = {task.id: task for task in lab03.TASKS}
SEEDS = ("ada", "bob", "eve", "7")
SOURCES = solutions("lab03")
NAMES = {
    "pre": "before", "a1": "mine", "f2": "partition", "a3": "rounding", "i4":
    "disjoint_and_covered", "a5": "moved", "f6": "place", "s7": "stray", "post": "after",
}  # fmt: skip
SETUP = """
import popcorn_edu as pk
from popcorn_edu.grading.shares import bytes_in, numbers
from popcorn_edu.model.firmware import MIB
"""
USES = {"a3": ("f2",), "a5": ("f2",)}  # whose solutions call another task's


def typed(task: str, source: str, seed: str = "practice") -> object:
    """What the grading cell of the task gets when this stands in the answer cell."""
    cell = {"lab": Lab(lab_module("03"), seed)}
    exec(SETUP, cell)
    with contextlib.redirect_stdout(io.StringIO()):
        for used in USES.get(task, ()):
            exec(SOURCES[used], cell)
        exec(compile(source, "<ipython-input-5>", "exec"), cell)
    return cell[NAMES[task]]


def right(task: str, seed: str = "practice") -> object:
    return typed(task, SOURCES[task], seed)


def slip(task: str, *changes: tuple[str, str]) -> str:
    """The right cell with some text replaced."""
    source = SOURCES[task]
    for old, new in changes:
        assert old in source, f"the solution of {task} has no {old!r}"
        source = source.replace(old, new)
    return source


def report(task, answer, variant=HERE, hidden=True):
    return Report(TASKS[task], judge(TASKS[task], answer, variant, hidden))


# -- functions with a slip -------------------------------------------------------------------------

CUT = "start, end = -(-start // granule) * granule, end // granule * granule"
IN_ORDER = """
def place(nodes, homes, nearest):
    free = [span for spans in nodes.values() for span in spans]
    part = sum(end - start for start, end in free) // len(homes)
    ranges = [[] for _ in homes]
    for mine in ranges:
        to_go = part
        while to_go:
            start, end = free.pop(0)
            cut = min(end, start + to_go)
            mine.append((start, cut))
            to_go -= cut - start
            if cut < end:
                free.insert(0, (cut, end))
    return ranges
"""
FUNCTIONS = {
    "f2": {
        "outwards": (
            slip("f2", (CUT, CUT.replace("-(-start // granule)", "(start // granule)").replace(
                "end // granule * granule", "-(-end // granule) * granule"))),
            2.31, "kernel 0",
        ),
        "ignores holes": (
            "def partition(ram, n, granule):\n"
            "    share = sum(e // granule - -(-s // granule) for s, e in ram) // n * granule\n"
            "    return [(k * share, (k + 1) * share) for k in range(n)] if share else None",
            1.75, "It has to go on behind the hole",
        ),
        "the rest to the last": (
            SOURCES["f2"].replace(
                "    return regions",
                "    regions[-1] = regions[-1][0], slots[-1][1]\n    return regions",
            ),
            1.75, "What is left over is nobody's",
        ),
        "all bytes together": (
            slip("f2", ("end in slots) // granule", "end in ram) // granule")),
            2.91, "IndexError: list index out of range",
        ),
        "no None": (slip("f2", ("        return None", "        pass")), 4.5, "None was expected"),
        "granules, not bytes": (
            slip("f2", ("// granule // n * granule", "// granule // n")), 1.5, "kernel 0 has",
        ),
        "raises": ("def partition(ram, n, granule):\n    return ram[n + 9]", 0, "line 2 of your"),
        "loops": ("def partition(r, n, g):\n    while True:\n        n += 1", 0, "never end"),
        "a number": ("def partition(ram, n, granule):\n    return n", 0, "list of 4 pairs"),
        "no regions": ("def partition(ram, n, granule):\n    return []", 0, "0 regions for 4"),
        "nothing": ("def partition(ram, n, granule):\n    pass", 0, "there are 1,024 MiB for each"),
    },
    "i4": {
        "only overlaps": (
            "def disjoint_and_covered(ram, maps):\n"
            "    for e in sorted(m[0] for m in maps):\n"
            "        if sum(s <= e < t for s, t, _ in maps) > 1:\n            return e",
            1.33, "it is RAM and in no piece",
        ),
        "only gaps": (
            "def disjoint_and_covered(ram, maps):\n"
            "    for e in sorted({n for p in [*ram, *maps] for n in p[:2]}):\n"
            "        if any(s <= e < t for s, t in ram) > any(s <= e < t for s, t, _ in maps):\n"
            "            return e",
            2.22, "both",
        ),
        "ends belong": (slip("i4", ("for start, end, owner in maps if start <= edge < end",
            "for start, end, owner in maps if start <= edge <= end")), 0, "A false alarm"),
        "the highest": (
            slip("i4", ("sorted(edges)", "sorted(edges, reverse=True)")), 3.56, "placed at",
        ),
        "always None": ("def disjoint_and_covered(ram, maps):\n    return None", 0, "let through"),
        "always 0": ("def disjoint_and_covered(ram, maps):\n    return 0", 0, "alarm at 0x0"),
        "says True": ("def disjoint_and_covered(ram, maps):\n    return True", 0, "returned True"),
        "loops": ("def disjoint_and_covered(a, b):\n    while True:\n        pass", 0, "never end"),
    },
    "f6": {
        "in order": (IN_ORDER, 2.02, "whose CPUs are on node"),
        "all to the first": (
            "def place(nodes, homes, nearest):\n"
            "    ranges = [[] for _ in homes]\n"
            "    ranges[0] = [s for spans in nodes.values() for s in spans]\n    return ranges",
            1.0, "half an equal part of node",
        ),
        "the same to each": (
            "def place(nodes, homes, nearest):\n"
            "    return [list(nodes.get(home, nodes[0])) for home in homes]",
            1.33, "both have",
        ),
        "nothing to anybody": (
            "def place(nodes, homes, nearest):\n    return [[] for _ in homes]", 0, "no kernel",
        ),
        "no RAM there": (
            "def place(nodes, homes, nearest):\n"
            "    return [[(k << 46, (k << 46) + (1 << 45))] for k in range(len(homes))]",
            0, "not all of it free RAM",
        ),
        "KeyError": ("def place(nodes, homes, nearest):\n"
            "    return [list(nodes[home]) for home in homes]", 0, "KeyError"),
        "one list": ("def place(nodes, homes, nearest):\n    return [(0, 5)]", 0, "of 8 lists"),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, table in FUNCTIONS.items() for name in table]
)
def test_a_function_with_a_slip_gets_its_points_and_its_reason(task, name, capfd):
    """Partial credit as promised, and a sentence that says what went wrong first."""
    source, points, words = FUNCTIONS[task][name]
    made = report(task, typed(task, source))

    assert words in " ".join(row.sentence for row in made.outcome)
    assert made.points == pytest.approx(points, abs=0.005)
    assert not any("not judged:" in row.sentence for row in made.outcome)
    assert capfd.readouterr() == ("", "")


# -- tables ----------------------------------------------------------------------------------------

KERNELS = shares.numbers(HERE).kernels
WORSE = [
    # task, name, how the right answer is changed, points, words, tag
    ("pre", "half", lambda a: a | {"hole": ..., "window": ...}, 0.25, "Still open", ""),
    ("a1", "with the reserve", lambda a: a | {"granules": a["granules"] + 2}, 2.63, "away", ""),
    (
        "a1",
        "granules, not MiB",
        lambda a: a | {"share_mib": a["share_mib"] // 128},
        2.63,
        "MiB",
        "",
    ),
    ("a1", "an even share", lambda a: a | {"share_mib": even()}, 2.63, "whole granules", ""),
    ("a1", "share for region", lambda a: a | {"region_mib": a["share_mib"]}, 2.75, "its end", ""),
    ("a1", "the firmware's hole", lambda a: a | {"region_mib": firmwares()}, 2.75, "Nearly", ""),
    ("a1", "one kernel on", lambda a: a | {"straddler": a["straddler"] + 1}, 2.5, "Whose", ""),
    ("a3", "in MiB", lambda a: a | {"lost_128": a["lost_128"] // MIB}, 1.75, "Bytes", ""),
    ("a3", "without what is inside", lambda a: a | {"lost_128": simple(HERE)}, 1.75, "inside", ""),
    ("a3", "one more", lambda a: a | {"granules_left_at_most": KERNELS}, 1.5, "one more", ""),
    ("a3", "half", lambda a: a | {"granules_left_at_most": 6}, 1.5, "remainders", ""),
    ("a5", "as before", lambda a: a | right_part("a1", "straddler"), 1.5, "it was before", ""),
    ("a5", "lost as before", lambda a: a | {"lost_bytes": 640 * MIB}, 1.5, "not it", ""),
    ("s7", "a fault", lambda a: a | {"here": "a"}, 0.5, "who looks", "M9"),
    ("s7", "a hypervisor", lambda a: a | {"here": "b"}, 0.5, "who looks", "M1"),
    ("s7", "ignored", lambda a: a | {"here": "d"}, 0.5, "who looks", "M9"),
    ("s7", "a VM writes", lambda a: a | {"vm": "c"}, 0.75, "below a virtual machine", "M1"),
    ("s7", "a VM faults", lambda a: a | {"vm": "a"}, 0.75, "Whose tables", ""),
    ("s7", "no reason", lambda a: a | {"because": "it is so"}, 0.75, "whole sentence", ""),
    ("post", "enforced", lambda a: a | {"enforced": "c"}, 0.38, "p2", "M9"),
    ("post", "below", lambda a: a | {"below": "a"}, 0.38, "s7", "M1"),
    ("post", "window", lambda a: a | {"window": "a"}, 0.38, "window", "M2"),
    ("post", "open", lambda a: a | {"hole": ...}, 0.38, "still open", ""),
]


def plan():
    return shares.my_plan(HERE)


def even():
    return sum(end - start for start, end in shares.ram_of(plan())) // len(plan().regions) // MIB


def firmwares():
    begins, ends = shares.hole(plan())
    return (shares.share(plan()) + ends - begins) // MIB


def simple(variant):
    mine = shares.my_plan(variant)
    ram = sum(end - start for start, end in shares.ram_of(mine))
    return ram - len(mine.regions) * shares.share(mine)


def right_part(task, name):
    return {name: right(task)[name]}


@pytest.mark.parametrize(
    ("task", "change", "points", "words", "tag"),
    [pytest.param(t, c, p, w, g, id=f"{t}-{n}") for t, n, c, p, w, g in WORSE],
)
def test_a_wrong_entry_costs_its_part_and_is_told_why(task, change, points, words, tag):
    """What is half right earns half, and a misconception is answered by name."""
    made = report(task, change(right(task)))

    assert words in " ".join(row.sentence for row in made.outcome)
    assert made.points == pytest.approx(points, abs=0.01)
    assert tag == "" or tag in {row.tag for row in made.outcome}


def test_ranges_are_cut_one_by_one():
    """Whoever divides all bytes together by the granule reads why that is too much."""
    variant = next(
        v
        for v in map(lambda n: Variant("03", str(n)), range(99))
        if shares.numbers(v)[0] == "h8qg6-64"
    )
    ram = shares.ram_of(shares.my_plan(variant))
    together = sum(end - start for start, end in ram) // (128 * MIB)

    made = report("a1", right("a1", variant.seed) | {"granules": together}, variant)

    assert made.points == pytest.approx(2.63, abs=0.01)
    assert "Each range is cut on its own" in made.outcome[1].sentence


def test_another_variant_is_another_answer():
    """What a neighbour has written down is of little use."""
    for task in ("a1", "a3", "a5"):
        made = report(task, right(task, "ada"), Variant("03", "bob"))
        assert made.points < 0.7 * TASKS[task].points


def test_the_lab_has_twenty_one_points():
    """As its title card says."""
    assert sum(task.points for task in lab03.TASKS) == 21


@pytest.mark.parametrize("task", ["pre", "a1", "a3", "a5", "s7", "post"])
def test_an_entry_that_is_no_answer_is_named_and_costs_only_itself(task):
    """Of a table with one such entry the rest is judged as if it were left open."""
    answer = right(task)
    key = next(iter(answer))

    made, left_open = report(task, answer | {key: [1]}), report(task, answer | {key: ...})

    assert made.points == left_open.points
    assert repr(key) in " ".join(row.sentence for row in made.outcome)


@pytest.mark.parametrize("seed", [str(n) for n in range(40)])
def test_every_variant_is_well_posed(seed):
    """A secondary straddles the hole, RAM is lost, and the moved hole meets another kernel."""
    variant = Variant("03", seed)
    before, after = shares.my_plan(variant), shares.my_moved_plan(variant)

    assert shares.straddler(before) not in (None, 0)
    assert shares.straddler(after) not in (None, shares.straddler(before))
    assert before.lost_bytes() > 0 and before.problems() == []
    assert sum(e - s for s, e, _ in before.machine.ram) == sum(
        e - s for s, e, _ in after.machine.ram
    )
    assert shares.numbers(variant).writer != shares.numbers(variant).victim


# -- what is judged against -----------------------------------------------------------------------


def test_the_fixed_maps_bring_every_difficulty():
    """No hole, one, several, a range too short for a granule, and too little for all."""
    cases = divisions.fixed_cases()

    assert any(len(case.ram) == 1 for case in cases)
    assert sum(divisions.crosses_a_hole(case) for case in cases) >= 4
    assert any(len(case.slots) < len(case.ram) for case in cases)
    assert any(case.truth is None for case in cases)


def test_plants_do_what_their_names_say():
    """What is meant to be bad is bad at some address, what is meant to be good is good."""
    good = {map_hunt.untouched, map_hunt.in_two_pieces, map_hunt.across_the_line}
    for seed in SEEDS:
        rng = Variant("03", seed).rng("plants")
        for plant in map_hunt.PLANTS:
            for _ in range(5):
                maps = map_hunt.good_maps(rng)
                assert maps.first_bad is None
                plant(rng, maps)
                assert (maps.first_bad is None) == (plant in good), plant.__name__


def test_houses_have_nodes_without_ram_and_on_both_sides_of_a_hole():
    """The public ones are real, the fresh ones made up, and both have both."""
    h8dgu = placements.real_houses("h8dgu-24", 2)
    dl165 = placements.real_houses("dl165g7-16", 3)
    fresh = placements.fresh_houses(HERE.rng("x"))

    assert set(h8dgu.nodes) == {0, 3} and set(h8dgu.homes) == {0, 1, 2, 3}
    assert len(dl165.nodes[1]) == 2
    assert len(fresh.nodes) < len(fresh.nearest)
    assert any(len(spans) == 2 for spans in fresh.nodes.values())


def test_the_gates_are_settled_by_the_runs():
    """The share goes on behind the hole, and the stray byte arrives."""
    lab = Lab(lab03)

    assert lab.predict("p1", "c").right and not lab.predict("p1", "a").right
    assert lab.predict("p2", "c").right
    assert "memory partitions are a convention" in str(lab.predict("p2", "a"))


# -- through nbgrader, and as a whole --------------------------------------------------------------

HALF = {
    "pre": 'before = {"enforced": "a", "below": "b"}',
    "a1": SOURCES["a1"] + '\ndel mine["granules"], mine["region_mib"]',
    "f2": FUNCTIONS["f2"]["ignores holes"][0],
    "a3": f'rounding = {{"granules_left_at_most": {KERNELS - 1}}}',
    "i4": FUNCTIONS["i4"]["only overlaps"][0],
    "a5": 'moved = {"share_mib": 1152}',
    "f6": IN_ORDER,
    "s7": 'stray = {"here": "b", "vm": "b"}',
    "post": 'after = {"enforced": "a", "below": "a"}',
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    return folder, grade(folder, "lab03", {"half": HALF})


@pytest.mark.slow
def test_half_right_gets_about_half_through_nbgrader(graded):
    """The same points as by hand, each in its own cell."""
    _, given = graded
    points = {"pre": 0.25, "a1": 1.75, "f2": 1.75, "a3": 0.5, "i4": 1.33, "a5": 0.5, "f6": 2.02}

    for task, score in (points | {"s7": 0.25, "post": 0.125}).items():
        assert given["half"][task + TEST] == pytest.approx(score, abs=0.01), task


@pytest.mark.slow
def test_feedback_names_the_call_the_address_and_the_misconception(graded):
    """What the student reads: where the function went wrong, and why a write is not stopped."""
    page = feedback(graded[0], "lab03", "half")
    page = " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())

    assert "partition([(0x0, 0xc0000000), (0x100000000, 0x240000000)]," in page
    assert "it is RAM and in no piece" in page
    assert "Remember: no hypervisor runs below a kernel" in page
    assert "Traceback (most recent" not in page


@pytest.mark.slow
@pytest.mark.parametrize("who", ["instructor", "student"])
def test_the_whole_notebook_runs_quietly(tmp_path, monkeypatch, who):
    """From top to bottom, solved and unsolved: no error, nothing on stderr."""
    monkeypatch.delenv("POPCORN_VARIANT", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(LABS.parent))
    write_source(LABS / "instructor" / "lab03.py", tmp_path)
    fresh = LABS / "student" / "lab03" / "lab03.ipynb"

    path = tmp_path / "lab03.ipynb" if who == "instructor" else fresh
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert [
        out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"
    ] == []
    assert sum("pk-player" in out.get("data", {}).get("text/html", "") for out in outputs) == 1

"""Lab 04: every answer that was thought of, right or wrong, gets its points and its reason."""

import contextlib
import html
import inspect
import io
import re
from itertools import product

import nbformat
import pytest
from grading.course import LABS, feedback, grade, solutions

from popcorn_edu.grading import device_choices, lab04, owners
from popcorn_edu.grading.build import write_source
from popcorn_edu.grading.device_choices import (
    PLACED,
    PORT_A,
    PORT_B,
    REASONS,
    ROLES,
    SAS,
    WISHES,
    best_placement,
    five_wishes,
    image_for,
    keenest,
    messages_share,
    places,
    possible,
    reason,
)
from popcorn_edu.grading.doctor import TEST
from popcorn_edu.grading.lab import Lab, lab_module
from popcorn_edu.grading.owners import Hides, Owners, Scans, as_data, listing
from popcorn_edu.grading.tasks import Report, Variant, judge
from popcorn_edu.model import devices

HERE = Variant("04")
TASKS = {task.id: task for task in lab04.TASKS}
SEEDS = ("ada", "bob", "eve", "7")
SOURCES = solutions("lab04")
NAMES = {  # the name that each task's grading cell reads
    "pre": "before", "a1": "lists", "f2": "claims", "a3": "divided", "i4": "first_fault",
    "f5": "hides", "e6": "owner", "s7": "image", "post": "after",
}  # fmt: skip


def typed(task, source, seed="practice"):
    """What the grading cell of the task gets when this stands in the answer cell."""
    import popcorn_edu as pk

    cell = {"pk": pk, "lab": Lab(lab_module("04"), seed)}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "<ipython-input-4>", "exec"), cell)
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


# -- answers, with the points they deserve ---------------------------------------------------------

HEAD = "def claims(functions, ids):\n"
CLAIMS = {  # name: (source, points)
    "right": (slip("f2"), 4),
    "a set will do": (slip("f2", ("    return mine", "    return set(mine)")), 4),
    "no limit": (slip("f2", ("ids[:16]", "ids")), 2.33),
    "one too few": (slip("f2", ("ids[:16]", "ids[:15]")), 2.33),
    "ids alone": (
        slip("f2", ('if f["id"] in ids[:16] or first in gone or f["behind"] in gone:',
                    'if f["id"] in ids[:16]:')), 1,
    ),
    "function 0 does not count": (slip("f2", ("first in gone or ", "")), 1.17),
    "bridges do not count": (slip("f2", (' or f["behind"] in gone', "")), 2.17),
    "bridges are claimed": (slip("f2", ('("0600", "0604")', "()")), 0),
    "owns what is listed": (
        HEAD + "    return [f['slot'] for f in functions if f['id'] in ids]", 0,
    ),
    "everything": (HEAD + "    return [f['slot'] for f in functions]", 0),
    "blank": (HEAD + "    mine = []\n    return mine", 0),
    "returns ids": (slip("f2", ('mine.append(f["slot"])', 'mine.append(f["id"])')), 0),
    "returns None": (HEAD + "    pass", 0),
    "raises": (HEAD + "    return functions[0]['name']", 0),
    "loops": (HEAD + "    while True:\n        pass", 0),
    "a number": ("claims = 5", 0),
    "left open": ("claims = ...", 0),
}  # fmt: skip

FAULT = "def first_fault(functions, claimed):\n"
FAULTS = {
    "right": (slip("i4"), 3),
    "nobody only": (slip("i4", ("len(owners) != 1", "len(owners) < 1")), 1.61),
    "twice only": (slip("i4", ("len(owners) != 1", "len(owners) > 1")), 1.89),
    "bridges too": (slip("i4", (' and f["class"] not in ("0600", "0604")', "")), 0),
    "says yes and no": (
        slip("i4", ('return f["slot"]', "return True"), ("return None", "return False")), 0,
    ),
    "the total": (
        FAULT + "    ours = [f['slot'] for f in functions if f['class'] not in ('0600', '0604')]\n"
        "    if sum(len(s) for s in claimed.values()) != len(ours):\n        return ours[0]\n", 0.5,
    ),
    "always fine": (FAULT + "    return None", 0),
    "never fine": (FAULT + "    return functions[0]['slot']", 0),
    "loops": (FAULT + "    while True:\n        pass", 0),
    "raises": (FAULT + "    return claimed[9]", 0),
}  # fmt: skip

HIDE = "def hides(entry, f):\n"
HIDING = {
    "right": (slip("f5"), 3),
    "ids alone": (HIDE + "    return entry == f['id']", 0.62),
    "the whole slot alone": (
        slip("f5", ('    if where.count(":") < 2:\n        where = "0000:" + where\n', ""),
                   (' or where == f["slot"].split(".")[0]', "")), 1.25,
    ),
    "any domain": (
        slip("f5", ('    if where.count(":") < 2:\n        where = "0000:" + where\n', ""),
                   ('where == f["slot"] or where == f["slot"].split(".")[0]',
                    'where in f["slot"]')), 1.91,
    ),
    "always": (HIDE + "    return True", 0),
    "never": (HIDE + "    return False", 0),
    "a number": (HIDE + "    return 1", 0),
    "raises": (HIDE + "    return f['vendor']", 0),
}  # fmt: skip


def default_lists(variant):
    """The script's list for all three kernels."""
    ids = devices.write_flags(devices.create_lspci(listing("h8qg6-64")))
    return dict.fromkeys(right("a1"), ids)


def without_0x(lists):
    return {kernel: text.replace("0x", "") for kernel, text in lists.items()}


PLAIN = [  # task, name, change of the right answer, points, tag
    ("pre", "any guess", lambda r: dict.fromkeys(r, "b"), 0.5, ""),
    ("pre", "three of four", lambda r: r | {"twins": ...}, 0.375, ""),
    ("pre", "no letter", lambda r: dict.fromkeys(r, "d"), 0, ""),
    ("a1", "the default for all", lambda r: default_lists(HERE), 1.4, ""),
    ("a1", "what it owns",
     lambda r: dict(zip(r, [r["kernel 1"], r["kernel 0"], ""], strict=True)), 0, ""),
    ("a1", "without 0x", without_0x, 0, ""),
    ("a1", "without flags", lambda r: {k: t.replace(":b", "") for k, t in r.items()}, 0.73, ""),
    ("a1", "with blanks", lambda r: {k: t.replace(",", ", ") for k, t in r.items()}, 0.33, ""),
    ("a1", "one kernel", lambda r: {"kernel 1": r["kernel 1"]}, 1, ""),
    ("a1", "half an entry", lambda r: r | {"kernel 2": r["kernel 2"] + ",0x8086"}, 2.8, ""),
    ("a1", "no list at all", lambda r: dict.fromkeys(r, ""), 0, ""),
    ("a1", "in decimal", lambda r: {k: in_decimal(t) for k, t in r.items()}, 3, ""),
    ("a3", "all can be had", lambda r: dict.fromkeys(r, "yes"), 0.4, "M11"),
    ("a3", "all for their ids", lambda r: dict.fromkeys(r, "same id"), 0.4, ""),
    ("a3", "another word", lambda r: dict.fromkeys(r, "no"), 0, ""),
    ("a3", "two open", lambda r: r | {"a": ..., "b": ...}, 1.2, ""),
    ("e6", "all with the primary", lambda r: dict.fromkeys(PLACED, 0), 0.5, ""),
    ("e6", "each with its keenest user", lambda r: keenest(places(HERE)), 0, "M11"),
    ("e6", "the ports together, the rest with its keenest user",
     lambda r: keenest(places(HERE)) | {PORT_A: r[PORT_A], PORT_B: r[PORT_A]}, 1.99, ""),
    ("e6", "no such kernel", lambda r: r | {SAS: 4}, 0, ""),
    ("e6", "one open", lambda r: r | {SAS: ...}, 0, ""),
    ("s7", "all light", lambda r: dict.fromkeys(("one", "two", "three"), "light"), 0.5, ""),
    ("s7", "all full", lambda r: dict.fromkeys(("one", "two", "three"), "full"), 0.5, "M11"),
    ("s7", "all together", lambda r: dict.fromkeys(("one", "two", "three"), "together"), 0.5, ""),
    ("s7", "no sentence", lambda r: r | {"because": "less latency"}, 1.5, ""),
    ("post", "taking turns", lambda r: r | {"twins": "b"}, 0.375, "M11"),
    ("post", "the hardware", lambda r: r | {"enforced": "a"}, 0.375, "M9"),
    ("post", "a virtual machine", lambda r: r | {"empty": "a"}, 0.375, "M1"),
    ("post", "first come", lambda r: r | {"unlisted": "a"}, 0.375, "M2"),
]  # fmt: skip


def in_decimal(text):
    """The early form of a list: 32902:4297:b."""
    return re.sub("0x([0-9a-f]{4})", lambda found: str(int(found[1], 16)), text)


CASES = [
    pytest.param(task, lambda s=source, t=task: typed(t, s), points, "", id=f"{task}-{name}")
    for task, table in (("f2", CLAIMS), ("i4", FAULTS), ("f5", HIDING))
    for name, (source, points) in table.items()
] + [
    pytest.param(task, lambda t=task, c=change: c(right(t)), points, tag, id=f"{task}-{name}")
    for task, name, change, points, tag in PLAIN
]


@pytest.mark.parametrize(("task", "answer", "points", "tag"), CASES)
def test_each_answer_gets_its_points_and_its_reason(task, answer, points, tag, capfd):
    """Partial credit as promised, the misconception by name, a sentence for the rest."""
    made = report(task, answer())

    assert made.points == pytest.approx(points, abs=0.01)
    assert tag == "" or tag in {row.tag for row in made.outcome}
    assert all(row.sentence == "holds" or len(row.sentence) > 8 for row in made.outcome)
    assert not any("not judged:" in row.sentence for row in made.outcome)
    assert capfd.readouterr() == ("", "")


def test_another_variant_is_another_answer():
    """What a neighbour has written down is of little use."""
    pairs = [("ada", "bob"), ("bob", "eve"), ("eve", "7")]
    for task in ("a1", "a3", "e6"):
        assert any(right(task, one) != right(task, other) for one, other in pairs), task


def test_the_lab_has_twenty_one_points():
    """As its title card says."""
    assert sum(task.points for task in lab04.TASKS) == 21
    assert "| Points | 21 |" in (LABS / "instructor" / "lab04.py").read_text(encoding="utf-8")


# -- what a student reads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "source", "said"),
    [
        ("f2", CLAIMS["no limit"][0], "a list of "),
        ("f2", CLAIMS["function 0 does not count"][0], "function 0 of its device, 0000:"),
        ("f2", CLAIMS["bridges are claimed"][0], "it is a bridge, which is looked through"),
        ("f2", CLAIMS["owns what is listed"][0], "is claimed: no entry in the table names it"),
        ("f2", CLAIMS["returns ids"][0], "is no slot of this listing"),
        ("f2", CLAIMS["raises"][0], "KeyError: 'name', at line 2 of your cell"),
        ("f2", CLAIMS["loops"][0], "was still running after 1,000,000 lines"),
        ("i4", FAULTS["bridges too"][0], "is a bridge, and exempt"),
        ("i4", FAULTS["twice only"][0], "is claimed by no kernel"),
        ("i4", FAULTS["nobody only"][0], "is claimed by kernels "),
        (
            "i4",
            FAULTS["says yes and no"][0],
            "first_fault returned True; expected None, or the slot",
        ),
        ("f5", HIDING["any domain"][0], "does not hide"),
        ("f5", HIDING["a number"][0], "expected True or False"),
    ],
)
def test_the_report_names_the_first_thing_that_is_wrong(task, source, said):
    """The case, the slot, and the rule that decides it."""
    made = report(task, typed(task, source))
    assert said in " ".join(row.sentence for row in made.outcome)


def test_a_list_without_0x_is_answered_with_what_was_meant():
    """The kernel reads decimal; the student reads the entry as it should be written."""
    (row, *_) = report("a1", without_0x(right("a1"))).outcome
    assert "without 0x a number is decimal: 0x" in row.sentence


def test_an_entry_that_is_not_written_as_one_is_named_first():
    """A blank, a missing flag or the parameter's own name: the kernel reads them as something."""
    lists = right("a1")
    for change in (
        lambda text: text.replace(",", ", "),
        lambda text: text.replace(":b", ""),
        lambda text: f"pci_dev_flags={text}",
    ):
        made = report("a1", lists | {"kernel 1": change(lists["kernel 1"])})
        assert re.match("'.*' is not written like 0x8086:0x10c9:b", made.outcome[1].sentence)
        assert made.points < 3


def test_an_entry_that_is_no_answer_is_named_and_costs_only_itself():
    """Of a table with one such entry the rest is judged as if it were left open."""
    for task in ("pre", "a3", "s7", "post"):
        answer = right(task)
        key = next(iter(answer))
        made = report(task, answer | {key: "nonsense"})
        assert made.points == report(task, answer | {key: ...}).points > 0
        said = " ".join(row.sentence for row in made.outcome)
        assert re.search(f"{key!r}: .*(expected|did you mean)", said)


def test_hidden_points_wait_for_the_grading():
    """Before grading the hidden points are announced, not given."""
    public = report("f2", right("f2"), hidden=False)
    assert public.points == 3.0
    assert public.outcome[-1].mark() == "at grading"


# -- is what we call right, right? -----------------------------------------------------------------


@pytest.mark.parametrize("which", ["public", "fresh"])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_of_case_brings_its_rule_out(seed, which):
    """Without the rule the answer would be another one."""
    rules = {"sixteen": "no limit", "before": "ids alone"}
    scans = Scans(right("f2"), Variant("04", seed))
    for kind, without in rules.items():
        other = Scans(typed("f2", CLAIMS[without][0]), Variant("04", seed))
        for one, two in zip(scans.of(which, kind), other.of(which, kind), strict=True):
            assert one.said == one.truth != two.said
    assert all(scan.truth for scan in scans.of(which, "listed"))


def test_a_fresh_case_is_on_a_machine_not_seen_before():
    """So a function that knows the public listings by heart gains nothing."""
    scans = Scans(right("f2"), HERE)
    public, fresh = (
        {scan.machine for kind in owners.KINDS for scan in scans.of(which, kind)}
        for which in ("public", "fresh")
    )
    assert not public & fresh
    assert len(fresh) == 3


def test_a_planted_fault_is_one_and_the_others_are_none():
    """Each plant does what its name says, for each variant."""
    sound = {owners.untouched, owners.a_bridge_as_well, owners.nothing_for_one}
    for seed in SEEDS:
        done = Owners(right("i4"), Variant("04", seed)).of("fresh")
        for plant, claimed in zip(owners.PLANTS * 3, done, strict=True):
            assert (claimed.broken is None) == (plant in sound), plant.__name__


def test_as_many_entries_hide_as_do_not():
    """Always saying the same earns nothing."""
    hides = Hides(right("f5"), HERE)
    for form in owners.FORMS:
        assert sum(case.truth for case in hides.of("fresh", form)) == owners.EACH // 2


def test_a_listing_comes_in_the_order_of_a_scan():
    """A bridge stands before what is behind it, in each listing, so one loop is enough."""
    for names in owners.MACHINES.values():
        for name in names:
            seen = {""}
            for function in as_data(name):
                assert function["behind"] in seen
                seen.add(function["slot"])


def test_every_wish_has_the_reason_it_stands_under():
    """By the best lists there are, tried on the machine."""
    for kind, wishes in WISHES.items():
        assert {reason(wish) for wish in wishes} == {kind}
    assert reason(device_choices.PORT_WISH) == "same id"


@pytest.mark.parametrize("seed", [f"variant {n}" for n in range(25)])
def test_every_variant_has_what_it_needs(seed):
    """A plan that lists can express, wishes of all kinds, one best placement, three roles."""
    variant = Variant("04", seed)
    for owned in lab04.plan(variant).owned:
        assert devices.blacklist_for(listing("h8qg6-64"), owned).cannot == ()
    assert {reason(wish) for wish in five_wishes(variant).values()} == set(REASONS)
    made = places(variant)
    best = made.cost(best_placement(made))
    others = [dict(zip(PLACED, k, strict=True)) for k in product(range(4), repeat=4)]
    assert sum(made.cost(placed) <= best for placed in others if possible(placed)) == 1
    assert not possible(keenest(made))
    assert {image_for(role) for role in device_choices.my_roles(variant).values()} == {
        "full", "light", "together",
    }  # fmt: skip


def test_no_role_is_near_the_line():
    """A factor of two either way changes no answer: the times are model defaults."""
    for role in (role for pair in ROLES for role in pair):
        share = messages_share(role)
        assert share < 0.05 or share > 0.2


def test_the_gates_open_with_the_runs_own_answer():
    """p1 never reached, p2 both kernels, p3 two IPIs."""
    lab = Lab(lab_module("04"))
    assert lab.predict("p1", "c").right
    assert lab.predict("p2", "c").right
    assert lab.predict("p3", 2).right
    assert not lab.predict("p1", "b").right


def test_the_answers_are_not_in_the_package():
    """A student who reads the checks finds rules, no line that is a solution."""
    for module in (lab04, owners, device_choices):
        lines = set(map(str.strip, inspect.getsource(module).splitlines()))
        for source in SOURCES.values():
            assert not {line for line in _solution(source) if line in lines}


def _solution(source):
    inside = source.split("### BEGIN SOLUTION")[1:]
    text = "\n".join(part.split("### END SOLUTION")[0] for part in inside)
    return [line.strip() for line in text.splitlines() if len(line.strip()) > 11]


# -- through nbgrader ------------------------------------------------------------------------------

HALF = {
    "pre": 'before = {"empty": "a", "twins": "b"}',
    "a1": SOURCES["a1"] + '\ndel lists["kernel 0"]',
    "f2": CLAIMS["no limit"][0],
    "a3": SOURCES["a3"] + '\ndivided |= {"a": ..., "b": ..., "c": ...}',
    "i4": FAULTS["twice only"][0],
    "f5": HIDING["ids alone"][0],
    "e6": SOURCES["e6"] + "\nowner = dict.fromkeys(owner, 0)",
    "s7": 'image = dict.fromkeys(("one", "two", "three"), "light")',
    "post": 'after = {"empty": "b", "twins": "c"}',
}
LOOPING = {"f2": CLAIMS["loops"][0], "i4": FAULTS["loops"][0], "f5": HIDING["raises"][0]}


def points(*scores):
    return {task.id + TEST: score for task, score in zip(lab04.TASKS, scores, strict=True)}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    return folder, grade(folder, "lab04", {"right": SOURCES, "half": HALF, "looping": LOOPING})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "scores"),
    [  # pre, a1, f2, a3, i4, f5, e6, s7, post
        ("right", (0.5, 3, 4, 2, 3, 3, 3, 2, 0.5)),
        ("half", (0.25, 2, 2.33, 0.8, 1.89, 0.62, 0.5, 0.5, 0.25)),
        ("looping", (0, 0, 0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_each_submission_gets_the_points_it_deserves(graded, student, scores):
    """Through nbgrader the scores are those of the reports."""
    _, given = graded
    assert given[student] == pytest.approx(points(*scores), abs=0.005)


@pytest.mark.slow
def test_feedback_names_what_is_wrong(graded):
    """In words, with the correction of the misconception, and no traceback."""
    folder, _ = graded
    page = feedback(folder, "lab04", "half")
    page = " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())

    assert "is claimed: its id is entry" in page
    assert "is claimed by no kernel" in page
    assert "does not hide" in page or "hides 0000:" in page
    assert "Traceback (most recent" not in page
    assert not re.search(r"\bM\d+:", page)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["instructor", "student"])
def test_the_whole_notebook_runs_quietly(tmp_path, monkeypatch, who):
    """From top to bottom, solved and unsolved: no error, nothing on stderr."""
    from nbclient import NotebookClient

    monkeypatch.delenv("POPCORN_VARIANT", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(LABS.parent))
    write_source(LABS / "instructor" / "lab04.py", tmp_path)
    fresh = LABS / "student" / "lab04" / "lab04.ipynb"
    path = tmp_path / "lab04.ipynb" if who == "instructor" else fresh
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]

    assert [
        out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"
    ] == []
    assert sum("pk-player" in out.get("data", {}).get("text/html", "") for out in outputs) == 2

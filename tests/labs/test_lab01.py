"""Lab 01: every answer that was thought of, right or wrong, gets its points and its reason."""

import contextlib
import io
import itertools
import re

import pytest
from grading.course import LABS, solutions

from popcorn_edu.grading import lab01
from popcorn_edu.grading.lab import Lab, lab_module
from popcorn_edu.grading.lab01 import LINES, NEVER, an_order, twelve
from popcorn_edu.grading.tasks import Report, Variant, judge
from popcorn_edu.model import boot, cmdline, trampoline
from popcorn_edu.model.firmware import GIB, KIB
from popcorn_edu.model.topology import cpu_list

HERE = Variant("01")
TASKS = {task.id: task for task in lab01.TASKS}
SEEDS = ("ada", "bob", "eve", "7")
SOURCES = solutions("lab01")
NAMES = {  # the name that each task's grading cell reads
    "pre": "before", "o1": "order", "a6": "proven", "a2": "my_line", "f3": "read_line",
    "a4": "times", "i5": "causes", "s7": "at_once", "post": "after",
}  # fmt: skip
HAPPEN = [key for key in LINES if key not in NEVER]


def given_helpers() -> str:
    """The locked cell with size() and without(), as the lab has it."""
    source = (LABS / "instructor" / "lab01.py").read_text(encoding="utf-8")
    return source.partition('# %% locked="given"\n')[2].partition("# %% ")[0]


GIVEN = given_helpers()


def typed(task: str, source: str, seed: str = "practice") -> object:
    """What the grading cell of the task gets when this stands in the answer cell."""
    cell = {"lab": Lab(lab_module("01"), seed)}
    exec(compile(GIVEN, "<ipython-input-4>", "exec"), cell)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "<ipython-input-5>", "exec"), cell)
    return cell[NAMES[task]]


def right(task: str, seed: str = "practice") -> object:
    return typed(task, SOURCES[task], seed)


def report(task, answer, variant=HERE, hidden=True):
    return Report(TASKS[task], judge(TASKS[task], answer, variant, hidden))


def sentences(made) -> str:
    return " ".join(row.sentence for row in made.outcome)


# -- o1: the graph ---------------------------------------------------------------------------------


def letters(keys, variant=HERE) -> str:
    mine = {key: letter for letter, key in twelve(variant).items()}
    return "".join(mine[key] for key in keys)


def topological_orders(keys=HAPPEN):
    """Every order of the ten lines in which each comes after all it needs."""
    if not keys:
        yield ()
    for key in keys:
        if not set(LINES[key].needs) & set(keys):
            for rest in topological_orders([other for other in keys if other != key]):
                yield (key, *rest)


@pytest.mark.parametrize("seed", [str(n) for n in range(12)])
def test_the_graph_agrees_with_the_demo(seed):
    """Whatever a line needs is over, in the run, before the line begins."""
    run = lab01.demo(Variant("01", seed))
    mine = {
        key: [r.seq for r in run.trace.records(LINES[key].kind)
              if getattr(r.event, "kernel", 1) == 1]
        for key in HAPPEN
    }  # fmt: skip

    for key in HAPPEN:
        for needed in LINES[key].needs:
            assert mine[needed][-1] < mine[key][0], (needed, key)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_order_that_is_possible_gets_full_points(seed):
    """Ramdisk, command line and image may be copied in any order; six orders in all."""
    variant, orders = Variant("01", seed), list(topological_orders())

    assert len(orders) == 6
    for keys in orders:
        assert report("o1", letters(keys, variant), variant).points == 3


def test_two_neighbours_that_need_each_other_cost_points():
    """Each swap of a line and the one it needs is found, and the line is named by its letter."""
    for place, keys in itertools.product(range(9), [next(topological_orders())]):
        if keys[place] in LINES[keys[place + 1]].needs:
            swapped = [*keys[:place], keys[place + 1], keys[place], *keys[place + 2 :]]
            made = report("o1", letters(swapped))
            assert 1 < made.points < 3
            early, late = letters(swapped[place : place + 2])
            assert f"Line {early} comes before line {late}" in sentences(made)


@pytest.mark.parametrize(
    "spelled", [str.upper, ", ".join, " -> ".join, " ".join, lambda order: f" {order}\n"]
)
def test_an_order_may_be_spelled_in_several_ways(spelled):
    """Capitals, blanks, commas and arrows mean nothing."""
    assert report("o1", spelled(an_order(HERE))).points == 3


def test_a_line_that_never_happens_is_named():
    """Each of the four, in a variant that has it, with a question of its own."""
    asked = set()
    for seed in map(str, range(20)):
        variant = Variant("01", seed)
        for letter, key in twelve(variant).items():
            if key in NEVER:
                tag, asks = NEVER[key]
                made = report("o1", letter + an_order(variant), variant)
                assert made.outcome[0].sentence == f"Line {letter} never happens. {asks}"
                assert made.outcome[0].tag == tag and made.points == 2.5
                asked.add(key)
    assert asked == set(NEVER)


# -- f3: functions with a slip ---------------------------------------------------------------------


def slip(*changes: tuple[str, str]) -> str:
    """The right function with some text replaced."""
    source = SOURCES["f3"]
    for old, new in changes:
        assert old in source, f"the solution of f3 has no {old!r}"
        source = source.replace(old, new)
    return source


HEAD = "def read_line(line, ram):\n"
RANGES = 'found["cpus"] += range(int(first), int(last or first) + 1)'
SLIPS = {  # name: (source, points, words of the report)
    "the last of a range left out": (slip((" + 1)", ")")), 1.5, "You say [10]"),
    "a bit mask": (
        slip((RANGES, 'found["cpus"] += [c for c in range(64) if int(first) >> c & 1]')),
        1.5, "cpus is [10, 11, 14, 18, 28]",
    ),
    "as they come": (slip(('sorted(set(found["cpus"]))', 'found["cpus"][::-1]')), 1.5, "cpus is"),
    "texts": (
        slip(('sorted(set(found["cpus"]))', 'list(map(str, found["cpus"]))')),
        1.5, "'cpus': wrong type: '10', expected a whole number",
    ),
    "a set": (slip(("sorted(set(", "set((")), 1.5, "'cpus': wrong type: a set, expected a list"),
    "start and length swapped": (slip(("length, _, start", "start, _, length")), 1.25, "ram is"),
    "mem= cuts below": (slip(("size(value), 1 << 62", "0, size(value)")), 1.25, "ram is"),
    "the reserve ends at its length": (
        slip(("size(start) + size(length)", "size(length)")), 1.25, "ram is",
    ),
    "no mem=": (slip(('name == "mem"', 'name == ""')), 1.25, "ram is"),
    "ends that belong": (
        slip(("    return found", "    found['ram'] = [(a, b - 1) for a, b in found['ram']]\n"
              "    return found")), 1.25, "(0x0, 0x9ffff)",
    ),
    "always a secondary": (slip(('"secondary": False', '"secondary": True')), 2.17,
                           "secondary is False. You say True."),
    "1 for True": (slip(('found["secondary"] = True', 'found["secondary"] = 1')), 1.75,
                   "'secondary': wrong type: 1, expected True or False"),
    "memmap= with @ too": (slip((' and "$" in value', "")), 0, "ValueError: invalid literal"),
    "all that begin with mem": (slip(('name == "mem"', 'name.startswith("mem")')), 0, "ValueError"),
    "one part": (HEAD + "    return {'secondary': 'mklinux' in line.split()}", 0.5, "You say None"),
    "another key": (HEAD + "    return {'cpu': []}", 0, "did you mean cpus?"),
    "three values": (HEAD + "    return True, [], ram", 0, "a tuple, expected a table"),
    "nothing": (HEAD + "    pass", 0, "returned wrong type: None"),
    "raises": (HEAD + "    return line[9999]", 0, "IndexError: string index out of range"),
    "loops": (HEAD + "    while True:\n        pass", 0, "does a loop never end?"),
    "a number": ("read_line = 5", 0, "expected a function"),
    "left open": ("read_line = ...", 0, "not answered yet"),
}  # fmt: skip


@pytest.mark.parametrize("name", SLIPS)
def test_a_reader_with_a_slip_gets_its_points_and_its_reason(name, capfd):
    """Partial credit as promised, and what went wrong first in the report."""
    source, points, words = SLIPS[name]
    made = report("f3", typed("f3", source))

    assert words in sentences(made)
    assert made.points == pytest.approx(points, abs=0.005)
    assert not any("not judged:" in row.sentence for row in made.outcome)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a bit mask", "no mem=", "always a secondary"])
def test_the_first_line_that_is_read_wrong_is_quoted(name):
    """The student can copy it and try."""
    read = typed("f3", SLIPS[name][0])
    readings = lab01.Readings(read, HERE).of("public")
    first = next(r for r in readings if any(lab01.plain(r.said[p]) != lab01.plain(r.truth[p])
                                            for p in lab01.PARTS))  # fmt: skip

    row = next(row for row in report("f3", read).outcome if not row.earned == row.points)
    assert f"In {first.line!r} " in row.sentence


def test_believing_in_the_mask_is_answered_by_name():
    """M10, whichever of the lines shows it."""
    source = SLIPS["a bit mask"][0].replace("+= [c for c", "= [c for c")
    tags = {
        row.tag
        for seed in SEEDS
        for row in report("f3", typed("f3", source), Variant("01", seed)).outcome
    }
    assert "M10" in tags


@pytest.mark.parametrize("which", ["public", "fresh"])
@pytest.mark.parametrize("seed", SEEDS)
def test_lines_have_every_difficulty(seed, which):
    """Ranges and single CPUs, secondaries and others, sizes with a unit and in hexadecimal."""
    readings = lab01.Readings(right("f3"), Variant("01", seed)).of(which)
    lines = " ".join(r.line for r in readings)

    assert re.search(r"present_mask=\S*\d-\d", lines) and re.search(r"mask=[\d,]+ ", lines)
    assert re.search(r"=\S*\d[KMG]", lines) and re.search(r"=\S*0x", lines)
    assert {r.truth["secondary"] for r in readings} == {True, False}
    assert "maxmem=" in lines or "mem_sleep=" in lines


@pytest.mark.parametrize("seed", SEEDS)
def test_a_line_is_read_as_the_models_own_reader_reads_it(seed):
    """f3's truth is computed apart; model/cmdline.py agrees on CPUs and on being a secondary."""
    for reading in lab01.Readings(right("f3"), Variant("01", seed)).of("public"):
        line = cmdline.parse(reading.line)
        assert line.secondary == reading.truth["secondary"]
        seen = cmdline.apply(line, lab01.plan().machine)
        assert list(seen.present) == reading.truth["cpus"]


# -- a2: a kernel's line ---------------------------------------------------------------------------


def mine():
    return lab01.wanted(HERE)


def replaced(old: str, new: str):
    def change(line: str) -> str:
        assert old in line, (old, line)
        return line.replace(old, new)

    return change


def other_spellings():
    want, line = mine(), lab01.right_line(HERE)
    start, end, _ = want.memory
    words = line.split()
    reserve = next(word for word in words if "$" in word)
    keep = next(word for word in words if "@" in word)
    cpus = f"present_mask={cpu_list(want.cpus)}"
    size = f"{end - start:#x}@{start:#x}"
    return {
        "backwards": " ".join(reversed(words)),
        "on several lines": "\n".join(words),
        "in bytes": line.replace(keep, f"memmap={end - start}@{start}"),
        "in hexadecimal": line.replace(keep, f"memmap={size}"),
        "in small letters": line.replace(keep, keep.lower()).replace(reserve, reserve.lower()),
        "every CPU by itself": line.replace(cpus, f"present_mask={','.join(map(str, want.cpus))}"),
        "one memmap=": line.replace(f"{keep} {reserve}", f"{keep},{reserve[len('memmap='):]}"),
        "two pci_dev_flags=": line.replace("b,0x", "b pci_dev_flags=0x"),
        "nothing but what is asked": " ".join(
            word for word in words if word.partition("=")[0] in
            ("mklinux", "present_mask", "memmap", "mem", "vty_offset", "pci_dev_flags",
             "lapic_timer")
        ),
        "mem= in KiB": re.sub(r" mem=\S+", f" mem={end // KIB}K", line),
        "mem= in bytes": re.sub(r" mem=\S+", f" mem={end:#x}", line),
    }  # fmt: skip


@pytest.mark.parametrize("name", other_spellings())
def test_another_spelling_of_the_same_line_is_as_good(name):
    """What counts is what a kernel with this line would see."""
    spelled = other_spellings()[name]

    assert spelled != lab01.right_line(HERE)
    assert report("a2", spelled).points == 4


BROKEN_LINES = [  # name, change of the right line, points, words, tag
    ("no mklinux", replaced(" mklinux", ""), 3.75, "as a primary does", ""),
    ("in capitals", replaced("mklinux", "MKLINUX"), 3.75, "did you mean mklinux?", ""),
    ("no list", lambda s: lab01.without_word(s, "present_mask"), 3.25, "every CPU", ""),
    ("one CPU more", lambda s: re.sub(r"(mask=\d+)-\d+", r"\1-63", s), 3.25, "not CPUs", ""),
    ("no such CPU", lambda s: re.sub(r"mask=\S+", "mask=900", s), 2.5, "has no CPU 900", ""),
    ("with blanks", lambda s: re.sub(r"mask=(\d+)-\S+", r"mask=\1, 63", s), 3.25, "not CPUs", ""),
    ("no reserve", lambda s: lab01.without_word(s, "$"), 3.25, "Is there a memmap= with $?", "M9"),
    ("mem= is no size", lambda s: re.sub(r" mem=\S+", " mem=abc", s), 3.5, "is no size", "M9"),
    ("the last byte", lambda s: re.sub(r" mem=\S+", f" mem={mine().memory.end - 1:#x}", s), 3.25,
     "4 KiB of its own memory", ""),
    ("no vty_offset", lambda s: lab01.without_word(s, "vty"), 3.75, "virtual terminals", ""),
    ("a number for people", replaced("1000000", "1,000,000"), 3.75, "such as 1000000", ""),
    ("ids without 0x", lambda s: re.sub("flags=0x(....):0x", r"flags=\1:", s), 3.75,
     "is not read as hexadecimal", "M11"),
    ("no flags", lambda s: re.sub(r"(flags=\S+):b", r"\1", s), 3.75, ":b was expected", "M11"),
    ("too long", lambda s: s + " x" * 3000, 3.25, "never comes up: too many words", ""),
    ("a word", lambda s: "mklinux", 0.25, "No word of this line cuts memory", "M9"),
    ("in quotes twice", lambda s: f'"{s}"', 0, "as a primary does", ""),
    ("all memory", lambda s: "mem=0", 0, "'0' is no size", "M9"),
    ("no memory", lambda s: "mem=32M", 0, "First it must see some of its own memory", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "points", "words", "tag"),
    [pytest.param(c, p, w, t, id=n) for n, c, p, w, t in BROKEN_LINES],
)
def test_a_line_with_a_slip_says_what_its_kernel_would_see(change, points, words, tag):
    """The slip costs its part alone, and the reader's own complaint is passed on."""
    made = report("a2", change(lab01.right_line(HERE)))

    assert words in sentences(made)
    assert made.points == pytest.approx(points, abs=0.005)
    assert tag == "" or tag in {row.tag for row in made.outcome}


# -- a wrong answer beside each check --------------------------------------------------------------

RIGHT_I5 = lab01.right_causes(HERE)
OTHERS = {  # task, the check's name: (change of the right answer, words)
    ("pre", "four guesses, right or not"): (lambda a: a | {"mask": ...}, "Still open: mask"),
    ("post", "four answers"): (lambda a: a | {"mask": "a"}, "mask: "),
    ("a6", "the marker is seen"): (
        lambda a: a | {"marker_seen": lab01.demo(HERE).trace.next(trampoline.MarkerWritten).seq},
        "has not seen it yet",
    ),
    ("a6", "the kernel runs"): (
        lambda a: a | {"kernel_runs": lab01.demo(HERE).trace.next(boot.CheckedIn, kernel=1).seq},
        "said something before that",
    ),
    ("a6", "the time between"): (lambda a: a | {"between_ns": -a["between_ns"]}, "Subtract"),
    ("a4", "wake_us"): (lambda a: a | {"wake_us": 10_500}, "two SIPIs"),
    ("a4", "give_up_s"): (lambda a: a | {"give_up_s": 50_000}, "How far apart"),
    ("a4", "all_s"): (lambda a: a | {"all_s": 8}, "one after the other"),
    ("a4", "check_ins"): (lambda a: a | {"check_ins": 2 * a["check_ins"]}, "Each pair"),
    **{
        ("i5", f"{name}: the cause"): (
            lambda a, name=name: a | {name: ("cut line", a[name][1])}, "nothing shows that",
        )
        for name in lab01.BOOTS
    },
    **{
        ("i5", f"{name}: the record"): (
            lambda a, name=name: a | {name: (a[name][0], a[name][1] - 1)}, "comes before",
        )
        for name in lab01.BOOTS
    },
    ("s7", "what is overwritten"): (
        lambda a: a | {"overwritten": lab01.two_at_once(HERE).trace.next(boot.WrongLineTaken).seq},
        "By then it is done",
    ),
    ("s7", "whose boot it spoils"): (lambda a: a | {"victim": 0}, "1 and 2"),
    ("s7", "the change that helps"): (lambda a: a | {"change": "retry"}, "Before anybody"),
    ("s7", "a reason in a sentence"): (lambda a: a | {"because": "a b c d e"}, "A sentence"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "check"), OTHERS)
def test_a_wrong_entry_fails_its_own_check_alone(task, check):
    """What is wrong is told where it is wrong, and the rest keeps its points."""
    change, words = OTHERS[task, check]
    made = report(task, change(right(task)))
    failed = {row.check: row.sentence for row in made.outcome if row.earned < row.points}

    assert words in failed.pop(check)
    assert failed == {} and made.points < TASKS[task].points


def test_each_check_has_a_wrong_answer_beside_it():
    """In this file or in the lab's own list: none is there that was never seen to fail."""
    missed = set()
    for task in lab01.TASKS:
        answers = [wrong.answer(HERE) for wrong in task.wrong]
        answers += [
            change(right(task.id)) for (t, _), (change, _) in OTHERS.items() if t == task.id
        ]
        if task.id == "a2":
            answers += [change(lab01.right_line(HERE)) for _, change, *_ in BROKEN_LINES]
        if task.id == "f3":
            answers += [typed("f3", source) for source, *_ in SLIPS.values()]
        failed = {
            row.check for a in answers for row in report(task.id, a).outcome if not row.earned
        } | {row.check for a in answers for row in report(task.id, a).outcome if 0 < row.earned}
        missed |= {(task.id, check.name) for check in task.checks if check.name not in failed}
    assert missed == set()


def test_where_a_failure_is_only_noticed_half_is_earned():
    """The operator's giving up names the right boot, and comes late."""
    late = {n: (c, lab01.where_it_is_noticed(HERE, n)) for n, (c, _) in RIGHT_I5.items()}

    made = report("i5", late)
    assert made.points == 3
    assert sentences(made).count("comes after the record that says it") == 3


def test_a_time_between_two_other_records_is_half_right():
    """Whoever subtracts well and picks another record is told so."""
    run = lab01.demo(HERE)
    seen, late = lab01.marker_seen(run), run.trace.next(boot.CheckedIn, kernel=1)
    between = late.time - seen.time

    made = report("a6", {"marker_seen": seen.seq, "kernel_runs": late.seq, "between_ns": between})
    assert made.points == 0.5
    assert "one of them is another" in made.outcome[2].sentence


# -- the lab as a whole ----------------------------------------------------------------------------


def test_another_variant_is_another_answer():
    """What a neighbour has written down is of little use."""
    for task in ("o1", "a2", "i5"):
        made = report(task, right(task, "ada"), Variant("01", "bob"))
        assert made.points < TASKS[task].points, task


def test_the_lab_has_twenty_one_points():
    """As its title card says."""
    assert sum(task.points for task in lab01.TASKS) == 21
    assert "| Points | 21 |" in (LABS / "instructor" / "lab01.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["pre", "a6", "a4", "i5", "s7", "post"])
def test_an_entry_that_is_no_answer_is_named_and_costs_only_itself(task):
    """Of a table with one such entry the rest is judged as if it were left open."""
    answer = right(task)
    key = next(iter(answer))

    made, left_open = report(task, answer | {key: [1]}), report(task, answer | {key: ...})

    assert made.points == left_open.points
    assert repr(key) in sentences(made)


@pytest.mark.parametrize("seed", [str(n) for n in range(30)])
def test_every_variant_is_well_posed(seed):
    """Ten lines and two, a kernel above 4 GiB with devices to leave alone, three causes."""
    variant = Variant("01", seed)
    want, mine = lab01.wanted(variant), lab01.numbers(variant)

    assert sum(key in NEVER for key in twelve(variant).values()) == 2
    assert want.memory.start >= 4 * GIB and len(want.hidden) == 2
    assert want.kernel != 0 and lab01.plan().machine.bsp not in want.cpus
    assert mine.cpu != 0 and 9 <= mine.kernels < 49
    assert report("a2", lab01.right_line(variant), variant).points == 4
    causes = lab01.right_causes(variant)
    assert {cause for cause, _ in causes.values()} == set(lab01.CAUSES)
    for name, (_, seq) in causes.items():
        assert 0 < seq < lab01.where_it_is_noticed(variant, name)
    run = lab01.two_at_once(variant)
    victim = lab01.the_victim(run)
    assert run.trace.event(lab01.the_overwriting(run)).kernel != victim


@pytest.mark.parametrize("seed", SEEDS)
def test_only_one_cause_fits_each_failed_boot(seed):
    """A boot that fails shows the sign of its own cause, and no other's."""
    variant = Variant("01", seed)
    for name, cause in lab01.failed_causes(variant).items():
        run = lab01.failed(variant, name)
        signs = {
            word for word, (_, kind) in lab01.CAUSES.items()
            if next(run.trace.records(kind), None)
        }  # fmt: skip
        assert signs == {cause}


def test_times_follow_from_the_numbers_in_the_text():
    """10 ms, twice 300 and 200 us; 50,000 looks 100 us apart; whole seconds for the rest."""
    times = lab01.right_times(HERE)
    kernels = lab01.numbers(HERE).kernels

    assert times["wake_us"] == 10_000 + 2 * (300 + 200)
    assert times["give_up_s"] == 5
    assert times["check_ins"] == sum(range(kernels))
    assert report("a4", times | {"all_s": (kernels - 1) * 8.011}).points == 2


def test_the_gates_are_settled_by_the_runs():
    """The marker is written in real mode, and present_mask=6 is CPU 6."""
    lab = Lab(lab_module("01"))

    assert lab.predict("p1", "a").right and not lab.predict("p1", "c").right
    assert lab.predict("p2", "b").right
    assert "is a list of CPUs" in str(lab.predict("p2", "a"))


def test_hidden_points_wait_for_the_grading():
    """Before grading the hidden points are announced, not given."""
    public = report("f3", right("f3"), hidden=False)

    assert public.points == 2.25
    assert public.outcome[-1].mark() == "at grading"

"""Plans drawn and edited, without a browser: what the pictures hold, and what an action does."""

import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from dataclasses import replace
from html import unescape

import pytest
from IPython.core.interactiveshell import InteractiveShell

import popcorn_edu as pk
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.firmware import MIB
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.partition import Partition
from popcorn_edu.readers import plan_pictures, plans
from popcorn_edu.readers.plan_actions import ACTIONS, OFFERED
from popcorn_edu.readers.plan_blocks import BLOCKS, VIEWS

MACHINES = ["h8qg6-64", "uv2000-384", "i7-1370p-20", "netburst-12", "xeon-phi-244"]


@pytest.fixture(scope="module")
def plan():
    return Partition.build("h8qg6-64")


@pytest.fixture
def view(plan):
    return plans.view(plan)


def said(view) -> str:
    return unescape(re.sub(r"<[^>]+>", "", view.blocks["message"].value))


def drawings(html: str) -> list[str]:
    """Every picture in a block, as SVG."""
    images = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    return [b64decode(image).decode() for image in images]


def svgs(html: str) -> list[ElementTree.Element]:
    """Every picture in a block; each must be well-formed."""
    return list(map(ElementTree.fromstring, drawings(html)))


def titles(picture) -> list[str]:
    return [node.text for node in picture.iter() if node.tag.endswith("title")]


# -- pictures and their tables ---------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_every_cpu_is_in_the_picture_and_in_the_table(name):
    """A square and a title for each CPU; the table has as many CPUs."""
    machine = Machine.load(name)
    drawn = plans.groups(machine, pk.grouping.group(machine, "per node"))
    (picture,) = svgs(drawn.html())
    told = [title for title in titles(picture) if title.startswith("CPU ")]
    assert len(told) == len(machine.cpus)
    table = next(t for t in drawn.tables if t.caption.startswith("Which CPUs"))
    assert sum(row[1] for row in table.rows) == len(machine.cpus)


def test_the_groups_tell_what_they_cost(plan):
    """Check-ins, the mean and the dearest message, and how many nodes a kernel spans."""
    text = str(plans.groups(plan))
    for words in ("check-ins until all kernels know each other | 28", "594 ns", "689 ns, from"):
        assert words in text


def test_cpus_that_nobody_or_two_have_look_different(plan):
    """A dash and a dashed line, or both numbers and a thick line: not by colour alone."""
    bad = plan.edit(2, cpus="15,17-23")
    html = plans.groups(bad).html()
    html += drawings(html)[0]
    assert ">1+2</text>" in html and ">–</text>" in html
    assert "CPU 15 is in kernels 1 and 2" in html and "CPU 16 is in no kernel" in html


def test_the_memory_table_covers_every_address_once(plan):
    """From address 0 to the top of RAM: no gap but a hole, no overlap."""
    table = plans.memory_table(plan.memory_plan)
    spans = [re.findall(r"0x[0-9a-f]+", row[0]) for row in table.rows]
    ends = [(int(low, 16), int(high, 16) + 1) for low, high in spans]
    assert ends[0][0] == 0 and ends[-1][1] == plan.machine.ram[-1].end
    assert all(one[1] == other[0] for one, other in zip(ends, ends[1:], strict=False))


def test_the_bar_zooms(plan):
    """A window shows what is in it, and things that were too thin before."""
    whole, low = plans.memory(plan), plans.memory(plan, 0, 1 * MIB)
    assert "trampoline" not in svgs(whole.html())[0].itertext()
    assert any("trampoline" in title for title in titles(svgs(low.html())[0]))
    assert len(svgs(whole.html())) == 4  # the bar, its low end twice and its high end enlarged
    with pytest.raises(PopcornError, match="cannot show addresses from 4096 to 0"):
        plans.memory(plan, 4096, 0)


def test_whose_address_this_is(plan):
    """An address is answered in a sentence below the bar."""
    assert "0x92000 is kernel 0's: trampoline" in str(plans.memory(plan, whose=0x92000))


def test_every_device_is_in_the_tree(plan):
    """A row for each PCI function, bridges first; who owns it, and where its interrupt goes."""
    drawn = plans.devices(plan)
    tree = drawn.tables[0]
    assert len(tree.rows) == len(plan.machine.pci_functions)
    row = next(row for row in tree.rows if "0000:03:00.0" in row[0])
    assert row[1] == "S" and row[-1] == "MSI-X 38 to CPU 0"
    assert "11 of 16 entries" in str(drawn)


def test_a_machine_without_a_listing_says_so():
    """No picture, but a sentence."""
    drawn = plans.devices(Partition.build("magny-cours-48"))
    assert "No PCI listing of magny-cours-48 is known." in str(drawn)


def test_a_command_line_is_told_word_by_word():
    """What each word does, what the kernel sees, and what is wrong."""
    drawn = plans.command_line("present_mask=5 memmap=1G@6G memmap=6128M$16M mem=7G", "h8qg6-64")
    text = str(drawn)
    assert "CPUs 5 are present (a list, despite the name)" in text
    assert "[0x180000000-0x1bfffffff], 1 GiB" in text
    assert drawn.wrong == ()
    wrong = plans.command_line("present_mask=5-3 mem=7G", "h8qg6-64").wrong
    assert len(wrong) == 1 and wrong[0].startswith("present_mask=5-3: ")


def test_a_plan_is_one_picture(plan):
    """CPUs, memory and devices, one below the other, and the table that says the same."""
    drawn = plans.picture(plan)
    assert [caption for caption, _ in drawn.pictures][:2] == ["CPUs", "Memory"]
    assert len(drawn.tables[0].rows) == 8


@pytest.mark.parametrize("name", ["h8qg6-64", "uv2000-384", "power7-256", "whl-ipc-i5"])
def test_pictures_are_well_formed_and_named(name):
    """Each is XML, has a role and a name, and its patterns are its own."""
    shown = plans.view(Partition.build(name)).static()
    drawn = svgs(shown)
    assert all(p.get("role") == "img" and p.get("aria-label") for p in drawn)
    text = "".join(drawings(shown))
    ids = re.findall(r'<pattern id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert "http" not in re.sub(r'xmlns="[^"]+"', "", shown + text)  # nothing is fetched


def test_colours_are_as_in_the_player():
    """Kernel k has the same colour wherever it is drawn."""
    from importlib import resources

    page = resources.files("popcorn_edu.readers").joinpath("player_page", "parts.js").read_text()
    for colours in (plan_pictures.FILLS, plan_pictures.ON_FILL):
        assert ", ".join(f'"{colour}"' for colour in colours) in page


def test_what_is_no_plan_is_refused(plan):
    """In one sentence, whatever was given."""
    for call in (
        lambda: plans.view("h8qg6-64"), lambda: plans.devices(plan.machine),
        lambda: plans.memory(7), lambda: plans.groups(7), lambda: plans.command_line(7),
        lambda: plans.command_line("quiet", 7), lambda: plans.view(plan, "memories"),
    ):  # fmt: skip
        with pytest.raises(PopcornError):
            call()


# -- actions ---------------------------------------------------------------------------------------


def test_a_cpu_goes_to_the_chosen_kernel(view):
    """A click gives a CPU; all views and the plan follow, and the old plan stays."""
    before = view.plan
    view.act({"do": "choose", "value": "2"})
    view.act('{"do": "cpus", "cpus": "9", "n": 4}')
    assert said(view) == "CPU 9 to kernel 2. No problems."
    assert view.plan.kernels[2].cpus == (9, *range(16, 24)) and before.kernels[2].cpus[0] == 16
    assert 'aria-label="CPU 9, node 1, kernel 2"' in view.blocks["groups"].value
    assert "present_mask=9,16-23" in view.blocks["line"].value
    assert "2, by kernel 2" in view.blocks["groups"].value  # nodes spanned


def test_shift_gives_the_node(view):
    """All CPUs of the CPU's node."""
    view.act({"do": "node", "cpus": "9", "kernel": "3"})
    assert view.plan.kernels[3].cpus == tuple(range(8, 16)) + tuple(range(24, 32))


def test_a_list_is_exact(view):
    """What is on the list comes from whoever had it; what is not on it is nobody's."""
    view.act({"do": "cpu list", "kernel": "3", "value": "23-30"})
    assert view.plan.kernels[3].cpus == tuple(range(23, 31))
    assert view.plan.kernels[2].cpus == tuple(range(16, 23))
    assert said(view) == "Kernel 3 has CPUs 23-30. 1 problem."
    assert "CPU 31 is in no kernel" in view.blocks["problems"].value


def test_undo_and_redo_go_back_and_forth(view):
    """Step by step, and say how many problems there are then."""
    plans_seen = [view.plan]
    for cpus in ("16-22", "16-21"):
        view.act({"do": "cpu list", "kernel": "2", "value": cpus})
        plans_seen.append(view.plan)
    for expected in (plans_seen[1], plans_seen[0], plans_seen[0]):
        view.act({"do": "undo"})
        assert view.plan == expected
    assert said(view) == "There is nothing to undo."
    view.act({"do": "redo"})
    assert view.plan == plans_seen[1] and said(view) == "Done again. 1 problem."


def test_memory_is_typed(view):
    """Ranges as Linux prints them, or as memmap= takes them; the bar and the line follow."""
    view.act({"do": "memory", "kernel": "2", "value": "16G@40G"})
    assert said(view).startswith("Kernel 2 has 16 GiB. ")
    assert "both have" in view.blocks["problems"].value
    view.act({"do": "memory", "kernel": "2", "value": "nonsense"})
    assert said(view).startswith("'nonsense' is no range of addresses")
    assert view.plan.kernels[2].bytes == 16 << 30


def test_a_device_changes_hands(view):
    """The owner, the blacklists and the problems follow; nobody is an owner, too."""
    view.act({"do": "device", "slot": "0000:03:00.0", "value": "4"})
    assert view.plan.owners["0000:03:00.0"] == (4,)
    view.act({"do": "device", "slot": "0000:03:00.0", "value": ""})
    assert "0000:03:00.0" not in view.plan.owners
    assert "has no owner" in view.blocks["problems"].value
    view.act({"do": "by slot", "checked": True})
    assert view.plan.by_slot


@pytest.mark.parametrize(
    ("to", "window"),
    [
        ("first", (0, MIB)),
        ("low", (0, 16 * MIB)),
        ("all", (0, None)),
        ("reserve", (0x1FB4000000, 0x2028000000)),
    ],
)
def test_the_bar_moves(view, to, window):
    """In and out, to either end, and to a kernel's own memory."""
    view.act({"do": "zoom", "to": to})
    start, end = window
    assert view.window == (start, view._whole()[1] if end is None else end)
    assert said(view).startswith("The bar shows [0x")
    for step in ("in",) * 12 + ("left", "right", "out", "out"):
        view.act({"do": "zoom", "to": step})
        assert 0 <= view.window[0] < view.window[1] <= view._whole()[1]


def test_a_line_is_read_while_it_is_typed(view):
    """The plan stays until the line is used; then the kernel has what the line gives it."""
    view.act({"do": "choose", "value": "3"})
    field = view.blocks["line"].value
    view.act({"do": "line", "value": "present_mask=24-25 memmap=1G@60G memmap=61424M$16M mem=61G"})
    assert said(view) == "This line: CPUs 24-25, 1,064,560 KiB of RAM, no problems."
    assert view.blocks["line"].value == field  # the caret stays where it is
    assert "CPUs 24-25 are present" in view.blocks["line-result"].value
    assert view.plan.kernels[3].cpus == tuple(range(24, 32))
    view.act({"do": "use line"})
    assert view.plan.kernels[3].cpus == (24, 25)
    assert view.plan.kernels[3].bytes == 1 << 30
    view.act({"do": "line", "value": "mem=1"})
    view.act({"do": "use line"})
    assert said(view).startswith("With this line the kernel would not come up: ")


def test_words_are_ticked(view):
    """Each offered word goes on the line and off again."""
    for word in OFFERED:
        view.act({"do": "tick", "word": word, "checked": True})
        assert word in view.plan.command_line(view.chosen).split()
        view.act({"do": "tick", "word": word, "checked": False})
        assert word not in view.plan.command_line(view.chosen).split()
    view.act({"do": "parameters", "value": "quiet  panic=5"})
    assert view.plan.kernels[view.chosen].parameters == "quiet panic=5"


def test_kernels_come_and_go(view):
    """A new kernel has nothing yet; the last one may go; the primary stays."""
    view.act({"do": "add kernel"})
    assert len(view.plan.kernels) == 9 and view.chosen == 8
    for _ in range(12):
        view.act({"do": "remove kernel"})
    assert len(view.plan.kernels) == 1 and "stays" in said(view)


def test_a_plan_is_built_anew(view):
    """From policies, with or without a number of kernels."""
    policies = {"grouping": "per core", "memory": "popcorn", "devices": "near", "count": ""}
    view.act({"do": "rebuild", **policies})
    assert said(view) == "Built anew: 64 kernels. No problems."
    view.act({"do": "rebuild", **policies, "count": "3"})
    assert len(view.plan.kernels) == 3
    view.act({"do": "rebuild", **policies, "grouping": "as it is", "memory": "by weight"})
    assert len(view.plan.kernels) == 3 and view.plan.memory_policy == "by weight"


@pytest.mark.parametrize(
    "action",
    [
        "", "{", "[1]", '{"do": 3}', {"do": "fly"}, {"do": "cpus", "cpus": "x"},
        {"do": "cpus", "cpus": "4", "kernel": "99"}, {"do": "node", "cpus": ""},
        {"do": "device", "slot": "x", "value": "1"}, {"do": "device", "value": "-1"},
        {"do": "ask", "value": "here"}, {"do": "tick", "word": "rm -rf"},
        {"do": "rebuild", "grouping": "per planet"}, {"do": "rebuild", "count": "many"},
        {"do": "choose", "kernel": "first"}, {"do": "line", "value": None},
        {"do": "zoom", "to": None}, {"do": "name", "value": "a\nb"}, "x" * 30_000,
    ],
)  # fmt: skip
def test_a_bad_action_is_a_sentence(view, action):
    """Whatever the page sends, the answer is one sentence, and the plan is still whole."""
    before = view.plan
    view.act(action)
    assert said(view)
    assert view.plan.kernels[0] == before.kernels[0]


def test_every_action_is_on_the_page(view):
    """What the page offers is what Python knows."""
    page = "".join(block.value for block in view.blocks.values()) + plans.page_file("plans.js")
    offered = set(re.findall(r'data-do="([^"]+)"', page)) | set(re.findall(r'do: "(\w+)"', page))
    offered |= {"cpus", "node"}  # written as a choice in the script
    assert offered - {"cpu", "kernel"} <= set(ACTIONS)
    assert set(ACTIONS) <= offered | {"name"}


def test_only_the_blocks_that_changed_are_written(view):
    """Choosing another part of the bar leaves the CPUs and the devices alone."""
    written = []
    for name, block in view.blocks.items():
        block.observe(lambda change, name=name: written.append(name), "value")
    view.act({"do": "zoom", "to": "low"})
    assert set(written) == {"memory", "message"}


def test_text_of_the_user_is_never_html(view):
    """Names and words are shown as they were typed."""
    view.act({"do": "name", "kernel": "1", "value": "<img src=x onerror=alert(1)>"})
    view.act({"do": "parameters", "value": "<b>quiet</b>"})
    view.act({"do": "ask", "value": "<i>0</i>"})
    for block in view.blocks.values():
        assert "<img src=x" not in block.value and "<b>quiet" not in block.value
        assert "<i>0" not in block.value
    assert "<img src=x" not in view.static()


# -- where it is shown -----------------------------------------------------------------------------


def test_a_picture_stands_before_the_widget(plan, monkeypatch):
    """Two outputs: what needs no Python, and the widget that takes its place."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    plan.show()._ipython_display_()
    first, second = shown
    assert first["text/html"].startswith('<div class="pk-plan-static"')
    assert first["text/plain"] == str(plan)
    assert "application/vnd.jupyter.widget-view+json" in second


def test_a_view_alone_is_smaller(plan):
    """``only`` makes a view of one part, with the same plan behind it."""
    for name in VIEWS:
        alone = plans.view(plan, name)
        assert set(alone.blocks) < {"message", *BLOCKS}
        assert alone.static().count("<section") == 2
    assert set(plans.view(plan, ["groups", "lines"]).blocks) == {
        "message", "head", "problems", "groups", "line", "line-result",
    }  # fmt: skip


def test_a_machine_without_memory_can_still_be_grouped():
    """Views that have nothing to show say so."""
    machine = replace(Machine.load("magny-cours-48"), memory_map=())
    empty = Partition(machine, Partition.build("magny-cours-48").kernels)
    view = plans.view(empty)
    assert "has no memory map" in view.blocks["memory"].value
    assert view.static()


def test_drawing_needs_no_widgets():
    """The pictures load without ipywidgets: a graded notebook that shows one pays for no more."""
    import subprocess
    import sys

    code = (
        "import sys, popcorn_edu as pk; pk.plans.groups('h8qg6-64').html();"
        "print(*(n for n in ('ipywidgets', 'IPython', 'networkx', 'numpy') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_shown_at_the_end_of_a_cell(plan):
    """IPython itself shows both outputs."""
    shell = InteractiveShell.instance()
    shell.user_ns["plan"] = plan
    assert shell.run_cell("plan.show()", silent=True).success

"""The import order is the reading order: one list, and every import points upward in it.

Because `sim` stands below the model and the readers, "the model knows no scheduler" and "a figure
cannot start a simulation" need no rule of their own. A name whose file does not exist yet keeps
its place. An import inside a function is a door that opens late: it may point downward only where
LATE_DOORS says so, with the reason.
"""

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "popcorn_edu"

READING_ORDER = """
    engine.trace engine.steps engine.world
    datasets
    model.topology model.hwloc model.costs model.firmware model.pci model.assembly model.machine
    model.cpulist model.e820 model.parameters model.bootline model.cmdline
    model.cut model.grouping model.carving model.memory model.ownership model.devices
    model.foreign model.acrn model.kerf model.plan_words model.plan_file model.partition
    model.trampoline model.bootplan model.boot model.dividing
    model.rings model.messaging model.mitigation model.long_messages model.multicast
    model.keepalive model.flat model.services model.tty model.net model.mpi
    model.isa model.dsm model.migration model.ssi
    faults
    readers.checks readers.figures readers.sweep_view readers.player readers.compare readers.export
    engine.sim engine.explore
    scenarios planted sweeps readers.validation calibrate readers.load_curve
    readers.panel
    readers.plan_pictures readers.plans readers.plan_actions readers.plan_blocks readers.plan_widget
    grading
    cli __main__
""".split()

# Late, and downward: (who, whom) and why.
LATE_DOORS = {
    ("engine.world", "readers.player"): "run.play() is where a learner looks for the player",
    ("engine.world", "faults"): "run.inject() is where a learner looks for a fault",
    ("model.machine", "model.acrn"): "a board file's reader makes machines, as load() does",
    ("model.partition", "readers.plans"): "plan.show() is where a learner looks for the picture",
    ("readers.plans", "readers.plan_widget"): "view() shows the live page where Python can answer",
}

# Who may import what from outside the standard library.
OUTSIDE = {
    "simpy": {"engine.sim"},
    "networkx": {
        "model.machine",
        "model.cut",
        "readers.figures",
        "readers.player",
        "readers.plans",
        "readers.plan_widget",
    },
    "bokeh": {"readers.figures", "readers.panel"},
    "numpy": {"readers.figures", "model.flat"},
    "numba": {"model.flat"},
    "ipywidgets": {
        "readers.player",
        "readers.load_curve",
        "readers.sweep_view",
        "readers.panel",
        "readers.plans",
        "readers.plan_widget",
        "grading",
    },
    "IPython": {
        "readers.player",
        "readers.load_curve",
        "readers.sweep_view",
        "readers.panel",
        "readers.plans",
        "readers.plan_widget",
        "grading",
    },
    "ipykernel": {"readers.player"},
    "traitlets": {"readers.panel", "readers.plan_widget", "grading"},
    "viztracer": {"readers.export"},
    "pandas": {"sweeps"},
    "nbgrader": {"grading"},
    "nbformat": {"grading"},
    "nbconvert": {"grading"},
    "nbclient": {"grading"},
    "jupytext": {"grading"},
}

HEAVY = ["numpy", "bokeh", "networkx", "IPython", "ipywidgets", "simpy", "nbgrader"]


class Import(NamedTuple):
    who: str  # the place in READING_ORDER of the importing file
    whom: str  # the dotted name it imports
    late: bool  # inside a function
    where: str  # file and line


def place(dotted: str) -> str:
    """The entry of READING_ORDER that a dotted name (without popcorn_edu) belongs to."""
    parts = dotted.split(".")
    for length in (2, 1):
        if ".".join(parts[:length]) in READING_ORDER:
            return ".".join(parts[:length])
    return dotted


def source_files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported_names(node: ast.AST) -> list[str]:
    """The modules an import statement names; `from package import module` names the module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, "imports are written in full, never from the dot"
    if not node.module.startswith("popcorn_edu"):
        return [node.module]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def imports_in(path: Path) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(outer)
    }
    return [
        Import(place(name_of(path)), whom, id(node) in late, f"{path.name}:{node.lineno}")
        for node in ast.walk(tree)
        for whom in imported_names(node)
    ]


def all_imports() -> list[Import]:
    return [found for path in source_files() for found in imports_in(path)]


def inside_imports() -> list[Import]:
    """The imports within popcorn_edu, with the place of the imported module."""
    prefix = "popcorn_edu."
    return [
        found._replace(whom=place(found.whom.removeprefix(prefix)))
        for found in all_imports()
        if found.whom.startswith(prefix)
    ]


def test_every_file_has_its_place_in_the_reading_order():
    """A new file is entered in the list, or merged into one that is there."""
    homeless = [
        name_of(path) for path in source_files() if place(name_of(path)) not in READING_ORDER
    ]
    assert homeless == []


def test_every_import_points_upward():
    """A file is built only from files that stand above it."""
    downward = [
        f"{found.where}: {found.who} imports {found.whom}, which stands below it"
        for found in inside_imports()
        if found.who != found.whom
        and (found.who, found.whom) not in LATE_DOORS
        and READING_ORDER.index(found.who) < READING_ORDER.index(found.whom)
    ]
    assert downward == []


def test_a_late_door_is_inside_a_function():
    """What may point downward is never needed to read the file."""
    early = [f.where for f in inside_imports() if (f.who, f.whom) in LATE_DOORS and not f.late]
    assert early == []


def test_outside_imports_follow_the_table():
    """Each outside library has its few files, so that replacing one is a small job."""
    standard = sys.stdlib_module_names | {"popcorn_edu"}
    strangers = []
    for found in all_imports():
        library = found.whom.split(".")[0]
        if library not in standard and found.who not in OUTSIDE.get(library, ()):
            strangers.append(f"{found.where}: {found.who} imports {library}")
    assert strangers == []


def test_the_engine_reads_trace_steps_world():
    """The engine's own order: what happened, what a story may yield, the state as a fold."""
    order = [READING_ORDER.index(f"engine.{name}") for name in ("trace", "steps", "world", "sim")]
    assert all(above < below for above, below in pairwise(order))
    assert order[-1] > READING_ORDER.index("readers.player")


def loaded_after(code: str) -> set[str]:
    """The heavy modules in a fresh interpreter after this code."""
    report = f"{code}; import sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", report],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    assert output.stderr == ""
    return set(output.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    """`import popcorn_edu` is free: a name is loaded when it is first used."""
    assert loaded_after("import popcorn_edu") == set()


@pytest.mark.parametrize("name", ["Trace", "Delay", "Run", "Machine", "checks", "datasets", "lab"])
def test_the_core_needs_no_numpy_and_no_drawing(name):
    """Models, checks and labs work where numpy and Bokeh are not to be had."""
    assert loaded_after(f"import popcorn_edu; popcorn_edu.{name}") == set()


def test_every_name_at_the_front_door_can_be_had():
    """Each promised name leads somewhere, and dir() shows it."""
    import popcorn_edu

    missing = [name for name in popcorn_edu.__all__ if getattr(popcorn_edu, name, None) is None]
    assert missing == []
    assert set(popcorn_edu.__all__) <= set(dir(popcorn_edu))


def test_a_wrong_name_is_answered_with_the_near_ones():
    """A slip of the finger costs the student no search."""
    import popcorn_edu

    with pytest.raises(AttributeError, match="has no 'machine'; near names: Machine"):
        popcorn_edu.machine  # noqa: B018
    with pytest.raises(AttributeError, match="the names are Begin, boot, checks"):
        popcorn_edu.xyzzy  # noqa: B018

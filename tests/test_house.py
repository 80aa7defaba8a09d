"""The house is in order: one list of dependencies, one command, clean files, no traces of a place.

These tests judge the tree as it is: what git tracks or would track.
"""

import ast
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
LOCK = (ROOT / "requirements.lock.txt").read_text(encoding="utf-8")
BINARY = {".png", ".jpg", ".gif", ".gz", ".zip", ".woff2", ".ico"}
NOT_OURS = {
    ".git",
    ".venv",
    "my-labs",
    "__pycache__",
    ".hypothesis",
    ".pytest_cache",
    ".ruff_cache",
}


def project_files() -> list[Path]:
    """Every file that git tracks or would track; without git, every file but the made ones."""
    if (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        files = [ROOT / name for name in listing.split("\0") if name]
    else:
        files = [p for p in ROOT.rglob("*") if not NOT_OURS & set(p.relative_to(ROOT).parts)]
    return sorted(path for path in set(files) if path.is_file())


def texts() -> list[tuple[str, str]]:
    """(name from the root, text) of every text file of ours; data keeps its sources' words."""
    return [
        (path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in project_files()
        if path.suffix not in BINARY and ROOT / "datasets" not in path.parents
    ]


def notebooks() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".ipynb"]


def tool(*command: str) -> str:
    """What a tool of Python's has to say about the tree; nothing when all is well."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


# -- one list of dependencies ---------------------------------------------------------------------


def wanted() -> list[Requirement]:
    """Every requirement in pyproject.toml: for users, then for developers."""
    return [Requirement(s) for s in PROJECT["dependencies"] + PYPROJECT["dependency-groups"]["dev"]]


def pins() -> dict[str, list[Version]]:
    """The versions in the lock; a package may have one for each range of Python versions."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK, flags=re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(Version(version))
    return found


def test_the_lock_keeps_every_promise_of_pyproject():
    """Each requirement is locked, and every locked version lies in its range."""
    locked = pins()
    broken = [
        f"{requirement}: locked {[str(v) for v in versions]}"
        for requirement in wanted()
        for versions in [locked.get(canonicalize_name(requirement.name), [])]
        if not versions or not all(requirement.specifier.contains(v) for v in versions)
    ]
    assert broken == []


def test_the_lock_names_hashes_and_no_place():
    """A package comes from wherever the user's own tools get it, but with these very bytes."""
    assert "://" not in LOCK
    entries = re.split(r"\n(?=[a-z])", LOCK)[1:]
    assert len(entries) > 50
    assert [e.splitlines()[0] for e in entries if "--hash=sha256:" not in e] == []


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def conda_specs() -> list[MatchSpec]:
    return [MatchSpec(s, strict=True) for s in conda()["dependencies"] if isinstance(s, str)]


def test_conda_reads_every_spec_in_environment_yml():
    """A real parser of conda's match specs takes each line, and no package stands twice."""
    names = [spec.name.normalized for spec in conda_specs()]
    assert names == ["python", "pip"]
    with pytest.raises(Exception, match="."):
        MatchSpec("python >>3.11", strict=True)


def test_conda_and_pyproject_agree_on_python():
    """The range of Python versions is the same in environment.yml, pyproject.toml and go.py."""
    python = conda_specs()[0]
    assert SpecifierSet(str(python.version)) == SpecifierSet(PROJECT["requires-python"])
    oldest, newest = go.OLDEST_PYTHON, go.NEWEST_PYTHON
    assert PROJECT["requires-python"] == f">=3.{oldest[1]},<3.{newest[1] + 1}"


def test_conda_takes_the_packages_from_the_one_list():
    """Under pip stands only the project itself, whose dependencies are pyproject's."""
    (pip,) = [entry["pip"] for entry in conda()["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-e ."]


def test_the_version_is_the_same_everywhere():
    """pyproject.toml, the package and the changelog speak of one version."""
    import popcorn_edu

    assert popcorn_edu.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_carries_data_and_scripts(tmp_path):
    """An installed copy finds its datasets and the player's script inside the package."""
    assert tool("hatchling", "build", "-t", "wheel", "-d", str(tmp_path)) == ""
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in project_files():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("popcorn_edu/"):
            assert name in inside
        elif name.startswith("datasets/"):
            assert f"popcorn_edu/_{name}" in inside
    assert not [name for name in inside if name.startswith(("labs/", "tests/"))]


def test_no_two_events_share_a_name():
    """A saved trace names its events' classes and no module, so the name alone must tell."""
    homes: dict[str, list[str]] = {}
    for path in sorted((ROOT / "popcorn_edu").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                if any(ast.unparse(base).endswith("Event") for base in node.bases):
                    homes.setdefault(node.name, []).append(path.name)
    assert len(homes) > 100
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


# -- one command ----------------------------------------------------------------------------------


def load_go():
    spec = importlib.util.spec_from_file_location("go", ROOT / "go.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


go = load_go()


def test_go_needs_only_the_standard_library():
    """go.py runs before anything is installed."""
    tree = ast.parse((ROOT / "go.py").read_text(encoding="utf-8"))
    names = {
        (alias.name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names <= sys.stdlib_module_names


def test_go_can_be_read_by_an_old_python():
    """An old Python must get as far as the sentence that says it is too old."""
    ast.parse((ROOT / "go.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_an_old_python_gets_a_sentence(monkeypatch):
    """The sentence says which versions will do and which one this is."""
    monkeypatch.setattr(go.sys, "version_info", (3, 9, 18))
    with pytest.raises(go.Stop, match=r"needs Python 3\.11 to 3\.14; this is Python 3\.9 \("):
        go.main(["test"])


def test_a_wrong_command_is_answered_with_the_near_one():
    """A slip of the finger costs no search."""
    with pytest.raises(go.Stop, match="no command 'tset': did you mean 'test'"):
        go.main(["tset"])


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_the_texts_give_the_two_commands(name):
    """Who reads only the front page can start."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "python3 go.py lab" in text
    assert "python3 go.py test" in text


def test_ci_runs_the_readmes_own_test_command():
    """What CI checks is what a newcomer is told to run, and nothing less."""
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "python3 go.py test"
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_make_only_calls_go():
    """The Makefile knows nothing that go.py does not."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line.startswith("\t")} == {"\t$(PYTHON) go.py $@"}
    targets = next(line for line in lines if line.startswith("lab")).rstrip(":").split()
    assert set(targets) <= set(go.COMMANDS)


@pytest.fixture
def folder(tmp_path):
    """A project folder with a lock, a list and an environment that is complete."""
    (tmp_path / "requirements.lock.txt").write_text("simpy==4.1.2\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    fill(go.Environment(tmp_path))
    return tmp_path


def fill(environment):
    """What make() leaves behind, without installing anything."""
    environment.programs.mkdir(parents=True)
    environment.python.write_text("")
    (environment.folder / "pyvenv.cfg").write_text(f"home = {environment.root}\n")
    stamp = dict(environment.wanted(), python=environment.interpreter())
    environment.stamp.write_text(json.dumps(stamp))


def test_a_complete_environment_is_left_alone(folder, monkeypatch):
    """With nothing to do, go.py does nothing."""
    monkeypatch.setattr(go.Environment, "make", lambda *_: pytest.fail("it was made again"))
    go.Environment(folder).ensure()
    assert not (folder / ".venv.lock").exists()


@pytest.mark.parametrize("stamp", [None, "", "{", "[]", '"x"', "{}", '{"python": ""}'])
def test_a_half_made_environment_is_made_again(folder, stamp):
    """No stamp, or one that was cut short, means that the work was not finished."""
    environment = go.Environment(folder)
    environment.stamp.unlink()
    if stamp is not None:
        environment.stamp.write_text(stamp)
    assert environment.missing() == ["packages", "project"]


def test_a_changed_lock_means_new_packages(folder):
    """After an update of the project the environment follows."""
    (folder / "requirements.lock.txt").write_text("simpy==4.1.1\n")
    assert go.Environment(folder).missing() == ["packages", "project"]


def test_a_changed_project_file_means_only_the_project(folder):
    """A new version number does not cost a download."""
    (folder / "pyproject.toml").write_text("[project]\nversion = '2'\n")
    assert go.Environment(folder).missing() == ["project"]


def test_a_moved_folder_is_made_again(folder, tmp_path_factory):
    """The programs of an environment hold its absolute place."""
    moved = tmp_path_factory.mktemp("elsewhere") / "project"
    folder.rename(moved)
    assert go.Environment(moved).missing() == ["packages", "project"]


def test_an_environment_without_its_python_is_made_again(folder):
    """An upgrade of the system can take the interpreter away."""
    environment = go.Environment(folder)
    environment.python.unlink()
    assert environment.missing() == ["packages", "project"]
    environment.stamp.write_text(json.dumps(dict(environment.wanted(), python="")))
    assert environment.missing() == ["packages", "project"]


def make_without_installing(monkeypatch, calls, code=0):
    """Record the commands that go.py would run; the venv module's leaves a folder behind."""

    def call(command, **_):
        calls.append(command)
        if "venv" in command:
            environment = go.Environment(Path(command[-1]).parent)
            environment.programs.mkdir(parents=True)
            environment.python.write_text("")
            (environment.folder / "pyvenv.cfg").write_text(f"home = {environment.root}\n")
        return code

    monkeypatch.setattr(go.subprocess, "call", call)
    monkeypatch.setattr(go.shutil, "which", lambda *_, **__: None)


def test_making_it_again_leaves_nothing_of_the_old_one(folder, monkeypatch):
    """A stale package cannot survive, the packages come by hash, and the stamp comes last."""
    calls = []
    make_without_installing(monkeypatch, calls)
    environment = go.Environment(folder)
    (environment.folder / "stale.py").write_text("")
    environment.stamp.unlink()
    environment.ensure()
    assert not (environment.folder / "stale.py").exists()
    assert environment.missing() == []
    venv, packages, project = calls
    assert "--require-hashes" in packages
    assert {"--no-deps", "--no-build-isolation", "-e"} <= set(project)


def test_a_failed_installation_is_taken_up_again(folder, monkeypatch):
    """When the network fails there is one sentence, and no stamp that says it is complete."""
    make_without_installing(monkeypatch, [], code=1)
    environment = go.Environment(folder)
    (folder / "requirements.lock.txt").write_text("simpy==4.1.1\n")
    with pytest.raises(go.Stop, match="run the same command again"):
        environment.ensure()
    assert environment.missing() == ["packages", "project"]


def test_debian_without_venv_gets_the_line_to_type(folder, monkeypatch):
    """Debian ships Python without ensurepip; the message is the remedy."""
    monkeypatch.setattr(go, "has_module", lambda name: name != "ensurepip")
    with pytest.raises(go.Stop, match="sudo apt install python3-venv"):
        go.Environment(folder).create(with_pip=True)


def test_two_at_once_make_it_once(folder, monkeypatch):
    """Who comes second waits, looks again, and finds the work done."""
    environment = go.Environment(folder)
    environment.stamp.unlink()
    answers = iter([["packages"], []])  # before the lock: missing; after it: the other made it
    monkeypatch.setattr(environment, "missing", lambda: next(answers))
    monkeypatch.setattr(environment, "make", lambda _: pytest.fail("made twice"))
    environment.ensure()


def test_the_file_lock_admits_one(tmp_path):
    """A second holder is refused until the first lets go."""
    path = tmp_path / "lock"
    with go.only_one(path), open(path, "a+b") as second:
        assert not go.take(second)
    with open(path, "a+b") as third:
        assert go.take(third)


@pytest.mark.parametrize(("windows", "name"), [(True, "Scripts/python.exe"), (False, "bin/python")])
def test_each_system_has_its_own_place_for_programs(windows, name, monkeypatch):
    """Windows keeps the programs of an environment in Scripts."""
    environment = go.Environment(ROOT)
    monkeypatch.setattr(go, "WINDOWS", windows)
    assert environment.python.relative_to(environment.folder).as_posix() == name


def test_the_users_own_options_replace_ours(monkeypatch):
    """JupyterLab refuses an option that is given twice."""
    monkeypatch.setattr(go, "has_display", lambda: False)
    ours = go.lab_options(Path("labs"), [])
    assert "--ServerApp.root_dir=labs" in ours
    assert "--no-browser" in ours
    given = ["--ServerApp.root_dir=mine", "--log-level=INFO", "--no-browser", "--allow-root"]
    assert go.lab_options(Path("labs"), given) == given


def test_the_address_is_that_of_the_server_we_started(tmp_path):
    """Another server's note, an old one or half a one is not taken for ours."""
    note = tmp_path / "jpserver-7.json"
    server = {"pid": 7, "url": "http://localhost:8888/", "token": "t"}
    note.write_text(json.dumps(server))
    began = note.stat().st_mtime
    assert go.read_address(note, 7, began) == "http://localhost:8888/lab?token=t"
    assert go.read_address(note, 7, began + 60) is None
    if not go.WINDOWS:
        assert go.read_address(note, 8, began) is None
    note.write_text('{"pid": 7, "ur')
    assert go.read_address(note, 7, began) is None


LAB_FROM_THIS_PYTHON = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("go", sys.argv[1])
go = importlib.util.module_from_spec(spec)
spec.loader.exec_module(go)
go.Environment.missing = lambda self: []
go.Environment.python = pathlib.Path(sys.executable)
sys.exit(go.main(["lab", "--no-browser", "--ServerApp.port_retries=0", *sys.argv[2:]]))
"""


@pytest.mark.slow
def test_lab_prints_an_address_that_answers(tmp_path):
    """What go.py prints leads to JupyterLab, and the server ends with go.py."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-c", LAB_FROM_THIS_PYTHON, str(ROOT / "go.py"), f"--port={port}"]
    with subprocess.Popen(
        command, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as lab:
        address = next((line.strip() for line in lab.stdout if "http://" in line), "")
        assert re.fullmatch(rf"http://localhost:{port}/lab\?token=\w+", address)
        with urllib.request.urlopen(address, timeout=30) as page:
            assert "JupyterLab" in page.read().decode()
        lab.terminate()
        assert lab.wait(timeout=30) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("localhost", port)) != 0


# -- clean files ----------------------------------------------------------------------------------


def test_ruff_finds_nothing():
    """The rules are in pyproject.toml; python3 go.py run ruff check --fix mends most."""
    assert tool("ruff", "check", "--no-cache", "--quiet") == ""


def test_the_code_is_in_ruffs_format():
    """python3 go.py run ruff format puts it right."""
    assert tool("ruff", "format", "--check", "--no-cache", "--quiet") == ""


def test_no_common_misspelling():
    """Codespell knows the usual ones."""
    assert tool("codespell_lib") == ""


def test_precommit_runs_only_what_is_here():
    """Hooks are local, run in the project's own environment, and fetch nothing."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}
    assert all(hook["entry"].startswith("python3 go.py ") for hook in hooks)
    assert {"ruff", "codespell"} <= {word for hook in hooks for word in hook["entry"].split()}


def test_notebooks_carry_no_outputs():
    """What a notebook shows is made when it is run; a diff shows only what was written."""
    dirty = []
    for path in notebooks():
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell.get("outputs") or cell.get("execution_count") is not None:
                dirty.append(f"{path.relative_to(ROOT)}: cell {cell.get('id')}")
    assert dirty == []


def test_notebooks_have_cells_with_names():
    """Cell ids are unique in their notebook, so that builds are repeatable."""
    for path in notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        ids = [cell.get("id") for cell in cells]
        assert None not in ids and len(set(ids)) == len(ids), path.relative_to(ROOT)


def test_no_file_names_a_package_registry():
    """Where packages come from is the user's own setting."""
    hosts = [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("anaconda", "org"),
        ("anaconda", "com"),
        ("deb.debian", "org"),
        ("unpkg", "com"),
        ("jsdelivr", "net"),
    ]
    pattern = re.compile("|".join(re.escape(".".join(host)) for host in hosts))
    assert [name for name, text in texts() if pattern.search(text)] == []


def test_no_file_holds_a_path_of_one_machine():
    """Neither this folder, nor a home folder, nor the place of this Python."""
    places = {str(ROOT), str(Path.home()), sys.prefix, sys.base_prefix}
    here = "|".join(re.escape(place) for place in sorted(places - {"/", "/usr", "/usr/local"}))
    pattern = re.compile(rf"(?<![\w.:/])({here})(?=[/\s\"'`)])|/home/\w+/|/Users/\w+/|C:\\Users")
    hits = [(name, pattern.search(text)) for name, text in texts()]
    found = [f"{name}: {hit.group()}" for name, hit in hits if hit]
    assert found == []


def test_every_text_is_utf8_with_unix_line_ends():
    """Checksums and golden transcripts are the same on every system."""
    dirty = [name for name, text in texts() if "\r" in text]
    assert dirty == []


def test_a_student_gets_new_labs_and_keeps_begun_work(tmp_path):
    """go.py lab copies a lab once: what a student wrote is never overwritten by an update."""
    released, mine = tmp_path / "released", tmp_path / "mine"
    (released / "lab00").mkdir(parents=True)
    (released / "lab00" / "lab00.ipynb").write_text("as released", encoding="utf-8")
    go.copy_labs(released, mine)
    (mine / "lab00" / "lab00.ipynb").write_text("my work", encoding="utf-8")
    (released / "lab05").mkdir()
    (released / "lab05" / "lab05.ipynb").write_text("a new lab", encoding="utf-8")
    go.copy_labs(released, mine)
    assert (mine / "lab00" / "lab00.ipynb").read_text(encoding="utf-8") == "my work"
    assert (mine / "lab05" / "lab05.ipynb").read_text(encoding="utf-8") == "a new lab"
    assert sorted(path.name for path in mine.iterdir()) == ["lab00", "lab05"]

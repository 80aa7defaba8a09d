"""Every file in datasets/ is known, unchanged, licensed, and names nobody's computer."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError

IDENTIFYING = re.compile(
    r"hostname|serial|uuid|assettag|address|guid|gid\d|lid|lmc|processname|cgroup", re.IGNORECASE
)
HARDWARE_ADDRESS = re.compile(r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", re.IGNORECASE)
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")
ACPI_LETTERS = re.compile(r"(?m)^(    [0-9A-F]{4}: .{48}).*$")  # the right column only repeats
LICENCES = ("BSD-3-Clause", "MIT", "Apache-2.0", "CC-BY-4.0", "LicenseRef-facts-only")
DATA = [name for name in datasets.names() if datasets.entry(name)["kind"] != "licence"]


def test_every_file_is_the_one_the_manifest_describes():
    """Checksums agree, no file is missing, and none lies there without an entry."""
    assert datasets.verify() == []


def test_every_name_and_alias_is_used_once():
    """A name means one file."""
    files = datasets.manifest()["files"]
    names = [name for item in files for name in (item["name"], *item["aliases"])]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", DATA)
def test_every_file_says_where_it_comes_from_and_under_which_licence(name):
    """Licence with its text, origin, how it was obtained, and one line of what it is."""
    item = datasets.entry(name)
    assert item["licence"] in LICENCES
    assert (datasets.root() / item["licence_file"]).read_text(encoding="utf-8").strip()
    assert all(item["origin"][part] for part in ("repo", "path", "commit"))
    assert item["obtained"] and item["about"]
    assert item["bytes"] == datasets.path(name).stat().st_size
    assert item["machine"] is None or item["machine"] in datasets.machine_names()


def test_every_licence_is_used_and_has_its_own_entry():
    """A licence text without a file under it is clutter; one without an entry is unchecked."""
    used = {datasets.entry(name)["licence_file"] for name in DATA}
    used |= {datasets.entry(name).get("notice_file") for name in DATA} - {None}
    assert used == {datasets.entry(name)["file"] for name in datasets.names("licence")}


def test_the_data_stays_small():
    """The whole folder is a few megabytes, so that a clone stays quick."""
    assert sum(item["bytes"] for item in datasets.manifest()["files"]) < 2_500_000


@pytest.mark.parametrize("name", datasets.names("topology"))
def test_a_topology_names_nobodys_computer(name):
    """Host names, serial numbers and addresses are redacted or empty."""
    pairs = re.findall(r'<info name="([^"]*)" value="([^"]*)"', datasets.read_text(name))
    told = [(n, v) for n, v in pairs if IDENTIFYING.search(n) and v.strip(" 0/")]
    assert [pair for pair in told if pair[1] != "REDACTED"] == []


@pytest.mark.parametrize("name", DATA)
def test_no_file_holds_a_hardware_address_or_an_email(name):
    """The data are of machines, not of people."""
    text = ACPI_LETTERS.sub(r"\1", datasets.read_text(name))
    assert HARDWARE_ADDRESS.findall(text) == []
    assert EMAIL.findall(text) == []


def test_a_work_that_wants_its_notice_shown_gets_it():
    """Apache-2.0: a notice file goes with what is under it."""
    wanting = [n for n in DATA if "node_exporter" in datasets.entry(n)["origin"]["repo"]]
    assert wanting == list(datasets.names("irq"))
    assert all("NOTICE" in datasets.entry(name)["notice_file"] for name in wanting)


KINDS = {"topology": "topology", "memmap": "memmap", "acpi": "acpi", "pci": "pci", "board": "board"}


@pytest.mark.parametrize("name", datasets.machine_names())
def test_a_machine_is_made_of_files_that_are_there(name):
    """CPUs come from one sort of file, or from a shape; measured machines have own latencies."""
    made = datasets.machine(name)
    assert sum(part in made for part in ("topology", "acpi", "board", "shape")) == 1
    for part, kind in KINDS.items():
        if part in made:
            assert datasets.entry(made[part])["kind"] == kind
            assert datasets.entry(made[part])["machine"] == name
    if made["latencies"]:
        assert datasets.entry(made["latencies"])["kind"] == "c2c"
        assert datasets.entry(made["latencies"])["machine"] == name
    if "shape" in made:
        assert "shape" in made["note"]


@pytest.mark.parametrize("kind", ["memmap", "acpi", "board", "scenario"])
def test_every_file_of_firmware_has_its_oracle(kind):
    """What an independent reading found lies beside the tests."""
    folder = {"memmap": "memmaps", "board": "boards", "scenario": "scenarios"}.get(kind, kind)
    for name in datasets.names(kind):
        file = Path(datasets.entry(name)["file"]).name
        if not file.endswith(".dts"):
            stem = file.split(".")[0]
            assert (Path(__file__).parent / "data" / folder / f"{stem}.expected.json").is_file()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (
            lambda: datasets.path("magny-cours-84"),
            "There is no dataset called 'magny-cours-84'; did you mean magny-cours-48 or",
        ),
        (
            lambda: datasets.machine("magny cours 48"),
            "There is no machine called 'magny cours 48'; did you mean magny-cours-48 or",
        ),
        (
            lambda: datasets.machine("zzz"),
            "There is no machine called 'zzz'; expected one of 34 names, such as",
        ),
        (
            lambda: datasets.names("c2d"),
            "There is no kind of dataset called 'c2d'; did you mean c2c?",
        ),
        (
            lambda: datasets.entry(48),
            "A dataset is asked for by its name in quotes, not by int.",
        ),
    ],
)
def test_a_wrong_name_gives_the_near_ones(ask, says):
    """One sentence with the nearest valid spellings, or all of them."""
    with pytest.raises(PopcornError) as caught:
        ask()
    assert str(caught.value).startswith(says)


def test_a_changed_a_missing_and_an_unknown_file_are_told_apart(tmp_path, monkeypatch):
    """verify() says which file is wrong and in which way."""
    monkeypatch.setattr(datasets, "root", lambda: tmp_path)
    first, second = datasets.manifest()["files"][:2]
    monkeypatch.setattr(datasets, "manifest", lambda: {"files": [first, second]})
    (tmp_path / "topologies").mkdir()
    (tmp_path / first["file"]).write_text("changed")
    (tmp_path / "stray.csv").write_text("1")

    assert datasets.verify() == [
        f"{first['file']} is not the file the manifest describes (sha256 differs).",
        f"{second['file']} is missing.",
        "stray.csv has no entry in the manifest.",
    ]


def test_an_installed_copy_brings_its_data_inside_the_package(tmp_path):
    """In site-packages a folder called datasets beside the package belongs to someone else."""
    package = tmp_path / "popcorn_edu"
    (package / "engine").mkdir(parents=True)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "MANIFEST.json").write_text("not ours")
    shutil.copytree(datasets.root(), package / "_datasets")
    for file in ("datasets.py", "engine/__init__.py", "engine/trace.py"):
        shutil.copy(Path(datasets.__file__).parent / file, package / file)
    (package / "__init__.py").write_text("")

    ask = "from popcorn_edu import datasets; print(datasets.path('magny-cours-48'))"
    told = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(told.stdout.strip()).is_relative_to(package / "_datasets")


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    """An incomplete copy of the kit gives a sentence, not a FileNotFoundError."""
    monkeypatch.setattr(datasets, "root", lambda: tmp_path)
    with pytest.raises(PopcornError) as caught:
        datasets.read_text("cortex-a9-2")
    assert str(caught.value) == (
        "The dataset 'cortex-a9-2' is in the manifest, but its file topologies/arm-cortexa9-2c.xml "
        "is not in the datasets folder; a complete copy of the kit was expected."
    )


def test_no_datasets_folder_at_all_is_said_plainly(tmp_path, monkeypatch):
    """A broken installation gives a sentence, not a KeyError."""
    monkeypatch.setattr(datasets, "_PLACES", (tmp_path,))
    with pytest.raises(PopcornError, match="The datasets folder is missing"):
        datasets.root.__wrapped__()

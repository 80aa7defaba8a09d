"""The data that comes with the kit. The only file that knows where ``datasets/`` is.

Every file there has an entry in ``datasets/MANIFEST.json``: a name, a kind, a checksum, a
licence, and where it comes from. Code asks for a file by its name or by an alias and never by a
path. In a checkout the folder lies beside the package; in an installed copy it is inside it.

Words
    name     "magny-cours-48", "c2c-intel-x5650-2s": short, unique, for people to type
    kind     topology, memmap (boot log), acpi, pci, irq, board, scenario (somebody's partition
             plan), vectors (what the Linux kernel's parsers answer), c2c (core-to-core
             latencies), ipi, numa, licence
    machine  the files of one computer: a topology or its firmware's tables, and whatever else is
             known of it; the manifest's second table
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from pathlib import Path

from popcorn_edu.engine.trace import PopcornError, near_names

_PACKAGE = Path(__file__).parent
_PLACES = (_PACKAGE / "_datasets", _PACKAGE.parent / "datasets")  # installed, checkout


def names(kind: str | None = None) -> tuple[str, ...]:
    """The names of all files, or of the files of one kind."""
    kinds = {entry["kind"] for entry in manifest()["files"]}
    if kind is not None and kind not in kinds:
        raise PopcornError(
            f"There is no kind of dataset called {kind!r}; {near_names(kind, kinds)}"
        )
    return tuple(e["name"] for e in manifest()["files"] if kind in (None, e["kind"]))


def entry(name: str) -> dict:
    """What the manifest says of a file: licence, origin, checksum, what it is."""
    return _look_up(name, _files(), "dataset")


def path(name: str) -> Path:
    """Where the file is."""
    found = root() / entry(name)["file"]
    if not found.is_file():
        raise PopcornError(
            f"The dataset {name!r} is in the manifest, but its file {entry(name)['file']} is not "
            "in the datasets folder; a complete copy of the kit was expected."
        )
    return found


def read_text(name: str) -> str:
    return path(name).read_text(encoding="utf-8")


def machine_names() -> tuple[str, ...]:
    return tuple(machine["name"] for machine in manifest()["machines"])


def machine(name: str | None = None) -> dict:
    """What a machine is made of: its files by kind, or a shape, and its measured latencies."""
    return _look_up(manifest()["default_machine"] if name is None else name, _machines(), "machine")


def verify() -> list[str]:
    """One sentence for each file that is missing, changed, or not in the manifest."""
    wrong = []
    for item in manifest()["files"]:
        file = root() / item["file"]
        if not file.is_file():
            wrong.append(f"{item['file']} is missing.")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != item["sha256"]:
            wrong.append(f"{item['file']} is not the file the manifest describes (sha256 differs).")
    known = {item["file"] for item in manifest()["files"]} | {"MANIFEST.json", "README.md"}
    for file in sorted(root().rglob("*")):
        relative = file.relative_to(root()).as_posix()
        if file.is_file() and relative not in known:
            wrong.append(f"{relative} has no entry in the manifest.")
    return wrong


@functools.cache
def root() -> Path:
    for place in _PLACES:
        if (place / "MANIFEST.json").is_file():
            return place
    raise PopcornError(
        "The datasets folder is missing; it was expected beside or inside the popcorn_edu package."
    )


@functools.cache
def manifest() -> dict:
    return json.loads((root() / "MANIFEST.json").read_text(encoding="utf-8"))


@functools.cache
def _files() -> dict[str, dict]:
    return {n: item for item in manifest()["files"] for n in (item["name"], *item["aliases"])}


@functools.cache
def _machines() -> dict[str, dict]:
    table = {}
    for made in manifest()["machines"]:
        aliases = entry(made["topology"])["aliases"] if "topology" in made else ()
        table |= dict.fromkeys((made["name"], *aliases), made)
    return table


def _look_up(name, table: dict[str, dict], what: str) -> dict:
    if not isinstance(name, str):
        raise PopcornError(
            f"A {what} is asked for by its name in quotes, not by {type(name).__name__}."
        )
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
        known = table if near else {item["name"] for item in table.values()}
        raise PopcornError(f"There is no {what} called {name!r}; {near_names(name, known)}")
    return table[name]

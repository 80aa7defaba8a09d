"""The file that a plan is saved in: small, for people to read and to change by hand.

    {"format": "popcorn_edu plan 1", "machine": "h8qg6-64", "kernels": [
      {"name": "primary", "cpus": "0-7", "memory": ["0x0-0x41fffffff (16,896 MiB)"], ...}, ...]}

Every complaint names the file and the place in it; what nobody knows is refused, with near names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, near_names, write_whole
from popcorn_edu.model.carving import POLICIES, Tenant
from popcorn_edu.model.firmware import MemoryRange
from popcorn_edu.model.plan_words import range_text, read_cpus, read_range, read_ranges
from popcorn_edu.model.topology import cpu_list

FILE_FORMAT = "popcorn_edu plan 1"
FILE_BYTES_AT_MOST = 8 << 20


class KernelPart(NamedTuple):
    name: str
    cpus: tuple[int, ...]
    memory: tuple[MemoryRange, ...]
    devices: tuple[str, ...]  # as written
    parameters: str


class Parts(NamedTuple):
    """What a file says; the machine is a name."""

    machine: str
    memory_policy: str
    by_slot: bool
    kernels: tuple[KernelPart, ...]
    reserve: tuple[Tenant, ...]
    notes: tuple[str, ...]


def write_plan(path: str | Path, parts: Parts) -> Path:
    content = {
        "format": FILE_FORMAT,
        "machine": parts.machine,
        "memory policy": parts.memory_policy,
        "by slot": parts.by_slot,
        "kernels": [
            {
                "name": kernel.name,
                "cpus": cpu_list(kernel.cpus),
                "memory": [range_text(part) for part in kernel.memory],
                "devices": list(kernel.devices),
                "parameters": kernel.parameters,
            }
            for kernel in parts.kernels
        ],
        "reserve": [
            {"name": tenant.name, "range": range_text(tenant), "source": tenant.source}
            for tenant in parts.reserve
        ],
        "notes": list(parts.notes),
    }
    return write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


class PlanFile:
    """A saved plan while it is read; every complaint names the file and the place in it."""

    KEYS = ("format", "machine", "memory policy", "by slot", "kernels", "reserve", "notes")
    KERNEL_KEYS = ("name", "cpus", "memory", "devices", "parameters")
    TENANT_KEYS = ("name", "range", "source")

    def __init__(self, path: str | Path) -> None:
        self.file = Path(path).name if isinstance(path, (str, Path)) else "the plan"
        self.content = self._object(self._read(path), self.KEYS, "the file")
        said = self.content.get("format")
        if said != FILE_FORMAT:
            raise self._wrong("format", said, repr(FILE_FORMAT))

    def _read(self, path):
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError, TypeError) as problem:
            why = getattr(problem, "strerror", None) or "this is no path"
            raise PopcornError(f"cannot read {str(path)[:200]!r}: {why}.") from None
        if len(data) > FILE_BYTES_AT_MOST:
            raise PopcornError(
                f"{self.file} has {len(data):,} bytes; a plan of at most {FILE_BYTES_AT_MOST:,} "
                "was expected."
            )
        try:
            return json.loads(data.decode("utf-8-sig"), object_pairs_hook=self._once)
        except UnicodeDecodeError:
            raise PopcornError(f"{self.file} is no text; a saved plan was expected.") from None
        except json.JSONDecodeError as problem:
            raise PopcornError(
                f"{self.file}, line {problem.lineno}, column {problem.colno}: this is not JSON "
                f"({problem.msg}); a saved plan was expected."
            ) from None
        except ValueError:  # a number of thousands of digits, which Python does not read
            raise PopcornError(f"{self.file} holds a number too long to be read.") from None
        except RecursionError:
            raise PopcornError(f"{self.file} is nested too deep to be a plan.") from None

    def _once(self, pairs: list) -> dict:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise PopcornError(f"{self.file} has {twice!r} twice in one place; once was expected.")
        return made

    def _wrong(self, where: str, value, expected: str) -> PopcornError:
        shown = json.dumps(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return PopcornError(f"{self.file}: {where} is {shown}; {expected} was expected.")

    def _object(self, value, keys: tuple[str, ...], where: str) -> dict:
        if not isinstance(value, dict):
            raise self._wrong(where, value, "an object with names and values")
        for key in value:
            if key not in keys:
                raise PopcornError(
                    f"{self.file}: {where} has an unknown name, {key!r}; {near_names(key, keys)}"
                )
        return value

    def _list(self, value, where: str) -> list:
        if not isinstance(value, list):
            raise self._wrong(where, value, "a list")
        return value

    def _text(self, value, where: str, expected: str = "one line of text") -> str:
        if not isinstance(value, str) or not value.isprintable():
            raise self._wrong(where, value, expected)
        return value

    def said(self, where: str, read, *values):
        """What ``read`` makes of the values; its complaint gets a place."""
        try:
            return read(*values)
        except PopcornError as problem:
            raise PopcornError(f"{self.file}: {where}: {problem}") from None

    def parts(self) -> Parts:
        """All of it, checked as far as that goes without the machine."""
        content = self.content
        policy = content.get("memory policy", "by hand")
        if policy not in POLICIES:
            raise PopcornError(
                f"{self.file}: there is no memory policy {policy!r}; {near_names(policy, POLICIES)}"
            )
        by_slot = content.get("by slot", False)
        if not isinstance(by_slot, bool):
            raise self._wrong("by slot", by_slot, "true or false")
        kernels = self._list(content.get("kernels"), "kernels")
        return Parts(
            self._text(content.get("machine", ""), "machine"),
            policy,
            by_slot,
            tuple(self._kernel(k, kernel) for k, kernel in enumerate(kernels)),
            tuple(map(self._tenant, self._list(content.get("reserve", []), "reserve"))),
            tuple(
                self._text(note, "a note") for note in self._list(content.get("notes", []), "notes")
            ),
        )

    def _kernel(self, k: int, kernel) -> KernelPart:
        where = f"kernel {k}"
        kernel = self._object(kernel, self.KERNEL_KEYS, where)
        cpus = self._text(kernel.get("cpus", ""), f"{where}, cpus", "a text such as '0-7'")
        ranges = self._list(kernel.get("memory", []), f"{where}, memory")
        slots = self._list(kernel.get("devices", []), f"{where}, devices")
        return KernelPart(
            self._text(kernel.get("name", where), f"{where}, name"),
            self.said(where, read_cpus, cpus),
            self.said(where, read_ranges, ranges),
            tuple(self._text(slot, f"{where}, a device") for slot in slots),
            self._text(kernel.get("parameters", ""), f"{where}, parameters"),
        )

    def _tenant(self, tenant) -> Tenant:
        tenant = self._object(tenant, self.TENANT_KEYS, "a tenant of the reserve")
        name = self._text(tenant.get("name"), "the name of a tenant")
        part = self.said(f"tenant {name}", read_range, tenant.get("range"))
        return Tenant(name, part.start, part.end, self._text(tenant.get("source", ""), "a source"))

"""Kerf's plans: a device tree that says which CPUs, RAM and devices kernels may be given.

Kerf is the tool of the 2025 Linux multikernel project. Its trees hold a pool; kernels are cut
out of it later, one command each.

    read_kerf("numa_topology.dts")  # Foreign(machine, shares, remarks)

Words
    pool   what kerf may give to kernels; the host keeps the rest
    cell   32 bits, the unit of numbers in a device tree
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.firmware import MemoryRange, NodeMemory, in_words
from popcorn_edu.model.foreign import Foreign, Share, text_and_name, without
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.pci import PciFunction
from popcorn_edu.model.topology import Core, Node, Package, cpu_list

CELL_AT_MOST = (1 << 32) - 1
KERF_CPUS_AT_MOST = 8192  # NR_CPUS of a large Linux
HERE = 10  # what a firmware's distance table (SLIT) calls the distance to oneself
_SLOT = r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"

# -- kerf's device tree ----------------------------------------------------------------------------

_CELL = re.compile(r"0x[0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}")
_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<space>\s+)|(?P<text>"[^"\n]*")
      |(?P<cells><[^<>{};]*>)|(?P<directive>/[\w-]+/)|(?P<word>[\w#,.+@?-]+)|(?P<mark>[{};=:/])""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


@dataclass
class _TreeNode:
    name: str
    line: int
    values: dict[str, tuple[str, int, str]]  # property -> text, line, the comment behind it
    children: list[_TreeNode]

    def child(self, name: str) -> _TreeNode | None:
        return next((c for c in self.children if c.name.partition("@")[0] == name), None)


class _Tree:
    """A device tree's text, as nodes; every complaint names the file and the line."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.remarks: list[str] = []
        self.too_big: set[int] = set()  # lines with a number that no cell can hold
        self.tokens: list[_Token] = []
        at, line = 0, 1
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found:
                raise self._wrong(line, f"{text[at : at + 12]!r} is garbled", "a node or property")
            if found.lastgroup != "space":
                self.tokens.append(_Token(found.lastgroup, found[0], line))
            line += found[0].count("\n")
            at = found.end()
        self.place = 0

    def _wrong(self, line: int, what: str, expected: str) -> PopcornError:
        return PopcornError(f"{self.file}, line {line}: {what}; {expected} was expected.")

    def _next(self) -> _Token | None:
        while self.place < len(self.tokens):
            self.place += 1
            token = self.tokens[self.place - 1]
            if token.kind != "comment":
                return token
        return None

    def _take(self, *texts: str) -> _Token:
        last = self.tokens[self.place - 1].line if self.place else 1
        token = self._next()
        if token is None:
            raise self._wrong(last, "the file ends too early", f"{texts[0]!r}")
        if token.text not in texts:
            raise self._wrong(token.line, f"{token.text[:20]!r} is out of place", f"{texts[0]!r}")
        return token

    def root(self) -> _TreeNode:
        while True:
            token = self._next()
            if token is None:
                raise self._wrong(1, "there is no root node", "'/ {'")
            if token.kind == "directive":
                self._take(";")
            elif token.text == "/":
                self._take("{")
                return self._node("/", token.line, 0)
            else:
                raise self._wrong(token.line, f"{token.text[:20]!r} is out of place", "'/ {'")

    def _node(self, name: str, line: int, depth: int) -> _TreeNode:
        if depth > 32:
            raise self._wrong(line, "nodes are nested more than 32 deep", "a device tree")
        node = _TreeNode(name, line, {}, [])
        while True:
            token = self._next()
            if token is None:
                raise self._wrong(line, f"the node {name!r} is never closed", "'};'")
            if token.text == "}":
                self._take(";")
                return node
            if token.kind != "word":
                raise self._wrong(token.line, f"{token.text[:20]!r} is out of place", "a name")
            mark = self._take("=", "{", ":", ";")
            if mark.text == ":":  # a label: the name follows
                token, mark = self._next(), self._take("{")
            if mark.text == "{":
                node.children.append(self._node(token.text, token.line, depth + 1))
            elif mark.text == "=":
                self._property(node, token)

    def _property(self, node: _TreeNode, name: _Token) -> None:
        value = self._next()
        if value is None or value.kind not in ("cells", "text"):
            raise self._wrong(name.line, f"{name.text} has no value", '<numbers> or "text"')
        self._take(";")
        behind = self.tokens[self.place] if self.place < len(self.tokens) else None
        comment = ""
        if behind and behind.kind == "comment" and behind.line == value.line:
            comment = behind.text.strip("/* ")
        node.values[name.text] = (value.text, name.line, comment)

    # values

    def cells(self, node: _TreeNode, name: str) -> list[int]:
        text, line, _ = node.values.get(name, ("<>", node.line, ""))
        words = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text[1:-1], flags=re.DOTALL).split()
        for word in words:
            if not _CELL.fullmatch(word):
                raise self._wrong(line, f"{name} holds {word[:30]!r}", "a list of numbers")
        return [int(word, 0) for word in words]

    def one(self, node: _TreeNode, name: str) -> int:
        """The only number of a property."""
        cells = self.cells(node, name)
        if len(cells) != 1 or cells[0] > CELL_AT_MOST:
            line = node.values[name][1]
            raise self._wrong(line, f"{name} has {len(cells)} numbers", "one small number")
        return cells[0]

    def big(self, node: _TreeNode, name: str) -> int | None:
        """A number of two cells; what no cell can hold is noted and read as it is meant."""
        if name not in node.values:
            return None
        _, line, comment = node.values[name]
        cells = self.cells(node, name)
        if len(cells) not in (1, 2):
            raise self._wrong(line, f"{name} has {len(cells)} cells", "one number of two cells")
        if max(cells) > CELL_AT_MOST:
            self.too_big.add(line)
        number = cells[-1] + (cells[0] << 32 if len(cells) == 2 else 0)
        said = re.match(r"(\d{1,9}) ?GB", comment)
        if said and number < 1 << 64 and int(said[1]) << 30 != number:
            self.remarks.append(
                f"{self.file}, line {line}: the comment says {said[1]} GB, the number "
                f"{number:#x} is {in_words(number)}; the number counts."
            )
        return number

    def text(self, node: _TreeNode, name: str) -> str:
        return node.values.get(name, ('""', 0, ""))[0].strip('"')


def read_kerf(source: str | Path, machine: Machine | None = None) -> Foreign:
    """A kerf device tree: the host keeps what is not in the pool, and the pool is one kernel.

    Without ``machine`` the computer is made of what the tree tells: its nodes, or as many CPUs as
    the highest number in the pool asks for.
    """
    text, file = text_and_name(source, "a kerf device tree", "{")
    tree = _Tree(text, file)
    root = tree.root()
    resources = root.child("resources")
    if resources is None:
        names = [child.name for child in root.children]
        raise PopcornError(f"{file} has no node 'resources'; {near_names('resources', names)}")
    pool = tuple(sorted(set(tree.cells(resources, "cpus"))))
    if not pool or pool[-1] >= KERF_CPUS_AT_MOST:
        raise PopcornError(f"{file}: resources has no usable list of CPUs; cpus = <4 5 ...>; was "
                           "expected.")  # fmt: skip
    start = tree.big(resources, "memory-base")
    size = tree.big(resources, "memory-bytes")
    if start is None or size is None:
        raise PopcornError(f"{file}: resources has no memory-base or no memory-bytes; both were "
                           "expected.")  # fmt: skip
    given = machine is not None
    if machine is None:
        machine = _kerf_machine(tree, resources, pool, start + size)
    slots = _kerf_devices(tree, resources)
    host = tuple(cpu for cpu in machine.cpus if cpu not in pool)
    area = MemoryRange(start, start + size)
    shares = (
        Share("host", host, without(machine.ram, [area])),
        Share("pool", pool, (area,), slots),
    )
    if not given:
        tree.remarks.append(
            f"{file} describes no whole computer: the host's CPUs ({cpu_list(host) or 'none'}) and "
            "RAM are what the pool leaves of it."
        )
    if tree.too_big:
        tree.remarks.append(
            f"{file}, line {cpu_list(tree.too_big)}: a cell holds 32 bits, and the numbers here "
            "are larger, so the device-tree compiler would refuse them; they are read as meant."
        )
    tree.remarks.append(
        f"{file} holds a pool and no kernels (kerf makes them later, one command each); the whole "
        "pool is one secondary kernel here, to be divided by hand."
    )
    tree.remarks.append(
        "Kerf has no reserve at the top of the RAM, no low 16 MiB and no boot lines; our plan has "
        "no virtual functions, namespaces or types of memory."
    )
    return Foreign(machine, shares, tuple(dict.fromkeys(tree.remarks)))


def _kerf_devices(tree: _Tree, resources: _TreeNode) -> tuple[str, ...]:
    """The slots of the pool's devices; what is shared out inside a device is a remark."""
    slots = []
    devices = resources.child("devices")
    for device in devices.children if devices else ():
        slot = tree.text(device, "pci-id")
        if not re.fullmatch(rf"[0-9a-f]{{4}}:{_SLOT}", slot):
            raise PopcornError(
                f"{tree.file}, line {device.line}: {device.name} has the pci-id {slot!r}; one such "
                "as '0000:01:00.0' was expected."
            )
        slots.append(slot)
        for many, kept, left, what, first in (
            ("sriov-vfs", "host-reserved-vf", "available-vfs", "virtual functions", 0),
            ("namespaces", "host-reserved-ns", "available-ns", "namespaces", 1),
        ):
            if many not in device.values:
                continue
            count = tree.one(device, many)
            named = tree.cells(device, kept) + tree.cells(device, left)
            tree.remarks.append(
                f"{slot} is shared out as {count} {what}; here a device has one owner."
            )
            beyond = [n for n in named if not first <= n < first + count]
            if beyond:
                line = device.values.get(left, device.values[many])[1]
                tree.remarks.append(
                    f"{tree.file}, line {line}: {device.name} names "
                    f"{what[:-1]} {cpu_list(beyond)}, and with {count} of them they are numbered "
                    f"{first} to {first + count - 1}."
                )
        if "memory" in device.values:
            tree.remarks.append(
                f"{slot} brings {in_words(tree.big(device, 'memory'))} of its own memory, which no "
                "kernel's RAM contains."
            )
    return tuple(slots)


def _kerf_machine(tree: _Tree, resources: _TreeNode, pool: tuple[int, ...], top: int) -> Machine:
    """The computer that the tree tells of, with what it leaves out made plain."""
    topology = resources.child("topology")
    listed = topology.child("numa-nodes") if topology else None
    nodes, memory = [], []
    for node in listed.children if listed else ():
        number = tree.one(node, "node-id") if "node-id" in node.values else len(nodes)
        cpus = tuple(sorted(set(tree.cells(node, "cpus"))))
        if cpus and cpus[-1] >= KERF_CPUS_AT_MOST:
            raise PopcornError(
                f"{tree.file}, line {node.line}: {node.name} has CPU {cpus[-1]}; numbers below "
                f"{KERF_CPUS_AT_MOST:,} were expected."
            )
        base, size = tree.big(node, "memory-base") or 0, tree.big(node, "memory-size") or 0
        nodes.append(Node(number, cpus, size))
        memory.append(NodeMemory(number, base, base + size))
    if not nodes:
        nodes = [Node(0, tuple(range(pool[-1] + 1)), top)]
        memory = [NodeMemory(0, 0, top)]
    cpus = tuple(sorted({cpu for node in nodes for cpu in node.cpus} | set(pool)))
    name = Path(tree.file).stem.replace(" ", "-")
    return Machine(
        schema="kerf device tree",
        cpus=cpus,
        offline_cpus=(),
        allowed_cpus=cpus,
        packages=tuple(Package(node.id, node.cpus) for node in nodes),
        dies=(),
        nodes=tuple(nodes),
        cores=tuple(Core(cpu, (cpu,)) for cpu in cpus),
        caches=(),
        pci=(),
        cpu_kinds=(),
        distances=_kerf_distances(tree, listed, [node.id for node in nodes]),
        info={},
        name=name,
        title=f"the computer of {tree.file}",
        memory_map=tuple(MemoryRange(part.start, part.end) for part in memory),
        memory_map_source=f"{tree.file}; it tells of no holes",
        node_memory=tuple(memory),
        pci_functions=_kerf_functions(tree, resources),
    )


def _kerf_functions(tree: _Tree, resources: _TreeNode) -> tuple[PciFunction, ...]:
    """The tree's devices; it gives a driver's name where a real listing gives ids."""
    classes = {"ethernet": "0200", "storage": "0108", "gpu": "0302"}
    devices = resources.child("devices")
    found = []
    for device in devices.children if devices else ():
        kind = device.name.partition("@")[0]
        node = tree.one(device, "numa-node") if "numa-node" in device.values else None
        found.append(
            PciFunction(
                slot=tree.text(device, "pci-id"),
                vendor_device="0000:0000",
                device_class=classes.get(kind, "ffff"),
                name=tree.text(device, "compatible"),
                node=node,
            )
        )
    if found:
        tree.remarks.append(
            f"{tree.file} names its devices by driver ({', '.join(f.name for f in found)}) and "
            "gives no vendor and device ids, so no blacklist can name them."
        )
    return tuple(found)


def _kerf_distances(tree: _Tree, listed: _TreeNode | None, ids: list[int]) -> dict:
    """The node distances as a firmware would give them; kerf's examples count from 0."""
    for node in listed.children if listed else ():
        if "distance-matrix" not in node.values:
            continue
        cells, line = tree.cells(node, "distance-matrix"), node.values["distance-matrix"][1]
        count = len(ids)
        if len(cells) != count * count:
            raise PopcornError(
                f"{tree.file}, line {line}: the distance matrix has {len(cells)} numbers; "
                f"{count} x {count} for {count} nodes were expected."
            )
        table = {(a, b): cells[i * count + j] for i, a in enumerate(ids) for j, b in enumerate(ids)}
        diagonal = {table[a, a] for a in ids}
        if diagonal == {0}:
            tree.remarks.append(
                f"{tree.file}, line {line}: the distance matrix has 0 from a node to itself, where "
                f"a firmware's table (SLIT) has {HERE}, and {min(set(cells) - {0}, default=0)} "
                f"between two nodes, which there would mean the same place; {HERE} is added to "
                "every distance (model default)."
            )
            table = {pair: HERE + distance for pair, distance in table.items()}
        elif diagonal != {HERE}:
            tree.remarks.append(
                f"{tree.file}, line {line}: the distance from a node to itself is "
                f"{cpu_list(diagonal)}; a firmware's table (SLIT) has {HERE}."
            )
        odd = [(a, b) for a, b in table if a < b and table[a, b] != table[b, a]]
        for a, b in odd:
            tree.remarks.append(
                f"{tree.file}, line {line}: from node {a} to {b} it is {table[a, b]}, and back "
                f"{table[b, a]}."
            )
        return table
    return {}

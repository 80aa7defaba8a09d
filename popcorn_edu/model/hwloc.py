"""Reading a topology file: from the XML that hwloc's ``lstopo`` writes to plain tables.

Real machines come to us in this format, so that the labs run on hardware somebody owns and a
student can bring their own laptop (``lstopo my-laptop.xml``). This file reads schemas 1.x, 2.x
and 3.0 and refuses everything else with one sentence that names the file and the line.

Words
    PU        processing unit: what the operating system numbers (its os_index) and calls a CPU
    cpuset    a set of PUs, written as hexadecimal words of 32 bits, the highest word first:
              "0x0000ffff,0xffffffff" is 0-47. A word between two commas may be left out when it
              is zero, and "0xf...f" in front means "and all PUs above"
    online    complete_cpuset holds every PU of the machine, cpuset those that run
    allowed   the PUs that the process which took the snapshot might use (a cgroup)

Left out: memory-side caches, miscellaneous objects, bandwidth matrices.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.parsers import expat

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.topology import (
    CACHE_KINDS,
    CPUS_AT_MOST,
    Cache,
    Core,
    CpuKind,
    Node,
    Package,
    PciDevice,
    Topology,
    cpu_list,
)

MEMORY_BYTES_AT_MOST = 1 << 52  # 4 PiB a node, likewise
FILE_BYTES_AT_MOST = 64 << 20
ANY_NUMBER = (1 << 64) - 1  # hwloc's own limit
NESTING_AT_MOST = 100  # real files stay below 20
SCHEMAS = ("1", "2", "3")  # major versions of the format; 1.x files do not name theirs

LISTS = ("indexes", "u64values")  # the elements whose text is read
LATENCY_KIND_BIT = 4  # hwloc_distances_kind_e: the matrix holds latencies, not bandwidths
OLD_NAMES = {"Socket": "Package"}  # hwloc 1.x


def read_topology(source: str | bytes | Path) -> Topology:
    """The tables of an XML text (it starts with "<") or of the file at a path."""
    data, file = _bytes_and_name(source)
    return _Reader(file, _parse(data, file)).topology()


# -- cpusets -------------------------------------------------------------------------------------

_WORD = re.compile(r"(0x)?[0-9a-fA-F]{1,8}|")


def parse_cpuset(text: str) -> int:
    """A cpuset as the bits of an integer; a negative one goes on for ever. ValueError if garbled.

    >>> cpu_numbers(parse_cpuset("0x1,,0x3"))
    (0, 1, 64)
    """
    words = text.strip().split(",")
    if words == [""] or len(words) * 32 > CPUS_AT_MOST:
        raise ValueError(text)
    bits = 0
    if words[0] == "0xf...f":
        bits = -1
        del words[0]
    for word in words:
        if not _WORD.fullmatch(word):
            raise ValueError(text)
        bits = bits << 32 | int(word or "0", 16)
    return bits


def cpu_numbers(bits: int) -> tuple[int, ...]:
    """The numbers of the bits that are set, ascending."""
    numbers = []
    while bits:
        lowest = bits & -bits
        numbers.append(lowest.bit_length() - 1)
        bits ^= lowest
    return tuple(numbers)


# -- XML to elements that know their line ----------------------------------------------------------


class _Element:
    __slots__ = ("tag", "attrs", "line", "parent", "children", "text")

    def __init__(self, tag: str, attrs: dict[str, str], line: int, parent: _Element | None):
        self.tag, self.attrs, self.line, self.parent = tag, attrs, line, parent
        self.children: list[_Element] = []
        self.text = ""

    def all(self, tag: str):
        return [child for child in self.children if child.tag == tag]


def is_text(source: str | bytes | Path) -> bool:
    """Whether this is the XML itself, and not where it is."""
    if isinstance(source, str):
        return source.lstrip("\ufeff \t\r\n").startswith("<") or not source.strip()
    return isinstance(source, bytes)


def _bytes_and_name(source: str | bytes | Path) -> tuple[bytes, str]:
    if is_text(source):
        data = source if isinstance(source, bytes) else source.encode("utf-8", "replace")
        return data, "the XML text"
    if not isinstance(source, (str, Path)):
        raise PopcornError(
            f"A machine is read from XML text or from the path of an XML file, "
            f"not from a value of type {type(source).__name__}."
        )
    path = Path(source)
    try:
        return path.read_bytes(), path.name
    except FileNotFoundError:
        reason = "there is no such file"
    except ValueError:
        reason = "this is no path"
    except OSError as error:
        reason = "this is a folder" if path.is_dir() else error.strerror
    raise PopcornError(
        f"{str(source)[:200]!r}: {reason}, where an hwloc topology file (.xml) was expected."
    )


def _parse(data: bytes, file: str) -> _Element:
    """The root element. Entities are refused: a few lines of them can fill all memory."""
    if len(data) > FILE_BYTES_AT_MOST:
        raise PopcornError(
            f"{file} has {len(data)} bytes; a topology file of at most {FILE_BYTES_AT_MOST} "
            "bytes was expected."
        )
    parser = expat.ParserCreate()
    parser.buffer_text = True
    root: list[_Element] = []
    open_elements: list[_Element] = []

    def start(tag, attrs):
        parent = open_elements[-1] if open_elements else None
        element = _Element(tag, attrs, parser.CurrentLineNumber, parent)
        (parent.children if parent else root).append(element)
        open_elements.append(element)
        if len(open_elements) > NESTING_AT_MOST:
            raise PopcornError(
                f"{file}, line {element.line}: elements are nested more than {NESTING_AT_MOST} "
                "deep, and no topology is."
            )

    def end(tag):
        open_elements.pop()

    def text(piece):
        if open_elements and open_elements[-1].tag in LISTS:
            open_elements[-1].text += piece

    def entity(name, *_):
        raise PopcornError(
            f"{file}, line {parser.CurrentLineNumber}: the XML declares an entity ({name}), "
            "which topology files never do and this reader refuses."
        )

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.EntityDeclHandler = text, entity
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise _not_xml(file, data, error, open_elements) from None
    except (LookupError, ValueError) as error:  # an encoding Python does not know
        raise PopcornError(
            f"{file}, line 1: cannot be decoded ({error}); UTF-8 was expected."
        ) from None
    return root[0]


def _not_xml(file: str, data: bytes, error, open_elements: list[_Element]) -> PopcornError:
    reason = expat.ErrorString(error.code)
    if not data.strip():
        return PopcornError(f"{file} is empty; an hwloc topology file was expected.")
    cut_off = reason in ("no element found", "unclosed token", "unclosed CDATA section")
    if cut_off and open_elements:
        last = open_elements[-1]
        return PopcornError(
            f"{file}, line {error.lineno}, column {error.offset + 1}: the file ends inside the "
            f"<{last.tag}> of line {last.line}; it is cut off, and </topology> was expected at "
            "its end."
        )
    return PopcornError(
        f"{file}, line {error.lineno}, column {error.offset + 1}: this is not XML ({reason}); "
        "an hwloc topology file was expected."
    )


# -- elements to tables ----------------------------------------------------------------------------


class _Reader:
    """Reads one file; every complaint names the file and the line."""

    def __init__(self, file: str, root: _Element) -> None:
        self.file, self.root = file, root
        if root.tag != "topology":
            raise self.wrong(
                root, f"the outermost element is <{root.tag}>", "<topology>, as hwloc writes it"
            )
        self.schema = root.attrs.get("version", "1.x")
        if self.schema.split(".")[0] not in SCHEMAS:
            raise self.wrong(
                root, f"this is topology version {self.schema!r}", "version 1.x, 2.x or 3.x"
            )
        self.by_type: dict[str, list[_Element]] = {}
        self._collect(root)
        objects = root.all("object")
        if not objects:
            raise self.wrong(root, "there is no <object> inside", "the object of the machine")
        self.machine = objects[0]

    def _collect(self, element: _Element) -> None:
        for child in element.all("object"):
            kind = child.attrs.get("type", "")
            self.by_type.setdefault(OLD_NAMES.get(kind, kind), []).append(child)
            self._collect(child)

    def topology(self) -> Topology:
        pus = self._pus()
        online = self._set(self.machine, "online_cpuset", self._set(self.machine, "cpuset", pus))
        self.online = pus & online
        if not self.online:
            raise self.wrong(self.machine, "no PU is online", "at least one CPU")
        complete = self._set(self.machine, "complete_cpuset", pus)
        known = pus if complete < 0 else complete | pus
        allowed = self._set(self.machine, "allowed_cpuset", self.online)
        packages, nodes = self._packages(), self._nodes()
        return Topology(
            schema=self.schema,
            cpus=cpu_numbers(self.online),
            offline_cpus=cpu_numbers(known & ~self.online),
            allowed_cpus=cpu_numbers(self.online & allowed),
            packages=packages,
            dies=tuple(self._cpus(die) for die in self.of("Die") if self._cpus(die)),
            nodes=tuple(sorted(nodes, key=lambda node: node.id)),
            cores=self._cores(),
            caches=tuple(self._caches()),
            pci=tuple(self._pci()),
            cpu_kinds=tuple(self._cpu_kinds()),
            distances=self._distances(tuple(node.id for node in nodes)),
            info=self._info(self.machine) | self._info(self.root),
        )

    # what is in the objects

    def of(self, kind: str) -> list[_Element]:
        return self.by_type.get(kind, [])

    def _pus(self) -> int:
        lines: dict[int, int] = {}
        for pu in self.of("PU"):
            number = self._number(pu, "os_index", None, CPUS_AT_MOST - 1)
            if number in lines:
                raise self.wrong(
                    pu, f"PU {number} is already on line {lines[number]}", "another os_index"
                )
            lines[number] = pu.line
        if not lines:
            raise self.wrong(self.machine, "there is no PU", "at least one CPU")
        return sum(1 << number for number in lines)

    def _packages(self) -> tuple[Package, ...]:
        packages = [
            Package(
                self._number(element, "os_index", place),
                self._cpus(element),
                " ".join(self._info(element).get("CPUModel", "").split()),
            )
            for place, element in enumerate(self.of("Package"))
        ]
        packages = [package for package in packages if package.cpus]
        if not packages:
            return (Package(0, cpu_numbers(self.online), ""),)
        self._each_cpu_once("Package", packages)
        if len({package.id for package in packages}) < len(packages):  # not numbered by firmware
            packages = [replace(package, id=place) for place, package in enumerate(packages)]
        return tuple(packages)

    def _cores(self) -> tuple[Core, ...]:
        cores = [
            Core(self._number(element, "os_index", place), self._cpus(element))
            for place, element in enumerate(self.of("Core"))
        ]
        cores = [core for core in cores if core.cpus]
        if not cores:  # some virtual machines show none: each CPU is then its own core
            return tuple(Core(cpu, (cpu,)) for cpu in cpu_numbers(self.online))
        self._each_cpu_once("Core", cores)
        return tuple(cores)

    def _nodes(self) -> tuple[Node, ...]:
        nodes: dict[int, Node] = {}
        for element in self.of("NUMANode"):
            number = self._number(element, "os_index")
            if number in nodes:
                raise self.wrong(
                    element, f"NUMA node {number} appears a second time", "another os_index"
                )
            if "cpuset" not in element.attrs:
                raise self.wrong(
                    element, f"NUMA node {number} has no cpuset", 'one ("0x0" if it has no CPU)'
                )
            nodes[number] = Node(number, self._cpus(element), self._memory(element))
        if not nodes:
            return (Node(0, cpu_numbers(self.online), self._memory(self.machine)),)
        missing = set(cpu_numbers(self.online)).difference(*(n.cpus for n in nodes.values()))
        if missing:
            raise self.wrong(self.machine, f"CPU {cpu_list(missing)} is in no NUMANode", "one")
        return tuple(nodes.values())

    def _caches(self):
        for kind, elements in self.by_type.items():
            if not re.fullmatch(r"(L\d)?i?Cache", kind):
                continue
            for element in elements:
                level = self._number(element, "depth", int(kind[1]) if kind[0] == "L" else None, 9)
                sort = CACHE_KINDS.get(element.attrs.get("cache_type", "0"))
                if sort is None:
                    raise self.wrong(
                        element, f"cache_type is {element.attrs['cache_type']!r:.40}", "0, 1 or 2"
                    )
                size = self._number(element, "cache_size", 0)
                if cpus := self._cpus(element):
                    yield Cache(level, sort, size, cpus)

    def _pci(self):
        for element in self.of("PCIDev"):
            busid, kind = element.attrs.get("pci_busid", ""), element.attrs.get("pci_type", "")
            if not re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", busid):
                raise self.wrong(
                    element, f"pci_busid is {busid!r:.40}", 'an address such as "0000:04:00.0"'
                )
            ids = re.match(r"([0-9a-f]{4}) \[([0-9a-f]{4}:[0-9a-f]{4})\]", kind)
            if not ids:
                raise self.wrong(
                    element, f"pci_type is {kind!r:.40}", 'class and ids such as "0200 [8086:10c9]"'
                )
            info = self._info(element)
            name = " ".join(filter(None, (info.get("PCIVendor"), info.get("PCIDevice"))))
            near = element.parent
            while near is not None and "cpuset" not in near.attrs:
                near = near.parent
            cpus = self._cpus(near) if near else cpu_numbers(self.online)
            yield PciDevice(busid, ids[1], ids[2], name, cpus)

    def _cpu_kinds(self):
        for element in self.root.all("cpukind"):
            speed = self._number(element, "forced_efficiency", -1)
            if cpus := self._cpus(element):
                yield CpuKind(cpus, None if speed < 0 else speed, self._info(element))

    # distances

    def _distances(self, nodes: tuple[int, ...]) -> dict[tuple[int, int], int]:
        for element in self.root.all("distances2"):
            latency = self._number(element, "kind", LATENCY_KIND_BIT) & LATENCY_KIND_BIT
            if element.attrs.get("type") == "NUMANode" and latency:
                return self._matrix(element, nodes)
        for element in self.machine.all("distances"):  # 1.x: in the machine, nodes in file order
            if self._number(element, "nbobjs") == len(nodes):
                return self._old_matrix(element, nodes)
        return {}

    def _matrix(self, element: _Element, nodes: tuple[int, ...]) -> dict[tuple[int, int], int]:
        count = self._number(element, "nbobjs")
        indexes = self._numbers(element, "indexes")
        if len(indexes) != count or len(set(indexes)) != count:
            raise self.wrong(
                element,
                f"nbobjs is {count}, but {len(set(indexes))} different indexes follow",
                f"{count} of them",
            )
        if element.attrs.get("indexing", "os") == "gp":
            by_gp = {e.attrs.get("gp_index"): e for e in self.of("NUMANode")}
            found = [by_gp.get(str(index)) for index in indexes]
            indexes = [-1 if e is None else self._number(e, "os_index") for e in found]
        for index in indexes:
            if index not in nodes:
                raise self.wrong(
                    element, f"the matrix names a NUMA node {index}", f"nodes {cpu_list(nodes)}"
                )
        return self._square(element, indexes, self._numbers(element, "u64values"))

    def _old_matrix(self, element: _Element, nodes: tuple[int, ...]) -> dict[tuple[int, int], int]:
        base = self._decimal(element, "latency_base", "1")
        values = [base * self._decimal(e, "value") for e in element.all("latency")]
        return self._square(element, nodes, [int(value + 0.5) for value in values])

    def _square(self, element: _Element, nodes, values) -> dict[tuple[int, int], int]:
        side = len(nodes)
        if len(values) != side * side:
            raise self.wrong(
                element,
                f"the distance matrix of {side} NUMA nodes has {len(values)} values",
                f"{side} x {side} = {side * side}",
            )
        pairs = [(row, column) for row in nodes for column in nodes]
        return dict(zip(pairs, values, strict=True))

    # attributes

    def wrong(self, element: _Element, found: str, expected: str) -> PopcornError:
        return PopcornError(f"{self.file}, line {element.line}: {found}; expected {expected}.")

    def _number(self, element, name, default=None, at_most=ANY_NUMBER) -> int:
        value = element.attrs.get(name)
        if value is None:
            if default is not None:
                return default
            raise self.wrong(element, f"{self._what(element)} has no {name}", "a whole number")
        if not re.fullmatch(r"[0-9]{1,20}", value) or int(value) > at_most:
            raise self.wrong(
                element,
                f"{name} of {self._what(element)} is {value[:40]!r}",
                "a whole number" + (f" from 0 to {at_most}" if at_most < ANY_NUMBER else ""),
            )
        return int(value)

    def _memory(self, element: _Element) -> int:
        return self._number(element, "local_memory", 0, MEMORY_BYTES_AT_MOST)

    def _decimal(self, element: _Element, name: str, default: str = "") -> float:
        value = element.attrs.get(name, default)
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            raise self.wrong(element, f"{name} of <{element.tag}> is {value[:40]!r}", "a number")
        return float(value)

    def _numbers(self, element: _Element, tag: str) -> list[int]:
        words = " ".join(child.text for child in element.all(tag)).split()
        for word in words:
            if not re.fullmatch(r"[0-9]{1,20}", word):
                raise self.wrong(element, f"<{tag}> holds {word[:40]!r}", "whole numbers")
        return [int(word) for word in words]

    def _set(self, element: _Element, name: str, default: int) -> int:
        value = element.attrs.get(name)
        if value is None:
            return default
        try:
            return parse_cpuset(value)
        except ValueError:
            raise self.wrong(
                element,
                f"{name} of {self._what(element)} is {value[:40]!r}",
                'a cpuset such as "0x0000ffff,0xffffffff"',
            ) from None

    def _cpus(self, element: _Element) -> tuple[int, ...]:
        return cpu_numbers(self._set(element, "cpuset", 0) & self.online)

    def _info(self, element: _Element) -> dict[str, str]:
        pairs = ((e.attrs.get("name", ""), e.attrs.get("value", "")) for e in element.all("info"))
        return {name: value for name, value in pairs if value != "REDACTED"}

    def _each_cpu_once(self, kind: str, groups) -> None:
        seen: set[int] = set()
        for group in groups:
            twice = seen.intersection(group.cpus)
            if twice:
                raise self.wrong(self.of(kind)[0], f"CPU {min(twice)} is in two {kind}s", "one")
            seen.update(group.cpus)
        missing = set(cpu_numbers(self.online)) - seen
        if missing:
            raise self.wrong(self.of(kind)[0], f"CPU {cpu_list(missing)} is in no {kind}", "one")

    def _what(self, element: _Element) -> str:
        is_object = element.tag == "object"
        return is_object and element.attrs.get("type") or f"<{element.tag}>"

"""ACRN's plans: a board file describes the computer, a scenario file its virtual machines.

ACRN is a hypervisor for cars and factories that divides a machine before anything boots, as
Popcorn does, but with a hypervisor that enforces it.

    read_acrn("partitioned.xml", "whl-ipc-i5.board.xml")  # Foreign(machine, shares, remarks)

Words
    board        ACRN's description of a computer: CPUs, /proc/iomem, PCI listing
    pre-launched, service, post-launched   ACRN's kinds of VM: started by the hypervisor itself;
                 the one that owns what is left; started by that one, out of its own RAM
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.firmware import MIB, IoApic, MemoryRange, NodeMemory
from popcorn_edu.model.foreign import Foreign, Share, text_and_name, without
from popcorn_edu.model.machine import DEFAULT_MHZ, Machine
from popcorn_edu.model.pci import PciFunction
from popcorn_edu.model.topology import CPUS_AT_MOST, Cache, Core, Node, Package, Topology, clock

IOMEM_KINDS = {  # the names in /proc/iomem, and the kinds of the memory map
    "System RAM": "usable",
    "Reserved": "reserved",
    "ACPI Tables": "ACPI data",
    "ACPI Non-volatile Storage": "ACPI NVS",
    "Unusable memory": "unusable",
}


# -- reading XML -----------------------------------------------------------------------------------


def _xml(source: str | Path, what: str) -> tuple[ElementTree.Element, str]:
    """The root of an ACRN file. Entities are refused: a few lines of them can fill all memory."""
    text, file = text_and_name(source, what, "<")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise PopcornError(f"{file} declares XML entities; ACRN's files never do.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as problem:
        line, column = problem.position
        raise PopcornError(
            f"{file}, line {line}, column {column + 1}: this is not XML "
            f"({str(problem).split(':')[0]}); {what} was expected."
        ) from None
    if root.tag != "acrn-config":
        raise PopcornError(
            f"{file} is a <{root.tag}>; {what}, which is an <acrn-config>, was expected."
        )
    return root, file


def _number(text: str | None, where: str, expected: str, at_most: int = (1 << 52)) -> int:
    try:
        number = int((text or "").strip(), 0)
    except ValueError:
        number = -1
    if not 0 <= number <= at_most:
        raise PopcornError(f"{where} is {(text or '').strip()!r}; {expected} was expected.")
    return number


def _lines(root: ElementTree.Element, tag: str) -> list[str]:
    return [line for line in (root.findtext(tag) or "").splitlines() if line.strip()]


# -- ACRN's board ----------------------------------------------------------------------------------

_SLOT = r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
_IDS = re.compile(rf"({_SLOT}) ([0-9a-f]{{4}}): ([0-9a-f]{{4}}:[0-9a-f]{{4}})")
_NAMED = re.compile(rf"({_SLOT}) (.+)")
_REGION = re.compile(
    r"Region (\d): (Memory|I/O ports) at ([0-9a-f]+) .*\[size=(\d+)([KMG]?)\]", re.IGNORECASE
)
_IOMEM = re.compile(r"\s*([0-9a-f]+)-([0-9a-f]+) : (.+)")


def read_board(source: str | Path) -> Machine:
    """The computer of an ACRN board file."""
    root, file = _xml(source, "an ACRN board file")
    name = root.get("board")
    if root.find("processors") is None or not name:
        raise PopcornError(
            f"{file} has no processors; a board file was expected, and this looks like a scenario "
            "file."
        )
    package, cores, apic_ids = _processors(root, file)
    cpus = package.cpus
    ram, whole = _iomem(root, file)
    maker = (
        _says(root, "BASE_BOARD_INFO", "Manufacturer"),
        _says(root, "BASE_BOARD_INFO", "Product Name"),
    )
    topology = Topology(
        schema="ACRN board",
        cpus=cpus,
        offline_cpus=(),
        allowed_cpus=cpus,
        packages=(package,),
        dies=(),
        nodes=(Node(0, cpus, sum(r.end - r.start for r in ram if r.kind == "usable")),),
        cores=cores,
        caches=_caches(root, apic_ids),
        pci=(),
        cpu_kinds=(),
        distances={},
        info={},
    )
    mhz, mhz_source = clock(topology) or (DEFAULT_MHZ, "model default")
    return Machine(
        **vars(topology),
        name=name,
        title=" ".join([*filter(None, maker), package.model]) or name,
        mhz=mhz,
        mhz_source=mhz_source,
        memory_map=ram,
        memory_map_source=f"/proc/iomem in {file}",
        node_memory=(NodeMemory(0, ram[0].start, ram[-1].end),) if ram else (),
        apic_ids=apic_ids,
        io_apics=tuple(
            IoApic(
                _number(chip.get("id"), f"{file}: the id of an I/O APIC", "a number"),
                *(
                    _number(chip.findtext(tag), f"{file}: {tag} of an I/O APIC", "a number")
                    for tag in ("address", "gsi_base", "gsi_number")
                ),
            )
            for chip in root.iterfind("ioapics/ioapic")
        ),
        pci_functions=_functions(root, whole),
    )


def _says(root: ElementTree.Element, tag: str, key: str) -> str:
    for line in _lines(root, tag):
        if line.strip().startswith(f"{key}:"):
            return line.partition(":")[2].strip()
    return ""


def _processors(root, file: str) -> tuple[Package, tuple[Core, ...], dict[int, int]]:
    cores, apic_ids = [], {}
    for number, core in enumerate(root.iterfind("processors//core")):
        cpus = []
        for thread in core.iterfind("thread"):
            where = f"{file}: the cpu_id of a thread"
            cpu = _number(thread.findtext("cpu_id"), where, "a CPU number", CPUS_AT_MOST)
            apic_ids[cpu] = _number(
                thread.findtext("apic_id"), f"{file}: the apic_id of CPU {cpu}", "a number"
            )
            cpus.append(cpu)
        if cpus:
            cores.append(Core(number, tuple(sorted(cpus))))
    if not apic_ids:
        raise PopcornError(f"{file} names no CPU; a <thread> with a <cpu_id> was expected.")
    model = root.find("processors/model")
    brand = model.get("description", "") if model is not None else ""
    return Package(0, tuple(sorted(apic_ids)), brand), tuple(cores), apic_ids


def _caches(root, apic_ids: dict[int, int]) -> tuple[Cache, ...]:
    kinds = {"1": "data", "2": "instruction", "3": "unified"}
    cpu_of = {f"{apic:#x}": cpu for cpu, apic in apic_ids.items()}
    found = []
    for cache in root.iterfind("caches/cache"):
        users = [cpu_of.get(p.text or "") for p in cache.iterfind("processors/processor")]
        size, level = cache.findtext("cache_size") or "", cache.get("level", "")
        if size.isdigit() and level.isdigit() and None not in users:
            kind = kinds.get(cache.get("type", ""), "unified")
            found.append(Cache(int(level), kind, int(size), tuple(sorted(users))))
    return tuple(found)


def _iomem(root, file: str) -> tuple[tuple[MemoryRange, ...], list[tuple[int, int, int, str]]]:
    """The memory map, and every row of /proc/iomem: depth, start, end, name."""
    rows: list[tuple[int, int, int, str]] = []
    lines = (root.findtext("IOMEM_INFO") or "").splitlines()
    margin = min((len(s) - len(s.lstrip()) for s in lines if s.strip()), default=0)
    for line in filter(str.strip, lines):
        found = _IOMEM.fullmatch(line)
        if not found:
            raise PopcornError(
                f"{file}: the iomem line {line.strip()!r} is garbled; one such as "
                "'00100000-3fffffff : System RAM' was expected."
            )
        depth = (len(line) - len(line.lstrip()) - margin) // 2
        rows.append((depth, int(found[1], 16), int(found[2], 16) + 1, found[3].strip()))
    ranges: list[MemoryRange] = []
    for depth, start, end, name in rows:
        kind = IOMEM_KINDS.get(name)
        if depth or kind is None:
            continue
        if ranges and (ranges[-1].end, ranges[-1].kind) == (start, kind):
            start = ranges.pop().start
        ranges.append(MemoryRange(start, end, kind))
    return tuple(ranges), rows


def _functions(root, iomem: list[tuple[int, int, int, str]]) -> tuple[PciFunction, ...]:
    ids = {f[1]: (f[2], f[3]) for f in map(_IDS.search, _lines(root, "PCI_VID_PID")) if f}
    drivers: dict[str, str] = {}
    slot = ""
    for _, _, _, name in iomem:  # below a function's row stands the driver that uses it
        if re.fullmatch(rf"[0-9a-f]{{4}}:{_SLOT}", name):
            slot = name
        elif slot:
            drivers.setdefault(slot, name if re.fullmatch(r"[\w-]+", name) else "")
            slot = ""
    names: dict[str, str] = {}
    regions: dict[str, list[tuple[int, str, int, int]]] = {}
    for line in _lines(root, "PCI_DEVICE"):
        region, named = _REGION.match(line.strip()), _NAMED.match(line.strip())
        if region and slot:
            size = int(region[4]) * {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[region[5]]
            kind = "mem" if region[2] == "Memory" else "io"
            regions[slot].append((int(region[1]), kind, int(region[3], 16), size))
        elif named:
            slot = named[1]
            names[slot], regions[slot] = named[2], []
    return tuple(
        PciFunction(
            slot=f"0000:{slot}",
            vendor_device=vendor_device,
            device_class=device_class,
            name=names.get(slot, "").partition(": ")[2] or names.get(slot, ""),
            driver=drivers.get(f"0000:{slot}", ""),
            regions=tuple(regions.get(slot, ())),
        )
        for slot, (device_class, vendor_device) in ids.items()
    )


# -- ACRN's scenario -------------------------------------------------------------------------------


class _Vm(NamedTuple):
    number: str
    name: str
    order: str  # PRE_LAUNCHED_VM, SERVICE_VM, POST_LAUNCHED_VM
    cpus: tuple[int, ...]
    memory: tuple[MemoryRange, ...]
    guest_mib: int | None  # RAM without an address: out of the service VM's
    devices: tuple[tuple[str, str], ...]  # slot, and what the file calls it
    bootargs: str
    more: tuple[str, ...]  # in words, what a share cannot hold


def read_acrn(scenario: str | Path, board: str | Path | Machine) -> Foreign:
    """An ACRN scenario on its board. The service VM becomes the primary, else the owner of the
    CPU that boots; the service VM gets the CPUs, RAM and devices that nobody else has."""
    machine = board if isinstance(board, Machine) else read_board(board)
    root, file = _xml(scenario, "an ACRN scenario file")
    vms = [_vm(element, file) for element in root.iterfind("vm")]
    if not vms:
        raise PopcornError(f"{file} has no <vm>; an ACRN scenario file was expected.")
    vms.sort(key=lambda vm: (vm.order != "SERVICE_VM", machine.bsp not in vm.cpus))
    shares = tuple(_share(vm, vms, machine) for vm in vms)
    remarks = [*_acrn_remarks(root, vms, shares, machine)]
    return Foreign(machine, shares, tuple(remarks))


def _vm(element, file: str) -> _Vm:
    name = (element.findtext("name") or "").strip() or f"VM {element.get('id')}"
    where = f"{file}, VM {name}:"
    cpus = tuple(
        _number(pcpu.text, f"{where} pcpu_id", "a CPU number", CPUS_AT_MOST)
        for pcpu in element.iterfind("cpu_affinity/pcpu/pcpu_id")
    )
    memory = []
    for region in element.iterfind("memory/hpa_region"):
        start = _number(region.findtext("start_hpa"), f"{where} start_hpa", "an address")
        size = _number(region.findtext("size_hpa"), f"{where} size_hpa", "a size in MiB", 1 << 32)
        memory.append(MemoryRange(start, start + size * MIB))
    size = element.find("memory/size")
    devices = []
    for device in element.iterfind("pci_devs/pci_dev"):
        found = _NAMED.match((device.text or "").strip())
        if not found:
            raise PopcornError(
                f"{where} the device {(device.text or '').strip()[:60]!r} is garbled; one such as "
                "'03:00.0 Ethernet controller: ...' was expected."
            )
        devices.append((f"0000:{found[1]}", found[2]))
    return _Vm(
        number=element.get("id", "?"),
        name=name,
        order=(element.findtext("load_order") or "").strip(),
        cpus=tuple(sorted(cpus)),
        memory=tuple(sorted(memory)),
        guest_mib=None if size is None else _number(size.text, f"{where} size", "a size in MiB"),
        devices=tuple(devices),
        bootargs=" ".join((element.findtext("os_config/bootargs") or "").split()),
        more=tuple(_more(element)),
    )


def _more(element) -> Iterable[str]:
    """What an ACRN VM has and a kernel of ours has not."""
    if (element.findtext("vm_type") or "") == "RTVM":
        yield "is a real-time VM"
    if (element.findtext("lapic_passthrough") or "") == "y":
        yield "has its local APICs to itself"
    system = (element.findtext("os_type") or "").strip()
    if system == "Windows OS":
        yield "runs Windows, and every kernel of ours is a Linux"
    image = (element.findtext("os_config/kern_mod") or "").strip()
    if image.startswith("Zephyr"):
        yield f"boots {image}, which is no Linux"
    virtual = [device.tag for device in element.iterfind("virtio_devices/*")]
    if virtual:
        yield f"has virtual devices ({', '.join(virtual)}) that the service VM plays for it"


def _share(vm: _Vm, vms: list[_Vm], machine: Machine) -> Share:
    if vm.order != "SERVICE_VM":
        return Share(vm.name, vm.cpus, vm.memory, tuple(s for s, _ in vm.devices), vm.bootargs)
    others = [other for other in vms if other is not vm]
    taken = {cpu for other in others for cpu in other.cpus}
    owned = {slot for other in others for slot, _ in other.devices}
    return Share(
        vm.name,
        vm.cpus or tuple(cpu for cpu in machine.cpus if cpu not in taken),
        without(machine.ram, [part for other in others for part in other.memory]),
        tuple(f.slot for f in machine.pci_functions if f.slot not in owned and not _bridge(f)),
        vm.bootargs,
    )


def _bridge(function: PciFunction) -> bool:
    return function.device_class in ("0600", "0604")


def _acrn_remarks(root, vms: list[_Vm], shares, machine: Machine) -> Iterable[str]:
    for vm in vms:
        if vm.order == "SERVICE_VM" and not vm.cpus:
            yield f"{vm.name} names no CPUs: it gets those that no other VM has."
        if vm.order == "SERVICE_VM":
            yield f"{vm.name} gets the RAM and the devices that no other VM has."
        if vm.guest_mib is not None:
            yield (
                f"{vm.name} has {vm.guest_mib:,} MiB out of the service VM's RAM, at no address of "
                "its own; a kernel of ours needs ranges, so it has none yet."
            )
        elif not vm.memory and vm.order != "SERVICE_VM":
            yield f"{vm.name} has no memory in its file."
        for what in vm.more:
            yield f"{vm.name} {what}."
        if re.search(r"\b(isolcpus|nohz_full|rcu_nocbs|irqaffinity)=", vm.bootargs):
            yield (
                f"{vm.name}: the CPU numbers in its boot line count the VM's own CPUs from 0; a "
                "kernel of ours sees the machine's numbers."
            )
    yield from _shared_cpus(vms)
    yield from _names_that_differ(vms, machine)
    if not any(vm.order == "SERVICE_VM" for vm in vms):
        bsp = machine.bsp
        owner = next((s.name for s in shares if bsp in s.cpus), None)
        yield (
            "The hypervisor boots every VM itself, so none of them is a primary; "
            + (
                f"{owner} owns CPU {bsp}, which boots the machine, and is the primary here."
                if owner
                else f"none owns CPU {bsp}, which boots the machine."
            )
        )
    start = (root.findtext("hv/MEMORY/HV_RAM_START") or "").strip()
    if start:
        yield f"The hypervisor itself lives at {start.lower()}; Popcorn has no hypervisor."
    for wire in root.iterfind("hv/vuart_connections/vuart_connection"):
        ends = [(end.findtext("vm_name") or "?") for end in wire.iterfind("endpoint")]
        yield f"A virtual serial line joins {' and '.join(ends)}; Popcorn's is the vty."
    for shared in root.iterfind("hv/FEATURES/IVSHMEM/IVSHMEM_REGION"):
        ends = [name.text or "?" for name in shared.iterfind("IVSHMEM_VMS/IVSHMEM_VM/VM_NAME")]
        yield (
            f"{' and '.join(ends)} share {shared.findtext('IVSHMEM_SIZE')} MiB; in Popcorn a "
            "kernel's message window does that."
        )
    yield (
        "ACRN has no reserve at the top of the RAM and no blacklist: its hypervisor shows each VM "
        "only what it owns, where our plan relies on every kernel keeping to its command line."
    )


def _shared_cpus(vms: list[_Vm]) -> Iterable[str]:
    users: dict[int, list[str]] = {}
    for vm in vms:
        for cpu in vm.cpus:
            users.setdefault(cpu, []).append(vm.name)
    for cpu, names in sorted(users.items()):
        if len(names) > 1:
            yield (
                f"{' and '.join(names)} share CPU {cpu}, and the hypervisor switches between them; "
                "here a CPU belongs to one kernel."
            )


def _names_that_differ(vms: list[_Vm], machine: Machine) -> Iterable[str]:
    names = {function.slot: function.name for function in machine.pci_functions}
    for vm in vms:
        for slot, says in vm.devices:
            said = re.sub(r" \(rev \w+\)$", "", says.partition(": ")[2])
            known = re.sub(r" \(rev \w+\)$", "", names.get(slot, said))
            if said and known and said != known:
                yield f'{vm.name} calls {slot} "{said}"; the board has "{known}" there.'

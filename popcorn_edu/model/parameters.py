"""What the kernel reads in the value of each boot parameter, and what it makes of a bad one.

One reader for each parameter: it takes the text after the "=" (None where there is none) and
returns what the kernel goes on with, and complaints. A complaint has an effect (one word), what
Linux does, and a sentence for whoever wrote it. No reader knows the machine: whether it has a
CPU 70 is found out later, when the line is applied to one (cmdline.py).

    RULES["maxcpus"].read("3x")
    # (3, [("misread", "takes 3 and drops the rest, without a word",
    #       "'3x' is no number; maxcpus=3 was expected")])

Words
    early    read in a first pass over the whole line, before memory is set up (mem, memmap,
             maxcpus, ...); the rest (isolcpus, nohz_full, ...) is read in a second pass

What Popcorn adds was taken from its own kernel of 2013, except where the text says "model
default": the reader of ``present_mask`` was not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from popcorn_edu.engine.trace import near_names
from popcorn_edu.model import e820
from popcorn_edu.model.cpulist import (
    CLAMPED,
    IGNORED,
    MALFORMED,
    MISREAD,
    PANICS,
    PARTLY,
    REMARK,
    SILENTLY,
    TO_INIT,
    U16,
    U32,
    Complaint,
    CpuListError,
    Read,
    cpus_in,
    get_option,
    memparse,
    number,
    octal,
    parse_cpulist,
    wide,
)
from popcorn_edu.model.topology import cpu_list

LIST_BITS = 1 << 16  # what a list is read against before it is known how many CPUs there are
BLACKLIST_ENTRIES = 16  # [C] the static table of probe.c; a later version (269ea36) has 32
LAPIC_TIMER = 1_000_000  # what create_bootargs.sh writes: LAPIC ticks per jiffy

# Linux parameters that say nothing about CPUs, memory or devices. Many are left out: an unknown
# word is no error anywhere, and the list only keeps us from remarking on the common ones.
OTHER = frozenset(
    """acpi acpi_backlight acpi_osi acpi_sci apic apparmor audit boot_delay bootconfig
    cgroup_disable clocksource console consoleblank crashkernel debug debugpat
    default_hugepagesz delayacct disable_mtrr_cleanup dyndbg earlycon earlyprintk efi elevator
    fips gpt hpet hugepages hugepagesz idle ignore_loglevel init initcall_debug initrd
    intel_iommu intel_pstate iommu keep_bootcon kexec lapic log_buf_len loglevel lpj lsm
    mitigations module_blacklist movable_node nmi_watchdog no_timer_check nohz noinitrd nopat
    nosmt nospectre_v1 notsc nowatchdog nox2apic panic pci pcie_aspm pcie_ports percpu_alloc
    pnpacpi processor profile quiet rcu_nocbs rdinit reboot reserve resume retbleed ro root
    rootdelay rootflags rootfstype rootwait rw sched_verbose security skew_tick slab_nomerge
    softlockup_panic swiotlb sysrq_always_enabled threadirqs trace_buf_size tsc
    unknown_nmi_panic video x2apic_phys xen BOOT_IMAGE""".split()
)
# Words that Debian's kernel hands to init, and rightly so: init wants them, or another part of
# the kernel has looked for them by itself.
FOR_INIT = frozenset(
    """single s S 1 2 3 4 5 emergency rescue splash auto text fsck systemd ip ipv6 nfsroot
    netconsole nokaslr nomodeset nopti noxsave nospectre_v2 spectre_v2 mce vga selinux""".split()
)


class Rule(NamedTuple):
    owner: str
    early: bool
    read: Callable[[str | None], Read]
    explain: Callable[[Any], str]


def _int_reader(name: str) -> Callable[[str | None], Read]:
    def read(value: str | None) -> Read:
        if not value:
            says = f"{name} needs a number, such as {name}=4"
            return None, [(IGNORED, f"changes nothing, {SILENTLY}", says)]
        kind, count, end = get_option(value)
        if kind == 0:
            says = f"{value!r} is no number; one such as {name}=4 was expected"
            if name == "nr_cpus":
                return None, [(IGNORED, f"changes nothing, {SILENTLY}", says)]
            effect, linux, _ = (_odd_count(name, 0) or [(MISREAD, f"goes on {SILENTLY}", "")])[0]
            effect = MISREAD if effect == REMARK else effect
            return count, [(effect, f"reads it as 0 and {linux}", says)]
        complaints = octal(value)
        if abs(count) != number(value, value[0] == "-")[0]:
            linux = f"keeps the low 32 bits, {count}, {SILENTLY}"
            complaints.append((MISREAD, linux, f"{value} is too large a number of CPUs"))
        if end < len(value) or kind == 2:
            linux = f"takes {count} and drops the rest, {SILENTLY}"
            says = f"{value!r} is no number; {name}={count} was expected"
            if re.fullmatch(r"[0-9]+[-,][0-9,-]*", value):
                says = f"{value!r} is a list of CPUs; their number was expected"
            complaints.append((MISREAD, linux, says))
        return count, complaints + _odd_count(name, count)

    return read


def _odd_count(name: str, count: int) -> list[Complaint]:
    """Numbers that are read well and mean something else than they say."""
    says = f"{count} is no number of CPUs; 1 or more was expected"
    if name == "maxcpus" and count == 0:
        linux = "starts the boot CPU only and switches SMP and the IO-APIC off"
        return [(REMARK, linux, "maxcpus=0 is the same as nosmp; maxcpus=1 was expected")]
    if name == "maxcpus" and count < 0:
        return [(MISREAD, f"takes it for {count & U32} and so starts every CPU", says)]
    if name == "nr_cpus" and count <= 0:
        return [(IGNORED, f"changes nothing, {SILENTLY}", says)]
    if name == "possible_cpus" and count <= 0 and count != -1:
        return [(PANICS, "goes on with no possible CPU at all, and crashes", says)]
    return []


def _read_flag(value: str | None) -> Read:
    if value is None:
        return True, []
    linux = f"never looks at {value!r}"
    return True, [(PARTLY, linux, "the parameter is on wherever it is named; it takes no value")]


def _read_list(value: str, linux: str, effect: str = IGNORED) -> list[Complaint]:
    """What is wrong with a list of CPUs, whatever the machine."""
    try:
        parse_cpulist(value, LIST_BITS)
    except CpuListError as error:
        says = str(error)
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", value):
            mask = int(value[-LIST_BITS // 4 :].lower().replace("x", "0"), 16)
            cpus = cpu_list(cpus_in(mask)) or "none"
            says = f"it is a list of CPUs, not a bit mask: for mask {value} write {cpus}"
        return [(effect, linux, says)]
    return []


ISOLATION_FLAGS = ("nohz", "domain", "managed_irq")
NO_LIST = "spares no CPU, changes nothing and hands the word to init"
BAD_LIST = "reports an incorrect CPU range, changes nothing and hands the word to init"


def _read_isolcpus(value: str | None) -> Read:
    """(flags, list); what the list comes to depends on the machine.

    A flag at the end of the word, without its comma, makes Linux step over the end: it reads on
    in the rest of the line. The list is None then.
    """
    if value is None:
        says = "isolcpus needs a list, such as isolcpus=2-5"
        return None, [(TO_INIT, "hands it to init as an argument", says)]
    flags: list[str] = []
    complaints: list[Complaint] = []
    rest = value
    while rest[:1].isascii() and rest[:1].isalpha():
        flag, comma, rest = rest.partition(",")
        if comma and flag in ISOLATION_FLAGS:
            flags.append(flag)
        elif re.fullmatch("[A-Za-z_]+", flag):
            complaints.append(_odd_flag(flag, bool(comma)))
        else:
            says = f"{flag!r} is neither a flag nor a list of CPUs"
            return None, [(TO_INIT, "reports an invalid flag and hands the word to init", says)]
    if not rest:
        says = complaints[-1][2] if complaints else "isolcpus needs a list, such as isolcpus=2-5"
        complaints = [*complaints[:-1], (TO_INIT, NO_LIST, says)]
    astray = not rest and value[-1:].isalpha()
    listed = None if astray else rest
    return (tuple(flags), listed), complaints + _read_list(rest, BAD_LIST)


def _odd_flag(flag: str, followed: bool) -> Complaint:
    says = f"{flag!r} is no flag of isolcpus; {near_names(flag, ISOLATION_FLAGS)}"
    if flag.lower() in ("all", "n"):
        says = f"{flag!r} is taken for a flag here; 0-N was expected"
    elif not followed and flag in ISOLATION_FLAGS:
        says = f"{flag!r} is a flag; a comma and a list of CPUs were expected after it"
    return PARTLY, f"skips {flag!r} and says so in its log", says


def _read_nohz_full(value: str | None) -> Read:
    says = "nohz_full needs a list, such as nohz_full=2-5"
    if value is None:
        return None, [(TO_INIT, "hands it to init as an argument", says)]
    if not value:
        return value, [(TO_INIT, NO_LIST, says)]
    return value, _read_list(value, BAD_LIST)


def _read_irqaffinity(value: str | None) -> Read:
    says = "irqaffinity needs a list, such as irqaffinity=0-3"
    if value is None:
        return None, [(TO_INIT, "hands it to init as an argument", says)]
    if not value:
        return value, [(MISREAD, f"sends interrupts to the boot CPU only, {SILENTLY}", says)]
    return value, _read_list(value, AFFINITY, MISREAD)


AFFINITY = f"keeps what it read before, adds the boot CPU, and goes on {SILENTLY}"


def _read_numa(value: str | None) -> Read:
    if value is None:
        return None, [(IGNORED, MALFORMED, "numa needs a value: off, noacpi or fake=...")]
    for known in ("off", "fake=", "noacpi", "nohmat"):
        if value.startswith(known):
            if known != "fake=" and value != known:
                linux = f"looks at the first {len(known)} letters only"
                return known, [(PARTLY, linux, f"numa={value} is read as numa={known}")]
            if known == "fake=":
                linux = f"{MALFORMED}, unless it was built with CONFIG_NUMA_EMU (Debian's was not)"
                return value, [(IGNORED, linux, "made-up nodes need a kernel built for that")]
            return value, []
    says = f"numa knows no {value!r}; off, noacpi or fake=... was expected"
    return None, [(IGNORED, f"ignores it, {SILENTLY}", says)]


def _read_present_mask(value: str | None) -> Read:
    linux = "reports a malformed early option and takes all CPUs (model default)"
    if not value:
        return None, [(IGNORED, linux, "present_mask needs a list of CPUs, such as 3 or 0-11")]
    complaints = _read_list(value, linux)
    return (None if complaints else value), complaints


def _read_address(value: str | None) -> Read:
    linux = "reads 0, and the virtual terminals are not set up (model default)"
    if not value:
        return None, [(IGNORED, linux, "vty_offset needs an address, such as 0x1ffc000000")]
    address, end = memparse(value)
    complaints = octal(value) + wide(value)
    if value.strip("0") in ("", "x"):
        return 0, [(REMARK, "sets no virtual terminals up", "0 means no virtual terminals")]
    if re.fullmatch(r"[0-9a-fA-F]*[a-fA-F][0-9a-fA-F]*", value):
        linux = f"stops at the first letter and reads {address:#x}, {SILENTLY}"
        return address, [(MISREAD, linux, f"{value} lacks its 0x; 0x{value} was expected")]
    if end < len(value):
        linux = f"takes {address:#x} and drops {value[end:]!r}, {SILENTLY}"
        complaints.append((MISREAD, linux, f"{value!r} is no address; 0x... was expected"))
    return address, complaints


def _read_blacklist(value: str | None) -> Read:
    """The ids, "8086:10c9", that fit in Popcorn's table.

    Popcorn takes the text apart at ":" and only in third place at ",": an entry without its flags
    swallows the next one.
    """
    if not value:
        says = f"pci_dev_flags needs entries, such as {ENTRY}"
        return None, [(IGNORED, f"hides no device, {SILENTLY}", says)]
    ids: list[str] = []
    complaints: list[Complaint] = []
    rest = value
    while rest:
        vendor, _, tail = rest.partition(":")
        device, colon, tail = tail.partition(":")
        if not vendor:
            says = f"an entry without a vendor, {rest!r}; {ENTRY} was expected"
            complaints.append((PARTLY, f"stops there, {SILENTLY}", says))
            break
        if not colon:
            says = f"{rest!r} is no entry; {rest + ':b' if device else ENTRY} was expected"
            complaints.append((PARTLY, "reports a bad entry and reads no further", says))
            break
        flags, _, rest = tail.partition(",")
        wrong = [*_odd_id(vendor), *_odd_id(device)]
        if ":" in flags or "," in device:
            linux = f"takes {vendor}:{device} for one entry, {SILENTLY}"
            says = f"{vendor}:{device}:{flags} is no entry; {ENTRY} was expected"
            wrong = [(MISREAD, linux, says)]
        complaints += wrong
        ids.append(f"{number(vendor)[0] & U16:04x}:{number(device)[0] & U16:04x}")
    if re.search(r"\b[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]\b", value):
        says = f"it goes by vendor and device, not by slot; one such as {ENTRY} was expected"
        complaints = [(MISREAD, f"takes the numbers for ids, {SILENTLY}", says)]
    if len(ids) > BLACKLIST_ENTRIES:
        linux = f"keeps the first {BLACKLIST_ENTRIES}, {SILENTLY}"
        lost = ", ".join(ids[BLACKLIST_ENTRIES:])
        says = f"{len(ids)} entries; {BLACKLIST_ENTRIES} at most were expected: {lost} can be seen"
        complaints.append((CLAMPED, linux, says))
    return tuple(ids[:BLACKLIST_ENTRIES]) or None, complaints


ENTRY = "0x8086:0x10c9:b"


def _odd_id(text: str) -> list[Complaint]:
    value, end = number(text)
    reads = f"{value & U16:04x}, {SILENTLY}"
    if re.fullmatch(r"[0-9a-fA-F]{4}", text) and int(text, 16) != value:
        says = f"{text} is not read as hexadecimal; 0x{text} was expected"
        return [(MISREAD, f"reads {reads}", says)]
    if end < len(text) or end == 0:
        return [(MISREAD, f"reads {reads}", f"{text!r} is no id; one such as 0x8086 was expected")]
    if value > U16:
        linux = f"keeps the low 16 bits, {reads}"
        return [(MISREAD, linux, f"{text} is too large for an id of 16 bits")]
    return []


def _read_timer(value: str | None) -> Read:
    ticks, end = number(value or "")
    if ticks == 0 or end < len(value or ""):
        linux = "has no timer of its own to calibrate by, so its clock is wrong (model default)"
        says = f"lapic_timer needs ticks per jiffy, such as {LAPIC_TIMER}"
        return ticks or None, [(MISREAD, linux, says)]
    return ticks, []


def _cpus_word(count: int) -> str:
    return "1 CPU" if count == 1 else f"{count} CPUs"


RULES: dict[str, Rule] = {
    "mem": Rule(
        "Linux", True, e820.read_mem, lambda size: e820.explain_memmap((("cut_above", size),))
    ),
    "memmap": Rule("Linux", True, e820.read_memmap, e820.explain_memmap),
    "maxcpus": Rule(
        "Linux",
        True,
        _int_reader("maxcpus"),
        lambda count: (
            f"{_cpus_word(count)} started; more can be started later"
            if count > 0
            else "the boot CPU only"
            if count == 0
            else "every CPU started"
        ),
    ),
    "nr_cpus": Rule(
        "Linux",
        True,
        _int_reader("nr_cpus"),
        lambda count: (
            f"room for {_cpus_word(count)}; the others are unknown to this kernel"
            if count > 0
            else "no effect"
        ),
    ),
    "possible_cpus": Rule(
        "Linux",
        True,
        _int_reader("possible_cpus"),
        lambda count: f"{_cpus_word(count)} possible, now or plugged in later",
    ),
    "nosmp": Rule("Linux", True, _read_flag, lambda _: "the boot CPU only, and no IO-APIC"),
    "noapic": Rule("Linux", True, _read_flag, lambda _: "the IO-APICs are left alone"),
    "nolapic": Rule("Linux", True, _read_flag, lambda _: "no local APIC, so the boot CPU only"),
    "isolcpus": Rule(
        "Linux",
        False,
        _read_isolcpus,
        lambda got: (
            f"CPUs {got[1] or 'none'} are kept free of {' and '.join(got[0]) or 'domain'} work"
        ),
    ),
    "nohz_full": Rule(
        "Linux", False, _read_nohz_full, lambda cpus: f"no timer tick on CPUs {cpus or 'none'}"
    ),
    "irqaffinity": Rule(
        "Linux",
        False,
        _read_irqaffinity,
        lambda cpus: f"interrupts go to CPUs {cpus or 'none'} and the boot CPU unless told else",
    ),
    "numa": Rule(
        "Linux",
        True,
        _read_numa,
        lambda how: {
            "off": "all memory is one node",
            "noacpi": "the SRAT is not read",
            "nohmat": "the HMAT is not read",
        }.get(how, f"{how.removeprefix('fake=')} made-up nodes, in a kernel built for that"),
    ),
    "mklinux": Rule(
        "Popcorn",
        True,
        _read_flag,
        lambda _: "a secondary kernel: it joins the messaging layer that the primary made",
    ),
    "present_mask": Rule(
        "Popcorn",
        True,
        _read_present_mask,
        lambda cpus: f"CPUs {cpus} are present (a list, despite the name); the others stay known",
    ),
    "vty_offset": Rule(
        "Popcorn",
        True,
        _read_address,
        lambda address: (
            f"the shared virtual terminals start at {address:#x}"
            if address
            else "no virtual terminals"
        ),
    ),
    "pci_dev_flags": Rule(
        "Popcorn",
        True,
        _read_blacklist,
        lambda ids: f"every device with the id {', '.join(ids)} is left alone",
    ),
    "lapic_timer": Rule(
        "Popcorn",
        True,
        _read_timer,
        lambda ticks: f"the timer makes {ticks:,} ticks per jiffy; it is not calibrated",
    ),
    "no_ipi_broadcast": Rule(
        "Popcorn",
        False,
        _read_flag,
        lambda _: "no interrupt to all CPUs at once: it would hit those of other kernels",
    ),
    "acpi_irq_nobalance": Rule(
        "Popcorn", False, _read_flag, lambda _: "interrupts in use are not moved by ACPI"
    ),
    "offsetcpus": Rule(
        "Popcorn",
        True,
        _int_reader("offsetcpus"),
        lambda count: f"this kernel counts its CPUs from {count}",
    ),
}

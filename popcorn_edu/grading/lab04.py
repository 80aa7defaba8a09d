"""Lab 04, Who owns the device?: what is asked, and how an answer is judged.

What a kernel claims is never written down here: each list that a student hands in is read and
scanned with, as a kernel would, on the machine's own listing; each division is tried with the best
lists there are; each placement is priced with the machine's own distances. The parts: owners.py
(f2, i4, f5: a student's own rules in many cases), device_choices.py (a3, e6, s7); here are the
scenes, the lists of a1, and the list of all tasks.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.grading.answers import OPEN, OneOf
from popcorn_edu.grading.device_choices import (
    HERE,
    IMAGES,
    PHI,
    PLACED,
    PORT_A,
    PORT_B,
    REASONS,
    SAS,
    SATA,
    VGA,
    can_be_had,
    cheaper_than,
    gives_a_reason,
    half_way,
    has_its_image,
    is_best,
    lists_can_say_it,
    nearly_best,
    places,
    roles_table,
    wishes_table,
)
from popcorn_edu.grading.guesses import before_and_after
from popcorn_edu.grading.owners import (
    FORMS,
    KINDS,
    Hides,
    Owners,
    Scans,
    as_data,
    faults_found,
    hides_right,
    listing,
    scans_right,
)
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Check, Miss, Task, Variant, Wrong
from popcorn_edu.model import devices
from popcorn_edu.model.devices import BusUnreached, DeviceClaimed, IoAsked, IoDone
from popcorn_edu.model.messaging import IpiSent
from popcorn_edu.model.ownership import Verdict

TITLE = "Who owns the device?"


# -- the variant -----------------------------------------------------------------------------------

SHARES = (((SAS,), "the SAS disks"), ((SATA,), "the SATA disks"), ((PORT_A, PORT_B), "the network"))


class Plan(NamedTuple):
    """Who is to own what: kernels 1 and 2 a part each, the primary all the rest."""

    owned: tuple[frozenset[str], ...]
    words: tuple[str, ...]


@cache
def plan(variant: Variant) -> Plan:
    one, two = variant.rng("plan").sample(SHARES, 2)
    everything = {f.slot for f in devices.ownable(listing(HERE))}
    rest = everything - {*one[0], *two[0]}
    return Plan(
        (frozenset(rest), frozenset(one[0]), frozenset(two[0])), ("all the rest", one[1], two[1])
    )


def note(variant: Variant) -> str:
    _, one, two = plan(variant).words
    return f"kernel 1 gets {one}, kernel 2 {two}, kernel 0 the rest"


# -- scenes ----------------------------------------------------------------------------------------


def scan(variant: Variant):
    """Popcorn's default: the primary's list is empty, the secondary's names everything."""
    return scenarios.device_scan(machine=HERE)


def scan_of_the_phi(variant: Variant):
    """The same on a machine with more ids than places in the table."""
    return scenarios.device_scan(machine="e5-2680-16")


def proxied(variant: Variant):
    """A block for kernel 2 through kernel 0's driver, after one for kernel 0 itself."""
    return scenarios.proxied_io(machine=HERE, blocks=1)


def table_of(name: str):
    """A machine's devices, as a table."""

    def scene(variant: Variant) -> Table:
        functions = devices.ownable(listing(name))
        rows = [
            [f.slot, f.vendor_device, f.kind, f.name[:44], "" if f.irq is None else f.irq]
            for f in functions
        ]
        ids = len({f.vendor_device for f in functions})
        return Table(
            f"{name}: what needs an owner",
            ["slot", "id", "what", "name", "IRQ"],
            rows,
            f"{len(rows)} functions with {ids} different ids; "
            f"{len(listing(name)) - len(rows)} host and PCI bridges are left out.",
        )

    return scene


# -- a1: a list for each kernel --------------------------------------------------------------------

WRONG_AT_MOST = 5  # functions on the wrong side, at which a list earns nothing; an empty one never


def list_for(kernel: int):
    """Read with all quirks, and scanned with: does it leave this kernel what it is to own?"""

    def holds(answer, variant):
        text = answer[f"kernel {kernel}"]
        if text is None:
            return OPEN
        owned, functions = plan(variant).owned[kernel], listing(HERE)
        wrong = set(devices.claims(functions, text)) ^ owned
        read = devices.read_flags(text)
        if not wrong and not read.refused and not read.ignored:
            return None
        said = slips(functions, owned, read)
        if wrong and not read.refused:
            said = misspelled(text) + said
        at_most = min(WRONG_AT_MOST, len(set(devices.claims(functions, "")) ^ owned))
        return Miss(said, share=max(0, 1 - max(len(wrong), 1) / at_most))

    return holds


def misspelled(text: str) -> str:
    """The first entry that has not the three parts of one."""
    for entry in text.split(",") if text.strip() else ():
        if entry.count(":") != 2 or "=" in entry or entry != entry.strip():
            return f"{entry!r:.40} is not written like 0x8086:0x10c9:b, with no blank. "
    return ""


def slips(functions, owned, read) -> str:
    """The first two things wrong with a list, in the model's own words."""
    plan = dict.fromkeys(owned, 0) | {
        f.slot: 1 for f in devices.ownable(functions) if f.slot not in owned
    }
    said = devices.problems(functions, plan, blacklists={0: read})
    mine = [s.removeprefix("kernel 0: ") for s in said if s.startswith("kernel 0: ")]
    return " ".join(f"{s[0].upper()}{s[1:]}." for s in mine[:2]) + (
        f" (And {len(mine) - 2} more.)" if len(mine) > 2 else ""
    )


# -- pre, post: before and after -------------------------------------------------------------------

# After the lab: which misconception each choice is; the sound one has none.
AFTER = {
    "empty": {"a": "M1", "b": "", "c": "M2"},
    "twins": {"a": "M9", "b": "M11", "c": ""},
    "unlisted": {"a": "M2", "b": "M1", "c": ""},
    "enforced": {"a": "M9", "b": "", "c": "M1"},
}
QUESTIONS = tuple(AFTER)
PRE, POST = before_and_after(
    AFTER,
    "p1 and a1 for what a list says, a3 for the twins, p2 and the fork for what is on no list, and "
    "f2 for who looks at the list at all.",
    again="hint 2 says where this was settled",
)


# -- the gates -------------------------------------------------------------------------------------


def where_the_vga_stays(run) -> int:
    """The record in which kernel 1 passes the VGA controller by."""
    return next(r.seq for r in run.trace.records(BusUnreached, kernel=1) if VGA in str(r.event))


def what_becomes_of_the_vga(run, seq: int) -> str:
    verdict = run.world.devices.verdict[1, VGA]
    return {Verdict.CLAIMED: "a", Verdict.SKIPPED: "b", Verdict.UNREACHED: "c"}[verdict]


def the_phi_is_claimed(run) -> int:
    return run.trace.next(DeviceClaimed, kernel=1, slot=PHI).seq


def who_drives_the_phi(run, seq: int) -> str:
    return {(0,): "a", (): "b", (0, 1): "c"}[run.world.devices.claimed_by[PHI]]


def the_block_is_there(run) -> int:
    return run.trace.next(IoDone, kernel=2).seq


def interrupts_of_a_proxied_block(run, seq: int) -> int:
    """IPIs between the question and the block; the device's own interrupt is none."""
    asked = run.trace.next(IoAsked, kernel=2).seq
    return sum(asked < record.seq < seq for record in run.trace.records(IpiSent))


PREDICTS = (
    Predict(
        "p1",
        f"What becomes of the VGA controller {VGA} in kernel 1's scan?",
        "scan",
        at=where_the_vga_stays,
        truth=what_becomes_of_the_vga,
        options={
            "a": "kernel 1 finds it and drives it",
            "b": "kernel 1 finds it, and an entry of the list matches",
            "c": "kernel 1 never comes to it",
        },
        why="The bridge is function 4 of device 00:14. Function 0 of that device, the SMBus, is on "
        "the list, so the kernel takes the whole device for absent, and with it the bridge.",
    ),
    Predict(
        "p2",
        f"The list names all 62 ids of this machine. Who drives the Xeon Phi, {PHI}?",
        "scan of e5-2680-16",
        at=the_phi_is_claimed,
        truth=who_drives_the_phi,
        options={
            "a": "kernel 0 alone, as planned",
            "b": "nobody: a list that is too long is refused as a whole",
            "c": "kernel 0 and kernel 1",
        },
        why="The table has 16 places. The Phi's id comes later in the list, so it is dropped, and "
        "the function that drops it sets the error back to 0. Two drivers program one card now, "
        "and nothing says so.",
    ),
    Predict(
        "p3",
        "Kernel 2 reads a block through kernel 0's driver. How many IPIs does that take?",
        "proxied",
        at=the_block_is_there,
        truth=interrupts_of_a_proxied_block,
        why="One with the question, one with the answer: both kernels were asleep. The disk's own "
        "interrupt goes to kernel 0's CPU and is no IPI; and the block itself is in no message, "
        "since the disk writes it into memory that both kernels can reach.",
    ),
)

SCENES = {
    "scan": scan,
    "scan of e5-2680-16": scan_of_the_phi,
    "proxied": proxied,
    "functions": lambda variant: as_data(HERE),
    HERE: table_of(HERE),
    "laptop": table_of("laptop"),
    "e5-2680-16": table_of("e5-2680-16"),
    "wishes": wishes_table,
    "places": places,
    "roles": roles_table,
}


# -- the tasks -------------------------------------------------------------------------------------

TASKS = (
    PRE,
    Task(
        "a1",
        "A list for each kernel",
        {f"kernel {k}": str for k in range(3)},
        tuple(Check(f"kernel {k}", 1, list_for(k)) for k in range(3)),
        hints=(
            "A list says what a kernel must *not* see. Which devices are the others'?",
            "Kernels 1 and 2 must not see nearly everything; kernel 0 must not see only what "
            "kernels 1 and 2 own. Bridges (classes 0600 and 0604) stay off all lists.",
            "Each id is written as `0x8086:0x10c9:b`, with commas between and no blanks. In "
            'Python: `",".join(f"0x{v}:0x{d}:b" for v, d in ...)` over the ids without repeats.',
        ),
    ),
    Task(
        "f2",
        "Claims of your own",
        callable,
        (
            Check("skips what is listed, and bridges", 1, scans_right("public", "listed")),
            Check("reads sixteen entries", 1, scans_right("public", "sixteen")),
            Check("what stands behind a skipped one", 1, scans_right("public", "before")),
            Check("machines not seen before", 1, scans_right("fresh", *KINDS), hidden=True),
        ),
        ask=Scans,
        hints=(
            "Go through the functions one by one, as the kernel does, and keep a set of the slots "
            "that are *gone*: skipped, not looked at, or not reached.",
            "A function is gone if its id is in the table, or function 0 of its device is gone, "
            "or the bridge it is behind is gone. What is not gone and no bridge is claimed.",
            "`ids[:16]` is the table. Function 0 of the same device has the slot "
            '`f["slot"][:-1] + "0"`. The bridge is `f["behind"]`, an empty text if there is none.',
        ),
    ),
    Task(
        "a3",
        "Can it be divided like this?",
        dict.fromkeys("abcde", OneOf(*REASONS)),
        tuple(Check(letter, 0.4, can_be_had(letter)) for letter in "abcde"),
        hints=(
            "For each wish, think of both lists: kernel 1's, which must hide all but this, and "
            "kernel 0's, which must hide just this.",
            "Three questions. Has another function the same id? Is a function 0 that must be "
            "hidden in front of it, or in front of its bridge? Does the list fit 16 places?",
            "Try it: `pk.devices.blacklist_for(functions, [slot]).cannot` says why not, where "
            '`functions` is `pk.Machine.load("h8qg6-64").pci_functions`.',
        ),
        wrong=(
            Wrong("all can be had", lambda v: dict.fromkeys("abcde", "yes"), 0.4, "M11"),
            Wrong("by id alone", lambda v: dict.fromkeys("abcde", "same id"), 0.4),
            Wrong("no reason", lambda v: dict.fromkeys("abcde", "no"), 0),
        ),
    ),
    Task(
        "i4",
        "Exactly one owner",
        callable,
        (
            Check("faults found minus false alarms", 1.5, faults_found("public", exactly=False)),
            Check("the right device", 1, faults_found("public", exactly=True)),
            Check("fresh machines", 0.5, faults_found("fresh", exactly=True), hidden=True),
        ),
        ask=Owners,
        hints=(
            "Which functions are exempt? For all others, count the kernels that claim them.",
            "Two faults may cancel each other in a total: one device with two owners and one "
            "with none make as many claims as there are devices. So count for each device.",
            "`sum(slot in slots for slots in claimed.values())` is the number of owners of a "
            "slot. Return the slot of the first function, in the order given, where it is not 1.",
        ),
    ),
    Task(
        "f5",
        "Lists that name slots",
        callable,
        (
            Check("ids, as before", 0.5, hides_right("public", "ids")),
            Check("one slot", 0.5, hides_right("public", "slots")),
            Check("a slot without its domain", 0.75, hides_right("public", "short")),
            Check("a whole device", 0.75, hides_right("public", "devices")),
            Check("machines not seen before", 0.5, hides_right("fresh", *FORMS), hidden=True),
        ),
        ask=Hides,
        hints=(
            "Two cases: with an @ in front and without. Without, compare with the id, and be done.",
            "A place with its domain has two colons, a place without has one. Put `0000:` in front "
            "of the latter and you have one case less.",
            "Now compare with the whole slot, and with the slot without its function: "
            '`slot.rpartition(".")[0]`. Equal, not "ends with": so does 10000:02:00.0 with '
            "0000:02:00.0.",
        ),
    ),
    Task(
        "e6",
        "The best place for each device",
        dict.fromkeys(PLACED, int),
        (
            Check("lists can say it", 0.5, lists_can_say_it),
            Check("half of what can be saved", 1, cheaper_than(half_way)),
            Check("within 1 % of the best", 1, cheaper_than(nearly_best)),
            Check("the best", 0.5, is_best),
        ),
        hints=(
            "Start with each device at its keenest user, then look at the neighbours.",
            "The two ports have one id, so they have one owner: add up their rows first.",
            "Four kernels, three decisions: `for k in range(4): print(k, made.extra_ns(slot, k))` "
            "for each disk, and the sum of both ports.",
        ),
        wrong=(
            Wrong("all with the primary", lambda v: dict.fromkeys(PLACED, 0), 0.5),
            Wrong("no such kernel", lambda v: dict.fromkeys(PLACED, 4), 0),
            Wrong("one of four", lambda v: {SAS: 1}, 0),
        ),
    ),
    Task(
        "s7",
        "Full or light",
        dict.fromkeys(("one", "two", "three"), OneOf(*IMAGES)) | {"because": str},
        (
            *(Check(f"role {n}", 0.5, has_its_image(n)) for n in ("one", "two", "three")),
            Check("a reason in a sentence", 0.5, gives_a_reason),
        ),
        hints=(
            "How many requests a second, and how long do the two messages of each take (the cell "
            "below p3 measured it)? That is the part of its time such a kernel spends on messages.",
            "Little: a light image and a proxy. Much: the kernel should own the device, if it can.",
            "Two kernels cannot both own one device, and they cannot take turns. If both need it "
            "that much, they are better one kernel.",
        ),
        wrong=(
            Wrong("all light", lambda v: dict.fromkeys(("one", "two", "three"), "light"), 0.5),
            Wrong("all full", lambda v: dict.fromkeys(("one", "two", "three"), "full"), 0.5, "M11"),
            Wrong("a reason in two words", lambda v: {"because": "less latency"}, 0),
        ),
    ),
    POST,
)

"""Lab 03, Memory partitioning: what is asked, and how an answer is judged.

What is right comes out of popcorn_edu.model.memory, for the real machine of the variant: its
firmware's map, carved as Popcorn's tool carves it. The numbers are judged in shares.py (a1, a3,
a5), a student's own functions on other maps and machines in divisions.py (f2), map_hunt.py (i4)
and placements.py (f6). Here are the scenes, the gates and the list of all tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from popcorn_edu.grading.answers import OPEN, OneOf
from popcorn_edu.grading.divisions import (
    Case,
    Cuts,
    crosses_a_hole,
    exactly,
    holds_in,
    mib,
    one_behind_the_other,
    shares_are_alike,
    too_little,
)
from popcorn_edu.grading.guesses import before_and_after
from popcorn_edu.grading.map_hunt import MapHunt, catches
from popcorn_edu.grading.placements import (
    Placements,
    all_of_it,
    first_placed,
    is_fair,
    is_near,
    is_sound,
)
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.shares import (
    A1,
    after,
    carved,
    counted,
    hole,
    is_lost,
    left_over_at_most,
    my_moved_plan,
    my_plan,
    numbers,
    ram_of,
    with_granules,
)
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Check, Miss, Task, Variant
from popcorn_edu.model import dividing, memory
from popcorn_edu.model.dividing import ByteWritten, HoleMet, RegionGiven
from popcorn_edu.model.firmware import MIB

TITLE = "Memory partitioning"

BOX, DEMO, DEMO_KERNELS = "h8qg6-64", "dl165g7-16", 8
GRANULES_MIB = (2, 128, 512)
STRAY_OFFSET = 640 * MIB  # into the other's region: behind its image and its ramdisk
REASON_WORDS, REASON_CHARACTERS = 6, 30


def note(variant: Variant) -> str:
    mine = numbers(variant)
    return f"{mine.kernels} kernels on {mine.machine}"


# -- the scenes -----------------------------------------------------------------------------------


def ram_table(title: str, plan: memory.MemoryPlan, note: str) -> Table:
    ranges = [(start, end) for start, end, _ in plan.machine.ram]
    return Table(
        title,
        ["RAM from", "up to", "in MiB", "up to, in MiB"],
        [[f"{s:#x}", f"{e:#x}", f"{s / MIB:,.9g}", f"{e / MIB:,.9g}"] for s, e in ranges],
        note,
    )


def the_map(variant: Variant) -> Table:
    """The variant's machine as its firmware describes it."""
    plan, mine = my_plan(variant), numbers(variant)
    reserve = mib(plan.reserved.end - plan.reserved.start)
    return ram_table(
        f"{mine.machine}: RAM, as its firmware lists it",
        plan,
        f"{mine.kernels} kernels; granules of 128 MiB; a reserve of {reserve} at the top.",
    )


def the_moved_map(variant: Variant) -> Table:
    mine = numbers(variant)
    begins, _ = hole(my_plan(variant))
    return ram_table(
        f"{mine.machine} after a firmware update",
        my_moved_plan(variant),
        f"The hole begins at {mine.moved_to_mib:,} MiB, no longer at {mib(begins)}; what was there "
        f"is RAM at the top now. Still {mine.kernels} kernels, granules of 128 MiB, and the same "
        "size of reserve.",
    )


def demo_plan(variant: Variant) -> memory.MemoryPlan:
    return carved(DEMO, DEMO_KERNELS)


def stray(variant: Variant):
    """In the demo, kernel 3 writes into kernel 5's RAM."""
    plan = demo_plan(variant)
    return dividing.stray_write(plan, 3, plan.regions[5][0].start + STRAY_OFFSET)


def stray_address(variant: Variant) -> int:
    return my_plan(variant).regions[numbers(variant).victim][0].start + STRAY_OFFSET


def my_stray(variant: Variant):
    return dividing.stray_write(my_plan(variant), numbers(variant).writer, stray_address(variant))


def the_stray(variant: Variant) -> Table:
    mine = numbers(variant)
    return Table(
        "A stray write",
        ["who", "writes to", "which is"],
        [
            [
                f"kernel {mine.writer}",
                f"{stray_address(variant):#x}",
                f"in kernel {mine.victim}'s region",
            ]
        ],
    )


SCENES = {
    "map": the_map,
    "ram": lambda variant: ram_of(my_plan(variant)),
    "box": lambda variant: carved(BOX, 64),
    "demo": demo_plan,
    "division": lambda variant: dividing.told(demo_plan(variant)),
    "stray": stray,
    "moved map": the_moved_map,
    "moved ram": lambda variant: ram_of(my_moved_plan(variant)),
    "stray write": the_stray,
}


# -- s7: a stray write -----------------------------------------------------------------------------

STRAY_WORDS = {"a": "fault here", "b": "fault below", "c": "written", "d": "ignored"}


class System(NamedTuple):
    """Who translates and checks an address on its way to memory."""

    own_tables_allow: bool  # the kernel writes them itself
    second_tables: bool  # a hypervisor's, which the kernel cannot write


def what_happens(system: System, is_mapped_below: bool) -> str:
    if not system.own_tables_allow:
        return "fault here"
    if system.second_tables and not is_mapped_below:
        return "fault below"
    return "written"


def happens_here(answer, variant):
    given = answer["here"]
    if given is None:
        return OPEN
    run = my_stray(variant)
    written = run.trace.next(ByteWritten).event
    arrived = run.world.memory.bytes.get((written.address,)) == written.value
    if STRAY_WORDS[given] != ("written" if arrived else "ignored"):
        tag = "M1" if STRAY_WORDS[given] == "fault below" else "M9"
        return Miss("Step through the scene of p2 once more: who looks at the address?", tag)


def happens_in_a_vm(answer, variant):
    given = answer["vm"]
    if given is None:
        return OPEN
    if STRAY_WORDS[given] != what_happens(System(True, True), is_mapped_below=False):
        if STRAY_WORDS[given] == "fault here":
            return "A guest kernel writes its own page tables, too. Whose tables can it not write?"
        return Miss("That is the difference: a hypervisor runs below a virtual machine.", "M1")


def gives_a_reason(answer, variant):
    reason = answer["because"] or ""
    if not reason:
        return OPEN
    if len(reason.split()) < REASON_WORDS or len(reason) < REASON_CHARACTERS:
        return "Say in a whole sentence who looks at the address, and who does not."


# -- pre, post: before and after ------------------------------------------------------------------

# After the lab: which misconception each choice is; the sound one has none. A hole is no
# misconception of the catalogue, so it has a tag of its own.
AFTER = {
    "enforced": {"a": "", "b": "M9", "c": "M9"},
    "below": {"a": "M1", "b": "M1", "c": ""},
    "hole": {"a": "hole", "b": "", "c": "hole"},
    "window": {"a": "M2", "b": "", "c": "M2"},
}
QUESTIONS = tuple(AFTER)
PRE, POST = before_and_after(
    AFTER,
    "p2 for `enforced`, s7 for `below`, p1 for `hole`, and for `window` the lane `in it` of the "
    "memory bar, zoomed in.",
    again="look again at p2, s7, p1, or the memory bar",
)


# -- the gates ------------------------------------------------------------------------------------


def what_the_share_does(run, seq: int) -> str:
    """At the hole: where the region that was begun ends."""
    met = run.trace[seq].event
    given = run.trace.next(RegionGiven, after=seq, kernel=met.kernel).event
    if given.end <= met.start:
        return "a"
    return "c" if given.start < met.start else "b"


def what_the_write_does(run, seq: int) -> str:
    """In the world after it: is the byte there?"""
    event = run.trace[seq].event
    return "c" if run.at(seq + 1).memory.bytes.get((event.address,)) == event.value else "a"


PREDICTS = (
    Predict(
        "p1",
        "A kernel's share does not fit before the hole. What does the tool give it?",
        "division",
        at=lambda run: run.trace.next(HoleMet).seq,
        truth=what_the_share_does,
        options={
            "a": "only what is before the hole: this kernel has less than the others",
            "b": "a region that begins behind the hole; what is before it is lost",
            "c": "what is before the hole and the rest behind it, in one longer region",
        },
    ),
    Predict(
        "p2",
        "Kernel 3 writes to an address in kernel 5's memory. What happens?",
        "stray",
        at=lambda run: run.trace.next(ByteWritten).seq,
        truth=what_the_write_does,
        options={
            "a": "the processor raises a fault: the address is not kernel 3's",
            "b": "a hypervisor stops the write",
            "c": "the byte is written, and nobody notices",
        },
        tags={"a": "M9", "b": "M1"},
    ),
)


# -- the tasks ------------------------------------------------------------------------------------

FOUR = OneOf(*STRAY_WORDS)
A1_POINTS = {
    "reserve_start_mib": 0.5, "granules": 0.75, "share_mib": 0.75, "straddler": 0.5,
    "region_mib": 0.5,
}  # fmt: skip


def ask_cuts(function, variant: Variant) -> Cuts:
    plan = my_plan(variant)
    return Cuts(function, variant, ram_of(plan), len(plan.regions))


def no_hole(case: Case) -> bool:
    return len(case.ram) == 1


TASKS: Sequence[Task] = (
    PRE,
    Task(
        "a1",
        "A share for each kernel",
        dict.fromkeys(A1, int),
        tuple(Check(name, A1_POINTS[name], counted(name, *A1[name])) for name in A1),
        hints=(
            "Go through the four rules above the cell in their order. Paper helps: draw the ranges "
            "as a bar.",
            "Granules before the hole: the end of the lower range in MiB, divided by 128, rounded "
            "down. Behind it: from its start up to the reserve, each rounded inwards.",
            "`granules // kernels * 128` is the share in MiB. Count shares from 0 up until one "
            "does not fit before the hole; its region ends behind it by what was still to go.",
        ),
    ),
    Task(
        "f2",
        "A division of your own",
        callable,
        (
            Check("shares are alike", 1, holds_in("public", shares_are_alike, no_hole)),
            Check("one behind the other", 1, holds_in("public", one_behind_the_other)),
            Check("goes on behind a hole", 1.5, holds_in("public", exactly, crosses_a_hole)),
            Check("too little: None", 0.5, too_little),
            Check("fresh maps", 1, holds_in("fresh", exactly), hidden=True),
        ),
        ask=ask_cuts,
        hints=(
            "Three subgoals, each a few lines: cut the ranges, work out the share, hand it out. "
            "Print what the first gives for your own map before you write the next.",
            "To cut inwards: `-(-start // granule) * granule` rounds up and "
            "`end // granule * granule` down. Leave out what is empty then.",
            "Keep a list of slots. For each kernel: `to_go` is the share; take from the first slot "
            "what it has, at most `to_go`; if the slot is used up, go to the next. The region is "
            "from the first address taken to the last.",
        ),
    ),
    Task(
        "a3",
        "What rounding costs",
        {f"lost_{n}": int for n in GRANULES_MIB} | {"granules_left_at_most": int},
        (
            *(
                Check(f"granules of {n} MiB", 0.5, is_lost(f"lost_{n}", with_granules(n)))
                for n in GRANULES_MIB
            ),
            Check("the worst remainder", 0.5, left_over_at_most),
        ),
        hints=(
            "Lost is RAM that is in nobody's region. Your own `partition` knows the regions.",
            "All bytes of `ram` are `sum(end - start for start, end in ram)`. How many of them are "
            "in a region says `bytes_in(ram, regions)`.",
            "`all_bytes - bytes_in(ram, partition(ram, kernels, 2 * MIB))` is `lost_2`, and so on. "
            "For the last entry: what is the largest remainder of a division by that number?",
        ),
    ),
    Task(
        "i4",
        "Disjoint and covered",
        callable,
        (
            Check("bad ones found minus false alarms", 2, catches("public", False)),
            Check("with their address", 1, catches("public", True)),
            Check("fresh divisions", 1, catches("fresh", True), hidden=True),
        ),
        ask=MapHunt,
        hints=(
            "Three things can be wrong with an address: it is RAM and nobody's, it is two owners', "
            "or it is somebody's and no RAM. Sort the pieces first.",
            "Go from one edge to the next. Edges are all starts and ends, of RAM and of pieces; "
            "between two of them nothing changes, so it is enough to look at the lower one.",
            "For each edge in `sorted(...)`: `owners = [p for p in maps if p[0] <= edge < p[1]]` "
            "and the same for `ram`. Good is one owner where RAM is, and none where there is none.",
        ),
    ),
    Task(
        "a5",
        "When the hole moves",
        {"share_mib": int, "straddler": int, "region_mib": int, "lost_bytes": int},
        (
            *(
                Check(name, 0.5, after(name, A1[name][0]))
                for name in ("share_mib", "straddler", "region_mib")
            ),
            Check("lost_bytes", 0.5, is_lost("lost_bytes", my_moved_plan)),
        ),
        hints=(
            "The amount of RAM is the same. What changes is where ranges are cut, and whose share "
            "meets the hole.",
            "Cut both ranges anew: the hole begins half-way between two granules now. Then count "
            "shares from 0 up.",
            '`partition(lab.run("moved ram"), kernels, 128 * MIB)` gives the regions, if your `f2` '
            "is right. The straddling one begins before the hole and ends behind it.",
        ),
    ),
    Task(
        "f6",
        "Memory near its CPUs",
        callable,
        (
            Check("sound: in RAM, disjoint", 0.75, first_placed("public", is_sound)),
            Check("fair: everybody has enough", 0.75, first_placed("public", is_fair)),
            Check("the fraction that is local", 1, is_near),
            Check("fresh machines", 0.5, first_placed("fresh", all_of_it), hidden=True),
        ),
        ask=Placements,
        hints=(
            "First find for each kernel the node it is to live on; then divide each node among "
            "those that live there.",
            "`nearest[home]` begins with the home itself. The first of it that is in `nodes` has "
            "RAM. A kernel may have several ranges: one on each side of a hole.",
            "For each node: the size of its RAM divided by the number of its kernels, rounded "
            "down. Then hand out from its ranges as in `f2`, but keep each piece: there is no need "
            "for one region here.",
        ),
    ),
    Task(
        "s7",
        "A stray write",
        {"here": FOUR, "vm": FOUR, "because": str},
        (
            Check("here", 0.5, happens_here),
            Check("under a hypervisor", 0.25, happens_in_a_vm),
            Check("a reason in a sentence", 0.25, gives_a_reason),
        ),
        hints=(
            "Follow the address from the instruction to the memory. Who translates it, by whose "
            "tables?",
            "Each kernel writes its own page tables, here and in a virtual machine. Only one of "
            "the two has a second set of tables below.",
            "The scene of p2 ends with the byte in memory. In a virtual machine, what a guest "
            "calls a physical address is translated once more, by tables that only the hypervisor "
            "writes.",
        ),
    ),
    POST,
)

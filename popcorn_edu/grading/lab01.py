"""Lab 01, Booting a second kernel: what is asked, and how an answer is judged.

What is right comes out of runs and out of the model's own reader of command lines: which line can
stand before which, from the demo; what a kernel with the student's line would see, from
model/cmdline.py; where a boot went wrong, from the boot itself.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.answers import OPEN, NoAnswer, OneOf, unfit
from popcorn_edu.grading.guard import call
from popcorn_edu.grading.guesses import before_and_after
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Check, Miss, Task, Variant, Wrong
from popcorn_edu.model import boot, cmdline, trampoline
from popcorn_edu.model.costs import COSTS
from popcorn_edu.model.firmware import GIB, KIB, MIB, MemoryRange, hex_range, in_words
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import LOW_BYTES
from popcorn_edu.model.partition import Partition
from popcorn_edu.model.topology import cpu_list

TITLE = "Booting a second kernel"
MACHINE = "h8qg6-64"


# -- the variant ----------------------------------------------------------------------------------


class Numbers(NamedTuple):
    """What differs between variants, all of it equally hard."""

    cpu: int  # of the kernel in the demo
    kernel: int  # whose line is written in a2
    kernels: int  # of the long boot in a4


def numbers(variant: Variant) -> Numbers:
    rng = variant.rng("numbers")
    return Numbers(rng.randrange(1, 64), rng.randrange(2, 7), rng.randrange(9, 49))


def note(variant: Variant) -> str:
    mine = numbers(variant)
    return f"a kernel for CPU {mine.cpu}, the line of kernel {mine.kernel}, {mine.kernels} kernels"


@cache
def demo(variant: Variant):
    """Kernel 1 is booted, and checks in. Devices have a lab of their own."""
    return scenarios.boot(kernels=2, cpus=(0, numbers(variant).cpu), scan=False)


# -- o1: in order ---------------------------------------------------------------------------------


class Line(NamedTuple):
    says: str
    needs: tuple[str, ...] = ()
    kind: type | None = None  # the event of the demo that it stands for; None: it never happens


LINES = {
    "ramdisk": Line(
        "The ramdisk is copied into memory that the primary leaves alone.", (), boot.RamdiskCopied
    ),
    "line": Line("The command line in boot_params is overwritten.", (), boot.CommandLineWritten),
    "image": Line("The kernel's segments are copied to its address.", (), boot.ImageLoaded),
    "call": Line(
        "The operator makes system call 312 with a CPU and an address.",
        ("ramdisk", "line", "image"), boot.BootCalled,
    ),
    "patch": Line(
        "The kernel's address is written into the trampoline.", ("call",),
        trampoline.TrampolinePatched,
    ),
    "wake": Line(
        "The CPU gets INIT, and twice a SIPI.", ("patch",), trampoline.StartupIpiSent
    ),
    "marker": Line(
        "The word 0xA5A5A5A5 is written, in real mode.", ("wake",), trampoline.MarkerWritten
    ),
    "long": Line(
        "The CPU turns paging on and is in long mode.", ("marker",), trampoline.LongModeEntered
    ),
    "parse": Line(
        "memmap= and mem= cut the map of memory.", ("long",), boot.MemoryRangeKept
    ),
    "check in": Line("The new kernel checks in with the others.", ("parse",), boot.CheckedIn),
    "hypervisor": Line("The hypervisor maps the new kernel's memory."),
    "firmware": Line("The firmware initialises the CPU and loads a boot loader."),
    "run queue": Line("The primary gives up a part of its run queue."),
    "messages": Line("The image is sent through a ring, slot by slot."),
}  # fmt: skip
NEVER = {  # key of a line that never happens: (the misconception, what to ask instead)
    "hypervisor": ("M1", "Who is below the primary?"),
    "firmware": ("", "When did the firmware run, and for whom?"),
    "run queue": ("M2", "Whose run queue is that?"),
    "messages": ("", "Who would read that ring before the kernel runs?"),
}
LETTERS = "abcdefghijkl"


@cache
def twelve(variant: Variant) -> dict[str, str]:
    """Letter: the key of its line. Ten that happen and two that never do, shuffled."""
    rng = variant.rng("o1")
    keys = [key for key in LINES if key not in NEVER] + rng.sample(list(NEVER), 2)
    rng.shuffle(keys)
    return dict(zip(LETTERS, keys, strict=True))


def twelve_lines(variant: Variant) -> Table:
    rows = [(letter, LINES[key].says) for letter, key in twelve(variant).items()]
    return Table("Ten of these happen when a second kernel boots", ["", "what happens"], rows)


def an_order(variant: Variant) -> str:
    """A right answer: the order of the demo itself."""
    letters = {key: letter for letter, key in twelve(variant).items()}
    run = demo(variant)
    happen = [key for key in letters if key not in NEVER]

    def at(key: str) -> int:
        own = [r for r in run.trace.records(LINES[key].kind) if getattr(r.event, "kernel", 1) == 1]
        return own[-1].seq

    return "".join(letters[key] for key in sorted(happen, key=at))


def given_lines(answer: str, variant: Variant) -> list[str]:
    """The lines of the answer by their keys; each letter is read once."""
    mine = twelve(variant)
    letters = [letter for letter in answer.lower() if not (letter.isspace() or letter in ",.->")]
    if not letters:
        raise NoAnswer(OPEN)
    for place, letter in enumerate(letters):
        if letter not in mine:
            raise PopcornError(f"{letter!r} is none of the letters a to l.")
        if letter in letters[:place]:
            raise PopcornError(f"The letter {letter} stands there twice.")
    return [mine[letter] for letter in letters]


def leaves_out_what_never_happens(given, variant):
    letters = {key: letter for letter, key in twelve(variant).items()}
    wrong = [key for key in letters if key in NEVER and key in given]
    missing = [key for key in letters if key not in NEVER and key not in given]
    if not wrong and not missing:
        return None
    tag, said = "", f"{len(missing)} of the 10 lines that happen {are(missing)} missing."
    if wrong:
        tag, asks = NEVER[wrong[0]]
        said = f"Line {letters[wrong[0]]} never happens. {asks}"
    return Miss(said, tag, 1 - (len(wrong) + len(missing)) / 2)


def are(things) -> str:
    return "is" if len(things) == 1 else "are"


def each_after_what_it_needs(given, variant):
    letters = {key: letter for letter, key in twelve(variant).items()}
    real = [key for key in LINES if key not in NEVER]
    pairs = [(need, key) for key in real for need in LINES[key].needs]
    kept = [
        pair for pair in pairs
        if all(key in given for key in pair) and given.index(pair[0]) < given.index(pair[1])
    ]  # fmt: skip
    if len(kept) == len(pairs):
        return None
    share = max(0.0, 2 * len(kept) / len(pairs) - 1)  # a coin would keep half of them
    for place, key in enumerate(given):
        late = [need for need in LINES[key].needs if need not in given[:place]]
        if late and key not in NEVER:
            right = f"Up to line {letters[given[place - 1]]} it is right. " if place else ""
            needed = f"line {letters[late[0]]}, without which it cannot happen"
            where = "comes before" if late[0] in given else "stands there without"
            return Miss(f"{right}Line {letters[key]} {where} {needed}.", share=share)
    return Miss("What is there is in order, and lines are missing.", share=share)


# -- a6: what is proven ---------------------------------------------------------------------------


def marker_seen(run):
    return run.trace.next(trampoline.MarkerSeen)


def first_words(run):
    """The first record that the new kernel itself says."""
    return run.trace.next(boot.BootParamsCopied, kernel=1)


def names(key: str, find, early: str, late: str):
    def holds(answer, variant):
        given, run = answer[key], demo(variant)
        if given is None:
            return OPEN
        if given == find(run).seq:
            return None
        if not 0 <= given < len(run):
            return f"There is no record {given}; the run has records 0 to {len(run) - 1}."
        record = run.trace[given]
        hint = early if given < find(run).seq else late
        return Miss(f"Record {given} says: {shortly(record.event)} {hint}", seq=given, run=run)

    return holds


def shortly(event) -> str:
    """An event's sentence with its full stop, without the tail of a command line."""
    text = str(event)
    return f"{text}." if len(text) <= 120 else f"{text[:120].rpartition(' ')[0]} ..."


def between(answer, variant):
    given, run = answer["between_ns"], demo(variant)
    if given is None:
        return OPEN
    if given == first_words(run).time - marker_seen(run).time:
        return None
    own = [answer.get(key) for key in ("marker_seen", "kernel_runs")]
    if all(seq is not None and 0 <= seq < len(run) for seq in own) and own[0] != own[1]:
        if given == run.trace[own[1]].time - run.trace[own[0]].time:
            return Miss("It fits your two records, and one of them is another.", share=0.5)
    return "Subtract the time of the first record from the time of the second."


# -- a2: a kernel's line --------------------------------------------------------------------------


class Wanted(NamedTuple):
    """What one kernel of the variant's plan shall own."""

    machine: Machine
    kernel: int
    cpus: tuple[int, ...]
    memory: MemoryRange
    vty_offset: int
    hidden: tuple[str, ...]  # PCI ids


@cache
def plan() -> Partition:
    """One kernel for each node of the machine, its memory as mpart would cut it."""
    return Partition.build(MACHINE, grouping="per node")


@cache
def wanted(variant: Variant) -> Wanted:
    mine, whole = numbers(variant).kernel, plan()
    ids = sorted({f.vendor_device for f in whole.machine.pci_functions if f.driver != "pcieport"})
    driven = {
        f.vendor_device for f in whole.machine.pci_functions if f.driver not in ("", "pcieport")
    }
    hidden = variant.rng("a2").sample([i for i in ids if i in driven], 2)
    kernel = whole.kernels[mine]
    start, end = kernel.memory[0].start, kernel.memory[-1].end
    offset = whole.memory_plan.vty_offset
    return Wanted(whole.machine, mine, kernel.cpus, MemoryRange(start, end), offset, tuple(hidden))


def my_kernel(variant: Variant) -> Table:
    want = wanted(variant)
    names = {f.vendor_device: f.name or f.driver for f in want.machine.pci_functions}
    start, end, _ = want.memory
    rows = [
        ("CPUs", f"{cpu_list(want.cpus)} (node {want.machine.node_of(want.cpus[0])})"),
        ("memory", f"{in_words(end - start)} from {in_words(start)} on: {hex_range(start, end)}"),
        ("virtual terminals", f"at {want.vty_offset:#x}"),
        *(("hands off", f"{id} ({names[id]})") for id in want.hidden),
        ("timer", f"{cmdline.LAPIC_TIMER:,} ticks a jiffy"),
    ]
    return Table(f"Kernel {want.kernel} of {want.machine.name}", ["", "what is wanted"], rows)


def right_line(variant: Variant) -> str:
    want = wanted(variant)
    return cmdline.write(want.cpus, [want.memory], want.hidden, vty_offset=want.vty_offset)


def read(answer, variant):
    """The student's line as the kernel reads it."""
    if not answer.split():
        raise NoAnswer(OPEN)
    line = cmdline.parse(answer)
    return line, cmdline.apply(line, wanted(variant).machine)


def because(seen, *names: str) -> str:
    """What the kernel makes of a misspelled word about this, as the end of a report."""
    for problem in seen.problems:
        word = problem.word.partition("=")[0]
        if word in names or any(f"did you mean {name}?" in problem.says for name in names):
            return f" {problem.word:.60}: {problem.says}" + "." * (problem.says[-1] != "?")
    return ""


def only_its_cpus(work, variant):
    (line, seen), want = work, wanted(variant)
    masks, why = line.all("present_mask"), because(seen, "present_mask")
    if not masks:
        return f"Without present_mask= it takes every CPU of the machine for its own.{why}"
    if tuple(seen.present) == want.cpus:
        return None
    has = f"CPUs {cpu_list(seen.present)}" if seen.present else "no CPU"
    said = f"It would have {has}, not CPUs {cpu_list(want.cpus)}.{why}"
    mask = sum(1 << cpu for cpu in want.cpus)
    text = (masks[-1].value or "").lower().removeprefix("0x")
    return Miss(said, "M10" if text in (str(mask), f"{mask:x}") else "")


def pieces(ranges) -> list[tuple[int, int]]:
    """Usable ranges above the low 16 MiB, joined where they touch."""
    found: list[list[int]] = []
    for start, end, *_ in sorted(r for r in ranges if getattr(r, "kind", "usable") == "usable"):
        start = max(start, LOW_BYTES)
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1][1] = max(end, found[-1][1])
        else:
            found.append([start, end])
    return [(start, end) for start, end in found]


def cut(ranges, low: int, high: int) -> int:
    """How many bytes of the ranges lie in [low, high)."""
    return sum(max(0, min(end, high) - max(start, low)) for start, end in ranges)


def mib(count: int) -> str:
    return f"{count / MIB:,.0f} MiB" if count >= MIB else f"{count // KIB} KiB"


def its_part(seen, want: Wanted) -> tuple[int, int]:
    """(bytes of its own memory that it would see, bytes that there are)."""
    start, end, _ = want.memory
    return cut(pieces(seen.ram), start, end), cut(pieces(want.machine.ram), start, end)


def sees_its_own(work, variant):
    (line, seen), want = work, wanted(variant)
    if cut(pieces(seen.ram), 0, 1 << 62) == cut(pieces(want.machine.ram), 0, 1 << 62):
        why = because(seen, "memmap", "mem")
        return f"No word of this line cuts memory: it would use all there is.{why}"
    sees, own = its_part(seen, want)
    if sees < own:
        where = hex_range(want.memory.start, want.memory.end)
        hint = mem_is_an_end(line, want) or because(seen, "memmap", "mem")
        return f"{mib(own - sees)} of its own memory {where} it would not see.{hint}"


def mem_is_an_end(line, want: Wanted) -> str:
    """For those who take mem= for the size of the kernel's memory."""
    given = [word.reading for word in line.all("mem")]
    size = want.memory.end - want.memory.start
    return " mem= is where memory ends, not how much there is." if size in given else ""


def foreign(work, variant, where: str, low: int, high: int):
    """Does it use memory of others there? Who sees nothing at all uses nothing either."""
    (_, seen), want = work, wanted(variant)
    sees, _ = its_part(seen, want)
    if not sees:
        return "First it must see some of its own memory."
    if others := cut(pieces(seen.ram), low, high):
        said = f"{where} its own memory it would use {mib(others)} of other kernels."
        return Miss(said + because(seen, "memmap", "mem"), "M9")


def nothing_below(work, variant):
    broken = foreign(work, variant, "Below", LOW_BYTES, wanted(variant).memory.start)
    if isinstance(broken, Miss) and "$" not in work[0].line:
        return broken._replace(sentence=f"{broken.sentence} Is there a memmap= with $?")
    return broken


def nothing_above(work, variant):
    return foreign(work, variant, "Above", wanted(variant).memory.end, 1 << 62)


def knows_what_it_is(work, variant):
    (line, seen), want = work, wanted(variant)
    if seen.panic:
        return f"A kernel with this line never comes up: {seen.panic}."
    wrong = []
    if not line.secondary:
        wrong.append("it would set up the machine as a primary does")
    if seen.vty_offset != want.vty_offset:
        wrong.append("it would not find the virtual terminals")
    timer = [parameter.value for parameter in line.all("lapic_timer")]
    if not timer or as_number(timer[-1]) != cmdline.LAPIC_TIMER:
        wrong.append("it would measure its timer, and has no clock of its own to measure it with")
    if wrong:
        why = because(seen, "mklinux", "vty_offset", "lapic_timer")
        return Miss(f"{'; '.join(wrong).capitalize()}.{why}", share=1 - len(wrong) / 3)


def as_number(text: str | None) -> int | None:
    try:
        return int(text or "", 0)
    except ValueError:
        return None


def leaves_devices_alone(work, variant):
    (_, seen), want = work, wanted(variant)
    open_ones = [id for id in want.hidden if id not in seen.hidden_ids]
    if open_ones:
        said = f"It would drive {' and '.join(open_ones)}, as another kernel does already."
        share = 1 - len(open_ones) / len(want.hidden)
        return Miss(said + because(seen, "pci_dev_flags"), "M11", share)


# -- f3: read a line ------------------------------------------------------------------------------


class Reading(NamedTuple):
    line: str
    ram: list[tuple[int, int]]
    truth: dict
    said: dict


def a_line(rng, n: int) -> tuple[str, list[tuple[int, int]], dict]:
    """A command line, a machine's RAM, and what a kernel makes of them. Each second line has a
    range of CPUs, each third is a primary's."""
    hole, top = rng.randrange(2, 4) * GIB, rng.randrange(8, 65) * GIB
    ram = [(0, 640 * KIB), (MIB, hole), (4 * GIB, top)]
    start = rng.randrange(5 * 8, top // (128 * MIB) - 8) * 128 * MIB
    end = min(top, start + rng.randrange(1, 9) * 128 * MIB)
    cpus = sorted(rng.sample(range(64), rng.randrange(1, 5)))
    if n % 2 == 0:
        first = rng.randrange(0, 56)
        cpus = sorted({*cpus, *range(first, first + rng.randrange(2, 8))})
    words = [
        "debug",
        f"present_mask={cpu_list(cpus)}",
        f"memmap={written(rng, end - start)}@{written(rng, start)}",
        f"memmap={written(rng, start - LOW_BYTES)}${written(rng, LOW_BYTES)}",
        f"mem={written(rng, end)}",
        *rng.sample(["console=ttyS0,115200", "quiet", "mem_sleep=deep", "maxmem=1G"], 2),
    ]
    secondary = n % 3 != 2
    if secondary:
        words.append("mklinux")
    rng.shuffle(words)
    kept = [(a, min(b, LOW_BYTES)) for a, b in ram if a < LOW_BYTES]
    kept += [(max(a, start), min(b, end)) for a, b in ram if max(a, start) < min(b, end)]
    return " ".join(words), ram, {"secondary": secondary, "cpus": cpus, "ram": kept}


def written(rng, count: int) -> str:
    """The same size in one of the ways it may be written."""
    units = [(GIB, "G"), (MIB, "M"), (KIB, "K"), (1, "")]
    ways = [f"{count // unit}{letter}" for unit, letter in units if count % unit == 0][:3]
    return rng.choice([*ways, f"{count:#x}"])


PARTS = {"secondary": bool, "cpus": [int], "ram": [(int, int)]}
ROUNDS = {"public": 6, "fresh": 12}


class Readings:
    """A student's reader, let loose on lines of many shapes."""

    def __init__(self, function, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[str, list[Reading]] = {}
        self.of("public")  # what is wrong with the function itself is told at once

    def of(self, name: str) -> list[Reading]:
        if name not in self._done:
            rng = self.variant.rng(f"f3 {name}")
            self._done[name] = [self._read(*a_line(rng, n)) for n in range(ROUNDS[name])]
        return self._done[name]

    def _read(self, line: str, ram, truth: dict) -> Reading:
        said = call(self.function, line, ram, returns=PARTS)
        return Reading(line, ram, truth, said)


def reads(part: str, which: str = "public"):
    """How many of these lines are read as the kernel reads them."""

    def holds(readings, variant):
        done = readings.of(which)
        wrong = [r for r in done if plain(r.said.get(part)) != plain(r.truth[part])]
        if not wrong:
            return None
        first, share = wrong[0], 1 - 2 * len(wrong) / len(done)
        said = f"{len(done) - len(wrong)} of {len(done)} lines are read right."
        if which == "public":
            given = unfit(first.said, [part]).get(part)
            given = given or f"You say {shown(first.said.get(part))}."
            said += f" In {first.line!r} {part} is {shown(first.truth[part])}. {given}"
        tags = map(believed_mask, wrong) if part == "cpus" else ()
        return Miss(said, next(filter(None, tags), ""), share)

    return holds


def all_parts(readings, variant):
    for part in PARTS:
        if broken := reads(part, "fresh")(readings, variant):
            return broken


def plain(value):
    return (
        [list(item) if isinstance(item, (list, tuple)) else item for item in value]
        if isinstance(value, (list, tuple))
        else value
    )


def shown(value) -> str:
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple)):
        return ", ".join(f"({a:#x}, {b:#x})" for a, b in value)
    return repr(value)


def believed_mask(reading: Reading) -> str:
    """Did the student take the list for a bit mask?"""
    text = reading.line.partition("present_mask=")[2].split()[0]
    if not text.isdigit():
        return ""
    bits = [bit for bit in range(64) if int(text) >> bit & 1]
    return "M10" if reading.said.get("cpus") == bits else ""


# -- a4: how long does it take? -------------------------------------------------------------------

S_NS, US_NS = 1_000_000_000, 1_000


def kernel_init_s() -> int:
    return COSTS["kernel_init_ns"].value // S_NS


def a_long_boot(variant: Variant) -> Table:
    mine = numbers(variant)
    rows = [
        ("kernels", f"{mine.kernels}, the primary included, one booted after the other"),
        ("from the marker to the check-in", f"{kernel_init_s()} s each (model default)"),
        ("copying ramdisk and image", "leave it out: it is under 0.1 s"),
    ]
    return Table("A long boot", ["", ""], rows)


def wake_ns() -> int:
    times = trampoline.LadderTimes(Machine.load(MACHINE))
    return times.init.ns + 2 * (times.accept.ns + times.settle.ns)


def right_times(variant: Variant) -> dict[str, int]:
    kernels = numbers(variant).kernels
    each_ns = wake_ns() + kernel_init_s() * S_NS
    return {
        "wake_us": wake_ns() // US_NS,
        "give_up_s": trampoline.POLLS_AT_MOST * 100 * US_NS // S_NS,
        "all_s": round((kernels - 1) * each_ns / S_NS),
        "check_ins": kernels * (kernels - 1) // 2,
    }


SLIPS = {  # an answer near the truth, and what it has overlooked
    "wake_us": {
        lambda v: 10_500: "There are two SIPIs, and each has both waits.",
        lambda v: 10_300: "There are two SIPIs, and each has both waits.",
        lambda v: 10_600: "After each SIPI come both waits, 300 and 200 µs.",
        lambda v: 11: "In microseconds, please.",
        lambda v: 1_000: "INIT has a wait of its own.",
    },
    "give_up_s": {
        lambda v: 5_000: "In seconds, please.",
        lambda v: 5_000_000: "In seconds, please.",
        lambda v: 50_000: "That is how often it looks. How far apart are the looks?",
    },
    "all_s": {
        lambda v: round(numbers(v).kernels * (wake_ns() / S_NS + kernel_init_s())): (
            "The primary is up already; count those that are booted."
        ),
        lambda v: kernel_init_s(): "They boot one after the other, not at once.",
    },
    "check_ins": {
        lambda v: numbers(v).kernels * (numbers(v).kernels - 1): "Each pair checks in once.",
        lambda v: (numbers(v).kernels - 1) * (numbers(v).kernels - 2) // 2: (
            "The primary is one of them."
        ),
        lambda v: numbers(v).kernels - 1: "A new kernel checks in with every kernel that is up.",
    },
}


def is_time(key: str):
    def holds(answer, variant):
        given, truth = answer[key], right_times(variant)[key]
        if given is None:
            return OPEN
        if given == truth or (key == "all_s" and abs(given - truth) <= 1):
            return None
        for slip, said in SLIPS[key].items():
            if round(given) == slip(variant):
                return Miss(said, share=0.5)
        return f"{given:,} is too {'small' if given < truth else 'large'}."

    return holds


# -- i5: three boots that fail --------------------------------------------------------------------

CAUSES = {  # the word a student writes: (what scenarios.boot calls it, the event that says so)
    "cpu owned": ("cpu owned", boot.CpuRefused),
    "no answer": ("no answer", trampoline.MarkerMissing),
    "no map": ("no extra map", trampoline.TripleFault),
}
CAUSE_WORDS = (*CAUSES, "cut line", "other's line")
BOOTS = ("boot a", "boot b", "boot c")


@cache
def failed(variant: Variant, name: str):
    cause = failed_causes(variant)[name]
    rng = variant.rng(f"i5 {name}")
    cpus = (0, *rng.sample(range(1, 64), 2))
    failure = CAUSES[cause][0]
    return scenarios.boot(
        kernels=3, cpus=cpus, failure=failure, fails=failing(variant, name), scan=False
    )


def failing(variant: Variant, name: str) -> int:
    """Which of the two secondaries does not come up. Both are above 4 GiB, so that the missing
    map stops the first of them, whichever the failure names."""
    return 1 if failed_causes(variant)[name] == "no map" else variant.rng(name).choice((1, 2))


@cache
def failed_causes(variant: Variant) -> dict[str, str]:
    causes = list(CAUSES)
    variant.rng("i5").shuffle(causes)
    return dict(zip(BOOTS, causes, strict=True))


def first_sign(variant: Variant, name: str):
    return failed(variant, name).trace.next(CAUSES[failed_causes(variant)[name]][1])


def right_causes(variant: Variant) -> dict[str, tuple[str, int]]:
    return {
        name: (cause, first_sign(variant, name).seq)
        for name, cause in failed_causes(variant).items()
    }


def the_cause(name: str):
    def holds(answer, variant):
        cause, run = part_of(answer, name, 0), failed(variant, name)
        truth = failed_causes(variant)[name]
        if cause is None:
            return OPEN
        if cause == truth:
            return None
        seen = run.trace.next(trampoline.MarkerSeen)
        if cause == "no answer" and truth == "no map" and seen:
            said = f"Its trampoline ran: see record {seen.seq}."
        else:
            said = f"In {name} nothing shows that. How far did the boot get?"
        return Miss(said, seq=len(run) - 1, run=run)

    return holds


def the_record(name: str):
    def holds(answer, variant):
        seq, run = part_of(answer, name, 1), failed(variant, name)
        truth = first_sign(variant, name)
        if seq is None:
            return OPEN
        if seq == truth.seq:
            return None
        if not 0 <= seq < len(run):
            return f"There is no record {seq}; {name} has records 0 to {len(run) - 1}."
        where = "before" if seq < truth.seq else "after"
        late = type(run.trace.event(seq)) in (boot.OperatorGaveUp, boot.BootReturned)
        event = shortly(run.trace.event(seq))
        said = f"Record {seq} comes {where} the record that says it: {event}"
        return Miss(said, share=0.5 if late else 0, seq=seq, run=run)

    return holds


def part_of(answer, name: str, place: int):
    given = answer[name]
    return None if given is None else given[place]


# -- s7: one after the other, or all at once? -----------------------------------------------------

REASON_CHARACTERS = 25
CHANGES = ("lock", "page each", "faster", "retry")


@cache
def two_at_once(variant: Variant):
    cpus = (0, *variant.rng("s7").sample(range(1, 64), 2))
    return scenarios.boot(kernels=3, cpus=cpus, parallel=True, scan=False)


def the_victim(run) -> int:
    return run.trace.next(boot.WrongLineTaken).event.kernel


def the_overwriting(run) -> int:
    """The last line written before the victim copied boot_params: another kernel's."""
    copied = run.trace.next(boot.BootParamsCopied, kernel=the_victim(run))
    return [r.seq for r in run.trace.records(boot.CommandLineWritten) if r.seq < copied.seq][-1]


def finds_the_overwriting(answer, variant):
    given, run = answer["overwritten"], two_at_once(variant)
    if given is None:
        return OPEN
    if given == the_overwriting(run):
        return None
    if not 0 <= given < len(run):
        return f"There is no record {given}; the run has records 0 to {len(run) - 1}."
    event = run.trace.event(given)
    if type(event) is boot.RamdiskNoted:
        said = "That overwrites the ramdisk's address, which is as bad. Look for the line."
        return Miss(said, share=0.5, seq=given, run=run)
    copied = run.trace.next(boot.BootParamsCopied, kernel=the_victim(run)).seq
    why = "Nobody has overwritten anything yet." if given < the_overwriting(run) else ""
    if given >= copied:
        why = "By then it is done. Who wrote what is read here?"
    said = f"Record {given} says: {shortly(event)}"
    return Miss(f"{said} {why}".rstrip(), seq=given, run=run)


def finds_the_victim(answer, variant):
    given = answer["victim"]
    if given is None:
        return OPEN
    if given not in (1, 2):
        return f"Kernel {given} is none of the two that boot here, 1 and 2."
    if given != the_victim(two_at_once(variant)):
        return f"Kernel {given} reads the line that was written for it."


def chooses_the_change(answer, variant):
    given = answer["change"]
    if given is None:
        return OPEN
    said = {
        "lock": "The lock is free again once the line is written. When is it read?",
        "faster": "It makes the time shorter in which it goes wrong, and does not end it.",
        "retry": "Before anybody gives it up, the victim is in another kernel's memory.",
    }
    if given != "page each":
        return said[given]


def gives_a_reason(answer, variant):
    given = answer["because"]
    if given is None:
        return OPEN
    if len(given.split()) < 5 or len(given) < REASON_CHARACTERS:
        return "A sentence, please: what is read when?"


# -- pre, post ------------------------------------------------------------------------------------

AFTER = {
    "below": {"a": "", "b": "M1", "c": "M1"},
    "start": {"a": "M1", "b": "M1", "c": ""},
    "mask": {"a": "M10", "b": "", "c": "M10"},
    "limit": {"a": "M9", "b": "M9", "c": ""},
}


# -- the gates ------------------------------------------------------------------------------------

MODES = {"REAL": "a", "PROTECTED": "b", "LONG": "c"}


def mode_at(run, seq: int) -> str:
    cpu = run.trace.event(seq).cpu
    return MODES[run.at(seq).boot.mode[cpu].name]


def two_kernels_of_six(variant: Variant):
    return scenarios.boot(kernels=2, cpus=(0, 6), scan=False)


def cpus_at(run, seq: int) -> str:
    return {"1-2": "a", "6": "b", "0-5": "c"}[run.trace.event(seq).cpus]


PREDICTS = (
    Predict(
        "p1",
        "The marker is being written. In which mode is the CPU?",
        "demo",
        at=lambda run: run.trace.next(trampoline.MarkerWritten).seq,
        truth=mode_at,
        options={"a": "real mode", "b": "protected mode", "c": "long mode"},
    ),
    Predict(
        "p2",
        "A secondary boots with present_mask=6. Which CPUs does it bring up?",
        "six",
        at=lambda run: run.trace.next(boot.CpusPresent).seq,
        truth=cpus_at,
        options={"a": "CPUs 1 and 2", "b": "CPU 6", "c": "CPUs 0 to 5"},
        tags={"a": "M10", "c": "M10"},
    ),
)

SCENES = {
    "demo": demo,
    "six": two_kernels_of_six,
    "twelve lines": twelve_lines,
    "my kernel": my_kernel,
    "a long boot": a_long_boot,
    **{name: lambda variant, name=name: failed(variant, name) for name in BOOTS},
    "two at once": two_at_once,
}


# -- wrong answers, for the tests ------------------------------------------------------------------


def with_a_distractor(variant: Variant) -> str:
    letters = [letter for letter, key in twelve(variant).items() if key in NEVER]
    return letters[0] + an_order(variant)


def without_word(line: str, mark: str) -> str:
    drop = [
        word for word in line.split() if (mark in word if mark == "$" else word.startswith(mark))
    ]
    return " ".join(word for word in line.split() if word not in drop)


def where_it_is_noticed(variant: Variant, name: str) -> int:
    sign, run = first_sign(variant, name).seq, failed(variant, name)
    late = (boot.BootReturned, boot.OperatorGaveUp)
    return next(r.seq for r in run.trace[sign:] if type(r.event) in late)


def masked(variant: Variant) -> str:
    """present_mask as the bit mask that its name promises."""
    cpus = wanted(variant).cpus
    return right_line(variant).replace(
        f"present_mask={cpu_list(cpus)}", f"present_mask={sum(1 << cpu for cpu in cpus):#x}"
    )


def its_size_for_its_end(variant: Variant) -> str:
    """mem= as the size of the kernel's memory, where its end is wanted."""
    start, end, _ = wanted(variant).memory
    return f"{without_word(right_line(variant), 'mem=')} mem={(end - start) // MIB}M"


# -- the tasks ------------------------------------------------------------------------------------

PRE, POST = before_and_after(
    AFTER,
    '"Three hands" for what runs below and for the CPU, p2 and f3 for the mask, the text below the '
    "table of parameters for the limit.",
    again="hint 2 says where this was settled",
)
CAUSE, RECORD = OneOf(*CAUSE_WORDS), int

TASKS = (
    PRE,
    Task(
        "o1",
        "In order",
        str,
        (
            Check("the ten that happen", 1, leaves_out_what_never_happens),
            Check("each after what it needs", 2, each_after_what_it_needs),
        ),
        ask=given_lines,
        hints=(
            "Three hands: the operator prepares, the primary wakes the CPU, the CPU climbs. Sort "
            "the lines by whose they are.",
            'The demo shows one order: `lab.run("demo").show()`. Two of the lines have no record '
            "there.",
            "What the operator copies may come in any order, but all of it before the system call. "
            "Then the trampoline is prepared before the CPU wakes up in it.",
        ),
        wrong=(
            Wrong("backwards", lambda v: an_order(v)[::-1], 1),
            Wrong("the hypervisor first", with_a_distractor, 2.5),
            Wrong("two letters only", lambda v: an_order(v)[:2], 0),
        ),
    ),
    Task(
        "a6",
        "What is proven?",
        {"marker_seen": int, "kernel_runs": int, "between_ns": int},
        (
            Check(
                "the marker is seen",
                0.25,
                names(
                    "marker_seen",
                    marker_seen,
                    "The primary has not seen it yet.",
                    "The primary has seen it before.",
                ),
            ),
            Check(
                "the kernel runs",
                0.5,
                names(
                    "kernel_runs",
                    first_words,
                    "Who says that? The new kernel has not said a word yet.",
                    "The new kernel has said something before that.",
                ),
            ),
            Check("the time between", 0.5, between),
        ),
        hints=(
            "Each record names its actor. Who sees the marker, and who is the new kernel?",
            "A CPU in the trampoline is the actor `cpu N`. When does the actor `kernel 1` say its "
            "first sentence?",
            "`demo.show()` prints number, time, actor and sentence of each record; `demo.trace[n]"
            ".time` is its time in ns.",
        ),
        wrong=(
            Wrong(
                "the marker proves the kernel",
                lambda v: {
                    "marker_seen": marker_seen(demo(v)).seq,
                    "kernel_runs": marker_seen(demo(v)).seq,
                    "between_ns": 0,
                },
                0.25,
            ),
        ),
    ),
    Task(
        "a2",
        "A kernel's line",
        str,
        (
            Check(
                "it comes up as a secondary, with its timer and terminals", 0.75, knows_what_it_is
            ),
            Check("its CPUs and no others", 0.75, only_its_cpus),
            Check("its own memory", 0.75, sees_its_own),
            Check("no memory below its own", 0.75, nothing_below),
            Check("no memory above its own", 0.5, nothing_above),
            Check("no device of others", 0.5, leaves_devices_alone),
        ),
        ask=read,
        hints=(
            "Go through the table of parameters above: each row of your kernel needs one or two "
            "of them.",
            "Memory is written with three: `memmap=SIZE@START` for what is yours, "
            "`memmap=SIZE$16M` for what is between 16 MiB and your start, and `mem=` for your end.",
            "The size of the second `memmap=` is your start less 16 MiB. Several devices stand in "
            "one `pci_dev_flags=`, with commas. The CPUs are a list, such as `8-15`.",
        ),
        wrong=(
            Wrong("no reserve below", lambda v: without_word(right_line(v), "$"), 3.25, "M9"),
            Wrong("a bit mask", masked, 3.25, "M10"),
            Wrong("no end", lambda v: without_word(right_line(v), "mem="), 3.5, "M9"),
            Wrong("a size for an end", its_size_for_its_end, 1.25),
            Wrong("nothing but a word", lambda v: "hello", 0),
            Wrong("no text", lambda v: "", 0),
        ),
    ),
    Task(
        "f3",
        "Read a line",
        callable,
        (
            Check("is it a secondary?", 0.5, reads("secondary")),
            Check("its CPUs", 0.75, reads("cpus")),
            Check("its memory", 1, reads("ram")),
            Check("fresh lines", 0.75, all_parts, hidden=True),
        ),
        ask=Readings,
        hints=(
            "Split the line at its spaces. Each word is a name, or `name=value`.",
            "`present_mask` is a list of numbers and ranges with commas between them. A `memmap=` "
            "with `$` cuts a piece out of the RAM, `mem=` cuts off all from there on.",
            '`value.partition("$")` gives the length, the mark and the start; both are sizes. '
            "What `mem=` cuts off goes from its value to the end of the world, `1 << 62`.",
        ),
    ),
    Task(
        "a4",
        "How long does it take?",
        dict.fromkeys(SLIPS, int) | {"all_s": float},
        tuple(Check(key, 0.5, is_time(key)) for key in SLIPS),
        hints=(
            "Add up the waits in the text, in the unit that the name asks for.",
            "A boot takes the waits of waking the CPU and then the kernel's own seconds. How many "
            "kernels are booted, if the primary is one of them?",
            "n kernels make n (n - 1) / 2 pairs.",
        ),
        wrong=(
            Wrong(
                "counted the primary",
                lambda v: (
                    right_times(v)
                    | {"all_s": round(numbers(v).kernels * (wake_ns() / S_NS + kernel_init_s()))}
                ),
                1.75,
            ),
        ),
    ),
    Task(
        "i5",
        "Three boots that fail",
        dict.fromkeys(BOOTS, (CAUSE, RECORD)),
        (
            *(Check(f"{name}: the cause", 0.75, the_cause(name)) for name in BOOTS),
            *(Check(f"{name}: the record", 0.5, the_record(name)) for name in BOOTS),
        ),
        hints=(
            "Play each to its end, and step back. Which was the last thing that went as in the "
            "demo?",
            "Did the primary send INIT at all? Did the CPU write its marker? Was it in long mode?",
            "The record you look for says in its sentence what is wrong. What comes after it is "
            "somebody noticing.",
        ),
        wrong=(
            Wrong(
                "where it is noticed",
                lambda v: {
                    name: (cause, where_it_is_noticed(v, name))
                    for name, cause in failed_causes(v).items()
                },
                3,
            ),
        ),
    ),
    Task(
        "s7",
        "One after the other, or all at once?",
        {"overwritten": int, "victim": int, "change": OneOf(*CHANGES), "because": str},
        (
            Check("what is overwritten", 1, finds_the_overwriting),
            Check("whose boot it spoils", 0.5, finds_the_victim),
            Check("the change that helps", 1, chooses_the_change),
            Check("a reason in a sentence", 0.5, gives_a_reason),
        ),
        hints=(
            "Two operators write to one page. Which of the two lines is still there when the first "
            "kernel reads it?",
            "Look for the record in which a kernel copies boot_params, and go back from there to "
            "the last command line that was written.",
            "A lock helps if it is held until the last reader has read. Who is that, and can it "
            "give back a lock of the primary's?",
        ),
        wrong=(
            Wrong(
                "a lock",
                lambda v: {
                    "overwritten": the_overwriting(two_at_once(v)),
                    "victim": the_victim(two_at_once(v)),
                    "change": "lock",
                    "because": "Then only one of them can write the line.",
                },
                2,
            ),
        ),
    ),
    POST,
)

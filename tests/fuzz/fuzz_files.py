"""Changes the real files in a million ways; every result must be facts or one sentence, quickly.

Not part of the test suite; run it by hand after a change to a reader:

    python tests/fuzz/fuzz_files.py                  # 20,000 inputs, about a minute
    python tests/fuzz/fuzz_files.py --inputs 1000000
    python tests/fuzz/fuzz_files.py --only 4711      # one input again, with its call stack

An input is found again by its number: number, seed and files give the same input everywhere.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.acrn import read_acrn
from popcorn_edu.model.assembly import layout
from popcorn_edu.model.firmware import read_acpi, read_boot_log
from popcorn_edu.model.kerf import read_kerf
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.partition import Partition
from popcorn_edu.model.pci import read_interrupts, read_lspci, read_pci_csv, tree

SLOW_NS = 50_000_000  # no input may take longer
SMALL_XML_BYTES = 30_000  # larger topologies take long by themselves, not by damage
TOKENS = (
    "0", "1", "-1", "7", "64", "65536", "4294967296", "9" * 5000, "0x", "0xffffffffffffffff",
    "", " ", "\n", "\t", "\0", "é", "=", ":", ",", "-", "[", "]", "(", ")", '"', "&lt;", "<", ">",
    "usable", "node", "CPU0", "APIC", "SRAT", "nan", "1e9", "true", "null", "{", "}", "..",
)  # fmt: skip


def readers(folder: Path) -> dict[str, tuple[list[str], object]]:
    """What is read: the texts to damage, and what reads them."""

    def plan(text: str) -> None:
        path = folder / "fuzz.plan"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        Partition.load(path).problems()

    def topology(text: str) -> None:
        machine = Machine.from_xml(text if text.lstrip().startswith("<") else text.encode())
        machine.describe()
        layout(machine.nodes)

    def listing(text: str) -> None:
        str(tree(read_lspci(text)))

    def table(text: str) -> None:
        str(tree(read_pci_csv(text)))

    def firmware(text: str) -> None:
        log, _, dump = text.partition("\f")
        Machine.from_files(boot_log=log + "\n", acpi=dump + "\n", name="mine").describe()

    def texts(kind: str, end: str = "") -> list[str]:
        return [
            datasets.read_text(name)
            for name in datasets.names(kind)
            if datasets.entry(name)["file"].endswith(end)
        ]

    plans = []
    for name, grouping in (("magny-cours-48", "per package"), ("h8qg6-64", "per node")):
        plans.append(Partition.build(name, grouping=grouping).save(folder / "p").read_text())
    small = [text for text in texts("topology") if len(text) < SMALL_XML_BYTES]
    both = [
        datasets.read_text(f"memmap-{name}") + "\f" + datasets.read_text(f"acpi-{name}")
        for name in ("h8qg6-64", "h8dgu-24", "dl165g7-16", "x8dtn-24")
    ]
    board = datasets.path("board-whl-ipc-i5")
    return {
        "boot log": (texts("memmap"), read_boot_log),
        "acpi": (texts("acpi"), read_acpi),
        "lspci": (texts("pci", ".txt"), listing),
        "csv": (texts("pci", ".csv"), table),
        "interrupts": (texts("irq"), read_interrupts),
        "topology": (small, topology),
        "firmware": (both, firmware),
        "plan": (plans, plan),
        "acrn": (texts("scenario", ".xml"), lambda text: read_acrn(text, board)),
        "kerf": (texts("scenario", ".dts"), read_kerf),
    }


# -- damage ----------------------------------------------------------------------------------------


def damaged(text: str, dice: random.Random) -> str:
    """The text after one to four small disasters."""
    for _ in range(dice.choice((1, 1, 2, 4))):
        text = dice.choice(DISASTERS)(text, dice)
    return text


def letter(text: str, dice: random.Random) -> str:
    at = dice.randrange(len(text) or 1)
    return (
        text[:at]
        + chr(dice.choice((dice.randrange(32, 127), dice.randrange(0x300))))
        + text[at + 1 :]
    )


def cut(text: str, dice: random.Random) -> str:
    return text[: dice.randrange(len(text) + 1)]


def gap(text: str, dice: random.Random) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + text[at + dice.choice((1, 2, 8, 64, 1024)) :]


def word(text: str, dice: random.Random) -> str:
    """A word in another's place."""
    words = text.split(" ")
    at = dice.randrange(len(words))
    words[at] = dice.choice((dice.choice(words), dice.choice(TOKENS)))
    return " ".join(words)


def number(text: str, dice: random.Random) -> str:
    """Digits in other digits' place."""
    at = dice.randrange(len(text) or 1)
    while at < len(text) and not text[at].isdigit():
        at += 1
    end = at
    while end < len(text) and text[end].isdigit():
        end += 1
    return text[:at] + dice.choice(TOKENS[:10]) + text[end:]


def line(text: str, dice: random.Random) -> str:
    """A line lost, doubled, or somewhere else."""
    lines = text.split("\n")
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    what = dice.randrange(3)
    if what == 0:
        del lines[one]
    elif what == 1:
        lines.insert(other, lines[one])
    else:
        lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def table_byte(text: str, dice: random.Random) -> str:
    """A byte of an ACPI table changed and its checksum mended, so that the entries are read."""
    lines = text.split("\n")
    rows = [n for n, row in enumerate(lines) if row[:4] == "    " and row[8:10] == ": "]
    if not rows:
        return text
    at = dice.choice(rows)
    start = max((n for n in range(at) if "@" in lines[n]), default=0)
    place = 10 + 3 * dice.randrange(16)
    head = next((n for n in range(start, at + 1) if lines[n][4:10] == "0000: "), None)
    if head is None or place + 2 > len(lines[at]):
        return text
    try:
        old = int(lines[at][place : place + 2], 16)
        check = int(lines[head][37:39], 16)
    except ValueError:
        return text
    new = dice.choice((0, 1, 2, 9, 127, 255, dice.randrange(256)))
    lines[at] = lines[at][:place] + f"{new:02X}" + lines[at][place + 2 :]
    if (at, place) != (head, 37):
        mended = (check + old - new) & 0xFF
        lines[head] = lines[head][:37] + f"{mended:02X}" + lines[head][39:]
    return "\n".join(lines)


DISASTERS = (letter, letter, cut, gap, word, number, number, line, table_byte, table_byte)


# -- running ---------------------------------------------------------------------------------------


class Slow(Exception):
    """An input that took too long."""


def try_one(read, text: str) -> tuple[str, int]:
    """ "facts" or "a sentence", and the ns it took; anything else is an exception."""
    started = time.thread_time_ns()
    try:
        read(text)
        outcome = "facts"
    except PopcornError as problem:
        if "\n" in str(problem) or len(str(problem)) > 2000:
            raise ValueError(f"not one sentence: {str(problem)[:300]!r}") from problem
        outcome = "a sentence"
    return outcome, time.thread_time_ns() - started


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--inputs", type=int, default=20_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", type=int, help="the number of one input")
    options.add_argument("--reader", help="one of the readers, such as 'acpi'")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(args, readers(Path(folder)))


def run(args: argparse.Namespace, all_readers: dict) -> int:
    names = [args.reader] if args.reader else list(all_readers)
    counts: Counter = Counter()
    found: dict[str, str] = {}
    slowest = 0
    numbers = range(args.inputs) if args.only is None else [args.only]
    for number_ in numbers:
        dice = random.Random(f"{args.seed}/{number_}")
        name = names[number_ % len(names)]
        texts, read = all_readers[name]
        text = damaged(dice.choice(texts), dice)
        try:
            outcome, took = try_one(read, text)
            if took > SLOW_NS:  # the computer may have been busy: the fastest of four counts
                took = min(took, *(try_one(read, text)[1] for _ in range(3)))
            if took > SLOW_NS:
                raise Slow(f"{took / 1e6:.0f} ms")
            slowest = max(slowest, took)
        except Exception as problem:
            outcome = type(problem).__name__
            where = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{name}: {outcome} in {Path(where.filename).name}:{where.lineno}: {problem}"
            key = f"{name} {outcome} {where.filename}:{where.lineno}"
            if key not in found:
                found[key] = f"input {number_}: {place[:300]}"
                print(found[key], flush=True)
            if args.only is not None:
                traceback.print_exc()
                print(text[:2000])
        counts[name, outcome] += 1
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:<12}{outcome:<22}{count:>9,}")
    print(f"slowest: {slowest / 1e6:.1f} ms")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""How long it takes to read the command lines of many kernels.

    python benchmarks/command_lines.py [LINES]

The lines are what Popcorn's scripts write, for kernels of different CPUs and memory, and each
is different. The baseline only cuts them at spaces and at "=". The reader remembers words it has
seen, as the lines of one machine share most of theirs; the next row is without that help, the
last with every line applied to a machine.
"""

import sys
import time

from popcorn_edu import Machine
from popcorn_edu.model import bootline, cmdline
from popcorn_edu.model.firmware import MIB, MemoryRange

LINES = 10_000
TARGET_S = 1.0
MACHINE = "h8qg6-64"
BLACKLIST = ("8086:10c9", "102b:0532", "1002:5a10", "1002:4390")


def lines(count: int) -> list[str]:
    made = []
    for kernel in range(count):
        start = (1024 + 2 * kernel) * MIB
        piece = MemoryRange(start, start + (512 + kernel % 7) * MIB)
        made.append(cmdline.write([1 + kernel % 63], [piece], BLACKLIST, vty_offset=0x1FFC000000))
    return made


def seconds(work, texts: list[str]) -> float:
    start = time.process_time()
    for text in texts:
        work(text)
    return time.process_time() - start


def cut(text: str) -> list[tuple[str, str, str]]:
    return [word.partition("=") for word in text.split()]


def main() -> None:
    texts = lines(int(sys.argv[1]) if len(sys.argv) > 1 else LINES)
    machine = Machine.load(MACHINE)
    baseline = seconds(cut, texts)
    bootline._read_word.cache_clear()
    remembering = seconds(cmdline.parse, texts)
    reader, bootline._read_word = bootline._read_word, bootline._read_word.__wrapped__
    forgetful = seconds(cmdline.parse, texts)
    bootline._read_word = reader
    applied = seconds(lambda text: cmdline.apply(text, machine), texts)
    print(f"{len(texts):,} lines of {len(texts[0])} letters, such as\n  {texts[0]}")
    print(f"  {'':<38}{'s':>8}{'µs a line':>12}{'ratio':>10}")
    for name, value in (
        ("cut at spaces", baseline),
        ("parse", remembering),
        ("parse, remembering no word", forgetful),
        ("parse and apply to " + MACHINE, applied),
    ):
        each = value / len(texts) * 1e6
        print(f"  {name:<38}{value:>8.2f}{each:>12.1f}{value / baseline:>8.1f} x")
    verdict = "met" if remembering <= TARGET_S else "MISSED"
    print(f"target: parse <= {TARGET_S:g} s: {remembering:.2f} s, {verdict}")


if __name__ == "__main__":
    main()

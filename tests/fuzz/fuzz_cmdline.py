"""Throw odd command lines at the reader until something breaks. By hand, not part of the suite.

    python tests/fuzz/fuzz_cmdline.py                  # 20,000 lines
    python tests/fuzz/fuzz_cmdline.py 1000000          # a million, about ten minutes
    python tests/fuzz/fuzz_cmdline.py 1000 --seed 7

Lines are made of words that mean something, cut, doubled and mixed with letters that do not. Each
is parsed, explained, and applied to a machine. An exception ends the run with the line that
caused it; the slowest line is shown at the end, and more than 50 ms is a failure.
"""

import argparse
import sys
import time
from random import Random

from popcorn_edu import Machine
from popcorn_edu.model.cmdline import apply, parse
from popcorn_edu.model.parameters import OTHER, RULES

SLOWEST_MS = 50
NAMES = [*RULES] * 8 + sorted(OTHER)
VALUES = """
    1G 64M 0x10000 4095 010 08 1.5G 1GB 16E 18446744073709551615 99999999999999999999999 -1 0
    0-3 1,3 3-1 0-7:2/4 1-N N all all:1/2 0-65535 0-8191:1/2 4294967296 2- -3 nohz, domain,
    managed_irq, 1G@4G 64M$1G 64M#1G 64M!1G 64M%1G-1+2 64M%1G 64M%0-1+1 exactmap 640K@0
    0x8086:0x10c9:b 8086:10c9:b :: b, off fake=4 noacpi 0x ff deadbeef,1 ttyS0,115200
""".split()
ODD = "=,:;@$#!%+-*/\\\"' \t\n\v\f\r\0\x7f\xa0\u2013\u201c\u00e9\U0001f37f\ud800NALLxXkKmMgGeE0189."


def word(random: Random) -> str:
    made = random.choice(NAMES)
    if random.random() < 0.9:
        joints = random.choice(("", ",", ",", ",,", "-", "@", " "))
        made += "=" + joints.join(random.choices(VALUES, k=random.choice((1, 1, 1, 2, 3, 20))))
    return made


def line(random: Random) -> str:
    words = [word(random) for _ in range(random.choice((1, 1, 2, 3, 5, 12, 40)))]
    if random.random() < 0.1:
        words.insert(
            random.randrange(len(words) + 1), random.choice(("--", '"', '"--"', "mklinux"))
        )
    text = random.choice((" ", " ", "  ", "\t")).join(words)
    for _ in range(random.choice((0, 0, 1, 2, 8))):
        place = random.randrange(len(text) + 1)
        what = random.random()
        if what < 0.4:
            text = text[:place] + random.choice(ODD) + text[place:]
        elif what < 0.7:
            text = text[:place] + text[place + random.randrange(1, 4) :]
        elif what < 0.85:
            text = text[:place] + text[place : place + 9] * random.randrange(2, 30) + text[place:]
        else:
            text = text[:place] + random.choice(VALUES) + text[place:]
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lines", nargs="?", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine", default="h8qg6-64")
    asked = parser.parse_args()
    random, machine = Random(asked.seed), Machine.load(asked.machine)
    slowest, culprit, panics = 0.0, "", 0
    started = time.perf_counter()
    for count in range(asked.lines):
        text = line(random)
        start = time.process_time()
        try:
            seen = apply(parse(text), machine, popcorn=random.random() < 0.8)
            seen.line.explain()
            seen.describe()
        except Exception:
            print(f"line {count} of seed {asked.seed}: {text!r}")
            raise
        took = (time.process_time() - start) * 1000
        panics += bool(seen.panic)
        if took > slowest:
            slowest, culprit = took, text
    print(f"{asked.lines:,} lines in {time.perf_counter() - started:.0f} s, no exception")
    print(f"{panics / max(asked.lines, 1):.0%} would not boot")
    print(f"slowest: {slowest:.1f} ms, {culprit[:300]!r}")
    return int(slowest > SLOWEST_MS)


if __name__ == "__main__":
    sys.exit(main())

"""How long it takes to divide a large machine and to boot a divided one.

The large machine is the SGI UV 2000 with 384 CPUs. Each row runs in a process of its own, so
that nothing is warm but the machine's file in the disk cache; the baseline is reading that file.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

ROUNDS = 3
UV = "uv2000-384"

READ = f"from popcorn_edu.model.machine import Machine; m = Machine.load('{UV}')"
BUILD = "from popcorn_edu.model.partition import Partition"
ROWS = {  # name: (what is prepared, what is timed, target in ms or None)
    "read the UV 2000's file (baseline)": (
        "from popcorn_edu.model.machine import Machine",
        f"Machine.load('{UV}')",
        None,
    ),
    "plan it, one kernel a node, and check": (
        f"{READ}; {BUILD}",
        "Partition.build(m, grouping='per node', memory='per node').problems()",
        100,
    ),
    "plan it, one kernel a package, and check": (
        f"{READ}; {BUILD}",
        "Partition.build(m, grouping='per package', memory='per node').problems()",
        100,
    ),
    "group it at least cost, 24 kernels": (
        f"{READ}; from popcorn_edu.model import grouping",
        "grouping.group(m, 'least cost', kernels=24)",
        2_000,
    ),
    "boot 64 kernels, full trace": (
        "from popcorn_edu import scenarios",
        "scenarios.boot_64()",
        2_000,
    ),
}
PROGRAM = """
import gc, time
{prepare}
gc.collect(); gc.freeze()
start = time.process_time()
{timed}
print(time.process_time() - start)
"""


def seconds(prepare: str, timed: str) -> float:
    program = PROGRAM.format(prepare=prepare, timed=timed)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    rounds = parser.parse_args(arguments).rounds
    base = 0.0
    print(f"  {'':<44}{'CPU ms':>8}{'ratio':>9}")
    for name, (prepare, timed, target_ms) in ROWS.items():
        spent = statistics.median(seconds(prepare, timed) for _ in range(rounds))
        base = base or spent
        verdict = ""
        if target_ms is not None:
            verdict = f"  target <= {target_ms:,} ms: " + (
                "met" if spent * 1000 <= target_ms else "MISSED"
            )
        print(f"  {name:<44}{spent * 1000:>8,.0f}{spent / base:>8.2f}x{verdict}")


if __name__ == "__main__":
    main()

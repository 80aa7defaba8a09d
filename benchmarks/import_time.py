"""What `import popcorn_edu` costs, and each name of the front door on its first use.

A notebook that is graded pays for every import it makes, once per student. So the front door
loads a name when it is first used; here is what that is worth.

    python benchmarks/import_time.py [ROUNDS]

Each figure is CPU time of a fresh interpreter, net of a bare one that ran just before it; the
median of the rounds. Times depend on the machine, so judge the ratio to the bare interpreter.
"""

import statistics
import subprocess
import sys

TARGET_MS = 100  # net, for the import alone
ROUNDS = 7
HEAVY = "numpy bokeh networkx IPython ipywidgets simpy nbgrader".split()

REPORT = f"""
import sys, time
print(time.process_time() * 1000, ','.join(m for m in {HEAVY} if m in sys.modules) or '-')
"""


def cpu_ms(code: str) -> tuple[float, str]:
    """CPU time of one interpreter that ran the code, and which heavy modules it loaded."""
    output = subprocess.run(
        [sys.executable, "-c", code + REPORT], check=True, capture_output=True, text=True
    ).stdout
    time_ms, heavy = output.split()
    return float(time_ms), heavy


def net_ms(code: str, rounds: int) -> tuple[float, float, str]:
    """Median of (with the code, minus bare), the bare median, and the heavy modules loaded."""
    pairs = [(cpu_ms(""), cpu_ms(code)) for _ in range(rounds)]  # interleaved: load hits both
    bare = statistics.median(time_ms for (time_ms, _), _ in pairs)
    net = statistics.median(full - time_ms for (time_ms, _), (full, _) in pairs)
    return net, bare, pairs[0][1][1]


def main() -> None:
    import popcorn_edu

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"{'what':32} {'net ms':>8} {'x bare':>7}  heavy modules loaded")
    net, bare, heavy = net_ms("import popcorn_edu", rounds)
    print(f"{'import popcorn_edu':32} {net:8.1f} {net / bare:7.2f}  {heavy}")
    for name in popcorn_edu.__all__:
        if name.startswith("__"):
            continue
        code = f"import popcorn_edu; popcorn_edu.{name}"
        try:
            time_ms, bare_ms, loaded = net_ms(code, max(1, rounds // 3))
        except subprocess.CalledProcessError as problem:
            print(f"popcorn_edu.{name:20} {'–':>8} {'–':>7}  {problem.stderr.splitlines()[-1]}")
            continue
        print(f"popcorn_edu.{name:20} {time_ms:8.1f} {time_ms / bare_ms:7.2f}  {loaded}")
    verdict = "met" if net <= TARGET_MS and heavy == "-" else "MISSED"
    print(f"target: import popcorn_edu <= {TARGET_MS} ms net, no heavy module: {verdict}")


if __name__ == "__main__":
    main()

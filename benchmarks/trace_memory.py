"""What a record of a trace costs in memory, at a million records.

    python benchmarks/trace_memory.py [RECORDS]

Two measurements, each in a fresh process: what Python's own accounting (tracemalloc) says that
the trace holds, names and shared values included; and by how much the process has grown after
a run (resident memory, so with everything that a run keeps: its arguments, allocator waste).
Both after every column has been read, which is when they are largest. The baseline beside them
is the same records as plain tuples in a list.
"""

import gc
import json
import subprocess
import sys
import tracemalloc

RECORDS = 1_000_000
TARGET_BYTES = 64
RECORDS_A_MESSAGE = 6
SENDERS = 64


def resident_bytes() -> int:
    """Memory of this process that is really there, by whatever the system offers for it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            import resource

            return int(statm.read().split()[1]) * resource.getpagesize()
    except (OSError, ImportError):
        import psutil  # Windows and macOS: pip install psutil

        return psutil.Process().memory_info().rss


def play(records: int):
    from popcorn_edu import scenarios

    senders = min(SENDERS, max(1, records // RECORDS_A_MESSAGE))
    messages = max(1, records // RECORDS_A_MESSAGE // senders)
    run = scenarios.fan_in(machine="epyc-96", kernels=senders + 1, messages=messages, gap_ns=34_000)
    run.trace.nbytes()  # reads every column
    return run


def measure(what: str, records: int) -> dict:
    play(1)  # what is imported and cached once is no record's cost
    gc.collect()
    if what == "process":
        before = resident_bytes()
        run = play(records)
        gc.collect()
        return {"bytes": resident_bytes() - before, "records": len(run.trace)}
    if what == "tuples":
        kept = play(records).trace
        tracemalloc.start()
        rows = [(seq, time, who, cause, tuple(event)) for seq, time, who, cause, event in kept]
        return {"bytes": tracemalloc.get_traced_memory()[0], "records": len(rows)}
    tracemalloc.start()
    trace = play(records).trace  # the run itself is dropped
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    return {"bytes": held, "records": len(trace), "columns": trace.nbytes()}


def main() -> None:
    if len(sys.argv) > 2:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
        return
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    found = {}
    for what in ("tuples", "trace", "process"):
        answer = subprocess.run(
            [sys.executable, __file__, what, str(records)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        found[what] = json.loads(answer)
    bytes_each = {what: f["bytes"] / f["records"] for what, f in found.items()}
    columns = found["trace"]["columns"] / found["trace"]["records"]
    base = bytes_each["tuples"]
    print(f"{found['trace']['records']:,} records of the fan-in scenario")
    print(f"  {'':<44}{'B a record':>10}{'ratio':>8}")
    for name, value in (
        ("records as tuples in a list", base),
        ("trace, its columns alone", columns),
        ("trace, with names, by tracemalloc", bytes_each["trace"]),
        ("growth of the process by the whole run", bytes_each["process"]),
    ):
        print(f"  {name:<44}{value:>10.1f}{value / base:>8.2f} x")
    verdict = "met" if max(bytes_each["trace"], bytes_each["process"]) <= TARGET_BYTES else "MISSED"
    print(f"target: <= {TARGET_BYTES} B a record, by both measurements: {verdict}")


if __name__ == "__main__":
    main()

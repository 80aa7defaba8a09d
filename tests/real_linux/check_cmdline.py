"""What a real Linux makes of a command line: boot it and look.

    python tests/real_linux/check_cmdline.py            # boot every line, compare with the table
    python tests/real_linux/check_cmdline.py --write    # boot every line, write the table anew
    python tests/real_linux/check_cmdline.py --new      # boot what is not in the table, and add it
    python tests/real_linux/check_cmdline.py "maxcpus=2 mem=1G"     # boot one line, show its row

Run by hand on Debian (it is not part of the test suite, which reads the table it wrote):
``apt install qemu-system-x86 cpio``. Debian's kernel and its busybox are fetched with ``apt-get
download`` and unpacked beside each other; nothing is installed. The processors are QEMU's own
(TCG), which is the same everywhere; a boot takes about four seconds.

Each line of lines.txt is handed to a fresh virtual machine of eight CPUs, two NUMA nodes and
6 GiB, behind a few words of our own. Its only program prints what the kernel says of itself, and
the machine ends. A machine that never gets that far has told us something too: its last words.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
LINES = HERE / "lines.txt"
TABLE = HERE.parent / "data" / "real_linux_cmdline.json"

OURS = "console=ttyS0 earlyprintk=serial,ttyS0,115200 panic=-1 loglevel=5"
MACHINE = (
    "-nodefaults -display none -no-reboot -serial stdio -machine pc-q35-7.2 -cpu qemu64 "
    "-m 6G -smp 8,sockets=2,cores=4,threads=1 "
    "-object memory-backend-ram,id=m0,size=3G -object memory-backend-ram,id=m1,size=3G "
    "-numa node,nodeid=0,cpus=0-3,memdev=m0 -numa node,nodeid=1,cpus=4-7,memdev=m1"
)
BOOT_SECONDS = 40  # ten times what a boot takes

INIT = """#!/bin/busybox sh
PATH=/
b=/bin/busybox
$b mkdir -p /proc /sys /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
exec > /dev/ttyS0
$b echo
$b echo "=== begin"
for word in "$@"; do $b echo "argument: $word"; done
$b cat /proc/1/environ | $b tr '\\000' '\\n' | $b sed 's/^/environment: /'
$b echo "command line: $($b cat /proc/cmdline)"
$b echo "version: $($b cat /proc/version)"
for file in possible present online isolated nohz_full; do
    $b echo "$file: $($b cat /sys/devices/system/cpu/$file)"
done
$b echo "nodes: $($b cat /sys/devices/system/node/online)"
$b echo "irq_affinity: $($b cat /proc/irq/default_smp_affinity)"
$b grep -c IO-APIC /proc/interrupts | $b sed 's/^/io_apic_lines: /'
$b grep 'System RAM' /proc/iomem | $b grep -v '^ ' | $b sed 's/^/iomem: /'
$b dmesg | $b grep -E ' user: | BIOS-e820: |Malformed|Unknown kernel|Housekeeping|isolcpus' \\
    | $b sed 's/^/log: /'
$b echo "=== end"
$b poweroff -f
"""


def fetch(folder: Path) -> tuple[Path, Path]:
    """The kernel and busybox of this Debian, unpacked in the folder."""
    kernels = list(folder.glob("x/boot/vmlinuz-*"))
    if not kernels:
        folder.mkdir(parents=True, exist_ok=True)
        needs = subprocess.check_output(["apt-cache", "depends", "linux-image-cloud-amd64"], text=1)
        package = re.search(r"Depends: (linux-image-\S+)", needs)[1]
        subprocess.run(["apt-get", "download", package, "busybox-static"], cwd=folder, check=True)
        for file in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", file, folder / "x"], check=True)
        kernels = list(folder.glob("x/boot/vmlinuz-*"))
    return kernels[0], folder / "x/bin/busybox"


def make_initramfs(folder: Path, busybox: Path) -> Path:
    """An archive of two files: busybox, and the script that prints."""
    root = folder / "root"
    (root / "bin").mkdir(parents=True, exist_ok=True)
    (root / "dev").mkdir(exist_ok=True)
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "init").write_text(INIT)
    for file in ("bin/busybox", "init"):
        (root / file).chmod(0o755)
    names = "\n".join(str(p.relative_to(root)) for p in sorted(root.rglob("*"))) + "\n"
    archive = folder / "initramfs.cpio"
    with archive.open("wb") as out:
        command = ["cpio", "-o", "-H", "newc", "--quiet"]
        subprocess.run(command, cwd=root, input=names.encode(), stdout=out, check=True)
    return archive


def boot(kernel: Path, initramfs: Path, line: str) -> str:
    """Everything the machine printed, until it ended, panicked, or said nothing for too long."""
    command = ["qemu-system-x86_64", *MACHINE.split(), "-kernel", kernel, "-initrd", initramfs]
    command += ["-append", f"{OURS} {line}"]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    patience = threading.Timer(BOOT_SECONDS, machine.kill)
    patience.start()
    said = b""
    for text in machine.stdout:
        said += text
        if b"end Kernel panic" in text or b"PANIC: early" in text or b"PANIC: " in text:
            break
        if b"Kernel panic - not syncing" in text:
            threading.Timer(1, machine.kill).start()
    machine.kill()
    machine.wait()
    patience.cancel()
    return said.decode("utf-8", "replace").replace("\r", "")


def read(line: str, output: str) -> dict:
    """A row of the table: the line, and what the kernel said of itself."""
    row = {"line": line, "boots": "=== end" in output}
    if not row["boots"]:
        said = re.search(r"Kernel panic - not syncing: (.*)|PANIC: (.*)", output)
        row["last_words"] = next(filter(None, said.groups())) if said else "silence"
        return row
    facts = output.split("=== begin\n")[1].split("=== end")[0].splitlines()
    for name in ("possible", "present", "online", "isolated", "nohz_full", "nodes", "irq_affinity"):
        row[name] = next(f.split(": ", 1)[1] for f in facts if f.startswith(f"{name}:")).strip()
    row["nohz_full"] = row["nohz_full"].replace("(null)", "")
    row["io_apic"] = "io_apic_lines: 0" not in facts
    row["map"] = [map_entry(fact) for fact in facts if " user: [mem" in fact]
    row["system_ram"] = [
        [int(end, 16) for end in re.findall("[0-9a-f]{5,}", fact)]
        for fact in facts
        if fact.startswith("iomem:")
    ]
    logged = [fact for fact in facts if fact.startswith("log:")]
    row["malformed"] = re.findall("Malformed early option '(.*)'", "\n".join(logged))
    row["remarks"] = [
        re.sub(r"^log: \S*\s*\[[ .0-9]*\] ", "", fact)
        for fact in logged
        if re.search(r"\] (Housekeeping|isolcpus)", fact)
    ]
    unknown = re.findall('parameters "(.*)", will be', "\n".join(logged))
    row["unknown"] = unknown[0] if unknown else ""
    row["arguments"] = [f.split(": ", 1)[1] for f in facts if f.startswith("argument:")]
    row["environment"] = [
        f.split(": ", 1)[1]
        for f in facts
        if f.startswith("environment: ") and not re.match("environment: (HOME=/|TERM=linux)$", f)
    ]
    return row


def row_of(kernel: Path, initramfs: Path, line: str) -> dict:
    row = read(line, boot(kernel, initramfs, line))
    print("boots" if row["boots"] else row["last_words"], ascii(line), sep="\t", flush=True)
    return row


def map_entry(fact: str) -> list:
    """[start, end (exclusive), kind] of a line of the memory map in the kernel's log."""
    start, last, kind = re.search(r"\[mem (0x\w+)-(0x\w+)\] (.*)", fact).groups()
    return [int(start, 16), int(last, 16) + 1, kind]


def provenance(kernel: Path, initramfs: Path) -> dict:
    output = boot(kernel, initramfs, "")
    facts = output.split("=== begin\n")[1].splitlines()
    version = next(f for f in facts if f.startswith("version:")).removeprefix("version: ")
    qemu = subprocess.check_output(["qemu-system-x86_64", "--version"], text=True).splitlines()[0]
    return {
        "what": "What Debian's kernel made of each command line; written by "
        "tests/real_linux/check_cmdline.py, never by hand.",
        "kernel": version,
        "package": kernel.name.removeprefix("vmlinuz-"),
        "qemu": qemu,
        "machine": MACHINE,
        "words_before_each_line": OURS,
        "date": datetime.now(UTC).date().isoformat(),
        "bios_map": [map_entry(fact) for fact in facts if "BIOS-e820: [mem" in fact],
    }


def lines() -> list[str]:
    """The lines of lines.txt, and three that just fit into a kernel's buffer or do not."""
    texts = LINES.read_text(encoding="utf-8").splitlines()
    room = 2047 - len(OURS) - len(" maxcpus=2 x=")
    long = ["maxcpus=2 x=" + "y" * more + " nr_cpus=3" for more in (room - 10, room - 9, room)]
    return [text for text in texts if text and not text.startswith("# ")] + long


def table() -> dict[str, dict]:
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]
    return {row["line"]: row for row in rows}


def write_table(about: dict, rows: list[dict]) -> None:
    head = json.dumps({"provenance": about}, indent=1)[:-2]
    body = ",\n  ".join(json.dumps(row) for row in rows)
    TABLE.write_text(f'{head},\n "rows": [\n  {body}\n ]\n}}\n', encoding="utf-8")
    print(f"{len(rows)} rows written to {TABLE.name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("line", nargs="?", help="boot this line only and show its row")
    parser.add_argument("--write", action="store_true", help="write the table anew")
    parser.add_argument("--new", action="store_true", help="add the lines that are not in it")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "real_linux")
    parser.add_argument("--log", action="store_true", help="with LINE: all that was printed")
    asked = parser.parse_args()
    kernel, busybox = fetch(asked.folder)
    initramfs = make_initramfs(asked.folder, busybox)
    if asked.line is not None:
        output = boot(kernel, initramfs, asked.line)
        print(output if asked.log else json.dumps(read(asked.line, output), indent=1))
        return 0
    known = table() if asked.new or not asked.write else {}
    wanted = [line for line in lines() if not (asked.new and line in known)]
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(partial(row_of, kernel, initramfs), wanted))
    if asked.write or asked.new:
        found = known | {row["line"]: row for row in rows}
        write_table(provenance(kernel, initramfs), [found[line] for line in lines()])
        return 0
    changed = [row for row in rows if known.get(row["line"]) != row]
    for row in changed:
        print("was", json.dumps(known.get(row["line"])), "\nis ", json.dumps(row))
    print(f"{len(rows)} lines, {len(changed)} differ from the table")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())

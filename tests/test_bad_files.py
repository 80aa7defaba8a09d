"""Bad files: every malformed map, table, listing and plan gets one sentence that its owner can use.

The cases and their golden sentences are in data/bad_inputs.txt, which says how to read it.
Whoever changes a sentence should read it as a student would.
"""

import re
from pathlib import Path

import pytest

from popcorn_edu import datasets
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.firmware import read_acpi, read_boot_log
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.partition import Partition
from popcorn_edu.model.pci import read_interrupts, read_lspci, read_pci_csv

ROOT = Path(__file__).resolve().parent.parent
CASES = Path(__file__).parent / "data" / "bad_inputs.txt"
HEAD = re.compile(r"\[([\w ]+)\] (.+)")
STEP = re.compile(r"(?:(\w+) )?(\||take|with|drop|twice|keep|put!?|path|plan)(?: (.*))?")
READERS = {
    "boot log": read_boot_log,
    "acpi": read_acpi,
    "lspci": read_lspci,
    "csv": read_pci_csv,
    "interrupts": read_interrupts,
}


def cases():
    """(reader, name, steps, golden sentence) of every case in the file."""
    blocks = CASES.read_text(encoding="utf-8").split("\n\n[")[1:]
    for block in blocks:
        head, *lines = ("[" + block).splitlines()
        reader, name = HEAD.fullmatch(head).groups()
        at = next(n for n, line in enumerate(lines) if line.startswith("= "))
        golden = " ".join([lines[at][2:], *map(str.strip, lines[at + 1 :])]).strip()
        yield reader, name, lines[:at], golden


def tables_of(text):
    """The bytes of each table of a dump, for changing them."""
    tables, name = {}, None
    for line in text.splitlines():
        if "@" in line:
            name = line.split()[0]
            tables[name] = bytearray()
        elif line.strip():
            tables[name] += bytes.fromhex(line[10:57].rstrip())
    return tables


def dumped(tables):
    lines = []
    for name, data in tables.items():
        lines.append(f"{name} @ 0x0000000000000000")
        lines += [
            f"    {at:04X}: {data[at : at + 16].hex(' ').upper()}" for at in range(0, len(data), 16)
        ]
        lines.append("")
    return "\n".join(lines)


def put(text, words, mend):
    """Bytes of one table changed; with ``mend`` its checksum is right again."""
    table, at, *bytes_ = words.split()
    tables = tables_of(text)
    data, at = tables[table], int(at, 16)
    data[at : at + len(bytes_)] = bytes.fromhex("".join(bytes_))
    if mend:
        data[9] = (data[9] - sum(data)) & 0xFF
    return dumped(tables)


def changed(text, step, rest):
    lines = text.splitlines()
    if step == "|":
        return text + (rest or "") + "\n"
    if step == "take":
        return datasets.read_text(rest)
    if step == "with":
        middle = rest.rindex(" -> ") if "SRAT: PXM" not in rest else rest.index(" -> SRAT")
        old, new = rest[:middle], rest[middle + 4 :]
        assert old in text, old
        return text.replace(old, new, 1)
    if step in ("put", "put!"):
        return put(text, rest, mend=step == "put")
    number = int(rest)
    if step == "keep":
        lines = lines[:number]
    elif step == "drop":
        del lines[number - 1]
    else:
        lines.insert(number, lines[number - 1])
    return "\n".join(lines) + "\n"


def ask(reader, steps, tmp_path):
    """What the case does."""
    parts = {}
    for line in steps:
        part, step, rest = STEP.fullmatch(line).groups()
        if step == "path":
            parts[part] = rest if rest.startswith(("nowhere", "tests")) else ROOT / rest
        elif step == "plan":
            machine, grouping, memory = rest.split(", ")
            plan = Partition.build(machine, grouping=grouping, memory=memory)
            parts[part] = plan.save(tmp_path / "plan").read_text(encoding="utf-8")
        else:
            parts[part] = changed(parts.get(part, ""), step, rest)
    if reader == "files":
        return Machine.from_files(**parts)
    text = parts.get(None, "")
    if reader == "plan":
        path = tmp_path / "mine.plan"
        path.write_text(text, encoding="utf-8")
        problems = Partition.load(path).problems()
        if problems:
            raise PopcornError(" / ".join(problems))
        return None
    return READERS[reader](text)


ALL = list(cases())


@pytest.mark.parametrize(
    ("reader", "steps", "golden"),
    [pytest.param(*case[:1], *case[2:], id=f"{case[0]}: {case[1]}") for case in ALL],
)
def test_a_bad_file_gives_its_sentence(reader, steps, golden, tmp_path, monkeypatch):
    """Word by word."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(PopcornError) as caught:
        ask(reader, steps, tmp_path)
    assert str(caught.value) == golden


def test_there_are_many_of_them():
    """Together with the command lines and the scenarios more than two hundred."""
    assert len(ALL) >= 80
    assert len({(reader, name) for reader, name, _, _ in ALL}) == len(ALL)

"""Plans that other people made, in our words: what acrn.py and kerf.py read files into.

Others divide real machines too. Each of their files becomes shares, one for each kernel; what the
file says and a share cannot hold becomes a remark, so that nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.firmware import MemoryRange
from popcorn_edu.model.machine import Machine

FILE_BYTES_AT_MOST = 8 << 20


class Share(NamedTuple):
    """What one kernel of a foreign plan gets."""

    name: str
    cpus: tuple[int, ...]
    memory: tuple[MemoryRange, ...] = ()
    devices: tuple[str, ...] = ()
    parameters: str = ""


@dataclass(frozen=True)
class Foreign:
    """A foreign plan: its machine, its shares (the primary's first), and what got lost."""

    machine: Machine
    shares: tuple[Share, ...]
    remarks: tuple[str, ...]


def without(ranges: Iterable[MemoryRange], taken: Iterable[MemoryRange]) -> tuple:
    """The ranges, with what is taken cut out.

    >>> without([MemoryRange(0, 10)], [MemoryRange(3, 5)])
    (MemoryRange(start=0, end=3, kind='usable'), MemoryRange(start=5, end=10, kind='usable'))
    """
    left = list(ranges)
    for cut in taken:
        left = [
            piece
            for whole in left
            for piece in (
                whole._replace(end=min(whole.end, cut.start)),
                whole._replace(start=max(whole.start, cut.end)),
            )
            if piece.start < piece.end
        ]
    return tuple(dict.fromkeys(left))


def text_and_name(source: str | Path, what: str, opening: str) -> tuple[str, str]:
    """The text at a path, or the text itself, and what to call it in a sentence."""
    if not isinstance(source, (str, Path)):
        raise PopcornError(
            f"{what} is read from its text or from the path of a file, not from a value of type "
            f"{type(source).__name__}."
        )
    if isinstance(source, str) and (opening in source or "\n" in source):
        return source, what
    path = Path(source)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "this is no path"
        raise PopcornError(f"{str(source)[:200]!r}: {why}, where {what} was expected.") from None
    if len(data) > FILE_BYTES_AT_MOST:
        raise PopcornError(
            f"{path.name} has {len(data):,} bytes; {what} of at most {FILE_BYTES_AT_MOST:,} was "
            "expected."
        )
    return data.decode("utf-8-sig", "replace"), path.name

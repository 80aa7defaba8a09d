"""Lab 03, task i4: a student's disjoint_and_covered(), let loose on good and bad divisions.

Each division is made by the model and then changed by a plant: most plants make it bad, some only
look as if they did. Bad ones found count for the student, false alarms against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from popcorn_edu.grading.divisions import MACHINES, Span, fresh_case
from popcorn_edu.grading.guard import StudentCodeError, call
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import memory
from popcorn_edu.model.carving import down, merged, without
from popcorn_edu.model.firmware import MIB, MemoryRange
from popcorn_edu.model.machine import Machine

Piece = tuple[int, int, str]  # start, end, owner


class Maps(NamedTuple):
    """All RAM, and whose each piece of it is said to be."""

    ram: list[Span]
    pieces: list[Piece]

    @property
    def first_bad(self) -> int | None:
        """The lowest address that is in RAM and not in exactly one piece, or in a piece only."""
        spans = [piece[:2] for piece in self.pieces]
        covered = merged(spans)
        bad = without(self.ram, covered) + without(covered, merged(self.ram))
        last = 0
        for start, end in sorted(spans):
            if start < last:
                bad.append((start, end))
            last = max(last, end)
        return min(bad)[0] if bad else None


def good_maps(rng) -> Maps:
    """A division as the model makes it, of a real machine or a small map, in pieces."""
    if rng.random() < 0.4:
        machine = Machine.load(rng.choice(tuple(MACHINES)))
    else:
        case = fresh_case(rng)
        machine = replace(
            Machine.synthetic(1, 1, 12),
            memory_map=tuple(MemoryRange(*span) for span in case.ram),
        )
    count = rng.randrange(2, min(9, len(machine.cpus)))
    plan = memory.carve(
        machine, [(cpu,) for cpu in machine.cpus[:count]], reserve_bytes=64 * MIB,
        granule_bytes=64 * MIB,
    )  # fmt: skip
    pieces = [
        (start, end, f"kernel {kernel}")
        for kernel, mine in enumerate(plan.kernels)
        for start, end, _ in mine
    ]
    pieces.append((*plan.reserved[:2], "reserve"))
    pieces += [(loss.start, loss.end, "lost") for loss in plan.losses]
    return Maps([(start, end) for start, end, _ in machine.ram], sorted(pieces))


def some_piece(rng, maps: Maps, least: int = 8192) -> int:
    """The place of a piece that is long enough, and not at the end of all RAM."""
    top = maps.ram[-1][1]
    return rng.choice(
        [n for n, (start, end, _) in enumerate(maps.pieces) if end - start >= least and end < top]
    )


def pages(rng, piece: Piece) -> int:
    """Some of the piece's pages, in bytes; not all."""
    return rng.randrange(1, (piece[1] - piece[0]) // 4096) * 4096


def overlapping(rng, maps):
    """A piece ends too late: its last pages are somebody else's too."""
    place = rng.choice(
        [n for n, piece in enumerate(maps.pieces) if any(p[0] == piece[1] for p in maps.pieces)]
    )
    start, end, owner = maps.pieces[place]
    neighbour = next(p for p in maps.pieces if p[0] == end)
    more = 4096 * rng.randrange(1, max((neighbour[1] - neighbour[0]) // 4096, 2))
    maps.pieces[place] = start, end + more, owner


def swallowed(rng, maps):
    """A piece lies in the middle of another one."""
    start, end, _ = maps.pieces[some_piece(rng, maps, 16_384)]
    middle = down((start + end) // 2, 4096)
    maps.pieces.append((middle, middle + 4096, "kernel 9"))


def given_twice(rng, maps):
    """The same piece stands in the list twice."""
    maps.pieces.append(maps.pieces[some_piece(rng, maps)])


def cut_short(rng, maps):
    """A piece ends too early: the pages behind it are nobody's."""
    place = some_piece(rng, maps)
    start, end, owner = maps.pieces[place]
    maps.pieces[place] = start, end - pages(rng, maps.pieces[place]), owner


def left_out(rng, maps):
    """A piece is missing: its RAM is nobody's."""
    del maps.pieces[some_piece(rng, maps)]


def last_left_out(rng, maps):
    """The highest piece is missing, so that RAM goes on behind all pieces."""
    maps.pieces.remove(max(maps.pieces))


def into_the_hole(rng, maps):
    """A piece reaches where there is no RAM."""
    ends = {end for _, end in maps.ram}
    place = rng.choice([n for n, (_, end, _) in enumerate(maps.pieces) if end in ends])
    start, end, owner = maps.pieces[place]
    maps.pieces[place] = start, end + 4096, owner


def two_at_once(rng, maps):
    """Two things are wrong, in two places: the lower one is asked for."""
    left_out(rng, maps)
    into_the_hole(rng, maps)


def far_apart(rng, maps):
    """The lowest piece is missing, and the highest one, too."""
    del maps.pieces[0]
    last_left_out(rng, maps)


def untouched(rng, maps):
    """As the model made it."""


def in_two_pieces(rng, maps):
    """A piece is written as two that touch: still good."""
    place = some_piece(rng, maps)
    start, end, owner = maps.pieces[place]
    middle = start + pages(rng, maps.pieces[place])
    maps.pieces[place] = start, middle, owner
    maps.pieces.append((middle, end, owner))


def across_the_line(rng, maps):
    """The line between two owners moves: one has more, the other less, and all is still good."""
    place = rng.choice(
        [
            n
            for n, (start, end, _) in enumerate(maps.pieces[:-1])
            if end - start >= 8192 and maps.pieces[n + 1][0] == end
        ]
    )
    (start, end, owner), (_, last, other) = maps.pieces[place : place + 2]
    middle = end - pages(rng, maps.pieces[place])
    maps.pieces[place : place + 2] = (start, middle, owner), (middle, last, other)


PLANTS = (
    overlapping, untouched, swallowed, cut_short, in_two_pieces, into_the_hole, given_twice,
    left_out, across_the_line, two_at_once, last_left_out, far_apart,
)  # fmt: skip


class Hunted(NamedTuple):
    plant: Callable
    maps: Maps
    broken: int | None  # the truth
    said: int | None


class MapHunt:
    """A student's disjoint_and_covered(), let loose on good and bad divisions."""

    ROUNDS = {"public": 2, "fresh": 4}

    def __init__(self, function: Callable, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[str, list[Hunted]] = {}
        self.of("public")

    def of(self, name: str) -> list[Hunted]:
        if name not in self._done:
            rng = self.variant.rng(f"maps {name}")
            self._done[name] = [
                self._hunted(plant, rng) for _ in range(self.ROUNDS[name]) for plant in PLANTS
            ]
        return self._done[name]

    def _hunted(self, plant: Callable, rng) -> Hunted:
        maps = good_maps(rng)
        plant(rng, maps)
        rng.shuffle(maps.pieces)
        said = call(self.function, maps.ram, maps.pieces)
        if said is not None and type(said) is not int:
            raise StudentCodeError(
                f"{self.function.__name__} returned {said!r:.40}; expected None, or the lowest bad "
                "address: a whole number"
            )
        return Hunted(plant, maps, maps.first_bad, said)


def catches(which: str, at_its_address: bool):
    """Share of bad divisions found minus share of false alarms."""

    def holds(hunt: MapHunt, variant: Variant):
        hunted = hunt.of(which)
        bugs = [h for h in hunted if h.broken is not None]
        alarms = [h for h in hunted if h.broken is None and h.said is not None]
        caught = [
            h for h in bugs if h.said is not None and (not at_its_address or h.said == h.broken)
        ]
        if len(caught) == len(bugs) and not alarms:
            return None
        share = len(caught) / len(bugs) - len(alarms) / (len(hunted) - len(bugs))
        how = "named with their address" if at_its_address else "found"
        said = f"{len(caught)} of {len(bugs)} bad ones {how}, {len(alarms)} false alarms."
        if which == "fresh":
            return Miss(said, share=share)
        why = false_alarm(alarms[0]) if alarms else let_through(bugs)
        return Miss(f"{said} {why}", share=share)

    return holds


def false_alarm(hunted: Hunted) -> str:
    here = [piece for piece in hunted.maps.pieces if piece[0] <= hunted.said < piece[1]]
    whose = (
        f"it is {here[0][2]}'s and nobody else's"
        if here
        else "no RAM is there, nor a piece; an end is the first address after its range"
    )
    if in_two_pieces is hunted.plant or across_the_line is hunted.plant:
        whose += "; pieces that only touch share no byte, for an end belongs to the next"
    return f"A false alarm at {hunted.said:#x}: {whose}."


def let_through(bugs: list[Hunted]) -> str:
    hunted = next(h for h in bugs if h.said != h.broken)
    at, maps = hunted.broken, hunted.maps
    claims = [piece[2] for piece in maps.pieces if piece[0] <= at < piece[1]]
    is_ram = any(start <= at < end for start, end in maps.ram)
    if len(claims) > 1:
        wrong = f"both {claims[0]} and {claims[1]} have it"
    elif is_ram:
        wrong = "it is RAM and in no piece"
    else:
        wrong = f"{claims[0]} has it, and there is no RAM"
    found = "let through" if hunted.said is None else f"placed at {hunted.said:#x}"
    return f"One was {found}: look at {at:#x}; {wrong}."

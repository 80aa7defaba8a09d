"""A student's own rules about devices, tried on real listings and lists that bring out each rule.

Three tasks of Lab 04. What a kernel claims is decided by ownership.py alone; the cases are drawn
so that one rule after the other matters, and fresh ones come from machines not seen before.

    as_data(listing("laptop"))   # the functions as a student's function gets them

Words
    case     one call of the student's function: a listing, a list or an entry, and the truth
    kind     the rule that a case is about
    public   the cases a student sees while working; fresh ones are drawn when the lab is graded
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from popcorn_edu import datasets
from popcorn_edu.grading.guard import StudentCodeError, call
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model.devices import (
    Buses,
    claims,
    device_of,
    is_exempt,
    ownable,
    read_flags,
    seen,
    write_flags,
)
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.ownership import HOST_BRIDGE, Verdict
from popcorn_edu.model.pci import PciFunction, read_lspci, read_pci_csv

MACHINES = {"public": ("h8qg6-64", "laptop"), "fresh": ("e5-2680-16", "kvm", "cfl-k700-i7")}
FILES = {
    "laptop": ("pci-p8010", read_pci_csv),
    "kvm": ("pci-kvm-pcidomain32", read_lspci),
}
TRIES = 2_000


@cache
def listing(name: str) -> tuple[PciFunction, ...]:
    """The PCI functions of a machine of the kit, or of a listing that comes without one."""
    if name not in FILES:
        return Machine.load(name).pci_functions
    file, read = FILES[name]
    return read(datasets.path(file).read_text(encoding="utf-8"), file)


@cache
def _buses(name: str) -> Buses:
    return Buses(listing(name))


@cache
def in_scan_order(name: str) -> tuple[PciFunction, ...]:
    return tuple(s.function for s in seen(_buses(name), "").values())


def as_data(name: str) -> list[dict]:
    """The functions as plain dictionaries, in the order in which a kernel comes to them."""
    buses = _buses(name)
    behind = {
        f.slot: bridge or ""
        for bus, bridge in buses.bridge_to.items()
        for group in buses.on[bus].values()
        for f in group
    }
    return [
        {
            "slot": f.slot,
            "id": f.vendor_device,
            "class": f.device_class,
            "behind": behind[f.slot],
        }
        for f in in_scan_order(name)
    ]


def drawn(draw: Callable, good: Callable):
    """The first of many draws that is good."""
    for _ in range(TRIES):
        if good(thing := draw()):
            return thing
    raise AssertionError("no draw brings this rule out")


def scaled(right: int, total: int) -> float:
    """The share of the points: a wrong case costs what a right one earns."""
    return 2 * right / total - 1


# -- what a kernel claims --------------------------------------------------------------------------


class Scan(NamedTuple):
    """One call of the student's ``claims``."""

    machine: str
    ids: tuple[str, ...]
    truth: frozenset[str]
    said: frozenset[str]


def ids_of(name: str) -> list[str]:
    return sorted({f.vendor_device for f in ownable(listing(name))})


def hidden_by_others(name: str, ids, verdict: Verdict) -> list[str]:
    """The devices that this list hides in this way although it does not name them."""
    return [
        slot
        for slot, s in seen(_buses(name), ids).items()
        if s.verdict is verdict
        and not is_exempt(s.function)
        and s.function.vendor_device not in ids
    ]


def nothing_listed(rng, name):
    return ()


def some_listed(rng, name):
    """A short list, each id of which hides what it names and nothing else."""
    return drawn(
        lambda: tuple(rng.sample(ids_of(name), rng.randrange(1, 4))),
        lambda ids: not any(hidden_by_others(name, ids, v) for v in BEFORE),
    )


def too_many_listed(rng, name):
    """A list whose sixteenth entry makes a difference, and whose seventeenth would make one."""

    def draw():
        own = rng.sample(ids_of(name), min(len(ids_of(name)), 14))
        strangers = [f"1234:{n:04x}" for n in range(15 - len(own[2:]))]
        before = [*own[2:], *strangers]
        rng.shuffle(before)
        after = [f"1234:{n:04x}" for n in range(90, 90 + rng.randrange(1, 6))]
        return (*before, *own[:2], *after)

    def good(ids):
        text, buses = write_flags(ids), _buses(name)
        fewer, table, more = (claims(buses, read_flags(text, room)) for room in (15, 16, 17))
        return fewer != table != more

    return drawn(draw, good)


def function_0_listed(rng, name):
    """A short list that hides more than it names: the other functions of a device."""
    return drawn(
        lambda: tuple(rng.sample(ids_of(name), rng.randrange(1, 5))),
        lambda ids: hidden_by_others(name, ids, Verdict.NOT_LOOKED_AT),
    )


def a_bridge_hidden(rng, name):
    """A short list that hides what is behind a bridge: it names the bridge, or its function 0."""
    ids = sorted({f.vendor_device for f in listing(name) if f.device_class != HOST_BRIDGE})
    return drawn(
        lambda: tuple(rng.sample(ids, rng.randrange(1, 5))),
        lambda ids: hidden_by_others(name, ids, Verdict.UNREACHED),
    )


def has_bridges(name: str) -> bool:
    return any(_buses(name).bridge_to.values())


BEFORE = (Verdict.NOT_LOOKED_AT, Verdict.UNREACHED)
KINDS = {
    "listed": (nothing_listed, some_listed, some_listed, some_listed),
    "sixteen": (too_many_listed,) * 4,
    "before": (function_0_listed, a_bridge_hidden) * 2,
}


class Scans:
    """A student's ``claims``, asked about many listings and lists."""

    def __init__(self, function, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._made: dict[tuple[str, str], list[Scan]] = {}
        self.of("public", "listed")  # what is wrong with the function itself is told at once

    def of(self, which: str, kind: str) -> list[Scan]:
        if (which, kind) not in self._made:
            rng = self.variant.rng(f"scans {which} {kind}")
            self._made[which, kind] = [
                self._drawn(rng, which, draw, n) for n, draw in enumerate(KINDS[kind])
            ]
        return self._made[which, kind]

    def _drawn(self, rng, which: str, draw: Callable, n: int) -> Scan:
        names = [m for m in MACHINES[which] if draw is not a_bridge_hidden or has_bridges(m)]
        name = names[n % len(names)]
        return self._scan(name, draw(rng, name))

    def _scan(self, name: str, ids: tuple[str, ...]) -> Scan:
        said = call(self.function, as_data(name), list(ids), returns={str})
        return Scan(name, ids, frozenset(claims(_buses(name), ids)), said)


def scans_right(which: str, *kinds: str):
    def holds(scans, variant):
        done = [scan for kind in kinds for scan in scans.of(which, kind)]
        wrong = [scan for scan in done if scan.said != scan.truth]
        if wrong:
            said = f"{len(done) - len(wrong)} of {len(done)} right."
            if which == "public":
                said += f" {first_difference(wrong[0])}"
            return Miss(said, share=scaled(len(done) - len(wrong), len(done)))

    return holds


def first_difference(scan: Scan) -> str:
    """Where the student's answer parts from the scan, with the rule that decides it."""
    where = f"{scan.machine}, {called(scan.ids)}"
    known = {f.slot: f for f in listing(scan.machine)}
    for slot in sorted(scan.said - known.keys()):
        return f"{where}: {slot!r:.40} is no slot of this listing."
    verdicts = seen(_buses(scan.machine), scan.ids)
    for slot, s in verdicts.items():
        if (slot in scan.said) == (slot in scan.truth):
            continue
        name = f"{slot} ({s.function.vendor_device}, {s.function.kind})"
        if s.verdict is Verdict.CLAIMED:
            why = "no entry in the table names it, and nothing in front of it was skipped"
            if s.function.vendor_device in scan.ids:
                place = scan.ids.index(s.function.vendor_device) + 1
                why = f"its id is entry {place}, which is dropped"
            return f"{where}: {name} is claimed: {why}."
        why = {
            Verdict.BRIDGE: "it is a bridge, which is looked through and never claimed",
            Verdict.SKIPPED: f"entry {s.entry} has its id",
            Verdict.NOT_LOOKED_AT: f"function 0 of its device, {s.because}, is skipped",
            Verdict.UNREACHED: f"the bridge {s.because} in front of it is not found",
        }[s.verdict]
        return f"{where}: {name} is not claimed: {why}."
    return f"{where}: this is not what a kernel would claim."


def called(ids: tuple[str, ...]) -> str:
    """A list for a sentence."""
    if not ids:
        return "an empty list"
    if len(ids) <= 4:
        return f"list {', '.join(ids)}"
    return f"a list of {len(ids)} ids that ends with {', '.join(ids[-2:])}"


# -- exactly one owner -----------------------------------------------------------------------------


class Claimed(NamedTuple):
    """One table of claims, where it breaks the rule, and what the student's function says."""

    machine: str
    claimed: dict[int, list[str]]
    broken: str | None
    said: object


KERNELS = 3


def sound_claims(rng, name) -> dict[int, list[str]]:
    """Every device has one owner; identical devices may well have different ones (by slot)."""
    claimed: dict[int, list[str]] = {kernel: [] for kernel in range(KERNELS)}
    for function in in_scan_order(name):
        if not is_exempt(function):
            claimed[rng.choice((0, 0, 0, 1, 2))].append(function.slot)
    return claimed


def untouched(rng, name, claimed):
    """As it was."""


def nobodys(rng, name, claimed):
    """One device is claimed by nobody."""
    kernel = drawn(lambda: rng.randrange(KERNELS), lambda k: claimed[k])
    claimed[kernel].remove(rng.choice(claimed[kernel]))


def twice(rng, name, claimed):
    """One device is claimed by another kernel as well."""
    kernel = drawn(lambda: rng.randrange(KERNELS), lambda k: claimed[k])
    slot = rng.choice(claimed[kernel])
    claimed[(kernel + rng.randrange(1, KERNELS)) % KERNELS].append(slot)


def once_lost_once_twice(rng, name, claimed):
    """As many claims as devices, and still two of them are wrong."""
    nobodys(rng, name, claimed)
    twice(rng, name, claimed)


def a_bridge_as_well(rng, name, claimed):
    """A kernel lists a bridge, another does too: that breaks no rule."""
    bridges = [f.slot for f in listing(name) if is_exempt(f)]
    for kernel in rng.sample(range(KERNELS), rng.randrange(1, 3)):
        claimed[kernel].insert(0, rng.choice(bridges))


def nothing_for_one(rng, name, claimed):
    """One kernel owns nothing at all; another has it all. Fine."""
    giver, taker = rng.sample(range(KERNELS), 2)
    claimed[taker] += claimed[giver]
    claimed[giver] = []


PLANTS = (nobodys, twice, once_lost_once_twice, untouched, a_bridge_as_well, nothing_for_one)


def first_fault(name: str, claimed: dict[int, list[str]]) -> str | None:
    """The first device, in the order of the listing, that has not exactly one owner."""
    for function in in_scan_order(name):
        owners = sum(function.slot in slots for slots in claimed.values())
        if not is_exempt(function) and owners != 1:
            return function.slot
    return None


class Owners:
    """A student's invariant, let loose on tables of claims with and without a fault."""

    ROUNDS = {"public": 2, "fresh": 3}

    def __init__(self, function, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[str, list[Claimed]] = {}
        self.of("public")

    def of(self, which: str) -> list[Claimed]:
        if which not in self._done:
            rng, names = self.variant.rng(f"owners {which}"), MACHINES[which]
            plants = PLANTS * self.ROUNDS[which]
            self._done[which] = [
                self._judged(plant, rng, names[n // len(PLANTS) % len(names)])
                for n, plant in enumerate(plants)
            ]
        return self._done[which]

    def _judged(self, plant, rng, name: str) -> Claimed:
        claimed = sound_claims(rng, name)
        plant(rng, name, claimed)
        for slots in claimed.values():
            rng.shuffle(slots)
        said = call(self.function, as_data(name), claimed)
        if said is not None and type(said) is not str:
            raise StudentCodeError(
                f"{self.function.__name__} returned {said!r:.40}; expected None, or the slot of "
                "the first device that has not exactly one owner"
            )
        return Claimed(name, claimed, first_fault(name, claimed), said)


def faults_found(which: str, exactly: bool):
    """Share of faults found minus share of false alarms; ``exactly``: at the right slot."""

    def holds(owners, variant):
        done = owners.of(which)
        faults = [c for c in done if c.broken is not None]
        alarms = [c for c in done if c.broken is None and c.said is not None]
        found = [c for c in faults if c.said is not None and (not exactly or c.said == c.broken)]
        if len(found) == len(faults) and not alarms:
            return None
        share = len(found) / len(faults) - len(alarms) / (len(done) - len(faults))
        how = "at the right device" if exactly else "found"
        said = f"{len(found)} of {len(faults)} faults {how}, {len(alarms)} false alarms."
        if which == "public":
            said += f" {_alarm(alarms[0]) if alarms else _missed(faults)}"
        return Miss(said, share=share)

    return holds


def _alarm(claimed: Claimed) -> str:
    function = next((f for f in listing(claimed.machine) if f.slot == claimed.said), None)
    if function is None:
        return f"A false alarm on {claimed.machine}: {claimed.said!r:.40} is no slot there."
    if is_exempt(function):
        return f"A false alarm on {claimed.machine}: {function.slot} is a bridge, and exempt."
    who = [str(k) for k, slots in claimed.claimed.items() if function.slot in slots]
    return (
        f"A false alarm on {claimed.machine}: {function.slot} has one owner, kernel {who[0]}. "
        "Other kernels may own other cards with the same id."
    )


def _missed(faults: list[Claimed]) -> str:
    claimed = next(c for c in faults if c.said != c.broken)
    who = [str(k) for k, slots in claimed.claimed.items() if claimed.broken in slots]
    said = "nothing" if claimed.said is None else claimed.said
    return (
        f"On {claimed.machine} you found {said}, but {claimed.broken} is claimed by "
        f"{'kernels ' + ' and '.join(who) if who else 'no kernel'}."
    )


# -- entries that name slots -----------------------------------------------------------------------


class Hidden(NamedTuple):
    """One call of the student's ``hides``."""

    kind: str
    entry: str
    function: dict
    truth: bool
    said: bool


def hidden_by(entry: str, function: dict) -> bool:
    """The rule: an id, or after an @ a slot or a device, whose domain is 0000 if it is left out."""
    if not entry.startswith("@"):
        return entry == function["id"]
    place = entry[1:] if entry.count(":") == 2 else f"0000:{entry[1:]}"
    return place in (function["slot"], device_of(function["slot"]))


def an_id(rng, data):
    function = rng.choice(data)
    return rng.choice((function["id"], rng.choice(data)["id"])), function


def a_slot(rng, data):
    function = rng.choice(data)
    return f"@{rng.choice((function, neighbour(rng, data, function)))['slot']}", function


def a_short_slot(rng, data):
    """Without its domain; in another domain the same place is another device."""
    function = rng.choice(data)
    entry = f"@{short(rng.choice((function, neighbour(rng, data, function)))['slot'])}"
    if rng.random() < 0.75:
        entry = f"@{short(function['slot'])}"
        function = function | {"slot": f"{rng.choice(('0001', '10000'))}:{entry[1:]}"}
    return entry, function


def a_device(rng, data):
    """With its domain or without. The text "00:00" is in every slot of bus 0, and means little."""
    function = rng.choice(data)
    if rng.random() < 0.6:
        return "@00:00", function
    place = device_of(rng.choice((function, neighbour(rng, data, function)))["slot"])
    return rng.choice((f"@{place}", f"@{short(place)}")), function


def short(slot: str) -> str:
    return slot.partition(":")[2]


def neighbour(rng, data, function) -> dict:
    """One of the functions whose slots are most easily taken for this one's."""
    near = [f for f in data if f is not function and f["slot"][:-3] == function["slot"][:-3]]
    return rng.choice(near or data)


FORMS = {"ids": an_id, "slots": a_slot, "short": a_short_slot, "devices": a_device}
EACH = 8


class Hides:
    """A student's ``hides``, asked about entries of every form."""

    def __init__(self, function, variant: Variant) -> None:
        self.function, self.variant = function, variant
        self._done: dict[tuple[str, str], list[Hidden]] = {}
        self.of("public", "ids")

    def of(self, which: str, form: str) -> list[Hidden]:
        if (which, form) not in self._done:
            rng = self.variant.rng(f"hides {which} {form}")
            self._done[which, form] = list(self._asked(rng, which, form))
        return self._done[which, form]

    def _asked(self, rng, which: str, form: str) -> Iterator[Hidden]:
        """As many that are hidden as are not: nobody is right by always saying the same."""
        for n in range(EACH):
            data = as_data(MACHINES[which][n // 2 % len(MACHINES[which])])
            entry, function = drawn(
                lambda data=data: FORMS[form](rng, data),
                lambda case, n=n: hidden_by(*case) is bool(n % 2),
            )
            said = call(self.function, entry, function, returns=bool)
            yield Hidden(form, entry, function, bool(n % 2), said)


def hides_right(which: str, *forms: str):
    def holds(hides, variant):
        done = [case for form in forms for case in hides.of(which, form)]
        wrong = [case for case in done if case.said is not case.truth]
        if wrong:
            said = f"{len(done) - len(wrong)} of {len(done)} right."
            if which == "public":
                case = wrong[0]
                does = "hides" if case.truth else "does not hide"
                said += f" {case.entry!r} {does} {case.function['slot']} ({case.function['id']})."
            return Miss(said, share=scaled(len(done) - len(wrong), len(done)))

    return holds

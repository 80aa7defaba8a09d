"""Which divisions of devices can be had, and which is the best: three tasks of Lab 04.

A wish is tried with the best lists there are (a3); a placement is priced with the machine's own
distances, and all 64 are tried to know the best (e6); a role gets the lightest image under which
its requests do not drown in messages (s7).
"""

from __future__ import annotations

from functools import cache, cached_property
from itertools import product
from typing import NamedTuple

from popcorn_edu.grading.answers import OPEN, unfit
from popcorn_edu.grading.owners import listing
from popcorn_edu.grading.tables import Table
from popcorn_edu.grading.tasks import Miss, Variant
from popcorn_edu.model import devices
from popcorn_edu.model.devices import ProxyCost
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.ownership import Verdict

HERE = "h8qg6-64"
SAS, SATA, PORT_A, PORT_B = "0000:03:00.0", "0000:00:11.0", "0000:02:00.0", "0000:02:00.1"
VGA, PHI = "0000:01:04.0", "0000:83:00.0"


# -- a3: what can be divided -----------------------------------------------------------------------

REASONS = ("yes", "same id", "function 0", "table full")


class Wish(NamedTuple):
    """Kernel 1 is to own exactly these slots, kernel 0 everything else."""

    machine: str
    slots: tuple[str, ...]
    text: str


PORT_WISH = Wish(HERE, (PORT_A,), f"{HERE}: the network port {PORT_A} alone")
WISHES = {
    "yes": (
        Wish(HERE, (PORT_A, PORT_B), f"{HERE}: both network ports, {PORT_A} and {PORT_B}"),
        Wish(HERE, (SAS,), f"{HERE}: the SAS controller {SAS}"),
        Wish("laptop", ("0000:04:00.0",), "laptop: the Ethernet controller 0000:04:00.0"),
        Wish("laptop", ("0000:14:00.0",), "laptop: the network controller 0000:14:00.0"),
    ),
    "function 0": (
        Wish(HERE, (VGA,), f"{HERE}: the VGA controller {VGA}, behind bridge 0000:00:14.4"),
        Wish(HERE, ("0000:00:14.1",), f"{HERE}: the IDE controller 0000:00:14.1"),
        Wish("laptop", ("0000:00:1f.2",), "laptop: the SATA controller 0000:00:1f.2"),
        Wish("laptop", ("0000:00:1d.7",), "laptop: the USB controller 0000:00:1d.7"),
    ),
    "table full": (
        Wish("e5-2680-16", (PHI,), f"e5-2680-16: the Xeon Phi {PHI}"),
        Wish("e5-2680-16", ("0000:00:02.0",), "e5-2680-16: the NVMe controller 0000:00:02.0"),
    ),
}


@cache
def reason(wish: Wish) -> str:
    """Why the best lists there are cannot do it; "yes" if they can."""
    functions = listing(wish.machine)
    rest = {f.slot for f in devices.ownable(functions)} - {*wish.slots}
    found = set()
    for owned in (rest, {*wish.slots}):
        read = devices.read_flags(devices.blacklist_for(functions, owned).text)
        ids = {f.vendor_device for f in functions if f.slot in owned}
        for slot, s in devices.seen(functions, read).items():
            claimed = s.verdict is Verdict.CLAIMED
            if devices.is_exempt(s.function) or claimed == (slot in owned):
                continue
            if not claimed:
                found.add("function 0")
            else:
                found.add("same id" if s.function.vendor_device in ids else "table full")
    if not found:
        return "yes"
    (only,) = found
    return only


@cache
def five_wishes(variant: Variant) -> dict[str, Wish]:
    """The network port, one wish of each kind, and one more of any."""
    rng = variant.rng("a3")
    drawn = [PORT_WISH, *(rng.choice(pool) for pool in WISHES.values())]
    others = [wish for pool in WISHES.values() for wish in pool if wish not in drawn]
    drawn.append(rng.choice(others))
    rng.shuffle(drawn)
    return dict(zip("abcde", drawn, strict=True))


def wishes_table(variant: Variant) -> Table:
    rows = [(letter, wish.text) for letter, wish in five_wishes(variant).items()]
    return Table("Kernel 1 is to own this, kernel 0 all the rest", ["", "machine: devices"], rows)


WHY_NOT = {
    "yes": "There is a pair of lists that does it. What did you think is in its way?",
    "same id": "Look for its id in the listing once more. How many functions have it?",
    "function 0": "Which ids must kernel 1 not see, and what else goes with them?",
    "table full": "How many entries would kernel 1's list need, even the shortest one?",
}


def can_be_had(letter: str):
    def holds(answer, variant):
        given, wish = answer[letter], five_wishes(variant)[letter]
        if given is None:
            return OPEN
        truth = reason(wish)
        if given != truth:
            tag = "M11" if truth == "same id" and given == "yes" else ""
            return Miss(f"{wish.text}. {WHY_NOT[truth]}", tag)

    return holds


# -- e6: the best place for each device ------------------------------------------------------------

PLACED = (PORT_A, PORT_B, SAS, SATA)
PLACE_NAMES = {
    PORT_A: "network port A", PORT_B: "network port B", SAS: "SAS disks", SATA: "SATA disks",
}  # fmt: skip
KERNELS = 4
NEAR_BEST = 1.01  # of the best cost: nearly as good
DRAWS = 500


class Places(Table):
    """Which kernel uses which device how often, and what a placement would cost."""

    def __init__(self, machine: Machine, cpus: tuple[int, ...], rates: dict) -> None:
        self.machine, self.cpus, self.rates = machine, cpus, rates
        rows = [
            [f"{slot} {PLACE_NAMES[slot]}", *(rates[slot, k] for k in range(KERNELS))]
            for slot in PLACED
        ]
        rows.append(["its CPU, and node", *(f"{c}, {machine.node_of(c)}" for c in cpus)])
        head = ["requests a millisecond", *(f"kernel {k}" for k in range(KERNELS))]
        super().__init__("Who uses what", head, rows)

    def price(self, user: int, owner: int) -> ProxyCost:
        """What one request of kernel ``user`` to kernel ``owner``'s device costs."""
        return devices.proxy_cost(self.machine, self.cpus[user], self.cpus[owner])

    @cached_property
    def _extra_ns(self) -> dict[tuple[int, int], int]:
        pairs = product(range(KERNELS), repeat=2)
        return {(u, o): 0 if u == o else self.price(u, o).extra_ns for u, o in pairs}

    def extra_ns(self, slot: str, owner: int) -> int:
        """What all kernels together pay in a millisecond, if ``owner`` owns this device."""
        return sum(self.rates[slot, u] * self._extra_ns[u, owner] for u in range(KERNELS))

    def cost(self, owners: dict) -> int:
        """ns that a millisecond's requests wait for messages, all together."""
        return sum(self.extra_ns(slot, owner) for slot, owner in owners.items())


def possible(owners: dict) -> bool:
    """The two ports have one id: a list hides both or neither."""
    return owners[PORT_A] == owners[PORT_B]


def all_placements():
    for owners in product(range(KERNELS), repeat=len(PLACED)):
        placed = dict(zip(PLACED, owners, strict=True))
        if possible(placed):
            yield placed


@cache
def places(variant: Variant) -> Places:
    """Drawn so that neither the primary, nor each device's keenest user, nor a split of the two
    ports is the answer. Kernels 1 and 2 are neighbours; for one of the disks a third kernel is
    keener than each of them, but not than both."""
    rng, machine = variant.rng("e6"), Machine.load(HERE)
    for _ in range(DRAWS):
        pair, other = rng.sample(range(1, len(machine.nodes)), 2)
        near = rng.sample(machine.nodes[pair].cpus, 2)
        cpus = (machine.bsp, *near, rng.choice(machine.nodes[other].cpus))
        contested, simple = rng.sample((SAS, SATA), 2)
        made = Places(machine, cpus, rates(rng, contested, simple))
        if interesting(made):
            return made
    raise AssertionError("no draw makes this task interesting")


def rates(rng, contested: str, simple: str) -> dict[tuple[str, int], int]:
    """Requests a millisecond of each kernel to each device."""
    drawn = {(slot, k): rng.randrange(3) for slot in PLACED for k in range(KERNELS)}
    for slot, keen in zip((PORT_A, PORT_B), rng.sample(range(KERNELS), 2), strict=True):
        drawn[slot, keen] = rng.randrange(7, 13)
    drawn[simple, rng.randrange(KERNELS)] = rng.randrange(7, 13)
    most = rng.randrange(9, 13)
    drawn[contested, rng.choice((0, 3))] = most
    for k in (1, 2):
        drawn[contested, k] = most - rng.randrange(1, 4)
    return drawn


def keenest(made: Places) -> dict:
    """Each device with its keenest user: what comes to mind first."""
    return {slot: max(range(KERNELS), key=lambda k: made.rates[slot, k]) for slot in PLACED}


def interesting(made: Places) -> bool:
    best, costs = best_placement(made), sorted(map(made.cost, all_placements()))
    keen = keenest(made)
    return (
        costs[0] * 1.01 < costs[1]  # one best answer
        and any(best[slot] != keen[slot] for slot in (SAS, SATA))
        and nearly_best(costs[0], 0) < half_way(costs[0], made.cost(dict.fromkeys(PLACED, 0)))
        and made.cost(keen | {PORT_B: keen[PORT_A]}) > costs[0] * NEAR_BEST
        and made.cost(keen | {PORT_A: keen[PORT_B]}) > costs[0] * NEAR_BEST
    )


def best_placement(made: Places) -> dict:
    return min(all_placements(), key=made.cost)


def whole(answer) -> dict | str:
    """The placement, if it is one; a sentence otherwise."""
    open_ones = [slot for slot in PLACED if answer.get(slot) is None]
    if len(open_ones) == len(PLACED):
        return OPEN
    if open_ones:
        said = unfit(answer, open_ones) or {0: f"Still open: {', '.join(open_ones)}."}
        return next(iter(said.values()))
    wrong = [slot for slot in PLACED if not 0 <= answer[slot] < KERNELS]
    if wrong:
        return f"{wrong[0]}: there is no kernel {answer[wrong[0]]}; the kernels are 0 to 3."
    return {slot: answer[slot] for slot in PLACED}


def lists_can_say_it(answer, variant):
    placed = whole(answer)
    if isinstance(placed, str):
        return placed
    if not possible(placed):
        return Miss(
            f"{PORT_A} and {PORT_B} have one id: a list that hides one hides both, so they have "
            "one owner.",
            "M11",
        )


def priced(answer, variant) -> tuple[int, int, int] | str:
    """(this placement, the best, all with the primary), in ns; a sentence if it cannot be."""
    placed = whole(answer)
    if isinstance(placed, str):
        return placed if placed == OPEN else "not judged, see above"
    if not possible(placed):
        return "Not priced: no list can express it."
    made = places(variant)
    cost = made.cost
    return cost(placed), cost(best_placement(made)), cost(dict.fromkeys(PLACED, 0))


def cheaper_than(goal):
    """All points if the cost reaches the goal; up to half of them for the way to it."""

    def holds(answer, variant):
        costs = priced(answer, variant)
        if isinstance(costs, str):
            return costs
        mine, best, primary = costs
        wanted = goal(best, primary)
        if mine > wanted:
            share = (primary - mine) / (primary - wanted) / 2 if primary > mine else 0
            return Miss(f"It costs {mine:,} ns a millisecond; {wanted:,} were wanted.", share=share)

    return holds


def half_way(best: int, primary: int) -> int:
    return (best + primary) // 2


def nearly_best(best: int, primary: int) -> int:
    return int(best * NEAR_BEST)


def is_best(answer, variant):
    costs = priced(answer, variant)
    if isinstance(costs, str):
        return costs
    mine, best, _ = costs
    if mine > best:
        return "There is a better one. Try each owner for each device by itself."


# -- s7: full or light -----------------------------------------------------------------------------

IMAGES = ("full", "light", "together")
MESSAGES_SHARE = 0.1  # of its time that a kernel may spend on messages: our choice


class Role(NamedTuple):
    text: str
    requests_per_s: int
    device_is_free: bool  # does no other kernel need the device as much?


ROLES = (
    (
        Role(
            "Eight kernels of one CPU each compute a weather forecast. Each reads its input at the "
            "start and writes a result now and then: some 20 requests a second to the disk, which "
            "kernel 0 drives.",
            20, False,
        ),
        Role(
            "Sixty kernels test random numbers. Each stores a block every half a second: 2 "
            "requests a second to the disk, which kernel 0 drives.",
            2, False,
        ),
    ),
    (
        Role(
            "One kernel answers web requests: 200,000 packets a second through the two network "
            "ports. No other kernel uses the network.",
            200_000, True,
        ),
        Role(
            "One kernel records from a camera: 90,000 blocks a second to the SAS controller. No "
            "other kernel uses that controller.",
            90_000, True,
        ),
    ),
    (
        Role(
            "A web server and a firewall are to be two kernels. Each handles 150,000 packets a "
            "second, and both through the one network card there is.",
            150_000, False,
        ),
        Role(
            "A database and its backup are to be two kernels. Each makes 80,000 requests a second "
            "to the one SAS controller there is.",
            80_000, False,
        ),
    ),
)  # fmt: skip
REASON_CHARACTERS, REASON_WORDS = 40, 6


@cache
def my_roles(variant: Variant) -> dict[str, Role]:
    rng = variant.rng("s7")
    drawn = [rng.choice(pair) for pair in ROLES]
    rng.shuffle(drawn)
    return dict(zip(("one", "two", "three"), drawn, strict=True))


def roles_table(variant: Variant) -> Table:
    rows = [(name, role.text) for name, role in my_roles(variant).items()]
    return Table("Three roles", ["", "what it does"], rows)


def messages_share(role: Role) -> float:
    """The part of its time in which such a kernel's requests are messages under way."""
    machine = Machine.load(HERE)
    extra_ns = devices.proxy_cost(machine, *machine.spread(2)).extra_ns
    return role.requests_per_s * extra_ns / 1e9


def image_for(role: Role) -> str:
    """Light if a proxy will do; with a device of its own if it can have it; else one kernel."""
    if messages_share(role) <= MESSAGES_SHARE:
        return "light"
    return "full" if role.device_is_free else "together"


def has_its_image(name: str):
    def holds(answer, variant):
        given, role = answer[name], my_roles(variant)[name]
        if given is None:
            return OPEN
        truth, share = image_for(role), messages_share(role)
        if given == truth:
            return None
        if truth == "light":
            return (
                f"{name}: its requests would be messages for {share * 1e6:,.0f} µs of each second. "
                "Is a device of its own, or a kernel less, worth that?"
            )
        if given == "light":
            return f"{name}: its requests would spend {share:.0%} of the time as messages."
        if truth == "together":
            return Miss(f"{name}: which of the two would own the device?", "M11")
        return f"{name}: nobody else needs the device. Who should own it?"

    return holds


def gives_a_reason(answer, variant):
    reason = answer["because"] or ""
    if not reason:
        return OPEN
    if len(reason.split()) < REASON_WORDS or len(reason) < REASON_CHARACTERS:
        return "Say in a whole sentence what decides it for one of the three."

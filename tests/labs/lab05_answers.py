"""Answers to Lab 05, right and wrong, as a student would type them; for the tests only.

A wrong story is the right one with one slip, so each slip is named by the line that it changes.
"""

import contextlib
import io

from grading.course import solutions

from popcorn_edu.grading.lab import Lab, lab_module

CELL = """
import popcorn_edu as pk
from popcorn_edu import Delay, Until
from popcorn_edu.model.messaging import SenderBlocked, deliver, send_ipi
from popcorn_edu.model.rings import *
"""
NAMES = {  # the name that each task's grading cell reads
    "pre": "before", "a1": "table", "f2a": "send", "f2b": "receive", "a4": "possible",
    "i5": "out_of_order", "a3": "long_messages", "o6": "schedule", "a7": "designs",
    "s8": "policy", "post": "after",
}  # fmt: skip
SOURCES = solutions("lab05")


def typed(task: str, source: str, seed: str = "practice") -> object:
    """What the grading cell of the task gets when this stands in the answer cell."""
    cell = {"lab": Lab(lab_module("05"), seed)}
    exec(CELL, cell)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(source, "<ipython-input-5>", "exec"), cell)
    return cell[NAMES[task]]


def right(task: str, seed: str = "practice") -> object:
    return typed(task, SOURCES[task], seed)


def slip(task: str, *changes: tuple[str, str]) -> str:
    """The right cell with some text replaced."""
    source = SOURCES[task]
    for old, new in changes:
        assert old in source, f"the solution of {task} has no {old!r}"
        source = source.replace(old, new)
    return source


# -- send ------------------------------------------------------------------------------------------

HEAD = "def send(world, me, to, type, priority, payload):\n"
WAIT = """    if ticket - ring.tail[to] >= slots:
        yield SenderBlocked(to, ticket, me, ring.tail[to])
    while ticket - ring.tail[to] >= slots:
        yield Until(MessageRead, ring=to)  # then look again
"""
COPY = "    yield PayloadCopied(to, slot, ticket, me, number, type, priority, payload)\n"
READY = "    yield SlotReady(to, slot, ticket, me)\n"
IPI = """    if ring.int_enabled[to]:
        yield from send_ipi(world, me, to)  # the message is in memory already
"""

SENDS = {  # name: (source, points, tag)
    "right": (slip("f2a"), 2.5, ""),
    "spins with a Delay": (
        slip("f2a", (WAIT, "    while ticket - ring.tail[to] >= slots:\n"
                           "        yield Delay(50)\n")),
        2.5, "",
    ),
    "half: never waits, never interrupts": (slip("f2a", (WAIT, ""), (IPI, "")), 0.5, "M8"),
    "overwrites": (slip("f2a", (WAIT, "")), 1, "M8"),
    "gives up with its ticket": (
        slip("f2a", (WAIT, "    if ticket - ring.tail[to] >= slots:\n        return\n")), 1.5, "M8",
    ),
    "gives up without one": (
        slip("f2a", ("    yield Delay(100)\n", "    yield Delay(100)\n"
                     "    if ring.head[to] - ring.tail[to] >= slots:\n        return\n")),
        1.5, "M8",
    ),
    "looks once": (
        slip("f2a", (WAIT, "    if ticket - ring.tail[to] >= slots:\n"
                           "        yield Until(MessageRead, ring=to)\n")),
        0.5, "M8",
    ),
    "waits as G1 does": (
        slip("f2a", ("ticket - ring.tail[to] >=", "ring.head[to] - ring.tail[to] >")), 1.5, "",
    ),
    "ready first": (slip("f2a", (COPY + READY, READY + COPY)), 1.5, ""),
    "never copies": (slip("f2a", (COPY, "")), 1, ""),
    "never ready": (slip("f2a", (READY, "")), 0, ""),
    "never interrupts": (slip("f2a", (IPI, "")), 1, "M6"),
    "always interrupts": (
        slip("f2a", (IPI, "    yield from send_ipi(world, me, to)\n")), 1.5, "M4",
    ),
    "the IPI carries it": (
        slip("f2a", (IPI, ""), ("    yield Delay(250)", IPI + "    yield Delay(250)")), 1.5, "M3",
    ),
    "all are NORMAL": (slip("f2a", ("priority, payload)\n    yield", "1, payload)\n    yield")),
                       1.5, ""),
    "a torn ticket": (
        slip("f2a", ("    yield TicketTaken", "    yield Delay(10)\n    yield TicketTaken")),
        1.5, "",
    ),
    "assigns to head": (
        slip("f2a", ("    yield TicketTaken", "    ring.head[to] += 1\n    yield TicketTaken")),
        0, "",
    ),
    "forgets yield from": (slip("f2a", ("yield from", "yield")), 0, ""),
    "a field too few": (slip("f2a", (READY, "    yield SlotReady(to, slot, ticket)\n")), 0, ""),
    "blank": (slip("f2a", (WAIT, ""), (COPY + READY, ""), (IPI, "")), 0, ""),
    "raises": (HEAD + "    yield Delay(1)\n    1 / 0", 0, ""),
    "never yields": (HEAD + "    return 5", 0, ""),
    "loops": (HEAD + "    while True:\n        pass\n    yield", 0, ""),
    "loops with Delay(0)": (HEAD + "    while True:\n        yield Delay(0)", 0, ""),
    "loops with Delay(5)": (HEAD + "    while True:\n        yield Delay(5)", 0, ""),
    "too few arguments": ("def send(world, me):\n    yield Delay(1)", 0, ""),
    "called": ("send = 'send(world, me)'", 0, ""),
    "a number": ("send = 5", 0, ""),
    "left open": ("send = ...", 0, ""),
}  # fmt: skip

# -- receive ---------------------------------------------------------------------------------------

BEGIN = "def receive(world, me):\n"
FLAG = "                yield Until(SlotReady, ring=me, ticket=ticket)  # head-of-line blocking\n"
EMPTY = "        yield RingSeenEmpty(me, read)\n"
LEAVE = "        yield Delay(300)  # somebody may send just now\n"
ENABLE = "        yield InterruptsEnabled(me)  # from here on senders interrupt\n"
LOOK = """        if ring.head[me] == ring.tail[me]:
            break
        yield InterruptsDisabled(me)
"""
HAND_OVER = "    yield from deliver(world, me)  # HIGH first\n"
READ_ONE = """def receive(world, me):
    ticket = world.rings.tail[me]
    slot = ticket % world.setup.slots
    if world.rings.ready.get((me, slot)) != ticket:
        yield Until(SlotReady, ring=me, ticket=ticket)
    yield Delay(300)
    yield MessageRead(*world.rings.slots[me, slot])
    yield InterruptsEnabled(me)
    yield from deliver(world, me)
"""
FOR_EVER = """def receive(world, me):
    ring, slots = world.rings, world.setup.slots
    while True:
        slot = ring.tail[me] % slots
        if ring.ready.get((me, slot)) == ring.tail[me]:
            yield MessageRead(*ring.slots[me, slot])
            yield from deliver(world, me)
        yield Delay(100)
"""

RECEIVES = {
    "right": (slip("f2b"), 2.5, ""),
    "hands over each at once": (
        slip("f2b", ("read += 1\n", "read += 1\n            yield from deliver(world, me)\n")),
        2.5, "",
    ),
    "hands over first": (
        slip("f2b", (HAND_OVER, ""), (EMPTY, "        yield from deliver(world, me)\n" + EMPTY)),
        2.5, "",
    ),
    "slow": (slip("f2b", ("Delay(300)", "Delay(3000)")), 2.5, ""),
    "half: one message": (READ_ONE, 1, "M6"),
    "no second look": (slip("f2b", (LOOK, "        break\n")), 1.5, ""),
    "no time to look": (slip("f2b", (LEAVE, "")), 1.5, ""),
    "no time, in other words": (slip("f2b", (LEAVE, "        yield Delay(0)\n")), 1.5, ""),
    "neither time nor look": (slip("f2b", (LEAVE, ""), (LOOK, "        break\n")), 1.5, ""),
    "never says empty": (slip("f2b", (EMPTY, "")), 1.5, ""),
    "not ready is empty": (slip("f2b", (FLAG, "                break\n")), 1.5, ""),
    "does not wait for the flag": (slip("f2b", (FLAG, "                pass\n")), 1.5, ""),
    "never asks for interrupts": (slip("f2b", (ENABLE, "")), 1.5, "M6"),
    "never hands over": (slip("f2b", (HAND_OVER, "")), 1.5, ""),
    "spies": (BEGIN + "    yield Delay(world.messaging.sent[1])", 0, ""),
    "reads what is not there": (BEGIN + "    yield MessageRead(0, 0, 0, 1, 0, 0, 1, 0)", 0, ""),
    "sees nothing": (BEGIN + "    yield RingSeenEmpty(me, 0)", 0, ""),
    "polls for ever": (FOR_EVER, 0, ""),
    "blank": (BEGIN + "    ring = world.rings\n    # your code here", 0, ""),
    "raises": (BEGIN + "    yield Delay(1)\n    world.rings.slots[me, 99]", 0, ""),
    "loops": (BEGIN + "    while True:\n        pass\n    yield", 0, ""),
    "loops with Delay(0)": (BEGIN + "    while True:\n        yield Delay(0)", 0, ""),
    "loops and says so": (BEGIN + "    while True:\n        yield RingSeenEmpty(me, 0)", 0, ""),
    "a number": ("receive = 5", 0, ""),
    "left open": ("receive = ...", 0, ""),
}  # fmt: skip

# -- the invariant ---------------------------------------------------------------------------------

CHECK = "def out_of_order(delivered):\n"
KEY = 'message["sender"], message["priority"]'

INVARIANTS = {
    "right": (slip("i5"), 3, ""),
    "never alarms": (CHECK + "    return None", 0, ""),
    "blank": (CHECK + '    """..."""', 0, ""),
    "always alarms": (CHECK + "    return 0", 0, "M7"),
    "no priorities": (slip("i5", (KEY, 'message["sender"]')), 0, ""),
    "one order for all": (slip("i5", (KEY, "0")), 0, "M7"),
    "no gaps allowed": (
        slip("i5", ('message["number"] <= last.get(line, -1)',
                    'message["number"] != last.get(line, -1) + 1')),
        0, "M7",
    ),
    "twice is not seen": (slip("i5", ("<= last", "< last")), 2.12, ""),
    "one too late": (slip("i5", ("return place", "return place + 1")), 1.5, ""),
    "true or false": (CHECK + "    return False", 0, ""),
    "spoils its list": (CHECK + "    delivered.clear()", 0, ""),
    "raises": (CHECK + "    return delivered['first']", 0, ""),
    "loops": (CHECK + "    while True:\n        pass", 0, ""),
    "a story": (CHECK + "    yield Delay(0)", 0, ""),
    "a list": ("out_of_order = [1]", 0, ""),
    "left open": ("out_of_order = ...", 0, ""),
}  # fmt: skip

# -- the rest: the right answer, changed ----------------------------------------------------------

AN_OPEN_TABLE = dict.fromkeys(("head", "tail", "ready", "int_enabled"), [...] * 8)

PLAIN = [  # task, name, answer (a function of the right one), points, tag
    ("pre", "right", lambda a: a, 0.5, ""),
    ("pre", "any guess", lambda a: dict.fromkeys(a, "c"), 0.5, ""),
    ("pre", "half", lambda a: {"ipi": "a", "full": "b"}, 0.25, ""),
    ("pre", "no letter", lambda a: a | {"ipi": "the message"}, 0.38, ""),
    ("pre", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
    ("a1", "right", lambda a: a, 3, ""),
    ("a1", "half: two rows", lambda a: {"head": a["head"], "ready": a["ready"]}, 1.5, ""),
    ("a1", "one slip", lambda a: a | {"tail": [*a["tail"][:7], 9]}, 2.81, ""),
    ("a1", "interrupts are always on", lambda a: a | {"int_enabled": [1] * 8}, 2.25, "M4"),
    ("a1", "seven numbers", lambda a: a | {"head": a["head"][:7]}, 2.25, ""),
    ("a1", "a row of texts", lambda a: a | {"head": ["1"] * 8}, 2.25, ""),
    ("a1", "texts", lambda a: dict.fromkeys(a, ["1"] * 8), 0, ""),
    ("a1", "left open", lambda a: AN_OPEN_TABLE, 0, ""),
    ("a3", "right", lambda a: a, 2, ""),
    ("a3", "half: the numbers", lambda a: {k: a[k] for k in list(a)[:3]}, 1, ""),
    ("a3", "no header", lambda a: a | {"page_chunks": 64}, 1.88, ""),
    ("a3", "rounded down", lambda a: a | {"page_chunks": 68}, 1.88, ""),
    ("a3", "seven bits are 128", lambda a: a | {"longest_bytes": 7_680}, 1.75, ""),
    ("a3", "chunks, not bytes", lambda a: a | {"longest_bytes": 127}, 1.75, ""),
    ("a3", "a page overwrites", lambda a: a | {"page_in_an_empty_ring": "b"}, 1.5, "M8"),
    ("a3", "a page is given up", lambda a: a | {"page_in_an_empty_ring": "d"}, 1.5, "M8"),
    ("a3", "they arrive apart", lambda a: a | {"two_long_at_once": "a"}, 1.5, ""),
    ("a3", "a text", lambda a: a | {"page_chunks": "69"}, 1.75, ""),
    ("a3", "all are texts", lambda a: {k: str(v) + " bytes" for k, v in a.items()}, 0, ""),
    ("a3", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
    ("a4", "right", lambda a: a, 3, ""),
    ("a4", "all are possible", lambda a: dict.fromkeys(a, True), 1, ""),
    ("a4", "none is", lambda a: dict.fromkeys(a, False), 0.33, "M7"),
    ("a4", "all the wrong way", lambda a: {k: not v for k, v in a.items()}, 0, "M7"),
    ("a4", "yes and no", lambda a: dict.fromkeys(a, "yes"), 0, ""),
    ("a4", "ones and zeros", lambda a: {k: int(v) for k, v in a.items()}, 0, ""),
    ("a4", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
    ("o6", "right", lambda a: a, 2, ""),
    ("o6", "another order", lambda a: ["1 sends"] * 3 + ["0 sends"] * 3 + a[2:4] + a[-2:], 2, ""),
    ("o6", "one send too many", lambda a: a[:4] + ["0 sends"] + a[4:], 1.5, ""),
    ("o6", "half: one side", lambda a: a[:-1], 1, ""),
    ("o6", "only processes spin", lambda a: ["0 sends", "1 sends"] * 3, 0.5, ""),
    ("o6", "the rings are not full", lambda a: a[:4] + a[-2:], 0.5, ""),
    ("o6", "polls an empty ring", lambda a: ["0 polls", *a], 1, ""),
    ("o6", "a line of its own", lambda a: [*a, "0 sleeps"], 0, ""),
    ("o6", "one text", lambda a: "0 sends", 0, ""),
    ("o6", "endless", lambda a: ["0 sends"] * 1_000, 0, ""),
    ("o6", "empty", lambda a: [], 0, ""),
    ("o6", "left open", lambda a: ..., 0, ""),
    ("a7", "right", lambda a: a, 2, ""),
    ("a7", "half: the messages", lambda a: {k: (v[0], ...) for k, v in a.items()}, 1, ""),
    ("a7", "all are lost", lambda a: {k: ("lost", v[1]) for k, v in a.items()}, 1.25, "M8"),
    ("a7", "two of them", lambda a: {k: a[k] for k in ("kmsg G1", "shmtun")}, 1, ""),
    ("a7", "a word that is no choice", lambda a: a | {"shmtun": ("lots", "goes on")}, 1.5, ""),
    ("a7", "one word each", lambda a: dict.fromkeys(a, "waits"), 0, ""),
    ("a7", "left open", lambda a: dict.fromkeys(a, (..., ...)), 0, ""),
    ("s8", "right", lambda a: a, 1, ""),
    ("s8", "no reason", lambda a: a | {"because": ...}, 0.75, ""),
    ("s8", "a short reason", lambda a: a | {"because": "speed"}, 0.75, ""),
    *(
        ("s8", f"all {word}", lambda a, w=word: dict.fromkeys(list(a)[:3], w), points, "")
        for word, points in (("sleep", 0.25), ("refuse", 0.5), ("spin", 0.12), ("drop", 0.25))
    ),
    ("s8", "another word", lambda a: a | {"one": "wait"}, 0.75, ""),
    ("s8", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
    ("post", "right", lambda a: a, 0.5, ""),
    ("post", "the IPI carries it", lambda a: a | {"ipi": "b"}, 0.38, "M3"),
    ("post", "returned is received", lambda a: a | {"returned": "a"}, 0.38, "M6"),
    ("post", "in global order", lambda a: a | {"two_senders": "a"}, 0.38, "M7"),
    ("post", "full is lost", lambda a: a | {"full": "a"}, 0.38, "M8"),
    ("post", "half", lambda a: {"ipi": "a", "full": "c"}, 0.25, ""),
    ("post", "no letter", lambda a: a | {"ipi": "the message"}, 0.38, ""),
    ("post", "left open", lambda a: dict.fromkeys(a, ...), 0, ""),
]

"""Named runs: a machine, some kernels, what each does, and a seed.

Every scenario is a function that returns a finished Run. What a learner may change is an
argument: a number, a choice, or a story of their own (``send=``, ``receive=``).

    >>> run = fan_in(kernels=5, messages=8, seed=3)                          # doctest: +SKIP
    >>> run = fan_in(receive=my_receive)                                     # doctest: +SKIP

The same arguments give the same trace, byte for byte, on every machine. Randomness (who sends
when) comes from ``seed``; ``schedule_seed`` shuffles the order of what happens at one time.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable

from popcorn_edu.engine.sim import RECORD_LIMIT, Sim, finish
from popcorn_edu.engine.steps import Delay, StoryError, as_story, place_of_function
from popcorn_edu.engine.trace import PopcornError, Trace, near_names
from popcorn_edu.engine.world import Edit, Run, World
from popcorn_edu.model import messaging
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.messaging import Messaging, Setup
from popcorn_edu.model.rings import AllRegistered, MessageType, Priority, Rings

RECORD_LIMIT_FOR_LEARNERS = 200_000  # a learner's run that grows beyond this is stopped


# -- the scenarios --------------------------------------------------------------------------------


def ping(
    *,
    machine: str | Machine = "magny-cours-48",
    rounds: int = 1,
    seed: int = 0,
    schedule_seed: int | None = None,
    send: Callable | None = None,
    receive: Callable | None = None,
    cpus: tuple[int, ...] | None = None,
    look_again: bool = True,
) -> Run:
    """Two kernels: kernel 1 sends PING, kernel 0's callback answers PONG, ``rounds`` times."""
    count(rounds, "rounds", 0)
    tell_send = _told(send, "send") or messaging.send
    setup = make_setup(
        machine, 2, cpus, look_again=look_again,
        handlers={MessageType.PING: _answer(tell_send), MessageType.PONG: _noted},
    )  # fmt: skip
    gaps = think_times("ping", seed, 1, rounds, 20_000)
    jobs = {1: (send_some, 1, 0, gaps, [Priority.NORMAL] * rounds, tell_send, MessageType.PING)}
    return _play("ping", locals(), setup, jobs, receive, send, schedule_seed)


def fan_in(
    *,
    machine: str | Machine = "magny-cours-48",
    kernels: int = 5,
    messages: int = 8,
    gap_ns: int = 2_000,
    high_every: int = 0,
    seed: int = 0,
    schedule_seed: int | None = None,
    send: Callable | None = None,
    receive: Callable | None = None,
    cpus: tuple[int, ...] | None = None,
    slots: int = 64,
    budget: int = 128,
    look_again: bool = True,
    full_rule: str = "own slot",
) -> Run:
    """All other kernels send ``messages`` each to kernel 0, at random times about ``gap_ns``
    apart; every ``high_every``-th (0: none) with priority HIGH."""
    count(messages, "messages", 0)
    count(gap_ns, "gap_ns", 0)
    count(high_every, "high_every", 0)
    setup = make_setup(
        machine, kernels, cpus, slots=slots, budget=budget, look_again=look_again,
        full_rule=full_rule, handlers={MessageType.TEST: _noted},
    )  # fmt: skip
    tell_send = _told(send, "send") or messaging.send
    jobs = {
        me: (
            send_some, me, 0, think_times("fan_in", seed, me, messages, gap_ns),
            _priorities(messages, high_every), tell_send, MessageType.TEST,
        )
        for me in range(1, kernels)
    }  # fmt: skip
    return _play("fan_in", locals(), setup, jobs, receive, send, schedule_seed)


def lost_wakeup(*, look_again: bool = False, seed: int = 0, **options) -> Run:
    """Fan-in as Popcorn G1 is coded: no second look after int_enabled = 1. On some seeds a
    message is left behind; this scenario's seed 0 is one of them."""
    seeds = LOST_WAKEUP_SEEDS
    options = LOST_WAKEUP_OPTIONS | options
    seed = seeds[whole(seed, "seed") % len(seeds)]
    return fan_in(look_again=look_again, seed=seed, **options)


def two_full_rings(
    *,
    machine: str | Machine = "magny-cours-48",
    messages: int = 12,
    slots: int = 4,
    seed: int = 0,
    schedule_seed: int | None = None,
    send: Callable | None = None,
    receive: Callable | None = None,
    cpus: tuple[int, ...] | None = None,
    look_again: bool = True,
) -> Run:
    """Two kernels with small rings ask each other, and each answers from its callback. A callback
    that meets a full ring spins inside the softirq, where nobody empties its own ring."""
    count(messages, "messages", 0)
    tell_send = _told(send, "send") or messaging.send
    setup = make_setup(
        machine, 2, cpus, slots=slots, look_again=look_again,
        handlers={MessageType.PING: _answer(tell_send), MessageType.PONG: _noted},
    )  # fmt: skip
    jobs = {
        me: (
            send_some, me, 1 - me, think_times("two_full_rings", seed, me, messages, 50),
            _priorities(messages, 0), tell_send, MessageType.PING,
        )
        for me in (0, 1)
    }  # fmt: skip
    return _play("two_full_rings", locals(), setup, jobs, receive, send, schedule_seed)


def registration(
    *,
    machine: str | Machine = "magny-cours-48",
    kernels: int = 4,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
    look_again: bool = True,
) -> Run:
    """Kernels come up one after the other, publish their windows in rkinfo, map those of the
    others and check in with them: n (n - 1) / 2 check-ins for n kernels."""
    setup = make_setup(
        machine, kernels, cpus, look_again=look_again,
        handlers={MessageType.CHECKIN: messaging.checked_in},
    )  # fmt: skip
    jobs = {me: (join_after, me, me * JOIN_GAP_NS) for me in range(kernels)}
    return _play("registration", locals(), setup, jobs, None, None, schedule_seed, registered=False)


JOIN_GAP_NS = 1_000_000  # model default: boots are serial; 1 ms apart instead of many seconds
LOST_WAKEUP_OPTIONS = {"kernels": 3, "messages": 3, "gap_ns": 1_000}
LOST_WAKEUP_SEEDS = (18, 143, 232)  # of the first 300, the fan-in seeds that strand a message

SCENARIOS: dict[str, Callable[..., Run]] = {
    scenario.__name__: scenario
    for scenario in (ping, fan_in, lost_wakeup, two_full_rings, registration)
}


def names() -> list[str]:
    """The names of all scenarios."""
    return list(SCENARIOS)


def scenario(name: str) -> Callable[..., Run]:
    """The scenario of that name."""
    if name not in SCENARIOS:
        raise PopcornError(f"there is no scenario {name!r}; {near_names(name, SCENARIOS)}")
    return SCENARIOS[name]


def options(name: str) -> dict[str, object]:
    """The arguments of a scenario with their defaults."""
    function = scenario(name)
    found = {}
    for option in inspect.signature(function).parameters.values():
        if option.kind is option.VAR_KEYWORD:
            found = options("fan_in") | found | LOST_WAKEUP_OPTIONS
        else:
            found[option.name] = option.default
    return found


def run(name: str, **arguments) -> Run:
    """Run the scenario of that name; a misspelt argument is refused with the near names."""
    known = options(name)
    for argument in arguments:
        if argument not in known:
            raise PopcornError(
                f"scenario {name} has no option {argument!r}; {near_names(argument, known)}"
            )
    return scenario(name)(**arguments)


def load(path) -> Run:
    """Read back a run that was written by ``run.save(path)``."""
    trace = Trace.load(path)
    try:
        about = dict(trace.meta["setup"])
        name, arguments = trace.meta["scenario"], trace.meta["arguments"]
        handlers = {MessageType[name]: None for name in about.pop("handlers")}
        machine = Machine.load(about.pop("machine"))
        setup = Setup(machine=machine, cpus=tuple(about.pop("cpus")), handlers=handlers, **about)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PopcornError(f"{path}: this run does not say what it was built from") from None

    def replay(edits: tuple[Edit, ...]) -> Run:
        again = run(name, **arguments)
        if again.trace.digest() != trace.digest():
            raise PopcornError(
                f"{path} was written by another version of popcorn_edu, which played this scenario "
                "differently: it can be read, but not forked"
            )
        return again._replay(edits)

    return Run(trace, lambda: new_world(setup), replay if arguments is not None else None)


# -- what they are made of ------------------------------------------------------------------------


def send_some(world, me, to, gaps, priorities, tell_send, type):
    """A process in kernel ``me``: think, send, think, send."""
    for payload, (gap, priority) in enumerate(zip(gaps, priorities, strict=True)):
        yield gap
        yield from tell_send(world, me, to, type, priority, payload)


def join_after(world, me, ns):
    yield Delay(ns)
    yield from messaging.join(world, me)


def _answer(tell_send):
    def answer(world, me, message):
        yield from tell_send(
            world, me, message.sender, MessageType.PONG, Priority.NORMAL, message.payload
        )

    return answer


def _noted(world, me, message):
    """A callback that has nothing more to do."""
    return iter(())


def everybody_registered(world, kernels):
    yield AllRegistered(kernels)


def think_times(name: str, seed: int, kernel: int, messages: int, gap_ns: int) -> list[Delay]:
    """How long a kernel's process thinks before each of its messages, from the scenario's seed."""
    # Whole numbers from a generator that is seeded with text: the same on every platform.
    draw = random.Random(f"{name} {seed} kernel {kernel}").randrange
    return [Delay(draw(2 * gap_ns + 1)) for _ in range(messages)]


def _priorities(messages: int, high_every: int) -> list[Priority]:
    return [
        Priority.HIGH if high_every and (n + 1) % high_every == 0 else Priority.NORMAL
        for n in range(messages)
    ]


def _told(story: object, name: str) -> Callable | None:
    """A learner's story, which must be a function with a ``yield`` in it; None if there is none."""
    if story is None:
        return None
    if not callable(story):
        raise PopcornError(f"{name}={story!r}: expected a function that tells a story")

    def told(world, me, *rest):
        try:
            made = story(world, me, *rest)
        except TypeError as error:
            if error.__traceback__.tb_next is None:  # the call itself: other arguments expected
                raise StoryError(f"kernel {me}: {error}{place_of_function(story)}") from error
            raise
        return as_story(made, f"kernel {me}", story)

    return told


def whole(value: object, name: str) -> int:
    """Refuse what is not a whole number."""
    if type(value) is not int:
        raise PopcornError(f"{name}={value!r}: expected a whole number")
    return value


def count(value: object, name: str, low: int, high: int | None = None) -> int:
    """Refuse what is not a whole number in the range."""
    if type(value) is not int or value < low or (high is not None and value > high):
        limits = f"{low} or more" if high is None else f"from {low} to {high}"
        raise PopcornError(f"{name}={value!r}: expected a whole number, {limits}")
    return value


def make_setup(machine: str | Machine, kernels: int, cpus=None, **choices) -> Setup:
    """One kernel per CPU on that machine: the CPUs given, else spread over its NUMA nodes."""
    if not isinstance(machine, Machine):
        machine = Machine.load(machine)
    count(kernels, "kernels", 2)
    if kernels > len(machine.cpus):
        raise PopcornError(
            f"kernels={kernels}: {machine.name} has {len(machine.cpus)} CPUs, and each kernel "
            "needs one of its own"
        )
    if cpus is None:
        cpus = machine.spread(kernels)
    cpus = machine.check_cpus(cpus)
    if len(cpus) != kernels:
        raise PopcornError(f"cpus={cpus!r}: expected {kernels} CPUs, one for each kernel")
    return Setup(machine=machine, cpus=cpus, **choices)


def new_world(setup: Setup) -> World:
    return World(setup, rings=Rings, messaging=Messaging)


def _play(name, arguments, setup, jobs, receive, send, schedule_seed, registered=True) -> Run:
    """Put the cast on the stage and let it run; the same again for a fork."""
    whole(arguments["seed"], "seed")
    if schedule_seed is not None:
        whole(schedule_seed, "schedule_seed")
    learner = send is not None or receive is not None
    receive = _told(receive, "receive") or messaging.receive
    meta = {
        "scenario": name,
        "arguments": _plain(arguments, name),
        "machine": setup.machine.name,
        "setup": {
            "machine": setup.machine.name,
            "cpus": list(setup.cpus),
            "slots": setup.slots,
            "budget": setup.budget,
            "look_again": setup.look_again,
            "full_rule": setup.full_rule,
            "handlers": [kind.name for kind in setup.handlers],
        },
    }

    def play(edits: tuple[Edit, ...] = ()) -> Run:
        sim = Sim(
            new_world(setup),
            meta | {"arguments": None} if edits else meta,  # a saved fork cannot be played again
            schedule_seed=schedule_seed,
            careful=learner,
            record_limit=RECORD_LIMIT_FOR_LEARNERS if learner else RECORD_LIMIT,
            edits=edits,
        )
        if registered:
            sim.begin("machine", everybody_registered, len(setup.cpus))
        for me in setup.kernels:
            mine = receive if me == 0 else messaging.receive
            if registered:  # else joining begins them
                sim.begin(f"kernel {me} isr", messaging.isr, me, kernel=me)
                sim.begin(f"kernel {me} softirq", messaging.softirq, me, mine, kernel=me)
            if me in jobs:
                tell, *rest = jobs[me]
                sim.begin(f"kernel {me}", tell, *rest, kernel=me)
        return finish(sim, lambda: new_world(setup), play)

    return play()


def _plain(arguments: dict, name: str) -> dict | None:
    """A scenario's arguments as they can be kept in a file; None if a learner's story is one."""
    given = {key: arguments[key] for key in options(name) if key in arguments}
    if isinstance(given.get("machine"), Machine):
        given["machine"] = given["machine"].name
    if given.get("cpus") is not None:
        given["cpus"] = list(given["cpus"])
    return None if any(map(callable, given.values())) else given

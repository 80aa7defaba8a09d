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
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path

from popcorn_edu.engine import explore as exploring
from popcorn_edu.engine.sim import RECORD_LIMIT, Sim, finish
from popcorn_edu.engine.steps import Begin, Delay, StoryError, Until, as_story, place_of_function
from popcorn_edu.engine.trace import PopcornError, Trace, near_names
from popcorn_edu.engine.world import Edit, Run, World, edits_before
from popcorn_edu.model import boot as booting
from popcorn_edu.model import devices, flat, long_messages, messaging
from popcorn_edu.model import keepalive as keeping
from popcorn_edu.model import multicast as multicasting
from popcorn_edu.model import services as serving
from popcorn_edu.model.boot import Below, Boot, BootChoices, BootPlan, KernelPanicked
from popcorn_edu.model.devices import Devices
from popcorn_edu.model.keepalive import Keepalive
from popcorn_edu.model.long_messages import LongMessages
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.memory import places
from popcorn_edu.model.messaging import (
    GENERATIONS,
    KERNELS_AT_MOST,
    Messaging,
    RkinfoAllocated,
    Setup,
)
from popcorn_edu.model.mitigation import Mitigation, halves
from popcorn_edu.model.multicast import Multicast
from popcorn_edu.model.partition import Partition
from popcorn_edu.model.pci import PciFunction
from popcorn_edu.model.rings import AllRegistered, MessageType, Priority, Rings
from popcorn_edu.model.services import Services
from popcorn_edu.readers import figures

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
    barrier: str = "full",
    interrupt_rule: str = "when asked",
    mitigation: str = "poll until empty",
    poll_every_ns: int = 1_000,
    bottom_half: str = "softirq",
    generation: str = "G1 fixed",
) -> Run:
    """All other kernels send ``messages`` each to kernel 0, at random times about ``gap_ns``
    apart; every ``high_every``-th (0: none) with priority HIGH.

    ``generation`` chooses as messaging.GENERATIONS says ("G1" as coded, "G2", "MK25"); a setting
    that is given otherwise than usual wins over it.
    """
    count(messages, "messages", 0)
    count(gap_ns, "gap_ns", 0)
    count(high_every, "high_every", 0)
    given = {
        "slots": slots, "budget": budget, "look_again": look_again, "full_rule": full_rule,
        "barrier": barrier, "interrupt_rule": interrupt_rule, "mitigation": mitigation,
        "poll_every_ns": poll_every_ns, "bottom_half": bottom_half,
    }  # fmt: skip
    choices = _generation(generation, given)
    setup = make_setup(machine, kernels, cpus, handlers={MessageType.TEST: _noted}, **choices)
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


def long_message(
    *,
    machine: str | Machine = "magny-cours-48",
    size_bytes: int = 4_096,
    at_once: int = 1,
    long_rule: str = "numbered",
    slots: int = 64,
    payload_bytes: int = 60,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
) -> Run:
    """Kernel 1 sends kernel 0 a long message: a page of 4,096 bytes is 69 chunks, and the ring has
    64 slots. With ``at_once=2`` two processes of kernel 1 send one each at the same time, and
    ``long_rule`` says whether the receiver can tell their chunks apart."""
    count(size_bytes, "size_bytes", 0)
    count(at_once, "at_once", 1, 8)
    setup = make_setup(
        machine, 2, cpus, slots=slots, long_rule=long_rule, payload_bytes=payload_bytes,
        handlers={MessageType.TEST_LONG: long_messages.reassemble},
    )  # fmt: skip
    long_messages.check_size(size_bytes, payload_bytes)

    def cast(sim):
        sim.begin("machine", everybody_registered, 2)
        _begin_receivers(sim, setup)
        for process in range(at_once):
            who = "kernel 1" if at_once == 1 else f"kernel 1 process {process}"
            sim.begin(who, long_messages.send_long, 1, 0, size_bytes, kernel=1)

    return _play_alone("long_message", locals(), setup, cast, long_world)


def multicast(
    *,
    machine: str | Machine = "magny-cours-48",
    kernels: int = 4,
    messages: int = 3,
    openers: int = 1,
    lock: str = "real",
    victim: int | None = None,
    removed: bool = True,
    slots: int = 64,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
) -> Run:
    """Kernel 0 opens a multicast channel for all kernels, sends ``messages`` into it, which every
    other kernel reads once, and closes it.

    ``openers=2``: kernel 1 opens one at the same time; with ``lock="as coded"`` both may get the
    same channel. ``victim``: that kernel panics before it has read anything; unless it is removed
    (``removed``) its share of every slot is never taken.
    """
    count(messages, "messages", 0, 10_000)
    count(openers, "openers", 1, 2)
    if lock not in multicasting.LOCKS:
        raise PopcornError(f"lock={lock!r}: {near_names(str(lock), multicasting.LOCKS)}")
    setup = make_setup(machine, kernels, cpus, slots=slots, handlers=dict(multicasting.HANDLERS))
    if victim is not None:
        count(victim, "victim", 1, kernels - 1)
    everybody = (1 << kernels) - 1
    plan = multicasting.Plan(everybody, messages, lock == "real", victim, removed)

    def cast(sim):
        sim.begin("machine", everybody_registered, kernels)
        _begin_receivers(sim, setup, multicasting.receive)
        for me in range(openers):
            sim.begin(f"kernel {me}", multicasting.session, me, plan, kernel=me)
        if victim is not None:
            sim.begin(f"kernel {victim} fate", multicasting.panic, victim, kernel=victim)

    return _play_alone("multicast", locals(), setup, cast, multicast_world)


def keepalive(
    *,
    machine: str | Machine = "magny-cours-48",
    kernels: int = 4,
    periods: int = 5,
    victim: int | None = 2,
    dies_ns: int = 150_000_000,
    messages: int = 6,
    slots: int = 4,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
) -> Run:
    """Each kernel tells each other every 100 ms that it is there. Kernel ``victim`` panics after
    ``dies_ns``; kernel 0 has ``messages`` for it just then, more than its ring of ``slots`` holds.
    Who notices, and when?"""
    count(periods, "periods", 1, 100)
    count(messages, "messages", 0, 1_000)
    count(dies_ns, "dies_ns", 0)
    setup = make_setup(
        machine, kernels, cpus, slots=slots, keepalive=True,
        handlers={MessageType.KEEPALIVE: keeping.told, MessageType.TEST: _noted},
    )  # fmt: skip
    if victim is not None:
        count(victim, "victim", 1, kernels - 1)

    def dies(world, me):
        yield Delay(dies_ns)
        yield KernelPanicked(me, "the scenario wants it dead")

    def sends(world, me):
        yield Delay(dies_ns)
        for payload in range(messages):
            yield from messaging.send(world, me, victim, payload=payload)

    def cast(sim):
        sim.begin("machine", everybody_registered, kernels)
        _begin_receivers(sim, setup)
        for me in setup.kernels:
            sim.begin(f"kernel {me} keepalive", keeping.keepalive, me, periods, kernel=me)
        if victim is not None:
            sim.begin(f"kernel {victim} fate", dies, victim, kernel=victim)
            sim.begin("kernel 0", sends, 0, kernel=0)

    return _play_alone("keepalive", locals(), setup, cast, keepalive_world)


def services(
    *,
    machine: str | Machine = "magny-cours-48",
    kernels: int = 4,
    late: bool = False,
    double: bool = False,
    dies: bool = False,
    seed: int = 0,
    schedule_seed: int | None = None,
    notified: Callable | None = None,
    cpus: tuple[int, ...] | None = None,
) -> Run:
    """Kernel 1 offers a service, the last kernel wants to know of it, and of kernels that come and
    go; in between nobody hears anything. Then the service goes.

    ``late``: the service comes before anybody is interested. ``double``: another offers it too.
    ``dies``: kernel 1 does not withdraw its service but panics, and keepalives tell. ``notified``:
    a story of yours, ``notified(world, me, service, owner, there)``, for each notification.
    """
    count(kernels, "kernels", 3)
    tell_news = _told(notified, "notified")
    handlers = {
        MessageType.SERVICE: serving.handler(tell_news), MessageType.KEEPALIVE: keeping.told,
    }  # fmt: skip
    setup = make_setup(machine, kernels, cpus, handlers=handlers, keepalive=dies)
    service, last = serving.FIRST_SERVICE, kernels - 1

    def offers(world, me):
        yield Delay(SERVICE_STEP_NS * (1 if late else 3))
        yield from serving.arrive(world, me)
        yield from serving.register(world, me, service)
        yield Delay(SERVICE_STEP_NS * 4)
        if dies:
            yield KernelPanicked(me, "the scenario wants it dead")
        yield from serving.unregister(world, me, service)
        yield from serving.leave(world, me)

    def wants(world, me):
        yield Delay(SERVICE_STEP_NS * (3 if late else 1))
        for topic in (service, serving.ARRIVAL, serving.DEPARTURE):
            yield from serving.subscribe(world, me, topic)

    def offers_too(world, me):
        yield Delay(SERVICE_STEP_NS * 4)
        yield from serving.register(world, me, service)

    def cast(sim):
        sim.begin("machine", everybody_registered, kernels)
        _begin_receivers(sim, setup)
        sim.begin("kernel 0 watch", serving.watch, 0, kernel=0)
        sim.begin("kernel 1", offers, 1, kernel=1)
        sim.begin(f"kernel {last}", wants, last, kernel=last)
        if double:
            sim.begin("kernel 2" if last != 2 else "kernel 0", offers_too, 2 if last != 2 else 0)
        for me in setup.kernels if dies else ():
            sim.begin(f"kernel {me} keepalive", keeping.keepalive, me, 5, kernel=me)

    return _play_alone("services", locals(), setup, cast, services_world, tell_news is not None)


SERVICE_STEP_NS = 20_000  # model default: between what the kernels of that scenario do


def checkin_race(
    *,
    machine: str | Machine = "magny-cours-48",
    waits: bool = False,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
) -> Run:
    """Kernel 1 joins and checks in with kernel 0, whose callback answers at once. But a callback
    cannot map a window, a kernel thread does: until it has run, the answer fails. ``waits``: the
    thread that maps sends the answer."""

    def mapped_first(world, me, window):
        yield from messaging.map_window(world, me, window)
        yield from messaging.send(world, me, window, MessageType.TEST)

    def answered(world, me, message):
        if waits:
            yield messaging.MapQueued(me, message.sender)
            yield Begin(f"kernel {me} kthread", mapped_first(world, me, message.sender))
        else:
            yield from messaging.checked_in(world, me, message)
            yield from messaging.send(world, me, message.sender, MessageType.TEST)

    handlers = {MessageType.CHECKIN: answered, MessageType.TEST: _noted}
    setup = make_setup(machine, 2, cpus, handlers=handlers)

    def cast(sim):
        for me in setup.kernels:
            sim.begin(f"kernel {me}", join_after, me, me * JOIN_GAP_NS, kernel=me)

    return _play_alone("checkin_race", locals(), setup, cast, new_world)


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


def boot(
    *,
    machine: str | Machine = "h8qg6-64",
    kernels: int = 2,
    plan: Partition | str | Path | None = None,
    anyway: bool = False,
    failure: str = "",
    fails: int = 1,
    parallel: bool = False,
    scan: bool = True,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
    look_again: bool = True,
) -> Run:
    """The primary boots the other kernels of a plan, step by step: ramdisk, command line, image,
    INIT, trampoline, kernel, check-in. Without a plan, ``kernels`` kernels of one CPU each. A plan
    that has problems boots only ``anyway``, and shows what comes of it.

    ``failure`` makes something go wrong for kernel ``fails``: boot.FAILURES says what there is.
    ``parallel`` starts all boots at once, although they share one boot_params page. ``scan``:
    the new kernels look for PCI devices.
    """
    partition = _partition(machine, kernels, cpus) if plan is None else _sound(plan, anyway)
    return _boot("boot", locals(), partition)


def boot_64(
    *, kernels: int = 64, scan: bool = True, seed: int = 0, schedule_seed: int | None = None
) -> Run:
    """Popcorn's own tutorial, "booting Popcorn on 64 cores": one kernel for each of the 64 CPUs
    of the Supermicro H8QG6, 63 boots one after the other, and 2,016 check-ins."""
    partition = _partition("h8qg6-64", count(kernels, "kernels", 2, KERNELS_AT_MOST), None)
    return _boot("boot_64", locals(), partition)


def device_scan(
    *,
    machine: str | Machine = "h8qg6-64",
    lists: Sequence[str] | None = None,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
) -> Run:
    """One kernel after the other reads its ``pci_dev_flags`` and scans the machine's PCI tree.

    ``lists`` has a text for each kernel. Without it there are two kernels, with the lists that
    Popcorn's own script makes: the primary's is empty, the secondary's names everything.
    """
    if not isinstance(machine, Machine):
        machine = Machine.load(machine)
    if not machine.pci_functions:
        raise PopcornError(f"{machine.name} comes without a list of PCI functions to scan")
    if lists is None:
        lists = "", devices.write_flags(devices.create_lspci(machine.pci_functions))
    texts = type(lists) in (list, tuple) and all(isinstance(flags, str) for flags in lists)
    if not texts or len(lists) < 2:
        raise PopcornError(
            f"lists={lists!r:.60}: expected a list of texts, one for each of two kernels or more"
        )
    for flags in lists:
        devices.read_flags(flags)  # refuses what is no list before anything runs
    setup = make_setup(machine, len(lists), cpus)

    def in_turn(world, me):
        if me:
            yield Until(devices.ScanEnded, kernel=me - 1)
        yield from devices.scan(world, me, lists[me], cpu=setup.cpus[me])

    def cast(sim):
        for me in reversed(setup.kernels):  # who waits is there before what it waits for
            sim.begin(f"kernel {me}", in_turn, me, kernel=me)

    return _play_alone("device_scan", locals(), setup, cast, scan_world)


def proxied_io(
    *,
    machine: str | Machine = "h8qg6-64",
    kernels: int = 3,
    secondary: int = 2,
    device: str = "",
    blocks: int = 2,
    interrupt_to: int | None = None,
    seed: int = 0,
    schedule_seed: int | None = None,
    cpus: tuple[int, ...] | None = None,
) -> Run:
    """Kernel 0 owns a disk and reads ``blocks`` blocks of it; then kernel ``secondary``, which does
    not own it, reads as many through kernel 0: a message there, the driver, a message back.

    ``device``: its slot ("": the machine's first disk). ``interrupt_to``: the CPU that the disk
    interrupts, if not the owner's.
    """
    count(blocks, "blocks", 1, 1_000)

    def asked(world, me, message):
        yield from devices.submit(world, me, disk.slot, message.payload, setup.cpus[me], to)

    def answered(world, me, message):
        yield devices.IoDone(me, disk.slot, message.payload)

    def served(world, me, slot, request):
        if request >= blocks:
            yield from messaging.send(world, me, secondary, MessageType.PONG, payload=request)

    def reads_itself(world, me):
        yield devices.DeviceClaimed(me, disk.slot, disk.vendor_device, disk.driver or "none listed")
        for request in range(blocks):
            yield devices.IoAsked(me, disk.slot, request)
            yield from devices.submit(world, me, disk.slot, request, setup.cpus[me], to)
            yield Until(devices.InterruptServed, kernel=me, slot=disk.slot, request=request)
            yield devices.IoDone(me, disk.slot, request)

    def reads_through_another(world, me):
        yield Until(devices.IoDone, kernel=0, slot=disk.slot, request=blocks - 1)
        for request in range(blocks, 2 * blocks):
            yield devices.IoAsked(me, disk.slot, request)
            yield from messaging.send(world, me, 0, MessageType.PING, payload=request)
            while world.devices.requests[me, disk.slot, request] != "done":
                yield Until(devices.IoDone, kernel=me, slot=disk.slot, request=request)

    handlers = {MessageType.PING: asked, MessageType.PONG: answered}
    setup = make_setup(machine, kernels, cpus, handlers=handlers)
    count(secondary, "secondary", 1, kernels - 1)
    disk = _disk(setup.machine, device)
    to = setup.cpus[0] if interrupt_to is None else setup.machine.check_cpus([interrupt_to])[0]

    def cast(sim):
        sim.begin("machine", everybody_registered, kernels)
        for me in setup.kernels:
            sim.begin(f"kernel {me} isr", messaging.isr, me, kernel=me)
            sim.begin(f"kernel {me} softirq", messaging.softirq, me, messaging.receive, kernel=me)
            sim.begin(f"kernel {me} irq", devices.interrupts, me, setup.cpus[me], served, kernel=me)
        sim.begin(f"kernel {secondary}", reads_through_another, secondary, kernel=secondary)
        sim.begin("kernel 0", reads_itself, 0, kernel=0)

    return _play_alone("proxied_io", locals(), setup, cast, proxy_world)


JOIN_GAP_NS = 1_000_000  # model default: boots are serial; 1 ms apart instead of many seconds
LOST_WAKEUP_OPTIONS = {"kernels": 3, "messages": 3, "gap_ns": 1_000}
LOST_WAKEUP_SEEDS = (18, 143, 232)  # of the first 300, the fan-in seeds that strand a message

SCENARIOS: dict[str, Callable[..., Run]] = {
    scenario.__name__: scenario
    for scenario in (
        ping,
        fan_in,
        lost_wakeup,
        two_full_rings,
        long_message,
        multicast,
        keepalive,
        registration,
        checkin_race,
        services,
        boot,
        boot_64,
        device_scan,
        proxied_io,
    )
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


def run(
    name: str,
    *,
    fault: str = "",
    at: int | None = None,
    fault_options: dict | None = None,
    **arguments,
) -> Run:
    """Run the scenario of that name; a misspelt argument is refused with the near names.

    ``fault``: a name of faults.DECK, which goes wrong at record ``at`` (None: at the first place
    there is), with ``fault_options`` such as {"ns": 5000}. Its file can be read back and forked.
    """
    if fault:
        sound = run(name, **arguments)
        faulty = sound.inject(fault, at, **fault_options or {})
        given = sound.trace.meta["arguments"]
        chosen = {"fault": fault, "at": at, "fault_options": fault_options}
        faulty.trace.meta["arguments"] = None if given is None else given | chosen
        return faulty
    if at is not None or fault_options:
        raise PopcornError("at= and fault_options= say where and how a fault happens: say fault=")
    known = options(name)
    for argument in arguments:
        if argument not in known:
            raise PopcornError(
                f"scenario {name} has no option {argument!r}; {near_names(argument, known)}"
            )
    return scenario(name)(**arguments)


class _Measured(Exception):
    """Carries the numbers out of a scenario of which no trace is wanted."""


_only_measured: ContextVar[bool] = ContextVar("only_measured", default=False)


def measure(name: str, **arguments) -> dict:
    """The numbers of ``figures.summary`` of a scenario. Where numba plays the kit's own stories
    (``with flat.played_by("numba")``) no trace is kept for them, which makes a sweep fast."""
    if arguments.get("fault"):  # its sound run comes first, and is not what is asked for
        return figures.summary(run(name, **arguments))
    token = _only_measured.set(True)
    try:
        return figures.summary(run(name, **arguments))
    except _Measured as measured:
        return dict(list(measured.args[0].items())[: flat.SUMMARY_NUMBERS])
    finally:
        _only_measured.reset(token)


def load(path) -> Run:
    """Read back a run that was written by ``run.save(path)``."""
    trace = Trace.load(path)
    try:
        about = dict(trace.meta["setup"])
        name, arguments = trace.meta["scenario"], trace.meta["arguments"]
        handlers = {MessageType[name]: None for name in about.pop("handlers")}
        machine = Machine.load(about.pop("machine"))
        boots = trace.meta.get("boot")
        kind = BootSetup if boots else Setup
        if boots:
            about |= boots | {"plan": BootPlan.from_plain(boots["plan"])}
        setup = kind(machine=machine, cpus=tuple(about.pop("cpus")), handlers=handlers, **about)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PopcornError(f"{path}: this run does not say what it was built from") from None

    def replay(edits: tuple[Edit, ...]) -> Run:
        again = run(name, **arguments)
        if again.trace.digest() != trace.digest():
            raise PopcornError(
                f"{path} was written by another version of popcorn_edu, which played this scenario "
                "differently: it can be read, but not forked"
            )
        return again._replay((*edits_before(again.edits, edits[-1].at), *edits))

    make = WORLDS.get(name, new_world)
    if trace.meta.get("memory") == "tso":
        return Run(trace, lambda: exploring.buffered(make(setup)))
    return Run(trace, lambda: make(setup), replay if arguments is not None else None)


# -- every order of a small one --------------------------------------------------------------------

# What an exploration has if nothing else is said: the smallest configuration in which Popcorn's
# own bugs show. Two messages: the first wakes the receiver, the second can be left behind.
SMALL = {
    "ping": {"rounds": 2},
    "fan_in": {"kernels": 2, "messages": 2},
    "lost_wakeup": {"kernels": 2, "messages": 2},
    "two_full_rings": {"messages": 2, "slots": 1},
    "registration": {"kernels": 2},
}
EXPLORES = ("memory", "states", "always", "checks", "reduced")


@dataclass(frozen=True)
class Staging:
    """A scenario before it runs: the world, and who begins in it."""

    meta: dict
    setup: Setup
    cast: Callable
    world: Callable
    careful: bool  # a learner's story is among them


class _Staged(Exception):
    """Carries a Staging out of a scenario that shall not run."""


_only_staged: ContextVar[bool] = ContextVar("only_staged", default=False)


def staging(name: str, **arguments) -> Staging:
    """The scenario of that name, on the stage and not begun."""
    token = _only_staged.set(True)
    try:
        run(name, **arguments)
    except _Staged as staged:
        return staged.args[0]
    finally:
        _only_staged.reset(token)
    raise PopcornError(f"scenario {name} does not say who begins in it, so it cannot be explored")


def explore(
    name: str,
    *,
    memory: str = "sc",
    states: int = exploring.STATES_AT_MOST,
    always: Callable | None = None,
    checks: Iterable[Callable] = (),
    reduced: bool = True,
    **arguments,
) -> exploring.Verdict:
    """Search every order in which a small configuration of a scenario can happen.

    >>> explore("fan_in", kernels=3, messages=2, look_again=False)           # doctest: +SKIP
    found after 3,214 states, in 26 steps: kernel 0 sleeps on ...

    ``memory``: "sc", or "tso" (each CPU has a store buffer, as on x86). Every end is judged by
    ``everybody_is_done``; ``always(world)`` may judge every state and ``checks`` the whole of one
    shortest run into each end (as in popcorn_edu.checks). ``reduced=False`` leaves out no order.
    """
    staged = staging(name, **(SMALL.get(name, {}) | arguments))
    return exploring.explore(
        lambda: staged.world(staged.setup),
        staged.cast,
        memory=memory,
        states=states,
        ends=everybody_is_done,
        always=always,
        checks=checks,
        careful=staged.careful,
        meta=staged.meta,
        reduced=reduced,
    )


def everybody_is_done(world, waiting: Sequence[tuple[str, str]]) -> str:
    """What is wrong when nothing more can happen: somebody still spins, or a message lies there
    that nobody will read or handle."""
    if "messaging" not in world._world.parts:
        return ""
    rings, mine, stuck = world.rings, world.messaging, []
    for who, what in waiting:
        kind, process = what.split(",")[0], who.removeprefix("kernel ").isdigit()
        idle = kind == "SlotReady" and all(rings.head[r] == rings.tail[r] for r in rings.head)
        if process or not (kind in ("IpiArrived", "InterruptTaken") or idle):
            stuck.append(f"{who} waits for {what}")
    if stuck:
        return f"deadlock: {'; '.join(stuck)}; and nobody will make it happen"
    for ring in rings.head:
        unread = rings.head[ring] - rings.tail[ring]
        if unread:
            messages = "1 message lies" if unread == 1 else f"{unread} messages lie"
            return (
                f"lost wake-up: {messages} in ring {ring}, kernel {ring} sleeps, and no interrupt "
                "is on its way"
            )
    for kernel, priority in mine.queued:
        unhandled = mine.queued[kernel, priority] - mine.served[kernel, priority]
        if unhandled:
            return f"kernel {kernel} has read {unhandled} {priority} messages that nobody handles"
    return ""


# -- what they are made of ------------------------------------------------------------------------


def send_some(world, me, to, gaps, priorities, tell_send, type):
    """A process in kernel ``me``: think, send, think, send."""
    for payload, (gap, priority) in enumerate(zip(gaps, priorities, strict=True)):
        yield Delay(gap)
        yield from tell_send(world, me, to, type, priority, payload)


def join_after(world, me, ns):
    yield Delay(ns)
    yield from messaging.join(world, me)


REPLIES = {MessageType.PING: MessageType.PONG}  # what the callbacks here answer


def _answer(tell_send):
    def answer(world, me, message):
        yield from tell_send(
            world, me, message.sender, REPLIES[message.type], Priority.NORMAL, message.payload
        )

    return answer


def _noted(world, me, message):
    """A callback that has nothing more to do."""
    return iter(())


def everybody_registered(world, kernels):
    yield AllRegistered(kernels)


def think_times(name: str, seed: int, kernel: int, messages: int, gap_ns: int) -> list[int]:
    """How many ns a kernel's process thinks before each of its messages, from the scenario's
    seed."""
    if gap_ns == 0:
        return [0] * messages
    # Whole numbers from a generator that is seeded with text: the same on every platform.
    text = f"{name} {seed} kernel {kernel}"
    if drawn := flat.draws(text, 2 * gap_ns + 1, messages):
        return drawn
    draw = random.Random(text).randrange
    return [draw(2 * gap_ns + 1) for _ in range(messages)]


def _priorities(messages: int, high_every: int) -> list[Priority]:
    if not high_every:
        return [Priority.NORMAL] * messages
    return [
        Priority.HIGH if (n + 1) % high_every == 0 else Priority.NORMAL for n in range(messages)
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


def _generation(name: str, given: dict) -> dict:
    """The choices of a generation of Popcorn, and over them what is given otherwise than usual."""
    if name not in GENERATIONS:
        raise PopcornError(f"generation={name!r}: {near_names(str(name), GENERATIONS)}")
    usual = {field.name: field.default for field in fields(Setup)}
    return given | GENERATIONS[name] | {k: v for k, v in given.items() if v != usual[k]}


def new_world(setup: Setup) -> World:
    more = {"mitigation": Mitigation} if setup.mitigation == "adaptive" else {}
    return World(setup, rings=Rings, messaging=Messaging, **more)


# -- booting --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BootSetup(BootChoices, Setup):
    """The setup of a run in which kernels boot first, and then talk."""

    FIXED = (*Setup.FIXED, *BootChoices.FIXED)

    def window_address(self, kernel: int) -> int:
        """In the kernel's own memory, as memory.places says."""
        tenants = places(kernel, self.plan.images[kernel].memory)
        return next(tenant.start for tenant in tenants if tenant.name == "messaging window")


class BootWithMessages(Boot):
    """boot_params also says where rkinfo is, which messaging (further down) makes."""

    def rkinfo_allocated(self, event: RkinfoAllocated) -> None:
        self.boot_params["pcn_kmsg_master_window"] = event.address

    applies = Boot.applies | {RkinfoAllocated: rkinfo_allocated}


def boot_world(setup: BootSetup) -> World:
    return World(setup, boot=BootWithMessages, devices=Devices, rings=Rings, messaging=Messaging)


BELOW = Below(messaging.join, blacklist=devices.read_list, scan=devices.scan)


def _partition(machine: str | Machine, kernels: int, cpus) -> Partition:
    """One CPU for each kernel: those given, all there are, or as far apart as they go."""
    if not isinstance(machine, Machine):
        machine = Machine.load(machine)
    count(kernels, "kernels", 2, KERNELS_AT_MOST)
    if cpus is None and kernels == len(machine.cpus):
        return Partition.build(machine, grouping="per core")
    cpus = make_setup(machine, kernels, cpus).cpus
    return Partition.build(machine, grouping=[[cpu] for cpu in cpus])


def _sound(plan: Partition | str | Path, anyway: bool) -> Partition:
    """A plan, or the file it was saved in, if it has no problems."""
    if isinstance(plan, (str, Path)):
        plan = Partition.load(plan)
    if not isinstance(plan, Partition):
        raise PopcornError(f"plan={plan!r:.60}: expected a Partition (Partition.build makes one)")
    problems = [] if anyway else plan.problems()
    if problems:
        raise PopcornError(
            f"this plan has {len(problems)} problem{'s' if len(problems) > 1 else ''} "
            f"(plan.problems() lists them, anyway=True boots it all the same): {problems[0]}"
        )
    return plan


def _boot(name: str, arguments: dict, partition: Partition) -> Run:
    """Put the machine, its primary and its operator on the stage."""
    _check_seeds(arguments)
    if len(partition.kernels) < 2:
        raise PopcornError("this plan has no secondary kernel to boot; two kernels were expected")
    plan = BootPlan.of(partition)
    fails = arguments.get("fails", 1)
    if not isinstance(fails, int) or fails not in plan.secondaries:
        last = plan.secondaries[-1]
        raise PopcornError(f"fails={fails!r}: expected a secondary kernel's number, 1 to {last}")
    changes = {"plan": plan, "parallel": arguments.get("parallel", False)}
    changes |= booting.failing(plan, arguments.get("failure", ""), fails)
    setup = BootSetup(
        machine=partition.machine, cpus=plan.cpus, look_again=arguments.get("look_again", True),
        handlers={MessageType.CHECKIN: messaging.checked_in}, **changes,
    )  # fmt: skip
    meta = _meta(name, arguments, setup)
    meta["boot"] = {choice.name: getattr(setup, choice.name) for choice in fields(BootChoices)} | {
        "plan": setup.plan.plain()
    }
    if arguments.get("plan") is not None:
        meta["arguments"] = None  # a plan is an object: the file holds what was made of it

    below = BELOW if arguments["scan"] else BELOW._replace(scan=None)

    def cast(sim: Sim) -> None:
        sim.begin("kernel 0", booting.primary, below, kernel=0)

    return _staged(meta, setup, cast, boot_world, arguments["schedule_seed"])()


# -- devices --------------------------------------------------------------------------------------

DISKS = ("0108", "0107", "0106", "0100", "0101")  # PCI classes with blocks: NVMe, SAS, SATA, ...


def _disk(machine: Machine, slot: str) -> PciFunction:
    """The function at that slot, else the first disk controller, else the first device."""
    functions = {f.slot: f for f in devices.ownable(machine.pci_functions)}
    if slot and slot not in functions:
        near = near_names(slot, functions)
        raise PopcornError(f"device={slot!r}: {machine.name} has no device there; {near}")
    if not functions:
        raise PopcornError(f"{machine.name} comes without a list of PCI functions")
    ranks = {kind: rank for rank, kind in enumerate(DISKS)}
    first = min(functions.values(), key=lambda f: ranks.get(f.device_class, len(DISKS)))
    return functions.get(slot, first)


def _begin_receivers(sim: Sim, setup: Setup, receive: Callable | None = None) -> None:
    for me in setup.kernels:
        for who, story in halves(setup, me, receive):
            sim.begin(who, story, kernel=me)


def services_world(setup: Setup) -> World:
    return World(setup, rings=Rings, messaging=Messaging, keepalive=Keepalive, services=Services)


def keepalive_world(setup: Setup) -> World:
    return World(setup, rings=Rings, messaging=Messaging, keepalive=Keepalive)


def long_world(setup: Setup) -> World:
    return World(setup, rings=Rings, messaging=Messaging, long=LongMessages)


def multicast_world(setup: Setup) -> World:
    return World(setup, rings=Rings, messaging=Messaging, multicast=Multicast)


def scan_world(setup: Setup) -> World:
    return World(setup, devices=Devices)


def proxy_world(setup: Setup) -> World:
    return World(setup, devices=Devices, rings=Rings, messaging=Messaging)


WORLDS = {
    "boot": boot_world,
    "boot_64": boot_world,
    "device_scan": scan_world,
    "proxied_io": proxy_world,
    "keepalive": keepalive_world,
    "services": services_world,
    "long_message": long_world,
    "multicast": multicast_world,
}


def _staged(
    meta: dict, setup: Setup, cast: Callable, world: Callable, schedule_seed: int | None, **choices
) -> Callable[[tuple[Edit, ...]], Run]:
    """What puts a cast on the stage and lets it run: once, and once more for each fork."""
    if _only_staged.get():
        raise _Staged(Staging(meta, setup, cast, world, choices.get("careful", False)))

    def play(edits: tuple[Edit, ...] = ()) -> Run:
        again = meta | {"arguments": None} if edits else meta  # a saved fork is not played again
        sim = Sim(world(setup), again, schedule_seed=schedule_seed, edits=edits, **choices)
        cast(sim)
        return finish(sim, lambda: world(setup), play)

    return play


def _play_alone(
    name: str, arguments: dict, setup: Setup, cast: Callable, world: Callable, learner: bool = False
) -> Run:
    """A scenario with a cast of its own; under watch if a learner's story is in it."""
    _check_seeds(arguments)
    meta = _meta(name, arguments, setup)
    watched = {"careful": True, "record_limit": RECORD_LIMIT_FOR_LEARNERS} if learner else {}
    return _staged(meta, setup, cast, world, arguments["schedule_seed"], **watched)()


def _check_seeds(arguments: dict) -> None:
    whole(arguments["seed"], "seed")
    if arguments["schedule_seed"] is not None:
        whole(arguments["schedule_seed"], "schedule_seed")


def _play(name, arguments, setup, jobs, receive, send, schedule_seed, registered=True) -> Run:
    """Kernels that talk. The kit's own stories are played flat, a learner's by the Sim."""
    _check_seeds(arguments)
    learner = send is not None or receive is not None
    receive = _told(receive, "receive")
    meta = _meta(name, arguments, setup)

    def cast(sim: Sim) -> None:
        if registered:
            sim.begin("machine", everybody_registered, len(setup.cpus))
        for me in setup.kernels:
            if registered:  # else joining begins them
                for who, story in halves(setup, me, receive if me == 0 else None):
                    sim.begin(who, story, kernel=me)
            if me in jobs:
                tell, *rest = jobs[me]
                sim.begin(f"kernel {me}", tell, *rest, kernel=me)

    limit = RECORD_LIMIT_FOR_LEARNERS if learner else RECORD_LIMIT
    play = _staged(meta, setup, cast, new_world, schedule_seed, careful=learner, record_limit=limit)
    if registered and not learner:
        senders = {
            me: flat.Sender(to, gaps, priorities, type)
            for me, (_, _, to, gaps, priorities, _, type) in jobs.items()
        }
        replies = {type: REPLIES.get(type) for type in setup.handlers}
        if _only_measured.get():
            measured = flat.measure(setup, senders, replies, schedule_seed, limit)
            if measured is not None:
                raise _Measured(measured)
        if told := flat.play(setup, senders, replies, meta, schedule_seed, limit):
            trace, waiting = told
            return Run(trace, lambda: new_world(setup), play, waiting)
    return play()


# The settings of a Setup that are plain values: kept in a run's file, by name.
CHOSEN = [f.name for f in fields(Setup) if f.name not in ("machine", "cpus", "handlers")]


def _meta(name: str, arguments: dict, setup: Setup) -> dict:
    """What a run's file says about where it came from."""
    return {
        "scenario": name,
        "arguments": _plain(arguments, name),
        "machine": setup.machine.name,
        "setup": {
            "machine": setup.machine.name,
            "cpus": list(setup.cpus),
            **{name: getattr(setup, name) for name in CHOSEN},
            "handlers": [kind.name for kind in setup.handlers],
        },
    }


def _plain(arguments: dict, name: str) -> dict | None:
    """A scenario's arguments as they can be kept in a file; None if a learner's story is one."""
    given = {key: arguments[key] for key in options(name) if key in arguments}
    if isinstance(given.get("machine"), Machine):
        given["machine"] = given["machine"].name
    if given.get("cpus") is not None:
        given["cpus"] = list(given["cpus"])
    return None if any(map(callable, given.values())) else given

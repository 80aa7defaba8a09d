"""Bad input: one clear sentence that says what, where, and what was expected.

Each row is what somebody typed and the sentence they read. The sentences are golden: whoever
changes one should read it as a student would.
"""

import pytest

from popcorn_edu import Machine, load, scenarios
from popcorn_edu.engine.steps import Begin, Delay, Until
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.rings import SlotReady

NAMES = {
    **scenarios.SCENARIOS,
    "Begin": Begin,
    "Delay": Delay,
    "Machine": Machine,
    "SlotReady": SlotReady,
    "Until": Until,
    "load": load,
    "scenarios": scenarios,
}

TABLE = """
scenarios.run("fanin")
there is no scenario 'fanin'; did you mean fan_in?

scenarios.run("")
there is no scenario ''; expected one of: boot, boot_64, checkin_race, device_scan, fan_in,
keepalive, long_message, lost_wakeup, multicast, ping, proxied_io, registration, services,
two_full_rings

scenarios.run(5)
there is no scenario 5; expected one of: boot, boot_64, checkin_race, device_scan, fan_in,
keepalive, long_message, lost_wakeup, multicast, ping, proxied_io, registration, services,
two_full_rings

scenarios.run("fan_in", kernel=3)
scenario fan_in has no option 'kernel'; did you mean kernels?

scenarios.run("ping", messages=3)
scenario ping has no option 'messages'; expected one of: cpus, look_again, machine, receive,
rounds, schedule_seed, seed, send

scenarios.run("lost_wakeup", gap=3)
scenario lost_wakeup has no option 'gap'; did you mean gap_ns?

scenarios.options("pings")
there is no scenario 'pings'; did you mean ping?

fan_in(kernels=0)
kernels=0: expected a whole number, 2 or more

fan_in(kernels=1)
kernels=1: expected a whole number, 2 or more

fan_in(kernels=-3)
kernels=-3: expected a whole number, 2 or more

fan_in(kernels=2.5)
kernels=2.5: expected a whole number, 2 or more

fan_in(kernels="four")
kernels='four': expected a whole number, 2 or more

fan_in(kernels=True)
kernels=True: expected a whole number, 2 or more

fan_in(kernels=None)
kernels=None: expected a whole number, 2 or more

fan_in(kernels=49)
kernels=49: magny-cours-48 has 48 CPUs, and each kernel needs one of its own

fan_in(machine="cortex-a9-2", kernels=3)
kernels=3: cortex-a9-2 has 2 CPUs, and each kernel needs one of its own

registration(kernels=1)
kernels=1: expected a whole number, 2 or more

fan_in(machine="magny-cours-84")
There is no machine called 'magny-cours-84'; did you mean magny-cours-48 or magny-cours-48-v1 or
amd-magnycours-4s8n48c-drachma?

fan_in(machine="no such thing at all")
There is no machine called 'no such thing at all'; expected one of 34 names, such as cfl-k700-i7,
cortex-a9-2, dl165g7-16, e5-2650-32, e5-2680-16, e5-2690-32, e5-4650v2-40, epyc-96

fan_in(machine=48)
A machine is asked for by its name in quotes, not by int.

Machine.load("opteron")
There is no machine called 'opteron'; did you mean opteron-865-16 or opteron-8347-16 or
opteron-6272-64?

fan_in(kernels=2, cpus=(0, 48))
magny-cours-48 has no CPU 48; its CPUs are 0-47.

fan_in(kernels=2, cpus=(0, -1))
magny-cours-48 has no CPU -1; its CPUs are 0-47.

fan_in(kernels=2, cpus=(3, 3))
CPU 3 is named twice; each CPU can belong to one kernel only.

fan_in(kernels=2, cpus=(0, 1, 2))
cpus=(0, 1, 2): expected 2 CPUs, one for each kernel

fan_in(kernels=2, cpus=())
cpus=(): expected 2 CPUs, one for each kernel

fan_in(kernels=2, cpus="0,1")
'0,1' is no list of CPU numbers; one such as [0, 12, 24] was expected.

fan_in(kernels=2, cpus=5)
5 is no list of CPU numbers; one such as [0, 12, 24] was expected.

fan_in(kernels=2, cpus=(0, 1.0))
1.0 is no CPU number; a whole number was expected.

fan_in(kernels=2, cpus=(0, "1"))
'1' is no CPU number; a whole number was expected.

fan_in(machine="netburst-12", kernels=2, cpus=(0, 5))
CPU 5 of netburst-12 is offline; its online CPUs are 0-1,3-4,6-12,15.

fan_in(messages=-1)
messages=-1: expected a whole number, 0 or more

fan_in(messages=1.5)
messages=1.5: expected a whole number, 0 or more

fan_in(messages="8")
messages='8': expected a whole number, 0 or more

fan_in(gap_ns=-5)
gap_ns=-5: expected a whole number, 0 or more

fan_in(gap_ns=0.5)
gap_ns=0.5: expected a whole number, 0 or more

fan_in(high_every=-1)
high_every=-1: expected a whole number, 0 or more

fan_in(slots=0)
slots=0: expected a whole number, 1 or more

fan_in(slots=-64)
slots=-64: expected a whole number, 1 or more

fan_in(slots="64")
slots='64': expected a whole number, 1 or more

fan_in(budget=0)
budget=0: expected a whole number, 1 or more

fan_in(budget=None)
budget=None: expected a whole number, 1 or more

fan_in(look_again="yes")
look_again='yes': expected True or False

fan_in(look_again=0)
look_again=0: expected True or False

fan_in(full_rule="own slots")
full_rule='own slots': did you mean own slot?

fan_in(full_rule=None)
full_rule=None: expected one of: own slot, refuse, sleep, whole ring

fan_in(barrier="half")
barrier='half': expected one of: full, store

fan_in(interrupt_rule="ever")
interrupt_rule='ever': expected one of: always, when asked

fan_in(mitigation="NAPI")
mitigation='NAPI': expected one of: adaptive, interrupt only, poll only, poll until empty

fan_in(poll_every_ns=0)
poll_every_ns=0: expected a whole number, 1 or more

fan_in(bottom_half="soft irq")
bottom_half='soft irq': did you mean softirq?

fan_in(generation="G3")
generation='G3': did you mean G2 or G1?

fan_in(seed="three")
seed='three': expected a whole number

fan_in(seed=1.5)
seed=1.5: expected a whole number

fan_in(seed=None)
seed=None: expected a whole number

fan_in(schedule_seed="x")
schedule_seed='x': expected a whole number

lost_wakeup(seed="x")
seed='x': expected a whole number

registration(seed=0.5)
seed=0.5: expected a whole number

ping(rounds=-1)
rounds=-1: expected a whole number, 0 or more

ping(rounds="2")
rounds='2': expected a whole number, 0 or more

fan_in(receive=5)
receive=5: expected a function that tells a story

fan_in(send="send")
send='send': expected a function that tells a story

two_full_rings(slots=0)
slots=0: expected a whole number, 1 or more

two_full_rings(messages=None)
messages=None: expected a whole number, 0 or more

fan_in().at(-1)
run.at(-1): expected a number from 0 to 205

fan_in().at("end")
run.at('end'): expected a number from 0 to 205

fan_in().fork(3)
a fork makes exactly one edit: drop=True, delay=NS, say=EVENT, instead=EVENT, or one setting
(this one makes 0)

fan_in().fork(3, drop=True, delay=9)
a fork makes exactly one edit: drop=True, delay=NS, say=EVENT, instead=EVENT, or one setting
(this one makes 2)

fan_in().fork(10**6, drop=True)
fork(1000000): expected a record number from 0 to 204

fan_in().fork(3, lookagain=True)
there is no setting 'lookagain'; did you mean look_again?

fan_in().fork(3, budget=0)
budget=0: expected a whole number, 1 or more

fan_in().fork(3, slots=4)
slots is laid out at the start; it cannot change in a fork

fan_in().fork(3, say="IpiSent")
say='IpiSent': expected an event, such as IpiArrived(...)

fan_in().fork(3, instead="IpiSent")
instead='IpiSent': expected an event, such as IpiArrived(...)

fan_in().inject("lost irq")
there is no fault 'lost irq'; did you mean lost IPI?

fan_in().inject("lost IPI", at=3)
the fault 'lost IPI' is not possible at record 3 (SlotReady); it wants
IpiArrived, and the nearest place is record 9

fan_in().inject("lost IPI", at=999)
at=999: expected a record number from 0 to 204

fan_in().inject("late IPI", nanoseconds=9)
the fault 'late IPI' has no option 'nanoseconds'; expected one of: ns

fan_in().inject("late IPI", ns=0)
ns=0: expected a whole number of nanoseconds, 1 or more

fan_in().inject("kernel panic", at=9, kernel=5)
kernel=5: expected a kernel's number, 0 to 4

scenarios.run("fan_in", at=9)
at= and fault_options= say where and how a fault happens: say fault=

fan_in().world.messages
the world has no part 'messages'; did you mean messaging?

fan_in().world.seen_by(1).messaging.mappd
world.messaging has no table 'mappd'; did you mean mapped?

list(fan_in().trace.records(SlotReady, slots=3))
SlotReady has no field 'slots'; did you mean slot?

Delay(-1)
Delay wants a whole number of nanoseconds, 0 or more, not -1

Delay("5 ns")
Delay wants a whole number of nanoseconds, 0 or more, not '5 ns'

Until(SlotReady, within=-3)
Until wants within= as a whole number of nanoseconds, 0 or more, not -3

Until("SlotReady")
Until wants a kind of event, such as SlotReady, not 'SlotReady'

Begin("x", None)
Begin wants a story that was called, as in Begin('kernel 3 isr', isr(world, 3)), not None

load("nowhere.popcorn")
there is no file nowhere.popcorn

fan_in().save("nowhere/run")
cannot write nowhere/run: No such file or directory
"""

ROWS = [
    (typed, " ".join(sentence.split("\n")))
    for typed, _, sentence in (row.partition("\n") for row in TABLE.strip().split("\n\n"))
]


@pytest.mark.parametrize(("typed", "sentence"), ROWS)
def test_bad_input_gives_its_sentence(typed, sentence):
    """No call stack, no surprise: a PopcornError with exactly this text."""
    with pytest.raises(PopcornError) as caught:
        eval(typed, dict(NAMES))
    assert str(caught.value) == sentence


@pytest.mark.parametrize("sentence", [sentence for _, sentence in ROWS])
def test_a_sentence_is_one(sentence):
    """On one line, not too long, and not the text of a bare Python exception."""
    assert "\n" not in sentence
    assert 20 < len(sentence) < 500
    assert "object at 0x" not in sentence and "NoneType" not in sentence


def test_the_table_is_long_enough():
    """Every kind of argument that a learner can get wrong has a row."""
    typed = " ".join(call for call, _ in ROWS)
    assert len(ROWS) >= 60
    for name in scenarios.options("fan_in"):
        assert f"{name}=" in typed, name

# %% [markdown]
# # Lab 05 · Messages through shared memory
#
# | | |
# |---|---|
# | Time | 85 minutes: 25 to read, 60 to do |
# | You need | Lab 00; functions, loops and `yield` in Python |
# | Points | 22 |
# | Curriculum | CS2023, Operating Systems: concurrency; communication between kernels |
#
# When you are through, you can
#
# * **trace** a message from its ticket to its callback (tasks a1, p1);
# * **implement** a bounded ring with many senders and one receiver (f2a, f2b);
# * **state** which orders are guaranteed and **test** a run for them (a4, i5);
# * **compute** how a long message is cut into chunks (a3);
# * **diagnose** head-of-line blocking and deadlock, and **choose** a design for a full ring
#   (p2, p3, o6, a7, s8).

# %% locked="setup"
import popcorn_edu as pk
from popcorn_edu import Delay, Until
from popcorn_edu.model.messaging import SenderBlocked, deliver, send_ipi
from popcorn_edu.model.rings import (
    InterruptsDisabled,
    InterruptsEnabled,
    MessageRead,
    PayloadCopied,
    RingSeenEmpty,
    SlotReady,
    TicketTaken,
)

lab = pk.lab("05")
print(lab)

# %% [markdown]
# ## Two kernels stand still
#
# ![Two kernels, each with a ring of two slots, both full. A callback in kernel 0 waits for space in
# ring 1, and a callback in kernel 1 waits for space in ring 0.](two_rings.svg)
#
# Each of them did only what the protocol says. Nothing was lost, nothing was written twice, and
# still neither will ever go on. At the end of this lab you build this standstill yourself, with as
# few steps as possible, and know how to prevent it.
#
# ### Task pre · Four guesses
#
# Guess first. Any answer earns the points; nobody tells you yet which are right.
#
# | | a | b | c |
# |---|---|---|---|
# | `ipi`: another kernel's interrupt brings | the message | its address | only a "look!" |
# | `returned`: `send()` is back. The message | is read | is on its way | is in memory |
# | `two_senders`: who sends first is read | first | maybe second | first, if HIGH |
# | `full`: a message for a full ring | is lost | is an error | it depends |
#
# <!-- hints pre -->

# %% answer="pre"
before = {"ipi": ..., "returned": ..., "two_senders": ..., "full": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
before = {"ipi": "a", "returned": "a", "two_senders": "a", "full": "a"}  # any guess will do
### END SOLUTION

# %% grade="pre"
lab.grade("pre", before).score()

# %% [markdown]
# ## One ring, many senders
#
# ![Kernels 1, 2 and 3 have taken tickets 4 to 7 of ring 0, which has eight slots and lies in kernel
# 0's memory. Tail is 4, head is 8. Slots 4, 5 and 7 are ready; slot 6 is taken but not ready; the
# other slots are free.](one_ring.svg)
#
# Kernel 0 owns **ring 0**; all other kernels write into it. To send, a kernel takes a **ticket**:
# it adds 1 to `head` in one atomic step, and the old value is its ticket. Ticket `t` belongs to
# slot `t % slots`. The kernel copies its message there and sets the **ready** flag *last*. If
# `int_enabled` is 1, it sends kernel 0 an IPI. Kernel 0 reads in ticket order and adds 1 to `tail`
# for each message. Then it runs the **callbacks**: first for all HIGH messages it has read, then
# for all NORMAL ones.
#
# This is the messaging of Popcorn's first generation, **G1** (2012-13); the second (2013-15) is
# **G2**. A ring has 64 slots in Popcorn (exact); here it has fewer, so that you see it fill.
#
# | in the player | means |
# |---|---|
# | solid line, full circle to hollow circle | a message: marked ready, then read |
# | dashed line, full triangle to hollow triangle | an IPI: sent, then arrived |
# | full and hollow diamond | the receiver starts or ends a way of working |
# | square | a callback runs |
# | hatched stretch | somebody waits, spinning |

# %%
lab.play("demo")

# %% [markdown]
# **Predict p1.** The first IPI reaches kernel 0's CPU. Where is the message now? (a) in the IPI;
# (b) in a slot of ring 0, since before the IPI was sent; (c) still with its sender. Commit to one,
# then say in a line why.

# %%
p1 = ...  # "a", "b" or "c"
why_1 = ""  # one line, for yourself and your teacher
lab.predict("p1", p1)

# %% [markdown]
# ## Task a1 · Eight steps of a ring
#
# Now predict a whole table. The next cell prints eight steps of another run, and the state of ring
# 0 before them. For each step, write down what `head`, `tail` and `int_enabled` are *after* it, and
# how many slots are ready. Then look: `eight.play(at=6)`.
#
# <!-- hints a1 -->

# %% answer="a1"
eight = lab.run("eight steps")
now = eight.at(6).rings
print(f"before: head {now.head[0]}, tail {now.tail[0]}, int_enabled {now.int_enabled[0]},", end=" ")
print(f"{len(now.ready)} ready")
eight.show(6, 14)
table = {  # eight numbers each
    "head": [..., ..., ..., ..., ..., ..., ..., ...],
    "tail": [..., ..., ..., ..., ..., ..., ..., ...],
    "ready": [..., ..., ..., ..., ..., ..., ..., ...],
    "int_enabled": [..., ..., ..., ..., ..., ..., ..., ...],
}
### BEGIN SOLUTION
from popcorn_edu.grading.lab05 import COLUMNS, true_column

table = {name: true_column(name, lab.variant) for name in COLUMNS}
### END SOLUTION

# %% grade="a1"
lab.grade("a1", table).score()

# %% [markdown]
# ## How a kernel's part is told
#
# Each kernel's part is a **story**: a function that yields its steps.
#
# | yield | means |
# |---|---|
# | an event, such as `RingSeenEmpty(me, 1)` | say it, then it is so |
# | `Delay(300)` | 300 ns pass, and *others can act* |
# | `Until(SlotReady, ring=me)` | wait until somebody says that |
# | `yield from deliver(world, me)` | tell another story here: run the callbacks of what was read |
#
# | look at | to know |
# |---|---|
# | `world.rings.head[k]`, `world.rings.tail[k]` | tickets taken, messages read, in ring k |
# | `world.rings.ready.get((k, slot))` | the ticket that is ready in that slot, or None |
# | `world.rings.slots[k, slot]` | the message in that slot |
# | `world.rings.int_enabled[k]` | 1: interrupt me; 0: I am polling |
# | `world.setup.slots` | how many slots a ring has |
#
# `read_one` below is a complete story. Kernel 0 tells it each time an interrupt has started its
# softirq. It reads one message, asks for interrupts again, and hands the message over. The times
# are rounded **model defaults**. Run it, and read what the check says. Why is one message not
# enough?


# %%
def read_one(world, me):
    """Read one message, ask for interrupts again, hand it over."""
    window = world.rings
    ticket = window.tail[me]  # whose turn is it?
    slot = ticket % world.setup.slots
    if window.ready.get((me, slot)) != ticket:  # the flag is not there yet: wait for it
        yield Until(SlotReady, ring=me, ticket=ticket)
    yield Delay(300)  # copying the message out of the ring takes time
    yield MessageRead(*window.slots[me, slot])
    yield InterruptsEnabled(me)
    yield from deliver(world, me)


run = pk.scenarios.fan_in(receive=read_one, kernels=3, messages=2, seed=1)
pk.checks.every_message_is_read(run)

# %% [markdown]
# ## Task f2a · A send of your own
#
# Subgoal 1 is given. Write subgoals 2 to 4. You say:
#
# | event | when |
# |---|---|
# | `SenderBlocked(to, ticket, me, ring.tail[to])` | the slot is still in use: I start to spin |
# | `PayloadCopied(to, slot, ticket, me, number, type, priority, payload)` | it is in the slot |
# | `SlotReady(to, slot, ticket, me)` | the flag is set |
#
# and `yield from send_ipi(world, me, to)` interrupts kernel `to`. Your story is told by every
# sender, in many runs: with rings of two slots, with other seeds, with shuffled schedules. The
# report names the first run that breaks a rule, and the record where you and the rule part. To
# look at it: copy the call from the report, or `lab.grade("f2a", send).play()`. When all is well,
# each line of the report says `yes`.
#
# <!-- hints f2a -->


# %% answer="f2a"
def send(world, me, to, type, priority, payload):
    """Put one message into kernel `to`'s ring."""
    ring, slots = world.rings, world.setup.slots
    # 1. Take a ticket. Reading head and adding 1 is one step: no Delay in between.
    yield Delay(100)
    ticket, number = ring.head[to], world.messaging.sent[me]
    yield TicketTaken(to, ticket, me, number)
    slot = ticket % slots
    # 2. While the slot holds an unread message, wait. Say SenderBlocked once, before.
    ### BEGIN SOLUTION
    if ticket - ring.tail[to] >= slots:
        yield SenderBlocked(to, ticket, me, ring.tail[to])
    while ticket - ring.tail[to] >= slots:
        yield Until(MessageRead, ring=to)  # then look again
    ### END SOLUTION
    # 3. Copy the message, which takes Delay(250), then mark the slot ready.
    ### BEGIN SOLUTION
    yield Delay(250)  # two cache lines
    yield PayloadCopied(to, slot, ticket, me, number, type, priority, payload)
    yield SlotReady(to, slot, ticket, me)
    ### END SOLUTION
    # 4. If the receiver wants an interrupt, send it one.
    ### BEGIN SOLUTION
    if ring.int_enabled[to]:
        yield from send_ipi(world, me, to)  # the message is in memory already
    ### END SOLUTION


# %% grade="f2a"
lab.grade("f2a", send).score()

# %% [markdown]
# ## Task f2b · A receive of your own
#
# Now the whole of it. Improve on `read_one`: read *everything* that is there, in ticket order, and
# never a slot that is not ready. When the ring is empty, say `RingSeenEmpty(me, read)` with the
# number of messages you have read. Leaving the poll takes 300 ns (model default): `Delay(300)`.
# Then `InterruptsEnabled(me)`.
#
# And if a message comes within those 300 ns? Its sender saw `int_enabled = 0` and sends no
# interrupt. Popcorn's first version sleeps on such a message: a **lost wake-up**. Yours looks once
# more. If it finds something, it says `InterruptsDisabled(me)` and starts over.
#
# Last of all, `yield from deliver(world, me)` hands over what was read.
#
# <!-- hints f2b -->


# %% answer="f2b"
def receive(world, me):
    """Read all there is, ask for interrupts, look once more, hand over what was read."""
    ring, slots, read = world.rings, world.setup.slots, 0
    ### BEGIN SOLUTION
    while True:
        while ring.head[me] > ring.tail[me]:
            ticket = ring.tail[me]
            if ring.ready.get((me, ticket % slots)) != ticket:
                yield Until(SlotReady, ring=me, ticket=ticket)  # head-of-line blocking
            yield Delay(300)  # copy it out
            yield MessageRead(*ring.slots[me, ticket % slots])
            read += 1
        yield RingSeenEmpty(me, read)
        yield Delay(300)  # somebody may send just now
        yield InterruptsEnabled(me)  # from here on senders interrupt
        if ring.head[me] == ring.tail[me]:
            break
        yield InterruptsDisabled(me)
    yield from deliver(world, me)  # HIGH first
    ### END SOLUTION


# %% grade="f2b"
lab.grade("f2b", receive).score()

# %% [markdown]
# ## Head of the line
#
# Reading in ticket order has a price. In the scene `stalled` one sender is held up for 20,000 ns
# between its ticket and its ready flag; say, because another interrupt came.
#
# **Predict p2.** Other messages are ready behind it. How many of them does kernel 0 read until the
# held-up sender is done? (`lab.play("stalled")` shows it afterwards.)
#
# **Experiment.** Would a larger ring help? In the cell after that, first write down what you
# expect, then run it: two sizes of ring, with and without a sender that is held up. Latency is
# counted from ticket to callback; the times are results of the model.

# %%
p2 = ...  # a whole number
why_2 = ""  # one line
lab.predict("p2", p2)

# %%
hypothesis = ""  # one line, before you run this
runs = {}
for slots in (4, 64):
    usual = pk.scenarios.fan_in(kernels=4, messages=6, slots=slots, gap_ns=2_000, seed=5)
    copied = usual.trace.next(PayloadCopied, ticket=4).seq
    runs[f"{slots} slots"] = usual
    runs[f"{slots} slots, one held up"] = usual.fork(copied, delay=20_000)
pk.figures.show(*runs.values(), names=list(runs), charts=["latency"])

# %% [markdown]
# ## Task a4 · Which orders are possible?
#
# Kernel 1 sends three messages, one after the other: **A1** and **A2** are NORMAL, **A3** is HIGH.
# While it is in the call for A3, kernel 2 calls `send()` for **B1**, which is HIGH. Any call may
# be held up for any time before it has its ticket, and kernel 0 may be quick or slow to read.
#
# The cell prints six orders in which kernel 0 might run the four callbacks. Say for each whether it
# can happen: `True` or `False`.
#
# <!-- hints a4 -->

# %% answer="a4"
print(lab.run("orders"))
possible = {"a": ..., "b": ..., "c": ..., "d": ..., "e": ..., "f": ...}  # True or False
### BEGIN SOLUTION
from popcorn_edu.grading.orders import possible_orders, six_orders

six = {letter: tuple(order.split()) for letter, (_, order) in six_orders(lab.variant).items()}
possible = {letter: order in possible_orders() for letter, order in six.items()}
### END SOLUTION

# %% grade="a4"
lab.grade("a4", possible).score()

# %% [markdown]
# ## Task i5 · The order as an invariant
#
# An **invariant** is what must hold in every run. Write the one about order: *messages of one
# sender and one priority are handed over in the order they were sent*. Your function gets a list
# of deliveries, first to last:
#
# ```python
# [{"sender": 2, "number": 0, "priority": "NORMAL"},
#  {"sender": 1, "number": 0, "priority": "NORMAL"}, ...]
# ```
#
# A sender numbers its messages 0, 1, 2, ... across both priorities. Return the place (0, 1, 2, ...)
# of the first delivery that breaks the rule, or None. Your function is let loose on lists with and
# without a planted bug: a message too late, or twice. Bugs caught count for you, false alarms
# against you. A message that never comes is bad, but it breaks no order.
#
# <!-- hints i5 -->


# %% answer="i5"
def out_of_order(delivered):
    """The place of the first delivery that breaks the order, or None."""
    ### BEGIN SOLUTION
    last = {}
    for place, message in enumerate(delivered):
        line = message["sender"], message["priority"]
        if message["number"] <= last.get(line, -1):
            return place  # too late, or once more
        last[line] = message["number"]
    return None
    ### END SOLUTION


# %% grade="i5"
lab.grade("i5", out_of_order).score()

# %% [markdown]
# ## When the ring is full
#
# **Predict p3.** Every slot holds an unread message, and a sender has just taken the next ticket.
# What becomes of its message? (a) it overwrites the oldest; (b) it is lost, and `send()` returns an
# error; (c) its sender spins, and puts it in later. (`lab.play("full")` shows it afterwards.)

# %%
p3 = ...  # "a", "b" or "c"
why_3 = ""  # one line
lab.predict("p3", p3)

# %% [markdown]
# ## Task a3 · Long messages
#
# A slot has 64 bytes: a header of 4 and a payload of 60 (exact, from Popcorn's source). A longer
# message goes as **chunks**, each an ordinary message with 60 bytes of payload. The header has
# seven bits for the number of chunks (exact).
#
# 1. `page_chunks`: chunks of a page of 4,096 bytes.
# 2. `my_chunks`: chunks of the message of your variant; its size stands below the first cell.
# 3. `longest_bytes`: the longest message there can be.
# 4. `page_in_an_empty_ring`: the ring has 64 slots and is empty, and its receiver does not read
#    yet. The page (a) just fits; (b) overwrites its own first chunks; (c) makes its sender wait
#    half-way until some chunks are read; (d) is given up.
# 5. `two_long_at_once`: two processes of *one* kernel each send a long message, chunk by chunk, at
#    the same time. G1's receiver collects chunks in one buffer for each sending kernel
#    (`from_cpu`). The two (a) arrive apart; (b) wait for each other; (c) are refused; (d) are
#    mixed up.
#
# <!-- hints a3 -->

# %% answer="a3"
long_messages = {
    "page_chunks": ...,
    "my_chunks": ...,
    "longest_bytes": ...,
    "page_in_an_empty_ring": ...,  # "a", "b", "c" or "d"
    "two_long_at_once": ...,  # "a", "b", "c" or "d"
}
### BEGIN SOLUTION
from popcorn_edu.grading.lab05 import numbers

long_messages |= {
    "page_chunks": -(-4096 // 60),  # 69
    "my_chunks": -(-numbers(lab.variant).message_bytes // 60),
    "longest_bytes": 127 * 60,  # 7,620
    "page_in_an_empty_ring": "c",  # 69 chunks, 64 slots
    "two_long_at_once": "d",  # mended in G2, which numbers its long messages
}
### END SOLUTION

# %% grade="a3"
lab.grade("a3", long_messages).score()

# %% [markdown]
# ## Task o6 · The shortest deadlock
#
# In the next scene two kernels ask each other questions (PING), and each answers (PONG) *from its
# callback*, that is, in the softirq. Step to the end (key End) and back. Who waits for whom? Why
# does nobody read?

# %%
lab.play("two full rings")

# %% [markdown]
# Now you are the controller. Two kernels, rings of **two slots**, both empty. Write a schedule, as
# short as you can, after which *both softirqs* spin for ever. These are the lines:
#
# | line | what happens |
# |---|---|
# | `"0 sends"`, `"1 sends"` | a process of that kernel sends the other a PING |
# | `"0 polls"`, `"1 polls"` | its softirq reads all that is in its own ring |
# | `"0 calls back"`, `"1 calls back"` | it answers each PING it has read with a PONG |
#
# For example `["0 sends", "1 polls", "1 calls back"]` sends a question and its answer. A line that
# is not possible costs points. A process that spins is no deadlock: the next poll makes room.
#
# <!-- hints o6 -->

# %% answer="o6"
schedule = ...  # a list of lines
### BEGIN SOLUTION
schedule = ["0 sends", "1 sends", "0 polls", "1 polls"]  # each has a question to answer
schedule += ["0 sends", "0 sends", "1 sends", "1 sends"]  # both rings are full again
schedule += ["0 calls back", "1 calls back"]  # and neither answer finds a place
### END SOLUTION

# %% grade="o6"
lab.grade("o6", schedule).score()

# %% [markdown]
# ## Task a7 · Four designs for a full ring
#
# Popcorn alone has had three answers to a full ring. Each is a scene in which one sender puts six
# messages into a ring of two slots: `lab.play("shmtun")`, `lab.play("kmsg G2")`, ...
#
# | design | what it does when the ring is full |
# |---|---|
# | `kmsg G1` (2012-13) | `while head - tail >= 64`: look again |
# | `shmtun` (the virtual network) | free the packet, `tx_dropped++` |
# | `kmsg G2` (2013-15) | `msleep(1)`, then look again |
# | `multikernel 2025` (a proposal for Linux) | `return -ENOSPC` |
#
# For each, what becomes of the message: `"waits"`, `"lost"` or `"handed back"`? And the sender
# `"spins"`, `"sleeps"` or `"goes on"`?
#
# <!-- hints a7 -->
#
# ## Task s8 · A policy for each service
#
# The cell after that prints three services. Choose for each what shall happen when the ring is
# full: `"spin"`, `"sleep"`, `"drop"`, or `"refuse"` (the caller gets an error, keeps the message,
# and can hand it to a thread that tries again). Then say in a sentence what decides it for one of
# them.
#
# <!-- hints s8 -->

# %% answer="a7"
designs = {  # (what becomes of the message, what the sender does)
    "kmsg G1": (..., ...),
    "shmtun": (..., ...),
    "kmsg G2": (..., ...),
    "multikernel 2025": (..., ...),
}
### BEGIN SOLUTION
from popcorn_edu.grading.full_rings import DESIGNS, outcome

designs = {name: outcome(name) for name in DESIGNS}
### END SOLUTION

# %% grade="a7"
lab.grade("a7", designs).score()

# %% answer="s8"
print(lab.run("services"))
policy = {"one": ..., "two": ..., "three": ..., "because": ...}
### BEGIN SOLUTION
from popcorn_edu.grading.full_rings import POLICIES, burden, my_services, suits

for name, service in my_services(lab.variant).items():
    policy[name] = min((p for p in POLICIES if suits(p, service)), key=burden)
policy["because"] = "A softirq that waits cannot empty its own ring, so both may wait for ever."
### END SOLUTION

# %% grade="s8"
lab.grade("s8", policy).score()

# %% [markdown]
# ## Task post · The four questions again
#
# In other words and another order; now they count.
#
# * `ipi`: an IPI (a) says "look into your ring"; (b) carries up to 60 bytes; (c) comes with each
#   message.
# * `returned`: `send()` returns when (a) the callback has run; (b) the IPI has taken the message
#   along; (c) the slot is marked ready.
# * `two_senders`: kernel 2 calls `send()` after kernel 1. Its message is read (a) later;
#   (b) sometimes earlier, if it gets its ticket first; (c) later, unless it is HIGH.
# * `full`: 70 processes send at once into 64 slots, in G1. Six of them (a) lose their messages;
#   (b) get an error; (c) spin until there is room.
#
# <!-- hints post -->

# %% answer="post"
after = {"ipi": ..., "returned": ..., "two_senders": ..., "full": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
after = {"ipi": "a", "returned": "c", "two_senders": "b", "full": "c"}
### END SOLUTION

# %% grade="post"
lab.grade("post", after).score()

# %%
lab.progress()

# %% [markdown]
# ## Take-away
#
# * A ticket from one atomic addition decides whose slot it is; no lock is needed.
# * Ready comes last, so whoever sees the flag sees the whole message. The IPI only says "look".
# * Order is promised within one sender *and* one priority. Nothing else is.
# * Whoever is at the head of the line holds up all others, however large the ring is.
# * Never wait in a softirq for something that only another softirq can give.
#
# **In real Popcorn** (generation G1, 2012-13, `kernel/pcn_kmsg.c`): `win_put()` and `win_get()`,
# 64 slots of 64 bytes, `int_enabled`, vector `0xcd`, budget 128 (all exact). G1 has no second look
# after `int_enabled = 1`, collects long messages by `from_cpu` alone, and spins in callbacks: each
# of the three was changed in the second generation (G2).
#
# **Left out by the model:** the order in which a real CPU's stores become visible, long messages
# and multicast as such, and all other work of the kernels. Sizes and counts marked exact are
# Popcorn's; chunk counts are derived from them; all times are model defaults or results of the
# model, never measurements of Popcorn.
#
# ## Glossary
#
# | word | meaning |
# |---|---|
# | ring, window | the slots, `head`, `tail` and `int_enabled` of one receiving kernel |
# | ticket | a sender's turn: the value of `head` before it added 1 |
# | ready flag | the last byte written into a slot |
# | softirq | an interrupt's bottom half: polls the ring, runs the callbacks, must not sleep |
# | batch | the messages a softirq reads before it runs the callbacks |
# | lost wake-up | a message lies ready, its receiver sleeps, and no interrupt is on its way |
# | head-of-line blocking | all wait because the first is not ready |
# | invariant | what must hold in every run |
# | deadlock | a closed chain in which each waits for the next |
#
# **Before you go:** in one sentence, which of your four guesses has changed, and which step of
# which run changed it? The next lab turns to the interrupts: why many messages need so few.
#
# **Further reading:** B. H. Shelton's thesis on this messaging layer
# ([hdl.handle.net/10919/23119](https://hdl.handle.net/10919/23119)), and NAPI in the Linux kernel's
# documentation, whose second look you have written.
#
# Now choose *Run*, *Restart Kernel and Run All Cells*, save, and see the doctor. If your course
# wants a zip to upload, take away the `#` in the last line.

# %%
lab.doctor()
# lab.bundle()

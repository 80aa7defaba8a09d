# %% [markdown]
# # Lab 00 · Meet the player
#
# | | |
# |---|---|
# | Time | 20 minutes: 5 to read, 15 to do |
# | You need | a little Python; no operating systems course |
# | Points | 4, for completion |
# | Curriculum | CS2023, Operating Systems: principles (interrupts, messages between kernels) |
#
# Run the cells from top to bottom with Shift+Enter. Cells that say `# your code here` are yours.

# %% [markdown]
# ## What you will be able to do
#
# * **Operate** the player by keyboard and **identify** a step in a run (task t1).
# * **Distinguish** simulated time from the clock on your wall (task t1).
# * **Predict** what a run does when one step is taken away, and check it (tasks p1, p2, t2).
# * **Produce** a run, and a notebook, that somebody else can repeat (tasks t3, t4).

# %% locked="setup"
import popcorn_edu as pk
from popcorn_edu.model.messaging import IpiSent

lab = pk.lab("00")
run = lab.run("ping")
print(lab)

# %% [markdown]
# ## One machine, two kernels
#
# ![Two kernels side by side, each with its own CPU. Kernel 1 writes a message into a ring of slots
# that lies in kernel 0's memory, and then sends kernel 0 an interrupt. The message and the
# interrupt take different ways.](two_kernels.svg)
#
# Popcorn Linux runs several kernels on one computer. Each has its own CPUs and its own memory. To
# talk, kernel 1 writes a message into a **ring** in kernel 0's memory and then nudges it with an
# **inter-processor interrupt** (IPI).
#
# The question of this lab: *what becomes of the message if the nudge is lost?*

# %% [markdown]
# ## Step through it
#
# The next cell opens a run in the **player**. Click in the player, or reach it with Tab; then use
# the keys. Press **?** for all of them.
#
# | key | does |
# |---|---|
# | → and ← | one step forward, one step back |
# | Shift and → | on to the next event of the same kind |
# | Home, End | to the first, to the last record |
# | e | explain: why this step exists, and its name in Popcorn |
# | f | fork: what if this step went otherwise? |
#
# Each kernel is a lane, and time runs to the right.
#
# | in the picture | means |
# |---|---|
# | solid line from a full circle to a hollow one | a message: marked ready, then read |
# | dashed line from a full triangle to a hollow one | an IPI: sent, then arrived |
# | full and hollow diamond | the receiver starts or ends a way of working |
# | square | a callback runs: the message is handed over |
# | cross | something that never happened, in a fork |

# %%
lab.play("ping")

# %% [markdown]
# ## Predict, then look
#
# Kernel 1 has just marked its message ready. What is the next record? Put `"a"`, `"b"` or `"c"` in
# place of the dots and run the cell. The answer opens once you have committed to one.

# %%
p1 = ...  # "a", "b" or "c"
lab.predict("p1", p1)

# %% [markdown]
# ## Task t1 · Find the first IPI
#
# Go to the record at which the first IPI is **sent**. Write down its number and its time.
#
# The time is *simulated*: nanoseconds on the modelled machine since it was switched on. Your
# computer may take longer or shorter to compute it; the run does not notice.
#
# <!-- hints t1 -->

# %% answer="t1"
first_ipi = {
    "record": ...,  # its number
    "time_ns": ...,  # its simulated time, in nanoseconds
}
### BEGIN SOLUTION
sent = run.trace.next(IpiSent)
first_ipi = {"record": sent.seq, "time_ns": sent.time}
### END SOLUTION

# %% grade="t1"
lab.grade("t1", first_ipi).score()

# %% [markdown]
# ## Task t2 · Take it away
#
# A **fork** replays the run up to a record, makes one change there, and goes on. With `drop=True`
# that record does not happen. The next cell drops your IPI. Step to the end of the fork.

# %%
record = first_ipi["record"]
fork = run if record is ... else run.fork(record, drop=True)
fork.play()

# %% [markdown]
# Which of these five kinds of event happened in the run, and **never** happen in the fork?
#
# `"TicketTaken"`, `"SlotReady"`, `"InterruptTaken"`, `"MessageRead"`, `"MessageDelivered"`
#
# <!-- hints t2 -->

# %% answer="t2"
never = ...  # a set, such as {"TicketTaken", "SlotReady"}
### BEGIN SOLUTION
never = {"InterruptTaken", "MessageRead", "MessageDelivered"}
### END SOLUTION

# %% grade="t2"
lab.grade("t2", never).score()

# %% [markdown]
# ## How many nudges?
#
# Now the ping happens twice: two questions, two answers, four messages. Predict how many IPIs
# that costs.

# %%
p2 = ...  # a whole number
lab.predict("p2", p2)

# %% [markdown]
# ## Task t3 · The same run again
#
# A run is made from a **seed**; yours stands in the line that opened the lab. The same seed gives
# the same run, record by record, on every machine. The **digest** is the run's fingerprint:
#
# ```python
# pk.scenarios.ping(seed=5).trace.digest()
# ```
#
# Make three digests: of your seed, of your seed once more, and of your seed plus one.
#
# <!-- hints t3 -->

# %% answer="t3"
digests = [..., ..., ...]  # your seed, your seed again, your seed + 1
### BEGIN SOLUTION
mine = run.trace.meta["arguments"]["seed"]
digests = [pk.scenarios.ping(seed=n).trace.digest() for n in (mine, mine, mine + 1)]
### END SOLUTION

# %% grade="t3"
lab.grade("t3", digests).score()

# %% [markdown]
# ## Task t4 · See the doctor
#
# The grader runs your *saved file* from top to bottom in a fresh kernel. What lives only in your
# kernel's memory, it never sees. The doctor looks for such trouble before the grader does.
#
# 1. Choose *Run*, then *Restart Kernel and Run All Cells*.
# 2. Save the notebook.
# 3. Write `lab.doctor().problems` in place of the dots, run the cell, and save once more.
#
# <!-- hints t4 -->

# %% answer="t4"
problems = ...  # what the doctor says
### BEGIN SOLUTION
problems = lab.doctor().problems
### END SOLUTION

# %% grade="t4"
lab.grade("t4", problems).score()

# %%
lab.doctor()

# %% [markdown]
# ## How far you are

# %%
lab.progress()

# %% [markdown]
# ## Take-away
#
# * An IPI carries **no message**. It says "look into your ring"; the message was in memory first.
# * If the IPI is lost, the message is not. It lies in the ring, and nobody looks.
# * Simulated time belongs to the run. The same seed gives the same run.
# * A fork answers "what if?" with one change and everything else equal.
#
# **In real Popcorn** (generation G1, 2012-13, `kernel/pcn_kmsg.c`): the message is written by
# `win_put()`, the IPI has the vector `0xcd`, `POPCORN_KMSG_VECTOR`. There is no timeout and no
# second try: a lost interrupt leaves the message lying until the next one comes.
#
# **Left out by the model:** caches and memory ordering beyond the cost of moving a line, and all
# other work the kernels do. The times come from labelled model defaults, not from measurements
# of Popcorn.

# %% [markdown]
# ## Glossary
#
# | word | meaning |
# |---|---|
# | kernel | one running Linux, with CPUs and memory of its own |
# | ring | slots in a kernel's memory into which the others write messages for it |
# | IPI | inter-processor interrupt: one CPU interrupts another; it carries only a vector number |
# | record | one step of a run: number, time, who, and what happened |
# | trace | all records of a run, in order |
# | fork | the same run with one change at one record |
# | seed | the number from which a run's chance events are drawn |
# | digest | a fingerprint of all records of a run |

# %% [markdown]
# ## Before you go
#
# In one sentence, for yourself: what would you add to the system so that a lost IPI does no harm?
# A later lab comes back to it. If your course wants a zip to upload, take away the `#` below.

# %%
# lab.bundle()

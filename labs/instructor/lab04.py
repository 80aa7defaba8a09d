# %% [markdown]
# # Lab 04 · Who owns the device?
#
# | | |
# |---|---|
# | Time | 80 minutes: 20 to read, 60 to do |
# | You need | Labs 00 and 03; functions, loops, lists and dictionaries in Python |
# | Points | 21 |
# | Curriculum | CS2023, Operating Systems: devices and I/O; protection |
#
# When you are through, you can
#
# * **derive** the device list of each kernel from a real `lspci` (task a1);
# * **predict** what a list of ids really does, with its quirks (p1, p2, f2, a3);
# * **diagnose** a device with two drivers, or with none (i4);
# * **extend** lists so that they name places (f5);
# * **compare** owning a device with asking its owner, and **place** devices well (p3, e6, s7).

# %% locked="setup"
import popcorn_edu as pk
from popcorn_edu.model.devices import EntryKept, IoAsked, IoDone

lab = pk.lab("04")
print(lab)

# %% [markdown]
# ## Two drivers, one card
#
# ![Kernel 0 and kernel 1 each have a driver for the same network card. Each writes the address of
# its own ring into the card's one ring register; neither sees the other.](two_drivers.svg)
#
# No kernel did anything forbidden. Each looked for devices, found a card, and took it into service,
# as every Linux does. Now each overwrites what the other wrote. How do you prevent this with
# nothing but a command line, and where does that go wrong?
#
# ### Task pre · Four guesses
#
# Guess first. Any answer earns the points; nobody tells you yet which are right.
#
# | | a | b | c |
# |---|---|---|---|
# | `empty`: a kernel with an empty list drives | nothing yet | all it finds | what is left |
# | `twins`: two kernels, each one port of a card | the card sorts it out | in turns | no list can |
# | `unlisted`: a device on no list goes to | the first kernel | kernel 0 | every kernel |
# | `enforced`: the division is enforced by | the hardware | nobody | a layer below |
#
# <!-- hints pre -->

# %% answer="pre"
before = {"empty": ..., "twins": ..., "unlisted": ..., "enforced": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
before = {"empty": "a", "twins": "a", "unlisted": "a", "enforced": "a"}  # any guess will do
### END SOLUTION

# %% grade="pre"
lab.grade("pre", before).score()

# %% [markdown]
# ## A list of what not to see
#
# Each kernel scans the whole PCI tree and drives what it finds. Popcorn's kernels take one
# parameter more, a **blacklist**: `pci_dev_flags=0x8086:0x10c9:b,0x102b:0x0532:b`. Each **entry**
# is a vendor, a device, and flags. What it does (exact, from `drivers/pci/probe.c`):
#
# 1. It matches by **id** (vendor and device), never by place.
# 2. The flags are not looked at; a number without `0x` is decimal.
# 3. The table has **16 entries**. A seventeenth is dropped, and no error is reported.
# 4. When **function 0** of a device is skipped, functions 1 to 7 are not looked at.
# 5. Host and PCI **bridges** (classes 0600 and 0604) are seen by all and owned by none. But what is
#    behind a bridge that was not found is never reached.
#
# A function is named by its **slot**, `domain:bus:device.function`. By default the primary owns
# everything, and a script lists everything for the others. This is a real machine under that plan;
# below the picture, its tables say the same.

# %%
plan = pk.Partition.build("h8qg6-64", kernels=2, grouping="per package", devices="primary")
pk.plans.devices(plan)

# %% [markdown]
# **Predict p1.** Kernel 0 boots with an empty list, kernel 1 with the script's. That list names the
# VGA controller 0000:01:04.0 too. What becomes of it in kernel 1's scan? (a) kernel 1 finds it and
# drives it; (b) kernel 1 finds it, and an entry matches; (c) kernel 1 never comes to it. Commit to
# one, then say in a line why.

# %%
p1 = ...  # "a", "b" or "c"
why_1 = ""  # one line, for yourself and your teacher
lab.predict("p1", p1)

# %% [markdown]
# **Watch the scan.** Each step is a function found, skipped or passed over; the table below it says
# what each kernel knows by then. To see kernel 1 begin, jump to `EntryKept`.

# %%
lab.play("scan")

# %% [markdown]
# ## Task a1 · A list for each kernel
#
# Three kernels share the `h8qg6-64`: kernels 1 and 2 own one kind of device each, kernel 0 *all the
# rest*. The next cell prints who gets what, and the listing. Write the blacklist of each, as it
# stands behind `pci_dev_flags=`. `functions` is the same listing as Python data (a list of
# dictionaries, bridges included), if you would rather compute than type.
#
# <!-- hints a1 -->

# %% answer="a1"
print(lab, lab.run("h8qg6-64"), sep="\n\n")
functions = lab.run("functions")  # functions[0]["slot"], ["id"], ["class"], ["behind"]
lists = {"kernel 0": ..., "kernel 1": ..., "kernel 2": ...}  # "0x8086:0x10c9:b,..."
### BEGIN SOLUTION
from popcorn_edu.grading.lab04 import plan as planned

lists = {}
for kernel, owned in enumerate(planned(lab.variant).owned):
    others = {f["id"] for f in functions if f["class"] not in ("0600", "0604")}
    others -= {f["id"] for f in functions if f["slot"] in owned}
    lists[f"kernel {kernel}"] = ",".join(f"0x{i.replace(':', ':0x')}:b" for i in sorted(others))
### END SOLUTION

# %% grade="a1"
lab.grade("a1", lists).score()

# %% [markdown]
# ## Task f2 · Claims of your own
#
# Now write the scan's result as a function. `functions` is a listing as above, in the order in
# which a kernel comes to it: a bridge before what is behind it. `ids` is the blacklist after
# reading: `["8086:10c9", ...]`, perhaps longer than the table. Return the slots that the kernel
# claims.
#
# `f["behind"]` is the slot of the bridge in front of a function, or `""`. Your function is tried on
# several machines, with lists that bring out one rule after the other.
#
# <!-- hints f2 -->


# %% answer="f2"
def claims(functions, ids):
    """The slots that a kernel with this blacklist claims."""
    mine = []
    ### BEGIN SOLUTION
    gone = set()
    for f in functions:
        first = f["slot"][:-1] + "0"
        if f["id"] in ids[:16] or first in gone or f["behind"] in gone:
            gone.add(f["slot"])
        elif f["class"] not in ("0600", "0604"):
            mine.append(f["slot"])
    ### END SOLUTION
    return mine


# %% grade="f2"
lab.grade("f2", claims).score()

# %% [markdown]
# ## Too long a list
#
# **Predict p2.** The machine `e5-2680-16` has a Xeon Phi card, 0000:83:00.0, and 62 different ids.
# Popcorn's script writes all of them for kernel 1. Who drives the Phi then? (a) kernel 0 alone; (b)
# nobody, the list is refused; (c) kernel 0 and kernel 1. (`lab.play("scan of e5-2680-16")` shows it
# afterwards.)

# %%
p2 = ...  # "a", "b" or "c"
why_2 = ""  # one line
lab.predict("p2", p2)

# %% [markdown]
# ## Task a3 · Can it be divided like this?
#
# The cell prints five wishes. For each, kernel 1 is to own exactly this, and kernel 0 all the rest.
# Is there a pair of blacklists that does it? If not, what is the obstacle?
#
# | answer | means |
# |---|---|
# | `"yes"` | two lists can do it |
# | `"same id"` | what must be hidden and what is owned look alike |
# | `"function 0"` | what must be hidden takes what is owned with it |
# | `"table full"` | even the shortest list has more than 16 entries |
#
# Listings: `lab.run("h8qg6-64")`, `lab.run("laptop")`, `lab.run("e5-2680-16")`. To see an obstacle
# at work, give devices away in the plan, `pk.plans.view(plan, only="devices")`, or scan with two
# lists: `pk.scenarios.device_scan(machine="h8qg6-64", lists=["", "0x1002:0x4385:b"]).play()`.
#
# <!-- hints a3 -->

# %% answer="a3"
print(lab.run("wishes"))
divided = {"a": ..., "b": ..., "c": ..., "d": ..., "e": ...}  # "yes", "same id", ...
### BEGIN SOLUTION
from popcorn_edu.grading.device_choices import five_wishes, reason

divided = {letter: reason(wish) for letter, wish in five_wishes(lab.variant).items()}
### END SOLUTION

# %% grade="a3"
lab.grade("a3", divided).score()

# %% [markdown]
# ## Break it
#
# What if one entry gets lost? This forks the scan just before kernel 1 notes the entry for the SAS
# controller, and leaves that record out. First write down who will drive what in the fork.

# %%
hypothesis = ""  # one line, before you run this
run = lab.run("scan")
entry = run.trace.next(EntryKept, kernel=1, id="1000:0072")
fork = run.fork(entry.seq, drop=True)
print(fork.trace[entry.seq])
print({slot: who for slot, who in fork.world.devices.claimed_by.items() if len(who) != 1})

# %% [markdown]
# No record says that anything is wrong: no kernel can notice. So somebody must check the *plan*.
#
# ## Task i4 · Exactly one owner
#
# An **invariant** is what must always hold. Write this one: *every function is claimed by exactly
# one kernel; host and PCI bridges are exempt.* `functions` is a listing, `claimed` a dictionary
# from each kernel's number to the slots it claims. Return the slot of the first function, in the
# order of the listing, that breaks the rule, or None.
#
# Your function is let loose on plans with and without a fault. Faults found count for you, false
# alarms against you.
#
# <!-- hints i4 -->


# %% answer="i4"
def first_fault(functions, claimed):
    """The slot of the first function that has not exactly one owner, or None."""
    ### BEGIN SOLUTION
    for f in functions:
        owners = [kernel for kernel in claimed if f["slot"] in claimed[kernel]]
        if len(owners) != 1 and f["class"] not in ("0600", "0604"):
            return f["slot"]
    return None
    ### END SOLUTION


# %% grade="i4"
lab.grade("i4", first_fault).score()

# %% [markdown]
# ## Task f5 · Lists that name slots
#
# Popcorn's lists know ids only; here is an extension of ours. An entry is one of
#
# | entry | hides |
# |---|---|
# | `"8086:10c9"` | every function with this id, as before |
# | `"@0000:02:00.1"` | the function at this slot, and no other |
# | `"@02:00.1"` | the same: a domain that is left out is `0000` |
# | `"@0000:02:00"`, `"@02:00"` | all functions of this device |
#
# Does this entry hide this function? Return True or False. (`f["slot"]` always has its domain,
# which can be longer than four digits: `"10000:00:04.0"`.)
#
# <!-- hints f5 -->


# %% answer="f5"
def hides(entry, f):
    """Does this entry of a blacklist hide the function f?"""
    ### BEGIN SOLUTION
    if entry[0] != "@":
        return f["id"] == entry
    where = entry[1:]
    if where.count(":") < 2:
        where = "0000:" + where
    return where == f["slot"] or where == f["slot"].split(".")[0]
    ### END SOLUTION


# %% grade="f5"
lab.grade("f5", hides).score()

# %% [markdown]
# With slots, the two ports of one network card can go to two kernels:

# %%
machine = pk.Machine.load("h8qg6-64")
for slots in (False, True):
    written = pk.devices.blacklist_for(machine.pci_functions, ["0000:02:00.0"], slots=slots)
    print(f"slots={slots}:", *pk.devices.claims(machine.pci_functions, written.text))
    print(*written.cannot)

# %% [markdown]
# ## Asking the owner
#
# ![Kernel 2 sends kernel 0 a message (1); kernel 0's driver gives the disk a request (2); the disk
# writes the block into memory by itself (3) and interrupts kernel 0 (4), which sends kernel 2 a
# message (5).](proxy.svg)
#
# A kernel without a device asks its owner: a **proxy**. In the scene below kernel 0 reads a block
# for itself; then kernel 2, which owns no disk, reads one through kernel 0. A device's interrupt
# goes to a CPU, here by a pin of an I/O APIC or as a message-signalled interrupt (MSI). It must be
# a CPU of the owner: elsewhere no driver listens, and the interrupt is **spurious**.
#
# **Predict p3.** How many IPIs does kernel 2's one block take?

# %%
p3 = ...  # a whole number
why_3 = ""  # one line
lab.predict("p3", p3)

# %%
hypothesis_2 = ""  # one line: how much slower is the proxied read, in percent?
run = lab.run("proxied")
for kernel in (0, 2):
    asked, done = (run.trace.next(kind, kernel=kernel) for kind in (IoAsked, IoDone))
    print(f"kernel {kernel}: {done.time - asked.time:,} ns for a block (model default)")
lost = pk.scenarios.proxied_io(blocks=1, interrupt_to=16)  # a CPU of kernel 1
print(lost.trace[len(lost) - 1].event, "and kernel 0 waits for ever:")
print(dict(lost.waiting)["kernel 0"])
lab.play("proxied")

# %% [markdown]
# ## Task e6 · The best place for each device
#
# Four kernels use four devices; the cell prints how many requests each makes in a millisecond, and
# where its CPU is. A kernel that owns a device uses it for free; all others pay two messages a
# request, more if they are farther away (`made.price(user=1, owner=3)`). Choose an owner for each
# device so that all together pay as little as possible, *by lists that Popcorn can read*.
#
# State first what you expect. Then try: `made.extra_ns("0000:03:00.0", 2)` is what all pay if
# kernel 2 owns that device, and `made.cost(owner)` is the sum.
#
# <!-- hints e6 -->

# %% answer="e6"
made = lab.run("places")
print(made)
expected = ""  # one line
owner = {  # the number of a kernel each
    "0000:02:00.0": ...,
    "0000:02:00.1": ...,
    "0000:03:00.0": ...,
    "0000:00:11.0": ...,
}
### BEGIN SOLUTION
from popcorn_edu.grading.device_choices import best_placement

owner = best_placement(made)
### END SOLUTION

# %% grade="e6"
lab.grade("e6", owner).score()

# %% [markdown]
# ## Task s7 · Full or light
#
# Two images can be booted: a **full** one, with drivers, whose kernel owns devices; and a **light**
# one without, whose kernel asks others. A light kernel has less to boot, to check and to get wrong.
# A kernel should not spend more than a tenth of its time on messages for its requests.
#
# The cell prints three roles. Choose `"full"`, `"light"`, or `"together"`: the two kernels had
# better be one. Then say in a sentence what decides it for one of them.
#
# <!-- hints s7 -->

# %% answer="s7"
print(lab.run("roles"))
image = {"one": ..., "two": ..., "three": ..., "because": ...}
### BEGIN SOLUTION
from popcorn_edu.grading.device_choices import image_for, my_roles

image = {name: image_for(role) for name, role in my_roles(lab.variant).items()}
image["because"] = "Twenty requests a second cost two messages each, which is next to nothing."
### END SOLUTION

# %% grade="s7"
lab.grade("s7", image).score()

# %% [markdown]
# ## Task post · The four questions again
#
# In other words and another order; now they count.
#
# * `empty`: kernel 1 boots with an empty list. It drives (a) nothing, until kernel 0 hands it a
#   device; (b) every device it finds; (c) what kernel 0 has not claimed before.
# * `twins`: ports A and B have one id. Kernel 1 is to have port A, kernel 2 port B. With Popcorn's
#   own lists (a) the card keeps them apart; (b) both drive both, and take turns; (c) it cannot be.
# * `unlisted`: a new card is plugged in before the next boot, and the lists stay as they are.
#   (a) The first kernel that finds it has it; (b) it is kernel 0's; (c) every kernel drives it.
# * `enforced`: kernel 1 writes to a card that kernel 0 owns. Who prevents it? (a) the I/O APIC;
#   (b) nobody; (c) the hypervisor.
#
# <!-- hints post -->

# %% answer="post"
after = {"empty": ..., "twins": ..., "unlisted": ..., "enforced": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
after = {"empty": "b", "twins": "c", "unlisted": "c", "enforced": "b"}
### END SOLUTION

# %% grade="post"
lab.grade("post", after).score()

# %%
lab.progress()

# %% [markdown]
# ## Take-away
#
# * Ownership is negative: a kernel owns what all others were told not to see.
# * A list of ids hides kinds, not cards. And function 0 stands for its whole device.
# * A list that is too long fails silently, and so does a device with two drivers. Check the plan.
# * An interrupt goes to a CPU, not to a kernel: it must be a CPU of the owner.
# * Not owning costs two messages a request. That is little for a few requests, and too much for
#   many.
#
# **In real Popcorn** (2012-13): `pci_dev_flags`, `pci_dev_list_add()` and
# `pci_device_blacklisted()` in `drivers/pci/probe.c`, and the script `create_lspci.sh`. A later
# version of the table has 32 places. The default leaves all devices to the primary; secondaries use
# the virtual network and terminal, whose messages you meet in Lab 07. Shared drivers came later
# ("Snap Bean").
#
# **Left out by the model:** what two drivers really do to a card, and virtual functions. Which CPU
# an interrupt is sent to was not read in Popcorn's source, and all times are model defaults; rules
# marked exact are Popcorn's, and the listings are those of real machines.
#
# ## Glossary
#
# | word | meaning |
# |---|---|
# | function | what a driver drives; one of up to eight of a device |
# | slot | its place: `domain:bus:device.function` |
# | id | vendor and device: what it is. Identical cards have the same |
# | bridge | leads to another bus |
# | claim | a kernel's driver takes a function into service |
# | owner | the only kernel that claims it |
# | entry, blacklist | one item of `pci_dev_flags`; the list |
# | proxy | the owner's driver, used by another kernel through messages |
# | spurious interrupt | one that arrives where no driver listens |
#
# **Before you go:** in one sentence, which of your four guesses has changed, and what changed it?
# The next lab opens the messages that a proxy sends.
#
# **Further reading:** the Linux kernel's documentation of PCI
# ([docs.kernel.org/PCI](https://docs.kernel.org/PCI/pci.html)), and `man lspci`.
#
# Now choose *Run*, *Restart Kernel and Run All Cells*, save, and see the doctor. If your course
# wants a zip to upload, take away the `#` in the last line.

# %%
lab.doctor()
# lab.bundle()

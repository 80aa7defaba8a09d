# %% [markdown]
# # Lab 03 · Memory partitioning
#
# | | |
# |---|---|
# | Time | 80 minutes: 25 to read, 55 to do |
# | You need | Labs 00 to 02; functions, loops and lists in Python |
# | Points | 21 |
# | Curriculum | CS2023, Operating Systems: memory management; protection and trust boundaries |
#
# When you are through, you can
#
# * **compute** each kernel's share of a real machine's RAM, and what is lost (tasks a1, a3);
# * **implement** a division of a memory map with holes (f2), and one that keeps memory near its
#   CPUs (f6);
# * **predict** what a hole does to a kernel's region (p1, a5);
# * **detect** overlaps and gaps in a division (i4);
# * **explain** why nothing enforces it, and what a hypervisor would do (p2, s7).

# %% locked="setup"
import popcorn_edu as pk
from popcorn_edu.grading.shares import bytes_in
from popcorn_edu.model.firmware import MIB

lab = pk.lab("03")
print(lab)

# %% [markdown]
# ## Six gibibytes that nobody can use
#
# A real machine with 64 CPUs and 128 GiB of RAM is divided among 64 kernels, one for each CPU.
# When Popcorn's tool is done, each kernel has 1,920 MiB, and more than 6 GiB are **nobody's**.
# Where did they go? Could one do better? And kernel 5: what keeps it out of kernel 6's memory?
#
# ### Task pre · Four guesses
#
# Guess first. Any answer earns the points; nobody tells you yet which are right.
#
# | | a | b | c |
# |---|---|---|---|
# | `enforced`: kernel 5 writes into kernel 6's RAM | it works | the CPU stops it | it is undone |
# | `below`: under a secondary kernel runs | kernel 0 | a hypervisor | nothing |
# | `hole`: a share that meets a hole | is shorter | goes on behind it | moves behind it |
# | `window`: kernel 6's receive ring lies | at the top of RAM | in its own RAM | in kernel 0's |
#
# <!-- hints pre -->

# %% answer="pre"
before = {"enforced": ..., "below": ..., "hole": ..., "window": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
before = {"enforced": "b", "below": "b", "hole": "a", "window": "a"}  # any guess will do
### END SOLUTION

# %% grade="pre"
lab.grade("pre", before).score()

# %% [markdown]
# ## A map with a hole in it
#
# ![A bar of all addresses from 0 to the top of RAM. The low part is the first 16 MiB. RAM ends at
# about 3 GiB, a hole follows up to 4 GiB, then RAM again. At the top of RAM is the
# reserve.](map.svg)
#
# The firmware tells a booting kernel where RAM is. Below 4 GiB there is a **hole**: addresses that
# belong to devices. Popcorn's tool `mpart` reads that map and gives each kernel a **region**.
#
# * The **low** 16 MiB stay with kernel 0, the primary. All kernels see them, for the trampoline and
#   `boot_params` are there; no other kernel allocates there.
# * The top of RAM is the **reserve**, for what all kernels share: virtual terminals, network.
# * Regions begin and end at multiples of a **granule** of 128 MiB.

# %% [markdown]
# **Predict p1.** The tool works from address 0 up and gives each kernel its share. Now a share does
# not fit before the hole. What does that kernel get? (a) what is before the hole, less than the
# others; (b) a region that begins behind the hole, and what is before it is lost; (c) what is
# before the hole and the rest behind it, in one longer region. Commit to one, then say in a line
# why.

# %%
p1 = ...  # "a", "b" or "c"
why_1 = ""  # one line, for yourself and your teacher
lab.predict("p1", p1)

# %% [markdown]
# ## Whose is it?
#
# Now the machine with 64 kernels, as the tool divides it. Each bar has a table that says the same.

# %%
box = lab.run("box")
pk.plans.memory(box)

# %% [markdown]
# | in the bar | means |
# |---|---|
# | lane `firmware` | plain: RAM; slanted lines: hole; level lines: reserved by the firmware |
# | lane `node` | which NUMA node the RAM belongs to |
# | lane `whose` | a kernel's number on its colour; crossed: lost; upright lines: the reserve |
# | lane `in it` | zoomed in: where a kernel's image, its ramdisk and its receive window are |
#
# **Touch it.** `whose` says of any address whose it is, what is there, and which words of which
# command line made it so. Try others: one in the hole, one below 1 MiB, one at the very top.
# Zoom in with `pk.plans.memory(box, start=1920 * MIB, end=6528 * MIB)`.

# %%
for address in (0x92000, 0x1_0000_0000, 0x1F_0000_0000):
    print(pk.memory.whose(box, address), end="\n\n")

# %% [markdown]
# ## The tool at work
#
# Step through the whole division of a smaller machine: eight kernels on 14 GiB. Here is its lower
# end; the hatched part is the hole.
#
# ![The demo machine. RAM before the hole ends at 3,069.6 MiB and is cut to 23 granules of 128 MiB;
# behind 4,096 MiB are 86 more. Kernel 0 has 13 granules from 0 up. Kernel 1 has 10 granules before
# the hole and 3 behind it, so its region is 2,816 MiB long, of which 1,152 are hole. Kernel 2 goes
# on from there.](hole.svg)

# %%
lab.play("division")

# %% [markdown]
# ## Task a1 · A share for each kernel
#
# Your own machine now; the cell prints its map. Work by hand, in MiB, by these rules:
#
# 1. The reserve ends at the top of RAM. Nothing above its start is divided.
# 2. Cut each range inwards to whole granules of 128 MiB. The lowest counts from address 0: its
#    small gaps below 1 MiB do not matter.
# 3. All granules, divided by the number of kernels, rounded down: that is each kernel's share.
# 4. Hand out from 0 up. One kernel is the **straddler**: its share goes on behind the hole.
#
# `region_mib` is the length of the straddler's region, from its first to its last address.
#
# <!-- hints a1 -->

# %% answer="a1"
print(lab.run("map"))
mine = {
    "reserve_start_mib": ...,
    "granules": ...,  # of all ranges together
    "share_mib": ...,
    "straddler": ...,  # a kernel's number
    "region_mib": ...,
}
### BEGIN SOLUTION
from popcorn_edu.grading.shares import A1, my_plan

mine |= {name: truth(my_plan(lab.variant)) for name, (truth, *_) in A1.items()}
### END SOLUTION

# %% grade="a1"
lab.grade("a1", mine).score()

# %% [markdown]
# ## Task f2 · A division of your own
#
# Write what you have just done as a function. `ram` is a list of ranges `(start, end)` in bytes,
# ascending, the lowest from 0; the reserve is taken away already. An `end` is the first address
# *after* its range. Return the region of each of `n` kernels, as a list of pairs `(start, end)`, or
# None if there is less than one granule for each.
#
# `partition([(0, 3072 * MIB), (4096 * MIB, 5120 * MIB)], 2, 128 * MIB)` is
# `[(0, 2048 * MIB), (2048 * MIB, 5120 * MIB)]`: the second region goes over the hole.
#
# Your function is tried on maps without a hole, with one and with several, with a range too short
# for a granule, and at grading on fresh ones. The report shows the call that went wrong; paste it
# into a cell of your own.
#
# <!-- hints f2 -->


# %% answer="f2"
def partition(ram, n, granule):
    """A region (start, end) for each of n kernels; None if there is too little."""
    # 1. Cut each range inwards to whole granules; leave out what is empty then.
    slots = []
    ### BEGIN SOLUTION
    for start, end in ram:
        start, end = -(-start // granule) * granule, end // granule * granule
        if end > start:
            slots.append((start, end))
    ### END SOLUTION
    # 2. The share of each kernel, in bytes: all granules, divided by n, rounded down.
    share = ...
    ### BEGIN SOLUTION
    share = sum(end - start for start, end in slots) // granule // n * granule
    if share == 0:
        return None
    ### END SOLUTION
    # 3. Hand out, slot after slot. Who has not enough when a slot ends goes on in the next.
    regions = []
    ### BEGIN SOLUTION
    free, place = slots[0][0], 0
    for _ in range(n):
        if free == slots[place][1]:  # this slot is used up
            place += 1
            free = slots[place][0]
        first, to_go = free, share
        while to_go > slots[place][1] - free:  # over the hole
            to_go -= slots[place][1] - free
            place += 1
            free = slots[place][0]
        free += to_go
        regions.append((first, free))
    ### END SOLUTION
    return regions


# %% grade="f2"
lab.grade("f2", partition).score()

# %% [markdown]
# ## Task a3 · What rounding costs
#
# Lost is the RAM in nobody's region. Count it for your machine, **in bytes**, with granules of 2,
# of 128 and of 512 MiB; take the ranges and the number of kernels from the cell.
# `bytes_in(ram, regions)` counts the bytes of RAM that lie in these regions.
#
# And `granules_left_at_most`: whatever RAM there is, how many *whole* granules can the division
# among your number of kernels leave over, at the worst?
#
# <!-- hints a3 -->

# %% answer="a3"
ram = lab.run("ram")  # your machine's, up to the reserve
print(lab, ram, sep="\n")
rounding = {"lost_2": ..., "lost_128": ..., "lost_512": ..., "granules_left_at_most": ...}
### BEGIN SOLUTION
from popcorn_edu.grading.shares import numbers

kernels = numbers(lab.variant).kernels
for size in (2, 128, 512):
    regions = partition(ram, kernels, size * MIB)
    rounding[f"lost_{size}"] = sum(b - a for a, b in ram) - bytes_in(ram, regions)
rounding["granules_left_at_most"] = kernels - 1
### END SOLUTION

# %% grade="a3"
lab.grade("a3", rounding).score()

# %% [markdown]
# **Experiment.** Is a larger granule always worse? First write down what you expect, then run the
# cell: the loss in MiB on the 128-GiB machine, for four numbers of kernels and three granules.

# %%
hypothesis = ""  # one line, before you run this
machine = pk.Machine.load("h8qg6-64")
print("kernels", *(f"{size:>5} MiB" for size in (2, 128, 512)))
for kernels in (16, 50, 56, 60):
    cpus = [(cpu,) for cpu in machine.cpus[:kernels]]
    plans = [pk.memory.carve(machine, cpus, granule_bytes=size * MIB) for size in (2, 128, 512)]
    print(f"{kernels:7}", *(f"{plan.lost_bytes() // MIB:9,}" for plan in plans))

# %% [markdown]
# ## Task a5 · When the hole moves
#
# A firmware update on your machine makes the hole larger, downwards: devices need more addresses.
# The RAM that was there is not gone; it appears at the top. The cell prints the new map. Predict,
# by the rules of a1: `share_mib`, the `straddler`, its `region_mib`, and `lost_bytes` as in a3.
#
# Decide on paper first, what will change and what will not. Then let your function check you:
# `lab.run("moved ram")` has the ranges up to the reserve.
#
# <!-- hints a5 -->

# %% answer="a5"
print(lab.run("moved map"))
moved = {"share_mib": ..., "straddler": ..., "region_mib": ..., "lost_bytes": ...}
### BEGIN SOLUTION
ram, kernels = lab.run("moved ram"), numbers(lab.variant).kernels
regions = partition(ram, kernels, 128 * MIB)
lengths = [end - start for start, end in regions]
longest = max(range(kernels), key=lambda kernel: lengths[kernel])
moved["share_mib"] = min(lengths) // MIB
moved |= {"straddler": longest, "region_mib": lengths[longest] // MIB}
moved["lost_bytes"] = sum(b - a for a, b in ram) - bytes_in(ram, regions)
### END SOLUTION

# %% grade="a5"
lab.grade("a5", moved).score()

# %% [markdown]
# ## Task i4 · Disjoint and covered
#
# Two kernels whose lines claim the same RAM boot, and Linux says nothing. So somebody else has to
# look. Write the **invariant** of a division: *each byte of RAM is in exactly one piece, and each
# piece is RAM*. Your function gets the ranges of RAM, and a list of pieces in any order:
#
# ```python
# ram = [(0, 0xc0000000), (0x100000000, 0x240000000)]
# maps = [(0x40000000, 0xc0000000, "kernel 1"), (0, 0x40000000, "kernel 0"), ...,
#         (0x200000000, 0x220000000, "lost"), (0x220000000, 0x240000000, "reserve")]
# ```
#
# Return None if all is well, else the **lowest** address that is RAM in no piece, in two pieces, or
# in a piece and no RAM. Your function is let loose on good and bad divisions. Bad ones found count
# for you, false alarms against you.
#
# <!-- hints i4 -->


# %% answer="i4"
def disjoint_and_covered(ram, maps):
    """None, or the lowest address that is not in exactly one piece of RAM."""
    ### BEGIN SOLUTION
    edges = {edge for piece in [*ram, *maps] for edge in piece[:2]}
    for edge in sorted(edges):
        owners = [owner for start, end, owner in maps if start <= edge < end]
        here = any(start <= edge < end for start, end in ram)
        if len(owners) != here:  # one where RAM is, none elsewhere
            return edge
    return None
    ### END SOLUTION


# %% grade="i4"
lab.grade("i4", disjoint_and_covered).score()

# %% [markdown]
# ## Near and far
#
# On a NUMA machine each node has RAM of its own, and a CPU is quicker with the RAM of its own node.
# The plan of the 64-CPU machine goes by addresses and ignores nodes. How many kernels have memory
# that is far away, and how much of it?

# %%
shares = [float(box.local_share(kernel)) for kernel in range(64)]
for kernel, near in enumerate(shares):
    if near < 1:
        print(f"kernel {kernel}: {near:.0%} of its memory is in its own node")

# %% [markdown]
# ## Task f6 · Memory near its CPUs
#
# Write a better placement. You get
#
# | argument | what it is |
# |---|---|
# | `nodes` | the free RAM of each node that has any: `{0: [(start, end), ...], 1: ...}` |
# | `homes` | for each kernel the node of its CPUs: `[0, 0, 1, ...]` |
# | `nearest` | for each node all nodes, nearest first: `{0: [0, 1, 2], 1: [1, 0, 2], ...}` |
#
# Return a list with one list of ranges `(start, end)` for each kernel. It must be *sound*: in free
# RAM, no byte twice. It must be *fair*: each kernel has at least half of an equal part of its
# node's RAM. And then as *local* as possible: the fraction that lies in the kernel's own node, or
# in the nearest with RAM if its own has none, is the fraction of the points. Granules do not matter
# here.
#
# <!-- hints f6 -->


# %% answer="f6"
def place(nodes, homes, nearest):
    """The ranges of each kernel: fair, and as near as can be."""
    ranges = [[] for _ in homes]
    # 1. Which kernels are to live on which node?
    # 2. Divide each node's RAM among them.
    ### BEGIN SOLUTION
    tenants = {}
    for kernel, home in enumerate(homes):
        best = next(node for node in nearest[home] if node in nodes)
        tenants.setdefault(best, []).append(kernel)
    for node, kernels in tenants.items():
        free = list(nodes[node])
        part = sum(end - start for start, end in free) // len(kernels)
        for kernel in kernels:
            to_go = part
            while to_go:
                start, end = free.pop(0)
                cut = min(end, start + to_go)
                ranges[kernel].append((start, cut))
                to_go -= cut - start
                if cut < end:
                    free.insert(0, (cut, end))
    ### END SOLUTION
    return ranges


# %% grade="f6"
lab.grade("f6", place).score()

# %% [markdown]
# ## Who looks?
#
# **Predict p2.** Back on the demo machine, kernel 3 has a wrong pointer: it writes to an address in
# kernel 5's memory. What happens? (a) the processor raises a fault, for the address is not kernel
# 3's; (b) a hypervisor stops the write; (c) the byte is written, and nobody notices.
# (`lab.play("stray")` shows it afterwards.)

# %%
p2 = ...  # "a", "b" or "c"
why_2 = ""  # one line
lab.predict("p2", p2)

# %% [markdown]
# ## Task s7 · A stray write
#
# ![Two columns. On the left, kernel 3's write goes through kernel 3's own page tables straight to
# memory, to all of it. On the right, a guest's write goes through the guest's own page tables, then
# through second tables that belong to the hypervisor, to the guest's part of memory.](stray.svg)
#
# The cell prints a stray write on your own machine. What happens `here`, and what would happen if
# both kernels were virtual machines (`vm`)? (a) a page fault in the writing kernel; (b) a fault in
# the tables below it, and the hypervisor decides; (c) the byte is written, and its owner finds out
# when it uses it, if ever; (d) the memory controller ignores the write. Say why in a sentence.
#
# <!-- hints s7 -->

# %% answer="s7"
print(lab.run("stray write"))
stray = {"here": ..., "vm": ..., "because": ...}
### BEGIN SOLUTION
stray = {"here": "c", "vm": "b"}
stray["because"] = "Only a hypervisor has tables that the kernel above it cannot write itself."
### END SOLUTION

# %% grade="s7"
lab.grade("s7", stray).score()

# %% [markdown]
# ## Task post · The four questions again
#
# In other words; now they count.
#
# * `enforced`: what keeps kernel 2 out of kernel 3's RAM? (a) its own command line, as long as it
#   keeps to it; (b) page tables that kernel 0 made for it; (c) registers of the memory controller.
# * `below`: kernel 2 writes its page-table register, CR3. This (a) traps to a hypervisor; (b) is
#   done for it by kernel 0; (c) just happens.
# * `hole`: a line says `memmap=2688M@1920M` where all shares are 1,920 MiB. That kernel has
#   (a) 2,688 MiB of RAM; (b) RAM before and behind a hole; (c) 1,920 MiB behind a hole.
# * `window`: messages for kernel 2 are written (a) at `vty_offset`; (b) into RAM that kernel 2
#   allocated itself; (c) below 1 MiB, where all kernels see them.
#
# <!-- hints post -->

# %% answer="post"
after = {"enforced": ..., "below": ..., "hole": ..., "window": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
after = {"enforced": "a", "below": "c", "hole": "b", "window": "b"}
### END SOLUTION

# %% grade="post"
lab.grade("post", after).score()

# %%
lab.progress()

# %% [markdown]
# ## Take-away
#
# * A memory map has holes. A share that meets one goes on behind it; its region is longer, not
#   larger.
# * Rounding is simple and costs memory: up to one granule less than there are kernels.
# * Every byte is owned, reserved or lost. Count them, and a mistake cannot hide.
# * Near memory is a policy of its own: order of addresses and order of nodes are different things.
# * The division stands on command lines and is kept by good manners. No hardware looks.
#
# **In real Popcorn** (`mpart.c`, 2012-15): granules of 128 MiB, 16 MiB kept low (1 MiB in later
# versions), a reserve of 64 MiB + `0x70000000` on a 64-core machine, and per-node policies that
# align to 512 MiB (all exact). `mpart` divides all of RAM and takes the reserve from what is left
# over; here the reserve is taken away first. Other machines' reserves are model defaults.
#
# **Left out by the model:** what each kernel then allocates, and RAM that the firmware itself uses
# while it runs.
#
# ## Glossary
#
# | word | meaning |
# |---|---|
# | hole | addresses without RAM between two ranges of RAM |
# | region | a kernel's part, from its first to its last address, holes included |
# | granule | sizes are whole multiples of it |
# | share | the RAM of one kernel's region, as the tool counts it |
# | straddler | the kernel whose region lies on both sides of a hole |
# | low memory | the first 16 MiB: the primary's, seen by all |
# | reserve | the top of RAM: for what all kernels share, in no kernel's region |
# | local | in the RAM of the node that a kernel's CPUs are on |
# | invariant | what must hold in every division |
#
# **Before you go:** in one sentence, which of your four guesses has changed, and what changed it?
# The next lab divides what cannot be cut in granules: the devices.
#
# **Further reading:** "memmap=" and "mem=" in the Linux kernel's documentation of its
# command-line parameters, and the E820 map in your own machine's boot log (`dmesg`).
#
# Now choose *Run*, *Restart Kernel and Run All Cells*, save, and see the doctor. If your course
# wants a zip to upload, take away the `#` in the last line.

# %%
lab.doctor()
# lab.bundle()

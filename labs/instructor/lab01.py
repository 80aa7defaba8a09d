# %% [markdown]
# # Lab 01 · Booting a second kernel
#
# | | |
# |---|---|
# | Time | 80 minutes: 25 to read, 55 to do |
# | You need | Lab 00; functions, lists and text in Python |
# | Points | 21 |
# | Curriculum | CS2023, Operating Systems: boot; protection and privilege; multikernels |
#
# When you are through, you can
#
# * **order** the path from the operator's first command to the new kernel's check-in (o1, p1);
# * **explain** why each boot parameter exists, and **write** a kernel's line (a2, p2);
# * **implement** a reader of boot parameters (f3);
# * **compute** how long booting takes (a4);
# * **diagnose** a secondary kernel that does not come up (i5, a6);
# * **judge** whether two kernels can boot at once (s7).

# %% locked="setup"
import popcorn_edu as pk

lab = pk.lab("01")
print(lab)

# %% [markdown]
# ## Who wakes the other CPUs?
#
# ![Physical memory as a strip: below 1 MiB the trampoline page and boot_params; then the primary
# kernel's memory; further up, the memory of kernel 1 with its image and ramdisk. An arrow marked
# INIT, SIPI, SIPI goes from CPU 0 to another CPU, which starts in the
# trampoline page.](second_kernel.svg)
#
# A machine with 64 CPUs runs one Linux, and uses one CPU of it. The other 63 stand still. A few
# minutes later the machine runs 64 Linux kernels, and nobody has pressed a button. Who woke the
# others, and how did each of them know which part of the machine is its own?
#
# ### Task pre · Four guesses
#
# Guess first. Any answer earns the points; nobody tells you yet which are right.
#
# | | a | b | c |
# |---|---|---|---|
# | `below`: under a secondary kernel runs | a hypervisor | the primary | nothing |
# | `start`: its CPU starts in | 64-bit mode | 16-bit mode | the mode of the primary |
# | `mask`: `present_mask=3` gives it | CPU 3 | CPUs 0 and 1 | three CPUs |
# | `limit`: what keeps it in its memory | the page tables | the primary | its manners |
#
# <!-- hints pre -->

# %% answer="pre"
before = {"below": ..., "start": ..., "mask": ..., "limit": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
before = {"below": "a", "start": "a", "mask": "b", "limit": "a"}  # any guess will do
### END SOLUTION

# %% grade="pre"
lab.grade("pre", before).score()

# %% [markdown]
# ## Three hands
#
# A kernel is not simply started. Three hands take turns, and each can only do its part:
#
# * the **operator**, a program in the *primary* kernel, puts the new kernel's command line, image
#   and ramdisk where they will be looked for;
# * the **primary** kernel sends the CPU the three interrupts that every x86 CPU wakes up on: INIT,
#   then twice STARTUP (**SIPI**), which names a page below 1 MiB to start in;
# * the **CPU** itself wakes in *real mode*, 16 bits wide, as in 1978. The code in that page, the
#   **trampoline**, takes it through *protected mode* to *long mode*, and jumps to the kernel.
#
# The new kernel then reads its **boot parameters**, takes its CPUs, its memory and its devices,
# and **checks in** with the others. There is nothing below it and nothing above it.
#
# | in the player | means |
# |---|---|
# | lane *operator* | commands typed in the primary kernel |
# | lane *kernel 0, process* | the primary's own system call |
# | lane *kernel 1, cpu* | the CPU that wakes up, instruction by instruction |
# | lane *kernel 1, process* | the new kernel, once it runs |
# | *The CPU that climbs*, *Below 1 MiB*, *page tables* | what each step leaves behind |
#
# Step through it with the right arrow key. The times are those of Popcorn's source where it names
# them (exact), else model defaults.

# %%
lab.play("demo")

# %% [markdown]
# **Predict p1.** The trampoline has just written its marker, `0xA5A5A5A5`, which the primary polls
# for. In which mode is the CPU? (a) real mode; (b) protected mode; (c) long mode. Commit to one,
# then say in a line why it is written there and not later.

# %%
p1 = ...  # "a", "b" or "c"
why_1 = ""  # one line, for yourself and your teacher
lab.predict("p1", p1)

# %% [markdown]
# ## Task o1 · In order
#
# The cell prints twelve lines, shuffled. Ten of them happen when a second kernel boots; two never
# do. Write down the letters of the ten in an order in which they can happen. Some lines may change
# places with others; what counts is that each line comes after all it needs.
#
# <!-- hints o1 -->

# %% answer="o1"
print(lab.run("twelve lines"))
order = ...  # ten letters in a text, such as "cafe..."
### BEGIN SOLUTION
from popcorn_edu.grading.lab01 import an_order

order = an_order(lab.variant)
### END SOLUTION

# %% grade="o1"
lab.grade("o1", order).score()

# %% [markdown]
# ## Task a6 · What is proven?
#
# The primary sees the marker and reports success. Look at the demo run again, `demo.play()`, or
# list its records with `demo.show()`:
#
# 1. `marker_seen`: the number of the record in which the primary sees it.
# 2. `kernel_runs`: the number of the first record that proves that the *new kernel* runs.
# 3. `between_ns`: the simulated time between the two. For so long the primary has reported a
#    kernel that does not run yet.
#
# <!-- hints a6 -->

# %% answer="a6"
demo = lab.run("demo")
proven = {"marker_seen": ..., "kernel_runs": ..., "between_ns": ...}
### BEGIN SOLUTION
from popcorn_edu.grading.lab01 import first_words, marker_seen

seen, runs = marker_seen(demo), first_words(demo)
proven = {"marker_seen": seen.seq, "kernel_runs": runs.seq, "between_ns": runs.time - seen.time}
### END SOLUTION

# %% grade="a6"
lab.grade("a6", proven).score()

# %% [markdown]
# ## A line of text divides the machine
#
# What a kernel owns is written nowhere but in its own command line:
#
# | parameter | what it says |
# |---|---|
# | `mklinux` | you are a secondary: look for the others, do not set up the machine |
# | `present_mask=3` | these CPUs are yours. A **list**, despite its name: `3`, `0-11`, `1,2,8-9` |
# | `memmap=1G@4G` | 1 GiB from 4 GiB on is RAM, whatever the firmware's map says |
# | `memmap=4080M$16M` | hands off: 4,080 MiB from 16 MiB on are reserved |
# | `mem=5G` | nothing exists from 5 GiB on |
# | `vty_offset=0x1ffc000000` | here is the memory of the virtual terminals |
# | `pci_dev_flags=0x8086:0x10c9:b` | never touch a device with this id; more after commas |
# | `lapic_timer=1000000` | your timer's speed: there is nothing you could measure it with |
#
# Nothing enforces it afterwards: a kernel writes its own page tables, and nobody looks at them.
#
# The cell explains a line as the model's kernel reads it. Change it and run it again; try a CPU
# that does not exist, or leave the second `memmap=` out.

# %%
line = "mklinux present_mask=3 memmap=1G@4G memmap=4080M$16M mem=5G lapic_timer=1000000"
pk.plans.command_line(line, machine="h8qg6-64")

# %% [markdown]
# **Predict p2.** A secondary boots with `present_mask=6`. Which CPUs does it bring up? (a) CPUs 1
# and 2, since 6 is binary 110; (b) CPU 6; (c) six CPUs, 0 to 5.

# %%
p2 = ...  # "a", "b" or "c"
why_2 = ""  # one line
lab.predict("p2", p2)

# %% [markdown]
# ## Task a2 · A kernel's line
#
# The cell prints what one kernel of your plan shall own. Write its whole command line. It must be
# a secondary; have these CPUs and no others; see its memory as RAM and no other memory above
# 16 MiB, neither below its own nor above; find the virtual terminals; leave the devices alone that
# are listed; and need not measure its timer. The report says what a kernel with your line would
# see. The order of the words is up to you.
#
# <!-- hints a2 -->

# %% answer="a2"
print(lab.run("my kernel"))
my_line = ...  # one text in quotes
### BEGIN SOLUTION
from popcorn_edu.grading.lab01 import right_line

my_line = right_line(lab.variant)
### END SOLUTION

# %% grade="a2"
lab.grade("a2", my_line).score()

# %% [markdown]
# ## Task f3 · Read a line
#
# Now be the kernel. Write a function that gets a command line and the machine's RAM, a list of
# `(start, end)` in bytes (`end` is the first byte that is not in it). It returns three things:
#
# * `"secondary"`: True if the bare word `mklinux` is there;
# * `"cpus"`: the CPUs of `present_mask=`, ascending;
# * `"ram"`: what the kernel may use: the machine's RAM, without what any `memmap=SIZE$START`
#   reserves, and nothing at or above `mem=`. Ascending, no empty pieces.
#
# Sizes are decimal or `0x` hexadecimal, with `K`, `M` or `G` behind them or nothing. `memmap=` with
# `@` changes nothing here, and unknown words are skipped. Two helpers are given.
#
# <!-- hints f3 -->


# %% locked="given"
def size(text):
    """The number of bytes: "4080M", "0x1000", "5G"."""
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    return int(text.rstrip("kKmMgG"), 0) * unit


def without(ram, start, end):
    """The ranges of ram, with everything from start up to end cut out."""
    pieces = [piece for a, b in ram for piece in ((a, min(b, start)), (max(a, end), b))]
    return [(a, b) for a, b in pieces if a < b]


# %% answer="f3"
def read_line(line, ram):
    """What a kernel with this command line owns."""
    found = {"secondary": False, "cpus": [], "ram": ram}
    for word in line.split():
        name, _, value = word.partition("=")
        ...  # four names matter: mklinux, present_mask, memmap, mem
        ### BEGIN SOLUTION
        if name == "mklinux":
            found["secondary"] = True
        elif name == "present_mask":
            for part in value.split(","):
                first, _, last = part.partition("-")
                found["cpus"] += range(int(first), int(last or first) + 1)
        elif name == "memmap" and "$" in value:
            length, _, start = value.partition("$")
            found["ram"] = without(found["ram"], size(start), size(start) + size(length))
        elif name == "mem":
            found["ram"] = without(found["ram"], size(value), 1 << 62)
        ### END SOLUTION
    ### BEGIN SOLUTION
    found["cpus"] = sorted(set(found["cpus"]))
    ### END SOLUTION
    return found


# %% grade="f3"
lab.grade("f3", read_line).score()

# %% [markdown]
# ## Task a4 · How long does it take?
#
# From Popcorn's source (exact): the primary asserts INIT and waits 10 ms; then twice it sends a
# SIPI and waits 300 µs and 200 µs. Then it looks for the marker every 100 µs, at most 50,000 times.
# A kernel needs some seconds more until it checks in; how many is a model default, printed by the
# cell. There is only one page of `boot_params`, so the next boot waits until this kernel is in.
#
# 1. `wake_us`: from asserting INIT to the end of the second SIPI's wait, in microseconds.
# 2. `give_up_s`: how long the primary looks for a marker that never comes, in seconds.
# 3. `all_s`: from the first INIT to the last check-in for all your secondaries, in whole seconds
#    (rounded).
# 4. `check_ins`: each two kernels of the finished system have checked in with each other once. How
#    many check-ins is that, the primary included?
#
# <!-- hints a4 -->

# %% answer="a4"
print(lab.run("a long boot"))
times = {"wake_us": ..., "give_up_s": ..., "all_s": ..., "check_ins": ...}
### BEGIN SOLUTION
from popcorn_edu.grading.lab01 import right_times

times = right_times(lab.variant)
### END SOLUTION

# %% grade="a4"
lab.grade("a4", times).score()

# %% [markdown]
# ## Task i5 · Three boots that fail
#
# Three boots, three kernels that do not come up: `lab.play("boot a")`, `"boot b"`, `"boot c"`. For
# each, give the cause and the number of the first record whose sentence says that something is
# wrong. What comes after it is only passed on.
#
# | cause | means |
# |---|---|
# | `"cpu owned"` | the primary still runs on that CPU |
# | `"no answer"` | the CPU never starts in the trampoline |
# | `"no map"` | the kernel lies above 4 GiB, and no page table leads there |
# | `"cut line"` | the command line was longer than its buffer |
# | `"other's line"` | another boot has overwritten the boot parameters |
#
# <!-- hints i5 -->

# %%
lab.play("boot a")

# %% answer="i5"
causes = {"boot a": (..., ...), "boot b": (..., ...), "boot c": (..., ...)}  # ("cause", record)
### BEGIN SOLUTION
from popcorn_edu.grading.lab01 import right_causes

causes = right_causes(lab.variant)
### END SOLUTION

# %% grade="i5"
lab.grade("i5", causes).score()

# %% [markdown]
# ## Task s7 · One after the other, or all at once?
#
# Sixty-three boots one after the other take minutes. So somebody starts two at once:
# `lab.play("two at once")`. The command line and the address of the ramdisk stand in the primary's
# *own* `boot_params`, of which there is one.
#
# 1. `overwritten`: the number of the record that destroys what the other boot still needs.
# 2. `victim`: the number of the kernel that reads a line that is not its own.
# 3. `change`: which *smallest* change makes boots at once safe? `"lock"`: a lock around writing the
#    line. `"page each"`: a page of boot_params for each kernel, whose address is handed to its
#    trampoline. `"faster"`: a shorter wait after INIT. `"retry"`: boot again if it did not come up.
# 4. `because`: a sentence.
#
# <!-- hints s7 -->

# %%
lab.play("two at once")

# %% answer="s7"
at_once = {"overwritten": ..., "victim": ..., "change": ..., "because": ...}
### BEGIN SOLUTION
from popcorn_edu.grading.lab01 import the_overwriting, the_victim

at_once["overwritten"] = the_overwriting(lab.run("two at once"))
at_once["victim"] = the_victim(lab.run("two at once"))
at_once["change"] = "page each"
at_once["because"] = (
    "The page is read long after it was written, so a lock would be held too short."
)
### END SOLUTION

# %% grade="s7"
lab.grade("s7", at_once).score()

# %% [markdown]
# ## Sixty-four kernels
#
# The overview of Popcorn shows "booting Popcorn Linux on 64 cores". Here it is, on a real board of
# that class: one kernel for each CPU, one boot after the other. *Who has come how far* shows all
# 64; zoom in to see the 11 ms in which a CPU wakes up. Before you run it: how many records do you
# expect?

# %%
expected = ""  # one line
sixty_four = pk.scenarios.boot_64()
print(len(sixty_four), "records")
sixty_four.play()

# %% [markdown]
# ## Task post · The four questions again
#
# In other words and another order; now they count.
#
# * `below`: a secondary kernel executes a privileged instruction. (a) It runs, as in any kernel;
#   (b) it traps into the primary; (c) it traps into a hypervisor.
# * `start`: the first instruction the new CPU executes (a) is the kernel's; (b) is in the kernel's
#   own memory; (c) is 16-bit code below 1 MiB.
# * `mask`: `present_mask=12` (a) CPUs 2 and 3; (b) CPU 12; (c) twelve CPUs.
# * `limit`: a secondary writes to an address above its `mem=`. (a) The hardware stops it; (b) the
#   primary stops it; (c) the other kernel's memory is changed.
#
# <!-- hints post -->

# %% answer="post"
after = {"below": ..., "start": ..., "mask": ..., "limit": ...}  # "a", "b" or "c"
### BEGIN SOLUTION
after = {"below": "a", "start": "c", "mask": "b", "limit": "c"}
### END SOLUTION

# %% grade="post"
lab.grade("post", after).score()

# %%
lab.progress()

# %% [markdown]
# ## Take-away
#
# * Another kernel is booted by a kernel: image, ramdisk and command line are copied, one CPU is
#   sent INIT and two SIPIs, and it walks from real mode to long mode by itself.
# * The marker proves that the trampoline ran. To the others, only a check-in proves that the
#   kernel runs.
# * A kernel owns what its command line leaves it. `present_mask` is a list. `mem=` and `memmap=`
#   are good manners, not walls.
# * One page of `boot_params` serves all boots, so they come one after the other.
#
# **In real Popcorn** (generation G1, 2012-13): `mklinux_boot.sh`, `copy_ramdisk`, `wr_cmdline`
# and a changed `kexec` in mklinux-utils and mklinux-kexec; system call 312,
# `multikernel_boot()`, `mkbsp_boot_cpu()` and `trampoline_64_bsp.S` in the kernel. Waits, sizes,
# counts and the marker are from that source (exact). How long a kernel needs until it checks in is
# a model default, bounded only by the script's wait of 11 s.
#
# **Left out by the model:** what firmware left in the machine, caches and microcode, and all that a
# kernel does between its first line and its check-in, which is one delay here.
#
# ## Glossary
#
# | word | meaning |
# |---|---|
# | primary, secondary | the kernel that the boot loader started; one that a kernel started |
# | INIT, SIPI | the interrupts between CPUs that reset one, and start it in a given page |
# | trampoline | the code below 1 MiB in which a CPU wakes up and changes its modes |
# | real, protected, long mode | 16, 32 and 64 bits wide; paging comes with the last |
# | boot_params | the page that tells a kernel its command line, its ramdisk and its RAM |
# | marker | a word in memory that the trampoline writes and the primary polls for |
# | check-in | the new kernel's message to each other kernel: here is my window |
#
# **Before you go:** in one sentence, which of your four guesses has changed, and which step changed
# it? The next lab asks which CPUs should form a kernel.
#
# **Further reading:** B. H. Shelton's thesis
# ([hdl.handle.net/10919/23119](https://hdl.handle.net/10919/23119)), and the x86 boot protocol in
# the Linux kernel's documentation.
#
# Now choose *Run*, *Restart Kernel and Run All Cells*, save, and see the doctor. If your course
# wants a zip to upload, take away the `#` in the last line.

# %%
lab.doctor()
# lab.bundle()

# %% [markdown]
# # The smallest lab
#
# <!-- hints t1 -->

# %% locked="setup"
from popcorn_edu.grading.lab import lab as open_lab

lab = open_lab("tiny")
print(lab)

# %% [markdown]
# Twice the number of your variant.

# %% answer="t1"
twice = ...  # a whole number
### BEGIN SOLUTION
twice = 2 * lab.rng("t1").randrange(100)
### END SOLUTION

# %% grade="t1"
lab.grade("t1", twice).score()

# %%
from IPython.display import display  # noqa: E402

page = "<b>seen without a " + "kernel</b>"
widget = {"model_id": "0", "version_major": 2, "version_minor": 0}
both = {"text/html": page, "application/vnd.jupyter.widget-view+json": widget}
display(both, raw=True)


# %% answer="t2"
def double(number):
    """Twice the number."""
    ### BEGIN SOLUTION
    return number + number
    ### END SOLUTION


# %% grade="t2"
lab.grade("t2", double).score()


# %% answer="t3"
def count(world, ticks):
    """Tick 0, 1, 2, ... that many times."""
    from tiny import Ticked

    ### BEGIN SOLUTION
    for number in range(ticks):
        yield Ticked(number)
    ### END SOLUTION


# %% grade="t3"
lab.grade("t3", count).score()

# %% answer="t4"
word = ...  # a text
### BEGIN SOLUTION
word = "popcorn"
### END SOLUTION

# %% grade="t4"
### BEGIN HIDDEN TESTS
assert word != "sesame", "no magic words"
### END HIDDEN TESTS
lab.grade("t4", word).score()

# %% answer="t5"
raw = ...  # shown as it is
### BEGIN SOLUTION
raw = 2
### END SOLUTION

# %% grade="t5"
raw  # noqa: B018

"""The tasks of a lab that is just large enough to try every part of the grading."""

from popcorn_edu.engine.sim import Sim, finish
from popcorn_edu.engine.trace import Event
from popcorn_edu.engine.world import World
from popcorn_edu.grading.guard import call
from popcorn_edu.grading.predict import Predict
from popcorn_edu.grading.tasks import Check, Miss, Task, Wrong

TITLE = "The smallest lab"


class Ticked(Event):
    """A clock says that it is alive."""

    says = "tick {n}"
    n: int


def clock(world, ticks):
    for n in range(ticks):
        yield Ticked(n)


def tell(story, ticks=5):
    sim = Sim(World(), careful=True, record_limit=1_000)
    sim.begin("clock", story, ticks)
    return finish(sim, World)


SCENES = {"clock": lambda variant: tell(clock)}


def note(variant):
    return f"number {variant.rng('t1').randrange(100)}"


def is_even(answer, variant):
    return None if answer % 2 == 0 else f"{answer} is odd."


def is_twice_the_number(answer, variant):
    right = 2 * variant.rng("t1").randrange(100)
    return None if answer == right else Miss(f"{answer} is not twice your number.", "M17")


def doubled_small(double, variant):
    for number in (0, 1, 2):
        if call(double, number, returns=int) != 2 * number:
            return f"double({number}) is not {2 * number}."


def doubled_negative(double, variant):
    if call(double, -3, returns=int) != -6:
        return "A number below zero is not doubled."


def starts_at_zero(run, variant):
    return None if run.trace[0].event.n == 0 else "The first tick is not number 0."


def counts_up(run, variant):
    for record in run.trace:
        if record.event.n != record.seq:
            sentence = f"record {record.seq}: tick {record.event.n} is out of turn."
            return Miss(sentence, share=0.5, seq=record.seq, run=run)


def is_popcorn(word, variant):
    return None if word == "pop" + "corn" else "Another word."


TASKS = (
    Task(
        "t1", "Twice the number of your variant", int,
        (Check("even", 1, is_even), Check("twice", 1, is_twice_the_number)),
        hints=("Look at your variant.", "Multiply.", "Two times the number."),
        wrong=(Wrong("the number itself", lambda v: v.rng("t1").randrange(50) * 2 + 1, 0),),
    ),
    Task(
        "t2", "A function that doubles", callable,
        (Check("small", 1, doubled_small), Check("negative", 1, doubled_negative, hidden=True)),
    ),
    Task(
        "t3", "A story that counts", callable,
        (Check("starts", 1, starts_at_zero), Check("counts", 1, counts_up)),
        ask=lambda story, variant: tell(story),
    ),
    Task("t4", "A word", str, (Check("word", 1, is_popcorn),)),
    Task("t5", "A score that is not ours", object, (Check("raw", 2, is_popcorn),)),
)  # fmt: skip

PREDICTS = (
    Predict(
        "p1", "Which tick comes after tick 1?", "clock",
        at=lambda run: 2, truth=lambda run, seq: "a",
        options={"a": "tick 2", "b": "no other"}, tags={"b": "M6"},
    ),
)  # fmt: skip

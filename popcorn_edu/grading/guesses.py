"""The questions that a lab asks twice: before it, where any answer counts, and after it.

``after`` names, for each question, the misconception behind each letter; the sound one has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from popcorn_edu.grading.answers import OPEN, OneOf, unfit
from popcorn_edu.grading.tasks import Check, Miss, Task

After = Mapping[str, Mapping[str, str]]


def before_and_after(
    after: After,
    where_from: str,
    points: float = 0.5,
    again: str = "run your predictions once more",
) -> tuple[Task, Task]:
    """The tasks ``pre`` and ``post``. ``where_from`` says which parts of the lab answer them."""
    wants = {name: OneOf(*letters) for name, letters in after.items()}
    count = {3: "three", 4: "four", 5: "five"}.get(len(after), str(len(after)))
    before = Task(
        "pre",
        "What you think before the lab",
        wants,
        (Check(f"{count} guesses, right or not", points, all_guessed(after)),),
        hints=(
            "There is nothing to look up. Choose what seems likely; it costs no points.",
            "Not sure between two? Take the first that came to your mind, and see at the end.",
            'Put one letter in quotes in place of each `...`, such as `"a"`, and run the cell.',
        ),
    )
    afterwards = Task(
        "post",
        "What you think after the lab",
        wants,
        (Check(f"{count} answers", points, sound(after, again)),),
        hints=(
            "Each question has a gate, a task or a sentence of feedback in this lab behind it.",
            where_from,
            "Compare with what you thought before, in the cell of `pre`.",
        ),
    )
    return before, afterwards


def all_guessed(after: After) -> Callable:
    def holds(answer, variant):
        open_ones = [name for name in after if answer.get(name) is None]
        if len(open_ones) == len(after):
            return OPEN
        if open_ones:
            share = 1 - len(open_ones) / len(after)
            slips = unfit(answer, open_ones)
            said, left = list(slips.values()), [name for name in open_ones if name not in slips]
            if left:
                said.append(f"Still open: {', '.join(left)}. A guess is enough.")
            return Miss(" ".join(said), share=share)

    return holds


def sound(after: After, again: str) -> Callable:
    def holds(answer, variant):
        wrong = {name: after[name][letter] for name, letter in answer.items() if letter}
        wrong = {name: tag for name, tag in wrong.items() if tag}
        open_ones = [name for name in after if answer.get(name) is None]
        if wrong or open_ones:
            slips = unfit(answer, open_ones)
            said = [slips.get(name, f"{name} is still open.") for name in open_ones]
            said += [f"{name}: {again}." for name in wrong]
            share = 1 - (len(wrong) + len(open_ones)) / len(after)
            return Miss(" ".join(said), next(iter(wrong.values()), ""), share)

    return holds

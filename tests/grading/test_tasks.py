"""Judging an answer, and the report about it."""

import re

import pytest

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.grading.misconceptions import MISCONCEPTIONS
from popcorn_edu.grading.tasks import Check, Miss, Report, Task, Variant, judge

HERE = Variant("tiny")


def task(*holds, hidden=False, **more):
    checks = tuple(Check(f"check {n}", 1, h, hidden) for n, h in enumerate(holds))
    return Task("t", "A task", object, checks, **more)


def report(*holds, answer=0, **more):
    made = task(*holds, **more)
    return Report(made, judge(made, answer, HERE, hidden=True))


def fails(answer, variant):
    raise ZeroDivisionError("by hand")


def refuses(answer, variant):
    raise PopcornError("kernels=99: there are 48")


def test_each_check_earns_its_own_points():
    """One broken check costs its points and no others."""
    made = report(lambda a, v: None, lambda a, v: "No.", fails, refuses)

    assert made.points == 1.0
    assert [row.mark() for row in made.outcome] == ["yes", "no", "no", "no"]
    assert made.outcome[2].sentence.startswith("not judged: ZeroDivisionError: by hand")
    assert made.outcome[3].sentence == "kernels=99: there are 48"


@pytest.mark.parametrize("share", [-1, 5, float("inf")])
def test_a_share_never_leaves_its_bounds(share):
    """Whatever a check says, a row earns between nothing and its points."""
    made = report(lambda a, v: Miss("Nearly.", share=share))

    assert made.points in (0.0, 1.0) and type(made.points) is float


def test_a_score_is_a_plain_rounded_float(capsys):
    """nbgrader reads the text of the last expression: 0.33, not a class's idea of itself."""
    made = report(lambda a, v: Miss("A third.", share=1 / 3))

    assert repr(made.score()) == "0.33"
    assert "A third." in capsys.readouterr().out


def test_a_function_is_asked_once_for_all_checks():
    """What costs a run is done once."""
    asked = []
    made = report(lambda a, v: None, lambda a, v: None, ask=lambda a, v: asked.append(a), answer=7)

    assert asked == [7] and made.points == 2.0


def test_hidden_checks_wait_for_the_grading():
    """Before, their points are announced and not given; their verdict is not computed."""
    secret = task(fails, hidden=True)

    (row,) = judge(secret, 0, HERE, hidden=False)

    assert row.mark() == "at grading" and row.earned == 0
    assert "1 more point is decided by hidden checks" in str(Report(secret, [row]))


def test_a_tag_brings_its_correction():
    """A recognised misconception is answered; its tag is for those who count, not to be read."""
    made = report(lambda a, v: Miss("The IPI came first.", "M3"))
    page = made._repr_html_()

    assert MISCONCEPTIONS["M3"].correction in page
    assert "M3" not in str(made) and "M3" not in re.sub("<[^>]*>", "", page)
    assert 'data-tag="M3"' in page and made.outcome[0].tag == "M3"


def test_the_name_of_a_check_has_room():
    """A long sentence beside it does not squeeze it into one word per line."""
    assert 'min-width: 14em">check 0</td>' in report(lambda a, v: "No. " * 99)._repr_html_()


def test_the_report_is_escaped():
    """A student's text cannot become markup in the instructor's page."""
    made = report(lambda a, v: "<script>alert(1)</script>")

    assert "<script>" not in made._repr_html_()


def test_all_misconceptions_have_both_halves():
    """M1 to M17, each with what is believed and what is so."""
    assert list(MISCONCEPTIONS) == [f"M{n}" for n in range(1, 18)]
    assert all(m.belief and m.correction for m in MISCONCEPTIONS.values())


def test_a_variant_is_the_same_on_every_machine():
    """The same seed gives the same lab; another word, another one."""
    assert HERE.code == "2344"
    assert HERE.rng("t1").randrange(100) == 43
    assert Variant("tiny", "ada").code != HERE.code

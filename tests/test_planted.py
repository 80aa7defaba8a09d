"""A rule's score: what it catches of what is planted, less what it accuses wrongly."""

import pytest

from popcorn_edu import planted
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.planted import MISTAKES, score
from popcorn_edu.readers import checks


@pytest.mark.parametrize("rule", sorted({mistake.check for mistake in MISTAKES.values()}))
def test_the_kits_own_check_has_full_points(rule):
    """Each check catches all that breaks its rule, and accuses no other run."""
    found = score(checks.ALL[rule], rule=rule)
    assert found.points == 1 and not found.missed and not found.false_alarms
    assert len(found.bugs) >= 1 and len(found) - len(found.bugs) >= planted.SOUND_RUNS


def test_all_checks_together_catch_everything():
    """Whatever is planted breaks a rule; whatever is sound breaks none."""
    assert score(checks.all).points == 0  # an empty list is an answer too: it says something
    assert score(lambda run: checks.all(run) or None).points == 1


@pytest.mark.parametrize(
    ("check", "points"),
    [(lambda run: None, 0), (lambda run: "broken", 0), (lambda run: False, 0)],
    ids=["never", "always", "false"],
)
def test_to_say_the_same_of_every_run_is_worth_nothing(check, points):
    """Silence catches nothing; to cry wolf accuses everybody."""
    assert score(check).points == points


def test_a_rule_that_is_half_right_has_some_points():
    """It catches what is never read, and knows nothing of the rest."""

    def read(run):
        kinds = run.trace.kinds()
        return None if kinds.get("SlotReady") == kinds.get("MessageRead") else "something is lost"

    found = score(read)
    assert 0.1 < found.points < 0.9
    assert "first bug let through: one that" in str(found)
    assert found.missed[0].run.trace.kinds()
    assert score(read, rule="every_message_is_read").points > found.points


def test_the_first_false_alarm_is_named():
    """With the call that makes its run."""
    found = score(lambda run: "too long" if len(run) > 40 else None)
    assert "first false alarm: fan_in(kernels=" in str(found)
    assert found._repr_html_().count("WRONG") == len(found.missed) + len(found.false_alarms)


def test_a_rule_that_breaks_down_is_told_where():
    """With the run, and its own error."""
    with pytest.raises(PopcornError, match="breaks down over the run 'reads head.*KeyError"):
        score(lambda run: {}["x"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((3,), "wants a function of a run"),
        ((len, "fifo_per_sende"), "did you mean fifo_per"),
    ],
)
def test_bad_input_is_named(given, sentence):
    """What is no rule, and a misspelt name."""
    with pytest.raises(PopcornError, match=sentence):
        score(*given)

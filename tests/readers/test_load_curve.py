"""The load/latency curve: its numbers are those of the runs behind its points."""

import pytest

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.readers import figures
from popcorn_edu.readers.load_curve import BUDGETS, GAPS_NS, POLICIES, load_curve


@pytest.fixture(scope="module")
def curve():
    return load_curve(kernels=4, messages=600)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("budget", [BUDGETS[0], BUDGETS[-1]])
def test_each_point_is_its_run(curve, policy, budget):
    """Both ends of the slider and both policies: the numbers of the run that the call makes."""
    import popcorn_edu as pk

    rows = curve.move(budget, policy)
    for n in (0, len(GAPS_NS) - 1):
        run = eval(curve.call(n), {"pk": pk})
        assert {"gap_ns": GAPS_NS[n]} | figures.summary(run) == rows[n]


def test_latency_rises_with_the_load(curve):
    """From the lightest to the heaviest."""
    rows = curve.move(128, "NAPI")
    assert rows[0]["p99_ns"] < rows[-1]["p99_ns"]
    assert rows[0]["ipis_per_message"] > rows[-1]["ipis_per_message"]


def test_the_chart_has_a_table_and_says_what_makes_each_run(curve):
    """For whoever cannot see it."""
    html = curve.chart().html(library=False)
    assert html.count("pk.scenarios.fan_in(") >= 2 * len(GAPS_NS)
    assert "as a table" in html and "p99_ns" in repr(curve)


@pytest.mark.parametrize("wrong", [{"kernels": 1}, {"kernels": 4, "messages": 3}])
def test_bad_input_is_named(wrong):
    """By its argument."""
    name, value = list(wrong.items())[-1]
    with pytest.raises(PopcornError, match=f"{name}={value!r}"):
        load_curve(**wrong)


def test_a_policy_that_there_is_not_is_refused(curve):
    """With what there is."""
    with pytest.raises(PopcornError, match="policy='napi'"):
        curve.move(policy="napi")
    assert scenarios.names()

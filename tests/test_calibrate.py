"""Measuring this machine: that it gives numbers, never which. No test asks for a duration."""

import shutil

import pytest

from popcorn_edu import calibrate, scenarios
from popcorn_edu.calibrate import Measured
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.messaging import InterruptTaken, IpiSent

MADE_UP = Measured("C", (0, 1), (90.0, 100.0, 400.0), (5_000.0, 5_100.0, 9_000.0), (131_072.0,) * 3)


def test_the_fit_takes_medians():
    """A line is the median by polling; a wake-up is what the median of waking has beyond it."""
    assert (MADE_UP.line_ns, MADE_UP.wakeup_ns, MADE_UP.copy_ns_per_line) == (100, 5_000, 2.0)


def test_the_machine_has_what_was_measured():
    """One line takes line_ns, and from the IPI to the softirq it is wakeup_ns, shared out."""
    machine = MADE_UP.machine()
    assert machine.transfer_ns(0, 1) == 100
    parts = [machine.cost_ns(name) for name in calibrate.WAKE_PARTS]
    assert 5_000 - len(parts) <= sum(parts) <= 5_000


def test_the_prediction_is_a_run_of_the_model():
    """Polling costs the lines and the model's own steps; sleeping the wake-up more."""
    told = calibrate.predict(MADE_UP)
    awake, asleep = told["to a kernel that polls"], told["to a kernel that sleeps"]
    assert 500 < awake < asleep
    assert 5_000 - 4 <= asleep - awake <= 6_000
    run = scenarios.fan_in(machine=MADE_UP.machine(), kernels=2, messages=1)
    sent, taken = run.trace.next(IpiSent), run.trace.next(InterruptTaken)
    assert taken.time - sent.time > 1_000


def test_what_was_measured_is_told_in_percentiles():
    """No mean anywhere; and the method, since Python's own steps are measured with it."""
    text = str(MADE_UP)
    assert text.startswith("measured in C on CPUs 0 and 1") and "median" in text
    assert "mean" not in text


@pytest.mark.slow
@pytest.mark.parametrize("method", ["C", "Python"])
def test_this_machine_can_be_measured(method):
    """Real processes throw a real number: as many values as batches, all of them positive."""
    if method == "C" and not (shutil.which("cc") or shutil.which("gcc")):
        with pytest.raises(PopcornError, match="C compiler"):
            calibrate.measure(method="C")
        return
    found = calibrate.measure(batches=20, method=method)
    assert found.method == method
    assert len(found.poll_ns) == len(found.wake_ns) == len(found.copy_ns) == 20
    assert min(*found.poll_ns, *found.wake_ns, *found.copy_ns) > 0


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batches": 0}, "batches=0: expected a whole number from 1"),
        ({"method": "Rust"}, "method='Rust': expected"),
        ({"cpus": [0, 0]}, "cpus=\\[0, 0\\]: expected two different CPUs"),
        ({"cpus": [0, 99_999]}, "CPU 99999 is not ours to use"),
    ],
)
def test_bad_input_is_named(wrong, sentence):
    """Before anything is measured."""
    with pytest.raises(PopcornError, match=sentence):
        calibrate.measure(**wrong)


def test_without_mpich_it_says_how_to_get_it(monkeypatch):
    """No traceback: the packages' names."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(PopcornError, match="pip install mpi4py mpich"):
        calibrate.mpich()

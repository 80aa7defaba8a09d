"""The panel without a browser: what its buttons do, what it says, and what it keeps."""

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

import popcorn_edu as pk
from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.messaging import IpiArrived, IpiLost
from popcorn_edu.readers import checks, figures
from popcorn_edu.readers.panel import CONTROLS, MESSAGES_AT_MOST, RUNS_KEPT, Number, panel


@pytest.fixture
def two():
    """A panel that has run twice: as it should be, and without the second look."""
    shown = panel("lost_wakeup", look_again=True)
    press(shown)
    shown.controls["look_again"].value = False
    press(shown)
    return shown


def press(shown, button="run_button"):
    """Press a button as the browser would; a mistake of ours must not pass in silence."""
    getattr(shown, button).click()
    assert "Running" not in shown.message.value


def shown_in(output: ipywidgets.Output) -> str:
    return output.outputs[-1]["data"]["text/html"]


# -- controls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", scenarios.names())
def test_every_scenario_has_its_panel(name):
    """Each scenario's plain arguments have a control, set to their defaults, and run."""
    shown = panel(name)
    stories = {
        "send",
        "receive",
        "cpus",
        "plan",
        "lists",
        "device",
        "barrier",
        "victim",
        "notified",
    }
    assert set(shown.controls) == set(scenarios.options(name)) - stories
    assert shown.settings() == {n: scenarios.options(name)[n] for n in shown.controls}
    press(shown)
    assert shown.run.trace.digest() == scenarios.run(name).trace.digest()


def test_every_control_is_described():
    """A label, a tooltip with the meaning, and the argument's name, for each control and button."""
    shown = panel()
    for name, control in shown.controls.items():
        assert control.description == CONTROLS[name].label
        assert CONTROLS[name].meaning in control.tooltip and f"({name}=)" in control.tooltip
    others = (
        shown.run_button, shown.fork_button, shown.choose_a, shown.choose_b, shown.shown,
        shown.fork_at, shown.fork_edit, shown.fork_value,
    )  # fmt: skip
    for widget in others:
        assert widget.description and widget.tooltip


def test_the_defaults_set_the_controls():
    """panel(kernels=9) opens with 9 kernels."""
    shown = panel(kernels=9, look_again=False, machine="x5650-24", schedule_seed=4)
    assert shown.settings()["kernels"] == 9
    assert shown.settings()["machine"] == "x5650-24"
    assert shown.settings()["schedule_seed"] == 4


def test_a_machine_of_ones_own_is_offered():
    """A Machine object is one more choice in the list."""
    mine = pk.Machine.synthetic(2, 1, 2)
    shown = panel(machine=mine, kernels=3)
    press(shown)
    assert shown.run.machine is mine
    assert "machine=machine" in shown.python


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kernles": 5}, "no option 'kernles'; did you mean kernels"),
        ({"kernels": "five"}, "kernels='five': expected a whole number from 2 to 64"),
        ({"kernels": 65}, "kernels=65: expected a whole number from 2 to 64"),
        ({"machine": "magny"}, "machine='magny': did you mean magny-cours-48"),
        ({"look_again": "perhaps"}, "look_again='perhaps': expected True or False"),
        ({"scenario": "fanin"}, "no scenario 'fanin'; did you mean fan_in"),
    ],
)
def test_wrong_arguments_are_a_sentence(options, sentence):
    """What pk.panel() cannot use is refused at once."""
    with pytest.raises(PopcornError, match=sentence):
        panel(**options)


def test_numbers_stay_within_their_limits():
    """What is typed beyond a limit becomes the limit, at both ends."""
    shown = panel()
    for control in shown.controls.values():
        if isinstance(control, Number):
            for wanted in (-(10**12), 10**12):
                control.value = wanted
                assert control.value in (control.min, control.max)


def test_a_number_held_to_its_limit_is_said():
    """0 ring slots become 1, and the message says so, at once and again with the next run."""
    shown = panel(kernels=3, messages=1)
    slots = shown.controls["slots"]
    sentence = "ring slots: 0 is not possible, so it is the least, 1."
    slots.set_state({"value": 0})  # as the browser does it
    assert slots.value == 1 and sentence in shown.message.value
    press(shown)
    assert sentence in shown.message.value and "is kept" in shown.message.value
    press(shown)
    assert sentence not in shown.message.value
    slots.value = 5_000
    slots.value = 8
    assert "not possible" not in shown.message.value


@pytest.mark.parametrize("end", ["min", "max"])
def test_both_ends_of_every_number_run(end):
    """Each number at its lowest or highest gives a run or one sentence, never an exception."""
    shown = panel(machine="uv2000-384")
    for name, control in shown.controls.items():
        if isinstance(control, Number) and (end, name) != ("max", "kernels"):
            old, control.value = control.value, getattr(control, end)
            press(shown)
            assert "is kept" in shown.message.value
            control.value = old


# -- running --------------------------------------------------------------------------------------


def test_run_gives_the_run_that_the_line_gives():
    """The line of Python makes the same run, record for record."""
    shown = panel(kernels=4, seed=7)
    shown.controls["gap_ns"].value = 500
    assert shown.python == "run = pk.scenarios.fan_in(kernels=4, gap_ns=500, seed=7)"
    press(shown)
    cell = {"pk": pk}
    exec(shown.python, cell)
    assert cell["run"].trace.digest() == shown.run.trace.digest()


def test_before_the_first_run_there_is_none():
    """panel.run says to press Run, and how to do without."""
    with pytest.raises(
        PopcornError, match=r"press Run, or write run = pk\.scenarios\.fan_in\(seed"
    ):
        _ = panel(seed=2).run


def test_a_learners_story_is_passed_on():
    """panel(receive=mine) runs that story; the line calls it by its name."""
    from popcorn_edu.model.messaging import receive as shipped

    def my_receive(world, me):
        yield from shipped(world, me)

    shown = panel(kernels=3, messages=2, receive=my_receive)
    assert "receive=my_receive" in shown.python
    press(shown)
    assert shown.run.trace.kinds()["MessageDelivered"] == 4


def test_a_broken_story_is_answered_in_the_panel():
    """A story that raises: its sentence stands in the panel, and nothing is kept."""

    def my_receive(world, me):
        yield 17

    shown = panel(receive=my_receive)
    press(shown)
    assert "yielded 17" in shown.message.value and 'class="wrong"' in shown.message.value
    assert shown.runs == []


@pytest.mark.parametrize(
    ("control", "value", "sentence"),
    [
        ("kernels", 50, "kernels=50: magny-cours-48 has 48 CPUs"),
        ("schedule_seed", "soon", "schedule_seed=&#x27;soon&#x27;: expected a whole number"),
    ],
)
def test_bad_settings_are_one_sentence(control, value, sentence):
    """A setting the scenario refuses is answered in the panel; the next Run works again."""
    shown = panel(messages=1)
    old, shown.controls[control].value = shown.controls[control].value, value
    press(shown)
    assert sentence in shown.message.value
    shown.controls[control].value = old
    press(shown)
    assert "run 1 is kept" in shown.message.value


def test_too_many_messages_are_capped_and_said():
    """More messages than can be shown at once become as many as can, in so many words."""
    shown = panel(kernels=48)
    shown.controls["messages"].value = 100
    press(shown)
    each = MESSAGES_AT_MOST // 47
    assert f"so each sends {each}" in shown.message.value
    assert shown.controls["messages"].value == each
    assert shown.run.trace.kinds()["MessageDelivered"] == 47 * each
    assert f"messages={each}" in shown.python


# -- comparing ------------------------------------------------------------------------------------


def test_the_newest_run_is_b_and_the_one_before_a(two):
    """Run twice: the two stand side by side, and the player shows the new one."""
    assert (two.choose_a.value.name, two.choose_b.value.name) == ("run 1", "run 2")
    assert two.run is two.runs[-1]
    assert "look_again (True → False)" in two.differ.value


def test_the_table_shows_both_and_the_change(two):
    """Each measure of both runs is in the table, with the difference."""
    first, second = (figures.summary(run) for run in two.runs)
    row = f"<td>{first['records']}</td><td>{second['records']}</td>"
    assert row in two.table.value
    change = f"{second['records'] - first['records']:+}".replace("-", "−")
    assert f"<td>{change}</td>" in two.table.value


def test_equal_settings_are_the_same_run():
    """The same settings twice: the panel says that it is the same run."""
    shown = panel(kernels=3, messages=1)
    press(shown)
    press(shown)
    assert "same run, record for record" in shown.differ.value
    assert shown.runs[0].trace.digest() == shown.runs[1].trace.digest()


def test_another_pair_can_be_chosen(two):
    """Any two kept runs can be A and B."""
    press(two)
    two.choose_a.value = two.kept[0]
    assert two.choose_a.label.startswith("run 1") and two.choose_b.label.startswith("run 3")
    two.shown.value = "A"
    assert two.run is two.runs[0]
    assert "A, run 1" in two.player.outputs[0]["data"]["text/plain"]


def test_b_can_be_nobody(two):
    """Without B the panel shows A alone."""
    two.choose_b.value = ""
    assert two.run is two.runs[0]
    assert two.shown.disabled
    assert "from A to B" not in two.table.value


def test_only_the_newest_are_kept():
    """Of many runs the newest few stay, under their own names."""
    shown = panel(kernels=2, messages=1)
    for _ in range(RUNS_KEPT + 2):
        press(shown)
    assert len(shown.runs) == RUNS_KEPT
    assert [kept.name for kept in shown.kept][0] == "run 3"
    assert shown.choose_a.options[0][1] is shown.kept[0]


def test_charts_and_player_are_shown(two):
    """The charts compare A and B; the player holds the run that is shown."""
    assert shown_in(two.charts).count("<figure") == 3
    assert "A: at most" in shown_in(two.charts) and "B: at most" in shown_in(two.charts)
    assert 'class="pk-player"' in shown_in(two.player)


def test_bokeh_is_sent_once(two):
    """The library is in the panel's own page output, not in each new set of charts."""
    press(two)
    library = figures.library_html()
    assert library not in shown_in(two.charts)
    assert sum(library in out["data"]["text/html"] for out in two._page.outputs) == 1


# -- rules that break -----------------------------------------------------------------------------


def test_a_broken_rule_has_a_sentence_and_a_button(two):
    """The lost message is found, told, and one press away in the player."""
    finding = two.kept[1].findings[0]
    button, says = two.findings.children[1].children
    assert button.description == f"B: show record {finding.seq}"
    assert "nobody ever read it" in says.value
    button.click()
    assert f"run 2 at record {finding.seq}" in two.message.value
    assert f" {finding.seq} " in two.player.outputs[0]["data"]["text/plain"]
    assert two.fork_at.value == finding.seq
    assert ".focus()" in shown_in(two.player)


def test_a_button_of_a_shows_a(two):
    """A finding of run A opens run A, though the player showed B."""
    two.choose_a.value, two.choose_b.value = two.kept[1], two.kept[0]
    two.shown.value = "B"
    two.findings.children[0].children[0].click()
    assert two.run is two.runs[1]


def test_where_all_rules_hold_it_is_said(two):
    """No news is told as good news."""
    assert f"A: all {len(checks.ALL)} rules hold" in two.findings.children[0].value


# -- forks ----------------------------------------------------------------------------------------


def test_a_fork_is_kept_beside_its_origin(two):
    """Record 20 never happens: the fork is B, its origin A, and they agree up to there."""
    two.fork_at.value = 20
    press(two, "fork_button")
    a, b = two.choose_a.value, two.choose_b.value
    assert (a.name, b.name) == ("run 2", "run 3")
    assert b.run.trace[:20] == a.run.trace[:20]
    assert "B is A forked at record 20 with <code>drop=True</code>" in two.differ.value
    assert b.line.endswith(".fork(20, drop=True)")


def test_a_forks_line_makes_the_fork(two):
    """What is shown for a fork can be run in a cell."""
    two.fork_at.value = 12
    press(two, "fork_button")
    cell = {"pk": pk}
    exec(two.kept[-1].line, cell)
    assert cell["run"].trace.digest() == two.run.trace.digest()


@pytest.mark.parametrize(
    ("choice", "value", "call"),
    [
        (1, 700, ".fork(9, delay=700)"),
        (2, None, ".fork(9, look_again=True)"),
        (3, 2, ".fork(9, budget=2)"),
        (4, None, ".fork(9, full_rule='whole ring')"),
    ],
)
def test_every_edit_can_be_made(two, choice, value, call):
    """Each entry of the list is a fork; only those with a value let one be typed."""
    two.fork_at.value, two.fork_edit.index = 9, choice
    assert two.fork_value.disabled == (value is None)
    if value is not None:
        two.fork_value.value = value
    press(two, "fork_button")
    assert two.kept[-1].line.endswith(call)


def test_a_fault_of_the_deck_is_injected(two):
    """Each fault that this run has records for is in the list; its line makes the same run."""
    labels = [label for label, _ in two.fork_edit.options]
    assert "fault: lost IPI" in labels and "fault: lost device interrupt" not in labels
    arrived = two.run.trace.next(IpiArrived).seq
    two.fork_at.value, two.fork_edit.index = arrived, labels.index("fault: lost IPI")
    assert two.fork_value.disabled
    assert "is sent and never arrives" in two.fork_says.value
    press(two, "fork_button")
    assert two.kept[-1].line.endswith(f".inject('lost IPI', at={arrived})")
    assert type(two.run.trace.event(arrived)) is IpiLost
    cell = {"pk": pk}
    exec(two.kept[-1].line, cell)
    assert cell["run"].trace.digest() == two.run.trace.digest()


def test_a_fault_that_is_not_possible_here_says_where(two):
    """Before the button is pressed, and after."""
    labels = [label for label, _ in two.fork_edit.options]
    two.fork_at.value, two.fork_edit.index = 3, labels.index("fault: lost IPI")
    assert "is not possible at record 3" in two.fork_says.value
    press(two, "fork_button")
    assert "the nearest place is record" in two.message.value


def test_a_chosen_fault_that_the_next_run_lacks_is_let_go(two):
    """A run in which nothing is sent has fewer faults to offer."""
    two.fork_edit.index = len(two.fork_edit.options) - 1
    two.controls["messages"].value = 0
    press(two, "run_button")
    assert two.fork_edit.index == 0


def test_the_record_to_fork_at_is_read_out(two):
    """The sentence of the chosen record stands below the fork row."""
    two.fork_at.value = 5
    assert str(two.run.trace.event(5)) in two.fork_says.value


def test_a_fork_before_any_run_is_a_sentence():
    """Nothing to fork: the panel says to run first."""
    shown = panel()
    press(shown, "fork_button")
    assert "press Run first" in shown.message.value


def test_a_fork_record_stays_within_the_run(two):
    """The number cannot exceed the run that the player shows."""
    two.fork_at.value = 10**6
    assert two.fork_at.value == len(two.run.trace) - 1


# -- memory and text ------------------------------------------------------------------------------


def test_widgets_do_not_pile_up(two):
    """Run after run the number of live widgets stays the same."""
    press(two)
    before = len(_instances)
    for _ in range(3):
        press(two)
    assert len(_instances) == before


def test_without_a_kernel_the_line_remains():
    """The plain text of the output, for a saved page, says how to do without the panel."""
    bundle = panel(seed=5)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "run = pk.scenarios.fan_in(seed=5)" in bundle["text/plain"]


def test_texts_are_escaped():
    """What comes from a learner's story is text in the panel, never markup."""

    def my_receive(world, me):
        raise ValueError("<img src=x>")
        yield

    shown = panel(receive=my_receive)
    press(shown)
    assert "&lt;img" in shown.message.value and "<img" not in shown.message.value


def test_pressing_run_prints_nothing(capfd, two):
    """Neither stdout nor stderr: a cell that shows a panel has the panel as its only output."""
    press(two)
    press(two, "fork_button")
    assert tuple(capfd.readouterr()) == ("", "")

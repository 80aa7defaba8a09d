"""The panel: change what a run is made of, run it again, keep both, compare them.

    >>> panel("fan_in", kernels=8, look_again=False)                         # doctest: +SKIP

Stepping through a run needs no Python (player.py); making another one does, and that is all the
panel is for. It is a layer of ipywidgets over ``scenarios.run``: every setting is an argument of
the scenario, every button a line of Python that the panel shows. So nothing depends on the
panel: copy the line, and a cell of your own makes the same run.

Words
    kept     a run that the panel still has; the newest few are kept
    A, B     the two kept runs that are compared; the player shows one of them
    control  the widget for one argument of the scenario

A press of Run should be answered within two seconds, so the panel caps how many messages it
lets a run have, and says so when it does. The line of Python has no cap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from html import escape
from importlib import resources
from typing import NamedTuple

import ipywidgets
import traitlets

from popcorn_edu import faults, scenarios
from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.engine.world import Run
from popcorn_edu.model.bootplan import FAILURES
from popcorn_edu.model.machine import Machine
from popcorn_edu.model.messaging import (
    BOTTOM_HALVES,
    FULL_RULES,
    GENERATIONS,
    INTERRUPT_RULES,
    KERNELS_AT_MOST,
    LONG_RULES,
    MITIGATIONS,
)
from popcorn_edu.model.multicast import LOCKS
from popcorn_edu.readers import checks, figures, player

MESSAGES_AT_MOST = 2_000  # of all senders together: about 17,000 records, made and shown in 1 s
RUNS_KEPT = 8
NUMBER_AT_MOST = 2**31 - 1
FOCUS = """<script>{
  const host = document.currentScript.previousElementSibling;
  Promise.resolve(host.ready).then(() => (host.focus(), host.scrollIntoView({ block: "nearest" })));
}</script>"""  # after a player's own block: it takes the keyboard
NOBODY = ""  # what the list for B has chosen when only A is looked at


# -- controls: one for each argument of a scenario -------------------------------------------------


class Control(NamedTuple):
    """How one argument of a scenario is set: its label, what it means, and its widget."""

    label: str
    meaning: str
    make: Callable[..., ipywidgets.DOMWidget]


class Number(ipywidgets.IntText):
    """A whole number within limits, which tells ``on_given(number, wanted)`` what was wanted.

    A BoundedIntText would hold the number to its limits in the browser, and in silence.
    """

    def __init__(self, low: int, high: int, **options) -> None:
        self.min, self.max = low, high
        self.on_given: Callable[[Number, int], None] = lambda number, wanted: None
        super().__init__(low, **options)

    @traitlets.validate("value")
    def _within(self, proposal: dict) -> int:
        wanted = proposal["value"]
        self.on_given(self, wanted)
        return max(self.min, min(wanted, self.max))


def _number(low: int, high: int, step: int = 1) -> Callable:
    return lambda **options: Number(low, high, step=step, **options)


def _choice(options: Callable[[], tuple]) -> Callable:
    return lambda **rest: ipywidgets.Dropdown(options=options(), **rest)


def _optional(**options):
    return ipywidgets.Text(placeholder="none", **options)


def _check(**options):
    return ipywidgets.Checkbox(indent=False, **options)


CONTROLS = {
    "machine": Control(
        "machine", "The real machine whose distances between CPUs the run uses.",
        _choice(Machine.names),
    ),
    "kernels": Control(
        "kernels", "How many kernels, each on a CPU of its own. In fan_in kernel 0 receives.",
        _number(2, KERNELS_AT_MOST),
    ),
    "messages": Control(
        "messages each", "How many messages each sender sends.", _number(0, MESSAGES_AT_MOST),
    ),
    "rounds": Control("rounds", "How many questions and answers.", _number(0, MESSAGES_AT_MOST)),
    "gap_ns": Control(
        "mean gap (ns)",
        "The load: how long a sender thinks between two messages, on average. Less is more load.",
        _number(0, 1_000_000, 100),
    ),
    "high_every": Control(
        "HIGH every", "Every how many messages one has priority HIGH; 0 means none has.",
        _number(0, MESSAGES_AT_MOST),
    ),
    "slots": Control("ring slots", "How many messages fit in a ring. Popcorn has 64.",
                     _number(1, 4_096)),
    "budget": Control(
        "poll budget", "How many messages a poll reads before it starts over. Popcorn has 128.",
        _number(1, 4_096),
    ),
    "full_rule": Control(
        "full means",
        "When a sender must wait: own slot: its slot is not free. whole ring, as coded in "
        "Popcorn: more tickets are out than there are slots. sleep: it waits asleep (G2). "
        "refuse: it gets an error and does not wait.",
        _choice(lambda: FULL_RULES),
    ),
    "generation": Control(
        "generation",
        "The choices of a generation of Popcorn: G1 as coded, G1 fixed (the kit's), G2, or the "
        "multikernel patches of 2025. A setting that is not at its usual value wins over it.",
        _choice(lambda: tuple(GENERATIONS)),
    ),
    "mitigation": Control(
        "how to receive",
        "poll until empty: interrupt, then look until nothing is left (Popcorn). interrupt only, "
        "poll only, adaptive: the other policies.",
        _choice(lambda: MITIGATIONS),
    ),
    "poll_every_ns": Control(
        "a look every (ns)", "How often a kernel that only polls looks into its ring.",
        _number(1, 1_000_000, 100),
    ),
    "interrupt_rule": Control(
        "interrupt", "when asked: if int_enabled is 1. always: for every message.",
        _choice(lambda: INTERRUPT_RULES),
    ),
    "bottom_half": Control(
        "bottom half", "What the interrupt starts: a softirq (G1), or a workqueue (G2), which "
        "takes longer to start.",
        _choice(lambda: BOTTOM_HALVES),
    ),
    "size_bytes": Control(
        "bytes", "How long the message is. A page has 4,096 bytes; 7,620 are the most.",
        _number(0, 7_620),
    ),
    "at_once": Control(
        "at once", "How many processes of kernel 1 send such a message at the same time.",
        _number(1, 8),
    ),
    "long_rule": Control(
        "chunks are told apart", "numbered: by the message's number (G2). per sender: by who sent "
        "them, and nothing else (G1 as coded).",
        _choice(lambda: LONG_RULES),
    ),
    "payload_bytes": Control(
        "bytes in a slot", "What fits into one slot: 60 in G1, 115 in G2.", _number(1, 4_096),
    ),
    "periods": Control(
        "periods", "For how many periods of 100 ms each kernel says that it is there.",
        _number(1, 100),
    ),
    "dies_ns": Control("dies after (ns)", "When the victim panics.", _number(0, 1_000_000_000)),
    "waits": Control(
        "wait until it is mapped", "The kernel thread that maps the window sends the answer.",
        _check,
    ),
    "late": Control(
        "the service comes first", "It is there before anybody is interested in it.", _check,
    ),
    "double": Control("offered twice", "Another kernel offers the same service.", _check),
    "dies": Control(
        "its owner dies", "The owner panics instead of withdrawing its service.", _check,
    ),
    "openers": Control(
        "openers", "How many kernels open a multicast channel at the same time.", _number(1, 2),
    ),
    "lock": Control(
        "lock", "as coded: there is none, and two openers can get one channel. real: there is.",
        _choice(lambda: LOCKS),
    ),
    "removed": Control(
        "remove the dead", "The owner takes a dead member out of the channel.", _check,
    ),
    "failure": Control(
        "goes wrong", "What goes wrong in this boot. Empty: nothing.",
        _choice(lambda: tuple(FAILURES)),
    ),
    "fails": Control("for kernel", "The kernel for which it goes wrong.",
                     _number(1, KERNELS_AT_MOST - 1)),
    "parallel": Control(
        "boot all kernels at once",
        "All boots share one boot_params page, so they must be serial. See what happens otherwise.",
        _check,
    ),
    "scan": Control("look for devices", "Each new kernel scans the PCI buses.", _check),
    "anyway": Control(
        "boot a plan with problems",
        "A plan that is given may have problems: boot it all the same.", _check,
    ),
    "secondary": Control(
        "asking kernel", "The kernel that reads through kernel 0, which owns the disk.",
        _number(1, KERNELS_AT_MOST - 1),
    ),
    "blocks": Control("blocks", "How many blocks each of the two reads.", _number(1, 1_000)),
    "interrupt_to": Control(
        "disk interrupts CPU", "The CPU that the disk interrupts. Empty: its owner's.", _optional,
    ),
    "seed": Control("seed", "Who sends when. The same seed gives the same run.",
                    _number(0, NUMBER_AT_MOST)),
    "schedule_seed": Control(
        "schedule seed",
        "Shuffles what happens at the same time. Empty: the fixed order of actors.", _optional,
    ),
    "look_again": Control(
        "look again after re-enabling interrupts",
        "The receiver's second look into its ring. Popcorn's first version has none and can "
        "leave a message behind.", _check,
    ),
}  # fmt: skip


def panel(scenario: str = "fan_in", **defaults) -> Panel:
    """A box of controls for a scenario; keywords are its arguments and set the controls.

    Arguments without a control (``receive=my_receive``, ``cpus=...``) are passed on as they are.
    ``panel.run`` is the run in the player, ``panel.runs`` are all that are kept, and
    ``panel.python`` is the line that makes the next one.
    """
    return Panel(scenario, defaults)


# -- a kept run -----------------------------------------------------------------------------------


class Kept:
    """A run with how it was made; what the panel says of it is worked out once."""

    def __init__(
        self, name: str, run: Run, settings: dict, made: str, line: str, forks: tuple = ()
    ) -> None:
        self.name, self.run, self.settings, self.made, self.line = name, run, settings, made, line
        self.forks = forks  # (record, edit as it is written), one for each fork on the way here

    @property
    def label(self) -> str:
        return f"{self.name}: {self.made}"

    @cached_property
    def findings(self) -> list[checks.Finding]:
        return checks.all(self.run)

    @cached_property
    def summary(self) -> dict:
        return figures.summary(self.run)


# -- the panel ------------------------------------------------------------------------------------


class Panel(ipywidgets.VBox):
    """The controls, the runs that are kept, and their comparison. Made by ``panel()``."""

    def __init__(self, scenario: str, defaults: dict) -> None:
        known = scenarios.options(scenario)
        for name in defaults:
            if name not in known:
                raise PopcornError(
                    f"scenario {scenario} has no option {name!r}; {near_names(name, known)}"
                )
        self.scenario, self._known = scenario, known
        self.kept: list[Kept] = []
        self._count, self._quiet = 0, False
        self._held: dict[str, str] = {}  # control -> that what was wanted is beyond its limit
        start = known | defaults
        self.controls = {name: _control(name, start[name]) for name in CONTROLS if name in known}
        self._passed_on = {name: defaults[name] for name in defaults if name not in self.controls}
        super().__init__()
        self._build()
        self.add_class("pk-panel")
        for control in self.controls.values():
            control.observe(lambda change: self._show_line(), "value")
            if isinstance(control, Number):
                control.on_given = self._hold
        self._show_line()
        self._refresh()

    # what Python reads

    @property
    def run(self) -> Run:
        """The run that the player shows."""
        if self._shown() is None:
            raise PopcornError(f"this panel has no run yet: press Run, or write {self.python}")
        return self._shown().run

    @property
    def runs(self) -> list[Run]:
        """The runs that are kept, the newest last."""
        return [kept.run for kept in self.kept]

    @property
    def python(self) -> str:
        """The line of Python that makes the run which these settings describe."""
        try:
            return self._line(self.settings())
        except PopcornError:
            return f"run = pk.scenarios.{self.scenario}()"

    def settings(self) -> dict:
        """The scenario's arguments as the controls have them."""
        return {name: _value(name, control) for name, control in self.controls.items()}

    def _line(self, settings: dict) -> str:
        given = {
            name: value
            for name, value in settings.items()
            if name == "seed" or value != self._known[name]
        } | self._passed_on
        inside = ", ".join(f"{name}={_source(value)}" for name, value in given.items())
        return f"run = pk.scenarios.{self.scenario}({inside})"

    # how it is built

    def _build(self) -> None:
        button = ipywidgets.Button
        self.run_button = button(
            description="Run", button_style="primary",
            tooltip="Run the scenario with these settings and keep the run",
        )  # fmt: skip
        self.line = ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self.choose_a = _dropdown("A", "The first of the two runs that are compared")
        self.choose_b = _dropdown("B", "The second of the two runs that are compared")
        self.shown = ipywidgets.ToggleButtons(
            options=["A", "B"], description="player shows", tooltips=["Step through run A",
            "Step through run B"], tooltip="Which of the two runs the player below shows",
        )  # fmt: skip
        self.differ, self.table = ipywidgets.HTML(), ipywidgets.HTML()
        self.findings = ipywidgets.VBox()
        self.charts, self.player, self._page = (ipywidgets.Output() for _ in range(3))
        self.fork_at = ipywidgets.BoundedIntText(
            description="fork at record", min=0, max=0,
            tooltip="The number of the record at which the fork makes its one edit",
        )  # fmt: skip
        self.fork_edit = _dropdown("what if", "The fork's one edit")
        self.fork_value = ipywidgets.BoundedIntText(
            description="by", min=1, max=1_000_000_000, value=1_000, disabled=True,
            tooltip="By how many nanoseconds, or the setting's new value",
        )  # fmt: skip
        self.fork_button = button(
            description="Fork",
            tooltip="Replay up to that record, make the edit, go on, and keep the fork as a run",
        )  # fmt: skip
        self.fork_says = ipywidgets.HTML()
        self._results = ipywidgets.VBox(
            [
                self._row(self.choose_a, self.choose_b, self.shown), self.differ,
                self._row(self.table, self.findings), self.charts, self.player,
                _html("<h4>Fork: what if one thing had gone differently?</h4>"),
                self._row(self.fork_at, self.fork_edit, self.fork_value, self.fork_button),
                self.fork_says,
            ]
        )  # fmt: skip
        self.findings.add_class("pk-findings")
        grid = ipywidgets.Box(list(self.controls.values()))
        grid.add_class("pk-controls")
        self.children = [
            self._page, _html(f"<style>{_text('panel.css')}</style>"),
            _html(f"<h3>{escape(self.scenario)}: change it, run it, compare</h3>"),
            grid, self._meanings(),
            self._row(self.run_button, self.line), self.message, self._results,
        ]  # fmt: skip
        self.message.add_class("pk-message")
        self.differ.add_class("pk-differ")
        self.line.add_class("pk-line")
        self._page.add_class("pk-page")
        self._page.outputs = _output(f"<script>{_text('panel.js')}</script>")
        self.run_button.on_click(lambda _: self._attempt(self._make))
        self.fork_button.on_click(lambda _: self._attempt(self._fork))
        for chooser in (self.choose_a, self.choose_b):
            chooser.observe(lambda change: self._refresh(), "value")
        self.shown.observe(lambda change: self._show_player(), "value")
        for part in (self.fork_at, self.fork_edit):
            part.observe(lambda change: self._show_fork(), "value")

    def _row(self, *children) -> ipywidgets.Box:
        row = ipywidgets.HBox(children)
        row.add_class("pk-row")
        return row

    def _meanings(self) -> ipywidgets.HTML:
        rows = "".join(
            f"<dt>{escape(CONTROLS[name].label)}</dt><dd>{escape(CONTROLS[name].meaning)} "
            f"<code>{name}=</code></dd>"
            for name in self.controls
        )
        return _html(f"<details><summary>What the settings mean</summary><dl>{rows}</dl></details>")

    def _repr_mimebundle_(self, **options):
        """Beside the widget: a sentence for where no kernel is (a saved page, a preview)."""
        bundle = super()._repr_mimebundle_(**options)
        text = f"A panel: run this cell to use it. The same in Python: {self.python}"
        return bundle | {"text/plain": text}

    # what the buttons do

    def _attempt(self, act: Callable[[], None]) -> None:
        """Do it; a mistake is answered with its sentence, in the panel."""
        self._say("Running …")
        try:
            act()
        except PopcornError as mistake:
            self._say(str(mistake), "wrong")

    def _say(self, text: str, tone: str = "") -> None:
        self.message.value = f'<div class="{tone}">{escape(text)}</div>'

    def _make(self) -> None:
        """Run the scenario with the settings, and keep the run."""
        capped = "".join(self._held.values()) + self._cap()
        self._held.clear()
        settings = self.settings()
        run = scenarios.run(self.scenario, **settings, **self._passed_on)
        changed = [
            f"{name}={_source(value)}"
            for name, value in settings.items()
            if value != self._known[name] or name == "seed"
        ]
        kept = Kept(self._next_name(), run, settings, ", ".join(changed), self._line(settings))
        self._keep(kept)
        says = f"{capped}{kept.name} is kept: {len(run.trace):,} records."
        self._say(says, "capped" if capped else "")

    def _hold(self, control: Number, wanted: int) -> None:
        """Say at once, and again with the next run, that a number was held to its limit."""
        label = control.description
        before = self._held.pop(label, "")
        low, high = control.min, control.max
        if not low <= wanted <= high:
            limit = f"the least, {low:,}" if wanted < low else f"the most, {high:,}"
            self._held[label] = f"{label}: {wanted:,} is not possible, so it is {limit}. "
        if before or self._held.get(label):
            self._say("".join(self._held.values()), "capped")

    def _cap(self) -> str:
        """Hold the number of messages to what can be shown at once; say so if it was more."""
        control = self.controls.get("messages") or self.controls.get("rounds")
        if control is None:
            return ""
        senders = max(1, self.controls["kernels"].value - 1) if "kernels" in self.controls else 2
        most = MESSAGES_AT_MOST // senders
        if control.value <= most:
            return ""
        wanted, control.value = control.value, most
        return (
            f"{wanted:,} messages from each of {senders} senders are more than the panel can show "
            f"at once ({MESSAGES_AT_MOST:,}), so each sends {most:,}; a line of Python has no cap. "
        )

    def _fork(self) -> None:
        """Replay the run in the player up to a record, make one edit, keep what comes of it."""
        origin = self._shown()
        if origin is None:
            raise PopcornError("There is nothing to fork yet: press Run first.")
        at, (edit, value) = self.fork_at.value, self._edit()
        if edit == "fault":
            run, call = origin.run.inject(value, at=at), f".inject({_source(value)}, at={at})"
        else:
            run = origin.run.fork(at, **{edit: value})
            call = f".fork({at}, {edit}={_source(value)})"
        kept = Kept(
            self._next_name(), run, origin.settings, f"{origin.name}{call}", origin.line + call,
            (*origin.forks, (at, f"{edit}={_source(value)}")),
        )  # fmt: skip
        self._keep(kept, before=origin, at=min(at, len(run.trace) - 1))
        length = len(run.trace)
        self._say(f"{kept.name} is kept: {length:,} records, the first {at:,} as in {origin.name}.")

    def _next_name(self) -> str:
        self._count += 1
        return f"run {self._count}"

    def _keep(self, kept: Kept, before: Kept | None = None, at: int | None = None) -> None:
        """The new run becomes B; A is the run it is a fork of, or else the newest one before."""
        if before is None and self.kept:
            before = self.kept[-1]
        self.kept.append(kept)
        if len(self.kept) > RUNS_KEPT:
            self.kept.remove(next(old for old in self.kept if old is not before))
        a, b = (kept, NOBODY) if before is None else (before, kept)
        options = [(kept.label, kept) for kept in self.kept]
        self._quiet = True
        self.choose_a.options, self.choose_a.value = options, a
        self.choose_b.options, self.choose_b.value = [("none", NOBODY), *options], b
        self.shown.value = "A" if b is NOBODY else "B"
        self._quiet = False
        self._refresh(at)

    # what is shown

    def _pair(self) -> dict[str, Kept]:
        """A and B, or A alone."""
        a, b = self.choose_a.value, self.choose_b.value
        if a is None:
            return {}
        return {"A": a} if b in (a, NOBODY) else {"A": a, "B": b}

    def _shown(self) -> Kept | None:
        pair = self._pair()
        return pair.get(self.shown.value) or pair.get("A")

    def _refresh(self, at: int | None = None) -> None:
        if self._quiet:
            return
        pair = self._pair()
        self.shown.disabled = len(pair) < 2
        self._results.layout.display = "" if pair else "none"
        if not pair:
            self._say("Press Run to make the first run.")
            return
        self.differ.value, self.table.value = _difference(pair), _comparison(pair)
        self._show_findings(pair)
        self._show_player(at)
        runs = {name: kept.run for name, kept in pair.items()}
        charts = figures.show(*runs.values(), names=tuple(runs))
        if len(self._page.outputs) == 1:  # BokehJS comes with the first chart
            self._page.outputs += _output(figures.library_only())
        _show_in(self.charts, charts.html(library=False, place=self.model_id), repr(charts))

    def _show_line(self) -> None:
        try:
            line = self._line(self.settings())
        except PopcornError as mistake:
            line = f"# {mistake}"
        self.line.value = (
            f'<span>The same in Python:</span> <code tabindex="0">{escape(line)}</code>'
        )

    def _show_findings(self, pair: dict[str, Kept]) -> None:
        """Each broken rule as a sentence, with a button that opens the player there."""
        old, rows = self.findings.children, []
        for name, kept in pair.items():
            for finding in kept.findings:
                rule = finding.check.replace("_", " ")
                show = ipywidgets.Button(
                    description=f"{name}: show record {finding.seq}",
                    tooltip=f"Open the player at record {finding.seq} of run {name}",
                )
                show.on_click(lambda _, name=name, at=finding.seq: self.show_record(name, at))
                says = _html(f"<b>{escape(rule)}</b> does not hold: {escape(finding.sentence)}")
                says.add_class("pk-finding")
                rows.append(self._row(show, says))
            if not kept.findings:
                rows.append(_html(f"{name}: all {len(checks.ALL)} rules hold."))
        self.findings.children = rows
        for row in old:
            _close(row)

    def show_record(self, name: str, at: int) -> None:
        """Open the player at a record of run A or B."""
        self._quiet, self.shown.value = True, name
        self._quiet = False
        self._show_player(at, focus=True)
        self._say(f"The player below shows {self._shown().name} at record {at:,}.")

    def _show_player(self, at: int | None = None, focus: bool = False) -> None:
        kept = self._shown()
        if self._quiet or kept is None:
            return
        name = next(name for name, shown in self._pair().items() if shown is kept)
        title = f"{name}, {kept.name}: {self.scenario} with {kept.made}"
        shown = player.play(kept.run, at=at, title=title)
        _show_in(self.player, shown.html() + FOCUS * focus, repr(shown))
        self._offer_forks(kept, at)

    def _offer_forks(self, kept: Kept, at: int | None) -> None:
        setup = kept.run.setup
        other, look = next(r for r in FULL_RULES if r != setup.full_rule), not setup.look_again
        options = [
            ("this record never happens", ("drop", True)),
            ("its actor is held up (ns)", ("delay", None)),
            (f"look_again is {look} from here on", ("look_again", look)),
            ("the poll budget is, from here on", ("budget", None)),
            (f"full means {other} from here on", ("full_rule", other)),
            *((f"fault: {name}", ("fault", name)) for name in faults.of(kept.run)),
        ]
        chosen = self.fork_edit.index or 0
        chosen = chosen if chosen < len(options) else 0  # this run may have fewer faults
        self._quiet = True
        self.fork_edit.options, self.fork_edit.index = options, chosen
        self.fork_at.max = max(0, len(kept.run.trace) - 1)
        if at is not None:
            self.fork_at.value = at
        self._quiet = False
        self._show_fork()

    def _edit(self) -> tuple[str, object]:
        edit, value = self.fork_edit.value
        return edit, self.fork_value.value if value is None else value

    def _show_fork(self) -> None:
        kept = self._shown()
        if self._quiet or kept is None or not len(kept.run.trace):
            return
        self.fork_value.disabled = self.fork_edit.value[1] is not None
        record = kept.run.trace[self.fork_at.value]
        self.fork_says.value = (
            f"Record {record.seq} of {kept.name}, {record.time:,} ns, {escape(record.who)}: "
            f"{escape(str(record.event))}.{self._fault_says(kept.run, record.seq)}"
        )

    def _fault_says(self, run: Run, n: int) -> str:
        """What the chosen fault is, or that it cannot happen at this record."""
        edit, name = self.fork_edit.value
        if edit != "fault":
            return ""
        sentence = faults.not_here(run, name, n) or f"{name}: {faults.DECK[name].models}"
        return f" <i>{escape(sentence)}.</i>"


# -- the comparison, as a table -------------------------------------------------------------------

ROWS = (  # what a row is called, which measure it shows
    ("messages sent", "sent"),
    ("messages delivered", "delivered"),
    ("IPIs sent", "ipis"),
    ("interrupts taken", "interrupts"),
    ("IPIs per message", "ipis_per_message"),
    ("latency, half within (ns)", "p50_ns"),
    ("latency, 99 % within (ns)", "p99_ns"),
    ("slots in use at most", "in_use_at_most"),
    ("tickets held at most", "held_at_most"),
    ("records", "records"),
    ("simulated time (ns)", "end_ns"),
)


def _comparison(pair: dict[str, Kept]) -> str:
    """A column for each run, and one for what changed from A to B."""
    values = [kept.summary for kept in pair.values()]
    head = "".join(
        f'<th scope="col">{name}<small>{escape(kept.label)}</small></th>'
        for name, kept in pair.items()
    )
    if len(pair) == 2:
        head += '<th scope="col">from A to B</th>'
    body = "".join(
        f'<tr><th scope="row">{label}</th>'
        + "".join(f"<td>{figures.show_value(value[key])}</td>" for value in values)
        + (f"<td>{_change(*(value[key] for value in values))}</td>" if len(pair) == 2 else "")
        + "</tr>"
        for label, key in ROWS
    )
    broken = [len(kept.findings) for kept in pair.values()]
    cells = "".join(
        f'<td class="{"wrong" if count else "right"}">{count or "none"}</td>' for count in broken
    )
    if len(pair) == 2:
        cells += f"<td>{_change(*broken)}</td>"
    body += f'<tr><th scope="row">rules broken</th>{cells}</tr>'
    return (
        f'<div class="pk-compare"><table><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _difference(pair: dict[str, Kept]) -> str:
    """In a sentence, how B was made differently from A."""
    if len(pair) == 1:
        return "Change a setting and run again: the two runs then stand side by side."
    a, b = pair.values()
    if a.settings == b.settings and a.forks == b.forks:
        return "A and B have the same settings, so they are the same run, record for record."
    if a.settings == b.settings and a.forks == b.forks[:-1]:
        at, edit = b.forks[-1]
        edit = f"<code>{escape(edit)}</code>"
        return f"B is A forked at record {at:,} with {edit}; up to there they are the same."
    differ = [
        f"{name} ({_source(a.settings[name])} → {_source(b.settings[name])})"
        for name in a.settings
        if a.settings[name] != b.settings[name]
    ]
    if a.forks != b.forks:
        differ.append("forks")
    return f"B differs from A in {escape(', '.join(differ))}."


def _change(a, b) -> str:
    if a is None or b is None:
        return ""
    if a == b:
        return "same"
    change = f"{b - a:+,.2f}" if isinstance(b - a, float) else f"{b - a:+,}"
    return change.replace("-", "−")


# -- widgets --------------------------------------------------------------------------------------


def _control(name: str, value: object) -> ipywidgets.DOMWidget:
    """The widget for an argument, set to its value; a value that it cannot hold is refused."""
    label, meaning, make = CONTROLS[name]
    tooltip = f"{meaning} ({name}=)"
    widget = make(description=label, tooltip=tooltip)
    if name == "machine" and isinstance(value, Machine):
        widget.options = [*((known, known) for known in widget.options), (value.name, value)]
    if isinstance(widget, Number):
        fits = type(value) is int and widget.min <= value <= widget.max
        expected = f"expected a whole number from {widget.min} to {widget.max}"
    elif isinstance(widget, ipywidgets.Checkbox):
        fits, expected = type(value) is bool, "expected True or False"
    elif isinstance(widget, ipywidgets.Dropdown):
        choices = [choice[1] if isinstance(choice, tuple) else choice for choice in widget.options]
        fits, expected = value in choices, near_names(value, filter(_is_text, choices))
    else:
        fits, expected, value = True, "", "" if value is None else str(value)
    if not fits:
        raise PopcornError(f"{name}={value!r}: {expected}")
    widget.value = value
    return widget


def _is_text(choice: object) -> bool:
    return isinstance(choice, str)


def _value(name: str, widget: ipywidgets.DOMWidget) -> object:
    if not isinstance(widget, ipywidgets.Text):
        return widget.value
    text = widget.value.strip()
    if text in ("", "None"):
        return None
    try:
        return int(text)
    except ValueError:
        raise PopcornError(f"{name}={text!r}: expected a whole number, or nothing") from None


def _source(value: object) -> str:
    """A value as it is written in Python; a story or a machine of one's own by its name."""
    if isinstance(value, Machine):
        return "machine"
    return getattr(value, "__name__", None) or repr(value)


def _dropdown(description: str, tooltip: str) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(description=description, tooltip=tooltip)


def _html(value: str) -> ipywidgets.HTML:
    return ipywidgets.HTML(value)


def _output(html: str, text: str = "") -> tuple[dict]:
    data = {"text/html": html, "text/plain": text}
    return ({"output_type": "display_data", "data": data, "metadata": {}},)


def _show_in(output: ipywidgets.Output, html: str, text: str) -> None:
    """Show this and nothing else; scripts run here, which they would not in an HTML widget."""
    output.outputs = _output(html, text)


def _close(widget: ipywidgets.DOMWidget) -> None:
    """Close a widget with all that belongs to it, so that neither side keeps it in memory."""
    for child in getattr(widget, "children", ()):
        _close(child)
    for part in (getattr(widget, "style", None), widget.layout, widget):
        if part is not None:
            part.close()


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("panel_page", name).read_text(encoding="utf-8")

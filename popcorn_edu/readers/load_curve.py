"""The load/latency curve with a slider: what a budget and a policy do to a kernel under load.

    >>> load_curve()                                                         # doctest: +SKIP

Eight loads, from light to heavy, are measured anew whenever the slider moves. With numba (the extra
``fast``) that is 100,000 messages; without it the curve has fewer, is rougher, and says so. The
numbers are in ``curve.rows`` too, for whoever cannot see the picture or has no widget.
"""

from __future__ import annotations

from importlib.util import find_spec

from popcorn_edu import scenarios
from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model import flat
from popcorn_edu.readers import figures

GAPS_NS = (32_000, 16_000, 8_000, 6_000, 4_000, 3_000, 2_000, 1_500)
MESSAGES = {"numba": 100_000, "lists": 4_000}  # in all: what is drawn at once
POLICIES = {"NAPI": True, "Popcorn G1": False}  # the second look
BUDGETS = tuple(2**n for n in range(9))


class LoadCurve:
    """``move(budget=, policy=)`` measures and draws; the slider does the same."""

    def __init__(self, kernels: int = 5, seed: int = 0, messages: int | None = None) -> None:
        self.engine = "numba" if find_spec("numba") else "lists"
        total = MESSAGES[self.engine] if messages is None else messages
        if type(total) is not int or total < len(GAPS_NS) * kernels:
            raise PopcornError(f"messages={messages!r}: expected a whole number of some hundreds")
        self.kernels, self.seed = kernels, seed
        self.each = total // len(GAPS_NS) // (kernels - 1)
        self.budget, self.policy = 128, "NAPI"
        self.rows: list[dict] = []
        self.move()

    def move(self, budget: int | None = None, policy: str | None = None) -> list[dict]:
        """Measure all loads with this budget and policy; answers the rows."""
        budget = self.budget if budget is None else budget
        policy = self.policy if policy is None else policy
        if policy not in POLICIES:
            raise PopcornError(f"policy={policy!r}: {near_names(str(policy), POLICIES)}")
        with flat.played_by(self.engine):
            rows = [
                {"gap_ns": gap_ns}
                | scenarios.measure(
                    "fan_in", kernels=self.kernels, messages=self.each, gap_ns=gap_ns,
                    seed=self.seed, budget=budget, look_again=POLICIES[policy],
                )
                for gap_ns in GAPS_NS
            ]  # fmt: skip
        self.budget, self.policy, self.rows = budget, policy, rows
        return rows

    def chart(self) -> figures.Charts:
        """The curve, with its table: p50 and p99 over how many messages a millisecond come."""
        senders = self.kernels - 1
        drawn = {
            name: [
                (1_000_000 * senders // row["gap_ns"], row[name], n)
                for n, row in enumerate(self.rows)
            ]
            for name in ("p50_ns", "p99_ns")
        }
        return figures.sweep_chart(drawn, "messages a ms", "latency (ns)", None, self.call)

    def call(self, n: int) -> str:
        """What makes the run of that point."""
        return (
            f"pk.scenarios.fan_in(kernels={self.kernels}, messages={self.each}, "
            f"gap_ns={self.rows[n]['gap_ns']}, seed={self.seed}, budget={self.budget}, "
            f"look_again={POLICIES[self.policy]})"
        )

    def _ipython_display_(self) -> None:
        import ipywidgets
        from IPython.display import display

        budget = ipywidgets.SelectionSlider(
            options=BUDGETS, value=self.budget, description="budget",
            tooltip="how many messages a poll reads before it starts over",
        )  # fmt: skip
        policy = ipywidgets.Dropdown(
            options=list(POLICIES),
            value=self.policy,
            description="policy",
            tooltip="NAPI looks once more after int_enabled = 1; Popcorn G1 does not",
        )
        said, picture = ipywidgets.HTML(), ipywidgets.Output()

        def draw(*_) -> None:
            self.move(budget.value, policy.value)
            count = sum(row["delivered"] for row in self.rows)
            how = "" if self.engine == "numba" else " (more, and smoother, with popcorn_edu[fast])"
            said.value = f"{count:,} messages measured{how}"
            picture.clear_output(wait=True)
            picture.append_display_data(self.chart())

        for control in (budget, policy):
            control.observe(draw, "value")
        display(ipywidgets.VBox([ipywidgets.HBox([budget, policy, said]), picture]))
        draw()

    def __repr__(self) -> str:
        return repr(self.chart())


def load_curve(kernels: int = 5, seed: int = 0, messages: int | None = None) -> LoadCurve:
    """The curve of ``kernels - 1`` senders and one receiver, ready to be shown and moved."""
    if type(kernels) is not int or not 2 <= kernels <= 48:
        raise PopcornError(f"kernels={kernels!r}: expected a whole number from 2 to 48")
    return LoadCurve(kernels, seed, messages)

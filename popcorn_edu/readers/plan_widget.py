"""The plan view: four linked pictures of one plan, each edited by keyboard, by list, or by mouse.

The page is a few blocks of HTML that Python writes (plans.py and plan_pictures.py draw them, as
they do for a page without Python) and one script that tells Python what was done: "CPU 5 to
kernel 3". Python changes the plan, checks it, and writes the blocks anew that look different now.
So every rule is in the model, and the script knows none.

Words
    action   what was done on the page: {"do": "cpus", "cpus": "5", "kernel": "3"}
    channel  the hidden field through which the page sends actions
    block    an HTML widget: the head, the problems, the four views, what a line does
    chosen   the kernel that the next click gives something to
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape

import ipywidgets

from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.model.partition import Partition
from popcorn_edu.readers import plan_pictures as pictures
from popcorn_edu.readers import plans
from popcorn_edu.readers.plan_actions import ACTIONS
from popcorn_edu.readers.plan_blocks import BLOCKS, PARTS, STATIC, VIEWS

UNDO_AT_MOST = 200
ACTION_CHARACTERS_AT_MOST = 20_000


class PlanView(ipywidgets.VBox):
    """A plan with its views. ``view.plan`` is the plan as it is now. Made by ``plans.view``."""

    def __init__(self, plan: Partition, only: str | Iterable[str] = ()) -> None:
        only = (only,) if isinstance(only, str) else tuple(only)
        for name in only:
            if name not in VIEWS:
                raise PopcornError(f"a plan has no view {name!r}; {near_names(name, VIEWS)}")
        self.views = tuple(name for name in VIEWS if not only or name in only)
        self._plan, self._past, self._future = plan, [], []
        self.chosen = min(1, len(plan.kernels) - 1)
        self.window = self._whole()
        self.address = ""
        self.line: str | None = None  # typed, and not (yet) the plan's
        self._number = 0  # of the action that is answered
        self.lines_shown = 0  # how often the field for the line was filled anew
        super().__init__()
        self.channel = ipywidgets.Text(continuous_update=True)
        self.channel.add_class("pk-channel")
        self.channel.observe(self._hear, "value")
        self.page = ipywidgets.Output()
        self.page.add_class("pk-page")
        names = ["message", "head", "problems"]
        names += [part for view in self.views for part in PARTS[view]]
        self.blocks = {name: ipywidgets.HTML() for name in names}
        for name, block in self.blocks.items():
            block.add_class(f"pk-block-{name}")
        self.children = [self.channel, *self.blocks.values(), self.page]
        self.add_class("pk-plan")
        self.add_class("pk-plans")
        script = f"<style>{plans.css()}</style><script>{plans.page_file('plans.js')}</script>"
        self.page.outputs = (
            {
                "output_type": "display_data",
                "data": {"text/html": script, "text/plain": ""},
                "metadata": {},
            },
        )
        self._refresh()

    @property
    def plan(self) -> Partition:
        """The plan as it is now: a value, which later edits leave alone."""
        return self._plan

    # where a notebook shows it

    def _ipython_display_(self) -> None:
        """The picture, which needs no Python, and then the widget, whose script hides it."""
        from IPython.display import display

        display({"text/html": self.static(), "text/plain": str(self._plan)}, raw=True)
        bundle = self._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        display(data | {"text/plain": "The plan can be edited here while a kernel runs."}, raw=True)

    def static(self) -> str:
        """The views without Python: pictures and tables."""
        plan = self._plan
        drawn = [plans.Drawn(plan.caption(), [], [plans.plan_table(plan)], wrong=plan.problems())]
        for view in self.views:
            if view != "memory" or plan.machine.ram:
                drawn.append(STATIC[view](plan))
        inside = "".join(part.html(style=not at) for at, part in enumerate(drawn))
        return f'<div class="pk-plan-static" data-view="{self.model_id}">{inside}</div>'

    # what the page says

    def _hear(self, change: dict) -> None:
        if change["new"]:
            self.act(change["new"])

    def act(self, action: str | dict) -> None:
        """Do what the page asks for; a mistake is answered with its sentence."""
        try:
            action = _action(action)
            self._number = action["n"] if type(action.get("n")) is int else 0
            name = action["do"]
            if name not in ACTIONS:
                raise PopcornError(f"there is no action {name!r}; {near_names(name, ACTIONS)}")
            said = ACTIONS[name](self, action)
        except PopcornError as mistake:
            self._say(str(mistake), "wrong")
        else:
            self._refresh()
            if said is not None:
                self._say(said)

    def _say(self, text: str, tone: str = "") -> None:
        """Answer an action, with its number, so that the page knows which one it was."""
        number = self._number
        self.blocks["message"].value = f'<div class="{tone}" data-n="{number}">{escape(text)}</div>'

    def change(self, plan: Partition, said: str) -> str:
        """Go on with this plan, and say what is different."""
        if plan == self._plan:
            return f"{said} Nothing is different."
        self._past = [*self._past, self._plan][-UNDO_AT_MOST:]
        self._future = []
        self._set(plan)
        return f"{said} {self._count()}"

    def _set(self, plan: Partition) -> None:
        self._plan = plan
        self.chosen = min(self.chosen, len(plan.kernels) - 1)
        self.forget_line()

    def forget_line(self) -> None:
        """Show the plan's own line again."""
        self.line, self.lines_shown = None, self.lines_shown + 1

    def go(self, way: str, said: str, nothing: str) -> str:
        """Back to the plan before this one, or forth again."""
        take, put = (self._past, self._future) if way == "back" else (self._future, self._past)
        if not take:
            return nothing
        put.append(self._plan)
        self._set(take.pop())
        return f"{said} {self._count()}"

    def _count(self) -> str:
        count = len(self._plan.problems())
        return "No problems." if not count else f"{count} problem{'s' * (count != 1)}."

    # the blocks

    def _refresh(self) -> None:
        """Write the blocks anew whose facts have changed."""
        for name, block in self.blocks.items():
            if name == "message":
                continue
            value = BLOCKS[name](self)
            if block.value != value:
                block.value = value

    def _whole(self) -> tuple[int, int]:
        return 0, pictures.top_of(self._plan.memory_plan) if self._plan.machine.ram else 1


def _action(action) -> dict:
    if isinstance(action, str):
        if len(action) > ACTION_CHARACTERS_AT_MOST:
            raise PopcornError(
                f"That is {len(action):,} characters; at most {ACTION_CHARACTERS_AT_MOST:,} were "
                "expected."
            )
        try:
            action = json.loads(action)
        except ValueError:
            action = None
    if not isinstance(action, dict) or not isinstance(action.get("do"), str):
        raise PopcornError("The page sent no action; one such as {'do': 'undo'} was expected.")
    return action

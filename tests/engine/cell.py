"""A notebook cell for the tests: code whose lines Python finds as it finds those of a cell."""

import itertools
import linecache
import textwrap

import popcorn_edu.model.messaging
import popcorn_edu.model.rings
from popcorn_edu.engine.steps import Begin, Delay, Until
from popcorn_edu.engine.trace import Event

STYLES = ("<ipython-input-{}-5f2e>", "/tmp/ipykernel_4711/{}.py")
_numbers = itertools.count(1)


def cell(source: str, style: str = STYLES[1]) -> dict:
    """Run the source as a cell; its names, with the model's own at hand as after an import."""
    source = textwrap.dedent(source).strip() + "\n"
    name = style.format(next(_numbers))
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    names = {"Begin": Begin, "Delay": Delay, "Until": Until, "Event": Event, "__name__": "__main__"}
    names |= vars(popcorn_edu.model.rings) | vars(popcorn_edu.model.messaging)
    exec(compile(source, name, "exec"), names)
    return names

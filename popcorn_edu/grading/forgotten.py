"""The slip that nothing else explains: a step that is made and never yielded.

``SlotReady(...)`` on a line of its own builds an event and throws it away, and ``deliver(...)``
builds a story that nobody tells. Python has no objection to either. The run then shows what was
never said, far from the line that forgot to say it; so that line is told first.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType

from popcorn_edu.engine.steps import Begin, Delay, Until, place
from popcorn_edu.engine.trace import Event


def forgotten_yield(story: Callable) -> str:
    """A sentence about the first step of the story that is not yielded, or ""."""
    try:
        return next(_slips(story), "")
    except Exception:  # no source, or none that we can read: then we have nothing to add
        return ""


def _slips(story: Callable) -> Iterator[str]:
    code = story.__code__
    tree = ast.parse(textwrap.dedent(inspect.getsource(story)))
    for statement in _in_order(tree):
        if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
            continue
        name = statement.value.func
        called = _meant(name, story)
        line = code.co_firstlineno + statement.lineno - 1
        where = place(code.co_filename, line).removeprefix(", at ").partition(": ")[0]
        if isinstance(called, type) and issubclass(called, (Event, Delay, Until, Begin)):
            yield f"{where} makes {ast.unparse(name)}(...) but does not yield it."
        elif inspect.isgeneratorfunction(called):
            yield f"{where} calls {ast.unparse(name)}(...) without 'yield from'."


def _in_order(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements, as they stand on the page."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        yield from _in_order(child)


def _meant(name: ast.expr, story: Callable) -> object:
    """What a name in the story stands for; modules are looked into, nothing else is."""
    if isinstance(name, ast.Attribute):
        owner = _meant(name.value, story)
        return getattr(owner, name.attr, None) if isinstance(owner, ModuleType) else None
    if not isinstance(name, ast.Name) or name.id in story.__code__.co_varnames:
        return None
    return story.__globals__.get(name.id)

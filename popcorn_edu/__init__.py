"""popcorn_edu: step through replicated kernels, as in Popcorn Linux.

    import popcorn_edu as pk
    run = pk.scenarios.fan_in(kernels=5, seed=3)   # kernels exchange messages
    run.play()                                     # step through what happened
    pk.checks.every_message_is_read(run)           # None, or the first record that breaks the rule

This is the front door: the names that labs use, each with the place it comes from. A name is
loaded when it is first used, so that a graded notebook that draws nothing pays for no drawing.
"""

import importlib

__version__ = "0.3.0"

# name at the front door: (module, name in it), or the module alone
_WHERE = {
    "Machine": ("popcorn_edu.model.machine", "Machine"),
    "Event": ("popcorn_edu.engine.trace", "Event"),
    "Record": ("popcorn_edu.engine.trace", "Record"),
    "Trace": ("popcorn_edu.engine.trace", "Trace"),
    "PopcornError": ("popcorn_edu.engine.trace", "PopcornError"),
    "Delay": ("popcorn_edu.engine.steps", "Delay"),
    "Until": ("popcorn_edu.engine.steps", "Until"),
    "Begin": ("popcorn_edu.engine.steps", "Begin"),
    "walk": ("popcorn_edu.engine.steps", "walk"),
    "Part": ("popcorn_edu.engine.world", "Part"),
    "World": ("popcorn_edu.engine.world", "World"),
    "Run": ("popcorn_edu.engine.world", "Run"),
    "Partition": ("popcorn_edu.model.partition", "Partition"),
    "cmdline": ("popcorn_edu.model.cmdline", None),
    "grouping": ("popcorn_edu.model.grouping", None),
    "memory": ("popcorn_edu.model.memory", None),
    "devices": ("popcorn_edu.model.devices", None),
    "boot": ("popcorn_edu.model.boot", None),
    "checks": ("popcorn_edu.readers.checks", None),
    "faults": ("popcorn_edu.faults", None),
    "figures": ("popcorn_edu.readers.figures", None),
    "panel": ("popcorn_edu.readers.panel", "panel"),
    "plans": ("popcorn_edu.readers.plans", None),
    "datasets": ("popcorn_edu.datasets", None),
    "scenarios": ("popcorn_edu.scenarios", None),
    "load": ("popcorn_edu.scenarios", "load"),
    "explore": ("popcorn_edu.scenarios", "explore"),
    "Fence": ("popcorn_edu.engine.steps", "Fence"),
    "score": ("popcorn_edu.planted", "score"),
    "sweep": ("popcorn_edu.sweeps", "sweep"),
    "load_curve": ("popcorn_edu.readers.load_curve", "load_curve"),
    "compare": ("popcorn_edu.readers.compare", "compare"),
    "lab": ("popcorn_edu.grading.lab", "lab"),
}

__all__ = ["__version__", *_WHERE]  # noqa: PLE0604


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(_no_such_name(name), name=name)
    module, inside = _WHERE[name]
    value = importlib.import_module(module)
    if inside is not None:
        value = getattr(value, inside)
    globals()[name] = value  # the next use asks nobody
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


def _no_such_name(name: str) -> str:
    sentence = f"popcorn_edu has no {name!r}"
    if name.startswith("_"):  # Python and IPython probing, not a person
        return sentence
    import difflib

    by_lower = {known.lower(): known for known in _WHERE}
    near = [by_lower[low] for low in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    if near:
        return f"{sentence}; near names: {', '.join(near)}"
    return f"{sentence}; the names are {', '.join(sorted(_WHERE, key=str.lower))}"

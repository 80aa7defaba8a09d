"""What a story may yield, and how to step one by hand.

A story is a generator that tells one actor's part of a protocol in the order things happen.
It may yield five things:

    an Event          say it, then it is so: the record is written and the state follows from it
    Delay(ns, cpu)    time passes; a CPU that is named is busy meanwhile
    Until(Kind, ...)  wait for a record; the yield returns that Record (or None if too late)
    Begin(who, story) another story starts beside this one, in the same kernel
    Fence()           a full memory barrier: what this CPU wrote before is seen by all

Four idioms, used in every file of the model:

    look, then wait, then look again   state may change between the look and the wait
    say it, then it is so              a story never assigns to the world; it yields an event
    a Delay is a modelling decision    it is where others can act, so where bugs can happen
    know only what your kernel knows   read your own kernel's rows and the shared windows
"""

from __future__ import annotations

import linecache
import os
import reprlib
from collections.abc import Generator, Iterator
from types import GeneratorType

from popcorn_edu.engine.trace import (
    Event,
    PopcornError,
    Record,
    check_fields,
    field_problem,
)

PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
NOT_THEIRS = (PACKAGE, os.path.dirname(os.__file__) + os.sep, "<frozen ")  # the kit, the library


class StoryError(PopcornError):
    """A story that cannot go on, named by its actor and its own line."""


class Delay:
    """Let ``ns`` nanoseconds of simulated time pass. ``cpu`` (if given) is busy meanwhile."""

    __slots__ = ("ns", "cpu")

    def __init__(self, ns: int, cpu: int | None = None) -> None:
        if type(ns) is not int or ns < 0:
            raise PopcornError(f"Delay wants a whole number of nanoseconds, 0 or more, not {ns!r}")
        self.ns, self.cpu = ns, cpu

    def __repr__(self) -> str:
        return f"Delay({self.ns})" if self.cpu is None else f"Delay({self.ns}, cpu={self.cpu})"


_CHECKED: set[tuple] = set()  # (kind, fields) that were found right once


class Until:
    """Wait for a record of this kind whose fields have these values, at most ``within`` ns."""

    __slots__ = ("kind", "fields", "values", "key", "within")

    def __init__(self, kind: type[Event], *, within: int | None = None, **match) -> None:
        self.kind, self.within = kind, within
        self.fields = fields = tuple(match)
        self.values = values = tuple(match.values())
        self.key = values[0] if len(values) == 1 else values  # as an itemgetter answers
        if within is not None and (type(within) is not int or within < 0):
            raise PopcornError(
                f"Until wants within= as a whole number of nanoseconds, 0 or more, not {within!r}"
            )
        if (kind, fields) not in _CHECKED:
            if not (isinstance(kind, type) and issubclass(kind, Event)):
                raise PopcornError(f"Until wants a kind of event, such as SlotReady, not {kind!r}")
            check_fields(kind, match)
            _CHECKED.add((kind, fields))

    def __repr__(self) -> str:
        return f"Until({self.text()})"

    def text(self) -> str:
        """What is waited for, in words for the reader of an error or a report."""
        wanted = [f"{f}={v}" for f, v in zip(self.fields, self.values, strict=True)]
        return ", ".join([self.kind.__name__, *wanted])


SAME_KERNEL = "the beginner's"


class Begin:
    """Start ``story`` beside this one, under the name ``who``.

    It belongs to the kernel of the story that begins it, and ends when that kernel panics.
    kernel=N: it belongs to kernel N. kernel=None: to none, like an interrupt on the wire.
    """

    __slots__ = ("who", "story", "kernel")

    def __init__(self, who: str, story: Generator, kernel: int | str | None = SAME_KERNEL) -> None:
        if not isinstance(story, GeneratorType):
            raise PopcornError(
                f"Begin wants a story that was called, as in Begin('kernel 3 isr', isr(world, 3)), "
                f"not {reprlib.repr(story)}"
            )
        self.who, self.story, self.kernel = str(who), story, kernel

    def __repr__(self) -> str:
        return f"Begin({self.who!r})"


class Fence:
    """A full memory barrier (smp_mb): wait until all that this CPU wrote has reached memory.

    The Sim, in which a write is seen by all at once, ignores it; the explorer, which can give
    each CPU a store buffer, empties the buffer here.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Fence()"


def as_story(made: object, who: str, maker: object = None) -> GeneratorType:
    """Refuse what is not a story, saying what a function must do to be one."""
    if isinstance(made, GeneratorType):
        return made
    name, what = getattr(maker, "__name__", ""), reprlib.repr(made)
    what = f"{name}() returned {what} instead of telling a story" if name else f"{what} is no story"
    raise StoryError(
        f"{who}: {what}; a story is a function that yields its steps (there must be a 'yield' in "
        f"it){place_of_function(maker)}"
    )


def innermost(story: GeneratorType) -> GeneratorType:
    """The generator that is really at work under a chain of ``yield from``."""
    while isinstance(story.gi_yieldfrom, GeneratorType):
        story = story.gi_yieldfrom
    return story


def place(filename: str, line: int) -> str:
    """Where, for the end of a sentence: the line's number and its text."""
    text = linecache.getline(filename, line).strip()
    cell = "ipykernel" in filename or filename.startswith("<ipython")
    where = (
        f"line {line} of your cell"
        if cell
        else f"{filename.replace(chr(92), '/').split('/')[-1]}:{line}"
    )
    return f", at {where}" + (f": {text}" if text else "")


def place_of_function(function: object) -> str:
    """Where a function begins."""
    code = getattr(function, "__code__", None)
    return place(code.co_filename, code.co_firstlineno) if code else ""


def place_of(story: GeneratorType) -> str:
    """Where a suspended story stands."""
    frame = innermost(story).gi_frame
    return place(frame.f_code.co_filename, frame.f_lineno) if frame else ""


def place_of_error(error: BaseException) -> str:
    """The deepest line of a learner's own in the error's traceback; empty if it has none."""
    where, trace = "", error.__traceback__
    while trace:
        filename = trace.tb_frame.f_code.co_filename
        if not filename.startswith(NOT_THEIRS) and "site-packages" not in filename:
            where = place(filename, trace.tb_lineno)
        trace = trace.tb_next
    return where


def raised(who: str, error: BaseException, story: GeneratorType | None = None) -> StoryError:
    """A story's own exception, as one sentence with the learner's line."""
    if isinstance(error, StoryError):
        return error
    where = place_of_error(error) or (place_of_error(error.__cause__) if error.__cause__ else "")
    return StoryError(f"{who}: {in_words(error)}{where or (place_of(story) if story else '')}")


def in_words(error: BaseException) -> str:
    """An exception as part of a sentence."""
    text = " ".join(str(error).split())
    if isinstance(error, PopcornError):
        return text
    if isinstance(error, KeyError):
        return f"KeyError: there is no entry {text}"
    if isinstance(error, TypeError) and "mappingproxy" in text:
        return "a story never assigns to the world's tables; it yields an event"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def nonsense(who: str, step: object, story: GeneratorType) -> StoryError:
    """A story yielded something that is not a step."""
    hint, what = "", reprlib.repr(step)
    if isinstance(step, GeneratorType):
        what = f"the story {step.__name__}() as a whole"
        hint = "; to tell another story inside this one write 'yield from'"
    elif isinstance(step, type) and issubclass(step, (Event, Delay)):
        what, hint = step.__name__, f"; it is a kind: write {step.__name__}(...)"
    elif isinstance(step, int):
        hint = f"; to let time pass write Delay({step})"
    return StoryError(
        f"{who} yielded {what}; a story yields an Event, Delay(ns), Until(Kind, ...) "
        f"or Begin(who, story){hint}{place_of(story)}"
    )


def walk(story: Generator, world, who: str = "walker", limit: int = 10_000) -> Iterator[Record]:
    """Step one story by hand: no scheduler, nobody else acts, a Delay is only a later time.

    Yields the Records it writes and stops when the story ends or waits for someone else; a
    story it Begins is not followed. Raises StoryError after ``limit`` steps.
    """
    story, time, seq, answer = as_story(story, who), 0, 0, None
    for _ in range(limit):
        try:
            step = story.send(answer)
        except StopIteration:
            return
        except Exception as error:
            raise raised(who, error) from error
        answer = None
        if isinstance(step, Event):
            if problem := field_problem(step):
                raise StoryError(f"{who}: {problem}{place_of(story)}")
            world.apply(step)
            yield Record(seq, time, who, None, step)
            answer, seq = seq, seq + 1
        elif isinstance(step, Delay):
            time += step.ns
        elif isinstance(step, Until):
            return
        elif not isinstance(step, Begin | Fence):
            raise nonsense(who, step, story)
    raise StoryError(f"{who} took {limit:,} steps and did not end or wait{place_of(story)}")

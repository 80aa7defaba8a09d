"""A kernel's command line taken apart: words, parameters, and what is wrong with them.

A kernel takes its command line apart word by word. What it knows it obeys, as far as it could
read it; what it does not know it hands to init; and it complains, if at all, in a log that
nobody sees before the console works.

    line = parse("present_mask=5 memmap=1G@6G mem=7Gb mklinux")
    line.parameters[1].reading   # (("add", 6442450944, 1073741824, 1),)
    line.problems                # one, of "mem=7Gb"
    print(line.explain())

Words
    word       what stands between two spaces; quotes keep spaces together
    parameter  a word the kernel looks at: ``name`` or ``name=value``; a dash in the name is an
               underscore
    argument   a word after ``--``, which goes to init unread
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from popcorn_edu.engine.trace import PopcornError
from popcorn_edu.model.cpulist import IGNORED, MISREAD, PANICS, REMARK, SILENTLY, TO_INIT
from popcorn_edu.model.parameters import FOR_INIT, OTHER, RULES

LINE_BYTES_AT_MOST = 2047  # COMMAND_LINE_SIZE of x86 less the end mark
NAME_LETTERS = 32  # a longer one is near none


class Problem(NamedTuple):
    """A word the kernel does not take as it was meant."""

    word: str
    place: int  # where the word starts, in bytes
    effect: str  # what the kernel does: one of the words above
    linux: str  # ... and how, after "Linux"
    says: str  # what is wrong and what was expected

    def __str__(self) -> str:
        return f"{self.word}: {self.says} (Linux {self.linux})"


class Parameter(NamedTuple):
    """A word of the line with what the kernel reads in it."""

    name: str  # dashes written as underscores
    value: str | None  # without its quotes; None where there is no "="
    text: str
    place: int
    owner: str  # whose parameter it is: Linux, Popcorn, or init
    reading: Any  # what the value came to; None where nothing is obeyed
    problems: tuple[Problem, ...]

    def explain(self) -> str:
        """What the kernel does with it, in a sentence."""
        if self.owner == "init":
            return f"{self.text}: not a parameter of this kernel; init gets it"
        rule = RULES.get(self.name)
        if rule is None:
            return f"{self.text}: changes nothing about CPUs, memory or devices"
        if self.reading is None:
            return f"{self.text}: {self.problems[0].says if self.problems else 'no effect'}"
        return f"{self.text}: {rule.explain(self.reading)}"


@dataclass(frozen=True)
class CommandLine:
    """A line taken apart."""

    line: str
    parameters: tuple[Parameter, ...]
    arguments: tuple[str, ...]  # after "--"
    problems: tuple[Problem, ...]

    def all(self, name: str) -> list[Parameter]:
        """Every place where a parameter is given, in order."""
        name = name.replace("-", "_")
        return [parameter for parameter in self.parameters if parameter.name == name]

    @property
    def secondary(self) -> bool:
        return any(parameter.name == "mklinux" for parameter in self.parameters)

    def explain(self) -> str:
        """One line for each word."""
        lines = [parameter.explain() for parameter in self.parameters]
        if self.arguments:
            lines.append(f"-- {' '.join(self.arguments)}: arguments for init, unread")
        return "\n".join(lines) or "an empty line: the kernel takes the whole machine"


# from text to words


def parse(line: str) -> CommandLine:
    """The line as the kernel takes it apart; never an error, whatever it says."""
    if not isinstance(line, str):
        raise PopcornError(f"{line!r} is no command line; a text was expected.")
    problems: list[Problem] = []
    text = _kept(line, problems)
    words, arguments = _take_apart(text if text.isascii() else _as_bytes(text))
    if not text.isascii():
        words, arguments = _as_letters(words), [_letters(argument) for argument in arguments]
    for word in words:
        problems += word.problems
    return CommandLine(line, tuple(words), tuple(arguments), tuple(problems))


OPEN_QUOTE = (
    REMARK,
    "takes everything up to the end of the line for one word",
    "a quote is opened and never closed; another one was expected",
)


def _take_apart(text: str) -> tuple[list[Parameter], list[str]]:
    words: list[Parameter] = []
    arguments: list[str] = []
    ended = False
    for place, name, value, word in split(text):
        if ended:
            arguments.append(name if value is None else f"{name}={value}")
        elif name == "--" and value is None:
            ended = True
        else:
            read = _read_word(name, value, word)
            if word.count('"') % 2:
                read = read._replace(problems=(*read.problems, Problem(word, 0, *OPEN_QUOTE)))
            if place:
                found = read.problems and tuple([p._replace(place=place) for p in read.problems])
                read = read._replace(place=place, problems=found)
            words.append(read)
    return words, arguments


_WORD = re.compile(r'(?:[^" \t\n\v\f\r\xa0]+|"[^"]*(?:"|$))+')


def split(text: str) -> Iterable[tuple[int, str, str | None, str]]:
    """(place, name, value, word) of each word, quotes taken off as the kernel does.

    >>> [(name, value) for _, name, value, _ in split('a="b c" "d=e f" g --')]
    [('a', 'b c'), ('d', 'e f'), ('g', None), ('--', None)]
    """
    for found in _WORD.finditer(text):
        word = found[0]
        body = word[1:] if word[0] == '"' else word
        equals = body.find("=", 1)  # an "=" in front is part of the name
        name, value = (body, None) if equals < 0 else (body[:equals], body[equals + 1 :])
        if '"' in word:
            if value is not None and value[:1] == '"':
                value = value[1:].removesuffix('"')
            elif word[0] == '"':
                name = name if value is not None else name.removesuffix('"')
                value = value and value.removesuffix('"')
        yield found.start(), name, value, word


def _kept(line: str, problems: list[Problem]) -> str:
    """The part of the line that the kernel ever sees."""
    if "\0" in line:
        place = line.index("\0")
        says = "the line ends at a zero byte; nothing after it is read"
        problems.append(Problem("\\0", place, IGNORED, f"never sees the rest, {SILENTLY}", says))
        line = line[:place]
    count = len(line.encode("utf-8", "surrogatepass"))
    if count > LINE_BYTES_AT_MOST:
        says = f"the line has {count:,} bytes; {LINE_BYTES_AT_MOST:,} at most were expected"
        linux = (
            "gets no more from a careful loader, such as Popcorn's wr_cmdline, and stops at a BUG "
            "where the loader hands over all of it, as QEMU does"
        )
        problems.append(Problem("the end", LINE_BYTES_AT_MOST, PANICS, linux, says))
        line = line.encode("utf-8", "surrogatepass")[:LINE_BYTES_AT_MOST].decode("utf-8", "ignore")
    return line


MEANT = {
    "\u2013": '"-"',
    "\u2212": '"-"',
    "\u2014": '"--"',
    "\xa0": "a space",
    **dict.fromkeys("\u201c\u201d\u201e", "'\"'"),
}


def _as_bytes(text: str) -> str:
    """The kernel knows bytes, not letters: a no-break space ends a word, and "–" is no dash.

    So the line is read with a letter for each byte, and what is shown of it is turned back.
    """
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _letters(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def _as_letters(words: list[Parameter]) -> list[Parameter]:
    """The words with letters again, and one problem for each that has an odd letter in it."""
    shown = []
    for word in words:
        text = _letters(word.text)
        problems = word.problems
        if not word.text.isascii():
            odd = next(letter for letter in text if letter > "\x7f")
            says = f"{odd!r} is no letter a kernel knows; {MEANT.get(odd, 'ASCII')} was expected"
            linux = "takes its bytes for part of the word, and a byte A0 for a space"
            problems = (Problem(text, word.place, MISREAD, linux, says),)
        value = word.value and _letters(word.value)
        name = _letters(word.name)
        shown.append(word._replace(name=name, text=text, value=value, problems=problems))
    return shown


BARE = ("ro", "rw")  # with a value they are somebody else's
LEFT_TO_INIT = "hands it to init as an environment variable"


@lru_cache(maxsize=4096)  # the lines of many kernels share most of their words
def _read_word(name: str, value: str | None, word: str) -> Parameter:
    name = name.replace("-", "_") if "-" in name else name
    rule = RULES.get(name)
    if rule is not None:
        reading, complaints = rule.read(value)
        problems = tuple(Problem(word, 0, *complaint) for complaint in complaints)
        return Parameter(name, value, word, 0, rule.owner, reading, problems)
    if name in BARE and value is not None:
        problem = Problem(word, 0, TO_INIT, LEFT_TO_INIT, f"{name} takes no value")
        return Parameter(name, value, word, 0, "init", None, (problem,))
    if name in OTHER or "." in name or name.startswith(("BOOT_IMAGE", "kexec")):
        return Parameter(name, value, word, 0, "Linux", None, ())
    problem = _stranger(word, value)
    return Parameter(name, value, word, 0, "init", None, (problem,) if problem else ())


def _stranger(word: str, value: str | None) -> Problem | None:
    """A remark on a word that goes to init, unless it is one that init is known to want."""
    name = word.strip('"').partition("=")[0] or word
    if name in FOR_INIT:
        if value is not None or not name.isdecimal():
            return None
        says = f"{name} alone is a run level; if it belongs to the word before, leave out the space"
        return Problem(word, 0, REMARK, "hands it to init as an argument", says)
    shelf = "an environment variable" if value is not None else "an argument"
    near = _near(name)
    says = f"no parameter is called {name!r}" + (f"; did you mean {near}?" if near else "")
    return Problem(word, 0, TO_INIT, f"hands it to init as {shelf}", says)


def _near(name: str) -> str:
    """The parameter that is a letter more, a letter less, or a letter away; "" if none is.

    A line may consist of hundreds of strange words, so this is a look-up and not a comparison
    with every name.
    """
    plain = name[:NAME_LETTERS].lower().replace("-", "_").strip("_")
    return next((_spellings()[text] for text in _thinned(plain) if text in _spellings()), "")


@cache
def _spellings() -> dict[str, str]:
    return {text: name for name in (*sorted(OTHER), *RULES) for text in _thinned(name)}


def _thinned(name: str) -> list[str]:
    """The name, and the name without one of its letters, as long as three are left."""
    texts = [name, *(name[:at] + name[at + 1 :] for at in range(len(name)))]
    return [text for text in texts if len(text) > 2]

"""popcorn-edu: run scenarios in a terminal, step through them, keep them, show and export them.

Every command is a few lines over the same functions that a notebook calls. A mistake of the
user's is one sentence on stderr and exit code 2; nothing is written half.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from popcorn_edu import __version__, datasets, scenarios
from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.engine.world import Run
from popcorn_edu.model.machine import Machine
from popcorn_edu.readers import checks, export

EXAMPLES = """examples:
  popcorn-edu list
  popcorn-edu run fan_in --seed 3 --kernels 5 --check
  popcorn-edu run lost_wakeup --step
  popcorn-edu run ping --save ping.popcorn
  popcorn-edu show ping.popcorn --at 12
  popcorn-edu show magny-cours-48
  popcorn-edu export ping.popcorn --to html -o ping.html
"""
STEP_HELP = "Enter or n: next   b: back   a number: go there   w: the whole world   q: quit"
STORIES = {"send", "receive"}  # options of scenarios that only a notebook can give: functions


class Parser(argparse.ArgumentParser):
    """argparse that answers a misspelt word with the near ones, on one line."""

    def error(self, message: str):
        words = [word for word in sys.argv[1:] if f"{word!r}" in message or word in message]
        choices = set(self.vocabulary())
        hint = f"; {near_names(words[0], choices)}" if words else ""
        raise PopcornError(f"{self.prog}: {message.split(' (choose')[0]}{hint}")

    def vocabulary(self):
        """Every word this parser and its commands know."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action.choices, dict):
                for name, command in action.choices.items():
                    yield name
                    yield from command.vocabulary()


# -- list -----------------------------------------------------------------------------------------


def list_command(args: argparse.Namespace) -> int:
    print("scenarios")
    for name in scenarios.names():
        print(f"  {name:<18}{first_sentence(scenarios.scenario(name))}")
    print("\nmachines")
    for name in Machine.names():
        machine = Machine.load(name)
        default = "  (default)" if name == Machine.default().name else ""
        print(f"  {name:<18}{len(machine.cpus):>4} CPUs  {machine.title}{default}")
    print("\nchecks")
    for name, check in checks.ALL.items():
        print(f"  {name:<30}{first_sentence(check)}")
    print("\nlabs")
    for name in lab_names():
        print(f"  {name}")
    return 0


def first_sentence(function: Callable) -> str:
    return " ".join((function.__doc__ or "").replace("``", "").split()).split(". ")[0].rstrip(".")


def lab_names() -> list[str]:
    """The labs in this checkout; an installed package has none."""
    student = datasets.root().parent / "labs" / "student"
    return sorted(path.name for path in student.glob("lab*")) or ["(in the project's folder)"]


# -- run ------------------------------------------------------------------------------------------


def run_command(args: argparse.Namespace) -> int:
    run = scenarios.run(args.scenario, **chosen(args))
    if args.save:
        run.save(args.save)
    if args.step:
        step_through(run)
    else:
        show_records(run, args.limit)
    if args.save:
        print(f"saved to {args.save}")
    return report(run) if args.check else 0


def chosen(args: argparse.Namespace) -> dict:
    """The scenario's options as given: --seed 3, or --set cpus=0,6,12."""
    options = {
        name.removeprefix("option_"): value
        for name, value in vars(args).items()
        if name.startswith("option_") and value is not None
    }
    for setting in args.set or ():
        name, equals, text = setting.partition("=")
        if not equals:
            raise PopcornError(f"--set {setting}: expected NAME=VALUE, as in --set slots=8")
        options[name.strip().replace("-", "_")] = plain_value(text.strip())
    return options


def plain_value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError):
        return text


def show_records(run: Run, limit: int | None) -> None:
    shown = len(run) if limit is None else min(max(limit, 0), len(run))
    run.show(0, shown)
    if shown < len(run):
        print(f"... and {len(run) - shown:,} more records")


def report(run: Run) -> int:
    """The rules this run breaks, if any; exit code 1 then, for scripts."""
    findings = checks.all(run)
    for finding in findings:
        print(f"{finding.check}: {finding}")
    if not findings:
        print(f"all {len(checks.ALL)} rules hold")
    return 1 if findings else 0


def step_through(run: Run) -> None:
    """One record at a time, forwards and back, on a terminal; all of them where there is none."""
    if not sys.stdin.isatty():
        show_records(run, None)
        return
    print(STEP_HELP)
    n = 0
    while True:
        if n:
            record = run.trace[n - 1]
            print(record)
            for line in changes(run.at(n - 1).snapshot(), run.at(n).snapshot()):
                print(f"         {line}")
        try:
            answer = input(f"{n}/{len(run)} > ").strip().lower()
        except EOFError:
            return
        if answer in ("q", "quit"):
            return
        if answer == "w":
            print_world(run, n)
        elif answer.lstrip("-").isdigit():
            n = min(max(int(answer), 0), len(run))
        elif answer in ("b", "back"):
            n = max(n - 1, 0)
        elif answer in ("", "n", "next"):
            if n == len(run):
                print("that was the last record")
            n = min(n + 1, len(run))
        else:
            print(STEP_HELP)


def changes(before: dict, after: dict) -> list[str]:
    """What one step changed, table by table."""
    lines = []
    for part, tables in after.items():
        for name, table in tables.items():
            old = before[part][name]
            for key in [*table, *(key for key in old if key not in table)]:
                if old.get(key) != table.get(key):
                    lines.append(
                        f"{part}.{name}[{words(key)}]: {words(old.get(key, '-'))} -> "
                        f"{words(table.get(key, '-'))}"
                    )
    return lines


def words(value: object) -> str:
    plain = isinstance(value, tuple) and not hasattr(value, "fields")
    return ", ".join(map(str, value)) if plain else str(value)


def print_world(run: Run, n: int) -> None:
    for part, tables in run.at(n).snapshot().items():
        for name, table in tables.items():
            for key, value in table.items():
                print(f"{part}.{name}[{words(key)}] = {words(value)}")


# -- show and export ------------------------------------------------------------------------------


def show_command(args: argparse.Namespace) -> int:
    if not Path(args.what).exists() and args.what in Machine.names():
        print(Machine.load(args.what).describe())
        return 0
    run = open_run(args.what)
    if args.at is None:
        show_records(run, args.limit)
    else:
        print_world(run, args.at)
    return 0


def open_run(what: str) -> Run:
    """A saved run, or a scenario with its defaults."""
    if Path(what).exists():
        return scenarios.load(what)
    if what in scenarios.names():
        return scenarios.run(what)
    known = [*scenarios.names(), *Machine.names()]
    raise PopcornError(f"{what}: no such file, scenario or machine; {near_names(what, known)}")


def export_command(args: argparse.Namespace) -> int:
    out = Path(args.output)
    if out.exists() and not args.force:
        raise PopcornError(f"{out} is already there; --force replaces it")
    run = open_run(args.what)
    with written_whole(out) as draft:
        if args.to == "html":
            from popcorn_edu.readers.player import to_html  # the other formats need no pictures

            to_html(run, draft)
        else:
            text = export.as_csv(run.trace) if args.to == "csv" else export.as_text(run.trace)
            draft.write_text(text, encoding="utf-8")
    print(f"wrote {out}")
    return 0


@contextlib.contextmanager
def written_whole(path: Path):
    """A draft beside the file, moved into its place when it is complete."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as problem:
        raise PopcornError(f"cannot write {path}: {problem.strerror}") from None
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def labs_command(args: argparse.Namespace) -> int:
    from popcorn_edu.grading.build import build  # late: it brings nbgrader, which takes seconds

    for path in build(args.folder, args.names):
        print(path)
    return 0


# -- the command line -----------------------------------------------------------------------------


def parser() -> Parser:
    top = Parser(
        prog="popcorn-edu",
        description="Replicated kernels on one machine, step by step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"popcorn_edu {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    command = commands.add_parser("list", help="the scenarios, machines, checks and labs there are")
    command.set_defaults(do=list_command)

    command = commands.add_parser(
        "run",
        help="run a scenario and print what happens",
        description="Run a scenario and print what happens, one sentence a record.",
    )
    command.add_argument("scenario", metavar="SCENARIO", help=", ".join(scenarios.names()))
    add_scenario_options(command)
    command.add_argument("--set", action="append", metavar="NAME=VALUE", help="any option by name")
    command.add_argument("--step", action="store_true", help=f"one at a time. {STEP_HELP}")
    command.add_argument("--limit", type=int, metavar="N", help="print only the first N records")
    command.add_argument("--save", metavar="FILE", help="keep the run in a file")
    command.add_argument(
        "--check", action="store_true", help="judge the run by all rules; exit 1 if one is broken"
    )
    command.set_defaults(do=run_command)

    command = commands.add_parser("show", help="a saved run, a scenario, or a machine")
    command.add_argument("what", metavar="FILE|SCENARIO|MACHINE")
    command.add_argument("--at", type=int, metavar="N", help="the state after N records")
    command.add_argument("--limit", type=int, metavar="N", help="print only the first N records")
    command.set_defaults(do=show_command)

    command = commands.add_parser("export", help="a run as a web page, a table or text")
    command.add_argument("what", metavar="FILE|SCENARIO")
    command.add_argument("--to", choices=["html", "csv", "txt"], default="html")
    command.add_argument("-o", "--output", required=True, metavar="OUT")
    command.add_argument("--force", action="store_true", help="replace OUT if it is there")
    command.set_defaults(do=export_command)

    command = commands.add_parser("labs", help="build the students' notebooks from the sources")
    command.add_argument("action", choices=["build"])
    command.add_argument("names", nargs="*", metavar="LAB", help="such as lab05; all, if none")
    command.add_argument("--folder", help="the course folder, if it is not this project's labs/")
    command.set_defaults(do=labs_command)
    return top


def add_scenario_options(command: argparse.ArgumentParser) -> None:
    """--seed, --kernels …: every option that some scenario has and a terminal can give."""
    seen: dict[str, object] = {}
    for name in scenarios.names():
        for option, default in scenarios.options(name).items():
            if option not in STORIES and option not in seen:
                seen[option] = default
    group = command.add_argument_group("options of the scenario")
    for option, default in seen.items():
        flag = "--" + option.replace("_", "-")
        if isinstance(default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, dest=f"option_{option}")
        else:
            usual = "" if default is None else f"usually {default}"
            group.add_argument(
                flag, type=plain_value, metavar="X", dest=f"option_{option}", help=usual
            )


def main(argv: list[str] | None = None) -> int:
    try:
        args = parser().parse_args(argv)
        code = args.do(args)
        sys.stdout.flush()
        return code
    except PopcornError as problem:
        print(problem, file=sys.stderr)
        return 2
    except BrokenPipeError:  # somebody read enough, as in `popcorn-edu run fan_in | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130

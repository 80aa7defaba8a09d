"""popcorn-edu: run scenarios in a terminal, step through them, keep them, show and export them;
look at machines, divide them into plans, and ask what a kernel makes of a command line.

Every command is a few lines over the same functions that a notebook calls. A mistake of the
user's is one sentence on stderr and exit code 2; no file is written half.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import popcorn_edu
from popcorn_edu import faults, scenarios
from popcorn_edu.engine.explore import STATES_AT_MOST
from popcorn_edu.engine.trace import PopcornError, near_names
from popcorn_edu.engine.world import Run
from popcorn_edu.model.firmware import GIB
from popcorn_edu.model.machine import Machine
from popcorn_edu.readers import checks, export

EXAMPLES = """examples:
  popcorn-edu list
  popcorn-edu run fan_in --seed 3 --kernels 5 --check
  popcorn-edu run lost_wakeup --step
  popcorn-edu run ping --save ping.popcorn
  popcorn-edu explore fan_in --barrier store --memory sc
  popcorn-edu show ping.popcorn --at 12
  popcorn-edu show magny-cours-48
  popcorn-edu export ping.popcorn --to html -o ping.html
  popcorn-edu machines h8qg6-64
  popcorn-edu plan h8qg6-64 --grouping "per node" --save mine.plan
  popcorn-edu plan mine.plan --lines
  popcorn-edu cmdline "mklinux present_mask=8-15 mem=2G" --machine h8qg6-64
"""
STEP_HELP = "Enter or n: next   b: back   a number: go there   w: the whole world   q: quit"
POLICIES = ("kernels", "grouping", "memory", "devices", "by_slot")  # what Partition.build() takes
STORIES = {
    "send",
    "receive",
    "notified",
}  # options of scenarios that only a notebook can give: functions


class Parser(argparse.ArgumentParser):
    """argparse that answers a misspelt word with the near ones, on one line."""

    def error(self, message: str):
        message, _, choices = message.partition(" (choose from ")
        hint = f"{self.prog} --help tells more"
        if choices:
            wrong = message.rpartition("invalid choice: ")[2].strip("'")
            hint = near_names(wrong, re.findall(r"[\w-]+", choices))
        elif message.startswith("unrecognized arguments: --"):
            wrong = message.split()[2].partition("=")[0]
            message = f"there is no option {wrong} here"
            near = difflib.get_close_matches(wrong, self.options())
            if near and wrong not in near:  # else it is an option of another command
                hint = f"did you mean {' or '.join(near)}?"
        raise PopcornError(f"{self.prog}: {message}; {hint}")

    def options(self) -> set[str]:
        """Every option that this parser and its commands know."""
        known = set()
        for action in self._actions:
            known |= {option for option in action.option_strings if option.startswith("--")}
            if isinstance(action.choices, dict):
                known = known.union(*(command.options() for command in action.choices.values()))
        return known


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
        print(f"  {name:<36}{first_sentence(check)}")
    print("\nlabs")
    for name, title in labs().items():
        print(f"  {name:<18}{title}")
    return 0


def first_sentence(function: Callable) -> str:
    return " ".join((function.__doc__ or "").replace("``", "").split()).split(". ")[0].rstrip(".")


def labs() -> dict[str, str]:
    """The labs, with their titles. Their notebooks are in the project's folder, under labs/."""
    from popcorn_edu import grading  # late: a terminal that runs a scenario needs no lab
    from popcorn_edu.grading.lab import lab_module

    names = sorted(path.stem for path in Path(grading.__file__).parent.glob("lab[0-9][0-9].py"))
    return {name: lab_module(name).TITLE for name in names}


# -- run ------------------------------------------------------------------------------------------


def run_command(args: argparse.Namespace) -> int:
    run = scenarios.run(args.scenario, **chosen(args), **chosen_fault(args))
    if args.save:
        run.save(args.save)
    if args.step and sys.stdin.isatty():
        step_through(run)
    else:
        show_records(run, args.limit)
    if args.save:
        print(f"saved to {args.save}")
    return report(run) if args.check else 0


def chosen(args: argparse.Namespace) -> dict:
    """The scenario's options as given: --seed 3, or --set cpus=0,6,12."""
    known = [name for name in scenarios.options(args.scenario) if name not in STORIES]
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
    for name in options:
        if name not in known:
            raise PopcornError(
                f"scenario {args.scenario} has no option {name!r}; {near_names(name, known)}"
            )
    return options


def chosen_fault(args: argparse.Namespace) -> dict:
    """--fault NAME, --at N, --with ns=5000."""
    if args.fault is None:
        if args.at is not None or args.fault_options:
            raise PopcornError("--at and --with say where and how a fault happens: say --fault")
        return {}
    options = {}
    for setting in args.fault_options or ():
        name, equals, text = setting.partition("=")
        if not equals:
            raise PopcornError(f"--with {setting}: expected NAME=VALUE, as in --with ns=5000")
        options[name.strip()] = plain_value(text.strip())
    return {"fault": args.fault, "at": args.at, "fault_options": options}


def faults_command(args: argparse.Namespace) -> int:
    """The deck, or one card of it."""
    if args.name is None:
        for name, card in faults.DECK.items():
            print(f"{name:<22}{card.models}")
        return 0
    card = faults.fault(args.name)
    print(f"{card.name}: {card.models}")
    print(f"  at              {card.where()}")
    for option, default in card.options.items():
        print(f"  --with {option}={default}")
    print(f"  in the world    {card.real}")
    if card.fails:
        print(f"  may break       {', '.join(card.fails)}")
    return 0


def plain_value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
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
    """One record at a time, forwards and back, with what each changes in the world."""
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
            print()
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


# -- explore --------------------------------------------------------------------------------------


def explore_command(args: argparse.Namespace) -> int:
    """Exit code 1 when a counterexample is found, for scripts."""
    verdict = scenarios.explore(
        args.scenario, memory=args.memory_model, states=args.states, **chosen(args)
    )
    if verdict.run is not None:
        if args.save:
            verdict.run.save(args.save)
        if args.step and sys.stdin.isatty():
            step_through(verdict.run)
        else:
            show_records(verdict.run, args.limit)
    print(verdict)
    if verdict.run is not None and args.save:
        print(f"saved to {args.save}")
    return 1 if verdict.run is not None else 0


# -- show and export ------------------------------------------------------------------------------


def show_command(args: argparse.Namespace) -> int:
    if not Path(args.what).exists() and args.what in Machine.names():
        print(Machine.load(args.what).describe())
        return 0
    run = open_run(args.what, [*scenarios.names(), *Machine.names()])
    if args.at is None:
        show_records(run, args.limit)
    else:
        print_world(run, args.at)
    return 0


def open_run(what: str, known: list[str]) -> Run:
    """A saved run, or a scenario with its defaults; ``known`` is what else could be meant."""
    if Path(what).exists():
        return scenarios.load(what)
    if what in scenarios.names():
        return scenarios.run(what)
    raise PopcornError(
        f"there is no file and nothing else called {what!r}; {near_names(what, known)}"
    )


def export_command(args: argparse.Namespace) -> int:
    out = Path(args.output)
    if out.exists() and not args.force:
        raise PopcornError(f"{out} is already there; --force replaces it")
    run = open_run(args.what, scenarios.names())
    if args.to == "html":
        from popcorn_edu.readers.player import to_html  # late: the other formats need no pictures

        to_html(run, out)
    else:
        export.write(run.trace, args.to, out, force=args.force)
    print(f"wrote {out}")
    if args.to == "shiviz":
        print(f"in ShiViz, the log parsing regular expression is {export.SHIVIZ_EXPRESSION}")
    return 0


def compare_command(args: argparse.Namespace) -> int:
    """Exit code 1 when the runs differ, as diff has it."""
    from popcorn_edu.readers.compare import compare  # late: most commands compare nothing

    out = Path(args.html) if args.html else None
    if out and out.exists() and not args.force:
        raise PopcornError(f"{out} is already there; --force replaces it")
    found = compare(*(open_run(what, scenarios.names()) for what in (args.a, args.b)))
    print(found)
    if out:
        found.to_html(out)
        print(f"wrote {out}")
    return 0 if found.same else 1


def perfetto_command(args: argparse.Namespace) -> int:
    run = open_run(args.what, scenarios.names())
    server = export.perfetto_server(run.trace, args.port)
    host, port = server.server_address
    print(f"Perfetto with {args.what}: http://{host}:{port}/   (Ctrl-C ends it)", flush=True)
    if args.browser:
        import webbrowser  # late: not every machine has one

        webbrowser.open(f"http://{host}:{port}/")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0


# -- machines, plans and command lines -------------------------------------------------------------


def machines_command(args: argparse.Namespace) -> int:
    if args.name:
        print(Machine.load(args.name).describe())
        return 0
    print(f"{'machine':<18}{'CPUs':>5}{'nodes':>7}{'RAM':>12}  {'memory map':<11}{'PCI':>4}")
    for name in Machine.names():
        machine = Machine.load(name)
        memory = f"{machine.memory_bytes / GIB:.1f} GiB" if machine.memory_bytes else "unknown"
        source = machine.memory_map_source
        known = "laid out" if source.startswith("model default") else "real" if source else "none"
        print(
            f"{name:<18}{len(machine.cpus):>5}{len(machine.nodes):>7}{memory:>12}  {known:<11}"
            f"{len(machine.pci_functions) or '-':>4}"
        )
    print('"real": the firmware\'s own map; "laid out": made from the sizes of the nodes')
    return 0


def plan_command(args: argparse.Namespace) -> int:
    """Exit code 1 when the plan has problems, for scripts."""
    from popcorn_edu.model.partition import Partition  # late: most commands divide nothing

    out = Path(args.save) if args.save else None
    if out and out.exists() and not args.force:
        raise PopcornError(f"{out} is already there; --force replaces it")
    wanted = {
        option: value
        for option in POLICIES
        if (value := getattr(args, option)) is not None and value is not False
    }
    if Path(args.what).exists() and args.what not in Machine.names():
        if wanted:
            option = "--" + next(iter(wanted)).replace("_", "-")
            raise PopcornError(
                f"{option} divides a machine anew, and {args.what} is a plan already; a machine's "
                "name was expected"
            )
        plan = Partition.load(args.what)
    elif args.what in Machine.names():
        plan = Partition.build(args.what, **wanted)
    else:
        near = near_names(args.what, Machine.names())
        hint = near if near.startswith("did") else "`popcorn-edu machines` lists the machines"
        raise PopcornError(f"there is no saved plan and no machine called {args.what!r}; {hint}")
    print(plan)
    if args.lines:
        for k in range(len(plan.kernels)):
            print(f"\nkernel {k} boots with\n  {plan.command_line(k)}")
    problems = plan.problems()
    for title, sentences in (("remarks", plan.remarks()), ("problems", problems)):
        if sentences:
            print(f"\n{title}")
            for sentence in sentences:
                print(f"  {sentence}")
    if not problems:
        print("\nno problems")
    if out:
        plan.save(out)
        print(f"saved to {out}")
    return 1 if problems else 0


def cmdline_command(args: argparse.Namespace) -> int:
    """Exit code 1 when the kernel does not do what the line seems to say."""
    from popcorn_edu.model import cmdline  # late, likewise

    machine = Machine.load(args.machine) if args.machine else None
    line = cmdline.parse(args.line)
    print(line.explain())
    if machine:
        seen = cmdline.apply(line, machine, popcorn=not args.linux)
        print(f"\non {machine.name} the kernel then has\n{seen.describe()}")
        return 1 if seen.problems or seen.panic else 0
    if line.problems:
        print("\nproblems")
    for problem in line.problems:
        print(f"  {problem}")
    return 1 if line.problems else 0


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
    top.add_argument(
        "--version", action="version", version=f"popcorn_edu {popcorn_edu.__version__}"
    )
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
    command.add_argument(
        "--step", action="store_true", help=f"one at a time, in a terminal ({STEP_HELP})"
    )
    command.add_argument("--limit", type=int, metavar="N", help="print only the first N records")
    command.add_argument("--save", metavar="FILE", help="keep the run in a file")
    command.add_argument(
        "--fault", metavar="NAME", help="let this go wrong ('popcorn-edu faults' lists what can)"
    )
    command.add_argument("--at", type=int, metavar="N", help="the fault's record, not the first")
    command.add_argument(
        "--with", dest="fault_options", action="append", metavar="NAME=VALUE",
        help="an option of the fault, as ns=5000",
    )  # fmt: skip
    command.add_argument(
        "--check", action="store_true", help="judge the run by all rules; exit 1 if one is broken"
    )
    command.set_defaults(do=run_command)

    command = commands.add_parser(
        "explore",
        help="search every order in which a small scenario can happen",
        description="Search every order in which a small configuration of a scenario can happen. "
        "Prints the shortest story that goes wrong, and exit code 1; or says that there is none.",
    )
    command.add_argument("scenario", metavar="SCENARIO", help=", ".join(scenarios.SMALL))
    command.add_argument(
        "--memory",
        dest="memory_model",
        default="sc",
        metavar="sc|tso",
        help="tso: each CPU has a store buffer, as on x86; usually sc",
    )
    command.add_argument(
        "--states", type=int, default=STATES_AT_MOST, metavar="N", help="give up after N states"
    )
    add_scenario_options(command)
    command.add_argument("--set", action="append", metavar="NAME=VALUE", help="any option by name")
    command.add_argument(
        "--step", action="store_true", help=f"one at a time, in a terminal ({STEP_HELP})"
    )
    command.add_argument("--limit", type=int, metavar="N", help="print only the first N records")
    command.add_argument("--save", metavar="FILE", help="keep what is found in a file")
    command.set_defaults(do=explore_command)

    command = commands.add_parser("faults", help="what can go wrong, or all about one fault")
    command.add_argument("name", nargs="?", metavar="NAME")
    command.set_defaults(do=faults_command)

    command = commands.add_parser("show", help="a saved run, a scenario, or a machine")
    command.add_argument("what", metavar="FILE|SCENARIO|MACHINE")
    command.add_argument("--at", type=int, metavar="N", help="the state after N records")
    command.add_argument("--limit", type=int, metavar="N", help="print only the first N records")
    command.set_defaults(do=show_command)

    command = commands.add_parser("export", help="a run as a file that other programs open")
    command.add_argument("what", metavar="FILE|SCENARIO")
    command.add_argument(
        "--to", choices=["html", *export.TEXTS, "ctf"], default="html",
        help="html: the player. perfetto: for ui.perfetto.dev. shiviz: vector clocks. ctf: a "
        "folder for babeltrace2 and Trace Compass",
    )  # fmt: skip
    command.add_argument("-o", "--output", required=True, metavar="OUT")
    command.add_argument("--force", action="store_true", help="replace OUT if it is there")
    command.set_defaults(do=export_command)

    command = commands.add_parser(
        "compare",
        help="two runs: where they part, and what becomes of each message",
        description="Where two runs part, and what becomes of each message. Exit code 1 when they "
        "differ.",
    )
    command.add_argument("a", metavar="FILE|SCENARIO")
    command.add_argument("b", metavar="FILE|SCENARIO")
    command.add_argument("--html", metavar="OUT", help="also a page: both players under one clock")
    command.add_argument("--force", action="store_true", help="replace OUT if it is there")
    command.set_defaults(do=compare_command)

    command = commands.add_parser(
        "perfetto",
        help="a run in Perfetto's own interface, in the browser",
        description="Serve Perfetto's interface with this run open, on this machine only and "
        "without a network. It comes with pip install 'popcorn_edu[perfetto]'.",
    )
    command.add_argument("what", metavar="FILE|SCENARIO")
    command.add_argument("--port", type=int, default=0, metavar="N", help="usually any free one")
    command.add_argument(
        "--browser", action=argparse.BooleanOptionalAction, default=True, help="open a page there"
    )
    command.set_defaults(do=perfetto_command)

    command = commands.add_parser("machines", help="the machines there are, or all about one")
    command.add_argument("name", nargs="?", metavar="NAME")
    command.set_defaults(do=machines_command)

    command = commands.add_parser(
        "plan",
        help="divide a machine among kernels, or look at a saved plan",
        description="Divide a machine among kernels by policies, or look at a saved plan. Prints "
        "who gets what and every problem; exit code 1 if there is one.",
    )
    command.add_argument("what", metavar="MACHINE|FILE")
    command.add_argument("--kernels", type=int, metavar="N", help="how many, where that is free")
    command.add_argument(
        "--grouping", metavar="POLICY", help='who gets which CPUs: "per node", "per core", ...'
    )
    command.add_argument(
        "--memory", metavar="POLICY", help='who gets which RAM: "popcorn", "per node", ...'
    )
    command.add_argument(
        "--devices", metavar="POLICY", help='who gets which devices: "primary" or "near"'
    )
    command.add_argument(
        "--by-slot", action="store_true", help="blacklists name slots, which is our extension"
    )
    command.add_argument("--lines", action="store_true", help="also what each kernel boots with")
    command.add_argument("--save", metavar="FILE", help="keep the plan in a file")
    command.add_argument("--force", action="store_true", help="replace FILE if it is there")
    command.set_defaults(do=plan_command)

    command = commands.add_parser(
        "cmdline",
        help="what a kernel makes of a command line",
        description="What a kernel makes of a command line, word by word; with --machine also "
        "which CPUs, RAM and devices it then has. Exit code 1 if the line has problems.",
    )
    command.add_argument("line", metavar="LINE", help="in quotes, as it would stand in the loader")
    command.add_argument("--machine", metavar="NAME", help="a machine of `popcorn-edu machines`")
    command.add_argument(
        "--linux", action="store_true", help="an ordinary Linux, without Popcorn's parameters"
    )
    command.set_defaults(do=cmdline_command)

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
    """Run one command; 0: done, 1: a rule is broken or a plan is unsound, 2: the user's mistake."""
    try:
        args = parser().parse_args(argv)
        code = args.do(args)
        sys.stdout.flush()
        return code
    except PopcornError as problem:
        print(problem, file=sys.stderr)
        return 2
    except BrokenPipeError:  # somebody read enough, as in `popcorn-edu run fan_in | head`
        sys.stdout = open(os.devnull, "w")  # Python flushes it once more when it ends
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
